"""CIFAR ResNet-20/32/44/56 (He et al. 2015, section 4.2) with the parameter-free shortcut (option A).

Names as in the public trained weights of akamaster/pytorch_resnet_cifar10 (`layer1.0.conv1`, `linear`), which
`quant.weights.load_pretrained` reads. Input: 3 x 32 x 32; 16, 32, 64 channels; n = (depth - 2) / 6 blocks a stage.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from quant.models.ops import Add, init_weights


class OptionA(nn.Module):
    """Shortcut without parameters: every second row and column, zeros in the new channels, half on each side."""

    def __init__(self, extra: int) -> None:
        super().__init__()
        self.before = extra // 2
        self.after = extra - extra // 2

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.before, self.after))


class CifarBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; activation after the addition."""

    def __init__(self, c_in: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.shortcut = nn.Identity() if stride == 1 else OptionA(planes - c_in)
        self.add = Add()
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu2(self.add(y, self.shortcut(x)))


class CifarResNet(nn.Module):
    def __init__(self, blocks_per_stage: int, num_classes: int = 10, in_channels: int = 3, width: float = 1.0) -> None:
        super().__init__()
        planes = [round(c * width) for c in (16, 32, 64)]
        self.conv1 = nn.Conv2d(in_channels, planes[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes[0])
        self.relu = nn.ReLU()
        c_in = planes[0]
        for stage, p in enumerate(planes, start=1):
            blocks: list[nn.Module] = []
            for i in range(blocks_per_stage):
                blocks.append(CifarBlock(c_in, p, 2 if stage > 1 and i == 0 else 1))
                c_in = p
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten(1)
        self.linear = nn.Linear(c_in, num_classes)
        init_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(self.flatten(self.avgpool(x)))


def resnet20(num_classes: int = 10, in_channels: int = 3, width: float = 1.0) -> CifarResNet:
    return CifarResNet(3, num_classes, in_channels, width)


def resnet32(num_classes: int = 10, in_channels: int = 3, width: float = 1.0) -> CifarResNet:
    return CifarResNet(5, num_classes, in_channels, width)


def resnet44(num_classes: int = 10, in_channels: int = 3, width: float = 1.0) -> CifarResNet:
    return CifarResNet(7, num_classes, in_channels, width)


def resnet56(num_classes: int = 10, in_channels: int = 3, width: float = 1.0) -> CifarResNet:
    return CifarResNet(9, num_classes, in_channels, width)
