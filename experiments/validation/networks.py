"""Layers of the networks that published results were measured on, written out by their shapes.

Names and sizes are those of the papers and of the MLPerf Tiny reference models; MACs are asserted against published
counts in the tests. Padding is written into the input's size.
"""

from __future__ import annotations

from itertools import pairwise

from hwsim.machine.parts import Operand
from hwsim.network.layer import Layer, Loops, Tensor

Bits = tuple[int, int, int]  # weight, input, output
W8A8: Bits = (8, 8, 8)


def conv(
    name: str,
    c: int,
    k: int,
    size: int | tuple[int, int],
    kernel: int | tuple[int, int],
    stride: int | tuple[int, int] = 1,
    *,
    groups: int = 1,
    batch: int = 1,
    bits: Bits = W8A8,
) -> Layer:
    """A convolution by its total channels and its OUTPUT size; unsigned inputs, as after ReLU."""
    (p, q), (r, s), (down, across) = pair(size), pair(kernel), pair(stride)
    rows, columns = (p - 1) * down + r, (q - 1) * across + s
    return Layer(
        name=name,
        op="conv",
        inputs=(Tensor(f"{name}.x", (batch, c, rows, columns), bits[1], signed=False),),
        output=Tensor(f"{name}.y", (batch, k, p, q), bits[2], signed=False),
        weight=Tensor(f"{name}.w", (k, c // groups, r, s), bits[0]),
        loops=Loops(N=batch, G=groups, K=k // groups, C=c // groups, P=p, Q=q, R=r, S=s),
        stride=(down, across),
        bias=True,
    )


def linear(name: str, c: int, k: int, *, batch: int = 1, bits: Bits = W8A8) -> Layer:
    """A matrix times a batch of vectors."""
    return Layer(
        name=name,
        op="linear",
        inputs=(Tensor(f"{name}.x", (batch, c), bits[1], signed=False),),
        output=Tensor(f"{name}.y", (batch, k), bits[2], signed=False),
        weight=Tensor(f"{name}.w", (k, c), bits[0]),
        loops=Loops(N=batch, K=k, C=c),
        bias=True,
    )


def kept_on_chip(layer: Layer) -> dict[Operand, str]:
    """For `price(resident=...)`: activations stay in the on-chip memory, as between the layers of a small network."""
    return {"input": layer.inputs[0].name, "output": layer.output.name}


def pair(value: int | tuple[int, int]) -> tuple[int, int]:
    """(value, value) of one number."""
    return value if isinstance(value, tuple) else (value, value)


def eyeriss_alexnet() -> tuple[Layer, ...]:
    """The five convolutions that the Eyeriss chip ran: two groups in CONV2, 4 and 5, batch 4, 16 bits."""
    b: Bits = (16, 16, 16)
    return (
        conv("CONV1", 3, 96, 55, 11, 4, batch=4, bits=b),
        conv("CONV2", 96, 256, 27, 5, groups=2, batch=4, bits=b),
        conv("CONV3", 256, 384, 13, 3, batch=4, bits=b),
        conv("CONV4", 384, 384, 13, 3, groups=2, batch=4, bits=b),
        conv("CONV5", 384, 256, 13, 3, groups=2, batch=4, bits=b),
    )


def resnet18_body(batch: int, bits: Bits) -> tuple[Layer, ...]:
    """The 19 convolutions between the first and the classifier, in the order of execution of HAWQ-V3's list."""
    layers: list[Layer] = []
    width = 64
    for stage, (k, size) in enumerate(((64, 56), (128, 28), (256, 14), (512, 7))):
        for block in range(2):
            c, stride = (width, 2) if block == 0 and stage else (k, 1)
            layers.append(conv(f"s{stage}b{block}a", c, k, size, 3, stride, batch=batch, bits=bits))
            layers.append(conv(f"s{stage}b{block}b", k, k, size, 3, batch=batch, bits=bits))
            if c != k:
                layers.append(conv(f"s{stage}b{block}d", c, k, size, 1, 2, batch=batch, bits=bits))
        width = k
    return tuple(layers)


def resnet50() -> tuple[Layer, ...]:
    """ResNet-50 v1.5 at 224 x 224: 53 convolutions (stride in the 3x3) and the classifier."""
    layers = [conv("conv1", 3, 64, 112, 7, 2)]
    c = 64
    for stage, (mid, size, blocks) in enumerate(((64, 56, 3), (128, 28, 4), (256, 14, 6), (512, 7, 3))):
        for block in range(blocks):
            stride = 2 if block == 0 and stage else 1
            name = f"s{stage}b{block}"
            layers.append(conv(f"{name}a", c, mid, size * stride, 1))
            layers.append(conv(f"{name}b", mid, mid, size, 3, stride))
            layers.append(conv(f"{name}c", mid, 4 * mid, size, 1))
            if block == 0:
                layers.append(conv(f"{name}d", c, 4 * mid, size, 1, stride))
            c = 4 * mid
    return (*layers, linear("fc", 2048, 1000))


def resnet8() -> tuple[Layer, ...]:
    """Image classification of MLPerf Tiny: 32 x 32 x 3, three residual stages of 16, 32, 64 channels."""
    layers = [conv("conv1", 3, 16, 32, 3)]
    c = 16
    for k, size in ((16, 32), (32, 16), (64, 8)):
        stride = 1 if k == c else 2
        layers += [conv(f"s{k}a", c, k, size, 3, stride), conv(f"s{k}b", k, k, size, 3)]
        if k != c:
            layers.append(conv(f"s{k}d", c, k, size, 1, stride))
        c = k
    return (*layers, linear("fc", 64, 10))


def ds_cnn() -> tuple[Layer, ...]:
    """Keyword spotting of MLPerf Tiny: 49 x 10 features, 10 x 4 convolution, four separable blocks of 64 channels."""
    layers = [conv("conv1", 1, 64, (25, 5), (10, 4), (2, 2))]
    for block in range(4):
        layers.append(conv(f"dw{block}", 64, 64, (25, 5), 3, groups=64))
        layers.append(conv(f"pw{block}", 64, 64, (25, 5), 1))
    return (*layers, linear("fc", 64, 12))


def mobilenet_v1_quarter() -> tuple[Layer, ...]:
    """Visual wake words of MLPerf Tiny: MobileNetV1 x 0.25 at 96 x 96."""
    layers = [conv("conv1", 3, 8, 48, 3, 2)]
    c, size = 8, 48
    plan = ((16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), *(((128, 1),) * 5), (256, 2), (256, 1))
    for block, (k, stride) in enumerate(plan):
        size //= stride
        layers.append(conv(f"dw{block}", c, c, size, 3, stride, groups=c))
        layers.append(conv(f"pw{block}", c, k, size, 1))
        c = k
    return (*layers, linear("fc", 256, 2))


def autoencoder() -> tuple[Layer, ...]:
    """Anomaly detection of MLPerf Tiny: fully connected 640-128x4-8-128x4-640; one inference, one window."""
    widths = (640, 128, 128, 128, 128, 8, 128, 128, 128, 128, 640)
    return tuple(linear(f"fc{i}", a, b) for i, (a, b) in enumerate(pairwise(widths)))


TINY = {"ic": resnet8, "kws": ds_cnn, "vww": mobilenet_v1_quarter, "ad": autoencoder}
