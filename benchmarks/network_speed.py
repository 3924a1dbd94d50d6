"""CPU time of a network's plan with its certificate, beside another checkout of hwsim, in turns in one run.

Every run is a process of its own, without a cache, from a saved workload. A row: network, machine, widths, which
checkout, what was timed, CPU seconds, value (pJ), gap, layers searched. `--whole` times the command `evaluate` from its
start to its end instead of the plan alone; the older checkout has no network's certificate, so gap and searches are
empty there. Each checkout has its own spec of the name. The older one has to read the workloads, so save them with it.

    python -m benchmarks.network_speed WORKLOAD.json [...] --specs eyeriss_v1 --bits W4A4 --before ../other
    python -m benchmarks.network_speed WORKLOAD.json [...] --specs simba a100 --before ../other --whole --out x.csv
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Sequence
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
COLUMNS = ("network", "machine", "bits", "checkout", "timed", "cpu_seconds", "value_pj", "gap", "searches")


def answer(folder: Path, command: Sequence[str]) -> str:
    """What a command prints in a checkout, without a cache and on one core."""
    environment = {**os.environ, "HWSIM_CACHE": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder)}
    command = [sys.executable, *command]
    return subprocess.run(command, check=True, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True).stdout


def planned(folder: Path, workload: Path, spec: str, bits: str) -> list[object]:
    """CPU seconds, value, gap and searches of one plan by the code of a checkout."""
    return json.loads(answer(folder, ["-c", PLAN, str(workload.resolve()), spec, bits]).splitlines()[-1])


def evaluated(folder: Path, workload: Path, spec: str, bits: str) -> list[object]:
    """The same of the whole command, with everything it starts."""
    began = processor_seconds()
    command = ["-m", "hwsim.evaluate", str(workload.resolve()), spec, "--bits", bits, "--json"]
    report = json.loads(answer(folder, command))
    known = report.get("certificate", {})
    spent = round(processor_seconds() - began, 1)
    return [spent, report["totals"]["energy_pj"], known.get("gap", ""), known.get("searches", "")]


def table(rows: Sequence[dict[str, str]]) -> list[str]:
    """Lines of the table in docs/search_results.md: CPU seconds of the whole command, before / now, and their ratio."""
    whole = [row for row in rows if row["timed"] == "evaluate"]
    spent = {(row["machine"], row["network"], row["checkout"]): float(row["cpu_seconds"]) for row in whole}
    machines, networks = (list(dict.fromkeys(key[place] for key in spent)) for place in (0, 1))
    lines = [f"| `evaluate`, CPU s, before / now | {' | '.join(networks)} |", "|---" * (len(networks) + 1) + "|"]
    for machine in machines:
        pairs = [[spent[machine, network, when] for when in ("before", "now")] for network in networks]
        lines.append(f"| {machine} | {' | '.join(f'{a} / {b} ({b / a:.1f}x)' for a, b in pairs)} |")
    return lines


def processor_seconds() -> float:
    """CPU seconds of all processes started here that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the rows, and write them where asked."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("workloads", nargs="+", type=Path)
    parse.add_argument("--specs", nargs="+", default=["eyeriss_v1"], metavar="NAME")
    parse.add_argument("--bits", default="W8A8")
    parse.add_argument("--before", type=Path, required=True, help="the other checkout")
    parse.add_argument("--whole", action="store_true", help="time the whole command, not its plan alone")
    parse.add_argument("--rounds", type=int, default=1, help="runs of each; the median of their CPU seconds counts")
    parse.add_argument("--out", type=Path, help="CSV file, appended to after every row")
    options = parse.parse_args(arguments)
    timed, run = ("evaluate", evaluated) if options.whole else ("plan", planned)
    for spec, workload in itertools.product(options.specs, options.workloads):
        for name, folder in (("before", options.before.resolve()), ("now", Path.cwd())):
            found = [run(folder, workload, spec, options.bits) for _ in range(options.rounds)]
            seconds = statistics.median(float(str(each[0])) for each in found)
            row = [workload.stem, spec, options.bits, name, timed, seconds, *found[-1][1:]]
            print(*row, flush=True)
            if options.out is not None:
                new = not options.out.exists()
                with options.out.open("a", newline="", encoding="utf-8") as file:
                    csv.writer(file, lineterminator="\n").writerows([*([COLUMNS] if new else []), row])


if __name__ == "__main__":
    main()
