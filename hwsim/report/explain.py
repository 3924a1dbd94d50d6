"""What one bit more or fewer would change in every layer, and why: `explain(report)`, `evaluate --explain`.

Every width from 1 to 16 is priced under the report's own mapping (access counts do not depend on bits), one operand of
one layer at a time. Widths that change nothing are named, with the reason: padding in the MAC, whole words, a resource
that the operand does not load. Where a wider operand no longer fits, or narrower tiles fit at the same price, the layer
is searched anew. Formats keep their scales and offsets; floats have the widths of their elements.
"""

from __future__ import annotations

import dataclasses
import json
from collections import defaultdict
from collections.abc import Mapping as Map
from pathlib import Path
from typing import Any

from hwsim.files.atomic import write_atomically
from hwsim.network.layer import activation_inputs
from hwsim.network.sharing import sharing_groups
from hwsim.pricing.stages import fuse
from hwsim.report.files import rows_to_csv
from hwsim.report.quantities import between, si
from hwsim.report.report import Report
from hwsim.report.widths import Change, Explanation, Study, plural
from hwsim.search.result import FUSED, Effortful
from hwsim.search.side_by_side import each
from hwsim.tables.mapped import SIDES, Side


def explain(report: Report, effort: Effortful = "quick") -> tuple[Explanation, ...]:
    """Both operands of every layer with MACs; `effort` of new searches: the report's. Equal ones are explained once."""
    stages = {s.layer.name: s for s in fuse(report.mapped_workload, report.accelerator.capabilities)}
    resident, touching = frozenset(report.cost.resident), neighbours(report)
    studies = {
        name: Study(stages[name], found, report.accelerator, resident, report.objective, effort)
        for name, found in report.found.items()
        if found.certificate.space != FUSED  # whose bill is of many tiles: no one width's change is known
    }
    distinct: dict[object, Study] = {}
    for study in studies.values():
        distinct.setdefault(study.key, study)

    def both(study: Study) -> tuple[Explanation, ...]:
        return tuple(study.explain(side) for side in SIDES)

    known = dict(zip(distinct, each(both, list(distinct.values())), strict=True))
    explanations: list[Explanation] = []
    for name, study in studies.items():
        for part in known[study.key]:
            tensor = study.tensor(part.operand)
            others = tuple(other for other in touching.get(tensor.name, ()) if other != name)
            explanations.append(dataclasses.replace(part, layer=name, touched=others))
    return tuple(explanations)


def neighbours(report: Report) -> dict[str, tuple[str, ...]]:
    """Layers that make or read a tensor, or one that must have the same bits, by the tensor's name."""
    users: dict[str, list[str]] = defaultdict(list)
    for layer in report.workload:
        for tensor in (layer.output, *activation_inputs(layer)):
            users[tensor.name].append(layer.name)
    found = {name: list(layers) for name, layers in users.items()}
    for group in sharing_groups(report.workload):
        together = [layer for name in group for layer in users[name]]
        for name in group:
            found[name] = together
    return {name: tuple(dict.fromkeys(layers)) for name, layers in found.items()}


# --- as text and rows -------------------------------------------------------------------------------------------------

NOTE = (
    "each operand alone, under the mapping above; a new search at fewer bits can only gain more. Energy and cycles are "
    "the layer's own: layers that share the tensor change too"
)


def estimate_lines(report: Report) -> list[str]:
    """How sure energy and latency are, and which estimate matters most for each."""
    return [*energy_lines(report), *latency_lines(report)]


def latency_lines(report: Report) -> list[str]:
    """The rates that are estimates, and what each alone would change."""
    interval = report.cost.latency_interval
    if interval.widest is None:
        return ["No rate of this machine has a rate_spread: the latency has no interval."]
    text = between(interval.low_s, interval.high_s, interval.latency_s, "s")
    lines = [f"Latency {text}, all rates fast to all slow; each alone, widest first:"]
    lines += [
        f"    {rate.name}, a factor {rate.factor:g}: down {si(rate.down_s, 's')}, up {si(rate.up_s, 's')}"
        for rate in interval.rates
    ]
    return lines


