"""The proven optimum over the declared space: best-first over unrollings, cheap bounds first.

Every unrolling starts with a lower bound on its energy (kernel.c: the cheapest path if the input were alone with its
windows). The least bound is followed: distances between array elements are fixed where windows make them matter, then
the cheapest path is found exactly and its nest priced. A part of the space is closed only by its bound: where a price
stays above it, the bound remains in the certificate. Latency bounds are compute cycles; an EDP's is the product.
"""

from __future__ import annotations

import heapq
import itertools
import math
import time
from dataclasses import dataclass, field

import numpy as np

from hwsim.mapper import certify_numpy
from hwsim.mapper.certify_numpy import TOLERANCE, Proof, Value, rounding_pj
from hwsim.mapper.halos import window_ranks
from hwsim.mapper.lattice import Ints, divisors
from hwsim.mapper.native import Kernel, open_kernel
from hwsim.mapper.nest import write_path
from hwsim.mapper.problem import Problem
from hwsim.mapper.unrolling import Unrollings, unrollings

CHUNK = 64
NODES = 2_000_000


@dataclass(order=True)
class Part:
    """A part of the space: one unrolling, perhaps with the distances of its array elements."""

    bound: float
    serial: int
    row: int = field(compare=False)
    spacing: Ints = field(compare=False)
    exact: bool = field(compare=False)  # every distance that matters is fixed


def certified_search(problem: Problem, objective: str, value: Value, best: float) -> Search | certify_numpy.Search:
    """The search in C, or in numpy without a compiler."""
    kernel = open_kernel(problem)
    if kernel is None:
        return certify_numpy.Search(problem, objective, value, best)
    return Search(problem, objective, value, best, kernel)


class Search:
    """One certified search; `value` prices a mapping exactly, `objective` energies and cycles alike."""

    def __init__(self, problem: Problem, objective: str, value: Value, best: float, kernel: Kernel) -> None:
        self.problem, self.objective, self.value, self.best, self.kernel = problem, objective, value, best, kernel
        self.options: Unrollings = unrollings(problem, imperfect=False)
        per_array = self.options.per_array(len(problem.arrays))
        self.spatial, self.owner = np.unique(per_array, axis=0, return_index=True)
        kept = (np.array(problem.extents) % self.spatial.prod(axis=1) == 0).all(axis=1)
        self.spatial, self.owner = self.spatial[kept], self.owner[kept]
        kept = without_mirrors(problem, self.spatial)
        self.spatial, self.owner = self.spatial[kept], self.owner[kept]
        self.left: Ints = np.array(problem.extents) // self.spatial.prod(axis=1)
        unit = problem.unit
        steps = self.left.prod(axis=1).astype(np.float64)
        self.cycles = np.maximum(np.ceil(steps * float(unit.cycles_per_step)), unit.fixed_cycles)
        self.constant_pj = unit.fixed_pj + problem.layer.macs * unit.mac_pj
        self.static_pj = unit.static_pj_per_cycle * self.cycles
        self.serial = itertools.count()
        self.covered = self.priced = 0
        self.closed = math.inf  # least bound of a part whose price stayed above it
        self.attained = math.inf  # least bound that a price reached, but for rounding
        self.rounding_pj = rounding_pj(problem)

    def bound_of(self, row: int, energy_pj: float) -> float:
        """Bound on the objective from a bound on the energy of crossings."""
        cycles = float(self.cycles[row])
        if self.objective == "latency":
            return cycles if math.isfinite(energy_pj) else math.inf
        energy = energy_pj + self.constant_pj + float(self.static_pj[row])
        return energy if self.objective == "energy" else energy * cycles

    def cutoff_pj(self, row: int) -> float:
        """Energy of crossings from which on a row cannot beat the best."""
        if self.objective == "latency" or not math.isfinite(self.best):
            return math.inf
        best = self.best if self.objective == "energy" else self.best / float(self.cycles[row])
        return best - self.constant_pj - float(self.static_pj[row])

    def run(self, gap: float, deadline: float) -> Proof:
        """Best first until the least bound reaches the best value, within `gap`, or until the deadline."""
        rows = np.argsort(self.cycles, kind="stable") if self.objective != "energy" else np.arange(len(self.spatial))
        none = np.zeros_like(self.spatial[:1])
        heap, waiting = self.bounded([(int(row), none[0]) for row in rows], deadline, gap)
        heapq.heapify(heap)
        while heap and self.open(heap[0].bound, gap):
            if waiting < math.inf or time.perf_counter() > deadline:
                bound = min(heap[0].bound, self.closed, self.attained, waiting)
                return Proof(bound, False, self.covered, self.priced)
            part = heapq.heappop(heap)
            if part.exact:
                self.solve(part)
                continue
            choices = [(part.row, spacing) for spacing in spacings(self.problem, self.spatial[part.row])]
            found, waiting = self.bounded(choices, deadline, gap)
            for child in found:
                child.exact, child.bound = True, max(child.bound, part.bound)
                heapq.heappush(heap, child)
        left = min((part.bound for part in heap), default=math.inf)
        bound = min(left, self.closed, waiting, self.best)
        return Proof(min(bound, self.attained), not self.open(bound, gap), self.covered, self.priced)

    def open(self, bound: float, gap: float) -> bool:
        """Whether something of this bound may beat the best by more than the gap."""
        return bound * (1.0 + max(gap, TOLERANCE)) < self.best

    def bounded(self, choices: list[tuple[int, Ints]], deadline: float, gap: float) -> tuple[list[Part], float]:
        """Parts that may still hold something better, and the least bound of those that time did not allow for."""
        found: list[Part] = []
        for start in range(0, len(choices), CHUNK):
            mine = choices[start : start + CHUNK]
            if time.perf_counter() > deadline:
                return found, min(self.bound_of(row, 0.0) for row, _ in choices[start:])
            rows = [row for row, _ in mine]
            energies, covered = self.kernel.bounds(self.spatial[rows], np.array([spacing for _, spacing in mine]))
            self.covered += covered
            for (row, spacing), energy in zip(mine, energies.tolist(), strict=True):
                bound = self.bound_of(row, energy)
                if math.isfinite(bound) and self.open(bound, gap):
                    exact = bool(spacing.any()) or not needs_spacing(self.problem, self.spatial[row])
                    found.append(Part(bound, next(self.serial), row, spacing, exact))
        return found, math.inf

    def solve(self, part: Part) -> None:
        """The cheapest path of a part, priced."""
        cutoff = self.cutoff_pj(part.row)
        path = self.kernel.path(self.spatial[part.row], part.spacing, cutoff, NODES)
        self.covered += path.nodes
        if not path.steps:
            if math.isfinite(path.energy_pj):
                self.closed = min(self.closed, max(part.bound, self.bound_of(part.row, path.energy_pj)))
            return
        mapping = write_path(self.problem, self.options, int(self.owner[part.row]), path.steps)
        self.priced += 1
        value = self.value(mapping)
        bound = self.bound_of(part.row, path.energy_pj)
        if value is None or value > self.bound_of(part.row, path.energy_pj + self.rounding_pj) * (1 + TOLERANCE):
            self.closed = min(self.closed, bound)
        else:
            self.attained = min(self.attained, bound)
        if value is not None:
            self.best = min(self.best, value)


