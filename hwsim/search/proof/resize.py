"""Tile sizes that do not divide, near a good mapping: one loop longer or shorter, its dim's outermost one as needed."""

from __future__ import annotations

import math
from collections.abc import Iterator

from hwsim.nest.mapping import Hold, Mapping, Node, Temporal
from hwsim.network.layer import Layer


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


def completed(nodes: list[Node], dim: str, bound: int) -> Mapping:
    """The nest with as many blocks in the outermost temporal loop of a dim as its bound needs, without loops of one."""
    places = [i for i, node in enumerate(nodes) if isinstance(node, Temporal) and node.dim == dim]
    factors = {i: node.factor for i, node in enumerate(nodes) if not isinstance(node, Hold) and node.dim == dim}
    inside = math.prod(factor for i, factor in factors.items() if i != places[0])
    nodes[places[0]] = Temporal(dim, -(-bound // inside))
    return Mapping(tuple(node for node in nodes if not (isinstance(node, Temporal) and node.factor == 1)))
