"""An objective as a number: energy in pJ, latency in cycles, EDP as their product; ties go to the others."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from hwsim.errors import SpecError
from hwsim.pricing.layer import LayerCost
from hwsim.search.words import OBJECTIVES, Objective

Number = TypeVar("Number", float, NDArray[np.float64])


def as_objective(text: str) -> Objective:
    """The word as an objective. Raises SpecError, which lists the right ones."""
    for objective in OBJECTIVES:
        if text == objective:
            return objective
    raise SpecError(f"objective: expected one of {', '.join(OBJECTIVES)}, got {text!r}")


def objective_value(objective: str, energy_pj: Number, cycles: Number) -> Number:
    """What is minimised, of numbers or arrays: pJ, cycles, or pJ * cycles. Raises SpecError for another word."""
    known = as_objective(objective)
    return energy_pj if known == "energy" else cycles if known == "latency" else energy_pj * cycles


def objective_rank(objective: str, energy_pj: Number, cycles: Number) -> tuple[Number, Number, Number]:
    """Order of preference: the objective, ties broken by the others."""
    value = objective_value(objective, energy_pj, cycles)
    return (value, cycles, energy_pj) if objective == "energy" else (value, energy_pj, cycles)


def value_of(cost: LayerCost, objective: str) -> float:
    """`objective_value` of a bill."""
    return objective_value(objective, cost.total_energy_pj, float(cost.latency_cycles))


def rank_of(cost: LayerCost, objective: str) -> tuple[float, float, float]:
    """`objective_rank` of a bill."""
    return objective_rank(objective, cost.total_energy_pj, float(cost.latency_cycles))


@dataclass(frozen=True)
class Budget:
    """What the first of two objectives may take, pJ or cycles, while the second is minimised."""

    objective: Objective
    most: float

    def allows(self, cost: LayerCost) -> bool:
        """Whether a cost stays within it."""
        return value_of(cost, self.objective) <= self.most


SECOND: dict[Objective, Objective] = {"energy": "latency", "latency": "energy"}


def budget_of(objective: Objective, least: float, slack: float) -> Budget:
    """All that is within a relative `slack` of the least: whole cycles, or pJ."""
    most = least * (1 + slack)
    return Budget(objective, math.floor(most + 1e-9) if objective == "latency" else most)
