"""Small networks as users write them, for what `--bits` and `quant.quantize` must say alike: parameters beside
activations, attention of several kinds, recurrent layers, transposed convolutions, means, shared modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Made = tuple[nn.Module, tuple[Any, ...]]
NETWORKS: dict[str, Callable[[], Made]] = {}


class Code(nn.Module):
    """A forward pass given as a function of the module and its inputs, with the parts it uses."""

    def __init__(self, run: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.run = run
        for name, part in parts.items():
            if isinstance(part, Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)

    def forward(self, x: Tensor) -> Any:
        return self.run(self, x)


class Two(Code):
    """Of two inputs."""

    def forward(self, x: Tensor, y: Tensor) -> Any:  # type: ignore[override]
        return self.run(self, x, y)


class Three(Code):
    """Of three inputs."""

    def forward(self, x: Tensor, y: Tensor, z: Tensor) -> Any:  # type: ignore[override]
        return self.run(self, x, y, z)


def net(make: Callable[[], Made]) -> Callable[[], Made]:
    """Enter a network under its function's name."""
    NETWORKS[make.__name__] = make
    return make


def image(channels: int = 3, size: int = 8) -> tuple[Tensor, ...]:
    return (torch.rand(1, channels, size, size),)


def rows(features: int = 12, count: int = 1) -> tuple[Tensor, ...]:
    return tuple(torch.randn(1, 6, features) for _ in range(count))


def parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape))


def ends() -> dict[str, nn.Module]:
    """A first and a last layer, so that what stands between is not at an end."""
    return {"first": nn.Linear(12, 12), "last": nn.Linear(12, 12)}


# ---- parameters and constants --------------------------------------------------------------------------------------


@net
def layer_scale() -> Made:
    """ConvNeXt's factor per channel behind a linear layer, then a residual."""
    return Code(
        lambda m, x: m.last(x + m.fc(F.gelu(m.first(x))) * m.gamma),
        fc=nn.Linear(12, 12), gamma=parameter(12), **ends(),
    ), rows()  # fmt: skip


@net
def scale_per_channel_of_a_convolution() -> Made:
    return Code(
        lambda m, x: m.b(F.relu(m.a(x) * m.g + m.o)),
        a=nn.Conv2d(3, 6, 3), b=nn.Conv2d(6, 4, 1), g=parameter(1, 6, 1, 1), o=parameter(6, 1, 1),
    ), image()  # fmt: skip


@net
def scale_behind_an_activation() -> Made:
    """Nothing right before it can absorb the factor."""
    return Code(
        lambda m, x: m.last(F.relu(m.first(x)) * m.gamma), gamma=parameter(12), **ends(),
    ), rows()  # fmt: skip


@net
def one_learned_number() -> Made:
    return Code(lambda m, x: m.last(x + m.alpha * torch.tanh(m.first(x))), alpha=parameter(1), **ends()), rows()


@net
def plain_numbers() -> Made:
    return Code(lambda m, x: m.last((F.relu(m.first(x)) * 2 + 1) / 3), **ends()), rows()


@net
def learned_positions() -> Made:
    return Code(
        lambda m, x: m.last(F.silu(m.fc(m.first(x) + m.place))), fc=nn.Linear(12, 12), place=parameter(1, 6, 12),
        **ends(),
    ), rows()  # fmt: skip


@net
def class_token() -> Made:
    return Code(lambda m, x: m.last(torch.cat([m.token, m.first(x)], 1)), token=parameter(1, 1, 12), **ends()), rows()


@net
def product_with_a_parameter() -> Made:
    """x @ W is a linear layer, and b its bias."""
    return Code(
        lambda m, x: m.last(F.relu(m.first(x) @ m.w + m.b)), w=parameter(12, 12), b=parameter(12), **ends()
    ), rows()


@net
def parameter_times_the_input() -> Made:
    """W @ x as the last layer."""
    return Code(
        lambda m, x: m.w @ F.relu(m.first(x)).transpose(1, 2), w=parameter(5, 12), first=nn.Linear(12, 12)
    ), rows()


@net
def mixing_by_two_parameters() -> Made:
    """RWKV's token shift."""
    return Code(
        lambda m, x: m.last(m.first(x) * m.a + x.roll(1, 1) * m.c), a=parameter(12), c=parameter(12), **ends()
    ), rows()


# ---- means, powers, choices ----------------------------------------------------------------------------------------


@net
def mean_of_an_image() -> Made:
    return Code(lambda m, x: m.fc(m.a(x).mean((2, 3))), a=nn.Conv2d(3, 8, 3), fc=nn.Linear(8, 4)), image()


@net
def mean_over_tokens() -> Made:
    return Code(lambda m, x: m.last(F.gelu(m.first(x)).mean(1)), **ends()), rows()


@net
def rms_norm_by_hand() -> Made:
    return Code(
        lambda m, x: m.last((h := m.first(x)) * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + 1e-5) * m.g),
        g=parameter(12), **ends(),
    ), rows()  # fmt: skip


@net
def pooled_by_a_module() -> Made:
    """A pool as a module is not rounded in front."""
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)), image()


