"""The closest published system's 84 recorded mappings, re-priced under its own conventions, against its own report.

Its numbers are recorded results of another tool (experiments/data); nothing here computes an expected value with ours.
"""

from __future__ import annotations

import pytest

from experiments.validation.rows import read_table
from experiments.validation.synergy import (
    Repriced,
    all_repriced,
    counted,
    machine,
    recorded_entries,
    recorded_mapping,
    their_energy_pj,
)
from hwsim.nest.mapping import Hold, Spatial, Temporal
from hwsim.pricing.layer import price
from hwsim.search.layer import search

COMPONENTS = {
    "mac": "mac_uJ",
    "psum_spad": "psum_spad_uJ",
    "weights_spad": "weights_spad_uJ",
    "ifmap_spad": "ifmap_spad_uJ",
    "shared_glb": "shared_glb_uJ",
    "dram": "DRAM_uJ",
}


@pytest.fixture(scope="module")
def repriced() -> tuple[Repriced, ...]:
    return all_repriced()


def test_all_recorded_mappings_are_read_and_legal(repriced: tuple[Repriced, ...]) -> None:
    assert len(repriced) == len(read_table("mapping_quantization_eyeriss.csv")) == 84
    assert sorted({int(r.recorded["w_bits"]) for r in repriced}) == [2, 4, 8]
    for r in repriced:
        used = 1
        for node in r.mapping.loops:
            used *= node.factor if isinstance(node, Spatial) else 1
        assert used / 168 == pytest.approx(float(r.recorded["utilization"]), abs=1e-6), r.key


def test_cycles_are_exact(repriced: tuple[Repriced, ...]) -> None:
    assert [r.cycles for r in repriced] == [int(r.recorded["cycles"]) for r in repriced]


def test_counts_agree_within_one_word_per_entry(repriced: tuple[Repriced, ...]) -> None:
    recorded = recorded_entries()
    compared = 0
    for r in repriced:
        if r.recorded["w_bits"] not in ("2", "8"):
            continue  # counts were recorded for these two
        for entry in r.entries:
            *theirs, instances = recorded[r.recorded["w_bits"], r.recorded["layer"], entry.level, entry.operand]
            ours = entry.in_words(r.layer)
            assert all(abs(a - b) <= 1 for a, b in zip(ours, theirs, strict=True)), (r.key, entry, theirs)
            assert instances in (1, round(float(r.recorded["utilization"]) * 168)), r.key
            compared += 1
    assert compared == len(recorded) == 448


def test_dram_words_of_all_mappings_agree(repriced: tuple[Repriced, ...]) -> None:
    """At most one word per operand: each entry is rounded up once."""
    for r in repriced:
        ours = sum(sum(e.in_words(r.layer)[:3]) for e in r.entries if e.level == "dram")
        assert abs(ours - int(r.recorded["dram_words"])) <= 3, r.key


def test_energy_agrees_within_half_a_percent(repriced: tuple[Repriced, ...]) -> None:
    for r in repriced:
        assert r.energy_uj == pytest.approx(float(r.recorded["energy_uJ"]), rel=0.005), r.key


def test_every_component_agrees_within_half_a_percent(repriced: tuple[Repriced, ...]) -> None:
    """No error hides another: each memory and the MACs agree on their own."""
    for r in repriced:
        energy = their_energy_pj(r.layer, list(r.entries))
        for component, column in COMPONENTS.items():
            assert energy[component] / 1e6 == pytest.approx(float(r.recorded[column]), rel=0.005), (r.key, component)


def test_most_of_its_narrow_mappings_need_more_than_the_machine_has_with_real_accumulators(
    repriced: tuple[Repriced, ...],
) -> None:
    """Sums of 16 instead of 8 bits: the recorded tile overflows its scratchpad in 19 of 28 mappings at W2, 7 at W8."""
    for weight_bits, expected in (("2", 19), ("8", 7)):
        mine = [r for r in repriced if r.recorded["w_bits"] == weight_bits]
        broken = [r for r in mine if any(p.startswith("psum_spad") for p in r.problems(accumulator_bits=16))]
        assert len(broken) == expected
        assert not any(r.problems(accumulator_bits=8) for r in mine)


def test_the_notation_is_read_outermost_first() -> None:
    mapping = recorded_mapping("DRAM/t(Q8 C2) > shared_glb/s(X:Q14) > DummyBuffer/s(Y:M2) > weights_spad/t(R3)")
    loops = [node for node in mapping.nodes if not isinstance(node, Hold)]
    assert loops == [
        Temporal("Q", 8),
        Temporal("C", 2),
        Spatial("Q", 14, "pe", "columns"),
        Spatial("K", 2, "pe", "rows"),
        Temporal("R", 3),
    ]
    with pytest.raises(ValueError, match="expected LEVEL"):
        recorded_mapping("DRAM Q8")


@pytest.mark.parametrize("key", ["W8 layer 4", "W8 layer 26", "W2 layer 12"])
def test_our_proven_search_is_never_above_the_recorded_mapping(key: str) -> None:
    """Rows where a quick search was; all 84 are in `python -m experiments.validate --only synergy_search`."""
    recorded = next(r for r in all_repriced() if r.key == key)
    theirs = price(recorded.layer, counted(recorded.layer, recorded.mapping), machine())
    found = search(recorded.layer, machine(), "edp", effort="perfect")
    assert found.certificate.gap < 1e-4
    assert found.certificate.value <= theirs.total_energy_pj * theirs.latency_cycles
