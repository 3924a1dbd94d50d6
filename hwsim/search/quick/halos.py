"""Inputs whose tiles overlap: what is new when a loop above a tile advances, exactly, run by run.

A tile of a two-variable rank is the set {a*i + b*j}. The path from the tile t outwards is a sequence of runs, each
growing one dim. When a run of x advances from v, x moves by one tile and every other dim wraps around by v - t; so what
is new depends on (t, v, x) alone. `ratios` are the v/t at which a later wrap-around may still hold something: until
then the input is `unsettled`; afterwards every step reloads the tile. Point sets are integers, one bit per point.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache

import numpy as np

from hwsim.nest.points import Ints, new_points, points, united_new
from hwsim.search.quick.batch import Batch
from hwsim.search.space.lattice import Costs, divisors
from hwsim.search.space.problem import Crossing, Problem, window_ranks

Ratio = tuple[int, ...]  # v/t per window dim, in the order of `Halos.dims`


def window_ratios(problem: Problem) -> list[Ratio]:
    """Ratios v/t at which a later step may find points of the tile still there, all ones first."""
    per_rank: list[list[tuple[int, int]]] = []
    for rank, pair in window_ranks(problem):
        (_, a), (_, b) = rank.terms
        sizes = [divisors(problem.extents[axis]) for axis in pair]
        found = [
            (rx, ry)
            for rx, ry in itertools.product(*sizes)
            if any(
                may_hold(a, tx, b, ty, rx, ry)
                for tx, ty in itertools.product(*sizes)
                if sizes[0][-1] % (tx * rx) == 0 and sizes[1][-1] % (ty * ry) == 0
            )
        ]
        per_rank.append(found)
    return sorted(tuple(itertools.chain.from_iterable(choice)) for choice in itertools.product(*per_rank))


@lru_cache(maxsize=1 << 16)
def may_hold(a: int, tx: int, b: int, ty: int, rx: int, ry: int) -> bool:
    """Whether some later displacement of this rank leaves points of the tile: x and y wrap, or one of them steps on."""
    tile = points(a, tx, b, ty)
    back_x, back_y = a * (rx - 1) * tx, b * (ry - 1) * ty
    shifts = (-back_x - back_y, a * tx - back_y, b * ty - back_x)
    return any(new_points(tile, shift) != tile for shift in shifts)


class Halos:
    """Costs of input crossings run by run, for a batch; `segment`: where the runs happen."""

    def __init__(self, batch: Batch, segment: int) -> None:
        self.batch, self.segment = batch, segment
        self.problem = batch.problem
        self.ranks = window_ranks(self.problem)
        self.dims = tuple(axis for _, pair in self.ranks for axis in pair)
        self.known: dict[tuple[str, int, Ratio, int, bool], Costs] = {}

    @cached_property
    def runners(self) -> tuple[int, ...]:
        """Dims whose runs matter while unsettled: those of windows, and those that reuse the input."""
        return (*self.dims, *self.problem.irrelevant_axes("input"))

    def tile_sizes(self, dim: int, row: int, ratio: Ratio, own: int) -> tuple[int, ...]:
        """Extent of the tile in a dim for every lattice size v, v/ratio; 0 where that is no tile."""
        divisor = ratio[self.dims.index(dim)]
        sizes = self.batch.lattices.sizes[dim][row].tolist()
        return tuple(v // divisor * own if v % divisor == 0 else 0 for v in sizes)

    def rank_new(self, crossing: Crossing, which: int, level: int, ratio: Ratio, runner: int) -> tuple[Costs, Costs]:
        """(rows, sizes x, sizes y): points of the united tile of a rank, and those new when `runner` advances."""
        batch = self.batch
        rank, (x, y) = self.ranks[which]
        (_, a), (_, b) = rank.terms
        shape = (batch.rows, batch.lattices.sizes[x].shape[1], batch.lattices.sizes[y].shape[1])
        whole, new = np.ones(shape), np.ones(shape)
        cache: dict[tuple[int, ...], tuple[Costs, Costs]] = {}
        for row in range(batch.rows):
            own = batch.inside[row, crossing.segment]
            united = batch.inside[row, level] // own
            unit = batch.inside[row, self.segment] // own
            apart = [batch.distance(row, dim, crossing.segment, level, 0) for dim in (x, y)]
            numbers = [*batch.lattices.extents[row, [x, y]], *own[[x, y]], *united[[x, y]], *unit[[x, y]], *apart]
            key = tuple(int(n) for n in numbers)
            if key not in cache:
                tiles_x, tiles_y = (self.tile_sizes(dim, row, ratio, int(own[dim])) for dim in (x, y))
                steps = (runner == x, runner == y)
                cache[key] = table(a, b, tiles_x, tiles_y, self.pair_ratio(ratio, x, y), key[4:], steps)
            whole[row], new[row] = cache[key]
        return whole, new

    def pair_ratio(self, ratio: Ratio, x: int, y: int) -> tuple[int, int]:
        """The ratios of two dims."""
        return ratio[self.dims.index(x)], ratio[self.dims.index(y)]

    def blocks(self, dim: int, level: int) -> Costs:
        """(rows, sizes): blocks of a dim below `level`."""
        return (-(-self.problem.extents[dim] // self.batch.tiles(dim, level))).astype(np.float64)

    def step_energy(
        self, crossings: Sequence[Crossing], ratio: Ratio, runner: int, everything: bool
    ) -> list[tuple[int, Costs]]:
        """Per level (level, pJ per point v): what one advance of `runner` costs in all blocks of the other dims.

        The runner's own blocks depend on where its run ends. `everything`: the whole tile is loaded again.
        """
        found: list[tuple[int, Costs]] = []
        for crossing in crossings:
            for offset, price in enumerate(crossing.prices):
                if price:
                    level = crossing.segment + offset
                    key = (crossing.child, level, ratio, runner, everything)
                    if key not in self.known:
                        self.known[key] = self.new_times_visits(crossing, level, ratio, runner, everything)
                    found.append((level, price * self.known[key]))
        return found

    def new_times_visits(self, crossing: Crossing, level: int, ratio: Ratio, runner: int, everything: bool) -> Costs:
        """New points at `level`, times blocks of all dims but the runner's."""
        batch = self.batch
        whole: Costs = np.ones((1,) * (len(self.problem.dims) + 1))
        kept: Costs = whole
        for which, (_, pair) in enumerate(self.ranks):
            full, new = self.rank_new(crossing, which, level, ratio, runner)
            whole = whole * batch.spread(full, pair)
            kept = kept * batch.spread(full - new, pair)
        return self.times_blocks(whole if everything else whole - kept, level, runner)

    def leave_energy(self, crossings: Sequence[Crossing], ratio: Ratio) -> Costs:
        """pJ when from a point on every step reloads the tile."""
        total: Costs = np.zeros((1,) * (len(self.problem.dims) + 1))
        for _, energy in self.step_energy(crossings, ratio, -1, True):
            total = total + energy
        return total

    def fewest_later(self, crossings: Sequence[Crossing], runner: int, growth: Ints) -> list[Costs]:
        """Per priced level pJ per point: the least any step after a run of `runner` can cost, in other dims' blocks.

        A lower bound: the other window keeps everything, this one as much as any later displacement can keep.
        """
        batch = self.batch
        which = next(i for i, (_, pair) in enumerate(self.ranks) if runner in pair)
        rank, (x, y) = self.ranks[which]
        (_, a), (_, b) = rank.terms
        ones = (1,) * len(self.dims)
        found: list[Costs] = []
        for crossing in crossings:
            for offset, price in enumerate(crossing.prices):
                if not price:
                    continue
                level = crossing.segment + offset
                shape = (batch.rows, batch.lattices.sizes[x].shape[1], batch.lattices.sizes[y].shape[1])
                new = np.ones(shape)
                cache: dict[tuple[int, ...], Costs] = {}
                for row in range(batch.rows):
                    own = batch.inside[row, crossing.segment]
                    united, unit = batch.inside[row, level] // own, batch.inside[row, self.segment] // own
                    numbers = [*batch.lattices.extents[row, [x, y]], *own[[x, y]], *united[[x, y]], *unit[[x, y]]]
                    numbers += [batch.distance(row, dim, crossing.segment, level, 0) for dim in (x, y)]
                    key = (*(int(n) for n in numbers), int(growth[row]))
                    if key not in cache:
                        tiles = [self.tile_sizes(dim, row, ones, int(own[dim])) for dim in (x, y)]
                        cache[key] = later_table(a, b, tiles[0], tiles[1], key, runner == x)
                    new[row] = cache[key]
                total: Costs = batch.spread(new, (x, y)) * price
                for other, (_, pair) in enumerate(self.ranks):
                    if other != which:
                        full, _ = self.rank_new(crossing, other, level, ones, runner)
                        total = total * batch.spread(full, pair)
                found.append(self.times_blocks(total, level, runner))
        return found

    def times_blocks(self, points_new: Costs, level: int, runner: int) -> Costs:
        """Times the blocks of all dims but the runner's."""
        reuse = self.problem.irrelevant_axes("input")
        for dim, extent in enumerate(self.problem.extents):
            if dim in self.dims or dim in reuse:
                if dim != runner:
                    points_new = points_new * self.batch.spread(self.blocks(dim, level), (dim,))
            else:
                points_new = points_new * extent
        return points_new

    def pairs(self, dim: int) -> list[tuple[int, int]]:
        """(from, to) size indices a run of a dim may take."""
        count = self.batch.lattices.sizes[dim].shape[1]
        return [(i, j) for i in range(count) for j in range(i + 1, count) if self.batch.lattices.grows(dim, i, j)]

    def run_energy(
        self, crossings: Sequence[Crossing], ratio: Ratio, runner: int, optimistic: bool
    ) -> Iterator[tuple[int, int, Ints, Costs, Costs]]:
        """Runs of a dim: (begin, end, growth per row, pJ of the steps, pJ of the steps if all is reloaded later).

        Energies stand at the point where the run begins; the axis of the runner has length one. `optimistic`: later
        steps are charged the least they can cost instead.
        """
        axis, lead = runner + 1, (-1, *([1] * len(self.problem.dims)))
        sizes = self.batch.lattices.sizes[runner]
        steps = self.step_energy(crossings, ratio, runner, False)
        loads = self.step_energy(crossings, ratio, runner, True)
        for begin, end in self.pairs(runner):
            growth = sizes[:, end] // sizes[:, begin]
            if optimistic:
                fewest = self.fewest_later(crossings, runner, growth)
                loads = [(level, few) for (level, _), few in zip(steps, fewest, strict=True)]
            total: Costs = np.zeros((1,) * (len(self.problem.dims) + 1))
            left = total
            for (level, step), (_, load) in zip(steps, loads, strict=True):
                blocks = self.blocks(runner, level)[:, end]
                at = [begin if step.shape[axis] > 1 else 0]
                total = total + step.take(at, axis=axis) * ((growth - 1) * blocks).reshape(lead)
                left = left + load.take(at, axis=axis) * blocks.reshape(lead)
            yield begin, end, growth, total, total + left


