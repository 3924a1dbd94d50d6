"""Networks as users write them: operations in place, aliases, functions, shared and tied modules, many inputs.

`MODULES`: name -> `Case`. A case says which operations `quantize` must replace and which it must leave, beside the
layers with weights; the tests hold every case against its float network, in quantization and in the integer machine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Case:
    """A network, what it is called with, and what its plan must say. `refused`: a part of the error instead."""

    make: Callable[[], nn.Module]
    inputs: Callable[[], tuple[Any, ...]]
    operations: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    refused: str = ""
    integer: bool = True  # whether the integer machine runs it; else it names what has no integer form
    trains: bool = True
    choices: dict[str, Any] = field(default_factory=dict)


MODULES: dict[str, Case] = {}


def images(channels: int = 3, size: int = 8, batch: int = 4) -> tuple[Tensor, ...]:
    return (torch.rand(batch, channels, size, size),)


def tokens(count: int = 1) -> tuple[Tensor, ...]:
    return tuple(torch.randn(4, 6, 12) for _ in range(count))


def case(inputs: Callable[[], tuple[Any, ...]] = images, **said: Any) -> Callable[[Any], Any]:
    """Enter a module class (without arguments) in the table, under its name."""

    def enter(made: Any) -> Any:
        MODULES[made.__name__] = Case(made, inputs, **said)
        return made

    return enter


class Pair(nn.Module):
    """Three convolutions; subclasses join the first two."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.a(x))
        return self.out(self.join(y, self.b(y)))

    def join(self, y: Tensor, z: Tensor) -> Tensor:
        return y + z


# ---- in place ----------------------------------------------------------------------------------------------------


@case(operations=("add",))
class AddInPlace(Pair):
    def join(self, y: Tensor, z: Tensor) -> Tensor:
        y.add_(z)
        return y


@case(operations=("mul",))
class MulInPlace(Pair):
    def join(self, y: Tensor, z: Tensor) -> Tensor:
        y.mul_(torch.sigmoid(z))
        return y


@case(operations=("add",))
class AugmentedAlias(Pair):
    """`same` is the tensor that `+=` changes."""

    def join(self, y: Tensor, z: Tensor) -> Tensor:
        same = y
        y += z
        return same


@case(operations=("add",))
class WriteAfterView(Pair):
    """A view taken before the write shows the write."""

    def join(self, y: Tensor, z: Tensor) -> Tensor:
        flat = y.transpose(2, 3)
        y += z
        return flat.transpose(2, 3)


@case(operations=("add",))
class WriteThroughView(Pair):
    """A write through a view of what nobody else reads."""

    def join(self, y: Tensor, z: Tensor) -> Tensor:
        w = (y * 1.0).transpose(2, 3)
        w += z.transpose(2, 3)
        return w


@case(refused="WriteThroughSharedView|reads by another name")
class WriteThroughSharedView(Pair):
    def join(self, y: Tensor, z: Tensor) -> Tensor:
        half = y.narrow(1, 0, 4)
        half += z.narrow(1, 0, 4)
        return y


@case(left=("setitem",))
class ItemAssignment(Pair):
    def join(self, y: Tensor, z: Tensor) -> Tensor:
        y = y * 1.0
        y[:, :4] = z[:, :4]
        return y


@case(operations=("add",), left=("setitem",))
class AugmentedItem(Pair):
    def join(self, y: Tensor, z: Tensor) -> Tensor:
        y[:, 2:6] += z[:, 2:6]
        return y


@case()
class ForgottenResult(Pair):
    """An in-place activation whose result nobody takes."""

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        self.act(y)
        y = self.b(y)
        torch.relu_(y)
        return self.out(y)


@case(operations=("add",))
class InPlaceBeforeResidual(Pair):
    """The residual branch reads the tensor that the in-place ReLU overwrote."""

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        z = self.b(self.act(y))
        return self.out(y + z)


@case(operations=("add",), trains=False)
class OutArgument(Pair):
    def join(self, y: Tensor, z: Tensor) -> Tensor:
        w = torch.empty_like(y)
        torch.mul(z, 0.5, out=w)
        return y + w


@case(left=("setitem", "setitem"))
class FilledStepByStep(Pair):
    """A result allocated first, then written part by part."""

    def join(self, y: Tensor, z: Tensor) -> Tensor:
        w = torch.zeros_like(y)
        w[:, :4] = y[:, :4]
        w[:, 4:] = z[:, 4:]
        return w


