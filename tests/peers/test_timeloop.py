"""Timeloop's own examples: accesses, energies and cycles equal to what it printed, through readers of its files."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from hwsim.machine.parts import Accelerator
from hwsim.nest.count import count_accesses
from hwsim.nest.legal import validate
from hwsim.nest.mapping import Hold, Mapping, Spatial, Temporal
from hwsim.network.layer import Layer, Loops
from hwsim.peers.timeloop.accounting import Account, Rules, accesses, box_fills
from hwsim.peers.timeloop.read import Timeloop, read_timeloop

EXERCISES = {
    "00": "exercises/00-model-conv1d-1level/ref-output",
    "01_os": "exercises/01-model-conv1d-2level/ref-output/os",
    "01_ws": "exercises/01-model-conv1d-2level/ref-output/ws",
    "02_no_tiling": "exercises/02-model-conv1d+oc-2level/ref-output/no-tiling",
    "02_tiling": "exercises/02-model-conv1d+oc-2level/ref-output/tiling",
    "04_cp": "exercises/04-model-conv1d+oc-3levelspatial/ref-output/cp",
    "04_kp": "exercises/04-model-conv1d+oc-3levelspatial/ref-output/kp",
    "eyeriss_like": "example_designs/eyeriss_like/ref_outputs/default_problem",
    "simple_weight_stationary": "example_designs/simple_weight_stationary/ref_outputs/default_problem",
}
# The one row that the rule of its source does not give: DRAM input reads (= fills of the buffer).
PRINTED, BY_ITS_RULE, EXACT = 157_296, 156_600, 156_579


@dataclass(frozen=True)
class Reference:
    """A recorded run: what was read, what it printed."""

    read: Timeloop
    machine: Accelerator
    layer: Layer
    nest: Mapping
    account: Account
    row: dict[str, str]

    @property
    def scalars(self) -> dict[str, int]:
        return {level: int(count) for level, count in json.loads(self.row["scalar_accesses_by_level"]).items()}

    @property
    def energies(self) -> dict[str, str]:
        return json.loads(self.row["energy_per_compute_by_component"])


def reference(folder: Path, name: str) -> Reference:
    place = folder / "timeloop" / EXERCISES[name]
    files = [path for path in place.iterdir() if path.suffix == ".yaml" and "flattened" not in path.name]
    found = read_timeloop(sorted(files))
    machine = found.machine()
    assert found.layer is not None
    assert found.nest is not None
    with (folder / "timeloop" / "reference.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["exercise"].endswith(EXERCISES[name].split("/", 1)[1])]
    assert len(rows) == 1
    return Reference(found, machine, found.layer, found.nest, found.accounted(machine), rows[0])


@pytest.mark.parametrize("name", EXERCISES)
def test_recorded_mappings_are_legal_here(peers_dir: Path, name: str) -> None:
    ref = reference(peers_dir, name)
    assert validate(ref.nest, ref.layer, ref.machine) == []


@pytest.mark.parametrize("name", EXERCISES)
def test_cycles_and_utilization_equal_timeloops(peers_dir: Path, name: str) -> None:
    ref = reference(peers_dir, name)
    assert ref.account.cycles == int(ref.row["cycles"])
    assert f"{ref.account.utilization:.2%}" == ref.row["utilization"]


@pytest.mark.parametrize("name", [name for name in EXERCISES if name != "eyeriss_like"])
def test_accesses_of_every_level_equal_timeloops(peers_dir: Path, name: str) -> None:
    ref = reference(peers_dir, name)
    assert {level: ref.account.scalars(level) for level in ref.scalars} == ref.scalars


@pytest.mark.parametrize("name", [name for name in EXERCISES if name != "eyeriss_like"])
def test_energy_of_every_level_equals_timeloops_to_its_last_digit(peers_dir: Path, name: str) -> None:
    ref = reference(peers_dir, name)
    computes = int(ref.row["computes"])
    mac = ref.read.chain.compute.name if ref.read.chain else ""
    ours = {("mac" if level == mac else level): value for level, value in ref.energies.items()}
    for level, printed in ours.items():
        mine = ref.account.total_pj if level == "Total" else ref.account.energy_pj[level]
        assert f"{mine / computes * 1000:.2f}" == printed, level


def test_eyeriss_differs_in_one_row_by_an_exact_count(peers_dir: Path) -> None:
    ref = reference(peers_dir, "eyeriss_like")
    fills = next(a.fills for a in ref.account.accesses if (a.memory, a.operand) == ("shared_glb", "input"))
    assert fills == BY_ITS_RULE
    missing = PRINTED - BY_ITS_RULE
    for level, count in ref.scalars.items():
        differs = missing if level in ("shared_glb", "DRAM") else 0
        assert count - ref.account.scalars(level) == differs, level
    exact = count_accesses(ref.layer, ref.nest, ref.machine)
    assert exact.writes("shared_glb", "input") == EXACT
    # 16 tiles of 3 x 29 x 113 without any halo is what was printed.
    assert PRINTED == 16 * 3 * 29 * 113


@pytest.mark.parametrize(("name", "level", "theirs", "ours"), [
    ("04_cp", "RegisterFile", 18_432, 4_544), ("04_kp", "RegisterFile", 18_432, 11_264),
    ("eyeriss_like", "shared_glb", 157_296, 156_579),
])  # fmt: skip
def test_what_the_box_rule_adds_to_exact_counts(peers_dir: Path, name: str, level: str, theirs: int, ours: int) -> None:
    ref = reference(peers_dir, name)
    exact = accesses(ref.layer, ref.nest, ref.machine, Rules(boxes=False))
    boxed = accesses(ref.layer, ref.nest, ref.machine)
    fills = [next(a.fills for a in found if (a.memory, a.operand) == (level, "input")) for found in (exact, boxed)]
    assert fills[0] == ours
    assert fills[1] == (theirs if name != "eyeriss_like" else BY_ITS_RULE)


def test_the_worked_example_in_whole_numbers(tmp_path: Path) -> None:
    """One output row of four filters over a window of stride 2: every count told by hand."""
    (tmp_path / "all.yaml").write_text(WORKED)
    found = read_timeloop([tmp_path / "all.yaml"])
    machine = found.machine()
    assert found.layer is not None
    assert found.layer.loops == Loops(K=4, R=3, P=6)
    assert found.layer.stride == (2, 1)
    assert found.nest == Mapping((
        Hold("Main", ("weight", "input", "output")), Temporal("P", 3), Spatial("K", 4, "PE", "meshX"),
        Hold("Buf", ("weight", "input", "output")), Temporal("R", 3), Temporal("P", 2),
    ))  # fmt: skip
    account = found.accounted(machine)
    by_name = {(a.memory, a.operand): (a.reads, a.fills, a.updates) for a in account.accesses}
    assert by_name == {
        ("Main", "weight"): (12, 0, 0), ("Main", "input"): (13, 0, 0), ("Main", "output"): (0, 0, 24),
        ("Buf", "weight"): (72, 12, 0), ("Buf", "input"): (72, 52, 0), ("Buf", "output"): (48, 0, 72),
    }  # fmt: skip
    assert account.cycles == 18
    assert account.utilization == 1.0
    assert account.total_pj == pytest.approx(117.8)


def test_a_window_with_holes_is_a_box_there(tmp_path: Path) -> None:
    """The same without a filter: six points for us, three boxes of three for Timeloop."""
    text = WORKED.replace("R: 3", "R: 1").replace("R=3 P=2", "R=1 P=2")
    (tmp_path / "all.yaml").write_text(text)
    found = read_timeloop([tmp_path / "all.yaml"])
    assert found.layer is not None
    assert found.nest is not None
    place = found.nest.hold_index("Buf", "input")
    assert place is not None
    assert box_fills(found.layer, found.nest, place) == 9
    assert count_accesses(found.layer, found.nest, found.machine()).reads("Main", "input") == 6


WORKED = """
architecture:
  version: 0.4
  nodes:
  - !Container
    name: system
    attributes: {technology: "40nm", global_cycle_seconds: 1e-9}
  - !Component {name: Main, class: DRAM, attributes: {width: 8, datawidth: 8}}
  - !Container {name: PE, spatial: {meshX: 4}}
  - !Component {name: Buf, class: regfile, attributes: {depth: 64, width: 8, datawidth: 8}}
  - !Component {name: MAC, class: intmac, attributes: {width: 8}}
problem:
  shape:
    name: example
    dimensions: [K, R, P]
    coefficients: [{name: str, default: 1}]
    data_spaces:
    - {name: Weights, projection: [[[K]], [[R]]]}
    - {name: Inputs, projection: [[[R], [P, str]]]}
    - {name: Outputs, projection: [[[K]], [[P]]], read_write: true}
  instance: {K: 4, R: 3, P: 6, str: 2}
mapping:
- {target: Main, type: temporal, factors: P=3}
- {target: PE, type: spatial, factors: K=4}
- {target: Buf, type: temporal, factors: R=3 P=2, permutation: PRK}
ERT:
  version: 0.4
  tables:
  - {name: system.Main, actions: [{name: read, energy: 1}, {name: write, energy: 1}, {name: update, energy: 1}]}
  - name: system.Buf[1..4]
    actions: [{name: read, energy: 0.1}, {name: write, energy: 0.1}, {name: update, energy: 0.1}]
  - {name: "system.MAC[1..4]", actions: [{name: compute, energy: 0.5}]}
"""
