"""Quantized recurrent layers: torch's own equations, one operator when exported, quantizers that matter."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import quant
from quant.recurrent import QRecurrent
from quant.whole_models import bypassed, export_names, quantizers

LAYERS = [
    (nn.LSTM, {}), (nn.LSTM, {"num_layers": 2, "bidirectional": True, "batch_first": True}), (nn.GRU, {"bias": False}),
    (nn.GRU, {"num_layers": 2, "bidirectional": True}), (nn.RNN, {}), (nn.RNN, {"nonlinearity": "relu"}),
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
    hidden = torch.randn(rows, batch, 4, dtype=torch.float64)
    start = (hidden, hidden.flip(0)) if kind is nn.LSTM else hidden
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


def test_every_quantizer_rounds_and_projections_and_packed_sequences_are_refused() -> None:
    torch.manual_seed(0)
    model, _ = quant.quantize(Wrapped(nn.LSTM(5, 4, num_layers=2)), weight_bits=5, act_bits=5)
    x = torch.randn(3, 6, 5)
    quant.initialise(model, [x]).eval()
    with bypassed(model):
        exact = model(x)
    for name, _ in quantizers(model):
        with bypassed(model, keep=lambda other, name=name: other == name):
            assert not torch.equal(model(x), exact)
    with pytest.raises(TypeError, match="pad sequences instead"):
        model(nn.utils.rnn.pack_sequence([x[0]]))
    _, plan = quant.quantize(Wrapped(nn.LSTM(5, 4, proj_size=2)), weight_bits=8, act_bits=8)
    assert [(left.op, left.why) for left in plan.left] == [
        ("lstm", "projected hidden states (proj_size) have no quantized counterpart")
    ]


def test_a_first_state_of_the_wrong_kind_is_refused() -> None:
    """Code that asks `isinstance(layer, nn.LSTM)` gave h alone, and the cell state was 0 without a word."""
    x, state = torch.randn(2, 3, 4), torch.randn(1, 2, 4)
    for kind, wrong in ((nn.LSTM, state), (nn.GRU, (state, state)), (nn.RNN, (state, state))):
        model, _ = quant.quantize(nn.Sequential(kind(4, 4, batch_first=True)), weight_bits=8, act_bits=8)
        with pytest.raises(TypeError, match=r"as the first state, got .*ask for its `mode`"):
            model[0](x, wrong)
