"""A report in one screen: totals, three bars, five layers, a line of proof, warnings. From 80 columns on.

Bars are drawn with a sign of their own for every part and named below, so that they survive copying without colours.
Names are text: none is read as rich's markup, and control characters are shown escaped.
"""

from __future__ import annotations

import io
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hwsim.console import printable
from hwsim.machine.parts import OPERANDS
from hwsim.report.generation import generation_rows
from hwsim.report.quantities import between, percent, si
from hwsim.report.style import PALETTE
from hwsim.report.terminal import (
    batch_line,
    certificate_line,
    coverage_line,
    fusion_line,
    objectives_line,
    schedules_line,
    share,
    stored_width,
)

if TYPE_CHECKING:
    from hwsim.report.report import Report

WIDTH = 110  # of output to a file or pipe, and of a report as text in Python
LEFT = 9  # columns of the titles at the left
GAP = 2  # columns between two columns of a table
NARROWEST = 80  # columns of a terminal: the first line leaves the clock out where it would wrap
SIGNS = "█▓▒░"  # of the largest parts; the others share one
OTHERS = "·"
MOST_WARNINGS = 4


def screenful(report: Report) -> str:
    """What a report prints as in Python."""
    target = io.StringIO()
    render(
        report,
        Console(file=target, width=WIDTH, color_system=None, legacy_windows=False, force_jupyter=False),
        where=".assumptions",
    )
    return target.getvalue().rstrip("\n")


def render(
    report: Report, console: Console | None = None, *, assumptions: bool = False, where: str = "--assumptions"
) -> None:
    """Print the report; with `assumptions` all of them by number, otherwise how many there are and `where`."""
    console = console or standard_output()
    console.print(title(report, console.width))
    for line in totals_lines(report):
        print_line(console, "", line)
    for name, parts in bars_of(report).items():
        for line in bar_lines(name, parts, console.width):
            console.print(line, no_wrap=True, overflow="ellipsis", crop=True)
    console.print(layers_table(report, console.width))
    print_line(console, "proof", certificate_line(report))
    if report.tells_groups:
        print_line(console, "fused", fusion_line(report))
    if report.batch:
        print_line(console, "batch", batch_line(report))
    if report.schedules:
        print_line(console, "schedule", schedules_line(report))
    if report.by_objective:
        print_line(console, "others", objectives_line(report))
    print_line(console, "covered", coverage_line(report.workload))
    print_line(console, "rests on", resting_line(report, where))
    for line in warning_lines(report, assumptions):
        print_line(console, "warning", line, "bold dark_orange3")
    if assumptions:
        for number, line in enumerate(report.assumptions, start=1):
            print_line(console, f"{number:>7}", line)


def standard_output() -> Console:
    """Standard output, as wide as COLUMNS says where it is a positive number; else its terminal; else `WIDTH`."""
    asked = os.environ.get("COLUMNS", "")
    if asked.isdecimal() and int(asked) > 0:
        return Console(width=int(asked))
    console = Console()
    return console if console.is_terminal else Console(width=WIDTH)


def print_line(console: Console, name: str, line: str, style: str = "bold") -> None:
    """A title at the left and text beside it, wrapped within its column."""
    grid = Table.grid(padding=0)
    grid.add_column(width=LEFT, no_wrap=True)
    grid.add_column()
    grid.add_row(Text(name, style), text(line))
    console.print(grid)


def text(name: str) -> Text:
    """A cell that says exactly this, whatever the name looks like."""
    return Text(printable(name))


def title(report: Report, width: int) -> Text:
    """What was priced, where, and what was least; on two lines where one has no room."""
    totals = report.totals
    bits = f"weights {totals.average_weight_bits:.3g} b, activations {totals.average_activation_bits:.3g} b"
    name = printable(f"{report.workload.name} on {report.accelerator.name}")
    rest = f"({bits}; least {report.objective})"
    between = "  " if cell_len(f"{name}  {rest}") <= width else "\n" + " " * LEFT
    return Text(name, "bold").append(between + rest, "not bold")


def energy_text(report: Report) -> str:
    """Energy with the interval that its estimates leave."""
    interval = report.cost.energy_interval
    return between(interval.low_pj * 1e-12, interval.high_pj * 1e-12, interval.energy_pj * 1e-12, "J")


def latency_text(report: Report) -> str:
    """Latency with the interval that the machine's rates leave."""
    interval = report.cost.latency_interval
    return between(interval.low_s, interval.high_s, interval.latency_s, "s")


def totals_lines(report: Report) -> list[str]:
    """The totals, three lines at 80 columns."""
    totals, machine = report.totals, report.accelerator
    area = f"{totals.area_mm2:.3g} mm²" if totals.area_mm2 else "area not stated"
    cycles, clock = f"{totals.latency_cycles:,.0f} cycles", f" at {machine.clock_mhz:g} MHz"
    first = f"energy {energy_text(report)}   latency {latency_text(report)}"
    room = NARROWEST - LEFT - len(first) - len(" ()")
    shown = next((detail for detail in (cycles + clock, cycles) if len(detail) <= room), "")
    return [
        f"{first} ({shown})" if shown else first,
        f"energy x delay {si(totals.edp_pj_s * 1e-12, 'J s')}   {si(totals.macs, 'MAC')}   {si(totals.bops, 'BOP')}   "
        f"{area}",
        f"weights {si(totals.weight_bits / 8, 'B')} ({stored_width(report)})   "
        f"peak activations {si(totals.peak_activation_bits / 8, 'B')}",
        *(
            f"{name}: {value}"
            for name, value in (generation_rows(report, report.generation) if report.generation else {}).items()
        ),
    ]


