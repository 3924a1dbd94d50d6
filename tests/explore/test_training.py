"""`--train K`: points of a front are trained for real, once, and the front is redrawn with what they reach."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from hwsim.command_line import load_model
from hwsim.errors import SpecError
from hwsim.explore.bits.choices import Freedom, free_choices
from hwsim.explore.command import main
from hwsim.explore.machines.training import TrainingFailed, chosen, train, train_points
from hwsim.explore.machines.workers import Cluster, Here
from hwsim.machine.load import load_accelerator
from hwsim.network.bits import assign_bits

ROOT = Path(__file__).resolve().parent.parent.parent
NETWORK = str(ROOT / "networks" / "digits_silu_float")


@pytest.fixture
def losses(tmp_path: Path) -> Path:
    """Made-up losses of the small network on the digits."""
    network = assign_bits(load_model(NETWORK, None, False), "W8A8")
    sites = [site for entry in free_choices(network, load_accelerator("bit_fusion"), Freedom()) for site in entry.sites]
    entries = [
        {"layer": s.layer, "operand": s.operand, "loss_by_bits": {str(b): (i + 1) * 4.0**-b for b in (2, 4, 8)}}
        for i, s in enumerate(dict.fromkeys(sites))
    ]
    document = {"format": "quant-sensitivities", "format_version": 1, "model": "net", "method": "loss",
                "data": "digits"}  # fmt: skip
    (tmp_path / "s.json").write_text(json.dumps({**document, "sensitivities": entries}))
    return tmp_path / "s.json"


def command(losses: Path, out: Path, *more: str) -> list[str]:
    return ["bits", NETWORK, "bit_fusion", "--weights", "2,4,8", "--activations", "4,8", "--sensitivities", str(losses),
            "--front", "energy", "--points", "3", "--out", str(out), *more]  # fmt: skip


def trained(out: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((out / "trained.csv").read_text())))


@pytest.mark.long
def test_a_point_is_trained_and_the_front_redrawn(losses: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(command(losses, out, "--train", "1", "--train-options", "--epochs 0.02 --threads 1")) == 0
    (row,) = trained(out)
    assert row["point"] == "point_01"
    assert row["on_front"] == "True"
    assert 50 < float(row["test_accuracy_percent"]) <= 100
    assert (out / "front_trained.png").stat().st_size > 5000
    settings = json.loads((out / "point_01" / "trained" / "settings.json").read_text())
    overrides = yaml.safe_load((out / "point_01" / "overrides.yaml").read_text())
    assert settings["quantization"]["overrides"] == overrides


@pytest.mark.slow
def test_two_points_are_trained_resumed_and_kept(
    losses: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    asked = command(losses, out, "--train", "2", "--train-options", "--epochs 0.2 --threads 1 --minutes 0.00001")
    assert main(asked) == 1  # time is up after a step
    assert "at step" in capsys.readouterr().err
    assert not (out / "trained.csv").exists()
    assert main(asked) == 0  # both go on from their checkpoints, without that limit
    rows = trained(out)
    assert [row["point"] for row in rows] == ["point_00", "point_02"]
    monkeypatch.setattr(subprocess, "run", None)  # nothing is trained twice
    assert main(asked) == 0
    assert trained(out) == rows


@pytest.mark.long
@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--train", "0"], "at least 1 point"),
        (["--train", "2", "--train-options", "--out elsewhere"], "follows from the point"),
        (["--train", "2", "--train-options", "'"], "No closing quotation"),
        (["--train", "2", "--processes", "0"], "--processes: expected at least 1"),
    ],
)
def test_mistakes_are_named(
    losses: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    assert main(command(losses, tmp_path / "out", *more)) == 2
    assert said in capsys.readouterr().err


def test_what_cannot_be_trained_is_named_before_anything_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bits", "net.json", "bit_fusion", "--front", "energy", "--out", "x", "--train", "1"]) == 2
    assert "expected a zoo name with public weights" in capsys.readouterr().err
    assert main(["bits", NETWORK, "bit_fusion", "--train", "1"]) == 2
    assert "--train: needs --front NAME and --out DIR" in capsys.readouterr().err


def test_points_spread_over_the_front() -> None:
    assert [chosen(range(9), k) for k in (1, 2, 3, 20)] == [[4], [0, 8], [0, 4, 8], list(range(9))]  # type: ignore[arg-type]


@dataclass(frozen=True)
class Named:
    """As much of a point as training needs."""

    name: str

    def overrides_yaml(self) -> str:
        return f"{self.name}: {{weight_bits: 4}}"


def test_finished_trainings_are_kept_failed_ones_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    broken = {"b"}

    def run(words: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        name = Path(words[words.index("--out") + 1]).parent.name
        asked.append(name)
        result = json.dumps({"finished": True, "test_accuracy_percent": 90.0, "seconds": 1.0})
        failed = subprocess.CompletedProcess(words, 2, "", "warning: x\nerror: no such data")
        return failed if name in broken else subprocess.CompletedProcess(words, 0, result, "")

    monkeypatch.setattr(subprocess, "run", run)
    points: list[Any] = [Named("a"), Named("b"), Named("c")]
    said: list[str] = []
    with pytest.raises(TrainingFailed, match="b: training failed: error: no such data; 1 in all"):
        train_points(points, tmp_path, "resnet8", "cifar10", [], Here(), said.append)
    assert said == ["trained a (1/3): 90.00 %", "trained b (1/3): error: no such data", "trained c (2/3): 90.00 %"]
    broken.clear()
    assert train_points(points, tmp_path, "resnet8", "cifar10", [], Here(), said.append) == dict.fromkeys("abc", 90.0)
    assert asked == ["a", "b", "c", "b"]
    with pytest.raises(SpecError, match="another"):  # other options are another training
        train_points(points, tmp_path, "resnet8", "cifar10", ["--epochs", "2"], Here())


def test_a_training_that_was_stopped_goes_on_from_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[list[str]] = []

    def run(words: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        given.append(words[3:])
        result = {"finished": False, "reason": "interrupted", "steps": 3, "total_steps": 9}
        return subprocess.CompletedProcess(words, 0, json.dumps(result), "")

    monkeypatch.setattr(subprocess, "run", run)
    task = {"folder": str(tmp_path), "arguments": ["--model", "resnet8"]}
    assert train([(0, task)])[0]["why"] == "stopped (interrupted) at step 3 of 9"
    (tmp_path / "settings.json").touch()
    train([(0, task)])
    assert given == [["--model", "resnet8", "--json"], ["--resume", "--out", str(tmp_path), "--json"]]


def test_a_cluster_trains_each_point_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers as threads of this process, so that what they start can be replaced."""
    distributed: Any = pytest.importorskip("distributed")
    asked: list[str] = []

    def run(words: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        asked.append(Path(words[words.index("--out") + 1]).parent.name)
        result = json.dumps({"finished": True, "test_accuracy_percent": 80.0 + len(asked[-1]), "seconds": 1.0})
        return subprocess.CompletedProcess(words, 0, result, "")

    monkeypatch.setattr("hwsim.explore.machines.training.subprocess", SimpleNamespace(run=run))
    points: list[Any] = [Named("a"), Named("bb"), Named("ccc")]
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None) as local:
        workers = Cluster(local.scheduler_address)
        try:
            found = [
                train_points(points, tmp_path, "resnet8", "cifar10", [], workers, lambda _: None) for _ in range(2)
            ]
        finally:
            workers.close()
    assert found == [{"a": 81.0, "bb": 82.0, "ccc": 83.0}] * 2
    assert sorted(asked) == ["a", "bb", "ccc"]


