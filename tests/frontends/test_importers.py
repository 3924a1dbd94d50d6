"""ONNX, QONNX and TFLite files: the same networks as the zoo's, real bits and zero points, nothing executed."""

from __future__ import annotations

import random
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwsim.errors import HwsimError, UnsupportedOp, WorkloadError
from hwsim.frontends.argument import load_model_argument
from hwsim.frontends.files.onnx_graph import read_onnx
from hwsim.frontends.files.tflite import read_tflite_graph
from hwsim.frontends.files.tflite_file import read_tflite
from hwsim.frontends.lowering.lower import lower
from hwsim.frontends.lowering.table import HANDLERS
from hwsim.network.layer import Layer, Loops
from hwsim.network.workload import Workload

onnx: Any = pytest.importorskip("onnx")


def of_onnx(path: Path, shape: tuple[int, ...] | None = None) -> Workload:
    return lower(read_onnx(path, shape), HANDLERS)


def of_tflite(path: Path) -> Workload:
    return lower(read_tflite_graph(path), HANDLERS)


def mac_loops(net: Workload) -> list[Loops]:
    return [layer.loops for layer in net if layer.has_macs]


def vector_ops(net: Workload) -> dict[str, int]:
    ops = [layer.op for layer in net if not layer.has_macs]
    return {op: ops.count(op) for op in sorted(set(ops))}


# -- real files against the zoo and against published counts ----------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize(
    ("file", "zoo"), [("zigzag_resnet18_shapes", "resnet18"), ("zigzag_mobilenetv2_shapes", "mobilenet_v2")]
)
def test_files_of_others_hold_the_zoos_networks(onnx_dir: Path, file: str, zoo: str) -> None:
    net, ours = of_onnx(onnx_dir / f"{file}.onnx"), load_model_argument(zoo)
    assert sorted(mac_loops(net), key=str) == sorted(mac_loops(ours), key=str)
    assert vector_ops(net) == vector_ops(ours)
    assert net.macs == ours.macs
    assert "were not read" in net.notes[0]  # the weights' file does not exist, and need not


@pytest.mark.long
@pytest.mark.parametrize(
    ("file", "macs"),
    [
        ("light_resnet50", 4_089_184_256),  # torchvision's ResNet-50, see tests/reference
        ("light_squeezenet", 349_151_936),  # torchvision's SqueezeNet 1.1
        ("mnist_conv", 8 * 25 * 28 * 28 + 16 * 8 * 25 * 14 * 14 + 256 * 10),
        ("qonnx_TFC_1W2A", 784 * 64 + 2 * 64 * 64 + 64 * 10),
    ],
)
def test_macs_of_onnx_files(onnx_dir: Path, file: str, macs: int) -> None:
    net = of_onnx(onnx_dir / f"{file}.onnx")
    assert net.macs == macs
    assert net.shares.operators == 1.0


@pytest.mark.long
def test_onnx_files_are_wholly_covered(onnx_dir: Path) -> None:
    for path in sorted(onnx_dir.glob("*.onnx")):
        net = of_onnx(path)
        assert net.coverage.uncosted == (), path.name
        inputs = {t.name for layer in net for t in layer.inputs} - {layer.output.name for layer in net}
        assert len(inputs) == 1, path.name


def test_qonnx_brings_its_bits(onnx_dir: Path) -> None:
    net = of_onnx(onnx_dir / "qonnx_TFC_1W2A.onnx")
    products = [layer for layer in net if layer.has_macs]
    assert [(layer.weight.bits, layer.inputs[0].bits) for layer in products if layer.weight] == [(1, 2)] * 4
    assert all(layer.bias for layer in products[:3])  # the batch norms behind them
    quantized = of_onnx(onnx_dir / "qonnx_espcn_subpixel_quant.onnx")
    convs = [layer for layer in quantized if layer.op == "conv"]
    assert [layer.weight.bits for layer in convs if layer.weight] == [8, 4, 4, 8]
    assert [layer.weight.scales for layer in convs if layer.weight] == [64, 64, 32, 1]
    assert [(x.output.bits, x.output.signed) for x in convs] == [(4, False), (4, False), (4, False), (8, False)]


