"""Descriptions as strangers write them: versions, spellings and operations that the examples do not show."""

from __future__ import annotations

from pathlib import Path

import pytest

from hwsim.convert import main
from hwsim.errors import SpecError
from hwsim.machine.parts import Accelerator, Array
from hwsim.machine.rules import Limit
from hwsim.nest.count import count_accesses
from hwsim.nest.legal import validate
from hwsim.network.layer import Loops
from hwsim.peers.timeloop.read import Timeloop, read_timeloop
from hwsim.peers.translation import translate
from hwsim.pricing.area import static_power_mw


def read(folder: Path, *texts: str) -> Timeloop:
    for number, text in enumerate(texts):
        (folder / f"{number}.yaml").write_text(text)
    return read_timeloop([folder / f"{number}.yaml" for number in range(len(texts))])


def sizes(machine: Accelerator) -> dict[str, int | None]:
    return {memory.name: memory.size_bits for memory in machine.memories}


def test_v3_with_its_own_words_for_widths(tmp_path: Path) -> None:
    """block-size, word-bits, no width of an element under datawidth."""
    found = read(tmp_path, V3, PROBLEM.replace("data_spaces", "data-spaces").replace("read_write", "read-write"))
    machine = found.machine()
    assert sizes(machine) == {"MainMemory": None, "Buffer": 64 * 8}
    assert [memory.word_bits for memory in machine.memories] == [256, 8]
    assert found.layer is not None
    assert found.layer.bits_key()[:2] == (8, 8)
    assert machine.mac.accumulator_bits == 8  # datawidth of the level that keeps the sums


def test_v3_eyeriss_with_constraints_beside_it(tmp_path: Path) -> None:
    """memory_depth, copies by range and meshX, a dummy that takes the columns, permutations in groups of letters."""
    found = read(tmp_path, V3_EYERISS, V3_CONSTRAINTS, PROBLEM)
    machine = found.machine()
    spads = {"ifmap_spad": 12 * 16, "weights_spad": 192 * 16, "psum_spad": 16 * 16}
    assert sizes(machine) == {"DRAM": None, "shared_glb": 16384 * 64, **spads}
    assert [(a.size, [axis.dims for axis in a.axes]) for a in machine.arrays] == [
        (14, [("Q", "K")]),
        (12, [("S", "C", "K")]),
    ]
    rules = {rule.level: rule for rule in machine.constraints}
    assert rules["DRAM"].order == ("R", "S", "P", "C", "K", "N", "Q")
    assert dict(rules["weights_spad"].factors)["R"] == Limit(None)
    assert rules["ifmap_spad_array"].unroll == (("meshY", (("S", Limit(None)),)),)
    assert [entry.subject for entry in found.report.of("none") if entry.subject == "DummyBuffer"] == ["DummyBuffer"]


def test_buffers_with_metadata_keep_their_size(tmp_path: Path) -> None:
    """Accelergy's own words for the data of a buffer that could hold metadata, too."""
    found = read(tmp_path, METADATA)
    machine = found.machine()
    assert sizes(machine) == {"Backing": None, "Buffer": 64 * 8}
    assert [memory.word_bits for memory in machine.memories] == [32, 8]
    assert "Backing.metadata_storage_depth" in [entry.subject for entry in found.report.of("none")]


def test_tables_are_found_by_the_last_name_of_a_path_with_copies(tmp_path: Path) -> None:
    table = "ERT:\n  version: 0.4\n  tables:\n" + "".join(
        f"  - {{name: '{name}', actions: [{{name: read, energy: {pj}}}, {{name: compute, energy: {pj}}}]}}\n"
        for name, pj in (("top.Backing[1..1]", 40), ("top[1..2].PE[0..3].Buffer[1..4]", 2), ("top.PE[0..3].MAC", 0.5),
                         ("top.PE[0..3].router[1..4]", 1))
    )  # fmt: skip
    found = read(tmp_path, METADATA, table)
    machine = found.machine()
    assert [memory.read_energy_pj for memory in machine.memories] == [40, 2]
    assert machine.mac.energy_pj == 0.5
    assert "router.energy" in [entry.subject for entry in found.report.of("none")]


