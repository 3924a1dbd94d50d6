"""Searches side by side: the same answers for any number of threads, in the same order, failures among them."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from hwsim.errors import InfeasibleMapping
from hwsim.evaluate import main as evaluate
from hwsim.search import side_by_side
from hwsim.search.side_by_side import JOBS, each, jobs_for, parted, threads
from hwsim.table import main as table


def test_results_come_in_the_order_of_the_items_whoever_is_faster() -> None:
    gate = threading.Barrier(3)

    def work(item: int) -> int:
        if item < 3:
            gate.wait(20)  # only three threads at once pass it
        return item * item

    with threads(3):
        assert each(work, range(20)) == [n * n for n in range(20)]
    assert each(lambda item: item, [2, 1]) == [2, 1]  # one thread


def test_the_first_failure_in_the_order_of_the_items_is_raised() -> None:
    def work(item: int) -> int:
        if item % 2:
            raise InfeasibleMapping(str(item))
        return item

    for jobs in (1, 4):
        with threads(jobs), pytest.raises(InfeasibleMapping, match="1"):
            each(work, range(9))


def test_a_thread_that_helps_starts_no_others_and_the_number_holds_inside_alone() -> None:
    with threads(4):
        assert each(lambda _: JOBS.get(), range(8)) == [1] * 8
        assert JOBS.get() == 4
    assert JOBS.get() == 1


def test_an_interrupt_ends_the_work_without_waiting_for_what_was_not_begun() -> None:
    begun: list[int] = []
    release, helping = threading.Event(), threading.Event()

    def work(item: int) -> None:
        begun.append(item)
        if threading.current_thread() is threading.main_thread():
            helping.wait(20)
            raise KeyboardInterrupt
        helping.set()
        release.wait(20)

    with threads(2), pytest.raises(KeyboardInterrupt):
        each(work, range(50))
    release.set()
    assert len(begun) == 2


def test_groups_that_share_nothing_are_parted_and_keep_their_order() -> None:
    groups = parted([(1, 2), (3,), (2, 4), (5,), (4, 3), (6,)], lambda item: item)
    assert groups == [[(1, 2), (3,), (2, 4), (4, 3)], [(5,)], [(6,)]]


def test_proofs_run_on_the_usable_cores_and_the_quick_search_on_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "usable_cores", lambda: 64)
    assert jobs_for("auto") == side_by_side.MOST
    assert jobs_for("quick") == 1
    assert jobs_for("quick", 3) == 3
    monkeypatch.setattr(side_by_side, "usable_cores", lambda: 2)
    assert jobs_for("proven") == 2


REQUESTS = (
    ("ds_cnn", "eyeriss_v1", "--bits", "W4A4"),  # a schedule of its own, proven beside; two widths
    ("ds_cnn", "simba", "--objective", "edp"),
    ("ds_cnn", "gemmini_16x16", "--lifetimes", "rows"),
)


@pytest.mark.long
@pytest.mark.parametrize("request_", REQUESTS, ids=lambda given: given[1])
def test_any_number_of_threads_gives_the_same_report_byte_for_byte(
    request_: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HWSIM_CACHE", "")
    seen: set[tuple[bytes, ...]] = set()
    for jobs in (1, 4):
        assert evaluate([*request_, "--explain", "--jobs", str(jobs), "--out", str(tmp_path / "out")]) == 0
        report = json.loads((tmp_path / "out" / "report.json").read_text())
        text = json.dumps({key: value for key, value in report.items() if key not in ("command", "seal")})
        files = [(tmp_path / "out" / name).read_bytes() for name in ("layers.csv", "explain.csv", "mappings.yaml")]
        seen.add((text.encode(), *files))
    capsys.readouterr()
    assert len(seen) == 1


def test_any_number_of_threads_gives_the_same_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HWSIM_CACHE", "")
    texts = {
        (table(["ds_cnn", "nvdla_small", "--bits", "W8A8,W4A4", "--alone", "--jobs", str(jobs)]), *capsys.readouterr())
        for jobs in (1, 3)
    }
    assert len(texts) == 1


def test_assignments_refuse_threads_that_they_do_not_start(capsys: pytest.CaptureFixture[str]) -> None:
    assert table(["resnet8", "simba", "--assignments", "random:3", "--jobs", "2"]) == 2
    assert "--jobs" in capsys.readouterr().err
