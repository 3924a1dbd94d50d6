"""Training points of a front: one process of `python -m quant.train` each, here, in local workers or on a cluster.

A point trains in its own folder and leaves checkpoints there; a finished one is a line of the journal in OUT/training.
So after a kill of the driver or of a worker the same command goes on: finished points are kept, half-trained ones
resume from their checkpoints. Nothing here imports torch. On a cluster all workers see the same folders, and each
trains on the device that its environment shows (`CUDA_VISIBLE_DEVICES=0 dask worker ADDRESS --nthreads 1`).
"""

from __future__ import annotations

import ctypes
import json
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hwsim.errors import HwsimError, SpecError
from hwsim.explore.bits.figures import DrawingError, as_png, scatter_figure, scatter_page
from hwsim.explore.bits.output import Point, train_command, trains
from hwsim.explore.machines.journal import Journal, Record
from hwsim.explore.machines.trial import Task
from hwsim.explore.machines.workers import Workers
from hwsim.explore.pareto import non_dominated
from hwsim.files.atomic import write_atomically
from hwsim.files.identity import identity
from hwsim.report.files import rows_to_csv

CHECKPOINT = "settings.json"
ACCURACY, ERROR = "test_accuracy_percent", "test error (%)"
RESERVED = ("--out", "--resume", "--overrides", "--json", "--bits", "--first-last", "--model", "--weights", "--data")


class TrainingFailed(HwsimError):
    """A training ended with an error; what others finished is in the journal."""

    exit_code = 1


def chosen(points: Sequence[Point], count: int) -> list[Point]:
    """`count` points spread evenly over a front, both ends among them. Raises SpecError below 1."""
    if count < 1:
        raise SpecError(f"--train: expected at least 1 point, got {count}")
    last, most = len(points) - 1, min(count, len(points))
    if most == 1:
        return [points[last // 2]]
    return [points[round(i * last / (most - 1))] for i in range(most)]


def extra_options(text: str) -> list[str]:
    """Further options of `quant.train`. Raises SpecError for those that the point decides."""
    try:
        words = shlex.split(text)
    except ValueError as problem:
        raise SpecError(f"--train-options: {text!r}: {problem}") from None
    taken = [word for word in words if word.split("=")[0] in RESERVED]
    if taken:
        raise SpecError(f"--train-options: {taken[0]} follows from the point and --out: leave it out")
    return words


def trainable(model: str) -> None:
    """Raises SpecError where `quant.train` cannot start from what MODEL names."""
    if not trains(model):
        raise SpecError(f"--train: {model}: expected a zoo name with public weights, or a checkpoint folder of a float "
                        "network")  # fmt: skip


def die_with_parent() -> None:
    """Let a training end when the worker that started it is killed; its successor goes on in the same folder."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def train(tasks: list[Task]) -> list[Record]:
    """Records of trainings: `status` ok with the accuracy, or failed with the reason."""
    return [train_one(trial, parameters) for trial, parameters in tasks]


def train_one(trial: int, parameters: Mapping[str, Any]) -> Record:
    """Train or resume one point."""
    folder = Path(parameters["folder"])
    arguments = list(parameters["arguments"])
    if (folder / CHECKPOINT).is_file():
        arguments = ["--resume", "--out", str(folder)]
    done = subprocess.run(
        [sys.executable, "-m", "quant.train", *arguments, "--json"], capture_output=True, text=True, check=False,
        preexec_fn=die_with_parent,
    )  # fmt: skip
    record: Record = {"trial": trial, "parameters": dict(parameters), "status": "ok", "why": "", "values": {}}
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()
        return {**record, "status": "failed", "why": said[-1]}
    result = json.loads(done.stdout)
    if not result["finished"]:
        why = f"stopped ({result['reason']}) at step {result['steps']} of {result['total_steps']}"
        return {**record, "status": "failed", "why": why}
    return {**record, "values": {ACCURACY: result[ACCURACY], "seconds": result["seconds"]}}


def train_points(
    points: Sequence[Point], folder: Path, model: str, data: str, options: Sequence[str], workers: Workers,
    say: Callable[[str], None] = print,
) -> dict[str, float]:  # fmt: skip
    """Test accuracy in percent by point, trained where the journal has none. Raises TrainingFailed, SchedulerError."""
    tasks: list[Task] = []
    for number, point in enumerate(points):
        place = (folder / point.name).resolve()
        arguments = [*train_command(place, model, data)[3:], *options]
        tasks.append((number, {"point": point.name, "folder": str(place / "trained"), "arguments": arguments}))
    commands = [[number, parameters["arguments"]] for number, parameters in tasks]
    overrides = [point.overrides_yaml() for point in points]
    failed: list[Record] = []
    asked = identity(commands=commands, bits=overrides)
    with Journal(folder / "training", asked, "trained points of a front") as journal:
        todo = [task for task in tasks if task[0] not in journal.records]
        for records in workers.run(train, todo):
            journal.append([record for record in records if record["status"] == "ok"])
            failed += [record for record in records if record["status"] != "ok"]
            for record in records:
                found = record["values"].get(ACCURACY)
                said = f"{found:.2f} %" if record["status"] == "ok" else record["why"]
                say(f"trained {record['parameters']['point']} ({len(journal.records)}/{len(tasks)}): {said}")
        if failed:
            first = failed[0]
            raise TrainingFailed(
                f"{first['parameters']['point']}: training failed: {first['why']}; {len(failed)} in all; start again "
                "to go on, finished ones are kept"
            )
        return {record["parameters"]["point"]: record["values"][ACCURACY] for record in journal.records.values()}


def write_trained(
    points: Sequence[Point], accuracies: Mapping[str, float], folder: Path, against: str, title: str
) -> list[Path]:
    """The trained points as a table, and the front redrawn with what they really reach."""
    trained = [point for point in points if point.name in accuracies]
    rows = [{**point.to_row(), ACCURACY: accuracies[point.name]} for point in trained]
    costs = [[float(row[against]), 100.0 - float(row[ACCURACY])] for row in rows]
    keep = non_dominated(costs)
    records: list[Record] = [
        {"trial": point.name, "parameters": point.widths_by_layer(), "values": {against: a, ERROR: b}}
        for point, (a, b) in zip(trained, costs, strict=True)
    ]
    best = sorted((r for r, k in zip(records, keep, strict=True) if k), key=lambda r: r["values"][against])
    for row, kept in zip(rows, keep, strict=True):
        row["on_front"] = bool(kept)
    written = [folder / "trained.csv", folder / "front_trained.png"]
    write_atomically(written[0], rows_to_csv(rows))
    write_atomically(written[1], as_png(scatter_figure(records, best, against, ERROR)))
    try:
        page = scatter_page(records, best, against, ERROR, title)
    except DrawingError:
        return written
    write_atomically(folder / "front_trained.html", page)
    return [*written, folder / "front_trained.html"]
