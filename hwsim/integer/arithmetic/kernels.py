# pyright: basic
"""Integer arithmetic on tensors, in containers that hold every intermediate result exactly.

A sum of integers computed in floating point is exact, in any order of additions, while every partial sum stays below
2^24 (float32) or 2^53 (float64): each product and each partial sum is then an integer that the container represents, so
no rounding ever happens, with or without fused multiply-add. The bound is proven beforehand as sum |w| * max |x| per
output, from the weight codes alone; beyond 2^53 plain int64 multiplications are used. On a GPU the convolution is an
explicit gather and a float64 matrix product, because its convolution libraries may choose transforms (Winograd, FFT)
whose intermediate values are no integers, or round float32 operands to fewer bits.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hwsim.integer.arithmetic.geometry import Window

EXACT_FLOAT32 = 2**24
EXACT_FLOAT64 = 2**53


def accumulator_bounds(w_codes: Tensor, low: int, high: int) -> tuple[Tensor, Tensor]:
    """(least, largest) sum of w*x per output channel for codes x in low..high, or 0 where a tap misses the data.

    sum over w of min(w*low, w*high, 0) and max(w*low, w*high, 0): proven from the weight codes, no data involved.
    w_codes: (K, ...) -> two (K,) int64.
    """
    w = w_codes.to(torch.int64).reshape(w_codes.shape[0], -1)
    ends = torch.stack([w * low, w * high, torch.zeros_like(w)])
    return ends.amin(0).sum(1), ends.amax(0).sum(1)


def magnitude_bound(w_codes: Tensor, low: int, high: int) -> int:
    """Largest absolute value that any partial sum, in any order, can take: max over k of sum |w| * max |x|."""
    w = w_codes.to(torch.int64).reshape(w_codes.shape[0], -1).abs()
    return int(w.sum(1).max()) * max(abs(low), abs(high))


def bits_for(low: int, high: int) -> int:
    """Two's-complement bits that hold every integer of low..high (1 for 0..0).

    >>> bits_for(-8, 7), bits_for(0, 255), bits_for(-1, 0), bits_for(0, 0)
    (4, 9, 1, 1)
    """
    return max((-low - 1).bit_length() if low < 0 else 0, high.bit_length() if high > 0 else 0) + 1


def narrowest(low: int, high: int) -> torch.dtype:
    """Smallest integer dtype that holds low..high."""
    if low >= 0 and high < 2**8:
        return torch.uint8
    for dtype, bits in ((torch.int8, 8), (torch.int16, 16), (torch.int32, 32)):
        if bits_for(low, high) <= bits:
            return dtype
    return torch.int64


def convolve(x: Tensor, w_codes: Tensor, window: Window, pad_code: int = 0, bound: int | None = None) -> Tensor:
    """sum w*x over the window, int32 or int64: (N, C, H, W) codes -> (N, K, P, Q).

    The padding holds `pad_code`. `bound` limits every partial sum (`magnitude_bound`; computed from x when absent).
    """
    if bound is None:
        bound = magnitude_bound(w_codes, min(int(x.min()), pad_code), max(int(x.max()), pad_code))
    top, bottom, left, right = window.padding
    symmetric = top == bottom and left == right
    own = (top, left)
    if window.padded and (pad_code != 0 or not symmetric or x.is_cuda or bound >= EXACT_FLOAT64):
        x, own = F.pad(x.to(torch.int64 if x.dtype == torch.int64 else torch.int32), (left, right, top, bottom),
                       value=pad_code), (0, 0)  # fmt: skip
    result = torch.int32 if bound < 2**31 else torch.int64
    if bound >= EXACT_FLOAT64:
        return _convolve_int64(x, w_codes, window)
    if x.is_cuda:
        return _convolve_gathered(x, w_codes, window).to(result)
    container = torch.float32 if bound < EXACT_FLOAT32 else torch.float64
    total = F.conv2d(x.to(container), w_codes.to(container), None, window.stride, own, window.dilation, window.groups)
    return total.to(result)


def _taps(x: Tensor, window: Window) -> list[tuple[int, int, Tensor]]:
    """(r, s, the part of the padded x that tap meets): views of (N, C, P, Q)."""
    rows, columns = Window(window.kernel, window.stride, window.dilation).output(x.shape[2], x.shape[3])
    views = []
    for r in range(window.kernel[0]):
        for s in range(window.kernel[1]):
            top, left = r * window.dilation[0], s * window.dilation[1]
            view = x[:, :, top : top + (rows - 1) * window.stride[0] + 1 : window.stride[0]]
            views.append((r, s, view[..., left : left + (columns - 1) * window.stride[1] + 1 : window.stride[1]]))
    return views


def _convolve_int64(x: Tensor, w_codes: Tensor, window: Window) -> Tensor:
    """The definition, in int64 throughout: the sum over taps and channels. Slow; the reference for the others."""
    groups, (k, c) = window.groups, w_codes.shape[:2]
    w = w_codes.to(torch.int64).view(groups, k // groups, c, *window.kernel)
    total: Tensor | None = None
    for r, s, view in _taps(x.to(torch.int64), window):
        n, _, rows, columns = view.shape
        grouped = view.reshape(n, groups, c, rows, columns)
        for i in range(c):
            part = grouped[:, :, i, None] * w[None, :, :, i, r, s, None, None]
            total = part if total is None else total + part
    assert total is not None
    return total.reshape(total.shape[0], k, *total.shape[3:])


def _convolve_gathered(x: Tensor, w_codes: Tensor, window: Window) -> Tensor:
    """Taps gathered into columns, then one float64 matrix product per group; depthwise: a sum over taps."""
    groups, (k, c) = window.groups, w_codes.shape[:2]
    w = w_codes.to(torch.float64)
    if c == 1 and k == groups:
        parts = (view.to(torch.float64) * w[:, 0, r, s].view(1, -1, 1, 1) for r, s, view in _taps(x, window))
        return sum(parts)  # type: ignore[return-value]
    gathered = torch.stack([view.to(torch.float64) for _, _, view in _taps(x, window)], 2)
    n, _, taps, rows, columns = gathered.shape
    gathered = gathered.reshape(n, groups, c * taps, rows * columns)
    return (w.reshape(groups, k // groups, c * taps) @ gathered).reshape(n, k, rows, columns)


def multiply_matrices(a: Tensor, b: Tensor, bound: int) -> Tensor:
    """a @ b of integers, exact; `bound` limits every partial sum. int32 or int64."""
    result = torch.int32 if bound < 2**31 else torch.int64
    if bound >= EXACT_FLOAT64:
        return a.to(torch.int64) @ b.to(torch.int64)
    container = torch.float32 if bound < EXACT_FLOAT32 and not a.is_cuda else torch.float64
    return (a.to(container) @ b.to(container)).to(result)


def sum_windows(x: Tensor, window: Window) -> Tensor:
    """Sum of the integers under each window, channel by channel, zeros around: (N, C, H, W) -> (N, C, P, Q) int64."""
    top, bottom, left, right = window.padding
    padded = F.pad(x.to(torch.int64), (left, right, top, bottom))
    total: Tensor | None = None
    for _, _, view in _taps(padded, window):
        total = view.clone() if total is None else total + view
    assert total is not None
    return total


def max_windows(x: Tensor, window: Window, lowest: int) -> Tensor:
    """Largest code under each window; the padding holds `lowest`, which no code goes below. Keeps the dtype."""
    top, bottom, left, right = window.padding
    padded = F.pad(x, (left, right, top, bottom), value=lowest) if window.padded else x
    largest: Tensor | None = None
    for _, _, view in _taps(padded, window):
        largest = view if largest is None else torch.maximum(largest, view)
    assert largest is not None
    return largest


def wrap(x: Tensor, bits: int) -> Tensor:
    """Two's-complement wrap-around at `bits`. Wrapping once at the end equals wrapping after every addition."""
    half = 1 << (bits - 1)
    return ((x.to(torch.int64) + half) & ((1 << bits) - 1)) - half


