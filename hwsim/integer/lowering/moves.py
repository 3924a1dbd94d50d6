# pyright: basic
"""Operators that move values: reshapes, slices, concatenations, padding of every mode, enlarging by repetition.

A move becomes a `Moved` value, in front of which the quantizer behind it is pushed: what is moved are codes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import torch
from torch import fx

from hwsim.errors import UnsupportedOp
from hwsim.integer import graph
from hwsim.integer.arithmetic.forms import Form
from hwsim.integer.lowering.exported_nodes import shape_of
from hwsim.integer.lowering.values import Const, Moved, NotAffine, Value, value_shape
from hwsim.integer.lowering.walk import Lowering
from hwsim.integer.lowering.weights import Weight


def reshape(low: Lowering, node: fx.Node, x: Value, *_: Any, **__: Any) -> Value:
    """view, reshape, flatten, unsqueeze, squeeze, expand to the same size."""
    shape = shape_of(node)
    if isinstance(x, Const):
        return Const(
            x.values.expand(shape) if math.prod(x.values.shape) != math.prod(shape) else x.values.reshape(shape)
        )
    if isinstance(x, Weight):
        if x.groups and tuple(shape) != tuple(x.codes.shape):
            raise UnsupportedOp(f"layer {low.layer}: a reshape of weights in groups has no integer form")
        return dataclasses.replace(x, codes=x.codes.reshape(shape))
    if value_shape(x) == shape:
        return x
    if math.prod(value_shape(x)) != math.prod(shape):
        return expanded(x, shape)
    return Moved("reshape", (x,), (shape,), shape)


def expanded(x: Value, shape: tuple[int, ...]) -> Value:
    """Each entry as often as an axis repeats it: entries named again."""
    before = value_shape(x)
    if len(before) != len(shape) or (before[:1] != shape[:1]):
        raise NotAffine("an expansion")
    for axis, (old, new) in enumerate(zip(before, shape, strict=True)):
        x = gather(x, axis, [0] * new) if old != new else x
    return x


def zeros(low: Lowering, node: fx.Node, *_: Any, **__: Any) -> Value:
    """Zeros: their size alone depends on x."""
    return Const(torch.zeros(shape_of(node), dtype=torch.float64))


def reshaped(x: Value, shape: tuple[int, ...]) -> Value:
    """The same numbers in another shape."""
    if isinstance(x, Const):
        return Const(x.values.reshape(shape))
    if isinstance(x, Moved) and x.kind == "reshape" and value_shape(x.sources[0]) == shape:
        return x.sources[0]
    return x if value_shape(x) == shape else Moved("reshape", (x,), (shape,), shape)


def permute(low: Lowering, node: fx.Node, x: Value, axes: Sequence[int]) -> Value:
    """Axes in another order."""
    if isinstance(x, Const):
        return Const(x.values.permute(*axes))
    ndim = len(value_shape(x))
    return permuted(x, tuple(a % ndim for a in axes))


def permuted(x: Value, order: tuple[int, ...]) -> Value:
    """Axes in another order; two orders in a row are one, and the order they have is none."""
    if isinstance(x, Moved) and x.kind == "permute":
        return permuted(x.sources[0], tuple(x.options[0][a] for a in order))
    if order == tuple(range(len(order))):
        return x
    shape = value_shape(x)
    return Moved("permute", (x,), (order,), tuple(shape[a] for a in order))


def transpose(low: Lowering, node: fx.Node, x: Value, a: int = 0, b: int = 1) -> Value:
    """Two axes exchanged."""
    ndim = len(shape_of(node))
    order = list(range(ndim))
    order[a], order[b] = order[b], order[a]
    return permute(low, node, x, order)


def sliced(low: Lowering, node: fx.Node, x: Value, axis: int = 0, start: int | None = None, stop: int | None = None,
           step: int = 1) -> Value:  # fmt: skip
    """x[..., start:stop:step]; taken from the integers, so that nothing is quantized in vain."""
    if isinstance(x, Weight):
        if axis % x.codes.ndim:
            raise UnsupportedOp(f"layer {low.layer}: a part of the input channels of weights has no integer form")
        return x.rows(slice(start, stop, step))
    size = value_shape(x)[axis]
    start, stop, step = slice(start, stop, step).indices(size)
    if (start, stop, step) == (0, size, 1):
        return x
    return part(low, x, axis % len(value_shape(x)), start, stop, step)


def part(low: Lowering, x: Value, axis: int, start: int, stop: int, step: int = 1) -> Value:
    """A slice along one axis."""
    if isinstance(x, Const):
        return Const(x.values[(slice(None),) * axis + (slice(start, stop, step),)])
    if isinstance(x, Moved) and x.kind == "permute":
        inner = part(low, x.sources[0], x.options[0][axis], start, stop, step)
        return permuted(inner, x.options[0])
    if isinstance(x, Moved) and x.kind == "concat" and x.options[0] == axis and step == 1:
        begin = 0
        for source in x.sources:
            size = value_shape(source)[axis]
            if begin <= start and stop <= begin + size:
                whole = (start, stop) == (begin, begin + size)
                return source if whole else part(low, source, axis, start - begin, stop - begin)
            begin += size
    shape = list(value_shape(x))
    shape[axis] = len(range(start, stop, step))
    moved = Moved("slice", (x,), (axis, start, stop, step), tuple(shape))
    if isinstance(x, Form) and x.border is None:
        try:
            return low.as_form(moved)
        except NotAffine:
            return moved
    return moved


def select(low: Lowering, node: fx.Node, x: Value, axis: int, index: int) -> Value:
    """x[..., index]: a slice of one, its axis dropped."""
    axis, index = axis % len(value_shape(x)), index % value_shape(x)[axis]
    return reshape(low, node, part(low, x, axis, index, index + 1))


def split(low: Lowering, node: fx.Node, x: Value, sizes: Any, axis: int = 0) -> Value:
    """Parts along an axis, as a tuple."""
    axis %= len(value_shape(x))
    found, start = [], 0
    for result in node.meta["val"]:
        stop = start + int(result.shape[axis])
        found.append(part(low, x, axis, start, stop))
        start = stop
    return tuple(found)


def getitem(low: Lowering, node: fx.Node, x: Any, index: int) -> Value:
    """One of several results."""
    return x[index]


def concat(low: Lowering, node: fx.Node, values: Sequence[Value], axis: int = 0) -> Value:
    """Concatenation: the quantizer behind it quantizes the parts."""
    ndim = len(shape_of(node))
    if any(isinstance(v, (Weight, tuple)) for v in values):
        raise NotAffine("a concatenation of weights")
    return Moved("concat", tuple(values), (axis % ndim,), shape_of(node))


def gather(x: Value, axis: int, indices: Sequence[int]) -> Value:
    """The entries of an axis at these places, each as often as it is named."""
    axis %= len(value_shape(x))
    if isinstance(x, Const):
        return Const(x.values.index_select(axis, torch.tensor(indices)))
    if list(indices) == list(range(value_shape(x)[axis])):
        return x
    shape = list(value_shape(x))
    shape[axis] = len(indices)
    return Moved("gather", (x,), (axis, tuple(int(i) for i in indices)), tuple(shape))


def index_select(low: Lowering, node: fx.Node, x: Value, axis: int, indices: Value) -> Value:
    """Entries by indices known beforehand."""
    if not isinstance(indices, Const):
        raise NotAffine("indices that are computed")
    return gather(x, axis, indices.values.tolist())


def pad(
    low: Lowering, node: fx.Node, x: Value, sides: Sequence[int], mode: str = "constant", value: Any = None
) -> Value:
    """Padding with a number, which the quantizer behind it turns into a code, or with values of the map itself."""
    if any(s < 0 for s in sides):
        raise NotAffine("negative padding")
    if not any(sides):
        return x
    if mode == "constant":
        return Moved("pad", (x,), (tuple(sides), Fraction(value or 0)), shape_of(node))
    return padded_by_itself(x, sides, mode)


def padded_by_itself(x: Value, sides: Sequence[int], mode: str) -> Value:
    """Reflection, replication or circular padding: entries of the map, named again. `sides` as F.pad takes them."""
    for i in range(0, len(sides), 2):
        axis = len(value_shape(x)) - 1 - i // 2
        size = value_shape(x)[axis]
        places = range(-sides[i], size + sides[i + 1])
        if mode == "reflect":
            indices = [size - 1 - abs(size - 1 - abs(p)) for p in places]
        elif mode == "replicate":
            indices = [min(max(p, 0), size - 1) for p in places]
        else:
            indices = [p % size for p in places]
        x = gather(x, axis, indices)
    return x


def padding_of(mode: str) -> Any:
    """A handler for aten's own operator of a padding mode."""
    return lambda low, node, x, sides, *_: padded_by_itself(x, sides, mode)


