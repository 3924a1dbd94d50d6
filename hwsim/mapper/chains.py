"""The cheapest chain of tiles for each of many spatial unrollings: shortest paths with stages per operand.

Lattice points are temporal extents (the unrolling divided out), so an array changes no point. Every crossing (child,
parent) settles at one point: its tile spans the relevant extents there, everything further out reloads it. Costs are
sums over settle points on one path; stages say which holder settles next. Below an array everything settles except one
operand that may stay stationary while only loops it does not see run above the array (`carried`).
Halo overlaps between neighbouring input tiles are left out here (they only make a nest cheaper): see `nest`.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator
from collections.abc import Mapping as Map
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hwsim.machine import OPERANDS, Operand
from hwsim.mapper.lattice import Costs, Ints, Lattices
from hwsim.mapper.problem import Crossing, Problem
from hwsim.mapping import Rank

Point = tuple[int, ...]
# Per operand the holder that settles next (position in `Problem.holders`, -1 the MAC); index of the carried one or -1.
Stage = tuple[int, int, int, int]
Step = tuple[int, int, int]  # operand index, child, parent: a crossing that settles
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

    def settle_costs(self, shares: Shares) -> dict[Step, Costs]:
        """Energy of every crossing where its tile fits, infinite elsewhere."""
        return {
            (x, child, parent): self.settle_cost(crossing, shares)
            for x, operand in enumerate(OPERANDS)
            for (child, parent), crossing in self.problem.crossings[operand].items()
        }

    def settle_cost(self, crossing: Crossing, shares: Shares) -> Costs:
        """Energy of one crossing where its tile fits, infinite elsewhere."""
        value = self.energy(crossing)
        if crossing.child == "mac":
            if self.problem.latched(crossing.operand):
                return np.where(self.elements(crossing.operand, 0) <= 1, value, np.inf)
            return value[(slice(None), *([slice(0, 1)] * len(self.problem.dims)))]  # no tile: every step reads anew
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
    """All stages of a batch, `before` and `after` moving, per segment."""

    batch: Batch
    costs: dict[Step, Costs]
    history: list[tuple[dict[Stage, Costs], dict[Stage, Costs]]]

    @cached_property
    def energies(self) -> Costs:
        """Least energy per row, infinite where nothing fits."""
        after = self.history[-1][1]
        final = final_stage(self.batch.problem)
        if final not in after:
            return np.full(self.batch.rows, np.inf)
        return after[final].reshape(self.batch.rows, -1)[:, -1]


def final_stage(problem: Problem) -> Stage:
    """Everything settled: only the outermost memory is left."""
    last = [len(problem.holders[operand]) - 1 for operand in OPERANDS]
    return (last[0], last[1], last[2], -1)


def solve(batch: Batch, shares: Shares) -> Solved:
    """The cheapest chain of every row under `shares`."""
    problem = batch.problem
    costs = batch.settle_costs(shares)
    dims = batch.lattices.dim_lengths
    start: Costs = np.full((batch.rows, *dims), np.inf)
    start[(slice(None), *([0] * len(dims)))] = 0.0
    entering: dict[Stage, Costs] = {(-1, -1, -1, -1): start}
    history: list[tuple[dict[Stage, Costs], dict[Stage, Costs]]] = []
    for k in range(len(problem.arrays) + 1):
        before, after = run_segment(batch, costs, entering, k)
        history.append((before, after))
        entering = passing(problem, after, k)
    return Solved(batch, costs, history)


def segment_of(problem: Problem, x: int, holder: int) -> int:
    """Arrays inside a holder; 0 for the MAC."""
    return 0 if holder < 0 else problem.segments[problem.holders[OPERANDS[x]][holder].name]


def passing(problem: Problem, after: dict[Stage, Costs], k: int) -> dict[Stage, Costs]:
    """Stages that may pass array k: all below it settled, or all but one operand, carried from here on."""
    entering: dict[Stage, Costs] = {}
    for stage, values in after.items():
        lacking = [x for x in range(3) if segment_of(problem, x, stage[x]) <= k]
        if len(lacking) > 1 or (lacking and stage[3] not in (-1, lacking[0])):
            continue
        key = (stage[0], stage[1], stage[2], lacking[0] if lacking else -1)
        entering[key] = np.minimum(entering[key], values) if key in entering else values
    return entering


def moves(problem: Problem, stage: Stage) -> tuple[int, ...]:
    """Dims a stage may grow along: all, or those the carried operand does not see. A waiting MAC keeps all at one."""
    if any(stage[x] < 0 and not problem.latched(OPERANDS[x]) for x in range(3)):
        return ()
    if stage[3] < 0:
        return tuple(range(len(problem.dims)))
    return problem.irrelevant_axes(OPERANDS[stage[3]])


def run_segment(
    batch: Batch, costs: dict[Step, Costs], entering: dict[Stage, Costs], k: int
) -> tuple[dict[Stage, Costs], dict[Stage, Costs]]:
    """Costs per stage before and after moving, within segment k."""
    before = dict(entering)
    after: dict[Stage, Costs] = {}
    waiting = sorted(before, key=lambda s: sum(s[:3]))
    while waiting:
        stage = waiting.pop(0)
        free = moves(batch.problem, stage)
        moved = batch.lattices.below(before[stage], free) if free else before[stage]
        after[stage] = moved
        for target, step in successors(batch.problem, stage, k):
            value = moved + costs[step]
            if target in before:
                np.minimum(before[target], value, out=before[target])
            else:
                before[target] = value
                bisect.insort(waiting, target, key=lambda s: sum(s[:3]))
    return before, after


def successors(problem: Problem, stage: Stage, k: int) -> tuple[tuple[Stage, Step], ...]:
    """(next stage, crossing) of every crossing that may settle now. MACs without a latch settle first, in order."""
    key = (stage, k)
    if key not in problem.known_successors:
        problem.known_successors[key] = tuple(find_successors(problem, stage, k))
    return problem.known_successors[key]


def find_successors(problem: Problem, stage: Stage, k: int) -> Iterator[tuple[Stage, Step]]:
    """`successors`, found anew."""
    unlatched = [x for x in range(3) if stage[x] < 0 and not problem.latched(OPERANDS[x])]
    for x in unlatched[:1] or range(3):
        if segment_of(problem, x, stage[x]) > k:
            continue
        for child, parent in problem.crossings[OPERANDS[x]]:
            if child == stage[x]:
                settled = [stage[0], stage[1], stage[2]]
                settled[x] = parent
                carried = stage[3]
                if carried == x and segment_of(problem, x, parent) >= k:
                    carried = -1
                yield (settled[0], settled[1], settled[2], carried), (x, child, parent)


def trace(solved: Solved, row: int) -> Chain:
    """An optimal chain of one row, found backwards by exact equality of costs (minima copy values)."""
    batch, problem = solved.batch, solved.batch.problem
    stage = final_stage(problem)
    point: Point = tuple(length - 1 for length in batch.lattices.dim_lengths)
    extents = tuple(int(e) for e in batch.lattices.extents[row])
    sizes = [column[row] for column in batch.lattices.sizes]
    events: list[Event] = []
    for k in range(len(solved.history) - 1, -1, -1):
        before, after = solved.history[k]
        while True:
            free = moves(problem, stage)
            if free:
                value = float(after[stage][(row, *point)])
                point = source_of(batch, before[stage][row], value, point, free)
            tile = tuple(int(column[i]) for column, i in zip(sizes, point, strict=True))
            origin = origin_of(solved, row, k, stage, point)
            if origin is None:
                break
            stage, (x, child, parent) = origin
            events.append(Event(tile, problem.crossings[OPERANDS[x]][child, parent], k))
        if k:
            events.append(Event(tile, None, k - 1))
            inner = solved.history[k - 1][1]
            cost = before[stage][(row, *point)]
            alike = [s for s in inner if s[:3] == stage[:3] and s[3] in (-1, stage[3])]
            stage = next(s for s in alike if inner[s][(row, *point)] == cost)
    return Chain(float(solved.energies[row]), tuple(reversed(events)), extents, row)


def origin_of(solved: Solved, row: int, k: int, stage: Stage, point: Point) -> tuple[Stage, Step] | None:
    """The stage and crossing whose settling at `point` gave this cost; None where the segment began here."""
    before, after = solved.history[k]
    goal = before[stage][(row, *point)]
    for previous, values in after.items():
        for target, step in successors(solved.batch.problem, previous, k):
            if target == stage and values[(row, *point)] + at(solved.costs[step], row, point) == goal:
                return previous, step
    return None


def at(costs: Costs, row: int, point: Point) -> float:
    """Entry of a broadcastable array."""
    full = (row, *point)
    return float(costs[tuple(i if length > 1 else 0 for i, length in zip(full, costs.shape, strict=True))])


def source_of(batch: Batch, before: Costs, value: float, point: Point, dims: tuple[int, ...]) -> Point:
    """A point below `point` whose cost before moving equals `value`."""
    mesh = batch.lattices.predecessors(point, dims)
    hit = np.argwhere(before[mesh] == value)[-1]
    return tuple(int(np.ravel(axis)[i]) for axis, i in zip(mesh, hit, strict=True))