def saturate(x: Tensor, bits: int) -> Tensor:
    """Clamp to the two's-complement range of `bits`: an adder tree of full width whose result saturates."""
    half = 1 << (bits - 1)
    return x.to(torch.int64).clamp(-half, half - 1)


def convolve_saturating(x: Tensor, w_codes: Tensor, window: Window, pad_code: int, bits: int) -> Tensor:
    """As `convolve`, but the accumulator saturates after every input channel (R*S taps summed in full width)."""
    groups, c = window.groups, w_codes.shape[1]
    n, _, height, width = x.shape
    grouped = x.reshape(n, groups, c, height, width)
    total: Tensor | None = None
    for i in range(c):
        part = convolve(grouped[:, :, i], w_codes[:, i : i + 1], window, pad_code).to(torch.int64)
        total = saturate(part if total is None else total + part, bits)
    assert total is not None
    return total


def convolve_converting(
    x: Tensor, w_codes: Tensor, window: Window, pad_code: int, codes: tuple[int, int], bits: int, rows: int
) -> Tensor:
    """As `convolve`, in an in-memory array of `rows` rows whose analogue-to-digital converter has `bits`.

    Every column sums at most `rows` products: as many whole input channels as fit, or a part of one channel's taps
    where not even one does. A sum that can need b bits (`accumulator_bounds` over `codes`, the least and largest code;
    the widest column counts) loses its lowest b - bits: round(sum / 2^(b - bits)), half up, clipped to a signed number
    of `bits`, times 2^(b - bits). What was converted is added exactly. With enough bits nothing is lost. int64.
    """
    taps, channels = window.kernel[0] * window.kernel[1], w_codes.shape[1]
    n, _, height, width = x.shape
    grouped = x.reshape(n, window.groups, channels, height, width)
    together = max(1, rows // taps)
    total: Tensor | None = None
    for first in range(0, channels, together):
        part = grouped[:, :, first : first + together].reshape(n, -1, height, width)
        for w in _tap_parts(w_codes[:, first : first + together], rows):
            summed = convolve(part, w, window, pad_code).to(torch.int64)
            low, high = accumulator_bounds(w, *codes)
            drop = max(0, bits_for(int(low.min()), int(high.max())) - bits)
            if drop:
                summed = saturate((summed + (1 << (drop - 1))) >> drop, bits) << drop
            total = summed if total is None else total + summed
    assert total is not None
    return total


def _tap_parts(w_codes: Tensor, rows: int) -> list[Tensor]:
    """The kernel as it is, or as kernels of at most `rows` taps each, zeros elsewhere, which add up to it."""
    flat = w_codes.flatten(1)
    if flat.shape[1] <= rows:
        return [w_codes]
    found = []
    for first in range(0, flat.shape[1], rows):
        part = torch.zeros_like(flat)
        part[:, first : first + rows] = flat[:, first : first + rows]
        found.append(part.view_as(w_codes))
    return found
