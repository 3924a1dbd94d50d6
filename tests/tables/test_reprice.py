"""Tables of costs over widths: equal to `price` and `price_network`, as good as fresh searches, bounds that hold."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import numpy as np
import pytest

from hwsim.errors import CapabilityError, InfeasibleMapping, SpecError
from hwsim.machine.load import load_accelerator
from hwsim.machine.parts import Accelerator, MacMode, Memory, Operand
from hwsim.nest.legal import validate
from hwsim.nest.mapping import Mapping
from hwsim.network.bits import assign_bits
from hwsim.network.layer import Layer, Loops, Tensor
from hwsim.network.workload import Workload
from hwsim.pricing.layer import price
from hwsim.pricing.residents import Stay, choose_resident
from hwsim.search import cache
from hwsim.search.layer import search
from hwsim.search.objective import Objective
from hwsim.tables.bounds import Solved, transferred
from hwsim.tables.grid import Grid
from hwsim.tables.layer_table import LayerTable
from hwsim.tables.network_table import NetworkTable
from hwsim.tables.pool import Pool, Widths, at_widths
from hwsim.tables.residency import Held, Stays, choose
from tests.search.test_search_exhaustive import small_layer, small_machine
from tests.strategies import conv, random_mapping, triple

FEW = Widths((1, 3, 8), (2, 5, 8), (1, 4, 8))
SPECS = ("eyeriss_v2", "gemmini_16x16", "bit_fusion", "cortex_m7", "stripes", "sram_imc", "mico_measured")


def cache_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HWSIM_CACHE", str(folder))
    return folder / "mappings"


# --- exact prices on the grid -----------------------------------------------------------------------------------------


# Narrow weights start later and run at a smaller share of the rate.
UNPACKING = (MacMode(64, 64, 0.5, 1.0), MacMode(4, 64, 0.5, 1.0, 0.7, start_cycles=7, unpacks=True))


def bounded(accelerator: Accelerator, rng: random.Random) -> Accelerator:
    """A random machine with prices, words, packings, bandwidths, sizes and leakage that rounding shows up in."""
    nodes = [
        dataclasses.replace(
            node,
            size_bits=None if node.name == "dram" else rng.choice((None, 300, 4000)),
            word_bits=rng.choice((5, 8, 16)),
            packing=rng.choice(("dense", "floor", "padded")),
            read_energy_pj=rng.choice((0.37, 1.0, 6.1)),
            write_energy_pj=rng.choice((0.29, 2.0)),
            read_bandwidth_bits_per_cycle=rng.choice((None, 3.2, 8.0)),
            write_bandwidth_bits_per_cycle=rng.choice((None, 4.7)),
            shared_port=rng.random() < 0.3,
            double_buffered=rng.random() < 0.6,
        )
        if isinstance(node, Memory)
        else dataclasses.replace(node, hop_energy_pj_per_bit=0.13, hop_word_bits=rng.choice((1, 8)))
        for node in accelerator.hierarchy
    ]
    return dataclasses.replace(
        accelerator,
        hierarchy=tuple(nodes),
        static_power_mw=rng.choice((0.0, 0.7)),
        control_power_mw=rng.choice((0.0, 0.3)),
        overlap=rng.random() < 0.8,
        vector=dataclasses.replace(accelerator.vector, ops_per_copied_code=rng.choice((0, 3))),
    )


def with_border(layer: Layer) -> Layer:
    """The same convolution whose outermost rows and columns are padding, its input with an offset: a padded copy."""
    x = layer.inputs[0]
    n, channels, height, width = x.shape
    rows, columns = (1 if size > 2 else 0 for size in (height, width))
    inside = (n, channels, height - 2 * rows, width - 2 * columns)
    return dataclasses.replace(
        layer, inputs=(dataclasses.replace(x, shape=inside, offset=True),), padding=(rows, rows, columns, columns),
        padding_policy="pad_code",
    )  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("seed", range(40))
def test_a_grid_of_prices_equals_price_entry_by_entry(seed: int) -> None:
    rng = random.Random(seed)
    layer, machine, first = triple(seed)
    machine = bounded(machine, rng)
    if seed % 3 == 0:
        machine = dataclasses.replace(machine, mac=dataclasses.replace(machine.mac, style="subword", modes=UNPACKING))
    layer = dataclasses.replace(layer, bias=rng.random() < 0.5)
    if layer.op == "conv" and rng.random() < 0.7:
        layer = with_border(layer)
    pool = Pool(layer, machine).with_mapping(first).with_mapping(random_mapping(rng, layer, machine))
    resident: frozenset[Operand] = frozenset(o for o in ("input", "output") if rng.random() < 0.3)
    grid = Grid(layer, machine, FEW)
    prices = grid.prices(pool, resident)
    cycles = prices.cycles(grid.vector)
    energies = prices.energy_pj(cycles)
    for index, widths in FEW:
        narrowed = at_widths(layer, *widths)
        for place, (mapping, counts) in enumerate(zip(pool.mappings, pool.counts, strict=True)):
            at = (place, *index)
            if validate(mapping, narrowed, machine):
                assert energies[at] == np.inf
                continue
            cost = price(narrowed, counts, machine, resident={operand: operand for operand in resident})
            assert (energies[at], cycles[at]) == (cost.total_energy_pj, cost.latency_cycles)


@pytest.mark.long
@pytest.mark.parametrize("spec", SPECS)
def test_table_entries_are_what_price_says_and_bounds_hold(spec: str) -> None:
    machine = load_accelerator(spec)
    layer = conv(Loops(K=24, C=16, P=12, Q=12, R=3, S=3), bits=(8, 8, 8))
    table = LayerTable.build(layer, machine, FEW, anchors=(1, 8))
    for index, widths in FEW:
        if not table.grid.allowed[index]:
            assert table.energy_pj[index] == np.inf
            with pytest.raises(CapabilityError):
                table.mapping(*widths)
            continue
        cost = table.cost(*widths)
        assert (table.energy_pj[index], table.cycles[index]) == (cost.total_energy_pj, cost.latency_cycles)
        assert table.lower_bound_pj[index] <= cost.total_energy_pj
        assert table.lower_bound_cycles[index] <= cost.latency_cycles


# --- as good as fresh searches ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", ["eyeriss_v2", "bit_fusion"])
def test_no_fresh_quick_search_beats_the_table(spec: str) -> None:
    machine = load_accelerator(spec)
    layer = conv(Loops(K=32, C=16, P=14, Q=14, R=3, S=3))
    table = LayerTable.build(layer, machine)
    rng = random.Random(1)
    known = [widths for index, widths in table.widths if table.grid.allowed[index]]
    for widths in rng.sample(known, 4):
        fresh = search(at_widths(layer, *widths), machine)
        index = table.widths.index(*widths)
        assert table.energy_pj[index] <= fresh.cost.total_energy_pj
        assert table.lower_bound_pj[index] <= fresh.cost.total_energy_pj


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("objective", ["energy", "edp"])
def test_a_proven_table_is_the_optimum_at_every_width(seed: int, objective: Objective) -> None:
    """Few searches, every entry: equal to a fresh certified search, and the certificate says so."""
    rng = random.Random(seed)
    layer, machine = small_layer(rng), small_machine(rng)
    layer = dataclasses.replace(layer, accumulator_bits=None)
    widths = Widths((8, 16, 24), (8, 16), (8,))  # whole words of these machines
    try:
        table = LayerTable.build(layer, machine, widths, objective=objective, effort="proven", anchors=(8,))
    except InfeasibleMapping:
        assert all(not fits(layer, machine, w) for _, w in widths)
        return
    for index, triple_ in widths:
        if np.isfinite(table.value[index]):
            fresh = search(at_widths(layer, *triple_), machine, objective, effort="proven")
            assert table.lower_bound[index] <= fresh.certificate.value * (1 + 1e-9)
            if perfect(table.mapping(*triple_), layer):  # mappings with remainders are outside the certificate's space
                assert table.value[index] == pytest.approx(fresh.certificate.value, rel=1e-6)
            else:
                assert table.value[index] <= fresh.certificate.value * (1 + 1e-6)


def perfect(mapping: Mapping, layer: Layer) -> bool:
    """Whether all factors divide."""
    return mapping.tile(0) == layer.loops.as_dict()


def fits(layer: Layer, machine: Accelerator, widths: tuple[int, int, int]) -> bool:
    try:
        search(at_widths(layer, *widths), machine)
    except InfeasibleMapping:
        return False
    return True


def test_widths_that_ask_the_same_question_are_proven_together() -> None:
    """Padded words and one MAC mode: one search proves every width."""
    machine = load_accelerator("eyeriss_v1")
    table = LayerTable.build(conv(Loops(K=8, C=4)), machine, Widths((2, 4, 8), (2, 4, 8), (8,)), effort="proven")
    assert len(table.searched) == 1
    assert (table.lower_bound >= table.searched[0].lower_bound * (1 - 1e-12)).all()


def test_other_unit_energies_are_priced_without_a_search(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = load_accelerator("eyeriss_v2")
    layer = conv(Loops(K=16, C=8, P=14, Q=14, R=3, S=3))
    table = LayerTable.build(layer, machine)
    nodes = [
        dataclasses.replace(node, read_energy_pj=node.read_energy_pj * 3, write_energy_pj=node.write_energy_pj * 0.5)
        if isinstance(node, Memory)
        else node
        for node in machine.hierarchy
    ]
    other = dataclasses.replace(machine, hierarchy=tuple(nodes))
    fresh = search(at_widths(layer, 4, 4, 4), other)
    monkeypatch.setattr("hwsim.tables.hunt.search", None)
    moved = table.under(other)
    cost = moved.cost(4, 4, 4)
    index = moved.widths.index(4, 4, 4)
    assert cost == price(at_widths(layer, 4, 4, 4), moved.pool.counts[moved.place(4, 4, 4)], other)
    assert moved.energy_pj[index] == cost.total_energy_pj
    assert moved.lower_bound_pj[index] <= fresh.cost.total_energy_pj
    with pytest.raises(ValueError, match="more than its prices"):
        table.under(load_accelerator("simba"))


# --- bounds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(30))
def test_a_transferred_bound_never_exceeds_the_optimum(seed: int) -> None:
    """Random count vectors under random prices: what solved points prove holds for every other price."""
    rng = np.random.default_rng(seed)
    vectors = rng.integers(1, 1000, size=(20, 4)).astype(float)
    solved = []
    for _ in range(5):
        prices, widths = rng.uniform(0.1, 9, 4), tuple(int(b) for b in rng.integers(1, 9, 3))
        solved.append(Solved(widths, prices, float((vectors @ prices).min()), True))
    prices = rng.uniform(0.1, 9, 4)
    bound = transferred(solved, (8, 8, 8), prices)
    assert 0 < bound <= (vectors @ prices).min()
    assert transferred(solved, (0, 8, 8), prices) == 0.0
    mixed = 0.4 * solved[0].prices + 0.8 * solved[1].prices
    assert transferred(solved, (8, 8, 8), mixed) >= 0.999 * (0.4 * solved[0].moving_pj + 0.8 * solved[1].moving_pj)


# --- networks ---------------------------------------------------------------------------------------------------------


def residual(*, border: bool = False) -> Workload:
    """Two convolutions with activations, a shortcut of its own, an addition, a pooling, a linear layer.

    `border`: the second convolution is 3x3 and padded, with an offset that zeros do not stand for.
    """
    first = conv(Loops(K=16, C=3, P=16, Q=16, R=3, S=3), name="first")
    relu = Layer("relu", "relu", (first.output,), dataclasses.replace(first.output, name="relu.y", signed=False))
    second = conv(Loops(K=16, C=16, P=16, Q=16, R=3 if border else 1, S=3 if border else 1), name="second")
    second = dataclasses.replace(second, inputs=(relu.output,), bias=True, padding=(int(border),) * 4)
    shortcut = dataclasses.replace(conv(Loops(K=16, C=16, P=16, Q=16), name="short"), inputs=(relu.output,))
    added = Layer("add", "add", (second.output, shortcut.output), dataclasses.replace(second.output, name="add.y"))
    pooled = Tensor("pool.y", (1, 16), 8)
    pool = Layer("pool", "avg_pool", (added.output,), pooled, window=256)
    last = Layer(
        "last", "linear", (pooled,), Tensor("last.y", (1, 10), 8), Tensor("last.w", (10, 16), 8), Loops(K=10, C=16)
    )
    found = assign_bits(Workload("residual", [first, relu, second, shortcut, added, pool, last]), "W8A8")
    if not border:
        return found
    framed = [dataclasses.replace(x, padding_policy="pad_code") if x.name == "second" else x for x in found]
    found = Workload(found.name, framed, found.coverage, found.notes)
    return found.map_tensors(lambda t: dataclasses.replace(t, offset=True) if t.name == "relu.y" else t)


@pytest.mark.long
@pytest.mark.parametrize(
    ("spec", "size_bits", "border"),
    [*((spec, None, False) for spec in SPECS), ("gemmini_16x16", 60_000, False), ("cortex_m7", 30_000, False),
     ("gemmini_16x16", None, True), ("eyeriss_v2", None, True), ("gemmini_16x16", 60_000, True)],
)  # fmt: skip
def test_rows_equal_the_bill_of_the_whole_network(spec: str, size_bits: int | None, border: bool) -> None:
    machine = load_accelerator(spec)
    home = machine.activation_memory
    if size_bits is not None and home is not None and home.size_bits is not None:
        smaller = dataclasses.replace(home, size_bits=min(size_bits, home.size_bits))
        machine = dataclasses.replace(machine, hierarchy=tuple(smaller if n is home else n for n in machine.hierarchy))
    can = machine.capabilities
    known = [b for b in (1, 4, 7, 8) if b in can.weight_bits and b in can.activation_bits and b in can.output_bits]
    table = NetworkTable.build(residual(border=border), machine, known, anchors=(8,))
    rows = table.random(6, np.random.default_rng(0))
    found = table.price(rows)
    alone = table.price(rows, alone=True)
    for i, row in enumerate(rows):
        cost = table.network_cost(row)
        totals = cost.totals
        kinds = {layer.name: layer.offset.kind for layer in cost.layers}
        assert (kinds["second"] == "padded_copy") == border
        assert found.energy_pj[i] == totals.energy_pj
        assert found.cycles[i] == totals.latency_cycles
        assert found.packed_weight_bits[i] == totals.packed_weight_bits
        assert found.parameter_bits[i] == totals.parameter_bits
        assert found.peak_activation_bits[i] == totals.peak_activation_bits
        assert found.bops[i] == totals.bops
        kept = {n for n, keeps in zip(table.candidates, found.resident[i], strict=True) if keeps}
        assert kept == set(cost.resident)
        assert found.lower_bound_pj[i] <= found.energy_pj[i] <= alone.energy_pj[i]
        assert found.lower_bound_pj[i] <= alone.lower_bound_pj[i] <= alone.energy_pj[i]
        assert table.plan(row).cost.totals == totals


def test_a_row_is_the_network_that_assign_bits_makes() -> None:
    table = NetworkTable.build(residual(), load_accelerator("eyeriss_v2"), (2, 4, 8), anchors=(8,))
    narrowed = assign_bits(residual(), {"default": "W4A4", "second": {"weight": 2}})
    row = table.of_workload(narrowed)
    assert [c.name for c, bits in zip(table.columns, row[0], strict=True) if bits == 2] == ["second"]
    assert list(table.workload_at(row[0])) == list(narrowed)
    assert (table.of_workload(table.workload_at(table.uniform(8, 4)[0])) == table.uniform(8, 4)).all()


def test_bits_outside_the_tables_are_refused_with_their_place() -> None:
    table = NetworkTable.build(residual(), load_accelerator("eyeriss_v2"), (4, 8), anchors=(8,))
    with pytest.raises(SpecError, match=r"assignment 0: first has 3 bits, the tables know 4, 8"):
        table.price(table.uniform(3, 8))
    with pytest.raises(SpecError, match=r"expected \[count, \d+\] bits"):
        table.price(np.array([[8, 8]]))


@pytest.mark.parametrize("seed", range(25))
def test_arrays_keep_the_tensors_that_the_scalar_programme_keeps(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count, stages, tensors = 20, 6, 7
    stays, tiles = [], []
    for i in range(tensors):
        born = int(rng.integers(0, stages - 1))
        bits, saving = rng.integers(1, 9, count), rng.integers(0, 5, count).astype(float)
        last, may = int(rng.integers(born, stages)), rng.random(count) < 0.8
        stays.append(Stays(f"t{(i * 5) % 7}", born, last, bits, saving, may))
    for _ in range(stages):
        tiles.append([Held(rng.choice(["t0", "t3", "w"]), rng.integers(0, 4, count)) for _ in range(2)])
    for capacity in (9, 14):
        kept = choose(stays, tiles, capacity, count)
        for row in range(count):
            mine = [Stay(s.name, s.born, s.last, int(s.bits[row]), s.saving_pj[row]) for s in stays if s.may[row]]
            held = []
            for stage in tiles:
                bits_of: dict[str, int] = {}
                for tile in stage:
                    bits_of[tile.name] = bits_of.get(tile.name, 0) + int(tile.bits[row])
                held.append(bits_of)
            wanted = choose_resident(mine, held, capacity)
            assert {s.name for s, k in zip(stays, kept[row], strict=True) if k} == wanted


# --- disk -------------------------------------------------------------------------------------------------------------


def test_a_table_comes_back_from_the_cache_and_a_damaged_one_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = cache_in(tmp_path, monkeypatch)
    machine, layer = load_accelerator("bit_fusion"), conv(Loops(K=16, C=8, P=7, Q=7, R=3, S=3))
    table = LayerTable.build(layer, machine, FEW, anchors=(8,))
    monkeypatch.setattr("hwsim.tables.hunt.search", None)
    again = LayerTable.build(dataclasses.replace(layer, name="another"), machine, FEW, anchors=(8,))
    assert again.pool.mappings == table.pool.mappings
    assert (again.energy_pj == table.energy_pj).all()
    assert (again.lower_bound == table.lower_bound).all()
    for path in folder.glob("*.json"):
        entry = cache.load(path.stem)
        if entry is not None and "mappings" in entry:
            cache.store(path.stem, {**entry, "mappings": [[["dram", 3]]]})
    with pytest.raises(TypeError):  # it searches again, and there is no search here
        LayerTable.build(layer, machine, FEW, anchors=(8,))


def test_a_layer_that_fits_nowhere_says_so() -> None:
    machine = load_accelerator("eyeriss_v2")
    nodes = [
        dataclasses.replace(node, size_bits=4) if isinstance(node, Memory) and node.size_bits is not None else node
        for node in machine.hierarchy
    ]
    with pytest.raises(InfeasibleMapping, match="does not fit"):
        LayerTable.build(
            conv(Loops(K=4, C=4)), dataclasses.replace(machine, hierarchy=tuple(nodes)), Widths((8,), (8,), (8,))
        )
