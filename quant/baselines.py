"""PACT, DoReFa, DSQ and QIL behind the interface of `Quantizer`, and the one name -> class table.

Formulas as their papers and MQBench give them; where the sources differ or are silent, the docstring says what was
taken. `codes`, `step` and `offset` hold for all of them: x_hat = step * codes + offset, so that training, pricing and
lowering need not know the method. `make_quantizer(spec)` builds the class that the spec names (formats: blocks.py).
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor, nn

from quant.blocks import BlockQuantizer, CastQuantizer, FloatQuantizer, GroupQuantizer
from quant.init import initial
from quant.quantizer import BaseQuantizer, Quantizer, not_positive
from quant.spec import LEARNED, QuantSpec, check_choice


class _ValueOf(torch.autograd.Function):
    """The value of one tensor with the gradient of another: the straight-through estimator without rounding errors."""

    @staticmethod
    def forward(ctx: Any, soft: Tensor, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


def rounded_through(soft: Tensor, value: Tensor) -> Tensor:
    """round(value) with the gradient of `soft`."""
    return cast(Tensor, _ValueOf.apply(soft, value.detach().round()))


class _PerTensor(BaseQuantizer):
    """What the baselines share: one step per tensor, float32 arithmetic for half types, a few names refused."""

    def __init__(self, spec: QuantSpec, *, is_weight: bool = False, rows: int = 1, axis: int = 0) -> None:
        super().__init__(spec, is_weight=is_weight, rows=rows, axis=axis)
        if spec.granularity != "tensor":
            raise ValueError(
                f"method {spec.method!r} has one step per tensor: granularity 'channel' is for lsq, lsqplus"
            )
        if spec.power_of_two or spec.ternary or spec.snap_offset or spec.offset_mode != "learned":
            raise ValueError(
                f"method {spec.method!r}: power_of_two, ternary, snap_offset and fixed offsets are for lsq, lsqplus"
            )

    def quantize(self, x: Tensor, features: int) -> Tensor:
        return self.in_wide(x.to(torch.promote_types(x.dtype, torch.float32)), features).to(x.dtype)

    def in_wide(self, x: Tensor, features: int) -> Tensor:
        """x_hat of x in float32 or float64."""
        raise TypeError(f"{type(self).__name__} defines no in_wide()")


class _Pact(torch.autograd.Function):
    """clip to [0, alpha] (signed: [-alpha, alpha]) and round to steps of alpha/p."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: Tensor, n: int, p: int) -> Tensor:
        ctx.save_for_backward(x, alpha)
        ctx.signed = n < 0
        s = alpha / p
        return (x / s).clamp(n, p).round() * s

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x, alpha = ctx.saved_tensors
        above = x >= alpha
        below = x <= -alpha if ctx.signed else x < 0
        dalpha = (grad * above).sum()
        if ctx.signed:
            dalpha = dalpha - (grad * below).sum()
        return grad * ~(above | below), dalpha.to(alpha.dtype), None, None


class Pact(_PerTensor):
    """PACT (Choi et al. 2018): y = clip(x, 0, alpha), alpha learned, rounded to steps of alpha/(2^b - 1).

    d/dalpha is 1 where x >= alpha and 0 elsewhere, without a gradient scale; d/dx is 1 on [0, alpha). alpha is
    regularised like a weight (`parameter_groups` leaves it in the decayed group). Its first value is p*s by
    `spec.init`; the paper starts every layer from one constant. Signed inputs are clipped at both sides, codes -p..p.
    Weights of a PACT network are DoReFa's.
    """

    def __init__(self, spec: QuantSpec, *, is_weight: bool = False, rows: int = 1, axis: int = 0) -> None:
        super().__init__(spec, is_weight=is_weight, rows=rows, axis=axis)
        if spec.offset or is_weight:
            raise ValueError("method 'pact' quantizes activations without an offset: use configuration 1 or 2")
        self.alpha = nn.Parameter(torch.tensor(math.nan))

    def in_wide(self, x: Tensor, features: int) -> Tensor:
        return cast(Tensor, _Pact.apply(x, self.alpha.abs(), self.spec.n, self.spec.p))

    def codes(self, x: Tensor) -> Tensor:
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        return (x / self.step()).clamp(self.spec.n, self.spec.p).round()

    def step(self) -> Tensor:
        return self.alpha.abs() / self.spec.p

    @torch.no_grad()
    def initialise_parameters(self, values: Tensor) -> None:
        s, _ = initial(values, self.spec, is_weight=False)
        self.alpha.copy_(self.spec.p * s[0])

    def positive_parameters(self) -> list[nn.Parameter]:
        return [self.alpha]

    def faults(self, state: dict[str, Tensor]) -> list[str]:
        return not_positive(state, ("alpha",))


