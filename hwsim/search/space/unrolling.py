"""Which loops run side by side: the spatial unrollings of a layer that an accelerator's axes allow.

An unrolling is one factor per (array, axis, dim). Factors need not divide: those are listed that are the smallest for
their number of blocks, so 64 channels on 14 columns give 13 (5 blocks), not only 8.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwsim.machine.parts import Axis
from hwsim.machine.ruled_levels import least_use, unroll_limits
from hwsim.search.space.problem import REDUCTION, Problem

Factors = NDArray[np.int64]
PAIRS = 16_384  # combinations looked at together


@dataclass(frozen=True)
class Listing:
    """Unrollings that differ in what some array does in all: `spatial[i, array, e]`.

    `chosen[i, j]`: the choice of axis j (`choices[j][choice, e]`) behind it, one of those that do the same.
    """

    axes: tuple[tuple[int, Axis], ...]
    choices: tuple[Factors, ...]
    chosen: Factors
    spatial: Factors

    def __getitem__(self, rows: NDArray[np.int64]) -> Listing:
        return Listing(self.axes, self.choices, self.chosen[rows], self.spatial[rows])

    def __len__(self) -> int:
        return len(self.spatial)

    def one(self, i: int) -> Unrollings:
        """An unrolling with its axes' factors."""
        mine = [choices[choice] for choices, choice in zip(self.choices, self.chosen[i], strict=True)]
        return Unrollings(self.axes, np.array(mine, dtype=np.int64).reshape(1, len(mine), self.spatial.shape[2]))


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


def axis_choices(problem: Problem, array: int, axis: Axis, imperfect: bool, keep: int | None) -> list[tuple[int, ...]]:
    """Factor tuples over the problem's dims for one axis; the `keep` best by use of the axis where limited."""
    reduction = problem.arrays[array].reduction
    limits = unroll_limits(problem.rules, problem.arrays[array]).get(axis.name, ())
    options: list[list[int]] = []
    for dim, extent in zip(problem.dims, problem.extents, strict=True):
        allowed = dim in axis.dims and (reduction or dim not in REDUCTION)
        choices = factor_choices(extent, axis.size, imperfect) if allowed else [1]
        mine = [limit for name, limit in limits if name == dim]
        options.append([f for f in choices if all(limit.unrolls(f, extent, axis.size) for limit in mine)])
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


