"""What a page draws beyond the bill: the machine's parts, each layer's traffic and peak rate, what is held when.

Everything is plain data for report.json, so that the page follows from the report alone. Numbers are those of pricing/.
"""

from __future__ import annotations

from collections.abc import Mapping as Map
from typing import Any

from hwsim.machine.mac import mac_cost
from hwsim.machine.parts import Accelerator, Array, Memory
from hwsim.nest.mapping import Mapping
from hwsim.network.layer import Layer
from hwsim.network.workload import Workload
from hwsim.pricing.kept_weights import shared_weights
from hwsim.pricing.layer import LayerCost
from hwsim.pricing.lifetimes import WHOLE_TENSORS, Lifetimes, outermost, saved_bits
from hwsim.pricing.residents import lifetimes
from hwsim.pricing.scales import mac_elements, mac_widths
from hwsim.pricing.stages import effective_layer
from hwsim.report.widths import Change
from hwsim.search.joint.schedule import Schedule


def machine_dict(machine: Accelerator) -> dict[str, Any]:
    """The parts of a machine, outermost first: memories and arrays, then the MAC and the vector unit."""
    return {
        "hierarchy": [
            memory_dict(machine, node) if isinstance(node, Memory) else array_dict(node) for node in machine.hierarchy
        ],
        "mac": {
            "style": machine.mac.style,
            "units": machine.mac_units,
            "weight_bits": machine.mac.weight_bits,
            "input_bits": machine.mac.input_bits,
            "accumulator_bits": machine.mac.accumulator_bits,
            "energy_pj": machine.mac.energy_pj,
            "macs_per_cycle": machine.mac.macs_per_cycle,
        },
        "vector": {"lanes": machine.vector.lanes, "bits": machine.vector.bits},
    }


def memory_dict(machine: Accelerator, memory: Memory) -> dict[str, Any]:
    """One memory: per instance, with how many there are; null is unlimited."""
    return {
        "kind": "memory",
        "name": memory.name,
        "instances": machine.instances(memory),
        "size_bits": memory.size_bits if memory.size_bits is not None else memory.total_bits,
        "keeps": list(memory.keeps),
        "word_bits": memory.word_bits,
        "packing": memory.packing,
        "double_buffered": memory.double_buffered,
        "read_energy_pj": memory.read_energy_pj,
        "write_energy_pj": memory.write_energy_pj,
        "read_bandwidth_bits_per_cycle": memory.read_bandwidth_bits_per_cycle,
        "write_bandwidth_bits_per_cycle": None if memory.shared_port else memory.write_bandwidth_bits_per_cycle,
        "shared_port": memory.shared_port,
    }


def array_dict(array: Array) -> dict[str, Any]:
    """One spatial array: its axes and the loops that may be unrolled on each."""
    return {
        "kind": "array",
        "name": array.name,
        "axes": [{"name": axis.name, "size": axis.size, "dims": list(axis.dims)} for axis in array.axes],
        "multicast": array.multicast,
        "reduction": array.reduction,
        "systolic": array.systolic,
    }


def traffic_dict(cost: LayerCost) -> dict[str, int]:
    """Bits that one layer moves over the ports of each memory, both directions, packing included."""
    found: dict[str, int] = {}
    for moved in cost.moved:
        found[moved.memory] = found.get(moved.memory, 0) + moved.bits
    return found


def peak_macs_per_cycle(layer: Layer, machine: Accelerator) -> float | None:
    """MACs a cycle when every unit has work at this layer's widths; None without MACs, and on a measured machine."""
    if not layer.has_macs or layer.weight is None or machine.mac.measurements is not None:
        return None
    cycles = mac_cost(machine.mac, *mac_widths(layer, machine), mac_elements(layer)).cycles
    return float(machine.mac_units / cycles) if cycles else None


def occupancy(
    workload: Workload, machine: Accelerator, resident: frozenset[str], said: Lifetimes, mappings: Map[str, Mapping]
) -> list[dict[str, Any]]:
    """Stage by stage: bits of all activations alive while it runs, each whole, and of those that stay on chip.

    Where lifetimes free parts of tensors, the latter is the most that they take at once there (`held_bits`).
    """
    schedule = Schedule(workload, machine, said)
    stages = schedule.stages
    lives, weights = lifetimes(stages), shared_weights(stages)
    found: list[dict[str, Any]] = []
    for index, stage in enumerate(stages):
        alive = [life.tensor for life in lives if life.born <= index <= life.last]
        found.append(
            {
                "layer": stage.layer.name,
                "alive_bits": sum(t.size_bits for t in alive),
                "on_chip_bits": sum(
                    t.size_bits
                    for t in (*alive, *(w.tensor for w in weights if w.first <= index <= w.last))
                    if t.name in resident
                )
                if said == WHOLE_TENSORS
                else held_bits(schedule, index, resident, mappings.get(stage.layer.name)),
            }
        )
    return found


def held_bits(schedule: Schedule, index: int, resident: frozenset[str], mapping: Mapping | None) -> int:
    """Bits of the home that tensors which stay take at most while a stage runs, with places taken over left out."""
    live = frozenset(t for t in schedule.tenants if t.name in resident and t.born <= index <= t.last)
    taken = schedule.capacity_bits - schedule.room(index, live)
    if mapping is None or schedule.home is None:
        return taken
    freed = schedule.freed(index, frozenset(t.name for t in live) & schedule.touched[index])
    layer = effective_layer(schedule.stages[index])
    return taken - saved_bits(schedule.home, layer, outermost(mapping), freed)


def home_dict(machine: Accelerator) -> dict[str, Any] | None:
    """The memory where whole activations may stay between layers; None where the machine has none."""
    home = machine.activation_memory
    return None if home is None else {"name": home.name, "size_bits": home.size_bits}


def change_dict(change: Change) -> dict[str, Any]:
    """An operand at another width: the verdict, the differences of the layer's bill, and why."""
    return {
        "bits": change.bits,
        "verdict": change.verdict,
        "energy_pj": change.energy_pj,
        "cycles": change.cycles,
        "why": list(change.why),
    }
