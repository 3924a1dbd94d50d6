"""One evaluation: what a run depends on (`Request`), and its report.

The picture of CONTRIBUTING.md in ten lines: assign bits, search mappings, price, report. The command, the Python
functions of `hwsim/api.py` and the experiments all come through here.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hwsim.errors import RequestError, WorkloadError
from hwsim.files.reading import read_text
from hwsim.machine.parts import Accelerator
from hwsim.machine.rules import Rules
from hwsim.machine.rules_file import load_rules
from hwsim.nest.text import load_plan
from hwsim.network.bits import assign_bits
from hwsim.network.format_bits import asks_for_formats, assign_formats
from hwsim.network.generation import Generation
from hwsim.network.workload import Workload
from hwsim.pricing.fit import require_fit
from hwsim.pricing.lifetimes import WHOLE, WHOLE_TENSORS, Lifetimes, parse_lifetimes
from hwsim.pricing.network import Totals, price_network
from hwsim.report.progress import Searches, Watch, searches_of
from hwsim.report.report import Report
from hwsim.report.schedules import side_by_side
from hwsim.search.fusion.given import given_plan
from hwsim.search.fusion.groups import has_groups
from hwsim.search.fusion.plan import described, fused_plan
from hwsim.search.joint.schedule import Schedule
from hwsim.search.network import OwnSchedule, Plan, plan_network, plans_by_objective
from hwsim.search.objective import OBJECTIVES, Objective
from hwsim.search.result import UNTRIED, Effortful, Found

PRICED = 200  # ways to cut a network into groups that are priced, about


@dataclass(frozen=True)
class Request:
    """What a run depends on besides its two files; the defaults are the command line's.

    `bits` None: a quantized checkpoint brings its own, a float model is priced at W8A8 (and the report says so).
    """

    objective: Objective = "energy"
    bits: str | Path | Mapping[str, object] | None = None
    config: str = "auto"
    first_last: str | None = None  # None: 8bit, as quant.quantize trains
    elementwise_bits: int | str | None = None  # None: 8
    mapping: Path | None = None
    effort: Effortful = "auto"
    gap: float = 0.0
    time_limit_s: float | None = None
    slack: float = 0.0  # share of the least latency (energy) given up for less energy (latency)
    allow_overflow: bool = False  # price a network that does not fit a bounded memory, with a warning
    generation: Generation | None = None  # what the pass of a language model means
    constraints: str | Path | None = None  # a file of rules that schedules keep, or `own`: those of the spec
    zero_shares: Mapping[str, float] | None = None  # share of zero codes at each layer's input, where measured
    fuse: bool = False  # stages may run depth first in groups
    lifetimes: str | None = None  # what frees room before a last reader ends; None: whole tensors, or as `mapping` says


def evaluate_workload(
    workload: Workload, accelerator: Accelerator, request: Request | None = None, watch: Watch | None = None
) -> Report:
    """Energy, latency and memory of `workload` on `accelerator`, with the origin of each number.

    `watch` is told how far the search is, and of a first answer early; it changes no number.
    Raises SpecError, WorkloadError, CapabilityError or InfeasibleMapping, each naming the place and the way out.
    """
    request = request or Request()
    refuse_together(request)
    workload = at_bits(workload, accelerator, request)
    others: dict[Objective, Plan] = {}
    schedules, no_own = dict[str, Totals](), ""
    unfused: Totals | None = None
    if request.mapping is not None:
        mappings, groups, said = load_plan(request.mapping)
        lifetimes = said_lifetimes(request, said)
        if groups and request.zero_shares is not None:
            raise RequestError(f"{request.mapping}: groups: zero shares are not known for layers that run depth first")
        plan = given_plan(workload, accelerator, mappings, groups, request.objective, lifetimes)
    else:
        rules: Rules = () if request.constraints is None else load_rules(request.constraints, accelerator)
        known: dict[tuple[object, ...], Found] = {} if watch is None else Searches(watch.advance)
        own = OwnSchedule(workload, accelerator, known)
        plan, others = plans(workload, accelerator, request, rules, watch, own)
        if request.fuse:
            unfused = plan.cost.totals
            if watch is not None:
                watch.begin("depth-first groups", PRICED)
            plan = fused_plan(
                workload, accelerator, plan, others.values(), request.objective, slack=request.slack,
                told=None if watch is None else watch.advance,
            )  # fmt: skip
            others |= {request.objective: plan} if others else {}
        schedules, no_own = side_by_side(
            workload,
            accelerator,
            plan,
            None if request.constraints is None else str(request.constraints),
            watch,
            request.objective,
            own,
            effort=request.effort,
            gap=request.gap,
            time_limit_s=request.time_limit_s,
            slack=request.slack,
        )
    cost, certificate = plan.cost, plan.certificate
    untried = untried_groups(workload, accelerator, request)
    if untried and certificate is not None:
        certificate = dataclasses.replace(certificate, space=certificate.space + UNTRIED)
    if request.zero_shares is not None:
        shares = known_layers(request.zero_shares, workload)
        counts = {name: found.counts for name, found in plan.found.items()}
        cost = price_network(workload, accelerator, counts, shares, frozenset(cost.resident), lifetimes=cost.lifetimes)
    totals: dict[Objective, Totals] = {objective: other.cost.totals for objective, other in others.items()}
    return Report(
        workload,
        accelerator,
        cost,
        plan.found,
        request.objective,
        totals,
        request.generation,
        certificate,
        schedules=schedules,
        no_own=no_own,
        groups=tuple(described(choice) for choice in plan.groups),
        unfused=unfused,
        untried_groups=untried,
    )


def at_bits(workload: Workload, accelerator: Accelerator, request: Request) -> Workload:
    """The network with the bits that a request asks for. Raises InfeasibleMapping where a bounded memory is too small
    for it, unless the request allows that."""
    if request.bits is not None or not workload.quantized:
        bits = "W8A8" if request.bits is None else request.bits
        if asks_for_formats(bits):
            workload = assign_formats(workload, bits, request.first_last)
        else:
            workload = assign_bits(workload, bits, request.config, request.first_last, request.elementwise_bits)
    if not request.allow_overflow:
        require_fit(workload, accelerator)
    return workload


def untried_groups(workload: Workload, accelerator: Accelerator, request: Request) -> str:
    """That depth-first groups were not tried, and how to; empty where they were, or where there are none to try."""
    if request.fuse or request.mapping is not None or not has_groups(Schedule(workload, accelerator)):
        return ""
    without = " and ".join(f"--{name.replace(' ', '-')}" for name in excluding_groups(request))
    return "depth-first groups were not tried; --fuse on (Python: fuse=True) looks for them" + (
        f", without {without}" if without else ""
    )


def excluding_groups(request: Request) -> list[str]:
    """What a request says that a search for depth-first groups cannot keep."""
    said = {"constraints": request.constraints, "zero shares": request.zero_shares, "lifetimes": request.lifetimes}
    if request.lifetimes is None or parse_lifetimes(request.lifetimes) == WHOLE_TENSORS:
        del said["lifetimes"]
    return [name for name, value in said.items() if value is not None]


def refuse_together(request: Request) -> None:
    """Raise RequestError for options that exclude each other."""
    if request.fuse and request.mapping is not None:
        raise RequestError("fuse and mapping exclude each other: a mapping file says itself which layers are fused")
    for name, given in (("constraints", request.constraints), ("zero shares", request.zero_shares)):
        if request.fuse and given is not None:
            raise RequestError(f"fuse and {name} exclude each other: tiles of depth-first groups know no {name}")
    if request.lifetimes is None or parse_lifetimes(request.lifetimes) == WHOLE_TENSORS:
        return
    if request.fuse or request.constraints is not None:
        other = "fuse" if request.fuse else "constraints"
        raise RequestError(f"lifetimes {request.lifetimes} and {other} exclude each other: use lifetimes whole")
    if request.effort == "quick" and request.mapping is None:
        raise RequestError(
            f"lifetimes {request.lifetimes} and effort quick exclude each other: the quick search keeps whole tensors; "
            "use effort auto"
        )


def said_lifetimes(request: Request, said: str) -> Lifetimes:
    """Those of the request, or else of a file of mappings. Raises RequestError with the file."""
    try:
        return parse_lifetimes(request.lifetimes or said or WHOLE)
    except RequestError as problem:
        raise RequestError(str(problem) if request.lifetimes else f"{request.mapping}: {problem}") from None


def plans(
    workload: Workload, accelerator: Accelerator, request: Request, rules: Rules, watch: Watch | None, own: OwnSchedule
) -> tuple[Plan, dict[Objective, Plan]]:
    """The plan of the request, and what each objective alone would give (not with the quick search)."""
    known = own.known
    count = 0 if watch is None else searches_of(workload, accelerator)
    count *= 1 + bool(accelerator.constraints and not rules)
    if watch is not None:
        watch.begin("searching", count)
        if request.effort != "quick":  # its searches are found again in `known` by what follows
            quick = plan_network(
                workload, accelerator, request.objective, slack=request.slack, rules=rules, known=known, own=own
            )
            watch.early(quick.cost.totals)
            watch.begin("other objectives", (len(OBJECTIVES) - 1) * count)
            for objective in OBJECTIVES:
                plan_network(workload, accelerator, objective, rules=rules, known=known, own=own)
            watch.begin("proving", count)  # about so many: which layers, for which homes, is seen on the way
    plan = best_plan(workload, accelerator, request, known, rules, own)
    if request.effort == "quick":
        return plan, {}
    return plan, plans_by_objective(workload, accelerator, plan, known, rules, own)


def best_plan(
    workload: Workload,
    accelerator: Accelerator,
    request: Request,
    known: dict[tuple[object, ...], Found],
    rules: Rules = (),
    own: OwnSchedule | None = None,
) -> Plan:
    """The plan behind a report and behind the rows of a table: one search of the network at its bits."""
    return plan_network(
        workload,
        accelerator,
        request.objective,
        effort=request.effort,
        gap=request.gap,
        time_limit_s=request.time_limit_s,
        slack=request.slack,
        rules=rules,
        lifetimes=said_lifetimes(request, ""),
        known=known,
        own=own,
    )


def known_layers(shares: Mapping[str, float], workload: Workload) -> Mapping[str, float]:
    """The shares, if they are of this network: every layer exists and every share is between 0 and 1."""
    names = {layer.name for layer in workload}
    strange = [name for name in shares if name not in names]
    if strange:
        raise WorkloadError(
            f"zero shares: {workload.name} has no layer {strange[0]!r}: give the certificate of this network "
            "(python -m hwsim.verify CHECKPOINT --out FILE)"
        )
    wrong = [f"{name}: {share!r}" for name, share in shares.items() if not is_share(share)]
    if wrong:
        raise WorkloadError(f"zero shares: expected numbers from 0 to 1, got {wrong[0]}")
    return shares


def is_share(share: object) -> bool:
    """Whether it is a number from 0 to 1; a NaN is none."""
    return isinstance(share, int | float) and 0 <= share <= 1


def load_zero_shares(path: Path) -> dict[str, float]:
    """The shares of zero codes in a certificate that `python -m hwsim.verify --out` wrote."""
    try:
        found = json.loads(read_text(path))
        shares = {str(name): float(share) for name, share in found["zero_shares"].items()}
    except OSError as problem:
        raise WorkloadError(f"{path}: cannot be read: {problem.strerror or problem}") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise WorkloadError(
            f"{path}: expected a certificate with zero_shares: python -m hwsim.verify CHECKPOINT --out FILE writes one"
        ) from None
    return shares
