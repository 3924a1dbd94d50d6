"""`python -m experiments.int8_resnet8 FILE.tflite`: MLPerf Tiny's int8 ResNet-8, which nobody here made, on CIFAR-10.

Runs the file on the integer machine with three kinds of requantization, and, where ai-edge-litert is installed, in its
own runtime with three sets of kernels; one CSV row each: images of the test set whose largest result is the label's.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments import table
from experiments.command_line import measure_main
from experiments.tables import markdown
from hwsim.integer.run import Machine, Mode
from hwsim.integer.tflite.tflite import lower_tflite
from hwsim.integer.tflite.tflite_kernels import tflite_rules
from quant import data

TABLE = Path("experiments/data/int8_resnet8.csv")
RUNTIME = "ai-edge-litert"
# Name in the table -> the runtime's OpResolverType.
KERNELS = {
    "reference kernels": "BUILTIN_REF",
    "default (XNNPACK)": "AUTO",
    "optimised kernels without delegate": "BUILTIN_WITHOUT_DEFAULT_DELEGATES",
}


def ours(path: Path) -> Iterator[tuple[str, Callable[[Tensor], Tensor]]]:
    """(arithmetic, results of images (N, 3, 32, 32) in 0..255) of the integer machine."""
    model = lower_tflite(path)
    machines = {
        "ours, exact (half to even of the real number)": Machine(model),
        "ours, 32-bit fixed point, bias in the accumulator's unit": Machine(model, Mode("fixed", 32)),
        "ours, `tflite_rules`": Machine(model, rules=tflite_rules(model)),
    }
    for name, machine in machines.items():
        yield name, lambda images, m=machine: m.run(images).values


def theirs(path: Path) -> Iterator[tuple[str, Callable[[Tensor], Tensor]]]:
    """The same of the file's own runtime; nothing where it is not installed."""
    try:
        from ai_edge_litert import interpreter as lite
    except ImportError:
        print(f"{RUNTIME} is not installed: only our own arithmetic is measured (pip install {RUNTIME})")
        return
    for name, kind in KERNELS.items():
        runtime: Any = lite.Interpreter(
            str(path), num_threads=1, experimental_op_resolver_type=getattr(lite.OpResolverType, kind)
        )
        yield f"{RUNTIME} {metadata.version(RUNTIME)}, {name}", lambda images, r=runtime: invoke(r, images)


def invoke(runtime: Any, images: Tensor) -> Tensor:
    """Codes of the results, image by image."""
    runtime.allocate_tensors()
    source, result = runtime.get_input_details()[0], runtime.get_output_details()[0]
    scale, zero = source["quantization"]
    codes = np.clip(np.round(images.permute(0, 2, 3, 1).numpy() / scale) + zero, -128, 127).astype(np.int8)
    found = []
    for one in codes:
        runtime.set_tensor(source["index"], one[None])
        runtime.invoke()
        found.append(runtime.get_tensor(result["index"])[0])
    return torch.from_numpy(np.stack(found).astype(np.int64))


def correct(results: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> int:
    """Images whose largest result (the first of equal ones) is the label's."""
    pairs = zip(images.split(200), labels.split(200), strict=True)
    return sum(int((results(batch).argmax(1) == wanted).sum()) for batch, wanted in pairs)


def page(rows: Sequence[table.Row]) -> str:
    """The table of docs/integer.md."""
    heads = ("arithmetic", f"correct of {int(rows[0]['images']):,}")
    return markdown(heads, [[row["arithmetic"], f"{int(row['correct']):,}"] for row in rows])


def run(given: argparse.Namespace) -> None:
    """Write and print the rows."""
    test = data.load("cifar10", given.data_dir, test_only=True).test.subset(torch.arange(given.images))
    images, labels = test.images.float(), test.labels  # type: ignore[attr-defined]
    for part in (ours(given.file), theirs(given.file)):
        for name, results in part:
            row = {"arithmetic": name, "correct": correct(results, images, labels), "images": len(labels)}
            table.append(given.out, [row], key="arithmetic")
            print(f"{name}: {row['correct']} of {row['images']}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiments.int8_resnet8", description=__doc__)
    parser.add_argument("file", type=Path, help="pretrainedResnet_quant.tflite of MLPerf Tiny")
    return measure_main(parser, run, arguments, images=10000, out=TABLE)


if __name__ == "__main__":
    raise SystemExit(main())
