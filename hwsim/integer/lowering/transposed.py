# pyright: basic
"""Transposed convolutions in their gather form: a convolution over the input with zeros put between its entries.

y = conv(stuffed(x), flipped weight). The zeros are no data: as integers they are 0 and add nothing, and the offset of
the codes reaches an output through the taps that meet data alone. Which taps those are changes from output to output
with the stride, so the offset's part is a constant per output position (`Border`), summed here by the definition.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from hwsim.errors import UnsupportedOp
from hwsim.integer import graph
from hwsim.integer.arithmetic.forms import Border, Form, Rationals, Term, rationals, times
from hwsim.integer.arithmetic.geometry import Run, Window
from hwsim.integer.arithmetic.kernels import accumulator_bounds, magnitude_bound, narrowest
from hwsim.integer.arithmetic.rules import Range
from hwsim.integer.lowering.exported_nodes import shape_of
from hwsim.integer.lowering.values import Const, Moved, NotAffine, Pair, Value, pair
from hwsim.integer.lowering.walk import Lowering
from hwsim.integer.lowering.weights import Weight


def transposed_convolution(
    low: Lowering, node: fx.Node, x: Value, weight: Value, bias: Value | None = None, stride: Pair = 1,
    padding: Pair = 0, output_padding: Pair = 0, groups: int = 1, dilation: Pair = 1,
) -> Value:  # fmt: skip
    """Accumulators over the stuffed input, the offset's part per output position; a convolution of one row in 1-D."""
    if not isinstance(weight, Weight):
        raise NotAffine("weights without a quantizer")
    if weight.groups:
        raise UnsupportedOp(f"layer {low.layer}: a transposed convolution of weights in groups has no integer form")
    source, code, around = low.as_codes(x, "a transposed convolution")
    if any(around):
        raise NotAffine("a padded input")
    codes, shape = weight.codes, shape_of(node)
    one_d = codes.ndim == 3
    stride, padding, extra, dilation = (_sizes(v, one_d, n) for v, n in
                                        ((stride, 1), (padding, 0), (output_padding, 0), (dilation, 1)))  # fmt: skip
    if one_d:
        codes, shape = codes.unsqueeze(2), (*shape[:2], 1, shape[2])
        before = low.nodes[source].shape
        source = low.move("reshape", (source,), ((*before[:2], 1, before[2]),), (*before[:2], 1, before[2]),
                          f"{low.layer}.rows")  # fmt: skip
    sides = [(d * (k - 1) - p, d * (k - 1) - p + e)
             for d, k, p, e in zip(dilation, codes.shape[2:], padding, extra, strict=True)]  # fmt: skip
    height, width = low.nodes[source].shape[2:]
    stuffed = _stuffed(low, source, stride, sides)
    flipped = gathering(codes, groups)
    steps = _per_output(weight.steps, groups)
    least, largest = accumulator_bounds(flipped, code.n, code.p)
    made = low.add(graph.Convolve(
        name=f"{low.layer}.accumulators", shape=shape, layer=low.layer, x=stuffed,
        window=Window((int(codes.shape[2]), int(codes.shape[3])), (1, 1), dilation, groups=groups),
        range=Range(tuple(least.tolist()), tuple(largest.tolist())),
        weight=flipped.to(narrowest(int(flipped.min()), int(flipped.max()))),
        padding=graph.Padding(policy="none", code=0, naive_code=0), bound=magnitude_bound(flipped, code.n, code.p),
        per_channel_scale=len(steps) > 1, element_bits=weight.element_bits,
    ))  # fmt: skip
    constant = rationals(bias.values) if isinstance(bias, Const) else rationals(0.0)
    border = None
    if code.beta != 0:
        ones = torch.ones(1, codes.shape[0], height, width, dtype=torch.float64)
        sums = F.conv_transpose2d(ones, codes.double(), None, stride, padding, extra, groups, dilation)[0]
        table = sums.round().to(torch.int64).permute(1, 2, 0)
        border = Border(_each(shape[2]), _each(shape[3]), table, flipped.to(torch.int64).sum((1, 2, 3)),
                        times(steps, (code.beta,)))  # fmt: skip
    form = Form((Term((made,), times(steps, (code.s,))),), constant, shape, 1, (), border)
    return Moved("reshape", (form,), (shape_of(node),), shape_of(node)) if one_d else form


def gathering(codes: Tensor, groups: int) -> Tensor:
    """The weight of the gather form: (C, K/G, R, S) -> (K, C/G, R, S), its taps backwards."""
    c, k, r, s = codes.shape
    grouped = codes.view(groups, c // groups, k, r, s).transpose(1, 2)
    return grouped.reshape(groups * k, c // groups, r, s).flip(2, 3).contiguous()


def _per_output(steps: Rationals, groups: int) -> Rationals:
    """Steps per output of a group, for all outputs."""
    return steps * groups if len(steps) > 1 else steps


def _stuffed(low: Lowering, source: str, stride: Pair, sides: list[tuple[int, int]]) -> str:
    """The codes with stride - 1 zeros behind each but the last, and zeros around (negative sides: cut)."""
    n, c, h, w = low.nodes[source].shape
    rows, columns = pair(stride)

    def move(kind: str, options: tuple[Any, ...], shape: tuple[int, ...]) -> None:
        nonlocal source
        source = low.move(kind, (source,), options, shape, f"{low.layer}.stuffed")

    if rows > 1 or columns > 1:
        move("reshape", ((n, c, h, 1, w, 1),), (n, c, h, 1, w, 1))
        move("pad", ((0, columns - 1, 0, 0, 0, rows - 1), 0), (n, c, h, rows, w, columns))
        h, w = h * rows, w * columns
        move("reshape", ((n, c, h, w),), (n, c, h, w))
    for axis, (before, after), behind in ((2, sides[0], rows - 1), (3, sides[1], columns - 1)):
        first, last = max(0, -before), [h, w][axis - 2] - behind - max(0, -after)
        shape = list(low.nodes[source].shape)
        if (first, last) != (0, shape[axis]):
            shape[axis] = last - first
            move("slice", (axis, first, last, 1), tuple(shape))
    (top, bottom), (left, right) = [(max(0, a), max(0, b)) for a, b in sides]
    if any((top, bottom, left, right)):
        n, c, h, w = low.nodes[source].shape
        move("pad", ((left, right, top, bottom), 0), (n, c, h + top + bottom, w + left + right))
    return source


def _sizes(value: Pair, one_d: bool, neutral: int) -> tuple[int, int]:
    return (neutral, pair(value)[0]) if one_d else pair(value)


def _each(count: int) -> tuple[Run, ...]:
    """Every position a class of its own."""
    return tuple(Run(p, p + 1, 0, 0) for p in range(count))
