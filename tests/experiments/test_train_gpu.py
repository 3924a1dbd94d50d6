"""The script for a borrowed GPU: its jobs and their order, and what it says where there is no GPU."""

import pytest
import torch

from experiments import train_gpu
from experiments.jobs import with_float_jobs
from experiments.profiles import PROFILES
from quant import models


def test_one_seed_of_everything_comes_first() -> None:
    jobs = train_gpu.jobs(PROFILES["gpu"])
    seeds = [job.seed for job in jobs]
    assert seeds == sorted(seeds)
    first = [(job.network, job.bits, job.config) for job in jobs if job.seed == 0]
    assert len(first) == len(set(first)) == 2 * 3 * 4
    assert sum(job.is_float for job in with_float_jobs(jobs)) == 2 * len(set(seeds))
    assert len({job.key for job in jobs}) == len(jobs)


def test_its_networks_fit_the_images() -> None:
    for job in train_gpu.NETWORKS:
        assert models.info(job.network).input_shape_for(**dict(job.arguments)) == (3, 32, 32)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_without_a_gpu_it_says_what_else_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert train_gpu.main([]) == 2
    assert "no CUDA device here: use --profile cpu" in capsys.readouterr().err


def test_bad_arguments_and_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert train_gpu.main(["--parallel", "0"]) == 2
    assert "--parallel: expected at least 1, got 0" in capsys.readouterr().err
    assert train_gpu.main(["--list", "--seeds", "1"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 24
