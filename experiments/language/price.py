"""`python -m experiments.language.price`: what each arm of the study stores and costs on four machines.

The workload is the quantized network itself, on a batch of texts. A row has the average bits of weights and of what
the MACs read of activations, scales and offsets counted, and energy and latency of a machine by the quick search, or
the reason why the machine refuses the format. Trained values change nothing here, so none are needed.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import quant
from experiments import table
from experiments.language.arms import ARMS, Arm, quantized
from experiments.language.network import language_model
from experiments.language.train import LENGTH, tokens
from hwsim.errors import CapabilityError, exit_code_of
from hwsim.frontends.torch_export import extract
from hwsim.machine.load import load_accelerator
from hwsim.network.layer import Tensor
from hwsim.network.workload import Workload
from hwsim.report.evaluation import Request, evaluate_workload

TABLE = Path("results/language/costs.csv")
MACHINES = ("a100", "b200", "block_array", "bit_fusion")
TEXTS, STEP_BITS = 64, 32


def workload_of(arm: Arm) -> Workload:
    """The arm's network on a batch of texts, with the bits and formats of its quantizers."""
    texts = tokens(TEXTS, 0)[:, :-1]
    rule = arm.rules[0]
    model, _ = quantized(language_model(), arm, rule, texts[:2])
    quant.initialise(model, [texts[:2]])
    return extract(model, texts, name=arm.name)


def average_bits(workload: Workload) -> tuple[float, float]:
    """(weights, activations): stored bits of one value of what the MACs multiply, scales and offsets included."""
    weights: dict[str, Tensor] = {}
    activations: dict[str, Tensor] = {}
    for layer in workload:
        for tensor in layer.multiplied:
            (weights if tensor.origin == "weight" else activations)[tensor.name] = tensor
    return bits_per_value(weights.values()), bits_per_value(activations.values())


def bits_per_value(tensors: Iterable[Tensor]) -> float:
    """Mean over all values of these tensors; a learned step without a format is a 32-bit float, too."""
    found = list(tensors)
    steps = sum(STEP_BITS * t.scales for t in found if t.format is None)
    return (sum(t.size_bits for t in found) + steps) / sum(t.elements for t in found)


def rows(arm: Arm) -> Iterator[dict[str, Any]]:
    """One row per machine."""
    workload = workload_of(arm)
    weight, activation = average_bits(workload)
    shared = {"arm": arm.name, "weight_bits": weight, "activation_bits": activation, "tokens": TEXTS * LENGTH}
    for name in MACHINES:
        row: dict[str, Any] = {"key": f"{arm.name} {name}", **shared, "machine": name}
        try:
            totals = evaluate_workload(workload, load_accelerator(name), Request(effort="quick")).cost.totals
            row |= {"energy_uj": totals.energy_pj / 1e6, "latency_us": totals.latency_s * 1e6, "refused": ""}
        except CapabilityError as problem:
            row |= {"energy_uj": None, "latency_us": None, "refused": str(problem).splitlines()[0]}
        yield row


def run(given: argparse.Namespace) -> None:
    """Write the rows of all arms, or of those that are asked for."""
    for arm in ARMS:
        if arm.settings and (not given.only or arm.name in given.only):
            for row in rows(arm):
                table.append(given.out, [row], key="key")
                found = row["refused"] or f"{row['energy_uj']:.4g} uJ, {row['latency_us']:.4g} us"
                print(f"{row['key']}: {row['weight_bits']:.3f}/{row['activation_bits']:.3f} bits, {found}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiments.language.price", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="ARM", choices=[arm.name for arm in ARMS], help="these arms alone")
    parser.add_argument("--out", type=Path, default=TABLE, help=f"CSV of the costs ({TABLE})")
    return exit_code_of(lambda: run(parser.parse_args(arguments)), ValueError)


if __name__ == "__main__":
    raise SystemExit(main())
