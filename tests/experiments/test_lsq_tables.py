"""The measurements of the LSQ paper: R follows its definition, the best s is no worse than any other tried."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from experiments import lsq_tables
from experiments.jobs import Job, Runner, dataset
from experiments.profiles import PROFILES
from quant import checkpoint

BASE = replace(lsq_tables.base_job(PROFILES["smoke"], "W2A2"), limit=128, float_epochs=1, epochs=1, batch_size=32)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    folder = tmp_path_factory.mktemp("lsq")
    runner = Runner(folder / "runs.csv", folder / "work", str, torch.device("cpu"), None, lambda _: None)
    assert runner.run([BASE])
    return runner


def test_ratio_grows_with_the_gradient_scale(trained: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    """R is proportional to g, and g = 1 over g = 1/sqrt(N*p) is sqrt(N*p) of that weight tensor."""
    monkeypatch.setattr(lsq_tables, "BATCHES", 2)
    monkeypatch.setattr(lsq_tables, "GRADIENT_SCALES", ("1/sqrt(Np)", "1"))
    rows = list(lsq_tables.ratio_rows(trained, BASE))
    found = {(row["gradient_scale"], row["quantizer"]): row["R"] for row in rows}
    model, _ = checkpoint.load(trained.work / BASE.key)
    for (rule, name), ratio in found.items():
        if rule == "1":
            layer = name.rpartition(".")[0]
            weights, p = model.get_submodule(layer).weight.numel(), model.get_submodule(name).spec.p
            assert ratio == pytest.approx(found["1/sqrt(Np)", name] * math.sqrt(weights * p), rel=1e-3)


def test_best_step_is_the_best_of_a_finer_search(trained: Runner) -> None:
    rows = {row["quantizer"]: row for row in lsq_tables.error_rows(trained, BASE)}
    model, meta = checkpoint.load(trained.work / BASE.key)
    assert meta.normalisation is not None
    data = dataset("digits", 128, None).with_normalisation(meta.normalisation)
    seen = lsq_tables.quantized_tensors(model, data)
    assert len(rows) == len(seen)
    name = "blocks.1.0.conv_pw.weight_quantizer"
    quantizer, values = seen[name]
    x, n, p = values.double().numpy(), quantizer.spec.n, quantizer.spec.p

    def error(s: float) -> float:
        return float(np.mean((np.round(np.clip(x / s, n, p)) * s - x) ** 2))

    finer = np.geomspace(0.01, 20, 3000) * rows[name]["s_learned"]
    assert error(rows[name]["s_mse"]) <= 1.01 * min(error(s) for s in finer)
    assert error(rows[name]["s_mse"]) <= error(rows[name]["s_learned"])


def test_ablations_cover_the_papers_tables() -> None:
    jobs = lsq_tables.jobs(PROFILES["cpu"])
    at_two_bits = [job for job in jobs if job.bits == "W2A2" and job.seed == 0]
    assert {job.gradient_scale for job in at_two_bits} == set(lsq_tables.GRADIENT_SCALES)
    assert {job.weight_decay for job in at_two_bits} == {None, *lsq_tables.WEIGHT_DECAYS}
    assert {(job.bits, job.distill) for job in jobs} >= {(b, d) for b in ("W2A2", "W4A4") for d in (True, False)}
    assert all(isinstance(job, Job) and job.method == "lsq" and job.config == "1" for job in jobs)
