"""Formats in ONNX files: blocks of MatMulNBits and DequantizeLinear, MXFP4, NVFP4 and FP8 weights keep their scales."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hwsim
from hwsim.errors import CapabilityError, WorkloadError
from hwsim.frontends.argument import load_model_argument
from hwsim.machine.load import load_accelerator
from hwsim.network.formats import NAMED, Format, parse_format
from hwsim.network.layer import Layer
from hwsim.pricing.scales import scale_work

onnx = pytest.importorskip("onnx")
K, N, ROWS = 64, 48, 3


def linear(
    path: Path, nodes: list[Any], tensors: list[Any], opset: int = 25, kind: str = "FLOAT", inner: int = K
) -> Layer:
    """The only layer with products of a file that multiplies x (ROWS, inner) by inner x N weights."""
    number = getattr(onnx.TensorProto, kind)
    x, y = (onnx.helper.make_tensor_value_info(n, number, s) for n, s in (("x", (ROWS, inner)), ("y", (ROWS, N))))
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


@pytest.mark.parametrize(
    ("machine", "way_out"),
    [
        ("a100", {"bits": "W4g32A16", "first_last": "same"}),  # 16-bit floats, the weights as the file has them
        ("block_array", {"bits": "W4g32A8", "first_last": "same"}),  # no 16-bit MACs
        ("eyeriss_v1", {"bits": "W8A8", "first_last": "same"}),  # no scales along a sum
    ],
)
def test_float32_inputs_that_a_machine_does_not_multiply_are_refused_with_bits_that_it_runs(
    tmp_path: Path, machine: str, way_out: dict[str, str]
) -> None:
    tensors = [tensor("w", "UINT8", (N, K // 32, 16)), tensor("s", "FLOAT", (N, K // 32))]
    node = onnx.helper.make_node("MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", bits=4,
                                 block_size=32, K=K, N=N)  # fmt: skip
    file = tmp_path / "packed.onnx"
    held = linear(file, [node], tensors, 21).weight
    assert held is not None
    assert held.format is not None
    said = ", ".join(f"{key}={value!r}" for key, value in way_out.items())
    options = " ".join(f"--{key.replace('_', '-')} {value}" for key, value in way_out.items())
    with pytest.raises(CapabilityError, match="got 32") as refused:
        hwsim.evaluate(str(file), machine, effort="quick")
    assert f"{options} (Python: {said})" in str(refused.value)
    weight = next(
        x for x in hwsim.evaluate(str(file), machine, effort="quick", **way_out).workload if x.has_macs
    ).weight
    assert weight is not None
    if machine != "eyeriss_v1":  # the file's groups; such a word means fp16 scales
        assert weight.format == dataclasses.replace(held.format, scale="fp16")


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


@pytest.mark.parametrize(("inner", "block"), [(72, 32), (17, 16), (64, 20), (64, 128), (300, 256)])
def test_last_blocks_that_are_shorter_have_scales_too(tmp_path: Path, inner: int, block: int) -> None:
    """Packed or blocked, whatever divides: N ceil(K / block) scales."""
    count = -(-inner // block)
    packed = onnx.helper.make_node("MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", bits=4,
                                   block_size=block, K=inner, N=N)  # fmt: skip
    take = onnx.helper.make_node("DequantizeLinear", ["w", "s"], ["wide"], axis=0, block_size=block)
    product = onnx.helper.make_node("MatMul", ["x", "wide"], ["y"])
    for nodes, tensors in (
        ([packed], [tensor("w", "UINT8", (N, count, block // 2)), tensor("s", "FLOAT16", (N, count))]),
        ([take, product], [tensor("w", "INT4", (inner, N)), tensor("s", "FLOAT16", (count, N))]),
    ):
        weight = linear(tmp_path / "odd.onnx", nodes, tensors, 21, "FLOAT", inner).weight
        assert weight is not None
        assert (weight.format, weight.scales) == (Format("int", 4, "group", block, "fp16"), N * count)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((3, N), {"axis": 0, "block_size": 16}, r"scales of shape \(3, 48\).*expected \(4, 48\), one per block of 16"),
        ((K // 16, N), {"axis": 5, "block_size": 16}, "axis 5 of an array with 2 axes: expected -2 to 1"),
        ((K // 16, N), {"axis": 0, "block_size": -16}, "block_size -16: expected 1 or more"),
        ((7,), {"axis": 1}, r"expected \(48,\), one per index of axis 1"),
        ((K, 3), {"axis": 1, "block_size": 16}, "differ from value to value of the sums of MatMul 'y'.*along axis 0"),
        ((K,), {"axis": 0}, "differ from value to value of the sums of MatMul 'y'"),
    ],
)
def test_scales_that_do_not_fit_their_codes_are_refused(
    tmp_path: Path, shape: tuple[int, ...], options: dict[str, int], message: str
) -> None:
    take = onnx.helper.make_node("DequantizeLinear", ["w", "s"], ["wide"], **options)
    product = onnx.helper.make_node("MatMul", ["x", "wide"], ["y"])
    with pytest.raises(WorkloadError, match=f"odd.onnx: 000_dequantizelinear: .*{message}"):
        linear(tmp_path / "odd.onnx", [take, product], [tensor("w", "INT4", (K, N)), tensor("s", "FLOAT", shape)], 21)


@pytest.mark.parametrize(
    ("scales", "block", "message"),
    [((N,), 32, "48 scales; expected 96"), ((N, 2), 0, "block_size 0: expected 1 or more")],
)
def test_packed_weights_without_a_scale_for_each_block_are_refused(
    tmp_path: Path, scales: tuple[int, ...], block: int, message: str
) -> None:
    node = onnx.helper.make_node("MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", bits=4,
                                 block_size=block, K=K, N=N)  # fmt: skip
    with pytest.raises(WorkloadError, match=message):
        linear(tmp_path / "p.onnx", [node], [tensor("w", "UINT8", (N, 2, 16)), tensor("s", "FLOAT", scales)], 21)
