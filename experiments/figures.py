"""`python -m experiments.figures`: the figures of docs/figures, redrawn from the CSVs under results/ alone.

Per profile: the Pareto fronts, accuracy by configuration with intervals, learned offsets beside the activation's
minimum (LSQ+ Figure 2), first and learned weight scales for each initialisation (LSQ+ Figure 1). Then those of single
studies (STUDIES). OTHERS rest on more than rows: `make figures` runs the commands that docs/gallery.md names.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from experiments import border_error, fusion_kinds, headline, mac_styles, pareto_figures, table
from experiments.drawing import save
from experiments.language import page as language_page
from experiments.language import sweep
from experiments.pareto_figures import COLOURS, MACHINES
from experiments.profiles import CONFIGS, INITS, PROFILES
from experiments.table import Interval, Row
from experiments.tables import matches
from experiments.vision import page as vision_page
from hwsim.console import wrote
from hwsim.report.style import INK, QUIET, colours_of, in_style

RESULTS = Path("results")
SILU_MINIMUM = -0.2784645
INIT_COLOURS = colours_of(INITS)
# Figures of single studies, by name.
STUDIES: dict[str, Callable[[], Figure]] = {
    "headline": lambda: headline.draw(table.read(headline.TABLE)),
    "border_error": lambda: border_error.draw(table.read(border_error.TABLE)),
    "fusion_kinds": lambda: fusion_kinds.draw(table.read(fusion_kinds.TABLE)),
    "mac_styles": lambda: mac_styles.draw(mac_styles.from_csv(mac_styles.TABLE)),
    "language_formats": language_page.STUDY.front,
    "language_sweep": lambda: language_page.rates(table.read(sweep.TABLE)),
    "vision_formats": vision_page.STUDY.front,
}
OTHERS = ("bops", "mobilenet_v2_sizing", "report_page")  # random assignments, a search, a browser


@in_style
def configurations(rows: Sequence[Row]) -> Figure | None:
    """Bars of accuracy by configuration and precision, one panel per network, each seed a dot."""
    groups = table.group([r for r in rows if any(matches(r, config=c) for c in CONFIGS)], "network", "data")
    if not groups:
        return None
    figure = Figure(figsize=(5.2 * len(groups), 3.6), layout="constrained")
    for axes, ((network, data), members) in zip(
        figure.subplots(1, len(groups), squeeze=False)[0], groups.items(), strict=True
    ):
        bits = sorted({row["bits"] for row in members})
        configs = [config for config in CONFIGS if any(matches(row, config=config) for row in members)]
        ends: list[float] = []
        for j, config in enumerate(configs):
            for i, b in enumerate(bits):
                chosen = [row for row in members if row["bits"] == b and matches(row, config=config)]
                values = [float(row["test_accuracy_percent"]) for row in chosen if row["diverged"] != "True"]
                if not values:
                    continue
                interval, place = Interval.of(values), i + 0.2 * (j - (len(configs) - 1) / 2)
                # an accuracy beyond 0 or 100 % is none
                low, high = max(0.0, interval.low), min(100.0, interval.high)
                ends += [low, high, *values]
                axes.bar(place, interval.mean, 0.18, color=COLOURS[config],
                         label=f"configuration {config}" if i == 0 else None,
                         yerr=[[interval.mean - low], [high - interval.mean]], ecolor="#444444", capsize=2)  # fmt: skip
                axes.plot([place] * len(values), values, ".", color="black", markersize=3)
        floats = [float(r["test_accuracy_percent"]) for r in rows if r["bits"] == "float" and r["network"] == network]
        if floats:
            axes.axhline(Interval.of(floats).mean, color=QUIET, linestyle=":", linewidth=1, label="float")
        axes.set_ylim(max(0.0, min(ends) - 3), min(102.0, max([*ends, *floats]) + 2))
        axes.set_xticks(range(len(bits)), bits)
        axes.set_title(f"{network} on {data}")
        axes.set_ylabel("test accuracy (%), axis cut")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


@in_style
def offsets(rows: Sequence[Row], quantizers: Sequence[Row]) -> Figure | None:
    """Learned beta per layer and the least activation seen (LSQ+ Figure 2): configuration 4, the network's own bits."""
    chosen = {row["key"]: row for row in rows if matches(row, config="4") and row["seed"] == "0"}
    # In configuration 4 code 0 stands for beta: where SiLU's outputs begin.
    mine = [q for q in quantizers if q["key"] in chosen and q["config"] == "4" and q["is_weight"] == "False"]
    groups = table.group(mine, "key")
    if not groups:
        return None
    heights = [len(members) + 3 for members in groups.values()]
    figure = Figure(figsize=(8.0, 0.17 * sum(heights) + 0.5), layout="constrained")
    panels = figure.subplots(len(groups), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, ((key,), members) in zip(panels, groups.items(), strict=True):
        place = np.arange(len(members))
        series = (
            ("beta_initial", "x", QUIET, "beta, first value (Eq. 8)"),
            ("beta_final", "o", COLOURS["4"], "beta, learned"),
            ("observed_min", "|", INK, "least value seen"),
        )
        axes.axvline(SILU_MINIMUM, color=QUIET, linewidth=0.8, linestyle=":", label="SiLU's minimum")
        for column, marker, colour, label in series:
            values = [float(q[column]) for q in members]
            axes.plot(values, place, marker, color=colour, label=label, markersize=9 if marker == "|" else 5)
        axes.set_yticks(place, [q["quantizer"].removesuffix(".input_quantizer") for q in members])
        axes.set_ylim(len(members) - 0.4, -0.6)
        axes.grid(axis="y")
        axes.set_title(f"{chosen[key]['network']} {chosen[key]['bits']}, configuration 4")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


@in_style
def weight_scales(rows: Sequence[Row], quantizers: Sequence[Row]) -> Figure | None:
    """First over learned s of every weight for each initialisation (LSQ+ Figure 1): 1 is where training ends."""
    inits = {row["key"]: row for row in rows if row["seed"] == "0" and any(matches(row, init=i) for i in INITS)}
    mine = [q for q in quantizers if q["key"] in inits and q["is_weight"] == "True"]
    keys = table.group(mine, "key")
    bits = list(dict.fromkeys(inits[key]["bits"] for (key,) in keys))
    if len(keys) < 2:
        return None
    figure = Figure(figsize=(4.6 * len(bits), 3.4), layout="constrained")
    for axes, b in zip(figure.subplots(1, len(bits), squeeze=False)[0], bits, strict=True):
        shown = [i for i in INITS if any(inits[k]["init"] == i and inits[k]["bits"] == b for (k,) in keys)]
        for place, init in enumerate(shown):
            members = [q for (k,), qs in keys.items() if inits[k]["init"] == init and inits[k]["bits"] == b for q in qs]
            ratio = np.sort([float(q["s_initial"]) / float(q["s_final"]) for q in members])
            across = place + np.linspace(-0.25, 0.25, len(ratio))
            axes.plot(across, ratio, ".", markersize=4, color=INIT_COLOURS[init])
        axes.axhline(1, color=QUIET, linewidth=0.8)
        axes.set_yscale("log")
        for which in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            which(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5) if max_over_min(axes) > 5 else range(1, 10)))
        axes.set_xticks(range(len(shown)), shown)
        axes.set_xlim(-0.5, len(shown) - 0.5)
        axes.set_title(f"{b}: first s over learned s, each weight tensor")
    return figure


