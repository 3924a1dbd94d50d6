"""What stages read line by line, against windows enumerated; what breaks a group; a stage's bill on a tile."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from hwsim.machine.load import load_accelerator
from hwsim.machine.parts import Accelerator
from hwsim.nest.legal import tile_bits
from hwsim.nest.mapping import Hold, Mapping, Spatial, Temporal
from hwsim.network.layer import Layer, Tensor
from hwsim.network.workload import Workload
from hwsim.pricing.fused import Entry
from hwsim.pricing.groups import Group, Window, group_of, windows
from hwsim.pricing.layer import LayerCost, Part, memory_parts, operand_tensors, price_vector
from hwsim.pricing.moves import Moved
from hwsim.pricing.stages import Stage
from hwsim.pricing.tiles import (
    AT_HOME,
    Bill,
    bill,
    bill_without_macs,
    cut_layer,
    cut_stage,
    cut_tensor,
    filled_once,
    held_still,
    home_of,
    tile_layer,
    weight_memory,
    weight_pool,
)  # fmt: skip
from tests.small_workloads import add, chain, conv, max_pool, residual

SIMBA = load_accelerator("simba")
X = Tensor("x", (1, 4, 12, 10), 8)


def read_by(*layers: Layer) -> tuple[Window, ...] | None:
    """What a stage of a layer and those behind it reads."""
    return windows(Stage(layers[0], layers[1:]), SIMBA)


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize(("taps", "stride"), [(1, 1), (3, 1), (3, 2), (5, 3), (1, 2)])
def test_windows_of_a_convolution_hold_the_lines_that_its_taps_read_and_no_others(
    taps: int, stride: int, dilation: int
) -> None:
    made = tuple((n + 2 * (taps // 2) - (taps - 1) * dilation - 1) // stride + 1 for n in (12, 10))
    layer = conv("c", X, 8, taps=taps, stride=stride)
    layer = dataclasses.replace(
        layer,
        dilation=(dilation, dilation),
        output=dataclasses.replace(layer.output, shape=(1, 8, *made)),
        loops=dataclasses.replace(layer.loops, P=made[0], Q=made[1]),
    )
    found = read_by(layer)
    assert found is not None
    (window,) = found
    assert (window.tensor, window.whole) == (X, False)
    for axis in (0, 1):
        for line in range(made[axis]):
            lines = [line * stride - taps // 2 + tap * dilation for tap in range(taps)]
            first = line * window.stride[axis] - window.padding[2 * axis]
            assert (first, first + window.reach[axis]) == (lines[0], lines[-1] + 1)


@pytest.mark.parametrize("stride", [2, 3])
@pytest.mark.parametrize("op", ["max_pool", "avg_pool"])
def test_windows_of_a_pool_known_by_its_sizes_lie_side_by_side(op: str, stride: int) -> None:
    """Line y reads lines y * stride to (y + 1) * stride - 1."""
    x = Tensor("x", (1, 4, 12, 18), 8)
    pool = Layer("p", op, (x,), Tensor("y", (1, 4, 12 // stride, 18 // stride), 8), window=stride * stride)
    assert read_by(pool) == (Window(x, (stride, stride), (stride, stride)),)
    for change in (
        {"window": 9 * stride},  # windows that overlap
        {"output": Tensor("y", (1, 4, 5, 18 // stride), 8)},  # sizes that do not divide
        {"output": Tensor("y", (1, 5, 12 // stride, 18 // stride), 8)},
        {"inputs": (x, x)},
        {"inputs": (Tensor("x", (1, 4 * 12 * 18), 8),)},
    ):
        assert read_by(dataclasses.replace(pool, **change)) is None  # type: ignore[arg-type]


def test_concatenations_read_the_same_line_of_every_part() -> None:
    parts = (X, Tensor("z", (1, 3, 12, 10), 8))
    layer = Layer("c", "concat", parts, Tensor("y", (1, 7, 12, 10), 8))
    assert read_by(layer) == (Window(parts[0]), Window(parts[1]))
    for shape in ((1, 3, 6, 10), (1, 3, 12, 5), (2, 3, 12, 10), (1, 360)):
        assert read_by(dataclasses.replace(layer, inputs=(X, Tensor("z", shape, 8)))) is None, shape
    assert read_by(dataclasses.replace(layer, op="softmax")) is None
    assert read_by(dataclasses.replace(layer, op="layer_norm")) is None


@pytest.mark.parametrize("op", ["add", "sub", "mul", "div", "silu", "requantize", "batch_norm"])
def test_elementwise_operators_read_their_line_and_the_whole_of_what_is_broadcast(op: str) -> None:
    y = dataclasses.replace(X, name="y")
    assert read_by(Layer("e", op, (X,), y)) == (Window(X),)
    for shape in ((1, 4, 1, 1), (1, 4), (4,)):
        scale = Tensor("s", shape, 8)
        assert read_by(Layer("e", op, (X, scale), y)) == (Window(X), Window(scale, whole=True))
    for shape in ((1, 1, 12, 10), (1, 1, 1, 1), (1, 4, 12, 1), (2, 4, 12, 10), (480,), (1, 8, 1, 1)):
        assert read_by(Layer("e", op, (X, Tensor("s", shape, 8)), y)) is None, shape


def test_an_operator_behind_a_layer_adds_what_comes_from_outside_the_stage() -> None:
    first = conv("c", X, 8)
    skip = Tensor("skip", first.output.shape, 8)
    behind = add("a", first.output, skip)
    found = read_by(first, behind)
    assert found is not None
    assert [window.tensor.name for window in found] == ["x", "skip"]
    assert read_by(first, dataclasses.replace(behind, inputs=(first.output, Tensor("s", (1, 8, 3, 3), 8)))) is None
    smaller = dataclasses.replace(behind.output, shape=(1, 8, 6, 5))
    assert read_by(first, dataclasses.replace(behind, output=smaller)) is None


def test_the_border_of_a_convolution_stands_in_memory_only_where_it_has_codes_of_its_own() -> None:
    """A machine that pads with zeros alone writes the code of 0.0 around a map whose codes have an offset."""
    plain, offset = X, dataclasses.replace(X, signed=False, offset=True)
    for x, border in ((plain, False), (offset, True)):
        layer = dataclasses.replace(conv("c", x, 8), padding_policy="pad_code")
        zero_only = dataclasses.replace(
            SIMBA, capabilities=dataclasses.replace(SIMBA.capabilities, pad_value="zero_only")
        )
        found = windows(Stage(layer), zero_only)
        assert found is not None
        assert found[0].border == border


@pytest.mark.parametrize("change", [
    {"weight_is_activation": True},
    {"inputs": (X, X)},
    {"inputs": (Tensor("x", (1, 480), 8),)},
    {"inputs": (dataclasses.replace(X, run_time=True),)},
    {"output": Tensor("y", (1, 8, 12, 9), 8)},
    {"output": Tensor("y", (2, 8, 12, 10), 8)},
    {"stride": (2, 1)},
    {"padding": (-1, 3, 1, 1)},
    {"padding_policy": "border_bias"},
], ids=str)  # fmt: skip
def test_a_convolution_that_is_none_line_by_line_runs_in_no_group(change: dict[str, Any]) -> None:
    still = dataclasses.replace(SIMBA, capabilities=dataclasses.replace(SIMBA.capabilities, border_bias=False))
    layer = conv("c", X, 8)
    assert windows(Stage(layer), still) is not None
    assert windows(Stage(dataclasses.replace(layer, **change)), still) is None
    if change == {"padding_policy": "border_bias"}:
        able = dataclasses.replace(SIMBA, capabilities=dataclasses.replace(SIMBA.capabilities, border_bias=True))
        assert windows(Stage(dataclasses.replace(layer, **change)), able) is not None


# --- groups -----------------------------------------------------------------------------------------------------------


def grouped(layers: tuple[Layer, ...], first: int, end: int) -> Group | None:
    """Stages of one layer each."""
    stages = [Stage(layer) for layer in layers]
    last = {tensor.name: place for place, stage in enumerate(stages) for tensor in stage.inputs}
    return group_of(stages, first, end, [windows(stage, SIMBA) for stage in stages], last)


def test_a_group_knows_its_maps_in_order_and_which_of_them_others_need() -> None:
    layers = residual().layers  # stem, inner, back, total = back + stem, head
    group = grouped(layers, 1, 4)
    assert group is not None
    assert [tensor.name for tensor in group.maps] == ["stem.out", "inner.out", "back.out", "total.out"]
    assert (group.maker, group.first, group.end, group.images) == ((-1, 0, 1, 2), 1, 4, 1)
    assert [here.leaves for here in group.lines[0].maps] == [False, False, False, True]
    assert group.names == {"stem.out", "inner.out", "back.out", "total.out"}
    early = grouped(layers, 0, 3)  # the skip is read behind it
    assert early is not None
    assert [here.leaves for here in early.lines[0].maps] == [False, True, False, True]
    assert [here.size for here in early.lines[1].maps] == [12, 12, 12, 12]


def test_what_needs_a_whole_map_of_the_group_breaks_it() -> None:
    first = conv("c", X, 4)
    pooled = Layer("p", "avg_pool", (first.output,), Tensor("p.out", (1, 4, 1, 1), 8), window=120)
    gate = Layer("g", "mul", (first.output, pooled.output), Tensor("g.out", first.output.shape, 8))
    layers = (first, pooled, gate)
    assert grouped(layers, 0, 3) is None
    assert grouped(layers, 1, 3) is None
    alone = grouped(layers, 2, 3)
    assert alone is not None
    assert [tensor.name for tensor in alone.wholes] == ["p.out"]
    assert alone.names == {"c.out", "g.out", "p.out"}


def test_maps_that_nobody_in_the_group_reads_and_other_batches_break_it() -> None:
    first, aside = conv("a", X, 4), conv("b", X, 4)
    assert grouped((first, aside), 0, 2) is None  # the first map is read by nobody here
    image = dataclasses.replace(X, name="z", shape=(2, 4, 12, 10))
    two = conv("b", image, 4)
    both = Layer("c", "concat", (first.output, two.output), Tensor("y", (1, 8, 12, 10), 8))
    assert grouped((first, two, both), 0, 3) is None
    other = dataclasses.replace(first.output, shape=(1, 4, 10, 12))  # the same codes under another shape
    assert grouped((first, conv("d", other, 4)), 0, 2) is None


# --- tiles ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tile", [(1, 1), (2, 3), (4, 4)])
@pytest.mark.parametrize(("taps", "stride", "dilation"), [(1, 1, 1), (3, 1, 1), (3, 2, 1), (3, 1, 2), (5, 3, 2)])
def test_a_layer_on_a_tile_reads_the_lines_between_its_first_and_last_tap(
    tile: tuple[int, int], taps: int, stride: int, dilation: int
) -> None:
    layer = dataclasses.replace(conv("c", X, 8, taps=taps, stride=stride), dilation=(dilation, dilation))
    cut = cut_layer(layer, tile)
    seen = [{n * stride + tap * dilation for n in range(lines) for tap in range(taps)} for lines in tile]
    assert cut.inputs[0].shape == (1, 4, *(max(lines) + 1 for lines in seen))
    assert cut.output.shape == (1, 8, *tile)
    assert cut.loops == dataclasses.replace(layer.loops, N=1, P=tile[0], Q=tile[1])
    assert cut.padding == (0, 0, 0, 0)


def test_an_operator_on_a_tile_reads_its_windows_and_broadcasts_stay_whole() -> None:
    side = Layer("p", "avg_pool", (X,), Tensor("y", (1, 4, 6, 5), 8), window=4)
    assert cut_layer(side, (2, 3)).inputs[0].shape == (1, 4, 4, 6)
    known = max_pool("m", X, 3, 2)
    assert cut_layer(known, (2, 3)).inputs[0].shape == (1, 4, 5, 7)
    assert cut_layer(known, (6, 5)).inputs[0].shape == (1, 4, 12, 10)  # a border is not read
    gate = Layer("g", "mul", (X, Tensor("s", (1, 4, 1, 1), 8)), dataclasses.replace(X, name="y"))
    assert [t.shape for t in cut_layer(gate, (2, 3)).inputs] == [(1, 4, 2, 3), (1, 4, 1, 1)]
    assert cut_tensor(X, X, (1, 2)).shape == (1, 4, 1, 2)


OUTER = Hold("dram", ("weight", "input", "output"))


@pytest.mark.parametrize(("nodes", "still"), [
    ((OUTER, Hold("buffer", ("weight",)), Temporal("K", 8)), True),
    ((OUTER, Temporal("P", 3), Hold("buffer", ("weight",))), True),
    ((OUTER, Temporal("K", 1), Hold("buffer", ("weight",))), True),
    ((OUTER, Temporal("K", 2), Hold("buffer", ("weight",))), False),
    ((OUTER, Temporal("R", 3), Hold("buffer", ("weight",))), False),
    ((OUTER, Temporal("G", 2), Hold("buffer", ("weight",))), False),
    ((OUTER, Hold("buffer", ("input",))), False),
])  # fmt: skip
def test_weights_are_filled_once_where_no_loop_over_them_runs_outside(nodes: tuple[Any, ...], still: bool) -> None:
    assert filled_once(Mapping(nodes), "buffer") == still


@pytest.mark.parametrize("spec", ["simba", "eyeriss_v1", "ethos_u55_256"])
def test_a_nest_held_still_has_the_same_loops_with_those_over_weights_below_their_first_hold(spec: str) -> None:
    from hwsim.search.layer import search

    machine = load_accelerator(spec)
    for layer in chain().layers:
        before = search(layer, machine, effort="quick").mapping
        after = held_still(before, machine)
        memory = weight_memory(before, machine)
        assert sorted(map(str, loops(before))) == sorted(map(str, loops(after)))
        place = after.hold_index(memory, "weight")
        assert place is not None
        assert not [n for n in after.nodes[:place] if isinstance(n, Temporal) and n.dim in "GKCRS" and n.factor > 1]
        for operand in ("input", "output"):
            assert holders(before, operand) == holders(after, operand)
        for dims in ("NPQ", "GKCRS"):  # each kind keeps its order
            assert [n for n in timed(before) if n.dim in dims] == [n for n in timed(after) if n.dim in dims]


def loops(mapping: Mapping) -> list[Temporal | Spatial]:
    return [node for node in mapping.nodes if not isinstance(node, Hold)]


def timed(mapping: Mapping) -> list[Temporal]:
    return [node for node in mapping.nodes if isinstance(node, Temporal)]


def holders(mapping: Mapping, operand: str) -> list[str]:
    return [node.memory for node in mapping.nodes if isinstance(node, Hold) and operand in node.operands]


def test_weights_have_their_partition_or_what_partitions_leave() -> None:
    """A memory's pool for weights: their share where one is set aside, else the size less all shares."""
    for machine in map(load_accelerator, ("simba", "eyeriss_v1", "ethos_u55_256", "gemmini_16x16")):
        for memory in machine.memories[1:]:
            shares = dict(memory.partitions)
            name, size = weight_pool(machine, memory.name)
            if "weight" in shares:
                assert (name, size) == (f"{memory.name} (weight)", shares["weight"])
            else:
                assert memory.size_bits is not None
                assert (name, size) == (memory.name, memory.size_bits - sum(shares.values()))


