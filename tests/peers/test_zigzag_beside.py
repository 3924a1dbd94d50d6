"""ZigZag's schedules as nests of ours: one that it found, its printed accesses, and the one count that differs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from experiments.peers.zigzag import keeps_tensors, question_of
from experiments.peers.zigzag_beside import ask, its_bill, our_bill, paired
from experiments.peers.zigzag_nests import nest_of
from hwsim.errors import HwsimError
from hwsim.nest.count import count_accesses
from hwsim.nest.counts import Counts
from hwsim.nest.legal import validate
from hwsim.peers.zigzag.read import read_zigzag
from hwsim.pricing.layer import LayerCost, price

INNER = [["C", 32.0], ["FY", 3.0]]
TILES = [["OY", 4.0], ["OX", 4.0]]
OUTER = [["K", 32.0], ["FX", 3.0]]
STEPS = 32 * 3 * 16 * 32 * 3


def level(memory: str, loops: list[list[Any]], **ways: float) -> dict[str, Any]:
    return {"memory": memory, "loops": loops, "pj": ways}


# Layer16 of resnet18.yaml on edge_tpu_like: what zigzag-dse 3.9.1 found, its pJ by way.
FOUND: dict[str, Any] = {
    "name": "Layer16", "macs": 115_605_504, "mac_pj": 115_605_504 * 0.04,
    "unrolled": {"D1": [["K", 8.0]], "D2": [["C", 8.0]], "D3": [["OX", 4.0]], "D4": [["OY", 4.0]]},
    "operands": {
        "O": [level("rf_2B", INNER, read=289_013.76, update=289_013.76, drain=3_010.56, fill=3_010.56),
              level("sram_2MB", [*TILES, *OUTER], read=499_392, update=454_080, drain=81_567.36),
              level("dram", [], update=4_704_000)],
        "W": [level("rf_1B", [], read=94_371.84, fill=94_371.84),
              level("sram_32KB", [*INNER, *TILES], read=3_376_742.4, fill=479_324.16),
              level("dram", OUTER, read=51_609_600)],
        "I": [level("sram_2MB", [*INNER, *TILES, *OUTER], read=17_258_987.52, fill=96_870.4),
              level("dram", [], read=5_734_400)],
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def recounted(peers_dir: Path) -> tuple[Counts, LayerCost]:
    place = peers_dir / "zigzag"
    read = read_zigzag([place / "hardware" / "edge_tpu_like.yaml", place / "mapping" / "edge_tpu_like.yaml",
                        place / "workload" / "resnet18.yaml"])  # fmt: skip
    machine, network = read.machine(), read.workload
    assert network is not None
    (layer,) = [layer for layer in network.layers if layer.name == "Layer16"]
    nest, resident = nest_of(FOUND, machine, read.dims)
    assert not resident
    assert validate(nest, layer, machine) == []
    counts = count_accesses(layer, nest, machine)
    return counts, price(layer, counts, machine)


def test_a_tile_of_three_and_a_half_outputs_reads_three_inputs_there(recounted: tuple[Counts, LayerCost]) -> None:
    """14 outputs on 4 elements are 4 steps of 3.5. It prints 41,472 reads of 256 inputs: 3 x 3 for 8 channels a step.

    Exactly, the 14 x 14 outputs of every sweep read 14 x 14 inputs: 3.5 x 3.5 a step.
    """
    counts, _ = recounted
    assert counts.steps == STEPS
    assert STEPS * 8 * 3 * 3 == 41_472 * 256
    assert counts.reads("sram_2MB", "input") == STEPS * 8 * 3.5 * 3.5


def test_what_it_prints_beside_is_equal_or_of_named_difference(recounted: tuple[Counts, LayerCost]) -> None:
    """pJ by memory and operand: equal but the inputs above, first visits of sums, and words of parameters."""
    its, here = its_bill(FOUND), our_bill(recounted[1])
    equal = [("dram", "weight"), ("dram", "input"), ("dram", "output"), ("sram_32KB", "weight"), ("rf_1B", "weight"),
             ("mac", "")]  # fmt: skip
    assert [here[term] for term in equal] == pytest.approx([its[term] for term in equal])
    inputs = STEPS * 8 * (3.5**2 - 3**2) * 8 / 64 * 13.005  # words of 64 bits
    assert here["sram_2MB", "input"] - its["sram_2MB", "input"] == pytest.approx(inputs)
    sums, visits = 50_176, 3 * 512  # a visit: 98 sums of 16 bits, 24.5 words, are 25 whole ones there
    reads = visits * 25 - 2 * sums * 16 // 64  # and the first visit is a read
    writes = visits * 25 - (2 * 16 + 8) * sums // 64  # and the last write still has 16 bits
    assert its["sram_2MB", "output"] - here["sram_2MB", "output"] == pytest.approx(reads * 13.005 + writes * 11.825)
    assert sum(here.values()) > sum(its.values())


def test_rows_that_mix_unrollings_keep_tensors_on_chip_too() -> None:
    row = {"test": "tests/main/test_with_mix_spatial_mapping/test_tpu_like.py", "mapping": "tpu_like_mixed.yaml"}
    assert question_of(row) == "mixed"
    assert keeps_tensors(row)
    assert not keeps_tensors({"test": "tests/main/test_origin/test_tpu_like.py", "mapping": "tpu_like.yaml"})


def test_a_missing_peer_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(HwsimError, match="give --peer-python"):
        ask(None, ["a", "b", "c", tmp_path / "out.json"])


def test_a_layer_that_no_layer_of_ours_equals_is_said(peers_dir: Path) -> None:
    network = read_zigzag([peers_dir / "zigzag" / "workload" / "gemm_layer.yaml"]).workload
    assert network is not None
    with pytest.raises(HwsimError, match=r"no layer of ours has its 7 MACs"):
        list(paired([{"name": "other", "macs": 7}], network))


def test_a_bill_is_by_memory_and_operand() -> None:
    assert its_bill(FOUND)["rf_1B", "weight"] == pytest.approx(2 * 94_371.84)
    assert set(its_bill(FOUND).values()) >= {115_605_504 * 0.04}
