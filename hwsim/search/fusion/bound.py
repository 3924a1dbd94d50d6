"""A bound on every schedule of a network, depth-first groups included: what stages and ends cost at least.

A group's tiles, one after the other, are a nest of each whole layer with its maps at home. So a stage costs no less
than the least bound of all legal mappings over which of its maps lie there, time left out. What enters and leaves the
network passes the outermost memory once. All stages may be under way at once: time is that of the busiest resource.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from hwsim.network.layer import Tensor
from hwsim.pricing.area import working_power_mw
from hwsim.pricing.fused import whole_words
from hwsim.pricing.kept_weights import fetch_moves
from hwsim.pricing.latency import port_cycles, port_loads
from hwsim.pricing.layer import TIMED, LayerCost, memory_parts, price_fused, price_stage
from hwsim.pricing.moves import Moved, moved_words
from hwsim.pricing.rounding import bill_grid
from hwsim.pricing.shares import existing_share, stream_shares
from hwsim.pricing.stages import Stage
from hwsim.search.bounds.any_mapping import bound_of_all
from hwsim.search.bounds.any_tiles import AnyTiles
from hwsim.search.bounds.simple import mac_cycles
from hwsim.search.joint.optimum import Optimum
from hwsim.search.joint.schedule import Names, Schedule
from hwsim.search.joint.staircase import Weights, placed
from hwsim.search.objective import Objective
from hwsim.search.space.homes import Homes


@dataclass(frozen=True)
class GroupsBound:
    """What every schedule costs at least. `optimum` knows a mapping of each layer, near which bounds are looked for."""

    optimum: Optimum

    def value(self, objective: Objective) -> float:
        """pJ, cycles, or pJ*cycles."""
        if objective == "latency":
            return float(self.cycles)
        return self.energy_pj * (self.cycles if objective == "edp" else 1)

    @property
    def schedule(self) -> Schedule:
        """The network's stages."""
        return self.optimum.schedule

    @cached_property
    def energy_pj(self) -> float:
        """Of moves and operations, and idle power over the least time."""
        machine = self.schedule.accelerator
        idle = working_power_mw(machine) / machine.clock_mhz * 1e3
        stages = [self.stage_pj(index) for index in range(len(self.schedule.stages)) if self.made_whole[index]]
        return sum(stages) + idle * self.cycles

    @cached_property
    def cycles(self) -> int:
        """Of the busiest resource: MACs, the vector unit, a port of the outermost memory.

        Weights, and what enters and leaves the network, pass that port once.
        """
        machine, outer = self.schedule.accelerator, self.schedule.accelerator.outermost
        busy: Counter[str] = Counter()
        for index in range(len(self.schedule.stages)):
            if self.made_whole[index]:
                busy.update(self.stage_cycles(index))
        layers = [stage.layer for stage in self.schedule.stages if not stage.layer.weight_is_activation]
        weights = {layer.weight.name: layer.weight for layer in layers if layer.weight is not None}
        moved = [
            moved_words(outer, "weight", "code", t.bits, t.elements, 0, stream_shares(outer, "weight", t.bits))
            for t in weights.values()
        ]
        moved += self.ends()
        return max([*busy.values(), *port_cycles(port_loads(moved), machine, {}).values()], default=0)

    # --- stages -------------------------------------------------------------------------------------------------------

    def stage_cycles(self, index: int) -> dict[str, int]:
        """Cycles of a stage's MACs and of its vector work."""
        stage = self.schedule.stages[index]
        if index not in self.optimum.pools:
            cycles = dict(price_stage(stage, self.schedule.accelerator, None, self.schedule.touched[index]).cycles)
            return {"vector": cycles.get("vector", 0)}
        problem = self.optimum.pools[index].problem
        fastest = math.floor(AnyTiles(problem, 0).fewest_steps_cycles + 1e-6)  # one unrolling serves all tiles
        return {"macs": max(mac_cycles(problem), fastest), "vector": problem.unit.fixed_cycles}

    def stage_pj(self, index: int) -> float:
        """Energy without time: its operators on maps at home, its layer with the best choice of maps there."""
        stage, machine = self.schedule.stages[index], self.schedule.accelerator
        behind = [price_fused(follower, machine, stage, self.schedule.touched[index]) for follower in stage.fused]
        if index not in self.optimum.pools:
            inside = self.schedule.touched[index] - self.leaving
            return untimed([price_stage(stage, machine, None, inside), *behind])
        return untimed(behind) + min(self.layer_pj(index, mine) for mine in self.choices(index))

    def choices(self, index: int) -> Iterator[Names]:
        """Sets of a layer's operands that may lie at home."""
        home, operands = self.schedule.home, self.schedule.operands[index]
        strangers = {name for operand, name in operands.items() if home is None or operand not in home.keeps}
        names = sorted({*operands.values()} - strangers)
        for many in range(len(names) + 1):
            yield from map(frozenset, itertools.combinations(names, many))

    def layer_pj(self, index: int, mine: Names) -> float:
        """A layer with operands at home, those that the network reads or writes brought there or taken away.

        A weight that stays is brought by the first stage that multiplies it.
        """
        pool, machine = self.optimum.pools[index], self.schedule.accelerator
        idle = pool.problem.unit.static_pj_per_cycle
        homes = Homes(tuple(o for o, name in self.schedule.operands[index].items() if name in mine))
        problem = placed(pool.problem, homes, -idle)
        best = self.optimum.pools[index].best(self.optimum.homes(index, frozenset()), None, Weights(0.0))
        known = None if best is None else (best[1], pool.counts[best[1]], best[2].cost)
        loops = problem.layer.loops
        rounded = bill_grid(machine) * loops.N * loops.P * loops.Q  # every tile's bill is rounded to a grid
        found = max(0.0, bound_of_all(problem, "energy", known, 0) - rounded)
        return found + sum(part.energy_pj for part in memory_parts(tuple(self.crossing(index, mine)), machine))

    def crossing(self, index: int, mine: Names) -> Iterator[Moved]:
        """How operands at home get there or leave, where the network reads or writes them."""
        outer, home = self.schedule.accelerator.outermost, self.schedule.home
        assert home is not None or not mine
        operands, problem = self.schedule.operands[index], self.optimum.pools[index].problem
        x, y = operands["input"], operands["output"]
        weight = self.schedule.fetched(index, mine)
        if weight is not None:
            yield from fetch_moves(weight, self.schedule.accelerator)
        for tensor in problem.layer.inputs[:1]:
            if home is not None and x in mine and self.first_reader.get(x) == index:
                n = min(tensor.elements, problem.elements("input"))
                yield whole_words(outer, "input", tensor.bits, n, 0)
                yield whole_words(home, "input", tensor.bits, 0, n)
        if home is not None and y in mine & self.leaving:
            made = problem.layer.output
            yield whole_words(home, "output", made.bits, made.elements, 0)
            yield whole_words(outer, "output", made.bits, 0, made.elements)

    # --- ends ---------------------------------------------------------------------------------------------------------

    def ends(self) -> Iterator[Moved]:
        """What enters and leaves the network, at the outermost memory."""
        outer = self.schedule.accelerator.outermost
        for index, stage in enumerate(self.schedule.stages):
            if index in self.optimum.pools and self.made_whole[index]:
                layer = self.optimum.pools[index].problem.layer
                if self.first_reader.get(layer.inputs[0].name) == index:
                    x, points = layer.inputs[0], self.optimum.pools[index].problem.elements("input")
                    touched = min(x.elements, math.floor(points * existing_share(layer)))  # not the border
                    yield whole_words(outer, "input", x.bits, touched, 0)
            if stage.output.name in self.leaving:
                yield whole_words(outer, "output", stage.output.bits, 0, stage.output.elements)

    @cached_property
    def leaving(self) -> Names:
        """Outputs of the network."""
        read = {tensor.name for stage in self.schedule.stages for tensor in stage.inputs}
        return frozenset(stage.output.name for stage in self.schedule.stages) - read

    @cached_property
    def first_reader(self) -> dict[str, int]:
        """The network's inputs, and the stage that reads them first."""
        made = {stage.output.name for stage in self.schedule.stages}
        found: dict[str, int] = {}
        for index, stage in enumerate(self.schedule.stages):
            for tensor in stage.inputs:
                if tensor.name not in made:
                    found.setdefault(tensor.name, index)
        return found

    @cached_property
    def made_whole(self) -> tuple[bool, ...]:
        """Whether every schedule makes a stage's whole output: a group leaves out lines that nobody reads."""
        found: list[bool] = []
        stages = self.schedule.stages
        for index in reversed(range(len(stages))):
            made = stages[index].output
            readers = [i for i, stage in enumerate(stages) if made.name in {t.name for t in stage.inputs}]
            later = [found[len(stages) - 1 - i] and reads_to_the_end(stages[i], made) for i in readers]
            found.append(not readers or any(later))
        return tuple(reversed(found))


def reads_to_the_end(stage: Stage, x: Tensor) -> bool:
    """Whether a stage reads a map's last rows and columns."""
    layer = stage.layer
    if len(x.shape) != 4 or len(layer.output.shape) != 4 or x.name not in {t.name for t in layer.inputs}:
        return True  # no group runs it by lines, or an operator behind the layer reads each
    if not layer.has_macs and not any(layer.kernel):
        return all(high % low == 0 for high, low in zip(x.shape[2:], layer.output.shape[2:], strict=True))
    made, before = layer.output.shape[2:], (layer.padding[0], layer.padding[2])
    ends = [(n - 1) * s - p + r for n, s, p, r in zip(made, layer.stride, before, layer.reach, strict=True)]
    return all(end >= size for end, size in zip(ends, x.shape[2:], strict=True))


def untimed(costs: Iterable[LayerCost]) -> float:
    """Energy of bills without what grows with time alone."""
    return sum(part.energy_pj for cost in costs for part in cost.parts if part.component not in TIMED)
