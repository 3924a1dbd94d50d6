"""Messages stay of a length that a person reads, whatever a file or an argument holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hwsim.__main__ import main as hwsim_command
from hwsim.errors import MAX_LINE, MAX_LINES, SpecError, readable
from hwsim.evaluate import main
from hwsim.explore.bits.choices import parse_widths
from hwsim.explore.machines.space_reader import read_space
from tests.small_workloads import chain


def test_the_first_lines_of_a_long_message_are_shown_and_the_others_counted() -> None:
    lines = [f"line {n}" for n in range(MAX_LINES)]
    assert readable("\n".join(lines)) == "\n".join(lines)
    assert readable("\n".join([*lines, "one", "two"])).split("\n") == [*lines, "and 2 more"]
    assert readable("x" * MAX_LINE) == "x" * MAX_LINE
    shown = readable("a" * 10**6 + "z" * 10**6)
    assert len(shown) <= MAX_LINE + 5
    assert (shown[0], shown[-1]) == ("a", "z")
    assert " ... " in shown


@pytest.mark.long
def test_a_mapping_with_a_hundred_thousand_mistakes_gets_a_short_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chain().save(tmp_path / "net.json")
    (tmp_path / "map.yaml").write_text("layers: {first: [" + ",".join(["K 1"] * 100_000) + "]}", encoding="utf-8")
    assert main([str(tmp_path / "net.json"), "simba", "--mapping", str(tmp_path / "map.yaml")]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) <= MAX_LINES + 1
    assert "more" in said.splitlines()[-1]


@pytest.mark.parametrize("text", ["2..99999999999", "99999999999", "9" * 5000, "2.." + "9" * 5000, "0..4", "2..4,65"])
def test_widths_are_refused_before_a_range_of_them_is_made(text: str) -> None:
    with pytest.raises(SpecError, match="widths must be 1 to"):
        parse_widths(text, "--weights")


@pytest.mark.parametrize("number", [".inf", ".nan", "1" + "0" * 400])
def test_spaces_take_finite_numbers(number: str, tmp_path: Path) -> None:
    chain().save(tmp_path / "net.json")
    head = f"model: {json.dumps(str(tmp_path / 'net.json'))}\naccelerator: eyeriss_v1\n"
    path = tmp_path / "space.yaml"
    for searched in (f"{{from: 1, to: {number}, factor: 2}}", f"{{from: 1, to: 8, step: {number}}}"):
        path.write_text(f"{head}search: {{clock_mhz: {searched}}}\n", encoding="utf-8")
        with pytest.raises(SpecError, match="clock_mhz"):
            read_space(path)
    path.write_text(f"{head}search: {{clock_mhz: [100, 200]}}\nlimits: {{area_mm2: {number}}}\n", encoding="utf-8")
    with pytest.raises(SpecError, match="area_mm2"):
        read_space(path)


def test_names_of_written_files_are_text_on_screen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chain(size=4).save(tmp_path / "net.json")
    out = tmp_path / "a\nb\x1b[2J"
    assert main([str(tmp_path / "net.json"), "simba", "--quick", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "\x1b[2J" not in said
    assert len([line for line in said.splitlines() if line.startswith("wrote ") and "report.json" in line]) == 1


@pytest.mark.parametrize(
    ("command", "near"),
    [
        ("evaluate resnet8 eyeriss_v1 --output x", "--out"),
        ("evaluate resnet8 eyeriss_v1 --slak=0.1", "--slack"),
        ("explain resnet8 eyeriss_v1 --quik", "--quick"),
        ("explore bits resnet8 eyeriss_v1 --weigths 2,4", "--weights"),
        ("compare a b --output x", "--out"),
        ("check --shema", "--schema"),
        ("table resnet8 eyeriss_v1 --bits W8A8 --output x", "--out"),
        ("verify a --jsno", "--json"),
        ("convert a --to y --qiet", "--quiet"),
        ("export-c a b --imges 3", "--images"),
        ("export-onnx a b --formt qdq", "--format"),
        ("train --out x --epoch-s 3", "--epochs"),
        ("calibrate a --out b --bit-s W4A4", "--bits"),
        ("sensitivity a --out b --dota x", "--data"),
    ],
)
def test_an_unknown_option_names_the_nearest(command: str, near: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        hwsim_command(command.split())
    said = capsys.readouterr().err
    assert said.splitlines()[-1].endswith(f"; did you mean {near}?")


def test_a_network_in_the_accelerators_place_is_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eyeriss_v1", "resnet8"]) == 2
    assert (
        "resnet8: a network of the zoo, where an accelerator is expected; MODEL comes first" in capsys.readouterr().err
    )
    assert main(["resnet8", "no_such_machine"]) == 2
    assert "no such file or shipped spec" in capsys.readouterr().err
