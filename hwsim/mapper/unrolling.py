"""Which loops run side by side: the spatial unrollings of a layer that an accelerator's axes allow.

An unrolling is one factor per (array, axis, dim). Factors need not divide: those are listed that are the smallest for
their number of blocks, so 64 channels on 14 columns give 13 (5 blocks), not only 8.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwsim.machine import Axis
from hwsim.mapper.problem import REDUCTION, Problem

Factors = NDArray[np.int64]


@dataclass(frozen=True)
class Unrollings:
    """`factors[i, j, e]`: factor of dim e on flattened axis j (arrays innermost first) in unrolling i."""

    axes: tuple[tuple[int, Axis], ...]  # (array index, axis)
    factors: Factors

    def per_array(self, arrays: int) -> Factors:
        """[i, array, e]: product over the array's axes."""
        count, _, dims = self.factors.shape
        result = np.ones((count, arrays, dims), dtype=np.int64)
        for j, (array, _) in enumerate(self.axes):
            result[:, array] *= self.factors[:, j]
        return result


def factor_choices(extent: int, size: int, imperfect: bool) -> list[int]:
    """Spatial factors of one dim on one axis of `size`, ascending."""
    if not imperfect:
        return [f for f in range(1, min(size, extent) + 1) if extent % f == 0]
    fewest = -(-extent // min(size, extent))
    choices: set[int] = set()
    block = extent
    while block >= 1:  # distinct ceil(extent / n)
        if block <= size:
            choices.add(block)
        n = -(-extent // block)
        nxt = -(-extent // (n + 1))
        if nxt >= block:
            choices.update(range(1, min(size, block - 1) + 1))
            break
        block = nxt
    assert all(-(-extent // f) >= fewest for f in choices)
    return sorted(choices)


def axis_choices(
    problem: Problem, array: int, axis: Axis, imperfect: bool, keep: int | None, divided: Collection[int] = ()
) -> list[tuple[int, ...]]:
    """Factor tuples over the problem's dims for one axis; the `keep` best by use of the axis where limited.

    Factors of the dims in `divided` divide their extents, whatever `imperfect` says.
    """
    reduction = problem.arrays[array].reduction
    options: list[list[int]] = []
    for e, (dim, extent) in enumerate(zip(problem.dims, problem.extents, strict=True)):
        allowed = dim in axis.dims and (reduction or dim not in REDUCTION)
        options.append(factor_choices(extent, axis.size, imperfect and e not in divided) if allowed else [1])
    found: list[tuple[int, ...]] = [()]
    for choices in options:
        found = [
            (*head, factor)
            for head in found
            for factor in choices
            if math.prod(head) * factor <= axis.size
            and (axis.max_dims is None or factor == 1 or sum(f > 1 for f in head) < axis.max_dims)
        ]
    if keep is not None and len(found) > keep:
        found.sort(key=lambda factors: (-use(problem, factors), factors))
        found = found[:keep]
    return found


def use(problem: Problem, factors: tuple[int, ...]) -> float:
    """Blocks saved by the factors: extent / (blocks) multiplied over dims, the effective parallelism."""
    result = 1.0
    for extent, factor in zip(problem.extents, factors, strict=True):
        result *= extent / -(-extent // factor)
    return result


def unrollings(
    problem: Problem,
    imperfect: bool,
    keep_per_axis: int | None = None,
    keep: int | None = None,
    divided: Collection[int] = (),
) -> Unrollings:
    """All combinations of the axes' choices without factors beyond a dim's extent; where limited, the fastest.

    `divided`: positions of dims whose factors divide even where `imperfect` factors are allowed.
    """
    axes: list[tuple[int, Axis]] = []
    factors = np.ones((1, 0, len(problem.dims)), dtype=np.int64)
    extents = np.array(problem.extents)
    for index, array in enumerate(problem.arrays):
        for axis in array.axes:
            found = axis_choices(problem, index, axis, imperfect, keep_per_axis, divided)
            choices = np.array(found, dtype=np.int64)
            axes.append((index, axis))
            if keep is not None and len(factors) * len(choices) > 4 * keep:
                factors = fastest(factors, extents, keep // 8)
            left = np.repeat(factors, len(choices), axis=0)
            right = np.tile(choices, (len(factors), 1))[:, None, :]
            factors = np.concatenate([left, right], axis=1)
            # a factor is useful only while the dim is not yet covered by the axes before it
            total = factors.prod(axis=1)
            without = total // factors[:, -1]
            factors = factors[((without < extents) | (factors[:, -1] == 1)).all(axis=1)]
            if divided:
                some = list(divided)
                factors = factors[(extents[some] % factors.prod(axis=1)[:, some] == 0).all(axis=1)]
            if keep is not None:
                factors = fastest(factors, extents, keep)
    return Unrollings(tuple(axes), factors)


def fastest(factors: Factors, extents: Factors, keep: int) -> Factors:
    """The `keep` unrollings of fewest steps."""
    if len(factors) <= keep:
        return factors
    cycles = (-(-extents // factors.prod(axis=1))).prod(axis=1)
    return factors[np.argsort(cycles, kind="stable")[:keep]]
