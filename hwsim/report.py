"""What a run says: the report as data (JSON with a published schema), as terminal tables and as files.

Numbers come from cost.py unchanged; this file only arranges them. Every simplification behind them is listed under
`assumptions`. Files are written into a fresh folder first and moved in one by one, so none is ever half written.
"""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from hwsim.machine import Accelerator
from hwsim.mapping import dump_mappings, entries
from hwsim.pricing.cost import LayerCost, NetworkCost
from hwsim.search import Found
from hwsim.workload import Layer, Workload, write_atomically

SCHEMA_VERSION = 1
WIDTH = 110  # of the tables where there is no terminal to ask
SCHEMA_FILE = Path(__file__).parent / "schemas" / "report.schema.json"


@dataclass(frozen=True)
class Report:
    """One network on one accelerator: costs, mappings, and what they rest on."""

    workload: Workload
    accelerator: Accelerator
    cost: NetworkCost
    found: Mapping[str, Found]
    objective: str

    @cached_property
    def assumptions(self) -> list[str]:
        """Every simplification and choice behind the numbers: of extractor, cost model, spec and search."""
        spaces = Counter(found.certificate.space for found in self.found.values())
        return [
            *self.workload.notes,
            *self.cost.assumptions,
            *(f"spec: {note}" for note in self.accelerator.notes),
            *(f"mapping search, {count} layers: {space}" for space, count in sorted(spaces.items())),
            *self.distance_from_any_mapping,
        ]

    @property
    def distance_from_any_mapping(self) -> list[str]:
        """How much less any legal mapping could cost, by the certificates."""
        gaps = [100 * found.certificate.any_tiles_gap for found in self.found.values()]
        if not gaps:
            return []
        return [
            f"no legal mapping, whatever its tile sizes, could have a lower {self.objective} by more than this: median "
            f"{statistics.median(gaps):.2f} % of {len(gaps)} layers, at most {max(gaps):.2f} %"
        ]

    @cached_property
    def warnings(self) -> list[str]:
        """What a reader must not overlook: uncosted operators first."""
        uncosted = [
            f"uncosted operator {item.op} ({item.name}, {item.elements:,} elements): its cost is missing here"
            for item in self.workload.coverage.uncosted
        ]
        return [*uncosted, *self.cost.warnings]

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-ready data; its schema is hwsim/schemas/report.schema.json."""
        return {
            "schema_version": SCHEMA_VERSION,
            "model": {"name": self.workload.name, "layers": len(self.workload)},
            "accelerator": {
                "name": self.accelerator.name,
                "clock_mhz": self.accelerator.clock_mhz,
                "node_nm": self.accelerator.node_nm,
                "sources": list(self.accelerator.sources),
            },
            "objective": self.objective,
            "totals": self.cost.totals.to_dict(),
            "energy_pj_by_component": dict(self.cost.energy_pj_by_component),
            "layers": [
                self.layer_dict(layer, cost) for layer, cost in zip(self.workload, self.cost.layers, strict=True)
            ],
            "coverage": coverage_dict(self.workload),
            "assumptions": self.assumptions,
            "warnings": self.warnings,
        }

    def layer_dict(self, layer: Layer, cost: LayerCost) -> dict[str, Any]:
        """One entry of `layers`."""
        found = self.found.get(layer.name)
        weight, activation, output, accumulator = layer.bits_key()
        return {
            "name": layer.name,
            "op": layer.op,
            "loops": layer.loops.as_dict(),
            "bits": {"weight": weight, "input": activation, "output": output, "accumulator": accumulator},
            "macs": layer.macs,
            "energy_pj": {"total": cost.total_energy_pj, **cost.energy_pj},
            "latency_cycles": cost.latency_cycles,
            "cycles": dict(cost.cycles),
            "bottleneck": cost.bottleneck,
            "mac_mode": cost.mac_mode,
            "mapping": list(entries(found.mapping)) if found else None,
            "certificate": found.certificate.to_dict() if found else None,
            "counts": counts_dict(found) if found else {},
            "offset": cost.offset.to_dict(),
            "resident": list(cost.resident),
            "fused_into": cost.fused_into,
        }

    def to_json(self) -> str:
        """The report as text; NaN or infinity would be a bug and raise."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False)

    def to_rows(self) -> list[dict[str, Any]]:
        """One flat row per layer, for layers.csv and data frames; energies per component in pJ."""
        components = [component for component, _ in self.cost.energy_pj_by_component]
        rows: list[dict[str, Any]] = []
        for layer, cost in zip(self.workload, self.cost.layers, strict=True):
            weight, activation, output, accumulator = layer.bits_key()
            energies = cost.energy_pj
            rows.append(
                {
                    "name": layer.name,
                    "op": layer.op,
                    **layer.loops.as_dict(),
                    "weight_bits": weight,
                    "input_bits": activation,
                    "output_bits": output,
                    "accumulator_bits": accumulator,
                    "macs": layer.macs,
                    "energy_pj": cost.total_energy_pj,
                    **{f"energy_{component}_pj": energies.get(component, 0.0) for component in components},
                    "latency_cycles": cost.latency_cycles,
                    "bottleneck": cost.bottleneck,
                    "offset_class": cost.offset.kind,
                }
            )
        return rows


