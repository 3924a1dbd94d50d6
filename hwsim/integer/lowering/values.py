# pyright: basic
"""What exported nodes stand for during the walk.

Between two quantizers a value is a `Form` (an affine sum of integers, then functions) or a `Moved` one (reshaped,
padded, concatenated, max-pooled). Others are known beforehand, or stay real numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from hwsim.integer.arithmetic.forms import Form
from hwsim.integer.lowering.weights import Weight


@dataclass(frozen=True)
class Const:
    """Numbers known beforehand, float64."""

    values: Tensor


@dataclass(frozen=True)
class Moved:
    """Values moved, not changed: `kind` reshape, permute, slice, gather (entries of an axis, by their indices), pad
    (with a real number), concat, max_pool.
    """

    kind: str
    sources: tuple[Value, ...]
    options: tuple[Any, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Masked:
    """A form of which some entries (`hidden`, broadcast) are -inf: what a softmax reads."""

    value: Form
    hidden: Tensor
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Image:
    """One of the network's inputs: real numbers."""

    shape: tuple[int, ...]
    source: str = "input"


@dataclass(frozen=True)
class FloatValue:
    """The result of an operator kept in float."""

    node: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Rows:
    """Rows of a table of parameters, named by the indices of node `source`; without one, `table` has the rows."""

    table: Tensor
    source: str
    shape: tuple[int, ...]


Value = Form | Moved | Masked | Const | Weight | Image | FloatValue | Rows | tuple | None
Pair = Sequence[int] | int


class NotAffine(Exception):
    """A value that is no affine sum of integers where one is needed."""


def pair(value: Pair) -> tuple[int, int]:
    """Two numbers out of one or two."""
    values = [value] if isinstance(value, int) else list(value)
    return (values[0], values[-1])


def value_shape(value: Value) -> tuple[int, ...]:
    """Shape of a value, for one image; NotAffine where it is no tensor of numbers."""
    if isinstance(value, Const):
        return tuple(value.values.shape)
    if isinstance(value, (Form, Moved, Masked, Image, FloatValue)):
        return value.shape
    raise NotAffine("no tensor")
