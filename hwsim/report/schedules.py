"""The best schedule of a network beside the machine's own one, or beside the one under constraints."""

from __future__ import annotations

from typing import Any

from hwsim.machine.parts import Accelerator
from hwsim.machine.rules_file import OWN
from hwsim.network.workload import Workload
from hwsim.pricing.network import Totals
from hwsim.report.progress import Searches, Watch, searches_of
from hwsim.search.network import OwnSchedule, Plan, plan_network, preferred
from hwsim.search.objective import Objective


def side_by_side(
    workload: Workload,
    accelerator: Accelerator,
    plan: Plan,
    constraints: str | None,
    watch: Watch | None,
    objective: Objective,
    own: OwnSchedule,
    **options: Any,
) -> tuple[dict[str, Totals], str]:
    """Totals of the best schedule and of the other one; why the machine's own one does not run the network.

    `plan` is what was asked for. Where that is the best one, the machine's own (`own`) was among its rivals; where it
    keeps constraints, it competes for the best one.
    """
    if constraints is None:
        mine = own.plan(objective, **options)
        return ({}, own.why_not) if mine is None else ({"best": plan.cost.totals, OWN: mine.cost.totals}, "")
    if watch is not None:
        watch.begin("best schedule", searches_of(workload, accelerator))
    known = {} if watch is None else Searches(watch.advance)
    free = plan_network(workload, accelerator, objective, known=known, **options)
    best = preferred([free, plan], objective, options.get("slack", 0.0))
    return {"best": best.cost.totals, OWN if constraints == OWN else "constrained": plan.cost.totals}, ""
