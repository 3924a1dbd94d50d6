"""SCALE-Sim's configurations and topologies: cycles against its closed forms, and against what its runs printed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from experiments.table import read
from hwsim.machine.parts import Accelerator, Operand
from hwsim.nest.count import count_accesses
from hwsim.nest.counts import Counts
from hwsim.nest.mapping import Mapping
from hwsim.network.layer import Layer
from hwsim.peers.report import TranslationReport
from hwsim.peers.scalesim import (
    Flow,
    Product,
    ScaleSim,
    as_layer,
    closed_form,
    own_mapping,
    read_config,
    read_scalesim,
)
from hwsim.pricing.layer import price

COUNTERS: tuple[tuple[Operand, str], ...] = (
    ("weight", "filter_reads"), ("input", "ifmap_reads"), ("output", "ofmap_writes"),
)  # fmt: skip
PRINTED = Path(__file__).resolve().parents[1] / "data" / "scalesim_runs.csv"


def compute_cycles(layer: Layer, nest: Mapping, machine: Accelerator) -> int:
    """Cycles of the array alone."""
    return dict(price(layer, count_accesses(layer, nest, machine), machine).cycles)["compute"]


def rows(data: Path) -> list[dict[str, Any]]:
    """One row per configuration and topology."""
    folder = data / "peers" / "scalesim"
    found: list[dict[str, Any]] = []
    for config in sorted((folder / "configs").glob("*.cfg")):
        for topology in sorted((folder / "topologies").rglob("*.csv")):
            found.append(row_of(read_scalesim([config, topology]), config.stem, topology.stem))
    return found


def row_of(read_: ScaleSim, config: str, topology: str) -> dict[str, Any]:
    """Layers whose cycles equal the closed form, and sums."""
    machine = read_.machine()
    nests = read_.mappings(machine)
    assert read_.workload is not None
    ours = [compute_cycles(layer, nests[layer.name], machine) for layer in read_.workload.layers]
    theirs = [closed_form(product, read_.rows, read_.columns, read_.flow) for product in read_.products]
    return {
        "config": config, "flow": read_.flow, "array": f"{read_.rows} x {read_.columns}", "topology": topology,
        "layers": len(ours), "equal": sum(a == b for a, b in zip(ours, theirs, strict=True)),
        "closed_form_cycles": sum(theirs), "cycles": sum(ours),
    }  # fmt: skip


def machine_of(rows_: int, columns: int, flow: Flow) -> Accelerator:
    """A machine of SCALE-Sim with large SRAMs."""
    text = (
        f"[general]\nrun_name = array\n[architecture_presets]\nArrayHeight: {rows_}\nArrayWidth: {columns}\n"
        "IfmapSramSzkB: 65536\nFilterSramSzkB: 65536\nOfmapSramSzkB: 65536\n"
        f"Dataflow: {flow}\nBandwidth: 10\n[run_presets]\nInterfaceBandwidth: CALC\n"
    )
    found = ScaleSim(TranslationReport())
    read_config(text, "array.cfg", found)
    return found.machine()


def printed_rows() -> list[dict[str, Any]]:
    """Every run that was printed: its cycles (a last index) and SRAM counters beside ours."""
    found: list[dict[str, Any]] = []
    for line in read(PRINTED):
        flow = cast(Flow, line["flow"])
        machine = machine_of(int(line["rows"]), int(line["columns"]), flow)
        product = Product("layer", int(line["m"]), int(line["k"]), int(line["n"]))
        layer = as_layer(product)
        nest = own_mapping(layer, machine, flow)
        counts = count_accesses(layer, nest, machine)
        row: dict[str, Any] = {
            "flow": flow, "m": product.m, "n": product.n, "k": product.k, "printed_cycles": int(line["total_cycles"]),
            "cycles": compute_cycles(layer, nest, machine),
        }  # fmt: skip
        for operand, column in COUNTERS:
            if line[column]:
                row[f"printed_{column}"] = int(line[column])
                row[column] = at_the_array(counts, nest, machine, operand, column.endswith("writes"))
        found.append(row)
    return found


def at_the_array(counts: Counts, nest: Mapping, machine: Accelerator, operand: Operand, writes: bool) -> int:
    """Elements that the array's edge moves: reads or writes of the last memory above it."""
    outside = [m.name for m in machine.memories if m.name != "register"]
    held = [name for name in outside if nest.hold_index(name, operand) is not None]
    if not writes:
        return counts.reads(held[-1], operand)
    returned = counts.reads(held[-2], operand) if len(held) > 1 else 0  # sums that come back in from further out
    return counts.writes(held[-1], operand) - returned
