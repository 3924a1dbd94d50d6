"""`python -m experiments.vision.price`: what each arm of the vision transformer costs, on 64 images at once.

How rows are made: `experiments.format_pricing`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

import quant
from experiments.format_pricing import command
from experiments.language.arms import Arm, quantized
from experiments.vision.train import ARMS, FIRST_LAST, vision_transformer
from hwsim.frontends.torch_export import extract
from hwsim.network.workload import Workload

TABLE = Path("results/vision/costs.csv")
IMAGES = 64


def workload_of(arm: Arm) -> Workload:
    """The arm's network on a batch of images, with the bits and formats of its quantizers."""
    images = torch.randn(IMAGES, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    model, _ = quantized(vision_transformer(), arm, arm.rules[0], images[:2], FIRST_LAST)
    quant.initialise(model, [images[:2]])
    return extract(model, images, name=arm.name)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; the exit code."""
    return command("experiments.vision.price", __doc__, TABLE, ARMS, workload_of, {"images": IMAGES}, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
