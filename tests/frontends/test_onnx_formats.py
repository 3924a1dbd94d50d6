"""Formats in ONNX files: blocks of MatMulNBits and DequantizeLinear, MXFP4, NVFP4 and FP8 weights keep their scales."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwsim.errors import WorkloadError
from hwsim.frontends.argument import load_model_argument
from hwsim.machine.load import load_accelerator
from hwsim.network.formats import NAMED, Format, parse_format
from hwsim.network.layer import Layer
from hwsim.pricing.scales import scale_work

onnx = pytest.importorskip("onnx")
K, N, ROWS = 64, 48, 3


def linear(path: Path, nodes: list[Any], tensors: list[Any], opset: int = 25, kind: str = "FLOAT") -> Layer:
    """The only layer with products of a file that multiplies x (ROWS, K) by K x N weights."""
    number = getattr(onnx.TensorProto, kind)
    x, y = (onnx.helper.make_tensor_value_info(n, number, s) for n, s in (("x", (ROWS, K)), ("y", (ROWS, N))))
    graph = onnx.helper.make_graph(nodes, "net", [x], [y], tensors)
    imports = [onnx.helper.make_opsetid("", opset), onnx.helper.make_opsetid("com.microsoft", 1)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=imports, ir_version=11), path)
    return next(layer for layer in load_model_argument(str(path)) if layer.has_macs)


def tensor(name: str, kind: str, shape: tuple[int, ...], value: float = 1.0) -> Any:
    """A stored tensor of one value."""
    number = getattr(onnx.TensorProto, kind)
    if kind in ("INT4", "UINT4", "FLOAT4E2M1"):  # two codes a byte
        return onnx.helper.make_tensor(
            name, number, shape, bytes([int(value) * 17]) * (int(np.prod(shape)) // 2), raw=True
        )
    if kind.startswith("FLOAT8"):
        return onnx.helper.make_tensor(name, number, shape, bytes([127]) * int(np.prod(shape)), raw=True)
    return onnx.helper.make_tensor(name, number, shape, [value] * int(np.prod(shape)))


@pytest.mark.parametrize("kind", ["FLOAT", "FLOAT16"])
@pytest.mark.parametrize("zeros", ["", "code", "real"])
def test_packed_weights_keep_their_groups(tmp_path: Path, kind: str, zeros: str) -> None:
    scale = {"FLOAT": "fp32", "FLOAT16": "fp16"}[kind]
    tensors = [
        tensor("w", "UINT8", (N, K // 32, 16)), tensor("s", kind, (N, K // 32)),
        *([tensor("z", "UINT8", (N, 1), 8)] if zeros == "code" else []),
        *([tensor("z", kind, (N, K // 32), 7.5)] if zeros == "real" else []),
    ]  # fmt: skip
    inputs = ["x", "w", "s", *(["z"] if zeros else [])]
    node = onnx.helper.make_node("MatMulNBits", inputs, ["y"], domain="com.microsoft", bits=4, block_size=32, K=K, N=N)
    layer = linear(tmp_path / "packed.onnx", [node], tensors, 21, kind)
    weight = layer.weight
    assert weight is not None
    assert layer.inputs[0].element == ("fp16" if kind == "FLOAT16" else "int")  # 32 bits: no format
    assert scale_work(layer, load_accelerator("a100")).way == ("unpack" if kind == "FLOAT16" else "vector")
    offset = {"": "", "code": "code", "real": scale}[zeros]
    assert weight.format == Format("int", 4, "group", 32, scale, offset)
    assert (weight.scales, weight.offset) == (N * K // 32, bool(zeros))


@pytest.mark.parametrize("zero", [0, 8])
@pytest.mark.parametrize(("axis", "shape"), [(0, (K // 16, N)), (1, (N, K // 16))])
def test_blocked_integers_keep_their_groups(tmp_path: Path, axis: int, shape: tuple[int, int], zero: int) -> None:
    held = (K, N) if axis == 0 else (N, K)
    tensors = [tensor("w", "UINT4", held, 3), tensor("s", "FLOAT16", shape), tensor("z", "UINT4", shape, zero)]
    nodes = [
        onnx.helper.make_node("DequantizeLinear", ["w", "s", "z"], ["wide"], axis=axis, block_size=16),
        onnx.helper.make_node("Gemm", ["x", "wide"], ["y"], transB=axis),
    ]
    weight = linear(tmp_path / "blocked.onnx", nodes, tensors, 21, "FLOAT16").weight
    assert weight is not None
    assert weight.format == parse_format("4g16z" if zero else "4g16")
    assert weight.scales == N * K // 16


def test_block_floats_are_read_behind_the_cast_of_their_scales(tmp_path: Path) -> None:
    cast = onnx.helper.make_node("Cast", ["s"], ["wide_s"], to=onnx.TensorProto.FLOAT)
    product = onnx.helper.make_node("MatMul", ["x", "wide"], ["y"])
    cases: dict[str, tuple[str, int, list[Any]]] = {
        "MXFP4": ("FLOAT8E8M0", 32, [cast]),
        "NVFP4": ("FLOAT8E4M3FN", 16, [cast, onnx.helper.make_node("Mul", ["wide_s", "t"], ["scaled"])]),
    }
    for name, (kind, block, before) in cases.items():
        scale = before[-1].output[0]
        take = onnx.helper.make_node("DequantizeLinear", ["w", scale], ["wide"], axis=0, block_size=block)
        tensors = [tensor("w", "FLOAT4E2M1", (K, N)), tensor("s", kind, (K // block, N)), tensor("t", "FLOAT", ())]
        layer = linear(tmp_path / f"{name}.onnx", [*before, take, product], tensors)
        weight = layer.weight
        assert weight is not None
        assert weight.format == NAMED[name]
        assert weight.side_bits == NAMED[name].side_bits(N, K)


def test_small_floats_are_no_integers(tmp_path: Path) -> None:
    nodes = [
        onnx.helper.make_node("DequantizeLinear", ["w", "s"], ["wide"]),
        onnx.helper.make_node("MatMul", ["x", "wide"], ["y"]),
    ]
    tensors = [tensor("w", "FLOAT8E4M3FN", (K, N)), tensor("s", "FLOAT", ())]
    weight = linear(tmp_path / "fp8.onnx", nodes, tensors, 21).weight
    assert weight is not None
    assert weight.format == NAMED["FP8"]
    tensors[0] = tensor("w", "FLOAT8E4M3FNUZ", (K, N))
    with pytest.raises(WorkloadError, match="float8e4m3fnuz is an element that no machine here multiplies"):
        linear(tmp_path / "other.onnx", nodes, tensors, 21)
