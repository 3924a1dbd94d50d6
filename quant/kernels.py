"""The arithmetic of Eq. 2-4 on tensors, and the choice of the path that runs it.

Three paths, one result, bit for bit in the forward pass: `plain` torch operations (what torch.compile sees and fuses),
`fused` C for float32 on the CPU (one pass over memory each way; the C file is compiled once, in about 0.1 s, and kept),
`triton` for CUDA outside torch.compile.
All compute in the widest dtype of their operands, never below float32, and return x's dtype (`codes`: the wide one).
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import math
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

PATHS = ("auto", "plain", "fused", "triton")
# torch.compile options under which a CUDA kernel keeps eager's bits: true division, no contraction to fused
# multiply-add. On the CPU inductor does both without being asked.
EXACT_COMPILE_OPTIONS = {"eager_numerics.division_rounding": True, "emulate_precision_casts": True}

_SOURCE = Path(__file__).with_name("lsq_kernel.c")
_FLAGS = ("-O3", "-std=c11", "-fPIC", "-shared", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math")
_chosen = os.environ.get("HWSIM_KERNELS", "auto")


def computing_dtype(*operands: Tensor | None) -> torch.dtype:
    """The widest dtype of the operands, float32 at least."""
    wanted = torch.float32
    for operand in operands:
        if operand is not None:
            wanted = torch.promote_types(wanted, operand.dtype)
    return wanted


def codes(x: Tensor, s: Tensor, beta: Tensor | None, n: int, p: int) -> Tensor:
    """round(clamp((x - beta)/s, n, p))."""
    v, _, _ = _scaled(x, s, beta)
    return v.clamp(n, p).round()


def forward(x: Tensor, s: Tensor, beta: Tensor | None, n: int, p: int) -> Tensor:
    """s * codes + beta, in x's dtype."""
    path = choose(x, s, beta)
    if path == "fused":
        return _fused_forward(x, s, beta, n, p)
    if path == "triton":
        from quant import triton_kernel

        return triton_kernel.forward(x, s, beta, n, p)
    return _plain_forward(x, s, beta, n, p)


def backward(
    grad: Tensor, x: Tensor, s: Tensor, beta: Tensor | None, n: int, p: int, grad_scale: float, inclusive: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """(dx, ds, dbeta) of Eq. 3 and 4; those of s and beta times `grad_scale`, summed to their shapes."""
    path = choose(x, s, beta)
    if path == "fused":
        dx, ds, dbeta = _fused_backward(grad, x, s, beta, n, p, inclusive)
    elif path == "triton":
        from quant import triton_kernel

        bounds = _bounds(n, p, torch.float32, inclusive)
        dx, ds, dbeta = triton_kernel.backward(grad, x, s, beta, n, p, bounds)
    else:
        dx, ds, dbeta = _plain_backward(grad, x, s, beta, n, p, inclusive)
    ds = (ds * grad_scale).to(s.dtype)
    return dx, ds, None if beta is None or dbeta is None else (dbeta * grad_scale).to(beta.dtype)


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
    if torch.compiler.is_compiling() or _chosen == "plain" or torch._C._len_torch_dispatch_stack() > 0:
        return "plain"
    if type(x) is not Tensor and type(x) is not torch.nn.Parameter:
        return "plain"
    if x.device.type == "cuda":
        usable = _chosen in ("auto", "triton") and s.numel() == 1 and _is_dense(x) and _has_triton()
        return "triton" if usable and x.dtype != torch.float64 and s.dtype == torch.float32 else "plain"
    if x.device.type != "cpu" or x.numel() == 0:
        return "plain"
    if _chosen in ("auto", "fused") and _fits_fused(x, s, beta) and library() is not None:
        return "fused"
    return "plain"


def _is_dense(x: Tensor) -> bool:
    return x.is_contiguous() or (x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last))


# ---- plain -------------------------------------------------------------------------------------------------------