def constant_pad(low: Lowering, node: fx.Node, x: Value, sides: Sequence[int], value: Any = 0) -> Value:
    """aten.constant_pad_nd."""
    return pad(low, node, x, sides, "constant", value)


def nearest(low: Lowering, node: fx.Node, x: Value, *_: Any) -> Value:
    """Nearest neighbours: output p of an axis is input floor(p * size / new size), as torch computes it."""
    before, after = value_shape(x), shape_of(node)
    for axis in range(2, len(before)):
        if after[axis] % before[axis]:
            raise NotAffine(f"an enlargement from {before} to {after}, whose places are rounded in floating point")
        x = gather(x, axis, [p * before[axis] // after[axis] for p in range(after[axis])])
    return x


def pixel_shuffle(low: Lowering, node: fx.Node, x: Value, factor: int) -> Value:
    """(N, C*r*r, H, W) -> (N, C, H*r, W*r)."""
    n, c, h, w = value_shape(x)
    split = (n, c // factor**2, factor, factor, h, w)
    order = (0, 1, 4, 2, 5, 3)
    moved = Moved("permute", (reshaped(x, split),), (order,), tuple(split[a] for a in order))
    return reshaped(moved, shape_of(node))


def pixel_unshuffle(low: Lowering, node: fx.Node, x: Value, factor: int) -> Value:
    """(N, C, H*r, W*r) -> (N, C*r*r, H, W)."""
    n, c, h, w = value_shape(x)
    split = (n, c, h // factor, factor, w // factor, factor)
    order = (0, 1, 3, 5, 2, 4)
    moved = Moved("permute", (reshaped(x, split),), (order,), tuple(split[a] for a in order))
    return reshaped(moved, shape_of(node))


def flip(low: Lowering, node: fx.Node, x: Value, axes: Sequence[int]) -> Value:
    """Axes backwards."""
    for axis in axes:
        x = gather(x, axis, list(range(value_shape(x)[axis]))[::-1])
    return x


def stack(low: Lowering, node: fx.Node, values: Sequence[Value], axis: int = 0) -> Value:
    """A concatenation along an axis of size 1 put in."""
    if any(isinstance(v, (Weight, tuple)) for v in values):
        raise NotAffine("a stack of weights")
    axis %= len(shape_of(node))
    return concat(low, node, [with_axis(v, axis) for v in values], axis)


def unsqueeze(low: Lowering, node: fx.Node, x: Value, axis: int) -> Value:
    """An axis of size 1 put in."""
    if isinstance(x, (Const, Weight)):
        return reshape(low, node, x)
    return with_axis(x, axis % len(shape_of(node)))


def with_axis(x: Value, axis: int) -> Value:
    """An axis of size 1 put in; where a reshape would take it for that of the samples, the two are exchanged."""
    before = value_shape(x)
    shape = (*before[:axis], 1, *before[axis:])
    made = reshaped(x, shape)
    if isinstance(x, Const):
        return made
    place = samples_place(x)
    wanted, found = place + (axis <= place), graph.left_to_samples(before, place, shape)
    order = list(range(len(shape)))
    order[wanted], order[found] = found, wanted
    return permuted(made, tuple(order))


def samples_place(x: Value) -> int:
    """The axis of the samples, which has size 1 here: the first of what operators make, wherever moves put it."""
    if not isinstance(x, Moved):
        return 0
    source = next((s for s in x.sources if not isinstance(s, Const)), x.sources[0])
    place = samples_place(source)
    if x.kind == "permute":
        return x.options[0].index(place)
    return graph.left_to_samples(value_shape(source), place, x.shape) if x.kind == "reshape" else place


def slice_scatter(low: Lowering, node: fx.Node, x: Value, y: Value, axis: int = 0, start: int | None = None,
                  stop: int | None = None, step: int = 1) -> Value:  # fmt: skip
    """x with y in x[start:stop]: what stands before it, y, what stands behind it."""
    size = value_shape(x)[axis]
    first, last, step = slice(start, stop, step).indices(size)
    axis %= len(value_shape(x))
    if step != 1:
        places = {place: size + i for i, place in enumerate(range(first, last, step))}
        shape = tuple(size + len(places) if i == axis else n for i, n in enumerate(value_shape(x)))
        both = Moved("concat", (x, y), (axis,), shape)
        return gather(both, axis, [places.get(place, place) for place in range(size)])
    parts = [part(low, x, axis, 0, first)] if first else []
    parts.append(y)
    parts += [part(low, x, axis, last, size)] if last < size else []
    return parts[0] if len(parts) == 1 else concat(low, node, parts, axis)


def select_scatter(low: Lowering, node: fx.Node, x: Value, y: Value, axis: int, index: int) -> Value:
    """x with y in the place of x[index] along an axis."""
    axis, index = axis % len(shape_of(node)), index % shape_of(node)[axis]
    return slice_scatter(low, node, x, with_axis(y, axis), axis, index, index + 1)


def filled(low: Lowering, node: fx.Node, x: Value, number: Any) -> Value:
    """A tensor full of one number."""
    number = float(number.values) if isinstance(number, Const) else float(number)
    return Const(torch.full(shape_of(node), number, dtype=torch.float64))


def copied(low: Lowering, node: fx.Node, x: Value, y: Value, *_: Any) -> Value:
    """y in the shape of x."""
    return reshape(low, node, y)
