"""A lower bound over every legal mapping, whatever its tile sizes: the closed form, MAC by MAC.

At every step of a nest the MACs that work form boxes. In each box every dim is unrolled by some integer on every array,
at most the factor of the nest, where remainders are cut less. What a MAC's operands cost it depends on that box and on
how long tiles stay; `closed_bound` bounds the second with real numbers and so needs no tile to divide anything. Here it
is taken for every box an accelerator allows, with as many steps as if all MACs of the layer worked in such boxes
(extents / factors, not rounded up): a nest is a mixture of boxes, and a mixture costs no less than its cheapest part.

A dim that is unrolled on several axes may be cut inside any of them: its tiles then hold as few points as the cut
leaves, while its loads are shared by as many as without it. Where axes allow too many factors, neighbours share a box
that is as wide as the widest for loads and as narrow as the narrowest for tiles.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hwsim.machine.parts import Axis
from hwsim.nest.points import Ints
from hwsim.pricing.latency import start_cycles
from hwsim.pricing.rounding import bill_grid
from hwsim.search.bounds.closed_form import SLACK, CrossingBound, Rows
from hwsim.search.space.prices import COST, Linear, Prices, linear
from hwsim.search.space.problem import REDUCTION, Problem
from hwsim.search.space.timing import COMPUTE, Regime, Timing

START = 1_500  # boxes at first
SPLIT = 400  # boxes split at once
ROUNDS = 8
RATIOS = (1.0, 1.2, 1.5, 2.0, 3.0, 5.0, 1e9)  # widest over narrowest factor of a box
Factors = NDArray[np.float64]  # [axis, row, dim]


@dataclass(frozen=True)
class Boxes:
    """Ranges of factors, narrowest and widest, per axis (innermost array first), box and dim."""

    problem: Problem
    narrow: Factors
    wide: Factors

    @cached_property
    def axes(self) -> list[tuple[int, Axis]]:
        """Axes with the places of their arrays."""
        return [(place, axis) for place, array in enumerate(self.problem.arrays) for axis in array.axes]

    def __len__(self) -> int:
        return self.wide.shape[1]

    def __getitem__(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Boxes:
        return Boxes(self.problem, self.narrow[:, rows], self.wide[:, rows])

    def and_more(self, others: Boxes) -> Boxes:
        """These and others."""
        both = (np.concatenate(pair, axis=1) for pair in ((self.narrow, others.narrow), (self.wide, others.wide)))
        return Boxes(self.problem, *both)

    @cached_property
    def exact(self) -> NDArray[np.bool_]:
        """Boxes of a single unrolling."""
        return (self.narrow == self.wide).all(axis=(0, 2))

    def halves(self) -> Boxes:
        """Every box in two, where its range is widest; without what its axes do not allow."""
        rows, dims = np.arange(len(self)), self.wide.shape[2]
        place = (self.wide / self.narrow).transpose(1, 0, 2).reshape(len(self), -1).argmax(axis=1)
        axis, dim = place // dims, place % dims
        low, high = self.narrow[axis, rows, dim], self.wide[axis, rows, dim]
        middle = np.clip(np.floor(np.sqrt(low * high)), low, np.maximum(high - 1, low))
        below, above = self.wide.copy(), self.narrow.copy()
        below[axis, rows, dim], above[axis, rows, dim] = middle, np.minimum(middle + 1, high)
        return Boxes(self.problem, self.narrow, below).and_more(Boxes(self.problem, above, self.wide)).allowed()

    def allowed(self) -> Boxes:
        """Without boxes too wide for an axis, ranges cut at what the other dims leave."""
        fine = np.ones(len(self), dtype=bool)
        wide = self.wide.copy()
        for place, (_, axis) in enumerate(self.axes):
            least = self.narrow[place].prod(axis=1)
            fine &= least <= axis.size
            wide[place] = np.minimum(wide[place], np.floor(axis.size * self.narrow[place] / least[:, None] + SLACK))
            if axis.max_dims is not None:
                fine &= (self.narrow[place] > 1).sum(axis=1) <= axis.max_dims
        wide = np.maximum(wide, self.narrow)
        return Boxes(self.problem, self.narrow, wide)[fine]


def cells(most: int, ratio: float) -> list[tuple[int, int]]:
    """Factors 1..most as ranges [low, high] with high <= ratio * low."""
    found, low = list[tuple[int, int]](), 1
    while low <= most:
        high = min(most, max(low, int(low * ratio)))
        found.append((low, high))
        low = high + 1
    return found


def boxes_of_axis(problem: Problem, array: int, axis: Axis, ratio: float) -> list[tuple[tuple[int, int], ...]]:
    """What an axis allows: a range of factors per dim."""
    reduction = problem.arrays[array].reduction
    found: list[tuple[tuple[int, int], ...]] = [()]
    for dim, extent in zip(problem.dims, problem.extents, strict=True):
        choices = (
            cells(min(extent, axis.size), ratio)
            if dim in axis.dims and (reduction or dim not in REDUCTION)
            else [(1, 1)]
        )
        found = [
            (*head, cell)
            for head in found
            for cell in choices
            if math.prod(low for low, _ in head) * cell[0] <= axis.size
            and (axis.max_dims is None or cell[0] == 1 or sum(low > 1 for low, _ in head) < axis.max_dims)
        ]
    return found


def first_boxes(problem: Problem) -> Boxes:
    """All that the axes allow, in the finest ratio that gives few boxes."""
    axes = [(index, axis) for index, array in enumerate(problem.arrays) for axis in array.axes]
    per_axis: list[list[tuple[tuple[int, int], ...]]] = []
    for ratio in RATIOS:
        per_axis = [boxes_of_axis(problem, index, axis, ratio) for index, axis in axes]
        if math.prod(map(len, per_axis)) <= START * (3 if ratio == 1.0 else 1):
            break
    dims = len(problem.dims)
    found = np.ones((0, 1, dims, 2))
    for choices in per_axis:
        mine = np.array(choices, dtype=float).reshape(len(choices), dims, 2)
        rows = found.shape[1]
        found = np.concatenate([np.repeat(found, len(mine), axis=1), np.tile(mine, (1, rows, 1, 1))])
        # a dim that is covered by the axes before needs no more
        before = found[:-1, :, :, 0].prod(axis=0)
        found = found[:, ((before < problem.extents) | (found[-1, :, :, 0] == 1)).all(axis=1)]
    return Boxes(problem, found[..., 0], found[..., 1]).allowed()


class BoxBound(CrossingBound):
    """The closed form for boxes of MACs instead of unrollings."""

    def __init__(self, boxes: Boxes) -> None:
        problem, narrow, wide = boxes.problem, boxes.narrow, boxes.wide
        rows, dims, count = len(boxes), len(problem.dims), len(problem.arrays)
        extents = np.array(problem.extents, dtype=float)
        inside, held = np.ones((count + 1, rows, dims)), np.ones((count + 1, rows, dims))
        spread = (wide > 1).sum(axis=0)
        for level in range(count + 1):
            mine = [place for place, (array, _) in enumerate(boxes.axes) if array < level]
            if mine:
                inside[level] = np.minimum(wide[mine].prod(axis=0), extents)
                whole = narrow[mine].prod(axis=0)
                least = np.where(narrow[mine] > 1, narrow[mine], np.inf).min(axis=0)
                partly = np.where((wide[mine] > 1).sum(axis=0) == spread, whole - whole / least + 1, 1.0)
                held[level] = np.minimum(np.where(spread > 1, partly, whole), extents)
        self.all = np.minimum(narrow.prod(axis=0), extents)
        self.exact = bool(boxes.exact.all())
        sizes = [float(math.prod(axis.size for axis in array.axes)) for array in problem.arrays]
        instances = [np.full(rows, math.prod(sizes[level:])) for level in range(count + 1)]
        self.outside = [
            {dim for array in problem.arrays[level:] for axis in array.axes for dim in axis.dims}
            for level in range(count + 1)
        ]
        super().__init__(problem, inside, held, extents / self.all, instances, np.ones(rows))

    def apart(self, level: int) -> Rows:
        """The narrowest factors in all over the widest inside: at least so many; below one where ranges are wide."""
        return self.all / self.inside[level]

    def groups(self, level: int) -> tuple[Rows, Rows]:
        """At most: if every group had no more than its tiles hold."""
        return self.apart(level), self.all / self.held[level]

    def reach(self, level: int) -> Rows:
        """The mean over the groups."""
        return self.extents / np.maximum(self.apart(level), 1.0)

    def most_reach(self, level: int) -> Rows:
        """All but one value for each of the others."""
        return self.extents - np.maximum(self.apart(level), 1.0) + 1.0

    def neighbours(self, pair: tuple[int, int], level: int) -> list[Rows]:
        """Never sure of them where a dim may be divided among groups, some of which have fewer."""
        dims, extents = self.problem.dims, self.problem.extents
        each = [math.inf if dims[dim] in self.outside[level] else extents[dim] for dim in pair]
        return [np.full(self.rows, most) for most in each]

    def passing(self, levels: dict[int, list[int]]) -> Rows:
        """For ranges of factors also what passes wherever tiles settle: every element of an operand once."""
        found, once = super().passing(levels), np.zeros(self.rows)
        if not self.exact:
            for r, mine in levels.items():
                elements = self.problem.elements(self.crossings[r].operand)
                for level in mine:
                    price = self.per_group(self.prices[r, :, level])
                    once += np.maximum(price, 0.0) * np.maximum(self.loads(r, level)[0], elements)
                    once += np.minimum(self.costs[r, level], 0.0) * self.again[self.operand[r]]
                if self.crossings[r].segment in mine:
                    once += self.constants[r]
        return np.maximum(found, once) if not self.exact else found

    def sums(self, prices: Linear) -> Rows:
        """The least sum per box."""
        self.prices = prices.price
        return super().sums(prices)

    @cached_property
    def least_steps(self) -> Rows:
        """Steps per box if all MACs of the layer worked in such boxes.

        A unit does at most as many products in a step as its lanes have iterations beside the narrowest factors.
        """
        problem = self.problem
        units = math.prod(axis.size for array in problem.arrays for axis in array.axes)
        lanes = [e for e, dim in enumerate(problem.dims) if dim in problem.unit.mac.lanes]
        filled = np.ceil(problem.extents / self.all - SLACK)[:, lanes].prod(axis=1)
        at_once = np.minimum(self.inside[-1].prod(axis=1), units) * np.minimum(filled, problem.unit.mac.products)
        return np.maximum(np.prod(problem.extents, dtype=float) / at_once, 1.0)

    @cached_property
    def least_cycles(self) -> Rows:
        """Cycles of `least_steps`."""
        return self.least_steps * float(self.problem.unit.mac.step_cycles)

    @cached_property
    def whole_cycles(self) -> Rows:
        """Cycles per box as the widest unrolling of it, in whole steps."""
        widest = np.ceil(self.problem.extents / self.inside[-1] - SLACK).astype(np.int64)
        steps = np.maximum(self.problem.steps(widest), np.ceil(self.least_steps - SLACK))
        return steps * float(self.problem.unit.mac.step_cycles)


class AnyTiles:
    """Bounds over every legal mapping of a layer on an accelerator."""

    def __init__(self, problem: Problem, rounds: int = ROUNDS) -> None:
        self.problem, self.rounds = problem, rounds
        self.timing = Timing(problem)
        self.boxes = first_boxes(problem)
        self.looked_at = 0

    def bound(self, objective: str, regimes: Iterable[Regime], energy_pj: float, cycles: float) -> float:
        """Bound on the objective; `energy_pj`, `cycles`: of a good mapping, near which an EDP is bounded best.

        A bill's entries are kept on a grid and may be a little below what they sum.
        """
        regimes = tuple(dict.fromkeys((self.timing.default(), *regimes)))
        idle = self.problem.unit.static_pj_per_cycle
        if objective == "latency":
            return math.ceil(self.least(0.0, 1.0, regimes) - 1e-6)
        energy = self.least(1.0, idle, regimes) * (1 - 1e-9) - bill_grid(self.problem.accelerator)
        if objective == "energy":
            return energy
        time = self.least(0.0, 1.0, regimes)
        both = self.least(1 / energy_pj, idle / energy_pj + 1 / cycles, regimes) * (1 - 1e-9)
        both -= bill_grid(self.problem.accelerator) / energy_pj
        if both <= energy / energy_pj + time / cycles:
            return energy * time
        # least at one of the ends of what the two bounds leave of the line
        return min(energy * (both - energy / energy_pj) * cycles, time * (both - time / cycles) * energy_pj)

    def least(self, energy: float, time: float, regimes: Iterable[Regime]) -> float:
        """Least of energy times pJ plus time times cycles; what idle units leak is time.

        Every regime gives a sum that no mapping goes below, as does the time of the fastest unrolling; so does every
        mean of them. The boxes that are least in the best of some means are split until those left are unrollings.
        """
        problem = self.problem
        kinds = tuple(regimes) if time else ()
        constant = energy * (problem.unit.fixed_pj + problem.layer.macs * problem.unit.mac_pj)
        tables = [linear(problem, Prices(COST, energy, time, regime)) for regime in kinds]
        fixed = [self.fixed_cycles(regime) for regime in kinds]
        alone = linear(problem, Prices(COST, energy, 0.0, None)) if energy else None

        def sums(boxes: Boxes) -> NDArray[np.float64]:
            self.looked_at += len(boxes)
            found = BoxBound(boxes)
            rows = [
                found.sums(table) + time * (cycles + found.least_cycles * (COMPUTE in regime.busy))
                for regime, table, cycles in zip(kinds, tables, fixed, strict=True)
            ]
            rows.append(time * self.fewest_cycles + (found.sums(alone) if alone else np.zeros(len(boxes))))
            return np.array(rows)

        weights = np.array(list(means(len(kinds) + 1)))
        values = sums(self.boxes)
        for _ in range(self.rounds):
            mean = weights[(weights @ values).min(axis=1).argmax()] @ values
            exact = self.boxes.exact
            wanting = np.flatnonzero(~exact & (mean < mean[exact].min(initial=np.inf) * (1 - 1e-9)))
            if not len(wanting):
                break
            split = np.zeros(len(self.boxes), dtype=bool)
            split[wanting[np.argsort(mean[wanting], kind="stable")[:SPLIT]]] = True
            halves = self.boxes[split].halves()
            values = np.concatenate([values[:, ~split], sums(halves)], axis=1)
            self.boxes = self.boxes[~split].and_more(halves)
        return float((weights @ values).min(axis=1).max()) + constant

    def fixed_cycles(self, regime: Regime) -> float:
        """The part of a regime's cycles that is the same everywhere."""
        others = Regime(tuple(port for port in regime.busy if port != COMPUTE), regime.waits)
        cycles = float(self.timing.constant_cycles(others, self.all_units)[0])
        return cycles + (self.timing.filled_once(apart=True) if COMPUTE in regime.busy else 0.0)

    @cached_property
    def all_units(self) -> Ints:
        """Every array in full, as an unrolling of one dim."""
        sizes = [[math.prod(axis.size for axis in array.axes)] for array in self.problem.arrays]
        return np.array(sizes, dtype=np.int64).reshape(1, len(sizes), 1)

    @property
    def fewest_steps_cycles(self) -> float:
        """Cycles in which MACs work, of the fastest unrolling."""
        return float(BoxBound(self.boxes).whole_cycles.min())

    @cached_property
    def fewest_cycles(self) -> float:
        """Cycles of the fastest unrolling, whatever has to be moved: its steps are whole."""
        unit = self.problem.unit
        cycles = max(self.fewest_steps_cycles + self.timing.filled_once(), unit.fixed_cycles)
        return cycles + start_cycles(self.problem.accelerator, unit.mac)


def means(count: int) -> Iterator[tuple[float, ...]]:
    """Weights of means of `count` values, in steps of a quarter."""
    for cuts in itertools.combinations(range(4 + count - 1), count - 1):
        edges = (-1, *cuts, 4 + count - 1)
        yield tuple((right - left - 1) / 4 for left, right in itertools.pairwise(edges))
