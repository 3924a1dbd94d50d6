"""Accelergy's recorded energies beside our estimates for the same components: one row per design and component."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hwsim.machine.parts import Accelerator
from hwsim.peers.timeloop.read import Timeloop, read_timeloop

DESIGNS = ("eyeriss_like", "simple_weight_stationary")


def rows(data: Path) -> list[dict[str, Any]]:
    """pJ per access of a memory and per MAC: the tables' (ERT), and ours where no table is given."""
    found: list[dict[str, Any]] = []
    for design in DESIGNS:
        folder = data / "peers" / "timeloop" / "example_designs" / design / "ref_outputs" / "default_problem"
        processed = folder / "parsed-processed-input.yaml"
        tabled = read_timeloop([processed, folder / "timeloop-mapper.ERT_summary.yaml"])
        alone = read_timeloop([processed])
        found += of_design(design, tabled, tabled.machine(), alone.machine())
    return found


def of_design(design: str, read: Timeloop, tabled: Accelerator, alone: Accelerator) -> list[dict[str, Any]]:
    """Rows of one design."""
    estimates = {memory.name: memory.read_energy_pj for memory in alone.memories} | {"mac": alone.mac.energy_pj}
    compute = read.chain.compute.name if read.chain is not None else "mac"
    priced = [
        *((memory.name, memory.size_bits, memory.word_bits, memory.read_energy_pj) for memory in tabled.memories),
        (compute, None, tabled.mac.weight_bits, tabled.mac.energy_pj),
    ]
    made: list[dict[str, Any]] = []
    for name, size, width, energy in priced:
        ours = estimates["mac" if name == compute else name]
        made.append({"design": design, "component": name, "size_bits": size or "", "word_bits": width,
                     "its_pj": energy, "our_pj": ours, "ratio": ours / energy})  # fmt: skip
    return made