@lru_cache(maxsize=1 << 13)
def table(
    a: int,
    b: int,
    tiles_x: tuple[int, ...],
    tiles_y: tuple[int, ...],
    ratio: tuple[int, int],
    united_and_unit: tuple[int, ...],
    steps: tuple[bool, bool],
) -> tuple[Costs, Costs]:
    """(sizes x, sizes y): points of the united tile, and those new when x steps, y steps, or both wrap around."""
    united_x, united_y, unit_x, unit_y, apart_x, apart_y = united_and_unit
    whole = np.zeros((len(tiles_x), len(tiles_y)))
    new = np.zeros((len(tiles_x), len(tiles_y)))
    for i, tx in enumerate(tiles_x):
        for j, ty in enumerate(tiles_y):
            if tx and ty:
                x = a * tx * (unit_x if steps[0] else 1 - ratio[0])
                y = b * ty * (unit_y if steps[1] else 1 - ratio[1])
                apart = (apart_x or tx, apart_y or ty)
                whole[i, j] = united_new(a, tx, b, ty, united_x, united_y, None, apart)
                new[i, j] = united_new(a, tx, b, ty, united_x, united_y, x + y, apart)
    return whole, new


def later_table(
    a: int, b: int, tiles_x: Sequence[int], tiles_y: Sequence[int], key: tuple[int, ...], x_ran: bool
) -> Costs:
    """(sizes x, sizes y): fewest points new to the united tile at any step after x (or y) ran by the key's growth."""
    extent_x, extent_y, own_x, own_y, united_x, united_y, unit_x, unit_y, apart_x, apart_y, growth = key
    new = np.zeros((len(tiles_x), len(tiles_y)))
    for i, tx in enumerate(tiles_x):
        for j, ty in enumerate(tiles_y):
            most_x, most_y = extent_x * own_x // tx, extent_y * own_y // ty
            wraps_x = [-a * tx * (g - 1) for g in divisors(most_x) if not x_ran or g % growth == 0]
            wraps_y = [-b * ty * (g - 1) for g in divisors(most_y) if x_ran or g % growth == 0]
            shifts = {x + y for x in (*wraps_x, a * tx * unit_x) for y in wraps_y}
            shifts |= {x + b * ty * unit_y for x in wraps_x}
            new[i, j] = min(
                united_new(a, tx, b, ty, united_x, united_y, shift, (apart_x or tx, apart_y or ty)) for shift in shifts
            )
    return new
