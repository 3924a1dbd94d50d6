"""A session runs checks, measurements and training in turn, records them, and goes on where it stopped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from experiments import gpu_session
from experiments.gpu_session import Outcome, Part, parts, run_part, session


def outcomes(made: dict[str, str], seen: list[tuple[str, float]]) -> object:
    def run(part: Part, seconds: float) -> Outcome:
        seen.append((part.name, seconds))
        return Outcome(part.name, made.get(part.name, "passed"), 1.0, "python")

    return run


def test_a_second_session_repeats_only_what_has_not_passed(tmp_path: Path) -> None:
    todo = parts("cuda", "gpu", tmp_path, 4)
    assert [part.name for part in todo] == ["checks", "quantizer", "step", "training"]
    record, seen = tmp_path / "session.json", []
    session(todo, 10, record, outcomes({"step": "no time", "training": "stopped"}, seen))
    assert [name for name, _ in seen] == ["checks", "quantizer", "step", "training"]
    assert all(seconds <= 600 * part.share for (_, seconds), part in zip(seen, todo, strict=True))
    seen.clear()
    session(todo, 10, record, outcomes({}, seen))
    assert [name for name, _ in seen] == ["step", "training"]
    assert {row["name"]: row["outcome"] for row in json.loads(record.read_text())}["step"] == "passed"


def test_a_wrong_kernel_is_not_measured(tmp_path: Path) -> None:
    seen: list[tuple[str, float]] = []
    session(parts("cuda", "gpu", tmp_path, 4), 10, tmp_path / "s.json", outcomes({"checks": "failed"}, seen))
    assert [name for name, _ in seen] == ["checks"]


def test_parts_end_as_their_commands_do() -> None:
    assert run_part(Part("a", ("-c", "pass"), 1.0), 60).outcome == "passed"
    assert run_part(Part("a", ("-c", "raise SystemExit(2)"), 1.0), 60).outcome == "failed"
    assert run_part(Part("a", ("-c", "import time; time.sleep(60)"), 1.0), 0.5).outcome == "no time"
    told = Part(
        "a", ("-c", "import sys; raise SystemExit(3 if sys.argv[1:] == ['--minutes', '1.00'] else 1)"), 1.0, False
    )
    assert run_part(told, 60).outcome == "stopped"


def test_without_a_gpu_it_says_how_to_rehearse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu_session.main(["--out", str(tmp_path)]) == 2
    assert "--device cpu --profile smoke" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
