"""How fast a trained network runs on integers, side by side: exported C, onnxruntime, the integer machine, float torch.

    python -m benchmarks.integer_speed [CHECKPOINT] [--images 20] [--rounds 5]

All contenders take the same images, one thread each, in turn in every round; the figure is the median over the rounds
of CPU milliseconds per image, and the ratio to onnxruntime's. The C file and the QDQ file are exported here from the
checkpoint; onnxruntime fuses integer kernels where it has them and computes the rest in float32.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from experiments.tables import markdown
from hwsim.export_c import export
from hwsim.integer.export.c_check import FLAGS
from hwsim.integer.export.onnx_source import onnx_network
from hwsim.integer.proof.images import test_images
from quant import checkpoint

Run = Callable[[], None]


def compiled(text: str, codes: bytes, folder: Path, *flags: str) -> Run:
    """A run of the exported file over all images, its start included."""
    program = folder / ("network" + "".join(flags))
    (folder / "network.c").write_text(text, encoding="utf-8")
    command = ["gcc", *FLAGS, *flags, "-DHWSIM_MAIN", str(folder / "network.c"), "-o", str(program)]
    subprocess.run(command, check=True)
    return lambda: _quiet(program, codes)


def _quiet(program: Path, codes: bytes) -> None:
    subprocess.run([program], input=codes, capture_output=True, check=True)


def runtime(proto: bytes, images: Tensor) -> Run:
    """onnxruntime on the QDQ file, image by image, one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(proto, options, providers=["CPUExecutionProvider"])
    name, arrays = session.get_inputs()[0].name, [image[None].numpy() for image in images]

    def run() -> None:
        for array in arrays:
            session.run(None, {name: array})

    return run


def one_by_one(call: Callable[[Tensor], object], images: Tensor) -> Run:
    """A torch callable, image by image."""

    def run() -> None:
        with torch.no_grad():
            for image in images:
                call(image[None])

    return run


def contenders(folder: Path, images: Tensor, scratch: Path) -> dict[str, Run]:
    """What runs the network, by name; onnxruntime first, to which the others are compared."""
    made = export(folder, "network")
    model, _ = checkpoint.load(folder)
    encode = made.machine.model.nodes[0].name
    codes = made.machine.run(images, keep=[encode]).codes[encode].contiguous().numpy().tobytes()
    proto = onnx_network(model, images[:1], form="qdq", offset="keep").proto.SerializeToString()
    return {
        "onnxruntime, QDQ file": runtime(proto, images),
        "exported C": compiled(made.text, codes, scratch),
        "exported C, -march=native": compiled(made.text, codes, scratch, "-march=native"),
        "integer machine": one_by_one(made.machine.run, images),
        "torch, fake quantized": one_by_one(model.eval(), images),
    }


def measure(runs: dict[str, Run], rounds: int, images: int) -> dict[str, float]:
    """Median CPU milliseconds per image of each; every round takes all of them in turn."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds + 1):
        for name, run in runs.items():
            before = _cpu_s()
            run()
            if turn:  # the first round warms up
                taken[name].append(1e3 * (_cpu_s() - before) / images)
    return {name: statistics.median(found) for name, found in taken.items()}


def _cpu_s() -> float:
    """Seconds of this process and of its ended children."""
    children = os.times()
    return time.process_time() + children.children_user + children.children_system


def main() -> None:
    """Print the table."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("checkpoint", nargs="?", type=Path, default=Path("networks/cifar10_silu_w4a4"))
    parse.add_argument("--images", type=int, default=20)
    parse.add_argument("--rounds", type=int, default=5)
    options = parse.parse_args()
    torch.set_num_threads(1)
    images, _ = test_images(options.checkpoint, None, options.images, random=False)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(contenders(options.checkpoint, images, Path(folder)), options.rounds, options.images)
    base = next(iter(found.values()))
    print(f"{options.checkpoint.name}: CPU milliseconds per image, one thread, median of {options.rounds} rounds")
    rows = [[name, f"{value:.2f}", f"{value / base:.2f}"] for name, value in found.items()]
    print(markdown(("contender", "ms per image", "times onnxruntime's"), rows))


if __name__ == "__main__":
    main()
