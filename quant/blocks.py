"""Quantizers of number formats: learned scales per group (LSQ and LSQ+), float elements, and computed block scales.

`GroupQuantizer` is LSQ+ with one s (and beta) for each group along the reduction. `FloatQuantizer` is LSQ with a table
of values in place of the integers: d/ds = Q(u) - u inside, +-largest outside. `BlockQuantizer` computes its scales from
each block's maximum (OCP MX, NVFP4) and lets gradients of what is not clipped pass. `CastQuantizer` has no scale.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from quant.elements import ELEMENTS, Element, round_to
from quant.grouping import Grouping
from quant.init import initial
from quant.quantizer import BaseQuantizer, Quantizer, not_positive
from quant.scales import MXINT8_LARGEST, MXINT8_MANTISSA, nvfp4_scale, power_of_two_scale
from quant.spec import QuantSpec

# Scales tried by first values: from the one that clips nothing to a fifth of it, in steps of a twelfth of a binade.
_TRIED = tuple(2.0 ** (-k / 12) for k in range(29))


class GroupQuantizer(Quantizer):
    """LSQ and LSQ+ with a step for each group of `spec.group` elements along `axis`; s and beta are (groups,)."""

    def __init__(self, spec: QuantSpec, *, is_weight: bool = False, rows: int = 1, axis: int = 1) -> None:
        super().__init__(spec, is_weight=is_weight, rows=rows, axis=0)
        self.grouping = Grouping(axis, spec.group)
        self.length = 0

    def quantize(self, x: Tensor, features: int) -> Tensor:
        return self.grouping.join(super().quantize(self.grouping.split(x), features), x)

    def quantize_within(self, x: Tensor, features: int, border: int) -> tuple[Tensor, Tensor]:
        raise ValueError("group-wise steps have no border value: they are for weights")

    def codes(self, x: Tensor) -> Tensor:
        return self.grouping.join(super().codes(self.grouping.split(x)), x)

    def step_at(self, x: Tensor) -> Tensor:
        return self.grouping.spread(self.step(), x)

    def offset_at(self, x: Tensor) -> Tensor:
        return self.grouping.spread(self.offset(), x)

    def observe(self, x: Tensor) -> None:
        self.length = x.shape[self.grouping.axis]
        super().observe(self.grouping.split(x))

    @torch.no_grad()
    def initialise_parameters(self, values: Tensor) -> None:
        """The rule of `spec.init` for each group; zeros that fill a last, shorter group are left out."""
        s, beta = initial(values, self.spec, is_weight=self.is_weight)
        width = self.grouping.width(self.length)
        tail = self.length % width
        if tail:
            every = -(-self.length // width)
            short = initial(values[every - 1 :: every, :tail], self.spec, is_weight=self.is_weight)
            s[every - 1 :: every], beta[every - 1 :: every] = short
        self.set_parameters(s, None if self.beta is None else beta)


class _Table(torch.autograd.Function):
    """x_hat = s * Q(x / s); straight through Q where |x / s| is at most the largest value."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, s: Tensor, element: Element, grad_scale: float) -> Tensor:
        u = x / s
        q = round_to(u, element)
        ctx.save_for_backward(u, q)
        ctx.largest, ctx.grad_scale, ctx.shape = element.largest, grad_scale, s.shape
        return q * s

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        u, q = ctx.saved_tensors
        inside = u.abs() <= ctx.largest
        ds = (grad * torch.where(inside, q - u, q)).sum_to_size(ctx.shape) * ctx.grad_scale
        return grad * inside, ds, None, None


class _Tabled(BaseQuantizer):
    """What quantizers of float elements share: codes are values in units of the smallest one."""

    def __init__(self, spec: QuantSpec, **place: Any) -> None:
        axis = place.pop("axis", 0)
        super().__init__(spec, axis=axis, **place)
        self.element = ELEMENTS.get(spec.element)

    def scale_at(self, x: Tensor) -> Tensor:
        """The scale of every element, to multiply a value of the table with; broadcasts against x."""
        raise TypeError(f"{type(self).__name__} defines no scale_at()")

    def codes(self, x: Tensor) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        assert self.element is not None
        return round_to(wide / self.scale_at(wide), self.element) / self.element.unit

    def step_at(self, x: Tensor) -> Tensor:
        assert self.element is not None
        return self.scale_at(x) * self.element.unit

    def offset_at(self, x: Tensor) -> Tensor:
        return torch.zeros((), device=x.device)


