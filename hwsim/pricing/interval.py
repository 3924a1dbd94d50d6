"""How sure an energy is: every estimated price lies within a factor of its own, totals within an interval.

Nothing is drawn at random. Prices that one fit or table feeds are wrong together, so their deviations add; those of
different origin are independent, so their sums add as squares:
high = E + sqrt(sum over origins of (sum of e (s - 1))^2), low = E - sqrt(sum of (sum of e (1 - 1/s))^2).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from hwsim.machine.parts import Spread


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


def energy_interval(by_component: Iterable[tuple[str, float]], spreads: tuple[Spread, ...]) -> Interval:
    """The interval of a bill by component (pJ). Components without a spread are published or measured: exact."""
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
    total = sum(energy for _, energy in bill)
    down = math.sqrt(sum(origin.down_pj**2 for origin in origins))
    up = math.sqrt(sum(origin.up_pj**2 for origin in origins))
    return Interval(total, total - down, total + up, tuple(sorted(origins, key=lambda o: -(o.up_pj + o.down_pj))))
