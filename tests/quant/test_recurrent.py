"""Quantized recurrent layers: torch's own equations, one operator when exported, quantizers that matter."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import quant
from hwsim.integer import certify
from quant.recurrent import QRecurrent
from quant.whole_models import bypassed, export_names, quantizers

LAYERS = [
    (nn.LSTM, {}), (nn.LSTM, {"num_layers": 2, "bidirectional": True, "batch_first": True}), (nn.GRU, {"bias": False}),
    (nn.GRU, {"num_layers": 2, "bidirectional": True}), (nn.RNN, {}), (nn.RNN, {"nonlinearity": "relu"}),
    (nn.LSTM, {"proj_size": 2, "num_layers": 2, "bidirectional": True}),
]  # fmt: skip


class Wrapped(nn.Module):
    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)[0]


@pytest.mark.parametrize(("kind", "options"), LAYERS)
def test_without_rounding_they_compute_what_torch_computes(kind: type[nn.RNNBase], options: dict) -> None:
    torch.manual_seed(0)
    source = kind(5, 4, **options).double()
    model, plan = quant.quantize(Wrapped(source), weight_bits=8, act_bits=8)
    layer = model.layer
    assert isinstance(layer, QRecurrent)
    assert [entry.op for entry in plan.layers] == [kind.__name__.lower()]
    x = torch.randn(3, 6, 5, dtype=torch.float64)
    rows = (2 if options.get("bidirectional") else 1) * options.get("num_layers", 1)
    batch = 3 if options.get("batch_first") else 6
    hidden = torch.randn(rows, batch, options.get("proj_size", 4), dtype=torch.float64)
    start = (hidden, torch.randn(rows, batch, 4, dtype=torch.float64)) if kind is nn.LSTM else hidden
    with bypassed(layer):
        for inputs in ((x,), (x, start)):
            (out, last), (expected, expected_last) = layer(*inputs), source(*inputs)
            torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-12)
            torch.testing.assert_close(last, expected_last, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(layer(x[0])[0], source(x[0])[0], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("kind", "options"), [LAYERS[1], LAYERS[2], LAYERS[5]])
def test_an_exported_graph_shows_one_operator_with_marked_operands(kind: type[nn.RNNBase], options: dict) -> None:
    model, _ = quant.quantize(Wrapped(kind(5, 4, **options)), weight_bits=4, act_bits=4)
    x = torch.randn(3, 6, 5)
    quant.initialise(model, [x]).eval()
    with export_names(model), torch.no_grad():
        program = torch.export.export(model, (x,), strict=False)
        torch.testing.assert_close(program.module()(x), Wrapped.forward(model, x))
    targets = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert sum("lstm" in t or "gru" in t or "rnn_" in t for t in targets) == 1
    weights = sum(name.startswith("weight") for name, _ in model.layer.named_parameters(recurse=False))
    assert sum("quantizer" in t for t in targets) == 1 + weights


def test_every_quantizer_rounds_and_packed_sequences_are_refused() -> None:
    torch.manual_seed(0)
    model, _ = quant.quantize(Wrapped(nn.LSTM(5, 4, num_layers=2, proj_size=3)), weight_bits=5, act_bits=5)
    x = torch.randn(3, 6, 5)
    quant.initialise(model, [x]).eval()
    with bypassed(model):
        exact = model(x)
    for name, _ in quantizers(model):
        with bypassed(model, keep=lambda other, name=name: other == name):
            assert not torch.equal(model(x), exact)
    with pytest.raises(TypeError, match="pad sequences instead"):
        model(nn.utils.rnn.pack_sequence([x[0]]))


def test_a_first_state_of_the_wrong_kind_is_refused() -> None:
    """Code that asks `isinstance(layer, nn.LSTM)` gave h alone, and the cell state was 0 without a word."""
    x, state = torch.randn(2, 3, 4), torch.randn(1, 2, 4)
    for kind, wrong in ((nn.LSTM, state), (nn.GRU, (state, state)), (nn.RNN, (state, state))):
        model, _ = quant.quantize(nn.Sequential(kind(4, 4, batch_first=True)), weight_bits=8, act_bits=8)
        with pytest.raises(TypeError, match=r"as the first state, got .*ask for its `mode`"):
            model[0](x, wrong)


CELLS = [
    (nn.LSTMCell, {}), (nn.LSTMCell, {"bias": False}), (nn.GRUCell, {}), (nn.RNNCell, {}),
    (nn.RNNCell, {"nonlinearity": "relu"}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "options"), CELLS)
def test_cells_without_rounding_are_torchs(kind: type[nn.RNNCellBase], options: dict) -> None:
    torch.manual_seed(0)
    source = kind(5, 4, **options).double()
    made, plan = quant.quantize(nn.Sequential(source), weight_bits=8, act_bits=8)
    assert [entry.op for entry in plan.layers] == [kind.__name__.lower()]
    x, h, c = (torch.randn(3, n, dtype=torch.float64) for n in (5, 4, 4))
    start = (h, c) if kind is nn.LSTMCell else h
    with bypassed(made):
        for inputs in ((x,), (x, start), (x[0],)):
            torch.testing.assert_close(made[0](*inputs), source(*inputs), rtol=1e-10, atol=1e-12)


class Steps(nn.Module):
    """A cell called step by step; `torch.zeros(x.shape[0], 4)` as tutorials write it."""

    def __init__(self, kind: type[nn.RNNCellBase]) -> None:
        super().__init__()
        self.cell, self.head, self.is_lstm = kind(5, 4), nn.Linear(4, 2), kind is nn.LSTMCell

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = c = torch.zeros(x.shape[0], 4, dtype=x.dtype)
        for t in range(3):
            if self.is_lstm:
                h, c = self.cell(x[:, t], (h, c))
            else:
                h = self.cell(x[:, t], h)
        return self.head(h)


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_a_cell_called_step_by_step_is_one_quantized_module_and_runs_in_integers(kind: type[nn.RNNCellBase]) -> None:
    torch.manual_seed(0)
    model, x = Steps(kind).eval(), torch.randn(6, 3, 5)
    made, plan = quant.quantize(model, weight_bits=8, act_bits=8)
    quant.initialise(made, [x]).eval()
    assert [entry.name for entry in plan.layers] == ["cell", "head"]
    assert (made(x) - model(x)).norm() < 0.03 * model(x).norm()
    assert certify(made, x).equal
    again, _ = quant.quantize(model, weight_bits=8, act_bits=8)
    again.load_state_dict(made.state_dict())
    assert torch.equal(again.eval()(x), made(x))


def test_a_projected_lstm_runs_in_integers() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 5, 5)
    layer = nn.LSTM(5, 4, 2, proj_size=3, bidirectional=True, batch_first=True)
    made, _ = quant.quantize(Wrapped(layer), weight_bits=8, act_bits=8)
    assert certify(quant.initialise(made, [x]).eval(), x).equal
