# pyright: basic
"""LSTM, GRU and RNN step by step: gate products as integer GEMMs, everything behind them as forms of integers.

A plain RNN's state is a function of one sum of accumulators, so its codes are decided exactly. The cell state of LSTM
and the state of GRU have no quantizer: gates and states are words of 31 bits in fixed point (`Word`), products of two
words fit int64, and the proven error of both travels to the quantizer behind, which counts what lies within it.
Equations are those of nn.LSTM, nn.GRU and nn.RNN, as `quant.recurrent` has them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import fx

from hwsim.errors import UnsupportedOp
from hwsim.integer import graph
from hwsim.integer.arithmetic.forms import Form, plus, rationals
from hwsim.integer.arithmetic.steps import Clamp, Smooth
from hwsim.integer.lowering.moves import part, permuted, reshaped
from hwsim.integer.lowering.products import linear_form, product_form
from hwsim.integer.lowering.sums import merged
from hwsim.integer.lowering.values import Const, Moved, NotAffine, Value, value_shape
from hwsim.integer.lowering.walk import Lowering
from hwsim.integer.lowering.weights import Weight
from quant.recurrent import QRecurrent

WORD_BITS = 29  # magnitude of a gate or a state: sums of products of two stay below 2^60
MAX_STEPS = 1024  # every step is a dozen nodes
SIGMOID, TANH = Smooth("sigmoid"), Smooth("tanh")


@dataclass(frozen=True)
class Cell:
    """One layer in one direction: its weights, biases, and the quantizer of the state that the next step reads."""

    mode: str
    of_input: Weight
    of_state: Weight
    bias_in: Value | None
    bias_state: Value | None
    quantizer: str
    label: str
    projection: Weight | None = None
    projection_quantizer: str = ""

    @property
    def hidden(self) -> int:
        """Size of what the gates work on."""
        return int(self.of_state.codes.shape[0]) // {"LSTM": 4, "GRU": 3}.get(self.mode, 1)

    @property
    def made(self) -> int:
        """Size of the state that a step hands on."""
        return int(self.of_state.codes.shape[1])


def recurrent(
    low: Lowering, node: fx.Node, x: Value, state: Any, params: Sequence[Value], has_biases: bool, layers: int,
    dropout: float, train: bool, bidirectional: bool, batch_first: bool = True,
) -> Value:  # fmt: skip
    """(sequence, last hidden state[, last cell state]): a layer of torch's, unrolled over its steps."""
    owner = low.owners.get(low.layer)
    if not isinstance(owner, QRecurrent) or not batch_first:
        raise NotAffine("a recurrent layer without quantizers")
    try:
        return unrolled(low, owner, x, state, params, layers)
    except NotAffine as problem:
        raise UnsupportedOp(f"layer {low.layer}: {owner.mode} has no integer form here: {problem}") from problem


def unrolled(
    low: Lowering, owner: QRecurrent, x: Value, state: Any, params: Sequence[Value], layers: int
) -> tuple[Value, ...]:
    """All layers and directions of a recurrent layer, step by step."""
    layer, ends = low.layer, 2 if owner.bidirectional else 1
    hidden, cell = state if isinstance(state, (tuple, list)) else (state, None)
    cells = cells_of(low, owner, layer, params)
    lasts: list[tuple[Value, Value]] = []
    for number in range(layers):
        if number:
            x = low.quantizer(x, name_of(low, owner.input_quantizers[number]))
        made = []
        for end in range(ends):
            row = number * ends + end
            first, memory = row_of(low, hidden, row), None if cell is None else row_of(low, cell, row)
            outputs, last = run_steps(low, cells[row], x, first, memory, end == 1)
            made.append(outputs)
            lasts.append(last)
        x = made[0] if ends == 1 else joined(made, 2)
    low.layer = layer
    states = [stacked([last[i] for last in lasts]) for i in range(2 if owner.mode == "LSTM" else 1)]
    return (x, *states)


def cells_of(low: Lowering, owner: QRecurrent, layer: str, params: Sequence[Value]) -> list[Cell]:
    """The weights by layer and direction, in the order of the layer's own parameters."""
    known = dict(zip((name for name, _ in owner.named_parameters(recurse=False)), params, strict=True))
    cells = []
    for suffix in owner.suffixes:
        of_input, of_state = known[f"weight_ih_{suffix}"], known[f"weight_hh_{suffix}"]
        if not isinstance(of_input, Weight) or not isinstance(of_state, Weight):
            raise UnsupportedOp(f"layer {layer}: its weights have no quantizer; quantize the layer")
        cells.append(Cell(
            owner.mode, of_input, of_state, known.get(f"bias_ih_{suffix}"), known.get(f"bias_hh_{suffix}"),
            name_of(low, owner.hidden_quantizers[suffix]), f"{layer}.{suffix}",
            *projection_of(low, owner, suffix, known),
        ))  # fmt: skip
    return cells