@net
def squares_and_roots() -> Made:
    return Code(lambda m, x: m.last(m.mid(m.first(x).pow(2)).abs().sqrt()), mid=nn.Linear(12, 12), **ends()), rows()


@net
def choice_by_a_mask() -> Made:
    return Code(lambda m, x: m.last(torch.where(x > 0, m.first(x), x)), **ends()), rows()


@net
def quotient() -> Made:
    return Code(lambda m, x: m.last(m.first(x) / (1 + F.relu(x))), **ends()), rows()


@net
def gates() -> Made:
    """A gated linear unit, a highway, a product of two gates."""
    return Code(
        lambda m, x: m.last(torch.sigmoid(m.first(x)) * torch.sigmoid(m.b(x)) * m.c(x)),
        b=nn.Linear(12, 12), c=nn.Linear(12, 12), **ends(),
    ), rows()  # fmt: skip


@net
def sums_of_one_side() -> Made:
    """ReLU + ReLU is never negative, SiLU + ReLU has one side, sigmoid + sigmoid exceeds 1."""
    return Code(
        lambda m, x: m.last(m.b(F.relu(y := m.first(x)) + F.relu(-y)) + (y.sigmoid() + F.silu(y))),
        b=nn.Linear(12, 12), **ends(),
    ), rows()  # fmt: skip


# ---- attention -----------------------------------------------------------------------------------------------------


@net
def attention_module() -> Made:
    return Code(lambda m, x: m.last(m.mha(*[m.first(x)] * 3, need_weights=False)[0]),
                mha=nn.MultiheadAttention(12, 3, batch_first=True), **ends()), rows()  # fmt: skip


@net
def attention_without_batches_first() -> Made:
    return Code(lambda m, x: m.mha(x, x, x, need_weights=False)[0], mha=nn.MultiheadAttention(12, 3)), rows()


@net
def attention_to_another_array() -> Made:
    return Two(lambda m, x, y: m.last(m.mha(m.first(x), y, y, need_weights=False)[0]),
                mha=nn.MultiheadAttention(12, 3, batch_first=True), **ends()), rows(count=2)  # fmt: skip


@net
def attention_of_three_arrays() -> Made:
    return Three(lambda m, x, y, z: m.last(m.mha(m.first(x), y, z, need_weights=False)[0]),
                mha=nn.MultiheadAttention(12, 2, batch_first=True), **ends()), rows(count=3)  # fmt: skip


@net
def attention_with_other_sizes() -> Made:
    return Two(
        lambda m, x, y: m.last(m.mha(m.first(x), y, y, need_weights=False)[0]),
        mha=nn.MultiheadAttention(12, 2, kdim=8, vdim=8, batch_first=True), **ends(),
    ), (*rows(), *rows(8))  # fmt: skip


@net
def attention_after_an_activation() -> Made:
    """The projections read what a GELU made."""
    return Code(lambda m, x: m.last(m.mha(*[F.gelu(m.first(x))] * 3, need_weights=False)[0]),
                mha=nn.MultiheadAttention(12, 3, batch_first=True), **ends()), rows()  # fmt: skip


@net
def encoder_of_two_layers() -> Made:
    layer = nn.TransformerEncoderLayer(12, 2, 24, 0.0, "gelu", batch_first=True, norm_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), rows()


@net
def transformer() -> Made:
    return nn.Transformer(12, 2, 1, 1, 24, 0.0, batch_first=True), rows(count=2)


@net
def attention_by_function() -> Made:
    def run(m: Any, x: Tensor) -> Tensor:
        q, k, v = m.qkv(x).view(1, 6, 3, 2, 6).permute(2, 0, 3, 1, 4).unbind(0)
        return m.proj(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(1, 6, 12))

    return Code(run, qkv=nn.Linear(12, 36), proj=nn.Linear(12, 12)), rows()


# ---- recurrent layers, transposed convolutions ---------------------------------------------------------------------


def after(layer: nn.RNNBase, width: int) -> Made:
    return Code(lambda m, x: m.fc(m.rnn(x)[0]), rnn=layer, fc=nn.Linear(width, 3)), rows()


@net
def lstm() -> Made:
    return after(nn.LSTM(12, 5, batch_first=True), 5)


@net
def lstm_of_two_layers_and_directions() -> Made:
    return after(nn.LSTM(12, 5, num_layers=2, bidirectional=True, batch_first=True), 10)


@net
def gru() -> Made:
    return after(nn.GRU(12, 5, batch_first=True), 5)


@net
def rnn_with_relu() -> Made:
    return after(nn.RNN(12, 5, nonlinearity="relu", batch_first=True), 5)


@net
def recurrent_between_linear_layers() -> Made:
    return Code(lambda m, x: m.last(m.gru(F.relu(m.first(x)))[0][:, -1]), gru=nn.GRU(12, 12), **ends()), rows()


