"""ZigZag's hardware file as a machine: memories with ports and served dimensions, operational and in-memory arrays.

Memories come innermost first there. An array dimension that a memory does not serve stands above it here. Where two
memories stand at dimensions that do not nest, the inner one gets an instance per element and its energies are divided
by the elements that one of theirs serves: exact while all of these work, and named in the report.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwsim.machine.energy_laws import unstated_pj
from hwsim.machine.parts import OPERANDS, Operand
from hwsim.peers.draft import FREE_PJ, Draft, bare_name, free_vector, price_pj, wide_capabilities
from hwsim.peers.report import TranslationReport
from hwsim.peers.tagged_yaml import Item
from hwsim.peers.zigzag.mapping import LINKS, Choice, axis_loops

MEMORY_KEYS = ("size", "r_cost", "w_cost", "area", "latency", "mem_type", "auto_cost_extraction", "operands", "ports",
               "served_dimensions", "force_double_buffering")  # fmt: skip
ARRAY_KEYS = ("unit_energy", "unit_area", "multiplier_energy", "multiplier_area", "dimensions", "sizes",
              "input_precision", "is_imc", "imc_type", "adc_resolution", "bit_serial_precision",
              "systolic_dimensions")  # fmt: skip
# Up to 3.8 a memory had one width per direction, and named the port of each operand and way.
OLD_KEYS = ("r_bw", "w_bw", "r_port", "w_port", "rw_port", "min_r_granularity", "min_w_granularity")
PORT_KEYS = ("name", "type", "bandwidth_min", "bandwidth_max", "allocation")
TYPES = {"read": ("read",), "write": ("write",), "read_write": ("read", "write")}
WAYS = ("fh", "tl", "fl", "th")
MAX_ELEMENTS = 2**20
# ISAAC's 8-bit conversion (1.67 pJ, 32 nm), twice per further bit; 1 fJ per cell and phase.
ADC_PJ_AT_8_BITS, CELL_PJ_PER_PHASE = 1.67, 0.001
IMC_NODE_NM = 28.0


@dataclass(frozen=True)
class Port:
    """One port: directions, least and most bits per cycle, and (memory operand, way) pairs."""

    name: str
    directions: tuple[str, ...]
    least: int
    most: int
    uses: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Store:
    """One memory as it stands in the file."""

    name: str
    place: Item
    size_bits: int
    read_pj: float
    write_pj: float
    operands: tuple[Operand, ...]
    ports: tuple[Port, ...]
    served: frozenset[str]
    not_served: frozenset[str]
    estimated: bool

    def most(self, operand: str) -> int:
        """The widest port that an operand uses."""
        return max((p.most for p in self.ports if any(o == operand for o, _ in p.uses)), default=self.ports[0].most)


def read_hardware(tree: Item, choice: Choice, dims: dict[str, str], report: TranslationReport) -> Draft:
    """The draft of a spec; `choice` says what the array's dimensions may unroll."""
    keys = tree.keys("a ZigZag hardware file")
    for key, value in keys.items():
        if key not in ("name", "memories", "operational_array", "dataflows"):
            raise value.error(f"unknown key {key!r}; known: name, memories, operational_array, dataflows")
    for key in ("memories", "operational_array"):
        if key not in keys:
            raise tree.error(f"hardware: key {key!r} is missing")
    if "dataflows" in keys:
        report.none(keys["dataflows"].place, "dataflows", "an old form of the mapping file: give the mapping file")
    sizes = array_sizes(keys["operational_array"])
    links = choice.links or LINKS
    stores = [read_store(name, item, sizes, links, report) for name, item in keys["memories"].keys("memories").items()]
    stores = widened(stores, report)
    if not stores:
        raise keys["memories"].error("memories: expected at least one")
    name = keys["name"].text("name") if "name" in keys else Path(tree.file).stem
    draft = Draft(tree.file, {}, {})
    draft.data |= {
        "name": bare_name(name), "clock_mhz": 1000, "node_nm": IMC_NODE_NM, "static_power_mw": FREE_PJ,
        "source": f"ZigZag hardware {Path(tree.file).name}",
        "estimated": "clock and node are placeholders: ZigZag gives pJ and cycles; it has no leakage",
        "hierarchy": [],
    }  # fmt: skip
    report.none(tree.place, "clock", "ZigZag counts cycles: 1000 MHz stands for its clock")
    report.none(tree.place, "leakage", f"ZigZag has none: {FREE_PJ:g} mW")
    build_hierarchy(draft, list(reversed(stores)), sizes, choice, dims, report)
    mac = read_array(keys["operational_array"], sizes, report)
    draft.data["mac"] = mac
    draft.data["vector"] = free_vector("ZigZag", report, tree.place)
    report.none(tree.place, "Add and Pooling", "run on ZigZag's MAC array with weights of 0 bits, here on the vector "
                "unit: their MAC energy is missing here")  # fmt: skip
    draft.data["capabilities"] = wide_capabilities("ZigZag", mac["weight_bits"], mac["input_bits"], report, tree.place)
    drain = drain_cycles(keys["operational_array"], sizes, report)
    if drain:
        draft.data["layer_overhead_cycles"] = drain
    line = keys["operational_array"].line
    draft.lines |= {("mac",): line, **{("mac", key): line for key in mac}}
    return draft