class DoReFa(_PerTensor):
    """DoReFa (Zhou et al. 2016). Weights: w_t = tanh(w)/max|tanh(w)|, w_q = 2*round((2^b-1)*(w_t+1)/2)/(2^b-1) - 1.

    These levels are odd multiples of half a step: with s = 2/(2^b-1) and codes -2^(b-1)..2^(b-1)-1 their offset is s/2,
    so they are not free in hardware as symmetric weights are. The same formula serves 1 bit (-1 and 1), without the
    paper's factor E|w|. Activations: clip(x, 0, 1), or clip(x, -1, 1) for signed codes, in steps of 1/p. The straight-
    through estimator stands for the rounding; nothing is learned and nothing is initialised from data.
    """

    def __init__(self, spec: QuantSpec, *, is_weight: bool = False, rows: int = 1, axis: int = 0) -> None:
        super().__init__(spec, is_weight=is_weight, rows=rows, axis=axis)
        if is_weight != spec.offset or (is_weight and not spec.signed):
            raise ValueError("method 'dorefa': weights are signed with offset=True (s/2), activations without offset")
        if not is_weight and spec.p == 0:
            raise ValueError("method 'dorefa' has no signed 1-bit activations; use bits >= 2")
        self.register_buffer("one", torch.ones(()))
        self.zero_is_exact = not is_weight

    def in_wide(self, x: Tensor, features: int) -> Tensor:
        v = self._soft_codes(x)
        return rounded_through(v, v) * self.step() + self.offset()

    def codes(self, x: Tensor) -> Tensor:
        return self._soft_codes(x.to(torch.promote_types(x.dtype, torch.float32))).round()

    def _soft_codes(self, x: Tensor) -> Tensor:
        n, p = self.spec.n, self.spec.p
        if not self.is_weight:
            return (x / self.step()).clamp(n, p)
        t = x.tanh()
        return (t / t.abs().max().clamp_min(torch.finfo(t.dtype).tiny) + 1) / 2 * (p - n) + n

    def step(self) -> Tensor:
        # A quotient of the computing dtype: a stored float32 would stay one after model.double().
        return self.one * 2 / (2**self.spec.bits - 1) if self.is_weight else self.one / self.spec.p

    def offset(self) -> Tensor:
        return self.step() / 2 if self.is_weight else torch.zeros_like(self.one)

    def initialise_parameters(self, values: Tensor) -> None:
        """Nothing depends on data."""


