"""SCALE-Sim v3: configurations and topologies as a systolic machine, a network of matrix products, and its mappings.

Convolutions are read as the products it makes of them (M output pixels, K taps, N filters): its rows take the
flattened taps, so the halo is paid as im2col duplicates. The mapping of each layer is its own dataflow: os, ws or is.
"""

from __future__ import annotations

import configparser
import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hwsim.errors import SpecError
from hwsim.machine import energy_laws
from hwsim.machine.parts import OPERANDS, Accelerator, Operand
from hwsim.nest.mapping import Hold, Node, Spatial, Temporal
from hwsim.nest.mapping import Mapping as Nest
from hwsim.network.layer import Layer, Loops, Tensor
from hwsim.network.workload import Workload
from hwsim.peers.draft import FREE_PJ, Draft, bare_name, free_vector, wide_capabilities
from hwsim.peers.report import TranslationReport
from hwsim.peers.tagged_yaml import Item, read_text

Flow = Literal["os", "ws", "is"]
# held operand, loop on the rows, loop on the columns, loop that streams through: M is P, N is K, K is C
FLOWS: dict[Flow, tuple[Operand, str, str, str]] = {
    "os": ("output", "P", "K", "C"), "ws": ("weight", "C", "K", "P"), "is": ("input", "C", "P", "K"),
}  # fmt: skip
WORD_BITS, SUM_BITS = 8, 32
SRAMS: dict[str, tuple[str, Operand]] = {
    "ifmapsramszkb": ("ifmap_sram", "input"), "filtersramszkb": ("filter_sram", "weight"),
    "ofmapsramszkb": ("ofmap_sram", "output"),
}  # fmt: skip
IGNORED = ("ifmapoffset", "filteroffset", "ofmapoffset", "memorybanks", "onchipmemorybanks", "onchipmemorybankports",
           "readrequestbuffer", "writerequestbuffer")  # fmt: skip
MAX_ROWS, MAX_SIZE = 100_000, 2**30
# Options with a meaning here, by section; others are named in the report. [layout] and [sparsity] are told as a whole.
READ = {
    "general": ("run_name",),
    "architecture_presets": ("arrayheight", "arraywidth", "dataflow", "bandwidth", *SRAMS, *IGNORED),
    "run_presets": ("interfacebandwidth", "useramulatortrace"),
}
WHOLE = ("layout", "sparsity")
BANKS = ("ifmapsrambankbandwidth", "filtersrambankbandwidth")
OFF = ("false", "no", "off", "0", "none", "")
SPARSE = re.compile(r"(\d+):(\d+)")


@dataclass(frozen=True)
class Product:
    """One matrix product: (m x k) times (k x n)."""

    name: str
    m: int
    k: int
    n: int


@dataclass
class ScaleSim:
    """Everything that the files said."""

    report: TranslationReport
    draft: Draft | None = None
    rows: int = 0
    columns: int = 0
    flow: Flow = "os"
    products: list[Product] = field(default_factory=list[Product])
    workload: Workload | None = None

    def machine(self) -> Accelerator:
        """The machine. Raises SpecError where it is none."""
        assert self.draft is not None
        return self.draft.machine(self.report)

    def mappings(self, machine: Accelerator) -> dict[str, Nest]:
        """Its own dataflow for every layer."""
        assert self.workload is not None
        return {layer.name: own_mapping(layer, machine, self.flow) for layer in self.workload.layers}


def closed_form(product: Product, rows: int, columns: int, flow: Flow) -> int:
    """Cycles of one product: folds times (streamed length + fill and drain). Its reports print one less.

    os ceil(M/R) ceil(N/C) (K + R + C - 2), ws ceil(K/R) ceil(N/C) (M + 2R + C - 2), is ceil(K/R) ceil(M/C) (N + 2R + C
    - 2).

    >>> closed_form(Product("", 256, 256, 128), 32, 32, "ws") - 1
    11199
    """
    size = {"P": product.m, "C": product.k, "K": product.n}
    _, row, column, stream = FLOWS[flow]
    waiting = rows if flow == "os" else 2 * rows
    return math.ceil(size[row] / rows) * math.ceil(size[column] / columns) * (size[stream] + waiting + columns - 2)


