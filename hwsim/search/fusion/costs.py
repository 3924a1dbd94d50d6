"""What groups cost beside tensors that stay: an estimate at once, prices when they are asked for.

Prices teach estimates: no tile of a stage is taken to cost less per output than the cheapest one priced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from hwsim.pricing.fused import Cut, GroupCost, Steps
from hwsim.pricing.groups import Group
from hwsim.search.fusion.choices import Choice, choices
from hwsim.search.fusion.groups import Outline, Work, cuts_of, groups_of
from hwsim.search.fusion.tiles import Tiles
from hwsim.search.joint.programme import Pair
from hwsim.search.joint.schedule import Names
from hwsim.search.joint.staircase import Weights

FEW = 150  # cuts of a network, beside all sets of tensors that stay, that are all priced


@dataclass(frozen=True)
class Fused:
    """A cut of a group at its price, or (no `choice`) at its estimate."""

    group: Group
    cut: Cut
    resident: Names
    pair: Pair
    home_bits: int
    choice: Choice | None = None
    cost: GroupCost | None = None
    outline: Outline | None = None


@dataclass
class Known:
    """What is known of a group beside a set of tensors that stay; `answers` by room, and by whether estimates count."""

    entries: list[Fused]
    answers: dict[tuple[int, bool], Fused | None] = field(default_factory=dict[tuple[int, bool], "Fused | None"])


class GroupCosts:
    """Groups of a network by their first stage, and what each costs under some weights."""

    def __init__(
        self, tiles: Tiles, groups: dict[int, list[Group]] | None = None, told: Callable[[], None] | None = None
    ) -> None:
        self.told = told  # of every cut priced
        self.tiles, self.machine = tiles, tiles.machine
        self.schedule = tiles.optimum.schedule
        self.work = Work(tiles)
        self.groups = groups_of(self.schedule) if groups is None else groups
        self.outlines: dict[tuple[int, int], list[Outline]] = {}
        self.known: dict[tuple[int, int, Names, Weights], Known] = {}

    def best(self, group: Group, resident: Names, room: int, weights: Weights, *, priced: bool) -> Fused | None:
        """The cheapest cut that fits a room, by price alone or by price and estimate; None where none fits."""
        known = self.about(group, resident, weights)
        if (room, priced) not in known.answers:
            fitting = [f for f in known.entries if f.home_bits <= room and (f.choice is not None or not priced)]
            known.answers[room, priced] = min(fitting, key=lambda fused: fused.pair, default=None)
        return known.answers[room, priced]

    def about(self, group: Group, resident: Names, weights: Weights) -> Known:
        """All cuts of a group, beside whole tensors that stay."""
        key = group.first, group.end, resident, weights
        if key not in self.known:
            self.known[key] = Known(list(self.fused(group, resident, weights)))
        return self.known[key]

    def fused(self, group: Group, resident: Names, weights: Weights) -> Iterable[Fused]:
        """Its cuts, estimated."""
        for outline in self.outlined(group):
            pair = weights.pair(*outline.guess(self.work, resident))
            yield Fused(group, outline.cut, resident, pair, outline.held_bits(resident), outline=outline)

    def outlined(self, group: Group) -> list[Outline]:
        """Its cuts."""
        key = group.first, group.end
        if key not in self.outlines:
            self.outlines[key] = list(cuts_of(group, self.machine, self.schedule.capacity_bits))
        return self.outlines[key]

    # --- prices -------------------------------------------------------------------------------------------------------

    def price_few(self, weights: Weights) -> None:
        """Price everything, where that is little."""
        asked = [f for key, known in self.known.items() if key[3] == weights for f in known.entries]
        if len(asked) <= FEW:
            self.price_all([fused for fused in asked if fused.choice is None], weights)

    def price_all(self, asked: Iterable[Fused], weights: Weights) -> None:
        """Replace estimates by prices; what they teach raises other estimates."""
        before = self.work.lessons
        for fused in asked:
            self.price(fused, weights)
        if self.work.lessons > before:
            for key, known in self.known.items():
                if key[3] == weights:
                    known.entries = [self.anew(fused, weights) for fused in known.entries]
                    known.answers.clear()

    def anew(self, fused: Fused, weights: Weights) -> Fused:
        """An estimate after lessons."""
        if fused.outline is None:
            return fused
        return replace(fused, pair=weights.pair(*fused.outline.guess(self.work, fused.resident)))

    def price(self, fused: Fused, weights: Weights) -> None:
        """Replace an estimate by the ways to run its cut."""
        known = self.known[fused.group.first, fused.group.end, fused.resident, weights]
        known.entries.remove(fused)
        known.answers.clear()
        if self.told is not None:
            self.told()
        steps = Steps(fused.group, fused.cut)
        for choice in choices(self.tiles, fused.group, steps, weights):
            cost = choice.price(self.tiles, fused.resident, steps)
            if cost is not None:
                pair = weights.pair(cost.energy_pj, float(cost.latency_cycles))
                priced = replace(fused, pair=pair, home_bits=cost.home_bits, choice=choice, cost=cost, outline=None)
                known.entries.append(priced)
                self.work.learn(choice, steps)
