"""Handlers of what moves data: concatenation, look-ups, padding, interpolation, gathers and scatters.

A gather costs the elements it makes, a scatter into an array that stays in place the elements it writes.
"""

from __future__ import annotations

import dataclasses
import math

from hwsim.frontends.lowering.handler_tables import named
from hwsim.frontends.lowering.ir import Arg, Op, Ref
from hwsim.frontends.lowering.lower import INDEXED, SIZED_BY_VALUES, Handler, Lowering, Unhandled
from hwsim.frontends.lowering.values import Act, Const, Single
from hwsim.frontends.lowering.written import SHAPE_ONLY


def concat(walk: Lowering, op: Op) -> None:
    """cat and stack; parameters among the parts (a class token) are its weight. One part alone is a view."""
    parts = [part for part in walk.members(next(iter(op.args.values()))) if math.prod(part.shape)]
    acts = [part for part in parts if isinstance(part, Act)]
    consts = [part for part in parts if isinstance(part, Const)]
    if not acts:
        raise Unhandled("what it joins from the input has no elements, and the rest are parameters")
    origins = {act.record.origin for act in acts}
    origin = origins.pop() if len(origins) == 1 and not consts else "concat"
    if len(acts) == 1 and not consts:  # the other parts, if any, are empty
        walk.bind(op, acts[0].seen_as(walk.shape(op)))
        walk.count_free(op, "one part alone: a view")
        return
    weight: Single | None = None
    if consts:
        together = math.prod(consts[0].shape) if len(consts) == 1 else sum(math.prod(c.shape) for c in consts)
        weight = dataclasses.replace(consts[0], name="+".join(c.name for c in consts), shape=(together,))
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
    """new_zeros, ones_like and their kind read the shape of an activation, not its values: a constant, unless results
    are written into it later."""
    made = [(name, walk.meta(name).shape) for name in op.outputs]
    walk.bind(op, *(walk.network_input(n) if n in walk.states else Const(n, shape) for n, shape in made))
    walk.count_free(op, "a constant")


def copy(walk: Lowering, op: Op) -> None:
    """Data movement that no strided address expresses: roll, repeat, gather, flip, windows unfolded."""
    acts = [act for ref in op.refs() if isinstance(act := walk.value(ref), Act)]
    table = next((item for ref in op.refs() if isinstance(item := walk.value(ref), Const) and item.shape), None)
    moved = next((act for act in acts if act.record.index_bits is None), acts[0])
    weight = table if all(act.record.index_bits is not None for act in acts) else None
    made = walk.emit("embedding" if weight else "copy", op, acts, walk.shape(op), moved.record.origin, weight=weight)
    if op.outputs and walk.meta(op.outputs[0]).is_index:
        made.record.index_bits = 32
    walk.bind(op, made)


def indexed(walk: Lowering, op: Op) -> None:
    """index: a gather, unless a mask chooses the elements, of which nobody knows how many there are."""
    if walk.sized_by_values(op):
        size_by_values(walk, op)
    copy(walk, op)


def embedding_bag(walk: Lowering, op: Op) -> None:
    """Rows of a table, each perhaps times a weight of its own, then summed or averaged for each bag."""
    table, indices = walk.const(op, "weight"), walk.act(op, "indices")
    if table is None:
        raise Unhandled("its table is not a parameter")
    rows = walk.emit(
        "embedding", op, [indices], (*indices.shape, table.shape[1]), "embedding", label="rows", weight=table
    )
    shares = walk.value(op.get("per_sample_weights"))
    if isinstance(shares, Act):
        rows = walk.emit("mul", op, [rows, shares], rows.shape, "linear", label="shares")
    window = math.prod(rows.shape) // max(1, math.prod(walk.shape(op)))
    bags = walk.emit("reduce_sum", op, [rows], walk.shape(op), "linear", label="bags", window=max(1, window))
    walk.bind(op, bags, *(bags.seen_as(walk.shape(op, i)) for i in range(1, len(op.outputs))))


def write_into(walk: Lowering, op: Op) -> None:
    """scatter, index_put, slice_scatter, ...: values written into an array that stays where it is.

    Only what is written moves. An array that is a parameter, or that something else still reads, is copied first.
    """
    names = list(op.args)
    target = walk.value(op.get(names[0]))
    parts = [act for name in names[1:] for act in walk.members(op.get(name)) if isinstance(act, Act)]
    values = [act for act in parts if act.record.index_bits is None] or parts
    ref = op.get(names[0])
    alone = isinstance(ref, Ref) and walk.uses.get(ref.name, 0) == 1
    if not isinstance(target, Act) or not alone or not parts:
        sources = [*([target] if isinstance(target, Act) else []), *parts]
        walk.bind(op, walk.emit("copy", op, sources, walk.shape(op), sources[0].record.origin))
        return
    kind = "add" if "add" in op.op or op.get("accumulate") is True else "copy"
    walk.emit(kind, op, parts, values[0].shape, target.record.origin, label="write")
    walk.note("a write into an array that stays in place costs the elements written (caches, scatters)")
    walk.bind(op, target.seen_as(walk.shape(op)))


