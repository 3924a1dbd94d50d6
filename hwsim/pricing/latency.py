"""How long a layer takes: cycles of the MACs, of every memory port, and what double buffering does not hide.

latency = max(compute, ports, vector unit) + refills of memories that are not double-buffered + the layer's start; where
nothing overlaps (a plain processor) the maximum is a sum. Port loads are bits after packing, spread evenly over the
instances in use.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from hwsim.machine.mac import MacCost
from hwsim.machine.parts import Accelerator, Array, Memory, Operand, VectorUnit, stationary_memory
from hwsim.nest.counts import Counts, Kind
from hwsim.pricing.mac import require_lanes, unit_steps
from hwsim.pricing.moves import Direction, Moved

Load = dict[tuple[str, Direction], int]  # (memory, direction) -> bits over that port, all instances


def compute_cycles(counts: Counts, accelerator: Accelerator, mac: MacCost) -> int:
    """Steps of the MAC units, plus fill and drain of systolic arrays.

    With R rows and C columns every tile that is held still takes R + C - 2 cycles more for the skew, and R more to
    shift in weights or inputs: ceil(K/R)*ceil(N/C)*(M + 2R + C - 2) for a weight-stationary array. A double-buffered
    stationary memory hides all but the first.
    """
    require_lanes(mac)
    dims, iterations = zip(*counts.iterations, strict=True)
    passes = {use.array: use.passes for use in counts.arrays}
    steps = unit_steps(dims, iterations, mac)
    for array in accelerator.arrays:
        steps = whole_commands(steps, passes[array.name], array)
    cycles = math.ceil(steps * mac.step_cycles)
    for array in accelerator.arrays:
        if array.systolic:
            times = 1 if hides_fills(accelerator, array) else passes[array.name]
            cycles += times * fill_cycles(accelerator, array, mac)
    return cycles


def whole_commands(steps: int, passes: int, array: Array) -> int:
    """Steps in whole commands: every tile that is held still is worked on for a multiple of `command_steps`.

    passes * ceil(steps per pass / command_steps) * command_steps, at the mean steps per pass where they differ.
    """
    if array.command_steps == 1:
        return steps
    return passes * -(-steps // (passes * array.command_steps)) * array.command_steps


def fill_cycles(accelerator: Accelerator, array: Array, mac: MacCost) -> int:
    """Cycles to fill and drain a systolic array once."""
    below = stationary_memory(accelerator, array)
    rows, columns = (axis.size for axis in array.axes)
    shift_in = rows if below is not None and set(below.keeps) & {"weight", "input"} else 0
    return math.ceil((rows + columns - 2 + shift_in) * max(mac.step_cycles, Fraction(1)))


def hides_fills(accelerator: Accelerator, array: Array) -> bool:
    """Whether all fills of a systolic array but the first happen while it works."""
    below = stationary_memory(accelerator, array)
    return below is None or below.double_buffered


def vector_cycles(slots: int, unit: VectorUnit) -> int:
    """Cycles of the vector unit for `slots` operations and lookups."""
    return math.ceil(Fraction(slots, unit.lanes) * exactly(unit.cycles_per_op))


@lru_cache(maxsize=1024)
def exactly(number: float) -> Fraction:
    """A number as its decimal notation says (0.1 is 1/10)."""
    return Fraction(str(number))


def start_cycles(accelerator: Accelerator, mac: MacCost) -> int:
    """Cycles before a layer works: the machine's own, and what its kernel for these widths adds."""
    return accelerator.layer_overhead_cycles + mac.start_cycles


def total_cycles(cycles: Mapping[str, int], waiting: Mapping[str, int], accelerator: Accelerator) -> int:
    """Latency of a layer from what each resource needs and from refills that nothing hides."""
    together = max(cycles.values()) if accelerator.overlap else sum(cycles.values())
    return together + sum(waiting.values()) + accelerator.layer_overhead_cycles


def port_loads(moved: Iterable[Moved]) -> Load:
    """Bits over every port."""
    load: Load = defaultdict(int)
    for entry in moved:
        load[entry.memory, "read"] += entry.read_words * entry.word_bits
        load[entry.memory, "write"] += entry.write_words * entry.word_bits
    return load


def split_loads(counts: Counts, accelerator: Accelerator, moved: tuple[Moved, ...]) -> tuple[dict[str, Load], Load]:
    """Port loads in bits: those that add to the latency, by the memory that is not double-buffered, and the others.

    Fills of weights and inputs into such a memory wait, at its parent's read port and its own write port; so does what
    goes back and forth between it and the outermost memory. Of a double-buffered one whose first fill is exposed the
    first tiles of weights and inputs wait. Other traffic overlaps with compute.
    """
    overlapped = port_loads(moved)
    by_key: dict[tuple[str, str, Kind], Moved] = {(m.memory, m.operand, m.kind): m for m in moved}
    exposed: dict[str, Load] = {}
    for memory in accelerator.memories[1:]:
        if not waits(accelerator, memory):
            continue
        load: Load = defaultdict(int)
        for operand in memory.keeps:
            add_exposed(load, by_key, counts, accelerator, memory, operand)
        for port, bits in load.items():
            overlapped[port] -= bits
        exposed[memory.name] = load
    return exposed, overlapped


