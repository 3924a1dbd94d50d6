# pyright: basic
"""Pools and means: sums of integers under windows, largest codes under windows.

Windows of unequal size (adaptive pools, borders that are not counted) become equal ones: an entry is taken as often as
makes every window's count the least common multiple of all, which leaves its mean as it is, exactly."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from torch import fx

from hwsim.integer import graph
from hwsim.integer.arithmetic.forms import Form, Term
from hwsim.integer.arithmetic.geometry import Window
from hwsim.integer.arithmetic.steps import Clamp
from hwsim.integer.lowering.exported_nodes import shape_of
from hwsim.integer.lowering.moves import gather, reshaped
from hwsim.integer.lowering.sums import sum_along, summand
from hwsim.integer.lowering.values import Moved, NotAffine, Pair, Value, pair, value_shape
from hwsim.integer.lowering.walk import Lowering

# Entries of one axis, repeated as often as their windows need, may be this many.
_MOST = 4096


def max_pool(low: Lowering, node: fx.Node, x: Value, kernel: Pair, stride: Any = (), padding: Pair = 0,
             dilation: Pair = 1, ceil_mode: bool = False) -> Value:  # fmt: skip
    """Largest value under a window; the quantizer behind it is moved before it."""
    rows, columns = pair(padding)
    window = Window(pair(kernel), pair(stride or kernel), pair(dilation), (rows, rows, columns, columns))
    shape = _pooled(node)
    window = _until(window, value_shape(x), shape)
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


def windows_of(size: int, count: int) -> list[range]:
    """The windows of an adaptive pool: floor(i * size / count) to ceil((i + 1) * size / count)."""
    return [range(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]


def even(x: Value, axis: int, windows: Sequence[range], *, repeat_last: bool = False) -> tuple[Value, int]:
    """(entries window by window, entries of each): every window's entries repeated until all have equally many.

    For a mean all entries of a window are repeated equally often; for a maximum (`repeat_last`) the last one alone.
    """
    sizes = {len(window) for window in windows}
    size = max(sizes) if repeat_last else math.lcm(*sizes)
    if size * len(windows) > _MOST:
        raise NotAffine(f"windows of {len(sizes)} sizes, whose least common multiple is {size}")
    if repeat_last:
        indices = [i for w in windows for i in (*w, *[w[-1]] * (size - len(w)))]
    else:
        indices = [i for w in windows for i in w for _ in range(size // len(w))]
    return gather(x, axis, indices), size


def adaptive_sizes(x: Value, size: Any) -> tuple[int, int]:
    """Rows and columns asked for; None keeps the map's."""
    rows, columns = (size, size) if isinstance(size, int) else tuple(size)
    height, width = value_shape(x)[-2:]
    return (height if rows is None else int(rows)), (width if columns is None else int(columns))


def adaptive_avg_pool(low: Lowering, node: fx.Node, x: Value, size: Any) -> Value:
    """The mean over windows that cover the map."""
    rows, columns = adaptive_sizes(x, size)
    height, width = value_shape(x)[-2:]
    x, r = even(x, -2, windows_of(height, rows))
    x, s = even(x, -1, windows_of(width, columns))
    return mean_windows(low, node, x, Window((r, s), (r, s)))


def adaptive_max_pool(low: Lowering, node: fx.Node, x: Value, size: Any) -> Value:
    """The largest value under windows that cover the map; its place is not given."""
    rows, columns = adaptive_sizes(x, size)
    height, width = value_shape(x)[-2:]
    x, r = even(x, -2, windows_of(height, rows), repeat_last=True)
    x, s = even(x, -1, windows_of(width, columns), repeat_last=True)
    shape = (*value_shape(x)[:-2], rows, columns)
    return Moved("max_pool", (x,), (Window((r, s), (r, s)),), shape), None


def max_with_places(low: Lowering, node: fx.Node, x: Value, *arguments: Any, **named: Any) -> Value:
    """max_pool2d_with_indices: the largest values; their places are not given."""
    return max_pool(low, node, x, *arguments, **named), None


