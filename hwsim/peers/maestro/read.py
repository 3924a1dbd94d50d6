"""MAESTRO files as a network, a machine and its dataflows as mappings.

Layers need no more than their file. The machine takes num_pes and the sizes of a hardware file, and its array's levels
from the clusters of the dataflows. MAESTRO has no memory outside L2, no widths and energies relative to a MAC: a free
outermost memory, 8 bits and our estimates stand for these, and the report says so.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hwsim.errors import SpecError
from hwsim.machine import energy_laws
from hwsim.machine.parts import OPERANDS, Accelerator
from hwsim.nest.legal import validate
from hwsim.nest.mapping import Mapping as Nest
from hwsim.network.layer import Layer, Loops, Tensor
from hwsim.network.workload import Workload
from hwsim.peers.draft import FREE_PJ, Draft, bare_name, free_vector, wide_capabilities
from hwsim.peers.maestro.dataflow import ARRAY, AXIS, nest_of, spatial_dims, units_of
from hwsim.peers.maestro.text import Entry, Reader
from hwsim.peers.report import TranslationReport
from hwsim.peers.tagged_yaml import Item, read_text

HARDWARE = ("num_pes", "l1_size_cstr", "l2_size_cstr", "noc_bw_cstr", "offchip_bw_cstr")
LINE = re.compile(r"\s*(\w+)\s*:\s*(\d{1,12})\s*,?\s*")
BITS, SUM_BITS, UNSIZED_BITS, MAX_PES = 8, 32, 2**50, 2**20


@dataclass
class Maestro:
    """Everything that the files said."""

    report: TranslationReport
    entries: list[Entry] = field(default_factory=list[Entry])
    workload: Workload | None = None
    draft: Draft | None = None
    pes: int = 0

    def machine(self) -> Accelerator:
        """The machine. Raises SpecError where it is none."""
        assert self.draft is not None
        return self.draft.machine(self.report)

    def mappings(self, machine: Accelerator) -> dict[str, Nest]:
        """The dataflow of every layer that has a counterpart; the others are named."""
        found: dict[str, Nest] = {}
        sizes = [axis.size for axis in machine.arrays[0].axes] if machine.arrays else []
        for entry, layer in zip(self.entries, self.workload.layers if self.workload else (), strict=True):
            try:
                units = units_of(entry, self.pes)
                if [n for n in units if n > 1] != sizes:
                    raise entry.place.error(f"layer {entry.name}: its clusters are not those of the first layer")
                nest = nest_of(entry, layer, units, {"C": "G"} if entry.kind == "DSCONV" else {})
                problems = validate(nest, layer, machine)
            except SpecError as problem:
                self.report.none(entry.place.place, f"dataflow of {entry.name}", str(problem))
                continue
            for problem in problems:
                self.report.none(entry.place.place, f"dataflow of {entry.name}", f"not legal here: {problem}")
            if not problems:
                found[layer.name] = nest
                self.report.taken(entry.place.place, f"dataflow of {entry.name}", "its maps and clusters, as a mapping")
        return found


def read_maestro(paths: Sequence[Path]) -> Maestro:
    """A network, a hardware file, or both. Raises SpecError with file and line."""
    found = Maestro(TranslationReport())
    hardware: dict[str, Item] | None = None
    for path in paths:
        text = read_text(path)
        if re.search(rf"^\s*({'|'.join(HARDWARE)})\s*:", text, re.MULTILINE):
            if hardware is not None:
                raise SpecError(f"{path}:1: a second hardware file: give one")
            hardware = read_hardware(text, str(path))
            continue
        if found.entries:
            raise SpecError(f"{path}:1: a second network: give one")
        found.entries = Reader(text, str(path)).entries()
        if not found.entries:
            raise SpecError(f"{path}:1: no layer in it")
        for number, entry in enumerate(found.entries):
            if any(bare_name(entry.name) == bare_name(other.name) for other in found.entries[:number]):
                raise entry.place.error(f"layer {entry.name} stands twice: expected each name once")
        layers = [layer_of(entry) for entry in found.entries]
        found.workload = Workload(bare_name(path.stem, "network"), layers)
        found.report.approximated(str(path), "widths", "MAESTRO states none: operands of 8 bits, sums of 32")
    if hardware is not None:
        if not found.entries:
            raise hardware["num_pes"].error("the array's levels are those of a dataflow: give the network's file, too")
        found.pes = hardware["num_pes"].integer("num_pes", 1, MAX_PES)
        found.draft = draft_of(hardware, found)
    return found


def read_hardware(text: str, file: str) -> dict[str, Item]:
    """`num_pes: 256` and its like."""
    found: dict[str, Item] = {}
    for number, line in enumerate(text.splitlines(), 1):
        plain = line.split("//")[0].strip()
        if not plain:
            continue
        match = LINE.fullmatch(plain)
        if match is None:
            raise SpecError(f"{file}:{number}: expected a key and a whole number, such as num_pes: 256, got {plain!r}")
        if match[1] in found:
            raise SpecError(f"{file}:{number}: {match[1]} stands twice, first in line {found[match[1]].line}: keep one")
        found[match[1]] = Item(int(match[2]), file, number)
    if "num_pes" not in found:
        raise SpecError(f"{file}:1: num_pes is missing: how many elements there are")
    return found


def layer_of(entry: Entry) -> Layer:
    """A layer of ours. Raises SpecError for types and sizes that have none."""
    sizes, get = entry.sizes, entry.sizes.get
    if entry.kind == "GEMM":
        need(entry, "M", "N", "K")
        return built(entry, Loops(K=sizes["N"], C=sizes["K"], P=sizes["M"]), (1, 1), (1, 1))
    if entry.kind not in ("CONV", "DSCONV", "FC"):
        raise entry.place.error(f"layer {entry.name}: type {entry.kind!r}: expected CONV, DSCONV, FC or GEMM")
    need(entry, "K", "C", "R", "S", "Y", "X")
    stride = entry.stride.get("Y", 1), entry.stride.get("X", 1)
    dilation = entry.dilation.get("Y", 1), entry.dilation.get("X", 1)
    outs: list[int] = []
    for axis, (rows, taps) in enumerate((("Y", "R"), ("X", "S"))):
        left = sizes[rows] - (sizes[taps] - 1) * dilation[axis] - 1
        if left < 0:
            raise entry.place.error(
                f"layer {entry.name}: a filter of {sizes[taps]} above {sizes[rows]} inputs along {rows}"
            )
        outs.append(left // stride[axis] + 1)
    same = {"N": get("N", 1), "P": outs[0], "Q": outs[1], "R": sizes["R"], "S": sizes["S"]}
    if entry.kind == "DSCONV":
        if sizes["K"] != 1 and sizes["K"] != sizes["C"]:
            raise entry.place.error(
                f"layer {entry.name}: a depthwise layer of K {sizes['K']}: expected 1 (per channel)"
            )
        return built(entry, Loops(**same, G=sizes["C"]), stride, dilation)
    groups = get("G", 1)
    if groups != 1:
        raise entry.place.error(f"layer {entry.name}: G {groups}: grouped layers are not read")
    return built(entry, Loops(**same, K=sizes["K"], C=sizes["C"]), stride, dilation)


def need(entry: Entry, *dims: str) -> None:
    """Raise SpecError where a size is missing."""
    missing = [dim for dim in dims if dim not in entry.sizes]
    if missing:
        raise entry.place.error(f"layer {entry.name}: the size of {', '.join(missing)} is missing")


def built(entry: Entry, loops: Loops, stride: tuple[int, int], dilation: tuple[int, int]) -> Layer:
    """The layer, unpadded: padding stands in Y and X there."""
    n, name = loops, bare_name(entry.name, "layer")
    rows = (n.P - 1) * stride[0] + (n.R - 1) * dilation[0] + 1
    columns = (n.Q - 1) * stride[1] + (n.S - 1) * dilation[1] + 1
    return Layer(
        name=name, op="conv",
        inputs=(Tensor(f"{name}.input", (n.N, n.G * n.C, rows, columns), BITS),),
        output=Tensor(f"{name}.output", (n.N, n.G * n.K, n.P, n.Q), BITS),
        weight=Tensor(f"{name}.weight", (n.G * n.K, n.C, n.R, n.S), BITS),
        loops=n, stride=stride, dilation=dilation, accumulator_bits=SUM_BITS,
    )  # fmt: skip


def draft_of(hardware: dict[str, Item], found: Maestro) -> Draft:
    """The spec's keys."""
    report, item = found.report, hardware["num_pes"]
    draft = Draft(item.file, {}, {})
    draft.data |= {
        "name": bare_name(Path(item.file).stem), "clock_mhz": 1000, "node_nm": 45,
        "source": f"MAESTRO hardware {Path(item.file).name}",
        "estimated": "clock, node, widths and energies: MAESTRO counts cycles and energies relative to a MAC",
        "hierarchy": [],
    }  # fmt: skip
    for subject, text in (("energies", energy_laws.UNSTATED), ("clock", "1000 MHz")):
        report.approximated(item.place, subject, f"MAESTRO states none: {text}")
    report.approximated(item.place, "dram", "MAESTRO's traffic begins at L2: a memory outside it holds all tensors")
    for key, value in hardware.items():
        if key not in HARDWARE:
            report.none(value.place, key, "no part of this cost model")
    outside = bandwidth(hardware.get("offchip_bw_cstr"), "offchip_bw_cstr", report)
    draft.add_level({"memory": "dram", "size_bits": "unlimited", "keeps": list(OPERANDS), "word_bits": 8,
                     "packing": "padded", **prices(None), **outside, "source": "outside L2", "estimated": "price"},
                    item.line)  # fmt: skip
    for name, key in (("l2", "l2_size_cstr"), ("l1", "l1_size_cstr")):
        size = capacity(hardware.get(key), key, report)
        noc = bandwidth(hardware.get("noc_bw_cstr"), "noc_bw_cstr", report) if name == "l2" else {}
        memory = {"memory": name, "size_bits": size, "keeps": list(OPERANDS), "word_bits": 8, "packing": "padded"}
        draft.add_level({**memory, **prices(size), **noc, "source": key, "estimated": "price"}, item.line)
        if name == "l2" and (axes := axes_of(found)):
            draft.add_level({"array": ARRAY, "axes": axes, "source": "num_pes and clusters"}, item.line)
    draft.data["mac"] = {
        "style": "fixed", "weight_bits": BITS, "input_bits": BITS, "accumulator_bits": SUM_BITS,
        "energy_pj": energy_laws.mac_pj(BITS, BITS)[0], "source": "an element", "estimated": "price and widths",
    }  # fmt: skip
    draft.data["vector"] = free_vector("MAESTRO", report, item.place)
    draft.data["vector"]["energy_pj_per_op"] = FREE_PJ
    draft.data["capabilities"] = wide_capabilities("MAESTRO", BITS, BITS, report, item.place)
    return draft


