"""Other tools' files where a command takes a machine or a model, and mappings back out in Timeloop's form."""

from __future__ import annotations

from pathlib import Path

import pytest

from hwsim.command_line import load_machine, load_model
from hwsim.convert import main as convert
from hwsim.evaluate import main
from hwsim.nest.legal import validate
from hwsim.peers.timeloop.read import read_timeloop
from tests.peers.test_timeloop import WORKED


@pytest.fixture
def described(tmp_path: Path) -> str:
    (tmp_path / "all.yaml").write_text(WORKED)
    return f"timeloop:{tmp_path / 'all.yaml'}"


def test_a_description_stands_for_a_machine_and_a_model(described: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert load_machine(described).mac_units == 4
    assert load_model(described, None, False).macs == 4 * 3 * 6
    assert main([described, described, "--quick", "--assumptions"]) == 0
    assert "translation, no counterpart: vector" in " ".join(capsys.readouterr().out.split())


def test_mappings_go_back_out_and_are_read_again(described: str, tmp_path: Path) -> None:
    assert main([described, described, "--quick", "--out", str(tmp_path / "out"), "--format", "timeloop"]) == 0
    folder = tmp_path / "out" / "timeloop"
    assert {"arch.yaml", "ERT.yaml", "problem_example.yaml", "translation.txt"} <= {p.name for p in folder.iterdir()}
    found = read_timeloop(sorted(folder.glob("*.yaml")))
    assert found.layer is not None
    assert found.layer.macs == 4 * 3 * 6
    if (folder / "mapping_example.yaml").exists():
        assert found.nest is not None
        assert validate(found.nest, found.layer, found.machine()) == []
    else:
        assert "mapping of example" in (folder / "translation.txt").read_text()


def test_a_format_needs_a_folder(described: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([described, described, "--quick", "--format", "timeloop"]) == 2
    assert "--out" in capsys.readouterr().err


def test_files_without_a_machine_are_no_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "problem.yaml").write_text(WORKED[WORKED.index("problem:") : WORKED.index("mapping:")])
    argument = f"timeloop:{tmp_path / 'problem.yaml'}"
    assert main([argument, argument, "--quick"]) == 2
    assert "describe no machine" in capsys.readouterr().err


def test_convert_takes_the_direct_form_too(described: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert convert([described, "--to", str(tmp_path / "mine"), "--quiet"]) == 0
    assert "workload.json" in capsys.readouterr().out
    assert convert([described, "--from", "zigzag", "--to", str(tmp_path / "mine")]) == 2
    assert "files of timeloop and zigzag" in capsys.readouterr().err


@pytest.mark.parametrize("back", [False, True], ids=["in", "out"])
def test_convert_writes_over_an_earlier_translation_only_when_asked(
    described: str, back: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "mine"
    line = [*(["eyeriss_v1", "--format", "timeloop"] if back else [described]), "--to", str(folder), "--quiet"]
    assert convert(line) == 0
    (folder / "translation.txt").write_text("of other files")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert convert(line) == 2
    assert f"{folder}: holds an earlier translation" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert convert([*line, "--replace"]) == 0
    assert (folder / "translation.txt").read_text() != "of other files"


def test_a_mapping_is_priced_by_timeloops_rules_too(
    peers_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exercise 04 as recorded: its cycles, its fJ per compute, its 18,432 fills of a register file beside ours."""
    run = peers_dir / "timeloop" / "exercises" / "04-model-conv1d+oc-3levelspatial"
    files = [str(path) for path in sorted((run / "ref-output" / "cp").glob("*.yaml")) if "flattened" not in path.name]
    assert convert([*files, "--to", str(tmp_path / "mine"), "--quiet"]) == 0
    assert "timeloop_statistics.txt" in capsys.readouterr().out
    text = (tmp_path / "mine" / "timeloop_statistics.txt").read_text()
    assert "cycles 3,072," in text
    assert "13,011.43 fJ per compute" in text
    (inputs,) = [line.split() for line in text.splitlines() if line.startswith("RegisterFile") and "input" in line]
    assert inputs[4] == "18,432"
    assert inputs[-1] == "4,544"