class Dsq(_PerTensor):
    """DSQ (Gong et al. 2019): hard rounding forwards, backwards the slope of a soft staircase.

    On the grid v = (x - beta)/s, clipped, with i = floor(v): phi = tanh(k*(v - i - 1/2)) / (1 - a), k = ln(2/a - 1),
    soft = i + (phi + 1)/2, x_hat = s*round(soft) + beta with the gradient of soft. a = 0.4 fixed, as in MQBench (the
    paper learns it). Range: weights mu +- 2.6 sigma of the weights as they are; activations a running minimum and
    maximum (momentum 0.9) in buffers, updated in training mode, so unlike LSQ's s they do see the batch. Offset: the
    range's lower end; without one, [0, max] for unsigned codes and s = 2*max|.|/(p - n) for signed ones (MQBench).
    """

    def __init__(self, spec: QuantSpec, *, is_weight: bool = False, rows: int = 1, axis: int = 0) -> None:
        super().__init__(spec, is_weight=is_weight, rows=rows, axis=axis)
        self.register_buffer("low", torch.tensor(math.nan))
        self.register_buffer("high", torch.tensor(math.nan))
        self.softness = 0.4
        self.momentum = 0.9
        self.zero_is_exact = not spec.offset

    def in_wide(self, x: Tensor, features: int) -> Tensor:
        if self.training or self.is_weight:
            self._track(x.detach())
        n, p, a = self.spec.n, self.spec.p, self.softness
        s, beta = self.step(), self.offset()
        v = ((x - beta) / s).clamp(n, p)
        i = v.detach().floor().clamp_max(p - 1)
        soft = i + ((math.log(2 / a - 1) * (v - i - 0.5)).tanh() / (1 - a) + 1) / 2
        return rounded_through(soft, v) * s + beta

    def codes(self, x: Tensor) -> Tensor:
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        if self.is_weight:
            self._track(x.detach())
        return ((x - self.offset()) / self.step()).clamp(self.spec.n, self.spec.p).round()

    @torch.no_grad()
    def _track(self, x: Tensor) -> None:
        low, high = self._range_of(x)
        if not self.is_weight:
            low, high = (
                self.low.lerp(low.to(self.low), 1 - self.momentum),
                self.high.lerp(high.to(self.high), 1 - self.momentum),
            )
        self.low.copy_(low)
        self.high.copy_(high)

    def _range_of(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if not self.is_weight:
            return x.amin(), x.amax()
        mean, reach = x.mean(), 2.6 * x.std(correction=0)
        return mean - reach, mean + reach

    def step(self) -> Tensor:
        spec = self.spec
        if spec.offset:
            span = (self.high - self.low) / (spec.p - spec.n)
        elif spec.n == 0:
            span = self.high / spec.p
        else:
            span = 2 * torch.maximum(self.low.abs(), self.high.abs()) / (spec.p - spec.n)
        return span.clamp_min(torch.finfo(span.dtype).tiny)

    def offset(self) -> Tensor:
        return self.low - self.spec.n * self.step() if self.spec.offset else torch.zeros_like(self.low)

    @torch.no_grad()
    def initialise_parameters(self, values: Tensor) -> None:
        low, high = self._range_of(values)
        self.low.copy_(low)
        self.high.copy_(high)


class _ScaledGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.factor, None


class Qil(_PerTensor):
    """QIL (Jung et al. 2019): a learned interval, 2D wide around C, is spread over the codes; what is below is pruned.

    t = clip(|x|/(2D) + 1/2 - C/(2D), 0, 1)^gamma * sign(x), x_hat = round(q*t)/q with q = p; unsigned activations
    without |.| and sign. gamma = 1: MQBench found no convergence with a learned one. The gradients of C and D carry
    1/sqrt(N*q) as MQBench has it (the paper's 0.01 diverged there). First interval: [0, p*s] with s by `spec.init`, so
    nothing is pruned at the start. x_hat lies in [-1, 1]: what follows must rescale, as a batch norm does.
    """

    def __init__(self, spec: QuantSpec, *, is_weight: bool = False, rows: int = 1, axis: int = 0) -> None:
        super().__init__(spec, is_weight=is_weight, rows=rows, axis=axis)
        if spec.offset:
            raise ValueError("method 'qil' has no offset: use configuration 1 or 2")
        self.centre = nn.Parameter(torch.tensor(math.nan))
        self.distance = nn.Parameter(torch.tensor(math.nan))
        self.register_buffer("one", torch.ones(()))
        self.zero_is_exact = spec.signed

    def in_wide(self, x: Tensor, features: int) -> Tensor:
        v = self._soft_codes(x, 1.0 / math.sqrt(features * self.spec.p))
        return rounded_through(v, v) * self.step()

    def codes(self, x: Tensor) -> Tensor:
        return self._soft_codes(x.to(torch.promote_types(x.dtype, torch.float32)), 1.0).round()

    def _soft_codes(self, x: Tensor, grad_scale: float) -> Tensor:
        centre = cast(Tensor, _ScaledGradient.apply(self.centre, grad_scale))
        distance = cast(Tensor, _ScaledGradient.apply(self.distance.abs(), grad_scale))
        if not self.spec.signed:
            return ((x - centre) / (2 * distance) + 0.5).clamp(0, 1) * self.spec.p
        return ((x.abs() - centre) / (2 * distance) + 0.5).clamp(0, 1) * x.sign() * self.spec.p

    def step(self) -> Tensor:
        return self.one / self.spec.p

    @torch.no_grad()
    def initialise_parameters(self, values: Tensor) -> None:
        s, _ = initial(values, self.spec, is_weight=self.is_weight)
        self.centre.copy_(self.spec.p * s[0] / 2)
        self.distance.copy_(self.centre)

    def positive_parameters(self) -> list[nn.Parameter]:
        return [self.distance]

    def reaches(self) -> list[tuple[nn.Parameter, nn.Parameter, float]]:
        """Half the interval's width is the measure of both its width and its centre."""
        return [*super().reaches(), (self.centre, self.distance, 1.0)]

    def faults(self, state: dict[str, Tensor]) -> list[str]:
        return not_positive(state, ("distance",))


METHODS: dict[str, type[BaseQuantizer]] = {
    "lsq": Quantizer,
    "lsqplus": Quantizer,
    "pact": Pact,
    "dsq": Dsq,
    "qil": Qil,
    "dorefa": DoReFa,
}


def make_quantizer(spec: QuantSpec, *, is_weight: bool = False, rows: int = 1, axis: int = 0) -> BaseQuantizer:
    """An uninitialised quantizer of the class that the spec's scale, element, granularity and method name.

    `axis`: the channels with a step each, or the reduction along which groups and blocks lie.
    """
    check_choice("method", spec.method, tuple(METHODS))
    return class_of(spec)(spec, is_weight=is_weight, rows=rows, axis=axis)


def class_of(spec: QuantSpec) -> type[BaseQuantizer]:
    """The class behind a spec."""
    if spec.scale_format == "none":
        return CastQuantizer
    if spec.scale_format not in LEARNED:
        return BlockQuantizer
    if spec.element != "int":
        return FloatQuantizer
    return GroupQuantizer if spec.granularity == "group" else METHODS[spec.method]
