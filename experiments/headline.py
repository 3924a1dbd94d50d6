"""`python -m experiments.headline`: accuracy against energy of the SiLU network, LSQ+'s offsets priced, policies apart.

Accuracies come from results/PROFILE/runs.csv; every point is priced with `hwsim.evaluate` on one machine of each kind.
Writes results/headline.csv and docs/figures/headline.*; `--draw` makes the figure again from the CSV alone.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from scipy import stats

from experiments import table
from experiments.drawing import save
from experiments.jobs import Job
from experiments.pricing import workload_of
from experiments.table import Interval, Row
from hwsim.console import wrote
from hwsim.errors import HwsimError
from hwsim.files.identity import MODEL_VERSION
from hwsim.machine.load import load_accelerator
from hwsim.report.evaluation import Request, evaluate_workload
from hwsim.report.report import Report
from hwsim.report.style import QUIET, colours_of, in_style

NETWORK = "silu_se_net"
MACHINES = ("eyeriss_v1", "gemmini_16x16", "ethos_u55_256", "bit_fusion", "stripes", "t4")
COLUMNS = 3  # of panels
TABLE, FIGURES = Path("results/headline.csv"), Path("docs/figures")
TEST_IMAGES = 10_000  # of CIFAR-10
BITS = ("W2A2", "W3A3", "W4A4")
SERIES = ("no offset", "pad_code", "snap_offset", "pad_beta", "border_bias")
MARKERS = {"W2A2": "o", "W3A3": "^", "W4A4": "s", "W8A8": "D"}


def series_of(row: Row) -> str:
    """Configuration 1 has no offset; configuration 4 is told apart by its padding policy."""
    return "no offset" if row["config"] == "1" else row["padding_policy"]


def points(runs: Path) -> Iterator[tuple[Job, dict[str, Any]]]:
    """Every precision and series: the job that it prices, and its accuracy where it was trained."""
    rows = [row for row in table.current(table.read(runs)) if row["network"] == NETWORK and table.usual(row)]
    finished = [{**row, "series": series_of(row)} for row in rows if row["diverged"] != "True"]
    trained = table.group([row for row in finished if row["config"] in ("1", "4")], "bits", "series")
    for bits in BITS:
        for series in SERIES:
            found = trained.get((bits, series), [])
            config, policy = ("1", "pad_code") if series == "no offset" else ("4", series)
            job = Job(NETWORK, (), "cifar10", bits=bits, config=config, padding_policy=policy)
            accuracies = [float(row["test_accuracy_percent"]) for row in found]
            cells = {"bits": bits, "series": series, "runs": len(found), **accuracy_cells(accuracies)}
            yield job, {**cells, "epochs": found[0]["epochs"] if found else ""}


def accuracy_cells(found: Sequence[float]) -> dict[str, Any]:
    """Mean accuracy (%), its 95 % interval, and what the interval is of; nothing where no run is.

    The interval is that of the seeds; for a single run only that of the test images (Clopper-Pearson), which says
    nothing about other seeds.
    """
    if not found:
        return dict.fromkeys(("accuracy_percent", "accuracy_low", "accuracy_high", "interval_of"))
    interval = Interval.of(list(found))
    if interval.half_width is not None:
        low, high, origin = interval.mean - interval.half_width, interval.mean + interval.half_width, "seeds"
    else:
        right = round(found[0] / 100 * TEST_IMAGES)
        bounds = stats.binomtest(right, TEST_IMAGES).proportion_ci(0.95)
        low, high, origin = 100 * bounds.low, 100 * bounds.high, "test images"
    return {"accuracy_percent": interval.mean, "accuracy_low": low, "accuracy_high": high, "interval_of": origin}


def cost_cells(report: Report) -> dict[str, Any]:
    """Energy with the interval of the machine's estimates, time, and how far the mapping is from its bound."""
    energy, totals = report.cost.energy_interval, report.cost.totals
    return {
        "status": "ok", "energy_pj": totals.energy_pj, "energy_low_pj": energy.low_pj, "energy_high_pj": energy.high_pj,
        "latency_s": totals.latency_s,
        "offset_energy_pj": dict(report.cost.energy_pj_by_component).get("offset", 0.0),
    }  # fmt: skip


def price(job: Job, machine: str, effort: str) -> dict[str, Any]:
    """A point's cost on a machine, or why the machine refuses it."""
    try:
        return cost_cells(evaluate_workload(workload_of(job), load_accelerator(machine), Request(effort=effort)))
    except HwsimError as problem:
        return {"status": "refused", "reason": " ".join(str(problem).split())}


def measure(runs: Path, machines: Sequence[str], effort: str) -> list[dict[str, Any]]:
    """A row per machine and point."""
    rows: list[dict[str, Any]] = []
    for machine in machines:
        for job, point in points(runs):
            rows.append({
                "machine": machine, **point, "float_accuracy_percent": float_accuracy(runs), "effort": effort,
                "model_version": MODEL_VERSION, **price(job, machine, effort),
            })  # fmt: skip
            print(f"{machine} {point['bits']} {point['series']}: {rows[-1].get('energy_pj')}", file=sys.stderr)
    return rows


def float_accuracy(runs: Path) -> float:
    """Of the network that all points started from (%)."""
    (row,) = [r for r in table.read(runs) if r["network"] == NETWORK and r["bits"] == "float"]
    return float(row["test_accuracy_percent"])


