"""Mappings for a whole network: layers searched one by one, judged together.

Which tensors stay on chip depends on all mappings at once, so the best mapping of each layer is not always the best
network. Widths are walked down a ladder: at every rung the mappings of the rung above compete with freshly searched
ones, and what wins may cost no more energy and move no more bits than they. So fewer bits never cost more.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping as Map

from hwsim.errors import HwsimError
from hwsim.machine import Accelerator
from hwsim.mapping import validate
from hwsim.pricing.cost import NetworkCost, price_network
from hwsim.pricing.layer_cost import price
from hwsim.pricing.stages import effective_workload
from hwsim.search import RUNGS, Effortful, Found, Objective, search_network
from hwsim.workload import Tensor, Workload


@dataclasses.dataclass(frozen=True)
class Plan:
    """A mapping per layer with MACs, by name, and what the network costs under them."""

    found: Map[str, Found]
    cost: NetworkCost

    def value(self, objective: Objective) -> float:
        """What is minimised, over the network: pJ, cycles, or pJ*s."""
        totals = self.cost.totals
        return {"energy": totals.energy_pj, "latency": float(totals.latency_cycles), "edp": totals.edp_pj_s}[objective]

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
) -> Plan:
    """The best plan found for a network. Raises InfeasibleMapping or CapabilityError as the search does.

    `effort`, `gap` and `time_limit_s` (per layer) are the search's.
    """
    known: dict[tuple[object, ...], Found] = {}
    best: Plan | None = None
    for rung in ladder(workload):
        try:
            searched = search_network(
                rung, accelerator, objective, gap=gap, time_limit_s=time_limit_s, effort=effort, known=known
            )
        except HwsimError:
            if rung is workload:
                raise
            continue  # the machine does not run the wider widths
        fresh = planned(rung, accelerator, searched)
        best = fresh if best is None else better(rung, accelerator, objective, best, fresh)
    assert best is not None
    return best


def better(workload: Workload, accelerator: Accelerator, objective: Objective, above: Plan, fresh: Plan) -> Plan:
    """The best of: the mappings of the rung above, the fresh ones, and layer by layer whichever costs no more."""
    handed = handed_down(workload, accelerator, above.found, fresh.found)
    mixed = {name: winner(handed[name], found) for name, found in fresh.found.items()}
    kept = planned(workload, accelerator, handed)
    candidates = [plan for plan in (planned(workload, accelerator, mixed), fresh) if plan.costs_no_more_than(kept)]
    return min([*candidates, kept], key=lambda plan: plan.value(objective))


def handed_down(
    workload: Workload, accelerator: Accelerator, above: Map[str, Found], fresh: Map[str, Found]
) -> dict[str, Found]:
    """The rung above's mappings, priced at this rung's widths; a mapping's counts do not depend on widths."""
    handed: dict[str, Found] = {}
    for name, layer in effective_workload(workload, accelerator.capabilities).items():
        mapping = above[name].mapping
        if mapping == fresh[name].mapping or validate(mapping, layer, accelerator):
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


def planned(workload: Workload, accelerator: Accelerator, found: Map[str, Found]) -> Plan:
    """A plan from given mappings."""
    return Plan(found, price_network(workload, accelerator, {name: f.counts for name, f in found.items()}))


def ladder(workload: Workload) -> list[Workload]:
    """The workload at ever narrower widths, its own last: every tensor one rung of RUNGS at a time."""
    rungs = [workload]
    while True:
        grown = rungs[0].map_tensors(one_rung_up)
        if grown == rungs[0]:
            return rungs
        rungs.insert(0, grown)


def one_rung_up(tensor: Tensor) -> Tensor:
    """The tensor at the next wider rung; unchanged at the top."""
    higher = [rung for rung in RUNGS if rung > tensor.bits]
    return dataclasses.replace(tensor, bits=higher[0]) if higher else tensor
