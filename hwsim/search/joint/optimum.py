"""The least sum of a network over homes and mappings together, with its bound: searches follow the cheapest path.

The programme runs over bounds; what lies on its cheapest path and was never searched is searched; again, until the path
holds searched steps only. Its sum is then a lower bound of every plan in the layers' spaces, and the programme over the
mappings found gives the plan. Both meet where all searches on the path were proofs.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from hwsim.machine.parts import Operand
from hwsim.nest.counts import Counts
from hwsim.nest.mapping import Mapping
from hwsim.pricing.kept_weights import fetch_cost
from hwsim.pricing.layer import price_fused, price_stage
from hwsim.pricing.lifetimes import WHOLE_TENSORS
from hwsim.pricing.stages import effective_layer
from hwsim.search.joint.programme import Pair, Path, cheapest
from hwsim.search.joint.schedule import Names, Schedule
from hwsim.search.joint.staircase import At, Pool, Solver, Staircase, Weights
from hwsim.search.result import Found
from hwsim.search.side_by_side import each, parted
from hwsim.search.space.likeness import Key, full_key, resources_key
from hwsim.search.space.problem import Problem

ENOUGH = 1e-9  # a relative gap that counts as none
Asked = tuple[Staircase, int | None]  # a layer's costs, and the room that is left
HOPE = 0.002  # share of its cost by which a layer may be cheaper outside its proof's space, before one was seen


@dataclass(frozen=True)
class Answer:
    """The best plan under some weights: mappings per layer, tensors that stay, the sum and its lower bound."""

    weights: Weights
    found: dict[str, Found]
    resident: Names
    value: float
    lower_bound: float


class Optimum:
    """A network's choice of homes and mappings. `alike`: layers that are alike share mappings."""

    def __init__(self, schedule: Schedule, solver: Solver | None, *, alike: bool = True) -> None:
        self.schedule, self.solver = schedule, solver
        self.pools: dict[int, Pool] = {}
        kinds: dict[Key, Pool] = {}
        counts: dict[Key, dict[Mapping, Counts]] = {}  # layers that move alike have the same mappings
        for index, stage in enumerate(schedule.stages):
            if stage.layer.has_macs:
                problem = Problem(effective_layer(stage), schedule.accelerator, fused=stage.fused)
                kind = *full_key(problem), problem.unit.fixed_pj, problem.unit.mac_pj, roles(schedule, index)
                if schedule.lifetimes.rows:  # rows of the input that a block frees depend on its border
                    kind = *kind, stage.layer.padding, stage.layer.inputs[0].shape
                pool = Pool(problem, counts.setdefault(resources_key(problem), {}) if alike else {})
                self.pools[index] = kinds.setdefault(kind, pool) if alike else pool
        self.staircases: dict[tuple[int, At, Weights], Staircase] = {}
        self.streams: dict[tuple[int, Names], tuple[float, float]] = {}
        self.searches, self.hope = 0, HOPE

    def add(self, mappings: Iterable[tuple[str, Mapping]]) -> None:
        """Let mappings of layers, by name, compete."""
        places = {self.schedule.stages[index].layer.name: pool for index, pool in self.pools.items()}
        for name, mapping in mappings:
            places[name].add(mapping)

    # --- what stages cost ---------------------------------------------------------------------------------------------

    def homes(self, index: int, mine: Names) -> At:
        """Operands at home, and what dies there."""
        operands: tuple[Operand, ...] = tuple(o for o, name in self.schedule.operands[index].items() if name in mine)
        return At(operands, self.schedule.freed(index, mine))

    def staircase(self, index: int, mine: Names, weights: Weights) -> Staircase:
        """Of a stage's layer with MACs."""
        pool, at = self.pools[index], self.homes(index, mine)
        key = id(pool), at, weights
        if key not in self.staircases:
            self.staircases[key] = Staircase(pool, at, weights)
        return self.staircases[key]

    def streamed(self, index: int, mine: Names) -> tuple[float, float]:
        """(pJ, cycles) beside a stage's layer with MACs: of operators, and of fetching a weight to stay."""
        if (index, mine) not in self.streams:
            stage, machine = self.schedule.stages[index], self.schedule.accelerator
            costs = [price_fused(follower, machine, stage, mine) for follower in stage.fused]
            if not stage.layer.has_macs:
                costs.append(price_stage(stage, machine, None, mine))
            energy = sum(cost.total_energy_pj for cost in costs)
            cycles = float(sum(cost.latency_cycles for cost in costs))
            weight = self.schedule.fetched(index, mine)
            more = (0.0, 0.0) if weight is None else fetch_cost(weight, machine)
            self.streams[index, mine] = energy + more[0], cycles + more[1]
        return self.streams[index, mine]

    def lower(self, index: int, mine: Names, room: int | None, weights: Weights) -> Pair:
        """A bound on a stage."""
        more = weights.pair(*self.streamed(index, mine))[0]
        if index not in self.pools:
            return more, 0.0
        return more + self.bound(self.staircase(index, mine, weights), room), 0.0

    def bound(self, stairs: Staircase, room: int | None) -> float:
        """What a layer costs at least, of what its proofs cover and of what is known beside that."""
        bound, best = stairs.bound(room), stairs.pool.best(stairs.at, room, stairs.weights)
        return bound if best is None else min(bound, best[0][0])

    def upper(self, index: int, mine: Names, room: int | None, weights: Weights) -> Pair:
        """What a stage costs with the best mapping known; infinite without one."""
        first, second = weights.pair(*self.streamed(index, mine))
        if index not in self.pools:
            return first, second
        best = self.pools[index].best(self.homes(index, mine), room, weights)
        return (math.inf, math.inf) if best is None else (first + best[0][0], second + best[0][1])

    # --- the search ---------------------------------------------------------------------------------------------------

    def minimise(self, weights: Weights) -> Answer:
        """The plan of least sum. `Answer.value` is infinite where nothing fits."""
        while True:
            low, best = self.closed(weights)
            if math.isinf(best.value[0]) or not self.improved(best, weights):
                break
        bound = min(low.value[0], low.dropped)
        found = {} if math.isinf(best.value[0]) else dict(self.chosen(best, weights))
        return Answer(weights, found, best.resident(), best.value[0], min(bound, best.value[0]))

    def closed(self, weights: Weights) -> tuple[Path, Path]:
        """The paths of least bounds and of least cost, when they meet or no search can bring them nearer."""
        while True:
            low = cheapest(self.schedule, lambda i, mine, room: self.lower(i, mine, room, weights))
            best = self.best(weights)
            # what a stage may cost beyond its bound before no better plan holds it
            spare = best.value[0] - min(low.value[0], low.dropped)
            if spare <= best.value[0] * ENOUGH or not any(self.searched(path, weights, spare) for path in (low, best)):
                return low, best

    def bounded(self, weights: Weights) -> float:
        """What every plan costs at least, as far as bounds say it without a search."""
        while True:
            low = cheapest(self.schedule, lambda i, mine, room: self.lower(i, mine, room, weights))
            coarse = [stairs for stairs, _ in self.steps(low, weights) if not stairs.refined]
            if not coarse:
                return min(low.value[0], low.dropped)
            for stairs in coarse:
                stairs.refine()

    def best(self, weights: Weights) -> Path:
        """The least sum with the mappings known."""
        return cheapest(self.schedule, lambda i, mine, room: self.upper(i, mine, room, weights))

    def searched(self, path: Path, weights: Weights, spare: float) -> bool:
        """Bound, or else search one step, of what lies on a path and was not searched yet; whether there was one."""
        unknown = [(stairs, room) for stairs, room in self.steps(path, weights) if stairs.step(room) is None]
        coarse = [stairs for stairs, _ in unknown if not stairs.refined]
        for stairs in coarse:
            if not stairs.refined:
                stairs.refine()
        if unknown and not coarse:
            stairs, room = min(unknown, key=lambda step: ease(*step))
            self.searches += 1
            stairs.search(room, self.solving, self.bound(stairs, room) + spare)
        return bool(unknown)

    def improved(self, best: Path, weights: Weights) -> bool:
        """Look outside the proofs' spaces; whether something was looked at.

        First along the best path, then along what would be cheapest if proven mappings could be had a little cheaper:
        by the largest share that was gained so far.
        """
        return self.looked_beside(best, weights) or self.looked_beside(
            cheapest(self.schedule, lambda i, mine, room: self.hoped(i, mine, room, weights)), weights
        )

    def looked_beside(self, path: Path, weights: Weights) -> bool:
        """`improved` of a path; what was not proven on it is proven first. Large rooms first: they serve the others."""
        steps = [step for step in self.steps(path, weights) if step[1] not in step[0].better]
        steps.sort(key=lambda step: -math.inf if step[1] is None else -step[1])
        for searches, gained in each(self.look_at, self.apart(steps)):
            self.searches += searches
            self.hope = max(self.hope, gained)
        return bool(steps)

    def apart(self, steps: Sequence[Asked]) -> list[list[Asked]]:
        """Steps in groups that know nothing of each other. Blocks of layers, where rows are freed, may be alike."""
        if self.schedule.lifetimes != WHOLE_TENSORS:
            return [list(steps)] if steps else []

        def shared(step: Asked) -> tuple[Hashable, Hashable]:
            stairs, room = step
            return id(stairs.pool.counts), self.solving.topic(stairs.at_room(room), stairs.weights.objective)

        return parted(steps, shared)

    def look_at(self, steps: Sequence[Asked]) -> tuple[int, float]:
        """Look outside the proofs' spaces of steps; (proofs that were made first, largest share of cost gained)."""
        searches, gained = 0, 0.0
        for stairs, room in steps:
            if stairs.step(room) is None:
                searches += 1
                stairs.search(room, self.solving)
            gained = max(gained, stairs.improve(room, self.solving))
        return searches, gained

    def hoped(self, index: int, mine: Names, room: int | None, weights: Weights) -> Pair:
        """What a stage may cost once more mappings are looked at."""
        first, second = self.upper(index, mine, room, weights)
        if index in self.pools and self.staircase(index, mine, weights).promises(room):
            first -= self.hope * first
        return first, second

    def steps(self, path: Path, weights: Weights) -> list[Asked]:
        """What a path asks of the layers with MACs."""
        places = {index: path.at(self.schedule, index) for index in self.pools}
        return [(self.staircase(index, mine, weights), room) for index, (mine, room) in places.items()]

    @property
    def solving(self) -> Solver:
        """The solver, where one is needed."""
        assert self.solver is not None, "mappings are given, and none was to be searched"
        return self.solver

    def chosen(self, path: Path, weights: Weights) -> Iterable[tuple[str, Found]]:
        """The mappings of a path with their bills and certificates, by layer."""
        for index, (stairs, room) in zip(self.pools, self.steps(path, weights), strict=True):
            name, found = self.schedule.stages[index].layer.name, stairs.found(room)
            yield name, dataclasses.replace(found, cost=dataclasses.replace(found.cost, name=name))


def ease(stairs: Staircase, room: int | None) -> tuple[bool, float, int]:
    """Which step to search first: what nothing crowds, then what is nearly known; of layers alike what serves all."""
    best = stairs.pool.best(stairs.at, room, stairs.weights)
    known = math.inf if best is None else best[0][0] / max(stairs.bound(room), 1.0)
    return room is not None, known, stairs.problem.unit.fixed_cycles


def roles(schedule: Schedule, index: int) -> tuple[object, ...]:
    """Which operands of a stage are one tensor: they are at home together."""
    operands = schedule.operands[index]
    return tuple((o, p) for o, name in operands.items() for p, other in operands.items() if o < p and name == other)
