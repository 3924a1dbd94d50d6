"""Prices: closed forms on unit-cost machines, parts that sum exactly, bits that never cost more when they fall."""

from __future__ import annotations

import csv
import dataclasses
import itertools
import math
import random
from fractions import Fraction
from pathlib import Path

import pytest

from hwsim.errors import CapabilityError, InfeasibleMapping, SpecError
from hwsim.machine.load import load_accelerator
from hwsim.machine.mac import mac_cost
from hwsim.machine.parts import OPERANDS, Accelerator, Array, Axis, MacMode, MacUnit, Memory, Packing
from hwsim.nest.count import count_accesses
from hwsim.nest.counts import Counts
from hwsim.nest.legal import validate
from hwsim.nest.mapping import Hold, Mapping, Spatial, Temporal
from hwsim.network.layer import DIMS, VECTOR_OPS, Layer, Loops, Tensor
from hwsim.network.workload import Workload
from hwsim.pricing.area import (
    AREA_TO_45NM,
    SRAM_MM2_45NM,
    area_factor,
    component_areas,
    mac_area_mm2,
    sram_area_mm2,
    static_power_mw,
)
from hwsim.pricing.latency import compute_cycles
from hwsim.pricing.layer import LayerCost, on_grid, price, price_vector
from hwsim.pricing.network import price_network
from hwsim.pricing.unit_prices import unit_prices
from hwsim.pricing.vector import VECTOR_OPS_PER_ELEMENT, vector_work
from hwsim.search.layer import search
from tests.oracles import walk_unit_steps
from tests.strategies import conv, machine, product, triple

ROOT = Path(__file__).resolve().parents[2]


def unit_machine(*nodes: Memory | Array, **changes: object) -> Accelerator:
    """A machine without static power: leakage would hide the formulas."""
    made = machine(*nodes)
    quiet = 1e-12  # a stated idle power switches leakage estimates off; this one rounds to nothing
    return dataclasses.replace(made, static_power_mw=quiet, **changes)


def dram(**changes: object) -> Memory:
    """One bit per word, one pJ per bit."""
    base = Memory("dram", None, OPERANDS, word_bits=1, read_energy_pj=1.0, write_energy_pj=1.0)
    return dataclasses.replace(base, **changes)


def everything_from(memory: str, layer: Layer) -> Mapping:
    """Hold all operands outside, run all loops below."""
    loops = tuple(Temporal(dim, n) for dim, n in layer.loops.as_dict().items() if n > 1)
    return Mapping((Hold(memory, OPERANDS), *loops))


def energies(cost: LayerCost) -> dict[tuple[str, str], float]:
    """Bill by component and detail."""
    return {(part.component, part.detail): part.energy_pj for part in cost.parts}


# --- closed forms -----------------------------------------------------------------------------------------------------


def test_a_bare_mac_on_dram_pays_every_operand_every_time() -> None:
    """16 MACs, 2 outputs: weights and inputs once per MAC, partial sums 14 times back and 16 times out."""
    layer = product(Loops(K=2, C=8), bits=(4, 8, 8))
    accelerator = unit_machine(dram())
    cost = price(layer, count_accesses(layer, everything_from("dram", layer), accelerator), accelerator)
    accumulator = 8 * 8 * 128
    width = accumulator.bit_length() + 1
    assert layer.accumulator_bits_needed() == width == 15
    assert energies(cost) == {
        ("dram", "weight"): 16 * 4,
        ("dram", "input"): 16 * 8,
        ("dram", "output (partial sums)"): (14 + 14) * width,
        ("dram", "output"): 2 * 8,
        ("dram", "parameters"): 40,
        ("mac", "4x8"): 16.0,
        ("vector", "requantize"): 4.0,
        ("static", "idle and leakage"): 0.0,
    }
    assert cost.latency_cycles == 16
    assert cost.bottleneck == "compute"


