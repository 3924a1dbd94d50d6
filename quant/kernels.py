"""The arithmetic of Eq. 2-4 on tensors, and the choice of the path that runs it.

Three paths, one result, bit for bit in the forward pass: `plain` torch operations (what torch.compile sees and fuses),
`fused` C for float32 on the CPU (one pass over memory each way; the C file is compiled once, in about 0.1 s, and kept),
`triton` for CUDA outside torch.compile. All compute in the widest dtype of their operands, never below float32, and
return x's dtype. `Problem` holds what they need besides x; `border` is explained there.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from quant.compiled import Build

PATHS = ("auto", "plain", "fused", "triton")
# torch.compile options under which a CUDA kernel keeps eager's bits: true division, no contraction to fused
# multiply-add. On the CPU inductor does both without being asked.
EXACT_COMPILE_OPTIONS = {"eager_numerics.division_rounding": True, "emulate_precision_casts": True}

NO_BORDER, BORDER_OF_ZERO, BORDER_OF_CODE_0 = 0, 1, 2

_KERNEL = Build(
    Path(__file__).with_name("lsq_kernel.c"),
    "lsq",
    ("-O3", "-std=c11", "-fPIC", "-shared", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"),
    # Without OpenMP, or without knowing the processor, the kernel is slower but the same.
    (("-march=native", "-fopenmp"), ("-march=native",), ()),
)
_chosen = os.environ.get("HWSIM_KERNELS", "auto")


@dataclass(frozen=True)
class Problem:
    """Constants of one call: code bounds, clip rule, gradient scale, and what the border of a padded map holds.

    With `absolute`, s counts as |s|, and its gradient has the sign of s. `ewgs` is delta of Lee et al. (CVPR 2021,
    Eq. 6): gradients in range become g + delta |g| (v - round v).

    With `border`, the result is x_hat - c together with c, the value that the padding would have: quant(0), or beta
    (code 0). Zeros around x_hat - c then stand for c, and c enters through the bias: no padded copy is made.
    """

    n: int
    p: int
    grad_scale: float = 1.0
    inclusive: bool = False
    border: int = NO_BORDER
    absolute: bool = False
    ewgs: float = 0.0


def codes(x: Tensor, s: Tensor, beta: Tensor | None, n: int, p: int) -> Tensor:
    """round(clamp((x - beta)/s, n, p)) in the computing dtype."""
    v, _, _ = _scaled(x, s, beta)
    return v.clamp(n, p).round()


def forward(x: Tensor, s: Tensor, beta: Tensor | None, problem: Problem) -> tuple[Tensor, Tensor | None]:
    """(x_hat, None) in x's dtype, or (x_hat - c, c) with a border."""
    path = choose(x, s, beta)
    if path == "fused":
        return _fused_forward(x, s, beta, problem)
    s = s.abs() if problem.absolute else s
    if path == "triton":
        from quant import triton_kernel

        code = border_code(s, beta, problem)
        shifted = triton_kernel.forward(x, s, beta, code, problem.n, problem.p)
    else:
        return _plain_forward(x, s, beta, problem)
    return shifted, None if code is None or beta is None else code * s + beta


def backward(
    grad: Tensor,
    grad_border: Tensor | None,
    x: Tensor,
    s: Tensor,
    beta: Tensor | None,
    problem: Problem,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """(dx, ds, dbeta) of Eq. 3 and 4; those of s and beta times the gradient scale, summed to their shapes."""
    path = "plain" if problem.ewgs else choose(x, s, beta)
    if path == "fused":
        return _fused_backward(grad, grad_border, x, s, beta, problem)
    raw_s, s = s, s.abs() if problem.absolute else s
    if path == "triton":
        from quant import triton_kernel

        dx, ds, dbeta, total = triton_kernel.backward(grad, x, s, beta, problem.n, problem.p, problem.inclusive)
    else:
        dx, ds, dbeta, total = _plain_backward(grad, x, s, beta, problem)
    if problem.border and beta is not None and dbeta is not None and grad_border is not None:
        ds, dbeta = _with_border(ds, dbeta, grad_border - total, s, beta, problem)
    ds = (ds * problem.grad_scale).to(raw_s.dtype)
    if problem.absolute:
        ds = torch.where(raw_s < 0, -ds, ds)
    return dx, ds, None if beta is None or dbeta is None else (dbeta * problem.grad_scale).to(beta.dtype)


@contextmanager
def using(path: str) -> Iterator[None]:
    """Inside, the named path runs wherever it can ("auto": the best); for tests and benchmarks."""
    global _chosen
    if path not in PATHS:
        raise ValueError(f"kernel path: expected one of {', '.join(PATHS)}, got {path!r}")
    before, _chosen = _chosen, path
    try:
        yield
    finally:
        _chosen = before


def choose(x: Tensor, s: Tensor, beta: Tensor | None) -> str:
    """The path for these operands: `plain` while anything traces, and where the others do not apply."""
    if torch.compiler.is_compiling() or _chosen == "plain":
        return "plain"
    # Tracers and dispatch modes must see torch operations; a C call would leave a constant behind.
    if torch._C._is_tracing() or torch._C._len_torch_dispatch_stack() > 0:
        return "plain"
    if type(x) is not Tensor and type(x) is not torch.nn.Parameter:
        return "plain"
    if x.is_cuda:
        usable = _chosen in ("auto", "triton") and s.numel() == 1 and _is_dense(x) and _has_triton()
        return "triton" if usable and x.dtype != torch.float64 and s.dtype == torch.float32 else "plain"
    if x.is_cpu and _chosen in ("auto", "fused") and _fits_fused(x, s, beta) and library() is not None:
        return "fused"
    return "plain"


def _is_dense(x: Tensor) -> bool:
    return x.is_contiguous() or (x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last))


