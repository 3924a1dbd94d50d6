"""The plan of given mappings and depth-first groups, as a mapping file says them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from collections.abc import Mapping as Map

from hwsim.errors import InfeasibleMapping, SpecError
from hwsim.machine.parts import Accelerator
from hwsim.nest.legal import check
from hwsim.nest.mapping import Mapping
from hwsim.nest.text import Together
from hwsim.network.workload import Workload
from hwsim.pricing.fused import Cut, Steps
from hwsim.pricing.groups import Group
from hwsim.pricing.lifetimes import WHOLE_TENSORS, Lifetimes
from hwsim.pricing.tiles import home_of, tile_layer
from hwsim.search.fusion.choices import Choice
from hwsim.search.fusion.costs import Fused, GroupCosts
from hwsim.search.fusion.groups import network_group
from hwsim.search.fusion.plan import alone, planned_along
from hwsim.search.fusion.programme import Programme
from hwsim.search.fusion.tiles import Tiles
from hwsim.search.joint.optimum import Optimum
from hwsim.search.joint.programme import Pair
from hwsim.search.joint.schedule import Names, Schedule
from hwsim.search.joint.staircase import Weights
from hwsim.search.network import Plan, given_mappings, plan_given, preferred
from hwsim.search.objective import Objective


class GivenCosts(GroupCosts):
    """Groups that are run in one given way each."""

    def __init__(self, tiles: Tiles, choices: Sequence[Choice]) -> None:
        super().__init__(tiles, {choice.group.first: [choice.group] for choice in choices})
        self.choices = {choice.group.first: choice for choice in choices}

    def fused(self, group: Group, resident: Names, weights: Weights) -> Iterator[Fused]:
        """Its one price beside whole tensors that stay."""
        choice = self.choices[group.first]
        cost = choice.price(self.tiles, resident)
        if cost is not None:
            pair = weights.pair(cost.energy_pj, float(cost.latency_cycles))
            yield Fused(group, choice.cut, resident, pair, cost.home_bits, choice, cost)


def given_plan(
    workload: Workload,
    accelerator: Accelerator,
    mappings: Map[str, Mapping],
    groups: Sequence[Together],
    objective: Objective,
    lifetimes: Lifetimes = WHOLE_TENSORS,
) -> Plan:
    """The plan of given mappings and groups, with the tensors that best stay. Raises SpecError, InfeasibleMapping."""
    if not groups:
        return plan_given(workload, accelerator, given_mappings(workload, accelerator, mappings), objective, lifetimes)
    if lifetimes != WHOLE_TENSORS:
        raise SpecError(f"groups: layers that run depth first keep whole tensors, not lifetimes {lifetimes}")
    schedule = Schedule(workload, accelerator)
    chosen = [given_choice(schedule, mappings, group) for group in groups]
    inside = [place for choice in chosen for place in range(choice.group.first, choice.group.end)]
    twice = [schedule.stages[place].layer.name for place in inside if inside.count(place) > 1]
    if twice:
        raise SpecError(f"groups: layer {twice[0]} stands in two of them")
    names = frozenset(schedule.stages[place].layer.name for place in inside)
    found = given_mappings(workload, accelerator, mappings, names)
    optimum = Optimum(schedule, None, alike=False)
    optimum.add((name, mine.mapping) for name, mine in found.items())
    costs = GivenCosts(Tiles(optimum), chosen)
    bounds = {name: mine.certificate for name, mine in found.items()}
    plans: list[Plan] = []
    for weights in (Weights(0.0), Weights(None)):
        single = alone(optimum, weights)

        def outside(index: int, mine: Names, room: int | None) -> Pair:
            return (math.inf, math.inf) if index in inside else single(index, mine, room)  # noqa: B023

        way = Programme(schedule, costs, weights, outside).least(0.0)
        if way.segments:
            plans.append(planned_along(workload, way, costs, weights, bounds))
    if not plans:
        home = home_of(accelerator)
        raise InfeasibleMapping(
            f"groups: lines, tiles and weights that stay do not fit their memories ({home.name} holds "
            f"{home.size_bits or 0:,} bits): fewer rows, narrower columns, or fewer weights_stay"
        )
    return preferred(plans, objective, 0.0)


def given_choice(schedule: Schedule, mappings: Map[str, Mapping], said: Together) -> Choice:
    """A group of a file on a network. Raises SpecError, InfeasibleMapping."""
    where = f"groups: {said.first} to {said.last}"
    places = {stage.layer.name: place for place, stage in enumerate(schedule.stages)}
    for name in (said.first, said.last):
        if name not in places:
            raise SpecError(f"{where}: the workload has no stage that begins with a layer {name!r}")
    first, end = places[said.first], places[said.last] + 1
    group = network_group(schedule, first, end) if end > first + 1 else None
    if group is None or schedule.home is None:
        raise SpecError(f"{where}: these layers cannot run depth first on {schedule.accelerator.name}")
    high, wide = group.maps[-1].shape[2:]
    for key, lines, most in (("rows", said.rows, high), ("columns", said.columns, wide)):
        if lines > most:
            raise SpecError(f"{where}: {key}: the last map has {most}, got {lines}")
    strangers = [name for name in said.weights_stay if name not in group.layers]
    if strangers:
        raise SpecError(f"{where}: weights_stay: {strangers[0]!r} is no stage of the group")
    steps = Steps(group, Cut(said.rows, said.columns, said.halos))
    nests = tuple(given_nest(schedule, group, steps, position, mappings) for position in range(len(group.stages)))
    staying = frozenset(group.layers.index(name) for name in said.weights_stay)
    return Choice(group, steps.cut, nests, staying)


def given_nest(
    schedule: Schedule, group: Group, steps: Steps, position: int, mappings: Map[str, Mapping]
) -> Mapping | None:
    """The nest of a stage's largest tile."""
    stage = group.stages[position]
    if not stage.layer.has_macs:
        return None
    name = stage.layer.name
    if name not in mappings:
        raise SpecError(f"layer {name}: no mapping given for it")
    check(mappings[name], tile_layer(stage, max(steps.tiles(position))), schedule.accelerator)
    return mappings[name]
