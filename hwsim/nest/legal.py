"""Whether a mapping is legal on a machine, and in words why not: holds, unrollings, factors, capacities.

`validate` lists the problems, `check` raises them. A tile's bits follow from what the memory holds there: finished
outputs at their own width, partial sums at the accumulator's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from hwsim.errors import InfeasibleMapping
from hwsim.machine.packing import held_bits
from hwsim.machine.parts import OPERANDS, Accelerator, Array, Memory, Operand
from hwsim.nest.mapping import Hold, Mapping, Spatial, Temporal
from hwsim.nest.points import REDUCTION_DIMS, tile_elements
from hwsim.network.layer import DIMS, Layer

# --- what is legal --------------------------------------------------------------------------------------------------


def validate(mapping: Mapping, layer: Layer, accelerator: Accelerator) -> list[str]:
    """Every rule the mapping breaks, in words; empty when it is legal.

    Capacity is checked last, once the nest itself makes sense. `size_bits` is the capacity usable for tiles: a double
    buffer's second half is not taken from it.
    """
    problems = [
        *hold_problems(mapping, accelerator),
        *spatial_problems(mapping, accelerator),
        *factor_problems(mapping, layer),
    ]
    return problems or capacity_problems(mapping, layer, accelerator)


def check(mapping: Mapping, layer: Layer, accelerator: Accelerator) -> None:
    """Raise InfeasibleMapping with all violations where `validate` finds any."""
    problems = validate(mapping, layer, accelerator)
    if problems:
        lines = [f"layer {layer.name} on {accelerator.name}: {problem}" for problem in problems]
        raise infeasible("\n".join(lines), mapping, layer, accelerator)


def infeasible(message: str, mapping: Mapping, layer: Layer, accelerator: Accelerator) -> InfeasibleMapping:
    """The error with the numbers of the first memory that is too small, where the nest itself makes sense."""
    sound = not any((*hold_problems(mapping, accelerator), *factor_problems(mapping, layer)))
    short = next(shortages(mapping, layer, accelerator), None) if sound else None
    if short is None:
        return InfeasibleMapping(message, layer=layer.name)
    return InfeasibleMapping(
        message, layer=layer.name, memory=short.memory, need_bits=short.need_bits, room_bits=short.room_bits
    )


def hold_problems(mapping: Mapping, accelerator: Accelerator) -> Iterator[str]:
    """Unknown memories, operands a memory does not keep, holds twice, missing or out of order."""
    memories = {memory.name: memory for memory in accelerator.memories}
    for node in mapping.nodes:
        if isinstance(node, Hold):
            if node.memory not in memories:
                yield f"memory {node.memory!r} does not exist; {accelerator.name} has {', '.join(memories)}"
                continue
            for operand in node.operands:
                if operand not in memories[node.memory].keeps:
                    yield f"{node.memory} does not keep {operand}; it keeps {', '.join(memories[node.memory].keeps)}"
    order = {name: depth for depth, name in enumerate(memories)}
    outermost = accelerator.memories[0].name
    for operand in OPERANDS:
        held = [node.memory for node in mapping.nodes if isinstance(node, Hold) and operand in node.operands]
        depths = [order[name] for name in held if name in order]
        for name in dict.fromkeys(name for name in held if held.count(name) > 1):
            yield f"{operand} is held {held.count(name)} times in {name}; once at most"
        if depths != sorted(depths):
            yield f"{operand} is held in {', '.join(held)}; the hierarchy's order is {', '.join(order)}"
        for memory in accelerator.memories:
            if operand in memory.keeps and operand not in memory.bypass and memory.name not in held:
                yield f"{operand} is not held in {memory.name}, which may not be bypassed for it"
        top = mapping.hold_index(outermost, operand)
        if top is None or any(not isinstance(node, Hold) for node in mapping.nodes[:top]):
            yield f"{operand} must be held in {outermost}, the outermost memory, above every loop"


def spatial_problems(mapping: Mapping, accelerator: Accelerator) -> Iterator[str]:
    """Unknown arrays and axes, dims an axis does not allow, too many elements, loops outside their array's place."""
    arrays = {array.name: array for array in accelerator.arrays}
    for node in mapping.loops:
        if isinstance(node, Spatial) and node.array not in arrays:
            known = ", ".join(arrays) or "none"
            yield f"array {node.array!r} does not exist; {accelerator.name} has {known}"
    depth = {node.name: position for position, node in enumerate(accelerator.hierarchy)}
    for array in accelerator.arrays:
        places = [i for i, node in enumerate(mapping.nodes) if isinstance(node, Spatial) and node.array == array.name]
        if not places:
            continue
        first, last = places[0], places[-1]
        if last - first + 1 != len(places):
            yield f"the loops of array {array.name} must follow each other without other nodes between them"
        for index, node in enumerate(mapping.nodes):
            name = node.memory if isinstance(node, Hold) else node.array if isinstance(node, Spatial) else None
            if name not in depth or name == array.name:
                continue
            if depth[name] < depth[array.name] and index > first:
                yield f"{name} lies above array {array.name} in the hierarchy but below its loops in the mapping"
            elif depth[name] > depth[array.name] and index < last:
                yield f"{name} lies below array {array.name} in the hierarchy but above its loops in the mapping"
        yield from axis_problems(mapping, array)


