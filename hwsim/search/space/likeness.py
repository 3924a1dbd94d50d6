"""When two questions to the search are the same: layers whose loops, prices and room are alike, whatever their widths.

Where every code takes a whole word, 4 bits and 8 bits move the same words. Their searches then differ only by what
every mapping costs alike (MACs, requantization, constants), and one answer serves both.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping as Map
from dataclasses import dataclass, field

from hwsim.network.layer import Layer
from hwsim.pricing.rounding import partial_words
from hwsim.pricing.shares import border_share
from hwsim.search.space.prices import crossings_of
from hwsim.search.space.problem import Problem
from hwsim.search.space.timing import Timing

Key = tuple[object, ...]


@dataclass(frozen=True)
class Alike:
    """A problem that equals every other one of the same key: for memos."""

    key: Key
    problem: Problem = field(compare=False)


def search_key(layer: Layer) -> tuple[object, ...]:
    """Layers with equal keys have the same search."""
    scales = layer.weight and layer.weight.scales
    widths = layer.bits_key(), layer.format_key, layer.bias, scales
    return (layer.shape_key(), *widths, layer.padding_policy, border_share(layer))


def fused_key(problem: Problem) -> tuple[object, ...]:
    """What the operators behind a layer are, where their names do not matter."""
    return tuple((layer.op, layer.shape_key(), layer.bits_key(), layer.format_key) for layer in problem.fused)


def energy_key(problem: Problem) -> Key:
    """What decides which unrollings and chains of tiles cost least, constants left out."""
    mac = dataclasses.replace(problem.unit.mac, energy_pj=0.0, mode="")
    crossings = tuple(crossings_of(problem)), problem.sources, problem.rules
    return problem.accelerator, problem.layer.shape_key(), crossings, mac, problem.unit.static_pj_per_cycle


def full_key(problem: Problem) -> Key:
    """Equal keys rank all mappings alike: `resources_key` and the work of the vector unit."""
    return *resources_key(problem), problem.unit.fixed_cycles


def resources_key(problem: Problem) -> Key:
    """`energy_key` and what else decides time and rounding, but for the vector unit, which hides no other resource."""
    unit = problem.unit
    rounded = tuple(tuple(partial_words(unit, memory)) for memory in problem.accelerator.memories)
    moved = [*entries(unit.traffic_pj), *entries(unit.port_bits), *entries(unit.bandwidth)]
    return *energy_key(problem), rounded, *moved, *entries(Timing(problem).constant_bits)


def entries(values: Map[tuple[str, ...], float]) -> list[tuple[tuple[str, ...], float]]:
    """Sorted items."""
    return sorted(values.items())
