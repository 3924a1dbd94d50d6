"""LSTM, GRU and RNN on quantized weights, inputs and hidden states; gates and cell state are computed in float.

Per layer and direction: a quantizer for each of the two weight matrices, one for the layer's input sequence, one for
the hidden state that the next step reads; with projected states (`proj_size`) one for what the projection reads. Cells
are layers of one step. Equations are those of nn.LSTM, nn.GRU and nn.RNN; parameters keep their
names.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quant.baselines import make_quantizer
from quant.grouping import Grouping
from quant.quantizer import BaseQuantizer
from quant.spec import QuantSpec

State = Tensor | tuple[Tensor, Tensor]


class QRecurrent(nn.Module):
    """A recurrent layer of torch on quantized operands; `mode` is nn.RNNBase's: LSTM, GRU, RNN_TANH, RNN_RELU."""

    is_quantized_layer = True

    def __init__(self, source: nn.RNNBase, weight: QuantSpec, inputs: QuantSpec, hidden: QuantSpec) -> None:
        """`inputs`: of the sequence that the first layer reads; `hidden`: of hidden states and later layers' inputs."""
        super().__init__()
        self.mode = source.mode
        self.input_size, self.hidden_size, self.num_layers = source.input_size, source.hidden_size, source.num_layers
        self.bias, self.batch_first, self.dropout = source.bias, source.batch_first, source.dropout
        self.bidirectional, self.proj_size = source.bidirectional, source.proj_size
        for name, parameter in source.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        self.suffixes = [
            f"l{layer}{end}" for layer in range(self.num_layers) for end in ("", "_reverse")[: 1 + self.bidirectional]
        ]
        self.weight_quantizers = nn.ModuleDict()
        for name, parameter in self.named_parameters(recurse=False):
            if name.startswith("weight"):
                self.weight_quantizers[name] = self._weight_quantizer(parameter, weight)
        self.input_quantizers = nn.ModuleList(
            make_quantizer(hidden if layer else inputs, axis=-1) for layer in range(self.num_layers)
        )
        self.hidden_quantizers = nn.ModuleDict({suffix: make_quantizer(hidden, axis=-1) for suffix in self.suffixes})
        projected = self.suffixes if self.proj_size else []
        self.projection_quantizers = nn.ModuleDict({suffix: make_quantizer(hidden, axis=-1) for suffix in projected})

    @staticmethod
    def _weight_quantizer(parameter: Tensor, spec: QuantSpec) -> BaseQuantizer:
        rows = parameter.shape[0] if spec.granularity == "channel" else 1
        if spec.group:
            rows = Grouping(1, spec.group).groups(parameter.shape)
        made = make_quantizer(spec, is_weight=True, rows=rows, axis=1 if spec.group else 0)
        if not parameter.is_meta:
            made.init_from(parameter)
        return made

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """(outputs, last state), shaped as nn.LSTM's: (time, batch, features), or (batch, time, features)."""
        if not isinstance(x, Tensor):
            raise TypeError(f"quantized {self.mode}: expected a tensor, got {type(x).__name__}: pad sequences instead")
        if x.ndim == 2:
            given = None if state is None else _each(state, lambda s: s.unsqueeze(1))
            out, last = self.forward(x.unsqueeze(0 if self.batch_first else 1), given)
            return out.squeeze(0 if self.batch_first else 1), _each(last, lambda s: s.squeeze(1))
        x = x if self.batch_first else x.transpose(0, 1)
        first = cast(BaseQuantizer, self.input_quantizers[0])
        run = self._as_one_operator if first.mode == "name" else self._run
        out, last = run(x, state)
        return (out if self.batch_first else out.transpose(0, 1)), last

    def _run(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        hidden, cell = self._start(x, state)
        lasts: list[tuple[Tensor, Tensor]] = []
        ends = 1 + self.bidirectional
        for layer in range(self.num_layers):
            made = cast(BaseQuantizer, self.input_quantizers[layer])
            x = made(x, x.shape[1] * x.shape[2])
            outputs = []
            for end in range(ends):
                i = layer * ends + end
                out, last = self._pass(x, self.suffixes[i], hidden[i], cell[i], backwards=end == 1)
                outputs.append(out)
                lasts.append(last)
            x = torch.cat(outputs, -1)
            if self.dropout and layer < self.num_layers - 1:
                x = F.dropout(x, self.dropout, self.training)
        last_hidden = torch.stack([h for h, _ in lasts])
        return x, (last_hidden, torch.stack([c for _, c in lasts])) if self.mode == "LSTM" else last_hidden

    def _start(self, x: Tensor, state: State | None) -> tuple[Tensor, Tensor]:
        """Hidden and cell states before the first step, (layers * directions, batch, hidden)."""
        zero = x.new_zeros(len(self.suffixes), x.shape[0], self.hidden_size)
        if state is None:
            return zero[..., : self.proj_size or self.hidden_size], zero
        if isinstance(state, (tuple, list)) != (self.mode == "LSTM"):
            wanted, given = ("(h, c)", "one tensor") if self.mode == "LSTM" else ("one tensor", "a tuple")
            raise TypeError(
                f"quantized {self.mode}: expected {wanted} as the first state, got {given}; a quantized layer is no "
                "instance of nn.LSTM, nn.GRU or nn.RNN: ask for its `mode` instead"
            )
        return state if isinstance(state, (tuple, list)) else (state, zero)  # type: ignore[return-value]

    def _pass(
        self, x: Tensor, suffix: str, hidden: Tensor, cell: Tensor, *, backwards: bool
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """One layer in one direction over x_hat: (batch, time, features)."""
        of_input, of_hidden = (self._weight(f"weight_{part}_{suffix}") for part in ("ih", "hh"))
        bias_in, bias_hidden = (getattr(self, f"bias_{part}_{suffix}", None) for part in ("ih", "hh"))
        from_input = F.linear(x, of_input, bias_in)
        made = self.hidden_quantizers[suffix]
        outputs: list[Tensor] = []
        steps = range(x.shape[1])
        for t in reversed(steps) if backwards else steps:
            from_hidden = F.linear(made(hidden), of_hidden, bias_hidden)
            hidden, cell = _cell(self.mode, from_input[:, t], from_hidden, hidden, cell)
            if self.proj_size:
                hidden = F.linear(self.projection_quantizers[suffix](hidden), self._weight(f"weight_hr_{suffix}"))
            outputs.append(hidden)
        return torch.stack(outputs[::-1] if backwards else outputs, 1), (hidden, cell)

    def _weight(self, name: str) -> Tensor:
        return self.weight_quantizers[name](getattr(self, name))

    def _as_one_operator(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Torch's own operator on marked operands, so that an exported graph shows the layer as one."""
        marked = cast(Tensor, self.input_quantizers[0](x))
        weights = [
            self._weight(name) if name.startswith("weight") else parameter
            for name, parameter in self.named_parameters(recurse=False)
        ]
        hidden, cell = self._start(x, state)
        start: Any = (hidden, cell) if self.mode == "LSTM" else hidden
        operator = {"LSTM": torch.lstm, "GRU": torch.gru, "RNN_TANH": torch.rnn_tanh, "RNN_RELU": torch.rnn_relu}
        out, *last = operator[self.mode](
            marked,
            start,
            weights,
            self.bias,
            self.num_layers,
            float(self.dropout),
            self.training,
            self.bidirectional,
            True,
        )
        return out, tuple(last) if self.mode == "LSTM" else last[0]


_LAYERS: dict[type[nn.Module], type[nn.RNNBase]] = {nn.LSTMCell: nn.LSTM, nn.GRUCell: nn.GRU, nn.RNNCell: nn.RNN}


def layer_of_cell(source: nn.RNNCellBase) -> nn.RNNBase:
    """The recurrent layer that is one step of nn.LSTMCell, nn.GRUCell or nn.RNNCell, on the same parameters."""
    named = {"nonlinearity": source.nonlinearity} if isinstance(source, nn.RNNCell) else {}
    kind = _LAYERS[type(source)]
    made = kind(source.input_size, source.hidden_size, bias=source.bias, batch_first=True, device="meta", **named)  # type: ignore[arg-type]
    for name, _ in list(made.named_parameters()):
        setattr(made, name, getattr(source, name.removesuffix("_l0")))
    return made


class QRecurrentCell(QRecurrent):
    """nn.LSTMCell, nn.GRUCell or nn.RNNCell on quantized operands: a layer of one step; all calls share quantizers."""

    def __init__(self, source: nn.RNNCellBase, weight: QuantSpec, inputs: QuantSpec, hidden: QuantSpec) -> None:
        super().__init__(layer_of_cell(source), weight, inputs, hidden)

    def forward(self, x: Tensor, state: State | None = None) -> Any:  # type: ignore[override]
        """The state after a step, (h, c) of an LSTM: (batch, features), or (features)."""
        if x.ndim == 1:
            given = None if state is None else _each(state, lambda s: s.unsqueeze(0))
            return _each(self.forward(x.unsqueeze(0), given), lambda s: s.squeeze(0))
        given = None if state is None else _each(state, lambda s: s.unsqueeze(0))
        _, last = super().forward(x.unsqueeze(1), given)
        return _each(last, lambda s: s[0])


def _cell(mode: str, x: Tensor, h: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """(hidden, cell) after one step; x and h are the two products with their biases."""
    if mode == "LSTM":
        i, f, g, o = (x + h).chunk(4, -1)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        return o.sigmoid() * cell.tanh(), cell
    if mode == "GRU":
        (xr, xz, xn), (hr, hz, hn) = x.chunk(3, -1), h.chunk(3, -1)
        z = (xz + hz).sigmoid()
        n = (xn + (xr + hr).sigmoid() * hn).tanh()
        return (1 - z) * n + z * hidden, cell
    return ((x + h).tanh() if mode == "RNN_TANH" else (x + h).relu()), cell


def _each(state: State, change: Any) -> State:
    return tuple(change(s) for s in state) if isinstance(state, (tuple, list)) else change(state)  # type: ignore[return-value]
