"""What no single key of an accelerator YAML can show: keys that exclude each other.

A missing outermost memory, capacities that do not add up, spatial constraints that contradict each other, MAC modes
that would break "fewer bits never cost more", widths promised but not computable. Every problem has file, line and key.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Sequence

from hwsim.files.strict_yaml import Document, KeyPath
from hwsim.machine.energy_laws import DRAM_LAWS, MAC_LAWS, SRAM_LAWS
from hwsim.machine.mac import lanes_wanted, mac_cost, work_ratio
from hwsim.machine.measured import Measurements
from hwsim.machine.parts import OPERANDS, Accelerator, Granule
from hwsim.machine.yaml_keys import (
    AcceleratorSpec,
    ArraySpec,
    BitSerialMac,
    InMemoryMac,
    MacBase,
    MeasuredMac,
    MemorySpec,
    ModesMac,
    ModeSpec,
    Part,
    TimedPart,
    ZeroCodingSpec,
)
from hwsim.network.layer import MAC_OPS, VECTOR_OPS

REDUCTION_DIMS = ("C", "R", "S")
WEIGHT_DIMS = ("G", "K", *REDUCTION_DIMS)


def did_you_mean(word: str, known: list[str]) -> str:
    """A suggestion for a misspelt key, or the list of keys that exist."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; known keys: {', '.join(known)}" if known else ""


def contradictions(document: Document, spec: AcceleratorSpec) -> list[str]:
    """Problems between keys: a missing outermost memory, capacities and spatial constraints that exclude each other."""
    problems: list[str] = []
    outermost = spec.hierarchy[0]
    first: KeyPath = ("hierarchy", 0)
    if not isinstance(outermost, MemorySpec):
        problems.append(f"{document.place(first)}: expected the outermost memory first, got array {outermost.array!r}")
    elif set(outermost.keeps) != set(OPERANDS) or outermost.bypass:
        problems.append(
            f"{document.place((*first, 'keeps'))}: expected the outermost memory to keep weight, input and output "
            f"without bypass, got keeps {outermost.keeps}, bypass {outermost.bypass}"
        )
    names: set[str] = set()
    inside = False
    for index, node in enumerate(spec.hierarchy):
        where: KeyPath = ("hierarchy", index)
        if isinstance(node, MemorySpec) and node.first_fill == "exposed" and inside:
            problems.append(
                f"{document.place((*where, 'first_fill'))}: expected no such key: {node.memory} lies inside an array; "
                "give it to the memory outside, whose tiles come first"
            )
        inside = inside or isinstance(node, ArraySpec)
        name = node.memory if isinstance(node, MemorySpec) else node.array
        if name in names:
            problems.append(f"{document.place(where)}: two levels are called {name!r}: names must differ")
        names.add(name)
        if isinstance(node, MemorySpec):
            problems += memory_contradictions(document, where, node)
            if index == 0 or any(isinstance(other, ArraySpec) for other in spec.hierarchy[index + 1 :]):
                problems += free_problems(document, where, node)
        else:
            problems += array_contradictions(document, where, node)
            problems += whole_tile_problems(document, where, node, spec.hierarchy[index + 1 :])
    if spec.rate_spread is not None and not starts(spec):
        place = document.place(("rate_spread",))
        problems.append(f"{place}: expected layer_overhead_cycles that it is a factor of, or start_cycles of a mode")
    parts: list[tuple[KeyPath, Part]] = [((), spec), (("mac",), spec.mac), (("vector",), spec.vector)]
    parts += [(("hierarchy", index), node) for index, node in enumerate(spec.hierarchy)]
    problems += [problem for where, part in parts for problem in spread_problems(document, where, part)]
    return problems + mac_contradictions(document, spec) + operator_contradictions(document, spec)


def starts(spec: AcceleratorSpec) -> bool:
    """Whether starting a layer takes time."""
    modes = spec.mac.modes if isinstance(spec.mac, ModesMac) else []
    return spec.layer_overhead_cycles is not None or any(mode.start_cycles for mode in modes)


