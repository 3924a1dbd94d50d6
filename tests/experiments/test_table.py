"""Rows survive a round trip, intervals are Student's, verdicts never say more than the interval does."""

from __future__ import annotations

import math
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from experiments import table
from experiments.table import Interval, paired_difference, verdict


def add_rows(path: Path, who: int) -> None:
    for i in range(20):
        table.append(path, [{"key": f"{who}-{i}", "value": i}], key="key")


def test_rows_come_back_with_the_union_of_columns(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    table.append(path, [{"key": "a", "x": 1.5}])
    table.append(path, [{"key": "b", "y": 'with "quotes", commas'}, {"key": "c", "x": None}])
    assert table.read(path) == [
        {"key": "a", "x": "1.5", "y": ""},
        {"key": "b", "x": "", "y": 'with "quotes", commas'},
        {"key": "c", "x": "", "y": ""},
    ]


def test_a_row_of_equal_key_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    table.append(path, [{"key": "a", "x": 1}, {"key": "b", "x": 2}], key="key")
    table.append(path, [{"key": "a", "x": 3}], key="key")
    assert {row["key"]: row["x"] for row in table.read(path)} == {"a": "3", "b": "2"}


def test_several_processes_lose_no_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=add_rows, args=(path, who)) for who in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(table.read(path)) == 60


def test_interval_is_students() -> None:
    values = np.random.default_rng(3).normal(70, 2, 5).tolist()
    low, high = stats.t.interval(0.95, 4, loc=np.mean(values), scale=stats.sem(values))
    interval = Interval.of(values)
    assert (interval.low, interval.high) == pytest.approx((low, high))


def test_interval_covers_the_mean_19_times_out_of_20() -> None:
    rng = np.random.default_rng(5)
    samples = rng.normal(0.0, 1.0, (4000, 3))
    covered = sum(interval.low <= 0 <= interval.high for interval in map(Interval.of, samples.tolist()))
    assert abs(covered / 4000 - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 4000)


def test_one_run_has_no_interval_and_no_verdict() -> None:
    single = Interval.of([71.0])
    assert single.half_width is None
    assert verdict(single) == "undecided"
    assert single.text() == "71.00 (1 run)"


@pytest.mark.parametrize(
    ("values", "expected"),
    [([2.0, 2.1, 2.2], "higher"), ([-2.0, -2.1, -2.2], "lower"), ([0.1, -0.1, 0.0], "tie"), ([3, -3, 1], "undecided")],
)
def test_verdict(values: list[float], expected: str) -> None:
    assert verdict(Interval.of(values), tie_within=1.0) == expected


def test_differences_pair_by_seed() -> None:
    rows = [
        {"seed": str(s), "c": c, "a": str(50 + 10 * s + bonus)} for s in range(3) for c, bonus in (("1", 0), ("4", 2))
    ]
    rows.append({"seed": "9", "c": "4", "a": "0"})  # no partner: must not count
    found = paired_difference(rows, lambda r: r["c"] == "4", lambda r: r["c"] == "1", "a")
    assert found is not None
    assert (found.mean, found.half_width, found.count) == (2.0, 0.0, 3)
    assert paired_difference(rows, lambda r: r["c"] == "4", lambda r: r["c"] == "2", "a") is None
