"""The answer in one screen: 80 columns, 24 lines, the same words with and without colours, names as text."""

from __future__ import annotations

import dataclasses
import io
import re

import pytest
from rich.cells import cell_len
from rich.console import Console

import hwsim
from hwsim.network.layer import Layer, Loops, Tensor
from hwsim.network.workload import Workload
from hwsim.report.report import Report
from hwsim.report.screen import WIDTH, bar_lines, bars_of, cut, energy_by_operand, render
from hwsim.report.terminal import gap_percent, less_than
from hwsim.search.result import less_at_most

HOSTILE = "[bold]a[/] \x1b[31m a name that is much longer than any column could ever be, whatever the width"


@pytest.fixture(scope="module")
def report() -> Report:
    sizes = (784, 64, 96, 128, 32, 64, 10)
    names = ("first", HOSTILE, "c", "d", "e", "last")
    layers = [
        Layer(
            name, "linear", (Tensor(f"t{i}", (1, sizes[i]), 8, False),),
            Tensor(f"t{i + 1}", (1, sizes[i + 1]), 8, False),
            Tensor(f"w{i}", (sizes[i + 1], sizes[i]), 8, True, origin="weight"), Loops(K=sizes[i + 1], C=sizes[i]),
        )
        for i, name in enumerate(names)
    ]  # fmt: skip
    return hwsim.evaluate(Workload("chain", layers), "eyeriss_v1", effort="quick")


def shown(report: Report, width: int, colours: bool = False, assumptions: bool = False) -> str:
    target = io.StringIO()
    console = Console(
        file=target, width=width, color_system="truecolor" if colours else None, force_terminal=colours,
        legacy_windows=False,
    )  # fmt: skip
    render(report, console, assumptions=assumptions)
    return target.getvalue()


@pytest.mark.parametrize("width", [80, 100, 160])
def test_the_answer_fits_a_screen(report: Report, width: int) -> None:
    lines = shown(report, width).splitlines()
    assert len(lines) <= 24
    assert max(map(cell_len, lines)) <= width
    for word in ("energy", "latency", "time", "proof", "covered", "assumptions", "five costliest layers"):
        assert any(word in line for line in lines), word


def test_the_title_breaks_before_its_bits(report: Report) -> None:
    assert shown(report, 160).splitlines()[0].endswith("least energy)")
    first, second = shown(report, 60).splitlines()[:2]
    assert first == "chain on eyeriss_v1"
    assert second.startswith("         (weights")


def test_a_window_too_narrow_is_no_error(report: Report) -> None:
    assert "energy" in shown(report, 12)


@pytest.mark.parametrize(
    ("columns", "width"), [("90", 90), ("200", 200), (None, WIDTH), ("0", WIDTH), ("wide", WIDTH), ("", WIDTH)]
)
def test_a_file_is_as_wide_as_columns_says(
    report: Report, columns: str | None, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns is not None:
        monkeypatch.setenv("COLUMNS", columns)
    render(report)
    assert capsys.readouterr().out == shown(report, width)


def test_objectives_that_agree_are_said_in_one_line(report: Report) -> None:
    totals = report.totals
    same = dataclasses.replace(report, by_objective={"energy": totals, "latency": totals})
    assert "least energy, least latency: all of them this" in shown(same, 100)
    faster = dataclasses.replace(totals, latency_cycles=1)
    assert "in 1 cycles" in shown(dataclasses.replace(report, by_objective={"energy": totals, "latency": faster}), 100)


def test_colours_change_no_character(report: Report) -> None:
    coloured = shown(report, 80, colours=True)
    assert "\x1b[" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == shown(report, 80)


def test_every_part_of_a_bar_has_a_sign_of_its_own(report: Report) -> None:
    for width in (80, 120):
        for name, parts in bars_of(report).items():
            bar, legend = (line.plain for line in bar_lines(name, parts, width))
            signs = list(dict.fromkeys(bar[9:]))
            assert [part[0] for part in re.findall(r"[█▓▒░·] ", legend)] == [s for s in "█▓▒░·" if s in legend]
            assert set(signs) <= set(legend)
            assert len(bar) == width - 1


def test_a_bar_is_cut_without_a_column_left() -> None:
    for parts in ({"a": 1.0, "b": 1.0, "c": 1.0}, {"a": 1e12, "b": 1e-12}, {"a": 3.0}):
        widths = cut(parts, 70)
        assert sum(widths) == 70
        exact = [70 * value / sum(parts.values()) for value in parts.values()]
        assert all(abs(width - value) < 1 for width, value in zip(widths, exact, strict=True))


def test_energy_by_operand_is_all_the_energy(report: Report) -> None:
    found = energy_by_operand(report)
    assert sum(found.values()) == pytest.approx(report.energy_pj, rel=1e-12)
    assert {"weights", "inputs", "MACs"} <= set(found)


def test_assumptions_have_numbers_where_they_are_asked_for(report: Report) -> None:
    assert report.assumptions[0] not in shown(report, 200)
    text = shown(report, 400, assumptions=True)
    for number, line in enumerate(report.assumptions, start=1):
        assert re.search(rf"^ *{number}  {re.escape(line)} *$", text, re.MULTILINE), line


def test_names_are_text(report: Report) -> None:
    text = shown(report, 400)
    assert "\x1b" not in text
    assert "[bold]a[/] \\x1b[31m a name" in text


def test_a_notebook_shows_a_report_once(
    report: Report, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """rich displays every line by itself inside Jupyter: str(report) must stay a text there."""
    alone = str(report)
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    assert str(report) == alone
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("width", [80, 100])
def test_a_long_name_takes_no_number_away(report: Report, width: int) -> None:
    rows = [line for line in shown(report, width).splitlines() if " linear " in line]
    assert len(rows) == 5
    for row in rows:
        assert row.count("%") == 2
        assert row.rstrip().endswith("dram port")


@pytest.mark.parametrize(("value", "bound"), [(1.25, 1.0), (4.0, 1.0), (1e6, 1.0), (1.0, 1.0)])
def test_less_than_says_how_far_below_the_value_the_bound_lies(value: float, bound: float) -> None:
    """Not how far above the bound the value lies: four times the bound leaves 75 % to gain, not 300 %."""
    said = less_than(value / bound - 1)
    assert said == ("less" if value == bound else f"more than {gap_percent(1 - bound / value)} % less")
    assert gap_percent(less_at_most(value / bound - 1)) == gap_percent(1 - bound / value)