@case(left=("setitem", "setitem", "setitem"))
class FilledAtIntervals(Pair):
    """Every second channel, then the others; one channel is a number."""

    def join(self, y: Tensor, z: Tensor) -> Tensor:
        w = y.new_zeros(y.shape)
        w[:, ::2] = y[:, ::2]
        w[:, 1::2] = z[:, ::2]
        w[:, 0] = 0.5
        return w


@case(operations=("add",), trains=False)
class EverySpelling(Pair):
    """Methods with an underscore: functions, moves and constants."""

    def join(self, y: Tensor, z: Tensor) -> Tensor:
        w = (y + z).neg_()
        w.unsqueeze_(1).squeeze_(1).transpose_(2, 3)
        return w.clamp_(-2, 1).clamp_min_(-1.5)


# ---- operations of activations -----------------------------------------------------------------------------------


@case(operations=("sub",))
class Difference(Pair):
    def join(self, y: Tensor, z: Tensor) -> Tensor:
        return y - z


@case(operations=("maximum", "minimum", "concat"))
class Extremes(Pair):
    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Conv2d(16, 4, 1)

    def join(self, y: Tensor, z: Tensor) -> Tensor:
        return torch.cat([torch.maximum(y, z), torch.min(y, F.relu(z))], 1)


@case(operations=("add",))
class Doubled(Pair):
    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.b(F.relu(self.a(x))))
        return self.out(y + y)


@case(left=("div", "where", "lerp", "stack"))
class FloatOperations(Pair):
    def join(self, y: Tensor, z: Tensor) -> Tensor:
        y = y / (1 + F.relu(z))
        y = torch.where(z > 0, y, z)
        y = torch.lerp(y, z, 0.25)
        return torch.stack([y, z], 1).flatten(1, 2)[:, ::2]


@case(operations=("mean", "mul"))
class MeanGate(Pair):
    """Squeeze and excite with a mean written as a method."""

    def join(self, y: Tensor, z: Tensor) -> Tensor:
        return y * torch.sigmoid(z.mean(dim=(2, 3), keepdim=True))


@case(operations=("sub",))
class LargestTaken(Pair):
    """`values` of a named result is an activation."""

    def join(self, y: Tensor, z: Tensor) -> Tensor:
        return y - z.max(dim=1, keepdim=True).values


@case(operations=("add",), left=("sum",))
class SumOverMap(Pair):
    def join(self, y: Tensor, z: Tensor) -> Tensor:
        return y + z.sum((2, 3), keepdim=True) * 0.01


@case(operations=("add",), left=("mul",))
class ConstantsMadeInForward(Pair):
    """Numbers turned into tensors at every call."""

    def join(self, y: Tensor, z: Tensor) -> Tensor:
        return y + z * torch.tensor([0.5, -0.25]).repeat(4)[:, None, None]


@case(operations=("mul",))
class GateExpanded(Pair):
    def join(self, y: Tensor, z: Tensor) -> Tensor:
        gate = torch.sigmoid(F.adaptive_avg_pool2d(z, 1))
        return y * gate.expand_as(y)


@case(operations=("mean",))
class MeanHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 8, 3), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.mean(F.silu(self.conv(x)), (2, 3)))


@case(operations=("add", "mul"))
class OwnNames(Pair):
    """Methods and attributes named like operations."""

    def __init__(self) -> None:
        super().__init__()
        self.mul = 0.5

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y

    def join(self, y: Tensor, z: Tensor) -> Tensor:
        return self.add(y, z * y) * self.mul


# ---- layers ------------------------------------------------------------------------------------------------------


@case(operations=("concat",))
class UNet(nn.Module):
    """Down, up by a transposed convolution, joined."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(8, 6, 3, stride=2, padding=1, output_padding=1)
        self.out = nn.Conv2d(12, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = F.silu(self.down1(x))
        b = F.silu(self.down2(a))
        return self.out(torch.cat([a, F.relu(self.up(b))], 1))


@case(inputs=lambda: (torch.randn(4, 3, 20),))
class Audio(nn.Module):
    """Grouped and dilated 1-D convolutions, forth and back."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(3, 8, 5, stride=2, padding=2), nn.Conv1d(8, 8, 3, padding=2, dilation=2, groups=4)
        self.pool, self.up = nn.MaxPool1d(2), nn.ConvTranspose1d(8, 4, 4, stride=4, groups=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.pool(F.leaky_relu(self.b(F.gelu(self.a(x))), 0.1)))