# ---- plain -------------------------------------------------------------------------------------------------------


def computing_dtype(*operands: Tensor | None) -> torch.dtype:
    """The widest dtype of the operands, float32 at least."""
    wanted = torch.float32
    for operand in operands:
        if operand is not None:
            wanted = torch.promote_types(wanted, operand.dtype)
    return wanted


def _scaled(x: Tensor, s: Tensor, beta: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """v = (x - beta)/s with s and beta, all in the computing dtype."""
    dtype = computing_dtype(x, s, beta)
    x, s = x.to(dtype), s.to(dtype)
    if beta is None:
        return x / s, s, None
    beta = beta.to(dtype)
    return (x - beta) / s, s, beta


def border_code(s: Tensor, beta: Tensor | None, problem: Problem) -> Tensor | None:
    """The code around a padded map: that of 0, or code 0; None without a border."""
    if not problem.border or beta is None:
        return None
    if problem.border == BORDER_OF_CODE_0:
        return torch.zeros_like(s)
    return ((0.0 - beta) / s).clamp(problem.n, problem.p).round()


def _plain_forward(x: Tensor, s: Tensor, beta: Tensor | None, problem: Problem) -> tuple[Tensor, Tensor | None]:
    v, wide_s, wide_beta = _scaled(x, s, beta)
    code = v.clamp(problem.n, problem.p).round()
    around = border_code(wide_s, wide_beta, problem)
    if around is not None and wide_beta is not None:
        return ((code - around) * wide_s).to(x.dtype), around * wide_s + wide_beta
    x_hat = code * wide_s
    return (x_hat if wide_beta is None else x_hat + wide_beta).to(x.dtype), None


def _plain_backward(
    grad: Tensor, x: Tensor, s: Tensor, beta: Tensor | None, problem: Problem
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """dx, the sums that make ds and dbeta of x_hat, and the sum of the gradient."""
    v, _, _ = _scaled(x, s, beta)
    wide = grad.to(v.dtype)
    dx = where_in_range(wide, v, problem)
    code = v.clamp(problem.n, problem.p).round()
    ds = (wide * (code - where_in_range(v, v, problem))).sum_to_size(s.shape)
    dbeta = None if beta is None else (wide - dx).sum_to_size(beta.shape)
    if problem.ewgs:
        dx = dx + problem.ewgs * dx.abs() * (v - code)
    return dx.to(grad.dtype), ds, dbeta, wide.sum() if problem.border else ds


def where_in_range(a: Tensor, v: Tensor, problem: Problem) -> Tensor:
    """a where v is in range or NaN, 0 where it is clipped."""
    if problem.inclusive:
        return torch.where(is_clipped(v, problem), 0.0, a)
    # a where n < v < p, in one pass.
    return torch.ops.aten.hardtanh_backward(a, v, float(problem.n), float(problem.p))


def is_clipped(v: Tensor, problem: Problem) -> Tensor:
    """v <= n or v >= p as printed, v < n or v > p with the inclusive rule. Plain comparisons with n and p: bounds moved
    to their neighbours would be subnormal at n = 0, and equal to it where the processor flushes those to 0.
    """
    if problem.inclusive:
        return (v < problem.n) | (v > problem.p)
    return (v <= problem.n) | (v >= problem.p)


def _with_border(
    ds: Tensor, dbeta: Tensor, rest: Tensor, s: Tensor, beta: Tensor, problem: Problem
) -> tuple[Tensor, Tensor]:
    """Sums for x_hat - c and c from those for x_hat; `rest` is the gradient of c less the sum of that of x_hat - c."""
    if problem.border == BORDER_OF_CODE_0:
        return ds, dbeta + rest
    v = (0.0 - beta) / s
    clipped = is_clipped(v, problem)
    code = v.clamp(problem.n, problem.p).round()
    return ds + rest * torch.where(clipped, code, code - v), dbeta + torch.where(clipped, rest, 0.0)


# ---- fused -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Library:
    """The compiled C file and where it lies."""

    path: Path
    forward: ctypes._NamedFuncPointer
    backward: ctypes._NamedFuncPointer


def _fits_fused(x: Tensor, s: Tensor, beta: Tensor | None) -> bool:
    """float32 throughout, x dense and not empty, one step for all of x or one per entry of its first axis."""
    if x.dtype != torch.float32 or s.dtype != torch.float32 or x.numel() == 0:
        return False
    if beta is not None and (beta.dtype != torch.float32 or beta.shape != s.shape or not beta.is_contiguous()):
        return False
    if s.numel() == 1:
        return _is_dense(x)
    rows = (x.shape[0], *[1] * (x.ndim - 1))
    return tuple(s.shape) == rows and x.is_contiguous() and s.is_contiguous()


def _geometry(x: Tensor, s: Tensor) -> tuple[int, int, int]:
    """(rows, columns, threads) for the C functions."""
    rows = s.numel()
    threads = torch.get_num_threads() if x.numel() > 2**16 else 1
    return rows, x.numel() // rows, threads


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _fused_forward(x: Tensor, s: Tensor, beta: Tensor | None, problem: Problem) -> tuple[Tensor, Tensor | None]:
    compiled = library()
    assert compiled is not None
    rows, columns, threads = _geometry(x, s)
    x_hat = torch.empty_like(x)
    border = torch.empty_like(s) if problem.border else None
    compiled.forward(
        x.data_ptr(), x_hat.data_ptr(), rows, columns, s.data_ptr(), problem.absolute, _address(beta),
        problem.n, problem.p, problem.border, _address(border), threads,
    )  # fmt: skip
    return x_hat, border


def _fused_backward(
    grad: Tensor,
    grad_border: Tensor | None,
    x: Tensor,
    s: Tensor,
    beta: Tensor | None,
    problem: Problem,
) -> tuple[Tensor, Tensor, Tensor | None]:
    compiled = library()
    assert compiled is not None
    rows, columns, threads = _geometry(x, s)
    if grad.dtype != x.dtype or grad.stride() != x.stride():
        grad = torch.empty_like(x).copy_(grad)
    dx, ds = torch.empty_like(x), torch.empty_like(s)
    dbeta = None if beta is None else torch.empty_like(beta)
    missing_memory = compiled.backward(
        x.data_ptr(), grad.data_ptr(), dx.data_ptr(), rows, columns, s.data_ptr(), problem.absolute, _address(beta),
        problem.n, problem.p, problem.inclusive, problem.border, _address(grad_border), problem.grad_scale,
        ds.data_ptr(), _address(dbeta), threads,
    )  # fmt: skip
    if missing_memory:
        raise MemoryError("the quantizer's backward pass found no memory for its partial sums")
    return dx, ds, dbeta


@functools.cache
def library() -> Library | None:
    """The C file compiled for this machine (0.1 s, kept in the cache folder), or None without a working compiler."""
    for path in _KERNEL.files():
        try:
            return _load(path)
        except OSError:
            continue
    return None


def _load(path: Path) -> Library:
    loaded = ctypes.CDLL(str(path))
    pointer, integer, real, wide, flag = (
        ctypes.c_void_p, ctypes.c_int64, ctypes.c_float, ctypes.c_double, ctypes.c_int,
    )  # fmt: skip
    loaded.lsq_forward.argtypes = [
        pointer, pointer, integer, integer, pointer, flag, pointer, real, real, flag, pointer, flag,
    ]  # fmt: skip
    loaded.lsq_forward.restype = None
    loaded.lsq_backward.argtypes = [
        pointer, pointer, pointer, integer, integer, pointer, flag, pointer, real, real, flag, flag, pointer, wide,
        pointer, pointer, flag,
    ]  # fmt: skip
    loaded.lsq_backward.restype = flag
    return Library(path, loaded.lsq_forward, loaded.lsq_backward)


@functools.cache
def _has_triton() -> bool:
    try:
        import triton  # noqa: F401
    except ImportError:
        return False
    return True
