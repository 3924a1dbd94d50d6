"""ResNet-18/34/50 of ImageNet, standard (He et al. 2015) and pre-activation (He et al. 2016).

Standard: parameter names of torchvision and timm (`layer1.0.conv1`, `downsample.0`), stride in the 3x3 convolution.
Pre-activation: names of timm's `resnetv2_*` (`stem.conv`, `stages.0.blocks.0.norm1`, `head.fc`), batch norm, no
weight standardisation; LSQ trains these. `width` scales every stage, `in_channels` the input. Images of at most 64
pixels (`image_size`) get a 3x3 stem of stride 1 without max pooling, as is usual on CIFAR.
"""

from torch import Tensor, nn

from quant.models.ops import Add, init_weights

SMALL_IMAGE = 64


def conv(c_in: int, c_out: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False)


def stem(c_in: int, c_out: int, image_size: int) -> tuple[nn.Conv2d, nn.Module]:
    """The first convolution and what follows it: 7x7 and max pooling, or 3x3 alone for small images."""
    if image_size <= SMALL_IMAGE:
        return conv(c_in, c_out, 3), nn.Identity()
    return conv(c_in, c_out, 7, 2), nn.MaxPool2d(3, 2, 1)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; activation after the addition."""

    expansion = 1

    def __init__(self, c_in: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv(c_in, planes, 3, stride)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu1 = nn.ReLU()
        self.conv2 = conv(planes, planes, 3)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = projection(c_in, planes, stride)
        self.add = Add()
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu2(self.add(y, shortcut))


class Bottleneck(nn.Module):
    """1x1, 3x3 (carries the stride), 1x1 convolutions and a shortcut; activation after the addition."""

    expansion = 4

    def __init__(self, c_in: int, planes: int, stride: int) -> None:
        super().__init__()
        c_out = planes * self.expansion
        self.conv1 = conv(c_in, planes, 1)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu1 = nn.ReLU()
        self.conv2 = conv(planes, planes, 3, stride)
        self.bn2 = nn.BatchNorm2d(planes)
        self.relu2 = nn.ReLU()
        self.conv3 = conv(planes, c_out, 1)
        self.bn3 = nn.BatchNorm2d(c_out)
        self.downsample = projection(c_in, c_out, stride)
        self.add = Add()
        self.relu3 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.relu2(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu3(self.add(y, shortcut))


def projection(c_in: int, c_out: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and c_in == c_out:
        return None
    return nn.Sequential(conv(c_in, c_out, 1, stride), nn.BatchNorm2d(c_out))


class ResNet(nn.Module):
    """Standard ImageNet ResNet: 7x7 stem, four stages of blocks, global average pool, linear classifier."""

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        depths: tuple[int, int, int, int],
        num_classes: int = 1000,
        in_channels: int = 3,
        width: float = 1.0,
        image_size: int = 224,
    ) -> None:
        super().__init__()
        planes = [round(p * width) for p in (64, 128, 256, 512)]
        self.conv1, self.maxpool = stem(in_channels, planes[0], image_size)
        self.bn1 = nn.BatchNorm2d(planes[0])
        self.relu = nn.ReLU()
        c_in = planes[0]
        for stage, (p, depth) in enumerate(zip(planes, depths, strict=True), start=1):
            blocks: list[nn.Module] = []
            for i in range(depth):
                blocks.append(block(c_in, p, 2 if stage > 1 and i == 0 else 1))
                c_in = p * block.expansion
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten(1)
        self.fc = nn.Linear(c_in, num_classes)
        init_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.flatten(self.avgpool(x)))


class PreActBasic(nn.Module):
    """norm, ReLU, 3x3, norm, ReLU, 3x3, addition; the projection branches off after the first ReLU."""

    expansion = 1

    def __init__(self, c_in: int, planes: int, stride: int) -> None:
        super().__init__()
        project = stride != 1 or c_in != planes
        self.downsample = PreActProjection(c_in, planes, stride) if project else None
        self.norm1 = nn.BatchNorm2d(c_in)
        self.act1 = nn.ReLU()
        self.conv1 = conv(c_in, planes, 3, stride)
        self.norm2 = nn.BatchNorm2d(planes)
        self.act2 = nn.ReLU()
        self.conv2 = conv(planes, planes, 3)
        self.add = Add()

    def forward(self, x: Tensor) -> Tensor:
        pre = self.act1(self.norm1(x))
        shortcut = x if self.downsample is None else self.downsample(pre)
        y = self.conv2(self.act2(self.norm2(self.conv1(pre))))
        return self.add(y, shortcut)


class PreActBottleneck(nn.Module):
    """Pre-activation 1x1, 3x3 (carries the stride), 1x1; the projection branches off after the first ReLU."""

    expansion = 4

    def __init__(self, c_in: int, planes: int, stride: int) -> None:
        super().__init__()
        c_out = planes * self.expansion
        project = stride != 1 or c_in != c_out
        self.downsample = PreActProjection(c_in, c_out, stride) if project else None
        self.norm1 = nn.BatchNorm2d(c_in)
        self.act1 = nn.ReLU()
        self.conv1 = conv(c_in, planes, 1)
        self.norm2 = nn.BatchNorm2d(planes)
        self.act2 = nn.ReLU()
        self.conv2 = conv(planes, planes, 3, stride)
        self.norm3 = nn.BatchNorm2d(planes)
        self.act3 = nn.ReLU()
        self.conv3 = conv(planes, c_out, 1)
        self.add = Add()

    def forward(self, x: Tensor) -> Tensor:
        pre = self.act1(self.norm1(x))
        shortcut = x if self.downsample is None else self.downsample(pre)
        y = self.conv2(self.act2(self.norm2(self.conv1(pre))))
        y = self.conv3(self.act3(self.norm3(y)))
        return self.add(y, shortcut)


class PreActProjection(nn.Module):
    """1x1 convolution of the shortcut, without norm (timm: `downsample.conv`)."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.conv = conv(c_in, c_out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class PreActStage(nn.Module):
    def __init__(self, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)


