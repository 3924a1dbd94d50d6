"""One cold `evaluate` that writes the seconds of its parts: `python -m benchmarks.cold_run MODEL ACCEL OUT.json`.

Imports stand where the command would load them, so that each part carries its own.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from pathlib import Path


def main(source: str, spec: str, out: str) -> None:
    """Read, assign bits, search, price, report; the parts go to `out`."""
    marks = [("start", time.perf_counter())]

    def mark(name: str) -> None:
        marks.append((name, time.perf_counter()))

    from hwsim.command_line import load_machine, load_model
    from hwsim.network.bits import assign_bits
    from hwsim.report.report import Report
    from hwsim.report.screen import render
    from hwsim.search.network import plan_network

    mark("import hwsim")
    accelerator = load_machine(spec)
    mark("read spec")
    if not source.endswith(".json"):
        import hwsim.frontends.argument  # noqa: F401

        mark("import torch")
    workload = load_model(source, None, False)
    mark("read workload" if source.endswith(".json") else "extract")
    workload = assign_bits(workload, "W8A8")
    mark("assign bits")
    plan = plan_network(workload, accelerator, "energy")
    mark("search and price")
    report = Report(workload, accelerator, plan.cost, plan.found, "energy")
    render(report)
    report.to_json()
    mark("report")
    Path(out).write_text(json.dumps({name: now - before for (_, before), (name, now) in itertools.pairwise(marks)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
