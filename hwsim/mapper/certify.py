"""The proven optimum over the declared space: best-first over unrollings, cheap bounds first.

Every unrolling starts with a lower bound (kernel.c: the cheapest path if the input were alone with its windows). The
least bound is followed: distances between array elements are fixed where windows make them matter, then the cheapest
path is found exactly and its nest priced. Time enters by regimes (`timing`): where a price lies above its bound because
another resource is the slowest, that regime joins the bound and the part is solved again. A part of the space is closed
only by its bound: where a price stays above it, the bound stays in the certificate.
"""

from __future__ import annotations

import heapq
import itertools
import math
import time
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hwsim.counts import count_accesses
from hwsim.mapper import certify_numpy
from hwsim.mapper.certify_numpy import TOLERANCE, Proof, Value, partial_words, rounding_pj
from hwsim.mapper.halos import window_ranks
from hwsim.mapper.lattice import Ints, divisors
from hwsim.mapper.native import COST, ENERGY, MIXED, TABLES, TIME, Kernel, Prices, open_kernel
from hwsim.mapper.nest import write_path
from hwsim.mapper.problem import Problem
from hwsim.mapper.timing import COMPUTE, VECTOR, Regime, Timing
from hwsim.mapper.unrolling import Unrollings, unrollings
from hwsim.mapping import Mapping

CHUNK = 256
NODES = 300_000


@dataclass(order=True)
class Part:
    """A part of the space: one unrolling, perhaps with the distances of its array elements."""

    bound: float
    serial: int
    row: int = field(compare=False)
    spacing: Ints = field(compare=False)
    exact: bool = field(compare=False)  # every distance that matters is fixed


def certified_search(
    problem: Problem,
    objective: str,
    value: Value,
    best: float,
    incumbent: Mapping | None = None,
    remainders: bool = False,
) -> Search | certify_numpy.Search | None:
    """The search in C, or in numpy without a compiler. `incumbent`: a good mapping, tells which resource is slow.

    `remainders`: unrollings need not divide, as far as `declared` allows; numpy takes perfect factors only.
    None without a compiler on a machine of several arrays: there the numpy search was never held against enumeration,
    and a bound that may be too high proves nothing.
    """
    kernel = open_kernel(problem, remainders)
    if kernel is not None:
        return Search(problem, objective, value, best, kernel, incumbent, remainders)
    return certify_numpy.Search(problem, objective, value, best) if len(problem.arrays) <= 1 else None


