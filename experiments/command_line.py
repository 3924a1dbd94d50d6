"""What the experiments' command lines share: training ones --profile, --seeds, --only, --minutes, --out, torchrun;
those that measure on test images --images, --data-dir, --out.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist

from experiments.jobs import Job, Runner, share_of, with_float_jobs
from experiments.profiles import PROFILES, Profile
from hwsim.errors import exit_code_of
from quant.processes import join_group, rank
from quant.terminal import Printer

Jobs = Callable[[Profile], Sequence[Job]]


def parser(name: str, doc: str) -> argparse.ArgumentParser:
    """The options every training experiment takes."""
    p = argparse.ArgumentParser(prog=f"python -m experiments.{name}", description=doc.split("\n\n")[-1])
    p.add_argument("--profile", default="smoke", choices=list(PROFILES))
    p.add_argument("--only", metavar="KEY", help="train this one run (and its float network): reproduces one row")
    p.add_argument("--seeds", type=int, metavar="N", help="use seeds 0..N-1 instead of the profile's")
    p.add_argument(
        "--share", default="0/1", metavar="I/N", help="train only part I of N: several processes side by side"
    )
    p.add_argument("--minutes", type=float, help="stop, resumable, after so many minutes")
    p.add_argument("--out", type=Path, help="folder of the CSVs (default: results/PROFILE)")
    p.add_argument("--work", type=Path, help="folder of checkpoints (default: runs/PROFILE, OUT/checkpoints)")
    p.add_argument("--data-dir", default=os.environ.get("HWSIM_DATA"), help="folder of the data (default: $HWSIM_DATA)")
    p.add_argument("--device", default="auto", help="auto, cpu or cuda")
    p.add_argument("--threads", type=int, help="CPU threads")
    p.add_argument("--list", action="store_true", help="print the keys of all runs and train nothing")
    return p


def choose_profile(options: argparse.Namespace) -> Profile:
    """The profile, with the number of seeds asked for."""
    profile = PROFILES[options.profile]
    if options.seeds is None:
        return profile
    if options.seeds < 1:
        raise ValueError(f"--seeds: expected at least 1, got {options.seeds}")
    return replace(profile, seeds=tuple(range(options.seeds)))


def choose_jobs(options: argparse.Namespace, jobs: Sequence[Job]) -> list[Job]:
    """All jobs, or the one of --only: as listed, or as runs were before change limits and measured batch norms.

    ValueError for a key that is none of them.
    """
    if options.only is None:
        index, count = parse_share(options.share)
        return share_of(jobs, index, count)
    as_trained = [replace(job, norm_batches=None) for job in jobs]
    unlimited = [replace(job, change_limit=None) for job in as_trained]
    chosen = [job for job in with_float_jobs([*jobs, *as_trained, *unlimited]) if job.key == options.only]
    if not chosen:
        raise ValueError(f"--only: no run has the key {options.only!r}; --list prints all of them")
    return chosen[:1]


def parse_share(text: str) -> tuple[int, int]:
    """'1/2' -> (1, 2). ValueError unless 0 <= I < N."""
    index, _, count = text.partition("/")
    if not (index.isdigit() and count.isdigit() and int(index) < int(count)):
        raise ValueError(f"--share: expected I/N with I below N, such as 0/2, got {text!r}")
    return int(index), int(count)


def runner(name: str, options: argparse.Namespace, table_name: str = "runs.csv") -> Runner:
    """Where the rows and checkpoints go, and the command that reproduces a row."""
    out = options.out or Path("results") / options.profile
    work = options.work or (out / "checkpoints" if options.out else Path("runs") / options.profile)
    seeds = f" --seeds {options.seeds}" if options.seeds is not None else ""
    return Runner(
        out / table_name,
        work,
        lambda key: f"python -m experiments.{name} --profile {options.profile}{seeds} --only {key}",
        choose_device(options.device),
        options.data_dir,
    )


def choose_device(name: str) -> torch.device:
    """`auto`: this process's CUDA device when there is one, else the CPU. ValueError for anything else."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name not in ("cpu", "cuda"):
        raise ValueError(f"--device: expected auto, cpu or cuda, got {name!r}")
    if name == "cuda":
        if not torch.cuda.is_available():
            raise ValueError("--device cuda: torch sees no CUDA device here; use --device cpu")
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def train_main(name: str, doc: str, jobs: Jobs, arguments: Sequence[str] | None, table_name: str = "runs.csv") -> int:
    """Train an experiment's jobs. Exit code: 0 done, 2 bad input, 3 stopped early (start again to go on)."""
    options = parser(name, doc).parse_args(arguments)
    try:
        return train(name, options, jobs, table_name)
    except (ValueError, FileNotFoundError) as problem:
        print(f"experiments.{name}: {problem}", file=sys.stderr)
        return 2
    finally:
        leave_group()


def leave_group() -> None:
    """Leave torchrun's process group, when there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def train(name: str, options: argparse.Namespace, jobs: Jobs, table_name: str = "runs.csv") -> int:
    """The work of `train_main`, errors raised."""
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    join_group(options.device)
    chosen = choose_jobs(options, jobs(choose_profile(options)))
    if options.list:
        say = Printer(sys.stdout)
        say("\n".join(job.key for job in chosen))
        return say.code(0)
    finished = runner(name, options, table_name).run(chosen, options.minutes)
    if rank() == 0:
        print("done" if finished else "stopped early; the same command goes on")
    return 0 if finished else 3


def measure_main(
    parse: argparse.ArgumentParser,
    run: Callable[[argparse.Namespace], None],
    arguments: Sequence[str] | None,
    *,
    images: int,
    out: Path,
) -> int:
    """Run a measurement on test images whose rows go to `out`; the exit code."""
    parse.add_argument("--images", type=int, default=images, help=f"test images ({images})")
    parse.add_argument("--data-dir", type=Path)
    parse.add_argument("--out", type=Path, default=out, help=f"CSV ({out})")
    given = parse.parse_args(arguments)
    return exit_code_of(lambda: run(given), ValueError)