def test_partial_sums_are_as_wide_as_the_layer_needs_but_no_wider_than_the_machine() -> None:
    layer = product(Loops(K=2, C=8), bits=(4, 8, 8))
    narrow = unit_machine(dram(), mac=MacUnit("fixed", 8, 8, 12, 1.0))
    cost = price(layer, count_accesses(layer, everything_from("dram", layer), narrow), narrow)
    assert energies(cost)["dram", "output (partial sums)"] == 28 * 12
    told = dataclasses.replace(layer, accumulator_bits=9)
    cost = price(told, count_accesses(told, everything_from("dram", told), narrow), narrow)
    assert energies(cost)["dram", "output (partial sums)"] == 28 * 9


def test_words_follow_the_packing() -> None:
    layer = product(Loops(K=4, C=4), bits=(5, 5, 5))
    for packing, weight_words in (("dense", math.ceil(16 * 5 / 16)), ("floor", math.ceil(16 / 3)), ("padded", 16)):
        accelerator = unit_machine(dram(word_bits=16, packing=packing))
        cost = price(layer, count_accesses(layer, everything_from("dram", layer), accelerator), accelerator)
        moved = {(m.operand, m.kind): m for m in cost.moved}
        assert moved["weight", "code"].read_words == weight_words
        assert energies(cost)["dram", "weight"] == weight_words


def test_bandwidth_names_its_bottleneck_and_shared_ports_add_up() -> None:
    layer = product(Loops(K=2, C=8), bits=(4, 8, 8))
    bits_read = 16 * 4 + 16 * 8 + 14 * 15 + 40
    bits_written = 14 * 15 + 2 * 8
    wide = unit_machine(dram(read_bandwidth_bits_per_cycle=3.0, write_bandwidth_bits_per_cycle=2.0))
    cost = price(layer, count_accesses(layer, everything_from("dram", layer), wide), wide)
    assert dict(cost.cycles)["dram read"] == math.ceil(bits_read / 3)
    assert dict(cost.cycles)["dram write"] == math.ceil(bits_written / 2)
    assert (cost.bottleneck, cost.latency_cycles) == ("dram read", math.ceil(bits_read / 3))
    shared = unit_machine(dram(read_bandwidth_bits_per_cycle=3.0, shared_port=True))
    cost = price(layer, count_accesses(layer, everything_from("dram", layer), shared), shared)
    assert cost.latency_cycles == math.ceil((bits_read + bits_written) / 3)
    assert cost.bottleneck == "dram port"


def test_a_memory_that_is_not_double_buffered_adds_its_refills() -> None:
    """Weights, inputs and final outputs pass the DRAM port before and after 16 cycles of compute."""
    layer = product(Loops(K=2, C=8), bits=(4, 8, 8))
    loops = (Temporal("K", 2), Temporal("C", 8))
    mapping = Mapping((Hold("dram", OPERANDS), Hold("buffer", OPERANDS), *loops))
    for double_buffered in (True, False):
        accelerator = unit_machine(
            dram(read_bandwidth_bits_per_cycle=16.0, write_bandwidth_bits_per_cycle=4.0),
            Memory("buffer", 4096, OPERANDS, word_bits=1, double_buffered=double_buffered),
        )
        cost = price(layer, count_accesses(layer, mapping, accelerator), accelerator)
        refill = (16 * 4 + 8 * 8) // 16  # reads are slower than the 16 bits written
        assert cost.latency_cycles == (16 if double_buffered else 16 + refill)
        assert dict(cost.cycles).get("buffer refill", 0) == (0 if double_buffered else refill)
        assert dict(cost.cycles)["dram read"] == (refill + 3 if double_buffered else 3)  # parameters: 40 bits


def test_a_plain_processor_does_one_thing_after_another() -> None:
    layer = product(Loops(K=2, C=8), bits=(4, 8, 8))
    fast = unit_machine(dram(read_bandwidth_bits_per_cycle=100.0, write_bandwidth_bits_per_cycle=100.0))
    counts = count_accesses(layer, everything_from("dram", layer), fast)
    vector = dataclasses.replace(fast.vector, cycles_per_op=2.5)
    plain = dataclasses.replace(fast, overlap=False, layer_overhead_cycles=100, vector=vector)
    assert price(layer, counts, fast).latency_cycles == 16
    cost = price(layer, counts, plain)
    assert dict(cost.cycles) == {"compute": 16, "dram read": 5, "dram write": 3, "vector": 10}
    assert cost.latency_cycles == 16 + 5 + 3 + 10 + 100


