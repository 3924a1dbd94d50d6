"""`python -m experiments.language.train`: the language model in every number format, from the same float networks.

How runs are made and chosen: `experiments.format_training`. Losses are in nats per token above the grammar's own.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.format_training import Batch, Phase, Study, Task, options
from experiments.language.arms import ARMS, MAIN
from experiments.language.grammar import Grammar
from experiments.language.network import language_model
from hwsim.errors import exit_code_of

TABLE = Path("results/language/runs.csv")
LENGTH = 32
GRAMMAR = Grammar()
RATES = (1e-3, 3e-3)
# Seeds of texts: training texts have 1000 + the run's seed, those that quantized training sees 2000 + it.
PARTS = {"validation": (101, 1000), "test": (102, 3000)}  # seed and number of texts
FIRST = 4  # batches behind those of training that give first values


@dataclass(frozen=True)
class Length:
    """How long the networks are trained: steps and texts a step."""

    float_steps: int = 1200
    float_texts: int = 32
    steps: int = 200
    texts: int = 16


def tokens(count: int, seed: int) -> Tensor:
    """Texts (count, LENGTH + 1)."""
    return torch.from_numpy(GRAMMAR.sample(count, LENGTH, seed)[0])


def as_batch(texts: Tensor) -> Batch:
    """Each token, and the one that follows it."""
    return texts[:, :-1], texts[:, 1:]


def loss_of(model: nn.Module, batch: Batch) -> Tensor:
    """Mean nats of a token."""
    return F.cross_entropy(model(batch[0]).flatten(0, 1), batch[1].flatten())


def excess(model: nn.Module, part: str) -> float:
    """Mean nats per token above those of the grammar itself on the same texts: 0 is the best that can be."""
    seed, count = PARTS[part]
    found, nats = GRAMMAR.sample(count, LENGTH, seed)
    losses = [float(loss_of(model, as_batch(texts))) * len(texts) for texts in torch.from_numpy(found).split(250)]
    return math.fsum(losses) / count - float(nats.mean())


def task(length: Length = Length()) -> Task:
    """The language model of the study."""

    def pretraining(seed: int) -> Iterator[Batch]:
        texts = tokens(length.float_steps * length.float_texts, 1000 + seed)
        return map(as_batch, texts.split(length.float_texts))

    def seen(seed: int) -> Tensor:
        return tokens((length.steps + FIRST) * length.texts, 2000 + seed)

    def training(seed: int) -> Iterator[Batch]:
        return map(as_batch, seen(seed)[: -FIRST * length.texts].split(length.texts))

    def first(seed: int) -> list[Tensor]:
        return list(seen(seed)[-FIRST * length.texts :, :-1].split(length.texts))

    return Task(
        network=language_model, loss=loss_of, score=excess, measure="excess_nats",
        pretraining=Phase(pretraining, length.float_steps, 50), training=Phase(training, length.steps, 10),
        first=first, first_last="same", float_rate=3e-3, rates=RATES,
    )  # fmt: skip


def run(given: argparse.Namespace) -> None:
    """Train what is missing."""
    torch.set_num_threads(given.threads)
    Study(given.out, given.work, task()).run(ARMS, MAIN, given.minutes)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; the exit code."""
    parser = options("experiments.language.train", __doc__, TABLE, Path("runs/language"))
    return exit_code_of(lambda: run(parser.parse_args(arguments)), ValueError)


if __name__ == "__main__":
    raise SystemExit(main())
