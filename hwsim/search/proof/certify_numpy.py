"""The proven optimum over the declared space in numpy, for machines without a compiler: best-first over unrollings.

Every unrolling starts with a lower bound on its energy (`chains.solve`, windows "bound"); those that may still beat the
best mapping known are solved with every overlap ("exact"), and split where tiles do not fit a shared memory together
(`capacity.split`). A node's bound never exceeds what any mapping in it costs, so when the least bound left reaches the
best exact price, nothing better exists. Latency bounds are compute cycles; the bound on an EDP is the product. Compared
with enumeration on machines with one array only (docs/search.md).
"""

from __future__ import annotations

import heapq
import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from hwsim.machine.parts import Operand
from hwsim.nest.mapping import Mapping
from hwsim.nest.points import Ints
from hwsim.search.bounds.simple import crossings_bound_pj
from hwsim.search.quick.batch import Batch
from hwsim.search.quick.capacity import overfull, split
from hwsim.search.quick.chains import Solved, Windows, solve, trace
from hwsim.search.space.lattice import Costs, Lattices, clustered, divisors
from hwsim.search.space.paths import Chain
from hwsim.search.space.problem import Problem, window_ranks
from hwsim.search.space.rounding import rounding_pj
from hwsim.search.space.unrolling import Unrollings, unrollings
from hwsim.search.write import ORDERS, write

Key = tuple[str, Operand]
WASTE = 3.0
MAX_VALUES = {"bound": 1_000_000, "slide": 400_000, "exact": 120_000}
BATCH = 16
WARM = 16
# Rounding of partial words and of floats: bounds closer than this to the best price count as reached.
TOLERANCE = 1e-9

Value = Callable[[Mapping], float | None]  # the objective of a legal mapping; None if it is illegal


@dataclass(order=True)
class Part:
    """A part of the space: one unrolling under limits on tiles. `bound` in the objective's unit."""

    bound: float
    serial: int
    row: int = field(compare=False)
    level: int = field(compare=False)  # how its bound was found: 0 not at all, 1 "bound", 2 "exact"
    most: dict[Key, float] = field(compare=False)
    least: dict[Key, float] = field(compare=False)
    chain: Chain | None = field(compare=False, default=None)
    tiles: dict[Key, float] | None = field(compare=False, default=None)


@dataclass(frozen=True)
class Proof:
    """Outcome: least bound left, whether the search ended by itself, unrollings and lattice points covered, priced.

    `root_bound`: the least bound of all unrollings before any exact path, after `root_seconds` of CPU time.
    """

    lower_bound: float
    finished: bool
    covered: int
    priced: int
    root_bound: float = 0.0
    root_seconds: float = 0.0