def read_scalesim(paths: Sequence[Path]) -> ScaleSim:
    """A configuration, a topology, or both. Raises SpecError with file and line."""
    found = ScaleSim(TranslationReport())
    for path in paths:
        text = read_text(path)
        if path.suffix.lower() == ".csv":
            if found.products:
                raise SpecError(f"{path}:1: a second topology: give one")
            found.products = read_topology(text, str(path), found.report)
            name = bare_name(path.stem, "network")
            found.workload = Workload(name, [as_layer(product) for product in found.products])
        else:
            if found.draft is not None:
                raise SpecError(f"{path}:1: a second configuration: give one")
            read_config(text, str(path), found)
    return found


# --- configuration ----------------------------------------------------------------------------------------------------


class Config:
    """Sections and options with their lines; names without case."""

    def __init__(self, text: str, file: str) -> None:
        self.file = file
        self.lines: dict[tuple[str, str], int] = {}
        parser = configparser.RawConfigParser(strict=True)
        try:
            parser.read_string(text)
        except configparser.Error as problem:
            wrong = getattr(problem, "errors", None)
            if wrong:  # lines that are neither a section nor an option
                raise SpecError(
                    f"{file}:{wrong[0][0]}: expected an option and its value, got {wrong[0][1].strip()}"
                ) from None
            line = getattr(problem, "lineno", None) or 1
            raise SpecError(f"{file}:{line}: not a SCALE-Sim configuration: {str(problem).splitlines()[0]}") from None
        self.sections = {name.lower(): dict(parser[name]) for name in parser.sections()}
        section = ""
        for number, line in enumerate(text.splitlines(), 1):
            if match := re.match(r"\s*\[([^\]]+)\]", line):
                section = match[1].lower()
                self.lines[section, ""] = number
            elif match := re.match(r"\s*([^:=\s]+)\s*[:=]", line):
                self.lines[section, match[1].lower()] = number

    def item(self, section: str, option: str) -> Item:
        """An option with its place. Raises SpecError where it is missing."""
        if option not in self.sections.get(section, {}):
            line = self.lines.get((section, ""), 1)
            raise SpecError(f"{self.file}:{line}: [{section}] {option}: missing option")
        text = self.sections[section][option].strip()
        line = self.lines.get((section, option), 1)
        value: Any = int(text) if re.fullmatch(r"-?\d{1,12}", text) else text
        return Item(value, self.file, line)

    def has(self, section: str, option: str) -> bool:
        """Whether an option is there."""
        return option in self.sections.get(section, {})

    def text(self, section: str, option: str, default: str) -> str:
        """An option's text in lower case."""
        return str(self.item(section, option).value).lower() if self.has(section, option) else default


def read_config(text: str, file: str, found: ScaleSim) -> None:
    """The machine of a configuration."""
    config, report = Config(text, file), found.report
    if "architecture_presets" not in config.sections:
        raise SpecError(f"{file}:1: section [architecture_presets] is missing")
    arch = "architecture_presets"
    found.rows = config.item(arch, "arrayheight").integer("ArrayHeight", 1, 2**20)
    found.columns = config.item(arch, "arraywidth").integer("ArrayWidth", 1, 2**20)
    if found.rows * found.columns > 2**24:
        raise config.item(arch, "arraywidth").error(f"{found.rows} x {found.columns} elements: expected at most 2^24")
    flow_item = config.item(arch, "dataflow")
    flow = str(flow_item.value).lower()
    if flow not in FLOWS:
        raise flow_item.error(f"Dataflow: expected os, ws or is, got {flow_item.value!r} (SCALE-Sim would take os)")
    found.flow = flow
    refuse_switched_on(config, report)
    sizes = {option: config.item(arch, option).integer(option, 1, 2**22) for option in SRAMS}
    for option in IGNORED:
        if config.has(arch, option):
            report.none(config.item(arch, option).place, option, "no part of this cost model")
    name_unread(config, report)
    bandwidth = interface_bits(config, report)
    found.draft = draft_of(config, found, sizes, bandwidth)


def name_unread(config: Config, report: TranslationReport) -> None:
    """Every option that nothing here reads."""
    for section, options in config.sections.items():
        for option in options:
            if section not in WHOLE and option not in READ.get(section, ()):
                report.none(config.item(section, option).place, f"[{section}] {option}", "is not read here")