@case(inputs=lambda: (torch.rand(2, 2, 6, 6, 6),), integer=False)
class Volume(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv3d(2, 6, 3, padding=1), nn.ConvTranspose3d(6, 3, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.max_pool3d(F.silu(self.a(x)), 2))


@case(inputs=tokens)
class Recurrent(nn.Module):
    """LSTM, bidirectional GRU and RNN, one after the other; the last hidden state is the result."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(12, 10, num_layers=2, batch_first=True)
        self.gru = nn.GRU(10, 6, batch_first=True, bidirectional=True)
        self.rnn = nn.RNN(12, 8, nonlinearity="relu")
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x, _ = self.lstm(x)
        x, _ = self.gru(x)
        _, h = self.rnn(x.transpose(0, 1))
        return self.fc(h[-1])


@case(inputs=tokens)
class RecurrentFromZeros(nn.Module):
    """First states made in forward, as tutorials write them."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.fc = nn.LSTM(12, 10, batch_first=True), nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        h, c = torch.zeros(1, x.size(0), 10), torch.zeros(1, x.size(0), 10)
        x, _ = self.lstm(x, (h, c))
        return self.fc(x[:, -1])


@case(left=("conv2d",), integer=False)
class WeightNormed(nn.Module):
    """A parametrized weight is another one at every step of training."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 8, 3))
        self.out = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.relu(self.a(x)))


@case(inputs=tokens, left=("linear",), integer=False)
class TiedTransposed(nn.Module):
    """An autoencoder whose decoder is the encoder's weight, transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.bias = nn.Linear(12, 5), nn.Parameter(torch.zeros(12))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(torch.tanh(self.encode(x)), self.encode.weight.t(), self.bias)


@case(inputs=lambda: (torch.randint(0, 30, (4, 6)),), operations=("add",))
class TiedLanguageModel(nn.Module):
    """The head shares the embedding's weight; positions are a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mid = nn.Embedding(30, 12), nn.Linear(12, 12)
        self.position = nn.Parameter(torch.randn(6, 12) * 0.1)
        self.head = nn.Linear(12, 30, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, index: Tensor) -> Tensor:
        return self.head(F.gelu(self.mid(self.embed(index) + self.position)))


@case(inputs=lambda: (torch.randint(0, 30, (4, 6)),), operations=("add",), integer=False)
class TiedByFunction(nn.Module):
    """The embedding's weight used as a linear layer, and a bag of embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.bag = nn.Embedding(30, 12), nn.EmbeddingBag(30, 12)

    def forward(self, index: Tensor) -> Tensor:
        return F.linear(torch.tanh(self.embed(index) + self.bag(index).unsqueeze(1)), self.embed.weight)


@case()
class FunctionsWithParameters(nn.Module):
    """F.conv2d and F.linear on parameters of the module's own; a subclass of a torch layer."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel, self.bias = nn.Parameter(torch.randn(6, 3, 3, 3) * 0.2), nn.Parameter(torch.randn(6))
        self.halved = Halved(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.conv2d(x, self.kernel, self.bias, padding=1, stride=2))
        return self.halved(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Halved(nn.Linear):
    """Not what its base class computes."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias) * 0.5


@case(left=("linear",), integer=False)
class Standardised(nn.Module):
    """A weight computed at every call has no codes known beforehand."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 6, 3), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        w = self.fc.weight
        w = (w - w.mean()) / w.std()
        return F.linear(F.relu(self.conv(x)).amax((2, 3)), w, self.fc.bias)


@case(operations=("add", "add"))
class Shared(nn.Module):
    """One block called three times, one convolution under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block, self.out = nn.Conv2d(3, 6, 1), ResidualBlock(), nn.Conv2d(6, 6, 1)
        self.again = self.out

    def forward(self, x: Tensor) -> Tensor:
        x = self.block(self.block(self.stem(x)))
        return self.again(F.relu(self.out(x)))


class ResidualBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn(self.conv(x)), inplace=True)
        y += x
        return y


# ---- attention ---------------------------------------------------------------------------------------------------


