"""What must hold of one layer before anything is computed from it; each message names the layer and the way out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from hwsim.errors import WorkloadError

if TYPE_CHECKING:
    pass
from hwsim.network.layer import MAC_OPS, MAX_ELEMENTS, MAX_MACS, VECTOR_OPS, Layer, Tensor, operands


def describe_codes(tensor: Tensor) -> str:
    """`4 unsigned bits with an offset`, for messages."""
    if tensor.format is not None:
        return tensor.format.describe()
    return f"{tensor.bits} {'signed' if tensor.signed else 'unsigned'} bits{' with an offset' if tensor.offset else ''}"


def validate_layer(layer: Layer) -> None:
    """Refuse shapes that contradict the loops. Raises WorkloadError naming the layer and both numbers."""
    if layer.op not in MAC_OPS and layer.op not in VECTOR_OPS:
        raise WorkloadError(f"layer {layer.name}: unknown op {layer.op!r}; known: {', '.join(MAC_OPS + VECTOR_OPS)}")
    for tensor in operands(layer):
        if any(n < 1 for n in tensor.shape):
            raise WorkloadError(f"layer {layer.name}: tensor {tensor.name}: sizes must be positive, got {tensor.shape}")
        if tensor.elements > MAX_ELEMENTS:
            raise WorkloadError(
                f"layer {layer.name}: tensor {tensor.name}: {tensor.elements:,} elements are more than the "
                f"{MAX_ELEMENTS:,} that counts can hold"
            )
        if tensor.format is not None and tensor.format.bits != tensor.bits:
            raise WorkloadError(
                f"layer {layer.name}: tensor {tensor.name}: bits {tensor.bits} contradict its format, "
                f"{tensor.format.describe()}"
            )
        if not 1 <= tensor.bits <= 64:
            raise WorkloadError(f"layer {layer.name}: tensor {tensor.name}: bits must be 1..64, got {tensor.bits!r}")
    if any(n < 1 for n in layer.loops.as_tuple() + layer.stride + layer.dilation) or any(n < 0 for n in layer.padding):
        raise WorkloadError(f"layer {layer.name}: loops, stride and dilation must be positive, padding not negative")
    if layer.macs > MAX_MACS or layer.elements > MAX_MACS:
        raise WorkloadError(
            f"layer {layer.name}: {max(layer.macs, layer.elements):,} operations are more than {MAX_MACS:,}"
        )
    if any(layer.kernel):
        validate_window(layer)
    if not layer.has_macs:
        return
    loops = layer.loops
    if layer.weight is None or not layer.inputs:
        raise WorkloadError(f"layer {layer.name}: a {layer.op} needs a weight and an input")
    expected = {
        "output": (loops.N * loops.G * loops.K * loops.P * loops.Q, layer.output.elements),
        "weight": (
            loops.G * loops.K * loops.C * loops.R * loops.S,
            layer.weight.elements,
        ),
    }
    for operand, (from_loops, from_shape) in expected.items():
        if from_loops != from_shape:
            raise WorkloadError(
                f"layer {layer.name}: {operand} has {from_shape} elements, "
                f"its loops {loops.as_dict()} give {from_loops}"
            )
    if layer.op == "conv":
        validate_conv_geometry(layer)


def slides(size: int, made: int, reach: int, stride: int, padding: tuple[int, int]) -> bool:
    """Whether windows over `size` lines make `made` lines, all within the padded input or the last one cut short.

    >>> slides(112, 56, 3, 2, (1, 1)), slides(8, 4, 3, 2, (0, 0)), slides(8, 5, 3, 2, (0, 0))
    (True, True, False)
    """
    before, after = padding
    last = (made - 1) * stride - before
    return last < size + after < last + reach + stride


def validate_window(layer: Layer) -> None:
    """A sliding window must have the size stated and make the rows and columns there are; its last may be cut short."""
    if layer.has_macs or min(layer.kernel) < 1 or math.prod(layer.kernel) != layer.window:
        raise WorkloadError(f"layer {layer.name}: kernel {layer.kernel} of a window of {layer.window} elements")
    if len(layer.inputs) != 1 or len(layer.inputs[0].shape) != 4 or len(layer.output.shape) != 4:
        raise WorkloadError(f"layer {layer.name}: a window slides over one input of four dimensions")
    for axis in (0, 1):
        size, made = layer.inputs[0].shape[2 + axis], layer.output.shape[2 + axis]
        before, after = layer.padding[2 * axis : 2 * axis + 2]
        if not slides(size, made, layer.reach[axis], layer.stride[axis], (before, after)):
            lines = "rows" if axis == 0 else "columns"
            raise WorkloadError(
                f"layer {layer.name}: {made} output {lines} contradict an input of {size}, a window of "
                f"{layer.reach[axis]}, stride {layer.stride[axis]}, padding {before} and {after}"
            )


def validate_conv_geometry(layer: Layer) -> None:
    """Output rows and columns must follow from the (N, G*C, H, W) input; a 1-D convolution has H = P = R = 1."""
    loops, shape = layer.loops, layer.inputs[0].shape
    if len(shape) != 4 or shape[:2] != (loops.N, loops.G * loops.C):
        wanted = f"({loops.N}, {loops.G * loops.C}, H, W)"
        raise WorkloadError(f"layer {layer.name}: expected an input of shape {wanted}, got {shape}")
    top, bottom, left, right = layer.padding
    for axis, size, padding, kernel, out in (
        (0, shape[2], top + bottom, loops.R, loops.P),
        (1, shape[3], left + right, loops.S, loops.Q),
    ):
        expected = (size + padding - layer.dilation[axis] * (kernel - 1) - 1) // layer.stride[axis] + 1
        if expected != out:
            raise WorkloadError(
                f"layer {layer.name}: output {'rows' if axis == 0 else 'columns'} are {out}, input {size} with kernel "
                f"{kernel}, stride {layer.stride[axis]}, dilation {layer.dilation[axis]}, padding {padding} "
                f"gives {expected}"
            )
