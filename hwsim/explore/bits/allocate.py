"""Bits per layer, exactly: an integer programme per question, a front by elimination or by moving one budget.

minimise    sum of the objective's tables at the chosen widths
subject to  every budget, one width per choice, no refused combination.

A binary variable per choice and width; a table over several choices gets one continuous variable per combination whose
marginals are those binaries, which makes it the exact value and not an approximation. Solved by HiGHS
(scipy.optimize.milp) to a gap of 0. The solver works to a tolerance, the answer does not: every solution is priced
again from the tables, one that breaks a budget by rounding is cut off, and the solver asked again.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from hwsim.errors import HwsimError, SpecError
from hwsim.explore.bits.elimination import whole_front
from hwsim.explore.bits.problem import InfeasibleBudget, Problem, Solution, Term, collect

SCALE = 1000.0  # largest coefficient: the solver's absolute tolerances of 1e-6 are then 1e-9 of a table's range
MAX_CUTS = 200
Row = dict[int, float]


class SolverStopped(HwsimError):
    """The solver ran into its time limit before it had proven an answer."""

    exit_code = 3


@dataclass
class Programme:
    """A problem's columns and rows as the solver sees them; budgets and objectives are added per question."""

    problem: Problem
    time_limit_s: float | None = None
    first: list[int] = field(init=False)  # column of each choice's first width
    columns: int = field(init=False)
    upper: dict[int, float] = field(init=False, default_factory=dict[int, float])
    rows: list[tuple[Row, float, float]] = field(init=False, default_factory=list[tuple[Row, float, float]])
    tables: dict[tuple[int, ...], int] = field(init=False, default_factory=dict[tuple[int, ...], int])
    forms: dict[str, list[tuple[Row, float]]] = field(init=False, default_factory=dict[str, list[tuple[Row, float]]])

    def __post_init__(self) -> None:
        sizes = [len(choice.widths) for choice in self.problem.choices]
        self.first = [0, *itertools.accumulate(sizes)][:-1]
        self.binaries = self.columns = sum(sizes)
        for start, size in zip(self.first, sizes, strict=True):
            self.rows.append(({start + i: 1.0 for i in range(size)}, 1.0, 1.0))
        for measure in self.problem.measures:
            self.forms[measure.name] = [self.form(collect(row)) for row in measure.rows]
        for refusal in self.problem.refusals:
            start = self.table(refusal.scope)
            for offset in np.flatnonzero(refusal.mask):
                self.upper[start + int(offset)] = 0.0

    def table(self, scope: tuple[int, ...]) -> int:
        """First column of the variables of a table over several choices, one per combination (last axis fastest)."""
        if scope in self.tables:
            return self.tables[scope]
        start = self.tables[scope] = self.columns
        shape = tuple(len(self.problem.choices[index].widths) for index in scope)
        indices = np.arange(math.prod(shape)).reshape(shape)
        self.columns += indices.size
        for axis, index in enumerate(scope):
            for pick in range(shape[axis]):
                row: Row = {start + int(i): 1.0 for i in np.take(indices, pick, axis=axis).ravel()}
                row[self.first[index] + pick] = -1.0
                self.rows.append((row, 0.0, 0.0))
        return start

    def form(self, terms: Sequence[Term]) -> tuple[Row, float]:
        """A sum of tables as coefficients (each table's least value is taken out) and a constant."""
        row: Row = {}
        constant = 0.0
        for term in terms:
            least = float(term.values.min())
            constant += least
            if not term.scope:
                continue
            start = self.first[term.scope[0]] if len(term.scope) == 1 else self.table(term.scope)
            for offset, value in enumerate((term.values - least).ravel()):
                if value:
                    row[start + offset] = row.get(start + offset, 0.0) + float(value)
        return row, constant

    def solve(self, objective: str | None, budgets: Mapping[str, float]) -> Solution | None:
        """The assignment that minimises a measure within budgets; None when there is none.

        Without an objective, the one that exceeds the budgets least: the largest relative excess is minimised.
        """
        cuts: list[tuple[Row, float, float]] = []
        for _ in range(MAX_CUTS):
            picks = self.ask(objective, budgets, cuts)
            if picks is None:
                return None
            found = self.problem.solution(picks)
            if objective is None or all(found.values[name] <= limit for name, limit in budgets.items()):
                return found
            chosen = {start + pick: 1.0 for start, pick in zip(self.first, picks, strict=True)}
            cuts.append((chosen, -np.inf, len(picks) - 1.0))
        raise SolverStopped(
            f"bits problem: {MAX_CUTS} assignments in a row meet a budget only within the solver's tolerance: "
            "move the budget by a millionth"
        )

    def ask(self, objective: str | None, budgets: Mapping[str, float], cuts: list[tuple[Row, float, float]]) -> Any:
        """One call of the solver: picks, or None when infeasible."""
        rows = [*self.rows, *cuts]
        cost = np.zeros(self.columns + 1)
        top = self.columns  # one more column: the largest row of an objective, or the largest excess
        for name, limit in budgets.items():
            for row, constant in self.forms[name]:
                span = (max(row.values(), default=0.0) or 1.0) / SCALE
                scaled = {column: value / span for column, value in row.items()}
                if objective is None:
                    scaled[top] = -(abs(limit) or 1.0) / span
                rows.append((scaled, -np.inf, (limit - constant) / span))
        if objective is None:
            cost[top] = 1.0
        else:
            forms = self.forms[objective]
            span = max((sum(row.values()) for row, _ in forms), default=0.0) or 1.0
            if len(forms) == 1:
                for column, value in forms[0][0].items():
                    cost[column] = value * SCALE / span
            else:
                cost[top] = SCALE
                for row, constant in forms:
                    scaled = {column: value / span for column, value in row.items()}
                    rows.append(({**scaled, top: -1.0}, -np.inf, -constant / span))
        upper: Any = np.full(self.columns + 1, 1.0)
        upper[top] = np.inf
        for column, value in self.upper.items():
            upper[column] = value
        integral = np.zeros(self.columns + 1)
        integral[: self.binaries] = 1
        options: dict[str, Any] = {"mip_rel_gap": 0.0}
        if self.time_limit_s is not None:
            options["time_limit"] = self.time_limit_s
        result: Any = milp(
            cost, integrality=integral, bounds=Bounds(0.0, upper), constraints=stacked(rows, self.columns + 1),
            options=options,
        )  # fmt: skip
        if result.status == 1:
            raise SolverStopped(f"bits problem: no proven answer within {self.time_limit_s:g} s: give it more time")
        if result.x is None:
            return None
        ends = [*self.first[1:], self.binaries]
        return [int(np.argmax(result.x[a:b])) for a, b in zip(self.first, ends, strict=True)]


