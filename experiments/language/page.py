"""`python -m experiments.language.page`: figures of the language model study; BLOCKS are its tables in docs/formats.md.

Everything is drawn from the CSVs of results/language alone. `python -m experiments.document` writes the tables.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from experiments import table
from experiments.drawing import save
from experiments.format_page import Page
from experiments.language import price, sweep, train
from experiments.language.arms import ARMS
from experiments.table import Row
from experiments.tables import markdown
from hwsim.console import wrote
from hwsim.report.style import colours_of, in_style, plain_ticks

PAIRS = (
    ("lsqplus-4", "lsq-4"), ("lsqplus-4", "mxfp4"), ("lsqplus-4-down5", "mxfp4"), ("lsqplus-4", "nvfp4"),
    ("lsqplus-4-mlp5", "nvfp4"), ("nvfp4", "mxfp4"), ("lsqplus-4-channel", "lsqplus-4-mlpw5"),
    ("lsqplus-4-g32", "lsqplus-w5a4"), ("lsqplus-6", "mxfp6"), ("lsqplus-8", "mxint8"),
)  # fmt: skip
# The float network has no format, lsq-4 costs what lsqplus-4 does; more than twelve colours are hard to tell apart.
UNDRAWN = ("float-longer", "lsq-4", "lsqplus-4-mlpw5", "lsqplus-w5a4")
STUDY = Page(
    train.TABLE, price.TABLE, "excess_nats", "test loss above the grammar's (nats)", "nats", 4, ARMS, PAIRS, UNDRAWN,
)  # fmt: skip
SHOWN = ((1, 2048), (8, 2048), (64, 2048), (64, 8192))  # batch and context of the sweep's table


def decoding() -> str:
    """Tokens per second, energy and memory at some points of the sweep."""
    rows = table.group(table.read(sweep.TABLE), "machine", "format")
    lines: list[list[str]] = []
    for (machine, name), members in rows.items():
        points = {(int(row["batch"]), int(row["context"])): row for row in members}
        cells = [step_cell(points[point]) if point in points else "-" for point in SHOWN]
        lines.append([f"`{machine}`", f"`{name}`", *cells])
    return markdown(("machine", "format", *(f"B {b}, L {n:,}" for b, n in SHOWN)), lines)


def step_cell(row: Row) -> str:
    """Tokens per second / mJ per token / GB."""
    numbers = (float(row["tokens_per_s"]), float(row["energy_mj_per_token"]), float(row["memory_bytes"]) / 1e9)
    return "{:,.4g} / {:,.3g} / {:,.3g}".format(*numbers)


BLOCKS: dict[str, Callable[[], str]] = {
    "language-training": STUDY.training,
    "language-pairs": STUDY.differences,
    "language-costs": STUDY.priced,
    "language-decoding": decoding,
}


@in_style
def rates(rows: Sequence[Row]) -> Figure:
    """Tokens per second over the batch, a line of panels per machine, a column per context."""
    machines = list(dict.fromkeys(row["machine"] for row in rows))
    contexts = sorted({int(row["context"]) for row in rows})
    figure = Figure(figsize=(10, 2.6 * len(machines)), layout="constrained")
    grid = figure.subplots(len(machines), len(contexts), squeeze=False)
    colours = colours_of(row["format"] for row in rows)
    for line, machine in enumerate(machines):
        for column, context in enumerate(contexts):
            axes = grid[line][column]
            here = [row for row in rows if row["machine"] == machine and int(row["context"]) == context]
            for (name,), members in table.group(here, "format").items():
                points = sorted((int(row["batch"]), float(row["tokens_per_s"])) for row in members)
                axes.plot(*zip(*points, strict=True), marker="o", markersize=3, color=colours[name], label=name)
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            batches = sorted({int(row["batch"]) for row in here})
            axes.set_xticks(batches, [str(batch) for batch in batches])
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_minor_locator(NullLocator())
            plain_ticks(axes.yaxis)
            axes.set_title(f"{machine}, {context:,} tokens in the cache")
            axes.grid(visible=True)
        grid[line][0].set_ylabel("tokens per second")
        grid[line][0].legend()
    for axes in grid[-1]:
        axes.set_xlabel("sequences")
    return figure


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw the figures."""
    parser = argparse.ArgumentParser(prog="python -m experiments.language.page", description=__doc__)
    parser.add_argument("--figures", type=Path, default=Path("docs/figures"), help="folder of the figures")
    options = parser.parse_args(arguments)
    runs, priced, points = (table.read(path) for path in (train.TABLE, price.TABLE, sweep.TABLE))
    if not (runs and priced and points):
        print("experiments.language.page: run experiments.language.train, .price and .sweep first", file=sys.stderr)
        return 2
    written = [*save(STUDY.front(), options.figures, "language_formats")]
    written += save(rates(points), options.figures, "language_sweep")
    for path in written:
        wrote(path, file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
