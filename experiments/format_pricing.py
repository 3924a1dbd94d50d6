"""What each arm of a study of formats stores and costs on four machines.

The workload is the quantized network itself, on a batch. A row has the average bits of weights and of what the MACs
read of activations, scales and offsets counted, and energy and latency of a machine by the quick search, or the reason
why the machine refuses the format. Trained values change nothing here, so none are needed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments import table
from experiments.language.arms import Arm
from hwsim.errors import CapabilityError, exit_code_of
from hwsim.machine.load import load_accelerator
from hwsim.network.layer import Tensor
from hwsim.network.workload import Workload
from hwsim.report.evaluation import Request, evaluate_workload

MACHINES = ("a100", "b200", "block_array", "bit_fusion")
STEP_BITS = 32


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


def rows(name: str, workload: Workload, shared: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """One row per machine; `shared` are columns of the study's own."""
    weight, activation = average_bits(workload)
    for machine in MACHINES:
        row: dict[str, Any] = {"key": f"{name} {machine}", "arm": name, "weight_bits": weight,
                               "activation_bits": activation, **shared, "machine": machine}  # fmt: skip
        try:
            totals = evaluate_workload(workload, load_accelerator(machine), Request(effort="quick")).cost.totals
            row |= {"energy_uj": totals.energy_pj / 1e6, "latency_us": totals.latency_s * 1e6, "refused": ""}
        except CapabilityError as problem:
            row |= {"energy_uj": None, "latency_us": None, "refused": str(problem).splitlines()[0]}
        yield row


def command(
    name: str, about: str | None, out: Path, arms: Sequence[Arm], workload_of: Callable[[Arm], Workload],
    shared: Mapping[str, Any], arguments: Sequence[str] | None,
) -> int:  # fmt: skip
    """`python -m NAME`: write the rows of all arms, or of those that are asked for; the exit code."""
    parser = argparse.ArgumentParser(prog=f"python -m {name}", description=about)
    parser.add_argument("--only", nargs="+", metavar="ARM", choices=[arm.name for arm in arms], help="these arms alone")
    parser.add_argument("--out", type=Path, default=out, help=f"CSV of the costs ({out})")

    def run() -> None:
        given = parser.parse_args(arguments)
        for arm in arms:
            if arm.settings and (not given.only or arm.name in given.only):
                for row in rows(arm.name, workload_of(arm), shared):
                    table.append(given.out, [row], key="key")
                    found = row["refused"] or f"{row['energy_uj']:.4g} uJ, {row['latency_us']:.4g} us"
                    bits = f"{row['weight_bits']:.3f}/{row['activation_bits']:.3f} bits"
                    print(f"{row['key']}: {bits}, {found}", flush=True)

    return exit_code_of(run, ValueError)
