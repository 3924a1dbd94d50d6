"""What each TFLite operator is in the graph: one handler per operator, in the terms of aten's operators."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable

from hwsim.errors import WorkloadError
from hwsim.frontends.files.tflite_build import GraphBuilder, Handler, axis_of, quantization, value
from hwsim.frontends.files.tflite_file import TfliteOp
from hwsim.frontends.lowering.ir import Arg, Meta, Quantization, Ref

UNARY = {
    "RELU": "relu", "RELU6": "relu6", "RELU_N1_TO_1": "hardtanh", "LOGISTIC": "sigmoid", "TANH": "tanh",
    "SOFTMAX": "softmax", "LOG_SOFTMAX": "log_softmax", "HARD_SWISH": "hardswish", "LEAKY_RELU": "leaky_relu",
    "GELU": "gelu", "ELU": "elu", "EXP": "exp", "LOG": "log", "SQRT": "sqrt", "RSQRT": "rsqrt", "ABS": "abs",
    "NEG": "neg", "SQUARE": "square", "SIN": "sin", "COS": "cos", "FLOOR": "floor", "CEIL": "ceil", "ROUND": "round",
    "SIGN": "sign", "LOGICAL_NOT": "logical_not", "COMPLEX_ABS": "abs", "ZEROS_LIKE": "zeros_like",
    "DEPTH_TO_SPACE": "pixel_shuffle", "SPACE_TO_DEPTH": "pixel_unshuffle", "RESIZE_BILINEAR": "upsample_bilinear2d",
    "RESIZE_NEAREST_NEIGHBOR": "upsample_nearest2d", "REVERSE_V2": "flip", "TILE": "repeat", "CUMSUM": "cumsum",
    "BATCH_TO_SPACE_ND": "pixel_shuffle", "SPACE_TO_BATCH_ND": "pixel_unshuffle", "L2_NORMALIZATION": "rms_norm",
}  # fmt: skip
BINARY = {
    "ADD": "add", "SUB": "sub", "MUL": "mul", "DIV": "div", "MAXIMUM": "maximum", "MINIMUM": "minimum", "POW": "pow",
    "FLOOR_DIV": "floor_divide", "FLOOR_MOD": "remainder", "SQUARED_DIFFERENCE": "squared_difference", "LESS": "lt",
    "LESS_EQUAL": "le", "GREATER": "gt", "GREATER_EQUAL": "ge", "EQUAL": "eq", "NOT_EQUAL": "ne", "ATAN2": "atan2",
    "LOGICAL_AND": "logical_and", "LOGICAL_OR": "logical_or", "BITWISE_XOR": "bitwise_xor",
}  # fmt: skip
# Operators on any operands: choices, and movement by computed positions.
ANY = {
    "SELECT": "where", "SELECT_V2": "where", "GATHER_ND": "index", "SCATTER_ND": "index_put", "ONE_HOT": "one_hot",
    "DYNAMIC_UPDATE_SLICE": "slice_scatter", "REVERSE_SEQUENCE": "flip",
}  # fmt: skip
REDUCTIONS = {
    "MEAN": "mean", "SUM": "sum", "REDUCE_MAX": "amax", "REDUCE_MIN": "amin", "REDUCE_PROD": "prod",
    "REDUCE_ANY": "any", "REDUCE_ALL": "all", "ARG_MAX": "argmax", "ARG_MIN": "argmin",
}  # fmt: skip
VIEWS = ("RESHAPE", "SQUEEZE", "EXPAND_DIMS", "TRANSPOSE", "SLICE", "STRIDED_SLICE", "CAST", "DEQUANTIZE",
         "BROADCAST_TO", "BITCAST")  # fmt: skip


def unary(build: GraphBuilder, op: TfliteOp) -> None:
    """A function of the first input."""
    build.result(op, f"aten.{UNARY[op.op]}", self=build.operand(op, 0))


def binary(build: GraphBuilder, op: TfliteOp) -> None:
    """A function of two tensors."""
    build.result(op, f"aten.{BINARY[op.op]}", self=build.operand(op, 0), other=build.operand(op, 1))


def any_operands(build: GraphBuilder, op: TfliteOp) -> None:
    """A choice, or movement by computed positions."""
    build.result(op, f"aten.{ANY[op.op]}", **build.operands(op))


def view(build: GraphBuilder, op: TfliteOp) -> None:
    """The same codes under another shape, or rounded anew where the file gives them another scale."""
    if keeps_codes(build, op):
        build.add("aten.view", (value(op.outputs[0]),), self=build.operand(op, 0))
    else:
        build.result(op, "aten.view", self=build.operand(op, 0))


def keeps_codes(build: GraphBuilder, op: TfliteOp) -> bool:
    """Whether what an operator makes is written as its first input is: no new rounding, only movement."""
    source, made = build.tensor(op, 0), build.model.tensors[op.outputs[0]]
    same = (source.dtype, source.scales, source.zero_points) == (made.dtype, made.scales, made.zero_points)
    return same or not made.quantized


def clipped(build: GraphBuilder, op: TfliteOp) -> None:
    """RELU_0_TO_1."""
    build.result(op, "aten.clamp", self=build.operand(op, 0), min=0.0, max=1.0)


def prelu(build: GraphBuilder, op: TfliteOp) -> None:
    """PRELU: a slope for each channel below zero."""
    build.result(op, "aten.prelu", self=build.operand(op, 0), weight=build.operand(op, 1))


# -- convolutions ------------------------------------------------------------------------------------------------------


def spatial_padding(op: TfliteOp, sizes: tuple[int, ...], kernel: tuple[int, ...], axes: str) -> list[tuple[int, int]]:
    """Zeros before and after each axis of a SAME or VALID window; the odd zero goes after."""
    found: list[tuple[int, int]] = []
    for axis, size, taps in zip(axes, sizes, kernel, strict=True):
        stride, dilation = op.options[f"stride_{axis}"], op.options.get(f"dilation_{axis}", 1)
        total = max((-(-size // stride) - 1) * stride + (taps - 1) * dilation + 1 - size, 0)
        found.append((total // 2, total - total // 2) if op.options["same"] else (0, 0))
    return found


def convolution(build: GraphBuilder, op: TfliteOp) -> None:
    """CONV_2D (weights O, H, W, I) and DEPTHWISE_CONV_2D (weights 1, H, W, O)."""
    source, weight = build.tensor(op, 0), build.tensor(op, 1)
    if len(source.shape) != 4 or len(weight.shape) != 4:
        raise WorkloadError(f"{build.model.path}: {build.layer}: expected 4 dimensions, got {source.shape}")
    depthwise = op.op == "DEPTHWISE_CONV_2D"
    kernel = weight.shape[1:3]
    outputs, inner = (weight.shape[3], 1) if depthwise else (weight.shape[0], weight.shape[3])
    groups = source.shape[3] // inner
    pads = spatial_padding(op, source.shape[1:3], kernel, "hw")
    x = hybrid_input(build, op)
    if source.quantized:  # also of what a PAD in front adds
        build.policies[build.layer] = "snap_offset"
    if any(map(any, pads)):
        x = padded(build, x, build.metas[value(source.index)].shape, pads)
    build.result(
        op,
        "aten.convolution",
        input=x,
        weight=filters(build, op, (outputs, inner, *kernel)),
        bias=build.operand(op, 2),
        stride=(op.options["stride_h"], op.options["stride_w"]),
        padding=(0, 0),
        dilation=(op.options["dilation_h"], op.options["dilation_w"]),
        groups=groups,
    )


def filters(build: GraphBuilder, op: TfliteOp, shape: tuple[int, ...]) -> Arg:
    """The weights of a convolution, which must be stored."""
    if not build.is_stored(op.inputs[1]):
        raise WorkloadError(f"{build.model.path}: {build.layer}: its weights are computed from the input: no price")
    return build.weight(op.inputs[1], shape)


def hybrid_input(build: GraphBuilder, op: TfliteOp, position: int = 0, weights: int = 1) -> Arg:
    """An operand of a product; a float one beside stored integer weights is quantized at run time."""
    x = build.operand(op, position)
    return build.quantized_at_run_time(op, x, position) if is_hybrid(build, op, position, weights) else x


def is_hybrid(build: GraphBuilder, op: TfliteOp, position: int, weights: int) -> bool:
    """Whether an operator multiplies numbers by stored codes."""
    stored = build.is_stored(op.inputs[weights]) and build.model.tensors[op.inputs[weights]].quantized
    return stored and not build.tensor(op, position).quantized


def padded(build: GraphBuilder, x: Arg, shape: tuple[int, ...], pads: list[tuple[int, int]]) -> Ref:
    """Zeros round the spatial axes, for the convolution to take over."""
    grown = (*shape[:2], *(n + a + b for n, (a, b) in zip(shape[2:], pads, strict=True)))
    name = build.fresh("padded", grown)
    build.add("aten.constant_pad_nd", (name,), self=x, pad=tuple(n for pair in reversed(pads) for n in pair))
    return Ref(name)


def transposed(build: GraphBuilder, op: TfliteOp, weights: int, x: int, bias: int, strides: tuple[int, int]) -> None:
    """A transposed convolution with weights (O, H, W, I); what SAME cuts off follows from the sizes."""
    source, made = build.tensor(op, x), build.model.tensors[op.outputs[0]]
    shape = build.tensor(op, weights).shape
    if len(source.shape) != 4 or len(made.shape) != 4 or len(shape) != 4:
        raise WorkloadError(f"{build.model.path}: {build.layer}: expected 4 dimensions, got {source.shape}")
    kernel = shape[1:3]
    cuts = tuple(
        max(0, (n - 1) * s + k - m) // 2
        for n, s, k, m in zip(source.shape[1:3], strides, kernel, made.shape[1:3], strict=True)
    )
    if not build.is_stored(op.inputs[weights]):
        raise WorkloadError(f"{build.model.path}: {build.layer}: its weights are computed from the input: no price")
    if source.quantized:
        build.policies[build.layer] = "snap_offset"
    build.result(
        op, "aten.conv_transpose2d", input=hybrid_input(build, op, x, weights),
        weight=build.weight(op.inputs[weights], (shape[3], shape[0], *kernel)), bias=build.operand(op, bias),
        stride=strides, padding=cuts,
    )  # fmt: skip


def transpose_conv(build: GraphBuilder, op: TfliteOp) -> None:
    """TRANSPOSE_CONV: output shape, weights, input, bias."""
    transposed(build, op, 1, 2, 3, (op.options["stride_h"], op.options["stride_w"]))


def custom_transpose_conv(build: GraphBuilder, op: TfliteOp) -> None:
    """MediaPipe's Convolution2DTransposeBias: input, weights, bias; padding and strides are its custom bytes."""
    if len(op.custom) < 12:
        raise WorkloadError(f"{build.model.path}: {build.layer}: expected 12 bytes of options, got {len(op.custom)}")
    _, columns, rows = struct.unpack("<3i", op.custom[:12])
    if not (1 <= rows <= 1024 and 1 <= columns <= 1024):
        raise WorkloadError(f"{build.model.path}: {build.layer}: strides {rows}, {columns}; expected 1 to 1024")
    transposed(build, op, 1, 0, 2, (rows, columns))


