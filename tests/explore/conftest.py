"""A small cluster of its own processes, for tests that start one and kill its parts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """A scheduler and two workers as processes of their own: (address, [worker, worker])."""
    pytest.importorskip("distributed")
    file = tmp_path / "scheduler.json"
    environment = {**os.environ, "HWSIM_CACHE": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}

    def launch(*what: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-m", "distributed.cli.dask_" + what[0], *what[1:]], cwd=tmp_path,
                                env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip

    running = [
        launch("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file))
    ]
    workers = [
        launch("worker", "--scheduler-file", str(file), "--nthreads", "1", "--no-dashboard", "--nanny")
        for _ in range(2)
    ]
    try:
        while not file.exists() or not file.read_text():
            time.sleep(0.05)
        yield json.loads(file.read_text())["address"], workers
    finally:
        for process in (*workers, *running):
            process.terminate()
        for process in (*workers, *running):
            process.wait(timeout=60)
