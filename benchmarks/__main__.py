"""Every ratio of speed that the project speaks of, measured in one run: `make bench`, or `python -m benchmarks`.

    python -m benchmarks [--only search training] [--quick] [--peer-python PATH] [--before FOLDER]

One part after another, each a command of its own that puts its contenders side by side; what they print is printed. At
the end all ratios stand in one table. `--quick` takes fewer rounds, for a look. `--peer-python`: an environment with
zigzag-dse and six, whose search then runs beside ours. `--before`: an older checkout, whose search runs beside this
one's, in turns. Exit code 1 when a part fails; the others are run all the same.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.tables import markdown


@dataclass(frozen=True)
class Part:
    """A question and the commands that answer it; `quick` are the arguments of a shorter look.

    `ratios`: what its table's rows are called, and how their ratio is found in what the commands print: the last group,
    after what tells rows apart.
    """

    question: str
    commands: tuple[tuple[str, ...], ...]
    quick: tuple[str, ...] = ()
    ratios: tuple[tuple[str, str], ...] = ()

    def found(self, printed: str) -> list[list[str]]:
        """The rows of what was printed."""
        return [
            [" ".join([title, *match.groups()[:-1]]), match.groups()[-1].replace(",", "")]
            for title, pattern in self.ratios
            for match in re.finditer(pattern, printed, re.M)
        ]


PARTS = {
    "evaluate": Part(
        "How long does a first price take, cold, from a saved workload and from the model?",
        (("benchmarks.evaluate_cold", "--model", "resnet18", "--spec", "eyeriss_v1"),),
        ("--runs", "1"),
        (("first price: from the model / from a saved workload", r"^model / workload, CPU: ([\d.]+)x"),),
    ),
    "jobs": Part(
        "What do threads bring?",
        (("benchmarks.jobs", "--models", "resnet18", "--specs", "ethos_u55_256", "simba"),),
        ("--rounds", "1"),
        (("clock: one thread / two,", r"^(\w+ on \w+): clock .* s, ([\d.]+)x; CPU"),),
    ),
    "search": Part(
        "How long is the quick search beside the proofs, and beside public tools on the same layers?",
        (("benchmarks.search_speed", "--network", "resnet18", "--proven", "60"),),
        ("--repeat", "1"),
    ),
    "peers": Part(
        "Our search beside ZigZag's, with its accounting: energy and time?",
        (("benchmarks.peers_zigzag",),),
        ratios=(("one layer, time: ZigZag's default / our proof,", r"^(\w+): ours(?s:.)*?its time / ours = ([\d,]+)"),),
    ),
    "assignments": Part(
        "How fast are bit assignments priced from tables, beside searching each?",
        (("benchmarks.repricing", "--model", "resnet18"),),
        ("--repeat", "1"),
        (
            ("an assignment's time: priced alone / from tables", r"^checked: .* ([\d,]+)x the time"),
            ("an assignment's time: planned anew / from tables", r"^fresh: assignment 0 .* CPU s, ([\d,]+)x;"),
        ),
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
        (("a machine's time: fresh proof / from tables, varying", r"^(\w+) +[\d.]+ +[\d.]+ +[\d.]+ +([\d,]+) x "),),
    ),
    "training": Part(
        "What does quantization add to a training step, eager and compiled?",
        (("benchmarks.quantizer_speed", "--parts", "quantizer", "resnet20"),),
        ("--rounds", "1", "--no-compile"),
        (
            (
                "training step of resnet20, eager, / float:",
                r"^resnet20:(?s:.)*?^  (ours\b.*?) +[\d.]+ +[\d.]+ +([\d.]+)$",
            ),
            ("training step:", r"^  (.* over float, compiled): ([\d.]+)"),
        ),
    ),
    "integers": Part(
        "How fast does a trained network run on integers, beside onnxruntime?",
        (("benchmarks.integer_speed", "networks/cifar10_silu_w4a4"),),
        ("--rounds", "1"),
        (("an image's time / onnxruntime's:", r"^\| (.+?) \| [\d.]+ +\| ([\d.]+) +\|$"),),
    ),
}


BEFORE = (
    ("search, all layers: now / before,", r"^(\w+ on \w+): quick [\d.]+ -> [\d.]+ s, ([\d.]+)x"),
    ("proofs, all layers: now / before,", r"^(\w+ on \w+): .*proofs [\d.]+ -> [\d.]+ s, ([\d.]+)x"),
)


def run_part(part: Part, extra: Sequence[str]) -> tuple[bool, str]:
    """Run the part's commands with more arguments; whether all of them ended well, and what they printed."""
    well, printed = True, ""
    for command in part.commands:
        line = [*command, *extra]
        print(f"\n$ python -m {' '.join(line)}", flush=True)
        began = time.monotonic()
        with subprocess.Popen([sys.executable, "-m", *line], stdout=subprocess.PIPE, text=True) as running:
            for row in running.stdout or ():
                print(row, end="", flush=True)
                printed += row
        code = running.returncode
        print(f"({time.monotonic() - began:.0f} s{'' if code == 0 else f', ended with {code}'})", flush=True)
        well &= code == 0
    return well, printed


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 all parts ended well, 1 one did not."""
    parse = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parse.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parse.add_argument("--quick", action="store_true", help="fewer rounds")
    parse.add_argument("--peer-python", metavar="PATH", help="Python of an environment with zigzag-dse and six")
    parse.add_argument("--before", type=Path, metavar="FOLDER", help="an older checkout")
    options = parse.parse_args(arguments)
    parts = {name: PARTS[name] for name in options.only}
    if options.before:
        command = ("benchmarks.search_before", str(options.before), "--own", "--proven", "60")
        parts["before"] = Part("Is the search faster than it was?", (command,), ("--rounds", "1"), BEFORE)
    failed: list[str] = []
    rows: list[list[str]] = []
    for name, part in parts.items():
        print(f"\n## {name}: {part.question}", flush=True)
        extra = [*(part.quick if options.quick else ())]
        if name == "peers" and options.peer_python:
            extra += ["--peer-python", options.peer_python]
        well, printed = run_part(part, extra)
        rows += part.found(printed)
        if not well:
            failed.append(name)
    if rows:
        print(f"\n{markdown(('what / beside what', 'ratio'), rows)}", flush=True)
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