class PreActStem(nn.Module):
    def __init__(self, c_in: int, c_out: int, image_size: int) -> None:
        super().__init__()
        self.conv, self.pool = stem(c_in, c_out, image_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.conv(x))


class PreActHead(nn.Module):
    def __init__(self, c_in: int, num_classes: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten(1)
        self.fc = nn.Linear(c_in, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.flatten(self.pool(x)))


class PreActResNet(nn.Module):
    """Pre-activation ImageNet ResNet: the norm and ReLU come before each convolution, one pair after the last."""

    def __init__(
        self,
        block: type[PreActBasic] | type[PreActBottleneck],
        depths: tuple[int, int, int, int],
        num_classes: int = 1000,
        in_channels: int = 3,
        width: float = 1.0,
        image_size: int = 224,
    ) -> None:
        super().__init__()
        planes = [round(p * width) for p in (64, 128, 256, 512)]
        self.stem = PreActStem(in_channels, planes[0], image_size)
        c_in = planes[0]
        stages: list[nn.Module] = []
        for stage, (p, depth) in enumerate(zip(planes, depths, strict=True)):
            blocks: list[nn.Module] = []
            for i in range(depth):
                blocks.append(block(c_in, p, 2 if stage > 0 and i == 0 else 1))
                c_in = p * block.expansion
            stages.append(PreActStage(blocks))
        self.stages = nn.Sequential(*stages)
        self.norm = nn.BatchNorm2d(c_in)
        self.act = nn.ReLU()
        self.head = PreActHead(c_in, num_classes)
        init_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.act(self.norm(self.stages(self.stem(x)))))


def resnet18(num_classes: int = 1000, in_channels: int = 3, width: float = 1.0, image_size: int = 224) -> ResNet:
    return ResNet(BasicBlock, (2, 2, 2, 2), num_classes, in_channels, width, image_size)


def resnet34(num_classes: int = 1000, in_channels: int = 3, width: float = 1.0, image_size: int = 224) -> ResNet:
    return ResNet(BasicBlock, (3, 4, 6, 3), num_classes, in_channels, width, image_size)


def resnet50(num_classes: int = 1000, in_channels: int = 3, width: float = 1.0, image_size: int = 224) -> ResNet:
    return ResNet(Bottleneck, (3, 4, 6, 3), num_classes, in_channels, width, image_size)


def preact_resnet18(
    num_classes: int = 1000, in_channels: int = 3, width: float = 1.0, image_size: int = 224
) -> PreActResNet:
    return PreActResNet(PreActBasic, (2, 2, 2, 2), num_classes, in_channels, width, image_size)


def preact_resnet34(
    num_classes: int = 1000, in_channels: int = 3, width: float = 1.0, image_size: int = 224
) -> PreActResNet:
    return PreActResNet(PreActBasic, (3, 4, 6, 3), num_classes, in_channels, width, image_size)


def preact_resnet50(
    num_classes: int = 1000, in_channels: int = 3, width: float = 1.0, image_size: int = 224
) -> PreActResNet:
    return PreActResNet(PreActBottleneck, (3, 4, 6, 3), num_classes, in_channels, width, image_size)