def refuse_switched_on(config: Config, report: TranslationReport) -> None:
    """Sparsity, custom layouts and the DRAM simulator change results: refused where they are on."""
    switches = [("sparsity", "sparsitysupport"), ("layout", "ifmapcustomlayout"), ("layout", "filtercustomlayout"),
                ("run_presets", "useramulatortrace")]  # fmt: skip
    for section, option in switches:
        if config.text(section, option, "false") not in OFF:
            raise config.item(section, option).error(f"{option}: has no counterpart: set it to false")
    for section in WHOLE:
        state = "switched off" if section in config.sections else "absent (its v3 would refuse the file)"
        report.none(f"{config.file}:{config.lines.get((section, ''), 1)}", f"[{section}]", state)


def interface_bits(config: Config, report: TranslationReport) -> tuple[int, int] | None:
    """Bits per cycle out of the outermost memory and into it; None where bandwidth is as demanded.

    Its v3 reads inputs and weights at the bank bandwidths of [layout], one interface each, where that section stands.
    """
    mode = config.text("run_presets", "interfacebandwidth", "calc")
    if mode not in ("user", "calc"):
        raise config.item("run_presets", "interfacebandwidth").error(
            f"InterfaceBandwidth: expected USER or CALC, got {mode!r}"
        )
    if mode != "user":
        report.taken(config.file, "InterfaceBandwidth", "CALC: as demanded, so no limit")
        return None
    item = config.item("architecture_presets", "bandwidth")
    words = [part.strip() for part in str(item.value).split(",") if part.strip()]
    if not words or not all(word.isdecimal() and 0 < int(word) < 2**20 for word in words):
        raise item.error(f"Bandwidth: expected whole numbers above 0, got {item.value!r}")
    if len(set(words)) > 1:
        report.approximated(item.place, "Bandwidth", f"{', '.join(words)} words: it takes the first, too")
    banks = [config.item("layout", key).integer(key, 1, 2**20) for key in BANKS if config.has("layout", key)]
    reads = min(banks, default=int(words[0]))
    source = "IfmapSRAMBankBandwidth and FilterSRAMBankBandwidth, as its v3 does" if banks else "Bandwidth"
    text = f"USER: inputs and weights share a port of {reads} words of 8 bits per cycle, by {source}"
    report.approximated(item.place, "Bandwidth", f"{text}; each has its own there. Outputs: {words[0]} words")
    return reads * WORD_BITS, int(words[0]) * WORD_BITS


def draft_of(config: Config, found: ScaleSim, sizes: Mapping[str, int], bandwidth: tuple[int, int] | None) -> Draft:
    """The spec's keys."""
    report, file = found.report, config.file
    held, row, column, _ = FLOWS[found.flow]
    name = config.sections.get("general", {}).get("run_name", Path(file).stem)
    line = config.lines.get(("architecture_presets", ""), 1)
    place = f"{file}:{line}"
    draft = Draft(file, {}, {})
    draft.data |= {
        "name": bare_name(name.strip("'\" ")), "clock_mhz": 1000, "node_nm": 45,
        "source": f"SCALE-Sim configuration {Path(file).name}",
        "estimated": "clock, node and energies: SCALE-Sim counts cycles of words of 8 bits", "hierarchy": [],
    }  # fmt: skip
    for subject, text in (("energies", energy_laws.UNSTATED), ("clock", "1000 MHz"), ("precision", "words of 8 bits")):
        report.approximated(place, subject, f"SCALE-Sim states none: {text}")
    outer: dict[str, Any] = {
        "memory": "dram", "size_bits": "unlimited", "keeps": list(OPERANDS), "word_bits": 8, "packing": "padded",
        "read_energy_pj": energy_laws.unstated_pj(None, 8), "write_energy_pj": energy_laws.unstated_pj(None, 8),
    }  # fmt: skip
    if bandwidth:
        outer |= {"read_bandwidth_bits_per_cycle": bandwidth[0], "write_bandwidth_bits_per_cycle": bandwidth[1]}
    draft.add_level(outer | {"source": "interface", "estimated": "price"}, line)
    for option, (memory, operand) in SRAMS.items():
        bits = sizes[option] * 8192 // 2
        report.taken(place, option, f"half of it is the active part: {bits:,} bits")
        pj = energy_laws.unstated_pj(bits, 8)
        draft.add_level(
            {"memory": memory, "size_bits": bits, "keeps": [operand], "bypass": [operand], "word_bits": 8,
             "packing": "padded", "read_energy_pj": pj, "write_energy_pj": pj, "source": option, "estimated": "price"},
            config.item("architecture_presets", option).line,
        )  # fmt: skip
    axes = {"rows": {"size": found.rows, "dims": [row]}, "columns": {"size": found.columns, "dims": [column]}}
    draft.add_level({"array": "array", "axes": axes, "systolic": True, "source": f"dataflow {found.flow}"}, line)
    register = SUM_BITS if held == "output" else WORD_BITS
    pj = energy_laws.unstated_pj(register, 8)
    draft.add_level(
        {"memory": "register", "size_bits": register, "keeps": [held], "word_bits": 8, "packing": "padded",
         "read_energy_pj": pj, "write_energy_pj": pj, "double_buffered": False, "source": "what stays in an element",
         "estimated": "price"}, line,
    )  # fmt: skip
    draft.data["mac"] = {
        "style": "fixed", "weight_bits": 8, "input_bits": 8, "accumulator_bits": SUM_BITS,
        "energy_pj": energy_laws.mac_pj(8, 8)[0], "latches": [held], "source": "an element",
        "estimated": "price and widths",
    }  # fmt: skip
    draft.data["vector"] = free_vector("SCALE-Sim", report, place)
    draft.data["vector"]["energy_pj_per_op"] = FREE_PJ
    draft.data["capabilities"] = wide_capabilities("SCALE-Sim", 8, 8, report, place)
    return draft


