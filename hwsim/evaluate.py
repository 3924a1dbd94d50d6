"""`python -m hwsim.evaluate MODEL ACCEL`: what a network costs on an accelerator, in one command.

The picture of CONTRIBUTING.md in ten lines: load, assign bits, search mappings, price, report. A saved workload never
imports torch. Exit codes: 0; 2 for bad input (one clear message, no traceback, no half-written file); 3 infeasible.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hwsim.command_line import (
    EFFORTS,
    OBJECTIVES,
    load_machine,
    load_model,
    parse_fraction,
    parse_seconds,
    parse_shape,
    write_for_peer,
)
from hwsim.errors import WorkloadError, exit_code_of
from hwsim.machine.parts import Accelerator
from hwsim.nest.text import load_mappings
from hwsim.network.bits import assign_bits
from hwsim.network.workload import Workload
from hwsim.pricing.network import price_network
from hwsim.report.explain import explain, explained_json, explanation_lines, write_explanations
from hwsim.report.files import write_report
from hwsim.report.report import Report
from hwsim.report.terminal import render
from hwsim.search.network import given_mappings, plan_network, planned
from hwsim.search.objective import Objective
from hwsim.search.result import Effortful


@dataclass(frozen=True)
class Request:
    """What a run depends on besides its two files; the defaults are the command line's.

    `bits` None: a quantized checkpoint brings its own, a float model is priced at W8A8 (and the report says so).
    """

    objective: Objective = "energy"
    bits: str | None = None
    config: str = "auto"
    first_last: str = "same"
    mapping: Path | None = None
    effort: Effortful = "auto"
    gap: float = 0.0
    time_limit_s: float | None = None
    zero_shares: Mapping[str, float] | None = None  # share of zero codes at each layer's input, where measured


def evaluate(workload: Workload, accelerator: Accelerator, request: Request | None = None) -> Report:
    """Energy, latency and memory of `workload` on `accelerator`, with the origin of each number.

    Raises SpecError, WorkloadError, CapabilityError or InfeasibleMapping, each naming the place and the way out.
    """
    request = request or Request()
    if request.bits is not None or not workload.quantized:
        workload = assign_bits(workload, request.bits or "W8A8", config=request.config, first_last=request.first_last)
    if request.mapping is not None:
        plan = planned(workload, accelerator, given_mappings(workload, accelerator, load_mappings(request.mapping)))
    else:
        plan = plan_network(
            workload,
            accelerator,
            request.objective,
            effort=request.effort,
            gap=request.gap,
            time_limit_s=request.time_limit_s,
        )
    cost = plan.cost
    if request.zero_shares is not None:
        shares = known_layers(request.zero_shares, workload)
        cost = price_network(workload, accelerator, {name: found.counts for name, found in plan.found.items()}, shares)
    return Report(workload, accelerator, cost, plan.found, request.objective)


def known_layers(shares: Mapping[str, float], workload: Workload) -> Mapping[str, float]:
    """The shares, if they are of this network: every layer exists and every share is between 0 and 1."""
    names = {layer.name for layer in workload}
    strange = [name for name in shares if name not in names]
    if strange:
        raise WorkloadError(
            f"zero shares: {workload.name} has no layer {strange[0]!r}: give the certificate of this network "
            "(python -m hwsim.verify CHECKPOINT --out FILE)"
        )
    wrong = [f"{name}: {share!r}" for name, share in shares.items() if not 0 <= share <= 1]
    if wrong:
        raise WorkloadError(f"zero shares: expected numbers from 0 to 1, got {wrong[0]}")
    return shares


def load_zero_shares(path: Path) -> dict[str, float]:
    """The shares of zero codes in a certificate that `python -m hwsim.verify --out` wrote."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        shares = {str(name): float(share) for name, share in found["zero_shares"].items()}
    except OSError as problem:
        raise WorkloadError(f"{path}: cannot be read: {problem.strerror or problem}") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise WorkloadError(
            f"{path}: expected a certificate with zero_shares: python -m hwsim.verify CHECKPOINT --out FILE writes one"
        ) from None
    return shares


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parse = argparse.ArgumentParser(
        prog="python -m hwsim.evaluate",
        description="Energy, latency and memory of a network on an accelerator.",
        epilog="Exit codes: 0 done; 2 bad input; 3 infeasible on this accelerator.",
    )
    parse.add_argument(
        "model",
        help="zoo name (resnet18), checkpoint folder, saved workload (.json), .pt2 file, package.module:factory, "
        "timm:NAME or hf:CONFIG",
    )
    parse.add_argument("accelerator", help="YAML file or the bare name of a shipped spec (eyeriss_v1)")
    parse.add_argument("--bits", help="W4A4, or a YAML file of name patterns; default: the checkpoint's, else W8A8")
    parse.add_argument("--config", default="auto", choices=["auto", "1", "2", "3", "4"], help="LSQ+ Table 1")
    parse.add_argument("--first-last", default="same", choices=["same", "8bit"], help="first and last layer's bits")
    parse.add_argument("--input", type=parse_shape, metavar="N,C,H,W", help="input shape, where the model has none")
    parse.add_argument("--objective", default="energy", choices=OBJECTIVES)
    parse.add_argument("--mapping", type=Path, metavar="FILE", help="price this mapping instead of searching")
    proofs = parse.add_mutually_exclusive_group()
    proofs.add_argument(
        "--effort", default="auto", choices=EFFORTS,
        help="auto: each layer's mapping is proven the best of a space that about a second allows for (default); "
        "proven: with remainders, however long; perfect: among factors that divide; quick: a good one, unproven",
    )  # fmt: skip
    proofs.add_argument("--proven", dest="effort", action="store_const", const="proven", help="--effort proven")
    proofs.add_argument("--perfect", dest="effort", action="store_const", const="perfect", help="--effort perfect")
    proofs.add_argument("--quick", dest="effort", action="store_const", const="quick", help="--effort quick")
    parse.add_argument("--gap", type=parse_fraction, default=0.0, help="with a proof: stop at this relative gap (0)")
    parse.add_argument("--time-limit", type=parse_seconds, metavar="S", help="with a proof: seconds per layer at most")
    parse.add_argument(
        "--zero-shares", type=Path, metavar="FILE", help="a certificate of hwsim.verify: its zero codes gate MACs"
    )
    parse.add_argument("--out", type=Path, metavar="DIR", help="write report.json, layers.csv, figures, report.html")
    parse.add_argument(
        "--format", choices=["timeloop"], help="with --out: machine, layers and mappings in its form, too"
    )
    parse.add_argument("--json", action="store_true", help="print the report as JSON and nothing else")
    parse.add_argument("--allow-uncosted", action="store_true", help="list unknown operators instead of refusing")
    parse.add_argument(
        "--explain", action="store_true", help="what one bit fewer or more changes in each layer, and why"
    )
    parse.add_argument("--save-workload", type=Path, metavar="FILE", help="save the extracted workload as JSON")
    return parse


