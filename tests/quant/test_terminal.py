"""quant's own commands where their output is no longer read, full, closed, or of another encoding."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TRAIN = ("--model resnet8 --model-arg image_size=8 --data digits --limit 64 --epochs 2 --batch-size 64 --bits W4A4 "
         "--threads 1 --out out")  # fmt: skip


def ended(command: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A shell's line; $TRAIN is the command."""
    whole = {**os.environ, "PYTHONPATH": str(ROOT), "TRAIN": f"{sys.executable} -m quant.train {TRAIN}", **environment}
    return subprocess.run(["bash", "-c", command], cwd=cwd, env=whole, capture_output=True, text=True, check=False)


@pytest.mark.long
def test_a_training_goes_on_when_its_reader_leaves(tmp_path: Path) -> None:
    """`| head -1` takes the first line and goes: the network is trained to its end, nothing is said of the pipe."""
    found = ended("$TRAIN | head -1 >/dev/null; echo ${PIPESTATUS[0]}", tmp_path)
    assert (found.stdout, found.stderr) == ("0\n", "")
    log = (tmp_path / "out" / "log.csv").read_text().splitlines()
    assert len(log) == 3  # a header and two epochs
    assert json.loads((tmp_path / "out" / "settings.json").read_text())


@pytest.mark.long
@pytest.mark.parametrize(("where", "reason"), [(">/dev/full", "No space left on device"), (">&-", "closed")])
def test_an_output_that_takes_nothing_is_one_line_after_the_training(where: str, reason: str, tmp_path: Path) -> None:
    found = ended(f"$TRAIN {where}", tmp_path)
    assert (found.returncode, found.stderr) == (2, f"hwsim: standard output: {reason}\n")
    assert len((tmp_path / "out" / "log.csv").read_text().splitlines()) == 3


@pytest.mark.long
def test_a_terminal_of_any_encoding_is_told_where_the_checkpoint_is(tmp_path: Path) -> None:
    found = ended("$TRAIN/ü", tmp_path, PYTHONIOENCODING="ascii")
    assert found.returncode == 0
    assert found.stdout.splitlines()[-1].endswith("checkpoint out/\\xfc")
    assert ended("$TRAIN/ü", tmp_path, PYTHONIOENCODING="ascii").stderr.startswith("hwsim: out/\\xfc: already holds")


@pytest.mark.long
def test_a_closed_error_output_keeps_the_exit_code(tmp_path: Path) -> None:
    for where in ("2>&-", "2>/dev/full", "2> >(true)"):
        assert ended(f"$TRAIN --resume {where}", tmp_path).returncode == 2