def add_exposed(
    load: Load,
    by_key: Mapping[tuple[str, str, Kind], Moved],
    counts: Counts,
    accelerator: Accelerator,
    memory: Memory,
    operand: Operand,
) -> None:
    """Add what `operand` moves between a memory and its parent to the loads that wait."""
    parent = parent_of(counts, accelerator, memory, operand)
    if parent is None:
        return
    if operand != "output":
        share = waiting_share(counts, memory, operand)
        here, above = by_key.get((memory.name, operand, "code")), by_key.get((parent.name, operand, "code"))
        if here is not None:
            load[memory.name, "write"] += math.ceil(here.write_words * share) * here.word_bits
        if above is not None:
            load[parent.name, "read"] += math.ceil(above.read_words * share) * above.word_bits
    elif parent is accelerator.outermost and not memory.double_buffered:
        for kind in ("partial", "final"):
            above = by_key.get((parent.name, operand, kind))
            if above is not None:
                load[parent.name, "read"] += above.read_words * above.word_bits
                load[parent.name, "write"] += above.write_words * above.word_bits


def waits(accelerator: Accelerator, memory: Memory) -> bool:
    """Whether the latency contains fills of a memory: all of them, or the first."""
    if memory.double_buffered:
        return memory.first_fill == "exposed"
    return not below_systolic(accelerator, memory)


def waiting_share(counts: Counts, memory: Memory, operand: Operand) -> Fraction:
    """Share of an operand's fills of a memory that are waited for: of a double-buffered one the first tile."""
    if not memory.double_buffered:
        return Fraction(1)
    first = sum(tile.elements for tile in counts.tiles if (tile.memory, tile.operand) == (memory.name, operand))
    return Fraction(first, max(first, counts.writes(memory.name, operand, "code"), 1))


def parent_of(counts: Counts, accelerator: Accelerator, memory: Memory, operand: Operand) -> Memory | None:
    """The next memory outwards that holds the operand under this mapping; None when `memory` itself does not."""
    holders = {tile.memory for tile in counts.tiles if tile.operand == operand} | {accelerator.outermost.name}
    if memory.name not in holders:
        return None
    outwards = accelerator.memories[: accelerator.memories.index(memory)]
    return next(m for m in reversed(outwards) if m.name in holders)


def below_systolic(accelerator: Accelerator, memory: Memory) -> bool:
    """Whether a memory sits directly inside a systolic array, whose fill the array's passes already charge."""
    index = accelerator.hierarchy.index(memory)
    above = accelerator.hierarchy[index - 1] if index else None
    return isinstance(above, Array) and above.systolic


def port_cycles(load: Load, accelerator: Accelerator, instances: Mapping[str, int]) -> dict[str, int]:
    """Cycles every limited port needs for its load, spread evenly over the instances in use."""
    found: dict[str, int] = {}
    for port in limited_ports(accelerator):
        used = max(1, instances.get(port.memory, 1))
        bits = sum(load.get((port.memory, direction), 0) for direction in port.directions)
        found[f"{port.memory} {port.name}"] = -(-bits * port.bandwidth.denominator // (used * port.bandwidth.numerator))
    return found


@dataclass(frozen=True)
class Port:
    """A memory's port of limited bandwidth (bits per cycle): `read`, `write`, or one `port` for both directions."""

    memory: str
    name: str
    directions: tuple[Direction, ...]
    bandwidth: Fraction


@lru_cache(maxsize=256)
def limited_ports(accelerator: Accelerator) -> tuple[Port, ...]:
    """Every port whose bandwidth is limited, memory by memory."""
    found: list[Port] = []
    for memory in accelerator.memories:
        read, write = memory.read_bandwidth_bits_per_cycle, memory.write_bandwidth_bits_per_cycle
        ports: list[tuple[str, tuple[Direction, ...], float | None]] = (
            [("port", ("read", "write"), read)]
            if memory.shared_port
            else [("read", ("read",), read), ("write", ("write",), write)]
        )
        found += [Port(memory.name, name, ways, exactly(b)) for name, ways, b in ports if b is not None]
    return tuple(found)


def port_max(load: Load, accelerator: Accelerator, instances: Mapping[str, int]) -> int:
    """Cycles of the slowest port under a load."""
    return max(port_cycles(load, accelerator, instances).values(), default=0)
