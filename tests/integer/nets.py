"""Small networks with lively batch norms, quantized and calibrated on noise: what the integer machine is tried on."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from quant import initialise, models
from quant.convert import quantize


def enliven(model: nn.Module, seed: int = 0) -> nn.Module:
    """Batch norms as after training: no channel like another, some with a negative factor."""
    rng = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm1d)):
            size = module.running_mean.shape  # type: ignore[union-attr]
            module.running_mean.copy_(torch.randn(size, generator=rng) * 0.1)  # type: ignore[union-attr]
            module.running_var.copy_(torch.rand(size, generator=rng) + 0.5)  # type: ignore[union-attr]
            module.weight.data.copy_(torch.rand(size, generator=rng) * 1.8 - 0.3)
            module.bias.data.copy_(torch.randn(size, generator=rng) * 0.3)
    return model.eval()


def quantized(model: nn.Module, example: Tensor, bits: int | tuple[int, int] = 4, **choices: Any) -> nn.Module:
    """Quantized with `bits` (weights and activations, or both) and initialised on the example."""
    weight, act = (bits, bits) if isinstance(bits, int) else bits
    choices.setdefault("first_last", "same")
    made, _ = quantize(model, weight_bits=weight, act_bits=act, **choices)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*saw one value only")  # noise may leave nothing behind a ReLU
        return initialise(made, [example]).eval()


def zoo(name: str, bits: int | tuple[int, int] = 4, *, batch: int = 4, arguments: dict[str, Any] | None = None,
        **choices: Any) -> tuple[nn.Module, Tensor]:  # fmt: skip
    """A network of the zoo, quantized, and images (noise) for it."""
    torch.manual_seed(0)
    model = enliven(models.create(name, **(arguments or {})))
    example = torch.randn(batch, *models.info(name).input_shape_for(**(arguments or {})))
    return quantized(model, example, bits, **choices), example
