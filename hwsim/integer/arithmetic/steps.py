# pyright: basic
"""A quantizer as a step function of a real number, and what becomes of it seen through the functions before it.

`quantizer_steps` gives the exact real thresholds of round-half-to-even(clamp((x - beta)/s, n, p)); `pull_back` moves
them through ReLU, clamps, SiLU, h-swish, sigmoid, GELU, ..., so that the integers in front of them can be compared with
thresholds directly. Thresholds are rationals: exact for piecewise linear functions; for the smooth ones they are the
float64 nearest to the crossing of the float64 function (a crossing of a smooth function at an integer is an accident).
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Steps:
    """codes[j] between thresholds j-1 and j. `closed[j]`: the threshold itself belongs to the codes on its right."""

    thresholds: tuple[Fraction, ...]
    closed: tuple[bool, ...]
    codes: tuple[int, ...]

    def __call__(self, u: Fraction | float) -> int:
        """The code at u."""
        position = bisect.bisect_left(self.thresholds, u)
        if position < len(self.thresholds) and self.thresholds[position] == u and self.closed[position]:
            position += 1
        return self.codes[position]

    def just_below(self, u: Fraction | float) -> int:
        """The limit of the code from the left of u."""
        return self.codes[bisect.bisect_left(self.thresholds, u)]


def quantizer_steps(s: Fraction, beta: Fraction, n: int, p: int) -> Steps:
    """Thresholds s*(c - 1/2) + beta for c in n+1..p; a tie goes to the even code.

    >>> steps = quantizer_steps(Fraction(1, 4), Fraction(0), 0, 3)
    >>> steps(0.125), steps(0.375), steps(0.376), steps(9.0), steps(-9.0)
    (0, 2, 2, 3, 0)
    """
    between = range(n + 1, p + 1)
    return Steps(
        tuple(s * (2 * c - 1) / 2 + beta for c in between), tuple(c % 2 == 0 for c in between), tuple(range(n, p + 1))
    )


def rational_sqrt(x: Fraction, bits: int = 160) -> Fraction:
    """sqrt(x) to `bits` fractional bits below its leading one, rounded down.

    >>> float(rational_sqrt(Fraction(2)))
    1.4142135623730951
    """
    if x == 0:
        return Fraction(0)
    shift = 2 * bits + 2 * max(0, x.denominator.bit_length() - x.numerator.bit_length())
    return Fraction(math.isqrt((x.numerator << shift) // x.denominator), 1 << (shift // 2))


# ---- the functions between an accumulator and a quantizer ----------------------------------------------------------


@dataclass(frozen=True)
class Clamp:
    """min(max(u, low), high): ReLU, ReLU6, h-sigmoid's clip. None: no bound on that side."""

    low: Fraction | None = None
    high: Fraction | None = None

    def __call__(self, u: Floats) -> Floats:
        return np.clip(
            u, None if self.low is None else float(self.low), None if self.high is None else float(self.high)
        )

    def pull_back(self, steps: Steps) -> Steps:
        """Thresholds within the clamp stay; the codes beyond it are never reached."""
        kept = [
            (t, closed, steps.codes[j + 1])
            for j, (t, closed) in enumerate(zip(steps.thresholds, steps.closed, strict=True))
            if (self.low is None or t > self.low or (t == self.low and not closed))
            and (self.high is None or t < self.high or (t == self.high and closed))
        ]
        first = steps.codes[0] if self.low is None else steps(self.low)
        return _steps(kept, first)

    def torch(self, u: Tensor, axis: int) -> Tensor:
        """The same on a tensor."""
        if self.low is None and self.high is None:
            return u
        return u.clamp(None if self.low is None else float(self.low), None if self.high is None else float(self.high))

    @property
    def name(self) -> str:
        """`relu`, or `clamp`."""
        return "relu" if (self.low, self.high) == (0, None) else "clamp"


@dataclass(frozen=True)
class Leaky:
    """u, or slope*u where u < 0; slope > 0."""

    slope: Fraction
    name = "leaky_relu"

    def __call__(self, u: Floats) -> Floats:
        return np.where(u < 0, u * float(self.slope), u)

    def torch(self, u: Tensor, axis: int) -> Tensor:
        """The same on a tensor."""
        return F.leaky_relu(u, float(self.slope))

    def pull_back(self, steps: Steps) -> Steps:
        """Negative thresholds are divided by the slope."""
        moved = tuple(t if t >= 0 else t / self.slope for t in steps.thresholds)
        return Steps(moved, steps.closed, steps.codes)


@dataclass(frozen=True)
class Piece:
    """An interval low..high on which a function rises, falls, or is constant; `limits` are its values at the ends."""

    low: float
    high: float
    limits: tuple[float, float]


