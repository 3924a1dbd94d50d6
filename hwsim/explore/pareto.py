"""Which points of a trade-off nobody beats, and how much of the objective space they cover.

`non_dominated(points)` marks the Pareto set, `possibly_non_dominated(best, worst)` does so where each objective is
only known as an interval, `hypervolume(points, reference)` measures a set exactly in any number of objectives.
Objectives are columns, smaller is better unless `maximize` says otherwise. Equal points do not dominate each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


def non_dominated(points: ArrayLike, maximize: Sequence[bool] | None = None) -> Mask:
    """For each point, whether no other is at least as good in every objective and better in one.

    points: (N, D), infinities allowed -> (N,) booleans. O(N F D) with F points in the set.
    Raises ValueError for NaN or another shape.

    >>> non_dominated([[1, 5], [2, 2], [3, 3], [5, 1]]).tolist()
    [True, True, False, True]
    """
    values = as_costs(points, maximize)
    keep = np.zeros(len(values), dtype=np.bool_)
    # In lexicographic order a point can only be dominated by one before it, and then by one of the set so far.
    order = np.lexsort(values.T[::-1])
    front = np.empty_like(values)
    size = 0
    for index in order:
        row = values[index]
        before = front[:size]
        if not ((before <= row).all(axis=1) & (before < row).any(axis=1)).any():
            keep[index] = True
            front[size] = row
            size += 1
    return keep


def possibly_non_dominated(best: ArrayLike, worst: ArrayLike, maximize: Sequence[bool] | None = None) -> Mask:
    """For each point, whether the intervals leave open that nobody beats it.

    best, worst: (N, D), the good and the bad end of every objective. A point is out only when some other point, taken
    at its worst, is better in one objective than this one at its best, and no worse in the others.
    """
    low, high = as_costs(best, maximize), as_costs(worst, maximize)
    if low.shape != high.shape:
        raise ValueError(f"pareto: expected best and worst of one shape, got {low.shape} and {high.shape}")
    wrong = np.argwhere(low > high)
    if len(wrong):
        row, column = (int(i) for i in wrong[0])
        raise ValueError(f"pareto: point {row}, objective {column}: its best value is worse than its worst")
    keep = np.ones(len(low), dtype=np.bool_)
    for index, row in enumerate(low):
        beaten = (high <= row).all(axis=1) & (high < row).any(axis=1)
        beaten[index] = False
        keep[index] = not beaten.any()
    return keep


def hypervolume(points: ArrayLike, reference: ArrayLike, maximize: Sequence[bool] | None = None) -> float:
    """Volume of the region that the points dominate, bounded by `reference`; points outside it add nothing.

    Exact: slicing along the last objective down to a sweep in two (HSO; While et al., IEEE TEC 10(1), 2006).
    points: (N, D), reference: (D,), both finite. Raises ValueError otherwise.

    >>> hypervolume([[1, 2], [2, 1]], [3, 3])
    3.0
    """
    values = as_costs(points, maximize)
    bound = as_costs(np.atleast_2d(np.asarray(reference, dtype=np.float64)), maximize)
    if bound.shape != (1, values.shape[1]):
        raise ValueError(f"hypervolume: expected a reference of {values.shape[1]} objectives, got {bound.shape[-1]}")
    if not (np.isfinite(values).all() and np.isfinite(bound).all()):
        raise ValueError("hypervolume: expected finite points and reference")
    inside = values[(values < bound).all(axis=1)]
    return volume(inside, bound[0])


def volume(points: Floats, bound: Floats) -> float:
    """Hypervolume of points that all lie strictly below `bound`, by recursion over the objectives."""
    if len(points) == 0:
        return 0.0
    if points.shape[1] == 1:
        return float(bound[0] - points[:, 0].min())
    points = points[non_dominated(points)]
    if points.shape[1] == 2:
        return sweep(points, bound)
    points = points[np.argsort(points[:, -1], kind="stable")]
    tops = np.append(points[1:, -1], bound[-1])
    total = 0.0
    for count, (bottom, top) in enumerate(zip(points[:, -1], tops, strict=True), start=1):
        if top > bottom:
            total += float(top - bottom) * volume(points[:count, :-1], bound[:-1])
    return total


def sweep(points: Floats, bound: Floats) -> float:
    """Area under a staircase: each point of a two-objective front, left to right, adds a rectangle."""
    points = points[np.lexsort((points[:, 1], points[:, 0]))]
    total, ceiling = 0.0, float(bound[1])
    for x, y in points:
        if y < ceiling:
            total += float(bound[0] - x) * (ceiling - float(y))
            ceiling = float(y)
    return total


def as_costs(points: ArrayLike, maximize: Sequence[bool] | None) -> Floats:
    """(N, D) float64 with smaller better. Raises ValueError for NaN, another shape, or flags that do not match."""
    values: NDArray[Any] = np.array(points, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] == 0:
        raise ValueError(f"pareto: expected points as an array (N, D) with D >= 1, got shape {values.shape}")
    if np.isnan(values).any():
        raise ValueError(f"pareto: point {int(np.argwhere(np.isnan(values))[0][0])} has NaN: leave it out")
    if maximize is not None:
        if len(maximize) != values.shape[1]:
            raise ValueError(f"pareto: expected {values.shape[1]} flags in maximize, got {len(maximize)}")
        values[:, np.asarray(maximize, dtype=np.bool_)] *= -1.0
    return values