# --- topology ---------------------------------------------------------------------------------------------------------


def read_topology(text: str, file: str, report: TranslationReport) -> list[Product]:
    """The matrix products of a topology; its kind is told by the header."""
    reader = csv.reader(io.StringIO(text))
    try:
        rows = list(reader)
    except csv.Error as problem:
        raise SpecError(f"{file}:{reader.line_num}: not a table of commas: {problem}") from None
    if len(rows) > MAX_ROWS:
        raise SpecError(f"{file}:{MAX_ROWS}: more than {MAX_ROWS:,} rows")
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    gemm = header[1:4] == ["m", "n", "k"]
    if not gemm and (len(header) < 8 or "filter" not in " ".join(header)):
        raise SpecError(f"{file}:1: expected a header 'Layer, M, N, K,' or 'Layer name, IFMAP Height, ...'")
    found: list[Product] = []
    for number, cells in enumerate(rows[1:], 2):
        row = [cell.strip() for cell in cells]
        if not any(row):
            continue
        found += gemm_row(row, file, number, report) if gemm else conv_row(row, file, number, report)
    if not found:
        raise SpecError(f"{file}:1: no layer below the header")
    if len(found) > MAX_ROWS:
        raise SpecError(f"{file}:1: {len(found):,} products: expected at most {MAX_ROWS:,}")
    return distinct(found)


def distinct(products: Sequence[Product]) -> list[Product]:
    """Names made unique."""
    seen: dict[str, int] = {}
    found: list[Product] = []
    for product in products:
        seen[product.name] = seen.get(product.name, 0) + 1
        name = product.name if seen[product.name] == 1 else f"{product.name}_{seen[product.name]}"
        found.append(Product(name, product.m, product.k, product.n))
    return found


def integers(row: Sequence[str], file: str, line: int, least: int, most: int) -> list[int]:
    """The numbers behind the name, positive; a trailing comma leaves an empty cell, a sparsity ends them."""
    cells = list(row[1:])
    while cells and not cells[-1]:
        cells.pop()
    if len(cells) > least and ":" in cells[-1]:
        dense(cells.pop(), file, line)
    if not least <= len(cells) <= most:
        counts = f"{least} or {most}"
        raise SpecError(f"{file}:{line}: expected a name and {counts} numbers, got {len(cells)} after the name")
    for cell in cells:
        if not cell.isdecimal() or not 0 < int(cell) <= MAX_SIZE:
            raise SpecError(f"{file}:{line}: expected whole numbers from 1 to {MAX_SIZE:,}, got {cell!r}")
    return [int(cell) for cell in cells]


def dense(cell: str, file: str, line: int) -> None:
    """Refuse sparsity other than 1:1."""
    match = SPARSE.fullmatch(cell)
    if match is None:
        raise SpecError(f"{file}:{line}: expected a sparsity N:M such as 1:1, got {cell!r}")
    if match[1] != match[2]:
        text = "no machine here skips weights; 1:1 prices the dense layer"
        raise SpecError(f"{file}:{line}: sparsity {cell} has no counterpart: {text}")


