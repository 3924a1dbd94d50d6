"""Handlers of pooling, reductions, sorting and normalisation."""

from __future__ import annotations

import math

from hwsim.frontends.lowering.convolutions import numbers, pair
from hwsim.frontends.lowering.handler_tables import each, named
from hwsim.frontends.lowering.ir import Op, Ref
from hwsim.frontends.lowering.lower import Handler, Lowering
from hwsim.frontends.lowering.values import Act, Const, Draft
from hwsim.frontends.lowering.vector_handlers import selection
from hwsim.network.checks import slides


def pool(kind: str, axes: int) -> Handler:
    """Handler of max and average pooling with a fixed window.

    `padding` is before every axis; a reader whose files pad behind by another number gives `padding_behind` too.
    """

    def handle(walk: Lowering, op: Op) -> None:
        source = walk.act(op, next(iter(op.args)))
        kernel = numbers(op.get("kernel_size"), axes, 1)
        draft = bind_first(walk, op, kind, source, math.prod(kernel))
        if axes == 2 and len(source.shape) == 4:
            slide(draft, op, pair(kernel, 1))

    return handle


def slide(draft: Draft, op: Op, kernel: tuple[int, int]) -> None:
    """Say how a pool's window slides; left unsaid where its sizes contradict it, as in files with open sizes, and over
    an array that an expansion repeats."""
    if draft.inputs[0].repeats > 1:
        return
    stride, dilation = pair(op.get("stride"), 0), pair(op.get("dilation"), 1)
    stride = stride if all(stride) else kernel
    before = pair(op.get("padding"), 0)
    behind = pair(op.get("padding_behind"), 0) if "padding_behind" in op.args else before
    sizes, made = draft.inputs[0].shape[2:], draft.out.shape[2:]
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    along = zip(sizes, made, reach, stride, zip(before, behind, strict=True), strict=True)
    if min(*kernel, *stride, *dilation) > 0 and min(*before, *behind) >= 0 and all(slides(*axis) for axis in along):
        draft.kernel, draft.stride, draft.dilation = kernel, stride, dilation
        draft.padding = (before[0], behind[0], before[1], behind[1])


