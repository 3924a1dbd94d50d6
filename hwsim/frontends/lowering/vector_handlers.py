"""Handlers of elementwise operators, activation functions, pooling, normalisation, and real data movement.

Each makes one vector layer. Its origin (`relu`, `silu`, `add`, ...) decides later how its output is quantized.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

from hwsim.frontends.lowering.ir import Arg, Op
from hwsim.frontends.lowering.lower import QUANTIZER, Handler, Lowering, Unhandled, quantize
from hwsim.frontends.lowering.mac_handlers import foldable, pair
from hwsim.frontends.lowering.values import Act, Const, Single

SCALE_FOLDS = "a constant factor folds into the step size"
GATES = ("sigmoid", "hsigmoid", "softmax")  # values in 0..1: a product with them keeps the other side's range
# Functions of one element with a price of their own; the second entry is the origin of what they make.
FUNCTIONS: dict[str, tuple[str, str]] = {
    "relu": ("relu", "relu"),
    "relu6": ("relu6", "relu6"),
    "leaky_relu": ("leaky_relu", "leaky_relu"),
    "prelu": ("leaky_relu", "leaky_relu"),
    "silu": ("silu", "silu"),
    "hardswish": ("hswish", "hswish"),
    "hardsigmoid": ("hsigmoid", "hsigmoid"),
    "sigmoid": ("sigmoid", "sigmoid"),
    "gelu": ("gelu", "gelu"),
    "tanh": ("tanh", "tanh"),
    "exp": ("exp", "exp"),
    "sqrt": ("sqrt", "sqrt"),
    "rsqrt": ("sqrt", "sqrt"),
    "softmax": ("softmax", "softmax"),
    "_softmax": ("softmax", "softmax"),
    "log_softmax": ("softmax", "log_softmax"),
    "_log_softmax": ("softmax", "log_softmax"),
}
# Functions of one element priced as a table look-up, like tanh.
TABLE_FUNCTIONS: dict[str, str] = {
    "elu": "elu",
    "celu": "elu",
    "selu": "elu",
    "mish": "silu",
    "softplus": "softplus",
    "erf": "tanh",
    "log": "linear",
    "reciprocal": "linear",
    "sin": "tanh",
    "cos": "tanh",
    "log_sigmoid": "linear",
    "logsigmoid": "linear",
}
# Choices between two values, priced as one elementwise operation.
SELECTIONS = ("maximum", "minimum", "where", "masked_fill", "abs")


def unary(kind: str, origin: str) -> Handler:
    """Handler of a function of one element."""

    def handle(walk: Lowering, op: Op) -> None:
        source = walk.act(op, next(iter(op.args)))
        weight = walk.value(op.get("weight"))
        walk.bind(op, walk.emit(kind, op, [source], walk.shape(op), origin, weight=weight))

    return handle


def table_function(origin: str) -> Handler:
    """Handler of a function that hardware reads from a table."""

    def handle(walk: Lowering, op: Op) -> None:
        source = walk.act(op, next(iter(op.args)))
        walk.note("functions without a unit of their own (elu, mish, erf, ...) are priced as table look-ups, like tanh")
        walk.bind(op, walk.emit("tanh", op, [source], walk.shape(op), origin))

    return handle


def clamp(walk: Lowering, op: Op) -> None:
    """clamp, hardtanh, threshold: a ReLU or a clipped ReLU; below zero the output is signed."""
    lowest = op.get("min", op.get("min_val", op.get("threshold", -1.0 if "hardtanh" in op.op else None)))
    highest = op.get("max", op.get("max_val", 1.0 if "hardtanh" in op.op else None))
    unsigned = isinstance(lowest, int | float) and lowest >= 0
    kind = "relu" if highest is None and unsigned else "relu6"
    source = walk.act(op, next(iter(op.args)))
    walk.bind(op, walk.emit(kind, op, [source], walk.shape(op), kind if unsigned else "linear"))


def elementwise(kind: str) -> Handler:
    """Handler of add, sub, mul, div of two tensors; a constant factor folds into the step size."""

    def handle(walk: Lowering, op: Op) -> None:
        names = list(op.args)
        operands = [walk.value(op.get(name)) for name in names[:2]]
        acts = [item for item in operands if isinstance(item, Act)]
        consts = [item for item in operands if isinstance(item, Const) and math.prod(item.shape) > 1]
        if kind in ("mul", "div") and len(acts) == 1 and not consts and operands[0] is acts[0]:
            walk.bind(op, acts[0].seen_as(walk.shape(op)))
            walk.count_free(op, SCALE_FOLDS)
            return
        source = op.get(names[0] if operands[0] is acts[0] else names[1]) if acts else None
        if len(acts) == 1 and len(consts) == 1 and folds_per_channel(walk, source, acts[0], consts[0]):
            walk.bind(op, acts[0])
            walk.count_free(op, "a constant per channel folds into the layer before")
            return
        origin = product_origin(acts) if kind == "mul" else "add" if kind in ("add", "sub") else "linear"
        weight = consts[0] if consts else None
        walk.bind(op, walk.emit(kind, op, acts, walk.shape(op), origin, weight=weight))

    return handle


def folds_per_channel(walk: Lowering, source: Arg, act: Act, const: Const) -> bool:
    """Whether a constant has one value per output channel of the layer right before, which then absorbs it."""
    makers = foldable(walk, source)
    channel = len(act.shape) - 1 if all(maker.kind == "linear" for maker in makers) else 1
    aligned = (1,) * (len(act.shape) - len(const.shape)) + const.shape
    if not makers or any(n not in (1, act.shape[channel] if i == channel else 1) for i, n in enumerate(aligned)):
        return False
    for maker in makers:
        maker.bias = True
    return True


def negation(walk: Lowering, op: Op) -> None:
    """-x: the sign folds into the step size."""
    walk.pass_through(op, SCALE_FOLDS)


def product_origin(acts: list[Act]) -> str:
    """Range of a product: a gate in 0..1 keeps the other side's; x * sigmoid(x) is a SiLU."""
    if len(acts) != 2:
        return "linear"
    for gate, other in (acts, acts[::-1]):
        if gate.record.origin in GATES:
            maker = gate.record.producer
            own = maker is not None and any(act.record is other.record for act in maker.inputs)
            return "silu" if own and gate.record.origin == "sigmoid" else other.record.origin
    origins = {act.record.origin for act in acts}
    return "relu" if origins <= {"relu", "relu6"} else "linear"