@pytest.mark.long
@pytest.mark.parametrize(
    ("file", "zoo"),
    [
        ("pretrainedResnet_quant", "resnet8"),
        ("kws_ref_model", "ds_cnn"),
        ("kws_ref_model_float32", "ds_cnn"),
        ("ad01_int8", "anomaly_autoencoder"),
    ],
)
def test_tflite_files_hold_the_zoos_networks(mlperf_tiny_dir: Path, file: str, zoo: str) -> None:
    net, ours = of_tflite(mlperf_tiny_dir / f"{file}.tflite"), load_model_argument(zoo)
    assert sorted(mac_loops(net), key=str) == sorted(mac_loops(ours), key=str)
    assert net.macs == ours.macs
    mine, others = vector_ops(net), vector_ops(ours)
    mine.pop("softmax", None)  # the files end in one; the zoo's networks end in logits
    others.pop("softmax", None)
    if any("hybrid" in note for note in net.notes):  # int8 weights: every float input is quantized at run time
        for op in ("reduce_max", "requantize"):
            assert mine.pop(op) == sum(layer.weight.bits == 8 for layer in net if layer.has_macs and layer.weight)
    assert mine == others


def test_int8_files_bring_their_zero_points(mlperf_tiny_dir: Path) -> None:
    net = of_tflite(mlperf_tiny_dir / "pretrainedResnet_quant.tflite")
    first = net.layers[0]
    assert first.weight is not None
    assert (first.inputs[0].bits, first.inputs[0].signed, first.inputs[0].zero_point) == (8, True, -128)
    assert (first.weight.bits, first.weight.offset, first.weight.scales) == (8, False, 16)
    assert (first.padding, first.padding_policy) == ((1, 1, 1, 1), "snap_offset")
    # The strided ones pad less before than after: 32 -> 16 with 3x3 windows takes one zero, after.
    assert (0, 1, 0, 1) in [layer.padding for layer in net if layer.op == "conv"]
    assert all(t.bits == 8 for layer in net for t in (*layer.inputs, layer.output))
    assert [layer.op for layer in net].count("add") == 3


@pytest.mark.long
def test_uint8_files_have_asymmetric_weights(tflite_dir: Path) -> None:
    net = of_tflite(tflite_dir / "mobilenet_v2_1.0_224_quant.tflite")
    assert net.macs == 300_774_272 + 1280  # 1001 classes where the zoo has 1000
    weights = [layer.weight for layer in net if layer.has_macs]
    assert all(w is not None and w.offset and w.zero_point and not w.signed for w in weights)
    assert [layer.op for layer in net].count("add") == 10
    assert net.layers[0].inputs[0].zero_point == 128
    small = of_tflite(tflite_dir / "mobilenet_v1_0.25_128_quant.tflite")
    assert sum(layer.weight.elements for layer in small if layer.weight) == 463_856


def test_file_and_graph_agree_about_the_numbers(mlperf_tiny_dir: Path) -> None:
    model = read_tflite(mlperf_tiny_dir / "pretrainedResnet_quant.tflite")
    conv = model.ops[0]
    weight, bias = model.tensors[conv.inputs[1]], model.tensors[conv.inputs[2]]
    assert weight.data is not None
    assert bias.data is not None
    assert (weight.data.dtype, weight.data.shape, bias.data.dtype) == (np.int8, (16, 3, 3, 3), np.int32)
    # Per-channel int8 quantization uses its full range in every channel.
    assert np.all(np.abs(weight.data.astype(int)).reshape(16, -1).max(1) == 127)
    # TFLite's rule: a bias has the product of the scales of input and weight.
    source = model.tensors[conv.inputs[0]]
    assert np.allclose(bias.scales, np.multiply(weight.scales, source.scales[0]), rtol=1e-6)


def test_files_load_as_models(onnx_dir: Path, mlperf_tiny_dir: Path) -> None:
    assert load_model_argument(str(onnx_dir / "mnist_conv.onnx")).layers == of_onnx(onnx_dir / "mnist_conv.onnx").layers
    tiny = mlperf_tiny_dir / "ad01_int8.tflite"
    assert load_model_argument(str(tiny), (1, 640)).layers == of_tflite(tiny).layers
    with pytest.raises(WorkloadError, match=r"--input says \(1, 641\)"):
        load_model_argument(str(tiny), (1, 641))


# -- operators by construction ----------------------------------------------------------------------------------------


def graph(
    nodes: list[Any],
    tensors: dict[str, Any],
    shape: tuple[Any, ...],
    out: str = "y",
    kind: int | None = None,
    **opsets: int,
) -> Any:
    """A model with input x of that shape, weights, and one output."""
    make, proto = onnx.helper, onnx.TensorProto
    made = make.make_graph(
        nodes,
        "net",
        [make.make_tensor_value_info("x", kind or proto.FLOAT, shape)],
        [make.make_tensor_value_info(out, proto.FLOAT, None)],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in tensors.items()],
    )
    domains = [make.make_opsetid("", 17), *(make.make_opsetid(name, version) for name, version in opsets.items())]
    return make.make_model(made, opset_imports=domains)


