"""Two workers, one of them with a full disk, another clock or no compiler; a scheduler that dies and comes back.

A study ends as on one machine, or says why. Workers that give damaged results: test_liars.py.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from hwsim.explore.command import main
from hwsim.explore.machines.space_reader import read_space
from hwsim.explore.machines.study import run_study
from hwsim.explore.machines.workers import Answer, Cluster, SchedulerError, answered, lie_of
from tests.explore.conftest import Processes
from tests.explore.test_bill import residual
from tests.explore.test_machines import ROWS, done, finish, journal, space_file, start, wait_until

TWELVE = {ROWS: [4, 8], "mac.energy_pj": [2.0 + 0.01 * i for i in range(6)]}
# Runs in every Python process of a worker before anything else, as a file sitecustomize.py on its path.
FULL_DISK = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write beyond the limit fails as on a full disk
resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))
"""
A_DAY_AHEAD = """
import time
real = time.time
time.time = lambda: real() + 86400.0
"""


def odd_worker(processes: Processes, name: str, first: str, **more: str) -> None:
    """A worker whose Python does `first` when it starts."""
    folder = processes.place / name
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(first)
    root = Path(__file__).resolve().parents[2]
    processes.worker([("PYTHONPATH", f"{folder}:{root}"), *more.items()], nanny=False)


def calm(folder: Path, **changes: Any) -> dict[int, Any]:
    """The journal of the same study in this process."""
    folder.mkdir()
    assert main(["machines", str(space_file(folder, **changes)), "--out", str(folder / "out"), "--quiet"]) == 0
    return journal(folder / "out")


def on_cluster(processes: Processes, tmp_path: Path, **changes: Any) -> tuple[Cluster, Path]:
    """The study on the two workers that were started."""
    out = tmp_path / "out"
    space = read_space(space_file(tmp_path, **changes))
    workers = Cluster(processes.address, timeout_s=120)
    workers.client.wait_for_workers(2, timeout=300)
    try:
        run_study(space, out, {"network.json": residual()}, workers)
    finally:
        workers.close()
    return workers, out


def test_a_worker_that_cannot_work_gives_its_batch_back() -> None:
    def full(tasks: list[Any]) -> list[Any]:
        raise OSError(28, "No space left on device", "/tmp/kernels")

    answer = answered(full, [(1, {})])
    assert isinstance(answer, Answer)
    assert lie_of(answer, [(1, {})]) == "it cannot work: [Errno 28] No space left on device: '/tmp/kernels'"


def test_a_study_goes_on_only_with_the_means_of_its_proofs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = read_space(space_file(tmp_path, effort="perfect"))
    networks = {"network.json": residual()}
    with_kernel = space.identity(networks)
    monkeypatch.setattr("hwsim.explore.machines.space.compiled", lambda: None)
    assert space.identity(networks).differences(with_kernel) == ["search_kernel"]
    quick = read_space(space_file(tmp_path))
    assert "search_kernel" not in quick.identity(networks).parts


@pytest.mark.slow
def test_a_study_ends_equal_though_a_scheduler_dies_and_comes_back(processes: Processes, tmp_path: Path) -> None:
    scheduler = processes.scheduler()
    for _ in range(2):
        processes.worker()
    path, out = space_file(tmp_path, search=TWELVE), tmp_path / "out"
    driver = start(path, out, "--scheduler", processes.address)
    wait_until(lambda: done(out) >= 3, driver)
    scheduler.send_signal(signal.SIGKILL)
    scheduler.wait()
    _, said = driver.communicate(timeout=300)
    kept = done(out)
    print(said.decode().strip(), f"({kept} of 12 points kept)")
    assert driver.returncode == 2
    assert "the scheduler was lost; what is finished is kept: start it and this command again" in said.decode()
    assert 3 <= kept < 12
    processes.scheduler()  # its workers left when it died
    processes.worker()
    finish(start(path, out, "--scheduler", processes.address))
    assert journal(out) == calm(tmp_path / "calm", search=TWELVE)


def test_a_cluster_without_workers_is_named(processes: Processes, monkeypatch: pytest.MonkeyPatch) -> None:
    processes.scheduler()
    monkeypatch.setattr(Cluster, "patience_s", 0.5)
    workers = Cluster(processes.address, timeout_s=120)
    try:
        with pytest.raises(SchedulerError, match=r"no worker has been there for 0 s: start `dask worker tcp:"):
            list(workers.run(lambda tasks: [], [(0, {})]))
    finally:
        workers.close()


@pytest.mark.slow
def test_a_study_ends_equal_though_a_workers_disk_is_full(processes: Processes, tmp_path: Path) -> None:
    """It proves layers; the worker with the full disk can write neither kernel nor mappings."""
    processes.scheduler()
    processes.worker(nanny=False)
    own = {"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "dask"),
           "HWSIM_CACHE": str(tmp_path / "home" / "cache")}  # fmt: skip
    odd_worker(processes, "full", FULL_DISK, **own)
    workers, out = on_cluster(processes, tmp_path, search=TWELVE, effort="perfect")
    print(workers.liars)
    assert journal(out) == calm(tmp_path / "calm", search=TWELVE, effort="perfect")


@pytest.mark.slow
def test_a_study_ends_equal_though_clocks_differ_by_a_day(processes: Processes, tmp_path: Path) -> None:
    processes.scheduler()
    processes.worker(nanny=False)
    odd_worker(processes, "ahead", A_DAY_AHEAD)
    workers, out = on_cluster(processes, tmp_path, search=TWELVE)
    assert not workers.liars
    assert journal(out) == calm(tmp_path / "calm", search=TWELVE)


@pytest.mark.slow
def test_a_worker_without_a_compiler_is_left_out_of_proofs(processes: Processes, tmp_path: Path) -> None:
    processes.scheduler()
    processes.worker(nanny=False)
    processes.worker([("HWSIM_KERNEL", "none")], nanny=False)
    workers, out = on_cluster(processes, tmp_path, search=TWELVE, effort="perfect")
    print(workers.liars)
    assert all("the compiled search kernel is missing: HWSIM_KERNEL=none" in lie for lie in workers.liars.values())
    assert journal(out) == calm(tmp_path / "calm", search=TWELVE, effort="perfect")


@pytest.mark.slow
def test_where_no_worker_can_work_a_study_says_why(processes: Processes, tmp_path: Path) -> None:
    processes.scheduler()
    for _ in range(2):
        processes.worker([("HWSIM_KERNEL", "none")], nanny=False)
    with pytest.raises(SchedulerError, match=r"no worker is left with whole answers .*HWSIM_KERNEL=none"):
        on_cluster(processes, tmp_path, effort="perfect")
    assert done(tmp_path / "out") == 0
