"""Reading machines: every mistake is named with file, line and key, all at once; shipped specs say what they must."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from hwsim.accelerator import main
from hwsim.errors import SpecError
from hwsim.files.strict_yaml import number_hint
from hwsim.machine.load import load_accelerator, shipped_specs, spec_folder
from hwsim.machine.parts import Array, Memory
from hwsim.machine.yaml_keys import json_schema, key_table

ROOT = Path(__file__).resolve().parents[2]
SMALL = """\
name: small
clock_mhz: 100
node_nm: 65
source: made for this test
hierarchy:
  - {memory: dram, size_bits: unlimited, keeps: [weight, input, output], word_bits: 64, read_energy_pj: 100,
     write_energy_pj: 100, read_bandwidth_bits_per_cycle: 64, write_bandwidth_bits_per_cycle: 64, source: here}
  - memory: buffer
    size_bits: 65_536
    keeps: [weight, input, output]
    bypass: [weight]
    word_bits: 32
    packing: floor
    read_energy_pj: 2.5
    write_energy_pj: 2.5
    partitions: {weight: 16_384, input: 16_384, output: 32_768}
    source: here
    estimated: all of it
  - array: grid
    axes:
      rows: {size: 4, dims: [C, R]}
      columns: {size: 4, dims: [K, P], max_dims: 1}
    hop_energy_pj_per_bit: 0.1
    source: here
mac:
  style: subword
  weight_bits: 8
  input_bits: 8
  accumulator_bits: 32
  energy_pj: 0.4
  modes:
    - {weight_bits: 8, input_bits: 8, macs_per_cycle: 1, energy_pj: 0.4}
    - {weight_bits: 4, input_bits: 4, macs_per_cycle: 4, energy_pj: 0.1}
  latches: [output]
  lanes: [C]
  source: here
vector: {lanes: 4, energy_pj_per_op: 1, lookup_energy_pj: 1, source: here}
capabilities: {weight_bits: 1..8, activation_bits: [4, 8], output_bits: [4, 8, 32]}
"""


def problems(text: str | bytes, folder: Path) -> list[str]:
    """What the loader says about a file with this text."""
    path = folder / "accel.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SpecError) as caught:
        load_accelerator(path)
    return [line.replace(f"{path}:", "accel.yaml:") for line in caught.value.problems]


def changed(old: str, new: str) -> str:
    """The small spec with one text replaced (which must be there)."""
    assert SMALL.count(old) >= 1, old
    return SMALL.replace(old, new, 1)


def test_ports_move_what_is_on_its_way_over_its_latency(tmp_path: Path) -> None:
    """Little's law: 4,096 bits in flight and 128 cycles are 32 bits per cycle, whatever wider wires could carry."""

    def ports(more: str, old: str = "write_bandwidth_bits_per_cycle: 64, source") -> tuple[float | None, float | None]:
        path = tmp_path / "accel.yaml"
        path.write_text(changed(old, f"write_bandwidth_bits_per_cycle: 24, {more}source"))
        dram = load_accelerator(path).outermost
        return dram.read_bandwidth_bits_per_cycle, dram.write_bandwidth_bits_per_cycle

    assert ports("") == (64, 24)
    assert ports("latency_cycles: 128, outstanding_bits: 4_096, ") == (32, 24)
    assert ports("latency_cycles: 100, outstanding_bits: 2_000, efficiency: 0.5, ") == (20, 12)
    assert ports("latency_cycles: 10, outstanding_bits: 100_000, ") == (64, 24)
    none = "read_bandwidth_bits_per_cycle: 64, write_bandwidth_bits_per_cycle: 64, source"
    path = tmp_path / "free.yaml"
    path.write_text(changed(none, "latency_cycles: 128, outstanding_bits: 4_096, source"))
    free = load_accelerator(path).outermost
    assert (free.read_bandwidth_bits_per_cycle, free.write_bandwidth_bits_per_cycle) == (32, 32)


def test_ports_sustain_their_efficiency(tmp_path: Path) -> None:
    path = tmp_path / "accel.yaml"
    path.write_text(
        changed(
            "write_bandwidth_bits_per_cycle: 64, source", "write_bandwidth_bits_per_cycle: 32, efficiency: 0.75, source"
        )
    )
    dram = load_accelerator(path).outermost
    assert (dram.read_bandwidth_bits_per_cycle, dram.write_bandwidth_bits_per_cycle) == (48.0, 24.0)


def test_control_power_is_read(tmp_path: Path) -> None:
    path = tmp_path / "accel.yaml"
    path.write_text(changed("node_nm: ", "control_power_mw: 7.5\nnode_nm: "))
    assert load_accelerator(path).control_power_mw == 7.5


