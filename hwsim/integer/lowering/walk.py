# pyright: basic
"""The walk through an exported network, operator by operator, that makes integer nodes of it.

Between two quantizers a value is a `Form` (an affine sum of integers, then functions) or a `Moved` one (reshaped,
padded, concatenated, max-pooled), whose quantizer is pushed in front of the move: moving numbers and quantizing them
commute, so what is moved are codes. What each operator does is in `hwsim.integer.lowering.operators`.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_map, tree_unflatten

from hwsim.errors import UnsupportedOp
from hwsim.integer import graph
from hwsim.integer.arithmetic.forms import Affine, Form, Function, Rationals, Term, rationals
from hwsim.integer.arithmetic.rules import CodeSpec, Range
from hwsim.integer.arithmetic.steps import Clamp, Leaky
from hwsim.integer.graph import IntegerModel, Node
from hwsim.integer.lowering.fixed_values import FRACTION_BITS, fixed_value, reach_of
from hwsim.integer.lowering.weights import Weight, weight_of
from quant import BaseQuantizer
from quant.calling import answer

# Checks of an exported graph that compute nothing.
IGNORED = {"_assert_tensor_metadata", "sym_size", "_guards_fn"}
# What a handler meets in a form of an operator that it does not know: sizes by values, lists, missing operands.
FORM_ERRORS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
# Methods whose activation codes are round(clamp((x - beta)/s, n, p)), as this machine computes them.
PLAIN_METHODS = ("lsq", "lsqplus", "pact")


@dataclass(frozen=True)
class Const:
    """Numbers known beforehand, float64."""

    values: Tensor


@dataclass(frozen=True)
class Moved:
    """Values moved, not changed: `kind` reshape, permute, slice, gather (entries of an axis, by their indices), pad
    (with a real number), concat, max_pool.
    """

    kind: str
    sources: tuple[Value, ...]
    options: tuple[Any, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Image:
    """One of the network's inputs: real numbers."""

    shape: tuple[int, ...]
    source: str = "input"


@dataclass(frozen=True)
class FloatValue:
    """The result of an operator kept in float."""

    node: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Rows:
    """Rows of a table of parameters, named by the indices of node `source`; without one, `table` has the rows."""

    table: Tensor
    source: str
    shape: tuple[int, ...]


Value = Form | Moved | Const | Weight | Image | FloatValue | Rows | tuple
Pair = Sequence[int] | int


