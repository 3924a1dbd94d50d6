"""The cheapest chain of tiles for each of many spatial unrollings: shortest paths with stages per operand.

Lattice points are temporal extents (the unrolling divided out), so an array changes no point. Every crossing (child,
parent) settles at one point: its tile spans the relevant extents there, everything further out reloads it. Costs are
sums over settle points on one path; stages say which holder settles next. Below an array everything settles except one
operand that may stay stationary while only loops it does not see run above the array (`carried`).
With `windows`, input tiles are cut first and settle after a run of one dim that slides them (`halos`).
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from hwsim.machine.parts import OPERANDS, Operand
from hwsim.search.quick.batch import Batch, Shares
from hwsim.search.quick.halos import Halos, Ratio, window_ratios
from hwsim.search.space.lattice import Costs
from hwsim.search.space.paths import Chain, Event
from hwsim.search.space.problem import Crossing, Problem

INPUT = OPERANDS.index("input")
# Stages of the input from CUT on: CUT + holders cut but not settled (one bit each, the MAC's is 1) + RATIO * index of
# the ratio its runs have reached + PARENT * (1 + holder they are read from), 0 while no run has begun.
Windows = Literal["none", "slide", "bound", "exact"]
CUT, RATIO, PARENT = 1 << 20, 1 << 21, 1 << 32
Point = tuple[int, ...]
# Per operand the holder that settles next (position in `Problem.holders`, -1 the MAC); index of the carried one or -1.
Stage = tuple[int, int, int, int]


@dataclass(frozen=True)
class Step:
    """One transition: a crossing settles; or the input is `cut` at a holder; or cut ones `run` along a dim or `leave`.

    `holders` of operand `x`: settle (child, parent); cut (holder,); run and leave (cut holders..., parent). After
    leaving every step reloads. `ratio`: index of the ratio where a run begins or the input leaves.
    """

    x: int
    kind: str  # settle, cut, run, leave
    holders: tuple[int, ...]
    run: int = -1
    ratio: int = 0
    carried: int = -1  # operand carried before the step


@dataclass(frozen=True)
class Run:
    """A run from one size of its dim to another; `ratio`: index of the ratio reached, None where all is reloaded later.

    `energy` is infinite in rows whose sizes make another ratio of it.
    """

    begin: int
    end: int
    ratio: int | None
    energy: Costs


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

    def __init__(self, batch: Batch, shares: Shares, windows: Windows) -> None:
        self.batch, self.shares = batch, shares
        self.problem = batch.problem
        self.optimistic = windows == "bound"
        self.halos = [Halos(batch, k) for k in range(len(self.problem.arrays) + 1)]
        self.windows = windows != "none" and bool(self.halos[0].ranks)
        self.ratios: list[Ratio] = []
        if self.windows:
            self.ratios = window_ratios(self.problem) if windows == "exact" else [(1,) * len(self.halos[0].dims)]
        self.ratio_index = {ratio: index for index, ratio in enumerate(self.ratios)}
        self.known: dict[tuple[Step, int], Costs] = {}
        self.known_runs: dict[tuple[Step, int], list[Run]] = {}
        self.known_steps: dict[tuple[Stage, int], tuple[tuple[Stage, Step], ...]] = {}

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
        if step.ratio:
            return self.halos[k].leave_energy(self.slid(step), self.ratios[step.ratio])
        for crossing in self.slid(step):
            total = total + self.batch.energy(crossing)
        return total

    def slid(self, step: Step) -> list[Crossing]:
        """Input crossings that run or leave together."""
        return [self.problem.crossings["input"][pair] for pair in itertools.pairwise(step.holders)]

    def runs(self, step: Step, k: int) -> list[Run]:
        """All runs of a step's dim, rows parted by the ratio they reach."""
        if (step, k) not in self.known_runs:
            halos = self.halos[k]
            ratio = self.ratios[step.ratio]
            found: list[Run] = []
            for begin, end, growth, steps, left in halos.run_energy(self.slid(step), ratio, step.run, self.optimistic):
                for factor in np.unique(growth).tolist():
                    if factor == 1:
                        continue
                    reached = list(ratio)
                    if step.run in halos.dims:
                        reached[halos.dims.index(step.run)] *= factor
                    index = self.ratio_index.get(tuple(reached))
                    mine = (growth == factor).reshape(-1, *([1] * len(self.problem.dims)))
                    found.append(Run(begin, end, index, np.where(mine, left if index is None else steps, np.inf)))
            self.known_runs[step, k] = found
        return self.known_runs[step, k]

    def arrivals(self, moved: Costs, target: Stage, step: Step, k: int) -> dict[Stage, Costs]:
        """Costs of the stages that a step leads to, at every point, coming from `moved`."""
        if step.kind != "run":
            return {target: moved + self.cost(step, k)}
        axis = step.run + 1
        found: dict[Stage, Costs] = {}
        for run in self.runs(step, k):
            value = moved.take([run.begin], axis=axis) + run.energy
            to = self.after_run(target, step, run)
            if to not in found:
                found[to] = np.full_like(moved, np.inf)
            place = [slice(None)] * moved.ndim
            place[axis] = slice(run.end, run.end + 1)
            np.minimum(found[to][tuple(place)], value, out=found[to][tuple(place)])
        return found

    def after_run(self, target: Stage, step: Step, run: Run) -> Stage:
        """`target`, the input settled, where nothing can be held any more; else unsettled at the new ratio."""
        if run.ratio is None:
            return target
        mask = sum(2 << holder if holder >= 0 else 1 for holder in step.holders[:-1])
        code = CUT + mask + RATIO * run.ratio + PARENT * (1 + step.holders[-1])
        # still carried if the innermost cut holder lies inside an array already passed: the caller's stage says so
        return replaced(target, INPUT, code, self.carrier(step, target))

    def carrier(self, step: Step, target: Stage) -> int:
        """Who is carried while the input of `step` is unsettled."""
        return target[3] if target[3] >= 0 else step.carried

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
        cut, ratio, fixed = cut_holders(now), now // RATIO % (PARENT // RATIO), now // PARENT - 1
        others = stage[3] if stage[3] != INPUT else -1
        free = moves(problem, (stage[0], -2, stage[2], others))
        for child, parent in crossings:
            if child != cut[-1] or (fixed >= 0 and parent != fixed):
                continue
            place = segment_of(problem, INPUT, parent)
            if place == k and not ratio and any(c == parent for c, _ in crossings):
                yield replaced(stage, INPUT, now + (2 << parent), stage[3]), Step(INPUT, "cut", (parent,))
            if place < k:
                continue
            settled = replaced(stage, INPUT, parent, others)
            yield settled, Step(INPUT, "leave", (*cut, parent), -1, ratio)
            runners = self.halos[0].runners if ratio else self.halos[0].dims
            for dim in runners:
                if dim in free:
                    yield settled, Step(INPUT, "run", (*cut, parent), dim, ratio, stage[3])


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
    done = float(inputs)
    if inputs >= CUT:
        done = cut_holders(inputs)[-1] + 0.5 + (inputs // RATIO % (PARENT // RATIO)) / RATIO
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


def solve(batch: Batch, shares: Shares, windows: Windows = "none") -> Solved:
    """The cheapest chain of every row under `shares`.

    `windows`: how input tiles that overlap are counted. `none`: every step reloads; `slide`: one run of one dim slides,
    then every step reloads; `bound`: one run slides, then every step costs the least it can; `exact`: every overlap.
    """
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
        values = spaced(programme.batch, values, k)
        entering[key] = np.minimum(entering[key], values) if key in entering else values
    return entering


def spaced(batch: Batch, values: Costs, k: int) -> Costs:
    """Infinite where a row that fixes the distance of array k's elements passes it elsewhere."""
    if batch.spacing is None or not batch.spacing[:, k].any():
        return values
    for dim in range(len(batch.problem.dims)):
        wanted = batch.spacing[:, k, dim][:, None]
        allowed = (wanted == 0) | (batch.lattices.sizes[dim] == wanted)
        values = np.where(batch.spread(allowed, (dim,)), values, np.inf)
    return values


def moves(problem: Problem, stage: Stage) -> tuple[int, ...]:
    """Dims a stage may grow along: those that neither a carried operand nor a cut input sees; none while MACs wait."""
    if any(stage[x] == -1 and not problem.latched(OPERANDS[x]) for x in range(3)):
        return ()
    stationary: set[Operand] = {OPERANDS[stage[3]]} if stage[3] >= 0 else set()
    if stage[INPUT] >= RATIO:
        return ()
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
        if stage[INPUT] >= RATIO:
            moved = reused(programme, moved, stage, k)
        after[stage] = moved
        for target, step in programme.steps(stage, k):
            for to, value in programme.arrivals(moved, target, step, k).items():
                if to == stage:
                    continue
                if to in before:
                    np.minimum(before[to], value, out=before[to])
                else:
                    before[to] = value
                    bisect.insort(waiting, to, key=progress)
    return before, after


def own_runs(programme: Programme, stage: Stage, k: int) -> list[tuple[int, Run]]:
    """(dim, run) of loops that reuse an unsettled input: they leave it at the same ratio, in the same stage."""
    found: list[tuple[int, Run]] = []
    for target, step in programme.steps(stage, k):
        if step.kind == "run":
            runs = programme.runs(step, k)
            found.extend((step.run, run) for run in runs if programme.after_run(target, step, run) == stage)
    return found


def reused(programme: Programme, costs: Costs, stage: Stage, k: int) -> Costs:
    """Costs of an unsettled stage after runs of loops that reuse the input; sizes only grow, so one sweep is enough."""
    result = costs.copy()
    for dim, run in own_runs(programme, stage, k):
        end = [slice(None)] * result.ndim
        end[dim + 1] = slice(run.end, run.end + 1)
        value = result.take([run.begin], axis=dim + 1) + run.energy
        np.minimum(result[tuple(end)], value, out=result[tuple(end)])
    return result


def trace(solved: Solved, row: int) -> Chain:
    """An optimal chain of one row, found backwards by exact equality of costs (minima copy values)."""
    batch, problem, programme = solved.batch, solved.batch.problem, solved.programme
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
            elif after[stage][(row, *point)] != before[stage][(row, *point)]:
                events.append(Event(tile(), k))
                point = own_origin(programme, after[stage], row, point, own_runs(programme, stage, k))
                continue
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


def own_origin(programme: Programme, after: Costs, row: int, point: Point, runs: list[tuple[int, Run]]) -> Point:
    """Where the run within a stage began that ended at `point`."""
    for dim, run in runs:
        if run.end == point[dim]:
            begin = (*point[:dim], run.begin, *point[dim + 1 :])
            if after[(row, *begin)] + entry(run.energy, row, begin) == after[(row, *point)]:
                return begin
    raise AssertionError("no run gives this cost")


def origin_of(solved: Solved, row: int, k: int, stage: Stage, point: Point) -> tuple[Stage, Step, int] | None:
    """The stage and step that gave this cost, and where a run began; None where the segment began here."""
    programme = solved.programme
    before, after = solved.history[k]
    goal = before[stage][(row, *point)]
    for previous, values in after.items():
        for target, step in programme.steps(previous, k):
            if step.kind != "run":
                if target == stage and values[(row, *point)] + entry(programme.cost(step, k), row, point) == goal:
                    return previous, step, -1
            elif target[0] == stage[0] and target[2] == stage[2] and previous != stage:
                for run in programme.runs(step, k):
                    if run.end == point[step.run] and programme.after_run(target, step, run) == stage:
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
