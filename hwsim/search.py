"""The mapping of every layer: search, price, and how good the result is proven to be.

`search` returns the best mapping found of one layer with its exact counts, price and certificate (a lower bound that
holds for every legal mapping, and the gap to it); `search_network` searches every distinct layer once. Fewer bits never
cost more: a search at narrow widths also considers what the next wider ones found.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable
from collections.abc import Mapping as Map
from dataclasses import dataclass
from typing import Any, Literal

from hwsim.counts import Counts, count_accesses
from hwsim.errors import HwsimError, InfeasibleMapping, SpecError
from hwsim.layer_cost import LayerCost, price
from hwsim.machine import Accelerator
from hwsim.mapper.problem import Problem
from hwsim.mapper.quick import Effort, bound_cycles, bound_pj, candidates
from hwsim.mapping import Hold, Mapping, Node, Temporal, check, validate
from hwsim.stages import effective_workload
from hwsim.workload import Layer, Tensor, Workload

Objective = Literal["energy", "latency", "edp"]
RUNGS: tuple[int, ...] = (1, 2, 4, 8)  # widths whose searches hand their mapping down to narrower ones


@dataclass(frozen=True)
class Certificate:
    """How good a mapping is proven to be: `value` and `lower_bound` in the objective's unit (pJ, cycles, pJ*cycles).

    No legal mapping has an objective below `lower_bound`; gap = value/lower_bound - 1. `covered`: tilings the search
    accounted for; `priced`: mappings priced exactly. `exhaustive`: nothing in the declared space is better.
    """

    objective: Objective
    value: float
    lower_bound: float
    covered: int
    priced: int
    space: str
    exhaustive: bool = False
    seconds: float = 0.0

    @property
    def gap(self) -> float:
        """Relative distance to the bound."""
        return max(0.0, self.value / self.lower_bound - 1.0) if self.lower_bound > 0 else 0.0

    def to_dict(self) -> dict[str, Any]:
        """As it stands in the report."""
        found = dataclasses.asdict(self)
        del found["seconds"]
        return {**found, "gap": self.gap}


@dataclass(frozen=True)
class Found:
    """A mapping with its exact counts, its price and its certificate."""

    mapping: Mapping
    counts: Counts
    cost: LayerCost
    certificate: Certificate


SPACE = (
    "declared subset: spatial unrollings that head a ranking by traffic or cycles, for each the cheapest chain of tiles "
    "over divisors of the (padded) extents with uneven cuts and allowed bypasses, a few loop orders; the bound holds for "
    "all legal mappings"
)
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


def lower_bound(problem: Problem, objective: Objective) -> float:
    """Bound on the objective over all legal mappings."""
    if objective == "latency":
        return float(bound_cycles(problem))
    energy = bound_pj(problem)
    return energy if objective == "energy" else energy * bound_cycles(problem)


def search(
    layer: Layer,
    accelerator: Accelerator,
    objective: Objective = "energy",
    *,
    gap: float = 0.0,
    time_limit_s: float | None = None,
    seeds: Iterable[Mapping] = (),
) -> Found:
    """The best mapping found of a layer with MACs, for the objective.

    `seeds`: further mappings to consider, where they are legal. Raises InfeasibleMapping when no tile fits, naming the
    smallest need; CapabilityError when the machine cannot run the layer.
    """
    began = time.perf_counter()
    problem = Problem(layer, accelerator)
    effort = Effort() if objective == "energy" else Effort(chains=4)
    proposed = candidates(problem, effort)
    best: Found | None = None
    priced = 0
    bound = lower_bound(problem, objective)
    for mapping in dict.fromkeys((*proposed.mappings, *seeds)):
        if validate(mapping, layer, accelerator):
            continue
        counts = count_accesses(layer, mapping, accelerator)
        cost = price(layer, counts, accelerator)
        priced += 1
        if best is None or rank_of(cost, objective) < rank_of(best.cost, objective):
            certificate = Certificate(objective, value_of(cost, objective), bound, proposed.covered, priced, SPACE)
            best = Found(mapping, counts, cost, certificate)
    if best is None:
        raise InfeasibleMapping(why_infeasible(layer, accelerator))
    seconds = time.perf_counter() - began
    return dataclasses.replace(best, certificate=dataclasses.replace(best.certificate, priced=priced, seconds=seconds))


def why_infeasible(layer: Layer, accelerator: Accelerator) -> str:
    """The smallest need and the memory that lacks it: what even a nest of single points cannot hold."""
    smallest = smallest_mapping(layer, accelerator)
    problems = validate(smallest, layer, accelerator)
    reason = "; ".join(problems) if problems else "no unrolling and tiling of the declared space fits"
    return f"layer {layer.name} does not fit {accelerator.name}: with the smallest tiles {reason}"


def smallest_mapping(layer: Layer, accelerator: Accelerator) -> Mapping:
    """All loops at the outermost memory: every memory below holds one point of each operand it must keep."""
    nodes: list[Node] = [Hold(accelerator.memories[0].name, accelerator.memories[0].keeps)]
    nodes.extend(Temporal(dim, n) for dim, n in layer.loops.as_dict().items() if n > 1)
    for memory in accelerator.memories[1:]:
        kept = tuple(operand for operand in memory.keeps if operand not in memory.bypass)
        if kept:
            nodes.append(Hold(memory.name, kept))
    return Mapping(tuple(nodes))


# --- whole networks -----------------------------------------------------------------------------------------------------


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
) -> dict[str, Found]:
    """A mapping for every layer with MACs, by name; identical layers are searched once."""
    known: dict[tuple[object, ...], Found] = {}
    found: dict[str, Found] = {}
    for name, layer in effective_workload(workload, accelerator.capabilities).items():
        result = search_ladder(layer, accelerator, objective, known, gap=gap, time_limit_s=time_limit_s)
        found[name] = dataclasses.replace(result, cost=dataclasses.replace(result.cost, name=name))
    return found


def given_mappings(workload: Workload, accelerator: Accelerator, mappings: Map[str, Mapping]) -> dict[str, Found]:
    """Exact counts and prices of given mappings, one per layer with MACs. Raises InfeasibleMapping where one is illegal."""
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
        bound = lower_bound(Problem(layer, accelerator), "energy")
        certificate = Certificate("energy", cost.total_energy_pj, bound, 1, 1, GIVEN)
        found[name] = Found(mappings[name], counts, cost, certificate)
    return found