def stacked(rows: Sequence[tuple[Row, float, float]], columns: int) -> LinearConstraint:
    """Sparse rows as the solver's constraint."""
    indices = [column for row, _, _ in rows for column in row]
    values = [value for row, _, _ in rows for value in row.values()]
    pointers = [0, *itertools.accumulate(len(row) for row, _, _ in rows)]
    matrix = csr_array((values, indices, pointers), shape=(len(rows), columns))
    lows: Any = [low for _, low, _ in rows]
    highs: Any = [high for _, _, high in rows]
    return LinearConstraint(matrix, lows, highs)


def allocate(
    problem: Problem,
    objective: str,
    budgets: Mapping[str, float] | None = None,
    *,
    then: str | None = None,
    time_limit_s: float | None = None,
) -> Solution:
    """The assignment with the least `objective` within `budgets` (measure -> largest value allowed), proven.

    `then`: among the best, the one with the least of this measure. Raises InfeasibleBudget naming the binding budgets
    and carrying the closest point; SpecError for unknown measures.
    """
    return Solver(problem, time_limit_s).best(objective, budgets or {}, then)


class Solver:
    """Many questions about one problem."""

    def __init__(self, problem: Problem, time_limit_s: float | None = None) -> None:
        self.problem = problem
        self.programme = Programme(problem, time_limit_s)

    def best(self, objective: str, budgets: Mapping[str, float], then: str | None = None) -> Solution:
        """As `allocate`."""
        for name in (objective, *budgets, *((then,) if then else ())):
            self.problem.measure(name)
        found = self.programme.solve(objective, budgets)
        if found is None:
            raise self.infeasible(budgets)
        if then is None:
            return found
        held = {**budgets, objective: min(found.values[objective], budgets.get(objective, math.inf))}
        return self.programme.solve(then, held) or found

    def infeasible(self, budgets: Mapping[str, float]) -> InfeasibleBudget:
        """What to say about budgets that nothing meets: which ones bind, and what comes closest."""
        closest = self.programme.solve(None, budgets)
        if closest is None:
            return InfeasibleBudget("bits: the machine refuses every combination of the widths allowed", (), None)
        alone: list[str] = []
        for name, limit in budgets.items():
            least = self.programme.solve(name, {})
            if least is not None and least.values[name] > limit:
                alone.append(f"{name}: budget {limit:.6g}, the least that any choice of bits reaches is "
                             f"{least.values[name]:.6g}")  # fmt: skip
        missed = tuple(name for name, limit in budgets.items() if closest.values[name] > limit)
        lines = alone or [
            f"{' and '.join(budgets)}: each budget can be met, not all at once; binding: {', '.join(missed)}"
        ]
        shown = ", ".join(f"{name} {closest.values[name]:.6g} (budget {limit:.6g})" for name, limit in budgets.items())
        way = ", or --allow-overflow" if any(name.startswith("bits in ") for name in missed) else ""
        lines.append(f"closest point: {shown}; raise the budget or allow fewer bits{way}")
        return InfeasibleBudget("\n".join(lines), missed, closest)


