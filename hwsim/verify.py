# pyright: basic
"""`python -m hwsim.verify CHECKPOINT [ACCEL]`: prove or refute that a trained network's offsets cost nothing.

Lowers the network to integers, compares every code with the float64 network's, measures accuracies, and prices each
padding policy on the accelerator. Prints a table; `--json` prints the certificate alone, `--out FILE` writes it.
`--same A B ...` proves nothing anew: it says whether checkpoints, reports, certificates and exported files are of one
trained network. Exit codes: 0 when every code is equal (all files are of one network); 1 when some differ; 2 for bad
input; 3 for an overflowing accumulator.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hwsim.console import printable_lines
from hwsim.errors import RequestError, exit_code_of
from hwsim.files.argument import CommandLine, parse_name, parse_path
from hwsim.files.atomic import write_atomically
from hwsim.integer.words import METHODS, OVERFLOWS
from hwsim.report.quantities import percent

if TYPE_CHECKING:
    from hwsim.integer.proof.certificate import Certificate, LayerCertificate


def numbers(text: str) -> tuple[float, ...]:
    """`0.485,0.456,0.406`, as training reads it: torch is loaded for an option that needs it, not for `--help`."""
    from quant.start import numbers

    return numbers(text)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = CommandLine(prog="hwsim verify", description=__doc__)
    p.add_argument(
        "checkpoint", type=parse_path, nargs="?", help="folder written by quant.train or quant.calibrate --out"
    )
    p.add_argument("accelerator", nargs="?", help="spec (path or bare name) whose capabilities decide the classes")
    p.add_argument(
        "--same", type=parse_path, nargs="+", metavar="PATH", help="compare the identities of these files instead"
    )
    p.add_argument("--images", type=int, default=64, help="images whose codes are compared (default 64)")
    p.add_argument("--accuracy-images", type=int, default=1000, help="test images for accuracies; 0: none")
    p.add_argument("--data-dir", type=parse_path, help="folder of the checkpoint's data set (default: $HWSIM_DATA)")
    p.add_argument(
        "--data",
        type=parse_name,
        default=None,
        help="another data set: a name, a .npz, a folder, package.module:function",
    )
    p.add_argument(
        "--mean", type=numbers, metavar="M[,M,M]", help="of its pixels (default: as the network was trained)"
    )
    p.add_argument("--std", type=numbers, metavar="S[,S,S]", help="of its pixels")
    p.add_argument("--random", action="store_true", help="use noise instead of images; no accuracies then")
    p.add_argument("--accumulator-bits", type=int, help="also measure accumulators of this width")
    p.add_argument("--overflow", choices=OVERFLOWS, default="wrap")
    p.add_argument("--adc-bits", type=int, help="also measure an in-memory array whose converter keeps so many bits")
    p.add_argument("--adc-rows", type=int, default=256, help="products summed before each conversion (default 256)")
    p.add_argument(
        "--nonlinear", choices=METHODS, default="float",
        help="softmax, LayerNorm and RMSNorm: float (default), by integers with a proven error, or as in I-BERT",
    )  # fmt: skip
    p.add_argument("--device", default="cpu")
    p.add_argument("--out", type=parse_path, help="write the certificate as JSON")
    p.add_argument("--json", action="store_true", help="print the certificate as JSON and nothing else")
    return p


def verify(arguments: argparse.Namespace) -> Certificate:
    """The certificate that the command line asks for."""
    from hwsim.integer.proof.verify import Proof, verify_checkpoint
    from hwsim.machine.load import load_accelerator
    from quant.start import given_normalisation

    given = {field.name: getattr(arguments, field.name, None) for field in dataclasses.fields(Proof)}
    given["data"] = arguments.data or ""  # the checkpoint's own
    try:
        proof = Proof(**{**given, "normalisation": given_normalisation(arguments)})
    except ValueError as problem:
        raise RequestError(str(problem)) from None

    def progress(name: str, percent: float, images: int) -> None:
        if not arguments.json:
            print(f"{name}: {percent:.2f} % of {images} images", file=sys.stderr)

    machine = load_accelerator(arguments.accelerator) if arguments.accelerator else None
    return verify_checkpoint(arguments.checkpoint, machine, proof, progress)


def table(certificate: Certificate) -> str:
    """The certificate for people."""
    heads = ("layer", "op", "W", "A", "policy", "class", "acc", "mult", "codes", "own off", "end off", "naive border")
    rows = [heads, *(row_of(layer) for layer in certificate.layers)]
    widths = [max(len(r[i]) for r in rows) for i in range(len(heads))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(r, widths, strict=True)).rstrip() for r in rows]
    lines.append("")
    priced = [(layer, p, c) for layer in certificate.layers for p, c in layer.policies.items()]
    if priced:
        lines.append(
            f"padding policies on {certificate.machine}: sums over {len({id(x) for x, _, _ in priced})} layers"
        )
        for policy in dict.fromkeys(p for _, p, _ in priced):
            costs = [c for _, p, c in priced if p == policy]
            kinds = ", ".join(sorted({c.kind for c in costs}))
            lines.append(
                f"  {policy:12s} {kinds}: {sum(c.extra_bits for c in costs)} bits, {sum(c.extra_adds for c in costs)} "
                f"additions, {sum(c.extra_read_bits + c.extra_write_bits for c in costs)} bits moved"
            )
    if certificate.float_operators:
        lines.append(f"kept in float: {', '.join(certificate.float_operators)}")
    if certificate.integer_methods:
        lines.append(f"by an integer method: {', '.join(certificate.integer_methods)}")
    lines += [f"{name}: {percent:.2f} %" for name, percent in certificate.accuracies.items()]
    lines += [f"{what}: {count}" for what, count in certificate.tally.items() if count]
    lines += [f"identity: {certificate.identity}"] if certificate.identity else []
    verdict = "every code equals the float64 network's" if certificate.equal else "some codes differ"
    lines.append(f"{verdict}: {certificate.model}, {certificate.images} images, {certificate.machine}")
    return "\n".join(lines)


def row_of(layer: LayerCertificate) -> tuple[str, ...]:
    """One line of the table."""
    naive = "" if layer.naive is None else f"{percent(layer.naive.border_relative_rms)} RMS"
    return (
        layer.name, layer.op, str(layer.weight_bits or "-"), str(layer.input_bits), layer.policy, layer.offset.kind,
        str(layer.accumulator_bits or "-"), str(layer.multiplier_bits or "-"), str(layer.codes.elements),
        str(layer.codes.own_differing), str(layer.codes.end_to_end_differing), naive,
    )  # fmt: skip


def report(arguments: argparse.Namespace) -> int:
    """Write and print the certificate; 1 where codes differ."""
    result = verify(arguments)
    text = json.dumps(result.to_dict(), indent=1, allow_nan=False)
    if arguments.out:
        write_atomically(arguments.out, text + "\n")
    print(text if arguments.json else printable_lines(table(result)))
    return 0 if result.equal else 1


def compare(paths: Sequence[Path]) -> int:
    """Say what each path names, and whether it is one network; 1 where it is not."""
    from hwsim.integer.proof.same import are_same, read_artefact

    found = [read_artefact(path) for path in paths]
    same = are_same(found)
    verdict = "one trained network" if same else "not the same: another network, or a file changed since"
    print(printable_lines("\n".join([*(item.text() for item in found), verdict])))
    return 0 if same else 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run; the exit code."""
    command_line = parser()
    arguments = command_line.parse_args(argv)
    if (arguments.same is None) == (arguments.checkpoint is None):
        command_line.error("expected CHECKPOINT, or --same and two paths or more")
    if arguments.same is not None and len(arguments.same) < 2:
        command_line.error("--same: expected two paths or more")
    return exit_code_of(lambda: report(arguments) if arguments.same is None else compare(arguments.same))


if __name__ == "__main__":
    raise SystemExit(main())
