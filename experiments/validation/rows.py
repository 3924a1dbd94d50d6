"""One published number beside ours, and what a set of them says: errors, calibrated numbers, explanation.

A row's role says what it may prove: `check` was never looked at while calibrating, `calibration` was, `context` is
shown but not counted.
"""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from scipy.stats import rankdata

Role = Literal["check", "calibration", "context"]
DATA = Path(__file__).resolve().parents[1] / "data"


@dataclass(frozen=True)
class Row:
    """A published value and ours, both in `unit`."""

    item: str
    quantity: str
    unit: str
    published: float
    ours: float
    role: Role = "check"

    @property
    def error(self) -> float:
        """ours / published - 1; 0 where both are 0."""
        if self.published == 0:
            return 0.0 if self.ours == 0 else math.inf
        return self.ours / self.published - 1


@dataclass(frozen=True)
class Study:
    """All rows of one published result. `calibrated`: every number that was fitted, and on what."""

    name: str
    title: str
    source: str
    machine: str
    rows: tuple[Row, ...]
    calibrated: tuple[str, ...]
    explanation: str

    @property
    def checks(self) -> tuple[Row, ...]:
        """The rows that count."""
        return tuple(row for row in self.rows if row.role == "check")

    @property
    def quantities(self) -> tuple[str, ...]:
        """What is compared, in order."""
        return tuple(dict.fromkeys(row.quantity for row in self.rows))

    def mean_error(self, quantity: str) -> float:
        """Mean absolute relative error over the check rows of a quantity; NaN without any."""
        errors = [abs(row.error) for row in self.checks if row.quantity == quantity]
        return statistics.fmean(errors) if errors else math.nan

    def worst(self, quantity: str) -> Row | None:
        """The check row that is furthest off."""
        rows = [row for row in self.checks if row.quantity == quantity]
        return max(rows, key=lambda row: abs(row.error)) if rows else None


def read_table(name: str) -> list[dict[str, str]]:
    """Rows of a table in experiments/data."""
    with (DATA / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def rank_correlation(pairs: Iterable[tuple[float, float]]) -> float:
    """Spearman's rank correlation; ties get their mean rank."""
    left, right = zip(*pairs, strict=True)
    return statistics.correlation(list(rankdata(left)), list(rankdata(right)))


def signed_percent(error: float) -> str:
    """`+3.1 %`."""
    return f"{100 * error:+.1f} %"


def summary_lines(studies: Sequence[Study]) -> list[str]:
    """One markdown table over all studies."""
    lines = [
        "| result | quantity | rows | mean error | worst row | its error |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for study in studies:
        for quantity in study.quantities:
            worst = study.worst(quantity)
            if worst is None:
                continue
            count = sum(row.quantity == quantity for row in study.checks)
            mean = f"{100 * study.mean_error(quantity):.1f} %"
            lines.append(
                f"| {study.title} | {quantity} | {count} | {mean} | {worst.item} | {signed_percent(worst.error)} |"
            )
    return lines
