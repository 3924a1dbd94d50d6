# pyright: basic
"""`python -m hwsim.export_c CHECKPOINT OUT.c`: a trained network as one C99 file of integers.

The file computes exactly what the integer machine computes, code for code. Prints its size and what it needs.
Exit codes: 0; 2 for bad input.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from hwsim.errors import WorkloadError, exit_code_of
from hwsim.integer.c_source import c_source
from hwsim.integer.lower import lower
from hwsim.integer.run import Machine
from hwsim.workload import write_atomically
from quant import checkpoint


def export(folder: Path, out: Path, name: str | None) -> None:
    """Read the checkpoint, write the C file, say how large it is."""
    model, meta = checkpoint.load(folder)
    if not meta.input_shape:
        raise WorkloadError(f"{folder}: settings.json has no input_shape")
    lowered = lower(model, torch.zeros(1, *meta.input_shape), name=meta.model)
    text = c_source(Machine(lowered), name or out.stem)
    write_atomically(out, text)
    print(f"{out}: {len(text)} bytes of C, weights {lowered.weight_bits // 8} bytes packed")


def main(argv: Sequence[str] | None = None) -> int:
    """Run; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m hwsim.export_c", description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="folder of a trained, quantized network")
    parser.add_argument("out", type=Path, help="the C file to write")
    parser.add_argument("--name", help="prefix of its functions (default: the file's name)")
    arguments = parser.parse_args(argv)
    return exit_code_of(lambda: export(arguments.checkpoint, arguments.out, arguments.name), ValueError)


if __name__ == "__main__":
    raise SystemExit(main())
