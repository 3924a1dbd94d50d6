"""`python -m experiments.language.price`: what each arm of the language model costs, on 64 texts of 32 tokens at once.

How rows are made: `experiments.format_pricing`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import quant
from experiments.format_pricing import command
from experiments.language.arms import ARMS, Arm, quantized
from experiments.language.network import language_model
from experiments.language.train import LENGTH, tokens
from hwsim.frontends.torch_export import extract
from hwsim.network.workload import Workload

TABLE = Path("results/language/costs.csv")
TEXTS = 64


def workload_of(arm: Arm) -> Workload:
    """The arm's network on a batch of texts, with the bits and formats of its quantizers."""
    texts = tokens(TEXTS, 0)[:, :-1]
    model, _ = quantized(language_model(), arm, arm.rules[0], texts[:2])
    quant.initialise(model, [texts[:2]])
    return extract(model, texts, name=arm.name)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; the exit code."""
    shared = {"tokens": TEXTS * LENGTH}
    return command("experiments.language.price", __doc__, TABLE, ARMS, workload_of, shared, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
