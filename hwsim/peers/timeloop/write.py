"""Our machines, layers and mappings as Timeloop v4 files, with a report of what that format cannot say.

Prices go into an energy reference table, idle power into the outermost level's leakage, a MAC's latches into storages
of one element that cost nothing (which the reader recognises). What has no words there is listed by its part's name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hwsim.errors import SpecError
from hwsim.machine.parts import OPERANDS, Accelerator, Array, Memory, Operand
from hwsim.nest.mapping import Hold, Spatial, Temporal
from hwsim.nest.mapping import Mapping as Nest
from hwsim.network.layer import DIMS, Layer
from hwsim.peers.draft import flow
from hwsim.peers.report import TranslationReport
from hwsim.peers.timeloop.align import aligned
from hwsim.peers.timeloop.write_schedule import spatial_factors, temporal_words
from hwsim.pricing.area import working_power_mw

SPACES: dict[Operand, str] = {"weight": "Weights", "input": "Inputs", "output": "Outputs"}
LATCH = "latch_{}"
CARRIER = "loops_below_{}"  # a storage that keeps nothing and carries the loops right below an array
ALL = ", ".join(SPACES.values())
STILL = f"factors: [{', '.join(f'{dim}=1' for dim in DIMS)}]"
REGISTER_BITS = 8192  # at most so many bits are called a register file, more an SRAM


@dataclass(frozen=True)
class Axis:
    """A mesh direction of a container: (array, axis) of ours."""

    container: str
    mesh: str
    array: str
    axis: str
    dims: tuple[str, ...]
    size: int


def containers(array: Array) -> list[tuple[str, list[Axis]]]:
    """An array as containers of at most two mesh directions; further axes get containers of their own."""
    found: list[tuple[str, list[Axis]]] = []
    for start in range(0, len(array.axes), 2):
        name = array.name if start == 0 else f"{array.name}_{start // 2 + 1}"
        pair = array.axes[start : start + 2]
        axes = [Axis(name, mesh, array.name, axis.name, axis.dims, axis.size)
                for mesh, axis in zip(("meshX", "meshY"), pair, strict=False)]  # fmt: skip
        found.append((name, axes))
    return found


def data_bits(memory: Memory) -> int:
    """Width of one element there: the word where each operand has its own, else a part of it."""
    if memory.packing == "padded" or memory.word_bits == 1:
        return memory.word_bits
    return next(bits for bits in (8, 4, 2, 1) if bits < memory.word_bits and memory.word_bits % bits == 0)


# --- machine ----------------------------------------------------------------------------------------------------------


def architecture_text(machine: Accelerator, report: TranslationReport) -> str:
    """The architecture. Raises SpecError for a measured machine, which has no parts to describe."""
    if machine.mac.style == "measured":
        raise SpecError(f"{machine.name}: a measured machine has no parts that Timeloop could describe")
    period = flow(1e-6 / machine.clock_mhz)
    lines = [
        "architecture:", "  version: 0.4", "  nodes:", "  - !Container", "    name: system",
        f'    attributes: {{technology: "{machine.node_nm:g}nm", global_cycle_seconds: {period}}}',
    ]  # fmt: skip
    for node in machine.hierarchy:
        lines += memory_lines(node, machine, report) if isinstance(node, Memory) else array_lines(node, machine, report)
    for operand in machine.mac.latches:
        name = LATCH.format(operand)
        others = ", ".join(SPACES[o] for o in OPERANDS if o != operand)
        lines += [
            "  - !Component", f"    name: {name}", "    class: storage", "    subclass: register",
            "    attributes: {depth: 1, width: 8, datawidth: 8}",
            f"    constraints: {{dataspace: {{keep: [{SPACES[operand]}], bypass: [{others}]}}, temporal: {{{STILL}}}}}",
        ]  # fmt: skip
        report.taken("mac", name, "a latch, as a storage of one element that costs nothing")
    mac = machine.mac
    width = max(mac.weight_bits, mac.input_bits)
    lines += ["  - !Component", "    name: mac", "    class: intmac",
              f"    attributes: {{multiplier_width: {width}, adder_width: {mac.accumulator_bits}}}"]  # fmt: skip
    cannot_say(machine, report)
    return "\n".join(lines) + "\n"


def memory_lines(memory: Memory, machine: Accelerator, report: TranslationReport) -> Iterator[str]:
    """One storage with its constraints."""
    bits = data_bits(memory)
    attributes: dict[str, Any] = {"width": memory.word_bits, "datawidth": bits}
    kind = "SRAM"
    if memory.size_bits is None:
        kind = "DRAM"
    else:
        kind = "regfile" if memory.size_bits <= REGISTER_BITS else "SRAM"
        if memory.size_bits % memory.word_bits == 0:
            attributes = {"depth": memory.size_bits // memory.word_bits, **attributes}
        else:
            attributes = {"entries": memory.size_bits // bits, **attributes}
            if memory.size_bits % bits:
                text = f"{memory.size_bits} bits are no multiple of {bits}: rounded down"
                report.approximated(memory.name, f"{memory.name}.size_bits", text)
    read, write = memory.read_bandwidth_bits_per_cycle, memory.write_bandwidth_bits_per_cycle
    if memory.shared_port and read:
        attributes["shared_bandwidth"] = read / bits
    else:
        attributes |= {f"{side}_bandwidth": value / bits for side, value in (("read", read), ("write", write)) if value}
    if memory is machine.outermost and machine.layer_overhead_cycles:
        attributes["network_fill_latency"] = machine.layer_overhead_cycles
    yield from (
        "  - !Component",
        f"    name: {memory.name}",
        f"    class: {kind}",
        f"    attributes: {flow(attributes)}",
    )
    keep = [SPACES[o] for o in memory.keeps if o not in memory.bypass]
    bypass = [SPACES[o] for o in OPERANDS if o not in memory.keeps]
    said = [temporal_words(machine, memory.name, report)]
    if memory is not machine.outermost:
        said.insert(0, f"dataspace: {{keep: [{', '.join(keep)}], bypass: [{', '.join(bypass)}]}}")
    if any(said):
        yield f"    constraints: {{{', '.join(filter(None, said))}}}"
    for said, key, text in (
        (memory.partitions, "partitions", "separate capacities per operand: one shared pool"),
        (memory.packing == "floor", "packing", "operands that may not straddle words: packed densely"),
        (not memory.double_buffered, "double_buffered", "fills that wait: they overlap there"),
        (memory.efficiency < 1, "efficiency", "a share of the bandwidth that a port sustains: all of it there"),
        (memory.first_fill == "exposed", "first_fill", "first tiles that wait: they overlap there"),
        (memory.compression, "compression", "compressed codes: they move whole there"),
        (memory.padding == "inserted", "padding", "borders made on the way: they are read there"),
    ):
        if said:
            report.none(memory.name, f"{memory.name}.{key}", text)
    if memory.packing == "dense" and bits == memory.word_bits:
        report.approximated(memory.name, f"{memory.name}.packing", "words of one element: no two share a word")


def array_lines(array: Array, machine: Accelerator, report: TranslationReport) -> Iterator[str]:
    """An array as containers with spatial constraints."""
    parts = containers(array)
    if len(parts) > 1:
        text = f"{len(array.axes)} axes: {len(parts)} containers of two mesh directions each"
        report.taken(array.name, f"{array.name}.axes", text)
    for name, axes in parts:
        mesh = ", ".join(f"{axis.mesh}: {axis.size}" for axis in axes)
        yield from ("  - !Container", f"    name: {name}", f"    spatial: {{{mesh}}}")
        allowed = {dim for axis in axes for dim in axis.dims}
        factors = [f"{dim}=1" for dim in DIMS if dim not in allowed]
        factors += spatial_factors(machine, array.name, [axis.axis for axis in axes], report)
        words = [f"factors: [{', '.join(factors)}]"] if factors else []
        words += split_words(axes, array, report)
        if words:
            yield f"    constraints: {{spatial: {{{', '.join(words)}}}}}"
    yield from ("  - !Component", f"    name: {CARRIER.format(array.name)}", "    class: dummy_storage")
    yield "    attributes: {depth: 1, width: 1, datawidth: 1}"
    yield f"    constraints: {{dataspace: {{bypass: [{ALL}]}}}}"
    for said, key, text in (
        (array.hop_energy_pj_per_bit, "hop_energy_pj_per_bit", "a price per bit and element: transfers are free there"),
        (array.systolic, "systolic", "cycles to fill and drain a systolic array"),
        (array.loads_whole_tiles, "loads_whole_tiles", "whole tiles of weights: only the weights in use move there"),
        (array.command_steps > 1, "command_steps", "steps in whole commands: any number there"),
        (not array.multicast, "multicast", "a read per element: identical tiles share one there"),
        (any(axis.max_dims for axis in array.axes), "max_dims", "at most so many loops on an axis"),
    ):
        if said:
            report.none(array.name, f"{array.name}.{key}", text)


def split_words(axes: Sequence[Axis], array: Array, report: TranslationReport) -> list[str]:
    """Which loops go on X and which on Y, where the two differ."""
    if len(axes) == 1:
        return [] if axes[0].mesh == "meshX" else ["split: 0"]
    first, second = set(axes[0].dims), set(axes[1].dims)
    if first == second:
        return []
    if not first & second:
        order = [*axes[0].dims, *[dim for dim in DIMS if dim not in first]]
        return [f"permutation: [{', '.join(order)}]", f"split: {len(axes[0].dims)}"]
    both = ", ".join(sorted(first & second))
    report.approximated(array.name, f"{array.name}.dims", f"{both} on both axes: any loop of either axis on both there")
    return []


def cannot_say(machine: Accelerator, report: TranslationReport) -> None:
    """What Timeloop has no words for, beyond single memories and arrays."""
    mac = machine.mac
    if mac.style != "fixed":
        report.none("mac", "mac.style", f"{mac.style}: narrow operands gain nothing there; the native MAC is written")
    if mac.weight_bits != mac.input_bits:
        text = f"{mac.weight_bits} x {mac.input_bits} bits: one width there, the wider"
        report.approximated("mac", "mac.widths", text)
    if mac.macs_per_cycle != 1:
        report.none("mac", "mac.macs_per_cycle", f"{mac.macs_per_cycle:g} MACs per cycle: one there")
    if mac.sustained < 1 or any(mode.sustained < 1 or mode.start_cycles for mode in mac.modes):
        report.none("mac", "mac.sustained", "a share of the peak rate, or cycles to start a mode: the whole rate there")
    if mac.lanes:
        report.none("mac", "mac.lanes", "loops that fill a unit of several products: one product per unit there")
    if mac.granules:
        report.none("mac", "mac.granules", "iterations that go by whole multiples: any number there")
    if not machine.overlap:
        report.none("machine", "overlap", "MACs and ports that take turns: they overlap there")
    report.none("machine", "vector", "a vector unit: requantization and operators without MACs are not priced there")
    report.none("machine", "capabilities", "widths, signs and fusion: nothing is refused there")
    if machine.other_area_mm2:
        report.none("machine", "other_area_mm2", "area that belongs to no component")


def prices_text(machine: Accelerator) -> str:
    """The energy reference table: pJ per action, idle power as the outermost level's leakage; and areas."""
    leak_pj = working_power_mw(machine) * 1000 / machine.clock_mhz
    lines = ["ERT:", "  version: 0.4", "  tables:"]
    for memory in machine.memories:
        leak = leak_pj if memory is machine.outermost else 0.0
        actions = {"read": memory.read_energy_pj, "write": memory.write_energy_pj, "update": memory.write_energy_pj}
        lines += table_lines(memory.name, {**actions, "leak": leak})
    for operand in machine.mac.latches:
        lines += table_lines(LATCH.format(operand), {"read": 0.0, "write": 0.0, "update": 0.0, "leak": 0.0})
    lines += table_lines("mac", {"compute": machine.mac.energy_pj, "leak": 0.0})
    areas = [(memory.name, memory.area_mm2) for memory in machine.memories] + [("mac", machine.mac.area_mm2)]
    if any(area for _, area in areas):
        lines += ["ART:", "  version: 0.4", "  tables:"]
        lines += [f"  - {{name: system.{name}, area: {flow(area * 1e6)}}}" for name, area in areas if area]
    return "\n".join(lines) + "\n"


