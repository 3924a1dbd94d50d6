"""The points of a rank, the size of a window, and sets of points on a line.

A rank of an operand is x = sum of coefficient * index over its dims (input rows: stride*P + dilation*R). Tiles are
products over ranks of such point sets: real points, holes kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping as Map
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hwsim.machine.parts import Operand
from hwsim.network.layer import DIMS, Layer


def window(rank: Rank, p: Ints, r: Ints) -> Ints:
    """Points of a two-dim rank for tile extents p and r, holes left out: as `mapping.rank_points`, on arrays."""
    (_, a), (_, b) = rank.terms
    g = math.gcd(a, b)
    return p * r - np.maximum(0, p - b // g) * np.maximum(0, r - a // g)


Ints = NDArray[np.int64]

REDUCTION_DIMS: tuple[str, ...] = ("C", "R", "S")


# --- operands as products of one-dimensional point sets -------------------------------------------------------------


@dataclass(frozen=True)
class Rank:
    """One index of an operand: sum of coefficient * loop variable over `terms` (input rows: stride*P + dilation*R)."""

    terms: tuple[tuple[str, int], ...]

    @property
    def dims(self) -> tuple[str, ...]:
        """The loop names in it."""
        return tuple(dim for dim, _ in self.terms)


def operand_ranks(layer: Layer, operand: Operand) -> tuple[Rank, ...]:
    """The ranks of an operand; each dim is in at most one of them. Input points live in the padded index space."""
    return ranks_of(operand, layer.stride, layer.dilation)


@lru_cache(maxsize=1024)
def ranks_of(operand: Operand, stride: tuple[int, int], dilation: tuple[int, int]) -> tuple[Rank, ...]:
    """`operand_ranks` by geometry alone."""
    if operand == "weight":
        return tuple(Rank(((dim, 1),)) for dim in ("G", "K", "C", "R", "S"))
    if operand == "output":
        return tuple(Rank(((dim, 1),)) for dim in ("N", "G", "K", "P", "Q"))
    rows = Rank((("P", stride[0]), ("R", dilation[0])))
    columns = Rank((("Q", stride[1]), ("S", dilation[1])))
    return (Rank((("N", 1),)), Rank((("G", 1),)), Rank((("C", 1),)), rows, columns)


def relevant_dims(operand: Operand) -> tuple[str, ...]:
    """Dims that index the operand; every other loop reuses it."""
    return tuple(dim for rank in ranks_of(operand, (1, 1), (1, 1)) for dim in rank.dims)


def rank_points(rank: Rank, extent: Map[str, int]) -> int:
    """Distinct points of a rank's tile, holes of strides and dilations not counted.

    |{a*i + b*j : i < m, j < n}| = m*n - max(0, m - b/g) * max(0, n - a/g) with g = gcd(a, b): (i, j) and
    (i + b/g, j - a/g) are the same point.
    """
    if len(rank.terms) == 1:
        return extent[rank.terms[0][0]]
    (first, a), (second, b) = rank.terms
    m, n, g = extent[first], extent[second], math.gcd(a, b)
    return m * n - max(0, m - b // g) * max(0, n - a // g)


def tile_elements(layer: Layer, operand: Operand, extent: Map[str, int]) -> int:
    """Elements of the operand's largest tile when every dim spans `extent` (cut at the layer's bounds)."""
    bounds = layer.loops.as_dict()
    cut = {dim: min(extent[dim], bounds[dim]) for dim in DIMS}
    return math.prod(rank_points(rank, cut) for rank in operand_ranks(layer, operand))


@lru_cache(maxsize=1 << 14)
def lattice(a: int, m: int, b: int, n: int) -> int:
    """The set {a*i + b*j : i < m, j < n} as an integer with one bit per point."""
    return repeated(repeated(1, a, m), b, n)


def repeated(points: int, step: int, many: int) -> int:
    """The union of `many` copies of a set, each `step` further than the one before; by doubling."""
    if many == 1:
        return points
    half = repeated(points, step, many // 2)
    both = half | half << (many // 2 * step)
    return both | points << ((many - 1) * step) if many % 2 else both


@lru_cache(maxsize=1 << 18)
def united_new(a: int, x: int, b: int, y: int, united_x: int, united_y: int, shift: int | None) -> int:
    """Points new to any of the array elements, their tiles side by side, when tiles move by `shift`; None: all."""
    tile = lattice(a, x, b, y)
    found = tile if shift is None else tile & ~(tile >> shift)
    return repeated(repeated(found, a * x, united_x), b * y, united_y).bit_count()
