"""The mappings of a network: every distinct layer is searched once, and the network is priced with them.

Fewer bits never cost more: a search at narrow widths also considers what the next wider ones found.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Sequence
from collections.abc import Mapping as Map
from typing import Any

from hwsim.errors import HwsimError, InfeasibleMapping, SpecError
from hwsim.machine.parts import Accelerator
from hwsim.machine.rules import Rules
from hwsim.nest.count import count_accesses
from hwsim.nest.legal import check, validate
from hwsim.nest.mapping import Mapping
from hwsim.nest.ruled import broken_rules
from hwsim.network.layer import Layer, Tensor
from hwsim.network.workload import Workload
from hwsim.pricing.layer import price
from hwsim.pricing.lifetimes import WHOLE_TENSORS, Lifetimes
from hwsim.pricing.network import NetworkCost, price_network
from hwsim.pricing.stages import effective_layer, effective_workload, fuse
from hwsim.search.bounds.any_mapping import bound_of_all
from hwsim.search.bounds.any_tiles import ROUNDS
from hwsim.search.effort import Options
from hwsim.search.fusion.choices import Choice
from hwsim.search.joint.optimum import Answer, Optimum
from hwsim.search.joint.plan import after, answers, least_product
from hwsim.search.joint.proofs import Proofs
from hwsim.search.joint.schedule import Schedule
from hwsim.search.joint.staircase import Weights
from hwsim.search.layer import prove, search
from hwsim.search.machines.answers import MachineAnswers
from hwsim.search.objective import OBJECTIVES, SECOND, Objective, objective_value
from hwsim.search.result import GIVEN, Certificate, Effortful, Found, NetworkCertificate, homes_space
from hwsim.search.side_by_side import each, parted
from hwsim.search.space.likeness import full_key, fused_key, search_key
from hwsim.search.space.problem import Problem


@dataclasses.dataclass(frozen=True)
class Asked:
    """What tables over machines said of a network's distinct layers: how many they answered, and whom they could not.

    `proven_anew` names the layers that got a proof of their own instead.
    """

    answered: int
    proven_anew: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Plan:
    """A mapping per layer with MACs, by name, and what the network costs under them."""

    found: Map[str, Found]
    cost: NetworkCost
    certificate: NetworkCertificate | None = None
    groups: tuple[Choice, ...] = ()  # stages that run depth first, with their tiles
    tables: Asked | None = None  # None: no tables over machines were asked

    def value(self, objective: Objective) -> float:
        """What is minimised, over the network: pJ, cycles, or pJ*s."""
        totals = self.cost.totals
        return objective_value(objective, totals.energy_pj, float(totals.latency_cycles))

    def costs_no_more_than(self, other: Plan) -> bool:
        """Whether energy and traffic are both at most the other's."""
        mine, theirs = self.cost.totals, other.cost.totals
        return mine.energy_pj <= theirs.energy_pj and mine.traffic_bits <= theirs.traffic_bits


def plan_network(
    workload: Workload,
    accelerator: Accelerator,
    objective: Objective = "energy",
    *,
    gap: float = 0.0,
    time_limit_s: float | None = None,
    effort: Effortful = "quick",
    slack: float = 0.0,
    rules: Rules = (),
    lifetimes: Lifetimes = WHOLE_TENSORS,
    known: dict[tuple[object, ...], Found] | None = None,
    own: OwnSchedule | None = None,
) -> Plan:
    """The best plan found for a network. Raises InfeasibleMapping or CapabilityError as the search does.

    `effort`, `gap`, `time_limit_s` (per search), `slack` and `rules` are the search's. `quick` searches layers alone,
    and what stays on chip is decided afterwards; the others choose both together (`joint/`), with a certificate.
    Mappings of the quick search, of wider widths and of the machine's own schedule compete, so that no effort's answer
    is worse than the quick one's or than `OwnSchedule`'s of that effort (`own`: the same over several calls).
    `known` carries searches from one call to the next (same accelerator). Under `rules` layers are proven alone.
    """
    known = {} if known is None else known
    options: dict[str, Any] = {"gap": gap, "time_limit_s": time_limit_s, "effort": effort, "slack": slack}
    rival = climbed(workload, accelerator, objective, known, effort="quick", slack=slack, rules=rules)
    if rules:
        if effort == "quick":
            return rival
        proven = climbed(workload, accelerator, objective, known, rules=rules, **options)
        return preferred([proven, bounded_by(rival, proven)], objective, slack)
    own = own or OwnSchedule(workload, accelerator, known)
    own_quick = own.plan(objective, effort="quick", slack=slack)
    rivals = [rival] if own_quick is None else [rival, own_quick]
    if effort == "quick":
        return preferred(rivals, objective, slack)
    own_proven = own.plan(objective, **options)
    rivals += [] if own_proven is None else [own_proven]
    solver = Proofs(gap, time_limit_s, effort, known)
    ask = Asking(accelerator, known, gap, time_limit_s, effort, slack, solver, lifetimes)
    above: Plan | None = None
    for rung in ladder(workload):
        try:
            above = ask.joint(rung, objective, above, rivals if rung is workload else ())
        except HwsimError:
            if rung is workload:
                raise
    assert above is not None
    chosen = preferred([above, *rivals], objective, slack)
    return chosen if chosen is above else certified_by(chosen, above, objective)


