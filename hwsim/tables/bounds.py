"""Lower bounds at widths that nobody searched: what solved widths prove about the others.

With linear prices the least energy V(p) = min over mappings of counts . p is concave, homogeneous and monotone in the
prices p. So solved points (p_i, V_i) bound every other: V(p) >= sum_i a_i V_i for all a_i >= 0 with sum_i a_i p_i <= p,
the best of which a small linear programme finds. Wider operands fit fewer mappings, so only points whose widths are all
at most the target's may serve: their mappings include the target's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hwsim.machine.parts import Accelerator, Operand
from hwsim.network.layer import Layer
from hwsim.pricing.rounding import rounding_pj
from hwsim.pricing.unit_prices import UnitPrices, unit_prices
from hwsim.search.bounds.simple import bound_cycles, chain_bound, crossing_bound
from hwsim.search.space.problem import Problem
from hwsim.tables.grid import Grid
from hwsim.tables.pool import Triple, at_widths

Floats = NDArray[np.float64]
SAFE, CLOSE = 1.0 - 1e-12, 1.0 + 1e-12  # a bound summed in floats may come out an ulp too high


class SimpleBounds:
    """Bounds that hold for every legal mapping at every triple of a grid: compulsory traffic, all MACs busy.

    The energy bound is a sum over operands, each a function of its own width (outputs: of their own and the sums'), so
    a grid of hundreds of triples takes a few dozen evaluations.
    """

    def __init__(self, grid: Grid) -> None:
        self.grid = grid

    def problem(self, index: Triple) -> Problem:
        """The layer at a place of the grid, compiled for bounding."""
        return Problem(at_widths(self.grid.layer, *self.grid.widths.at(index)), self.grid.accelerator)

    @cached_property
    def first(self) -> Triple:
        """Some triple that the machine runs."""
        place = np.argwhere(self.grid.allowed)
        return (int(place[0][0]), int(place[0][1]), int(place[0][2]))

    def energy_pj(self, resident: frozenset[Operand] = frozenset()) -> Floats:
        """[weight, input, output]: pJ; infinite where the machine refuses. `resident` operands come from on chip."""
        grid = self.grid
        shape = grid.widths.shape
        weights, inputs, outputs = np.zeros(shape[0]), np.zeros(shape[1]), np.zeros(shape)
        for i in range(shape[0]):
            weights[i] = self.operand(self.nearest((i, -1, -1)), "weight", resident)
        for j in range(shape[1]):
            inputs[j] = self.operand(self.nearest((-1, j, -1)), "input", resident)
        known: dict[tuple[int, int], float] = {}
        for i, j, k in np.argwhere(grid.allowed).tolist():
            key = (int(grid.accumulator[i, j]), k)
            if key not in known:
                known[key] = self.operand((i, j, k), "output", resident)
            outputs[i, j, k] = known[key]
        moved = weights[:, None, None] + inputs[None, :, None] + outputs
        idle = self.cycles() * self.problem(self.first).unit.static_pj_per_cycle
        fixed = grid.fixed_pj
        if "input" in resident:  # wherever its border is written
            fixed = np.minimum(fixed, grid.fixed_pj_input_stays)
        return np.where(grid.allowed, (fixed + moved + idle) * SAFE, np.inf)

    def cycles(self) -> Floats:
        """[weight, input, output]: cycles of the MACs or of the vector unit; 0 where the machine refuses."""
        grid = self.grid
        found = np.zeros(grid.widths.shape)
        for i, j in grid.macs:
            k = int(np.argmax(grid.allowed[i, j]))
            found[i, j] = np.maximum(bound_cycles(self.problem((i, j, k))), grid.vector)
        return found

    def nearest(self, wanted: tuple[int, int, int]) -> Triple:
        """A triple that the machine runs with one coordinate given (others -1); any triple where there is none."""
        for place in np.argwhere(self.grid.allowed).tolist():
            if all(w in (-1, p) for w, p in zip(wanted, place, strict=True)):
                return (place[0], place[1], place[2])
        return self.first

    def operand(self, index: Triple, operand: Operand, resident: frozenset[Operand]) -> float:
        """Least energy to move one operand, from the outermost memory or from where it stays."""
        problem = self.problem(index)
        return to_home(problem, operand) if operand in resident else chain_bound(problem, operand)


def to_home(problem: Problem, operand: Operand) -> float:
    """Least energy of an operand between the MAC and the memory where its tensor stays between layers.

    0 where the operand may skip that memory. Outputs: returns of partial sums to the MAC are left out.
    """
    home = problem.accelerator.activation_memory
    names = [memory.name for memory in problem.holders[operand]]
    if home is None or home.name not in names:
        return 0.0
    place = names.index(home.name)
    pairs = {key: c for key, c in problem.crossings[operand].items() if key[1] <= place}
    values = {key: crossing_bound(problem, c, 0.0, False) for key, c in pairs.items()}
    least = {-1: 0.0}
    for (child, parent), value in sorted(values.items()):
        least[parent] = min(least.get(parent, np.inf), least[child] + value)
    return max(0.0, least[place])


@dataclass(frozen=True)
class Solved:
    """A searched triple: the price vector, and a proven bound on the energy that mappings decide (pJ).

    `moving_pj`: least energy above what no mapping changes, less one word per entry for rounding up.
    """

    widths: Triple
    prices: Floats
    moving_pj: float
    linear: bool  # whether `moving_pj` may be scaled and combined, not only handed to wider widths


def prices_of_counts(unit: UnitPrices) -> Floats:
    """Prices of a count vector: traffic by (memory, operand, kind, direction), then hops; order by name."""
    traffic = [unit.traffic_pj[key] for key in sorted(unit.traffic_pj)]
    return np.array([*traffic, *(unit.hop_pj[key] for key in sorted(unit.hop_pj))])


def solved_point(layer: Layer, accelerator: Accelerator, widths: Triple, fixed_pj: float, bound_pj: float) -> Solved:
    """A solved point from a search's lower bound on the energy.

    With idle power the time, which is no linear function of counts, is part of the bound: it may then only be handed to
    wider widths as it is, where no mapping takes less time.
    """
    narrowed = at_widths(layer, *widths)
    unit = unit_prices(narrowed, accelerator)
    linear = unit.static_pj_per_cycle == 0.0
    moving = bound_pj - fixed_pj - (rounding_pj(unit, accelerator) if linear else 0.0)
    return Solved(widths, prices_of_counts(unit), max(0.0, moving), linear)


def transferred(solved: Sequence[Solved], widths: Triple, prices: Floats) -> float:
    """The best bound on the moving energy at other widths that solved points prove; 0 where none may serve."""
    useful = [
        s
        for s in solved
        if all(a <= b for a, b in zip(s.widths, widths, strict=True)) and bool((s.prices <= prices * CLOSE).all())
    ]
    best = max((s.moving_pj for s in useful), default=0.0)  # monotone: no width is smaller, no price lower
    linear = [s for s in solved if s.linear and s.moving_pj > 0 and serves(s, widths, prices)]
    if len(linear) > 1 or (linear and linear[0] not in useful):
        from scipy.optimize import linprog  # here, not above: half a second that a single price need not pay

        matrix = np.stack([s.prices for s in linear], axis=1)
        rows = np.column_stack([matrix, prices])[matrix.any(axis=1)]
        rows = np.unique(rows[:, :-1] / rows[:, -1:], axis=0)
        gains = np.array([s.moving_pj for s in linear])
        found = linprog(-gains / gains.max(), A_ub=rows, b_ub=np.ones(len(rows)), method="highs")
        if found.success:  # any feasible point is a valid bound: make it feasible beyond doubt
            shares = np.maximum(found.x, 0.0)
            shares /= max(1.0, float((rows @ shares).max()))
            best = max(best, float(shares @ gains))
    return best * SAFE


def serves(point: Solved, widths: Triple, prices: Floats) -> bool:
    """Whether a point may be scaled for a target: its mappings include the target's, nothing it pays for is free."""
    return all(a <= b for a, b in zip(point.widths, widths, strict=True)) and not point.prices[prices == 0.0].any()
