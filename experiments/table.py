"""CSV files that grow one row at a time and never tear: `read(path)`, `append(path, rows)`, `Interval` of a sample.

A row is a dict of plain values; columns are the union over the rows, in order of appearance. Every experiment reads its
numbers back from here, so a figure can always be redrawn without training anything.
"""

from __future__ import annotations

import csv
import fcntl
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipy import stats

from hwsim.files.csv_text import csv_table
from quant.data import write_atomically
from quant.recipe import NORM_BATCHES, Recipe

Row = dict[str, str]


def read(path: Path) -> list[Row]:
    """The rows of a CSV as strings; none when it does not exist yet."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def append(path: Path, rows: Iterable[Mapping[str, Any]], *, key: str | None = None) -> None:
    """Add rows and replace the file atomically; with `key`, a new row takes the place of the old one of equal key."""
    fresh = [{name: text_of(value) for name, value in row.items()} for row in rows]
    taken = {row[key] for row in fresh} if key is not None else set()
    with locked(path):
        kept = [row for row in read(path) if key is None or row[key] not in taken]
        write(path, [*kept, *fresh])


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock beside a table, so that several processes may add rows to it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Replace the file by these rows."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = csv_table(columns, ({name: text_of(value) for name, value in row.items()} for row in rows))
    write_atomically(path, lambda file: file.write(text.encode()))


def text_of(value: Any) -> str:
    """A cell: nothing for None, eight digits of a float."""
    if value is None:
        return ""
    return f"{value:.8g}" if isinstance(value, float) else str(value)


USUAL = {
    "offset_mode": "learned", "method": "lsqplus", "weight_decay": "", "learning_rate": "", "distill": "False",
    "gradient_scale": "1/sqrt(Np)",
}  # fmt: skip
# The usual first values at each learning rate of the weights: the papers', and those of profile cpu_long.
USUAL_INIT = {"": "lsqplus", "0.03": "mse"}


MIXED = "mixed-"  # begins the `bits` of a run or point whose layers have widths of their own


def precisions(rows: Iterable[Row]) -> list[str]:
    """The bits of runs, each once: uniform ones by their width, then the mixed as they come."""
    found = list(dict.fromkeys(row["bits"] for row in rows))
    return [*sorted(bits for bits in found if not bits.startswith(MIXED)), *(b for b in found if b.startswith(MIXED))]


def usual(row: Mapping[str, str]) -> bool:
    """Whether a run or point differs from others of its network by bits, configuration and padding policy alone."""
    return row["init"] == usual_init(row) and all(row[name] == value for name, value in USUAL.items())


def usual_init(row: Mapping[str, str]) -> str:
    """The first values that a run of this learning rate of weights has unless they are what is compared."""
    return USUAL_INIT.get(row.get("weight_learning_rate", ""), "lsqplus")


def current(rows: Iterable[Row]) -> list[Row]:
    """Float rows, and of the quantized rows of each network and data those of today's defaults of `change_limit` and
    `norm_batches`; those without (older rows) where there are no others. So nothing averages runs of both kinds.
    """
    found = list(rows)
    for name, value in (("change_limit", Recipe.change_limit), ("norm_batches", NORM_BATCHES)):
        default = text_of(value)
        has_default = {(row["network"], row["data"]) for row in found if row.get(name, "") == default}
        found = [
            row
            for row in found
            if row["bits"] == "float"
            or row.get(name, "") == (default if (row["network"], row["data"]) in has_default else "")
        ]
    return found


def group(rows: Iterable[Row], *names: str) -> dict[tuple[str, ...], list[Row]]:
    """Rows by the values of these columns, in order of appearance."""
    found: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row.get(name, "") for name in names), []).append(row)
    return found


@dataclass(frozen=True)
class Interval:
    """Mean of a sample and the half-width of its 95 % Student-t interval (None for fewer than two values)."""

    mean: float
    half_width: float | None
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Interval:
        """mean +- t(0.975, n - 1) * s / sqrt(n).

        >>> Interval.of([1.0, 2.0, 3.0]).text()
        '2.00 ± 2.48'
        """
        n = len(values)
        if n == 0:
            raise ValueError("Interval.of: expected at least one value")
        mean = math.fsum(values) / n
        if n == 1:
            return cls(mean, None, 1)
        variance = math.fsum((v - mean) ** 2 for v in values) / (n - 1)
        return cls(mean, float(stats.t.ppf(0.975, n - 1)) * math.sqrt(variance / n), n)

    @property
    def low(self) -> float:
        return self.mean - (self.half_width or 0.0)

    @property
    def high(self) -> float:
        return self.mean + (self.half_width or 0.0)

    def text(self) -> str:
        """'71.20 ± 0.85', or the value alone with '(1 run)'."""
        return f"{self.mean:.2f} ± {self.half_width:.2f}" if self.half_width is not None else f"{self.mean:.2f} (1 run)"


def paired_difference(
    rows: Iterable[Row], first: Callable[[Row], bool], second: Callable[[Row], bool], column: str
) -> Interval | None:
    """`column` of the `first` rows less that of the `second`, seed by seed; None without a common seed.

    Runs of one seed start from the same float network and see the same order of images, so their difference varies
    less than either.
    """
    rows = list(rows)
    a = {row["seed"]: float(row[column]) for row in rows if first(row)}
    b = {row["seed"]: float(row[column]) for row in rows if second(row)}
    common = [seed for seed in a if seed in b]
    return Interval.of([a[seed] - b[seed] for seed in common]) if common else None


def verdict(difference: Interval | None, *, tie_within: float = 0.0) -> str:
    """'higher', 'lower', 'tie' (the whole interval within +-tie_within) or 'undecided'."""
    if difference is None or difference.half_width is None:
        return "undecided"
    if difference.low > 0:
        return "higher"
    if difference.high < 0:
        return "lower"
    if -tie_within <= difference.low and difference.high <= tie_within:
        return "tie"
    return "undecided"
