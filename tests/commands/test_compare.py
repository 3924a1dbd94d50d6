"""Two reports side by side; equal questions have equal identities, others say what differs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hwsim.compare import main
from hwsim.evaluate import main as evaluate
from hwsim.network.layer import Layer, Loops, Tensor
from hwsim.network.workload import Workload


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables have room, wherever the tests run."""
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reports of one small network: twice the same, at other bits, and on another machine."""
    folder = tmp_path_factory.mktemp("reports")
    layer = Layer(
        "fc", "linear", (Tensor("x", (1, 64), 8),), Tensor("y", (1, 32), 8),
        weight=Tensor("w", (32, 64), 8), loops=Loops(K=32, C=64),
    )  # fmt: skip
    network = folder / "net.json"
    Workload("net", [layer]).save(network)
    for name, spec, bits in (("a", "bit_fusion", "W8A8"), ("again", "bit_fusion", "W8A8"),
                             ("narrow", "bit_fusion", "W4A4"), ("other", "eyeriss_v1", "W8A8")):  # fmt: skip
        assert evaluate([str(network), spec, "--quick", "--bits", bits, "--out", str(folder / name)]) == 0
    return folder


def test_the_same_question_has_the_same_identity(reports: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--same", str(reports / "a"), str(reports / "again" / "report.json")]) == 0
    assert "the same question" in capsys.readouterr().out


@pytest.mark.parametrize(("other", "part"), [("narrow", "workload"), ("other", "accelerator")])
def test_what_differs_is_named(reports: Path, capsys: pytest.CaptureFixture[str], other: str, part: str) -> None:
    assert main(["--same", str(reports / "a"), str(reports / other)]) == 1
    assert part in capsys.readouterr().out.split("differ in")[1]


def test_ratios_are_to_the_first_report(reports: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(reports / "a"), str(reports / "narrow")]) == 0
    said = capsys.readouterr().out
    totals = [json.loads((reports / name / "report.json").read_text())["totals"] for name in ("a", "narrow")]
    ratio = totals[1]["energy_pj"] / totals[0]["energy_pj"]
    (line,) = [line for line in said.splitlines() if line.startswith("energy  ")]
    assert f"({ratio:.3g}x)" in line


@pytest.mark.parametrize("width", [80, 100, 200])
def test_a_table_of_many_reports_is_as_wide_as_asked(
    reports: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    assert main([str(reports / name) for name in ("a", "narrow", "other", "a", "narrow", "other", "again")]) == 0
    said = capsys.readouterr().out.split("differ in")[0].splitlines()[:-1]
    assert max(map(len, said)) <= width
    energies = [line.split("energy  ")[1] for line in said if line.startswith("energy  ")]
    assert sum(line.count("J") for line in energies) == 7  # one value for each report, whatever the width
    assert (len(energies) == 1) == (width == 200)


def test_reports_of_one_title_are_told_apart(reports: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    names = [str(reports / "a"), str(reports / "narrow" / "report.json"), str(reports / "other")]
    assert main([*names, "--out", str(page)]) == 0
    head = capsys.readouterr().out.splitlines()[0]
    assert [part.strip() for part in head.split("  ") if part.strip()] == [
        "a: net on bit_fusion", "narrow: net on bit_fusion", "net on eyeriss_v1",
    ]  # fmt: skip
    assert "narrow: net on bit_fusion" in page.read_text()


@pytest.mark.parametrize("damage", ["", "[]", "{}", '{"identity": {"hash": "x", "parts": {}}}'])
def test_what_is_no_report_is_refused(
    reports: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    (tmp_path / "bad.json").write_text(damage)
    assert main([str(reports / "a"), str(tmp_path / "bad.json")]) == 2
    assert "bad.json" in capsys.readouterr().err
    changed = json.loads((reports / "a" / "report.json").read_text())
    changed["identity"]["parts"]["workload"] = "0" * 16
    (tmp_path / "changed.json").write_text(json.dumps(changed))
    assert main([str(reports / "a"), str(tmp_path / "changed.json")]) == 2
    assert "identity is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1" + "0" * 400, '"5"', "true"])
@pytest.mark.parametrize("part", ["totals", "energy_pj_by_component"])
def test_numbers_of_reports_are_finite(
    reports: Path, part: str, number: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = next(reports.glob("*/report.json"))
    data = json.loads(whole.read_text())
    name = next(iter(data[part]))
    data[part][name] = "HERE"
    (tmp_path / "report.json").write_text(json.dumps(data).replace('"HERE"', number))
    assert main([str(whole.parent), str(tmp_path)]) == 2
    assert "not a report" in capsys.readouterr().err
