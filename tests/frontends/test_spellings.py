"""One quantized network in many ONNX or TFLite spellings: one workload. And what is not known is refused by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwsim.errors import WorkloadError
from hwsim.frontends.argument import load_model_argument
from hwsim.frontends.files.onnx_graph import read_onnx
from hwsim.frontends.lowering.lower import lower
from hwsim.frontends.lowering.table import HANDLERS
from hwsim.network.workload import Workload
from tests.frontends.tflite_files import O, T
from tests.frontends.tflite_files import write as write_tflite

onnx: Any = pytest.importorskip("onnx")
SHAPES = {"image": (1, 4, 6, 6), "tokens": (1, 5)}


@dataclass
class Net:
    """A graph in the making; the spelling decides how a quantizer is written."""

    style: str
    nodes: list[Any] = field(default_factory=list[Any])
    tensors: dict[str, Any] = field(default_factory=dict[str, Any])
    number: int = 0
    domain: str = ""

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        self.number += 1
        out = f"v{self.number}"
        domain = self.domain if kind in ("QuantizeLinear", "DequantizeLinear") else ""
        self.nodes.append(
            onnx.helper.make_node(kind, list(inputs), [out], f"n{self.number}", domain=domain, **attributes)
        )
        return out

    def constant(self, array: Any) -> str:
        self.number += 1
        self.tensors[f"c{self.number}"] = array
        return f"c{self.number}"

    def affine(self, zero: int, dtype: Any) -> tuple[str, str]:
        """Scale and zero point as this spelling writes them; "" is an absent zero point."""
        scale, point = self.constant(np.float32(0.1)), np.asarray(zero, dtype)
        if self.style in ("absent", "output_dtype") and zero == 0:
            return scale, ""
        if self.style == "constant_node":
            return scale, self.node("Constant", value=onnx.numpy_helper.from_array(point))
        if self.style == "identity":
            return self.node("Identity", scale), self.node("Identity", self.constant(point))
        if self.style == "cast":
            kind = onnx.helper.np_dtype_to_tensor_dtype(point.dtype)
            return scale, self.node("Cast", self.constant(np.asarray(zero, np.int32)), to=kind)
        if self.style == "reshaped":
            shape = self.constant(np.zeros(0, np.int64))
            return scale, self.node("Reshape", self.constant(point.reshape(1)), shape)
        return scale, self.constant(point)

    def quantized(self, x: str, zero: int = 0, dtype: Any = np.int8) -> str:
        """x through a quantizer."""
        scale, point = self.affine(zero, dtype)
        more = {"output_dtype": onnx.TensorProto.INT8} if not point and dtype is np.int8 else {}
        codes = self.node("QuantizeLinear", *[name for name in (x, scale, point) if name], **more)
        return self.numbers(codes, scale, point)

    def numbers(self, codes: str, scale: str, point: str) -> str:
        return self.node("DequantizeLinear", *[name for name in (codes, scale, point) if name])

    def weight(self, array: Any) -> str:
        """A stored int8 tensor as numbers."""
        scale, point = self.affine(0, np.int8)
        return self.numbers(self.constant(array.astype(np.int8)), scale, point)


def conv_net(net: Net) -> str:
    """Convolution, ReLU, upsampling, pooling, a residual."""
    x = net.quantized("x", -5)
    y = net.node("Relu", net.node("Conv", x, net.weight(np.ones((4, 4, 3, 3))), pads=[1, 1, 1, 1]))
    y = net.node("Add", net.quantized(y), x)
    y = net.quantized(y, 3)
    y = moved(net, y, "Resize")
    return net.quantized(net.node("Conv", y, net.weight(np.ones((2, 4, 1, 1)))), 0)


def linear_net(net: Net) -> str:
    """An embedding, a product with a transposed weight, a mask."""
    table, scale_zero = np.ones((50, 8)), net.affine(0, np.int8)
    stored = net.constant(table.astype(np.int8))
    if net.style == "late":
        rows = net.numbers(net.node("Gather", stored, "x"), *scale_zero)
    else:
        rows = net.node("Gather", net.numbers(stored, *scale_zero), "x")
    rows = net.quantized(rows)
    rows = reshaped(net, rows)
    w = np.ones((6, 8))
    if net.style == "late":
        turned = net.numbers(
            net.node("Transpose", net.constant(w.astype(np.int8)), perm=[1, 0]), *net.affine(0, np.int8)
        )
    else:
        turned = net.node("Transpose", net.weight(w), perm=[1, 0])
    return net.quantized(net.node("MatMul", rows, turned), 7)


def reshaped(net: Net, x: str) -> str:
    """Numbers under another shape and back, the first time on codes in spelling `late`."""
    there, back = net.constant(np.array([5, 2, 4], np.int64)), net.constant(np.array([1, 5, 8], np.int64))
    last = net.nodes[-1]
    if net.style == "late" and last.op_type == "DequantizeLinear":
        net.nodes.pop()
        x = net.numbers(net.node("Reshape", last.input[0], there), *[*last.input[1:], ""][:2])
    else:
        x = net.node("Reshape", x, there)
    return net.node("Reshape", x, back)


def moved(net: Net, x: str, kind: str) -> str:
    """A nearest upsampling, on codes in spelling `late`, else on numbers."""
    scales = net.constant(np.array([1, 1, 2, 2], np.float32))
    last = net.nodes[-1]
    if net.style == "late" and last.op_type == "DequantizeLinear":
        net.nodes.pop()
        codes = net.node(kind, last.input[0], "", scales, mode="nearest")
        return net.numbers(codes, *[*last.input[1:], ""][:2])
    return net.node(kind, x, "", scales, mode="nearest")


NETWORKS: dict[str, tuple[Callable[[Net], str], str]] = {"conv": (conv_net, "image"), "linear": (linear_net, "tokens")}
STYLES = ("plain", "absent", "output_dtype", "constant_node", "identity", "cast", "reshaped", "late", "external",
          "contrib", *(f"opset{number}" for number in range(13, 24)))  # fmt: skip


def written(folder: Path, name: str, style: str) -> Path:
    """The network in one spelling, as a file."""
    build, kind = NETWORKS[name]
    net = Net(style, domain="com.microsoft" if style == "contrib" else "")
    out = build(net)
    dtype = onnx.TensorProto.FLOAT if kind == "image" else onnx.TensorProto.INT64
    graph = onnx.helper.make_graph(
        net.nodes, name, [onnx.helper.make_tensor_value_info("x", dtype, SHAPES[kind])],
        [onnx.helper.make_tensor_value_info(out, onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(np.asarray(array), key) for key, array in net.tensors.items()],
    )  # fmt: skip
    opset = int(style[5:]) if style.startswith("opset") else 21
    imports = [onnx.helper.make_opsetid("", opset), onnx.helper.make_opsetid("com.microsoft", 1)]
    model = onnx.helper.make_model(graph, opset_imports=imports, ir_version=10)
    path = folder / f"{name}_{style}.onnx"
    more = (
        {"save_as_external_data": True, "size_threshold": 0, "location": f"{path.stem}.bin"}
        if style == "external"
        else {}
    )
    onnx.save(model, str(path), **more)
    return path


def facts(net: Workload) -> list[tuple[object, ...]]:
    """All that a cost depends on, without names."""

    def codes(tensor: Any) -> tuple[object, ...]:
        return (tensor.shape, tensor.bits, tensor.signed, tensor.offset, tensor.zero_point, tensor.scales)

    return [
        (
            layer.op, layer.loops, layer.stride, layer.padding, layer.padding_policy, tuple(map(codes, layer.inputs)),
            codes(layer.output), codes(layer.weight) if layer.weight else None,
        )
        for layer in net
    ]  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("name", NETWORKS)
def test_every_spelling_of_a_quantized_network_is_one_workload(tmp_path: Path, name: str) -> None:
    plain = lower(read_onnx(written(tmp_path, name, "plain")), HANDLERS)
    assert plain.macs == {"conv": 36 * 4 * 36 + 144 * 8, "linear": 5 * 48}[name]
    assert all(t.bits == 8 for layer in plain for t in (*layer.inputs, layer.output) if t.origin != "index")
    for style in STYLES:
        net = lower(read_onnx(written(tmp_path, name, style)), HANDLERS)
        assert (net.macs, facts(net)) == (plain.macs, facts(plain)), style
    print(f"{name}: {len(STYLES)} spellings, {plain.macs:,} MACs each")


def test_a_zero_point_out_of_reach_is_refused_by_name(tmp_path: Path) -> None:
    path = written(tmp_path, "conv", "external")
    (tmp_path / f"{path.stem}.bin").unlink()
    with pytest.raises(WorkloadError, match=r"zero point 'c\d+' is a constant whose numbers are not at hand"):
        read_onnx(path)


def test_codes_of_an_unknown_type_are_refused(tmp_path: Path) -> None:
    net = Net("plain")
    codes = net.constant(np.ones((4, 4, 1, 1), np.float32))
    net.node("Conv", "x", net.numbers(codes, net.constant(np.float32(1)), ""))
    graph = onnx.helper.make_graph(
        net.nodes, "odd", [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, SHAPES["image"])],
        [onnx.helper.make_tensor_value_info(net.nodes[-1].output[0], onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(np.asarray(array), key) for key, array in net.tensors.items()],
    )  # fmt: skip
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)]), str(tmp_path / "odd.onnx")
    )
    with pytest.raises(WorkloadError, match="the width of its codes is unknown"):
        read_onnx(tmp_path / "odd.onnx")


# ---- TFLite ----------------------------------------------------------------------------------------------------------

MAP = (1, 6, 6, 4)
VIEWS: dict[str, tuple[str, tuple[int, ...], Any]] = {
    # (operator, shape between, constant operand there)
    "reshaped": ("RESHAPE", (1, 36, 4), [1, 36, 4]),
    "reshaped_open": ("RESHAPE", (1, 36, 4), [1, -1, 4]),
    "expanded": ("EXPAND_DIMS", (1, 1, 6, 6, 4), [1]),
    "transposed": ("TRANSPOSE", (1, 4, 6, 6), [0, 3, 1, 2]),
}
TFLITE_STYLES = (*VIEWS, "old_codes", "signature", "renamed", "turned_round", "unused_constant", "scale_in_a_list",
                 "shape_beside", "sliced_whole", "split_in_one", "packed_twice")  # fmt: skip


def tflite_tensors(style: str) -> list[T]:
    """Input, weights, biases and results of a residual block and a linear layer."""
    scale: Any = [0.1] if style == "scale_in_a_list" else 0.1
    kernel = T((4, 3, 3, 4), scale=[0.1] * 4, data=np.ones((4, 3, 3, 4), np.int8))
    signature = (-1, *MAP[1:]) if style == "signature" else ()
    names = [f"layer/{i}:0" if style == "renamed" else "" for i in range(8)]
    tensors = [
        T(MAP, scale=scale, zero=-5, signature=signature), kernel,
        T((4,), "int32", [0.01] * 4, data=np.zeros(4, np.int32)), T(MAP, scale=scale, zero=3), T(MAP, scale=scale),
        T((5, 144), data=np.ones((5, 144), np.int8)), T((1, 144), scale=scale), T((1, 5), scale=scale, zero=7),
    ]  # fmt: skip
    return [dataclasses.replace(t, name=name) for t, name in zip(tensors, names, strict=True)]


def tflite_written(folder: Path, style: str) -> Path:
    """The network in one spelling, as a file."""
    tensors, same = tflite_tensors(style), {"same": 1, "stride_w": 1, "stride_h": 1}
    ops = [O("CONV_2D", (0, 1, 2), (3,), {**same, "activation": 1})]
    flat: tuple[int, ...] = (4,)
    source = 3

    def new(*made: T) -> int:
        tensors.extend(made)
        return len(tensors) - 1

    if style in VIEWS:
        kind, shape, there = VIEWS[style]
        between = new(T(shape, scale=0.1, zero=3))
        source = new(T(MAP, scale=0.1, zero=3))
        ops.append(O(kind, (3, new(constant(there))), (between,)))
        back = {"EXPAND_DIMS": "SQUEEZE"}.get(kind, kind)
        operand = () if back == "SQUEEZE" else (new(constant([0, 2, 3, 1] if kind == "TRANSPOSE" else list(MAP))),)
        ops.append(O(back, (between, *operand), (source,)))
    elif style == "sliced_whole":
        source = new(T(MAP, scale=0.1, zero=3))
        ops.append(O("SLICE", (3, new(constant([0] * 4)), new(constant([-1] * 4))), (source,)))
    elif style == "split_in_one":
        source = new(T(MAP, scale=0.1, zero=3))
        ops.append(O("SPLIT", (new(T((), "int32", None, data=np.int32(3))), 3), (source,), {"parts": 1}))
    elif style == "packed_twice":
        between = new(T((1, *MAP), scale=0.1, zero=3))
        source = new(T(MAP, scale=0.1, zero=3))
        ops += [O("PACK", (3,), (between,), {"axis": 0}), O("UNPACK", (between,), (source,), {"axis": 0})]
    ops.append(O("ADD", (0, source), (4,)))
    if style == "shape_beside":
        flat = (4, new(constant([1, 144])))
    ops += [O("RESHAPE", flat, (6,)), O("FULLY_CONNECTED", (6, 5, -1), (7,))]
    if style == "unused_constant":
        new(constant([1, 2, 3]))
    if style == "turned_round":
        last = len(tensors) - 1
        tensors.reverse()
        ops = [
            dataclasses.replace(
                o, inputs=[last - i if i >= 0 else i for i in o.inputs], outputs=[last - i for i in o.outputs]
            )
            for o in ops
        ]
        return write_tflite(folder / f"{style}.tflite", tensors, ops, (last,))
    return write_tflite(folder / f"{style}.tflite", tensors, ops, old_codes=style == "old_codes")


def constant(numbers: list[int]) -> T:
    return T((len(numbers),), "int32", None, data=np.asarray(numbers, np.int32))


def test_every_spelling_of_a_tflite_network_is_one_workload(tmp_path: Path) -> None:
    plain = load_model_argument(str(tflite_written(tmp_path, "plain")))
    assert plain.macs == 36 * 4 * 36 + 5 * 144
    assert all(t.bits == 8 for layer in plain for t in (*layer.inputs, layer.output))
    for style in TFLITE_STYLES:
        net = load_model_argument(str(tflite_written(tmp_path, style)))
        assert (net.macs, facts(net)) == (plain.macs, facts(plain)), style
    print(f"tflite: {len(TFLITE_STYLES)} spellings, {plain.macs:,} MACs each")
