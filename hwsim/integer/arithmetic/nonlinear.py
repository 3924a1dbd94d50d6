# pyright: basic
"""Softmax, LayerNorm and RMSNorm in integers, by one of two stated methods.

`proven`: words wide enough that the distance from the real operator is bounded beforehand, for every input; exp by
2^-z and polynomials of degree 2, norms by one exact sum of squares and a floor square root. `i-bert`: the arithmetic of
Kim et al. 2021 (arXiv 2101.01321, Algorithms 2 to 4) in words of about 30 bits; nothing is claimed, codes are compared.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import torch
from torch import Tensor

EXP_BITS = 30  # fractional bits of exponentials and probabilities
_INTERVALS = 8  # bits of the position within an octave that choose a polynomial
_EXP_ERROR = 8  # of one exponential, in units of 2^-30: `softmax_error`
_LONGEST_SOFTMAX = 2**20  # exponentials of 31 bits in a sum of 52
LARGEST_NORM = 2**13  # n x - sum(x) of words below 2^48 stays below 2^62
LARGEST_WORD = 2**48
# I-BERT Eq. 13: exp(p) = a (p + b)^2 + c on -ln 2 .. 0.
_IBERT = (0.3585, 1.353, 0.344)
_IBERT_QUOTIENT = 16  # fractional bits of its probabilities
_IBERT_NORM = 12  # and of its normalized values


@dataclass(frozen=True)
class Words:
    """Fractional bits of the operands of softmax and of norms, and the largest magnitude of a norm's operand."""

    softmax: int
    norm: int
    largest: int


WORDS = {"proven": Words(26, 40, LARGEST_WORD), "i-bert": Words(14, 30, 2**22)}


# ---- softmax ---------------------------------------------------------------------------------------------------------


