"""A good mapping in milliseconds: promising unrollings, their cheapest chains, a few exact prices.

Unrollings are ranked by how little the innermost boundary would move, for every choice of one stationary operand, and by
cycles; the best few of each ranking are solved (`chains`), the cheapest written as nests and priced exactly.
`bound_pj` is a simple lower bound that holds for every legal mapping.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwsim.machine import OPERANDS, Operand
from hwsim.mapper.capacity import cheapest_fitting
from hwsim.mapper.chains import Batch, solve
from hwsim.mapper.lattice import Lattices, clustered, paddings
from hwsim.mapper.nest import ORDERS, write
from hwsim.mapper.problem import Crossing, Problem
from hwsim.mapper.unrolling import Unrollings, unrollings
from hwsim.mapping import Mapping

KEEP_PER_AXIS = 48
MAX_BRANCHES = 12
WASTE = 3.0
MAX_VALUES = 2_000_000


@dataclass(frozen=True)
class Effort:
    """How far to look: unrollings per ranking, chains priced exactly, loop orders per chain."""

    per_ranking: int = 3
    chains: int = 2
    orders: int = 3


@dataclass(frozen=True)
class Candidates:
    """Mappings worth pricing, best estimate first, and how many chains stand behind them."""

    mappings: tuple[Mapping, ...]
    covered: int


def moved_per_mac(problem: Problem, spatial: NDArray[np.int64]) -> NDArray[np.float64]:
    """[operand, unrolling]: pJ per MAC at the boundaries that arrays cut, if nothing were reused inside them."""
    inside = np.concatenate([np.ones_like(spatial[:, :1]), np.cumprod(spatial, axis=1)], axis=1)
    found: list[NDArray[np.float64]] = []
    for operand in OPERANDS:
        reuse = list(problem.irrelevant_axes(operand))
        total = np.zeros(len(spatial))
        for crossing in problem.variants[operand][0]:
            if crossing.parent_segment > crossing.segment:
                between = inside[:, crossing.parent_segment] // inside[:, crossing.segment]
                total += crossing.prices[-1] / between[:, reuse].prod(axis=1)
        found.append(total)
    return np.array(found)


def promising(problem: Problem, spatial: NDArray[np.int64], keep: int) -> list[int]:
    """Rows of the unrollings that head one of the rankings."""
    moved = moved_per_mac(problem, spatial)
    cycles = (-(-np.array(problem.extents) // spatial.prod(axis=1))).prod(axis=1)
    rankings = [np.lexsort((cycles, np.array(used) @ moved)) for used in ((1, 1, 1), (0, 1, 1), (1, 0, 1), (1, 1, 0))]
    rankings.append(np.lexsort((cycles, np.log(moved + 1e-9).sum(axis=0))))
    rankings.append(np.lexsort((moved.sum(axis=0), cycles)))
    return sorted({int(row) for ranking in rankings for row in ranking[:keep]})


def padded(problem: Problem, spatial: NDArray[np.int64], rows: Sequence[int]) -> tuple[list[int], NDArray[np.int64]]:
    """Rows with every declared padding of their temporal extents: (row, extents) pairs."""
    owners: list[int] = []
    extents: list[tuple[int, ...]] = []
    for row in rows:
        needed = -(-np.array(problem.extents) // spatial[row].prod(axis=0))
        choices = [paddings(int(n), True) for n in needed]
        own = tuple(choice[0] for choice in choices)
        variants = {own}
        for dim, choice in enumerate(choices):
            for other in choice[1:]:
                variants.add((*own[:dim], other, *own[dim + 1 :]))
        owners.extend([row] * len(variants))
        extents.extend(sorted(variants))
    return owners, np.array(extents, dtype=np.int64)


def candidates(problem: Problem, effort: Effort) -> Candidates:
    """Mappings to price exactly, cheapest estimate first."""
    options = unrollings(problem, True, KEEP_PER_AXIS)
    spatial = options.per_array(len(problem.arrays))
    rows = promising(problem, spatial, effort.per_ranking)
    owners, extents = padded(problem, spatial, rows)
    ranked: list[tuple[float, Batch, int, int]] = []
    covered = 0
    for chains in itertools.product(*(problem.variants[operand] for operand in OPERANDS)):
        for members, shape in clustered(extents, WASTE, MAX_VALUES):
            mine = [owners[i] for i in members]
            batch = Batch(problem, Lattices(extents[members], shape), spatial[mine], (chains[0], chains[1], chains[2]))
            solved = solve(batch, {})
            covered += batch.lattices.points * len(mine)
            idle = problem.unit.static_pj_per_cycle * float(problem.unit.cycles_per_step)
            energies = solved.energies + idle * extents[members].prod(axis=1)
            for row, energy in enumerate(energies.tolist()):
                if math.isfinite(energy):
                    ranked.append((energy, batch, row, mine[row]))
    ranked.sort(key=lambda item: item[0])
    return Candidates(tuple(nests(problem, options, ranked, effort)), covered)


def nests(
    problem: Problem, options: Unrollings, ranked: Sequence[tuple[float, Batch, int, int]], effort: Effort
) -> list[Mapping]:
    """Nests of the cheapest chains that fit, each in a few loop orders."""
    found: dict[Mapping, None] = {}
    fitting = 0
    for _, batch, row, owner in ranked:
        chain, _ = cheapest_fitting(batch, row, MAX_BRANCHES)
        if chain is None:
            continue
        fitting += 1
        for order in ORDERS[: effort.orders]:
            found.setdefault(write(problem, options, owner, chain, order))
        if fitting >= effort.chains:
            break
    return list(found)


def bound_pj(problem: Problem) -> float:
    """Energy that no legal mapping goes below: compulsory traffic, MAC operands at the widest reuse, MACs, idle time.

    Per boundary every point crosses once, and a MAC without a latch is served at every step, shared by at most as many
    MACs as the arrays between can hold side by side along the loops that reuse the operand.
    """
    unit, macs = problem.unit, problem.layer.macs
    total = unit.fixed_pj + macs * unit.mac_pj
    for operand in OPERANDS:
        total += min(sum(crossing_bound(problem, c) for c in chain) for chain in problem.variants[operand])
    return total + unit.static_pj_per_cycle * bound_cycles(problem)


def crossing_bound(problem: Problem, crossing: Crossing) -> float:
    """Least energy of one boundary; outputs count their first arrivals as the elided reads they are."""
    elements = operand_elements(problem, crossing.operand)
    every_step = crossing.child == "mac" and not problem.latched(crossing.operand)
    total = served = 0.0
    for offset, price in enumerate(crossing.prices):
        served = elements
        if every_step:
            arrays = range(crossing.segment, crossing.segment + offset)
            served = max(elements, problem.layer.macs / widest_reuse(problem, crossing.operand, arrays))
        total += price * served
    replicas = widest_reuse(problem, crossing.operand, range(crossing.parent_segment, len(problem.arrays)))
    # first arrivals at the parent cost less by `first_pj`, and every one is among the served
    return total + crossing.first_pj * min(served, elements * replicas)


def operand_elements(problem: Problem, operand: Operand) -> float:
    """Points of the operand that the layer touches."""
    bounds = problem.layer.loops.as_dict()
    total = 1
    for rank in problem.ranks[operand]:
        if len(rank.terms) == 1:
            total *= bounds[rank.terms[0][0]]
        else:
            (first, a), (second, b) = rank.terms
            m, n, g = bounds[first], bounds[second], math.gcd(a, b)
            total *= m * n - max(0, m - b // g) * max(0, n - a // g)
    return float(total)


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
    unit = problem.unit
    steps = -(-problem.layer.macs // problem.accelerator.mac_units)
    return max(math.ceil(steps * unit.cycles_per_step), unit.fixed_cycles)
