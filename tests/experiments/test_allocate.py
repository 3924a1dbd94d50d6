"""The committed allocations cost what they say, and no more than the one width that they are compared with."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from experiments.allocate import QUICK, energy_pj, main
from experiments.jobs import ALLOCATIONS, Job, allocation
from experiments.pricing import workload_of
from hwsim.machine.load import load_accelerator
from hwsim.report.evaluation import evaluate_workload


@pytest.mark.parametrize("name", ["resnet8-bit_fusion-w4a4"])
def test_a_committed_allocation_costs_no_more_than_its_one_width(name: str) -> None:
    network, spec, bits = name.split("-")
    said = re.search(r"([0-9.]+) uJ \(W\dA\d: ([0-9.]+) uJ\)", (ALLOCATIONS / f"{name}.yaml").read_text())
    assert said is not None
    machine = load_accelerator(spec)
    found = energy_pj(network, allocation(name), machine)
    uniform = evaluate_workload(
        workload_of(Job(network, (), bits=bits.upper(), config="1")), machine, QUICK
    ).cost.totals.energy_pj
    assert found <= uniform
    assert [f"{energy * 1e-6:.2f}" for energy in (found, uniform)] == [said[1], said[2]]


def test_a_network_without_sensitivities_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    missing = tmp_path / "none.json"
    assert main(["resnet8", "bit_fusion", "W4A4", "--sensitivities", str(missing), "--out", str(tmp_path)]) == 2
    assert "none.json: cannot be read" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
