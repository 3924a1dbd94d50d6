"""Quantities as people read them: four digits and a prefix."""

from __future__ import annotations


def between(low: float, high: float, value: float, unit: str) -> str:
    """`16.0 µJ (12.8 to 20.1)`: a quantity and its interval, both with its prefix; without one, `si` alone."""
    text = si(value, unit)
    if low == value == high:
        return text
    number = float(text.split(" ")[0])
    return f"{text} ({low / value * number:.3g} to {high / value * number:.3g})"


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
