"""MobileNetV1, MobileNetV2, EfficientNet-B0, MixNet-S and `silu_se_net`: networks of depthwise blocks.

Parameter names are timm's (`conv_stem`, `blocks.1.0.conv_pw`, `se.conv_reduce`, `conv_pwl`, `conv_head`, `classifier`),
padding is symmetric as in timm's models without the `tf_` prefix. Batch norms are plain, each activation is a module
of its own (`act1` after `bn1`), stochastic depth is left out. `width` multiplies channels, rounded to multiples of 8.
For images of at most 64 pixels (`image_size`) the stem keeps the size, which leaves a 2 x 2 map of a CIFAR image.

MixNet-S: 239.2 M MACs in convolutions and the classifier, where its paper's table says 256 M; why: see `mixnet_s`.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from quant.models.ops import Add, Concat, Mul, init_weights, make_divisible
from quant.models.resnet import SMALL_IMAGE


class SqueezeExcite(nn.Module):
    """x * sigmoid(expand(act(reduce(mean(x))))): one gate per channel from the map's average."""

    def __init__(self, channels: int, reduced: int, act: type[nn.Module]) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.conv_reduce = nn.Conv2d(channels, reduced, 1)
        self.act1 = act()
        self.conv_expand = nn.Conv2d(reduced, channels, 1)
        self.gate = nn.Sigmoid()
        self.mul = Mul()

    def forward(self, x: Tensor) -> Tensor:
        return self.mul(x, self.gate(self.conv_expand(self.act1(self.conv_reduce(self.pool(x))))))


