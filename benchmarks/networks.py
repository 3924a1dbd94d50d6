"""The networks of the search benchmarks: shapes of their distinct layers with MACs, 224 x 224, batch 1."""

from __future__ import annotations

from hwsim.network.layer import Layer, Loops, Tensor

# (name, K, C per group, P = Q, R = S, stride, groups): the distinct MAC layers at 224 x 224, batch 1.
RESNET18 = (
    ("conv1", 64, 3, 112, 7, 2, 1),
    ("64x56 3x3", 64, 64, 56, 3, 1, 1),
    ("128x28 3x3 s2", 128, 64, 28, 3, 2, 1),
    ("128x28 3x3", 128, 128, 28, 3, 1, 1),
    ("128x28 1x1 s2", 128, 64, 28, 1, 2, 1),
    ("256x14 3x3 s2", 256, 128, 14, 3, 2, 1),
    ("256x14 3x3", 256, 256, 14, 3, 1, 1),
    ("256x14 1x1 s2", 256, 128, 14, 1, 2, 1),
    ("512x7 3x3 s2", 512, 256, 7, 3, 2, 1),
    ("512x7 3x3", 512, 512, 7, 3, 1, 1),
    ("512x7 1x1 s2", 512, 256, 7, 1, 2, 1),
    ("fc", 1000, 512, 1, 1, 1, 1),
)
MOBILENET_V2 = (
    ("stem", 32, 3, 112, 3, 2, 1),
    ("dw 32x112", 1, 1, 112, 3, 1, 32),
    ("pw 32-16", 16, 32, 112, 1, 1, 1),
    ("pw 16-96", 96, 16, 112, 1, 1, 1),
    ("dw 96 s2", 1, 1, 56, 3, 2, 96),
    ("pw 96-24", 24, 96, 56, 1, 1, 1),
    ("pw 24-144", 144, 24, 56, 1, 1, 1),
    ("dw 144x56", 1, 1, 56, 3, 1, 144),
    ("pw 144-24", 24, 144, 56, 1, 1, 1),
    ("dw 144 s2", 1, 1, 28, 3, 2, 144),
    ("pw 144-32", 32, 144, 28, 1, 1, 1),
    ("pw 32-192", 192, 32, 28, 1, 1, 1),
    ("dw 192x28", 1, 1, 28, 3, 1, 192),
    ("pw 192-32", 32, 192, 28, 1, 1, 1),
    ("dw 192 s2", 1, 1, 14, 3, 2, 192),
    ("pw 192-64", 64, 192, 14, 1, 1, 1),
    ("pw 64-384", 384, 64, 14, 1, 1, 1),
    ("dw 384x14", 1, 1, 14, 3, 1, 384),
    ("pw 384-64", 64, 384, 14, 1, 1, 1),
    ("pw 384-96", 96, 384, 14, 1, 1, 1),
    ("pw 96-576", 576, 96, 14, 1, 1, 1),
    ("dw 576x14", 1, 1, 14, 3, 1, 576),
    ("pw 576-96", 96, 576, 14, 1, 1, 1),
    ("dw 576 s2", 1, 1, 7, 3, 2, 576),
    ("pw 576-160", 160, 576, 7, 1, 1, 1),
    ("pw 160-960", 960, 160, 7, 1, 1, 1),
    ("dw 960x7", 1, 1, 7, 3, 1, 960),
    ("pw 960-160", 160, 960, 7, 1, 1, 1),
    ("pw 960-320", 320, 960, 7, 1, 1, 1),
    ("head", 1280, 320, 7, 1, 1, 1),
    ("fc", 1000, 1280, 1, 1, 1, 1),
)
# Tokens as output rows; heads of attention as groups, the second activation in the weights' place.
VIT_B_16 = (
    ("patches", 768, 3, 14, 16, 16, 1),
    ("qkv", 2304, 768, (197, 1), 1, 1, 1),
    ("scores", 197, 64, (197, 1), 1, 1, 12),
    ("values", 64, 197, (197, 1), 1, 1, 12),
    ("projection", 768, 768, (197, 1), 1, 1, 1),
    ("mlp in", 3072, 768, (197, 1), 1, 1, 1),
    ("mlp out", 768, 3072, (197, 1), 1, 1, 1),
    ("head", 1000, 768, 1, 1, 1, 1),
)
# (expansion, output channels, repeats, stride, kernel) of the blocks of EfficientNet-B0.
B0_BLOCKS = (
    (1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5), (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)  # fmt: skip
# (repeats, output channels, stride, expansion, kernels, squeezed share, parts of the 1x1 convolutions in and out).
MIXNET_BLOCKS = (
    (1, 16, 1, 1, (3,), 0.0, 1, 1), (1, 24, 2, 6, (3,), 0.0, 2, 2), (1, 24, 1, 3, (3,), 0.0, 2, 2),
    (1, 40, 2, 6, (3, 5, 7), 0.5, 1, 1), (3, 40, 1, 6, (3, 5), 0.5, 2, 2), (1, 80, 2, 6, (3, 5, 7), 0.25, 1, 2),
    (2, 80, 1, 6, (3, 5), 0.25, 1, 2), (1, 120, 1, 6, (3, 5, 7), 0.5, 2, 2), (2, 120, 1, 3, (3, 5, 7, 9), 0.5, 2, 2),
    (1, 200, 2, 6, (3, 5, 7, 9, 11), 0.5, 1, 1), (2, 200, 1, 6, (3, 5, 7, 9), 0.5, 1, 2),
)  # fmt: skip
Shape = tuple[str, int, int, int | tuple[int, int], int, int, int]


def efficientnet_b0() -> tuple[Shape, ...]:
    """The distinct layers of EfficientNet-B0, squeeze and excitation included."""
    found: list[Shape] = [("stem", 32, 3, 112, 3, 2, 1)]
    channels, size = 32, 112
    for expansion, out, repeats, first_stride, kernel in B0_BLOCKS:
        for i in range(repeats):
            stride, wide, squeezed = first_stride if i == 0 else 1, channels * expansion, max(1, channels // 4)
            if expansion > 1:
                found.append((f"expand {channels}-{wide}", wide, channels, size, 1, 1, 1))
            size //= stride
            found.append((f"dw {wide}x{size} k{kernel} s{stride}", 1, 1, size, kernel, stride, wide))
            found.append((f"squeeze {wide}-{squeezed}", squeezed, wide, 1, 1, 1, 1))
            found.append((f"excite {squeezed}-{wide}", wide, squeezed, 1, 1, 1, 1))
            found.append((f"project {wide}-{out}", out, wide, size, 1, 1, 1))
            channels = out
    found += [("head", 1280, 320, 7, 1, 1, 1), ("fc", 1000, 1280, 1, 1, 1, 1)]
    return tuple({shape[1:]: shape for shape in reversed(found)}.values())


def mixnet_s() -> tuple[Shape, ...]:
    """The distinct layers of MixNet-S: every kernel size of a mixed convolution and every part of a split one."""
    found: list[Shape] = [("stem", 16, 3, 112, 3, 2, 1)]
    channels, size = 16, 112
    for repeats, out, first_stride, expansion, kernels, share, parts_in, parts_out in MIXNET_BLOCKS:
        for i in range(repeats):
            stride, wide, squeezed = first_stride if i == 0 else 1, channels * expansion, round(channels * share)
            if expansion > 1:
                k, c = wide // parts_in, channels // parts_in
                found.append((f"expand {c}-{k} at {size}", k, c, size, 1, 1, 1))
            size //= stride
            groups = wide // len(kernels)
            found.extend((f"dw {groups}x{size} k{n} s{stride}", 1, 1, size, n, stride, groups) for n in kernels)
            if squeezed:
                found.append((f"squeeze {wide}-{squeezed}", squeezed, wide, 1, 1, 1, 1))
                found.append((f"excite {squeezed}-{wide}", wide, squeezed, 1, 1, 1, 1))
            k, c = out // parts_out, wide // parts_out
            found.append((f"project {c}-{k} at {size}", k, c, size, 1, 1, 1))
            channels = out
    found += [("head", 1536, 200, 7, 1, 1, 1), ("fc", 1000, 1536, 1, 1, 1, 1)]
    return tuple({shape[1:]: shape for shape in reversed(found)}.values())


NETWORKS: dict[str, tuple[Shape, ...]] = {
    "resnet18": RESNET18,
    "mobilenet_v2": MOBILENET_V2,
    "efficientnet_b0": efficientnet_b0(),
    "mixnet_s": mixnet_s(),
    "vit_b_16": VIT_B_16,
}


def layers(network: str, bits: int) -> list[Layer]:
    """The distinct layers of a network at one width."""
    found: list[Layer] = []
    for name, k, c, p, r, stride, groups in NETWORKS[network]:
        rows, columns = p if isinstance(p, tuple) else (p, p)
        padding = 0 if r == stride else r // 2
        height, width = ((n - 1) * stride + r - 2 * padding for n in (rows, columns))
        found.append(
            Layer(
                name=name,
                op="conv",
                inputs=(Tensor("x", (1, c * groups, height, width), bits, signed=False),),
                output=Tensor("y", (1, k * groups, rows, columns), bits),
                weight=Tensor("w", (k * groups, c, r, r), bits),
                loops=Loops(G=groups, K=k, C=c, P=rows, Q=columns, R=r, S=r),
                stride=(stride, stride),
                padding=(padding,) * 4,
            )
        )
    return found
