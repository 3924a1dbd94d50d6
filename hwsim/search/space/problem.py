"""One layer on one accelerator as the search sees it: who holds what, and the price of an element that moves.

Every operand has a chain of holders from the outermost memory down to the MAC, some of which it may bypass. A
`Crossing` is one possible neighbouring pair (parent, child) of that chain. Its energy is linear in the visits V_j:
elements that pass level j between child and parent (j counts the arrays inside it), summed over instances and time:
energy = sum_j price_j * V_j + constant. V_j = |operand| * product over irrelevant dims of the blocks they are cut into.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hwsim.machine.parts import OPERANDS, Accelerator, Array, Memory, Operand
from hwsim.machine.ruled_levels import may_not_hold, must_hold
from hwsim.machine.rules import Rules
from hwsim.nest.counts import Counts, Kind
from hwsim.nest.legal import accumulates_only, validate
from hwsim.nest.mapping import Mapping
from hwsim.nest.points import Ints, Rank, operand_ranks, relevant_dims, tile_elements
from hwsim.nest.ruled import broken_rules
from hwsim.network.layer import DIMS, Layer
from hwsim.pricing.layer import LayerCost, operand_tensors, price
from hwsim.pricing.mac import unit_steps
from hwsim.pricing.moves import Direction
from hwsim.pricing.residents import room_taken, taken_at
from hwsim.pricing.unit_prices import UnitPrices, unit_prices
from hwsim.search.objective import objective_value
from hwsim.search.space.homes import NOWHERE, Homes

REDUCTION = ("C", "R", "S")
SPILL = 10.0  # of what all MACs cost at most, for every output once more


@dataclass(frozen=True)
class Crossing:
    """One (parent, child) pair of an operand's chain.

    `segment`, `parent_segment`: arrays inside the child and inside the parent. `prices`: pJ per element at level j of
    segment..parent_segment. For outputs V counts updates; `first_pj` is charged once per output (its first visit needs
    no return, its last may be narrower), `back_pj` is what one return of a partial sum costs, `saved_pj` the returns
    below the child that every further child saves.
    `capacity_bits`: room for the child's tile, in `pool` where it is shared. `bits_per_element`: of a tile that may
    hold partial sums; `finished_bits_per_element`: of one that only finished outputs reach (`legal.holds_partials`).
    """

    operand: Operand
    child: str  # memory name, or "mac"
    parent: str
    segment: int
    parent_segment: int
    prices: tuple[float, ...]
    first_pj: float
    back_pj: float
    saved_pj: float
    capacity_bits: int | None
    bits_per_element: float
    finished_bits_per_element: float
    pool: str

    @property
    def least_bits_per_element(self) -> float:
        """No tile takes fewer, whatever it holds."""
        return min(self.bits_per_element, self.finished_bits_per_element)

    @property
    def key(self) -> tuple[str, str]:
        """(operand, child)."""
        return (self.operand, self.child)


Pairs = dict[tuple[int, int], Crossing]  # (child, parent) by position in `Problem.holders`; child -1 is the MAC


@dataclass(frozen=True)
class Problem:
    """A layer on an accelerator, compiled for searching, its schedule perhaps under rules."""

    layer: Layer
    accelerator: Accelerator
    rules: Rules = field(default=(), kw_only=True)
    fused: tuple[Layer, ...] = field(default=(), kw_only=True)  # operators behind it, which share the vector unit
    homes: Homes = field(default=NOWHERE, kw_only=True)
    cycle_pj: float = field(default=0.0, kw_only=True)  # price of a cycle on top of idle power

    @cached_property
    def home(self) -> Memory | None:
        """The memory in which operands at home lie."""
        return self.accelerator.activation_memory if self.homes != NOWHERE else None

    def worth(self, cost: LayerCost, objective: str) -> float:
        """The objective of a bill, cycles at their price included."""
        more = self.cycle_pj * cost.latency_cycles if objective == "energy" else 0.0
        return objective_value(objective, cost.total_energy_pj, float(cost.latency_cycles)) + more

    def bill(self, counts: Counts) -> LayerCost:
        """What a mapping of these counts costs here."""
        names = operand_tensors(self.layer, weight=True)
        kept: dict[Operand, str] = {operand: names[operand] for operand in self.homes.operands}
        return price(self.layer, counts, self.accelerator, fused=self.fused, resident=kept)

    def refuses(self, mapping: Mapping) -> list[str]:
        """Why a mapping is illegal or which rules it breaks; empty where it may be."""
        return validate(mapping, self.layer, self.accelerator) or [
            str(broken) for broken in broken_rules(mapping, self.layer, self.accelerator, self.rules)
        ]

    def leaves_room(self, counts: Counts) -> bool:
        """Whether operands at home pass through it, and the other tiles fit into what tensors there leave."""
        home, mine = self.home, self.homes.operands
        if home is None:
            return True
        room = self.homes.room_bits
        if not taken_at(home, self.accelerator, counts, mine):
            return False
        return room is None or room_taken(home, self.layer, self.accelerator, counts, mine) <= room

    @cached_property
    def dims(self) -> tuple[str, ...]:
        """Loop names longer than one (at least one)."""
        extents = self.layer.loops.as_dict()
        return tuple(dim for dim in DIMS if extents[dim] > 1) or ("K",)

    @cached_property
    def extents(self) -> tuple[int, ...]:
        """Bounds of `dims`."""
        bounds = self.layer.loops.as_dict()
        return tuple(bounds[dim] for dim in self.dims)

    @cached_property
    def arrays(self) -> tuple[Array, ...]:
        """Arrays, innermost first."""
        return tuple(reversed(self.accelerator.arrays))

    @cached_property
    def ranks(self) -> dict[Operand, tuple[Rank, ...]]:
        """Ranks of every operand."""
        return {operand: operand_ranks(self.layer, operand) for operand in OPERANDS}

    @cached_property
    def reuse_axes(self) -> dict[Operand, tuple[int, ...]]:
        """Per operand the axes (positions in `dims`) of the loops that reuse it."""
        found: dict[Operand, tuple[int, ...]] = {}
        for operand in OPERANDS:
            relevant = relevant_dims(operand)
            found[operand] = tuple(axis for axis, dim in enumerate(self.dims) if dim not in relevant)
        return found

    def irrelevant_axes(self, operand: Operand) -> tuple[int, ...]:
        """Axes of the loops that reuse the operand."""
        return self.reuse_axes[operand]

    @cached_property
    def segments(self) -> dict[str, int]:
        """Arrays inside every memory; 0 for the MAC."""
        found: dict[str, int] = {"mac": 0}
        inside = 0
        for node in reversed(self.accelerator.hierarchy):
            if isinstance(node, Array):
                inside += 1
            else:
                found[node.name] = inside
        return found

    @cached_property
    def holders(self) -> dict[Operand, tuple[Memory, ...]]:
        """Memories that may hold an operand, innermost first; the last is the outermost memory."""
        memories = tuple(reversed(self.accelerator.memories))
        found: dict[Operand, tuple[Memory, ...]] = {
            operand: tuple(m for m in memories if operand in m.keeps and operand not in may_not_hold(self.rules, m))
            for operand in OPERANDS
        }
        for operand in self.sources:  # what lies at home whole has no tile there
            found[operand] = found[operand][: found[operand].index(self.needed_home) + 1]
        return found

    @cached_property
    def sources(self) -> tuple[Operand, ...]:
        """Inputs and weights at home: their chains of holders end there."""
        return tuple(operand for operand in self.homes.operands if operand != "output")

    @property
    def needed_home(self) -> Memory:
        """The home, where there is one."""
        assert self.home is not None
        return self.home

    def leaves_at_home(self, operand: Operand, child: Memory | None) -> bool:
        """Whether the tile in `child` is part of a whole output that stays there."""
        return operand == "output" and operand in self.homes.operands and child is self.home

    def may_bypass(self, memory: Memory, operand: Operand) -> bool:
        """Whether a mapping may leave an operand out of a memory."""
        return operand in memory.bypass and operand not in must_hold(self.rules, memory)

    @cached_property
    def crossings(self) -> dict[Operand, Pairs]:
        """All crossings, priced in energy."""
        return Crossings(self, EnergyRates(self.unit, self.accelerator.outermost)).all

    @cached_property
    def sizes(self) -> dict[Operand, int]:
        """Points of every operand that the layer touches."""
        bounds = self.layer.loops.as_dict()
        return {operand: tile_elements(self.layer, operand, bounds) for operand in OPERANDS}

    def elements(self, operand: Operand) -> int:
        """Points of the operand that the layer touches."""
        return self.sizes[operand]

    def main_chain(self, operand: Operand) -> tuple[Crossing, ...]:
        """The operand's crossings when nothing is bypassed, innermost first."""
        pairs = self.crossings[operand]
        return tuple(pairs[i, i + 1] for i in range(-1, len(self.holders[operand]) - 1))

    @cached_property
    def unit(self) -> UnitPrices:
        """Prices per count of this layer at its bits."""
        found = unit_prices(self.layer, self.accelerator, self.fused, input_stays="input" in self.homes.operands)
        return dataclasses.replace(found, static_pj_per_cycle=found.static_pj_per_cycle + self.cycle_pj)

    def steps(self, iterations: Ints) -> Ints:
        """Steps of a MAC unit for iterations of the loops in time, [..., dim]."""
        return unit_steps(self.dims, list(np.moveaxis(iterations, -1, 0)), self.unit.mac)

    def mac_cycles(self, iterations: Ints) -> NDArray[np.float64]:
        """Whole cycles of the MAC units for iterations of the loops in time, [..., dim]."""
        rate = self.unit.mac.step_cycles
        return (-(-self.steps(iterations) * rate.numerator // rate.denominator)).astype(np.float64)

    def tile_widths(self, operand: Operand, child: Memory) -> tuple[float, float]:
        """Bits per element of a tile in a memory: where it may hold partial sums, and where it does not."""
        widths, name = self.unit.held_bits, child.name
        if operand != "output":
            return widths[name, operand, "code"], widths[name, operand, "code"]
        partial = widths[name, operand, "partial"]
        if accumulates_only(self.accelerator, name):
            return partial, partial
        return partial, 0.0 if self.leaves_at_home(operand, child) else widths[name, operand, "final"]

    def merges(self, operand: Operand, array: int) -> bool:
        """Whether elements shared by children of an array cross it once (multicast down, reduction up)."""
        return self.arrays[array].multicast if operand != "output" else True

    def capacity(self, operand: Operand, child: Memory | None) -> tuple[int | None, str]:
        """Bits the operand's tile may take in the child, and the pool it shares (empty: its own)."""
        if child is None:
            return None, ""
        shares = dict(child.partitions)
        if operand in shares:
            return shares[operand], ""
        shared = [other for other in child.keeps if other not in shares]
        return self.size_of(child), child.name if len(shared) > 1 else ""

    def size_of(self, memory: Memory) -> int | None:
        """Bits that tiles may take in a memory: its size, or what tensors at home leave of it."""
        return self.homes.room_bits if memory is self.home else memory.size_bits

    def latched(self, operand: Operand) -> bool:
        """Whether the MAC keeps the operand's last element."""
        return operand in self.accelerator.mac.latches

    @cached_property
    def window_ranks(self) -> tuple[tuple[Rank, tuple[int, int]], ...]:
        """Input ranks with two active dims, and the positions of those dims."""
        return tuple(
            (rank, (self.dims.index(rank.dims[0]), self.dims.index(rank.dims[1])))
            for rank in self.ranks["input"]
            if len(rank.dims) == 2 and all(dim in self.dims for dim in rank.dims)
        )


@dataclass(frozen=True)
class Ends:
    """The two holders of a crossing; `child` None: the MAC."""

    parent: Memory
    child: Memory | None


class Rates(Protocol):
    """What an element costs where it moves: energy (`EnergyRates`), or the cycles of a regime (`timing.CycleRates`)."""

    def access(self, ends: Ends, memory: Memory, operand: Operand, kind: Kind, direction: Direction) -> float:
        """Of an element that is read from or written to one end of a crossing."""
        ...

    def hop(self, array: Array, operand: Operand, kind: Kind) -> float:
        """Of an element that passes an array."""
        ...

    @property
    def dearest(self) -> float:
        """Of a MAC with all its operands at the outermost memory."""
        ...


@dataclass(frozen=True)
class EnergyRates:
    """pJ per element at a layer's bits."""

    unit: UnitPrices
    outermost: Memory

    def access(self, ends: Ends, memory: Memory, operand: Operand, kind: Kind, direction: Direction) -> float:
        """The same in every crossing."""
        return self.unit.traffic_pj[memory.name, operand, kind, direction]

    def hop(self, array: Array, operand: Operand, kind: Kind) -> float:
        """Of the wires of an array."""
        return self.unit.hop_pj[array.name, operand, kind]

    @property
    def dearest(self) -> float:
        """With the idle power of a cycle."""
        outer = self.outermost.name
        moved = (self.unit.traffic_pj[outer, o, "partial" if o == "output" else "code", "read"] for o in OPERANDS)
        return self.unit.mac_pj + sum(moved) + self.unit.static_pj_per_cycle


@dataclass(frozen=True)
class Crossings:
    """The crossings of a problem at some rates."""

    problem: Problem
    rates: Rates

    @cached_property
    def all(self) -> dict[Operand, Pairs]:
        """Per operand every possible pair."""
        return {operand: self.pairs(operand, len(holders)) for operand, holders in self.problem.holders.items()}

    def pairs(self, operand: Operand, count: int) -> Pairs:
        """Crossings among the innermost `count` holders; all memories between the two must be ones it may bypass."""
        problem, holders = self.problem, self.problem.holders[operand]
        found: Pairs = {}
        for child in range(-1, count - 1):
            for parent in range(child + 1, count):
                key = (operand, child, parent)
                if key not in self.priced:
                    ends = Ends(holders[parent], holders[child] if child >= 0 else None)
                    self.priced[key] = self.price(operand, ends)
                found[child, parent] = self.priced[key]
                stays = operand in problem.homes.operands and holders[parent] is problem.home
                if stays or not problem.may_bypass(holders[parent], operand):
                    break
        return found

    @cached_property
    def priced(self) -> dict[tuple[Operand, int, int], Crossing]:
        """Cache of `pairs`."""
        return {}

    def price(self, operand: Operand, ends: Ends) -> Crossing:
        """The crossing between two holders, with its prices per element at every level between them."""
        problem, parent, child = self.problem, ends.parent, ends.child
        inner = 0 if child is None else problem.segments[child.name]
        outer = problem.segments[parent.name]
        # level[j]: the level whose V counts what passes array inner + j once multicast or reduction merged it
        level = [0]
        for j in range(inner, outer):
            level.append(j - inner + 1 if problem.merges(operand, j) else level[-1])
        kind: Kind = "partial" if operand == "output" else "code"
        prices = [0.0] * (outer - inner + 1)
        arrays = problem.arrays[inner:outer]
        for j, array in enumerate(arrays):
            prices[level[j]] += self.rates.hop(array, operand, kind)
        first = back = saved = 0.0
        if operand == "output":
            first, back, saved = self.output_prices(ends, prices, arrays)
        else:
            prices[level[-1]] += self.rates.access(ends, parent, operand, kind, "read")
            if child is not None:
                prices[0] += self.rates.access(ends, child, operand, kind, "write")
        capacity, pool = problem.capacity(operand, child)
        bits, finished = (0.0, 0.0) if child is None else problem.tile_widths(operand, child)
        name = "mac" if child is None else child.name
        return Crossing(
            operand, name, parent.name, inner, outer, tuple(prices), first, back, saved, capacity, bits, finished, pool
        )

    def output_prices(self, ends: Ends, prices: list[float], arrays: tuple[Array, ...]) -> tuple[float, float, float]:
        """Adds drains, updates and returns to `prices`; (pJ per output, pJ per return, returns saved).

        Updates cost a write and a return, less the returns of first visits. A point is visited for the first time once
        in the outermost memory, and again in every further child among which a crossing further out divides it: that
        crossing saves the returns of all crossings inside its child (`saved_returns`).
        """
        parent, child, machine = ends.parent, ends.child, self.problem.accelerator

        def hops(kind: Kind) -> float:
            return sum(self.rates.hop(array, "output", kind) for array in arrays)

        def access(memory: Memory, kind: Kind, direction: Direction) -> float:
            return self.rates.access(ends, memory, "output", kind, direction)

        if self.problem.leaves_at_home("output", child):
            prices[:] = [0.0] * (len(prices) - 1) + [self.spill]
            return hops("final") - self.spill, self.spill, 0.0
        back = hops("partial") + access(parent, "partial", "read")
        write = access(parent, "partial", "write")
        drain = saved = 0.0
        if child is not None:
            drain = access(child, "partial", "read")
            back += access(child, "partial", "write")
            saved = self.saved_returns(child)
        prices[0] += drain - saved
        prices[-1] += write + back + saved
        first = -back
        if not accumulates_only(machine, parent.name):
            first -= write - access(parent, "final", "write")
            if child is not None and not accumulates_only(machine, child.name):
                first -= sum(
                    self.rates.hop(array, "output", "partial") - self.rates.hop(array, "output", "final")
                    for array in arrays
                )
                first -= drain - access(child, "final", "read")
        return first, back, saved

    @cached_property
    def spill(self) -> float:
        """Price of every visit of an output at home after its first: so high that paths without are cheaper.

        An output that stays must not leave unfinished. Pricing that (what is charged beyond one visit per output) is a
        relaxation: bounds stay sound, and a path that spills is refused when its nest is priced.
        """
        return SPILL * self.problem.layer.macs * self.rates.dearest / self.problem.elements("output")

    def saved_returns(self, child: Memory) -> float:
        """pJ of one return through all crossings below `child`; the largest over the choices of bypassed memories."""
        place = next(i for i, memory in enumerate(self.problem.holders["output"]) if memory is child)
        most = {-1: 0.0}
        for (inner, parent), crossing in sorted(self.pairs("output", place + 1).items()):
            value = most[inner] + crossing.back_pj
            most[parent] = max(most.get(parent, value), value)
        return most[place]