def counts_dict(found: Found) -> dict[str, dict[str, dict[str, int]]]:
    """memory -> operand -> reads and writes, in elements, partial sums and finished outputs apart."""
    counts: dict[str, dict[str, dict[str, int]]] = {}
    for entry in found.counts.traffic:
        operand = entry.operand if entry.kind != "partial" else f"{entry.operand}_partial"
        place = counts.setdefault(entry.memory, {}).setdefault(operand, {"reads": 0, "writes": 0})
        place["reads"] += entry.reads
        place["writes"] += entry.writes
    return counts


def coverage_dict(workload: Workload) -> dict[str, Any]:
    """Costed shares of the network, the operators that have no price, and those that cost nothing and why."""
    shares, coverage = workload.shares, workload.coverage
    return {
        "macs_share": shares.macs,
        "elements_share": shares.elements,
        "operators_share": shares.operators,
        "operators_total": coverage.ops_total,
        "uncosted": [{"name": u.name, "op": u.op, "elements": u.elements} for u in coverage.uncosted],
        "free": [{"op": f.op, "count": f.count, "why": f.why} for f in coverage.free],
    }


def coverage_line(workload: Workload) -> str:
    """The same in one line."""
    shares, coverage = workload.shares, workload.coverage
    unknown = f"; {shares.unknown_macs} uncosted operators may hide more MACs" if shares.unknown_macs else ""
    return (
        f"{100 * shares.macs:.1f} % of MACs, {100 * shares.elements:.1f} % of elements, {coverage.ops_costed} of "
        f"{coverage.ops_total} operators costed ({sum(f.count for f in coverage.free)} of them free: views, folded or "
        f"identity){unknown}"
    )


# --- terminal ---------------------------------------------------------------------------------------------------------


def si(value: float, unit: str) -> str:
    """A quantity with an SI prefix, four digits: 1.234 mJ from pJ is `si(x * 1e-12, 'J')`."""
    for factor, prefix in (
        (1e12, "T"),
        (1e9, "G"),
        (1e6, "M"),
        (1e3, "k"),
        (1.0, ""),
        (1e-3, "m"),
        (1e-6, "µ"),
        (1e-9, "n"),
    ):
        if abs(value) >= factor:
            return f"{value / factor:.4g} {prefix}{unit}"
    return f"{value / 1e-12:.4g} p{unit}" if value else f"0 {unit}"


def share(part: float, whole: float) -> str:
    """A percentage; blank where the whole is nothing."""
    return f"{100 * part / whole:.1f} %" if whole else ""


