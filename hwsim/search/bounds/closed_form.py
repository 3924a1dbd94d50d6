"""A lower bound for every unrolling at once, in closed form: which of them deserve a lattice of their own?

The crossings of an operand x over the boundaries of memories and arrays are bounded boundary by boundary. A crossing
that settles at tile v costs C_x * n_x(v): C_x if nothing had to come back, n_x = steps of the loops that reuse x
outside v. Of the three operands at a boundary one settles first, at v1, when the tiles of the two others must still
have room, then the second, at v2, when the last one's must. Every loop reuses at most one operand, so the loops that
reuse the first (product A inside v1) and the second (B inside v2) are all seen by the last, whose tile has at least
A * B elements. So the three cost at least

    min C_1 * N_1 / A + C_2 * N_2 / B + C_3   over real A, B >= 1,  A <= room of 2,  A * B <= room of 3,

N_x all steps that reuse x, and the least over who comes first. An operand's room is the whole of a memory. Nothing
here asks whether tiles divide anything, so the bound holds with remainders too.

Windows are taken to slide without loading a point twice (except into a MAC that keeps nothing). They may do better:
what the last and the first tile of a sliding loop share stays while loops that do not see the input go on around it.
That takes a tile of more than half of what the loop slides over, per rank; a tile of the whole would keep all of it. So
the input counts as if it had twice the room for every rank whose windows overlap.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hwsim.machine.parts import OPERANDS
from hwsim.nest.points import Ints
from hwsim.search.space.prices import Linear, crossings_of
from hwsim.search.space.problem import Problem

Rows = NDArray[np.float64]  # a value per unrolling
SLACK = 1e-9
INPUT, OUTPUT = OPERANDS.index("input"), OPERANDS.index("output")


class CrossingBound(ABC):
    """Bounds for ways in which MACs work side by side, one per row: unrollings, or boxes of MACs (`any_tiles`).

    `inside[level]` [row, dim]: the MACs that a group inside a level (so many arrays) shares loads among; `held[level]`:
    what its tiles hold of them at least; `steps`: temporal steps; `instances[segment]`: memories that work side by
    side; `excess`: how much of inside x steps is more than the layer has.
    """

    def __init__(
        self, problem: Problem, inside: Rows, held: Rows, steps: Rows, instances: list[Rows], excess: Rows
    ) -> None:
        self.problem = problem
        self.inside, self.held, self.steps, self.instances, self.excess = inside, held, steps, instances, excess
        self.rows = len(steps)
        self.arrays = len(problem.arrays)
        self.extents = np.array(problem.extents, dtype=float)
        self.crossings = crossings_of(problem)
        self.operand = [OPERANDS.index(c.operand) for c in self.crossings]
        self.reuse = [list(problem.irrelevant_axes(operand)) for operand in OPERANDS]
        self.again = [self.steps[:, axes].prod(axis=1) for axes in self.reuse]  # N_x
        self.windows = [(pair, [c for _, c in rank.terms]) for rank, pair in problem.window_ranks]
        self.overlapping = sum(overlaps(c, [problem.extents[dim] for dim in pair]) for pair, c in self.windows)
        self.chains = [list(self.chains_of(x)) for x in range(len(OPERANDS))]
        self.rooms: dict[tuple[int, tuple[int, ...]], Rows] = {}
        self.known_loads: dict[tuple[int, int, bool], tuple[Rows, Rows]] = {}
        self.costs: dict[tuple[int, int], Rows] = {}
        self.priced = np.zeros((0, 0), dtype=np.bool_)  # [crossing, level]
        self.constants: list[Rows] = []

    def chains_of(self, x: int) -> Iterator[list[int]]:
        """Every way from the MAC to the outermost memory, as positions in `crossings`."""
        pairs = list(self.problem.crossings[OPERANDS[x]])
        first = self.operand.index(x)
        last = len(self.problem.holders[OPERANDS[x]]) - 1
        unfinished: list[tuple[int, list[int]]] = [(-1, [])]
        while unfinished:
            place, chain = unfinished.pop()
            if place == last:
                yield chain
            unfinished += [(parent, [*chain, first + i]) for i, (child, parent) in enumerate(pairs) if child == place]

    def every_step(self, r: int) -> bool:
        """Whether a crossing serves a MAC that keeps nothing: it settles before any loop."""
        return self.crossings[r].child == "mac" and not self.problem.latched(self.crossings[r].operand)

    # --- what a crossing costs ----------------------------------------------------------------------------------------

    def loads(self, r: int, level: int) -> tuple[Rows, Rows]:
        """Elements that pass a level if nothing has to come back; at least and, with idle elements, at most."""
        key = self.operand[r], level, self.every_step(r)
        if key not in self.known_loads:
            self.known_loads[key] = self.find_loads(*key)
        return self.known_loads[key]

    def find_loads(self, x: int, level: int, every_step: bool) -> tuple[Rows, Rows]:
        inside = self.inside[level]
        (least, most), reach = self.groups(level), self.reach(level)
        seen = set(range(len(self.extents))) - set(self.reuse[x])
        elements = np.ones(self.rows)
        if x == INPUT:
            for pair, coefficients in self.windows:
                seen -= set(pair)
                apart, own = self.apart(level)[:, pair], [reach[:, dim] for dim in pair]
                if every_step:  # nothing slides; array elements at any distance share what they may
                    each = inside[:, pair]
                    elements *= self.extents[list(pair)].prod() * (1 - (1 - 1 / each).prod(axis=1))
                else:
                    points = fewest_points(coefficients, own, self.neighbours(pair, level))
                    elements *= points * np.maximum(apart, 1.0).prod(axis=1)
        elements *= self.extents[sorted(seen)].prod()
        axes = self.reuse[x]
        return elements * least[:, axes].prod(axis=1), elements * most[:, axes].prod(axis=1)

    @abstractmethod
    def apart(self, level: int) -> Rows:
        """[row, dim]: groups among which a dim is divided."""

    @abstractmethod
    def groups(self, level: int) -> tuple[Rows, Rows]:
        """[row, dim]: groups that need what a dim reuses: at least, some of them idle, and at most."""

    @abstractmethod
    def reach(self, level: int) -> Rows:
        """[row, dim]: how much of a dim a group sees."""

    @abstractmethod
    def most_reach(self, level: int) -> Rows:
        """[row, dim]: the most that any group sees."""

    @abstractmethod
    def neighbours(self, pair: tuple[int, int], level: int) -> list[Rows]:
        """How many values of two dims a group must have to be sure to have all of them, side by side."""

    def level_costs(self, prices: Linear) -> dict[tuple[int, int], Rows]:
        """C_x of every crossing, level by level."""
        found: dict[tuple[int, int], Rows] = {}
        for r, crossing in enumerate(self.crossings):
            for level in range(crossing.segment, crossing.parent_segment + 1):
                found[r, level] = self.charged(r, level, prices)
        return found

    def charged(self, r: int, level: int, prices: Linear) -> Rows:
        """C_x of a crossing at a level."""
        values = prices.price[r, :, level]
        if not values.any():
            return np.zeros(self.rows)
        price, (least, most) = self.per_group(values), self.loads(r, level)
        return price * (least if (values >= 0).all() else np.where(price > 0, least, most))

    def per_group(self, values: NDArray[np.float64]) -> Rows:
        """A sum over groups of memories, each divided by its instances."""
        return sum(
            (value / self.instances[g] for g, value in enumerate(values[:-1]) if value), np.full(self.rows, values[-1])
        )

    # --- boundaries ---------------------------------------------------------------------------------------------------

    def sums(self, prices: Linear) -> Rows:
        """The least sum per unrolling."""
        self.costs = self.level_costs(prices)
        self.priced = np.any(prices.price != 0, axis=1)
        self.constants = [self.per_group(prices.constant[r]) for r in range(len(self.crossings))]
        return sum((self.boundary(levels) for levels in self.boundaries), np.zeros(self.rows))

    @cached_property
    def boundaries(self) -> list[dict[int, list[int]]]:
        """Per boundary the crossings that pass it and at which of their levels they are charged there."""
        found: list[dict[int, list[int]]] = []
        spans = [(c.segment, c.parent_segment, c.child == "mac") for c in self.crossings]
        for j in range(self.arrays):
            crossing = {r: inner == j for r, (inner, outer, _) in enumerate(spans) if inner <= j < outer}
            found.append({r: [j, j + 1] if first else [j + 1] for r, first in crossing.items()})
        for segment in range(self.arrays + 1):
            for mac in (True, False):
                found.append({r: [segment] for r, span in enumerate(spans) if span == (segment, segment, mac)})
        return found

    def boundary(self, levels: dict[int, list[int]]) -> Rows:
        """The least cost of a boundary over the crossings with which the operands may pass it, if they do.

        Where several memories lie on one side of an array an operand passes the boundary several times. The outermost
        crossings of all operands want each other's room, then the next ones.
        """
        options = [
            dict.fromkeys(tuple(r for r in reversed(chain) if r in levels) for chain in own) for own in self.chains
        ]
        together: dict[tuple[int | None, ...], Rows] = {}
        found = np.full(self.rows, np.inf)
        for combination in itertools.product(*options):
            value = np.zeros(self.rows)
            for group in itertools.zip_longest(*combination):
                if group not in together:
                    together[group] = self.passing({r: levels[r] for r in group if r is not None})
                value = value + together[group]
            found = np.minimum(found, value)
        return found

    def passing(self, levels: dict[int, list[int]]) -> Rows:
        """The least cost of at most one crossing per operand."""
        fixed, shared = np.zeros(self.rows), list[tuple[int, Rows]]()
        if not any(self.priced[r, level] for r, mine in levels.items() for level in mine):
            return fixed + sum(self.constants[r] for r, mine in levels.items() if self.crossings[r].segment in mine)
        for r, mine in levels.items():
            each, again = (
                sum((self.costs[r, level] for level in mine), np.zeros(self.rows)),
                self.again[self.operand[r]],
            )
            if self.crossings[r].segment in mine:
                fixed = fixed + self.constants[r]
            if self.every_step(r):
                fixed = fixed + each * again
            else:  # returns that a divided output saves may exceed what it costs here
                fixed = fixed + np.minimum(each, 0.0) * again
                shared.append((r, np.maximum(each, 0.0)))
        return fixed + self.contest(shared)

    def contest(self, shared: Sequence[tuple[int, Rows]]) -> Rows:
        """The least cost of crossings that want each other's room: min C_1 N_1 / A + C_2 N_2 / B + C_3."""
        if not shared:
            return np.zeros(self.rows)
        found = np.full(self.rows, np.inf)
        for *others, (last, stays) in itertools.permutations(shared):
            if not others:
                found = np.minimum(found, stays)
                continue
            first, again = others[0][0], [each * self.again[self.operand[r]] for r, each in others]
            most_a = np.minimum(self.again[self.operand[first]], self.room(last, (first,)))
            if len(others) == 1:
                value = again[0] / np.maximum(most_a, 1.0)
                least_room = most_a
            else:
                second = others[1][0]
                most_a = np.minimum(most_a, self.room(second, (first,)))
                most_b = np.minimum(self.again[self.operand[second]], self.room(last, (second,)))
                together = self.room(last, (first, second))
                value = hyperbola(again[0], again[1], most_a, most_b, together)
                least_room = np.minimum(np.minimum(most_a, most_b), together)
            found = np.minimum(found, np.where(least_room >= 1.0 - SLACK, value + stays, np.inf))
        return found

    def room(self, holder: int, over: tuple[int, ...]) -> Rows:
        """The largest product of temporal extents of the loops that reuse `over`, by what a crossing's child holds."""
        key = (holder, tuple(sorted(self.operand[r] for r in over)))
        if key not in self.rooms:
            self.rooms[key] = self.find_room(holder, key[1])
        return self.rooms[key]

    def find_room(self, holder: int, over: tuple[int, ...]) -> Rows:
        crossing = self.crossings[holder]
        if crossing.child == "mac":
            elements = 1.0  # a latch
        elif crossing.capacity_bits is None or not crossing.least_bits_per_element:
            return np.full(self.rows, np.inf)
        else:
            elements = crossing.capacity_bits / crossing.least_bits_per_element
        if self.operand[holder] == INPUT:
            elements = elements * np.where(self.again[INPUT] > 1, 2.0**self.overlapping, 1.0)
        axes = [axis for x in over for axis in self.reuse[x]]
        room = elements * self.excess / self.held[crossing.segment][:, axes].prod(axis=1)
        if self.operand[holder] == INPUT and len(over) > 1:
            # a window of m by n has at least max(m, n) = m n / min(m, n) points
            narrow, reach = np.ones(self.rows), self.most_reach(crossing.segment)
            for x, y in (pair for pair, _ in self.windows):
                narrow *= np.minimum(reach[:, x], reach[:, y])
            room = room * np.minimum(narrow, elements)
        return room


