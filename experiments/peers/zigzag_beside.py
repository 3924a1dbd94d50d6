"""ZigZag itself beside our search, on every row of its tests: its answer of today, its time, its mappings counted here.

The peer runs in a Python of its own (`benchmarks/peers/zigzag_network_worker.py`). Every schedule that it finds becomes
a nest of ours (`zigzag_nests`) and is counted exactly; operands that it keeps on chip stay there. What differs then is
its accounting alone: `term_rows` has it by memory and operand, beside our own mappings.

A register that serves elements of several copies of another memory stands once per element here, at that share of its
price (`hwsim.peers.zigzag.hardware`). `unpaid_pj` is what elements that do not work leave out: the register's price of
a layer times (elements that it serves / those that work - 1).
"""

from __future__ import annotations

import csv
import json
import math
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from experiments.peers import zigzag
from experiments.peers.zigzag_nests import nest_of
from hwsim.errors import HwsimError
from hwsim.machine.parts import Accelerator, Array
from hwsim.nest.count import count_accesses
from hwsim.network.layer import Layer
from hwsim.network.workload import Workload
from hwsim.peers.draft import bare_name
from hwsim.peers.zigzag.mapping import OPERANDS, USUAL_DIMS
from hwsim.peers.zigzag.read import read_zigzag
from hwsim.pricing.layer import LayerCost, price

WORKER = Path(__file__).resolve().parents[2] / "benchmarks" / "peers" / "zigzag_network_worker.py"
FLAGS = {"plain": [], "data locality": ["exploit_data_locality"], "mixed": ["enable_mix_spatial_mapping"],
         "in memory": ["in_memory_compute"]}  # fmt: skip
OTHERS = "operators without MACs"
Bill = dict[tuple[str, str], float]  # pJ by (memory, operand)


@dataclass(frozen=True)
class Beside:
    """One row of its tests: its answer, and the costs of its mappings under our counts, by layer."""

    line: dict[str, str]
    answer: dict[str, Any]
    machine: Accelerator
    served: dict[str, dict[str, int]]  # memory: dimensions and extents that its price is shared over
    pairs: tuple[tuple[dict[str, Any], LayerCost | None], ...]
    ours: tuple[LayerCost, ...]


