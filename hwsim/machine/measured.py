"""A machine known by measurements: a CSV of layer shape and widths -> cycles (and energy), interpolated.

`read_measurements` reads the table, `Measurements.predict` prices a layer: rows of the table come back exactly; other
shapes from a fit per pair of widths (MACs, outputs, gathered inputs, weights, a constant, none negative), corrected by
the nearest rows. `leave_one_out` states the error when each shape is left out. What has no row runs in the cheapest
pair of widths that holds its operands.
"""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hwsim.errors import CapabilityError, SpecError
from hwsim.files.reading import read_text
from hwsim.network.layer import DIMS, MAC_OPS, Layer

Floats = NDArray[np.float64]
Shape = tuple[int, ...]  # loops in the order of DIMS, stride of rows, stride of columns
How = Literal["measured", "interpolated", "extrapolated"]
STRIDES = ("stride_rows", "stride_columns")
NEEDED = ("weight_bits", "input_bits", "cycles")
NEAREST = 4  # power of the inverse distance that weighs the neighbours' residuals
SAME = 1e-9  # distance of a shape whose features equal another's
MAX_ROWS = 100_000
LARGEST = 2**50


@dataclass(frozen=True)
class Row:
    """One measured layer. `energy_pj` None: the table has none."""

    shape: Shape
    weight_bits: int
    input_bits: int
    cycles: int
    energy_pj: float | None = None

    @property
    def pair(self) -> tuple[int, int]:
        """(weight, input) bits."""
        return (self.weight_bits, self.input_bits)


@dataclass(frozen=True)
class Prediction:
    """Cycles and energy of a layer, the pair of widths it runs at, and where the number comes from."""

    cycles: int
    energy_pj: float
    pair: tuple[int, int]
    how: How

    def describe(self) -> str:
        """`measured at 8x4`."""
        return f"{self.how} at {self.pair[0]}x{self.pair[1]}"


@dataclass(frozen=True)
class LeaveOneOut:
    """Relative errors of the cycles of shapes that were left out: mean, worst, and how many were tried."""

    mean: float
    worst: float
    tried: int


@dataclass(frozen=True)
class Measurements:
    """A table of measured layers. `energy_pj_per_cycle` gives the energy where its rows have none."""

    name: str
    rows: tuple[Row, ...]
    energy_pj_per_cycle: float = 0.0
    ignored: tuple[str, ...] = field(default=())

    @cached_property
    def exact(self) -> dict[tuple[Shape, tuple[int, int]], Row]:
        """Rows by shape and pair."""
        return {(row.shape, row.pair): row for row in self.rows}

    @cached_property
    def by_pair(self) -> dict[tuple[int, int], list[Row]]:
        """Rows by pair of widths."""
        found: dict[tuple[int, int], list[Row]] = defaultdict(list)
        for row in self.rows:
            found[row.pair].append(row)
        return dict(found)

    @cached_property
    def fits(self) -> dict[tuple[int, int], Fit]:
        """One fit of the cycles per pair of widths."""
        return {pair: fit(rows, [float(row.cycles) for row in rows]) for pair, rows in self.by_pair.items()}

    @cached_property
    def energy_fits(self) -> dict[tuple[int, int], Fit]:
        """One fit of the energies per pair; empty where the table has none."""
        return {
            pair: fit(rows, [row.energy_pj for row in rows if row.energy_pj is not None])
            for pair, rows in self.by_pair.items()
            if rows[0].energy_pj is not None
        }

    @cached_property
    def ranges(self) -> tuple[tuple[float, float], ...]:
        """Smallest and largest of every quantity that decides whether a layer lies inside the table."""
        spans = np.array([span(row.shape) for row in self.rows], dtype=np.float64)
        return tuple(zip(spans.min(axis=0).tolist(), spans.max(axis=0).tolist(), strict=True))

    @cached_property
    def leave_one_out(self) -> LeaveOneOut:
        """Every shape predicted, at every pair of widths, from the other shapes alone, by the rule of `predict`."""
        errors: list[float] = []
        for shape in dict.fromkeys(row.shape for row in self.rows):
            guesses: dict[tuple[int, int], float] = {}
            for pair, rows in self.by_pair.items():
                others = [row for row in rows if row.shape != shape]
                if others:
                    guesses[pair] = fit(others, [float(row.cycles) for row in others]).at(shape)
            for pair in guesses:
                if (shape, pair) in self.exact:
                    guess = min(value for other, value in guesses.items() if holds(other, pair))
                    errors.append(abs(guess / self.exact[shape, pair].cycles - 1.0))
        return LeaveOneOut(sum(errors) / len(errors), max(errors), len(errors)) if errors else LeaveOneOut(0.0, 0.0, 0)

    def pairs_for(self, weight_bits: int, input_bits: int) -> tuple[tuple[int, int], ...]:
        """Measured pairs that hold such operands. Raises CapabilityError when there is none."""
        wider = tuple(pair for pair in self.by_pair if holds(pair, (weight_bits, input_bits)))
        if not wider:
            known = ", ".join(f"{w}x{a}" for w, a in sorted(self.by_pair, reverse=True)[:8])
            raise CapabilityError(f"no measurement holds {weight_bits}x{input_bits} operands; {self.name} has {known}")
        return wider

    def predict(self, layer: Layer) -> Prediction:
        """Cycles and energy of a layer with MACs: its row, else the cheapest pair that holds its operands.

        So fewer bits never cost more, except where both were measured and they did. Raises CapabilityError beyond the
        measured widths.
        """
        assert layer.weight is not None
        shape, own = (*layer.loops.as_tuple(), *layer.stride), (layer.weight.bits, layer.inputs[0].bits)
        if (shape, own) in self.exact:
            return self.at(shape, own)
        pairs = self.pairs_for(*own)
        return min((self.at(shape, pair) for pair in pairs), key=lambda p: (p.cycles, p.energy_pj, p.pair))

    def at(self, shape: Shape, pair: tuple[int, int]) -> Prediction:
        """A shape at a measured pair of widths."""
        row = self.exact.get((shape, pair))
        if row is not None:
            energy = row.cycles * self.energy_pj_per_cycle if row.energy_pj is None else row.energy_pj
            return Prediction(row.cycles, energy, pair, "measured")
        inside = all(low <= x <= high for x, (low, high) in zip(span(shape), self.ranges, strict=True))
        cycles = max(1, round(self.fits[pair].at(shape)))
        energy = self.energy_fits[pair].at(shape) if self.energy_fits else cycles * self.energy_pj_per_cycle
        return Prediction(cycles, energy, pair, "interpolated" if inside else "extrapolated")

    def describe(self) -> str:
        """What the table is and how far other layers can be trusted, for the report."""
        error, shapes = self.leave_one_out, len({row.shape for row in self.rows})
        return (
            f"{self.name}: {len(self.rows)} measured layers ({shapes} shapes, {len(self.by_pair)} pairs of widths) are "
            f"reproduced exactly; other shapes are interpolated, with {100 * error.mean:.1f} % mean and "
            f"{100 * error.worst:.0f} % worst error of cycles when each shape is left out in turn, and run "
            "in the cheapest pair of widths that holds their operands"
        )


