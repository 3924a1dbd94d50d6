"""Quantized TFLite networks as an `OpGraph`: `read_tflite_graph(path)`, with real bits, zero points and scales.

Every int8 or uint8 tensor stands behind a quantizer named after it. Convolutions pad with the zero point, which is
policy `snap_offset`. Shapes become N, C, H, W; layers are numbered, because the file names tensors, not layers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hwsim.errors import WorkloadError
from hwsim.frontends.files.tflite_file import ACTIVATIONS, TfliteModel, TfliteOp, TfliteTensor, read_tflite
from hwsim.frontends.lowering.ir import Arg, Meta, Op, OpGraph, Quantization, Ref
from hwsim.frontends.lowering.lower import QUANTIZER

TO_NCHW = {0: 0, 1: 2, 2: 3, 3: 1}  # where a dimension of N, H, W, C goes
UNARY = {
    "RELU": "relu", "RELU6": "relu6", "RELU_N1_TO_1": "hardtanh", "LOGISTIC": "sigmoid", "TANH": "tanh",
    "SOFTMAX": "softmax", "LOG_SOFTMAX": "log_softmax", "HARD_SWISH": "hardswish", "LEAKY_RELU": "leaky_relu",
    "GELU": "gelu", "EXP": "exp", "SQRT": "sqrt", "RSQRT": "rsqrt", "ABS": "abs", "NEG": "neg", "SQUARE": "square",
    "DEPTH_TO_SPACE": "pixel_shuffle", "SPACE_TO_DEPTH": "pixel_unshuffle", "RESIZE_BILINEAR": "upsample_bilinear2d",
    "RESIZE_NEAREST_NEIGHBOR": "upsample_nearest2d",
}  # fmt: skip
BINARY = {"ADD": "add", "SUB": "sub", "MUL": "mul", "DIV": "div", "MAXIMUM": "maximum", "MINIMUM": "minimum"}
VIEWS = ("RESHAPE", "SQUEEZE", "EXPAND_DIMS", "TRANSPOSE", "SLICE", "STRIDED_SLICE", "CAST", "DEQUANTIZE")


def read_tflite_graph(path: Path, input_shape: tuple[int, ...] | None = None) -> OpGraph:
    """The network of a TFLite file. Raises WorkloadError; operators without a price are named when it is lowered."""
    model = read_tflite(path)
    return GraphBuilder(model).build(input_shape)


class GraphBuilder:
    """Translates one TFLite graph, operator by operator."""

    def __init__(self, model: TfliteModel) -> None:
        self.model = model
        self.metas: dict[str, Meta] = {}
        self.constants: dict[str, str] = {}
        self.quantizers: dict[str, Quantization] = {}
        self.policies: dict[str, str] = {}
        self.ops: list[Op] = []
        self.layer = ""
        names = Counter(tensor.name for tensor in model.tensors)
        self.names = [t.name if t.name and names[t.name] == 1 else f"{t.name}#{t.index}" for t in model.tensors]

    def build(self, input_shape: tuple[int, ...] | None) -> OpGraph:
        """The whole graph. Raises WorkloadError where the file leaves sizes open or contradicts `input_shape`."""
        for tensor in self.model.tensors:
            self.declare(tensor)
        inputs: list[str] = []
        for index in self.model.inputs:
            tensor = self.model.tensors[index]
            if input_shape is not None and input_shape not in (tensor.shape, self.metas[value(index)].shape):
                raise WorkloadError(
                    f"{self.model.path}: its input has the fixed shape {tensor.shape}, --input says {input_shape}"
                )
            raw = f"input_{index}"
            self.metas[raw] = self.metas[value(index)]
            inputs.append(raw)
            self.round(tensor, raw)
        for number, op in enumerate(self.model.ops):
            self.layer = f"{number:02d}_{op.op.lower()}"
            self.translate(op)
        outputs = tuple(value(index) for index in self.model.outputs)
        return OpGraph(
            self.model.path.stem, tuple(inputs), self.constants, self.metas, tuple(self.ops), outputs,
            self.quantizers, self.policies, self.notes(),
        )  # fmt: skip

    def notes(self) -> tuple[str, ...]:
        """What the file has beyond its first graph."""
        more = self.model.subgraphs - 1
        return (f"{more} further graphs of the file (initialisers) are not part of the network",) if more else ()

    def declare(self, tensor: TfliteTensor) -> None:
        """A tensor's shape, N, C, H, W where it has four dimensions; constants are known from the start."""
        if any(n < 1 for n in tensor.shape) and tensor.data is None:
            raise WorkloadError(f"{self.model.path}: tensor {tensor.name!r} has an open size {tensor.shape}")
        shape = tensor.shape
        if len(shape) == 4:
            shape = (shape[0], shape[3], shape[1], shape[2])
        self.metas[value(tensor.index)] = Meta(shape, "float32" if tensor.quantized else tensor.dtype)
        if tensor.data is not None:
            self.constants[value(tensor.index)] = self.names[tensor.index]

    def add(self, op: str, outputs: tuple[str, ...], /, **arguments: Arg) -> None:
        """One operator of the layer being translated."""
        self.ops.append(Op(op, arguments, outputs, self.layer, self.layer))

    def round(self, tensor: TfliteTensor, raw: str) -> None:
        """The tensor as its codes: a quantizer of its own behind the raw value, if it is quantized at all."""
        if not tensor.quantized:
            self.add("aten.alias", (value(tensor.index),), self=Ref(raw))
            return
        name = self.names[tensor.index]
        self.quantizers[name] = quantization(tensor, name)
        self.add(QUANTIZER, (value(tensor.index),), x=Ref(raw), name=name)

    def weight(self, index: int, shape: tuple[int, ...]) -> Ref:
        """A constant operand under another shape, as its codes."""
        tensor = self.model.tensors[index]
        plain, coded = f"weight_{index}", f"weight_{index}.codes"
        self.metas[plain] = self.metas[coded] = Meta(shape, "float32")
        self.constants[plain] = self.names[index]
        if not tensor.quantized:
            return Ref(plain)
        self.quantizers[plain] = quantization(tensor, plain, of_weight=True)
        self.add(QUANTIZER, (coded,), x=Ref(plain), name=plain)
        return Ref(coded)

    def operand(self, op: TfliteOp, position: int) -> Arg:
        """An input of an operator; None where it is absent."""
        if position >= len(op.inputs) or op.inputs[position] < 0:
            return None
        return Ref(value(op.inputs[position]))

    def tensor(self, op: TfliteOp, position: int) -> TfliteTensor:
        """The tensor behind an input. Raises WorkloadError when it is absent."""
        if position >= len(op.inputs) or op.inputs[position] < 0:
            raise WorkloadError(f"{self.model.path}: {self.layer} has no input {position}")
        return self.model.tensors[op.inputs[position]]

    def result(self, op: TfliteOp, operator: str, /, **arguments: Arg) -> None:
        """An operator with one output, the activation fused behind it, and the rounding of what it makes."""
        index = op.outputs[0]
        raw = f"{value(index)}.raw"
        self.metas[raw] = self.metas[value(index)]
        self.add(operator, (raw,), **arguments)
        function = ACTIVATIONS.get(op.options.get("activation", 0), "")
        if function:
            active = f"{value(index)}.active"
            self.metas[active] = self.metas[raw]
            limits: dict[str, Arg] = {"min_val": -1.0, "max_val": 1.0} if function == "RELU_N1_TO_1" else {}
            self.add(f"aten.{UNARY[function]}", (active,), self=Ref(raw), **limits)
            raw = active
        self.round(self.model.tensors[index], raw)

    def translate(self, op: TfliteOp) -> None:
        """One operator. What has no translation keeps its name, and is refused by it later."""
        if op.op in HANDLERS:
            HANDLERS[op.op](self, op)
        elif op.op in UNARY:
            self.result(op, f"aten.{UNARY[op.op]}", self=self.operand(op, 0))
        elif op.op in BINARY:
            self.result(op, f"aten.{BINARY[op.op]}", self=self.operand(op, 0), other=self.operand(op, 1))
        elif op.op in VIEWS:
            self.view(op)
        else:
            arguments = {f"input_{i}": self.operand(op, i) for i in range(len(op.inputs))}
            self.add(f"tflite.{op.op}", tuple(value(index) for index in op.outputs), **arguments)

    def view(self, op: TfliteOp) -> None:
        """The same codes under another shape, or rounded anew where the file gives them another scale."""
        source, made = self.tensor(op, 0), self.model.tensors[op.outputs[0]]
        same = (source.scales, source.zero_points) == (made.scales, made.zero_points) or not made.quantized
        if same:
            self.add("aten.view", (value(op.outputs[0]),), self=self.operand(op, 0))
        else:
            self.result(op, "aten.view", self=self.operand(op, 0))


