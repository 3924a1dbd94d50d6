"""`python -m experiments.vision.train --data-dir FOLDER`: a small vision transformer on CIFAR-10 in many formats.

The zoo's ViT with 3 blocks of width 64, 4 heads, MLPs of 128 and patches of 8 x 8: 17 tokens. All of CIFAR-10: 45,000
images to train on, 5,000 for choices, 10,000 for the test. How runs are made: `experiments.format_training`.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.format_training import Batch, Phase, Study, Task, options
from experiments.language.arms import arms
from hwsim.errors import exit_code_of
from quant.data import load
from quant.dataset import Dataset, epoch_batches, eval_batches, train_batches
from quant.models.vit import VisionTransformer

TABLE = Path("results/vision/runs.csv")
# Of the language model alone:
LEFT_OUT = ("lsqplus-3", "lsq-4", "lsqplus-4-down5", "lsqplus-6", "mxfp6")
RULE = "floor"  # the scale rule that the language model's validation chose for MXFP4
ARMS = tuple(
    dataclasses.replace(arm, rules=(RULE,)) if arm.name == "mxfp4" else arm
    for arm in arms("fc1", "fc2")
    if arm.name not in LEFT_OUT
)
MAIN = [arm for arm in ARMS if arm.name in ("lsqplus-4", "lsqplus-4-mlp5", "mxfp4", "nvfp4")]
BATCH = 64
EPOCHS = 4  # of the float network
STEPS = 120  # of each format
FIRST = 4  # batches that give first values
FIRST_LAST = "8bit"
RATES = (5e-4,)  # better than 2e-3 on seed 0's validation for each of the four arms tried with both


def vision_transformer() -> VisionTransformer:
    """The network of the study."""
    return VisionTransformer(10, 3, 32, patch=8, dim=64, depth=3, heads=4, mlp_ratio=2.0)


def loss_of(model: nn.Module, batch: Batch) -> Tensor:
    """Cross-entropy, mean over the images."""
    return F.cross_entropy(model(batch[0]), batch[1])


def batches(data: Dataset, seed: int, start: int) -> Iterator[Batch]:
    """Batches of epochs `start`, `start` + 1, ... without an end; crops and flips follow from the seed."""
    for epoch in itertools.count(start):
        yield from train_batches(data, BATCH, seed=seed, epoch=epoch)


def task(data: Dataset, epochs: int = EPOCHS, steps: int = STEPS) -> Task:
    """The vision transformer on these images. Each format sees the images of the epoch behind the float network's."""
    in_epoch = len(epoch_batches(len(data.train), BATCH, 0, 0))

    def error(model: nn.Module, part: str) -> float:
        split = {"validation": data.validation, "test": data.test}[part]
        wrong = sum(int((model(x).argmax(1) != y).sum()) for x, y in eval_batches(split, data.normalisation))
        return 100 * wrong / len(split)

    def pretraining(seed: int) -> Iterator[Batch]:
        return itertools.islice(batches(data, seed, 0), epochs * in_epoch)

    def training(seed: int) -> Iterator[Batch]:
        return itertools.islice(batches(data, seed, epochs), steps)

    def first(seed: int) -> list[Tensor]:
        return [x for x, _ in itertools.islice(batches(data, seed, epochs), FIRST)]

    return Task(
        network=vision_transformer, loss=loss_of, score=error, measure="error_percent",
        pretraining=Phase(pretraining, epochs * in_epoch, 200), training=Phase(training, steps, 30),
        first=first, first_last=FIRST_LAST, float_rate=2e-3, rates=RATES,
    )  # fmt: skip


def run(given: argparse.Namespace) -> None:
    """Train what is missing."""
    torch.set_num_threads(given.threads)
    study = Study(given.out, given.work, task(load("cifar10", given.data_dir)))
    study.run(ARMS, MAIN, given.minutes)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; the exit code."""
    parser = options("experiments.vision.train", __doc__, TABLE, Path("runs/vision"))
    parser.add_argument("--data-dir", type=Path, help="folder with CIFAR-10 (default: $HWSIM_DATA)")
    return exit_code_of(lambda: run(parser.parse_args(arguments)), ValueError, FileNotFoundError)


if __name__ == "__main__":
    raise SystemExit(main())
