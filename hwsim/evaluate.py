"""`python -m hwsim.evaluate MODEL ACCEL`: what a network costs on an accelerator, in one command.

Reads the arguments, evaluates (report/evaluation.py), prints and writes. A saved workload never imports torch.
Exit codes: 0; 2 for bad input (one clear message, no traceback, no half-written file); 3 infeasible.
"""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
from collections.abc import Sequence

from hwsim.command_line import (
    ACCELERATOR_HELP,
    EFFORTS,
    MODEL_HELP,
    add_ends,
    add_input_option,
    add_jobs,
    add_phase_options,
    load_machine,
    load_model,
    load_phase,
    parse_fraction,
    parse_seconds,
    write_for_peer,
)
from hwsim.console import printable, wrote
from hwsim.errors import RequestError, exit_code_of
from hwsim.files.argument import CommandLine, parse_name, parse_path
from hwsim.search.words import OBJECTIVES


def parser(explains: bool = False) -> argparse.ArgumentParser:
    """The command line; of `hwsim explain`, which is `hwsim evaluate --explain`, where it `explains`."""
    more = " Then what one bit fewer or more changes in each layer." if explains else ""
    parse = CommandLine(
        prog="hwsim explain" if explains else "hwsim evaluate",
        description=f"Energy, latency and memory of a network on an accelerator.{more}",
        epilog="The screen is as wide as the terminal, or as the variable COLUMNS says. Exit codes: 0 done; 2 bad "
        "input; 3 infeasible on this accelerator.",
    )
    parse.add_argument("model", help=MODEL_HELP)
    parse.add_argument("accelerator", help=ACCELERATOR_HELP)
    parse.add_argument("--bits", help="W4A4, or a YAML file of name patterns; default: the checkpoint's, else W8A8")
    parse.add_argument("--config", default="auto", choices=["auto", "1", "2", "3", "4"], help="LSQ+ Table 1")
    add_ends(parse)
    add_input_option(parse)
    add_phase_options(parse)
    parse.add_argument(
        "--objective",
        default="energy",
        choices=OBJECTIVES,
        help="what is least; ties go to the other of energy and time",
    )
    parse.add_argument(
        "--slack", type=parse_fraction, default=0.0, metavar="SHARE",
        help="share of the least latency (energy) given up for less energy (latency); 0: ties only",
    )  # fmt: skip
    parse.add_argument(
        "--fuse", default="off", choices=["on", "off"],
        help="on: neighbouring layers may run depth first, tile by tile, with line buffers between them; the "
        "certificate's bound is then wider (default: off)",
    )  # fmt: skip
    parse.add_argument(
        "--lifetimes", metavar="WORDS",
        help="whole (default): a tensor on chip takes its room from birth to last reader; rows: rows, channels or "
        "elements are free once read, so an output may take the place of an input that dies; borders: rows share a "
        "border's columns, its rows are free after the last reader that needs them; rows,borders: both",
    )  # fmt: skip
    parse.add_argument("--mapping", type=parse_path, metavar="FILE", help="price this mapping instead of searching")
    parse.add_argument(
        "--constraints",
        type=parse_name,
        metavar="FILE",
        help="rules that schedules keep; `own`: those of the accelerator's spec",
    )
    proofs = parse.add_mutually_exclusive_group()
    proofs.add_argument(
        "--effort", default="auto", choices=EFFORTS,
        help="auto (default): the strongest proof that takes about a second per layer; proven: over all unrollings, "
        "however long; perfect: over those that divide; quick: good mappings without a proof",
    )  # fmt: skip
    proofs.add_argument("--proven", dest="effort", action="store_const", const="proven", help="--effort proven")
    proofs.add_argument("--perfect", dest="effort", action="store_const", const="perfect", help="--effort perfect")
    proofs.add_argument("--quick", dest="effort", action="store_const", const="quick", help="--effort quick")
    parse.add_argument("--gap", type=parse_fraction, default=0.0, help="with a proof: stop at this relative gap (0)")
    parse.add_argument("--time-limit", type=parse_seconds, metavar="S", help="with a proof: seconds per layer at most")
    parse.add_argument(
        "--zero-shares", type=parse_path, metavar="FILE", help="a certificate of hwsim.verify: its zero codes gate MACs"
    )
    parse.add_argument(
        "--out", type=parse_path, metavar="DIR", help="write report.json, layers.csv, figures, report.html"
    )
    parse.add_argument(
        "--format", choices=["timeloop"], help="with --out: machine, layers and mappings in its form, too"
    )
    add_jobs(parse)
    parse.add_argument("--json", action="store_true", help="print the report as JSON and nothing else")
    parse.add_argument("--allow-uncosted", action="store_true", help="list unknown operators instead of refusing")
    parse.add_argument("--allow-overflow", action="store_true", help="warn where the network does not fit")
    parse.add_argument(
        "--explain",
        action="store_true",
        help="the estimate that matters most; what one bit changes in each layer, and why",
    )
    parse.add_argument("--assumptions", action="store_true", help="print every assumption behind the numbers")
    parse.add_argument("--save-workload", type=parse_path, metavar="FILE", help="save the extracted workload as JSON")
    return parse


