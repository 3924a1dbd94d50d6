"""The C kernel seen from Python: one place for every limit, asserts that hold, and no memory is an answer."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

import hwsim
from hwsim.files.compiled import compiler
from hwsim.search.kernel_enums import ENUMS, enums
from hwsim.search.proof import native
from hwsim.search.proof.compiler import DEBUG_KERNEL, KERNEL

ROOT = Path(__file__).resolve().parents[2]
RUN = """
import hwsim, json, sys
from hwsim.search.layer import search
from hwsim.search.proof import native
machine = hwsim.load_accelerator("simba")
layers = {layer.shape_key: layer for layer in hwsim.load_workload("net.json") if layer.has_macs}
left = int(sys.argv[1])
if left >= 0:
    native.compiled().mapper_allow(left)
for objective in ("energy", "latency"):
    for layer in layers.values():
        found = search(layer, machine, objective, effort="perfect")
        bound = found.certificate.lower_bound
        print(objective, layer.name, found.certificate.value, bound, found.certificate.space.split(": ")[-1])
"""


def results(folder: Path, kernel: str, left: int = -1) -> list[list[str]]:
    environment = {**os.environ, "HWSIM_KERNEL": kernel, "HWSIM_CACHE": "", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", RUN, str(left)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [line.split(maxsplit=4) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from torch import nn

    found = tmp_path_factory.mktemp("kernel")
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 1))
    hwsim.assign_bits(hwsim.extract(model, torch.zeros(1, 2, 6, 6)), "W8A8").save(found / "net.json")
    return found


@pytest.fixture(scope="module")
def whole(folder: Path) -> list[list[str]]:
    """What the search answers with all the memory there is."""
    return results(folder, "")


def test_numbers_that_python_and_c_share_stand_in_the_header_alone() -> None:
    assert ENUMS["LEVELS"] == ENUMS["ARRAYS"] + 1
    assert [ENUMS[name] for name in ("COST", "ENERGY", "TIME", "MIXED")] == [0, 1, 2, 3]
    assert enums("enum { A = -1, B, /* C = 7, */ D = 2 * 3 + B };") == {"A": -1, "B": 0, "D": 6}
    with pytest.raises(ValueError, match="no constant expression"):
        enums("enum { A = sizeof(int) };")
    texts = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "hwsim/search").rglob("*.py"))
    assert "as in kernel/state.h" not in texts


@pytest.mark.skipif(not compiler(), reason="no C compiler on this machine")
def test_the_compiled_kernel_says_the_limits_that_python_reads() -> None:
    library = native.compiled()
    assert library is not None
    assert native.enumerators(library) == ENUMS


@pytest.mark.skipif(not compiler(), reason="no C compiler on this machine")
def test_a_kernel_of_other_limits_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "ENUMS", {**ENUMS, "CROSSINGS": ENUMS["CROSSINGS"] + 1})
    with pytest.raises(OSError, match="disagree on limits or codes"):
        native.declared(ctypes.CDLL(str(next(KERNEL.files()))))


@pytest.mark.long
@pytest.mark.skipif(not compiler(), reason="no C compiler on this machine")
def test_a_debug_build_agrees_and_its_asserts_hold(folder: Path, whole: list[list[str]]) -> None:
    assert results(folder, "debug") == whole


@pytest.mark.skipif(not compiler(), reason="no C compiler on this machine")
@pytest.mark.parametrize("left", [0, 14])
def test_without_memory_the_answer_is_the_quick_search_and_says_so(
    folder: Path, whole: list[list[str]], left: int
) -> None:
    found = results(folder, "debug", left)
    assert [row[:2] for row in found] == [row[:2] for row in whole]
    for some, full in zip(found, whole, strict=True):
        assert float(some[3]) <= float(some[2])
        assert float(some[2]) >= float(full[2]) * (1 - 1e-9)
    reached = [row[4].startswith("every legal mapping") for row in found]
    assert all(reached[i] or "more memory than there is" in row[4] for i, row in enumerate(found))
    assert not all(reached)


@pytest.mark.skipif(not compiler(), reason="no C compiler on this machine")
def test_the_debug_build_is_another_file() -> None:
    path = next(DEBUG_KERNEL.files())
    assert path != next(KERNEL.files())
    assert hasattr(ctypes.CDLL(str(path)), "mapper_allow")
