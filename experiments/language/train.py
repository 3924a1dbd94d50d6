"""`python -m experiments.language.train`: the language model in every number format, from the same float networks.

Each run starts from the float network of its seed and sees the same texts in the same order. Seed 0's validation loss
chooses the learning rate (and the scale rule of MXFP4); the test texts are read once, for the chosen runs alone. A run
is a row of the CSV, losses in nats per token above the grammar's own. Stopped early, the same command goes on.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import quant
from experiments import table
from experiments.language.arms import ARMS, FLOAT, MAIN, Arm, quantized
from experiments.language.grammar import Grammar
from experiments.language.network import language_model
from hwsim.errors import exit_code_of
from quant.quantizer import quantizers

TABLE = Path("results/language/runs.csv")
LENGTH = 32
GRAMMAR = Grammar()
SEEDS = (0, 1, 2)
CHOSEN_BY = 0  # the seed whose validation chooses
RATES = (1e-3, 3e-3)
DECAY = 0.01
# Seeds of texts: training texts have 1000 + the run's seed, those that quantized training sees 2000 + it.
VALIDATION, TEST = (101, 1000), (102, 3000)  # seed and number of texts


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


def loss_of(model: nn.Module, texts: Tensor) -> Tensor:
    """Mean nats of a token."""
    return F.cross_entropy(model(texts[:, :-1]).flatten(0, 1), texts[:, 1:].flatten())


@torch.no_grad()
def excess(model: nn.Module, part: tuple[int, int]) -> float:
    """Mean nats per token above those of the grammar itself on the same texts: 0 is the best that can be."""
    seed, count = part
    found, nats = GRAMMAR.sample(count, LENGTH, seed)
    was_training = model.training
    model.eval()
    losses = [float(loss_of(model, texts)) * len(texts) for texts in torch.from_numpy(found).split(250)]
    model.train(was_training)
    return math.fsum(losses) / count - float(nats.mean())


def groups(model: nn.Module, rate: float) -> list[dict[str, Any]]:
    """AdamW's groups. A step or offset moves relative to its step: ten times the rate of the weights, times s."""
    own = {id(p): q for _, q in quantizers(model) for p in q.parameters()}
    plain = [p for p in model.parameters() if id(p) not in own]
    found: list[dict[str, Any]] = [{"params": plain, "lr": rate, "weight_decay": DECAY}]
    for _, quantizer in quantizers(model):
        learned = list(quantizer.parameters())
        if learned:
            size = float(quantizer.step().detach().abs().mean())
            found.append({"params": learned, "lr": 10 * rate * size, "weight_decay": 0.0})
    return found


