# pyright: basic
"""Products: convolutions and linear layers with quantized weights, and products of two activations.

A product becomes integer accumulators and a form of them: the steps multiply, offsets are folded into the bias
(LSQ+ Eq. 5), a border bias where padding asks for it, row and column sums where both sides are activations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, fx

from hwsim.errors import UnsupportedOp
from hwsim.integer import graph
from hwsim.integer.arithmetic.forms import Border, Form, Rationals, Term, plus, rationals, times
from hwsim.integer.arithmetic.geometry import Window, border_sums
from hwsim.integer.arithmetic.kernels import accumulator_bounds, magnitude_bound, narrowest
from hwsim.integer.arithmetic.rules import CodeSpec, Range
from hwsim.integer.lowering.exported_nodes import shape_of
from hwsim.integer.lowering.grouped import Site, grouped_sums
from hwsim.integer.lowering.sums import merged, sum_along
from hwsim.integer.lowering.values import Const, Moved, NotAffine, Pair, Value, pair, value_shape
from hwsim.integer.lowering.walk import Lowering
from hwsim.integer.lowering.weights import Weight
from quant.spec import PADDING_POLICIES

Bias = Value | None


# ---- products with weights -------------------------------------------------------------------------------------------


def convolution(
    low: Lowering, node: fx.Node, x: Value, weight: Value, bias: Bias = None, stride: Pair = 1, padding: Any = 0,
    dilation: Pair = 1, groups: int = 1,
) -> Value:  # fmt: skip
    """Accumulators, and the folded bias of LSQ+ Eq. 5 with whatever its padding policy asks for."""
    weight = need_weight(low, weight)
    source, code, around = low.as_codes(x, "a convolution")
    one_d = weight.codes.ndim == 3
    kernel = weight.codes.shape[2:]
    if isinstance(padding, str):
        padding = _named_padding(padding, kernel, dilation)
    stride, dilation = ((1, pair(stride)[0]), (1, pair(dilation)[0])) if one_d else (pair(stride), pair(dilation))
    own = padding if isinstance(padding, tuple) and len(padding) == 4 else _four(padding, one_d)
    window = Window(
        (1, int(kernel[0])) if one_d else (int(kernel[0]), int(kernel[1])), stride, dilation,
        (own[0] + around[0], own[1] + around[1], own[2] + around[2], own[3] + around[3]), groups,
    )  # fmt: skip
    if one_d:
        weight = rows_of_one(weight)
    shape = shape_of(node)
    if one_d:
        source_shape = low.nodes[source].shape
        source = low.move("reshape", (source,), ((*source_shape[:2], 1, source_shape[2]),),
                          (*source_shape[:2], 1, source_shape[2]), f"{low.layer}.rows")  # fmt: skip
        shape = (*shape[:2], 1, shape[2])
    form = accumulators(low, source, code, weight, bias, window, shape)
    return Moved("reshape", (form,), (shape_of(node),), shape_of(node)) if one_d else form


def accumulators(
    low: Lowering, source: str, code: CodeSpec, weight: Weight, bias: Bias, window: Window, shape: tuple[int, ...],
) -> Form:  # fmt: skip
    """The node of a convolution and its form: slope s_x*s_w, intercept bias + beta*s_w*sum(w), border where needed."""
    policy = padding_policy(low, window, code)
    constant = biases(bias)
    fill = code.zero_code if policy in ("pad_code", "snap_offset") else 0
    padding = graph.Padding(policy=policy, code=fill, naive_code=0)
    if weight.groups:
        if policy == "border_bias":
            raise UnsupportedOp(
                f"layer {low.layer}: groups of weights have no integer form with padding_policy border_bias; "
                f"quantize with {', '.join(p for p in PADDING_POLICIES if p != policy)}"
            )
        return grouped_sums(low, Site(source, code, window, padding, shape), weight, constant)
    codes, steps = weight.codes, weight.steps
    offset_slopes = tuple(code.beta * s for s in steps)
    border = None
    if policy == "border_bias":
        runs = window.runs(*low.nodes[source].shape[2:])
        border = Border(*runs, border_sums(codes, *runs), codes.to(torch.int64).sum((1, 2, 3)), offset_slopes)
    elif code.beta != 0:
        sums = tuple(Fraction(int(v)) for v in codes.to(torch.int64).sum((1, 2, 3)))
        constant = plus(constant, times(offset_slopes, sums))
    least, largest = accumulator_bounds(codes, code.n, code.p)
    made = low.add(graph.Convolve(
        name=f"{low.layer}.accumulators", shape=shape, layer=low.layer, x=source, window=window,
        range=Range(tuple(least.tolist()), tuple(largest.tolist())), weight=packed(codes),
        padding=padding, bound=magnitude_bound(codes, code.n, code.p), per_channel_scale=len(steps) > 1,
        element_bits=weight.element_bits,
    ))  # fmt: skip
    slopes = tuple(code.s * s for s in steps)
    return Form((Term((made,), slopes),), constant, shape, 1, (), border)


def padding_policy(low: Lowering, window: Window, code: CodeSpec) -> str:
    """The policy that matters: `none` where nothing is padded or the quantizer has no offset."""
    if not window.padded or code.beta == 0:
        return "none"
    owner = low.owners.get(low.layer)
    return str(getattr(owner, "padding_policy", "border_bias"))


def linear(low: Lowering, node: fx.Node, x: Value, weight: Value, bias: Bias = None) -> Value:
    """The handler of a linear layer."""
    return linear_form(low, x, need_weight(low, weight), bias)


def linear_form(low: Lowering, x: Value, weight: Weight, bias: Bias = None) -> Form:
    """Accumulators over the last axis, the offset folded into the bias."""
    source, code, _ = low.as_codes(x, "a linear layer")
    codes, constant = weight.codes, biases(bias)
    shape = (*value_shape(x)[:-1], len(codes))
    if weight.groups:
        site = Site(source, code, None, graph.Padding(policy="none", code=0, naive_code=0), shape)
        return grouped_sums(low, site, weight, constant)
    if code.beta != 0:
        sums = tuple(Fraction(int(v)) for v in codes.to(torch.int64).sum(1))
        constant = plus(constant, times(tuple(code.beta * s for s in weight.steps), sums))
    least, largest = accumulator_bounds(codes, code.n, code.p)
    made = low.add(graph.Convolve(
        name=f"{low.layer}.accumulators", shape=shape, layer=low.layer, x=source, window=None,
        range=Range(tuple(least.tolist()), tuple(largest.tolist())), weight=packed(codes),
        padding=graph.Padding(policy="none", code=0, naive_code=0),
        bound=magnitude_bound(codes, code.n, code.p), per_channel_scale=len(weight.steps) > 1,
        element_bits=weight.element_bits,
    ))  # fmt: skip
    return Form((Term((made,), tuple(code.s * s for s in weight.steps)),), constant, shape, len(shape) - 1)


def rows_of_one(weight: Weight) -> Weight:
    """The weight of a one-dimensional convolution as that of maps of one row."""
    groups = tuple(replace(g, place=(g.place[0], slice(0, 1), *g.place[1:])) for g in weight.groups)
    return replace(weight, codes=weight.codes.unsqueeze(2), groups=groups)


def packed(codes: Tensor) -> Tensor:
    """Weight codes in the narrowest dtype."""
    return codes.to(narrowest(int(codes.min()), int(codes.max())))


def need_weight(low: Lowering, weight: Value) -> Weight:
    """The weight codes, or an error that names the layer."""
    if not isinstance(weight, Weight):
        raise UnsupportedOp(
            f"layer {low.layer}: its weights have no quantizer; quantize the layer (an override with skip: true leaves "
            "it in float, where no integer machine can follow)"
        )
    return weight


def biases(bias: Bias) -> Rationals:
    """A bias as rationals; zero where there is none."""
    return rationals(bias.values) if isinstance(bias, Const) else (Fraction(0),)


def _four(padding: Any, one_d: bool) -> tuple[int, int, int, int]:
    rows, columns = (0, pair(padding)[0]) if one_d else pair(padding)
    return (rows, rows, columns, columns)


def _named_padding(padding: str, kernel: Sequence[int], dilation: Pair) -> Any:
    """`valid` and `same` of torch's convolutions: the odd one goes after."""
    if padding == "valid":
        return 0
    spans = [d * (k - 1) for d, k in zip(pair(dilation), (kernel[0], kernel[-1]), strict=True)]
    if len(kernel) == 1:
        return (0, 0, spans[1] // 2, spans[1] - spans[1] // 2)
    return (spans[0] // 2, spans[0] - spans[0] // 2, spans[1] // 2, spans[1] - spans[1] // 2)


# ---- products of activations --------------------------------------------------------------------------------


def matmul(low: Lowering, node: fx.Node, a: Value, b: Value) -> Value:
    """(s_a A + beta_a)(s_b B + beta_b): the product, row sums of A, column sums of B and a constant; nothing folds."""
    if isinstance(b, Weight):
        raise UnsupportedOp(f"layer {low.layer}: a product with a quantized weight must be a linear layer")
    (x, code_a, _), (y, code_b, _) = low.as_codes(a, "a matrix product"), low.as_codes(b, "a matrix product")
    shape_a = low.nodes[x].shape
    inner = shape_a[-1]
    ends = [u * v for u in (code_a.n, code_a.p) for v in (code_b.n, code_b.p)]
    made = low.add(graph.MatMul(
        name=f"{low.layer}.accumulators", shape=shape_of(node), layer=low.layer, a=x, b=y,
        range=Range((min(0, *ends) * inner,), (max(0, *ends) * inner,)), bound=inner * max(map(abs, ends)),
    ))  # fmt: skip
    terms = [Term((made,), (code_a.s * code_b.s,))]
    for source, axis, slope, label in (
        (x, -1, code_a.s * code_b.beta, "row sums"), (y, -2, code_b.s * code_a.beta, "column sums"),
    ):  # fmt: skip
        if slope != 0:
            terms.append(Term((sum_along(low, source, (axis,), f"{low.layer}.{label}"),), (slope,)))
    constant = inner * code_a.beta * code_b.beta
    return Form(tuple(terms), (constant,), shape_of(node), len(shape_of(node)) - 1)


def product_form(shape: tuple[int, ...], a: Form, b: Form) -> Form:
    """(sum_i a_i A_i + a)(sum_j b_j B_j + b), multiplied out."""
    if a.border is not None or b.border is not None or max(len(t.nodes) for t in (*a.terms, *b.terms)) > 1:
        raise NotAffine("a product of products")
    terms = [Term((*t.nodes, *u.nodes), times(t.slopes, u.slopes)) for t in a.terms for u in b.terms]
    terms += [Term(t.nodes, times(t.slopes, b.intercepts)) for t in a.terms]
    terms += [Term(u.nodes, times(u.slopes, a.intercepts)) for u in b.terms]
    kept = tuple(t for t in merged(terms) if any(t.slopes))
    return Form(kept, times(a.intercepts, b.intercepts), shape, a.axis if a.rows > 1 else b.axis)
