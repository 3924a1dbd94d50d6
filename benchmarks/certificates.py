"""Proofs of every distinct layer of five networks on every shipped spec, into results/certificates.csv.

    nice -n 10 python -m benchmarks.certificates [--spec A B ...] [--network ...] [--objective energy] [--seconds S]
    python -m benchmarks.certificates --summary

One row per layer and spec: price, lower bound, whether the search ended by itself within S seconds, CPU seconds with
the quick search included, and the root bound (what was known before any exact path) with its time. Cache off. Rows that
are there already are left alone, so a run that was cut goes on where it was; delete rows to measure them again. A spec
that cannot run a layer gets a row that says so. `--summary` prints the table of docs/search.md.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import time
from collections.abc import Iterable
from pathlib import Path

from benchmarks.networks import NETWORKS, layers
from hwsim.accelerator import load_accelerator
from hwsim.errors import HwsimError
from hwsim.mapper.cache import ENVIRONMENT
from hwsim.search import Objective, search
from hwsim.workload import Layer

RESULTS = Path("results/certificates.csv")
KEY = ("network", "layer", "spec", "objective", "space")
COLUMNS = (
    *KEY, "value", "lower_bound", "gap_percent", "ended", "cpu_s", "root_below_percent", "root_ms", "covered", "priced",
    "refused",
)  # fmt: skip
MEASURED = "mico_measured"  # has no mappings to search
Row = dict[str, str]


def read(path: Path = RESULTS) -> list[Row]:
    """All rows."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def proof(layer: Layer, spec: str, objective: Objective, seconds: float) -> Row:
    """What the search says of one layer on one spec."""
    machine = load_accelerator(spec)
    began = time.process_time()
    try:
        found = search(layer, machine, objective, effort="proven", time_limit_s=seconds)
    except HwsimError as problem:
        return {"refused": str(problem).splitlines()[0]}
    c = found.certificate
    return {
        "value": f"{c.value:.8g}",
        "lower_bound": f"{c.lower_bound:.8g}",
        "gap_percent": f"{100 * c.gap:.4f}",
        "ended": "yes" if c.exhaustive else "no",
        "cpu_s": f"{time.process_time() - began:.3f}",
        "root_below_percent": f"{100 * (1 - c.root_bound / c.value):.4f}",
        "root_ms": f"{1000 * c.root_seconds:.1f}",
        "covered": str(c.covered),
        "priced": str(c.priced),
    }


def run(networks: Iterable[str], specs: Iterable[str], objective: Objective, bits: int, seconds: float) -> None:
    """Rows that are missing, written one by one."""
    known = {tuple(row[name] for name in KEY) for row in read()}
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    for spec in specs:
        for network in networks:
            for layer in layers(network, bits):
                key = (network, layer.name, spec, objective, "perfect")
                if key in known:
                    continue
                row = dict(zip(KEY, key, strict=True)) | proof(layer, spec, objective, seconds)
                fresh = not RESULTS.is_file()
                with RESULTS.open("a", newline="", encoding="utf-8") as file:
                    writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
                    if fresh:
                        writer.writeheader()
                    writer.writerow(row)
            print(f"{spec} {network}", flush=True)


def summary(rows: list[Row]) -> str:
    """One line per network and spec."""
    heads = (
        "objective", "network", "spec", "CPU s", "proven", "largest gap", "root bound below", "ms (median)",
        "points covered/s",
    )  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", "|" + " --- |" * len(heads)]
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["objective"], row["network"], row["spec"]), []).append(row)
    for (objective, network, spec), members in groups.items():
        ran = [row for row in members if not row["refused"]]
        refused = len(members) - len(ran)
        if not ran:
            lines.append(f"| {objective} | {network} | {spec} | refused: {members[0]['refused']} |" + " |" * 5)
            continue
        ended = sum(row["ended"] == "yes" for row in ran)
        seconds = sum(float(row["cpu_s"]) for row in ran)
        below = [float(row["root_below_percent"]) for row in ran]
        lines.append(
            f"| {objective} | {network} | {spec} | {seconds:.2f} | {ended}/{len(ran)}"
            + (f", {refused} refused" if refused else "")
            + f" | {max(float(row['gap_percent']) for row in ran):.3f} % "
            f"| {statistics.median(below):.2f} %, at most {max(below):.1f} % "
            f"| {statistics.median(float(row['root_ms']) for row in ran):.0f} "
            f"| {sum(int(row['covered']) for row in ran) / seconds:,.0f} |"
        )
    return "\n".join(lines)


def shipped() -> list[str]:
    """Names of the shipped specs with mappings to search."""
    return sorted(path.stem for path in Path("accel_specs").glob("*.yaml") if path.stem != MEASURED)


def main() -> None:
    parse = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parse.add_argument("--spec", default=None, nargs="+", help="all shipped ones by default")
    parse.add_argument("--network", default=list(NETWORKS), choices=NETWORKS, nargs="+")
    parse.add_argument("--objective", default="energy", choices=("energy", "latency", "edp"))
    parse.add_argument("--bits", type=int, default=8)
    parse.add_argument("--seconds", type=float, default=600.0, help="limit per layer")
    parse.add_argument("--summary", action="store_true")
    options = parse.parse_args()
    if options.summary:
        print(summary(read()))
        return
    os.environ[ENVIRONMENT] = ""
    run(options.network, options.spec or shipped(), options.objective, options.bits, options.seconds)


if __name__ == "__main__":
    main()
