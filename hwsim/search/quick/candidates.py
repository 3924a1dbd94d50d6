"""A good mapping in milliseconds: promising unrollings, their cheapest chains, a few exact prices.

Unrollings are ranked by how little the innermost boundary would move, for every choice of one stationary operand, and
by cycles; the best few of each ranking are solved (`chains`), the cheapest written as nests and priced exactly.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hwsim.machine.parts import OPERANDS, Operand
from hwsim.nest.mapping import Mapping
from hwsim.nest.points import Ints
from hwsim.search.quick.batch import Batch
from hwsim.search.quick.capacity import overfull
from hwsim.search.quick.chains import Solved, Walk, solve, trace
from hwsim.search.space.lattice import Costs, Lattices, clustered, factorised, paddings, points_of, signature
from hwsim.search.space.likeness import Alike, energy_key
from hwsim.search.space.paths import Chain
from hwsim.search.space.problem import Problem
from hwsim.search.space.unrolling import Unrollings, unrollings
from hwsim.search.write import ORDERS, write

KEEP_PER_AXIS = 48
KEEP = 3000
WASTE = 4.0
SMOOTH = 7  # largest prime of extents like 56, 96, 112 that tile well
# Weights by which operands share a memory, tried in turn where their tiles do not fit together.
SHARES: tuple[dict[Operand, float], ...] = tuple(
    {"weight": w, "input": i, "output": o} for w, i, o in ((1, 1, 1), (4, 1, 1), (1, 4, 1), (1, 1, 4))
)
MAX_VALUES = 2_000_000
MAX_POINTS = 2_000
MAX_SLIDING = 4
MOST_CHAINS = 4
Ranked = tuple[tuple[tuple[Mapping, ...], ...], int]  # nests per chain, chains covered


@dataclass(frozen=True)
class Effort:
    """How far to look: unrollings per ranking, rows tried with shared memories, chains priced, orders per chain."""

    per_ranking: int = 2
    shared: int = 2
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
        for crossing in problem.main_chain(operand):
            if crossing.parent_segment > crossing.segment:
                between = inside[:, crossing.parent_segment] // inside[:, crossing.segment]
                total += crossing.prices[-1] / between[:, reuse].prod(axis=1)
        found.append(total)
    return np.array(found)


def promising(problem: Problem, spatial: NDArray[np.int64], keep: int) -> list[int]:
    """Rows of the unrollings that head one of the rankings."""
    moved = moved_per_mac(problem, spatial)
    cycles = problem.steps(-(-np.array(problem.extents) // spatial.prod(axis=1)))
    rankings = [np.lexsort((cycles, np.array(used) @ moved)) for used in ((1, 1, 1), (0, 1, 1), (1, 0, 1), (1, 1, 0))]
    rankings.append(np.lexsort((cycles, np.log(moved + 1e-9).sum(axis=0))))
    rankings.append(np.lexsort((moved.sum(axis=0), cycles)))
    return sorted({int(row) for ranking in rankings for row in ranking[:keep]})


def padded(problem: Problem, spatial: Ints, rows: Sequence[int]) -> list[Row]:
    """Rows with their temporal extents as they are, and with those padded that gain divisors if lattices stay small."""
    found: list[Row] = []
    for row in rows:
        needed = -(-np.array(problem.extents) // spatial[row].prod(axis=0))
        own = tuple(int(n) for n in needed)
        found.append(Row(row, own))
        wider = list(own)
        for e, dim in enumerate(problem.dims):
            if dim not in ("R", "S"):
                trial = [*wider[:e], paddings(own[e], True)[-1], *wider[e + 1 :]]
                if points_of(tuple(signature(n) for n in trial)) <= MAX_POINTS:
                    wider = trial
        if tuple(wider) != own:
            found.append(Row(row, tuple(wider)))
    return found


def beyond(problem: Problem, spatial: Ints, row: Row) -> bool:
    """Whether a row is padded where divisors are few: a prime factor of its steps is larger than SMOOTH."""
    needed = -(-np.array(problem.extents) // spatial[row.unrolling].prod(axis=0))
    return any(
        steps != padded and max((prime for prime, _ in factorised(int(steps))), default=1) > SMOOTH
        for steps, padded in zip(needed, row.extents, strict=True)
    )


@dataclass(frozen=True)
class Row:
    """One unrolling with padded temporal extents."""

    unrolling: int
    extents: tuple[int, ...]


@dataclass(frozen=True)
class Solution:
    """A solved row, with the chains' least energy and idle energy in its time."""

    energy_pj: float
    row: Row
    solved: Solved
    index: int  # row in the batch
    shares: int  # which of SHARES it was solved under; -1: every operand as if it had the shared memory alone

    @cached_property
    def chain(self) -> Chain:
        """The cheapest chain of the row."""
        return trace(self.solved, self.index)