class Lowering:
    """The walk: an environment from exported nodes to values, and the integer nodes made on the way."""

    def __init__(
        self,
        model: nn.Module,
        program: Any,
        found: Mapping[str, BaseQuantizer],
        handlers: Mapping[str, Callable[..., Value]],
        allow_float: bool,
    ) -> None:
        self.program, self.allow_float = program, allow_float
        self.handlers = handlers
        self.found = found
        self.nodes: dict[str, Node] = {}
        self.calls: Counter[str] = Counter()
        self.quantized: dict[str, str] = {}
        self.env: dict[fx.Node, Value] = {}
        self.layer = ""
        self.owners = dict(model.named_modules())

    def run(self, name: str) -> IntegerModel:
        """Walk the whole graph."""
        state = {**self.program.state_dict, **self.program.constants}
        signature = self.program.graph_signature
        known = {**signature.inputs_to_parameters, **signature.inputs_to_buffers,
                 **signature.inputs_to_lifted_tensor_constants}  # fmt: skip
        inputs = [n for n in self.program.graph.nodes if n.op == "placeholder" and n.name not in known]
        images = {
            n: Image(tuple(int(size) for size in n.meta["val"].shape), graph.entrance(i)) for i, n in enumerate(inputs)
        }
        outputs: list[Value] = []
        for node in self.program.graph.nodes:
            self.layer = layer_of(node)
            if node.op == "placeholder":
                self.env[node] = Const(state[known[node.name]].detach()) if node.name in known else images[node]
            elif node.op == "output":
                outputs = [self.value(a) for a in node.args[0]]
            elif node.op == "call_function":
                operator = operator_name(node)
                if operator in IGNORED:
                    continue
                handler = self.handlers.get(operator)
                arguments = [self.value(a) for a in node.args]
                keywords = {k: self.value(a) for k, a in node.kwargs.items()}
                try:
                    if handler is None:
                        self.env[node] = self.keep_float(operator, node, arguments, keywords)
                    else:
                        self.env[node] = handler(self, node, *arguments, **keywords)
                except NotAffine as problem:
                    self.env[node] = self.keep_float(operator, node, arguments, keywords, str(problem))
                except FORM_ERRORS as problem:
                    raise UnsupportedOp(
                        f"layer {self.layer or '(model)'}: this form of {operator} has no integer form "
                        f"({first_line(problem)})"
                    ) from problem
        place = answer(tree_unflatten(list(range(len(outputs))), self.program.call_spec.out_spec), kind=int)
        results = [self.result(name, outputs[place])]
        for i, output in enumerate(outputs):
            if i != place and not isinstance(output, (Const, Weight, Image)) and output is not None:
                results.append(self.result(name, output))
        return self.finish(name, results, [image.shape for image in images.values()])

    def result(self, name: str, output: Value) -> Form | str:
        """A result of the network as a form, or the name of a float value."""
        if isinstance(output, (Const, Weight, Image, tuple)):
            raise UnsupportedOp(f"{name}: the network returns no quantized computation")
        try:
            return output.node if isinstance(output, FloatValue) else self.as_form(output)
        except NotAffine as problem:
            raise UnsupportedOp(
                f"{name}: its result is no affine sum per channel ({problem}); quantize it, or end the network in a "
                "linear layer or a pool"
            ) from None

    def finish(self, name: str, results: list[Form | str], shapes: list[tuple[int, ...]]) -> IntegerModel:
        """The network with only the nodes that its results need."""
        needed = {n for result in results for n in ([result] if isinstance(result, str) else result.sources)}
        for node in reversed(list(self.nodes.values())):
            if node.name in needed:
                needed.update(node.inputs)
        nodes = tuple(n for n in self.nodes.values() if n.name in needed)
        quantized = {q: n for q, n in self.quantized.items() if n in needed}
        return IntegerModel(name, nodes, results[0], quantized, shapes[0], tuple(shapes[1:]), tuple(results[1:]))

    # ---- values ------------------------------------------------------------------------------------------------------

    def value(self, argument: Any) -> Any:
        """An argument of an exported node: values for nodes, plain numbers as they are."""
        if isinstance(argument, fx.Node):
            return self.env.get(argument)
        if isinstance(argument, (list, tuple)):
            return type(argument)(self.value(a) for a in argument)
        return argument

    def add(self, node: Node) -> str:
        """Enter an integer node; its name is made unique."""
        name, count = node.name, 1
        while name in self.nodes:
            name, count = f"{node.name}~{count}", count + 1
        self.nodes[name] = dataclasses.replace(node, name=name) if name != node.name else node
        return name

    def form_of(self, node: str, axis: int = 1) -> Form:
        """The real numbers behind codes: s * codes + beta; of plain integers: themselves."""
        made = self.nodes[node]
        s, beta = (Fraction(1), Fraction(0)) if made.code is None else (made.code.s, made.code.beta)
        return Form((Term((node,), (s,)),), (beta,), made.shape, min(axis, len(made.shape) - 1))

    def ranges(self, form: Form) -> dict[str, Range]:
        """Ranges of a form's sources."""
        return {s: self.nodes[s].range for s in form.sources}

    # ---- quantizers --------------------------------------------------------------------------------------------------

    def quantizer(self, value: Value, name: str) -> Value:
        """What the marked node of a quantizer stands for: weight codes, or a form of activation codes."""
        made = self.found[name]
        if made.is_weight:
            if isinstance(value, Rows):
                return self.rows(value, weight_of(made, value.table, name, self.layer))
            if not isinstance(value, Const):
                raise UnsupportedOp(f"layer {self.layer}: weights that are computed have no codes known beforehand")
            return weight_of(made, value.values, name, self.layer)
        count = self.calls[name]
        self.calls[name] += 1
        label = f"{name}@{count}" if count else name
        node = self.codes(value, code_spec(made, name), label)
        self.quantized[label] = node
        return self.form_of(node)

    def rows(self, value: Rows, weight: Weight) -> Value:
        """Codes of the rows that indices name; numbers where the indices are known beforehand."""
        if len(weight.steps) != 1:
            raise UnsupportedOp(f"layer {self.layer}: a table with several steps: its codes are no one grid's")
        if not value.source:
            return Const(weight.codes.double() * float(weight.steps[0]))
        least, largest = int(weight.codes.min()), int(weight.codes.max())
        return self.form_of(self.add(graph.LookUp(
            name=f"{self.layer}.rows", shape=value.shape, range=Range((least,), (largest,)), layer=self.layer,
            code=CodeSpec(weight.steps[0], Fraction(0), least, largest), table=weight.codes, source=value.source,
        )))  # fmt: skip

    def codes(self, value: Value, code: CodeSpec, label: str) -> str:
        """The node of the codes of a value: the quantizer is pushed in front of every move."""
        if isinstance(value, Moved):
            fill = code.steps(value.options[1]) if value.kind == "pad" else None
            sources = tuple(
                self.codes(v, code, label if len(value.sources) == 1 else f"{label}.{i}")
                for i, v in enumerate(value.sources)
            )
            if value.kind == "max_pool":
                return self.add(graph.MaxPool(
                    name=label, shape=value.shape, range=self.nodes[sources[0]].range, layer=self.layer, code=code,
                    x=sources[0], window=value.options[0], lowest=code.n,
                ))  # fmt: skip
            options = (value.options[0], fill) if value.kind == "pad" else value.options
            return self.move(value.kind, sources, options, value.shape, label)
        limits = Range((code.n,), (code.p,))
        if isinstance(value, Image):
            return self.add(graph.Encode(name=label, shape=value.shape, range=limits, layer=self.layer, code=code,
                                         source=value.source, quantizer=label))  # fmt: skip
        if isinstance(value, FloatValue):
            return self.add(graph.Encode(name=label, shape=value.shape, range=limits, layer=self.layer, code=code,
                                         source=value.node, quantizer=label))  # fmt: skip
        if isinstance(value, Const):
            flat = value.values.double().reshape(-1).tolist()
            known = torch.tensor([code.steps(Fraction(v)) for v in flat]).view(value.values.shape)
            return self.add(graph.Constant(name=label, shape=tuple(known.shape), range=limits, layer=self.layer,
                                           code=code, values=known))  # fmt: skip
        if not isinstance(value, Form):
            raise UnsupportedOp(f"layer {self.layer}: quantizer {label} reads something that is no activation")
        return self.add(graph.Requantize(name=label, shape=value.shape, range=limits, layer=self.layer, code=code,
                                         form=value, quantizer=label))  # fmt: skip

    def move(
        self, kind: str, sources: Sequence[str], options: tuple[Any, ...], shape: tuple[int, ...], label: str
    ) -> str:
        """A node of moved integers, its range the union of its sources'."""
        ranges = [self.nodes[s].range for s in sources]
        merged = Range((min(r.least for r in ranges),), (max(r.largest for r in ranges),), max(r.error for r in ranges))
        if len(ranges) == 1 and kind in ("reshape", "slice") and len(shape) > 1:
            rows = len(ranges[0].low)
            same = rows > 1 and shape[1] == rows == self.nodes[sources[0]].shape[1]
            merged = (
                ranges[0]
                if same and (kind == "slice" or _keeps_axis_1(self.nodes[sources[0]].shape, shape))
                else merged
            )
        return self.add(graph.Move(name=f"{label}:{kind}" if label in self.nodes else label, shape=shape, range=merged,
                                   layer=self.layer, code=self.nodes[sources[0]].code, xs=tuple(sources), kind=kind,
                                   options=options))  # fmt: skip

    # ---- forms -------------------------------------------------------------------------------------------------------

    def as_codes(self, value: Value, what: str) -> tuple[str, CodeSpec, tuple[int, int, int, int]]:
        """(node, quantizer, zero padding around it) of a value that must be plain codes."""
        padding = (0, 0, 0, 0)
        if isinstance(value, Moved) and value.kind == "pad" and value.options[1] == 0:
            sides = value.options[0]
            if any(sides[4:]) or len(value.shape) not in (3, 4):
                raise UnsupportedOp(f"layer {self.layer}: {what} pads other axes than rows and columns")
            left, right, top, bottom = (*sides, 0, 0)[:4]
            padding, value = (top, bottom, left, right), value.sources[0]
        if isinstance(value, Moved):
            value = self.as_form(value)
        if isinstance(value, Form) and len(value.terms) == 1 and not value.functions and len(value.sources) == 1:
            node = self.nodes[value.sources[0]]
            if node.code is not None and value.terms[0].slopes == (node.code.s,) and value.border is None:
                return node.name, node.code, padding
        raise UnsupportedOp(
            f"layer {self.layer}: {what} reads values that no quantizer made codes of; leave it out with an override "
            "(skip: true) only in float models, or quantize its input"
        )

    def as_form(self, value: Value) -> Form:
        """A value as an affine sum: moves are applied to the integers behind it. NotAffine when they cannot be."""
        if isinstance(value, Form):
            return value
        if not isinstance(value, Moved):
            raise NotAffine("a float value")
        forms = [self.as_form(v) for v in value.sources]
        if value.kind == "concat":
            return self._concatenated(forms, value)
        form = forms[0]
        if value.kind in ("pad", "max_pool") or form.border is not None:
            form = self.evaluated(form)
            if value.kind == "pad" and value.options[1] == 0:
                node = self.move("pad", form.sources, (value.options[0], 0), value.shape, f"{self.layer}.padded")
                return dataclasses.replace(form, terms=(Term((node,), form.terms[0].slopes),), shape=value.shape)
            if value.kind == "max_pool":
                lowest = self.nodes[form.sources[0]].range.least
                node = self.add(graph.MaxPool(
                    name=f"{self.layer}.max", shape=value.shape, range=self.nodes[form.sources[0]].range,
                    layer=self.layer, x=form.sources[0], window=value.options[0], lowest=lowest,
                ))  # fmt: skip
                return dataclasses.replace(form, terms=(Term((node,), form.terms[0].slopes),), shape=value.shape)
        axis = self._moved_axis(form, value)
        terms = []
        for term in form.terms:
            moved = []
            for source in term.nodes:
                if self.nodes[source].shape != form.shape:
                    raise NotAffine(f"{value.kind} of a broadcast product")
                moved.append(self.move(value.kind, (source,), value.options, value.shape, f"{self.layer}.{value.kind}"))
            terms.append(Term(tuple(moved), _sliced(term.slopes, form, value)))
        functions = tuple(
            Affine(_sliced(f.slopes, form, value), _sliced(f.intercepts, form, value)) if isinstance(f, Affine) else f
            for f in form.functions
        )
        return Form(tuple(terms), _sliced(form.intercepts, form, value), value.shape, axis, functions)

    def _moved_axis(self, form: Form, value: Moved) -> int:
        """Where the channel axis lies after a move; NotAffine when it is split or joined and channels differ."""
        if value.kind == "permute":
            return list(value.options[0]).index(form.axis)
        if value.kind in ("slice", "gather"):
            return form.axis
        if form.rows == 1:
            return min(1, len(value.shape) - 1)
        before = math.prod(form.shape[: form.axis])
        for axis, size in enumerate(value.shape):
            if math.prod(value.shape[:axis]) == before and size == form.shape[form.axis]:
                return axis
        raise NotAffine(f"{value.kind} from {form.shape} to {value.shape} splits the channels")

    def _concatenated(self, forms: list[Form], value: Moved) -> Form:
        axis = value.options[0]
        forms = [f if len(f.terms) == 1 and not f.functions and f.border is None and len(f.sources) == 1
                 else self.evaluated(f) for f in forms]  # fmt: skip
        alike = all(f.rows == 1 and f.terms[0].slopes == forms[0].terms[0].slopes and
                    f.intercepts == forms[0].intercepts for f in forms)  # fmt: skip
        node = self.move("concat", [f.sources[0] for f in forms], (axis,), value.shape, f"{self.layer}.concat")
        if alike:
            return dataclasses.replace(forms[0], terms=(Term((node,), forms[0].terms[0].slopes),), shape=value.shape)
        slopes = tuple(s for f in forms for s in _expanded(f.terms[0].slopes, f, axis))
        intercepts = tuple(s for f in forms for s in _expanded(f.intercepts, f, axis))
        return Form((Term((node,), slopes),), intercepts, value.shape, axis)

    def evaluated(self, form: Form) -> Form:
        """A form as one integer tensor in fixed point; codes stay what they are."""
        plain = len(form.terms) == 1 and not form.functions and form.border is None and len(form.sources) == 1
        return form if plain and form.rows == 1 else self.in_fixed_point(form)

    def in_fixed_point(self, form: Form, width: int | None = None, limit: int | None = None) -> Form:
        """A node that holds a form in fixed point; `width`: bits of its magnitude at most; `limit`: a known one."""
        ranges = self.ranges(form)
        try:
            bits = FRACTION_BITS
            if width is not None:
                bits = width - (reach_of(form, ranges) if limit is None else limit).bit_length()
            rule, range_ = fixed_value(form, ranges, bits=bits, limit=limit)
        except UnsupportedOp as problem:
            raise UnsupportedOp(f"layer {self.layer or '(model)'}: {problem}") from problem
        node = self.add(graph.Evaluate(name=f"{self.layer}.value", shape=form.shape, range=range_, layer=self.layer,
                                       form=form, shift=rule.shift))  # fmt: skip
        return Form((Term((node,), (Fraction(1, 2**rule.shift),)),), (Fraction(0),), form.shape, form.axis)

    def then(self, value: Value, *functions: Function) -> Value:
        """Scalar functions behind a value; they pass through moves (a pad's number is mapped)."""
        if isinstance(value, Form):
            if len(functions) == 1 and isinstance(functions[0], Affine):
                return value.affine(functions[0].slopes, functions[0].intercepts)
            return value.then(*functions)
        if not isinstance(value, Moved):
            raise NotAffine("a float value")
        scalar = all(not isinstance(f, Affine) or len(f.slopes) == len(f.intercepts) == 1 for f in functions)
        kept = value.kind in ("reshape", "slice", "gather") and value.shape[1:2] == value_shape(value.sources[0])[1:2]
        if value.kind == "gather":
            kept = kept and value.options[0] != 1
        if value.kind == "reshape":
            kept = kept and _keeps_axis_1(value_shape(value.sources[0]), value.shape)
        if scalar and (value.kind not in ("pad", "max_pool") or all(map(_rising, functions))):
            options = value.options
            if value.kind == "pad":
                options = (options[0], _mapped(options[1], functions))
            return dataclasses.replace(
                value, sources=tuple(self.then(v, *functions) for v in value.sources), options=options
            )
        if kept:
            return dataclasses.replace(value, sources=(self.then(value.sources[0], *functions),))
        return self.then(self.as_form(value), *functions)

    # ---- float islands -----------------------------------------------------------------------------------------------

    def keep_float(
        self, operator: str, node: fx.Node, arguments: list[Any], keywords: dict[str, Any], why: str = ""
    ) -> Value:
        """An operator without integer form, computed in float64 on decoded numbers, and listed."""
        if not self.allow_float:
            raise UnsupportedOp(
                f"layer {self.layer or '(model)'}: {operator} has no integer form here{': ' + why if why else ''}; "
                "allow it to stay float (allow_float=True), or replace it"
            )
        forms: list[Form | str] = []
        given = tree_map(lambda value: self._slot(value, forms), (arguments, keywords), is_leaf=_is_value)
        target = cast(Any, node.target)
        if not forms:
            return self._known(operator, target, *given)
        sized = operator in _SIZED

        def function(*tensors: Tensor) -> Tensor:
            filled, named = tree_map(lambda v: tensors[v.index] if isinstance(v, _Slot) else v, given)
            if sized and isinstance(filled[1], (list, tuple)):  # sizes were those of one image
                filled[1] = [len(tensors[0]) if i == 0 and n == 1 else n for i, n in enumerate(filled[1])]
            return target(*filled, **named)

        found = node.meta["val"]
        if not isinstance(found, Tensor):
            return tuple(
                self._float_op(operator, tuple(int(n) for n in part.shape), forms, _part(function, i))
                for i, part in enumerate(found)
            )
        return self._float_op(operator, tuple(int(n) for n in found.shape), forms, function)

    def _float_op(
        self, operator: str, shape: tuple[int, ...], forms: list[Form | str], function: Callable[..., Tensor]
    ) -> FloatValue:
        made = self.add(graph.FloatOp(
            name=f"{self.layer}.{operator}", shape=shape, range=Range((0,), (0,)), layer=self.layer, operator=operator,
            forms=tuple(forms), function=function,
        ))  # fmt: skip
        return FloatValue(made, shape)

    def _slot(self, value: Any, forms: list[Form | str]) -> Any:
        """An operand's place among the forms; numbers known beforehand as they are."""
        if isinstance(value, Const):
            return value.values
        if isinstance(value, (Weight, tuple)):
            raise UnsupportedOp(
                f"layer {self.layer or '(model)'}: an operator on quantized weights has no integer form"
            )
        if isinstance(value, (Form, Moved, FloatValue, Image)):
            forms.append(self.real(value))
            return _Slot(len(forms) - 1)
        return value

    def _known(self, operator: str, target: Any, arguments: list[Any], keywords: dict[str, Any]) -> Value:
        """The result of an operator on numbers known beforehand."""
        with torch.no_grad():
            found = target(*arguments, **keywords)
        if isinstance(found, Tensor):
            return Const(found)
        if isinstance(found, (tuple, list)) and all(isinstance(part, Tensor) for part in found):
            return tuple(Const(part) for part in found)
        raise UnsupportedOp(f"layer {self.layer or '(model)'}: {operator} gives no tensor")

    def real(self, value: Value) -> Form | str:
        """A value as real numbers: a form, or a node that holds them in floating point."""
        if isinstance(value, FloatValue):
            return value.node
        if isinstance(value, Image):
            return self.add(graph.RealInput(
                name=f"{value.source}.real", shape=value.shape, range=Range((0,), (0,)), source=value.source
            ))  # fmt: skip
        try:
            return self.as_form(value)
        except NotAffine:
            if not isinstance(value, Moved):
                raise
        forms = [self.real(source) for source in value.sources if not isinstance(source, Const)]
        known = [source.values if isinstance(source, Const) else None for source in value.sources]
        kind, options, shape = value.kind, value.options, value.shape

        def function(*tensors: Tensor) -> Tensor:
            rest = iter(tensors)
            return moved_real(kind, options, shape, [next(rest) if k is None else k for k in known])

        return self._float_op(kind, shape, forms, function).node


