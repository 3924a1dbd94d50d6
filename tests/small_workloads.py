"""Workloads that several tests map: small, without torch."""

from __future__ import annotations

from hwsim.network.layer import Layer, Loops, Tensor
from hwsim.network.workload import Workload


def conv(name: str, x: Tensor, channels: int, *, taps: int = 3, stride: int = 1, groups: int = 1) -> Layer:
    """A convolution with padding taps // 2."""
    _, width, high, wide = x.shape
    pad = taps // 2
    rows, columns = ((n + 2 * pad - taps) // stride + 1 for n in (high, wide))
    weight = Tensor(f"{name}.weight", (channels, width // groups, taps, taps), 8)
    return Layer(
        name, "conv", (x,), Tensor(f"{name}.out", (x.shape[0], channels, rows, columns), 8), weight,
        Loops(N=x.shape[0], G=groups, K=channels // groups, C=width // groups, P=rows, Q=columns, R=taps, S=taps),
        (stride, stride), padding=(pad, pad, pad, pad), bias=True,
    )  # fmt: skip


def add(name: str, one: Tensor, other: Tensor) -> Layer:
    """A residual addition."""
    return Layer(name, "add", (one, other), Tensor(f"{name}.out", one.shape, 8))


def chain(size: int = 16, images: int = 1, channels: int = 8) -> Workload:
    """Four convolutions, one strided, one depthwise."""
    x = Tensor("x", (images, 4, size, size), 8)
    first = conv("first", x, channels)
    second = conv("second", first.output, channels, groups=channels)
    third = conv("third", second.output, 2 * channels, taps=1)
    last = conv("last", third.output, channels, stride=2)
    return Workload("chain", (first, second, third, last))


def residual(size: int = 12) -> Workload:
    """A block with a skip, between two convolutions."""
    x = Tensor("x", (1, 4, size, size), 8)
    stem = conv("stem", x, 8)
    inner = conv("inner", stem.output, 16, taps=1)
    back = conv("back", inner.output, 8)
    total = add("total", back.output, stem.output)
    return Workload("residual", (stem, inner, back, total, conv("head", total.output, 4, stride=2)))


def max_pool(name: str, x: Tensor, taps: int = 3, stride: int = 2) -> Layer:
    """A pool whose windows overlap, with padding taps // 2."""
    images, width, high, wide = x.shape
    pad = taps // 2
    rows, columns = ((n + 2 * pad - taps) // stride + 1 for n in (high, wide))
    made = Tensor(f"{name}.out", (images, width, rows, columns), 8)
    return Layer(
        name, "max_pool", (x,), made, stride=(stride, stride), padding=(pad, pad, pad, pad), window=taps**2,
        kernel=(taps, taps),
    )  # fmt: skip


def pooled(size: int = 12) -> Workload:
    """A stem as of a residual network: convolution, pool with overlapping windows, convolution."""
    stem = conv("stem", Tensor("x", (1, 4, size, size), 8), 8)
    pool = max_pool("pool", stem.output)
    return Workload("pooled", (stem, pool, conv("head", pool.output, 8)))
