# pyright: basic
"""One handler per operator: how it acts on forms of integers. `HANDLERS` maps aten's names (without overload) to them.

A handler takes the lowering, the exported node and the operator's arguments, and returns a value. What has no handler
stays float and is listed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

from torch import fx

from hwsim.errors import UnsupportedOp
from hwsim.integer.arithmetic.forms import Affine, Form, at, rationals, times
from hwsim.integer.arithmetic.steps import Clamp, Leaky, Smooth, rational_sqrt
from hwsim.integer.lowering import moves, nonlinear, pools
from hwsim.integer.lowering.embeddings import embedding
from hwsim.integer.lowering.exported_nodes import shape_of
from hwsim.integer.lowering.products import convolution, linear, matmul, product_form
from hwsim.integer.lowering.recurrent import recurrent
from hwsim.integer.lowering.sums import add, per_channel, scaled, summand
from hwsim.integer.lowering.transposed import transposed_convolution
from hwsim.integer.lowering.values import Const, Moved, NotAffine, Value
from hwsim.integer.lowering.walk import Lowering
from hwsim.integer.lowering.weights import Weight

Bias = Value | None


# ---- sums and products -------------------------------------------------------------------------------------------


def sub(low: Lowering, node: fx.Node, x: Value, y: Value, *, alpha: float = 1) -> Value:
    """x - alpha*y."""
    return add(low, node, x, y, alpha=-alpha)


def mul(low: Lowering, node: fx.Node, x: Value, y: Value) -> Value:
    """Products with numbers stay affine; a product of two activations has a term of two integers (squeeze-excite)."""
    if isinstance(x, Weight) or isinstance(y, Weight):
        weight, factor = (x, y) if isinstance(x, Weight) else (y, x)
        if not isinstance(factor, Const) or not isinstance(weight, Weight):
            raise UnsupportedOp(f"layer {low.layer}: a product of weights with something that is not known beforehand")
        factors = rationals(factor.values)
        groups = tuple(
            replace(g, steps=times(g.steps, factors), offsets=times(g.offsets, factors)) for g in weight.groups
        )
        return replace(weight, steps=times(weight.steps, factors) if weight.steps else (), groups=groups)
    if isinstance(x, (Const, int, float)):
        x, y = y, x
    if isinstance(y, (int, float)):
        return scaled(low, x, y)
    if isinstance(y, Const):
        return low.then(x, Affine(per_channel(low, x, y.values), (Fraction(0),)))
    return product_form(shape_of(node), summand(low, x), summand(low, y))


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
    "lstm": recurrent, "gru": recurrent, "rnn_tanh": recurrent, "rnn_relu": recurrent, "embedding": embedding,
    "conv_transpose1d": transposed_convolution, "conv_transpose2d": transposed_convolution,
    "matmul": matmul, "bmm": matmul,
    "add": add, "sub": sub, "mul": mul, "div": div, "neg": neg,
    "batch_norm": batch_norm, "_native_batch_norm_legit_no_training": native_batch_norm,
    "softmax": nonlinear.softmax, "_softmax": nonlinear.softmax, "masked_fill": nonlinear.masked_fill,
    "layer_norm": nonlinear.layer_norm, "native_layer_norm": nonlinear.native_layer_norm,
    "rms_norm": nonlinear.rms_norm,
    "relu": clamp(0, None), "relu6": clamp(0, 6),
    "hardtanh": hardtanh, "clamp": given_clamp, "clamp_min": given_clamp, "clamp_max": clamp_max,
    "leaky_relu": leaky_relu, "silu": smooth("silu"), "sigmoid": smooth("sigmoid"), "hardswish": smooth("hswish"),
    "tanh": smooth("tanh"), "gelu": gelu, "hardsigmoid": hard_sigmoid,
    "dropout": same, "feature_dropout": same, "contiguous": same, "clone": same, "detach": same,
    "alias": same, "lift_fresh_copy": same, "to": same, "_to_copy": same, "type_as": same,
    "max_pool2d": pools.max_pool, "max_pool1d": pools.one_axis(pools.max_pool, pairs=4),
    "max_pool2d_with_indices": pools.max_with_places,
    "avg_pool2d": pools.avg_pool, "avg_pool1d": pools.one_axis(pools.avg_pool, pairs=3),
    "adaptive_avg_pool2d": pools.adaptive_avg_pool,
    "adaptive_avg_pool1d": pools.one_axis(pools.adaptive_avg_pool, pairs=1),
    "adaptive_max_pool2d": pools.adaptive_max_pool,
    "adaptive_max_pool1d": pools.one_axis(pools.adaptive_max_pool, pairs=1),
    "mean": pools.mean, "amax": pools.largest,
    "view": moves.reshape, "reshape": moves.reshape, "_unsafe_view": moves.reshape, "flatten": moves.reshape,
    "unsqueeze": moves.unsqueeze, "squeeze": moves.reshape, "expand": moves.reshape, "unflatten": moves.reshape,
    **dict.fromkeys(("view_as", "reshape_as", "expand_as", "broadcast_to", "ravel"), moves.reshape),
    "permute": moves.permute, "transpose": moves.transpose, "t": moves.transpose, "numpy_T": moves.transpose,
    "slice": moves.sliced,
    "select": moves.select, "split": moves.split, "split_with_sizes": moves.split, "chunk": moves.split,
    "getitem": moves.getitem, "cat": moves.concat, "concat": moves.concat, "stack": moves.stack,
    "pad": moves.pad, "constant_pad_nd": moves.constant_pad,
    **{f"{mode}_pad{d}d": moves.padding_of(word) for mode, word in (("reflection", "reflect"),
       ("replication", "replicate")) for d in (1, 2)},
    "index_select": moves.index_select, "flip": moves.flip, "upsample_nearest1d": moves.nearest,
    "upsample_nearest2d": moves.nearest, "pixel_shuffle": moves.pixel_shuffle,
    "pixel_unshuffle": moves.pixel_unshuffle, "slice_scatter": moves.slice_scatter,
    "select_scatter": moves.select_scatter, "fill": moves.filled,
    "new_zeros": moves.zeros, "zeros_like": moves.zeros, "zero": moves.zeros, "copy": moves.copied,
}  # fmt: skip
