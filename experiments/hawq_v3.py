"""`python -m experiments.hawq_v3`: HAWQ-V3's own inputs for ResNet-18, allocated exactly, next to its published points.

Loss of a layer: Hessian trace times squared perturbation of its weights at 4 or 8 bits. First convolution and last
layer stay at 8 bits. Published are size (MB of 2^20 bytes), BOPS and speed-up of nine networks, each found under one
limit at three strengths; speed-ups are turned into shares of the way from 8 to 4 bits, because the T4 times of single
layers (3.1 to 5.3 ms) do not add up to the published times of the whole network (2.2 to 3.3 ms).

Each published network meets its own three figures, so the proven least loss under all three is no more than its own.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments import table
from experiments.validation.rows import read_table
from hwsim.console import wrote
from hwsim.errors import HwsimError
from hwsim.explore.bits.allocate import Solver
from hwsim.explore.bits.problem import Choice, InfeasibleBudget, Measure, Problem, Solution, Term

FIRST_MACS_1E9, LAST_MACS_1E9 = 0.118013952, 0.000512
ENDS_PARAMETERS = 9408 + 512 * 1000 + 1000
SPEED_UP_W8, SPEED_UP_W4 = 3.00, 4.44
ROUNDING = {"size_mb": 0.05, "bops_1e9": 0.5, "time_share": 0.0}


@dataclass(frozen=True)
class Published:
    """One network of HAWQ-V3's table: ResNet-18, ImageNet."""

    scheme: str
    size_mb: float
    bops_1e9: float
    speed_up: float

    @property
    def figures(self) -> dict[str, float]:
        """As budgets: rounded figures widened by half a digit."""
        share = (1 / self.speed_up - 1 / SPEED_UP_W4) / (1 / SPEED_UP_W8 - 1 / SPEED_UP_W4)
        slowest = (1 / (self.speed_up - 0.005) - 1 / SPEED_UP_W4) / (1 / SPEED_UP_W8 - 1 / SPEED_UP_W4)
        found = {"size_mb": self.size_mb, "bops_1e9": self.bops_1e9, "time_share": max(share, slowest)}
        return {name: value + ROUNDING[name] for name, value in found.items()}


PUBLISHED = (
    Published("size-high", 9.9, 103, 3.09),
    Published("size-medium", 7.9, 98, 3.18),
    Published("size-low", 7.3, 95, 3.24),
    Published("bops-high", 8.7, 92, 3.36),
    Published("bops-medium", 6.7, 72, 3.63),
    Published("bops-low", 6.1, 54, 4.05),
    Published("latency-high", 8.7, 92, 3.36),
    Published("latency-medium", 7.2, 76, 3.57),
    Published("latency-low", 6.1, 54, 4.05),
)
LIMITED = {"size": "size_mb", "bops": "bops_1e9", "latency": "time_share"}


def problem() -> Problem:
    """19 layers at 4 or 8 bits (weights and activations alike, as on a T4)."""
    rows = read_table("hawqv3_t4_resnet18_latency.csv")

    def column(name: str) -> list[float]:
        return [float(row[name]) for row in rows]

    def measure(name: str, at4: Sequence[float], at8: Sequence[float], constant: float = 0.0) -> Measure:
        terms = [Term((i,), np.array(pair)) for i, pair in enumerate(zip(at4, at8, strict=True))]
        return Measure(name, ((*terms, Term((), np.array(constant))),))

    trace, parameters, macs = column("hessian_trace_per_param"), column("params"), column("macs_1e6")
    losses = [[t * d for t, d in zip(trace, column(f"dw2_int{bits}"), strict=True)] for bits in (4, 8)]
    times = [column(f"t4_latency_int{bits}_ms_batch8") for bits in (4, 8)]
    fastest, span = sum(times[0]), sum(times[1]) - sum(times[0])
    shares = [[t / span for t in side] for side in times]
    return Problem(
        tuple(Choice(f"layer {row['layer_idx']}", (4, 8)) for row in rows),
        (
            measure("loss", losses[0], losses[1]),
            measure("size_mb", [p * 4 / 8 / 2**20 for p in parameters], [p / 2**20 for p in parameters],
                    ENDS_PARAMETERS / 2**20),
            measure("bops_1e9", [m * 16 / 1e3 for m in macs], [m * 64 / 1e3 for m in macs],
                    64 * (FIRST_MACS_1E9 + LAST_MACS_1E9)),
            measure("time_share", shares[0], shares[1], -fastest / span),
        ),
    )  # fmt: skip


def speed_up(time_share: float) -> float:
    """A share of the way from 4 bits (0) to 8 bits (1) as a published speed-up."""
    return 1 / (1 / SPEED_UP_W4 + time_share * (1 / SPEED_UP_W8 - 1 / SPEED_UP_W4))


def rows() -> list[dict[str, object]]:
    """Per published network: the least loss under its limited figure alone, and under all three of its figures."""
    solver, found = Solver(problem()), []
    for published in PUBLISHED:
        figures = published.figures
        limited = LIMITED[published.scheme.partition("-")[0]]
        for budgets in ({limited: figures[limited]}, figures):
            try:
                solution, feasible = solver.best("loss", budgets), True
            except InfeasibleBudget as missed:
                if missed.closest is None:
                    raise
                solution, feasible = missed.closest, False
            found.append(row(published, " ".join(budgets), solution, feasible, solver.problem))
    return found


def row(published: Published, under: str, solution: Solution, feasible: bool, problem: Problem) -> dict[str, object]:
    """Published figures and ours side by side."""
    values = solution.values
    return {
        "scheme": published.scheme,
        "budgets": under,
        "feasible": feasible,
        "published_size_mb": published.size_mb,
        "size_mb": round(values["size_mb"], 3),
        "published_bops_1e9": published.bops_1e9,
        "bops_1e9": round(values["bops_1e9"], 2),
        "published_speed_up": published.speed_up,
        "speed_up": round(speed_up(values["time_share"]), 3),
        "loss": round(values["loss"], 5),
        "bits": "".join(str(width) for width in problem.widths(solution.picks)),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the comparison and write it as CSV."""
    parser = argparse.ArgumentParser(prog="python -m experiments.hawq_v3", description=(__doc__ or "").split("\n\n")[1])
    parser.add_argument("--out", type=Path, default=Path("results/hawq_v3.csv"))
    options = parser.parse_args(arguments)
    try:
        found = rows()
    except HwsimError as problem:
        print(problem)
        return problem.exit_code
    table.write(options.out, found)
    for entry in found:
        print("  ".join(f"{key} {value}" for key, value in entry.items()))
    wrote(options.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