def test_a_spec_becomes_the_machine_it_draws(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL, encoding="utf-8")
    machine = load_accelerator(path)
    dram, buffer = machine.memories
    (grid,) = machine.arrays
    assert [type(n) for n in machine.hierarchy] == [Memory, Memory, Array]
    assert (dram.size_bits, buffer.size_bits, buffer.packing, buffer.bypass) == (None, 65_536, "floor", ("weight",))
    assert buffer.partitions == (("weight", 16_384), ("input", 16_384), ("output", 32_768))
    assert [(a.name, a.size, a.dims, a.max_dims) for a in grid.axes] == [
        ("rows", 4, ("C", "R"), None),
        ("columns", 4, ("K", "P"), 1),
    ]
    assert [m.macs_per_cycle for m in machine.mac.modes] == [1.0, 4.0]
    assert machine.mac.latches == ("output",)
    assert machine.capabilities.weight_bits == tuple(range(1, 9))
    assert machine.mac_units == 16
    assert machine.notes == ("buffer: estimated: all of it",)
    hash(machine)  # frozen all the way down: usable as a cache key


def test_a_register_inside_the_array_may_be_ideal(tmp_path: Path) -> None:
    path = tmp_path / "accel.yaml"
    register = (
        "    source: here\n  - {memory: register, size_bits: 8, keeps: [weight], word_bits: 8, read_energy_pj: 0,\n"
        "     write_energy_pj: 0, source: ideal}\nmac:"
    )
    path.write_text(changed("    source: here\nmac:", register))
    found = load_accelerator(path).memories[-1]
    assert (found.name, found.read_energy_pj, found.write_energy_pj) == ("register", 0.0, 0.0)


