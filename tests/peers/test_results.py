"""What docs/coming_from.md says about the tables behind it."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.peers import page, round_trip, timeloop
from experiments.table import Row, read

FOLDER = Path(__file__).resolve().parents[2] / "results" / "peers"
TEXT = " ".join((FOLDER.parents[1] / "docs" / "coming_from.md").read_text(encoding="utf-8").split())


def rows(name: str) -> list[Row]:
    return read(FOLDER / f"{name}.csv")


def test_our_least_latency_is_never_above_zigzags() -> None:
    found = rows("zigzag")
    assert len(found) == 15
    assert all(float(row["cycles"]) <= float(row["its_cycles"]) for row in found)


def test_energies_above_zigzags_are_stated() -> None:
    above = [row for row in rows("zigzag") if float(row["energy_ratio"]) > 1]
    assert [(row["machine"], row["question"]) for row in above] == [("edge_tpu_like", "plain")] * 2
    more = [f"{100 * (float(row['energy_ratio']) - 1):.1f}" for row in above]
    assert f"In two rows our energy is above its print, by {' and '.join(more)} %" in TEXT


def test_its_own_mappings_counted_exactly_cost_no_less_than_ours() -> None:
    ours = {page.name_of(row): float(row["energy_pj"]) for row in rows("zigzag")}
    beside = rows("zigzag_beside")
    assert len(beside) == 15
    pinned = {page.name_of(row): float(row["its_energy_pj"]) for row in rows("zigzag") if row["machine"] != "gemm_l1"}
    for row in beside:
        name = page.name_of(row)
        assert float(row["energy_pj"]) == pytest.approx(pinned.get(name, float(row["energy_pj"])), rel=1e-6)
    assert all(float(row["counted_pj"]) >= ours[page.name_of(row)] for row in beside)


def test_times_are_stated() -> None:
    its = [float(row["cpu_s"]) for row in rows("zigzag_beside") if "resnet18" in row["workload"]]
    ours = [float(row["seconds"]) for row in rows("zigzag") if "resnet18" in row["workload"]]
    assert f"{min(its):.0f} to {max(its):.0f} CPU s, us {min(ours):.0f} to {max(ours):.0f}" in TEXT


def test_terms_add_up_to_the_bills() -> None:
    bills = {page.name_of(row): row for row in rows("zigzag_beside")}
    for key, column in (("energy_pj", "its_pj"), ("counted_pj", "counted_pj")):
        for name, bill in bills.items():
            terms = [float(row[column]) for row in rows("zigzag_terms") if page.name_of(row) == name]
            assert sum(terms) == pytest.approx(float(bill[key]), rel=1e-6)


def test_inputs_of_truncated_tiles_are_the_whole_difference_of_their_term() -> None:
    """Ten layers with 14 or 7 outputs on 4 elements: 72 inputs a step there, 98 in truth; words of 64 bits."""
    (row,) = [row for row in rows("zigzag_terms") if page.name_of(row) == ("edge_tpu_like", "plain", "resnet18.yaml")
              and (row["memory"], row["operand"]) == ("sram_2MB", "input")]  # fmt: skip
    steps = 6 * 147_456 + 4 * 73_728
    assert f"{steps * (98 - 72):,} inputs" in TEXT
    missing = steps * (98 - 72) * 8 / 64 * 13.005
    assert float(row["counted_pj"]) - float(row["its_pj"]) == pytest.approx(missing, rel=1e-4)
    assert f"{missing / 1e6:.2f} uJ" in TEXT


def test_what_shared_registers_leave_out_is_stated() -> None:
    most: dict[str, tuple[float, float]] = {}
    for row in rows("zigzag_beside"):
        unpaid, energy = float(row["unpaid_pj"]), float(row["energy_pj"])
        most[row["machine"]] = max(most.get(row["machine"], (0.0, 0.0)), (unpaid / energy, unpaid))
    assert {machine for machine, (share, _) in most.items() if share} == {"aimc", "edge_tpu_like"}
    (share, unpaid), (_, small) = most["edge_tpu_like"], most["aimc"]
    assert f"at most {unpaid / 1e6:.2f} uJ of 1,784 ({100 * share:.2f} %)" in TEXT
    assert f"{small / 1e6:.2f} uJ of 4,265" in TEXT


def test_turns_of_maestros_directives_are_our_steps() -> None:
    found = rows("maestro")
    assert len(found) == 3
    assert all(row["turns"] == row["steps"] for row in found)


def test_tables_of_accelergy_are_taken_as_they_are() -> None:
    prices = {(row["design"], row["component"]): float(row["its_pj"]) for row in rows("accelergy")}
    assert prices["eyeriss_like", "shared_glb"] == 18.183829  # its summary, read
    assert prices["eyeriss_like", "ifmap_spad"] == 0.202442
    (spad,) = [row for row in rows("accelergy") if row["component"] == "weights_spad"]
    assert float(spad["ratio"]) == pytest.approx(1 / 4, abs=0.01)
    assert "`weights_spad` differs by a factor of four" in TEXT


def test_timeloops_cycles_are_equal_and_unequal_levels_are_named() -> None:
    found = rows("timeloop")
    assert len({row["run"] for row in found}) == 9
    assert all(row["cycles"] == row["its_cycles"] for row in found)
    unequal = {(row["run"], row["level"]) for row in found if row["accesses"] != row["its_accesses"]}
    assert unequal == set(timeloop.NAMED)
    for row in found:
        if row["run"] != "eyeriss_like":
            assert row["fj_per_compute"] == row["its_fj_per_compute"]


def test_drains_of_the_example_are_as_stated() -> None:
    (row,) = [row for row in rows("timeloop") if (row["run"], row["level"]) == ("eyeriss_like", "psum_spad")]
    assert f"{int(row['exact_accesses']) - int(row['accesses']):,} reads" in TEXT


def test_every_layer_of_every_topology_equals_its_closed_form() -> None:
    found = rows("scalesim")
    assert len(found) == 18
    assert all(row["layers"] == row["equal"] for row in found)
    assert all(int(row["cycles"]) == int(row["printed_cycles"]) + 1 for row in rows("scalesim_runs"))


@pytest.mark.parametrize("row", rows("round_trip"), ids=lambda row: row["spec"])
def test_what_differs_after_a_round_trip_is_named(row: Row) -> None:
    assert row["nests"] == "0" or (int(row["said"]) > 0 and round_trip.explained(row))


def test_a_bound_without_locality_is_no_gap_with_it() -> None:
    assert {page.gap(row) for row in rows("zigzag") if row["question"] != "plain"} == {"-"}
