"""`python -m experiments.efforts`: quick, default and proven plans of networks side by side, by objective.

No effort's answer may be worse than a cheaper one's. Each effort searches from nothing, at W8A8; `proven` spends at
most `--seconds` per search. Adds rows to a CSV and prints a table; exits with 1 where an effort is worse than a cheaper
one.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from experiments.table import Row, append, read
from hwsim.command_line import load_model
from hwsim.machine.load import load_accelerator
from hwsim.network.bits import assign_bits
from hwsim.network.workload import Workload
from hwsim.search.network import Plan, plan_network
from hwsim.search.objective import OBJECTIVES, Objective
from hwsim.search.result import Effortful

PAIRS = (
    ("resnet8", "gemmini_16x16"),
    ("resnet8", "eyeriss_v1"),
    ("mobilenet_v2", "ethos_u55_256"),
    ("ds_cnn", "gemmini_16x16"),
    ("ds_cnn", "eyeriss_v2"),
    ("networks/cifar10_silu_float", "eyeriss_v1"),
    ("resnet18", "simba"),
    ("mobilenet_v2", "simba"),
)
EFFORTS: tuple[tuple[str, Effortful], ...] = (("quick", "quick"), ("default", "auto"), ("proven", "proven"))


def network(name: str) -> Workload:
    """A network, at W8A8 where it brings no widths."""
    found = load_model(name, None, False)
    return found if found.quantized else assign_bits(found, "W8A8")


def rows(name: str, spec: str, seconds: float, objectives: Sequence[Objective]) -> Iterator[dict[str, object]]:
    """One row per objective: the value of every effort (pJ, cycles, pJ*cycles), its gap and CPU seconds."""
    workload, machine = network(name), load_accelerator(spec)
    for objective in objectives:
        row: dict[str, object] = {
            "key": f"{workload.name}/{spec}/{objective}", "network": workload.name, "machine": spec,
            "objective": objective,
        }  # fmt: skip
        for title, effort in EFFORTS:
            began, limit = time.process_time(), seconds if effort == "proven" else None
            plan = plan_network(workload, machine, objective, effort=effort, time_limit_s=limit)
            row |= {f"{title}_{key}": value for key, value in figures(plan, objective).items()}
            row[f"{title}_cpu_s"] = round(time.process_time() - began, 1)
        yield row


def figures(plan: Plan, objective: Objective) -> dict[str, object]:
    """Value, and how far no other plan can lie below it; the gap is empty without a certificate of the network."""
    gap = "" if plan.certificate is None else float(f"{plan.certificate.gap:.3g}")
    return {"value": plan.value(objective), "gap": gap}


def worse(row: Row) -> list[str]:
    """Which effort gives more than a cheaper one."""
    values = {title: float(row[f"{title}_value"]) for title, _ in EFFORTS}
    titles = list(values)
    return [
        f"{row['key']}: {dear} {values[dear]:,.6g} > {cheap} {values[cheap]:,.6g}"
        for i, cheap in enumerate(titles)
        for dear in titles[i + 1 :]
        if values[dear] > values[cheap] and not math.isclose(values[dear], values[cheap], rel_tol=1e-12)
    ]


def table(measured: Sequence[Row]) -> list[str]:
    """A table in Markdown: what default and proven gain over quick, the gap left, CPU seconds."""
    lines = [
        "| network, machine, objective | quick | default | proven | gap of default; proven | CPU s |",
        "|---|---|---|---|---|---|",
    ]
    for row in measured:
        quick, *others = (float(row[f"{title}_value"]) for title, _ in EFFORTS)
        gains = " | ".join(f"{100 * (value / quick - 1):+.2f} %" for value in others)
        gaps = "; ".join(row[f"{title}_gap"] or "-" for title in ("default", "proven"))
        seconds = " / ".join(row[f"{title}_cpu_s"] for title, _ in EFFORTS)
        name = f"{row['network']}, {row['machine']}, {row['objective']}"
        lines.append(f"| {name} | {quick:.5g} | {gains} | {gaps} | {seconds} |")
    return lines


def pair(text: str) -> tuple[str, str]:
    """A network and a machine of a command line."""
    name, comma, spec = text.rpartition(",")
    if not (comma and name and spec):
        raise argparse.ArgumentTypeError(f"expected MODEL,ACCEL such as resnet8,eyeriss_v1, found {text!r}")
    return name, spec


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure pairs and add them to the CSV; 1 where an effort is worse than a cheaper one."""
    parser = argparse.ArgumentParser(prog="python -m experiments.efforts", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/efforts.csv"), help="CSV to add to")
    parser.add_argument(
        "--pairs", nargs="*", type=pair, metavar="MODEL,ACCEL", help="default: eight pairs; none: only check"
    )
    parser.add_argument("--objectives", nargs="+", choices=OBJECTIVES, default=OBJECTIVES)
    parser.add_argument("--seconds", type=float, default=2.0, help="per search of `proven`")
    options = parser.parse_args(arguments)
    pairs = PAIRS if options.pairs is None else options.pairs
    for name, spec in pairs:
        for row in rows(name, spec, options.seconds, options.objectives):
            append(options.out, [row], key="key")
            print(f"{row['key']}: added to {options.out}", file=sys.stderr)
    measured = read(options.out)
    print("\n".join(table(measured)))
    problems = [line for row in measured for line in worse(row)]
    print("\n".join(problems) or f"{len(measured)} rows: no effort is worse than a cheaper one")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
