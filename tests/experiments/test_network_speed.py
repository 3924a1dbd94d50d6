"""The times of `evaluate` on the page are those of results/network_speed.csv."""

from __future__ import annotations

from pathlib import Path

from benchmarks.network_speed import table
from experiments.table import read

ROOT = Path(__file__).parents[2]


def test_the_page_shows_the_measured_times() -> None:
    rows = read(ROOT / "results" / "network_speed.csv")
    assert "\n".join(table(rows)) in (ROOT / "docs" / "search_results.md").read_text(encoding="utf-8")
