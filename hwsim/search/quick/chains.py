"""The cheapest chain of tiles for each of many spatial unrollings: shortest paths with stages per operand.

Lattice points are temporal extents (the unrolling divided out), so an array changes no point. Every crossing (child,
parent) settles at one point: its tile spans the relevant extents there, everything further out reloads it. Costs are
sums over settle points on one path; stages say which holder settles next. Below an array everything settles except one
operand that may stay stationary while only loops it does not see run above the array (`carried`).
With `slide`, input tiles are cut first and settle after a run of one dim that slides them (`halos`).
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hwsim.machine.parts import OPERANDS, Operand
from hwsim.search.quick.batch import Batch, Shares
from hwsim.search.quick.halos import Halos
from hwsim.search.quick.minima import arrived, below
from hwsim.search.space.lattice import Costs
from hwsim.search.space.paths import Chain, Event
from hwsim.search.space.problem import Crossing, Problem

INPUT = OPERANDS.index("input")
# Stages of the input from CUT on: CUT + holders cut but not settled (one bit each, the MAC's is 1).
CUT = 1 << 20
Point = tuple[int, ...]
# Per operand the holder that settles next (position in `Problem.holders`, -1 the MAC); index of the carried one or -1.
Stage = tuple[int, int, int, int]


@dataclass(frozen=True)
class Step:
    """One transition: a crossing settles; or the input is `cut` at a holder; or cut ones `run` along a dim or `leave`.

    `holders` of operand `x`: settle (child, parent); cut (holder,); run and leave (cut holders..., parent). After
    both every step reloads.
    """

    x: int
    kind: str  # settle, cut, run, leave
    holders: tuple[int, ...]
    run: int = -1


@dataclass(frozen=True)
class Run:
    """A run from one size of its dim to another, after which all is reloaded; infinite in rows where both are one."""

    begin: int
    end: int
    energy: Costs


class Walk:
    """Stages and how one leads to the next: the same for all batches of a problem."""

    def __init__(self, problem: Problem, slide: bool) -> None:
        self.problem = problem
        self.window_dims = tuple(axis for _, pair in problem.window_ranks for axis in pair)
        self.windows = slide and bool(self.window_dims)
        self.known_steps: dict[tuple[Stage, int], tuple[tuple[Stage, Step], ...]] = {}
        self.known_moves: dict[Stage, tuple[int, ...]] = {}

    def moves(self, stage: Stage) -> tuple[int, ...]:
        """Dims a stage may grow along: what neither a carried operand nor a cut input sees; none while MACs wait."""
        if stage not in self.known_moves:
            self.known_moves[stage] = self.find_moves(stage)
        return self.known_moves[stage]

    def find_moves(self, stage: Stage) -> tuple[int, ...]:
        """`moves`, found anew."""
        problem = self.problem
        if any(stage[x] == -1 and not problem.latched(OPERANDS[x]) for x in range(3)):
            return ()
        stationary: set[Operand] = {OPERANDS[stage[3]]} if stage[3] >= 0 else set()
        if stage[INPUT] >= CUT:
            stationary.add("input")
        free = set(range(len(problem.dims)))
        for operand in stationary:
            free &= set(problem.irrelevant_axes(operand))
        return tuple(sorted(free))

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
        others = stage[3] if stage[3] != INPUT else -1
        free = self.moves((stage[0], -2, stage[2], others))
        for child, parent in crossings:
            if child != cut[-1]:
                continue
            place = segment_of(problem, INPUT, parent)
            if place == k and any(c == parent for c, _ in crossings):
                yield replaced(stage, INPUT, now + (2 << parent), stage[3]), Step(INPUT, "cut", (parent,))
            if place < k:
                continue
            settled = replaced(stage, INPUT, parent, others)
            yield settled, Step(INPUT, "leave", (*cut, parent))
            for dim in self.window_dims:
                if dim in free:
                    yield settled, Step(INPUT, "run", (*cut, parent), dim)


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

    def __init__(self, batch: Batch, shares: Shares, walk: Walk) -> None:
        self.batch, self.shares, self.walk = batch, shares, walk
        self.problem = batch.problem
        self.halos = [Halos(batch, k) for k in range(len(self.problem.arrays) + 1)]
        self.known: dict[tuple[Step, int], Costs] = {}
        self.known_runs: dict[tuple[Step, int], list[Run]] = {}

    def cost(self, step: Step, k: int) -> Costs:
        """Energy of a step at every point, infinite where a tile does not fit."""
        if (step, k) not in self.known:
            self.known[step, k] = self.find_cost(step, k)
        return self.known[step, k]

    def find_cost(self, step: Step, k: int) -> Costs:
        """`cost`, found anew."""
        operand = OPERANDS[step.x]
        crossings = self.problem.crossings[operand]
        if step.kind == "settle":
            return self.batch.settle_cost(crossings[step.holders[0], step.holders[1]], self.shares)
        total: Costs = np.zeros((1,) * (len(self.problem.dims) + 1))
        if step.kind == "cut":
            crossing = next(c for (child, _), c in crossings.items() if child == step.holders[0])
            fits = self.batch.fits(operand, crossing.child, crossing, self.shares)
            return total if fits is None else np.where(fits, 0.0, np.inf)
        for crossing in self.slid(step):
            total = total + self.batch.energy(crossing)
        return total

    def slid(self, step: Step) -> list[Crossing]:
        """Input crossings that run or leave together."""
        return [self.problem.crossings["input"][pair] for pair in itertools.pairwise(step.holders)]

    def runs(self, step: Step, k: int) -> list[Run]:
        """All runs of a step's dim."""
        if (step, k) not in self.known_runs:
            every = (slice(None), *([None] * len(self.problem.dims)))
            self.known_runs[step, k] = [
                Run(begin, end, np.where((growth > 1)[every], energy, np.inf))
                for begin, end, growth, energy in self.halos[k].run_energy(self.slid(step), step.run)
            ]
        return self.known_runs[step, k]

    def arrival(self, known: Costs | None, moved: Costs, step: Step, k: int) -> Costs:
        """Costs of the stage that a step leads to, at every point, coming from `moved`; or as `known`, where less."""
        if step.kind != "run":
            return arrived(known, moved, self.cost(step, k))
        axis = step.run + 1
        found = np.full_like(moved, np.inf)
        for run in self.runs(step, k):
            value = moved.take([run.begin], axis=axis) + run.energy
            place = [slice(None)] * moved.ndim
            place[axis] = slice(run.end, run.end + 1)
            np.minimum(found[tuple(place)], value, out=found[tuple(place)])
        return found if known is None else np.minimum(known, found, out=known)


