"""What the families share: operations of two tensors as modules, SAME padding, channel rounding, initialisation.

A residual addition written as `x + y` has no module; written as `self.add(x, y)` it is `layer1.0.add` in every
report, and `quant.quantize` can put a quantized one in its place. State dicts are unchanged: nothing is stored.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Add(nn.Module):
    """x + y, a residual addition."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


class Mul(nn.Module):
    """x * y with broadcasting, the product of a squeeze-excite block."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x * y


class MatMul(nn.Module):
    """x @ y, a batched product of two activations (attention)."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x @ y


class Concat(nn.Module):
    """Concatenation along `dim`."""

    def __init__(self, dim: int = 1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, tensors: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(tensors), self.dim)


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after one axis under TensorFlow's SAME rule; the odd one goes after.

    total = max((ceil(size / stride) - 1) * stride + kernel - size, 0)

    >>> same_padding(32, 3, 2), same_padding(32, 3, 1), same_padding(49, 10, 2)
    ((0, 1), (1, 1), (4, 5))
    """
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def same_pad(size: tuple[int, int], kernel: tuple[int, int], stride: int) -> tuple[nn.Module, tuple[int, int]]:
    """The SAME rule as (module before the convolution, the convolution's own symmetric padding).

    Equal sides are left to the convolution; unequal ones become an nn.ZeroPad2d, which no module swap can lose.
    """
    (top, bottom), (left, right) = (same_padding(n, k, stride) for n, k in zip(size, kernel, strict=True))
    if top == bottom and left == right:
        return nn.Identity(), (top, left)
    return nn.ZeroPad2d((left, right, top, bottom)), (0, 0)


def init_weights(model: nn.Module) -> None:
    """He's initialisation (fan out) of every convolution: normal, std = sqrt(2 G / (R S K)). Others keep torch's."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.weight[0, 0].numel() * module.out_channels // module.groups
            nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / fan_out))


def make_divisible(value: float, divisor: int = 8) -> int:
    """Channels rounded to a multiple of `divisor`, never more than 10 % below `value` (MobileNetV2's rule).

    >>> make_divisible(32 * 0.25), make_divisible(24 * 1.1)
    (8, 24)
    """
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded
