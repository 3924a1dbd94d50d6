"""Dynamic programming over the sets of tensors that stay on chip: the cheapest sum of stage costs.

    V_{i+1}(R without the dead) = min over R of V_i + f_i(R and what stage i touches, room that R leaves)

State: the tensors alive that stay (R). Exact for every network in its order: chains, residuals, concatenations only
widen the sets. Costs are pairs, compared in order, so that a second objective decides among equals.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from hwsim.search.joint.schedule import NOBODY, Names, Schedule, Tenant

MAX_STATES = 4096
Pair = tuple[float, float]
Cost = Callable[[int, Names, "int | None"], Pair]  # stage, those of its tensors that stay, room left (None: all)
Live = frozenset[Tenant]
Trail = tuple["Trail | None", Live]


@dataclass(frozen=True)
class Path:
    """The least sum, and per stage the tensors that stay. `dropped`: least sum of a state left out."""

    value: Pair
    live: tuple[Live, ...]
    dropped: float = math.inf

    def resident(self) -> Names:
        """All tensors that stay."""
        return frozenset(tenant.name for live in self.live for tenant in live)

    def at(self, schedule: Schedule, stage: int) -> tuple[Names, int | None]:
        """What a stage sees: those of its tensors that stay, and the room left; None where nothing stays."""
        return seen(schedule, stage, self.live[stage])


def seen(schedule: Schedule, stage: int, live: Live) -> tuple[Names, int | None]:
    """`Path.at` of a set."""
    if not live:
        return NOBODY, None
    mine = frozenset(tenant.name for tenant in live) & schedule.touched[stage]
    return mine, schedule.room(stage, live)


def cheapest(schedule: Schedule, cost: Cost) -> Path:
    """The path of least cost. Its value is infinite where some stage is in every case."""
    states: dict[Live, tuple[Pair, Trail | None]] = {frozenset(): ((0.0, 0.0), None)}
    dropped = math.inf
    for index in range(len(schedule.stages)):
        born = schedule.born.get(index, ())
        following: dict[Live, tuple[Pair, Trail | None]] = {}
        for before, (value, trail) in states.items():
            for live in with_born(before, born):
                mine, room = seen(schedule, index, live)
                if room is not None and room < -schedule.freed(index, mine).most_bits:
                    continue
                first, second = cost(index, mine, room)
                if first == math.inf:
                    continue
                total = value[0] + first, value[1] + second
                later = frozenset(tenant for tenant in live if tenant.last > index)
                if later not in following or total < following[later][0]:
                    following[later] = total, (trail, live)
        if len(following) > MAX_STATES:
            ranked = sorted(following.items(), key=lambda item: item[1][0])
            dropped = min(dropped, ranked[MAX_STATES][1][0][0])
            following = dict(ranked[:MAX_STATES])
        states = following
    if not states:
        return Path((math.inf, math.inf), (frozenset(),) * len(schedule.stages), dropped)
    value, trail = min(states.values(), key=lambda state: state[0])
    return Path(value, unwound(trail), dropped)


def with_born(before: Live, born: Sequence[Tenant]) -> Iterator[Live]:
    """The tensors alive, with every choice among those that are made or fetched now."""
    for many in range(len(born) + 1):
        for chosen in itertools.combinations(born, many):
            yield before | frozenset(chosen)


def unwound(trail: Trail | None) -> tuple[Live, ...]:
    """The sets of a path, first stage first."""
    found: list[Live] = []
    while trail is not None:
        trail, live = trail
        found.append(live)
    return tuple(reversed(found))
