"""Freed memory stays with the process where glibc is; elsewhere nothing happens and nothing fails."""

from __future__ import annotations

import platform
import subprocess
import sys
import textwrap

import pytest

from quant.memory import keep_memory

FAULTS = textwrap.dedent("""
    import resource, torch
    from quant.memory import keep_memory
    torch.set_num_threads(1)
    assert keep_memory()
    def work():
        parts = [torch.ones(1 << 22) for _ in range(4)]  # 64 MiB, allocated and freed as activations are
    found = []
    for _ in range(8):  # the first rounds give the heap its size
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(5):
            work()
        found.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    print(min(found))
""")


@pytest.mark.long
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_steps_fault_no_pages_in_again() -> None:
    """In the quietest round. glibc may keep blocks without being told: the default is no contrast to rely on."""
    done = subprocess.run([sys.executable, "-c", FAULTS], check=True, capture_output=True, text=True)
    assert int(done.stdout) < 100


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_memory()