def memory_contradictions(document: Document, where: KeyPath, memory: MemorySpec) -> list[str]:
    """Capacity, bypass and ports of one memory."""
    problems: list[str] = []

    def complain(key: str, message: str, *inside: str) -> None:
        problems.append(f"{document.place((*where, key, *inside))}: {message}")

    for key, operands in (("keeps", memory.keeps), ("bypass", memory.bypass)):
        if len(set(operands)) < len(operands):
            complain(key, f"expected each operand once, got {operands}")
    if not set(memory.bypass) <= set(memory.keeps):
        complain("bypass", f"expected operands out of keeps {memory.keeps}, got {memory.bypass}")
    if memory.size_bits is None and where != ("hierarchy", 0):
        complain("size_bits", "expected a whole number: only the outermost memory may be unlimited")
    problems += law_problems(document, where, memory)
    if memory.stores is not None and where != ("hierarchy", 0):
        complain("stores", "expected no such key: it is the outermost memory's")
    if memory.stores is not None and "weight" not in memory.stores:
        complain("stores", f"expected weight among them, got {memory.stores}: weights have no other home")
    parts = {} if memory.partitions is None else memory.partitions.model_dump(exclude_none=True)
    if memory.partitions is not None and set(parts) != set(memory.keeps):
        complain("partitions", f"expected one capacity for each of keeps {memory.keeps}, got {sorted(parts)}")
    if memory.size_bits is not None and sum(parts.values()) > memory.size_bits:
        complain("partitions", f"expected at most size_bits {memory.size_bits} in sum, got {sum(parts.values())}")
    if memory.first_fill == "exposed" and (not memory.double_buffered or where == ("hierarchy", 0)):
        complain("first_fill", "expected no such key: only tiles of a double-buffered level inside hide behind work")
    if memory.padding == "inserted" and "input" not in memory.keeps:
        complain("padding", f"expected no such key: the border is around inputs, and this keeps {memory.keeps}")
    ratios = [] if memory.compression is None else list(memory.compression.model_dump(exclude_none=True))
    if memory.compression is not None and not (ratios and set(ratios) <= set(memory.keeps)):
        complain("compression", f"expected ratios of operands out of keeps {memory.keeps}, got {sorted(ratios)}")
    for operand in ratios:
        coded = getattr(memory.compression, operand)
        if not isinstance(coded, ZeroCodingSpec):
            continue
        if coded.coding == "run_length" and coded.run_bits is None:
            complain("compression", "missing key: how many bits say a run's length", operand, "run_bits")
        if coded.coding == "bitmap" and coded.run_bits is not None:
            complain("compression", "expected no such key: a bitmap has no runs", operand, "run_bits")
        if memory.packing != "dense":
            complain("packing", f"expected dense, got {memory.packing}: codes without zeros have no places in words")
    limits = (memory.read_bandwidth_bits_per_cycle, memory.write_bandwidth_bits_per_cycle)
    if memory.rate_spread is not None and limits == (None, None) and memory.latency_cycles is None:
        complain("rate_spread", "expected a bandwidth that it is a factor of: no port of this memory has one")
    if memory.efficiency != 1.0 and limits == (None, None):
        complain("efficiency", "expected a bandwidth that it is a share of: no port of this memory has one")
    if (memory.latency_cycles is None) != (memory.outstanding_bits is None):
        missing = "outstanding_bits" if memory.outstanding_bits is None else "latency_cycles"
        complain(missing, "missing key: a latency bounds a port by the bits that are on their way meanwhile; give both")
    if memory.shared_port and memory.write_bandwidth_bits_per_cycle is not None:
        complain(
            "write_bandwidth_bits_per_cycle", "expected no such key: a shared port has read_bandwidth_bits_per_cycle"
        )
    return problems


def free_problems(document: Document, where: KeyPath, memory: MemorySpec) -> list[str]:
    """Accesses that cost nothing where no register can be: nothing is silently free."""
    keys = [key for key in ("read_energy_pj", "write_energy_pj") if getattr(memory, key) == 0]
    return [
        f"{document.place((*where, key))}: expected a number above 0, got 0: only a memory inside all arrays may be an "
        "ideal register"
        for key in keys
    ]


