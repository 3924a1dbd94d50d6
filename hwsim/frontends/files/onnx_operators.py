"""What each ONNX operator on numbers is in the graph: one handler per operator, in the terms of aten's operators."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from hwsim.frontends.files.onnx_attention import ATTENTION
from hwsim.frontends.files.onnx_code_operators import CODE_HANDLERS, convolve, window_padding
from hwsim.frontends.files.onnx_contributed import CONTRIBUTED, flipped
from hwsim.frontends.files.onnx_reader import VIEWS, Handler, OnnxReader
from hwsim.frontends.files.onnx_recurrent import dynamic_lstm, recurrent
from hwsim.frontends.files.onnx_shapes import fused_shape
from hwsim.frontends.lowering.ir import Arg, Op, Ref

UNARY = {
    "Relu": "relu", "LeakyRelu": "leaky_relu", "Sigmoid": "sigmoid", "HardSigmoid": "hardsigmoid", "Elu": "elu",
    "HardSwish": "hardswish", "Tanh": "tanh", "Softmax": "softmax", "LogSoftmax": "log_softmax", "Gelu": "gelu",
    "QuickGelu": "gelu", "Erf": "erf", "Exp": "exp", "Sqrt": "sqrt", "Selu": "selu", "Celu": "celu",
    "Mish": "mish", "Softplus": "softplus", "Softsign": "softsign", "ThresholdedRelu": "threshold", "Log": "log",
    "Neg": "neg", "Abs": "abs", "Reciprocal": "reciprocal", "Sin": "sin", "Cos": "cos", "Swish": "silu", "Tan": "tan",
    "Atan": "atan", "Asin": "asin", "Acos": "acos", "Sinh": "sinh", "Cosh": "cosh", "Asinh": "asinh", "Acosh": "acosh",
    "Atanh": "atanh", "Floor": "floor", "Ceil": "ceil", "Round": "round", "Sign": "sign", "Not": "logical_not",
    "IsNaN": "isnan", "IsInf": "isinf", "DepthToSpace": "pixel_shuffle", "SpaceToDepth": "pixel_unshuffle",
    "Trilu": "tril",
}  # fmt: skip
BINARY = {
    "Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div", "Pow": "pow", "Mod": "remainder", "MatMul": "matmul",
    "PRelu": "prelu", "Greater": "gt", "Less": "lt", "Equal": "eq", "GreaterOrEqual": "ge", "LessOrEqual": "le",
    "And": "logical_and", "Or": "logical_or", "Xor": "logical_xor", "BitwiseAnd": "bitwise_and",
    "BitwiseOr": "bitwise_or", "BitwiseXor": "bitwise_xor",
}  # fmt: skip
REDUCTIONS = {
    "ReduceMean": "mean", "ReduceSum": "sum", "ReduceMax": "amax", "ReduceMin": "amin", "ReduceProd": "prod",
    "ReduceL1": "norm", "ReduceL2": "norm", "ReduceSumSquare": "norm", "ReduceLogSum": "logsumexp",
    "ReduceLogSumExp": "logsumexp", "GlobalAveragePool": "mean", "GlobalMaxPool": "amax", "GlobalLpPool": "norm",
    "ArgMax": "argmax", "ArgMin": "argmin",
}  # fmt: skip
# Movement of elements by positions that the file or the network computes: one copy of what is made.
MOVEMENT = {
    "GatherElements": "gather", "GatherND": "index", "ScatterElements": "scatter", "Scatter": "scatter",
    "ScatterND": "index_put", "Tile": "repeat", "OneHot": "one_hot", "ReverseSequence": "flip",
}  # fmt: skip


def unary(read: OnnxReader, node: Any) -> None:
    """A function of one tensor."""
    read.op(f"aten.{UNARY[node.op_type]}", node.output[0], self=read.ref(node, 0))


def binary(read: OnnxReader, node: Any) -> None:
    """A function of two tensors; a constant exponent is told."""
    arguments: dict[str, Arg] = {"self": read.ref(node, 0), "other": read.ref(node, 1)}
    exponent = read.number(node, 1)
    if node.op_type == "Pow" and exponent is not None and exponent.size == 1:
        arguments = {"self": read.ref(node, 0), "exponent": float(exponent.reshape(-1)[0])}
    read.op(f"aten.{BINARY[node.op_type]}", node.output[0], **arguments)


def view(read: OnnxReader, node: Any) -> None:
    """The same numbers under another shape; codes stay the codes of their quantizer."""
    source = node.input[0]
    read.op("aten.view", node.output[0], self=Ref(source))
    if source in read.coded:
        read.coded[node.output[0]] = read.coded[source]


def split(read: OnnxReader, node: Any) -> None:
    """Split."""
    axis = int(read.options(node).get("axis", 0))
    for name in node.output:
        read.shape(name)
        if node.input[0] in read.coded:
            read.coded[name] = read.coded[node.input[0]]
    arguments: dict[str, Arg] = {"self": read.ref(node, 0), "dim": axis}
    read.ops.append(Op("aten.split_with_sizes", arguments, tuple(node.output), read.layer, read.layer))


# -- products ----------------------------------------------------------------------------------------------------------


def conv(read: OnnxReader, node: Any) -> None:
    """Conv, and FusedConv with an addition and the activation behind it."""
    weight, bias, output = read.ref(node, 1), read.ref(node, 2), node.output[0]
    activation = read.options(node).get("activation") if node.op_type == "FusedConv" else None
    added = read.ref(node, 3) if node.op_type == "FusedConv" else None
    made = output if activation is None and added is None else read.fresh(f"{read.layer}.conv", read.shape(output))
    convolve(read, node, node.input[0], weight, read.shape(node.input[1]), bias, made)
    if added is not None:
        total = output if activation is None else read.fresh(f"{read.layer}.sum", read.shape(output))
        read.op("aten.add", total, self=Ref(made), other=added)
        made = total
    if activation is not None:
        activated(read, node, str(activation), made)


def activated(read: OnnxReader, node: Any, function: str, source: str) -> None:
    """The activation fused behind an operator, by its name; its numbers are the operator's."""
    limits: dict[str, Arg] = {}
    if function == "Clip":
        limits = dict(zip(("min", "max"), read.options(node).get("activation_params", ()), strict=False))
    elif function not in UNARY:
        raise read.refuse(f"{node.op_type} with activation {function!r} has no price")
    read.op(f"aten.{UNARY.get(function, 'clamp')}", node.output[0], self=Ref(source), **limits)


