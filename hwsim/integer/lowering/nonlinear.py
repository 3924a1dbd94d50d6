# pyright: basic
"""Softmax, LayerNorm and RMSNorm as integer nodes, where `lower(..., nonlinear=...)` asks for a method.

The operand becomes one integer tensor in fixed point; the result is one, too, and the quantizer behind it knows how far
it may be from the real numbers. What has no such form (another axis, no epsilon, an operand that is float) stays float.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import torch
from torch import fx

from hwsim.integer import graph
from hwsim.integer.arithmetic import nonlinear as methods
from hwsim.integer.arithmetic.forms import Affine, Form, Term, rationals
from hwsim.integer.arithmetic.rules import Range
from hwsim.integer.lowering.fixed_values import FRACTION_BITS, fixed_value
from hwsim.integer.lowering.values import Const, Masked, NotAffine, Value, value_shape
from hwsim.integer.lowering.walk import Lowering

# A norm whose operands' error could move its values by more than this has an epsilon too small for the words.
_COARSEST = Fraction(1, 2**14)


def softmax(low: Lowering, node: fx.Node, x: Value, axis: int, *_: Any, **__: Any) -> Value:
    """exp(u - max) / sum(exp(u - max)), masked entries left out."""
    words = words_of(low)
    hidden, inner = (x.hidden, x.value) if isinstance(x, Masked) else (None, x)
    form = low.as_form(inner)
    shape, axis = form.shape, axis % len(form.shape) - len(form.shape)
    if not methods.softmax_fits(shape[axis]) or axis == -len(shape):
        raise NotAffine("a softmax over the samples, or over more entries than a sum holds")
    source, shift = fixed(low, form, words.softmax)
    bits = methods.softmax_bits(low.nonlinear)
    error = methods.softmax_error(low.nodes[source].range.error, shift, shape[axis], low.nonlinear)
    made = low.add(graph.Softmax(
        name=f"{low.layer}.softmax", shape=shape, range=Range((0,), ((1 << bits) + error,), error), layer=low.layer,
        x=source, axis=axis, shift=shift, method=low.nonlinear, hidden=hidden,
    ))  # fmt: skip
    return Form((Term((made,), (Fraction(1, 1 << bits),)),), (Fraction(0),), shape, len(shape) - 1)


def layer_norm(low: Lowering, node: fx.Node, x: Value, sizes: Any, gamma: Value = None, beta: Value = None,
               eps: float = 1e-5, *_: Any) -> Value:  # fmt: skip
    """gamma (x - mean) / sqrt(variance + eps) + beta over the last axis."""
    return norm(low, x, sizes, gamma, beta, eps, centred=True)


def native_layer_norm(low: Lowering, node: fx.Node, *arguments: Any) -> Value:
    """The operator that a layer norm becomes in a functional graph: its result, and no statistics."""
    return layer_norm(low, node, *arguments), None, None


def rms_norm(
    low: Lowering, node: fx.Node, x: Value, sizes: Any, gamma: Value = None, eps: float | None = None
) -> Value:
    """gamma x / sqrt(mean of squares + eps) over the last axis; without an epsilon torch takes float64's."""
    return norm(low, x, sizes, gamma, None, torch.finfo(torch.float64).eps if eps is None else eps, centred=False)


def norm(low: Lowering, x: Value, sizes: Any, gamma: Value, beta: Value, eps: float, *, centred: bool) -> Value:
    """A norm over the last axis, then gamma and beta of each channel."""
    words = words_of(low)
    form, count = low.as_form(x), value_shape(x)[-1]
    if list(sizes) != [count] or len(form.shape) < 2 or count > methods.LARGEST_NORM:
        raise NotAffine(f"a norm over more than the last axis, or over more than {methods.LARGEST_NORM} values")
    source, shift = fixed(low, form, words.norm, words.largest)
    made_of = low.nodes[source].range
    bits, exact = methods.norm_bits(count, low.nonlinear), Fraction(eps)
    if exact <= 0:
        raise NotAffine("a norm without an epsilon")
    error = methods.norm_error(made_of.error, shift, count, exact, low.nonlinear)
    if error > _COARSEST * (1 << bits):
        raise NotAffine(f"a norm whose epsilon {eps:g} is too small for words of {shift} fractional bits")
    reach = (math.isqrt(count) + 1 << bits) + error
    made = low.add(graph.Normalize(
        name=f"{low.layer}.normalized", shape=form.shape, range=Range((-reach,), (reach,), error), layer=low.layer,
        x=source, shift=shift, eps=exact, centred=centred, method=low.nonlinear,
    ))  # fmt: skip
    found = Form((Term((made,), (Fraction(1, 1 << bits),)),), (Fraction(0),), form.shape, len(form.shape) - 1)
    slopes = rationals(gamma.values) if isinstance(gamma, Const) else (Fraction(1),)
    shifts = rationals(beta.values) if isinstance(beta, Const) else (Fraction(0),)
    return low.then(found, Affine(slopes, shifts))


def masked_fill(low: Lowering, node: fx.Node, x: Value, mask: Value, value: Any) -> Value:
    """-inf where a known mask is set: what a softmax leaves out."""
    words_of(low)
    filled = float(value.values) if isinstance(value, Const) and value.values.numel() == 1 else value
    if not isinstance(mask, Const) or not isinstance(filled, float) or filled != -math.inf:
        raise NotAffine("a mask that is computed, or filled with another number than -inf")
    return masked(low, x, mask.values.bool())


def is_mask(values: torch.Tensor) -> bool:
    """Whether numbers that are added hide entries from a softmax: 0 and -inf alone."""
    return bool(((values == 0) | (values == -math.inf)).all()) and bool((values < 0).any())


def masked(low: Lowering, x: Value, hidden: torch.Tensor) -> Value:
    """A value with hidden entries; NotAffine where it is no affine sum, or where samples have masks of their own."""
    inner, before = (x.value, x.hidden) if isinstance(x, Masked) else (x, None)
    form = low.as_form(inner)
    if hidden.ndim == len(form.shape) and hidden.shape[0] != 1:
        raise NotAffine("a mask for each sample")
    return Masked(form, hidden if before is None else hidden | before, form.shape)


def words_of(low: Lowering) -> methods.Words:
    """The words of the method; NotAffine where such operators stay float."""
    if low.nonlinear == "float":
        raise NotAffine("")
    return methods.WORDS[low.nonlinear]


def fixed(low: Lowering, form: Form, bits: int, largest: int | None = None) -> tuple[str, int]:
    """(node, fractional bits) of a form in fixed point, with fewer bits where its values would reach `largest`."""
    bits = min(bits, FRACTION_BITS) if form.functions else bits
    if largest is not None:
        rule, range_ = fixed_value(form, low.ranges(form), bits=bits)
        bits = max(0, rule.shift - max(0, range_.reach.bit_length() + 1 - largest.bit_length()))
    made = low.in_fixed_point(form, bits=bits)
    node = low.nodes[made.sources[0]]
    assert isinstance(node, graph.Evaluate)
    return node.name, node.shift
