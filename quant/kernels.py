"""The arithmetic of Eq. 2-4 on tensors, and the choice of the path that runs it.

`forward`, `backward` and `codes` compute in the widest dtype of their operands, never below float32, and return x's
dtype (`codes`: the computing dtype). The plain path is a dozen torch operations, which torch.compile fuses.
"""

from __future__ import annotations

import torch
from torch import Tensor


def computing_dtype(*operands: Tensor | None) -> torch.dtype:
    """The widest dtype of the operands, float32 at least."""
    wanted = torch.float32
    for operand in operands:
        if operand is not None:
            wanted = torch.promote_types(wanted, operand.dtype)
    return wanted


def _scaled(x: Tensor, s: Tensor, beta: Tensor | None, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor | None]:
    """v = (x - beta)/s with s and beta, all in `dtype`."""
    x, s = x.to(dtype), s.to(dtype)
    if beta is None:
        return x / s, s, None
    beta = beta.to(dtype)
    return (x - beta) / s, s, beta


def codes(x: Tensor, s: Tensor, beta: Tensor | None, n: int, p: int) -> Tensor:
    """round(clamp((x - beta)/s, n, p))."""
    v, _, _ = _scaled(x, s, beta, computing_dtype(x, s, beta))
    return v.clamp(n, p).round()


def forward(x: Tensor, s: Tensor, beta: Tensor | None, n: int, p: int) -> Tensor:
    """s * codes + beta, in x's dtype."""
    v, s, beta = _scaled(x, s, beta, computing_dtype(x, s, beta))
    x_hat = v.clamp(n, p).round() * s
    return (x_hat if beta is None else x_hat + beta).to(x.dtype)


def backward(
    grad: Tensor, x: Tensor, s: Tensor, beta: Tensor | None, n: int, p: int, grad_scale: float, inclusive: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """(dx, ds, dbeta) of Eq. 3 and 4; those of s and beta times `grad_scale`, summed to their shapes."""
    v, _, _ = _scaled(x, s, beta, computing_dtype(x, s, beta))
    # "Not clipped" instead of "in range": a NaN then counts as in range and its gradient of s is NaN, not n or p.
    clipped = (v < n) | (v > p) if inclusive else (v <= n) | (v >= p)
    rounded = v.clamp(n, p).round()
    dx = torch.where(clipped, 0.0, grad)
    wide = grad.to(v.dtype)
    ds = wide * torch.where(clipped, rounded, rounded - v)
    ds = (ds.sum_to_size(s.shape) * grad_scale).to(s.dtype)
    if beta is None:
        return dx, ds, None
    dbeta = torch.where(clipped, wide, 0.0)
    return dx, ds, (dbeta.sum_to_size(beta.shape) * grad_scale).to(beta.dtype)
