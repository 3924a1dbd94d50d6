"""TFLite operators one by one, in files built field by field: their costs and bits, and what is refused by name."""

from __future__ import annotations

import itertools
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwsim.errors import UnsupportedOp, WorkloadError
from hwsim.frontends.files.tflite import read_tflite_graph
from hwsim.frontends.lowering.lower import lower
from hwsim.frontends.lowering.table import HANDLERS
from hwsim.network.workload import Workload
from tests.frontends.test_spellings import facts, written
from tests.frontends.tflite_files import O, T, write

S = (1, 6, 6, 4)
SAME = {"same": 1, "stride_w": 1, "stride_h": 1}
CONV = O("CONV_2D", [0, 1, -1], [2], SAME)
CONV_MACS = 36 * 4 * 36


def ones(*shape: int) -> T:
    """A stored tensor of int8 codes."""
    return T(shape, data=np.ones(shape))


def numbers(values: Any) -> T:
    """Stored int32 numbers: axes, sizes."""
    return T(np.shape(values), "int32", None, data=values)


def floats(*shape: int) -> T:
    return T(shape, "float32", None)


def read(folder: Path, tensors: list[T], ops: list[O], inputs: Any = (0,), shapes: Any = None, **more: Any) -> Workload:
    """The workload of a file built from these."""
    return lower(read_tflite_graph(write(folder / "net.tflite", tensors, ops, inputs, **more), shapes), HANDLERS)


def behind_conv(folder: Path, more: list[T], ops: list[O], **options: Any) -> Workload:
    """A convolution (tensors 0 to 2), then these."""
    return read(folder, [T(S), ones(4, 3, 3, 4), T(S), *more], [CONV, *ops], **options)


