"""Borders made on the way and codes that are compressed: which share of what is counted a port really moves."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pytest

from hwsim import evaluate
from hwsim.machine.parts import OPERANDS, Accelerator, Coding, Memory, ZeroCoding
from hwsim.nest.count import count_accesses
from hwsim.nest.mapping import Hold, Mapping, Temporal
from hwsim.network.layer import Layer, Loops
from hwsim.network.workload import Workload
from hwsim.pricing.fit import weight_sizes
from hwsim.pricing.layer import price
from hwsim.pricing.network import price_network
from hwsim.pricing.rounding import rounding_pj
from hwsim.pricing.shares import existing_share, zeros_left_out
from hwsim.pricing.unit_prices import unit_prices
from hwsim.search.layer import search
from hwsim.search.space.likeness import search_key
from hwsim.tables.grid import Grid
from hwsim.tables.pool import Pool, Widths, anonymous, at_widths
from tests.oracles import point
from tests.strategies import conv, machine, product, triple

DRAM = Memory("dram", None, OPERANDS, word_bits=8, read_energy_pj=100.0, write_energy_pj=100.0)
INSERTED = dataclasses.replace(DRAM, padding="inserted")
CODINGS = (ZeroCoding(0.5, "bitmap"), ZeroCoding(0.9, "bitmap"), ZeroCoding(0.6, "run_length", 5),
           ZeroCoding(0.95, "run_length", 2))  # fmt: skip


def padded(layer: Layer, before: tuple[int, int], after: tuple[int, int]) -> Layer:
    """The same loops, part of whose input is border."""
    x = layer.inputs[0]
    rows, columns = (x.shape[2 + i] - before[i] - after[i] for i in (0, 1))
    own = dataclasses.replace(x, shape=(*x.shape[:2], rows, columns))
    return dataclasses.replace(layer, inputs=(own,), padding=(before[0], after[0], before[1], after[1]))


def map_7x7() -> Layer:
    """A 3 x 3 convolution with a border of one around 7 x 7 pixels of 8 channels."""
    return padded(conv(Loops(K=8, C=8, P=7, Q=7, R=3, S=3)), (1, 1), (1, 1))


def input_words(layer: Layer, accelerator: Accelerator, mapping: Mapping, memory: str = "dram") -> int:
    """Words of the input that a memory reads."""
    cost = price(layer, count_accesses(layer, mapping, accelerator), accelerator)
    return sum(m.read_words for m in cost.moved if (m.memory, m.operand) == (memory, "input"))


def whole(layer: Layer) -> Mapping:
    """Everything is loaded once into a buffer."""
    loops = layer.loops.as_dict().items()
    return Mapping((Hold("dram", OPERANDS), Hold("glb", OPERANDS), *(Temporal(d, n) for d, n in loops if n > 1)))


@pytest.mark.parametrize("seed", range(60))
def test_the_share_that_exists_is_counted_point_by_point(seed: int) -> None:
    rng = random.Random(seed)
    loops = Loops(P=rng.randint(1, 6), Q=rng.randint(1, 5), R=rng.randint(1, 4), S=rng.randint(1, 4))
    plain = conv(loops, (rng.randint(1, 3), rng.randint(1, 3)), (rng.randint(1, 3), rng.randint(1, 2)))
    rows, columns = plain.inputs[0].shape[2:]
    before = (rng.randint(0, (rows - 1) // 2), rng.randint(0, (columns - 1) // 2))
    after = (rng.randint(0, (rows - 1) // 2), rng.randint(0, (columns - 1) // 2))
    layer = padded(plain, before, after)
    at = [
        point(layer, "input", {"N": 0, "G": 0, "C": 0, "P": p, "Q": q, "R": r, "S": s})
        for p in range(loops.P) for q in range(loops.Q) for r in range(loops.R) for s in range(loops.S)
    ]  # fmt: skip
    seen = set(at)
    inside = {x for x in seen if before[0] <= x[3] < rows - after[0] and before[1] <= x[4] < columns - after[1]}
    assert existing_share(layer) == Fraction(len(inside), len(seen))


def windows(seed: int) -> tuple[Layer, int, int]:
    """A convolution of random strides, dilations and borders; points of its windows, and those that are no border."""
    rng = random.Random(seed)
    while True:
        taps = rng.choice((1, 2, 3, 4, 5, 7)), rng.choice((1, 2, 3, 4, 6))
        stride, dilation = (rng.randint(1, 4), rng.randint(1, 4)), (rng.randint(1, 3), rng.randint(1, 3))
        border, size = [rng.choice((0, 1, 2, 3, 5, 8)) for _ in range(4)], (rng.randint(3, 14), rng.randint(3, 14))
        outputs = [
            (size[i] + border[2 * i] + border[2 * i + 1] - dilation[i] * (taps[i] - 1) - 1) // stride[i] + 1
            for i in (0, 1)
        ]
        if min(outputs) > 0:
            break
    layer = conv(Loops(K=3, C=2, P=outputs[0], Q=outputs[1], R=taps[0], S=taps[1]), stride, dilation)
    layer = dataclasses.replace(
        layer, inputs=(dataclasses.replace(layer.inputs[0], shape=(1, 2, *size)),), padding=tuple(border),
        padding_policy="pad_code" if any(border) else "",
    )  # fmt: skip
    seen = [{p * stride[i] + r * dilation[i] for p in range(outputs[i]) for r in range(taps[i])} for i in (0, 1)]
    own = [sum(border[2 * i] <= n < border[2 * i] + size[i] for n in seen[i]) for i in (0, 1)]
    return layer, 2 * len(seen[0]) * len(seen[1]), 2 * own[0] * own[1]


def check_border(seed: int) -> None:
    """The cheapest nest reads every point of the windows once from outside; those of the border where they are."""
    layer, stored, own = windows(seed)
    for dram, expected in ((DRAM, stored), (INSERTED, own)):
        glb = Memory("glb", 1 << 23, OPERANDS, word_bits=8, read_energy_pj=6.0, write_energy_pj=6.0)
        built = machine(dram, dataclasses.replace(glb, padding=dram.padding))
        able = dataclasses.replace(built.capabilities, pad_value="any_code")
        built = dataclasses.replace(built, capabilities=able)
        cost = search(layer, built).cost
        assert sum(m.read_words for m in cost.moved if (m.memory, m.operand) == ("dram", "input")) == expected


@pytest.mark.parametrize("seed", range(25))
def test_searched_nests_read_the_points_of_their_windows_once(seed: int) -> None:
    check_border(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 1100))
def test_1000_searched_nests_read_the_points_of_their_windows_once(seed: int) -> None:
    check_border(seed)


def test_a_machine_that_inserts_zeros_reads_392_pixels_and_not_648() -> None:
    layer, glb = map_7x7(), dataclasses.replace(DRAM, name="glb", size_bits=10**6)
    assert input_words(layer, machine(DRAM, glb), whole(layer)) == 8 * 9 * 9
    assert input_words(layer, machine(INSERTED, glb), whole(layer)) == 8 * 7 * 7


def test_what_is_read_again_is_read_as_much_less() -> None:
    """The map is too large for the buffer: each of two groups of outputs reads it once."""
    layer, glb = map_7x7(), dataclasses.replace(DRAM, name="glb", size_bits=10**6)
    inner = [Temporal(d, n) for d, n in (("K", 4), ("R", 3), ("S", 3), ("Q", 7))]
    again = Mapping(
        (Hold("dram", OPERANDS), Temporal("K", 2), Temporal("C", 8), Temporal("P", 7), Hold("glb", OPERANDS), *inner)
    )
    stored, inserted = (input_words(layer, machine(m, glb), again) for m in (DRAM, INSERTED))
    assert stored == 2 * 8 * 9 * 9
    assert inserted == 2 * 8 * 7 * 7


def test_an_order_that_reads_the_border_less_often_is_within_three_percent() -> None:
    """Kernel rows outermost: row p + r - 1 for every p, so rows at the border are read less often than those inside."""
    layer = padded(conv(Loops(P=56, Q=56, R=3, S=3)), (1, 1), (1, 1))
    glb = dataclasses.replace(DRAM, name="glb", size_bits=10**6)
    outside = (Hold("dram", OPERANDS), Temporal("R", 3), Temporal("P", 56), Hold("glb", OPERANDS))
    mapping = Mapping((*outside, Temporal("S", 3), Temporal("Q", 56)))
    rows = sum(0 <= p + r - 1 < 56 for r in range(3) for p in range(56))
    assert input_words(layer, machine(DRAM, glb), mapping) == 3 * 56 * 58
    assert input_words(layer, machine(INSERTED, glb), mapping) == pytest.approx(rows * 56, rel=0.03)


def test_a_border_of_codes_that_the_machine_cannot_make_is_stored_and_read() -> None:
    x = dataclasses.replace(map_7x7().inputs[0], offset=True)
    layer = dataclasses.replace(map_7x7(), inputs=(x,), padding_policy="pad_code", pad_code=17)
    glb = dataclasses.replace(DRAM, name="glb", size_bits=10**6)
    assert input_words(layer, machine(INSERTED, glb), whole(layer)) == 8 * 9 * 9
    able = machine(INSERTED, glb)
    able = dataclasses.replace(able, capabilities=dataclasses.replace(able.capabilities, pad_value="any_code"))
    assert input_words(layer, able, whole(layer)) == 8 * 7 * 7


def test_the_report_names_who_reads_the_border() -> None:
    layer, glb = map_7x7(), dataclasses.replace(DRAM, name="glb", size_bits=10**6)

    def said(memory: Memory) -> str:
        accelerator = machine(memory, glb)
        counts = {layer.name: count_accesses(layer, whole(layer), accelerator)}
        return " ".join(price_network(Workload("net", [layer]), accelerator, counts).assumptions)

    assert "border around inputs is up to 39.5 % of the points they count (1 layer); stored in" in said(DRAM)
    assert "made on the way out of dram" in said(INSERTED)
    plain = conv(Loops(K=2, C=2, P=3, Q=3))
    counts = {plain.name: count_accesses(plain, whole(plain), machine(DRAM, glb))}
    assert "border" not in " ".join(price_network(Workload("n", [plain]), machine(DRAM, glb), counts).assumptions)


def test_compressed_codes_move_their_share_and_unfinished_sums_move_whole() -> None:
    ratios = (("weight", 0.5), ("output", 0.25))
    packed = dataclasses.replace(DRAM, compression=ratios)
    layer = product(Loops(K=8, C=8, P=4))
    nodes = (Hold("dram", OPERANDS), Temporal("C", 8), Temporal("P", 4), Temporal("K", 8))
    words = [
        {(m.operand, m.kind): (m.read_words, m.write_words) for m in price(layer, counts, accelerator).moved}
        for accelerator in (machine(DRAM), machine(packed))
        for counts in (count_accesses(layer, Mapping(nodes), accelerator),)
    ]
    plain, small = words
    assert small["weight", "code"] == (plain["weight", "code"][0] // 2, 0)
    assert small["input", "code"] == plain["input", "code"]
    assert small["output", "partial"] == plain["output", "partial"]
    assert small["output", "final"] == (0, plain["output", "final"][1] // 4)


def test_compressed_weights_take_their_share_of_flash() -> None:
    network = Workload("net", [product(Loops(K=100, C=30))])
    stored = weight_sizes(network, machine(dataclasses.replace(DRAM, compression=(("weight", 0.85),))))
    assert stored["fc.w"] == 0.85 * weight_sizes(network, machine(DRAM))["fc.w"]


def coded_bits(codes: Sequence[bool], bits: int, coded: ZeroCoding) -> int:
    """Bits of a stream written code by code; True: not zero."""
    if coded.coding == "bitmap":
        return sum(1 + bits * code for code in codes)
    written = run = 0
    for code in codes:
        if code or run == 2**coded.run_bits - 1:
            written, run = written + 1, 0
        else:
            run += 1
    return (written + bool(run)) * (coded.run_bits + bits)


@pytest.mark.parametrize("coded", CODINGS, ids=str)
@pytest.mark.parametrize("bits", [2, 4, 8, 16])
def test_zeros_left_out_take_what_a_coder_writes(coded: ZeroCoding, bits: int) -> None:
    rng = random.Random(bits)
    codes = [rng.random() >= coded.zeros for _ in range(200_000)]
    written = coded_bits(codes, bits, coded) / (len(codes) * bits)
    assert zeros_left_out(coded, bits) == pytest.approx(min(1.0, written), rel=0.01)


@pytest.mark.parametrize("coding", [("bitmap", 0), ("run_length", 1), ("run_length", 5), ("run_length", 8)])
def test_fewer_bits_and_more_zeros_never_move_more_and_never_more_than_plain(coding: tuple[Coding, int]) -> None:
    known = [[bits * zeros_left_out(ZeroCoding(z / 8, *coding), bits) for z in range(9)] for bits in range(1, 33)]
    assert all(a <= b for few, many in pairwise(known) for a, b in zip(few, many, strict=True))
    assert all(a >= b for row in known for a, b in pairwise(row))
    assert all(0 < x <= bits for bits, row in enumerate(known, 1) for x in row)
    assert known[7][0] == 8  # without zeros a coder would only add: codes go plain


def test_a_table_over_widths_prices_each_width_by_its_own_share_of_zeros() -> None:
    packed = dataclasses.replace(DRAM, compression=tuple((o, ZeroCoding(0.5, "bitmap")) for o in OPERANDS))
    accelerator, layer = machine(packed), product(Loops(K=8, C=8, P=4))
    mapping = Mapping((Hold("dram", OPERANDS), Temporal("C", 8), Temporal("P", 4), Temporal("K", 8)))
    counts = count_accesses(layer, mapping, accelerator)
    grid = Grid(anonymous(layer), accelerator, Widths((2, 4, 8), (2, 8), (4, 8)))
    prices = grid.prices(Pool(anonymous(layer), accelerator, (mapping,), (counts,)))
    energy = prices.energy_pj(prices.cycles(grid.vector))[0]
    for i, w in enumerate((2, 4, 8)):
        for j, x in enumerate((2, 8)):
            for k, y in enumerate((4, 8)):
                assert energy[i, j, k] == price(at_widths(layer, w, x, y), counts, accelerator).total_energy_pj


@pytest.mark.long
def test_zeros_left_out_in_a_spec_save_less_at_narrow_widths(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "accel_specs" / "bit_fusion.yaml").read_text(encoding="utf-8")
    coded = text.replace(
        "hierarchy:\n  - {", "hierarchy:\n  - {compression: {input: {zeros: 0.5, coding: bitmap}}, ", 1
    )
    assert coded != text
    (tmp_path / "coded.yaml").write_text(coded, encoding="utf-8")
    saved: list[float] = []
    for bits in ("W8A8", "W4A4", "W2A2"):
        plain, small = (
            evaluate("resnet8", spec, bits=bits, first_last="same", elementwise_bits="same", effort="quick")
            for spec in ("bit_fusion", tmp_path / "coded.yaml")
        )
        saved.append(1 - small.energy_pj / plain.energy_pj)
        assert any("inputs of dram by a bitmap, 50 % of them zeros" in said for said in small.assumptions)
    assert saved[0] > saved[1] > saved[2] == 0


@pytest.mark.parametrize("seed", range(40))
def test_linear_prices_and_tables_say_what_is_billed(seed: int) -> None:
    """Of random layers, machines and mappings: linear prices are a word per entry below the bill, tables equal it."""
    layer, accelerator, mapping = triple(seed)
    rng = random.Random(seed)
    if layer.op == "conv" and min(layer.inputs[0].shape[2:]) > 2:
        layer = padded(layer, (1, 0), (1, 1))

    def with_shares(memory: Memory) -> Memory:
        packing = rng.choice(("dense", "floor", "padded"))
        known = (0.25, 0.8, *(CODINGS if packing == "dense" else ()))
        ratios = tuple((operand, rng.choice(known)) for operand in memory.keeps if rng.random() < 0.5)
        return dataclasses.replace(
            memory, padding=rng.choice(("stored", "inserted")), compression=ratios, read_energy_pj=rng.randint(1, 9),
            write_energy_pj=rng.randint(1, 9), word_bits=rng.choice((8, 24)), packing=packing,
        )  # fmt: skip

    nodes = tuple(
        with_shares(node) if isinstance(node, Memory)
        else dataclasses.replace(node, loads_whole_tiles=rng.random() < 0.5)
        for node in accelerator.hierarchy
    )  # fmt: skip
    accelerator = dataclasses.replace(accelerator, hierarchy=nodes)
    counts = count_accesses(layer, mapping, accelerator)
    cost, unit = price(layer, counts, accelerator), unit_prices(layer, accelerator)
    moving = sum(pj for name, pj in cost.energy_pj.items() if name not in ("static", "control"))
    assert unit.dynamic_pj(counts) - 1e-6 <= moving <= unit.dynamic_pj(counts) + rounding_pj(unit, accelerator)
    plain = anonymous(layer)
    assert layer.weight is not None
    grid = Grid(plain, accelerator, Widths((layer.weight.bits,), (layer.inputs[0].bits,), (layer.output.bits,)))
    prices = grid.prices(Pool(plain, accelerator, (mapping,), (counts,)))
    cycles = prices.cycles(grid.vector)
    assert (prices.energy_pj(cycles)[0, 0, 0, 0], cycles[0, 0, 0, 0]) == (cost.total_energy_pj, cost.latency_cycles)


def test_layers_with_other_borders_are_searched_apart() -> None:
    wide = padded(conv(Loops(K=2, P=7, Q=7, R=3, S=3)), (1, 1), (1, 1))
    narrow = padded(conv(Loops(K=2, P=7, Q=7, R=3, S=3)), (1, 1), (0, 0))
    assert search_key(wide) != search_key(narrow)
