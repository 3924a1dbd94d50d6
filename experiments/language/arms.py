"""What is compared: number formats of weights and activations of the same network, by name.

All linear layers and both products of attention have the arm's format; the study says whether the first and last layer
have it, too. A table of embeddings has integers of the arm's width, additions and positions 8 bits, in every arm.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

import quant
from quant.plan import Plan
from quant.spec import SCALE_RULES

FLOAT = "float"


@dataclass(frozen=True)
class Arm:
    """One format. `settings`: arguments of `quant.quantize`; `rules`: scale rules among which validation chooses."""

    name: str
    about: str
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    rules: tuple[str, ...] = ("",)


def integers(name: str, about: str, bits: int, **more: Any) -> Arm:
    """Integers of one width for weights and activations."""
    return Arm(name, about, {"weight_bits": bits, "act_bits": bits, **more})


def blocks(name: str, about: str, bits: int, form: str, rules: tuple[str, ...]) -> Arm:
    """A block format for weights and activations; `bits` of the table of embeddings."""
    settings = {"weight_bits": bits, "act_bits": bits, "weight_format": form, "act_format": form}
    return Arm(name, about, settings, rules)


def wider(*layers: str, act_bits: int = 5) -> dict[str, dict[str, int]]:
    """Overrides that give the MLPs' layers of these names weights of 5 bits, and activations of 5 or of `act_bits`."""
    return {f"blocks.*.mlp.{layer}": {"weight_bits": 5, "act_bits": act_bits} for layer in layers}


def arms(up: str, down: str) -> tuple[Arm, ...]:
    """All formats, for a network whose MLPs have layers of these names."""
    return (
        Arm("float-longer", "32-bit floats, trained for as many steps more"),
        integers("lsqplus-3", "LSQ+, one step per tensor", 3),
        integers("lsq-4", "LSQ (no offset), one step per tensor", 4, method="lsq"),
        integers("lsqplus-4", "LSQ+, one step per tensor", 4),
        integers("lsqplus-4-channel", "LSQ+, weights a step per output channel", 4, weight_granularity="channel"),
        integers("lsqplus-4-g32", "LSQ+, weights a step per 32", 4, weight_group=32),
        integers("lsqplus-4-down5", "LSQ+, per tensor, the MLPs' second layers at 5 bits", 4, overrides=wider(down)),
        integers("lsqplus-4-mlp5", "LSQ+, per tensor, the MLPs at 5 bits", 4, overrides=wider(up, down)),
        integers(
            "lsqplus-4-mlpw5", "LSQ+, per tensor, the MLPs' weights at 5 bits", 4, overrides=wider(up, down, act_bits=4)
        ),
        Arm("lsqplus-w5a4", "LSQ+, per tensor, weights at 5 bits", {"weight_bits": 5, "act_bits": 4}),
        blocks("mxfp4", "MXFP4", 4, "MXFP4", SCALE_RULES),
        blocks("nvfp4", "NVFP4", 4, "NVFP4", ("",)),
        integers("lsqplus-6", "LSQ+, one step per tensor", 6),
        blocks("mxfp6", "MXFP6 (e2m3)", 6, "MXFP6", ("even",)),
        integers("lsqplus-8", "LSQ+, one step per tensor", 8),
        blocks("mxint8", "MXINT8", 8, "MXINT8", ("floor",)),
    )


ARMS = arms("up", "down")
MAIN = [arm for arm in ARMS if arm.settings.get("act_bits", 4) == 4]  # what the question is about
BY_NAME = {arm.name: arm for arm in ARMS}


def quantized(
    model: nn.Module, arm: Arm, rule: str, example: Tensor, first_last: str = "same"
) -> tuple[nn.Module, Plan | None]:
    """A copy of the float model in the arm's format; the arm without settings stays a float model."""
    if not arm.settings:
        return copy.deepcopy(model), None
    choice = {"scale_rule": rule} if rule else {}
    return quant.quantize(model, first_last=first_last, example=example, **arm.settings, **choice)
