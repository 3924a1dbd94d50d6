"""ZigZag's machines and networks: one of its results to the last term, and least latencies below its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from hwsim.errors import SpecError
from hwsim.machine.parts import OPERANDS, Array, Memory
from hwsim.machine.rules import Limit
from hwsim.nest.count import count_accesses
from hwsim.nest.legal import validate
from hwsim.nest.mapping import Hold, Mapping, Spatial, Temporal
from hwsim.nest.ruled import broken_rules
from hwsim.peers.report import Entry
from hwsim.peers.zigzag.read import ZigZag, read_zigzag
from hwsim.pricing.layer import price
from hwsim.search.layer import search
from tests.peers.test_broken import HARDWARE, NETWORK

GEMM_PJ, GEMM_CYCLES = 511_349.76, 8_191
FIRST_VISITS = 2 * 16_384  # every sum is read, and written from above, on its first visit there; not here


def mentions(found: ZigZag, subject: str) -> list[Entry]:
    """Entries that are no plain takeover and whose subject is or begins with `subject`."""
    entries = found.report.entries
    return [e for e in entries if e.verdict != "taken" and e.subject.split(".")[0] == subject]


def read(folder: Path, hardware: str, mapping: str, workload: str = "resnet18") -> ZigZag:
    place = folder / "zigzag"
    return read_zigzag([
        place / "hardware" / f"{hardware}.yaml", place / "mapping" / f"{mapping}.yaml",
        place / "workload" / f"{workload}.yaml",
    ])  # fmt: skip


def test_the_gemm_under_its_own_loops_differs_by_one_named_term(peers_dir: Path) -> None:
    """It reads and refills a register's sums also on their first visit; everything else is equal."""
    found = read(peers_dir, "gemm_l1", "gemm_l1", "gemm_layer")
    machine, network = found.machine(), found.workload
    assert network is not None
    (layer,) = network.layers
    nest = Mapping((
        Hold("backing_store", OPERANDS), Hold("l1_weight", ("weight",)), Hold("l1_input", ("input",)),
        Hold("l1_output", ("output",)), Temporal("N", 16), Temporal("C", 16), Temporal("K", 16),
        Spatial("N", 8, "array_D1_D3", "D1"), Spatial("K", 8, "array_D1_D3", "D3"), Hold("reg_O", ("output",)),
        Spatial("C", 8, "array_D2", "D2"),
    ))  # fmt: skip
    assert validate(nest, layer, machine) == []
    assert broken_rules(nest, layer, machine, machine.constraints) == []
    cost = price(layer, count_accesses(layer, nest, machine), machine)
    assert cost.total_energy_pj == pytest.approx(GEMM_PJ - FIRST_VISITS * 0.02, abs=0.1)
    assert cost.latency_cycles == GEMM_CYCLES + 1  # its last index; the sums' port needs two cycles a step in both


@pytest.mark.parametrize(("hardware", "mapping", "workload"), [
    ("gemm_l1", "gemm_l1", "gemm_layer"), ("tpu_like", "tpu_like", "resnet18"),
    ("edge_tpu_like", "edge_tpu_like", "resnet18"),
])  # fmt: skip
def test_the_first_layer_runs_no_slower_than_its_macs_allow(
    peers_dir: Path, hardware: str, mapping: str, workload: str
) -> None:
    found = read(peers_dir, hardware, mapping, workload)
    machine = found.machine()
    assert found.workload is not None
    layer = found.workload.layers[0]
    best = search(layer, machine, "latency", effort="quick")
    assert best.cost.latency_cycles >= layer.macs / machine.mac_units
    assert best.cost.latency_cycles >= best.certificate.lower_bound


def test_fixed_unrollings_and_orders_are_constraints(peers_dir: Path) -> None:
    rules = read(peers_dir, "gemm_l1", "gemm_l1", "gemm_layer").machine().constraints
    assert {rule.level: rule.order for rule in rules if rule.order}["reg_O"] == ("K", "C", "N", "rest")
    assert {rule.level: rule.unroll for rule in rules if rule.unroll} == {
        "array_D1_D3": (("D1", (("N", Limit(8)),)), ("D3", (("K", Limit(8)),))),
        "array_D2": (("D2", (("C", Limit(8)),)),),
    }
    tpu = read(peers_dir, "tpu_like", "tpu_like")
    (rule,) = tpu.machine().constraints
    assert rule.unroll == (("D1", (("K", Limit(32)),)), ("D2", (("C", Limit(32)),)))
    assert "that of default holds for all layers" in mentions(tpu, "mapping example_name_of_layer0")[0].text


def choose(folder: Path, *entries: str) -> ZigZag:
    (folder / "choice.yaml").write_text("".join(entries))
    (folder / "hardware.yaml").write_text(HARDWARE)
    (folder / "network.yaml").write_text(NETWORK)
    return read_zigzag([folder / name for name in ("hardware.yaml", "choice.yaml", "network.yaml")])


ENTRY = '- name: {}\n  spatial_mapping: {{D1: ["{}"]}}\n  memory_operand_links: {{O: O, W: I2, I: I1}}\n'