def fit(model: nn.Module, texts: Tensor, size: int, rate: float, warm_up: int) -> None:
    """AdamW over the texts in order, `size` a step: linear warm-up, then a cosine to 0; gradients of norm 1 at most."""
    optimizer = torch.optim.AdamW(groups(model, rate))
    steps = len(texts) // size

    def factor(step: int) -> float:
        return min((step + 1) / max(warm_up, 1), 0.5 * (1 + math.cos(math.pi * step / steps)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    model.train()
    for batch in texts.split(size):
        loss = loss_of(model, batch)
        if not torch.isfinite(loss):
            raise ValueError("training diverged: the loss is not finite")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()


@dataclass(frozen=True)
class Study:
    """Where rows and networks are kept, and how long is trained."""

    out: Path
    work: Path
    length: Length

    def key(self, arm: str, seed: int, rate: float, rule: str) -> str:
        """A run's name, which is its row's key and its file's name."""
        return "-".join(filter(None, (arm, rule, f"{rate:g}", f"seed{seed}")))

    def row(self, key: str) -> table.Row | None:
        """The finished run of that key."""
        return next((row for row in table.read(self.out) if row["key"] == key), None)

    def state(self, key: str) -> Path:
        """The file of a run's parameters."""
        return self.work / f"{key}.pt"

    def float_network(self, seed: int) -> nn.Module:
        """The float network of a seed, trained or read."""
        key = self.key(FLOAT, seed, 3e-3, "")
        torch.manual_seed(seed)
        model: nn.Module = language_model()
        if not self.state(key).exists():
            start, length = time.process_time(), self.length
            fit(model, tokens(length.float_steps * length.float_texts, 1000 + seed), length.float_texts, 3e-3, 50)
            self.keep(model, key, FLOAT, seed, 3e-3, "", {"cpu_s": round(time.process_time() - start)})
        model.load_state_dict(torch.load(self.state(key), weights_only=True))
        if not (self.row(key) or {}).get("test_excess_nats"):
            self.test(model, key)
        return model

    def quantized_run(self, arm: Arm, seed: int, rate: float, rule: str) -> str:
        """Train one arm unless its row is there; the key."""
        key = self.key(arm.name, seed, rate, rule)
        if self.row(key) is None:
            length = self.length
            texts = tokens((length.steps + 4) * length.texts, 2000 + seed)
            model, _ = quantized(self.float_network(seed), arm, rule, texts[:2, :-1])
            first = texts[-4 * length.texts :]
            quant.initialise(model, first[:, :-1].split(length.texts))
            before, start = excess(model, VALIDATION), time.process_time()
            fit(model, texts[: -4 * length.texts], length.texts, rate, 10)
            extra = {"untrained_excess_nats": before, "cpu_s": round(time.process_time() - start)}
            self.keep(model, key, arm.name, seed, rate, rule, extra)
        return key

    def keep(
        self, model: nn.Module, key: str, arm: str, seed: int, rate: float, rule: str, extra: dict[str, Any]
    ) -> None:
        """Write the parameters, then the row with the validation loss; the test texts stay unread."""
        self.work.mkdir(parents=True, exist_ok=True)
        torch.save(model.state_dict(), self.state(key))
        row = {"key": key, "arm": arm, "seed": seed, "learning_rate": rate, "scale_rule": rule,
               "validation_excess_nats": excess(model, VALIDATION), "test_excess_nats": None, **extra}  # fmt: skip
        table.append(self.out, [row], key="key")
        print(f"{key}: validation {row['validation_excess_nats']:.4f} nats above the grammar", flush=True)

    def test(self, model: nn.Module, key: str) -> None:
        """Add the loss on the test texts to a row."""
        row = self.row(key)
        assert row is not None
        table.append(self.out, [{**row, "test_excess_nats": excess(model, TEST)}], key="key")

    def chosen(self, arm: Arm) -> tuple[float, str]:
        """The learning rate and scale rule of the lowest validation loss of seed 0; MXFP4's rule at the first rate."""
        tried = [(rate, arm.rules[0]) for rate in RATES] + [(RATES[0], rule) for rule in arm.rules[1:]]
        losses = {}
        for rate, rule in tried:
            row = self.row(self.quantized_run(arm, CHOSEN_BY, rate, rule))
            assert row is not None
            losses[rate, rule] = float(row["validation_excess_nats"])
        rates = {rate: loss for (rate, rule), loss in losses.items() if rule == arm.rules[0]}
        rules = {rule: loss for (rate, rule), loss in losses.items() if rate == RATES[0]}
        return min(rates, key=lambda r: rates[r]), min(rules, key=lambda r: rules[r])

    def tested_run(self, arm: Arm, seed: int, rate: float, rule: str) -> None:
        """Train a chosen run and report it on the test texts."""
        key = self.quantized_run(arm, seed, rate, rule)
        if (self.row(key) or {}).get("test_excess_nats"):
            return
        texts = tokens(2, 2000 + seed)
        model, _ = quantized(language_model(), arm, rule, texts[:, :-1])
        quant.initialise(model, [texts[:, :-1]])
        model.load_state_dict(torch.load(self.state(key), weights_only=True))
        self.test(model, key)

    def runs(self) -> Iterator[tuple[Arm, int]]:
        """All runs, the 4-bit arms first and seed by seed, so that an early stop leaves whole seeds."""
        for arms in (MAIN, [arm for arm in ARMS if arm not in MAIN]):
            yield from ((arm, seed) for seed in SEEDS for arm in arms)


def run(given: argparse.Namespace) -> None:
    """Train what is missing."""
    torch.set_num_threads(given.threads)
    study = Study(given.out, given.work, Length())
    end = math.inf if given.minutes is None else time.monotonic() + 60 * given.minutes
    for seed in SEEDS:
        study.float_network(seed)
    for arm, seed in study.runs():
        if time.monotonic() > end:
            print("stopped early; the same command goes on")
            return
        study.tested_run(arm, seed, *study.chosen(arm))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiments.language.train", description=__doc__)
    parser.add_argument("--out", type=Path, default=TABLE, help=f"CSV of the runs ({TABLE})")
    parser.add_argument("--work", type=Path, default=Path("runs/language"), help="folder of the trained networks")
    parser.add_argument("--minutes", type=float, help="start no run after so many minutes")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (1)")
    return exit_code_of(lambda: run(parser.parse_args(arguments)), ValueError)


if __name__ == "__main__":
    raise SystemExit(main())
