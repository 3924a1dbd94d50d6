"""Inputs whose tiles overlap: what is new when a loop right above a tile advances, exactly.

A tile of a two-variable rank is the set {a*i + b*j}. When a run of x advances, x moves by one tile; what is new depends
on the tile and on the arrays between it and the run, whose elements hold tiles side by side. A run slides the tile;
after it every step reloads. Point sets are integers, one bit per point (`nest.points`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np

from hwsim.nest.points import Ints, united_new
from hwsim.search.quick.batch import Batch
from hwsim.search.space.lattice import Costs
from hwsim.search.space.problem import Crossing


class Halos:
    """Costs of runs of input crossings, for a batch; `segment`: where the runs happen."""

    def __init__(self, batch: Batch, segment: int) -> None:
        self.batch, self.segment = batch, segment
        self.problem = batch.problem
        self.ranks = self.problem.window_ranks
        self.dims = tuple(axis for _, pair in self.ranks for axis in pair)
        self.known: dict[tuple[str, int, int], tuple[Costs, Costs]] = {}

    def rank_new(self, crossing: Crossing, which: int, level: int, runner: int) -> tuple[Costs, Costs]:
        """(rows, sizes x, sizes y): points of the united tile of a rank, and those new when `runner` advances."""
        batch = self.batch
        rank, (x, y) = self.ranks[which]
        (_, a), (_, b) = rank.terms
        shape = (batch.rows, batch.lattices.sizes[x].shape[1], batch.lattices.sizes[y].shape[1])
        whole, new = np.ones(shape), np.ones(shape)
        for row in range(batch.rows):
            own = batch.inside[row, crossing.segment]
            united = batch.inside[row, level] // own
            unit = batch.inside[row, self.segment] // own
            tiles = [tuple((batch.lattices.sizes[dim][row] * own[dim]).tolist()) for dim in (x, y)]
            step_x, step_y = (int(unit[dim]) if runner == dim else 0 for dim in (x, y))
            whole[row], new[row] = table(a, b, *tiles, int(united[x]), int(united[y]), step_x, step_y)
        return whole, new

    def blocks(self, dim: int, level: int) -> Costs:
        """(rows, sizes): blocks of a dim below `level`."""
        return (-(-self.problem.extents[dim] // self.batch.tiles(dim, level))).astype(np.float64)

    def step_energy(self, crossings: Sequence[Crossing], runner: int) -> list[tuple[int, Costs, Costs]]:
        """Per level (level, pJ per point v when the tile slides, when it is loaded again): one advance of `runner` in
        all blocks of the other dims. The runner's own blocks depend on where its run ends."""
        found: list[tuple[int, Costs, Costs]] = []
        for crossing in crossings:
            for offset, price in enumerate(crossing.prices):
                if price:
                    level = crossing.segment + offset
                    key = (crossing.child, level, runner)
                    if key not in self.known:
                        self.known[key] = self.new_times_visits(crossing, level, runner)
                    slid, loaded = self.known[key]
                    found.append((level, price * slid, price * loaded))
        return found

    def new_times_visits(self, crossing: Crossing, level: int, runner: int) -> tuple[Costs, Costs]:
        """(new points, all points) at `level`, times blocks of all dims but the runner's."""
        batch = self.batch
        whole: Costs = np.ones((1,) * (len(self.problem.dims) + 1))
        kept: Costs = whole
        for which, (_, pair) in enumerate(self.ranks):
            full, new = self.rank_new(crossing, which, level, runner)
            whole = whole * batch.spread(full, pair)
            kept = kept * batch.spread(full - new, pair)
        return self.times_blocks(whole - kept, level, runner), self.times_blocks(whole, level, runner)

    def times_blocks(self, points: Costs, level: int, runner: int) -> Costs:
        """Times the blocks of all dims but the runner's."""
        reuse = self.problem.irrelevant_axes("input")
        for dim, extent in enumerate(self.problem.extents):
            if dim in self.dims or dim in reuse:
                if dim != runner:
                    points = points * self.batch.spread(self.blocks(dim, level), (dim,))
            else:
                points = points * extent
        return points

    def pairs(self, dim: int) -> list[tuple[int, int]]:
        """(from, to) size indices a run of a dim may take."""
        count = self.batch.lattices.sizes[dim].shape[1]
        return [(i, j) for i in range(count) for j in range(i + 1, count) if self.batch.lattices.grows(dim, i, j)]

    def run_energy(self, crossings: Sequence[Crossing], runner: int) -> Iterator[tuple[int, int, Ints, Costs]]:
        """Runs of a dim: (begin, end, growth per row, pJ of the run and of loading the tile once before it).

        Energies stand at the point where the run begins; the axis of the runner has length one.
        """
        axis, lead = runner + 1, (-1, *([1] * len(self.problem.dims)))
        sizes = self.batch.lattices.sizes[runner]
        steps = self.step_energy(crossings, runner)
        for begin, end in self.pairs(runner):
            growth = sizes[:, end] // sizes[:, begin]
            slid: Costs = np.zeros((1,) * (len(self.problem.dims) + 1))
            loaded = slid
            for level, step, load in steps:
                blocks = self.blocks(runner, level)[:, end]
                at = [begin if step.shape[axis] > 1 else 0]
                slid = slid + step.take(at, axis=axis) * ((growth - 1) * blocks).reshape(lead)
                loaded = loaded + load.take(at, axis=axis) * blocks.reshape(lead)
            yield begin, end, growth, slid + loaded


@lru_cache(maxsize=1 << 13)
def table(
    a: int, b: int, tiles_x: tuple[int, ...], tiles_y: tuple[int, ...], united_x: int, united_y: int, step_x: int,
    step_y: int,
) -> tuple[Costs, Costs]:  # fmt: skip
    """(sizes x, sizes y): points of the united tile, and those new when it advances by so many tiles."""
    whole = np.zeros((len(tiles_x), len(tiles_y)))
    new = np.zeros((len(tiles_x), len(tiles_y)))
    for i, x in enumerate(tiles_x):
        for j, y in enumerate(tiles_y):
            whole[i, j] = united_new(a, x, b, y, united_x, united_y, None)
            new[i, j] = united_new(a, x, b, y, united_x, united_y, a * x * step_x + b * y * step_y)
    return whole, new
