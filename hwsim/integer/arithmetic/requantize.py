# pyright: basic
"""From accumulators to codes: exact integer thresholds, and multiplier-and-shift forms that are proven or measured.

The exact semantics: a code is round-half-to-even(clamp((f(u) - beta)/s, n, p)) of the real number u = A_k*a + B_k, with
A_k and B_k the exact rationals behind the float parameters. For each channel that is a step function of the integer a,
so it is a list of integer thresholds (`ChannelSteps`), with no rounding left anywhere. A multiplier-and-shift form is
`proven` when it gives the right code on both sides of every threshold that the accumulator can reach: being monotone,
it is then right everywhere. `fixed_multiplier` builds the usual form of a given width, right or not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hwsim.integer.arithmetic.steps import Steps

Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]
BIAS_UNITS = ("accumulator", "product")
ROUNDINGS = ("half_up", "half_even", "half_away", "floor")
# A table of codes over everything that an integer may hold, all channels together, may have this many entries.
_LARGEST_TABLE = 2**20
# Products of an accumulator and a multiplier stay below this, so that a rounding constant still fits into int64.
_LARGEST_PRODUCT = 2**62


@dataclass(frozen=True)
class ChannelSteps:
    """Step functions of an integer, one per channel (or one for all: K = 1).

    `thresholds` (K, m) ascending int64: a >= thresholds[k, j] means at least j+1 steps passed; `levels` (K, m+1) codes.
    Thresholds beyond `low..high` (the reachable range, per channel) are clipped to it. Where all channels' ranges are
    narrow, the codes of every integer in them are looked up instead of searched (`tabulated`).
    """

    thresholds: Tensor
    levels: Tensor
    low: Tensor
    high: Tensor

    def apply(self, a: Tensor, axis: int) -> Tensor:
        """Codes of the integers a, whose channels lie along `axis`; int64, or the levels' dtype from a table."""
        return self.search(a, axis) if self.tabulated is None else self._look_up(a, axis, *self.tabulated)

    @cached_property
    def tabulated(self) -> tuple[Tensor, int, int] | None:
        """(codes of first..last channel after channel, first, last): the steps searched for every integer in reach.

        None where that is more than a table may hold. One integer beyond the range on both sides stands for all there.
        """
        rows, first, last = self.thresholds.shape[0], int(self.low.min()) - 1, int(self.high.max()) + 1
        if rows * (last - first + 1) > _LARGEST_TABLE or max(-first, last) >= 2**30:
            return None
        every = torch.arange(first, last + 1, device=self.levels.device).expand(rows, -1)
        codes = self.search(every, 0)
        narrow = codes.numel() > 0 and int(codes.min()) >= 0 and int(codes.max()) < 256
        return codes.to(torch.uint8 if narrow else torch.int32).reshape(-1), first, last

    def _look_up(self, a: Tensor, axis: int, codes: Tensor, first: int, last: int) -> Tensor:
        rows = self.thresholds.shape[0]
        starts = torch.arange(rows, dtype=torch.int32, device=a.device) * (last - first + 1) - first
        signed = a if a.dtype == torch.int64 else a.to(torch.int32)
        place = signed.clamp(first, last).to(torch.int32) + along([starts], a.ndim, axis)[0]
        return codes.index_select(0, place.reshape(-1)).view(place.shape)

    def search(self, a: Tensor, axis: int) -> Tensor:
        """`apply` without a table, int64."""
        rows = self.thresholds.shape[0]
        if rows == 1:
            return self.levels[0][torch.searchsorted(self.thresholds[0], a.to(torch.int64).contiguous(), right=True)]
        moved = a.movedim(axis, 0)
        flat = moved.reshape(rows, -1).to(torch.int64).contiguous()
        codes = torch.gather(self.levels, 1, torch.searchsorted(self.thresholds, flat, right=True))
        return codes.view(moved.shape).movedim(0, axis)

    def to(self, device: torch.device) -> ChannelSteps:
        """The same on another device."""
        return ChannelSteps(*(t.to(device) for t in (self.thresholds, self.levels, self.low, self.high)))