def test_what_a_window_does_not_say_is_one_line_without_a_border() -> None:
    """One element reads one element: nothing beside it, nothing around the map."""
    plain = Window(X)
    assert (plain.stride, plain.reach, plain.padding) == ((1, 1), (1, 1), (0, 0, 0, 0))
    assert (plain.border, plain.whole) == (False, False)


def test_maps_of_a_group_without_stored_borders_are_their_own_lines() -> None:
    group = grouped(residual().layers, 1, 4)
    assert group is not None
    for axis, lines in enumerate(group.lines):
        assert [(here.size, here.before, here.after) for here in lines.maps] == [
            (tensor.shape[2 + axis], 0, 0) for tensor in group.maps
        ]


def test_a_groups_rows_and_columns_are_those_of_its_maps() -> None:
    """12 rows and 10 columns, halved by a stride."""
    first = conv("a", X, 4)
    group = grouped((first, conv("b", first.output, 4, stride=2)), 0, 2)
    assert group is not None
    rows, columns = group.lines
    assert [here.size for here in rows.maps] == [12, 12, 6]
    assert [here.size for here in columns.maps] == [10, 10, 5]


def test_a_stored_border_stands_on_the_sides_that_have_one() -> None:
    """A row above, none below, two columns left, one right, written around the map that the convolution reads."""
    machine = dataclasses.replace(SIMBA, capabilities=dataclasses.replace(SIMBA.capabilities, pad_value="zero_only"))
    x = dataclasses.replace(X, signed=False, offset=True)
    whole = conv("c", x, 8)
    layer = dataclasses.replace(
        whole, padding=(1, 0, 2, 1), padding_policy="pad_code",
        output=dataclasses.replace(whole.output, shape=(1, 8, 11, 11)),
        loops=dataclasses.replace(whole.loops, P=11, Q=11),
    )  # fmt: skip
    group = group_of([Stage(layer)], 0, 1, [windows(Stage(layer), machine)], {})
    assert group is not None
    rows, columns = group.lines
    assert (rows.maps[0].before, rows.maps[0].after) == (1, 0)
    assert (columns.maps[0].before, columns.maps[0].after) == (2, 1)
    assert [(m.before, m.after) for m in (rows.maps[1], columns.maps[1])] == [(0, 0), (0, 0)]