def replaced(stage: Stage, x: int, value: int, carried: int) -> Stage:
    """The stage with one operand further on."""
    found = [stage[0], stage[1], stage[2]]
    found[x] = value
    return (found[0], found[1], found[2], carried)


def cut_holders(code: int) -> tuple[int, ...]:
    """Holders of a cut stage of the input, innermost first."""
    bits = code % CUT
    return tuple(i - 1 for i in range(bits.bit_length()) if bits >> i & 1)


def progress(stage: Stage) -> float:
    """Grows with every step."""
    inputs = stage[INPUT]
    done = float(inputs) if inputs < CUT else cut_holders(inputs)[-1] + 0.5
    return stage[0] + stage[2] + done


def final_stage(problem: Problem) -> Stage:
    """Everything settled: only the outermost memory is left."""
    last = [len(problem.holders[operand]) - 1 for operand in OPERANDS]
    return (last[0], last[1], last[2], -1)


def segment_of(problem: Problem, x: int, holder: int) -> int:
    """Arrays inside a holder, or inside the innermost one cut; 0 for the MAC."""
    if holder >= CUT:
        holder = cut_holders(holder)[0]
    return 0 if holder < 0 else problem.segments[problem.holders[OPERANDS[x]][holder].name]


def solve(batch: Batch, shares: Shares, walk: Walk) -> Solved:
    """The cheapest chain of every row under `shares`.

    Where the walk has windows, one run of one dim slides each input tile, then every step reloads it; else every step
    reloads it.
    """
    programme = Programme(batch, shares, walk)
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
        if lacking == [INPUT] and programme.walk.windows and stage[INPUT] < CUT:
            continue
        key = (stage[0], stage[1], stage[2], lacking[0] if lacking else -1)
        entering[key] = np.minimum(entering[key], values) if key in entering else values
    return entering


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
        free = programme.walk.moves(stage)
        moved = below(batch.lattices, before[stage], free) if free else before[stage]
        after[stage] = moved
        for target, step in programme.walk.steps(stage, k):
            known = before.get(target)
            before[target] = programme.arrival(known, moved, step, k)
            if known is None:
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
            free = solved.programme.walk.moves(stage)
            if free:
                value = float(after[stage][(row, *point)])
                point = source_of(batch, before[stage][row], value, point, free)
            origin = origin_of(solved, row, k, stage, point)
            if origin is None:
                break
            stage, step, begin = origin
            crossings = problem.crossings[OPERANDS[step.x]]
            crossing = next(c for (child, _), c in crossings.items() if child == step.holders[0])
            holds = step.kind in ("settle", "cut") and crossing.child != "mac"
            events.append(Event(tile(), k, crossing if holds else None))
            if begin >= 0:
                point = (*point[: step.run], begin, *point[step.run + 1 :])
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
        for target, step in programme.walk.steps(previous, k):
            if target != stage:
                continue
            if step.kind != "run":
                if values[(row, *point)] + entry(programme.cost(step, k), row, point) == goal:
                    return previous, step, -1
                continue
            for run in programme.runs(step, k):
                if run.end == point[step.run]:
                    begin = (*point[: step.run], run.begin, *point[step.run + 1 :])
                    if values[(row, *begin)] + entry(run.energy, row, begin) == goal:
                        return previous, step, run.begin
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
