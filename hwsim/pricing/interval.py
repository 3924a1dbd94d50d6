"""How sure an energy and a latency are: every estimate lies within a factor of its own, totals within an interval.

Nothing is drawn at random. Prices that one fit or table feeds are wrong together, so their deviations add; those of
different origin are independent, so their sums add as squares:
high = E + sqrt(sum over origins of (sum of e (s - 1))^2), low = E - sqrt(sum of (sum of e (1 - 1/s))^2).
A latency is a maximum over resources, where squares say nothing: its ends are all rates fast and all slow (rates.py).
What the machine spends per unit of time is one more origin of the energy, as wide as the latency.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from hwsim.machine.parts import Spread
from hwsim.pricing.layer import TIMED


@dataclass(frozen=True)
class Origin:
    """Estimates that are wrong together: the energy they price, and how far it may fall or rise."""

    name: str
    components: tuple[str, ...]
    energy_pj: float
    down_pj: float
    up_pj: float


@dataclass(frozen=True)
class Interval:
    """Where an energy lies if every price lies within its spread. `origins`: widest first."""

    energy_pj: float
    low_pj: float
    high_pj: float
    origins: tuple[Origin, ...]

    @property
    def widest(self) -> Origin | None:
        """The estimate that matters most; None where nothing is estimated."""
        return self.origins[0] if self.origins else None


@dataclass(frozen=True)
class Rate:
    """Rates of one part, a factor either way: what the latency would fall and rise if they alone were off."""

    name: str
    factor: float
    down_s: float
    up_s: float


@dataclass(frozen=True)
class TimeInterval:
    """Where a latency lies if every rate lies within its spread: from all fast to all slow. `rates`: widest first."""

    latency_s: float
    low_s: float
    high_s: float
    rates: tuple[Rate, ...]

    @property
    def widest(self) -> Rate | None:
        """The estimate that matters most; None where no rate is one."""
        return self.rates[0] if self.rates else None


def exact_time(latency_s: float) -> TimeInterval:
    """A latency on which no estimate bears."""
    return TimeInterval(latency_s, latency_s, latency_s, ())


def time_origin(bill: list[tuple[str, float]], time: TimeInterval) -> list[Origin]:
    """What grows with time alone, as far as the latency is open."""
    members = [(component, energy) for component, energy in bill if component in TIMED]
    energy = sum(e for _, e in members)
    if not energy or time.low_s == time.high_s:
        return []
    down, up = (abs(end / time.latency_s - 1) for end in (time.low_s, time.high_s))
    return [Origin("latency", tuple(component for component, _ in members), energy, energy * down, energy * up)]


def energy_interval(
    by_component: Iterable[tuple[str, float]], spreads: tuple[Spread, ...], time: TimeInterval | None = None
) -> Interval:
    """The interval of a bill by component (pJ). Components without a spread are published or measured: exact.

    `time`: of the latency during which idle power and clocks are paid; None: exact.
    """
    known = {spread.component: spread for spread in spreads}
    bill = [(component, energy) for component, energy in by_component if energy]
    groups: defaultdict[str, list[tuple[str, float, float]]] = defaultdict(list)
    for component, energy in bill:
        spread = known.get("vector" if component == "offset" else component)
        if spread is not None and spread.factor > 1:
            groups[spread.origin].append((component, energy, spread.factor))
    origins = [
        Origin(
            name,
            tuple(component for component, _, _ in members),
            sum(energy for _, energy, _ in members),
            sum(energy * (1 - 1 / factor) for _, energy, factor in members),
            sum(energy * (factor - 1) for _, energy, factor in members),
        )
        for name, members in groups.items()
    ]
    origins += time_origin(bill, time) if time else []
    total = sum(energy for _, energy in bill)
    down = math.sqrt(sum(origin.down_pj**2 for origin in origins))
    up = math.sqrt(sum(origin.up_pj**2 for origin in origins))
    return Interval(total, total - down, total + up, tuple(sorted(origins, key=lambda o: -(o.up_pj + o.down_pj))))