def max_over_min(axes: Any) -> float:
    """How many times the top of an axis is its bottom."""
    low, high = axes.get_ylim()
    return float(high / low)


def draw_profile(results: Path, folder: Path) -> list[Path]:
    """All figures that one profile's CSVs allow."""
    rows, quantizers = table.current(table.read(results / "runs.csv")), table.read(results / "quantizers.csv")
    written: list[Path] = []
    if (results / "pareto.csv").exists():
        written += pareto_figures.draw(results / "pareto.csv", folder, f"pareto-{results.name}", MACHINES)
    drawn = {
        "configurations": configurations(rows),
        "offsets": offsets(rows, quantizers),
        "weight-scales": weight_scales(rows, quantizers),
    }
    for name, figure in drawn.items():
        if figure is not None:
            written += save(figure, folder, f"{name}-{results.name}")
    return written


def draw_all(folders: Sequence[Path], out: Path) -> list[Path]:
    """The figures of these profiles; beside those of results/ also the ones of single studies, whose rows are there."""
    written = [path for folder in folders for path in draw_profile(folder, out)]
    if folders[0].parent == RESULTS:
        written += [path for name, draw in STUDIES.items() for path in save(draw(), out, name)]
    return written


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0, 1 where --check finds a difference, 2 when no profile has results."""
    parser = argparse.ArgumentParser(prog="python -m experiments.figures", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder with one folder per profile")
    parser.add_argument("--out", type=Path, default=Path("docs/figures"))
    parser.add_argument("--check", action="store_true", help="draw elsewhere and compare: none missing, none too many")
    options = parser.parse_args(arguments)
    folders = [options.results / name for name in sorted(PROFILES) if (options.results / name / "runs.csv").exists()]
    if not folders:
        print(f"experiments.figures: {options.results}: no PROFILE/runs.csv below it", file=sys.stderr)
        return 2
    if options.check:
        with tempfile.TemporaryDirectory() as elsewhere:
            drawn = {path.name for path in draw_all(folders, Path(elsewhere))}
        there = {path.name for path in options.out.iterdir() if not path.name.startswith(OTHERS)}
        for name in sorted(drawn ^ there):
            fault = "is not drawn from the results any more" if name in there else "is missing"
            print(f"experiments.figures: {options.out / name}: {fault}; run python -m experiments.figures")
        return int(drawn != there)
    for path in draw_all(folders, options.out):
        wrote(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