class ClosedBound(CrossingBound):
    """Bounds for the unrollings `spatial[row, array, dim]` of a problem."""

    def __init__(self, problem: Problem, spatial: Ints) -> None:
        rows, arrays, dims = spatial.shape
        extents: Rows = np.array(problem.extents, dtype=float)
        factors: Rows = spatial.astype(float)
        inside = np.ones((arrays + 1, rows, dims))
        inside[1:] = np.cumprod(factors, axis=1).transpose(1, 0, 2)
        steps = np.ceil(extents / inside[-1] - SLACK)
        # an unrolling that does not divide holds a little less than its extents say
        excess: Rows = np.maximum(steps * inside[-1] / extents, 1.0).prod(axis=1)
        instances: list[Rows] = [factors[:, segment:].prod(axis=(1, 2)) for segment in range(arrays + 1)]
        super().__init__(problem, inside, inside, steps, instances, excess)

    def apart(self, level: int) -> Rows:
        """As the arrays outside divide it; where they do not, at least as many as have work for all their steps."""
        return self.extents / (self.steps * self.inside[level])

    def groups(self, level: int) -> tuple[Rows, Rows]:
        """At most those that divide it; no more than there are steps of the dim for."""
        return np.maximum(self.apart(level), 1.0), self.inside[-1] / self.inside[level]

    def reach(self, level: int) -> Rows:
        """All steps of the group."""
        return np.minimum(self.steps * self.inside[level], self.extents)

    def most_reach(self, level: int) -> Rows:
        """All groups see as much."""
        return self.reach(level)

    def neighbours(self, pair: tuple[int, int], level: int) -> list[Rows]:
        """All of them; never sure where an array outside does not divide a dim: some groups have fewer."""
        whole = self.steps * self.inside[-1] == self.extents
        alone = self.inside[level] == self.inside[-1]
        return [np.where((whole | alone)[:, dim], self.extents[dim], np.inf) for dim in pair]


