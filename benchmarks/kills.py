"""`python -m benchmarks.kills train|explore|evaluate --kills 100`: kill -9 at random moments: is all still there?

Each job runs in a process of its own, is killed after a random part of its time, and is started again as a user would.
When it ends it must have left what an undisturbed job leaves: the same network to the last bit, the same journal, the
same files. After every kill of an evaluation its folder is absent, or whole. Exit code 1 where anything differs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from hwsim.evaluate import main as evaluate
from hwsim.explore.command import main as explore
from hwsim.frontends.argument import load_model_argument
from hwsim.network.workload import Workload
from quant import checkpoint
from quant.train import main as train

REPORT_FILES = ("layers.csv", "mappings.yaml", "energy.png", "energy.svg", "report.html", "report.json")


@dataclass(frozen=True)
class Job:
    """`run(folder, resume)` in a fresh process; `left(folder)`: what it has left, None where there is nothing yet.

    `always`: what is left is compared after every kill, because a job that was killed leaves all or nothing.
    """

    run: Callable[[Path, bool], int]
    left: Callable[[Path], object]
    always: bool = False


def train_job(place: Path) -> Job:
    """A network of a few thousand weights for three epochs of digits, with a checkpoint at every step or two."""

    def run(folder: Path, resume: bool) -> int:
        there = checkpoint.is_checkpoint(folder)
        if folder.exists() and not there:
            shutil.rmtree(folder)  # killed before its first checkpoint: nothing to go on from
        return train([
            "--model", "resnet8", "--model-arg", "image_size=8", "--data", "digits", "--limit", "256", "--epochs", "3",
            "--batch-size", "64", "--bits", "W4A4", "--threads", "1", "--checkpoint-minutes", "0.002",
            "--out", str(folder), *(["--resume"] if there else []),
        ])  # fmt: skip

    return Job(run, lambda folder: checkpoint.identity(folder) if checkpoint.is_checkpoint(folder) else None)


def small_network(place: Path) -> Path:
    """The first layers of a keyword spotter: a search of a moment, so that most kills meet a file being written."""
    path = place / "net.json"
    whole = load_model_argument("ds_cnn")
    Workload("small", whole.layers[:3]).save(path)
    return path


def explore_job(place: Path) -> Job:
    """A study of 40 machines."""
    space = {
        "model": str(small_network(place)), "accelerator": "bit_fusion", "bits": "W4A4",
        "search": {"mac.energy_pj": [round(2.0 + 0.01 * i, 2) for i in range(40)]},
    }  # fmt: skip
    path = place / "space.yaml"
    path.write_text(yaml.safe_dump(space))

    def left(folder: Path) -> object:
        lines = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
        return sorted(lines, key=lambda line: line["trial"]), (folder / "study.csv").read_text()

    return Job(lambda folder, resume: explore(["machines", str(path), "--out", str(folder), "--quiet"]), left)


def evaluate_job(place: Path) -> Job:
    """A report with its figures and page; `report.json` stands for the whole."""

    def left(folder: Path) -> object:
        if not (folder / "report.json").exists():
            return None
        return {name: (folder / name).read_bytes() for name in REPORT_FILES if not name.endswith(("json", "html"))}

    arguments = [str(small_network(place)), "eyeriss_v2", "--quick"]
    return Job(lambda folder, resume: evaluate([*arguments, "--out", str(folder)]), left, always=True)


JOBS = {"train": train_job, "explore": explore_job, "evaluate": evaluate_job}


def started(job: Job, folder: Path) -> int:
    """The job in a fork of this process, whose imports are done; its process number."""
    number = os.fork()
    if number:
        return number
    code = 70
    try:
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        code = job.run(folder, True)
    finally:
        os._exit(code)


def waited(number: int) -> int:
    """The exit code of a process; negative: the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])


def torture(job: Job, place: Path, kills: int, rng: random.Random) -> dict[str, int]:
    """Kill until `kills` are counted; how many jobs ended, and how many were not as the undisturbed one."""
    calm = place / "calm"
    began = time.monotonic()
    if waited(started(job, calm)) != 0:
        raise SystemExit("the undisturbed job failed")
    seconds, expected = time.monotonic() - began, job.left(calm)
    found = {"kills": 0, "ended": 0, "different": 0, "failed": 0}
    folder = place / "job_0"
    while found["kills"] < kills:
        number = started(job, folder)
        time.sleep(rng.uniform(0, 1.2 * seconds))
        os.kill(number, signal.SIGKILL)
        code = waited(number)
        found["kills"] += code == -signal.SIGKILL
        if code == 0:
            found["ended"] += 1
            found["different"] += job.left(folder) != expected
            shutil.rmtree(folder)
            folder = place / f"job_{found['ended']}"
        elif code > 0:
            found["failed"] += 1
        elif job.always:
            found["different"] += job.left(folder) not in (None, expected)
        if code < 0 and found["kills"] % 10 == 0:
            print(told(found), file=sys.stderr, flush=True)
    last = waited(started(job, folder))
    found["ended"] += 1
    found["different"] += last != 0 or job.left(folder) != expected
    return found


def told(found: dict[str, int]) -> str:
    """The counts in a line."""
    return ", ".join(f"{count} {what}" for what, count in found.items())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; 1 where something was lost or mixed."""
    parse = argparse.ArgumentParser(prog="python -m benchmarks.kills", description=__doc__)
    parse.add_argument("job", choices=JOBS)
    parse.add_argument("--kills", type=int, default=100)
    parse.add_argument("--seed", type=int, default=0)
    options = parse.parse_args(arguments)
    os.environ.update({"HWSIM_CACHE": "", "OMP_NUM_THREADS": "1"})
    with tempfile.TemporaryDirectory() as place:
        found = torture(JOBS[options.job](Path(place)), Path(place), options.kills, random.Random(options.seed))
    print(f"{options.job}: {told(found)}")
    return int(found["different"] + found["failed"] > 0)


if __name__ == "__main__":
    sys.exit(main())