# operator -> tensors from number 3 on, operators, kind of the layer, its elements, its stored bits, bits of its output
ONE = {
    "PRELU": ([ones(1, 1, 4), T(S)], [O("PRELU", [2, 3], [4])], "leaky_relu", 144, 4 * 8, 8),
    "PACK": ([T((2, *S))], [O("PACK", [2, 2], [3], {"axis": 0})], "concat", 288, 0, 8),
    "MIRROR_PAD": (
        [numbers([[0, 0], [1, 1], [1, 1], [0, 0]]), T((1, 8, 8, 4))], [O("MIRROR_PAD", [2, 3], [4])], "pad", 256, 0, 8,
    ),
    "LOG": ([T(S)], [O("LOG", [2], [3])], "tanh", 144, 0, 8),
    "LESS": ([T(S, "bool", None)], [O("LESS", [0, 2], [3])], "add", 144, 0, 1),
    "EQUAL, stored": ([ones(*S), T(S, "bool", None)], [O("EQUAL", [2, 3], [4])], "add", 144, 144 * 8, 1),
    "SELECT_V2": (
        [T(S, "bool", None), T(S)], [O("LESS", [0, 2], [3]), O("SELECT_V2", [3, 0, 2], [4])], "add", 144, 0, 8,
    ),
    "SELECT_V2, stored": (
        [T(S, "bool", None), ones(*S), T(S)], [O("LESS", [0, 2], [3]), O("SELECT_V2", [3, 2, 4], [5])], "add", 144,
        144 * 8, 8,
    ),
    "REDUCE_MAX": ([numbers([1, 2]), T((1, 4))], [O("REDUCE_MAX", [2, 3], [4])], "reduce_max", 4, 0, 8),
    "REDUCE_MIN": ([numbers([1, 2]), T((1, 4))], [O("REDUCE_MIN", [2, 3], [4])], "reduce_max", 4, 0, 8),
    "REDUCE_PROD": ([numbers([3]), T((1, 6, 6))], [O("REDUCE_PROD", [2, 3], [4])], "reduce_sum", 36, 0, 8),
    "REDUCE_ANY": (
        [T(S, "bool", None), numbers([1, 2]), T((1, 4), "bool", None)],
        [O("NOT_EQUAL", [0, 2], [3]), O("REDUCE_ANY", [3, 4], [5])], "reduce_max", 4, 0, 1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ONE)
def test_an_operator_is_one_layer_with_the_bits_of_its_file(tmp_path: Path, name: str) -> None:
    tensors, ops, kind, elements, stored_bits, bits = ONE[name]
    net = behind_conv(tmp_path, tensors, ops)
    assert net.macs == CONV_MACS
    assert not net.coverage.uncosted
    last = net.layers[-1]
    assert (last.op, last.output.elements, last.output.bits) == (kind, elements, bits)
    assert (last.weight.elements * last.weight.bits if last.weight else 0) == stored_bits
    assert not any("pass no quantizer" in note for note in net.notes)


def counted_macs(made: int, kernel: int, stride: int, cut: int, channels: int) -> int:
    """Taps that each output of a square transposed convolution gathers, zeros of the border included, one by one."""
    taps = sum((o + cut - k) % stride == 0 for o, k in itertools.product(range(made), range(kernel)))
    return taps * taps * channels


@pytest.mark.parametrize(
    ("kernel", "made", "same", "cut"), [(2, 12, 1, 0), (3, 12, 1, 0), (3, 13, 0, 0), (4, 12, 1, 1)]
)
def test_a_transposed_convolution_counts_the_products_inside_its_output(
    tmp_path: Path, kernel: int, made: int, same: int, cut: int
) -> None:
    out = T((1, made, made, 3))
    options = {"same": same, "stride_w": 2, "stride_h": 2}
    tensors = [T(S), numbers(out.shape), ones(3, kernel, kernel, 4), out]
    net = read(tmp_path, tensors, [O("TRANSPOSE_CONV", [1, 2, 0], [3], options)])
    assert net.macs == counted_macs(made, kernel, 2, cut, 3 * 4)
    if kernel == 2:
        custom = O("CUSTOM_Convolution2DTransposeBias", [0, 2, -1], [3], custom=struct.pack("<3i", 1, 2, 2))
        assert read(tmp_path, tensors, [custom]).macs == net.macs


def test_sparse_weights_are_weights_priced_dense(tmp_path: Path) -> None:
    sparse = T((4, 3, 3, 4), data=np.ones(30), sparse=True)
    ops = [O("DENSIFY", [1], [2]), O("CONV_2D", [0, 2, -1], [3], SAME)]
    net = read(tmp_path, [T(S), sparse, T((4, 3, 3, 4)), T(S)], ops)
    assert net.macs == CONV_MACS
    assert net.layers[0].weight is not None
    assert net.layers[0].weight.bits == 8
    assert any("stored sparse" in note for note in net.notes)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_floats_count_as_they_are_stored(tmp_path: Path, dtype: str) -> None:
    stored = T((4, 3, 3, 4), dtype, None, data=bytes(2 * 144))
    ops = [O("DEQUANTIZE", [1], [2]), O("CONV_2D", [0, 2, -1], [3], SAME)]
    net = read(tmp_path, [floats(*S), stored, floats(4, 3, 3, 4), floats(*S)], ops)
    layer = net.layers[0]
    assert layer.weight is not None
    assert (layer.weight.bits, layer.inputs[0].bits, layer.macs) == (16, 32, CONV_MACS)


@pytest.mark.parametrize(("dtype", "bits"), [("int2", 2), ("int4", 4), ("uint4", 4), ("uint8", 8), ("int16", 16)])
def test_stored_codes_have_the_width_of_their_type(tmp_path: Path, dtype: str, bits: int) -> None:
    data = bytes(8 * 16 * bits // 8)
    net = read(tmp_path, [T((1, 16)), T((8, 16), dtype, data=data), T((1, 8))], [O("FULLY_CONNECTED", [0, 1, -1], [2])])
    assert net.layers[0].weight is not None
    assert (net.layers[0].weight.bits, net.layers[0].weight.signed) == (bits, not dtype.startswith("u"))


@pytest.mark.parametrize("dtype", ["resource", "later"])
def test_a_type_without_a_width_is_refused_by_name(tmp_path: Path, dtype: str) -> None:
    tensors = [T((1, 16)), T((8, 16), dtype, data=bytes(128), name="table"), T((1, 8))]
    with pytest.raises(WorkloadError, match="FULLY_CONNECTED works on tensor 'table', whose element type"):
        read(tmp_path, tensors, [O("FULLY_CONNECTED", [0, 1, -1], [2])])


def test_integer_weights_under_float_activations_quantize_at_run_time(tmp_path: Path) -> None:
    net = read(tmp_path, [floats(*S), ones(4, 3, 3, 4), floats(*S)], [CONV])
    assert [layer.op for layer in net] == ["reduce_max", "requantize", "conv"]
    assert net.layers[2].inputs[0].bits == 8
    assert any(note.startswith("hybrid: 1 layers") for note in net.notes)


def test_every_product_of_numbers_by_stored_codes_quantizes_at_run_time(tmp_path: Path) -> None:
    product = read(tmp_path, [floats(1, 7, 16), ones(1, 16, 8), floats(1, 7, 8)], [O("BATCH_MATMUL", [0, 1], [2])])
    window = {"same": 1, "stride_w": 2, "stride_h": 2}
    tensors = [floats(*S), numbers([1, 12, 12, 3]), ones(3, 2, 2, 4), floats(1, 12, 12, 3)]
    upsampled = read(tmp_path, tensors, [O("TRANSPOSE_CONV", [1, 2, 0], [3], window)])
    for net in (product, upsampled):
        found = next(layer for layer in net if layer.has_macs)
        assert (found.inputs[0].bits, found.inputs[0].run_time) == (8, True)
        assert any(note.startswith("hybrid: 1 layers") for note in net.notes)


def lstm(weights: str, activations: str, *extra: str) -> tuple[list[T], list[O]]:
    """UNIDIRECTIONAL_SEQUENCE_LSTM of 20 states over 7 steps of 16 features."""
    step = {"float32": None}.get(activations, 0.1)
    tensors = [T((1, 7, 16), activations, step)]

    def stored(*shape: int, dtype: str = weights) -> int:
        tensors.append(T(shape, dtype, 0.1 if dtype == "int8" else None, data=np.ones(shape)))
        return len(tensors) - 1

    made = 12 if "projection" in extra else 20
    bias = "float32" if activations == "float32" else "int32"
    inputs = [0, *(stored(20, 16) for _ in range(4)), *(stored(20, made) for _ in range(4))]
    inputs += [stored(20) for _ in range(3)] if "peepholes" in extra else [-1] * 3
    inputs += [stored(20, dtype=bias) for _ in range(4)]
    inputs += [stored(12, 20) if "projection" in extra else -1, -1]
    tensors += [T((1, made), activations, step, variable=True), T((1, 20), activations, step, variable=True)]
    inputs += [len(tensors) - 2, len(tensors) - 1]
    inputs += [stored(20, dtype="float32") for _ in range(4)] if "layer norm" in extra else []
    if "coupled gates" in extra:
        inputs[1] = inputs[5] = -1
    tensors.append(T((1, 7, made), activations, step))
    return tensors, [O("UNIDIRECTIONAL_SEQUENCE_LSTM", inputs, [len(tensors) - 1], {"time_major": 0})]


@pytest.mark.parametrize(("weights", "activations", "seen"), [
    ("float32", "float32", (32, 32, False)), ("int8", "float32", (8, 8, True)), ("int8", "int8", (8, 8, False)),
])  # fmt: skip
def test_a_sequence_lstm_has_the_bits_of_its_file(
    tmp_path: Path, weights: str, activations: str, seen: tuple[int, int, bool]
) -> None:
    net = read(tmp_path, *lstm(weights, activations))
    products = [layer for layer in net if layer.has_macs]
    assert net.macs == 7 * 80 * 36
    assert all(layer.bias for layer in products)
    assert {(p.weight.bits, p.inputs[0].bits, p.inputs[0].run_time) for p in products if p.weight} == {seen}


def test_peepholes_and_projections_are_layers_of_every_step(tmp_path: Path) -> None:
    net = read(tmp_path, *lstm("float32", "float32", "peepholes", "projection"))
    assert net.macs == 7 * (80 * (16 + 12) + 12 * 20)
    assert sum(layer.op == "mul" for layer in net) == 7 * 5


@pytest.mark.parametrize("extra", ["layer norm", "coupled gates"])
def test_an_lstm_of_another_kind_is_refused_by_name(tmp_path: Path, extra: str) -> None:
    with pytest.raises(WorkloadError, match=f"an LSTM with {extra} has no price"):
        read(tmp_path, *lstm("float32", "float32", extra))


# Operators on stored tensors alone: what they make is in no file, and has the type that the file gives it.
AHEAD: dict[str, tuple[list[T], O]] = {
    "GATHER": ([ones(50, 6), numbers([1, 2, 3, 4])], O("GATHER", [1, 2], [9], {"axis": 0})),
    "TILE": ([ones(1, 6), numbers([4, 1])], O("TILE", [1, 2], [9])),
    "BROADCAST_TO": ([ones(1, 6), numbers([4, 6])], O("BROADCAST_TO", [1, 2], [9])),
    "SLICE": ([ones(9, 6), numbers([2, 0]), numbers([4, 6])], O("SLICE", [1, 2, 3], [9])),
    "CONCATENATION": ([ones(2, 6), ones(2, 6)], O("CONCATENATION", [1, 2], [9], {"axis": 0})),
    "PACK": ([ones(6), ones(6), ones(6), ones(6)], O("PACK", [1, 2, 3, 4], [9], {"axis": 0})),
    "QUANTIZE": ([T((4, 6), "float32", None, data=np.ones((4, 6)))], O("QUANTIZE", [1], [9])),
    "ADD": ([ones(4, 6), ones(1, 6)], O("ADD", [1, 2], [9])),
}


@pytest.mark.parametrize("name", AHEAD)
def test_what_is_computed_ahead_has_the_width_of_its_type(tmp_path: Path, name: str) -> None:
    stored, op = AHEAD[name]
    tensors = [T((4, 6)), *stored, *[T((1,))] * (8 - len(stored)), T((4, 6)), T((4, 6))]
    (layer,) = read(tmp_path, tensors, [op, O("MUL", [0, 9], [10])])
    assert layer.weight is not None
    assert (layer.op, layer.weight.bits, layer.weight.elements) == ("mul", 8, 24)


def test_weights_computed_ahead_are_weights_of_their_type(tmp_path: Path) -> None:
    tensors = [T((4, 6)), ones(50, 6), numbers([0, 1, 2, 3, 4]), T((5, 6)), T((4, 5))]
    net = read(tmp_path, tensors, [O("GATHER", [1, 2], [3], {"axis": 0}), O("FULLY_CONNECTED", [0, 3, -1], [4])])
    assert [(layer.op, layer.macs, layer.weight and layer.weight.bits) for layer in net] == [("linear", 4 * 5 * 6, 8)]


def test_tensors_without_elements_are_known_ahead(tmp_path: Path) -> None:
    tensors = [
        T((1, 16)), numbers([0, 16]), numbers([0, 0]), T((0, 16)), T((1, 16)), ones(8, 16), T((1, 8)), ones(1, 8),
        T((1, 1)), T((0,), "int32", None), T(()),
    ]  # fmt: skip
    ops = [
        O("SLICE", [0, 2, 1], [3]), O("CONCATENATION", [0, 3], [4], {"axis": 0}), O("FULLY_CONNECTED", [4, 5, -1], [6]),
        O("FULLY_CONNECTED", [6, 7, -1], [8]), O("RESHAPE", [8, 9], [10]),
    ]  # fmt: skip
    net = read(tmp_path, tensors, ops)
    assert (net.macs, [layer.op for layer in net]) == (8 * 16 + 8, ["linear", "linear"])
    with pytest.raises(WorkloadError, match="its input 't3' has no elements"):
        read(tmp_path, tensors, ops[1:], [0, 3])


def test_a_choice_of_elements_by_their_values_is_refused(tmp_path: Path) -> None:
    tensors = [T((4,), "bool", None), T((4, 1), "int64", None)]
    with pytest.raises(UnsupportedOp, match=r"WHERE \(how many elements it makes depends on the input's values"):
        read(tmp_path, tensors, [O("WHERE", [0], [1])])


def test_a_streaming_state_is_an_input_and_a_copy(tmp_path: Path) -> None:
    tensors = [
        T((1, 1, 4)), T((), "resource", None), T((1, 5, 4)), T((1, 6, 4)), ones(3, 24), T((1, 3)), T((1, 5, 4)),
        numbers([0, 1, 0]), numbers([1, 5, 4]),
    ]  # fmt: skip
    ops = [
        O("VAR_HANDLE", [], [1]), O("READ_VARIABLE", [1], [2]), O("CONCATENATION", [2, 0], [3], {"axis": 1}),
        O("SLICE", [3, 7, 8], [6]), O("ASSIGN_VARIABLE", [1, 6], []), O("FULLY_CONNECTED", [3, 4, -1], [5]),
    ]  # fmt: skip
    net = read(tmp_path, tensors, ops, outputs=[5])
    assert net.macs == 3 * 24
    assert [(layer.op, layer.output.elements) for layer in net] == [("concat", 24), ("copy", 20), ("linear", 3)]
    assert net.layers[0].inputs[0].origin == "input"


def test_a_signature_lets_the_batch_be_chosen(tmp_path: Path) -> None:
    tensors = [
        T(S, signature=(-1, 6, 6, 4)), ones(4, 3, 3, 4), T(S, signature=(-1, 6, 6, 4)), numbers([-1, 144]),
        T((1, 144), signature=(-1, 144)), ones(5, 144), T((1, 5), signature=(-1, 5)),
    ]  # fmt: skip
    ops = [CONV, O("RESHAPE", [2, 3], [4]), O("FULLY_CONNECTED", [4, 5, -1], [6])]
    assert read(tmp_path, tensors, ops, shapes=(3, *S[1:])).macs == 3 * read(tmp_path, tensors, ops).macs
    tensors[0].signature = ()
    with pytest.raises(WorkloadError, match="has the shape"):
        read(tmp_path, tensors, ops, shapes=(3, *S[1:]))


@pytest.mark.parametrize(
    "kind", ["IF", "WHILE", "NON_MAX_SUPPRESSION_V5", "RIGHT_SHIFT", "STABLEHLO_CASE", "CUSTOM_Mine"]
)
def test_what_has_no_price_is_refused_by_its_name(tmp_path: Path, kind: str) -> None:
    with pytest.raises(UnsupportedOp, match=kind):
        behind_conv(tmp_path, [T(S)], [O(kind, [2], [3])])


# -- one network in many spellings -------------------------------------------------------------------------------------

STYLES = ("plain", "own_relu", "explicit_pad", "zero_bias", "old_codes", "requantized_input")


def spelt(folder: Path, style: str) -> Workload:
    """`conv_net` of test_spellings as a TFLite file."""
    x, w1, w2 = T(S, zero=-5, name="x"), ones(4, 3, 3, 4), ones(2, 1, 1, 4)
    tensors = [x, w1, T(S), T(S, zero=3), numbers([12, 12]), T((1, 12, 12, 4), zero=3), w2, T((1, 12, 12, 2))]
    bias = [-1, -1]
    if style == "zero_bias":
        tensors += [T((4,), "int32", None, data=[0] * 4), T((2,), "int32", None, data=[0] * 2)]
        bias = [8, 9]
    relu = {"activation": 1} if style != "own_relu" else {}
    window = {**SAME, **relu}
    first = [O("CONV_2D", [0, 1, bias[0]], [2], window)]
    if style == "own_relu":
        tensors.append(T(S))
        first = [O("CONV_2D", [0, 1, -1], [8], window), O("RELU", [8], [2])]
    if style == "explicit_pad":
        tensors += [numbers([[0, 0], [1, 1], [1, 1], [0, 0]]), T((1, 8, 8, 4), zero=-5)]
        first = [O("PAD", [0, 8], [9]), O("CONV_2D", [9, 1, -1], [2], {**window, "same": 0})]
    inputs = [0]
    if style == "requantized_input":
        tensors.append(floats(*S))
        first, inputs = [O("QUANTIZE", [8], [0]), *first], [8]
    ops = [
        *first, O("ADD", [2, 0], [3]), O("RESIZE_NEAREST_NEIGHBOR", [3, 4], [5]),
        O("CONV_2D", [5, 6, bias[1]], [7], SAME),
    ]  # fmt: skip
    return read(folder, tensors, ops, inputs, old_codes=style == "old_codes")


@pytest.mark.long
@pytest.mark.parametrize("style", STYLES)
def test_a_tflite_spelling_is_the_workload_of_the_onnx_file(tmp_path: Path, style: str) -> None:
    pytest.importorskip("onnx")
    from hwsim.frontends.files.onnx_graph import read_onnx

    twin = lower(read_onnx(written(tmp_path, "conv", "plain")), HANDLERS)
    assert facts(spelt(tmp_path, style)) == facts(twin)
