"""One training run as data: `Job` says everything that decides its result, `run(jobs, ...)` trains what is missing.

A quantized job starts from the float network of its own seed, which is a job too. Each finished job is one row of
runs.csv; one that was stopped (Ctrl-C, time limit) continues from its checkpoint. Choices are made on the validation
part of the training images; the test accuracy is only reported.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import itertools
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from experiments import table
from quant import checkpoint, models, weights
from quant.checkpoint import Meta
from quant.convert import quantize, read_overrides
from quant.data import Dataset, load, train_batches, write_atomically
from quant.loop import FitResult, TrainingDiverged, fit
from quant.processes import processes, rank
from quant.provenance import provenance
from quant.quantizer import Quantizer
from quant.recipe import NORM_BATCHES, Recipe
from quant.whole_models import initialise, quantizers

GRADIENT_SCALES = ("1/sqrt(Np)", "1/sqrt(N)", "1", "10/sqrt(Np)", "0.1/sqrt(Np)")
FIRST_VALUES = "first_values.json"
NETWORKS = Path(__file__).resolve().parent.parent / "networks"
ALLOCATIONS = Path(__file__).resolve().parent / "allocations"
# Fields younger than the committed rows: at None a key is what it was without them.
_NOT_NAMED_WHEN_NONE = (
    "float_seed", "change_limit", "float_weight_decay", "norm_batches", "weight_learning_rate", "positivity", "ewgs",
    "damping", "freezing", "weight_granularity", "anneal_from",
)  # fmt: skip
_FLOAT_KEEPS = ("network", "arguments", "data", "limit", "seed", "float_epochs", "batch_size", "weights")


@dataclass(frozen=True)
class Job:
    """A float or quantized training run. `arguments` are the zoo's, as sorted pairs; None means the paper's value.

    `bits`: 'W4A8', 'float', or 'mixed-NAME': the widths of every layer are those of experiments/allocations/NAME.yaml
    (as `python -m hwsim.explore bits` writes them, `overrides.yaml`), everything else has 8.
    `weights`: '' trains the float network for `float_epochs`, 'pretrained' takes the published one.
    `gradient_scale`: LSQ's 1/sqrt(N*p), or one of the alternatives of its Table 3.
    `float_seed`: seeds of one quantized job share the float network of this seed (as the papers' runs share one
    published network); None gives each seed a float network of its own.
    `float_weight_decay`: of the float network; None is the recipe's.
    `change_limit`: the recipe's; None, no limit, is the papers' way and what runs were before there was one.
    `norm_batches`: the recipe's; None, batch norms as trained, is the papers' way and what runs were before.
    `positivity`: of a run without a limit (a limit keeps s positive whatever the rule): absolute or printed; None is
    the floor s >= s0 / 2^14 that such runs had until 2026-12, and they can be read but not made again.
    `ewgs`, `damping`, `freezing`: the recipe's; None is LSQ+. `weight_granularity`: None is one step per tensor.
    `anneal_from`: wider bits that the first half of the epochs trains with; the second starts from its float weights.
    `weight_learning_rate`: the recipe's; None, one rate for weights and step sizes, is the papers' way.
    """

    network: str
    arguments: tuple[tuple[str, float], ...] = ()
    data: str = "digits"
    limit: int | None = None
    weights: str = ""
    float_epochs: float = 1.0
    batch_size: int = 128
    seed: int = 0
    bits: str = "float"
    epochs: float = 1.0
    config: str = "auto"
    padding_policy: str = "pad_code"
    init: str = "lsqplus"
    offset_mode: str = "learned"
    method: str = "lsqplus"
    first_last: str = "8bit"
    learning_rate: float | None = None
    weight_decay: float | None = None
    distill: bool = False
    gradient_scale: str = "1/sqrt(Np)"
    float_seed: int | None = None
    change_limit: float | None = Recipe.change_limit
    float_weight_decay: float | None = None
    norm_batches: int | None = NORM_BATCHES
    weight_learning_rate: float | None = None
    positivity: str | None = None
    ewgs: float | None = None
    damping: float | None = None
    freezing: float | None = None
    weight_granularity: str | None = None
    anneal_from: str | None = None

    @property
    def is_float(self) -> bool:
        return self.bits == "float"

    @property
    def allocation(self) -> dict[str, dict[str, Any]]:
        """Widths by layer of a job with mixed bits; nothing for others. ValueError for an unknown name."""
        return allocation(self.bits.removeprefix(table.MIXED)) if self.bits.startswith(table.MIXED) else {}

    @property
    def key(self) -> str:
        """A name for folders and rows: readable, and unique through a hash of all fields."""
        fields = dataclasses.asdict(self)
        for name in _NOT_NAMED_WHEN_NONE:
            if fields[name] is None:
                del fields[name]
        if self.allocation:
            fields["allocation"] = self.allocation
        digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:8]
        middle = "float" if self.is_float else f"{self.bits}-c{self.config}"
        return f"{self.network}-{self.data}-{middle}-s{self.seed}-{digest}"

    def float_job(self) -> Job:
        """The run whose network this one starts from."""
        kept = {name: getattr(self, name) for name in _FLOAT_KEEPS}
        seed = self.seed if self.float_seed is None else self.float_seed
        return Job(
            **{**kept, "seed": seed},
            epochs=self.float_epochs,
            change_limit=None,
            weight_decay=self.float_weight_decay,
            norm_batches=None,
        )

    def wide_job(self) -> Job | None:
        """The run of more bits that this one goes on from, where it anneals."""
        if self.anneal_from is None:
            return None
        return replace(self, bits=self.anneal_from, epochs=self.epochs / 2, anneal_from=None)

    def quantization(self) -> dict[str, Any] | None:
        """Keyword arguments of `quant.quantize`."""
        if self.is_float:
            return None
        mixed = self.allocation
        weight_bits, act_bits = (8, 8) if mixed else bits_of(self.bits)
        return {
            "weight_bits": weight_bits,
            "act_bits": act_bits,
            "config": self.config if self.config == "auto" else int(self.config),
            "first_last": self.first_last,
            "padding_policy": self.padding_policy,
            "init": self.init,
            "offset_mode": self.offset_mode,
            "method": self.method,
            **{
                name: value
                for name in ("positivity", "weight_granularity")
                if (value := getattr(self, name)) is not None
            },
            **({"overrides": mixed} if mixed else {}),
        }

    def narrowest(self) -> int:
        """The narrowest width of a quantized job."""
        if self.allocation:
            return min(width for widths in self.allocation.values() for width in widths.values())
        return min(bits_of(self.bits))

    def recipe(self, device: torch.device) -> Recipe:
        """The papers' recipe for the bits, with what the job changes."""
        names = ("learning_rate", "weight_decay", "weight_learning_rate", "ewgs", "damping", "freezing")
        chosen = {name: getattr(self, name) for name in names}
        return Recipe.for_bits(
            None if self.is_float else self.narrowest(),
            epochs=self.epochs / 2 if self.anneal_from else self.epochs,
            batch_size=self.batch_size, seed=self.seed, distill=self.distill,
            channels_last=True, bf16=device.type == "cuda", change_limit=self.change_limit or 0.0,
            norm_batches=self.norm_batches or 0,
            **{name: value for name, value in chosen.items() if value is not None},
        )  # fmt: skip


