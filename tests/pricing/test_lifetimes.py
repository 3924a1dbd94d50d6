"""Room of tensors that are freed by rows, channels or elements, against a walk that follows every code.

The walk runs all loops in time one iteration after the other. An input lives until the last iteration that uses it, an
output from the first that touches it; operands of operators behind the layer live until their output is finished.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import pytest

from hwsim.errors import RequestError
from hwsim.machine.packing import words
from hwsim.machine.parts import Memory, Packing
from hwsim.nest.mapping import Hold, Mapping, Node, Spatial, Temporal
from hwsim.network.layer import DIMS, Layer, Loops, Tensor
from hwsim.pricing.lifetimes import (
    WHOLE_TENSORS,
    Freed,
    Level,
    Lifetimes,
    elementwise_saved_bits,
    freed_of,
    outermost,
    packed,
    parse_lifetimes,
    saved_bits,
    shared_border_elements,
)

Point = tuple[int, ...]


def home_of(word_bits: int, packing: Packing) -> Memory:
    return Memory("home", 1 << 20, ("input", "output"), word_bits=word_bits, packing=packing)


def layer_of(rng: random.Random) -> Layer:
    """A small convolution: groups, strides, dilations, padding, several images."""
    n, g, k, c = rng.choice((1, 1, 2)), rng.choice((1, 1, 3)), rng.choice((1, 2, 3)), rng.choice((1, 1, 2))
    r, s = rng.choice((1, 1, 2, 3)), rng.choice((1, 1, 2))
    stride, dilation = (rng.choice((1, 1, 2)), rng.choice((1, 1, 2))), (rng.choice((1, 1, 2)), 1)
    top, bottom, left, right = (rng.choice((0, 0, 1)) for _ in range(4))
    height, width = rng.randint(dilation[0] * (r - 1) + 1, 6), rng.randint(s, 4)
    p = (height + top + bottom - dilation[0] * (r - 1) - 1) // stride[0] + 1
    q = (width + left + right - s) // stride[1] + 1
    bits = [rng.choice((3, 4, 8)) for _ in range(2)]
    return Layer(
        "l", "conv", (Tensor("x", (n, g * c, height, width), bits[0]),), Tensor("y", (n, g * k, p, q), bits[1]),
        weight=Tensor("w", (g * k, c, r, s), 8), loops=Loops(n, g, k, c, p, q, r, s), stride=stride, dilation=dilation,
        padding=(top, bottom, left, right),
    )  # fmt: skip


def mapping_of(rng: random.Random, layer: Layer) -> Mapping:
    """Any order of loops whose factors may leave remainders; some run side by side."""
    nodes: list[Node] = []
    for dim, bound in layer.loops.as_dict().items():
        inner = rng.randint(1, bound)
        factors = [inner, -(-bound // inner)]
        nodes += [Temporal(dim, factor) for factor in factors if factor > 1]
    rng.shuffle(nodes)
    nodes.sort(key=lambda node: rng.random() * (3 if node.dim in "CRS" else 1))  # type: ignore[union-attr]
    if nodes and rng.random() < 0.4:
        last = nodes.pop()
        assert isinstance(last, Temporal)
        nodes.append(Spatial(last.dim, last.factor, "pe", "x"))
    holds: list[Node] = [Hold("dram", ("weight", "input", "output")), Hold("home", ("input", "output"))]
    return Mapping((*holds, *nodes))


def iterations(mapping: Mapping, layer: Layer) -> Iterator[list[dict[str, int]]]:
    """Per iteration in time the indices that run side by side in it."""
    loops = [(n, step) for n, step in zip(mapping.nodes, mapping.steps(), strict=True) if not isinstance(n, Hold)]
    timed = [(n, step) for n, step in loops if isinstance(n, Temporal)]
    beside = [(n, step) for n, step in loops if isinstance(n, Spatial)]
    bounds = layer.loops.as_dict()
    for at in itertools.product(*(range(n.factor) for n, _ in timed)):
        found: list[dict[str, int]] = []
        for place in itertools.product(*(range(n.factor) for n, _ in beside)):
            index = dict.fromkeys(DIMS, 0)
            for (node, step), i in zip((*timed, *beside), (*at, *place), strict=True):
                index[node.dim] += step * i
            if all(index[dim] < bounds[dim] for dim in DIMS):
                found.append(index)
        yield found


def lives(mapping: Mapping, layer: Layer) -> tuple[dict[Point, int], dict[Point, int], dict[Point, int], int]:
    """Last use of every input, first and last touch of every output, and the number of iterations."""
    read: dict[Point, int] = {}
    first: dict[Point, int] = {}
    last: dict[Point, int] = {}
    _, _, height, width = layer.inputs[0].shape
    time = 0
    for time, side in enumerate(iterations(mapping, layer)):
        for i in side:
            row = i["P"] * layer.stride[0] + i["R"] * layer.dilation[0] - layer.padding[0]
            column = i["Q"] * layer.stride[1] + i["S"] * layer.dilation[1] - layer.padding[2]
            if 0 <= row < height and 0 <= column < width:
                read[i["N"], i["G"], i["C"], row, column] = time
            y = i["N"], i["G"], i["K"], i["P"], i["Q"]
            first.setdefault(y, time)
            last[y] = time
    return read, first, last, time + 1


def peak_bits(home: Memory, layer: Layer, mapping: Mapping, freed: Freed) -> int:
    """Most bits that live codes take; each tensor lies in the order in which its codes die or are made."""
    read, first, last, times = lives(mapping, layer)
    dying = [(sorted(last.values()), bits) for bits in freed.others]
    if freed.input:
        unread = layer.inputs[0].elements - len(read)  # no tap sees them: they could go at once
        dying.append(([0] * unread + sorted(read.values()), layer.inputs[0].bits))
    made = sorted(first.values())

    def place(code: int, bits: int) -> tuple[int, int]:
        """The first and the last word of a code."""
        if home.packing == "dense":
            return code * bits // home.word_bits, (code * bits + bits - 1) // home.word_bits
        before = words(code, bits, home.word_bits, home.packing)
        after = words(code + 1, bits, home.word_bits, home.packing)
        return min(before, after - 1), after - 1

    peak = 0
    for now in range(times):
        held = 0
        for ends, bits in dying:
            alive = [code for code, end in enumerate(ends) if end >= now]
            held += len({w for code in alive for w in range(place(code, bits)[0], place(code, bits)[1] + 1)})
        written = [code for code, start in enumerate(made) if start <= now]
        bits = layer.output.bits
        held += len({w for code in written for w in range(place(code, bits)[0], place(code, bits)[1] + 1)})
        peak = max(peak, held)
    return peak * home.word_bits


def compare(seed: int) -> tuple[int, int]:
    """(bits saved, bits that the walk has to spare) of a random nest; the claim must not be above the walk."""
    rng = random.Random(seed)
    layer = layer_of(rng)
    mapping = mapping_of(rng, layer)
    home = home_of(rng.choice((8, 16)), rng.choice(("padded", "dense", "floor")))
    others = [Tensor("s", layer.output.shape, rng.choice((4, 8)))] if rng.random() < 0.4 else []
    freed = freed_of(home, layer, input_dies=rng.random() < 0.8 or not others, others=others)
    saved = saved_bits(home, layer, outermost(mapping), freed)
    full = packed(home, layer.output.elements, layer.output.bits)
    full += sum(packed(home, layer.output.elements, bits) for bits in freed.others)
    full += packed(home, layer.inputs[0].elements, layer.inputs[0].bits) if freed.input else 0
    peak = peak_bits(home, layer, mapping, freed)
    assert peak <= full - saved, f"seed {seed}: {layer}, {mapping}, {home}, {freed}: {peak}, {full} - {saved}"
    assert saved <= freed.most_bits, f"seed {seed}"
    return saved, full - saved - peak


@pytest.mark.long
def test_room_is_never_less_than_what_lives_at_once() -> None:
    found = [compare(seed) for seed in range(400)]
    assert sum(saved > 0 for saved, _ in found) > 80
    assert sum(saved > 0 and spare == 0 for saved, spare in found) > 5  # reached, not only kept


@pytest.mark.slow
def test_room_is_never_less_than_what_lives_at_once_on_3000_nests() -> None:
    for seed in range(1000, 4000):
        compare(seed)


def pointwise(k: int, c: int, p: int) -> Layer:
    return Layer(
        "l", "conv", (Tensor("x", (1, c, p, 5), 8),), Tensor("y", (1, k, p, 5), 8),
        weight=Tensor("w", (k, c, 1, 1), 8), loops=Loops(K=k, C=c, P=p, Q=5),
    )  # fmt: skip


@pytest.mark.parametrize("block", [1, 2, 3])
def test_a_pointwise_convolution_by_rows_takes_the_larger_map_and_a_block(block: int) -> None:
    home, layer = home_of(8, "padded"), pointwise(4, 4, 6)
    freed = freed_of(home, layer, input_dies=True, others=())
    saved = saved_bits(home, layer, (Level("P", block),), freed)
    assert saved == (6 - block) * 4 * 5 * 8  # sum - overlap + one block


def test_a_depthwise_convolution_by_channels_needs_one_channel_more() -> None:
    home = home_of(8, "padded")
    layer = Layer(
        "l", "conv", (Tensor("x", (1, 7, 6, 6), 8),), Tensor("y", (1, 7, 6, 6), 8),
        weight=Tensor("w", (7, 1, 3, 3), 8), loops=Loops(G=7, P=6, Q=6, R=3, S=3), padding=(1, 1, 1, 1),
    )  # fmt: skip
    freed = freed_of(home, layer, input_dies=True, others=())
    assert saved_bits(home, layer, (Level("G", 1),), freed) == 6 * 36 * 8
    assert saved_bits(home, layer, (Level("P", 1),), freed) == (6 - 2) * 7 * 6 * 8  # the window's rows stay


def test_an_outermost_loop_over_outputs_channels_frees_inputs_in_its_last_block() -> None:
    home, layer = home_of(8, "padded"), pointwise(4, 4, 6)
    freed = freed_of(home, layer, input_dies=True, others=())
    saved = saved_bits(home, layer, (Level("K", 2), Level("P", 1)), freed)
    assert saved == (240 - (60 + 10 + 120)) * 8  # half of the outputs, a row of the others, the whole input


@pytest.mark.parametrize("outer", ["C"])
def test_orders_that_come_back_to_inputs_free_nothing(outer: str) -> None:
    layer = pointwise(4, 4, 6)
    mapping = Mapping((Hold("dram", ("weight", "input", "output")), Temporal(outer, 2), Temporal("P", 6)))
    home = home_of(8, "padded")
    assert saved_bits(home, layer, outermost(mapping), freed_of(home, layer, input_dies=True, others=())) == 0


def test_an_elementwise_output_overwrites_the_input_that_dies() -> None:
    home = home_of(8, "padded")
    x, y = Tensor("x", (1, 3, 4, 4), 8), Tensor("y", (1, 3, 4, 4), 8)
    add = Layer("a", "add", (x, Tensor("z", y.shape, 8)), y)
    assert elementwise_saved_bits(home, add, (x,), 4) == (48 - 4) * 8
    assert elementwise_saved_bits(home, add, add.inputs, 4) == (48 - 4) * 8  # room for one output, not for two
    assert elementwise_saved_bits(home, add, (), 4) == 0
    gate = Tensor("g", (1, 3, 1, 1), 8)
    assert elementwise_saved_bits(home, Layer("m", "mul", (x, gate), y), (gate,), 4) == 0
    assert elementwise_saved_bits(home, Layer("p", "softmax", (x,), y), (x,), 4) == 0


@pytest.mark.parametrize("packing", ["padded", "dense", "floor"])
@pytest.mark.parametrize("bits", [(3, 5), (4, 8), (5, 3)])
def test_elementwise_room_holds_what_lives(packing: Packing, bits: tuple[int, int]) -> None:
    home, lanes = home_of(16, packing), 3
    for n in (1, 2, 7, 40, 101):
        x, y = Tensor("x", (n,), bits[0]), Tensor("y", (n,), bits[1])
        saved = elementwise_saved_bits(home, Layer("r", "relu", (x,), y), (x,), lanes)
        full = packed(home, n, bits[0]) + packed(home, n, bits[1])
        for start in range(0, n, lanes):
            free = -words_up(home, -start, bits[0])
            held = packed(home, n, bits[0]) - free * 16 + packed(home, min(n, start + lanes), bits[1])
            assert held <= full - saved


def words_up(home: Memory, count: int, bits: int) -> int:
    return words(count, bits, home.word_bits, home.packing)


def test_rows_share_their_border() -> None:
    x = Tensor("x", (1, 2, 4, 5), 8)
    inside, later = shared_border_elements(x, (1, 1, 1, 1))
    assert (inside, later) == (2 * 6 * 6 + 1, 2 * 4 * 6 + 1)
    assert inside < 2 * 6 * 7  # every row with columns of its own
    for top, bottom, left, right in itertools.product(range(3), repeat=4):
        codes, _ = shared_border_elements(x, (top, bottom, left, right))
        stride = 5 + max(left, right)
        taken: set[int] = set()  # every row's place: a border column may be two rows', data may not
        for row in range(2 * (4 + top + bottom)):
            place = range(row * stride + left, row * stride + left + 5)
            assert not taken & set(place)
            taken |= set(place)
            assert row * stride + left + 5 + right <= codes
        rows, sides = range(2 * (4 + top + bottom)), (*range(-left, 0), *range(5, 5 + right))
        border = {row * stride + left + column for row in rows for column in sides}
        assert not border & taken


def test_words_for_lifetimes() -> None:
    assert parse_lifetimes("whole") == WHOLE_TENSORS
    assert parse_lifetimes("borders, rows") == Lifetimes(rows=True, borders=True)
    assert str(Lifetimes(rows=True, borders=True)) == "rows,borders"
    for text in ("", "row", "whole,rows", "rows,rows", "rows,,borders", "Rows"):
        with pytest.raises(RequestError, match="lifetimes: expected whole, rows, borders or rows,borders"):
            parse_lifetimes(text)


def test_each_word_frees_what_it_says_and_no_word_frees_anything_else() -> None:
    said = {"whole": (False, False), "rows": (True, False), "borders": (False, True), "rows,borders": (True, True)}
    found = {text: parse_lifetimes(text) for text in said}
    assert {text: (freed.rows, freed.borders) for text, freed in found.items()} == said
    assert all(str(freed) == text for text, freed in found.items())
