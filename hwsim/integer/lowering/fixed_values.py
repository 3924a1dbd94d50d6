# pyright: basic
"""Real numbers without a quantizer of their own (what an average pool reads), as int64 with a proven error.

u is a fixed-point sum with `shift` fractional bits. Clamps act on it directly; a smooth function is a table of
polynomials of degree 2 on intervals of 2^-8, evaluated in integers. `Range.error` bounds the distance between the
integer and the real number, in units of the last bit, and travels on to the quantizer behind.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import numpy as np
import torch
from torch import Tensor

from hwsim.integer.arithmetic.forms import Affine, Border, Form, at, plus
from hwsim.integer.arithmetic.geometry import spread
from hwsim.integer.arithmetic.requantize import along, column
from hwsim.integer.arithmetic.rules import Range, check_width, product, product_range
from hwsim.integer.arithmetic.steps import Clamp, Leaky, Smooth

_INTERVALS_PER_UNIT = 256
# Beyond this the smooth functions equal 0, 1 or u to within 2^-40.
_EDGE = 32
FRACTION_BITS = 32
# Functions between two limits, and the largest slope of the smooth ones (that of SiLU and GELU is below 1.13).
LIMITS = {"sigmoid": (0, 1), "tanh": (-1, 1)}
_STEEPEST = {"sigmoid": Fraction(1, 4), "tanh": Fraction(1)}


@dataclass(frozen=True)
class FixedValue:
    """f(u) * 2^shift as int64, channels along the form's axis; the sum u has `extra` fractional bits more."""

    form: Form
    multipliers: tuple[Tensor, ...]
    offset: Tensor
    shift: int
    extra: int

    def apply(self, sources: Mapping[str, Tensor], tally: Counter[str]) -> Tensor:
        values = [product(sources, term.nodes) for term in self.form.terms]
        ndim, axis = max(v.ndim for v in values), self.form.axis
        total = self.offset if self.offset.ndim > 1 else along([self.offset], ndim, axis)[0]
        for value, m in zip(values, self.multipliers, strict=True):
            total = total + value * along([m], ndim, axis)[0]
        if self.extra:
            total = (total + (1 << (self.extra - 1))) >> self.extra
        for function in self.form.functions:
            total = _apply(function, total, self.shift, axis)
        return total


def fixed_value(
    form: Form,
    ranges: Mapping[str, Range],
    *,
    naive: bool = False,
    bits: int = FRACTION_BITS,
    limit: int | None = None,
) -> tuple[FixedValue, Range]:
    """The rule for f(u) without a quantizer behind it, and what its integers may hold: `bits` fractional ones at most.

    A border becomes a map of offsets; `naive` puts the constant bias of Eq. 5 in its place. `limit`: a bound of
    the magnitude that the caller knows and the sum of the parts does not show.
    """
    border = form.border
    reaches = [max(map(abs, product_range(ranges, t.nodes))) for t in form.terms]
    span = span_of(form, reaches)
    room = max(0, 60 - math.ceil(span + 1).bit_length())
    shift = max(0, min(bits, room))
    scale, fine = 2**shift, 2**room
    multipliers = tuple(column([round(c * fine) for c in t.slopes]) for t in form.terms)
    offset = column([round(b * fine) for b in form.intercepts])
    if border is not None:
        offset = _offset_map(form, border, fine, naive)
    # What rounding took from each coefficient, once per count of what it multiplies, and half a unit for the shift.
    lost = [max(abs(round(c * fine) - c * fine) for c in t.slopes) * reach
            for t, reach in zip(form.terms, reaches, strict=True)]  # fmt: skip
    error = 1 + math.ceil((sum(lost, Fraction(0)) + Fraction(1, 2)) * scale / fine)
    for t in form.terms:
        for node in t.nodes:
            others = math.prod(ranges[n].reach for n in t.nodes if n != node)
            error += math.ceil(ranges[node].error * others * max(map(abs, t.slopes)) * scale)
    check_width([*reaches, error])
    low, high = -math.ceil(span * scale) - error, math.ceil(span * scale) + error
    for function in form.functions:
        low, high, error = _range_after(function, low, high, error, shift)
    if limit is not None:
        low, high = max(low, -limit * scale - error), min(high, limit * scale + error)
    return FixedValue(form, multipliers, offset, shift, room - shift), Range((low,), (high,), error)


def span_of(form: Form, reaches: Sequence[int]) -> Fraction:
    """Largest magnitude of a form's sum; `reaches`: of the monomial of each term."""
    border, beside = form.border, Fraction(0)
    if border is not None:
        largest = border.table.abs().amax((0, 1))
        beside = max(abs(at(border.slopes, k)) * max(int(v), abs(int(border.full[k]))) for k, v in enumerate(largest))
    return max(
        sum((abs(at(t.slopes, k)) * reach for t, reach in zip(form.terms, reaches, strict=True)), Fraction(0))
        + abs(at(form.intercepts, k))
        + beside
        for k in range(form.rows)
    )


