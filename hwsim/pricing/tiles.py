"""One stage of a depth-first group on one tile: what it costs with its maps on chip, and what its weights take.

A tile is so many rows and columns of the stage's output. Maps lie in the activation memory. Constants and the border
are the group's (pricing/fused.py). Weights that stay were brought before: their way from the outermost memory into
the first memory that holds them is left out.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping as Map
from dataclasses import dataclass

from hwsim.machine.parts import Accelerator, Array, Memory, Operand
from hwsim.nest.count import count_accesses
from hwsim.nest.counts import Counts
from hwsim.nest.legal import pools, tile_bits
from hwsim.nest.mapping import Hold, Mapping, Spatial, Temporal
from hwsim.nest.points import relevant_dims
from hwsim.network.layer import Layer, Tensor
from hwsim.pricing.layer import LayerCost, operand_tensors, price, price_fused, price_vector
from hwsim.pricing.residents import room_taken, taken_at
from hwsim.pricing.stages import Stage, effective_layer

Tile = tuple[int, int]  # rows and columns of the output
AT_HOME: tuple[Operand, ...] = ("input", "output")


def cut_tensor(tensor: Tensor, whole: Tensor, tile: Tile) -> Tensor:
    """A map cut to a tile; what has not the rows and columns of `whole` (a broadcast operand) stays as it is."""
    if tensor.shape[2:] != whole.shape[2:]:
        return tensor
    return dataclasses.replace(tensor, shape=(1, tensor.shape[1], *tile))


def cut_layer(layer: Layer, tile: Tile) -> Layer:
    """A layer on one tile of one image's output. Its padding is none: taps that see it count as any others."""
    output = cut_tensor(layer.output, layer.output, tile)
    if any(layer.kernel):
        whole = layer.inputs[0]  # a pool reads no border
        rows, columns = map(min, seen_by(layer, tile), whole.shape[2:])
        x = cut_tensor(whole, whole, (rows, columns))
        return dataclasses.replace(layer, inputs=(x,), output=output, padding=(0, 0, 0, 0))
    if not layer.has_macs:
        x, made = max(layer.inputs, key=lambda t: t.elements), layer.output
        steps = [before // after for before, after in zip(x.shape[2:], made.shape[2:], strict=False)]
        read = (tile[0] * steps[0], tile[1] * steps[1]) if len(steps) == 2 else tile
        inputs = tuple(cut_tensor(t, x, read) for t in layer.inputs)
        return dataclasses.replace(layer, inputs=inputs, output=output)
    loops = dataclasses.replace(layer.loops, N=1, P=tile[0], Q=tile[1])
    x = dataclasses.replace(layer.inputs[0], shape=(1, layer.inputs[0].shape[1], *seen_by(layer, tile)))
    return dataclasses.replace(layer, inputs=(x,), output=output, loops=loops, padding=(0, 0, 0, 0))


def seen_by(layer: Layer, tile: Tile) -> Tile:
    """Rows and columns of the input that windows of a tile of the output reach over."""
    rows, columns = ((n - 1) * step + reach for n, step, reach in zip(tile, layer.stride, layer.reach, strict=True))
    return rows, columns


def cut_stage(stage: Stage, tile: Tile) -> Stage:
    """A stage on one tile, operators behind its layer included."""
    fused = tuple(
        dataclasses.replace(
            follower,
            inputs=tuple(cut_tensor(t, follower.output, tile) for t in follower.inputs),
            output=cut_tensor(follower.output, follower.output, tile),
        )
        for follower in stage.fused
    )
    return Stage(cut_layer(stage.layer, tile), fused)


def tile_layer(stage: Stage, tile: Tile) -> Layer:
    """The layer with MACs of a stage on one tile as memories see it: it writes what leaves the stage."""
    return effective_layer(cut_stage(stage, tile))


# --- weights ----------------------------------------------------------------------------------------------------------


def weight_memory(mapping: Mapping, accelerator: Accelerator) -> str:
    """The first memory below the outermost that holds weights; empty where MACs read them from there."""
    outer = accelerator.outermost.name
    return next(
        (n.memory for n in mapping.nodes if isinstance(n, Hold) and "weight" in n.operands and n.memory != outer), ""
    )


def filled_once(mapping: Mapping, memory: str) -> bool:
    """Whether a memory's weights never change: no loop in time around them runs over weights."""
    place = mapping.hold_index(memory, "weight")
    moving = relevant_dims("weight")
    return place is not None and not any(
        isinstance(node, Temporal) and node.dim in moving and node.factor > 1 for node in mapping.nodes[:place]
    )


def held_still(mapping: Mapping, accelerator: Accelerator) -> Mapping:
    """The nest with all loops in time over weights inside the first memory that holds weights, which it fills once.

    That hold moves outwards as far as its array lets it, so that tiles of other operands change as little as may be.
    """
    memory = weight_memory(mapping, accelerator)
    nodes = [
        dataclasses.replace(node, operands=tuple(o for o in node.operands if o != "weight"))
        if isinstance(node, Hold) and node.memory == memory
        else node
        for node in mapping.nodes
    ]
    nodes = [node for node in nodes if not isinstance(node, Hold) or node.operands]
    names = [node.name for node in accelerator.hierarchy]
    outside = set(names[: names.index(memory)])
    lowest = max(
        (
            i
            for i, node in enumerate(nodes)
            if (isinstance(node, Spatial) and node.array in outside)
            or (isinstance(node, Hold) and node.memory == accelerator.outermost.name)
        ),
        default=-1,
    )
    moving = relevant_dims("weight")
    sunk = [n for n in nodes[: lowest + 1] if isinstance(n, Temporal) and n.dim in moving]
    kept = [n for n in nodes[: lowest + 1] if not (isinstance(n, Temporal) and n.dim in moving)]
    return Mapping((*kept, Hold(memory, ("weight",)), *sunk, *nodes[lowest + 1 :]))


def without_fill(counts: Counts, accelerator: Accelerator, memory: str) -> Counts:
    """Counts of a run that finds its weights in `memory`: their way there from the outermost memory is left out."""
    outer = accelerator.outermost.name
    traffic = tuple(
        dataclasses.replace(entry, writes=0) if (entry.memory, entry.operand) == (memory, "weight") else entry
        for entry in counts.traffic
        if (entry.memory, entry.operand) != (outer, "weight")
    )
    names = [node.name for node in accelerator.hierarchy]
    above = {node.name for node in accelerator.hierarchy[: names.index(memory)] if isinstance(node, Array)}
    deliveries = tuple(d for d in counts.deliveries if d.operand != "weight" or d.array not in above)
    return dataclasses.replace(counts, traffic=traffic, deliveries=deliveries)


# --- bills ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bill:
    """What a stage costs on a tile: its layer's entry, then those of operators behind it.

    `bringing`: weights come from the outermost memory. `staying`: they are in `memory` (the same where nothing can
    stay). `weight_bits`: what they take there, per instance. `others`: bits of all other tiles by memory and pool.
    `home_bits`: those among them in the activation memory, weights left out.
    """

    bringing: tuple[LayerCost, ...]
    staying: tuple[LayerCost, ...]
    memory: str = ""
    weight_bits: int = 0
    home_bits: int = 0
    others: Map[str, int] = dataclasses.field(default_factory=dict[str, int])

    @property
    def can_stay(self) -> bool:
        """Whether weights may stay between runs."""
        return bool(self.memory)


def bill_without_macs(stage: Stage, accelerator: Accelerator) -> Bill:
    """Of an operator of its own on a tile (`cut_stage`): it streams from its maps and into its map."""
    names = frozenset(t.name for t in (*stage.layer.inputs, stage.layer.output))
    cost = price_vector(stage.layer, accelerator, names)
    return Bill((cost,), (cost,))


def bill(stage: Stage, mapping: Mapping, accelerator: Accelerator) -> Bill | None:
    """Of a layer with MACs on a tile (`cut_stage`) under a legal mapping; None where maps do not pass the home."""
    layer, home = effective_layer(stage), home_of(accelerator)
    counts = count_accesses(layer, mapping, accelerator)
    if not taken_at(home, accelerator, counts, AT_HOME):
        return None
    names = operand_tensors(layer)
    kept: dict[Operand, str] = {operand: names[operand] for operand in AT_HOME}
    behind = followers(stage, accelerator)

    def priced(mine: Counts) -> tuple[LayerCost, ...]:
        return (price(layer, mine, accelerator, fused=stage.fused, resident=kept, constants=False), *behind)

    memory = weight_memory(mapping, accelerator)
    memory = memory if memory and filled_once(mapping, memory) else ""
    bringing = priced(counts)
    staying = priced(without_fill(counts, accelerator, memory)) if memory else bringing
    taken = room_taken(home, layer, accelerator, counts, AT_HOME)
    others: dict[str, int] = {}
    weight_bits = 0
    for node in accelerator.memories[1:]:
        need = tile_bits(mapping, layer, accelerator, node)
        if node.name == memory:
            weight_bits = need.pop("weight")
            taken -= weight_bits if node is home else 0
        if node is not home:
            others |= {name: sum(wanted.values()) for name, _, wanted in pools(node, need)}
    return Bill(bringing, staying, memory, weight_bits, taken, others)


def followers(stage: Stage, accelerator: Accelerator) -> tuple[LayerCost, ...]:
    """Operators behind a stage's layer, their other operands read from their maps."""
    names = frozenset(tensor.name for tensor in stage.inputs)
    return tuple(price_fused(follower, accelerator, stage, names) for follower in stage.fused)


def weight_pool(accelerator: Accelerator, memory: str) -> tuple[str, int]:
    """Name and size of the pool that weights share in a memory (`nest.legal.pools`)."""
    node = next(m for m in accelerator.memories if m.name == memory)
    shares: dict[str, int] = dict(node.partitions)
    if "weight" in shares:
        return f"{memory} (weight)", shares["weight"]
    size = math.inf if node.size_bits is None else node.size_bits
    return memory, int(size) - sum(shares.values())


def home_of(accelerator: Accelerator) -> Memory:
    """The memory of the maps; there is one where groups exist."""
    home = accelerator.activation_memory
    assert home is not None
    return home
