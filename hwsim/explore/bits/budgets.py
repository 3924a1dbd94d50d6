"""Budgets as a user writes them: `energy=2mJ`, `latency=5ms`, `weights=120KiB`, `peak=64KiB`, `bops=2e9`."""

from __future__ import annotations

import re
from collections.abc import Iterable

from hwsim.errors import SpecError
from hwsim.explore.words import NAMES

ENERGY_UNITS = {"J": 1e12, "mJ": 1e9, "uJ": 1e6, "µJ": 1e6, "nJ": 1e3, "pJ": 1.0}
SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
BITS = {"bit": 1.0, "B": 8.0, "kB": 8e3, "KiB": 8 * 1024.0, "MB": 8e6, "MiB": 8 * 1024.0**2}
BUDGET = re.compile(r"(?P<name>\w+)=(?P<number>[0-9.]+(?:[eE][+-]?[0-9]+)?)\s*(?P<unit>[A-Za-zµ]*)")


def parse_budget(text: str, clock_mhz: float, place: str = "--budget") -> tuple[str, float]:
    """(measure, largest value) of `latency=5ms`. Latency becomes cycles at the machine's clock. Raises SpecError."""
    match = BUDGET.fullmatch(text.strip())
    if match is None or match["name"] not in NAMES:
        raise SpecError(f"{place}: expected one of {', '.join(NAMES)} with a number and a unit, such as energy=2mJ; "
                        f"got {text!r}")  # fmt: skip
    units: dict[str, dict[str, float]] = {
        "energy": ENERGY_UNITS,
        "latency": {"cycles": 1.0, **{unit: s * clock_mhz * 1e6 for unit, s in SECONDS.items()}},
        "weights": BITS,
        "peak": BITS,
        "bops": {"": 1.0},
        "loss": {"": 1.0},
    }
    known = units[match["name"]]
    if match["unit"] not in known:
        raise SpecError(f"{place}: {text!r}: expected a unit of {', '.join(known) or 'none'}, got {match['unit']!r}")
    try:
        number = float(match["number"])
    except ValueError:
        number = -1.0
    if not 0 < number < 1e300:
        raise SpecError(f"{place}: {text!r}: expected a positive number")
    return NAMES[match["name"]], number * known[match["unit"]]


def parse_budgets(texts: Iterable[str], clock_mhz: float, place: str = "--budget") -> dict[str, float]:
    """Every budget by measure. Raises SpecError for two budgets on one measure."""
    found: dict[str, float] = {}
    for text in texts:
        name, limit = parse_budget(text, clock_mhz, place)
        if name in found:
            raise SpecError(f"{place}: two budgets for {name}: keep one of them")
        found[name] = limit
    return found
