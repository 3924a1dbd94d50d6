"""What a proof of one objective leaves open: tiles that do not divide, and which of equally good mappings to take."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence

from hwsim.search import cache as search_cache
from hwsim.search.bounds.any_mapping import bound_of_all
from hwsim.search.bounds.any_tiles import ROUNDS
from hwsim.search.bounds.simple import mac_cycles
from hwsim.search.cache import question_key, recalled, remembered
from hwsim.search.effort import Options, within_means
from hwsim.search.objective import SECOND, Objective, budget_of
from hwsim.search.priced import Pricing
from hwsim.search.proof import longer_loops as padding
from hwsim.search.proof.certify import TOLERANCE, certified_search
from hwsim.search.proof.certify import Search as ProofSearch
from hwsim.search.quick.candidates import Effort, candidates
from hwsim.search.result import EVERYTHING, Certificate, Found
from hwsim.search.space.problem import Problem
from hwsim.search.space.timing import VECTOR, Regime

TIES = 1_000_000  # lattice points after which a tie is left as it is: about a second


def improved(problem: Problem, objective: Objective, found: Found, options: Options) -> Found:
    """A mapping that was proven, or a better one outside the proof's space; its bound stays.

    Without a proof it is the mapping itself.
    """
    return answered(problem, objective, found, options, "improved")


def ordered(problem: Problem, objective: Objective, found: Found, options: Options) -> Found:
    """A mapping, or one that is as good and better in the second objective (`in_order`)."""
    return answered(problem, objective, found, options, "ordered")


def answered(problem: Problem, objective: Objective, found: Found, options: Options, what: str) -> Found:
    """`improved` or `ordered`, from the cache where it has it."""
    began, known = time.perf_counter(), found.certificate
    effort, _ = within_means((problem,), options.effort)
    if effort == "quick":
        return found
    key = question_key(problem, objective, options, [found.mapping], **{what: repr(known.lower_bound)})
    stored = recalled(key, problem)
    if stored is not None:
        return stored
    pricing = Pricing(problem, objective)
    pricing.value(found.mapping)
    limit = options.deadline(began)
    try:
        hunt = certified_search(problem, objective, pricing.value, effort == "proven")
        assert hunt is not None  # `within_means` asked for it
        if what == "improved":
            certificate = looked_beyond(pricing, hunt, known, limit)
        else:
            hunts = (hunt,) if known.exhaustive else ()
            pricing, (then, value, bound) = in_order(pricing, hunts, 0.0, options.gap, limit)
            certificate = dataclasses.replace(known, then=then, then_value=value, then_bound=bound)
    except MemoryError:  # what was found so far stands
        return found
    assert pricing.best is not None
    value = problem.worth(pricing.best[2], objective)
    certificate = dataclasses.replace(
        certificate, value=value, lower_bound=min(certificate.lower_bound, value),
        root_bound=min(certificate.root_bound, value), any_tiles_bound=min(certificate.any_tiles_bound, value),
        priced=known.priced + pricing.priced, seconds=known.seconds + time.perf_counter() - began,
    )  # fmt: skip
    better = Found(*pricing.best, certificate)
    if known.exhaustive:
        search_cache.store(key, remembered(better))
    return better


def looked_beyond(pricing: Pricing, hunt: ProofSearch, known: Certificate, limit: float) -> Certificate:
    """Prices what the proof's space leaves out; the certificate with what is known of all legal mappings."""
    problem, covered = pricing.problem, 0
    any_tiles = bound_of_all(problem, pricing.objective, pricing.best, ROUNDS)
    if not pricing.reaches(any_tiles):
        covered += pricing.propose(candidates(problem, Effort(chains=4), hunt.covers if known.exhaustive else None))
    if not pricing.reaches(any_tiles):
        hunt.start(pricing.best_mapping)
        if problem.accelerator.overlap and problem.unit.fixed_cycles > mac_cycles(problem):
            hunt.learn(Regime((VECTOR,), hunt.timing.default().waits))
        covered += outside_space(pricing, hunt, known.exhaustive, limit)
    return dataclasses.replace(
        known, lower_bound=max(known.lower_bound, any_tiles), covered=known.covered + covered,
        space=EVERYTHING if pricing.reaches(any_tiles) else known.space, any_tiles_bound=any_tiles,
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
