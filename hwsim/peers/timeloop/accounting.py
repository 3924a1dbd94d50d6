"""A mapping as Timeloop accounts for it: its accesses, energy and cycles, from our counts under its conventions.

Its rules, each different from ours and named: a sum that goes up is no read of the child; a returning sum goes to every
child; only identical tiles share a read; an input tile is a bounding box, and what it keeps when it moves depends on
the move before (`box_fills`); accesses are whole vectors per instance and operand; the MAC's leakage is not charged.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from hwsim.machine.parts import OPERANDS, Accelerator, Array, Operand
from hwsim.nest.count import count_accesses
from hwsim.nest.counts import Conventions, Counts
from hwsim.nest.mapping import Mapping as Nest
from hwsim.nest.mapping import Spatial, Temporal
from hwsim.nest.points import operand_ranks, relevant_dims
from hwsim.network.layer import Layer
from hwsim.peers.accelergy import Prices

COUNTED = Conventions(drain_reads=False, broadcast_partials=True)


@dataclass(frozen=True)
class Rules:
    """Choices on which Timeloop differs from exact counts; `boxes` off counts the real points of inputs.

    `fresh_fills`: a sum that is begun counts as a fill (as in the versions before its elision of first reads).
    """

    boxes: bool = True
    fresh_fills: bool = False


@dataclass(frozen=True)
class Access:
    """Elements of one operand at one level, over all instances: read, filled from above, updated from below."""

    memory: str
    operand: Operand
    reads: int
    fills: int
    updates: int
    instances: int
    tile: int

    @property
    def scalars(self) -> int:
        """Reads, fills and updates together."""
        return self.reads + self.fills + self.updates


@dataclass(frozen=True)
class Level:
    """Prices of one level: elements per vector access, pJ per vector, words per cycle and instance."""

    block: int
    read_pj: float
    write_pj: float
    update_pj: float
    leak_pj: float
    read_words: float | None = None
    write_words: float | None = None


@dataclass(frozen=True)
class Account:
    """What Timeloop would print."""

    accesses: tuple[Access, ...]
    cycles: int
    energy_pj: Mapping[str, float]  # by level, and `mac`
    utilization: float

    @property
    def total_pj(self) -> float:
        """Sum over levels and MACs."""
        return sum(self.energy_pj.values())

    def scalars(self, memory: str) -> int:
        """Accesses of a level over all operands."""
        return sum(access.scalars for access in self.accesses if access.memory == memory)


def accesses(layer: Layer, nest: Nest, machine: Accelerator, rules: Rules | None = None) -> list[Access]:
    """Accesses by memory and operand. Equal to Timeloop's wherever factors divide; see docs/coming_from.md."""
    rules = rules or Rules()
    counts = count_accesses(layer, nest, machine, COUNTED)
    drained = count_accesses(layer, nest, machine, dataclasses.replace(COUNTED, drain_reads=True))
    instances = dict(counts.instances)
    found: list[Access] = []
    for operand in OPERANDS:
        chain = [m.name for m in machine.memories if nest.hold_index(m.name, operand) is not None]
        tiles = {tile.memory: tile.elements for tile in counts.tiles if tile.operand == operand}
        fills = fills_of(layer, nest, machine, counts, operand, chain, rules)
        for memory, child in pairwise([*chain, ""]):
            reads, writes = counts.reads(memory, operand), counts.writes(memory, operand)
            filled = updated = 0
            if operand == "output":
                returned = fills[memory]
                updated = writes - returned
                entered = drained.reads(memory, operand) - reads
                filled = entered if rules.fresh_fills else returned
            else:
                filled = fills[memory]
                if operand == "input" and child:
                    reads = fills[child] // identical(nest, machine, memory, child, operand)
            tile = tiles[memory]
            found.append(Access(memory, operand, reads, filled, updated, instances[memory], tile))
    return found


def fills_of(
    layer: Layer,
    nest: Nest,
    machine: Accelerator,
    counts: Counts,
    operand: Operand,
    chain: Sequence[str],
    rules: Rules,
) -> dict[str, int]:
    """Elements that enter each memory of an operand's chain from above, over all instances."""
    found = {chain[0]: 0}
    for parent, child in pairwise(chain):
        if operand == "output":
            inner = arrays_between(machine, parent, child)
            down = {d.array: 0 for d in counts.deliveries}
            for delivery in counts.deliveries:
                if delivery.operand == "output":
                    down[delivery.array] += delivery.down
            found[child] = down.get(inner[-1], 0) if inner else counts.reads(parent, "output")
        elif operand == "input" and rules.boxes and divides(layer, nest):
            place = nest.hold_index(child, operand) or 0
            copies = math.prod(n.factor for n in nest.nodes[:place] if isinstance(n, Spatial))
            found[child] = copies * box_fills(layer, nest, place)
        else:
            found[child] = counts.writes(child, operand)
    return found


def arrays_between(machine: Accelerator, parent: str, child: str) -> list[str]:
    """Arrays from one memory down to another, outermost first."""
    names = [node.name for node in machine.hierarchy]
    inside = machine.hierarchy[names.index(parent) : names.index(child) if child else None]
    return [node.name for node in inside if isinstance(node, Array)]


def identical(nest: Nest, machine: Accelerator, parent: str, child: str, operand: Operand) -> int:
    """Children with one and the same tile: unrolled loops between two memories that do not index the operand."""
    between = arrays_between(machine, parent, child)
    loops = [n for n in nest.nodes if isinstance(n, Spatial) and n.array in between]
    return math.prod(n.factor for n in loops if n.dim not in relevant_dims(operand))


