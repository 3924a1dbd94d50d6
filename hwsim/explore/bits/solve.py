"""Questions to the exact allocation: the best bits under budgets, or a front of one measure against another."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, overload

from hwsim.errors import RequestError, SpecError
from hwsim.explore.bits.allocate import Solver, front
from hwsim.explore.bits.bill import BitProblem, bit_problems
from hwsim.explore.bits.choices import Freedom, Site
from hwsim.explore.bits.output import Point
from hwsim.explore.bits.problem import InfeasibleBudget, Solution
from hwsim.explore.words import ENERGY, LOSS, NAMES
from hwsim.machine.parts import Accelerator
from hwsim.network.workload import Workload
from hwsim.search.objective import Objective

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, repr=False)
class BitPoints(Sequence[Point]):
    """The points found, and beside them what one width for everything gives. It prints itself as a table."""

    problem: BitProblem
    points: tuple[Point, ...]
    uniform: tuple[Point, ...]
    minimised: str

    @overload
    def __getitem__(self, index: int) -> Point: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Point, ...]: ...

    def __getitem__(self, index: int | slice) -> Point | tuple[Point, ...]:
        return self.points[index]

    def __iter__(self) -> Iterator[Point]:
        return iter(self.points)

    def __len__(self) -> int:
        return len(self.points)

    def __repr__(self) -> str:
        return table_of([*self.points, *self.uniform])

    def to_rows(self) -> list[dict[str, Any]]:
        """One flat row per point, the uniform ones last."""
        return [point.to_row() for point in (*self.points, *self.uniform)]

    def to_frame(self) -> pandas.DataFrame:
        """`to_rows` as a pandas data frame. Raises RequestError without pandas."""
        try:
            import pandas  # only this method needs it
        except ImportError as problem:
            raise RequestError(f"to_frame needs pandas ({problem}): pip install pandas; or use to_rows()") from None
        return pandas.DataFrame(self.to_rows())

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: what was minimised, and every point with its widths."""
        rows = [{**point.to_row(), "bits": point.widths_by_layer()} for point in (*self.points, *self.uniform)]
        return {"minimised": self.minimised, "points": rows}


def solve_bits(
    workload: Workload,
    machine: Accelerator,
    freedom: Freedom,
    losses: Mapping[Site, Mapping[int, float]] | None,
    objective: Objective = "energy",
    *,
    on_chip: bool = True,
    budgets: Mapping[str, float] | None = None,
    minimise: str | None = None,
    against: str | None = None,
    points: int | None = None,
    time_limit_s: float | None = None,
    option: str = "",
    allow_overflow: bool = False,
) -> BitPoints:
    """The best point under `budgets` (by measure), or the front of `minimise` against another measure.

    `minimise` and `against` are names of budgets.py; by default the loss is minimised where there are `losses`, else
    the energy. `option`: what stands in front of an option's name where the question was asked ("--").
    Every point fits the machine's bounded memories, unless `allow_overflow`.
    Raises SpecError for questions that mean nothing, InfeasibleBudget where nothing meets the budgets.
    """
    if points is not None and against is None:
        raise SpecError(f"{option}points: needs {option}front, the measure to trade against")
    minimised = NAMES[minimise or ("loss" if losses else "energy")]
    if minimised == LOSS and losses is None:
        raise SpecError(f"{option}minimise loss: needs {option}sensitivities, a file that `hwsim sensitivity` writes")
    if against is not None and NAMES[against] == minimised:
        raise SpecError(f"{option}front {against}: is what is minimised already: name another")
    made = bit_problems(workload, machine, freedom, losses, objective, on_chip=on_chip)
    if allow_overflow:
        made = tuple(replace(problem, rooms={}) for problem in made)
    limits = dict(budgets or {})
    if against is None:
        solutions = [best_of(made, minimised, limits, time_limit_s)]
    else:
        solutions = front_of(made, minimised, NAMES[against], limits, points, time_limit_s)
    found = [Point(f"point_{i:02d}", p, s, p.exact(s)) for i, (p, s) in enumerate(solutions)]
    return BitPoints(found[0].problem, tuple(found), tuple(uniform_points(made, objective)), minimised)