def answers(data: Path, folder: Path, python: str | None) -> Iterator[tuple[dict[str, str], dict[str, Any]]]:
    """(row of expected.csv, its answer) of every row; answers already in the folder are not asked for again."""
    place = data / "peers" / "zigzag"
    with (place / "expected.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    folder.mkdir(parents=True, exist_ok=True)
    for line in lines:
        hardware, mapping, workload = (Path(line[key]).name for key in ("accelerator", "mapping", "workload"))
        question = zigzag.question_of(line)
        out = folder / f"{Path(hardware).stem}-{question.replace(' ', '_')}-{workload}.json"
        if not out.exists():
            own = place / "workload" / workload
            ask(python, [place / "hardware" / hardware, place / "mapping" / mapping,
                         own if own.exists() else workload, out, *FLAGS[question]])  # fmt: skip
        yield line, json.loads(out.read_text(encoding="utf-8"))


def ask(python: str | None, words: Sequence[Any]) -> None:
    """Run the peer. Raises HwsimError where it is not there or fails."""
    if python is None:
        raise HwsimError(f"{words[3]}: no answer of ZigZag there: give --peer-python, an environment with zigzag-dse")
    done = subprocess.run([python, str(WORKER), *map(str, words)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise HwsimError(f"{python}: ZigZag failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")


def beside(data: Path, line: dict[str, str], answer: dict[str, Any]) -> Beside:
    """Its schedules counted here, and ours."""
    hardware, mapping, workload = (Path(line[key]).name for key in ("accelerator", "mapping", "workload"))
    machine, network, fast, _, _ = zigzag.searched(data, hardware, mapping, workload)
    costs = zigzag.costs_of(machine, network, fast, zigzag.keeps_tensors(line), workload not in zigzag.ONNX)
    own = data / "peers" / "zigzag" / "workload" / workload
    dims = read_zigzag([own]).dims if own.exists() else USUAL_DIMS
    pairs = tuple((found, counted(found, layer, machine, dims)) for found, layer in paired(answer["layers"], network))
    return Beside(line, answer, machine, shared(data / "peers" / "zigzag" / "hardware" / hardware, machine), pairs,
                  tuple(costs))  # fmt: skip


def shared(hardware: Path, machine: Accelerator) -> dict[str, dict[str, int]]:
    """Dimensions that a memory serves although they stand above it here, with their extents."""
    memories = yaml.safe_load(hardware.read_text(encoding="utf-8"))["memories"]
    above: dict[str, int] = {}
    found: dict[str, dict[str, int]] = {}
    for node in machine.hierarchy:
        if isinstance(node, Array):
            above |= {axis.name: axis.size for axis in node.axes}
        elif node.source.startswith("memory "):
            serves = memories[node.source.removeprefix("memory ")]["served_dimensions"]
            found[node.name] = {axis: size for axis, size in above.items() if axis in serves}
    return {memory: axes for memory, axes in found.items() if axes}


def unpaid_pj(one: Beside) -> float:
    """What its mappings cost more where a shared register is paid once, however many elements work."""
    total = 0.0
    for layer, cost in one.pairs:
        for memory, axes in one.served.items():
            works = math.prod(factor for axis in axes for _, factor in layer["unrolled"].get(axis, ()))
            energy = 0.0 if cost is None else cost.energy_pj.get(memory, 0.0)
            total += energy * (math.prod(axes.values()) / works - 1)
    return total


def paired(layers: Iterable[dict[str, Any]], network: Workload) -> Iterator[tuple[dict[str, Any], Layer | None]]:
    """Its layers with ours: by name, else in order; None for an operator without MACs."""
    ours = {layer.name: layer for layer in network.layers}
    rest = [layer for layer in network.layers if layer.has_macs]
    for found in layers:
        named = ours.get(bare_name(found["name"]))
        if named is None:
            named = next((layer for layer in rest if layer.macs == found["macs"]), None)
        if named is None:
            raise HwsimError(f"ZigZag's layer {found['name']}: no layer of ours has its {found['macs']:,} MACs")
        if named in rest:
            rest.remove(named)
        yield found, named if named.has_macs else None


def counted(
    found: dict[str, Any], layer: Layer | None, machine: Accelerator, dims: Mapping[str, str]
) -> LayerCost | None:
    """Its schedule of one layer under our counts; None without MACs."""
    if layer is None:
        return None
    nest, resident = nest_of(found, machine, dims)
    return price(layer, count_accesses(layer, nest, machine), machine, resident=resident)


def its_bill(found: Mapping[str, Any]) -> Bill:
    """What it prints for one layer."""
    bill: Bill = {("mac", ""): found["mac_pj"]}
    for name, levels in found["operands"].items():
        for level in levels:
            add(bill, {(bare_name(level["memory"]), str(OPERANDS[name])): sum(level["pj"].values())})
    return bill


def our_bill(cost: LayerCost) -> Bill:
    """A cost of ours in the same words."""
    bill: Bill = {}
    for part in cost.parts:
        operand = part.detail.removesuffix(" (partial sums)")
        add(bill, {(part.component, operand if part.component != "mac" else ""): part.energy_pj})
    return bill


def add(bill: Bill, more: Bill) -> None:
    """Put a bill on top of another."""
    for term, energy in more.items():
        bill[term] = bill.get(term, 0.0) + energy


def rows(found: Sequence[Beside]) -> list[dict[str, Any]]:
    """One row per line of expected.csv."""
    return [
        {
            **zigzag.name_of(one.line), "version": one.answer["version"], "cycles": one.answer["cycles"],
            "energy_pj": one.answer["energy_pj"],
            "counted_pj": sum(c.total_energy_pj if c else its["energy_pj"] for its, c in one.pairs),
            "unpaid_pj": unpaid_pj(one), "cpu_s": round(one.answer["cpu_s"], 1),
        } for one in found
    ]  # fmt: skip


def term_rows(found: Sequence[Beside]) -> list[dict[str, Any]]:
    """Per row of its tests, memory and operand: pJ as it prints, as its mappings count here, and of ours."""
    made: list[dict[str, Any]] = []
    for one in found:
        its, here, ours = bills(one)
        for term in sorted(its.keys() | here.keys() | ours.keys()):
            energies = [bill.get(term, 0.0) for bill in (its, here, ours)]
            if max(energies) >= 1.0:
                made.append({**zigzag.name_of(one.line), "memory": term[0], "operand": term[1],
                             **dict(zip(("its_pj", "counted_pj", "our_pj"), energies, strict=True))})  # fmt: skip
    return made


def bills(one: Beside) -> tuple[Bill, Bill, Bill]:
    """What it prints, what its mappings cost here, and what ours do, over all layers."""
    its: Bill = {}
    here: Bill = {}
    ours: Bill = {}
    names: set[str] = set()
    for layer, cost in one.pairs:
        others: Bill = {(OTHERS, ""): layer["energy_pj"]}  # as it prices them, in both
        add(its, its_bill(layer) if cost else others)
        add(here, our_bill(cost) if cost else others)
        names |= {cost.name} if cost else set()
    for cost in one.ours:
        add(ours, our_bill(cost) if cost.name in names else {(OTHERS, ""): cost.total_energy_pj})
    return its, here, ours


def tables(data: Path, folder: Path, python: str | None) -> dict[str, list[dict[str, Any]]]:
    """Both tables."""
    found = [beside(data, line, answer) for line, answer in answers(data, folder, python)]
    return {"zigzag_beside": rows(found), "zigzag_terms": term_rows(found)}