@pytest.mark.slow
def test_a_cluster_whose_worker_is_killed_trains_as_this_process_does(
    losses: Path, tmp_path: Path, cluster: tuple[str, list[subprocess.Popen[bytes]]]
) -> None:
    """Two points on two workers; one worker is killed with its training under way, which goes on elsewhere."""
    address, workers = cluster
    options = "--epochs 1 --threads 1 --checkpoint-minutes 0.01"
    out = tmp_path / "out"
    more = ["--train", "2", "--scheduler", address, "--train-options", options]
    driver = subprocess.Popen([sys.executable, "-m", "hwsim.explore", *command(losses, out, *more)], cwd=ROOT,
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)  # fmt: skip
    while driver.poll() is None and not list(out.glob("point_*/trained/settings.json")):
        time.sleep(0.05)
    assert driver.poll() is None, "the training was over before a worker could be killed"
    workers[0].kill()  # the nanny; its worker ends with it, and the training with the worker
    _, errors = driver.communicate(timeout=900)
    assert driver.returncode == 0, errors.decode()
    calm = tmp_path / "calm"
    assert main(command(losses, calm, "--train", "2", "--train-options", options)) == 0
    keys = ("point", "energy_pj", "test_accuracy_percent", "on_front")
    assert [[r[k] for k in keys] for r in trained(out)] == [[r[k] for k in keys] for r in trained(calm)]


@pytest.mark.slow
def test_trainings_survive_kills_of_driver_and_workers(losses: Path, tmp_path: Path) -> None:
    """The driver is killed before anything is trained, with checkpoints there, and with one point finished."""
    out = tmp_path / "out"
    options = "--epochs 3 --threads 1 --checkpoint-minutes 0.01"
    train = ["--train", "2", "--processes", "2", "--train-options", options]
    asked = [sys.executable, "-m", "hwsim.explore", *command(losses, out, *train)]

    def finished() -> bool:
        journal = out / "training" / "journal.jsonl"
        return journal.exists() and journal.read_bytes().count(b"\n") > 0

    for there in (
        lambda: (out / "training" / "study.json").exists(),
        lambda: any(out.glob("point_*/trained/settings.json")),
        finished,
    ):
        process = subprocess.Popen(asked, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and not there():
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ})
    assert done.returncode == 0, done.stderr
    calm = tmp_path / "calm"
    assert main(command(losses, calm, "--train", "2", "--train-options", options)) == 0
    keys = ("point", "energy_pj", "test_accuracy_percent", "on_front")
    assert [[r[k] for k in keys] for r in trained(out)] == [[r[k] for k in keys] for r in trained(calm)]
