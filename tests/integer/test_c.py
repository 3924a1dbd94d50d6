"""The C file compiled by gcc gives the integer machine's codes, tensor by tensor, and its result."""

from __future__ import annotations

import ctypes
import random
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from hwsim import export_c
from hwsim.errors import UnsupportedOp, WorkloadError
from hwsim.integer.export.c_check import run_compiled
from hwsim.integer.export.c_kernels import convolution, convolution_of_many, windows
from hwsim.integer.export.c_source import c_source
from hwsim.integer.lowering.lower import lower
from hwsim.integer.run import Machine
from quant import checkpoint
from tests.integer.nets import quantized, zoo
from tests.integer.test_lower import SILU_SMALL, Mixture
from tests.integer.test_recurrent import Wrapped

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
STRICT = ("-Wall", "-Wextra", "-Werror", "-Wno-unused-function")


def check_against_machine(model: nn.Module, images: torch.Tensor) -> int:
    """Compile, run, compare every tensor of codes and the result; returns how many codes were compared."""
    machine = Machine(lower(model, images))
    found = run_compiled(machine, c_source(machine, "net"), images, flags=STRICT, repeats=1)
    assert found.differing == 0
    return found.codes


@pytest.mark.long
@needs_gcc
@pytest.mark.parametrize(
    ("name", "bits", "arguments", "choices"),
    [
        ("resnet8", 8, {"image_size": 16}, {"config": 4, "padding_policy": "border_bias"}),
        ("silu_se_net", 4, SILU_SMALL, {"padding_policy": "border_bias"}),
        ("silu_se_net", 2, SILU_SMALL, {"padding_policy": "pad_code"}),
    ],
)
def test_c_equals_the_machine(name: str, bits: int, arguments: dict[str, Any], choices: dict[str, Any]) -> None:
    model, images = zoo(name, bits, batch=3, arguments=arguments, **choices)
    assert check_against_machine(model, images) > 1000


@pytest.mark.long
@needs_gcc
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_c_of_recurrent_layers(kind: type[nn.RNNBase]) -> None:
    """States between steps as 64-bit words, gates as tables of polynomials, two layers and both directions."""
    torch.manual_seed(0)
    images = torch.randn(3, 5, 6)
    layer = kind(6, 4, num_layers=2, bidirectional=True, batch_first=True)
    assert check_against_machine(quantized(Wrapped(layer, "ends", width=6).eval(), images, 8), images) > 300


@needs_gcc
def test_c_of_one_dimensional_networks() -> None:
    torch.manual_seed(0)
    images = torch.randn(3, 2, 24)
    assert check_against_machine(quantized(Mixture().eval(), images, 4), images) > 100


def test_float_operators_are_named() -> None:
    model, images = zoo("vit_b_16", 4, batch=1, arguments={"image_size": 16, "dim": 8, "depth": 1, "heads": 2})
    with pytest.raises(UnsupportedOp, match="softmax"):
        c_source(Machine(lower(model, images)))


@pytest.mark.long
@needs_gcc
def test_a_file_that_differs_is_counted_and_a_compiler_is_needed() -> None:
    model, images = zoo("resnet8", 4, batch=1, arguments={"image_size": 8})
    machine = Machine(lower(model, images))
    source = c_source(machine, "net")
    line = "return clamp(asr(a * m + n, f), low, high);"
    assert source.count(line) == 1
    found = run_compiled(machine, source.replace(line, line.replace("f)", "f) ^ 1", 1)), images, repeats=1)
    assert found.differing > 0
    with pytest.raises(WorkloadError, match="'no-such-cc' is not on the PATH"):
        run_compiled(machine, source, images, compiler="no-such-cc")


@pytest.mark.long
@needs_gcc
def test_the_command_writes_a_file_and_runs_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, _ = zoo("resnet8", 4, batch=1, arguments={"image_size": 8})
    meta = checkpoint.Meta(
        "resnet8", {"image_size": 8}, {"weight_bits": 4, "act_bits": 4, "first_last": "same"}, (3, 8, 8), 10
    )
    checkpoint.save(tmp_path / "net", model, meta)
    assert export_c.main([str(tmp_path / "net"), str(tmp_path / "out.c"), "--images", "2", "--random"]) == 0
    size, ran = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r".*out.c: \d+ bytes of C, weights \d+ bytes packed, working memory \d+ bytes", size)
    assert re.search(r"gcc .*: 0 of \d{5} codes and results of 2 images differ .* [\d.]+ ms of CPU per image", ran)
    written = (tmp_path / "out.c").read_text(encoding="utf-8").splitlines()
    assert written[0].startswith("/* hwsim identity ")
    assert written[1].startswith("/* out: an integer neural network in C99")
    assert export_c.main([str(tmp_path / "absent"), str(tmp_path / "no.c")]) == 2
    assert capsys.readouterr().err == f"hwsim: {tmp_path / 'absent'}: no such checkpoint folder\n"
    assert not (tmp_path / "no.c").exists()


@needs_gcc
def test_sums_of_any_window_are_exact(tmp_path: Path) -> None:
    """Random geometries, borders on any side, codes at the border: the C text against sums in int64."""
    types = ("uint8_t", "int8_t", "int32_t")
    parts = [convolution("rows", *types), windows(4 * 25), convolution_of_many("many", types[0])]
    text = "\n".join(["#include <stdint.h>", *parts]).replace("static void rows", "void rows")
    text = text.replace("static void many", "void many")
    (tmp_path / "conv.c").write_text(text, encoding="utf-8")
    command = ["gcc", "-std=c99", "-O3", *STRICT, "-shared", "-fPIC", "conv.c", "-o", "conv.so"]
    subprocess.run(command, cwd=tmp_path, check=True)
    library = ctypes.CDLL(str(tmp_path / "conv.so"))
    draw = random.Random(0)
    for _ in range(400):
        groups, c, k = draw.choice([1, 1, 2, 3]), draw.randint(1, 4), draw.randint(1, 3)
        (r, s), (up, down, left, right) = draw.choices([1, 1, 2, 3, 5], k=2), draw.choices([0, 0, 0, 1, 2, 4], k=4)
        stride, dilation = draw.choices([1, 1, 2, 3], k=2), draw.choices([1, 1, 2], k=2)
        h, w = draw.randint(1, 9), draw.randint(1, 9)
        p = (h + up + down - (r - 1) * dilation[0] - 1) // stride[0] + 1
        q = (w + left + right - (s - 1) * dilation[1] - 1) // stride[1] + 1
        if p < 1 or q < 1:
            continue
        code = draw.choice([0, 7])
        x = torch.randint(0, 256, (1, groups * c, h, w))
        weight = torch.randint(-128, 128, (groups * k, c, r, s))
        padded = nn.functional.pad(x, (left, right, up, down), value=code)
        expected = nn.functional.conv2d(
            padded.double(), weight.double(), stride=stride, dilation=dilation, groups=groups
        ).to(torch.int32)
        geometry = [groups, c, h, w, k, p, q, r, s, *stride, *dilation, up, left, code]
        held = x.to(torch.uint8).contiguous(), weight.to(torch.int8).contiguous()
        for function in (library.rows, library.many):
            found = torch.full_like(expected, 77)
            operands = [ctypes.c_void_p(tensor.data_ptr()) for tensor in (*held, found)]
            function(*operands, (ctypes.c_int * 16)(*geometry))
            assert torch.equal(found, expected), geometry