def test_a_processor_copies_the_window_of_every_output_pixel() -> None:
    """C*R*S codes per pixel, for convolutions; a product reads its operands where they lie."""
    loops = Loops(N=2, K=5, C=3, P=4, Q=4, R=3, S=3)
    still = unit_machine(dram())
    copying = dataclasses.replace(still, vector=dataclasses.replace(still.vector, ops_per_copied_code=3))
    codes = 2 * 4 * 4 * 3 * 3 * 3
    for layer, copied in ((conv(loops), codes), (product(Loops(K=5, C=8)), 0)):
        counts = count_accesses(layer, everything_from("dram", layer), still)
        with_copies, without = price(layer, counts, copying), price(layer, counts, still)
        assert dict(with_copies.cycles)["vector"] == dict(without.cycles)["vector"] + 3 * copied
        assert with_copies.energy_pj["vector"] == without.energy_pj["vector"] + 3 * copied
        assert unit_prices(layer, copying).fixed_pj == unit_prices(layer, still).fixed_pj + 3 * copied


def test_hops_are_charged_per_bit_delivered() -> None:
    layer = product(Loops(K=4, C=2), bits=(4, 8, 8))
    grid = Array("grid", (Axis("rows", 4, ("K",)),), hop_energy_pj_per_bit=0.5)
    accelerator = unit_machine(dram(), grid)
    mapping = Mapping((Hold("dram", OPERANDS), Temporal("C", 2), Spatial("K", 4, "grid", "rows")))
    counts = count_accesses(layer, mapping, accelerator)
    cost = price(layer, counts, accelerator)
    found = energies(cost)
    assert found["grid", "weight hops"] == 8 * 4 * 0.5
    assert found["grid", "input hops"] == 2 * 4 * 8 * 0.5  # each input reaches four elements
    assert found["dram", "input"] == 2 * 8  # but is read once
    outputs = sum(
        (d.down + d.up) * (8 if d.kind == "final" else 13) for d in counts.deliveries if d.operand == "output"
    )
    assert layer.accumulator_bits_needed() == 13
    assert sum(p.energy_pj for p in cost.parts if p.detail == "output hops") == outputs * 0.5


def test_wires_in_words_make_narrow_operands_pay_for_whole_words() -> None:
    layer = product(Loops(K=4, C=2), bits=(4, 8, 8))
    grid = Array("grid", (Axis("rows", 4, ("K",)),), hop_energy_pj_per_bit=0.5, hop_word_bits=16)
    accelerator = unit_machine(dram(), grid)
    mapping = Mapping((Hold("dram", OPERANDS), Temporal("C", 2), Spatial("K", 4, "grid", "rows")))
    found = energies(price(layer, count_accesses(layer, mapping, accelerator), accelerator))
    assert found["grid", "weight hops"] == 8 * 16 * 0.5
    assert found["grid", "input hops"] == 2 * 4 * 16 * 0.5


def test_static_power_is_power_times_time() -> None:
    layer = product(Loops(K=2, C=8))
    accelerator = dataclasses.replace(machine(dram()), static_power_mw=3.0, clock_mhz=200.0)
    cost = price(layer, count_accesses(layer, everything_from("dram", layer), accelerator), accelerator)
    assert cost.energy_pj["static"] == on_grid(3.0 * 16 / 200 * 1000)


