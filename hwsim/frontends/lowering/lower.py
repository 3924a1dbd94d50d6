"""Walk an `OpGraph` node by node and collect layers: the table operator -> handler decides, nothing is guessed.

An operator whose inputs are all constants is computed before deployment and costs nothing. One without a handler is
refused with its name, or listed as uncosted when that was allowed; all of them are reported at once.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Sequence

from hwsim.errors import UnsupportedOp, WorkloadError
from hwsim.files import plugins
from hwsim.frontends.lowering.constants import computed, shifted, side_by_side
from hwsim.frontends.lowering.finish import finish
from hwsim.frontends.lowering.ir import (
    Arg,
    Meta,
    Op,
    OpGraph,
    Quantization,
    Ref,
    is_unknown_float,
    refs_in,
    small_float,
)
from hwsim.frontends.lowering.values import Act, Const, Draft, Part, Record, Single, Value
from hwsim.frontends.lowering.written import ALIASES, SHAPE_ONLY, reached_by_inputs, writes_in_place
from hwsim.network.formats import Format
from hwsim.network.layer import Loops
from hwsim.network.workload import Coverage, FreeOp, Uncosted, Workload

QUANTIZER = "hwsim_quant.quantizer"
SIZED_BY_VALUES = frozenset((
    "aten.nonzero", "aten.masked_select", "aten.unique", "aten._unique2", "aten.unique_dim",
    "aten.unique_consecutive", "aten.bincount", "aten.histc", "aten.multinomial", "aten.argwhere",
    "aten.nonzero_static", "torchvision.nms", "onnx.NonZero", "onnx.Compress", "onnx.Unique", "tflite.WHERE",
    "tflite.UNIQUE",
))  # fmt: skip
INDEXED = ("aten.index", "aten._unsafe_index")  # by a mask, their elements are counted by its values
SPLITS = ("split", "split_with_sizes", "chunk", "tensor_split", "unbind", "unsafe_split", "unsafe_chunk")

# Operators whose result is their operands one behind the other.
JOINS = ("aten.cat", "aten.stack", "aten.concat", "aten.concatenate", "aten.hstack", "aten.vstack", "aten.dstack")
SHIFTS = ("aten.add", "aten.sub")

# Operators with a price for complex numbers; every other one is refused on them.
COMPLEX = frozenset((
    *(name.removeprefix("aten.") for name in (*ALIASES, *SHAPE_ONLY, *JOINS)), *SPLITS, "add", "sub", "mul", "div",
    "abs", "view_as_real", "view_as_complex", "clone", "contiguous", "to", "_to_copy", "movedim", "swapaxes",
    "unfold", "_conj", "resolve_conj", "conj", "conj_physical", "roll", "flip", "index_select", "complex", "polar",
    "stft", "fft_fftshift", "fft_ifftshift", "_fft_r2c", "_fft_c2c", "_fft_c2r", "_unsafe_view", "pad",
    "constant_pad_nd", *(f"fft_{kind}{axes}" for kind in ("fft", "ifft", "rfft", "irfft") for axes in ("", "2", "n")),
))  # fmt: skip

Handler = Callable[["Lowering", Op], None]


class Unhandled(Exception):
    """A handler meets a form of its operator that it has no price for; carries the reason."""


class Lowering:
    """State of one walk: values by name, layers so far, and the account of what cost nothing and why."""

    def __init__(self, graph: OpGraph, handlers: dict[str, Handler]) -> None:
        self.graph = graph
        self.handlers = handlers
        self.uses = graph.uses()
        self.values: dict[str, Value] = {}
        self.drafts: list[Draft] = []
        self.free: Counter[tuple[str, str]] = Counter()
        self.uncosted: list[tuple[Op, str]] = []
        self.notes: dict[str, None] = {}
        self.operators = 0
        self.ahead = 0  # MACs on parameters alone
        for name, parameter in graph.constants.items():
            if is_unknown_float(self.meta(name).dtype):
                continue
            self.values[name] = Const(parameter, self.meta(name).numbers, form=self.form(name))
        for name in graph.inputs:
            self.values[name] = self.network_input(name)
        self.states, self.dependent = reached_by_inputs(graph)
        for name in self.states & set(graph.constants):
            self.values[name] = self.network_input(name)
        self.batch = self.batch_size()

    def meta(self, name: str) -> Meta:
        """Shape and type of a value; a value without them (an integer, None) has the shape of a scalar."""
        return self.graph.metas.get(name, Meta(()))

    def form(self, name: str) -> Format | None:
        """What a value is that no quantizer covers: the small float of its type; None where it counts 32 bits."""
        return small_float(self.meta(name).dtype)

    def network_input(self, name: str) -> Act:
        """What the user feeds: four dimensions are an image, integers are indices, anything else plain numbers."""
        meta = self.meta(name)
        origin = "index" if meta.is_index else "image" if len(meta.shape) == 4 else "input"
        record = Record(meta.numbers, origin, name, index_bits=32 if meta.is_index else None)
        record.form = self.form(name)
        return Act(record, meta.numbers)

    def batch_size(self) -> int:
        """First size of the first network input; 1 if there is none."""
        for name in self.graph.inputs:
            shape = self.meta(name).shape
            if shape:
                return shape[0]
        return 1

    # -- what handlers read ----------------------------------------------------------------------------------------

    def raw(self, arg: Arg) -> Value | None:
        """The value behind an argument, zeros still to be padded included; None for a number or nothing."""
        if not isinstance(arg, Ref):
            return None
        if arg.name not in self.values:
            dtype = self.meta(arg.name).dtype
            if is_unknown_float(dtype):
                raise Unhandled(f"it reads {arg.name}, whose type {dtype} no machine here multiplies")
            raise Unhandled(f"it reads {arg.name}, which nothing here makes")
        return self.values[arg.name]

    def value(self, arg: Arg) -> Single | None:
        """The single value behind an argument, padding written out; None for a number or nothing."""
        found = self.raw(arg)
        if isinstance(found, tuple):
            raise Unhandled("a list of tensors where one is expected")
        return self.settled(found) if isinstance(found, Act) else found

    def act(self, op: Op, name: str) -> Act:
        """An argument that must be an activation."""
        found = self.value(op.get(name))
        if not isinstance(found, Act):
            raise Unhandled(f"its {name} is not an activation")
        return found

    def const(self, op: Op, name: str) -> Const | None:
        """An optional argument that must be a parameter where it is given."""
        found = self.value(op.get(name))
        if isinstance(found, Act):
            raise Unhandled(f"its {name} is computed from the input")
        return found

    def members(self, arg: Arg) -> list[Single]:
        """The values of a list argument."""
        items = arg if isinstance(arg, tuple) else (arg,)
        found = [self.value(item) for item in items]
        return [item for item in found if item is not None]

    def shape(self, op: Op, index: int = 0) -> tuple[int, ...]:
        """Shape of an output, in real numbers."""
        return self.meta(op.outputs[index]).numbers

    def settled(self, act: Act) -> Act:
        """The activation with its pending zeros written out, which costs a `pad` layer of its own."""
        if act.pad is None:
            return act
        return self.moved("pad", act, unpadded(act.shape, act.pad))

    def written_out(self, act: Act) -> Act:
        """The activation with what an expansion repeats written as often, as a window needs it: a `copy` layer."""
        if act.repeats == 1:
            return act
        shape = act.shape if act.pad is None else unpadded(act.shape, act.pad)
        made = self.moved("copy", dataclasses.replace(act, shape=shape, pad=None), shape)
        return dataclasses.replace(made, shape=act.shape, pad=act.pad)

    def moved(self, kind: str, act: Act, read: tuple[int, ...]) -> Act:
        """The activation written anew by a layer that reads it under the shape `read`, codes as they were."""
        source = dataclasses.replace(act.seen_as(read), version=None)
        op = Op(f"aten.{kind}", {}, (), self.current.module, self.current.call)
        made = self.emit(kind, op, [source], act.shape, source.record.origin)
        if act.version is not None:
            made.record.versions[act.version] = act.record.versions[act.version]
        return dataclasses.replace(made, version=act.version)

    # -- what handlers write ---------------------------------------------------------------------------------------

    def bind(self, op: Op, *values: Value) -> None:
        """Name the results; an in-place operator also renames what it overwrote."""
        for name, value in zip(op.outputs, values, strict=False):
            self.values[name] = value
        if writes_in_place(op):
            target = next(iter(op.args.values()), None)
            if isinstance(target, Ref):
                self.values[target.name] = values[0]

    def emit(
        self,
        kind: str,
        op: Op,
        inputs: list[Act],
        shape: tuple[int, ...],
        origin: str,
        *,
        label: str = "",
        weight: Single | None = None,
        loops: Loops | None = None,
        bias: bool = False,
        window: int = 1,
    ) -> Act:
        """A new layer and the activation it makes."""
        form = self.form(op.outputs[0]) if op.outputs else inputs[0].record.form
        record = Record(shape, origin, form=form)
        label = label or op.op.rpartition(".")[2].strip("_")
        draft = Draft(kind, op, label, inputs, record, weight, loops or Loops(), bias=bias, window=window)
        record.producer = draft
        self.drafts.append(draft)
        return Act(record, shape)

    def pass_through(self, op: Op, why: str) -> None:
        """The operator costs nothing: its outputs are its first input under other shapes."""
        source = self.value(next(iter(op.args.values()), None))
        if source is None:
            raise Unhandled("it has no tensor to pass on")
        outputs = [cast(reshaped(source, self.meta(name).numbers), self.form(name)) for name in op.outputs]
        complex_too = any(self.meta(name).is_complex for name in op.outputs)
        shapes = [self.meta(name).shape for name in op.outputs]
        parts = [None] * len(shapes) if complex_too else parts_of(op, source.shape, shapes)
        outputs = [
            dataclasses.replace(made, part=part) if isinstance(made, Act) and made.part is None else made
            for made, part in zip(outputs, parts, strict=True)
        ]
        self.bind(op, *outputs)
        self.count_free(op, why)

    def count_free(self, op: Op, why: str) -> None:
        """Account for an operator that costs nothing."""
        self.free[op.op.removeprefix("aten.").rstrip("_"), why] += 1

    def note(self, text: str) -> None:
        """Remember an assumption for the report, once."""
        self.notes[text] = None

    # -- the walk --------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Lower every operator in order."""
        if self.makes_nothing(self.graph.outputs) and not any(map(self.sized_by_values, self.graph.ops)):
            raise WorkloadError(f"model {self.graph.name}: its results have no elements: give sizes of at least 1")
        for op in self.graph.ops:
            self.current = op
            if self.is_constant(op):
                self.refuse_lost_input(op)
                self.ahead += known_macs(self, op) or 0
                continue
            self.operators += 1
            account, reads_input = self.account(), self.reads_activations(op)
            if self.makes_nothing(op.outputs) and not self.sized_by_values(op):
                self.without_elements(op)
                continue
            handler = self.handlers.get(op.op) or self.handlers.get(op.op.rstrip("_")) or plugins.operator(op.op)
            try:
                if handler is not None:
                    self.require_real(op)
                    handler(self, op)
                elif self.is_bookkeeping(op):
                    self.bookkeeping(op)
                else:
                    raise Unhandled("no handler")
            except Unhandled as problem:
                self.give_up(op, str(problem))
            except ZeroDivisionError:
                shapes = ", ".join(str(self.meta(ref.name).shape) for ref in op.refs())
                raise WorkloadError(
                    f"model {self.graph.name}: {op.op} at {place(op)} has operands without elements ({shapes}): give "
                    "sizes of at least 1"
                ) from None
            except (ArithmeticError, IndexError, KeyError, TypeError, ValueError) as problem:
                raise WorkloadError(
                    f"model {self.graph.name}: {op.op} at {place(op)} has operands it cannot have: {problem!r}"
                ) from problem
            if reads_input:
                self.refuse_vanished(op, account)

    def require_real(self, op: Op) -> None:
        """Raises Unhandled where an operator works on complex numbers and its price is that of real ones."""
        names = (*(ref.name for ref in op.refs()), *op.outputs)
        known = op.op.rstrip("_").removeprefix("aten.") in COMPLEX or plugins.operator(op.op) is not None
        if not known and any(self.meta(name).is_complex for name in names):
            raise Unhandled("complex numbers: write it on their real and imaginary parts (torch.view_as_real)")

    def makes_nothing(self, names: Sequence[str]) -> bool:
        """Whether there are results and none has an element, as the past of a cache that starts empty."""
        return bool(names) and all(0 in self.meta(name).shape for name in names)

    def sized_by_values(self, op: Op) -> bool:
        """Whether the input's values say how many elements it makes: none in the example says nothing then."""
        places = refs_in(op.get("indices")) if op.op in INDEXED else ()
        return op.op in SIZED_BY_VALUES or any(
            self.meta(ref.name).dtype in ("bool", "uint8") and not isinstance(self.values.get(ref.name), Const)
            for ref in places
        )

    def without_elements(self, op: Op) -> None:
        """An operator that has nothing to do; what joins its result with others leaves it out."""
        made = [self.meta(name) for name in op.outputs]
        self.bind(op, *(Act(Record(meta.shape, "empty", form=small_float(meta.dtype)), meta.shape) for meta in made))
        self.count_free(op, "no elements")

    def account(self) -> tuple[int, int, int]:
        """How much is accounted for so far: layers, free operators, operators without a price."""
        return len(self.drafts), self.free.total(), len(self.uncosted)

    def refuse_lost_input(self, op: Op) -> None:
        """Invariant of every front end: what depends on an input of the network is never taken for a parameter."""
        dependent = (self.graph.dependent | self.dependent) - self.states
        lost = [name for name in op.outputs if name in dependent]
        if lost:
            raise WorkloadError(
                f"model {self.graph.name}: {op.op} at {place(op)}: {lost[0]!r} depends on an input of the network, but "
                "none of the operands that this version read does: a gap of this reader, please report the file"
            )

    def refuse_vanished(self, op: Op, before: tuple[int, int, int]) -> None:
        """Invariant of every handler: an operator on activations is a layer, counted as free, or named as uncosted,
        and makes activations."""
        made = [self.values.get(name) for name in op.outputs]
        parameter = op.op not in SHAPE_ONLY and any(isinstance(value, Const) for value in made)
        waiting = any(isinstance(value, Act) and value.pad is not None for value in made)  # zeros to pad with
        if parameter or (self.account() == before and not waiting):
            raise WorkloadError(
                f"model {self.graph.name}: {op.op} at {place(op)} reads activations, but vanished from the account: a "
                "gap of its handler, please report the model"
            )

    def is_constant(self, op: Op) -> bool:
        """Whether nothing it reads depends on the input; its outputs become constants."""
        if self.reads_activations(op) or op.op == QUANTIZER:
            return False
        read = [self.values.get(ref.name) for ref in op.refs()]
        consts = [value for value in read if isinstance(value, Const)]
        for name in op.outputs:
            shape = self.meta(name).numbers
            form = self.form(name)
            known = side_by_side(name, shape, consts, form) if op.op in JOINS else computed(name, shape, consts, form)
            if op.op in SHIFTS:
                known = shifted(known, consts)
            self.values[name] = self.network_input(name) if name in self.states else known
        return True

    def reads_activations(self, op: Op) -> bool:
        """Whether something it reads depends on the input."""
        return any(contains_act(self.values.get(ref.name)) for ref in op.refs())

    def is_bookkeeping(self, op: Op) -> bool:
        """Whether it makes integers out of integers: positions, masks, counts."""
        read = [value for ref in op.refs() if isinstance(value := self.values.get(ref.name), Act)]
        integers = all(act.record.index_bits is not None for act in read)
        return integers and bool(op.outputs) and all(self.meta(name).is_index for name in op.outputs)

    def bookkeeping(self, op: Op) -> None:
        """Integer arithmetic beside the network: one operation per element."""
        self.note("integer arithmetic on indices and masks is priced as one addition per element")
        acts = [act for ref in op.refs() if isinstance(act := self.value(ref), Act)]
        for name in op.outputs:
            made = self.emit("add", op, acts, self.meta(name).shape, "index")
            made.record.index_bits = 1 if self.meta(name).dtype == "bool" else 32
            self.values[name] = made

    def give_up(self, op: Op, reason: str) -> None:
        """List the operator; what it makes enters the graph as a tensor that nobody produces."""
        self.uncosted.append((op, reason))
        for name in op.outputs:
            meta = self.meta(name)
            width = 32 if meta.is_index else None
            record = Record(meta.numbers, "uncosted", name, index_bits=width, form=self.form(name))
            self.values[name] = Act(record, meta.numbers)


