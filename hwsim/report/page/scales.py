"""Axes of a page: where a value stands between 0 and 100 %, and the ticks a reader expects."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hwsim.report.quantities import si


@dataclass(frozen=True)
class Tick:
    """A place on an axis in percent, and what is written there."""

    at: float
    label: str


@dataclass(frozen=True)
class Scale:
    """Values from `low` to `high` on an axis of 100 %, linear or logarithmic."""

    low: float
    high: float
    log: bool = False

    def at(self, value: float) -> float:
        """Place of a value in percent, kept within the axis."""
        if self.log:
            part = math.log(value / self.low) / math.log(self.high / self.low) if value > 0 else 0.0
        else:
            part = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.0
        return round(100 * min(1.0, max(0.0, part)), 3)

    def ticks(self, unit: str, most: int = 5) -> list[Tick]:
        """At most `most` + 1 round values with their unit."""
        values = self.decades(most) if self.log else self.steps(most)
        return [Tick(self.at(value), label_of(value, unit)) for value in values]

    def decades(self, most: int) -> list[float]:
        """Powers of ten inside, thinned out; the 2s and 5s between them where there are few."""
        first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
        stride = max(1, math.ceil((last - first + 1) / most))
        values = [10.0**power for power in range(first, last + 1, stride)]
        if len(values) < 3:
            fine = [m * 10.0**power for power in range(first - 1, last + 1) for m in (1, 2, 5)]
            values = [value for value in fine if self.low <= value <= self.high]
        return values[:: max(1, math.ceil(len(values) / most))]

    def steps(self, most: int) -> list[float]:
        """Multiples of 1, 2 or 5 times a power of ten."""
        span = self.high - self.low
        if span <= 0:
            return [self.low]
        raw = span / most
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))
        first = math.ceil(self.low / step - 1e-9)
        return [i * step for i in range(first, math.floor(self.high / step + 1e-9) + 1)]


def label_of(value: float, unit: str) -> str:
    """A value with a prefix and its unit; a plain number where it has none."""
    if not unit:
        return f"{value:,.10g}"
    return si(value, unit) if value else "0"


def linear(high: float) -> Scale:
    """From nothing to the largest value."""
    return Scale(0.0, high if high > 0 else 1.0)


def logarithmic(values: list[float], room: float = 1.6) -> Scale:
    """Around positive values, with a factor of room at both ends."""
    return Scale(min(values) / room, max(values) * room, log=True)