# (what, text replaced, replacement, expected words in order: line, key, expectation, value, way out)
MISTAKES = [
    ("unknown key", "clock_mhz:", "clok_mhz:", r"accel.yaml:2: clok_mhz: unknown key; did you mean clock_mhz\?"),
    ("unknown nested key", "packing: floor", "paking: floor", r"yaml:13: hierarchy\[1\].paking: .*mean packing\?"),
    ("unknown axis key", "max_dims: 1", "max_dim: 1", r":22: hierarchy\[2\].axes.columns.max_dim: .*mean max_dims\?"),
    ("hopeless key", "packing: floor", "qqqq: 1", r"hierarchy\[1\].qqqq: unknown key; known keys: .*word_bits"),
    (
        "duplicate key",
        "node_nm: 65",
        "node_nm: 65\nnode_nm: 45",
        r"yaml:4: node_nm: duplicate key, first set in line 3",
    ),
    ("missing key", "node_nm: 65\n", "", r"accel.yaml:1: node_nm: missing key: expected technology node in nm"),
    ("missing nested", "    word_bits: 32\n", "", r":8: hierarchy\[1\].word_bits: missing key: expected bits moved"),
    ("missing style", "  style: subword\n", "", r"mac: key `style`: expected one of fixed, .*a plug-in, got nothing"),
    ("unknown style", "style: subword", "style: magic", r"mac: key `style`: expected one of .* got 'magic'"),
    (
        "neither memory nor array",
        "array: grid",
        "arrray: grid",
        r":19: hierarchy\[2\]: expected an entry with `memory:`",
    ),
    ("empty value", "node_nm: 65", "node_nm:", r"yaml:3: node_nm: no value: write one, or leave the key out"),
    (
        "commas in a text",
        "lookup_energy_pj: 1, source: here}",
        "lookup_energy_pj: 1, source: DDR3, 34 GB/s, rev. 2}",
        r'vector.source: a comma ends a text in {...}: quote the whole of it, source: "DDR3, 34 GB/s, rev. 2"',
    ),
    ("negative size", "65_536", "-5", r":9: hierarchy\[1\].size_bits: expected a number above 0, got -5"),
    ("zero size", "65_536", "0", r"size_bits: expected a number above 0, got 0"),
    ("huge size", "65_536", "99999999999999999999", r"size_bits: expected a number not above 1.1259e\+15, got 9999"),
    ("fractional size", "65_536", "10.5", r"size_bits: expected a whole number, got 10.5"),
    (
        "64k",
        "65_536",
        "64k",
        r"size_bits: expected a whole number, got '64k'; write the number out, for instance 64000",
    ),
    ("8 KiB", "65_536", "8 KiB", r"got '8 KiB'; write the number out, for instance 8192, in the unit that the key"),
    ("hexadecimal", "65_536", "0x100", r"size_bits: expected a whole number, got '0x100'"),
    ("octal", "65_536", "010", r"size_bits: expected a whole number, got '010'"),
    ("sexagesimal", "65_536", "1:30", r"size_bits: expected a whole number, got '1:30'"),
    ("on as a size", "65_536", "on", r"size_bits: expected a whole number, got 'on'"),
    ("quoted number", "65_536", '"65536"', r"size_bits: expected a whole number, got '65536'; leave the quotes out"),
    ("list as a size", "65_536", "[1, 2]", r"size_bits: expected a whole number, got \[1, 2\]"),
    ("true as a number", "clock_mhz: 100", "clock_mhz: true", r"clock_mhz: expected a number, got true"),
    (
        "1e-3 as text",
        "read_energy_pj: 2.5",
        "read_energy_pj: 1e-3",
        r"got '1e-3'; YAML reads 1e-3 as text, write 1.0e-3",
    ),
    (
        "negative energy",
        "read_energy_pj: 2.5",
        "read_energy_pj: -2.5",
        r"read_energy_pj: expected a number not below 0, got -2",
    ),
    ("zero energy", "read_energy_pj: 2.5", "read_energy_pj: 0", r"read_energy_pj: expected a number above 0, got 0"),
    ("NaN", "read_energy_pj: 2.5", "read_energy_pj: .nan", r"read_energy_pj: expected a finite number, got nan"),
    ("infinity", "read_energy_pj: 2.5", "read_energy_pj: .inf", r"read_energy_pj: expected a finite number, got inf"),
    (
        "clock in Hz",
        "clock_mhz: 100",
        "clock_mhz: 100000000",
        r"clock_mhz: expected a number not above 20000, got 1000",
    ),
    ("clock with unit", "clock_mhz: 100", "clock_mhz: 200 MHz", r"clock_mhz: expected a number, got '200 MHz'"),
    (
        "yes as a flag",
        "    source: here\nmac",
        "    systolic: yes\n    source: here\nmac",
        r"systolic: .*'yes'; write true or",
    ),
    (
        "zero bandwidth",
        "read_bandwidth_bits_per_cycle: 64",
        "read_bandwidth_bits_per_cycle: 0",
        r"got 0; leave the key out",
    ),
    (
        "unknown packing",
        "packing: floor",
        "packing: loose",
        r"packing: expected one of dense, floor, padded, got 'loose'",
    ),
    (
        "unknown operand",
        "bypass: [weight]",
        "bypass: [weights]",
        r"hierarchy\[1\].bypass\[0\]: expected one of weight, inp",
    ),
    (
        "keeps nothing",
        "    keeps: [weight, input, output]\n",
        "    keeps: []\n",
        r"a memory that keeps no operand has no purpose",
    ),
    (
        "bypass twice",
        "bypass: [weight]",
        "bypass: [weight, weight]",
        r"hierarchy\[1\].bypass: expected each operand once",
    ),
    (
        "partitions too large",
        "weight: 16_384",
        "weight: 99_999",
        r"partitions: expected at most size_bits 65536 in sum, got",
    ),
    ("partition missing", "weight: 16_384, ", "", r"partitions: expected one capacity for each of keeps"),
    ("inner memory unlimited", "65_536", "unlimited", r"size_bits: expected a whole number: only the outermost memory"),
    (
        "stores inside",
        "    packing: floor\n",
        "    packing: floor\n    stores: [weight]\n",
        r"hierarchy\[1\].stores: expected no such key",
    ),
    (
        "stores no weights",
        "size_bits: unlimited,",
        "size_bits: unlimited, stores: [input],",
        r"hierarchy\[0\].stores: expected weight among them",
    ),
    (
        "outermost keeps too little",
        "keeps: [weight, input, output], word_bits: 64",
        "keeps: [weight], word_bits: 64",
        r"hierarchy\[0\].keeps: expected the outermost memory to keep weight, input and output",
    ),
    ("two of a name", "memory: buffer", "memory: dram", r"hierarchy\[1\]: two levels are called 'dram'"),
    (
        "unknown dim",
        "dims: [C, R]",
        "dims: [C, X]",
        r"axes.rows.dims\[1\]: expected one of N, G, K, C, P, Q, R, S, got 'X'",
    ),
    ("dim twice", "dims: [C, R]", "dims: [C, C]", r"axes.rows: expected each loop once in dims"),
    ("max_dims too large", "max_dims: 1", "max_dims: 3", r"axes.columns: expected max_dims of at most 2"),
    (
        "reduction contradicts",
        "    hop_energy",
        "    reduction: false\n    hop_energy",
        r"axes.rows: contradiction: dims \['C', 'R'\]",
    ),
    (
        "ports contradict",
        "write_bandwidth_bits_per_cycle: 64, source",
        "write_bandwidth_bits_per_cycle: 64, shared_port: true, source",
        r"hierarchy\[0\].write_bandwidth_bits_per_cycle: expected no such key: a shared port",
    ),
    (
        "efficiency of nothing",
        "read_bandwidth_bits_per_cycle: 64, write_bandwidth_bits_per_cycle: 64, source",
        "efficiency: 0.9, source",
        r"hierarchy\[0\].efficiency: expected a bandwidth that it is a share of",
    ),
    (
        "more than a peak",
        "write_bandwidth_bits_per_cycle: 64, source",
        "write_bandwidth_bits_per_cycle: 64, efficiency: 1.1, source",
        r"hierarchy\[0\].efficiency: expected a number not above 1, got 1.1",
    ),
    (
        "latency of nothing",
        "    packing: floor\n",
        "    packing: floor\n    latency_cycles: 30\n",
        r"hierarchy\[1\].outstanding_bits: missing key: a latency bounds a port by the bits",
    ),
    (
        "bits in flight for no time",
        "    packing: floor\n",
        "    packing: floor\n    outstanding_bits: 512\n",
        r"hierarchy\[1\].latency_cycles: missing key: a latency bounds a port",
    ),
    (
        "padding of a memory without inputs",
        "    hop_energy_pj_per_bit: 0.1\n    source: here\n",
        "    source: here\n  - {memory: pad, size_bits: 64, keeps: [weight], word_bits: 8, read_energy_pj: 1,\n"
        "     write_energy_pj: 1, padding: inserted, source: here}\n",
        r"hierarchy\[3\].padding: expected no such key: the border is around inputs, and this keeps \['weight'\]",
    ),
    (
        "padding of another way",
        "    packing: floor\n",
        "    packing: floor\n    padding: free\n",
        r"hierarchy\[1\].padding: expected one of stored, inserted, got 'free'",
    ),
    (
        "compression of nothing",
        "    packing: floor\n",
        "    packing: floor\n    compression: {}\n",
        r"hierarchy\[1\].compression: expected ratios of operands out of keeps",
    ),
    (
        "compression that grows",
        "    packing: floor\n",
        "    packing: floor\n    compression: {weight: 1.2}\n",
        r"hierarchy\[1\].compression.weight: expected a number not above 1, got 1.2",
    ),
    (
        "compression of a word",
        "    packing: floor\n",
        "    packing: floor\n    compression: {weights: 0.8}\n",
        r"hierarchy\[1\].compression.weights: unknown key; did you mean weight",
    ),
    (
        "zeros of words",
        "    packing: floor\n",
        "    packing: floor\n    compression: {input: {zeros: 0.5, coding: bitmap}}\n",
        r"hierarchy\[1\].packing: expected dense, got floor: codes without zeros have no places in words",
    ),
    (
        "runs of no length",
        "    packing: floor\n",
        "    packing: dense\n    compression: {input: {zeros: 0.5, coding: run_length}}\n",
        r"hierarchy\[1\].compression.input.run_bits: missing key: how many bits say a run's length",
    ),
    (
        "runs of a bitmap",
        "    packing: floor\n",
        "    packing: dense\n    compression: {input: {zeros: 0.5, coding: bitmap, run_bits: 5}}\n",
        r"hierarchy\[1\].compression.input.run_bits: expected no such key: a bitmap has no runs",
    ),
    (
        "more zeros than codes",
        "    packing: floor\n",
        "    packing: dense\n    compression: {input: {zeros: 1.5, coding: bitmap}}\n",
        r"hierarchy\[1\].compression.input.zeros: expected a number not above 1, got 1.5",
    ),
    (
        "an unknown coding",
        "    packing: floor\n",
        "    packing: dense\n    compression: {input: {zeros: 0.5, coding: huffman}}\n",
        r"hierarchy\[1\].compression.input.coding: expected one of bitmap, run_length, got 'huffman'",
    ),
    (
        "a coding misspelt",
        "    packing: floor\n",
        "    packing: dense\n    compression: {input: {zero: 0.5, coding: bitmap}}\n",
        r"hierarchy\[1\].compression.input.zero: unknown key; did you mean zeros",
    ),
    (
        "first fill outside",
        "size_bits: unlimited,",
        "size_bits: unlimited, first_fill: exposed,",
        r"hierarchy\[0\].first_fill: expected no such key: only tiles of a double-buffered level inside",
    ),
    (
        "first fill of one buffer",
        "    packing: floor\n",
        "    packing: floor\n    double_buffered: false\n    first_fill: exposed\n",
        r"hierarchy\[1\].first_fill: expected no such key",
    ),
    (
        "first fill inside an array",
        "    hop_energy_pj_per_bit: 0.1\n    source: here\n",
        "    source: here\n  - {memory: pad, size_bits: 64, keeps: [weight], word_bits: 8, read_energy_pj: 1,\n"
        "     write_energy_pj: 1, first_fill: exposed, source: here}\n",
        r"hierarchy\[3\].first_fill: expected no such key: pad lies inside an array",
    ),
    (
        "whole tiles of nothing",
        "    hop_energy_pj_per_bit: 0.1\n",
        "    loads_whole_tiles: true\n",
        r"hierarchy\[2\].loads_whole_tiles: expected a memory directly inside grid that keeps weight, got none",
    ),
    (
        "whole tiles of inputs",
        "    hop_energy_pj_per_bit: 0.1\n    source: here\n",
        "    loads_whole_tiles: true\n    source: here\n  - {memory: pad, size_bits: 64, keeps: [input],\n"
        "     word_bits: 8, read_energy_pj: 1, write_energy_pj: 1, source: here}\n",
        r"hierarchy\[2\].loads_whole_tiles: expected a memory directly inside grid .* got keeps \['input'\]",
    ),
    (
        "whole tiles of two shapes",
        "      columns: {size: 4, dims: [K, P], max_dims: 1}\n    hop_energy_pj_per_bit: 0.1\n    source: here\n",
        "      columns: {size: 4, dims: [K, C]}\n    loads_whole_tiles: true\n    source: here\n"
        "  - {memory: pad, size_bits: 64, keeps: [weight], word_bits: 8, read_energy_pj: 1, write_energy_pj: 1,\n"
        "     source: here}\n",
        r"hierarchy\[2\].loads_whole_tiles: expected every loop of the weights on one axis, got C on several",
    ),
    (
        "granule of lanes",
        "  lanes: [C]\n",
        "  lanes: [C]\n  granules: [{loops: [C, R], size: 4}]\n",
        r"mac.granules\[0\].loops: expected loops that are no lanes, got \['C'\] in both",
    ),
    (
        "granule of one",
        "  lanes: [C]\n",
        "  lanes: [C]\n  granules: [{loops: [R], size: 1}]\n",
        r"mac.granules\[0\].size: expected a number not below 2, got 1",
    ),
    (
        "granule of a loop twice",
        "  lanes: [C]\n",
        "  lanes: [C]\n  granules: [{loops: [R, R], size: 4}]\n",
        r"mac.granules\[0\].loops: expected each loop once, got \['R', 'R'\]",
    ),
    (
        "cheap mode slow",
        "macs_per_cycle: 4, energy",
        "macs_per_cycle: 0.5, energy",
        r"mac.modes\[1\]: contradiction: of two mod",
    ),
    (
        "rates of which wide operands gain",
        "macs_per_cycle: 4, energy",
        "macs_per_cycle: 1.2, energy",
        r"mac.modes\[1\]: contradiction: a step of the faster mode is longer \(1.67 cycles for 2 products, 1 for 1\)",
    ),
    (
        "a narrow mode that sustains less",
        "macs_per_cycle: 4, energy_pj: 0.1",
        "macs_per_cycle: 4, energy_pj: 0.1, sustained: 0.9",
        r"a step of the faster mode is longer .* give the narrower mode the share `sustained` of the wider one$",
    ),
    ("no auto", "read_energy_pj: 2.5", "read_energy_pj: cheap", r"expected a number or auto, got 'cheap'"),
    ("no limit", "size_bits: unlimited", "size_bits: none", r"expected a whole number or unlimited, got 'none'"),
    ("no limit inside", "size_bits: 65_536", "size_bits: none", r"expected a whole number, got 'none'"),
    (
        "no lanes",
        "  lanes: [C]\n",
        "",
        r"mac.lanes: missing key: a unit does 4 products at once \(4x4 mode\); name the loops .* e.g. lanes: \[C\]",
    ),
    (
        "share beside modes",
        "  lanes: [C]\n",
        "  lanes: [C]\n  sustained: 0.9\n",
        r"mac.sustained: expected no such key: every mode states its own",
    ),
    ("share above one", "macs_per_cycle: 1, energy", "macs_per_cycle: 1, sustained: 1.2, energy", r"sustained"),
    ("lane twice", "lanes: [C]", "lanes: [C, C]", r"mac.lanes: expected each loop once, got \['C', 'C'\]"),
    (
        "lanes without use",
        "macs_per_cycle: 4, energy",
        "macs_per_cycle: 1, energy",
        r"mac.lanes: expected no such key: at no width does a unit do more than one product",
    ),
    (
        "native mode missing",
        "- {weight_bits: 8, input_bits: 8,",
        "- {weight_bits: 9, input_bits: 8,",
        r"expected the native 8x8 mode",
    ),
    (
        "native mode differs",
        "  energy_pj: 0.4\n",
        "  energy_pj: 0.5\n",
        r"mac.energy_pj: expected the native mode's 0.4 pJ",
    ),
    (
        "a mode without energy",
        "macs_per_cycle: 4, energy_pj: 0.1",
        "macs_per_cycle: 4",
        r"mac.modes\[1\].energy_pj: missing key: give pJ per MAC, or mac.sum_bits",
    ),
    (
        "weights unpacked for nobody",
        "macs_per_cycle: 4, energy_pj: 0.1",
        "macs_per_cycle: 4, energy_pj: 0.1, unpacks: true",
        r"mac.modes\[1\].unpacks: expected another mode of 0.1 pJ that holds weights wider than 4 bits",
    ),
    (
        "a law beside energies",
        "  lanes: [C]\n",
        "  lanes: [C]\n  sum_bits: 1.3\n",
        r"mac.sum_bits: expected no such key: every mode states its energy",
    ),
    (
        "width beyond the MAC",
        "weight_bits: 1..8",
        "weight_bits: 1..16",
        r"capabilities.weight_bits: expected at most the 8 bits",
    ),
    (
        "width range backwards",
        "weight_bits: 1..8",
        "weight_bits: 8..1",
        r"weight_bits: expected a list \[...\], got '8..1'",
    ),
    (
        "width 0",
        "activation_bits: [4, 8]",
        "activation_bits: [0, 8]",
        r"activation_bits\[0\]: expected a number not below 1, got",
    ),
    ("width twice", "activation_bits: [4, 8]", "activation_bits: [8, 8]", r"activation_bits: expected each width once"),
    (
        "unknown operator",
        "output_bits: [4, 8, 32]",
        "output_bits: [8], operators: [conv, softmx]",
        r"unknown operator 'softmx'; did you mean softmax",
    ),
    (
        "gating without saving",
        "output_bits: [4, 8, 32]",
        "output_bits: [8], zero_gating: [input]",
        r"zero_gating_saving: missing",
    ),
    (
        "alias",
        "keeps: [weight, input, output], word_bits: 64",
        "keeps: &all [weight, input, output], bypass: *all, word_bits: 64",
        r"yaml:6: hierarchy\[0\].bypass: aliases \(\*name\) are not allowed",
    ),
    ("cyclic alias", "node_nm: 65", "node_nm: &n [1, *n]", r"yaml:3: node_nm\[1\]: aliases \(\*name\) are not allowed"),
    ("tag", "node_nm: 65", "node_nm: !!python/object/apply:os.system [ls]", r"yaml:3: node_nm: tag .* is not allowed"),
    ("not YAML", "node_nm: 65", "node_nm: [65", r"accel.yaml:\d+: not valid YAML"),
    ("tab", "node_nm: 65", "\tnode_nm: 65", r"accel.yaml:3: not valid YAML"),
    ("two documents", "node_nm: 65", "---\nnode_nm: 65", r"accel.yaml:\d+: not valid YAML: but found another document"),
    ("name of digits", "name: small", "name: 123", r"name: expected text, got 123"),
    ("name with spaces", "name: small", "name: a b", r"name: expected a name of letters, digits"),
    ("no source", "source: made for this test\n", "", r"source: missing key: expected where the numbers come from"),
]


