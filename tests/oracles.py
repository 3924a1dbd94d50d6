"""Slow and obvious reference versions: what the closed forms must equal.

`walk_counts` walks the loop nest of a mapping step by step. Every memory instance holds an explicit set of points,
every partial sum is a number that is really moved, added and checked: at the end each output must have received
exactly its C*R*S products. Nothing here shares arithmetic with hwsim.nest.counts.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from hwsim.machine.parts import OPERANDS, Accelerator, Array, Operand
from hwsim.nest.counts import ArrayUse, Conventions, Counts, Delivery, Kind, Tile, Traffic
from hwsim.nest.mapping import Hold, Mapping, Spatial, Temporal
from hwsim.network.layer import DIMS, Layer

MOVES = {"weight": set("GKCRS"), "input": set("NGCPQRS"), "output": set("NGKPQ")}  # dims that move an operand's tile
Point = tuple[int, ...]
Index = tuple[int, ...]  # one value per loop of some list of loops


def point(layer: Layer, operand: Operand, at: dict[str, int]) -> Point:
    """The element of an operand that iteration `at` touches; input rows and columns in the padded image."""
    if operand == "weight":
        return (at["G"], at["K"], at["C"], at["R"], at["S"])
    if operand == "output":
        return (at["N"], at["G"], at["K"], at["P"], at["Q"])
    row = at["P"] * layer.stride[0] + at["R"] * layer.dilation[0]
    column = at["Q"] * layer.stride[1] + at["S"] * layer.dilation[1]
    return (at["N"], at["G"], at["C"], row, column)


class Nest:
    """The loops of a mapping with their steps, and which points a tile of it needs."""

    def __init__(self, layer: Layer, mapping: Mapping) -> None:
        self.layer = layer
        self.nodes = mapping.nodes
        self.bounds = layer.loops.as_dict()
        self.step = [
            math.prod(n.factor for n in self.nodes[i + 1 :] if not isinstance(n, Hold) and n.dim == node.dim)
            if not isinstance(node, Hold)
            else 0
            for i, node in enumerate(self.nodes)
        ]
        self.temporal = [i for i, node in enumerate(self.nodes) if isinstance(node, Temporal)]
        self.spatial = [i for i, node in enumerate(self.nodes) if isinstance(node, Spatial)]
        self.cache: dict[tuple[Operand, int, Index, Index], frozenset[Point]] = {}

    def factors(self, places: list[int]) -> list[range]:
        """The iterations of some loops."""
        return [range(self.nodes[i].factor) for i in places]  # type: ignore[union-attr]

    def steps(self) -> Iterator[Index]:
        """Temporal index vectors in order of time, those left out in which no MAC unit has work."""
        for time in itertools.product(*self.factors(self.temporal)):
            if self.inside(self.at(time, (0,) * len(self.spatial))):
                yield time

    def at(self, time: Index, space: Index) -> dict[str, int]:
        """Loop variables of the block with these (leading) temporal and spatial indices."""
        found = dict.fromkeys(DIMS, 0)
        for place, index in [*zip(self.temporal, time, strict=False), *zip(self.spatial, space, strict=False)]:
            found[self.nodes[place].dim] += index * self.step[place]  # type: ignore[union-attr]
        return found

    def inside(self, at: dict[str, int]) -> bool:
        """Whether an iteration exists: imperfect factors overshoot the bounds."""
        return all(at[dim] < self.bounds[dim] for dim in DIMS)

    def tile(self, operand: Operand, position: int, time: Index, space: Index) -> frozenset[Point]:
        """All points that the iterations below `position` touch, for given indices of the loops above it."""
        key = (operand, position, time, space)
        if key not in self.cache:
            later_times = itertools.product(*self.factors([i for i in self.temporal if i >= position]))
            later_spaces = list(itertools.product(*self.factors([i for i in self.spatial if i >= position])))
            visits = (self.at(time + t, space + s) for t in later_times for s in later_spaces)
            self.cache[key] = frozenset(point(self.layer, operand, at) for at in visits if self.inside(at))
        return self.cache[key]


@dataclass
class Level:
    """One memory that holds the operand (or the MAC units, `memory` None) with the state of all its instances."""

    memory: str | None
    position: int
    times: int  # temporal loops above it
    spaces: int  # spatial loops above it
    forgets: bool = False  # a MAC without a latch
    finals: bool = False  # finished outputs are requantized on their way in
    held: dict[Index, frozenset[Point]] = field(default_factory=dict)
    sums: dict[Index, dict[Point, int]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(int)))
    begun: dict[Index, set[Point]] = field(default_factory=lambda: defaultdict(set))  # points with something to keep
    since: Index | None = None  # indices of the temporal loops above it when its tiles last changed
    used: set[Index] = field(default_factory=set)
    largest: int = 0
    partial: bool = False


class Walk:
    """One operand's walk; tallies are keyed as in the result."""

    def __init__(
        self, layer: Layer, mapping: Mapping, accelerator: Accelerator, operand: Operand, conventions: Conventions
    ) -> None:
        self.nest = Nest(layer, mapping)
        self.layer, self.accelerator, self.operand, self.conventions = layer, accelerator, operand, conventions
        self.total = layer.loops.C * layer.loops.R * layer.loops.S
        self.levels = self.find_levels(mapping)
        self.reads: dict[tuple[str, Kind], int] = defaultdict(int)
        self.writes: dict[tuple[str, Kind], int] = defaultdict(int)
        self.down: dict[tuple[str, Kind], int] = defaultdict(int)
        self.up: dict[tuple[str, Kind], int] = defaultdict(int)
        self.adds = 0
        self.run()

    def find_levels(self, mapping: Mapping) -> list[Level]:
        """Holders of the operand, outermost first, then the MAC units."""
        found: list[Level] = []
        holds = [
            (i, n.memory) for i, n in enumerate(mapping.nodes) if isinstance(n, Hold) and self.operand in n.operands
        ]
        for position, memory in [*holds, (len(mapping.nodes), None)]:
            times = sum(place < position for place in self.nest.temporal)
            above = [mapping.nodes[place] for place in self.nest.spatial if place < position]
            level = Level(memory, position, times, len(above))
            if memory is None:
                level.forgets = self.operand not in self.accelerator.mac.latches
            elif self.operand == "output":
                split = any(n.dim in "CRS" and n.factor > 1 for n in above)  # type: ignore[union-attr]
                level.finals = not split and not self.is_accumulator(memory)
            found.append(level)
        return found

    def is_accumulator(self, memory: str) -> bool:
        """Inside the innermost array, or an output-only memory that is not the outermost."""
        machine = self.accelerator
        if memory == machine.memories[0].name:
            return False
        below = machine.hierarchy[[n.name for n in machine.hierarchy].index(memory) :]
        inside = machine.arrays and not any(isinstance(n, Array) for n in below)
        return bool(inside) or next(m for m in machine.memories if m.name == memory).keeps == ("output",)

    def run(self) -> None:
        """Step through time; at the end everything still held is written back."""
        self.levels[0].held[()] = self.nest.tile(self.operand, self.levels[0].position, (), ())
        self.levels[0].largest = len(self.levels[0].held[()])
        self.levels[0].used.add(())
        for time in self.nest.steps():
            self.step(time)
        if self.operand == "output":
            for child in reversed(self.levels[1:]):
                self.leave(child, {space: held for space, held in child.held.items() if held})
            assert all(n == self.total for n in self.levels[0].sums[()].values()), "a partial sum got lost or doubled"
            assert len(self.levels[0].sums[()]) == len(self.levels[0].held[()])

    def step(self, time: Index) -> None:
        """One iteration of all temporal loops: tiles that change leave, innermost first; new ones enter; MACs work."""
        changes = [self.change(parent, child, time) for parent, child in itertools.pairwise(self.levels)]
        if self.operand == "output":
            for child, (_, leaving) in reversed(list(zip(self.levels[1:], changes, strict=True))):
                self.leave(child, leaving)
        for (parent, child), (arriving, _) in zip(itertools.pairwise(self.levels), changes, strict=True):
            if self.operand == "output":
                self.enter_partials(parent, child, arriving)
            else:
                self.enter(parent, child, arriving)
        self.work(time)

    def change(
        self, parent: Level, child: Level, time: Index
    ) -> tuple[dict[Index, frozenset[Point]], dict[Index, frozenset[Point]]]:
        """Points that each child newly needs and points it gives up; an idle child keeps what it had.

        Only sums cannot stay behind: when the parent's tile moves on, an idle child gives up what lies outside it.
        """
        arriving: dict[Index, frozenset[Point]] = {}
        leaving: dict[Index, frozenset[Point]] = {}
        if time[: child.times] == child.since and not child.forgets:
            return arriving, leaving  # no loop above it has moved
        child.since = time[: child.times]
        for space in itertools.product(*self.nest.factors(self.nest.spatial[: child.spaces])):
            need = self.nest.tile(self.operand, child.position, time[: child.times], space)
            had = child.held.get(space, frozenset())
            if not need:
                need = had & parent.held[space[: parent.spaces]] if self.operand == "output" and had else had
            if need is not had:
                arriving[space], leaving[space] = need - had, had - need
                child.held[space] = need
                child.largest = max(child.largest, len(need))
                child.used.add(space)
        return arriving, leaving

    def enter(self, parent: Level, child: Level, arriving: dict[Index, frozenset[Point]]) -> None:
        """Weights and inputs: one read of the parent for all children that need a point at the same time."""
        if parent.memory is not None:
            self.reads[parent.memory, "code"] += self.merged(parent, parent.spaces, arriving, shared=False)
        if child.memory is not None:
            self.writes[child.memory, "code"] += sum(len(points) for points in arriving.values())
        self.note_down(parent, child, arriving, "code", shared=False)

    def enter_partials(self, parent: Level, child: Level, arriving: dict[Index, frozenset[Point]]) -> None:
        """Outputs: only sums that were begun come back, to the first child of each group that asks (or to all)."""
        returning: dict[Index, frozenset[Point]] = {}
        given: set[tuple[Index, Point]] = set()
        for space in sorted(arriving):
            owner = space[: parent.spaces]
            back = {p for p in arriving[space] if p in parent.begun[owner]}
            first = {p for p in back if (owner, p) not in given}
            given |= {(owner, p) for p in first}
            for p in first:
                child.sums[space][p] += parent.sums[owner].pop(p, 0)  # 0: begun elsewhere, sent to all
            returning[space] = frozenset(back if self.conventions.broadcast_partials else first)
            child.begun[space] |= returning[space]
        assert parent.memory is not None
        self.reads[parent.memory, "partial"] += self.merged(parent, parent.spaces, returning, shared=True)
        if child.memory is not None:
            self.writes[child.memory, "partial"] += sum(len(points) for points in returning.values())
        self.note_down(parent, child, returning, "partial", shared=True)

    def leave(self, child: Level, leaving: dict[Index, frozenset[Point]]) -> None:
        """Outputs that leave their tile: drained from each child, added on the way, written once to the parent."""
        parent = self.levels[self.levels.index(child) - 1]
        assert parent.memory is not None
        arrived: dict[tuple[Index, Point], int] = defaultdict(int)
        for kind in ("partial", "final"):
            done: dict[Index, frozenset[Point]] = {}
            for space, points in leaving.items():
                full = {p for p in points if child.finals and child.sums[space].get(p, 0) == self.total}
                done[space] = frozenset(full if kind == "final" else points - full)
            if child.memory is not None and self.conventions.drain_reads:
                self.reads[child.memory, kind] += sum(len(points) for points in done.values())
            for array, inside in self.arrays_between(parent, child):
                self.up[array, kind] += self.merged_at(inside, done)
        for space, points in leaving.items():
            for p in points:
                arrived[space[: parent.spaces], p] += child.sums[space].pop(p, 0)
            child.begun[space] -= points
        self.adds += sum(len(points) for points in leaving.values()) - len(arrived)
        for (owner, p), value in arrived.items():
            parent.sums[owner][p] += value
            parent.begun[owner].add(p)
            finished = parent.finals and parent.sums[owner][p] == self.total
            self.writes[parent.memory, "final" if finished else "partial"] += 1
            parent.partial |= not finished

    def work(self, time: Index) -> None:
        """The MAC units multiply; outputs grow by one product; without a latch everything is dropped again."""
        mac = self.levels[-1]
        busy = {
            space: self.nest.tile(self.operand, mac.position, time, space)
            for space in itertools.product(*self.nest.factors(self.nest.spatial))
        }
        if self.operand == "output":
            for space, points in busy.items():
                for p in points:
                    mac.sums[space][p] += 1
        if mac.forgets:
            if self.operand == "output":
                self.leave(mac, {space: points for space, points in busy.items() if points})
            mac.held.clear()

    def merged(self, parent: Level, keep: int, moved: dict[Index, frozenset[Point]], *, shared: bool) -> int:
        """Accesses of the parent: a point once per parent instance, or per element of an array without multicast."""
        groups: dict[Index, set[Point]] = defaultdict(set)
        for space, points in moved.items():
            groups[self.group(space, keep, shared)] |= points
        return sum(len(points) for points in groups.values())

    def group(self, space: Index, keep: int, shared: bool) -> Index:
        """Indices that tell transfers apart: those of the first `keep` loops, then of arrays without multicast."""
        multicast = {array.name: array.multicast for array in self.accelerator.arrays}
        loops = [self.nest.nodes[place] for place in self.nest.spatial]
        return tuple(
            index if i < keep or not (shared or multicast[loops[i].array]) else -1  # type: ignore[union-attr]
            for i, index in enumerate(space)
        )

    def arrays_between(self, parent: Level, child: Level) -> Iterator[tuple[str, int]]:
        """Arrays that a transfer passes, each with the number of spatial loops down to and including its own."""
        names = [node.name for node in self.accelerator.hierarchy]
        first = names.index(parent.memory) if parent.memory else 0
        last = names.index(child.memory) if child.memory else len(names)
        inside = parent.spaces
        for node in self.accelerator.hierarchy[first:last]:
            if isinstance(node, Array):
                inside += sum(self.nest.nodes[i].array == node.name for i in self.nest.spatial)  # type: ignore[union-attr]
                yield node.name, inside

    def merged_at(self, inside: int, moved: dict[Index, frozenset[Point]]) -> int:
        """Elements that leave the elements of an array upwards, already added up below it."""
        return len({(space[:inside], p) for space, points in moved.items() for p in points})

    def note_down(
        self, parent: Level, child: Level, moved: dict[Index, frozenset[Point]], kind: Kind, *, shared: bool
    ) -> None:
        """Elements that arrive at the elements of each array passed."""
        for array, inside in self.arrays_between(parent, child):
            self.down[array, kind] += self.merged(parent, inside, moved, shared=shared)


