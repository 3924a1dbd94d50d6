"""Time as the search sees it: which resource is taken to be the slowest, and what each crossing adds to it.

latency = max over MACs, ports and vector unit + what waits for refills of memories without a second buffer, where the
slowest port decides (`pricing.latency`). A `Regime` names the resource in each maximum: its sum never exceeds the
latency, and the latency is the largest sum over all regimes. A sum is linear in counts, so it has prices per crossing
like energy has (`Table` of kernel/state.h), divided by the instances inside which a memory works.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hwsim.machine.parts import Array, Memory, Operand, stationary_memory
from hwsim.nest.counts import Counts, Kind
from hwsim.nest.points import Ints
from hwsim.pricing.latency import (
    below_systolic,
    compute_cycles,
    fill_cycles,
    hides_fills,
    port_cycles,
    port_loads,
    split_loads,
    start_cycles,
)
from hwsim.pricing.moves import Direction, fixed_moves, layer_moves
from hwsim.pricing.offsets import offset_cost
from hwsim.pricing.rounding import partial_words
from hwsim.search.space.problem import Crossings, Ends, Pairs, Problem

Port = tuple[str, str]  # (memory, "read", "write" or, where both share it, "port")
COMPUTE: Port = ("", "compute")
VECTOR: Port = ("", "vector")


@dataclass(frozen=True)
class Regime:
    """The slowest resource, and per memory whose refills wait its slowest port. `busy` empty: all resources add up."""

    busy: tuple[Port, ...]
    waits: tuple[tuple[str, Port], ...]


@dataclass(frozen=True)
class Timing:
    """Resources of a problem and what they are charged for."""

    problem: Problem

    @cached_property
    def waiting(self) -> tuple[str, ...]:
        """Memories whose refills nothing hides."""
        machine = self.problem.accelerator
        return tuple(m.name for m in machine.memories[1:] if not (m.double_buffered or below_systolic(machine, m)))

    def port(self, memory: str, direction: Direction) -> Port:
        """The port that serves a direction."""
        return (memory, "port") if memory in self.problem.unit.shared_ports else (memory, direction)

    @cached_property
    def bandwidths(self) -> dict[Port, float]:
        """Bits per cycle of every limited port, one instance."""
        return {self.port(memory, d): limit for (memory, d), limit in self.problem.unit.bandwidth.items()}

    @cached_property
    def constant_bits(self) -> dict[Port, float]:
        """What parameters and offsets move over every port, the same under every mapping."""
        problem = self.problem
        offset = offset_cost(problem.layer, problem.accelerator.capabilities)
        stays = "input" in problem.homes.operands
        moves = fixed_moves(problem.layer, problem.accelerator, offset, input_stays=stays)
        found: dict[Port, float] = {}
        for (memory, direction), bits in port_loads(moves).items():
            port = self.port(memory, direction)
            found[port] = found.get(port, 0.0) + bits
        return found

    @cached_property
    def resources(self) -> tuple[Port, ...]:
        """Everything that could be the slowest."""
        return (COMPUTE, VECTOR, *self.bandwidths)

    def default(self) -> Regime:
        """MACs are the slowest; refills wait for the outermost memory where its port is limited."""
        outermost = self.port(self.problem.accelerator.outermost.name, "read")
        waits = tuple((m, outermost) for m in self.waiting) if outermost in self.bandwidths else ()
        return Regime((COMPUTE,) if self.problem.accelerator.overlap else self.resources, waits)

    def regime_of(self, counts: Counts) -> Regime:
        """The regime that gives the latency of a mapping."""
        problem = self.problem
        layer, machine = problem.layer, problem.accelerator
        at_home = frozenset(problem.homes.operands)
        moved = layer_moves(layer, counts, machine, at_home, offset_cost(layer, machine.capabilities))
        exposed, overlapped = split_loads(counts, machine, moved)
        instances = dict(counts.instances)
        waits: list[tuple[str, Port]] = []
        for memory, load in exposed.items():
            if memory not in self.waiting:  # first fills: in the price alone, which bounds stay below
                continue
            refill = port_cycles(load, machine, instances)
            if any(refill.values()):
                waits.append((memory, named(max(refill, key=lambda name: refill[name]))))
        cycles = {named(name): n for name, n in port_cycles(overlapped, machine, instances).items()}
        cycles[COMPUTE] = compute_cycles(counts, machine, problem.unit.mac)
        cycles[VECTOR] = problem.unit.fixed_cycles
        busy = (max(cycles, key=lambda port: cycles[port]),) if machine.overlap else self.resources
        return Regime(busy, tuple(waits))

    def compute_cycles(self, spatial: NDArray[np.int64], *, apart: bool = False) -> NDArray[np.float64]:
        """Cycles of the MACs per unrolling with one fill and drain of every systolic array.

        `apart`: without those that are in the prices per element (`fills`).
        """
        steps = -(-np.array(self.problem.extents) // spatial.prod(axis=1))
        return self.whole_commands(steps) + self.filled_once(apart=apart)

    def filled_once(self, *, apart: bool = False) -> int:
        """Cycles to fill and drain every systolic array once; `apart`: those that are in no price per element."""
        machine, found = self.problem.accelerator, 0
        for array in machine.arrays:
            below = stationary_memory(machine, array)
            if array.systolic and not (apart and below is not None and below.name in self.fills):
                found += fill_cycles(machine, array, self.problem.unit.mac)
        return found

    def whole_commands(self, iterations: Ints) -> NDArray[np.float64]:
        """Least cycles of the MACs for iterations in time, [unrolling, dim], in whole commands of the arrays.

        What is held still changes at least with every iteration of the loops that move it, where there is room for one
        element of one operand alone; more tiles only make more commands.
        """
        problem = self.problem
        found = problem.mac_cycles(iterations)
        rate = float(problem.unit.mac.step_cycles)
        for array in problem.accelerator.arrays:
            if array.command_steps > 1:
                passes = iterations[..., self.moving(array)].prod(axis=-1)
                steps = problem.steps(iterations)
                whole = passes * -(-steps // (passes * array.command_steps)) * array.command_steps
                found = np.maximum(found, np.ceil(whole * rate - 1e-6))
        return found

    def moving(self, array: Array) -> list[int]:
        """Positions of the loops whose every iteration changes what an array holds still; none where that has room."""
        problem, below = self.problem, stationary_memory(self.problem.accelerator, array)
        if problem.unit.mac.products > 1 or problem.unit.mac.granules:  # steps are no product of iterations
            return []
        if below is None or len(below.keeps) != 1 or below.size_bits is None:
            return []
        operand = next(iter(below.keeps))
        kind: Kind = "final" if operand == "output" else "code"
        if 2 * problem.unit.element_bits[operand, kind] <= below.size_bits or operand in below.bypass:
            return []
        reuse = problem.irrelevant_axes(operand)
        return [e for e in range(len(problem.dims)) if e not in reuse]

    @cached_property
    def fills(self) -> dict[str, float]:
        """Cycles per element written into a memory for whose tiles a systolic array waits.

        It waits for every tile, and a tile has at most as many elements as its memory.
        """
        machine, found = self.problem.accelerator, dict[str, float]()
        for array in machine.arrays:
            below = stationary_memory(machine, array)
            if not array.systolic or below is None or hides_fills(machine, array) or below.size_bits is None:
                continue
            if below.keeps in (("weight",), ("input",)):
                bits = self.problem.unit.held_bits[below.name, below.keeps[0], "code"]
                found[below.name] = fill_cycles(machine, array, self.problem.unit.mac) * bits / below.size_bits
        return found

    def constant_cycles(self, regime: Regime, spatial: NDArray[np.int64]) -> NDArray[np.float64]:
        """The part of a regime's sum that no order of loops changes, per unrolling."""
        problem = self.problem
        total = np.full(len(spatial), float(start_cycles(problem.accelerator, problem.unit.mac)))
        for resource in regime.busy:
            if resource == COMPUTE:
                total += self.compute_cycles(spatial, apart=True)
            elif resource == VECTOR:
                total += problem.unit.fixed_cycles
            elif resource in self.bandwidths:
                bits = self.constant_bits.get(resource, 0.0) / self.bandwidths[resource]
                total += bits / spatial[:, problem.segments[resource[0]] :].prod(axis=(1, 2))
        return total

    def crossings(self, regime: Regime, segment: int) -> dict[Operand, Pairs]:
        """Crossings in cycles of a regime: only memories with `segment` arrays inside cost any, as one instance."""
        return Crossings(self.problem, CycleRates(self, regime, segment)).all