def best_of(
    problems: Sequence[BitProblem], minimised: str, limits: Mapping[str, float], time_limit_s: float | None = None
) -> tuple[BitProblem, Solution]:
    """The best point under budgets over all ways to run a batch, ties by energy.

    Raises InfeasibleBudget where none meets them, that of the way which misses them least.
    """
    found: list[tuple[BitProblem, Solution]] = []
    missed: list[InfeasibleBudget] = []
    for made in problems:
        try:
            found.append((made, Solver(made.problem, time_limit_s).best(minimised, {**limits, **made.rooms})))
        except InfeasibleBudget as problem:
            missed.append(problem)
    if not found:
        raise min(missed, key=lambda problem: excess(problem, {**limits, **problems[0].rooms}))
    return min(found, key=lambda point: (point[1].values[minimised], point[1].values[ENERGY]))


def excess(problem: InfeasibleBudget, limits: Mapping[str, float]) -> float:
    """How far the closest choice misses its budgets, the largest share."""
    if problem.closest is None:
        return math.inf
    return max((problem.closest.values[name] / limit for name, limit in limits.items() if limit), default=math.inf)


def front_of(
    problems: Sequence[BitProblem],
    minimised: str,
    against: str,
    limits: Mapping[str, float],
    points: int | None,
    time_limit_s: float | None,
) -> list[tuple[BitProblem, Solution]]:
    """The front over all ways to run a batch. Raises InfeasibleBudget as `best_of` does."""
    found: list[tuple[BitProblem, Solution]] = []
    missed: list[InfeasibleBudget] = []
    for made in problems:
        within = {**limits, **made.rooms}
        asked = front(made.problem, minimised, against, within, points=points, time_limit_s=time_limit_s)
        try:
            found += [(made, solution) for solution in asked]
        except InfeasibleBudget as problem:
            missed.append(problem)
    if not found:
        raise min(missed, key=lambda problem: excess(problem, {**limits, **problems[0].rooms}))
    if len(problems) == 1:
        return found
    kept: list[tuple[BitProblem, Solution]] = []
    for made, solution in sorted(found, key=lambda point: (point[1].values[against], point[1].values[minimised])):
        if not kept or solution.values[minimised] < kept[-1][1].values[minimised]:
            kept.append((made, solution))
    if points is None or len(kept) <= points:
        return kept
    return [kept[round(i * (len(kept) - 1) / max(1, points - 1))] for i in range(points)]


def uniform_points(problems: Sequence[BitProblem], objective: Objective) -> list[Point]:
    """One width for all that may vary, in the passes of a batch that cost least."""
    found: dict[str, list[Point]] = {}
    for made in problems:
        for name, solution in uniform_solutions(made):
            found.setdefault(name, []).append(Point(name, made, solution, made.exact(solution), "uniform"))
    return [min(points, key=lambda point: point.exact.value(objective)) for points in found.values()]


def uniform_solutions(made: BitProblem) -> list[tuple[str, Solution]]:
    """One width for all that may vary, where every choice has it: `W4A4`, ... by width."""
    widths = sorted({w for entry in made.freed if len(entry.choice.widths) > 1 for w in entry.choice.widths})
    found: list[tuple[str, Solution]] = []
    for width in widths:
        picks: list[int] = []
        for entry in made.freed:
            available = entry.choice.widths
            if len(available) > 1 and width not in available:
                break
            picks.append(available.index(width) if width in available and len(available) > 1 else 0)
        if len(picks) == len(made.freed) and bool(made.problem.allowed([picks])[0]):
            solution = made.problem.solution(picks)
            if all(solution.values[name] <= room for name, room in made.rooms.items()):
                found.append((f"W{width}A{width}", solution))
    return found


def table_of(points: Sequence[Point]) -> str:
    """Points as a table for people."""
    head = ("point", "loss", "energy µJ", "latency", "weights kB", "peak kB", "bits w/a")
    rows: list[tuple[str, ...]] = [head]
    for point in points:
        row = point.to_row()
        rows.append((
            point.name,
            f"{row['loss']:.4g}" if "loss" in row else "-",
            f"{row['energy_pj'] * 1e-6:.4g}",
            f"{row['latency_s'] * 1e6:.4g} µs",
            f"{row['weight_bits'] / 8000:.4g}",
            f"{row['peak_activation_bits'] / 8000:.4g}",
            f"{row['average_weight_bits']:.2f}/{row['average_activation_bits']:.2f}",
        ))  # fmt: skip
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    return "\n".join("  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in rows)