def value(index: int) -> str:
    """Name of a tensor's value in the graph."""
    return f"tensor_{index}"


def quantization(tensor: TfliteTensor, name: str, of_weight: bool = False) -> Quantization:
    """Bits, sign, zero point and number of scales of a tensor."""
    zero = tensor.zero_points[0] if len(set(tensor.zero_points)) == 1 else None
    offset = any(tensor.zero_points)
    return Quantization(name, tensor.bits, tensor.signed, offset, len(tensor.scales), of_weight, zero)


def spatial_padding(op: TfliteOp, sizes: tuple[int, int], kernel: tuple[int, int]) -> tuple[int, int, int, int]:
    """(top, bottom, left, right) of a SAME or VALID window; the odd zero goes after."""
    found: list[int] = []
    for axis, size, taps in zip("hw", sizes, kernel, strict=True):
        stride, dilation = op.options[f"stride_{axis}"], op.options.get(f"dilation_{axis}", 1)
        total = max((-(-size // stride) - 1) * stride + (taps - 1) * dilation + 1 - size, 0)
        found += [total // 2, total - total // 2] if op.options["same"] else [0, 0]
    return found[0], found[1], found[2], found[3]


def convolution(build: GraphBuilder, op: TfliteOp) -> None:
    """CONV_2D (weights O, H, W, I) and DEPTHWISE_CONV_2D (weights 1, H, W, O)."""
    source, weight = build.tensor(op, 0), build.tensor(op, 1)
    if len(source.shape) != 4 or len(weight.shape) != 4:
        raise WorkloadError(f"{build.model.path}: {build.layer}: expected 4 dimensions, got {source.shape}")
    depthwise = op.op == "DEPTHWISE_CONV_2D"
    rows, columns = weight.shape[1:3]
    outputs, inner = (weight.shape[3], 1) if depthwise else (weight.shape[0], weight.shape[3])
    groups = source.shape[3] // inner
    top, bottom, left, right = spatial_padding(op, source.shape[1:3], (rows, columns))  # type: ignore[arg-type]
    x = build.operand(op, 0)
    if any((top, bottom, left, right)):
        if source.quantized:
            build.policies[build.layer] = "snap_offset"
        n, c, h, w = build.metas[value(source.index)].shape
        padded = f"{build.layer}.padded"
        build.metas[padded] = Meta((n, c, h + top + bottom, w + left + right))
        build.add("aten.constant_pad_nd", (padded,), self=x, pad=(left, right, top, bottom))
        x = Ref(padded)
    build.result(
        op,
        "aten.convolution",
        input=x,
        weight=build.weight(weight.index, (outputs, inner, rows, columns)),
        bias=build.operand(op, 2),
        stride=(op.options["stride_h"], op.options["stride_w"]),
        padding=(0, 0),
        dilation=(op.options["dilation_h"], op.options["dilation_w"]),
        groups=groups,
    )


def fully_connected(build: GraphBuilder, op: TfliteOp) -> None:
    """Weights (out, in); the input is flattened to rows of `in`."""
    source, weight = build.tensor(op, 0), build.tensor(op, 1)
    features = weight.shape[-1]
    flat = f"{build.layer}.rows"
    build.metas[flat] = Meta((math.prod(source.shape) // features, features))
    build.add("aten.view", (flat,), self=build.operand(op, 0))
    is_constant = weight.data is not None
    w: Arg = build.weight(weight.index, weight.shape) if is_constant else build.operand(op, 1)
    build.result(op, "aten.linear", input=Ref(flat), weight=w, bias=build.operand(op, 2))


def pool(build: GraphBuilder, op: TfliteOp) -> None:
    """MAX_POOL_2D and AVERAGE_POOL_2D."""
    name = "aten.max_pool2d" if op.op == "MAX_POOL_2D" else "aten.avg_pool2d"
    build.result(op, name, self=build.operand(op, 0), kernel_size=(op.options["filter_h"], op.options["filter_w"]))


def reduce(build: GraphBuilder, op: TfliteOp) -> None:
    """MEAN, SUM, REDUCE_MAX over constant axes."""
    rank = len(build.tensor(op, 0).shape)
    axes = build.tensor(op, 1).data
    if axes is None:
        raise WorkloadError(f"{build.model.path}: {build.layer}: its axes are not constant")
    dims = tuple(axis_of(int(axis), rank) for axis in axes.reshape(-1))
    name = {"MEAN": "aten.mean", "SUM": "aten.sum", "REDUCE_MAX": "aten.amax"}[op.op]
    build.result(op, name, self=build.operand(op, 0), dim=dims)


def axis_of(axis: int, rank: int) -> int:
    """A dimension of the file in N, C, H, W order."""
    axis %= max(rank, 1)
    return TO_NCHW[axis] if rank == 4 else axis


def concatenation(build: GraphBuilder, op: TfliteOp) -> None:
    """CONCATENATION and PACK."""
    rank = len(build.tensor(op, 0).shape)
    parts = tuple(Ref(value(index)) for index in op.inputs)
    build.result(op, "aten.cat", tensors=parts, dim=axis_of(op.options.get("axis", 0), rank))


def pad(build: GraphBuilder, op: TfliteOp) -> None:
    """PAD and PADV2 with constant amounts; values other than zero stay layers of their own."""
    amounts = build.tensor(op, 1).data
    rank = len(build.tensor(op, 0).shape)
    if amounts is None or amounts.size != 2 * rank:
        raise WorkloadError(f"{build.model.path}: {build.layer}: its padding is not constant")
    pairs: dict[int, tuple[int, int]] = {
        axis_of(axis, rank): (int(amounts.reshape(-1, 2)[axis, 0]), int(amounts.reshape(-1, 2)[axis, 1]))
        for axis in range(rank)
    }
    flat: list[int] = [n for axis in reversed(range(rank)) for n in pairs[axis]]
    while len(flat) > 2 and flat[-2:] == [0, 0]:
        flat = flat[:-2]
    nonzero: dict[str, Arg] = {"value": 1.0} if op.op == "PADV2" else {}
    build.result(op, "aten.constant_pad_nd", self=build.operand(op, 0), pad=tuple(flat), **nonzero)


def quantize(build: GraphBuilder, op: TfliteOp) -> None:
    """QUANTIZE: the same numbers as other codes."""
    raw = f"{value(op.outputs[0])}.raw"
    build.metas[raw] = build.metas[value(op.outputs[0])]
    build.add("aten.alias", (raw,), self=build.operand(op, 0))
    build.round(build.model.tensors[op.outputs[0]], raw)


def split(build: GraphBuilder, op: TfliteOp) -> None:
    """SPLIT (axis first), SPLIT_V and UNPACK: parts of the same codes."""
    source = build.operand(op, 1) if op.op == "SPLIT" else build.operand(op, 0)
    build.add("aten.split_with_sizes", tuple(value(index) for index in op.outputs), self=source)


def matmul(build: GraphBuilder, op: TfliteOp) -> None:
    """BATCH_MATMUL; operands keep the file's order of dimensions, because heads are no channels."""
    names: list[Arg] = []
    for position, key in enumerate(("transpose_left", "transpose_right")):
        tensor = build.tensor(op, position)
        shape = tensor.shape
        if op.options[key]:
            shape = (*shape[:-2], shape[-1], shape[-2])
        name = f"{build.layer}.operand_{position}"
        build.metas[name] = Meta(shape)
        build.add("aten.view", (name,), self=build.operand(op, position))
        names.append(Ref(name))
    build.result(op, "aten.matmul", self=names[0], other=names[1])


HANDLERS: dict[str, Callable[[GraphBuilder, TfliteOp], Any]] = {
    "CONV_2D": convolution,
    "DEPTHWISE_CONV_2D": convolution,
    "FULLY_CONNECTED": fully_connected,
    "MAX_POOL_2D": pool,
    "AVERAGE_POOL_2D": pool,
    "MEAN": reduce,
    "SUM": reduce,
    "REDUCE_MAX": reduce,
    "CONCATENATION": concatenation,
    "PAD": pad,
    "PADV2": pad,
    "QUANTIZE": quantize,
    "SPLIT": split,
    "SPLIT_V": split,
    "UNPACK": split,
    "BATCH_MATMUL": matmul,
}
