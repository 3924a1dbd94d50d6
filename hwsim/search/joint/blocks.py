"""Nests whose outermost loop frees inputs block by block: found nests with that loop moved outside, and block searches.

The layer's search does not know orders that free room; it is asked for as much room as any order could make. These
nests keep the order by construction; what each one saves is counted by `saved_bits`, what it costs by the bill.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

from hwsim.machine.parts import Memory, Operand
from hwsim.nest.mapping import Hold, Mapping, Node, Spatial, Temporal
from hwsim.pricing.lifetimes import Freed, Level, saved_bits
from hwsim.search.space.homes import Homes
from hwsim.search.space.lattice import divisors
from hwsim.search.space.problem import Problem

OUTSIDE = ("P", "G", "N", "Q", "K")  # dims whose blocks are outputs of their own


def with_blocks_outside(mapping: Mapping) -> Iterator[Mapping]:
    """The nest with loops in time of one or two dims around all others: those outside arrays, or all of them."""
    array = next((i for i, node in enumerate(mapping.nodes) if isinstance(node, Spatial)), len(mapping.nodes))
    seen = {mapping}
    for dims in (*itertools.permutations(OUTSIDE, 1), *itertools.permutations(OUTSIDE, 2)):
        for reach in (array, len(mapping.nodes)):
            outer = mapping.nodes[:reach]
            moved = [i for dim in dims for i, n in enumerate(outer) if isinstance(n, Temporal) and n.dim == dim]
            rest = Mapping(tuple(node for i, node in enumerate(mapping.nodes) if i not in moved))
            found = around(rest, tuple(mapping.nodes[i] for i in moved))
            if found not in seen:
                seen.add(found)
                yield found


def around(mapping: Mapping, loops: tuple[Node, ...]) -> Mapping:
    """Loops put before the first loop of a nest."""
    nodes = mapping.nodes
    first = next((i for i, node in enumerate(nodes) if not isinstance(node, Hold)), len(nodes))
    return Mapping((*nodes[:first], *loops, *nodes[first:]))


def block_searches(
    problem: Problem, home: Memory, freed: Freed, operands: tuple[Operand, ...], room: int
) -> Iterator[tuple[Problem, tuple[Node, ...]]]:
    """Problems of one block of the layer, and the loops over its blocks; their room is what such blocks leave."""
    for levels, left in block_sizes(problem, home, freed, room):
        sizes = {level.dim: level.step for level in levels}
        bounds = problem.layer.loops.as_dict()
        layer = dataclasses.replace(problem.layer, loops=dataclasses.replace(problem.layer.loops, **sizes))
        part = Problem(layer, problem.accelerator, homes=Homes(operands, left), cycle_pj=problem.cycle_pj)
        yield part, tuple(Temporal(level.dim, bounds[level.dim] // level.step) for level in levels)


def block_sizes(problem: Problem, home: Memory, freed: Freed, room: int) -> Iterator[tuple[tuple[Level, ...], int]]:
    """Blocks that leave room: per dim the largest and the smallest, or, where none does, single steps of two dims."""
    bounds = problem.layer.loops.as_dict()
    dims = [dim for dim in OUTSIDE if bounds[dim] > 1]

    def left(*levels: Level) -> int:
        return room + saved_bits(home, problem.layer, levels, freed)

    single = False
    for dim in dims:
        fitting = [
            Level(dim, size) for size in divisors(bounds[dim])[:-1] if max(room + 1, 0) <= left(Level(dim, size))
        ]
        for level in dict.fromkeys((fitting[-1], fitting[0])) if fitting else ():
            single = True
            yield (level,), left(level)
    for one, two in itertools.permutations(dims, 2) if not single else ():
        levels = Level(one, 1), Level(two, 1)
        if left(*levels) >= 0:
            yield levels, left(*levels)
