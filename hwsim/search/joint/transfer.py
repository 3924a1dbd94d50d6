"""What a layer's bound for some operands at home says of the same layer with others there.

Let f(h, r) be the least cost with operands h at home and room r beside them, x an operand, |x| the cost of moving x
once between its home and the outermost memory. A nest for one side is legal on the other, so

    f(h, r) >= f(h without x, r + size of x) - |x|      an input's tile at home grows to all of it, an output is drained
    f(h, r) >= f(h and x, r) + |x|                      an input leaves its tile at home and is fetched no more

where r + size of x is at most the home's size. Outputs have no second rule: beside its home an output's unfinished sums
take room of their own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property

from hwsim.machine.packing import shared_words
from hwsim.machine.parts import Memory, Operand
from hwsim.nest.counts import Kind
from hwsim.pricing.moves import Direction, operand_bits, side_bits
from hwsim.pricing.offsets import offset_cost
from hwsim.pricing.rounding import bill_grid
from hwsim.pricing.shares import moved_shares
from hwsim.search.objective import Objective
from hwsim.search.space.problem import Problem
from hwsim.search.space.timing import Timing

ROUNDINGS = 4  # whole cycles that ports and refills may add


@dataclass
class Transfers:
    """Bounds of one kind of layer under one objective: what was proven for some operands, asked for others."""

    problem: Problem  # without homes
    objective: Objective
    known: list[tuple[frozenset[str], float, float]] = field(default_factory=list[tuple[frozenset[str], float, float]])

    def learn(self, operands: Iterable[Operand], room: float, bound: float) -> None:
        """No mapping with these operands at home costs less than the bound, in this room or a smaller one."""
        if self.home is not None and math.isfinite(bound):
            self.known.append((frozenset(operands), room, bound))

    def bound(self, operands: Iterable[Operand], room: float) -> float:
        """What is known so of operands at home in a room; infinite: all of the home."""
        wanted, size = frozenset(operands), self.size_bits
        best = 0.0
        for theirs, most, bound in self.known:
            changes = [self.change(o, wanted) for o in sorted(wanted ^ theirs)]
            needed = min(room, size) + sum(bits for bits, _ in changes)
            if needed <= min(most, size):
                best = max(best, bound + sum(cost for _, cost in changes))
        return best

    @cached_property
    def home(self) -> Memory | None:
        """The memory in which operands lie."""
        home = self.problem.accelerator.activation_memory
        return home if home is not None and home.size_bits is not None and not home.partitions else None

    @property
    def size_bits(self) -> float:
        """Its size."""
        return math.inf if self.home is None or self.home.size_bits is None else float(self.home.size_bits)

    def change(self, operand: str, wanted: frozenset[str]) -> tuple[float, float]:
        """(room that the other side needs more, what must be added to its bound); infinite room: nothing is known."""
        return self.changes[operand, operand in wanted]

    @cached_property
    def changes(self) -> dict[tuple[str, bool], tuple[float, float]]:
        """`change` by operand and whether it is at home where a bound is wanted."""
        found: dict[tuple[str, bool], tuple[float, float]] = {}
        border = offset_cost(self.problem.layer, self.problem.accelerator.capabilities).border_codes
        operands: tuple[Operand, ...] = ("weight", "input", "output")
        for operand in operands:
            fixed = operand == "input" and border  # a border's codes lie where the input lies
            found[operand, True] = (math.inf, 0.0) if fixed else (self.tile_bits(operand), -self.most(operand))
            held = operand != "output" and self.home is not None and operand not in self.home.bypass and not fixed
            found[operand, False] = (0.0, self.least(operand)) if held else (math.inf, 0.0)
        return found

    # --- one operand, moved whole -------------------------------------------------------------------------------------

    @cached_property
    def outer(self) -> Memory:
        """The outermost memory."""
        return self.problem.accelerator.outermost

    def tile_bits(self, operand: Operand) -> float:
        """Bits of all points that the layer touches, at home."""
        home = self.at_home
        return float(self.moved_words(operand, home, Fraction(1)) * home.word_bits)

    @property
    def at_home(self) -> Memory:
        """The home, where there is one."""
        assert self.home is not None
        return self.home

    def moved_words(self, operand: Operand, memory: Memory, share: Fraction) -> int:
        """Words of a share of all points, scales included."""
        layer, kind = self.problem.layer, kind_of(operand)
        count = self.problem.elements(operand)
        bits = operand_bits(layer, self.problem.accelerator, operand, kind)
        side = math.ceil(count * side_bits(layer, operand, kind))
        return shared_words(count, bits, memory.word_bits, memory.packing, share) - -side // memory.word_bits

    def passed_words(self, operand: Operand, memory: Memory, way: Direction) -> int:
        """Words of all points that pass a port."""
        layer, machine, kind = self.problem.layer, self.problem.accelerator, kind_of(operand)
        shares = moved_shares(layer, machine, memory, operand, kind, operand_bits(layer, machine, operand, kind))
        return self.moved_words(operand, memory, shares[way == "write"])

    def sides(self, operand: Operand) -> tuple[tuple[Memory, Direction], tuple[Memory, Direction]]:
        """What a whole operand passes: the outermost memory's port and the home's."""
        if operand == "output":
            return (self.outer, "write"), (self.at_home, "read")
        return (self.outer, "read"), (self.at_home, "write")

    def energy_pj(self, operand: Operand) -> float:
        """Of moving it once."""
        found = 0.0
        for memory, way in self.sides(operand):
            each = memory.read_energy_pj if way == "read" else memory.write_energy_pj
            found += self.passed_words(operand, memory, way) * each
        return found

    def least(self, operand: Operand) -> float:
        """What moving it once costs at least: time may hide."""
        return self.energy_pj(operand) - bill_grid(self.problem.accelerator) if self.objective == "energy" else 0.0

    def most(self, operand: Operand) -> float:
        """What moving it once costs at most: all its time on top."""
        cycles = self.cycles(operand)
        if self.objective == "latency":
            return cycles
        energy = self.energy_pj(operand) + bill_grid(self.problem.accelerator)
        return energy + self.problem.unit.static_pj_per_cycle * cycles

    def cycles(self, operand: Operand) -> float:
        """Of moving it once over both ports, one after the other."""
        timing = Timing(self.problem)
        found = float(ROUNDINGS)
        for memory, way in self.sides(operand):
            limit = timing.bandwidths.get(timing.port(memory.name, way))
            if limit is not None:
                found += self.passed_words(operand, memory, way) * memory.word_bits / limit
        return found


def kind_of(operand: Operand) -> Kind:
    """Of an operand's finished elements."""
    return "final" if operand == "output" else "code"
