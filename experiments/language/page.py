"""`python -m experiments.language.page`: figures of the language model study; BLOCKS are its tables in docs/formats.md.

Everything is drawn from the CSVs of results/language alone. `python -m experiments.document` writes the tables.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from experiments import table
from experiments.drawing import save
from experiments.language import price, sweep, train
from experiments.language.arms import BY_NAME, FLOAT
from experiments.table import Interval, Row, paired_difference, verdict
from experiments.tables import markdown
from hwsim.report.style import colours_of, in_style

BASE = "lsqplus-4"  # what the others are compared with
LONGER = "float-longer"
RIVALS = ("mxfp4", "nvfp4", "mxfp6", "mxint8")  # block formats, drawn as such
PAIRS = (
    ("lsqplus-4", "lsq-4"), ("lsqplus-4", "mxfp4"), ("lsqplus-4-down5", "mxfp4"), ("lsqplus-4", "nvfp4"),
    ("lsqplus-4-mlp5", "nvfp4"), ("nvfp4", "mxfp4"), ("lsqplus-6", "mxfp6"), ("lsqplus-8", "mxint8"),
)  # fmt: skip
WORDS = {"lower": "better", "higher": "worse"}
SHOWN = ((1, 2048), (8, 2048), (64, 2048), (64, 8192))  # batch and context of the sweep's table


def tested(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Chosen runs by arm: those that were measured on the test texts."""
    found = table.group([row for row in rows if row["test_excess_nats"]], "arm")
    return {arm: members for (arm,), members in found.items()}


def losses(members: Sequence[Row], column: str = "test_excess_nats") -> Interval:
    """Of the seeds."""
    return Interval.of([float(row[column]) for row in members])


def shown(interval: Interval) -> str:
    """`0.0512 ± 0.0031`."""
    spread = "" if interval.half_width is None else f" ± {interval.half_width:.4f}"
    return f"{interval.mean:.4f}{spread}"


def bits_of(costs: Sequence[Row]) -> dict[str, tuple[float, float]]:
    """(weights, activations) of each arm."""
    return {row["arm"]: (float(row["weight_bits"]), float(row["activation_bits"])) for row in costs}


def training() -> str:
    """A line per arm: bits, loss before and after training, and the difference from LSQ+ at 4 bits, seed by seed."""
    runs, bits = table.read(train.TABLE), bits_of(table.read(price.TABLE))
    arms = tested(runs)
    lines: list[list[str]] = []
    for name in (FLOAT, LONGER, *(name for name in BY_NAME if name != LONGER)):
        members = arms.get(name, [])
        if len(members) < 2:
            continue
        difference = between(arms, name, BASE, "test_excess_nats") if name != BASE else None
        about = BY_NAME[name].about if name in BY_NAME else "32-bit floats, where all start"
        stored = "{:.2f} / {:.2f}".format(*bits[name]) if name in bits else "32"
        early = f"{losses(members, 'untrained_excess_nats').mean:.4f}" if name in bits else "-"
        against = "-" if difference is None else f"{difference.mean:+.4f} ± {difference.half_width:.4f}"
        found = "-" if name == BASE else WORDS.get(verdict(difference), "undecided")
        lines.append([f"`{name}`: {about}", stored, early, shown(losses(members)), against, found])
    heads = ("format", "bits, weights / activations", "before training", "test loss above the grammar's (nats)",
             "less `lsqplus-4`", "verdict")  # fmt: skip
    return markdown(heads, lines)


def pairs() -> str:
    """Differences of formats of about equal bits, before and after training, seed by seed."""
    bits = bits_of(table.read(price.TABLE))
    arms = tested(table.read(train.TABLE))
    lines: list[list[str]] = []
    for first, second in PAIRS:
        if not (len(arms.get(first, [])) > 1 and len(arms.get(second, [])) > 1):
            continue
        stored = " and ".join("{:.2f} / {:.2f}".format(*bits[name]) for name in (first, second))
        cells = [
            f"{found.mean:+.4f} ± {found.half_width:.4f}, {WORDS.get(verdict(found), 'undecided')}"
            for column in ("untrained_excess_nats", "test_excess_nats")
            if (found := between(arms, first, second, column)) is not None
        ]
        lines.append([f"`{first}` less `{second}`", stored, *cells])
    return markdown(("pair", "bits, weights / activations", "before training (nats)", "after training (nats)"), lines)


def between(arms: Mapping[str, list[Row]], first: str, second: str, column: str) -> Interval | None:
    """`first` less `second`, seed by seed."""
    return paired_difference(
        [*arms[first], *arms[second]], lambda r: r["arm"] == first, lambda r: r["arm"] == second, column
    )


def costs() -> str:
    """Energy and latency of each arm on each machine, or why it is refused."""
    rows = {(row["arm"], row["machine"]): row for row in table.read(price.TABLE)}
    lines = [
        [f"`{arm}`", *(cost_cell(rows[arm, machine]) for machine in price.MACHINES)]
        for arm in BY_NAME
        if (arm, price.MACHINES[0]) in rows
    ]
    return markdown(("format", *(f"`{machine}`" for machine in price.MACHINES)), lines)


def cost_cell(row: Row) -> str:
    """`950 uJ, 1,622 us`, or the capability that the machine lacks and what it was asked for."""
    if row["refused"]:
        rule = row["refused"].split("capabilities.", 1)[-1].split(":")[0]
        asked = row["refused"].rsplit("got ", 1)[-1]
        return f"refused: {rule}" + ("" if asked == "none" else f" {asked}")
    return f"{float(row['energy_uj']):,.4g} uJ, {float(row['latency_us']):,.4g} us"


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
    "language-training": training,
    "language-pairs": pairs,
    "language-costs": costs,
    "language-decoding": decoding,
}


@in_style
def front(runs: Sequence[Row], priced: Sequence[Row]) -> Figure:
    """Test loss over energy (above) and latency (below), a column per machine, an interval per format."""
    arms = {name: members for name, members in tested(runs).items() if name in BY_NAME and name != LONGER}
    arms = {name: arms[name] for name in BY_NAME if name in arms and name != "lsq-4"}  # costs what lsqplus-4 does
    colours = colours_of(arms)
    figure = Figure(figsize=(12, 6), layout="constrained")
    grid = figure.subplots(2, len(price.MACHINES), sharey=True)
    for column, machine in enumerate(price.MACHINES):
        here = {row["arm"]: row for row in priced if row["machine"] == machine and not row["refused"]}
        for line, (name, unit) in enumerate((("energy_uj", "energy (uJ)"), ("latency_us", "latency (us)"))):
            axes = grid[line][column]
            for arm in (arm for arm in arms if arm in here):
                found = losses(arms[arm])
                axes.errorbar(
                    float(here[arm][name]), found.mean, yerr=found.half_width or 0.0, color=colours[arm], capsize=2,
                    marker="s" if arm in RIVALS else "o", markersize=4, linestyle="none", label=arm,
                )  # fmt: skip
            axes.locator_params(axis="x", nbins=4)
            axes.set_xlabel(f"{machine}: {unit}")
            axes.grid(visible=True)
    for line in (0, 1):
        grid[line][0].set_ylabel("test loss above the grammar's (nats)")
    handles, names = grid[0][list(price.MACHINES).index("b200")].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right center")
    return figure


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
    written = [*save(front(runs, priced), options.figures, "language_formats")]
    written += save(rates(points), options.figures, "language_sweep")
    for path in written:
        print(f"wrote {path}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
