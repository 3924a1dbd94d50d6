"""Operands that share one memory: how a search splits in two where their tiles do not fit together.

A chain is found as if every operand had the whole memory. Where tiles do not fit together, either one operand's tile
is smaller than a cut, or it is at least as large and the others get what is left. Both parts are relaxations of what
they cover, so the first chain that fits, best first, is the cheapest that fits.
"""

from __future__ import annotations

from collections.abc import Mapping as Map

from hwsim.machine.parts import Operand
from hwsim.nest.points import tile_elements
from hwsim.search.quick.batch import Batch
from hwsim.search.space.paths import Chain, Event
from hwsim.search.space.problem import Crossing, Problem

Key = tuple[str, Operand]  # (memory, operand)


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