def gemm_row(row: Sequence[str], file: str, line: int, report: TranslationReport) -> list[Product]:
    """`name, M, N, K,` with a batch behind them in newer files: as many products of their own operands."""
    m, n, k, batch = (*integers(row, file, line, 3, 4), 1)[:4]
    name = bare_name(row[0], "layer")
    if batch == 1:
        return [Product(name, m, k, n)]
    if batch > MAX_ROWS:
        raise SpecError(f"{file}:{line}: a batch of {batch:,} products: expected at most {MAX_ROWS:,}")
    report.taken(f"{file}:{line}", name, f"a batch of {batch} products, each with operands of its own")
    return [Product(f"{name}_{number}", m, k, n) for number in range(batch)]


def conv_row(row: Sequence[str], file: str, line: int, report: TranslationReport) -> list[Product]:
    """`name, ifmap h, w, filter h, w, channels, filters, stride,` as one product, or one per channel for DP names.

    A second stride is that of the columns, as the files that SCALE-Sim itself writes have it.
    """
    name = bare_name(row[0], "layer")
    high, wide, r, s, channels, filters, *strides = integers(row, file, line, 7, 8)
    down, across = strides[0], strides[-1]
    if r > high or s > wide:
        raise SpecError(f"{file}:{line}: a filter of {r} x {s} above an input of {high} x {wide}")
    p, q = math.ceil((high - r + down) / down), math.ceil((wide - s + across) / across)
    if (high - r) % down or (wide - s) % across:
        text = f"outputs are rounded up to {p} x {q}: the last windows read beyond the {high} x {wide} input"
        report.approximated(f"{file}:{line}", name, text)
    if "DP" in row[0]:
        report.taken(f"{file}:{line}", name, f"DP in its name: {channels} products, one per channel")
        return [Product(f"{name}_{channel}", p * q, r * s, filters) for channel in range(channels)]
    if filters == 1 and channels > 1:
        text = "one filter sums over all channels; a depthwise layer needs DP in its name. Read as written"
        report.approximated(f"{file}:{line}", name, text)
    return [Product(name, p * q, r * s * channels, filters)]


def as_layer(product: Product) -> Layer:
    """A product as a 1x1 convolution: M rows of outputs, K input channels, N output channels."""
    m, k, n = product.m, product.k, product.n
    return Layer(
        name=product.name,
        op="conv",
        inputs=(Tensor(f"{product.name}.input", (1, k, m, 1), WORD_BITS),),
        output=Tensor(f"{product.name}.output", (1, n, m, 1), WORD_BITS),
        weight=Tensor(f"{product.name}.weight", (n, k, 1, 1), WORD_BITS),
        loops=Loops(K=n, C=k, P=m),
        accumulator_bits=SUM_BITS,
    )


# --- mapping ----------------------------------------------------------------------------------------------------------


def own_mapping(layer: Layer, machine: Accelerator, flow: Flow) -> Nest:
    """Its folds one after another: rows and columns unrolled, one operand stays, the third loop streams through.

    An SRAM holds what one fold uses, where that fits its active half; otherwise the operand streams past it.
    """
    held, row, column, stream = FLOWS[flow]
    bounds = layer.loops.as_dict()
    axes = {axis.name: axis.size for axis in machine.arrays[0].axes}
    used = {row: min(axes["rows"], bounds[row]), column: min(axes["columns"], bounds[column])}
    folds: list[Node] = [Temporal(dim, math.ceil(bounds[dim] / used[dim])) for dim in (row, column)]
    inside: list[Node] = [
        Spatial(row, used[row], "array", "rows"),
        Spatial(column, used[column], "array", "columns"),
        Hold("register", (held,)),
        Temporal(stream, bounds[stream]),
    ]
    extent = {**used, stream: bounds[stream]}
    holds: list[Node] = []
    for memory in machine.memories[1:4]:
        operand = memory.keeps[0]
        dims = {"weight": ("K", "C"), "input": ("P", "C"), "output": ("P", "K")}[operand]
        elements = math.prod(extent[dim] for dim in dims)
        bits = elements * (SUM_BITS if operand == "output" else WORD_BITS)
        if memory.size_bits is not None and bits <= memory.size_bits:
            holds.append(Hold(memory.name, (operand,)))
    nodes = [Hold("dram", OPERANDS), *folds, *holds, *inside]
    return Nest(tuple(node for node in nodes if isinstance(node, Hold) or node.factor > 1))