def contains_act(value: Value | None) -> bool:
    """Whether an activation is in it."""
    if isinstance(value, tuple):
        return any(contains_act(item) for item in value)
    return isinstance(value, Act)


def reshaped(value: Single, shape: tuple[int, ...]) -> Single:
    """The same array under another shape."""
    if isinstance(value, Const):
        return dataclasses.replace(value, shape=shape)
    before, after = math.prod(value.shape), math.prod(shape)
    grown = after // before if before and after > before and after % before == 0 else 1
    return dataclasses.replace(value.seen_as(shape), repeats=value.repeats * grown)


def parts_of(op: Op, shape: tuple[int, ...], made: list[tuple[int, ...]]) -> list[Part | None]:
    """The range of its input that each output of a split, slice or selection is; None where that is not plain."""
    source, dim = next(op.refs(), None), op.get("dim", 0)
    nothing: list[Part | None] = [None] * len(made)
    if source is None or not isinstance(dim, int) or not shape:
        return nothing
    dim %= len(shape)
    name = op.op.removeprefix("aten.")
    if name in ("select", "slice"):
        start = op.get("index" if name == "select" else "start", 0) or 0
        if not isinstance(start, int) or op.get("step", 1) != 1:
            return nothing
        start = start + shape[dim] if start < 0 else start
        return [Part(source.name, dim, start, start + (1 if name == "select" else made[0][dim]))]
    if name not in SPLITS:
        return nothing
    sizes = [1 if name == "unbind" else out[dim] for out in made]
    return [Part(source.name, dim, sum(sizes[:i]), sum(sizes[: i + 1])) for i in range(len(made))]