def array_sizes(item: Item) -> dict[str, int]:
    """Extent of every array dimension."""
    keys = item.keys("operational_array")
    for key, value in keys.items():
        if key not in ARRAY_KEYS:
            raise value.error(f"operational_array: unknown key {key!r}; known: {', '.join(ARRAY_KEYS)}")
    for key in ("dimensions", "sizes"):
        if key not in keys:
            raise item.error(f"operational_array: key {key!r} is missing")
    names = [part.text("a dimension") for part in keys["dimensions"].items("dimensions")]
    sizes = [part.integer("a size", 1, MAX_ELEMENTS) for part in keys["sizes"].items("sizes")]
    if len(names) != len(sizes):
        raise keys["sizes"].error(f"sizes: expected {len(names)} for {', '.join(names)}, got {len(sizes)}")
    if len(set(names)) < len(names):
        raise keys["dimensions"].error("dimensions: expected each name once")
    if math.prod(sizes) > MAX_ELEMENTS:
        raise keys["sizes"].error(f"sizes: {math.prod(sizes):,} elements: expected at most {MAX_ELEMENTS:,}")
    return dict(zip(names, sizes, strict=True))


def drain_cycles(item: Item, sizes: dict[str, int], report: TranslationReport) -> int:
    """Cycles in which the last results leave a systolic array, once per layer: its extents less one, added up."""
    keys = item.keys("operational_array")
    names = [part.text("a dimension") for part in keys["systolic_dimensions"].items("systolic_dimensions")] \
        if "systolic_dimensions" in keys else []  # fmt: skip
    for name in names:
        if name not in sizes:
            raise keys["systolic_dimensions"].error(
                f"systolic_dimensions: no array dimension {name}; there are {', '.join(sizes)}"
            )
    cycles = sum(sizes[name] - 1 for name in dict.fromkeys(names))
    if cycles:
        text = f"{cycles} cycles per layer for the last results, those of a full array; theirs counts what a layer "
        report.approximated(item.place, "systolic_dimensions", text + "unrolls")
    return cycles


def widened(stores: Sequence[Store], report: TranslationReport) -> list[Store]:
    """Memories, innermost first, each serving at least what those inside it serve.

    A memory that feeds another one cannot have more copies than it: where a file says so, the report names it.
    """
    found: list[Store] = []
    for store in stores:
        more = frozenset[str]().union(*(inner.served for inner in found if set(inner.operands) & set(store.operands)))
        more -= store.served
        if more:
            text = f"does not serve {', '.join(sorted(more))}, which a memory inside it serves: one copy stands for all"
            report.approximated(store.place.place, f"{store.name}.served_dimensions", text)
        found.append(dataclasses.replace(store, served=store.served | more, not_served=store.not_served - more))
    return found


