"""One way to run a group: its tiles, every stage's nest, whose weights stay. Found for a cut, and priced.

Weights of all stages stay where they fit together; else those of most traffic per bit of room, or none: whichever costs
least.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hwsim.nest.mapping import Mapping
from hwsim.pricing.fused import Bills, Cut, GroupCost, Steps, memory_taken, price_group
from hwsim.pricing.groups import Group
from hwsim.pricing.tiles import Bill, Tile
from hwsim.search.fusion.tiles import Tiles
from hwsim.search.joint.programme import Pair
from hwsim.search.joint.schedule import Names
from hwsim.search.joint.staircase import Weights


@dataclass(frozen=True)
class Choice:
    """How a group runs. `mappings`: per stage, of its largest tile; None without MACs."""

    group: Group
    cut: Cut
    mappings: tuple[Mapping | None, ...]
    staying: frozenset[int]

    def price(self, tiles: Tiles, resident: Names, steps: Steps | None = None) -> GroupCost | None:
        """Its bill; None where a nest does not serve all tiles, or memories do not hold what stays."""
        steps = steps or Steps(self.group, self.cut)
        if not self.serves(tiles, steps):
            return None
        return price_group(self.group, steps, self.bills(tiles), self.staying, resident, tiles.machine)

    def bills(self, tiles: Tiles) -> Bills:
        """Bills of its stages on tiles that its nests serve."""

        def found(position: int, tile: Tile) -> Bill:
            answer = tiles.bill(self.group.first + position, self.mappings[position], tile)
            assert answer is not None
            return answer

        return found

    def serves(self, tiles: Tiles, steps: Steps) -> bool:
        """Whether every nest serves every tile, and weights that are said to stay may."""
        for position, mapping in enumerate(self.mappings):
            for tile in steps.tiles(position):
                answer = tiles.bill(self.group.first + position, mapping, tile)
                if answer is None or (position in self.staying and not answer.can_stay):
                    return False
        return True


def choices(tiles: Tiles, group: Group, steps: Steps, weights: Weights) -> Iterator[Choice]:
    """Ways to run a cut: weights of all stages stay, of some, of none."""
    leaving = [best_nest(tiles, group, steps, weights, position, stay=False) for position in range(len(group.stages))]
    if any(nest is None and stage.layer.has_macs for nest, stage in zip(leaving, group.stages, strict=True)):
        return
    for narrow in (False, True):
        nests = [
            best_nest(tiles, group, steps, weights, position, stay=True, narrow=narrow)
            for position in range(len(group.stages))
        ]
        able = frozenset(position for position, nest in enumerate(nests) if nest is not None)
        mixed = tuple(nest or other for nest, other in zip(nests, leaving, strict=True))
        every = Choice(group, steps.cut, mixed, able)
        if able and every.serves(tiles, steps):
            if memory_taken(group, steps, every.bills(tiles), able, tiles.machine) is not None:
                yield every
                break
            if narrow:
                yield from some(tiles, every, steps, leaving)
    yield Choice(group, steps.cut, tuple(leaving), frozenset())


def some(tiles: Tiles, every: Choice, steps: Steps, leaving: list[Mapping | None]) -> Iterator[Choice]:
    """Weights stay one stage after another, most traffic per bit of room first, while they fit."""
    group, bills = every.group, every.bills(tiles)

    def worth(position: int) -> float:
        layer, tile = group.stages[position].layer, next(iter(steps.tiles(position)))
        assert layer.weight is not None
        return layer.weight.size_bits / max(1, bills(position, tile).weight_bits)

    kept: frozenset[int] = frozenset()
    best: Choice | None = None
    for position in sorted(every.staying, key=lambda position: (-worth(position), position)):
        more = kept | {position}
        mixed = tuple(
            nest if s in more else other for s, (nest, other) in enumerate(zip(every.mappings, leaving, strict=True))
        )
        choice = Choice(group, every.cut, mixed, more)
        if memory_taken(group, steps, choice.bills(tiles), more, tiles.machine) is not None:
            kept, best = more, choice
    if best is not None:
        yield best


def best_nest(
    tiles: Tiles, group: Group, steps: Steps, weights: Weights, position: int, *, stay: bool, narrow: bool = False
) -> Mapping | None:
    """The nest that costs least on the tile made most; with `narrow` the one whose weights take least room."""
    index = group.first + position
    if not group.stages[position].layer.has_macs:
        return None
    occurring = steps.tiles(position)
    main = max(occurring, key=lambda tile: (occurring[tile] * tile[0] * tile[1], tile))
    largest = max(tile[0] for tile in occurring), max(tile[1] for tile in occurring)
    found: tuple[tuple[float, ...], int] | None = None
    known = tiles.known(index, largest)
    for number, mapping in enumerate(known):
        answer = tiles.bill(index, mapping, main)
        if answer is None or (stay and not answer.can_stay):
            continue
        cost = (answer.staying if stay else answer.bringing)[0]
        pair: Pair = weights.pair(cost.total_energy_pj, float(cost.latency_cycles))
        rank = (float(answer.weight_bits), *pair) if narrow else pair
        if (found is None or rank < found[0]) and all(tiles.bill(index, mapping, tile) for tile in occurring):
            found = rank, number
    return None if found is None else known[found[1]]