@dataclass(frozen=True)
class Smooth:
    """A function without exact rational inverse, by monotone pieces: `name` is a key of `SMOOTH`."""

    name: str

    def __call__(self, u: Floats) -> Floats:
        return SMOOTH[self.name][0](u)

    def torch(self, u: Tensor, axis: int) -> Tensor:
        """The same on a tensor, by torch."""
        return _TORCH[self.name](u)

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """Its monotone pieces, left to right."""
        return SMOOTH[self.name][1]

    def pull_back(self, steps: Steps) -> Steps:
        """One threshold per crossing; a falling piece runs through the codes backwards."""
        found: list[tuple[Fraction, bool, int]] = []
        first: int | None = None
        for piece in self.pieces:
            start, rows = self._piece_steps(piece, steps)
            if first is None:
                first = start
            elif (found[-1][2] if found else first) != start:
                found.append((Fraction(piece.low), True, start))
            found.extend(rows)
        assert first is not None
        return _steps(found, first)

    def _piece_steps(self, piece: Piece, steps: Steps) -> tuple[int, list[tuple[Fraction, bool, int]]]:
        at_low, at_high = piece.limits
        if at_low == at_high:
            return steps(at_low), []
        rising = at_low < at_high
        inside = [j for j, t in enumerate(steps.thresholds) if min(piece.limits) < t < max(piece.limits)]
        start = steps(at_low) if rising else steps.just_below(at_low)
        if not inside:
            return start, []
        crossings = invert(self, piece, np.array([float(steps.thresholds[j]) for j in inside]))
        rows = [
            (Fraction(float(u)), steps.closed[j] == rising, steps.codes[j + 1 if rising else j])
            for j, u in zip(inside, crossings, strict=True)
        ]
        return start, rows if rising else rows[::-1]


ScalarFunction = Clamp | Leaky | Smooth


def _steps(rows: Sequence[tuple[Fraction, bool, int]], first: int) -> Steps:
    return Steps(tuple(r[0] for r in rows), tuple(r[1] for r in rows), (first, *(r[2] for r in rows)))


def invert(function: Smooth, piece: Piece, values: Floats) -> Floats:
    """u on the piece with f(u) = value, by bisection down to neighbouring float64."""
    low = np.full_like(values, max(piece.low, -800.0))
    high = np.full_like(values, 0.0)
    high[:] = piece.high if math.isfinite(piece.high) else np.maximum(np.abs(values) * 2 + 40.0, max(piece.low, 0) + 40)
    rising = piece.limits[0] < piece.limits[1]
    for _ in range(1100):
        middle = low + (high - low) / 2
        if bool(((middle == low) | (middle == high)).all()):
            break
        above = (function(middle) >= values) == rising
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    return high


def sigmoid(u: Floats) -> Floats:
    """1 / (1 + exp(-u)) without overflow."""
    small = np.exp(-np.abs(u))
    return np.where(u >= 0, 1 / (1 + small), small / (1 + small))


def silu(u: Floats) -> Floats:
    """u * sigmoid(u)."""
    return u * sigmoid(u)


def hswish(u: Floats) -> Floats:
    """u * clip(u + 3, 0, 6) / 6."""
    return u * np.clip(u + 3, 0, 6) / 6


_erf = np.vectorize(math.erf, otypes=[np.float64])
_erfc = np.vectorize(math.erfc, otypes=[np.float64])


def gelu(u: Floats) -> Floats:
    """u * Phi(u), the exact form; erfc keeps the digits of the left tail."""
    return np.where(u < 0, u * _erfc(-u / math.sqrt(2)) / 2, u * (1 + _erf(u / math.sqrt(2))) / 2)


def gelu_tanh(u: Floats) -> Floats:
    """The tanh approximation of GELU."""
    return 0.5 * u * (1 + np.tanh(math.sqrt(2 / math.pi) * (u + 0.044715 * u**3)))


def _minimum(f: Callable[[Floats], Floats], low: float, high: float) -> float:
    """Where f, which falls and then rises between low and high, is least (ternary search in float64)."""
    for _ in range(300):
        a, b = low + (high - low) / 3, high - (high - low) / 3
        low, high = (low, b) if float(f(np.array(a))) < float(f(np.array(b))) else (a, high)
    return (low + high) / 2


def _valley(f: Callable[[Floats], Floats], low: float, high: float) -> tuple[Piece, ...]:
    """Pieces of a function that falls from 0 to one minimum and then rises for ever."""
    at = _minimum(f, low, high)
    least = float(f(np.array(at)))
    return Piece(-math.inf, at, (0.0, least)), Piece(at, math.inf, (least, math.inf))


SMOOTH: dict[str, tuple[Callable[[Floats], Floats], tuple[Piece, ...]]] = {
    "silu": (silu, _valley(silu, -4.0, 0.0)),
    "gelu": (gelu, _valley(gelu, -3.0, 0.0)),
    "gelu_tanh": (gelu_tanh, _valley(gelu_tanh, -3.0, 0.0)),
    "sigmoid": (sigmoid, (Piece(-math.inf, math.inf, (0.0, 1.0)),)),
    "tanh": (np.tanh, (Piece(-math.inf, math.inf, (-1.0, 1.0)),)),
    "hswish": (
        hswish,
        (
            Piece(-math.inf, -3.0, (0.0, 0.0)),
            Piece(-3.0, -1.5, (0.0, -0.375)),
            Piece(-1.5, math.inf, (-0.375, math.inf)),
        ),
    ),
}

_TORCH: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda u: F.gelu(u, approximate="tanh"),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "hswish": F.hardswish,
}
