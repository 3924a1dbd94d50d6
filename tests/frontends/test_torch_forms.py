"""Forms of torch operators that users write: their MACs are those of torch's own counter, or of a closed form."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import quant
from hwsim.api import load_workload
from hwsim.errors import UnsupportedOp, WorkloadError
from hwsim.frontends.torch_export import extract


class Code(nn.Module):
    """A function beside a linear layer of 8 to 8 features and a few parameters."""

    def __init__(self, run: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)
        self.experts = nn.Parameter(torch.randn(8, 8, 6))
        self.query = nn.Parameter(torch.randn(1, 5, 8))
        self.left, self.right = nn.Parameter(torch.randn(8, 2)), nn.Parameter(torch.randn(2, 8))
        self.run = run

    def forward(self, x: Tensor) -> Any:
        return self.run(self, x)


def counted(model: nn.Module, x: Tensor) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(x)
    return counter.get_total_flops() // 2


COUNTED: dict[str, tuple[Callable[[Any, Tensor], Any], Tensor]] = {
    "three operands": (lambda m, x: torch.einsum("ne,nd,edf->nf", m.layer(x), x, m.experts), torch.zeros(6, 8)),
    "ellipsis": (lambda m, x: torch.einsum("...d,de->...e", x, m.layer.weight), torch.zeros(2, 3, 8)),
    "no arrow": (lambda m, x: torch.einsum("nd,de", x, m.layer.weight), torch.zeros(3, 8)),
    "tensordot": (lambda m, x: torch.tensordot(x, m.layer.weight, 1), torch.zeros(3, 8)),
    "kron": (lambda m, x: torch.kron(m.layer(x), torch.ones(1, 2)), torch.zeros(3, 8)),
    "cosine": (lambda m, x: F.cosine_similarity(m.layer(x), x), torch.zeros(3, 8)),
    "affine grid": (
        lambda m, x: F.grid_sample(x, F.affine_grid(m.layer(x.mean((2, 3)))[:, :6].view(-1, 2, 3), x.shape)),
        torch.zeros(1, 8, 4, 4),
    ),
    "learned queries": (
        lambda m, x: torch.softmax(m.query @ m.layer(x).transpose(1, 2), -1) @ x, torch.zeros(1, 7, 8),
    ),
    "dynamic kernel": (lambda m, x: F.conv1d(x, m.layer(x)[:, :, None]), torch.zeros(8, 8)),
    "complex rotation": (
        lambda m, x: torch.view_as_real(torch.view_as_complex(m.layer(x).reshape(3, 4, 2)) * torch.ones(3, 4) * 1j),
        torch.zeros(3, 8),
    ),
}  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("name", COUNTED)
@pytest.mark.filterwarnings("ignore")
def test_macs_are_those_of_torchs_counter(name: str) -> None:
    run, x = COUNTED[name]
    assert extract(Code(run), x).macs == counted(Code(run), x)


def test_learned_queries_of_a_fused_attention_are_weights() -> None:
    net = extract(Code(lambda m, x: F.scaled_dot_product_attention(m.query, m.layer(x), x)), torch.zeros(1, 7, 8))
    assert net.macs == 7 * 64 + 2 * 5 * 7 * 8
    scores = next(layer for layer in net if layer.name.endswith("qk"))
    assert scores.weight is not None
    assert scores.weight.shape[-2:] == (5, 8)
    assert not scores.weight_is_activation


@pytest.mark.parametrize(("size", "kernel", "padding"), [(1, 4, 0), (1, 4, 1), (1, 3, 0)])
def test_one_pixel_grown_to_a_map_multiplies_each_tap_once(size: int, kernel: int, padding: int) -> None:
    """DCGAN's first layer: 1 x 1 to 4 x 4; taps over the border of the result are cut off."""
    made = (size - 1) * 2 - 2 * padding + kernel
    net = extract(nn.ConvTranspose2d(8, 4, kernel, 2, padding), torch.zeros(2, 8, size, size))
    assert net.macs == 2 * 8 * 4 * made * made


def test_unpooled_positions_are_written_and_read() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        y, places = F.max_pool2d(x, 2, return_indices=True)
        return F.max_unpool2d(y, places, 2)

    net = extract(Code(run), torch.zeros(1, 8, 4, 4))
    places = next(layer.output for layer in net if layer.name.endswith("positions"))
    assert (places.bits, places.shape) == (32, (1, 8, 2, 2))