def volume(build: GraphBuilder, op: TfliteOp) -> None:
    """CONV_3D: input N, D, H, W, C, weights D, H, W, I, O; what is outside of the volume is 0."""
    source, weight, made = build.tensor(op, 0), build.tensor(op, 1), build.model.tensors[op.outputs[0]]
    n, *sizes, channels = source.shape
    *kernel, inner, outputs = weight.shape
    pads = spatial_padding(op, tuple(sizes), tuple(kernel), "dhw")
    x = build.fresh("channels_first", (n, channels, *sizes))
    build.add("aten.permute", (x,), self=build.operand(op, 0))
    source_ref = padded(build, Ref(x), build.metas[x].shape, pads) if any(map(any, pads)) else Ref(x)
    result = build.fresh("convolved", (made.shape[0], made.shape[4], *made.shape[1:4]))
    build.add(
        "aten.convolution", (result,), input=source_ref, weight=filters(build, op, (outputs, inner, *kernel)),
        bias=build.operand(op, 2), stride=tuple(op.options[f"stride_{axis}"] for axis in "dhw"), padding=(0, 0, 0),
        dilation=tuple(op.options[f"dilation_{axis}"] for axis in "dhw"), groups=channels // inner,
    )  # fmt: skip
    raw = f"{value(op.outputs[0])}.raw"
    build.metas[raw] = build.metas[value(op.outputs[0])]
    build.add("aten.permute", (raw,), self=Ref(result))
    build.finish(op, raw)