# Operators whose second argument is the size of the result, batch included.
_SIZED = ("expand", "view", "reshape", "_unsafe_view", "broadcast_to")


def _is_value(value: Any) -> bool:
    return isinstance(value, (Form, Moved, Const, Weight, Image, FloatValue))


def _part(function: Callable[..., Any], index: int) -> Callable[..., Tensor]:
    return lambda *tensors: function(*tensors)[index]


def moved_real(kind: str, options: tuple[Any, ...], shape: tuple[int, ...], tensors: list[Tensor]) -> Tensor:
    """A move of real numbers; `shape` is the result's for one image."""
    x = tensors[0]
    if kind == "reshape":
        return x.reshape(len(x), *shape[1:]) if len(x) > 1 and shape[0] == 1 else x.reshape(shape)
    if kind == "permute":
        return x.permute(options[0])
    if kind == "slice":
        axis, start, stop, step = options
        return x[(slice(None),) * axis + (slice(start, stop, step),)]
    if kind == "gather":
        return x.index_select(options[0], torch.tensor(options[1], device=x.device))
    if kind == "pad":
        return F.pad(x, options[0], value=float(options[1]))
    if kind == "max_pool":
        w = options[0]
        top, bottom, left, right = w.padding
        x = F.pad(x, (left, right, top, bottom), value=-math.inf)
        return F.max_pool2d(x, w.kernel, w.stride, 0, w.dilation)
    most = max(t.shape[0] for t in tensors)
    return torch.cat([t if options[0] == 0 else t.expand(most, *t.shape[1:]) for t in tensors], options[0])