def test_a_remainder_is_work_though_its_divisor_is_a_number() -> None:
    net = extract(Code(lambda m, x: m.layer(x) % 2), torch.zeros(3, 8))
    assert [layer.op for layer in net] == ["linear", "div"]


def test_products_of_parameters_alone_are_told() -> None:
    net = extract(Code(lambda m, x: F.linear(x, m.layer.weight + m.left @ m.right)), torch.zeros(3, 8))
    assert net.macs == 3 * 64
    assert any("128 MACs not counted" in note for note in net.notes)


@pytest.mark.filterwarnings("ignore")
def test_scripted_and_lazy_modules_and_empty_inputs_are_read_or_named() -> None:
    assert extract(torch.jit.script(nn.Sequential(nn.Linear(8, 4))), torch.zeros(2, 8)).macs == 64
    with pytest.raises(WorkloadError, match=r"0\.weight has no size yet"):
        extract(nn.Sequential(nn.LazyLinear(4)), torch.zeros(2, 8))
    with pytest.raises(WorkloadError, match=r"its results have no elements: give sizes of at least 1"):
        extract(nn.Linear(8, 4), torch.zeros(0, 8))


# A past that is empty yet, however it came about.
EMPTY: dict[str, Callable[[Any, Tensor], Any]] = {
    "first rows": lambda m, x: torch.cat([x[:0], m.layer(x)]),
    "a part of none": lambda m, x: torch.cat(torch.split(m.layer(x), [0, 3])),
    "projected": lambda m, x: torch.cat([torch.relu(m.layer(x[:0])), m.layer(x)]),
    "behind": lambda m, x: torch.cat([m.layer(x), x.narrow(0, 1, 0)]),
}


@pytest.mark.parametrize("name", EMPTY)
def test_what_has_no_elements_is_no_work(name: str) -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        return torch.relu(EMPTY[name](m, x)) @ torch.ones(8, 2)

    net = extract(Code(run), torch.zeros(3, 8))
    assert net.macs == 3 * 64 + 3 * 16
    assert [layer.op for layer in net] == ["linear", "relu", "linear"]


def test_a_past_without_elements_may_be_an_argument() -> None:
    class Attended(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x: Tensor, past: dict[str, Tensor]) -> Tensor:
            return self.query(x) @ torch.cat([past["keys"], self.key(x)], 1).transpose(1, 2)

    net = extract(Attended(), (torch.zeros(1, 4, 8), {"keys": torch.zeros(1, 0, 8)}))
    assert net.macs == 2 * 4 * 64 + 4 * 4 * 8


def test_parameters_joined_with_nothing_are_refused_by_name() -> None:
    with pytest.raises(UnsupportedOp, match=r"aten\.cat"):
        extract(Code(lambda m, x: torch.cat([x[:0], m.layer.weight]) + m.layer(x[:1])), torch.zeros(3, 8))


def test_an_operator_without_known_parts_keeps_its_name() -> None:
    with pytest.raises(UnsupportedOp, match=r"aten\.cdist"):
        extract(Code(lambda m, x: torch.cdist(m.layer(x), x)), torch.zeros(3, 8))


# Values that leave torch and come back, or that decide how much there is: nothing behind them may become a parameter.
VALUES_READ: dict[str, tuple[Callable[[Any, Tensor], Any], str]] = {
    "numpy": (lambda m, x: m.layer(torch.from_numpy(m.layer(x).detach().numpy() * 2)), "looks at the input's values"),
    "asarray": (lambda m, x: m.layer(torch.as_tensor(np.asarray(m.layer(x).detach()))), "looks at the input's values"),
    "list": (lambda m, x: m.layer(torch.tensor(m.layer(x).tolist())), "looks at the input's values"),
    "number": (lambda m, x: m.layer(x) / (x.max().item() + 1), "looks at the input's values"),
    "filled": (lambda m, x: m.layer(torch.full((3, 8), x.mean().item())), "looks at the input's values"),
    "question": (lambda m, x: m.layer(x) if torch.allclose(x, -x) else x, "looks at the input's values"),
    "rows": (lambda m, x: m.layer(x[x[:, 0] >= 0]), "how many elements it makes depends on the input's values"),
    "masked": (lambda m, x: m.layer(x)[x >= 0], "how many elements it makes depends on the input's values"),
}


