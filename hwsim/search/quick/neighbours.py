"""Extents with few divisors: nests of slightly longer layers, cut to what the layer needs.

1,999 outputs are prime, 2,000 are not; a nest written for 2,000 serves 1,999 and costs no more. So the quick search
also proposes what it finds for the next longer extents. A few lengths are tried per dim, one dim at a time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from hwsim.nest.mapping import Hold, Mapping, Node
from hwsim.network.layer import Layer
from hwsim.search.quick.candidates import SMOOTH
from hwsim.search.space.lattice import factorised

SHORT = 16  # extents up to this are left alone
BLOCKS = (4, 16, 64, 256)  # lengths are whole numbers of these
LONGER = 1.25  # at most


def longer_layers(layer: Layer) -> Iterator[Layer]:
    """The layer with one dim longer, for every dim that divides badly."""
    for dim, extent in layer.loops.as_dict().items():
        if extent > SHORT and max(prime for prime, _ in factorised(extent)) > SMOOTH:
            lengths = {-(-extent // block) * block for block in (*BLOCKS, 1 << (extent.bit_length() - 4))}
            for length in sorted(n for n in lengths if extent < n <= LONGER * extent):
                yield dataclasses.replace(layer, loops=dataclasses.replace(layer.loops, **{dim: length}))


def trimmed(mapping: Mapping, layer: Layer) -> Mapping:
    """The nest without iterations that have nothing to do in this layer."""
    bounds, covered = layer.loops.as_dict(), dict.fromkeys(layer.loops.as_dict(), 1)
    nodes: list[Node] = []
    for node in reversed(mapping.nodes):
        if not isinstance(node, Hold):
            factor = min(node.factor, -(-bounds[node.dim] // covered[node.dim]))
            covered[node.dim] *= factor
            if factor == 1:
                continue
            node = dataclasses.replace(node, factor=factor)
        nodes.append(node)
    return Mapping(tuple(reversed(nodes)))
