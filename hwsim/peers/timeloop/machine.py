"""A chain of Timeloop levels as a machine of ours: sizes, words, ports, prices, and what each memory keeps."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hwsim.machine import energy_laws
from hwsim.machine.parts import OPERANDS, Operand
from hwsim.peers.accelergy import Prices
from hwsim.peers.draft import FREE_PJ, Draft, bare_name, free_vector, price_pj, wide_capabilities
from hwsim.peers.report import TranslationReport
from hwsim.peers.tagged_yaml import Item
from hwsim.peers.timeloop.architecture import Chain, Level, split
from hwsim.peers.timeloop.rules import AXES, Rules, spatial_dims, where
from hwsim.peers.timeloop.schedule import add_schedule

UNSIZED_BITS = 2**50
NODE = re.compile(r"(\d+(?:\.\d+)?)\s*nm", re.IGNORECASE)
UNKNOWN_NODE_NM = 45.0
GENERIC = ("arch", "architecture", "parsed-processed-input", "input", "top", "timeloop")
HARMLESS = (
    "n_banks", "n_ports", "n_rdwr_ports", "n_rw_ports", "type", "update_fifo_depth", "has_power_gating",
    "power_gated_at", "reduction_supported", "tile_partition_supported", "version",
)  # fmt: skip
# Words of several versions for one key; the last of each is that of Accelergy's buffers with metadata.
DEPTHS = ("depth", "memory_depth", "data_storage_depth")
WIDTHS = ("width", "memory_width", "data_storage_width")
READ = (
    *DEPTHS, *WIDTHS, "datawidth", "word_bits", "word_width", "block_size", "n_words",
    "cluster_size", "entries", "sizeKB", "read_bandwidth", "write_bandwidth", "shared_bandwidth", "bandwidth",
    "multiple_buffering", "min_utilization", "technology", "global_cycle_seconds", "network_fill_latency",
    "network_drain_latency", "instances", "meshX", "meshY", *HARMLESS,
)  # fmt: skip
MAC_READ = ("multiplier_width", "adder_width", *READ)
REFUSED = {  # key -> the value that does no harm
    "allow_overbooking": False, "per_dataspace_bandwidth_consumption_scale": None,}  # fmt: skip


def read_machine(
    chain: Chain,
    rules: Mapping[str, Rules],
    operands: Mapping[str, Operand],
    dims: Mapping[str, str],
    prices: Prices,
    report: TranslationReport,
) -> Draft:
    """The draft of a spec. `operands` and `dims`: their names -> ours."""
    file = split(chain.place)[0]
    draft = Draft(file, {}, {})
    mac_line = chain.compute.line
    name_unused(chain, report)
    outermost = chain.storages[0]
    latched = latches(chain, rules, operands, prices)
    period_s = chain.compute.scope.number("global_cycle_seconds", None, 1e-15)
    if period_s is None:
        report.approximated(chain.place, "clock", "no global_cycle_seconds: 1 ns")
    period_s = period_s or 1e-9
    draft.data |= {
        "name": name_of(file), "clock_mhz": round(1e-6 / period_s, 6), "node_nm": node_nm(chain, report),
        "source": f"Timeloop description {Path(file).name}",
    }  # fmt: skip
    draft.data["hierarchy"] = []
    copies = 1
    leak_pj = 0.0
    for level in chain.levels:
        if level.kind == "fanout" and level.x * level.y > 1:
            copies *= level.x * level.y
            add_array(draft, level, rules[level.name], dims, report)
        elif level.name in latched:
            report.taken(level.place, level.name, "one element without a price at the MAC: a latch")
        elif level.kind == "storage":
            entry = memory(level, rules[level.name], operands, level is outermost, prices, report)
            if entry is None:
                report.none(level.place, level.name, "every data space bypasses it, so it is left out")
                continue
            leak_pj += copies * prices.of(level.name).get("leak", 0.0)
            draft.add_level(entry, level.line)
    if prices.energies_pj:
        draft.data["static_power_mw"] = max(leak_pj / period_s * 1e-9, FREE_PJ)
        report.taken(chain.place, "leakage", f"{leak_pj:g} pJ per cycle of all instances, as static power")
    for name in sorted(prices.energies_pj.keys() - {level.name for level in chain.levels}):
        report.none(prices.places[name], f"{name}.energy", "a table of no component that is read here")
    for name in sorted(prices.areas_um2.keys() - prices.energies_pj.keys() - {level.name for level in chain.levels}):
        report.none(prices.places[name], f"{name}.area", "a table of no component that is read here")
    mac = read_mac(chain, rules, operands, prices, report)
    if latched:
        mac["latches"] = [operand for operand in OPERANDS if operand in latched.values()]
    draft.data |= {
        "mac": mac,
        "vector": free_vector("Timeloop", report, chain.place),
        "capabilities": wide_capabilities("Timeloop", mac["weight_bits"], mac["input_bits"], report, chain.place),
    }
    draft.lines |= {("mac",): mac_line, **{("mac", key): mac_line for key in mac}}
    last = ("hierarchy", "mac", "vector", "capabilities")
    draft.data = {k: v for k, v in draft.data.items() if k not in last} | {k: draft.data[k] for k in last}
    waiting(chain, draft, report)
    add_schedule(draft, chain, rules, operands, dims, report)
    return draft


def latches(
    chain: Chain, rules: Mapping[str, Rules], operands: Mapping[str, Operand], prices: Prices
) -> dict[str, Operand]:
    """Storages that are no more than a MAC's registers: at the MAC, of one element, of one operand, without a price."""
    found: dict[str, Operand] = {}
    for level in reversed(chain.levels[1:-1]):
        if level.kind == "dummy":
            continue
        table = prices.of(level.name)
        keeps, bypass = kept(level, rules[level.name], operands, False)
        small = level.kind == "storage" and level.scope.first(*DEPTHS) == 1
        block = small and level.scope.first(*WIDTHS) == level.scope.data_bits
        free = bool(table) and not any(table.values())
        if not (block and free and len(keeps) == 1 and not bypass):
            break
        found[level.name] = keeps[0]
    return found


