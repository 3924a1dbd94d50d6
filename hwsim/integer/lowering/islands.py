# pyright: basic
"""Float islands: operators without integer form, computed in float64 on decoded numbers between integer nodes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, fx
from torch.utils._pytree import tree_map

from hwsim.errors import UnsupportedOp
from hwsim.integer import graph
from hwsim.integer.arithmetic.forms import Form
from hwsim.integer.arithmetic.rules import Range
from hwsim.integer.lowering.builder import Builder
from hwsim.integer.lowering.values import Const, FloatValue, Image, Masked, Moved, NotAffine, Value
from hwsim.integer.lowering.weights import Weight


class FloatIslands(Builder):
    """Operators that stay in floating point between integer nodes, where that is allowed."""

    def __init__(self, allow_float: bool, nonlinear: str = "float") -> None:
        super().__init__()
        self.allow_float = allow_float
        self.nonlinear = nonlinear

    def keep_float(
        self, operator: str, node: fx.Node, arguments: list[Any], keywords: dict[str, Any], why: str = ""
    ) -> Value:
        """An operator without integer form, computed in float64 on decoded numbers, and listed."""
        if not self.allow_float:
            raise UnsupportedOp(
                f"layer {self.layer or '(model)'}: {operator} has no integer form here{': ' + why if why else ''}; "
                "allow it to stay float (allow_float=True), or replace it"
            )
        forms: list[Form | str] = []
        given = tree_map(lambda value: self._slot(value, forms), (arguments, keywords), is_leaf=_is_value)
        target = cast(Any, node.target)
        if not forms:
            return self._known(operator, target, *given)
        sized = operator in _SIZED

        def function(*tensors: Tensor) -> Tensor:
            filled, named = tree_map(lambda v: tensors[v.index] if isinstance(v, _Slot) else v, given)
            if sized and isinstance(filled[1], (list, tuple)):  # sizes were those of one image
                filled[1] = [len(tensors[0]) if i == 0 and n == 1 else n for i, n in enumerate(filled[1])]
            return target(*filled, **named)

        found = node.meta["val"]
        if not isinstance(found, Tensor):
            return tuple(
                self._float_op(operator, tuple(int(n) for n in part.shape), forms, _part(function, i))
                for i, part in enumerate(found)
            )
        return self._float_op(operator, tuple(int(n) for n in found.shape), forms, function)

    def _float_op(
        self, operator: str, shape: tuple[int, ...], forms: list[Form | str], function: Callable[..., Tensor]
    ) -> FloatValue:
        made = self.add(graph.FloatOp(
            name=f"{self.layer}.{operator}", shape=shape, range=Range((0,), (0,)), layer=self.layer, operator=operator,
            forms=tuple(forms), function=function,
        ))  # fmt: skip
        return FloatValue(made, shape)

    def _slot(self, value: Any, forms: list[Form | str]) -> Any:
        """An operand's place among the forms; numbers known beforehand as they are."""
        if isinstance(value, Const):
            return value.values
        if isinstance(value, (Weight, tuple)):
            raise UnsupportedOp(
                f"layer {self.layer or '(model)'}: an operator on quantized weights has no integer form"
            )
        if isinstance(value, (Form, Moved, Masked, FloatValue, Image)):
            forms.append(self.real(value))
            return _Slot(len(forms) - 1)
        return value

    def _known(self, operator: str, target: Any, arguments: list[Any], keywords: dict[str, Any]) -> Value:
        """The result of an operator on numbers known beforehand."""
        with torch.no_grad():
            found = target(*arguments, **keywords)
        if isinstance(found, Tensor):
            return Const(found)
        if isinstance(found, (tuple, list)) and all(isinstance(part, Tensor) for part in found):
            return tuple(Const(part) for part in found)
        raise UnsupportedOp(f"layer {self.layer or '(model)'}: {operator} gives no tensor")

    def real(self, value: Value) -> Form | str:
        """A value as real numbers: a form, or a node that holds them in floating point."""
        if isinstance(value, FloatValue):
            return value.node
        if isinstance(value, Image):
            return self.add(graph.RealInput(
                name=f"{value.source}.real", shape=value.shape, range=Range((0,), (0,)), source=value.source
            ))  # fmt: skip
        if isinstance(value, Masked):
            hidden = value.hidden
            return self._float_op(
                "masked_fill", value.shape, [self.real(value.value)], lambda x: x.masked_fill(hidden, -math.inf)
            ).node
        try:
            return self.as_form(value)
        except NotAffine:
            if not isinstance(value, Moved):
                raise
        forms = [self.real(source) for source in value.sources if not isinstance(source, Const)]
        known = [source.values if isinstance(source, Const) else None for source in value.sources]
        kind, options, shape = value.kind, value.options, value.shape

        def function(*tensors: Tensor) -> Tensor:
            rest = iter(tensors)
            return moved_real(kind, options, shape, [next(rest) if k is None else k for k in known])

        return self._float_op(kind, shape, forms, function).node


# Operators whose second argument is the size of the result, batch included.
_SIZED = ("expand", "view", "reshape", "_unsafe_view", "broadcast_to")


def _is_value(value: Any) -> bool:
    return isinstance(value, (Form, Moved, Masked, Const, Weight, Image, FloatValue))


def _part(function: Callable[..., Any], index: int) -> Callable[..., Tensor]:
    return lambda *tensors: function(*tensors)[index]


def moved_real(kind: str, options: tuple[Any, ...], shape: tuple[int, ...], tensors: list[Tensor]) -> Tensor:
    """A move of real numbers; `shape` is the result's for one image."""
    x = tensors[0]
    if kind == "reshape":
        return x.reshape(len(x), *shape[1:]) if len(x) > 1 and shape[0] == 1 else x.reshape(shape)
    if kind == "permute":
        return x.permute(options[0])
    if kind == "slice":
        axis, start, stop, step = options
        return x[(slice(None),) * axis + (slice(start, stop, step),)]
    if kind == "gather":
        return x.index_select(options[0], torch.tensor(options[1], device=x.device))
    if kind == "pad":
        return F.pad(x, options[0], value=float(options[1]))
    if kind == "max_pool":
        w = options[0]
        top, bottom, left, right = w.padding
        x = F.pad(x, (left, right, top, bottom), value=-math.inf)
        return F.max_pool2d(x, w.kernel, w.stride, 0, w.dilation)
    most = max(t.shape[0] for t in tensors)
    return torch.cat([t if options[0] == 0 else t.expand(most, *t.shape[1:]) for t in tensors], options[0])


@dataclass(frozen=True)
class _Slot:
    index: int