def unpadded(shape: tuple[int, ...], pad: tuple[int, int, int, int]) -> tuple[int, ...]:
    """Shape without its zeros."""
    return (*shape[:-2], shape[-2] - pad[0] - pad[1], shape[-1] - pad[2] - pad[3])


def cast(value: Single, form: Format | None) -> Single:
    """The value as the small float of another type; codes stay codes, and what becomes wider is stored as it was."""
    if isinstance(value, Const) or form is None or value.record.index_bits is not None:
        return value
    if value.version is not None or value.record.form == form:
        return value
    return quantize(value, Quantization(f"cast.{form.element}", form.bits, True, False, format=form))


def quantize(value: Single, quantization: Quantization) -> Single:
    """The value after a quantizer: codes of that quantizer, shape and pending zeros unchanged."""
    if isinstance(value, Const):
        return dataclasses.replace(value, quantization=quantization)
    value.record.versions.setdefault(quantization.module, quantization)
    return dataclasses.replace(value, version=quantization.module)


def lower(graph: OpGraph, handlers: dict[str, Handler], allow_uncosted: bool = False) -> Workload:
    """The graph as a workload.

    Raises UnsupportedOp naming every operator without a price, with how often and where it occurs, unless
    `allow_uncosted`: then they are listed in the workload's coverage.
    """
    walk = Lowering(graph, handlers)
    walk.run()
    if walk.ahead:
        walk.note(
            f"products of parameters alone are computed before any input arrives: {walk.ahead:,} MACs not counted"
        )
    if walk.uncosted and not allow_uncosted:
        raise UnsupportedOp(refusal(graph.name, walk.uncosted))
    layers, notes = finish(walk.drafts)
    uncosted = tuple(
        Uncosted(place(op), op.op, sum(math.prod(walk.meta(name).shape) for name in op.outputs), known_macs(walk, op))
        for op, _ in walk.uncosted
    )
    free = tuple(FreeOp(name, count, why) for (name, why), count in sorted(walk.free.items()))
    coverage = Coverage(walk.operators, walk.operators - len(uncosted), uncosted, free)
    return Workload(graph.name, layers, coverage, (*graph.notes, *walk.notes, *notes))