def with_float_jobs(jobs: Iterable[Job]) -> list[Job]:
    """The jobs, each once, and before its first user every float network that must be trained, or wider one."""
    found: list[Job] = []
    for job in jobs:
        found += [] if job.is_float or job.weights else [job.float_job()]
        found += [wide] if (wide := job.wide_job()) is not None else []
        found.append(job)
    return list(dict.fromkeys(found))


def share_of(jobs: Sequence[Job], index: int, count: int) -> list[Job]:
    """The jobs of process `index` of `count`: all that start from one float network together, so that none waits."""

    def group(job: Job) -> tuple[str, int]:
        return job.network, job.seed if job.weights or job.is_float else job.float_job().seed

    mine = set(list(dict.fromkeys(map(group, jobs)))[index::count])
    return [job for job in jobs if group(job) in mine]


def bits_of(text: str) -> tuple[int, int]:
    """'W4A8' -> (4, 8)."""
    weight, _, activation = text.upper().removeprefix("W").partition("A")
    return int(weight), int(activation)


@lru_cache
def allocation(name: str) -> dict[str, dict[str, Any]]:
    """Widths by layer of experiments/allocations/NAME.yaml. ValueError for an unknown name."""
    path = ALLOCATIONS / f"{name}.yaml"
    if not path.is_file():
        there = ", ".join(sorted(p.stem for p in ALLOCATIONS.glob("*.yaml"))) or "none"
        raise ValueError(f"{path}: expected widths by layer, there is no such file (there are {there})")
    return read_overrides(path)