@pytest.mark.parametrize(("old", "new", "words"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES])
def test_a_mistake_is_named(old: str, new: str, words: str, tmp_path: Path) -> None:
    found = problems(changed(old, new), tmp_path)
    assert any(re.search(words, line) for line in found), found
    assert len(found) == 1, found
    assert all(re.match(r"accel.yaml:\d+: ", line) for line in found)


def test_all_mistakes_are_named_at_once_in_the_files_order(tmp_path: Path) -> None:
    text = (
        changed("clock_mhz: 100", "clock_mhz: -1").replace("65_536", "64k").replace("packing: floor", "packng: floor")
    )
    found = problems(text.replace("lanes: 4", "lanes: 0"), tmp_path)
    assert [re.match(r"accel.yaml:(\d+): ([^:]*)", line).groups() for line in found] == [  # type: ignore[union-attr]
        ("2", "clock_mhz"),
        ("9", "hierarchy[1].size_bits"),
        ("13", "hierarchy[1].packng"),
        ("37", "vector.lanes"),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "file is empty"),
        ("# only a comment\n", "file is empty"),
        ("- a\n- b\n", r"expected keys and values, got \['a', 'b'\]"),
        ("42\n", "expected keys and values, got 42"),
        (bytes(range(256)), "not a text file"),
        (b"a: \x07\n", "not valid YAML"),
        ("x: 1\n" * 100_000, "larger than 256 KiB"),
        ("[" * 50_000, "not valid YAML: nested too deeply"),
        (SMALL[: len(SMALL) // 2], "accel.yaml:"),
        ("hierarchy: []\n", "hierarchy: expected a list of at least 1"),
    ],
)
def test_files_that_are_no_spec(text: str | bytes, words: str, tmp_path: Path) -> None:
    found = problems(text, tmp_path)
    assert any(re.search(words, line) for line in found), found


