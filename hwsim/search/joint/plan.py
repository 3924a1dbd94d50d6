"""A network's plan by objective: energy; latency, then energy; the product of both sums, bounded by corners.

(sum E)(sum L) is no sum: weightings E + p L give plans and lines E + p L >= V(p). Over the region that the lines leave
the product is least at a corner, which bounds every plan.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

from hwsim.search.joint.optimum import Answer, Optimum
from hwsim.search.joint.staircase import Weights
from hwsim.search.objective import Objective

STEEP = 100.0  # price of a cycle, in what a cycle costs on average, where only ties of latency are to be decided
SWEEP = (10.0, 1.0, 0.1)  # the same, where some of one objective may be given up for the other
TANGENTS = 4  # weightings tried for a product


def answers(optimum: Optimum, objective: Objective, slack: float) -> Iterator[Answer]:
    """Plans from which the objective chooses, the first one bounding it where it is a sum."""
    if objective == "edp":
        yield from products(optimum)
        return
    first = optimum.minimise(Weights(None if objective == "latency" else 0.0))
    yield first
    if not first.found:
        return
    each = per_cycle(first)
    for share in (*((STEEP,) if objective == "latency" else ()), *(SWEEP if slack else ())):
        yield optimum.minimise(Weights(share * each))


def products(optimum: Optimum) -> Iterator[Answer]:
    """Plans near the least product: both ends, then the slope of the product at the best one so far."""
    known: list[Answer] = []
    for weights in (Weights(0.0), Weights(None)):
        known.append(optimum.minimise(weights))
        yield known[-1]
    tried: set[float] = set()
    while len(tried) < TANGENTS and all(answer.found for answer in known):
        best = min(known, key=lambda answer: math.prod(sums(answer)))
        slope = float(f"{per_cycle(best):.3g}")
        if slope in tried:
            return
        tried.add(slope)
        known.append(optimum.minimise(Weights(slope)))
        yield known[-1]


def sums(answer: Answer) -> tuple[float, float]:
    """Energy and cycles of a plan's layers with MACs: near enough to choose slopes."""
    costs = [found.cost for found in answer.found.values()]
    return sum(cost.total_energy_pj for cost in costs), float(sum(cost.latency_cycles for cost in costs))


def per_cycle(answer: Answer) -> float:
    """pJ per cycle of a plan."""
    energy, cycles = sums(answer)
    return energy / max(cycles, 1.0)


def least_product(answers: Sequence[Answer]) -> float:
    """The least E L over E + p L >= V(p) for all answers (p none: L >= V): at a corner of that region."""
    lines = [
        (0.0, 1.0, answer.lower_bound)
        if answer.weights.cycle_pj is None
        else (1.0, answer.weights.cycle_pj, answer.lower_bound)
        for answer in answers
    ]
    found = math.inf
    for (a, b, v), (c, d, w) in itertools.combinations(lines, 2):
        determinant = a * d - b * c
        if not determinant:
            continue
        energy, cycles = (v * d - b * w) / determinant, (a * w - v * c) / determinant
        if energy >= 0 and cycles >= 0 and all(x * energy + y * cycles >= u * (1 - 1e-12) for x, y, u in lines):
            found = min(found, energy * cycles)
    return found if math.isfinite(found) else 0.0


def after(answers: Sequence[Answer], cycles: float) -> float:
    """A bound on the energy of every plan of so many cycles, where no plan takes fewer; 0: unknown."""
    weighted = [a.lower_bound - a.weights.cycle_pj * cycles for a in answers if a.weights.cycle_pj]
    return max([0.0, *weighted])
