"""The cheapest chain of tiles for each of many spatial unrollings: shortest paths with stages per operand.

Lattice points are temporal extents (the unrolling divided out), so an array changes no point. Every crossing (child,
parent) settles at one point: its tile spans the relevant extents there, everything further out reloads it. Costs are
sums over settle points on one path; stages say which holder settles next. Below an array everything settles except one
operand that may stay stationary while only loops it does not see run above the array (`carried`).
With `windows`, input tiles are cut first and settle after a run of one dim that slides them (`halos`).
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hwsim.machine import OPERANDS, Operand
from hwsim.mapper.batch import Batch, Shares
from hwsim.mapper.halos import Halos
from hwsim.mapper.lattice import Costs
from hwsim.mapper.problem import Crossing, Problem

INPUT = OPERANDS.index("input")
CUT = 1000  # stages of the input from here on: CUT + set of holders (one bit each, the MAC's is 1) cut but not settled
Point = tuple[int, ...]
# Per operand the holder that settles next (position in `Problem.holders`, -1 the MAC); index of the carried one or -1.
Stage = tuple[int, int, int, int]


@dataclass(frozen=True)
class Step:
    """One transition: a crossing settles; or the input is `cut` at a holder; or cut ones settle after a `run` of a dim.

    `holders` of operand `x`: settle (child, parent); cut (holder,); run (cut holders..., parent). `run` -1: settle at
    once, the next loop reloads everything.
    """

    x: int
    kind: str  # settle, cut, run
    holders: tuple[int, ...]
    run: int = -1


@dataclass(frozen=True)
class Event:
    """What happens at a point of the chain, `tile` being the temporal extent of every dim there.

    `hold`: (memory, operand) is kept from here inwards, in `segment`; None with `passes`: array `segment` is passed.
    """

    tile: tuple[int, ...]
    segment: int
    hold: Crossing | None = None
    passes: bool = False


@dataclass(frozen=True)
class Chain:
    """A path through the lattice, innermost event first, and its energy in pJ by the linear prices."""

    energy_pj: float
    events: tuple[Event, ...]
    extents: tuple[int, ...]  # padded temporal extents
    row: int


@dataclass
class Solved:
    """All stages of a batch, `before` and `after` moving, per segment."""

    programme: Programme
    history: list[tuple[dict[Stage, Costs], dict[Stage, Costs]]]

    @property
    def batch(self) -> Batch:
        """The unrollings solved."""
        return self.programme.batch

    @cached_property
    def energies(self) -> Costs:
        """Least energy per row, infinite where nothing fits."""
        after = self.history[-1][1]
        final = final_stage(self.batch.problem)
        if final not in after:
            return np.full(self.batch.rows, np.inf)
        return after[final].reshape(self.batch.rows, -1)[:, -1]


class Programme:
    """Costs of all steps of a batch under given shares of memories."""

    def __init__(self, batch: Batch, shares: Shares, windows: bool) -> None:
        self.batch, self.shares = batch, shares
        self.problem = batch.problem
        self.halos = [Halos(batch, k) for k in range(len(self.problem.arrays) + 1)]
        self.windows = windows and bool(self.halos[0].windows)
        self.known: dict[Step, Costs] = {}
        self.known_steps: dict[tuple[Stage, int], tuple[tuple[Stage, Step], ...]] = {}

    def cost(self, step: Step) -> Costs:
        """Energy of a step at every point it may end at, infinite where a tile does not fit (not for runs)."""
        if step not in self.known:
            operand = OPERANDS[step.x]
            crossings = self.problem.crossings[operand]
            if step.kind == "cut":
                crossing = next(c for (child, _), c in crossings.items() if child == step.holders[0])
                fits = self.batch.fits(operand, crossing.child, crossing, self.shares)
                self.known[step] = np.zeros((1,) * (len(self.problem.dims) + 1)) if fits is None else (
                    np.where(fits, 0.0, np.inf)
                )  # fmt: skip
            elif step.kind == "settle":
                crossing = crossings[step.holders[0], step.holders[1]]
                self.known[step] = self.batch.settle_cost(crossing, self.shares)
            else:
                self.known[step] = sum(
                    (self.batch.energy(crossings[pair]) for pair in pairwise(step.holders)),
                    start=np.zeros((1,) * (len(self.problem.dims) + 1)),
                )
        return self.known[step]

    def run_costs(self, step: Step, k: int) -> dict[tuple[int, int], Costs]:
        """Energy of a run by (tile, reached) index of its dim: all cut crossings slide together."""
        crossings = self.problem.crossings["input"]
        found: dict[tuple[int, int], Costs] = {}
        for pair in pairwise(step.holders):
            for key, value in self.halos[k].energies(crossings[pair], step.run).items():
                found[key] = found[key] + value if key in found else value
        return found

    def arrive(self, moved: Costs, step: Step, k: int) -> Costs:
        """Cost of the target stage at every point, coming from `moved` by a step."""
        if step.run < 0:
            return moved + self.cost(step)
        axis = step.run + 1
        target = np.full_like(moved, np.inf)
        for (tile, reached), cost in self.run_costs(step, k).items():
            value = moved.take([tile], axis=axis) + cost
            place = [slice(None)] * moved.ndim
            place[axis] = slice(reached, reached + 1)
            np.minimum(target[tuple(place)], value, out=target[tuple(place)])
        return target

    def steps(self, stage: Stage, k: int) -> tuple[tuple[Stage, Step], ...]:
        """(next stage, step) of everything that may happen now. MACs without a latch settle first, in order."""
        key = (stage, k)
        if key not in self.known_steps:
            self.known_steps[key] = tuple(self.find_steps(stage, k))
        return self.known_steps[key]

    def find_steps(self, stage: Stage, k: int) -> Iterator[tuple[Stage, Step]]:
        """`steps`, found anew."""
        problem = self.problem
        unlatched = [x for x in range(3) if stage[x] == -1 and not problem.latched(OPERANDS[x])]
        for x in unlatched[:1] or range(3):
            if x == INPUT and self.windows and not unlatched:
                yield from self.input_steps(stage, k)
                continue
            if segment_of(problem, x, stage[x]) > k:
                continue
            for child, parent in problem.crossings[OPERANDS[x]]:
                if child == stage[x]:
                    carried = -1 if stage[3] == x and segment_of(problem, x, parent) >= k else stage[3]
                    yield replaced(stage, x, parent, carried), Step(x, "settle", (child, parent))

    def input_steps(self, stage: Stage, k: int) -> Iterator[tuple[Stage, Step]]:
        """Cuts and runs of the input."""
        problem = self.problem
        now = stage[INPUT]
        crossings = problem.crossings["input"]
        if now < CUT:
            if segment_of(problem, INPUT, now) == k and any(child == now for child, _ in crossings):
                yield replaced(stage, INPUT, CUT + (2 << now if now >= 0 else 1), stage[3]), Step(INPUT, "cut", (now,))
            return
        cut = cut_holders(now)
        free = moves(problem, (stage[0], -2, stage[2], stage[3] if stage[3] != INPUT else -1))
        for child, parent in crossings:
            if child != cut[-1]:
                continue
            place = segment_of(problem, INPUT, parent)
            if place == k and any(c == parent for c, _ in crossings):
                yield replaced(stage, INPUT, now + (2 << parent), stage[3]), Step(INPUT, "cut", (parent,))
            if place >= k:
                carried = -1 if stage[3] == INPUT else stage[3]
                settled = replaced(stage, INPUT, parent, carried)
                yield settled, Step(INPUT, "run", (*cut, parent))
                for _, pair in self.halos[0].windows:
                    for dim in pair:
                        if dim in free:
                            yield settled, Step(INPUT, "run", (*cut, parent), dim)


def replaced(stage: Stage, x: int, value: int, carried: int) -> Stage:
    """The stage with one operand further on."""
    found = [stage[0], stage[1], stage[2]]
    found[x] = value
    return (found[0], found[1], found[2], carried)


def pairwise(holders: tuple[int, ...]) -> list[tuple[int, int]]:
    """Neighbouring (child, parent)."""
    return list(zip(holders, holders[1:], strict=False))


def cut_holders(code: int) -> tuple[int, ...]:
    """Holders of a cut stage of the input, innermost first."""
    bits = code - CUT
    return tuple(i - 1 for i in range(bits.bit_length()) if bits >> i & 1)


def progress(stage: Stage) -> int:
    """Grows with every step."""
    inputs = stage[INPUT]
    done = 2 * inputs if inputs < CUT else 2 * cut_holders(inputs)[-1] + 1
    return 2 * (stage[0] + stage[2]) + done


def final_stage(problem: Problem) -> Stage:
    """Everything settled: only the outermost memory is left."""
    last = [len(problem.holders[operand]) - 1 for operand in OPERANDS]
    return (last[0], last[1], last[2], -1)


def segment_of(problem: Problem, x: int, holder: int) -> int:
    """Arrays inside a holder, or inside the innermost one cut; 0 for the MAC."""
    if holder >= CUT:
        holder = cut_holders(holder)[0]
    return 0 if holder < 0 else problem.segments[problem.holders[OPERANDS[x]][holder].name]


def solve(batch: Batch, shares: Shares, windows: bool = False) -> Solved:
    """The cheapest chain of every row under `shares`."""
    programme = Programme(batch, shares, windows)
    dims = batch.lattices.dim_lengths
    start: Costs = np.full((batch.rows, *dims), np.inf)
    start[(slice(None), *([0] * len(dims)))] = 0.0
    entering: dict[Stage, Costs] = {(-1, -1, -1, -1): start}
    history: list[tuple[dict[Stage, Costs], dict[Stage, Costs]]] = []
    for k in range(len(batch.problem.arrays) + 1):
        before, after = run_segment(programme, entering, k)
        history.append((before, after))
        entering = passing(programme, after, k)
    return Solved(programme, history)


def passing(programme: Programme, after: dict[Stage, Costs], k: int) -> dict[Stage, Costs]:
    """Stages that may pass array k: all below it settled, or all but one operand, carried from here on."""
    problem = programme.problem
    entering: dict[Stage, Costs] = {}
    for stage, values in after.items():
        lacking = [x for x in range(3) if segment_of(problem, x, stage[x]) <= k]
        if len(lacking) > 1 or (lacking and stage[3] not in (-1, lacking[0])):
            continue
        if lacking == [INPUT] and programme.windows and stage[INPUT] < CUT:
            continue
        key = (stage[0], stage[1], stage[2], lacking[0] if lacking else -1)
        entering[key] = np.minimum(entering[key], values) if key in entering else values
    return entering


def moves(problem: Problem, stage: Stage) -> tuple[int, ...]:
    """Dims a stage may grow along: those that neither a carried operand nor a cut input sees; none while a MAC waits."""
    if any(stage[x] == -1 and not problem.latched(OPERANDS[x]) for x in range(3)):
        return ()
    stationary = {OPERANDS[stage[3]]} if stage[3] >= 0 else set[Operand]()
    if stage[INPUT] >= CUT:
        stationary.add("input")
    free = set(range(len(problem.dims)))
    for operand in stationary:
        free &= set(problem.irrelevant_axes(operand))
    return tuple(sorted(free))


def run_segment(
    programme: Programme, entering: dict[Stage, Costs], k: int
) -> tuple[dict[Stage, Costs], dict[Stage, Costs]]:
    """Costs per stage before and after moving, within segment k."""
    batch = programme.batch
    before = dict(entering)
    after: dict[Stage, Costs] = {}
    waiting = sorted(before, key=progress)
    while waiting:
        stage = waiting.pop(0)
        free = moves(batch.problem, stage)
        moved = batch.lattices.below(before[stage], free) if free else before[stage]
        after[stage] = moved
        for target, step in programme.steps(stage, k):
            value = programme.arrive(moved, step, k)
            if target in before:
                np.minimum(before[target], value, out=before[target])
            else:
                before[target] = value
                bisect.insort(waiting, target, key=progress)
    return before, after


def trace(solved: Solved, row: int) -> Chain:
    """An optimal chain of one row, found backwards by exact equality of costs (minima copy values)."""
    batch, problem = solved.batch, solved.batch.problem
    stage = final_stage(problem)
    point: Point = tuple(length - 1 for length in batch.lattices.dim_lengths)
    extents = tuple(int(e) for e in batch.lattices.extents[row])
    sizes = [column[row] for column in batch.lattices.sizes]

    def tile() -> tuple[int, ...]:
        return tuple(int(column[i]) for column, i in zip(sizes, point, strict=True))

    events: list[Event] = []
    for k in range(len(solved.history) - 1, -1, -1):
        before, after = solved.history[k]
        while True:
            free = moves(problem, stage)
            if free:
                value = float(after[stage][(row, *point)])
                point = source_of(batch, before[stage][row], value, point, free)
            origin = origin_of(solved, row, k, stage, point)
            if origin is None:
                break
            stage, step, tile_index = origin
            crossings = problem.crossings[OPERANDS[step.x]]
            crossing = next(c for (child, _), c in crossings.items() if child == step.holders[0])
            events.append(Event(tile(), k, crossing if step.kind != "run" and crossing.child != "mac" else None))
            if tile_index >= 0:
                point = (*point[: step.run], tile_index, *point[step.run + 1 :])
        if k:
            events.append(Event(tile(), k - 1, passes=True))
            inner = solved.history[k - 1][1]
            cost = before[stage][(row, *point)]
            alike = [s for s in inner if s[:3] == stage[:3] and s[3] in (-1, stage[3])]
            stage = next(s for s in alike if inner[s][(row, *point)] == cost)
    return Chain(float(solved.energies[row]), tuple(reversed(events)), extents, row)


def origin_of(solved: Solved, row: int, k: int, stage: Stage, point: Point) -> tuple[Stage, Step, int] | None:
    """The stage and step that gave this cost, and where a run began; None where the segment began here."""
    programme = solved.programme
    before, after = solved.history[k]
    goal = before[stage][(row, *point)]
    for previous, values in after.items():
        for target, step in programme.steps(previous, k):
            if target != stage:
                continue
            if step.run < 0:
                if values[(row, *point)] + entry(programme.cost(step), row, point) == goal:
                    return previous, step, -1
                continue
            for (tile, reached), cost in programme.run_costs(step, k).items():
                if reached == point[step.run]:
                    start = (*point[: step.run], tile, *point[step.run + 1 :])
                    if values[(row, *start)] + entry(cost, row, start) == goal:
                        return previous, step, tile
    return None


def entry(costs: Costs, row: int, point: Point) -> float:
    """Entry of a broadcastable array."""
    full = (row, *point)
    return float(costs[tuple(i if length > 1 else 0 for i, length in zip(full, costs.shape, strict=True))])


def source_of(batch: Batch, before: Costs, value: float, point: Point, dims: tuple[int, ...]) -> Point:
    """A point below `point` whose cost before moving equals `value`."""
    mesh = batch.lattices.predecessors(point, dims)
    hit = np.argwhere(before[mesh] == value)[-1]
    return tuple(int(np.ravel(axis)[i]) for axis, i in zip(mesh, hit, strict=True))
