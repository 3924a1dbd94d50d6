"""A mapping: where one layer's operands are held and in which order its loops run on an accelerator.

One nest, outermost first, of three kinds of nodes: `Hold` (from here inwards these operands are kept in that memory),
`Temporal` and `Spatial` loops. Uneven mappings are plain: a memory may be held twice, each operand cut elsewhere.
`validate` says in words why a nest is illegal; `load_mappings` and `dump_mappings` are the YAML form. Factors need not
divide: a loop's step is the product of the same dim's factors inside it and blocks are cut at the layer's bound.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping as Map, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import cast

import yaml

from hwsim.errors import InfeasibleMapping, SpecError
from hwsim.machine import OPERANDS, Accelerator, Array, Axis, Memory, Operand
from hwsim.workload import DIMS, Layer

REDUCTION_DIMS: tuple[str, ...] = ("C", "R", "S")


@dataclass(frozen=True)
class Hold:
    """From here inwards `operands` are kept in `memory`."""

    memory: str
    operands: tuple[Operand, ...]


@dataclass(frozen=True)
class Temporal:
    """A sequential loop: `factor` blocks of dim `dim`, one after another."""

    dim: str
    factor: int


@dataclass(frozen=True)
class Spatial:
    """A parallel loop: `factor` blocks of `dim` side by side on one axis of an array."""

    dim: str
    factor: int
    array: str
    axis: str


Loop = Temporal | Spatial
Node = Hold | Temporal | Spatial


@dataclass(frozen=True)
class Mapping:
    """The nest of one layer, outermost node first."""

    nodes: tuple[Node, ...]

    @property
    def loops(self) -> tuple[Loop, ...]:
        """Temporal and spatial loops, outermost first."""
        return tuple(node for node in self.nodes if not isinstance(node, Hold))

    def hold_index(self, memory: str, operand: Operand) -> int | None:
        """Position in `nodes` of the hold of `operand` in `memory`; None where it is bypassed."""
        for index, node in enumerate(self.nodes):
            if isinstance(node, Hold) and node.memory == memory and operand in node.operands:
                return index
        return None

    def tile(self, index: int) -> dict[str, int]:
        """Extent of every dim below position `index`: product of its factors there (may exceed the layer's bound)."""
        extent = dict.fromkeys(DIMS, 1)
        for node in self.nodes[index:]:
            if not isinstance(node, Hold):
                extent[node.dim] *= node.factor
        return extent

    def steps(self) -> tuple[int, ...]:
        """Per node the distance between neighbouring blocks of its loop: product of same-dim factors inside; 0 for holds."""
        inside = dict.fromkeys(DIMS, 1)
        found: list[int] = []
        for node in reversed(self.nodes):
            if isinstance(node, Hold):
                found.append(0)
            else:
                found.append(inside[node.dim])
                inside[node.dim] *= node.factor
        return tuple(reversed(found))

    def __str__(self) -> str:
        return describe(self)


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
