"""The training loop: `fit(model, data, recipe, out=FOLDER) -> FitResult`.

Every step is a function of (seed, step) and the state that a checkpoint holds, so a run that was stopped (Ctrl-C,
SIGTERM, time limit) and resumed computes the same bits on a CPU as one that was not. Under torchrun the batch is
shared by the processes (DDP). A loss that is not finite stops the run; the last good checkpoint stays.
"""

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from quant import checkpoint
from quant.accuracy import evaluate
from quant.calling import answer, call, moved, parted
from quant.change_limit import ChangeLimit
from quant.checkpoint import Meta
from quant.data import Arrays, Dataset, train_batches
from quant.memory import keep_memory
from quant.methods import methods_of
from quant.norms import NORMS, reestimate_norms
from quant.processes import processes, random_name, random_states, rank
from quant.recipe import Recipe
from quant.stop_signals import StopSignals
from quant.training_log import EpochRecord, epoch_line, tensorboard_writer, write_log
from quant.whole_models import initialise, parameter_groups, quantizers

Report = Callable[[str], None]
# Steps between looks at the loss and the stop flag where a look costs a synchronisation (CUDA, several processes).
LOOK_EVERY = 20


class TrainingDiverged(RuntimeError):
    """The loss is not finite. The message names the step, the learning rate and the last good checkpoint."""


@dataclass(frozen=True)
class FitResult:
    """What `fit` did. `finished` is False when it stopped early, `reason` says why; `seconds` of all resumed parts."""

    history: tuple[EpochRecord, ...]
    steps: int
    total_steps: int
    finished: bool
    reason: str
    seconds: float
    validation_accuracy_percent: float | None
    test_accuracy_percent: float | None
    checkpoint: Path | None

    def to_dict(self) -> dict[str, Any]:
        raw = dataclasses.asdict(self)
        return raw | {"checkpoint": None if self.checkpoint is None else str(self.checkpoint)}


def fit(
    model: nn.Module,
    data: Dataset,
    recipe: Recipe | None = None,
    *,
    meta: Meta | None = None,
    out: str | Path | None = None,
    teacher: nn.Module | None = None,
    resume: bool = False,
    device: str | torch.device = "cpu",
    max_steps: int | None = None,
    minutes: float | None = None,
    checkpoint_minutes: float = 10.0,
    test: bool = True,
    tensorboard: bool = False,
    report: Report | None = None,
    tick: Callable[[int, int, float], None] | None = None,
) -> FitResult:
    """Train `model` in place by `recipe`; quantizers without values take them from the first batches (Eq. 8).

    `out`: folder for the checkpoint (needs `meta`, which says how to rebuild the network), log.csv and best/ (highest
    validation accuracy). `resume`: continue from `out`. `max_steps`, `minutes`: stop, resumable, after so much of this
    call.
    `test`: measure the test part at the end. `report` gets a line per epoch, `tick` (step, steps, loss) now and then.
    Raises TrainingDiverged, and ValueError for settings that cannot work.
    """
    recipe = recipe or Recipe()
    if torch.device(device).type == "cpu":
        keep_memory()
    run = _Run(model, data, recipe, meta, None if out is None else Path(out), teacher, torch.device(device))
    if resume:
        run.restore()
    else:
        run.prepare()
    run.start(report or (lambda line: None), tick, tensorboard, checkpoint_minutes)
    with StopSignals() as stop:
        reason = run.train(stop, max_steps, minutes)
    return run.finish(reason, test)


def loss_of(logits: Tensor, labels: Tensor, teacher_logits: Tensor | None) -> Tensor:
    """Mean cross entropy, plus that to the teacher's probabilities at T = 1 with the same weight when there is one."""
    loss = F.cross_entropy(logits.float(), labels)
    if teacher_logits is None:
        return loss
    return loss + F.cross_entropy(logits.float(), teacher_logits.float().softmax(1))


