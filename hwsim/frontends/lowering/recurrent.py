"""LSTM, GRU and plain recurrent layers, step by step: the product with the input for all steps at once, then for each
step a matrix times the state before it, and the gates.

The weights of all steps are one tensor. The first step multiplies the initial state like any other.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from hwsim.frontends.lowering.ir import Arg, Op
from hwsim.frontends.lowering.lower import Handler, Lowering, Unhandled
from hwsim.frontends.lowering.values import Act, Const, Part, Record, Single
from hwsim.network.layer import Loops

MAX_STEPS = 1024  # every step is a dozen layers
GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


@dataclass(frozen=True)
class Cell:
    """Weights of one layer in one direction: (gates*hidden, inputs), (gates*hidden, hidden), (projected, hidden)."""

    kind: str
    of_input: Const
    of_state: Const
    bias: bool
    projection: Const | None = None

    @property
    def hidden(self) -> int:
        """Size of the state that the gates work on."""
        return self.of_state.shape[0] // GATES[self.kind]

    @property
    def made(self) -> int:
        """Size of what a step hands on."""
        return self.projection.shape[0] if self.projection is not None else self.of_state.shape[1]


def recurrent(kind: str) -> Handler:
    """Handler of aten.lstm, gru, rnn_tanh, rnn_relu: layers on layers, in one or two directions."""

    def handle(walk: Lowering, op: Op) -> None:
        x = walk.act(op, "input")
        if "batch_sizes" in op.args or not isinstance(op.get("params"), tuple):
            raise Unhandled("packed sequences")
        layers, both = op.get("num_layers", 1), op.get("bidirectional") is True
        cells = cells_of(walk, op, kind, layers if isinstance(layers, int) else 1, 2 if both else 1)
        batched = len(x.shape) == 3
        steps = x.shape[1 if batched and op.get("batch_first") is True else 0]
        batch = math.prod(x.shape[:-1]) // steps
        if steps > MAX_STEPS:
            raise Unhandled(f"{steps} steps; up to {MAX_STEPS} are written out: give a shorter sequence with --input")
        given = states_of(walk, op.get("hx"))
        finals: list[Act] = []
        for number, directions in enumerate(cells):
            ends: list[list[Act]] = []
            for way, cell in enumerate(directions):
                label = f"l{number}" + ("_reverse" if way else "")
                begin = before(walk, op, cell, given, number * len(directions) + way, batch, label)
                made = run_steps(walk, op, cell, x, begin, steps, label)
                ends.append(made)
                finals.append(made[-1])
            width = sum(cell.made for cell in directions)
            parts = [part for made in ends for part in made]
            x = walk.emit("copy", op, parts, (steps, batch, width), "linear", label=f"l{number}.sequence")
        results: list[Act] = [x.seen_as(walk.shape(op))]
        for i in range(1, len(op.outputs)):
            if walk.uses.get(op.outputs[i], 0):
                results.append(stacked(walk, op, finals, walk.shape(op, i), i))
            else:
                results.append(finals[-1].seen_as(walk.shape(op, i)))
        walk.bind(op, *results)

    return handle


def stacked(walk: Lowering, op: Op, finals: list[Act], shape: tuple[int, ...], number: int) -> Act:
    """The last states of all layers and directions, as one array."""
    if len(finals) == 1:
        return finals[0].seen_as(shape)
    return walk.emit("copy", op, finals, shape, "linear", label=f"state{number}")


def cells_of(walk: Lowering, op: Op, kind: str, layers: int, directions: int) -> list[list[Cell]]:
    """The weights by layer and direction. Raises Unhandled where they are no parameters, or not as many as needed."""
    found = walk.members(op.get("params"))
    biases = op.get("has_biases", True) is True
    each, rest = divmod(len(found), max(1, layers * directions))
    if rest or each not in ((4, 5) if biases else (2, 3)) or any(not isinstance(item, Const) for item in found):
        raise Unhandled("weights that are no parameters, or not one set for each layer and direction")
    cells: list[Cell] = []
    for start in range(0, len(found), each):
        mine = [item for item in found[start : start + each] if isinstance(item, Const)]
        projection = mine[-1] if each in (3, 5) else None
        cells.append(Cell(kind, mine[0], mine[1], biases, projection))
    return [cells[i : i + directions] for i in range(0, len(cells), directions)]


def run_steps(walk: Lowering, op: Op, cell: Cell, x: Act, begin: tuple[Act, Act], steps: int, label: str) -> list[Act]:
    """What each step of one layer in one direction hands on, from the states (h, c) before the first."""
    state, memory = begin
    batch = state.shape[0]
    width, features = cell.of_input.shape
    loops = Loops(N=batch, K=width, C=features, P=steps)
    rows = x.seen_as((steps, batch, features))
    ahead = walk.emit(
        "linear", op, [rows], (steps, batch, width), "linear", label=f"{label}.input", weight=cell.of_input,
        loops=loops, bias=cell.bias,
    )  # fmt: skip
    made: list[Act] = []
    for t in range(steps):
        mine = ahead.seen_as((batch, width))
        state, memory = step(walk, op, cell, mine, state, memory, batch, f"{label}.t{t}")
        made.append(state)
    return made


def states_of(walk: Lowering, arg: Arg) -> list[Single | None]:
    """The first states that an operator is given, None where one is not."""
    return [walk.value(item) for item in (arg if isinstance(arg, tuple) else (arg,))]


def before(
    walk: Lowering, op: Op, cell: Cell, given: list[Single | None], place: int, batch: int, label: str
) -> tuple[Act, Act]:
    """The states (h, c) before the first step: computed ones where the operator is given such, else arrays in memory.

    `given`: h and c of all layers and directions; `place`: which of them this is.
    """
    found: list[Act] = []
    for i, (name, size) in enumerate((("h", cell.made), ("c", cell.hidden))):
        states = given[i] if i < len(given) else None
        if not isinstance(states, Act):
            found.append(initial(walk, op, batch, size, label, name))
            continue
        places = math.prod(states.shape) // (batch * size)
        if place >= places or places * batch * size != math.prod(states.shape):
            raise Unhandled(f"a first state of shape {states.shape}")
        cut = None if places == 1 else Part(states.record.name, 0, place, place + 1)
        found.append(dataclasses.replace(states.seen_as((batch, size)), part=cut))
    return found[0], found[1]


def initial(walk: Lowering, op: Op, batch: int, size: int, label: str, name: str) -> Act:
    """A state before the first step: an array in memory that no layer makes."""
    where = f"{op.call}." if op.call else ""
    record = Record((batch, size), "linear", f"{where}{label}.{name}0.{len(walk.drafts)}")
    return Act(record, record.shape)


def step(
    walk: Lowering, op: Op, cell: Cell, ahead: Act, state: Act, memory: Act, batch: int, label: str
) -> tuple[Act, Act]:
    """One time step: (what it hands on, the cell's memory)."""
    width, inner = cell.of_state.shape
    hidden = cell.hidden

    def emit(kind: str, origin: str, inputs: list[Act], size: int, name: str) -> Act:
        return walk.emit(kind, op, inputs, (batch, size), origin, label=f"{label}.{name}")

    product = walk.emit(
        "linear", op, [state], (batch, width), "linear", label=f"{label}.state", weight=cell.of_state,
        loops=Loops(N=batch, K=width, C=inner), bias=cell.bias,
    )  # fmt: skip
    one = (batch, hidden)
    if cell.kind == "lstm":
        sums = emit("add", "add", [ahead, product], width, "add")
        gates = emit("sigmoid", "sigmoid", [sums.seen_as((batch, 3 * hidden))], 3 * hidden, "gates")
        fresh = emit("tanh", "tanh", [sums.seen_as(one)], hidden, "candidate")
        kept = emit("mul", "linear", [gates.seen_as(one), memory], hidden, "forget")
        new = emit("mul", "linear", [gates.seen_as(one), fresh], hidden, "write")
        memory = emit("add", "add", [kept, new], hidden, "memory")
        bounded = emit("tanh", "tanh", [memory], hidden, "bound")
        made = emit("mul", "linear", [gates.seen_as(one), bounded], hidden, "output")
        if cell.projection is not None:
            size = cell.projection.shape[0]
            made = walk.emit(
                "linear", op, [made], (batch, size), "linear", label=f"{label}.projection", weight=cell.projection,
                loops=Loops(N=batch, K=size, C=hidden),
            )  # fmt: skip
        return made, memory
    if cell.kind == "gru":
        two = (batch, 2 * hidden)
        sums = emit("add", "add", [ahead.seen_as(two), product.seen_as(two)], 2 * hidden, "add")
        gates = emit("sigmoid", "sigmoid", [sums], 2 * hidden, "gates")
        reset = emit("mul", "linear", [gates.seen_as(one), product.seen_as(one)], hidden, "reset")
        total = emit("add", "add", [ahead.seen_as(one), reset], hidden, "candidate_add")
        fresh = emit("tanh", "tanh", [total], hidden, "candidate")
        difference = emit("sub", "add", [state, fresh], hidden, "difference")
        kept = emit("mul", "linear", [gates.seen_as(one), difference], hidden, "update")
        return emit("add", "add", [fresh, kept], hidden, "output"), memory
    sums = emit("add", "add", [ahead, product], width, "add")
    function = "relu" if cell.kind == "rnn_relu" else "tanh"
    return emit(function, function, [sums], hidden, "output"), memory


def cell_step(kind: str) -> Handler:
    """Handler of lstm_cell, gru_cell, rnn_*_cell: one step with a state given."""

    def handle(walk: Lowering, op: Op) -> None:
        x, of_input, of_state = walk.act(op, "input"), walk.const(op, "w_ih"), walk.const(op, "w_hh")
        if of_input is None or of_state is None:
            raise Unhandled("without weights")
        cell = Cell(kind, of_input, of_state, walk.value(op.get("b_ih")) is not None)
        batch = math.prod(x.shape[:-1])
        given = walk.members(op.get("hx"))
        begin = [initial(walk, op, batch, cell.hidden, "step", name) for name in ("h", "c")]
        states = [*given[:2], *begin[len(given[:2]) :]]
        state, memory = (a if isinstance(a, Act) else b for a, b in zip(states, begin, strict=True))
        loops = Loops(N=batch, K=of_input.shape[0], C=of_input.shape[1])
        ahead = walk.emit(
            "linear", op, [x], (batch, of_input.shape[0]), "linear", label="input", weight=of_input, loops=loops,
            bias=cell.bias,
        )  # fmt: skip
        shape = (batch, cell.hidden)
        made, kept = step(walk, op, cell, ahead, state.seen_as(shape), memory.seen_as(shape), batch, "step")
        results = [made, kept][: len(op.outputs)]
        walk.bind(op, *(item.seen_as(walk.shape(op, i)) for i, item in enumerate(results)))

    return handle


HANDLERS: dict[str, Handler] = {
    **{f"aten.{kind}": recurrent(kind) for kind in GATES},
    **{f"aten.{kind}_cell": cell_step(kind) for kind in GATES},
}
