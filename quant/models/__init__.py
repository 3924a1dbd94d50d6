"""The model zoo, in plain torch: `create(name, **arguments)`, `names()`, `info(name)`.

Names are those users know (resnet18, preact_resnet18, efficientnet_b0, vit_b_16, resnet20, ...); parameters keep the
names of torchvision, timm or the trained weights' source (each family's file says which), so their state dicts load.
Weights are random until loaded: see `quant.weights`.
"""

import difflib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from quant.models import cifar, mobile, resnet, tiny, vit


@dataclass(frozen=True)
class ModelInfo:
    """What `create` builds for a name: default input (without the batch), number of outputs, one line of origin."""

    name: str
    factory: Callable[..., nn.Module]
    input_shape: tuple[int, ...]
    num_classes: int
    about: str

    def arguments(self) -> dict[str, Any]:
        """Argument names of the factory with their defaults."""
        return {n: p.default for n, p in inspect.signature(self.factory).parameters.items()}

    def input_shape_for(self, **arguments: Any) -> tuple[int, ...]:
        """Input shape (without the batch) of `create(name, **arguments)`.

        >>> info("silu_se_net").input_shape_for(in_channels=1, image_size=28)
        (1, 28, 28)
        """
        shape = list(self.input_shape)
        for axis, key in _AXES.get(self.name, ((0, "in_channels"), (1, "image_size"), (2, "image_size"))):
            shape[axis] = int(arguments.get(key, shape[axis]))
        return tuple(shape)


# Which argument of the factory sets which axis of the input, where it is not the usual image.
_AXES: dict[str, tuple[tuple[int, str], ...]] = {
    "ds_cnn": ((0, "in_channels"), (1, "frames"), (2, "coefficients")),
    "anomaly_autoencoder": ((0, "features"),),
}

_IMAGENET = (3, 224, 224)
_CIFAR = (3, 32, 32)
_MODELS = (
    ModelInfo("resnet18", resnet.resnet18, _IMAGENET, 1000, "He et al. 2015"),
    ModelInfo("resnet34", resnet.resnet34, _IMAGENET, 1000, "He et al. 2015"),
    ModelInfo("resnet50", resnet.resnet50, _IMAGENET, 1000, "He et al. 2015, stride in the 3x3 (v1.5)"),
    ModelInfo("preact_resnet18", resnet.preact_resnet18, _IMAGENET, 1000, "He et al. 2016, basic blocks"),
    ModelInfo("preact_resnet34", resnet.preact_resnet34, _IMAGENET, 1000, "He et al. 2016, basic blocks"),
    ModelInfo("preact_resnet50", resnet.preact_resnet50, _IMAGENET, 1000, "He et al. 2016, bottlenecks"),
    ModelInfo("mobilenet_v1", mobile.mobilenet_v1, _IMAGENET, 1000, "Howard et al. 2017"),
    ModelInfo("mobilenet_v2", mobile.mobilenet_v2, _IMAGENET, 1000, "Sandler et al. 2018"),
    ModelInfo("efficientnet_b0", mobile.efficientnet_b0, _IMAGENET, 1000, "Tan and Le 2019a"),
    ModelInfo("mixnet_s", mobile.mixnet_s, _IMAGENET, 1000, "Tan and Le 2019b"),
    ModelInfo("vit_b_16", vit.vit_b_16, _IMAGENET, 1000, "Dosovitskiy et al. 2021"),
    ModelInfo("resnet20", cifar.resnet20, _CIFAR, 10, "He et al. 2015, CIFAR, option A"),
    ModelInfo("resnet32", cifar.resnet32, _CIFAR, 10, "He et al. 2015, CIFAR, option A"),
    ModelInfo("resnet44", cifar.resnet44, _CIFAR, 10, "He et al. 2015, CIFAR, option A"),
    ModelInfo("resnet56", cifar.resnet56, _CIFAR, 10, "He et al. 2015, CIFAR, option A"),
    ModelInfo("silu_se_net", mobile.silu_se_net, _CIFAR, 10, "EfficientNet's blocks, small images"),
    ModelInfo("resnet8", tiny.resnet8, _CIFAR, 10, "MLPerf Tiny image classification"),
    ModelInfo("mobilenet_v1_025", tiny.mobilenet_v1_025, (3, 96, 96), 2, "MLPerf Tiny visual wake words"),
    ModelInfo("ds_cnn", tiny.ds_cnn, (1, 49, 10), 12, "MLPerf Tiny keyword spotting"),
    ModelInfo("anomaly_autoencoder", tiny.anomaly_autoencoder, (640,), 640, "MLPerf Tiny anomaly detection"),
)
_REGISTRY = {m.name: m for m in _MODELS}


def names() -> list[str]:
    """Every name `create` knows."""
    return list(_REGISTRY)


def info(name: str) -> ModelInfo:
    """The entry of a name; ValueError with the nearest names when there is none."""
    if name not in _REGISTRY:
        near = difflib.get_close_matches(name, _REGISTRY, 3)
        hint = f"did you mean {', '.join(near)}?" if near else f"known: {', '.join(_REGISTRY)}"
        raise ValueError(f"unknown model '{name}': {hint}")
    return _REGISTRY[name]


MAX_ARGUMENT = 100_000  # of a family: classes, channels, sizes


def create(name: str, **arguments: Any) -> nn.Module:
    """The named network with random weights; `arguments` are the family's (num_classes, in_channels, width, ...).

    >>> model = create("resnet20", num_classes=100)
    >>> model.linear.out_features
    100
    """
    entry = info(name)
    known = entry.arguments()
    for key, value in arguments.items():
        if key not in known:
            raise ValueError(f"{name}: unknown argument '{key}' (value {value!r}); it takes {', '.join(known)}")
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or value < 0 or (value == 0 and key != "dropout"):
            raise ValueError(f"{name}: {key}: expected a positive number, got {value!r}")
        if not value <= MAX_ARGUMENT:
            raise ValueError(f"{name}: {key}: expected at most {MAX_ARGUMENT:,}, got {value!r}")
        if isinstance(known[key], int) and value != int(value):
            raise ValueError(f"{name}: {key}: expected a whole number, got {value!r}")
    return entry.factory(**arguments)
