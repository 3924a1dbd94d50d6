"""The benchmark beside a public mapper: its machines load, its accounting is as described, no peer is no error."""

from __future__ import annotations

import dataclasses

import pytest

from benchmarks.peers_zigzag import CHANNELS, FOLDER, MACHINES, SIZE, border_pj, layer, partial_words_pj, peer
from hwsim.machine.load import load_accelerator
from hwsim.nest.counts import Counts
from hwsim.search.layer import search
from hwsim.search.result import Found


@pytest.fixture(scope="module")
def found() -> Found:
    return search(layer(), load_accelerator(FOLDER / "zigzag_tpu_like.yaml"), "energy")


@pytest.mark.parametrize("name", MACHINES)
def test_the_peers_machines_have_its_sizes_and_latch_codes_only(name: str) -> None:
    machine = load_accelerator(FOLDER / f"zigzag_{name}.yaml")
    assert machine.mac_units == {"tpu_like": 32 * 32, "eyeriss_like": 14 * 12}[name]
    assert machine.mac.latches == ("weight", "input")
    assert layer().macs == 115_605_504


def test_the_border_is_taken_off_once_and_only_where_inputs_come_once(found: Found) -> None:
    machine = load_accelerator(FOLDER / "zigzag_tpu_like.yaml")
    extra = CHANNELS * ((SIZE + 2) ** 2 - SIZE**2)
    assert border_pj(found, machine) == pytest.approx(extra * (700 + 11.825) / 8)
    twice = [dataclasses.replace(t, reads=2 * t.reads) for t in found.counts.traffic]
    counts: Counts = dataclasses.replace(found.counts, traffic=tuple(twice))
    assert border_pj(dataclasses.replace(found, counts=counts), machine) == 0.0


def test_whole_words_cost_nothing_where_transfers_fill_them(found: Found) -> None:
    """32 codes of 8 bits, or 32 sums of 16, are whole words of 64 bits; in words of 80 they are not."""
    machine = load_accelerator(FOLDER / "zigzag_tpu_like.yaml")
    assert partial_words_pj(found, machine) == 0.0
    nodes = [dataclasses.replace(n, word_bits=80) if n.name == "sram" else n for n in machine.hierarchy]  # type: ignore[call-arg]
    assert partial_words_pj(found, dataclasses.replace(machine, hierarchy=tuple(nodes))) > 0.0


def test_a_missing_peer_is_said() -> None:
    assert str(peer("/no/such/python", "tpu_like", "loma", 6)).startswith("not installed")
