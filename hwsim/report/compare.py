"""Several saved reports side by side: what they cost, and whether they answer the same question.

Reads report.json files, or folders that have one. Where two identities differ, the parts that differ are named.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from hwsim.errors import WorkloadError
from hwsim.files.identity import Identity, read_identity

# Totals that are compared, with the unit a reader wants and the factor to it.
ROWS = (
    ("energy_pj", "energy, uJ", 1e-6),
    ("latency_s", "latency, ms", 1e3),
    ("edp_pj_s", "energy x delay, nJ s", 1e-3),
    ("macs", "MACs, million", 1e-6),
    ("weight_bits", "weights, kB", 1 / 8e3),
    ("peak_activation_bits", "peak activations, kB", 1 / 8e3),
    ("outermost_traffic_bits", "traffic of the outermost memory, MB", 1 / 8e6),
    ("area_mm2", "area, mm2", 1.0),
)


@dataclass(frozen=True)
class SavedReport:
    """What a comparison needs of a report.json."""

    path: Path
    title: str
    totals: dict[str, float]
    energy_pj_by_component: dict[str, float]
    identity: Identity


def read_report(path: Path) -> SavedReport:
    """A report that `--out` or `--json` wrote. Raises WorkloadError naming the file and the way out."""
    file = path / "report.json" if path.is_dir() else path
    try:
        data = cast(dict[str, Any], json.loads(file.read_text(encoding="utf-8")))
        found = read_identity(data["identity"])
        saved = SavedReport(
            path,
            f"{data['model']['name']} on {data['accelerator']['name']}",
            {str(name): float(value) for name, value in data["totals"].items()},
            {str(name): float(value) for name, value in data["energy_pj_by_component"].items()},
            found or Identity({}),
        )
        missing = [name for name, _, _ in ROWS if name not in saved.totals]
    except OSError as problem:
        raise WorkloadError(f"{file}: cannot be read: {problem.strerror or problem}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise WorkloadError(f"{file}: not a report: hwsim evaluate MODEL ACCEL --out DIR writes one") from None
    if found is None or missing:
        what = "its identity is damaged" if found is None else f"totals.{missing[0]} is missing"
        raise WorkloadError(f"{file}: {what}: write the report again with hwsim evaluate --out")
    return saved


def table(reports: Sequence[SavedReport]) -> list[list[str]]:
    """One row per total: the first report's value, and every other's with its ratio to the first."""
    rows = [["", *(report.title for report in reports)]]
    for name, title, factor in ROWS:
        first = reports[0].totals[name]
        cells = [f"{first * factor:,.4g}"]
        for report in reports[1:]:
            value = report.totals[name]
            ratio = f" ({value / first:.3f}x)" if first else ""
            cells.append(f"{value * factor:,.4g}{ratio}")
        rows.append([title, *cells])
    return rows


def sameness(reports: Sequence[SavedReport]) -> list[str]:
    """Whether each report answers the first one's question; which parts differ where it does not."""
    lines: list[str] = []
    for report in reports[1:]:
        changed = reports[0].identity.differences(report.identity)
        said = f"differ in {', '.join(changed)}" if changed else f"the same question: {report.identity.value}"
        lines.append(f"{reports[0].path} and {report.path}: {said}")
    return lines
