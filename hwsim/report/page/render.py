"""report.json as a page: templates filled with what the other files of this room compute.

Every string of the report is made printable and every one is escaped by the templates; the page loads nothing.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any, cast

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from hwsim.console import printable
from hwsim.report.page import bits, energy, machine, plans, roofline, time
from hwsim.report.quantities import percent, si
from hwsim.report.terminal import less_than, share
from hwsim.search.result import FUSED, GROUPED, less_at_most

Data = dict[str, Any]
TEMPLATES = Path(__file__).parent / "templates"
# What the page draws or says somewhere; other keys of a report are shown as they are, so that none is lost.
KNOWN = {
    "schema_version", "identity", "model", "accelerator", "objective", "certificate", "by_objective", "totals",
    "energy_pj_by_component", "layers", "coverage", "assumptions", "warnings", "explanations", "command",
    "occupancy", "seal", "energy_interval", "latency_interval", "schedules", "fusion", "batch",
}  # fmt: skip


def report_page(data: Data) -> str:
    """The page of one report, given what report.json holds."""
    data = cast(Data, made_printable(data))
    pieces, keys = energy.by_component(data)
    parts, vector = machine.drawing(data)
    columns, widest = bits.columns(data)
    savings, verdicts = bits.savings(data)
    return environment().get_template("report.html").render(
        data=data,
        title=f"{data['model']['name']} on {data['accelerator']['name']}",
        facts=facts(data),
        proof=proof_text(data),
        component_bar=pieces,
        component_keys=keys,
        layer_bars=energy.by_layer(data),
        estimates=energy.estimates(data),
        rates=time.rates(data),
        plans=plans.others(data),
        groups=plans.groups(data),
        timeline=time.timeline(data) if data["totals"]["latency_cycles"] else None,
        roofline=roofline.roofline(data),
        rows=[row(data, i) for i in range(len(data["layers"]))],
        columns=columns,
        widest=widest,
        offsets=bits.offset_classes(data),
        savings=savings,
        verdicts=verdicts,
        useless=bits.useless(data),
        parts=parts,
        vector=vector,
        assumptions=[assumption(item) for item in data["assumptions"]],
        others={key: value for key, value in data.items() if key not in KNOWN},
    )  # fmt: skip


@cache
def environment() -> Environment:
    """Templates with escaping; a name that is not given is an error, never an empty place."""
    found = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    filters: dict[str, Any] = {"si": si, "joules": energy.joules, "bytes": in_bytes, "unbroken": unbroken}
    found.filters.update(filters)
    # Parts of the page itself are markup; nothing of a report is in them.
    parts = {name: Markup((TEMPLATES / f"page.{name}").read_text(encoding="utf-8")) for name in ("css", "js")}
    shared: dict[str, Any] = {"share": share, **parts}
    found.globals.update(shared)
    return found


def unbroken(text: str) -> Markup:
    """Text whose command-line options do not break at their hyphens at the end of a line."""
    return Markup(re.sub(r"--[a-z][a-z-]*", r'<span class="option">\g<0></span>', str(escape(text))))


def in_bytes(bits: float) -> str:
    """Bits as bytes with a prefix."""
    return si(bits / 8, "B")


def made_printable(value: Any) -> Any:
    """The same data with every control character shown escaped, in keys as in values."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {printable(str(k)): made_printable(v) for k, v in cast(Data, value).items()}
    if isinstance(value, list):
        return [made_printable(item) for item in cast(list[Any], value)]
    return value


def facts(data: Data) -> list[tuple[str, str, str]]:
    """The totals a reader looks for first: name, value, small print."""
    totals, machine_ = data["totals"], data["accelerator"]
    area = f"{totals['area_mm2']:.3g} mm²" if totals["area_mm2"] else "not stated"
    return [
        ("Energy", energy.joules(totals["energy_pj"]), energy.interval(data)),
        ("Latency", si(totals["latency_s"], "s"),
         time.interval(data) or f"{totals['latency_cycles']:,.0f} cycles at {machine_['clock_mhz']:g} MHz"),
        ("Energy x delay", si(totals["edp_pj_s"] * 1e-12, "J s"), f"objective: {data['objective']}"),
        ("Weights", si(totals["weight_bits"] / 8, "B"), f"{totals['average_weight_bits']:.2f} bits each on average"),
        ("Peak activations", si(totals["peak_activation_bits"] / 8, "B"),
         f"{totals['average_activation_bits']:.2f} bits each on average"),
        ("MACs", si(totals["macs"], ""), f"{si(totals['bops'], '')} bit operations"),
        ("Area", area, f"{machine_['node_nm']:g} nm"),
    ]  # fmt: skip