class FloatQuantizer(_Tabled):
    """A float element with a learned scale: per tensor, per channel, or per group along `axis`.

    The gradient of s is LSQ's with the table for the rounding, times 1/sqrt(N * largest).
    """

    def __init__(self, spec: QuantSpec, *, is_weight: bool = False, rows: int = 1, axis: int = 0) -> None:
        super().__init__(spec, is_weight=is_weight, rows=rows, axis=0 if spec.group else axis)
        self.grouping = Grouping(axis, spec.group) if spec.group else None
        self.s = nn.Parameter(torch.full(() if spec.granularity == "tensor" else (rows,), math.nan))

    def quantize(self, x: Tensor, features: int) -> Tensor:
        assert self.element is not None
        grad_scale = 1.0 / math.sqrt(features * self.element.largest)
        if self.grouping is None:
            return cast(Tensor, _Table.apply(x, self.scale_at(x).to(x.dtype), self.element, grad_scale))
        rows = self.grouping.split(x)
        return self.grouping.join(_Table.apply(rows, self.s.abs().view(-1, 1), self.element, grad_scale), x)

    def scale_at(self, x: Tensor) -> Tensor:
        s = self.s.abs()
        if self.grouping is not None:
            return self.grouping.spread(s, x)
        return s if s.ndim == 0 else s.view([-1 if i == self.axis else 1 for i in range(x.ndim)])

    def step(self) -> Tensor:
        assert self.element is not None
        return self.s.abs() * self.element.unit

    def observe(self, x: Tensor) -> None:
        super().observe(self.grouping.split(x) if self.grouping is not None else x)

    @torch.no_grad()
    def initialise_parameters(self, values: Tensor) -> None:
        """`minmax`: nothing is clipped. Other rules: the scale with the least squared error of those tried."""
        assert self.element is not None
        widest = values.abs().amax(1) / self.element.largest
        widest = torch.where(widest > 0, widest, torch.ones_like(widest))
        best, least = widest, torch.full_like(widest, math.inf)
        for factor in _TRIED if self.spec.init != "minmax" else (1.0,):
            s = widest * factor
            error = (round_to(values / s[:, None], self.element) * s[:, None] - values).square().sum(1)
            best, least = torch.where(error < least, s, best), torch.minimum(error, least)
        self.s.copy_(best.view_as(self.s))

    def positive_parameters(self) -> list[nn.Parameter]:
        return [self.s]

    def faults(self, state: dict[str, Tensor]) -> list[str]:
        return not_positive(state, ("s",))


class _Clipped(torch.autograd.Function):
    """x_hat as given, the gradient where nothing was clipped."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, x_hat: Tensor, inside: Tensor) -> Tensor:
        ctx.save_for_backward(inside)
        return x_hat

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return grad * ctx.saved_tensors[0], None, None


class BlockQuantizer(_Tabled):
    """A block format whose scales follow from the values at every forward pass: OCP MX (e8m0) or NVFP4 (e4m3).

    Blocks lie along `axis`, the reduction of what reads the tensor. Nothing is learned; `initialized` from the start.
    The scale counts as a constant in the gradient: 1 where |x / scale| is at most the largest value, 0 where clipped.
    """

    def __init__(self, spec: QuantSpec, *, is_weight: bool = False, rows: int = 1, axis: int = -1) -> None:
        super().__init__(spec, is_weight=is_weight, rows=rows, axis=axis)
        self.grouping = Grouping(axis, spec.group)
        self.initialized.fill_(True)

    @property
    def largest(self) -> float:
        """The largest value of an element."""
        return MXINT8_LARGEST if self.element is None else self.element.largest

    def block_scales(self, rows: Tensor) -> Tensor:
        """(blocks, 1): the scale of each row."""
        top = rows.detach().abs().amax(1, keepdim=True)
        if self.element is not None and self.spec.scale_format == "e4m3":
            return nvfp4_scale(top, self.element)
        mantissa = MXINT8_MANTISSA if self.element is None else self.element.mantissa_bits
        return power_of_two_scale(top, self.largest, mantissa, self.spec.scale_rule)

    def rounded(self, u: Tensor) -> Tensor:
        """Values of the table nearest to x / scale."""
        if self.element is not None:
            return round_to(u, self.element)
        return (u * 64).round().clamp(-127, 127) / 64

    def quantize(self, x: Tensor, features: int) -> Tensor:
        rows = self.grouping.split(x.to(torch.promote_types(x.dtype, torch.float32)))
        with torch.no_grad():
            scale = self.block_scales(rows)
            u = rows / scale
            x_hat, inside = self.rounded(u) * scale, u.abs() <= self.largest
        return cast(Tensor, _Clipped.apply(x, self.grouping.join(x_hat, x).to(x.dtype), self.grouping.join(inside, x)))

    def scale_at(self, x: Tensor) -> Tensor:
        return self.grouping.spread(self.block_scales(self.grouping.split(x)), x)

    def codes(self, x: Tensor) -> Tensor:
        if self.element is not None:
            return super().codes(x)
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        return self.rounded(wide / self.scale_at(wide)) * 64

    def step_at(self, x: Tensor) -> Tensor:
        return self.scale_at(x) / 64 if self.element is None else super().step_at(x)

    @torch.no_grad()
    def observe(self, x: Tensor) -> None:
        """The extremes alone: nothing is found from the values."""
        self._samples.append(torch.stack([x.detach().min(), x.detach().max()]).view(1, 2))

    def step(self) -> Tensor:
        raise ValueError("block scales follow from the values: ask step_at(x)")

    def offset(self) -> Tensor:
        return torch.zeros(())

    def initialise_parameters(self, values: Tensor) -> None:
        """There is nothing to initialise."""


class CastQuantizer(_Tabled):
    """fp16 or bf16 values without a scale: what weight-only formats leave activations at."""

    def __init__(self, spec: QuantSpec, *, is_weight: bool = False, rows: int = 1, axis: int = 0) -> None:
        super().__init__(spec, is_weight=is_weight, rows=rows, axis=axis)
        self.initialized.fill_(True)

    def quantize(self, x: Tensor, features: int) -> Tensor:
        assert self.element is not None
        with torch.no_grad():
            x_hat = round_to(x, self.element)
        return cast(Tensor, _Clipped.apply(x, x_hat, x.abs() <= self.element.largest))

    def scale_at(self, x: Tensor) -> Tensor:
        return torch.ones((), device=x.device)

    def step(self) -> Tensor:
        assert self.element is not None
        return torch.tensor(self.element.unit)

    def initialise_parameters(self, values: Tensor) -> None:
        """There is nothing to initialise."""
