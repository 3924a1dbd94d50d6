"""One evaluation: what a run depends on (`Request`), and its report.

The picture of CONTRIBUTING.md in ten lines: assign bits, search mappings, price, report. The command, the Python
functions of `hwsim/api.py` and the experiments all come through here.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hwsim.errors import CapabilityError, RequestError, WorkloadError
from hwsim.files.reading import read_text
from hwsim.machine.parts import Accelerator
from hwsim.machine.rules import Rules
from hwsim.machine.rules_file import load_rules
from hwsim.nest.text import load_plan
from hwsim.network.batches import batch_of
from hwsim.network.format_bits import asks_for_formats, kept_layers, with_bits
from hwsim.network.formats import MAX_BITS, short_name
from hwsim.network.generation import Generation
from hwsim.network.layer import FLOAT_BITS
from hwsim.network.workload import Workload
from hwsim.pricing.fit import require_fit
from hwsim.pricing.lifetimes import WHOLE, WHOLE_TENSORS, Lifetimes, parse_lifetimes
from hwsim.pricing.mac import refusals
from hwsim.pricing.network import Totals, price_network
from hwsim.pricing.passes import totals_sum
from hwsim.report.progress import Searches, Watch, searches_of
from hwsim.report.report import Report
from hwsim.report.schedules import side_by_side
from hwsim.search.fusion.given import given_plan
from hwsim.search.fusion.groups import has_groups
from hwsim.search.fusion.plan import described, fused_plan
from hwsim.search.joint.schedule import Schedule
from hwsim.search.network import OwnSchedule, Plan, plan_network, plans_by_objective
from hwsim.search.objective import OBJECTIVES, Objective
from hwsim.search.passes import Batch, Planned, Splitting, given_passes, together
from hwsim.search.result import UNTRIED, Effortful, Found

GROUPS_WHOLE = "a depth-first group holds windows of its maps already, and its tiles leave no order of loops to free by"
LAYERS_WHOLE = "lifetimes choose the order of a layer's outermost loops, which constraints may fix"
ENDS_AT_16_BITS = (
    "number formats leave the first and last layer at 16-bit floats; --first-last same (Python: first_last='same') "
    "gives them the formats, too"
)
HALVES_OF_ITS_OWN = (
    "the model itself stores its numbers as small floats; --bits W8A8 (Python: bits='W8A8') prices it in integers"
)
INTEGERS_OF_16_BITS = (
    "A16 means floats of 16 bits (fp16); integers of 16 bits: a bits file with default: W8A8 and "
    "'*': {weight: 8, input: 16} (Python: bits={'default': 'W8A8', '*': {'weight': 8, 'input': 16}})"
)
REFUSED = 6  # lines of a refusal that are shown
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
    if request.mapping is not None:
        return reported(workload, accelerator, request, *given(workload, accelerator, request, request.mapping))
    rules: Rules = () if request.constraints is None else load_rules(request.constraints, accelerator)
    batch = batch_of(workload)
    if batch == 1:
        return reported(workload, accelerator, request, answer(workload, accelerator, request, rules, watch), None)
    if request.generation is not None and request.generation.experts_read:
        whole = answer(workload, accelerator, request, rules, watch)
        why = "which experts a pass reads depends on its batch"
        return reported(workload, accelerator, request, whole, Batch(batch, (), whole.plan.cost.totals, why))
    answers: dict[int, Answer] = {}

    def planned(smaller: Workload, quick: bool) -> Plan:
        asked = dataclasses.replace(request, effort="quick") if quick else request
        found = answer(smaller, accelerator, asked, rules, watch)
        answers[id(found.plan)] = found
        return found.plan

    splitting = splitting_of(workload, accelerator, request, planned)
    plan, split = splitting.run()
    parts = [(p.times, answers[id(p.plan)]) for p in split.passes] or [(1, answers[id(splitting.at_once)])]
    return reported(workload, accelerator, request, in_passes(plan, parts), split)


def splitting_of(workload: Workload, accelerator: Accelerator, request: Request, planned: Planned) -> Splitting:
    """The choice of passes for a batch, each pass planned by `planned`."""
    return Splitting(
        workload, accelerator, request.objective, request.slack, planned, request.effort == "quick",
        not request.fuse, said_lifetimes(request, ""),
    )  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """A plan, and what a report says beside it: other objectives, other schedules, the plan without groups."""

    plan: Plan
    others: Mapping[Objective, Totals] = field(default_factory=dict[Objective, Totals])
    schedules: Mapping[str, Totals] = field(default_factory=dict[str, Totals])
    no_own: str = ""
    unfused: Totals | None = None


def in_passes(plan: Plan, parts: Sequence[tuple[int, Answer]]) -> Answer:
    """The answer of a batch whose passes (one: at once) have such answers each."""
    first = parts[0][1]

    def summed(pick: Callable[[Answer], Totals | None]) -> Totals | None:
        runs = [(times, found) for times, each in parts if (found := pick(each)) is not None]
        return totals_sum(runs) if len(runs) == len(parts) else None

    others: dict[Objective, Totals | None] = {
        objective: summed(lambda each: each.others.get(objective))  # noqa: B023
        for objective in OBJECTIVES
    }
    schedules = {name: summed(lambda each: each.schedules.get(name)) for name in first.schedules}  # noqa: B023
    return Answer(
        plan,
        {objective: totals for objective, totals in others.items() if totals is not None},
        {name: totals for name, totals in schedules.items() if totals is not None},
        first.no_own,
        summed(lambda each: each.unfused),
    )


def given(workload: Workload, accelerator: Accelerator, request: Request, path: Path) -> tuple[Answer, Batch | None]:
    """The plan of a file of mappings, perhaps of a batch in passes."""
    mappings, groups, said, passes = load_plan(path)
    lifetimes = said_lifetimes(request, said)
    if (groups or any(each.groups for each in passes)) and request.zero_shares is not None:
        raise RequestError(f"{path}: groups: zero shares are not known for layers that run depth first")
    if not passes:
        return Answer(given_plan(workload, accelerator, mappings, groups, request.objective, lifetimes)), None

    def planned(smaller: Workload, i: int) -> Plan:
        each = passes[i]
        return given_plan(smaller, accelerator, each.mappings, each.groups, request.objective, lifetimes)

    found = tuple(given_passes(workload, [(each.images, each.times) for each in passes], planned))
    return Answer(together(workload, accelerator, found)), Batch(batch_of(workload), found)


def answer(workload: Workload, accelerator: Accelerator, request: Request, rules: Rules, watch: Watch | None) -> Answer:
    """The search of one network as it is."""
    known: dict[tuple[object, ...], Found] = {} if watch is None else Searches(watch.advance)
    own = OwnSchedule(workload, accelerator, known)
    plan, others = plans(workload, accelerator, request, rules, watch, own)
    unfused: Totals | None = None
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
    totals: dict[Objective, Totals] = {objective: other.cost.totals for objective, other in others.items()}
    return Answer(plan, totals, schedules, no_own, unfused)


def reported(
    workload: Workload, accelerator: Accelerator, request: Request, found: Answer, batch: Batch | None
) -> Report:
    """The report of an answer."""
    plan, certificate = found.plan, found.plan.certificate
    untried = untried_groups(workload, accelerator, request)
    if untried and certificate is not None:
        certificate = dataclasses.replace(certificate, space=certificate.space + UNTRIED)
    passes = () if batch is None else batch.passes
    if request.zero_shares is not None:
        shares = known_layers(request.zero_shares, workload)
        passes = tuple(dataclasses.replace(p, plan=with_zeros(p.workload, accelerator, p.plan, shares)) for p in passes)
        plan = together(workload, accelerator, passes) if passes else with_zeros(workload, accelerator, plan, shares)
    return Report(
        workload,
        accelerator,
        plan.cost,
        plan.found,
        request.objective,
        found.others,
        request.generation,
        certificate,
        schedules=found.schedules,
        no_own=found.no_own,
        groups=tuple(described(choice) for choice in plan.groups),
        unfused=found.unfused,
        untried_groups=untried,
        batch=batch and dataclasses.replace(batch, passes=passes),
    )


def with_zeros(workload: Workload, accelerator: Accelerator, plan: Plan, shares: Mapping[str, float]) -> Plan:
    """A plan priced with zero codes that gate MACs."""
    cost = plan.cost
    counts = {name: found.counts for name, found in plan.found.items()}
    priced = price_network(workload, accelerator, counts, shares, frozenset(cost.resident), lifetimes=cost.lifetimes)
    return dataclasses.replace(plan, cost=priced)


def at_bits(workload: Workload, accelerator: Accelerator, request: Request) -> Workload:
    """The network with the bits that a request asks for. Raises InfeasibleMapping where a bounded memory is too small
    for it, unless the request allows that."""
    if request.bits is not None or not workload.quantized:
        bits = "W8A8" if request.bits is None else request.bits
        kept = kept_layers(workload, bits, request.first_last) if asks_for_formats(bits) else ()
        workload = with_bits(workload, bits, request.config, request.first_last, request.elementwise_bits)
        inner = [x.name for x in workload if x.name not in kept]
        if takes_16_as_integers(accelerator):
            require_halves(workload, inner, accelerator, INTEGERS_OF_16_BITS, "fp16")
        require_halves(workload, kept, accelerator, ENDS_AT_16_BITS)
    else:
        small = [x.name for x in workload if any(t.format and t.format.sharing == "none" for t in x.multiplied)]
        require_halves(workload, small, accelerator, HALVES_OF_ITS_OWN)
        require_rounded(workload, accelerator)
    if not request.allow_overflow:
        require_fit(workload, accelerator)
    return workload


def takes_16_as_integers(accelerator: Accelerator) -> bool:
    """Whether 16 bits of an activation can be integers on a machine, and no floats."""
    able = accelerator.capabilities
    return "fp16" not in able.elements and "int" in able.elements and MAX_BITS in able.activation_bits


def require_halves(
    workload: Workload, names: Collection[str], accelerator: Accelerator, way_out: str, element: str = ""
) -> None:
    """Raise CapabilityError with the way out where a machine refuses layers of small floats, or of one kind of them."""
    layers = [x for x in workload if x.name in names]
    if element:
        layers = [x for x in layers if any(t.format and t.format.element == element for t in x.inputs)]
    found = [why for layer in layers for why in refusals(layer, accelerator)]
    if found:
        more = [f"and {len(found) - REFUSED} more such lines"] if len(found) > REFUSED else []
        raise CapabilityError("\n".join((*found[:REFUSED], *more, way_out)))


def require_rounded(workload: Workload, accelerator: Accelerator) -> None:
    """Raise CapabilityError with the nearest bits that the machine runs, where it does not multiply the 32-bit floats
    that layers of a quantized network read or hold."""
    bare = [x.name for x in workload if any(t.format is None and t.bits >= FLOAT_BITS for t in x.multiplied)]
    if any(refusals(layer, accelerator) for layer in workload if layer.name in bare):
        require_halves(workload, bare, accelerator, rounded_instead(workload, accelerator))


def rounded_instead(workload: Workload, accelerator: Accelerator) -> str:
    """What to ask for in place of values that pass no quantizer: the first of a few that the machine refuses nowhere.

    The weights' own format beside 16-bit floats, beside 8-bit integers, then 8-bit integers alone.
    """
    weights = [x.weight for x in workload if x.has_macs and x.weight is not None and not x.weight_is_activation]
    names = [short_name(weight.format, weight.bits) for weight in weights if weight.bits < FLOAT_BITS]
    word = next((name for name in names if name), "8")
    last_too = bool(weights) and weights[-1].bits < FLOAT_BITS
    choices = (f"W{word}A16", f"W{word}A8", "W8A8")
    for bits, ends in itertools.product(choices, ("same", None) if last_too else (None, "same")):
        if not any(refusals(x, accelerator) for x in with_bits(workload, bits, first_last=ends)):
            also = f" --first-last {ends}" if ends else ""
            python = f", first_last={ends!r}" if ends else ""
            return (
                f"values that pass no quantizer count {FLOAT_BITS} bits; --bits {bits}{also} (Python: bits={bits!r}"
                f"{python}) rounds what all layers read and hold"
            )
    return f"values that pass no quantizer count {FLOAT_BITS} bits; --bits rounds them to widths that the machine has"


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
        other, why = ("fuse", GROUPS_WHOLE) if request.fuse else ("constraints", LAYERS_WHOLE)
        raise RequestError(f"lifetimes {request.lifetimes} and {other} exclude each other: {why}; use lifetimes whole")
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
    """The plan behind a report: one search of the network at its bits, a batch at once."""
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


def table_plan(
    workload: Workload, accelerator: Accelerator, request: Request, known: dict[tuple[object, ...], Found]
) -> Plan:
    """The plan behind the rows of a table: the report's, a batch in its best passes."""

    def planned(smaller: Workload, quick: bool) -> Plan:
        asked = dataclasses.replace(request, effort="quick") if quick else request
        return best_plan(smaller, accelerator, asked, known)

    if batch_of(workload) == 1:
        return planned(workload, False)
    return splitting_of(workload, accelerator, request, planned).run()[0]


def known_layers(shares: Mapping[str, float], workload: Workload) -> Mapping[str, float]:
    """The shares, if they are of this network: every layer exists and every share is between 0 and 1."""
    names = {layer.name for layer in workload}
    strange = [name for name in shares if name not in names]
    if strange:
        raise WorkloadError(
            f"zero shares: {workload.name} has no layer {strange[0]!r}: give the certificate of this network "
            "(hwsim verify CHECKPOINT --out FILE)"
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
            f"{path}: expected a certificate with zero_shares: hwsim verify CHECKPOINT --out FILE writes one"
        ) from None
    return shares