def walk_counts(
    layer: Layer, mapping: Mapping, accelerator: Accelerator, conventions: Conventions | None = None
) -> Counts:
    """What `hwsim.nest.counts.count_accesses` must return, by walking."""
    walks = {o: Walk(layer, mapping, accelerator, o, conventions or Conventions()) for o in OPERANDS}
    nest = Nest(layer, mapping)
    times = list(nest.steps())
    spaces = list(itertools.product(*nest.factors(nest.spatial)))
    busy = {space for time in times for space in spaces if nest.inside(nest.at(time, space))}
    macs = sum(nest.inside(nest.at(time, space)) for time in times for space in spaces)
    kinds: tuple[Kind, ...] = ("code", "partial", "final")
    traffic: list[Traffic] = []
    tiles: list[Tile] = []
    deliveries: list[Delivery] = []
    for memory in accelerator.memories:
        for operand, walk in walks.items():
            for kind in kinds:
                key = (memory.name, kind)
                traffic.append(Traffic(memory.name, operand, kind, walk.reads[key], walk.writes[key]))
            tiles += [
                Tile(memory.name, operand, level.largest, level.partial)
                for level in walk.levels
                if level.memory == memory.name
            ]
    for array in accelerator.arrays:
        for operand, walk in walks.items():
            for kind in kinds:
                key = (array.name, kind)
                deliveries.append(Delivery(array.name, operand, kind, walk.down[key], walk.up[key]))
    return Counts(
        traffic=tuple(t for t in traffic if t.reads or t.writes),
        tiles=tuple(tiles),
        deliveries=tuple(d for d in deliveries if d.down or d.up),
        arrays=tuple(array_use(accelerator, nest, array, times) for array in accelerator.arrays),
        instances=tuple((m.name, used_instances(walks, m.name)) for m in accelerator.memories),
        macs=macs,
        steps=len(times),
        iterations=tuple((dim, len(distinct(nest, dim, times))) for dim in DIMS),
        active_macs=len(busy),
        reduction_adds=sum(walk.adds for walk in walks.values()),
    )


