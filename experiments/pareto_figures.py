"""Accuracy against energy, latency, weight memory and peak activation memory, drawn from pareto.csv alone.

One figure per network, a row per accelerator. A staircase joins the points that nobody beats; coloured points may be on
the front within their 95 % intervals, grey ones are dominated whatever the intervals hold. Level bars are what the
machine's estimates leave open of energy and latency; an estimate that is off moves all points of its machine, so these
bars do not decide who is on the front. What a machine refuses is written into its row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments import table
from experiments.drawing import save
from experiments.table import MIXED, Row, usual
from hwsim.explore.pareto import non_dominated, possibly_non_dominated
from hwsim.report.style import QUIET, colours_of, in_style

# Column of pareto.csv, its label, and the factor to the label's unit.
AXES = (
    ("energy_pj", "energy (µJ)", 1e-6),
    ("latency_s", "latency (µs)", 1e6),
    ("weight_bits", "weights (kB)", 1 / 8000),
    ("peak_activation_bits", "peak activations (kB)", 1 / 8000),
)
# Columns of what estimates leave open of a cost.
ENDS = {"energy_pj": ("energy_low_pj", "energy_high_pj"), "latency_s": ("latency_low_s", "latency_high_s")}
COLOURS = colours_of(("1", "2", "3", "4", "auto"))
MARKERS = {"W2A2": "o", "W3A3": "^", "W4A4": "s", "W8A8": "D"}
FILLS = {"pad_code": "full", "pad_beta": "left", "snap_offset": "bottom", "border_bias": "none"}
GREY = "#b5b5b5"
PER_PAGE = 6
# The machines of a figure unless others are asked for, one of each kind; pareto.csv has all of them.
MACHINES = ("eyeriss_v1", "gemmini_16x16", "ethos_u55_256", "bit_fusion", "stripes", "t4")


def label_of(row: Row) -> str:
    """'W4A4 c3', with the padding policy where it is not the default; mixed bits by what they were chosen for."""
    if row["bits"].startswith(MIXED):
        return "mixed " + row["bits"].removeprefix(MIXED + row["network"] + "-")
    policy = "" if row["padding_policy"] == "pad_code" else f" {row['padding_policy']}"
    return f"{row['bits']} c{row['config']}{policy}"


def values_of(rows: Sequence[Row], column: str) -> tuple[Any, Any, Any]:
    """(cost, accuracy, half-width of its interval) as arrays; a single run could be anywhere: infinity."""
    cost = np.array([float(row[column]) for row in rows])
    accuracy = np.array([float(row["accuracy_percent"]) for row in rows])
    half = np.array([float(row["accuracy_half_width"] or math.inf) for row in rows])
    return cost, accuracy, half


def ends_of(rows: Sequence[Row], column: str) -> tuple[Any, Any]:
    """(lowest, highest) that a cost may be; the cost itself where nothing of it is estimated."""
    low, high = (
        np.array([float(row.get(end) or row[column]) for row in rows]) for end in ENDS.get(column, (column, column))
    )
    return low, high


def cost_range(rows: Sequence[Row], column: str) -> tuple[float, float]:
    """What of a cost is shown: all points, and their bars up to half the points' own range; bars may leave it."""
    cost = np.array([float(row[column]) for row in rows])
    low, high = ends_of(rows, column)
    room = 0.5 * float(np.ptp(cost)) + 0.1 * float(cost.max())
    least, most = max(float(low.min()), float(cost.min()) - room), min(float(high.max()), float(cost.max()) + room)
    margin = 0.14 * float(np.ptp(cost)) or 0.05 * float(cost.max()) or 1.0
    return min(least, float(cost.min()) - margin), max(most, float(cost.max()) + margin)


def fronts(cost: Any, accuracy: Any, half: Any) -> tuple[Any, Any]:
    """Masks: on the front of the means, and possibly on the front given the intervals."""
    flags = (False, True)
    sure = non_dominated(np.stack([cost, accuracy], 1), flags)
    best, worst = np.stack([cost, accuracy + half], 1), np.stack([cost, accuracy - half], 1)
    return sure, possibly_non_dominated(best, worst, flags)