@pytest.mark.long
@pytest.mark.parametrize("name", VALUES_READ)
@pytest.mark.filterwarnings("ignore")
def test_values_that_python_reads_are_refused_with_their_line(name: str) -> None:
    run, why = VALUES_READ[name]
    with pytest.raises(UnsupportedOp, match=why) as refused:
        extract(Code(run), torch.zeros(3, 8))
    if "looks" in why:
        assert f"test_torch_forms.py:{run.__code__.co_firstlineno}" in str(refused.value)


def test_a_mask_that_is_a_parameter_chooses_a_known_number() -> None:
    mask = torch.tensor([True, False, True])
    net = extract(Code(lambda m, x: m.layer(x[mask])), torch.zeros(3, 8))
    assert net.macs == 2 * 64


def test_a_random_slope_is_its_mean_at_inference() -> None:
    net = extract(Code(lambda m, x: F.rrelu(m.layer(x))), torch.zeros(3, 8))
    assert [layer.op for layer in net] == ["linear", "leaky_relu"]


def test_an_array_allocated_like_another_and_filled_in_parts_is_an_activation() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        y = torch.zeros_like(x)
        y[:, :4] = m.layer(x)[:, :4]
        y[:, 4:] = x[:, 4:]
        return m.layer(y)

    net = extract(Code(run), torch.zeros(3, 8))
    assert net.macs == 2 * 3 * 64


class Autoencoder(nn.Module):
    """The decoder reads the encoder's weight, transposed, and in floating point."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Linear(8, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.encode(x), self.encode.weight.t())


def test_a_weight_read_as_codes_and_as_numbers_is_stored_as_both() -> None:
    model, _ = quant.quantize(Autoencoder(), weight_bits=8, act_bits=8)
    quant.initialise(model, [torch.randn(4, 8)])
    net = extract(model, torch.zeros(1, 8))
    weights = {layer.weight.name: layer.weight.bits for layer in net if layer.weight is not None}
    assert weights == {"encode.weight": 8, "encode.weight (linear)": 32}
    assert net.macs == 48


class PaddedParts(nn.Module):
    """A concatenation of padded maps."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.a(x))
        return self.b(torch.cat([F.pad(y, (1, 1)), F.pad(y * 2, (1, 1))], 1))


def test_padding_hands_on_the_codes_of_the_quantizer_in_front() -> None:
    model, _ = quant.quantize(PaddedParts(), weight_bits=4, act_bits=4, first_last="same")
    quant.initialise(model, [torch.rand(2, 3, 8, 8)])
    net = extract(model, torch.zeros(1, 3, 8, 8))
    (joined,) = (layer for layer in net if layer.op == "concat")
    assert [tensor.bits for tensor in joined.inputs] == [8, 8]
    assert [layer.output.bits for layer in net if layer.op == "pad"] == [8, 8]


SIZES = dict(zip("abcde", (2, 3, 5, 4, 7), strict=True))


class Einsum(nn.Module):
    """An equation over the inputs and, last, a parameter where there is one."""

    def __init__(self, equation: str, weight: Tensor | None) -> None:
        super().__init__()
        self.equation = equation
        self.weight = None if weight is None else nn.Parameter(weight)

    def forward(self, *inputs: Tensor) -> Tensor:
        return torch.einsum(self.equation, *inputs, *(() if self.weight is None else (self.weight,)))


@pytest.mark.long
def test_random_equations_of_einsum_have_the_macs_of_torchs_counter() -> None:
    """Repeated letters, letters of one operand, sums in any operand; three operands from left to right."""
    random, compared = Random(0), 0
    for _ in range(120):
        words = ["".join(random.choices("abcde", k=random.randint(1, 4))) for _ in range(random.choice((2, 2, 2, 3)))]
        letters = sorted(set("".join(words)))
        equation = f"{','.join(words)}->{''.join(random.sample(letters, random.randint(0, len(letters))))}"
        operands = [torch.ones([SIZES[letter] for letter in word]) for word in words]
        weight = operands.pop() if random.random() < 0.5 else None
        model = Einsum(equation, weight)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(*operands)
        if counter.get_total_flops():
            assert extract(model, tuple(operands)).macs == counter.get_total_flops() // 2, equation
            compared += 1
    assert compared > 40


def test_a_sum_of_linear_interpolation_reads_two_elements() -> None:
    (layer,) = extract(Code(lambda m, x: F.interpolate(x, scale_factor=2, mode="linear")), torch.zeros(1, 3, 6))
    assert (layer.op, layer.window, layer.output.shape) == ("upsample", 2, (1, 3, 12))


