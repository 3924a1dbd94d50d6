"""LSTM, GRU and RNN of ONNX files, with stored codes or without, as recurrent layers of the graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hwsim.frontends.files.onnx_contributed import rounded_at_run_time, weight_codes
from hwsim.frontends.files.onnx_reader import OnnxReader
from hwsim.frontends.lowering.ir import Arg, Op, Quantization, Ref


def dynamic_lstm(read: OnnxReader, node: Any) -> None:
    """DynamicQuantizeLSTM: stored codes (directions, inputs, 4 * hidden); input and state quantized at run time."""
    directions, features, width = read.shape(node.input[1])
    hidden = read.shape(node.input[2])[1]
    params: list[Arg] = []
    coded = {position: weight_codes(read, node, position, *places) for position, places in ((1, (8, 9)), (2, (10, 11)))}
    for d in range(directions):
        for position, columns in ((1, features), (2, hidden)):
            part = read.fresh(f"{node.input[position]}.{d}", (width, columns))
            read.op("aten.select", part, self=Ref(coded[position]), dim=0, index=d)
            params.append(Ref(part))
        if read.has(node, 3):
            params += [direction_of(read, node, 3, d, (width,))] * 2
    state = f"{read.layer}.state"
    read.quantizers[state] = Quantization(state, 8, False, True, run_time=True)
    source = rounded_at_run_time(read, node.input[0])
    run_recurrent(read, node, params, hidden, directions, input=Ref(source), state_codes=state)


GATE_FUNCTIONS = {"sigmoid": "sigmoid", "tanh": "tanh", "relu": "relu", "hardsigmoid": "hsigmoid"}


def recurrent(read: OnnxReader, node: Any) -> None:
    """LSTM, GRU and RNN: W (directions, gates * hidden, inputs), R (directions, gates * hidden, hidden), B."""
    hidden = read.shape(node.input[2])[2]
    directions, width, features = read.shape(node.input[1])
    wanted = {"LSTM": 4, "GRU": 3, "RNN": 1}[node.op_type] * hidden
    shapes = (read.shape(node.input[1]), read.shape(node.input[2]))
    right = ((directions, wanted, features), (directions, wanted, hidden))
    if shapes != right:
        raise read.refuse(
            f"{node.op_type} has weights of {shapes[0]} and {shapes[1]}: expected {right[0]} and {right[1]}"
        )
    params: list[Arg] = []
    for d in range(directions):
        for position, columns in ((1, features), (2, hidden)):
            params.append(direction_of(read, node, position, d, (width, columns)))
        if read.has(node, 3):
            params += [direction_of(read, node, 3, d, (width,))] * 2
    run_recurrent(read, node, params, hidden, directions)


def direction_of(read: OnnxReader, node: Any, position: int, number: int, shape: tuple[int, ...]) -> Ref:
    """One direction's part of a parameter."""
    part = read.fresh(f"{node.input[position]}.{number}", shape)
    read.op("aten.select", part, self=read.ref(node, position), dim=0, index=number)
    return Ref(part)


def run_recurrent(read: OnnxReader, node: Any, params: list[Arg], hidden: int, directions: int, **more: Arg) -> None:
    """The layer with these weights for each direction, and its results under the standard's shapes."""
    options, kind = read.options(node), node.op_type.removeprefix("DynamicQuantize")
    if read.has(node, 4) and node.input[4] not in read.parameters:
        raise read.refuse(f"{kind} with lengths that depend on the input has no price")
    if options.get("clip") or options.get("input_forget"):
        raise read.refuse(f"{kind} with {'clip' if options.get('clip') else 'input_forget'} has no price")
    functions = gate_functions(read, kind, directions, options)
    x, first = read.shape(node.input[0]), bool(options.get("layout"))
    batch = x[0 if first else 1]
    flat = read.fresh(f"{read.layer}.sequence", (x[0], x[1], directions * hidden))
    state = read.fresh(f"{read.layer}.state", (directions, batch, hidden))
    outputs = (flat, state) if kind != "LSTM" else (flat, state, read.fresh(f"{read.layer}.cell", read.shape(state)))
    begin: Arg = (read.ref(node, 5), read.ref(node, 6)) if kind == "LSTM" else read.ref(node, 5)
    if kind == "LSTM" and read.has(node, 7):
        more["peepholes"] = tuple(direction_of(read, node, 7, d, (3 * hidden,)) for d in range(directions))
    arguments: dict[str, Arg] = {"input": read.ref(node, 0), "hx": begin, "params": tuple(params), **more}
    name = {"LSTM": "lstm", "GRU": "gru", "RNN": "rnn_tanh"}[kind]
    extra: dict[str, Arg] = {
        "has_biases": read.has(node, 3), "num_layers": 1, "bidirectional": directions == 2, "batch_first": first,
        "functions": functions, "reset_first": kind == "GRU" and not options.get("linear_before_reset"),
    }  # fmt: skip
    read.ops.append(Op(f"aten.{name}", {**arguments, **extra}, outputs, read.layer, read.layer))
    shapes = [(x[0], directions, x[1], hidden), *(read.shape(name) for name in outputs[1:])]
    for name, source, shape in zip(node.output, outputs, shapes, strict=False):
        if name:
            read.declare(name, shape)
            read.op("aten.view", name, self=Ref(source))


def gate_functions(read: OnnxReader, kind: str, directions: int, options: Mapping[str, Any]) -> tuple[str, ...]:
    """(of the gates, the candidate, the output) as layers; all directions have the same ones."""
    usual = {"LSTM": ("sigmoid", "tanh", "tanh"), "GRU": ("sigmoid", "tanh"), "RNN": ("tanh",)}[kind]
    given = [item.decode() if isinstance(item, bytes) else str(item) for item in options.get("activations", ())]
    words = [word.lower() for word in given] or list(usual) * directions
    each = len(usual)
    unknown = [word for word in words if word not in GATE_FUNCTIONS]
    if unknown or len(words) != each * directions or any(words[i] != words[i % each] for i in range(len(words))):
        raise read.refuse(
            f"{kind} with activations {', '.join(given)} has no price; known: {', '.join(GATE_FUNCTIONS)}"
        )
    found = [GATE_FUNCTIONS[word] for word in words[:each]]
    return (found[0], found[-1], "tanh") if each < 3 else tuple(found)
