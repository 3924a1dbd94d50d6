"""The least sum of a network over homes and mappings together, with its bound: searches follow the cheapest path.

The programme runs over bounds; what lies on its cheapest path and was never searched is searched; again, until the path
holds searched steps only. Its sum is then a lower bound of every plan in the layers' spaces, and the programme over the
mappings found gives the plan. Both meet where all searches on the path were proofs.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass

from hwsim.nest.mapping import Mapping
from hwsim.pricing.layer import price_fused, price_stage
from hwsim.pricing.stages import effective_layer
from hwsim.search.joint.programme import Pair, Path, cheapest
from hwsim.search.joint.schedule import Names, Schedule
from hwsim.search.joint.staircase import Pool, Solver, Staircase, Weights
from hwsim.search.result import EVERYTHING, Certificate, Found
from hwsim.search.space.homes import Homes
from hwsim.search.space.likeness import Key, full_key
from hwsim.search.space.problem import Problem

ENOUGH = 1e-9  # a relative gap that counts as none


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

    def __init__(self, schedule: Schedule, solver: Solver, *, alike: bool = True) -> None:
        self.schedule, self.solver = schedule, solver
        self.pools: dict[int, Pool] = {}
        kinds: dict[Key, Pool] = {}
        for index, stage in enumerate(schedule.stages):
            if stage.layer.has_macs:
                problem = Problem(effective_layer(stage), schedule.accelerator, fused=stage.fused)
                kind = *full_key(problem), problem.unit.fixed_pj, problem.unit.mac_pj, roles(schedule, index)
                self.pools[index] = kinds.setdefault(kind, Pool(problem)) if alike else Pool(problem)
        self.staircases: dict[tuple[int, Homes, Weights], Staircase] = {}
        self.streams: dict[tuple[int, Names], tuple[float, float]] = {}
        self.searches = 0

    def add(self, mappings: Iterable[tuple[str, Mapping]]) -> None:
        """Let mappings of layers, by name, compete."""
        places = {self.schedule.stages[index].layer.name: pool for index, pool in self.pools.items()}
        for name, mapping in mappings:
            places[name].add(mapping)

    # --- what stages cost ---------------------------------------------------------------------------------------------

    def homes(self, index: int, mine: Names) -> Homes:
        """Operands at home, room left open."""
        return Homes(tuple(o for o, name in self.schedule.operands[index].items() if name in mine))

    def staircase(self, index: int, mine: Names, weights: Weights) -> Staircase:
        """Of a stage's layer with MACs."""
        pool, at = self.pools[index], self.homes(index, mine)
        key = id(pool), at, weights
        if key not in self.staircases:
            self.staircases[key] = Staircase(pool, at, weights)
        return self.staircases[key]

    def streamed(self, index: int, mine: Names) -> tuple[float, float]:
        """(pJ, cycles) of a stage's operators without MACs: its own, or those behind its layer."""
        if (index, mine) not in self.streams:
            stage, machine = self.schedule.stages[index], self.schedule.accelerator
            costs = [price_fused(follower, machine, stage, mine) for follower in stage.fused]
            if not stage.layer.has_macs:
                costs.append(price_stage(stage, machine, None, mine))
            energy = sum(cost.total_energy_pj for cost in costs)
            self.streams[index, mine] = energy, float(sum(cost.latency_cycles for cost in costs))
        return self.streams[index, mine]

    def lower(self, index: int, mine: Names, room: int | None, weights: Weights) -> Pair:
        """A bound on a stage."""
        more = weights.pair(*self.streamed(index, mine))[0]
        if index not in self.pools:
            return more, 0.0
        stairs = self.staircase(index, mine, weights)
        bound, best = stairs.bound(room), stairs.pool.best(stairs.at, room, weights)
        return more + (bound if best is None else min(bound, best[0][0])), 0.0

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
            low = cheapest(self.schedule, lambda i, mine, room: self.lower(i, mine, room, weights))
            best = self.best(weights)
            bound = min(low.value[0], low.dropped)
            if best.value[0] <= bound * (1 + ENOUGH) or not (
                self.searched(low, weights) or self.searched(best, weights)
            ):
                break
        found = {} if math.isinf(best.value[0]) else dict(self.chosen(best, weights))
        return Answer(weights, found, best.resident(), best.value[0], min(bound, best.value[0]))

    def best(self, weights: Weights) -> Path:
        """The least sum with the mappings known."""
        return cheapest(self.schedule, lambda i, mine, room: self.upper(i, mine, room, weights))

    def searched(self, path: Path, weights: Weights) -> bool:
        """Bound, and then search, what lies on a path and was not searched yet; whether there was something."""
        steps = {index: path.at(self.schedule, index) for index in self.pools}
        asked = [(self.staircase(index, mine, weights), room) for index, (mine, room) in steps.items()]
        unknown = [(stairs, room) for stairs, room in asked if stairs.step(room) is None]
        coarse = [stairs for stairs, _ in unknown if not stairs.refined]
        for stairs in coarse:
            if not stairs.refined:
                stairs.refine()
        for stairs, room in unknown if not coarse else ():
            if stairs.step(room) is None:  # layers that are alike share a staircase
                self.searches += 1
                stairs.search(room, self.solver)
        return bool(unknown)

    def chosen(self, path: Path, weights: Weights) -> Iterable[tuple[str, Found]]:
        """The mappings of a path with their bills and certificates, by layer."""
        for index, pool in self.pools.items():
            mine, room = path.at(self.schedule, index)
            stairs = self.staircase(index, mine, weights)
            best, step = pool.best(stairs.at, room, weights), stairs.step(room)
            assert best is not None
            (value, _), mapping, priced = best
            name = self.schedule.stages[index].layer.name
            bound = min(stairs.bound(room), value)
            if step is not None and step.certificate is not None:
                certificate = dataclasses.replace(step.certificate, value=value, lower_bound=bound)
            else:  # its bound sufficed
                certificate = Certificate(
                    weights.objective, value, bound, 0, len(pool.counts), EVERYTHING, True, any_tiles_bound=bound
                )
            yield name, Found(mapping, pool.counts[mapping], dataclasses.replace(priced.cost, name=name), certificate)


def roles(schedule: Schedule, index: int) -> tuple[object, ...]:
    """Which operands of a stage are one tensor: they are at home together."""
    operands = schedule.operands[index]
    return tuple((o, p) for o, name in operands.items() for p, other in operands.items() if o < p and name == other)