def lowered(tmp_path: Path, model: Any, shape: tuple[int, ...] | None = None) -> Workload:
    path = tmp_path / "net.onnx"
    onnx.save(model, str(path))
    return of_onnx(path, shape)


node: Any = onnx.helper.make_node
W = np.zeros


def one(net: Workload) -> Layer:
    (layer,) = net.layers
    return layer


def test_padding_of_every_spelling(tmp_path: Path) -> None:
    weight = {"w": W((4, 3, 3, 3), np.float32)}
    cases: list[tuple[dict[str, Any], tuple[int, ...], tuple[int, int, int, int]]] = [
        ({"pads": [1, 2, 3, 4]}, (1, 4, 10, 12), (1, 3, 2, 4)),
        ({"auto_pad": "SAME_UPPER", "strides": [2, 2]}, (1, 4, 4, 4), (0, 1, 0, 1)),
        ({"auto_pad": "SAME_LOWER", "strides": [2, 2]}, (1, 4, 4, 4), (1, 0, 1, 0)),
        ({"auto_pad": "VALID"}, (1, 4, 6, 6), (0, 0, 0, 0)),
        ({"dilations": [2, 1], "pads": [2, 1, 2, 1]}, (1, 4, 8, 8), (2, 2, 1, 1)),
    ]
    for options, shape, padding in cases:
        layer = one(lowered(tmp_path, graph([node("Conv", ["x", "w"], ["y"], **options)], weight, (1, 3, 8, 8))))
        assert (layer.output.shape, layer.padding) == (shape, padding), options


def test_conv1d_has_one_row(tmp_path: Path) -> None:
    net = lowered(
        tmp_path, graph([node("Conv", ["x", "w"], ["y"], pads=[1, 0])], {"w": W((4, 3, 3), np.float32)}, (1, 3, 9))
    )
    assert one(net).loops == Loops(K=4, C=3, Q=8, S=3)
    assert one(net).padding == (0, 0, 1, 0)


def test_gemm_in_all_its_forms(tmp_path: Path) -> None:
    for options, x, w in (({}, (2, 5), (5, 7)), ({"transB": 1}, (2, 5), (7, 5)), ({"transA": 1}, (5, 2), (5, 7))):
        for bias in ([], ["b"]):
            tensors = {"w": W(w, np.float32), "b": W(7, np.float32)}
            layer = one(lowered(tmp_path, graph([node("Gemm", ["x", "w", *bias], ["y"], **options)], tensors, x)))
            assert (layer.op, layer.macs, layer.loops.K, layer.loops.C) == ("linear", 70, 7, 5)
            assert layer.bias == bool(bias)


def test_matmul_and_added_bias_are_one_layer(tmp_path: Path) -> None:
    tensors = {"w": W((5, 7), np.float32), "b": W(7, np.float32)}
    layer = one(
        lowered(tmp_path, graph([node("MatMul", ["x", "w"], ["m"]), node("Add", ["m", "b"], ["y"])], tensors, (3, 5)))
    )
    assert (layer.op, layer.bias) == ("linear", True)


def test_shape_arithmetic_is_followed(tmp_path: Path) -> None:
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "zero"], ["n"]),
        node("Unsqueeze", ["n", "first"], ["n1"]),
        node("Concat", ["n1", "rest"], ["target"], axis=0),
        node("Reshape", ["x", "target"], ["flat"]),
        node("MatMul", ["flat", "w"], ["y"]),
    ]
    tensors = {"zero": np.int64(0), "first": np.array([0]), "rest": np.array([-1]), "w": W((48, 4), np.float32)}
    assert one(lowered(tmp_path, graph(nodes, tensors, (2, 3, 4, 4)))).loops == Loops(N=2, K=4, C=48)


