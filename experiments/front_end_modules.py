"""Modules as users write them, each with an example input: what experiments.front_ends reads beside files and zoo."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Code(nn.Module):
    """A forward function with its submodules."""

    def __init__(self, run: Callable[..., Any], **parts: nn.Module) -> None:
        super().__init__()
        self.run = run
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, *args: Any) -> Any:
        return self.run(self, *args)


def x(*shape: int) -> Tensor:
    """Zeros."""
    return torch.zeros(shape)


def unet(m: Any, a: Tensor) -> Tensor:
    b = F.relu(m.down(a))
    return m.out(torch.cat([F.relu(m.up(b)), a], 1))


def excite(m: Any, a: Tensor) -> Tensor:
    return a * torch.sigmoid(m.two(F.relu(m.one(a.mean((2, 3)))))).reshape(a.shape[0], -1, 1, 1)


def grouped_query(m: Any, a: Tensor) -> Tensor:
    n, t, _ = a.shape
    q = m.q(a).view(n, t, 4, 8).transpose(1, 2)
    k, v = (p(a).view(n, t, 2, 8).transpose(1, 2) for p in (m.k, m.v))
    k, v = (p[:, :, None].expand(n, 2, 2, t, 8).reshape(n, 4, t, 8) for p in (k, v))
    return m.o((torch.softmax(q @ k.transpose(2, 3), -1) @ v).transpose(1, 2).reshape(n, t, 32))


def shared(m: Any, a: Tensor) -> Tensor:
    for _ in range(3):
        a = F.relu(m.layer(a)) + a
    return a


def in_place(m: Any, a: Tensor) -> Tensor:
    y = m.one(a)
    y += a
    y.relu_()
    return m.two(y)


def filled(m: Any, a: Tensor) -> Tensor:
    out = torch.zeros(a.shape[0], 3, 8)
    for i in range(3):
        out[:, i] = m.one(a[:, i])
    return m.two(out)


def branch(m: Any, a: Tensor) -> Tensor:
    return m.one(a) if a.sum() > 0 else m.two(a)


def unique(m: Any, a: Tensor) -> Tensor:
    return m.one(a)[a[:, 0].nonzero()]


MODULES: dict[str, Callable[[], tuple[nn.Module, Any]]] = {
    "mlp": lambda: (nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4)), x(8, 16)),
    "cnn": lambda: (nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)), x(2, 3, 16, 16)),
    "depthwise": lambda: (nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 16, 1), nn.ReLU6()), x(1, 8, 9, 9)),
    "dilated": lambda: (nn.Conv2d(4, 6, 3, dilation=2, padding=2), x(1, 4, 12, 12)),
    "asymmetric_stride": lambda: (nn.Conv2d(4, 6, (3, 5), stride=(2, 1), padding=(1, 2)), x(1, 4, 12, 12)),
    "conv1d_tcn": lambda: (nn.Sequential(nn.Conv1d(4, 8, 3, padding=2, dilation=2), nn.PReLU()), x(2, 4, 20)),
    "conv3d": lambda: (nn.Sequential(nn.Conv3d(3, 4, 3, padding=1), nn.MaxPool3d(2)), x(1, 3, 4, 8, 8)),
    "conv2plus1d": lambda: (nn.Sequential(nn.Conv3d(3, 6, (1, 3, 3)), nn.Conv3d(6, 4, (3, 1, 1))), x(1, 3, 5, 8, 8)),
    "upsampler": lambda: (nn.Sequential(nn.ConvTranspose2d(4, 3, 4, 2, 1), nn.Tanh()), x(1, 4, 8, 8)),
    "odd_upsampler": lambda: (nn.ConvTranspose2d(4, 3, 3, 2, 1, output_padding=1), x(1, 4, 8, 8)),
    "audio_decoder": lambda: (nn.Sequential(nn.ConvTranspose1d(8, 4, 8, 4, 2), nn.ELU()), x(1, 8, 10)),
    "voxel_decoder": lambda: (nn.ConvTranspose3d(4, 2, 2, 2), x(1, 4, 3, 3, 3)),
    "unet": lambda: (
        Code(unet, down=nn.Conv2d(3, 8, 3, 2, 1), up=nn.ConvTranspose2d(8, 5, 2, 2), out=nn.Conv2d(8, 2, 1)),
        x(1, 3, 8, 8),
    ),
    "squeeze_excite": lambda: (Code(excite, one=nn.Linear(8, 4), two=nn.Linear(4, 8)), x(2, 8, 5, 5)),
    "lstm": lambda: (nn.LSTM(8, 16), x(6, 2, 8)),
    "bilstm": lambda: (nn.LSTM(8, 16, 2, bidirectional=True, batch_first=True), x(2, 6, 8)),
    "gru": lambda: (nn.GRU(8, 16, batch_first=True), x(2, 6, 8)),
    "rnn": lambda: (nn.RNN(8, 16), x(6, 2, 8)),
    "lstm_cell": lambda: (nn.LSTMCell(8, 16), x(2, 8)),
    "encoder": lambda: (nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), x(1, 5, 16)),
    "attention": lambda: (Code(lambda m, a: m.mha(a, a, a)[0], mha=nn.MultiheadAttention(16, 4)), x(5, 1, 16)),
    "grouped_query": lambda: (
        Code(grouped_query, q=nn.Linear(32, 32), k=nn.Linear(32, 16), v=nn.Linear(32, 16), o=nn.Linear(32, 32)),
        x(1, 6, 32),
    ),
    "embedding_bag": lambda: (nn.Sequential(nn.EmbeddingBag(50, 8), nn.Linear(8, 3)), x(4, 5).long()),
    "tied_head": lambda: tied(),
    "shared_block": lambda: (Code(shared, layer=nn.Linear(8, 8)), x(2, 8)),
    "in_place": lambda: (Code(in_place, one=nn.Linear(8, 8), two=nn.Linear(8, 4)), x(2, 8)),
    "filled_array": lambda: (Code(filled, one=nn.Linear(8, 8), two=nn.Linear(8, 4)), x(1, 3, 8)),
    "bilinear": lambda: (Code(lambda m, a, b: m.layer(a, b), layer=nn.Bilinear(6, 5, 4)), (x(3, 6), x(3, 5))),
    "einsum": lambda: (Code(lambda m, a: torch.einsum("bi,oi->bo", a, m.layer.weight), layer=nn.Linear(8, 4)), x(2, 8)),
    "topk_router": lambda: (Code(lambda m, a: m.layer(a).topk(2, 1)[0], layer=nn.Linear(8, 4)), x(3, 8)),
    "grid_sampler": lambda: (
        Code(lambda m, a: F.grid_sample(a, m.layer(a).permute(0, 2, 3, 1)), layer=nn.Conv2d(3, 2, 1)), x(1, 3, 8, 8),
    ),
    "pixel_shuffle": lambda: (nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.PixelShuffle(2)), x(1, 3, 8, 8)),
    "data_dependent_branch": lambda: (Code(branch, one=nn.Linear(8, 4), two=nn.Linear(8, 4)), x(2, 8)),
    "data_dependent_size": lambda: (Code(unique, one=nn.Linear(8, 4)), x(2, 8)),
}  # fmt: skip


def tied() -> tuple[nn.Module, Any]:
    """An embedding whose table is also the head's weight."""
    model = Code(lambda m, a: m.head(m.table(a)), table=nn.Embedding(40, 8), head=nn.Linear(8, 40, bias=False))
    model.head.weight = model.table.weight  # type: ignore[union-attr,assignment]
    return model, torch.zeros(1, 4, dtype=torch.long)