def holds(pair: tuple[int, int], operands: tuple[int, int]) -> bool:
    """Whether a kernel for `pair` takes operands of these widths."""
    return pair[0] >= operands[0] and pair[1] >= operands[1]


def quantities(shape: Shape) -> tuple[float, ...]:
    """What a kernel's time is made of: MACs, outputs, gathered inputs (one row per output pixel), weights, a start."""
    n, g, k, c, p, q, r, s = shape[:8]
    gathered = n * g * c * r * s * p * q
    return (float(gathered * k), float(n * g * k * p * q), float(gathered), float(g * k * c * r * s), 1.0)


def span(shape: Shape) -> tuple[float, ...]:
    """What tells whether a shape lies inside the table: sizes, length of the sums, channels, groups, stride."""
    _, g, k, c, _, _, r, s, *strides = shape
    return (*quantities(shape)[:4], float(c * r * s), float(k), float(g), *map(float, strides))


@dataclass(frozen=True)
class Fit:
    """value(shape) = coefficients . quantities * exp(residual of the nearest rows, by inverse distance).

    Distances are between logarithms of MACs, outputs and gathered inputs; every row is met exactly.
    """

    coefficients: Floats
    places: Floats
    residuals: Floats

    def at(self, shape: Shape) -> float:
        """The interpolated value."""
        x = np.array(quantities(shape))
        distances = np.linalg.norm(self.places - np.log(x[:3]), axis=1)
        weights = 1.0 / (distances + SAME) ** NEAREST
        return float(x @ self.coefficients) * math.exp(float(weights @ self.residuals / weights.sum()))


def fit(rows: list[Row], values: list[float]) -> Fit:
    """Least squares of relative errors; no coefficient is negative, as no part of a kernel takes less than no time."""
    from scipy.optimize import nnls  # here, not above: a quarter of a second that other machines need not pay

    x = np.array([quantities(row.shape) for row in rows])
    y = np.array(values)
    relative = x / y[:, None]
    scale = relative.max(axis=0)
    solved, _ = nnls(relative / scale, np.ones(len(y)))
    coefficients = np.asarray(solved, dtype=np.float64) / scale
    return Fit(coefficients, np.log(x[:, :3]), np.log(y / (x @ coefficients)))


