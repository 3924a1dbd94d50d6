"""`python -m experiments.train_gpu --minutes 25 --parallel 4`: EfficientNet-B0 and ResNet-18 for CIFAR-10, quantized.

Trains both (stems for 32 x 32) in float, then configurations 1 to 4 of LSQ+ at W2A2, W3A3 and W4A4, seed after seed, on
one CUDA GPU. As much is done as fits into the minutes; the same command goes on where it stopped. `--parallel N` trains
N groups (network, seed) side by side, since one small network leaves a large GPU idle. Rows: results/gpu/runs.csv.
"""

from __future__ import annotations

import argparse
import itertools
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from types import FrameType

import torch

from experiments import command_line
from experiments.jobs import Job
from experiments.profiles import CONFIGS, Profile

# ImageNet networks with the stem that keeps a small image's size (`quant.models`, image_size).
NETWORKS = (
    Job("efficientnet_b0", (("image_size", 32),), "cifar10", float_epochs=60, epochs=15, float_weight_decay=5e-4),
    Job("resnet18", (("image_size", 32),), "cifar10", float_epochs=60, epochs=15, float_weight_decay=5e-4),
)
BITS = ("W2A2", "W3A3", "W4A4")


def jobs(profile: Profile) -> list[Job]:
    """The first seed of everything before the second of anything; other profiles bring their own networks."""
    networks = NETWORKS if profile.name == "gpu" else profile.networks()
    bits = BITS if profile.name == "gpu" else profile.bits
    return [
        replace(network, bits=b, config=config, seed=seed)
        for seed, network, b, config in itertools.product(profile.seeds, networks, bits, CONFIGS)
    ]


def parser() -> argparse.ArgumentParser:
    p = command_line.parser("train_gpu", __doc__ or "")
    p.set_defaults(profile="gpu")
    p.add_argument("--parallel", type=int, default=1, metavar="N", help="processes that share the GPU")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 2 bad input, 3 stopped early (the same command goes on)."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parser().parse_args(given)
    try:
        if options.parallel < 1:
            raise ValueError(f"--parallel: expected at least 1, got {options.parallel}")
        if options.profile == "gpu" and options.device == "auto" and not options.list and not torch.cuda.is_available():
            raise ValueError("no CUDA device here: use --profile cpu, or --device cpu if days do not matter")
        if options.parallel > 1 and not options.list:
            return in_parallel(given, options.parallel)
        return command_line.train("train_gpu", options, jobs)
    except (ValueError, FileNotFoundError) as problem:
        print(f"experiments.train_gpu: {problem}", file=sys.stderr)
        return 2
    finally:
        command_line.leave_group()


def in_parallel(given: list[str], count: int) -> int:
    """One process per share of the jobs; a signal to this one reaches all of them, which then stop resumably."""
    line = [sys.executable, "-m", "experiments.train_gpu", *given, "--parallel", "1", "--share"]
    workers = [subprocess.Popen([*line, f"{i}/{count}"]) for i in range(count)]

    def pass_on(number: int, frame: FrameType | None) -> None:
        for worker in workers:
            worker.send_signal(signal.SIGINT)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, pass_on)
    return max(worker.wait() for worker in workers)


if __name__ == "__main__":
    raise SystemExit(main())
