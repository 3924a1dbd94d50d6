"""What crosses each boundary between two holders of an operand, down for inputs and weights, up and down for outputs.

How often points enter, leave and come back is asked of a `Nest`, by operand and boundary, never computed twice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from hwsim.machine.parts import OPERANDS, Accelerator, Array, Operand
from hwsim.nest.counts import Conventions, Kind
from hwsim.nest.legal import accumulates_only
from hwsim.nest.mapping import Hold, Mapping, Spatial
from hwsim.nest.points import REDUCTION_DIMS, ranks_of, relevant_dims
from hwsim.nest.reuse import Line, Profile, Side, blocks, crossing, positions, visits
from hwsim.network.layer import DIMS, Layer

# --- the nest: loops seen by one dim, ranks seen by one tile ----------------------------------------------------------


Profiles = list[tuple[tuple[str, ...], Profile]]


@dataclass(frozen=True)
class LoopAt:
    """A loop of the nest with its place among the nodes and the distance between its blocks."""

    place: int
    dim: str
    factor: int
    step: int
    array: str  # empty: temporal


class Nest:
    """The loops of a mapping, ready for counting: trivial ones dropped, steps known."""

    def __init__(self, layer: Layer, mapping: Mapping) -> None:
        self.layer = layer
        self.bounds: dict[str, int] = layer.loops.as_dict()
        self.end = len(mapping.nodes)
        self.loops: list[LoopAt] = []
        for place, (node, step) in enumerate(zip(mapping.nodes, mapping.steps(), strict=True)):
            if not isinstance(node, Hold) and node.factor > 1:
                array = node.array if isinstance(node, Spatial) else ""
                self.loops.append(LoopAt(place, node.dim, node.factor, step, array))
        self.by_dim = {dim: [loop for loop in self.loops if loop.dim == dim] for dim in DIMS}
        long = frozenset(dim for dim, bound in self.bounds.items() if bound > 1)
        self.ranks = {operand: dims_of_ranks(operand, layer.stride, layer.dilation, long) for operand in OPERANDS}

    def above(self, place: int) -> list[LoopAt]:
        """Loops outside a place."""
        return [loop for loop in self.loops if loop.place < place]

    def time_dims(self, place: int) -> list[str]:
        """Dims of the temporal loops outside a place, outermost first."""
        return [loop.dim for loop in self.loops if loop.place < place and not loop.array]

    def tile(self, dim: str, place: int) -> int:
        """Extent of a dim inside a place: product of its factors there."""
        return math.prod(loop.factor for loop in self.by_dim[dim] if loop.place >= place)

    def profiles(self, operand: Operand, place: int, apart: frozenset[str], gates: Sequence[int]) -> Profiles:
        """Reuse of a tile at `place` by rank; elements of the arrays in `apart` count separately.

        `gates`: places of the tiles that must not move on for a sum to be kept (`reuse.blocks`). Dims of one iteration
        are left out.
        """
        found: Profiles = []
        for dims, coefficients, indexes in self.ranks[operand]:
            tiles = [self.tile(dim, place) for dim in dims]
            if len(dims) == 2:
                first, second = (Side(self.bounds[d], c, t) for d, c, t in zip(dims, coefficients, tiles, strict=True))
                profile = crossing(first, second, self.lines(dims, place, apart))
            elif indexes:
                above = tuple([sum(loop.place < gate for loop in self.by_dim[dims[0]]) for gate in gates])
                profile = blocks(self.bounds[dims[0]], tiles[0], self.lines(dims, place, None), above)
            else:
                profile = visits(self.bounds[dims[0]], tiles[0], self.lines(dims, place, apart))
            found.append((dims, profile))
        return found

    def lines(self, dims: tuple[str, ...], place: int, apart: frozenset[str] | None) -> tuple[Line, ...]:
        """The loops of one or two dims outside a place, each with its role; `apart` None: every array element apart."""
        loops = self.by_dim[dims[0]] if len(dims) == 1 else [loop for loop in self.loops if loop.dim in dims]
        return tuple(
            Line(
                loop.factor,
                loop.step,
                "time" if not loop.array else "apart" if apart is None or loop.array in apart else "united",
                dims.index(loop.dim),
            )
            for loop in loops
            if loop.place < place
        )

    def sharers(self, arrays: frozenset[str]) -> int:
        """Elements of these arrays that ever work on one and the same output."""
        return self.visited([loop for loop in self.loops if loop.array in arrays and loop.dim in REDUCTION_DIMS])

    def split(self, place: int) -> int:
        """Array elements among which the sum of one output is divided above a place."""
        return math.prod(l.factor for l in self.above(place) if l.array and l.dim in REDUCTION_DIMS)

    def visited(self, loops: Sequence[LoopAt]) -> int:
        """Index combinations of these loops for which there is work (all other indices zero)."""
        by_dim: dict[str, list[tuple[int, int]]] = {}
        for loop in loops:
            by_dim.setdefault(loop.dim, []).append((loop.factor, loop.step))
        return math.prod(positions(self.bounds[dim], mine) for dim, mine in by_dim.items())


@lru_cache(maxsize=1024)
def dims_of_ranks(
    operand: Operand, stride: tuple[int, int], dilation: tuple[int, int], long: frozenset[str]
) -> tuple[tuple[tuple[str, ...], tuple[int, ...], bool], ...]:
    """(dims, coefficients, True) of each rank of an operand, then ((dim,), (1,), False) of each loop that reuses it.

    Only dims in `long`: one iteration makes no difference. A rank left with one dim is plain, whatever its stride.
    """
    found: list[tuple[tuple[str, ...], tuple[int, ...], bool]] = []
    for rank in ranks_of(operand, stride, dilation):
        terms = [(dim, coefficient) for dim, coefficient in rank.terms if dim in long]
        if terms:
            found.append((tuple(dim for dim, _ in terms), tuple(c for _, c in terms), True))
    relevant = relevant_dims(operand)
    return (*found, *(((dim,), (1,), False) for dim in DIMS if dim in long and dim not in relevant))


# --- transfers across one boundary ------------------------------------------------------------------------------------


def transfers(nest: Nest, operand: Operand, child: Holder, apart: frozenset[str], gates: Sequence[int]) -> int:
    """Points that enter the tiles of `child`, over all steps: elements of arrays in `apart` separately, others united.

    First tile + sum over temporal loops of (product of needed - product of kept): the points of a product of ranks
    that are new are those new in at least one rank. A child that forgets needs its whole tile at every step.
    """
    profiles = nest.profiles(operand, child.place, apart, gates)
    if child.forgets:
        return math.prod(profile.wrap[-1][0] for _, profile in profiles)
    total = math.prod(profile.wrap[0][0] for _, profile in profiles)
    owner = {dim: index for index, (dims, _) in enumerate(profiles) for dim in dims}
    outside = [0] * len(profiles)
    for dim in nest.time_dims(child.place):
        mine = owner[dim]
        needed = kept = 1
        for index, (_, profile) in enumerate(profiles):
            now, stay = (profile.advance if index == mine else profile.wrap)[outside[index]]
            needed = needed * now
            kept = kept * stay
        total = total + (needed - kept)
        outside[mine] += 1
    return total


@dataclass(frozen=True)
class Holder:
    """Who holds an operand: a memory, or the MAC units (`memory` empty), and from which place of the nest inwards."""

    memory: str
    place: int
    depth: int  # position in the hierarchy
    forgets: bool = False  # a MAC without a latch keeps nothing from step to step


def holders(mapping: Mapping, accelerator: Accelerator, operand: Operand) -> list[Holder]:
    """The chain of an operand, outermost memory first, MAC units last."""
    depth = {node.name: position for position, node in enumerate(accelerator.hierarchy)}
    chain = [
        Holder(node.memory, place, depth[node.memory])
        for place, node in enumerate(mapping.nodes)
        if isinstance(node, Hold) and operand in node.operands
    ]
    latched = operand in accelerator.mac.latches
    return [*chain, Holder("", len(mapping.nodes), len(accelerator.hierarchy), not latched)]


class Boundary:
    """The boundary between two neighbouring holders of an operand: what passes it, at each array on the way."""

    def __init__(
        self,
        nest: Nest,
        accelerator: Accelerator,
        operand: Operand,
        parent: Holder,
        child: Holder,
        gates: Sequence[int],
    ) -> None:
        self.nest, self.parent, self.child, self.gates = nest, parent, child, gates
        self.operand: Operand = operand
        arrays = [(i, node) for i, node in enumerate(accelerator.hierarchy) if isinstance(node, Array)]
        self.outer = frozenset(array.name for depth, array in arrays if depth < parent.depth)
        self.arrays = [array for depth, array in arrays if parent.depth < depth < child.depth]
        self.alone = frozenset(array.name for array in self.arrays if not array.multicast and operand != "output")
        self.levels = range(len(self.arrays) + 1)
        self.known: dict[frozenset[str], int] = {}

    def counted_apart(self, inside: int) -> frozenset[str]:
        """Arrays whose elements count separately when the outer `inside` arrays on the way do."""
        return self.outer | self.alone | {array.name for array in self.arrays[:inside]}

    def amount(self, inside: int) -> int:
        """Points that enter children, united within the arrays on the way from number `inside` inwards.

        0: as the parent sees them; len(arrays): every child on its own. Without multicast nothing unites.
        """
        apart = self.counted_apart(inside)
        if apart not in self.known:
            self.known[apart] = transfers(self.nest, self.operand, self.child, apart, self.gates)
        return self.known[apart]

    @property
    def seen_by_parent(self) -> int:
        """Points counted once per parent instance and step."""
        return self.amount(0)

    @property
    def seen_by_children(self) -> int:
        """Points counted at every child."""
        return self.amount(len(self.arrays))


Key = tuple[str, Operand, Kind]


@dataclass
class Tally:
    """Sums being built: reads and writes by (memory, operand, kind), down and up by (array, operand, kind)."""

    reads: dict[Key, int]
    writes: dict[Key, int]
    down: dict[Key, int]
    up: dict[Key, int]
    reduction_adds: int = 0


def tally_accesses(nest: Nest, mapping: Mapping, accelerator: Accelerator, conventions: Conventions) -> Tally:
    """Traffic and deliveries of all operands."""
    tally = Tally({}, {}, {}, {})
    for operand in OPERANDS:
        chain = holders(mapping, accelerator, operand)
        if operand == "output":
            tally_outputs(tally, nest, accelerator, chain, conventions)
        else:
            for parent, child in pairwise(chain):
                tally_codes(tally, Boundary(nest, accelerator, operand, parent, child, [child.place]))
    return tally


def tally_codes(tally: Tally, boundary: Boundary) -> None:
    """Weights and inputs: one parent read for all children that multicast reaches, one write per child."""
    operand = boundary.operand
    add(tally.reads, (boundary.parent.memory, operand, "code"), boundary.seen_by_parent)
    if boundary.child.memory:
        add(tally.writes, (boundary.child.memory, operand, "code"), boundary.seen_by_children)
    for index, array in enumerate(boundary.arrays):
        add(tally.down, (array.name, operand, "code"), boundary.amount(index + 1))


def tally_outputs(
    tally: Tally, nest: Nest, accelerator: Accelerator, chain: list[Holder], conventions: Conventions
) -> None:
    """Outputs: what enters a child later leaves it; it is drained from each child, added on the way, written once.

    A point returns to a child only if its parent has begun to sum it. `fresh`: entries into the parent that found
    nothing begun; their first visit by a child needs no read. A returning sum goes to one child of a group, so all
    entries into its other children are fresh.
    """
    total = math.prod(nest.bounds[dim] for dim in relevant_dims("output"))
    fresh: int = total
    finals: int = total  # the outermost memory ends with nothing but finished outputs
    for parent, child in pairwise(chain):
        gates = [holder.place for holder in chain[1:] if holder.place <= child.place]
        boundary = Boundary(nest, accelerator, "output", parent, child, gates)
        updates, drains = boundary.seen_by_parent, boundary.seen_by_children
        if conventions.broadcast_partials:
            first = [total * nest.sharers(boundary.counted_apart(inside)) for inside in boundary.levels]
        else:
            first = [boundary.amount(inside) - (updates - fresh) for inside in boundary.levels]
        tally_down(tally, boundary, [boundary.amount(inside) - first[inside] for inside in boundary.levels])
        finished = total * finishes(nest, accelerator, child)
        tally_up(tally, boundary, finals, finished, conventions.drain_reads)
        tally.reduction_adds = tally.reduction_adds + (drains - updates)
        fresh, finals = fresh + (drains - updates), finished


def finishes(nest: Nest, accelerator: Accelerator, holder: Holder) -> int:
    """1 where the last update of a point is its finished value (`mapping.receives_finals`), else 0."""
    if not holder.memory or accumulates_only(accelerator, holder.memory):
        return 0
    return 1 * (nest.split(holder.place) == 1)


def tally_down(tally: Tally, boundary: Boundary, returns: Sequence[int]) -> None:
    """Partial sums that come back: `returns` by number of arrays passed, 0 at the parent."""
    add(tally.reads, (boundary.parent.memory, "output", "partial"), returns[0])
    if boundary.child.memory:
        add(tally.writes, (boundary.child.memory, "output", "partial"), returns[-1])
    for array, amount in zip(boundary.arrays, returns[1:], strict=True):
        add(tally.down, (array.name, "output", "partial"), amount)


def tally_up(tally: Tally, boundary: Boundary, finals: int, finished: int, drain_reads: bool) -> None:
    """Sums that leave the children: `finals` of the parent's updates and `finished` of the drains are final."""
    parent, child = boundary.parent.memory, boundary.child.memory
    add(tally.writes, (parent, "output", "final"), finals)
    add(tally.writes, (parent, "output", "partial"), boundary.seen_by_parent - finals)
    if child and drain_reads:
        add(tally.reads, (child, "output", "final"), finished)
        add(tally.reads, (child, "output", "partial"), boundary.seen_by_children - finished)
    for inside, array in enumerate(boundary.arrays, start=1):
        add(tally.up, (array.name, "output", "final"), finished)
        add(tally.up, (array.name, "output", "partial"), boundary.amount(inside) - finished)


def add(sums: dict[Key, int], key: Key, amount: int) -> None:
    """Add to one of the sums."""
    sums[key] = sums.get(key, 0) + amount