# --- reading ----------------------------------------------------------------------------------------------------------


def read_measurements(path: Path, energy_pj_per_cycle: float = 0.0) -> Measurements:
    """A CSV as `hwsim.table` writes it: loops (1 where a column is missing), strides, widths, cycles, energy_pj.

    Lines that start with # are remarks; other columns are ignored, as are rows of operators without MACs. Raises
    SpecError with every problem, each as `file:line: column: ...`.
    """
    try:
        lines = read_text(path).splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        raise SpecError(f"{path}: cannot be read as a table of measurements: {problem}") from None
    kept = [(number, line) for number, line in enumerate(lines, 1) if line.strip() and not line.startswith("#")]
    if len(kept) < 2 or len(kept) > MAX_ROWS:
        raise SpecError(f"{path}: expected a header and 1 to {MAX_ROWS:,} rows, got {max(0, len(kept) - 1):,} rows")
    try:  # line by line: a quote without its end takes no other line with it
        header, *records = [next(csv.reader([line])) for _, line in kept]
    except csv.Error as problem:
        raise SpecError(f"{path}: cannot be read as a table of measurements: {problem}") from None
    header = [name.strip() for name in header]
    problems = [f"{path}:{kept[0][0]}: column {name!r} is missing" for name in NEEDED if name not in header]
    problems += [f"{path}:{kept[0][0]}: column {n!r} stands there twice" for n in set(header) if header.count(n) > 1]
    if problems:
        raise SpecError(problems)
    reader = TableReader(path, header)
    for (number, _), record in zip(kept[1:], records, strict=True):
        reader.read(number, record)
    if reader.problems:
        raise SpecError(reader.problems)
    if not reader.rows:
        raise SpecError(f"{path}: no row is a layer with MACs ({', '.join(MAC_OPS)})")
    known = {*DIMS, *STRIDES, *NEEDED, "energy_pj", "op"}
    ignored = tuple(name for name in header if name not in known)
    return Measurements(path.name, tuple(reader.rows.values()), energy_pj_per_cycle, ignored)


class TableReader:
    """Rows of a table of measurements, with every problem in words."""

    def __init__(self, path: Path, header: list[str]) -> None:
        self.path, self.header = path, header
        self.rows: dict[tuple[Shape, tuple[int, int]], Row] = {}
        self.lines: dict[tuple[Shape, tuple[int, int]], int] = {}
        self.problems: list[str] = []

    def read(self, line: int, record: list[str]) -> None:
        """Note one row, or what is wrong with it."""
        if len(record) != len(self.header):
            self.problems.append(f"{self.path}:{line}: expected {len(self.header)} values, got {len(record)}")
            return
        values = dict(zip(self.header, (text.strip() for text in record), strict=True))
        if values.get("op", "conv") not in MAC_OPS:
            return
        known = len(self.problems)
        shape = tuple(self.whole(values, key, line, 1) for key in (*DIMS, *STRIDES))
        weight, activation, cycles = (self.whole(values, key, line, None) for key in NEEDED)
        energy = self.energy(values, line) if "energy_pj" in self.header else None
        for key, bits in (("weight_bits", weight), ("input_bits", activation)):
            if bits > 64:
                self.problems.append(f"{self.path}:{line}: {key}: expected at most 64 bits, got {bits}")
        if len(self.problems) > known:
            return
        row = Row(shape, weight, activation, cycles, energy)
        place = (row.shape, row.pair)
        if place in self.rows and self.rows[place] != row:
            first = self.lines[place]
            self.problems.append(f"{self.path}:{line}: measured before, in line {first}, with another result: keep one")
        self.rows.setdefault(place, row)
        self.lines.setdefault(place, line)

    def whole(self, values: dict[str, str], key: str, line: int, missing: int | None) -> int:
        """A positive whole number; a column that does not exist has `missing`."""
        text = values.get(key)
        if text is None and missing is not None:
            return missing
        if text is None or not text.isdecimal() or not 1 <= int(text[:20]) <= LARGEST:
            self.problems.append(f"{self.path}:{line}: {key}: expected a positive whole number, got {text!r}")
            return 1
        return int(text)

    def energy(self, values: dict[str, str], line: int) -> float:
        """A positive, finite energy."""
        try:
            energy = float(values["energy_pj"])
        except ValueError:
            energy = math.nan
        if not 0.0 < energy < 1e18:
            self.problems.append(
                f"{self.path}:{line}: energy_pj: expected a positive number of pJ, got {values['energy_pj']!r}; "
                "leave the column out where energies are not known"
            )
        return energy
