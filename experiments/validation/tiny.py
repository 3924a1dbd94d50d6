"""MLPerf Tiny on a Cortex-M7 at 280 MHz and a Cortex-M4 at 120 MHz (silicon): latency and energy of four networks.

One row calibrated each spec (image classification, X-CUBE-AI); the other networks of the same submission are checks,
other submissions on the same board context. Between software stacks the same board differs by up to 2.1x.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from experiments.validation.networks import TINY, kept_on_chip
from experiments.validation.rows import Role, Row, Study, read_table
from hwsim.machine.load import load_accelerator
from hwsim.pricing.layer import price
from hwsim.search.layer import search

NETWORKS = {"ic": "ResNet-8", "kws": "DS-CNN", "vww": "MobileNetV1 x 0.25", "ad": "autoencoder"}


@dataclass(frozen=True)
class Board:
    """A spec, the board it stands for, the submission that calibrated it."""

    spec: str
    title: str
    board: str
    clock: str
    reference: str
    told: str


M7 = Board(
    "cortex_m7",
    "Cortex-M7",
    "H7A3ZI",
    "280 MHz",
    "NUCLEO-H7A3ZI-Q_X-CUBE-AI-7.3",
    "0.48 of two MACs per cycle and 150 mW",
)
M4 = Board(
    "cortex_m4", "Cortex-M4", "L4R5ZI", "120 MHz", "NUCLEO-L4R5ZI_X-CUBE-AI-7.3", "0.25 of two MACs per cycle and 78 mW"
)


@lru_cache(maxsize=8)
def modelled(spec: str, network: str) -> tuple[float, float]:
    """(milliseconds, microjoules) of one inference: layers with MACs, one after another."""
    machine = load_accelerator(spec)
    found = [
        price(layer, search(layer, machine, "latency").counts, machine, resident=kept_on_chip(layer))
        for layer in TINY[network]()
    ]
    ms = sum(cost.latency_cycles for cost in found) / machine.clock_mhz / 1e3
    return ms, sum(cost.total_energy_pj for cost in found) / 1e6


def same_board(board: Board) -> list[dict[str, str]]:
    """Rows measured with int8 networks on this board at its clock (a clock not stated is the board's own)."""
    return [
        row
        for row in read_table("mlperf_tiny.csv")
        if board.board in row["system"] and row["freq"] in (board.clock, "") and "float" not in row["system"]
    ]


def study(board: Board = M7) -> Study:
    """The reference submission row by row; the spread over all submissions as context."""
    rows: list[Row] = []
    for row in same_board(board):
        if row["system"] != board.reference:
            continue
        item = NETWORKS[row["task"]]
        ms, uj = modelled(board.spec, row["task"])
        role: Role = "calibration" if row["task"] == "ic" else "check"
        rows.append(Row(item, "latency", "ms", float(row["latency_ms"]), ms, role))
        if row["energy_uJ_per_inf"]:
            rows.append(Row(item, "energy", "uJ", float(row["energy_uJ_per_inf"]), uj, role))
    for network, name in NETWORKS.items():
        known = sorted(float(r["latency_ms"]) for r in same_board(board) if r["task"] == network)
        for label, value in (("fastest", known[0]), ("slowest", known[-1])):
            rows.append(
                Row(
                    f"{name}, {label} of {len(known)}",
                    "latency, any software",
                    "ms",
                    value,
                    modelled(board.spec, network)[0],
                    "context",
                )
            )
    return Study(
        name=f"mlperf_tiny_{board.title[-2:].lower()}",
        title=f"{board.title}, MLPerf Tiny",
        source=f"MLPerf Tiny v1.0 to v1.3 results logs, {board.board} at {board.clock} (silicon)",
        machine=board.spec,
        rows=tuple(rows),
        calibrated=(f"{board.told}, from the image classification row (in the spec)",),
        explanation=(
            "The core multiplies two input channels at once, so depthwise layers run at half the rate. Matrix-vector "
            "products reach less on the core (every weight is loaded for one product, from flash), so the autoencoder "
            "comes out too fast. The spread between software stacks on the same board is larger than our error."
        ),
    )
