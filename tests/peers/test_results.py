"""What docs/coming_from.md says about the tables behind it."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.peers import page, round_trip, timeloop
from experiments.table import Row, read

FOLDER = Path(__file__).resolve().parents[2] / "results" / "peers"
TEXT = (FOLDER.parents[1] / "docs" / "coming_from.md").read_text(encoding="utf-8")


def rows(name: str) -> list[Row]:
    return read(FOLDER / f"{name}.csv")


def test_our_least_latency_is_never_above_zigzags() -> None:
    found = rows("zigzag")
    assert len(found) == 15
    assert all(float(row["cycles"]) <= float(row["its_cycles"]) for row in found)


def test_energies_above_zigzags_are_stated() -> None:
    above = [row for row in rows("zigzag") if float(row["energy_ratio"]) > 1]
    assert len(above) == 6
    assert "In six rows ours is above" in TEXT
    worst = max(100 * (float(row["energy_ratio"]) - 1) for row in above)
    assert f"by at most {worst:.1f} %" in TEXT
    least = [100 * (float(row["least_energy_pj"]) / float(row["its_energy_pj"]) - 1) for row in above]
    assert f"by {min(least):.1f} to {max(least):.1f} %" in TEXT
    saved = [100 * (1 - float(row["cycles_ratio"])) for row in above]
    assert f"{min(saved):.0f} to {max(saved):.0f} % below" in TEXT


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
    assert {page.gap(row) for row in rows("zigzag") if row["question"] == "data locality"} == {"-"}
