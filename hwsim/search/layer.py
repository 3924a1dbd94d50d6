"""The mapping of one layer: search, price, and how good the result is proven to be.

`search` returns the best mapping found of one layer with its exact counts, price and certificate (a lower bound that
holds for every legal mapping, and the gap to it).
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from hwsim.machine.parts import Accelerator
from hwsim.machine.ruled_levels import alternatives
from hwsim.machine.rules import Rules, anonymous
from hwsim.nest.count import count_accesses
from hwsim.nest.counts import Counts
from hwsim.nest.mapping import Mapping
from hwsim.network.layer import Layer
from hwsim.pricing.layer import LayerCost
from hwsim.search import cache as search_cache
from hwsim.search.bounds.any_mapping import bound_of_all
from hwsim.search.bounds.any_tiles import ROUNDS
from hwsim.search.cache import recalled, remembered
from hwsim.search.infeasible import FIRST, why_infeasible, why_ruled_out
from hwsim.search.objective import SECOND, Budget, Objective, as_objective, budget_of, rank_of
from hwsim.search.proof import longer_loops as padding
from hwsim.search.proof.certify import TOLERANCE, certified_search, unrollings_at_most
from hwsim.search.proof.certify import Search as ProofSearch
from hwsim.search.proof.native import why_no_kernel
from hwsim.search.proof.resize import resized
from hwsim.search.quick.candidates import Candidates, Effort, candidates
from hwsim.search.quick.neighbours import longer_layers, trimmed
from hwsim.search.result import EVERYTHING, NOT_PROVEN, PROVEN, ROUNDING, RULED, SPACE, Certificate, Effortful, Found
from hwsim.search.space.homes import NOWHERE
from hwsim.search.space.problem import Problem

TIES = 1_000_000  # lattice points after which a tie is left as it is: about a second
UNROLLINGS = 400_000  # `auto` proves spaces of at most so many: about a second
WEAKEST: tuple[Effortful, ...] = ("quick", "perfect", "proven")


def search(
    layer: Layer,
    accelerator: Accelerator,
    objective: Objective = "energy",
    *,
    gap: float = 0.0,
    time_limit_s: float | None = None,
    effort: Effortful = "quick",
    seeds: Iterable[Mapping] = (),
    slack: float = 0.0,
    rules: Rules = (),
) -> Found:
    """The best mapping found of a layer with MACs, for the objective; ties go to the second one.

    `quick`: a good mapping in milliseconds, and how far any legal one could be below. `proven`: best-first until
    nothing better exists among unrollings of any size and temporal loops that divide what is left, until the proven
    gap is at most `gap`, or for `time_limit_s` (the certificate says which). `perfect`: the same among factors that
    divide, in less time.
    `auto`: `proven`, or `perfect`, where the unrollings are at most UNROLLINGS; else `quick`. Without the C kernel all
    are `quick`, and the certificate says why.
    `slack`: share of the least latency (energy) that may be given up for less energy (latency); at 0 the second
    objective decides among mappings that are equally good in the first, by a proof of its own where the first has one.
    `rules`: what the schedule keeps (machine/rules.py); all that is said of mappings is said of those that keep them.
    `seeds`: further mappings to consider, where they are legal. Raises InfeasibleMapping when no tile fits, naming the
    smallest need, or when no mapping keeps the rules; CapabilityError when the machine cannot run the layer.
    """
    wanted, problem = as_objective(objective), Problem(layer, accelerator, rules=rules)
    return solve(problem, wanted, gap=gap, time_limit_s=time_limit_s, effort=effort, seeds=seeds, slack=slack)


def solve(
    problem: Problem,
    objective: Objective,
    *,
    gap: float = 0.0,
    time_limit_s: float | None = None,
    effort: Effortful = "quick",
    seeds: Iterable[Mapping] = (),
    slack: float = 0.0,
    ties: bool = True,
) -> Found:
    """`search` of a problem: with operators behind the layer and operands at home. `ties`: the second objective counts.

    With a price per cycle (`Problem.cycle_pj`) the certificate's energy contains it.
    """
    began = time.perf_counter()
    layer, accelerator, rules, seeds = problem.layer, problem.accelerator, problem.rules, tuple(seeds)
    question: dict[str, Any] = {
        "objective": objective,
        "effort": effort,
        "slack": slack,
        "seeds": [str(mapping) for mapping in seeds],
    }
    if effort != "quick":
        question |= {"gap": gap, "time_limit_s": time_limit_s}
    if rules:
        question["rules"] = [dataclasses.asdict(rule) for rule in anonymous(rules)]
    if not ties:
        question["ties"] = False
    if (problem.fused, problem.homes, problem.cycle_pj) != ((), NOWHERE, 0.0):
        question["around"] = [problem.unit.fixed_cycles, dataclasses.asdict(problem.homes), problem.cycle_pj]
    key = search_cache.content_hash(layer, accelerator, question)
    known = recalled(key, problem)
    if known is not None:
        return known
    problems = [dataclasses.replace(problem, rules=choice) for choice in alternatives(rules, accelerator)]
    missing = "" if effort == "quick" else next(filter(None, map(why_no_kernel, problems)), "")
    if missing:
        effort = "quick"
    elif effort == "auto":
        reach = {within_reach(part) for part in problems}
        effort = next(each for each in WEAKEST if each in reach)
    pricing = Pricing(problem, objective)
    for mapping in dict.fromkeys(seeds):
        pricing.value(mapping)
    limit = math.inf if time_limit_s is None else began + time_limit_s
    claims: list[Claim] = []
    if effort != "quick":
        try:
            claims = [proven(part, pricing, effort, gap, limit) for part in problems]
            if pricing.best is None and rules and effort == "perfect":  # rules may ask for what does not divide
                claims = [proven(part, pricing, "proven", gap, limit) for part in problems]
        except MemoryError as shortage:
            missing = str(shortage)
    if not claims:
        claims = [quick(part, pricing) for part in problems]
    if pricing.best is None:
        raise why_ruled_out(layer, accelerator, rules) if rules else why_infeasible(layer, accelerator)
    claim = Claim.least(claims)
    bound, ruled = min(claim.bound, pricing.best_value), RULED if rules else ""
    space = EVERYTHING if pricing.reaches(claim.any_tiles_bound) else claim.space
    space += ruled + (NOT_PROVEN + missing if missing and space != EVERYTHING else "")
    chosen, second = in_order(pricing, claim.hunts, slack, gap, limit) if ties else (pricing, ("", 0.0, 0.0))
    assert chosen.best is not None
    mapping, counts, cost = chosen.best
    certificate = Certificate(
        objective, problem.worth(cost, objective), bound, claim.covered, pricing.priced, space, claim.ended,
        time.perf_counter() - began, min(claim.root_bound, bound), claim.root_seconds, claim.any_tiles_bound, slack,
        *second,
    )  # fmt: skip
    found = Found(mapping, counts, cost, certificate)
    if not missing and (effort == "quick" or claim.ended):  # with a compiler the same question has a better answer
        search_cache.store(key, remembered(found))
    return found


@dataclass(frozen=True)
class Claim:
    """What is known about the best value: `bound` within `space`, `any_tiles_bound` for every legal mapping.

    `hunts`: the proof's searches, where they ended.
    """

    bound: float
    any_tiles_bound: float
    space: str
    covered: int
    ended: bool = False
    root_bound: float = 0.0
    root_seconds: float = 0.0
    hunts: tuple[ProofSearch, ...] = ()

    @classmethod
    def least(cls, claims: Sequence[Claim]) -> Claim:
        """What is known of several parts of a space together."""
        ended = all(claim.ended for claim in claims)
        return cls(
            bound=min(claim.bound for claim in claims),
            any_tiles_bound=min(claim.any_tiles_bound for claim in claims),
            space=claims[0].space,
            covered=sum(claim.covered for claim in claims),
            ended=ended,
            root_bound=min(claim.root_bound for claim in claims),
            root_seconds=sum(claim.root_seconds for claim in claims),
            hunts=tuple(hunt for claim in claims for hunt in claim.hunts) if ended else (),
        )


def quick(problem: Problem, pricing: Pricing) -> Claim:
    """Prices a few mappings of well-ranked unrollings and of longer layers; the bound is that of all legal mappings."""
    ways = Effort() if pricing.objective == "energy" else Effort(chains=4)
    covered = pricing.propose(candidates(problem, ways))
    for longer in longer_layers(problem.layer):
        found = candidates(dataclasses.replace(problem, layer=longer), ways)
        covered += found.covered
        for mapping in found.mappings:
            pricing.value(trimmed(mapping, problem.layer))
    if pricing.best is None and problem.rules and not why_no_kernel(problem):
        covered += first_that_keeps(problem, pricing)
    bound = bound_of_all(problem, pricing.objective, pricing.best, 0)
    return Claim(bound, bound, SPACE, covered)


def first_that_keeps(problem: Problem, pricing: Pricing) -> int:
    """Prices a mapping that keeps the rules, where the ways of the quick search have none; lattice points looked at.

    The proof's search stops at the first one, or proves that there is none.
    """
    covered = 0
    for remainders in (False, True):
        hunt = certified_search(problem, pricing.objective, pricing.value, remainders)
        if hunt is not None and pricing.best is None:
            covered += hunt.run(FIRST, math.inf).covered
    return covered


def proven(problem: Problem, pricing: Pricing, effort: Effortful, gap: float, limit: float) -> Claim:
    """Best first over unrollings; then what the space leaves out is looked at: quick candidates, longer loops."""
    hunt = certified_search(problem, pricing.objective, pricing.value, effort == "proven")
    assert hunt is not None  # `why_no_kernel` was asked
    proof = hunt.run(gap, limit, pricing.best_value * (1 + 2 * TOLERANCE), pricing.best_mapping)
    covered = proof.covered
    any_tiles = bound_of_all(problem, pricing.objective, pricing.best, ROUNDS)
    ordered = proof.finished and any(rule.has_loops for rule in problem.rules)  # chains do not ask for orders
    if not (ordered or (proof.finished and pricing.reaches(any_tiles))):
        covered += pricing.propose(candidates(problem, Effort(chains=4), hunt.covers if proof.finished else None))
    if not pricing.reaches(any_tiles):
        covered += outside_space(pricing, hunt, proof.finished, limit)
    return Claim(
        max(any_tiles, min(proof.lower_bound, pricing.best_value)), any_tiles,
        PROVEN["proven" if hunt.remainders else "perfect"], covered, proof.finished, max(proof.root_bound, any_tiles),
        proof.root_seconds, (hunt,) if proof.finished else (),
    )  # fmt: skip


def outside_space(pricing: Pricing, hunt: ProofSearch, finished: bool, limit: float) -> int:
    """Prices tiles that do not divide, which no proof covers; lattice points looked at."""
    pricing.resize()
    if not finished:
        return 0
    before = hunt.covered
    padding.improve(hunt, pricing.best_value, limit)
    pricing.resize()
    return hunt.covered - before


def in_order(
    pricing: Pricing, hunts: Sequence[ProofSearch], slack: float, gap: float, limit: float
) -> tuple[Pricing, tuple[str, float, float]]:
    """The best of the second objective within `slack` of the first: prices, and (objective, value, lower bound).

    The bound is that of the space of `hunts`; 0 without any.
    """
    second = SECOND.get(pricing.objective)
    if second is None:
        return pricing, ("", 0.0, 0.0)
    ordered = pricing.within(budget_of(pricing.objective, pricing.best_value, slack), second)
    bound = math.inf if hunts else 0.0
    try:
        for hunt in hunts:
            hunt.begin(second, ordered.value, ordered.budget)
            proof = hunt.run(gap, limit, ordered.best_value * (1 + 2 * TOLERANCE), ordered.best_mapping, TIES)
            outside_space(ordered, hunt, proof.finished, limit)
            bound = min(bound, proof.lower_bound)
    except MemoryError:  # what was found so far stands, unproven
        bound = 0.0
    return ordered, (second, ordered.best_value, min(bound, ordered.best_value))


def within_reach(problem: Problem) -> Effortful:
    """The largest space whose proof takes about a second."""
    if unrollings_at_most(problem, True) <= UNROLLINGS:
        return "proven"
    return "perfect" if unrollings_at_most(problem, False) <= UNROLLINGS else "quick"


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