def test_control_power_flows_while_the_machine_works_beside_its_idle_power() -> None:
    layer = product(Loops(K=2, C=8))
    accelerator = dataclasses.replace(machine(dram()), static_power_mw=3.0, control_power_mw=5.0, clock_mhz=200.0)
    cost = price(layer, count_accesses(layer, everything_from("dram", layer), accelerator), accelerator)
    assert cost.energy_pj["static"] == on_grid(3.0 * 16 / 200 * 1000)
    assert cost.energy_pj["control"] == on_grid(5.0 * 16 / 200 * 1000)
    without = dataclasses.replace(accelerator, control_power_mw=0.0)
    plain = price(layer, count_accesses(layer, everything_from("dram", layer), without), without)
    assert cost.total_energy_pj == plain.total_energy_pj + cost.energy_pj["control"]


def test_zero_inputs_save_energy_only_where_the_machine_gates_them() -> None:
    layer = product(Loops(K=2, C=8))
    plain = unit_machine(dram())
    counts = count_accesses(layer, everything_from("dram", layer), plain)
    gated = dataclasses.replace(
        plain, capabilities=dataclasses.replace(plain.capabilities, zero_gating=("input",), zero_gating_saving=0.5)
    )
    assert price(layer, counts, plain, zero_share=0.5).energy_pj["mac"] == 16.0
    assert price(layer, counts, gated, zero_share=0.5).energy_pj["mac"] == 12.0


def test_refusals_come_before_any_price() -> None:
    layer = product(Loops(K=2, C=8), bits=(3, 8, 8))
    fusion = load_accelerator("bit_fusion")
    with pytest.raises(CapabilityError, match=r"capabilities.weight_bits"):
        unit_prices(layer, fusion)
    with pytest.raises(InfeasibleMapping, match="no mapping given for layer fc"):
        price_network(Workload("net", [layer]), fusion, {})


# --- systolic arrays: the closed forms of a cycle simulator -----------------------------------------------------------


def systolic(rows: int, columns: int, flow: str) -> tuple[Accelerator, tuple[str, str], str]:
    """An R x C array that holds outputs, weights or inputs still; the dims of its axes and the dim that runs."""
    held, row_dim, column_dim, running = {
        "os": ("output", "P", "K", "C"),
        "ws": ("weight", "C", "K", "P"),
        "is": ("input", "C", "P", "K"),
    }[flow]
    array = Array("array", (Axis("rows", rows, (row_dim,)), Axis("columns", columns, (column_dim,))), systolic=True)
    register = Memory("register", 64, (held,), double_buffered=False)  # type: ignore[arg-type]
    accelerator = dataclasses.replace(
        machine(dram(), array, register),
        static_power_mw=1e-9,
        vector=dataclasses.replace(machine().vector, lanes=10**9),
    )
    return accelerator, (row_dim, column_dim), running


def gemm_mapping(layer: Layer, accelerator: Accelerator, dims: tuple[str, str], running: str) -> Mapping:
    """Tiles outside, the array's unrolling, the held operand, the running loop inside; groups one after another."""
    (array,), bounds = accelerator.arrays, layer.loops.as_dict()
    outer, inner = [], []
    for axis, dim in zip(array.axes, dims, strict=True):
        used = min(axis.size, bounds[dim])
        outer.append(Temporal(dim, math.ceil(bounds[dim] / used)))
        inner.append(Spatial(dim, used, "array", axis.name))
    groups = [Temporal("G", bounds["G"])]
    held = accelerator.memories[1]
    nodes = [
        Hold("dram", OPERANDS),
        *groups,
        *outer,
        *inner,
        Hold("register", held.keeps),
        Temporal(running, bounds[running]),
    ]
    return Mapping(tuple(n for n in nodes if isinstance(n, Hold) or n.factor > 1))


