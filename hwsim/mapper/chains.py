"""The cheapest chain of tiles for each of many spatial unrollings: shortest paths over lattices with stages per operand.

Lattice points are temporal extents (the unrolling divided out), so an array changes no point. Every crossing (operand,
child) settles at one point: its tile spans the relevant extents there, everything further out reloads it. Costs are then
sums over settle points on one path; stages say which crossings have settled. Below an array everything settles except
one operand that may stay stationary while only loops it does not see run above the array (`carried`).
Halo overlaps between neighbouring input tiles are left out here (they only make a nest cheaper): see `nest`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping as Map
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hwsim.machine import OPERANDS, Operand
from hwsim.mapper.lattice import Costs, Ints, Lattices, divisor_table
from hwsim.mapper.problem import Crossing, Problem
from hwsim.mapping import Rank

Point = tuple[int, ...]
Stage = tuple[int, int, int, int]  # settled crossings of weight, input, output; index of the carried operand or -1
Shares = Map[tuple[str, Operand], Costs]  # (memory, operand) -> bits its tile may take there, one per row


@dataclass(frozen=True)
class Event:
    """What happens at a point of the chain: a crossing settles, or an array is passed (`crossing` None).

    `tile`: temporal extent of every dim at the point.
    """

    tile: tuple[int, ...]
    crossing: Crossing | None
    segment: int


@dataclass(frozen=True)
class Chain:
    """A path through the lattice, innermost event first, and its energy in pJ by the linear prices."""

    energy_pj: float
    events: tuple[Event, ...]
    extents: tuple[int, ...]  # padded temporal extents
    row: int


@dataclass
class Batch:
    """Unrollings whose lattices share a shape. `spatial[row, j, e]`: factor of dim e on array j (innermost first)."""

    problem: Problem
    lattices: Lattices
    spatial: Ints
    chains: tuple[tuple[Crossing, ...], ...]  # per operand, innermost first

    @cached_property
    def rows(self) -> int:
        """Number of unrollings."""
        return len(self.spatial)

    @cached_property
    def inside(self) -> Ints:
        """[row, level, e]: product of the factors of the arrays below that level."""
        ones = np.ones((self.rows, 1, self.spatial.shape[2]), dtype=np.int64)
        return np.concatenate([ones, np.cumprod(self.spatial, axis=1)], axis=1)

    @cached_property
    def place(self) -> dict[str, int]:
        """Axis of every active dim."""
        return {dim: axis for axis, dim in enumerate(self.problem.dims)}

    def spread(self, values: Costs, dims: tuple[int, ...]) -> Costs:
        """Broadcastable form of (rows, one axis per dim in ascending order)."""
        shape = [values.shape[0]] + [1] * len(self.problem.dims)
        for dim, length in zip(dims, values.shape[1:], strict=True):
            shape[dim + 1] = length
        return values.reshape(shape)

    def tiles(self, dim: int, level: int) -> Ints:
        """(rows, sizes): extent of a dim below `level` for every lattice size."""
        return self.lattices.sizes[dim] * self.inside[:, level, dim][:, None]

    def window_pair(self, rank: Rank) -> tuple[int, int] | None:
        """Axes of a rank with two active dims."""
        active = [self.place[dim] for dim in rank.dims if dim in self.place]
        return (active[0], active[1]) if len(active) == 2 else None

    def visits(self, operand: Operand, level: int) -> Costs:
        """V_level for every settle point (broadcastable over the lattices)."""
        key = (operand, level)
        if key not in self._visits:
            self._visits[key] = self._count_visits(operand, level)
        return self._visits[key]

    @cached_property
    def _visits(self) -> dict[tuple[str, int], Costs]:
        return {}

    def _count_visits(self, operand: Operand, level: int) -> Costs:
        problem = self.problem
        result = np.ones((self.rows,) + (1,) * len(problem.dims))
        for dim in problem.irrelevant_axes(operand):
            blocks = -(-problem.extents[dim] // self.tiles(dim, level))
            result = result * self.spread(blocks.astype(np.float64), (dim,))
        for rank in problem.ranks[operand]:
            pair = self.window_pair(rank)
            if pair is None:
                result *= math.prod(problem.extents[self.place[dim]] for dim in rank.dims if dim in self.place)
            else:
                result = result * self.spread(self.window_sum(rank, pair, level), pair)
        return result

    def window_sum(self, rank: Rank, pair: tuple[int, int], level: int) -> Costs:
        """(rows, sizes, sizes): points of a two-dim rank summed over all blocks of both dims."""
        total = np.zeros((1, 1, 1))
        for p, p_count in pieces(self.problem.extents[pair[0]], self.tiles(pair[0], level)):
            for r, r_count in pieces(self.problem.extents[pair[1]], self.tiles(pair[1], level)):
                points = window(rank, p[:, :, None], r[:, None, :])
                total = total + points * (p_count[:, :, None] * r_count[:, None, :])
        return total.astype(np.float64)

    def energy(self, crossing: Crossing) -> Costs:
        """pJ of a crossing for every settle point."""
        total: Costs = np.zeros((1,) * (len(self.problem.dims) + 1))
        if crossing.first_pj:
            arrivals = self.visits(crossing.operand, crossing.parent_segment)
            last = (slice(None), *([slice(-1, None)] * len(self.problem.dims)))
            total = crossing.first_pj * arrivals[last]
        for offset, price in enumerate(crossing.prices):
            if price:
                total = total + price * self.visits(crossing.operand, crossing.segment + offset)
        return total

    def elements(self, operand: Operand, level: int) -> Costs:
        """Elements of the operand's tile below `level` for every point, cut at the layer's bounds."""
        problem = self.problem
        result = np.ones((self.rows,) + (1,) * len(problem.dims))
        for rank in problem.ranks[operand]:
            active = [self.place[dim] for dim in rank.dims if dim in self.place]
            cut = [np.minimum(self.tiles(dim, level), problem.extents[dim]) for dim in active]
            if len(active) == 1:
                result = result * self.spread(cut[0].astype(np.float64), (active[0],))
            elif len(active) == 2:
                points = window(rank, cut[0][:, :, None], cut[1][:, None, :])
                result = result * self.spread(points.astype(np.float64), (active[0], active[1]))
        return result

    @cached_property
    def placed(self) -> tuple[tuple[Crossing, ...], ...]:
        """Crossings with a tile to place; without a latch the MAC has none."""
        return tuple(
            tuple(c for c in chain if c.child != "mac" or self.problem.latched(c.operand)) for chain in self.chains
        )

    @cached_property
    def constant_pj(self) -> Costs:
        """Per row: energy of the crossings that have nothing to place (MACs reading and writing every step)."""
        total = np.zeros(self.rows)
        for chain in self.chains:
            for crossing in chain:
                if crossing.child == "mac" and not self.problem.latched(crossing.operand):
                    total = total + self.energy(crossing).reshape(self.rows, -1)[:, 0]
        return total

    def settle_costs(self, shares: Shares) -> list[list[Costs]]:
        """Per operand and placed crossing: energy where the tile fits, infinite elsewhere."""
        return [[self.settle_cost(crossing, shares) for crossing in chain] for chain in self.placed]

    def settle_cost(self, crossing: Crossing, shares: Shares) -> Costs:
        """Energy of one crossing where its tile fits, infinite elsewhere."""
        value = self.energy(crossing)
        if crossing.child == "mac":
            return np.where(self.elements(crossing.operand, 0) <= 1, value, np.inf)
        if crossing.capacity_bits is None:
            return value
        limit: float | Costs = crossing.capacity_bits
        share = shares.get((crossing.child, crossing.operand))
        if share is not None:
            limit = np.minimum(share, limit).reshape(self.rows, *([1] * len(self.problem.dims)))
        size = self.elements(crossing.operand, crossing.segment) * crossing.bits_per_element
        return np.where(size <= limit, value, np.inf)


def pieces(extent: int, tiles: Ints) -> list[tuple[Ints, Ints]]:
    """(size, how many) of the blocks of a dim cut every `tiles`: full ones and the remainder."""
    tiles = np.minimum(tiles, extent)
    full = extent // tiles
    rest = extent - full * tiles
    if not rest.any():
        return [(tiles, full)]
    return [(tiles, full), (np.maximum(rest, 1), (rest > 0).astype(np.int64))]


def window(rank: Rank, p: Ints, r: Ints) -> Ints:
    """Points of a two-dim rank for tile extents p and r, holes left out: as `mapping.rank_points`, on arrays."""
    (_, a), (_, b) = rank.terms
    g = math.gcd(a, b)
    return p * r - np.maximum(0, p - b // g) * np.maximum(0, r - a // g)


@dataclass
class Solved:
    """All stages of a batch: `before` and `after` moving, per segment; least energy per row."""

    batch: Batch
    costs: list[list[Costs]]
    counts: list[tuple[int, int, int]]
    history: list[tuple[dict[Stage, Costs], dict[Stage, Costs]]]

    @cached_property
    def final(self) -> Stage:
        """Everything settled."""
        last = self.counts[-1]
        return (last[0], last[1], last[2], -1)

    @cached_property
    def energies(self) -> Costs:
        """Least energy per row, infinite where nothing fits."""
        after = self.history[-1][1]
        if self.final not in after:
            return np.full(self.batch.rows, np.inf)
        return after[self.final].reshape(self.batch.rows, -1)[:, -1] + self.batch.constant_pj


def solve(batch: Batch, shares: Shares) -> Solved:
    """The cheapest chain of every row under `shares`."""
    costs = batch.settle_costs(shares)
    dims = batch.lattices.dim_lengths
    levels = len(batch.problem.arrays) + 1
    per_level = [[sum(c.segment <= k for c in chain) for chain in batch.placed] for k in range(levels)]
    counts = [(c[0], c[1], c[2]) for c in per_level]
    start: Costs = np.full((batch.rows, *dims), np.inf)
    start[(slice(None), *([0] * len(dims)))] = 0.0
    entering: dict[Stage, Costs] = {(0, 0, 0, -1): start}
    history: list[tuple[dict[Stage, Costs], dict[Stage, Costs]]] = []
    for k in range(levels):
        before, after = run_segment(batch, costs, entering, counts, k)
        history.append((before, after))
        entering = passing(after, counts[k])
    return Solved(batch, costs, counts, history)


def passing(after: dict[Stage, Costs], limits: tuple[int, int, int]) -> dict[Stage, Costs]:
    """Stages that may pass an array: all settled, or all but one operand, carried from here on."""
    entering: dict[Stage, Costs] = {}
    for stage, values in after.items():
        lacking = [x for x in range(3) if stage[x] < limits[x]]
        if len(lacking) > 1 or (lacking and stage[3] not in (-1, lacking[0])):
            continue
        key = (stage[0], stage[1], stage[2], lacking[0] if lacking else -1)
        entering[key] = np.minimum(entering[key], values) if key in entering else values
    return entering


def moves(batch: Batch, stage: Stage) -> tuple[int, ...]:
    """Dims a stage may grow along: all, or those the carried operand does not see."""
    if stage[3] < 0:
        return tuple(range(len(batch.problem.dims)))
    return batch.problem.irrelevant_axes(OPERANDS[stage[3]])


def run_segment(
    batch: Batch,
    costs: list[list[Costs]],
    entering: dict[Stage, Costs],
    counts: list[tuple[int, int, int]],
    k: int,
) -> tuple[dict[Stage, Costs], dict[Stage, Costs]]:
    """Costs per stage before and after moving, within segment k."""
    before = dict(entering)
    after: dict[Stage, Costs] = {}
    for done in range(sum(counts[k]) + 1):
        for stage in sorted(s for s in before if sum(s[:3]) == done):
            moved = batch.lattices.below(before[stage], moves(batch, stage))
            after[stage] = moved
            for target, x, index in successors(stage, counts, k):
                value = moved + costs[x][index]
                if target in before:
                    before[target] = np.minimum(before[target], value)
                else:
                    before[target] = value
    return before, after


def successors(stage: Stage, counts: list[tuple[int, int, int]], k: int) -> list[tuple[Stage, int, int]]:
    """(next stage, operand index, crossing index) of every crossing that may settle now."""
    found: list[tuple[Stage, int, int]] = []
    for x in range(3):
        if stage[x] >= counts[k][x]:
            continue
        settled = [stage[0], stage[1], stage[2]]
        settled[x] += 1
        carried = stage[3]
        if carried == x and settled[x] >= (counts[k - 1][x] if k else 0):
            carried = -1
        found.append(((settled[0], settled[1], settled[2], carried), x, stage[x]))
    return found


def trace(solved: Solved, row: int) -> Chain:
    """An optimal chain of one row, found backwards by exact equality of costs (minima copy values)."""
    batch = solved.batch
    shape = batch.lattices.dim_lengths
    stage = solved.final
    point: Point = tuple(length - 1 for length in shape)
    extents = tuple(int(e) for e in batch.lattices.extents[row])
    tables = [divisor_table(extent, exps) for extent, exps in zip(extents, batch.lattices.signatures, strict=True)]

    def tile(at: Point) -> tuple[int, ...]:
        return tuple(table[i] for table, i in zip(tables, at, strict=True))

    events: list[Event] = []
    for k in range(len(solved.history) - 1, -1, -1):
        before, after = solved.history[k]
        while True:
            value = after[stage][(row, *point)]
            point = source_of(batch, before[stage][row], float(value), point, moves(batch, stage))
            origin = origin_of(solved, row, k, stage, point)
            if origin is None:
                break
            stage = origin[0]
            events.append(Event(tile(point), batch.placed[origin[1]][origin[2]], k))
        if k:
            events.append(Event(tile(point), None, k - 1))
            inner = solved.history[k - 1][1]
            cost = before[stage][(row, *point)]
            alike = [s for s in inner if s[:3] == stage[:3] and s[3] in (-1, stage[3])]
            stage = next(s for s in alike if inner[s][(row, *point)] == cost)
    return Chain(float(solved.energies[row]), tuple(reversed(events)), extents, row)


def origin_of(solved: Solved, row: int, k: int, stage: Stage, point: Point) -> tuple[Stage, int, int] | None:
    """The stage, operand and crossing whose settling at `point` gave this cost; None where the segment began here."""
    before, after = solved.history[k]
    shape = (solved.batch.rows, *solved.batch.lattices.dim_lengths)
    for previous, values in after.items():
        for target, x, index in successors(previous, solved.counts, k):
            if target == stage:
                cost = np.broadcast_to(solved.costs[x][index], shape)[(row, *point)]
                if values[(row, *point)] + cost == before[stage][(row, *point)]:
                    return previous, x, index
    return None


def source_of(batch: Batch, before: Costs, value: float, point: Point, dims: tuple[int, ...]) -> Point:
    """A point below `point` whose cost before moving equals `value`."""
    mesh = batch.lattices.predecessors(point, dims)
    hit = np.argwhere(before[mesh] == value)[-1]
    return tuple(int(np.ravel(axis)[i]) for axis, i in zip(mesh, hit, strict=True))