def works(problem: Problem, index: int, factors: Factors) -> NDArray[np.bool_]:
    """Whether enough elements of an array work, [row]: those beyond a loop's bound never do."""
    array = problem.arrays[index]
    least = least_use(problem.rules, array) * array.size
    return np.minimum(factors, np.array(problem.extents)).prod(axis=1) >= least - 1e-9


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
) -> Unrollings:
    """All combinations of the axes' choices without factors beyond a dim's extent; where limited, the fastest."""
    axes: list[tuple[int, Axis]] = []
    factors = np.ones((1, 0, len(problem.dims)), dtype=np.int64)
    extents = np.array(problem.extents)
    for index, array in enumerate(problem.arrays):
        for axis in array.axes:
            found = axis_choices(problem, index, axis, imperfect, keep_per_axis)
            choices = np.array(found, dtype=np.int64).reshape(len(found), len(problem.dims))
            axes.append((index, axis))
            if keep is not None and len(factors) * len(choices) > 4 * keep:
                factors = fastest(problem, factors, keep // 8)
            left = np.repeat(factors, len(choices), axis=0)
            right = np.tile(choices, (len(factors), 1))[:, None, :]
            factors = np.concatenate([left, right], axis=1)
            # a factor is useful only while the dim is not yet covered by the axes before it
            total = factors.prod(axis=1)
            without = total // factors[:, -1]
            factors = factors[((without < extents) | (factors[:, -1] == 1)).all(axis=1)]
            if keep is not None:
                factors = fastest(problem, factors, keep)
    found = Unrollings(tuple(axes), factors)
    spatial = found.per_array(len(problem.arrays))
    fine = [works(problem, index, spatial[:, index]) for index in range(len(problem.arrays))]
    return Unrollings(found.axes, factors[np.logical_and.reduce(fine)]) if problem.rules and fine else found


def listing(problem: Problem, remainders: bool) -> Listing:
    """The unrollings of a proof: factors that divide, or those with remainders that `provable` tells; each once."""
    extents = np.array(problem.extents, dtype=np.int64)
    axes = tuple((index, axis) for index, array in enumerate(problem.arrays) for axis in array.axes)
    choices: list[Factors] = []
    chosen, spatial = np.zeros((1, 0), dtype=np.int64), np.ones((1, 0, len(extents)), dtype=np.int64)

    def fine(before: Factors, more: Factors) -> NDArray[np.bool_]:
        alone = (extents % (before * more) == 0) | (before == 1) | (more == 1)
        return useful(extents, remainders)(before, more) & alone.all(axis=1)

    for index in range(len(problem.arrays)):
        own, mine, total = of_array(problem, index, remainders)
        first = np.unique(row_keys(total), return_index=True)[1]
        left, right = pairs(spatial.prod(axis=1), total[first], fine)
        chosen = np.concatenate([chosen[left], mine[first][right]], axis=1)
        spatial = np.concatenate([spatial[left], total[first][right][:, None]], axis=1)
        choices += own
    return Listing(axes, tuple(choices), chosen, spatial)


def of_array(problem: Problem, index: int, remainders: bool) -> tuple[list[Factors], Factors, Factors]:
    """(choices per axis, [i, axis]: those of an unrolling, [i, dim]: what it does in all) of one array."""
    extents = np.array(problem.extents, dtype=np.int64)
    own: list[Factors] = []
    mine, total = np.zeros((1, 0), dtype=np.int64), np.ones((1, len(extents)), dtype=np.int64)
    for axis in problem.arrays[index].axes:
        found = axis_choices(problem, index, axis, remainders, None)
        own.append(np.array(found, dtype=np.int64).reshape(len(found), len(extents)))
        left, right = pairs(total, own[-1], useful(extents, remainders))
        mine = np.concatenate([mine[left], right[:, None]], axis=1)
        total = total[left] * own[-1][right]
    if remainders:
        fine = needed(extents, total, lambda e: [each[:, e][mine[:, j]] for j, each in enumerate(own)])
        mine, total = mine[fine], np.minimum(total[fine], extents)  # others never work
    if problem.rules:
        fine = works(problem, index, total)
        mine, total = mine[fine], total[fine]
    return own, mine, total


def useful(extents: Factors, remainders: bool) -> Callable[[Factors, Factors], NDArray[np.bool_]]:
    """Whether factors go on where a dim is not covered yet and, without remainders, divide it."""

    def fine(before: Factors, more: Factors) -> NDArray[np.bool_]:
        found = ((before < extents) | (more == 1)).all(axis=1)
        return found if remainders else found & (extents % (before * more) == 0).all(axis=1)

    return fine


def pairs(
    many: Factors, more: Factors, fine: Callable[[Factors, Factors], NDArray[np.bool_]]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions of those rows of the first and the second that go together; a few at a time, which is faster."""
    step, found = max(1, PAIRS // max(1, len(more))), list[tuple[NDArray[np.int64], NDArray[np.int64]]]()
    for start in range(0, len(many), step):
        rows = np.arange(start, min(start + step, len(many)))
        left, right = np.repeat(rows, len(more)), np.tile(np.arange(len(more)), len(rows))
        kept = fine(many[left], more[right])
        found.append((left[kept], right[kept]))
    nothing = np.zeros(0, dtype=np.int64)
    return (
        np.concatenate([nothing, *(left for left, _ in found)]),
        np.concatenate([nothing, *(right for _, right in found)]),
    )


def provable(problem: Problem, options: Unrollings, remainders: bool) -> NDArray[np.bool_]:
    """Which unrollings are in the space of a proof.

    Where factors need not divide, a dim that is not divided is on one array only, and none of its factors could be
    smaller without more steps: 64 channels take 13 of 14 columns for 5 steps.
    """
    extents = np.array(problem.extents, dtype=np.int64)
    spatial = options.per_array(len(problem.arrays))
    total = spatial.prod(axis=1)
    divides = extents % total == 0
    if not remainders:
        return divides.all(axis=1)
    alone = (spatial > 1).sum(axis=1) <= 1
    return (divides | alone).all(axis=1) & needed(extents, total, lambda e: list(options.factors[:, :, e].T))


def needed(extents: Factors, total: Factors, factors: Callable[[int], list[Factors]]) -> NDArray[np.bool_]:
    """Where no factor of a dim that is not divided could be smaller without more steps, [row]; `factors` per axis.

    A factor that is alone cannot: `factor_choices` lists no other.
    """
    fine = np.ones(len(total), dtype=bool)
    for e, extent in enumerate(extents):
        rows = np.flatnonzero(extent % total[:, e])
        own = [mine[rows] for mine in factors(e)]
        several = sum((mine > 1).astype(np.int8) for mine in own) > 1
        whole = total[rows[several], e]
        steps = -(-extent // whole)
        for mine in (mine[several] for mine in own):
            fewer = np.maximum(whole // mine * (mine - 1), 1)
            fine[rows[several]] &= (mine == 1) | (-(-extent // fewer) > steps)
    return fine


def row_keys(rows: Factors) -> Factors:
    """A number for each row, equal where all its entries are, in the order of the rows; entries are not negative."""
    keys, count = np.zeros(len(rows), dtype=np.int64), 1
    if not len(rows):
        return keys
    for column in rows.reshape(len(rows), -1).T:
        most = int(column.max(initial=0)) + 1
        if count * most >= 1 << 62:
            keys = np.unique(keys, return_inverse=True)[1]
            count = len(rows)
        keys, count = keys * most + column, count * most
    return keys


def fastest(problem: Problem, factors: Factors, keep: int) -> Factors:
    """The `keep` unrollings of fewest steps."""
    if len(factors) <= keep:
        return factors
    cycles = problem.steps(-(-np.array(problem.extents) // factors.prod(axis=1)))
    return factors[np.argsort(cycles, kind="stable")[:keep]]
