"""A network's plan with depth-first groups, found beside plans without.

Nests of the plans that are known compete for stages by themselves, so the answer is never worse than those plans. Its
certificate has the bound of all schedules, groups included (bound.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Mapping as Map

from hwsim.machine.parts import Accelerator
from hwsim.nest.count import count_accesses
from hwsim.nest.mapping import Mapping
from hwsim.nest.text import Together
from hwsim.network.workload import Workload
from hwsim.pricing.fused import Steps
from hwsim.pricing.layer import LayerCost
from hwsim.pricing.network import price_network
from hwsim.pricing.tiles import tile_layer
from hwsim.search.fusion.bound import GroupsBound
from hwsim.search.fusion.choices import Choice
from hwsim.search.fusion.costs import Fused, GroupCosts
from hwsim.search.fusion.programme import Alone, Programme, Segment, Way
from hwsim.search.fusion.tiles import Tiles
from hwsim.search.joint.optimum import Optimum
from hwsim.search.joint.programme import seen
from hwsim.search.joint.schedule import Names, Schedule
from hwsim.search.joint.staircase import Weights
from hwsim.search.network import Plan, preferred
from hwsim.search.objective import Objective
from hwsim.search.quick.neighbours import trimmed
from hwsim.search.result import FUSED, GROUPED, UNFUSED, Certificate, Found, NetworkCertificate

TOLERANCE = 2e-3  # estimates that promise less than this are not followed


def fused_plan(
    workload: Workload,
    accelerator: Accelerator,
    plan: Plan,
    rivals: Iterable[Plan],
    objective: Objective,
    *,
    slack: float = 0.0,
    told: Callable[[], None] | None = None,
    tolerance: float = TOLERANCE,
) -> Plan:
    """The best plan found with depth-first groups; `plan` itself where there are none.

    Where groups exist and none pays, the certificate still has the bound of all schedules: theirs were not all tried.
    `rivals`: further plans whose nests compete. `told` is called for every cut priced.
    """
    optimum = Optimum(Schedule(workload, accelerator), None)
    for known in (plan, *rivals):
        optimum.add((name, found.mapping) for name, found in known.found.items())
    costs = GroupCosts(Tiles(optimum), told=told)
    plans = [plan]
    for weights in weightings(plan, objective) if costs.groups else ():
        way = Programme(optimum.schedule, costs, weights, alone(optimum, weights)).least(tolerance)
        if any(segment.fused is not None for segment in way.segments):
            bounds = {name: found.certificate for name, found in plan.found.items()}
            plans.append(planned_along(workload, way, costs, weights, bounds))
    best = preferred(plans, objective, slack)
    if not costs.groups:
        return plan
    return dataclasses.replace(best, certificate=certified(best, plan, optimum, objective))


def certified(best: Plan, plan: Plan, optimum: Optimum, objective: Objective) -> NetworkCertificate:
    """How far any schedule could lie below a plan with groups; what is known of schedules without stays said."""
    totals, known, space = best.cost.totals, plan.certificate, GROUPED
    value = totals.energy_pj * totals.latency_cycles if objective == "edp" else best.value(objective)
    if known is not None:
        space += UNFUSED.format(value=known.value, bound=known.lower_bound, space=known.space)
    bound = GroupsBound(optimum).value(objective)
    return NetworkCertificate(objective, value, min(bound, value), known.searches if known else 0, True, space)


def weightings(plan: Plan, objective: Objective) -> tuple[Weights, ...]:
    """What is minimised on the way to an objective; a product also along its slope at the known plan."""
    if objective != "edp":
        return (Weights(None if objective == "latency" else 0.0),)
    totals = plan.cost.totals
    return Weights(0.0), Weights(None), Weights(totals.energy_pj / max(1, totals.latency_cycles))


def alone(optimum: Optimum, weights: Weights) -> Alone:
    """The cost of stages by themselves, with the mappings known."""
    return lambda index, mine, room: optimum.upper(index, mine, room, weights)


# --- from a way to a plan ---------------------------------------------------------------------------------------------


def planned_along(
    workload: Workload, way: Way, costs: GroupCosts, weights: Weights, certificates: Map[str, Certificate]
) -> Plan:
    """The bill of a way. `certificates`: of layers by themselves."""
    optimum = costs.tiles.optimum
    found: dict[str, Found] = {}
    grouped: dict[str, LayerCost] = {}
    groups: list[Choice] = []
    resident: Names = frozenset(tenant.name for segment in way.segments for tenant in segment.live)
    for segment in way.segments:
        if segment.fused is not None:
            choice, layers = settled(segment.fused, costs.tiles)
            groups.append(choice)
            grouped |= layers
            found |= tile_nests(choice, layers, costs.machine)
        elif segment.first in optimum.pools:
            mine = by_itself(optimum, segment, weights, certificates)
            found[optimum.schedule.stages[segment.first].layer.name] = mine
    counts = {name: mine.counts for name, mine in found.items()}
    cost = price_network(workload, costs.machine, counts, resident=resident, grouped=grouped)
    named = {layer.name: layer for layer in cost.layers}
    ordered = {name: dataclasses.replace(found[name], cost=named[name]) for name in named if name in found}
    return Plan(ordered, cost, None, tuple(groups))


def by_itself(optimum: Optimum, segment: Segment, weights: Weights, certificates: Map[str, Certificate]) -> Found:
    """A stage's best nest known."""
    index, pool = segment.first, optimum.pools[segment.first]
    mine, room = seen(optimum.schedule, index, segment.live)
    best = pool.best(optimum.homes(index, mine), room, weights)
    assert best is not None
    _, mapping, priced = best
    certificate = certificates[optimum.schedule.stages[index].layer.name]
    return Found(mapping, pool.counts[mapping], priced.cost, certificate.revalued(priced.cost))


def settled(fused: Fused, tiles: Tiles) -> tuple[Choice, dict[str, LayerCost]]:
    """A group's choice with nests cut to their largest tiles, and its layers' bills."""
    assert fused.choice is not None
    steps = Steps(fused.group, fused.cut)
    choice = dataclasses.replace(fused.choice, mappings=tuple(cut_nests(fused.choice, steps)))
    cost = choice.price(tiles, fused.resident, steps)
    assert cost is not None
    return choice, cost.layers


def cut_nests(choice: Choice, steps: Steps) -> Iterator[Mapping | None]:
    """Its nests without iterations that the largest tile has no use for."""
    for position, mapping in enumerate(choice.mappings):
        tile = max(steps.tiles(position))
        yield mapping and trimmed(mapping, tile_layer(choice.group.stages[position], tile))


def tile_nests(choice: Choice, layers: Map[str, LayerCost], accelerator: Accelerator) -> dict[str, Found]:
    """The nests of a group's layers with MACs on their largest tiles, with one such tile's counts."""
    steps, found = Steps(choice.group, choice.cut), dict[str, Found]()
    for position, mapping in enumerate(choice.mappings):
        if mapping is not None:
            stage = choice.group.stages[position]
            counts = count_accesses(tile_layer(stage, max(steps.tiles(position))), mapping, accelerator)
            cost = layers[stage.layer.name]
            found[stage.layer.name] = Found(
                mapping, counts, cost, Certificate("energy", cost.total_energy_pj, 0.0, 0, 0, FUSED)
            )
    return found


def described(choice: Choice) -> Together:
    """A group as mappings.yaml says it."""
    names = choice.group.layers
    stay = tuple(names[position] for position in sorted(choice.staying))
    return Together(names[0], names[-1], choice.cut.rows, choice.cut.columns, choice.cut.halos, stay)
