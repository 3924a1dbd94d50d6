"""Bounds in closed form for every legal mapping: what must cross each boundary at least, whatever the nest.

Energy: each operand is moved at least once between its holders, at the widest reuse. Cycles: the MACs and the ports.
"""

from __future__ import annotations

import math

from hwsim.machine.parts import OPERANDS, Operand
from hwsim.search.space.problem import Crossing, Problem


def bound_pj(problem: Problem) -> float:
    """Energy that no legal mapping goes below: compulsory traffic, MAC operands at the widest reuse, MACs, idle time.

    Per boundary every point crosses once, and a MAC without a latch is served at every step, shared by at most as many
    MACs as the arrays between can hold side by side along the loops that reuse the operand.
    """
    unit = problem.unit
    fixed = unit.fixed_pj + problem.layer.macs * unit.mac_pj
    return fixed + crossings_bound_pj(problem) + unit.static_pj_per_cycle * bound_cycles(problem)


def crossings_bound_pj(problem: Problem) -> float:
    """The part of `bound_pj` that moves operands."""
    return sum(chain_bound(problem, operand) for operand in OPERANDS)


def chain_bound(problem: Problem, operand: Operand) -> float:
    """Least energy of an operand over all choices of bypassed memories.

    Returns of partial sums: the MAC reads back every sum but the first ones, and first ones beyond one per output are
    drained once more from a memory (`Problem.output_prices`). Where draining costs at least as much as the MAC's read,
    the reads count as if there were only one first sum per output; else they are left out.
    """
    crossings = problem.crossings[operand]
    if operand != "output":
        return least_path(
            problem, operand, {key: crossing_bound(problem, c, 0.0, False) for key, c in crossings.items()}
        )
    read_back = max(c.back_pj for c in crossings.values() if c.child == "mac")
    bounds = [0.0]
    for saved in (0.0, read_back):
        if all(c.child == "mac" or c.prices[0] + c.saved_pj >= saved for c in crossings.values()):
            values = {key: crossing_bound(problem, c, saved, saved > 0) for key, c in crossings.items()}
            bounds.append(least_path(problem, operand, values))
    return max(bounds)


def least_path(problem: Problem, operand: Operand, values: dict[tuple[int, int], float]) -> float:
    """Least sum over the chains from the MAC to the outermost memory."""
    least = {-1: 0.0}
    for (child, parent), value in sorted(values.items()):
        least[parent] = min(least.get(parent, math.inf), least[child] + value)
    return least[len(problem.holders[operand]) - 1]


def crossing_bound(problem: Problem, crossing: Crossing, saved: float, returns: bool) -> float:
    """Least energy of one boundary. Outputs: `saved` per drain from a memory; `returns`: those to the MAC count."""
    elements = float(problem.elements(crossing.operand))
    every_step = crossing.child == "mac" and not problem.latched(crossing.operand)
    prices, first = list(crossing.prices), crossing.first_pj
    if crossing.operand == "output":
        prices[0] += crossing.saved_pj - (saved if crossing.child != "mac" else 0.0)
        prices[-1] -= crossing.saved_pj
        if crossing.child != "mac" or not returns:
            prices[-1] -= crossing.back_pj
            first += crossing.back_pj
    total = 0.0
    for offset, price in enumerate(prices):
        served = elements
        if every_step:
            arrays = range(crossing.segment, crossing.segment + offset)
            served = max(elements, problem.layer.macs / widest_reuse(problem, crossing.operand, arrays))
        total += price * served
    return total + first * elements


def widest_reuse(problem: Problem, operand: Operand, arrays: range) -> float:
    """Most elements of these arrays that one point can serve: their size, at most the loops that reuse it."""
    bounds = problem.layer.loops.as_dict()
    reach = math.prod(problem.arrays[j].size for j in arrays)
    seen = {dim for rank in problem.ranks[operand] for dim in rank.dims}
    reuse = math.prod(n for dim, n in bounds.items() if dim not in seen)
    if operand == "input":  # windows overlap: a point is in at most min(R, P) rows and min(S, Q) columns of them
        reuse *= min(bounds["R"], bounds["P"]) * min(bounds["S"], bounds["Q"])
    return float(min(reach, reuse))


def bound_cycles(problem: Problem) -> int:
    """Cycles that no mapping goes below: all MAC units busy all the time, the vector unit's own time."""
    return max(mac_cycles(problem), problem.unit.fixed_cycles)


def mac_cycles(problem: Problem) -> int:
    """Cycles of all MAC units busy all the time."""
    unit, bounds = problem.unit, problem.layer.loops.as_dict()
    filled = min(math.prod(bounds[dim] for dim in unit.mac.lanes), unit.mac.products)
    steps = -(-problem.layer.macs // (problem.accelerator.mac_units * filled))
    return math.ceil(steps * unit.mac.step_cycles)
