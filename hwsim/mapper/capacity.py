"""Operands that share one memory: branch and bound on who gets how much of it.

A chain is found as if every operand had the whole memory; where the tiles do not fit together, the problem splits in two:
one operand's tile is smaller than it was, or it is at least as large and the others get what is left. Every branch is a
relaxation of what it covers, so the first chain that fits, best first, is the cheapest that fits.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Mapping as Map
from dataclasses import dataclass, field

import numpy as np

from hwsim.machine import Operand
from hwsim.mapper.batch import Batch
from hwsim.mapper.chains import Chain, Event, solve, trace
from hwsim.mapper.lattice import Lattices
from hwsim.mapper.problem import Crossing, Problem
from hwsim.mapping import tile_elements

Key = tuple[str, Operand]  # (memory, operand)


@dataclass(order=True)
class Branch:
    """A part of the space: the most and the least bits that tiles may take. Ordered by its lower bound."""

    bound_pj: float
    serial: int
    most: dict[Key, float] = field(compare=False)
    least: dict[Key, float] = field(compare=False)


def tile_bits(problem: Problem, batch: Batch, row: int, event: Event, crossing: Crossing) -> float:
    """Bits that the tile of a settled crossing takes in its memory."""
    extent = dict.fromkeys(problem.layer.loops.as_dict(), 1)
    for e, dim in enumerate(problem.dims):
        extent[dim] = event.tile[e] * int(batch.inside[row, crossing.segment, e])
    return tile_elements(problem.layer, crossing.operand, extent) * crossing.bits_per_element


def overfull(problem: Problem, batch: Batch, row: int, chain: Chain) -> dict[Key, float] | None:
    """Tiles of a shared memory that do not fit together; None where all do."""
    pools: dict[str, dict[Key, float]] = {}
    sizes: dict[str, float] = {}
    for event in chain.events:
        crossing = event.hold
        if crossing is not None and crossing.pool and crossing.capacity_bits is not None:
            tiles = pools.setdefault(crossing.pool, {})
            tiles[(crossing.child, crossing.operand)] = tile_bits(problem, batch, row, event, crossing)
            sizes[crossing.pool] = crossing.capacity_bits
    for pool, tiles in pools.items():
        if sum(tiles.values()) > sizes[pool]:
            return tiles
    return None


def one_row(batch: Batch, row: int) -> Batch:
    """A batch of a single unrolling."""
    lattices = Lattices(batch.lattices.extents[row : row + 1], batch.lattices.signatures)
    return Batch(batch.problem, lattices, batch.spatial[row : row + 1])


def cheapest_fitting(batch: Batch, row: int, max_branches: int) -> tuple[Chain | None, float]:
    """(cheapest chain whose tiles fit together, lower bound on any such chain) for one unrolling.

    With too many branches the bound is that of the best one left and the chain may be missing.
    """
    problem = batch.problem
    single = one_row(batch, row)
    capacity = {m.name: float(m.size_bits or 0) for m in problem.accelerator.memories}
    serial = itertools.count()
    heap = [Branch(0.0, next(serial), {}, {})]
    chains: dict[int, Chain] = {}
    for _ in range(max_branches):
        if not heap:
            return None, float("inf")
        branch = heapq.heappop(heap)
        known = chains.pop(branch.serial, None)
        if known is None:
            solved = solve(single, {key: np.array([bits]) for key, bits in branch.most.items()})
            energy = float(solved.energies[0])
            if not np.isfinite(energy):
                continue
            known = trace(solved, 0)
            chains[branch.serial] = known
            heapq.heappush(heap, Branch(energy, branch.serial, branch.most, branch.least))
            continue
        tiles = overfull(problem, single, 0, known)
        if tiles is None:
            return known, known.energy_pj
        for most, least in split(tiles, branch.most, branch.least, capacity):
            heapq.heappush(heap, Branch(known.energy_pj, next(serial), most, least))
    return None, min((branch.bound_pj for branch in heap), default=float("inf"))


def split(
    tiles: Map[Key, float], most: dict[Key, float], least: dict[Key, float], capacity: Map[str, float]
) -> list[tuple[dict[Key, float], dict[Key, float]]]:
    """Two parts that cover a branch without the offending combination of tiles, cut in proportion to the tiles."""
    memory = next(iter(tiles))[0]
    largest = max(tiles, key=lambda key: (tiles[key], key))
    floor = least.get(largest, 0.0)
    cut = max(capacity[memory] * tiles[largest] / sum(tiles.values()), floor)
    smaller = {**most, largest: cut}
    at_least = {**least, largest: cut}
    rest = dict(most)
    for key in tiles:
        if key != largest:
            others = sum(at_least.get(other, 0.0) for other in tiles if other != key)
            rest[key] = min(rest.get(key, capacity[memory]), capacity[memory] - others)
    return [(smaller, least), (rest, at_least)]
