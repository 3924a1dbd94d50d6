"""Timeloop's recorded runs, re-priced under its conventions and by our exact counts: one row per run and level."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hwsim.nest.count import count_accesses
from hwsim.peers.timeloop.read import read_timeloop
from hwsim.pricing.layer import price

# What an unequal row is, by (run, level): the only ones.
NAMED = {
    ("eyeriss_like", "shared_glb"): "input fills as 16 tiles of 3 x 29 x 113 without any halo: 696 more than its rule",
    ("eyeriss_like", "DRAM"): "the reads behind those fills",
}


def files_of(folder: Path, exercise: str) -> list[Path]:
    """Processed input, mapping and energy table of a recorded run."""
    parts = exercise.split("/")
    start = parts.index("timeloop") + 1 if "timeloop" in parts else 2
    root = folder / ("exercises" if "timeloop" in parts else "example_designs")
    place = root.joinpath(*parts[start:])
    return sorted(path for path in place.iterdir() if path.suffix == ".yaml" and "flattened" not in path.name)


def name_of(exercise: str) -> str:
    """`01-model-conv1d-2level os`, `eyeriss_like`."""
    known = ("os", "ws", "cp", "kp", "tiling", "no-tiling")
    parts = [
        part
        for part in exercise.split("/")
        if part in known or part.endswith(("_like", "_stationary")) or part[:3] in ("00-", "01-", "02-", "04-")
    ]
    return " ".join(parts)


def rows(data: Path) -> list[dict[str, Any]]:
    """All rows, in the order of reference.csv."""
    folder = data / "peers" / "timeloop"
    with (folder / "reference.csv").open(newline="", encoding="utf-8") as file:
        references = list(csv.DictReader(file))
    return [row for reference in references for row in of_run(folder, reference)]


def of_run(folder: Path, reference: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Rows of one run: accesses and energy per level, and the total."""
    read = read_timeloop(files_of(folder, reference["exercise"]))
    machine, name = read.machine(), name_of(reference["exercise"])
    account = read.accounted(machine)
    assert read.layer is not None
    assert read.nest is not None
    counts = count_accesses(read.layer, read.nest, machine)
    cost = price(read.layer, counts, machine)
    computes = int(reference["computes"])
    energies = json.loads(reference["energy_per_compute_by_component"])
    scalars = json.loads(reference["scalar_accesses_by_level"])
    for level, printed in energies.items():
        total = level == "Total"
        ours = account.total_pj if total else account.energy_pj.get(level, account.energy_pj["mac"])
        row: dict[str, Any] = {
            "run": name, "level": level, "its_cycles": int(reference["cycles"]), "cycles": account.cycles,
            "its_fj_per_compute": float(printed), "fj_per_compute": round(ours / computes * 1000, 2),
        }  # fmt: skip
        if level in scalars:
            exact = sum(counts.reads(level, o) + counts.writes(level, o) for o in ("weight", "input", "output"))
            row |= {"its_accesses": int(scalars[level]), "accesses": account.scalars(level), "exact_accesses": exact}
            row["difference"] = NAMED.get((name, level), "")
        if total:
            row["our_own_fj_per_compute"] = round(cost.total_energy_pj / computes * 1000, 2)
        yield row
