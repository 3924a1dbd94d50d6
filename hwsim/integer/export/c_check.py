# pyright: basic
"""Compiling an exported C file and running it beside the integer machine.

`run_compiled(machine, source, images) -> CompiledRun`: every tensor of codes and every result compared, time measured.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hwsim.errors import WorkloadError
from hwsim.integer.arithmetic.forms import Form
from hwsim.integer.export.c_source import fixed_result
from hwsim.integer.graph import Node
from hwsim.integer.run import Machine

FLAGS = ("-std=c99", "-O3")  # -O3: rows of outputs become vectors


@dataclass(frozen=True)
class CompiledRun:
    """The compiled file against the machine. `differing`: codes and results; `milliseconds` of CPU per image."""

    compiler: str
    images: int
    codes: int
    differing: int
    milliseconds: float

    def text(self) -> str:
        """One line."""
        return (
            f"{self.compiler} {' '.join(FLAGS)}: {self.differing} of {self.codes} codes and results of {self.images} "
            f"images differ from the integer machine's; {self.milliseconds:.1f} ms of CPU per image"
        )


def image_of(codes: Tensor, image: int, node: Node) -> Tensor:
    """The codes of one image: along the axis that holds the images (a permutation may have moved it), or of all."""
    axes = [a for a, (size, one) in enumerate(zip(codes.shape, node.shape, strict=True)) if size != one]
    return codes.select(axes[0], image) if axes else codes


def run_compiled(
    machine: Machine, source: str, images: Tensor, *, compiler: str = "gcc", flags: Sequence[str] = (), repeats: int = 5
) -> CompiledRun:
    """Compile `source` (of this machine's network), run it on real images, compare tensor by tensor.

    The time is the least of `repeats` runs that write no trace: what else the machine does only adds to it.
    WorkloadError where there is no such compiler.
    """
    if shutil.which(compiler) is None:
        raise WorkloadError(f"running the C file needs a C compiler: {compiler!r} is not on the PATH")
    model, output = machine.model, machine.model.output
    assert isinstance(output, Form)  # c_source refuses others
    coded = [n for n in model.nodes if n.code is not None]
    outcome = machine.run(images, keep=[*(n.name for n in coded), *output.sources])
    entrance = outcome.codes[model.nodes[0].name].contiguous().numpy().tobytes()
    with tempfile.TemporaryDirectory(prefix="hwsim_c_") as name:
        folder = Path(name)
        program = folder / "network"
        (folder / "network.c").write_text(source, encoding="utf-8")
        command = [compiler, *FLAGS, *flags, "-DHWSIM_MAIN", str(folder / "network.c"), "-o", str(program)]
        subprocess.run(command, check=True)
        done = subprocess.run([program, folder / "trace"], input=entrance, capture_output=True, check=True)
        trace = (folder / "trace").read_bytes()
        timed = [subprocess.run([program], input=entrance, capture_output=True, check=True) for _ in range(repeats)]
    result = torch.from_numpy(np.frombuffer(done.stdout, np.int64).copy()).view(len(images), *output.shape[1:])
    differing = int((result != fixed_result(output, outcome.codes)).sum())
    compared, place = result.numel(), 0
    for i in range(len(images)):
        for node in coded:
            ours = outcome.codes[node.name]
            one = image_of(ours, i, node).contiguous().numpy().ravel()
            theirs = np.frombuffer(trace, one.dtype, one.size, place)
            differing += int((one != theirs).sum())
            place, compared = place + one.nbytes, compared + one.size
    assert place == len(trace), f"the trace holds {len(trace)} bytes, its tensors {place}"
    times = [float(found[1]) for run in timed if (found := re.search(rb"([\d.]+) ms each", run.stderr))]
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True, text=True).stdout.splitlines()[0]
    return CompiledRun(version, len(images), compared, differing, min(times))
