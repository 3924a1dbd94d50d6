"""A report on the terminal: totals, energy by component, the costliest layers, coverage and proof.

Names are text: none is read as rich's markup, and control characters are shown escaped.
"""

from __future__ import annotations

import io
from collections import Counter
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hwsim.console import printable
from hwsim.network.workload import Workload
from hwsim.search.result import NOT_PROVEN

if TYPE_CHECKING:
    from hwsim.report.report import Report

WIDTH = 110  # of the tables where there is no terminal to ask


def coverage_line(workload: Workload) -> str:
    """The same in one line."""
    shares, coverage = workload.shares, workload.coverage
    unknown = f"; {shares.unknown_macs} uncosted operators may hide more MACs" if shares.unknown_macs else ""
    at_most = "at most " if shares.unknown_macs else ""
    free = sum(item.count for item in coverage.free)
    return (
        f"{at_most}{100 * shares.macs:.1f} % of MACs, {100 * shares.elements:.1f} % of elements, "
        f"{coverage.ops_costed} of {coverage.ops_total} operators costed ({free} of them free: views, folded or "
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


def text(name: str) -> Text:
    """A cell that says exactly this, whatever the name looks like."""
    return Text(printable(name))


def screenful(report: Report) -> str:
    """Totals, components and the costliest layers as plain text: what a report prints as in Python."""
    target = io.StringIO()
    console = Console(file=target, width=WIDTH, color_system=None, legacy_windows=False)
    for table in (totals_table(report), components_table(report), layers_table(report)):
        console.print(table)
    lines = [*(f"warning: {line}" for line in report.warnings), f"{len(report.assumptions)} assumptions: .assumptions"]
    return target.getvalue() + "\n".join(printable(line) for line in lines)


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
        console.print(f"  - {printable(line)}", highlight=False, markup=False)
    for line in report.warnings:
        console.print(f"warning: {printable(line)}", style="yellow", highlight=False, markup=False)


def totals_table(report: Report) -> Table:
    """The network's totals, units in every row."""
    table = Table(
        title=text(f"{report.workload.name} on {report.accelerator.name}"), show_header=False, title_justify="left"
    )
    for name, value in total_rows(report).items():
        table.add_row(name, text(value))
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
        **({"other objectives": objectives_line(report)} if report.by_objective else {}),
        **({"identity": f"{report.workload.identity} (trained network)"} if report.workload.identity else {}),
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
    missing = sorted({why for c in certificates if (why := c.space.partition(NOT_PROVEN)[2])})
    why = f"; not proven: {', '.join(missing)}" if missing else ""
    return f"objective {report.objective}; {gap}; {priced:,} priced of {covered:,} covered{why}"


def objectives_line(report: Report) -> str:
    """What each objective would give, as far as the quick search knows: energy and cycles."""
    names = {"energy": "least energy", "latency": "least latency", "edp": "least EDP"}
    return "; ".join(
        f"{names[objective]} {si(totals.energy_pj * 1e-12, 'J')} in {totals.latency_cycles:,.0f} cycles"
        for objective, totals in report.by_objective.items()
    )


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
        table.add_row(
            text(component), si(energy * 1e-12, "J"), share(energy, total), f"{layers} layers" if layers else ""
        )
    for name, layers in bounds.most_common():
        table.add_row(text(name), "", "", f"{layers} layers")
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
            text(layer.name),
            text(layer.op),
            f"{weight or '-'}/{activation}",
            si(layer.macs, "") if layer.macs else "-",
            si(cost.total_energy_pj * 1e-12, "J"),
            share(cost.total_energy_pj, report.cost.totals.energy_pj),
            f"{cost.latency_cycles:,.0f}",
            text(cost.bottleneck),
        )
    return table