def law_problems(document: Document, where: KeyPath, memory: MemorySpec) -> list[str]:
    """Energies that no law gives, laws that nothing asks, laws of another kind of memory."""
    outermost = where == ("hierarchy", 0)
    auto = [key for key in ("read_energy_pj", "write_energy_pj") if getattr(memory, key) is None]
    known = tuple(DRAM_LAWS) if outermost else SRAM_LAWS
    kind = "outermost memory" if outermost else "on-chip memory"
    place = document.place((*where, "energy_law"))
    if auto and memory.energy_law is None:
        return [f"{place}: missing key: {auto[0]}: auto needs a law of an {kind}: {', '.join(known)}"]
    if memory.energy_law is not None and not auto:
        return [f"{place}: expected no such key: both energies are given"]
    if memory.energy_law is not None and memory.energy_law not in known:
        return [f"{place}: expected a law of an {kind}, {', '.join(known)}, got {memory.energy_law!r}"]
    return []


def spread_problems(document: Document, where: KeyPath, part: Part) -> list[str]:
    """Spreads of numbers that nobody estimated."""
    said = ["spread"] if part.spread is not None else []
    if isinstance(part, TimedPart) and part.rate_spread is not None:
        said.append("rate_spread")
    if part.estimated is not None:
        return []
    return [
        f"{document.place((*where, key))}: expected estimated beside it: which numbers may be off, and why"
        for key in said
    ]


def mac_law_problems(document: Document, mac: MacBase, style: str) -> list[str]:
    """The same of a MAC unit, whose law knows plain multipliers alone."""
    place = document.place(("mac", "energy_law"))
    if mac.energy_pj is None and mac.energy_law is None:
        return [f"{place}: missing key: energy_pj: auto needs a law: {', '.join(MAC_LAWS)}"]
    if mac.energy_law is not None and mac.energy_pj is not None:
        return [f"{place}: expected no such key: energy_pj is given"]
    if mac.energy_law is not None and style != "fixed":
        return [f"{place}: expected style fixed: the law was fitted to plain multipliers, not to {style} units"]
    return []


def array_contradictions(document: Document, where: KeyPath, array: ArraySpec) -> list[str]:
    """Spatial constraints that exclude each other."""
    problems: list[str] = []
    for name, axis in array.axes.items():
        place = document.place((*where, "axes", name))
        if len(set(axis.dims)) < len(axis.dims):
            problems.append(f"{place}: expected each loop once in dims, got {axis.dims}")
        if axis.max_dims is not None and axis.max_dims > len(axis.dims):
            problems.append(f"{place}: expected max_dims of at most {len(axis.dims)} (the dims), got {axis.max_dims}")
        reduced = [dim for dim in axis.dims if dim in REDUCTION_DIMS]
        if reduced and not array.reduction:
            problems.append(
                f"{place}: contradiction: dims {reduced} need sums between elements, but the array has "
                "reduction: false; remove these dims or set reduction: true"
            )
    if array.systolic and len(array.axes) != 2:
        problems.append(
            f"{document.place((*where, 'axes'))}: expected rows and columns of a systolic array, got {len(array.axes)}"
        )
    return problems


def whole_tile_problems(
    document: Document, where: KeyPath, array: ArraySpec, inside: Sequence[MemorySpec | ArraySpec]
) -> list[str]:
    """Whole tiles of weights that nothing holds, or whose sides the axes leave open."""
    if not array.loads_whole_tiles:
        return []
    place = document.place((*where, "loads_whole_tiles"))
    if not inside or not isinstance(inside[0], MemorySpec) or "weight" not in inside[0].keeps:
        got = "none" if not inside or not isinstance(inside[0], MemorySpec) else f"keeps {inside[0].keeps}"
        return [f"{place}: expected a memory directly inside {array.array} that keeps weight, got {got}"]
    if any(isinstance(node, ArraySpec) for node in inside):
        return [f"{place}: expected no array inside {array.array}: a tile is what the innermost one holds"]
    dims = [dim for axis in array.axes.values() for dim in axis.dims if dim in WEIGHT_DIMS]
    twice = sorted({dim for dim in dims if dims.count(dim) > 1})
    if twice:
        return [f"{place}: expected every loop of the weights on one axis, got {', '.join(twice)} on several"]
    return [] if dims else [f"{place}: expected a loop of the weights ({', '.join(WEIGHT_DIMS)}) on an axis, got none"]


