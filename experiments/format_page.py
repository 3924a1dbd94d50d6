"""Tables and the figure of a study of formats, from its CSVs of runs and costs alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from experiments import table
from experiments.format_pricing import MACHINES
from experiments.language.arms import FLOAT, Arm
from experiments.table import Interval, Row, paired_difference, verdict
from experiments.tables import markdown
from hwsim.report.style import colours_of, in_style

BASE = "lsqplus-4"  # what the others are compared with
LONGER = "float-longer"
RIVALS = ("mxfp4", "nvfp4", "mxfp6", "mxint8")  # block formats, drawn as such
WORDS = {"lower": "better", "higher": "worse"}


def bits_of(costs: Sequence[Row]) -> dict[str, tuple[float, float]]:
    """(weights, activations) of each arm."""
    return {row["arm"]: (float(row["weight_bits"]), float(row["activation_bits"])) for row in costs}


def losses(members: Sequence[Row], column: str) -> Interval:
    """Of the seeds."""
    return Interval.of([float(row[column]) for row in members])


@dataclass(frozen=True)
class Page:
    """A study: its files, the column `measure` of its error, what that is called, its digits, arms and pairs,
    and the arms that its figure leaves out."""

    runs: Path
    costs: Path
    measure: str
    label: str
    unit: str
    digits: int
    arms: tuple[Arm, ...]
    pairs: tuple[tuple[str, str], ...]
    undrawn: tuple[str, ...]

    @property
    def column(self) -> str:
        """The error on the test part."""
        return f"test_{self.measure}"

    @property
    def early(self) -> str:
        """The error on the validation part before training in the format."""
        return f"untrained_{self.measure}"

    def tested(self) -> dict[str, list[Row]]:
        """Chosen runs by arm: those that were measured on the test part; two seeds or more."""
        found = table.group([row for row in table.read(self.runs) if row[self.column]], "arm")
        return {arm: members for (arm,), members in found.items() if len(members) > 1}

    def shown(self, found: Interval | None, sign: str = "") -> str:
        """`0.0512 ± 0.0031`; a difference has its sign."""
        return "-" if found is None else f"{found.mean:{sign}.{self.digits}f} ± {found.half_width:.{self.digits}f}"

    def between(self, arms: Mapping[str, list[Row]], first: str, second: str, column: str) -> Interval | None:
        """`first` less `second`, seed by seed."""
        return paired_difference(
            [*arms[first], *arms[second]], lambda r: r["arm"] == first, lambda r: r["arm"] == second, column
        )

    def training(self) -> str:
        """A line per arm: bits, error before and after training, and the difference from LSQ+ at 4 bits."""
        arms, bits = self.tested(), bits_of(table.read(self.costs))
        about = {FLOAT: "32-bit floats, where all start", **{arm.name: arm.about for arm in self.arms}}
        lines: list[list[str]] = []
        for name in (FLOAT, LONGER, *(arm.name for arm in self.arms if arm.name != LONGER)):
            if name not in arms:
                continue
            difference = self.between(arms, name, BASE, self.column) if name != BASE else None
            stored = "{:.2f} / {:.2f}".format(*bits[name]) if name in bits else "32"
            early = f"{losses(arms[name], self.early).mean:.{self.digits}f}" if name in bits else "-"
            found = "-" if name == BASE else WORDS.get(verdict(difference), "undecided")
            lines.append([f"`{name}`: {about[name]}", stored, early, self.shown(losses(arms[name], self.column)),
                          self.shown(difference, "+"), found])  # fmt: skip
        heads = ("format", "bits, weights / activations", "before training", self.label, f"less `{BASE}`", "verdict")
        return markdown(heads, lines)

    def differences(self) -> str:
        """Differences of formats of about equal bits, before and after training, seed by seed."""
        bits, arms = bits_of(table.read(self.costs)), self.tested()
        lines: list[list[str]] = []
        for first, second in self.pairs:
            if first not in arms or second not in arms:
                continue
            stored = " and ".join("{:.2f} / {:.2f}".format(*bits[name]) for name in (first, second))
            cells = [
                f"{self.shown(found, '+')}, {WORDS.get(verdict(found), 'undecided')}"
                for column in (self.early, self.column)
                if (found := self.between(arms, first, second, column)) is not None
            ]
            lines.append([f"`{first}` less `{second}`", stored, *cells])
        heads = ("pair", "bits, weights / activations", f"before training ({self.unit})",
                 f"after training ({self.unit})")  # fmt: skip
        return markdown(heads, lines)

    def priced(self) -> str:
        """Energy and latency of each arm on each machine, or why it is refused."""
        rows = {(row["arm"], row["machine"]): row for row in table.read(self.costs)}
        lines = [
            [f"`{arm.name}`", *(cost_cell(rows[arm.name, machine]) for machine in MACHINES)]
            for arm in self.arms
            if (arm.name, MACHINES[0]) in rows
        ]
        return markdown(("format", *(f"`{machine}`" for machine in MACHINES)), lines)

    @in_style
    def front(self) -> Figure:
        """Test error over energy (above) and latency (below), a column per machine, an interval per format."""
        tested, costs = self.tested(), table.read(self.costs)
        arms = {a.name: tested[a.name] for a in self.arms if a.name in tested and a.name not in self.undrawn}
        colours = colours_of(arms)
        figure = Figure(figsize=(12, 6), layout="constrained")
        grid = figure.subplots(2, len(MACHINES), sharey=True)
        for column, machine in enumerate(MACHINES):
            here = {row["arm"]: row for row in costs if row["machine"] == machine and not row["refused"]}
            for line, (name, unit) in enumerate((("energy_uj", "energy (µJ)"), ("latency_us", "latency (µs)"))):
                axes = grid[line][column]
                for arm in (arm for arm in arms if arm in here):
                    found = losses(arms[arm], self.column)
                    axes.errorbar(
                        float(here[arm][name]), found.mean, yerr=found.half_width or 0.0, color=colours[arm],
                        capsize=2, marker="s" if arm in RIVALS else "o", markersize=4, linestyle="none", label=arm,
                    )  # fmt: skip
                axes.locator_params(axis="x", nbins=4)
                axes.set_xlabel(f"{machine}: {unit}")
                axes.grid(visible=True)
        for line in (0, 1):
            grid[line][0].set_ylabel(self.label)
        handles, names = grid[0][MACHINES.index("b200")].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside right center")
        return figure


def cost_cell(row: Row) -> str:
    """`950 uJ, 1,622 us`, or the capability that the machine lacks and what it was asked for."""
    if row["refused"]:
        rule = row["refused"].split("capabilities.", 1)[-1].split(":")[0]
        asked = row["refused"].rsplit("got ", 1)[-1]
        return f"refused: {rule}" + ("" if asked == "none" else f" {asked}")
    return f"{float(row['energy_uj']):,.4g} uJ, {float(row['latency_us']):,.4g} us"
