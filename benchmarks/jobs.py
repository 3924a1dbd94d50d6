"""`evaluate` on one thread and on several, in turns: time by the clock, CPU time, and that both say the same.

    python -m benchmarks.jobs [--models resnet18 mobilenet_v2] [--specs eyeriss_v1 simba] [--jobs 2] [--rounds 3]

Each run is a fresh process with an empty cache. Printed: medians over the rounds and the ratio of the clocks. On cores
that others use as well, more threads get a larger share of them: then the CPU time says more. Exit code 1 where reports
differ.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

MODELS = ("resnet18", "mobilenet_v2", "efficientnet_b0", "vit_b_16")
SPECS = ("eyeriss_v1", "simba", "ethos_u55_256", "a100")


@dataclass(frozen=True)
class Run:
    """Seconds by the clock and of all cores, megabytes at most, and the report as printed."""

    wall: float
    cpu: float
    megabytes: float
    report: str


def run(model: str, spec: str, jobs: int) -> Run:
    """One cold run."""
    command = [sys.executable, "-m", "hwsim.evaluate", model, spec, "--json", "--jobs", str(jobs)]
    environment = {**os.environ, "HWSIM_CACHE": "", "OMP_NUM_THREADS": "1"}
    began = time.perf_counter()
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        report = child.stdout.read()
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {child.returncode}")
    said = [line for line in report.splitlines() if not line.lstrip().startswith(('"command"', '"seal"'))]
    return Run(time.perf_counter() - began, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, "\n".join(said))


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 1 where reports differ."""
    parse = argparse.ArgumentParser(prog="python -m benchmarks.jobs", description=__doc__)
    parse.add_argument("--models", nargs="+", default=MODELS)
    parse.add_argument("--specs", nargs="+", default=SPECS)
    parse.add_argument("--jobs", type=int, default=2, metavar="N", help="threads beside one (2)")
    parse.add_argument("--rounds", type=int, default=3)
    options = parse.parse_args(arguments)
    counts, different = (1, options.jobs), 0
    for spec in options.specs:
        for model in options.models:
            runs: dict[int, list[Run]] = {jobs: [] for jobs in counts}
            for _ in range(options.rounds):
                for jobs in counts:
                    runs[jobs].append(run(model, spec, jobs))
            wall, cpu, memory = (
                [statistics.median(getattr(each, what) for each in runs[jobs]) for jobs in counts]
                for what in ("wall", "cpu", "megabytes")
            )
            same = len({each.report for some in runs.values() for each in some}) == 1
            different += not same
            print(
                f"{model} on {spec}: clock {wall[0]:.1f} -> {wall[1]:.1f} s, {wall[0] / wall[1]:.2f}x; "
                f"CPU {cpu[0]:.1f} -> {cpu[1]:.1f} s; {memory[0]:.0f} -> {memory[1]:.0f} MB; "
                f"reports {'equal' if same else 'DIFFERENT'}",
                flush=True,
            )
    return min(1, different)


if __name__ == "__main__":
    sys.exit(main())