def projection_of(low: Lowering, owner: QRecurrent, suffix: str, known: dict[str, Value]) -> tuple[Any, ...]:
    """The weight of a projected state, and the quantizer of what it reads; nothing without one."""
    if not owner.proj_size:
        return ()
    return known[f"weight_hr_{suffix}"], name_of(low, owner.projection_quantizers[suffix])


def name_of(low: Lowering, quantizer: object) -> str:
    """Qualified name of a quantizer."""
    return next(name for name, made in low.found.items() if made is quantizer)


def row_of(low: Lowering, state: Value, row: int) -> Value:
    """The state before the first step of one layer in one direction: (1, hidden)."""
    plain = unmoved(state)
    if value_shape(plain) == value_shape(state)[1:]:
        return plain  # one row: the axis in front of the samples is no sample itself
    found = part(low, state, 0, row, row + 1)
    return reshaped(found, value_shape(found)[1:])


def unmoved(value: Value) -> Value:
    """A value without the reshapes, whole slices and exchanges of axes of length 1 that were put on it."""
    while isinstance(value, Moved) and value.kind in ("reshape", "slice", "permute"):
        source = value.sources[0]
        before = value_shape(source)
        kept = [n for n in before if n > 1] == [n for n in value.shape if n > 1]
        if (value.kind == "permute" and not kept) or math.prod(before) != math.prod(value.shape):
            break
        value = source
    return value


def run_steps(
    low: Lowering, cell: Cell, x: Value, hidden: Value, memory: Value | None, backwards: bool
) -> tuple[Value, tuple[Value, Value]]:
    """(1, steps, hidden) of one layer in one direction, and its last states."""
    steps = value_shape(x)[1]
    if steps > MAX_STEPS:
        raise UnsupportedOp(
            f"layer {cell.label}: {steps} steps; up to {MAX_STEPS} are written out: give a shorter sequence"
        )
    low.layer = f"{cell.label}.input"
    ahead = linear_form(low, x, cell.of_input, cell.bias_in)
    outputs: list[Value] = [hidden] * steps
    for t in reversed(range(steps)) if backwards else range(steps):
        low.layer = f"{cell.label}.t{t}.state"
        codes = low.quantizer(hidden, cell.quantizer)
        product = linear_form(low, codes, cell.of_state, cell.bias_state)
        mine = low.as_form(reshaped(part(low, ahead, 1, t, t + 1), (1, ahead.shape[-1])))
        low.layer = f"{cell.label}.t{t}"
        hidden, memory = STEPS[cell.mode](low, cell.hidden, mine, product, hidden, memory)
        if cell.projection is not None:
            low.layer = f"{cell.label}.t{t}.projection"
            hidden = linear_form(low, low.quantizer(hidden, cell.projection_quantizer), cell.projection, None)
        outputs[t] = hidden
    each = [reshaped(output, (1, 1, cell.made)) for output in outputs]
    return joined(each, 1), (hidden, memory if memory is not None else hidden)


def joined(values: Sequence[Value], axis: int) -> Value:
    """Values side by side along an axis."""
    shape = list(value_shape(values[0]))
    shape[axis] = sum(value_shape(value)[axis] for value in values)
    return values[0] if len(values) == 1 else Moved("concat", tuple(values), (axis,), tuple(shape))


def stacked(states: Sequence[Value]) -> Value:
    """(layers * directions, batch, hidden) of states (batch, hidden): joined behind the batch axis, then permuted."""
    rows = joined([reshaped(state, (1, 1, value_shape(state)[1])) for state in states], 1)
    return permuted(rows, (1, 0, 2))


# ---- one step --------------------------------------------------------------------------------------------------------

Step = Callable[[Lowering, int, Form, Form, Any, Any], tuple[Value, Value | None]]


def rnn_step(function: Any) -> Step:
    """h' = f(W x + U h + b): one sum of two accumulators, whose codes behind a quantizer are decided exactly."""

    def step(low: Lowering, size: int, ahead: Form, product: Form, hidden: Any, _: Any) -> tuple[Value, None]:
        return total(ahead, product).then(function), None

    return step


