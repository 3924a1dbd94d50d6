"""What rounding costs after it was trained for: each place alone fine-tuned by LSQ+ for a few steps on a proxy.

Before training, two bits look ruinous where a few steps would mend them, so sums of such losses misrank what will be
trained anyway. Here a network with one operand rounded takes some steps of the recipe, has its batch norms measured
again, and is compared on held-out images with the float network after the same steps on the same batches. Results are
kept line by line, so a measurement that was stopped goes on.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from quant.data import Dataset, write_atomically
from quant.loop import fit
from quant.recipe import Recipe

Outcome = tuple[float, float]  # cross-entropy, accuracy in percent


@dataclass(frozen=True)
class Proxy:
    """A short training: its images, recipe, and the held-out batches that judge it."""

    data: Dataset
    recipe: Recipe
    held_out: Sequence[tuple[Tensor, Tensor]]

    @classmethod
    def of(
        cls, data: Dataset, steps: int, held_out: Sequence[tuple[Tensor, Tensor]], *, batch_size: int = 128,
        norm_batches: int = 4, seed: int = 0,
    ) -> "Proxy":  # fmt: skip
        """`steps` of the recipe of low bits. Everything has one learning rate, so that differences are of rounding.

        ValueError without held-out images, or for more images than there are.
        """
        if not held_out:
            raise ValueError("proxy: expected held-out images: the data has no validation part")
        if steps < 1:
            raise ValueError(f"proxy: expected at least 1 step, got {steps}")
        size = min(batch_size, len(data.train))
        epochs = steps / (len(data.train) // size)
        recipe = Recipe.for_bits(4, epochs=epochs, batch_size=size, seed=seed, norm_batches=norm_batches)
        nothing = data.validation.subset(torch.arange(0))
        return cls(replace(data, validation=nothing), recipe, tuple(held_out))

    def train(self, model: nn.Module) -> Outcome:
        """(cross-entropy, accuracy) of `model` on the held-out images after training it in place.

        KeyboardInterrupt when a signal asked to stop; TrainingDiverged as `fit`.
        """
        result = fit(model, self.data, self.recipe, test=False)
        if not result.finished:
            raise KeyboardInterrupt
        return judged(model, self.held_out)


@torch.no_grad()
def judged(model: nn.Module, batches: Sequence[tuple[Tensor, Tensor]]) -> Outcome:
    """Mean cross-entropy, and accuracy in percent."""
    loss, right, count = 0.0, 0, 0
    for images, labels in batches:
        logits = model.eval()(images)
        loss += float(nn.functional.cross_entropy(logits, labels, reduction="none").double().sum())
        right += int((logits.argmax(1) == labels).sum())
        count += len(labels)
    return loss / count, 100.0 * right / count


class Kept:
    """Outcomes by name in a file, one line each, flushed as they are found; another measurement's are refused.

    A line carries a hash of what it says. One that is damaged is named in `damaged`, and its place is measured again.
    """

    def __init__(self, path: Path | None, settings: Mapping[str, Any]) -> None:
        self.path, self.found = path, dict[str, Outcome]()
        self.damaged: list[str] = []
        header = json.dumps({"settings": dict(settings)}, sort_keys=True, default=str).encode()
        if path is None:
            return
        content = path.read_bytes() if path.exists() else b""
        first, *lines = content.split(b"\n")[:-1] or [header]  # a line cut short by a crash is dropped
        if first != header:
            there = first[:400].decode(errors="backslashreplace")
            raise ValueError(f"{path}: holds another measurement: remove it, or measure as it says ({there})")
        good = [header]
        for number, line in enumerate(lines, start=2):
            kept = outcome_of(line)
            if kept is None:
                self.damaged.append(f"{path}:{number}: damaged, it is measured again: {line[:60]!r}")
            else:
                self.found[kept[0]] = kept[1]
                good.append(line)
        whole = b"".join(line + b"\n" for line in good)
        if whole != content:
            write_atomically(path, lambda file: file.write(whole))

    def get(self, name: str, measure: Callable[[], Outcome]) -> Outcome:
        """The outcome kept under a name, or measured now."""
        if name not in self.found:
            self.found[name] = measure()
            if self.path is not None:
                with self.path.open("ab") as file:
                    file.write(line_of(name, self.found[name]) + b"\n")
                    file.flush()
                    os.fsync(file.fileno())
        return self.found[name]


def line_of(name: str, outcome: Outcome) -> bytes:
    """An outcome as a line, with a hash of what it says."""
    entry = {"of": name, "loss": outcome[0], "accuracy_percent": outcome[1]}
    return json.dumps({**entry, "hash": hashlib.sha256(json.dumps(entry).encode()).hexdigest()[:16]}).encode()


def outcome_of(line: bytes) -> tuple[str, Outcome] | None:
    """The inverse of `line_of`; None for a line that it does not write."""
    try:
        entry = json.loads(line)
        name, outcome = entry["of"], (entry["loss"], entry["accuracy_percent"])
        return (name, outcome) if line == line_of(name, outcome) and isinstance(name, str) else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def falling(losses: Mapping[int, float]) -> dict[int, float]:
    """The losses nearest to the measured ones (least squares) that do not grow with bits: such neighbours are pooled.

    A few steps on a few images leave noise; that a wider operand costs no more is known.

    >>> falling({2: 0.5, 3: 0.1, 4: 0.3, 8: 0.0})
    {2: 0.5, 3: 0.2, 4: 0.2, 8: 0.0}
    """
    pools: list[tuple[float, int]] = []
    for bits in sorted(losses):
        pools.append((losses[bits], 1))
        while len(pools) > 1 and pools[-1][0] > pools[-2][0]:
            (b, m), (a, n) = pools.pop(), pools.pop()
            pools.append(((a * n + b * m) / (n + m), n + m))
    values = [value for value, count in pools for _ in range(count)]
    return dict(zip(sorted(losses), values, strict=True))
