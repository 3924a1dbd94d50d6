"""`python -m experiments.demo --out demo_out`: the main job on a trained network and real images, nothing downloaded.

Loads the shipped SiLU network at W4A4 (LSQ+, networks/README.md says how it was trained), measures its accuracy on the
handwritten digits kept for testing beside the float network it came from, runs it with integer arithmetic alone and
compares every code, and prices it with `hwsim.evaluate`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from hwsim.accelerator import load_accelerator
from hwsim.errors import HwsimError
from hwsim.evaluate import evaluate
from hwsim.integer.certificate import certify
from hwsim.machine import Accelerator
from hwsim.models_in import load_model_argument
from hwsim.report import render, write_report
from quant import checkpoint, data
from quant.loop import evaluate as accuracy_of

NETWORKS = Path(__file__).resolve().parent.parent / "networks"
FLOAT, QUANTIZED = "digits_silu_float", "digits_silu_w4a4"


def measured_accuracy(folder: Path) -> tuple[float, int]:
    """Top-1 in percent on the test images of the data the network was trained for, and how many they are."""
    model, meta = checkpoint.load(folder)
    digits = data.load(meta.data, test_only=True)
    assert meta.normalisation is not None
    return accuracy_of(model, digits.test, meta.normalisation), len(digits.test)


def integer_line(folder: Path, images: int, accelerator: Accelerator) -> str:
    """Whether the integer machine computes the trained network's codes, in one line."""
    model, meta = checkpoint.load(folder)
    digits = data.load(meta.data, test_only=True)
    assert meta.normalisation is not None
    inputs, _ = next(data.eval_batches(digits.test, meta.normalisation, images))
    found = certify(model, inputs, name=meta.model, capabilities=accelerator.capabilities, machine=accelerator.name)
    compared = sum(layer.codes.elements for layer in found.layers)
    differing = sum(layer.codes.end_to_end_differing for layer in found.layers)
    return f"integer machine: {differing} of {compared:,} codes differ from the float64 network's ({images} images)"


def run(out: Path, accelerator: str, networks: Path = NETWORKS) -> None:
    """Print accuracies and costs, leave report files in `out`."""
    for name, words in ((FLOAT, "float"), (QUANTIZED, "W4A4, LSQ+")):
        percent, images = measured_accuracy(networks / name)
        print(f"{name} ({words}): {percent:.2f} % of {images} real test digits")
    machine = load_accelerator(accelerator)
    print(integer_line(networks / QUANTIZED, 64, machine))
    report = evaluate(load_model_argument(str(networks / QUANTIZED)), machine)
    render(report)
    for path in write_report(report, out):
        print(f"wrote {path}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0, 2 for bad input, 3 where the accelerator cannot run the network."""
    parser = argparse.ArgumentParser(prog="python -m experiments.demo", description=(__doc__ or "").split("\n\n")[-1])
    parser.add_argument("--out", type=Path, default=Path("demo_out"), help="folder of the report files (demo_out)")
    parser.add_argument("--accelerator", default="eyeriss_v1", help="YAML file or shipped spec (eyeriss_v1)")
    options = parser.parse_args(arguments)
    try:
        run(options.out, options.accelerator)
    except HwsimError as problem:
        print(f"demo: {problem}", file=sys.stderr)
        return problem.exit_code
    except (ValueError, OSError) as problem:
        print(f"demo: {problem}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
