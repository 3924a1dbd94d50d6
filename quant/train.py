"""`python -m quant.train --model resnet20 --data cifar10 --weights pretrained --bits W4A4 --epochs 2 --out DIR`

Trains a float or quantized network and leaves a checkpoint that `hwsim.evaluate` and `--resume` read, with log.csv.
Start from trained float weights (`--weights`), as LSQ does. Defaults of learning rate and weight decay are the papers'
for the narrowest operand. With several GPUs or machines: `torchrun --nproc-per-node N -m quant.train ...`.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from quant import checkpoint, models
from quant.argument import CommandLine, check_folder, named, said
from quant.checkpoint import Meta
from quant.convert import quantize
from quant.data import load, write_atomically
from quant.loop import FitResult, TrainingDiverged, fit
from quant.processes import join_group, processes, rank
from quant.provenance import provenance
from quant.recipe import NORM_BATCHES, Recipe
from quant.start import (
    add_quantization_arguments,
    add_start_arguments,
    given_normalisation,
    parse_bits,
    quantize_arguments,
    starting_point,
)
from quant.terminal import Printer, complain

# On --resume these may be given anew; everything else comes from the checkpoint.
_FREE_ON_RESUME = {"out", "resume", "device", "data_dir", "minutes", "checkpoint_minutes", "threads", "json", "workers"}


def recipe_from(arguments: argparse.Namespace) -> Recipe:
    """The papers' defaults for the bits, with what was asked for on top."""
    bits = parse_bits(arguments.bits)
    choices: dict[str, Any] = {
        "epochs": arguments.epochs,
        "batch_size": arguments.batch_size,
        "accumulate": arguments.accumulate,
        "augment": not arguments.no_augment,
        "distill": arguments.distill,
        "seed": arguments.seed,
        "clip_norm": arguments.clip_norm,
        "change_limit": arguments.change_limit,
        "bf16": arguments.bf16,
        "channels_last": arguments.channels_last,
        "compile": arguments.compile,
    }
    choices |= {name: getattr(arguments, name) for name in ("ewgs", "damping", "freezing")}
    if arguments.lr is not None:
        choices["learning_rate"] = arguments.lr
    if arguments.weight_lr is not None:
        choices["weight_learning_rate"] = arguments.weight_lr
    if arguments.norm_batches is not None:
        choices["norm_batches"] = arguments.norm_batches
    if arguments.weight_decay is not None:
        choices["weight_decay"] = arguments.weight_decay
    if arguments.distill and bits is None:
        raise ValueError("--distill: needs quantized bits; the teacher is the float network that training starts from")
    return Recipe.for_bits(None if bits is None else min(bits), **choices)


def run(arguments: argparse.Namespace, report: Callable[[str], None]) -> FitResult:
    """Train as the arguments say."""
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    device = choose_device(arguments.device)
    out = Path(arguments.out)
    check_folder(out)
    recipe = recipe_from(arguments)
    data = load(
        arguments.data,
        arguments.data_dir,
        validation=arguments.validation,
        seed=arguments.data_seed,
        limit=arguments.limit,
        workers=arguments.workers,
        image_size=arguments.image_size,
    )
    torch.manual_seed(arguments.seed)
    teacher = None
    if arguments.resume:
        model, meta = checkpoint.load(out)
        recipe = Recipe.from_dict(meta.training["recipe"])  # later defaults do not change an earlier run
        if recipe.distill:
            teacher, _ = checkpoint.load(out / "teacher")
    else:
        model, meta = starting_point(
            arguments.model,
            arguments.weights,
            data,
            data_dir=arguments.data_dir,
            model_arguments=dict(arguments.model_arg or []),
            normalisation=given_normalisation(arguments),
        )
        settings = quantize_arguments(arguments)
        if settings is not None and arguments.weights is None:
            report("warning: quantized training from random weights; LSQ starts from trained ones (--weights)")
        if recipe.distill:
            teacher, _ = _keep_teacher(model, meta, out)
        if settings is not None:
            model, plan = quantize(model, **settings)
            meta = replace(meta, quantization=dict(plan.settings))
            for warning in plan.warnings:
                report(f"warning: {warning}")
            if rank() == 0:
                write_atomically(out / "plan.txt", lambda file: file.write(f"{plan}\n".encode()))
        kept = {key: value for key, value in vars(arguments).items() if key not in _FREE_ON_RESUME}
        meta = replace(meta, data=data.name, training={"provenance": provenance(device), "arguments": kept})
    if meta.normalisation is not None:
        data = data.with_normalisation(meta.normalisation)
    if data.note:
        report(f"{data.name}: {data.note}")
    with _Bar(enabled=rank() == 0 and sys.stderr.isatty()) as bar:
        return fit(
            model,
            data,
            recipe,
            meta=meta,
            out=out,
            teacher=teacher,
            resume=arguments.resume,
            device=device,
            minutes=arguments.minutes,
            checkpoint_minutes=arguments.checkpoint_minutes,
            tensorboard=arguments.tensorboard,
            report=bar.print if bar.enabled else report,
            tick=bar.tick,
        )