def fill(walk: Lowering, op: Op) -> None:
    """fill_, zero_: a constant written over (a part of) an array in place."""
    target = walk.act(op, next(iter(op.args)))
    walk.emit("copy", op, [target], walk.shape(op), target.record.origin, label="write")
    walk.note("a write into an array that stays in place costs the elements written (caches, scatters)")
    walk.bind(op, target.seen_as(walk.shape(op)))


def grid_sampler(walk: Lowering, op: Op) -> None:
    """Interpolation at computed places: neighbours read per output by mode (0 linear, 1 nearest, 2 cubic)."""
    source, grid = walk.act(op, "input"), walk.value(op.get("grid"))
    axes = len(source.shape) - 2
    per_axis = {0: 2, 1: 1, 2: 4}.get(int(str(op.get("interpolation_mode", 0))), 2)
    acts = [source, *([grid] if isinstance(grid, Act) else [])]
    window = per_axis**axes
    walk.bind(op, walk.emit("upsample", op, acts, walk.shape(op), source.record.origin, window=max(window, 1)))


def windows_summed(walk: Lowering, op: Op) -> None:
    """col2im (fold): every element of every window is added to its place."""
    source = walk.act(op, next(iter(op.args)))
    summed = walk.emit("add", op, [source], source.shape, "add", label="sum")
    walk.bind(op, walk.emit("copy", op, [summed], walk.shape(op), "add", label="place"))


def size_by_values(walk: Lowering, op: Op) -> None:
    """nonzero, masked_select, unique, nms: how much they make depends on the input's values."""
    raise Unhandled("how many elements it makes depends on the input's values")


def path_by_values(walk: Lowering, op: Op) -> None:
    """Branches and loops that nothing known ahead decides."""
    raise Unhandled("what it runs, or how often, depends on the input's values")


def experts_by_values(walk: Lowering, op: Op) -> None:
    """Products with the weights of those experts that a router chooses."""
    raise Unhandled(
        "which experts a token reads depends on its values: price the network by its config, hf:NAME with --experts"
    )


HANDLERS: dict[str, Handler] = {
    **named(("cat", "concat", "concatenate", "stack", "hstack", "vstack", "dstack"), concat),
    **named(("embedding",), embedding),
    **named(("embedding_bag", "_embedding_bag", "_embedding_bag_forward_only"), embedding_bag),
    **named(("pad", "constant_pad_nd"), pad),
    **named((f"{kind}_pad{axes}d" for kind in ("reflection", "replication") for axes in (1, 2, 3)), pad),
    **named(
        (f"{kind}{n}d" for kind in ("upsample_nearest", "_upsample_nearest_exact") for n in (1, 2, 3)), upsample(1)
    ),
    **named(("upsample_linear1d",), upsample(2)),
    **named(("upsample_bilinear2d", "_upsample_bilinear2d_aa"), upsample(4)),
    **named(("upsample_trilinear3d",), upsample(8)),
    **named(("upsample_bicubic2d", "_upsample_bicubic2d_aa"), upsample(16)),
    **dict.fromkeys(SHAPE_ONLY, shape_only),
    **named(("roll", "flip", "repeat", "tile", "repeat_interleave", "index_select", "rot90", "take"), copy),
    **dict.fromkeys(INDEXED, indexed),
    **named(("gather", "im2col", "pixel_unshuffle", "pixel_shuffle", "channel_shuffle", "take_along_dim"), copy),
    **named(("one_hot", "complex", "polar", "max_unpool2d", "max_unpool3d"), copy),
    **named(("scatter", "scatter_add", "scatter_reduce", "index_put", "_unsafe_index_put", "index_add"), write_into),
    **named(("index_copy", "index_fill", "masked_scatter", "slice_scatter", "select_scatter", "copy"), write_into),
    **named(("diagonal_scatter", "as_strided_scatter"), write_into),
    **named(("fill", "zero"), fill),
    **named(("grid_sampler", "grid_sampler_2d", "grid_sampler_3d"), grid_sampler),
    **named(("col2im",), windows_summed),
    **dict.fromkeys(SIZED_BY_VALUES, size_by_values),
    **dict.fromkeys(("onnx.com.microsoft.MoE", "onnx.com.microsoft.QMoE"), experts_by_values),
    **dict.fromkeys(("tflite.IF", "tflite.WHILE", "cond", "scan", "while_loop"), path_by_values),
}