def name_of(file: str) -> str:
    """The file's name, or its folder's where the file's says nothing."""
    path = Path(file.removesuffix(" (rendered)"))
    stem = path.name.split(".")[0]
    generic = stem.lower() in GENERIC
    return bare_name(path.resolve().parent.name if generic else stem)


def node_nm(chain: Chain, report: TranslationReport) -> float:
    """The technology of the innermost level that states one."""
    for level in reversed(chain.levels):
        item = level.scope.item("technology")
        if item is None or not isinstance(item.value, str):
            continue
        match = NODE.search(technology_of(level, item))
        if match and 0 < float(match[1]) <= 500:
            return float(match[1])
        if level.kind != "dummy" and item.value in ("SET ME", "must_specify"):
            raise item.error(f"technology: {item.value!r} is a place-holder: give the node, such as 45nm")
    report.approximated(chain.place, "technology", f"no node is stated: {UNKNOWN_NODE_NM:g} nm for areas and leakage")
    return UNKNOWN_NODE_NM


def technology_of(level: Level, item: Item) -> str:
    """The text of a technology, which may be the name of a variable."""
    text = str(item.value)
    if not item.quoted and text.isidentifier() and not NODE.search(text) and text in level.scope:
        return str(level.scope[text])
    return text


def add_array(draft: Draft, level: Level, rules: Rules, dims: Mapping[str, str], report: TranslationReport) -> None:
    """A fan-out as an array; an axis on which nothing may be unrolled keeps its size and takes no loop above 1."""
    along = spatial_dims(level, rules, dims)
    axes: dict[str, Any] = {}
    for name, size, found in ((AXES[0], level.x, along[0]), (AXES[1], level.y, along[1])):
        if size == 1:
            continue
        ours = [dims[dim] for dim in found]
        if not ours:
            report.approximated(level.place, f"{level.name}.{name}", "no loop may be unrolled here: N alone stays")
            ours = ["N"]
        axes[name] = {"size": size, "dims": list(dict.fromkeys(ours))}
    draft.add_level({"array": bare_name(level.name), "axes": axes, "source": where(level)}, level.line)