@pytest.mark.parametrize("cut", range(40, len(SMALL), 61))
def test_a_truncated_file_never_passes_nor_crashes(cut: int, tmp_path: Path) -> None:
    assert problems(SMALL[:cut], tmp_path)


def test_an_operand_bypassed_but_not_kept(tmp_path: Path) -> None:
    text = changed("    keeps: [weight, input, output]\n", "    keeps: [input, output]\n")
    found = problems(text.replace("weight: 16_384, ", ""), tmp_path)
    place = "accel.yaml:11: hierarchy[1].bypass: "
    assert found == [place + "expected operands out of keeps ['input', 'output'], got ['weight']"]


def test_a_hierarchy_that_starts_with_an_array(tmp_path: Path) -> None:
    start, end = SMALL.index("  - {memory: dram"), SMALL.index("  - array")
    found = problems(SMALL[:start] + SMALL[end:], tmp_path)
    assert found == ["accel.yaml:6: hierarchy[0]: expected the outermost memory first, got array 'grid'"]


def test_a_mode_without_energy_follows_the_law_of_widths(tmp_path: Path) -> None:
    text = changed("macs_per_cycle: 4, energy_pj: 0.1", "macs_per_cycle: 4").replace(
        "lanes: [C]", "lanes: [C]\n  sum_bits: 2"
    )
    (tmp_path / "law.yaml").write_text(text)
    modes = load_accelerator(tmp_path / "law.yaml").mac.modes
    assert [mode.energy_pj for mode in modes] == pytest.approx([0.4, 0.4 * (16 + 2 * 8) / (64 + 2 * 16)])