def test_the_entry_of_all_layers_is_taken_not_the_default(tmp_path: Path) -> None:
    found = choose(tmp_path, ENTRY.format("default", "C, 8"), ENTRY.format("Conv", "K, 8"))
    assert [rule.unroll for rule in found.machine().constraints] == [(("D1", (("K", Limit(8)),)),)]
    assert not mentions(found, "mapping Conv")


def test_an_unrolling_above_its_axis_is_clipped(tmp_path: Path) -> None:
    found = choose(tmp_path, ENTRY.format("default", "K, 32"))
    assert [rule.unroll for rule in found.machine().constraints] == [(("D1", (("K", Limit(8)),)),)]
    assert "32 on 8 elements" in mentions(found, "D1")[0].text


TWO = """- {id: 0, operator_type: MatMul, equation: "O[m][n]+=I[m][k]*W[n][k]", loop_dims: [M, N, K],
   loop_sizes: [8, 8, 16], operand_precision: {W: 8, I: 8, O: 16}}
- {id: 1, operator_type: Conv, equation: "O[b][k]+=W[k][c]*I[b][c]", loop_dims: [B, K, C], loop_sizes: [4, 8, 16],
   operand_precision: {W: 8, I: 8, O: 16}}
"""


@pytest.mark.parametrize(("entries", "loop", "told"), [
    (ENTRY.format("default", "K, 8") + ENTRY.format("MatMul", "N, 8"), "K", False),
    (ENTRY.format("default", "N, 8") + ENTRY.format("Conv", "K, 8"), "K", False),
    (ENTRY.format("default", "K, 8"), "C", True),
], ids=["of the convolution", "of the product", "of both"])  # fmt: skip
def test_letters_are_those_of_the_layers_that_an_entry_holds_for(
    tmp_path: Path, entries: str, loop: str, told: bool
) -> None:
    """K sums up in the product and counts channels in the convolution."""
    for name, text in (("choice.yaml", entries), ("hardware.yaml", HARDWARE), ("network.yaml", TWO)):
        (tmp_path / name).write_text(text)
    found = read_zigzag([tmp_path / name for name in ("hardware.yaml", "choice.yaml", "network.yaml")])
    (rule,) = [rule for rule in found.machine().constraints if rule.unroll]
    assert rule.unroll == (("D1", ((loop, Limit(8)),)),)
    assert bool(mentions(found, "loop K")) == told


@pytest.mark.parametrize(
    ("ordering", "order"), [
        ('[[P, 8], ["*", "*"]]', ("P", "rest")), ('[[P, 4], [C, "*"], [P, 2]]', ()),
        ("[[Z, 4], [C, 8]]", ("C", "rest")),
    ],
)  # fmt: skip
def test_orders_of_loops(tmp_path: Path, ordering: str, order: tuple[str, ...]) -> None:
    found = choose(tmp_path, ENTRY.format("default", "K, 8") + f"  temporal_ordering: {ordering}\n")
    orders = {rule.order for rule in found.machine().constraints if rule.order}
    assert orders == ({order} if order else set())
    assert mentions(found, "temporal_ordering")


def test_memories_at_dimensions_that_do_not_nest_are_shared_by_price(peers_dir: Path) -> None:
    """edge_tpu_like: weights per D1 D2 stand where they belong; sums per D1 D3 D4 get an eighth of the price each."""
    found = read(peers_dir, "edge_tpu_like", "edge_tpu_like")
    machine = found.machine()
    assert [node.name for node in machine.hierarchy if isinstance(node, Array)] == ["array_D1_D2", "array_D3_D4"]
    names = [node.name for node in machine.hierarchy]
    assert names.index("array_D1_D2") < names.index("rf_1B") < names.index("array_D3_D4") < names.index("rf_2B")
    sums = next(memory for memory in machine.memories if memory.name == "rf_2B")
    assert sums.read_energy_pj == pytest.approx(0.02 / 8)
    assert [entry.text for entry in mentions(found, "rf_2B")] == [
        "serves 8 elements along D2, which stand above another memory: one instance per element at 1/8 of its "
        "energies, exact while all work"
    ]


def test_a_memory_that_nests_keeps_its_price(peers_dir: Path) -> None:
    found = read(peers_dir, "gemm_l1", "gemm_l1", "gemm_layer")
    names = [node.name for node in found.machine().hierarchy]
    assert names.index("array_D1_D3") < names.index("reg_O") < names.index("array_D2")
    assert not mentions(found, "reg_O")


def test_prices_are_those_of_the_smallest_access(peers_dir: Path) -> None:
    machine = read(peers_dir, "tpu_like", "tpu_like").machine()
    sram = next(memory for memory in machine.memories if memory.name == "sram_2MB")
    assert (sram.word_bits, sram.read_bandwidth_bits_per_cycle) == (64, 2048)
    assert sram.read_energy_pj == pytest.approx(416.16 * 64 / 2048)


def test_a_key_given_twice_counts_last_and_is_reported(peers_dir: Path) -> None:
    found = read(peers_dir, "tpu_like", "tpu_like")
    assert any(entry.subject == "repeated key" and ":67" in entry.place for entry in found.report.entries)


