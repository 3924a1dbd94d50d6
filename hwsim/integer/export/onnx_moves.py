# pyright: basic
"""ONNX nodes that move numbers and change none: shapes, slices, concatenations, padding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import fx

from hwsim.errors import UnsupportedOp
from hwsim.integer.export.onnx_values import Codes, Known, Padded, Quantized, Value
from hwsim.integer.export.onnx_writer import OnnxWriter
from hwsim.integer.lowering.exported_nodes import shape_of


def reshape(out: OnnxWriter, node: fx.Node, x: Any, *_: Any, **__: Any) -> Any:
    """Reshape; a first axis that stays is copied from the input (0), so that batches pass."""
    shape = shape_of(node)
    if isinstance(x, Known):
        return Known(x.values.expand(shape) if math.prod(x.shape) != math.prod(shape) else x.values.reshape(shape))
    if isinstance(x, Codes):
        if x.group and x.shape != shape:
            raise UnsupportedOp(f"layer {out.layer}: a reshape of weights in groups is not exported")
        return Codes(x.codes.reshape(shape), x.steps, x.quantizer, x.group)
    source = out.plain(x)
    if source.shape == shape:
        return x
    if math.prod(source.shape) != math.prod(shape):
        if source.shape[:1] != shape[:1]:
            raise UnsupportedOp(f"layer {out.layer or '(model)'}: an expansion of {source.shape} to {shape}")
        sizes = out.store(np.array([1, *shape[1:]]), f"{out.layer}.shape", "INT64")
        return out.add("Expand", [source.name, sizes], shape)
    target = [0, *shape[1:]] if source.shape[:1] == shape[:1] else list(shape)
    return out.add("Reshape", [source.name, out.store(np.array(target), f"{out.layer}.shape", "INT64")], shape)


def unsqueeze(out: OnnxWriter, node: fx.Node, x: Any, axis: int) -> Any:
    """Unsqueeze, which puts an axis in front of the batch where Reshape could not tell the two apart."""
    if not isinstance(x, (Value, Quantized, Padded)):
        return reshape(out, node, x)
    axes = out.store(np.array([axis % len(shape_of(node))]), f"{out.layer}.axes", "INT64")
    return out.add("Unsqueeze", [out.plain(x).name, axes], shape_of(node))


def stack(out: OnnxWriter, node: fx.Node, values: Sequence[Any], axis: int = 0) -> Value:
    """Concat along an axis of size 1 put in."""
    shape = shape_of(node)
    axis %= len(shape)
    place = out.store(np.array([axis]), f"{out.layer}.axes", "INT64")
    one = (*shape[:axis], 1, *shape[axis + 1 :])
    parts = [out.add("Unsqueeze", [part.name, place], one).name for part in beside(out, values, joined=axis == 0)]
    return out.add("Concat", parts, shape, axis=axis)


def beside(out: OnnxWriter, values: Sequence[Any], *, joined: bool) -> list[Value]:
    """Parts of a concatenation; numbers known beforehand are repeated for every sample. `joined`: along the samples."""
    parts = [out.plain(v) for v in values]
    like = next((part for part, v in zip(parts, values, strict=True) if not isinstance(v, Known)), None)
    if joined or like is None:
        return parts
    return [
        for_every_sample(out, part, like) if isinstance(v, Known) and part.shape[:1] == (1,) else part
        for part, v in zip(parts, values, strict=True)
    ]


def for_every_sample(out: OnnxWriter, part: Value, like: Value) -> Value:
    """A part of one sample, as often as another value has samples."""
    count = out.add("Shape", [like.name], (1,), start=0, end=1)
    rest = out.store(np.array(part.shape[1:]), f"{out.layer}.shape", "INT64")
    sizes = out.add("Concat", [count.name, rest], (len(part.shape),), axis=0)
    return out.add("Expand", [part.name, sizes.name], part.shape)


def copied(out: OnnxWriter, node: fx.Node, x: Any, y: Any, *_: Any) -> Any:
    """y in the place of x, where the shapes are the same."""
    if tuple(y.shape) != shape_of(node):
        raise UnsupportedOp(f"layer {out.layer or '(model)'}: {y.shape} copied into {x.shape}; expand it first")
    return y


def zeros(out: OnnxWriter, node: fx.Node, *_: Any, **__: Any) -> Known:
    """new_zeros and the like: numbers whose size alone depends on the network."""
    return Known(torch.zeros(shape_of(node), dtype=torch.float64))


def filled(out: OnnxWriter, node: fx.Node, x: Any, number: Any) -> Known:
    """A tensor full of one number."""
    number = float(number.values) if isinstance(number, Known) else float(number)
    return Known(torch.full(shape_of(node), number, dtype=torch.float64))


def permute(out: OnnxWriter, node: fx.Node, x: Any, axes: Sequence[int]) -> Any:
    """Transpose."""
    if isinstance(x, Known):
        return Known(x.values.permute(*axes))
    source = out.plain(x)
    return out.add("Transpose", [source.name], shape_of(node), perm=[a % len(source.shape) for a in axes])


def transpose(out: OnnxWriter, node: fx.Node, x: Any, a: int = 0, b: int = 1) -> Any:
    """Two axes exchanged."""
    order = list(range(len(shape_of(node))))
    order[a], order[b] = order[b], order[a]
    return permute(out, node, x, order)


def sliced(out: OnnxWriter, node: fx.Node, x: Any, axis: int = 0, start: int | None = None, stop: int | None = None,
           step: int = 1) -> Any:  # fmt: skip
    """Slice."""
    source = out.plain(x)
    start, stop, step = slice(start, stop, step).indices(source.shape[axis])
    if (start, stop, step) == (0, source.shape[axis], 1):
        return x
    return cut(out, source, axis, start, stop, step)


def cut(out: OnnxWriter, x: Value, axis: int, start: int, stop: int, step: int = 1) -> Value:
    """Slice along one axis."""
    numbers = [out.store(np.array([v]), f"{out.layer}.{what}", "INT64")
               for what, v in (("start", start), ("stop", stop), ("axis", axis), ("step", step))]  # fmt: skip
    shape = list(x.shape)
    shape[axis] = len(range(start, stop, step))
    return out.add("Slice", [x.name, *numbers], tuple(shape))


def slice_scatter(out: OnnxWriter, node: fx.Node, x: Any, y: Any, axis: int = 0, start: int | None = None,
                  stop: int | None = None, step: int = 1) -> Value:  # fmt: skip
    """x with y in x[start:stop]: what stands before it, y, what stands behind it."""
    shape = shape_of(node)
    axis %= len(shape)
    first, last, step = slice(start, stop, step).indices(shape[axis])
    if step != 1:
        raise UnsupportedOp(f"layer {out.layer or '(model)'}: values written at intervals are not exported")
    parts = [rest(out, x, axis, 0, first)] if first else []
    parts.append(y)
    parts += [rest(out, x, axis, last, shape[axis])] if last < shape[axis] else []
    return concat(out, node, parts, axis)


def select_scatter(out: OnnxWriter, node: fx.Node, x: Any, y: Any, axis: int, index: int) -> Value:
    """x with y in the place of x[index] along an axis."""
    shape = shape_of(node)
    axis, index = axis % len(shape), index % shape[axis]
    if isinstance(y, Known):
        y = Known(y.values.unsqueeze(axis))
    else:
        place = out.store(np.array([axis]), f"{out.layer}.axes", "INT64")
        y = out.add("Unsqueeze", [out.plain(y).name, place], (*shape[:axis], 1, *shape[axis + 1 :]))
    return slice_scatter(out, node, x, y, axis, index, index + 1)


def rest(out: OnnxWriter, x: Any, axis: int, start: int, stop: int) -> Any:
    """What a write leaves of x along an axis."""
    if isinstance(x, Known):
        return Known(x.values.narrow(axis, start, stop - start))
    return cut(out, out.plain(x), axis, start, stop)


def select(out: OnnxWriter, node: fx.Node, x: Any, axis: int, index: int) -> Any:
    """Gather of one index."""
    source = out.plain(x)
    which = out.store(np.array(index % source.shape[axis]), f"{out.layer}.index", "INT64")
    return out.add("Gather", [source.name, which], shape_of(node), axis=axis % len(source.shape))


def split(out: OnnxWriter, node: fx.Node, x: Any, sizes: Any, axis: int = 0) -> Any:
    """Split, as a tuple."""
    source = out.plain(x)
    axis %= len(source.shape)
    shapes = [tuple(int(n) for n in v.shape) for v in node.meta["val"]]
    stored = out.store(np.array([s[axis] for s in shapes]), f"{out.layer}.sizes", "INT64")
    made = out.unique(f"{out.layer or 'model'}.split")
    names = [f"{made}.{i}" for i in range(len(shapes))]
    out.nodes.append(out.onnx.helper.make_node("Split", [source.name, stored], names, made, axis=axis))
    return tuple(Value(n, s) for n, s in zip(names, shapes, strict=True))


def getitem(out: OnnxWriter, node: fx.Node, x: Any, index: int) -> Any:
    """One of several results."""
    return x[index]


def concat(out: OnnxWriter, node: fx.Node, values: Sequence[Any], axis: int = 0) -> Value:
    """Concat."""
    axis %= len(shape_of(node))
    parts = beside(out, values, joined=axis == 0)
    return out.add("Concat", [part.name for part in parts], shape_of(node), axis=axis)


def pad(out: OnnxWriter, node: fx.Node, x: Any, sides: Sequence[int], mode: str = "constant", value: Any = None) -> Any:
    """Pad with a number; zeros around a quantized tensor wait for the convolution that takes them over."""
    if mode != "constant":
        raise UnsupportedOp(f"layer {out.layer}: padding mode {mode} is not exported")
    if isinstance(x, Quantized) and not value:
        return Padded(x, tuple(sides), shape_of(node))
    return out.pad(out.plain(x), sides, float(value or 0), shape_of(node))


def constant_pad(out: OnnxWriter, node: fx.Node, x: Any, sides: Sequence[int], value: Any = 0) -> Any:
    """aten.constant_pad_nd."""
    return pad(out, node, x, sides, "constant", value)
