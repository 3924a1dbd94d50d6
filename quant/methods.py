"""What a training may add to LSQ+, each an option of `Recipe`, all behind one interface.

    ewgs      gradients of rounded values grow or shrink with the rounding error (Lee et al., CVPR 2021, Eq. 6)
    damping   weights are pulled to the middle of their code (Nagel et al., ICML 2022, section 4.1)
    freezing  weights whose code goes back and forth are held at their mean code (same paper, section 4.2)

A `Method` acts between backward and the optimizer's step, and after it; its state lives in checkpoints. The change
limit, distillation, per-channel steps, first values of least squared error and measured batch norms are options
elsewhere (`Recipe`, `quant.quantize`). docs/results.md says which of them helped.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from quant.quantizer import BaseQuantizer
from quant.recipe import Recipe
from quant.whole_models import quantizers

# Weights of fewer bits than this oscillate; 8-bit ones of first and last layers are left alone.
_NARROW = 8
# Nagel et al.: decay of the running frequency and of the running mean of codes.
_DECAY = 0.02
# The freezing threshold falls from this multiple of its last value, by a cosine.
_FIRST_THRESHOLD = 5.0


class Method:
    """Base class: does nothing. `progress` is the share of all steps that is done, 0 to 1."""

    def before_step(self, progress: float) -> None:
        """Between backward and the optimizer's step."""

    def after_step(self, progress: float) -> None:
        """After the optimizer's step."""

    def state(self) -> dict[str, Tensor]:
        """What a resumed run needs, by name."""
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        """The inverse of `state`; names that are absent keep their first values."""


def methods_of(model: nn.Module, recipe: Recipe) -> list[Method]:
    """The methods that the recipe asks for."""
    for _, quantizer in quantizers(model):
        quantizer.ewgs = recipe.ewgs
    found: list[Method] = []
    if recipe.damping > 0:
        found.append(Damping(model, recipe.damping))
    if recipe.freezing > 0:
        found.append(Freezing(model, recipe.freezing))
    return found


def narrow_weights(model: nn.Module) -> Iterator[tuple[str, nn.Parameter, BaseQuantizer]]:
    """(layer, weight, quantizer) of every layer with weights of fewer than 8 bits."""
    for name, module in model.named_modules():
        quantizer, weight = getattr(module, "weight_quantizer", None), getattr(module, "weight", None)
        if isinstance(quantizer, BaseQuantizer) and isinstance(weight, nn.Parameter) and quantizer.spec.bits < _NARROW:
            yield name, weight, quantizer


class Damping(Method):
    """dL/dw += 2 l(t) (w - w_hat) for weights within their range, l(t) = l (1 - cos(pi t))/2: the gradient of
    l(t) ||w - w_hat||^2 with w_hat held constant.
    """

    def __init__(self, model: nn.Module, strength: float) -> None:
        self.strength = strength
        self.weights = [(weight, quantizer) for _, weight, quantizer in narrow_weights(model)]

    @torch.no_grad()
    def before_step(self, progress: float) -> None:
        factor = self.strength * (1 - math.cos(math.pi * progress))
        for weight, quantizer in self.weights:
            if weight.grad is not None and factor > 0:
                code, step = quantizer.codes(weight), quantizer.step_at(weight)
                inside = (weight >= quantizer.spec.n * step) & (weight <= quantizer.spec.p * step)
                weight.grad += factor * torch.where(inside, weight - code * step, 0.0)


@dataclass
class Track:
    """The codes of one layer's weights: frequency of turning back, running mean, and what is held."""

    code: Tensor
    mean: Tensor
    frequency: Tensor = field(init=False)
    direction: Tensor = field(init=False)
    frozen: Tensor = field(init=False)
    held: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.frequency = torch.zeros_like(self.mean)
        self.direction = torch.zeros_like(self.mean)
        self.frozen = torch.zeros_like(self.mean, dtype=torch.bool)
        self.held = torch.zeros_like(self.mean)


class Freezing(Method):
    """Holds weights at round(mean code) * s once their code has turned back more often than a threshold allows.

    After every step, o = 1 where a code changed against its last direction, f <- 0.98 f + 0.02 o, and the mean of codes
    moves as slowly. The threshold falls from five times `threshold` to it by a cosine.
    """

    def __init__(self, model: nn.Module, threshold: float) -> None:
        self.threshold = threshold
        self.weights = {name: (weight, quantizer) for name, weight, quantizer in narrow_weights(model)}
        self.tracks: dict[str, Track] = {}

    def threshold_at(self, progress: float) -> float:
        """5 threshold at the start, threshold at the end."""
        return self.threshold * (1 + (_FIRST_THRESHOLD - 1) * (1 + math.cos(math.pi * progress)) / 2)

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        for name, (weight, quantizer) in self.weights.items():
            code = quantizer.codes(weight)
            track = self.tracks.get(name)
            if track is None:
                self.tracks[name] = Track(code, code.clone())
                continue
            self._follow(track, code)
            fresh = (track.frequency > self.threshold_at(progress)) & ~track.frozen
            track.held = torch.where(fresh, track.mean.round(), track.held)
            track.frozen |= fresh
            weight.copy_(torch.where(track.frozen, track.held * quantizer.step_at(weight), weight))
            track.code = torch.where(track.frozen, track.held, code)

    @staticmethod
    def _follow(track: Track, code: Tensor) -> None:
        moved = (code - track.code).sign()
        turned = (moved * track.direction < 0).to(track.frequency.dtype)
        track.direction = torch.where(moved != 0, moved, track.direction)
        track.frequency.lerp_(turned, _DECAY)
        track.mean.lerp_(code, _DECAY)

    def state(self) -> dict[str, Tensor]:
        return {
            f"freezing/{name}/{part}": value
            for name, track in self.tracks.items()
            for part, value in vars(track).items()
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        for name, (weight, _) in self.weights.items():
            if f"freezing/{name}/code" in state:
                track = Track(torch.zeros_like(weight), torch.zeros_like(weight))
                for part, value in vars(track).items():
                    value.copy_(state[f"freezing/{name}/{part}"])
                self.tracks[name] = track