COLONNADE = (spec_folder() / "colonnade.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("columns: 128, sum", "columns: 12, sum", "mac.columns: expected at least the 15 columns of one native weight"),
        ("columns: 128, sum", "sum", "mac.sum_columns: expected mac.columns beside it"),
        (
            "rows: 128,",
            "rows: 128, adc_bits: 5,",
            "mac.adc_energy_pj: missing key: a converter of adc_bits has a price",
        ),
    ],
)
def test_rows_of_columns_that_cannot_be(old: str, new: str, said: str, tmp_path: Path) -> None:
    assert COLONNADE.count(old) == 1
    found = problems(COLONNADE.replace(old, new), tmp_path)
    assert len(found) == 1
    assert said in found[0]


def test_missing_files_folders_and_names(tmp_path: Path) -> None:
    for wanted, words in (
        ("eyeris_v1", "did you mean eyeriss_v1"),
        (tmp_path, "is a folder"),
        (tmp_path / "none.yaml", "no such file or shipped spec"),
        ("nul\0byte", "no such file"),
        ("x" * 5000, "no such file"),
    ):
        with pytest.raises(SpecError, match=words):
            load_accelerator(wanted)


def test_number_hints() -> None:
    assert "1048576" in number_hint("1Mi")
    assert "100000" in number_hint("0.1M")
    assert number_hint(12) == ""
    assert number_hint("fast") == ""