def selection(walk: Lowering, op: Op) -> None:
    """where, masked_fill, maximum: one elementwise operation."""
    acts = [act for ref in op.refs() if isinstance(act := walk.value(ref), Act)]
    numbers = [act for act in acts if act.record.index_bits is None]
    origin = numbers[0].record.origin if numbers else "linear"
    walk.note("selections (where, masked_fill, maximum, abs) are priced as one addition per element")
    walk.bind(op, walk.emit("add", op, acts, walk.shape(op), origin))


def power(walk: Lowering, op: Op) -> None:
    """x ** n: a product for n = 2, else `pow`."""
    source = walk.act(op, next(iter(op.args)))
    exponent = op.get("exponent")
    even = isinstance(exponent, int | float) and exponent % 2 == 0
    kind = "mul" if exponent == 2 else "pow"
    walk.bind(op, walk.emit(kind, op, [source], walk.shape(op), "relu" if even else "linear"))


# -- pooling and reductions --------------------------------------------------------------------------------------------


def pool(kind: str, one_dim: bool) -> Handler:
    """Handler of max and average pooling with a fixed window."""

    def handle(walk: Lowering, op: Op) -> None:
        source = walk.act(op, next(iter(op.args)))
        rows, columns = pair(op.get("kernel_size"), 1)
        bind_first(walk, op, kind, source, columns if one_dim else rows * columns)

    return handle