def window_places(problem: Problem, spatial: Ints) -> list[tuple[int, int]]:
    """(array, dim) where windows are spread over an array's elements and go on in time."""
    left = np.array(problem.extents) // spatial.prod(axis=0)
    dims = [dim for _, pair in window_ranks(problem) for dim in pair]
    return [(j, dim) for j in range(len(spatial)) for dim in dims if spatial[j, dim] > 1 and left[dim] > 1]


def needs_spacing(problem: Problem, spatial: Ints) -> bool:
    """Whether distances between array elements matter to the windows of an unrolling."""
    return bool(window_places(problem, spatial))


def spacings(problem: Problem, spatial: Ints) -> list[Ints]:
    """Every choice of temporal extents with which windows may be spread over arrays: distances of their elements."""
    left = np.array(problem.extents) // spatial.prod(axis=0)
    places = window_places(problem, spatial)
    found: list[Ints] = []
    for choice in itertools.product(*(divisors(int(left[dim])) for _, dim in places)):
        spacing = np.zeros_like(spatial)
        for (array, dim), distance in zip(places, choice, strict=True):
            spacing[array, dim] = distance
        nested = all(
            spacing[outer, dim] % spacing[inner, dim] == 0
            for inner, dim in places
            for outer, other in places
            if dim == other and outer > inner
        )
        if nested:
            found.append(spacing)
    return found


def without_mirrors(problem: Problem, spatial: Ints) -> Ints:
    """Rows of unrollings, one of each pair that only swaps rows and columns of a square layer."""
    layer, dims = problem.layer, problem.dims
    loops = layer.loops
    square = loops.P == loops.Q and loops.R == loops.S and layer.stride[0] == layer.stride[1]
    if not (square and layer.dilation[0] == layer.dilation[1]):
        return np.arange(len(spatial))
    swap = [dims.index(dict(zip("PQRS", "QPSR", strict=True)).get(dim, dim)) for dim in dims]
    known = {row.tobytes(): i for i, row in enumerate(spatial)}
    mirror = [known.get(np.ascontiguousarray(row[:, swap]).tobytes(), i) for i, row in enumerate(spatial)]
    return np.array([i for i, other in enumerate(mirror) if i <= other])
