"""`python -m experiments.demo --out demo_out`: the main job on a trained network and real images, nothing downloaded.

Loads the shipped SiLU network at W4A4 (LSQ+, networks/README.md says how it was trained), measures its accuracy on the
handwritten digits kept for testing beside the float network it came from, runs it with integer arithmetic alone and
compares every code, prices it with `hwsim.evaluate`, and says where it stands among the networks that were trained and
priced before (results/*/pareto.csv). Then the same for the shipped CIFAR-10 network, its report left out.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from experiments import table
from experiments.pareto_figures import label_of
from hwsim.command_line import EFFORTS
from hwsim.console import wrote
from hwsim.errors import HwsimError
from hwsim.explore.pareto import non_dominated
from hwsim.frontends.argument import load_model_argument
from hwsim.integer.proof.certificate import certify
from hwsim.machine.load import load_accelerator
from hwsim.machine.parts import Accelerator
from hwsim.report.evaluation import Request, evaluate_workload
from hwsim.report.files import write_report
from hwsim.report.report import Report
from hwsim.report.screen import render
from hwsim.search.result import Effortful
from quant import checkpoint, data
from quant.accuracy import evaluate as accuracy_of

ROOT = Path(__file__).resolve().parent.parent
NETWORKS, RESULTS = ROOT / "networks", ROOT / "results"
FLOAT, QUANTIZED = "digits_silu_float", "digits_silu_w4a4"
# Shipped quantized networks, and the profile whose points they are compared with.
SHIPPED = {QUANTIZED: "digits", "cifar10_silu_w4a4": "cpu"}


def measured_accuracy(folder: Path, data_dir: Path | None = None) -> tuple[float, int]:
    """Top-1 in percent on the test images of the data the network was trained for, and how many they are."""
    model, meta = checkpoint.load(folder)
    images = data.load(meta.data, data_dir, test_only=True)
    assert meta.normalisation is not None
    return accuracy_of(model, images.test, meta.normalisation), len(images.test)


def integer_line(folder: Path, count: int, accelerator: Accelerator) -> str:
    """Whether the integer machine computes the trained network's codes; noise stands in for images that are absent."""
    model, meta = checkpoint.load(folder)
    assert meta.normalisation is not None
    words = "images"
    try:
        inputs, _ = next(data.eval_batches(data.load(meta.data, test_only=True).test, meta.normalisation, count))
    except FileNotFoundError:
        inputs, words = (
            torch.randn(count, *meta.input_shape, generator=torch.Generator().manual_seed(0)),
            "noise images",
        )
    found = certify(model, inputs, name=meta.model, capabilities=accelerator.capabilities, machine=accelerator.name)
    compared = sum(layer.codes.elements for layer in found.layers)
    differing = sum(layer.codes.end_to_end_differing for layer in found.layers)
    return f"integer machine: {differing} of {compared:,} codes differ from the float64 network's ({count} {words})"


def pareto_lines(report: Report, network: str, percent: float, points: Path) -> list[str]:
    """The front of accuracy against energy on the report's machine: this network among `points` of its kind.

    Seeds of the older points are averaged, this network is one run: within a point of accuracy nothing is decided.
    """
    rows = [
        row
        for row in table.current(table.read(points))
        if (row["accelerator"], row["network"], row["status"]) == (report.accelerator.name, network, "ok")
        and table.usual(row)
    ]
    if not rows:
        return [f"no points of other networks on {report.accelerator.name}: python -m experiments.pareto makes them"]
    named = [(label_of(row), float(row["energy_pj"]), float(row["accuracy_percent"])) for row in rows]
    named.append(("this network", report.cost.totals.energy_pj, percent))
    front = non_dominated(np.array([point[1:] for point in named]), (False, True))
    shown = sorted((point for point, on in zip(named, front, strict=True) if on), key=lambda point: point[1])
    mine = "on it" if front[-1] else "dominated"
    return [
        f"accuracy against energy on {report.accelerator.name}, {len(named)} points; the front (this network: {mine}):",
        *(f"  {name:24} {energy * 1e-6:8.2f} µJ  {accuracy:6.2f} %" for name, energy, accuracy in shown),
        *([] if front[-1] else [f"  this network: {named[-1][1] * 1e-6:.2f} µJ, {percent:.2f} %"]),
    ]


def run(out: Path, accelerator: str, effort: Effortful = "auto") -> None:
    """Print accuracies, certificates, costs and fronts; leave report files of the digits network in `out`."""
    machine = load_accelerator(accelerator)
    percent, images = measured_accuracy(NETWORKS / FLOAT)
    print(f"{FLOAT} (float): {percent:.2f} % of {images} real test digits")
    for name, profile in SHIPPED.items():
        meta = checkpoint.load_meta(NETWORKS / name)
        percent = meta.metrics["test_accuracy_percent"]
        measured = f"{percent:.2f} % of the {meta.data} test images when it was trained"
        if profile == "digits":
            percent, images = measured_accuracy(NETWORKS / name)
            measured = f"{percent:.2f} % of {images} real test digits"
        print(f"{name} (W4A4, LSQ+): {measured}")
        print(integer_line(NETWORKS / name, 64 if profile == "digits" else 4, machine))
        report = evaluate_workload(load_model_argument(str(NETWORKS / name)), machine, Request(effort=effort))
        question = [os.path.relpath(NETWORKS / name), accelerator, *([] if effort == "auto" else ["--effort", effort])]
        report = dataclasses.replace(report, command=shlex.join(["hwsim", "evaluate", *question]))
        if profile == "digits":
            render(report)
        print("\n".join(pareto_lines(report, meta.model, percent, RESULTS / profile / "pareto.csv")))
        if profile == "digits":
            for path in write_report(report, out):
                wrote(path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0, 2 for bad input, 3 where the accelerator cannot run the network."""
    parser = argparse.ArgumentParser(prog="python -m experiments.demo", description=(__doc__ or "").split("\n\n")[-1])
    parser.add_argument("--out", type=Path, default=Path("demo_out"), help="folder of the report files (demo_out)")
    parser.add_argument("--accelerator", default="eyeriss_v1", help="YAML file or shipped spec (eyeriss_v1)")
    parser.add_argument("--effort", default="auto", choices=EFFORTS, help="of the search for mappings (auto)")
    options = parser.parse_args(arguments)
    try:
        run(options.out, options.accelerator, options.effort)
    except HwsimError as problem:
        print(f"demo: {problem}", file=sys.stderr)
        return problem.exit_code
    except (ValueError, OSError) as problem:
        print(f"demo: {problem}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