@dataclasses.dataclass
class OwnSchedule:
    """Plans of the schedule that a machine runs by itself: the constraints of its spec, layers searched alone.

    `why_not`: why it does not run the network, once that was seen; it is not searched again.
    """

    workload: Workload
    accelerator: Accelerator
    known: dict[tuple[object, ...], Found]
    why_not: str = ""

    def plan(self, objective: Objective, **options: Any) -> Plan | None:
        """None where the machine has no constraints, or where no mapping of some layer keeps them."""
        rules = self.accelerator.constraints
        if not rules or self.why_not:
            return None
        try:
            return climbed(self.workload, self.accelerator, objective, self.known, rules=rules, **options)
        except InfeasibleMapping as problem:
            self.why_not = str(problem)
            return None


def plan_layers(
    workload: Workload,
    accelerator: Accelerator,
    objective: Objective,
    options: Options,
    answers: MachineAnswers | None = None,
    *,
    stay: bool = True,
) -> Plan:
    """The plan of layers that are proven one by one; what stays on chip is decided afterwards, or nothing does.

    `answers`: tables over machines, asked before a layer is proven anew; the plan's `tables` says which were. Raises as
    `plan_network` does.
    """
    anew: list[str] = []
    known: dict[tuple[object, ...], Found] = {}
    found: dict[str, Found] = {}
    for stage in fuse(workload, accelerator.capabilities):
        if not stage.layer.has_macs:
            continue
        problem = Problem(effective_layer(stage), accelerator, fused=stage.fused)
        key = search_key(problem.layer), fused_key(problem)
        if key not in known:
            answer = None if answers is None else answers.find(problem, objective, options.effort)
            if answer is None:
                answer = prove(problem, objective, seeds=(), cutoff=math.inf, options=options)
                anew.append(stage.layer.name)
            assert isinstance(answer, Found)  # nothing lies above an infinite cutoff
            known[key] = answer
        found[stage.layer.name] = known[key]
    plan = planned(workload, accelerator, found, None if stay else frozenset())
    return plan if answers is None else dataclasses.replace(plan, tables=Asked(len(known) - len(anew), tuple(anew)))


def certified_by(plan: Plan, proven: Plan, objective: Objective) -> Plan:
    """A plan under the certificate of another one."""
    known, value = proven.certificate, plan.value(objective)
    assert known is not None
    mine = dataclasses.replace(known, value=value, lower_bound=min(known.lower_bound, value), then="")
    cost = dataclasses.replace(plan.cost, lifetimes=known.lifetimes)  # whole ones fit where parts are freed as well
    return dataclasses.replace(bounded_by(plan, proven), cost=cost, certificate=mine)