def test_qdq_and_qlinear_files_say_the_same(tmp_path: Path) -> None:
    tensors = {
        "xs": np.float32(0.1), "xz": np.uint8(7), "ws": W(4, np.float32) + 1, "wz": W(4, np.int8),
        "w": W((4, 3, 3, 3), np.int8), "ys": np.float32(0.2), "yz": np.uint8(0),
    }  # fmt: skip
    qdq = [
        node("QuantizeLinear", ["x", "xs", "xz"], ["xq"]),
        node("DequantizeLinear", ["xq", "xs", "xz"], ["xd"]),
        node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=0),
        node("Conv", ["xd", "wd"], ["c"], pads=[1, 1, 1, 1], name="conv"),
        node("QuantizeLinear", ["c", "ys", "yz"], ["cq"]),
        node("DequantizeLinear", ["cq", "ys", "yz"], ["y"]),
    ]
    qlinear = [
        node("QuantizeLinear", ["x", "xs", "xz"], ["xq"]),
        node("QLinearConv", ["xq", "xs", "xz", "w", "ws", "wz", "ys", "yz"], ["cq"], pads=[1, 1, 1, 1], name="conv"),
        node("DequantizeLinear", ["cq", "ys", "yz"], ["y"]),
    ]
    a, b = (one(lowered(tmp_path, graph(nodes, tensors, (1, 3, 8, 8)))) for nodes in (qdq, qlinear))
    assert a.weight is not None
    assert (a.inputs, a.output, a.loops, a.padding) == (b.inputs, b.output, b.loops, b.padding)
    assert (a.inputs[0].bits, a.inputs[0].signed, a.inputs[0].offset, a.inputs[0].zero_point) == (8, False, True, 7)
    assert (a.weight.bits, a.weight.signed, a.weight.offset, a.weight.scales) == (8, True, False, 4)
    assert (a.output.bits, a.output.offset, a.padding_policy) == (8, False, "snap_offset")


def test_four_bit_types_are_four_bits(tmp_path: Path) -> None:
    make, proto = onnx.helper, onnx.TensorProto
    model = graph(
        [
            node("DequantizeLinear", ["w", "ws"], ["wd"]),
            node("QuantizeLinear", ["x", "xs", "xz"], ["xq"]),
            node("DequantizeLinear", ["xq", "xs", "xz"], ["xd"]),
            node("MatMul", ["xd", "wd"], ["y"]),
        ],
        {"ws": np.float32(1), "xs": np.float32(1)},
        (1, 6),
    )
    model.opset_import[0].version = 21
    model.graph.initializer.append(make.make_tensor("w", proto.INT4, (6, 4), [1] * 24))
    model.graph.initializer.append(make.make_tensor("xz", proto.UINT4, (), [0]))
    layer = one(lowered(tmp_path, model))
    assert layer.weight is not None
    assert (layer.weight.bits, layer.weight.signed) == (4, True)
    assert (layer.inputs[0].bits, layer.inputs[0].signed, layer.inputs[0].offset) == (4, False, False)


def quant(scale: float, zero: float, bits: float) -> tuple[list[Any], dict[str, Any]]:
    """QONNX Quant in front of a padded convolution."""
    nodes = [
        node("Quant", ["x", "s", "z", "b"], ["q"], domain="qonnx.custom_op.general", signed=0, narrow=0),
        node("Conv", ["q", "w"], ["y"], pads=[1, 1, 1, 1]),
    ]
    values = {"s": scale, "z": zero, "b": bits}
    return nodes, {"w": W((4, 3, 3, 3), np.float32), **{k: np.float32(v) for k, v in values.items()}}


def test_a_real_valued_offset_needs_another_border_than_a_zero_point(tmp_path: Path) -> None:
    def layer(zero: float) -> Layer:
        return one(lowered(tmp_path, graph(*quant(0.1, zero, 3), (1, 3, 8, 8), **{"qonnx.custom_op.general": 1})))

    assert (layer(0.0).inputs[0].offset, layer(0.0).padding_policy) == (False, "")
    assert (layer(2.0).inputs[0].zero_point, layer(2.0).padding_policy) == (2, "snap_offset")
    assert (layer(1.7).inputs[0].zero_point, layer(1.7).padding_policy) == (None, "border_bias")
    assert layer(1.7).inputs[0].bits == 3


