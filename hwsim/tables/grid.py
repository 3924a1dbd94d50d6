"""Exact prices of many mappings at every triple of widths at once: `layer_cost.price`, vectorised.

Energy is a sum of parts of which each depends on one operand's width (partial sums: on the accumulator's, which follows
from weight and input), so the arithmetic is done per operand and added up on the grid [mapping, weight, input, output].
Words are rounded up per entry and parts to the energy grid as `price` does; tests demand equality, not nearness.
"""

from __future__ import annotations

from collections.abc import Mapping as Map
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from hwsim.machine.mac import MacCost, mac_cost
from hwsim.machine.packing import held_bits, shared_words
from hwsim.machine.parts import OPERANDS, Accelerator, Memory, Operand
from hwsim.nest.counts import Counts, Kind
from hwsim.nest.legal import pools
from hwsim.network.layer import Layer
from hwsim.pricing.area import static_power_mw
from hwsim.pricing.latency import (
    compute_cycles,
    limited_ports,
    parent_of,
    port_loads,
    vector_cycles,
    waiting_share,
    waits,
)
from hwsim.pricing.layer import GRID, TIMED, mac_energy, memory_parts, on_grid, price
from hwsim.pricing.mac import refusals
from hwsim.pricing.moves import Direction, fixed_moves, traffic, wire_bits
from hwsim.pricing.offsets import offset_cost
from hwsim.pricing.shares import moved_shares
from hwsim.pricing.vector import mac_layer_ops
from hwsim.tables.pool import Pool, Widths, at_widths

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Key = tuple[str, Operand, Kind]
Load = dict[tuple[str, Direction], Ints]
Number = TypeVar("Number", np.float64, np.int64)
DIRECTIONS: tuple[Direction, ...] = ("read", "write")
LARGEST = 2**62


@dataclass(frozen=True)
class Prices:
    """Energy and time of mappings on a grid of widths, without what the vector unit's time and idle power add.

    `dynamic_pj`: energy without static power, infinite where a mapping does not fit or the machine refuses.
    `busy`: cycles of the slowest of MACs and ports (their sum where nothing overlaps); `waiting`: refills and start.
    """

    accelerator: Accelerator
    dynamic_pj: Floats
    busy: Ints
    waiting: Ints

    def gathered(self, index: tuple[Ints, Ints, Ints]) -> Prices:
        """The same at some widths: `index` are places of weight, input and output, arrays of one shape."""
        rows = (slice(None), *index)
        return Prices(self.accelerator, self.dynamic_pj[rows], self.busy[rows], self.waiting[rows])

    def cycles(self, vector: Ints) -> Ints:
        """Latency with a vector unit that is busy for `vector` cycles."""
        return latency(self.accelerator, self.busy, self.waiting, vector)

    def energy_pj(self, cycles: Ints) -> Floats:
        """Energy with the idle power over the layer's time."""
        return self.dynamic_pj + static_pj(self.accelerator, cycles)


def latency(accelerator: Accelerator, busy: Ints, waiting: Ints, vector: Ints) -> Ints:
    """`latency.total_cycles` from its parts."""
    return waiting + (np.maximum(busy, vector) if accelerator.overlap else busy + vector)


def static_pj(accelerator: Accelerator, cycles: Ints) -> Floats:
    """Idle power, leakage and control over a time, as `layer_cost.static_parts` rounds them."""
    idle, control = static_power_mw(accelerator), accelerator.control_power_mw
    found = rounded(idle * cycles / accelerator.clock_mhz * 1e3)
    return found + rounded(control * cycles / accelerator.clock_mhz * 1e3) if control else found


def rounded(energy_pj: NDArray[np.floating[Any]]) -> Floats:
    """`layer_cost.on_grid` on arrays."""
    return np.rint(energy_pj * GRID) / GRID


