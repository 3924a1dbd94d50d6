"""Prices per count: the linear structure of `layer_cost.price`, so that cost = fixed + counts . prices vectorises.

Word counts round up once per entry; the prices here leave that out and are therefore a lower bound, off by less than
one word per (memory, operand, kind, direction).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from hwsim.machine.mac import MacCost
from hwsim.machine.measured import Measurements
from hwsim.machine.packing import words_per_operand
from hwsim.machine.parts import Accelerator, Operand
from hwsim.nest.counts import Counts, Kind
from hwsim.network.layer import Layer
from hwsim.pricing.area import working_power_mw
from hwsim.pricing.latency import vector_cycles
from hwsim.pricing.layer import memory_parts, price_measured
from hwsim.pricing.mac import layer_mac, require_capable, require_lanes
from hwsim.pricing.moves import Direction, fixed_moves, hop_bits, operand_bits, side_bits
from hwsim.pricing.offsets import offset_cost
from hwsim.pricing.scales import scale_work
from hwsim.pricing.shares import moved_shares
from hwsim.pricing.vector import mac_layer_ops, vector_work


@dataclass(frozen=True)
class UnitPrices:
    """The linear part of `price`: cost of a layer = fixed + counts . prices.

    `traffic_pj[memory, operand, kind, direction]`: energy per element, from the packing's slope. True words round up
    once per entry, so the dot product is a lower bound, off by less than one word per entry. `port_bits` likewise
    gives bits per element; a port takes sum(counts * port_bits) / (instances used * bandwidth) cycles, rounded up.
    `hop_pj[array, operand, kind]` per element delivered; `fixed_pj` is the same for every mapping; static power is
    `static_pj_per_cycle` times the latency.
    """

    traffic_pj: Mapping[tuple[str, Operand, Kind, Direction], float]
    port_bits: Mapping[tuple[str, Operand, Kind, Direction], float]
    bandwidth: Mapping[tuple[str, Direction], float]  # bits per cycle; shared ports under "read"
    shared_ports: frozenset[str]
    hop_pj: Mapping[tuple[str, Operand, Kind], float]
    mac: MacCost
    fixed_pj: float
    fixed_cycles: int  # the vector unit's; a lower bound on latency
    static_pj_per_cycle: float
    scaled: int = 0  # entries per memory and direction with scales beside the codes, whose last words are partial too
    held_bits: Mapping[tuple[str, Operand, Kind], float] = field(  # per element of a tile, whatever share of it moves
        default_factory=dict[tuple[str, Operand, Kind], float]
    )
    element_bits: Mapping[tuple[Operand, Kind], int] = field(default_factory=dict[tuple[Operand, Kind], int])

    @property
    def mac_pj(self) -> float:
        """Energy of one MAC."""
        return self.mac.energy_pj

    def dynamic_pj(self, counts: Counts) -> float:
        """Energy without static power: a lower bound of `price`, off by less than one word per entry."""
        energy = self.fixed_pj + counts.macs * self.mac_pj
        for t in counts.traffic:
            energy += t.reads * self.traffic_pj[t.memory, t.operand, t.kind, "read"]
            energy += t.writes * self.traffic_pj[t.memory, t.operand, t.kind, "write"]
        for d in counts.deliveries:
            energy += (d.down + d.up) * self.hop_pj.get((d.array, d.operand, d.kind), 0.0)
        return energy


def unit_prices(
    layer: Layer, accelerator: Accelerator, fused: tuple[Layer, ...] = (), *, input_stays: bool = False
) -> UnitPrices:
    """Prices per count of a layer with MACs at its bits, for vectorised searches; see `fixed_moves`."""
    require_capable(layer, accelerator)
    assert layer.weight is not None
    if accelerator.mac.measurements is not None:
        return measured_prices(layer, accelerator, accelerator.mac.measurements, fused)
    kinds: dict[Operand, tuple[Kind, ...]] = {
        "weight": ("code",),
        "input": ("code",),
        "output": ("partial", "final"),
    }
    bits: dict[tuple[Operand, Kind], int] = {
        (o, k): operand_bits(layer, accelerator, o, k) for o, known in kinds.items() for k in known
    }
    side: dict[tuple[Operand, Kind], float] = {(o, k): side_bits(layer, o, k) for o, k in bits}
    traffic_pj: dict[tuple[str, Operand, Kind, Direction], float] = {}
    port_bits: dict[tuple[str, Operand, Kind, Direction], float] = {}
    held_bits: dict[tuple[str, Operand, Kind], float] = {}
    bandwidth: dict[tuple[str, Direction], float] = {}
    for memory in accelerator.memories:
        per_word: dict[Direction, float] = {"read": memory.read_energy_pj, "write": memory.write_energy_pj}
        limits: dict[Direction, float | None] = {
            "read": memory.read_bandwidth_bits_per_cycle,
            "write": None if memory.shared_port else memory.write_bandwidth_bits_per_cycle,
        }
        bandwidth.update({(memory.name, d): limit for d, limit in limits.items() if limit is not None})
        for (operand, kind), width in bits.items():
            plain = words_per_operand(width, memory.word_bits, memory.packing)
            held_bits[memory.name, operand, kind] = plain * memory.word_bits + side[operand, kind]
            shares = moved_shares(layer, accelerator, memory, operand, kind, width)
            for (direction, energy), share in zip(per_word.items(), shares, strict=True):
                slope = plain * float(share) + side[operand, kind] / memory.word_bits
                traffic_pj[memory.name, operand, kind, direction] = slope * energy
                port_bits[memory.name, operand, kind, direction] = slope * memory.word_bits
    hop_pj: dict[tuple[str, Operand, Kind], float] = {
        (array.name, o, k): array.hop_energy_pj_per_bit * (hop_bits(layer, accelerator, array, o, k) + side[o, k])
        for array in accelerator.arrays
        for (o, k) in bits
    }
    mac = layer_mac(layer, accelerator)
    require_lanes(mac)
    offset = offset_cost(layer, accelerator.capabilities)
    own_ops = mac_layer_ops(layer, accelerator, layer.output.bits)
    scales = scale_work(layer, accelerator)
    fixed = (own_ops + scales.ops + offset.extra_adds) * accelerator.vector.energy_pj_per_op
    moves = fixed_moves(layer, accelerator, offset, input_stays=input_stays)
    fixed += sum(part.energy_pj for part in memory_parts(moves, accelerator))
    slots = (
        own_ops + scales.slots + offset.extra_adds + sum(vector_work(f, accelerator.capabilities).slots for f in fused)
    )
    return UnitPrices(
        traffic_pj=traffic_pj,
        port_bits=port_bits,
        bandwidth=bandwidth,
        shared_ports=frozenset(memory.name for memory in accelerator.memories if memory.shared_port),
        hop_pj=hop_pj,
        mac=mac,
        fixed_pj=fixed,
        fixed_cycles=vector_cycles(slots, accelerator.vector),
        static_pj_per_cycle=working_power_mw(accelerator) / accelerator.clock_mhz * 1e3,
        scaled=sum(bool(value) for value in side.values()),
        held_bits=held_bits,
        element_bits=bits,
    )


def measured_prices(
    layer: Layer, accelerator: Accelerator, measurements: Measurements, fused: tuple[Layer, ...]
) -> UnitPrices:
    """A measured layer costs the same under every mapping: all of it is fixed."""
    cost = price_measured(layer, accelerator, measurements, fused)
    operands: tuple[tuple[Operand, Kind], ...] = (
        ("weight", "code"),
        ("input", "code"),
        ("output", "partial"),
        ("output", "final"),
    )
    directions: tuple[Direction, ...] = ("read", "write")
    free: dict[tuple[str, Operand, Kind, Direction], float] = {
        (m.name, o, k, d): 0.0 for m in accelerator.memories for o, k in operands for d in directions
    }
    return UnitPrices(
        traffic_pj=free,
        port_bits=free,
        bandwidth={},
        shared_ports=frozenset(),
        hop_pj={},
        mac=MacCost(0.0, Fraction(0), "measured"),
        fixed_pj=cost.total_energy_pj,
        fixed_cycles=cost.latency_cycles,
        static_pj_per_cycle=0.0,
        held_bits={(m.name, o, k): 0.0 for m in accelerator.memories for o, k in operands},
        element_bits={(o, k): operand_bits(layer, accelerator, o, k) for o, k in operands},
    )
