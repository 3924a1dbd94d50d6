# pyright: basic
"""One handler per operator: how it acts on forms of integers. `HANDLERS` maps aten's names (without overload) to them.

A handler takes the lowering, the exported node and the operator's arguments, and returns a value. What has no handler
stays float and is listed.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, fx

from hwsim.errors import UnsupportedOp
from hwsim.integer import graph
from hwsim.integer.arithmetic.forms import Affine, Border, Form, Rationals, Term, at, plus, rationals, rows_of, times
from hwsim.integer.arithmetic.geometry import Window, border_sums
from hwsim.integer.arithmetic.kernels import accumulator_bounds, magnitude_bound, narrowest
from hwsim.integer.arithmetic.rules import CodeSpec, Range
from hwsim.integer.arithmetic.steps import Clamp, Leaky, Smooth, rational_sqrt
from hwsim.integer.lowering.walk import Const, FloatValue, Lowering, Moved, NotAffine, Value, Weight

Pair = Sequence[int] | int
Bias = Value | None


def shape_of(node: fx.Node) -> tuple[int, ...]:
    """Shape of an exported node's result."""
    return tuple(int(n) for n in node.meta["val"].shape)


def pair(value: Pair) -> tuple[int, int]:
    """Two numbers out of one or two."""
    values = [value] if isinstance(value, int) else list(value)
    return (values[0], values[-1])


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
    return Form(_merged((*a.terms, *b.terms)), plus(a.intercepts, b.intercepts), shape, axis, (), a.border or b.border)


def _merged(terms: Sequence[Term]) -> tuple[Term, ...]:
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
    kept = tuple(t for t in _merged(terms) if any(t.slopes))
    return Form(kept, times(a.intercepts, b.intercepts), shape_of(node), a.axis if a.rows > 1 else b.axis)


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


def clamp(lowest: float | None, highest: float | None) -> Callable[..., Value]:
    """A handler for one clamp."""
    bounds = Clamp(None if lowest is None else Fraction(lowest), None if highest is None else Fraction(highest))
    return lambda low, node, x, *_: low.then(x, bounds)


def given_clamp(low: Lowering, node: fx.Node, x: Value, lowest: float | None = -1, highest: float | None = 1) -> Value:
    """hardtanh and clamp: bounds as arguments."""
    return clamp(lowest, highest)(low, node, x)


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


# ---- pools -----------------------------------------------------------------------------------------------------------


def max_pool(low: Lowering, node: fx.Node, x: Value, kernel: Pair, stride: Any = (), padding: Pair = 0,
             dilation: Pair = 1, ceil_mode: bool = False) -> Value:  # fmt: skip
    """Largest value under a window; the quantizer behind it is moved before it."""
    rows, columns = pair(padding)
    window = Window(pair(kernel), pair(stride or kernel), pair(dilation), (rows, rows, columns, columns))
    shape = shape_of(node)
    window = _until(window, _shape(x), shape)
    return Moved("max_pool", (x,), (window,), shape)


def _until(window: Window, before: tuple[int, ...], after: tuple[int, ...]) -> Window:
    """More padding after the data where ceil_mode lets the last window reach beyond it."""
    top, bottom, left, right = window.padding
    need = [
        (out - 1) * s + d * (k - 1) + 1 - (size + a + b)
        for out, s, d, k, size, a, b in zip(after[2:], window.stride, window.dilation, window.kernel, before[2:],
                                            (top, left), (bottom, right), strict=True)
    ]  # fmt: skip
    return dataclasses.replace(window, padding=(top, bottom + max(0, need[0]), left, right + max(0, need[1])))