def render(report: Report, console: Console | None = None) -> None:
    """Print totals, components, the five costliest layers, bottlenecks, coverage and assumptions."""
    if console is None:
        console = Console()
        console = console if console.is_terminal else Console(width=WIDTH)
    console.print(totals_table(report))
    console.print(components_table(report))
    console.print(layers_table(report))
    console.print(f"[bold]Coverage[/]  {coverage_line(report.workload)}", highlight=False)
    console.print("[bold]Assumptions[/]")
    for line in report.assumptions:
        console.print(f"  - {line}", highlight=False, markup=False)
    for line in report.warnings:
        console.print(f"warning: {line}", style="yellow", highlight=False, markup=False)


def totals_table(report: Report) -> Table:
    """The network's totals, units in every row."""
    table = Table(title=f"{report.workload.name} on {report.accelerator.name}", show_header=False, title_justify="left")
    for name, value in total_rows(report).items():
        table.add_row(name, value)
    return table


def total_rows(report: Report) -> dict[str, str]:
    """Name and text of every total."""
    totals, machine = report.cost.totals, report.accelerator
    return {
        "energy": si(totals.energy_pj * 1e-12, "J"),
        "latency": f"{si(totals.latency_s, 's')}  ({totals.latency_cycles:,.0f} cycles at {machine.clock_mhz:g} MHz)",
        "energy x delay": si(totals.edp_pj_s * 1e-12, "Js"),
        "MACs": si(totals.macs, "MAC"),
        "bit operations": si(totals.bops, "BOP"),
        "average bits": f"weights {totals.average_weight_bits:.2f}, activations {totals.average_activation_bits:.2f}",
        "weight memory": f"{si(totals.weight_bits / 8, 'B')}  ({stored_width(report)}; with scales, offsets, biases)",
        "peak activations": si(totals.peak_activation_bits / 8, "B"),
        "area": f"{totals.area_mm2:.3g} mm²" if totals.area_mm2 else "not stated by the spec",
        "mapping": certificate_line(report),
    }


def stored_width(report: Report) -> str:
    """How many bits a weight takes where the machine stores it, next to what it has."""
    totals = report.cost.totals
    weights = {
        layer.weight.name: layer.weight.elements
        for layer in report.workload
        if layer.weight is not None and not layer.weight_is_activation
    }
    if not weights:
        return "no weights"
    stored, memory = totals.packed_weight_bits / sum(weights.values()), report.accelerator.outermost.name
    return f"{totals.average_weight_bits:.2f}-bit weights, {stored:.2f} bits each in {memory}"


def certificate_line(report: Report) -> str:
    """How good the mappings are proven to be."""
    certificates = [found.certificate for found in report.found.values()]
    if not certificates:
        return "no layer with MACs"
    worst = max(c.gap for c in certificates)
    priced, covered = sum(c.priced for c in certificates), sum(c.covered for c in certificates)
    gap = f"proven gap at most {100 * worst:.2f} %"
    return f"objective {report.objective}; {gap}; {priced:,} priced of {covered:,} covered"


def components_table(report: Report) -> Table:
    """Energy by component, and how many layers each resource bounds."""
    total = report.cost.totals.energy_pj
    bounds = Counter(cost.bottleneck for cost in report.cost.layers if not cost.fused_into)
    fused = sum(1 for cost in report.cost.layers if cost.fused_into)
    table = Table(title="Energy by component; layers bound by it", title_justify="left")
    for column in ("component", "energy", "share", "bounds"):
        table.add_column(column, justify="left" if column == "component" else "right")
    for component, energy in report.cost.energy_pj_by_component:
        layers = bounds.pop(component, 0)
        table.add_row(component, si(energy * 1e-12, "J"), share(energy, total), f"{layers} layers" if layers else "")
    for name, layers in bounds.most_common():
        table.add_row(name, "", "", f"{layers} layers")
    if fused:
        table.add_row("(fused, no time of their own)", "", "", f"{fused} layers")
    return table