def hyperbola(a: Rows, b: Rows, most_a: Rows, most_b: Rows, together: Rows) -> Rows:
    """min a / A + b / B over 1 <= A <= most_a, 1 <= B <= most_b, A B <= together."""
    most_a, most_b, together = (np.maximum(most, 1.0) for most in (most_a, most_b, together))
    low, high = np.maximum(together / most_b, 1.0), np.minimum(most_a, together)
    with np.errstate(over="ignore", invalid="ignore"):
        best = np.clip(np.sqrt(a / np.maximum(b, 1e-300) * together), low, np.maximum(high, low))
        free = most_a * most_b <= together
        return np.where(free, a / most_a + b / most_b, a / best + b * best / np.where(free, 1.0, together))


def overlaps(coefficients: Sequence[int], whole: Sequence[int]) -> bool:
    """Whether windows of a rank share points: two of the a i + b j are equal."""
    (a, b), (m, n) = coefficients, whole
    g = math.gcd(a, b)
    return m > b // g and n > a // g


def fewest_points(coefficients: Sequence[int], reach: Sequence[Rows], whole: Sequence[Rows]) -> Rows:
    """Least number of points {a i + b j} of any m values i and n values j of a window rank, of M and N in all.

    Values i with equal a i mod b share points, and so do values j with equal b j mod a. All of them are neighbours and
    fall into b / g and a / g such classes (g = gcd(a, b)); fewer may be spaced so that they are of one class.
    """
    (a, b), (m, n), (most_m, most_n) = coefficients, reach, whole
    g = math.gcd(a, b)
    classes_m = np.where(m < most_m - SLACK, 1.0, b // g)
    classes_n = np.where(n < most_n - SLACK, 1.0, a // g)
    return m * n - np.maximum(m - classes_m, 0.0) * np.maximum(n - classes_n, 0.0)