def _scaled(x: Tensor, s: Tensor, beta: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """v = (x - beta)/s with s and beta, all in the computing dtype."""
    dtype = computing_dtype(x, s, beta)
    x, s = x.to(dtype), s.to(dtype)
    if beta is None:
        return x / s, s, None
    beta = beta.to(dtype)
    return (x - beta) / s, s, beta


def _plain_forward(x: Tensor, s: Tensor, beta: Tensor | None, n: int, p: int) -> Tensor:
    v, wide_s, wide_beta = _scaled(x, s, beta)
    x_hat = v.clamp(n, p).round() * wide_s
    return (x_hat if wide_beta is None else x_hat + wide_beta).to(x.dtype)


def _plain_backward(
    grad: Tensor, x: Tensor, s: Tensor, beta: Tensor | None, n: int, p: int, inclusive: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    v, _, _ = _scaled(x, s, beta)
    low, high = _bounds(n, p, v.dtype, inclusive)
    # hardtanh_backward(a, v, low, high) is a where low < v < high, 0 where clipped, and a where v is NaN, in one pass.
    unclipped = torch.ops.aten.hardtanh_backward
    dx = unclipped(grad.to(v.dtype), v, low, high)
    ds = (grad * (v.clamp(n, p).round() - unclipped(v, v, low, high))).sum_to_size(s.shape)
    dbeta = None if beta is None else (grad - dx).sum_to_size(beta.shape)
    return dx.to(grad.dtype), ds, dbeta


def _bounds(n: int, p: int, dtype: torch.dtype, inclusive: bool) -> tuple[float, float]:
    """Values are clipped at or beyond these: n and p themselves, or their neighbours outside when they are in range.

    n <= 0 <= p.
    """
    if not inclusive:
        return float(n), float(p)
    return n - _spacing(n, dtype), p + _spacing(p, dtype)


def _spacing(value: int, dtype: torch.dtype) -> float:
    """Distance from `value` to the next number of that dtype away from zero."""
    if dtype == torch.float64:
        return math.ulp(float(value))
    return math.ulp(float(value)) * 2.0**29 if value else 2.0**-149


# ---- fused -------------------------------------------------------------------------------------------------------


def _laid_out_like(grad: Tensor, x: Tensor) -> Tensor:
    """The gradient in x's dtype and strides, so that both can be walked in storage order."""
    if grad.dtype == x.dtype and grad.stride() == x.stride():
        return grad
    return torch.empty_like(x).copy_(grad)


@dataclass(frozen=True)
class Library:
    """The compiled C file and where it lies."""

    path: Path
    forward: ctypes._NamedFuncPointer
    backward: ctypes._NamedFuncPointer
    blocks: ctypes._NamedFuncPointer


def _fits_fused(x: Tensor, s: Tensor, beta: Tensor | None) -> bool:
    """float32 throughout, x dense, one step for all of x or one per entry of its first axis."""
    if x.dtype != torch.float32 or s.dtype != torch.float32 or (beta is not None and beta.dtype != torch.float32):
        return False
    if beta is not None and beta.shape != s.shape:
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


def _fused_forward(x: Tensor, s: Tensor, beta: Tensor | None, n: int, p: int) -> Tensor:
    compiled = library()
    assert compiled is not None
    rows, columns, threads = _geometry(x, s)
    x_hat = torch.empty_like(x)
    offset = None if beta is None else beta.contiguous()
    compiled.forward(
        x.data_ptr(), x_hat.data_ptr(), rows, columns, s.data_ptr(), offset if offset is None else offset.data_ptr(),
        n, p, threads,
    )  # fmt: skip
    return x_hat


def _fused_backward(
    grad: Tensor, x: Tensor, s: Tensor, beta: Tensor | None, n: int, p: int, inclusive: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    compiled = library()
    assert compiled is not None
    rows, columns, threads = _geometry(x, s)
    grad = _laid_out_like(grad, x)
    dx = torch.empty_like(x)
    offset = None if beta is None else beta.contiguous()
    sums = torch.empty((2, rows, compiled.blocks(columns)), dtype=torch.float64)
    compiled.backward(
        x.data_ptr(), grad.data_ptr(), dx.data_ptr(), rows, columns, s.data_ptr(),
        offset if offset is None else offset.data_ptr(), n, p, inclusive, sums[0].data_ptr(), sums[1].data_ptr(),
        threads,
    )  # fmt: skip
    ds, dbeta = sums.sum(2).unbind()
    return dx, ds.view(s.shape), None if beta is None else dbeta.view(beta.shape)


@functools.cache
def library() -> Library | None:
    """The C file compiled for this machine (0.1 s, kept in the cache folder), or None without a working compiler."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or not _SOURCE.is_file():
        return None
    code = _SOURCE.read_bytes()
    key = hashlib.sha256(b"\0".join([code, compiler.encode(), " ".join(_FLAGS).encode(), _processor()]))
    for folder in _cache_folders():
        path = folder / f"lsq_{key.hexdigest()[:20]}.so"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not path.is_file():
                _compile(compiler, path)
            return _load(path)
        except (OSError, subprocess.SubprocessError):
            continue
    return None


def _cache_folders() -> list[Path]:
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return [Path(home) / "hwsim", Path(tempfile.gettempdir()) / f"hwsim-{os.getuid() if hasattr(os, 'getuid') else 0}"]


def _processor() -> bytes:
    """What tells processors apart for -march=native: a home folder may be shared by several kinds."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor().encode()
    return "".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})).encode()


def _compile(compiler: str, path: Path) -> None:
    """Compile beside `path` and move into place, so that processes starting together do not read half a file."""
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        made = Path(scratch) / path.name
        error: subprocess.SubprocessError | None = None
        # Without OpenMP, or without knowing the processor, the kernel is slower but the same.
        for extra in (("-march=native", "-fopenmp"), ("-march=native",), ()):
            command = [compiler, *_FLAGS, *extra, str(_SOURCE), "-o", str(made), "-lm"]
            try:
                subprocess.run(command, check=True, capture_output=True, timeout=60)
            except subprocess.SubprocessError as failure:
                error = failure
                continue
            os.replace(made, path)
            return
        raise error or subprocess.SubprocessError("no compiler command ran")


def _load(path: Path) -> Library:
    loaded = ctypes.CDLL(str(path))
    pointer, integer, real, flag = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float, ctypes.c_int
    loaded.lsq_forward.argtypes = [pointer, pointer, integer, integer, pointer, pointer, real, real, flag]
    loaded.lsq_forward.restype = None
    loaded.lsq_backward.argtypes = [
        pointer, pointer, pointer, integer, integer, pointer, pointer, real, real, flag, pointer, pointer, flag,
    ]  # fmt: skip
    loaded.lsq_backward.restype = None
    loaded.lsq_blocks.argtypes = [integer]
    loaded.lsq_blocks.restype = integer
    return Library(path, loaded.lsq_forward, loaded.lsq_backward, loaded.lsq_blocks)


@functools.cache
def _has_triton() -> bool:
    try:
        import triton  # noqa: F401
    except ImportError:
        return False
    return True