def test_a_group_does_not_begin_with_what_needs_a_whole_map() -> None:
    soft = Layer("s", "softmax", (X,), dataclasses.replace(X, name="s.out"))
    assert grouped((soft, conv("c", soft.output, 4)), 0, 2) is None
    assert grouped((soft, conv("c", soft.output, 4)), 1, 2) is not None


# --- the bill of one tile ---------------------------------------------------------------------------------------------


def quick_bills(machine: Accelerator = SIMBA) -> list[tuple[Stage, Mapping, Bill]]:
    """Every layer of a chain whole, weights held still, where maps pass the memory of maps."""
    from hwsim.search.layer import search

    found: list[tuple[Stage, Mapping, Bill]] = []
    for layer in chain().layers:
        tile = layer.output.shape[2], layer.output.shape[3]
        nest = held_still(search(tile_layer(Stage(layer), tile), machine, effort="quick").mapping, machine)
        stage = cut_stage(Stage(layer), tile)
        priced = bill(stage, nest, machine)
        if priced is not None:
            found.append((stage, nest, priced))
    return found


def words_of(cost: LayerCost) -> dict[tuple[str, str], tuple[int, int]]:
    """Words read and written by memory and operand."""
    found: dict[tuple[str, str], tuple[int, int]] = {}
    for m in cost.moved:
        reads, writes = found.get((m.memory, m.operand), (0, 0))
        found[m.memory, m.operand] = reads + m.read_words, writes + m.write_words
    return found


