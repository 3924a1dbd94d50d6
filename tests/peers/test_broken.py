"""Broken, odd and hostile descriptions: one message with file and line, exit code 2, nothing written or executed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hwsim.convert import main

ARCH = """architecture:
  version: 0.4
  nodes:
  - !Container
    name: system
    attributes: {technology: "40nm", global_cycle_seconds: 1e-9}
  - !Component
    name: DRAM
    class: DRAM
    attributes: {width: 64, datawidth: 8}
  - !Container
    name: PE
    spatial: {meshX: 4}
  - !Component
    name: Buf
    class: regfile
    attributes: {depth: 64, width: 8, datawidth: 8}
  - !Component
    name: MAC
    class: intmac
    attributes: {multiplier_width: 8, adder_width: 16}
"""
PROBLEM = """problem:
  shape:
    name: layer
    dimensions: [K, R, P]
    data_spaces:
    - {name: Weights, projection: [[[K]], [[R]]]}
    - {name: Inputs, projection: [[[R], [P]]]}
    - {name: Outputs, projection: [[[K]], [[P]]], read_write: true}
  instance: {K: 4, R: 3, P: 6}
"""
MAPPING = """mapping:
- {target: DRAM, type: temporal, factors: P=6 R=3}
- {target: PE, type: spatial, factors: K=4}
"""
HARDWARE = """name: tiny
memories:
  reg:
    size: 16
    r_cost: 0.1
    w_cost: 0.1
    operands: [O]
    ports: [{name: p, type: read_write, bandwidth_min: 16, bandwidth_max: 16, allocation: ["O, fl", "O, tl"]}]
    served_dimensions: []
  dram:
    size: 10000000
    r_cost: 10
    w_cost: 10
    operands: [I1, I2, O]
    ports: [{name: p, type: read_write, bandwidth_min: 64, bandwidth_max: 64, allocation: ["O, fl", "I1, tl"]}]
    served_dimensions: [D1]
operational_array:
  unit_energy: 0.1
  dimensions: [D1]
  sizes: [8]
"""
NETWORK = """- id: 0
  operator_type: Conv
  equation: O[k][p]+=W[k][c]*I[c][p]
  loop_dims: [K, C, P]
  loop_sizes: [8, 8, 8]
  operand_precision: {W: 8, I: 8, O: 16, O_final: 8}
"""
CHOICE = """- name: default
  spatial_mapping: {D1: ["K, 8"]}
  memory_operand_links: {O: O, W: I2, I: I1}
"""
CONFIG = """[general]
run_name = tiny
[architecture_presets]
ArrayHeight: 8
ArrayWidth: 8
IfmapSramSzkB: 64
FilterSramSzkB: 64
OfmapSramSzkB: 64
Dataflow: ws
Bandwidth: 10
[run_presets]
InterfaceBandwidth: CALC
"""
TOPOLOGY = "Layer,M,N,K,\nL0,16,16,16,\n"

V3 = """architecture:
  version: 0.3
  subtree:
  - name: chip
    local:
    - name: DRAM
      class: DRAM
      attributes: {width: 64, word-bits: 8, block-size: 8}
    - name: GLB
      class: SRAM
      attributes: {depth: 1024, width: 64, block-size: 8, word-bits: 8}
    subtree:
    - name: PE[0..15]
      local:
      - name: reg
        class: regfile
        attributes: {depth: 16, width: 8, word-bits: 8, meshX: 4}
      - name: MACC
        class: intmac
        attributes: {datawidth: 8, meshX: 4}
"""
TABLE = """ERT:
  tables:
  - name: system.Buf[1..4]
    actions: [{name: read, energy: 1}, {name: write, energy: 1}]
