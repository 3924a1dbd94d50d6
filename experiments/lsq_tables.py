"""`python -m experiments.lsq_tables --profile cpu`: the ablations of the LSQ paper at a chosen scale.

Weight decay (Table 2), gradient scale with the ratio R behind it (Table 3, section 3.4), distillation (Table 4) as
training runs, then two measurements without training: R at the start, and how far the learned s is from the s of least
error (section 3.6: MAE and MSE; its KL estimator is not spelled out and is left out). CSVs: runs, lsq_ratio, lsq_error.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from experiments import command_line, table
from experiments.jobs import GRADIENT_SCALES, Job, Runner, dataset, first_values, scale_gradients
from experiments.profiles import Profile
from quant import checkpoint
from quant.data import Dataset, eval_batches, train_batches
from quant.functional import lsq_plus
from quant.loop import loss_of
from quant.processes import rank
from quant.quantizer import BaseQuantizer
from quant.whole_models import quantizers

WEIGHT_DECAYS = (1e-4, 0.5e-4, 0.25e-4, 0.125e-4)
# The paper searches 0.01 s ... 20 s; the grid is geometric, 2 % apart.
FACTORS = torch.logspace(-2, torch.log10(torch.tensor(20.0)).item(), 384)
BATCHES = 10


def base_job(profile: Profile, bits: str) -> Job:
    """LSQ itself: configuration 1, its own initialisation, on the ReLU network where the profile has one."""
    return profile.at(profile.relu or profile.silu, bits, config="1", method="lsq", init="lsq")


def jobs(profile: Profile) -> list[Job]:
    """Gradient scales and weight decays at the fewest bits, distillation at all below 8."""
    found: list[Job] = []
    base = base_job(profile, profile.bits[0])
    for seed in profile.seeds:
        found += [replace(base, seed=seed, gradient_scale=scale) for scale in GRADIENT_SCALES]
        found += [replace(base, seed=seed, gradient_scale="1", learning_rate=1e-4)]
        found += [replace(base, seed=seed, weight_decay=decay) for decay in WEIGHT_DECAYS]
        for bits in profile.low_bits():
            found += [replace(base_job(profile, bits), seed=seed, distill=distill) for distill in (False, True)]
    return list(dict.fromkeys(found))


def ratio_rows(runner: Runner, job: Job) -> Iterator[dict[str, Any]]:
    """R = (|grad_s| / s) / (||grad_w|| / ||w||) of every weight quantizer before training, mean over some batches."""
    data = dataset(job.data, job.limit, runner.data_dir)
    for rule in GRADIENT_SCALES:
        model, _ = runner.start(job, data, resume=False)
        first_values(model, data, job)
        scale_gradients(model, rule, data)
        sums: dict[str, float] = {}
        for images, labels in islice(train_batches(data, job.batch_size, seed=job.seed, epoch=0), BATCHES):
            model.zero_grad()
            loss_of(model.train()(images), labels, None).backward()
            for name, ratio in ratios(model):
                sums[name] = sums.get(name, 0.0) + ratio / BATCHES
        for name, ratio in sums.items():
            yield {"key": job.key, "gradient_scale": rule, "quantizer": name, "R": ratio, "batches": BATCHES}


def ratios(model: nn.Module) -> Iterator[tuple[str, float]]:
    """(name, R) of every weight quantizer with gradients."""
    for name, q in quantizers(model):
        if not q.is_weight:
            continue
        weight = model.get_submodule(name.rpartition(".")[0]).weight
        s = q.get_parameter("s")
        if s.grad is not None and isinstance(weight, Tensor) and weight.grad is not None:
            relative_weight = float(weight.grad.norm() / weight.detach().norm())
            yield name, float(s.grad.abs() / s.detach()) / relative_weight


def error_rows(runner: Runner, job: Job) -> Iterator[dict[str, Any]]:
    """Per quantizer of a trained network: learned s, and the s of least mean absolute and squared error."""
    model, meta = checkpoint.load(runner.work / job.key)
    data = dataset(job.data, job.limit, runner.data_dir)
    assert meta.normalisation is not None
    for name, (q, values) in quantized_tensors(model, data.with_normalisation(meta.normalisation)).items():
        s = q.step().detach()
        candidates = FACTORS * s
        errors = torch.stack([lsq_plus(values, c, None, q.spec.n, q.spec.p) - values for c in candidates])
        best = {"mae": candidates[errors.abs().mean(1).argmin()], "mse": candidates[errors.square().mean(1).argmin()]}
        yield {
            "key": job.key, "quantizer": name, "is_weight": q.is_weight, "bits": q.spec.bits, "s_learned": float(s),
            **{f"s_{kind}": float(value) for kind, value in best.items()},
            **{f"difference_{kind}_percent": 100 * abs(float(s) / float(v) - 1) for kind, v in best.items()},
        }  # fmt: skip


@torch.no_grad()
def quantized_tensors(model: nn.Module, data: Dataset) -> dict[str, tuple[BaseQuantizer, Tensor]]:
    """What every quantizer sees on one batch of the validation part: at most 20,000 values each."""
    seen: dict[str, tuple[BaseQuantizer, Tensor]] = {}

    def watch(name: str, q: BaseQuantizer) -> Any:
        def note(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            flat = inputs[0].detach().flatten()
            chosen = torch.randperm(len(flat), generator=torch.Generator().manual_seed(0))[:20_000]
            seen[name] = (q, flat[chosen])

        return note

    handles = [q.register_forward_pre_hook(watch(name, q)) for name, q in quantizers(model)]
    images, _ = next(eval_batches(data.validation, data.normalisation, 128))
    model.eval()(images)
    for handle in handles:
        handle.remove()
    return seen


def measure(runner: Runner, profile: Profile) -> None:
    """Write lsq_ratio.csv and lsq_error.csv for the first seed."""
    base = replace(base_job(profile, profile.bits[0]), seed=profile.seeds[0])
    table.write(runner.table.with_name("lsq_ratio.csv"), list(ratio_rows(runner, base)))
    if checkpoint.is_checkpoint(runner.work / base.key):
        table.write(runner.table.with_name("lsq_error.csv"), list(error_rows(runner, base)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 2 bad input, 3 stopped early (resumable)."""
    options = command_line.parser("lsq_tables", __doc__ or "").parse_args(arguments)
    try:
        code = command_line.train("lsq_tables", options, jobs)
        if code == 0 and rank() == 0 and not options.list and options.only is None:
            measure(command_line.runner("lsq_tables", options), command_line.choose_profile(options))
    except (ValueError, OSError) as problem:
        print(f"experiments.lsq_tables: {problem}", file=sys.stderr)
        return 2
    finally:
        command_line.leave_group()
    return code


if __name__ == "__main__":
    raise SystemExit(main())
