"""Quick, default and proven plans side by side: the committed rows keep the order, and a breach is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.efforts import EFFORTS, PAIRS, main, table, worse
from experiments.table import append, read

ROOT = Path(__file__).parent.parent.parent
FILE = ROOT / "results" / "efforts.csv"


def test_no_effort_of_the_committed_rows_is_worse_than_a_cheaper_one() -> None:
    rows = read(FILE)
    assert rows
    assert [line for row in rows for line in worse(row)] == []


def test_the_command_alone_measures_the_committed_pairs() -> None:
    measured = {(row["network"], row["machine"]) for row in read(FILE)}
    assert {(name.rpartition("/")[2], spec) for name, spec in PAIRS} == {
        (name.rpartition("(")[2].rstrip(")"), spec) for name, spec in measured
    }


def test_the_page_shows_the_measured_table() -> None:
    assert "\n".join(table(read(FILE))) in (ROOT / "docs" / "search_results.md").read_text(encoding="utf-8")


def test_a_breach_is_named_and_ends_the_command_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = {f"{title}_value": value for (title, _), value in zip(EFFORTS, (100.0, 90.0, 95.0), strict=True)}
    more = {f"{title}_{key}": "0" for title, _ in EFFORTS for key in ("gap", "cpu_s")}
    row = {"key": "a/b/energy", "network": "a", "machine": "b", "objective": "energy", **values, **more}
    append(tmp_path / "efforts.csv", [row], key="key")
    assert main(["--out", str(tmp_path / "efforts.csv"), "--pairs"]) == 1
    assert "a/b/energy: proven 95 > default 90" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["resnet8", "resnet8/eyeriss_v1", "resnet8,", ",eyeriss_v1"])
def test_a_pair_without_a_comma_is_named_with_the_way_out(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--pairs", text])
    assert ended.value.code == 2
    assert f"expected MODEL,ACCEL such as resnet8,eyeriss_v1, found {text!r}" in capsys.readouterr().err