def test_weights_that_stay_save_their_way_from_outside_and_nothing_else() -> None:
    """Their reads outside and their writes into the first memory that holds them; each costs what memories charge."""
    bills = quick_bills()
    assert bills
    for stage, nest, found in bills:
        memory, outer = weight_memory(nest, SIMBA), SIMBA.outermost.name
        assert (found.memory, found.can_stay) == (memory, True)
        (bringing,), (staying,) = found.bringing, found.staying
        before, after = words_of(bringing), words_of(staying)
        weight = stage.layer.weight
        assert weight is not None
        assert before[outer, "weight"][0] * SIMBA.outermost.word_bits >= weight.size_bits
        assert after.get((outer, "weight"), (0, 0)) == (0, 0)
        assert before[memory, "weight"][1] > 0 == after[memory, "weight"][1]
        for key, words in before.items():
            if key not in ((outer, "weight"), (memory, "weight")):
                assert after[key] == words, key
        assert after[memory, "weight"][0] == before[memory, "weight"][0]
        saved = [m for m in bringing.moved if m.operand == "weight" and m.memory in (outer, memory)]
        left = [m for m in staying.moved if m.operand == "weight" and m.memory == memory]
        in_words = sum(p.energy_pj for p in memory_parts(saved, SIMBA)) - sum(
            p.energy_pj for p in memory_parts(left, SIMBA)
        )
        places = {outer, memory}
        spent = [sum(p.energy_pj for p in cost.parts if p.component in places) for cost in (bringing, staying)]
        assert spent[0] - spent[1] == pytest.approx(in_words)


