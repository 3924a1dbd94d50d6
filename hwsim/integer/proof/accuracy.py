# pyright: basic
"""Top-1 accuracies of one network in all its forms: float, fake-quantized, integer, fixed point, naive bias."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from hwsim.integer.graph import IntegerModel
from hwsim.integer.run import Machine, Mode
from quant.whole_models import bypassed

FORMS: Mapping[str, Mode] = {
    "integer_exact": Mode(),
    "integer_fixed_32": Mode("fixed", 32),
    "integer_fixed_16": Mode("fixed", 16),
    "integer_fixed_8": Mode("fixed", 8),
    "integer_fixed_16_product_bias": Mode("fixed", 16, bias_unit="product"),
    "naive_constant_bias": Mode(padding="naive"),
}


def top1_percent(run: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, batch_size: int = 100) -> float:
    """Share of images whose largest result is the label's, in percent."""
    right = 0
    for batch, wanted in zip(images.split(batch_size), labels.split(batch_size), strict=True):
        right += int((run(batch).argmax(1).cpu() == wanted).sum())
    return 100 * right / len(labels)


def accuracies(
    model: nn.Module,
    lowered: IntegerModel,
    images: Tensor,
    labels: Tensor,
    *,
    forms: Mapping[str, Mode] = FORMS,
    device: str = "cpu",
    progress: Callable[[str, float], None] = lambda name, percent: None,
) -> dict[str, float]:
    """Accuracy of each form in percent. `float`: the trained weights with all quantizers bypassed."""
    found: dict[str, float] = {}
    with torch.no_grad():
        with bypassed(model):
            found["float_quantizers_bypassed"] = top1_percent(model, images, labels)
        progress("float_quantizers_bypassed", found["float_quantizers_bypassed"])
        found["fake_quantized_float32"] = top1_percent(model, images, labels)
        progress("fake_quantized_float32", found["fake_quantized_float32"])
    for name, mode in forms.items():
        machine = Machine(lowered, mode, device)
        found[name] = top1_percent(lambda batch, m=machine: m.run(batch).values, images, labels)
        progress(name, found[name])
    return found