def test_in_memory_arrays_say_that_energies_are_ours(peers_dir: Path) -> None:
    found = read(peers_dir, "aimc", "default_imc")
    mac = found.machine().mac
    assert (mac.style, mac.rows, mac.dac_bits, mac.macs_per_cycle) == ("in_memory", 128, 2, 0.25)
    assert "no counterpart" in mentions(found, "is_imc")[0].text


def test_every_operator_of_the_network_is_there(peers_dir: Path) -> None:
    found = read(peers_dir, "tpu_like", "tpu_like")
    assert found.workload is not None
    ops = [layer.op for layer in found.workload.layers]
    assert (ops.count("conv"), ops.count("add"), ops.count("max_pool")) == (21, 8, 2)
    first = found.workload.layers[0]
    assert (first.stride, first.loops.K, first.loops.C, first.loops.R) == ((2, 2), 64, 3, 7)
    assert first.bits_key() == (8, 8, 8, 16)


def test_every_memory_of_every_machine_is_told(peers_dir: Path) -> None:
    for path in sorted((peers_dir / "zigzag" / "hardware").glob("*.yaml")):
        found = read_zigzag([path])
        told = {node.source for node in found.machine().hierarchy if isinstance(node, Memory)}
        written = path.read_text().split("operational_array")[0]
        for name in [line.strip()[:-1] for line in written.splitlines() if line.startswith("  ") and line[2] != " "]:
            assert f"memory {name}" in told, (path.name, name)


def test_ports_of_older_versions_are_read(tmp_path: Path) -> None:
    (tmp_path / "old.yaml").write_text(OLD)
    machine = read_zigzag([tmp_path / "old.yaml"]).machine()
    assert [memory.name for memory in machine.memories] == ["dram", "buffer"]
    buffer = machine.memories[1]
    assert (buffer.size_bits, buffer.word_bits, buffer.read_bandwidth_bits_per_cycle) == (268_435_456, 64, 512)
    assert buffer.read_energy_pj == pytest.approx(8.0 * 64 / 512)
    assert machine.mac.energy_pj == 0.04


def variant(folder: Path, *changes: tuple[str, str]) -> ZigZag:
    text = OLD
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / "old.yaml").write_text(text)
    return read_zigzag([folder / "old.yaml"])


def test_a_systolic_dimension_drains_once_per_layer(tmp_path: Path) -> None:
    """A key of 3.9: the last results leave an array of n elements in n - 1 cycles."""
    found = variant(tmp_path, ("  dimensions: [D1]\n", "  dimensions: [D1]\n  systolic_dimensions: [D1]\n"))
    assert found.machine().layer_overhead_cycles == 15
    assert mentions(found, "systolic_dimensions")
    with pytest.raises(SpecError, match=r"old\.yaml:\d+: systolic_dimensions: no array dimension D7"):
        variant(tmp_path, ("  dimensions: [D1]\n", "  dimensions: [D1]\n  systolic_dimensions: [D7]\n"))


def test_a_memory_serves_what_those_inside_it_serve(tmp_path: Path) -> None:
    """A DRAM written with fewer dimensions than its buffer, as in one of their examples: one DRAM, and told."""
    end = "    served_dimensions: [D1]\noperational_array:"
    found = variant(tmp_path, (end, end.replace("[D1]", "[]")))
    assert [node.name for node in found.machine().hierarchy] == ["dram", "buffer", "array_D1"]
    assert "dram.served_dimensions" in [entry.subject for entry in mentions(found, "dram")]


def test_an_outermost_memory_with_several_copies_has_a_store_outside(tmp_path: Path) -> None:
    found = variant(tmp_path, ("served_dimensions: [D1]", "served_dimensions: []"))
    names = [node.name for node in found.machine().hierarchy]
    assert names == ["backing_store", "array_D1", "dram", "buffer"]


OLD = """
name: old
memories:
  buffer:
    size: 268_435_456
    r_bw: 512
    w_bw: 512
    r_cost: 8.0
    w_cost: 9.0
    area: 0
    r_port: 1
    w_port: 1
    rw_port: 0
    latency: 1
    min_r_granularity: 64
    min_w_granularity: 64
    operands: [I1, O]
    ports:
      - {fh: w_port_1, tl: r_port_1}
      - {fh: w_port_1, tl: r_port_1, fl: w_port_1, th: r_port_1}
    served_dimensions: [D1]
  dram:
    size: 10000000000
    r_bw: 64
    w_bw: 64
    r_cost: 700
    w_cost: 750
    area: 0
    r_port: 0
    w_port: 0
    rw_port: 1
    latency: 1
    operands: [I1, I2, O]
    ports:
      - {fh: rw_port_1, tl: rw_port_1}
      - {fh: rw_port_1, tl: rw_port_1}
      - {fh: rw_port_1, tl: rw_port_1, fl: rw_port_1, th: rw_port_1}
    served_dimensions: [D1]
operational_array:
  multiplier_energy: 0.04
  multiplier_area: 1
  dimensions: [D1]
  sizes: [16]
"""
