"""Accelerator YAML -> `Accelerator`, or one SpecError that lists every problem with file, line and key.

The file reads as a drawing of the machine: `hierarchy` lists memories and arrays, outermost first; every number has
its unit in the key and its origin in `source`, estimates are named in `estimated`. `load_accelerator` takes a path or
the bare name of a shipped spec. The keys themselves are in yaml_keys.py, what must hold between them in yaml_checks.py.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from hwsim.errors import SpecError
from hwsim.files.reading import is_a_file
from hwsim.files.strict_yaml import Document, read_document
from hwsim.machine.energy_laws import (
    DRAM_SPREAD,
    LEAKAGE_SPREAD,
    WIRE_SPREAD,
    Estimate,
    dram,
    mac_pj,
    sram,
    sram_distance,
)
from hwsim.machine.mac_plugin import as_table
from hwsim.machine.measured import Measurements, read_measurements
from hwsim.machine.parts import (
    OPERANDS,
    Accelerator,
    Array,
    Axis,
    Capabilities,
    Granule,
    MacMode,
    MacUnit,
    Memory,
    Operand,
    Spread,
    VectorUnit,
    ZeroCoding,
)
from hwsim.machine.rules_file import rules_of
from hwsim.machine.yaml_checks import contradictions, filled_modes, lane_problems, measured_contradictions
from hwsim.machine.yaml_keys import (
    AcceleratorSpec,
    ArraySpec,
    MacBase,
    MacSpec,
    MeasuredMac,
    MemorySpec,
    ModesMac,
    ModeSpec,
    Part,
    PluginMac,
    TimedPart,
    ZeroCodingSpec,
)
from hwsim.machine.yaml_messages import explanations, shown

# --- loading --------------------------------------------------------------------------------------------------------


def spec_folder() -> Path:
    """Folder of the shipped specs: inside the package when installed, beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "accel_specs"
    return inside if inside.is_dir() else package.parent / "accel_specs"


def shipped_specs() -> tuple[str, ...]:
    """Bare names of the shipped specs."""
    return tuple(sorted(path.stem for path in spec_folder().glob("*.yaml")))


def load_accelerator(name_or_path: str | Path) -> Accelerator:
    """The machine described by a YAML file, or by a shipped spec's bare name.

    Raises SpecError with every problem of the file at once, each as `file:line: key.path: expected ..., got ...`.
    """
    return accelerator_of(read_document(find_spec(name_or_path)))


def accelerator_of(document: Document, notes: tuple[str, ...] = ()) -> Accelerator:
    """The machine that a parsed document describes; `notes` are told with its estimates. Raises SpecError."""
    if not isinstance(document.data, dict):
        raise SpecError(f"{document.place(())}: expected keys and values, got {shown(document.data)}")
    try:
        spec = AcceleratorSpec.model_validate(document.data)
    except ValidationError as problem:
        raise SpecError(sorted_by_line(explanations(document, problem))) from None
    if isinstance(spec.mac, PluginMac):
        table, note = as_table(document, spec.mac, spec.capabilities)
        spec, notes = spec.model_copy(update={"mac": table}), (note, *notes)
    problems = contradictions(document, spec)
    if problems:
        raise SpecError(sorted_by_line(problems))
    machine = build(spec, measured_table(document, spec))
    if spec.constraints:
        machine = dataclasses.replace(machine, constraints=rules_of(document, spec.constraints, machine))
    problems = lane_problems(document, machine)
    if problems:
        raise SpecError(sorted_by_line(problems))
    return dataclasses.replace(machine, notes=(*machine.notes, *notes)) if notes else machine


def measured_table(document: Document, spec: AcceleratorSpec) -> Measurements | None:
    """The table that a measured machine points to, beside its spec. Raises SpecError."""
    if not isinstance(spec.mac, MeasuredMac):
        return None
    path = Path(document.path).parent / spec.mac.table
    if not is_a_file(path):
        raise SpecError(f"{document.place(('mac', 'table'))}: no such file beside the spec: {spec.mac.table!r}")
    measurements = read_measurements(path, spec.mac.energy_pj_per_cycle or 0.0)
    problems = measured_contradictions(document, spec, measurements)
    if problems:
        raise SpecError(sorted_by_line(problems))
    return measurements


