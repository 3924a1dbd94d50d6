"""ZigZag's pinned results beside our search on its machines: least latency, and the least energy known at it.

Its rows minimise latency. Ours: the least latency of every layer, with its proof, and of the mappings found at that
latency the one of least energy; our least energy stands beside it. Rows with `data locality` keep tensors on chip
between layers. So do `mixed` rows, which choose among several unrollings, and `in memory` ones: each of its three
switches turns the stage on that keeps tensors.
Its ONNX reader skips operators without MACs, so those rows compare layers with MACs; YAML rows compare all.
"""

from __future__ import annotations

import csv
import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from experiments.uniform import uniform
from hwsim.command_line import load_model
from hwsim.machine.parts import Accelerator
from hwsim.network.workload import Workload
from hwsim.peers.zigzag.read import read_zigzag
from hwsim.pricing.layer import LayerCost, price_vector
from hwsim.pricing.network import price_network
from hwsim.pricing.stages import fuse
from hwsim.search.network import search_network
from hwsim.search.result import Found

ONNX = {"resnet18.onnx": "zigzag_resnet18_shapes.onnx"}
SUM_BITS = 16  # what its ONNX reader assumes, and what its registers hold
LIMIT_S = 5.0


@dataclass(frozen=True)
class Answer:
    """A network on a machine under one objective: MAC layers and what runs between them."""

    energy_pj: float
    cycles: int
    proven_cycles: float
    seconds: float


def network_of(data: Path, name: str) -> Workload | None:
    """An ONNX network at 8 bits with its sums; None for a YAML one, which the reader gives."""
    if name not in ONNX:
        return None
    network = uniform(load_model(str(data / "onnx" / ONNX[name]), None, False), 8)
    layers = [dataclasses.replace(l, accumulator_bits=SUM_BITS) if l.has_macs else l for l in network.layers]
    return Workload(network.name, layers, network.coverage, network.notes)


@lru_cache(maxsize=32)
def searched(data: Path, hardware: str, mapping: str, workload: str) -> tuple[Accelerator, Workload, Any, Any, float]:
    """(machine, network, mappings of least latency, mappings of least energy, seconds)."""
    folder = data / "peers" / "zigzag"
    files = [folder / "hardware" / hardware, folder / "mapping" / mapping]
    if workload not in ONNX:
        files.append(folder / "workload" / workload)
    read = read_zigzag(files)
    machine, network = read.machine(), network_of(data, workload) or read.workload
    assert network is not None
    began = time.process_time()
    proven = search_network(network, machine, "latency", effort="auto", time_limit_s=LIMIT_S)
    quick = search_network(network, machine, "latency", effort="quick")
    least = search_network(network, machine, "energy", effort="auto", time_limit_s=LIMIT_S)
    best: dict[str, Found] = {}
    for name, found in proven.items():
        options = [found, quick[name], least[name]]
        best[name] = dataclasses.replace(
            min(options, key=lambda f: (f.cost.latency_cycles, f.cost.total_energy_pj)), certificate=found.certificate
        )
    return machine, network, best, least, time.process_time() - began


def costs_of(
    machine: Accelerator, network: Workload, found: Mapping[str, Found], locality: bool, whole: bool
) -> list[LayerCost]:
    """Costs by layer; without locality every tensor returns to the outermost memory. `whole`: all operators."""
    if locality:
        priced = price_network(network, machine, {name: f.counts for name, f in found.items()}).layers
        return [cost for cost in priced if whole or cost.name in found]
    between = [price_vector(stage.layer, machine) for stage in fuse(network, machine.capabilities)
               if whole and not stage.layer.has_macs]  # fmt: skip
    return [*(f.cost for f in found.values()), *between]


def answer(
    machine: Accelerator, network: Workload, found: Mapping[str, Found], seconds: float, locality: bool, whole: bool
) -> Answer:
    """Energy and cycles of all layers, and what no mapping could go below while tensors leave the chip."""
    costs = costs_of(machine, network, found, locality, whole)
    between = costs_of(machine, network, {}, False, whole)
    proven = sum(f.certificate.lower_bound for f in found.values()) + sum(cost.latency_cycles for cost in between)
    return Answer(sum(c.total_energy_pj for c in costs), sum(c.latency_cycles for c in costs), proven, seconds)


def question_of(line: Mapping[str, str]) -> str:
    """What a row of expected.csv asks."""
    if "data_locality" in line["test"]:
        return "data locality"
    if "mixed" in line["mapping"]:
        return "mixed"
    return "in memory" if "imc" in line["test"] else "plain"


def keeps_tensors(line: Mapping[str, str]) -> bool:
    """Whether tensors stay on chip between layers in a row."""
    return question_of(line) != "plain"


def name_of(line: Mapping[str, str]) -> dict[str, str]:
    """The columns that name a row."""
    return {"machine": Path(line["accelerator"]).stem, "question": question_of(line),
            "workload": Path(line["workload"]).name}  # fmt: skip


def rows(data: Path) -> list[dict[str, Any]]:
    """One row per line of expected.csv."""
    with (data / "peers" / "zigzag" / "expected.csv").open(newline="", encoding="utf-8") as file:
        expected = list(csv.DictReader(file))
    return [row_of(data, line) for line in expected]


def row_of(data: Path, line: dict[str, str]) -> dict[str, Any]:
    """Its figures, ours, and the ratio."""
    hardware, mapping, workload = (Path(line[key]).name for key in ("accelerator", "mapping", "workload"))
    locality = keeps_tensors(line)
    machine, network, fast, least, seconds = searched(data, hardware, mapping, workload)
    whole = workload not in ONNX
    ours = answer(machine, network, fast, seconds, locality, whole)
    frugal = answer(machine, network, least, seconds, locality, whole)
    its_cycles, its_energy = float(line["latency_cycles"]), float(line["energy"])
    return {
        **name_of(line), "its_cycles": its_cycles,
        "cycles": ours.cycles, "no_less_than": ours.proven_cycles, "cycles_ratio": ours.cycles / its_cycles,
        "its_energy_pj": its_energy, "energy_pj": ours.energy_pj, "energy_ratio": ours.energy_pj / its_energy,
        "least_energy_pj": frugal.energy_pj, "cycles_at_least_energy": frugal.cycles, "seconds": round(seconds, 1),
    }  # fmt: skip
