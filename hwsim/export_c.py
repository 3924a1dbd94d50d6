# pyright: basic
"""`python -m hwsim.export_c CHECKPOINT OUT.c`: a trained network as one C99 file of integers.

The file computes exactly what the integer machine computes, code for code. Prints its size and what it needs. With
--images the file is compiled with gcc -O2, run, and compared with the integer machine, and its time per image printed.
Exit codes: 0; 1 when the compiled file differs; 2 for bad input.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from hwsim.errors import WorkloadError, exit_code_of
from hwsim.files.argument import CommandLine, parse_path
from hwsim.files.atomic import write_atomically
from hwsim.integer.export.c_check import run_compiled
from hwsim.integer.export.c_source import c_source, working_memory
from hwsim.integer.export.seal import sealed_c
from hwsim.integer.lowering.lower import lower
from hwsim.integer.proof.images import test_images
from hwsim.integer.run import Machine
from quant import checkpoint


@dataclass(frozen=True)
class ExportedC:
    """The text of a C file, the machine that it computes like, and what it needs."""

    text: str
    machine: Machine

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weights, each layer at the width that its codes need."""
        return self.machine.model.weight_bits // 8

    @property
    def memory_bytes(self) -> int:
        """Bytes of the arena in which all tensors of one image live, and of the windows of its convolutions."""
        return working_memory(self.machine.model)


def export(folder: Path, name: str) -> ExportedC:
    """The C file of a checkpoint."""
    model, meta = checkpoint.load(folder)
    if not meta.input_shape:
        raise WorkloadError(f"{folder}: settings.json has no input_shape")
    machine = Machine(lower(model, torch.zeros(1, *meta.input_shape), name=meta.model))
    return ExportedC(sealed_c(c_source(machine, name), checkpoint.identity(folder)), machine)


def run(arguments: argparse.Namespace) -> int:
    """Write the file, say how large it is, and compare; 1 where it differs."""
    out: Path = arguments.out
    made = export(arguments.checkpoint, arguments.name or out.stem)
    write_atomically(out, made.text)
    print(
        f"{out}: {len(made.text)} bytes of C, weights {made.weight_bytes} bytes packed, working memory "
        f"{made.memory_bytes} bytes"
    )
    if arguments.images <= 0:
        return 0
    images, _ = test_images(arguments.checkpoint, arguments.data_dir, arguments.images, arguments.random)
    found = run_compiled(made.machine, made.text, images)
    print(found.text())
    return 1 if found.differing else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run; the exit code."""
    parser = CommandLine(prog="hwsim export-c", description=__doc__)
    parser.add_argument("checkpoint", type=parse_path, help="folder of a trained, quantized network")
    parser.add_argument("out", type=parse_path, help="the C file to write")
    parser.add_argument("--name", help="prefix of its functions (default: the file's name)")
    parser.add_argument("--images", type=int, default=0, help="test images to run the file on (default 0: none)")
    parser.add_argument("--random", action="store_true", help="use noise instead of images")
    parser.add_argument(
        "--data-dir", type=parse_path, help="folder of the checkpoint's data set (default: $HWSIM_DATA)"
    )
    arguments = parser.parse_args(argv)
    return exit_code_of(lambda: run(arguments), ValueError)


if __name__ == "__main__":
    raise SystemExit(main())