def read_store(
    name: str, item: Item, sizes: dict[str, int], links: dict[str, Operand], report: TranslationReport
) -> Store:
    """One memory. Raises SpecError."""
    keys = item.keys(f"memory {name}")
    for key, value in keys.items():
        if key not in (*MEMORY_KEYS, *OLD_KEYS):
            raise value.error(f"{name}: unknown key {key!r}; known: {', '.join(MEMORY_KEYS)}")
    for key in ("size", "operands", "ports", "served_dimensions"):
        if key not in keys:
            raise item.error(f"{name}: key {key!r} is missing")
    estimated = "auto_cost_extraction" in keys and keys["auto_cost_extraction"].flag("auto_cost_extraction")
    if not estimated:
        for key in ("r_cost", "w_cost"):
            if key not in keys:
                raise item.error(f"{name}: key {key!r} is missing (or auto_cost_extraction: true)")
    operands: list[Operand] = []
    for part in keys["operands"].items(f"{name}.operands"):
        word = part.text("an operand")
        if word not in links:
            raise part.error(f"{name}: unknown operand {word!r}; the mapping links {', '.join(links)}")
        operands.append(links[word])
    served = {part.text("a dimension") for part in keys["served_dimensions"].items(f"{name}.served_dimensions")}
    if served - sizes.keys():
        strange = ", ".join(sorted(served - sizes.keys()))
        raise keys["served_dimensions"].error(f"{name}: no array dimension {strange}; there are {', '.join(sizes)}")
    if "r_bw" in keys or "w_bw" in keys:
        ports = old_ports(name, item, keys)
        report.approximated(item.place, f"{name}.ports", "the form up to 3.8: one width for all ports of a direction")
    else:
        ports = tuple(read_port(name, part) for part in keys["ports"].items(f"{name}.ports"))
    if not ports:
        raise keys["ports"].error(f"{name}.ports: expected at least one port")
    for port in ports:
        for word in dict.fromkeys(operand for operand, _ in port.uses):
            if word not in links:
                raise keys["ports"].error(
                    f"{name}.ports: unknown operand {word!r}; the mapping links {', '.join(links)}"
                )
            if links[word] not in operands:
                report.none(item.place, f"{name}.{port.name}", f"{word} has a port, but is not held here")
    if "force_double_buffering" in keys and keys["force_double_buffering"].value:
        report.taken(item.place, f"{name}.force_double_buffering", "fills overlap compute here anyway")
    for key in ("latency", "mem_type"):
        if key in keys:
            report.none(item.file, key, "not used by ZigZag's cost model, nor here")
    return Store(
        name,
        item,
        keys["size"].integer(f"{name}.size"),
        0.0 if estimated else keys["r_cost"].number(f"{name}.r_cost", 0, 1e6),
        0.0 if estimated else keys["w_cost"].number(f"{name}.w_cost", 0, 1e6),
        tuple(o for o in OPERANDS if o in operands),
        ports,
        frozenset(served),
        frozenset(sizes.keys() - served),
        estimated,
    )


def old_ports(name: str, item: Item, keys: dict[str, Item]) -> tuple[Port, ...]:
    """Ports in the form up to 3.8: per operand a mapping of ways to port names, widths beside."""
    for key in ("r_bw", "w_bw"):
        if key not in keys:
            raise item.error(f"{name}: key {key!r} is missing")
    widths = {side: keys[f"{side[0]}_bw"].integer(f"{name}.{side[0]}_bw", 1, 2**20) for side in ("read", "write")}
    least = {
        side: keys[key].integer(f"{name}.{key}", 1, widths[side]) if key in keys else widths[side]
        for side, key in (("read", "min_r_granularity"), ("write", "min_w_granularity"))
    }
    operands = [part.text("an operand") for part in keys["operands"].items(f"{name}.operands")]
    entries = keys["ports"].items(f"{name}.ports")
    if len(entries) != len(operands):
        raise keys["ports"].error(f"{name}.ports: expected one entry per operand, {len(operands)}, got {len(entries)}")
    uses: dict[str, list[tuple[str, str]]] = {}
    for operand, entry in zip(operands, entries, strict=True):
        for way, port in entry.keys(f"{name}.ports").items():
            if way not in WAYS:
                raise port.error(f"{name}.ports: expected fh, tl, fl or th, got {way!r}")
            uses.setdefault(port.text("a port"), []).append((operand, way))
    found: list[Port] = []
    for port, used in uses.items():
        kind = {"rw": "read_write", "r_": "read", "w_": "write"}.get(port[:2])
        if kind is None:
            raise keys["ports"].error(f"{name}.ports: expected r_port_N, w_port_N or rw_port_N, got {port!r}")
        sides = TYPES[kind]
        found.append(Port(port, sides, min(least[s] for s in sides), max(widths[s] for s in sides), tuple(used)))
    return tuple(found)


