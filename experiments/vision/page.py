"""Tables of the vision transformer's study, from results/vision/runs.csv alone; `experiments.document` writes them."""

from __future__ import annotations

from experiments import table
from experiments.table import Interval, paired_difference, verdict
from experiments.tables import markdown
from experiments.vision import train

BASE = "lsqplus-4"
COLUMN = "test_error_percent"
WORDS = {"lower": "better", "higher": "worse"}


def training() -> str:
    """A line per format with two seeds or more: test error, and the difference from LSQ+ at 4 bits, seed by seed."""
    rows = [row for row in table.read(train.TABLE) if row[COLUMN]]
    names = ("float", *(arm.name for arm in train.ARMS))
    lines: list[list[str]] = []
    for name in names:
        members = [row for row in rows if row["arm"] == name]
        if len(members) < 2:
            continue
        error = Interval.of([float(row[COLUMN]) for row in members])
        found = None
        if name != BASE:
            found = paired_difference(
                rows, lambda row, name=name: row["arm"] == name, lambda row: row["arm"] == BASE, COLUMN
            )
        against = "-" if found is None else f"{found.mean:+.2f} ± {found.half_width:.2f}"
        word = "-" if found is None else WORDS.get(verdict(found), "undecided")
        lines.append([f"`{name}`", str(error.count), f"{error.mean:.2f} ± {error.half_width:.2f}", against, word])
    return markdown(("format", "seeds", "test error (%)", f"less `{BASE}`", "verdict"), lines)


BLOCKS = {"vision-training": training}