class Search:
    """One certified search; `value` prices a mapping exactly, `objective` energies and cycles alike."""

    remainders = False

    def __init__(self, problem: Problem, objective: str, value: Value) -> None:
        self.problem, self.objective, self.value = problem, objective, value
        self.best = math.inf
        self.options: Unrollings = unrollings(problem, imperfect=False)
        per_array = self.options.per_array(len(problem.arrays))
        distinct, owner = np.unique(per_array, axis=0, return_index=True)
        perfect = (np.array(problem.extents) % distinct.prod(axis=1) == 0).all(axis=1)
        distinct, owner = distinct[perfect], owner[perfect]
        rows = [(row, spacing) for row in range(len(distinct)) for spacing in spacings(problem, distinct[row])]
        self.spatial: Ints = distinct[[row for row, _ in rows]]
        self.owner = owner[[row for row, _ in rows]]
        self.spacing: Ints = np.array([spacing for _, spacing in rows], dtype=np.int64).reshape(self.spatial.shape)
        self.extents: Ints = np.array(problem.extents) // self.spatial.prod(axis=1)
        unit = problem.unit
        self.cycles = np.maximum(problem.mac_cycles(self.extents), unit.fixed_cycles)
        self.constant_pj = unit.fixed_pj + problem.layer.macs * unit.mac_pj
        self.serial = itertools.count()
        self.windows = bool(window_ranks(problem))
        self.covered = self.priced = 0
        self.closed = math.inf  # least bound of a part whose price stayed above it
        self.rounding_pj = rounding_pj(problem)
        self.tried: dict[Mapping, float] = {}
        self.deadline = math.inf

    def bound_of(self, row: int, energy_pj: float) -> float:
        """Bound on the objective from a bound on the energy of crossings."""
        cycles = float(self.cycles[row])
        if self.objective == "latency":
            return cycles if math.isfinite(energy_pj) else math.inf
        energy = energy_pj + self.constant_pj + self.problem.unit.static_pj_per_cycle * cycles
        return energy if self.objective == "energy" else energy * cycles

    def run(self, gap: float, deadline: float, best: float = math.inf, incumbent: Mapping | None = None) -> Proof:
        """Best first until the least bound reaches the best value, within `gap`, or until the deadline.

        `best`: a value that is known. The incumbent itself is not asked: only its price matters here.
        """
        del incumbent
        self.best, self.deadline = best, deadline
        heap = self.roots()
        if self.windows:
            self.warm(heapq.nsmallest(WARM, heap))
        while heap and heap[0].bound * (1.0 + max(gap, TOLERANCE)) < self.best:
            if self.late():
                return Proof(min(heap[0].bound, self.closed), False, self.covered, self.priced)
            chosen = [heapq.heappop(heap)]
            while heap and len(chosen) < BATCH and heap[0].level == chosen[0].level == 1 and self.open(heap[0], gap):
                chosen.append(heapq.heappop(heap))
            for part in self.follow(chosen):
                if self.open(part, gap):
                    heapq.heappush(heap, part)
        left = min((part.bound for part in heap), default=self.best)
        bound = min(left, self.closed, self.best)
        return Proof(bound, bound * (1.0 + max(gap, TOLERANCE)) >= self.best, self.covered, self.priced)

    def late(self) -> bool:
        """Whether the time is up."""
        return time.perf_counter() > self.deadline

    def warm(self, parts: Sequence[Part]) -> None:
        """Better mappings early: the same descent on the most promising parts with sliding windows only."""
        heap = self.solve(parts, "slide")
        heapq.heapify(heap)
        for _ in range(WARM):
            if not heap or self.priced >= 2 * len(ORDERS) or self.late():
                return
            part = heapq.heappop(heap)
            if part.bound < self.best:
                for branch in self.follow([part], "slide"):
                    heapq.heappush(heap, branch)

    def open(self, part: Part, gap: float) -> bool:
        """Whether a part may hold something better than the best known by more than the gap."""
        return part.bound * (1.0 + max(gap, TOLERANCE)) < self.best

    def roots(self) -> list[Part]:
        """A part per unrolling with its first bound; without windows that is exact already."""
        crossings = crossings_bound_pj(self.problem)
        parts = [
            Part(self.bound_of(row, crossings), next(self.serial), row, 0, {}, {}) for row in range(len(self.spatial))
        ]
        parts = [part for part in parts if part.bound < self.best]
        found = self.solve(parts, "bound" if self.windows else "exact")
        heapq.heapify(found)
        return found

    def follow(self, chosen: Sequence[Part], windows: Windows = "exact") -> list[Part]:
        """What comes after these parts: exact bounds, then nests, then branches of shared memories."""
        part = chosen[0]
        if part.chain is None:
            return self.solve(chosen, windows)
        if part.tiles is None:
            self.price(part)
            return []
        capacity = {m.name: float(m.size_bits or 0) for m in self.problem.accelerator.memories}
        branches = [
            Part(part.bound, next(self.serial), part.row, 1, most, least)
            for most, least in split(part.tiles, part.most, part.least, capacity)
        ]
        return self.solve(branches, windows)

    def price(self, part: Part) -> None:
        """Exact prices of the nests of a chain whose tiles fit."""
        assert part.chain is not None
        least = math.inf
        for order in ORDERS:
            mapping = write(self.problem, self.options, int(self.owner[part.row]), part.chain, order)
            if mapping not in self.tried:
                found = self.value(mapping)
                self.tried[mapping] = math.inf if found is None else found
                self.priced += 1
            least = min(least, self.tried[mapping])
        self.best = min(self.best, least)
        rounded = self.bound_of(part.row, part.chain.energy_pj + self.rounding_pj)
        if least > max(rounded, part.bound) * (1 + TOLERANCE):
            self.closed = min(self.closed, part.bound)

    def solve(self, parts: Sequence[Part], windows: Windows) -> list[Part]:
        """The parts with bounds from their chains; where nothing fits they are dropped, when time is up left alone."""
        if not parts:
            return []
        rows = [part.row for part in parts]
        found: list[Part] = []
        for members, shape in clustered(self.extents[rows], WASTE, MAX_VALUES[windows]):
            for start in range(0, len(members), BATCH):
                mine = [parts[i] for i in members[start : start + BATCH]]
                if self.late():
                    found.extend(mine)
                    continue
                batch_rows = [part.row for part in mine]
                spacing = self.spacing[batch_rows] if self.spacing.any() else None
                lattices = Lattices(self.extents[batch_rows], shape)
                batch = Batch(self.problem, lattices, self.spatial[batch_rows], spacing)
                solved = solve(batch, limits(mine), windows)
                self.covered += batch.lattices.points * len(mine)
                found.extend(self.renewed(part, solved, i, windows) for i, part in enumerate(mine))
        return [part for part in found if math.isfinite(part.bound)]

    def renewed(self, part: Part, solved: Solved, index: int, windows: Windows) -> Part:
        """A part with the bound that a solution gives, its chain and the tiles that do not fit together."""
        bound = max(part.bound, self.bound_of(part.row, float(solved.energies[index])))
        if windows == "bound":
            return Part(bound, part.serial, part.row, 1, part.most, part.least)
        chain, tiles = None, None
        if bound < self.best:
            chain = trace(solved, index)
            tiles = overfull(self.problem, solved.batch, index, chain)
        return Part(bound, part.serial, part.row, 2, part.most, part.least, chain, tiles)


def spacings(problem: Problem, spatial: Ints) -> list[list[list[int]]]:
    """Distances of array elements that must be told apart, per array and dim; all zero where side by side is best.

    Elements that share windows need fewest points when their tiles stand side by side, except where the window's other
    variable has a coefficient above one: {0, 1} + {0, 2, 4} are six points, {0, 2} + {0, 2, 4} only four.
    """
    left = np.array(problem.extents) // spatial.prod(axis=0)
    matters: list[tuple[int, int]] = []
    for rank, (x, y) in window_ranks(problem):
        (_, a), (_, b) = rank.terms
        for dim, other in ((x, b), (y, a)):
            if other > 1 and left[dim] > 1:
                matters.extend((array, dim) for array in range(len(spatial)) if spatial[array, dim] > 1)
    found: list[list[list[int]]] = []
    for choice in itertools.product(*(divisors(int(left[dim])) for _, dim in matters)):
        spacing = np.zeros_like(spatial)
        for (array, dim), distance in zip(matters, choice, strict=True):
            spacing[array, dim] = distance
        found.append(spacing.tolist())
    return found


def limits(parts: Sequence[Part]) -> dict[Key, Costs]:
    """Bits per part that every operand may take of a shared memory."""
    keys = {key for part in parts for key in part.most}
    return {key: np.array([part.most.get(key, math.inf) for part in parts]) for key in keys}