@dataclass(frozen=True)
class _Slot:
    index: int


class NotAffine(Exception):
    """A value that is no affine sum of integers where one is needed."""


def code_spec(made: BaseQuantizer, name: str) -> CodeSpec:
    """The numbers of an activation quantizer. UnsupportedOp for methods that bend the axis before rounding."""
    if made.spec.method not in PLAIN_METHODS:
        raise UnsupportedOp(
            f"quantizer {name}: method {made.spec.method!r} transforms activations before rounding; "
            f"integer forms exist for {', '.join(PLAIN_METHODS)}: train with --method {PLAIN_METHODS[-2]}, for one"
        )
    with torch.no_grad():
        s, beta = rationals(made.step()), rationals(made.offset())
    if len(s) != 1:
        raise UnsupportedOp(f"quantizer {name}: one step per channel of an activation has no integer convolution")
    return CodeSpec(s[0], beta[0], made.spec.n, made.spec.p)


def first_line(problem: Exception) -> str:
    """The first line of an error with anything in it; its type where there is none."""
    return next((line.strip() for line in str(problem).splitlines() if line.strip()), type(problem).__name__)


def layer_of(node: fx.Node) -> str:
    """Qualified name of the innermost module that made an exported node."""
    stack = node.meta.get("nn_module_stack") or {}
    return next(reversed(stack.values()))[0] if stack else ""