def named(text: str) -> Port:
    """A port from its name in `pricing.latency`: "glb read"."""
    memory, _, kind = text.rpartition(" ")
    return (memory, kind)


@dataclass(frozen=True)
class CycleRates:
    """Cycles per element at the ports of a regime, in memories with `segment` arrays inside."""

    timing: Timing
    regime: Regime
    segment: int

    def access(self, ends: Ends, memory: Memory, operand: Operand, kind: Kind, direction: Direction) -> float:
        """At one instance of a memory."""
        timing = self.timing
        if timing.problem.segments[memory.name] != self.segment:
            return 0.0
        port = timing.port(memory.name, direction)
        fill = timing.fills.get(memory.name, 0.0) if direction == "write" and COMPUTE in self.regime.busy else 0.0
        if port not in timing.bandwidths:
            return fill
        bits = timing.problem.unit.port_bits[memory.name, operand, kind, direction]
        waits = self.waits_for(ends, memory, operand)
        chosen = port in self.regime.busy if waits is None else (waits, port) in self.regime.waits
        return fill + (bits / timing.bandwidths[port] if chosen else 0.0)

    def hop(self, array: Array, operand: Operand, kind: Kind) -> float:
        """Arrays are no resource."""
        return 0.0

    @property
    def dearest(self) -> float:
        """A MAC alone, and its operands at a bit per cycle."""
        return float(self.timing.problem.unit.mac.step_cycles) + 64.0

    def waits_for(self, ends: Ends, memory: Memory, operand: Operand) -> str | None:
        """The memory whose refill this access belongs to; None where it overlaps with compute."""
        parent, child = ends.parent, ends.child
        if child is None or child.name not in self.timing.waiting:
            return None
        if operand == "output":
            return child.name if memory is parent is self.timing.problem.accelerator.outermost else None
        return child.name


def rounding_cycles(timing: Timing) -> float:
    """Cycles that a latency may lie above its regime's sum: rounding per resource, a part of a word per entry."""
    machine = timing.problem.accelerator
    memories = {memory.name: memory for memory in machine.memories}
    total = len(timing.waiting) + (1.0 if machine.overlap else max(1.0, len(timing.bandwidths)))
    for (name, _), limit in timing.bandwidths.items():
        total += 2 * len(partial_words(timing.problem.unit, memories[name])) * memories[name].word_bits / limit
    return total
