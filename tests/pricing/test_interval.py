"""Intervals: what one table feeds is wrong together, what has other origins is independent, and nothing is drawn."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hwsim.errors import SpecError
from hwsim.evaluate import main
from hwsim.machine.energy_laws import DRAM_SPREAD, SYSTEM_SPREAD, mac_pj
from hwsim.machine.load import load_accelerator, shipped_specs, spec_folder
from hwsim.machine.parts import Spread
from hwsim.pricing.interval import TimeInterval, energy_interval, exact_time, time_origin

BILL = (("dram", 10.0), ("buffer", 6.0), ("spad", 3.0), ("mac", 2.0), ("offset", 1.0), ("free", 0.0))


def test_one_origin_adds_and_two_add_as_squares() -> None:
    """By hand: buffer and spad rise by 6 + 3 together, the DRAM by 10: 22 + sqrt(9^2 + 10^2)."""
    spreads = (Spread("dram", 2.0, "DRAM"), Spread("buffer", 2.0, "SRAM"), Spread("spad", 2.0, "SRAM"))
    found = energy_interval(BILL, spreads)
    assert found.energy_pj == 22
    assert found.high_pj == pytest.approx(22 + (9**2 + 10**2) ** 0.5)
    assert found.low_pj == pytest.approx(22 - (4.5**2 + 5**2) ** 0.5)
    assert [(origin.name, origin.components) for origin in found.origins] == [
        ("DRAM", ("dram",)),
        ("SRAM", ("buffer", "spad")),
    ]
    apart = energy_interval(BILL, (*spreads[:2], Spread("spad", 2.0, "another")))
    assert found.low_pj < apart.low_pj <= 22 <= apart.high_pj < found.high_pj  # independent errors cancel in part


def test_additions_for_offsets_are_the_vector_units_and_published_prices_are_exact() -> None:
    found = energy_interval(BILL, (Spread("vector", 3.0, "logic"), Spread("free", 9.0, "nothing")))
    assert (found.low_pj, found.high_pj) == (pytest.approx(22 - 2 / 3), pytest.approx(24))
    exact = energy_interval(BILL, ())
    assert (exact.low_pj, exact.high_pj, exact.widest) == (22, 22, None)


def test_an_interval_holds_the_energy_and_no_bound_falls_below_zero() -> None:
    for factor in (1.0, 1.3, 10.0, 100.0):
        found = energy_interval(BILL, tuple(Spread(name, factor, "all") for name, _ in BILL))
        assert 0 <= found.low_pj <= 22 <= found.high_pj
        assert found.low_pj == pytest.approx(21 / factor + 1)  # the offset's unit is published
        assert found.high_pj == pytest.approx(21 * factor + 1)


@pytest.mark.parametrize("name", shipped_specs())
def test_every_estimated_part_of_a_shipped_spec_has_a_spread(name: str) -> None:
    machine = load_accelerator(name)
    spread = {s.component: s for s in machine.spreads}
    assert all(s.factor >= 1 for s in machine.spreads)
    assert len(spread) == len(machine.spreads)
    noted = {note.split(":")[0] for note in machine.notes}
    assert {memory.name for memory in machine.memories if memory.name in noted} <= set(spread)
    known = {*(m.name for m in machine.memories), *(a.name for a in machine.arrays), "mac", "vector", "static"}
    assert set(spread) <= known


def test_a_stated_spread_replaces_what_laws_differ(tmp_path: Path) -> None:
    text = (spec_folder() / "gemmini_16x16.yaml").read_text(encoding="utf-8")
    plain = {s.component: s for s in load_accelerator("gemmini_16x16").spreads}
    assert plain["dram"] == Spread("dram", DRAM_SPREAD, "DRAM")
    assert plain["scratchpad"].factor >= SYSTEM_SPREAD
    assert plain["mac"].factor == mac_pj(8, 8, 16)[1]
    assert plain["scratchpad"].origin == plain["accumulator"].origin
    path = tmp_path / "gemmini.yaml"
    old = "source: LPDDR4 8 pJ per bit (Accelergy), estimated:"
    assert text.count(old) == 1
    path.write_text(text.replace(old, f"spread: 1.2, {old}"))
    assert {s.component: s for s in load_accelerator(path).spreads}["dram"] == Spread("dram", 1.2, "dram")
    path.write_text(text.replace("source: Genc", "spread: 2\nsource: Genc").replace("estimated: node 16 nm;", "# "))
    with pytest.raises(SpecError, match=r"spread: expected estimated beside it: which numbers may be off, and why"):
        load_accelerator(path)


def test_the_report_shows_the_interval_and_explain_says_what_matters_most(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["resnet8", "gemmini_16x16", "--bits", "W8A8", "--quick", "--explain"]) == 0
    text = capsys.readouterr().out
    assert "energy 49.29 µJ (34.2 to 78.4)" in text
    assert "what its estimates leave open, widest first:\n    DRAM (dram): 31 µJ, down" in text
    assert main(["resnet8", "gemmini_16x16", "--bits", "W8A8", "--quick", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    interval = report["energy_interval"]
    assert interval["low_pj"] < report["totals"]["energy_pj"] < interval["high_pj"]
    assert interval["origins"][0]["name"] == "DRAM"


def test_what_grows_with_time_is_as_open_as_the_time() -> None:
    """A latency of 4 s between 1 and 10: the energy of idling may fall by 3 / 4 and rise by 6 / 4 of itself."""
    bill = [("mac", 7.0), ("static", 2.0), ("control", 1.0)]
    (origin,) = time_origin(bill, TimeInterval(4.0, 1.0, 10.0, ()))
    assert (origin.components, origin.energy_pj, origin.down_pj, origin.up_pj) == (
        ("static", "control"),
        3.0,
        2.25,
        4.5,
    )
    assert time_origin(bill, exact_time(4.0)) == []
    assert time_origin(bill[:1], TimeInterval(4.0, 1.0, 10.0, ())) == []
