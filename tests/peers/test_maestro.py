"""MAESTRO's networks, hardware and dataflows: what is taken over, and one message with file and line for the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from hwsim.convert import main
from hwsim.errors import SpecError
from hwsim.machine.parts import OPERANDS
from hwsim.nest.count import count_accesses
from hwsim.nest.legal import validate
from hwsim.nest.mapping import Hold, Mapping, Spatial, Temporal
from hwsim.network.layer import Loops
from hwsim.peers.translation import Translation, translate

LAYER = """
Constant HALF 2;
Network tiny { // one layer
  Layer CONV1 {
    Type: CONV
    Stride { X: 1, Y: 1 }
    Dimensions { K: 8, C: 4, R: 3, S: 3, Y: 10, X: 10 }
    Dataflow {
      /* filters over clusters, channels within one */
      SpatialMap(1,1) K;
      TemporalMap(HALF,HALF) C;
      TemporalMap(Sz(R),Sz(R)) R;
      TemporalMap(Sz(S),Sz(S)) S;
      TemporalMap(Sz(R),1) Y;
      TemporalMap(2+Sz(S)-1,2) X;
      Cluster(2, P);
      SpatialMap(1,1) C;
    }
  }
}
"""
HARDWARE = "num_pes: 8\nl1_size_cstr: 512\nl2_size_cstr: 20000 // bytes\nnoc_bw_cstr: 16\n"


def read(folder: Path, network: str = LAYER, hardware: str = HARDWARE) -> Translation:
    (folder / "tiny.m").write_text(network)
    (folder / "hw.m").write_text(hardware)
    return translate("maestro", [folder / "tiny.m", folder / "hw.m"])


def lost(found: Translation) -> str:
    return " ".join(entry.text for entry in found.report.of("none"))


def test_a_dataflow_is_a_mapping(tmp_path: Path) -> None:
    """Eight filters over four clusters take two turns; a window of four columns is two outputs."""
    found = read(tmp_path)
    assert found.machine is not None
    assert found.workload is not None
    layer, machine = found.workload.layers[0], found.machine
    assert layer.loops == Loops(K=8, C=4, P=8, Q=8, R=3, S=3)
    nest = found.mappings["CONV1"]
    assert nest == Mapping((
        Hold("dram", OPERANDS), Temporal("K", 2), Temporal("C", 2), Temporal("P", 8), Temporal("Q", 4),
        Hold("l2", OPERANDS), Spatial("K", 4, "pes", "level0"), Spatial("C", 2, "pes", "level1"),
        Hold("l1", OPERANDS), Temporal("S", 3), Temporal("R", 3), Temporal("Q", 2),
    ))  # fmt: skip
    assert validate(nest, layer, machine) == []
    assert count_accesses(layer, nest, machine).steps == layer.macs // 8
    assert {m.name: m.size_bits for m in machine.memories} == {"dram": None, "l2": 160_000, "l1": 4096}
    assert machine.memories[1].read_bandwidth_bits_per_cycle == 128


@pytest.mark.parametrize(
    ("kind", "sizes", "loops"),
    [
        ("CONV", "N: 2, K: 8, C: 4, R: 3, S: 3, Y: 11, X: 10", Loops(N=2, K=8, C=4, P=9, Q=8, R=3, S=3)),
        ("DSCONV", "K: 1, C: 4, R: 3, S: 3, Y: 10, X: 10", Loops(G=4, P=8, Q=8, R=3, S=3)),
        ("FC", "K: 10, C: 4, R: 7, S: 7, Y: 7, X: 7", Loops(K=10, C=4, R=7, S=7)),
        ("GEMM", "M: 16, N: 8, K: 4", Loops(P=16, K=8, C=4)),
    ],
)
def test_types_of_layers(tmp_path: Path, kind: str, sizes: str, loops: Loops) -> None:
    (tmp_path / "net.m").write_text(
        f"Network n {{ Layer a {{ Type: {kind} Dimensions {{ {sizes} }} Dataflow {{}} }} }}\n"
    )
    found = translate("maestro", [tmp_path / "net.m"])
    assert found.workload is not None
    assert found.workload.layers[0].loops == loops
    assert found.machine is None


def test_strides_count_rows_of_the_input_or_of_the_output(tmp_path: Path) -> None:
    strided = LAYER.replace("X: 1, Y: 1 }", "X: 2, Y: 2 }").replace("Y: 10, X: 10", "Y: 11, X: 11")
    for move in ("4+Sz(S)-2,4", "4+Sz(S)-2,2"):  # two outputs: four columns on, or two steps of a stride
        nest = read(tmp_path, strided.replace("2+Sz(S)-1,2", move)).mappings["CONV1"]
        assert Temporal("Q", 3) in nest.nodes
    outputs = strided.replace("TemporalMap(2+Sz(S)-1,2) X;", "TemporalMap(2,2) X';")
    assert read(tmp_path, outputs).mappings["CONV1"] == nest


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("TemporalMap(HALF,HALF) C", "TemporalMap(2,1) C", "a map of 2 that moves by 1 along C overlaps"),
        ("TemporalMap(2+Sz(S)-1,2) X", "TemporalMap(2+Sz(S)-1,1) X", "a map of 4 that moves by 1 along X overlaps"),
        ("TemporalMap(Sz(R),1) Y", "SpatialMap(1,1) Y", "K and Y move together"),
        ("TemporalMap(HALF,HALF) C", "TemporalMap(2,2) M", "no loop M"),
    ],
)
def test_dataflows_without_a_counterpart_are_named(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in LAYER
    found = read(tmp_path, LAYER.replace(old, new))
    assert "CONV1" not in found.mappings
    assert words in lost(found)


def test_clusters_have_to_divide_the_elements(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"tiny.m:4: .* clusters of 3 elements do not divide 8"):
        read(tmp_path, LAYER.replace("Cluster(2, P)", "Cluster(3, P)"))


@pytest.mark.parametrize(
    ("network", "hardware", "at"),
    [
        (LAYER.replace("K: 8,", "K: 0,"), HARDWARE, "tiny.m:7: K: expected a size from 1"),
        (LAYER.replace("K: 8,", "Z: 8,"), HARDWARE, "tiny.m:7: expected N or G"),
        (LAYER.replace("K: 8,", "K: 8, K: 8,"), HARDWARE, "tiny.m:7: K stands twice"),
        (LAYER.replace("R: 3, S: 3", "R: 30, S: 3"), HARDWARE, "tiny.m:4: layer CONV1: a filter of 30 above 10"),
        (LAYER.replace("Type: CONV", "Type: LSTM"), HARDWARE, "tiny.m:4: layer CONV1: type 'LSTM'"),
        (LAYER.replace("C: 4, ", ""), HARDWARE, "tiny.m:4: layer CONV1: the size of C is missing"),
        (LAYER.replace("TemporalMap(Sz(R),1)", "TemporalMap(Sz(Q),1)"), HARDWARE, "tiny.m:14: expected N or G"),
        (LAYER.replace("HALF,HALF", "HALF,-3"), HARDWARE, "tiny.m:11: expected a whole number"),
        (LAYER.replace("SpatialMap", "SpatiallMap", 1), HARDWARE, "tiny.m:10: expected TemporalMap or SpatialMap"),
        (LAYER.rstrip()[:-1], HARDWARE, "expected Layer, got 'the end of the file'"),
        (LAYER.replace("Network", "Network @"), HARDWARE, "tiny.m:3: unexpected '@'"),
        (LAYER, HARDWARE.replace("num_pes: 8", "num_pes: 99999999"), "hw.m:1: num_pes"),
        (LAYER, HARDWARE.replace("512", "-512"), "hw.m:2: expected a key and a whole number"),
        ("// nothing\n", HARDWARE, "tiny.m:1: no layer in it"),
    ],
)
def test_broken_files_have_one_message_with_a_line(
    tmp_path: Path, network: str, hardware: str, at: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tiny.m").write_text(network)
    (tmp_path / "hw.m").write_text(hardware)
    assert main([str(tmp_path / "tiny.m"), str(tmp_path / "hw.m"), "--to", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err.strip()
    assert at in message
    assert "\n" not in message
    assert not (tmp_path / "out").exists()
