"""The proven optimum over the declared space: best-first over unrollings, cheap bounds first.

Every unrolling starts with a lower bound in closed form (`closed_bound`); the least ones get a bound of their own
lattice (kernel/: the cheapest path if the input were alone with its windows). The least of those is followed:
distances between array elements are fixed where windows make them matter, then the cheapest path is found exactly and
priced.
Time enters by regimes (`timing`): where a price lies above its bound because another resource is the slowest, that
regime joins the bounds and the part is solved again. A part of the space is closed only by its bound: where a price
stays above it, the bound stays in the certificate.
"""

from __future__ import annotations

import heapq
import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hwsim.machine.mac import MacCost
from hwsim.nest.count import count_accesses
from hwsim.nest.mapping import Mapping
from hwsim.nest.points import Ints
from hwsim.pricing.rounding import rounding_pj
from hwsim.search.bounds.closed_form import ClosedBound, Rows
from hwsim.search.objective import Budget
from hwsim.search.proof.native import SUMS, Kernel, open_kernel
from hwsim.search.space.lattice import divisors
from hwsim.search.space.prices import COST, ENERGY, MIXED, TIME, Linear, Prices, linear
from hwsim.search.space.problem import Problem
from hwsim.search.space.timing import COMPUTE, VECTOR, Regime, Timing, rounding_cycles
from hwsim.search.space.unrolling import Unrollings, axis_choices, listing, provable, row_keys
from hwsim.search.write import write_path

CHUNKS = (4, 32)  # lattices that are bounded at once: at first, at most
APART = 8  # distances of array elements that are bounded at once
NODES = 300_000
STEEP = 10.0  # price of what is limited, in units of the best value over the limit
# Rounding of partial words and of floats: bounds closer than this to the best price count as reached.
TOLERANCE = 1e-9

Value = Callable[[Mapping], float | None]  # the objective of a legal mapping; None if it is illegal


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


@dataclass(order=True)
class Part:
    """A part of the space: one unrolling, perhaps with the distances of its array elements."""

    bound: float
    serial: int
    row: int = field(compare=False)
    spacing: Ints = field(compare=False)
    exact: bool = field(compare=False)  # every distance that matters is fixed


def certified_search(problem: Problem, objective: str, value: Value, remainders: bool = False) -> Search | None:
    """The search with the C kernel; None where `native.why_no_kernel` says why there is none.

    `remainders`: unrollings need not divide, as far as `unrolling.provable` tells.
    """
    kernel = open_kernel(problem, remainders)
    return None if kernel is None else Search(problem, objective, value, kernel, remainders)


