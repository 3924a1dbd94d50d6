"""SCALE-Sim: cycles of every layer of every topology equal its closed forms, and its printed runs are reproduced."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.peers import scalesim as experiment
from hwsim.errors import SpecError
from hwsim.nest.legal import validate
from hwsim.peers.report import TranslationReport
from hwsim.peers.scalesim import read_scalesim, read_topology

CONFIGS = ("eyeriss", "google", "scale")
TOPOLOGIES = ("conv_nets/alexnet", "conv_nets/Resnet18", "conv_nets/mobilenet", "GEMM_mnk/vit_s", "GEMM_mnk/gpt2",
              "GEMM_mnk/test_mnk_input")  # fmt: skip


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_cycles_equal_the_closed_forms(peers_dir: Path, config: str, topology: str) -> None:
    folder = peers_dir / "scalesim"
    read = read_scalesim([folder / "configs" / f"{config}.cfg", folder / "topologies" / f"{topology}.csv"])
    row = experiment.row_of(read, config, topology)
    assert row["layers"] == row["equal"] > 0
    machine, network = read.machine(), read.workload
    assert network is not None
    for name, nest in read.mappings(machine).items():
        layer = next(layer for layer in network.layers if layer.name == name)
        assert validate(nest, layer, machine) == []


def test_printed_runs_are_reproduced() -> None:
    """Its total is the last index: one less than our count. Its SRAM counters are equal."""
    rows = experiment.printed_rows()
    assert len(rows) == 7
    for row in rows:
        assert row["cycles"] == row["printed_cycles"] + 1
        for counter in ("filter_reads", "ifmap_reads", "ofmap_writes"):
            if f"printed_{counter}" in row:
                assert row[counter] == row[f"printed_{counter}"]


def test_outputs_are_rounded_up_and_said() -> None:
    report = TranslationReport()
    (product,) = read_topology(HEADER + "Conv1,224,224,7,7,3,64,2,\n", "net.csv", report)
    assert (product.m, product.k, product.n) == (110 * 110, 147, 64)
    assert "rounded up to 110 x 110" in str(report.entries[0])


def test_dp_in_a_name_is_one_product_per_channel() -> None:
    report = TranslationReport()
    products = read_topology(HEADER + "DP1,8,8,3,3,5,1,1,\n", "net.csv", report)
    assert [(p.m, p.k, p.n) for p in products] == [(36, 9, 1)] * 5
    (whole,) = read_topology(HEADER + "Conv,8,8,3,3,5,1,1,\n", "net.csv", report)
    assert (whole.m, whole.k, whole.n) == (36, 45, 1)
    assert "depthwise" in report.of("approximated")[0].text


def test_half_of_an_sram_is_active(peers_dir: Path) -> None:
    machine = read_scalesim([peers_dir / "scalesim" / "configs" / "scale.cfg"]).machine()
    sizes = {memory.name: memory.size_bits for memory in machine.memories}
    assert sizes["ifmap_sram"] == 64 * 8192 // 2


def test_a_batch_is_as_many_products() -> None:
    report = TranslationReport()
    products = read_topology("Layer,M,N,K,Batch,\nheads,12,20,64,8,\nplain,1,2,3,1:1,\n", "g.csv", report)
    assert [(p.m, p.n, p.k) for p in products] == [(12, 20, 64)] * 8 + [(1, 2, 3)]
    assert len({p.name for p in products}) == 9
    assert report.of("taken")[0].text.startswith("a batch of 8")


def test_a_second_stride_is_that_of_the_columns() -> None:
    report = TranslationReport()
    (product,) = read_topology(HEADER + "Conv,9,9,3,3,5,7,2,3,\n", "net.csv", report)
    assert product.m == 4 * 3
    (same,) = read_topology(HEADER + "Conv,9,9,3,3,5,7,2,2,1:1,\n", "net.csv", report)
    assert same.m == 4 * 4


@pytest.mark.parametrize(("row", "message"), [
    ("Conv,9,9,3,3,5,7,2,2:4,", r"net.csv:2: sparsity 2:4 has no counterpart: no machine here skips weights"),
    ("Conv,9,9,3,3,5,7,2,a:b,", r"net.csv:2: expected a sparsity N:M"),
    ("Conv,9,9,3,3,5,7,", r"net.csv:2: expected a name and 7 or 8 numbers, got 6"),
    ("Conv,9,9,3,3,5,7,2,2,2,", r"net.csv:2: expected a name and 7 or 8 numbers, got 9"),
    ("Conv,9,9,3,3,5,7,0,", r"net.csv:2: expected whole numbers from 1"),
])  # fmt: skip
def test_rows_without_a_counterpart_are_refused_by_line(row: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        read_topology(HEADER + row + "\n", "net.csv", TranslationReport())


def test_sparsity_that_is_switched_on_is_refused_by_line(peers_dir: Path, tmp_path: Path) -> None:
    text = (peers_dir / "scalesim" / "configs" / "scale.cfg").read_text()
    assert "SparsitySupport : false" in text
    (tmp_path / "sparse.cfg").write_text(text.replace("SparsitySupport : false", "SparsitySupport : True"))
    with pytest.raises(SpecError, match=r"sparse.cfg:\d+: sparsitysupport: has no counterpart"):
        read_scalesim([tmp_path / "sparse.cfg"])


def test_options_that_are_not_read_are_named(peers_dir: Path, tmp_path: Path) -> None:
    text = (peers_dir / "scalesim" / "configs" / "scale.cfg").read_text()
    (tmp_path / "more.cfg").write_text(text + "TimeLinearModel: TPUv4\n")
    report = read_scalesim([tmp_path / "more.cfg"]).report
    assert "[run_presets] timelinearmodel" in [entry.subject for entry in report.of("none")]


HEADER = "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides,\n"
