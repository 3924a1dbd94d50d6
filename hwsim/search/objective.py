"""An objective as a number: energy in pJ, latency in cycles, EDP as their product; ties go to the others."""

from __future__ import annotations

from typing import Literal

from hwsim.pricing.layer import LayerCost

Objective = Literal["energy", "latency", "edp"]


def value_of(cost: LayerCost, objective: Objective) -> float:
    """What is minimised: pJ, cycles, or pJ * cycles."""
    energy, cycles = cost.total_energy_pj, float(cost.latency_cycles)
    return energy if objective == "energy" else cycles if objective == "latency" else energy * cycles


def rank_of(cost: LayerCost, objective: Objective) -> tuple[float, float, float]:
    """Order of preference: the objective, ties broken by the others."""
    energy, cycles = cost.total_energy_pj, float(cost.latency_cycles)
    return (value_of(cost, objective), cycles, energy) if objective == "energy" else (
        value_of(cost, objective), energy, cycles
    )  # fmt: skip