# --- what is shipped --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", shipped_specs())
def test_shipped_specs_load_and_name_their_sources(name: str) -> None:
    path = spec_folder() / f"{name}.yaml"
    machine = load_accelerator(name)
    assert machine == load_accelerator(path)
    assert machine.name == name
    parts = [*machine.hierarchy, machine.mac, machine.vector]
    assert all(part.source for part in parts)
    assert machine.sources
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# yaml-language-server: $schema=../hwsim/machine/accelerator.schema.json\n")
    assert len(text.splitlines()) <= 60


@pytest.mark.long
@pytest.mark.parametrize("name", shipped_specs())
def test_shipped_specs_satisfy_the_published_schema(name: str) -> None:
    schema = json.loads((ROOT / "hwsim" / "machine" / "accelerator.schema.json").read_text(encoding="utf-8"))
    data = yaml.safe_load((spec_folder() / f"{name}.yaml").read_text(encoding="utf-8"))
    jsonschema.validate(data, schema)
    data["clok_mhz"] = 1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, schema)


@pytest.mark.parametrize(
    "key", ["node_nm", "clock_mhz", "read_bandwidth_bits_per_cycle", "write_bandwidth_bits_per_cycle"]
)
def test_numbers_so_small_that_prices_leave_the_floats_are_refused(key: str, tmp_path: Path) -> None:
    text = (ROOT / "accel_specs" / "eyeriss_v1.yaml").read_text(encoding="utf-8")
    path = tmp_path / "tiny.yaml"
    path.write_text(re.sub(rf"\b{key}: [0-9._]+", f"{key}: 1.0e-300", text, count=1), encoding="utf-8")
    with pytest.raises(SpecError, match=f"{key}: .*1e-300"):
        load_accelerator(path)


def test_the_published_schema_and_key_table_are_up_to_date() -> None:
    """After a change: python -m hwsim.accelerator --schema, and --keys into accel_specs/README.md."""
    assert (ROOT / "hwsim" / "machine" / "accelerator.schema.json").read_text(encoding="utf-8") == json_schema()
    assert key_table() in (ROOT / "accel_specs" / "README.md").read_text(encoding="utf-8")


