"""A schedule that ZigZag found, as a nest of ours: the same loops, unrollings and places of every operand.

Its loops come innermost first, the same for every operand, cut where the operand's memories change. Its levels
nest by operand; ours stand in one order with the arrays between them, so a hold that its cut puts on the wrong side of
an array moves to that array. A register keeps its value over loops that do not move its operand: these stay outside.
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

Place = dict[tuple[str, Operand], int]  # (memory, operand): loops at or inside it


def nest_of(found: Words[str, Any], machine: Accelerator, dims: Words[str, str]) -> tuple[Mapping, dict[Operand, str]]:
    """The nest of a layer of the worker's answer, and the operands that never leave a memory of the chip.

    `dims`: its loops in our names.
    """
    loops = [(dims[dim], round(factor)) for level in found["operands"]["O"] for dim, factor in level["loops"]]
    places, resident = places_of(found, loops, machine)
    unrolled = {axis: [(dims[dim], round(factor)) for dim, factor in on] for axis, on in found["unrolled"].items()}
    return Mapping(tuple(nodes(loops, places, unrolled, machine))), resident


def places_of(
    found: Words[str, Any], loops: Sequence[tuple[str, int]], machine: Accelerator
) -> tuple[Place, dict[Operand, str]]:
    """Where each operand is held, as the number of loops inside; and what stays on chip."""
    outer = machine.memories[0].name
    places: Place = {(outer, operand): len(loops) for operand in OPERANDS}
    resident: dict[Operand, str] = {}
    for letter, levels in found["operands"].items():
        operand, inside = THEIRS[letter], 0
        moving = relevant_dims(operand)
        names = [memory_of(machine, level["memory"], operand) for level in levels]
        for name, level in zip(names, levels, strict=True):
            inside += len(level["loops"])
            place = inside
            if in_an_array(machine, name):
                while place and loops[place - 1][0] not in moving:
                    place -= 1
            places[name, operand] = place
        if names[-1] != outer:
            resident[operand] = names[-1]
    return places, resident


def memory_of(machine: Accelerator, name: str, operand: Operand) -> str:
    """Our memory for one of its: of this operand alone where its ports' widths differ."""
    own = f"{bare_name(name)}_{operand}"
    return own if any(memory.name == own for memory in machine.memories) else bare_name(name)


def in_an_array(machine: Accelerator, memory: str) -> bool:
    """Whether an array stands outside a memory."""
    names = [node.name for node in machine.hierarchy]
    return any(isinstance(node, Array) for node in machine.hierarchy[: names.index(memory)])


def nodes(
    loops: Sequence[tuple[str, int]],
    places: Place,
    unrolled: Words[str, Sequence[tuple[str, int]]],
    machine: Accelerator,
) -> list[Node]:
    """The nest, outermost first."""
    left, found = len(loops), list[Node]()
    hierarchy = list(machine.hierarchy)
    while hierarchy:
        stop = next((i for i, node in enumerate(hierarchy) if isinstance(node, Array)), len(hierarchy))
        below = [memory.name for memory in hierarchy[stop:] if isinstance(memory, Memory)]
        least = max((place for (memory, _), place in places.items() if memory in below), default=0)
        held: list[tuple[int, int, Operand]] = sorted(
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
                Spatial(dim, factor, array.name, axis.name)
                for axis in array.axes for dim, factor in unrolled.get(axis.name, ()) if factor > 1
            ]  # fmt: skip
        hierarchy = hierarchy[stop + 1 :]
    return [*found, *(Temporal(*loop) for loop in reversed(loops[:left]))]
