"""Random small bit problems, and their answers by trying every assignment."""

from __future__ import annotations

import itertools
import random

import numpy as np

from hwsim.explore.bits.problem import Choice, Measure, Problem, Refusal, Term
from hwsim.explore.pareto import non_dominated

WIDTHS = (1, 2, 3, 4, 5, 6, 7, 8, 16)


def random_problem(seed: int, choices: int = 5) -> Problem:
    """A chain as networks make it: weights alone, pairs, triples; a loss, an energy on its grid, cycles, a peak."""
    rng = random.Random(seed)
    numpy_rng = np.random.default_rng(seed)
    made = tuple(
        Choice(f"t{i}", tuple(sorted(rng.sample(WIDTHS, rng.randint(1, 4)))), kind=rng.choice(("weight", "activation")))
        for i in range(choices)
    )
    sizes = [len(choice.widths) for choice in made]

    def table(*scope: int, integers: bool = True) -> Term:
        shape = [sizes[i] for i in scope]
        drawn = numpy_rng.integers(0, 40, size=shape) if integers else numpy_rng.random(shape)
        return Term(scope, drawn.astype(np.float64))

    def scopes(count: int) -> list[list[int]]:
        return [rng.sample(range(choices), rng.randint(1, min(3, choices))) for _ in range(count)]

    loss = Measure("loss", (tuple(table(i, integers=False) for i in range(choices)),))
    energy = Measure("energy", (tuple(table(*scope) for scope in scopes(4)),))
    cycles = Measure("cycles", (tuple(table(*scope) for scope in scopes(3)),))
    peak = Measure("peak", tuple(tuple(table(i) for i in scope) for scope in scopes(3)))
    pair = rng.sample(range(choices), 2)
    mask = np.asarray(numpy_rng.random([sizes[i] for i in pair]) < 0.15)
    mask.flat[-1] = False
    return Problem(made, (loss, energy, cycles, peak), (Refusal(tuple(pair), mask, "a mode is missing"),))


def every_assignment(problem: Problem) -> np.ndarray:
    """All assignments that the machine runs: (N, choices)."""
    table = np.array(list(itertools.product(*(range(len(choice.widths)) for choice in problem.choices))))
    return table[problem.allowed(table)]


def enumerated_front(problem: Problem, names: tuple[str, str], budgets: dict[str, float]) -> list[tuple[float, float]]:
    """Non-dominated pairs of values over every assignment within budgets, by the first."""
    values = problem.evaluate(every_assignment(problem))
    inside = np.all([values[name] <= limit for name, limit in budgets.items()] or [np.ones(1, bool)], axis=0)
    points = np.stack([values[name] for name in names], axis=1)[np.broadcast_to(inside, len(values[names[0]]))]
    return sorted({(float(a), float(b)) for a, b in points[non_dominated(points)]}) if len(points) else []
