"""Unrollings solved together: their lattices share a shape, and every quantity is one array with a row each.

`visits` and `energy` say what a crossing costs when it settles at each lattice point, `elements` how large the tile is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping as Map
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hwsim.machine.parts import Operand
from hwsim.machine.ruled_levels import tile_limits
from hwsim.nest.points import Ints, Rank, window
from hwsim.search.space.lattice import Costs, Lattices
from hwsim.search.space.problem import Crossing, Problem

Shares = Map[tuple[str, Operand], Costs]  # (memory, operand) -> bits its tile may take there, one per row


@dataclass
class Batch:
    """Unrollings whose lattices share a shape. `spatial[row, j, e]`: factor of dim e on array j (innermost first)."""

    problem: Problem
    lattices: Lattices
    spatial: Ints

    @cached_property
    def rows(self) -> int:
        """Number of unrollings."""
        return len(self.spatial)

    @cached_property
    def inside(self) -> Ints:
        """[row, level, e]: product of the factors of the arrays below that level."""
        ones = np.ones((self.rows, 1, self.spatial.shape[2]), dtype=np.int64)
        return np.concatenate([ones, np.cumprod(self.spatial, axis=1)], axis=1)

    @cached_property
    def place(self) -> dict[str, int]:
        """Axis of every active dim."""
        return {dim: axis for axis, dim in enumerate(self.problem.dims)}

    def spread(self, values: Costs, dims: tuple[int, ...]) -> Costs:
        """Broadcastable form of (rows, one axis per dim in ascending order)."""
        shape = [values.shape[0]] + [1] * len(self.problem.dims)
        for dim, length in zip(dims, values.shape[1:], strict=True):
            shape[dim + 1] = length
        return values.reshape(shape)

    def tiles(self, dim: int, level: int) -> Ints:
        """(rows, sizes): extent of a dim below `level` for every lattice size."""
        return self.lattices.sizes[dim] * self.inside[:, level, dim][:, None]

    def window_pair(self, rank: Rank) -> tuple[int, int] | None:
        """Axes of a rank with two active dims."""
        active = [self.place[dim] for dim in rank.dims if dim in self.place]
        return (active[0], active[1]) if len(active) == 2 else None

    def visits(self, operand: Operand, level: int) -> Costs:
        """V_level for every settle point (broadcastable over the lattices)."""
        key = (operand, level)
        if key not in self._visits:
            self._visits[key] = self._count_visits(operand, level)
        return self._visits[key]

    @cached_property
    def _visits(self) -> dict[tuple[str, int], Costs]:
        return {}

    def _count_visits(self, operand: Operand, level: int) -> Costs:
        problem = self.problem
        result = np.ones((self.rows,) + (1,) * len(problem.dims))
        for dim in problem.irrelevant_axes(operand):
            blocks = -(-problem.extents[dim] // self.tiles(dim, level))
            result = result * self.spread(blocks.astype(np.float64), (dim,))
        for rank in problem.ranks[operand]:
            pair = self.window_pair(rank)
            if pair is None:
                result *= math.prod(problem.extents[self.place[dim]] for dim in rank.dims if dim in self.place)
            else:
                result = result * self.spread(self.window_sum(rank, pair, level), pair)
        return result

    def window_sum(self, rank: Rank, pair: tuple[int, int], level: int) -> Costs:
        """(rows, sizes, sizes): points of a two-dim rank summed over all blocks of both dims."""
        total = np.zeros((1, 1, 1))
        for p, p_count in pieces(self.problem.extents[pair[0]], self.tiles(pair[0], level)):
            for r, r_count in pieces(self.problem.extents[pair[1]], self.tiles(pair[1], level)):
                points = window(rank, p[:, :, None], r[:, None, :])
                total = total + points * (p_count[:, :, None] * r_count[:, None, :])
        return total.astype(np.float64)

    def energy(self, crossing: Crossing) -> Costs:
        """pJ of a crossing for every settle point."""
        fixed = crossing.first_pj * self.problem.elements(crossing.operand)
        total: Costs = np.full((1,) * (len(self.problem.dims) + 1), fixed)
        for offset, price in enumerate(crossing.prices):
            if price:
                total = total + price * self.visits(crossing.operand, crossing.segment + offset)
        return total

    def elements(self, operand: Operand, level: int) -> Costs:
        """Elements of the operand's tile below `level` for every point, cut at the layer's bounds."""
        problem = self.problem
        result = np.ones((self.rows,) + (1,) * len(problem.dims))
        for rank in problem.ranks[operand]:
            active = [self.place[dim] for dim in rank.dims if dim in self.place]
            cut = [np.minimum(self.tiles(dim, level), problem.extents[dim]) for dim in active]
            if len(active) == 1:
                result = result * self.spread(cut[0].astype(np.float64), (active[0],))
            elif len(active) == 2:
                points = window(rank, cut[0][:, :, None], cut[1][:, None, :])
                result = result * self.spread(points.astype(np.float64), (active[0], active[1]))
        return result

    def fits(self, operand: Operand, child: str, crossing: Crossing, shares: Shares) -> NDArray[np.bool_] | None:
        """Where the operand's tile fits into its holder; None where it always does."""
        if child == "mac":
            return self.elements(operand, 0) <= 1 if self.problem.latched(operand) else None
        if crossing.capacity_bits is None:
            return None
        limit: float | Costs = crossing.capacity_bits
        allowed = self.allowed(operand, child, crossing.segment)
        share = shares.get((child, operand))
        if share is not None:
            limit = np.minimum(share, limit).reshape(self.rows, *([1] * len(self.problem.dims)))
        fits = self.elements(operand, crossing.segment) * crossing.bits_per_element <= limit
        return fits if allowed is None else fits & allowed

    def allowed(self, operand: Operand, child: str, level: int) -> NDArray[np.bool_] | None:
        """Where a tile has the extents that rules ask for; None where they say nothing."""
        found: NDArray[np.bool_] | None = None
        for dim, limit in tile_limits(self.problem.rules, child):
            if dim in self.place and self.place[dim] not in self.problem.irrelevant_axes(operand):
                axis = self.place[dim]
                bound = self.problem.extents[axis]
                tiles = np.minimum(self.tiles(axis, level), bound)
                spans = [[float(limit.spans(int(n), bound)) for n in row] for row in tiles]
                mine = self.spread(np.array(spans), (axis,)) > 0
                found = mine if found is None else found & mine
        return found

    def settle_cost(self, crossing: Crossing, shares: Shares) -> Costs:
        """Energy of one crossing where its tile fits, infinite elsewhere."""
        value = self.energy(crossing)
        if crossing.child == "mac" and not self.problem.latched(crossing.operand):
            return value[(slice(None), *([slice(0, 1)] * len(self.problem.dims)))]  # no tile: every step reads anew
        fits = self.fits(crossing.operand, crossing.child, crossing, shares)
        return value if fits is None else np.where(fits, value, np.inf)


def pieces(extent: int, tiles: Ints) -> list[tuple[Ints, Ints]]:
    """(size, how many) of the blocks of a dim cut every `tiles`: full ones and the remainder."""
    tiles = np.minimum(tiles, extent)
    full = extent // tiles
    rest = extent - full * tiles
    if not rest.any():
        return [(tiles, full)]
    return [(tiles, full), (np.maximum(rest, 1), (rest > 0).astype(np.int64))]