def draw_panel(axes: Axes, rows: Sequence[Row], column: str, label: str, factor: float) -> Any:
    """One accelerator, one cost; returns the mask of the points that may be on the front."""
    cost, accuracy, half = values_of(rows, column)
    low, high = ends_of(rows, column)
    bars = np.stack([cost - low, high - cost]) * factor
    cost = cost * factor
    front, possible = fronts(cost, accuracy, half)
    order = np.argsort(cost[front], kind="stable")
    axes.step(cost[front][order], accuracy[front][order], where="post", color="#555555", linewidth=1, zorder=1)
    for i, row in enumerate(rows):
        colour = COLOURS[row["config"]] if possible[i] else GREY
        axes.errorbar(
            cost[i], accuracy[i], yerr=half[i] if math.isfinite(half[i]) else None, color=colour,
            marker=MARKERS.get(row["bits"], "v"),
            fillstyle=FILLS[row["padding_policy"]], markersize=6, elinewidth=0.8, capsize=2,
            zorder=3 if possible[i] else 2,
        )  # fmt: skip
        if bars[:, i].any():
            axes.errorbar(
                cost[i], accuracy[i], xerr=bars[:, i : i + 1], fmt="none", ecolor=colour, elinewidth=0.6, alpha=0.4,
                zorder=1,
            )  # fmt: skip
    axes.set_xlabel(label)
    axes.set_xlim(*(factor * end for end in cost_range(rows, column)))
    axes.locator_params(axis="x", nbins=5)
    axes.ticklabel_format(axis="x", useOffset=False)
    return possible


# Where a label may stand around its mark, in points: rings of sixteen places.
RINGS = np.array(
    [
        (radius * math.cos(turn * math.pi / 8), radius * math.sin(turn * math.pi / 8), radius)
        for radius in (9, 16, 24, 34, 46, 60, 76)
        for turn in range(16)
    ]
)
LABEL_SIZE = 6.0
MOST_LABELS = 10  # of more points, the dominated ones have no label


def place_labels(axes: Axes, labels: Sequence[str], x: Any, y: Any, possible: Any) -> None:
    """Labels that cover neither each other nor a mark, each joined to its own; dominated ones in grey, where few.

    Greedy: of the places around each mark the nearest one that covers least. Call it when the axes have their final
    place in the figure.
    """
    points = axes.transData.transform(np.stack([x, y], 1)) * 72 / axes.figure.dpi
    box = np.asarray(axes.bbox.extents) * 72 / axes.figure.dpi
    taken = [np.array([px - 4, py - 4, px + 4, py + 4]) for px, py in points]
    for i in np.argsort(-np.asarray(y), kind="stable"):
        if len(labels) > MOST_LABELS and not possible[i]:
            continue
        width, height = 0.62 * LABEL_SIZE * len(labels[int(i)]) + 4, LABEL_SIZE + 2
        side = np.sign(np.where(np.abs(RINGS[:, 0]) > 1, RINGS[:, 0], 0))
        middle = points[i] + np.stack([RINGS[:, 0] + side * width / 2, RINGS[:, 1]], 1)
        half = np.array([width / 2, height / 2])
        low, high = middle - half, middle + half
        others = np.array(taken)
        covered = np.clip(
            np.minimum(high[:, None], others[None, :, 2:]) - np.maximum(low[:, None], others[None, :, :2]), 0, None
        ).prod(2).sum(1)  # fmt: skip
        outside = (low < box[:2]).any(1) | (high > box[2:]).any(1)
        best = int(np.argmin(RINGS[:, 2] + 6 * covered + 1e4 * outside))
        taken.append(np.concatenate([low[best], high[best]]))
        colour = "#222222" if possible[i] else GREY
        axes.annotate(
            labels[int(i)], (x[i], y[i]), xytext=middle[best] - points[i], textcoords="offset points", color=colour,
            fontsize=LABEL_SIZE, ha="center", va="center", annotation_clip=False, zorder=4,
            bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.3},
            arrowprops={"arrowstyle": "-", "color": "#bbbbbb", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3},
        )  # fmt: skip


