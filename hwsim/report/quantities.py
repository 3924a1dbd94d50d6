"""Quantities as people read them: four digits and a prefix."""

from __future__ import annotations


def between(low: float, high: float, value: float, unit: str) -> str:
    """`16.0 µJ (12.8 to 20.1)`: a quantity and its interval, both with its prefix; `si` alone where three digits of
    both ends are the same.
    """
    text = si(value, unit)
    if low == value == high:
        return text
    number = float(text.split(" ")[0])
    first, last = (digits(end / value * number, 3) for end in (low, high))
    return text if first == last else f"{text} ({first} to {last})"


def ends(low: float, high: float, unit: str) -> str:
    """`22.5 mJ to 42.2 mJ`: an interval alone, each end with its prefix; empty where it has no width."""
    return "" if low == high else f"{si(low, unit)} to {si(high, unit)}"


def digits(value: float, count: int) -> str:
    """So many digits that count, thousands apart, without an exponent up to a million million.

    >>> digits(28083.4, 4), digits(1063, 3), digits(12.849, 3), digits(0.012345, 4)
    ('28,080', '1,060', '12.8', '0.01235')
    """
    short = f"{value:,.{count}g}"
    return f"{float(short):,.0f}" if "e" in short and 1 <= abs(value) < 1e12 else short


def percent(part: float, whole: float = 1.0, *, digits: int = 1, sign: str = "") -> str:
    """A part of a whole, so many digits after the point; `sign` "+": a change, which always has one.

    >>> percent(0.125), percent(3, 8, digits=2), percent(0.125, sign="+")
    ('12.5 %', '37.50 %', '+12.5 %')
    """
    return f"{100 * part / whole:{sign}.{digits}f} %"


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
