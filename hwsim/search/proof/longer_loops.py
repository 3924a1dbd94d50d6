"""Temporal tiles that do not divide: unrollings whose loops take more iterations than they need.

Tiles of 8 of 197 tokens are factors of 200 whose last one is cut short: 25 blocks, not 24.6. The kernel solves such a
lattice as any other, with true blocks, tiles and windows; without arrays its prices are exact. On arrays it leaves out
what elements cost that idle (time, and operands shared by fewer), so mappings are priced anew. There are too many
lengths to prove anything about all of them together: this is a search of a few unrollings, those whose lattices promise
most, one dim after the other.
"""

from __future__ import annotations

import math
import time

import numpy as np
from numpy.typing import NDArray

from hwsim.nest.points import Ints
from hwsim.search.proof.certify import NODES, Search, spacings, window_places
from hwsim.search.space.lattice import divisors
from hwsim.search.write import write_path

CANDIDATES = 64  # unrollings whose lattices are looked at
ROWS = 4  # of which so many are given longer loops
LENGTHS = 3  # per dim
LONGER = 1.25  # at most
EVERY_MULTIPLE, FEW_MULTIPLES = 1 << 16, 1 << 10  # iterations above which only multiples of fewer numbers are looked at
SWEEPS = 3
LATTICES = 300  # in all, for those that divide and again for the others
Start = tuple[int, Ints]  # an unrolling, iterations of its dims


def improve(search: Search, best: float, deadline: float) -> None:
    """Price mappings with longer loops whose bounds lie below the best value so far.

    Unrollings that divide come first, by themselves, as where no others are looked at.
    """
    search.best = best
    search.kernel.set_tables(search.tables)
    every = np.arange(len(search.spatial))
    divide = (np.array(search.problem.extents) % search.spatial.prod(axis=1) == 0).all(axis=1)
    for rows in (every[divide], every[~divide]):
        if len(rows):
            Padding(search, deadline).run(rows)


class Padding:
    """The search from a proof that ended: what it knows, and how many lattices may still be looked at."""

    def __init__(self, search: Search, deadline: float) -> None:
        self.search, self.deadline, self.left = search, deadline, LATTICES

    def run(self, rows: Ints) -> None:
        """Longer loops in the most promising of these unrollings, then further ones in whatever was best."""
        starts = [(row, self.search.steps_of(row)) for row in self.promising(rows)]
        for _ in range(SWEEPS):
            better = self.swept(starts)
            if better is None:
                return
            starts = [better]

    def promising(self, rows: Ints) -> list[int]:
        """Unrollings with the least bounds, of those that may hold something better: longer loops only add to these."""
        search = self.search
        closed = search.objectives(rows, search.least_sums[:, rows].T)
        some = rows[[i for i in np.argsort(closed, kind="stable")[:CANDIDATES] if search.open(float(closed[i]), 0.0)]]
        if not len(some):
            return []
        bounds = self.bounds(some, np.zeros_like(search.spatial[some]), None)
        return some[np.argsort(bounds, kind="stable")[:ROWS]].tolist()

    def swept(self, starts: list[Start]) -> Start | None:
        """One dim longer or shorter than in the starts, the most promising first; the best, where one was better."""
        search = self.search
        tried: list[Start] = []
        for row, steps in starts:
            for dim, needed in enumerate(search.steps_of(row).tolist()):
                for length in sorted({*lengths(needed), needed} - {int(steps[dim])}):
                    tried.append((row, np.where(np.arange(len(steps)) == dim, length, steps)))
        if not tried:
            return None
        rows, steps = np.array([row for row, _ in tried]), np.array([steps for _, steps in tried])
        bounds = self.bounds(rows, np.zeros_like(search.spatial[rows]), steps)
        best: Start | None = None
        for i in np.argsort(bounds, kind="stable").tolist():
            if not search.open(float(bounds[i]), 0.0) or self.left <= 0 or time.perf_counter() > self.deadline:
                break
            if self.followed(*tried[i]):
                best = tried[i]
        return best

    def followed(self, row: int, steps: Ints) -> bool:
        """Whether the cheapest paths of an unrolling with these iterations gave something better."""
        search = self.search
        choices = np.zeros_like(search.spatial[[row]])
        if window_places(search.problem, search.spatial[row], steps):
            choices = np.array(spacings(search.problem, search.spatial[row], steps)[: max(self.left, 1)])
        again = np.full(len(choices), row)
        bounds = self.bounds(again, choices, np.repeat(steps[None], len(choices), axis=0))
        before, offsets = search.best, np.ascontiguousarray(search.offsets[:, row])
        for i in np.argsort(bounds, kind="stable").tolist():
            if not search.open(float(bounds[i]), 0.0):
                break
            path = search.kernel.path(
                search.spatial[row], choices[i], steps, offsets, search.idle_pj, search.best, NODES, search.budget
            )
            search.covered += path.nodes
            if path.steps:
                search.priced += 1
                value = search.value(write_path(search.problem, search.options.one(row), path.steps))
                search.best = min(search.best, math.inf if value is None else value)
        return search.best < before

    def bounds(self, rows: Ints, spacing: Ints, steps: Ints | None) -> NDArray[np.float64]:
        """Bounds of lattices."""
        search = self.search
        self.left -= len(rows)
        sums, covered = search.kernel.bounds(search.spatial[rows], spacing, steps)
        search.covered += covered
        return search.objectives(rows, np.maximum(sums, search.least_sums[:, rows].T))


def lengths(steps: int) -> list[int]:
    """Numbers of iterations a little above `steps` that have most factors; of small ones where `steps` is large.

    >>> lengths(67)
    [72, 84, 80]
    """
    most = math.floor(steps * LONGER) + 2
    useful = {size * -(-steps // size) for size in range(2, steps if steps <= EVERY_MULTIPLE else FEW_MULTIPLES)}
    found = [n for n in useful if steps < n <= most]
    return sorted(found, key=lambda n: (-len(divisors(n)), n))[:LENGTHS]
