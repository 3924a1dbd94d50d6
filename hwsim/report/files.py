"""A report as files: report.json, layers.csv, mappings.yaml, a figure and a page.

The folder appears with all of them at once, or not at all; report.json stands for the whole.
"""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwsim.console import printable
from hwsim.files.atomic import write_folder
from hwsim.nest.text import dump_mappings
from hwsim.report.terminal import coverage_line, si, total_rows

if TYPE_CHECKING:
    from hwsim.report.report import Report

FORMULA = ("=", "+", "-", "@")  # a spreadsheet runs text that begins with one of these

# --- files ------------------------------------------------------------------------------------------------------------


def write_report(report: Report, folder: Path) -> list[Path]:
    """Write layers.csv, mappings.yaml, energy.png, energy.svg, report.html and last report.json; returns their paths.

    Everything is drawn up in memory before the first byte lands. Raises OSError where the folder cannot be written.
    """
    figure = energy_figure(report)
    contents: dict[str, bytes] = {
        "layers.csv": rows_to_csv(report.to_rows()).encode(),
        "mappings.yaml": dump_mappings({name: found.mapping for name, found in report.found.items()}).encode(),
        "energy.png": figure_bytes(figure, "png"),
        "energy.svg": figure_bytes(figure, "svg"),
    }
    contents["report.html"] = html_page(report, contents["energy.svg"].decode()).encode()
    contents["report.json"] = (report.to_json() + "\n").encode()
    return write_folder(folder, contents)


def rows_to_csv(rows: list[dict[str, Any]]) -> str:
    """Rows as CSV text with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: cell(value) for key, value in row.items()} for row in rows)
    return text.getvalue()


def cell(value: Any) -> Any:
    """Numbers as they are; text on one line, and with an apostrophe in front where a spreadsheet would run it."""
    if not isinstance(value, str):
        return value
    shown = printable(value)
    return f"'{shown}" if shown.lstrip().startswith(FORMULA) else shown


def energy_figure(report: Report) -> Any:
    """Stacked bars of energy per layer by component, in µJ; a matplotlib Figure.

    Layers below 0.5 % of the total are summed in one bar, which says how many they are.
    """
    from matplotlib.figure import Figure  # here, not above: half a second that a run without --out need not pay

    total = report.cost.totals.energy_pj
    shown = [cost for cost in report.cost.layers if cost.total_energy_pj >= 0.005 * total]
    rest = [cost for cost in report.cost.layers if cost.total_energy_pj < 0.005 * total]
    names = [cost.name for cost in shown] + ([f"{len(rest)} smaller layers"] if rest else [])
    figure = Figure(figsize=(8.0, max(3.0, 0.24 * len(names) + 1.4)), layout="constrained")
    axes = figure.subplots()
    left = [0.0] * len(names)
    for component, _ in report.cost.energy_pj_by_component:
        values = [cost.energy_pj.get(component, 0.0) * 1e-6 for cost in shown]
        if rest:
            values.append(sum(cost.energy_pj.get(component, 0.0) for cost in rest) * 1e-6)
        axes.barh(range(len(names)), values, left=left, label=printable(component), height=0.75)
        left = [a + b for a, b in zip(left, values, strict=True)]
    axes.set_yticks(range(len(names)), [printable(name) for name in names])
    axes.invert_yaxis()
    axes.set_xlabel("energy (µJ)")
    title = printable(f"{report.workload.name} on {report.accelerator.name}: {si(total * 1e-12, 'J')}")
    axes.set_title(title, loc="left", parse_math=False)
    axes.tick_params(axis="y", labelsize=7)
    legend = figure.legend(fontsize=7, frameon=False, loc="outside lower center", ncols=5)
    for label in (*axes.get_yticklabels(), *legend.get_texts()):
        label.set_parse_math(False)  # a $ in a name is a $
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def figure_bytes(figure: Any, kind: str) -> bytes:
    """A figure as PNG or SVG; the same report gives the same bytes (no date, fixed ids)."""
    import matplotlib  # see energy_figure

    target = io.BytesIO()
    fixed = matplotlib.rc_context({"svg.hashsalt": "hwsim", "svg.fonttype": "none"})
    with fixed, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a name may use any script
        figure.savefig(target, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
    return target.getvalue()


PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #222 }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 1rem 0 }}
td, th {{ padding: .2rem .7rem; border-bottom: 1px solid #ddd; text-align: right }}
td:first-child, th:first-child {{ text-align: left }}
svg {{ max-width: 100%; height: auto }} .warning {{ color: #a40 }}
</style></head><body>
<h1>{title}</h1>
{totals}
{figure}
<h2>Layers</h2>
{layers}
<h2>Coverage</h2><p>{coverage}</p>
<h2>Assumptions</h2><ul>{assumptions}</ul>
{warnings}
</body></html>
"""


def html_page(report: Report, svg: str) -> str:
    """The report as one self-contained page: totals, figure, every layer, assumptions."""
    return PAGE.format(
        title=html(f"{report.workload.name} on {report.accelerator.name}"),
        totals=html_totals(report),
        figure=svg[svg.index("<svg") :],
        layers=html_layers(report, range(len(report.workload))),
        coverage=html(coverage_line(report.workload)),
        assumptions="".join(f"<li>{html(line)}</li>" for line in report.assumptions),
        warnings=html_warnings(report),
    )


def html_fragment(report: Report) -> str:
    """Title, totals and the five costliest layers: what a notebook shows."""
    costs = report.cost.layers
    costliest = sorted(range(len(costs)), key=lambda i: -costs[i].total_energy_pj)[:5]
    title = html(f"{report.workload.name} on {report.accelerator.name}")
    return f"<h4>{title}</h4>{html_totals(report)}{html_layers(report, costliest)}{html_warnings(report)}"


def html(text: str) -> str:
    """Text as HTML that shows it, control characters escaped."""
    return escape(printable(text))


def html_totals(report: Report) -> str:
    """The network's totals as a table."""
    return html_table([], [[html(name), html(value)] for name, value in total_rows(report).items()])


def html_warnings(report: Report) -> str:
    """What a reader must not overlook, a paragraph each."""
    return "".join(f'<p class="warning">{html(line)}</p>' for line in report.warnings)


def html_layers(report: Report, shown: Iterable[int]) -> str:
    """Some layers as a table, by their position."""
    layers, costs = report.workload.layers, report.cost.layers
    rows = [
        [
            html(layer.name),
            html(layer.op),
            f"{layer.weight.bits if layer.weight else '-'}/{layer.inputs[0].bits}",
            f"{layer.macs:,}",
            f"{cost.total_energy_pj * 1e-6:,.4g}",
            f"{cost.latency_cycles:,.0f}",
            html(cost.bottleneck),
            html(cost.offset.kind),
        ]
        for layer, cost in ((layers[i], costs[i]) for i in shown)
    ]
    return html_table(["layer", "op", "bits W/A", "MACs", "energy (µJ)", "cycles", "bound by", "offset"], rows)


def html_table(header: list[str], rows: list[list[str]]) -> str:
    """Cells are HTML already."""
    head = "<tr>" + "".join(f"<th>{cell}</th>" for cell in header) + "</tr>" if header else ""
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table>{head}{body}</table>"
