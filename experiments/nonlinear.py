"""`python -m experiments.nonlinear`: the trained transformers without a float operator, code for code and on test rows.

The vision transformer and the language model in LSQ+ with 4 bits, as `experiments.vision.train` and
`experiments.language.train` left them. By each method of softmax and norms: the codes of all quantizers that differ
from the float64 network's (each layer alone, and end to end), those undecided, and the error of both on test rows.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from experiments import table
from experiments.format_training import SEEDS, Study
from experiments.language import train as language
from experiments.language.arms import arms
from experiments.tables import markdown
from experiments.vision import train as vision
from hwsim.errors import exit_code_of
from hwsim.integer.lowering.lower import lower
from hwsim.integer.proof.certificate import certify
from hwsim.integer.proof.compare import doubles, reference
from hwsim.integer.run import Machine
from hwsim.integer.words import METHODS
from quant.data import load
from quant.dataset import Dataset, eval_batches

TABLE = Path("results/nonlinear.csv")
ARM = "lsqplus-4"
COMPARED = 64  # rows whose codes are compared
Network = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Trained:
    """A study's networks, `rows` test inputs whose codes are compared, `error` of a network on `count` test rows."""

    name: str
    study: Study
    arm_names: tuple[str, str]
    rows: Tensor
    error: Callable[[Network], float]
    count: int

    def network(self, seed: int) -> nn.Module:
        """The trained network of the seed, in evaluation."""
        arm = next(arm for arm in arms(*self.arm_names) if arm.name == ARM)
        rate, rule = self.study.chosen(arm)
        file = self.study.state(self.study.key(arm.name, seed, rate, rule))
        if not file.exists():
            raise FileNotFoundError(f"{file}: not there; run python -m experiments.{self.name}.train first")
        task = self.study.task
        model = self.study.in_format(task.network(), arm, rule, task.first(seed)[:1])
        model.load_state_dict(torch.load(file, weights_only=True))
        return model.eval()


def images(data: Dataset, work: Path, count: int) -> Trained:
    """The vision transformer."""
    split = data.test.subset(torch.arange(count))
    batches = list(eval_batches(split, data.normalisation))

    def error(run: Network) -> float:
        return 100 * sum(int((run(x).argmax(1) != y).sum()) for x, y in batches) / count

    study = Study(vision.TABLE, work, vision.task(data))
    return Trained("vision", study, ("fc1", "fc2"), batches[0][0][:COMPARED], error, count)


def texts(work: Path, count: int) -> Trained:
    """The language model."""
    found, nats = language.GRAMMAR.sample(count, language.LENGTH, language.PARTS["test"][0])
    batches = list(torch.from_numpy(found).split(100))

    def error(run: Network) -> float:
        total = sum(float(language.loss_of(run, language.as_batch(part))) * len(part) for part in batches)  # type: ignore[arg-type]
        return total / count - float(nats.mean())

    study = Study(language.TABLE, work, language.task())
    return Trained("language", study, ("up", "down"), batches[0][:COMPARED, :-1], error, count)


def rows(trained: Trained, seed: int) -> Iterator[dict[str, Any]]:
    """One row per method."""
    model = trained.network(seed)
    twin = reference(model)
    with torch.no_grad():
        expected = trained.error(lambda x: twin(*doubles(x)))
    for method in METHODS:
        found = certify(model, trained.rows, name=trained.name, nonlinear=method, naive=False)
        machine = Machine(lower(model, trained.rows[:1], name=trained.name, nonlinear=method))
        codes = [layer.codes for layer in found.layers]
        yield {
            "key": f"{trained.name} seed{seed} {method}", "network": trained.name, "seed": seed, "method": method,
            "float_operators": len(found.float_operators), "integer_methods": len(found.integer_methods),
            "rows_compared": found.images, "codes": sum(c.elements for c in codes),
            "own_differing": sum(c.own_differing for c in codes),
            "end_to_end_differing": sum(c.end_to_end_differing for c in codes),
            "undecided": found.tally.get("undecided", 0), "test_rows": trained.count, "error_float64": expected,
            "error_integer": trained.error(lambda x, m=machine: m.run(x).values),
        }  # fmt: skip


def run(given: argparse.Namespace) -> None:
    """Write the rows that are missing."""
    torch.set_num_threads(1)
    known = {row["key"] for row in table.read(given.out)}
    studies = [texts(given.language_work, given.texts)]
    studies.append(images(load("cifar10", given.data_dir), given.vision_work, given.images))
    for seed in SEEDS:
        for trained in studies:
            if all(f"{trained.name} seed{seed} {method}" in known for method in METHODS):
                continue
            for row in rows(trained, seed):
                table.append(given.out, [row], key="key")
                print(", ".join(f"{name} {value}" for name, value in row.items()), flush=True)


def block() -> str:
    """Sums over the seeds, a line per network and method."""
    units = {"vision": "%", "language": "nats"}
    lines: list[list[str]] = []
    for (network, method), members in table.group(table.read(TABLE), "network", "method").items():
        total = {name: sum(int(row[name]) for row in members) for name in
                 ("codes", "own_differing", "end_to_end_differing", "undecided")}  # fmt: skip
        real, whole = (sum(float(row[n]) for row in members) / len(members) for n in ("error_float64", "error_integer"))
        lines.append([
            network, f"`{method}`", members[0]["float_operators"], f"{total['codes']:,}", f"{total['own_differing']:,}",
            f"{total['end_to_end_differing']:,}", f"{total['undecided']:,}",
            f"{real:.4f} {units[network]}", f"{whole:.4f} {units[network]}",
        ])  # fmt: skip
    heads = ("network", "method", "float operators", "codes", "differ, each layer alone", "differ, end to end",
             "undecided", "test error, float64", "test error, integers")  # fmt: skip
    return markdown(heads, lines)


BLOCKS = {"nonlinear": block}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiments.nonlinear", description=__doc__)
    parser.add_argument("--out", type=Path, default=TABLE, help=f"CSV ({TABLE})")
    parser.add_argument("--language-work", type=Path, default=Path("runs/language"), help="its trained networks")
    parser.add_argument("--vision-work", type=Path, default=Path("runs/vision"), help="its trained networks")
    parser.add_argument("--texts", type=int, default=500, help="test texts of the error")
    parser.add_argument("--images", type=int, default=2000, help="test images of the error")
    parser.add_argument("--data-dir", type=Path, help="folder with CIFAR-10 (default: $HWSIM_DATA)")
    return exit_code_of(lambda: run(parser.parse_args(arguments)), ValueError, FileNotFoundError)


if __name__ == "__main__":
    raise SystemExit(main())
