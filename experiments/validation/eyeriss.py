"""Eyeriss (65 nm silicon) on AlexNet's convolutions, batch 4, 16 bits: latency and power of every layer.

The unrolling over PEs is the one the paper states (sets of filter rows x output rows); tiles and orders are searched.
Nothing is fitted here: energies are those with which the Stanford group reproduced the same table.
"""

from __future__ import annotations

import dataclasses
from functools import lru_cache

from experiments.validation.networks import eyeriss_alexnet
from experiments.validation.rows import Role, Row, Study, read_table
from hwsim.machine.load import load_accelerator
from hwsim.machine.parts import Accelerator, Array, Axis
from hwsim.pricing.layer import LayerCost, price
from hwsim.search.layer import search
from hwsim.search.result import Found

# (filter rows, output rows side by side, sets over input channels, sets over filters)
SETS = {
    "CONV1": (11, 7, 1, 2),
    "CONV2": (5, 27, 1, 1),  # 14 + 13 columns: one set folded onto two strips of the array
    "CONV3": (3, 13, 1, 4),
    "CONV4": (3, 13, 2, 2),
    "CONV5": (3, 13, 2, 2),
}
PE_PARTS = ("ifmap_spad", "filter_spad", "psum_spad", "mac")
GATED = 0.45  # share of PE power that a zero input saves (paper)
OUTSIDE = ("dram",)


def with_sets(accelerator: Accelerator, name: str) -> Accelerator:
    """The chip with its array wired as the paper runs this layer."""
    rows, columns, channels, filters = SETS[name]
    axes = (
        Axis("filter_rows", rows, ("R",)),
        Axis("output_rows", columns, ("P",)),
        Axis("channel_sets", channels, ("C",)),
        Axis("filter_sets", filters, ("K",)),
    )
    changed = tuple(
        dataclasses.replace(node, axes=axes) if isinstance(node, Array) else node for node in accelerator.hierarchy
    )
    return dataclasses.replace(accelerator, hierarchy=changed)


@lru_cache(maxsize=1)
def runs() -> tuple[tuple[Found, LayerCost], ...]:
    """Best mapping by energy of every layer, and its cost with the measured share of zero inputs gated."""
    chip, zeros = load_accelerator("eyeriss_v1"), zero_shares()
    found: list[tuple[Found, LayerCost]] = []
    for layer in eyeriss_alexnet():
        machine = with_sets(chip, layer.name)
        best = search(layer, machine, "energy")
        found.append((best, price(layer, best.counts, machine, zero_share=zeros[layer.name])))
    return tuple(found)


def zero_shares() -> dict[str, float]:
    """Measured share of zero inputs by layer."""
    return {row["layer"]: float(row["zeros_in_ifmap_pct"]) / 100 for row in read_table("eyeriss_alexnet.csv")}


def on_chip_cycles(cost: LayerCost) -> int:
    """Cycles without the DRAM: what the paper calls processing latency."""
    return max(n for name, n in cost.cycles if not name.startswith(OUTSIDE) and not name.endswith("refill"))


def chip_power_mw(cost: LayerCost, clock_mhz: float) -> float:
    """Energy of everything but the DRAM over the layer's time; pJ per cycle times MHz is uW."""
    inside = sum(energy for component, energy in cost.energy_pj.items() if component not in OUTSIDE)
    return inside / cost.latency_cycles * clock_mhz / 1e3


def power_split_mw(best: Found, clock_mhz: float) -> tuple[float, float]:
    """(power inside the PEs, power of the rest of the chip) with nothing gated."""
    cost = best.cost
    per_cycle = {name: pj / cost.latency_cycles * clock_mhz / 1e3 for name, pj in cost.energy_pj.items()}
    pes = sum(per_cycle[part] for part in PE_PARTS)
    return pes, sum(mw for name, mw in per_cycle.items() if name not in (*PE_PARTS, *OUTSIDE))


def study() -> Study:
    """Rows by layer and for the whole network."""
    clock = load_accelerator("eyeriss_v1").clock_mhz
    published = {row["layer"]: row for row in read_table("eyeriss_alexnet.csv")}
    zeros = zero_shares()
    pes, rest = power_split_mw(runs()[0][0], clock)
    overhead = (float(published["CONV1"]["power_mW"]) - rest) / (pes * (1 - GATED * zeros["CONV1"]))
    rows: list[Row] = []
    sums: dict[str, float] = dict.fromkeys(COLUMNS, 0.0)
    for best, cost in runs():
        given, name = published[cost.name], cost.name
        pes, rest = power_split_mw(best, clock)
        ours = {
            "processing latency": on_chip_cycles(cost) / clock / 1e3,
            "total latency": cost.latency_cycles / clock / 1e3,
            "power": chip_power_mw(cost, clock),
            "power with PE overhead": rest + overhead * pes * (1 - GATED * zeros[name]),
            "DRAM traffic": sum(m.bits for m in cost.moved if m.memory == "dram") / 8e6,
        }
        rows.append(Row(name, "active PEs", "PEs", float(given["active_pes"]), best.counts.active_macs))
        rows += compare(given, name, ours, calibration=name == "CONV1")
        for quantity, value in ours.items():
            sums[quantity] += value * (ours["total latency"] if "power" in quantity else 1.0)
    for quantity in ("power", "power with PE overhead"):
        sums[quantity] /= sums["total latency"]
    rows += compare(published["TOTAL"], "all five", sums, calibration=True)
    return Study(
        name="eyeriss_alexnet",
        title="Eyeriss, AlexNet",
        source="Chen et al., JSSC 2017, Table V (silicon, 65 nm, 1 V, 200 MHz)",
        machine="eyeriss_v1, its array wired per layer as the paper states (sets over channels and filters)",
        rows=tuple(rows),
        calibrated=(
            f"`power with PE overhead` alone: everything in the PEs times {overhead:.2f}, from CONV1's power; it "
            "stands for the clock network and control, which the spec does not have (CONV1 and the total do not count)",
        ),
        explanation=(
            "Power: the spec prices arithmetic, memories and wires; the paper names the clock network as a large part "
            "and gates whole PEs at zeros, the spec gates MACs. One factor from CONV1 brings the others to the errors "
            "shown. Latency: `processing` lacks the ramp-up of each pass that the paper describes; `total` has no "
            "compression of feature maps, which on the chip saves 30 to 75 % of their DRAM traffic, and more the more "
            "zeros a layer sees: CONV5 is worst. DRAM traffic is shown uncompressed, for context."
        ),
    )


COLUMNS = {
    "processing latency": ("processing_latency_ms", "ms"),
    "total latency": ("total_latency_ms", "ms"),
    "power": ("power_mW", "mW"),
    "power with PE overhead": ("power_mW", "mW"),
    "DRAM traffic": ("dram_accesses_MB", "MB"),
}


def compare(given: dict[str, str], item: str, ours: dict[str, float], calibration: bool) -> list[Row]:
    """Rows of one layer; compressed DRAM traffic is context, calibrated power no check where it was calibrated."""
    found: list[Row] = []
    for quantity, (column, unit) in COLUMNS.items():
        role: Role = "context" if quantity == "DRAM traffic" else "check"
        if quantity == "power with PE overhead" and calibration:
            role = "calibration"
        found.append(Row(item, quantity, unit, float(given[column]), ours[quantity], role))
    return found
