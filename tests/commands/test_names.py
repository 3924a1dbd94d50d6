"""Names are text: on screen, in figures, pages and tables, in any encoding, whatever they look like."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import hwsim
from hwsim.console import printable
from hwsim.evaluate import main
from hwsim.nest.text import dump_mappings, load_mappings
from hwsim.network.layer import Layer, Loops, Tensor
from hwsim.network.workload import Workload

ROOT = Path(__file__).resolve().parent.parent.parent
NAMES = (
    "[bold]a[/]",
    "[/nothing opened",
    "\x1b[2Jcleared\x1b]0;title\x07",
    "a\r\nb\tc",
    "$\\frac{1}{$",
    "$x^2$",
    "_hidden",
    "=HYPERLINK(1)",
    "@sum",
    "+1",
    "<script>alert(1)</script>",
    "\u202egnp.exe",
    "\ud800",
    "漢字 \U0001f600",
    "1",
    "%s {0} {name}",
    "",
    "? - : # & * ! |",
    "a.very.long.name/" * 300,
)


def named(name: str, index: int) -> Layer:
    """A small linear layer of that name."""
    loops = Loops(K=4 + index, C=3)
    x = Tensor(f"x{index}", (1, 3), 8, False)
    out = Tensor(f"{name}.out", (1, 4 + index), 8, True)
    return Layer(name, "linear", (x,), out, Tensor(f"{name}.w", (4 + index, 3), 8, True, origin="weight"), loops)


@pytest.fixture(scope="module")
def strange() -> Workload:
    return Workload("$net$ [red]\x1b[31m", [named(name, i) for i, name in enumerate(NAMES)])


def test_no_name_reaches_a_terminal_or_a_file_as_anything_but_text(strange: Workload, tmp_path: Path) -> None:
    report = hwsim.evaluate(strange, "eyeriss_v1", effort="quick")
    shown = repr(report)
    assert "\x1b" not in shown
    assert "$net$ [red]\\x1b[31m on eyeriss_v1" in shown
    html = report._repr_html_()
    assert "<script" not in html
    assert "&lt;script" in html or "script" not in html
    report.save(tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("<script") == 1, "the page's own"
    assert "\x1b" not in page
    assert "&lt;script&gt;alert(1)" in page
    svg = (tmp_path / "energy.svg").read_text(encoding="utf-8")
    assert "$x^2$" in svg
    assert "_hidden" in svg
    with (tmp_path / "layers.csv").open(encoding="utf-8", newline="") as file:
        cells = [row["name"] for row in csv.DictReader(file)]
    assert len(cells) == len(NAMES)
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@")) or not cell.isprintable()]


def test_mappings_of_any_names_are_read_back_equal(strange: Workload, tmp_path: Path) -> None:
    report = hwsim.evaluate(strange, "eyeriss_v1", effort="quick")
    mappings = {name: found.mapping for name, found in report.found.items()}
    report.save(tmp_path)
    assert set(yaml.safe_load(dump_mappings(mappings))["layers"]) == set(NAMES)
    assert load_mappings(tmp_path / "mappings.yaml") == mappings


@pytest.mark.long
@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_a_terminal_of_any_encoding_gets_the_report(strange: Workload, encoding: str, tmp_path: Path) -> None:
    strange.save(tmp_path / "net.json")
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    for command in (["-m", "hwsim", "explain"], ["-m", "hwsim.evaluate"]):
        run = subprocess.run(
            [sys.executable, *command, str(tmp_path / "net.json"), "eyeriss_v1", "--quick"],
            cwd=ROOT, env=environment, capture_output=True, check=False,
        )  # fmt: skip
        assert (run.returncode, run.stderr) == (0, b"")
        assert b"\x1b" not in run.stdout
        assert ("12.3 mm2" if encoding == "ascii" else "12.3 mm²") in run.stdout.decode(encoding)


def test_errors_show_names_escaped(strange: Workload, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bits.yaml").write_text('default: W8A8\n"\\e[31m": W4A4\n', encoding="utf-8")
    strange.save(tmp_path / "net.json")
    assert main([str(tmp_path / "net.json"), "eyeriss_v1", "--bits", str(tmp_path / "bits.yaml")]) == 2
    error = capsys.readouterr().err
    assert "\\x1b[31m: matches no layer" in error
    assert "\x1b" not in error


def test_help_of_every_command_prints_in_ascii() -> None:
    for command in ("evaluate", "table", "explore", "check"):
        run = subprocess.run(
            [sys.executable, "-m", "hwsim", command, "--help"],
            cwd=ROOT, env={**os.environ, "PYTHONIOENCODING": "ascii"}, capture_output=True, check=False,
        )  # fmt: skip
        assert (run.returncode, run.stderr) == (0, b""), command


def test_printable_keeps_what_can_be_seen() -> None:
    assert printable("conv µ 漢字") == "conv µ 漢字"
    assert printable("\x1b\n\u202e\ud800") == "\\x1b\\n\\u202e\\ud800"
    target = io.StringIO()
    with contextlib.redirect_stdout(target):
        print(printable("\ud800"))
    assert target.getvalue().encode() == b"\\ud800\n"