def avg_pool(low: Lowering, node: fx.Node, x: Value, kernel: Pair, stride: Any = (), padding: Pair = 0,
             ceil_mode: bool = False, count_include_pad: bool = True, divisor: int | None = None) -> Value:  # fmt: skip
    """The mean under a window, over what the window counts: with the padding, or what lies inside alone."""
    rows, columns = pair(padding)
    window = Window(pair(kernel), pair(stride or kernel), padding=(rows, rows, columns, columns))
    shape = _pooled(node)
    beyond = _until(window, value_shape(x), shape) != window
    if not beyond and (count_include_pad or not window.padded):
        return mean_windows(low, node, x, window, divisor)
    if divisor is not None or (count_include_pad and window.padded):
        raise NotAffine("windows beyond a padded border")
    sizes = []
    for axis, k, step, before in zip((-2, -1), window.kernel, window.stride, (rows, columns), strict=True):
        size = value_shape(x)[axis]
        starts = [i * step - before for i in range(shape[axis])]
        x, repeated = even(x, axis, [range(max(0, a), min(size, a + k)) for a in starts])
        sizes.append(repeated)
    return mean_windows(low, node, x, Window((sizes[0], sizes[1]), (sizes[0], sizes[1])))


def one_axis(handler: Any, *, pairs: int) -> Any:
    """A pool of one dimension: that of two on maps of one row; the first `pairs` arguments are sizes along the axis."""

    def handle(low: Lowering, node: fx.Node, x: Value, *arguments: Any) -> Value:
        shape = value_shape(x)
        ones = (1, 1, 0, 1) if pairs > 1 else (1,)
        wide = [(one, *_sequence(a)) for one, a in zip(ones, arguments[:pairs], strict=False)]
        wide = [(1, w[1] if len(w) > 1 else wide[0][1]) if i == 1 else w for i, w in enumerate(wide)]
        found = handler(low, node, reshaped(x, (*shape[:-1], 1, shape[-1])), *wide, *arguments[pairs:])
        several = isinstance(found, tuple)
        value = found[0] if several else found
        made = value_shape(value)
        made = reshaped(value, (*made[:-2], made[-1]))
        return (made, None) if several else made

    return handle


def _sequence(value: Any) -> tuple[int, ...]:
    return (value,) if isinstance(value, int) else tuple(value)


def largest(low: Lowering, node: fx.Node, x: Value, axes: Any = (), keepdim: bool = False) -> Value:
    """amax over whole rows and columns."""
    shape = value_shape(x)
    axes = sorted(a % len(shape) for a in (axes if isinstance(axes, (list, tuple)) else [axes]))
    if len(shape) not in (3, 4) or not axes or axes[0] < 2:
        raise NotAffine("a maximum over other axes than rows and columns")
    size = {a: n for a, n in enumerate(shape) if a in axes}
    if len(shape) == 3:
        x, size = reshaped(x, (*shape[:2], 1, shape[2])), {3: shape[2]}
    kernel = (size.get(2, 1), size.get(3, 1))
    after = tuple(n // k for n, k in zip(value_shape(x)[2:], kernel, strict=True))
    found = Moved("max_pool", (x,), (Window(kernel, kernel),), (*value_shape(x)[:2], *after))
    return reshaped(found, shape_of(node))


def _pooled(node: fx.Node) -> tuple[int, ...]:
    """Shape of a pool's result, with rows: a pool of one dimension has one row."""
    value = node.meta["val"]
    shape = tuple(int(n) for n in (value if not isinstance(value, (tuple, list)) else value[0]).shape)
    return (*shape[:2], 1, shape[2]) if len(shape) == 3 else shape


def mean_windows(low: Lowering, node: fx.Node, x: Value, window: Window, divisor: int | None = None) -> Value:
    """Sums of the integers under the window; beta passes through a mean unchanged."""
    form = summand(low, x)
    if window.padded and any(form.intercepts):
        form = low.evaluated(form.affine((Fraction(1),), (Fraction(0),)).then(Clamp()))
    if form.border is not None or any(len(t.nodes) > 1 for t in form.terms):
        form = low.evaluated(form)
    count = divisor or window.kernel[0] * window.kernel[1]
    shape = _pooled(node)
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