def layers_table(report: Report) -> Table:
    """The five layers that cost most energy."""
    table = Table(title="Five costliest layers", title_justify="left")
    for column in ("layer", "op", "bits W/A", "MACs", "energy", "share", "cycles", "bound by"):
        table.add_column(column, justify="left" if column in ("layer", "op", "bound by") else "right", no_wrap=True)
    pairs = sorted(zip(report.workload, report.cost.layers, strict=True), key=lambda pair: -pair[1].total_energy_pj)
    for layer, cost in pairs[:5]:
        weight, activation, *_ = layer.bits_key()
        table.add_row(
            layer.name,
            layer.op,
            f"{weight or '-'}/{activation}",
            si(layer.macs, "") if layer.macs else "-",
            si(cost.total_energy_pj * 1e-12, "J"),
            share(cost.total_energy_pj, report.cost.totals.energy_pj),
            f"{cost.latency_cycles:,.0f}",
            cost.bottleneck,
        )
    return table


# --- files ------------------------------------------------------------------------------------------------------------


def write_report(report: Report, folder: Path) -> list[Path]:
    """Write report.json, layers.csv, mappings.yaml, energy.png, energy.svg and report.html; returns their paths.

    Everything is drawn up in memory before the first byte lands. Raises OSError where the folder cannot be written.
    """
    figure = energy_figure(report)
    contents: dict[str, bytes] = {
        "report.json": (report.to_json() + "\n").encode(),
        "layers.csv": rows_to_csv(report.to_rows()).encode(),
        "mappings.yaml": dump_mappings({name: found.mapping for name, found in report.found.items()}).encode(),
        "energy.png": figure_bytes(figure, "png"),
        "energy.svg": figure_bytes(figure, "svg"),
    }
    contents["report.html"] = html_page(report, contents["energy.svg"].decode()).encode()
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        write_atomically(folder / name, content)
    return [folder / name for name in contents]


def rows_to_csv(rows: list[dict[str, Any]]) -> str:
    """Rows as CSV text with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


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
        axes.barh(names, values, left=left, label=component, height=0.75)
        left = [a + b for a, b in zip(left, values, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("energy (µJ)")
    axes.set_title(f"{report.workload.name} on {report.accelerator.name}: {si(total * 1e-12, 'J')}", loc="left")
    axes.tick_params(axis="y", labelsize=7)
    figure.legend(fontsize=7, frameon=False, loc="outside lower center", ncols=5)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def figure_bytes(figure: Any, kind: str) -> bytes:
    """A figure as PNG or SVG; the same report gives the same bytes (no date, fixed ids)."""
    import matplotlib  # see energy_figure

    target = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "hwsim", "svg.fonttype": "none"}):
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
    totals = [[escape(name), escape(text)] for name, text in total_rows(report).items()]
    layers = [
        [
            escape(layer.name),
            layer.op,
            f"{layer.weight.bits if layer.weight else '-'}/{layer.inputs[0].bits}",
            f"{layer.macs:,}",
            f"{cost.total_energy_pj * 1e-6:,.4g}",
            f"{cost.latency_cycles:,.0f}",
            escape(cost.bottleneck),
            cost.offset.kind,
        ]
        for layer, cost in zip(report.workload, report.cost.layers, strict=True)
    ]
    header = ["layer", "op", "bits W/A", "MACs", "energy (µJ)", "cycles", "bound by", "offset"]
    return PAGE.format(
        title=escape(f"{report.workload.name} on {report.accelerator.name}"),
        totals=html_table([], totals),
        figure=svg[svg.index("<svg") :],
        layers=html_table(header, layers),
        coverage=escape(coverage_line(report.workload)),
        assumptions="".join(f"<li>{escape(line)}</li>" for line in report.assumptions),
        warnings="".join(f'<p class="warning">{escape(line)}</p>' for line in report.warnings),
    )


def html_table(header: list[str], rows: list[list[str]]) -> str:
    """Cells are HTML already."""
    head = "<tr>" + "".join(f"<th>{cell}</th>" for cell in header) + "</tr>" if header else ""
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table>{head}{body}</table>"
