"""The mapping of one layer: search, price, and how good the result is proven to be.

`search` returns the best mapping found of one layer with its exact counts, price and certificate (a lower bound that
holds for every legal mapping, and the gap to it).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable

from hwsim.errors import InfeasibleMapping
from hwsim.machine.parts import OPERANDS, Accelerator, Operand
from hwsim.nest.count import count_accesses
from hwsim.nest.counts import Counts
from hwsim.nest.legal import infeasible, validate
from hwsim.nest.mapping import Hold, Mapping, Node, Temporal
from hwsim.network.layer import Layer
from hwsim.pricing.layer import LayerCost, price
from hwsim.search import cache as search_cache
from hwsim.search.bounds.any_mapping import bound_of_all
from hwsim.search.bounds.any_tiles import ROUNDS
from hwsim.search.cache import recalled, remembered
from hwsim.search.objective import Objective, as_objective, rank_of, value_of
from hwsim.search.proof import longer_loops as padding
from hwsim.search.proof.certify import TOLERANCE, certified_search, unrollings_at_most
from hwsim.search.proof.native import why_no_kernel
from hwsim.search.proof.resize import resized
from hwsim.search.quick.candidates import Candidates, Effort, candidates
from hwsim.search.result import EVERYTHING, NOT_PROVEN, PROVEN, ROUNDING, SPACE, Certificate, Effortful, Found
from hwsim.search.space.problem import Problem

UNROLLINGS = 400_000  # `auto` proves spaces of at most so many: about a second


def search(
    layer: Layer,
    accelerator: Accelerator,
    objective: Objective = "energy",
    *,
    gap: float = 0.0,
    time_limit_s: float | None = None,
    effort: Effortful = "quick",
    seeds: Iterable[Mapping] = (),
) -> Found:
    """The best mapping found of a layer with MACs, for the objective.

    `quick`: a good mapping in milliseconds, and how far any legal one could be below. `proven`: best-first until
    nothing better exists among unrollings of any size and temporal loops that divide what is left, until the proven
    gap is at most `gap`, or for `time_limit_s` (the certificate says which). `perfect`: the same among factors that
    divide, in less time.
    `auto`: `proven`, or `perfect`, where the unrollings are at most UNROLLINGS; else `quick`. Without the C kernel all
    are `quick`, and the certificate says why.
    `seeds`: further mappings to consider, where they are legal. Raises InfeasibleMapping when no tile fits, naming the
    smallest need; CapabilityError when the machine cannot run the layer.
    """
    began = time.perf_counter()
    objective, seeds = as_objective(objective), tuple(seeds)
    question = {"objective": objective, "effort": effort, "seeds": [str(mapping) for mapping in seeds]}
    if effort != "quick":
        question |= {"gap": gap, "time_limit_s": time_limit_s}
    key = search_cache.content_hash(layer, accelerator, question)
    known = recalled(key, layer, accelerator)
    if known is not None:
        return known
    problem = Problem(layer, accelerator)
    missing = "" if effort == "quick" else why_no_kernel(problem)
    if missing:
        effort = "quick"
    elif effort == "auto":
        effort = within_reach(problem)
    pricing = Pricing(layer, accelerator, objective)
    for mapping in dict.fromkeys(seeds):
        pricing.value(mapping)
    ways = Effort() if objective == "energy" and effort == "quick" else Effort(chains=4)
    hunt = None if effort == "quick" else certified_search(problem, objective, pricing.value, effort == "proven")
    proof, covered, limit = None, 0, math.inf if time_limit_s is None else began + time_limit_s
    if hunt is None:
        covered += pricing.propose(candidates(problem, ways))
    else:
        proof = hunt.run(gap, limit, pricing.best_value * (1 + 2 * TOLERANCE), pricing.best_mapping)
        covered += proof.covered
    any_tiles = bound_of_all(problem, objective, pricing.best, 0 if effort == "quick" else ROUNDS)
    ended = proof is not None and proof.finished
    if hunt is not None and not (ended and pricing.reaches(any_tiles)):
        covered += pricing.propose(candidates(problem, ways, hunt.covers if ended else None))
    if effort != "quick" and not pricing.reaches(any_tiles):
        pricing.resize()
        if hunt is not None and ended:
            before = hunt.covered
            padding.improve(hunt, pricing.best_value, limit)
            covered += hunt.covered - before
            pricing.resize()
    if pricing.best is None:
        raise why_infeasible(layer, accelerator)
    mapping, counts, cost = pricing.best
    bound, space, root = any_tiles, SPACE, (0.0, 0.0)
    if hunt is not None and proof is not None:
        bound = max(bound, min(proof.lower_bound, pricing.best_value))
        space = PROVEN[effort if hunt.remainders else "perfect"]
        root = min(max(proof.root_bound, any_tiles), bound), proof.root_seconds
    elif missing:
        space = SPACE + NOT_PROVEN + missing
    if pricing.reaches(any_tiles):
        space = EVERYTHING
    certificate = Certificate(
        objective, pricing.best_value, bound, covered, pricing.priced, space, ended,
        time.perf_counter() - began, *root, any_tiles,
    )  # fmt: skip
    found = Found(mapping, counts, cost, certificate)
    if not missing and (effort == "quick" or ended):  # with a compiler the same question has a better answer
        search_cache.store(key, remembered(found))
    return found


def within_reach(problem: Problem) -> Effortful:
    """The largest space whose proof takes about a second."""
    if unrollings_at_most(problem, True) <= UNROLLINGS:
        return "proven"
    return "perfect" if unrollings_at_most(problem, False) <= UNROLLINGS else "quick"


class Pricing:
    """Exact prices of mappings under an objective, and the best of them."""

    def __init__(self, layer: Layer, accelerator: Accelerator, objective: Objective) -> None:
        self.layer, self.accelerator = layer, accelerator
        self.objective: Objective = objective
        self.best: tuple[Mapping, Counts, LayerCost] | None = None
        self.priced = 0

    @property
    def best_value(self) -> float:
        """The objective of the best mapping; infinite before there is one."""
        return value_of(self.best[2], self.objective) if self.best else math.inf

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
            for mapping in resized(before[0], self.layer):
                if mapping not in seen:
                    seen.add(mapping)
                    self.value(mapping)

    def value(self, mapping: Mapping) -> float | None:
        """The objective of a mapping, None where it is illegal; the best one is kept, ties broken by the others."""
        if validate(mapping, self.layer, self.accelerator):
            return None
        counts = count_accesses(self.layer, mapping, self.accelerator)
        cost = price(self.layer, counts, self.accelerator)
        self.priced += 1
        if self.best is None or rank_of(cost, self.objective) < rank_of(self.best[2], self.objective):
            self.best = (mapping, counts, cost)
        return value_of(cost, self.objective)


def why_infeasible(layer: Layer, accelerator: Accelerator) -> InfeasibleMapping:
    """The smallest need and the memory that lacks it: what even a nest of single points cannot hold."""
    smallest = smallest_mapping(layer, accelerator)
    problems = validate(smallest, layer, accelerator)
    reason = "; ".join(problems) if problems else "no unrolling and tiling of the declared space fits"
    message = f"layer {layer.name} does not fit {accelerator.name}: with the smallest tiles {reason}"
    return infeasible(message, smallest, layer, accelerator)


def smallest_mapping(layer: Layer, accelerator: Accelerator) -> Mapping:
    """All loops at the outermost memory: every memory below holds one point of each operand it must keep."""
    outermost = accelerator.memories[0]
    nodes: list[Node] = [Hold(outermost.name, tuple(o for o in OPERANDS if o in outermost.keeps))]
    nodes.extend(Temporal(dim, n) for dim, n in layer.loops.as_dict().items() if n > 1)
    for memory in accelerator.memories[1:]:
        kept: tuple[Operand, ...] = tuple(o for o in OPERANDS if o in memory.keeps and o not in memory.bypass)
        if kept:
            nodes.append(Hold(memory.name, kept))
    return Mapping(tuple(nodes))