def adaptive(kind: str, axes: int) -> Handler:
    """Handler of pooling to a given size; where that does not divide, every window counts as the largest."""

    def handle(walk: Lowering, op: Op) -> None:
        source = walk.act(op, next(iter(op.args)))
        shape = walk.shape(op)
        sizes = zip(source.shape[-axes:], shape[-axes:], strict=True)
        window = math.prod(n // m if n % m == 0 else n // m + 2 if m < n else 1 for n, m in sizes)
        bind_first(walk, op, kind, source, window)

    return handle


def bind_first(walk: Lowering, op: Op, kind: str, source: Act, window: int) -> Draft:
    """Emit a pooling layer and return it; the positions of its maxima are written where somebody reads them."""
    made = [walk.emit(kind, op, [source], walk.shape(op), source.record.origin, window=window)]
    for i, name in enumerate(op.outputs[1:], 1):
        if walk.uses.get(name, 0):
            found = walk.emit("copy", op, made[:1], walk.shape(op, i), "index", label="positions")
            found.record.index_bits = 32
            made.append(found)
    walk.bind(op, *made)
    draft = made[0].record.producer
    assert draft is not None
    return draft


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
        if op.op in ("aten.max", "aten.min") and isinstance(op.get("other"), Ref):
            selection(walk, op)  # of two arrays, element by element
            return
        source = walk.act(op, next(iter(op.args)))
        if len(op.outputs) > 1:
            bind_first(walk, op, kind, source, math.prod(source.shape) // max(1, math.prod(walk.shape(op))))
            return
        window = math.prod(source.shape[d] for d in reduced_dims(op, len(source.shape)))
        origin = source.record.origin if kind == "reduce_max" else "linear"
        if op.op.endswith(".prod"):
            walk.note("products over an axis are priced as sums over it: one operation per element")
        made = walk.emit(kind, op, [source], walk.shape(op), origin, window=window)
        if kind == "reduce_max":
            made.record.index_bits = 1 if op.op.endswith((".any", ".all")) else source.record.index_bits
        walk.bind(op, made)

    return handle


def reduced_dims(op: Op, rank: int) -> tuple[int, ...]:
    """Dimensions a reduction removes, counted from the front, in order; all of them without an argument."""
    dims = op.get("dim")
    items = dims if isinstance(dims, tuple) else (dims,) if dims is not None else ()
    numbers = sorted({item % rank for item in items if isinstance(item, int) and rank})
    return tuple(numbers) or tuple(range(rank))


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


def variance(walk: Lowering, op: Op) -> None:
    """var, std, var_mean: mean, difference, square and mean again."""
    source = walk.act(op, next(iter(op.args)))
    dims = reduced_dims(op, len(source.shape))
    window, shape = math.prod(source.shape[d] for d in dims), walk.shape(op)
    middle = walk.emit("reduce_mean", op, [source], shape, "linear", label="mean", window=window)
    difference = walk.emit("sub", op, [source, middle], source.shape, "add", label="sub")
    square = walk.emit("mul", op, [difference, difference], source.shape, "relu", label="square")
    result = walk.emit("reduce_mean", op, [square], shape, "relu", label="variance", window=window)
    if op.op.startswith("aten.std"):
        result = walk.emit("sqrt", op, [result], shape, "sqrt", label="sqrt")
    walk.bind(op, *([result, middle] if len(op.outputs) > 1 else [result]))


def position_of_extreme(walk: Lowering, op: Op) -> None:
    """argmax and argmin: a reduction whose result is an index."""
    source = walk.act(op, next(iter(op.args)))
    window = math.prod(source.shape[d] for d in reduced_dims(op, len(source.shape)))
    made = walk.emit("reduce_max", op, [source], walk.shape(op), "index", window=window)
    made.record.index_bits = 32
    walk.bind(op, made)


def running(kind: str) -> Handler:
    """Handler of cumsum and cumprod: one operation per element."""

    def handle(walk: Lowering, op: Op) -> None:
        source = walk.act(op, next(iter(op.args)))
        walk.bind(op, walk.emit(kind, op, [source], walk.shape(op), "linear"))

    return handle


def ordering(walk: Lowering, op: Op) -> None:
    """topk and sort: topk makes one pass over the row for each result; a sort log2(n) passes."""
    source = walk.act(op, next(iter(op.args)))
    dim = op.get("dim", -1)
    row = source.shape[dim if isinstance(dim, int) else -1] if source.shape else 1
    window = row if op.op == "aten.topk" else max(1, (row - 1).bit_length())
    walk.note("topk is priced as one pass of comparisons for each result, sort as log2(n) passes")
    shape = walk.shape(op)
    values = walk.emit("max_pool", op, [source], shape, source.record.origin, window=window)
    found = walk.emit("copy", op, [values], shape, "index", label="positions")
    found.record.index_bits = 32
    walk.bind(op, *((found,) if op.op == "aten.argsort" else (values, found)))


HANDLERS: dict[str, Handler] = {
    **named(("max_pool1d", "max_pool1d_with_indices"), pool("max_pool", 1)),
    **named(("max_pool2d", "max_pool2d_with_indices"), pool("max_pool", 2)),
    **named(("max_pool3d", "max_pool3d_with_indices"), pool("max_pool", 3)),
    **{f"aten.avg_pool{axes}d": pool("avg_pool", axes) for axes in (1, 2, 3)},
    **{f"aten.{p}adaptive_avg_pool{axes}d": adaptive("avg_pool", axes) for axes in (1, 2, 3) for p in ("", "_")},
    **{f"aten.adaptive_max_pool{axes}d": adaptive("max_pool", axes) for axes in (1, 2, 3)},
    **named(("mean",), mean),
    **each({"sum": "reduce_sum", "prod": "reduce_sum", "amax": "reduce_max", "max": "reduce_max"}, reduction),
    **each({"amin": "reduce_max", "min": "reduce_max", "any": "reduce_max", "all": "reduce_max"}, reduction),
    **each({"linalg_vector_norm": "reduce_sum", "norm": "reduce_sum", "logsumexp": "reduce_sum"}, reduction),
    **named(("var", "std", "var_mean", "std_mean"), variance),
    **named(("argmax", "argmin"), position_of_extreme),
    **each({"cumsum": "add", "cumprod": "mul", "cummax": "add"}, running),
    **named(("topk", "sort", "argsort"), ordering),
    **named(("layer_norm", "native_layer_norm", "rms_norm", "_fused_rms_norm"), normalisation("layer_norm")),
    **named(("group_norm", "native_group_norm", "instance_norm"), normalisation("group_norm")),
    "onnx.LRN": local_response,
}
