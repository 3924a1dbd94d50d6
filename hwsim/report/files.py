"""A report as files: report.json, layers.csv, mappings.yaml, a figure and a page.

The folder appears with all of them at once, or not at all; report.json stands for the whole.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwsim.console import printable
from hwsim.files.atomic import write_folder
from hwsim.files.csv_text import csv_table
from hwsim.nest.text import PassNests, dump_mappings, dump_passes
from hwsim.pricing.lifetimes import WHOLE_TENSORS
from hwsim.report.quantities import digits, si
from hwsim.report.style import REST, colours_of, figure_bytes, fold, label_of, plain_text, styled
from hwsim.report.terminal import total_rows
from hwsim.search.fusion.plan import described
from hwsim.search.passes import Pass

if TYPE_CHECKING:
    from hwsim.report.report import Report

FORMULA = ("=", "+", "-", "@")  # a spreadsheet runs text that begins with one of these

# --- files ------------------------------------------------------------------------------------------------------------


def write_report(report: Report, folder: Path) -> list[Path]:
    """Write layers.csv, mappings.yaml, energy.png, energy.svg, report.html and last report.json; returns their paths.

    Everything is drawn up in memory before the first byte lands. Raises OSError where the folder cannot be written.
    """
    from hwsim.report.page.render import report_page  # templates are read for pages alone

    figure = energy_figure(report)
    contents: dict[str, bytes] = {
        "layers.csv": rows_to_csv(report.to_rows()).encode(),
        "mappings.yaml": nests_of(report).encode(),
        "energy.png": figure_bytes(figure, "png", 150),
        "energy.svg": figure_bytes(figure, "svg"),
    }
    contents["report.html"] = report_page(report.to_dict()).encode()
    contents["report.json"] = (report.to_json() + "\n").encode()
    return write_folder(folder, contents)


def nests_of(report: Report) -> str:
    """mappings.yaml: what `--mapping` takes back."""
    said = "" if report.cost.lifetimes == WHOLE_TENSORS else str(report.cost.lifetimes)
    if report.passes:
        return dump_passes([nests_of_pass(each) for each in report.passes], said)
    return dump_mappings({name: found.mapping for name, found in report.found.items()}, report.groups, said)


def nests_of_pass(each: Pass) -> PassNests:
    """A pass as mappings.yaml says it."""
    mappings = {name: found.mapping for name, found in each.plan.found.items()}
    return PassNests(each.images, each.times, mappings, tuple(described(choice) for choice in each.plan.groups))


def rows_to_csv(rows: list[dict[str, Any]]) -> str:
    """Rows as CSV text with a header."""
    return csv_table(list(rows[0]), ({key: cell(value) for key, value in row.items()} for row in rows))


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
    with styled():
        figure = Figure(figsize=(8.0, max(3.0, 0.24 * len(names) + 1.6)), layout="constrained")
        axes = figure.subplots()
        left = [0.0] * len(names)
        kept, folded = fold(dict(report.cost.energy_pj_by_component))
        series = [(name, (name,), colour) for name, colour in colours_of(kept).items()]
        series += [(f"{len(folded)} smaller components", tuple(folded), REST)] if folded else []
        for label, components, colour in series:
            values = [sum(cost.energy_pj.get(name, 0.0) for name in components) * 1e-6 for cost in shown]
            if rest:
                values.append(sum(cost.energy_pj.get(name, 0.0) for cost in rest for name in components) * 1e-6)
            axes.barh(
                range(len(names)), values, left=left, label=label_of(label), height=0.75, color=colour,
                edgecolor="white", linewidth=0.3,
            )  # fmt: skip
            left = [a + b for a, b in zip(left, values, strict=True)]
        axes.set_yticks(range(len(names)), [label_of(name) for name in names])
        axes.invert_yaxis()
        axes.margins(x=0.02, y=0.01)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
        axes.set_axisbelow(True)
        axes.set_xlabel("energy (µJ)")
        what = f"{label_of(report.workload.name)} on {label_of(report.accelerator.name)}"
        title = f"{what}: {si(total * 1e-12, 'J')}"
        axes.set_title(title, parse_math=False)
        legend = figure.legend(loc="outside lower center", ncols=min(5, len(series)))
        plain_text([*axes.get_yticklabels(), *legend.get_texts()])
    return figure


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
            digits(cost.total_energy_pj * 1e-6, 4),
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