@pytest.mark.filterwarnings("ignore")
def test_files_quantized_by_onnxruntime_load(tmp_path: Path, onnx_dir: Path) -> None:
    tools: Any = pytest.importorskip("onnxruntime.quantization")

    class Reader(tools.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches = iter([{"global_in": np.random.default_rng(0).random((1, 1, 200, 200), np.float32)}])

        def get_next(self) -> Any:
            return next(self.batches, None)

    source, out = onnx_dir / "qonnx_residual_block_clean.onnx", tmp_path / "q.onnx"
    plain = of_onnx(source)
    for form in (tools.QuantFormat.QDQ, tools.QuantFormat.QOperator):
        tools.quantize_static(str(source), str(out), Reader(), quant_format=form, per_channel=True)
        net = of_onnx(out)
        assert mac_loops(net) == mac_loops(plain)
        assert {t.bits for layer in net for t in (*layer.inputs, layer.output)} == {8}
        assert [layer.weight.scales for layer in net if layer.weight] == [14, 14, 14]
        assert [layer.op for layer in net] == ["conv", "conv", "conv", "add", "max_pool"]


# -- what is refused --------------------------------------------------------------------------------------------------


def test_open_sizes_need_an_input_shape(tmp_path: Path) -> None:
    model = graph([node("Conv", ["x", "w"], ["y"])], {"w": W((4, 3, 3, 3), np.float32)}, ("batch", 3, 8, 8))
    with pytest.raises(
        WorkloadError, match=r"input x \(batch, 3, 8, 8\) leaves sizes open: give them all with --input"
    ):
        lowered(tmp_path, model)
    assert one(lowered(tmp_path, model, (2, 3, 8, 8))).loops.N == 2
    with pytest.raises(WorkloadError, match=r"its input is x \(batch, 3, 8, 8\), --input says \(2, 3, 9, 8\)"):
        lowered(tmp_path, model, (2, 3, 9, 8))


def test_unknown_operators_are_refused_by_name(tmp_path: Path) -> None:
    model = graph([node("NonZero", ["x"], ["i"]), node("Cast", ["i"], ["y"], to=1)], {}, (2, 3))
    with pytest.raises(HwsimError):
        lowered(tmp_path, model)
    model = graph([node("Det", ["x"], ["y"])], {}, (2, 2))
    with pytest.raises(UnsupportedOp, match=r"onnx\.Det: 1x"):
        lowered(tmp_path, model)


def test_files_of_other_kinds_are_refused(tmp_path: Path, mlperf_tiny_dir: Path) -> None:
    whole = (mlperf_tiny_dir / "kws_ref_model.tflite").read_bytes()
    cases = {
        "cut.tflite": (whole[:2000], "not a complete TFLite file"),
        "other.tflite": (b"hello world", "not a TFLite file"),
        "other.onnx": (b"\xff" * 100, "not a complete ONNX file"),
        "empty.onnx": (b"\n\x00", "without a network"),
    }
    for name, (content, says) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(WorkloadError, match=says):
            load_model_argument(str(tmp_path / name))


def test_a_tflite_list_longer_than_its_file_is_refused_before_it_is_made(tmp_path: Path) -> None:
    start, vtable = struct.pack("<I4s", 16, b"TFL3"), struct.pack("<4H", 8, 8, 0, 4)
    path = tmp_path / "long.tflite"
    path.write_bytes(start + vtable + struct.pack("<iII", 8, 4, 2**32 - 1))  # 4,294,967,295 operator codes
    tracemalloc.start()
    with pytest.raises(WorkloadError, match="a list of 4,294,967,295 tables in a file with room for 0"):
        read_tflite(path)
    most_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most_bytes < 1_000_000


def test_without_the_onnx_package_the_way_out_is_named(onnx_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(WorkloadError, match=r"pip install 'hwsim\[onnx\]'"):
        load_model_argument(str(onnx_dir / "mnist_conv.onnx"))


def spoil(raw: bytes, chance: random.Random) -> bytes:
    """The file cut, or with some of its bytes changed."""
    if chance.random() < 0.2:
        return raw[: chance.randrange(1, len(raw))]
    changed = bytearray(raw)
    for _ in range(chance.choice([1, 3, 10, 50])):
        changed[chance.randrange(min(len(raw), 6000))] = chance.randrange(256)
    return bytes(changed)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("file", ["kws_ref_model.tflite", "qonnx_TFC_1W2A.onnx", "zigzag_resnet18_shapes.onnx"])
def test_damaged_files_give_a_message_or_a_network(
    tmp_path: Path, onnx_dir: Path, mlperf_tiny_dir: Path, file: str
) -> None:
    folder = onnx_dir if file.endswith(".onnx") else mlperf_tiny_dir
    raw, path, chance = (folder / file).read_bytes(), tmp_path / file, random.Random(file)
    messages: list[str] = []
    for _ in range(60):
        path.write_bytes(spoil(raw, chance))
        try:
            load_model_argument(str(path))
        except HwsimError as problem:
            messages.append(str(problem))
    assert len(messages) > 10
    assert all(messages)