@pytest.mark.parametrize("spec", ["simba", "eyeriss_v1", "ethos_u55_256"])
def test_room_of_a_tile_is_that_of_its_operands_the_weights_that_stay_apart(spec: str) -> None:
    """Maps lie in their memory whole and take no tiles there."""
    machine = load_accelerator(spec)
    home = home_of(machine)
    bills = quick_bills(machine)
    assert bills
    for stage, nest, found in bills:
        for memory in machine.memories[1:]:
            need: dict[str, int] = dict(tile_bits(nest, stage.layer, machine, memory))
            if memory.name == found.memory:
                assert found.weight_bits == need.pop("weight") > 0
            if memory is home:
                assert found.home_bits == sum(bits for name, bits in need.items() if name not in AT_HOME)
            else:
                rooms = [bits for pool, bits in found.others.items() if pool.split(" (")[0] == memory.name]
                assert sum(rooms) == sum(need.values()), memory.name


def test_weights_that_change_under_a_loop_outside_cannot_stay() -> None:
    """The same nest with a loop over weights moved to the very outside brings them anew: both bills are one."""
    moved = 0
    for stage, nest, found in quick_bills():
        place = nest.hold_index(found.memory, "weight")
        assert place is not None
        inner = [
            i for i, n in enumerate(nest.nodes)
            if i > place and isinstance(n, Temporal) and n.dim in "KCRSG" and n.factor > 1
        ]  # fmt: skip
        for i in inner[:1]:
            outside = Mapping((nest.nodes[0], nest.nodes[i], *nest.nodes[1:i], *nest.nodes[i + 1 :]))
            again = bill(stage, outside, SIMBA)
            if again is not None:
                moved += 1
                assert (again.memory, again.can_stay, again.weight_bits) == ("", False, 0)
                assert again.staying == again.bringing
    assert moved