def table_lines(name: str, actions: Mapping[str, float]) -> list[str]:
    """One component of the table."""
    said = [f"    - {{name: {verb}, arguments: {{}}, energy: {flow(energy)}}}" for verb, energy in actions.items()]
    return [f"  - name: system.{name}", "    actions:", *said]


# --- problem and mapping ----------------------------------------------------------------------------------------------


def problem_text(layer: Layer) -> str:
    """The layer's loops and projections."""
    bounds = layer.loops.as_dict()

    def rank(*terms: str) -> str:
        return "[" + ", ".join(f"[{term}]" for term in terms) + "]"

    row = rank("R, Hdilation", "P, Hstride")
    column = rank("S, Wdilation", "Q, Wstride")
    spaces = {
        "Weights": [rank(dim) for dim in "GKCRS"],
        "Inputs": [*(rank(dim) for dim in "NGC"), row, column],
        "Outputs": [rank(dim) for dim in "NGKPQ"],
    }
    lines = ["problem:", "  version: 0.4", "  shape:", f"    name: {flow(layer.name)}",
             f"    dimensions: [{', '.join(DIMS)}]", "    coefficients:"]  # fmt: skip
    lines += [f"    - {{name: {name}, default: 1}}" for name in ("Hstride", "Wstride", "Hdilation", "Wdilation")]
    lines.append("    data_spaces:")
    for name, ranks in spaces.items():
        lines += [f"    - name: {name}", f"      projection: [{', '.join(ranks)}]"]
        lines += ["      read_write: true"] if name == "Outputs" else []
    instance = {**bounds, "Hstride": layer.stride[0], "Wstride": layer.stride[1],
                "Hdilation": layer.dilation[0], "Wdilation": layer.dilation[1]}  # fmt: skip
    return "\n".join([*lines, f"  instance: {flow(instance)}"]) + "\n"