class Search:
    """One certified search; `value` prices a mapping exactly, `objective` energies and cycles alike."""

    def __init__(self, problem: Problem, objective: str, value: Value, kernel: Kernel, remainders: bool) -> None:
        self.problem, self.kernel, self.remainders = problem, kernel, remainders
        options = listing(problem, remainders)
        mirrors = problem.rules == () and same_both_ways(problem.unit.mac)  # rules may tell rows and columns apart
        self.options = options[without_mirrors(problem, options.spatial)] if mirrors else options
        self.spatial = self.options.spatial
        self.timing, self.closed_bound = Timing(problem), ClosedBound(problem, self.spatial)
        self.constant_pj = problem.unit.fixed_pj + problem.layer.macs * problem.unit.mac_pj
        self.idle_pj = problem.unit.static_pj_per_cycle
        self.needed = np.zeros(len(problem.dims), dtype=np.int64)  # no more iterations than a dim needs
        self.rounding_pj = rounding_pj(problem.unit, problem.accelerator)
        self.rounding_cycles = rounding_cycles(self.timing)
        self.begin(objective, value)

    def begin(self, objective: str, value: Value, budget: Budget | None = None) -> None:
        """Start anew with an objective, perhaps within a budget of another one."""
        self.objective, self.value, self.budget = objective, value, budget
        self.best = math.inf
        self.nodes = NODES if budget is None else NODES // 10
        self.apart = objective == "edp" or budget is not None  # energy and time have tables of their own
        self.timed = self.apart or objective != "energy" or self.idle_pj > 0
        self.tables: list[tuple[Prices, Linear]] = []
        self.known: dict[int, NDArray[np.float64]] = {}  # least sums of whole lattices under these tables, by row
        nothing: NDArray[np.float64] = np.zeros((0, len(self.spatial)))
        self.offsets, self.least_sums = nothing, nothing  # [table, row]
        self.regimes: list[Regime] = []
        self.serial = itertools.count()
        self.covered = self.priced = 0
        self.closed = math.inf  # least bound of a part whose price stayed above it
        self.attained = math.inf  # least bound that a price reached, but for rounding
        self.left_out = math.inf  # least bound of a part not followed

    def covers(self, options: Unrollings) -> NDArray[np.bool_]:
        """Which unrollings are in the space of the proof."""
        return provable(self.problem, options, self.remainders)

    # --- what is bounded ---------------------------------------------------------------------------------------------

    def start(self, incumbent: Mapping | None) -> None:
        """The first tables of prices."""
        if self.apart:
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
        room = SUMS - len(self.tables)
        if not self.timed or regime in self.regimes or room < 1:
            return False
        self.regimes.append(regime)
        if not self.apart:
            weights = (1.0, self.idle_pj) if self.objective == "energy" else (0.0, 1.0)
            self.add(Prices(COST, *weights, regime))
            return True
        self.add(Prices(TIME, 0.0, 1.0, regime))
        if room > 1 and not set(regime.busy) <= {COMPUTE, VECTOR}:
            self.add(self.mixed(regime, float(self.offsets[-1].min()) or 1.0))
        return True

    def mixed(self, regime: Regime, cycles: float) -> Prices:
        """A weighted sum of energy and time: near the best product known, or steep in what a budget limits."""
        known, energy, time = math.isfinite(self.best), 1.0, 1.0
        if self.budget is None:
            energy, time = cycles, self.best / cycles if known else self.constant_pj
        elif self.budget.objective == "latency":
            time = STEEP * (self.best if known else self.constant_pj) / self.budget.most
        else:
            energy = STEEP * (self.best if known else cycles) / self.budget.most
        return Prices(MIXED, float(energy), float(energy * self.idle_pj + time), regime, float(time))

    def add(self, prices: Prices) -> None:
        """A table, what it adds to the sums of every unrolling, and their bounds in closed form."""
        priced = linear(self.problem, prices)
        self.tables.append((prices, priced))
        self.known.clear()
        self.least_sums = np.concatenate([self.least_sums, self.closed_bound.sums(priced)[None]])
        offset = np.full(len(self.spatial), prices.energy * self.constant_pj)
        if prices.regime is not None:
            offset += prices.time * self.timing.constant_cycles(prices.regime, self.spatial)
        self.offsets = np.concatenate([self.offsets, offset[None]])

    def objectives(self, rows: Ints | list[int], sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """Bounds on the objective from those on the sums of all tables, [row, table]: as `objective_of` in kernel.c."""
        values = sums + self.offsets[:, rows].T
        kinds = np.array([prices.kind for prices, _ in self.tables])
        if not self.apart:
            bounds = values.max(axis=1)
            return np.ceil(bounds - 1e-6) if self.objective == "latency" else bounds
        cycles = values[:, kinds == TIME].max(axis=1)
        energy = values[:, kinds == ENERGY][:, 0] + self.idle_pj * cycles
        if self.budget is not None:
            return self.within(self.budget, values, energy, cycles)
        bounds = energy * cycles
        for t, (prices, _) in enumerate(self.tables):
            if prices.kind == MIXED:
                a, b = prices.weights
                more = values[:, t] > a * energy + b * cycles
                with np.errstate(invalid="ignore"):  # where nothing fits all are infinite
                    ends = energy * (values[:, t] - a * energy) / b, cycles * (values[:, t] - b * cycles) / a
                least = np.minimum(*ends)
                bounds = np.where(more, np.maximum(bounds, least), bounds)
        return bounds

    def within(self, budget: Budget, values: Rows, energy: Rows, cycles: Rows) -> Rows:
        """Bounds on one objective within a budget of the other, as `objective_within` in kernel.c."""
        late = budget.objective == "latency"
        limited, bounds = (cycles, energy) if late else (energy, cycles)
        for t, (prices, _) in enumerate(self.tables):
            if prices.kind == MIXED:
                a, b = prices.weights
                left = (values[:, t] - b * budget.most) / a if late else (values[:, t] - a * budget.most) / b
                bounds = np.maximum(bounds, left)
        bounds = bounds if late else np.ceil(bounds - 1e-6)
        return np.where(limited > budget.most * (1 + 1e-12), np.inf, bounds)

    # --- the search --------------------------------------------------------------------------------------------------

    def run(
        self, gap: float, deadline: float, best: float = math.inf, incumbent: Mapping | None = None,
        most: float = math.inf,
    ) -> Proof:  # fmt: skip
        """Best first until the least bound reaches the best value, within `gap`, or until the deadline.

        `best`: a value that is known; `incumbent`: a good mapping, which tells what resource is slow; `most`: lattice
        points to look at before it gives up.
        """
        began = time.thread_time()
        self.best = best
        if not len(self.spatial):  # rules leave no unrolling
            return Proof(best, True, 0, 0)
        self.start(incumbent)
        heap: list[Part] = []
        rows, cheap = self.waiting(np.arange(len(self.spatial)))
        chunk = CHUNKS[0]
        root: tuple[float, float] | None = None
        while True:
            least = min(heap[0].bound if heap else math.inf, cheap[0] if len(cheap) else math.inf)
            if root is None and self.priced and heap and heap[0].bound == least:
                root = least, time.thread_time() - began
            if not self.open(least, gap):
                self.covered += int(self.points[rows].sum())
                break
            if time.perf_counter() > deadline or self.covered > most:
                break
            if len(cheap) and cheap[0] == least:
                chosen = max(1, int(np.searchsorted(cheap[:chunk], self.best)))
                chunk = min(2 * chunk, CHUNKS[1])
                for part in self.bounded(rows[:chosen], np.zeros_like(self.spatial[rows[:chosen]])):
                    heapq.heappush(heap, part)
                rows, cheap = rows[chosen:], cheap[chosen:]
                continue
            part = heapq.heappop(heap)
            if part.exact:
                known = len(self.tables)
                again = self.solve(part)
                if again is not None:
                    heapq.heappush(heap, again)
                if len(self.tables) > known:
                    rows, cheap = self.waiting(rows)
                    self.raise_bounds(heap)
                continue
            choices = spacings(self.problem, self.spatial[part.row], self.steps_of(part.row))
            for start in range(0, len(choices), APART):
                mine = choices[start : start + APART]
                if time.perf_counter() > deadline:  # what is left stays as it was
                    self.left_out = min(self.left_out, part.bound)
                    break
                for child in self.bounded(np.full(len(mine), part.row), np.array(mine)):
                    child.exact, child.bound = True, max(child.bound, part.bound)
                    heapq.heappush(heap, child)
        bound = min(least, self.closed, self.left_out, self.best)
        proven = min(bound, self.attained)
        return Proof(proven, not self.open(bound, gap), self.covered, self.priced, *(root or (least, 0.0)))

    def raise_bounds(self, heap: list[Part]) -> None:
        """Bounds of parts after another regime joined, in closed form."""
        rows = np.array([part.row for part in heap], dtype=np.int64)
        for part, bound in zip(heap, self.objectives(rows, self.least_sums[:, rows].T).tolist(), strict=True):
            part.bound = max(part.bound, bound)
        heapq.heapify(heap)

    def waiting(self, rows: Ints) -> tuple[Ints, NDArray[np.float64]]:
        """Unrollings by their bounds in closed form, the least first."""
        bounds = self.objectives(rows, self.least_sums[:, rows].T)
        order = np.argsort(bounds, kind="stable")
        return rows[order], bounds[order]

    @cached_property
    def points(self) -> Ints:
        """Lattice points per unrolling."""
        steps = -(-np.array(self.problem.extents) // self.spatial.prod(axis=1))
        values, index = np.unique(steps, return_inverse=True)
        return np.array([len(divisors(int(n))) for n in values])[index].reshape(steps.shape).prod(axis=1)

    def steps_of(self, row: int) -> Ints:
        """Temporal iterations of every dim."""
        return -(-np.array(self.problem.extents) // self.spatial[row].prod(axis=0))

    def open(self, bound: float, gap: float) -> bool:
        """Whether something of this bound may beat the best by more than the gap."""
        return bound * (1.0 + max(gap, TOLERANCE)) < self.best

    def bounded(self, rows: Ints, spacing: Ints) -> list[Part]:
        """Bounds of lattices of their own: the parts that may still hold something better."""
        sums, covered = self.kernel.bounds(self.spatial[rows], spacing)
        if not spacing.any():
            self.known.update(zip(rows.tolist(), sums, strict=True))
        sums = np.maximum(sums, self.least_sums[:, rows].T)
        self.covered += covered
        found: list[Part] = []
        for row, apart, bound in zip(rows.tolist(), spacing, self.objectives(rows, sums).tolist(), strict=True):
            if self.open(bound, 0.0):
                exact = bool(apart.any()) or not window_places(self.problem, self.spatial[row], self.steps_of(row))
                found.append(Part(bound, next(self.serial), row, apart, exact))
            else:
                self.left_out = min(self.left_out, bound)
        return found

    def solve(self, part: Part) -> Part | None:
        """The cheapest path of a part, priced; the part again where its price taught another regime."""
        cutoff = self.best - 1 + 1e-6 if self.objective == "latency" else self.best
        offsets = np.ascontiguousarray(self.offsets[:, part.row])
        path = self.kernel.path(
            self.spatial[part.row], part.spacing, self.needed, offsets, self.idle_pj, cutoff, self.nodes, self.budget
        )
        self.covered += path.nodes
        bound = max(part.bound, path.value)
        if not path.steps:
            if math.isfinite(path.value):
                self.closed = min(self.closed, bound)
            return None
        mapping = write_path(self.problem, self.options.one(part.row), path.steps)
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
        measured = self.problem.unit.fixed_cycles  # of a machine whose layers were measured: its MACs have no cycles
        cycles = float(self.timing.compute_cycles(self.spatial[[row]])[0]) or measured
        return bound * (1 + TOLERANCE + self.rounding_cycles / cycles + more_pj * cycles / bound)


def unrollings_at_most(problem: Problem, remainders: bool) -> int:
    """A bound on the unrollings of a search, without listing them."""
    choices = (
        len(axis_choices(problem, index, axis, remainders, None))
        for index, array in enumerate(problem.arrays)
        for axis in array.axes
    )
    return math.prod(choices)


def window_places(problem: Problem, spatial: Ints, steps: Ints) -> list[tuple[int, int]]:
    """(array, dim) where windows are spread over an array's elements and go on in time: their distance matters."""
    dims = [dim for _, pair in problem.window_ranks for dim in pair]
    return [(j, dim) for j in range(len(spatial)) for dim in dims if spatial[j, dim] > 1 and steps[dim] > 1]


def spacings(problem: Problem, spatial: Ints, steps: Ints) -> list[Ints]:
    """Every choice of temporal extents with which windows may be spread over arrays: distances of their elements.

    `steps`: temporal iterations of every dim, which they divide.
    """
    places = window_places(problem, spatial, steps)
    found: list[Ints] = []
    for choice in itertools.product(*(divisors(int(steps[dim])) for _, dim in places)):
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


def same_both_ways(mac: MacCost) -> bool:
    """Whether a unit's lanes and granule take rows as they take columns."""
    sets = [mac.lanes, *(granule.loops for granule in mac.granules)]
    return all((a in loops) == (b in loops) for loops in sets for a, b in ("PQ", "RS"))


def without_mirrors(problem: Problem, spatial: Ints) -> Ints:
    """Rows of unrollings, one of each pair that only swaps rows and columns of a square layer."""
    layer, dims = problem.layer, problem.dims
    loops = layer.loops
    square = loops.P == loops.Q and loops.R == loops.S and layer.stride[0] == layer.stride[1]
    if not (square and layer.dilation[0] == layer.dilation[1]):
        return np.arange(len(spatial))
    swap = [dims.index(dict(zip("PQRS", "QPSR", strict=True)).get(dim, dim)) for dim in dims]
    keys = row_keys(np.concatenate([spatial, spatial[:, :, swap]]))
    mine, mirrored = keys[: len(spatial)], keys[len(spatial) :]
    order = np.argsort(mine)
    place = np.minimum(np.searchsorted(mine[order], mirrored), len(order) - 1)
    return np.flatnonzero((mine[order[place]] != mirrored) | (np.arange(len(spatial)) <= order[place]))
