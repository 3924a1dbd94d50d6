# pyright: basic
"""ONNX nodes of arithmetic and functions of single numbers, and softmax."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import fx

from hwsim.errors import UnsupportedOp
from hwsim.integer.export.onnx_values import Codes, Known, Value
from hwsim.integer.export.onnx_writer import OnnxWriter
from hwsim.integer.lowering.exported_nodes import shape_of


def binary(kind: str) -> Callable[..., Any]:
    """A handler for Add, Sub, Mul or Div."""

    def handle(out: OnnxWriter, node: fx.Node, x: Any, y: Any, *, alpha: float = 1) -> Any:
        if kind == "Mul" and (isinstance(x, Codes) or isinstance(y, Codes)):
            weight, factor = (x, y) if isinstance(x, Codes) else (y, x)
            if not isinstance(weight, Codes) or not isinstance(factor, Known):
                raise UnsupportedOp(f"layer {out.layer}: a product of weights with something not known beforehand")
            factors = factor.values.double().reshape(-1, *[1] * (weight.steps.ndim - 1))
            return dataclasses.replace(weight, steps=weight.steps * factors)
        operands = [Known(torch.tensor(float(v))) if isinstance(v, (int, float)) else v for v in (x, y)]
        if alpha != 1:
            if not isinstance(operands[1], Known):
                raise UnsupportedOp(f"layer {out.layer}: {kind} with alpha={alpha}: multiply in the network instead")
            operands[1] = Known(operands[1].values * alpha)
        return out.add(kind, [out.plain(v).name for v in operands], shape_of(node))

    return handle


def extreme(kind: str) -> Callable[..., Value]:
    """A handler for Max or Min of two tensors."""
    return lambda out, node, x, y: out.add(kind, [out.plain(v).name for v in (x, y)], shape_of(node))


def unary(kind: str, **options: Any) -> Callable[..., Value]:
    """A handler for a function of one tensor."""
    return lambda out, node, x, *_, **__: out.add(kind, [out.plain(x).name], shape_of(node), **options)


def clip(lowest: float | None = None, highest: float | None = None) -> Callable[..., Value]:
    """A handler for clamps with given or own limits."""

    def handle(
        out: OnnxWriter, node: fx.Node, x: Any, low: float | None = lowest, high: float | None = highest
    ) -> Value:
        if not all(v is None or isinstance(v, (int, float)) for v in (low, high)):
            raise UnsupportedOp(f"layer {out.layer or '(model)'}: a clamp between computed limits is not exported")
        limits = ["" if v is None else out.store(np.array(float(v)), f"{out.layer}.limit") for v in (low, high)]
        return out.add("Clip", [out.plain(x).name, *limits], shape_of(node))

    return handle


def leaky_relu(out: OnnxWriter, node: fx.Node, x: Any, slope: float = 0.01, *_: Any) -> Value:
    """LeakyRelu."""
    return out.add("LeakyRelu", [out.plain(x).name], shape_of(node), alpha=float(slope))


def silu(out: OnnxWriter, node: fx.Node, x: Any) -> Value:
    """x * Sigmoid(x): a Swish node exists from opset 24 on, and fewer tools take it."""
    source = out.plain(x)
    gate = out.add("Sigmoid", [source.name], source.shape)
    return out.add("Mul", [source.name, gate.name], source.shape, f"{out.layer or 'model'}.silu")


def gelu(out: OnnxWriter, node: fx.Node, x: Any, approximate: str = "none") -> Value:
    """Gelu."""
    return out.add("Gelu", [out.plain(x).name], shape_of(node), approximate=approximate)


def softmax(out: OnnxWriter, node: fx.Node, x: Any, axis: int = -1, *_: Any, **__: Any) -> Value:
    """Softmax."""
    return out.add("Softmax", [out.plain(x).name], shape_of(node), axis=axis)


def same(out: OnnxWriter, node: fx.Node, x: Any, *_: Any, **__: Any) -> Any:
    """Operators that change nothing at inference."""
    return x