def test_a_transposed_convolution_that_says_nothing_of_padding_has_none() -> None:
    def run(m: Any, x: Tensor, **options: int) -> Tensor:
        return F.conv_transpose2d(x, m.experts[:, :5, :3, None], **options)

    x = torch.zeros(1, 8, 6, 6)
    net, other = (extract(Code(lambda m, x, o=o: run(m, x, **o)), x) for o in ({}, {"padding": 0}))
    assert [layer.loops for layer in net] == [layer.loops for layer in other]
    assert net.macs == other.macs


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:.*treespec.*:FutureWarning")
@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_a_decomposed_program_is_the_same_network(tmp_path: Path, kind: type[nn.Module]) -> None:
    """Decomposed, both are aten.convolution, and say which they are."""
    program = torch.export.export(kind(3, 5, 3, 2, 1).eval(), (torch.zeros(1, 3, 6, 6),))
    torch.export.save(program, tmp_path / "plain.pt2")
    torch.export.save(program.run_decompositions(), tmp_path / "decomposed.pt2")
    plain, decomposed = (load_workload(tmp_path / f"{name}.pt2") for name in ("plain", "decomposed"))
    assert [(layer.op, layer.loops, layer.padding) for layer in plain] == [
        (layer.op, layer.loops, layer.padding) for layer in decomposed
    ]


def test_code_may_look_at_a_parameter_but_not_at_the_input() -> None:
    def run(value: Callable[[Any, Tensor], Tensor]) -> Callable[[Any, Tensor], Tensor]:
        return lambda m, x: m.layer(x) if bool(value(m, x) > -1e9) else x

    assert extract(Code(run(lambda m, x: m.query.sum())), torch.zeros(3, 8)).macs == 3 * 64
    with pytest.raises(UnsupportedOp, match="looks at the input's values"):
        extract(Code(run(lambda m, x: x.sum())), torch.zeros(3, 8))


