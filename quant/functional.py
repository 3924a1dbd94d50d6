"""LSQ+ as printed: Eq. 2 forwards, Eq. 3 and 4 backwards, as two functions without state.

`lsq_plus(x, s, beta, n, p)` is differentiable in x, s and beta; `codes` gives the integers behind it. One arithmetic
serves every path (eager, fused, compiled): v = (x - beta) / s, clamp, round half to even, times s, plus beta, each
operation rounded once, so that all paths return the same bits. Which path runs is decided in `quant.kernels`.
`lsq_plus_at` is what modules and layers call: with s or |s|, and with the value that padding has taken out.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from quant import kernels
from quant.kernels import Problem
from quant.spec import CLIP_RULES, check_choice


def codes(x: Tensor, s: Tensor | float, beta: Tensor | float | None, n: int, p: int) -> Tensor:
    """round(clamp((x - beta)/s, n, p)): integers held in a float tensor (float32 for half types); NaN stays NaN.

    LSQ+ Eq. 2. `s` and `beta` are scalars or broadcast against x.
    """
    return kernels.codes(x, _as_tensor(s, x), None if beta is None else _as_tensor(beta, x), n, p)


def lsq_plus(
    x: Tensor,
    s: Tensor | float,
    beta: Tensor | float | None,
    n: int,
    p: int,
    *,
    grad_scale: float = 1.0,
    clip_rule: str = "strict",
) -> Tensor:
    """x_hat = s * round(clamp((x - beta)/s, n, p)) + beta, with the gradients of LSQ+ Eq. 3 and 4.

    With v = (x - beta)/s, in range meaning n < v < p (`strict`, as printed) or n <= v <= p (`inclusive`):
    in range d/dx = 1, d/ds = round(v) - v, d/dbeta = 0; below d/dx = 0, d/ds = n, d/dbeta = 1; above d/ds = p.
    `grad_scale` multiplies the gradients of s and of beta, not that of x. `beta=None` is LSQ (Eq. 1).
    s and beta are scalars or broadcast against x; s must be positive (a `Quantizer` sees to that). Half-precision x is
    computed in float32 and returned in x's dtype. NaN in x, s or beta gives NaN out, and NaN gradients of s.
    """
    check_choice("clip_rule", clip_rule, CLIP_RULES)
    if not n <= 0 <= p or n == p:
        raise ValueError(f"code bounds: expected n <= 0 <= p and n < p, got n={n}, p={p}")
    beta = None if beta is None else _as_tensor(beta, x)
    problem = Problem(n, p, grad_scale, clip_rule == "inclusive")
    return lsq_plus_at(x, _as_tensor(s, x), beta, problem)[0]


def lsq_plus_at(x: Tensor, s: Tensor, beta: Tensor | None, problem: Problem) -> tuple[Tensor, Tensor | None]:
    """(x_hat, None), or (x_hat - c, c) where `problem` names a border value c; differentiable in x, s and beta."""
    if problem.border:
        return cast("tuple[Tensor, Tensor]", _LsqPlus.apply(x, s, beta, problem))
    return cast(Tensor, _LsqPlus.apply(x, s, beta, problem)), None


def _as_tensor(value: Tensor | float, like: Tensor) -> Tensor:
    if isinstance(value, Tensor):
        return value
    return torch.tensor(value, dtype=torch.promote_types(like.dtype, torch.float32), device=like.device)


class _LsqPlus(torch.autograd.Function):
    """Eq. 2-4 with nothing saved but the inputs: the backward pass recomputes v from x in one sweep."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, s: Tensor, beta: Tensor | None, problem: Problem
    ) -> Tensor | tuple[Tensor, Tensor]:
        ctx.save_for_backward(x, s, beta)
        ctx.problem = problem
        x_hat, border = kernels.forward(x, s, beta, problem)
        return x_hat if border is None else (x_hat, border)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, grad_border: Tensor | None = None) -> tuple[Tensor | None, ...]:
        x, s, beta = ctx.saved_tensors
        dx, ds, dbeta = kernels.backward(grad, grad_border, x, s, beta, ctx.problem)
        return dx, ds, dbeta, None