def walk_unit_steps(layer: Layer, mapping: Mapping, lanes: tuple[str, ...], products: int) -> int:
    """Steps of a MAC unit that takes up to `products` iterations of the loops `lanes` at once, seen one by one."""
    nest = Nest(layer, mapping)
    others = [place for place, i in enumerate(nest.temporal) if nest.nodes[i].dim not in lanes]  # type: ignore[union-attr]
    room: dict[Index, int] = defaultdict(int)
    steps = 0
    for time in nest.steps():
        key = tuple(time[place] for place in others)
        if not room[key]:
            room[key], steps = products, steps + 1
        room[key] -= 1
    return steps


def distinct(nest: Nest, dim: str, times: list[Index]) -> set[Index]:
    """Settings of the temporal loops of a dim in which some MAC unit has work."""
    mine = [place for place, i in enumerate(nest.temporal) if nest.nodes[i].dim == dim]  # type: ignore[union-attr]
    return {tuple(time[place] for place in mine) for time in times}


def used_instances(walks: dict[Operand, Walk], memory: str) -> int:
    """Instances of a memory in which something was ever held."""
    sizes = [len(level.used) for walk in walks.values() for level in walk.levels if level.memory == memory]
    return max(sizes, default=0)


def moves(nest: Nest, temporal: int, operand: Operand) -> bool:
    """Whether a temporal loop moves an operand's tiles."""
    loop = nest.nodes[nest.temporal[temporal]]
    return isinstance(loop, Temporal) and loop.factor > 1 and loop.dim in MOVES[operand]