class MixedConv2d(nn.Module):
    """Channels split in parts, one convolution each (its own kernel size), results concatenated (MixNet).

    The first part takes the remainder when the channels do not divide. Children are named `0`, `1`, ...
    """

    def __init__(self, c_in: int, c_out: int, kernels: tuple[int, ...], stride: int, depthwise: bool) -> None:
        super().__init__()
        self.splits = split_channels(c_in, len(kernels))
        for i, (k, n_in, n_out) in enumerate(
            zip(kernels, self.splits, split_channels(c_out, len(kernels)), strict=True)
        ):
            groups = n_in if depthwise else 1
            self.add_module(str(i), nn.Conv2d(n_in, n_out, k, stride, k // 2, groups=groups, bias=False))
        self.concat = Concat(1)

    def forward(self, x: Tensor) -> Tensor:
        parts = x.split(self.splits, 1)
        return self.concat([self.get_submodule(str(i))(part) for i, part in enumerate(parts)])


def split_channels(channels: int, parts: int) -> list[int]:
    split = [channels // parts] * parts
    split[0] += channels - sum(split)
    return split


def conv(c_in: int, c_out: int, kernels: tuple[int, ...], stride: int = 1, depthwise: bool = False) -> nn.Module:
    """One convolution without bias, or a mixed one when several kernels are named."""
    if len(kernels) > 1:
        return MixedConv2d(c_in, c_out, kernels, stride, depthwise)
    k = kernels[0]
    return nn.Conv2d(c_in, c_out, k, stride, k // 2, groups=c_in if depthwise else 1, bias=False)


@dataclass(frozen=True)
class Stage:
    """A run of equal blocks; the first carries the stride. `expand`, `project`: kernels of the 1x1 convolutions."""

    repeats: int
    c_out: int
    stride: int
    expansion: int
    kernels: tuple[int, ...] = (3,)
    se_ratio: float = 0.0
    act: type[nn.Module] = nn.ReLU
    expand: tuple[int, ...] = (1,)
    project: tuple[int, ...] = (1,)
    separable: bool = False
    """Depthwise-separable block (no expansion) instead of an inverted residual one."""
    act_after: bool = False
    """Separable blocks of MobileNetV1: activation after the 1x1 convolution, no shortcut."""


class DepthwiseSeparable(nn.Module):
    """Depthwise, optional squeeze-excite, 1x1; no activation at the end unless `act_after` (MobileNetV1)."""

    def __init__(self, c_in: int, c_out: int, stride: int, stage: Stage) -> None:
        super().__init__()
        self.conv_dw = conv(c_in, c_in, stage.kernels, stride, depthwise=True)
        self.bn1 = nn.BatchNorm2d(c_in)
        self.act1 = stage.act()
        reduced = round(c_in * stage.se_ratio)
        self.se = SqueezeExcite(c_in, reduced, stage.act) if reduced else nn.Identity()
        self.conv_pw = conv(c_in, c_out, stage.project)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.act2 = stage.act() if stage.act_after else nn.Identity()
        self.add = Add() if not stage.act_after and stride == 1 and c_in == c_out else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.se(self.act1(self.bn1(self.conv_dw(x))))
        y = self.act2(self.bn2(self.conv_pw(y)))
        return y if self.add is None else self.add(y, x)


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise, optional squeeze-excite, linear 1x1 projection, shortcut where shapes agree."""

    def __init__(self, c_in: int, c_out: int, stride: int, stage: Stage) -> None:
        super().__init__()
        c_mid = make_divisible(c_in * stage.expansion)
        self.conv_pw = conv(c_in, c_mid, stage.expand)
        self.bn1 = nn.BatchNorm2d(c_mid)
        self.act1 = stage.act()
        self.conv_dw = conv(c_mid, c_mid, stage.kernels, stride, depthwise=True)
        self.bn2 = nn.BatchNorm2d(c_mid)
        self.act2 = stage.act()
        # The ratio counts from the block's input channels, as in EfficientNet.
        reduced = round(c_mid * stage.se_ratio / stage.expansion)
        self.se = SqueezeExcite(c_mid, reduced, stage.act) if reduced else nn.Identity()
        self.conv_pwl = conv(c_mid, c_out, stage.project)
        self.bn3 = nn.BatchNorm2d(c_out)
        self.add = Add() if stride == 1 and c_in == c_out else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.act1(self.bn1(self.conv_pw(x)))
        y = self.se(self.act2(self.bn2(self.conv_dw(y))))
        y = self.bn3(self.conv_pwl(y))
        return y if self.add is None else self.add(y, x)


class MobileNet(nn.Module):
    """3x3 stem, stages of depthwise blocks, optional 1x1 head, global average pool, linear classifier."""

    def __init__(
        self,
        stem: int,
        stages: list[Stage],
        head: int,
        act: type[nn.Module],
        num_classes: int,
        in_channels: int,
        width: float,
        stem_stride: int = 2,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        c_in = make_divisible(stem * width)
        self.conv_stem = conv_stem(in_channels, c_in, stem_stride)
        self.bn1 = nn.BatchNorm2d(c_in)
        self.act1 = act()
        built: list[nn.Module] = []
        for stage in stages:
            c_out = make_divisible(stage.c_out * width)
            kind = DepthwiseSeparable if stage.separable else InvertedResidual
            blocks = [
                kind(c_in if i == 0 else c_out, c_out, stage.stride if i == 0 else 1, stage)
                for i in range(stage.repeats)
            ]
            built.append(nn.Sequential(*blocks))
            c_in = c_out
        self.blocks = nn.Sequential(*built)
        self.has_head = head > 0
        if self.has_head:
            self.conv_head = conv(c_in, head, (1,))
            self.bn2 = nn.BatchNorm2d(head)
            self.act2 = act()
            c_in = head
        self.global_pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten(1)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.classifier = nn.Linear(c_in, num_classes)
        init_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.act1(self.bn1(self.conv_stem(x))))
        if self.has_head:
            x = self.act2(self.bn2(self.conv_head(x)))
        return self.classifier(self.dropout(self.flatten(self.global_pool(x))))


def conv_stem(c_in: int, c_out: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)


def stem_stride(image_size: int) -> int:
    return 1 if image_size <= SMALL_IMAGE else 2


def mobilenet_v1(num_classes: int = 1000, in_channels: int = 3, width: float = 1.0, image_size: int = 224) -> MobileNet:
    """MobileNetV1 (Howard et al. 2017), names of timm's `mobilenetv1_100`: ReLU6, no shortcuts, no 1x1 head."""
    rows = [(1, 64, 1), (2, 128, 2), (2, 256, 2), (6, 512, 2), (2, 1024, 2)]
    stages = [Stage(r, c, s, 1, act=nn.ReLU6, separable=True, act_after=True) for r, c, s in rows]
    return MobileNet(32, stages, 0, nn.ReLU6, num_classes, in_channels, width, stem_stride(image_size))


def mobilenet_v2(num_classes: int = 1000, in_channels: int = 3, width: float = 1.0, image_size: int = 224) -> MobileNet:
    """MobileNetV2 (Sandler et al. 2018), names of timm's `mobilenetv2_100`: ReLU6, linear bottlenecks."""
    rows = [(2, 24, 2, 6), (3, 32, 2, 6), (4, 64, 2, 6), (3, 96, 1, 6), (3, 160, 2, 6), (1, 320, 1, 6)]
    stages = [Stage(1, 16, 1, 1, act=nn.ReLU6, separable=True)]
    stages += [Stage(r, c, s, e, act=nn.ReLU6) for r, c, s, e in rows]
    head = max(1280, make_divisible(1280 * width))
    return MobileNet(32, stages, head, nn.ReLU6, num_classes, in_channels, width, stem_stride(image_size))


def efficientnet_b0(
    num_classes: int = 1000, in_channels: int = 3, width: float = 1.0, dropout: float = 0.0, image_size: int = 224
) -> MobileNet:
    """EfficientNet-B0 (Tan and Le 2019a), names of timm's `efficientnet_b0`: SiLU and squeeze-excite in every block."""
    rows = [
        (2, 24, 2, 3),
        (2, 40, 2, 5),
        (3, 80, 2, 3),
        (3, 112, 1, 5),
        (4, 192, 2, 5),
        (1, 320, 1, 3),
    ]
    stages = [Stage(1, 16, 1, 1, (3,), 0.25, nn.SiLU, separable=True)]
    stages += [Stage(r, c, s, 6, (k,), 0.25, nn.SiLU) for r, c, s, k in rows]
    head = make_divisible(1280 * width)
    return MobileNet(32, stages, head, nn.SiLU, num_classes, in_channels, width, stem_stride(image_size), dropout)


def mixnet_s(
    num_classes: int = 1000, in_channels: int = 3, width: float = 1.0, dropout: float = 0.0, image_size: int = 224
) -> MobileNet:
    """MixNet-S (Tan and Le 2019b), names of timm's `mixnet_s`: mixed kernel sizes, split 1x1 convolutions.

    239,173,360 MACs at 224 x 224 (parameters 4,134,606, the paper's 4.1 M), against "256 M" in the paper. What was
    checked: the blocks are those of the authors' released code (tensorflow/tpu, `mixnet_builder.py`, `mixnet_s`), and
    SAME padding there changes no output size. Two operations per batch-norm element (6.24 M elements) make it 251.7 M,
    timm's published 0.25 G; the same rule gives timm's figures for ResNet-18 (1.82 G), EfficientNet-B0 (0.40 G) and
    MobileNetV2 (0.31 G). Adding activations, pooling, products and additions can pass 256 M, but no fixed charge per
    kind of operator also gives the paper's 360 M and 565 M for MixNet-M and -L (339.2 M and 555.3 M in MACs). So the
    released networks do not account for the paper's column, and MACs are what this project reports.
    """
    two = (1, 1)
    stages = [
        Stage(1, 16, 1, 1, separable=True),
        Stage(1, 24, 2, 6, expand=two, project=two),
        Stage(1, 24, 1, 3, expand=two, project=two),
        Stage(1, 40, 2, 6, (3, 5, 7), 0.5, nn.SiLU),
        Stage(3, 40, 1, 6, (3, 5), 0.5, nn.SiLU, two, two),
        Stage(1, 80, 2, 6, (3, 5, 7), 0.25, nn.SiLU, project=two),
        Stage(2, 80, 1, 6, (3, 5), 0.25, nn.SiLU, project=two),
        Stage(1, 120, 1, 6, (3, 5, 7), 0.5, nn.SiLU, two, two),
        Stage(2, 120, 1, 3, (3, 5, 7, 9), 0.5, nn.SiLU, two, two),
        Stage(1, 200, 2, 6, (3, 5, 7, 9, 11), 0.5, nn.SiLU),
        Stage(2, 200, 1, 6, (3, 5, 7, 9), 0.5, nn.SiLU, project=two),
    ]
    model = MobileNet(16, stages, 1536, nn.ReLU, num_classes, in_channels, width, stem_stride(image_size), dropout)
    # timm groups the stages (24, 24), (40, 40 x 3), ... into one Sequential each: same names, same order.
    model.blocks = regroup(model.blocks, (1, 2, 2, 2, 2, 2))
    return model


def regroup(blocks: nn.Sequential, sizes: tuple[int, ...]) -> nn.Sequential:
    """Sequentials joined in runs of `sizes`, their blocks renumbered from 0."""
    stages = list(blocks)
    out: list[nn.Module] = []
    for size in sizes:
        run, stages = stages[:size], stages[size:]
        out.append(nn.Sequential(*[block for stage in run for block in stage]))
    return nn.Sequential(*out)


def silu_se_net(
    num_classes: int = 10,
    in_channels: int = 3,
    image_size: int = 32,
    width: float = 1.0,
    depth: int = 2,
) -> MobileNet:
    """EfficientNet's blocks (SiLU, squeeze-excite, depthwise, linear bottlenecks) for small images.

    Stride-1 stem of 16 channels, stages of 16 (no expansion), 24, 40 and 80 channels, 4x expansion, `depth`
    blocks each, a 1x1 head of 160. A stage halves the map while it is at least 8 wide: 32 -> 4, 28 -> 7, 8 -> 4.
    """
    if image_size < 4:
        raise ValueError(f"silu_se_net: image_size must be at least 4, got {image_size}")
    strides = []
    size = image_size
    for _ in range(3):
        strides.append(2 if size >= 8 else 1)
        size //= strides[-1]
    stages = [Stage(1, 16, 1, 1, (3,), 0.25, nn.SiLU, separable=True)]
    for c, k, s in zip((24, 40, 80), (3, 5, 3), strides, strict=True):
        stages.append(Stage(depth, c, s, 4, (k,), 0.25, nn.SiLU))
    head = make_divisible(160 * width)
    return MobileNet(16, stages, head, nn.SiLU, num_classes, in_channels, width, stem_stride=1)