def fully_connected(build: GraphBuilder, op: TfliteOp) -> None:
    """Weights (out, in); the input is flattened to rows of `in`."""
    source, weight = build.tensor(op, 0), build.tensor(op, 1)
    features = weight.shape[-1]
    flat = build.fresh("rows", (math.prod(source.shape) // features, features))
    build.add("aten.view", (flat,), self=hybrid_input(build, op))
    is_constant = build.is_stored(op.inputs[1])
    w: Arg = build.weight(op.inputs[1], weight.shape) if is_constant else build.operand(op, 1)
    build.result(op, "aten.linear", input=Ref(flat), weight=w, bias=build.operand(op, 2))


def matmul(build: GraphBuilder, op: TfliteOp) -> None:
    """BATCH_MATMUL; operands keep the file's order of dimensions, because heads are no channels."""
    names: list[Arg] = []
    for position, key in enumerate(("transpose_left", "transpose_right")):
        shape = build.tensor(op, position).shape
        if op.options[key]:
            shape = (*shape[:-2], shape[-1], shape[-2])
        name = build.fresh(f"operand_{position}", shape)
        build.add("aten.view", (name,), self=hybrid_input(build, op) if position == 0 else build.operand(op, position))
        names.append(Ref(name))
    build.result(op, "aten.matmul", self=names[0], other=names[1])


# -- recurrent ---------------------------------------------------------------------------------------------------------


def svdf(build: GraphBuilder, op: TfliteOp) -> None:
    """SVDF: each filter takes its input's features, then the last `memory` of its own results (Nakkiran et al. 2015).

    Inputs: x (batch, features), features (filters, features), time (filters, memory), bias, state.
    """
    batch = build.tensor(op, 0).shape[0]
    filters_, features = build.tensor(op, 1).shape
    memory, rank = build.tensor(op, 2).shape[1], max(1, op.options["rank"])
    now = build.fresh("features", (batch, filters_))
    weight = build.weight(op.inputs[1], (filters_, features))
    build.add("aten.linear", (now,), input=hybrid_input(build, op), weight=weight)
    column = build.fresh("column", (batch, filters_, 1))
    build.add("aten.view", (column,), self=Ref(now))
    state = build.fresh("state", (batch, filters_, memory))
    build.add("aten.view", (state,), self=Ref(value(op.inputs[4])))
    kept = build.fresh("memory", (batch, filters_, memory))
    build.add("aten.slice_scatter", (kept,), self=Ref(state), src=Ref(column))
    raw = f"{value(op.outputs[0])}.raw"
    build.metas[raw] = Meta((batch, filters_ // rank), build.dtype)
    build.add(
        "aten.convolution", (raw if rank == 1 else build.fresh("ranks", (batch, filters_, 1)),), input=Ref(kept),
        weight=build.weight(op.inputs[2], (filters_, 1, memory)), bias=build.operand(op, 3), stride=(1,), padding=(0,),
        dilation=(1,), groups=filters_,
    )  # fmt: skip
    if rank == 1:
        build.metas[raw] = Meta((batch, filters_, 1), build.dtype)
    else:
        build.add("aten.sum", (raw,), self=Ref(f"{build.layer}.ranks"), dim=(1,))
    flat = build.fresh("outputs", (batch, filters_ // rank))
    build.add("aten.view", (flat,), self=Ref(raw))
    build.finish(op, flat)


def sequence_lstm(build: GraphBuilder, op: TfliteOp) -> None:
    """UNIDIRECTIONAL_SEQUENCE_LSTM: input weights of four gates (1 to 4), recurrent ones (5 to 8), peepholes (9 to 11),
    biases (12 to 15), projection and its bias (16, 17), states (18, 19), factors of a layer norm (20 to 23)."""
    given = [i for i, tensor in enumerate(op.inputs) if tensor >= 0]
    wrong = "coupled gates" if 1 not in given else "layer norm" if any(20 <= i < 24 for i in given) else ""
    wrong = wrong or ("a projection with a bias" if 17 in given else "")
    if wrong:
        raise WorkloadError(f"{build.model.path}: {build.layer}: an LSTM with {wrong} has no price")
    hidden, features = build.tensor(op, 2).shape
    made = build.tensor(op, 6).shape[1]
    if made != (build.tensor(op, 16).shape[0] if 16 in given else hidden):
        raise ValueError(f"recurrent weights for {made} states")
    params: list[Arg] = [joined(build, op, range(1, 5), hidden, features), joined(build, op, range(5, 9), hidden, made)]
    biased = 12 in given or 13 in given
    if biased:
        params += [joined(build, op, [i for i in range(12, 16) if i in given], hidden)] * 2
    if 16 in given:
        params.append(build.weight(op.inputs[16], build.tensor(op, 16).shape))
    more: dict[str, Arg] = {"clips": bool(op.options["cell_clip"])}
    if 10 in given:
        more["peepholes"] = (joined(build, op, range(9, 12), hidden),)
    function = {1: "relu", 3: "relu6"}.get(op.options["activation"], "tanh")
    recurrent(build, op, "lstm", params, 2, 18, has_biases=biased, functions=("sigmoid", function, function), **more)


def joined(build: GraphBuilder, op: TfliteOp, positions: Iterable[int], rows: int, *rest: int) -> Ref:
    """Stored operands of one shape behind each other."""
    parts = tuple(build.weight(op.inputs[i], (rows, *rest)) for i in positions)
    made = build.fresh(f"weights_{len(build.metas)}", (len(parts) * rows, *rest))
    build.add("aten.cat", (made,), tensors=parts, dim=0)
    return Ref(made)


def sequence_rnn(build: GraphBuilder, op: TfliteOp) -> None:
    """UNIDIRECTIONAL_SEQUENCE_RNN: input weights, recurrent weights, bias, state."""
    hidden, features = build.tensor(op, 1).shape
    params: list[Arg] = [build.weight(op.inputs[1], (hidden, features)), build.weight(op.inputs[2], (hidden, hidden))]
    biases = [i for i in op.inputs[3:4] if i >= 0]
    params += [build.weight(i, (hidden,)) for i in biases * 2]
    kind = "rnn_relu" if op.options["activation"] in (1, 3) else "rnn_tanh"
    recurrent(build, op, kind, params, 1, 4, has_biases=bool(biases))


def recurrent(
    build: GraphBuilder, op: TfliteOp, kind: str, params: list[Arg], weights: int, state: int, **more: Arg
) -> None:
    """A recurrent layer over a whole sequence, one direction; `weights` and `state`: where those stand."""
    x, made = build.tensor(op, 0).shape, build.metas[value(op.outputs[0])].shape
    raw, end = f"{value(op.outputs[0])}.raw", build.fresh("end", (1, made[-1]))
    build.metas[raw] = Meta(made, build.dtype)
    outputs = (raw, end, build.fresh("cell", (1, made[-1]))) if kind == "lstm" else (raw, end)
    codes = f"{build.layer}.state"
    held = build.tensor(op, state) if len(op.inputs) > state and op.inputs[state] >= 0 else None
    if is_hybrid(build, op, 0, weights):
        asymmetric = bool(op.options.get("asymmetric"))
        build.quantizers[codes] = Quantization(codes, 8, True, asymmetric, run_time=True)
        more["state_codes"] = codes
    elif held is not None and held.quantized:
        build.quantizers[codes] = quantization(held, codes)
        more["state_codes"] = codes
    build.add(
        f"aten.{kind}", outputs, input=hybrid_input(build, op, 0, weights), params=tuple(params), num_layers=1,
        bidirectional=False, batch_first=len(x) == 3 and not op.options["time_major"], **more,
    )  # fmt: skip
    build.round(build.model.tensors[op.outputs[0]], raw)


def read_variable(build: GraphBuilder, op: TfliteOp) -> None:
    """READ_VARIABLE: a state of the run before, which is an input of this one."""
    build.feed(op.outputs[0])


def assign_variable(build: GraphBuilder, op: TfliteOp) -> None:
    """ASSIGN_VARIABLE: a state for the next run, copied to where it stays."""
    stored = build.fresh("stored", build.metas[value(op.inputs[1])].shape)
    build.add("aten.roll", (stored,), self=build.operand(op, 1))


# -- pooling, reductions, movement -------------------------------------------------------------------------------------


def pool(build: GraphBuilder, op: TfliteOp) -> None:
    """MAX_POOL_2D, AVERAGE_POOL_2D and L2_POOL_2D."""
    name = "aten.max_pool2d" if op.op == "MAX_POOL_2D" else "aten.avg_pool2d"
    kernel = (op.options["filter_h"], op.options["filter_w"])
    pads = spatial_padding(op, build.tensor(op, 0).shape[1:3], kernel, "hw")
    build.result(
        op, name, self=build.operand(op, 0), kernel_size=kernel,
        stride=(op.options["stride_h"], op.options["stride_w"]),
        padding=tuple(before for before, _ in pads), padding_behind=tuple(after for _, after in pads),
    )  # fmt: skip


def reduce(build: GraphBuilder, op: TfliteOp) -> None:
    """MEAN, SUM, REDUCE_*, ARG_* over constant axes."""
    rank = len(build.tensor(op, 0).shape)
    dims = tuple(axis_of(axis, rank) for axis in build.numbers(op, 1, "list of axes"))
    build.result(op, f"aten.{REDUCTIONS[op.op]}", self=build.operand(op, 0), dim=dims)


def concatenation(build: GraphBuilder, op: TfliteOp) -> None:
    """CONCATENATION."""
    rank = len(build.tensor(op, 0).shape)
    parts = tuple(build.operand(op, i) for i in range(len(op.inputs)))
    build.result(op, "aten.cat", tensors=parts, dim=axis_of(op.options["axis"], rank))


def pack(build: GraphBuilder, op: TfliteOp) -> None:
    """PACK: parts side by side along a new axis."""
    parts = tuple(build.operand(op, i) for i in range(len(op.inputs)))
    rank = len(build.model.tensors[op.outputs[0]].shape)
    build.result(op, "aten.stack", tensors=parts, dim=axis_of(op.options["axis"], rank))


def sum_of(build: GraphBuilder, op: TfliteOp) -> None:
    """ADD_N: two at a time."""
    so_far, shape = build.operand(op, 0), build.metas[value(op.outputs[0])].shape
    for i in range(1, len(op.inputs) - 1):
        name = build.fresh(f"sum_{i}", shape)
        build.add("aten.add", (name,), self=so_far, other=build.operand(op, i))
        so_far = Ref(name)
    build.result(op, "aten.add", self=so_far, other=build.operand(op, len(op.inputs) - 1))


def pad(build: GraphBuilder, op: TfliteOp) -> None:
    """PAD, PADV2 and MIRROR_PAD with constant amounts; values other than zero stay layers of their own."""
    rank = len(build.tensor(op, 0).shape)
    amounts = build.numbers(op, 1, "padding")
    if len(amounts) != 2 * rank:
        raise WorkloadError(f"{build.model.path}: {build.layer}: {len(amounts)} amounts for {rank} dimensions")
    pairs = {axis_of(axis, rank): (amounts[2 * axis], amounts[2 * axis + 1]) for axis in range(rank)}
    flat = [n for axis in reversed(range(rank)) for n in pairs[axis]]
    while len(flat) > 2 and flat[-2:] == [0, 0]:
        flat = flat[:-2]
    more: dict[str, Arg] = {"value": 1.0} if op.op == "PADV2" else {}
    mode = "reflect" if op.op == "MIRROR_PAD" else "constant"
    arguments: dict[str, Arg] = {"self": build.operand(op, 0), "pad": tuple(flat), "mode": mode, **more}
    if keeps_codes(build, op):
        build.add("aten.pad", (value(op.outputs[0]),), **arguments)
    else:
        build.result(op, "aten.pad", **arguments)


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


def gather(build: GraphBuilder, op: TfliteOp) -> None:
    """GATHER and EMBEDDING_LOOKUP (indices first): rows of a stored table, or elements picked out of an activation."""
    table, indices = (1, 0) if op.op == "EMBEDDING_LOOKUP" else (0, 1)
    if build.is_stored(op.inputs[table]):
        weight = build.weight(op.inputs[table], build.tensor(op, table).shape)
        build.result(op, "aten.embedding", weight=weight, indices=build.operand(op, indices))
    else:
        build.result(op, "aten.index_select", self=build.operand(op, table), index=build.operand(op, indices))


def topk(build: GraphBuilder, op: TfliteOp) -> None:
    """TOPK_V2: values and positions."""
    values = f"{value(op.outputs[0])}.raw"
    build.metas[values] = build.metas[value(op.outputs[0])]
    build.add("aten.topk", (values, value(op.outputs[1])), self=build.operand(op, 0), dim=-1)
    build.finish(op, values)


def local_response(build: GraphBuilder, op: TfliteOp) -> None:
    """LOCAL_RESPONSE_NORMALIZATION over 2 r + 1 channels."""
    build.result(op, "onnx.LRN", self=build.operand(op, 0), size=2 * op.options["radius"] + 1)


HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(UNARY, unary),
    **dict.fromkeys(BINARY, binary),
    **dict.fromkeys(ANY, any_operands),
    **dict.fromkeys(VIEWS, view),
    **dict.fromkeys(REDUCTIONS, reduce),
    "RELU_0_TO_1": clipped,
    "PRELU": prelu,
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D"), convolution),
    "TRANSPOSE_CONV": transpose_conv,
    "CUSTOM_Convolution2DTransposeBias": custom_transpose_conv,
    "CONV_3D": volume,
    "FULLY_CONNECTED": fully_connected,
    "BATCH_MATMUL": matmul,
    "SVDF": svdf,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": sequence_lstm,
    "UNIDIRECTIONAL_SEQUENCE_RNN": sequence_rnn,
    "READ_VARIABLE": read_variable,
    "ASSIGN_VARIABLE": assign_variable,
    **dict.fromkeys(("MAX_POOL_2D", "AVERAGE_POOL_2D", "L2_POOL_2D"), pool),
    "CONCATENATION": concatenation,
    "PACK": pack,
    "ADD_N": sum_of,
    **dict.fromkeys(("PAD", "PADV2", "MIRROR_PAD"), pad),
    "QUANTIZE": quantize,
    **dict.fromkeys(("SPLIT", "SPLIT_V", "UNPACK"), split),
    **dict.fromkeys(("GATHER", "EMBEDDING_LOOKUP"), gather),
    "TOPK_V2": topk,
    "LOCAL_RESPONSE_NORMALIZATION": local_response,
}
