"""Fourier transforms, each along one axis after the other as a product with the matrix of its definition.

A complex number is two real ones: c = length inputs (x 2 where they are complex), k = results (x 2), so c k MACs a row.
A fast transform would take fewer operations, but no MAC array here has its exchange of operands: the note says so.
"""

from __future__ import annotations

import math

from hwsim.frontends.lowering.handler_tables import named
from hwsim.frontends.lowering.ir import Op
from hwsim.frontends.lowering.lower import Handler, Lowering, Unhandled
from hwsim.frontends.lowering.values import Act, Const
from hwsim.network.layer import Loops

NOTE = "a Fourier transform is priced as a product with the matrix of the DFT, not as a fast transform"


def stft(walk: Lowering, op: Op) -> None:
    """Short-time Fourier transform as a linear layer: each frame times the real and imaginary rows of the DFT."""
    source, length = walk.act(op, "self"), op.get("n_fft")
    shape = walk.meta(op.outputs[0]).shape
    if not isinstance(length, int) or length < 1 or len(shape) < 2:
        raise Unhandled("frames of unknown length")
    bins, frames = shape[1:3] if op.get("return_complex") is True and len(shape) == 3 else shape[-3:-1]
    if len(shape) == 2:
        bins, frames = shape
    framed(walk, op, source, math.prod(source.shape[:-1]), length, frames, bins)


def onnx_stft(walk: Lowering, op: Op) -> None:
    """ONNX's STFT: frames first, then bins, then the two parts of a number."""
    source, length = walk.act(op, "self"), int(str(op.get("length")))
    _, frames, bins, _ = walk.shape(op)
    parts = 2 if len(source.shape) == 3 and source.shape[2] == 2 else 1
    framed(walk, op, source, source.shape[0], length * parts, frames, bins)


def framed(walk: Lowering, op: Op, source: Act, batch: int, length: int, frames: int, bins: int) -> None:
    """Every frame of `length` real numbers times the rows of the DFT."""
    walk.note("a short-time Fourier transform is priced as a product with the matrix of the DFT")
    windows = walk.emit("copy", op, [source], (batch, frames, length), source.record.origin, label="frames")
    weight = Const("dft", (2 * bins, length))
    loops = Loops(N=batch, K=2 * bins, C=length, P=frames)
    made = walk.emit(
        "linear", op, [windows], (batch, 2 * bins, frames), "linear", label="dft", weight=weight, loops=loops
    )
    walk.bind(op, made.seen_as(walk.shape(op)))


def transforms(walk: Lowering, op: Op) -> None:
    """torch.fft's transforms over one axis or several, and the three kernels that they become."""
    source = walk.act(op, "self")
    meta, made = walk.meta(next(op.refs()).name), walk.meta(op.outputs[0])
    rank = len(meta.shape)
    axes = [axis % rank for axis in axes_of(op, rank)]
    sizes, was_complex, becomes_complex = list(meta.shape), meta.is_complex, made.is_complex
    kernel = op.op.rpartition(".")[2].removeprefix("fft_")
    real_first = kernel in ("rfft", "rfft2", "rfftn", "_fft_r2c")
    order = axes[::-1] if real_first or not kernel.startswith(("irfft", "_fft_c2r")) else axes
    for number, axis in enumerate(order):
        last = number == len(order) - 1
        bins = made.shape[axis]
        parts_out = 2 if becomes_complex or not last else 1
        parts_in = 2 if was_complex else 1
        used = (
            bins // 2 + 1
            if parts_out == 1
            else used_length(op, axes, axis, sizes[axis], bins, real_first and not number)
        )
        used = min(sizes[axis], used)
        sizes[axis] = bins
        shape = (*sizes, 2) if parts_out == 2 else tuple(sizes)
        source = product(walk, op, source, used * parts_in, bins * parts_out, shape, f"dft{axis}")
        was_complex = parts_out == 2
    walk.bind(op, source)


def axes_of(op: Op, rank: int) -> list[int]:
    """The axes that are transformed, in the order of the arguments."""
    given = op.get("dim")
    if isinstance(given, int):
        return [given]
    if isinstance(given, tuple) and given:
        return [int(str(axis)) for axis in given]
    name = op.op.rpartition(".")[2]
    lengths = op.get("s")
    if name.endswith("2"):
        return [-2, -1]
    if name.endswith("n"):
        return list(range(-len(lengths), 0)) if isinstance(lengths, tuple) else list(range(rank))
    return [-1]


def used_length(op: Op, axes: list[int], axis: int, size: int, bins: int, halved: bool) -> int:
    """How many numbers along an axis take part: all of them, or the first `n` (`s`) of them."""
    lengths = op.get("s") if op.get("n") is None else (op.get("n"),)
    given = lengths[axes.index(axis)] if isinstance(lengths, tuple) else None
    if isinstance(given, int) and given > 0:
        return given
    return size if halved else min(size, bins)


def product(walk: Lowering, op: Op, source: Act, inner: int, outer: int, shape: tuple[int, ...], label: str) -> Act:
    """`source` along one axis times a stored matrix (outer, inner)."""
    walk.note(NOTE)
    rows = math.prod(shape) // outer
    loops = Loops(K=outer, C=inner, P=rows)
    seen = source.seen_as((rows, math.prod(source.shape) // rows)) if math.prod(source.shape) % rows == 0 else source
    weight = Const(f"{label}.matrix", (outer, inner))
    made = walk.emit("linear", op, [seen], (rows, outer), "linear", label=label, weight=weight, loops=loops)
    return made.seen_as(shape)


def dft(walk: Lowering, op: Op) -> None:
    """ONNX's DFT: the last axis holds one real number or a complex one's two parts."""
    source, axis, shape = walk.act(op, "self"), int(str(op.get("axis"))), walk.shape(op)
    length = min(source.shape[axis], int(str(op.get("length"))))
    made = product(walk, op, source, length * source.shape[-1], shape[axis] * shape[-1], shape, "dft")
    walk.bind(op, made)


KINDS = ("fft", "ifft", "rfft", "irfft")
HANDLERS: dict[str, Handler] = {
    "aten.stft": stft,
    **named((f"fft_{kind}{axes}" for kind in KINDS for axes in ("", "2", "n")), transforms),
    **named(("_fft_r2c", "_fft_c2c", "_fft_c2r"), transforms),
    "onnx.DFT": dft,
    "onnx.STFT": onnx_stft,
}
