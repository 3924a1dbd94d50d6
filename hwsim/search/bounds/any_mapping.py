"""The bound that holds for every legal mapping of a layer, and the best of the bounds that a search knows."""

from __future__ import annotations

from hwsim.nest.counts import Counts
from hwsim.nest.mapping import Mapping
from hwsim.pricing.layer import LayerCost
from hwsim.pricing.rounding import bill_grid
from hwsim.search.bounds.any_tiles import AnyTiles
from hwsim.search.bounds.simple import bound_cycles, bound_pj
from hwsim.search.objective import Objective
from hwsim.search.space.problem import Problem
from hwsim.search.space.timing import Timing


def bound_of_all(
    problem: Problem, objective: Objective, best: tuple[Mapping, Counts, LayerCost] | None, rounds: int
) -> float:
    """Bound on the objective over all legal mappings, whatever their tile sizes; `best`: a good one, where known."""
    simple = lower_bound(problem, objective)
    if best is None:
        return simple
    _, counts, cost = best
    regimes = (Timing(problem).regime_of(counts),)
    found = AnyTiles(problem, rounds).bound(objective, regimes, cost.total_energy_pj, float(cost.latency_cycles))
    return max(simple, found)


def lower_bound(problem: Problem, objective: Objective) -> float:
    """A simple bound on the objective over all legal mappings, which needs none."""
    if objective == "latency":
        return float(bound_cycles(problem))
    energy = bound_pj(problem) - bill_grid(problem.accelerator)
    return energy if objective == "energy" else energy * bound_cycles(problem)