def channel_steps(
    slopes: Sequence[Fraction], intercepts: Sequence[Fraction], steps: Sequence[Steps], low: Sequence[int],
    high: Sequence[int],
) -> ChannelSteps:  # fmt: skip
    """The step functions a -> steps_k(slopes_k * a + intercepts_k) for a in low_k..high_k.

    All sequences have one entry per channel; `steps` may have one for all.
    """
    lows, highs = (np.array([int(v) for v in bound], dtype=np.int64) for bound in (low, high))
    if len(steps) == 1:
        thresholds, levels = _same_steps(list(slopes), list(intercepts), steps[0], lows, highs)
    else:
        parts = [
            _same_steps([slopes[k]], [intercepts[k]], steps[k], lows[k : k + 1], highs[k : k + 1])
            for k in range(len(slopes))
        ]
        most = max(t.shape[1] for t, _ in parts)
        thresholds, levels = (np.empty((len(parts), n), dtype=np.int64) for n in (most, most + 1))
        for k, (t, c) in enumerate(parts):
            thresholds[k], levels[k] = highs[k] + 1, c[0, -1]
            thresholds[k, : t.shape[1]], levels[k, : c.shape[1]] = t[0], c[0]
    return ChannelSteps(*(torch.from_numpy(np.ascontiguousarray(x)) for x in (thresholds, levels, lows, highs)))


def _same_steps(
    slopes: Sequence[Fraction], intercepts: Sequence[Fraction], steps: Steps, low: Integers, high: Integers
) -> tuple[Integers, Integers]:
    """(thresholds, levels) of channels that share their steps of u.

    u >= t (closed) is a >= ceil(x) with x = (t - intercept)/slope; u > t is a >= floor(x) + 1. A falling channel is
    read backwards: u >= t is a <= floor(x), so its complement starts at floor(x) + 1; that of u > t at ceil(x).
    """
    count = len(steps.thresholds)
    closed, codes = np.array(steps.closed, dtype=bool), np.array(steps.codes, dtype=np.int64)
    flat = np.array([s == 0 for s in slopes])
    rising = np.array([s > 0 for s in slopes])
    up = closed[None, :] == rising[:, None]
    at = _first_integers(slopes, intercepts, steps.thresholds, up, low, high)
    order = np.where(rising[:, None], np.arange(count)[None], np.arange(count)[::-1][None])
    at = np.take_along_axis(at, order, 1)
    all_levels = np.where(rising[:, None], codes[None], codes[::-1][None])
    for k in (int(v) for v in np.nonzero(flat)[0]):
        at[k], all_levels[k] = low[k], steps(intercepts[k])
    inside = np.nonzero((at > low[:, None]) & (at <= high[:, None]))[1]
    first, last = (int(inside.min()), int(inside.max()) + 1) if len(inside) else (0, 0)
    if not len(inside):
        passed = (at <= low[:, None]).sum(1)
        return at[:, :0], np.take_along_axis(all_levels, passed[:, None], 1)
    kept = np.clip(at[:, first:last], low[:, None], high[:, None] + 1)
    levels = all_levels[:, first : last + 1].copy()
    # A channel that has not passed everything before `first` never gets further: it stays where it is.
    before = (at[:, :first] <= low[:, None]).sum(1)
    levels[:, 0] = np.take_along_axis(all_levels, before[:, None], 1)[:, 0]
    # One that passes columns beyond `last` at its lowest value has passed all: it is at its end from the start.
    passed = (at <= low[:, None]).sum(1)
    beyond = passed > last
    levels[beyond, -1] = np.take_along_axis(all_levels, passed[:, None], 1)[beyond, 0]
    return kept, levels


def _first_integers(
    slopes: Sequence[Fraction], intercepts: Sequence[Fraction], thresholds: Sequence[Fraction], up: Booleans,
    low: Integers, high: Integers,
) -> Integers:  # fmt: skip
    """ceil(x) where `up`, else floor(x) + 1, of x = (t - b)/a: float64, and rationals where it cannot tell."""
    a = np.array([float(s) if s else 1.0 for s in slopes])[:, None]
    b, t = np.array([float(v) for v in intercepts])[:, None], np.array([float(v) for v in thresholds])[None, :]
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        x = np.nan_to_num(np.clip((t - b) / a, -(2.0**61), 2.0**61))
        doubt = 2.0**-49 * (np.abs(t) + np.abs(b)) / np.abs(a) + 2.0**-49 * np.abs(x) + 2.0**-200
        doubt = np.where(np.abs(a) < 2.0**-900, np.inf, doubt)
    found = np.where(up, np.ceil(x), np.floor(x) + 1).astype(np.int64)
    reachable = (x >= low[:, None] - 2 - doubt) & (x <= high[:, None] + 2 + doubt)
    for k, j in zip(*np.nonzero((np.abs(x - np.round(x)) <= doubt) & reachable), strict=True):
        if slopes[k]:
            exact = (thresholds[j] - intercepts[k]) / slopes[k]
            found[k, j] = max(-(2**61), min(2**61, math.ceil(exact) if up[k, j] else math.floor(exact) + 1))
    return found


@dataclass(frozen=True)
class Line:
    """code = clamp(round(slope_k * a + intercept_k), low_k, high_k): a requantization without smooth functions."""

    slopes: tuple[Fraction, ...]
    intercepts: tuple[Fraction, ...]
    low: tuple[int, ...]
    high: tuple[int, ...]