def lstm_step(
    low: Lowering, size: int, ahead: Form, product: Form, _: Any, memory: Any
) -> tuple[Value, Value | None]:  # fmt: skip
    """c' = sigmoid(f) c + sigmoid(i) tanh(g), h' = sigmoid(o) tanh(c')."""
    both = total(ahead, product)
    i, f, g, o = (columns(low, both, k, size) for k in range(4))
    new = word(low, product_form((1, size), word(low, i.then(SIGMOID)), word(low, g.then(TANH))), 1)
    kept = None if is_zero(memory) else remembered(low, f, memory)
    memory = new if kept is None else word(low, total(kept, new))
    made = product_form((1, size), word(low, o.then(SIGMOID)), word(low, memory.then(TANH)))
    return word(low, made, 1), memory


def remembered(low: Lowering, f: Form, memory: Any) -> Form:
    """sigmoid(f) times the cell state, which may be known beforehand."""
    gate = word(low, f.then(SIGMOID))
    if isinstance(memory, Const):
        return gate.affine(rationals(memory.values), (Fraction(0),))
    return product_form(gate.shape, gate, state_word(low, memory))


def plus_known(form: Form, values: Const) -> Form:
    """The sum of a form and numbers known beforehand, channel by channel."""
    return form.affine((Fraction(1),), rationals(values.values))


def gru_step(
    low: Lowering, size: int, ahead: Form, product: Form, hidden: Any, _: Any
) -> tuple[Value, Value | None]:  # fmt: skip
    """h' = n + z (h - n), z = sigmoid(xz + hz), n = tanh(xn + sigmoid(xr + hr) hn)."""
    shape = (1, size)
    (xr, xz, xn), (hr, hz, hn) = ([columns(low, form, k, size) for k in range(3)] for form in (ahead, product))
    reset = product_form(shape, word(low, total(xr, hr).then(SIGMOID)), word(low, hn))
    fresh = word(low, total(word(low, xn), reset).then(TANH))
    gate = word(low, total(xz, hz).then(SIGMOID))
    change, limit = fresh.affine((Fraction(-1),), (Fraction(0),)), 1
    if isinstance(hidden, Const):
        change = plus_known(change, hidden)
        limit = max(1, math.ceil(float(hidden.values.abs().max())))
    else:
        before = state_word(low, hidden)
        change, limit = total(change, before), max(1, limit_of(low, before))
    step = product_form(shape, gate, word(low, change))
    return word(low, total(fresh, step), limit), None  # between n and h


STEPS: dict[str, Step] = {
    "LSTM": lstm_step, "GRU": gru_step, "RNN_TANH": rnn_step(TANH), "RNN_RELU": rnn_step(Clamp(Fraction(0))),
}  # fmt: skip


def limit_of(low: Lowering, known: Form) -> int:
    """A bound, as a whole number, of the real number behind a word: its range without the error beside it."""
    node = low.nodes[known.sources[0]]
    return math.ceil((node.range.reach - node.range.error) * known.terms[0].slopes[0])


def state_word(low: Lowering, state: Any) -> Form:
    """A state as a word; NotAffine with a way out where it is real numbers that nothing quantized."""
    try:
        return word(low, low.as_form(state))
    except NotAffine as problem:
        raise NotAffine(
            "its first state is an input of the network or comes from a float operator; start from zeros or a "
            "parameter, or let a quantized layer make the state"
        ) from problem


def word(low: Lowering, form: Form, limit: int | None = None) -> Form:
    """A form as one integer tensor of at most WORD_BITS bits beside its sign; `limit`: of its magnitude, if known."""
    plain = len(form.sources) == len(form.terms) == 1 and not form.functions
    known = plain and form.intercepts == (0,) and isinstance(low.nodes[form.sources[0]], graph.Evaluate)
    return form if known else low.in_fixed_point(form, WORD_BITS, limit)


def total(a: Form, b: Form) -> Form:
    """The sum of two forms without functions, channels along the last axis."""
    return Form(merged((*a.terms, *b.terms)), plus(a.intercepts, b.intercepts), a.shape, 1)


def columns(low: Lowering, form: Form, number: int, size: int) -> Form:
    """The sum of one gate: a slice of the channels."""
    return low.as_form(part(low, form, 1, number * size, (number + 1) * size))


def is_zero(state: Any) -> bool:
    """Whether a state is known to be 0 everywhere, or absent."""
    return state is None or (isinstance(state, Const) and not torch.any(state.values != 0))