def read_port(name: str, item: Item) -> Port:
    """One port of a memory."""
    keys = item.keys(f"{name}.ports")
    for key, value in keys.items():
        if key not in PORT_KEYS:
            raise value.error(f"{name}.ports: unknown key {key!r}; known: {', '.join(PORT_KEYS)}")
    for key in PORT_KEYS:
        if key not in keys:
            raise item.error(f"{name}.ports: key {key!r} is missing")
    kind = keys["type"].text("type")
    if kind not in TYPES:
        raise keys["type"].error(f"{name}.ports.type: expected one of {', '.join(TYPES)}, got {kind!r}")
    least = keys["bandwidth_min"].integer(f"{name}.bandwidth_min", 1, 2**20)
    most = keys["bandwidth_max"].integer(f"{name}.bandwidth_max", 1, 2**20)
    if least > most:
        raise keys["bandwidth_min"].error(f"{name}: bandwidth_min {least} is above bandwidth_max {most}")
    uses: list[tuple[str, str]] = []
    for part in keys["allocation"].items(f"{name}.allocation"):
        words = [word.strip() for word in part.text("an allocation").split(",")]
        if len(words) != 2 or words[1] not in WAYS:
            raise part.error(f"{name}.allocation: expected 'OPERAND, fh|tl|fl|th', got {part.value!r}")
        uses.append((words[0], words[1]))
    return Port(keys["name"].text("name"), TYPES[kind], least, most, tuple(uses))


def build_hierarchy(
    draft: Draft, stores: Sequence[Store], sizes: dict[str, int], choice: Choice, dims: dict[str, str],
    report: TranslationReport,
) -> None:  # fmt: skip
    """Memories outermost first with the arrays between them."""
    above: set[str] = set()
    backing_needed = set(stores[0].operands) != set(OPERANDS) or unequal(stores[0]) or bool(stores[0].not_served)
    if backing_needed:
        add_backing(draft, stores[0], report)
    for number, store in enumerate(nested(stores)):
        fresh = [axis for axis in sizes if axis in store.not_served - above]
        add_array(draft, fresh, sizes, choice, dims, store.place, report)
        above |= set(fresh)
        shared = math.prod(sizes[axis] for axis in above - store.not_served)
        if shared > 1:
            report.approximated(
                store.place.place, store.name,
                f"serves {shared} elements along {', '.join(sorted(above - store.not_served))}, which stand above "
                f"another memory: one instance per element at 1/{shared} of its energies, exact while all work",
            )  # fmt: skip
        outermost = number == 0 and not backing_needed
        for entry in entries(store, shared, outermost, report):
            draft.add_level(entry, store.place.line)
    add_array(draft, [axis for axis in sizes if axis not in above], sizes, choice, dims, stores[-1].place, report)


def unequal(store: Store) -> bool:
    """Whether the operands of a memory use ports of different widths, so that a bit costs differently."""
    return len({port.most for port in store.ports if port.uses}) > 1


def nested(stores: Sequence[Store]) -> list[Store]:
    """The memories in an order that keeps each operand's own and puts fewer copies further out."""
    left, found = list(stores), list[Store]()
    while left:
        ready = [s for i, s in enumerate(left) if not any(set(o.operands) & set(s.operands) for o in left[:i])]
        chosen = min(ready, key=lambda s: (len(s.not_served), left.index(s)))
        found.append(chosen)
        left.remove(chosen)
    return found