def adaptive_avg_pool(low: Lowering, node: fx.Node, x: Value, size: Any) -> Value:
    """The mean over equal windows; only sizes that divide the map."""
    rows, columns = (None if v is None else int(v) for v in ((size, size) if isinstance(size, int) else tuple(size)))
    height, width = _shape(x)[2:]
    rows, columns = rows or height, columns or width
    if height % rows or width % columns:
        raise NotAffine(f"windows of unequal size: {height} x {width} to {rows} x {columns}")
    window = Window((height // rows, width // columns), (height // rows, width // columns))
    return mean_windows(low, node, x, window)


def avg_pool(low: Lowering, node: fx.Node, x: Value, kernel: Pair, stride: Any = (), padding: Pair = 0,
             ceil_mode: bool = False, count_include_pad: bool = True, divisor: int | None = None) -> Value:  # fmt: skip
    """The mean under a window; padding only where the window counts it and zero is an integer of the form."""
    rows, columns = pair(padding)
    if ceil_mode or ((rows or columns) and not count_include_pad):
        raise NotAffine("windows that count only what lies inside")
    return mean_windows(
        low, node, x, Window(pair(kernel), pair(stride or kernel), padding=(rows, rows, columns, columns)), divisor
    )


def mean_windows(low: Lowering, node: fx.Node, x: Value, window: Window, divisor: int | None = None) -> Value:
    """Sums of the integers under the window; beta passes through a mean unchanged."""
    form = summand(low, x)
    if window.padded and any(form.intercepts):
        form = low.evaluated(form.affine((Fraction(1),), (Fraction(0),)).then(Clamp()))
    if form.border is not None or any(len(t.nodes) > 1 for t in form.terms):
        form = low.evaluated(form)
    count = divisor or window.kernel[0] * window.kernel[1]
    shape = shape_of(node)
    terms = []
    for t in form.terms:
        source = low.nodes[t.nodes[0]]
        if source.shape != form.shape:
            return mean_windows(low, node, low.evaluated(form.then(Clamp())), window, divisor)
        whole = window.kernel == source.shape[2:] and not window.padded
        label = f"{low.layer}.sum"
        made = (
            sum_along(low, source.name, (2, 3), label)
            if whole
            else low.add(graph.SumPool(name=label, shape=shape, layer=low.layer, x=source.name, window=window,
                         range=graph.total_range([source.range], math.prod(window.kernel))))
        )  # fmt: skip
        terms.append(Term((made,), tuple(s / count for s in t.slopes)))
    return Form(tuple(terms), form.intercepts, shape, form.axis)


def mean(low: Lowering, node: fx.Node, x: Value, axes: Any = None, keepdim: bool = False, **_: Any) -> Value:
    """The mean over axes."""
    form = low.evaluated(summand(low, x)) if isinstance(x, Moved) else summand(low, x)
    ndim = len(form.shape)
    axes = tuple(a % ndim for a in (axes if axes else range(ndim)))
    if 0 in axes or (form.rows > 1 and form.axis in axes) or form.border is not None:
        raise NotAffine("a mean over the batch or the channels")
    if any(low.nodes[n].shape != form.shape or len(t.nodes) > 1 for t in form.terms for n in t.nodes):
        form = low.evaluated(form.then(Clamp()))
    count = math.prod(form.shape[a] for a in axes)
    kept = tuple(1 if i in axes else n for i, n in enumerate(form.shape))
    terms = tuple(
        Term((sum_along(low, t.nodes[0], axes, f"{low.layer}.sum"),), tuple(s / count for s in t.slopes))
        for t in form.terms
    )
    result = Form(terms, form.intercepts, kept, form.axis)
    return result if keepdim else Moved("reshape", (result,), (shape_of(node),), shape_of(node))


# ---- moves -----------------------------------------------------------------------------------------------------------


def reshape(low: Lowering, node: fx.Node, x: Value, *_: Any, **__: Any) -> Value:
    """view, reshape, flatten, unsqueeze, squeeze, expand to the same size."""
    shape = shape_of(node)
    if isinstance(x, Const):
        return Const(
            x.values.expand(shape) if math.prod(x.values.shape) != math.prod(shape) else x.values.reshape(shape)
        )
    if isinstance(x, Weight):
        return dataclasses.replace(x, codes=x.codes.reshape(shape))
    if _shape(x) == shape:
        return x
    if math.prod(_shape(x)) != math.prod(shape):
        raise NotAffine("an expansion")
    return Moved("reshape", (x,), (shape,), shape)


def permute(low: Lowering, node: fx.Node, x: Value, axes: Sequence[int]) -> Value:
    """Axes in another order."""
    if isinstance(x, Const):
        return Const(x.values.permute(*axes))
    ndim = len(_shape(x))
    return Moved("permute", (x,), (tuple(a % ndim for a in axes),), shape_of(node))


def transpose(low: Lowering, node: fx.Node, x: Value, a: int = 0, b: int = 1) -> Value:
    """Two axes exchanged."""
    ndim = len(shape_of(node))
    order = list(range(ndim))
    order[a], order[b] = order[b], order[a]
    return permute(low, node, x, order)


def sliced(low: Lowering, node: fx.Node, x: Value, axis: int = 0, start: int | None = None, stop: int | None = None,
           step: int = 1) -> Value:  # fmt: skip
    """x[..., start:stop:step]; taken from the integers, so that nothing is quantized in vain."""
    size = _shape(x)[axis]
    start, stop, step = slice(start, stop, step).indices(size)
    if (start, stop, step) == (0, size, 1):
        return x
    return part(low, x, axis % len(_shape(x)), start, stop, step)


def part(low: Lowering, x: Value, axis: int, start: int, stop: int, step: int = 1) -> Value:
    """A slice along one axis."""
    if isinstance(x, Const):
        return Const(x.values[(slice(None),) * axis + (slice(start, stop, step),)])
    shape = list(_shape(x))
    shape[axis] = len(range(start, stop, step))
    moved = Moved("slice", (x,), (axis, start, stop, step), tuple(shape))
    if isinstance(x, Form) and x.border is None:
        try:
            return low.as_form(moved)
        except NotAffine:
            return moved
    return moved


def select(low: Lowering, node: fx.Node, x: Value, axis: int, index: int) -> Value:
    """x[..., index]: a slice of one, its axis dropped."""
    axis, index = axis % len(_shape(x)), index % _shape(x)[axis]
    return reshape(low, node, part(low, x, axis, index, index + 1))


def split(low: Lowering, node: fx.Node, x: Value, sizes: Any, axis: int = 0) -> Value:
    """Parts along an axis, as a tuple."""
    axis %= len(_shape(x))
    found, start = [], 0
    for result in node.meta["val"]:
        stop = start + int(result.shape[axis])
        found.append(part(low, x, axis, start, stop))
        start = stop
    return tuple(found)


def getitem(low: Lowering, node: fx.Node, x: Any, index: int) -> Value:
    """One of several results."""
    return x[index]


def concat(low: Lowering, node: fx.Node, values: Sequence[Value], axis: int = 0) -> Value:
    """Concatenation: the quantizer behind it quantizes the parts."""
    ndim = len(shape_of(node))
    if any(isinstance(v, (Weight, tuple)) for v in values):
        raise NotAffine("a concatenation of weights")
    return Moved("concat", tuple(values), (axis % ndim,), shape_of(node))


def pad(
    low: Lowering, node: fx.Node, x: Value, sides: Sequence[int], mode: str = "constant", value: Any = None
) -> Value:
    """Padding with a number; the quantizer behind it turns the number into a code."""
    if mode != "constant":
        raise NotAffine(f"padding mode {mode}")
    if any(s < 0 for s in sides):
        raise NotAffine("negative padding")
    return Moved("pad", (x,), (tuple(sides), Fraction(value or 0)), shape_of(node)) if any(sides) else x


def constant_pad(low: Lowering, node: fx.Node, x: Value, sides: Sequence[int], value: Any = 0) -> Value:
    """aten.constant_pad_nd."""
    return pad(low, node, x, sides, "constant", value)


def quantizer(low: Lowering, node: fx.Node, x: Value, name: str) -> Value:
    """The marked node of a quantizer."""
    return low.quantizer(x, name)


HANDLERS: dict[str, Callable[..., Value]] = {
    "quantizer": quantizer,
    "conv1d": convolution, "conv2d": convolution, "linear": linear,
    "matmul": matmul, "bmm": matmul,
    "add": add, "add_": add, "sub": sub, "mul": mul, "mul_": mul, "div": div,
    "batch_norm": batch_norm,
    "relu": clamp(0, None), "relu_": clamp(0, None), "relu6": clamp(0, 6), "relu6_": clamp(0, 6),
    "hardtanh": given_clamp, "hardtanh_": given_clamp, "clamp": given_clamp,
    "leaky_relu": leaky_relu, "leaky_relu_": leaky_relu,
    "silu": smooth("silu"), "silu_": smooth("silu"), "sigmoid": smooth("sigmoid"), "sigmoid_": smooth("sigmoid"),
    "hardswish": smooth("hswish"), "hardswish_": smooth("hswish"), "tanh": smooth("tanh"), "gelu": gelu,
    "hardsigmoid": hard_sigmoid, "hardsigmoid_": hard_sigmoid,
    "dropout": same, "dropout_": same, "feature_dropout": same, "contiguous": same, "clone": same, "detach": same,
    "detach_": same, "alias": same, "lift_fresh_copy": same, "to": same, "_to_copy": same,
    "max_pool2d": max_pool, "adaptive_avg_pool2d": adaptive_avg_pool, "avg_pool2d": avg_pool, "mean": mean,
    "view": reshape, "reshape": reshape, "_unsafe_view": reshape, "flatten": reshape, "unsqueeze": reshape,
    "squeeze": reshape, "expand": reshape, "unflatten": reshape,
    "permute": permute, "transpose": transpose, "t": transpose, "slice": sliced, "select": select,
    "split": split, "split_with_sizes": split, "chunk": split, "getitem": getitem,
    "cat": concat, "concat": concat, "pad": pad, "constant_pad_nd": constant_pad,
}  # fmt: skip
