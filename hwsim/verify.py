# pyright: basic
"""`python -m hwsim.verify CHECKPOINT [ACCEL]`: prove or refute that a trained network's offsets cost nothing.

Lowers the network to integers, compares every code with the float64 network's, measures accuracies, and prices each
padding policy on the accelerator. Prints a table; `--json` prints the certificate alone, `--out FILE` writes it.
Exit codes: 0 when every code is equal, 1 when some differ, 2 for bad input, 3 for an overflowing accumulator.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from hwsim.errors import WorkloadError, exit_code_of
from hwsim.files.atomic import write_atomically
from hwsim.integer.lowering.lower import lower
from hwsim.integer.proof.accuracy import FORMS, accuracies
from hwsim.integer.proof.certificate import UNLIMITED, Certificate, LayerCertificate, certify
from hwsim.integer.proof.images import test_images
from hwsim.integer.run import Mode
from hwsim.machine.load import load_accelerator
from quant import checkpoint


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(prog="python -m hwsim.verify", description=__doc__)
    p.add_argument("checkpoint", type=Path, help="folder written by quant.train or quant.calibrate --out")
    p.add_argument("accelerator", nargs="?", help="spec (path or bare name) whose capabilities decide the classes")
    p.add_argument("--images", type=int, default=64, help="images whose codes are compared (default 64)")
    p.add_argument("--accuracy-images", type=int, default=1000, help="test images for accuracies; 0: none")
    p.add_argument("--data-dir", type=Path, help="folder of the checkpoint's data set (default: $HWSIM_DATA)")
    p.add_argument("--random", action="store_true", help="use noise instead of images; no accuracies then")
    p.add_argument("--accumulator-bits", type=int, help="also measure accumulators of this width")
    p.add_argument("--overflow", choices=("check", "wrap", "saturate", "saturate_each"), default="wrap")
    p.add_argument("--adc-bits", type=int, help="also measure an in-memory array whose converter keeps so many bits")
    p.add_argument("--adc-rows", type=int, default=256, help="products summed before each conversion (default 256)")
    p.add_argument("--device", default="cpu")
    p.add_argument("--out", type=Path, help="write the certificate as JSON")
    p.add_argument("--json", action="store_true", help="print the certificate as JSON and nothing else")
    return p


def verify(arguments: argparse.Namespace) -> Certificate:
    """The certificate that the command line asks for."""
    try:
        model, meta = checkpoint.load(arguments.checkpoint)
        if meta.quantization is None:
            raise WorkloadError(
                f"{arguments.checkpoint}: a float network, it has no quantizers; quantize it with "
                "python -m quant.calibrate or python -m quant.train --bits W4A4"
            )
        wanted = max(arguments.images, 0 if arguments.random else arguments.accuracy_images, 1)
        images, labels = test_images(arguments.checkpoint, arguments.data_dir, wanted, arguments.random)
    except (ValueError, FileNotFoundError) as problem:
        raise WorkloadError(str(problem)) from problem
    for option in ("accumulator_bits", "adc_bits"):
        if getattr(arguments, option) and (labels is None or arguments.accuracy_images <= 0):
            name = option.replace("_", "-")
            raise WorkloadError(
                f"--{name} measures an accuracy, and there are no labelled images: leave out --random, and give "
                "--accuracy-images and a checkpoint that names its data set"
            )
    chosen = {"capabilities": UNLIMITED}
    if arguments.accelerator:
        machine = load_accelerator(arguments.accelerator)
        chosen = {"capabilities": machine.capabilities, "machine": machine.name}
    result = certify(model, images[: arguments.images], name=meta.model, **chosen)  # type: ignore[arg-type]
    if labels is None or arguments.accuracy_images <= 0:
        return result
    forms = dict(FORMS)
    if arguments.accumulator_bits:
        mode = Mode(accumulator_bits=arguments.accumulator_bits, overflow=arguments.overflow)
        forms[f"accumulator_{arguments.accumulator_bits}_{arguments.overflow}"] = mode
    if arguments.adc_bits:
        mode = Mode(adc_bits=arguments.adc_bits, adc_rows=arguments.adc_rows)
        forms[f"adc_{arguments.adc_bits}_bits_{arguments.adc_rows}_rows"] = mode
    count = arguments.accuracy_images

    def progress(name: str, percent: float) -> None:
        if not arguments.json:
            print(f"{name}: {percent:.2f} % of {min(count, len(images))} images", file=sys.stderr)

    measured = accuracies(
        model, lower(model, images[:1], name=meta.model), images[:count], labels[:count], forms=forms,
        device=arguments.device, progress=progress,
    )  # fmt: skip
    return dataclasses.replace(result, accuracies=measured)


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
    lines += [f"{name}: {percent:.2f} %" for name, percent in certificate.accuracies.items()]
    lines += [f"{what}: {count}" for what, count in certificate.tally.items() if count]
    verdict = "every code equals the float64 network's" if certificate.equal else "some codes differ"
    lines.append(f"{verdict}: {certificate.model}, {certificate.images} images, {certificate.machine}")
    return "\n".join(lines)


def row_of(layer: LayerCertificate) -> tuple[str, ...]:
    """One line of the table."""
    naive = "" if layer.naive is None else f"{100 * layer.naive.border_relative_rms:.1f} % RMS"
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
    print(text if arguments.json else table(result))
    return 0 if result.equal else 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run; the exit code."""
    arguments = parser().parse_args(argv)
    return exit_code_of(lambda: report(arguments))


if __name__ == "__main__":
    raise SystemExit(main())