@dataclass(frozen=True)
class Runner:
    """Where runs live and what they run on. `command` is what reproduces a job, given its key."""

    table: Path
    work: Path
    command: Callable[[str], str]
    device: torch.device
    data_dir: str | None = None
    report: Callable[[str], None] = lambda line: print(line, flush=True)

    def run(self, jobs: Sequence[Job], minutes: float | None = None) -> bool:
        """Train every job that has no row yet, each float network before its first user; False when time ran out."""
        deadline = math.inf if minutes is None else time.monotonic() + 60 * minutes
        done = {row["key"] for row in table.read(self.table)}
        wanted = [job for job in jobs if job.key not in done]
        if not wanted and len(jobs) == 1 and rank() == 0:
            self.report(f"{jobs[0].key}: {self.table} has its row; with another --out it is trained again")
        # A float network whose row came with the project, but not its weights, is trained again for those who need it.
        # One that came with the project as a whole is not.
        needed = with_float_jobs(wanted)
        lost = {job.key for job in needed if job.is_float and self.lacks(job)}
        kept = {job.key for job in needed if job.is_float and job not in wanted and self.came_along(job)}
        todo = [job for job in needed if job.key in lost or job.key not in done | kept]
        for position, job in enumerate(todo, start=1):
            left = (deadline - time.monotonic()) / 60
            if left <= 0:
                self.report(
                    f"time is up: {len(todo) - position + 1} of {len(todo)} runs are left; start again to go on"
                )
                return False
            if job.key not in lost and self.has_row(job):
                continue  # another process has done it meanwhile
            with self.claimed(job) as mine:
                if not mine:
                    continue
                if rank() == 0:
                    self.report(f"[{position}/{len(todo)}] {job.key}")
                if not self.train(job, None if math.isinf(left) else left):
                    return False
        return True

    @contextmanager
    def claimed(self, job: Job) -> Iterator[bool]:
        """Whether this process may train the job: False while another process beside it does.

        So several processes given the same list share it, in its order. A float network is waited for.
        """
        if processes() > 1:  # one group of processes trains alone
            yield True
            return
        self.work.mkdir(parents=True, exist_ok=True)
        with (self.work / f".{job.key}.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if job.is_float else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            yield not (self.has_row(job) and checkpoint.is_checkpoint(self.work / job.key))

    def has_row(self, job: Job) -> bool:
        return any(row["key"] == job.key for row in table.read(self.table))

    def lacks(self, job: Job) -> bool:
        """Whether a float job's network is neither among the checkpoints nor among the shipped networks."""
        return not checkpoint.is_checkpoint(self.work / job.key) and shipped(job) is None

    def came_along(self, job: Job) -> bool:
        """Whether a float job's network is one of the shipped networks, and none was begun here."""
        return not checkpoint.is_checkpoint(self.work / job.key) and shipped(job) is not None

    def train(self, job: Job, minutes: float | None) -> bool:
        """Train one job and add its row; False when it was stopped, resumable."""
        if processes() > 1:
            dist.barrier()  # the first process has written the float network that the others read
        data = dataset(job.data, job.limit, self.data_dir)
        folder = self.work / job.key
        resume = checkpoint.is_checkpoint(folder)
        model, meta = self.start(job, data, resume)
        data = data if meta.normalisation is None else data.with_normalisation(meta.normalisation)
        teacher = self.float_network(replace(job, anneal_from=None), data)[0] if job.distill else None
        if not resume and not job.is_float:
            first_values(model, data, job)
        before = remembered(folder / FIRST_VALUES, None if resume else quantizer_values(model))
        scale_gradients(model, job.gradient_scale, data)
        try:
            result = fit(
                model, data, job.recipe(self.device), meta=meta, out=folder, teacher=teacher, resume=resume,
                device=self.device, minutes=minutes, report=self.report,
            )  # fmt: skip
        except TrainingDiverged as problem:
            self.report(f"{job.key}: {problem}")
            self.add_row(job, {"diverged": True, "note": str(problem).split(":")[0]})
            return True
        if not result.finished:
            self.report(f"{job.key}: {result.reason} at step {result.steps} of {result.total_steps}")
            return False
        self.add_row(job, {
            "diverged": False, "steps": result.steps, "train_loss": result.history[-1].train_loss,
            "validation_accuracy_percent": result.validation_accuracy_percent,
            "test_accuracy_percent": result.test_accuracy_percent, "duration_s": round(result.seconds, 1),
            "last_epoch_gain_points": last_gain(result),
        })  # fmt: skip
        # The figures and claims about first and learned values (LSQ+ Figures 1 and 2) are of configuration 4.
        if before and job.config == "4" and rank() == 0 and self.table.name == "runs.csv":
            rows = [{"key": job.key, **row} for row in quantizer_rows(model, before)]
            table.append(self.table.with_name("quantizers.csv"), rows)
        return True

    def start(self, job: Job, data: Dataset, resume: bool) -> tuple[nn.Module, Meta]:
        """The network at the beginning of a job (its tensors come from the checkpoint where it resumes)."""
        if not (job.is_float or job.change_limit or job.positivity):
            raise ValueError(
                f"{job.key}: made with the floor under step sizes that was removed in 2026-12; see its commit"
            )
        torch.manual_seed(job.seed)
        model, meta = self.float_network(job, data)
        if not job.is_float:
            model, plan = quantize(model, **(job.quantization() or {}))
            meta = replace(meta, quantization=dict(plan.settings))
        return model, replace(meta, training={"provenance": provenance(self.device), "job": dataclasses.asdict(job)})

    def float_network(self, job: Job, data: Dataset) -> tuple[nn.Module, Meta]:
        """The float network a job starts from: fresh for a float job, else trained (or published)."""
        if job.weights == "pretrained":
            if self.data_dir is None:
                raise FileNotFoundError("published weights need --data-dir (or HWSIM_DATA)")
            scale = weights.trained(job.network).normalisation
            model = weights.load_pretrained(job.network, self.data_dir)
            return model, Meta(job.network, {}, None, data.train.shape(), data.num_classes, data.name, scale)
        if not job.is_float:
            folder = self.work / job.float_job().key
            kept = None if checkpoint.is_checkpoint(folder) else shipped(job.float_job())
            model, meta = checkpoint.load(kept or folder)
            if (wide := job.wide_job()) is not None:
                trained = checkpoint.load(self.work / wide.key)[0].state_dict()
                model.load_state_dict({name: trained[name] for name in model.state_dict()})
            return model, replace(meta, metrics={}, training={})
        arguments = dict(job.arguments)
        if data.num_classes != models.info(job.network).num_classes:
            arguments["num_classes"] = data.num_classes
        model = models.create(job.network, **arguments)
        shape = data.train.shape()
        return model, Meta(job.network, arguments, None, shape, data.num_classes, data.name, data.normalisation)

    def add_row(self, job: Job, outcome: dict[str, Any]) -> None:
        """One row of runs.csv: the job, what came out, where it comes from."""
        if rank() != 0:
            return
        origin = provenance(self.device)
        fields = dataclasses.asdict(job) | {"arguments": json.dumps(dict(job.arguments))}
        row = {"key": job.key, **fields, **outcome, "commit": origin["commit"], "device": origin["device"],
               "threads": origin["threads"], "processes": processes(), "torch": origin["torch"],
               "date": origin["date"], "command": self.command(job.key)}  # fmt: skip
        table.append(self.table, [row], key="key")


def last_gain(result: FitResult) -> float | None:
    """Points of validation accuracy that the last full epoch added to the one before; None for less than two."""
    measured = [record.validation_accuracy_percent for record in result.history if record.epoch == int(record.epoch)]
    if len(measured) < 2 or measured[-1] is None or measured[-2] is None:
        return None
    return measured[-1] - measured[-2]


def shipped(job: Job, networks: Path = NETWORKS) -> Path | None:
    """The folder below networks/ that a float job's trained network was shipped in, if it was."""
    for folder in sorted(path for path in networks.glob("*") if checkpoint.is_checkpoint(path)):
        settings = checkpoint.load_meta(folder).training.get("job", {})
        known = {field.name for field in dataclasses.fields(Job)}
        if settings and settings.keys() <= known:
            made = Job(**{**settings, "arguments": tuple((name, value) for name, value in settings["arguments"])})
            if made.is_float and made.float_job() == job:  # fields that say nothing of a float run may differ
                return folder
    return None


@lru_cache(maxsize=2)
def dataset(name: str, limit: int | None, folder: str | None) -> Dataset:
    """The data, its validation part always split off by the same seed."""
    return load(name, folder, limit=limit)


def first_values(model: nn.Module, data: Dataset, job: Job) -> None:
    """The quantizers' first values from four unaugmented training batches, as `quant.loop.fit` would take them."""
    size = min(job.batch_size, len(data.train))
    stream = train_batches(data, size, seed=job.seed, epoch=2**20, augment=False)
    initialise(model, (images for images, _ in itertools.islice(stream, 4)))


def quantizer_values(model: nn.Module) -> dict[str, tuple[float, float]]:
    """(s, beta) of every quantizer with one step, by name."""
    return {
        name: (float(q.step().detach()), float(q.offset().detach()))
        for name, q in quantizers(model)
        if q.rows == 1
    }  # fmt: skip


def remembered(path: Path, values: dict[str, tuple[float, float]] | None) -> dict[str, tuple[float, float]]:
    """Write a new run's first values, or read those of the run that is resumed (none when it left none)."""
    if values is not None:
        if rank() == 0:
            write_atomically(path, lambda file: file.write(json.dumps(values).encode()))
        return values
    return json.loads(path.read_bytes()) if path.exists() else {}


def quantizer_rows(model: nn.Module, before: dict[str, tuple[float, float]]) -> Iterable[dict[str, Any]]:
    """Per quantizer: bits, configuration, s and beta before and after training, extremes of the float tensor."""
    for name, q in quantizers(model):
        if q.rows == 1 and name in before:
            s, beta = (float(v.detach()) for v in (q.step(), q.offset()))
            low, high = q.observed.tolist()
            yield {
                "quantizer": name, "is_weight": q.is_weight, "bits": q.spec.bits, "config": q.spec.config,
                "s_initial": before[name][0], "beta_initial": before[name][1], "s_final": s, "beta_final": beta,
                "observed_min": low, "observed_max": high,
            }  # fmt: skip


def scale_gradients(model: nn.Module, rule: str, data: Dataset) -> None:
    """Multiply the gradients of every s and beta so that LSQ's 1/sqrt(N*p) becomes `rule` (LSQ Table 3)."""
    if rule == "1/sqrt(Np)":
        return
    if rule not in GRADIENT_SCALES:
        raise ValueError(f"gradient_scale: expected one of {', '.join(GRADIENT_SCALES)}, got {rule!r}")
    counts = feature_counts(model, data)
    for name, q in quantizers(model):
        if isinstance(q, Quantizer):
            factor = {
                "1/sqrt(N)": math.sqrt(q.spec.magnitude),
                "1": math.sqrt(counts[name] * q.spec.magnitude),
                "10/sqrt(Np)": 10.0,
                "0.1/sqrt(Np)": 0.1,
            }[rule]
            for parameter in (q.s, q.beta):
                if parameter is not None and parameter.requires_grad:
                    parameter.register_hook(lambda gradient, factor=factor: gradient * factor)


@torch.no_grad()
def feature_counts(model: nn.Module, data: Dataset) -> dict[str, int]:
    """N of every quantizer's gradient scale: weights per step, features of one sample."""
    counts: dict[str, int] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def note(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            counts[name] = module.count_features(inputs[0])  # type: ignore[operator]

        return note

    handles = [q.register_forward_pre_hook(watch(name)) for name, q in quantizers(model)]
    was_training = model.training
    images: Tensor = next(train_batches(data, 2, seed=0, epoch=0, augment=False))[0]
    device = next(model.parameters()).device
    model.eval()(images.to(device))
    model.train(was_training)
    for handle in handles:
        handle.remove()
    return counts
