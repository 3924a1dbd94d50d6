"""Where a result comes from: a commit that exists, a command that can be typed again, a device with a name."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from quant import provenance


def test_the_commit_is_the_checkouts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True)
    if head.returncode:
        pytest.skip("not a git checkout")
    assert head.stdout.startswith(provenance.commit().rstrip("+"))
    assert len(provenance.commit().rstrip("+")) == 12
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "quant" / "provenance.py"))
    assert provenance.commit() == ""  # an installed package: no commit, and no error


def test_the_command_is_the_one_that_was_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setattr(sys, "argv", ["/somewhere/tool.py", "--out", "a folder", "-x"])
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None, raising=False)
    assert shlex.split(provenance.command()) == ["python", "tool.py", "--out", "a folder", "-x"]
    for name, value in (("WORLD_SIZE", "8"), ("LOCAL_WORLD_SIZE", "4"), ("GROUP_WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    assert provenance.command().startswith("torchrun --nnodes 2 --nproc-per-node 4 tool.py")


def test_all_of_it_is_plain_json() -> None:
    found = json.loads(json.dumps(provenance.provenance()))
    assert found["device"]
    assert found["threads"] >= 1
    assert found["date"].endswith("Z")