@case(inputs=tokens, operations=("multiheadattention", "add", "add"), left=("layernorm", "layernorm"))
class Encoder(nn.Module):
    """torch's encoder, fast path and all."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(12, 3, 24, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.fc = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.encoder(x)[:, 0])


@case(inputs=lambda: tokens(2), operations=("multiheadattention",) * 2 + ("add",) * 3,
      left=("layernorm",) * 3)  # fmt: skip
class Decoder(nn.Module):
    """torch's decoder, norm first, with a causal mask; two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerDecoderLayer(12, 2, 24, dropout=0.0, batch_first=True, norm_first=True)
        self.register_buffer("mask", torch.full((6, 6), float("-inf")).triu(1))

    def forward(self, target: Tensor, memory: Tensor) -> Tensor:
        return self.layer(target, memory, tgt_mask=self.mask)


@case(inputs=tokens, operations=("matmul", "matmul"), left=("softmax",))
class HandWrittenAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(12, 36), nn.Linear(12, 12)

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, 2, 6).permute(2, 0, 3, 1, 4)
        scores = (q @ k.transpose(-2, -1)) * 6**-0.5
        return self.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, t, 12))


@case(inputs=lambda: tokens(3), operations=("attention",))
class WithDefaults(nn.Module):
    """An optional mask, a flag and a number keep their defaults."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(12, 12)

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False, scale: float = 0.3
    ) -> Tensor:
        if mask is not None:
            q = q * mask
        return self.proj(F.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scale))


# ---- inputs and outputs ------------------------------------------------------------------------------------------


@case(inputs=lambda: (torch.rand(4, 3, 8, 8), torch.randn(4, 5)), operations=("concat",))
class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.image, self.numbers, self.head = nn.Conv2d(3, 6, 3), nn.Linear(5, 6), nn.Linear(12, 4)

    def forward(self, image: Tensor, numbers: Tensor) -> Tensor:
        a = F.relu(self.image(image)).amax((2, 3))
        return self.head(torch.cat((a, F.relu(self.numbers(numbers))), dim=-1))


@case(operations=("add",))
class DictOutput(Pair):
    def forward(self, x: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        y = F.relu(self.a(x))
        return {"logits": self.out(y + self.b(y)), "features": self.b(y)}


@case(inputs=lambda: (torch.rand(4, 3, 8, 8), torch.rand(4, 3, 8, 8)), operations=("sub",))
class Siamese(nn.Module):
    """One trunk for two images."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Conv2d(6, 6, 3))
        self.head = nn.Linear(6, 2)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        d = self.trunk(left) - self.trunk(right)
        return self.head(d.abs().flatten(2).amax(2))


@case(refused="writes the buffer seen")
class CountsCalls(Pair):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        return super().forward(x)


@case(refused="writes the attribute last")
class KeepsState(Pair):
    def forward(self, x: Tensor) -> Tensor:
        self.last = self.a(x)
        return self.out(F.relu(self.last))


# ---- borders and pools -------------------------------------------------------------------------------------------


@case()
class Borders(nn.Module):
    """Every padding mode behind an activation with an offset."""

    def __init__(self) -> None:
        super().__init__()
        modes = ("reflect", "circular", "replicate", "zeros")
        self.convs = nn.ModuleList(nn.Conv2d(3, 3, 3, padding=1, padding_mode=mode) for mode in modes)

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = conv(F.silu(x))
        return x


@case(inputs=lambda: images(size=11))
class Pools(nn.Module):
    """Padded and adaptive pools, averages next to a convolution without activation."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))
        self.padded, self.inside = nn.AvgPool2d(3, 2, padding=1), nn.AvgPool2d(3, 1, padding=1, count_include_pad=False)
        self.unequal, self.largest = nn.AdaptiveAvgPool2d(4), nn.AdaptiveMaxPool2d(3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(self.padded(self.a(x)))
        x = self.c(F.silu(self.inside(x)))
        return self.a(self.largest(self.unequal(F.relu(x))))


@case()
class Upsampled(nn.Module):
    """Nearest neighbours, pixel shuffle, padding as a function."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.Conv2d(2, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(F.relu(self.a(x)), scale_factor=2)
        x = F.pixel_shuffle(F.relu(self.b(x)), 2)
        return self.c(F.pad(x, (1, 1, 2, 0)))
