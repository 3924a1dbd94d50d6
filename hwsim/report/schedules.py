"""The best schedule of a network beside the machine's own one, or beside the one under constraints."""

from __future__ import annotations

from typing import Any

from hwsim.errors import InfeasibleMapping
from hwsim.machine.parts import Accelerator
from hwsim.machine.rules_file import OWN
from hwsim.network.workload import Workload
from hwsim.pricing.network import Totals
from hwsim.report.progress import Searches, Watch, searches_of
from hwsim.search.network import Plan, planned, search_network
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

    `plan` is what was asked for; what it is compared with is searched once, without the rivals of a plan.
    """
    if constraints is None and not accelerator.constraints:
        return {}, ""
    name = OWN if constraints in (None, OWN) else "constrained"
    rules = accelerator.constraints if constraints is None else ()
    if watch is not None:
        watch.begin("own schedule" if rules else "best schedule", searches_of(workload, accelerator))
    known = {} if watch is None else Searches(watch.advance)
    try:
        found = search_network(workload, accelerator, objective, rules=rules, known=known, **options)
    except InfeasibleMapping as problem:
        if not rules:
            raise
        return {}, str(problem)
    other = planned(workload, accelerator, found)
    best, second = (plan, other) if rules else (other, plan)
    return {"best": best.cost.totals, name: second.cost.totals}, ""
