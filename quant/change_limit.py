"""A limit on how fast step sizes and offsets change, which keeps quantizers of few features from collapsing.

LSQ scales the gradient of a step size s by 1/sqrt(N p), so that one update moves s by about the share that it moves a
weight by. That holds where N is in the thousands. A squeeze-excite gate has N = 8 to 100, and the 8-bit steps of gates
and classifiers are 0.001 to 0.01: there one update can exceed s itself, and s crosses 0. LSQ and LSQ+ as printed have
no guard: a negative s with unsigned codes (n = 0) clips every positive value to code 0, where d/ds is n = 0, and never
comes back. `quant.quantizer` therefore reflects s to |s| after each step. That makes mild crossings harmless. Where the
first gradients are in the thousands (a channel of zero weights before a batch norm) runs collapse under |s| too; under
the limit no run did (docs/training.md).

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

from quant.whole_models import quantizers


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
        factors: list[float] = []
        for quantizer in self.quantizers:
            for parameter, step, factor in quantizer.reaches():
                if parameter.grad is not None:
                    gradients.append(parameter.grad)
                    steps.append(step)
                    factors.append(factor * self.share / learning_rate)
        if not gradients:
            return
        bounds = torch._foreach_abs(steps)
        torch._foreach_mul_(bounds, factors)
        torch._foreach_minimum_(gradients, bounds)
        torch._foreach_neg_(bounds)
        torch._foreach_maximum_(gradients, bounds)
