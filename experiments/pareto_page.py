"""The same points as one self-contained interactive page: hover for bits per layer, cost by component, the command.

Needs plotly (`pip install 'hwsim[report]'`); its script is written into the page, so that it opens without a network.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from experiments import table
from experiments.pareto_figures import AXES, COLOURS, GREY, fronts, label_of, notes_of, values_of
from experiments.table import Row, usual
from quant.data import write_atomically

SYMBOLS = {"W2A2": "circle", "W3A3": "triangle-up", "W4A4": "square", "W8A8": "diamond"}


def hover_text(row: Row) -> str:
    """What a point says: accuracy, seeds, cost by component, offset classes, bits per layer, the commands."""
    half = f" ± {float(row['accuracy_half_width']):.2f}" if row["accuracy_half_width"] else ""
    components = json.loads(row["energy_pj_by_component"])
    total = sum(components.values()) or 1.0
    parts = [f"{name} {100 * energy / total:.1f} %" for name, energy in components.items()]
    layers = [f"{name} {bits}" for name, bits in json.loads(row["bits_per_layer"]).items()]
    return "<br>".join([
        f"<b>{escape(label_of(row))}</b>: {float(row['accuracy_percent']):.2f}{half} % ({row['seeds']} seeds)",
        f"energy {float(row['energy_pj']) * 1e-6:.4g} µJ, latency {float(row['latency_s']) * 1e6:.4g} µs, "
        f"worst mapping gap {100 * float(row['mapping_gap_max']):.1f} %",
        "energy by component: " + wrapped(parts, 5),
        "offset classes (layers): " + escape(row["offset_classes"]),
        "bits weight/input: " + wrapped(layers, 4),
        f"train: {escape(row['train_command'])}",
        f"price: {escape(row['price_command'])}",
    ])  # fmt: skip


def wrapped(items: Sequence[str], per_line: int) -> str:
    """Items joined by commas, a line break after so many."""
    lines = [", ".join(items[i : i + per_line]) for i in range(0, len(items), per_line)]
    return escape(",\n".join(lines)).replace("\n", "<br>&nbsp;&nbsp;")


def machine_figure(rows: Sequence[Row]) -> Any:
    """Four plots of one network on one machine."""
    from plotly import graph_objects
    from plotly.subplots import make_subplots

    figure = make_subplots(rows=1, cols=len(AXES), shared_yaxes=True, horizontal_spacing=0.03)
    for position, (column, label, factor) in enumerate(AXES, start=1):
        cost, accuracy, half = values_of(rows, column)
        front, possible = fronts(cost, accuracy, half)
        order = sorted((i for i in range(len(rows)) if front[i]), key=lambda i: cost[i])
        figure.add_trace(graph_objects.Scatter(
            x=[cost[i] * factor for i in order], y=[accuracy[i] for i in order], mode="lines",
            line={"shape": "hv", "color": "#555555", "width": 1}, hoverinfo="skip",
        ), row=1, col=position)  # fmt: skip
        figure.add_trace(graph_objects.Scatter(
            x=list(cost * factor), y=list(accuracy), mode="markers+text", text=[label_of(row) for row in rows],
            textposition="top right", textfont={"size": 9}, error_y={"array": list(half), "thickness": 1},
            marker={"size": 9, "symbol": [SYMBOLS.get(row["bits"], "cross") for row in rows],
                    "color": [COLOURS[r["config"]] if may else GREY for r, may in zip(rows, possible, strict=True)]},
            hovertext=[hover_text(row) for row in rows], hoverinfo="text",
        ), row=1, col=position)  # fmt: skip
        figure.update_xaxes(title_text=label, row=1, col=position)
    figure.update_yaxes(title_text="test accuracy (%)", row=1, col=1)
    figure.update_layout(
        showlegend=False, height=430, margin={"t": 20, "l": 60, "r": 20}, template="simple_white",
        hoverlabel={"align": "left", "font": {"size": 11}},
    )  # fmt: skip
    return figure


def write_page(points: Path, target: Path) -> Path:
    """Write the page. ValueError when plotly is not installed or there is nothing to draw."""
    try:
        from plotly.io import to_html
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise ValueError("the interactive page needs plotly: pip install 'hwsim[report]'") from None
    rows = [row for row in table.current(table.read(points)) if usual(row)]
    if not rows:
        raise ValueError(f"{points}: holds no points to draw; run python -m experiments.pareto first")
    parts = [f'<script type="text/javascript">{get_plotlyjs()}</script>']
    for (network, machine), members in table.group(rows, "network", "accelerator").items():
        parts.append(f"<h2>{escape(network)} ({escape(members[0]['data'])}) on {escape(machine)}</h2>")
        note = notes_of(members)
        if note:
            parts.append(f"<p class='note'>{escape(note).replace(chr(10), '<br>')}</p>")
        priced = [row for row in members if row["status"] == "ok" and row.get("accuracy_percent")]
        if priced:
            name = f"plot-{network}-{machine}"
            parts.append(to_html(machine_figure(priced), include_plotlyjs=False, full_html=False, div_id=name))
    page = PAGE.format(body="\n".join(parts), source=escape(points.name))
    write_atomically(target, lambda file: file.write(page.encode()))
    return target


PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Accuracy against cost</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 1rem 2rem; color: #222 }}
.note {{ color: #a04000; font-size: 12px }}
</style></head><body>
<h1>Accuracy against energy, latency and memory</h1>
<p>Drawn from {source}. Lines join the points that nobody beats; grey points are dominated whatever their 95 % intervals
hold. c1..c4 are the configurations of LSQ+ Table 1. Hover for bits, cost by component and the commands.</p>
{body}
</body></html>
"""
