# pyright: basic
"""Sums of forms, and what the handlers of products, pools and norms need around them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from torch import Tensor, fx

from hwsim.integer import graph
from hwsim.integer.arithmetic.forms import Affine, Form, Rationals, Term, plus, rationals, rows_of
from hwsim.integer.arithmetic.rules import Range
from hwsim.integer.lowering.exported_nodes import shape_of
from hwsim.integer.lowering.nonlinear import is_mask, masked
from hwsim.integer.lowering.values import Const, FloatValue, Moved, NotAffine, Value
from hwsim.integer.lowering.walk import Lowering


def sum_along(low: Lowering, source: str, axes: tuple[int, ...], label: str) -> str:
    """A node of sums over axes, kept as size 1."""
    shape = list(low.nodes[source].shape)
    axes = tuple(a % len(shape) for a in axes)
    count = math.prod(shape[a] for a in axes)
    for a in axes:
        shape[a] = 1
    range_ = low.nodes[source].range
    summed = graph.total_range([range_], count)
    if len(range_.low) > 1 and 1 not in axes and len(range_.low) == shape[1]:
        summed = Range(tuple(count * v for v in range_.low), tuple(count * v for v in range_.high), summed.error)
    return low.add(graph.SumAlong(name=label, shape=tuple(shape), range=summed, layer=low.layer, x=source, axes=axes))


def add(low: Lowering, node: fx.Node, x: Value, y: Value, *, alpha: float = 1) -> Value:
    """Sums of forms, or of a form and constants; values with functions behind them are evaluated first."""
    if isinstance(x, Const) and not isinstance(y, Const):
        return add(low, node, y if alpha == 1 else scaled(low, y, alpha), x)
    if isinstance(y, (int, float)):
        return low.then(x, Affine((Fraction(1),), (Fraction(y) * Fraction(alpha),)))
    if isinstance(y, Const) and low.nonlinear != "float" and is_mask(y.values):
        return masked(low, x, y.values < 0)
    if isinstance(y, Const):
        return low.then(x, Affine((Fraction(1),), per_channel(low, x, y.values * alpha)))
    a, b = summand(low, x), summand(low, y if alpha == 1 else scaled(low, y, alpha))
    shape = shape_of(node)
    rows = rows_of(*[t.slopes for t in (*a.terms, *b.terms)], a.intercepts, b.intercepts)
    if a.border is not None and b.border is not None:
        raise NotAffine("two borders in one sum")
    if rows > 1 and a.axis != b.axis and a.rows > 1 and b.rows > 1:
        raise NotAffine("channels on different axes")
    axis = a.axis if a.rows > 1 else b.axis
    return Form(merged((*a.terms, *b.terms)), plus(a.intercepts, b.intercepts), shape, axis, (), a.border or b.border)


def merged(terms: Sequence[Term]) -> tuple[Term, ...]:
    """Terms of the same integers added up."""
    found: dict[tuple[str, ...], Rationals] = {}
    for t in terms:
        found[t.nodes] = plus(found[t.nodes], t.slopes) if t.nodes in found else t.slopes
    return tuple(Term(n, s) for n, s in found.items())


def summand(low: Lowering, value: Value) -> Form:
    """A value as an affine sum without functions."""
    form = low.as_form(value)
    return low.evaluated(form) if form.functions else form


def scaled(low: Lowering, value: Value, factor: float) -> Value:
    """factor * value."""
    return low.then(value, Affine((Fraction(factor),), (Fraction(0),)))


def per_channel(low: Lowering, x: Value, values: Tensor) -> Rationals:
    """Constants broadcast against a form: one for all, or one per channel."""
    if values.numel() == 1:
        return rationals(values)
    shape = (1,) * (len(_shape(x)) - values.ndim) + tuple(values.shape)
    axes = [i for i, n in enumerate(shape) if n > 1]
    form = x if isinstance(x, Form) else None
    axis = form.axis if form is not None and form.rows > 1 else axes[0]
    if len(axes) != 1 or axes[0] != axis or (form is not None and form.axis != axis):
        raise NotAffine(f"constants of shape {tuple(values.shape)} against {_shape(x)}")
    return rationals(values)


def _shape(value: Value) -> tuple[int, ...]:
    if isinstance(value, (Form, Moved, FloatValue)):
        return value.shape
    raise NotAffine("no activation")
