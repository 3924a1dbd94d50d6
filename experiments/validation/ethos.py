"""Arm Ethos-U55-256: NPU cycles of three MLPerf Tiny networks as the vendor's compiler estimates them.

Two numbers are calibrated, both on one network, none of whose rows counts: the share of the weights' bits that flash
moves, and the share of their peak that the MACs sustain. The compiler is Vela 5.2.0 (`vela MODEL.tflite
--accelerator-config ethos-u55-256 --system-config Ethos_U55_High_End_Embedded --memory-mode Shared_Sram`), on the
reference models: an estimate of its own, not silicon. Layers run in the block traversal of the spec's constraints.
"""

from __future__ import annotations

import dataclasses
from functools import lru_cache

from experiments.validation.networks import TINY, kept_on_chip
from experiments.validation.rows import Role, Row, Study, read_table
from hwsim.machine.load import load_accelerator
from hwsim.machine.parts import Accelerator
from hwsim.network.layer import Layer
from hwsim.pricing.layer import LayerCost, price
from hwsim.search.layer import search

NETWORKS = ("ic", "kws", "ad")


CALIBRATED = "ic"  # its flash traffic gives the share of weights' bits left once compressed, its MACs' time theirs
Vendor = dict[str, list[dict[str, str]]]


def kind(layer: Layer) -> str:
    """What the rows are grouped by."""
    if layer.op == "linear":
        return "cycles, fully connected"
    return "cycles, depthwise" if layer.loops.G > 1 else "cycles, convolution"


def vendor_rows() -> Vendor:
    """The compiler's layers by network."""
    found: Vendor = {}
    for row in read_table("ethos_vela_layers.csv"):
        found.setdefault(row["network"], []).append(row)
    return found


@lru_cache(maxsize=4)
def layers_of(network: str, machine: Accelerator) -> tuple[tuple[Layer, LayerCost], ...]:
    """Every layer of a network under its fastest mapping in the machine's own order, activations on chip."""
    found: list[tuple[Layer, LayerCost]] = []
    for layer in TINY[network]():
        counts = search(layer, machine, "latency", rules=machine.constraints).counts
        found.append((layer, price(layer, counts, machine, resident=kept_on_chip(layer))))
    return tuple(found)


def flash_cycles(cost: LayerCost) -> int:
    """Cycles of the flash port."""
    return dict(cost.cycles)["flash port"]


def compressing(machine: Accelerator, share: float) -> Accelerator:
    """The machine whose flash holds weights compressed."""
    flash = dataclasses.replace(machine.outermost, compression=(("weight", share),))
    return dataclasses.replace(machine, hierarchy=(flash, *machine.hierarchy[1:]))


def sustained(machine: Accelerator, vendor: Vendor) -> float:
    """Share of their peak that the MACs sustain in the layers of the calibrated network that they bound."""
    pairs = zip(layers_of(CALIBRATED, machine), vendor[CALIBRATED], strict=True)
    bound = [(cost, row) for (_, cost), row in pairs if cost.bottleneck == "compute"]
    return sum(dict(cost.cycles)["compute"] for cost, _ in bound) / sum(float(row["op_cycles"]) for _, row in bound)


def study() -> Study:
    """Cycles by layer; sizes of the array and the configuration tables agree by construction and are asserted."""
    shipped = load_accelerator("ethos_u55_256")
    stated = next(row for row in read_table("ethos_u.csv") if row["config"] == "ethos-u55-256")
    if shipped.mac_units != int(stated["macs_per_cycle"]):
        raise ValueError(f"ethos_u55_256: expected {stated['macs_per_cycle']} MACs per cycle, got {shipped.mac_units}")
    vendor = vendor_rows()
    plain = sum(flash_cycles(cost) for _, cost in layers_of(CALIBRATED, shipped))
    share = round(sum(float(row["flash_cycles"]) for row in vendor[CALIBRATED]) / plain, 3)
    machine = compressing(shipped, share)
    rate = round(sustained(machine, vendor), 3)
    machine = dataclasses.replace(machine, mac=dataclasses.replace(machine.mac, sustained=rate))
    rows: list[Row] = []
    for network in NETWORKS:
        theirs_all = ours_all = 0.0
        role: Role = "calibration" if network == CALIBRATED else "check"
        for (layer, cost), theirs in zip(layers_of(network, machine), vendor[network], strict=True):
            cycles = float(theirs["op_cycles"])
            rows.append(Row(f"{network} {layer.name}", kind(layer), "cycles", cycles, cost.latency_cycles, role))
            theirs_all, ours_all = theirs_all + cycles, ours_all + cost.latency_cycles
        rows.append(Row(network, "cycles, network", "cycles", theirs_all, ours_all, role))
    return Study(
        name="ethos_u55_256",
        title="Ethos-U55-256, MLPerf Tiny networks",
        source="Arm Vela 5.2.0 run on the MLPerf Tiny reference models (the vendor's estimate)",
        machine="ethos_u55_256 under its block traversal, weights compressed on the way from flash",
        rows=tuple(rows),
        calibrated=(
            f"{share:.3f} of the weights' bits move, from the flash traffic of {CALIBRATED}",
            f"{rate:.3f} of the MACs' peak sustained, from the sum of {CALIBRATED}'s layers that the MACs bound",
        ),
        explanation=(
            "The unit takes 8 channels at once and kernel elements by 4, or 32 channels at once, whichever is faster "
            "(Vela). The compiler's estimate counts blocks whole and adds the output of the last one, at least a "
            "quarter of all that a block does. Blocks are its own choice, 14 x 5 x 32 of kws' 25 x 5 x 64. As they "
            "are no property of the machine, no key says them. What they cost together is the share of the MACs' peak. "
            "Without it convolutions take 6 to 40 % fewer cycles than Vela says, and the mean of both networks is "
            "15.6 %. How far weights are compressed depends on their values, from a half (kws) to nine tenths (the "
            "last layer of ad)."
        ),
    )
