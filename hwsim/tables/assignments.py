"""Many bit assignments of a network, priced from tables: `python -m hwsim.table MODEL ACCEL --assignments FILE`.

A file of assignments is CSV: a column per decision (`NetworkTable.columns`: a layer's weights, or activations that must
share their bits), a row per assignment. `random:N` draws N from all widths that the machine runs. Nothing is searched
per row: every price equals `price_network` under mappings searched once.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hwsim.errors import InfeasibleMapping, SpecError, reason
from hwsim.files.reading import read_text
from hwsim.machine.parts import Accelerator
from hwsim.network.bits_file import WIDTHS
from hwsim.network.workload import Workload
from hwsim.search.objective import Objective, objective_value
from hwsim.search.passes import equal_sizes
from hwsim.tables.grid import Ints
from hwsim.tables.network_table import NetworkTable
from hwsim.tables.rows import Priced

RANDOM = re.compile(r"random:([1-9][0-9]{0,6})")
PRICES = ("energy_pj", "cycles", "lower_bound_pj", "weight_bits", "peak_activation_bits", "bops")


def assignment_rows(
    text: str, workload: Workload, accelerator: Accelerator, objective: Objective, *, alone: bool = False
) -> list[dict[str, Any]]:
    """Each assignment's bits and prices, in the file's order; `energy_pj` and `cycles` are empty where the machine
    refuses or cannot hold the row. Raises SpecError for a bad file, InfeasibleMapping where no row can be run."""
    drawn = RANDOM.fullmatch(text)
    if drawn is None and text.startswith("random:"):
        raise SpecError(f"{text}: expected random:N with N from 1 to 9999999")
    names, wanted = ((), ()) if drawn else read_rows(Path(text))
    widths = sorted({bits for row in wanted for bits in row}) or machine_widths(accelerator)
    tables = [
        (times, NetworkTable.build(network, accelerator, widths, objective=objective))
        for times, network in equal_sizes(workload)
    ]
    table = tables[0][1]  # of the batch at once
    rows = table.random(int(drawn[1]), np.random.default_rng(0)) if drawn else ordered(text, names, wanted, table)
    priced = cheapest_passes([(times, each.price(rows, alone=alone)) for times, each in tables], objective)
    if not np.isfinite(priced["energy_pj"]).any():
        raise InfeasibleMapping(f"{accelerator.name} runs none of the {len(rows)} assignments of {text}")
    columns = [priced[name].tolist() for name in PRICES]
    found: list[dict[str, Any]] = []
    for bits, fine, *values in zip(rows.tolist(), np.isfinite(priced["energy_pj"]).tolist(), *columns, strict=True):
        prices = dict(zip(PRICES, values, strict=True))
        if not fine:
            prices |= {"energy_pj": "", "cycles": "", "lower_bound_pj": ""}
        found.append({**dict(zip((c.name for c in table.columns), bits, strict=True)), **prices})
    return found


def cheapest_passes(sizes: Sequence[tuple[int, Priced]], objective: Objective) -> dict[str, Any]:
    """PRICES of every row, in the equal passes of the batch that cost it least. `sizes`: (passes, one's prices)."""
    energy = np.stack([times * each.energy_pj for times, each in sizes])
    cycles = np.stack([times * each.cycles for times, each in sizes])
    value = objective_value(objective, energy, np.where(np.isfinite(energy), cycles, np.inf))
    chosen = value.argmin(axis=0)
    found = {
        name: np.take_along_axis(table, chosen[None], axis=0)[0]
        for name, table in {
            "energy_pj": energy,
            "cycles": cycles,
            "peak_activation_bits": np.stack([each.peak_activation_bits for _, each in sizes]),
            "bops": np.stack([times * each.bops for times, each in sizes]),
            "weight_bits": np.stack([each.weight_bits for _, each in sizes]),
        }.items()
    }
    return found | {"lower_bound_pj": np.min([times * each.lower_bound_pj for times, each in sizes], axis=0)}


def machine_widths(accelerator: Accelerator) -> list[int]:
    """Widths that the machine has for weights, inputs and outputs alike."""
    can = accelerator.capabilities
    return [b for b in WIDTHS if b in can.weight_bits and b in can.activation_bits and b in can.output_bits]


def read_rows(path: Path) -> tuple[tuple[str, ...], tuple[tuple[int, ...], ...]]:
    """(names of the columns, bits of every row) of a CSV file. Raises SpecError with file and line."""
    try:
        lines = list(csv.reader(read_text(path).splitlines()))
    except (OSError, ValueError, csv.Error) as problem:
        raise SpecError(f"{path}: expected a CSV file of assignments, or random:N: {reason(problem)}") from None
    if len(lines) < 2:
        raise SpecError(f"{path}: expected a line of names and a line of bits per assignment, found {len(lines)} lines")
    names, problems, rows = tuple(lines[0]), [], []
    for number, cells in enumerate(lines[1:], start=2):
        bits = [int(cell) if cell.strip().isdecimal() else 0 for cell in cells]
        if len(bits) != len(names) or not set(bits) <= set(WIDTHS):
            problems.append(f"{path}:{number}: expected {len(names)} widths of {WIDTHS}, got {','.join(cells)[:80]}")
        rows.append(tuple(bits))
    if len(problems) > 1 and len(problems) == len(rows):
        raise SpecError(f"{path}: expected a CSV file of assignments: a line of names, then widths of {WIDTHS}; none "
                        f"of its {len(rows)} rows is one. `random:10` prints some to start from")  # fmt: skip
    if problems:
        raise SpecError(problems[:10])
    return names, tuple(rows)


def ordered(text: str, names: Sequence[str], rows: Sequence[Sequence[int]], table: NetworkTable) -> Ints:
    """Rows in the order of the table's columns. Raises SpecError where the names differ from the decisions'."""
    known = [column.name for column in table.columns]
    missing, strange = [n for n in known if n not in names], [n for n in names if n not in known]
    if missing or strange or len(set(names)) < len(names):
        what = (
            f"missing {', '.join(missing[:5])}" if missing else f"unknown or doubled {', '.join(strange[:5] or names)}"
        )
        raise SpecError(f"{text}:1: {what}; expected each of these once: {','.join(known)}")
    place = [names.index(name) for name in known]
    return np.array(rows, dtype=np.int64)[:, place]
