"""What operators of torch leave as layers, field by field, by their definitions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hwsim.errors import UnsupportedOp
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


@pytest.mark.parametrize("amounts", [(1, 2, 3, 4), (0, 1, 0, 0), (2, 2, 2, 2)])
def test_zeros_written_around_a_map_are_the_padding_of_its_convolution(amounts: tuple[int, int, int, int]) -> None:
    left, right, top, bottom = amounts
    net = nn.Sequential(nn.ConstantPad2d(amounts, 0.0), nn.Conv2d(3, 4, 3))
    (layer,) = list(extract(net, torch.zeros(1, 3, 7, 9)))
    assert layer.inputs[0].shape == (1, 3, 7, 9)
    assert layer.padding == (top, bottom, left, right)
    assert layer.output.shape == (1, 4, 5 + top + bottom, 7 + left + right)


def test_zeros_written_left_and_right_alone_pad_no_rows() -> None:
    conv = nn.Conv2d(3, 4, 3)
    (layer,) = layers_of(lambda x, *_: nn.functional.conv2d(nn.functional.pad(x, (1, 2)), conv.weight), IMAGE[:, :3])
    assert (layer.padding, layer.output.shape) == ((0, 0, 1, 2), (2, 4, 3, 5))


def test_positions_choose_among_parameters_or_activations() -> None:
    positions = torch.zeros(3, 6, dtype=torch.long)
    (rows,) = layers_of(lambda i, table: torch.gather(table, 0, i), positions, table=torch.ones(10, 6))
    assert (rows.op, rows.weight.shape if rows.weight else None, rows.elements) == ("embedding", (10, 6), 18)
    (moved,) = layers_of(lambda x, i: torch.gather(x, 0, i), torch.zeros(10, 6), positions)
    assert (moved.op, moved.weight, moved.elements) == ("copy", None, 18)


def test_a_write_at_positions_costs_the_values_written() -> None:
    def run(x: Tensor, at: Tensor, cache: Tensor) -> Tensor:
        cache.index_put_((at,), x)
        return cache + 1

    write, add = layers_of(run, torch.ones(3, 6), torch.tensor([1, 4, 7]), cache=torch.zeros(10, 6))
    assert (write.op, write.output.shape, write.elements) == ("copy", (3, 6), 18)
    assert (add.op, add.elements) == ("add", 60)


@pytest.mark.parametrize(("mode", "per_axis"), [("bilinear", 2), ("nearest", 1), ("bicubic", 4)])
def test_a_sampled_grid_reads_the_neighbours_of_its_mode(mode: str, per_axis: int) -> None:
    def run(x: Tensor, grid: Tensor) -> Tensor:
        return nn.functional.grid_sample(x, grid, mode=mode, align_corners=False)

    (layer,) = layers_of(run, torch.zeros(1, 3, 6, 5), torch.zeros(1, 4, 4, 2))
    assert (layer.op, layer.window, len(layer.inputs)) == ("upsample", per_axis**2, 2)
    (stored,) = layers_of(run, torch.zeros(1, 3, 6, 5), grid=torch.zeros(1, 4, 4, 2))
    assert len(stored.inputs) == 1


def test_a_grid_in_space_has_three_axes() -> None:
    def run(x: Tensor, grid: Tensor) -> Tensor:
        return nn.functional.grid_sample(x, grid, align_corners=False)

    (layer,) = layers_of(run, torch.zeros(1, 2, 3, 4, 5), torch.zeros(1, 2, 2, 2, 3))
    assert layer.window == 8


@pytest.mark.parametrize(
    ("module", "shape"),
    [(nn.ReflectionPad1d(1), (1, 2, 5)), (nn.ReflectionPad2d(1), (1, 2, 5, 4)),
     (nn.ReflectionPad3d(1), (1, 2, 5, 4, 3)), (nn.ReplicationPad1d(1), (1, 2, 5)),
     (nn.ReplicationPad3d(1), (1, 2, 5, 4, 3))],
)  # fmt: skip
def test_a_border_of_copies_is_written_out(module: nn.Module, shape: tuple[int, ...]) -> None:
    (layer,) = list(extract(module, torch.zeros(shape)))
    assert (layer.op, layer.output.shape) == ("pad", (*shape[:2], *(n + 2 for n in shape[2:])))


def test_a_shape_alone_makes_a_constant_that_is_read_like_a_weight() -> None:
    _, layer = layers_of(lambda x: torch.relu(x) + x.new_ones(x.shape), IMAGE)
    assert (layer.op, len(layer.inputs)) == ("add", 1)
    assert layer.weight is not None
    assert layer.weight.elements == IMAGE.numel()


def test_elements_chosen_by_a_mask_are_refused_and_those_chosen_by_places_are_moved() -> None:
    with pytest.raises(UnsupportedOp, match="depends on the input's values"):
        layers_of(lambda x: torch.relu(x[x > 0]), IMAGE)
    with pytest.raises(UnsupportedOp, match="depends on the input's values"):  # none in the example, beside a layer
        layers_of(lambda x: torch.cat([torch.relu(x).flatten(), x[x > 5]]), torch.zeros(IMAGE.shape))
    with pytest.raises(UnsupportedOp, match="depends on the input's values"):
        layers_of(lambda x: torch.cat([torch.relu(x).flatten(), torch.masked_select(x, x > 5)]), torch.zeros(2, 3))
    *_, layer = layers_of(lambda x, at: torch.relu(x)[:, at], IMAGE, torch.tensor([0, 2]))
    assert (layer.op, layer.output.shape, layer.output.origin) == ("copy", (2, 2, 5, 4), "relu")


def test_a_write_into_an_array_costs_what_is_written_unless_something_else_reads_the_array() -> None:
    part = torch.zeros(2, 2, 5, 4)
    alone = layers_of(lambda x, y: torch.slice_scatter(torch.relu(x), torch.sigmoid(y), 1, 0, 2), IMAGE, part)
    assert [(a.op, a.output.elements) for a in alone if a.op == "copy"] == [("copy", part.numel())]

    def read_again(x: Tensor, y: Tensor) -> Tensor:
        base = torch.relu(x)
        return torch.slice_scatter(base, torch.sigmoid(y), 1, 0, 2) + base

    whole = [layer for layer in layers_of(read_again, IMAGE, part) if layer.op == "copy"]
    assert [(a.output.elements, a.output.origin, len(a.inputs)) for a in whole] == [(IMAGE.numel(), "relu", 2)]


def test_a_maximum_keeps_the_range_of_what_it_compares_and_a_sum_does_not() -> None:
    assert layers_of(lambda x: torch.relu(x).amax(1), IMAGE)[-1].output.origin == "relu"
    assert layers_of(lambda x: torch.relu(x).sum(1), IMAGE)[-1].output.origin == "linear"


@pytest.mark.parametrize("kind", ["prod", "sum"])
def test_products_over_an_axis_are_said_to_be_priced_as_sums(kind: str) -> None:
    net = extract(Function(lambda x: getattr(x, kind)(1)), IMAGE)
    assert any("products over an axis" in note for note in net.notes) == (kind == "prod")


def test_a_pool_says_how_its_window_slides_where_its_map_has_rows_and_columns() -> None:
    (layer,) = list(extract(nn.MaxPool2d(3, 2, 1), torch.zeros(1, 3, 8, 8)))
    assert (layer.kernel, layer.stride, layer.dilation, layer.padding) == ((3, 3), (2, 2), (1, 1), (1, 1, 1, 1))
    (layer,) = list(extract(nn.MaxPool2d(2), torch.zeros(3, 8, 8)))
    assert (layer.kernel, layer.window) == ((0, 0), 4)
    (layer,) = list(extract(nn.MaxPool3d(2), torch.zeros(1, 3, 4, 4, 4)))
    assert (layer.kernel, layer.window, layer.output.shape) == ((0, 0), 8, (1, 3, 2, 2, 2))
    (layer,) = list(extract(nn.MaxPool1d(2), torch.zeros(1, 3, 8)))
    assert (layer.kernel, layer.window) == ((0, 0), 2)


@pytest.mark.parametrize(("rows", "window"), [(6, 3 * 2), (5, 4 * 2), (2, 1 * 2)])
def test_a_pool_to_a_size_reads_its_largest_window(rows: int, window: int) -> None:
    """Two rows of 6, 5 and 2; two columns of 4. Windows of 5 in 2 have 3 rows; the bound is floor + 2."""
    (layer,) = list(extract(nn.AdaptiveAvgPool2d(2), torch.zeros(1, 3, rows, 4)))
    assert layer.window == window


def test_a_variance_is_a_mean_of_squares_and_may_leave_its_mean() -> None:
    kinds = ["reduce_mean", "sub", "mul", "reduce_mean"]
    assert [layer.op for layer in layers_of(lambda x: x.var(1), IMAGE)] == kinds
    assert [layer.op for layer in layers_of(lambda x: x.std(1), IMAGE)] == [*kinds, "sqrt"]
    found = layers_of(lambda x: torch.add(*torch.var_mean(x, 1)), IMAGE)
    assert [layer.op for layer in found] == [*kinds, "add"]
    assert [t.name for t in found[-1].inputs] == [found[3].output.name, found[0].output.name]


def test_a_running_sum_is_one_operation_per_element() -> None:
    (layer,) = layers_of(lambda x: x.cumsum(1), IMAGE)
    assert layer.elements == IMAGE.numel()


def test_a_product_with_a_gate_keeps_the_range_of_the_other_side() -> None:
    """In both orders; with the sigmoid of itself it is a SiLU."""
    for function, origin in (
        (lambda x: x * torch.sigmoid(x), "silu"),
        (lambda x: torch.sigmoid(x) * x, "silu"),
        (lambda x: torch.relu(x) * torch.sigmoid(x + x), "relu"),
        (lambda x: torch.sigmoid(x + x) * torch.relu(x), "relu"),
        (lambda x: torch.relu(x) * torch.relu(x + x), "relu"),
        (lambda x: torch.relu(x) * torch.tanh(x), "linear"),
    ):
        assert layers_of(function, IMAGE)[-1].output.origin == origin


@pytest.mark.long
@pytest.mark.parametrize(
    ("layer", "x", "constant", "folds"),
    [
        (nn.Linear(4, 3), (2, 4), (3,), True),
        (nn.Linear(4, 3), (5, 2, 4), (3,), True),
        (nn.Linear(4, 3), (3, 3, 4), (3, 1), False),  # one value for each row
        (nn.Conv2d(2, 3, 1), (1, 2, 5, 4), (3, 1, 1), True),
        (nn.Conv2d(2, 3, 1), (1, 2, 5, 3), (3,), False),  # one value for each column
        (nn.ReLU(), (1, 3, 5, 4), (3, 1, 1), False),
    ],
)
def test_a_constant_for_each_channel_folds_into_the_layer_before(
    layer: nn.Module, x: tuple[int, ...], constant: tuple[int, ...], folds: bool
) -> None:
    for function in (lambda y, c: layer(y) * c, lambda y, c: c * layer(y), lambda y, c: layer(y) + c):
        found = layers_of(function, torch.zeros(x), c=torch.full(constant, 2.0))
        assert len(found) == (1 if folds else 2)


def test_stored_tensors_of_more_than_one_element_are_read_beside_an_operation() -> None:
    (layer,) = layers_of(torch.maximum, IMAGE, c=torch.full((1,), 2.0))
    assert layer.weight is None
    (layer,) = layers_of(torch.maximum, IMAGE, c=torch.full((4,), 2.0))
    assert layer.weight is not None
    assert layer.weight.elements == 4


@pytest.mark.parametrize(
    ("function", "kind", "origin"),
    [
        (lambda x: x.clamp(min=0), "relu", "relu"),
        (lambda x: x.clamp(0, 6), "relu6", "relu6"),
        (lambda x: x.clamp(max=1), "relu6", "linear"),
        (lambda x: x.clamp(min=-1), "relu6", "linear"),
        (nn.functional.hardtanh, "relu6", "linear"),
        (lambda x: nn.functional.hardtanh(x, 0.0, 1.0), "relu6", "relu6"),
    ],
)
def test_a_clamp_is_a_relu_only_where_it_has_no_upper_end(
    function: Callable[[Tensor], Tensor], kind: str, origin: str
) -> None:
    (layer,) = layers_of(function, IMAGE)
    assert (layer.op, layer.output.origin) == (kind, origin)


def test_a_complex_product_is_four_products_and_two_additions() -> None:
    """Real and imaginary parts are two numbers each: n complex elements make 4 n products and 2 n sums."""

    def run(x: Tensor, y: Tensor) -> Tensor:
        return torch.view_as_real(torch.view_as_complex(x) * torch.view_as_complex(y))

    n, pair = 12, torch.zeros(3, 4, 2)
    products, sums = layers_of(run, pair, pair.clone())
    assert (products.op, products.elements, sums.op, sums.elements) == ("mul", 4 * n, "add", 2 * n)

    def added(x: Tensor, y: Tensor) -> Tensor:
        return torch.view_as_real(torch.view_as_complex(x) + torch.view_as_complex(y))

    (both,) = layers_of(added, pair, pair.clone())
    assert (both.op, both.elements) == ("add", 2 * n)


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
