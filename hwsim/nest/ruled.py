"""Whether a nest keeps the rules of a schedule (machine/rules.py), and in words where it does not.

A loop in time belongs to the array it runs in and to the innermost memory that holds something around it. An array
without loops of its own has no place in a nest: any place that keeps memories outside and inside it apart will do.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hwsim.machine.parts import OPERANDS, Accelerator, Array
from hwsim.machine.ruled_levels import arrays_inside, least_use, may_not_hold, must_hold
from hwsim.machine.rules import Rule, Rules
from hwsim.nest.mapping import Hold, Mapping, Spatial, Temporal
from hwsim.nest.points import relevant_dims
from hwsim.network.layer import Layer


@dataclass(frozen=True)
class Run:
    """A loop in time: its place in the nest, the arrays inside it, the memories inside the one that is around it."""

    place: int
    dim: str
    factor: int
    segment: int
    depth: int


def broken_rules(mapping: Mapping, layer: Layer, accelerator: Accelerator, rules: Rules) -> list[str]:
    """What a legal mapping does against the rules; empty where it keeps them all."""
    if not rules:
        return []
    problems = [*hold_problems(mapping, accelerator, rules), *spatial_problems(mapping, layer, accelerator, rules)]
    problems += tile_problems(mapping, layer, rules)
    if any(rule.has_loops for rule in rules):
        found = [
            list(loop_problems(mapping, layer, accelerator, rules, runs)) for runs in readings(mapping, accelerator)
        ]
        problems += min(found, key=len)
    return problems


def hold_problems(mapping: Mapping, accelerator: Accelerator, rules: Rules) -> Iterator[str]:
    """Operands held where they may not be, or not where they should."""
    for memory in accelerator.memories:
        for operand in OPERANDS:
            held = mapping.hold_index(memory.name, operand) is not None
            if operand in must_hold(rules, memory) and not held:
                yield f"{memory.name} has to keep {operand}"
            if operand in may_not_hold(rules, memory) and held:
                yield f"{memory.name} may not keep {operand}"


def spatial_problems(mapping: Mapping, layer: Layer, accelerator: Accelerator, rules: Rules) -> Iterator[str]:
    """Spatial factors, and elements that do not work."""
    bounds = layer.loops.as_dict()
    for array in accelerator.arrays:
        loops = [n for n in mapping.nodes if isinstance(n, Spatial) and n.array == array.name]
        sizes = {axis.name: axis.size for axis in array.axes}
        for rule in rules:
            for axis, limits in rule.unroll if rule.level == array.name else ():
                for dim, limit in limits:
                    factor = math.prod(n.factor for n in loops if n.axis == axis and n.dim == dim)
                    if not limit.unrolls(factor, bounds[dim], sizes[axis]):
                        yield f"{array.name}.{axis} unrolls {dim} {factor} times, not {limit}"
        factors = {dim: math.prod(n.factor for n in loops if n.dim == dim) for dim in bounds}
        working = math.prod(min(factor, bounds[dim]) for dim, factor in factors.items())
        if working < least_use(rules, array) * array.size - 1e-9:
            yield f"less than {least_use(rules, array):.0%} of {array.name} works"


def tile_problems(mapping: Mapping, layer: Layer, rules: Rules) -> Iterator[str]:
    """Extents of tiles."""
    bounds = layer.loops.as_dict()
    for rule in rules:
        for node, place in ((n, i) for i, n in enumerate(mapping.nodes) if isinstance(n, Hold)):
            if node.memory != rule.level:
                continue
            tile = mapping.tile(place)
            for dim, limit in rule.tile:
                extent = min(tile[dim], bounds[dim])
                seen = any(dim in relevant_dims(operand) for operand in node.operands)
                if seen and not limit.spans(extent, bounds[dim]):
                    yield f"a tile of {node.memory} spans {extent} of {dim}, not {limit}"


def readings(mapping: Mapping, accelerator: Accelerator) -> Iterator[tuple[Run, ...]]:
    """The loops in time with their arrays and memories, for every place of arrays that have no loops of their own."""
    order = {node.name: i for i, node in enumerate(accelerator.hierarchy)}
    memories = [memory.name for memory in reversed(accelerator.memories)]
    depth = {name: i for i, name in enumerate(memories)}
    places = [array_places(mapping, order, array) for array in accelerator.arrays]
    for starts in itertools.product(*places):
        if list(starts) != sorted(starts):
            continue
        around, found = len(memories) - 1, list[Run]()
        for place, node in enumerate(mapping.nodes):
            if isinstance(node, Hold):
                around = min(around, depth[node.memory])
            elif isinstance(node, Temporal) and node.factor > 1:
                found.append(Run(place, node.dim, node.factor, sum(place < start for start in starts), around))
        yield tuple(found)


def array_places(mapping: Mapping, order: dict[str, int], array: Array) -> Sequence[int]:
    """Where an array may stand: loops from there on run inside it."""
    outside, inside = 0, len(mapping.nodes)
    for place, node in enumerate(mapping.nodes):
        if isinstance(node, Temporal):
            continue
        name = node.memory if isinstance(node, Hold) else node.array
        if name == array.name and isinstance(node, Spatial) and node.factor > 1:
            return [place]
        if order[name] < order[array.name]:
            outside = place + 1
        elif order[name] > order[array.name]:
            inside = min(inside, place)
    return range(outside, inside + 1) if outside <= inside else [inside]


def loop_problems(
    mapping: Mapping, layer: Layer, accelerator: Accelerator, rules: Rules, runs: Sequence[Run]
) -> Iterator[str]:
    """Orders and factors of loops in time."""
    memories = [memory.name for memory in reversed(accelerator.memories)]
    held = {node.memory for node in mapping.nodes if isinstance(node, Hold)}
    loops = [rule for rule in rules if rule.has_loops and (rule.level not in memories or rule.level in held)]
    ruled = {(arrays_inside(accelerator, rule.level), memories.index(rule.level)) for rule in loops
             if rule.level in memories}  # fmt: skip
    for rule in loops:
        segment = arrays_inside(accelerator, rule.level)
        if rule.level in memories:
            depth = memories.index(rule.level)
            mine = [run for run in runs if run.segment == segment and run.depth == depth]
            inside = [run for run in runs if (run.segment, run.depth) < (segment, depth)]
        else:
            mine = [run for run in runs if run.segment == segment and (segment, run.depth) not in ruled]
            inside = [run for run in runs if run.segment < segment]
        yield from order_problems(rule, mine)
        for dim, limit in rule.factors:
            spatial = math.prod(n.factor for n in mapping.nodes if isinstance(n, Spatial) and n.dim == dim)
            needed = -(-layer.loops.as_dict()[dim] // spatial)
            left = -(-needed // math.prod(run.factor for run in inside if run.dim == dim))
            factor = math.prod(run.factor for run in mine if run.dim == dim)
            if not limit.allows(factor, left):
                yield f"{dim} runs {factor} times at {rule.level}, not {limit}"


def order_problems(rule: Rule, runs: Sequence[Run]) -> Iterator[str]:
    """Loops that run slower than they should."""
    turns = {run.dim: turn for run in runs if (turn := rule.turn(run.dim)) is not None}
    for fast, slow in itertools.permutations(turns, 2):
        outer = min(run.place for run in runs if run.dim == fast)
        if turns[fast] < turns[slow] and outer < max(run.place for run in runs if run.dim == slow):
            yield f"{fast} runs outside {slow} at {rule.level}"