def test_what_is_not_read_of_a_mac_is_named(tmp_path: Path) -> None:
    found = read(tmp_path, METADATA.replace("{datawidth: 8, precision: 3}", "{datawidth: 8, exponent: 8}"))
    assert "MAC.exponent" in [entry.subject for entry in found.report.of("none")]


def test_variables_expressions_and_copies_on_components(tmp_path: Path) -> None:
    found = read(tmp_path, VARIABLES, PROBLEM)
    machine = found.machine()
    assert (machine.node_nm, machine.clock_mhz) == (22, 2000)
    assert sizes(machine) == {"backing": None, "weight_buffer": 65536, "io_buffer": 64000, "row_register": 64}
    assert {m.name: m.keeps for m in machine.memories}["io_buffer"] == ("input", "output")
    assert [(a.name, a.axes[0].dims) for a in machine.arrays] == [
        ("row_register_array", ("C",)), ("mac_array", ("P", "R", "Q", "S", "C", "K", "N")),
    ]  # fmt: skip
    assert {rule.level: rule.unroll for rule in machine.constraints} == {
        "row_register_array": (("meshY", (("C", Limit(8)),)),), "mac_array": (("meshX", (("K", Limit(None)),)),),
    }  # fmt: skip


def test_networks_halves_and_parts_that_are_off(tmp_path: Path) -> None:
    found = read(tmp_path, NETWORKS, PROBLEM)
    machine = found.machine()
    assert sizes(machine) == {"dram": None, "gb": 128 * 8192 // 2, "rf": 1024}
    assert machine.memories[1].shared_port
    assert {entry.subject for entry in found.report.of("none")} >= {"noc", "unused", "gb.bank_rows"}


def test_what_a_peer_lacks_neither_leaks_nor_takes_area(tmp_path: Path) -> None:
    """Without tables area and leakage are estimated: of the parts described, not of the vector unit that stands in."""
    machine = read(tmp_path, V3_EYERISS, PROBLEM).machine()
    assert machine.vector.lanes > 10**6
    assert machine.vector.area_mm2 < 1e-6
    assert 1 < static_power_mw(machine) < 100  # 168 elements and 192 KiB at 65 nm


@pytest.mark.parametrize(
    ("text", "loops"),
    [
        ("dimensions: [M, N, K]; A: [M, K]; B: [K, N]; Z: [M, N]; M: 8, N: 6, K: 4", Loops(K=8, N=6, C=4)),
        ("dimensions: [B, H, M, N, E]; Q: [B, H, M, E]; K: [B, H, N, E]; O: [B, H, M, N]; B: 2, H: 3, M: 4, N: 5, E: 6",
         Loops(G=6, K=4, N=5, C=6)),
        ("dimensions: [C, R, P]; W: [C, R]; I: [C, [[R], [P]]]; O: [C, P]; C: 32, R: 3, P: 14", Loops(G=32, R=3, P=14)),
        ("dimensions: [I, J, A, B]; W: [A, B, I]; X: [I, J]; O: [A, B, J]; I: 3, J: 4, A: 5, B: 6",
         Loops(K=30, N=4, C=3)),
    ],
)  # fmt: skip
def test_operations_of_other_names(tmp_path: Path, text: str, loops: Loops) -> None:
    found = read(tmp_path, einsum(text))
    assert found.layer is not None
    assert found.layer.loops == loops


def einsum(text: str) -> str:
    """`dimensions; first; second; output; sizes` as a problem."""
    dims, first, second, output, instance = (part.strip() for part in text.split(";"))
    named = [part.split(": ", 1) for part in (first, second, output)]
    spaces = [f"    - {{name: {name}, projection: {ranks}}}" for name, ranks in named]
    spaces[2] = spaces[2][:-1] + ", read_write: true}"
    head = f"problem:\n  shape:\n    name: op\n    {dims}\n    data_spaces:\n"
    return head + "\n".join(spaces) + f"\n  instance: {{{instance}}}\n"


def test_a_mapping_of_loops_that_are_one_loop_here(tmp_path: Path) -> None:
    """Batch and heads are one loop of both; every loop of the mapping stays where it was."""
    problem = einsum("dimensions: [B, H, M, E]; Q: [B, H, E]; K: [B, H, M, E]; O: [B, H, M]; B: 2, H: 3, M: 4, E: 6")
    mapping = (
        "mapping:\n- {target: dram, type: temporal, factors: B=2 M=2 H=1 E=1}\n"
        "- {target: PE, type: spatial, factors: H=3, split: 1, permutation: [H, B, M, E]}\n"
        "- {target: rf, type: temporal, factors: E=6 M=2}\n"
    )
    arch = NETWORKS.replace("meshX: 4, meshY: 4", "meshX: 4")
    found = read(tmp_path, arch, problem, mapping)
    machine = found.machine()
    assert found.layer is not None
    assert found.nest is not None
    assert validate(found.nest, found.layer, machine) == []
    assert count_accesses(found.layer, found.nest, machine).reads("dram", "weight") == 2 * 2 * 3 * 6
    assert "one loop G of 6" in " ".join(entry.text for entry in found.report.of("approximated"))


def test_the_named_convolution_of_old_problems(tmp_path: Path) -> None:
    found = read(tmp_path, "problem: {shape: cnn-layer, C: 4, K: 8, R: 3, S: 3, P: 6, Q: 5, N: 1, Wstride: 2}\n")
    assert found.layer is not None
    assert (found.layer.name, found.layer.stride) == ("cnn-layer", (2, 1))
    assert found.layer.loops == Loops(C=4, K=8, R=3, S=3, P=6, Q=5)
    with pytest.raises(SpecError, match=r"0.yaml:1: .*only cnn-layer is known, not 'gemm-abc'"):
        read(tmp_path, "problem: {shape: gemm-abc, M: 4, N: 8, K: 3}\n")


def test_a_libconfig_file_is_told_as_such(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "eyeriss.cfg").write_text('arch :\n{\n  arithmetic : { name = "MACs"; instances = 256; };\n};\n')
    assert main([str(tmp_path / "eyeriss.cfg"), "--to", str(tmp_path / "out")]) == 2
    assert "libconfig" in capsys.readouterr().err


def test_zigzag_registers_at_crossing_dimensions_and_an_attention(tmp_path: Path) -> None:
    """Weights per D1 D2, sums per D1 D3 D4: the sums' register per element, at half its price along D2."""
    for name, text in (("hardware", ZIGZAG), ("mapping", ZIGZAG_MAPPING), ("workload", ZIGZAG_WORKLOAD)):
        (tmp_path / f"{name}.yaml").write_text(text)
    found = translate("zigzag", sorted(tmp_path.glob("*.yaml")))
    assert found.machine is not None
    assert found.workload is not None
    assert [node.name for node in found.machine.hierarchy if isinstance(node, Array)] == ["array_D1_D2", "array_D3_D4"]
    assert {m.name: m.read_energy_pj for m in found.machine.memories}["rf_o"] == pytest.approx(0.02 / 2)
    assert [layer.loops for layer in found.workload.layers] == [Loops(N=8, K=64, C=100), Loops(G=8, N=8, K=16, C=32)]


def test_scalesim_with_user_bandwidth_and_windows_line_ends(tmp_path: Path) -> None:
    (tmp_path / "a.cfg").write_text(SCALESIM)
    rows = ["Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides,",
            "Conv1, 227, 227, 11, 11, 3, 96, 4,", "", "FC6, 1, 1, 1, 1, 9216, 4096, 1,"]  # fmt: skip
    (tmp_path / "a.csv").write_bytes("\r\n".join(rows).encode())
    found = translate("scalesim", [tmp_path / "a.cfg", tmp_path / "a.csv"])
    assert found.machine is not None
    assert found.workload is not None
    assert found.machine.outermost.read_bandwidth_bits_per_cycle == 80
    banks = SCALESIM.replace("IfmapSRAMBankBandwidth: 10", "IfmapSRAMBankBandwidth: 4")
    (tmp_path / "a.cfg").write_text(banks)  # its v3 reads at the banks' bandwidth, not at the interface's
    outermost = translate("scalesim", [tmp_path / "a.cfg"]).machine.outermost  # type: ignore[union-attr]
    assert outermost.read_bandwidth_bits_per_cycle == 32
    assert outermost.write_bandwidth_bits_per_cycle == 80
    assert [layer.loops for layer in found.workload.layers] == [
        Loops(P=55 * 55, C=363, K=96),
        Loops(P=1, C=9216, K=4096),
    ]


V3 = """
architecture:
  version: 0.3
  subtree:
  - name: System
    local:
    - name: MainMemory
      class: DRAM
      attributes:
        width: 256
        block-size: 32
        word-bits: 8
    subtree:
    - name: PE
      local:
      - name: Buffer
        class: regfile
        attributes:
          depth: 64
          width: 8
          block-size: 1
          word-bits: 8
      - name: MACC
        class: intmac
        attributes:
          datawidth: 8
"""
V3_EYERISS = """
architecture:
  version: 0.3
  subtree:
    - name: system
      local:
        - name: DRAM
          class: DRAM
          attributes:
            type: LPDDR4
            width: 64
            block-size: 4
            word-bits: 16
      subtree:
        - name: eyeriss
          attributes:
            technology: 65nm
          local:
            - name: shared_glb
              class: smartbuffer_SRAM
              attributes:
                memory_depth: 16384
                memory_width: 64
                n_banks: 32
                block-size: 4
                word-bits: 16
                read_bandwidth: 16
                write_bandwidth: 16
            - name: DummyBuffer[0..13] # for better mapping
              class: regfile
              attributes:
                depth: 16
                width: 16
                word-bits: 16
                block-size: 1
                meshX: 14
          subtree:
          - name: PE[0..167]
            local:
              - name: ifmap_spad
                class: smartbuffer_RF
                attributes:
                  memory_depth: 12
                  memory_width: 16
                  block-size: 1
                  word-bits: 16
                  meshX: 14
                  read_bandwidth: 2
                  write_bandwidth: 2
              - name: weights_spad
                class: smartbuffer_RF
                attributes:
                  memory_depth: 192
                  memory_width: 16
                  block-size: 1
                  word-bits: 16
                  meshX: 14
                  read_bandwidth: 2
                  write_bandwidth: 2
              - name: psum_spad
                class: smartbuffer_RF
                attributes:
                  memory_depth: 16
                  memory_width: 16
                  update_fifo_depth: 2
                  block-size: 1
                  word-bits: 16
                  meshX: 14
                  read_bandwidth: 2
                  write_bandwidth: 2
              - name: mac
                class: intmac
                attributes:
                  datawidth: 16
                  meshX : 14
"""
V3_CONSTRAINTS = """
architecture_constraints:
  targets:
  # certain buffer only stores certain datatypes
  - target: psum_spad
    type: bypass
    bypass: [Inputs, Weights]
    keep: [Outputs]
  - target: weights_spad
    type: bypass
    bypass: [Inputs, Outputs]
    keep: [Weights]
  - target: ifmap_spad
    type: bypass
    bypass: [Weights, Outputs]
    keep: [Inputs]
  - target: DummyBuffer
    type: bypass
    bypass: [Inputs, Outputs, Weights]
  - target: shared_glb
    type: bypass
    bypass: [Weights]
    keep: [Inputs, Outputs]
  - target: DummyBuffer
    type: spatial
    split: 4
    permutation: NPQR SCM
    factors: N=1 P=1 Q=1 R=1 S=0
  # only allow fanout of M, Q out from glb
  - target: shared_glb
    type: spatial
    split: 7
    permutation: NCPRSQM
    factors: N=1 C=1 P=1 R=1 S=1
  # one ofmap position but of different output channels
  - target: psum_spad
    type: temporal
    permutation: NCPQRS M
    factors: N=1 C=1 R=1 S=1 P=1 Q=1
  # row stationary -> 1 row at a time
  - target: weights_spad
    type: temporal
    permutation: NMPQS CR
    factors: N=1 M=1 P=1 Q=1 S=1 R=0
  - target: ifmap_spad
    type: temporal
    permutation: NMCPQRS
    factors: N=1 M=1 C=1 P=1 Q=1 R=1 S=1
  # enforce the hardware limit of the bypassing everything
  - target: DummyBuffer
    type: temporal
    factors: N=1 M=1 C=1 P=1 Q=1 R=1 S=1
mapspace_constraints:
  targets:
  - target: DRAM
    type: temporal
    permutation: RSP CMNQ
    factors: R=1 S=1 P=1
"""
PROBLEM = """
problem:
  version: 0.4
  shape:
    name: conv
    dimensions: [C, M, R, S, N, P, Q]
    coefficients: [{name: Wstride, default: 1}, {name: Hstride, default: 1}]
    data_spaces:
    - name: Weights
      projection: [[[C]], [[M]], [[R]], [[S]]]
    - name: Inputs
      projection:
      - - - N
      - - - C
      - - - R
        - - P
          - Wstride
      - - - S
        - - Q
          - Hstride
    - name: Outputs
      projection: [[[N]], [[M]], [[Q]], [[P]]]
      read_write: true
  instance: {C: 64, M: 64, R: 3, S: 3, N: 1, P: 56, Q: 56}
"""
VARIABLES = """
variables:
  version: 0.4
  global_cycle_seconds: 5e-10
  technology: "22nm"
  ROWS: 8
  WORD: 16
  NBUF: (2 ** 10)
architecture:
  version: 0.4
  nodes:
  - !Container &top
    name: system
    attributes: {technology: technology, global_cycle_seconds: global_cycle_seconds}
  - !Component
    name: backing
    class: DRAM
    attributes: &reg {datawidth: WORD, width: WORD * 4}
  - !Component
    name: weight_buffer
    class: SRAM
    attributes: {depth: NBUF if ROWS > 4 else 256, width: 64, datawidth: WORD, read_bandwidth: ROWS / 2}
    constraints:
      dataspace: {keep_only: [Weights]}
  - !Component
    name: io_buffer
    class: SRAM
    attributes: {depth: ceil(log2(NBUF)) * 100, width: 64, datawidth: WORD}
    constraints:
      dataspace: {bypass_only: [Weights]}
  - !Component
    name: row_register
    class: regfile
    spatial: {meshY: ROWS}
    attributes: {depth: 4, <<: *reg, width: WORD}
    constraints:
      dataspace: {keep: [Inputs], bypass: [Weights, Outputs]}
      spatial: {factors_only: [C=8]}
  - !Component
    name: mac
    class: intmac
    spatial: {meshX: 4}
    attributes: {multiplier_width: WORD, adder_width: 2 * WORD}
    constraints:
      spatial: {no_iteration_over_dataspaces: [Inputs], maximize_dims: [[M]]}
"""
NETWORKS = """
architecture:
  version: 0.4
  nodes:
  - !Component {name: dram, class: DRAM, attributes: {width: 64, datawidth: 8}}
  - !Component {name: noc, class: XY_NoC, attributes: {datawidth: 8}}
  - !Component
    name: gb
    class: smartbuffer_SRAM
    attributes: {sizeKB: 128, width: 64, datawidth: 8, shared_bandwidth: 8, bank_rows: 4, multiple_buffering: 2}
  - !Hierarchical
    nodes:
    - !Container {name: PE, spatial: {meshX: 4, meshY: 4}}
    - !Component {name: rf, class: regfile, attributes: {entries: 128, datawidth: 8}, enabled: True}
    - !Component {name: unused, class: regfile, attributes: {entries: 128, datawidth: 8}, enabled: False}
  - !Component {name: mac, class: fpmac, attributes: {width: 8}}
"""
ZIGZAG = """
name: meta_like
memories:
  rf_w:
    size: 8
    r_cost: 0.01
    w_cost: 0.01
    area: 0
    latency: 1
    operands: [I2]
    ports:
      - {name: r_port_1, type: read, bandwidth_min: 8, bandwidth_max: 8, allocation: ["I2, tl"]}
      - {name: w_port_1, type: write, bandwidth_min: 8, bandwidth_max: 8, allocation: ["I2, fh"]}
    served_dimensions: [D3, D4]
  rf_o:
    size: 16
    r_cost: 0.02
    w_cost: 0.02
    area: 0
    latency: 1
    operands: [O]
    ports:
      - {name: r_port_1, type: read, bandwidth_min: 16, bandwidth_max: 16, allocation: ["O, tl"]}
      - {name: r_port_2, type: read, bandwidth_min: 16, bandwidth_max: 16, allocation: ["O, th"]}
      - {name: w_port_1, type: write, bandwidth_min: 16, bandwidth_max: 16, allocation: ["O, fh"]}
      - {name: w_port_2, type: write, bandwidth_min: 16, bandwidth_max: 16, allocation: ["O, fl"]}
    served_dimensions: [D2]
  lb_w:
    size: 524288
    r_cost: 6.27
    w_cost: 6.27
    area: 0
    latency: 1
    operands: [I2]
    ports:
      - {name: rw_port_1, type: read_write, bandwidth_min: 64, bandwidth_max: 512, allocation: ["I2, tl", "I2, fh"]}
    served_dimensions: [D1, D2, D3, D4]
  gb:
    size: 8388608
    r_cost: 100
    w_cost: 130
    area: 0
    latency: 1
    operands: [I1, O]
    ports:
      - {name: r_port_1, type: read, bandwidth_min: 64, bandwidth_max: 512, allocation: ["I1, tl", "O, tl", "O, th"]}
      - {name: w_port_1, type: write, bandwidth_min: 64, bandwidth_max: 512, allocation: ["I1, fh", "O, fh", "O, fl"]}
    served_dimensions: [D1, D2, D3, D4]
  dram:
    size: 10000000000
    r_cost: 700
    w_cost: 750
    area: 0
    latency: 1
    operands: [I1, I2, O]
    ports:
      - {name: rw_port_1, type: read_write, bandwidth_min: 64, bandwidth_max: 64,
         allocation: ["I1, fh", "I1, tl", "I2, fh", "I2, tl", "O, fh", "O, tl", "O, fl", "O, th"]}
    served_dimensions: [D1, D2, D3, D4]
operational_array:
  input_precision: [8, 8]
  unit_energy: 0.04
  unit_area: 1
  dimensions: [D1, D2, D3, D4]
  sizes: [32, 2, 4, 4]
"""
ZIGZAG_MAPPING = """
- name: default
  spatial_mapping:
    D1: ["K, 32"]
    D2: ["C, 2"]
    D3: ["OX, 4"]
    D4: ["OY, 4"]
  memory_operand_links: {O: O, W: I2, I: I1}
"""
ZIGZAG_WORKLOAD = """
- id: 0
  name: fc
  operator_type: Gemm
  equation: O[b][k]+=W[k][c]*I[b][c]
  loop_dims: [B, K, C]
  loop_sizes: [8, 64, 100]
  operand_precision: {W: 8, I: 8, O: 16, O_final: 8}
  operand_source: {W: 0, I: 0}
- id: 1
  name: attn
  operator_type: MatMul
  equation: O[b][h][m][n]+=W[b][h][e][n]*I[b][h][m][e]
  loop_dims: [B, H, M, N, E]
  loop_sizes: [2, 4, 8, 16, 32]
  operand_precision: {W: 8, I: 8, O: 16, O_final: 8}
  operand_source: {W: 0, I: 0}
"""
SCALESIM = """
[general]
run_name = scale_example_run_32x32_os

[architecture_presets]
ArrayHeight:    32
ArrayWidth:     32
IfmapSramSzkB:    64
FilterSramSzkB:   64
OfmapSramSzkB:    64
IfmapOffset:    0
FilterOffset:   10000000
OfmapOffset:    20000000
Bandwidth : 10
Dataflow : os
MemoryBanks:   1
ReadRequestBuffer: 32
WriteRequestBuffer: 32

[layout]
IfmapCustomLayout: False
IfmapSRAMBankBandwidth: 10
IfmapSRAMBankNum: 10
IfmapSRAMBankPort: 2
FilterCustomLayout: False
FilterSRAMBankBandwidth: 10
FilterSRAMBankNum: 10
FilterSRAMBankPort: 2

[sparsity]
SparsitySupport : false
SparseRep : ellpack_block
OptimizedMapping : false
BlockSize : 8
RandomNumberGeneratorSeed : 40

[run_presets]
InterfaceBandwidth: USER
UseRamulatorTrace: False
"""

METADATA = """
architecture:
  version: 0.3
  subtree:
  - name: system
    attributes: {technology: 45nm}
    local:
    - name: Backing
      class: SRAM_metadata
      attributes: {data_storage_depth: 512, data_storage_width: 32, datawidth: 8, block_size: 4,
                   metadata_storage_depth: 128}
    subtree:
    - name: PE
      local:
      - name: Buffer
        class: storage
        subclass: regfile_metadata
        attributes: {data_storage_depth: 64, data_storage_width: 8, datawidth: 8, block_size: 1}
      - name: MAC
        class: compute
        subclass: intmac
        attributes: {datawidth: 8, precision: 3}
"""
