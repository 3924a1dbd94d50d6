"""Recurrent layers and embeddings in the integer machine: every code that of float64, the gates' error proven."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import quant
from hwsim.integer import graph
from hwsim.integer.lowering.lower import lower
from hwsim.integer.proof.certificate import Certificate, certify
from hwsim.integer.run import Machine, Mode
from tests.integer.nets import enliven


class Wrapped(nn.Module):
    """A recurrent layer between two linear ones; the head reads what `read` takes of its answer."""

    def __init__(self, layer: nn.RNNBase, read: str = "sequence", width: int = 5) -> None:
        super().__init__()
        self.layer, self.read = layer, read
        ends = 2 if layer.bidirectional else 1
        rows = ends * layer.num_layers
        sizes = {"sequence": ends, "last": ends, "mean": ends, "hidden": 1, "ends": rows, "cell": 1}
        self.before = nn.Linear(width, layer.input_size)
        self.head = nn.Linear(layer.hidden_size * sizes[read], 3)

    def forward(self, x: Tensor) -> Tensor:
        out, state = self.layer(torch.relu(self.before(x)))
        hidden, cell = state if isinstance(state, tuple) else (state, state)
        taken = {
            "sequence": lambda: out, "last": lambda: out[:, -1], "mean": lambda: out.mean(1),
            "hidden": lambda: hidden[-1], "ends": lambda: hidden.transpose(0, 1).flatten(1), "cell": lambda: cell[0],
        }  # fmt: skip
        return self.head(taken[self.read]())


def certified(model: nn.Module, x: Tensor, bits: int, **choices: object) -> tuple[nn.Module, Certificate]:
    torch.manual_seed(1)
    quantized, _ = quant.quantize(model, weight_bits=bits, act_bits=bits, **choices)  # type: ignore[arg-type]
    quant.initialise(quantized, [x])
    return quantized, certify(quantized, x)


CASES = [
    (nn.RNN, {}, "sequence", 8), (nn.RNN, {"nonlinearity": "relu", "num_layers": 2}, "last", 4),
    (nn.RNN, {"bidirectional": True, "bias": False}, "ends", 4), (nn.LSTM, {}, "sequence", 8),
    (nn.LSTM, {"num_layers": 2, "bidirectional": True}, "ends", 4), (nn.LSTM, {}, "cell", 8),
    (nn.LSTM, {"bias": False}, "mean", 8), (nn.GRU, {}, "last", 8), (nn.GRU, {"bidirectional": True}, "hidden", 4),
    (nn.GRU, {"num_layers": 2, "bias": False}, "mean", 8),
]  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize(("kind", "options", "read", "bits"), CASES)
@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_codes_of_every_step_are_float64s(
    kind: type[nn.RNNBase], options: dict, read: str, bits: int, granularity: str
) -> None:
    torch.manual_seed(0)
    x = torch.randn(6, 7, 5)
    layer = kind(5, 4, batch_first=True, **options)
    model, found = certified(enliven(Wrapped(layer, read)), x, bits, weight_granularity=granularity)
    assert found.equal
    assert not found.float_operators
    elements = sum(row.codes.elements for row in found.layers)
    assert found.tally.get("undecided", 0) <= (0 if kind is nn.RNN and read != "mean" else elements / 200)
    lowered = lower(model, x)
    hidden = [name for name in lowered.quantizers if "hidden_quantizers" in name]
    directions = layer.num_layers * (2 if layer.bidirectional else 1)
    assert len(hidden) == 7 * (1 if read == "hidden" else directions)
    ours = Machine(lowered).run(x).values
    torch.testing.assert_close(ours, model.double().eval()(x.double()), rtol=1e-6, atol=1e-6)


def test_a_state_given_as_a_parameter_starts_the_steps() -> None:
    """Numbers known beforehand, other than 0, in the hidden state, the cell state and GRU's element products."""

    class Started(nn.Module):
        def __init__(self, kind: type[nn.RNNBase]) -> None:
            super().__init__()
            self.layer, self.head = kind(5, 4, batch_first=True), nn.Linear(4, 2)
            self.first = nn.Parameter(torch.randn(2, 1, 1, 4) * 1.5)

        def forward(self, x: Tensor) -> Tensor:
            hidden, cell = self.first[0].expand(1, x.shape[0], 4), self.first[1].expand(1, x.shape[0], 4)
            start = (hidden, cell) if self.layer.mode == "LSTM" else hidden
            return self.head(self.layer(x, start)[0])

    for kind in (nn.LSTM, nn.GRU, nn.RNN):
        torch.manual_seed(0)
        x = torch.randn(5, 3, 5)
        _, found = certified(Started(kind), x, 8)
        assert found.equal
        assert not found.float_operators


@pytest.mark.long
def test_long_sequences_stay_within_a_proven_error() -> None:
    """A hundred steps: the error of the cell state grows with the steps, the codes stay those of float64."""
    for kind in (nn.LSTM, nn.GRU):
        torch.manual_seed(0)
        x = torch.randn(2, 100, 5)
        _, found = certified(Wrapped(kind(5, 4, batch_first=True), "last"), x, 8)
        assert found.equal


@pytest.mark.parametrize("bits", [4, 8])
def test_embeddings_are_tables_of_codes(bits: int) -> None:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.mix = nn.Embedding(30, 12, padding_idx=0), nn.Linear(12, 12)
            self.layer, self.head = nn.GRU(12, 6, batch_first=True), nn.Linear(6, 3)

        def forward(self, index: Tensor) -> Tensor:
            return self.head(self.layer(self.mix(self.embed(index)).relu())[0][:, -1])

    torch.manual_seed(0)
    index = torch.randint(0, 30, (6, 5))
    model, found = certified(Words(), index, bits, first_last="same")
    assert found.equal
    assert not found.float_operators
    lowered = lower(model, index)
    table = next(node for node in lowered.nodes if isinstance(node, graph.LookUp))
    expected = model.embed.weight_quantizer.codes(model.embed.weight).round().to(torch.int64)
    assert torch.equal(table.table, expected)
    ours = Machine(lowered).run(index).values
    torch.testing.assert_close(ours, model.double().eval()(index), rtol=1e-6, atol=1e-6)


def test_rows_known_beforehand_and_repeated_values_keep_their_sizes() -> None:
    """A table of positions read at fixed places is numbers; `repeat` counts copies, not the sizes of a batch."""

    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.position = nn.Embedding(20, 6), nn.Embedding(9, 6)
            self.mix, self.head = nn.Linear(6, 3), nn.Linear(6, 2)

        def forward(self, index: Tensor) -> Tensor:
            x = self.embed(index[:, 1:]) + self.position(torch.arange(4))
            return self.head(self.mix(x).repeat(1, 1, 2))

    torch.manual_seed(0)
    index = torch.randint(0, 20, (3, 5))
    model, found = certified(Positions(), index, 8)
    assert found.equal
    ours = Machine(lower(model, index)).run(index).values
    torch.testing.assert_close(ours, model.double().eval()(index), rtol=1e-6, atol=1e-6)


def test_fixed_point_machines_run_recurrent_layers_too() -> None:
    """Requantization by 32-bit multipliers and tables of 2^12 codes stays within a code or two of exact."""
    torch.manual_seed(0)
    x = torch.randn(4, 6, 5)
    model, _ = certified(Wrapped(nn.LSTM(5, 4, batch_first=True)), x, 8)
    lowered = lower(model, x)
    exact, fixed = (Machine(lowered, mode).run(x).values for mode in (Mode(), Mode(requantization="fixed")))
    assert float((exact - fixed).norm() / exact.norm()) < 0.02
