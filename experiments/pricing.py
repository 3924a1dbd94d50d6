"""What each trained configuration costs on each accelerator: runs.csv -> pareto.csv, one row per point.

A point is a network at given bits, configuration and padding policy on one machine: mean accuracy over the seeds with
its 95 % interval, and the totals of `hwsim.evaluate`. What a machine refuses is a row too, with the reason.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from experiments import table
from experiments.jobs import Job
from experiments.table import Interval, Row
from hwsim.errors import CapabilityError, HwsimError
from hwsim.frontends.torch_export import extract
from hwsim.machine.load import load_accelerator
from hwsim.machine.parts import Accelerator
from hwsim.network.workload import Workload
from hwsim.report.evaluation import Request, evaluate_workload
from hwsim.report.report import Report
from quant import models
from quant.convert import quantize
from quant.provenance import provenance

# What decides a point's cost, and with what only training knows, its accuracy.
SAME_PRICE = (
    "network", "arguments", "data", "limit", "float_epochs", "epochs", "batch_size", "bits", "config",
    "padding_policy", "init", "offset_mode", "method", "first_last", "learning_rate", "weight_decay", "distill",
    "gradient_scale",
)  # fmt: skip
SAME_POINT = (*SAME_PRICE, "change_limit", "norm_batches", "weight_learning_rate")
COSTS = ("energy_pj", "latency_s", "weight_bits", "peak_activation_bits")


def job_of(row: Row) -> Job:
    """The job behind a row of runs.csv."""
    return Job(
        row["network"], tuple(sorted(json.loads(row["arguments"]).items())), row["data"], bits=row["bits"],
        config=row["config"], padding_policy=row["padding_policy"], init=row["init"],
        offset_mode=row["offset_mode"], method=row["method"], first_last=row["first_last"],
    )  # fmt: skip


def workload_of(job: Job) -> Workload:
    """Layers and bits of a job's network; costs depend on neither its weights nor its seed."""
    arguments = dict(job.arguments)
    entry = models.info(job.network)
    model = models.create(job.network, **arguments)
    quantized, _ = quantize(model, **(job.quantization() or {}))
    shape = (1, *entry.input_shape_for(**arguments))
    return extract(quantized, torch.zeros(shape), name=f"{job.network} {job.bits} config {job.config}")


def bits_per_layer(workload: Workload) -> dict[str, str]:
    """'4/8' (weight/input) of every layer with MACs."""
    return {
        layer.name: f"{layer.weight.bits if layer.weight else '-'}/{layer.inputs[0].bits}"
        for layer in workload
        if layer.has_macs
    }  # fmt: skip


def cost_cells(report: Report) -> dict[str, Any]:
    """A report's totals as cells, the ends that estimates leave open, its worst proven gap and classes of offsets."""
    totals, energy, time = report.cost.totals, report.cost.energy_interval, report.cost.latency_interval
    classes: dict[str, int] = {}
    for cost in report.cost.layers:
        classes[cost.offset.kind] = classes.get(cost.offset.kind, 0) + 1
    components = {name: round(energy, 1) for name, energy in report.cost.energy_pj_by_component}
    return {
        "status": "ok",
        "energy_pj": totals.energy_pj,
        "energy_low_pj": energy.low_pj,
        "energy_high_pj": energy.high_pj,
        "latency_s": totals.latency_s,
        "latency_low_s": time.low_s,
        "latency_high_s": time.high_s,
        "latency_cycles": totals.latency_cycles,
        "weight_bits": totals.weight_bits,
        "peak_activation_bits": totals.peak_activation_bits,
        "edp_pj_s": totals.edp_pj_s,
        "bops": totals.bops,
        "average_weight_bits": totals.average_weight_bits,
        "average_activation_bits": totals.average_activation_bits,
        "area_mm2": totals.area_mm2,
        "offset_energy_pj": components.get("offset", 0.0),
        "offset_classes": json.dumps(classes),
        "energy_pj_by_component": json.dumps(components),
        "mapping_gap_max": max((found.certificate.gap for found in report.found.values()), default=0.0),
        "warnings": len(report.warnings),
    }


def price_point(workload: Workload, accelerator: Accelerator) -> dict[str, Any]:
    """Cost cells of a workload on a machine by the quick search, or why the machine refuses it.

    A plot has hundreds of points; proofs of each would take hours. `mapping_gap_max` says how far they may be off.
    """
    began = time.perf_counter()
    try:
        cells = cost_cells(evaluate_workload(workload, accelerator, Request(effort="quick")))
    except HwsimError as problem:
        status = "refused" if isinstance(problem, CapabilityError) else "infeasible"
        cells = {"status": status, "reason": " ".join(str(problem).split())}
    return {**cells, "pricing_s": round(time.perf_counter() - began, 2)}


def accuracy_cells(rows: Sequence[Row]) -> dict[str, Any]:
    """Test accuracy over the seeds: mean, half-width of the 95 % interval, seeds; runs that diverged are counted."""
    finished = [row for row in rows if row["diverged"] != "True"]
    cells: dict[str, Any] = {"seeds": len(finished), "diverged_runs": len(rows) - len(finished)}
    if finished:
        interval = Interval.of([float(row["test_accuracy_percent"]) for row in finished])
        cells |= {"accuracy_percent": interval.mean, "accuracy_half_width": interval.half_width}
    return cells