@in_style
def draw(rows: Sequence[Row]) -> Figure:
    """Left: a panel per machine, energy against accuracy. Right: what an offset adds, by machine and policy."""
    machines = table.group(rows, "machine")
    lines = math.ceil(len(machines) / COLUMNS)
    figure = Figure(figsize=(11.5, 2.3 * lines + 0.7), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(2.5, 1))
    grid = left.subplots(lines, COLUMNS, sharey=True, squeeze=False)
    for axes in list(grid.flat)[len(machines) :]:
        axes.set_visible(False)
    for axes, ((machine,), members) in zip(grid.flat, machines.items(), strict=False):
        panel(axes, machine, members)
    for line in grid:
        line[0].set_ylabel("test accuracy (%)")
    prices(right.subplots(), machines)
    figure.legend(handles=legend(rows), loc="outside lower center", ncols=9)
    return figure


def panel(axes: Axes, machine: str, rows: Sequence[Row]) -> None:
    """Points of one machine; bars are 95 % intervals of accuracy, and what the machine's estimates leave of energy."""
    axes.xaxis.set_major_locator(MaxNLocator(5))  # more labels touch in so narrow a panel
    colours = colours_of(SERIES)
    for row in rows:
        if row["status"] != "ok" or not row["accuracy_percent"]:
            continue
        energy, low, high = (float(row[name]) * 1e-6 for name in ("energy_pj", "energy_low_pj", "energy_high_pj"))
        accuracy = float(row["accuracy_percent"])
        axes.errorbar(
            energy, accuracy, xerr=[[energy - low], [high - energy]],
            yerr=[[accuracy - float(row["accuracy_low"])], [float(row["accuracy_high"]) - accuracy]],
            color=colours[row["series"]], marker=MARKERS[row["bits"]], markersize=5, elinewidth=0.6, alpha=0.9,
        )  # fmt: skip
    refused = sorted({row["bits"] for row in rows if row["status"] != "ok"})
    axes.set_title(machine + (f" (refuses {', '.join(refused)})" if refused else ""))
    axes.axhline(float(rows[0]["float_accuracy_percent"]), color=QUIET, linewidth=0.8, linestyle=":")
    axes.set_xlabel("energy of an image (µJ)")
    axes.set_xlim(left=0)


def added_percent(rows: Sequence[Row], column: str = "energy_pj") -> dict[tuple[str, str], float]:
    """(bits, series) -> percent more than the same bits without an offset."""
    costs = {(row["bits"], row["series"]): float(row[column]) for row in rows if row["status"] == "ok"}
    return {
        (bits, series): 100 * (cost / costs[bits, SERIES[0]] - 1)
        for (bits, series), cost in costs.items()
        if series != SERIES[0] and (bits, SERIES[0]) in costs
    }


def prices(axes: Axes, machines: Mapping[tuple[str, ...], Sequence[Row]]) -> None:
    """A line per machine, a mark per policy and precision."""
    colours = colours_of(SERIES)
    for place, members in enumerate(machines.values()):
        for (bits, series), added in added_percent(members).items():
            shift = 0.16 * (SERIES.index(series) - 2.5)
            axes.plot(added, place + shift, MARKERS[bits], color=colours[series], markersize=4)
    axes.set_yticks(range(len(machines)), [name for (name,) in machines])
    axes.invert_yaxis()
    axes.axvline(0, color=QUIET, linewidth=0.8)
    axes.grid(axis="x")
    axes.set_xlabel("energy added by the offset (%)")


def legend(rows: Sequence[Row]) -> list[Line2D]:
    """Colours of the series, marks of the precisions, and the float network's line; only what is drawn."""
    colours = colours_of(SERIES)
    shown = [name for name in SERIES if any(row["series"] == name for row in rows)]
    entries = [Line2D([], [], color=colours[name], marker="o", linestyle="", label=name) for name in shown]
    bits = [name for name in MARKERS if any(row["bits"] == name for row in rows)]
    entries += [Line2D([], [], color=QUIET, marker=MARKERS[name], linestyle="", label=name) for name in bits]
    return [*entries, Line2D([], [], color=QUIET, linestyle=":", label="float")]


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 2 bad input."""
    p = argparse.ArgumentParser(prog="python -m experiments.headline", description=(__doc__ or "").split(": ", 1)[1])
    p.add_argument("--runs", type=Path, default=Path("results/cpu_long/runs.csv"), help="the trainings")
    p.add_argument("--machines", nargs="+", default=MACHINES, metavar="ACCEL")
    p.add_argument("--effort", choices=("quick", "auto"), default="auto", help="auto: proven for the network")
    p.add_argument("--table", type=Path, default=TABLE)
    p.add_argument("--figures", type=Path, default=FIGURES)
    p.add_argument("--draw", action="store_true", help="make the figure again from the table")
    options = p.parse_args(arguments)
    try:
        if not options.draw:
            table.write(options.table, measure(options.runs, options.machines, options.effort))
        rows = table.read(options.table)
        if not rows:
            raise ValueError(f"{options.table}: no rows: run without --draw first")
        for path in save(draw(rows), options.figures, "headline"):
            wrote(path)
    except (HwsimError, ValueError, OSError) as problem:
        print(f"experiments.headline: {problem}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
