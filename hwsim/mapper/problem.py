"""One layer on one accelerator as the search sees it: who holds what, and the price of an element that moves.

Every operand has a chain of holders from the outermost memory down to the MAC, some of which it may bypass. A
`Crossing` is one possible neighbouring pair (parent, child) of that chain. Its energy is linear in the visits V_j: elements that
pass level j between child and parent (j counts the arrays inside it), summed over instances and time:
energy = sum_j price_j * V_j + constant. V_j = |operand| * product over irrelevant dims of the blocks they are cut into.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hwsim.counts import Kind
from hwsim.machine import OPERANDS, Accelerator, Array, Memory, Operand
from hwsim.mapping import Rank, accumulates_only, operand_ranks, relevant_dims
from hwsim.moves import Direction
from hwsim.unit_prices import UnitPrices, unit_prices
from hwsim.workload import DIMS, Layer

REDUCTION = ("C", "R", "S")


@dataclass(frozen=True)
class Crossing:
    """One (parent, child) pair of an operand's chain.

    `segment`, `parent_segment`: arrays inside the child and inside the parent. `prices`: pJ per element at level j of
    segment..parent_segment. For outputs V counts updates; `first_pj` is charged per point that arrives for the first
    time (its read and return are elided, and where the parent receives finished outputs they are narrower).
    `capacity`: elements of the child's tile, `pool`: (memory, bits per element, capacity in bits) where it is shared.
    """

    operand: Operand
    child: str  # memory name, or "mac"
    parent: str
    segment: int
    parent_segment: int
    prices: tuple[float, ...]
    first_pj: float
    capacity_bits: int | None
    bits_per_element: float
    pool: str

    @property
    def key(self) -> tuple[str, str]:
        """(operand, child)."""
        return (self.operand, self.child)


@dataclass(frozen=True)
class Problem:
    """A layer on an accelerator, compiled for searching."""

    layer: Layer
    accelerator: Accelerator

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

    def irrelevant_axes(self, operand: Operand) -> tuple[int, ...]:
        """Axes (positions in `dims`) of the loops that reuse the operand."""
        relevant = relevant_dims(operand)
        return tuple(axis for axis, dim in enumerate(self.dims) if dim not in relevant)

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
        return {operand: tuple(m for m in memories if operand in m.keeps) for operand in OPERANDS}

    @cached_property
    def crossings(self) -> dict[Operand, dict[tuple[int, int], Crossing]]:
        """Per operand every possible (child, parent) by position in `holders`; child -1 is the MAC.

        All memories between the two must be ones that the operand may bypass.
        """
        found: dict[Operand, dict[tuple[int, int], Crossing]] = {}
        for operand, holders in self.holders.items():
            pairs: dict[tuple[int, int], Crossing] = {}
            for child in range(-1, len(holders) - 1):
                for parent in range(child + 1, len(holders)):
                    pairs[child, parent] = self.price(operand, holders[parent], holders[child] if child >= 0 else None)
                    if operand not in holders[parent].bypass:
                        break
            found[operand] = pairs
        return found

    def main_chain(self, operand: Operand) -> tuple[Crossing, ...]:
        """The operand's crossings when nothing is bypassed, innermost first."""
        pairs = self.crossings[operand]
        return tuple(pairs[i, i + 1] for i in range(-1, len(self.holders[operand]) - 1))

    @cached_property
    def known_successors(self) -> dict[Any, Any]:
        """Cache of `chains.successors`."""
        return {}

    @cached_property
    def unit(self) -> UnitPrices:
        """Prices per count of this layer at its bits."""
        return unit_prices(self.layer, self.accelerator)

    def access(self, memory: Memory, operand: Operand, kind: Kind, direction: Direction) -> float:
        """pJ per element read from or written to a memory."""
        return self.unit.traffic_pj[memory.name, operand, kind, direction]

    def hop(self, array: int, operand: Operand, kind: Kind) -> float:
        """pJ per element that passes an array (innermost is 0)."""
        return self.unit.hop_pj[self.arrays[array].name, operand, kind]

    def price(self, operand: Operand, parent: Memory, child: Memory | None) -> Crossing:
        """Prices per element at every level between child and parent."""
        inner = 0 if child is None else self.segments[child.name]
        outer = self.segments[parent.name]
        prices = [0.0] * (outer - inner + 1)
        merged = [self.merges(operand, j) for j in range(inner, outer)]
        # level[j]: the level whose V counts what arrives above array j once multicast or reduction merged it
        level = [0]
        for j in range(inner, outer):
            level.append(j - inner + 1 if merged[j - inner] else level[-1])
        kind: Kind = "partial" if operand == "output" else "code"
        hops = [self.hop(j, operand, kind) for j in range(inner, outer)]
        first = 0.0
        if operand != "output":
            if child is not None:
                prices[0] += self.access(child, operand, kind, "write")
            for j, hop in enumerate(hops):
                prices[level[j]] += hop
            prices[level[-1]] += self.access(parent, operand, kind, "read")
        else:
            back = sum(hops) + self.access(parent, operand, kind, "read")
            drain = 0.0
            if child is not None:
                drain = self.access(child, operand, kind, "read")
                back += self.access(child, operand, kind, "write")
            prices[0] += drain
            for j, hop in enumerate(hops):
                prices[level[j]] += hop
            write = self.access(parent, operand, kind, "write")
            prices[level[-1]] += write + back
            first -= back
            if not accumulates_only(self.accelerator, parent.name):
                first -= write - self.access(parent, operand, "final", "write")
                first -= sum(hops) - sum(self.hop(j, operand, "final") for j in range(inner, outer))
                if child is not None:
                    first -= drain - self.access(child, operand, "final", "read")
        capacity, pool = self.capacity(operand, child)
        bits = 0.0 if child is None else self.unit.port_bits[child.name, operand, kind, "write"]
        name = "mac" if child is None else child.name
        return Crossing(operand, name, parent.name, inner, outer, tuple(prices), first, capacity, bits, pool)

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
        return child.size_bits, child.name if len(shared) > 1 else ""

    def latched(self, operand: Operand) -> bool:
        """Whether the MAC keeps the operand's last element."""
        return operand in self.accelerator.mac.latches
