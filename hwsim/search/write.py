"""A chain of tiles written as a Mapping: which loops run where, in which order between two settle points.

The order between two settle points is free for the chain's own costs; it decides which halos of neighbouring input
tiles overlap, so a few orders are written and the exact counts choose.
"""

from __future__ import annotations

from collections.abc import Sequence

from hwsim.machine.parts import OPERANDS
from hwsim.nest.mapping import Hold, Mapping, Node, Spatial, Temporal
from hwsim.search.space.paths import Chain, Step
from hwsim.search.space.problem import Crossing, Problem
from hwsim.search.space.unrolling import Unrollings

# Innermost first. Rows or columns innermost slide the input window, so that halos are reused.
ORDERS: tuple[tuple[str, ...], ...] = (
    ("Q", "P", "S", "R", "C", "K", "G", "N"),
    ("P", "Q", "R", "S", "C", "K", "G", "N"),
    ("R", "S", "P", "Q", "C", "K", "G", "N"),
    ("K", "Q", "P", "S", "R", "C", "G", "N"),
    ("C", "K", "Q", "P", "S", "R", "G", "N"),
    ("S", "R", "Q", "P", "C", "K", "G", "N"),
)


class Nest:
    """A nest being written from the inside out: nodes, and how much of every dim they cover."""

    def __init__(self, problem: Problem, order: tuple[str, ...]) -> None:
        self.bounds = dict(zip(problem.dims, problem.extents, strict=True))
        self.axis = {dim: e for e, dim in enumerate(problem.dims)}
        self.order = [dim for dim in order if dim in self.bounds]
        self.covered = dict.fromkeys(problem.dims, 1)  # product of all factors so far, spatial ones included
        self.tile = [1] * len(problem.dims)  # product of the temporal ones
        self.nodes: list[Node] = []
        self.passed = 0  # arrays

    def factor(self, dim: str, wanted: int) -> int:
        """The factor of a new loop: as wanted, but no more than the rest of the dim needs."""
        factor = min(wanted, -(-self.bounds[dim] // self.covered[dim]))
        self.covered[dim] *= factor
        return factor

    def closed(self, problem: Problem) -> Mapping:
        """The nest inside the outermost memory; what lies at home whole has the smallest tile there that will do."""
        for operand in problem.sources:
            inside = [
                place
                for place, node in enumerate(self.nodes)
                if isinstance(node, Spatial) or (isinstance(node, Hold) and operand in node.operands)
            ]
            self.nodes.insert(max(inside, default=-1) + 1, Hold(problem.needed_home.name, (operand,)))
        outermost = problem.accelerator.memories[0]
        self.nodes.append(Hold(outermost.name, tuple(o for o in OPERANDS if o in outermost.keeps)))
        return Mapping(tuple(merged(self.nodes)))

    def hold(self, crossing: Crossing | None) -> None:
        """The hold that a crossing fills, inside the same arrays and not written yet."""
        if crossing is None or crossing.child == "mac" or crossing.segment != self.passed:
            return
        hold = Hold(crossing.child, (crossing.operand,))
        if hold not in self.nodes:
            self.nodes.append(hold)

    def grow(self, tile: tuple[int, ...]) -> None:
        """Temporal loops until the temporal extents reach `tile`."""
        for dim in self.order:
            target = tile[self.axis[dim]]
            factor = self.factor(dim, -(-target // self.tile[self.axis[dim]]))
            self.tile[self.axis[dim]] = target
            if factor > 1:
                self.nodes.append(Temporal(dim, factor))

    def unroll(self, unrollings: Unrollings, index: int, array: int, name: str) -> None:
        """The spatial loops of one array."""
        for j, (owner, axis) in enumerate(unrollings.axes):
            if owner == array:
                for dim, e in self.axis.items():
                    factor = self.factor(dim, int(unrollings.factors[index, j, e]))
                    if factor > 1:
                        self.nodes.append(Spatial(dim, factor, name, axis.name))


def write(problem: Problem, unrollings: Unrollings, index: int, chain: Chain, order: tuple[str, ...]) -> Mapping:
    """The mapping of a chain under unrolling `index`; loops between two points run in `order` (innermost first)."""
    nest = Nest(problem, order)
    for position, event in enumerate(chain.events):
        nest.grow(event.tile)
        if event.passes:
            # holds below this array whose operand stays stationary above it
            for later in chain.events[position + 1 :]:
                if later.hold is not None and later.hold.segment == event.segment < later.segment:
                    nest.nodes.append(Hold(later.hold.child, (later.hold.operand,)))
            nest.unroll(unrollings, index, event.segment, problem.arrays[event.segment].name)
        elif event.hold is not None and event.hold.segment == event.segment:
            nest.nodes.append(Hold(event.hold.child, (event.hold.operand,)))
    nest.grow(chain.extents)
    return nest.closed(problem)


def merged(nodes: list[Node]) -> list[Node]:
    """Outermost first, neighbouring holds of one memory joined."""
    result: list[Node] = []
    for node in reversed(nodes):
        last = result[-1] if result else None
        if isinstance(node, Hold) and isinstance(last, Hold) and last.memory == node.memory:
            names = {*last.operands, *node.operands}
            result[-1] = Hold(node.memory, tuple(o for o in OPERANDS if o in names))
        else:
            result.append(node)
    return result


def write_path(problem: Problem, unrolling: Unrollings, steps: Sequence[Step]) -> Mapping:
    """The mapping of a path of one unrolling, innermost first: loops where the path puts them, holds where they settle.

    A hold inside an array that settles further out, its operand stationary meanwhile, stands just inside the array.
    """
    nest = Nest(problem, ())
    for position, step in enumerate(steps):
        if step.crossing is not None or step.leaves is not None:
            nest.hold(step.crossing or step.leaves)
        elif step.array >= 0:
            for later in steps[position + 1 :]:
                nest.hold(later.crossing)
            nest.unroll(unrolling, 0, step.array, problem.arrays[step.array].name)
            nest.passed += 1
        else:
            last = nest.nodes[-1] if nest.nodes else None
            dim, factor = problem.dims[step.dim], step.factor
            if isinstance(last, Temporal) and last.dim == dim:
                nest.nodes.pop()
                nest.covered[dim] //= last.factor
                factor *= last.factor
            factor = nest.factor(dim, factor)  # tiles that do not divide the dim may need fewer
            if factor > 1:
                nest.nodes.append(Temporal(dim, factor))
    for dim, bound in nest.bounds.items():  # nothing settles further out: their order is free
        if nest.covered[dim] < bound:
            nest.nodes.append(Temporal(dim, -(-bound // nest.covered[dim])))
    return nest.closed(problem)
