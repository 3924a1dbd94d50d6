"""Arm Ethos-U55-256: NPU cycles of three MLPerf Tiny networks as the vendor's compiler estimates them.

Nothing is fitted. The compiler is Vela 5.2.0 (`vela MODEL.tflite --accelerator-config ethos-u55-256 --system-config
Ethos_U55_High_End_Embedded --memory-mode Shared_Sram`), on the reference models: an estimate of its own, not silicon.
"""

from __future__ import annotations

from experiments.validation.networks import TINY, kept_on_chip
from experiments.validation.rows import Row, Study, read_table
from hwsim.machine.load import load_accelerator
from hwsim.network.layer import Layer
from hwsim.pricing.layer import price
from hwsim.search.layer import search

NETWORKS = ("ic", "kws", "ad")


def kind(layer: Layer) -> str:
    """What the rows are grouped by."""
    if layer.op == "linear":
        return "cycles, fully connected"
    return "cycles, depthwise" if layer.loops.G > 1 else "cycles, convolution"


def study() -> Study:
    """Cycles by layer; sizes of the array and the configuration tables agree by construction and are asserted."""
    machine = load_accelerator("ethos_u55_256")
    stated = next(row for row in read_table("ethos_u.csv") if row["config"] == "ethos-u55-256")
    if machine.mac_units != int(stated["macs_per_cycle"]):
        raise ValueError(f"ethos_u55_256: expected {stated['macs_per_cycle']} MACs per cycle, got {machine.mac_units}")
    vendor: dict[str, list[dict[str, str]]] = {}
    for row in read_table("ethos_vela_layers.csv"):
        vendor.setdefault(row["network"], []).append(row)
    rows: list[Row] = []
    for network in NETWORKS:
        theirs_all = ours_all = 0.0
        for layer, theirs in zip(TINY[network](), vendor[network], strict=True):
            found = search(layer, machine, "latency")
            ours = price(layer, found.counts, machine, resident=kept_on_chip(layer)).latency_cycles
            rows.append(Row(f"{network} {layer.name}", kind(layer), "cycles", float(theirs["op_cycles"]), ours))
            theirs_all, ours_all = theirs_all + float(theirs["op_cycles"]), ours_all + ours
        rows.append(Row(network, "cycles, network", "cycles", theirs_all, ours_all))
    return Study(
        name="ethos_u55_256",
        title="Ethos-U55-256, MLPerf Tiny networks",
        source="Arm Vela 5.2.0 run on the MLPerf Tiny reference models (the vendor's estimate)",
        machine="ethos_u55_256",
        rows=tuple(rows),
        calibrated=(),
        explanation=(
            "Convolutions that fill the micro-block and layers bound by flash are close. Below the vendor: kernels on "
            "1 or 3 input channels (its micro-block takes channels in larger steps), depthwise (it rounds kernel "
            "elements up to 4), and wide maps of few channels, where it charges write-back. Above: fully connected "
            "layers, whose weights it compresses on the way from flash; compression is off in the spec."
        ),
    )
