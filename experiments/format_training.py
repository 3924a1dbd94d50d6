"""One float network, many number formats: training runs that a study of formats compares.

Each run starts from the float network of its seed and sees the same batches in the same order. Seed 0's validation
chooses the learning rate (and the scale rule of MXFP4); the test part is read once, for the chosen runs alone. A run is
a row of the CSV. Stopped early, the same command goes on.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import quant
from experiments import table
from experiments.language.arms import FLOAT, Arm, quantized
from quant.whole_models import quantizers

Batch = tuple[Tensor, Tensor]  # what the network is called with, and what is wanted

SEEDS = (0, 1, 2)
CHOSEN_BY = 0  # the seed whose validation chooses
DECAY = 0.01


@dataclass(frozen=True)
class Phase:
    """A training: `batches(seed)` in order, how many they are, and the steps of linear warm-up."""

    batches: Callable[[int], Iterable[Batch]]
    steps: int
    warm_up: int


@dataclass(frozen=True)
class Task:
    """What is learned. `score(model, part)`: the error on "validation" or "test", smaller is better, in what `measure`
    names; `first(seed)`: inputs of the batches that give the quantizers their first values."""

    network: Callable[[], nn.Module]
    loss: Callable[[nn.Module, Batch], Tensor]
    score: Callable[[nn.Module, str], float]
    measure: str
    pretraining: Phase
    training: Phase
    first: Callable[[int], list[Tensor]]
    first_last: str
    float_rate: float
    rates: tuple[float, ...]


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


def fit(model: nn.Module, task: Task, phase: Phase, seed: int, rate: float) -> None:
    """AdamW over the batches in order: linear warm-up, then a cosine to 0; gradients of norm 1 at most."""
    optimizer = torch.optim.AdamW(groups(model, rate))

    def factor(step: int) -> float:
        return min((step + 1) / max(phase.warm_up, 1), 0.5 * (1 + math.cos(math.pi * step / phase.steps)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    model.train()
    for batch in phase.batches(seed):
        loss = task.loss(model, batch)
        if not torch.isfinite(loss):
            raise ValueError("training diverged: the loss is not finite")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()


@dataclass(frozen=True)
class Study:
    """Where rows and networks are kept, and what is learned."""

    out: Path
    work: Path
    task: Task

    def key(self, arm: str, seed: int, rate: float, rule: str) -> str:
        """A run's name, which is its row's key and its file's name."""
        return "-".join(filter(None, (arm, rule, f"{rate:g}", f"seed{seed}")))

    def row(self, key: str) -> table.Row | None:
        """The finished run of that key."""
        return next((row for row in table.read(self.out) if row["key"] == key), None)

    def is_tested(self, key: str) -> bool:
        """Whether the run's row has its error on the test part."""
        return bool((self.row(key) or {}).get(f"test_{self.task.measure}"))

    def state(self, key: str) -> Path:
        """The file of a run's parameters."""
        return self.work / f"{key}.pt"

    def score(self, model: nn.Module, part: str) -> float:
        """The task's error, in evaluation and without gradients."""
        was_training = model.training
        model.eval()
        with torch.no_grad():
            found = self.task.score(model, part)
        model.train(was_training)
        return found

    def float_network(self, seed: int) -> nn.Module:
        """The float network of a seed, trained or read."""
        key = self.key(FLOAT, seed, self.task.float_rate, "")
        torch.manual_seed(seed)
        model = self.task.network()
        if not self.state(key).exists():
            start = time.process_time()
            fit(model, self.task, self.task.pretraining, seed, self.task.float_rate)
            self.keep(model, key, FLOAT, seed, self.task.float_rate, "", {"cpu_s": round(time.process_time() - start)})
        model.load_state_dict(torch.load(self.state(key), weights_only=True))
        if not self.is_tested(key):
            self.test(model, key)
        return model

    def in_format(self, model: nn.Module, arm: Arm, rule: str, first: Sequence[Tensor]) -> nn.Module:
        """A copy of the network in the arm's format, with first values."""
        found, _ = quantized(model, arm, rule, first[0][:2], self.task.first_last)
        if arm.settings:
            quant.initialise(found, first)
        return found

    def quantized_run(self, arm: Arm, seed: int, rate: float, rule: str) -> str:
        """Train one arm unless its row is there; the key."""
        key = self.key(arm.name, seed, rate, rule)
        if self.row(key) is None:
            model = self.in_format(self.float_network(seed), arm, rule, self.task.first(seed))
            before, start = self.score(model, "validation"), time.process_time()
            fit(model, self.task, self.task.training, seed, rate)
            extra = {f"untrained_{self.task.measure}": before, "cpu_s": round(time.process_time() - start)}
            self.keep(model, key, arm.name, seed, rate, rule, extra)
        return key

    def keep(
        self, model: nn.Module, key: str, arm: str, seed: int, rate: float, rule: str, extra: dict[str, Any]
    ) -> None:
        """Write the parameters, then the row with the validation error; the test part stays unread."""
        self.work.mkdir(parents=True, exist_ok=True)
        torch.save(model.state_dict(), self.state(key))
        found, measure = self.score(model, "validation"), self.task.measure
        row = {"key": key, "arm": arm, "seed": seed, "learning_rate": rate, "scale_rule": rule,
               f"validation_{measure}": found, f"test_{measure}": None, **extra}  # fmt: skip
        table.append(self.out, [row], key="key")
        print(f"{key}: validation {found:.4f} {measure}", flush=True)

    def test(self, model: nn.Module, key: str) -> None:
        """Add the error on the test part to a row."""
        row = self.row(key)
        assert row is not None
        table.append(self.out, [{**row, f"test_{self.task.measure}": self.score(model, "test")}], key="key")

    def chosen(self, arm: Arm) -> tuple[float, str]:
        """The learning rate and scale rule of the least validation error of seed 0; MXFP4's rule at the first rate."""
        rates = self.task.rates
        tried = [(rate, arm.rules[0]) for rate in rates] + [(rates[0], rule) for rule in arm.rules[1:]]
        errors = {}
        for rate, rule in tried:
            row = self.row(self.quantized_run(arm, CHOSEN_BY, rate, rule))
            assert row is not None
            errors[rate, rule] = float(row[f"validation_{self.task.measure}"])
        by_rate = {rate: error for (rate, rule), error in errors.items() if rule == arm.rules[0]}
        by_rule = {rule: error for (rate, rule), error in errors.items() if rate == rates[0]}
        return min(by_rate, key=lambda r: by_rate[r]), min(by_rule, key=lambda r: by_rule[r])

    def tested_run(self, arm: Arm, seed: int, rate: float, rule: str) -> None:
        """Train a chosen run and report it on the test part."""
        key = self.quantized_run(arm, seed, rate, rule)
        if self.is_tested(key):
            return
        model = self.in_format(self.task.network(), arm, rule, self.task.first(seed)[:1])
        model.load_state_dict(torch.load(self.state(key), weights_only=True))
        self.test(model, key)

    def run(self, arms: Sequence[Arm], first_arms: Sequence[Arm], minutes: float | None) -> None:
        """Train what is missing: `first_arms` before the others, seed by seed, so that an early stop leaves whole
        seeds."""
        end = math.inf if minutes is None else time.monotonic() + 60 * minutes
        for seed in SEEDS:
            self.float_network(seed)
        for arm, seed in ordered(arms, first_arms):
            if time.monotonic() > end:
                print("stopped early; the same command goes on")
                return
            self.tested_run(arm, seed, *self.chosen(arm))


def ordered(arms: Sequence[Arm], first_arms: Sequence[Arm]) -> Iterator[tuple[Arm, int]]:
    """All runs."""
    for members in (first_arms, [arm for arm in arms if arm not in first_arms]):
        yield from ((arm, seed) for seed in SEEDS for arm in members)


def options(name: str, about: str | None, out: Path, work: Path) -> argparse.ArgumentParser:
    """What the commands of such studies take."""
    parser = argparse.ArgumentParser(prog=f"python -m {name}", description=about)
    parser.add_argument("--out", type=Path, default=out, help=f"CSV of the runs ({out})")
    parser.add_argument("--work", type=Path, default=work, help="folder of the trained networks")
    parser.add_argument("--minutes", type=float, help="start no run after so many minutes")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (1)")
    return parser