def float_accuracies(rows: Sequence[Row]) -> dict[tuple[str, str], float]:
    """Mean test accuracy of the float networks by (network, data)."""
    floats = [row for row in rows if row["bits"] == "float" and row["diverged"] != "True"]
    return {
        (network, data): Interval.of([float(row["test_accuracy_percent"]) for row in members]).mean
        for (network, data), members in table.group(floats, "network", "data").items()
    }


def refresh_accuracies(runs: Path, target: Path) -> list[dict[str, Any]]:
    """The points of `target` with the accuracies of `runs` as they are now. ValueError for a point without a price."""
    everything = table.current(table.read(runs))
    points = table.group([row for row in everything if row["bits"] != "float" and table.usual(row)], *SAME_POINT)
    old = table.group(table.read(target), *SAME_PRICE, "accelerator")
    priced = table.group([members[0] for members in old.values()], *SAME_PRICE)
    missing = [values for values in points if values[: len(SAME_PRICE)] not in priced]
    if missing:
        raise ValueError(
            f"{target}: has no price of {' '.join(missing[0][7:10])} and {len(missing) - 1} more: price anew"
        )
    baselines = float_accuracies(everything)
    rows: list[dict[str, Any]] = [
        {
            **row,
            **dict(zip(SAME_POINT, values, strict=True)),
            **accuracy_cells(members),
            "float_accuracy_percent": baselines.get((members[0]["network"], members[0]["data"])),
            "train_command": members[0]["command"],
        }
        for values, members in points.items()
        for row in priced[values[: len(SAME_PRICE)]]
    ]
    table.write(target, rows)
    return rows


@dataclass(frozen=True)
class Priced:
    """A job's bits per layer, and its cost cells on every machine."""

    bits: dict[str, str]
    cells: list[dict[str, Any]]


def as_priced(job: Job) -> Job:
    """A job without what costs nothing: jobs of equal result have equal prices."""
    return Job(
        job.network, job.arguments, job.data, bits=job.bits, config=job.config, padding_policy=job.padding_policy,
        first_last=job.first_last, method=job.method,
    )  # fmt: skip


def price_job(job: Job, accelerators: Sequence[str]) -> Priced:
    """Extract a job's network and price it on every machine (names or files)."""
    workload = workload_of(job)
    return Priced(bits_per_layer(workload), [price_point(workload, load_accelerator(name)) for name in accelerators])


def stand_back() -> None:
    """A pricing process leaves the processor to training, and Ctrl-C to the process that asked."""
    os.nice(10)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)


class Prices:
    """Prices of jobs on machines, each found once; by `workers` other processes, which work while this one trains.

    `ask` starts, `of` waits. Without workers `of` does the work itself.
    """

    def __init__(self, accelerators: Sequence[str], workers: int) -> None:
        self.accelerators, self.found = tuple(accelerators), dict[Job, Future[Priced]]()
        # spawn: forking a process that has torch's threads is not safe.
        context = multiprocessing.get_context("spawn")
        self.pool = ProcessPoolExecutor(workers, context, initializer=stand_back) if workers else None

    def __enter__(self) -> Prices:
        return self

    def __exit__(self, *problem: object) -> None:
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)

    def ask(self, jobs: Iterable[Job]) -> None:
        """Start pricing these jobs, float ones excepted."""
        for job in dict.fromkeys(as_priced(job) for job in jobs if not job.is_float):
            if self.pool is not None and job not in self.found:
                self.found[job] = self.pool.submit(price_job, job, self.accelerators)

    def of(self, job: Job) -> Priced:
        """A job's prices."""
        job = as_priced(job)
        if job not in self.found:
            self.found[job] = Future()
            self.found[job].set_result(price_job(job, self.accelerators))
        return self.found[job].result()


def price_runs(
    runs: Path,
    target: Path,
    command: str,
    prices: Prices,
    report: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """Price every configuration in `runs` on every machine of `prices` and write `target`.

    Runs that differ in what costs nothing (initialisation, how the offset is trained) are left out.
    """
    everything = table.current(table.read(runs))
    points = table.group([row for row in everything if row["bits"] != "float" and table.usual(row)], *SAME_POINT)
    machines = [load_accelerator(name).name for name in prices.accelerators]
    jobs = {values: job_of(members[0]) for values, members in points.items()}
    prices.ask(jobs.values())
    report(f"pricing {len(set(map(as_priced, jobs.values())))} networks on {len(machines)} machines")
    baselines, origin = float_accuracies(everything), provenance("cpu")
    rows: list[dict[str, Any]] = []
    for values, members in points.items():
        job = jobs[values]
        priced = prices.of(job)
        rows += [
            {
                **dict(zip(SAME_POINT, values, strict=True)),
                "accelerator": machine,
                **accuracy_cells(members),
                "float_accuracy_percent": baselines.get((job.network, job.data)),
                **cells,
                "bits_per_layer": json.dumps(priced.bits),
                "commit": origin["commit"],
                "date": origin["date"],
                "price_command": command,
                "train_command": members[0]["command"],
            }
            for machine, cells in zip(machines, priced.cells, strict=True)
        ]
    table.write(target, rows)
    return rows
