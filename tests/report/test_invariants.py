"""What holds in every report, whatever the machine, the network, the widths and the batch.

The plain run looks at two machines and a small network; `pytest -m slow tests/report/test_invariants.py` at them all.
"""

from __future__ import annotations

import itertools
import json
import math
from functools import cache
from pathlib import Path

import jsonschema
import pytest

from hwsim.errors import CapabilityError, InfeasibleMapping
from hwsim.frontends.argument import load_model_argument
from hwsim.machine.load import load_accelerator, shipped_specs
from hwsim.machine.parts import Accelerator
from hwsim.nest.text import dump_mappings
from hwsim.network.workload import Workload
from hwsim.report.evaluation import Request, evaluate_workload
from hwsim.report.report import SCHEMA_FILE, Report
from hwsim.search.objective import Objective
from tests.explore.test_bill import residual

NETWORKS = {
    "resnet8": (3, 32, 32), "ds_cnn": (1, 49, 10), "anomaly_autoencoder": (640,), "mobilenet_v1_025": (3, 96, 96),
    "silu_se_net": (3, 32, 32),
}  # fmt: skip
WIDTHS = ("W8A8", "W7A7", "W6A6", "W5A5", "W4A4", "W3A3", "W2A2", "W1A1")
BESIDE = ("W3A5",)
BATCHES = (1, 2, 5)
OBJECTIVES: tuple[Objective, ...] = ("energy", "latency")
RELATIVE = 1e-9  # sums of floats in another order


@cache
def network(name: str, batch: int = 1) -> Workload:
    return load_model_argument(name, (batch, *NETWORKS[name]))


def report(net: Workload, machine: Accelerator, bits: str, objective: Objective = "energy", mapping: Path | None = None
           ) -> Report | None:  # fmt: skip
    """A quick report; None where the machine cannot run these widths or this network, which it says by name."""
    request = Request(objective=objective, bits=bits, effort="quick", allow_overflow=True, mapping=mapping)
    try:
        return evaluate_workload(net, machine, request)
    except (CapabilityError, InfeasibleMapping):
        return None


def check_alone(found: Report) -> None:
    """Parts sum, the schema holds, every number is finite, no bound lies above its value."""
    data = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    jsonschema.validate(data, json.loads(SCHEMA_FILE.read_text()))
    totals = found.totals
    near = {"rel": RELATIVE, "abs": 1e-6}
    assert sum(data["energy_pj_by_component"].values()) == pytest.approx(totals.energy_pj, **near)
    assert sum(layer.energy_pj for layer in found.layers.values()) == pytest.approx(totals.energy_pj, **near)
    for layer in found.layers.values():
        assert sum(layer.cost.energy_pj.values()) == pytest.approx(layer.energy_pj, **near)
    assert sum(layer.latency_cycles for layer in found.layers.values()) == totals.latency_cycles
    assert totals.macs == found.workload.macs
    assert totals.edp_pj_s == pytest.approx(totals.energy_pj * totals.latency_s, **near)
    assert 0 < totals.latency_s < math.inf
    for name, item in found.found.items():
        said = item.certificate
        highest = said.value * (1 + RELATIVE)
        assert 0 <= said.lower_bound <= highest, name
        assert 0 <= said.any_tiles_bound <= highest, name


def check_ladder(net: Workload, machine: Accelerator, folder: Path) -> int:
    """Fewer bits never cost more: of each objective when mapped anew, of everything with the mappings of 8 bits."""
    checked = 0
    for objective in OBJECTIVES:
        found = [r for bits in WIDTHS if (r := report(net, machine, bits, objective)) is not None]
        for one in found:
            check_alone(one)
        values = [r.totals.energy_pj if objective == "energy" else r.totals.latency_cycles for r in found]
        for wide, narrow in itertools.pairwise(values):
            assert narrow <= wide * (1 + RELATIVE), (machine.name, net.name, objective, values)
        checked += len(found)
        if not found:
            continue
        path = folder / f"{objective}.yaml"
        path.write_text(dump_mappings({name: item.mapping for name, item in found[0].found.items()}))
        kept = [r for bits in WIDTHS if (r := report(net, machine, bits, objective, path)) is not None]
        for wide, narrow in itertools.pairwise([r.totals for r in kept]):
            assert narrow.energy_pj <= wide.energy_pj * (1 + RELATIVE)
            assert narrow.traffic_bits <= wide.traffic_bits
            assert narrow.latency_cycles <= wide.latency_cycles
        checked += len(kept)
    return checked


def check_batches(name: str, machine: Accelerator) -> int:
    """A larger batch costs no less of the objective."""
    checked = 0
    for objective in OBJECTIVES:
        made = [r for batch in BATCHES if (r := report(network(name, batch), machine, "W8A8", objective)) is not None]
        values = [r.totals.energy_pj if objective == "energy" else r.totals.latency_cycles for r in made]
        for small, large in itertools.pairwise(values):
            assert small <= large * (1 + RELATIVE), (machine.name, name, objective, values)
        for one in made:
            check_alone(one)
        checked += len(made)
    return checked


def check(spec: str, name: str, folder: Path) -> int:
    """All of it for one machine and network; how many reports were looked at."""
    machine = load_accelerator(spec)
    beside = [r for bits in BESIDE if (r := report(network(name), machine, bits)) is not None]
    for one in beside:
        check_alone(one)
    return len(beside) + check_ladder(network(name), machine, folder) + check_batches(name, machine)


@pytest.mark.long
@pytest.mark.parametrize("spec", ["eyeriss_v2", "bit_fusion"])
def test_reports_hold_together(spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HWSIM_CACHE", "")
    assert check_ladder(residual(), load_accelerator(spec), tmp_path) > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("spec", sorted(shipped_specs()))
def test_all_reports_hold_together(spec: str, name: str, tmp_path: Path) -> None:
    check(spec, name, tmp_path)