def mapping_text(nest: Nest, layer: Layer, machine: Accelerator) -> str:
    """The mapping. Raises SpecError where Timeloop's form has no place for a loop, a hold or a remainder."""
    for dim, bound in layer.loops.as_dict().items():
        if nest.tile(0)[dim] != bound:
            raise SpecError(f"mapping of {layer.name}: the factors of {dim} do not multiply to {bound}: remainders "
                            "have no place in a v4 mapping")  # fmt: skip
    try:
        temporal, spatial, held = placed(nest, machine, layer.name)
    except SpecError:
        temporal, spatial, held = placed(aligned(nest, layer, machine), machine, layer.name)
    lines = ["mapping:"]
    for node in machine.hierarchy:
        if isinstance(node, Memory):
            lines += loop_lines(node.name, "temporal", temporal.get(node.name, []))
            keep = [SPACES[o] for o in OPERANDS if o in held.get(node.name, ())]
            bypass = [SPACES[o] for o in OPERANDS if o not in held.get(node.name, ())]
            lines += [f"- {{target: {node.name}, type: dataspace, keep: [{', '.join(keep)}], "
                      f"bypass: [{', '.join(bypass)}]}}"]  # fmt: skip
        else:
            for name, axes in containers(node):
                mine = [loop for axis in axes for loop in spatial.get((node.name, axis.axis), [])]
                first = len(spatial.get((node.name, axes[0].axis), []))
                if len({dim for dim, _ in mine}) < len(mine):
                    raise SpecError(f"mapping of {layer.name}: a loop is unrolled twice on {name}: on one axis, once, "
                                    "at most there")  # fmt: skip
                lines += loop_lines(name, "spatial", mine, first)
            lines += loop_lines(CARRIER.format(node.name), "temporal", temporal.get(node.name, []))
            lines.append(f"- {{target: {CARRIER.format(node.name)}, type: dataspace, bypass: [{ALL}]}}")
    for operand in machine.mac.latches:
        name = LATCH.format(operand)
        others = ", ".join(SPACES[o] for o in OPERANDS if o != operand)
        lines += loop_lines(name, "temporal", [])
        lines.append(f"- {{target: {name}, type: dataspace, keep: [{SPACES[operand]}], bypass: [{others}]}}")
    return "\n".join(lines) + "\n"


