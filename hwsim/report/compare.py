"""Several saved reports side by side: what they cost, and whether they answer the same question.

Reads report.json files, or folders that have one. Where two identities differ, the parts that differ are named.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from hwsim.errors import WorkloadError
from hwsim.files.atomic import write_atomically
from hwsim.files.identity import Identity, read_identity
from hwsim.files.reading import is_finite, read_text
from hwsim.report.quantities import digits, si

AREA = "mm²"
GAP = 2  # columns between two columns of a table
# Totals that are compared, with the factor to their unit.
ROWS = (
    ("energy_pj", "energy", 1e-12, "J"),
    ("latency_s", "latency", 1.0, "s"),
    ("edp_pj_s", "energy x delay", 1e-12, "J s"),
    ("macs", "MACs", 1.0, ""),
    ("weight_bits", "weights", 1 / 8, "B"),
    ("peak_activation_bits", "peak activations", 1 / 8, "B"),
    ("outermost_traffic_bits", "traffic of the outermost memory", 1 / 8, "B"),
    ("area_mm2", "area", 1.0, AREA),
)


@dataclass(frozen=True)
class SavedReport:
    """What a comparison needs of a report.json."""

    path: Path
    title: str
    totals: dict[str, float]
    energy_pj_by_component: dict[str, float]
    identity: Identity
    data: dict[str, Any]  # the whole file


def read_report(path: Path) -> SavedReport:
    """A report that `--out` or `--json` wrote. Raises WorkloadError naming the file and the way out."""
    file = path / "report.json" if path.is_dir() else path
    try:
        data = cast(dict[str, Any], json.loads(read_text(file)))
        found = read_identity(data["identity"])
        saved = SavedReport(
            path,
            f"{data['model']['name']} on {data['accelerator']['name']}",
            finite(data["totals"]),
            finite(data["energy_pj_by_component"]),
            found or Identity({}),
            data,
        )
        missing = [name for name, *_ in ROWS if name not in saved.totals]
    except OSError as problem:
        raise WorkloadError(f"{file}: cannot be read: {problem.strerror or problem}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise WorkloadError(f"{file}: not a report: hwsim evaluate MODEL ACCEL --out DIR writes one") from None
    if found is None or missing:
        what = "its identity is damaged" if found is None else f"totals.{missing[0]} is missing"
        raise WorkloadError(f"{file}: {what}: write the report again with hwsim evaluate --out")
    return saved


def finite(numbers: Any) -> dict[str, float]:
    """Numbers by name. Raises ValueError where one is none, or is more than a float holds."""
    if not all(isinstance(n, int | float) and not isinstance(n, bool) and is_finite(n) for n in numbers.values()):
        raise ValueError("not a finite number")
    return {str(name): float(n) for name, n in numbers.items()}


def table(reports: Sequence[SavedReport]) -> list[list[str]]:
    """One row per total: the first report's value, and every other's with its ratio to the first."""
    rows = [["", *labels(reports)]]
    for name, title, factor, unit in ROWS:
        first = reports[0].totals[name]
        cells = [quantity(first * factor, unit)]
        for report in reports[1:]:
            value = report.totals[name]
            ratio = f" ({value / first:.3g}x)" if first else ""
            cells.append(f"{quantity(value * factor, unit)}{ratio}")
        rows.append([title, *cells])
    return rows


def fitted(rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """The table in lines no wider than `width` where that can be: long titles become letters, columns go below.

    >>> print(*fitted([["", "one on a", "two on a"], ["energy", "1 pJ", "2 pJ (2x)"]], 40), sep="\\n")
            one on a   two on a
    energy      1 pJ  2 pJ (2x)
    >>> print(*fitted([["", "one on a", "two on a"], ["energy", "1 pJ", "2 pJ (2x)"]], 23), sep="\\n")
    A  one on a
    B  two on a
    <BLANKLINE>
               A          B
    energy  1 pJ  2 pJ (2x)
    """
    heads = rows[0][1:]
    natural = columns_of(rows)
    if sum(natural) + GAP * len(heads) <= width:
        return aligned(rows, natural)
    letters = [letter(i) for i in range(len(heads))]
    lines = [f"{short:<{len(letters[-1])}}  {head}" for short, head in zip(letters, heads, strict=True)]
    rows = [["", *letters], *rows[1:]]
    sizes = columns_of(rows)
    begin = 1
    while begin <= len(heads):
        end, taken = begin, sizes[0]
        while end <= len(heads) and (end == begin or taken + GAP + sizes[end] <= width):
            taken += GAP + sizes[end]
            end += 1
        lines += ["", *aligned([[row[0], *row[begin:end]] for row in rows], [sizes[0], *sizes[begin:end]])]
        begin = end
    return lines


def columns_of(rows: Sequence[Sequence[str]]) -> list[int]:
    """The width of every column."""
    return [max(map(len, column)) for column in zip(*rows, strict=True)]


def aligned(rows: Sequence[Sequence[str]], sizes: Sequence[int]) -> list[str]:
    """Names to the left, values to the right."""
    gap = " " * GAP
    return [
        gap.join([f"{name:<{sizes[0]}}", *(f"{c:>{n}}" for c, n in zip(cells, sizes[1:], strict=True))]).rstrip()
        for name, *cells in rows
    ]


def letter(place: int) -> str:
    """A to Z, then AA, AB and so on.

    >>> letter(0), letter(25), letter(26), letter(27)
    ('A', 'Z', 'AA', 'AB')
    """
    rest, last = divmod(place, 26)
    return (letter(rest - 1) if rest else "") + chr(ord("A") + last)


def quantity(value: float, unit: str) -> str:
    """A total with its prefix; no area is so small or large that it needs one."""
    return f"{digits(value, 4)} {unit}" if unit == AREA else si(value, unit).strip()


def labels(reports: Sequence[SavedReport]) -> list[str]:
    """A name for every report: its title, behind what tells its path apart where two have the same."""
    titles = [report.title for report in reports]
    alike = [str(r.path.parent if r.path.name == "report.json" else r.path) for r in reports]
    places = dict(zip(alike, apart(alike), strict=True))
    return [
        f"{places[path]}: {title}" if titles.count(title) > 1 else title
        for path, title in zip(alike, titles, strict=True)
    ]


def apart(paths: Sequence[str]) -> list[str]:
    """Paths without the folders that all have in common.

    >>> apart(["/runs/w8a8", "/runs/w4a4"])
    ['w8a8', 'w4a4']
    """
    whole = [os.path.abspath(path) for path in paths]
    shared = os.path.commonpath(whole)
    short = [os.path.relpath(path, shared) for path in whole]
    return list(paths) if "." in short else short


def write_page(reports: Sequence[SavedReport], target: Path) -> None:
    """The comparison as one self-contained page. Raises WorkloadError where a report cannot be drawn or written."""
    from hwsim.report.page.comparison import comparison_page  # templates are read for pages alone

    for report in reports:
        if problem := first_problem(report.data):
            raise WorkloadError(f"{report.path}: {problem}: write the report again with hwsim evaluate --out")
    rows = [[title, *cells] for title, *cells in table(reports)[1:]]
    text = comparison_page([report.data for report in reports], labels(reports), rows, sameness(reports))
    try:
        write_atomically(target, text)
    except OSError as problem:
        raise WorkloadError(f"{target}: cannot be written: {problem.strerror or problem}") from None


def first_problem(data: dict[str, Any]) -> str:
    """What a page needs and a report lacks; empty where all is there."""
    layers = data.get("layers")
    if not isinstance(layers, list) or not layers:
        return "it has no layers"
    needed = ("name", "op", "bits", "energy_pj", "latency_cycles", "bottleneck")
    for index, layer in enumerate(cast(list[Any], layers)):
        missing = [key for key in needed if not isinstance(layer, dict) or key not in layer]
        if missing:
            return f"layers[{index}].{missing[0]} is missing"
    return ""


def sameness(reports: Sequence[SavedReport]) -> list[str]:
    """Whether each report answers the first one's question; which parts differ where it does not."""
    lines: list[str] = []
    for report in reports[1:]:
        changed = reports[0].identity.differences(report.identity)
        said = f"differ in {', '.join(changed)}" if changed else f"the same question: {report.identity.value}"
        lines.append(f"{reports[0].path} and {report.path}: {said}")
    return lines
