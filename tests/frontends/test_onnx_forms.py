"""ONNX as exporters and onnxruntime's tools write it: contributed operators, loops, small floats; MACs, weight bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwsim.errors import HwsimError
from hwsim.frontends.argument import load_model_argument
from hwsim.network.workload import Workload

onnx: Any = pytest.importorskip("onnx")
T = onnx.TensorProto
MS = "com.microsoft"


class Graph:
    """A graph in the making, with one input x."""

    def __init__(self, shape: tuple[int, ...], kind: int = T.FLOAT) -> None:
        self.nodes: list[Any] = []
        self.tensors: list[Any] = []
        self.input = onnx.helper.make_tensor_value_info("x", kind, shape)

    def stored(self, *shape: int, dtype: Any = np.float32, value: float = 1) -> str:
        return self.constant(np.full(shape, value, dtype))

    def constant(self, array: Any) -> str:
        name = f"c{len(self.tensors)}"
        self.tensors.append(onnx.numpy_helper.from_array(np.asarray(array), name))
        return name

    def typed(self, kind: int, *shape: int) -> str:
        name = f"c{len(self.tensors)}"
        self.tensors.append(onnx.helper.make_tensor(name, kind, shape, [0] * int(np.prod(shape))))
        return name

    def op(self, kind: str, *inputs: str, outs: int = 1, domain: str = "", **attributes: Any) -> Any:
        outputs = [f"v{len(self.nodes)}_{i}" for i in range(outs)]
        self.nodes.append(
            onnx.helper.make_node(kind, inputs, outputs, f"n{len(self.nodes)}", None, domain, **attributes)
        )
        return outputs[0] if outs == 1 else outputs

    def saved(self, folder: Path, *outputs: str, opset: int = 21) -> Path:
        results = [onnx.helper.make_tensor_value_info(name, T.FLOAT, None) for name in outputs]
        graph = onnx.helper.make_graph(self.nodes, "g", [self.input], results, self.tensors)
        imports = [onnx.helper.make_opsetid("", opset), onnx.helper.make_opsetid(MS, 1)]
        path = folder / "net.onnx"
        onnx.save(onnx.helper.make_model(graph, opset_imports=imports, ir_version=10), str(path))
        return path


def linear_of(net: Graph, x: str, inputs: int, outputs: int) -> str:
    return net.op("MatMul", x, net.stored(inputs, outputs))


def dynamic_products(net: Graph) -> str:
    scale, zero, bias = net.stored(32), net.stored(32, dtype=np.int8, value=0), net.stored(32)
    y = net.op("DynamicQuantizeMatMul", "x", net.stored(64, 32, dtype=np.int8), scale, zero, bias, domain=MS)
    q, s, z = net.op("DynamicQuantizeLinear", y, outs=3)
    stored = (net.stored(32, 8, dtype=np.uint8), s, net.stored(), z, net.constant(np.uint8(128)))
    return net.op("MatMulIntegerToFloat", q, *stored, domain=MS)


def packed_attention(net: Graph) -> str:
    y = net.op("Attention", "x", net.stored(64, 192), net.stored(192), domain=MS, num_heads=4)
    y = net.op("SkipLayerNormalization", y, "x", net.stored(64), net.stored(64), domain=MS)
    return net.op("BiasGelu", y, net.stored(64), domain=MS)


def separate_attention(net: Graph) -> str:
    return net.op("MultiHeadAttention", linear_of(net, "x", 64, 64), "x", "x", domain=MS, num_heads=4)


def projections(net: Graph, *widths: int) -> list[str]:
    return [linear_of(net, "x", 64, width) for width in widths]


def lengths(net: Graph, total: int) -> tuple[str, str]:
    return net.constant(np.array([[total - 1]], np.int32)), net.constant(np.array([total], np.int32))


def grouped_attention(net: Graph) -> str:
    more = ("", "", *lengths(net, 7))
    made = net.op(
        "GroupQueryAttention", *projections(net, 64, 32, 32), *more, domain=MS, num_heads=4, kv_num_heads=2, outs=3
    )
    return made[0]


def cached_attention(net: Graph, room: int = 3) -> str:
    """Queries, keys and values in one, rotated, behind three cached tokens (of a cache that may have more room)."""
    caches, tables = [net.stored(1, 2, room, 16) for _ in range(2)], [net.stored(32, 8) for _ in range(2)]
    more = ("", "", *caches, *lengths(net, 10), *tables)
    options = {"num_heads": 4, "kv_num_heads": 2, "do_rotary": 1}
    made = net.op("GroupQueryAttention", linear_of(net, "x", 64, 128), *more, domain=MS, outs=3, **options)
    return made[0]


def biased_attention(net: Graph) -> str:
    caches = [net.stored(1, 4, 3, 16) for _ in range(2)]
    more = (net.stored(192), "", net.stored(1, 1, 7, 10), *caches)
    return net.op("MultiHeadAttention", "x", "x", "x", *more, domain=MS, num_heads=4, outs=3)[0]


def stacked_attention(net: Graph) -> str:
    x = net.op("Reshape", linear_of(net, "x", 64, 192), net.constant(np.array([1, 7, 4, 3, 16])))
    return net.op("MultiHeadAttention", x, domain=MS, num_heads=4)


def uneven_attention(net: Graph) -> str:
    sizes, more = [32, 32, 64], ("", net.stored(2, 1, 4, 3, 8))
    return net.op("Attention", "x", net.stored(64, 128), net.stored(128), more[0], domain=MS, num_heads=4,
                  qkv_hidden_sizes=sizes)  # fmt: skip


def packed_cached_attention(net: Graph) -> str:
    mask, past = net.constant(np.ones((1, 10), np.int32)), net.stored(2, 1, 4, 3, 16)
    return net.op("Attention", "x", net.stored(64, 192), "", mask, past, domain=MS, num_heads=4, outs=2)[0]


def scale(net: Graph) -> str:
    return net.constant(np.float32(0.1))


def zero(net: Graph, value: int = 3, dtype: Any = np.uint8) -> str:
    return net.constant(np.asarray(value, dtype))


def coded(net: Graph, x: str, value: int = 3) -> str:
    return net.op("QuantizeLinear", x, scale(net), zero(net, value))


def integer_attention(net: Graph) -> str:
    stored = (net.stored(64, 192, dtype=np.int8), net.stored(192), scale(net), scale(net), "")
    return net.op("QAttention", coded(net, "x"), *stored, zero(net), zero(net, 0, np.int8), domain=MS, num_heads=4)


def integer_lstm(net: Graph) -> str:
    def affine() -> tuple[str, str]:
        return net.constant(np.full(1, 0.1, np.float32)), net.constant(np.zeros(1, np.int8))

    weights = [net.stored(1, n, 80, dtype=np.int8) for n in (64, 20)]
    x = net.op("Transpose", "x", perm=[1, 0, 2])
    more = (net.stored(1, 160), "", "", "", "", *affine(), *affine())
    return net.op("DynamicQuantizeLSTM", x, *weights, *more, domain=MS, hidden_size=20, outs=3)[0]


def channels_last(net: Graph) -> str:
    x = net.op("Transpose", net.op("Reshape", "x", net.constant(np.array([1, 7, 8, 8]))), perm=[0, 2, 3, 1])
    weights = (net.stored(4, 7, 3, 3, dtype=np.int8), scale(net), zero(net, 0, np.int8), scale(net), zero(net))
    last: dict[str, Any] = {"domain": MS, "channels_last": 1}
    y = net.op("QLinearConv", coded(net, x), scale(net), zero(net), *weights, pads=[1] * 4, **last)
    around = (scale(net), zero(net), scale(net), zero(net))
    y = net.op("QLinearAveragePool", y, *around, kernel_shape=[2, 2], strides=[2, 2], **last)
    return net.op("DequantizeLinear", net.op("QLinearGlobalAveragePool", y, *around, **last), scale(net), zero(net))


def batch_in_front(net: Graph) -> str:
    """Seven rows, each with a matrix of its own: the first axis of an operand goes behind its batch."""
    return net.op("FusedMatMul", "x", net.stored(7, 64, 8), domain=MS, transBatchA=1)


def fused_gemm(net: Graph) -> str:
    x = net.op("Reshape", "x", net.constant(np.array([7, 64])))
    return net.op("FusedGemm", x, net.stored(8, 64), net.stored(8), domain=MS, activation="Relu", transB=1)


def recurrent(kind: str, **options: Any) -> Callable[[Graph], str]:
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]

    def build(net: Graph) -> str:
        x = "x" if options.get("layout") else net.op("Transpose", "x", perm=[1, 0, 2])
        stored = (net.stored(1, gates * 20, 64), net.stored(1, gates * 20, 20), net.stored(1, gates * 40))
        peepholes = ("", "", "", net.stored(1, 60)) if kind == "LSTM" else ()
        return net.op(kind, x, *stored, *peepholes, hidden_size=20, outs=2, **options)[0]

    return build


def standard_attention(net: Graph) -> str:
    return net.op("Attention", linear_of(net, "x", 64, 64), "x", "x", q_num_heads=4, kv_num_heads=4)


def fused_convolution(net: Graph) -> str:
    y = net.op("Reshape", "x", net.constant(np.array([1, 7, 8, 8])))
    return net.op("FusedConv", y, net.stored(4, 7, 3, 3), domain=MS, activation="Relu", pads=[1] * 4)


def cast_weights(net: Graph) -> str:
    return net.op("MatMul", "x", net.op("Cast", net.stored(64, 32, dtype=np.float16), to=T.FLOAT))


def body_of(nodes: list[tuple[str, list[str], str]], inputs: list[Any], outputs: list[Any]) -> Any:
    """The graph inside a loop; inputs and outputs are (name, type, shape)."""
    made = [onnx.helper.make_node(kind, sources, [result]) for kind, sources, result in nodes]
    info = onnx.helper.make_tensor_value_info
    return onnx.helper.make_graph(made, "body", [info(*entry) for entry in inputs], [info(*entry) for entry in outputs])


def loop(net: Graph) -> str:
    state, go = ("s", T.FLOAT, [1, 7, 64]), ("go", T.BOOL, [])
    made = ("t", T.FLOAT, [1, 7, 64])
    nodes = [("MatMul", ["s", net.stored(64, 64)], "t"), ("Identity", ["go"], "on")]
    body = body_of(nodes, [("i", T.INT64, []), go, state], [("on", T.BOOL, []), made, made])
    made = net.op("Loop", net.constant(np.int64(3)), net.constant(np.bool_(True)), "x", body=body, outs=2)
    return net.op("Add", net.op("ReduceSum", made[1], net.constant(np.array([0])), keepdims=0), made[0])


def scan(net: Graph) -> str:
    rows = net.op("Squeeze", "x", net.constant(np.array([0])))
    begin = net.op("ReduceMean", rows, net.constant(np.array([0])), keepdims=0)
    nodes = [("MatMul", ["s", net.stored(64, 64)], "m"), ("Add", ["m", "row"], "t")]
    made = ("t", T.FLOAT, [64])
    body = body_of(nodes, [("s", T.FLOAT, [64]), ("row", T.FLOAT, [64])], [made, made])
    return net.op("Scan", begin, rows, body=body, num_scan_inputs=1, outs=2)[1]


HEADS = 2 * 4 * 7 * 7 * 16
FORMS: dict[str, tuple[Callable[[Graph], str], int, int]] = {  # MACs, weight bits
    "dynamic products": (dynamic_products, 7 * (64 * 32 + 32 * 8), 8 * (64 * 32 + 32 * 8)),
    "packed attention": (packed_attention, 7 * 64 * 192 + HEADS, 32 * 64 * 192),
    "separate attention": (separate_attention, 7 * 64 * 64 + HEADS, 32 * 64 * 64),
    "grouped attention": (grouped_attention, 7 * 64 * 128 + HEADS, 32 * 64 * 128),
    "standard attention": (standard_attention, 7 * 64 * 64 + HEADS, 32 * 64 * 64),
    "fused convolution": (fused_convolution, 64 * 4 * 7 * 9, 32 * 4 * 7 * 9),
    "float16 cast": (cast_weights, 7 * 64 * 32, 16 * 64 * 32),
    "loop": (loop, 3 * 7 * 64 * 64, 32 * 64 * 64),
    "scan": (scan, 7 * 64 * 64, 32 * 64 * 64),
    "cached attention": (cached_attention, 7 * 64 * 128 + 2 * 4 * 7 * 10 * 16, 32 * 64 * 128),
    "cache with room": (lambda n: cached_attention(n, 9), 7 * 64 * 128 + 2 * 4 * 7 * 10 * 16, 32 * 64 * 128),
    "biased attention": (biased_attention, 2 * 4 * 7 * 10 * 16, 0),
    "stacked attention": (stacked_attention, 7 * 64 * 192 + HEADS, 32 * 64 * 192),
    "uneven attention": (uneven_attention, 7 * 64 * 128 + 4 * 7 * 7 * (8 + 16), 32 * 64 * 128),
    "packed cached attention": (packed_cached_attention, 7 * 64 * 192 + 2 * 4 * 7 * 10 * 16, 32 * 64 * 192),
    "integer attention": (integer_attention, 7 * 64 * 192 + HEADS, 8 * 64 * 192),
    "integer lstm": (integer_lstm, 7 * 80 * 84, 8 * 80 * 84),
    "channels last": (channels_last, 64 * 4 * 63, 8 * 4 * 63),
    "batch in front": (batch_in_front, 7 * 64 * 8, 32 * 7 * 64 * 8),
    "fused gemm": (fused_gemm, 7 * 64 * 8, 32 * 64 * 8),
    "lstm, batch first": (recurrent("LSTM", layout=1), 7 * 80 * 84, 32 * 80 * 84),
    "gru": (recurrent("GRU"), 7 * 60 * 84, 32 * 60 * 84),
    "gru, reset behind": (recurrent("GRU", linear_before_reset=1), 7 * 60 * 84, 32 * 60 * 84),
    "einsum, a sum of one": (lambda n: n.op("Einsum", "x", n.stored(5, 64), equation="bij,kj->b"), 64, 32 * 64),
    "einsum, a diagonal": (
        lambda n: n.op("Einsum", "x", n.stored(64, 64, 8), equation="bij,jjk->bik"),
        7 * 64 * 8,
        32 * 64 * 8,
    ),
    "ellipsis": (lambda n: n.op("Einsum", "x", n.stored(64, 8), equation="...d,de->...e"), 7 * 64 * 8, 32 * 64 * 8),
}


def weight_bits(net: Workload) -> int:
    found = [layer.weight for layer in net if layer.has_macs and not layer.weight_is_activation]
    return sum({w.name: w.size_bits for w in found if w is not None}.values())


@pytest.mark.long
@pytest.mark.parametrize("name", FORMS)
def test_macs_and_weight_bits_of_a_form(tmp_path: Path, name: str) -> None:
    build, macs, bits = FORMS[name]
    net = Graph((1, 7, 8, 8) if name == "fused convolution" else (1, 7, 64))
    path = net.saved(tmp_path, build(net), opset=23 if name == "standard attention" else 21)
    found = load_model_argument(str(path))
    assert (found.macs, weight_bits(found)) == (macs, bits)


def scaled_by_hand(net: Graph, *, offset: bool) -> str:
    """Stored int8 cast to numbers, less a zero point, times a scale, as some exporters write DequantizeLinear."""
    made = net.op("Cast", net.stored(64, 48, dtype=np.int8), to=T.FLOAT)
    made = net.op("Sub", made, net.stored(48, value=3)) if offset else made
    return net.op("Mul", made, net.stored(48, value=0.1))


def side_by_side(net: Graph) -> str:
    parts = [net.op("DequantizeLinear", net.stored(64, 16, dtype=np.int8), scale(net)) for _ in range(3)]
    return net.op("Concat", *parts, axis=1)


STORED: dict[str, tuple[Callable[[Graph], str], int]] = {
    "by hand": (lambda n: scaled_by_hand(n, offset=False), 8),
    "by hand, with an offset": (lambda n: scaled_by_hand(n, offset=True), 8),
    "side by side": (side_by_side, 8),
    "plus numbers": (lambda n: n.op("Add", side_by_side(n), n.stored(64, 48)), 32),
}


@pytest.mark.parametrize("name", STORED)
def test_weights_computed_from_stored_codes_keep_their_width(tmp_path: Path, name: str) -> None:
    net, (build, bits) = Graph((1, 7, 64)), STORED[name]
    layer = load_model_argument(str(net.saved(tmp_path, net.op("MatMul", "x", build(net))))).layers[0]
    assert layer.weight is not None
    assert (layer.weight.bits, layer.weight.offset, layer.macs) == (bits, "offset" in name, 7 * 64 * 48)


def rows_ahead(net: Graph, *, numbers_first: bool) -> str:
    """Rows of a stored int8 table at positions that the file holds, as networks of text read their positions."""
    table, at = net.stored(2000, 48, dtype=np.int8), net.constant(np.arange(64))
    if numbers_first:
        return net.op("Gather", net.op("DequantizeLinear", table, scale(net)), at)
    return net.op("DequantizeLinear", net.op("Gather", table, at), scale(net))


MOVED: dict[str, Callable[[Graph], str]] = {
    "rows of numbers": lambda n: rows_ahead(n, numbers_first=True),
    "rows of codes": lambda n: rows_ahead(n, numbers_first=False),
    "columns behind a view": lambda n: n.op(
        "Gather",
        n.op("Reshape", n.op("DequantizeLinear", n.stored(96, 64, dtype=np.int8), scale(n)), n.constant([64, 96])),
        n.constant(np.arange(48)),
        axis=1,
    ),
    "copies": lambda n: n.op(
        "Tile", n.op("DequantizeLinear", n.stored(1, 48, dtype=np.int8), scale(n)), n.constant([64, 1])
    ),
    "by an index for each": lambda n: n.op(
        "GatherElements",
        n.op("DequantizeLinear", n.stored(90, 48, dtype=np.int8), scale(n)),
        n.constant(np.zeros((64, 48), np.int64)),
        axis=0,
    ),
}


@pytest.mark.parametrize("name", MOVED)
def test_stored_codes_in_other_places_are_stored_codes(tmp_path: Path, name: str) -> None:
    for kind, shape in (("MatMul", (7, 64)), ("Add", (64, 48))):
        net = Graph(shape)
        layer = load_model_argument(str(net.saved(tmp_path, net.op(kind, "x", MOVED[name](net))))).layers[-1]
        assert layer.weight is not None
        assert (layer.weight.bits, layer.weight.shape) == (8, (48, 64) if kind == "MatMul" else (64, 48)), kind


def test_an_input_whose_shape_the_file_does_not_say_takes_any(tmp_path: Path) -> None:
    net = Graph((3, 64))
    net.input.type.tensor_type.ClearField("shape")
    path = str(net.saved(tmp_path, net.op("MatMul", "x", net.stored(64, 48))))
    with pytest.raises(HwsimError, match=r"input x \(\.\.\.\) leaves sizes open: give them all with --input x=N"):
        load_model_argument(path)
    assert load_model_argument(path, (3, 64)).macs == 3 * 64 * 48


def test_one_size_of_two_inputs_is_one_number(tmp_path: Path) -> None:
    net = Graph((3, 64))
    path = net.saved(tmp_path, net.op("Add", net.op("MatMul", "x", net.stored(64, 48)), "y"))
    model = onnx.load(str(path))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    model.graph.input.append(onnx.helper.make_tensor_value_info("y", T.FLOAT, ("batch", 48)))
    onnx.save(model, str(path))
    assert load_model_argument(str(path), {"x": (5, 64)}).macs == 5 * 64 * 48
    with pytest.raises(HwsimError, match=r"--input y=4,48: its size 'batch' is one number .* says 5, this one 4"):
        load_model_argument(str(path), {"x": (5, 64), "y": (4, 48)})


def test_inputs_quantized_at_run_time_say_so(tmp_path: Path) -> None:
    net = Graph((1, 7, 64))
    found = load_model_argument(str(net.saved(tmp_path, dynamic_products(net))))
    products = [layer for layer in found if layer.has_macs]
    assert [layer.inputs[0].bits for layer in products] == [8, 8]
    assert all(layer.inputs[0].offset for layer in products)


def test_a_table_of_packed_codes_is_read_by_rows(tmp_path: Path) -> None:
    net = Graph((1, 4), T.INT64)
    table = (net.typed(T.UINT4, 100, 32), "x", net.stored(100, 2))
    y = net.op("GatherBlockQuantized", *table, domain=MS, block_size=16, bits=4, quantize_axis=1)
    found = load_model_argument(str(net.saved(tmp_path, linear_of(net, y, 32, 8))))
    rows = next(layer for layer in found if layer.op == "embedding")
    assert rows.weight is not None
    assert (rows.weight.bits, rows.weight.shape, found.macs) == (4, (100, 32), 4 * 32 * 8)


def test_the_embeddings_of_bert_keep_their_features(tmp_path: Path) -> None:
    net = Graph((1, 4), T.INT64)
    tables = [net.stored(n, 16) for n in (100, 32, 2)]
    y = net.op("EmbedLayerNormalization", "x", "", *tables[:2], "", net.stored(16), net.stored(16), domain=MS, outs=2)
    found = load_model_argument(str(net.saved(tmp_path, linear_of(net, y[0], 16, 8))))
    assert [layer.op for layer in found] == ["embedding", "add", "layer_norm", "linear"]
    assert found.macs == 4 * 16 * 8


def joined_to(net: Graph, kind: str) -> str:
    """An operator with something fused into it that is easily forgotten."""
    image = net.op("Reshape", "x", net.constant(np.array([1, 7, 8, 8])))
    if kind == "FusedConv":
        weights = (net.stored(7, 7, 3, 3), net.stored(7))
        return net.op("FusedConv", image, *weights, image, domain=MS, activation="Relu", pads=[1] * 4)
    if kind == "SkipLayerNormalization":
        more = [net.stored(64) for _ in range(3)]
        return net.op(kind, net.op("Relu", "x"), "x", *more, domain=MS)
    if kind == "MultiHeadAttention":
        return net.op(kind, net.op("Relu", "x"), "x", "x", net.stored(192), domain=MS, num_heads=4)
    if kind == "Attention":
        return net.op(kind, "x", "x", "x", q_num_heads=4, kv_num_heads=4, softcap=20.0)
    return recurrent("LSTM", activations=["HardSigmoid", "Relu", "Tanh"], layout=1)(net)


FUSED = {
    "FusedConv": ["conv", "add", "relu"],
    "SkipLayerNormalization": ["relu", "add", "add", "layer_norm"],
    "MultiHeadAttention": ["relu", "add", "add", "add", "matmul", "softmax", "matmul"],
    "Attention": ["matmul", "tanh", "softmax", "matmul"],
    "LSTM": [
        "linear",
        *[
            "linear",
            "add",
            "mul",
            "add",
            "hsigmoid",
            "relu",
            "mul",
            "mul",
            "add",
            "mul",
            "add",
            "hsigmoid",
            "tanh",
            "mul",
        ]
        * 7,
        "copy",
    ],
}


@pytest.mark.parametrize("kind", FUSED)
def test_what_is_fused_into_an_operator_is_a_layer(tmp_path: Path, kind: str) -> None:
    net = Graph((1, 7, 64))
    path = net.saved(tmp_path, joined_to(net, kind), opset=23 if kind == "Attention" else 21)
    assert [layer.op for layer in load_model_argument(str(path))] == FUSED[kind]


def test_rotated_features_are_products_with_cosines_and_sines(tmp_path: Path) -> None:
    layers: list[list[tuple[str, int]]] = []
    for domain in ("", MS):
        net = Graph((1, 7, 64))
        tables, at = [net.stored(32, 8) for _ in range(2)], net.constant(np.arange(7).reshape(1, 7))
        order = (at, *tables) if domain else (*tables, at)
        path = net.saved(tmp_path, net.op("RotaryEmbedding", "x", *order, domain=domain, num_heads=4), opset=23)
        layers.append([(layer.op, layer.output.elements) for layer in load_model_argument(str(path))])
    half = 7 * 32
    products = [("mul", half)] * 2
    assert layers[0] == layers[1] == [*products, ("sub", half), *products, ("add", half), ("concat", 2 * half)]


@pytest.mark.parametrize("options", [{"clip": 3.0}, {"activations": ["Affine", "Tanh", "Tanh"]}, {"input_forget": 1}])
def test_a_recurrent_layer_of_another_kind_is_refused_by_name(tmp_path: Path, options: dict[str, Any]) -> None:
    net = Graph((1, 7, 64))
    with pytest.raises(HwsimError, match=r"LSTM with \w+ .*has no price"):
        load_model_argument(str(net.saved(tmp_path, recurrent("LSTM", **options)(net))))


def test_codes_in_a_branch_are_codes(tmp_path: Path) -> None:
    """An operator on codes of onnxruntime inside a branch that is taken."""
    net = Graph((1, 7, 64))
    x, more = coded(net, "x"), (scale(net), zero(net))
    inner = onnx.helper.make_node("QLinearAdd", [x, *more, x, *more, *more], ["t"], domain=MS)
    branch = onnx.helper.make_graph([inner], "b", [], [onnx.helper.make_tensor_value_info("t", T.UINT8, None)])
    made = net.op("If", net.constant(np.bool_(True)), then_branch=branch, else_branch=branch)
    y = net.op("MatMul", net.op("DequantizeLinear", made, *more), net.stored(64, 8))
    found = load_model_argument(str(net.saved(tmp_path, y)))
    assert [(layer.op, layer.inputs[0].bits) for layer in found] == [("add", 8), ("linear", 8)]


@pytest.mark.parametrize("kind", ["steps by the input", "ends early"])
def test_what_depends_on_the_input_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    net = Graph((1, 7, 64))
    net_loop = loop(net)
    node = next(node for node in net.nodes if node.op_type == "Loop")
    body = node.attribute[0].g
    if kind == "ends early":
        del body.node[1]
        make = onnx.helper.make_node
        body.node.extend([make("ReduceMax", ["s"], ["most"], keepdims=0), make("IsNaN", ["most"], ["on"])])
        y = net_loop
    else:
        count = net.op("Cast", net.op("ReduceSum", "x", keepdims=0), to=T.INT64)
        node.input[0] = count
        net.nodes.insert(0, net.nodes.pop())
        net.nodes.insert(0, net.nodes.pop())
        y = net_loop
    with pytest.raises(HwsimError, match=r"Loop .* depends on the input's values"):
        load_model_argument(str(net.saved(tmp_path, y)))


# (shape, attributes, length, axis) -> products of its matrix: rows x numbers in x numbers out.
FOURIER: dict[str, tuple[list[int], dict[str, int], int | None, int | None, int]] = {
    "real": ([2, 8, 1], {}, None, 1, 2 * 8 * 16),
    "one-sided": ([2, 8, 1], {"onesided": 1}, None, 1, 2 * 8 * 10),
    "complex": ([2, 8, 2], {}, None, 1, 2 * 16 * 16),
    "inverse": ([2, 8, 2], {"inverse": 1}, None, 1, 2 * 16 * 16),
    "first axis": ([2, 3, 8, 1], {}, None, 1, 16 * 3 * 6),
    "default axis": ([2, 3, 8, 1], {}, None, None, 6 * 8 * 16),
    "shorter": ([2, 8, 1], {}, 4, 1, 2 * 4 * 8),
    "with zeros behind": ([2, 8, 1], {"onesided": 1}, 16, 1, 2 * 8 * 18),
}  # fmt: skip


@pytest.mark.parametrize("name", FOURIER)
def test_a_fourier_transform_has_the_products_of_its_matrix(name: str, tmp_path: Path) -> None:
    shape, options, length, axis, right = FOURIER[name]
    given = {"n": length, "axis": axis}
    stored = [onnx.numpy_helper.from_array(np.asarray(v, np.int64), k) for k, v in given.items() if v is not None]
    inputs = ["x", *("" if v is None else k for k, v in given.items())]
    node = onnx.helper.make_node("DFT", inputs, ["y"], **options)
    graph = onnx.helper.make_graph(
        [node], "g", [onnx.helper.make_tensor_value_info("x", T.FLOAT, shape)],
        [onnx.helper.make_tensor_value_info("y", T.FLOAT, None)], stored,
    )  # fmt: skip
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9)
    onnx.save(model, tmp_path / "dft.onnx")
    assert load_model_argument(str(tmp_path / "dft.onnx")).macs == right


@pytest.mark.parametrize(("kind", "gated"), [("MoE", False), ("MoE", True), ("QMoE", False), ("QMoE", True)])
def test_experts_are_refused_with_their_products_and_the_way_out(kind: str, gated: bool, tmp_path: Path) -> None:
    """4 experts of 8 -> 6 (twice where gated) -> 8 features, 2 for each of 5 tokens."""
    net = Graph((5, 8))
    packed = np.uint8 if kind == "QMoE" else np.float32
    made, pack = 12 if gated else 6, 2 if kind == "QMoE" else 1
    router = net.op("MatMul", "x", net.stored(8, 4))
    first, second = net.stored(4, made, 8 // pack, dtype=packed), net.stored(4, 8, 6 // pack, dtype=packed)
    scales = (net.stored(4, made), net.stored(4, 8))
    inputs = (first, scales[0], "", second, scales[1]) if kind == "QMoE" else (first, "", second)
    options = {"k": 2, **({"swiglu_fusion": 1} if gated else {})}
    path = net.saved(tmp_path, net.op(kind, "x", router, *inputs, domain=MS, **options))
    with pytest.raises(HwsimError, match=rf"{kind} \(which experts a token reads depends.*: price .* hf:NAME"):
        load_model_argument(str(path))
    network = load_model_argument(str(path), allow_uncosted=True)
    assert network.coverage is not None
    assert [item.macs for item in network.coverage.uncosted] == [5 * 2 * 8 * (made + 6)]


def test_a_recurrent_layer_with_weights_of_another_size_is_refused(tmp_path: Path) -> None:
    net = Graph((5, 2, 8))
    path = net.saved(tmp_path, net.op("LSTM", "x", net.stored(1, 24, 8), net.stored(1, 24, 4), hidden_size=4))
    with pytest.raises(HwsimError, match=r"LSTM has weights of \(1, 24, 8\) and .*: expected \(1, 16, 8\) and"):
        load_model_argument(str(path))


@pytest.mark.parametrize("onesided", [0, 1])
def test_a_short_time_fourier_transform_is_the_products_of_its_frames(onesided: int, tmp_path: Path) -> None:
    """13 frames of 16 out of 64 numbers, 4 apart; 9 or 16 bins of two parts."""
    net = Graph((2, 64, 1))
    step, window, length = net.constant(np.int64(4)), net.stored(16), net.constant(np.int64(16))
    made = net.op("STFT", "x", step, window, length, onesided=onesided)
    network = load_model_argument(str(net.saved(tmp_path, made)))
    assert network.macs == 2 * 13 * 16 * 2 * (9 if onesided else 16)


@pytest.mark.parametrize("sign", ["?", "-1"])
def test_a_sign_for_an_open_size_is_no_name(sign: str, tmp_path: Path) -> None:
    net = Graph((1, 3, 8, 6))
    for axis in (2, 3):
        net.input.type.tensor_type.shape.dim[axis].dim_param = sign
    path = net.saved(tmp_path, net.op("Conv", "x", net.stored(4, 3, 3, 3)))
    assert load_model_argument(str(path), (1, 3, 8, 6)).macs == 4 * 27 * 6 * 4
