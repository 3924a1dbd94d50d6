"""Which mappings of a pool matter: the best at each triple, those that none beats, and on which machines that holds."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from hwsim.machine.parts import Accelerator, Memory
from hwsim.search.objective import Objective, objective_rank
from hwsim.tables.grid import Floats, Ints
from hwsim.tables.pool import Pool


def best_places(energy_pj: Floats, cycles: Ints, objective: Objective) -> Ints:
    """Place of the best of [mapping, ...] by the objective, ties broken as the search does; -1 where none is finite."""
    chosen = np.isfinite(energy_pj)
    none = ~chosen.any(axis=0)
    for rank in objective_rank(objective, energy_pj, np.where(chosen, cycles, np.inf)):
        least = np.where(chosen, rank, np.inf).min(axis=0)
        chosen = chosen & (rank == least)
    return np.where(none, -1, chosen.argmax(axis=0))


def structure(accelerator: Accelerator) -> Accelerator:
    """The machine without its prices: equal for machines whose mappings and counts are the same."""
    free = [
        dataclasses.replace(
            node, read_energy_pj=0.0, write_energy_pj=0.0, read_bandwidth_bits_per_cycle=None,
            write_bandwidth_bits_per_cycle=None, shared_port=False, double_buffered=True, area_mm2=0.0,
            leakage_mw=0.0, source="",
        )
        if isinstance(node, Memory)
        else dataclasses.replace(node, hop_energy_pj_per_bit=0.0, source="")
        for node in accelerator.hierarchy
    ]  # fmt: skip
    return dataclasses.replace(accelerator, hierarchy=tuple(free))


def undominated(pool: Pool, lanes: tuple[str, ...]) -> list[int]:
    """Places of mappings that no other beats: nowhere more traffic, steps or tile, somewhere less.

    These alone can be the best under some prices and widths (fewer instances in use also slow a port down).
    """
    keys: dict[object, None] = {}
    rows: list[dict[object, float]] = []
    for counts in pool.counts:
        filling = math.prod(n for dim, n in counts.iterations if dim in lanes)
        row: dict[object, float] = {"lanes": filling, "other loops": counts.steps // filling}
        for t in counts.traffic:
            row["reads", t.memory, t.operand, t.kind] = t.reads
            row["writes", t.memory, t.operand, t.kind] = t.writes
        for d in counts.deliveries:
            row["passing", d.array, d.operand, d.kind] = d.down + d.up
        for tile in counts.tiles:
            row["tile", tile.memory, tile.operand, tile.partial] = tile.elements
        for use in counts.arrays:
            row["passes", use.array] = use.passes
        for memory, used in counts.instances:
            row["instances", memory] = -used
        rows.append(row)
        keys |= dict.fromkeys(row)
    table = np.array([[row.get(key, 0.0) for key in keys] for row in rows])
    return [
        i
        for i, mine in enumerate(table)
        if not any(
            bool((other <= mine).all()) and (bool((other < mine).any()) or j < i)
            for j, other in enumerate(table)
            if j != i
        )
    ]