def adaptive(kind: str, one_dim: bool) -> Handler:
    """Handler of pooling to a given size; where that does not divide, every window counts as the largest."""

    def handle(walk: Lowering, op: Op) -> None:
        source = walk.act(op, next(iter(op.args)))
        shape, axes = walk.shape(op), 1 if one_dim else 2
        sizes = zip(source.shape[-axes:], shape[-axes:], strict=True)
        window = math.prod(n // m if n % m == 0 else n // m + 2 if m < n else 1 for n, m in sizes)
        bind_first(walk, op, kind, source, window)

    return handle


def bind_first(walk: Lowering, op: Op, kind: str, source: Act, window: int) -> None:
    """Emit a pooling layer; its second output, the positions of the maxima, must be unused."""
    if any(walk.uses.get(name, 0) for name in op.outputs[1:]):
        raise Unhandled("the positions of the maxima are used")
    walk.bind(op, walk.emit(kind, op, [source], walk.shape(op), source.record.origin, window=window))


def mean(walk: Lowering, op: Op) -> None:
    """mean: average pooling over the last two of four dimensions, else a reduction."""
    source = walk.act(op, next(iter(op.args)))
    dims = reduced_dims(op, len(source.shape))
    window = math.prod(source.shape[d] for d in dims)
    spatial = len(source.shape) == 4 and dims == (2, 3)
    kind = "avg_pool" if spatial else "reduce_mean"
    walk.bind(op, walk.emit(kind, op, [source], walk.shape(op), source.record.origin, window=window))


def reduction(kind: str) -> Handler:
    """Handler of sums and maxima over dimensions."""

    def handle(walk: Lowering, op: Op) -> None:
        source = walk.act(op, next(iter(op.args)))
        if len(op.outputs) > 1:
            bind_first(walk, op, kind, source, math.prod(source.shape) // max(1, math.prod(walk.shape(op))))
            return
        window = math.prod(source.shape[d] for d in reduced_dims(op, len(source.shape)))
        origin = source.record.origin if kind == "reduce_max" else "linear"
        walk.bind(op, walk.emit(kind, op, [source], walk.shape(op), origin, window=window))

    return handle


def reduced_dims(op: Op, rank: int) -> tuple[int, ...]:
    """Dimensions a reduction removes, counted from the front, in order; all of them without an argument."""
    dims = op.get("dim")
    items = dims if isinstance(dims, tuple) else (dims,) if dims is not None else ()
    numbers = sorted({item % rank for item in items if isinstance(item, int) and rank})
    return tuple(numbers) or tuple(range(rank))


# -- normalisation, gathering, movement --------------------------------------------------------------------------------


def normalisation(kind: str) -> Handler:
    """Handler of layer, group, instance and RMS norm, computed at run time; the outputs after the first are unused."""

    def handle(walk: Lowering, op: Op) -> None:
        source = walk.act(op, next(iter(op.args)))
        weight, bias = walk.value(op.get("weight")), walk.value(op.get("bias"))
        result = walk.emit(kind, op, [source], walk.shape(op), "linear", weight=weight, bias=isinstance(bias, Const))
        walk.bind(op, result)

    return handle


def local_response(walk: Lowering, op: Op) -> None:
    """Local response normalisation over `size` channels (AlexNet, GoogLeNet)."""
    source, size = walk.act(op, "self"), op.get("size", 1)
    window = size if isinstance(size, int) else 1
    walk.bind(op, walk.emit("lrn", op, [source], walk.shape(op), source.record.origin, window=window))


def concat(walk: Lowering, op: Op) -> None:
    """cat and stack; parameters among the parts (a class token) are its weight. One part alone is a view."""
    parts = walk.members(next(iter(op.args.values())))
    acts = [part for part in parts if isinstance(part, Act)]
    consts = [part for part in parts if isinstance(part, Const) and math.prod(part.shape)]
    origins = {act.record.origin for act in acts}
    origin = origins.pop() if len(origins) == 1 and not consts else "concat"
    if len(acts) == 1 and not consts:
        walk.pass_through(Op(op.op, {"self": next(iter(op.refs()))}, op.outputs, op.module, op.call), "view")
        return
    weight: Single | None = None
    if consts:
        together = math.prod(consts[0].shape) if len(consts) == 1 else sum(math.prod(c.shape) for c in consts)
        weight = Const("+".join(c.name for c in consts), (together,), consts[0].quantization)
    walk.bind(op, walk.emit("concat", op, acts, walk.shape(op), origin, weight=weight))


def embedding(walk: Lowering, op: Op) -> None:
    """Rows of a table, chosen by the input; an index has as many bits as the table needs."""
    table, indices = walk.const(op, "weight"), walk.act(op, "indices")
    if table is None:
        raise Unhandled("its table is not a parameter")
    if indices.record.producer is None:
        indices.record.index_bits = max(1, (table.shape[0] - 1).bit_length())
    walk.bind(op, walk.emit("embedding", op, [indices], walk.shape(op), "embedding", weight=table))


def pad(walk: Lowering, op: Op) -> None:
    """Zeros round the last two dimensions wait for the convolution that takes them over; others are a layer."""
    source = walk.act(op, next(iter(op.args)))
    amounts = [item for item in as_tuple(op.get("pad", op.get("padding"))) if isinstance(item, int)]
    if not any(amounts):
        walk.pass_through(op, "nothing to pad")
        return
    value, mode = op.get("value"), op.get("mode", "constant")
    zero = value in (None, 0, 0.0) and mode == "constant"
    spatial = len(amounts) <= 4 and len(source.shape) >= 3 and min(amounts) >= 0
    if zero and spatial and "pad" in op.op and "reflection" not in op.op and "replication" not in op.op:
        left, right = amounts[:2]
        top, bottom = amounts[2:4] if len(amounts) == 4 else (0, 0)
        walk.bind(op, dataclasses.replace(source, shape=walk.shape(op), pad=(top, bottom, left, right)))
        return
    walk.bind(op, walk.emit("pad", op, [source], walk.shape(op), source.record.origin))


def as_tuple(value: Arg) -> tuple[Arg, ...]:
    """A list argument, a single one as a list."""
    return value if isinstance(value, tuple) else (value,)


def upsample(window: int) -> Handler:
    """Handler of interpolation that reads `window` elements per output."""

    def handle(walk: Lowering, op: Op) -> None:
        source = walk.act(op, next(iter(op.args)))
        walk.bind(op, walk.emit("upsample", op, [source], walk.shape(op), source.record.origin, window=window))

    return handle


def shape_only(walk: Lowering, op: Op) -> None:
    """new_zeros, ones_like and their kind read the shape of an activation, not its values: a constant."""
    walk.bind(op, *(Const(name, walk.meta(name).shape) for name in op.outputs))
    walk.count_free(op, "a constant")


def copy(walk: Lowering, op: Op) -> None:
    """Data movement that no strided address expresses: roll, repeat, gather, flip, windows unfolded."""
    acts = [act for ref in op.refs() if isinstance(act := walk.value(ref), Act)]
    moved = next((act for act in acts if act.record.index_bits is None), acts[0])
    walk.bind(op, walk.emit("copy", op, acts, walk.shape(op), moved.record.origin))


def quantizer(walk: Lowering, op: Op) -> None:
    """A quantizer's node: its input is stored as that quantizer's codes. No layer: rounding is part of the producer."""
    name = op.get("name")
    codes = walk.graph.quantizers.get(name) if isinstance(name, str) else None
    if codes is None:
        raise Unhandled(f"the graph does not say the bits of quantizer {name!r}")
    source = walk.raw(next(iter(op.args.values())))
    if source is None or isinstance(source, tuple):
        raise Unhandled("its input is no tensor")
    if isinstance(source, Act) and codes.of_weight:  # an embedding quantizes the rows that it looked up
        draft = source.record.producer
        if draft is not None and isinstance(draft.weight, Const):
            draft.weight = Const(draft.weight.name, draft.weight.shape, codes)
    walk.bind(op, quantize(source, codes))
    walk.count_free(op, "rounding belongs to the layer that makes the tensor")


def named(names: tuple[str, ...], handler: Handler) -> dict[str, Handler]:
    """The same handler for several aten operators."""
    return {f"aten.{name}": handler for name in names}


def each(table: dict[str, str], make: Callable[[str], Handler]) -> dict[str, Handler]:
    """One handler per aten operator, made from the table's entry."""
    return {f"aten.{name}": make(entry) for name, entry in table.items()}


HANDLERS: dict[str, Handler] = {
    QUANTIZER: quantizer,
    **{f"aten.{name}": unary(kind, origin) for name, (kind, origin) in FUNCTIONS.items()},
    **each(TABLE_FUNCTIONS, table_function),
    **named(("hardtanh", "clamp", "clip", "clamp_min", "threshold"), clamp),
    **each({"add": "add", "sub": "sub", "rsub": "sub", "mul": "mul", "div": "div"}, elementwise),
    **each({"multiply": "mul", "divide": "div", "subtract": "sub"}, elementwise),
    **named(("neg", "negative"), negation),
    **named(SELECTIONS, selection),
    **named(("pow", "square"), power),
    **named(("max_pool2d", "max_pool2d_with_indices"), pool("max_pool", one_dim=False)),
    **named(("max_pool1d", "max_pool1d_with_indices"), pool("max_pool", one_dim=True)),
    **named(("avg_pool2d",), pool("avg_pool", one_dim=False)),
    **named(("avg_pool1d",), pool("avg_pool", one_dim=True)),
    **named(("adaptive_avg_pool2d", "_adaptive_avg_pool2d"), adaptive("avg_pool", one_dim=False)),
    **named(("adaptive_avg_pool1d",), adaptive("avg_pool", one_dim=True)),
    **named(("adaptive_max_pool2d",), adaptive("max_pool", one_dim=False)),
    **named(("adaptive_max_pool1d",), adaptive("max_pool", one_dim=True)),
    **named(("mean",), mean),
    **each({"sum": "reduce_sum", "amax": "reduce_max", "max": "reduce_max"}, reduction),
    **each({"linalg_vector_norm": "reduce_sum", "norm": "reduce_sum"}, reduction),
    **named(("layer_norm", "native_layer_norm", "rms_norm", "_fused_rms_norm"), normalisation("layer_norm")),
    **named(("group_norm", "native_group_norm", "instance_norm"), normalisation("group_norm")),
    "onnx.LRN": local_response,
    **named(("cat", "concat", "concatenate", "stack"), concat),
    **named(("embedding",), embedding),
    **named(("pad", "constant_pad_nd", "reflection_pad1d", "reflection_pad2d"), pad),
    **named(("replication_pad1d", "replication_pad2d"), pad),
    **named(("upsample_nearest1d", "upsample_nearest2d", "_upsample_nearest_exact2d"), upsample(1)),
    **named(("upsample_linear1d",), upsample(2)),
    **named(("upsample_bilinear2d", "_upsample_bilinear2d_aa"), upsample(4)),
    **named(("upsample_bicubic2d", "_upsample_bicubic2d_aa"), upsample(16)),
    **named(("new_zeros", "new_ones", "new_full", "new_empty", "zeros_like", "ones_like", "full_like"), shape_only),
    **named(("empty_like",), shape_only),
    **named(("roll", "flip", "repeat", "tile", "repeat_interleave", "index_select", "index"), copy),
    **named(("gather", "im2col", "pixel_unshuffle", "pixel_shuffle", "channel_shuffle"), copy),
}