def axes_of(found: Maestro) -> dict[str, Any]:
    """Axes by level of the first layer, with the loops that any layer spreads there."""
    units = units_of(found.entries[0], found.pes)
    dims: list[list[str]] = [[] for _ in units]
    for entry in found.entries:
        try:
            spread = spatial_dims(entry)
        except SpecError:
            continue  # named with its dataflow
        for place, dim in zip(dims, spread, strict=False):
            name = "G" if entry.kind == "DSCONV" and dim == "C" else dim
            place += [name] if name not in place else []
    levels = enumerate(zip(units, dims, strict=True))
    return {AXIS.format(i): {"size": n, "dims": mine or ["N"]} for i, (n, mine) in levels if n > 1}


def capacity(item: Item | None, key: str, report: TranslationReport) -> int:
    """Bytes as bits; unlimited where none is given."""
    if item is None:
        report.approximated("hardware", key, "not given: 2^50 bits stand for unlimited")
        return UNSIZED_BITS
    report.approximated(item.place, key, "its unit is not stated there and it binds nothing: bytes, which bind here")
    return item.integer(key, 1, 2**40) * 8


def bandwidth(item: Item | None, key: str, report: TranslationReport) -> dict[str, Any]:
    """Elements per cycle as bits."""
    if item is None:
        return {}
    report.approximated(item.place, key, "elements of 8 bits per cycle, each way: its unit is not stated there")
    bits = item.integer(key, 1, 2**40) * BITS
    return {"read_bandwidth_bits_per_cycle": bits, "write_bandwidth_bits_per_cycle": bits}


def prices(size_bits: int | None) -> dict[str, float]:
    """Estimates of one byte."""
    pj = energy_laws.unstated_pj(None if size_bits == UNSIZED_BITS else size_bits, 8)
    return {"read_energy_pj": pj, "write_energy_pj": pj}
