"""The large profiles, as far as a small machine can try them: ImageNet's folder layout, and several processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments import figures, profiles, table

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


# The imagenet profile with its ReLU network alone, narrow, for an epoch; everything else is the profile's.
SMALL_IMAGENET = """
import sys
from dataclasses import replace
from experiments import lsqplus_tables, profiles

if __name__ == "__main__":  # processes that decode images import this file too
    full = profiles.PROFILES["imagenet"]
    tiny = replace(full.relu, arguments=(("width", 0.25),), float_epochs=1, epochs=1, batch_size=4)
    profiles.PROFILES["imagenet"] = replace(full, silu=tiny, relu=None, more_silu=(), bits=("W4A4",), seeds=(0,))
    job = next(iter(profiles.config_jobs(profiles.PROFILES["imagenet"])))
    sys.exit(lsqplus_tables.main(["--profile", "imagenet", "--device", "cpu", "--only", job.key, *sys.argv[1:]]))
"""


def torchrun(*command: str) -> None:
    """Two processes on this machine."""
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *command]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "default", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=1500, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]


def test_imagenet_profile_trains_from_an_image_folder_under_torchrun(fake_imagenet: Path, tmp_path: Path) -> None:
    driver, out = tmp_path / "small_imagenet.py", tmp_path / "out"
    driver.write_text(SMALL_IMAGENET)
    torchrun(str(driver), "--data-dir", str(fake_imagenet), "--out", str(out))
    rows = table.read(out / "runs.csv")
    assert [(row["bits"], row["processes"], row["first_last"]) for row in rows] == [
        ("float", "2", "8bit"),
        ("W4A4", "2", "same"),
    ]
    assert all(0 <= float(row["test_accuracy_percent"]) <= 100 for row in rows)


def test_torchrun_trains_the_same_list(tmp_path: Path) -> None:
    """Two processes share every batch; one of them writes the row."""
    job = next(iter(profiles.padding_jobs(profiles.PROFILES["smoke"])))
    options = ["--profile", "smoke", "--device", "cpu", "--only", job.key, "--out", str(tmp_path)]
    torchrun("-m", "experiments.padding", *options)
    rows = table.read(tmp_path / "runs.csv")
    assert [row["processes"] for row in rows] == ["2", "2"]
    assert float(rows[0]["test_accuracy_percent"]) > 90


def test_committed_figures_are_drawn_from_committed_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--check", "--results", str(ROOT / "results")]
    assert figures.main([*options, "--out", str(ROOT / "docs" / "figures")]) == 0
    (tmp_path / "pareto-of-nothing.png").touch()
    assert figures.main([*options, "--out", str(tmp_path)]) == 1
    assert "pareto-of-nothing.png: is not drawn from the results any more" in capsys.readouterr().out
