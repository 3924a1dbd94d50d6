"""CPU time of a network's plan with its certificate, beside another checkout of hwsim, in turns in one run.

Every run is a process of its own, without a cache, from a saved workload. A row: network, machine, widths, which
checkout, CPU seconds, value (pJ), gap, layers searched.

    python -m benchmarks.network_speed WORKLOAD.json [...] --spec eyeriss_v1 --bits W4A4 --before ../other [--out x.csv]
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
from pathlib import Path

PLAN = """
import json, sys, time
from hwsim.command_line import load_machine, load_model
from hwsim.network.bits import assign_bits
from hwsim.search.network import plan_network
workload, machine = assign_bits(load_model(sys.argv[1], None, False), sys.argv[3]), load_machine(sys.argv[2])
began = time.process_time()
known = plan_network(workload, machine, "energy", effort="auto").certificate
print(json.dumps([round(time.process_time() - began, 1), known.value, known.gap, known.searches]))
"""
COLUMNS = ("network", "machine", "bits", "checkout", "cpu_seconds", "value_pj", "gap", "searches")


def planned(folder: Path, workload: Path, spec: str, bits: str) -> list[float]:
    """CPU seconds, value, gap and searches of one plan by the code of a checkout."""
    environment = {**os.environ, "HWSIM_CACHE": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder)}
    command = [sys.executable, "-c", PLAN, str(workload.resolve()), spec, bits]
    done = subprocess.run(command, check=True, cwd=folder, env=environment, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Print the rows, and write them where asked."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("workloads", nargs="+", type=Path)
    parse.add_argument("--spec", default="eyeriss_v1")
    parse.add_argument("--bits", default="W4A4")
    parse.add_argument("--before", type=Path, required=True, help="the other checkout")
    parse.add_argument("--out", type=Path, help="CSV file, appended to")
    options = parse.parse_args()
    rows: list[list[object]] = []
    for workload in options.workloads:
        for name, folder in (("before", options.before.resolve()), ("now", Path.cwd())):
            found = planned(folder, workload, options.spec, options.bits)
            rows.append([workload.stem, options.spec, options.bits, name, *found])
            print(*rows[-1], flush=True)
    if options.out is not None:
        new = not options.out.exists()
        with options.out.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([*([COLUMNS] if new else []), *rows])


if __name__ == "__main__":
    main()