def memory(
    level: Level,
    rules: Rules,
    operands: Mapping[str, Operand],
    outermost: bool,
    prices: Prices,
    report: TranslationReport,
) -> dict[str, Any] | None:
    """A storage as a memory; None where it keeps nothing."""
    keeps, bypass = kept(level, rules, operands, outermost)
    if not keeps:
        return None
    scope = level.scope
    check_attributes(level, report)
    data_bits = scope.data_bits
    if data_bits is None:
        raise at(level).error(f"{level.name}: datawidth is missing: the width of one element in bits")
    word_bits = word_width(level, data_bits)
    block = word_bits // data_bits
    size = size_bits(level, data_bits, word_bits, outermost, report)
    entry: dict[str, Any] = {
        "memory": bare_name(level.name), "size_bits": "unlimited" if size is None else size, "keeps": keeps,
    }  # fmt: skip
    if bypass:
        entry["bypass"] = bypass
    entry["word_bits"] = word_bits
    entry["packing"] = "padded" if block == 1 else "dense"
    if block > 1:
        text = f"words of {block} elements: exact at {data_bits} bits; other widths are packed by bits here"
        report.taken(level.place, f"{level.name}.width", text)
    entry |= energies(level, size, word_bits, keeps, prices, report)
    entry |= bandwidths(level, data_bits, report)
    if prices.areas_um2.get(level.name):
        entry["area_mm2"] = prices.areas_um2[level.name] / 1e6
    entry["source"] = where(level)
    if level.name not in prices.energies_pj:
        entry["estimated"] = f"prices: {energy_laws.UNSTATED}"
    return entry


def at(level: Level) -> Item:
    """An item to raise errors at a level."""
    return Item(None, *split(level.place))


def kept(
    level: Level, rules: Rules, operands: Mapping[str, Operand], outermost: bool
) -> tuple[list[Operand], list[Operand]]:
    """(keeps, bypass): what is constrained is fixed, what is not may be held or bypassed; outermost keeps all."""
    if outermost:
        return list(OPERANDS), []
    forced = {operands[name] for name in rules.keep}
    barred = {operands[name] for name in rules.bypass}
    if level.parallel and forced:
        barred |= set(OPERANDS) - forced
    keeps: list[Operand] = [operand for operand in OPERANDS if operand not in barred]
    return keeps, [operand for operand in keeps if operand not in forced]


def word_width(level: Level, data_bits: int) -> int:
    """Bits of one vector access."""
    scope = level.scope
    cluster = scope.whole("cluster_size", 1) or 1
    blocks = scope.whole("block_size") or scope.whole("n_words") or 1
    width = scope.first(*WIDTHS) or data_bits * blocks * cluster
    if cluster > 1:
        raise at(level).error(f"{level.name}: cluster_size {cluster} has no counterpart")
    if width % data_bits:
        raise at(level).error(f"{level.name}: width {width} is no multiple of datawidth {data_bits}")
    return width