def add_array(
    draft: Draft, axes: Sequence[str], sizes: dict[str, int], choice: Choice, dims: dict[str, str], place: Item,
    report: TranslationReport,
) -> None:  # fmt: skip
    """One array of these dimensions; without any it is left out."""
    found: dict[str, Any] = {}
    for axis in axes:
        if sizes[axis] == 1:
            continue
        loops = axis_loops(choice, axis, dims, report)
        if not loops:
            report.none(choice.place, axis, "the mapping unrolls no loop of these layers here: N alone stays")
        found[axis] = {"size": sizes[axis], "dims": loops or ["N"]}
    if found:
        name = "array_" + "_".join(found)
        draft.add_level({"array": name, "axes": found, "source": f"array dimensions {', '.join(found)}"}, place.line)


def add_backing(draft: Draft, store: Store, report: TranslationReport) -> None:
    """Ours has one outermost memory for all operands; where theirs has none, a free one stands outside."""
    text = "no memory outside it holds every operand through equal ports: a free store stands outside, from which the "
    text += "first fills come and to which results drain"
    report.approximated(store.place.place, "backing_store", text)
    entry = {"memory": "backing_store", "size_bits": "unlimited", "keeps": list(OPERANDS), "word_bits": 64,
             "packing": "dense", "read_energy_pj": FREE_PJ, "write_energy_pj": FREE_PJ,
             "source": "not in the description: where data begin and end"}  # fmt: skip
    draft.add_level(entry, store.place.line)


def entries(store: Store, shared: int, outermost: bool, report: TranslationReport) -> list[dict[str, Any]]:
    """One memory, or one per operand where ports of different widths make a bit cost differently."""
    if not unequal(store) or len(store.operands) == 1:
        return [entry(store, store.name, store.operands, store.ports, shared, outermost, report)]
    text = "its operands use ports of different widths, so a bit costs differently: one memory per operand, each of "
    text += "the whole size (theirs share it)"
    report.approximated(store.place.place, store.name, text)
    back = {ours: theirs for theirs, ours in LINKS.items()}
    found: list[dict[str, Any]] = []
    for operand in store.operands:
        ports = tuple(p for p in store.ports if any(o == back[operand] for o, _ in p.uses))
        found.append(entry(store, f"{store.name}_{operand}", (operand,), ports or store.ports, shared, False, report))
    return found


def entry(
    store: Store,
    name: str,
    operands: Sequence[Operand],
    ports: Sequence[Port],
    shared: int,
    outermost: bool,
    report: TranslationReport,
) -> dict[str, Any]:
    """One memory. A price is that of the smallest access: cost * bandwidth_min / bandwidth_max."""
    least, most = min(p.least for p in ports), max(p.most for p in ports)
    place, share = store.place.place, least / most / shared
    written = any(way in ("fh", "fl") for p in ports for _, way in p.uses)
    read, write = store.read_pj * share, store.write_pj * share
    if store.estimated:
        from_size = estimate(store, least, shared)
        report.approximated(place, f"{name}.cost", f"auto_cost_extraction: {from_size:.4g} pJ, estimated here")
        read = write = from_size
    elif not written and not outermost:
        report.taken(place, f"{name}.write", "no port writes it: filling it is free")
        write = 0.0
    if outermost:
        report.approximated(place, f"{name}.size", f"its {store.size_bits:,} bits are not enforced: outermost here")
    # a register at one element moves one value at a time: an access each, however wide its port
    element_wise = not set(store.served)
    found: dict[str, Any] = {
        "memory": bare_name(name),
        "size_bits": "unlimited" if outermost else store.size_bits,
        "keeps": list(operands),
        "word_bits": least,
        "packing": "floor" if element_wise else "dense",
        "read_energy_pj": price_pj(read, place, f"{name}.r_cost", report),
        "write_energy_pj": price_pj(write, place, f"{name}.w_cost", report),
        **bandwidths(name, ports, place, report),
        "source": f"memory {store.name}",
    }
    if store.estimated:
        found["estimated"] = "prices by size"
    return found


def estimate(store: Store, word_bits: int, shared: int) -> float:
    """pJ per access where their tool would run CACTI."""
    return unstated_pj(store.size_bits, word_bits) / shared