@dataclasses.dataclass(frozen=True)
class Asking:
    """How layers are searched, and what they answered: `known` alone, `solver` with operands at home."""

    accelerator: Accelerator
    known: dict[tuple[object, ...], Found]
    gap: float
    time_limit_s: float | None
    effort: Effortful
    slack: float
    solver: Proofs
    lifetimes: Lifetimes = WHOLE_TENSORS

    def joint(self, workload: Workload, objective: Objective, above: Plan | None, rivals: Sequence[Plan]) -> Plan:
        """The best plan over homes and mappings; those of wider widths, of the quick search and of rivals compete."""
        optimum = Optimum(Schedule(workload, self.accelerator, self.lifetimes), self.solver)
        quick = [climbed(workload, self.accelerator, other, self.known) for other in OBJECTIVES]
        for plan in (*quick, *rivals, *(() if above is None else (above,))):
            optimum.add((name, found.mapping) for name, found in plan.found.items())
        found = list(answers(optimum, objective, self.slack))
        plans = [self.planned(workload, answer) for answer in found if answer.found]
        if not plans:
            return quick[OBJECTIVES.index(objective)]
        chosen = preferred(plans, objective, self.slack)
        return dataclasses.replace(chosen, certificate=certificate_of(chosen, found, objective, optimum.searches))

    def planned(self, workload: Workload, answer: Answer) -> Plan:
        """An answer's bill."""
        counts = {name: found.counts for name, found in answer.found.items()}
        return Plan(
            answer.found,
            price_network(workload, self.accelerator, counts, resident=answer.resident, lifetimes=self.lifetimes),
        )


def plan_given(
    workload: Workload,
    accelerator: Accelerator,
    found: Map[str, Found],
    objective: Objective,
    lifetimes: Lifetimes = WHOLE_TENSORS,
) -> Plan:
    """The plan of given mappings, with the tensors that best stay for an objective."""
    plans = [planned(workload, accelerator, found)]
    schedule = Schedule(workload, accelerator, lifetimes)
    if schedule.home is not None:
        optimum = Optimum(schedule, None, alike=False)
        optimum.add((name, mine.mapping) for name, mine in found.items())
        counts = {name: mine.counts for name, mine in found.items()}
        for weights in (Weights(0.0), Weights(None)):
            resident = optimum.best(weights).resident()
            plans.append(
                Plan(found, price_network(workload, accelerator, counts, resident=resident, lifetimes=lifetimes))
            )
    return preferred(plans, objective, 0.0)


def certificate_of(plan: Plan, found: Sequence[Answer], objective: Objective, searches: int) -> NetworkCertificate:
    """What the answers prove of a plan."""
    value = plan.value(objective)
    bound = least_product(found) if objective == "edp" else found[0].lower_bound
    if objective == "edp":
        value = plan.cost.totals.energy_pj * plan.cost.totals.latency_cycles
    cycles = float(plan.cost.totals.latency_cycles)
    least = objective == "latency" and cycles <= bound
    return NetworkCertificate(
        objective, value, min(bound, value), searches,
        all(f.certificate.exhaustive for f in plan.found.values()), homes_space(plan.cost.lifetimes),
        "energy" if least else "", plan.value("energy") if least else 0.0,
        min(after(found, cycles), plan.value("energy")) if least else 0.0,
        plan.cost.lifetimes,
    )  # fmt: skip


def plans_by_objective(
    workload: Workload,
    accelerator: Accelerator,
    chosen: Plan,
    known: dict[tuple[object, ...], Found],
    rules: Rules = (),
    own: OwnSchedule | None = None,
) -> dict[Objective, Plan]:
    """What each objective alone would give: the best of the chosen plan and the quick search's three."""
    plans = [chosen]
    plans += [plan_network(workload, accelerator, each, rules=rules, known=known, own=own) for each in OBJECTIVES]
    return {objective: preferred(plans, objective, 0.0) for objective in OBJECTIVES}


def preferred(plans: Sequence[Plan], objective: Objective, slack: float) -> Plan:
    """The plan that is least in the second objective among those within `slack` of the least in the first."""
    most = min(plan.value(objective) for plan in plans) * (1 + slack)
    second = SECOND.get(objective, objective)
    near = [plan for plan in plans if plan.value(objective) <= most]
    return min(near, key=lambda plan: (plan.value(second), plan.value(objective)))


def bounded_by(plan: Plan, proven: Plan) -> Plan:
    """A plan whose layers carry the bounds of another one's proofs."""
    found = {
        name: dataclasses.replace(mine, certificate=proven.found[name].certificate.revalued(mine.cost))
        for name, mine in plan.found.items()
    }
    return dataclasses.replace(plan, found=found)


