"""Mappings that a search has priced, exactly, and the best of them under an objective, perhaps within a budget."""

from __future__ import annotations

import math

from hwsim.nest.count import count_accesses
from hwsim.nest.counts import Counts
from hwsim.nest.mapping import Mapping
from hwsim.pricing.layer import LayerCost
from hwsim.search.objective import Budget, Objective, rank_of
from hwsim.search.proof.resize import resized
from hwsim.search.quick.candidates import Candidates
from hwsim.search.result import ROUNDING
from hwsim.search.space.problem import Problem


class Pricing:
    """Exact prices of mappings under an objective, perhaps within a budget of another, and the best of them."""

    def __init__(self, problem: Problem, objective: Objective, budget: Budget | None = None) -> None:
        self.problem, self.budget = problem, budget
        self.objective: Objective = objective
        self.best: tuple[Mapping, Counts, LayerCost] | None = None
        self.seen: list[tuple[Mapping, Counts, LayerCost]] = []

    @property
    def priced(self) -> int:
        """Mappings priced."""
        return len(self.seen)

    def within(self, budget: Budget, objective: Objective) -> Pricing:
        """What was priced, ranked by another objective within a budget of this one."""
        ordered = Pricing(self.problem, objective, budget)
        for entry in self.seen:
            ordered.consider(entry)
        return ordered

    def consider(self, entry: tuple[Mapping, Counts, LayerCost]) -> float:
        """The objective of a priced mapping, infinite where it leaves the budget; the best one is kept."""
        self.seen.append(entry)
        cost = entry[2]
        if self.budget is not None and not self.budget.allows(cost):
            return math.inf
        if self.best is None or self.rank(cost) < self.rank(self.best[2]):
            self.best = entry
        return self.problem.worth(cost, self.objective)

    def rank(self, cost: LayerCost) -> tuple[float, ...]:
        """Order of preference."""
        return (self.problem.worth(cost, self.objective), *rank_of(cost, self.objective))

    @property
    def best_value(self) -> float:
        """The objective of the best mapping; infinite before there is one."""
        return self.problem.worth(self.best[2], self.objective) if self.best else math.inf

    @property
    def best_mapping(self) -> Mapping | None:
        """The best mapping so far."""
        return self.best[0] if self.best else None

    def propose(self, proposed: Candidates) -> int:
        """Price candidates; how many chains stand behind them."""
        for mapping in proposed.mappings:
            self.value(mapping)
        return proposed.covered

    def reaches(self, bound: float) -> bool:
        """Whether the best mapping attains a bound."""
        return self.best_value <= bound * (1 + ROUNDING)

    def resize(self) -> None:
        """Other factors for the loops of the best mapping, while that helps."""
        seen: set[Mapping] = set()
        before = None
        while self.best is not None and self.best is not before:
            before = self.best
            for mapping in resized(before[0], self.problem.layer):
                if mapping not in seen:
                    seen.add(mapping)
                    self.value(mapping)

    def value(self, mapping: Mapping) -> float | None:
        """The objective of a mapping, None where it is illegal or breaks a rule; see `consider`."""
        if self.problem.refuses(mapping):
            return None
        counts = count_accesses(self.problem.layer, mapping, self.problem.accelerator)
        if not self.problem.leaves_room(counts):
            return None
        return self.consider((mapping, counts, self.problem.bill(counts)))
