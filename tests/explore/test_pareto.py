"""Pareto sets and hypervolumes against definitions written out: pairwise comparison, and counting of unit cells."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsim.explore.pareto import hypervolume, non_dominated, possibly_non_dominated

Points = list[tuple[int, ...]]


def dominates(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    """The definition: nowhere worse, somewhere better."""
    return all(x <= y for x, y in zip(a, b, strict=True)) and any(x < y for x, y in zip(a, b, strict=True))


def cells_below(points: Points, reference: int, dimensions: int) -> int:
    """Unit cells of the grid [0, reference)^D whose lower corner some point reaches: the volume, by counting."""
    cells = itertools.product(range(reference), repeat=dimensions)
    return sum(any(all(p <= c for p, c in zip(point, cell, strict=True)) for point in points) for cell in cells)


def sets_of_points(largest: int, most: int) -> st.SearchStrategy[Points]:
    """Integer points with many ties and duplicates, in one to four objectives."""
    return st.integers(1, 4).flatmap(
        lambda d: st.lists(st.tuples(*[st.integers(0, largest)] * d), min_size=1, max_size=most)
    )


@given(sets_of_points(4, 25))
def test_non_dominated_is_the_definition(points: Points) -> None:
    expected = [not any(dominates(other, point) for other in points) for point in points]
    assert non_dominated(points).tolist() == expected


@given(sets_of_points(4, 12))
def test_hypervolume_counts_the_cells(points: Points) -> None:
    dimensions = len(points[0])
    assert hypervolume(points, [5] * dimensions) == cells_below(points, 5, dimensions)


@given(sets_of_points(6, 10))
def test_dominated_points_and_points_outside_add_no_volume(points: Points) -> None:
    reference = [5] * len(points[0])
    front = np.array(points)[non_dominated(points)]
    assert hypervolume(points, reference) == hypervolume(front, reference)


@given(sets_of_points(4, 10))
def test_maximize_is_the_mirror(points: Points) -> None:
    flags = [True, *[False] * (len(points[0]) - 1)]
    mirrored = [(-p[0], *p[1:]) for p in points]
    assert non_dominated(points, flags).tolist() == non_dominated(mirrored).tolist()
    reference = [-1, *[5] * (len(points[0]) - 1)]
    assert hypervolume(points, reference, flags) == hypervolume(mirrored, [1, *reference[1:]])


@given(sets_of_points(4, 12), st.integers(0, 2))
def test_intervals_keep_every_point_that_may_be_best(points: Points, width: int) -> None:
    values = np.array(points, dtype=float)
    low, high = values - width, values + width
    expected = [
        not any(dominates(tuple(high[j]), tuple(low[i])) for j in range(len(points)) if j != i)
        for i in range(len(points))
    ]
    assert possibly_non_dominated(low, high).tolist() == expected
    # Whatever the truth inside the intervals is, its Pareto set is among the possible ones.
    assert (possibly_non_dominated(low, high) | ~non_dominated(values)).all()


def test_order_of_points_does_not_matter() -> None:
    rng = np.random.default_rng(1)
    points = rng.random((200, 3))
    order = rng.permutation(200)
    assert (non_dominated(points)[order] == non_dominated(points[order])).all()
    assert hypervolume(points, [1, 1, 1]) == pytest.approx(hypervolume(points[order], [1, 1, 1]), rel=1e-12)


def test_hypervolume_of_a_simplex_front_approaches_its_integral() -> None:
    # n points on x + y = 1: the staircase leaves out n triangles, so the area is 1/2 - 1/(2 n).
    n = 1000
    x = np.arange(1, n) / n
    assert hypervolume(np.stack([x, 1 - x], 1), [1, 1]) == pytest.approx(0.5 - 1 / (2 * n), rel=1e-12)


def test_infinite_costs_are_dominated_by_finite_ones() -> None:
    assert non_dominated([[1.0, math.inf], [1.0, 2.0], [0.5, math.inf]]).tolist() == [False, True, True]


def test_no_points_have_no_volume() -> None:
    assert hypervolume(np.empty((0, 2)), [1, 1]) == 0.0
    assert non_dominated(np.empty((0, 2))).tolist() == []


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: non_dominated([1, 2, 3]), "expected points as an array"),
        (lambda: non_dominated([[1.0, math.nan]]), "point 0 has NaN"),
        (lambda: non_dominated([[1.0, 2.0]], [True]), "expected 2 flags"),
        (lambda: hypervolume([[1.0, 2.0]], [3.0]), "reference of 2 objectives"),
        (lambda: hypervolume([[1.0, math.inf]], [3.0, 3.0]), "expected finite"),
        (lambda: possibly_non_dominated([[2.0]], [[1.0]]), "its best value is worse"),
        (lambda: possibly_non_dominated([[2.0]], [[1.0], [2.0]]), "of one shape"),
    ],
)
def test_bad_input_is_named(call: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()  # type: ignore[operator]