def climbed(
    workload: Workload, accelerator: Accelerator, objective: Objective, known: dict[tuple[object, ...], Found],
    **options: Any,
) -> Plan:  # fmt: skip
    """The plan of one search, up the ladder of widths: mappings of wider rungs compete at narrower ones."""
    best: Plan | None = None
    for rung in ladder(workload):
        try:
            searched = search_network(rung, accelerator, objective, known=known, **options)
        except HwsimError:
            if rung is workload:
                raise
            continue  # the machine does not run the wider widths
        fresh = planned(rung, accelerator, searched)
        rules = options.get("rules", ())
        best = fresh if best is None else better(rung, accelerator, objective, best, fresh, rules)
    assert best is not None
    return best


def better(
    workload: Workload, accelerator: Accelerator, objective: Objective, above: Plan, fresh: Plan, rules: Rules = ()
) -> Plan:
    """The best of: the mappings of the rung above, the fresh ones, and layer by layer whichever costs no more."""
    handed = handed_down(workload, accelerator, above.found, fresh.found, rules)
    mixed = {name: winner(handed[name], found) for name, found in fresh.found.items()}
    kept = planned(workload, accelerator, handed)
    candidates = [plan for plan in (planned(workload, accelerator, mixed), fresh) if plan.costs_no_more_than(kept)]
    return min([*candidates, kept], key=lambda plan: plan.value(objective))


def handed_down(
    workload: Workload, accelerator: Accelerator, above: Map[str, Found], fresh: Map[str, Found], rules: Rules = ()
) -> dict[str, Found]:
    """The rung above's mappings, priced at this rung's widths; a mapping's counts do not depend on widths."""
    handed: dict[str, Found] = {}
    for name, layer in effective_workload(workload, accelerator.capabilities).items():
        mapping = above[name].mapping
        broken = validate(mapping, layer, accelerator) or broken_rules(mapping, layer, accelerator, rules)
        if mapping == fresh[name].mapping or broken:
            handed[name] = fresh[name]
            continue
        cost = price(layer, above[name].counts, accelerator)
        certificate = fresh[name].certificate.revalued(cost)
        handed[name] = Found(mapping, above[name].counts, cost, certificate)
    return handed


def winner(handed: Found, fresh: Found) -> Found:
    """The fresh mapping where it costs neither more energy nor more traffic by itself."""
    cheaper = fresh.cost.total_energy_pj <= handed.cost.total_energy_pj
    return fresh if cheaper and fresh.cost.traffic_bits <= handed.cost.traffic_bits else handed


def planned(
    workload: Workload, accelerator: Accelerator, found: Map[str, Found], resident: frozenset[str] | None = None
) -> Plan:
    """A plan from given mappings; the tensors that best stay with them, or given ones."""
    counts = {name: f.counts for name, f in found.items()}
    return Plan(found, price_network(workload, accelerator, counts, resident=resident))


def ladder(workload: Workload) -> list[Workload]:
    """The workload at ever narrower widths, its own last: every tensor one rung of RUNGS at a time."""
    rungs = [workload]
    while True:
        grown = rungs[0].map_tensors(one_rung_up)
        if grown == rungs[0]:
            return rungs
        rungs.insert(0, grown)


def one_rung_up(tensor: Tensor) -> Tensor:
    """The tensor at the next wider rung; unchanged at the top, and where a format says its bits."""
    if tensor.format is not None:
        return tensor
    higher = [rung for rung in RUNGS if rung > tensor.bits]
    return dataclasses.replace(tensor, bits=higher[0]) if higher else tensor


RUNGS: tuple[int, ...] = (1, 2, 4, 8)  # widths whose searches hand their mapping down to narrower ones


# --- whole networks ---------------------------------------------------------------------------------------------------


def wider(layer: Layer) -> Layer | None:
    """The layer at the next wider rung of RUNGS; None where every operand is at the top."""
    assert layer.weight is not None
    grown = dataclasses.replace(
        layer,
        weight=one_rung_up(layer.weight),
        inputs=tuple(one_rung_up(t) for t in layer.inputs),
        output=one_rung_up(layer.output),
    )
    return None if grown == layer else grown


def rungs_above(layer: Layer) -> Iterator[tuple[object, ...]]:
    """Keys of the searches that an answer for a layer may rest on, its own first."""
    above: Layer | None = layer
    while above is not None:
        yield search_key(above)
        above = wider(above)


