# pyright: basic
"""The arithmetic of TensorFlow Lite's reference kernels, as rules for a network from `hwsim.integer.tflite.tflite`.

`Machine(model, rules=tflite_rules(model))` requantizes as TFLite does: 31-bit multipliers rounded twice, additions with
20 bits of headroom, means rounded half away from zero. Formulas: its reference kernels and gemmlowp's fixed point.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hwsim.integer import graph
from hwsim.integer.arithmetic.forms import at
from hwsim.integer.arithmetic.requantize import along, column, shift_right
from hwsim.integer.arithmetic.rules import CodeSpec, Rule, code_limits
from hwsim.integer.graph import IntegerModel


@dataclass(frozen=True)
class Scaling:
    """MultiplyByQuantizedMultiplier: a 31-bit multiplier with the exponent of the real factor.

    Convolutions round twice, halves away from zero; fully connected layers once, halves up (`once`).
    """

    multiplier: Tensor
    exponent: Tensor
    once: bool = False

    def apply(self, x: Tensor) -> Tensor:
        """round(round(x * 2^left * M / 2^31) / 2^right), or round(x * M / 2^(31 + right - left))."""
        if self.once:
            return shift_right(x * self.multiplier, 31 - self.exponent, "half_up")
        left, right = self.exponent.clamp_min(0), (-self.exponent).clamp_min(0)
        product = (x << left) * self.multiplier
        nudged = product + torch.where(product >= 0, 1 << 30, 1 - (1 << 30))
        high = torch.div(nudged, 1 << 31, rounding_mode="trunc")
        mask = (torch.ones_like(right) << right) - 1
        return (high >> right) + ((high & mask) > (mask >> 1) + (high < 0).to(torch.int64)).to(torch.int64)


def scaling(factors: Sequence[float], ndim: int, axis: int = 1, *, once: bool = False) -> Scaling:
    """QuantizeMultiplier of real factors, one or one per channel.

    >>> s = scaling([0.3], 1, 0)
    >>> int(s.multiplier), int(s.exponent), s.apply(torch.tensor([10, 15, -15, 1000])).tolist()
    (1288490189, -1, [3, 5, -5, 300])
    """
    pairs = []
    for factor in factors:
        mantissa, exponent = math.frexp(factor)
        m = math.floor(mantissa * 2**31 + 0.5)
        pairs.append((m // 2, exponent + 1) if m == 2**31 else (m, exponent))
    multiplier, exponents = along([column([p[0] for p in pairs]), column([p[1] for p in pairs])], ndim, axis)
    return Scaling(multiplier, exponents, once)


@dataclass(frozen=True)
class ScaledRule:
    """Accumulators plus an integer bias, scaled, plus the zero point."""

    node: str
    bias: Tensor
    scale: Scaling
    zero: int
    low: int
    high: int

    def apply(self, sources: Mapping[str, Tensor], tally: Counter[str]) -> Tensor:
        total = sources[self.node].to(torch.int64) + self.bias
        return (self.scale.apply(total) + self.zero).clamp(self.low, self.high)


@dataclass(frozen=True)
class AddRule:
    """Both operands shifted left by 20 bits, brought to twice the larger scale, added, scaled to the output."""

    nodes: tuple[str, str]
    zeros: tuple[int, int]
    scales: tuple[Scaling, Scaling]
    out: Scaling
    zero: int
    low: int
    high: int

    def apply(self, sources: Mapping[str, Tensor], tally: Counter[str]) -> Tensor:
        first, second = (
            scale.apply((sources[n].to(torch.int64) - z) << 20)
            for n, z, scale in zip(self.nodes, self.zeros, self.scales, strict=True)
        )
        return (self.out.apply(first + second) + self.zero).clamp(self.low, self.high)


@dataclass(frozen=True)
class MeanRule:
    """A sum divided by its count, half away from zero."""

    node: str
    count: int
    low: int
    high: int

    def apply(self, sources: Mapping[str, Tensor], tally: Counter[str]) -> Tensor:
        total = sources[self.node].to(torch.int64)
        half = torch.where(total > 0, self.count // 2, -(self.count // 2))
        return torch.div(total + half, self.count, rounding_mode="trunc").clamp(self.low, self.high)


def tflite_rules(model: IntegerModel) -> dict[str, Rule]:
    """The rule of every requantization of a network from `lower_tflite`.

    Fully connected layers round once. Checked against the runtime's reference kernels (ai-edge-litert 2.3.0,
    BUILTIN_REF) on ResNet-8: every tensor of 40 test images equal, code for code.
    """
    nodes = {n.name: n for n in model.nodes}
    rules: dict[str, Rule] = {}
    for node in model.nodes:
        if not isinstance(node, graph.Requantize):
            continue
        assert node.code is not None
        form, code = node.form, node.code
        low, high = code_limits(form, code)
        sources = [nodes[s] for s in form.sources]
        if len(sources) == 2:
            rules[node.name] = _add_rule(node, [s.code for s in sources if s.code is not None], low, high)
        elif isinstance(sources[0], graph.SumPool):
            rules[node.name] = MeanRule(sources[0].name, math.prod(sources[0].window.kernel), low, high)
        else:
            slopes = [at(form.terms[0].slopes, k) for k in range(form.rows)]
            bias = column([round(at(form.intercepts, k) / slope) for k, slope in enumerate(slopes)])
            factors = [float(slope) / float(code.s) for slope in slopes]
            ndim = len(node.shape)
            rules[node.name] = ScaledRule(
                sources[0].name,
                along([bias], ndim, 1)[0],
                scaling(factors, ndim, once=ndim == 2),
                code.zero_code,
                low,
                high,
            )
    return rules


def _add_rule(node: graph.Requantize, codes: list[CodeSpec], low: int, high: int) -> AddRule:
    assert node.code is not None
    x, y = codes
    twice = 2 * max(float(x.s), float(y.s))
    ndim = len(node.shape)
    first, second = (scaling([float(c.s) / twice], ndim) for c in (x, y))
    out = scaling([twice / ((1 << 20) * float(node.code.s))], ndim)
    one, two = node.form.sources
    return AddRule((one, two), (x.zero_code, y.zero_code), (first, second), out, node.code.zero_code, low, high)