# --- bars -------------------------------------------------------------------------------------------------------------


def bars_of(report: Report) -> dict[str, dict[str, float]]:
    """Energy by component, energy by operand, time by what bounds it."""
    cycles: Counter[str] = Counter()
    for cost in report.cost.layers:
        if cost.latency_cycles:
            cycles[cost.bottleneck] += cost.latency_cycles
    return {
        "energy": dict(report.cost.energy_pj_by_component),
        "spent on": energy_by_operand(report),
        "time": {name: float(n) for name, n in cycles.items()},
    }


def energy_by_operand(report: Report) -> dict[str, float]:
    """What the energy moves or computes; the rest is idle power, elementwise work and constants."""
    found: defaultdict[str, float] = defaultdict(float)
    for cost in report.cost.layers:
        for part in cost.parts:
            found[purpose(part.component, part.detail)] += part.energy_pj
    return dict(found)


def purpose(component: str, detail: str) -> str:
    """`weights` of `weight hops`; MACs, sums and the rest by name."""
    if component == "mac":
        return "MACs"
    operand = detail.split(" ")[0]
    if "partial sums" in detail:
        return "partial sums"
    if operand in OPERANDS:
        return f"{operand}s"
    return {"static": "idle", "control": "control"}.get(component, "the rest")


def cut(parts: Mapping[str, float], columns: int) -> list[int]:
    """Columns of every part, all together `columns`: rounded down, what is left goes to the largest remainders."""
    total = sum(parts.values())
    exact = [columns * value / total for value in parts.values()]
    found = [int(width) for width in exact]
    for i in sorted(range(len(exact)), key=lambda i: found[i] - exact[i])[: columns - sum(found)]:
        found[i] += 1
    return found


def bar_lines(name: str, parts: Mapping[str, float], width: int) -> list[Text]:
    """The bar, and its parts by sign, name and share, largest first; the small ones together."""
    ranked = sorted(((n, v) for n, v in parts.items() if v > 0), key=lambda item: -item[1])
    if not ranked:
        return []
    signs, digits = (SIGNS, 1) if width >= 100 else (SIGNS[:3], 0)
    total, shown, rest = sum(v for _, v in ranked), dict(ranked[: len(signs)]), ranked[len(signs) :]
    if rest:
        shown[rest[0][0] if len(rest) == 1 else f"{len(rest)} others"] = sum(v for _, v in rest)
    columns = cut(shown, max(10, min(width, 120) - LEFT - 1))
    bar, legend = Text(f"{name:<{LEFT}}", "bold"), Text(" " * LEFT)
    for i, ((label, value), length) in enumerate(zip(shown.items(), columns, strict=True)):
        sign, style = (signs[i], PALETTE[i]) if i < len(signs) else (OTHERS, "")
        bar.append(sign * length, f"not bold {style}")
        legend.append(sign, style).append(f" {printable(label)} {percent(value, total, digits=digits)}  ")
    return [bar, legend]


# --- layers, assumptions, warnings ------------------------------------------------------------------------------------


def layers_table(report: Report, width: int) -> Table:
    """The five layers that cost most energy; MACs and cycles where there is room."""
    numbers = ("MACs", "cycles") if width >= 100 else ()
    head = ("five costliest layers", "op", "W/I", *numbers[:1], "energy", "share", *numbers[1:], "time", "bound by")
    rows = [tuple(text(cell) for cell in cells) for cells in layer_cells(report, wide=bool(numbers))]
    rest = sum(max(len(title), *(row[i + 1].cell_len for row in rows)) + GAP for i, title in enumerate(head[1:]))
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold", show_edge=False)
    for column in head:
        left = column in (head[0], "op", "bound by")
        # a long name gives way, never a number
        room = max(12, width - rest) if column == head[0] else None
        table.add_column(column, justify="left" if left else "right", no_wrap=True, overflow="ellipsis", max_width=room)
    for row in rows:
        table.add_row(*row)
    return table


def layer_cells(report: Report, wide: bool) -> Iterator[tuple[str, ...]]:
    """Cells of the five layers that cost most energy."""
    totals = report.cost.totals
    pairs = sorted(zip(report.workload, report.cost.layers, strict=True), key=lambda pair: -pair[1].total_energy_pj)
    for layer, cost in pairs[:5]:
        weight, activation, *_ = layer.bits_key()
        yield (
            layer.name,
            layer.op,
            f"{weight or '-'}/{activation}",
            *((si(layer.macs, "") if layer.macs else "-",) if wide else ()),
            si(cost.total_energy_pj * 1e-12, "J"),
            share(cost.total_energy_pj, totals.energy_pj),
            *((f"{cost.latency_cycles:,.0f}",) if wide else ()),
            share(cost.latency_cycles, totals.latency_cycles),
            cost.bottleneck,
        )


def resting_line(report: Report, where: str) -> str:
    """How many assumptions of each kind there are, and where they are listed."""
    kinds = {
        "cost model": len(report.cost.assumptions),
        "spec": len(report.accelerator.notes),
        "network": len(report.workload.notes),
    }
    kinds["search"] = len(report.assumptions) - sum(kinds.values())
    counted = ", ".join(f"{n} {kind}" for kind, n in kinds.items() if n > 0)
    return f"{len(report.assumptions)} assumptions: {counted} ({where})"


def warning_lines(report: Report, everything: bool) -> list[str]:
    """The warnings; a long list is cut, and says so."""
    lines = report.warnings
    if everything or len(lines) <= MOST_WARNINGS:
        return lines
    return [*lines[: MOST_WARNINGS - 1], f"and {len(lines) - MOST_WARNINGS + 1} more; --assumptions lists them"]