def front(
    problem: Problem,
    objective: str,
    against: str,
    budgets: Mapping[str, float] | None = None,
    *,
    points: int | None = None,
    time_limit_s: float | None = None,
) -> Iterator[Solution]:
    """Non-dominated assignments of two measures, from the least `objective` down to the least `against`.

    Without `points` this is the whole front, one solution for every non-dominated pair of values: by elimination where
    both measures are sums and nothing else is limited, else by `swept`. Raises InfeasibleBudget where `budgets` leave
    nothing.
    """
    if points is not None and points < 1:
        raise SpecError(f"front: expected at least 1 point, got {points}")
    limits = dict(budgets or {})
    whole = None if points or set(limits) - {objective, against} else whole_front(problem, objective, against)
    if whole is not None:
        whole = [s for s in whole if all(s.values[name] <= limit for name, limit in limits.items())]
    if not whole:
        yield from swept(problem, objective, against, limits, points=points, time_limit_s=time_limit_s)
        return
    yield from whole


def swept(
    problem: Problem,
    objective: str,
    against: str,
    budgets: Mapping[str, float],
    *,
    points: int | None = None,
    time_limit_s: float | None = None,
) -> Iterator[Solution]:
    """As `front`, by one integer programme after another (the epsilon constraint method): the best point, then the best
    with strictly less of `against`, and so on.

    With `points`, that many budgets spread evenly between the two ends: each solution is on the front, not all of the
    front is shown.
    """
    limits, solver = dict(budgets), Solver(problem, time_limit_s)
    found = solver.best(objective, limits, then=against)
    yield found
    end = solver.best(against, limits, then=objective)
    low, high = end.values[against], found.values[against]
    steps = iter(np.linspace(high, low, points)[1:] if points else ())
    while found.values[against] > low:
        limit = math.nextafter(found.values[against], -math.inf)
        if points is not None:
            limit = min(limit, max(low, next((float(step) for step in steps if step <= limit), low)))
        found = solver.best(objective, {**limits, against: min(limit, limits.get(against, math.inf))}, then=against)
        yield found