def mac_contradictions(document: Document, spec: AcceleratorSpec) -> list[str]:
    """Modes that cannot be ranked, and widths promised but not computed."""
    mac, capabilities = spec.mac, spec.capabilities
    problems: list[str] = []
    limits: list[tuple[str, int, int]] = []
    problems += element_problems(document, spec)
    if isinstance(mac, MacBase):
        laws = mac_law_problems(document, mac, mac.style)
        if laws:
            return laws
    if isinstance(mac, ModesMac):
        problems += mode_contradictions(document, mac)
        limits.append(("weight_bits", max(capabilities.weight_bits), max(m.weight_bits for m in mac.modes)))
        limits.append(("activation_bits", max(capabilities.activation_bits), max(m.input_bits for m in mac.modes)))
    if isinstance(mac, BitSerialMac) and mac.sum_bits is not None and mac.serial != "both":
        problems.append(
            f"{document.place(('mac', 'sum_bits'))}: expected no such key: with one operand in parallel at its native "
            "width, energy follows the digits of the other"
        )
    if isinstance(mac, InMemoryMac):
        problems += in_memory_contradictions(document, mac)
    if isinstance(mac, BitSerialMac) and mac.serial == "weight":
        limits.append(("activation_bits", max(capabilities.activation_bits), mac.input_bits))
    if isinstance(mac, BitSerialMac) and mac.serial == "input":
        limits.append(("weight_bits", max(capabilities.weight_bits), mac.weight_bits))
    for key, promised, possible in limits:
        if promised > possible:
            problems.append(
                f"{document.place(('capabilities', key))}: expected at most the {possible} bits that the {mac.style} "
                f"MAC can take, got {promised}"
            )
    return problems