def axis_problems(mapping: Mapping, array: Array) -> Iterator[str]:
    """What the array's axes do not allow."""
    loops = [node for node in mapping.loops if isinstance(node, Spatial) and node.array == array.name]
    axes = {axis.name: axis for axis in array.axes}
    for loop in loops:
        if loop.axis not in axes:
            yield f"array {array.name} has no axis {loop.axis!r}; it has {', '.join(axes)}"
        elif loop.dim not in axes[loop.axis].dims and loop.factor > 1:
            allowed = ", ".join(axes[loop.axis].dims)
            yield f"{loop.dim} may not be unrolled on {array.name}.{loop.axis}; allowed: {allowed}"
        if loop.dim in REDUCTION_DIMS and loop.factor > 1 and not array.reduction:
            yield f"array {array.name} cannot add across its elements, so {loop.dim} may not be unrolled on it"
    for axis in array.axes:
        mine = [loop for loop in loops if loop.axis == axis.name]
        used = math.prod(loop.factor for loop in mine)
        if used > axis.size:
            yield f"{array.name}.{axis.name} has {axis.size} elements, the mapping needs {used}"
        dims = sorted({loop.dim for loop in mine if loop.factor > 1})
        if axis.max_dims is not None and len(dims) > axis.max_dims:
            yield f"{array.name}.{axis.name} takes at most {axis.max_dims} dims at once, got {', '.join(dims)}"


