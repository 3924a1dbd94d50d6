"""Batches in explorations: bits and machines are priced in the passes that cost least."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from hwsim.explore.bits.allocate import front
from hwsim.explore.bits.bill import bit_problem, bit_problems
from hwsim.explore.bits.choices import Freedom
from hwsim.explore.bits.problem import InfeasibleBudget
from hwsim.explore.bits.solve import solve_bits
from hwsim.explore.machines.space_reader import read_space
from hwsim.explore.machines.trial import evaluate
from tests.search.test_passes import MAP_BITS, block, machine

FREE = Freedom((4, 8), (8,), "free")
BUFFER = "hierarchy.global_buffer.size_bits"


@pytest.fixture(autouse=True)
def no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HWSIM_CACHE", "")


def test_least_energy_per_image_never_rises_with_the_batch() -> None:
    accelerator, found = machine("eyeriss_v1", maps=5), dict[int, float]()
    for images in (1, 2, 4):
        (point,) = solve_bits(block(images), accelerator, FREE, None).points
        assert point.exact.cost.totals.macs == block(images).macs
        assert len(bit_problems(block(images), accelerator, FREE)) == {1: 1, 2: 2, 4: 3}[images]
        found[images] = point.solution.values["energy_pj"]
    for small, large in ((1, 2), (1, 4), (2, 4)):
        assert found[large] / large <= found[small] / small * (1 + 1e-12)


def test_a_batch_front_holds_no_point_that_another_way_to_run_it_beats() -> None:
    accelerator = machine("eyeriss_v1", maps=5)
    points = solve_bits(block(4), accelerator, FREE, None, minimise="energy", against="weights").points
    mine = [(point.solution.values["weight_bits"], point.solution.values["energy_pj"]) for point in points]
    assert mine == sorted(mine)
    assert [energy for _, energy in mine] == sorted((energy for _, energy in mine), reverse=True)
    for made in bit_problems(block(4), accelerator, FREE, on_chip=True):
        for other in front(made.problem, "energy_pj", "weight_bits", {}):
            bits, energy = other.values["weight_bits"], other.values["energy_pj"]
            assert any(w <= bits and e <= energy * (1 + 1e-12) for w, e in mine)


def test_a_budget_that_only_passes_meet_is_met_and_one_that_none_meets_is_named() -> None:
    accelerator = machine("eyeriss_v1", maps=5)
    once = bit_problem(block(4), accelerator, FREE, on_chip=True)
    least = min(s.values["energy_pj"] for s in front(once.problem, "energy_pj", "weight_bits", {}))
    (best,) = solve_bits(block(4), accelerator, FREE, None).points
    found = best.solution.values["energy_pj"]
    assert found < least  # passes pay here
    (point,) = solve_bits(block(4), accelerator, FREE, None, minimise="weights", budgets={"energy_pj": found}).points
    assert point.problem.times > 1
    assert point.solution.values["energy_pj"] <= found
    with pytest.raises(InfeasibleBudget):
        solve_bits(block(4), accelerator, FREE, None, minimise="weights", budgets={"energy_pj": found / 2})


@pytest.mark.parametrize("changes", [{}, {"bits": {"weights": "4,8", "activations": "8"}}], ids=["W8A8", "solved"])
def test_a_machine_runs_a_batch_in_its_best_passes(tmp_path: Path, changes: dict[str, Any]) -> None:
    spec = "simba" if not changes else "bit_fusion"
    search = {BUFFER: [5 * MAP_BITS]} if not changes else {"hierarchy.input_buffer.size_bits": [65536]}
    found: dict[int, float] = {}
    for images in (1, 2, 4):
        block(images).save(tmp_path / "net.json")
        block(images).save(tmp_path / "network.json")
        said = {"model": str(tmp_path / "net.json"), "accelerator": spec, "bits": "W8A8", "search": search, **changes}
        (tmp_path / f"space{images}.yaml").write_text(yaml.safe_dump(said))
        folder = tmp_path / f"networks{images}"
        folder.mkdir()
        block(images).save(folder / "network.json")
        space = read_space(tmp_path / f"space{images}.yaml")
        (record,) = evaluate(space, folder, [(0, {key: values[0] for key, values in search.items()})])
        assert record["status"] == "ok", record["why"]
        found[images] = record["values"]["energy_pj"]
    for small, large in ((1, 2), (1, 4), (2, 4)):
        assert found[large] / large <= found[small] / small * (1 + 1e-12)
