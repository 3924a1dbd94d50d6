# pyright: basic
"""The integer network: a list of nodes, each an integer tensor made from others by integer arithmetic.

Nodes know their shape (batch first, for one image), what their integers may hold (`range`, proven), and for codes the
quantizer behind them (`code`). Nodes named `Encode` and `FloatOp` are the only places with floating point: the image at
the entrance, and operators that stay float (softmax, layer norm), which `IntegerModel.float_operators` lists.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from torch import Tensor

from hwsim.integer.arithmetic.forms import Form
from hwsim.integer.arithmetic.geometry import Window
from hwsim.integer.arithmetic.rules import CodeSpec, Range


@dataclass(frozen=True, kw_only=True)
class Node:
    """An integer tensor. `layer`: the module of the trained network that it belongs to."""

    name: str
    shape: tuple[int, ...]
    range: Range
    layer: str = ""
    code: CodeSpec | None = None

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the nodes it reads."""
        return ()


def entrance(position: int) -> str:
    """Name of the network's input at that position: "input", "input 1", "input 2", ..."""
    return f"input {position}" if position else "input"


def left_to_samples(before: Sequence[int], place: int, after: Sequence[int]) -> int:
    """The axis that a reshape leaves to the samples, shapes being those of one: as many numbers stand before it.

    Of several the first of size 1; in front of all numbers also one that takes the samples and others together.
    """
    ahead = math.prod(before[:place])
    found = [i for i, size in enumerate(after) if size == 1 and math.prod(after[:i]) == ahead]
    if not found and ahead != 1:
        raise ValueError(f"samples mixed with other axes by a reshape of {tuple(before)} to {tuple(after)}")
    return found[0] if found else 0


def is_entrance(source: str) -> bool:
    """Whether a source is an input of the network; names of nodes hold no blank behind "input"."""
    return source == "input" or source.startswith("input ")


@dataclass(frozen=True, kw_only=True)
class Encode(Node):
    """Codes of real numbers: of the network's input, or of a float operator. float64, as the reference."""

    source: str
    quantizer: str

    @property
    def inputs(self) -> tuple[str, ...]:
        return () if is_entrance(self.source) else (self.source,)


@dataclass(frozen=True, kw_only=True)
class RealInput(Node):
    """One of the network's inputs as real numbers, for an operator that stays float before anything is quantized."""

    source: str


@dataclass(frozen=True, kw_only=True)
class Constant(Node):
    """Integers known beforehand: a quantized parameter that is an activation's partner."""

    values: Tensor

    @property
    def inputs(self) -> tuple[str, ...]:
        return ()


@dataclass(frozen=True, kw_only=True)
class LookUp(Node):
    """Rows of a table of codes (an embedding), by the indices that node `source` holds."""

    source: str
    table: Tensor

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.source,)


@dataclass(frozen=True, kw_only=True)
class Padding:
    """How a convolution meets its border. `policy` as trained; `code` fills the padding; `exact` says what was trained.

    `offset_class` on a machine that can pad with any code: `none`, `folded`, `border_bias`.
    """

    policy: str
    code: int
    naive_code: int


@dataclass(frozen=True, kw_only=True)
class Share:
    """What a convolution with several steps in each sum is split into: the accumulators of group `index`.

    `of`: node of group 0 ("" for itself), which stands for the layer and knows `whole`, the shape of all weights, their
    `group` (0: all of an output's) and whether they have an `offset`. `count`: its weights, 0 where codes are summed.
    """

    index: int
    of: str
    count: int = 0
    group: int = 0
    whole: tuple[int, ...] = ()
    offset: bool = False


@dataclass(frozen=True, kw_only=True)
class Convolve(Node):
    """Accumulators of a convolution, or of a linear layer (`window` None: a product over the last axis).

    `element_bits`: stored bits of weights that are floats (their codes are values in units of the smallest), else 0.
    """

    x: str
    weight: Tensor
    window: Window | None
    padding: Padding
    bound: int
    per_channel_scale: bool = False
    share: Share | None = None
    element_bits: int = 0

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.x,)

    @property
    def stands_for_layer(self) -> bool:
        """Whether it is the layer's only accumulator, or the first of its groups'."""
        return self.share is None or not self.share.of

    @property
    def weight_bits(self) -> int:
        """Bits of one stored weight."""
        from hwsim.integer.arithmetic.kernels import bits_for

        return self.element_bits or bits_for(int(self.weight.min()), int(self.weight.max()))

    @property
    def stored(self) -> int:
        """Weights that a machine stores of it: without the zeros and ones that a split put in."""
        return self.weight.numel() if self.share is None else self.share.count


@dataclass(frozen=True, kw_only=True)
class MatMul(Node):
    """Product of two activations, over the last axis of a and the last but one of b."""

    a: str
    b: str
    bound: int

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.a, self.b)


@dataclass(frozen=True, kw_only=True)
class SumAlong(Node):
    """Sum over axes, kept as size 1: the row and column corrections of a product of activations, and means."""

    x: str
    axes: tuple[int, ...]

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.x,)


@dataclass(frozen=True, kw_only=True)
class SumPool(Node):
    """Sum under a window, zeros around."""

    x: str
    window: Window

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.x,)


