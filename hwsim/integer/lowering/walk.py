# pyright: basic
"""The walk through an exported network, operator by operator, that makes integer nodes of it.

Between two quantizers a value is a `Form` (an affine sum of integers, then functions) or a `Moved` one (reshaped,
padded, concatenated, max-pooled), whose quantizer is pushed in front of the move: moving numbers and quantizing them
commute, so what is moved are codes. What each operator does is in `hwsim.integer.lowering.operators`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import torch
from torch import fx, nn
from torch.utils._pytree import tree_unflatten

from hwsim.errors import UnsupportedOp
from hwsim.integer import graph
from hwsim.integer.arithmetic.forms import Form, rationals
from hwsim.integer.arithmetic.rules import CodeSpec, Range
from hwsim.integer.graph import IntegerModel
from hwsim.integer.lowering.exported_nodes import IGNORED, layer_of, operator_name
from hwsim.integer.lowering.islands import FloatIslands
from hwsim.integer.lowering.values import Const, FloatValue, Image, Moved, NotAffine, Rows, Value
from hwsim.integer.lowering.weights import Weight, weight_of
from quant import BaseQuantizer
from quant.calling import answer

# What a handler meets in a form of an operator that it does not know: sizes by values, lists, missing operands.
FORM_ERRORS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
# Methods whose activation codes are round(clamp((x - beta)/s, n, p)), as this machine computes them.
PLAIN_METHODS = ("lsq", "lsqplus", "pact")


class Lowering(FloatIslands):
    """The walk: an environment from exported nodes to values, and the integer nodes made on the way."""

    def __init__(
        self,
        model: nn.Module,
        program: Any,
        found: Mapping[str, BaseQuantizer],
        handlers: Mapping[str, Callable[..., Value]],
        allow_float: bool,
        nonlinear: str = "float",
    ) -> None:
        super().__init__(allow_float, nonlinear)
        self.program = program
        self.handlers = handlers
        self.found = found
        self.calls: Counter[str] = Counter()
        self.quantized: dict[str, str] = {}
        self.env: dict[fx.Node, Value] = {}
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

    def value(self, argument: Any) -> Any:
        """An argument of an exported node: values for nodes, plain numbers as they are."""
        if isinstance(argument, fx.Node):
            return self.env.get(argument)
        if isinstance(argument, (list, tuple)):
            return type(argument)(self.value(a) for a in argument)
        return argument

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