def run(arguments: Sequence[str] | None = None) -> None:
    """Parse, evaluate, print. Raises HwsimError where `main` prints it."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = parser(explains=given[:1] == ["--explain"]).parse_args(given)
    if options.constraints and options.mapping:
        raise RequestError("--constraints and --mapping exclude each other: a given mapping is not searched")
    if options.format and options.fuse == "on":
        raise RequestError(f"--fuse on and --format {options.format} exclude each other: its form knows no groups")
    if options.format and options.out is None:
        raise RequestError(f"--format {options.format} needs --out DIR to write to")
    # Here, not above: half a second that `--help` and a mistyped option need not pay.
    from hwsim.report.evaluation import Request, evaluate_workload, load_zero_shares
    from hwsim.report.explain import estimate_lines, explain, explained_json, explanation_lines, write_explanations
    from hwsim.report.files import write_report
    from hwsim.report.progress import reading, watched
    from hwsim.report.screen import render
    from hwsim.report.terminal import why_not_proven
    from hwsim.search.side_by_side import jobs_for, threads

    accelerator = load_machine(options.accelerator)
    with reading(options.model):
        phase = load_phase(options)
        workload = phase[0] if phase else load_model(options.model, options.input, options.allow_uncosted)
    if options.save_workload:
        workload.save(options.save_workload)
    request = Request(
        objective=options.objective,
        bits="FP16" if phase and options.bits is None else options.bits,
        generation=phase[1] if phase else None,
        config=options.config,
        first_last=options.first_last,
        elementwise_bits=options.elementwise_bits,
        mapping=options.mapping,
        effort=options.effort,
        gap=options.gap,
        time_limit_s=options.time_limit,
        slack=options.slack,
        allow_overflow=options.allow_overflow,
        constraints=options.constraints,
        zero_shares=load_zero_shares(options.zero_shares) if options.zero_shares else None,
        fuse=options.fuse == "on",
        lifetimes=options.lifetimes,
    )
    jobs = jobs_for(options.effort, options.jobs)
    with watched() as watch, threads(jobs):
        report = evaluate_workload(workload, accelerator, request, watch)
    if why := why_not_proven(report):  # whoever reads only the numbers must see it
        print(f"hwsim: not proven: {printable(why)}", file=sys.stderr)
    report = dataclasses.replace(report, command=shlex.join(["hwsim", "evaluate", *given]))
    written = write_report(report, options.out) if options.out else []
    if options.format:
        mappings = {name: found.mapping for name, found in report.found.items()}
        written += write_for_peer(options.format, report.accelerator, report.mapped_workload, mappings, options.out)
    with threads(jobs):
        explanations = explain(report, request.effort) if options.explain else ()
    if explanations and options.out:
        written.append(write_explanations(explanations, options.out))
    if options.json:
        print(explained_json(report, explanations))
    else:
        render(report, assumptions=options.assumptions)
        for line in (*(estimate_lines(report) if options.explain else ()), *explanation_lines(explanations)):
            print(printable(line))
        for path in written:
            wrote(path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code of the command: one clear message on stderr for every error that is the input's."""
    return exit_code_of(lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main())
