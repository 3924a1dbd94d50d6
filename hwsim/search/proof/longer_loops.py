"""Temporal tiles that do not divide: unrollings whose loops take more iterations than they need.

Tiles of 8 of 197 tokens are factors of 200 whose last one is cut short: 25 blocks, not 24.6. The kernel solves such a
lattice as any other, with true blocks, tiles and windows; without arrays its prices are exact. On arrays it leaves out
what elements cost that idle (time, and operands shared by fewer), so mappings are priced anew. There are too many
lengths to prove anything about all of them together: this is a search of a few unrollings, those whose lattices promise
most: several dims of few divisors at once (481 x 279 as 486 x 280), then one dim after the other.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from hwsim.nest.points import Ints
from hwsim.search.proof.certify import NODES, Search, spacings, window_places
from hwsim.search.quick.candidates import SMOOTH
from hwsim.search.space.lattice import divisors, factorised
from hwsim.search.write import write_path

CANDIDATES = 64  # unrollings whose lattices are looked at
ROWS = 4  # of which so many are given longer loops
LENGTHS = 3  # per dim
LONGER = 1.25  # at most
EVERY_MULTIPLE, FEW_MULTIPLES = 1 << 16, 1 << 10  # iterations above which only multiples of fewer numbers are looked at
SWEEPS = 3
LATTICES = 300  # in all, for those that divide and again for the others
SHORT = 16  # numbers of iterations up to this are made longer by themselves only
AT_ONCE = 3  # dims made longer together
SOLVED = 6  # of the lattices with dims longer together, the most promising
Sums = NDArray[np.float64]
Start = tuple[int, Ints]  # an unrolling, iterations of its dims
Lattice = tuple[int, tuple[int, ...], bytes]  # the same, and distances of its elements


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
        self.known: dict[Lattice, Sums] = {}  # least sums that the kernel gave

    def run(self, rows: Ints) -> None:
        """Longer loops in the most promising of these unrollings, then further ones in whatever was best."""
        starts = [(row, self.search.steps_of(row)) for row in self.promising(rows)]
        starts += self.better([(row, longer) for row, steps in starts for longer in longer_together(steps)], SOLVED)
        self.left = LATTICES
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
        needed = np.array([search.steps_of(row) for row in some.tolist()])
        for row, steps in zip(some.tolist(), needed, strict=True):
            sums = search.known.get(row)
            if sums is not None and not np.isneginf(sums).any():
                self.known[lattice(row, steps, np.zeros_like(search.spatial[row]))] = sums
        bounds = self.bounds(some, np.zeros_like(search.spatial[some]), needed)
        return some[np.argsort(bounds, kind="stable")[:ROWS]].tolist()

    def swept(self, starts: list[Start]) -> Start | None:
        """One dim longer or shorter than in the starts, the most promising first; the best, where one was better."""
        search = self.search
        tried: list[Start] = []
        for row, steps in starts:
            for dim, needed in enumerate(search.steps_of(row).tolist()):
                for length in sorted({*lengths(needed), needed} - {int(steps[dim])}):
                    tried.append((row, np.where(np.arange(len(steps)) == dim, length, steps)))
        return next(reversed(self.better(tried, len(tried))), None)

    def better(self, tried: list[Start], most: int) -> list[Start]:
        """Those that gave something better than all before them, the most promising first, of so many at most."""
        if not tried:
            return []
        search, found = self.search, list[Start]()
        rows, steps = np.array([row for row, _ in tried]), np.array([steps for _, steps in tried])
        bounds = self.bounds(rows, np.zeros_like(search.spatial[rows]), steps)
        for i in np.argsort(bounds, kind="stable").tolist()[:most]:
            if not search.open(float(bounds[i]), 0.0) or self.left <= 0 or time.perf_counter() > self.deadline:
                break
            if self.followed(*tried[i]):
                found.append(tried[i])
        return found

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

    def bounds(self, rows: Ints, spacing: Ints, steps: Ints) -> NDArray[np.float64]:
        """Bounds of lattices. The kernel is asked for each of them once; all of them count as looked at."""
        search, known = self.search, self.known
        self.left -= len(rows)
        lattices = [lattice(*each) for each in zip(rows.tolist(), steps, spacing, strict=True)]
        asked = [i for i, each in enumerate(lattices) if each not in known]
        search.covered += sum(points(each) for each in lattices if each in known)
        if asked:
            sums, covered = search.kernel.bounds(search.spatial[rows[asked]], spacing[asked], steps[asked])
            search.covered += covered
            known.update(zip([lattices[i] for i in asked], sums, strict=True))
        found = np.array([known[each] for each in lattices])
        for i in np.flatnonzero(np.isneginf(found).any(axis=1)).tolist():  # too large or lost: no answer to keep
            known.pop(lattices[i], None)
        return search.objectives(rows, np.maximum(found, search.least_sums[:, rows].T))


def lattice(row: int, steps: Ints, spacing: Ints) -> Lattice:
    """What tells a lattice from others."""
    return row, tuple(steps.tolist()), spacing.tobytes()


def points(known: Lattice) -> int:
    """Points of a lattice."""
    return math.prod(len(divisors(n)) for n in known[1])


def longer_together(steps: Ints) -> Iterator[Ints]:
    """Iterations with two dims or more longer, of the largest that divide badly: the next length that divides well.

    >>> [longer.tolist() for longer in longer_together(np.array([481, 9, 279]))]
    [[486, 9, 280], [486, 9, 336], [504, 9, 280], [504, 9, 336]]
    """
    awkward = sorted((d for d, n in enumerate(steps.tolist()) if n > SHORT and not smooth(n)), key=lambda d: -steps[d])
    awkward = awkward[:AT_ONCE]
    options = [(n, *dict.fromkeys((next_smooth(n), *lengths(n)[:1]))) for n in steps[awkward].tolist()]
    for chosen in itertools.product(*options):
        if sum(longer != own for longer, own in zip(chosen, steps[awkward].tolist(), strict=True)) > 1:
            changed = steps.copy()
            changed[awkward] = chosen
            yield changed


def smooth(steps: int) -> bool:
    """Whether a number has small prime factors alone."""
    return all(prime <= SMOOTH for prime, _ in factorised(steps))


def next_smooth(steps: int) -> int:
    """The next number with small prime factors alone."""
    return next(n for n in itertools.count(steps + 1) if smooth(n))


def lengths(steps: int) -> list[int]:
    """Numbers of iterations a little above `steps` that have most factors; of small ones where `steps` is large.

    >>> lengths(67)
    [72, 84, 80]
    """
    most = math.floor(steps * LONGER) + 2
    useful = {size * -(-steps // size) for size in range(2, steps if steps <= EVERY_MULTIPLE else FEW_MULTIPLES)}
    found = [n for n in useful if steps < n <= most]
    return sorted(found, key=lambda n: (-len(divisors(n)), n))[:LENGTHS]
