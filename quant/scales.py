"""Scales that a block's largest magnitude decides: OCP MX's powers of two, and NVFP4's e4m3 beside one per tensor.

MX: X = 2^(floor(log2 max|v|) - emax) (`floor`, the standard's rule). Others in use: `even` rounds the maximum to the
element's mantissa first; `rceil` is 2^ceil(log2(max|v| / largest)), which never clips. NVFP4: tensor scale
g = max|v| / (448 * 6) in float32, block scale e4m3(max|v_b| / 6 / g), at least the smallest positive e4m3.
"""

from __future__ import annotations

import torch
from torch import Tensor

from quant.elements import ELEMENTS, Element, round_to

SCALE_RULES = ("floor", "even", "rceil")
MXINT8_LARGEST, MXINT8_MANTISSA = 127 / 64, 6
_E8M0_LIMIT = 127
_E4M3 = ELEMENTS["e4m3"]


def power_of_two_scale(largest: Tensor, top: float, mantissa_bits: int, rule: str) -> Tensor:
    """X of each block from its largest magnitude; `top`: the element's largest number. 2^-127 for a block of zeros, NaN
    for one with a NaN or an infinity."""
    wide = largest.double()
    greatest = torch.frexp(torch.tensor(top, dtype=torch.float64))[1]
    if rule == "rceil":
        mantissa, exponent = torch.frexp(wide / top)
        exponent = exponent - (mantissa == 0.5).to(exponent.dtype)
    else:
        mantissa, exponent = torch.frexp(wide)
        if rule == "even":  # half a unit of the element's last place carries into the next binade
            exponent = exponent + (mantissa + 2.0 ** -(mantissa_bits + 2) >= 1).to(exponent.dtype)
        exponent = exponent - greatest
    exponent = torch.where(wide > 0, exponent.clamp(-_E8M0_LIMIT, _E8M0_LIMIT), -_E8M0_LIMIT)
    scale = torch.ldexp(torch.ones_like(wide), exponent)
    return torch.where(torch.isfinite(wide), scale, torch.nan).to(largest.dtype)


def nvfp4_scale(largest: Tensor, element: Element) -> Tensor:
    """The product of block and tensor scale of each block, from the blocks' largest magnitudes; 1 for all zeros."""
    wide = largest.float()
    tensor = wide.amax() / (_E4M3.largest * element.largest)
    tensor = torch.where(tensor == 0, 1.0, tensor)
    block = (wide / element.largest / tensor).clamp(_E4M3.unit, _E4M3.largest)
    return (round_to(block, _E4M3) * tensor).to(largest.dtype)
