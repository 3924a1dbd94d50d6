"""The large profiles, as far as a small machine can try them: ImageNet's folder layout, and several processes."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from experiments import figures, lsqplus_tables, profiles, table
from experiments.jobs import Job

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture
def fake_imagenet(tmp_path: Path) -> Path:
    """Two classes of noisy stripes in the layout of torchvision's ImageFolder."""
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    for part, count in (("train", 8), ("val", 2)):
        for label in range(2):
            folder = tmp_path / "imagenet" / part / f"class{label}"
            folder.mkdir(parents=True)
            for i in range(count):
                stripes = np.zeros((240, 260, 3))
                stripes[:, ::2] = 255 * label
                pixels = np.clip(stripes + rng.normal(0, 20, stripes.shape), 0, 255).astype(np.uint8)
                image.fromarray(pixels).save(folder / f"{i}.JPEG")
    return tmp_path


def test_imagenet_profile_reads_an_image_folder(
    fake_imagenet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = Job("resnet18", (("width", 0.25),), "imagenet", float_epochs=1, epochs=1, batch_size=4, first_last="same")
    imagenet = replace(profiles.PROFILES["imagenet"], silu=tiny, relu=None, more_silu=(), bits=("W4A4",), seeds=(0,))
    monkeypatch.setitem(profiles.PROFILES, "imagenet", imagenet)
    job = next(iter(profiles.config_jobs(imagenet)))
    out = tmp_path / "out"
    options = ["--profile", "imagenet", "--data-dir", str(fake_imagenet), "--out", str(out), "--only", job.key]
    assert lsqplus_tables.main(options) == 0
    rows = table.read(out / "runs.csv")
    assert [row["bits"] for row in rows] == ["float", "W4A4"]
    assert all(0 <= float(row["test_accuracy_percent"]) <= 100 for row in rows)


def test_torchrun_trains_the_same_list(tmp_path: Path) -> None:
    """Two processes share every batch; one of them writes the row."""
    job = next(iter(profiles.padding_jobs(profiles.PROFILES["smoke"])))
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        "-m", "experiments.padding", "--profile", "smoke", "--device", "cpu", "--only", job.key, "--out", str(tmp_path),
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "default"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = table.read(tmp_path / "runs.csv")
    assert [row["processes"] for row in rows] == ["2", "2"]
    assert float(rows[0]["test_accuracy_percent"]) > 90


def test_committed_figures_are_drawn_from_committed_rows(tmp_path: Path) -> None:
    assert figures.main(["--results", str(ROOT / "results"), "--out", str(tmp_path)]) == 0
    drawn = {path.name for path in tmp_path.iterdir()}
    kinds = ("pareto-", "configurations-", "offsets-", "weight-scales-")
    committed = {path.name for path in (ROOT / "docs" / "figures").iterdir() if path.name.startswith(kinds)}
    assert drawn == committed
