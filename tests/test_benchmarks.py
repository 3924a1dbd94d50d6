"""`make bench` names benchmarks that exist, with options that they have."""

from __future__ import annotations

import importlib

import pytest

from benchmarks.__main__ import PARTS, Part, run_part


@pytest.mark.parametrize("name", PARTS)
def test_every_command_and_option_of_a_part_exists(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in PARTS[name].commands:
        monkeypatch.setattr("sys.argv", [command[0], "--help"])
        with pytest.raises(SystemExit, match="0"):
            importlib.import_module(command[0]).main()
        shown = capsys.readouterr().out
        for word in (*command[1:], *PARTS[name].quick):
            assert not word.startswith("--") or word in shown, f"{command[0]} has no {word}"


@pytest.mark.long
def test_a_part_that_fails_is_told() -> None:
    well, _ = run_part(Part("?", (("benchmarks.repricing", "--model", "no_such_model"),)), [])
    assert not well
