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


def grouped_attention(net: Graph) -> str:
    q, k, v = (linear_of(net, "x", 64, n) for n in (64, 32, 32))
    lengths = (net.constant(np.array([[6]], np.int32)), net.constant(np.array([7], np.int32)))
    made = net.op("GroupQueryAttention", q, k, v, "", "", *lengths, domain=MS, num_heads=4, kv_num_heads=2, outs=3)
    return made[0]


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
    "ellipsis": (lambda n: n.op("Einsum", "x", n.stored(64, 8), equation="...d,de->...e"), 7 * 64 * 8, 32 * 64 * 8),
}


def weight_bits(net: Workload) -> int:
    found = [layer.weight for layer in net if layer.has_macs and not layer.weight_is_activation]
    return sum({w.name: w.size_bits for w in found if w is not None}.values())


@pytest.mark.parametrize("name", FORMS)
def test_macs_and_weight_bits_of_a_form(tmp_path: Path, name: str) -> None:
    build, macs, bits = FORMS[name]
    net = Graph((1, 7, 8, 8) if name == "fused convolution" else (1, 7, 64))
    path = net.saved(tmp_path, build(net), opset=23 if name == "standard attention" else 21)
    found = load_model_argument(str(path))
    assert (found.macs, weight_bits(found)) == (macs, bits)


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


@pytest.mark.parametrize("kind", ["steps by the input", "ends early", "attention with a cache"])
def test_what_depends_on_the_input_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    net = Graph((1, 7, 64))
    if kind == "attention with a cache":
        caches = [net.stored(1, 4, 3, 16) for _ in range(2)]
        more = (net.constant(np.array([[6]], np.int32)), net.constant(np.array([10], np.int32)))
        y = net.op(
            "GroupQueryAttention", "x", "x", "x", *caches, *more, domain=MS, num_heads=4, kv_num_heads=4, outs=3
        )[0]
    else:
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
    with pytest.raises(HwsimError, match=r"Loop .* depends on the input's values|GroupQueryAttention"):
        load_model_argument(str(net.saved(tmp_path, y)))
