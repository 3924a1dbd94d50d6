"""The mapping of every layer: search, price, and how good the result is proven to be.

`search` returns the best mapping found of one layer with its exact counts, price and certificate (a lower bound that
holds for every legal mapping, and the gap to it); `search_network` searches every distinct layer once. Fewer bits never
cost more: a search at narrow widths also considers what the next wider ones found.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterable
from collections.abc import Mapping as Map
from dataclasses import dataclass
from typing import Any, Literal

from hwsim.counts import Counts, count_accesses
from hwsim.errors import HwsimError, InfeasibleMapping, SpecError
from hwsim.machine import OPERANDS, Accelerator, Operand
from hwsim.mapper import cache as search_cache
from hwsim.mapper import padding
from hwsim.mapper.any_tiles import ROUNDS, AnyTiles
from hwsim.mapper.certify import TOLERANCE, certified_search, unrollings_at_most
from hwsim.mapper.certify import Search as KernelSearch
from hwsim.mapper.native import has_kernel
from hwsim.mapper.problem import Problem
from hwsim.mapper.quick import Candidates, Effort, bound_cycles, bound_pj, candidates
from hwsim.mapper.resize import resized
from hwsim.mapper.rounding import bill_grid
from hwsim.mapper.timing import Timing
from hwsim.mapping import Hold, Mapping, Node, Spatial, Temporal, check, validate
from hwsim.pricing.layer_cost import LayerCost, price
from hwsim.pricing.stages import effective_workload
from hwsim.workload import Layer, Tensor, Workload

Objective = Literal["energy", "latency", "edp"]
Effortful = Literal["quick", "perfect", "proven", "auto"]
UNROLLINGS = 400_000  # `auto` proves spaces of at most so many: about a second
ROUNDING = 1e-6  # of a bound that counts as reached: entries of a bill are kept on a grid
RUNGS: tuple[int, ...] = (1, 2, 4, 8)  # widths whose searches hand their mapping down to narrower ones


@dataclass(frozen=True)
class Certificate:
    """How good a mapping is proven to be: `value` and `lower_bound` in the objective's unit (pJ, cycles, pJ*cycles).

    No mapping of `space` has an objective below `lower_bound`; gap = value/lower_bound - 1. No legal mapping at all,
    whatever its tile sizes, has one below `any_tiles_bound`. `covered`: lattice points the search accounted for;
    `priced`: mappings priced exactly. `exhaustive`: the search ended by itself. `root_bound`: what a proof knew when
    it had priced one mapping, after `root_seconds`; 0 without a proof.
    """

    objective: Objective
    value: float
    lower_bound: float
    covered: int
    priced: int
    space: str
    exhaustive: bool = False
    seconds: float = 0.0
    root_bound: float = 0.0
    root_seconds: float = 0.0
    any_tiles_bound: float = 0.0

    @property
    def gap(self) -> float:
        """Relative distance to the bound."""
        return max(0.0, self.value / self.lower_bound - 1.0) if self.lower_bound > 0 else 0.0

    @property
    def any_tiles_gap(self) -> float:
        """Relative distance to what holds for every legal mapping."""
        return max(0.0, self.value / self.any_tiles_bound - 1.0) if self.any_tiles_bound > 0 else 0.0

    def revalued(self, cost: LayerCost) -> Certificate:
        """The same bound beside another mapping's cost."""
        return dataclasses.replace(self, value=value_of(cost, self.objective), exhaustive=False)

    def to_dict(self) -> dict[str, Any]:
        """As it stands in the report."""
        found = dataclasses.asdict(self)
        del found["seconds"], found["root_seconds"]
        return {**found, "gap": self.gap, "any_tiles_gap": self.any_tiles_gap}


@dataclass(frozen=True)
class Found:
    """A mapping with its exact counts, its price and its certificate."""

    mapping: Mapping
    counts: Counts
    cost: LayerCost
    certificate: Certificate


