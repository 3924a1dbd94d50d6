"""The C file compiled by gcc gives the integer machine's codes, tensor by tensor, and its result."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hwsim import export_c
from hwsim.errors import UnsupportedOp
from hwsim.integer.c_source import c_source, fixed_result
from hwsim.integer.forms import Form
from hwsim.integer.lower import lower
from hwsim.integer.run import Machine
from quant import checkpoint
from tests.integer.nets import quantized, zoo
from tests.integer.test_lower import SILU_SMALL, Mixture

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")


def compiled(source: str, folder: Path) -> Path:
    """The program of a C file; warnings are errors."""
    (folder / "net.c").write_text(source, encoding="utf-8")
    program = folder / "net"
    flags = ["-std=c99", "-O2", "-Wall", "-Wextra", "-Werror", "-Wno-unused-function", "-DHWSIM_MAIN"]
    subprocess.run(["gcc", *flags, str(folder / "net.c"), "-o", str(program)], check=True)
    return program


def check_against_machine(model: nn.Module, images: torch.Tensor, folder: Path) -> int:
    """Compile, run, compare every tensor of codes and the result; returns how many codes were compared."""
    lowered = lower(model, images)
    machine = Machine(lowered)
    program = compiled(c_source(machine, "net"), folder)
    coded = [n.name for n in lowered.nodes if n.code is not None]
    output = lowered.output
    assert isinstance(output, Form)
    outcome = machine.run(images, keep=[*coded, *output.sources])
    entrance = outcome.codes[lowered.nodes[0].name]
    done = subprocess.run(
        [program, folder / "trace"], input=entrance.numpy().tobytes(), capture_output=True, check=True
    )
    result = torch.from_numpy(np.frombuffer(done.stdout, np.int64).copy()).view(len(images), *output.shape[1:])
    assert torch.equal(result, fixed_result(output, outcome.codes))
    trace, place, compared = (folder / "trace").read_bytes(), 0, 0
    for i in range(len(images)):
        for name in coded:
            ours = outcome.codes[name]
            one = (ours[i] if ours.shape[0] == len(images) else ours[0]).contiguous().numpy()
            theirs = np.frombuffer(trace, one.dtype, one.size, place).reshape(one.shape)
            assert np.array_equal(one, theirs), f"{name} of image {i}"
            place, compared = place + one.nbytes, compared + one.size
    assert place == len(trace)
    return compared


@needs_gcc
@pytest.mark.parametrize(
    ("name", "bits", "arguments", "choices"),
    [
        ("resnet8", 8, {"image_size": 16}, {"config": 4, "padding_policy": "border_bias"}),
        ("silu_se_net", 4, SILU_SMALL, {"padding_policy": "border_bias"}),
        ("silu_se_net", 2, SILU_SMALL, {"padding_policy": "pad_code"}),
    ],
)
def test_c_equals_the_machine(
    name: str, bits: int, arguments: dict[str, Any], choices: dict[str, Any], tmp_path: Path
) -> None:
    model, images = zoo(name, bits, batch=3, arguments=arguments, **choices)
    assert check_against_machine(model, images, tmp_path) > 1000


@needs_gcc
def test_c_of_one_dimensional_networks(tmp_path: Path) -> None:
    torch.manual_seed(0)
    images = torch.randn(3, 2, 24)
    assert check_against_machine(quantized(Mixture().eval(), images, 4), images, tmp_path) > 100


def test_float_operators_are_named() -> None:
    model, images = zoo("vit_b_16", 4, batch=1, arguments={"image_size": 16, "dim": 8, "depth": 1, "heads": 2})
    with pytest.raises(UnsupportedOp, match="softmax"):
        c_source(Machine(lower(model, images)))


def test_the_command_writes_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, _ = zoo("resnet8", 4, batch=1, arguments={"image_size": 8})
    meta = checkpoint.Meta(
        "resnet8", {"image_size": 8}, {"weight_bits": 4, "act_bits": 4, "first_last": "same"}, (3, 8, 8), 10
    )
    checkpoint.save(tmp_path / "net", model, meta)
    assert export_c.main([str(tmp_path / "net"), str(tmp_path / "out.c")]) == 0
    assert "bytes of C" in capsys.readouterr().out
    assert (tmp_path / "out.c").read_text(encoding="utf-8").startswith("/* out: an integer neural network in C99")
    assert export_c.main([str(tmp_path / "absent"), str(tmp_path / "no.c")]) == 2
    assert capsys.readouterr().err == f"hwsim: {tmp_path / 'absent'}: no such checkpoint folder\n"
    assert not (tmp_path / "no.c").exists()