Loops = list[tuple[str, int]]


def placed(
    nest: Nest, machine: Accelerator, name: str
) -> tuple[dict[str, Loops], dict[tuple[str, str], Loops], dict[str, tuple[Operand, ...]]]:
    """Loops by level (innermost first), loops by (array, axis), and what each memory holds."""
    order = [node.name for node in machine.hierarchy]
    temporal: dict[str, Loops] = {}
    spatial: dict[tuple[str, str], Loops] = {}
    held: dict[str, tuple[Operand, ...]] = {}
    here = 0
    for node in nest.nodes:
        if isinstance(node, Temporal):
            mine = temporal.setdefault(order[here], [])
            if mine and mine[0][0] == node.dim:  # two loops of one dim that follow each other are one
                mine[0] = (node.dim, mine[0][1] * node.factor)
            else:
                mine.insert(0, (node.dim, node.factor))
            continue
        target = node.memory if isinstance(node, Hold) else node.array
        place = order.index(target)
        again = isinstance(node, Hold) and place == here and temporal.get(target)
        if place < here or again:
            raise SpecError(f"mapping of {name}: {target} is held below loops of {order[here]}: a level holds all its "
                            "operands before its loops there, in the order of the hierarchy")  # fmt: skip
        here = place
        if isinstance(node, Spatial):
            spatial.setdefault((node.array, node.axis), []).append((node.dim, node.factor))
        else:
            held[target] = (*held.get(target, ()), *node.operands)
    for target, loops in temporal.items():
        if len({dim for dim, _ in loops}) < len(loops):
            raise SpecError(f"mapping of {name}: a loop is cut twice at {target}: once at most there")
    return temporal, spatial, held


def loop_lines(target: str, kind: str, loops: Loops, split: int | None = None) -> list[str]:
    """One entry; loops of factor 1 close the permutation."""
    merged: dict[str, int] = {}
    for dim, factor in loops:
        merged[dim] = merged.get(dim, 1) * factor
    order = [*merged, *[dim for dim in DIMS if dim not in merged]]
    factors = ", ".join(f"{dim}={merged.get(dim, 1)}" for dim in DIMS)
    text = f"- {{target: {target}, type: {kind}, factors: [{factors}], permutation: [{', '.join(order)}]"
    return [text + (f", split: {split}}}" if split is not None else "}")]