def _keep_teacher(model: nn.Module, meta: Meta, out: Path) -> tuple[nn.Module, Meta]:
    """The float network as it is now, stored for later resumption, as a copy of its own."""
    if rank() == 0:
        checkpoint.save(out / "teacher", model, meta)
    if processes() > 1:
        dist.barrier()
    return checkpoint.load(out / "teacher")


def choose_device(name: str) -> torch.device:
    """`auto`: CUDA when there is one (this process's own under torchrun), else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda"):
        if not torch.cuda.is_available():
            raise ValueError("--device cuda: torch sees no CUDA device here; use --device cpu")
        if name == "cuda":
            name = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
        torch.cuda.set_device(name)
    elif name != "cpu":
        raise ValueError(f"--device: expected auto, cpu or cuda, got '{name}'")
    return torch.device(name)


class _Bar:
    """A progress bar on the terminal; silent elsewhere."""

    def __init__(self, *, enabled: bool) -> None:
        self.enabled = enabled
        self._progress: Any = None

    def __enter__(self) -> "_Bar":
        if self.enabled:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = [
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("steps  loss {task.fields[loss]:.4f}"),
                TimeRemainingColumn(),
            ]
            self._progress = Progress(*columns, console=Console(stderr=True))
            self._task = self._progress.add_task("train", total=None, loss=float("nan"))
            self._progress.start()
        return self

    def tick(self, step: int, total: int, loss: float) -> None:
        if self._progress is not None:
            self._progress.update(self._task, completed=step, total=total, loss=loss)

    def print(self, line: str) -> None:
        self._progress.console.print(line, highlight=False)

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()


def parser() -> argparse.ArgumentParser:
    p = CommandLine(prog="hwsim train", description=(__doc__ or "").split("\n\n")[1])
    what = p.add_argument_group("what to train")
    what.add_argument("--model", help=f"one of {', '.join(models.names())}")
    what.add_argument("--weights", type=named, help="'pretrained', a checkpoint folder, or a file of weights")
    what.add_argument("--limit", type=int, help="use only so many training images")
    add_start_arguments(what)
    add_quantization_arguments(what, "float", "lsqplus")
    how = p.add_argument_group("how")
    how.add_argument("--epochs", type=float, default=1.0)
    how.add_argument("--batch-size", type=int, default=128, help="images per optimizer step, over all processes")
    how.add_argument("--lr", type=float, help="learning rate (default: the paper's for the bits)")
    how.add_argument(
        "--weight-lr", type=float, help="learning rate of all but step sizes and offsets (default: that of --lr)"
    )
    how.add_argument("--weight-decay", type=float, help="(default: the paper's for the bits)")
    how.add_argument("--clip-norm", type=float, default=0.0, help="largest norm of the gradients (default: 0, none)")
    how.add_argument(
        "--change-limit", type=float, default=Recipe.change_limit,
        help="largest share of itself that a step changes a step size by (default: %(default)s; 0, the papers': none)",
    )  # fmt: skip
    how.add_argument(
        "--norm-batches", type=int,
        help=f"training batches that measure the batch norms again at the end (default: {NORM_BATCHES}; float: 0)",
    )  # fmt: skip
    how.add_argument("--accumulate", type=int, default=1, help="passes per optimizer step")
    how.add_argument("--distill", action="store_true", help="learn from the float network too")
    beyond = p.add_argument_group("beyond LSQ+ (docs/results.md says what helped; default: 0, nothing)")
    beyond.add_argument("--ewgs", type=float, default=0.0, help="gradients that know the rounding error, delta: 0.2")
    beyond.add_argument("--damping", type=float, default=0.0, help="pull of weights to their code: 0.01")
    beyond.add_argument("--freezing", type=float, default=0.0, help="hold weights that oscillate more often: 0.02")
    how.add_argument("--no-augment", action="store_true")
    how.add_argument("--bf16", action="store_true", help="autocast the float part; quantizers stay float32")
    how.add_argument("--channels-last", action="store_true")
    how.add_argument("--compile", action="store_true")
    how.add_argument("--seed", type=int, default=0)
    how.add_argument("--device", default="auto")
    how.add_argument("--workers", type=int, help="processes that decode images (default: all processors but one)")
    how.add_argument("--threads", type=int, help="CPU threads")
    where = p.add_argument_group("where to and how long")
    where.add_argument("--out", type=named, required=True, help="folder of the checkpoint and log.csv")
    where.add_argument("--resume", action="store_true", help="continue the run in --out")
    where.add_argument("--minutes", type=float, help="stop, resumable, after so many minutes")
    where.add_argument("--checkpoint-minutes", type=float, default=10.0)
    where.add_argument("--tensorboard", action="store_true")
    where.add_argument("--json", action="store_true", help="print the result as JSON alone")
    return p


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The arguments; with --resume those of the first run, and an error where one given now differs."""
    arguments = parser().parse_args(argv)
    if not arguments.resume:
        if checkpoint.is_checkpoint(arguments.out):
            raise ValueError(f"{arguments.out}: already holds a checkpoint: use --resume, or another --out")
        return arguments
    first = checkpoint.load_meta(arguments.out).training.get("arguments")
    if not isinstance(first, dict):
        raise ValueError(f"{arguments.out}: not written by quant.train: it does not say how to go on")
    defaults = vars(parser().parse_args(["--out", arguments.out]))
    for key, value in vars(arguments).items():
        now = json.loads(json.dumps(value))  # as the checkpoint has it: pairs are lists there
        if key not in _FREE_ON_RESUME and value != defaults[key] and now != first.get(key):
            raise ValueError(f"--resume: {key} was {first.get(key)!r} in {arguments.out}, now {now!r}: leave it out")
    return argparse.Namespace(**{**vars(arguments), **first})


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0, 2 bad input, 1 the training diverged, 130 interrupted."""
    first, say = True, Printer(sys.stdout)
    try:
        arguments = parse(argv)
        join_group(arguments.device)
        first = rank() == 0
        quiet = arguments.json or not first
        result = run(arguments, (lambda line: None) if quiet else say)
    except (ValueError, OSError) as error:
        return complain(said(error))
    except TrainingDiverged as error:
        complain(error)
        return 1
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
    if first:
        say(json.dumps(result.to_dict(), indent=2) if arguments.json else summary(result, arguments.out))
    return say.code(0 if result.finished or result.reason != "interrupted" else 130)


def summary(result: FitResult, out: str) -> str:
    if not result.finished:
        return (
            f"stopped ({result.reason}) at step {result.steps} of {result.total_steps}; "
            f"continue with: hwsim train --resume --out {out}"
        )
    accuracy = result.test_accuracy_percent
    return f"test {accuracy:.2f} %  {result.steps} steps  {result.seconds:.0f} s  checkpoint {out}"


if __name__ == "__main__":
    raise SystemExit(main())