"""
FC = "Layer a { Type: FC Dimensions { K: 8, C: 4, R: 1, S: 1, Y: 1, X: 1 } Dataflow {} }\n"

# name: (files by name, the file at fault, its line or 0 for any, words of the message)
Case = tuple[dict[str, str], str, int, str]


def timeloop(arch: str = ARCH, problem: str = PROBLEM, mapping: str = MAPPING) -> dict[str, str]:
    return {"arch.yaml": arch, "problem.yaml": problem, "mapping.yaml": mapping}


def zigzag(hardware: str = HARDWARE, choice: str = CHOICE, network: str = NETWORK) -> dict[str, str]:
    return {"hardware.yaml": hardware, "choice.yaml": choice, "network.yaml": network}


def scalesim(config: str = CONFIG, topology: str = TOPOLOGY) -> dict[str, str]:
    return {"tiny.cfg": config, "tiny.csv": topology}


def top(text: str, **others: str) -> dict[str, str]:
    return {"top.yaml.jinja2": text, **{name.replace("__", "."): content for name, content in others.items()}}


def arch(old: str, new: str) -> dict[str, str]:
    assert old in ARCH
    return timeloop(ARCH.replace(old, new))


def problem(old: str, new: str) -> dict[str, str]:
    assert old in PROBLEM
    return timeloop(problem=PROBLEM.replace(old, new))


def mapping(old: str, new: str) -> dict[str, str]:
    assert old in MAPPING
    return timeloop(mapping=MAPPING.replace(old, new))


def old(given: str, new: str) -> dict[str, str]:
    assert given in V3
    return {"arch.yaml": V3.replace(given, new, 1)}


def table(given: str, new: str) -> dict[str, str]:
    assert given in TABLE
    return {**timeloop(), "ERT.yaml": TABLE.replace(given, new, 1)}


def maestro(hardware: str) -> dict[str, str]:
    return {"net.m": f"Network n {{\n{FC}}}\n", "hw.m": hardware}


def hardware(old: str, new: str) -> dict[str, str]:
    assert old in HARDWARE
    return zigzag(HARDWARE.replace(old, new, 1))


def network(old: str, new: str) -> dict[str, str]:
    assert old in NETWORK
    return zigzag(network=NETWORK.replace(old, new))


def config(old: str, new: str) -> dict[str, str]:
    assert old in CONFIG
    return scalesim(CONFIG.replace(old, new))


CASES: dict[str, Case] = {
    # templates
    "missing template variable": (top("architecture: {{include(arch)}}\n"), "top.yaml.jinja2", 1,
                                  "'arch' is undefined"),
    "circular include": (
        top("architecture: {{include('b.yaml')}}\n", b__yaml="x: {{include('top.yaml.jinja2')}}\n"),
        "b.yaml", 1, "circular include: top.yaml.jinja2 -> b.yaml -> top.yaml.jinja2"),
    "include of itself": (top("x: 1\narchitecture: {{include('top.yaml.jinja2')}}\n"), "top.yaml.jinja2", 0,
                          "circular"),
    "include outside the folder": (top("architecture: {{include('../../etc/passwd')}}\n"), "top.yaml.jinja2", 1,
                                   "outside"),
    "include by absolute path": (top("architecture: {{include('/etc/passwd')}}\n"), "top.yaml.jinja2", 1, "outside"),
    "a probe outside the folder": (top("\n{% if path_exists('/etc/passwd') %}a: 1{% endif %}\n"), "top.yaml.jinja2", 2,
                                   "outside"),
    "include of a file that is not there": (top("architecture: {{include('nothing.yaml')}}\n"), "top.yaml.jinja2", 1,
                                            "no such file"),
    "include of a part that is not there": (
        top("\narchitecture: {{include('b.yaml', 'a.c')}}\n", b__yaml="a: {b: 1}\n"), "b.yaml", 1, "no key 'c'"),
    "include_all without a file": (top("components: {{include_all('c/*.yaml')}}\n"), "top.yaml.jinja2", 1, "no file"),
    "include_all outside": (top("components: {{include_all('../*.yaml')}}\n"), "top.yaml.jinja2", 1, "below"),
    "setenv": (top("{{setenv('PATH', '')}}\n"), "top.yaml.jinja2", 1, "setenv is refused"),
    "code through attributes": (top("x: {{''.__class__.__mro__[1].__subclasses__()}}\n"), "top.yaml.jinja2", 1,
                                "template"),
    "code through a function's globals": (top("x: {{include.__globals__['os'].system('true')}}\n"),
                                          "top.yaml.jinja2", 1,
                                          "template"),
    "an endless range": (top("{% for i in range(999999999) %}x{% endfor %}\n"), "top.yaml.jinja2", 1, "range"),
    "deeply nested loops": (
        top("{% for i in [1] %}{% for j in [1] %}{% for k in [1] %}x{% endfor %}{% endfor %}{% endfor %}\n"),
        "top.yaml.jinja2", 1, "loops nested"),
    "a text without end": (top("x: {{'a' * 999999999}}\n"), "top.yaml.jinja2", 1, "operator *"),
    "a formatted bomb": (top("x: {{'%999999999d' % 1}}\n"), "top.yaml.jinja2", 1, "operator %"),
    "a power bomb": (top("x: {{9 ** 9 ** 9}}\n"), "top.yaml.jinja2", 1, "power"),
    "an import": (top("{% import 'b.yaml' as b %}\n", b__yaml="x: 1\n"), "top.yaml.jinja2", 1, "refused"),
    "a macro": (top("{% macro f() %}{{f()}}{% endmacro %}{{f()}}\n"), "top.yaml.jinja2", 1, "refused"),
    "an unclosed tag": (top("a: 1\nx: {% if a\n"), "top.yaml.jinja2", 2, "template"),
    "an unknown filter": (top("x: {{1 | attr('real')}}\n"), "top.yaml.jinja2", 1, "attr"),
    # YAML
    "a Python object": (arch("class: DRAM", "class: !!python/object/apply:os.system ['true']"), "arch.yaml", 9,
                        "refused"),
    "an unknown tag": (arch("- !Container\n    name: PE", "- !Surprise\n    name: PE"), "arch.yaml", 11, "!Surprise"),
    "an alias to itself": (timeloop("architecture: &a\n  nodes: *a\n"), "arch.yaml", 0, "alias"),
    "an alias bomb": (
        timeloop("a: &a [1,1,1,1,1,1,1,1,1,1]\n" + "".join(f"{b}: &{b} [*{a},*{a},*{a},*{a},*{a},*{a},*{a},*{a}]\n"
                 for a, b in zip("abcdefg", "bcdefgh", strict=True)) + ARCH), "arch.yaml", 0, "more than"),
    "a duplicate key": (arch("width: 64, datawidth: 8", "width: 64, width: 32, datawidth: 8"), "arch.yaml", 10,
                        "duplicate key 'width'"),
    "YAML that is none": (arch("{meshX: 4}", "{meshX: 4"), "arch.yaml", 0, "not valid YAML"),
    "an empty file": ({"arch.yaml": "# nothing\narchitecture:\n"}, "arch.yaml", 2, "expected keys and values"),
    "no text": ({"arch.yaml": "architecture: \udc80\udcff\n"}, "arch.yaml", 0, "not a text file"),
    # architecture
    "an unknown top key": (timeloop("machine: 1\n" + ARCH), "arch.yaml", 1, "unknown top key 'machine'"),
    "an unknown class": (arch("class: regfile", "class: hologram"), "arch.yaml", 16, "unknown class 'hologram'"),
    "an unknown name in an expression": (arch("depth: 64", "depth: rows * 2"), "arch.yaml", 17, "unknown name 'rows'"),
    "an expression that runs code": (arch("depth: 64", "depth: __import__('os').system('true')"), "arch.yaml", 17,
                                     "is not arithmetic"),
    "an expression of open()": (arch("depth: 64", "depth: open('x')"), "arch.yaml", 17, "function 'open'"),
    "an expression without end": (arch("depth: 64", "depth: 9**9**9**9"), "arch.yaml", 17, "power"),
    "an attribute that defines itself": (arch("depth: 64", "depth: depth + 1"), "arch.yaml", 17, "depth"),
    "a division by zero": (arch("depth: 64", "depth: 1 // 0"), "arch.yaml", 17, "zero"),
    "a place-holder": (arch("depth: 64", 'depth: "must_specify"'), "arch.yaml", 17, "place-holder"),
    "a technology to be set": (arch('technology: "40nm"', 'technology: "SET ME"'), "arch.yaml", 6, "place-holder"),
    "a negative depth": (arch("depth: 64", "depth: -64"), "arch.yaml", 17, "depth"),
    "a fractional depth": (arch("depth: 64", "depth: 6.5"), "arch.yaml", 17, "whole number"),
    "a width that is no multiple": (arch("width: 64, datawidth: 8", "width: 60, datawidth: 8"), "arch.yaml", 7,
                                    "no multiple"),
    "no datawidth": (arch("width: 64, datawidth: 8", "width: 64"), "arch.yaml", 7, "datawidth is missing"),
    "an absurd fan-out": (arch("meshX: 4", "meshX: 99999999"), "arch.yaml", 13, "copies"),
    "a fan-out of nothing": (arch("meshX: 4", "meshX: 0"), "arch.yaml", 13, "above 0"),
    "an unknown mesh": (arch("meshX: 4", "meshZ: 4"), "arch.yaml", 13, "meshZ"),
    "no compute": (timeloop(ARCH[: ARCH.index("  - !Component\n    name: MAC")]), "arch.yaml", 0, "compute class"),
    "two levels of one name": (arch("name: Buf", "name: DRAM"), "arch.yaml", 14, "two levels are called 'DRAM'"),
    "an untagged node": (arch("- !Container\n    name: PE", "-\n    name: PE"), "arch.yaml", 0, "no tag"),
    "a sparse format": (arch("depth: 64,", "depth: 64, decompression_supported: true,"), "arch.yaml", 17, "sparse"),
    "sparse optimizations": (timeloop(ARCH + "sparse_optimizations: {targets: [{name: Buf}]}\n"), "arch.yaml", 22,
                             "no counterpart"),
    "a plug-in": (timeloop("globals: {accelergy_plug_ins: [evil.py]}\n" + ARCH), "arch.yaml", 1, "loads code"),
    "custom functions": (timeloop("globals: {expression_custom_functions: [evil.py]}\n" + ARCH), "arch.yaml", 1,
                         "loads code"),
    "a libconfig architecture": (timeloop("architecture:\n  arithmetic: {}\n  storage: []\n"), "arch.yaml", 1, "v3"),
    "keep and bypass at once": (
        arch("{depth: 64, width: 8, datawidth: 8}", "{depth: 64, width: 8, datawidth: 8}\n"
             "    constraints: {dataspace: {keep: [Inputs], bypass: [Inputs]}}"), "arch.yaml", 18, "contradiction"),
    "a constraint of a stranger": (timeloop(ARCH + "constraints: {targets: [{target: Nobody, type: temporal}]}\n"),
                                   "arch.yaml", 22, "no such level"),
    # problem and mapping
    "a missing size": (problem("instance: {K: 4, R: 3, P: 6}", "instance: {K: 4, R: 3}"), "problem.yaml", 9, "'P'"),
    "a size of nothing": (problem("K: 4, R: 3", "K: 0, R: 3"), "problem.yaml", 9, "whole number"),
    "a negative size": (problem("K: 4, R: 3", "K: -4, R: 3"), "problem.yaml", 9, "whole number"),
    "a loop that nobody knows": (problem("[[R], [P]]", "[[R], [Z]]"), "problem.yaml", 7, "'Z'"),
    "an unknown coefficient": (problem("[P]]]}", "[P, stride]]]}"), "problem.yaml", 7, "'stride'"),
    "no output": (problem(", read_write: true", ""), "problem.yaml", 5, "read_write"),
    "a third input": (problem("    - {name: Inputs", "    - {name: More, projection: [[[K]]]}\n    - {name: Inputs"),
                      "problem.yaml", 0, "expected two"),
    "an index of three loops": (problem("[[R], [P]]", "[[R], [P], [K]]"), "problem.yaml", 0, "more than two loops"),
    "two loops of one role, too large together": (
        timeloop(problem=PROBLEM.replace("[K, R, P]", "[K, M, R, P]").replace("[[K]], [[R]]", "[[K]], [[M]], [[R]]")
                 .replace("[[K]], [[P]]", "[[K]], [[M]], [[P]]").replace("K: 4,", "K: 100000, M: 100000,")),
        "problem.yaml", 2, "one loop K of more than"),
    "a window in two indexes": (problem("[[R], [P]]", "[[R], [P]], [[R], [K]]"), "problem.yaml", 2, "two indexes"),
    "a shape by an unknown name": (timeloop(problem="problem: {shape: gemm-abc, M: 4}\n"), "problem.yaml", 1,
                                   "only cnn-layer"),
    "a constraint of an unknown kind": (
        timeloop(ARCH + "constraints: {targets: [{target: Buf, type: temporary, factors: [R=1]}]}\n"), "arch.yaml", 22,
        "expected one of temporal"),
    "a constraint of nothing": (timeloop(ARCH + "constraints: {targets: [{type: temporal}]}\n"), "arch.yaml", 22,
                                "'target'"),
    "a spatial factor above its mesh": (
        arch("spatial: {meshX: 4}", "spatial: {meshX: 4}\n    constraints: {spatial: {factors: [K=8]}}"),
        "arch.yaml", 14, "K=8 on meshX of 4"),
    "two constraints of one factor": (
        timeloop(ARCH + "constraints:\n  targets:\n  - {target: Buf, type: temporal, factors: [R=1]}\n"
                 "  - {target: Buf, type: temporal, factors: [R=3]}\n"), "arch.yaml", 25, "two constraints"),
    "a permutation of no loop": (
        timeloop(ARCH + "constraints: {targets: [{target: Buf, type: temporal, permutation: KZ}]}\n"), "arch.yaml", 22,
        "unknown loop"),
    "an order that is none": (zigzag(choice=CHOICE + "  temporal_ordering: [[P, many]]\n"), "choice.yaml", 4,
                              "temporal_ordering"),
    "a libconfig file": ({"old.cfg": "arch :\n{\n  storage : ();\n};\n"}, "old.cfg", 1, "libconfig"),
    "sparse data": (problem("P: 6}", "P: 6, densities: {Inputs: 0.5}}"), "problem.yaml", 9, "density"),
    "factors that miss the bound": (mapping("P=6", "P=5"), "mapping.yaml", 0, "multiply to 5"),
    "a factor that is none": (mapping("P=6", "P~6"), "mapping.yaml", 2, "expected factors"),
    "an inexact factor": (mapping("P=6", "P<=6"), "mapping.yaml", 2, "exact"),
    "a remainder that the bound does not imply": (
        timeloop(mapping=MAPPING.replace('factors: P=6 R=3', 'factors: "P=6,3 R=3"')), "mapping.yaml", 0, "remainder"),
    "an unknown target": (mapping("target: PE", "target: Nobody"), "mapping.yaml", 3, "no level 'Nobody'"),
    "an unknown loop": (mapping("K=4", "Z=4"), "mapping.yaml", 3, "unknown loop 'Z'"),
    "loops twice": (timeloop(mapping=MAPPING + "- {target: DRAM, type: temporal, factors: P=1}\n"), "mapping.yaml", 4,
                    "twice"),
    "a mapping without its problem": ({"arch.yaml": ARCH, "mapping.yaml": MAPPING}, "mapping.yaml", 0, "its problem"),
    "a table alone": ({"ERT.yaml": "ERT: {version: 0.4, tables: []}\n"}, "ERT.yaml", 0, "neither a machine nor"),
    "a table of no energies": (
        {**timeloop(), "ERT.yaml": "ERT:\n  tables:\n  - name: Buf\n    actions: [{name: read, energy: -1}]\n"},
        "ERT.yaml", 4, "Buf.read"),
    "a loop twice": (problem("[K, R, P]", "[K, R, P, P]"), "problem.yaml", 4, "each loop once"),
    "two data spaces of one name": (problem("name: Inputs", "name: Weights"), "problem.yaml", 5, "each name once"),
    # v3
    "a range that runs down": (old("PE[0..15]", "PE[15..0]"), "arch.yaml", 13, "expected a range"),
    "a range up to a name": (old("PE[0..15]", "PE[0..n]"), "arch.yaml", 13, "expected a range"),
    "a single index": (old("PE[0..15]", "PE[16]"), "arch.yaml", 13, "expected a range"),
    "a mesh that does not divide": (old("{depth: 16, width: 8, word-bits: 8, meshX: 4}",
                                        "{depth: 16, width: 8, word-bits: 8, meshX: 3}"), "arch.yaml", 17,
                                    "16 instances on a mesh 3 wide"),
    # ZigZag
    "a port of a stranger": (hardware('"O, tl"', '"X, tl"'), "hardware.yaml", 8, "unknown operand 'X'"),
    "an unrolling by a raised digit": (zigzag(choice=CHOICE.replace("K, 8", "K, \u00b2")), "choice.yaml", 2, "'K, 32'"),
    "a loop of two sizes": (network("[K, C, P]", "[K, C, K]"), "network.yaml", 4, "each loop once"),
    "padding of no dimension": (network("  loop_sizes", "  padding: [[1, 1]]\n  loop_sizes"), "network.yaml", 5,
                                "pr_loop_dims"),
    "padding of another dimension": (network("  loop_sizes", "  pr_loop_dims: [IY]\n  padding: [[1, 1], [1, 1]]\n"
                                             "  loop_sizes"), "network.yaml", 6, "expected 1"),
    "a negative size of a memory": (hardware("size: 16", "size: -16"), "hardware.yaml", 4, "reg.size"),
    "a negative cost": (hardware("r_cost: 0.1", "r_cost: -0.1"), "hardware.yaml", 5, "reg.r_cost"),
    "an unknown key of a memory": (hardware("    size: 16", "    sise: 16"), "hardware.yaml", 4, "'sise'"),
    "a port without a width": (hardware(" bandwidth_min: 16,", ""), "hardware.yaml", 8, "bandwidth_min"),
    "a narrow widest port": (hardware("bandwidth_min: 16", "bandwidth_min: 32"), "hardware.yaml", 8, "above"),
    "an unknown direction": (hardware("O, fl", "O, up"), "hardware.yaml", 8, "fh|tl|fl|th"),
    "an unknown served dimension": (hardware("[D1]", "[D9]"), "hardware.yaml", 0, "D9"),
    "an absurd array": (hardware("sizes: [8]", "sizes: [99999999]"), "hardware.yaml", 0, "whole number"),
    "an operand that nobody links": (hardware("operands: [O]", "operands: [X]"), "hardware.yaml", 7, "'X'"),
    "no default mapping": (zigzag(choice=CHOICE.replace("default", "Conv")), "choice.yaml", 1, "'default'"),
    "an unrolling that is none": (zigzag(choice=CHOICE.replace("K, 8", "K; 8")), "choice.yaml", 2, "'K, 32'"),
    "an equation that is none": (network("+=W[k][c]*I[c][p]", "=f(W, I)"), "network.yaml", 3, "equation"),
    "loops without sizes": (network("[8, 8, 8]", "[8, 8]"), "network.yaml", 5, "expected 3"),
    "operator without a product": (network("operator_type: Conv\n  equation: O[k][p]+=W[k][c]*I[c][p]",
                                           "operator_type: Softmax\n  equation: O[k][p]=W[k][p]+I[k][p]"),
                                   "network.yaml", 1, "Softmax"),
    "a weight without bits": (network("W: 8, I: 8", "W: 0, I: 8"), "network.yaml", 1, "bits of 'W'"),
    "an id twice": (zigzag(network=NETWORK + NETWORK), "network.yaml", 7, "id 0"),
    # SCALE-Sim
    "an unknown dataflow": (config("Dataflow: ws", "Dataflow: rs"), "tiny.cfg", 9, "'rs'"),
    "an array of nothing": (config("ArrayHeight: 8", "ArrayHeight: 0"), "tiny.cfg", 4, "ArrayHeight"),
    "an array of no number": (config("ArrayHeight: 8", "ArrayHeight: many"), "tiny.cfg", 4, "'many'"),
    "an array without a width": (config("ArrayWidth: 8\n", ""), "tiny.cfg", 3, "arraywidth"),
    "an option twice": (config("ArrayWidth: 8", "ArrayWidth: 8\nArrayWidth: 9"), "tiny.cfg", 6, "arraywidth"),
    "sparsity switched on": (scalesim(CONFIG + "[sparsity]\nSparsitySupport: true\n"), "tiny.cfg", 14,
                             "no counterpart"),
    "sparsity in another word for on": (scalesim(CONFIG + "[sparsity]\nSparsitySupport: yes\n"), "tiny.cfg", 14,
                                        "no counterpart"),
    "a layout of one": (scalesim(CONFIG + "[layout]\nIfmapCustomLayout: 1\n"), "tiny.cfg", 14, "no counterpart"),
    "an unknown kind of bandwidth": (config("InterfaceBandwidth: CALC", "InterfaceBandwidth: USR"), "tiny.cfg", 12,
                                     "USER or CALC"),
    "an option without a value": (config("ArrayHeight: 8", "ArrayHeight"), "tiny.cfg", 4, "ArrayHeight"),
    "a bandwidth in a raised digit": (
        scalesim(CONFIG.replace("CALC", "USER").replace("Bandwidth: 10", "Bandwidth: \u00b2")), "tiny.cfg", 10,
        "whole numbers"),
    "a size with a footnote": (scalesim(topology="Layer,M,N,K,\nL0,16\u00b2,16,16,\n"), "tiny.csv", 2, "16\u00b2"),
    "a cell without end": (scalesim(topology="Layer,M,N,K,\n" + "L" * 200_000 + ",1,1,1,\n"), "tiny.csv", 2,
                           "field larger"),
    "no section": (scalesim("ArrayHeight: 8\n"), "tiny.cfg", 1, "configuration"),
    "a sparse row": (scalesim(topology="Layer,M,N,K,S,\nL0,16,16,16,2:4,\n"), "tiny.csv", 2, "2:4"),
    "a filter above its input": (
        scalesim(topology="Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, "
                          "Strides,\nC,2,2,3,3,1,1,1,\n"), "tiny.csv", 2, "filter of 3 x 3"),
    "a row too short": (scalesim(topology="Layer,M,N,K,\nL0,16,16,\n"), "tiny.csv", 2, "3 or 4 numbers"),
    "a negative row": (scalesim(topology="Layer,M,N,K,\nL0,16,-16,16,\n"), "tiny.csv", 2, "'-16'"),
    "a topology of no layer": (scalesim(topology="Layer,M,N,K,\n"), "tiny.csv", 1, "no layer"),
    "an unknown header": (scalesim(topology="a,b,c\n1,2,3\n"), "tiny.csv", 1, "header"),
    # MAESTRO
    "a layer twice": ({"net.m": f"Network n {{\n{FC}{FC}}}\n"}, "net.m", 3, "stands twice"),
    "a constant twice": ({"net.m": f"Constant A 2;\nConstant A 3;\nNetwork n {{\n{FC}}}\n"}, "net.m", 2,
                         "stands twice"),
    "a hardware key twice": (maestro("num_pes: 8\nnum_pes: 16\n"), "hw.m", 2, "first in line 1"),
    "hardware without elements": (maestro("l1_size_cstr: 512\n"), "hw.m", 1, "num_pes is missing"),
}  # fmt: skip


def test_there_are_many() -> None:
    assert len(CASES) >= 100


@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
def test_one_message_with_file_and_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files, at_fault, line, words = CASES[name]
    folder = tmp_path / "given"
    folder.mkdir()
    for file, text in files.items():
        (folder / file).write_bytes(text.encode("utf-8", "surrogateescape"))
    given = [str(folder / file) for file in files if not file.startswith("b.")]
    code = main([*given, "--to", str(tmp_path / "out"), "--quiet"])
    captured = capsys.readouterr()
    assert code == 2, captured
    assert captured.out == ""
    assert "Traceback" not in captured.err
    assert not (tmp_path / "out").exists()
    message = captured.err.strip()
    assert message.count("\n") == 0, message
    found = re.search(re.escape(at_fault) + r"(?: \(rendered\))?(?::(\d+))?", message)
    assert found, message
    if line:
        assert found[1] == str(line), message
    assert words in message, message


# name: (files by name, what the report must name, with its line)
ODD: dict[str, tuple[dict[str, str], str]] = {
    "what only areas depend on": (arch("depth: 64,", "depth: 64, n_banks: 4, type: fast,"),
                                  "arch.yaml:14: Buf: n_banks, type: no count"),
    "a scale of energies": (arch("class: regfile", "class: regfile\n    energy_scale: 2"),
                            "arch.yaml:17: Buf.energy_scale: "),
    "a key beside the nodes": (arch("  version: 0.4", "  colour: red"), "arch.yaml:2: colour: "),
    "a container's attribute misspelt": (arch("technology:", "tecnology:"), "arch.yaml:6: system.tecnology: "),
    "a key of a problem": (problem("problem:\n", "problem:\n  colour: red\n"), "problem.yaml:2: colour: "),
    "a key of a shape": (problem("    dimensions", "    colour: red\n    dimensions"),
                         "problem.yaml:4: layer.colour: "),
    "a key of a data space": (problem("{name: Weights,", "{name: Weights, colour: red,"),
                              "problem.yaml:6: Weights.colour: "),
    "a stride without a value": (
        timeloop(problem=PROBLEM.replace("    data_spaces", "    coefficients: [{name: st}]\n    data_spaces")),
        "problem.yaml:5: coefficient st: neither"),
    "a key of a v3 component": (old("class: SRAM", "class: SRAM\n      colour: red"), "arch.yaml:11: GLB.colour: "),
    "a key of a v3 subtree": (old("- name: chip", "- name: chip\n    colour: red"), "arch.yaml:5: chip.colour: "),
    "a v3 component that is off": (old("class: SRAM", "class: SRAM\n      enabled: false"),
                                   "arch.yaml:9: GLB: enabled: false"),
    "an action misspelt": (table("name: read", "name: raed"), "ERT.yaml:3: Buf: actions raed: "),
    "a table without reads": (table("{name: read, energy: 1}, ", ""), "arch.yaml:14: Buf.read: its table in "),
    "a component priced twice": (table("}]\n", "}]\n  - {name: x.Buf, actions: [{name: read, energy: 9}]}\n"),
                                 "ERT.yaml:5: Buf: priced twice, first in "),
    "an area of nothing": ({**timeloop(), "ART.yaml": "ART:\n  tables:\n  - {name: x.ghost, area: 12}\n"},
                           "ART.yaml:3: ghost.area: "),
    "a precision of no operand": (network("O_final: 8", "O_final: 8, Q: 4"),
                                  "network.yaml:1: Layer0.operand_precision.Q: no operand"),
    "a source that is not there": (network("  loop_dims", "  operand_source: {I: 9}\n  loop_dims"),
                                   "network.yaml:1: Layer0.operand_source.I: no layer above has the id 9"),
    "a port of what is elsewhere": (hardware('"O, tl"', '"I1, tl"'), "hardware.yaml:3: reg.p: I1 has a port"),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_nothing_is_dropped_in_silence(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files, words = ODD[name]
    for file, text in files.items():
        (tmp_path / file).write_text(text)
    assert main([*(str(tmp_path / file) for file in files), "--to", str(tmp_path / "out")]) == 0, capsys.readouterr()
    assert words in (tmp_path / "out" / "translation.txt").read_text().replace(f"{tmp_path}/", "")


def test_the_unbroken_ones_translate(tmp_path: Path) -> None:
    for number, files in enumerate((timeloop(), zigzag(), scalesim())):
        folder = tmp_path / str(number)
        folder.mkdir()
        for file, text in files.items():
            (folder / file).write_text(text)
        paths = [str(folder / file) for file in files]
        assert main([*paths, "--to", str(folder / "out"), "--quiet"]) == 0
        assert {"translation.txt", "workload.json"} <= {path.name for path in (folder / "out").iterdir()}


def test_a_link_does_not_lead_out_of_the_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "secret.yaml").write_text("architecture: {nodes: []}\n")
    folder = tmp_path / "given"
    folder.mkdir()
    (folder / "link.yaml").symlink_to(tmp_path / "secret.yaml")
    (folder / "top.yaml.jinja2").write_text("architecture: {{include('link.yaml', 'architecture')}}\n")
    assert main([str(folder / "top.yaml.jinja2"), "--to", str(tmp_path / "out")]) == 2
    assert "outside" in capsys.readouterr().err
