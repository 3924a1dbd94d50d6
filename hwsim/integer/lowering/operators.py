# pyright: basic
"""One handler per operator: how it acts on forms of integers. `HANDLERS` maps aten's names (without overload) to them.

A handler takes the lowering, the exported node and the operator's arguments, and returns a value. What has no handler
stays float and is listed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, fx

from hwsim.errors import UnsupportedOp
from hwsim.integer import graph
from hwsim.integer.arithmetic.forms import Affine, Border, Form, Rationals, Term, at, plus, rationals, times
from hwsim.integer.arithmetic.geometry import Window, border_sums
from hwsim.integer.arithmetic.kernels import accumulator_bounds, magnitude_bound, narrowest
from hwsim.integer.arithmetic.rules import CodeSpec, Range
from hwsim.integer.arithmetic.steps import Clamp, Leaky, Smooth, rational_sqrt
from hwsim.integer.lowering import moves, pools
from hwsim.integer.lowering.sums import add, merged, per_channel, scaled, sum_along, summand
from hwsim.integer.lowering.transposed import transposed_convolution
from hwsim.integer.lowering.walk import Const, Lowering, Moved, NotAffine, Pair, Value, Weight, pair, shape_of

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
    codes = weight.codes.unsqueeze(2) if one_d else weight.codes
    shape = shape_of(node)
    if one_d:
        source_shape = low.nodes[source].shape
        source = low.move("reshape", (source,), ((*source_shape[:2], 1, source_shape[2]),),
                          (*source_shape[:2], 1, source_shape[2]), f"{low.layer}.rows")  # fmt: skip
        shape = (*shape[:2], 1, shape[2])
    form = accumulators(low, source, code, codes, weight.steps, bias, window, shape)
    return Moved("reshape", (form,), (shape_of(node),), shape_of(node)) if one_d else form


def accumulators(
    low: Lowering, source: str, code: CodeSpec, codes: Tensor, steps: Rationals, bias: Bias, window: Window,
    shape: tuple[int, ...],
) -> Form:  # fmt: skip
    """The node of a convolution and its form: slope s_x*s_w, intercept bias + beta*s_w*sum(w), border where needed."""
    policy = padding_policy(low, window, code)
    constant = biases(bias)
    offset_slopes = tuple(code.beta * s for s in steps)
    border = None
    if policy == "border_bias":
        runs = window.runs(*low.nodes[source].shape[2:])
        border = Border(*runs, border_sums(codes, *runs), codes.to(torch.int64).sum((1, 2, 3)), offset_slopes)
    elif code.beta != 0:
        sums = tuple(Fraction(int(v)) for v in codes.to(torch.int64).sum((1, 2, 3)))
        constant = plus(constant, times(offset_slopes, sums))
    fill = code.zero_code if policy in ("pad_code", "snap_offset") else 0
    least, largest = accumulator_bounds(codes, code.n, code.p)
    made = low.add(graph.Convolve(
        name=f"{low.layer}.accumulators", shape=shape, layer=low.layer, x=source, window=window,
        range=Range(tuple(least.tolist()), tuple(largest.tolist())), weight=packed(codes),
        padding=graph.Padding(policy=policy, code=fill, naive_code=0),
        bound=magnitude_bound(codes, code.n, code.p), per_channel_scale=len(steps) > 1,
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
    """Accumulators over the last axis, the offset folded into the bias."""
    weight = need_weight(low, weight)
    source, code, _ = low.as_codes(x, "a linear layer")
    codes, constant = weight.codes, biases(bias)
    if code.beta != 0:
        sums = tuple(Fraction(int(v)) for v in codes.to(torch.int64).sum(1))
        constant = plus(constant, times(tuple(code.beta * s for s in weight.steps), sums))
    least, largest = accumulator_bounds(codes, code.n, code.p)
    shape = shape_of(node)
    made = low.add(graph.Convolve(
        name=f"{low.layer}.accumulators", shape=shape, layer=low.layer, x=source, window=None,
        range=Range(tuple(least.tolist()), tuple(largest.tolist())), weight=packed(codes),
        padding=graph.Padding(policy="none", code=0, naive_code=0),
        bound=magnitude_bound(codes, code.n, code.p), per_channel_scale=len(weight.steps) > 1,
    ))  # fmt: skip
    return Form((Term((made,), tuple(code.s * s for s in weight.steps)),), constant, shape, len(shape) - 1)


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


# ---- products and sums of activations --------------------------------------------------------------------------------


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


def sub(low: Lowering, node: fx.Node, x: Value, y: Value, *, alpha: float = 1) -> Value:
    """x - alpha*y."""
    return add(low, node, x, y, alpha=-alpha)


def mul(low: Lowering, node: fx.Node, x: Value, y: Value) -> Value:
    """Products with numbers stay affine; a product of two activations has a term of two integers (squeeze-excite)."""
    if isinstance(x, Weight) or isinstance(y, Weight):
        weight, factor = (x, y) if isinstance(x, Weight) else (y, x)
        if not isinstance(factor, Const) or not isinstance(weight, Weight):
            raise UnsupportedOp(f"layer {low.layer}: a product of weights with something that is not known beforehand")
        return dataclasses.replace(weight, steps=times(weight.steps, rationals(factor.values)))
    if isinstance(x, (Const, int, float)):
        x, y = y, x
    if isinstance(y, (int, float)):
        return scaled(low, x, y)
    if isinstance(y, Const):
        return low.then(x, Affine(per_channel(low, x, y.values), (Fraction(0),)))
    return product_of(low, node, summand(low, x), summand(low, y))


def product_of(low: Lowering, node: fx.Node, a: Form, b: Form) -> Form:
    """(sum_i a_i A_i + a)(sum_j b_j B_j + b), multiplied out."""
    if a.border is not None or b.border is not None or max(len(t.nodes) for t in (*a.terms, *b.terms)) > 1:
        raise NotAffine("a product of products")
    terms = [Term((*t.nodes, *u.nodes), times(t.slopes, u.slopes)) for t in a.terms for u in b.terms]
    terms += [Term(t.nodes, times(t.slopes, b.intercepts)) for t in a.terms]
    terms += [Term(u.nodes, times(u.slopes, a.intercepts)) for u in b.terms]
    kept = tuple(t for t in merged(terms) if any(t.slopes))
    return Form(kept, times(a.intercepts, b.intercepts), shape_of(node), a.axis if a.rows > 1 else b.axis)


def neg(low: Lowering, node: fx.Node, x: Value) -> Value:
    """-x."""
    return scaled(low, x, -1)


def div(low: Lowering, node: fx.Node, x: Value, y: Value) -> Value:
    """Division by a number known beforehand."""
    if isinstance(y, Const):
        y_inverse = tuple(1 / v for v in per_channel(low, x, y.values))
        return low.then(x, Affine(y_inverse, (Fraction(0),)))
    if not isinstance(y, (int, float)):
        raise NotAffine("a division of activations")
    return low.then(x, Affine((1 / Fraction(y),), (Fraction(0),)))


# ---- norms, functions ------------------------------------------------------------------------------------------------


def batch_norm(low: Lowering, node: fx.Node, x: Value, gamma: Value, beta: Value, mean: Value, variance: Value,
               training: bool, momentum: float, eps: float, *_: Any) -> Value:  # fmt: skip
    """gamma/sqrt(var + eps) * x + beta - mean * that: affine per channel."""
    assert isinstance(mean, Const)
    assert isinstance(variance, Const)
    inverse = tuple(1 / rational_sqrt(v + Fraction(eps)) for v in rationals(variance.values))
    slopes = times(rationals(gamma.values), inverse) if isinstance(gamma, Const) else inverse
    shift = rationals(beta.values) if isinstance(beta, Const) else (Fraction(0),)
    intercepts = tuple(at(shift, k) - at(slopes, k) * m for k, m in enumerate(rationals(mean.values)))
    return low.then(x, Affine(slopes, intercepts))


def native_batch_norm(low: Lowering, node: fx.Node, x: Value, gamma: Value, beta: Value, mean: Value, variance: Value,
                      momentum: float, eps: float) -> Value:  # fmt: skip
    """The operator that a batch norm becomes in a functional graph: its result, and no statistics."""
    return batch_norm(low, node, x, gamma, beta, mean, variance, False, momentum, eps), None, None


def clamp(lowest: float | None, highest: float | None) -> Callable[..., Value]:
    """A handler for one clamp."""
    bounds = Clamp(None if lowest is None else Fraction(lowest), None if highest is None else Fraction(highest))
    return lambda low, node, x, *_: low.then(x, bounds)


def hardtanh(low: Lowering, node: fx.Node, x: Value, lowest: float = -1, highest: float = 1) -> Value:
    """hardtanh: bounds as arguments, -1 and 1 where there are none."""
    return clamp(lowest, highest)(low, node, x)


def given_clamp(low: Lowering, node: fx.Node, x: Value, min: Any = None, max: Any = None) -> Value:
    """clamp: bounds as arguments, open where there are none."""
    if any(isinstance(bound, (Form, Moved)) or (bound is not None and not isinstance(bound, (int, float)))
           for bound in (min, max)):  # fmt: skip
        raise NotAffine("bounds that are computed")
    return clamp(min, max)(low, node, x)


def clamp_max(low: Lowering, node: fx.Node, x: Value, max: Any = None) -> Value:
    """min(x, max)."""
    return given_clamp(low, node, x, None, max)


def leaky_relu(low: Lowering, node: fx.Node, x: Value, slope: float = 0.01, *_: Any) -> Value:
    """x, or slope*x below 0."""
    if slope == 0:
        return low.then(x, Clamp(Fraction(0)))
    if slope < 0:
        raise NotAffine("a negative slope")
    return low.then(x, Leaky(Fraction(slope)))


def smooth(name: str) -> Callable[..., Value]:
    """A handler for a smooth function."""
    return lambda low, node, x, *_, **__: low.then(x, Smooth(name))


def gelu(low: Lowering, node: fx.Node, x: Value, approximate: str = "none") -> Value:
    """GELU, exact or by tanh."""
    return low.then(x, Smooth("gelu_tanh" if approximate == "tanh" else "gelu"))


def hard_sigmoid(low: Lowering, node: fx.Node, x: Value) -> Value:
    """clip(x/6 + 1/2, 0, 1)."""
    sixth = low.then(x, Affine((Fraction(1, 6),), (Fraction(1, 2),)))
    return low.then(sixth, Clamp(Fraction(0), Fraction(1)))


def same(low: Lowering, node: fx.Node, x: Value, *_: Any, **__: Any) -> Value:
    """Operators that change nothing at inference."""
    return x


# ---- the table ----------------------------------------------------------------------------------------------------


def quantizer(low: Lowering, node: fx.Node, x: Value, name: str) -> Value:
    """The marked node of a quantizer."""
    return low.quantizer(x, name)


HANDLERS: dict[str, Callable[..., Value]] = {
    "quantizer": quantizer,
    "conv1d": convolution, "conv2d": convolution, "linear": linear,
    "conv_transpose1d": transposed_convolution, "conv_transpose2d": transposed_convolution,
    "matmul": matmul, "bmm": matmul,
    "add": add, "add_": add, "sub": sub, "sub_": sub, "mul": mul, "mul_": mul, "div": div, "div_": div, "neg": neg,
    "batch_norm": batch_norm, "_native_batch_norm_legit_no_training": native_batch_norm,
    "relu": clamp(0, None), "relu_": clamp(0, None), "relu6": clamp(0, 6), "relu6_": clamp(0, 6),
    "hardtanh": hardtanh, "hardtanh_": hardtanh, "clamp": given_clamp, "clamp_": given_clamp,
    "clamp_min": given_clamp, "clamp_min_": given_clamp, "clamp_max": clamp_max, "clamp_max_": clamp_max,
    "leaky_relu": leaky_relu, "leaky_relu_": leaky_relu,
    "silu": smooth("silu"), "silu_": smooth("silu"), "sigmoid": smooth("sigmoid"), "sigmoid_": smooth("sigmoid"),
    "hardswish": smooth("hswish"), "hardswish_": smooth("hswish"), "tanh": smooth("tanh"), "tanh_": smooth("tanh"),
    "gelu": gelu, "hardsigmoid": hard_sigmoid, "hardsigmoid_": hard_sigmoid,
    "dropout": same, "dropout_": same, "feature_dropout": same, "contiguous": same, "clone": same, "detach": same,
    "detach_": same, "alias": same, "lift_fresh_copy": same, "to": same, "_to_copy": same,
    "max_pool2d": pools.max_pool, "max_pool1d": pools.one_axis(pools.max_pool, pairs=4),
    "max_pool2d_with_indices": pools.max_with_places,
    "avg_pool2d": pools.avg_pool, "avg_pool1d": pools.one_axis(pools.avg_pool, pairs=3),
    "adaptive_avg_pool2d": pools.adaptive_avg_pool,
    "adaptive_avg_pool1d": pools.one_axis(pools.adaptive_avg_pool, pairs=1),
    "adaptive_max_pool2d": pools.adaptive_max_pool,
    "adaptive_max_pool1d": pools.one_axis(pools.adaptive_max_pool, pairs=1),
    "mean": pools.mean, "amax": pools.largest,
    "view": moves.reshape, "reshape": moves.reshape, "_unsafe_view": moves.reshape, "flatten": moves.reshape,
    "unsqueeze": moves.reshape, "squeeze": moves.reshape, "expand": moves.reshape, "unflatten": moves.reshape,
    "permute": moves.permute, "transpose": moves.transpose, "t": moves.transpose, "slice": moves.sliced,
    "select": moves.select, "split": moves.split, "split_with_sizes": moves.split, "chunk": moves.split,
    "getitem": moves.getitem, "cat": moves.concat, "concat": moves.concat, "stack": moves.stack,
    "pad": moves.pad, "constant_pad_nd": moves.constant_pad,
    **{f"{mode}_pad{d}d": moves.padding_of(word) for mode, word in (("reflection", "reflect"),
       ("replication", "replicate")) for d in (1, 2)},
    "index_select": moves.index_select, "flip": moves.flip, "upsample_nearest1d": moves.nearest,
    "upsample_nearest2d": moves.nearest, "pixel_shuffle": moves.pixel_shuffle,
    "pixel_unshuffle": moves.pixel_unshuffle, "slice_scatter": moves.slice_scatter, "fill": moves.filled,
    "copy": moves.copied,
}  # fmt: skip
