"""Paths that options name."""

from __future__ import annotations

from pathlib import Path

import pytest

from hwsim.compare import main as compare
from hwsim.convert import main as convert
from hwsim.evaluate import main as evaluate


@pytest.mark.parametrize("empty", ["", " "])
@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (evaluate, ["resnet8", "eyeriss_v1", "--out"]),
        (evaluate, ["resnet8", "eyeriss_v1", "--save-workload"]),
        (compare, ["a.json", "b.json", "--out"]),
        (convert, ["timeloop:machine.yaml", "--to"]),
    ],
)
def test_an_unset_shell_variable_names_no_folder(
    command, arguments, empty, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        command([*arguments, empty])
    assert end.value.code == 2
    assert f"expected a path, got {empty!r}" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