def search_ladder(
    layer: Layer, accelerator: Accelerator, objective: Objective, known: dict[tuple[object, ...], Found], **options: Any
) -> Found:
    """`search`, with the mapping of the next wider widths among the candidates: fewer bits never cost more."""
    key = (objective, *sorted(options.items()), *search_key(layer))
    if key not in known:
        above = wider(layer)
        found: Found | None = None
        if above is not None:
            try:
                found = search_ladder(above, accelerator, objective, known, **options)
            except HwsimError:
                found = None
        answered = None if above is None or found is None else same_answer(layer, above, found, accelerator)
        seeds = [] if found is None else [found.mapping]
        known[key] = answered or search(layer, accelerator, objective, seeds=seeds, **options)
    return known[key]


def same_answer(layer: Layer, above: Layer, found: Found, accelerator: Accelerator) -> Found | None:
    """The answer of wider widths where only constants differ, which are the same in every bill; None where more does.

    An EDP is no sum: what is constant in energy moves its optimum.
    """
    if found.certificate.objective == "edp":
        return None
    if full_key(Problem(layer, accelerator)) != full_key(Problem(above, accelerator)):
        return None
    cost = price(layer, found.counts, accelerator)
    if cost.latency_cycles != found.cost.latency_cycles:
        return None
    return Found(found.mapping, found.counts, cost, found.certificate.shifted(cost, found.cost))


def search_network(
    workload: Workload,
    accelerator: Accelerator,
    objective: Objective = "energy",
    *,
    gap: float = 0.0,
    time_limit_s: float | None = None,
    effort: Effortful = "quick",
    slack: float = 0.0,
    rules: Rules = (),
    known: dict[tuple[object, ...], Found] | None = None,
) -> dict[str, Found]:
    """A mapping for every layer with MACs, by name; identical layers are searched once.

    `known` carries results from one call to the next (same accelerator, objective and limits).
    """
    known = {} if known is None else known
    found: dict[str, Found] = {}
    layers = effective_workload(workload, accelerator.capabilities)

    def answer(layer: Layer) -> Found:
        return search_ladder(
            layer, accelerator, objective, known, gap=gap, time_limit_s=time_limit_s, effort=effort, slack=slack,
            rules=rules,
        )  # fmt: skip

    def fill_in(group: Sequence[Layer]) -> None:
        for layer in group:
            with contextlib.suppress(HwsimError):  # asked again below, in the order of the layers
                answer(layer)

    if effort != "quick":
        distinct = {search_key(layer): layer for layer in layers.values()}
        each(fill_in, parted(distinct.values(), rungs_above))
    for name, layer in layers.items():
        result = answer(layer)
        found[name] = dataclasses.replace(result, cost=dataclasses.replace(result.cost, name=name))
    return found


def given_mappings(
    workload: Workload,
    accelerator: Accelerator,
    mappings: Map[str, Mapping],
    grouped: frozenset[str] = frozenset(),
) -> dict[str, Found]:
    """Exact counts and prices of given mappings, one per layer with MACs; InfeasibleMapping where one is illegal.

    `grouped`: layers whose mappings are those of tiles, left out here.
    """
    found: dict[str, Found] = {}
    layers = {n: l for n, l in effective_workload(workload, accelerator.capabilities).items() if n not in grouped}
    mappings = {name: mapping for name, mapping in mappings.items() if name not in grouped}
    missing = [name for name in layers if name not in mappings]
    unknown = [name for name in mappings if name not in layers]
    if missing or unknown:
        raise SpecError(
            [f"layer {name}: no mapping given for it" for name in missing]
            + [f"mapping of {name!r}: the workload has no such layer with MACs" for name in unknown]
        )
    for name, layer in layers.items():
        check(mappings[name], layer, accelerator)
        counts = count_accesses(layer, mappings[name], accelerator)
        cost = price(layer, counts, accelerator)
        bound = bound_of_all(Problem(layer, accelerator), "energy", (mappings[name], counts, cost), ROUNDS)
        certificate = Certificate("energy", cost.total_energy_pj, bound, 1, 1, GIVEN, any_tiles_bound=bound)
        found[name] = Found(mappings[name], counts, cost, certificate)
    return found
