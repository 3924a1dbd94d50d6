"""How often a mapping reads and writes every memory: exact set-difference counts, equal to a walk over point sets.

A held tile is exactly the set of points that everything below the hold needs for the current indices of the loops
above it; when it changes, only points it did not hold are fetched. Conventions and equations: docs/counting.md.
Counts are integers summed over all instances; bits, words and energies come later (cost.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Literal, Protocol

from hwsim.machine import OPERANDS, Accelerator, Array, Memory, Operand
from hwsim.mapping import (
    REDUCTION_DIMS,
    Hold,
    Mapping,
    Spatial,
    accumulates_only,
    holds_partials,
    ranks_of,
    relevant_dims,
    tile_elements,
)
from hwsim.reuse import Amount, Line, Profile, Side, blocks, crossing, positions, visits
from hwsim.workload import DIMS, Layer

Kind = Literal["code", "partial", "final"]  # weights and inputs; partial sums; finished outputs
KINDS: tuple[Kind, ...] = ("code", "partial", "final")


@dataclass(frozen=True)
class Conventions:
    """Choices on which published tools differ; the defaults are what the hardware does.

    `drain_reads`: reading an output tile out of a memory to send it up is charged to that memory.
    `broadcast_partials`: a returning partial sum is written to every child of its reduction group, not to one.
    """

    drain_reads: bool = True
    broadcast_partials: bool = False


@dataclass(frozen=True)
class Traffic:
    """Elements of one operand read from and written to one memory, over all its instances and the whole layer."""

    memory: str
    operand: Operand
    kind: Kind
    reads: int
    writes: int


@dataclass(frozen=True)
class Tile:
    """Largest tile of an operand in one instance of a memory; `partial`: it may hold unfinished sums."""

    memory: str
    operand: Operand
    elements: int
    partial: bool


@dataclass(frozen=True)
class Delivery:
    """Elements that pass an array: arriving at its elements (`down`, one per child reached) and leaving them (`up`)."""

    array: str
    operand: Operand
    kind: Kind
    down: int
    up: int


@dataclass(frozen=True)
class ArrayUse:
    """How a mapping uses one array: active elements per axis, and how often the loops above it start it anew."""

    array: str
    axes: tuple[tuple[str, int], ...]  # (axis name, elements used)
    passes: int


@dataclass(frozen=True)
class Counts:
    """Everything about a (layer, mapping, accelerator) that needs no bits and no prices."""

    traffic: tuple[Traffic, ...]
    tiles: tuple[Tile, ...]
    deliveries: tuple[Delivery, ...]
    arrays: tuple[ArrayUse, ...]
    instances: tuple[tuple[str, int], ...]  # (memory, instances that ever hold anything)
    macs: int
    steps: int  # temporal iterations = compute cycles of the busiest MAC unit at one MAC per cycle
    active_macs: int  # MAC units that ever work
    reduction_adds: int  # additions that merge partial sums of different array elements

    def reads(self, memory: str, operand: Operand | None = None, kind: Kind | None = None) -> int:
        """Elements read from a memory, of one operand and kind or of all."""
        return sum(t.reads for t in self._select(memory, operand, kind))

    def writes(self, memory: str, operand: Operand | None = None, kind: Kind | None = None) -> int:
        """Elements written to a memory, of one operand and kind or of all."""
        return sum(t.writes for t in self._select(memory, operand, kind))

    def _select(self, memory: str, operand: Operand | None, kind: Kind | None) -> list[Traffic]:
        return [
            t for t in self.traffic if t.memory == memory and operand in (None, t.operand) and kind in (None, t.kind)
        ]


def count_accesses(
    layer: Layer, mapping: Mapping, accelerator: Accelerator, conventions: Conventions | None = None
) -> Counts:
    """Exact counts of one legal mapping (`mapping.validate` says whether it is), equations in docs/counting.md.

    Equal to a walk of the loop nest over explicit point sets, for every stride, dilation, group, imperfect factor.
    """
    nest = Nest(layer, mapping)
    tally = tally_accesses(nest, mapping, accelerator, conventions or Conventions())
    traffic = [
        Traffic(*key, int(tally.reads.get(key, 0)), int(tally.writes.get(key, 0)))
        for key in keys([memory.name for memory in accelerator.memories])
    ]
    deliveries = [
        Delivery(*key, int(tally.down.get(key, 0)), int(tally.up.get(key, 0)))
        for key in keys([array.name for array in accelerator.arrays])
    ]
    return Counts(
        traffic=tuple(entry for entry in traffic if entry.reads or entry.writes),
        tiles=tuple(held_tiles(layer, mapping, accelerator)),
        deliveries=tuple(entry for entry in deliveries if entry.down or entry.up),
        arrays=tuple(use_of_array(nest, mapping, accelerator, array) for array in accelerator.arrays),
        instances=tuple((memory.name, used_instances(nest, mapping, memory)) for memory in accelerator.memories),
        macs=layer.loops.macs,
        steps=nest.visited([loop for loop in nest.loops if not loop.array]),
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
    """Elements used per axis, and iterations of the temporal loops above the array's place in the nest."""
    names = [node.name for node in accelerator.hierarchy]
    inwards = set(names[names.index(array.name) :])
    used = {axis.name: 1 for axis in array.axes}
    place = nest.end
    for index, node in reversed(list(enumerate(mapping.nodes))):
        name = node.memory if isinstance(node, Hold) else node.array if isinstance(node, Spatial) else ""
        if name in inwards:
            place = index
        if isinstance(node, Spatial) and name == array.name:
            used[node.axis] *= node.factor
    passes = nest.visited([loop for loop in nest.above(place) if not loop.array])
    return ArrayUse(array.name, tuple(used.items()), passes)


