"""Workers that lie: a study ends as with honest ones, or says why, and writes down nothing that was not asked."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hwsim.explore.command import main
from hwsim.explore.machines.journal import sealed
from hwsim.explore.machines.space_reader import read_space
from hwsim.explore.machines.study import check_records, run_study
from hwsim.explore.machines.workers import Cluster, SchedulerError, answered
from hwsim.files.identity import content_hash
from tests.explore.test_bill import residual
from tests.explore.test_machines import space_file


def another_result(records: list[Any]) -> list[Any]:
    return [{**record, "values": {**record.get("values", {}), "energy_pj": 1.0}} for record in records]


LIES: dict[str, Any] = {
    "damaged": lambda answer: dataclasses.replace(answer, records=another_result(answer.records)),
    "fewer": lambda answer: dataclasses.replace(answer, records=[], seal=content_hash([])),
    "no answer": lambda answer: "nothing",
    "no records": lambda answer: dataclasses.replace(answer, records=[1, 2], seal=content_hash([1, 2])),
}


def lying(lie: str, liars: Sequence[str], evaluate: Any, batch: list[Any]) -> Any:
    """`answered`, changed after it was sealed where the worker is one of `liars` (all of them: "*")."""
    from distributed import get_worker

    answer = answered(evaluate, batch)
    return LIES[lie](answer) if "*" in liars or get_worker().address in liars else answer


def run_with_liars(tmp_path: Path, address: str, lie: str, everyone: bool = False) -> tuple[Cluster, list[Any]]:
    """A study of four points on two workers, one of which (or both) answers with a lie."""
    from distributed import Client

    with Client(address, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=300)
        first = sorted(client.scheduler_info()["workers"])[0]
    workers = Cluster(address)
    workers.work = functools.partial(lying, lie, ["*"] if everyone else [first])  # type: ignore[method-assign]
    path = space_file(tmp_path)
    space = read_space(path)
    networks = {"network.json": residual()}
    try:
        return workers, run_study(space, tmp_path / "study", networks, workers)
    finally:
        workers.close()


@pytest.mark.long
def test_a_study_ends_equal_though_a_worker_lies(tmp_path: Path, cluster: Any) -> None:
    address, _ = cluster
    calm = tmp_path / "calm"
    calm.mkdir()
    assert main(["machines", str(space_file(calm)), "--out", str(calm / "out"), "--quiet"]) == 0
    for lie in LIES:
        here = tmp_path / lie.replace(" ", "_")
        here.mkdir()
        workers, records = run_with_liars(here, address, lie)
        assert len(workers.liars) <= 1  # the other worker may have done all of it
        assert [sealed(r) for r in records] == (calm / "out" / "journal.jsonl").read_bytes().splitlines(), lie


@pytest.mark.long
def test_a_cluster_of_liars_is_named(tmp_path: Path, cluster: Any) -> None:
    address, _ = cluster
    with pytest.raises(SchedulerError, match=r"no worker is left with whole answers .*damaged on the way"):
        run_with_liars(tmp_path, address, "damaged", everyone=True)
    assert (tmp_path / "study" / "journal.jsonl").read_text() == ""


def test_a_worker_with_other_laws_is_named() -> None:
    answer = dataclasses.replace(answered(lambda tasks: [{"trial": t} for t, _ in tasks], [(1, {})]), versions=(0, 0))
    cluster = Cluster.__new__(Cluster)
    cluster.address = "tcp://here"
    with pytest.raises(SchedulerError, match=r"worker tcp://there runs another hwsim .*\(0, 0\)"):
        cluster.check_version(answer, "tcp://there")


@pytest.mark.parametrize("changes", [{"trial": 7}, {"parameters": {"a": 2}}, {"status": "fine"},
                                     {"values": {"energy_pj": float("nan")}}])  # fmt: skip
def test_a_record_that_was_not_asked_or_is_none_is_not_written_down(changes: dict[str, Any]) -> None:
    whole = {"trial": 1, "parameters": {"a": 1}, "status": "ok", "why": "", "values": {"energy_pj": 2.0}}
    check_records([whole], {1: {"a": 1}})
    with pytest.raises(SchedulerError, match="something else than a trial that it was asked"):
        check_records([whole | changes], {1: {"a": 1}})
