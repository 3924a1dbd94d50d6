# pyright: basic
"""Integer nodes of values: forms, codes and moves.

A value is made an affine sum by moving the integers behind it, and scalar functions pass through moves, because moving
numbers and computing with each alone commute.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from hwsim.errors import UnsupportedOp
from hwsim.integer import graph
from hwsim.integer.arithmetic.forms import Affine, Form, Function, Rationals, Term
from hwsim.integer.arithmetic.rules import CodeSpec, Range
from hwsim.integer.arithmetic.steps import Clamp, Leaky
from hwsim.integer.graph import Node
from hwsim.integer.lowering.fixed_values import FRACTION_BITS, fixed_value, reach_of
from hwsim.integer.lowering.values import Moved, NotAffine, Value, value_shape


class Builder:
    """The integer nodes made so far, and the forms and codes that values become of them."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.layer = ""

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

    def in_fixed_point(
        self, form: Form, width: int | None = None, limit: int | None = None, bits: int = FRACTION_BITS
    ) -> Form:
        """A node that holds a form in fixed point; `width`: bits of its magnitude at most; `limit`: a known one;
        `bits`: fractional ones at most, where no width is given.
        """
        ranges = self.ranges(form)
        try:
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
