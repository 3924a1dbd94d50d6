"""Paths that options name: empty, a folder for a file, a file for a folder, a parent that is a file, no permission."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from hwsim.compare import main as compare
from hwsim.convert import main as convert
from hwsim.evaluate import main as evaluate
from hwsim.explore.command import main as explore
from hwsim.export_c import main as export_c
from hwsim.export_onnx import main as export_onnx
from hwsim.table import main as table
from hwsim.verify import main as verify
from quant.calibration import main as calibrate
from quant.sensitivity import main as sensitivity
from quant.train import main as train
from tests.explore.test_bill import residual

Command = Callable[[list[str]], int]
EMPTY: Sequence[tuple[Command, list[str]]] = [
    (evaluate, ["resnet8", "eyeriss_v1", "--out"]), (evaluate, ["resnet8", "eyeriss_v1", "--save-workload"]),
    (evaluate, ["resnet8", "eyeriss_v1", "--mapping"]), (evaluate, ["resnet8", "eyeriss_v1", "--constraints"]),
    (evaluate, ["resnet8", "eyeriss_v1", "--zero-shares"]), (compare, ["a.json"]),
    (compare, ["a.json", "b.json", "--out"]), (convert, ["timeloop:machine.yaml", "--to"]),
    (convert, ["--to", "to"]), (table, ["resnet8", "bit_fusion", "--out"]),
    (table, ["resnet8", "bit_fusion", "--assignments"]), (verify, []), (verify, ["a", "--out"]),
    (verify, ["--same", "a"]), (verify, ["a", "--data-dir"]), (verify, ["a", "--data"]), (export_c, ["a"]),
    (export_onnx, ["a"]), (explore, ["machines", "a.yaml", "--out"]), (explore, ["machines", "--out", "a"]),
    (explore, ["bits", "resnet8", "bit_fusion", "--out"]), (explore, ["bits", "resnet8", "bit_fusion", "--data"]),
    (explore, ["bits", "resnet8", "bit_fusion", "--sensitivities"]), (train, ["--out"]),
    (train, ["--out", "a", "--weights"]), (train, ["--out", "a", "--data"]), (train, ["--out", "a", "--data-dir"]),
    (train, ["--out", "a", "--overrides"]), (calibrate, []), (calibrate, ["resnet8", "--out"]),
    (calibrate, ["resnet8", "--weights"]), (sensitivity, ["--out", "a"]), (sensitivity, ["resnet8", "--out"]),
    (sensitivity, ["resnet8", "--out", "a", "--weights"]),
]  # fmt: skip


def ended(command: Command, arguments: list[str]) -> tuple[object, str]:
    """Exit code and last line of stderr; what is not an exit is raised."""
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        try:
            code: object = command(arguments)
        except SystemExit as end:
            code = end.code
    lines = errors.getvalue().strip().splitlines()
    return code, lines[-1] if lines else ""


@pytest.mark.parametrize(("command", "arguments"), EMPTY)
def test_an_unset_shell_variable_names_nothing(
    command: Command, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for empty in ("", " "):
        code, said = ended(command, [*arguments, empty])
        assert (code, "got " + repr(empty) in said, "expected a path" in said) == (2, True, True), said
    assert not list(tmp_path.iterdir())


def places(folder: Path) -> tuple[Path, Path]:
    """A folder and a file."""
    (folder / "folder").mkdir()
    (folder / "file").write_text("x")
    return folder / "folder", folder / "file"


TRAIN = ["--model", "resnet8", "--model-arg", "image_size=8", "--limit", "64", "--epochs", "0.1"]


@pytest.mark.long
def test_a_result_is_refused_where_its_place_is_of_the_wrong_kind(tmp_path: Path) -> None:
    folder, file = places(tmp_path)
    residual().save(tmp_path / "net.json")
    before = sorted(tmp_path.rglob("*"))
    price = [str(tmp_path / "net.json"), "eyeriss_v1", "--quick"]
    files: Sequence[tuple[Command, list[str]]] = [
        (evaluate, [*price, "--save-workload"]), (sensitivity, ["resnet8", "--out"]),
        (table, [str(tmp_path / "net.json"), "bit_fusion", "--bits", "W4A4", "--out"]),
    ]  # fmt: skip
    folders: Sequence[tuple[Command, list[str]]] = [
        (evaluate, [*price, "--out"]), (train, [*TRAIN, "--out"]), (calibrate, ["resnet8", "--out"]),
        (explore, ["bits", str(tmp_path / "net.json"), "bit_fusion", "--budget", "energy=1J", "--out"]),
    ]  # fmt: skip
    for command, arguments in files:
        for place in (folder, file / "below.csv"):
            code, said = ended(command, [*arguments, str(place)])
            assert code == 2, (arguments, place, said)
            assert str(tmp_path) in said
    for command, arguments in folders:
        for place in (file, file / "below"):
            code, said = ended(command, [*arguments, str(place)])
            assert code == 2, (arguments, place, said)
            assert str(file) in said
    assert sorted(tmp_path.rglob("*")) == before
    assert file.read_text() == "x"


def test_a_folder_without_permission_is_named(tmp_path: Path) -> None:
    residual().save(tmp_path / "net.json")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    if os.access(closed, os.W_OK):
        pytest.skip("this user may write everywhere")
    for option in ("--out", "--save-workload"):
        code, said = ended(evaluate, [str(tmp_path / "net.json"), "eyeriss_v1", "--quick", option, str(closed / "x")])
        assert code == 2
        assert f"{closed}" in said
        assert "Permission denied" in said
    assert not list(closed.iterdir())


def test_a_named_data_folder_must_be_there(tmp_path: Path) -> None:
    code, said = ended(train, [*TRAIN, "--out", str(tmp_path / "out"), "--data-dir", str(tmp_path / "absent")])
    assert code == 2
    assert "expected a folder" in said
    assert not (tmp_path / "out").exists()
