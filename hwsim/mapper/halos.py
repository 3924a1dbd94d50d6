"""Inputs whose tiles overlap: what is new when a window slides.

A tile of a two-variable rank is the set {a*i + b*j}. While one of its loops runs directly above the tile, every step
needs only the points that slid in. Whatever a wrap-around would still hold after the run is counted as loaded again: the
energies here are reached or undercut by the nest, whose exact counts decide. Point sets are integers, one bit a point.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from hwsim.mapper.batch import Batch
from hwsim.mapper.lattice import Costs
from hwsim.mapper.problem import Crossing
from hwsim.mapping import Rank


@lru_cache(maxsize=1 << 16)
def points(a: int, m: int, b: int, n: int) -> int:
    """{a*i + b*j : i < m, j < n} as an integer with one bit per point."""
    row = sum(1 << (a * i) for i in range(m))
    found = 0
    for j in range(n):
        found |= row << (b * j)
    return found


def spread(found: int, a: int, m: int, b: int, n: int) -> int:
    """Every point moved by every a*i + b*j, i < m, j < n."""
    moved = 0
    for i in range(m):
        moved |= found << (a * i)
    result = 0
    for j in range(n):
        result |= moved << (b * j)
    return result


def new_points(tile: int, shift: int) -> int:
    """Points of the tile that were not in it before it moved by `shift`, in the tile's own coordinates."""
    return tile & ~(tile >> shift if shift >= 0 else tile << -shift)


@dataclass(frozen=True)
class Window:
    """One variable x of a two-variable rank with its mate y: coefficients, tile, elements united, step of the run.

    `united`: array elements side by side that one access serves; `unit_x`: distance of neighbouring steps in tiles.
    """

    a: int
    b: int
    x: int
    y: int
    united_x: int
    united_y: int
    unit_x: int


@lru_cache(maxsize=1 << 18)
def run(window: Window) -> tuple[int, int]:
    """(points of the tile, points new per step while x runs), united over array elements."""
    w = window
    tile = points(w.a, w.x, w.b, w.y)

    def united(found: int) -> int:
        return spread(found, w.a * w.x, w.united_x, w.b * w.y, w.united_y).bit_count()

    return united(tile), united(new_points(tile, w.a * w.unit_x * w.x))


class Halos:
    """Costs of settling input crossings after a run of one dim, for a batch. `segment`: where the run happens."""

    def __init__(self, batch: Batch, segment: int) -> None:
        self.batch = batch
        self.segment = segment

    @cached_property
    def windows(self) -> list[tuple[Rank, tuple[int, int]]]:
        """Input ranks with two active dims, and their axes."""
        found = [(rank, self.batch.window_pair(rank)) for rank in self.batch.problem.ranks["input"]]
        return [(rank, pair) for rank, pair in found if pair is not None]

    def pairs(self, x: int) -> list[tuple[int, int]]:
        """(tile index, reached index) along dim x, lattice order."""
        sizes = self.batch.lattices.sizes[x]
        found: list[tuple[int, int]] = []
        for i in range(sizes.shape[1]):
            for j in range(i + 1, sizes.shape[1]):
                if self.batch.lattices.grows(x, i, j):
                    found.append((i, j))
        return found

    def energies(self, crossing: Crossing, x: int) -> dict[tuple[int, int], Costs]:
        """pJ of a crossing for every (tile, reached) of a run of dim x; broadcastable, the axis of x of length one."""
        key = (crossing.operand, crossing.child, crossing.parent, x)
        if key not in self._known:
            self._known[key] = self._energies(crossing, x)
        return self._known[key]

    @cached_property
    def _known(self) -> dict[tuple[str, str, str, int], dict[tuple[int, int], Costs]]:
        return {}

    def _energies(self, crossing: Crossing, x: int) -> dict[tuple[int, int], Costs]:
        batch, problem = self.batch, self.batch.problem
        rank, pair = next((rank, pair) for rank, pair in self.windows if x in pair)
        mate = pair[1] if pair[0] == x else pair[0]
        found: dict[tuple[int, int], Costs] = {}
        others: list[Costs] = []
        for offset in range(len(crossing.prices)):
            level = crossing.segment + offset
            rest = np.ones((batch.rows,) + (1,) * len(problem.dims))
            for dim in problem.irrelevant_axes("input"):
                rest = rest * batch.spread(self.blocks(dim, level), (dim,))
            for other in problem.ranks["input"]:
                if other is rank:
                    continue
                both = batch.window_pair(other)
                if both is None:
                    for dim in other.dims:
                        rest = rest * (problem.extents[batch.place[dim]] if dim in batch.place else 1)
                else:
                    rest = rest * batch.spread(batch.window_sum(other, both, level), both)
            others.append(crossing.prices[offset] * rest * batch.spread(self.blocks(mate, level), (mate,)))
        for tile, reached in self.pairs(x):
            total: Costs = np.zeros((1,) * (len(problem.dims) + 1))
            for offset, other in enumerate(others):
                level = crossing.segment + offset
                per_visit = self.per_visit(crossing, rank, x, mate, level, tile, reached)
                times = self.blocks(x, level)[:, reached].reshape(-1, *([1] * len(problem.dims)))
                total = total + other * times * batch.spread(per_visit, (mate,))
            found[tile, reached] = total
        return found

    def blocks(self, dim: int, level: int) -> Costs:
        """(rows, sizes): blocks of a dim below `level`."""
        return (-(-self.batch.problem.extents[dim] // self.batch.tiles(dim, level))).astype(np.float64)

    def per_visit(
        self, crossing: Crossing, rank: Rank, x: int, mate: int, level: int, tile: int, reached: int
    ) -> Costs:
        """(rows, mate's sizes): points of one visit, a reload and the steps of its run."""
        batch = self.batch
        terms = dict(rank.terms)
        a, b = terms[batch.problem.dims[x]], terms[batch.problem.dims[mate]]
        inside = batch.inside
        result = np.empty((batch.rows, batch.lattices.sizes[mate].shape[1]))
        for row in range(batch.rows):
            own = inside[row, crossing.segment]
            united = inside[row, level] // own
            unit = inside[row, self.segment] // own
            size = int(batch.lattices.sizes[x][row, tile])
            end = int(batch.lattices.sizes[x][row, reached])
            mates = batch.lattices.sizes[mate][row].tolist()
            for j, other in enumerate(mates):
                window = Window(
                    a,
                    b,
                    size * int(own[x]),
                    other * int(own[mate]),
                    int(united[x]),
                    int(united[mate]),
                    int(unit[x]),
                )
                whole, slide = run(window)
                result[row, j] = whole + (end // size - 1) * slide
        return result