def test_first_specs_have_their_published_sizes() -> None:
    eyeriss, tpu, fusion, t4 = (load_accelerator(n) for n in ("eyeriss_v1", "tpu_v1", "bit_fusion", "t4"))
    assert eyeriss.mac_units == 168
    assert sum(m.size_bits or 0 for m in eyeriss.memories[1:3]) == 108 * 1024 * 8
    assert eyeriss.mac_units * eyeriss.clock_mhz == 33_600  # 33.6 GMAC/s
    assert tpu.mac_units * tpu.clock_mhz * 2 / 1e6 == pytest.approx(92, rel=0.01)  # TOPS
    assert sum(m.size_bits or 0 for m in tpu.memories if m.name in ("unified_buffer", "accumulators")) == 28 * 2**23
    assert fusion.mac_units == 512
    peaks = {"l40s": [366] * 3 + [733], "h200": [989] * 3 + [1979], "b200": [2250] * 3 + [4500, 9000]}
    for name, rates in peaks.items():
        gpu = load_accelerator(name)
        tops = [gpu.mac_units * gpu.clock_mhz * 2 / 1e6 * mode.macs_per_cycle for mode in gpu.mac.modes]
        assert tops == pytest.approx(rates, rel=0.01)
    assert [t4.mac_units * t4.clock_mhz * 2 / 1e6 * mode.macs_per_cycle for mode in t4.mac.modes] == pytest.approx(
        [65, 65, 65, 130, 260], rel=0.01
    )


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("elements: [e2m1]}", "elements: [e2m1, e9]}", "elements"),
        ("macs_per_cycle: 2, energy_pj: 0.05", "macs_per_cycle: 0.5, energy_pj: 0.05", "the cheaper is the slower"),
        ("elements: [int, fp16, bf16, e5m2", "elements: [int, fp16, e5m2", "expected some of capabilities.elements"),
        ("elements: [int, e5m2, e4m3", "elements: [e5m2, e4m3", "expected a mode of the MAC for int: none names it"),
        ("group_scales: [mac, unpack", "group_scales: [unpack", "expected mac among group_scales"),
    ],
)
def test_elements_of_modes_are_those_that_the_machine_multiplies(tmp_path: Path, old: str, new: str, said: str) -> None:
    text = (spec_folder() / "b200.yaml").read_text(encoding="utf-8")
    assert text.count(old) == 1
    path = tmp_path / "accel.yaml"
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(SpecError, match=said):
        load_accelerator(path)


def test_bare_names_resolve_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "eyeriss_v1").mkdir()  # a folder of that name must not hide the spec
    monkeypatch.chdir(tmp_path)
    assert load_accelerator("eyeriss_v1").mac_units == 168


def test_the_command_checks_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eyeriss_v1"]) == 0
    assert "ok, 168 MAC units" in capsys.readouterr().out
    bad = tmp_path / "bad.yaml"
    bad.write_text(changed("65_536", "64k"), encoding="utf-8")
    assert main([str(bad)]) == 2
    assert "size_bits" in capsys.readouterr().err
    assert main(["--schema"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "hwsim accelerator"


def test_pydantic_is_imported_by_the_machine_room_only() -> None:
    for path in (ROOT / "hwsim").rglob("*.py"):
        if path.parent.name != "machine":
            assert "pydantic" not in re.sub(r'""".*?"""', "", path.read_text(encoding="utf-8"), flags=re.DOTALL), path


def test_importing_the_loader_is_quick() -> None:
    """Well below the aim of 0.25 s on its own; the bound leaves room for a busy machine."""
    code = "import time; t = time.process_time(); import hwsim.machine.load; print(time.process_time() - t)"
    runs = [
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True) for _ in "ab"
    ]
    assert min(float(run.stdout) for run in runs) < 1.0


OVERHEADS = (ROOT / "docs" / "counting.md").read_text(encoding="utf-8").split("| overhead | seen on | key |")[1]
KEYS = sorted(set(re.findall(r"`([a-z_]+)(?::[^`]*)?`", "\n".join(re.findall(r"^\|.*\|(.*)\|$", OVERHEADS, re.M)))))


@pytest.mark.parametrize("key", [key for key in KEYS if key != "vector"])
def test_every_key_of_an_overhead_is_in_schema_key_table_and_tests(key: str) -> None:
    schema = (ROOT / "hwsim" / "machine" / "accelerator.schema.json").read_text(encoding="utf-8")
    table = (ROOT / "accel_specs" / "README.md").read_text(encoding="utf-8")
    assert f'"{key}"' in schema
    assert re.search(rf"^\| `{key}` \| .+ \| .+ \|$", table, re.M)
    tests = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")]
    assert any(f"{key}=" in text or f"{key}:" in text or f'"{key}"' in text for text in tests)