@dataclass(frozen=True)
class AffineShift:
    """code = clamp((a*M + N) >> F, low, high), per channel (or one row for all); int64 throughout."""

    multiplier: Tensor
    shift: Tensor
    offset: Tensor
    low: Tensor
    high: Tensor

    def apply(self, a: Tensor, axis: int) -> Tensor:
        """Codes of the integers a, whose channels lie along `axis`; int64."""
        m, shift, offset, low, high = along(
            (self.multiplier, self.shift, self.offset, self.low, self.high), a.ndim, axis
        )
        codes = (a.to(torch.int64) * m).add_(offset).bitwise_right_shift_(shift)
        return torch.minimum(torch.maximum(codes, low, out=codes), high, out=codes)

    def to(self, device: torch.device) -> AffineShift:
        """The same on another device."""
        tensors = (self.multiplier, self.shift, self.offset, self.low, self.high)
        return AffineShift(*(t.to(device) for t in tensors))

    @property
    def multiplier_bits(self) -> int:
        """Width of the widest signed multiplier."""
        return int(self.multiplier.abs().max()).bit_length() + 1


@dataclass(frozen=True)
class FixedPoint:
    """clamp(round(((a + bias) * M + product_bias) / 2^shift) + after, low, high): hardware forms, right or not.

    M is a signed integer of a given width, `rounding` one of ROUNDINGS. The folded bias is an integer in units of the
    accumulator (`bias`, the usual form) or of the product (`product_bias`), never both; `after` is 0 except for
    channels whose slope is 0.
    """

    multiplier: Tensor
    shift: Tensor
    bias: Tensor
    product_bias: Tensor
    after: Tensor
    low: Tensor
    high: Tensor
    rounding: str = "half_up"

    def apply(self, a: Tensor, axis: int) -> Tensor:
        """Codes of the integers a, whose channels lie along `axis`; int64."""
        m, shift, bias, offset, after, low, high = along(
            (self.multiplier, self.shift, self.bias, self.product_bias, self.after, self.low, self.high), a.ndim, axis
        )
        codes = shift_right((a.to(torch.int64) + bias) * m + offset, shift, self.rounding) + after
        return torch.minimum(torch.maximum(codes, low), high)

    def to(self, device: torch.device) -> FixedPoint:
        """The same on another device."""
        tensors = (self.multiplier, self.shift, self.bias, self.product_bias, self.after, self.low, self.high)
        return FixedPoint(*(t.to(device) for t in tensors), rounding=self.rounding)


def along(tensors: Sequence[Tensor], ndim: int, axis: int) -> list[Tensor]:
    """Per-channel rows shaped to broadcast along `axis` of an ndim tensor; single entries as they are."""
    shape = [1] * ndim
    shape[axis] = -1
    return [t.view(shape) if t.numel() > 1 else t.view([1] * ndim) for t in tensors]


def shift_right(x: Tensor, shift: Tensor, rounding: str) -> Tensor:
    """x / 2^shift rounded as named; a negative shift multiplies.

    >>> shift_right(torch.tensor([-3, -1, 1, 3, 5]), torch.tensor(1), "half_even").tolist()
    [-2, 0, 0, 2, 2]
    >>> shift_right(torch.tensor([-3, -1, 1, 3]), torch.tensor(1), "half_away").tolist()
    [-2, -1, 1, 2]
    """
    right, left = shift.clamp_min(0), (-shift).clamp_min(0)
    x = x << left
    half = torch.where(right > 0, torch.ones_like(right) << (right - 1).clamp_min(0), 0)
    if rounding == "floor":
        return x >> right
    if rounding == "half_up":
        return (x + half) >> right
    if rounding == "half_away":
        return torch.where(x >= 0, (x + half) >> right, -((half - x) >> right))
    if rounding == "half_even":
        odd = (x >> right) & 1
        return torch.where(right > 0, (x + half - 1 + odd) >> right, x)
    raise ValueError(f"rounding: expected one of {', '.join(ROUNDINGS)}, got {rounding!r}")


def column(values: Sequence[int]) -> Tensor:
    """A row of int64."""
    return torch.tensor(list(values), dtype=torch.int64)


def exponent(x: Fraction) -> int:
    """e with 2^(e-1) <= |x| < 2^e; x must not be 0.

    >>> exponent(Fraction(1, 2)), exponent(Fraction(1)), exponent(Fraction(3, 2))
    (0, 1, 1)
    """
    e = abs(x.numerator).bit_length() - x.denominator.bit_length() + 1
    return e if abs(x) >= Fraction(2) ** (e - 1) else e - 1


