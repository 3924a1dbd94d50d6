"""How a network is trained, as data: `Recipe`, with the papers' learning rate and weight decay as defaults.

LSQ (Esser et al., ICLR 2020, section 2.3 and appendix): SGD with momentum 0.9, cosine decay without restarts, learning
rate 0.1 float, 0.01 at 2 to 4 bits, 0.001 at 8; weight decay 1e-4 float, 8 and 4 bits, half at 3, a quarter at 2.
"""

import dataclasses
import math
import sys
from dataclasses import dataclass
from typing import Any

NORM_BATCHES = 16


def paper_learning_rate(bits: int | None) -> float:
    """LSQ's learning rate; None is float. 5 to 7 bits, which it does not train, take that of 4.

    >>> [paper_learning_rate(b) for b in (None, 8, 4, 2)]
    [0.1, 0.001, 0.01, 0.01]
    """
    if bits is None:
        return 0.1
    return 0.001 if bits >= 8 else 0.01


def paper_weight_decay(bits: int | None) -> float:
    """LSQ's weight decay, 0.5 and 0.25 of 1e-4 at 3 and 2 bits; 1 bit, which it does not train, takes that of 2.

    >>> [paper_weight_decay(b) for b in (None, 8, 4, 3, 2)]
    [0.0001, 0.0001, 0.0001, 5e-05, 2.5e-05]
    """
    if bits is None or bits >= 4:
        return 1e-4
    return 5e-5 if bits == 3 else 2.5e-5


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a training run computes; two runs with the same recipe, data and start are equal.

    `batch_size` counts one optimizer step over all processes; `accumulate` splits it into so many passes.
    `distill` adds the cross entropy to a float teacher's output (T = 1, weight 1:1, LSQ section 2.3).
    `change_limit`: how much one step may change an s, as a share of itself, and a beta, as a share of its range (see
    `quant.change_limit`); 0, the papers' way, sets no limit.
    `clip_norm`: gradients are scaled down to this norm over all parameters; 0, the papers' way, leaves them alone.
    `norm_batches`: training batches on which the batch norms' statistics are measured again after the last step (see
    `quant.norms`); 0, the papers' way, keeps the running ones.
    `init_batches`: batches for the quantizers' first values (LSQ+ Eq. 8).
    `weight_learning_rate`: of everything but the quantizers' parameters, which keep `learning_rate`; None, the papers'
    way, is one rate for all.
    `ewgs`, `damping`, `freezing`: what `quant.methods` adds to LSQ+; 0 adds nothing.
    """

    epochs: float = 1.0
    batch_size: int = 128
    learning_rate: float = 0.1
    weight_decay: float = 1e-4
    momentum: float = 0.9
    accumulate: int = 1
    augment: bool = True
    distill: bool = False
    seed: int = 0
    bf16: bool = False
    channels_last: bool = False
    compile: bool = False
    init_batches: int = 4
    clip_norm: float = 0.0
    change_limit: float = 0.02
    norm_batches: int = 0
    weight_learning_rate: float | None = None
    ewgs: float = 0.0
    damping: float = 0.0
    freezing: float = 0.0

    def __post_init__(self) -> None:
        positive = ["epochs", "batch_size", "learning_rate", "accumulate", "init_batches"]
        positive += ["weight_learning_rate"] if self.weight_learning_rate is not None else []
        methods = ("ewgs", "damping", "freezing")
        for name in (*positive, "weight_decay", "momentum", "clip_norm", "change_limit", "norm_batches", *methods):
            value = getattr(self, name)
            low = name in positive
            if isinstance(value, bool) or not abs(value) <= sys.float_info.max or value < 0 or (low and value == 0):
                kind = "a positive number" if low else "a number not below 0"
                raise ValueError(f"recipe: {name}: expected {kind}, got {value!r}")
        if self.momentum >= 1:
            raise ValueError(f"recipe: momentum: expected a number below 1, got {self.momentum!r}")
        if self.batch_size % self.accumulate:
            raise ValueError(f"recipe: batch_size {self.batch_size} must divide by accumulate, {self.accumulate}")

    @classmethod
    def for_bits(cls, bits: int | None, **choices: Any) -> "Recipe":
        """The papers' learning rate and weight decay for the narrowest operand; None is float.

        Quantized networks have their batch norms measured again at the end, which are trained for short.
        """
        defaults = {
            "learning_rate": paper_learning_rate(bits),
            "weight_decay": paper_weight_decay(bits),
            "norm_batches": 0 if bits is None else NORM_BATCHES,
        }
        return cls(**{**defaults, **choices})

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> "Recipe":
        """The recipe of a checkpoint; those from before `change_limit` had none."""
        return cls(**{"change_limit": 0.0, **raw})

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def learning_rate_at(self, step: int, total_steps: int, *, weights: bool = False) -> float:
        """Cosine from `learning_rate` to 0 without restarts: 0.5 (1 + cos(pi step / total)); that of s and beta, or of
        the `weights`.
        """
        first = self.learning_rate
        if weights and self.weight_learning_rate is not None:
            first = self.weight_learning_rate
        return 0.5 * first * (1 + math.cos(math.pi * step / total_steps))

    def differences(self, other: "Recipe") -> list[str]:
        """'name: mine, other' for every field that differs."""
        mine, theirs = self.to_dict(), other.to_dict()
        return [f"{k}: {mine[k]!r}, {theirs[k]!r}" for k in mine if mine[k] != theirs[k]]
