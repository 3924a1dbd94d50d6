"""`python -m hwsim.explore bits MODEL ACCEL`: which bits each layer should have, under budgets.
`python -m hwsim.explore machines SPACE.yaml --out DIR`: which machine, with bits fixed or solved for each.

What they do is in `run.py`, which is loaded only then: `--help` does not wait for the search. Exit codes: 0 done; 2 bad
input; 3 budgets that nothing meets, or a machine that cannot run the network.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from hwsim.command_line import ACCELERATOR_HELP, MODEL_HELP, add_input_option, parse_elementwise, parse_seconds
from hwsim.errors import exit_code_of
from hwsim.explore.words import FIRST_LAST, NAMES
from hwsim.files.argument import CommandLine, parse_name, parse_path
from hwsim.search.words import OBJECTIVES


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parse = CommandLine(
        prog="hwsim explore",
        description="Design-space exploration: bits per layer under budgets, exact.",
        epilog="Exit codes: 0 done; 2 bad input; 3 infeasible.",
    )
    commands = parse.add_subparsers(dest="command", required=True)
    add_bits(commands)
    add_machines(commands)
    return parse


def add_machines(commands: Any) -> None:
    """The `machines` command."""
    machines = commands.add_parser("machines", help="machines (and bits) of an exploration file; resumable")
    machines.add_argument("space", type=parse_path, help="the exploration file: see docs/exploration.md")
    machines.add_argument(
        "--out", type=parse_path, required=True, metavar="DIR", help="the study; start again to go on"
    )
    add_workers(machines)
    machines.add_argument("--quiet", action="store_true", help="no progress")


def add_workers(parse: Any) -> None:
    """Where work runs."""
    parse.add_argument("--processes", type=int, default=1, metavar="N", help="local processes (1: this one)")
    parse.add_argument("--scheduler", metavar="ADDRESS", help="a dask.distributed scheduler instead")


def add_bits(commands: Any) -> None:
    """The `bits` command."""
    bits = commands.add_parser("bits", help="bits per layer on one machine, by an exact integer programme")
    bits.add_argument("model", help=MODEL_HELP)
    bits.add_argument("accelerator", help=ACCELERATOR_HELP)
    add_freedom(bits)
    bits.add_argument("--budget", action="append", default=[], metavar="NAME=VALUE",
                      help=f"{', '.join(NAMES)}; such as energy=2mJ, latency=5ms, weights=120KiB")  # fmt: skip
    bits.add_argument("--minimise", choices=list(NAMES), help="default: loss where there are sensitivities, or energy")
    bits.add_argument("--front", choices=list(NAMES), metavar="NAME", help="the front against this instead of a point")
    bits.add_argument("--points", type=int, help="that many points of the front (default: all of it)")
    bits.add_argument("--objective", default="energy", choices=OBJECTIVES, help="what mappings are chosen for")
    bits.add_argument("--off-chip", action="store_true", help="assume that no tensor stays on chip "
                      "(default: those stay that do at the widest widths)")  # fmt: skip
    bits.add_argument("--time-limit", type=parse_seconds, metavar="S", help="seconds per question to the solver")
    add_input_option(bits)
    bits.add_argument("--allow-uncosted", action="store_true", help="leave unknown operators out")
    bits.add_argument("--allow-overflow", action="store_true", help="bits at which the network does not fit, too")
    bits.add_argument(
        "--out", type=parse_path, metavar="DIR", help="write points.csv, points.json, figures, files per point"
    )
    training = bits.add_argument_group("training points of the front (needs --front and --out)")
    training.add_argument("--train", type=int, metavar="K", help="fine-tune K points, spread evenly, by quant.train")
    training.add_argument("--train-options", default="", metavar="TEXT", help="for quant.train, such as '--epochs 2'")
    training.add_argument("--data", type=parse_name, help="data set to train on (default: the sensitivities')")
    add_workers(training)


def add_freedom(parse: Any) -> None:
    """What may vary in the network."""
    parse.add_argument("--sensitivities", type=parse_path, metavar="FILE", help="what hwsim sensitivity wrote")
    parse.add_argument("--weights", default="2..8", metavar="WIDTHS", help="weight widths allowed (2..8)")
    parse.add_argument("--activations", default="2..8", metavar="WIDTHS", help="activation widths allowed (2..8)")
    parse.add_argument("--first-last", default="8bit", choices=FIRST_LAST, help="first and last layer with weights")
    parse.add_argument("--elementwise-bits", type=parse_elementwise, default=8, metavar="BITS",
                       help="inputs of additions and products: same (they vary), or a number (8)")  # fmt: skip
    parse.add_argument("--limit", action="append", default=[], metavar="LAYERS.weight=WIDTHS",
                       help="widths of some layers, by name pattern; also LAYERS.input=WIDTHS")  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code of the command: one clear message on stderr for every error that is the input's."""
    options = parser().parse_args(arguments)

    def work() -> None:
        from hwsim.explore.run import run_bits, run_machines

        (run_bits if options.command == "bits" else run_machines)(options)

    return exit_code_of(work)