def mantissa(x: Fraction, width: int) -> tuple[int, int]:
    """(m, shift): x is about m / 2^shift with the largest m that fits a signed integer of `width` bits.

    >>> mantissa(Fraction(1, 3), 8), mantissa(Fraction(255, 256), 8), mantissa(Fraction(0), 8)
    ((85, 8), (64, 6), (0, 61))
    """
    if x == 0:
        return 0, 61
    shift = width - 1 - exponent(x)
    m = round(x * Fraction(2) ** shift)
    if abs(m) == 2 ** (width - 1):  # rounded up to the next power of two: one bit too many
        return m // 2, shift - 1
    return m, shift


def proven_multiplier(line: Line, exact: ChannelSteps, width: int = 47) -> AffineShift | None:
    """(a*M + N) >> F with signed M of up to `width` bits, equal to `exact` for every reachable a; None if none is.

    Checked on both sides of every threshold of every channel: both functions are monotone in a and agree there, hence
    everywhere between `low` and `high`.
    """
    multipliers, shifts, offsets = [], [], []
    for k, (slope, intercept) in enumerate(zip(line.slopes, line.intercepts, strict=True)):
        reach = max(abs(int(exact.low[k])), abs(int(exact.high[k])), 1)
        span = math.ceil(abs(slope) * reach + abs(intercept)) + 2
        shift = max(0, min(60 - span.bit_length(), mantissa(slope, width)[1], 61))
        multipliers.append(round(slope * 2**shift))
        offsets.append(round((intercept + Fraction(1, 2)) * 2**shift))
        shifts.append(shift)
        if max(abs(multipliers[-1]) * reach, abs(offsets[-1])) >= _LARGEST_PRODUCT:
            return None
    form = AffineShift(column(multipliers), column(shifts), column(offsets), column(line.low), column(line.high))
    return form if agrees(form, exact) else None


def agrees(form: AffineShift | FixedPoint, exact: ChannelSteps) -> bool:
    """Whether a monotone form gives the exact codes at both ends and on both sides of every threshold."""
    low, high = exact.low[:, None], exact.high[:, None]
    probes = torch.cat([low, high, exact.thresholds, exact.thresholds - 1], 1)
    probes = torch.minimum(torch.maximum(probes, low), high)
    return bool((form.apply(probes, 0) == exact.apply(probes, 0)).all())


def narrowest_multiplier(line: Line, exact: ChannelSteps, widest: int = 47) -> int | None:
    """Fewest bits of a signed multiplier whose (a*M + N) >> F is exact on all that the accumulator can reach."""
    for width in range(2, widest + 1):
        if proven_multiplier(line, exact, width) is not None:
            return width
    return None


def fixed_multiplier(
    line: Line, width: int, rounding: str = "half_up", *, bias_unit: str = "accumulator", bias_bits: int = 32
) -> FixedPoint:
    """The hardware form of a given multiplier width: M in 2^(width-2) .. 2^(width-1).

    `bias_unit`: the bias is rounded to an integer of the accumulator's unit (coarse where few bits make few
    accumulator steps per code) and saturates at `bias_bits`, or to one of the product's unit, 2^-shift of a code.
    Width 2 is a power of two: a shift alone.
    """
    if rounding not in ROUNDINGS:
        raise ValueError(f"rounding: expected one of {', '.join(ROUNDINGS)}, got {rounding!r}")
    if bias_unit not in BIAS_UNITS:
        raise ValueError(f"bias_unit: expected one of {', '.join(BIAS_UNITS)}, got {bias_unit!r}")
    if not 2 <= width <= 32:
        raise ValueError(f"multiplier width: expected 2 to 32 bits, got {width}")
    most = 2 ** (bias_bits - 1) - 1
    rows: list[tuple[int, int, int, int, int]] = []
    for slope, intercept in zip(line.slopes, line.intercepts, strict=True):
        if slope == 0:
            rows.append((0, 0, 0, 0, round(intercept)))
            continue
        multiplier, shift = mantissa(slope, width)
        if width == 2:
            multiplier, shift = (1 if slope > 0 else -1), -round(math.log2(abs(slope)))
        if shift > 61:  # the product is below one half of a code anyway
            multiplier, shift = multiplier >> (shift - 61), 61
        if bias_unit == "accumulator":
            rows.append((multiplier, shift, max(-most, min(most, round(intercept / slope))), 0, 0))
        else:
            limit = 2**60
            rows.append((multiplier, shift, 0, max(-limit, min(limit, round(intercept * Fraction(2) ** shift))), 0))
    m, shifts, biases, products, afters = (column(values) for values in zip(*rows, strict=True))
    return FixedPoint(m, shifts, biases, products, afters, column(line.low), column(line.high), rounding)
