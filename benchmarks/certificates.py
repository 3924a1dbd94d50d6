"""Proofs of every distinct layer of five networks on every shipped spec, into results/certificates.csv.

    python -m benchmarks.certificates [--spec A B ...] [--network ...] [--effort proven] [--objective edp] [--seconds S]
    python -m benchmarks.certificates --document

One row per layer, spec and space (`perfect` or `proven`, docs/search.md): price, lower bound, whether the search ended
by itself within S seconds, CPU seconds with the quick search included, the root bound (what was known once a mapping
was priced) with its time, and how far the price lies above the bound of all legal mappings, whatever their tile sizes.
Cache off. Rows that are there already are left alone, so a run that was cut goes on where it was; delete rows to
measure them again. A spec that cannot run a layer gets a row that says so. `--document` writes the
tables of docs/search_results.md.
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
from hwsim.errors import HwsimError
from hwsim.files.csv_text import csv_text
from hwsim.machine.load import load_accelerator
from hwsim.network.layer import Layer
from hwsim.search.cache import ENVIRONMENT
from hwsim.search.layer import search
from hwsim.search.objective import Objective
from hwsim.search.result import Effortful

RESULTS = Path("results/certificates.csv")
PAGE = Path("docs/search_results.md")
BEGIN, END = "<!-- begin certificates -->\n", "<!-- end -->"
KEY = ("network", "layer", "spec", "objective", "space")
COLUMNS = (
    *KEY, "value", "lower_bound", "gap_percent", "ended", "cpu_s", "root_below_percent", "root_ms",
    "any_tiles_gap_percent", "covered", "priced", "refused",
)  # fmt: skip
MEASURED = "mico_measured"  # has no mappings to search
Row = dict[str, str]


def read(path: Path = RESULTS) -> list[Row]:
    """All rows."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def proof(layer: Layer, spec: str, objective: Objective, effort: Effortful, seconds: float) -> Row:
    """What the search says of one layer on one spec."""
    machine = load_accelerator(spec)
    began = time.process_time()
    try:
        found = search(layer, machine, objective, effort=effort, time_limit_s=seconds)
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
        "any_tiles_gap_percent": f"{100 * c.any_tiles_gap:.4f}",
        "covered": str(c.covered),
        "priced": str(c.priced),
    }


def run(
    networks: Iterable[str], specs: Iterable[str], objective: Objective, effort: Effortful, bits: int, seconds: float
) -> None:
    """Rows that are missing, written one by one."""
    known = {tuple(row[name] for name in KEY) for row in read()}
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    for spec in specs:
        for network in networks:
            for layer in layers(network, bits):
                key = (network, layer.name, spec, objective, effort)
                if key in known:
                    continue
                row = dict(zip(KEY, key, strict=True)) | proof(layer, spec, objective, effort, seconds)
                fresh = not RESULTS.is_file()
                with RESULTS.open("a", newline="", encoding="utf-8") as file:
                    file.write(csv_text([*([COLUMNS] if fresh else []), [row.get(name, "") for name in COLUMNS]]))
            print(f"{spec} {network}", flush=True)


def summary(rows: list[Row]) -> str:
    """Per objective and space a table with a line per spec: CPU seconds per network, layers that did not end."""
    networks = list(NETWORKS)
    heads = (
        *networks,
        "largest gap",
        "root bound below: median, most",
        "root, ms",
        "above any: median, most",
        "points covered/s",
    )
    parts: list[str] = []
    for objective, space in dict.fromkeys((row["objective"], row["space"]) for row in rows):
        lines = [f"| {objective}, {space} | {' | '.join(heads)} |", "|" + " --- |" * (len(heads) + 1)]
        mine = [row for row in rows if row["objective"] == objective and row["space"] == space and not row["refused"]]
        for spec in dict.fromkeys(row["spec"] for row in mine):
            of_spec = [row for row in mine if row["spec"] == spec]
            cells = [cell([row for row in of_spec if row["network"] == n], len(NETWORKS[n])) for n in networks]
            below = [float(row["root_below_percent"]) for row in of_spec]
            above = [float(row["any_tiles_gap_percent"]) for row in of_spec]
            covered, seconds = (sum(float(row[name]) for row in of_spec) for name in ("covered", "cpu_s"))
            cells += [
                f"{max(float(row['gap_percent']) for row in of_spec):.2f} %",
                f"{statistics.median(below):.2f} %, {max(below):.1f} %",
                f"{statistics.median(float(row['root_ms']) for row in of_spec):.0f}",
                f"{statistics.median(above):.2f} %, {max(above):.0f} %",
                f"{covered / seconds:,.0f}",
            ]
            lines.append(f"| {spec} | {' | '.join(cells)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def cell(rows: list[Row], layers_in_all: int) -> str:
    """CPU seconds of a network, and how many layers ended where not all did."""
    if not rows:
        return "-"
    ended = sum(row["ended"] == "yes" for row in rows)
    text = f"{sum(float(row['cpu_s']) for row in rows):.2f}"
    return text if ended == layers_in_all else f"{text} ({ended}/{layers_in_all})"


def documented(page: str) -> str:
    """The page with the tables between its marks drawn anew."""
    before, rest = page.split(BEGIN, 1)
    _, after = rest.split(END, 1)
    return f"{before}{BEGIN}{summary(read())}\n{END}{after}"


def shipped() -> list[str]:
    """Names of the shipped specs with mappings to search."""
    return sorted(path.stem for path in Path("accel_specs").glob("*.yaml") if path.stem != MEASURED)


def main() -> None:
    parse = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parse.add_argument("--spec", default=None, nargs="+", help="all shipped ones by default")
    parse.add_argument("--network", default=list(NETWORKS), choices=NETWORKS, nargs="+")
    parse.add_argument("--objective", default="energy", choices=("energy", "latency", "edp"))
    parse.add_argument("--effort", default="perfect", choices=("perfect", "proven"), help="the space to prove")
    parse.add_argument("--bits", type=int, default=8)
    parse.add_argument("--seconds", type=float, default=600.0, help="limit per layer")
    parse.add_argument("--document", action="store_true", help="write the tables of docs/search_results.md")
    options = parse.parse_args()
    if options.document:
        PAGE.write_text(documented(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
        return
    os.environ[ENVIRONMENT] = ""
    run(options.network, options.spec or shipped(), options.objective, options.effort, options.bits, options.seconds)


if __name__ == "__main__":
    main()