class Cells(nn.Module):
    """A cell called step by step, its first state made in forward."""

    def __init__(self, kind: type[nn.RNNCellBase], **options: Any) -> None:
        super().__init__()
        self.cell, self.fc = kind(12, 5, **options), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = c = torch.zeros(x.shape[0], 5)
        for t in range(3):
            made = self.cell(x[:, t], (h, c) if self.is_lstm else h)
            h, c = made if self.is_lstm else (made, c)
        return self.fc(h)

    @property
    def is_lstm(self) -> bool:
        return type(self.cell).__name__ == "LSTMCell" or getattr(self.cell, "mode", "") == "LSTM"


@net
def lstm_cell() -> Made:
    return Cells(nn.LSTMCell), rows()


@net
def gru_cell() -> Made:
    return Cells(nn.GRUCell), rows()


@net
def rnn_cell() -> Made:
    return Cells(nn.RNNCell, nonlinearity="relu"), rows()


@net
def projected_lstm() -> Made:
    return after(nn.LSTM(12, 5, proj_size=4, batch_first=True), 4)


@net
def projected_lstm_both_ways() -> Made:
    return after(nn.LSTM(12, 5, 2, proj_size=4, bidirectional=True, batch_first=True), 8)


@net
def transposed_convolutions() -> Made:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, 2), nn.ReLU(), nn.ConvTranspose2d(6, 4, 3, 2), nn.SiLU(), nn.ConvTranspose2d(4, 3, 2, 2)
    ), image(size=9)


@net
def transposed_convolution_by_function() -> Made:
    return Code(
        lambda m, x: m.out(F.relu(F.conv_transpose2d(F.relu(m.a(x)), m.w, stride=2))),
        a=nn.Conv2d(3, 6, 3), out=nn.Conv2d(4, 3, 1), w=parameter(6, 4, 3, 3),
    ), image()  # fmt: skip


@net
def transposed_in_one_dimension() -> Made:
    return nn.Sequential(nn.Conv1d(3, 6, 3), nn.GELU(), nn.ConvTranspose1d(6, 4, 4, 2), nn.Conv1d(4, 3, 1)), (
        torch.randn(1, 3, 12),
    )


# ---- shared and tied -----------------------------------------------------------------------------------------------


@net
def one_layer_called_twice() -> Made:
    return Code(lambda m, x: m.last(m.mid(F.relu(m.mid(F.relu(m.first(x)))))), mid=nn.Linear(12, 12), **ends()), rows()


@net
def first_layer_called_last() -> Made:
    """It is at the end, at each call."""
    return Code(lambda m, x: m.a(F.relu(m.b(F.silu(m.a(x))))), a=nn.Linear(12, 12), b=nn.Linear(12, 12)), rows()


@net
def one_block_called_twice() -> Made:
    block = nn.Sequential(nn.Linear(12, 12), nn.ReLU())
    return Code(lambda m, x: m.last(m.block(m.block(m.first(x)) + x)), block=block, **ends()), rows()


@net
def one_matrix_by_two_functions() -> Made:
    return Code(
        lambda m, x: m.last(F.linear(F.relu(F.linear(m.first(x), m.w)), m.w)), w=parameter(12, 12), **ends()
    ), rows()


@net
def language_model_with_tied_ends() -> Made:
    table = nn.Embedding(30, 12)
    head = nn.Linear(12, 30, bias=False)
    head.weight = table.weight
    return Code(lambda m, i: m.head(F.gelu(m.mid(m.table(i)))), table=table, mid=nn.Linear(12, 12), head=head), (
        torch.randint(0, 30, (1, 6)),
    )


@net
def bag_of_words() -> Made:
    return Code(lambda m, i: m.fc(m.bag(i)), bag=nn.EmbeddingBag(30, 12), fc=nn.Linear(12, 4)), (
        torch.randint(0, 30, (2, 6)),
    )


# ---- written out ---------------------------------------------------------------------------------------------------


@net
def gated_linear_unit() -> Made:
    return Code(lambda m, x: m.last(F.glu(m.wide(m.first(x)))), wide=nn.Linear(12, 24), **ends()), rows()


@net
def gated_convolution_module() -> Made:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.GLU(1), nn.Conv2d(4, 3, 1)), image()


@net
def attention_by_einsum() -> Made:
    def run(m: Any, x: Tensor) -> Tensor:
        q, k, v = m.qkv(x).unflatten(-1, (3, 2, 4)).unbind(-3)
        scores = torch.einsum("bihd,bjhd->bhij", q, k).softmax(-1)
        return m.out(torch.einsum("bhij,bjhd->bihd", scores, v).flatten(2))

    return Code(run, qkv=nn.Linear(8, 24), out=nn.Linear(8, 5)), (torch.randn(1, 6, 8),)


@net
def grouped_queries() -> Made:
    def run(m: Any, x: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(-1, (-1, 4)).transpose(1, 2) for f in (m.q, m.k, m.v))
        return m.out(F.scaled_dot_product_attention(q, k, v, enable_gqa=True).transpose(1, 2).flatten(2))

    layers = {"q": nn.Linear(8, 16), "k": nn.Linear(8, 8), "v": nn.Linear(8, 8), "out": nn.Linear(16, 5)}
    return Code(run, **layers), (torch.randn(1, 6, 8),)
