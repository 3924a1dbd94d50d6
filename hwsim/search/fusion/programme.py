"""Dynamic programming over segments: each stage alone, or a run of neighbours as a depth-first group.

    V_{j+1}(R without the dead) = min over i of V_i + c(i..j, R and what the group touches, room that R leaves)

R: tensors alive that stay on chip whole, as in joint/programme.py, whose costs of single stages are these. A group's
cost is an estimate until the cheapest path asks for it; then it is priced, until the path holds prices only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from hwsim.pricing.groups import Group
from hwsim.search.fusion.costs import Fused, GroupCosts
from hwsim.search.joint.programme import MAX_STATES, Live, Pair, seen, with_born
from hwsim.search.joint.schedule import Names, Schedule, Tenant
from hwsim.search.joint.staircase import Weights

Alone = Callable[[int, Names, "int | None"], Pair]


@dataclass(frozen=True)
class Segment:
    """Stages `first` to `end` - 1 with the tensors that stay meanwhile. `fused`: how, where they are a group."""

    first: int
    end: int
    live: Live
    fused: Fused | None = None


Trail = tuple["Trail | None", Segment]


@dataclass(frozen=True)
class Way:
    """Segments of a whole network, and their sum."""

    value: Pair
    segments: tuple[Segment, ...]

    @property
    def asked(self) -> list[Fused]:
        """Groups that have only an estimate."""
        return [s.fused for s in self.segments if s.fused is not None and s.fused.choice is None]


@dataclass(frozen=True)
class Step:
    """One way on from a state: a segment, who lives on, and its cost, or the group that knows it."""

    end: int
    live: Live
    later: Live
    cost: Pair = (0.0, 0.0)
    group: Group | None = None
    mine: Names = frozenset()
    room: int = 0


class Programme:
    """Segments of a schedule. `alone`: the cost of a stage by itself."""

    def __init__(self, schedule: Schedule, costs: GroupCosts, weights: Weights, alone: Alone) -> None:
        self.schedule, self.costs, self.weights, self.alone = schedule, costs, weights, alone
        self.capacity_bits = schedule.capacity_bits
        self.known: dict[tuple[int, Live], tuple[Step, ...]] = {}

    def least(self, tolerance: float) -> Way:
        """The cheapest way, priced; estimates promise nothing that is better by more than a share `tolerance`.

        Where the network has few groups and cuts all are priced, and no estimate is left.
        """
        hoped = self.cheapest(priced=False)
        self.costs.price_few(self.weights)
        while True:
            hoped = self.cheapest(priced=False)
            if not hoped.asked:
                return hoped
            if tolerance:
                known = self.cheapest(priced=True)
                if known.value[0] <= hoped.value[0] * (1 + tolerance):
                    return known
            self.costs.price_all(hoped.asked, self.weights)

    def cheapest(self, *, priced: bool) -> Way:
        """The way of least cost, groups at their prices, or also at their estimates."""
        count = len(self.schedule.stages)
        states: list[dict[Live, tuple[Pair, Trail | None]]] = [{} for _ in range(count + 1)]
        states[0][frozenset()] = (0.0, 0.0), None
        for place in range(count):
            ranked = list(states[place].items())
            if len(ranked) > MAX_STATES:
                ranked = sorted(ranked, key=lambda item: item[1][0])[:MAX_STATES]
            for before, (value, trail) in ranked:
                for step in self.following(place, before):
                    fused, cost = None, step.cost
                    if step.group is not None:
                        fused = self.costs.best(step.group, step.mine, step.room, self.weights, priced=priced)
                        if fused is None:
                            continue
                        cost = fused.pair
                    total = value[0] + cost[0], value[1] + cost[1]
                    known = states[step.end].get(step.later)
                    if known is None or total < known[0]:
                        states[step.end][step.later] = total, (trail, Segment(place, step.end, step.live, fused))
        if not states[count]:
            return Way((math.inf, math.inf), ())
        value, trail = min(states[count].values(), key=lambda state: state[0])
        return Way(value, tuple(reversed(list(unwound(trail)))))

    def following(self, place: int, before: Live) -> tuple[Step, ...]:
        """What may come next."""
        key = place, before
        if key not in self.known:
            self.known[key] = (*self.stages_next(place, before), *self.groups_next(place, before))
        return self.known[key]

    def stages_next(self, place: int, before: Live) -> Iterator[Step]:
        """The next stage by itself."""
        schedule = self.schedule
        for live in with_born(before, schedule.born.get(place, ())):
            mine, room = seen(schedule, place, live)
            cost = self.alone(place, mine, room) if room is None or room >= 0 else (math.inf, math.inf)
            if cost[0] < math.inf:
                yield Step(place + 1, live, frozenset(t for t in live if t.last > place), cost)

    def groups_next(self, place: int, before: Live) -> Iterator[Step]:
        """Groups that begin here."""
        for group in self.costs.groups.get(place, ()):
            for live in with_born(before, born_inside(self.schedule, group)):
                room = self.capacity_bits - sum(tenant.bits for tenant in live)
                if room >= 0:
                    mine = frozenset(tenant.name for tenant in live) & group.names
                    later = frozenset(tenant for tenant in live if tenant.last >= group.end)
                    yield Step(group.end, live, later, group=group, mine=mine, room=room)


def unwound(trail: Trail | None) -> Iterator[Segment]:
    """The segments of a path, last one first."""
    while trail is not None:
        trail, segment = trail
        yield segment


def born_inside(schedule: Schedule, group: Group) -> list[Tenant]:
    """Tensors that a group makes and a later stage reads; weights are fetched to stay by stages alone."""
    born = [tenant for place in range(group.first, group.end) for tenant in schedule.born.get(place, ())]
    return [tenant for tenant in born if tenant.last >= group.end and tenant.name not in schedule.weights]
