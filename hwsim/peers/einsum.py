"""A tensor operation in loops of any names, as one of our layers: N G K C P Q R S told by membership, never by name.

Two operands are multiplied into one output. A loop in weight and output only is K; in weight and input only C, unless
it shares an index with another loop: then R or S; in input and output N, or P and Q in a shared index; in all three G.
Several of one kind are one loop (heads and batch of an attention). What no layer of ours can say is refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hwsim.machine.parts import Operand
from hwsim.network.layer import Layer, Loops, Tensor
from hwsim.peers.report import TranslationReport
from hwsim.peers.tagged_yaml import Item

Term = tuple[str, int]  # loop, coefficient
MAX_DIMS = 16
MAX_JOINED = 2**32
JOINABLE = ("G", "K", "C", "N")  # several loops of such a role count as their product


@dataclass(frozen=True)
class Space:
    """One operand: its name and its indexes, each a sum of loops with coefficients."""

    name: str
    ranks: tuple[tuple[Term, ...], ...]

    @property
    def dims(self) -> set[str]:
        """Loops that index it."""
        return {dim for rank in self.ranks for dim, _ in rank}

    @property
    def sums(self) -> list[tuple[Term, ...]]:
        """Indexes that add several loops."""
        return [rank for rank in self.ranks if len(rank) > 1]


@dataclass(frozen=True)
class Einsum:
    """Bounds, operands and how each loop and operand is called here."""

    bounds: Mapping[str, int]
    operands: Mapping[str, Operand]  # their name -> ours
    dims: Mapping[str, str]  # their loop -> ours
    stride: tuple[int, int]
    dilation: tuple[int, int]

    @property
    def loops(self) -> Loops:
        """Bounds in our names; loops of one role are one loop."""
        found: dict[str, int] = {}
        for dim, bound in self.bounds.items():
            found[self.dims[dim]] = found.get(self.dims[dim], 1) * bound
        return Loops(**found)

    @property
    def joined(self) -> dict[str, list[str]]:
        """Our loops that stand for several of theirs."""
        mine = {role: [dim for dim, taken in self.dims.items() if taken == role] for role in self.dims.values()}
        return {role: dims for role, dims in mine.items() if len(dims) > 1}

    def note_joined(self, place: str, report: TranslationReport) -> None:
        """Say which loops became one."""
        for role, dims in self.joined.items():
            bound = math.prod(self.bounds[dim] for dim in dims)
            text = (
                f"one loop {role} of {bound:,} here: counts of a mapping are equal, a search may cut it elsewhere, too"
            )
            report.approximated(place, " and ".join(dims), text)

    def layer(self, name: str, bits: Mapping[Operand, int], accumulator_bits: int | None = None) -> Layer:
        """The layer, unpadded: its input has exactly the rows and columns that the loops read."""
        n = self.loops
        rows = (n.P - 1) * self.stride[0] + (n.R - 1) * self.dilation[0] + 1
        columns = (n.Q - 1) * self.stride[1] + (n.S - 1) * self.dilation[1] + 1
        return Layer(
            name=name,
            op="conv",
            inputs=(Tensor(f"{name}.input", (n.N, n.G * n.C, rows, columns), bits["input"]),),
            output=Tensor(f"{name}.output", (n.N, n.G * n.K, n.P, n.Q), bits["output"]),
            weight=Tensor(f"{name}.weight", (n.G * n.K, n.C, n.R, n.S), bits["weight"]),
            loops=n,
            stride=self.stride,
            dilation=self.dilation,
            accumulator_bits=accumulator_bits,
        )


def read_einsum(
    place: Item, bounds: Mapping[str, int], inputs: Sequence[Space], output: Space, weight: str | None = None
) -> Einsum:
    """Roles of operands and loops. `weight` names the weight; without it the operand without sums is it.

    Raises SpecError at `place` for what has no counterpart.
    """
    if len(inputs) != 2:
        raise place.error(f"{len(inputs)} input operands: expected two that are multiplied")
    if len(bounds) > MAX_DIMS:
        raise place.error(f"{len(bounds)} loops: expected at most {MAX_DIMS}")
    for space in (*inputs, output):
        for dim in space.dims - bounds.keys():
            raise place.error(f"operand {space.name}: loop {dim!r} has no size")
        if any(len(rank) > 2 for rank in space.ranks):
            raise place.error(f"operand {space.name}: an index that adds more than two loops has no counterpart")
    if output.sums:
        raise place.error(f"output {output.name}: an index that adds loops has no counterpart")
    first, second = inputs
    if first.sums and second.sums:
        raise place.error(f"operands {first.name} and {second.name} both add loops in an index: no counterpart")
    if weight is not None:
        held = next(space for space in inputs if space.name == weight)
    else:
        held = second if first.sums else first
    data = second if held is first else first
    if held.sums:
        raise place.error(f"operand {held.name}: a weight whose index adds loops has no counterpart")
    roles = Roles(place, held, data, output)
    dims = roles.assign(bounds)
    operands: dict[str, Operand] = {held.name: "weight", data.name: "input", output.name: "output"}
    found = Einsum(bounds, operands, dims, roles.stride, roles.dilation)
    for role, joined in found.joined.items():
        if math.prod(bounds[dim] for dim in joined) > MAX_JOINED:
            raise place.error(f"loops {' and '.join(joined)}: one loop {role} of more than {MAX_JOINED:,}")
    return found


class Roles:
    """Assigns loops to N G K C P Q R S."""

    def __init__(self, place: Item, weight: Space, data: Space, output: Space) -> None:
        self.place, self.weight, self.data, self.output = place, weight, data, output
        self.taken: dict[str, str] = {}
        self.stride, self.dilation = (1, 1), (1, 1)

    def give(self, dim: str, role: str) -> None:
        """Assign one loop."""
        if role in self.taken.values() and role not in JOINABLE:
            other = next(name for name, taken in self.taken.items() if taken == role)
            raise self.place.error(f"loops {other} and {dim} would both be {role}: no counterpart for two of them")
        self.taken[dim] = role

    def assign(self, bounds: Mapping[str, int]) -> dict[str, str]:
        """Every loop's role."""
        self.windows()
        for dim in bounds:
            if dim not in self.taken:
                self.give(dim, self.plain(dim))
        return self.taken

    def windows(self) -> None:
        """Sums of an output row and a filter row: (P, R), then (Q, S), by their own names where these fit."""
        sums = self.data.sums
        axes = [0, 1]
        if len(sums) > 2:
            raise self.place.error(f"operand {self.data.name}: more than two indexes that add loops")
        pairs = [self.pair(rank) for rank in sums]
        if pairs and pairs[0][0][0].upper() in ("Q", "OX", "S"):
            axes = [1, 0]
        for axis, (out, tap) in zip(axes, pairs, strict=False):
            self.give(out[0], "PQ"[axis])
            self.give(tap[0], "RS"[axis])
            self.stride = with_at(self.stride, axis, out[1])
            self.dilation = with_at(self.dilation, axis, tap[1])

    def pair(self, rank: tuple[Term, ...]) -> tuple[Term, Term]:
        """(output term, filter term) of a sum."""
        outs = [term for term in rank if term[0] in self.output.dims]
        taps = [term for term in rank if term[0] in self.weight.dims]
        if len(outs) != 1 or len(taps) != 1 or outs[0] == taps[0]:
            shown = " + ".join(dim for dim, _ in rank)
            raise self.place.error(
                f"operand {self.data.name}: index {shown} is no window: expected one loop of the output and one of "
                "the weight"
            )
        for dim, coefficient in rank:
            if coefficient < 1:
                raise self.place.error(f"operand {self.data.name}: coefficient {coefficient} of {dim}: expected 1 up")
            if sum(dim in [d for d, _ in other] for other in self.data.ranks) > 1:
                raise self.place.error(f"operand {self.data.name}: loop {dim} stands in two indexes: no counterpart")
        return outs[0], taps[0]

    def plain(self, dim: str) -> str:
        """The role of a loop that stands alone in every index."""
        member = (dim in self.weight.dims, dim in self.data.dims, dim in self.output.dims)
        coefficient = next((c for rank in self.data.ranks for d, c in rank if d == dim), 1)
        if coefficient != 1 and member != (False, True, True):
            raise self.place.error(f"loop {dim}: a coefficient of {coefficient} outside a window has no counterpart")
        match member:
            case (True, True, True):
                return "G"
            case (True, False, True):
                return "K"
            case (True, True, False):
                return self.free(("C", "R", "S"), (None, "P", "Q")) or "C"
            case (False, True, True):
                return self.row(dim, coefficient)
            case _:
                where = [s.name for s, m in zip((self.weight, self.data, self.output), member, strict=True) if m]
                raise self.place.error(
                    f"loop {dim} indexes {' and '.join(where) or 'no operand'}: every loop must index two or three"
                )

    def row(self, dim: str, coefficient: int) -> str:
        """N, or an output row or column without a window (1x1), with its stride."""
        wanted = {"N": "N", "B": "N", "P": "P", "Q": "Q", "OY": "P", "OX": "Q"}.get(dim.upper(), "")
        for role in (wanted, "N", "P", "Q"):
            if role and role not in self.taken.values() and (role != "N" or coefficient == 1):
                if role in "PQ":
                    self.stride = with_at(self.stride, "PQ".index(role), coefficient)
                return role
        if coefficient == 1:
            return "N"
        raise self.place.error(f"loop {dim}: more strided rows than we have names for: no counterpart")

    def free(self, roles: Sequence[str], unless: Sequence[str | None]) -> str:
        """The first role that nobody has, whose partner in a window is free, too; empty without one."""
        used = set(self.taken.values())
        for role, partner in zip(roles, unless, strict=True):
            if role not in used and (partner is None or partner not in used):
                return role
        return ""


def with_at(pair: tuple[int, int], axis: int, value: int) -> tuple[int, int]:
    """The pair with one member replaced."""
    return (value, pair[1]) if axis == 0 else (pair[0], value)


def macs(bounds: Mapping[str, int]) -> int:
    """Multiplications of an operation."""
    return math.prod(bounds.values())
