"""A MAESTRO dataflow as a nest: directives become loops over tiles, clusters become arrays.

A map of `size` and `offset` over a range has ceil((range - size) / offset) + 1 positions. A TemporalMap runs through
them, a SpatialMap spreads them over the units of its level and runs through what is left. Windows of input rows and
columns become rows and columns of outputs. Maps that overlap otherwise, and two SpatialMaps of one level that move
together, have no counterpart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from hwsim.errors import SpecError
from hwsim.machine.parts import OPERANDS
from hwsim.nest.mapping import Hold, Node, Spatial, Temporal
from hwsim.nest.mapping import Mapping as Nest
from hwsim.network.layer import DIMS, Layer
from hwsim.peers.maestro.text import Directive, Entry

WINDOWS = {"Y": ("P", "R", 0), "X": ("Q", "S", 1)}
ARRAY, AXIS = "pes", "level{}"


@dataclass(frozen=True)
class Level:
    """Directives between two clusters, and how many units they spread over (0: all that the clusters below leave)."""

    maps: tuple[Directive, ...]
    units: int


def levels_of(entry: Entry) -> list[Level]:
    """Levels, outermost first."""
    found: list[Level] = []
    maps: list[Directive] = []
    units = 0
    for directive in entry.flow:
        if directive.kind == "Cluster":
            found.append(Level(tuple(maps), units))
            maps, units = [], directive.value(directive.size, entry.sizes)
        else:
            maps.append(directive)
    return [*found, Level(tuple(maps), units)]


def units_of(entry: Entry, pes: int) -> list[int]:
    """Units per level, outermost first. Raises SpecError where clusters do not divide the elements."""
    levels = levels_of(entry)
    inner = math.prod(level.units for level in levels[1:])
    if inner > pes or pes % inner:
        raise entry.place.error(f"layer {entry.name}: clusters of {inner} elements do not divide {pes} (num_pes)")
    return [pes // inner, *(level.units for level in levels[1:])]


def spatial_dims(entry: Entry) -> list[str]:
    """The loop of ours that each level spreads; N where it spreads none."""
    found: list[str] = []
    for level in levels_of(entry):
        spread = [m for m in level.maps if m.kind == "SpatialMap"]
        if len(spread) > 1:
            both = " and ".join(m.dim for m in spread)
            raise spread[1].place.error(f"layer {entry.name}: {both} move together over one level: no counterpart")
        found.append(ours(spread[0].dim) if spread else "N")
    return found


def ours(dim: str) -> str:
    """Our name of a mapped dimension."""
    return {"Y": "P", "Y'": "P", "X": "Q", "X'": "Q"}.get(dim, dim)


def nest_of(entry: Entry, layer: Layer, units: list[int], names: Mapping[str, str]) -> Nest:
    """The nest of a layer; `names`: their loops in ours (a depthwise layer's C is G). Raises SpecError."""
    spatial_dims(entry)  # raises for maps that move together
    tile = layer.loops.as_dict()
    nodes: list[Node] = []
    for number, (level, count) in enumerate(zip(levels_of(entry), units, strict=True)):
        spatial: list[Node] = []
        outside = dict(tile)
        for directive in level.maps:
            dim, size = covered(directive, entry, layer, tile, names)
            positions = math.ceil(outside[dim] / size)
            if directive.kind == "SpatialMap":
                factor = min(count, positions)
                spatial.append(Spatial(dim, factor, ARRAY, AXIS.format(number)))
                positions = math.ceil(positions / factor)
            nodes.append(Temporal(dim, positions))
            tile[dim] = min(size, outside[dim])
        nodes += spatial
    return Nest((
        Hold("dram", OPERANDS), *[n for n in split(nodes)[0] if n.factor > 1], Hold("l2", OPERANDS),
        *[n for n in split(nodes)[1] if n.factor > 1], Hold("l1", OPERANDS),
        *[Temporal(dim, tile[dim]) for dim in reversed(DIMS) if tile[dim] > 1],
    ))  # fmt: skip


Loops = list[Temporal | Spatial]


def split(nodes: list[Node]) -> tuple[Loops, Loops]:
    """Loops outside the first unrolling, and the rest."""
    loops: Loops = [node for node in nodes if isinstance(node, (Temporal, Spatial))]
    first = next((i for i, node in enumerate(loops) if isinstance(node, Spatial)), len(loops))
    return loops[:first], loops[first:]


def covered(
    directive: Directive, entry: Entry, layer: Layer, tile: Mapping[str, int], names: Mapping[str, str]
) -> tuple[str, int]:
    """(loop of ours, its extent in a tile) of a map. Raises SpecError for what overlaps."""
    size, offset = directive.value(directive.size, entry.sizes), directive.value(directive.offset, entry.sizes)
    if directive.dim in WINDOWS:
        dim, tap, axis = WINDOWS[directive.dim]
        stride, dilation = layer.stride[axis], layer.dilation[axis]
        rows = layer.loops.as_dict()[dim], tile[tap]
        if size >= entry.sizes[directive.dim]:
            return dim, rows[0]
        extent = (size - (rows[1] - 1) * dilation - 1) // stride + 1
        if extent < 1 or offset not in (extent, extent * stride):
            raise overlap(directive, entry, size, offset)
        return dim, extent
    dim = names.get(ours(directive.dim), ours(directive.dim))
    bound = tile.get(dim)
    if bound is None:
        raise directive.place.error(f"layer {entry.name}: no loop {directive.dim} in a layer of type {entry.kind}")
    if size < bound and offset != size:
        raise overlap(directive, entry, size, offset)
    return dim, size


def overlap(directive: Directive, entry: Entry, size: int, offset: int) -> SpecError:
    """A map whose positions overlap, or leave gaps."""
    text = f"layer {entry.name}: a map of {size} that moves by {offset} along {directive.dim} overlaps or leaves gaps"
    return directive.place.error(f"{text}: no counterpart")