def place(op: Op) -> str:
    """Where an operator stands, for messages."""
    return f"{op.module}.{op.op.rpartition('.')[2]}" if op.module else op.outputs[0] if op.outputs else op.op


def refusal(name: str, uncosted: list[tuple[Op, str]]) -> str:
    """One message for all operators without a price."""
    groups: dict[tuple[str, str], list[str]] = {}
    for op, reason in uncosted:
        groups.setdefault((op.op, reason), []).append(place(op))
    lines: list[str] = []
    for (op_name, reason), places in groups.items():
        shown = ", ".join(places[:3]) + (", ..." if len(places) > 3 else "")
        why = "" if reason == "no handler" else f" ({reason})"
        lines.append(f"  {op_name}{why}: {len(places)}x, at {shown}")
    return (
        f"model {name}: {len(uncosted)} operators have no price:\n"
        + "\n".join(lines)
        + "\nAllow them with --allow-uncosted (allow_uncosted=True); the report then lists them as not costed."
    )


# Operators of which every form has no products: how much they make may be unknown, their MACs are not.
WITHOUT_MACS = ("pool", "nms", "nonzero", "unique", "select", "sort", "bincount", "histc", "multinomial", "argwhere")


def known_macs(walk: Lowering, op: Op) -> int | None:
    """MACs of an uncosted operator where its shapes tell them, whatever kept it from being priced; None: unknown."""
    told = op.get("products")
    if isinstance(told, int):  # by the reader of its file
        return told
    name = op.op.rpartition(".")[2].lower()
    shapes = [walk.meta(ref.name).shape for ref in op.refs()]
    made = [walk.meta(output).shape for output in op.outputs]
    if not any(map(math.prod, made)) or any(part in name for part in WITHOUT_MACS):
        return 0
    outputs = math.prod(made[0])
    if "conv" in name and len(shapes) > 1 and len(shapes[1]) > 2:
        transposed = "transpose" in name or op.get("transposed") is True
        return math.prod(shapes[0] if transposed else made[0]) * math.prod(shapes[1][1:])
    if ("matmul" in name or name in ("mm", "bmm", "linear", "addmm", "baddbmm", "gemm")) and len(shapes) > 1:
        rank = 2 if name in ("addmm", "baddbmm") else 1
        return outputs * shapes[rank - 1][-1] if shapes[rank - 1] else None
    return None