def factor_problems(mapping: Mapping, layer: Layer) -> Iterator[str]:
    """Bounds not covered, factors below one, loops whose last iteration has nothing to do."""
    bounds = layer.loops.as_dict()
    for loop in mapping.loops:
        if loop.dim not in bounds:
            yield f"{loop.dim!r} is no loop; loops are {', '.join(DIMS)}"
        elif loop.factor < 1:
            yield f"factor of {loop.dim} must be at least 1, got {loop.factor}"
    if any(loop.dim not in bounds or loop.factor < 1 for loop in mapping.loops):
        return
    for dim, covered in mapping.tile(0).items():
        if covered < bounds[dim]:
            yield f"the factors of {dim} multiply to {covered}, the layer needs {bounds[dim]}"
    for node, step in zip(mapping.nodes, mapping.steps(), strict=True):
        if not isinstance(node, Hold) and (node.factor - 1) * step >= bounds[node.dim]:
            needed = -(-bounds[node.dim] // step)
            yield f"loop {node.dim}{node.factor} steps by {step} and needs {needed} iterations, not {node.factor}"


@dataclass(frozen=True)
class Shortage:
    """A memory (or one of its partitions) whose tiles, packed into words, do not fit: what each operand needs there."""

    memory: str
    room_bits: int
    wanted: dict[Operand, int]

    @property
    def need_bits(self) -> int:
        """What all tiles take together."""
        return sum(self.wanted.values())

    def __str__(self) -> str:
        parts = " + ".join(f"{operand} {bits:,}" for operand, bits in self.wanted.items())
        ratio = self.need_bits / max(self.room_bits, 1)
        return f"{self.memory} holds {self.room_bits:,} bits, its tiles need {self.need_bits:,} ({parts}; {ratio:.3g}x)"


def shortages(mapping: Mapping, layer: Layer, accelerator: Accelerator) -> Iterator[Shortage]:
    """Every memory that the mapping's tiles do not fit, outermost first."""
    for memory in accelerator.memories:
        need = tile_bits(mapping, layer, accelerator, memory)
        for name, size, wanted in pools(memory, need):
            if size is not None and sum(wanted.values()) > size:
                yield Shortage(name, size, wanted)


def capacity_problems(mapping: Mapping, layer: Layer, accelerator: Accelerator) -> list[str]:
    """Memories (or their partitions) whose tiles, packed into words, do not fit."""
    return [str(shortage) for shortage in shortages(mapping, layer, accelerator)]


def pools(memory: Memory, need: dict[Operand, int]) -> Iterator[tuple[str, int | None, dict[Operand, int]]]:
    """(name, capacity, bits needed by operand) of each partition, then of what the partitions leave to share."""
    shares = dict(memory.partitions)
    for operand, size in shares.items():
        yield f"{memory.name} ({operand})", size, {operand: need.get(operand, 0)}
    left = None if memory.size_bits is None else memory.size_bits - sum(shares.values())
    yield memory.name, left, {operand: bits for operand, bits in need.items() if operand not in shares}


def tile_bits(mapping: Mapping, layer: Layer, accelerator: Accelerator, memory: Memory) -> dict[Operand, int]:
    """Bits that the tile of each operand held in `memory` occupies there, whole words."""
    need: dict[Operand, int] = {}
    for operand in OPERANDS:
        index = mapping.hold_index(memory.name, operand)
        if index is None:
            continue
        partial = operand == "output" and holds_partials(mapping, accelerator, memory.name)
        elements = tile_elements(layer, operand, mapping.tile(index))
        bits = operand_bits(layer, operand)
        if partial:
            bits = accelerator.mac.partial_sum_bits(layer.accumulator_bits_needed())
        need[operand] = held_bits(elements, bits, memory.word_bits, memory.packing)
        if not partial:
            need[operand] += scales_held(layer, operand, elements, memory)
    return need


def scales_held(layer: Layer, operand: Operand, elements: int, memory: Memory) -> int:
    """Bits that scales and offsets of a tile take beside its codes; the share of whole groups, densely packed."""
    assert layer.weight is not None
    tensor = {"weight": layer.weight, "input": layer.inputs[0], "output": layer.output}[operand]
    used = math.ceil(elements * tensor.side_bits_per_element)
    if not used or memory.packing != "dense":
        return -(-used // memory.word_bits) * memory.word_bits
    codes = elements * tensor.bits  # codes and scales share a word: the last one may hold both
    return (-(-(codes + used) // memory.word_bits) - -(-codes // memory.word_bits)) * memory.word_bits


def operand_bits(layer: Layer, operand: Operand) -> int:
    """Width of one finished element."""
    weight, input_, output, _ = layer.bits_key()
    return output if operand == "output" else weight if operand == "weight" else input_


def accumulates_only(accelerator: Accelerator, memory: str) -> bool:
    """Whether outputs in `memory` are always accumulators, because no requantizer sits below it.

    Requantization happens beside the array (machine.VectorUnit). So a memory inside the innermost array, and one that
    keeps nothing but outputs below another memory (an accumulator file), never receives finished outputs.
    """
    names = [node.name for node in accelerator.hierarchy]
    place = names.index(memory)
    arrays = [i for i, node in enumerate(accelerator.hierarchy) if isinstance(node, Array)]
    local = bool(arrays) and place > arrays[-1]
    node = accelerator.hierarchy[place]
    return local or (isinstance(node, Memory) and node.keeps == ("output",))


def receives_finals(mapping: Mapping, accelerator: Accelerator, memory: str) -> bool:
    """Whether the last update of an output point in `memory` is its finished, requantized value.

    Not in an accumulator, and not below a spatially unrolled reduction: there every instance has only its share.
    """
    index = mapping.hold_index(memory, "output")
    if index is None or accumulates_only(accelerator, memory):
        return False
    return not any(
        isinstance(node, Spatial) and node.dim in REDUCTION_DIMS and node.factor > 1 for node in mapping.nodes[:index]
    )


def holds_partials(mapping: Mapping, accelerator: Accelerator, memory: str) -> bool:
    """Whether the output tile in `memory` may hold unfinished sums and so needs the accumulator's width.

    True unless every point arrives there exactly once, finished: no reduction loop above the next hold inwards may
    have an output loop inside it, because its wrap brings points back (at a MAC without a latch every step does).
    """
    index = mapping.hold_index(memory, "output")
    if index is None:
        return False
    if not receives_finals(mapping, accelerator, memory):
        return True
    inner = [i for i, n in enumerate(mapping.nodes) if i > index and isinstance(n, Hold) and "output" in n.operands]
    above = [n for n in mapping.nodes[: inner[0] if inner else None] if isinstance(n, Temporal) and n.factor > 1]
    every_step = not inner and "output" not in accelerator.mac.latches
    reduced = False
    for loop in above:
        if loop.dim in REDUCTION_DIMS:
            if every_step:
                return True
            reduced = True
        elif reduced:
            return True
    return False
