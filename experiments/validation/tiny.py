"""MLPerf Tiny on a Cortex-M7 at 280 MHz (silicon): latency and energy of four networks.

One row calibrated the spec (image classification, X-CUBE-AI 7.3); the other networks of the same submission, and other
submissions on the same board, are checks. Between software stacks the same board differs by up to 2.1x.
"""

from __future__ import annotations

from functools import lru_cache

from experiments.validation.networks import TINY, kept_on_chip
from experiments.validation.rows import Role, Row, Study, read_table
from hwsim.machine.load import load_accelerator
from hwsim.pricing.layer import price
from hwsim.search.layer import search

NETWORKS = {"ic": "ResNet-8", "kws": "DS-CNN", "vww": "MobileNetV1 x 0.25", "ad": "autoencoder"}
REFERENCE = "NUCLEO-H7A3ZI-Q_X-CUBE-AI-7.3"


@lru_cache(maxsize=4)
def modelled(network: str) -> tuple[float, float]:
    """(milliseconds, microjoules) of one inference: layers with MACs, one after another."""
    machine = load_accelerator("cortex_m7")
    found = [
        price(layer, search(layer, machine, "latency").counts, machine, resident=kept_on_chip(layer))
        for layer in TINY[network]()
    ]
    ms = sum(cost.latency_cycles for cost in found) / machine.clock_mhz / 1e3
    return ms, sum(cost.total_energy_pj for cost in found) / 1e6


def same_board() -> list[dict[str, str]]:
    """Rows measured with int8 networks on this board at 280 MHz (a clock not stated is the board's own)."""
    return [
        row
        for row in read_table("mlperf_tiny.csv")
        if "H7A3ZI" in row["system"] and row["freq"] in ("280 MHz", "") and "float" not in row["system"]
    ]


def study() -> Study:
    """The reference submission row by row; the spread over all submissions as context."""
    rows: list[Row] = []
    for row in same_board():
        if row["system"] != REFERENCE:
            continue
        item = NETWORKS[row["task"]]
        ms, uj = modelled(row["task"])
        role: Role = "calibration" if row["task"] == "ic" else "check"
        rows.append(Row(item, "latency", "ms", float(row["latency_ms"]), ms, role))
        if row["energy_uJ_per_inf"]:
            rows.append(Row(item, "energy", "uJ", float(row["energy_uJ_per_inf"]), uj, role))
    for network, name in NETWORKS.items():
        known = sorted(float(r["latency_ms"]) for r in same_board() if r["task"] == network)
        for label, value in (("fastest", known[0]), ("slowest", known[-1])):
            rows.append(
                Row(
                    f"{name}, {label} of {len(known)}",
                    "latency, any software",
                    "ms",
                    value,
                    modelled(network)[0],
                    "context",
                )
            )
    return Study(
        name="mlperf_tiny_m7",
        title="Cortex-M7, MLPerf Tiny",
        source="MLPerf Tiny v1.0 to v1.3 results logs, NUCLEO-H7A3 at 280 MHz (silicon)",
        machine="cortex_m7",
        rows=tuple(rows),
        calibrated=("0.9 MACs per cycle and 150 mW, from the image classification row (in the spec)",),
        explanation=(
            "One rate of 0.9 MACs per cycle serves every layer; depthwise layers and matrix-vector products reach less "
            "on the core (no reuse in registers), so networks made of them come out too fast. The spread between "
            "software stacks on the same board is larger than our error and is shown for context."
        ),
    )