def energy_lines(report: Report) -> list[str]:
    """The prices that are estimates, by what they come from."""
    interval = report.cost.energy_interval
    if interval.widest is None:
        return ["No price of this machine is an estimate: the energy has no interval."]
    low, high, value = (pj * 1e-12 for pj in (interval.low_pj, interval.high_pj, interval.energy_pj))
    lines = [f"Energy {between(low, high, value, 'J')}; what its estimates leave open, widest first:"]
    for origin in interval.origins:
        pieces = name_list(list(origin.components))
        lines.append(
            f"    {origin.name} ({pieces}): {si(origin.energy_pj * 1e-12, 'J')}, "
            f"down {si(origin.down_pj * 1e-12, 'J')}, up {si(origin.up_pj * 1e-12, 'J')}"
        )
    return lines


def explanation_lines(explanations: tuple[Explanation, ...]) -> list[str]:
    """What to print: the bits that buy nothing first, then every operand with its reasons; equal texts together."""
    if not explanations:
        return []
    lines = ["What one bit would change", f"({NOTE})", *useless_lines(explanations)]
    together: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for part in explanations:
        together[operand_lines(part)].append(part.layer)
    for (first, *rest), layers in together.items():
        lines += [f"{name_list(layers)}: {first}", *(f"    {line}" for line in rest)]
    return lines


def useless_lines(explanations: tuple[Explanation, ...]) -> list[str]:
    """Which bits could go or come for nothing."""
    useless: dict[tuple[Side, int, int], list[str]] = defaultdict(list)
    free: dict[tuple[Side, int, int], list[str]] = defaultdict(list)
    for part in explanations:
        if part.useless_bits:
            useless[part.operand, part.bits, part.lowest].append(part.layer)
        if part.free_bits:
            free[part.operand, part.bits, part.highest].append(part.layer)
    lines = [
        f"useless: {operand}s of {plural(bits)} cost what {lowest} do: {name_list(layers)}"
        for (operand, bits, lowest), layers in useless.items()
    ]
    lines += [
        f"free: {operand}s of {plural(bits)} may have {highest} at the same price: {name_list(layers)}"
        for (operand, bits, highest), layers in free.items()
    ]
    return lines or ["every bit counts: no operand has a neighbouring width at the same price"]


def operand_lines(part: Explanation) -> tuple[str, ...]:
    """One operand: its bits, then a line per width that is compared."""
    pieces = [f"{part.operand}s of {plural(part.bits)}"]
    if part.fewer is not None:
        pieces.append(f"{part.fewer.describe()} [{'; '.join(part.fewer.why)}]")
        if part.next_saving is not None and part.next_saving.bits != part.fewer.bits:
            pieces.append(f"next saving at {part.next_saving.describe()} [{'; '.join(part.next_saving.why)}]")
        elif part.next_saving is None:
            pieces.append("no narrower width saves anything")
    pieces.append(f"{part.more.describe()} [{'; '.join(part.more.why)}]")
    return tuple(pieces)


def name_list(names: list[str]) -> str:
    """Up to four names."""
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def to_rows(explanations: tuple[Explanation, ...]) -> list[dict[str, Any]]:
    """One flat row per operand, for explain.csv and data frames."""
    rows: list[dict[str, Any]] = []
    for part in explanations:
        row: dict[str, Any] = {"layer": part.layer, "operand": part.operand, "bits": part.bits}
        for name, change in (("fewer", part.fewer), ("more", part.more), ("next_saving", part.next_saving)):
            row |= {f"{name}_{key}": value for key, value in change_row(change).items()}
        rows.append(
            {**row, "lowest_same": part.lowest, "highest_same": part.highest, "touched": ";".join(part.touched)}
        )
    return rows


def change_row(change: Change | None) -> Map[str, Any]:
    """A change as columns; empty where there is none."""
    keys = ("bits", "verdict", "energy_pj", "cycles", "remapped")
    values = {key: getattr(change, key) if change else "" for key in keys}
    return {**values, "why": "; ".join(change.why) if change else ""}


def explained_json(report: Report, explanations: tuple[Explanation, ...]) -> str:
    """The report as JSON with a list `explanations` where there are any."""
    if not explanations:
        return report.to_json()
    return json.dumps(
        {**report.to_dict(), "explanations": [part.to_dict() for part in explanations]}, indent=1, allow_nan=False
    )


def write_explanations(explanations: tuple[Explanation, ...], folder: Path) -> Path:
    """Write explain.csv into a folder that exists."""
    path = folder / "explain.csv"
    write_atomically(path, rows_to_csv(to_rows(explanations)))
    return path