def reach_of(form: Form, ranges: Mapping[str, Range]) -> int:
    """A bound, as a whole number, of the magnitude of a form's value; functions but sigmoid and tanh only shrink it."""
    if form.functions and getattr(form.functions[-1], "name", "") in LIMITS:
        return 1
    if any(isinstance(f, Affine) for f in form.functions):
        raise ValueError("an affine function behind another: its reach is not known beforehand")
    return math.ceil(span_of(form, [max(map(abs, product_range(ranges, t.nodes))) for t in form.terms]))


def _offset_map(form: Form, border: Border, scale: int, naive: bool) -> Tensor:
    """round((intercept + what the border class adds) * scale): (1, K, P, Q)."""
    if naive:
        return column([round(b * scale) for b in plus(form.intercepts, border.naive())]).view(1, -1, 1, 1)
    rows = [
        [
            column([round(b * scale) for b in plus(form.intercepts, border.intercepts(row, c))])
            for c in range(len(border.columns))
        ]
        for row in range(len(border.rows))
    ]
    return spread(torch.stack([torch.stack(row) for row in rows]), border.rows, border.columns)[None]


def _apply(function: object, total: Tensor, shift: int, axis: int) -> Tensor:
    scale = 2**shift
    if isinstance(function, Clamp):
        low = None if function.low is None else round(function.low * scale)
        high = None if function.high is None else round(function.high * scale)
        return total if low is None and high is None else total.clamp(low, high)
    if isinstance(function, Leaky):
        return torch.where(total < 0, _scaled(total, column([round(function.slope * 2**24)])), total)
    if isinstance(function, Affine):
        m, b = along(
            [column([round(c * 2**24) for c in function.slopes]),
             column([round(c * scale) for c in function.intercepts])], total.ndim, axis
        )  # fmt: skip
        return _scaled(total, m) + b
    assert isinstance(function, Smooth)
    return _smooth(function, total, shift)


def _scaled(total: Tensor, m: Tensor) -> Tensor:
    """total * m / 2^24 without leaving int64: high and low parts apart."""
    return (total >> 24) * m + (((total & (2**24 - 1)) * m + 2**23) >> 24)


def _range_after(function: object, low: int, high: int, error: int, shift: int) -> tuple[int, int, int]:
    scale, reach = 2**shift, max(abs(low), abs(high))
    if isinstance(function, Clamp):
        low = low if function.low is None else max(low, round(function.low * scale))
        high = high if function.high is None else min(max(high, low), round(function.high * scale))
        return low, high, error + 1
    if isinstance(function, Leaky):
        return low, high, math.ceil(error * max(1, function.slope)) + 2 + math.ceil(reach / 2**25)
    if isinstance(function, Affine):
        slope = max(map(abs, function.slopes))
        reach = math.ceil(slope * reach + max(map(abs, function.intercepts)) * scale) + 2
        return -reach, reach, math.ceil(error * slope) + 3 + math.ceil(reach / 2**25)
    assert isinstance(function, Smooth)
    error = math.ceil(_STEEPEST.get(function.name, Fraction(2)) * error) + smooth_table(function.name, shift)[1]
    if function.name in LIMITS:
        least, most = LIMITS[function.name]
        return least * scale - error, most * scale + error, error
    return -scale, max(high, scale) + 1, error


def _smooth(function: Smooth, total: Tensor, shift: int) -> Tensor:
    coefficients, _ = smooth_table(function.name, shift)
    coefficients = coefficients.to(total.device)
    edge, fraction = _EDGE << shift, shift - 8
    inside = total.clamp(-edge, edge - 1) + edge
    index, d = inside >> fraction, inside & ((1 << fraction) - 1)
    c0, c1, c2 = (c.index_select(0, index.reshape(-1)).view(index.shape) for c in coefficients)
    half = 1 << (fraction - 1)
    value = c0 + (((c1 + ((c2 * d + half) >> fraction)) * d + half) >> fraction)
    beyond = total if function.name not in ("sigmoid", "tanh") else torch.full_like(total, 1 << shift)
    before = torch.full_like(total, -(1 << shift) if function.name == "tanh" else 0)
    return torch.where(total >= edge, beyond, torch.where(total < -edge, before, value))


@cache
def smooth_table(name: str, shift: int) -> tuple[Tensor, int]:
    """(3, intervals) int64 coefficients in powers of the position within an interval, and a bound of the error.

    The error is measured on 64 points of every interval and doubled; rounding of the coefficients is included.
    """
    if shift < 10:
        raise ValueError(f"{name}: its argument needs more than {shift} fractional bits; its range is too wide")
    function = Smooth(name)
    h = 1 / _INTERVALS_PER_UNIT
    starts = np.arange(-_EDGE * _INTERVALS_PER_UNIT, _EDGE * _INTERVALS_PER_UNIT).astype(np.float64) * h
    y0, y1, y2 = (function(np.asarray(starts + d, dtype=np.float64)) for d in (0, h / 2, h))
    scale = 2.0**shift
    c = np.stack([y0, -3 * y0 + 4 * y1 - y2, 2 * y0 - 4 * y1 + 2 * y2]) * scale
    c = np.round(c)
    worst = 0.0
    for t in np.linspace(0, 1, 64):
        worst = max(worst, float(np.abs(c[0] + c[1] * t + c[2] * t * t - function(starts + h * t) * scale).max()))
    return torch.tensor(c.astype(np.int64)), 2 * math.ceil(worst) + 4
