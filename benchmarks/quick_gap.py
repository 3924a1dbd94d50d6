"""How far the quick search lies above the proofs, into results/quick_gap.csv.

    python -m benchmarks.quick_gap [--network resnet18 ...]

One row per network and spec: the energy of its distinct layers by the quick search beside the proven one of
results/certificates.csv (unrollings that need not divide). Cache off. Prints the range of every network.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from benchmarks import certificates
from benchmarks.networks import NETWORKS, layers
from hwsim.console import wrote
from hwsim.files.csv_text import csv_table
from hwsim.machine.load import load_accelerator
from hwsim.search.cache import ENVIRONMENT
from hwsim.search.layer import search

RESULTS = Path("results/quick_gap.csv")
COLUMNS = ("network", "spec", "layers", "quick_pj", "proven_pj", "above_percent")
CHOSEN = ("resnet18", "mobilenet_v2", "vit_b_16")
BITS = 8


def beside(network: str, spec: str) -> dict[str, object] | None:
    """The network's row of one spec; None where the proofs refused a layer."""
    known = {
        row["layer"]: row
        for row in certificates.read()
        if (row["network"], row["spec"], row["objective"], row["space"]) == (network, spec, "energy", "proven")
    }
    if not known or any(row["refused"] for row in known.values()):
        return None
    machine = load_accelerator(spec)
    found = {
        layer.name: search(layer, machine, "energy", effort="quick").certificate.value
        for layer in layers(network, BITS)
        if layer.name in known
    }
    quick, proven = sum(found.values()), sum(float(known[name]["value"]) for name in found)
    return {
        "network": network, "spec": spec, "layers": len(found), "quick_pj": f"{quick:.8g}",
        "proven_pj": f"{proven:.8g}", "above_percent": f"{100 * (quick / proven - 1):.2f}",
    }  # fmt: skip


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quick_gap", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--network", nargs="+", default=list(CHOSEN), choices=list(NETWORKS))
    options = parser.parse_args()
    os.environ[ENVIRONMENT] = ""
    specs = sorted({row["spec"] for row in certificates.read()})
    rows = [row for network in options.network for spec in specs if (row := beside(network, spec))]
    for network in options.network:
        above = [float(str(row["above_percent"])) for row in rows if row["network"] == network]
        print(f"{network}: {min(above):.1f} to {max(above):.1f} % above the proof on {len(above)} specs")
    RESULTS.write_text(csv_table(COLUMNS, rows), encoding="utf-8")
    wrote(RESULTS)


if __name__ == "__main__":
    main()
