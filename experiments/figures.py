"""`python -m experiments.figures`: every figure of docs/figures, redrawn from the CSVs under results/ alone.

Per profile: the Pareto fronts, accuracy by configuration with intervals, learned offsets beside the activation's
minimum (LSQ+ Figure 2), first and learned weight scales for each initialisation (LSQ+ Figure 1).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from experiments import pareto_figures, table
from experiments.drawing import save
from experiments.pareto_figures import COLOURS, MACHINES
from experiments.profiles import CONFIGS, INITS
from experiments.table import Interval, Row
from experiments.tables import matches

SILU_MINIMUM = -0.2784645
# The figures of this file; docs/figures has others too.
KINDS = ("pareto-", "configurations-", "offsets-", "weight-scales-")


def configurations(rows: Sequence[Row]) -> Figure | None:
    """Bars of accuracy by configuration and precision, one panel per network, each seed a dot."""
    groups = table.group([r for r in rows if any(matches(r, config=c) for c in CONFIGS)], "network", "data")
    if not groups:
        return None
    figure = Figure(figsize=(5.2 * len(groups), 3.6), layout="constrained")
    for axes, ((network, data), members) in zip(
        figure.subplots(1, len(groups), squeeze=False)[0], groups.items(), strict=True
    ):
        bits = list(dict.fromkeys(row["bits"] for row in members))
        for j, config in enumerate(CONFIGS):
            for i, b in enumerate(bits):
                chosen = [row for row in members if row["bits"] == b and matches(row, config=config)]
                values = [float(row["test_accuracy_percent"]) for row in chosen if row["diverged"] != "True"]
                if not values:
                    continue
                interval, place = Interval.of(values), i + 0.2 * (j - 1.5)
                axes.bar(place, interval.mean, 0.18, color=COLOURS[config], label=f"c{config}" if i == 0 else None,
                         yerr=interval.half_width, ecolor="#444444", capsize=2)  # fmt: skip
                axes.plot([place] * len(values), values, ".", color="black", markersize=3)
        floats = [float(r["test_accuracy_percent"]) for r in rows if r["bits"] == "float" and r["network"] == network]
        if floats:
            axes.axhline(Interval.of(floats).mean, color="#999999", linestyle=":", linewidth=1)
        shown = [float(row["test_accuracy_percent"]) for row in members if row["diverged"] != "True"]
        axes.set_ylim(max(0.0, min(shown) - 5), min(100.0, max([*shown, *floats]) + 2))
        axes.set_xticks(range(len(bits)), bits)
        axes.set_title(f"{network} on {data}", loc="left", fontsize=9)
        axes.set_ylabel("test accuracy (%), axis cut")
        axes.legend(fontsize=7, frameon=False, ncols=4)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def offsets(rows: Sequence[Row], quantizers: Sequence[Row]) -> Figure | None:
    """Learned beta per layer and the least activation seen (LSQ+ Figure 2): configuration 4, the network's own bits."""
    chosen = {row["key"]: row for row in rows if matches(row, config="4") and row["seed"] == "0"}
    # In configuration 4 code 0 stands for beta: where SiLU's outputs begin.
    mine = [q for q in quantizers if q["key"] in chosen and q["config"] == "4" and q["is_weight"] == "False"]
    groups = table.group(mine, "key")
    if not groups:
        return None
    figure = Figure(figsize=(8.0, 2.7 * len(groups)), layout="constrained")
    for axes, ((key,), members) in zip(
        figure.subplots(len(groups), 1, squeeze=False)[:, 0], groups.items(), strict=True
    ):
        place = np.arange(len(members))
        axes.plot(
            place, [float(q["beta_initial"]) for q in members], "x", color="#999999", label="beta, first value (Eq. 8)"
        )
        axes.plot(place, [float(q["beta_final"]) for q in members], "o", color=COLOURS["4"], label="beta, learned")
        axes.plot(
            place, [float(q["observed_min"]) for q in members], "_", color="black", markersize=10, label="least value"
        )
        axes.axhline(SILU_MINIMUM, color="#999999", linewidth=0.8, linestyle=":")
        axes.set_xticks(place, [q["quantizer"].removesuffix(".input_quantizer") for q in members], rotation=60,
                        ha="right", fontsize=6)  # fmt: skip
        axes.set_title(
            f"{chosen[key]['network']} {chosen[key]['bits']} config 4 (dotted: SiLU's minimum)", loc="left", fontsize=9
        )
        axes.legend(fontsize=7, frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


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
            axes.plot(place + np.linspace(-0.25, 0.25, len(ratio)), ratio, ".", markersize=4)
        axes.axhline(1, color="#999999", linewidth=0.8)
        axes.set_yscale("log")
        axes.set_xticks(range(len(shown)), shown)
        axes.set_title(f"{b}: first s over learned s, each weight tensor", loc="left", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


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


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0, 1 where --check finds a difference, 2 when no profile has results."""
    parser = argparse.ArgumentParser(prog="python -m experiments.figures", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder with one folder per profile")
    parser.add_argument("--out", type=Path, default=Path("docs/figures"))
    parser.add_argument("--check", action="store_true", help="draw elsewhere and compare: none missing, none too many")
    options = parser.parse_args(arguments)
    folders = sorted(path.parent for path in options.results.glob("*/runs.csv"))
    if not folders:
        print(f"experiments.figures: {options.results}: no PROFILE/runs.csv below it", file=sys.stderr)
        return 2
    if options.check:
        with tempfile.TemporaryDirectory() as elsewhere:
            drawn = {path.name for folder in folders for path in draw_profile(folder, Path(elsewhere))}
        there = {path.name for path in options.out.iterdir() if path.name.startswith(KINDS)}
        for name in sorted(drawn ^ there):
            fault = "is not drawn from the results any more" if name in there else "is missing"
            print(f"experiments.figures: {options.out / name}: {fault}; run python -m experiments.figures")
        return int(drawn != there)
    for path in [path for folder in folders for path in draw_profile(folder, options.out)]:
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
