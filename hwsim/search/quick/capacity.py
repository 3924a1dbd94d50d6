"""Operands that share one memory: whether the tiles of a chain, each found as if it were alone there, fit together."""

from __future__ import annotations

from hwsim.nest.points import tile_elements
from hwsim.search.quick.batch import Batch
from hwsim.search.space.paths import Chain, Event
from hwsim.search.space.problem import Crossing, Problem


def tile_bits(problem: Problem, batch: Batch, row: int, event: Event, crossing: Crossing) -> float:
    """Bits that the tile of a settled crossing takes in its memory."""
    extent = dict.fromkeys(problem.layer.loops.as_dict(), 1)
    for e, dim in enumerate(problem.dims):
        extent[dim] = event.tile[e] * int(batch.inside[row, crossing.segment, e])
    return tile_elements(problem.layer, crossing.operand, extent) * crossing.bits_per_element


def overfull(problem: Problem, batch: Batch, row: int, chain: Chain) -> bool:
    """Whether tiles of a shared memory do not fit together."""
    taken: dict[str, float] = {}
    sizes: dict[str, float] = {}
    for event in chain.events:
        crossing = event.hold
        if crossing is not None and crossing.pool and crossing.capacity_bits is not None:
            bits = tile_bits(problem, batch, row, event, crossing)
            taken[crossing.pool] = taken.get(crossing.pool, 0.0) + bits
            sizes[crossing.pool] = crossing.capacity_bits
    return any(bits > sizes[pool] for pool, bits in taken.items())