SPACE = (
    "declared subset: unrollings that head a ranking by traffic or cycles, for each the cheapest chain of tiles over "
    "divisors of the (padded) extents, uneven cuts and allowed bypasses, a few loop orders; the bound holds for "
    "all legal mappings"
)
ORDERS = "every order of temporal loops, every place of every hold, every allowed bypass"
PROVEN: dict[Effortful, str] = {
    "quick": SPACE,
    "perfect": f"perfect factors: every spatial unrolling, {ORDERS}; mappings with remainders are tried but not "
    "covered by the bound",
    "proven": "remainders of unrollings included: every spatial unrolling, where it divides and where it does not (on "
    "one array, the fewest elements for its steps), windows as well; temporal loops divide the steps that are left; "
    f"{ORDERS}; not covered: tiles of weights and outputs that an idle array element keeps while others reload theirs, "
    "and temporal loops with remainders (tried)",
}
EVERYTHING = "every legal mapping, whatever its tile sizes"
GIVEN = "given mapping, not searched; the bound holds for all legal mappings"


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
    energy = bound_pj(problem) - bill_grid(problem)
    return energy if objective == "energy" else energy * bound_cycles(problem)


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
    `auto`: `proven`, or `perfect`, where the kernel is there and the unrollings are at most UNROLLINGS; else `quick`.
    `seeds`: further mappings to consider, where they are legal. Raises InfeasibleMapping when no tile fits, naming the
    smallest need; CapabilityError when the machine cannot run the layer.
    """
    began = time.perf_counter()
    seeds = tuple(seeds)
    question = {"objective": objective, "effort": effort, "seeds": [str(mapping) for mapping in seeds]}
    if effort != "quick":
        question |= {"gap": gap, "time_limit_s": time_limit_s}
    key = search_cache.content_hash(layer, accelerator, question)
    known = recalled(key, layer, accelerator)
    if known is not None:
        return known
    problem = Problem(layer, accelerator)
    if effort == "auto":
        effort = within_reach(problem)
    pricing = Pricing(layer, accelerator, objective)
    for mapping in dict.fromkeys(seeds):
        pricing.value(mapping)
    ways = Effort() if objective == "energy" and effort == "quick" else Effort(chains=4)
    hunt = None if effort == "quick" else certified_search(problem, objective, pricing.value, effort == "proven")
    in_c = hunt if isinstance(hunt, KernelSearch) else None
    proof, covered, limit = None, 0, math.inf if time_limit_s is None else began + time_limit_s
    if in_c is None:  # numpy's search looks at far too much without a good mapping
        covered += pricing.propose(candidates(problem, ways))
    if hunt is not None:
        proof = hunt.run(gap, limit, pricing.best_value * (1 + 2 * TOLERANCE), pricing.best_mapping)
        covered += proof.covered
    any_tiles = bound_of_all(problem, objective, pricing.best, 0 if effort == "quick" else ROUNDS)
    ended = proof is not None and proof.finished
    if in_c is not None and not (ended and pricing.reaches(any_tiles)):
        covered += pricing.propose(candidates(problem, ways, in_c.covers if ended else None))
    if effort != "quick" and not pricing.reaches(any_tiles):
        pricing.resize()
        if in_c is not None and ended:
            before = in_c.covered
            padding.improve(in_c, pricing.best_value, limit)
            covered += in_c.covered - before
            pricing.resize()
    if pricing.best is None:
        raise InfeasibleMapping(why_infeasible(layer, accelerator))
    mapping, counts, cost = pricing.best
    bound, space, root = any_tiles, SPACE, (0.0, 0.0)
    if hunt is not None and proof is not None:
        bound = max(bound, min(proof.lower_bound, pricing.best_value))
        space = PROVEN[effort if hunt.remainders else "perfect"]
        root = min(max(proof.root_bound, any_tiles), bound), proof.root_seconds
    elif effort != "quick":
        space = f"{SPACE}; --proven needs a C compiler (cc) on this machine of several arrays and found none"
    if pricing.reaches(any_tiles):
        space = EVERYTHING
    certificate = Certificate(
        objective, pricing.best_value, bound, covered, pricing.priced, space, ended,
        time.perf_counter() - began, *root, any_tiles,
    )  # fmt: skip
    found = Found(mapping, counts, cost, certificate)
    if effort == "quick" or ended:
        search_cache.store(key, remembered(found))
    return found


def within_reach(problem: Problem) -> Effortful:
    """The largest space whose proof takes about a second."""
    if not has_kernel(problem):
        return "quick"
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


def remembered(found: Found) -> dict[str, Any]:
    """A result as a cache entry: the mapping and what its certificate says."""
    nodes: list[list[Any]] = []
    for node in found.mapping.nodes:
        if isinstance(node, Hold):
            nodes.append([node.memory, list(node.operands)])
        elif isinstance(node, Temporal):
            nodes.append([node.dim, node.factor])
        else:
            nodes.append([node.dim, node.factor, node.array, node.axis])
    return {"nodes": nodes, "certificate": dataclasses.asdict(found.certificate)}


def recalled(key: str, layer: Layer, accelerator: Accelerator) -> Found | None:
    """A cache entry counted and priced anew; None where there is none or it is not what it claims to be."""
    entry = search_cache.load(key)
    if entry is None:
        return None
    try:
        nodes: list[Node] = []
        for node in entry["nodes"]:
            if len(node) == 4:
                nodes.append(Spatial(node[0], node[1], node[2], node[3]))
            elif isinstance(node[1], list):
                nodes.append(Hold(node[0], tuple(node[1])))
            else:
                nodes.append(Temporal(node[0], node[1]))
        mapping = Mapping(tuple(nodes))
        certificate = Certificate(**entry["certificate"])
        if validate(mapping, layer, accelerator):
            return None
    except (KeyError, TypeError, IndexError, AttributeError):
        return None
    counts = count_accesses(layer, mapping, accelerator)
    cost = price(layer, counts, accelerator)
    same = math.isclose(value_of(cost, certificate.objective), certificate.value, rel_tol=1e-9)
    return Found(mapping, counts, cost, certificate) if same else None


def why_infeasible(layer: Layer, accelerator: Accelerator) -> str:
    """The smallest need and the memory that lacks it: what even a nest of single points cannot hold."""
    smallest = smallest_mapping(layer, accelerator)
    problems = validate(smallest, layer, accelerator)
    reason = "; ".join(problems) if problems else "no unrolling and tiling of the declared space fits"
    return f"layer {layer.name} does not fit {accelerator.name}: with the smallest tiles {reason}"


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


# --- whole networks ---------------------------------------------------------------------------------------------------


def search_key(layer: Layer) -> tuple[object, ...]:
    """Layers with equal keys have the same search."""
    return (layer.shape_key(), layer.bits_key(), layer.bias, layer.weight and layer.weight.scales, layer.padding_policy)


def wider(layer: Layer) -> Layer | None:
    """The layer at the next wider rung of RUNGS; None where every operand is at the top."""

    def up(tensor: Tensor) -> Tensor:
        higher = [rung for rung in RUNGS if rung > tensor.bits]
        return dataclasses.replace(tensor, bits=higher[0]) if higher else tensor

    assert layer.weight is not None
    grown = dataclasses.replace(
        layer, weight=up(layer.weight), inputs=tuple(up(t) for t in layer.inputs), output=up(layer.output)
    )
    return None if grown == layer else grown


def search_ladder(
    layer: Layer, accelerator: Accelerator, objective: Objective, known: dict[tuple[object, ...], Found], **options: Any
) -> Found:
    """`search`, with the mapping of the next wider widths among the candidates: fewer bits never cost more."""
    key = search_key(layer)
    if key not in known:
        seeds: list[Mapping] = []
        above = wider(layer)
        if above is not None:
            try:
                seeds.append(search_ladder(above, accelerator, objective, known, **options).mapping)
            except HwsimError:
                seeds = []
        known[key] = search(layer, accelerator, objective, seeds=seeds, **options)
    return known[key]


def search_network(
    workload: Workload,
    accelerator: Accelerator,
    objective: Objective = "energy",
    *,
    gap: float = 0.0,
    time_limit_s: float | None = None,
    effort: Effortful = "quick",
    known: dict[tuple[object, ...], Found] | None = None,
) -> dict[str, Found]:
    """A mapping for every layer with MACs, by name; identical layers are searched once.

    `known` carries results from one call to the next (same accelerator, objective and limits).
    """
    known = {} if known is None else known
    found: dict[str, Found] = {}
    for name, layer in effective_workload(workload, accelerator.capabilities).items():
        result = search_ladder(layer, accelerator, objective, known, gap=gap, time_limit_s=time_limit_s, effort=effort)
        found[name] = dataclasses.replace(result, cost=dataclasses.replace(result.cost, name=name))
    return found


def given_mappings(workload: Workload, accelerator: Accelerator, mappings: Map[str, Mapping]) -> dict[str, Found]:
    """Exact counts and prices of given mappings, one per layer with MACs; InfeasibleMapping where one is illegal."""
    found: dict[str, Found] = {}
    layers = effective_workload(workload, accelerator.capabilities)
    missing = [name for name in layers if name not in mappings]
    unknown = [name for name in mappings if name not in layers]
    if missing or unknown:
        raise SpecError(
            [f"layer {name}: no mapping given for it" for name in missing]
            + [f"mapping of {name!r}: the workload has no such layer with MACs" for name in unknown]
        )
    for name, layer in layers.items():
        check(mappings[name], layer, accelerator)
        counts = count_accesses(layer, mappings[name], accelerator)
        cost = price(layer, counts, accelerator)
        bound = bound_of_all(Problem(layer, accelerator), "energy", (mappings[name], counts, cost), ROUNDS)
        certificate = Certificate("energy", cost.total_energy_pj, bound, 1, 1, GIVEN, any_tiles_bound=bound)
        found[name] = Found(mappings[name], counts, cost, certificate)
    return found