def find_spec(name_or_path: str | Path) -> Path:
    """File behind a path or bare name. Raises SpecError that lists the shipped names."""
    text = str(name_or_path)
    bare = isinstance(name_or_path, str) and re.fullmatch(r"[A-Za-z0-9_-]+", text) is not None
    if bare and text in shipped_specs():
        return spec_folder() / f"{text}.yaml"
    path = Path(text)
    try:
        exists = bool(text) and path.exists()
    except (OSError, ValueError):
        exists = False
    if exists:
        return path
    names = shipped_specs()
    close = difflib.get_close_matches(Path(text).stem, names, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    raise SpecError(f"{text or repr(text)}: no such file or shipped spec; {hint}shipped: {', '.join(names)}")


def sorted_by_line(problems: list[str]) -> list[str]:
    """Problems in the order of the file."""

    def line(problem: str) -> int:
        match = re.search(r":(\d+): ", problem)
        return int(match[1]) if match else 0

    return sorted(problems, key=line)


# --- into the machine -------------------------------------------------------------------------------------------------


def build(spec: AcceleratorSpec, measurements: Measurements | None = None) -> Accelerator:
    """The frozen machine of a checked spec; estimates become notes."""
    estimates: list[tuple[str, str | None]] = [(spec.name, spec.estimated)]
    estimates += [(n.memory if isinstance(n, MemorySpec) else n.array, n.estimated) for n in spec.hierarchy]
    estimates += [("mac", spec.mac.estimated), ("vector", spec.vector.estimated)]
    return Accelerator(
        name=spec.name,
        clock_mhz=spec.clock_mhz,
        node_nm=spec.node_nm,
        hierarchy=tuple(
            build_memory(node, spec.node_nm, outermost=index == 0)
            if isinstance(node, MemorySpec)
            else build_array(node)
            for index, node in enumerate(spec.hierarchy)
        ),
        mac=build_mac(spec.mac, measurements, spec.node_nm),
        vector=VectorUnit(**given(spec.vector)),
        capabilities=Capabilities(**given(spec.capabilities, "source")),
        static_power_mw=spec.static_power_mw or 0.0,
        control_power_mw=spec.control_power_mw or 0.0,
        other_area_mm2=spec.other_area_mm2 or 0.0,
        sources=(spec.source,),
        overlap=spec.overlap,
        layer_overhead_cycles=spec.layer_overhead_cycles or 0,
        spreads=spreads_of(spec),
        rate_spreads=rate_spreads_of(spec),
        notes=(*(f"{where}: estimated: {text}" for where, text in estimates if text), *law_notes(spec)),
    )


def given(spec: BaseModel, *omitted: str) -> dict[str, Any]:
    """Fields of a part that say something, lists frozen; what is absent keeps the machine's default."""
    skipped = {"estimated", "spread", "rate_spread", *omitted}
    fields = {key: value for key, value in spec if value is not None and key not in skipped}
    return {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}


def estimate_of(spec: MemorySpec, node_nm: float, *, outermost: bool) -> Estimate | None:
    """What the law of a memory says of it; None where every energy is given."""
    if spec.energy_law is None:
        return None
    if outermost:
        return dram(spec.word_bits, spec.energy_law)
    assert spec.size_bits is not None
    return sram(spec.size_bits, spec.word_bits, node_nm, spec.energy_law, two_ports=not spec.shared_port)


def spreads_of(spec: AcceleratorSpec) -> tuple[Spread, ...]:
    """The components whose energies are estimates, each with its factor and what it comes from.

    A part that is estimated and states no spread gets what published laws differ by for its kind, size and node; all
    of one kind are then wrong together. `estimated` of the whole machine that speaks of energies holds for every part.
    """
    everything = bool(re.search(r"energ|pJ", spec.estimated or ""))
    found: list[Spread] = []

    def add(component: str, part: Part, kind: str, distance: float) -> None:
        if part.spread is not None:
            found.append(Spread(component, part.spread, component))
        elif everything or part.estimated:
            found.append(Spread(component, distance, kind))

    for index, node in enumerate(spec.hierarchy):
        if isinstance(node, ArraySpec):
            if node.hop_energy_pj_per_bit:
                add(node.array, node, "wires", WIRE_SPREAD)
            continue
        said = estimate_of(node, spec.node_nm, outermost=index == 0)
        if said is not None and node.spread is None:
            found.append(Spread(node.memory, said.spread, f"law {said.law}"))
        elif index == 0 or node.size_bits is None:
            add(node.memory, node, "DRAM", DRAM_SPREAD)
        else:
            add(node.memory, node, "on-chip memories", sram_distance(node.size_bits, node.word_bits, spec.node_nm))
    if not isinstance(spec.mac, MeasuredMac):
        logic = mac_pj(8, 8, spec.node_nm)[1]
        if spec.mac.energy_law is not None and spec.mac.spread is None:
            found.append(Spread("mac", logic, f"law {spec.mac.energy_law}"))
        else:
            add("mac", spec.mac, "logic", logic)
        add("vector", spec.vector, "logic", logic)
    if spec.static_power_mw is None:
        found.append(Spread("static", LEAKAGE_SPREAD, "leakage by area"))
    elif spec.spread is not None:
        found.append(Spread("static", spec.spread, spec.name))
    return tuple(found)


def rate_spreads_of(spec: AcceleratorSpec) -> tuple[Spread, ...]:
    """The parts whose rates are estimates: memories by name, `mac`, `vector`, and `start` of a layer."""
    parts: list[tuple[str, TimedPart]] = [("start", spec)]
    parts += [(node.memory, node) for node in spec.hierarchy if isinstance(node, MemorySpec)]
    parts += [("mac", spec.mac)] if isinstance(spec.mac, MacBase) else []
    parts += [("vector", spec.vector)]
    stated = ((name, part.rate_spread or 1.0) for name, part in parts)
    return tuple(Spread(name, factor, name) for name, factor in stated if factor > 1)


def law_notes(spec: AcceleratorSpec) -> list[str]:
    """What every law said, for the report's assumptions."""
    found: list[str] = []
    for index, node in enumerate(spec.hierarchy):
        said = estimate_of(node, spec.node_nm, outermost=index == 0) if isinstance(node, MemorySpec) else None
        if said is not None and isinstance(node, MemorySpec):
            found.append(
                f"{node.memory}: by law {said.law}: {said.read_pj:.4g} pJ to read a word, {said.write_pj:.4g} to write "
                f"({said.basis}; a factor {said.spread:.2g} either way)"
            )
    if isinstance(spec.mac, MacBase) and spec.mac.energy_law is not None:
        pj, spread = mac_pj(spec.mac.weight_bits, spec.mac.input_bits, spec.node_nm)
        found.append(f"mac: by law {spec.mac.energy_law}: {pj:.4g} pJ (a factor {spread:.2g} either way)")
    return found


def build_memory(spec: MemorySpec, node_nm: float, *, outermost: bool) -> Memory:
    """One memory; an absent area or leakage is the law's where it has one, else 0 here and estimated by area.py.

    The outermost one has room for every tile; its size bounds the whole network instead (pricing/fit.py).
    """
    parts = {} if spec.partitions is None else spec.partitions.model_dump(exclude_none=True)
    partitions: tuple[tuple[Operand, int], ...] = tuple((o, int(parts[o])) for o in OPERANDS if o in parts)
    compression = tuple((o, coded) for o in OPERANDS if (coded := coded_share(spec, o)) is not None)
    told_otherwise = ("partitions", "compression", "size_bits", "energy_law", "latency_cycles", "outstanding_bits")
    fields = given(spec, "memory", *told_otherwise)
    said = estimate_of(spec, node_nm, outermost=outermost)
    if said is not None:
        by_law: dict[str, Any] = {
            "read_energy_pj": said.read_pj,
            "write_energy_pj": said.write_pj,
            "leakage_mw": said.leakage_mw,
            "area_mm2": said.area_mm2,
        }
        fields = by_law | fields
    size, total = (None, spec.size_bits) if outermost else (spec.size_bits, None)
    fields |= sustained_bandwidths(spec)
    fields |= {"partitions": partitions, "compression": compression}
    return Memory(name=spec.memory, size_bits=size, total_bits=total, **fields)


def coded_share(spec: MemorySpec, operand: Operand) -> float | ZeroCoding | None:
    """What a memory says of an operand's compressed codes; None: nothing."""
    found: float | ZeroCodingSpec | None = getattr(spec.compression, operand, None)
    if isinstance(found, ZeroCodingSpec):
        return ZeroCoding(found.zeros, found.coding, found.run_bits or 0)
    return found


def sustained_bandwidths(spec: MemorySpec) -> dict[str, float]:
    """Bits per cycle that the ports sustain: their share of the peak, at most what is on its way over its time.

    A stream with n bits in flight and a latency of t cycles moves n / t bits per cycle (Little's law).
    """
    flying = spec.outstanding_bits / spec.latency_cycles if spec.outstanding_bits and spec.latency_cycles else math.inf
    found: dict[str, float] = {}
    for direction in ("read", "write"):
        key = f"{direction}_bandwidth_bits_per_cycle"
        peak: float | None = getattr(spec, key)
        own = direction == "read" or not spec.shared_port
        limit = min(math.inf if peak is None else peak * spec.efficiency, flying if own else math.inf)
        if limit < math.inf:
            found[key] = limit if limit == peak else round(limit, 9)
    return found


def build_array(spec: ArraySpec) -> Array:
    """One array with its axes in the file's order."""
    axes = tuple(Axis(name, axis.size, tuple(axis.dims), axis.max_dims) for name, axis in spec.axes.items())
    return Array(name=spec.array, axes=axes, **given(spec, "array", "axes"))


def build_mode(spec: ModeSpec) -> MacMode:
    """One mode whose energy is known."""
    return MacMode(**given(spec))


def build_mac(spec: MacSpec, measurements: Measurements | None = None, node_nm: float = 45.0) -> MacUnit:
    """The MAC unit of any style; fields a style lacks keep their defaults."""
    if measurements is not None:
        weight_bits, input_bits = (max(pair[i] for pair in measurements.by_pair) for i in (0, 1))
        fields = given(spec, "table", "energy_pj_per_cycle")
        return MacUnit(
            weight_bits=weight_bits, input_bits=input_bits, energy_pj=0.0, measurements=measurements, **fields
        )
    modes = tuple(map(build_mode, filled_modes(spec))) if isinstance(spec, ModesMac) else ()
    fields = given(spec, "modes", "energy_law", "granules")
    if isinstance(spec, MacBase):
        fields["granules"] = tuple(Granule(tuple(way.loops), way.size) for way in spec.granules)
    if isinstance(spec, MacBase) and spec.energy_law is not None:
        fields["energy_pj"] = mac_pj(spec.weight_bits, spec.input_bits, node_nm)[0]
    return MacUnit(modes=modes, **fields)
