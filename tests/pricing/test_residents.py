"""Room in the activation memory: tiles to the bit, borders around kept tensors, and which of equal choices is kept."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction

import pytest

from hwsim.machine.load import load_accelerator
from hwsim.machine.parts import Memory
from hwsim.nest.counts import Counts
from hwsim.network.bits import assign_bits
from hwsim.network.format_bits import assign_formats
from hwsim.network.layer import Layer, Tensor
from hwsim.network.workload import Workload
from hwsim.pricing.network import price_network
from hwsim.pricing.residents import held_elements, preferred, room_taken, tiles_at
from hwsim.pricing.stages import fuse
from hwsim.search.layer import search
from tests.pricing.test_formats import machine, network
from tests.pricing.test_offsets import PLAIN, conv


def shared_tiles(bits: str) -> tuple[Memory, Layer, Counts]:
    """A layer in a memory where operands of every kind have tiles, those of a weight with scales in groups."""
    accelerator = machine()
    layer = assign_formats(network(), bits, "same").layers[0]
    counts = search(layer, accelerator, effort="quick").counts
    at = max(accelerator.memories, key=lambda m: len({t.operand for t in counts.tiles if t.memory == m.name}))
    return at, layer, counts


@pytest.mark.parametrize(("bits", "scale"), [("W4g32A16", Fraction(16, 32)), ("W4A16", Fraction(16, 96))])
def test_a_tile_takes_the_words_of_its_codes_and_those_of_its_scales(bits: str, scale: Fraction) -> None:
    memory, layer, counts = shared_tiles(bits)
    tiles = {(t.operand, t.partial): t.elements for t in counts.tiles if t.memory == memory.name}
    found = tiles_at(memory, layer, machine(), counts)
    assert set(found) == set(tiles)
    (elements,) = (n for (operand, _), n in tiles.items() if operand == "weight")
    codes, scales = (math.ceil(Fraction(elements) * each / memory.word_bits) for each in (4, scale))
    assert memory.packing == "dense"
    assert found["weight", False] == (codes + scales) * memory.word_bits
    assert scales > 0


def test_operands_that_lie_in_the_memory_whole_have_no_tile_there_but_for_their_sums() -> None:
    memory, layer, counts = shared_tiles("W4g32A16")
    tiles = tiles_at(memory, layer, machine(), counts)
    assert len({operand for operand, _ in tiles}) > 1
    assert room_taken(memory, layer, machine(), counts, ()) == sum(tiles.values())
    for at_home in ({"input"}, {"weight"}, {"input", "output"}):
        left = [bits for (operand, partial), bits in tiles.items() if partial or operand not in at_home]
        assert room_taken(memory, layer, machine(), counts, at_home) == sum(left)  # type: ignore[arg-type]


def test_a_kept_tensor_has_the_border_of_the_reader_that_multiplies_it() -> None:
    """A border of codes belongs to the input of a convolution, not to another tensor."""
    accelerator = dataclasses.replace(machine(), capabilities=PLAIN)
    layer = conv("pad_code")
    (stage,) = fuse(Workload("one", [layer]), PLAIN)
    mine, other = layer.inputs[0], Tensor("other", (1, 3, 4, 4))
    assert held_elements(mine, [stage], accelerator) == mine.elements + 4 * (10 * 10 - 8 * 8)
    assert held_elements(other, [stage], accelerator) == other.elements


@pytest.mark.parametrize(
    ("one", "other", "first"),
    [((2.0, {"a"}), (1.0, {"b"}), True), ((1.0, {"a"}), (2.0, {"b"}), False), ((1.0, {"a"}), (1.0, {"a"}), False),
     ((1.0, {"a", "c"}), (1.0, {"b", "c"}), True), ((1.0, {"b", "c"}), (1.0, {"a", "c"}), False),
     ((1.0, {"a", "b"}), (1.0, {"b"}), True), ((1.0, set[str]()), (1.0, {"a"}), False)],
)  # fmt: skip
def test_of_equal_savings_the_first_name_that_differs_is_kept(
    one: tuple[float, set[str]], other: tuple[float, set[str]], first: bool
) -> None:
    assert preferred((one[0], frozenset(one[1])), (other[0], frozenset(other[1]))) is first


def test_the_outermost_traffic_is_what_crosses_the_outermost_memory() -> None:
    accelerator = load_accelerator("eyeriss_v1")
    net = assign_bits(network(), "W8A8", first_last="same")
    multiplied = [layer for layer in net if layer.has_macs]
    cost = price_network(net, accelerator, {layer.name: search(layer, accelerator).counts for layer in multiplied})
    moved = [m for layer in cost.layers for m in layer.moved]
    outer = [m.bits for m in moved if m.memory == accelerator.outermost.name]
    assert cost.totals.outermost_traffic_bits == sum(outer)
    assert sum(m.bits for m in moved) != 2 * sum(outer)