def array_use(accelerator: Accelerator, nest: Nest, array: Array, times: list[Index]) -> ArrayUse:
    """Elements used per axis; passes: how many different settings occur of the temporal loops that set a held tile.

    Those are the loops around the memory next inside the array, without the innermost ones that reuse its operand.
    """
    used = {axis.name: 1 for axis in array.axes}
    for i in nest.spatial:
        loop = nest.nodes[i]
        if isinstance(loop, Spatial) and loop.array == array.name:
            used[loop.axis] *= loop.factor
    names = [node.name for node in accelerator.hierarchy]
    deeper = set(names[names.index(array.name) + 1 :])
    inside = names[names.index(array.name) + 1 :][:1]
    holds = [
        (i, o) for i, n in enumerate(nest.nodes) if isinstance(n, Hold) and [n.memory] == inside for o in n.operands
    ]
    found: list[int] = []
    for place, operand in holds:
        around = [t for t, i in enumerate(nest.temporal) if i < place]
        while around and not moves(nest, around[-1], operand):
            around.pop()
        found.append(len({tuple(time[t] for t in around) for time in times}))
    if not found:
        elements = (
            i
            for i, n in enumerate(nest.nodes)
            if (isinstance(n, Spatial) and n.array in {array.name, *deeper})
            or (isinstance(n, Hold) and n.memory in deeper)
        )
        first = next(elements, len(nest.nodes))
        above = sum(i < first for i in nest.temporal)
        found.append(len({time[:above] for time in times}))
    return ArrayUse(array.name, tuple(used.items()), min(found))
