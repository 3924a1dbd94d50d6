"""`python -m experiments.bops`: how well bit operations rank mixed networks by energy and by latency, per accelerator.

Random assignments of widths (those that each machine has) to ResNet-20, priced from tables that are exact for each
layer; Spearman's rank correlation of BOPs with energy and with latency, and the assignments that BOPs mislead most:
the largest share of a machine's energy range between two assignments that BOPs rank the other way round.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from experiments import table
from hwsim.command_line import load_model
from hwsim.console import wrote
from hwsim.errors import HwsimError
from hwsim.explore.bits.bill import bit_problem
from hwsim.explore.bits.choices import Freedom
from hwsim.machine.load import load_accelerator
from hwsim.report.style import PALETTE, in_style

MACHINES = ("bit_fusion", "unpu", "stripes", "eyeriss_v1", "nvdla_small", "mico_riscv")
WIDTHS = (2, 4, 8)


def free_widths(machine: Any) -> Freedom:
    """The widths that a machine has, at both kinds of operands."""
    can = machine.capabilities
    activations = tuple(w for w in WIDTHS if w in can.activation_bits and w in can.output_bits)
    return Freedom(tuple(w for w in WIDTHS if w in can.weight_bits), activations, "8bit", (), "same", tied=True)


def correlations(model: str, spec: str, count: int, seed: int = 0) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """One machine's row, and the values behind it."""
    machine = load_accelerator(spec)
    made = bit_problem(load_model(model, None, False), machine, free_widths(machine))
    picks = made.problem.random_picks(count, np.random.default_rng(seed))
    values = made.problem.evaluate(picks, ["bops", "energy_pj", "latency_cycles"])
    bops = values["bops"]
    row: dict[str, Any] = {"accelerator": spec, "network": model, "assignments": count}
    for name in ("energy_pj", "latency_cycles"):
        cost = values[name]
        spread = float(np.ptp(cost))
        row[f"rank_correlation_{name}"] = round(float(spearmanr(bops, cost)[0]), 4) if spread else ""
        row[f"range_{name}"] = round(float(cost.max() / cost.min()), 4)
        row[f"misled_{name}"] = round(misled(bops, cost) / spread, 4) if spread else ""
    return row, values


def misled(bops: np.ndarray, cost: np.ndarray) -> float:
    """The most that an assignment with fewer BOPs costs above one with more."""
    order = np.argsort(bops, kind="stable")
    ranked = cost[order]
    cheapest_later = np.minimum.accumulate(ranked[::-1])[::-1]
    return float((ranked[:-1] - cheapest_later[1:]).max())


@in_style
def draw(found: dict[str, dict[str, np.ndarray]], rows: Sequence[dict[str, Any]], target: Path) -> None:
    """Energy (top) and latency against BOPs, each as a share of its largest, one column per machine."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.3 * len(found), 4.6), layout="constrained")
    axes = figure.subplots(2, len(found), sharex=True, sharey=True, squeeze=False)
    for column, (spec, values) in enumerate(found.items()):
        for line, name in enumerate(("energy_pj", "latency_cycles")):
            place = axes[line][column]
            place.scatter(
                values["bops"] / values["bops"].max(),
                values[name] / values[name].max(),
                s=3,
                alpha=0.3,
                color=PALETTE[0],
            )
            said = rows[column][f"rank_correlation_{name}"]
            place.set_title(f"{spec if line == 0 else ''}\nrank correlation {said if said != '' else 'none: flat'}",
                            fontsize=8)  # fmt: skip
        axes[1][column].set_xlabel("BOPs / largest")
    axes[0][0].set_ylabel("energy / largest")
    axes[1][0].set_ylabel("latency / largest")
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=130)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the rows and the figure."""
    parser = argparse.ArgumentParser(prog="python -m experiments.bops", description=(__doc__ or "").split("\n\n")[1])
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--count", type=int, default=2000, help="random assignments")
    parser.add_argument("--machines", nargs="+", default=list(MACHINES))
    parser.add_argument("--out", type=Path, default=Path("results/bops.csv"))
    parser.add_argument("--figure", type=Path, default=Path("docs/figures/bops.png"))
    options = parser.parse_args(arguments)
    rows: list[dict[str, Any]] = []
    found: dict[str, dict[str, np.ndarray]] = {}
    try:
        for spec in options.machines:
            row, found[spec] = correlations(options.model, spec, options.count)
            rows.append(row)
            print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    except HwsimError as problem:
        print(problem)
        return problem.exit_code
    table.write(options.out, rows)
    draw(found, rows, options.figure)
    wrote(f"{options.out} and {options.figure}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
