"""One design point: a machine (and a network variant) priced, with its bits fixed or solved exactly for it.

Runs in any process: it needs the space, a folder with the networks as saved workloads, and the point's parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from hwsim.errors import CapabilityError, InfeasibleMapping, SpecError
from hwsim.explore.bits.bill import bit_problems
from hwsim.explore.bits.output import overrides
from hwsim.explore.bits.problem import InfeasibleBudget
from hwsim.explore.bits.solve import best_of
from hwsim.explore.machines.journal import Record
from hwsim.explore.machines.sharing import shared_tables
from hwsim.explore.machines.space import NETWORK, Parameters, Space, freedom_of, solved_for
from hwsim.explore.words import LOSS
from hwsim.machine.parts import Accelerator
from hwsim.network.batches import batch_of
from hwsim.network.format_bits import with_bits
from hwsim.network.saved import load_workload
from hwsim.network.workload import Workload
from hwsim.pricing.area import component_areas
from hwsim.pricing.fit import require_fit
from hwsim.search.effort import Options
from hwsim.search.network import Plan, plan_layers, plan_network
from hwsim.search.objective import Objective
from hwsim.search.passes import Splitting
from hwsim.search.proof.native import why_not_compiled
from hwsim.search.result import Effortful

Task = tuple[int, Parameters]


def network_key(parameters: Parameters) -> str:
    """File name of the network variant that a point needs."""
    said = [f"{key.removeprefix('network.')}-{parameters[key]}" for key in NETWORK if key in parameters]
    return "_".join(["network", *said]) + ".json"


@lru_cache(maxsize=64)
def network(path: Path) -> Workload:
    """A saved workload, read once per process."""
    return load_workload(path)


# What is a fact about a point: its spec contradicts itself, or it cannot run the network. All else (a missing file, no
# memory, a full disk) stops the study, and nothing of it is remembered.
FACTS = (SpecError, CapabilityError, InfeasibleMapping, InfeasibleBudget)


def evaluate(space: Space, networks: Path, tasks: list[Task]) -> list[Record]:
    """The records of some trials. Facts about a point are part of its record; other errors are raised."""
    return [one(space, networks, trial, parameters) for trial, parameters in tasks]


def evaluate_alike(proofs: bool, space: Space, networks: Path, tasks: list[Task]) -> list[Record]:
    """`evaluate` on a machine that can make `proofs` where the one that began the study could, and only there.

    Raises OSError on any other: the numbers of one study come from one search.
    """
    if space.can_prove() != proofs:
        missing = why_not_compiled() or "the machine that began the study has none"
        raise OSError(f"other proofs than where the study began, for the compiled search kernel is missing: {missing}")
    return evaluate(space, networks, tasks)


def one(space: Space, networks: Path, trial: int, parameters: Parameters) -> Record:
    """One trial's record: `status` is ok, over (a limit is exceeded, named in `why`) or infeasible."""
    record: Record = {"trial": trial, "parameters": parameters, "status": "ok", "why": "", "values": {}, "widths": {}}
    workload = network(networks / network_key(parameters))
    try:
        machine = space.machine(parameters)
        area = sum(part.area_mm2 for part in component_areas(machine))
        if area > space.limits.get("area_mm2", area):
            return {**record, "status": "over", "why": "area_mm2", "values": {"area_mm2": area}}
        values, bits = price(space, parameters, machine, workload)
    except FACTS as problem:
        return {**record, "status": "infeasible", "why": str(problem).splitlines()[0]}
    over = [name for name, limit in space.limits.items() if values.get(name, 0.0) > limit]
    return {**record, "status": "over" if over else "ok", "why": " ".join(over), "values": values, **bits}


def price(
    space: Space, parameters: Parameters, machine: Accelerator, workload: Workload
) -> tuple[dict[str, float], dict[str, Any]]:
    """What a machine costs with its best bits, and what else its record says: those bits as `widths` and `overrides`
    (nothing where all have the same), and which layers tables over machines answered (nothing where none were asked).
    """
    objective = cast(Objective, space.mapping)
    if space.fixed_bits is not None:
        network = with_bits(workload, space.fixed_bits)
        require_fit(network, machine)
        plan = in_passes(space, parameters, machine, network)
        return totals(plan), asked(plan)
    free = cast(Mapping[str, Any], space.bits)
    minimised, budgets, measured = solved_for(free, machine.clock_mhz)
    losses = measured.for_network(workload) if measured else None
    problems = bit_problems(workload, machine, freedom_of(free), losses, objective, on_chip=True)
    try:
        made, solution = best_of(problems, minimised, budgets)
    except InfeasibleBudget as problem:
        problem.args = (f"{problem}".replace("\n", "; "),)
        raise
    require_fit(made.batch_at(solution), machine)
    plan = in_passes(space, parameters, machine, made.batch_at(solution))
    found = totals(plan)
    if LOSS in solution.values:
        found[LOSS] = solution.values[LOSS]
    return found, {"widths": made.bits_file(solution), "overrides": overrides(made, solution), **asked(plan)}


def asked(plan: Plan) -> dict[str, Any]:
    """`tables`: how many distinct layers tables over machines answered, and which ones got a proof of their own."""
    told = plan.tables
    return {} if told is None else {"tables": {"answered": told.answered, "proven_anew": list(told.proven_anew)}}


def in_passes(space: Space, parameters: Parameters, machine: Accelerator, workload: Workload) -> Plan:
    """The plan of a point, a batch in its best passes."""
    if batch_of(workload) == 1:
        return planned(space, parameters, machine, workload)
    joint = space.homes == "joint"
    splitting = Splitting(
        workload, machine, cast(Objective, space.mapping), 0.0,
        lambda smaller, quick: planned(space, parameters, machine, smaller, quick=quick),
        quick=space.effort == "quick", bounded=joint,
    )  # fmt: skip
    return splitting.run()[0]


def planned(
    space: Space, parameters: Parameters, machine: Accelerator, workload: Workload, *, quick: bool = False
) -> Plan:
    """The plan of a network, from tables that this process's machines share where layers are proven alone.

    `quick`: by the quick search, where homes are joint.
    """
    objective, effort = cast(Objective, space.mapping), cast(Effortful, space.effort)
    if space.homes == "joint":
        return plan_network(workload, machine, objective, effort="quick" if quick else effort, gap=space.gap)
    answers = shared_tables(space).answers(parameters)
    options = Options(space.gap, None, effort)
    plan = plan_layers(workload, machine, objective, options, answers, stay=space.homes == "afterwards")
    if answers is not None:
        answers.save()
    return plan


def totals(plan: Plan) -> dict[str, float]:
    """The network's totals that a study keeps."""
    found = plan.cost.totals
    return {
        "energy_pj": found.energy_pj,
        "latency_cycles": float(found.latency_cycles),
        "latency_s": found.latency_s,
        "edp_pj_s": found.edp_pj_s,
        "power_mw": found.energy_pj / found.latency_s * 1e-9,
        "area_mm2": found.area_mm2,
        "weight_bits": float(found.weight_bits),
        "peak_activation_bits": float(found.peak_activation_bits),
        "mapping_gap_max": max((f.certificate.gap for f in plan.found.values()), default=0.0),
    }
