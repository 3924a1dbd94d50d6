"""Mappings near a good one: a loop longer or shorter, parted in two, or elsewhere.

Factors need not divide: the outermost temporal loop of a dim takes as many blocks as the others leave.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from hwsim.mapping import Hold, Mapping, Node, Temporal
from hwsim.workload import Layer


def resized(mapping: Mapping, layer: Layer) -> Iterator[Mapping]:
    """The mapping with another factor in one temporal loop that has one of the same dim outside."""
    bounds = layer.loops.as_dict()
    nodes = list(mapping.nodes)
    outermost: dict[str, int] = {}
    for place, node in enumerate(nodes):
        if not isinstance(node, Temporal):
            continue
        if outermost.setdefault(node.dim, place) == place:
            continue
        inside = math.prod(n.factor for n in nodes[place + 1 :] if not isinstance(n, Hold) and n.dim == node.dim)
        most = -(-bounds[node.dim] // inside)
        near = {node.factor - 1, node.factor + 1, node.factor + 2, 2 * node.factor, node.factor // 2, most}
        for factor in sorted(f for f in near - {node.factor} if 1 <= f <= most):
            changed = [*nodes[:place], Temporal(node.dim, factor), *nodes[place + 1 :]]
            yield completed(changed, node.dim, bounds[node.dim])


def parted(mapping: Mapping, layer: Layer) -> Iterator[Mapping]:
    """The mapping with a part of one temporal loop somewhere further out."""
    bounds, nodes = layer.loops.as_dict(), list(mapping.nodes)
    for i, node in enumerate(nodes):
        if not isinstance(node, Temporal):
            continue
        inner = math.prod(n.factor for n in nodes[i + 1 :] if not isinstance(n, Hold) and n.dim == node.dim)
        most = -(-bounds[node.dim] // inner)
        for factor in sorted({-(-most // 2), -(-most // 3), most - 1} - {0, 1, most}):
            for place in range(1, i + 1):
                more = [*nodes[:place], Temporal(node.dim, 1), *nodes[place:i], Temporal(node.dim, factor)]
                yield completed([*more, *nodes[i + 1 :]], node.dim, bounds[node.dim])


def moved(mapping: Mapping) -> Iterator[Mapping]:
    """The mapping with one temporal loop just outside or inside another hold or array."""
    nodes = list(mapping.nodes)
    for i, node in enumerate(nodes):
        if isinstance(node, Temporal):
            rest = [*nodes[:i], *nodes[i + 1 :]]
            for place in range(1, len(nodes)):
                beside = rest[place - 1 : place + 1]
                if place != i and (len(beside) < 2 or not all(isinstance(other, Temporal) for other in beside)):
                    yield Mapping((*rest[:place], node, *rest[place:]))


def completed(nodes: list[Node], dim: str, bound: int) -> Mapping:
    """The nest with as many blocks in the outermost temporal loop of a dim as its bound needs, without loops of one."""
    places = [i for i, node in enumerate(nodes) if isinstance(node, Temporal) and node.dim == dim]
    factors = {i: node.factor for i, node in enumerate(nodes) if not isinstance(node, Hold) and node.dim == dim}
    inside = math.prod(factor for i, factor in factors.items() if i != places[0])
    nodes[places[0]] = Temporal(dim, -(-bound // inside))
    return Mapping(tuple(node for node in nodes if not (isinstance(node, Temporal) and node.factor == 1)))
