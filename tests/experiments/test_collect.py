"""Rows out of checkpoints: one per run, replaced when the run is collected again, none for an unfinished one."""

from pathlib import Path

import pytest

from experiments import collect, table
from quant import train

LINE = ["--model", "silu_se_net", "--model-arg", "depth=1", "--model-arg", "width=0.25", "--device", "cpu"]
LINE += ["--limit", "128", "--batch-size", "64", "--epochs", "1"]


def test_a_run_becomes_a_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, tuned, out = tmp_path / "float", tmp_path / "w4a4", tmp_path / "out.csv"
    assert train.main([*LINE, "--out", str(base)]) == 0
    assert train.main([*LINE, "--weights", str(base), "--bits", "W4A4", "--out", str(tuned), "--minutes", "1e-9"]) == 0
    assert collect.main([str(base), str(tuned), "--out", str(out)]) == 2
    assert "w4a4: this run is not finished" in capsys.readouterr().err
    assert train.main(["--resume", "--out", str(tuned)]) == 0
    for _ in range(2):
        assert collect.main([str(base), str(tuned), "--out", str(out)]) == 0
    rows = table.read(out)
    assert [(r["run"], r["bits"], r["steps"], r["learning_rate"]) for r in rows] == [
        ("float", "float", "2", "0.1"),
        ("w4a4", "W4A4", "2", "0.01"),
    ]
    assert all(r["commit"] != "" or not (Path(__file__).parents[2] / ".git").exists() for r in rows)
    assert all(0 <= float(r["test_accuracy_percent"]) <= 100 for r in rows)