def divides(layer: Layer, nest: Nest) -> bool:
    """Whether the factors of every loop multiply to its bound."""
    return all(nest.tile(0)[dim] == bound for dim, bound in layer.loops.as_dict().items())


def box_fills(layer: Layer, nest: Nest, place: int) -> int:
    """Elements that enter one instance's input box at a place of the nest.

    The box keeps the vector of its last move. Where a loop does not move it, nothing happens. A move costs what is new
    if no vector is kept or the same one, and is kept; another move costs the whole box and leaves no vector. New: where
    one index alone moved by less than the box is wide, the strip; else the whole box.
    """
    ranks = operand_ranks(layer, "input")
    tile = nest.tile(place)
    extents = tuple(1 + sum(c * (tile[dim] - 1) for dim, c in rank.terms) for rank in ranks)
    volume = math.prod(extents)
    loops = [
        (node, step)
        for node, step in zip(nest.nodes[:place], nest.steps()[:place], strict=True)
        if isinstance(node, Temporal) and node.factor > 1
    ]
    unit = [
        tuple(next((c * step for dim, c in rank.terms if dim == node.dim), 0) for rank in ranks) for node, step in loops
    ]
    moves: list[tuple[int, ...]] = []
    for index, vector in enumerate(unit):
        back = [0] * len(ranks)
        for (inner, _), inner_vector in zip(loops[index + 1 :], unit[index + 1 :], strict=True):
            back = [b + (inner.factor - 1) * v for b, v in zip(back, inner_vector, strict=True)]
        moves.append(tuple(v - b for v, b in zip(vector, back, strict=True)))
    known: dict[tuple[int, tuple[int, ...] | None], tuple[int, tuple[int, ...] | None]] = {}

    def cost(move: tuple[int, ...], kept: tuple[int, ...] | None) -> tuple[int, tuple[int, ...] | None]:
        if not any(move):
            return 0, kept
        if kept is not None and kept != move:
            return volume, None
        moved = [(abs(m), extent) for m, extent in zip(move, extents, strict=True) if m]
        if len(moved) == 1 and moved[0][0] < moved[0][1]:
            return volume // moved[0][1] * moved[0][0], move
        return volume, move

    def run(level: int, kept: tuple[int, ...] | None) -> tuple[int, tuple[int, ...] | None]:
        if level == len(loops):
            return 0, kept
        if (level, kept) not in known:
            total, state = run(level + 1, kept)
            for _ in range(loops[level][0].factor - 1):
                step, state = cost(moves[level], state)
                inside, state = run(level + 1, state)
                total += step + inside
            known[level, kept] = total, state
        return known[level, kept]

    return volume + run(0, None)[0]


def account(
    layer: Layer,
    nest: Nest,
    machine: Accelerator,
    levels: Mapping[str, Level],
    compute_pj: float,
    rules: Rules | None = None,
) -> Account:
    """Accesses, energy by level and cycles.

    Energy of a level = instances * sum over operands of ceil(count / block) * pJ per vector, plus leakage of the
    instances in use. Cycles = steps, stretched by the level whose ports are the slowest on average.
    """
    found = accesses(layer, nest, machine, rules)
    counts = count_accesses(layer, nest, machine, COUNTED)
    slow, energy = 1.0, dict[str, float]()
    for name, level in levels.items():
        mine = [access for access in found if access.memory == name]
        energy[name] = sum(
            a.instances * (vectors(a.reads, a, level) * level.read_pj + vectors(a.fills, a, level) * level.write_pj
                           + vectors(a.updates, a, level) * level.update_pj)
            for a in mine
        )  # fmt: skip
        per_cycle = max((a.instances for a in mine), default=1) * counts.steps
        for words, limit in (
            (sum(a.reads for a in mine), level.read_words),
            (sum(a.fills + a.updates for a in mine), level.write_words),
        ):
            if limit:
                slow = max(slow, words / per_cycle / limit)
    cycles = math.ceil(counts.steps * slow)
    for name, level in levels.items():
        used = max((a.instances for a in found if a.memory == name), default=0)
        energy[name] += level.leak_pj * cycles * used
    energy["mac"] = compute_pj * counts.macs
    return Account(tuple(found), cycles, energy, counts.macs / (machine.mac_units * cycles))


def vectors(count: int, access: Access, level: Level) -> int:
    """Vector accesses of one instance."""
    return math.ceil(count / access.instances / level.block)


def levels_of(
    machine: Accelerator, blocks: Mapping[str, int], prices: Prices, names: Mapping[str, str]
) -> dict[str, Level]:
    """Prices of every memory; `names`: ours -> theirs, `blocks`: elements per vector access."""
    found: dict[str, Level] = {}
    for memory in machine.memories:
        table = prices.of(names[memory.name])
        block = blocks[memory.name]
        width = memory.word_bits / block
        read = memory.read_bandwidth_bits_per_cycle
        write = memory.write_bandwidth_bits_per_cycle
        found[memory.name] = Level(
            block,
            table.get("read", memory.read_energy_pj),
            table.get("write", memory.write_energy_pj),
            table.get("update", table.get("write", memory.write_energy_pj)),
            table.get("leak", 0.0),
            read / width if read and not memory.shared_port else None,
            write / width if write else None,
        )
    return found
