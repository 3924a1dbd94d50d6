"""Random small networks: residuals, concatenations, operations in place, shared modules, several inputs, recurrence.

`networks()` is a hypothesis strategy of programs; a program is a list of steps that a `Program` module runs. Every
value is a map (N, 4, 6, 6); a step reads earlier values and adds one, or overwrites one in place. Recurrent layers
step along the rows of a map. The last input may hold indices of an embedding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

CHANNELS, SIZE = 4, 6
UNARY = ("conv", "shared", "depthwise", "transposed", "relu", "relu_", "silu", "leaky", "pool", "average", "reflect",
         "linear", "half_", "rnn", "lstm", "gru", "both_ways", "shared_gru")  # fmt: skip
BINARY = ("add", "add_", "iadd", "sub", "sub_", "mul", "mul_", "maximum", "minimum", "concat", "stack", "gate", "into_",
          "started_rnn", "started_lstm", "started_gru")  # fmt: skip
RECURRENT = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
WORDS = 9


@dataclass(frozen=True)
class Step:
    """One operation on the values number `a` (and `b`), counted from the newest."""

    kind: str
    a: int
    b: int


@dataclass(frozen=True)
class Plan:
    """The steps, the number of inputs, whether the result is a dictionary, and whether the last input is indices."""

    steps: tuple[Step, ...]
    inputs: int
    named: bool
    seed: int
    words: bool = False


def networks() -> st.SearchStrategy[Plan]:
    """Programs of 3 to 8 steps on one to three inputs."""
    step = st.builds(Step, st.sampled_from(UNARY + BINARY), st.integers(0, 2), st.integers(0, 3))
    steps = st.lists(step, min_size=3, max_size=8).map(tuple)
    return st.builds(Plan, steps, st.integers(1, 3), st.booleans(), st.integers(0, 99), st.booleans())


class Program(nn.Module):
    """The network of a plan."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        torch.manual_seed(plan.seed)
        self.plan = plan
        self.stems = nn.ModuleList(self.conv() for _ in range(plan.inputs - plan.words))
        self.words = nn.Embedding(WORDS, CHANNELS) if plan.words else None
        self.shared = nn.Sequential(self.conv(), nn.BatchNorm2d(CHANNELS), nn.ReLU(inplace=True))
        self.shared_gru = nn.GRU(CHANNELS, CHANNELS, batch_first=True)
        self.layers = nn.ModuleList(self.layer(step.kind) for step in plan.steps)
        self.head = nn.Conv2d(CHANNELS, 3, 1)

    @staticmethod
    def conv(mode: str = "zeros", groups: int = 1) -> nn.Conv2d:
        return nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, padding_mode=mode, groups=groups)

    def layer(self, kind: str) -> nn.Module:
        if kind == "transposed":
            return nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 2, 2), nn.ConvTranspose2d(CHANNELS, CHANNELS, 2, 2))
        if kind == "concat":
            return nn.Conv2d(2 * CHANNELS, CHANNELS, 1)
        if kind in ("conv", "reflect", "depthwise"):
            return self.conv("reflect" if kind == "reflect" else "zeros", CHANNELS if kind == "depthwise" else 1)
        if kind == "linear":
            return nn.Linear(CHANNELS, CHANNELS)
        if kind == "both_ways":
            return nn.LSTM(CHANNELS, CHANNELS // 2, batch_first=True, bidirectional=True)
        if kind.removeprefix("started_") in RECURRENT:
            return RECURRENT[kind.removeprefix("started_")](CHANNELS, CHANNELS, batch_first=True)
        return nn.Identity()

    def forward(self, *inputs: Tensor) -> Tensor | dict[str, Tensor]:
        values = [F.relu(stem(x)) for stem, x in zip(self.stems, inputs, strict=False)]
        if self.words is not None:
            values.append(self.words(inputs[-1]).permute(0, 3, 1, 2))
        for step, layer in zip(self.plan.steps, self.layers, strict=True):
            a, b = values[-1 - step.a % len(values)], values[-1 - step.b % len(values)]
            values.append(self.run(step.kind, layer, a, b))
        result = self.head(values[-1])
        return {"features": values[-1], "logits": result} if self.plan.named else result

    def run(self, kind: str, layer: nn.Module, a: Tensor, b: Tensor) -> Tensor:
        if kind == "shared":
            return self.shared(a)
        if kind == "pool":
            return F.max_pool2d(a, 3, 1, 1)
        if kind == "average":
            return F.avg_pool2d(a, 3, 1, 1)
        if kind == "concat":
            return layer(torch.cat([a, b], 1))
        if kind == "gate":
            return a * torch.sigmoid(b.mean((2, 3), keepdim=True))
        if kind == "linear":
            return layer(a.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        if kind == "stack":
            return torch.stack([a, b]).mean(0)
        if kind == "half_":
            a[:, :2].relu_()
            return a
        if kind == "into_":
            a[:, :2] = b[:, 2:]
            return a
        if kind in RECURRENT or kind in ("both_ways", "shared_gru"):
            return self.along_rows(self.shared_gru if kind == "shared_gru" else layer, a)
        if kind.startswith("started_"):
            return self.along_rows(layer, a, b.mean((2, 3))[None])
        if kind == "iadd":
            a += b
            return a
        functions = {
            "relu": F.relu, "relu_": torch.relu_, "silu": F.silu, "leaky": lambda x: F.leaky_relu(x, 0.1),
            "add": torch.add, "add_": lambda x, y: x.add_(y), "sub": torch.sub, "sub_": lambda x, y: x.sub_(y),
            "mul": torch.mul, "mul_": lambda x, y: x.mul_(y), "maximum": torch.maximum, "minimum": torch.minimum,
        }  # fmt: skip
        if kind in functions:
            return functions[kind](a, b) if kind in BINARY else functions[kind](a)
        return layer(a)

    @staticmethod
    def along_rows(layer: nn.Module, a: Tensor, state: Tensor | None = None) -> Tensor:
        """A map plus what a recurrent layer makes of the mean of its columns; `state` starts h (and c) of the layer."""
        rows = a.mean(3).transpose(1, 2)
        start = (state, state * 0.5) if layer.mode == "LSTM" and state is not None else state
        return a + layer(rows, start)[0].transpose(1, 2)[..., None]


class OneInput(Program):
    """A program of one input, with a signature that says so."""

    def forward(self, x: Tensor) -> Tensor | dict[str, Tensor]:  # type: ignore[override]
        return super().forward(x)


class TwoInputs(Program):
    """A program of two inputs."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor | dict[str, Tensor]:  # type: ignore[override]
        return super().forward(x, y)


class ThreeInputs(Program):
    """A program of three inputs."""

    def forward(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor | dict[str, Tensor]:  # type: ignore[override]
        return super().forward(x, y, z)


def network(plan: Plan) -> tuple[Program, tuple[Tensor, ...]]:
    """The network in eval mode, and inputs for it."""
    model = (OneInput, TwoInputs, ThreeInputs)[plan.inputs - 1](plan).eval()
    inputs = [torch.randn(4, CHANNELS, SIZE, SIZE) for _ in range(plan.inputs)]
    if plan.words:
        inputs[-1] = torch.randint(0, WORDS, (4, SIZE, SIZE))
    return model, tuple(inputs)