def softmax(u: Tensor, shift: int, axis: int, method: str, hidden: Tensor | None = None) -> Tensor:
    """Probabilities of u * 2^-shift along an axis, int64 with `softmax_bits(method)` fractional bits.

    Entries that are `hidden` have probability 0; a row of them alone, too (the real operator has no number there).
    """
    if hidden is not None:
        u = u.masked_fill(hidden, torch.iinfo(torch.int64).min // 2)
    below = u.amax(axis, keepdim=True) - u
    exponentials = (exp_proven if method == "proven" else exp_ibert)(below, shift)
    if hidden is not None:
        exponentials = exponentials.masked_fill(hidden, 0)
    total = exponentials.sum(axis, keepdim=True).clamp_min(1)
    return torch.div(exponentials << softmax_bits(method), total, rounding_mode="floor")


def softmax_bits(method: str) -> int:
    """Fractional bits of the probabilities."""
    return EXP_BITS if method == "proven" else _IBERT_QUOTIENT


def exp_proven(below: Tensor, shift: int) -> Tensor:
    """exp(-below * 2^-shift) in units of 2^-30, for below >= 0 and shift <= 26: 2^-z times a polynomial of the rest.

    Behind 32 the exponential is below half a unit.
    """
    near = below.clamp_max(32 << shift)
    octaves = (near * round(2**EXP_BITS / math.log(2))) >> shift  # below * log2(e), 30 fractional bits
    whole, rest = octaves >> EXP_BITS, octaves & (2**EXP_BITS - 1)
    fraction = EXP_BITS - _INTERVALS
    index, d = rest >> fraction, rest & (2**fraction - 1)
    c0, c1, c2 = (c.to(below.device)[index] for c in _octave())
    value = c0 + ((c1 + ((c2 * d) >> fraction)) * d >> fraction)
    return value >> whole


@cache
def _octave() -> tuple[Tensor, Tensor, Tensor]:
    """Coefficients of the parabola through both ends and the middle of each interval of 2^-f, f in 0..1."""
    steps = torch.arange(2**_INTERVALS, dtype=torch.float64) / 2**_INTERVALS
    y0, y1, y2 = (2 ** -(steps + part / 2**_INTERVALS) for part in (0, 0.5, 1))
    rows = (y0, -3 * y0 + 4 * y1 - y2, 2 * y0 - 4 * y1 + 2 * y2)
    first, second, third = ((row * 2**EXP_BITS).round().to(torch.int64) for row in rows)
    return first, second, third


def exp_ibert(below: Tensor, shift: int) -> Tensor:
    """I-BERT's i-exp, Algorithm 2: ((p + b)^2 + c/a) >> z with p = -below + z ln 2, in units of a * 2^(-2 shift)."""
    a, b, c = _IBERT
    scale = 2**shift
    ln2 = math.floor(math.log(2) * scale)
    whole = torch.div(below, ln2, rounding_mode="floor")
    p = whole * ln2 - below
    value = (p + math.floor(b * scale)) ** 2 + math.floor(c / a * scale * scale)
    return value >> whole.clamp_max(62)


def softmax_error(error: int, shift: int, count: int, method: str) -> int:
    """How far a probability may be from the real one, in its own units; `error`: of the operand, in its units.

    An exponential is off by at most 8 units of 2^-30: 0.2 for the parabola (ln2^3/6 * h^3 * sqrt(3)/36), 1.5 for its
    coefficients, 3 for three floors, 2 for the product with log2(e). Their quotient adds 8 (1 + count) and 1; a row of
    the softmax's Jacobian is at most 1/2. `i-bert` claims nothing.
    """
    if method != "proven":
        return 0
    return _EXP_ERROR * (1 + count) + 1 + math.ceil(Fraction(error, 2) * 2 ** (EXP_BITS - shift))


def softmax_fits(count: int) -> bool:
    """Whether so many exponentials can be added up."""
    return count <= _LONGEST_SOFTMAX


# ---- norms -----------------------------------------------------------------------------------------------------------


def normalize(x: Tensor, shift: int, eps: Fraction, centred: bool, method: str) -> Tensor:
    """(x - mean) / sqrt(variance + eps) over the last axis, or x / sqrt(mean of squares + eps); x in 2^-shift.

    int64 with `norm_bits(n, method)` fractional bits.
    """
    return (normalize_proven if method == "proven" else normalize_ibert)(x.to(torch.int64), shift, eps, centred)


def norm_bits(count: int, method: str) -> int:
    """Fractional bits of normalized values, which are at most sqrt(count): quotients stay below 2^62."""
    return min(28, 29 - math.ceil(math.log2(count) / 2)) if method == "proven" else _IBERT_NORM


def normalize_proven(x: Tensor, shift: int, eps: Fraction, centred: bool) -> Tensor:
    """y = (n x - S) / sqrt(n sum(x^2) - S^2 + n^2 eps), S = sum(x), or 0 without a mean: one division, one root.

    The radicand is exact, in as many words as it takes; its root is rounded down to 32 bits.
    """
    count = x.shape[-1]
    total = x.sum(-1, keepdim=True) if centred else torch.zeros_like(x[..., :1])
    high, low = x >> 24, x & (2**24 - 1)
    parts = (high * high, high * low, low * low)
    squares = zip(*(part.sum(-1).flatten().tolist() for part in parts), strict=True)
    room = round(count * count * eps * 4**shift)
    roots, shifts = [], []
    for (hh, hl, ll), s in zip(squares, total.flatten().tolist(), strict=True):
        radicand = max(1, count * ((hh << 48) + (hl << 25) + ll) - s * s + room)
        k = (radicand.bit_length() + 1) // 2 - 32
        roots.append(math.isqrt(radicand >> 2 * k if k >= 0 else radicand << -2 * k))
        shifts.append(k)
    root, k = (torch.tensor(v, dtype=torch.int64, device=x.device).view(total.shape) for v in (roots, shifts))
    numerator = count * x - total
    scaled = torch.where(k >= 0, numerator >> k.clamp_min(0), numerator << (-k).clamp_min(0))
    return torch.div(scaled << norm_bits(count, "proven"), root, rounding_mode="floor")


def normalize_ibert(x: Tensor, shift: int, eps: Fraction, centred: bool) -> Tensor:
    """I-BERT's LayerNorm: a rounded mean, the floor of a root (where its Algorithm 4 ends), a quotient."""
    count = x.shape[-1]
    if centred:
        x = x - torch.div(2 * x.sum(-1, keepdim=True) + count, 2 * count, rounding_mode="floor")
    variance = torch.div((x * x).sum(-1, keepdim=True), count, rounding_mode="floor") + round(eps * 4**shift)
    roots = [max(1, math.isqrt(v)) for v in variance.flatten().tolist()]
    root = torch.tensor(roots, dtype=torch.int64, device=x.device).view(variance.shape)
    return torch.div(x << _IBERT_NORM, root, rounding_mode="floor")


def norm_error(error: int, shift: int, count: int, eps: Fraction, method: str) -> int:
    """How far a normalized value may be from the real one, in its own units; `error`: of the operand, in its units.

    Operands that are off by e move it by at most e (2 + sqrt(n)) / sqrt(eps), as |y| <= sqrt(n) and the Jacobian is
    (1 - 1/n - y y^T / n) / sqrt(variance + eps). Roundings of root, numerator, quotient and eps add 4 units.
    """
    if method != "proven":
        return 0
    moved = error * (2 + math.sqrt(count)) / math.sqrt(eps) * 2.0 ** (norm_bits(count, method) - shift)
    return 4 + math.ceil(moved)