class Search:
    """One certified search; `value` prices a mapping exactly, `objective` energies and cycles alike."""

    def __init__(
        self,
        problem: Problem,
        objective: str,
        value: Value,
        best: float,
        kernel: Kernel,
        incumbent: Mapping | None,
        remainders: bool,
    ) -> None:
        self.problem, self.objective, self.value, self.best, self.kernel = problem, objective, value, best, kernel
        windows = {dim for _, pair in window_ranks(problem) for dim in pair}
        self.options: Unrollings = unrollings(problem, imperfect=remainders, divided=sorted(windows))
        rows = np.flatnonzero(declared(problem, self.options))
        per_array = self.options.per_array(len(problem.arrays))[rows]
        self.spatial, owner = np.unique(per_array, axis=0, return_index=True)
        self.owner = rows[owner]
        kept = without_mirrors(problem, self.spatial)
        self.spatial, self.owner = self.spatial[kept], self.owner[kept]
        self.timing = Timing(problem)
        self.constant_pj = problem.unit.fixed_pj + problem.layer.macs * problem.unit.mac_pj
        self.idle_pj = problem.unit.static_pj_per_cycle
        self.timed = objective != "energy" or self.idle_pj > 0
        self.tables: list[Prices] = []
        self.offsets: NDArray[np.float64] = np.zeros((0, len(self.spatial)))
        self.regimes: list[Regime] = []
        self.remainders = remainders
        self.serial = itertools.count()
        self.covered = self.priced = 0
        self.closed = math.inf  # least bound of a part whose price stayed above it
        self.attained = math.inf  # least bound that a price reached, but for rounding
        self.left_out = math.inf  # least bound of a part not followed because it is within the gap
        self.rounding_pj, self.rounding_cycles = rounding_pj(problem), rounding_cycles(self.timing)
        self.start(incumbent)

    # --- what is bounded ---------------------------------------------------------------------------------------------

    def start(self, incumbent: Mapping | None) -> None:
        """The first tables of prices."""
        if self.objective == "edp":
            self.add(Prices(ENERGY, 1.0, 0.0, None))
        elif not self.timed:
            self.add(Prices(COST, 1.0, 0.0, None))
        if self.timed:
            regimes = [self.timing.default()]
            if incumbent is not None:
                problem = self.problem
                regimes.append(self.timing.regime_of(count_accesses(problem.layer, incumbent, problem.accelerator)))
            for regime in dict.fromkeys(regimes):
                self.learn(regime)
        self.kernel.set_tables(self.tables)

    def learn(self, regime: Regime) -> bool:
        """Another regime for the bound; False where it is known or no table is left."""
        room = TABLES - len(self.tables)
        if not self.timed or regime in self.regimes or room < 1:
            return False
        self.regimes.append(regime)
        if self.objective != "edp":
            weights = (1.0, self.idle_pj) if self.objective == "energy" else (0.0, 1.0)
            self.add(Prices(COST, *weights, regime))
            return True
        self.add(Prices(TIME, 0.0, 1.0, regime))
        if room > 1 and not set(regime.busy) <= {COMPUTE, VECTOR}:
            cycles = float(self.offsets[-1].min()) or 1.0
            energy = float(self.best / cycles) if math.isfinite(self.best) else self.constant_pj
            self.add(Prices(MIXED, cycles, cycles * self.idle_pj + energy, regime, energy))
        return True

    def add(self, prices: Prices) -> None:
        """A table and what it adds to the sums of every unrolling."""
        self.tables.append(prices)
        offset = np.full(len(self.spatial), prices.energy * self.constant_pj)
        if prices.regime is not None:
            offset += prices.time * self.timing.constant_cycles(prices.regime, self.spatial)
        self.offsets = np.concatenate([self.offsets, offset[None]])

    def objectives(self, rows: list[int], sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """Bounds on the objective from those on the sums of all tables, [row, table]: as `objective_of` in kernel.c."""
        values = sums + self.offsets[:, rows].T
        kinds = np.array([table.kind for table in self.tables])
        if self.objective != "edp":
            bounds = values.max(axis=1)
            return np.ceil(bounds - 1e-6) if self.objective == "latency" else bounds
        cycles = values[:, kinds == TIME].max(axis=1)
        energy = values[:, kinds == ENERGY][:, 0] + self.idle_pj * cycles
        bounds = energy * cycles
        for t, table in enumerate(self.tables):
            if table.kind == MIXED:
                a, b = table.weights
                more = values[:, t] > a * energy + b * cycles
                least = np.minimum(energy * (values[:, t] - a * energy) / b, cycles * (values[:, t] - b * cycles) / a)
                bounds = np.where(more, np.maximum(bounds, least), bounds)
        return bounds

    # --- the search --------------------------------------------------------------------------------------------------

    def run(self, gap: float, deadline: float) -> Proof:
        """Best first until the least bound reaches the best value, within `gap`, or until the deadline."""
        began = time.process_time()
        order = np.argsort(self.spatial.prod(axis=(1, 2)), kind="stable")[::-1]
        none = np.zeros_like(self.spatial[:1])
        heap, waiting = self.bounded([(int(row), none[0]) for row in order], deadline, gap)
        heapq.heapify(heap)
        root = min(heap[0].bound if heap else math.inf, self.left_out, waiting), time.process_time() - began
        while heap and self.open(heap[0].bound, gap):
            if waiting < math.inf or time.perf_counter() > deadline:
                bound = min(heap[0].bound, self.closed, self.attained, self.left_out, waiting)
                return Proof(bound, False, self.covered, self.priced, *root)
            part = heapq.heappop(heap)
            if part.exact:
                again = self.solve(part)
                if again is not None:
                    heapq.heappush(heap, again)
                continue
            choices = [(part.row, spacing) for spacing in spacings(self.problem, self.spatial[part.row])]
            found, waiting = self.bounded(choices, deadline, gap)
            for child in found:
                child.exact, child.bound = True, max(child.bound, part.bound)
                heapq.heappush(heap, child)
        left = min((part.bound for part in heap), default=math.inf)
        bound = min(left, self.closed, self.left_out, waiting, self.best)
        return Proof(min(bound, self.attained), not self.open(bound, gap), self.covered, self.priced, *root)

    def open(self, bound: float, gap: float) -> bool:
        """Whether something of this bound may beat the best by more than the gap."""
        return bound * (1.0 + max(gap, TOLERANCE)) < self.best

    def bounded(self, choices: list[tuple[int, Ints]], deadline: float, gap: float) -> tuple[list[Part], float]:
        """Parts that may still hold something better, and the least bound of those that time did not allow for."""
        found: list[Part] = []
        for start in range(0, len(choices), CHUNK):
            mine = choices[start : start + CHUNK]
            rows = [row for row, _ in mine]
            if time.perf_counter() > deadline:
                rest = [row for row, _ in choices[start:]]
                return found, float(self.objectives(rest, np.zeros((len(rest), len(self.tables)))).min())
            sums, covered = self.kernel.bounds(self.spatial[rows], np.array([spacing for _, spacing in mine]))
            self.covered += covered
            for (row, spacing), bound in zip(mine, self.objectives(rows, sums).tolist(), strict=True):
                if self.open(bound, gap):
                    exact = bool(spacing.any()) or not needs_spacing(self.problem, self.spatial[row])
                    found.append(Part(bound, next(self.serial), row, spacing, exact))
                else:
                    self.left_out = min(self.left_out, bound)
        return found, math.inf

    def solve(self, part: Part) -> Part | None:
        """The cheapest path of a part, priced; the part again where its price taught another regime."""
        cutoff = self.best - 1 + 1e-6 if self.objective == "latency" else self.best
        offsets = np.ascontiguousarray(self.offsets[:, part.row])
        path = self.kernel.path(self.spatial[part.row], part.spacing, offsets, self.idle_pj, cutoff, NODES)
        self.covered += path.nodes
        bound = max(part.bound, path.value)
        if not path.steps:
            if math.isfinite(path.value):
                self.closed = min(self.closed, bound)
            return None
        mapping = write_path(self.problem, self.options, int(self.owner[part.row]), path.steps)
        self.priced += 1
        value = self.value(mapping)
        if value is not None:
            self.best = min(self.best, value)
            problem = self.problem
            if value > bound * (1 + TOLERANCE) and self.learn(
                self.timing.regime_of(count_accesses(problem.layer, mapping, problem.accelerator))
            ):
                self.kernel.set_tables(self.tables)
                part.bound = bound
                return part
            if value <= self.rounded(part.row, bound):
                self.attained = min(self.attained, bound)
                return None
        self.closed = min(self.closed, bound)
        return None

    def rounded(self, row: int, bound: float) -> float:
        """The highest price that counts as reaching a bound: words and cycles are rounded up once per entry."""
        more_pj = self.rounding_pj + self.idle_pj * self.rounding_cycles
        if self.objective == "energy":
            return bound * (1 + TOLERANCE) + more_pj
        if self.objective == "latency":
            return bound + self.rounding_cycles
        cycles = float(self.timing.compute_cycles(self.spatial[[row]])[0])
        return bound * (1 + TOLERANCE + self.rounding_cycles / cycles + more_pj * cycles / bound)


def declared(problem: Problem, options: Unrollings) -> NDArray[np.bool_]:
    """Which unrollings the proof covers, of those that divide all dims with windows.

    A dim that they do not divide is on one array only, and none of its factors could be smaller without more steps: 64
    channels take 13 of 14 columns for 5 steps.
    """
    extents = np.array(problem.extents)
    spatial = options.per_array(len(problem.arrays))
    total = options.factors.prod(axis=1)
    alone = (spatial > 1).sum(axis=1) <= 1
    smaller = total[:, None] // options.factors * (options.factors - 1)
    steps = -(-extents // total)
    needed = ((options.factors == 1) | (-(-extents // np.maximum(smaller, 1)) > steps[:, None])).all(axis=1)
    return ((extents % total == 0) | (alone & needed)).all(axis=1)


def rounding_cycles(timing: Timing) -> float:
    """Cycles that a latency may lie above its regime's sum: rounding per resource, a part of a word per entry."""
    memories = {memory.name: memory for memory in timing.problem.accelerator.memories}
    total = 1.0 + len(timing.waiting)
    for (name, _), limit in timing.bandwidths.items():
        total += 2 * len(partial_words(timing.problem, memories[name])) * memories[name].word_bits / limit
    return total


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
