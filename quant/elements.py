"""Floating-point elements of 4 to 16 bits: their values as data, and rounding to them.

A code is sign, exponent and mantissa as in IEEE 754; e2m1, e2m3, e3m2 and e4m3 use the top exponent for numbers (OCP
Microscaling Formats v1.0 and OCP FP8). Values beyond the largest are clamped to it, ties go to the even code.
Everything is computed from the bit fields; nothing is taken from a library's casts, which differ out of range.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Element:
    """A format of one value. `largest`: its greatest finite magnitude. `infinity`: whether codes above it are special
    as in IEEE 754; without it all codes are numbers, but for e4m3's S.1111.111.
    """

    name: str
    exponent_bits: int
    mantissa_bits: int
    largest: float
    infinity: bool = False

    @property
    def bits(self) -> int:
        """Stored bits."""
        return 1 + self.exponent_bits + self.mantissa_bits

    @property
    def bias(self) -> int:
        """What is subtracted from a stored exponent."""
        return 2 ** (self.exponent_bits - 1) - 1

    @property
    def least_exponent(self) -> int:
        """Exponent of the smallest normal number, which the subnormal ones share."""
        return 1 - self.bias

    @property
    def unit(self) -> float:
        """The smallest positive number; every value is a whole multiple of it."""
        return 2.0 ** (self.least_exponent - self.mantissa_bits)

    @property
    def units(self) -> int:
        """The largest number in units."""
        return int(self.largest / self.unit)

    def decode(self, code: int) -> float:
        """The value of a code 0 .. 2^bits - 1; NaN and infinities where it is special.

        >>> [ELEMENTS["e2m1"].decode(code) for code in range(8)]
        [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
        """
        mantissa = code % 2**self.mantissa_bits
        exponent = (code >> self.mantissa_bits) % 2**self.exponent_bits
        sign = -1.0 if code >> (self.bits - 1) else 1.0
        if self.infinity and exponent == 2**self.exponent_bits - 1:
            return math.nan if mantissa else sign * math.inf
        significand = mantissa / 2**self.mantissa_bits + (1 if exponent else 0)
        value = significand * 2.0 ** (max(exponent, 1) - self.bias)
        return math.nan if value > self.largest else sign * value

    @cached_property
    def values(self) -> tuple[float, ...]:
        """All finite values, ascending; 0.0 once."""
        found = {self.decode(code) for code in range(2**self.bits)}
        return tuple(sorted(v + 0.0 for v in found if math.isfinite(v)))


ELEMENTS: dict[str, Element] = {
    e.name: e
    for e in (
        Element("e2m1", 2, 1, 6.0),
        Element("e2m3", 2, 3, 7.5),
        Element("e3m2", 3, 2, 28.0),
        Element("e4m3", 4, 3, 448.0),
        Element("e5m2", 5, 2, 57344.0, infinity=True),
        Element("fp16", 5, 10, 65504.0, infinity=True),
        Element("bf16", 8, 7, (2 - 2.0**-7) * 2.0**127, infinity=True),
    )
}


def round_to(x: Tensor, element: Element) -> Tensor:
    """The nearest value of the format, ties to the even code, magnitudes beyond the largest clamped; NaN stays NaN.

    A magnitude in [2^e, 2^(e+1)) is a multiple of 2^(e - mantissa bits), subnormals of 2^(least exponent - mantissa
    bits). All steps are exact but the one rounding.
    """
    # Powers of two beyond float32's normal ones occur only with 8 exponent bits.
    wide = x.double() if element.exponent_bits >= 8 else x.to(torch.promote_types(x.dtype, torch.float32))
    magnitude = wide.abs().clamp(max=element.largest)
    step = power_of_two_below(magnitude.clamp(min=2.0**element.least_exponent)) * 2.0**-element.mantissa_bits
    return torch.copysign((magnitude / step).round_().mul_(step), wide).to(x.dtype)


def power_of_two_below(x: Tensor) -> Tensor:
    """2^floor(log2 x) of positive normal float32 or float64 numbers: their exponent bits alone. Infinity for NaN."""
    kind, mask = (torch.int32, 0xFF << 23) if x.dtype == torch.float32 else (torch.int64, 0x7FF << 52)
    return (x.contiguous().view(kind) & mask).view(x.dtype)
