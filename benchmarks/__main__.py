"""Every ratio of speed that the project speaks of, measured in one run: `make bench`, or `python -m benchmarks`.

    python -m benchmarks [--only search training] [--quick] [--peer-python PATH]

One part after another, each a command of its own that puts its contenders side by side; what they print is printed.
`--quick` takes fewer rounds, for a look. `--peer-python`: an environment with zigzag-dse and six, whose search then
runs beside ours. Exit code 1 when a part fails; the others are run all the same.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """A question and the commands that answer it; `quick` are the arguments of a shorter look."""

    question: str
    commands: tuple[tuple[str, ...], ...]
    quick: tuple[str, ...] = ()


PARTS = {
    "evaluate": Part(
        "How long does a first price take, cold, from a saved workload and from the model?",
        (("benchmarks.evaluate_cold", "--model", "resnet18", "--spec", "eyeriss_v1"),),
        ("--runs", "1"),
    ),
    "search": Part(
        "How long is the quick search beside the proofs, and beside public tools on the same layers?",
        (("benchmarks.search_speed", "--network", "resnet18", "--proven", "60"),),
        ("--repeat", "1"),
    ),
    "peers": Part("Our search beside ZigZag's, with its accounting: energy and time?", (("benchmarks.peers_zigzag",),)),
    "assignments": Part(
        "How fast are bit assignments priced from tables, beside searching each?",
        (("benchmarks.repricing", "--model", "resnet18"),),
        ("--repeat", "1"),
    ),
    "machines": Part(
        "How many new machines are searched and certified per CPU second?",
        (("benchmarks.explore_speed", "--bits", "--joint", "--workers", "here"),),
        ("--count", "2"),
    ),
    "tables": Part(
        "How many new machines are certified per CPU second from tables, beside a fresh proof of each?",
        (("benchmarks.machine_tables",),),
        ("--machines", "30", "--fresh", "2"),
    ),
    "training": Part(
        "What does quantization add to a training step, eager and compiled?",
        (("benchmarks.quantizer_speed", "--parts", "quantizer", "resnet20"),),
        ("--rounds", "1", "--no-compile"),
    ),
    "integers": Part(
        "How fast does a trained network run on integers, beside onnxruntime?",
        (("benchmarks.integer_speed", "networks/cifar10_silu_w4a4"),),
        ("--rounds", "1"),
    ),
}


def run_part(part: Part, extra: Sequence[str]) -> bool:
    """Run the part's commands with more arguments; whether all of them ended well."""
    well = True
    for command in part.commands:
        line = [*command, *extra]
        print(f"\n$ python -m {' '.join(line)}", flush=True)
        began = time.monotonic()
        code = subprocess.run([sys.executable, "-m", *line], check=False).returncode
        print(f"({time.monotonic() - began:.0f} s{'' if code == 0 else f', ended with {code}'})", flush=True)
        well &= code == 0
    return well


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 all parts ended well, 1 one did not."""
    parse = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parse.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parse.add_argument("--quick", action="store_true", help="fewer rounds")
    parse.add_argument("--peer-python", metavar="PATH", help="Python of an environment with zigzag-dse and six")
    options = parse.parse_args(arguments)
    failed: list[str] = []
    for name in options.only:
        part = PARTS[name]
        print(f"\n## {name}: {part.question}", flush=True)
        extra = [*(part.quick if options.quick else ())]
        if name == "peers" and options.peer_python:
            extra += ["--peer-python", options.peer_python]
        if not run_part(part, extra):
            failed.append(name)
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
