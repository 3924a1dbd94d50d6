"""A report in words: quantities with SI prefixes, totals, coverage, and how good the mappings are proven to be.

How they stand on a screen is in screen.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwsim.network.workload import Workload
from hwsim.pricing.lifetimes import WHOLE_TENSORS, Lifetimes
from hwsim.report.generation import generation_rows
from hwsim.report.quantities import percent, si
from hwsim.search.result import FUSED, GROUPED, NOT_PROVEN, NetworkCertificate, less_at_most

if TYPE_CHECKING:
    from hwsim.report.report import Report


def coverage_line(workload: Workload) -> str:
    """The same in one line."""
    shares, coverage = workload.shares, workload.coverage
    unknown = f"; {shares.unknown_macs} uncosted operators may hide more MACs" if shares.unknown_macs else ""
    at_most = "at most " if shares.unknown_macs else ""
    free = sum(item.count for item in coverage.free)
    if shares.macs == shares.elements == shares.operators == 1.0 and not shares.unknown_macs:
        return f"all MACs and elements, {coverage.ops_total} operators ({free} free: views, folded)"
    return (
        f"{at_most}{percent(shares.macs)} of MACs, {percent(shares.elements)} of elements, "
        f"{coverage.ops_costed} of {coverage.ops_total} operators costed ({free} of them free: views, folded or "
        f"identity){unknown}"
    )


def share(part: float, whole: float) -> str:
    """A percentage; blank where the whole is nothing."""
    return percent(part, whole) if whole else ""


def total_rows(report: Report) -> dict[str, str]:
    """Name and text of every total."""
    totals, machine = report.cost.totals, report.accelerator
    return {
        "energy": si(totals.energy_pj * 1e-12, "J"),
        "latency": f"{si(totals.latency_s, 's')}  ({totals.latency_cycles:,.0f} cycles at {machine.clock_mhz:g} MHz)",
        "energy x delay": si(totals.edp_pj_s * 1e-12, "J s"),
        **(generation_rows(report, report.generation) if report.generation is not None else {}),
        "MACs": si(totals.macs, "MAC"),
        "bit operations": si(totals.bops, "BOP"),
        "average bits": f"weights {totals.average_weight_bits:.2f}, activations {totals.average_activation_bits:.2f}",
        "weight memory": f"{si(totals.weight_bits / 8, 'B')}  ({totals.average_weight_bits:.2f}-bit weights, "
        f"{stored_width(report)}; with scales, offsets, biases)",
        "peak activations": si(totals.peak_activation_bits / 8, "B"),
        "area": f"{totals.area_mm2:.3g} mm²" if totals.area_mm2 else "not stated by the spec",
        **({"network": network_line(report.certificate)} if report.certificate else {}),
        "mapping": f"least {report.objective}; {certificate_line(report)}",
        **({"depth first": fusion_line(report)} if report.tells_groups else {}),
        **({"batch": batch_line(report)} if report.batch else {}),
        **({"schedules": schedules_line(report)} if report.schedules else {}),
        **({"other objectives": objectives_line(report)} if report.by_objective else {}),
        **({"identity": f"{report.workload.identity} (trained network)"} if report.workload.identity else {}),
    }


def stored_width(report: Report) -> str:
    """How many bits a weight takes where the machine stores it."""
    totals = report.cost.totals
    weights = {
        layer.weight.name: layer.weight.elements
        for layer in report.workload
        if layer.weight is not None and not layer.weight_is_activation
    }
    if not weights:
        return "no weights"
    stored, memory = totals.packed_weight_bits / sum(weights.values()), report.accelerator.outermost.name
    return f"{stored:.2f} bits each in {memory}"


def kept_tensors(lifetimes: Lifetimes) -> str:
    """What a plan chooses among."""
    return "whole tensors on chip" if lifetimes == WHOLE_TENSORS else f"tensors on chip (lifetimes {lifetimes})"


def network_line(certificate: NetworkCertificate) -> str:
    """How good the plan is proven to be, homes of tensors and mappings together."""
    less = less_than(certificate.gap)
    if certificate.space.startswith(GROUPED):
        return f"least {certificate.objective} found: no schedule, with or without depth-first groups, gives {less}"
    proven = f"no choice of {kept_tensors(certificate.lifetimes)} and of mappings gives {less}"
    then = ""
    if certificate.then:
        gap = certificate.then_value / certificate.then_bound - 1 if certificate.then_bound else 0.0
        then = f"; least {certificate.then} at it" + (f" but for {100 * gap:.2g} %" if gap > 1e-6 else "")
    left = "" if certificate.exhaustive else "; some layers are not proven"
    return f"least {certificate.objective}: {proven}{then}{left}; {certificate.searches} searches"


def less_than(gap: float) -> str:
    """What no plan gives beside a value that lies `gap` above its bound."""
    return f"more than {gap_percent(less_at_most(gap))} % less" if gap > 1e-9 else "less"


def gap_percent(gap: float) -> str:
    """A relative gap in percent, to two digits or whole."""
    return f"{100 * gap:.2g}" if gap < 0.995 else f"{100 * gap:,.0f}"


def fusion_line(report: Report) -> str:
    """The depth-first groups, and what the network costs without any; or that none were tried."""
    if report.untried_groups:
        return report.untried_groups
    groups, without, machine = report.groups, report.unfused, report.accelerator
    known = report.certificate
    near = "" if known is None else f", at most {gap_percent(known.gap)} % above any schedule"
    said = f"{len(groups)} depth-first groups{near}" if groups else "no depth-first group costs less"
    if without is None:
        return said
    if not groups:
        home = machine.activation_memory
        return said if home is not None else f"{said}: no memory of {machine.name} keeps inputs and outputs"
    outer, now = machine.outermost.name, report.totals
    return (
        f"{said}; without them {si(without.energy_pj * 1e-12, 'J')} in {without.latency_cycles:,.0f} cycles, "
        f"{si(without.outermost_traffic_bits / 8, 'B')} through {outer}, with them "
        f"{si(now.outermost_traffic_bits / 8, 'B')}"
    )


def batch_line(report: Report) -> str:
    """How a batch runs, and what it costs at once where it runs in passes."""
    batch = report.batch
    assert batch is not None
    if batch.not_tried:
        return f"{batch}; smaller passes were not tried: {batch.not_tried}"
    if not batch.passes:
        return f"{batch}; no equal passes of fewer images cost less"
    once = batch.at_once
    instead = "" if once is None else (
        f"; at once {si(once.energy_pj * 1e-12, 'J')} in {once.latency_cycles:,.0f} cycles"
    )  # fmt: skip
    return f"{batch}, weights fetched again in each{instead}"


def certificate_line(report: Report) -> str:
    """How good the mappings are proven to be."""
    certificates = [c for found in report.found.values() if (c := found.certificate).space != FUSED]
    if not report.found:
        return "no layer with MACs"
    if not certificates:
        return "all layers run depth first"
    worst = max(c.gap for c in certificates)
    priced, covered = sum(c.priced for c in certificates), sum(c.covered for c in certificates)
    gap = f"within {percent(worst, digits=2)} of each layer's bound"
    if worst == 0.0:
        gap = "each layer's mapping is proven best"
    if len(certificates) < len(report.found):  # the network's gap stands with its groups
        gap = f"{gap} in the {len(certificates)} of {len(report.found)} layers with MACs outside depth-first groups"
    why = f"{NOT_PROVEN}{missing}" if (missing := why_not_proven(report)) else ""
    return f"{gap}; {priced:,} of {covered:,} mappings priced{why}"


def why_not_proven(report: Report) -> str:
    """Why proofs that were asked for could not be made (no compiler, no memory); empty where they were."""
    spaces = (found.certificate.space for found in report.found.values())
    return ", ".join(sorted({why for space in spaces if (why := space.partition(NOT_PROVEN)[2])}))


def schedules_line(report: Report) -> str:
    """The schedule that the report is not about: the machine's own one, or the best one where rules were given."""
    mine = report.totals
    others = {name: totals for name, totals in report.schedules.items() if totals != mine} or report.schedules
    name, other = list(others.items())[-1]
    more = [
        f"{percent(theirs / ours - 1, sign='+')} {what}"
        for what, ours, theirs in (
            ("energy", mine.energy_pj, other.energy_pj),
            ("cycles", float(mine.latency_cycles), float(other.latency_cycles)),
        )
        if ours
    ]
    return f"{name} {si(other.energy_pj * 1e-12, 'J')} in {other.latency_cycles:,.0f} cycles: {', '.join(more)}"


def objectives_line(report: Report) -> str:
    """What each objective would give, as far as the quick search knows: energy and cycles."""
    names = {"energy": "least energy", "latency": "least latency", "edp": "least EDP"}
    if len({(totals.energy_pj, totals.latency_cycles) for totals in report.by_objective.values()}) == 1:
        return f"{', '.join(names[objective] for objective in report.by_objective)}: all of them this"
    return "; ".join(
        f"{names[objective]} {si(totals.energy_pj * 1e-12, 'J')} in {totals.latency_cycles:,.0f} cycles"
        for objective, totals in report.by_objective.items()
    )
