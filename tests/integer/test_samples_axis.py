"""An axis in front of the samples: a state made by `x[None]`, values stacked along axis 0. Every code is float64's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import quant
from hwsim.errors import UnsupportedOp
from hwsim.integer.graph import left_to_samples
from hwsim.integer.lowering.lower import lower
from hwsim.integer.proof.certificate import certify
from hwsim.integer.run import Machine


class Moved(nn.Module):
    """A linear layer, an axis put in front of its rows, and a head."""

    def __init__(self, between: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.one, self.other, self.head = nn.Linear(5, 4), nn.Linear(5, 4), nn.Linear(4, 3)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.between(self.one(x).relu(), self.other(x)))


class Started(nn.Module):
    """A recurrent layer whose first state comes from a linear layer, or from outside."""

    def __init__(self, kind: type[nn.RNNBase], given: bool = False) -> None:
        super().__init__()
        self.first, self.layer, self.head = nn.Linear(5, 4), kind(5, 4, batch_first=True), nn.Linear(4, 2)
        self.given = given

    def forward(self, x: Tensor, state: Tensor) -> Tensor:
        state = (state if self.given else self.first(state)).unsqueeze(0)
        start = (state, state * 0.5) if self.layer.mode == "LSTM" else state
        return self.head(self.layer(x, start)[0])


def certified(model: nn.Module, *inputs: Tensor) -> None:
    quantized, _ = quant.quantize(model, weight_bits=8, act_bits=8)
    quant.initialise(quantized, [inputs])
    assert certify(quantized, inputs).equal
    ours = Machine(lower(quantized, inputs)).run(inputs).values
    theirs = quantized.double().eval()(*(x.double() for x in inputs))
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "between",
    [
        lambda a, b: torch.stack([a, b]).mean(0),
        lambda a, b: torch.stack([a, b, a])[1],
        lambda a, b: torch.stack([a[:, None], b[:, None]])[0, :, 0],
        lambda a, b: a[None][0] + b,
        lambda a, b: torch.stack([a, b], 1).flatten(0, 1).relu().unflatten(0, (-1, 2)).mean(1),
        lambda a, b: a[None, None].transpose(1, 2)[0, :, 0] + b,
    ],
)
def test_axes_in_front_of_the_samples_mix_none(between: Callable[[Tensor, Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    certified(Moved(between), torch.randn(6, 5))


@pytest.mark.long
@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_a_state_that_a_layer_makes_starts_each_sample_by_its_own(kind: type[nn.RNNBase]) -> None:
    torch.manual_seed(0)
    certified(Started(kind), torch.randn(4, 3, 5), torch.randn(4, 5))


def test_a_state_from_outside_is_exact_or_refused_with_a_way_out() -> None:
    torch.manual_seed(0)
    inputs = torch.randn(4, 3, 5), torch.randn(4, 4)
    certified(Started(nn.RNN, given=True), *inputs)
    for kind in (nn.LSTM, nn.GRU):
        quantized, _ = quant.quantize(Started(kind, given=True), weight_bits=8, act_bits=8)
        quant.initialise(quantized, [inputs])
        with pytest.raises(UnsupportedOp, match=r"layer .*: its first state is an input .*a quantized layer make"):
            lower(quantized, inputs) and certify(quantized, inputs)


def test_the_samples_keep_their_place_in_a_reshape() -> None:
    assert left_to_samples((1, 6, 5), 0, (1, 1, 30)) == 0
    assert left_to_samples((3, 1, 5), 1, (1, 3, 1, 5)) == 2
    assert left_to_samples((1, 1, 5), 1, (1, 5)) == 0