def operator_name(node: fx.Node) -> str:
    """`conv2d` of aten.conv2d.default, `quantizer` of the marked node, `getitem` of operator.getitem."""
    target = node.target
    return target._opname if isinstance(target, torch._ops.OpOverload) else getattr(target, "__name__", str(target))


def pair(value: Pair) -> tuple[int, int]:
    """Two numbers out of one or two."""
    values = [value] if isinstance(value, int) else list(value)
    return (values[0], values[-1])


def shape_of(node: fx.Node) -> tuple[int, ...]:
    """Shape of an exported node's result."""
    return tuple(int(n) for n in node.meta["val"].shape)


def value_shape(value: Value) -> tuple[int, ...]:
    """Shape of a value, for one image; NotAffine where it is no tensor of numbers."""
    if isinstance(value, Const):
        return tuple(value.values.shape)
    if isinstance(value, (Form, Moved, Image, FloatValue)):
        return value.shape
    raise NotAffine("no tensor")


def _keeps_axis_1(before: tuple[int, ...], after: tuple[int, ...]) -> bool:
    return len(before) > 1 and len(after) > 1 and before[:2] == after[:2]


def _expanded(values: Rationals, form: Form, axis: int) -> Rationals:
    """One coefficient per index of the concatenation axis."""
    if len(values) == 1:
        return values * form.shape[axis]
    if form.axis != axis:
        raise NotAffine("a concatenation across the channels' axis")
    return values


def _sliced(values: Rationals, form: Form, value: Moved) -> Rationals:
    """Coefficients after a move: a slice or gather along the channels takes some of them."""
    if len(values) == 1 or value.kind not in ("slice", "gather") or value.options[0] != form.axis:
        return values
    if value.kind == "gather":
        return tuple(values[i] for i in value.options[1])
    _, start, stop, step = value.options
    return values[start:stop:step]


def _rising(function: Function) -> bool:
    return isinstance(function, (Clamp, Leaky)) or (isinstance(function, Affine) and function.slopes[0] > 0)


def _mapped(number: Fraction, functions: Sequence[Function]) -> Fraction:
    for f in functions:
        if isinstance(f, Affine):
            number = f.slopes[0] * number + f.intercepts[0]
        elif isinstance(f, Clamp):
            number = number if f.low is None else max(number, f.low)
            number = number if f.high is None else min(number, f.high)
        elif isinstance(f, Leaky):
            number = number * f.slope if number < 0 else number
    return number
