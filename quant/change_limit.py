"""A limit on how fast step sizes and offsets change, which keeps quantizers of few features from collapsing.

LSQ scales the gradient of a step size s by 1/sqrt(N p), so that one update moves s by about the share that it moves a
weight by. That holds where N is in the thousands. A squeeze-excite gate has N = 8 to 100, and the 8-bit steps of gates
and classifiers are 0.001 to 0.01: there one update can exceed s itself. s then falls to its floor, every value clips to
almost 0, the next batch norm amplifies what is left, and gradients of 1e3 to 1e13 carry the network to chance level.
Neither LSQ nor LSQ+ as printed has a guard against it.

The remedy is adaptive gradient clipping, which Brock et al. (2021) introduced as a bound on |dL/dW| / |W| of weights,
applied to the quantizers alone. With learning rate lr and momentum m,

    |dL/ds| <= c (1 - m)/lr * s        |dL/dbeta| <= c (1 - m)/lr * (p - n) s

so that gradients which all point one way move s by the share c of itself in a step, and beta by the share c of its
range. Gradients within the bound keep their bits. For c <= (1 - sqrt(m))/(1 + sqrt(m)), 0.026 at m = 0.9, no gradients
whatever can bring s to 0: the worst of them, s' = s - v, v' = m v + c (1 - m) s, has then two real positive roots, so s
decays without crossing 0.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from quant.quantizer import quantizers


class ChangeLimit:
    """Clips the gradients of a model's quantizers; `limit` is c, 0 sets no limit; `momentum` is m of SGD."""

    def __init__(self, model: nn.Module, limit: float, momentum: float) -> None:
        self.share = limit * (1 - momentum)
        self.quantizers = [q for _, q in quantizers(model)] if limit > 0 else []

    @torch.no_grad()
    def clip_gradients(self, learning_rate: float) -> None:
        """Between backward and the optimizer's step, whose learning rate this is; NaN stays NaN."""
        gradients: list[Tensor] = []
        steps: list[Tensor] = []
        floors: list[Tensor] = []
        factors: list[float] = []
        for quantizer in self.quantizers:
            for parameter, step, floor, factor in quantizer.reaches():
                if parameter.grad is not None:
                    gradients.append(parameter.grad)
                    steps.append(step)
                    floors.append(floor)
                    factors.append(factor * self.share / learning_rate)
        if not gradients:
            return
        bounds = torch._foreach_maximum(steps, floors)
        torch._foreach_mul_(bounds, factors)
        torch._foreach_minimum_(gradients, bounds)
        torch._foreach_neg_(bounds)
        torch._foreach_maximum_(gradients, bounds)
