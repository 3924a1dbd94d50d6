"""The whole front of two sums, exactly, by eliminating one choice after another.

A network's tables meet few choices each, so most of a network can be forgotten once its neighbours' widths are fixed:
eliminating a choice leaves, for every combination of the choices it meets, the non-dominated pairs of values that its
tables can still reach (bucket elimination, Dechter 1999, with sets of pairs in place of numbers). Eliminating all
leaves the front. Sums are exact: values are first rounded to a binary grid fine enough for 51 bits of the total, which
leaves energies (multiples of 2^-10 pJ) and counts as they are.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwsim.explore.bits.problem import Floats, Problem, Solution, collect

EXACT_BITS = 51
MOST_COMBINATIONS = 20_000  # of the choices that one elimination leaves behind
BLOCK = 1 << 20
Picks = NDArray[np.int8]


@dataclass(frozen=True)
class Cell:
    """Non-dominated pairs, ascending in the first value. costs: (points, 2); picks: (points, choices), 0 where open."""

    costs: Floats
    picks: Picks


@dataclass(frozen=True)
class Sets:
    """What eliminations have left: a cell for every combination of the choices in `scope`."""

    scope: tuple[int, ...]
    cells: dict[tuple[int, ...], Cell]


def whole_front(problem: Problem, objective: str, against: str) -> list[Solution] | None:
    """Every non-dominated pair of two additive measures, one assignment each, from the least `objective` down.

    None where the choices are so entangled that elimination would be slow, or a measure is no plain sum. Empty where
    the machine refuses everything. Raises SpecError for unknown measures.
    """
    measures = [problem.measure(name) for name in (objective, against)]
    order = elimination_order(problem, (objective, against))
    if order is None or not all(measure.additive for measure in measures):
        return None
    found = Eliminator(problem, (objective, against)).run(order)
    solutions = [problem.solution([int(pick) for pick in row]) for row in found.picks]
    kept: list[Solution] = []
    for solution in sorted(solutions, key=lambda s: (s.values[objective], s.values[against])):
        if not kept or solution.values[against] < kept[-1].values[against]:
            kept.append(solution)
    return kept


def scopes_of(problem: Problem, names: Sequence[str]) -> list[frozenset[int]]:
    """Choices that each table of some measures, or a refusal, brings together."""
    found = [frozenset(term.scope) for name in names for row in problem.measure(name).rows for term in collect(row)]
    return [*found, *(frozenset(refusal.scope) for refusal in problem.refusals)]


def elimination_order(problem: Problem, names: Sequence[str]) -> list[int] | None:
    """Choices in the order that leaves the smallest tables behind, step by step; None where one is too large."""
    sizes = [len(choice.widths) for choice in problem.choices]
    scopes = set(scopes_of(problem, names))
    left, order = set(range(len(sizes))), list[int]()
    while left:

        def leaves(index: int) -> tuple[int, int]:
            met = frozenset[int]().union(*(scope for scope in scopes if index in scope)) - {index}
            return math.prod(sizes[other] for other in met), index

        size, index = min(leaves(index) for index in left)
        if size > MOST_COMBINATIONS:
            return None
        mine = [scope for scope in scopes if index in scope]
        scopes.difference_update(mine)
        scopes.add(frozenset[int]().union(*mine) - {index})
        left.discard(index)
        order.append(index)
    return order


class Eliminator:
    """Tables of two measures, and the sets that eliminating choices leaves."""

    def __init__(self, problem: Problem, names: tuple[str, str]) -> None:
        self.problem = problem
        self.sizes = [len(choice.widths) for choice in problem.choices]
        self.tables: dict[tuple[int, ...], Floats] = {}
        self.sets: list[Sets] = []
        for column, name in enumerate(names):
            terms = collect(problem.measure(name).rows[0])
            total = sum(float(np.abs(term.values).max()) for term in terms)
            unit = math.ldexp(1.0, math.frexp(total)[1] - EXACT_BITS)
            for term in terms:
                self.add(term.scope, column, np.rint(term.values / unit))
        for refusal in problem.refusals:
            self.add(refusal.scope, 0, np.where(refusal.mask, np.inf, 0.0))

    def add(self, scope: tuple[int, ...], column: int, values: Floats) -> None:
        """Add values to the table over a scope, axes in the order of the choices."""
        order = sorted(range(len(scope)), key=lambda axis: scope[axis])
        key = tuple(scope[axis] for axis in order)
        if key not in self.tables:
            self.tables[key] = np.zeros((*(self.sizes[index] for index in key), 2))
        self.tables[key][..., column] += values.transpose(order) if order else values

    def run(self, order: Sequence[int]) -> Cell:
        """The front over all choices."""
        for index in order:
            self.eliminate(index)
        nothing = Cell(np.zeros((1, 2)) + self.tables.get((), np.zeros(2)), self.open(1))
        return combined([nothing, *(sets.cells[()] for sets in self.sets)])

    def open(self, points: int) -> Picks:
        """Assignments with nothing decided."""
        return np.zeros((points, len(self.sizes)), dtype=np.int8)

    def eliminate(self, index: int) -> None:
        """Replace everything that meets a choice by the sets it leaves over the others."""
        scopes = [scope for scope in self.tables if index in scope]
        met = [sets for sets in self.sets if index in sets.scope]
        self.sets = [sets for sets in self.sets if index not in sets.scope]
        others = tuple(sorted({i for scope in (*scopes, *(s.scope for s in met)) for i in scope} - {index}))
        total = np.zeros((*(self.sizes[i] for i in others), self.sizes[index], 2))
        for scope in scopes:
            table = self.tables.pop(scope)
            place = scope.index(index)
            table = np.moveaxis(table, place, -2)
            rest = [i for i in scope if i != index]
            shape = [self.sizes[i] if i in rest else 1 for i in others]
            total = total + table.reshape(*shape, self.sizes[index], 2)
        cells: dict[tuple[int, ...], Cell] = {}
        for combination in itertools.product(*(range(self.sizes[i]) for i in others)):
            fixed = dict(zip(others, combination, strict=True))
            parts: list[Cell] = []
            for pick in range(self.sizes[index]):
                offset = total[(*combination, pick)]
                if np.isfinite(offset).all():
                    mine = self.open(1)
                    mine[0, index] = pick
                    fixed[index] = pick
                    reached = [s.cells[tuple(fixed[i] for i in s.scope)] for s in met]
                    parts.append(combined([Cell(offset[None], mine), *reached]))
            cells[combination] = best_of(parts) if parts else Cell(np.zeros((0, 2)), self.open(0))
        self.sets.append(Sets(others, cells))


def kept_rows(costs: Floats) -> NDArray[np.intp]:
    """Places of the non-dominated pairs, one of equals, ascending in the first value."""
    order = np.lexsort((costs[:, 1], costs[:, 0]))
    second = costs[order, 1]
    keep = np.ones(len(order), dtype=np.bool_)
    keep[1:] = second[1:] < np.minimum.accumulate(second)[:-1]
    return order[keep]


def best_of(cells: Sequence[Cell]) -> Cell:
    """The non-dominated pairs of several cells."""
    costs, picks = np.concatenate([c.costs for c in cells]), np.concatenate([c.picks for c in cells])
    keep = kept_rows(costs)
    return Cell(costs[keep], picks[keep])


def combined(cells: Sequence[Cell]) -> Cell:
    """The non-dominated sums of one pair from each cell; the cells decide different choices."""
    found, *more = sorted(cells, key=lambda cell: len(cell.costs))
    for cell in more:
        found = summed(found, cell)
    return found


def summed(few: Cell, many: Cell) -> Cell:
    """The non-dominated sums of two cells' pairs, in blocks so that memory stays bounded."""
    if len(few.costs) == 1:
        return Cell(many.costs + few.costs, many.picks + few.picks)
    step = max(1, BLOCK // max(1, len(many.costs)))
    found: list[Cell] = []
    for start in range(0, len(few.costs), step):
        part = few.costs[start : start + step]
        sums = (part[:, None] + many.costs[None]).reshape(-1, 2)
        keep = kept_rows(sums)
        left, right = keep // max(1, len(many.costs)), keep % max(1, len(many.costs))
        found.append(Cell(sums[keep], few.picks[start : start + step][left] + many.picks[right]))
    return found[0] if len(found) == 1 else best_of(found) if found else few
