"""A small cluster of its own processes, for tests that start one and kill its parts."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


class Processes:
    """A scheduler at one address and its workers, each a process that a test may end and start again."""

    def __init__(self, place: Path) -> None:
        self.place, self.running = place, list[subprocess.Popen[bytes]]()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{self.port}"

    def launch(self, *what: str, environment: Sequence[tuple[str, str]] = ()) -> subprocess.Popen[bytes]:
        """A part of the cluster, with a folder of its own for what it writes."""
        own = {"HWSIM_CACHE": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "distributed.cli.dask_" + what[0], *what[1:]]
        process = subprocess.Popen(command, cwd=self.place, env={**os.environ, **own, **dict(environment)},
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        self.running.append(process)
        return process

    def scheduler(self) -> subprocess.Popen[bytes]:
        """Start it; where it was killed before, at the address that it had."""
        file = self.place / "scheduler.json"
        file.unlink(missing_ok=True)
        process = self.launch("scheduler", "--host", "127.0.0.1", "--port", str(self.port), "--no-dashboard",
                              "--scheduler-file", str(file))  # fmt: skip
        while not file.exists() or json.loads(file.read_text() or "{}").get("address") != self.address:
            assert process.poll() is None, "the scheduler did not start"
            time.sleep(0.05)
        return process

    def worker(self, environment: Sequence[tuple[str, str]] = (), nanny: bool = True) -> subprocess.Popen[bytes]:
        """One worker of one thread."""
        return self.launch("worker", self.address, "--nthreads", "1", "--no-dashboard",
                           "--nanny" if nanny else "--no-nanny", environment=environment)  # fmt: skip

    def end(self) -> None:
        """Everything; by force what does not go by itself."""
        for process in reversed(self.running):
            process.terminate()
        until = time.monotonic() + 30
        for process in reversed(self.running):
            try:
                process.wait(timeout=max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """Nothing runs yet."""
    pytest.importorskip("distributed")
    (tmp_path / "dask").mkdir()
    found = Processes(tmp_path / "dask")
    try:
        yield found
    finally:
        found.end()


@pytest.fixture
def cluster(processes: Processes) -> tuple[str, list[subprocess.Popen[bytes]]]:
    """A scheduler and two workers: (address, [worker, worker])."""
    processes.scheduler()
    return processes.address, [processes.worker() for _ in range(2)]