def gemm_layers(model: str) -> list[tuple[int, int, int, int]]:
    """(groups, M = output pixels, K = taps, N = outputs) of every convolution and linear layer, per group."""
    with (ROOT / "tests" / "reference" / "layer_shapes_measured.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["model"] == model]
    found = []
    for row in rows:
        weight = [int(n) for n in row["weight_shape"].split("x")]
        groups = int(row["groups"] or 1)
        pixels = math.prod(int(n) for n in row["out_shape_CHW"].split("x")[1:])
        found.append((groups, pixels, math.prod(weight[1:]), weight[0] // groups))
    return found


# Sums over the networks of what the simulator prints, one less per simulated matrix than its cycles.
SIMULATED = {
    ("resnet18", 12, 14): (12_597_477, 14_088_485, 14_437_431),
    ("resnet18", 32, 32): (2_133_315, 2_855_031, 3_400_155),
    ("resnet18", 128, 128): (274_431, 441_581, 629_829),
    ("mobilenetv2_100", 12, 14): (9_228_186, 5_233_006, 8_849_200),
    ("mobilenetv2_100", 32, 32): (6_077_484, 3_600_256, 7_972_494),
    ("mobilenetv2_100", 128, 128): (6_006_574, 5_220_182, 8_727_796),
}


@pytest.mark.parametrize(("model", "rows", "columns"), SIMULATED)
def test_systolic_cycles_equal_the_simulators_closed_forms(model: str, rows: int, columns: int) -> None:
    layers = gemm_layers(model)
    printed = {"os": 0, "ws": 0, "is": 0}
    for flow in printed:
        accelerator, dims, running = systolic(rows, columns, flow)
        for (groups, m, k, n), times in {shape: layers.count(shape) for shape in layers}.items():
            layer = product(Loops(G=groups, P=m, C=k, K=n))
            mapping = gemm_mapping(layer, accelerator, dims, running)
            assert validate(mapping, layer, accelerator) == []
            cycles = dict(price(layer, count_accesses(layer, mapping, accelerator), accelerator).cycles)["compute"]
            expected = {
                "os": math.ceil(m / rows) * math.ceil(n / columns) * (k + rows + columns - 2),
                "ws": math.ceil(k / rows) * math.ceil(n / columns) * (m + 2 * rows + columns - 2),
                "is": math.ceil(k / rows) * math.ceil(m / columns) * (n + 2 * rows + columns - 2),
            }[flow]
            assert cycles == groups * expected, (flow, groups, m, k, n)
            printed[flow] += times * groups * (expected - 1)
    assert tuple(printed.values()) == SIMULATED[model, rows, columns]


def test_a_double_buffered_register_hides_all_but_the_first_fill() -> None:
    accelerator, dims, running = systolic(8, 8, "ws")
    hidden = dataclasses.replace(accelerator.memories[1], double_buffered=True)
    pipelined = dataclasses.replace(accelerator, hierarchy=(*accelerator.hierarchy[:2], hidden))
    layer = product(Loops(P=100, C=24, K=16))
    mapping = gemm_mapping(layer, accelerator, dims, running)
    for made, expected in ((accelerator, 6 * (100 + 22)), (pipelined, 6 * 100 + 22)):
        cost = price(layer, count_accesses(layer, mapping, made), made)
        assert dict(cost.cycles)["compute"] == expected


# --- properties on random triples -------------------------------------------------------------------------------------


MACS = (
    MacUnit("fixed", 8, 8, 32, 1.0),
    MacUnit("fusion", 8, 8, 24, 1.6),
    MacUnit("bit_serial", 8, 8, 32, 0.8, macs_per_cycle=0.125, fixed_energy_share=0.2),
    MacUnit("table", 8, 8, 20, 1.4, modes=tuple(MacMode(b, b, 64 / b**2, 0.02 * b**2) for b in (2, 4, 8))),
    MacUnit("in_memory", 8, 8, 32, 0.6, rows=64, adc_energy_pj=1.0),
)
PACKINGS: tuple[Packing, ...] = ("dense", "floor", "padded")


def random_prices(seed: int) -> tuple[Layer, Counts, Accelerator]:
    """A random legal triple whose machine gets random words, packings, energies, ports and a random MAC."""
    rng = random.Random(seed)
    layer, accelerator, mapping = triple(seed)
    nodes: list[Memory | Array] = []
    for node in accelerator.hierarchy:
        if isinstance(node, Memory):
            new = dataclasses.replace(
                node,
                word_bits=rng.choice((1, 8, 16, 64)),
                packing=rng.choice(PACKINGS),
                read_energy_pj=rng.uniform(0.1, 100),
                write_energy_pj=rng.uniform(0.1, 100),
                read_bandwidth_bits_per_cycle=rng.choice((None, 3.0, 16.0, 0.7)),
                write_bandwidth_bits_per_cycle=rng.choice((None, 5.0, 64.0)),
                shared_port=rng.random() < 0.3,
                double_buffered=rng.random() < 0.5,
            )
        else:
            new = dataclasses.replace(node, hop_energy_pj_per_bit=rng.choice((0.0, 0.13)))
        nodes.append(new)
    lanes = tuple(rng.sample(DIMS, k=rng.randint(1, 3)))
    mac = dataclasses.replace(rng.choice(MACS), latches=accelerator.mac.latches, lanes=lanes)
    made = dataclasses.replace(accelerator, hierarchy=tuple(nodes), mac=mac, static_power_mw=rng.choice((0.0, 2.0)))
    return layer, count_accesses(layer, mapping, made), made


def with_bits(layer: Layer, weight: int, activation: int, output: int) -> Layer:
    """The same layer at other widths."""
    assert layer.weight is not None
    return dataclasses.replace(
        layer,
        weight=dataclasses.replace(layer.weight, bits=weight),
        inputs=(dataclasses.replace(layer.inputs[0], bits=activation),),
        output=dataclasses.replace(layer.output, bits=output),
    )


@pytest.mark.long
@pytest.mark.parametrize("seed", range(120))
def test_fewer_bits_never_cost_more_energy_traffic_or_time(seed: int) -> None:
    layer, counts, accelerator = random_prices(seed)
    rng = random.Random(seed)
    ladders = [(8, 8, 8), (4, 4, 4), (2, 2, 2), (1, 1, 1)]
    start = tuple(rng.randint(4, 8) for _ in range(3))
    ladders_too = [start, tuple(rng.randint(1, b) for b in start)]
    for ladder in (ladders, ladders_too):
        costs = [price(with_bits(layer, *bits), counts, accelerator) for bits in ladder]
        for wide, narrow in itertools.pairwise(costs):
            assert narrow.total_energy_pj <= wide.total_energy_pj
            assert narrow.traffic_bits <= wide.traffic_bits
            assert narrow.latency_cycles <= wide.latency_cycles


@pytest.mark.parametrize("seed", range(60))
def test_units_of_several_products_take_the_steps_of_a_walk(seed: int) -> None:
    layer, accelerator, mapping = triple(seed)
    rng = random.Random(seed)
    products, lanes = rng.randint(1, 5), tuple(rng.sample(DIMS, k=rng.randint(1, 4)))
    mac = dataclasses.replace(accelerator.mac, macs_per_cycle=float(products), lanes=lanes)
    cost = mac_cost(mac, mac.weight_bits, mac.input_bits)
    counts = count_accesses(layer, mapping, accelerator)
    assert compute_cycles(counts, accelerator, cost) == walk_unit_steps(layer, mapping, lanes, products)


def test_depthwise_layers_gain_no_time_from_fusion() -> None:
    """Nine terms fill nine of sixteen rows and leave nothing for further products: pixels x groups at every width."""
    layer = conv(Loops(G=144, P=56, Q=56, R=3, S=3))
    machine = load_accelerator("bit_fusion")
    both = [with_bits(layer, b, b, b) for b in (2, 8)]
    found = [price(one, search(one, machine, "latency", effort="proven").counts, machine) for one in both]
    assert {dict(cost.cycles)["compute"] for cost in found} == {144 * 56 * 56 + 16 + 32 - 2 + 16}


def test_a_unit_of_several_products_needs_lanes() -> None:
    layer, accelerator, mapping = triple(0)
    wide = dataclasses.replace(accelerator, mac=dataclasses.replace(accelerator.mac, macs_per_cycle=4.0))
    with pytest.raises(SpecError, match=r"mac.lanes: missing key: a unit does 4 products at once .* e.g. lanes: \[C\]"):
        price(layer, count_accesses(layer, mapping, wide), wide)


@pytest.mark.parametrize("seed", range(40))
def test_parts_sum_to_totals_exactly_in_any_grouping(seed: int) -> None:
    layer, counts, accelerator = random_prices(seed)
    cost = price(layer, counts, accelerator)
    total = sum(Fraction(part.energy_pj) for part in cost.parts)
    assert Fraction(cost.total_energy_pj) == total
    assert Fraction(sum(cost.energy_pj.values())) == total
    assert sum(reversed([part.energy_pj for part in cost.parts])) == cost.total_energy_pj
    assert cost.latency_cycles >= max(n for _, n in cost.cycles)
    assert all(part.energy_pj * 1024 == int(part.energy_pj * 1024) for part in cost.parts)


@pytest.mark.parametrize("seed", range(60))
def test_unit_prices_bound_the_price_within_a_word_per_entry(seed: int) -> None:
    layer, counts, accelerator = random_prices(seed)
    prices = unit_prices(layer, accelerator)
    cost = price(layer, counts, accelerator)
    dynamic = sum(part.energy_pj for part in cost.parts if part.component != "static")
    rounding = sum(
        max(memory.read_energy_pj, memory.write_energy_pj) * (bool(t.reads) + bool(t.writes))
        for t in counts.traffic
        for memory in accelerator.memories
        if memory.name == t.memory
    )
    grid = len(cost.parts) / 1024
    assert prices.dynamic_pj(counts) <= dynamic + grid
    assert dynamic <= prices.dynamic_pj(counts) + rounding + grid
    static = cost.energy_pj.get("static", 0.0)
    assert static == pytest.approx(prices.static_pj_per_cycle * cost.latency_cycles, abs=1e-3)
    assert cost.latency_cycles >= prices.mac.cycles * counts.steps
    assert cost.latency_cycles >= prices.fixed_cycles


# --- area -------------------------------------------------------------------------------------------------------------


def test_area_beyond_its_tables_grows_with_capacity_and_with_the_square_of_the_node() -> None:
    size, mm2 = SRAM_MM2_45NM[-1]
    assert sram_area_mm2(int(8 * 3 * size), 45) == pytest.approx(3 * mm2)
    for node, factor in (AREA_TO_45NM[0], AREA_TO_45NM[-1]):
        outside = node / 2 if node == AREA_TO_45NM[0][0] else node * 2
        assert area_factor(outside) == pytest.approx(factor * (outside / node) ** 2)


def test_area_follows_its_tables() -> None:
    assert sram_area_mm2(8 * 1024 * 8, 45) == pytest.approx(0.0575061)
    assert sram_area_mm2(8 * 1024 * 8, 65) == pytest.approx(0.0575061 * 1.5)
    assert sram_area_mm2(64, 40) == pytest.approx(64 * 5.98e-6)
    assert mac_area_mm2(MacUnit("fixed", 8, 8, 32, 1.0), 45) == pytest.approx((282 + 137) * 1e-6, rel=0.001)
    assert mac_area_mm2(MacUnit("fixed", 32, 32, 32, 1.0), 45) == pytest.approx((3495 + 137) * 1e-6, rel=0.001)
    sizes = [sram_area_mm2(2**n, 45) for n in range(3, 30)]
    assert sizes == sorted(sizes)
    nodes = [area_factor(n) for n in (5, 7, 12, 28, 45, 65, 180)]
    assert nodes == sorted(nodes)


@pytest.mark.parametrize(("size_bytes", "mm2"), SRAM_MM2_45NM)
def test_area_at_a_measured_size_is_the_measured_area(size_bytes: int, mm2: float) -> None:
    assert sram_area_mm2(8 * size_bytes, 45) == pytest.approx(mm2, rel=1e-12)
    assert size_bytes == 1 << size_bytes.bit_length() - 1


def test_a_stated_idle_power_replaces_estimated_leakage() -> None:
    base = machine(dram(), Memory("buffer", 2**20, OPERANDS))
    areas = {part.name: part for part in component_areas(base)}
    assert areas["dram"].area_mm2 == 0.0
    assert areas["buffer"].estimated
    assert static_power_mw(base) == pytest.approx(10 * sum(part.area_mm2 for part in areas.values()))
    assert static_power_mw(dataclasses.replace(base, static_power_mw=7.0)) == 7.0


def test_more_memory_is_never_free() -> None:
    """Without area and leakage the largest buffer would always win."""
    small, large = (machine(dram(), Memory("buffer", bits, OPERANDS)) for bits in (2**16, 2**20))
    assert static_power_mw(small) < static_power_mw(large)
    assert sum(p.area_mm2 for p in component_areas(small)) < sum(p.area_mm2 for p in component_areas(large))


# --- operators without MACs -------------------------------------------------------------------------------------------


def test_a_vector_operator_reads_and_writes_each_element_once() -> None:
    x = Tensor("x", (1, 4, 8, 8), 8)
    pool = Layer("pool", "max_pool", (x,), Tensor("y", (1, 4, 4, 4), 8), window=4)
    alone = unit_machine(dram())
    cost = price_vector(pool, alone)
    assert energies(cost) == {
        ("dram", "input"): 256 * 8,
        ("dram", "output"): 64 * 8,
        ("vector", "max_pool"): 64 * 4,
        ("static", "idle and leakage"): 0.0,
    }
    buffer = Memory("buffer", 2**20, OPERANDS, word_bits=1, read_energy_pj=0.5, write_energy_pj=0.25)
    through = price_vector(pool, unit_machine(dram(), buffer))
    assert energies(through)["buffer", "input"] == 256 * 8 * 0.75
    kept = price_vector(pool, unit_machine(dram(), buffer), frozenset({"x"}))
    assert ("dram", "input") not in energies(kept)
    assert energies(kept)["buffer", "input"] == 256 * 8 * 0.5
    assert kept.resident == ("x",)


def test_an_embedding_reads_only_the_rows_it_looks_up() -> None:
    table = Tensor("table", (30_000, 64), 4)
    layer = Layer(
        "words", "embedding", (Tensor("index", (1, 7), 16, origin="index"),), Tensor("y", (1, 7, 64), 4), weight=table
    )
    cost = price_vector(layer, unit_machine(dram()))
    assert sum(m.read_words for m in cost.moved) == 7 * 16 + 7 * 64 * 4


def test_convolutions_and_products_share_one_formula() -> None:
    """A 1x1 convolution is a matrix product."""
    accelerator = unit_machine(dram())
    a, b = conv(Loops(K=4, C=6, P=5)), product(Loops(K=4, C=6, P=5))
    costs = [price(x, count_accesses(x, everything_from("dram", x), accelerator), accelerator) for x in (a, b)]
    assert energies(costs[0]) == energies(costs[1])


def test_every_operator_of_a_workload_has_a_price() -> None:
    accelerator = unit_machine(dram())
    assert set(VECTOR_OPS_PER_ELEMENT) == set(VECTOR_OPS)
    for op in VECTOR_OPS:
        for bits in (8, 16):
            layer = Layer(
                op, op, (Tensor("x", (1, 4, 4), bits), Tensor("z", (1, 4, 4), bits)), Tensor("y", (1, 4, 4), bits)
            )
            cost = price_vector(layer, accelerator)
            assert cost.total_energy_pj > 0
            assert cost.latency_cycles > 0 or op in ("embedding", "pad", "upsample", "copy")


def test_vector_work_never_grows_when_bits_fall() -> None:
    for kind, op in itertools.product(("multiplier", "shift", "thresholds"), VECTOR_OPS):
        can = dataclasses.replace(machine().capabilities, requantization=kind)
        slots = []
        for bits in (16, 8, 4, 2, 1):
            layer = Layer(op, op, (Tensor("x", (1, 4, 4), bits),), Tensor("y", (1, 4, 4), bits), window=3)
            slots.append(vector_work(layer, can).slots)
        assert slots == sorted(slots, reverse=True)
