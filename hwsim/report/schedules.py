"""The best schedule of a network beside the machine's own one, or beside the one under constraints."""

from __future__ import annotations

from typing import Any

from hwsim.errors import InfeasibleMapping
from hwsim.machine.parts import Accelerator
from hwsim.machine.rules_file import OWN
from hwsim.network.workload import Workload
from hwsim.pricing.network import Totals
from hwsim.report.progress import Searches, Watch, searches_of
from hwsim.search.network import Plan, plan_network, planned, search_network
from hwsim.search.objective import Objective


def side_by_side(
    workload: Workload,
    accelerator: Accelerator,
    plan: Plan,
    constraints: str | None,
    watch: Watch | None,
    objective: Objective,
    **options: Any,
) -> tuple[dict[str, Totals], str]:
    """Totals of the best schedule and of the other one; why the machine's own one does not run the network.

    `plan` is what was asked for. Where that is the best one, the machine's own is searched without a plan's rivals.
    """
    if constraints is None and not accelerator.constraints:
        return {}, ""
    name = OWN if constraints in (None, OWN) else "constrained"
    rules = accelerator.constraints if constraints is None else ()
    if watch is not None:
        watch.begin("own schedule" if rules else "best schedule", searches_of(workload, accelerator))
    known = {} if watch is None else Searches(watch.advance)
    if not rules:
        best = plan_network(workload, accelerator, objective, known=known, **options)
        return {"best": best.cost.totals, name: plan.cost.totals}, ""
    try:
        found = search_network(workload, accelerator, objective, rules=rules, known=known, **options)
    except InfeasibleMapping as problem:
        return {}, str(problem)
    return {"best": plan.cost.totals, name: planned(workload, accelerator, found).cost.totals}, ""
