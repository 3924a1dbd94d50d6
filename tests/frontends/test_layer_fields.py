"""What operators of torch leave as layers, field by field, by their definitions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hwsim.frontends.lowering.handler_tables import each, named
from hwsim.frontends.lowering.record import Recorder, tensors_held
from hwsim.frontends.lowering.values import Part
from hwsim.frontends.torch_export import extract
from hwsim.network.layer import Layer


class Function(nn.Module):
    """A function as a network."""

    def __init__(self, function: Callable[..., Any], **constants: Tensor) -> None:
        super().__init__()
        self.function = function
        for name, value in constants.items():
            self.register_buffer(name, value)

    def forward(self, *x: Tensor) -> Any:
        return self.function(*x, *self.buffers())


def layers_of(function: Callable[..., Any], *x: Tensor, **constants: Tensor) -> list[Layer]:
    return list(extract(Function(function, **constants), x if len(x) > 1 else x[0]))


IMAGE = torch.zeros(2, 6, 5, 4)


@pytest.mark.parametrize(
    ("function", "op", "window", "shape"),
    [
        (lambda x: x.amax(1), "reduce_max", 6, (2, 5, 4)),
        (lambda x: x.amax((1, 3)), "reduce_max", 24, (2, 5)),
        (lambda x: x.amin(-1, keepdim=True), "reduce_max", 4, (2, 6, 5, 1)),
        (lambda x: x.max(1).values, "reduce_max", 6, (2, 5, 4)),
        (lambda x: x.max(), "reduce_max", 240, (1,)),
        (lambda x: x.sum((2, 3)), "reduce_sum", 20, (2, 6)),
        (lambda x: x.sum(-1), "reduce_sum", 4, (2, 6, 5)),
        (lambda x: x.prod(1), "reduce_sum", 6, (2, 5, 4)),
        (lambda x: x.mean((2, 3)), "avg_pool", 20, (2, 6)),
        (lambda x: x.mean((1, 2)), "reduce_mean", 30, (2, 4)),
        (lambda x: x.mean(1), "reduce_mean", 6, (2, 5, 4)),
    ],
)
def test_a_reduction_reads_what_it_removes_for_each_element_it_leaves(
    function: Callable[[Tensor], Tensor], op: str, window: int, shape: tuple[int, ...]
) -> None:
    """One operation per element read: elements of the output times the window is the input."""
    (layer,) = layers_of(function, IMAGE)
    assert (layer.op, layer.window, layer.output.shape) == (op, window, shape)
    assert layer.elements == IMAGE.numel()


def test_positions_of_maxima_are_written_where_somebody_reads_them() -> None:
    values, positions = layers_of(lambda x: tuple(x.max(1)), IMAGE)
    assert (values.op, values.window) == ("reduce_max", 6)
    assert (positions.op, positions.output.shape, positions.output.bits) == ("copy", (2, 5, 4), 32)
    assert positions.output.origin == "index"


def test_answers_yes_and_no_have_one_bit_and_maxima_those_of_what_they_compare() -> None:
    *_, last = layers_of(lambda x: (x > 0).any(1), IMAGE)
    assert last.output.bits == 1
    *_, last = layers_of(lambda x: (x > 0).all(), IMAGE)
    assert last.output.bits == 1
    *_, last = layers_of(lambda x: x.amax(1), IMAGE)
    assert last.output.bits == 32


@pytest.mark.parametrize(("rows", "bits"), [(1, 1), (2, 1), (3, 2), (128, 7), (129, 8), (1000, 10)])
def test_an_index_has_the_bits_that_the_last_row_of_its_table_needs(rows: int, bits: int) -> None:
    (layer,) = list(extract(nn.Embedding(rows, 4), torch.zeros(1, 3, dtype=torch.long)))
    assert layer.inputs[0].bits == bits
    assert layer.weight is not None
    assert layer.weight.shape == (rows, 4)


@pytest.mark.parametrize(("sizes", "stored"), [((3,), 12), ((3, 5), 32), ((0,), 0), ((0, 3), 12)])
def test_parts_of_a_concatenation_that_are_stored_are_its_weight(sizes: tuple[int, ...], stored: int) -> None:
    """Empty parts are none; one part alone is a view."""
    parts = {f"part{i}": torch.ones(1, n, 4) for i, n in enumerate(sizes)}
    found = layers_of(
        lambda x, *rest: torch.relu(torch.cat((torch.sigmoid(x), *rest), 1)), torch.zeros(1, 2, 4), **parts
    )
    made = [layer for layer in found if layer.op == "concat"]
    assert len(made) == bool(stored)
    for layer in made:
        assert layer.weight is not None
        assert layer.weight.elements == stored
        assert layer.output.shape == (1, 2 + sum(sizes), 4)


@pytest.mark.parametrize(("kernel", "macs"), [((3, 1, 1), 3), ((3, 3, 1), 9), ((3, 1, 3), 9), ((2, 2, 2), 8)])
def test_a_kernel_along_depth_alone_is_one_along_rows(kernel: tuple[int, int, int], macs: int) -> None:
    """MACs per output are the product of the taps, whichever loops they are written as."""
    net = extract(nn.Conv3d(2, 3, kernel), torch.zeros(1, 2, 5, 4, 6))
    (layer,) = list(net)
    assert net.macs == layer.output.elements * 2 * macs
    assert 2 * macs == layer.loops.R * layer.loops.S * layer.loops.C
    if kernel == (3, 1, 1):
        assert (layer.loops.R, layer.loops.S, layer.loops.P, layer.loops.Q) == (3, 1, 3, 24)


def test_a_layer_without_geometry_says_none() -> None:
    for layer in layers_of(lambda x: torch.relu(x) + torch.sigmoid(x), IMAGE):
        assert (layer.stride, layer.dilation, layer.padding, layer.kernel) == ((1, 1), (1, 1), (0, 0, 0, 0), (0, 0))
        assert (layer.window, layer.padding_policy, layer.pad_code, layer.bias) == (1, "", None, False)
    (layer,) = list(extract(nn.Linear(4, 3, bias=False), torch.zeros(1, 4)))
    assert (layer.padding, layer.window, layer.bias) == ((0, 0, 0, 0), 1, False)


@pytest.mark.parametrize("function", [torch.addcmul, torch.addcdiv, torch.lerp])
def test_two_operations_behind_one_name_are_two_layers(function: Callable[..., Tensor]) -> None:
    """The inner one joins the two operands behind the base, the outer one the base and what that left."""

    def run(x: Tensor) -> Tensor:
        return function(torch.relu(x), torch.sigmoid(x), torch.tanh(x))

    *before, inner, outer = layers_of(run, IMAGE)
    assert [layer.op for layer in before] == ["relu", "sigmoid", "tanh"]
    made = {layer.op: layer.output.name for layer in before}
    assert [t.name for t in inner.inputs] == [made["sigmoid"], made["tanh"]]
    assert [t.name for t in outer.inputs] == [made["relu"], inner.output.name]
    assert outer.elements == inner.elements == IMAGE.numel()


def test_ranges_overlap_where_they_share_an_index() -> None:
    """By the sets themselves; ranges of different arrays or dimensions are not compared."""
    spans = [(a, b) for a in range(5) for b in range(a + 1, 6)]
    for a, b in spans:
        for c, d in spans:
            one, other = Part("x", 1, a, b), Part("x", 1, c, d)
            assert one.overlaps(other) == bool({*range(a, b)} & {*range(c, d)})
    assert Part("x", 1, 0, 2).overlaps(Part("x", 2, 5, 6))
    assert Part("x", 1, 0, 2).overlaps(Part("y", 1, 5, 6))


def test_entries_of_handler_tables_have_atens_names() -> None:
    def first(walk: Any, op: Any) -> None: ...

    assert named(("add", "sub"), first) == {"aten.add": first, "aten.sub": first}
    made = each({"exp": "exponential"}, lambda kind: (first, kind))  # type: ignore[arg-type,return-value]
    assert made == {"aten.exp": (first, "exponential")}


class Cache:
    """An object with tensors, a slot and a reference to itself."""

    __slots__ = ("__dict__", "slot")

    def __init__(self, *parts: Tensor) -> None:
        self.slot, self.rest, self.me = parts[0], {"more": [*parts[1:]], "again": parts[0]}, self


def test_tensors_of_an_example_are_found_once_each_in_whatever_holds_them() -> None:
    one, two, three = torch.zeros(1), torch.zeros(2), torch.zeros(3)
    ring: list[Any] = [three]
    ring.append(ring)
    found = tensors_held(("a word", 5, Cache(one, two), ring, one))
    assert sorted(t.numel() for t in found) == [1, 2, 3]
    assert tensors_held(nn.Linear(2, 2)) == []


def test_arguments_are_written_down_as_plain_values() -> None:
    write = Recorder(nn.Module()).argument
    assert write(None) is None
    assert write([1, None, 2.5, "x", True]) == (1, None, 2.5, "x", True)
    assert write(torch.float32) == "torch.float32"
