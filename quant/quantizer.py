"""The quantizer as a module: learned s and beta (LSQ+), and what every quantizer has in common.

`BaseQuantizer` holds the protocol: `spec`, `forward`, `codes`, `step`, `offset`, an explicit initialisation from data
whose state lives in buffers, and one marked node per quantizer under torch.export (`export_names`). `Quantizer` is LSQ
and LSQ+; the baselines derive from the same class. A forward pass reads no values and branches on none.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

from quant.functional import codes, lsq_plus_at
from quant.init import initial
from quant.kernels import NO_BORDER, Problem
from quant.spec import QuantSpec

# Values kept of one observed batch, and of all of them: enough for 0.2 % on a mean, little enough for many layers.
_KEPT_PER_BATCH = 2**18
_KEPT_IN_ALL = 2**20
# Buffers of checkpoints from before 2026-12: lower bounds of s, alpha and D, which nothing reads any more.
RETIRED_BUFFERS = ("s_floor", "alpha_floor", "distance_floor")

_LIVE: weakref.WeakSet[BaseQuantizer] = weakref.WeakSet()


@torch.library.custom_op("hwsim_quant::quantizer", mutates_args=())
def quantizer_mark(x: Tensor, name: str) -> Tensor:
    """The node that stands for the quantizer of that qualified name in an exported graph; returns a copy of x."""
    return x.clone()


@quantizer_mark.register_fake
def _(x: Tensor, name: str) -> Tensor:
    return torch.empty_like(x)


class BaseQuantizer(nn.Module):
    """What all quantizers share: modes, initialisation, checkpoint checks.

    `rows` is the number of step sizes: 1, or the channels along `axis` for granularity "channel".
    Buffers: `initialized` (0 or 1), `bounds` (n, p; a checkpoint of other bits is refused), `observed` (least and
    largest value seen at initialisation). All are floats: averages of equal values (EMA, SWA) are those values.
    """

    #: Whether 0.0 is quantized to exactly 0.0 whatever the parameters are; padding is then free of cost and of choice.
    zero_is_exact = True

    def __init__(self, spec: QuantSpec, *, is_weight: bool = False, rows: int = 1, axis: int = 0) -> None:
        super().__init__()
        if spec.granularity == "tensor" and rows != 1:
            raise ValueError(f"quantizer: granularity 'tensor' has one step, got rows={rows}")
        self.spec = spec
        self.is_weight = is_weight
        self.rows = rows
        self.axis = axis
        self.mode = "quantize"
        self.ewgs = 0.0  # delta of `quant.methods`, for LSQ and LSQ+
        self.mark = ""
        self._samples: list[Tensor] = []
        self._ready = False
        self.register_buffer("initialized", torch.zeros(()))
        self.register_buffer("bounds", self._bounds())
        self.register_buffer("observed", torch.full((2,), math.nan))
        _join(self)

    # ---- what a method defines -----------------------------------------------------------------------------------

    def quantize(self, x: Tensor, features: int) -> Tensor:
        """x_hat; `features` is N of the gradient scale."""
        raise TypeError(f"{type(self).__name__} defines no quantize()")

    def quantize_within(self, x: Tensor, features: int, border: int) -> tuple[Tensor, Tensor]:
        """(x_hat - c, c) for a map with c around it."""
        raise TypeError(f"{type(self).__name__} defines no quantize_within()")

    def codes(self, x: Tensor) -> Tensor:
        """The integers n..p behind `forward(x)`, in a float tensor: x_hat = step * codes + offset."""
        raise TypeError(f"{type(self).__name__} defines no codes()")

    def step(self) -> Tensor:
        """The effective step size, positive; shape (), or (rows,) per channel."""
        raise TypeError(f"{type(self).__name__} defines no step()")

    def offset(self) -> Tensor:
        """The effective offset (zeros where there is none), in the shape of `step()`."""
        return torch.zeros_like(self.step())

    def step_at(self, x: Tensor) -> Tensor:
        """`step()` shaped to multiply codes of x, whatever shares a step."""
        return self._at(self.step(), x)

    def offset_at(self, x: Tensor) -> Tensor:
        """`offset()` shaped to be added to x."""
        return self._at(self.offset(), x)

    def _at(self, each: Tensor, x: Tensor) -> Tensor:
        return each if each.ndim == 0 else each.view([-1 if i == self.axis else 1 for i in range(x.ndim)])

    def initialise_parameters(self, values: Tensor) -> None:
        """Set the parameters from `values` (rows, elements)."""
        raise TypeError(f"{type(self).__name__} defines no initialise_parameters()")

    def positive_parameters(self) -> list[nn.Parameter]:
        """Parameters v that become |v| after every step of a torch optimizer."""
        return []

    def reaches(self) -> list[tuple[nn.Parameter, nn.Parameter, float]]:
        """(parameter, step, factor): changes of the parameter are measured by factor * |step|."""
        return [(parameter, parameter, 1.0) for parameter in self.positive_parameters()]

    def faults(self, state: dict[str, Tensor]) -> list[str]:
        """What is wrong with the values of an initialised checkpoint, by parameter name without prefix."""
        return []

    # ---- forward -------------------------------------------------------------------------------------------------

    def forward(self, x: Tensor, features: int | None = None, border: int = NO_BORDER) -> Any:
        """x_hat of x. `features` overrides N of the gradient scale: the features of one sample, never of the batch.

        With a `border` (`Quantizer` with an offset and one step): (x_hat - c, c), see `quant.kernels.Problem`.
        """
        if self.mode != "quantize":
            return self._aside(x)
        if not self._ready:
            self._require_ready()
        features = self.count_features(x) if features is None else features
        return self.quantize_within(x, features, border) if border else self.quantize(x, features)

    def count_features(self, x: Tensor) -> int:
        """N: elements that share one step; for activations in one sample (the first axis is the batch)."""
        batch = 1 if self.is_weight or x.ndim < 2 or (self.rows > 1 and self.axis == 0) else x.shape[0]
        return max(x.numel() // (max(batch, 1) * self.rows), 1)

    def _aside(self, x: Tensor) -> Tensor:
        """The modes in which nothing is quantized: `name`, `observe`, `float`."""
        if self.mode == "name":
            return cast(Tensor, torch.ops.hwsim_quant.quantizer(x, self.mark))
        if self.mode == "observe":
            self.observe(x)
        return x

    def _require_ready(self) -> None:
        # Parameters may have come from elsewhere than load_state_dict, e.g. DDP's broadcast: look at the buffer once.
        if not bool(self.initialized):
            raise RuntimeError(
                f"this {type(self).__name__} ({self.spec.bits} bits) has no step size yet: call "
                "quant.initialise(model, batches), or load a checkpoint, before the first forward pass"
            )
        self._ready = True

    # ---- initialisation ------------------------------------------------------------------------------------------

    def init_from(self, batches: Tensor | Iterable[Tensor]) -> None:
        """Set the parameters by `spec.init` from one tensor or a few; the only place where data decides."""
        for batch in [batches] if isinstance(batches, Tensor) else batches:
            self.observe(batch)
        self.finish_observing()

    @torch.no_grad()
    def observe(self, x: Tensor) -> None:
        """Keep a sample of x (extremes always) for `finish_observing`."""
        flat = x.detach() if self.rows == 1 else x.detach().movedim(self.axis, 0)
        flat = flat.reshape(self.rows, -1).float() if x.dtype != torch.float64 else flat.reshape(self.rows, -1)
        if flat.shape[1] > _KEPT_PER_BATCH and self.rows == 1:
            chooser = torch.Generator().manual_seed(len(self._samples))
            chosen = torch.randint(flat.shape[1], (_KEPT_PER_BATCH - 2,), generator=chooser).to(flat.device)
            flat = torch.cat([flat[:, chosen], flat.amin(1, keepdim=True), flat.amax(1, keepdim=True)], 1)
        self._samples.append(flat.clone())

    @property
    def has_observed(self) -> bool:
        """Whether anything was observed since the last initialisation."""
        return bool(self._samples)

    def forget(self) -> None:
        """Drop what was observed."""
        self._samples = []

    @torch.no_grad()
    def finish_observing(self) -> None:
        """Initialise from what was observed; raises RuntimeError when that is nothing."""
        if not self._samples:
            raise RuntimeError(f"this {type(self).__name__} saw no data: its layer did not run on the batches given")
        values = torch.cat(self._samples, 1)
        self._samples = []
        if values.shape[1] > _KEPT_IN_ALL and self.rows == 1:
            low, high = values.amin(1, keepdim=True), values.amax(1, keepdim=True)
            chosen = torch.randint(values.shape[1], (_KEPT_IN_ALL - 2,), generator=torch.Generator().manual_seed(0))
            values = torch.cat([values[:, chosen.to(values.device)], low, high], 1)
        self.initialise_parameters(values)
        self.observed.copy_(torch.stack([values.min(), values.max()]))
        self.initialized.fill_(True)
        self._ready = True

    # ---- checkpoints and copies ----------------------------------------------------------------------------------

    def _bounds(self) -> Tensor:
        """(n, p) as float32, which holds the codes of 16 bits exactly (bf16's largest, in units, is beyond it)."""
        most = torch.finfo(torch.float32).max
        return torch.tensor([max(float(self.spec.n), -most), min(float(self.spec.p), most)], dtype=torch.float32)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> BaseQuantizer:
        """Moves and casts; `bounds` stay float32, since half types hold no 16-bit code."""
        super()._apply(fn, recurse)
        if not self.bounds.is_meta:
            self.bounds = self._bounds().to(self.bounds.device)
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        errors: list[str] = args[-1]
        for name in RETIRED_BUFFERS:
            state_dict.pop(f"{prefix}{name}", None)
        own = {key[len(prefix) :]: value for key, value in state_dict.items() if key.startswith(prefix)}
        bounds = own.get("bounds")
        if bounds is not None and bounds.round().tolist() != self._bounds().tolist():
            found = ", ".join(f"{v:g}" for v in bounds.tolist())
            errors.append(
                f"{prefix}bounds: expected codes {self.spec.n}..{self.spec.p}, the checkpoint has [{found}]; "
                "quantize the model with the bits it was trained with"
            )
            return
        if bool(own.get("initialized", self.initialized)):
            faults = [f"{prefix}{fault}" for fault in self.faults(own)]
            errors.extend(faults)
            if faults:
                return
        super()._load_from_state_dict(state_dict, prefix, *args)
        if not self.bounds.is_meta:
            self.bounds.copy_(self._bounds())  # averages in floating point may be off by a rounding
        self._ready = bool(self.initialized)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        _join(self)

    def extra_repr(self) -> str:
        spec = self.spec
        words = [f"{spec.bits} bits", f"{spec.n}..{spec.p}", spec.method]
        words += ["offset"] if spec.offset else []
        words += [spec.element] if spec.element != "int" else []
        words += [f"groups of {spec.group}"] if spec.group else []
        words += [f"{self.rows} channels"] if self.rows > 1 and not spec.group else []
        return ", ".join(words)


class Quantizer(BaseQuantizer):
    """LSQ and LSQ+ (Eq. 1-4): learned s, learned or fixed beta, gradients times 1/sqrt(N*p).

    N counts the weights of the layer (per step), or the features of one sample, so neither the batch size nor gradient
    accumulation nor the number of processes changes training. p is 1 for signed 1-bit codes, where it would be 0.
    s stays positive by reflection (`spec.positivity` "absolute"): after every step of a torch optimizer s becomes |s|,
    its momentum kept, and the forward pass uses |s|. With "printed" nothing guards s, as in the papers.
    `beta` is a parameter only where the spec has an offset; with `fixed_min` it holds the minimum, and the offset used
    is beta - n*s, so that code n stays at the minimum.
    """

    def __init__(self, spec: QuantSpec, *, is_weight: bool = False, rows: int = 1, axis: int = 0) -> None:
        super().__init__(spec, is_weight=is_weight, rows=rows, axis=axis)
        if spec.method not in ("lsq", "lsqplus"):
            raise ValueError(f"Quantizer is lsq or lsqplus, got method {spec.method!r}: use quant.make_quantizer")
        if spec.method == "lsq" and spec.offset:
            raise ValueError("method 'lsq' has no offset: use method='lsqplus', or configuration 1 or 2")
        shape = () if spec.granularity == "tensor" else (rows,)
        self.s = nn.Parameter(torch.full(shape, math.nan))
        learned = spec.offset_mode == "learned"
        self.beta = nn.Parameter(torch.full(shape, math.nan), requires_grad=learned) if spec.offset else None
        self.zero_is_exact = not spec.offset or spec.offset_mode == "fixed_zero"

    def quantize(self, x: Tensor, features: int) -> Tensor:
        return self._run(x, features, NO_BORDER)[0]

    def quantize_within(self, x: Tensor, features: int, border: int) -> tuple[Tensor, Tensor]:
        shifted, value = self._run(x, features, border)
        if value is None:
            raise ValueError("a border needs a quantizer with an offset: elsewhere 0 is quantized to 0")
        return shifted, value

    def _run(self, x: Tensor, features: int, border: int) -> tuple[Tensor, Tensor | None]:
        spec = self.spec
        grad_scale = 1.0 / math.sqrt(features * spec.magnitude)
        absolute = spec.positivity == "absolute"
        problem = Problem(spec.n, spec.p, grad_scale, spec.clip_rule == "inclusive", border, absolute, self.ewgs)
        if spec.power_of_two or spec.snap_offset or spec.offset_mode == "fixed_min" or spec.scale_format == "fp16":
            s, beta = self._operands(x, self.step())
            return lsq_plus_at(x, s, beta, problem)
        if spec.granularity == "tensor":
            return lsq_plus_at(x, self.s, self.beta, problem)
        s, beta = self._operands(x, self.s)
        return lsq_plus_at(x, s, beta, problem)

    def codes(self, x: Tensor) -> Tensor:
        s, beta = self._operands(x, self.step())
        return codes(x, s, beta, self.spec.n, self.spec.p)

    def step(self) -> Tensor:
        s = self.s.abs() if self.spec.positivity == "absolute" else self.s
        if self.spec.scale_format == "fp16":
            return cast(Tensor, _NearestHalf.apply(s))
        return cast(Tensor, _NearestPowerOfTwo.apply(s)) if self.spec.power_of_two else s

    def offset(self) -> Tensor:
        return self._offset(self.step())

    def _offset(self, s: Tensor) -> Tensor:
        if self.beta is None:
            return torch.zeros_like(s)
        beta: Tensor = self.beta
        if self.spec.offset_mode == "fixed_min":
            beta = beta - self.spec.n * s
        if self.spec.snap_offset:
            # -s*z with z = round(-beta/s), straight through the rounding: d/ds = round(beta/s) - beta/s, d/dbeta = 1.
            ratio = beta / s
            beta = s * (ratio + (ratio.round() - ratio).detach())
        return beta

    def _operands(self, x: Tensor, s: Tensor) -> tuple[Tensor, Tensor | None]:
        """s and the offset for it, shaped to broadcast against x."""
        beta = None if self.beta is None else self._offset(s)
        if self.spec.granularity == "tensor":
            return s, beta
        shape = [1] * x.ndim
        shape[self.axis] = -1
        return s.view(shape), None if beta is None else beta.view(shape)

    @torch.no_grad()
    def initialise_parameters(self, values: Tensor) -> None:
        s, beta = initial(values, self.spec, is_weight=self.is_weight)
        self.set_parameters(s.view_as(self.s), None if self.beta is None else beta.view_as(self.beta))

    @torch.no_grad()
    def set_parameters(self, s: Tensor | float, beta: Tensor | float | None = None) -> None:
        """Set s (positive) and beta by hand and mark the quantizer initialised."""
        s = torch.as_tensor(s, dtype=self.s.dtype, device=self.s.device)
        if not bool((torch.isfinite(s) & (s > 0)).all()):
            raise ValueError(f"s: expected positive finite values, got {s.tolist()}")
        if (beta is None) != (self.beta is None):
            raise ValueError(f"beta: {'expected a value' if self.beta is not None else 'this quantizer has none'}")
        self.s.copy_(s.expand_as(self.s))
        if self.beta is not None:
            self.beta.copy_(torch.as_tensor(beta, dtype=self.beta.dtype).expand_as(self.beta))
        self.initialized.fill_(True)
        self._ready = True

    def positive_parameters(self) -> list[nn.Parameter]:
        return [self.s] if self.spec.positivity == "absolute" else []

    def reaches(self) -> list[tuple[nn.Parameter, nn.Parameter, float]]:
        """s is measured by itself, beta by the width of its range, (p - n) s."""
        found: list[tuple[nn.Parameter, nn.Parameter, float]] = [(self.s, self.s, 1.0)]
        if self.beta is not None:
            found.append((self.beta, self.s, float(self.spec.p - self.spec.n)))
        return found

    def faults(self, state: dict[str, Tensor]) -> list[str]:
        found = not_positive(state, ("s",)) if self.spec.positivity == "absolute" else not_finite(state, ("s",))
        return found + not_finite(state, ("beta",))


def not_positive(state: dict[str, Tensor], names: Iterable[str]) -> list[str]:
    """One message for each named tensor of a checkpoint that holds zeros, negatives, NaN or infinities."""
    found = []
    for name in names:
        value = state.get(name)
        if value is not None and not bool((torch.isfinite(value) & (value > 0)).all()):
            found.append(f"{name}: expected positive finite values, the checkpoint has {_few(value)}")
    return found


def not_finite(state: dict[str, Tensor], names: Iterable[str]) -> list[str]:
    """One message for each named tensor of a checkpoint that holds NaN or infinities."""
    values = {name: state[name] for name in names if name in state}
    return [
        f"{name}: expected finite values, the checkpoint has {_few(value)}"
        for name, value in values.items()
        if not bool(torch.isfinite(value).all())
    ]


def _few(value: Tensor) -> list[float]:
    return [float(v) for v in value.flatten()[:4]]


class _NearestPowerOfTwo(torch.autograd.Function):
    """2^round(log2 s), exactly a power of two on every device; the gradient passes straight through."""

    @staticmethod
    def forward(ctx: Any, s: Tensor) -> Tensor:
        mantissa, exponent = torch.frexp(s)
        # s = mantissa * 2^exponent with mantissa in [1/2, 1): round up from sqrt(1/2), the middle on the log scale.
        exponent = exponent - (mantissa < math.sqrt(0.5)).to(exponent.dtype)
        return torch.where(s == s, torch.ldexp(torch.ones_like(s), exponent), s)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


class _NearestHalf(torch.autograd.Function):
    """The fp16 number nearest to s, the least and the largest at the ends; the gradient passes straight through."""

    @staticmethod
    def forward(ctx: Any, s: Tensor) -> Tensor:
        return s.clamp(2.0**-24, 65504.0).half().to(s.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


# ---- positivity after optimizer steps ----------------------------------------------------------------------------


def _join(quantizer: BaseQuantizer) -> None:
    """Enter a new (or copied, or unpickled) quantizer in the projection that follows every optimizer step."""
    if not _LIVE:
        _register_projection()
    _LIVE.add(quantizer)


_registered: list[object] = []
# The smallest normal float32: x / s is then at most infinite, and the codes of what is not 0 are clipped ones.
_LEAST_STEP = torch.finfo(torch.float32).tiny


def _register_projection() -> None:
    if not _registered:
        _registered.append(register_optimizer_step_post_hook(_project))


@torch.no_grad()
def _project(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    """Steps that this optimizer moved across 0 are reflected, its momentum kept; none is 0; NaN stays NaN."""
    updated = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    steps = [s for q in _LIVE for s in q.positive_parameters() if id(s) in updated]
    if steps:
        torch._foreach_abs_(steps)
        torch._foreach_maximum_(steps, _LEAST_STEP)
