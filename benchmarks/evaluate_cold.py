"""Cold `evaluate` of a network, from a saved workload (no torch) and from the model, with its parts.

Each run is a fresh process with an empty cache; the parts are timed inside it, the total outside it (so the
interpreter's start is in the total). Printed: medians over the runs in seconds, and the ratio model / workload.

    python -m benchmarks.evaluate_cold [--model resnet18] [--spec eyeriss_v1] [--runs 5]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def one_run(source: str, spec: str) -> dict[str, float]:
    """Seconds of each part of one cold run, with its total wall and CPU time."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "parts.json"
        environment = {**os.environ, "HWSIM_CACHE": folder, "OMP_NUM_THREADS": "1"}
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "benchmarks.cold_run", source, spec, str(out)],
            check=True,
            env=environment,
            stdout=subprocess.DEVNULL,
        )
        wall = time.perf_counter() - start
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        parts = json.loads(out.read_text())
    parts["total wall"] = wall
    parts["total CPU"] = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return parts


def main() -> None:
    """Print the two tables."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--model", default="resnet18")
    parse.add_argument("--spec", default="eyeriss_v1")
    parse.add_argument("--runs", type=int, default=5)
    options = parse.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        saved = str(Path(folder) / f"{options.model}.json")
        subprocess.run(
            [sys.executable, "-m", "hwsim.evaluate", options.model, options.spec, "--save-workload", saved],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        totals = {}
        for title, source in (("saved workload, no torch", saved), ("model, with torch", options.model)):
            runs = [one_run(source, options.spec) for _ in range(options.runs)]
            print(f"{options.model} on {options.spec}, {title}: median of {options.runs} cold runs, seconds")
            for part in runs[0]:
                print(f"  {part:17} {statistics.median(run[part] for run in runs):7.3f}")
            totals[title] = statistics.median(run["total CPU"] for run in runs)
        first, second = totals.values()
        print(f"model / workload, CPU: {second / first:.1f}x")


if __name__ == "__main__":
    main()