def run(arguments: Sequence[str] | None = None) -> None:
    """Parse, evaluate, print. Raises HwsimError where `main` prints it."""
    options = parser().parse_args(arguments)
    accelerator = load_machine(options.accelerator)
    workload = load_model(options.model, options.input, options.allow_uncosted)
    if options.save_workload:
        workload.save(options.save_workload)
    request = Request(
        objective=options.objective,
        bits=options.bits,
        config=options.config,
        first_last=options.first_last,
        mapping=options.mapping,
        effort=options.effort,
        gap=options.gap,
        time_limit_s=options.time_limit,
        zero_shares=load_zero_shares(options.zero_shares) if options.zero_shares else None,
    )
    report = evaluate(workload, accelerator, request)
    written = write_report(report, options.out) if options.out else []
    if options.format:
        mappings = {name: found.mapping for name, found in report.found.items()}
        written += write_for_peer(options.format, report.accelerator, report.workload, mappings, options.out)
    explanations = explain(report, request.effort) if options.explain else ()
    if explanations and options.out:
        written.append(write_explanations(explanations, options.out))
    if options.json:
        print(explained_json(report, explanations))
    else:
        render(report)
        for line in explanation_lines(explanations):
            print(line)
        for path in written:
            print(f"wrote {path}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code of the command: one clear message on stderr for every error that is the input's."""
    return exit_code_of(lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main())
