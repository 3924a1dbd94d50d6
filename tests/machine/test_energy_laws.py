"""Energies by law: the published rows come back, sizes left out are met, and a spec says which law it follows."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from experiments import energy_laws as page
from hwsim.errors import SpecError
from hwsim.machine.energy_laws import (
    CACTI_SPREAD,
    DRAM_LAWS,
    QUANTITIES,
    SRAM_LAWS,
    Cell,
    cacti_table,
    interpolated,
    mac_pj,
    sram,
)
from hwsim.machine.load import load_accelerator

ECC = (45, "hp", "r_w", "true")
# Bit Fusion's authors' CACTI rows, 45 nm, 32 b, a read and a write port, ECC: bytes -> pJ. Two more of theirs have a
# third port (512 B, and 4,096 B of 3.98 pJ).
PUBLISHED = {128: 0.6837, 1024: 1.1332, 2048: 1.9032, 4096: 3.4295, 8192: 6.3916, 16384: 9.9817}
SPEC = """\
name: by_law
clock_mhz: 500
node_nm: 28
source: made for this test
hierarchy:
  - {memory: dram, size_bits: unlimited, keeps: [weight, input, output], word_bits: 64, read_energy_pj: auto,
     write_energy_pj: auto, energy_law: lpddr4, source: here}
  - {memory: buffer, size_bits: 1_048_576, keeps: [weight, input, output], word_bits: 64, read_energy_pj: auto,
     write_energy_pj: 9.5, energy_law: cacti_lop, source: here}
  - {array: pes, axes: {rows: {size: 16, dims: [C]}, columns: {size: 16, dims: [K]}}, source: here}
mac: {style: fixed, weight_bits: 8, input_bits: 8, accumulator_bits: 32, energy_pj: auto, energy_law: synthesis_45nm,
      source: here}
vector: {lanes: 16, energy_pj_per_op: 1.5, lookup_energy_pj: 2, source: here}
capabilities: {weight_bits: 1..8, activation_bits: 1..8, output_bits: 1..32}
"""


def test_published_rows_come_back_exactly() -> None:
    sizes = cacti_table()[ECC]
    for size, pj in PUBLISHED.items():
        assert interpolated(sizes, size, 32, "read_pj") == pytest.approx(pj, rel=1e-9)


@pytest.mark.parametrize("quantity", QUANTITIES)
def test_every_size_left_out_is_met_within_a_quarter(quantity: str) -> None:
    assert len(cacti_table()[ECC][32]) > 6
    assert 0 < page.left_out_error(quantity) <= 0.25


@pytest.mark.parametrize("cell", CACTI_SPREAD)
def test_the_spread_holds_nine_of_ten_sizes_left_out_at_all_widths(cell: Cell) -> None:
    off: list[float] = []
    for bits, known in cacti_table()[45, cell, "rw", "false"].items():
        for size in sorted(known)[1:-1]:
            others = {bits: {other: values for other, values in known.items() if other != size}}
            ratio = interpolated(others, size, bits, "read_pj") / known[size]["read_pj"]
            off.append(max(ratio, 1 / ratio))
    within = sum(ratio <= CACTI_SPREAD[cell] for ratio in off) / len(off)
    assert 0.87 <= within <= 0.97


def test_laws_answer_at_every_size_and_node_and_shrink_with_the_node() -> None:
    for law in SRAM_LAWS:
        for bits in (64, 512, 4096, 10**6, 10**9):
            pj = [sram(bits, 32, node, law, two_ports=False).read_pj for node in (5, 7, 16, 28, 45, 65, 90, 180)]
            assert all(0 < a <= b for a, b in pairwise(pj))
    low, high = (sram(2**20, 64, 28, law, two_ports=False).read_pj for law in ("cacti_hp", "system"))
    mean = sram(2**20, 64, 28, "middle", two_ports=False)
    assert mean.read_pj == pytest.approx((low * high) ** 0.5)
    assert mean.read_pj / mean.spread <= low <= high <= mean.read_pj * mean.spread


def test_the_integer_mac_meets_its_synthesis() -> None:
    for bits, pj in ((2, 0.0575), (4, 0.120), (8, 0.298), (16, 0.947)):
        assert mac_pj(bits, bits)[0] == pytest.approx(pj, rel=0.04)


def test_a_spec_by_law_names_its_laws_and_keeps_what_it_states(tmp_path: Path) -> None:
    path = tmp_path / "law.yaml"
    path.write_text(SPEC)
    machine = load_accelerator(path)
    dram, buffer = machine.memories
    said = sram(2**20, 64, 28, "cacti_lop", two_ports=True)
    assert (dram.read_energy_pj, dram.write_energy_pj) == (512.0, 512.0)
    assert (buffer.read_energy_pj, buffer.write_energy_pj) == (said.read_pj, 9.5)
    assert (buffer.area_mm2, buffer.leakage_mw) == (said.area_mm2, said.leakage_mw)
    assert machine.mac.energy_pj == mac_pj(8, 8, 28)[0]
    assert [note.split(":")[0] for note in machine.notes] == ["dram", "buffer", "mac"]
    assert "by law cacti_lop" in machine.notes[1]
    assert "a factor 1.2 either way" in machine.notes[1]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("energy_law: cacti_lop, ", "", "hierarchy[1].energy_law: missing key: read_energy_pj: auto needs a law"),
        ("energy_law: cacti_lop", "energy_law: lpddr4", "hierarchy[1].energy_law: expected a law of an on-chip memory"),
        ("energy_law: lpddr4", "energy_law: middle", "hierarchy[0].energy_law: expected a law of an outermost memory"),
        ("64, read_energy_pj: auto,\n     write_energy_pj: 9.5", "64, read_energy_pj: 9,\n     write_energy_pj: 9.5",
         "hierarchy[1].energy_law: expected no such key: both energies are given"),
        (", energy_law: synthesis_45nm", "", "mac.energy_law: missing key: energy_pj: auto needs a law"),
        ("energy_pj: auto, energy_law: synthesis", "energy_pj: 1, energy_law: synthesis", "mac.energy_law: expected"),
        ("style: fixed", "style: fusion", "mac.energy_law: expected style fixed"),
    ],
)  # fmt: skip
def test_laws_that_cannot_answer_are_refused(old: str, new: str, said: str, tmp_path: Path) -> None:
    assert SPEC.count(old) == 1
    path = tmp_path / "law.yaml"
    path.write_text(SPEC.replace(old, new))
    with pytest.raises(SpecError) as caught:
        load_accelerator(path)
    assert len(caught.value.problems) == 1
    assert said in caught.value.problems[0]


def test_the_page_of_laws_is_up_to_date() -> None:
    """After a change: python -m experiments.energy_laws --page docs/energy_laws.md."""
    text = (Path(__file__).resolve().parents[2] / "docs" / "energy_laws.md").read_text(encoding="utf-8")
    assert text == page.page()
    assert all(f"`{law}`" in text for law in (*SRAM_LAWS, *DRAM_LAWS))
