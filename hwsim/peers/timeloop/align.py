"""An uneven mapping as an even one of equal counts, where there is one: each level holds all it keeps at one place.

A hold may pass loops that do not index its operand: its tile stays while they turn. So each hold has a range of
places, and a level needs one place in the ranges of all its operands, in the order of the hierarchy.
"""

from __future__ import annotations

from hwsim.errors import SpecError
from hwsim.machine.parts import OPERANDS, Accelerator, Array, Memory, Operand
from hwsim.nest.count import count_accesses
from hwsim.nest.mapping import Hold, Loop, Mapping, Node, Spatial, Temporal
from hwsim.nest.points import relevant_dims
from hwsim.network.layer import Layer


def aligned(nest: Mapping, layer: Layer, machine: Accelerator) -> Mapping:
    """The even mapping. Raises SpecError where a level's operands have no place in common."""
    loops = [loop for loop in nest.loops if loop.factor > 1]
    here = 0
    nodes: list[Node] = []
    done = 0
    for node in machine.hierarchy:
        if isinstance(node, Array):
            here = pass_array(loops, here, node, layer.name)
            continue
        held: list[Operand] = [operand for operand in OPERANDS if nest.hold_index(node.name, operand) is not None]
        if not held:
            continue
        here = place_of(nest, loops, node, held, here, layer.name)
        nodes += [*loops[done:here], Hold(node.name, tuple(held))]
        done = here
    found = Mapping(tuple(nodes + list(loops[done:])))
    if count_accesses(layer, found, machine) != count_accesses(layer, nest, machine):
        raise SpecError(f"mapping of {layer.name}: no even mapping has its counts")
    return found


def pass_array(loops: list[Loop], here: int, array: Array, name: str) -> int:
    """The place behind an array's loops."""
    mine = [i for i, loop in enumerate(loops) if isinstance(loop, Spatial) and loop.array == array.name]
    if not mine:
        return here
    if mine[0] < here:
        raise SpecError(f"mapping of {name}: a memory below array {array.name} is held above its loops")
    return mine[-1] + 1


def place_of(nest: Mapping, loops: list[Loop], memory: Memory, held: list[Operand], least: int, name: str) -> int:
    """The outermost place that all operands of a memory share, at `least` or further in."""
    ranges = [reach(nest, loops, memory.name, operand) for operand in held]
    low, high = max([least, *(r[0] for r in ranges)]), min(r[1] for r in ranges)
    if low > high:
        raise SpecError(
            f"mapping of {name}: {memory.name} holds its operands at places that no level of Timeloop's can share"
        )
    return low


def reach(nest: Mapping, loops: list[Loop], memory: str, operand: Operand) -> tuple[int, int]:
    """Places (loops above) to which the hold of an operand can move past temporal loops that do not index it."""
    index = nest.hold_index(memory, operand)
    assert index is not None
    place = sum(not isinstance(node, Hold) and node.factor > 1 for node in nest.nodes[:index])
    low = high = place
    indexed = relevant_dims(operand)
    while low > 0 and isinstance(loops[low - 1], Temporal) and loops[low - 1].dim not in indexed:
        low -= 1
    while high < len(loops) and isinstance(loops[high], Temporal) and loops[high].dim not in indexed:
        high += 1
    return low, high
