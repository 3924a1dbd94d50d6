"""Mappings: what is legal, in words; capacity in packed bits; YAML that reads back and says what is wrong."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from hwsim.errors import InfeasibleMapping, SpecError
from hwsim.machine.parts import OPERANDS, Accelerator, Array, Axis, Memory
from hwsim.nest.legal import check, holds_partials, tile_bits, validate
from hwsim.nest.mapping import Hold, Mapping, Node, Spatial, Temporal, describe
from hwsim.nest.points import tile_elements
from hwsim.nest.text import PassNests, Together, dump_mappings, dump_passes, load_mappings, parse_mappings, parse_plan
from hwsim.network.layer import DIMS, Loops
from tests.strategies import conv, machine, product, triple

LAYER = conv(Loops(K=8, C=4, P=6, Q=6, R=3, S=3), bits=(4, 8, 8))
DRAM = Memory("dram", None, OPERANDS)
BUFFER = Memory("buffer", 64 * 1024, ("input", "output"), ("output",))
PE = Array("pe", (Axis("rows", 4, ("R", "K")), Axis("columns", 6, ("P", "Q"), max_dims=1)))
WEIGHTS = Memory("weights", 2048, ("weight",))
MACHINE = machine(DRAM, BUFFER, PE, WEIGHTS)

TOP = Hold("dram", OPERANDS)
SHARED = Hold("buffer", ("input", "output"))
ROWS = Spatial("R", 3, "pe", "rows")
COLUMNS = Spatial("P", 6, "pe", "columns")
OWN = Hold("weights", ("weight",))
REST: tuple[Node, ...] = (Temporal("C", 4), Temporal("Q", 6), Temporal("S", 3))
GOOD = Mapping((TOP, Temporal("K", 8), SHARED, ROWS, COLUMNS, OWN, *REST))


def test_the_good_mapping_is_legal() -> None:
    assert validate(GOOD, LAYER, MACHINE) == []
    check(GOOD, LAYER, MACHINE)


def test_random_mappings_are_legal() -> None:
    for seed in range(1000, 1200):
        layer, accelerator, mapping = triple(seed)
        assert validate(mapping, layer, accelerator) == []


ILLEGAL: dict[str, tuple[tuple[Node, ...], str]] = {
    "unknown memory": ((TOP, Hold("cache", ("input",)), *GOOD.nodes[1:]), "memory 'cache' does not exist"),
    "operand not kept": (
        (TOP, Temporal("K", 8), Hold("buffer", OPERANDS), *GOOD.nodes[3:]),
        "buffer does not keep weight; it keeps input, output",
    ),
    "held twice": ((*GOOD.nodes[:6], OWN, *REST), "weight is held 2 times in weights"),
    "not held": ((TOP, Temporal("K", 8), ROWS, COLUMNS, OWN, *REST), "input is not held in buffer"),
    "out of order": (
        (TOP, Temporal("K", 8), OWN, SHARED, ROWS, COLUMNS, *REST),
        "weights lies below array pe in the hierarchy but above its loops",
    ),
    "array above its memory": (
        (TOP, Temporal("K", 8), ROWS, COLUMNS, SHARED, OWN, *REST),
        "buffer lies above array pe in the hierarchy but below its loops",
    ),
    "loop above the top": ((Temporal("K", 8), TOP, *GOOD.nodes[2:]), "must be held in dram, the outermost memory"),
    "array torn apart": (
        (TOP, Temporal("K", 8), SHARED, ROWS, Temporal("C", 4), COLUMNS, OWN, *REST[1:]),
        "the loops of array pe must follow each other",
    ),
    "unknown array": ((*GOOD.nodes, Spatial("N", 1, "mesh", "x")), "array 'mesh' does not exist"),
    "unknown axis": (
        (*GOOD.nodes[:3], Spatial("R", 3, "pe", "depth"), *GOOD.nodes[4:]),
        "array pe has no axis 'depth'; it has rows, columns",
    ),
    "dim not allowed": (
        (
            TOP,
            SHARED,
            Spatial("K", 3, "pe", "columns"),
            Temporal("K", 3),
            OWN,
            *REST,
            Temporal("R", 3),
            Temporal("P", 6),
        ),
        "K may not be unrolled on pe.columns; allowed: P, Q",
    ),
    "dim not allowed in two's": (
        (*GOOD.nodes[:4], Spatial("K", 2, "pe", "columns"), *GOOD.nodes[4:]),
        "K may not be unrolled on pe.columns; allowed: P, Q",
    ),
    "axis too small": (
        (TOP, SHARED, Spatial("K", 8, "pe", "rows"), COLUMNS, OWN, *REST, Temporal("R", 3)),
        "pe.rows has 4 elements, the mapping needs 8",
    ),
    "too many dims": (
        (*GOOD.nodes[:4], Spatial("P", 2, "pe", "columns"), Spatial("Q", 2, "pe", "columns"), OWN, Temporal("P", 3)),
        "pe.columns takes at most 1 dims at once, got P, Q",
    ),
    "bound not covered": (GOOD.nodes[:-1], "the factors of S multiply to 1, the layer needs 3"),
    "idle iteration": (
        (TOP, Temporal("K", 9), *GOOD.nodes[2:]),
        "loop K9 steps by 1 and needs 8 iterations, not 9",
    ),
    "factor zero": ((*GOOD.nodes, Temporal("K", 0)), "factor of K must be at least 1, got 0"),
    "no such loop": ((*GOOD.nodes, Temporal("X", 2)), "'X' is no loop; loops are N, G, K"),
}


@pytest.mark.parametrize("case", ILLEGAL)
def test_violations_are_said_in_words(case: str) -> None:
    nodes, words = ILLEGAL[case]
    problems = validate(Mapping(nodes), LAYER, MACHINE)
    assert any(words in problem for problem in problems), problems
    with pytest.raises(InfeasibleMapping, match=r"layer conv on machine: "):
        check(Mapping(nodes), LAYER, MACHINE)


def test_array_without_adders_takes_no_reduction() -> None:
    flat = machine(DRAM, BUFFER, dataclasses.replace(PE, reduction=False), WEIGHTS)
    assert "array pe cannot add across its elements, so R may not be unrolled on it" in validate(GOOD, LAYER, flat)


def test_imperfect_factors_are_legal_while_every_iteration_has_work() -> None:
    # 8 = 3 + 3 + 2 output channels.
    nodes = (TOP, Temporal("K", 3), Temporal("K", 3), *GOOD.nodes[2:])
    assert validate(Mapping(nodes), LAYER, MACHINE) == []


# --- capacity ---------------------------------------------------------------------------------------------------------


def small(**changes: object) -> Accelerator:
    """The machine with a changed weight memory."""
    return machine(DRAM, BUFFER, PE, dataclasses.replace(WEIGHTS, **changes))  # type: ignore[arg-type]


def test_capacity_names_the_memory_and_the_need() -> None:
    # A tile of one K, four C, one R, three S: 12 weights of 4 bits.
    assert tile_bits(GOOD, LAYER, MACHINE, WEIGHTS) == {"weight": 48}
    assert validate(GOOD, LAYER, small(size_bits=48)) == []
    assert validate(GOOD, LAYER, small(size_bits=47)) == ["weights holds 47 bits, its tiles need 48 (weight 48; 1.02x)"]


def test_capacity_counts_packed_words() -> None:
    layer = conv(Loops(K=8, C=4, P=6, Q=6, R=3, S=3), bits=(5, 8, 8))
    for packing, bits in (("dense", 64), ("floor", 96), ("padded", 96)):  # 60 bits dense; one word each otherwise
        memory = dataclasses.replace(WEIGHTS, packing=packing)  # type: ignore[arg-type]
        assert tile_bits(GOOD, layer, MACHINE, memory) == {"weight": bits}
    wide = dataclasses.replace(WEIGHTS, packing="floor", word_bits=16)
    assert tile_bits(GOOD, layer, MACHINE, wide) == {"weight": 64}  # three per word


def test_partitions_are_separate_pools() -> None:
    latched = machine(DRAM, BUFFER, PE, WEIGHTS, Memory("psums", None, ("output",)), latches=("output",))
    mapping = Mapping((*GOOD.nodes[:6], Hold("psums", ("output",)), *REST))
    need = tile_bits(mapping, LAYER, latched, BUFFER)
    assert need == {"input": 4 * 8 * 8 * 8, "output": 36 * 8}
    split = dataclasses.replace(BUFFER, partitions=(("input", 2047), ("output", 2048)))
    problems = validate(mapping, LAYER, machine(DRAM, split, *latched.hierarchy[2:], latches=("output",)))
    assert problems == ["buffer (input) holds 2,047 bits, its tiles need 2,048 (input 2,048; 1x)"]
    rest = dataclasses.replace(BUFFER, size_bits=2335, partitions=(("input", 2048),))
    problems = validate(mapping, LAYER, machine(DRAM, rest, *latched.hierarchy[2:], latches=("output",)))
    assert problems == ["buffer holds 287 bits, its tiles need 288 (output 288; 1x)"]


def test_unfinished_sums_need_the_accumulator() -> None:
    accumulator = MACHINE.mac.partial_sum_bits(LAYER.accumulator_bits_needed())
    assert accumulator > LAYER.output.bits
    psums = Memory("psums", None, ("output",))
    latched = machine(DRAM, BUFFER, PE, WEIGHTS, psums, latches=("output",))
    own = Hold("psums", ("output",))
    kept = Mapping((TOP, Temporal("K", 8), SHARED, ROWS, COLUMNS, OWN, own, *REST))
    # All C, S below the scratchpad, R across the array: the buffer gets finished sums, the scratchpad never does.
    assert not holds_partials(kept, latched, "buffer")
    assert holds_partials(kept, latched, "psums")
    # C and then Q outside the scratchpad: sums come back to the buffer.
    back = Mapping(
        (TOP, Temporal("K", 8), SHARED, ROWS, COLUMNS, OWN, Temporal("C", 4), Temporal("Q", 6), own, REST[2])
    )
    assert holds_partials(back, latched, "buffer")
    assert not holds_partials(back, latched, "dram")
    assert tile_bits(back, LAYER, latched, BUFFER)["output"] == -(-36 * accumulator // 8) * 8
    # Q and then C outside: the scratchpad keeps its point through all of C.
    stays = Mapping(
        (TOP, Temporal("K", 8), SHARED, ROWS, COLUMNS, OWN, Temporal("Q", 6), Temporal("C", 4), own, REST[2])
    )
    assert not holds_partials(stays, latched, "buffer")


def test_tiles_count_real_points() -> None:
    extent = dict.fromkeys(DIMS, 1) | {"P": 3, "R": 2, "C": 4}
    assert tile_elements(LAYER, "input", extent) == 4 * 4
    strided = conv(Loops(C=4, P=6, R=3), stride=(3, 1))
    assert tile_elements(strided, "input", extent) == 4 * 6  # rows 0,1, 3,4, 6,7
    assert tile_elements(strided, "input", extent | {"P": 99, "R": 99}) == 4 * 18  # cut at the layer's bounds
    for a in range(1, 5):
        for b in range(1, 5):
            layer = conv(Loops(P=7, R=5), stride=(a, 1), dilation=(b, 1))
            for p in range(1, 8):
                for r in range(1, 6):
                    points = {a * i + b * j for i in range(p) for j in range(r)}
                    assert tile_elements(layer, "input", dict.fromkeys(DIMS, 1) | {"P": p, "R": r}) == len(points)


# --- text and YAML ----------------------------------------------------------------------------------------------------


def test_yaml_reads_back_what_it_wrote(tmp_path: Path) -> None:
    written = {f"layer{seed}.conv": triple(seed)[2] for seed in range(1200, 1300)} | {"no": GOOD, 'a "b"\\c: [d]': GOOD}
    path = tmp_path / "mappings.yaml"
    path.write_text(dump_mappings(written), encoding="utf-8")
    assert load_mappings(path) == written


def test_yaml_form_is_the_documented_one() -> None:
    text = dump_mappings({"conv1": GOOD})
    assert text.splitlines() == [
        "layers:",
        "  conv1:",
        "    - {memory: dram, holds: [weight, input, output], loops: [K8]}",
        "    - {memory: buffer, holds: [input, output]}",
        "    - {array: pe, axes: {rows: [R3], columns: [P6]}}",
        "    - {memory: weights, holds: [weight], loops: [C4, Q6, S3]}",
    ]


def test_description_shows_the_nest() -> None:
    assert describe(GOOD).splitlines()[:4] == [
        "[dram: weight, input, output]",
        "for K in 8",
        "  [buffer: input, output]",
        "  parallel R in 3 on pe.rows",
    ]
    inside = [line for line in describe(GOOD).splitlines() if line.strip().startswith(("for", "parallel"))]
    assert [len(line) - len(line.lstrip()) for line in inside] == [2 * depth for depth in range(len(inside))]
    assert str(GOOD) == describe(GOOD)


GROUP = "{first: a, last: b, rows: 2, columns: 3, halos: kept, weights_stay: [a]}"
BAD_YAML = {
    "": "m.yaml:1: expected 'layers:', found an empty file",
    "a: [": "m.yaml:1: not valid YAML",
    "[1, 2]": "m.yaml:1: the file: expected keys and values",
    "layer: {}": "m.yaml:1: the file: unknown key; known: layers, groups, lifetimes, passes, got 'layer'",
    "layers: {}\nlayers: {}": "m.yaml:2: the file: a key may stand once, got 'layers'",
    "layers:\n  a: 3": "m.yaml:2: a: expected a list",
    "layers:\n  a:\n  - K4": "m.yaml:3: a: expected keys and values",
    "layers:\n  a:\n  - {memory: dram}": "m.yaml:3: a: expected 'memory' with 'holds', or 'array' with 'axes'",
    "layers:\n  a:\n  - {memory: d, holds: [], array: p}": "m.yaml:3: a: one entry is either a memory",
    "layers:\n  a:\n  - {memory: d, holds: [weights]}": "m.yaml:3: a.holds: expected one of weight, input, output",
    "layers:\n  a:\n  - {memory: d, holds: [input, input]}": "m.yaml:3: a.holds: an operand may stand once",
    "layers:\n  a:\n  - memory: d\n    holds: [weight]\n    loops: [X4]": "m.yaml:5: a.loops: expected a loop",
    "layers:\n  a:\n  - {memory: d, holds: [weight], loops: [K0]}": "m.yaml:3: a.loops: expected a loop such as K4",
    "layers:\n  a:\n  - {memory: d, holds: [weight], loops: [K-2]}": "got 'K-2'",
    "layers:\n  a:\n  - {memory: d, holds: [weight], loops: K4}": "m.yaml:3: a.loops: expected a list",
    "layers:\n  a:\n  - {memory: d, holds: [weight], order: [K4]}": "known: memory, holds, array, axes, loops",
    "layers:\n  a:\n  - {array: pe, axes: {rows: [[K4]]}}": "m.yaml:3: a.axes.rows: expected a name",
    "layers: &x\n  a: *x": "m.yaml:1: aliases (*name) are not allowed: write the value out",
    "layers:\n  a: &y\n  - *y": "m.yaml:2: aliases (*name) are not allowed",
    "layers:\n  a: &z []\n  b: *z": "m.yaml:2: aliases (*name) are not allowed",
    "layers:\n  a: !!python/tuple\n  - 1": "m.yaml:2: tag tag:yaml.org,2002:python/tuple is not allowed",
    "layers:\n  a:\n  - {memory: !name d, holds: []}": "m.yaml:3: tag !name is not allowed: write a plain value",
    "--- 1\n--- 2": "not valid YAML",
    "groups: 3\nlayers: {}": "m.yaml:1: groups: expected a list",
    "groups: [{first: a}]\nlayers: {}": "m.yaml:1: groups: key 'last' is missing",
    f"groups: [{GROUP.replace('rows: 2', 'rows: 0')}]\nlayers: {{}}": "m.yaml:1: groups.rows: expected a whole number",
    f"groups: [{GROUP.replace('kept', 'both')}]\nlayers: {{}}": "expected one of kept, recomputed, got 'both'",
    f"groups: [{GROUP.replace('[a]', 'a')}]\nlayers: {{}}": "m.yaml:1: groups.weights_stay: expected a list",
    f"groups: [{GROUP}]\nlayers: {{}}": "m.yaml: groups: layers that run depth first are read by hwsim evaluate alone",
    "passes: [{images: 2, times: 1, layers: {}}]": "m.yaml: passes: those of a batch are read by hwsim evaluate alone",
    "\x00": "not valid YAML",
}


@pytest.mark.parametrize("text", BAD_YAML)
def test_bad_yaml_names_file_and_line(text: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_mappings(text, "m.yaml")
    assert BAD_YAML[text] in str(caught.value)


def test_groups_come_back_equal() -> None:
    groups = (Together("a", "b: c", 2, 3, "kept", ("a",)), Together("d", "e", 1, 1, "recomputed", ()))
    assert parse_plan(dump_mappings({"a": GOOD}, groups)) == ({"a": GOOD}, groups, "", ())
    passes = (PassNests(2, 3, {"a": GOOD}, groups), PassNests(1, 1, {"a": GOOD, "b c": GOOD}))
    assert parse_plan(dump_passes(passes, "rows")) == ({}, (), "rows", passes)
    assert parse_plan(dump_mappings({"a": GOOD}, (), "rows,borders")) == ({"a": GOOD}, (), "rows,borders", ())


def test_all_problems_come_at_once() -> None:
    text = "layers:\n  a:\n  - {memory: d, holds: [w], loops: [K0]}\n  b: 4\n"
    with pytest.raises(SpecError) as caught:
        parse_mappings(text, "m.yaml")
    assert [problem.split(":")[1] for problem in caught.value.problems] == ["3", "3", "4"]


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path, tmp_path / "missing.yaml", binary):
        with pytest.raises(SpecError, match="cannot be read as a mapping file"):
            load_mappings(path)


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(SpecError, match="not valid YAML"):
        parse_mappings("[" * 1500 + "]" * 1500, "m.yaml")


def test_a_mapping_that_begins_with_a_loop_has_no_yaml_form() -> None:
    with pytest.raises(SpecError, match="must begin with a hold"):
        dump_mappings({"a": Mapping((Temporal("K", 2), TOP))})


def test_products_of_activations_are_mapped_like_linear_layers() -> None:
    layer = product(Loops(G=2, K=3, C=4, P=5), "matmul")
    nodes = (TOP, *(Temporal(dim, bound) for dim, bound in layer.loops.as_dict().items()))
    assert validate(Mapping(nodes), layer, machine(DRAM)) == []
    assert tile_elements(layer, "weight", Mapping(nodes).tile(0)) == 2 * 3 * 4
