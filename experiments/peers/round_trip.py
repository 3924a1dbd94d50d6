"""Our shipped specs to Timeloop v4 and back: what prices equal, what differs, and what the format cannot say."""

from __future__ import annotations

import dataclasses
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments.legal_mappings import random_nest
from hwsim.errors import SpecError
from hwsim.machine.load import load_accelerator, shipped_specs
from hwsim.machine.parts import Accelerator
from hwsim.nest.count import count_accesses
from hwsim.nest.legal import validate
from hwsim.nest.mapping import Mapping
from hwsim.network.layer import Layer, Loops, Tensor
from hwsim.network.workload import Workload
from hwsim.peers.report import TranslationReport
from hwsim.peers.timeloop.export import export_files
from hwsim.peers.timeloop.read import Timeloop, read_timeloop
from hwsim.pricing.area import static_power_mw
from hwsim.pricing.layer import LayerCost, price

NESTS, TRIES = 3, 20_000
BESIDE = ("vector", "capabilities", "other_area_mm2")  # never part of a memory, an array or a MAC


def layer() -> Layer:
    """32 x 48 channels, 14 x 14 outputs, 3x3, unpadded, at 8 bits."""
    return Layer(
        name="layer",
        op="conv",
        inputs=(Tensor("x", (1, 32, 16, 16), 8),),
        output=Tensor("y", (1, 48, 14, 14), 8),
        weight=Tensor("w", (48, 32, 3, 3), 8),
        loops=Loops(K=48, C=32, P=14, Q=14, R=3, S=3),
    )


def legal_nests(machine: Accelerator, count: int = NESTS) -> Iterator[Mapping]:
    """Random legal nests through all memories."""
    rng = random.Random(1)
    found = 0
    for _ in range(TRIES):
        nest = random_nest(rng, layer(), machine)
        if not validate(nest, layer(), machine):
            yield nest
            found += 1
            if found == count:
                return


def there_and_back(machine: Accelerator, nest: Mapping, report: TranslationReport) -> Timeloop:
    """Written as Timeloop's files and read again. Raises SpecError where a part cannot be said at all."""
    files = export_files(machine, Workload("layer", [layer()]), {"layer": nest}, report)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in files if name.endswith(".yaml")]
        for path in paths:
            path.write_text(files[path.name], encoding="utf-8")
        return read_timeloop(paths)


def compared(machine: Accelerator, nest: Mapping, read: Timeloop) -> tuple[LayerCost, LayerCost] | None:
    """Prices of the mapping before and after; None where the mapping was not said."""
    if read.nest is None:
        return None
    back = dataclasses.replace(read.machine(), vector=machine.vector, capabilities=machine.capabilities)
    before = price(layer(), count_accesses(layer(), nest, machine), machine)
    after = price(layer(), count_accesses(layer(), read.nest, back), back)
    return before, after


def unequal(before: LayerCost, after: LayerCost) -> list[str]:
    """Components whose energies differ, and `cycles` where the latency does; `static` follows the cycles."""
    names = [name for name, value in before.energy_pj.items() if after.energy_pj.get(name) != value]
    cycles = before.latency_cycles != after.latency_cycles
    if cycles and "static" in names:
        names.remove("static")
    return [*names, *(["cycles"] if cycles else [])]


def rows() -> list[dict[str, Any]]:
    """One row per shipped spec."""
    return [row_of(name) for name in shipped_specs()]


def row_of(name: str) -> dict[str, Any]:
    """What happened to one spec."""
    machine, report = load_accelerator(name), TranslationReport()
    row: dict[str, Any] = {"spec": name, "nests": 0, "said": 0, "unequal": "", "cannot_be_said": ""}
    differing: set[str] = set()
    try:
        if machine.mac.style == "measured":
            export_files(machine, None, {}, report)
        for nest in legal_nests(machine):
            row["nests"] += 1
            read = there_and_back(machine, nest, report)
            pair = compared(machine, nest, read)
            if pair is not None:
                row["said"] += 1
                differing |= set(unequal(*pair))
                same_power = abs(static_power_mw(read.machine()) - static_power_mw(machine)) <= 1e-6 * max(
                    1e-6, static_power_mw(machine)
                )
                differing |= set() if same_power else {"idle power"}
    except SpecError as problem:
        row["cannot_be_said"] = str(problem)
        return row
    lost = [
        e for e in report.entries if e.verdict != "taken" and e.subject not in BESIDE and "mapping" not in e.subject
    ]
    row["unequal"] = "; ".join(sorted(differing)) or "nothing"
    row["cannot_be_said"] = "; ".join(dict.fromkeys(e.subject for e in lost)) or "nothing"
    return row


def explained(row: dict[str, Any]) -> bool:
    """Whether everything unequal is named among what cannot be said."""
    lost = str(row["cannot_be_said"])
    parts = {word.split(".")[0] for word in lost.split("; ")}
    unnamed = [name for name in str(row["unequal"]).split("; ") if name not in ("nothing", *parts)]
    timed = any(word in lost for word in ("overlap", "systolic", "macs_per_cycle", "double_buffered", "mac.style",
                                          "mac.sustained", "efficiency", "packing", "multicast"))  # fmt: skip
    return all(name == "cycles" and timed for name in unnamed)