def test_maps_that_do_not_pass_their_memory_have_no_bill() -> None:
    home = home_of(SIMBA).name
    for stage, nest, _ in quick_bills():
        around = Mapping(tuple(
            dataclasses.replace(n, operands=tuple(o for o in n.operands if o != "input"))
            if isinstance(n, Hold) and n.memory == home else n for n in nest.nodes
        ))  # fmt: skip
        assert bill(stage, around, SIMBA) is None


def test_an_operator_of_its_own_streams_between_maps_on_chip() -> None:
    layer = cut_layer(add("a", X, dataclasses.replace(X, name="z")), (2, 3))
    found = bill_without_macs(Stage(layer), SIMBA)
    wanted = price_vector(layer, SIMBA, frozenset(("x", "z", "a.out")))
    assert found.bringing == found.staying == (wanted,)
    assert not found.can_stay
    assert all(m.memory != SIMBA.outermost.name for m in found.bringing[0].moved)


def test_operators_behind_a_layer_are_billed_behind_it() -> None:
    from hwsim.search.layer import search

    first = conv("c", X, 8)
    behind = add("a", first.output, Tensor("skip", first.output.shape, 8))
    stage = Stage(first, (behind,))
    nest = search(tile_layer(stage, (12, 10)), SIMBA, effort="quick").mapping
    found = bill(cut_stage(stage, (12, 10)), nest, SIMBA)
    assert found is not None
    assert [cost.name for cost in found.bringing] == [cost.name for cost in found.staying] == ["c", "a"]
    assert all(m.memory != SIMBA.outermost.name for m in found.bringing[1].moved)
    assert operand_tensors(tile_layer(stage, (12, 10)))["output"] == "a.out"


def test_a_first_tile_that_is_not_the_largest_is_charged_what_the_largest_brings() -> None:
    """Charged: brings 7, stays 2. Largest: brings 100, stays 30. Weights cost 100 - 30; the first tile else 2."""

    def cost(pj: float, words: int) -> LayerCost:
        parts = (Part("buffer", "weight", pj), Part("static", "", 1000.0))
        return LayerCost("c", parts, 5, (), "", (Moved("buffer", "weight", "final", words, 2 * words, 8),))

    charged, largest = Bill((cost(7, 11),), (cost(2, 3),)), Bill((cost(100, 170),), (cost(30, 50),))
    entry = Entry()
    entry.add(charged.bringing[0], 1)
    entry.correct(charged, largest)
    assert dict(entry.parts) == {("buffer", "weight"): 100 - 30 + 2}
    (moved,) = entry.all_moved()
    assert (moved.read_words, moved.write_words) == (170 - 50 + 3, 2 * (170 - 50 + 3))
    same = Entry()
    same.add(charged.bringing[0], 4)
    same.correct(charged, charged)
    assert dict(same.parts) == {("buffer", "weight"): 28}
    assert (same.alone, same.like) == (20, charged.bringing[0])


def test_workloads_of_these_tests_are_sound() -> None:
    assert len(Workload("w", (conv("c", X, 8), max_pool("m", conv("c", X, 8).output))).layers) == 2