class _Run:
    """One call of `fit`: the state that changes from step to step, and how it is saved."""

    def __init__(
        self,
        model: nn.Module,
        data: Dataset,
        recipe: Recipe,
        meta: Meta | None,
        out: Path | None,
        teacher: nn.Module | None,
        device: torch.device,
    ) -> None:
        if out is not None and meta is None:
            raise ValueError("fit: a checkpoint folder needs `meta`, which says how to rebuild the network")
        if recipe.distill and teacher is None:
            raise ValueError("fit: distill needs a `teacher`, the float network")
        check_batches(model, data, recipe)
        self.model, self.recipe, self.meta, self.out, self.device = model.to(device), recipe, meta, out, device
        self.data = _on_device(data, device)
        self.teacher = None if not recipe.distill or teacher is None else teacher.to(device).eval()
        if recipe.channels_last:
            self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.steps_per_epoch = len(data.train) // recipe.batch_size
        self.total_steps = max(1, round(recipe.epochs * self.steps_per_epoch))
        self.step = 0
        self.sums = torch.zeros(3, dtype=torch.float64, device=device)  # loss * images, right answers, images
        self.history: list[EpochRecord] = []
        self.seconds_before = 0.0
        self.best: float | None = None
        self.saved: Path | None = None

    # Start

    def prepare(self) -> None:
        """First values of the quantizers, from training images as training will see them, in an order of their own."""
        torch.manual_seed(self.recipe.seed + 1_000_003 * rank())
        if any(not bool(q.initialized) for _, q in quantizers(self.model)):
            size = min(self.recipe.batch_size, len(self.data.train))
            augment = self.recipe.augment
            stream = train_batches(self.data, size, seed=self.recipe.seed, epoch=2**20, augment=augment)
            batches = (moved(images, self.device) for images, _ in itertools.islice(stream, self.recipe.init_batches))
            initialise(self.model, batches)
        self._make_optimizer()

    def restore(self) -> None:
        """Take everything from the checkpoint in `out`; ValueError when it was trained by another recipe."""
        if self.out is None:
            raise ValueError("fit: resume needs `out`, the folder of the checkpoint")
        meta = checkpoint.load_meta(self.out)
        state = checkpoint.load_training_state(self.out)
        earlier = Recipe.from_dict(meta.training["recipe"])
        if differences := earlier.differences(self.recipe):
            raise ValueError(
                f"{self.out}: resume: the checkpoint's recipe differs from this one: {'; '.join(differences)}"
            )
        checkpoint.load_into(self.out, self.model)
        self._make_optimizer()
        for name, parameter in self.model.named_parameters():
            momentum = state.get(f"momentum/{name}")
            if momentum is not None:
                buffer = torch.empty_like(parameter).copy_(momentum)
                self.optimizer.state[parameter]["momentum_buffer"] = buffer
        for method in self.methods:
            method.restore(state)
        self.step = int(meta.training["step"])
        self.history = [EpochRecord(**record) for record in meta.training["history"]]
        self.seconds_before = float(meta.training["seconds"])
        self.best = meta.training["best_validation_percent"]
        self.sums.copy_(state["sums"] if rank() == 0 else torch.zeros(3))
        self._restore_random_states(state)
        self.saved = self.out

    def _restore_random_states(self, state: dict[str, Tensor]) -> None:
        """This process's own; a process that the checkpoint does not know begins a sequence of its own."""
        mine = {kind: state.get(random_name(kind, rank())) for kind in ("cpu", "cuda")}
        if mine["cpu"] is None:
            torch.manual_seed(self.recipe.seed + 1_000_003 * rank() + self.step)
        else:
            torch.set_rng_state(mine["cpu"])
        if self.device.type == "cuda" and mine["cuda"] is not None:
            torch.cuda.set_rng_state(mine["cuda"], self.device)

    def _make_optimizer(self) -> None:
        groups = parameter_groups(self.model, self.recipe.weight_decay)
        self.optimizer = torch.optim.SGD(groups, lr=self.recipe.learning_rate, momentum=self.recipe.momentum)
        self.change_limit = ChangeLimit(self.model, self.recipe.change_limit, self.recipe.momentum)
        self.methods = methods_of(self.model, self.recipe)

    def start(self, report: Report, tick: Any, tensorboard: bool, checkpoint_minutes: float) -> None:
        self.report = report if rank() == 0 else lambda line: None
        self.tick = tick if rank() == 0 else None
        self.checkpoint_seconds = 60 * checkpoint_minutes
        self.started = self.last_save = self.epoch_started = time.monotonic()
        self.writer = tensorboard_writer(self.out) if tensorboard and rank() == 0 else None
        runner: nn.Module = torch.compile(self.model) if self.recipe.compile else self.model  # type: ignore[assignment]
        if processes() > 1:
            runner = DistributedDataParallel(runner, [self.device] if self.device.type == "cuda" else None)
        self.runner = runner

    # Steps

    def train(self, stop: "StopSignals", max_steps: int | None, minutes: float | None) -> str:
        """Steps until the end, a signal or a limit; returns why it ended ('' when all steps are done)."""
        first = self.step
        self.model.train()
        batches = self._batches()
        while self.step < self.total_steps:
            images, labels = next(batches)
            loss = self._one_step(images, labels)
            self.step += 1
            self._look(loss)
            if self.step % self.steps_per_epoch == 0 or self.step == self.total_steps:
                self._end_epoch()
            reason, due = self._stop_reason(stop, self.step - first, max_steps, minutes)
            if reason and self.step < self.total_steps:
                self._save()
                return reason
            if due:
                self._save()
        return ""

    def _batches(self) -> Iterator[tuple[Any, Tensor]]:
        """Batches from the current step on, epoch after epoch."""
        while True:
            epoch, start = divmod(self.step, self.steps_per_epoch)
            yield from train_batches(
                self.data,
                self.recipe.batch_size,
                seed=self.recipe.seed,
                epoch=epoch,
                start=start,
                rank=rank(),
                processes=processes(),
                augment=self.recipe.augment,
            )

    def _one_step(self, images: Any, labels: Tensor) -> Tensor:
        """One optimizer step over `accumulate` passes; returns the mean loss of this process's images."""
        recipe = self.recipe
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.learning_rate_at(self.step, self.total_steps, weights=not group["quantizers"])
        images, labels = moved(images, self.device, non_blocking=True), labels.to(self.device, non_blocking=True)
        if recipe.channels_last and isinstance(images, Tensor):
            images = images.contiguous(memory_format=torch.channels_last)
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.device)
        parts = list(zip(parted(images, recipe.accumulate), labels.chunk(recipe.accumulate), strict=True))
        for i, (x, y) in enumerate(parts):
            with self._synchronise(i == len(parts) - 1), self._autocast():
                logits = answer(call(self.runner, x))
                taught = None
                if self.teacher is not None:
                    with torch.no_grad():
                        taught = answer(call(self.teacher, x))
                loss = loss_of(logits, y, taught)
                (loss / len(parts)).backward()
            self._count(loss.detach(), logits.detach(), y)
            total += loss.detach() / len(parts)
        for method in self.methods:
            method.before_step(self.step / self.total_steps)
        self.change_limit.clip_gradients(recipe.learning_rate_at(self.step, self.total_steps))
        if recipe.clip_norm > 0:
            nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip_norm)
        self.optimizer.step()
        for method in self.methods:
            method.after_step(self.step / self.total_steps)
        return total

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, torch.bfloat16) if self.recipe.bf16 else nullcontext()

    def _synchronise(self, last: bool) -> AbstractContextManager[Any]:
        """Gradients are averaged over the processes with the last pass only."""
        if last or not isinstance(self.runner, DistributedDataParallel):
            return nullcontext()
        return self.runner.no_sync()

    def _count(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        right = (logits.argmax(1) == labels).sum()
        n = torch.full_like(right, len(labels))
        self.sums += torch.stack([loss.double() * len(labels), right.double(), n.double()])

    def _look(self, loss: Tensor) -> None:
        """Stop when the loss is not finite: at once on a CPU, every LOOK_EVERY steps where looking costs time."""
        if self.device.type == "cuda" and self.step % LOOK_EVERY and self.step != self.total_steps:
            return
        value = float(loss)
        # A sum that is not finite also reveals losses between two looks.
        if not (torch.isfinite(loss).item() and torch.isfinite(self.sums).all().item()):
            self._diverged(f"the loss is {value}")
        if self.tick is not None:
            self.tick(self.step, self.total_steps, value)

    def _diverged(self, what: str) -> None:
        rate = self.recipe.learning_rate_at(self.step - 1, self.total_steps)
        kept = f"the last good checkpoint is in {self.saved}" if self.saved else "no checkpoint was written yet"
        raise TrainingDiverged(
            f"step {self.step} of {self.total_steps}: {what}, at learning rate {rate:.3g}; {kept}. "
            "Try a smaller learning rate, or look at the data"
        )

    def _stop_reason(
        self, stop: "StopSignals", done: int, max_steps: int | None, minutes: float | None
    ) -> tuple[str, bool]:
        """Why to stop ('': go on), and whether to save; several processes agree on both, every LOOK_EVERY steps."""
        reason = 0
        if stop.received:
            reason = 1
        elif max_steps is not None and done >= max_steps:
            reason = 2
        elif minutes is not None and time.monotonic() - self.started >= 60 * minutes:
            reason = 3
        due = self._save_is_due()
        if processes() > 1 and (self.step % LOOK_EVERY == 0 or max_steps is not None):
            shared = torch.tensor([reason, int(due)], device=self.device)
            dist.all_reduce(shared, dist.ReduceOp.MAX)
            reason, due = int(shared[0]), bool(shared[1])
        elif processes() > 1:
            reason, due = 0, False
        return ("", "interrupted", "step limit", "time limit")[reason], due

    # Epochs and checkpoints

    def _end_epoch(self) -> None:
        loss, right, seen = self._all_sums().tolist()
        if self.step == self.total_steps:
            self._measure_norms()
        validation = None
        if len(self.data.validation):
            validation = evaluate(self.model, self.data.validation, self.data.normalisation, device=self.device)
        now = time.monotonic()
        record = EpochRecord(
            self.step / self.steps_per_epoch,
            self.step,
            self.recipe.learning_rate_at(self.step - 1, self.total_steps),
            loss / seen,
            100 * right / seen,
            validation,
            now - self.epoch_started,
        )
        self.epoch_started = now
        self.history.append(record)
        self.sums.zero_()
        self.report(epoch_line(record, self.total_steps))
        if self.writer is not None:
            for name, value in dataclasses.asdict(record).items():
                if value is not None:
                    self.writer.add_scalar(name, value, self.step)
        self._save()
        if validation is not None and (self.best is None or validation > self.best):
            self.best = validation
            self._save_best()

    def _all_sums(self) -> Tensor:
        """The sums of all processes; every process must call this together."""
        sums = self.sums.clone()
        if processes() > 1:
            dist.all_reduce(sums)
        return sums

    def _measure_norms(self) -> None:
        """The batch norms' statistics of the network as it now is; every process sees the same images."""
        if self.recipe.norm_batches:
            size = min(self.recipe.batch_size, len(self.data.train))
            stream = train_batches(self.data, size, seed=self.recipe.seed, epoch=2**20 + 1, augment=self.recipe.augment)
            images = (moved(images, self.device) for images, _ in itertools.islice(stream, self.recipe.norm_batches))
            reestimate_norms(self.model, images)

    def _save_is_due(self) -> bool:
        return self.out is not None and time.monotonic() - self.last_save >= self.checkpoint_seconds

    def _meta(self, metrics: dict[str, float]) -> Meta:
        assert self.meta is not None
        training = {
            **self.meta.training,
            "recipe": self.recipe.to_dict(),
            "step": self.step,
            "total_steps": self.total_steps,
            "processes": processes(),
            "seconds": self.seconds_before + time.monotonic() - self.started,
            "best_validation_percent": self.best,
            "history": [dataclasses.asdict(record) for record in self.history],
        }
        return replace(self.meta, metrics={**self.meta.metrics, **metrics}, training=training)

    def _metrics(self) -> dict[str, float]:
        last = self.history[-1].validation_accuracy_percent if self.history else None
        return {} if last is None else {"validation_accuracy_percent": last}

    def _save(self, metrics: dict[str, float] | None = None) -> None:
        if self.out is None:
            return
        state = {"sums": self._all_sums(), **random_states(self.device)}
        if rank() != 0:
            return
        try:
            checkpoint.check_finite(self.model)
        except ValueError as error:
            self._diverged(str(error).split(";")[0])
        for method in self.methods:
            state |= method.state()
        for name, parameter in self.model.named_parameters():
            momentum = self.optimizer.state.get(parameter, {}).get("momentum_buffer")
            if momentum is not None:
                state[f"momentum/{name}"] = momentum
        meta = self._meta({**self._metrics(), **(metrics or {})})
        self.saved = checkpoint.save(self.out, self.model, meta, training_state=state)
        self.last_save = time.monotonic()
        write_log(self.out / "log.csv", self.history)

    def _save_best(self) -> None:
        if self.out is not None and rank() == 0:
            checkpoint.save(self.out / "best", self.model, self._meta(self._metrics()))

    def finish(self, reason: str, test: bool) -> FitResult:
        accuracy = None
        finished = self.step >= self.total_steps
        if test and finished and len(self.data.test):
            accuracy = evaluate(self.model, self.data.test, self.data.normalisation, device=self.device)
            self._save({"test_accuracy_percent": accuracy})
        if self.writer is not None:
            self.writer.close()
        self.model.eval()
        if dist.is_available() and dist.is_initialized():
            dist.barrier()  # what the first process writes is there when any of them returns
        return FitResult(
            tuple(self.history),
            self.step,
            self.total_steps,
            finished,
            reason,
            self.seconds_before + time.monotonic() - self.started,
            self.history[-1].validation_accuracy_percent if self.history else None,
            accuracy,
            self.saved,
        )


def check_batches(model: nn.Module, data: Dataset, recipe: Recipe) -> None:
    """ValueError for batches that cannot be trained on: too few images, uneven shares, one image for a batch norm."""
    if len(data.train) == 0:
        raise ValueError(f"{data.name}: the training part holds no images")
    if recipe.batch_size > len(data.train):
        raise ValueError(
            f"batch size {recipe.batch_size} exceeds the {len(data.train)} training images: choose at most that many"
        )
    if recipe.batch_size % (processes() * recipe.accumulate):
        raise ValueError(
            f"batch size {recipe.batch_size} must divide by processes x accumulate, {processes()} x {recipe.accumulate}"
        )
    share = recipe.batch_size // (processes() * recipe.accumulate)
    if share == 1 and any(isinstance(m, NORMS) for m in model.modules()):
        raise ValueError(
            f"a batch of one with batch norm: batch size {recipe.batch_size} over {processes()} processes x "
            f"{recipe.accumulate} passes leaves 1 image, which has no variance; use at least 2 images a pass"
        )


def _on_device(data: Dataset, device: torch.device) -> Dataset:
    """Small sets move to the device as a whole."""
    if device.type == "cpu":
        return data
    parts = {n: getattr(data, n) for n in ("train", "validation", "test")}
    return replace(data, **{n: p.to(device) if isinstance(p, Arrays) else p for n, p in parts.items()})
