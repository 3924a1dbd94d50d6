"""Convolutions over one to three dimensions, and transposed ones as the convolutions that gather their result.

A transposed convolution of stride s makes s interleaved sets of outputs per axis; each is an ordinary convolution of
stride 1 with its own taps (Dumoulin and Visin 2016, section 4), so no product with an inserted zero is counted. Depth
folds into existing loops: output slices are N, and the taps along depth are input channels.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from dataclasses import dataclass

from hwsim.frontends.lowering.ir import Arg, Op
from hwsim.frontends.lowering.lower import Handler, Lowering, Unhandled
from hwsim.frontends.lowering.values import Act, Const, Draft, Single
from hwsim.network.layer import Loops

DEPTH_NOTE = (
    "depth of 3-D convolutions: output slices count as N, taps along depth as input channels; an input slice is read "
    "once for every output slice that needs it"
)
INTERLEAVE_NOTE = (
    "a transposed convolution whose output phases differ is one convolution per phase and a copy that interleaves them"
)


@dataclass(frozen=True)
class Axis:
    """One axis of a convolution: `size` inputs from `skip` on, zeros before and after, `out` outputs."""

    size: int
    taps: int
    out: int
    stride: int = 1
    dilation: int = 1
    before: int = 0
    after: int = 0


ONE = Axis(1, 1, 1)


def numbers(value: Arg, axes: int, default: int) -> tuple[int, ...]:
    """An argument with one number for each axis; a single number stands for all."""
    found = [item for item in (value if isinstance(value, tuple) else (value,)) if isinstance(item, int)]
    if not found:
        return (default,) * axes
    return tuple(found) if len(found) == axes else (found[0],) * axes


def pair(value: Arg, default: int) -> tuple[int, int]:
    """An argument for rows and columns: one number means both; a 1-D operator has only columns."""
    rows, *_, columns = numbers(value, 2, default)
    return rows, columns


def convolution(walk: Lowering, op: Op) -> None:
    """conv1d, conv2d, conv3d and aten.convolution: grouped, depthwise, strided, dilated, any zero padding."""
    if op.get("transposed") is True:
        transposed_convolution(walk, op)
        return
    weight, bias = parameters(walk, op)
    found = walk.raw(op.get("input"))
    axes = len(weight.shape) - 2
    if not isinstance(found, Act) or not 1 <= axes <= 3:
        raise Unhandled(f"its input is no activation, or it has {axes} spatial dimensions")
    source, absorbed = without_padding(walk, walk.written_out(found), axes)
    strides, dilations = numbers(op.get("stride"), axes, 1), numbers(op.get("dilation"), axes, 1)
    kernel, out = weight.shape[2:], spatial(walk.shape(op), axes)
    own = own_padding(op.get("padding"), kernel, dilations)
    pads = [(a + c, b + d) for (a, b), (c, d) in zip(own, absorbed, strict=True)]
    if min(kernel) < 1 or min(strides) < 1 or min(dilations) < 1:
        raise Unhandled(f"kernel {kernel}, stride {strides}, dilation {dilations}")
    geometry = [
        Axis(n, k, m, s, d, *pad)
        for n, k, m, s, d, pad in zip(spatial(source.shape, axes), kernel, out, strides, dilations, pads, strict=True)
    ]
    result = emit_convolution(walk, op, source, weight, weight.shape[0], geometry, bias=bias)
    walk.bind(op, result.seen_as(walk.shape(op)))


def parameters(walk: Lowering, op: Op) -> tuple[Single, bool]:
    """The weight (an activation where the network computes it), and whether there is a bias."""
    weight, bias = walk.value(op.get("weight")), walk.value(op.get("bias"))
    if weight is None:
        raise Unhandled("without a weight")
    return weight, bias is not None


def emit_convolution(
    walk: Lowering,
    op: Op,
    source: Act,
    weight: Single,
    outputs: int,
    geometry: list[Axis],
    *,
    bias: bool,
    label: str = "",
) -> Act:
    """The layer of one convolution of stride, taps and padding per axis; (N, outputs, rows, columns) of it."""
    depth, rows, columns = as_volume(geometry)
    groups = numbers(op.get("groups"), 1, 1)[0]
    batch = batch_of(source.shape, len(geometry))
    inner = math.prod(weight.shape) // (outputs * depth.taps * rows.taps * columns.taps)
    if groups < 1 or outputs % groups:
        raise Unhandled(f"{groups} groups for {outputs} outputs")
    if depth != ONE:
        walk.note(DEPTH_NOTE)
    loops = Loops(
        batch * depth.out, groups, outputs // groups, inner * depth.taps, rows.out, columns.out, rows.taps, columns.taps
    )
    seen = source.seen_as((loops.N, groups * loops.C, rows.size, columns.size))
    shape = (loops.N, outputs, rows.out, columns.out)
    result = walk.emit("conv", op, [seen], shape, "linear", label=label, weight=weight, loops=loops, bias=bias)
    draft = producer(result)
    draft.stride, draft.dilation = (rows.stride, columns.stride), (rows.dilation, columns.dilation)
    draft.padding = (rows.before, rows.after, columns.before, columns.after)
    if any(draft.padding) or depth.before or depth.after:
        draft.padding_policy = walk.graph.padding_policies.get(op.module, "")
        draft.pad_code = walk.graph.pad_codes.get(op.module)
    return result


def as_volume(geometry: list[Axis]) -> tuple[Axis, Axis, Axis]:
    """Depth, rows, columns. A kernel along depth alone is one along rows, with all places of a slice as columns."""
    depth, rows, columns = (*[ONE] * (3 - len(geometry)), *geometry)
    plain = all(dataclasses.replace(axis, size=1, out=1) == ONE and axis.size == axis.out for axis in (rows, columns))
    if depth.taps > 1 and plain:
        places = rows.size * columns.size
        return ONE, depth, dataclasses.replace(columns, size=places, out=places)
    return depth, rows, columns


def without_padding(walk: Lowering, act: Act, axes: int) -> tuple[Act, list[tuple[int, int]]]:
    """The activation before its pending zeros, and those zeros per axis for the convolution to take over."""
    if act.pad is None or (axes == 1 and any(act.pad[:2])):
        return walk.settled(act), [(0, 0)] * axes
    top, bottom, left, right = act.pad
    shape = (*act.shape[:-2], act.shape[-2] - top - bottom, act.shape[-1] - left - right)
    return act.seen_as(shape), [(0, 0), (top, bottom), (left, right)][-axes:]


def own_padding(value: Arg, kernel: tuple[int, ...], dilations: tuple[int, ...]) -> list[tuple[int, int]]:
    """Zeros before and after each axis by the operator's `padding`; "same" puts the odd zero after, as torch does."""
    if isinstance(value, str):
        if value == "valid":
            return [(0, 0)] * len(kernel)
        totals = [d * (k - 1) for k, d in zip(kernel, dilations, strict=True)]
        return [(total // 2, total - total // 2) for total in totals]
    return [(n, n) for n in numbers(value, len(kernel), 0)]


def spatial(shape: tuple[int, ...], axes: int) -> tuple[int, ...]:
    """Sizes of a convolution's operand along its axes."""
    if not axes < len(shape) <= axes + 2:
        raise Unhandled(f"an input of shape {shape}")
    return shape[-axes:]


def batch_of(shape: tuple[int, ...], axes: int) -> int:
    """Batch size; an operand without a batch dimension has 1."""
    return shape[0] if len(shape) == axes + 2 else 1


def producer(act: Act) -> Draft:
    """The draft that makes an activation just emitted."""
    assert act.record.producer is not None
    return act.record.producer


# -- transposed --------------------------------------------------------------------------------------------------------


def transposed_convolution(walk: Lowering, op: Op) -> None:
    """conv_transpose1d to 3d: one convolution for each set of outputs that sees the same taps.

    Where all sets have equal sizes they are further output channels of one layer, written interleaved.
    """
    weight, bias = parameters(walk, op)
    source = walk.value(op.get("input"))
    axes = len(weight.shape) - 2
    if not isinstance(source, Act) or not 1 <= axes <= 3:
        raise Unhandled(f"its input is no activation, or it has {axes} spatial dimensions")
    source = walk.written_out(source)
    groups = numbers(op.get("groups"), 1, 1)[0]
    arguments = [
        numbers(op.get(key), axes, default) for key, default in (("stride", 1), ("dilation", 1), ("padding", 0))
    ]
    if min(*arguments[0], *arguments[1], *weight.shape) < 1:
        raise Unhandled(f"kernel {weight.shape[2:]}, stride {arguments[0]}, dilation {arguments[1]}")
    made = spatial(walk.shape(op), axes)
    sets = [
        phases(n, k, s if n > 1 else max(s, (k - 1) * d + 1, m + p), d, p, m)  # of one input, each output sees one tap
        for n, k, s, d, p, m in zip(spatial(source.shape, axes), weight.shape[2:], *arguments, made, strict=True)
    ]
    channels, outputs = weight.shape[0] // groups, weight.shape[1] * groups
    if alike(sets):
        first = [found[0] for found in sets]
        assert all(axis is not None for axis in first)
        geometry = [axis for axis in first if axis is not None]
        copies = math.prod(len(found) for found in sets)
        shape = (outputs * copies, channels, *(axis.taps for axis in geometry))
        kernel = dataclasses.replace(weight, shape=shape)
        result = emit_convolution(walk, op, source, kernel, outputs * copies, geometry, bias=bias)
        walk.bind(op, result.seen_as(walk.shape(op)))
        return
    parts: list[Act] = []
    for place in itertools.product(*(range(len(found)) for found in sets)):
        chosen = [found[i] for found, i in zip(sets, place, strict=True)]
        geometry = [axis for axis in chosen if axis is not None]
        if len(geometry) < axes:
            continue  # outputs that no tap reaches: the bias alone
        kernel = dataclasses.replace(weight, shape=(outputs, channels, *(axis.taps for axis in geometry)))
        if isinstance(kernel, Const):
            kernel = dataclasses.replace(kernel, name=f"{kernel.name}:phase{''.join(str(i) for i in place)}")
        part = emit_convolution(walk, op, source, kernel, outputs, geometry, bias=bias, label=f"phase{len(parts)}")
        parts.append(part)
    if not parts:
        raise Unhandled("no output sees a tap")
    walk.note(INTERLEAVE_NOTE)
    walk.bind(op, walk.emit("copy", op, parts, walk.shape(op), "linear", label="interleave"))


def alike(sets: list[list[Axis | None]]) -> bool:
    """Whether all output sets of every axis have equal sizes and taps, and none skips inputs."""
    for found in sets:
        sizes = {(axis.size, axis.taps, axis.out, axis.dilation) if axis else None for axis in found}
        if len(sizes) > 1 or None in sizes:
            return False
    return True


def phases(size: int, taps: int, stride: int, dilation: int, cut: int, out: int) -> list[Axis | None]:
    """The convolution behind outputs 0, stride, 2*stride, ...; behind 1, 1 + stride, ...; and so on. None: no tap.

    Output y sums w[r] x[i] over y + cut = i*stride + r*dilation. Of the outputs a + t*stride, tap r0 + j*stride/g reads
    input t + c - j*dilation/g, where g = gcd(stride, dilation) and c = (a + cut - r0*dilation)/stride.
    """
    common = math.gcd(stride, dilation)
    found: list[Axis | None] = []
    for a in range(min(stride, out)):
        count = -(-(out - a) // stride)
        first = next((r for r in range(stride // common) if (a + cut - r * dilation) % stride == 0), taps)
        used = len(range(first, taps, stride // common))
        if not used:
            found.append(None)
            continue
        step = dilation // common
        last = (a + cut - first * dilation) // stride  # input of output a and its first tap
        before, after = (used - 1) * step - last, count - 1 + last - (size - 1)
        kept = size + min(before, 0) + min(after, 0)
        if kept < 1:
            found.append(None)
            continue
        found.append(Axis(kept, used, count, 1, step, max(before, 0), max(after, 0)))
    return found


HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(
        ("aten.conv1d", "aten.conv2d", "aten.conv3d", "aten.convolution", "aten._convolution"), convolution
    ),
    **dict.fromkeys(
        ("aten.conv_transpose", "aten.conv_transpose1d", "aten.conv_transpose2d", "aten.conv_transpose3d"),
        transposed_convolution,
    ),
}