class Grid:
    """Everything about a layer, a machine and a grid of widths that does not depend on mappings."""

    def __init__(self, layer: Layer, accelerator: Accelerator, widths: Widths) -> None:
        self.layer, self.accelerator, self.widths = layer, accelerator, widths
        self.ports = limited_ports(accelerator)

    @cached_property
    def allowed(self) -> Bools:
        """[weight, input, output]: whether the machine can run the layer at these widths."""
        found = np.zeros(self.widths.shape, dtype=bool)
        outputs = [o in self.accelerator.capabilities.output_bits for o in self.widths.output]
        known = [o for o, fine in zip(self.widths.output, outputs, strict=True) if fine]
        for i, w in enumerate(self.widths.weight if known else ()):
            for j, x in enumerate(self.widths.input):
                if not refusals(at_widths(self.layer, w, x, known[0]), self.accelerator):
                    found[i, j] = outputs
        return found

    @cached_property
    def accumulator(self) -> Ints:
        """[weight, input]: bits of partial sums."""
        return np.array(
            [
                [
                    self.accelerator.mac.partial_sum_bits(at_widths(self.layer, w, x, 1).accumulator_bits_needed())
                    for x in self.widths.input
                ]
                for w in self.widths.weight
            ],
            dtype=np.int64,
        )

    def along(self, operand: Operand, kind: Kind) -> list[int]:
        """The widths that an operand takes."""
        if operand == "output":
            return sorted(set(self.accumulator.ravel().tolist())) if kind == "partial" else list(self.widths.output)
        return list(self.widths.weight if operand == "weight" else self.widths.input)

    def spread(self, table: NDArray[Number], operand: Operand, kind: Kind) -> NDArray[Number]:
        """[mapping, width of one operand] on the axes of the grid."""
        if operand == "weight":
            return table[:, :, None, None]
        if operand == "input":
            return table[:, None, :, None]
        if kind == "final":
            return table[:, None, None, :]
        place = np.searchsorted(self.along(operand, kind), self.accumulator)
        return table[:, place][..., None]

    @cached_property
    def macs(self) -> dict[tuple[int, int], MacCost]:
        """Cost of a MAC at every pair of widths that the machine runs."""
        pairs = np.argwhere(self.allowed.any(axis=2))
        return {(i, j): mac_cost(self.accelerator.mac, self.widths.weight[i], self.widths.input[j]) for i, j in pairs}

    @cached_property
    def vector_slots(self) -> Ints:
        """[output]: operations of the vector unit for this layer alone."""
        adds = offset_cost(self.layer, self.accelerator.capabilities).extra_adds
        if self.accelerator.mac.measurements is not None:  # requantization is in the table
            return np.full(len(self.widths.output), adds, dtype=np.int64)
        return np.array(
            [mac_layer_ops(self.layer, self.accelerator, o) + adds for o in self.widths.output],
            dtype=np.int64,
        )

    @cached_property
    def vector(self) -> Ints:
        """[output]: cycles of the vector unit for this layer alone."""
        unit = self.accelerator.vector
        return np.array([vector_cycles(int(n), unit) for n in self.vector_slots], dtype=np.int64)

    @cached_property
    def fixed_pj(self) -> Floats:
        """[weight, input, output]: energy that no mapping changes (constants, offsets, requantization, MACs)."""
        return self.find_fixed_pj(input_stays=False)

    @cached_property
    def fixed_pj_input_stays(self) -> Floats:
        """`fixed_pj` with the input on chip, where its border is then written."""
        return self.find_fixed_pj(input_stays=True)

    def find_fixed_pj(self, *, input_stays: bool) -> Floats:
        """`fixed_pj` with the input in the outermost memory or on chip."""
        unit, found = self.accelerator.vector, np.zeros(self.widths.shape)
        for j, x in enumerate(self.widths.input):
            for k, o in enumerate(self.widths.output):
                layer = at_widths(self.layer, self.widths.weight[0], x, o)
                offset = offset_cost(layer, self.accelerator.capabilities)
                moved = fixed_moves(layer, self.accelerator, offset, input_stays=input_stays)
                energy = sum(part.energy_pj for part in memory_parts(moved, self.accelerator))
                energy += on_grid(mac_layer_ops(layer, self.accelerator, o) * unit.energy_pj_per_op)
                found[:, j, k] = energy + on_grid(offset.extra_adds * unit.energy_pj_per_op)
        for (i, j), mac in self.macs.items():
            found[i, j] += mac_energy(self.layer, mac, self.accelerator, 0.0)
        return found

    def fixed_bits(self, *, input_stays: bool) -> Load:
        """(memory, direction) -> [input, output]: bits that constants and offsets move there."""
        found: Load = {}
        for j, x in enumerate(self.widths.input):
            for k, o in enumerate(self.widths.output):
                layer = at_widths(self.layer, self.widths.weight[0], x, o)
                offset = offset_cost(layer, self.accelerator.capabilities)
                moved = fixed_moves(layer, self.accelerator, offset, input_stays=input_stays)
                for port, bits in port_loads(moved).items():
                    found.setdefault(port, np.zeros(self.widths.shape[1:], dtype=np.int64))[j, k] += bits
        return found

    # --- what depends on mappings -------------------------------------------------------------------------------------

    def prices(self, pool: Pool, resident: frozenset[Operand] = frozenset()) -> Prices:
        """Every mapping of the pool at every triple, with the tensors of `resident` operands staying on chip."""
        if self.accelerator.mac.measurements is not None:
            return self.measured(pool)
        moved = self.moved_words(pool, resident)
        memories = {memory.name: memory for memory in self.accelerator.memories}
        stays = "input" in resident
        fixed = self.fixed_pj_input_stays if stays else self.fixed_pj
        energy = np.broadcast_to(fixed, (len(pool), *self.widths.shape)).copy()
        for (name, operand, kind), (reads, writes) in moved.items():
            memory = memories[name]
            spent = rounded(reads * memory.read_energy_pj + writes * memory.write_energy_pj)
            energy += self.spread(spent, operand, kind)
        for spent, operand, kind in self.hops(pool):
            energy += self.spread(spent, operand, kind)
        energy[~(self.fits(pool) & self.allowed)] = np.inf
        exposed, loads = self.loads(pool, moved, self.fixed_bits(input_stays=stays))
        used = {
            memory.name: np.array([max(1, dict(c.instances).get(memory.name, 1)) for c in pool.counts], dtype=np.int64)
            for memory in self.accelerator.memories
        }
        compute = self.compute(pool)
        ports = self.port_cycles(loads, used)
        busy = compute
        for cycles in ports:
            busy = np.maximum(busy, cycles) if self.accelerator.overlap else busy + cycles
        shape = (len(pool), *self.widths.shape)
        waiting = np.full(shape, self.accelerator.layer_overhead_cycles, dtype=np.int64)
        for (i, j), mac in self.macs.items():
            waiting[:, i, j, :] += mac.start_cycles
        for load in exposed:
            slowest = np.zeros(shape, dtype=np.int64)
            for cycles in self.port_cycles(load, used):
                slowest = np.maximum(slowest, cycles)
            waiting += slowest
        return Prices(self.accelerator, energy, np.broadcast_to(busy, shape).copy(), waiting)

    def measured(self, pool: Pool) -> Prices:
        """A measured machine: the table's energy and cycles under any mapping."""
        shape = (len(pool), *self.widths.shape)
        energy, busy = np.full(shape, np.inf), np.zeros(shape, dtype=np.int64)
        fits = self.fits(pool)
        for i, j in np.argwhere(self.allowed.any(axis=2)):
            k = int(np.argmax(self.allowed[i, j]))
            layer = at_widths(self.layer, *self.widths.at((i, j, k)))
            cost = price(layer, pool.counts[0], self.accelerator)
            dynamic = sum(part.energy_pj for part in cost.parts if part.component not in TIMED)
            energy[:, i, j, :] = np.where(fits[:, i, j, :] & self.allowed[i, j], dynamic, np.inf)
            busy[:, i, j, :] = dict(cost.cycles)["measured"]
        waiting = np.full(shape, self.accelerator.layer_overhead_cycles, dtype=np.int64)
        return Prices(self.accelerator, energy, busy, waiting)

    def moved_words(self, pool: Pool, resident: frozenset[Operand]) -> dict[Key, tuple[Ints, Ints]]:
        """(memory, operand, kind) -> words read and written, [mapping, width of the operand]."""
        per_mapping = [traffic(counts, self.accelerator, resident) for counts in pool.counts]
        memories = {memory.name: memory for memory in self.accelerator.memories}
        found: dict[Key, tuple[Ints, Ints]] = {}
        for key in dict.fromkeys(key for moves in per_mapping for key in moves):
            elements = np.array([moves.get(key, (0, 0)) for moves in per_mapping], dtype=np.int64)
            memory, along = memories[key[0]], self.along(key[1], key[2])
            packed = memory.word_bits, memory.packing
            shares = [moved_shares(self.layer, self.accelerator, memory, key[1], key[2], bits) for bits in along]
            each = list(zip(along, shares, strict=True))
            reads, writes = (
                np.stack([shared_words(elements[:, way], bits, *packed, share[way]) for bits, share in each], axis=1)
                for way in (0, 1)
            )
            found[key] = (reads, writes)
        return found

    def hops(self, pool: Pool) -> list[tuple[Floats, Operand, Kind]]:
        """Energy of the arrays' networks, [mapping, width of the operand]."""
        found: list[tuple[Floats, Operand, Kind]] = []
        for array in self.accelerator.arrays:
            passing: dict[tuple[Operand, Kind], Ints] = {}
            for place, counts in enumerate(pool.counts):
                for d in counts.deliveries:
                    if d.array == array.name and array.hop_energy_pj_per_bit:
                        passing.setdefault((d.operand, d.kind), np.zeros(len(pool), dtype=np.int64))
                        passing[d.operand, d.kind][place] += d.down + d.up
            for (operand, kind), elements in passing.items():
                wires = np.array([wire_bits(array, bits) for bits in self.along(operand, kind)])
                spent = elements[:, None] * wires * array.hop_energy_pj_per_bit
                found.append((rounded(spent), operand, kind))
        return found

    def fits(self, pool: Pool) -> Bools:
        """[mapping, weight, input, output]: whether all tiles fit their memories."""
        found = np.ones((len(pool), *self.widths.shape), dtype=bool)
        for memory in self.accelerator.memories:
            need = self.tile_bits(pool, memory)
            for _, size, wanted in pools(memory, dict.fromkeys(need, 0)):
                if size is not None and wanted:
                    found &= sum(need[operand] for operand in wanted if operand in need) <= size
        return found

    def tile_bits(self, pool: Pool, memory: Memory) -> dict[Operand, Ints]:
        """Bits that the tile of each operand occupies in a memory, [mapping, weight, input, output] broadcastable."""
        found: dict[Operand, Ints] = {}
        for operand in OPERANDS:
            for partial in (False, True):
                kind: Kind = "code" if operand != "output" else "partial" if partial else "final"
                elements = np.array([tile_of(c, memory.name, operand, partial) for c in pool.counts], dtype=np.int64)
                if elements.any():
                    table = np.stack(
                        [held_bits(elements, b, memory.word_bits, memory.packing) for b in self.along(operand, kind)], 1
                    )
                    held = self.spread(table, operand, kind)
                    found[operand] = found[operand] + held if operand in found else held
        return found

    def compute(self, pool: Pool) -> Ints:
        """Cycles of the MACs, [mapping, weight, input, 1]."""
        found = np.zeros((len(pool), *self.widths.shape[:2], 1), dtype=np.int64)
        known: dict[tuple[Fraction, int], Ints] = {}
        for (i, j), mac in self.macs.items():
            pace = mac.cycles, mac.products
            if pace not in known:
                cycles = [compute_cycles(counts, self.accelerator, mac) for counts in pool.counts]
                known[pace] = np.array(cycles, dtype=np.int64)
            found[:, i, j, 0] = known[pace]
        return found

    def loads(self, pool: Pool, moved: Map[Key, tuple[Ints, Ints]], fixed: Load) -> tuple[list[Load], Load]:
        """Port loads in bits as `latency.split_loads` has them: those that wait, per memory, and those that overlap."""
        word_bits = {memory.name: memory.word_bits for memory in self.accelerator.memories}
        one = (1, 1, 1, 1)
        outer = self.accelerator.outermost.name
        overlapped: Load = {port: bits[None, None] for port, bits in fixed.items()}
        bits: dict[tuple[Key, Direction], Ints] = {}
        for key, (reads, writes) in moved.items():
            for direction, count in zip(DIRECTIONS, (reads, writes), strict=True):
                load = self.spread(count * word_bits[key[0]], key[1], key[2])
                bits[key, direction] = load
                port = (key[0], direction)
                overlapped[port] = overlapped.get(port, np.zeros(one, dtype=np.int64)) + load
        exposed: list[Load] = []
        for memory in self.accelerator.memories[1:]:
            if not waits(self.accelerator, memory):
                continue
            waiting: Load = {}

            def wait(
                key: Key, direction: Direction, which: Bools, waiting: Load = waiting, memory: Memory = memory
            ) -> None:
                if (key, direction) in bits and which.any():
                    port = (key[0], direction)
                    load = bits[key, direction] * which[:, None, None, None]
                    if memory.double_buffered:
                        load = self.first_tiles(load, pool, memory, key[1], word_bits[key[0]])
                    waiting[port] = waiting.get(port, np.zeros(one, dtype=np.int64)) + load

            for operand in memory.keeps:
                parents = [parent_of(counts, self.accelerator, memory, operand) for counts in pool.counts]
                names = np.array(["" if parent is None else parent.name for parent in parents])
                if operand != "output":
                    wait((memory.name, operand, "code"), "write", names != "")
                    for name in sorted(set(names.tolist()) - {""}):
                        wait((name, operand, "code"), "read", names == name)
                elif not memory.double_buffered:
                    for kind in ("partial", "final"):
                        for direction in ("read", "write"):
                            wait((outer, operand, kind), direction, names == outer)
            for port, load in waiting.items():
                overlapped[port] = overlapped[port] - load
            exposed.append(waiting)
        return exposed, overlapped

    def first_tiles(self, load: Ints, pool: Pool, memory: Memory, operand: Operand, word_bits: int) -> Ints:
        """The part of a load that brings the first tiles of an operand: `latency.waiting_share` of its words."""
        shares = [waiting_share(counts, memory, operand) for counts in pool.counts]
        found = load.copy()
        for place, share in enumerate(shares):
            words = load[place] // word_bits
            found[place] = -(-words * share.numerator // share.denominator) * word_bits
        return found

    def port_cycles(self, loads: Load, used: Map[str, Ints]) -> list[Ints]:
        """Cycles of every limited port: ceil(bits / instances / bandwidth)."""
        found: list[Ints] = []
        for port in self.ports:
            present = [loads[port.memory, way] for way in port.directions if (port.memory, way) in loads]
            if present:
                found.append(ceil_ratio(sum(present[1:], present[0]), used[port.memory], port.bandwidth))
        return found


def tile_of(counts: Counts, memory: str, operand: Operand, partial: bool) -> int:
    """Elements of an operand's tile in a memory, unfinished sums or not; 0 where it holds none."""
    return sum(t.elements for t in counts.tiles if (t.memory, t.operand, t.partial) == (memory, operand, partial))


def ceil_ratio(bits: Ints, instances: Ints, bandwidth: Fraction) -> Ints:
    """ceil(bits / instances / bandwidth), exactly."""
    above, below = bandwidth.denominator, bandwidth.numerator
    largest = int(bits.max(initial=0)) * above
    exact = bits if largest < LARGEST else bits.astype(object)
    divisor = (instances * below)[:, None, None, None]
    return (-(-(exact * above) // divisor)).astype(np.int64)
