"""The reference networks of MLPerf Tiny: ResNet-8, MobileNetV1 x0.25, DS-CNN and the anomaly autoencoder.

They mirror the Keras models of mlcommons/tiny: convolutions with bias before a batch norm of epsilon 1e-3 and
momentum 0.99 (0.01 in torch's sense), SAME padding, which at stride 2 puts the odd zero after the data
(nn.ZeroPad2d). `quant.weights.load_pretrained` reads the trained weights of the first two.
"""

import itertools

from torch import Tensor, nn

from quant.models.ops import Add, init_weights, same_pad


def norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class ConvNormAct(nn.Module):
    """pad (SAME), convolution with bias, batch norm, optional ReLU; `out_size` is the resulting map."""

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: tuple[int, int],
        stride: int,
        size: tuple[int, int],
        groups: int = 1,
        act: bool = True,
    ) -> None:
        super().__init__()
        self.pad, padding = same_pad(size, kernel, stride)
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride, padding, groups=groups)
        self.bn = norm(c_out)
        self.act = nn.ReLU() if act else nn.Identity()
        self.out_size = (-(-size[0] // stride), -(-size[1] // stride))

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(self.pad(x))))


class TinyResBlock(nn.Module):
    """3x3, norm, ReLU, 3x3, norm, plus the input or its 1x1 projection (bias, no norm); ReLU after the addition."""

    def __init__(self, c_in: int, c_out: int, stride: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.first = ConvNormAct(c_in, c_out, (3, 3), stride, size)
        self.second = ConvNormAct(c_out, c_out, (3, 3), 1, self.first.out_size, act=False)
        self.out_size = self.second.out_size
        self.shortcut = nn.Conv2d(c_in, c_out, 1, stride) if stride > 1 or c_in != c_out else nn.Identity()
        self.add = Add()
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(self.first(x))
        return self.relu(self.add(self.shortcut(x), y))


class ResNet8(nn.Module):
    def __init__(self, num_classes: int, in_channels: int, image_size: int, width: float) -> None:
        super().__init__()
        channels = [round(c * width) for c in (16, 32, 64)]
        self.stem = ConvNormAct(in_channels, channels[0], (3, 3), 1, (image_size, image_size))
        size = self.stem.out_size
        blocks: list[nn.Module] = []
        c_in = channels[0]
        for c_out, stride in zip(channels, (1, 2, 2), strict=True):
            block = TinyResBlock(c_in, c_out, stride, size)
            blocks.append(block)
            c_in, size = c_out, block.out_size
        self.blocks = nn.Sequential(*blocks)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten(1)
        self.linear = nn.Linear(c_in, num_classes)
        init_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.flatten(self.avgpool(self.blocks(self.stem(x)))))


class DepthwiseNet(nn.Module):
    """A convolution, then (depthwise 3x3, 1x1) pairs, each with batch norm and ReLU, average pool, classifier."""

    def __init__(
        self,
        in_channels: int,
        size: tuple[int, int],
        stem: tuple[int, tuple[int, int], int],
        pairs: list[tuple[int, int]],
        num_classes: int,
    ) -> None:
        super().__init__()
        c_in, kernel, stride = stem
        self.stem = ConvNormAct(in_channels, c_in, kernel, stride, size)
        size = self.stem.out_size
        layers: list[nn.Module] = []
        for c_out, stride in pairs:
            depthwise = ConvNormAct(c_in, c_in, (3, 3), stride, size, groups=c_in)
            size = depthwise.out_size
            layers.append(nn.Sequential(depthwise, ConvNormAct(c_in, c_out, (1, 1), 1, size)))
            c_in = c_out
        self.blocks = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten(1)
        self.linear = nn.Linear(c_in, num_classes)
        init_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.flatten(self.avgpool(self.blocks(self.stem(x)))))


class AnomalyAutoencoder(nn.Module):
    """640 -> 4 x 128 -> 8 -> 4 x 128 -> 640, batch norm and ReLU after every layer but the last."""

    def __init__(self, features: int, hidden: int, code: int) -> None:
        super().__init__()
        widths = [features, hidden, hidden, hidden, hidden, code, hidden, hidden, hidden, hidden]
        layers: list[nn.Module] = []
        for c_in, c_out in itertools.pairwise(widths):
            layers.append(
                nn.Sequential(nn.Linear(c_in, c_out), nn.BatchNorm1d(c_out, eps=1e-3, momentum=0.01), nn.ReLU())
            )
        self.layers = nn.Sequential(*layers)
        self.linear = nn.Linear(hidden, features)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.layers(x))


def resnet8(num_classes: int = 10, in_channels: int = 3, image_size: int = 32, width: float = 1.0) -> ResNet8:
    """MLPerf Tiny image classification; the trained network takes RGB 0..255, unscaled."""
    return ResNet8(num_classes, in_channels, image_size, width)


def mobilenet_v1_025(
    num_classes: int = 2, in_channels: int = 3, image_size: int = 96, width: float = 0.25
) -> DepthwiseNet:
    """MLPerf Tiny visual wake words: MobileNetV1 with a quarter of the channels (8, 16, 32, ..., 256)."""
    rows = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)]
    rows += [(512, 1)] * 5 + [(1024, 2), (1024, 1)]
    stem = (round(32 * width), (3, 3), 2)
    pairs = [(round(c * width), s) for c, s in rows]
    return DepthwiseNet(in_channels, (image_size, image_size), stem, pairs, num_classes)


def ds_cnn(
    num_classes: int = 12,
    in_channels: int = 1,
    frames: int = 49,
    coefficients: int = 10,
    width: float = 1.0,
) -> DepthwiseNet:
    """MLPerf Tiny keyword spotting: 10x4 stem of stride 2, four depthwise pairs of 64 channels, on 49 x 10 MFCCs."""
    channels = round(64 * width)
    stem = (channels, (10, 4), 2)
    return DepthwiseNet(in_channels, (frames, coefficients), stem, [(channels, 1)] * 4, num_classes)


def anomaly_autoencoder(features: int = 640, hidden: int = 128, code: int = 8) -> AnomalyAutoencoder:
    """MLPerf Tiny anomaly detection: the squared reconstruction error of 5 frames of 128 log-mel bands."""
    return AnomalyAutoencoder(features, hidden, code)