# --- the nest: loops seen by one dim, ranks seen by one tile ----------------------------------------------------------


class Loops(Protocol):
    """What counting needs to know of a nest; `Nest` for one mapping, `count_batch.BatchNest` for many."""

    @property
    def bounds(self) -> dict[str, int]:
        """The layer's loop bounds."""
        ...

    def time_dims(self, place: int) -> list[str]:
        """Dims of the temporal loops outside a place, outermost first."""
        ...

    def profiles(self, operand: Operand, place: int, apart: frozenset[str], gates: Sequence[int]) -> Profiles:
        """Reuse of a tile at `place`, by groups of dims; elements of the arrays in `apart` count separately.

        `gates`: places of the tiles that must not move on for a sum to be kept (`reuse.blocks`).
        """
        ...

    def sharers(self, arrays: frozenset[str]) -> Amount:
        """Elements of these arrays that ever work on one and the same output."""
        ...

    def split(self, place: int) -> Amount:
        """Array elements among which the sum of one output is divided above a place."""
        ...


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
        """Reuse of a tile at `place` by rank, see `Loops`; dims of one iteration are left out."""
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


def transfers(nest: Loops, operand: Operand, child: Holder, apart: frozenset[str], gates: Sequence[int]) -> Amount:
    """Points that enter the tiles of `child`, over all steps: elements of arrays in `apart` separately, others united.

    First tile + sum over temporal loops of (product of needed - product of kept): the points of a product of ranks
    that are new are those new in at least one rank. A child that forgets needs its whole tile at every step.
    """
    profiles = nest.profiles(operand, child.place, apart, gates)
    if child.forgets:
        return product(profile.wrap[-1][0] for _, profile in profiles)
    total = product(profile.wrap[0][0] for _, profile in profiles)
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


def product(amounts: Iterable[Amount]) -> Amount:
    """Product of ints or arrays; 1 of nothing."""
    total: Amount = 1
    for amount in amounts:
        total = total * amount
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
        nest: Loops,
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
        self.known: dict[frozenset[str], Amount] = {}

    def counted_apart(self, inside: int) -> frozenset[str]:
        """Arrays whose elements count separately when the outer `inside` arrays on the way do."""
        return self.outer | self.alone | {array.name for array in self.arrays[:inside]}

    def amount(self, inside: int) -> Amount:
        """Points that enter children, united within the arrays on the way from number `inside` inwards.

        0: as the parent sees them; len(arrays): every child on its own. Without multicast nothing unites.
        """
        apart = self.counted_apart(inside)
        if apart not in self.known:
            self.known[apart] = transfers(self.nest, self.operand, self.child, apart, self.gates)
        return self.known[apart]

    @property
    def seen_by_parent(self) -> Amount:
        """Points counted once per parent instance and step."""
        return self.amount(0)

    @property
    def seen_by_children(self) -> Amount:
        """Points counted at every child."""
        return self.amount(len(self.arrays))


Key = tuple[str, Operand, Kind]


@dataclass
class Tally:
    """Sums being built: reads and writes by (memory, operand, kind), down and up by (array, operand, kind)."""

    reads: dict[Key, Amount]
    writes: dict[Key, Amount]
    down: dict[Key, Amount]
    up: dict[Key, Amount]
    reduction_adds: Amount = 0


def tally_accesses(nest: Loops, mapping: Mapping, accelerator: Accelerator, conventions: Conventions) -> Tally:
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
    tally: Tally, nest: Loops, accelerator: Accelerator, chain: list[Holder], conventions: Conventions
) -> None:
    """Outputs: what enters a child later leaves it; it is drained from each child, added on the way, written once.

    A point returns to a child only if its parent has begun to sum it. `fresh`: entries into the parent that found
    nothing begun; their first visit by a child needs no read. A returning sum goes to one child of a group, so all
    entries into its other children are fresh.
    """
    total = math.prod(nest.bounds[dim] for dim in relevant_dims("output"))
    fresh: Amount = total
    finals: Amount = total  # the outermost memory ends with nothing but finished outputs
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


def finishes(nest: Loops, accelerator: Accelerator, holder: Holder) -> Amount:
    """1 where the last update of a point is its finished value (`mapping.receives_finals`), else 0."""
    if not holder.memory or accumulates_only(accelerator, holder.memory):
        return 0
    return 1 * (nest.split(holder.place) == 1)


def tally_down(tally: Tally, boundary: Boundary, returns: Sequence[Amount]) -> None:
    """Partial sums that come back: `returns` by number of arrays passed, 0 at the parent."""
    add(tally.reads, (boundary.parent.memory, "output", "partial"), returns[0])
    if boundary.child.memory:
        add(tally.writes, (boundary.child.memory, "output", "partial"), returns[-1])
    for array, amount in zip(boundary.arrays, returns[1:], strict=True):
        add(tally.down, (array.name, "output", "partial"), amount)


def tally_up(tally: Tally, boundary: Boundary, finals: Amount, finished: Amount, drain_reads: bool) -> None:
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


def keys(names: Sequence[str]) -> list[Key]:
    """Every (name, operand, kind), in this order."""
    return [(name, operand, kind) for name in names for operand in OPERANDS for kind in KINDS]


def add(sums: dict[Key, Amount], key: Key, amount: Amount) -> None:
    """Add to one of the sums."""
    sums[key] = sums.get(key, 0) + amount
