"""LSTM, GRU and plain recurrent layers, step by step: the product with the input for all steps at once, then for each
step a matrix times the state before it, and the gates.

The weights of all steps are one tensor. The first step multiplies the initial state like any other.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from hwsim.frontends.lowering.ir import Arg, Op, Quantization
from hwsim.frontends.lowering.lower import Handler, Lowering, Unhandled, quantize
from hwsim.frontends.lowering.values import Act, Const, Part, Record, Single
from hwsim.network.layer import Loops

MAX_STEPS = 1024  # every step is a dozen layers
GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


@dataclass(frozen=True)
class Cell:
    """Weights of one layer in one direction: (gates*hidden, inputs), (gates*hidden, hidden), (projected, hidden).

    `peepholes`: (3*hidden) factors by which gates see the memory. `clips`: the memory is clipped. `functions`: of the
    gates, the candidate, the output. `reset_first`: a GRU whose reset gate acts on the state before its product.
    `state_codes`: the quantizer that the state passes in front of its product; `projection_codes`: in front of its
    projection.
    """

    kind: str
    of_input: Const
    of_state: Const
    bias: bool
    projection: Const | None = None
    peepholes: Const | None = None
    functions: tuple[str, str, str] = ("sigmoid", "tanh", "tanh")
    reset_first: bool = False
    clips: bool = False
    state_codes: Quantization | None = None
    projection_codes: Quantization | None = None

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
        finals: tuple[list[Act], list[Act]] = ([], [])  # states, memories
        for number, directions in enumerate(cells):
            ends: list[list[Act]] = []
            read = codes_at(walk, op.get("input_codes"), number)
            if read is not None:
                x = coded(x, read)
            for way, cell in enumerate(directions):
                label = f"l{number}" + ("_reverse" if way else "")
                begin = before(walk, op, cell, given, number * len(directions) + way, batch, label)
                made, memory = run_steps(walk, op, cell, x, begin, steps, label)
                ends.append(made)
                finals[0].append(made[-1])
                finals[1].append(memory)
            width = sum(cell.made for cell in directions)
            parts = [part for made in ends for part in made]
            if len(parts) == 1:  # one step: its state is the sequence
                x = parts[0].seen_as((steps, batch, width))
                continue
            x = walk.emit("copy", op, parts, (steps, batch, width), parts[0].record.origin, label=f"l{number}.sequence")
        results: list[Act] = [x.seen_as(walk.shape(op))]
        for i, last in enumerate(finals[: len(op.outputs) - 1], 1):
            if walk.uses.get(op.outputs[i], 0):
                results.append(stacked(walk, op, last, walk.shape(op, i), i))
            else:
                results.append(last[-1].seen_as(walk.shape(op, i)))
        walk.bind(op, *results)

    return handle


def stacked(walk: Lowering, op: Op, finals: list[Act], shape: tuple[int, ...], number: int) -> Act:
    """The last states of all layers and directions, as one array."""
    if len(finals) == 1:
        return finals[0].seen_as(shape)
    return walk.emit("copy", op, finals, shape, finals[0].record.origin, label=f"state{number}")


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
        cell = Cell(kind, mine[0], mine[1], biases, projection)
        cells.append(further(walk, op, cell, len(cells)))
    return [cells[i : i + directions] for i in range(0, len(cells), directions)]


def further(walk: Lowering, op: Op, cell: Cell, number: int) -> Cell:
    """A cell with what only some files state: peepholes, other functions, how a GRU resets, codes of the state."""
    peepholes, functions = walk.members(op.get("peepholes")), op.get("functions")
    mine = peepholes[number] if number < len(peepholes) else None
    if peepholes and not isinstance(mine, Const):
        raise Unhandled("peepholes that are no parameters")
    names = tuple(str(name) for name in functions) if isinstance(functions, tuple) else cell.functions
    return dataclasses.replace(
        cell,
        peepholes=mine if isinstance(mine, Const) else None,
        functions=(names[0], names[1], names[2]),
        reset_first=op.get("reset_first") is True,
        clips=op.get("clips") is True,
        state_codes=codes_at(walk, op.get("state_codes"), number),
        projection_codes=codes_at(walk, op.get("projection_codes"), number),
    )


def codes_at(walk: Lowering, names: Arg, number: int) -> Quantization | None:
    """The quantizer at a place: of names in order, or one name for all places; None where there is none."""
    name = names[number] if isinstance(names, tuple) and number < len(names) else names
    return walk.graph.quantizers.get(name) if isinstance(name, str) else None


def coded(act: Act, codes: Quantization) -> Act:
    """An activation as a reader sees it behind a quantizer."""
    made = quantize(act, codes)
    return made if isinstance(made, Act) else act


def run_steps(
    walk: Lowering, op: Op, cell: Cell, x: Act, begin: tuple[Act, Act], steps: int, label: str
) -> tuple[list[Act], Act]:
    """(what each step of one layer in one direction hands on, its last memory), from the states (h, c) before."""
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
    return made, memory


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
            found.append(initial(walk, op, batch, size, label, name, cell.kind))
            continue
        places = math.prod(states.shape) // (batch * size)
        if place >= places or places * batch * size != math.prod(states.shape):
            raise Unhandled(f"a first state of shape {states.shape}")
        cut = None if places == 1 else Part(states.record.name, 0, place, place + 1)
        found.append(dataclasses.replace(states.seen_as((batch, size)), part=cut))
    return found[0], found[1]


def initial(walk: Lowering, op: Op, batch: int, size: int, label: str, name: str, kind: str) -> Act:
    """A state before the first step: an array in memory that no layer makes, of values like the states after it."""
    where = f"{op.call}." if op.call else ""
    origin = "relu" if kind == "rnn_relu" else "linear"
    record = Record((batch, size), origin, f"{where}{label}.{name}0.{len(walk.drafts)}", form=walk.form(op.outputs[0]))
    return Act(record, record.shape)


@dataclass(frozen=True)
class Step:
    """One time step of a cell being written down."""

    walk: Lowering
    op: Op
    cell: Cell
    batch: int
    label: str

    def emit(self, kind: str, origin: str, inputs: list[Act], size: int, name: str, weight: Const | None = None) -> Act:
        """A vector layer of `size` elements for each row of the batch."""
        shape = (self.batch, size)
        return self.walk.emit(kind, self.op, inputs, shape, origin, label=f"{self.label}.{name}", weight=weight)

    def one(self, act: Act) -> Act:
        """The part of some gates that one of them is."""
        return act.seen_as((self.batch, self.cell.hidden))

    def two(self, act: Act) -> Act:
        """The part of some gates that two of them are."""
        return act.seen_as((self.batch, 2 * self.cell.hidden))

    def times(self, weight: Const, source: Act, name: str) -> Act:
        """A matrix times the state."""
        rows, columns = weight.shape
        return self.walk.emit(
            "linear", self.op, [source], (self.batch, rows), "linear", label=f"{self.label}.{name}", weight=weight,
            loops=Loops(N=self.batch, K=rows, C=columns), bias=self.cell.bias,
        )  # fmt: skip

    def seen(self, state: Act) -> Act:
        """The state as the product reads it: its codes, whose scale may be found anew at every step."""
        codes = self.cell.state_codes
        if codes is None:
            return state
        for name in ("most", "least") if codes.run_time else ():
            window = math.prod(state.shape)
            label = f"{self.label}.{name}"
            self.walk.emit("reduce_max", self.op, [state], (1,), "linear", label=label, window=window)
        return coded(state, codes)

    def lstm(self, ahead: Act, state: Act, memory: Act) -> tuple[Act, Act]:
        """Four gates, and a memory beside the state."""
        cell, hidden = self.cell, self.cell.hidden
        gate, candidate, bound = cell.functions
        product = self.times(cell.of_state, self.seen(state), "state")
        sums = self.emit("add", "add", [ahead, product], 4 * hidden, "add")
        early, size = sums.seen_as((self.batch, 3 * hidden)), 3 * hidden
        if cell.peepholes is not None:
            looks = self.emit("mul", "linear", [memory], 2 * hidden, "peephole", part(cell.peepholes, 2 * hidden))
            early, size = self.emit("add", "add", [self.two(sums), looks], 2 * hidden, "peephole_add"), 2 * hidden
        gates = self.emit(gate, gate, [early], size, "gates")
        fresh = self.emit(candidate, candidate, [self.one(sums)], hidden, "candidate")
        kept = self.emit("mul", "linear", [self.one(gates), memory], hidden, "forget")
        new = self.emit("mul", "linear", [self.one(gates), fresh], hidden, "write")
        memory = self.emit("add", "add", [kept, new], hidden, "memory")
        if cell.clips:
            memory = self.emit("relu6", "linear", [memory], hidden, "clip")
        opened = self.one(gates)
        if cell.peepholes is not None:
            looks = self.emit("mul", "linear", [memory], hidden, "peephole_out", part(cell.peepholes, hidden))
            total = self.emit("add", "add", [self.one(sums), looks], hidden, "peephole_out_add")
            opened = self.emit(gate, gate, [total], hidden, "gate_out")
        bounded = self.emit(bound, bound, [memory], hidden, "bound")
        made = self.emit("mul", "linear", [opened, bounded], hidden, "output")
        if cell.projection is not None:
            rows, columns = cell.projection.shape
            made = made if cell.projection_codes is None else coded(made, cell.projection_codes)
            made = self.walk.emit(
                "linear", self.op, [made], (self.batch, rows), "linear", label=f"{self.label}.projection",
                weight=cell.projection, loops=Loops(N=self.batch, K=rows, C=columns),
            )  # fmt: skip
        return made, memory

    def gru(self, ahead: Act, state: Act) -> Act:
        """Three gates; the reset gate acts behind the product, or on the state before it."""
        cell, hidden = self.cell, self.cell.hidden
        gate, candidate, _ = cell.functions
        seen = self.seen(state)
        early = part(cell.of_state, 2 * hidden) if cell.reset_first else cell.of_state
        product = self.times(early, seen, "state")
        sums = self.emit("add", "add", [self.two(ahead), self.two(product)], 2 * hidden, "add")
        gates = self.emit(gate, gate, [sums], 2 * hidden, "gates")
        source = state if cell.reset_first else self.one(product)
        reset = self.emit("mul", "linear", [self.one(gates), source], hidden, "reset")
        if cell.reset_first:
            reset = self.times(part(cell.of_state, hidden), reset, "candidate_state")
        total = self.emit("add", "add", [self.one(ahead), reset], hidden, "candidate_add")
        fresh = self.emit(candidate, candidate, [total], hidden, "candidate")
        difference = self.emit("sub", "add", [state, fresh], hidden, "difference")
        kept = self.emit("mul", "linear", [self.one(gates), difference], hidden, "update")
        return self.emit("add", "add", [fresh, kept], hidden, "output")

    def plain(self, ahead: Act, state: Act) -> Act:
        """One gate."""
        product = self.times(self.cell.of_state, self.seen(state), "state")
        sums = self.emit("add", "add", [ahead, product], self.cell.hidden, "add")
        function = "relu" if self.cell.kind == "rnn_relu" else self.cell.functions[1]
        return self.emit(function, function, [sums], self.cell.hidden, "output")


def part(const: Const, rows: int) -> Const:
    """Some rows of a parameter; two parts of one are told apart by their sizes."""
    return dataclasses.replace(const, name=f"{const.name}:{rows}", shape=(rows, *const.shape[1:]))


def step(
    walk: Lowering, op: Op, cell: Cell, ahead: Act, state: Act, memory: Act, batch: int, label: str
) -> tuple[Act, Act]:
    """One time step: (what it hands on, the cell's memory)."""
    now = Step(walk, op, cell, batch, label)
    if cell.kind == "lstm":
        return now.lstm(ahead, state, memory)
    return (now.gru(ahead, state) if cell.kind == "gru" else now.plain(ahead, state)), memory


def cell_step(kind: str) -> Handler:
    """Handler of lstm_cell, gru_cell, rnn_*_cell: one step with a state given."""

    def handle(walk: Lowering, op: Op) -> None:
        x, of_input, of_state = walk.act(op, "input"), walk.const(op, "w_ih"), walk.const(op, "w_hh")
        if of_input is None or of_state is None:
            raise Unhandled("without weights")
        cell = Cell(kind, of_input, of_state, walk.value(op.get("b_ih")) is not None)
        batch = math.prod(x.shape[:-1])
        given = walk.members(op.get("hx"))
        begin = [initial(walk, op, batch, cell.hidden, "step", name, kind) for name in ("h", "c")]
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
