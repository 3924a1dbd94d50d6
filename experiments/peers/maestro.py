"""Three dataflows in MAESTRO's words on one layer and 64 elements: steps by the directives, and our price of them."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

from hwsim.nest.count import count_accesses
from hwsim.peers.translation import translate
from hwsim.pricing.layer import price
from hwsim.search.layer import search

HARDWARE = "num_pes: 64\nl1_size_cstr: 2048\nl2_size_cstr: 262144\nnoc_bw_cstr: 64\n"
LAYER = "K: 64, C: 64, R: 3, S: 3, Y: 58, X: 58"
# name: (directives, turns of each that is a loop in time)
DATAFLOWS = {
    "filters and channels spread (NVDLA's way)": (
        "SpatialMap(1,1) K; TemporalMap(8,8) C; TemporalMap(Sz(R),Sz(R)) R; TemporalMap(Sz(S),Sz(S)) S;"
        " TemporalMap(Sz(R),1) Y; TemporalMap(Sz(S),1) X; Cluster(8, P); SpatialMap(1,1) C;",
        {"K": 64 // 8, "C": 64 // 8, "R": 3, "S": 3, "Y": 56, "X": 56},
    ),
    "output rows and columns spread (ShiDianNao's way)": (
        "TemporalMap(1,1) K; TemporalMap(1,1) C; TemporalMap(Sz(R),Sz(R)) R; TemporalMap(Sz(S),Sz(S)) S;"
        " SpatialMap(Sz(R),1) Y; TemporalMap(8+Sz(S)-1,8) X; Cluster(8, P); SpatialMap(Sz(S),1) X;",
        {"K": 64, "C": 64, "R": 3, "S": 3, "Y": 56 // 8, "X": 56 // 8},
    ),
    "input channels spread": (
        "TemporalMap(1,1) K; TemporalMap(Sz(R),1) Y; TemporalMap(Sz(S),1) X; SpatialMap(1,1) C;"
        " TemporalMap(Sz(R),Sz(R)) R; TemporalMap(Sz(S),Sz(S)) S;",
        {"K": 64, "C": 1, "R": 3, "S": 3, "Y": 56, "X": 56},
    ),
}  # fmt: skip


def rows() -> list[dict[str, Any]]:
    """One row per dataflow: the product of its turns, our steps, cycles and energy, and the least our search finds."""
    return [row_of(name, flow, turns) for name, (flow, turns) in DATAFLOWS.items()]


def row_of(name: str, flow: str, turns: dict[str, int]) -> dict[str, Any]:
    """One dataflow."""
    network = f"Network n {{ Layer conv {{ Type: CONV Dimensions {{ {LAYER} }} Dataflow {{ {flow} }} }} }}\n"
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / "net.m", Path(folder) / "hardware.m"]
        for path, text in zip(paths, (network, HARDWARE), strict=True):
            path.write_text(text, encoding="utf-8")
        found = translate("maestro", paths)
    assert found.machine is not None
    assert found.workload is not None
    (layer,) = found.workload.layers
    counts = count_accesses(layer, found.mappings["conv"], found.machine)
    cost = price(layer, counts, found.machine)
    least = search(layer, found.machine, "energy", effort="quick")
    return {
        "dataflow": name, "turns": math.prod(turns.values()), "steps": counts.steps, "cycles": cost.latency_cycles,
        "energy_pj": cost.total_energy_pj, "least_energy_pj": least.cost.total_energy_pj,
        "least_cycles": least.cost.latency_cycles,
    }  # fmt: skip