WINDOWS: dict[str, tuple[Callable[[Tensor], Tensor], tuple[int, ...], list[tuple[str, int, int]]]] = {
    "bicubic": (lambda x: F.interpolate(x, scale_factor=2, mode="bicubic"), (1, 3, 4, 4), [("upsample", 16, 192)]),
    "trilinear": (lambda x: F.interpolate(x, None, 2, "trilinear"), (1, 2, 2, 2, 2), [("upsample", 8, 128)]),
    "reflection": (lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"), (1, 3, 4, 4), [("pad", 1, 108)]),
    "reflection by its own name": (
        lambda x: torch.ops.aten.reflection_pad2d(x, (1, 1, 1, 1)), (1, 3, 4, 4), [("pad", 1, 108)],
    ),
    "own letters": (lambda x: torch.einsum("abc->b", x), (3, 5, 7), [("reduce_sum", 21, 5)]),
    "diagonal": (lambda x: torch.einsum("aab->ba", x), (3, 3, 5), [("copy", 1, 15)]),
}  # fmt: skip


class Function(nn.Module):
    """A function of one tensor as a module."""

    def __init__(self, run: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.run = run

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x)


@pytest.mark.parametrize("name", WINDOWS)
def test_an_output_is_made_of_as_many_elements_as_it_reads(name: str) -> None:
    """Operator, elements read for each output, outputs."""
    run, shape, wanted = WINDOWS[name]
    net = extract(Function(run), torch.zeros(shape))
    assert [(layer.op, layer.window, layer.output.elements) for layer in net] == wanted


def test_letters_in_another_order_are_address_arithmetic() -> None:
    """Of the input itself, too, which no layer makes."""
    net = extract(Code(lambda m, x: m.layer(torch.einsum("ab->ba", x))), torch.zeros(8, 3))
    assert [(layer.op, layer.macs) for layer in net] == [("linear", 3 * 64)]


def test_an_assertion_about_the_input_is_free_and_what_it_computes_is_not() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        torch._assert_async((x.sum() > -1).all())
        return m.layer(x)

    net = extract(Code(run), torch.zeros(3, 8))
    assert [layer.op for layer in net if layer.has_macs] == ["linear"]
    assert [(layer.op, layer.window) for layer in net if layer.op == "reduce_sum"] == [("reduce_sum", 24)]
    assert "_assert_async" in {op.op for op in net.coverage.free}


def matrix_of(transform: Callable[[Tensor], Tensor], length: int, complex_in: bool) -> Tensor:
    """The real matrix of a linear map along the last axis: what it makes of each unit vector."""
    rows = torch.eye(length * (2 if complex_in else 1), dtype=torch.float64)
    made = transform(torch.view_as_complex(rows.reshape(-1, length, 2)) if complex_in else rows)
    return torch.view_as_real(made).flatten(1) if made.is_complex() else made


TRANSFORMS: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    "fft": (lambda x: torch.view_as_real(torch.fft.fft(x)), 3 * matrix_of(torch.fft.fft, 8, False).numel()),
    "rfft": (lambda x: torch.view_as_real(torch.fft.rfft(x)), 3 * matrix_of(torch.fft.rfft, 8, False).numel()),
    "rfft and back": (
        lambda x: torch.fft.irfft(torch.fft.rfft(x), n=8),
        3 * matrix_of(torch.fft.rfft, 8, False).numel()
        + 3 * matrix_of(lambda z: torch.fft.irfft(z, n=8), 5, True).numel(),
    ),
    "first four of eight": (
        lambda x: torch.view_as_real(torch.fft.rfft(x, n=4)), 3 * matrix_of(torch.fft.rfft, 4, False).numel()
    ),
    "two axes": (
        lambda x: torch.fft.fft2(x).real,
        3 * matrix_of(torch.fft.fft, 8, False).numel() + 8 * matrix_of(torch.fft.fft, 3, True).numel(),
    ),
    "two axes of real numbers": (
        lambda x: torch.fft.rfft2(x).abs(),
        3 * matrix_of(torch.fft.rfft, 8, False).numel() + 5 * matrix_of(torch.fft.fft, 3, True).numel(),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_fourier_transform_has_the_products_of_its_matrix(name: str) -> None:
    run, right = TRANSFORMS[name]
    assert extract(Code(lambda _, x: run(x)), torch.randn(3, 8)).macs == right


def test_products_of_complex_numbers_are_refused_by_name() -> None:
    turned = Code(lambda m, x: (m.layer(x).to(torch.cfloat) @ m.layer.weight.to(torch.cfloat)).abs())
    with pytest.raises(UnsupportedOp, match=r"aten.matmul \(complex numbers: write it on their real and imaginary"):
        extract(turned, torch.zeros(2, 8))


def test_a_complex_absolute_value_has_two_products_for_each_number() -> None:
    network = extract(Code(lambda _, x: torch.view_as_complex(x.reshape(3, 4, 2)).abs()), torch.randn(3, 8))
    assert [(layer.op, layer.output.elements) for layer in network] == [("mul", 24), ("add", 12), ("tanh", 12)]


BATCHED: dict[str, Callable[[Any, Tensor], Any]] = {
    "layer over rows": lambda m, x: torch.vmap(m.layer)(x),
    "product over parameters": lambda m, x: torch.vmap(lambda w: x @ w)(m.experts),
    "twice": lambda m, x: torch.vmap(torch.vmap(m.layer))(x.reshape(2, 3, 8)),
}


@pytest.mark.long
@pytest.mark.parametrize("name", BATCHED)
def test_vmap_counts_what_it_runs(name: str) -> None:
    model, x = Code(BATCHED[name]), torch.randn(6, 8)
    assert extract(model, x).macs == counted(model, x) > 0


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_rows_of_different_lengths_are_refused() -> None:
    rows = torch.nested.nested_tensor([torch.randn(2, 8), torch.randn(3, 8)])
    with pytest.raises(WorkloadError, match="a nested tensor has rows of different lengths: give padded ones"):
        extract(nn.Linear(8, 4), rows)


REPEATED: dict[str, nn.Module] = {
    "convolution": nn.Conv2d(3, 4, 3, padding=1),
    "transposed": nn.ConvTranspose2d(3, 4, 2, stride=2),
    "transposed in phases": nn.ConvTranspose2d(3, 4, 3, stride=2),
    "pool": nn.MaxPool2d(2),
}


@pytest.mark.parametrize("name", REPEATED)
def test_one_channel_shown_three_times_is_read_once(name: str) -> None:
    """Grey pictures for a network of three channels: x.expand(-1, 3, -1, -1)."""

    class Grey(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = REPEATED[name]

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x.expand(-1, 3, -1, -1))

    model, x = Grey(), torch.randn(2, 1, 8, 8)
    network = extract(model, x)
    assert network.macs == extract(REPEATED[name], x.expand(-1, 3, -1, -1)).macs
    assert [layer.inputs[0].elements for layer in network if layer.inputs[0].name == "x"] == [x.numel()]
