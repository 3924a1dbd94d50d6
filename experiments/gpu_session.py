"""`python -m experiments.gpu_session --minutes 15`: what a short loan of a GPU should answer, in one command.

Checks first (the tests marked `gpu`: the Triton kernel and torch.compile against the plain path), then the speed of a
quantizer and of a training step beside their peers, then training (`experiments.train_gpu`) with the minutes that are
left. Every part writes to OUT (default results/gpu); the same command goes on where the last one stopped.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from quant.data import write_atomically
from quant.provenance import provenance

STOPPED_EARLY = 3  # experiments' exit code of a training that goes on with the same command


@dataclass(frozen=True)
class Part:
    """One command of the session: its share of the minutes at most, and whether a later session repeats it."""

    name: str
    command: tuple[str, ...]
    share: float
    once: bool = True


def parts(device: str, profile: str, out: Path, parallel: int) -> list[Part]:
    """Checks, measurements, training, in this order. On the CPU the tests that need a GPU are left out."""
    tests = (
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-m",
        "gpu" if device == "cuda" else "not slow and not gpu",
    )
    speed = ("-m", "benchmarks.quantizer_speed", "--device", device)
    training = ("--profile", profile, "--device", device, "--out", str(out), "--parallel", str(parallel))
    return [
        Part("checks", (*tests, "tests/quant/test_kernels.py"), 0.25),
        Part("quantizer", (*speed, "--parts", "quantizer", "--rounds", "5", "--out", str(out / "quantizer.json")), 0.2),
        Part("step", (*speed, "--parts", "resnet20", "--rounds", "5", "--out", str(out / "resnet20.json")), 0.2),
        Part("training", ("-m", "experiments.train_gpu", *training), 1.0, once=False),
    ]


@dataclass(frozen=True)
class Outcome:
    """How a part ended: `passed`, `failed`, `stopped` (it goes on next time) or `no time`."""

    name: str
    outcome: str
    seconds: float
    command: str


def run_part(part: Part, seconds: float) -> Outcome:
    """Run one command for at most so long. A training is told its minutes and stops by itself, resumable."""
    line = [sys.executable, *part.command]
    if not part.once:
        line += ["--minutes", f"{seconds / 60:.2f}"]
    started = time.monotonic()
    try:
        code = subprocess.run(line, timeout=seconds + (0 if part.once else 120), check=False).returncode
        outcome = {0: "passed", STOPPED_EARLY: "stopped"}.get(code, "failed")
    except subprocess.TimeoutExpired:
        outcome = "no time"
    return Outcome(part.name, outcome, time.monotonic() - started, " ".join(["python", *line[1:]]))


def session(
    todo: Sequence[Part], minutes: float, record: Path, run: Callable[[Part, float], Outcome] = run_part
) -> list[Outcome]:
    """Run the parts that earlier sessions have not passed; `record` holds the last outcome of each.

    Checks that fail end the session: numbers of a wrong kernel are worth nothing.
    """
    deadline = time.monotonic() + 60 * minutes
    known = {row["name"]: Outcome(**row) for row in json.loads(record.read_text())} if record.exists() else {}
    done: list[Outcome] = []
    for part in todo:
        if part.once and part.name in known and known[part.name].outcome == "passed":
            continue
        left = deadline - time.monotonic()
        if left <= 0:
            break
        print(f"== {part.name}: at most {min(left, 60 * minutes * part.share) / 60:.1f} minutes", flush=True)
        outcome = run(part, min(left, 60 * minutes * part.share))
        known[part.name] = outcome
        done.append(outcome)
        text = json.dumps([asdict(each) for each in known.values()], indent=1)
        write_atomically(record, lambda file, text=text: file.write(text.encode()))
        print(f"== {part.name}: {outcome.outcome}, {outcome.seconds:.0f} s", flush=True)
        if part.name == "checks" and outcome.outcome == "failed":
            break
    return done


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 all passed, 1 something failed, 2 bad input, 3 the training goes on with the same command."""
    import torch

    p = argparse.ArgumentParser(prog="python -m experiments.gpu_session", description=(__doc__ or "").split("\n\n")[-1])
    p.add_argument("--minutes", type=float, default=15.0)
    p.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a rehearsal without a GPU")
    p.add_argument("--profile", default="gpu", help="what is trained: a name of experiments/profiles.py")
    p.add_argument("--parallel", type=int, default=4, help="trainings side by side")
    p.add_argument("--out", type=Path, default=Path("results/gpu"))
    options = p.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("experiments.gpu_session: no CUDA device here: --device cpu --profile smoke rehearses", file=sys.stderr)
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    print(json.dumps(provenance(options.device)), flush=True)
    todo = parts(options.device, options.profile, options.out, options.parallel)
    done = session(todo, options.minutes, options.out / "session.json")
    outcomes = {outcome.outcome for outcome in done}
    if outcomes & {"failed", "no time"}:
        return 1
    return 3 if "stopped" in outcomes else 0


if __name__ == "__main__":
    raise SystemExit(main())