def proof_text(data: Data) -> str:
    """How good the mappings are proven to be, in a sentence, and whether depth-first groups were not tried."""
    untried = data.get("fusion", {}).get("not_tried", "")
    return bound_text(data) + (f" {untried[:1].upper()}{untried[1:]}." if untried else "") + batch_text(data)


def batch_text(data: Data) -> str:
    """How a batch of several images runs; empty for one."""
    batch = data.get("batch")
    if not batch:
        return ""
    if batch.get("not_tried"):
        return f" Smaller passes of the batch of {batch['images']} were not tried: {batch['not_tried']}."
    passes = " and ".join(f"{each['times']} x {each['images']}" for each in batch["passes"])
    how = f"in passes one after the other (times x images: {passes}); layers show one such pass's nests"
    return f" The batch of {batch['images']} runs {how if passes else 'at once'}."


def bound_text(data: Data) -> str:
    """What is proven, in one sentence."""
    certificates = [layer["certificate"] for layer in data["layers"] if layer["certificate"]]
    gaps = [certificate["gap"] for certificate in certificates if certificate["space"] != FUSED]
    if not certificates:
        return "No layer has MACs."
    network = data.get("certificate")
    if network:
        less = less_than(network["gap"])
        if network["space"].startswith(GROUPED):
            return f"No schedule, with or without depth-first groups, gives {less} {data['objective']} for the network."
        said = network.get("lifetimes", "whole")
        kept = "whole tensors on chip" if said == "whole" else f"tensors on chip (lifetimes {said})"
        return f"No choice of {kept} and of mappings gives {less} {data['objective']} for the network."
    if not gaps:
        return "All layers with MACs run in depth-first groups; no bound is known for them."
    worst, exact = max(gaps), sum(gap == 0 for gap in gaps)
    if worst == 0:
        return f"Every mapping is proven the best of its declared space ({len(gaps)} layers)."
    some = f"{exact} of {len(gaps)} mappings are proven the best of their declared space. " if exact else ""
    most = percent(less_at_most(worst), digits=2)
    what = {"energy": f"{most} less energy", "latency": f"{most} fewer cycles"}
    less = what.get(data["objective"], f"{most} less energy x delay")
    return f"{some}No mapping of the declared space gives more than {less} in any layer."


def row(data: Data, index: int) -> Data:
    """What the layer table needs beside the layer itself."""
    layer, totals = data["layers"][index], data["totals"]
    certificate = layer["certificate"]
    peak, cycles = layer.get("peak_macs_per_cycle"), layer["latency_cycles"]
    return {
        "layer": layer,
        "share": layer["energy_pj"]["total"] / totals["energy_pj"] if totals["energy_pj"] else 0.0,
        "time": cycles / totals["latency_cycles"] if totals["latency_cycles"] else 0.0,
        "busy": layer["macs"] / cycles / peak if peak and cycles else None,
        "gap": certificate["gap"] if certificate and certificate["space"] != FUSED else None,
        "fewer": sum(max(0.0, -change["energy_pj"]) for change in layer.get("narrower", {}).values()),
        "components": sorted(
            ((k, v) for k, v in layer["energy_pj"].items() if k != "total"), key=lambda item: -item[1]
        ),
    }


def assumption(item: Any) -> tuple[str, str]:
    """An assumption and, where the report knows it, its share of the uncertainty."""
    if isinstance(item, dict):
        found = cast(Data, item)
        part = found.get("share")
        return str(found.get("text", found)), percent(part) if isinstance(part, int | float) else ""
    return str(item), ""
