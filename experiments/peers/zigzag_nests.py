"""A schedule that ZigZag found, as a nest of ours: the same loops, unrollings and places of every operand.

Its loops come innermost first, the same for every operand, cut where the operand's memories change. Its levels
nest by operand; ours stand in one order with the arrays between them, so a hold that its cut puts on the wrong side of
an array moves to that array. A register's loops that do not move its operand stay outside: it keeps its value over them.
"""

from __future__ import annotations

from collections.abc import Mapping as Words
from collections.abc import Sequence
from typing import Any

from hwsim.machine.parts import OPERANDS, Accelerator, Array, Memory, Operand
from hwsim.nest.mapping import Hold, Mapping, Node, Spatial, Temporal
from hwsim.nest.points import relevant_dims
from hwsim.peers.draft import bare_name
from hwsim.peers.zigzag.mapping import OPERANDS as THEIRS
from hwsim.peers.zigzag.mapping import USUAL_DIMS

Place = dict[tuple[str, Operand], int]  # (memory, operand): loops at or inside it


def nest_of(found: Words[str, Any], machine: Accelerator) -> tuple[Mapping, dict[Operand, str]]:
    """The nest of a layer of the worker's answer, and the operands that never leave a memory of the chip."""
    loops = [(USUAL_DIMS[dim], round(factor)) for level in found["operands"]["O"] for dim, factor in level["loops"]]
    places, resident = places_of(found, loops, machine)
    return Mapping(tuple(nodes(loops, places, found["unrolled"], machine))), resident


def places_of(
    found: Words[str, Any], loops: Sequence[tuple[str, int]], machine: Accelerator
) -> tuple[Place, dict[Operand, str]]:
    """Where each operand is held, as the number of loops inside; and what stays on chip."""
    outer = machine.memories[0].name
    places: Place = {(outer, operand): len(loops) for operand in OPERANDS}
    resident: dict[Operand, str] = {}
    for name, levels in found["operands"].items():
        operand, inside = THEIRS[name], 0
        moving = relevant_dims(operand)
        for level in levels:
            inside += len(level["loops"])
            place = inside
            if in_an_array(machine, bare_name(level["memory"])):
                while place and loops[place - 1][0] not in moving:
                    place -= 1
            places[bare_name(level["memory"]), operand] = place
        if bare_name(levels[-1]["memory"]) != outer:
            resident[operand] = bare_name(levels[-1]["memory"])
    return places, resident


def in_an_array(machine: Accelerator, memory: str) -> bool:
    """Whether an array stands outside a memory."""
    names = [node.name for node in machine.hierarchy]
    return any(isinstance(node, Array) for node in machine.hierarchy[: names.index(memory)])


def nodes(
    loops: Sequence[tuple[str, int]], places: Place, unrolled: Words[str, Any], machine: Accelerator
) -> list[Node]:
    """The nest, outermost first."""
    left, found = len(loops), list[Node]()
    hierarchy = list(machine.hierarchy)
    while hierarchy:
        stop = next((i for i, node in enumerate(hierarchy) if isinstance(node, Array)), len(hierarchy))
        below = [memory.name for memory in hierarchy[stop:] if isinstance(memory, Memory)]
        least = max((place for (memory, _), place in places.items() if memory in below), default=0)
        held = sorted(
            ((min(left, max(place, least)), rank, operand) for rank, node in enumerate(hierarchy[:stop])
             for (memory, operand), place in places.items() if memory == node.name),
            key=lambda hold: (-hold[0], hold[1]),
        )  # fmt: skip
        for place, rank, operand in held:
            found += [Temporal(*loop) for loop in reversed(loops[place:left])]
            left = place
            found.append(Hold(hierarchy[rank].name, (operand,)))
        if stop < len(hierarchy):
            found += [Temporal(*loop) for loop in reversed(loops[least:left])]
            left = least
            array = hierarchy[stop]
            assert isinstance(array, Array)
            found += [
                Spatial(USUAL_DIMS[dim], round(factor), array.name, axis.name)
                for axis in array.axes for dim, factor in unrolled.get(axis.name, ()) if factor > 1
            ]  # fmt: skip
        hierarchy = hierarchy[stop + 1 :]
    return [*found, *(Temporal(*loop) for loop in reversed(loops[:left]))]
