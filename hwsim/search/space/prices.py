"""Sums that the certified search bounds, as prices per crossing and level: energy, the time of a regime, or both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwsim.machine.parts import Operand
from hwsim.search.kernel_enums import ENUMS
from hwsim.search.space.problem import Crossing, Pairs, Problem
from hwsim.search.space.timing import Regime, Timing

COST, ENERGY, TIME, MIXED = (ENUMS[name] for name in ("COST", "ENERGY", "TIME", "MIXED"))  # kinds of sums


@dataclass(frozen=True)
class Prices:
    """A sum that is bounded: `energy` times the energy of crossings plus `time` times the cycles of a regime.

    COST: the objective is at least this sum; ENERGY and TIME: factors of a product; MIXED: energy in all (idle energy
    included) times `energy` plus cycles times `idle_free`: as part of a product.
    """

    kind: int
    energy: float
    time: float
    regime: Regime | None
    idle_free: float = 0.0

    @property
    def weights(self) -> tuple[float, float]:
        """Weights of energy in all and of time in a MIXED sum."""
        return self.energy, self.idle_free


@dataclass(frozen=True)
class Linear:
    """The same per element: `price[r, g, l]` of crossing r at level l, `constant[r, g]` once per crossing.

    Group g < arrays + 1 is divided by the instances of the memories of segment g, which work side by side; the last
    group is not divided. Crossings in the order of `crossings_of`.
    """

    price: NDArray[np.float64]
    constant: NDArray[np.float64]


def crossings_of(problem: Problem) -> list[Crossing]:
    """All crossings, operand by operand."""
    return in_order(problem.crossings)


def in_order(crossings: Mapping[Operand, Pairs]) -> list[Crossing]:
    """Operand by operand."""
    return [crossing for pairs in crossings.values() for crossing in pairs.values()]


def linear(problem: Problem, prices: Prices) -> Linear:
    """Prices per crossing and level: energy undivided, cycles by the instances of each segment's memories."""
    segments = len(problem.arrays) + 1
    count = len(crossings_of(problem))
    found = Linear(np.zeros((count, segments + 1, segments)), np.zeros((count, segments + 1)))
    parts = [(segments, prices.energy, problem.crossings)]
    if prices.regime is not None:
        timing = Timing(problem)
        parts += [(segment, prices.time, timing.crossings(prices.regime, segment)) for segment in range(segments)]
    for group, weight, priced in parts:
        if weight:
            for r, crossing in enumerate(in_order(priced)):
                for offset, price in enumerate(crossing.prices):
                    found.price[r, group, crossing.segment + offset] = weight * price
                found.constant[r, group] = weight * crossing.first_pj * problem.elements(crossing.operand)
    return found
