"""The counts of counts.py for many candidates at once: one nest, arrays of perfect factors.

A template fixes the order of holds and loops; every candidate gives each of its loops a factor (1 leaves it out). The
formulas are those of counts.py, on int64 arrays; only ranks of two variables (input rows and columns) are looked up,
once per distinct set of factors. Imperfect factors go through `counts.count_accesses`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwsim.errors import InfeasibleMapping
from hwsim.machine.parts import OPERANDS, Accelerator, Operand
from hwsim.nest.counts import Conventions
from hwsim.nest.mapping import Hold, Mapping, Spatial
from hwsim.nest.points import REDUCTION_DIMS, ranks_of
from hwsim.nest.reuse import Amount, Line, Profile, Role, Side, crossing, even_profile
from hwsim.nest.tally import Key, Profiles, dims_of_ranks, product, tally_accesses
from hwsim.network.layer import DIMS, Layer

Array64 = NDArray[np.int64]


@dataclass(frozen=True)
class BatchCounts:
    """Counts of n candidates, every entry an int64 array of length n; keys as in `counts.Counts`.

    `tiles`: elements by (memory, operand); `partial`: where a memory's output tile may hold unfinished sums.
    """

    reads: dict[Key, Array64]
    writes: dict[Key, Array64]
    down: dict[Key, Array64]
    up: dict[Key, Array64]
    tiles: dict[tuple[str, Operand], Array64]
    partial: dict[str, NDArray[np.bool_]]
    steps: Array64
    active_macs: Array64
    reduction_adds: Array64


def count_batch(
    layer: Layer,
    template: Mapping,
    factors: Array64,
    accelerator: Accelerator,
    conventions: Conventions | None = None,
) -> BatchCounts:
    """Counts of all candidates; factors: (n, number of loops in `template`), in the template's order.

    Every row must be perfect: per dim the product of its factors is the layer's bound. Raises InfeasibleMapping
    naming the first row that is not. The factors in `template` itself are not used.
    """
    nest = BatchNest(layer, template, np.asarray(factors, dtype=np.int64))
    tally = tally_accesses(nest, template, accelerator, conventions or Conventions())
    tiles: dict[tuple[str, Operand], Array64] = {}
    for memory in accelerator.memories:
        for operand in OPERANDS:
            place = template.hold_index(memory.name, operand)
            if place is not None:
                tiles[memory.name, operand] = nest.full(nest.tile_points(operand, place))
    partial_writes = {memory: nest.full(tally.writes.get((memory, "output", "partial"), 0)) for memory, _ in tiles}
    return BatchCounts(
        reads={key: nest.full(amount) for key, amount in tally.reads.items()},
        writes={key: nest.full(amount) for key, amount in tally.writes.items()},
        down={key: nest.full(amount) for key, amount in tally.down.items()},
        up={key: nest.full(amount) for key, amount in tally.up.items()},
        tiles=tiles,
        partial={memory: writes > 0 for memory, writes in partial_writes.items()},
        steps=nest.full(product(loop.factor for loop in nest.loops if not loop.array)),
        active_macs=nest.full(product(loop.factor for loop in nest.loops if loop.array)),
        reduction_adds=nest.full(tally.reduction_adds),
    )


@dataclass(frozen=True)
class BatchLoop:
    """A loop of the template with its place among the nodes and one factor per candidate."""

    place: int
    dim: str
    array: str  # empty: temporal
    factor: Array64


class BatchNest:
    """The template's loops for counting, see `counts.Loops`."""

    def __init__(self, layer: Layer, template: Mapping, factors: Array64) -> None:
        if factors.ndim != 2 or factors.shape[1] != len(template.loops) or not factors.size or (factors < 1).any():
            wanted = f"(candidates, {len(template.loops)}) positive factors"
            raise InfeasibleMapping(f"layer {layer.name}: expected {wanted}, got an array of shape {factors.shape}")
        self.layer = layer
        self.bounds: dict[str, int] = layer.loops.as_dict()
        self.candidates = len(factors)
        places = [place for place, node in enumerate(template.nodes) if not isinstance(node, Hold)]
        self.loops = [
            BatchLoop(place, node.dim, node.array if isinstance(node, Spatial) else "", factors[:, column])
            for column, (place, node) in enumerate(zip(places, template.loops, strict=True))
        ]
        for dim in DIMS:
            wrong = np.flatnonzero(self.full(self.tile(dim, 0)) != self.bounds[dim])
            if len(wrong):
                raise InfeasibleMapping(
                    f"layer {layer.name}: candidate {wrong[0]}: the factors of {dim} must multiply to "
                    f"{self.bounds[dim]}; imperfect ones are counted one by one by count_accesses"
                )

    def full(self, amount: Amount) -> Array64:
        """An entry per candidate, also of what is the same for all."""
        return np.broadcast_to(np.asarray(amount, dtype=np.int64), (self.candidates,))

    def time_dims(self, place: int) -> list[str]:
        """Dims of the temporal loops outside a place, outermost first."""
        return [loop.dim for loop in self.loops if loop.place < place and not loop.array and self.bounds[loop.dim] > 1]

    def tile(self, dim: str, place: int) -> Amount:
        """Extents of a dim inside a place."""
        return product(loop.factor for loop in self.loops if loop.dim == dim and loop.place >= place)

    def profiles(self, operand: Operand, place: int, apart: frozenset[str], gates: Sequence[int]) -> Profiles:
        """Reuse of the tiles at `place` by rank; perfect factors need no gates."""
        found: Profiles = []
        long = frozenset(dim for dim, bound in self.bounds.items() if bound > 1)
        for dims, coefficients, indexes in dims_of_ranks(operand, self.layer.stride, self.layer.dilation, long):
            above = [loop for loop in self.loops if loop.place < place and loop.dim in dims]
            if len(dims) == 2:
                found.append((dims, self.crossings(dims, coefficients, above, apart)))
                continue
            times = [loop.factor for loop in above if not loop.array]
            space = product(loop.factor for loop in above if loop.array and (indexes or loop.array in apart))
            block = self.tile(dims[0], place) * space if indexes else space
            found.append((dims, even_profile(block, times, indexes)))
        return found

    def crossings(
        self, dims: tuple[str, ...], coefficients: tuple[int, ...], above: list[BatchLoop], apart: frozenset[str]
    ) -> Profile:
        """`reuse.crossing` once per distinct row of factors, spread over the candidates."""
        roles: list[Role] = ["time" if not l.array else "apart" if l.array in apart else "united" for l in above]
        rows, where = distinct([loop.factor for loop in above])
        found: list[Profile] = []
        for row in rows.tolist():
            reached = {dim: self.bounds[dim] for dim in dims}
            lines: list[Line] = []
            for loop, role, factor in zip(above, roles, row, strict=True):
                reached[loop.dim] //= factor  # perfect: what is left inside is the loop's step, in the end the tile
                lines.append(Line(factor, reached[loop.dim], role, dims.index(loop.dim)))
            first, second = (Side(self.bounds[d], c, reached[d]) for d, c in zip(dims, coefficients, strict=True))
            found.append(crossing(first, second, tuple(lines)))
        wrap = np.array([profile.wrap for profile in found], dtype=np.int64)[where]
        advance = np.array([profile.advance for profile in found], dtype=np.int64)[where]
        return Profile(
            [(wrap[..., i, 0], wrap[..., i, 1]) for i in range(wrap.shape[-2])],
            [(advance[..., i, 0], advance[..., i, 1]) for i in range(roles.count("time"))],
        )

    def sharers(self, arrays: frozenset[str]) -> Amount:
        """Array elements that work on one and the same output."""
        return product(l.factor for l in self.loops if l.array in arrays and l.dim in REDUCTION_DIMS)

    def split(self, place: int) -> Amount:
        """Array elements among which the sum of one output is divided above a place."""
        return product(l.factor for l in self.loops if l.array and l.dim in REDUCTION_DIMS and l.place < place)

    def tile_points(self, operand: Operand, place: int) -> Amount:
        """Elements of the tile held at `place`: `mapping.rank_points` on arrays."""
        points: Amount = 1
        for rank in ranks_of(operand, self.layer.stride, self.layer.dilation):
            (first, a), *rest = rank.terms
            size = self.tile(first, place)
            for second, b in rest:
                other, g = self.tile(second, place), math.gcd(a, b)
                double, over = size - b // g, other - a // g
                size = size * other - double * (double > 0) * over * (over > 0)
            points = points * size
        return points


def distinct(columns: list[Array64]) -> tuple[Array64, Array64]:
    """Distinct rows of these columns, and for every row the number of its distinct one (one for all without columns).

    Rows become one integer each if they fit.
    """
    if not columns:
        return np.zeros((1, 0), dtype=np.int64), np.zeros(1, dtype=np.int64)
    rows = np.stack(columns, axis=1)
    scale = [int(largest) + 1 for largest in rows.max(axis=0, initial=0)]
    if math.prod(scale) >= 2**62:
        found, where = np.unique(rows, axis=0, return_inverse=True)
        return found, where.reshape(-1)
    weights = np.array([math.prod(scale[:column]) for column in range(len(scale))], dtype=np.int64)
    _, first, where = np.unique(rows @ weights, return_index=True, return_inverse=True)
    return rows[first], where
