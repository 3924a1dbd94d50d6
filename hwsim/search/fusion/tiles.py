"""Nests for the tiles of a stage: the quick search's for a tile of round extents, cut to the tiles that occur.

One nest serves all tiles of a stage in a group, so that weights which stay lie where every tile looks for them. Nests
found for whole layers compete.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator

from hwsim.errors import InfeasibleMapping
from hwsim.machine.parts import Accelerator
from hwsim.nest.legal import validate
from hwsim.nest.mapping import Mapping
from hwsim.pricing.stages import Stage, effective_layer
from hwsim.pricing.tiles import (
    AT_HOME,
    Bill,
    Tile,
    bill,
    bill_without_macs,
    cut_stage,
    filled_once,
    held_still,
    home_of,
    weight_memory,
)
from hwsim.search.joint.optimum import Optimum
from hwsim.search.joint.staircase import At, Pool, Weights
from hwsim.search.quick.candidates import Effort, candidates
from hwsim.search.quick.neighbours import trimmed
from hwsim.search.space.homes import Homes
from hwsim.search.space.problem import Problem

WHOLE = 3  # nests of the whole layer that compete
Kind = tuple[object, ...]


class Tiles:
    """Nests and bills of all stages' tiles, found once for stages that are alike."""

    def __init__(self, optimum: Optimum) -> None:
        self.optimum = optimum
        self.machine: Accelerator = optimum.schedule.accelerator
        self.kinds = [self.kind(index) for index in range(len(optimum.schedule.stages))]
        self.nests: dict[tuple[Kind, Tile], tuple[Mapping, ...]] = {}
        self.bills: dict[tuple[Kind, Mapping | None, Tile], Bill | None] = {}

    def stage(self, index: int) -> Stage:
        """A stage of the network."""
        return self.optimum.schedule.stages[index]

    def kind(self, index: int) -> Kind:
        """What is equal for stages whose tiles cost the same."""
        stage = self.stage(index)
        own = (stage.layer,) if not stage.layer.has_macs else ()
        inside = {stage.layer.output.name, *(follower.output.name for follower in stage.fused)}
        behind = tuple(
            (f.op, f.window, f.output.bits, tuple((t.shape, t.bits, t.offset, t.name in inside) for t in f.inputs))
            for f in (*own, *stage.fused)
        )
        return id(self.optimum.pools.get(index)), behind, stage.layer.output.shape

    def bill(self, index: int, mapping: Mapping | None, tile: Tile) -> Bill | None:
        """A stage on a tile under a nest (None: it has no MACs); None where the nest does not serve it."""
        key = self.kinds[index], mapping, tile
        if key not in self.bills:
            self.bills[key] = self.priced(index, mapping, tile)
        return self.bills[key]

    def priced(self, index: int, mapping: Mapping | None, tile: Tile) -> Bill | None:
        stage = cut_stage(self.stage(index), tile)
        if mapping is None:
            return bill_without_macs(stage, self.machine)
        layer = effective_layer(stage)
        mine = trimmed(mapping, layer)
        return None if validate(mine, layer, self.machine) else bill(stage, mine, self.machine)

    # --- nests --------------------------------------------------------------------------------------------------------

    def known(self, index: int, tile: Tile) -> tuple[Mapping, ...]:
        """Nests worth trying for tiles of at most this size: found for round extents, each also with weights still."""
        stage = self.stage(index)
        high, wide = stage.layer.output.shape[2:]
        key = self.kinds[index], (rounded(tile[0], high), rounded(tile[1], wide))
        if key not in self.nests:
            self.nests[key] = tuple(dict.fromkeys(self.search(index, key[1])))
        return self.nests[key]

    def search(self, index: int, tile: Tile) -> Iterator[Mapping]:
        """The quick search's nests of a tile and the whole layer's best, each also with its weights held still."""
        stage, pool = cut_stage(self.stage(index), tile), self.optimum.pools[index]
        home = home_of(self.machine)
        problem = Problem(effective_layer(stage), self.machine, fused=stage.fused, homes=Homes(AT_HOME, home.size_bits))
        found = list(best_of(pool, WHOLE))
        with contextlib.suppress(InfeasibleMapping):
            found += candidates(problem, Effort()).mappings
        for mapping in found:
            yield mapping
            memory = weight_memory(mapping, self.machine)
            if memory and not filled_once(mapping, memory):
                yield held_still(mapping, self.machine)


def best_of(pool: Pool, most: int) -> Iterator[Mapping]:
    """A whole layer's cheapest nests with its maps on chip."""
    at = At(AT_HOME)
    ranked = sorted(
        (Weights().pair(priced.cost.total_energy_pj, priced.cost.latency_cycles), number, mapping)
        for number, mapping in enumerate(pool.counts)
        if (priced := pool.priced(mapping, at)) is not None
    )
    return (mapping for _, _, mapping in itertools.islice(ranked, most))


def rounded(extent: int, most: int) -> int:
    """The next of 1, 2, 3, 4, 6, 8, 12, 16, ..., at most `most`."""
    step = 1 << max(0, extent.bit_length() - 2)
    return min(most, -(-extent // step) * step)