@in_style
def draw_network(rows: Sequence[Row]) -> Figure:
    """All accelerators of one network."""
    machines = table.group(rows, "accelerator")
    figure = Figure(figsize=(15.0, 3.1 * len(machines) + 0.6), layout="constrained")
    grid = figure.subplots(len(machines), len(AXES), squeeze=False, sharey="row")
    to_label: list[tuple[Axes, Sequence[Row], str, float, Any]] = []
    for line, ((machine,), members) in zip(grid, machines.items(), strict=True):
        priced = [row for row in members if row["status"] == "ok" and row.get("accuracy_percent")]
        line[0].set_ylabel(f"{machine}\ntest accuracy (%)")
        note = notes_of(members)
        if note:
            line[0].set_title(note, fontsize=7, loc="left", color="#a04000")
        if not priced:
            continue
        for axes, (column, label, factor) in zip(line, AXES, strict=True):
            to_label.append((axes, priced, column, factor, draw_panel(axes, priced, column, label, factor)))
            if priced[0].get("float_accuracy_percent"):
                axes.axhline(float(priced[0]["float_accuracy_percent"]), color=QUIET, linewidth=0.8, linestyle=":")
        line[0].set_ylim(*accuracy_range(priced))
    first = rows[0]
    seeds = sorted({int(row["seeds"]) for row in rows})
    figure.suptitle(
        f"{first['network']} on {first['data']}: mean of {'-'.join(map(str, seeds))} seeds, 95 % intervals; "
        "level bars: what estimates of the machine leave open, cut at the frame where wider\n"
        "c1..c4: configuration (LSQ+ Table 1); dotted: float; grey: dominated "
        "whatever the intervals hold (never a single run), labelled where few",
        fontsize=10,
    )
    figure.get_layout_engine().set(wspace=0.06)  # type: ignore[union-attr]  # labels of neighbouring axes do not touch
    figure.draw_without_rendering()  # settles where the axes are
    figure.set_layout_engine("none")
    for axes, priced, column, factor, possible in to_label:
        cost, accuracy, _ = values_of(priced, column)
        place_labels(axes, [label_of(row) for row in priced], cost * factor, accuracy, possible)
    return figure


def accuracy_range(rows: Sequence[Row]) -> tuple[float, float]:
    """What of the accuracies is shown: all means and the float network; intervals may leave it."""
    shown = [float(row["accuracy_percent"]) for row in rows]
    shown += [float(row["float_accuracy_percent"]) for row in rows if row.get("float_accuracy_percent")]
    room = 0.1 * (max(shown) - min(shown)) + 0.5
    return min(shown) - room, max(shown) + room


def notes_of(members: Sequence[Row]) -> str:
    """What the machine refused, and runs that diverged."""
    notes = [f"{label_of(row)} {row['status']}: {row['reason'][:90]}" for row in members if row["status"] != "ok"]
    notes += [
        f"{label_of(row)}: {row['diverged_runs']} run{'s' * (row['diverged_runs'] != '1')} diverged"
        for row in members
        if row["diverged_runs"] not in ("", "0")
    ]
    return "\n".join(notes[:4] + ([f"and {len(notes) - 4} more, see the CSV"] if len(notes) > 4 else []))


def draw(points: Path, folder: Path, name: str, machines: Sequence[str] | None = None) -> list[Path]:
    """Write NAME-NETWORK.png, .svg and .pdf for every network in `points`, PER_PAGE machines each; their paths."""
    found = table.current(table.read(points))
    rows = [row for row in found if usual(row) and (machines is None or row["accelerator"] in machines)]
    if not rows:
        raise ValueError(f"{points}: holds no points to draw; run python -m experiments.pareto first")
    written: list[Path] = []
    for (network,), members in table.group(rows, "network").items():
        found = list(table.group(members, "accelerator"))
        pages = [found[i : i + PER_PAGE] for i in range(0, len(found), PER_PAGE)]
        for number, page in enumerate(pages, start=1):
            shown = [row for row in members if (row["accelerator"],) in page]
            suffix = f"-{number}" if len(pages) > 1 else ""
            written += save(draw_network(shown), folder, f"{name}-{network}{suffix}")
    return written