def size_bits(level: Level, data_bits: int, word_bits: int, outermost: bool, report: TranslationReport) -> int | None:
    """Capacity for tiles; None for the outermost level."""
    scope = level.scope
    depth, entries, kilobytes = scope.first(*DEPTHS), scope.whole("entries"), scope.number("sizeKB")
    buffers = scope.number("multiple_buffering", 1, 1.0) or 1
    if depth is not None:
        size = depth * word_bits
    elif entries is not None:
        size = entries * data_bits
    elif kilobytes:
        size = int(kilobytes * 8192)
    else:
        size = None
    if size is not None:
        size = int(size // data_bits // buffers) * data_bits
        if buffers > 1:
            report.taken(level.place, f"{level.name}.multiple_buffering", f"capacity divided by {buffers:g}")
        if size < 1:
            raise at(level).error(f"{level.name}: its capacity is below one element")
    if outermost:
        if size is not None:
            text = f"its {size:,} bits are not enforced: the outermost memory holds everything here"
            report.approximated(level.place, f"{level.name}.size", text)
        return None
    if size is None:
        report.approximated(level.place, f"{level.name}.size", "no size is stated: 2^50 bits stand for unlimited")
        return UNSIZED_BITS
    return size


def energies(
    level: Level, size: int | None, word_bits: int, keeps: list[Operand], prices: Prices, report: TranslationReport
) -> dict[str, float]:
    """Prices of a word: the table's, else estimates. Ours has one price to write, theirs two."""
    table, name = prices.of(level.name), level.name
    if not table:
        estimate = energy_laws.unstated_pj(None if size == UNSIZED_BITS else size, word_bits)
        report.approximated(
            level.place, f"{name}.energy", f"no energy table: {estimate:.4g} pJ, {energy_laws.UNSTATED}"
        )
        return {"read_energy_pj": estimate, "write_energy_pj": estimate}
    if "read" not in table:
        report.approximated(level.place, f"{name}.read", f"its table in {prices.places[name]} has no read: free")
    read, write = table.get("read", 0.0), table.get("write", table.get("read", 0.0))
    update = table.get("update", write)
    if write != update:
        chosen = update if keeps == ["output"] else write if "output" not in keeps else (write + update) / 2
        text = f"write {write:g} and update {update:g} pJ are one price here: {chosen:g}"
        report.approximated(level.place, f"{name}.write", text)
        write = chosen
    place = prices.places.get(name, level.place)
    return {
        "read_energy_pj": price_pj(read, place, f"{name}.read", report),
        "write_energy_pj": price_pj(write, place, f"{name}.write", report),
    }


def bandwidths(level: Level, data_bits: int, report: TranslationReport) -> dict[str, Any]:
    """Words of datawidth per cycle as bits per cycle."""
    scope, found = level.scope, dict[str, Any]()
    read, write = scope.number("read_bandwidth"), scope.number("write_bandwidth")
    shared, both = scope.number("shared_bandwidth"), scope.number("bandwidth")
    if both and read is None and write is None:
        read = write = both / 2
    if shared:
        if read or write:
            report.none(level.place, f"{level.name}.bandwidth", "a shared limit beside separate ones: the shared one")
        return {"read_bandwidth_bits_per_cycle": shared * data_bits, "shared_port": True}
    for key, value in (("read", read), ("write", write)):
        if value:
            found[f"{key}_bandwidth_bits_per_cycle"] = value * data_bits
    return found


def check_attributes(level: Level, report: TranslationReport) -> None:
    """Refuse what changes results and cannot be said; name what is only lost."""
    for key, neutral in REFUSED.items():
        item = level.scope.item(key)
        if item is not None and item.value not in (neutral, None, False):
            raise item.error(f"{level.name}.{key}: has no counterpart")
    name_harmless(level, report)
    least = level.scope.number("min_utilization", 0.0)
    if least:
        report.none(level.place, f"{level.name}.min_utilization", "binds Timeloop's search, not ours")
    for key, item in level.scope.own.items():
        if "compression" in key and item.value not in (False, None):
            raise item.error(f"{level.name}.{key}: sparse modelling has no counterpart")
        if key not in READ and key not in REFUSED and not key.startswith("metadata") and "compression" not in key:
            report.none(level.place, f"{level.name}.{key}", "no key of a storage's that is read here")
        if key.startswith("metadata"):
            report.none(level.place, f"{level.name}.{key}", "only sparse designs use it, which are refused")


def name_harmless(level: Level, report: TranslationReport) -> None:
    """Name what changes an area or an estimator's choice, but no count."""
    found = [key for key in HARMLESS if key in level.scope.own and key != "version"]
    if found:
        report.none(level.place, level.name, f"{', '.join(found)}: no count here depends on it")


def name_unused(chain: Chain, report: TranslationReport) -> None:
    """Name a container's attributes that neither a key here nor an expression asks for."""
    of_parts = [level.scope for level in chain.levels if level.kind in ("storage", "compute")]
    for level in chain.levels:
        if any(level.scope is scope for scope in of_parts):
            continue
        for key, item in level.scope.own.items():
            if key not in READ and key not in chain.words:
                report.none(
                    item.place, f"{(*level.names, level.name)[0]}.{key}", "an attribute that nothing below it asks for"
                )


def read_mac(
    chain: Chain, rules: Mapping[str, Rules], operands: Mapping[str, Operand], prices: Prices, report: TranslationReport
) -> dict[str, Any]:
    """The compute unit as a fixed MAC."""
    level = chain.compute
    scope = level.scope
    width = scope.whole("multiplier_width") or scope.whole("datawidth") or scope.whole("width") or 16
    if width > 64:
        raise at(level).error(f"{level.name}: a multiplier of {width} bits: expected at most 64")
    adder = scope.whole("adder_width")
    if adder is None:
        adder = sum_width(chain, rules, operands) or 32
        report.approximated(level.place, f"{level.name}.adder_width", f"not stated: sums of {adder} bits")
    report.taken(level.place, level.name, f"weights and inputs of {width} bits, sums of {adder}")
    name_harmless(level, report)
    for key in sorted(level.scope.own.keys() - set(MAC_READ)):
        report.none(level.place, f"{level.name}.{key}", "no key of a MAC's that is read here")
    stored = min(64, chain.storages[0].scope.data_bits or width)
    if stored > width:
        text = f"elements of {stored} bits meet a multiplier of {width}: Timeloop's MAC takes one cycle at any width"
        report.approximated(level.place, f"{level.name}.width", text)
        width = stored
    compute = prices.of(level.name).get("compute")
    if compute is None:
        compute = energy_laws.mac_pj(width, width)[0]
        report.approximated(level.place, f"{level.name}.energy", f"no table: {compute:.4g} pJ, {energy_laws.UNSTATED}")
    mac: dict[str, Any] = {
        "style": "fixed", "weight_bits": width, "input_bits": width, "accumulator_bits": min(adder, 64),
        "energy_pj": price_pj(compute, level.place, f"{level.name}.compute", report), "source": where(level),
    }  # fmt: skip
    if level.name not in prices.energies_pj:
        mac["estimated"] = f"price: {energy_laws.UNSTATED}"
    if prices.areas_um2.get(level.name):
        mac["area_mm2"] = prices.areas_um2[level.name] / 1e6
    return mac


def sum_width(chain: Chain, rules: Mapping[str, Rules], operands: Mapping[str, Operand]) -> int | None:
    """datawidth of the innermost storage that may keep outputs."""
    for level in reversed(chain.storages):
        if "output" in kept(level, rules[level.name], operands, level is chain.storages[0])[0]:
            return level.scope.data_bits
    return None


def waiting(chain: Chain, draft: Draft, report: TranslationReport) -> None:
    """Network latencies are added once per layer."""
    cycles = 0.0
    for level in chain.storages:
        for key in ("network_fill_latency", "network_drain_latency"):
            cycles += level.scope.number(key, 0.0) or 0.0
    if cycles >= 1:
        draft.data["layer_overhead_cycles"] = int(cycles)
        report.taken(chain.place, "network latency", f"{int(cycles)} cycles per layer")
