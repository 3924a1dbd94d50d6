"""LSQ+ Eq. 2-4 on a GPU outside torch.compile: one kernel each way, nothing saved, the plain path's bits.

True division and no contraction to fused multiply-add; the gradients of s and beta are partial sums per block, added in
a fixed order without atomics, so they are the same in every run. One step size for all of x; float32 or half types.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 4096
# Adding and subtracting 1.5 * 2^23 rounds a float32 below 2^22 to an integer, halves to even.
_ROUND = tl.constexpr(12582912.0)


@triton.jit
def _code_of(v, n, p):
    v = tl.where(v < n, n, v)  # comparisons with NaN are false: NaN passes
    v = tl.where(v > p, p, v)
    return (v + _ROUND) - _ROUND


@triton.jit
def _forward_kernel(
    x, x_hat, s, beta, around, count, n, p, HAS_BETA: tl.constexpr, SHIFTED: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    step = tl.load(s)
    value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    if HAS_BETA:
        value = value - tl.load(beta)
    code = _code_of(tl.div_rn(value, step), n, p)
    if SHIFTED:
        code = code - tl.load(around)
    out = code * step
    if HAS_BETA and not SHIFTED:
        out = out + tl.load(beta)
    tl.store(x_hat + at, out.to(x_hat.dtype.element_ty), mask=inside)


@triton.jit
def _backward_kernel(
    x, grad, dx, s, beta, sums, blocks, count, n, p,
    HAS_BETA: tl.constexpr, INCLUSIVE: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    block = tl.program_id(0)
    at = block.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    g = tl.load(grad + at, mask=inside, other=0.0).to(tl.float32)
    if HAS_BETA:
        value = value - tl.load(beta)
    v = tl.div_rn(value, tl.load(s))
    code = _code_of(v, n, p)
    clipped = (v < n) | (v > p) if INCLUSIVE else (v <= n) | (v >= p)
    passed = tl.where(clipped, 0.0, g)
    tl.store(dx + at, passed.to(dx.dtype.element_ty), mask=inside)
    # Lanes past the end have a zero gradient, which a NaN or infinite v would not survive: mask the product.
    tl.store(sums + block, tl.sum(tl.where(inside, g * tl.where(clipped, code, code - v), 0.0)))
    tl.store(sums + blocks + block, tl.sum(g - passed))
    tl.store(sums + 2 * blocks + block, tl.sum(g))


def forward(x: Tensor, s: Tensor, beta: Tensor | None, around: Tensor | None, n: int, p: int) -> Tensor:
    """x_hat, or (codes - around) * s, in x's dtype and memory layout; x is dense, the others are float32 scalars."""
    x_hat = torch.empty_like(x)
    count = x.numel()
    with torch.cuda.device_of(x):  # Triton launches on the current device, which need not be x's
        _run_forward(x, x_hat, s, beta, around, count, n, p)
    return x_hat


def _run_forward(
    x: Tensor, x_hat: Tensor, s: Tensor, beta: Tensor | None, around: Tensor | None, count: int, n: int, p: int
) -> None:
    _forward_kernel[(triton.cdiv(count, _BLOCK),)](
        x, x_hat, s, s if beta is None else beta, s if around is None else around, count, float(n), float(p),
        HAS_BETA=beta is not None, SHIFTED=around is not None, BLOCK=_BLOCK, num_warps=8, enable_fp_fusion=False,
    )  # fmt: skip


def backward(
    grad: Tensor, x: Tensor, s: Tensor, beta: Tensor | None, n: int, p: int, inclusive: bool
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """dx, the sums for ds and dbeta, and the sum of the gradient; `inclusive` is the clip rule."""
    if grad.stride() != x.stride():
        grad = torch.empty_like(x, dtype=grad.dtype).copy_(grad)
    dx = torch.empty_like(grad)
    count = x.numel()
    blocks = triton.cdiv(count, _BLOCK)
    sums = torch.empty((3, blocks), dtype=torch.float32, device=x.device)
    with torch.cuda.device_of(x):
        _backward_kernel[(blocks,)](
            x, grad, dx, s, s if beta is None else beta, sums, blocks, count, float(n), float(p),
            HAS_BETA=beta is not None, INCLUSIVE=inclusive, BLOCK=_BLOCK, num_warps=8, enable_fp_fusion=False,
        )  # fmt: skip
    ds, dbeta, total = sums.sum(1).unbind()
    return dx, ds.view(s.shape), None if beta is None else dbeta.view(beta.shape), total