def bandwidths(name: str, ports: Sequence[Port], place: str, report: TranslationReport) -> dict[str, Any]:
    """Ports of one direction are added up; a port for both directions is shared."""
    both = [p for p in ports if len(p.directions) == 2]
    reads, writes = (sum(p.most for p in ports if side in p.directions) for side in ("read", "write"))
    if len(ports) > 1 and any(len(p.uses) > 1 for p in ports):
        report.approximated(place, f"{name}.ports", "operands on one port take turns by whole cycles there; here their "
                            "bits are added")  # fmt: skip
    if both and len(both) == len(ports):
        return {"read_bandwidth_bits_per_cycle": reads, "shared_port": True}
    found: dict[str, Any] = {}
    if reads:
        found["read_bandwidth_bits_per_cycle"] = reads
    if writes:
        found["write_bandwidth_bits_per_cycle"] = writes
    return found


def read_array(item: Item, sizes: dict[str, int], report: TranslationReport) -> dict[str, Any]:
    """The operational array's unit as a fixed MAC, or an in-memory array's as `in_memory`."""
    keys = item.keys("operational_array")
    widths = [part.integer("input_precision", 1, 64) for part in keys["input_precision"].items("input_precision")] \
        if "input_precision" in keys else [8, 8]  # fmt: skip
    if len(widths) != 2:
        raise keys["input_precision"].error("input_precision: expected [activation bits, weight bits]")
    if "input_precision" not in keys:
        report.approximated(item.place, "input_precision", "not stated: 8 bits; unit_energy holds at any width there")
    base: dict[str, Any] = {"weight_bits": widths[1], "input_bits": widths[0], "accumulator_bits": 32}
    if "is_imc" in keys and keys["is_imc"].value:
        return in_memory(item, keys, base, sizes, report)
    if "multiplier_energy" in keys:  # its name up to 3.8
        keys = {**keys, "unit_energy": keys["multiplier_energy"]}
    if "unit_energy" not in keys:
        raise item.error("operational_array: key 'unit_energy' is missing")
    energy = keys["unit_energy"].number("unit_energy", 0, 1e6)
    latches = ["weight", "input"]
    report.taken(item.place, "unit", "inputs and weights that stay at the port are read once: latches here")
    return {"style": "fixed", **base, "energy_pj": price_pj(energy, item.place, "unit_energy", report),
            "latches": latches, "source": "operational_array"}  # fmt: skip


def in_memory(
    item: Item, keys: dict[str, Item], base: dict[str, Any], sizes: dict[str, int], report: TranslationReport
) -> dict[str, Any]:
    """Rows add up along D2, inputs come in phases; energies by our own model, never equal to theirs."""
    if "input_precision" not in keys:
        raise item.error("operational_array: an in-memory array needs input_precision")
    dac = keys["bit_serial_precision"].integer("bit_serial_precision", 1, 8) if "bit_serial_precision" in keys else 1
    names = list(sizes)
    rows = sizes[names[1]] if len(names) > 1 else sizes[names[0]]
    phases = -(-base["input_bits"] // dac)
    mac: dict[str, Any] = {"style": "in_memory", **base, "macs_per_cycle": 1 / phases,
                           "energy_pj": CELL_PJ_PER_PHASE * base["weight_bits"] * phases, "rows": rows,
                           "cell_bits": 1, "dac_bits": dac}  # fmt: skip
    kind = keys["imc_type"].text("imc_type") if "imc_type" in keys else "analog"
    bits = keys["adc_resolution"].integer("adc_resolution", 1, 24) if "adc_resolution" in keys else None
    if kind == "analog" and bits is not None:
        mac["adc_bits"] = bits
    adc_bits = bits if bits is not None else 8
    mac["adc_energy_pj"] = ADC_PJ_AT_8_BITS * 2.0 ** (adc_bits - 8) if kind == "analog" else CELL_PJ_PER_PHASE
    # narrower weights leave columns free: these take further output channels
    mac |= {
        "lanes": ["K"],
        "latches": ["weight", "input"],
        "source": "operational_array, is_imc",
        "estimated": "energies: 1 fJ per cell and phase, 1.67 pJ per 8-bit conversion (ISAAC), doubled per bit",
    }
    report.approximated(item.place, "is_imc", "energies come from our own in-memory model, cycles from its phases; "
                        "ZigZag's clock, cell and converter models have no counterpart")  # fmt: skip
    return mac
