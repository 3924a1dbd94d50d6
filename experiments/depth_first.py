"""`python -m experiments.depth_first`: networks layer by layer, with tensors on chip, and in depth-first groups.

Outermost traffic, energy and cycles at W8A8, least energy, by the quick search. FSRCNN is a torch module (`fsrcnn`):
its last layer makes the four sub-pixels of the doubled image as channels. Writes a CSV and prints a table. `gap`: how
far each way lies above the bound on all schedules of its kind; `--bounds-only` finds it anew for rows of the CSV.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from experiments.table import Row, append, read
from hwsim.command_line import load_model
from hwsim.frontends.torch_export import extract
from hwsim.machine.load import load_accelerator
from hwsim.machine.parts import Accelerator
from hwsim.network.bits import assign_bits
from hwsim.network.workload import Workload
from hwsim.pricing.network import NetworkCost, price_network
from hwsim.report.terminal import gap_percent
from hwsim.search.fusion.bound import GroupsBound
from hwsim.search.fusion.plan import fused_plan
from hwsim.search.joint.optimum import Optimum
from hwsim.search.joint.schedule import NOBODY, Schedule
from hwsim.search.joint.staircase import Weights
from hwsim.search.network import Plan, plan_network

NETWORKS = ("fsrcnn", "mobilenet_v2", "resnet18", "networks/cifar10_silu_float")
WAYS = ("layer by layer", "tensors on chip", "depth first")
MACHINES = ("eyeriss_v1", "ethos_u55_256", "simba", "gemmini_16x16")


def fsrcnn(features: int = 56, shrunk: int = 12, mapping: int = 4) -> nn.Module:
    """FSRCNN(56, 12, 4) for one channel, doubling: Dong et al., ECCV 2016, its deconvolution as four sub-pixels."""
    middle = [layer for _ in range(mapping) for layer in (nn.Conv2d(shrunk, shrunk, 3, padding=1), nn.ReLU())]
    return nn.Sequential(
        nn.Conv2d(1, features, 5, padding=2), nn.ReLU(),
        nn.Conv2d(features, shrunk, 1), nn.ReLU(),
        *middle,
        nn.Conv2d(shrunk, features, 1), nn.ReLU(),
        nn.Conv2d(features, 4, 5, padding=2),
    )  # fmt: skip


def network(name: str) -> Workload:
    """A network at W8A8."""
    if name == "fsrcnn":
        image = extract(fsrcnn().eval(), torch.zeros(1, 1, 540, 960), name="fsrcnn")
        last = image.layers[-1].output.name
        found = assign_bits(image, "W8A8")  # the image that leaves has 8 bits a pixel, not 32
        return found.map_tensors(lambda t: replace(t, bits=8) if t.name == last else t)
    found = load_model(name, None, False)
    return found if found.quantized else assign_bits(found, "W8A8")


def rows(name: str, spec: str) -> Iterator[dict[str, object]]:
    """One row per way."""
    workload, machine = network(name), load_accelerator(spec)
    plan = plan_network(workload, machine, effort="quick")
    counts = {layer: found.counts for layer, found in plan.found.items()}
    began = time.process_time()
    fused = fused_plan(workload, machine, plan, (), "energy")
    seconds = time.process_time() - began
    known = bounds(workload, machine, plan)
    alone = price_network(workload, machine, counts, resident=frozenset())
    for way, cost in zip(WAYS, (alone, plan.cost, fused.cost), strict=True):
        yield {
            "key": f"{name}/{spec}/{way}",
            "network": workload.name,
            "machine": spec,
            "way": way,
            **figures(cost),
            "groups": len(fused.groups) if cost is fused.cost else 0,
            "fused_layers": sum(len(choice.group.stages) for choice in fused.groups) if cost is fused.cost else 0,
            "cpu_seconds": round(seconds, 1) if way == "depth first" else "",
            "gap": gap_of(cost.totals.energy_pj, known[way]),
        }


def bounds(workload: Workload, machine: Accelerator, plan: Plan) -> dict[str, float]:
    """pJ that no schedule undercuts, by way: nothing stays, whole tensors may stay, groups may run depth first."""
    optimum = Optimum(Schedule(workload, machine), None)
    optimum.add((layer, found.mapping) for layer, found in plan.found.items())
    energy = Weights(0.0)
    for index in optimum.pools:
        optimum.staircase(index, NOBODY, energy).refine()
    alone = sum(optimum.lower(index, NOBODY, None, energy)[0] for index in range(len(optimum.schedule.stages)))
    return dict(zip(WAYS, (alone, optimum.bounded(energy), GroupsBound(optimum).value("energy")), strict=True))


def gap_of(energy_pj: float, bound_pj: float) -> float:
    """Share of the bound by which a plan lies above it."""
    return float(f"{max(0.0, energy_pj / bound_pj - 1):.3g}")


def bounded_rows(measured: Sequence[Row], name: str, spec: str) -> Iterator[Row]:
    """Rows that the CSV has of a pair, with their gaps."""
    mine = [row for row in measured if row["key"].rpartition("/")[0] == f"{name}/{spec}"]
    if mine:
        workload, machine = network(name), load_accelerator(spec)
        known = bounds(workload, machine, plan_network(workload, machine, effort="quick"))
        for row in mine:
            yield {**row, "gap": str(gap_of(float(row["energy_uj"]) * 1e6, known[row["way"]]))}


def figures(cost: NetworkCost) -> dict[str, object]:
    """Traffic in MB, energy in uJ, cycles."""
    totals = cost.totals
    return {
        "outermost_mb": round(totals.outermost_traffic_bits / 8e6, 3),
        "energy_uj": round(totals.energy_pj * 1e-6, 2),
        "latency_cycles": totals.latency_cycles,
    }


def table(measured: Sequence[Row]) -> list[str]:
    """A table in Markdown, one line per pair: MB, uJ and cycles of the three ways, and how many groups there are.

    Gaps are in percent, `-` where none was found."""
    lines = [
        "| network, machine | outermost MB | energy uJ | 1,000 cycles | groups | gap % | CPU s |",
        "|---|---|---|---|---|---|---|",
    ]
    for pair in dict.fromkeys((row["network"], row["machine"]) for row in measured):
        found = {row["way"]: row for row in measured if (row["network"], row["machine"]) == pair}
        ways = [found[way] for way in WAYS]
        megabytes = " / ".join(f"{float(row['outermost_mb']):,.2f}" for row in ways)
        energy = " / ".join(f"{float(row['energy_uj']):,.0f}" for row in ways)
        cycles = " / ".join(f"{int(row['latency_cycles']) / 1000:,.0f}" for row in ways)
        last = ways[-1]
        groups = f"{last['groups']} of {last['fused_layers']} stages" if last["groups"] != "0" else "none"
        gap = " / ".join(gap_percent(float(row["gap"])) if row.get("gap") else "-" for row in ways)
        lines.append(
            f"| {', '.join(pair)} | {megabytes} | {energy} | {cycles} | {groups} | {gap} | {last['cpu_seconds']} |"
        )
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure pairs and add them to the CSV."""
    parser = argparse.ArgumentParser(prog="python -m experiments.depth_first", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/depth_first.csv"), help="CSV to add to")
    parser.add_argument("--networks", nargs="+", default=NETWORKS, help="zoo names, fsrcnn, checkpoints")
    parser.add_argument("--machines", nargs="+", default=MACHINES, help="specs")
    parser.add_argument("--bounds-only", action="store_true", help="gaps of rows that the CSV has")
    options = parser.parse_args(arguments)
    for name in options.networks:
        for spec in options.machines:
            found = bounded_rows(read(options.out), name, spec) if options.bounds_only else rows(name, spec)
            append(options.out, found, key="key")
            print(f"{name} on {spec}: added to {options.out}", file=sys.stderr)
    print("\n".join(table(read(options.out))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
