"""`count_accesses`: exact set-difference counts of a mapping, equal to a walk over point sets.

A held tile is exactly the set of points that everything below the hold needs for the current indices of the loops
above it; when it changes, only points it did not hold are fetched. Conventions and equations: docs/counting.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from hwsim.machine.parts import OPERANDS, Accelerator, Array, Memory, stationary_memory
from hwsim.nest.counts import KINDS, ArrayUse, Conventions, Counts, Delivery, Tile, Traffic
from hwsim.nest.legal import holds_partials
from hwsim.nest.mapping import Hold, Mapping, Spatial
from hwsim.nest.points import relevant_dims, tile_elements
from hwsim.nest.tally import Key, Nest, tally_accesses
from hwsim.network.layer import DIMS, Layer


def count_accesses(
    layer: Layer, mapping: Mapping, accelerator: Accelerator, conventions: Conventions | None = None
) -> Counts:
    """Exact counts of one legal mapping (`mapping.validate` says whether it is), equations in docs/counting.md.

    Equal to a walk of the loop nest over explicit point sets, for every stride, dilation, group, imperfect factor.
    """
    return counted(Shape(layer.shape_key(), layer), mapping, accelerator, conventions or Conventions())


@dataclass(frozen=True)
class Shape:
    """A layer that equals every other one of the same counts."""

    key: tuple[object, ...]
    layer: Layer = field(compare=False)


@lru_cache(maxsize=2048)
def counted(shape: Shape, mapping: Mapping, accelerator: Accelerator, conventions: Conventions) -> Counts:
    """`count_accesses`: widths and objectives ask for the same nests."""
    layer = shape.layer
    nest = Nest(layer, mapping)
    tally = tally_accesses(nest, mapping, accelerator, conventions)
    traffic = [
        Traffic(*key, int(tally.reads.get(key, 0)), int(tally.writes.get(key, 0)))
        for key in keys([memory.name for memory in accelerator.memories])
    ]
    deliveries = [
        Delivery(*key, int(tally.down.get(key, 0)), int(tally.up.get(key, 0)))
        for key in keys([array.name for array in accelerator.arrays])
    ]
    in_time = [loop for loop in nest.loops if not loop.array]
    iterations = tuple((dim, nest.visited([loop for loop in in_time if loop.dim == dim])) for dim in DIMS)
    return Counts(
        traffic=tuple(entry for entry in traffic if entry.reads or entry.writes),
        tiles=tuple(held_tiles(layer, mapping, accelerator)),
        deliveries=tuple(entry for entry in deliveries if entry.down or entry.up),
        arrays=tuple(use_of_array(nest, mapping, accelerator, array) for array in accelerator.arrays),
        instances=tuple((memory.name, used_instances(nest, mapping, memory)) for memory in accelerator.memories),
        macs=layer.loops.macs,
        steps=math.prod(n for _, n in iterations),
        iterations=iterations,
        active_macs=nest.visited([loop for loop in nest.loops if loop.array]),
        reduction_adds=int(tally.reduction_adds),
    )


def held_tiles(layer: Layer, mapping: Mapping, accelerator: Accelerator) -> Iterator[Tile]:
    """The tile of every operand in every memory that holds it."""
    for memory in accelerator.memories:
        for operand in OPERANDS:
            place = mapping.hold_index(memory.name, operand)
            if place is not None:
                partial = operand == "output" and holds_partials(mapping, accelerator, memory.name)
                yield Tile(memory.name, operand, tile_elements(layer, operand, mapping.tile(place)), partial)


def used_instances(nest: Nest, mapping: Mapping, memory: Memory) -> int:
    """Instances of a memory that ever hold something."""
    places = [place for operand in OPERANDS if (place := mapping.hold_index(memory.name, operand)) is not None]
    return nest.visited([loop for loop in nest.above(places[0]) if loop.array]) if places else 0


def use_of_array(nest: Nest, mapping: Mapping, accelerator: Accelerator, array: Array) -> ArrayUse:
    """Elements used per axis, and how often what the array holds still changes."""
    used = {axis.name: 1 for axis in array.axes}
    for node in mapping.nodes:
        if isinstance(node, Spatial) and node.array == array.name:
            used[node.axis] *= node.factor
    return ArrayUse(array.name, tuple(used.items()), passes(nest, mapping, accelerator, array))


def passes(nest: Nest, mapping: Mapping, accelerator: Accelerator, array: Array) -> int:
    """Tiles that an array holds still one after another: those of the memory directly inside it.

    A tile changes with every loop around it but those that reuse it and lie inside all that move it. Of several
    operands the one that changes least often is the one that is still. So it does not matter how a nest is spelt.
    Without such a memory the loops around the array's elements count.
    """
    below = stationary_memory(accelerator, array)
    found: list[int] = []
    for operand in below.keeps if below is not None else ():
        place = mapping.hold_index(below.name, operand) if below is not None else None
        if place is not None:
            around = [loop for loop in nest.above(place) if not loop.array]
            moving = [i for i, loop in enumerate(around) if loop.dim in relevant_dims(operand)]
            found.append(nest.visited(around[: moving[-1] + 1] if moving else []))
    if found:
        return min(found)
    names = [node.name for node in accelerator.hierarchy]
    inwards = set(names[names.index(array.name) :])
    place = nest.end
    for index, node in reversed(list(enumerate(mapping.nodes))):
        name = node.memory if isinstance(node, Hold) else node.array if isinstance(node, Spatial) else ""
        if name in inwards:
            place = index
    return nest.visited([loop for loop in nest.above(place) if not loop.array])


def keys(names: Sequence[str]) -> list[Key]:
    """Every (name, operand, kind), in this order."""
    return [(name, operand, kind) for name in names for operand in OPERANDS for kind in KINDS]
