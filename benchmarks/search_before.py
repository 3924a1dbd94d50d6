"""Is the search as fast as it was? This checkout beside an older one, on the older one's machines.

    git worktree add ../before 3f98823
    python -m benchmarks.search_before ../before [--own] [--specs NAME ...] [--rounds 3] [--proven S]

Specs are the older checkout's, so none uses a key that came since. `--own`: each takes its own spec of that name, so
the new one with all keys that it has by now. Both run their own `benchmarks.search_speed` on the same layers, in turns,
with their own search kernels, each time in a new process: what a process remembers would hide the search. The least CPU
time of all rounds counts. Prints new / old: above 1 the search became slower. `--proven S`: proofs, too, of at most S
seconds each; they compare where they end in time.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
SPECS = ("eyeriss_v1", "nvdla_small", "tpu_v1")
# What search_speed prints, by the name of what was timed; "in all" stands once per effort.
TIMES = {
    "quick": re.compile(r"^quick: median [\d.]+ CPU s of \d+ \(best ([\d.]+)\)", re.M),
    "proofs": re.compile(r"^ +([\d.]+) CPU s in all", re.M),
}


def seconds(checkout: Path, spec: Path, network: str, proven: float | None) -> dict[str, float]:
    """CPU seconds of a checkout's searches. Raises RuntimeError with what it printed where it fails."""
    command = [sys.executable, "-m", "benchmarks.search_speed", "--spec", str(spec), "--network", network]
    command += ["--repeat", "1"]  # a second one in the same process would meet what the first one remembers
    command += ["--proven", str(proven)] if proven else []
    around = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(command, cwd=checkout, env=around, capture_output=True, text=True, check=False)
    found = {kind: [float(n) for n in pattern.findall(ran.stdout)] for kind, pattern in TIMES.items()}
    if ran.returncode or not found["quick"]:
        raise RuntimeError(f"{checkout}: {' '.join(command)}\n{ran.stdout[-500:]}{ran.stderr[-1500:]}")
    return {kind: sum(times) for kind, times in found.items() if times}


def least(rounds: list[dict[str, float]]) -> dict[str, float]:
    """The least time of every kind."""
    return {kind: min(times[kind] for times in rounds) for kind in rounds[0]}


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 measured, 2 no such checkout or spec."""
    parse = argparse.ArgumentParser(prog="python -m benchmarks.search_before", description=__doc__,
                                    formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parse.add_argument("before", type=Path, help="folder of the older checkout")
    parse.add_argument("--specs", nargs="+", default=SPECS, metavar="NAME")
    parse.add_argument("--network", default="resnet18")
    parse.add_argument("--rounds", type=int, default=3)
    parse.add_argument("--own", action="store_true", help="each checkout's own spec of that name")
    parse.add_argument("--proven", type=float, metavar="S", help="proofs, too, S seconds each at most")
    options = parse.parse_args(arguments)
    before = options.before.resolve()
    for name in options.specs:
        specs = [root / "accel_specs" / f"{name}.yaml" for root in (before, HERE if options.own else before)]
        missing = next((spec for spec in specs if not spec.is_file()), None)
        if missing:
            print(f"benchmarks.search_before: {missing}: no such file", file=sys.stderr)
            return 2
        old: list[dict[str, float]] = []
        new: list[dict[str, float]] = []
        for _ in range(options.rounds):
            for checkout, spec, rounds in ((before, specs[0], old), (HERE, specs[1], new)):
                rounds.append(seconds(checkout, spec, options.network, options.proven))
        was, now = least(old), least(new)
        told = "   ".join(f"{kind} {was[kind]:.2f} -> {now[kind]:.2f} s, {now[kind] / was[kind]:.2f}x" for kind in was)
        print(f"{options.network} on {name}: {told}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
