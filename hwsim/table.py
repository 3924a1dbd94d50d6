"""`python -m hwsim.table MODEL ACCEL --bits W8A8,W4A4 --out FILE`: a look-up table of layer costs for other tools.

What its rows say is in `report/look_up.py`. `--alone` searches and prices every layer with its tensors in the outermost
memory. `--assignments` prices whole networks, one row per assignment of bits.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hwsim.command_line import (
    ACCELERATOR_HELP,
    MODEL_HELP,
    add_ends,
    add_input_option,
    add_jobs,
    load_machine,
    load_model,
)
from hwsim.console import wrote
from hwsim.errors import SpecError, exit_code_of
from hwsim.files.argument import CommandLine, parse_name, parse_path
from hwsim.files.atomic import write_atomically
from hwsim.search.words import OBJECTIVES

if TYPE_CHECKING:
    from hwsim.machine.parts import Accelerator
    from hwsim.network.workload import Workload


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parse = CommandLine(
        prog="hwsim table",
        description="A look-up table of layer costs: energy, cycles and bottleneck per layer and pair of widths.",
        epilog="Exit codes: 0 done; 2 bad input; 3 infeasible on this accelerator.",
    )
    parse.add_argument("model", help=MODEL_HELP)
    parse.add_argument("accelerator", help=ACCELERATOR_HELP)
    asked = parse.add_mutually_exclusive_group(required=True)
    asked.add_argument("--bits", metavar="W8A8,W4A4", help="pairs of widths or formats, separated by commas")
    asked.add_argument(
        "--assignments", type=parse_name, metavar="FILE",
        help="price whole networks instead of layers. FILE is a CSV with a column per decision and a row per "
        "assignment of bits, or random:N for N random ones; mappings are searched once for all of them",
    )  # fmt: skip
    parse.add_argument(
        "--out", type=parse_path, metavar="FILE", help="table.csv or table.json; default: CSV on the terminal"
    )
    add_ends(parse)
    parse.add_argument(
        "--alone", action="store_true", help="assume that no tensor stays on chip: no row depends on another layer"
    )
    add_input_option(parse)
    parse.add_argument("--objective", default="energy", choices=OBJECTIVES, help="what mappings are chosen for")
    parse.add_argument("--allow-uncosted", action="store_true", help="leave unknown operators out")
    parse.add_argument("--allow-overflow", action="store_true", help="pairs at which the network does not fit, too")
    add_jobs(parse)
    return parse


def run(arguments: Sequence[str] | None = None) -> None:
    """Parse, price, write. Raises HwsimError where `main` prints it."""
    options = parser().parse_args(arguments)
    from hwsim.report.look_up import look_up_table, parse_pairs  # with the search: `--help` does not wait for it
    from hwsim.search.side_by_side import jobs_for, threads

    pairs = () if options.bits is None else parse_pairs(options.bits)
    if options.out is not None and options.out.suffix not in (".csv", ".json"):
        raise SpecError(f"--out: expected a file that ends in .csv or .json, got {options.out}")
    if options.assignments is not None:
        check_assignments(options)
    accelerator = load_machine(options.accelerator)
    workload = load_model(options.model, options.input, options.allow_uncosted)
    if options.assignments is not None:
        write_assignments(options, workload, accelerator)
        return
    with threads(jobs_for("auto", options.jobs)):
        table = look_up_table(
            workload,
            accelerator,
            pairs,
            options.objective,
            alone=options.alone,
            first_last=options.first_last,
            elementwise_bits=options.elementwise_bits,
            allow_overflow=options.allow_overflow,
        )
    for pair, why in table.refused:
        print(f"warning: {pair} left out: {why}", file=sys.stderr)
    if options.out is None:
        sys.stdout.write(table.to_csv())
        return
    write_atomically(options.out, table.to_json() if options.out.suffix == ".json" else table.to_csv())
    wrote(options.out, f"{len(table.rows)} rows")


def check_assignments(options: argparse.Namespace) -> None:
    """Raise SpecError for options that say nothing about assignments: each of their rows has all its bits."""
    if options.out is not None and options.out.suffix != ".csv":
        raise SpecError(f"--out: assignments are written as .csv, got {options.out}")
    for name in ("first_last", "elementwise_bits"):
        if getattr(options, name) is not None:
            raise SpecError(f"--{name.replace('_', '-')}: a row of --assignments says the bits of every layer itself")
    if options.jobs is not None:
        raise SpecError("--jobs: --assignments prices from tables of the quick search, which runs on one thread")
    if options.allow_overflow:
        raise SpecError("--allow-overflow: rows of --assignments that do not fit have empty prices")


def write_assignments(options: argparse.Namespace, workload: Workload, accelerator: Accelerator) -> None:
    """Price bit assignments and write or print them as CSV."""
    from hwsim.network.bits import assign_bits
    from hwsim.report.files import rows_to_csv
    from hwsim.tables.assignments import assignment_rows

    # Stored as trained at few bits: what additions read at 8 bits, and other readers' narrower forms made from it.
    coded = workload if workload.quantized else assign_bits(workload, "W2A2")
    rows = assignment_rows(options.assignments, coded, accelerator, options.objective, alone=options.alone)
    refused = sum(row["energy_pj"] == "" for row in rows)
    if refused:
        print(f"warning: {refused} of {len(rows)} assignments cannot be run: their prices are empty", file=sys.stderr)
    if options.out is None:
        sys.stdout.write(rows_to_csv(rows))
        return
    write_atomically(options.out, rows_to_csv(rows))
    wrote(options.out, f"{len(rows)} assignments")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code of the command: one clear message on stderr for every error that is the input's."""
    return exit_code_of(lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main())