def conv_transpose(read: OnnxReader, node: Any) -> None:
    """ConvTranspose: weights (in, out per group, ...), `pads` cut off what it makes."""
    options = read.options(node)
    kernel = read.shape(node.input[1])[2:]
    axes = len(kernel)
    strides = [int(n) for n in options.get("strides", [1] * axes)]
    dilations = [int(n) for n in options.get("dilations", [1] * axes)]
    pads = [int(n) for n in options.get("pads", [0] * 2 * axes)]
    if options.get("auto_pad", "NOTSET") in ("SAME_UPPER", "SAME_LOWER") or options.get("output_shape"):
        made = read.shape(node.output[0])[2:]
        pads = transposed_pads(read.shape(node.input[0])[2:], made, kernel, strides, dilations, options)
    read.op(
        "aten.conv_transpose", node.output[0], input=read.ref(node, 0), weight=read.ref(node, 1),
        bias=read.ref(node, 2), stride=tuple(strides), padding=tuple(pads[:axes]), dilation=tuple(dilations),
        groups=int(options.get("group", 1)),
    )  # fmt: skip


def transposed_pads(
    sizes: tuple[int, ...], made: tuple[int, ...], kernel: tuple[int, ...], strides: list[int], dilations: list[int],
    options: Mapping[str, Any],
) -> list[int]:  # fmt: skip
    """What is cut off in front of every axis so that the result has the wanted size; the odd one as the mode says."""
    before: list[int] = []
    extra = options.get("output_padding", [0] * len(kernel))
    for n, out, k, s, d, more in zip(sizes, made, kernel, strides, dilations, extra, strict=True):
        total = max(0, s * (n - 1) + int(more) + (k - 1) * d + 1 - out)
        before.append(total - total // 2 if options.get("auto_pad") == "SAME_LOWER" else total // 2)
    return before


def gemm(read: OnnxReader, node: Any) -> None:
    """Gemm: alpha * A' B' + beta * C; FusedGemm with an activation behind it."""
    options, output = read.options(node), node.output[0]
    function = options.get("activation") if node.op_type == "FusedGemm" else None
    made = output if function is None else read.fresh(f"{read.layer}.gemm", read.shape(output))
    a, b = node.input[0], node.input[1]
    if options.get("transA"):
        a = flipped(read, a)
    if options.get("transB"):
        read.op("aten.linear", made, input=Ref(a), weight=Ref(b), bias=read.ref(node, 2))
    elif read.ref(node, 2) is not None:
        read.op("aten.addmm", made, self=read.ref(node, 2), mat1=Ref(a), mat2=Ref(b))
    else:
        read.op("aten.mm", made, self=Ref(a), mat2=Ref(b))
    if function is not None:
        activated(read, node, str(function), made)


def fused_matmul(read: OnnxReader, node: Any) -> None:
    """FusedMatMul and its kin: operands may be transposed, an activation may follow; the factor folds into the step
    size."""
    options, output = read.options(node), node.output[0]
    function = options.get("activation") if node.op_type == "FusedMatMulActivation" else None
    names = [str(name) for name in node.input[:2]]
    for position, letter in enumerate("AB"):
        shape = fused_shape(read.shape(names[position]), options, letter)
        if shape != read.shape(names[position]) or options.get(f"trans{letter}"):
            turned = read.fresh(f"{names[position]}.t", shape)
            read.op("aten.permute", turned, self=Ref(names[position]))
            names[position] = turned
    made = output if function is None else read.fresh(f"{read.layer}.product", read.shape(output))
    read.op("aten.matmul", made, self=Ref(names[0]), other=Ref(names[1]))
    if function is not None:
        activated(read, node, str(function), made)


def einsum(read: OnnxReader, node: Any) -> None:
    """Einsum."""
    equation = str(read.options(node)["equation"])
    read.op("aten.einsum", node.output[0], equation=equation, tensors=tuple(Ref(name) for name in node.input))


# -- pooling, reductions, normalisation --------------------------------------------------------------------------------


def pool(read: OnnxReader, node: Any) -> None:
    """MaxPool, AveragePool and LpPool of one to three dimensions."""
    kernel = tuple(int(n) for n in read.options(node)["kernel_shape"])
    name = {"MaxPool": "max", "AveragePool": "avg", "LpPool": "avg"}[node.op_type]
    if not 1 <= len(kernel) <= 3 or min(kernel) < 1:
        raise read.refuse(f"pooling over a window {kernel} has no price")
    outputs = tuple(name for name in node.output if name)
    read.shape(outputs[0])
    arguments: dict[str, Arg] = {"self": read.ref(node, 0), "kernel_size": kernel, **sliding(read, node, kernel)}
    read.ops.append(Op(f"aten.{name}_pool{len(kernel)}d", arguments, outputs, read.layer, read.layer))


def sliding(read: OnnxReader, node: Any, kernel: tuple[int, ...]) -> dict[str, Arg]:
    """How the window slides over rows and columns."""
    options, shape = read.options(node), read.shape(node.input[0])
    axes = len(kernel)
    if options.get("channels_last") or len(shape) != axes + 2:
        return {}
    strides = [int(n) for n in options.get("strides", [1] * axes)]
    dilations = [int(n) for n in options.get("dilations", [1] * axes)]
    if min(strides) < 1:
        raise read.refuse(f"strides {strides}; expected at least 1")
    pads = window_padding(options, shape, list(kernel), strides, dilations)
    return {
        "stride": tuple(strides), "dilation": tuple(dilations),
        "padding": tuple(pads[:axes]), "padding_behind": tuple(pads[axes:]),
    }  # fmt: skip


def reduction(read: OnnxReader, node: Any) -> None:
    """Reductions over constant axes; pooling over a whole map."""
    name = REDUCTIONS[node.op_type]
    rank = len(read.shape(node.input[0]))
    options = read.options(node)
    axes = options.get("axes")
    given = read.number(node, 1)
    if node.op_type.startswith("Global"):
        axes = range(2, rank)
    elif node.op_type.startswith("Arg"):
        axes = [options.get("axis", 0)]
    elif axes is None and given is not None:
        axes = [int(axis) for axis in given.reshape(-1)]
    elif axes is None and read.has(node, 1):
        raise read.refuse("its axes are not constant")
    if axes is not None and not list(axes) and options.get("noop_with_empty_axes"):
        view(read, node)
        return
    dims = tuple(int(axis) % rank for axis in axes) if axes is not None and list(axes) else tuple(range(rank))
    read.op(f"aten.{name}", node.output[0], self=read.ref(node, 0), dim=dims)


def topk(read: OnnxReader, node: Any) -> None:
    """TopK: values and positions."""
    axis = int(read.options(node).get("axis", -1))
    arguments: dict[str, Arg] = {"self": read.ref(node, 0), "dim": axis}
    for name in node.output:
        if name:
            read.shape(name)
    read.ops.append(Op("aten.topk", arguments, tuple(node.output), read.layer, read.layer))


def batch_norm(read: OnnxReader, node: Any) -> None:
    """BatchNormalization at inference."""
    names = ("input", "weight", "bias", "running_mean", "running_var")
    read.op("aten.batch_norm", node.output[0], **{name: read.ref(node, i) for i, name in enumerate(names)})


def normalisation(read: OnnxReader, node: Any) -> None:
    """LayerNormalization, RMSNormalization, InstanceNormalization, GroupNormalization, LRN."""
    if node.op_type == "LRN":
        size = int(read.options(node)["size"])
        read.op("onnx.LRN", node.output[0], self=read.ref(node, 0), size=size)
        return
    by_row = node.op_type in ("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization")
    name = "aten.layer_norm" if by_row else "aten.group_norm"
    read.op(name, node.output[0], input=read.ref(node, 0), weight=read.ref(node, 1), bias=read.ref(node, 2))


def skip_normalisation(read: OnnxReader, node: Any) -> None:
    """SkipLayerNormalization: a bias, an addition, then the norm; the sum may be a result of its own."""
    plain = node.op_type == "SkipLayerNormalization"
    source, bias, shape = read.ref(node, 0), read.ref(node, 4 if plain else 3), read.shape(node.input[0])
    if bias is not None:
        biased = read.fresh(f"{read.layer}.biased", shape)
        read.op("aten.add", biased, self=source, other=bias)
        source = Ref(biased)
    total = next((name for name in node.output[3:4] if name), "") or read.fresh(f"{read.layer}.sum", shape)
    read.declare(total, shape)
    read.op("aten.add", total, self=source, other=read.ref(node, 1))
    beta = read.ref(node, 3) if plain else None
    read.op("aten.layer_norm", node.output[0], input=Ref(total), weight=read.ref(node, 2), bias=beta)


def clip(read: OnnxReader, node: Any) -> None:
    """Clip: limits as attributes (opset 6) or inputs; a limit computed at run time is a maximum or a minimum."""
    options = read.options(node)
    limits: dict[str, Arg] = {}
    moving: list[tuple[str, int]] = []
    for position, key, choice in ((1, "min", "maximum"), (2, "max", "minimum")):
        given = read.number(node, position)
        if read.has(node, position) and given is None:
            moving.append((choice, position))
        elif (given is not None and given.size) or key in options:
            limits[key] = float(given.reshape(-1)[0]) if given is not None else options[key]
    source, output = node.input[0], node.output[0]
    for number, (choice, position) in enumerate(moving):
        last = number == len(moving) - 1 and not limits
        made = output if last else read.fresh(f"{read.layer}.{choice}", read.shape(output))
        read.op(f"aten.{choice}", made, self=Ref(source), other=read.ref(node, position))
        source = made
    if limits or not moving:
        read.op("aten.clamp", output, self=Ref(source), **limits)


# -- movement and choice -----------------------------------------------------------------------------------------------


def concat(read: OnnxReader, node: Any) -> None:
    """Concat."""
    axis = int(read.options(node).get("axis", 0))
    parts = tuple(Ref(name) for name in node.input)
    read.op("aten.cat", node.output[0], tensors=parts, dim=axis % max(1, len(read.shape(node.output[0]))))


def sum_of(read: OnnxReader, node: Any) -> None:
    """Sum, Mean, Max, Min of any number of inputs, two at a time; the divisor of a mean folds into the step size."""
    name = {"Sum": "aten.add", "Mean": "aten.add", "Max": "aten.maximum", "Min": "aten.minimum"}[node.op_type]
    so_far = node.input[0]
    if len(node.input) == 1:
        read.op("aten.alias", node.output[0], self=Ref(so_far))
    for i, other in enumerate(node.input[1:], start=1):
        last = i == len(node.input) - 1
        made = node.output[0] if last else read.fresh(f"{read.layer}.sum", read.shape(node.output[0]))
        read.op(name, made, self=Ref(so_far), other=Ref(other))
        so_far = made


def gather(read: OnnxReader, node: Any) -> None:
    """Gather: rows of a table by an input, a view by one constant index, else a copy."""
    source, index = node.input[0], read.number(node, 1)
    if source in read.parameters:
        read.op("aten.embedding", node.output[0], weight=read.ref(node, 0), indices=read.ref(node, 1))
    elif index is not None and index.size == 1:
        view(read, node)
        return
    else:
        read.op("aten.index_select", node.output[0], self=read.ref(node, 0), index=read.ref(node, 1))
    if source in read.coded:
        read.coded[node.output[0]] = read.coded[source]


def movement(read: OnnxReader, node: Any) -> None:
    """Elements taken from, or put at, computed positions."""
    arguments: dict[str, Arg] = {f"input_{i}": Ref(name) for i, name in enumerate(node.input) if name}
    read.op(f"aten.{MOVEMENT[node.op_type]}", node.output[0], **arguments)


def cumulative(read: OnnxReader, node: Any) -> None:
    """CumSum."""
    read.op("aten.cumsum", node.output[0], self=read.ref(node, 0))


def fourier(read: OnnxReader, node: Any) -> None:
    """DFT along one known axis, whole or one-sided; the last axis holds the parts of its numbers."""
    options, shape = read.options(node), read.shape(node.input[0])
    by_input = read.known.rewriting.opset >= 20
    given = read.number(node, 2, -2) if by_input else np.asarray(options.get("axis", 1))
    if given is None or (read.has(node, 1) and read.number(node, 1) is None):
        raise read.refuse("the axis or the length of its transform depends on the input's values")
    axis = int(given.reshape(-1)[0]) % len(shape)
    length = read.number(node, 1, shape[axis])
    assert length is not None
    number = int(length.reshape(-1)[0])
    onesided = bool(options.get("onesided", 0))
    backwards = onesided and bool(options.get("inverse", 0))
    bins = number // 2 + 1 if onesided and not backwards else number
    read.declare(node.output[0], (*shape[:axis], bins, *shape[axis + 1 : -1], 1 if backwards else 2))
    used = number // 2 + 1 if backwards else number
    read.op("onnx.DFT", node.output[0], self=read.ref(node, 0), axis=axis, length=used)


def short_fourier(read: OnnxReader, node: Any) -> None:
    """STFT with a known step and length of its frames."""
    shape, step = read.shape(node.input[0]), read.number(node, 1)
    window = read.shape(node.input[2])[0] if read.has(node, 2) else shape[1]
    length = read.number(node, 3, window)
    if step is None or length is None:
        raise read.refuse("the step or the length of its frames depends on the input's values")
    each, hop = int(length.reshape(-1)[0]), int(step.reshape(-1)[0])
    bins = each // 2 + 1 if read.options(node).get("onesided", 1) else each
    read.declare(node.output[0], (shape[0], (shape[1] - each) // hop + 1, bins, 2))
    read.op("onnx.STFT", node.output[0], self=read.ref(node, 0), length=each)


def grid_sample(read: OnnxReader, node: Any) -> None:
    """GridSample by its mode."""
    modes = {"bilinear": 0, "linear": 0, "nearest": 1, "bicubic": 2, "cubic": 2}
    mode = str(read.options(node).get("mode", "linear"))
    if mode not in modes:
        raise read.refuse(f"mode {mode!r} of GridSample has no price")
    grid: dict[str, Arg] = {"input": read.ref(node, 0), "grid": read.ref(node, 1)}
    read.op("aten.grid_sampler", node.output[0], interpolation_mode=modes[mode], **grid)


def pad(read: OnnxReader, node: Any) -> None:
    """Pad with constant amounts (before every axis, then after every axis)."""
    options = read.options(node)
    given = read.number(node, 1)
    amounts = options.get("pads") or (given.reshape(-1).tolist() if given is not None else None)
    if amounts is None:
        raise read.refuse("its padding is not constant")
    rank = len(read.shape(node.input[0]))
    if read.has(node, 3):
        axes = read.number(node, 3)
        if axes is None:
            raise read.refuse("its axes are not constant")
        chosen = [int(axis) % rank for axis in axes.reshape(-1)]
        sparse, half = amounts, len(chosen)
        amounts = [0] * 2 * rank
        for i, axis in enumerate(chosen):
            amounts[axis], amounts[axis + rank] = sparse[i], sparse[i + half]
    flat = [int(n) for axis in reversed(range(rank)) for n in (amounts[axis], amounts[axis + rank])]
    while len(flat) > 2 and flat[-2:] == [0, 0]:
        flat = flat[:-2]
    value = read.number(node, 2)
    fill = float(value.reshape(-1)[0]) if value is not None and value.size else float(options.get("value", 0.0))
    if read.has(node, 2) and value is None:
        fill = math.nan  # known at run time only: a layer of its own
    mode = str(options.get("mode", "constant"))
    read.op("aten.pad", node.output[0], self=read.ref(node, 0), pad=tuple(flat), mode=mode, value=fill)


def resize(read: OnnxReader, node: Any) -> None:
    """Resize and Upsample by their mode; nearest moves codes and keeps them."""
    mode = read.options(node).get("mode", "nearest")
    before, after = read.shape(node.input[0]), read.shape(node.output[0])
    axes = max(1, sum(n != m for n, m in zip(before, after, strict=True)))  # those whose size stays have one neighbour
    linear = {1: "upsample_linear1d", 2: "upsample_bilinear2d", 3: "upsample_trilinear3d"}.get(axes)
    name = {"nearest": "upsample_nearest2d", "linear": linear, "cubic": "upsample_bicubic2d" if axes < 3 else None}.get(
        mode
    )
    if name is None:
        raise read.refuse(f"mode {mode!r} of {node.op_type} over {axes} axes has no price")
    read.op(f"aten.{name}", node.output[0], self=read.ref(node, 0))
    if mode == "nearest" and node.input[0] in read.coded:
        read.coded[node.output[0]] = read.coded[node.input[0]]


def shape_of(read: OnnxReader, node: Any) -> None:
    """Shape and Size: known before the input arrives."""
    for name in node.output:
        read.constants[name] = name
        read.parameters.add(name)


def constant_of_shape(read: OnnxReader, node: Any) -> None:
    """ConstantOfShape of a known, large size: a constant; its size from the input's values is refused."""
    if node.input[0] not in read.parameters:
        raise read.refuse("its size depends on the input's values")
    shape_of(read, node)


def where(read: OnnxReader, node: Any) -> None:
    """Where: a choice per element."""
    arguments: dict[str, Arg] = {key: read.ref(node, i) for i, key in enumerate(("condition", "self", "other"))}
    read.op("aten.where", node.output[0], **arguments)


HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(UNARY, unary),
    **dict.fromkeys(BINARY, binary),
    **dict.fromkeys(VIEWS, view),
    **CODE_HANDLERS,
    **CONTRIBUTED,
    **ATTENTION,
    "Split": split,
    **dict.fromkeys(("Conv", "FusedConv"), conv),
    "ConvTranspose": conv_transpose,
    **dict.fromkeys(("Gemm", "FusedGemm"), gemm),
    **dict.fromkeys(("FusedMatMul", "TransposeMatMul", "FusedMatMulActivation"), fused_matmul),
    "Einsum": einsum,
    **dict.fromkeys(("LSTM", "GRU", "RNN"), recurrent),
    "DynamicQuantizeLSTM": dynamic_lstm,
    **dict.fromkeys(("MaxPool", "AveragePool", "LpPool"), pool),
    **dict.fromkeys(REDUCTIONS, reduction),
    "TopK": topk,
    "BatchNormalization": batch_norm,
    **dict.fromkeys(
        ("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization", "InstanceNormalization",
         "GroupNormalization", "LRN"),
        normalisation,
    ),
    **dict.fromkeys(("SkipLayerNormalization", "SkipSimplifiedLayerNormalization"), skip_normalisation),
    "Clip": clip,
    "Concat": concat,
    **dict.fromkeys(("Sum", "Mean", "Max", "Min"), sum_of),
    "Gather": gather,
    **dict.fromkeys(MOVEMENT, movement),
    "CumSum": cumulative,
    "GridSample": grid_sample,
    "DFT": fourier,
    "STFT": short_fourier,
    "Pad": pad,
    **dict.fromkeys(("Resize", "Upsample"), resize),
    **dict.fromkeys(("Shape", "Size"), shape_of),
    "ConstantOfShape": constant_of_shape,
    "Where": where,
}  # fmt: skip