@dataclass(frozen=True, kw_only=True)
class MaxPool(Node):
    """Largest code under a window; quantizers never decrease, so codes may be compared instead of numbers."""

    x: str
    window: Window
    lowest: int

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.x,)


@dataclass(frozen=True, kw_only=True)
class Move(Node):
    """Integers moved, not changed: `kind` is reshape, permute, slice, gather, pad or concat; `options` say how."""

    xs: tuple[str, ...]
    kind: str
    options: tuple[Any, ...]

    @property
    def inputs(self) -> tuple[str, ...]:
        return self.xs


@dataclass(frozen=True, kw_only=True)
class Requantize(Node):
    """Codes of a form: the quantizer `quantizer` on what stands before it."""

    form: Form
    quantizer: str

    @property
    def inputs(self) -> tuple[str, ...]:
        return self.form.sources


@dataclass(frozen=True, kw_only=True)
class Evaluate(Node):
    """A form without a quantizer, in fixed point with `shift` fractional bits."""

    form: Form
    shift: int

    @property
    def inputs(self) -> tuple[str, ...]:
        return self.form.sources


@dataclass(frozen=True, kw_only=True)
class Softmax(Node):
    """Probabilities along an axis (counted from the end) of x * 2^-shift, `hidden` entries left out."""

    x: str
    axis: int
    shift: int
    method: str
    hidden: Tensor | None = field(default=None, compare=False)

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.x,)


@dataclass(frozen=True, kw_only=True)
class Normalize(Node):
    """x * 2^-shift over the last axis, its mean taken away where `centred`, in units of its deviation (eps added)."""

    x: str
    shift: int
    eps: Fraction
    centred: bool
    method: str

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.x,)


@dataclass(frozen=True, kw_only=True)
class FloatOp(Node):
    """An operator kept in float64 on decoded numbers; `forms` are its tensor inputs (a name: another float value)."""

    operator: str
    forms: tuple[Form | str, ...]
    function: Callable[..., Tensor] = field(compare=False)

    @property
    def inputs(self) -> tuple[str, ...]:
        names: list[str] = []
        for form in self.forms:
            names.extend([form] if isinstance(form, str) else form.sources)
        return tuple(dict.fromkeys(names))


@dataclass(frozen=True)
class IntegerModel:
    """A whole network. `output`: what it answers, as a form of the last integers (or the name of a float value).

    `more_outputs`: what it returns besides. `more_inputs`: shapes of the inputs behind the first. `quantizers`: node of
    each quantizer call, by its qualified name (a second call of one: `name@1`).
    """

    name: str
    nodes: tuple[Node, ...]
    output: Form | str
    quantizers: Mapping[str, str]
    input_shape: tuple[int, ...]
    more_inputs: tuple[tuple[int, ...], ...] = ()
    more_outputs: tuple[Form | str, ...] = ()

    @property
    def ends(self) -> tuple[str, ...]:
        """Nodes that the results read."""
        forms = (self.output, *self.more_outputs)
        return tuple(dict.fromkeys(n for form in forms for n in ((form,) if isinstance(form, str) else form.sources)))

    def node(self, name: str) -> Node:
        """The node of that name."""
        return next(n for n in self.nodes if n.name == name)

    @property
    def convolutions(self) -> tuple[Convolve, ...]:
        """Convolutions and linear layers, in order."""
        return tuple(n for n in self.nodes if isinstance(n, Convolve))

    @property
    def float_operators(self) -> tuple[str, ...]:
        """Operators that run in floating point, with their layers; empty: the network is integer from end to end."""
        return tuple(f"{n.operator} ({n.layer or 'the model itself'})" for n in self.nodes if isinstance(n, FloatOp))

    @property
    def integer_methods(self) -> tuple[str, ...]:
        """Softmax and norms that a stated integer method computes, with it and their layers."""
        found = [n for n in self.nodes if isinstance(n, (Softmax, Normalize))]
        return tuple(f"{type(n).__name__.lower()} ({n.layer or 'the model itself'}): {n.method}" for n in found)

    @property
    def weight_bits(self) -> int:
        """Bits of all weights, each layer at the width its codes need."""
        found = [self.shares(n) for n in self.convolutions if n.stands_for_layer]
        return sum(sum(n.stored for n in parts) * max(n.weight_bits for n in parts) for parts in found)

    def shares(self, node: Convolve) -> tuple[Convolve, ...]:
        """The accumulators that a node stands for: those of all groups of its layer, or itself."""
        if node.share is None:
            return (node,)
        return (node, *(n for n in self.convolutions if n.share is not None and n.share.of == node.name))


def last_use(nodes: tuple[Node, ...], kept: tuple[str, ...]) -> dict[str, list[str]]:
    """Node name -> tensors that nobody reads after it."""
    last: dict[str, str] = {}
    for node in nodes:
        last[node.name] = node.name
        for name in node.inputs:
            last[name] = node.name
    released: dict[str, list[str]] = {}
    for name, user in last.items():
        if name not in kept:
            released.setdefault(user, []).append(name)
    return released


def total_range(ranges: list[Range], count: int) -> Range:
    """What the sum of `count` integers out of these ranges may hold."""
    low = min(r.least for r in ranges)
    high = max(r.largest for r in ranges)
    return Range((min(0, low * count),), (max(0, high * count),), max(r.error for r in ranges) * count)
