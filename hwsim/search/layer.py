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

from hwsim.machine.parts import Accelerator
from hwsim.machine.ruled_levels import alternatives
from hwsim.machine.rules import Rules
from hwsim.nest.legal import validate
from hwsim.nest.mapping import Mapping
from hwsim.network.layer import Layer
from hwsim.search import cache as search_cache
from hwsim.search.beyond import in_order, outside_space
from hwsim.search.bounds.any_mapping import bound_of_all
from hwsim.search.bounds.any_tiles import ROUNDS
from hwsim.search.cache import question_key, recalled, recalled_bound, remembered
from hwsim.search.effort import Options, within_means
from hwsim.search.infeasible import FIRST, smallest_mapping, why_infeasible, why_ruled_out
from hwsim.search.objective import Objective, as_objective
from hwsim.search.priced import Pricing
from hwsim.search.proof.certify import TOLERANCE, certified_search
from hwsim.search.proof.certify import Search as ProofSearch
from hwsim.search.proof.native import why_no_kernel
from hwsim.search.quick.candidates import Effort, candidates
from hwsim.search.quick.neighbours import longer_layers, trimmed
from hwsim.search.result import EVERYTHING, NOT_PROVEN, PROVEN, RULED, SPACE, Bounded, Certificate, Effortful, Found
from hwsim.search.space.problem import Problem

POOR = 1.2  # times the bound of all mappings, from which on the quick search under rules looks further
NEAR = 0.05  # the gap at which it stops
RULED_POINTS = 200_000  # lattice points that it looks at, about


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
    options = Options(gap, time_limit_s, effort)
    key = question_key(problem, objective, options, seeds, slack=slack, ties=ties)
    known = recalled(key, problem)
    if known is not None:
        return known
    problems = [dataclasses.replace(problem, rules=choice) for choice in alternatives(rules, accelerator)]
    effort, missing = within_means(problems, effort)
    pricing = Pricing(problem, objective)
    for mapping in dict.fromkeys(seeds):
        pricing.value(mapping)
    limit = options.deadline(began)
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
    value = problem.worth(cost, objective)
    certificate = Certificate(
        objective, value, min(bound, value), claim.covered, pricing.priced, space, claim.ended,
        time.perf_counter() - began, min(claim.root_bound, bound, value), claim.root_seconds,
        min(claim.any_tiles_bound, value), slack, *second,
    )  # fmt: skip
    found = Found(mapping, counts, cost, certificate)
    if not missing and (effort == "quick" or claim.ended):  # with a compiler the same question has a better answer
        search_cache.store(key, remembered(found))
    return found


def prove(
    problem: Problem, objective: Objective, *, seeds: Iterable[Mapping], cutoff: float, options: Options
) -> Found | Bounded:
    """The best mapping of the proof's space, if it costs less than a cutoff; else a bound on all, at most the cutoff.

    What no proof covers is left to `beyond.improved`. Where nothing can be proven it is `solve`.
    Raises InfeasibleMapping where nothing fits.
    """
    began, seeds = time.perf_counter(), tuple(seeds)
    key = question_key(problem, objective, options, seeds, cutoff=repr(cutoff))
    known = recalled(key, problem) or recalled_bound(key)
    if known is not None:
        return known
    effort, _ = within_means((problem,), options.effort)
    pricing = Pricing(problem, objective)
    for mapping in dict.fromkeys(seeds):
        pricing.value(mapping)
    try:
        hunt = None if effort == "quick" else certified_search(problem, objective, pricing.value, effort == "proven")
        if hunt is None:
            raise MemoryError
        best = min(pricing.best_value * (1 + 2 * TOLERANCE), cutoff)
        proof = hunt.run(options.gap, options.deadline(began), best, pricing.best_mapping)
    except MemoryError:
        return solve(problem, objective, seeds=seeds, ties=not problem.cycle_pj, **dataclasses.asdict(options))
    value, answer = pricing.best_value, Bounded(proof.lower_bound)
    if pricing.best is None and cutoff == math.inf:
        raise why_infeasible(problem.layer, problem.accelerator)
    if pricing.best is None or value > cutoff:
        if proof.finished:
            search_cache.store(key, {"bound": answer.lower_bound})
        return answer
    bound = min(proof.lower_bound, value)
    certificate = Certificate(
        objective, value, bound, proof.covered, pricing.priced, PROVEN[effort], proof.finished,
        time.perf_counter() - began, min(proof.root_bound, bound), proof.root_seconds,
    )  # fmt: skip
    found = Found(*pricing.best, certificate)
    if proof.finished:
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
    apart = pricing.objective == "energy" and problem.accelerator.overlap  # who takes turns pays energy by time
    ways = Effort() if apart else Effort(chains=4)
    covered = pricing.propose(candidates(problem, ways))
    for longer in longer_layers(problem.layer):
        found = candidates(dataclasses.replace(problem, layer=longer), ways)
        covered += found.covered
        for mapping in found.mappings:
            pricing.value(trimmed(mapping, problem.layer))
    if pricing.best is None and not why_no_kernel(problem):
        covered += first_of_all(problem, pricing)
    bound = bound_of_all(problem, pricing.objective, pricing.best, 0)
    if problem.rules and pricing.best is not None and pricing.best_value > POOR * bound and not why_no_kernel(problem):
        covered += better_that_keep(problem, pricing)
        bound = bound_of_all(problem, pricing.objective, pricing.best, 0)
    return Claim(bound, bound, SPACE, covered)


def first_of_all(problem: Problem, pricing: Pricing) -> int:
    """Prices a legal mapping where the ways of the quick search have none; lattice points looked at.

    The proof's search stops at the first one, or proves that there is none. Not asked where not even tiles of single
    points fit.
    """
    if validate(smallest_mapping(problem.layer, problem.accelerator), problem.layer, problem.accelerator):
        return 0
    covered = 0
    for remainders in (False, True):
        hunt = certified_search(problem, pricing.objective, pricing.value, remainders)
        if hunt is not None and pricing.best is None:
            covered += hunt.run(FIRST, math.inf).covered
    return covered


def better_that_keep(problem: Problem, pricing: Pricing) -> int:
    """Looks for mappings that keep the rules and cost less than the one known; lattice points looked at.

    The proof's search, stopped early: a rule may ask for orders that the ways of the quick search never take.
    """
    hunt = certified_search(problem, pricing.objective, pricing.value, False)
    if hunt is None:
        return 0
    known = pricing.best_value * (1 + 2 * TOLERANCE)
    return hunt.run(NEAR, math.inf, known, pricing.best_mapping, RULED_POINTS).covered


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