def in_memory_contradictions(document: Document, mac: InMemoryMac) -> list[str]:
    """Converters that are not there, and rows too short for one native weight."""
    problems: list[str] = []
    if mac.adc_bits is not None and mac.adc_energy_pj is None:
        problems.append(f"{document.place(('mac', 'adc_energy_pj'))}: missing key: a converter of adc_bits has a price")
    wanted = -(-mac.weight_bits // mac.cell_bits) + mac.sum_columns
    if mac.columns is not None and mac.columns < wanted:
        problems.append(
            f"{document.place(('mac', 'columns'))}: expected at least the {wanted} columns of one native weight and "
            f"its sum, got {mac.columns}"
        )
    if mac.columns is None and mac.sum_columns:
        problems.append(
            f"{document.place(('mac', 'sum_columns'))}: expected mac.columns beside it: what a row has to share out"
        )
    return problems


def measured_contradictions(document: Document, spec: AcceleratorSpec, table: Measurements) -> list[str]:
    """What a measured machine may not say: an energy twice or never, levels inside it, widths beyond its table."""
    problems: list[str] = []
    if len(spec.hierarchy) > 1:
        problems.append(
            f"{document.place(('hierarchy', 1))}: a measured machine has the outermost memory alone: what lies inside "
            "is in its table"
        )
    mac = spec.mac
    assert isinstance(mac, MeasuredMac)
    tabulated = table.rows[0].energy_pj is not None
    if tabulated and mac.energy_pj_per_cycle is not None:
        message = "expected no such key: the table has energies of its own"
        problems.append(f"{document.place(('mac', 'energy_pj_per_cycle'))}: {message}")
    if not tabulated and mac.energy_pj_per_cycle is None:
        message = "missing key: the table has no column energy_pj, so energy needs pJ per cycle"
        problems.append(f"{document.place(('mac', 'energy_pj_per_cycle'))}: {message}")
    widths = (
        ("weight_bits", spec.capabilities.weight_bits, 0),
        ("activation_bits", spec.capabilities.activation_bits, 1),
    )
    for key, promised, side in widths:
        possible = max(pair[side] for pair in table.by_pair)
        if max(promised) > possible:
            problems.append(
                f"{document.place(('capabilities', key))}: expected at most the {possible} bits that {table.name} "
                f"measured, got {max(promised)}"
            )
    return problems


def step_cycles(mode: ModeSpec) -> float:
    """Cycles of a step of all the products that a mode does at once."""
    return math.ceil(mode.macs_per_cycle) / (mode.macs_per_cycle * mode.sustained)


def filled_modes(mac: ModesMac) -> list[ModeSpec]:
    """All modes with their energies: native * (w*a + sum_bits*(w + a)) / the same at native widths, where left out."""
    native = (mac.weight_bits, mac.input_bits)
    return [
        mode
        if mode.energy_pj is not None
        else mode.model_copy(
            update={
                "energy_pj": (mac.energy_pj or 0.0)
                * float(work_ratio((mode.weight_bits, mode.input_bits), native, mac.sum_bits or 0.0))
            }
        )
        for mode in mac.modes
    ]


def mode_unpacks(one: ModeSpec, other: ModeSpec) -> bool:
    """Whether one of two modes unpacks weights into the MACs of the other, at the same energy."""
    return (one.unpacks or other.unpacks) and one.energy_pj == other.energy_pj


def share_elements(one: ModeSpec, other: ModeSpec) -> bool:
    """Whether some operands could run in either of two modes."""
    return not one.elements or not other.elements or not set(one.elements).isdisjoint(other.elements)


def element_problems(document: Document, spec: AcceleratorSpec) -> list[str]:
    """Elements of modes and of scales that the MACs do not multiply, and those that no mode is made for."""
    mac, can = spec.mac, spec.capabilities
    modes = mac.modes if isinstance(mac, ModesMac) else []
    named: list[tuple[KeyPath, Sequence[str]]] = [(("capabilities", "scaled_elements"), can.scaled_elements)]
    named += [(("mac", "modes", i, "elements"), mode.elements) for i, mode in enumerate(modes)]
    problems = [
        f"{document.place(where)}: expected some of capabilities.elements ({', '.join(can.elements)}), got {element}"
        for where, elements in named
        for element in elements
        if element not in can.elements
    ]
    made = {element for mode in modes for element in mode.elements or can.elements}
    problems += [
        f"{document.place(('capabilities', 'elements', i))}: expected a mode of the MAC for {element}: none names it"
        for i, element in enumerate(can.elements)
        if modes and element not in made
    ]
    if can.scaled_elements and "mac" not in can.group_scales:
        problems.append(
            f"{document.place(('capabilities', 'scaled_elements'))}: expected mac among group_scales: whose scales are "
            "these?"
        )
    return problems


def unpacking_problems(document: Document, modes: list[tuple[ModeSpec, float]]) -> list[str]:
    """Modes that unpack weights for MACs that no other mode has."""
    return [
        f"{document.place(('mac', 'modes', i, 'unpacks'))}: expected another mode of {mode.energy_pj:g} pJ that holds "
        f"weights wider than {mode.weight_bits} bits and inputs of {mode.input_bits}: its MACs do the work"
        for i, (mode, pj) in enumerate(modes)
        if mode.unpacks
        and not any(
            other_pj == pj and not other.unpacks and other.weight_bits > mode.weight_bits
            and other.input_bits >= mode.input_bits
            for other, other_pj in modes
        )
    ]  # fmt: skip


def energy_of(mode: ModeSpec) -> float:
    """pJ of a filled mode."""
    assert mode.energy_pj is not None
    return mode.energy_pj


def longer_step_way_out(faster: ModeSpec, slower: ModeSpec) -> str:
    """What to change where few products would gain from wider operands."""
    if faster.sustained < slower.sustained:
        return "give the narrower mode the share `sustained` of the wider one"
    return "round the rates"


def mode_contradictions(document: Document, mac: ModesMac) -> list[str]:
    """Modes must be ranked alike by energy and by speed, so that one mode is best for every operand pair."""
    problems: list[str] = []
    if mac.sustained != 1.0:
        problems.append(f"{document.place(('mac', 'sustained'))}: expected no such key: every mode states its own")
    unknown = [i for i, mode in enumerate(mac.modes) if mode.energy_pj is None]
    if unknown and mac.sum_bits is None:
        place = document.place(("mac", "modes", unknown[0], "energy_pj"))
        return [f"{place}: missing key: give pJ per MAC, or mac.sum_bits for the law that fills it in"]
    if not unknown and mac.sum_bits is not None:
        problems.append(f"{document.place(('mac', 'sum_bits'))}: expected no such key: every mode states its energy")
    modes = [(mode, energy_of(mode)) for mode in filled_modes(mac)]
    for i, here in enumerate(modes):
        for other in modes[:i]:
            if not share_elements(here[0], other[0]):
                continue
            (cheaper, low_pj), (dearer, high_pj) = sorted((here, other), key=lambda m: (m[1], -m[0].macs_per_cycle))
            if mode_unpacks(cheaper, dearer):
                continue
            if cheaper.macs_per_cycle * cheaper.sustained < dearer.macs_per_cycle * dearer.sustained:
                problems.append(
                    f"{document.place(('mac', 'modes', i))}: contradiction: of two modes the cheaper is the slower "
                    f"({low_pj:g} pJ at {cheaper.macs_per_cycle:g} per cycle, {high_pj:g} pJ at "
                    f"{dearer.macs_per_cycle:g}); leave one out"
                )
            elif step_cycles(cheaper) > step_cycles(dearer):
                problems.append(
                    f"{document.place(('mac', 'modes', i))}: contradiction: a step of the faster mode is longer "
                    f"({step_cycles(cheaper):.3g} cycles for {math.ceil(cheaper.macs_per_cycle)} products, "
                    f"{step_cycles(dearer):.3g} for {math.ceil(dearer.macs_per_cycle)}), so few products would gain "
                    f"from wider operands; {longer_step_way_out(cheaper, dearer)}"
                )
    problems += unpacking_problems(document, modes)
    native = [m for m in filled_modes(mac) if (m.weight_bits, m.input_bits) == (mac.weight_bits, mac.input_bits)]
    if not native:
        place = document.place(("mac", "modes"))
        problems.append(f"{place}: expected the native {mac.weight_bits}x{mac.input_bits} mode among them")
    elif (native[0].energy_pj, native[0].macs_per_cycle) != (mac.energy_pj, mac.macs_per_cycle):
        problems.append(
            f"{document.place(('mac', 'energy_pj'))}: expected the native mode's {energy_of(native[0]):g} pJ and "
            f"{native[0].macs_per_cycle:g} MACs per cycle, got {mac.energy_pj or 0.0:g} and {mac.macs_per_cycle:g}"
        )
    return problems


def lane_problems(document: Document, machine: Accelerator) -> list[str]:
    """Lanes that several products at once need and lack, or that nothing fills."""
    mac, can = machine.mac, machine.capabilities
    place = document.place(("mac", "lanes"))
    if len(set(mac.lanes)) < len(mac.lanes):
        return [f"{place}: expected each loop once, got {list(mac.lanes)}"]
    problems = [
        problem for i, way in enumerate(mac.granules) for problem in granule_problems(document, i, way, mac.lanes)
    ]
    if mac.measurements is not None or problems:
        return problems
    every = dataclasses.replace(mac, modes=tuple(dataclasses.replace(mode, elements=()) for mode in mac.modes))
    most = max(
        (mac_cost(every, w, x) for w in can.weight_bits for x in can.activation_bits), key=lambda cost: cost.products
    )
    if most.products > 1 and not mac.lanes:
        return [f"{place}: {lanes_wanted(most)}"]
    if most.products == 1 and mac.lanes:
        return [f"{place}: expected no such key: at no width does a unit do more than one product at once"]
    return []


def granule_problems(document: Document, index: int, granule: Granule, lanes: tuple[str, ...]) -> list[str]:
    """Loops of a granule that stand there twice, or that fill lanes."""
    place = document.place(("mac", "granules", index, "loops"))
    if len(set(granule.loops)) < len(granule.loops):
        return [f"{place}: expected each loop once, got {list(granule.loops)}"]
    both = sorted(set(granule.loops) & set(lanes))
    if both:
        return [f"{place}: expected loops that are no lanes, got {both} in both: lanes are filled by their products"]
    return []


def operator_contradictions(document: Document, spec: AcceleratorSpec) -> list[str]:
    """Operators nobody knows, widths listed twice."""
    known = [*MAC_OPS, *VECTOR_OPS]
    problems = [
        f"{document.place(('capabilities', 'operators', i))}: unknown operator {op!r}{did_you_mean(op, known)}"
        for i, op in enumerate(spec.capabilities.operators)
        if op not in known
    ]
    for key in ("weight_bits", "activation_bits", "output_bits"):
        widths: list[int] = getattr(spec.capabilities, key)
        if len(set(widths)) < len(widths):
            problems.append(f"{document.place(('capabilities', key))}: expected each width once, got {widths}")
    if spec.capabilities.zero_gating and not spec.capabilities.zero_gating_saving:
        problems.append(
            f"{document.place(('capabilities', 'zero_gating_saving'))}: missing key: zero_gating needs its saving"
        )
    return problems