def solve_rows(problem: Problem, spatial: Ints, rows: Sequence[tuple[Row, int]], slide: bool = False) -> list[Solution]:
    """All rows under their shares, in batches of like shape; rows where nothing fits are left out."""
    extents = np.array([row.extents for row, _ in rows], dtype=np.int64).reshape(-1, len(problem.dims))
    idle = problem.unit.static_pj_per_cycle * problem.mac_cycles(extents)
    found: list[Solution] = []
    walk = Walk(problem, slide)
    for members, shape in clustered(extents, WASTE, MAX_VALUES):
        unrolled = spatial[[rows[i][0].unrolling for i in members]]
        batch = Batch(problem, Lattices(extents[members], shape), unrolled)
        solved = solve(batch, share_limits(problem, [rows[i][1] for i in members]), walk)
        energies = solved.energies + idle[members]
        for index, (i, energy) in enumerate(zip(members, energies.tolist(), strict=True)):
            if math.isfinite(energy):
                found.append(Solution(energy, rows[i][0], solved, index, rows[i][1]))
    return sorted(found, key=lambda solution: solution.energy_pj)


def distinct_shares(problem: Problem) -> list[int]:
    """Indices of SHARES that part some shared memory in different ways."""
    found: dict[tuple[tuple[float, ...], ...], int] = {}
    pools = list(shared_pools(problem).values())
    for index, weights in enumerate(SHARES):
        parts = tuple(tuple(weights[o] / sum(weights[x] for x in pool) for o in pool) for pool in pools)
        found.setdefault(parts, index)
    return list(found.values()) if pools else []


def shared_pools(problem: Problem) -> dict[str, list[Operand]]:
    """Operands that share a memory of limited size."""
    found: dict[str, list[Operand]] = {}
    for memory in problem.accelerator.memories[1:]:
        pool: list[Operand] = [o for o in OPERANDS if o in memory.keeps and o not in dict(memory.partitions)]
        if len(pool) > 1 and memory.size_bits is not None:
            found[memory.name] = pool
    return found


def share_limits(problem: Problem, choices: Sequence[int]) -> dict[tuple[str, Operand], Costs]:
    """Bits per row that every operand may take of a shared memory under SHARES[choice]; no limit for -1."""
    limits: dict[tuple[str, Operand], Costs] = {}
    if all(choice < 0 for choice in choices):
        return limits
    sizes = {memory.name: problem.size_of(memory) or 0 for memory in problem.accelerator.memories}
    for name, pool in shared_pools(problem).items():
        for operand in pool:
            parts = [1.0 if c < 0 else SHARES[c][operand] / sum(SHARES[c][other] for other in pool) for c in choices]
            limits[name, operand] = np.array(parts) * sizes[name]
    return limits


def candidates(
    problem: Problem, effort: Effort, known: Callable[[Unrollings], NDArray[np.bool_]] | None = None
) -> Candidates:
    """Mappings to price exactly, cheapest estimate first; of `known` unrollings only those `beyond` divisors."""
    ways = dataclasses.replace(effort, chains=MOST_CHAINS)
    found = ranked(problem, ways, known) if known is not None else remembered(Alike(energy_key(problem), problem), ways)
    chosen = found[0][: effort.chains]
    return Candidates(tuple(dict.fromkeys(nest for chain in chosen for nest in chain)), found[1])


@functools.lru_cache(maxsize=512)
def remembered(asked: Alike, effort: Effort) -> Ranked:
    """`ranked`: objectives share it, and widths that move the same words."""
    return ranked(asked.problem, effort, None)


def ranked(problem: Problem, effort: Effort, known: Callable[[Unrollings], NDArray[np.bool_]] | None) -> Ranked:
    """The nests of every chain, the cheapest chain first, and how many chains were covered."""
    options = unrollings(problem, True, KEEP_PER_AXIS, KEEP)
    spatial = options.per_array(len(problem.arrays))
    rows = padded(problem, spatial, promising(problem, spatial, effort.per_ranking))
    if known is not None:
        seen = known(options)
        rows = [row for row in rows if not seen[row.unrolling] or beyond(problem, spatial, row)]
    relaxed = solve_rows(problem, spatial, [(row, -1) for row in rows])
    covered = sum(s.solved.batch.lattices.points for s in relaxed)
    best = relaxed[: effort.shared]
    again = [(s.row, share) for s in best for share in (-1, *distinct_shares(problem))]
    # sliding windows multiply the stages of many bypass choices; the nests' orders slide all the same
    slides = bool(problem.window_ranks) and len(problem.crossings["input"]) <= MAX_SLIDING
    solutions = solve_rows(problem, spatial, again, slides) if slides or len(again) > len(best) else best
    covered += sum(s.solved.batch.lattices.points for s in solutions)
    roomy = (s for s in solutions if s.shares >= 0 or not crowded(problem, s))
    found: list[tuple[Mapping, ...]] = []
    for solution in itertools.islice(roomy, effort.chains):
        orders, row = ORDERS[: effort.orders], solution.row.unrolling
        found.append(tuple(write(problem, options, row, solution.chain, order) for order in orders))
    return tuple(found), covered


def crowded(problem: Problem, solution: Solution) -> bool:
    """Whether the tiles of a shared memory do not fit together."""
    return overfull(problem, solution.solved.batch, solution.index, solution.chain)
