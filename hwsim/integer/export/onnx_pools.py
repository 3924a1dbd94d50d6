# pyright: basic
"""ONNX nodes of pools and means."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import fx

from hwsim.errors import UnsupportedOp
from hwsim.integer.export.onnx_values import Value, spread
from hwsim.integer.export.onnx_writer import OnnxWriter
from hwsim.integer.lowering.exported_nodes import shape_of


def pool(kind: str) -> Callable[..., Value]:
    """A handler for MaxPool and AveragePool of two dimensions."""

    def handle(out: OnnxWriter, node: fx.Node, x: Any, kernel: Any, stride: Any = (), padding: Any = 0,
               *rest: Any) -> Value:  # fmt: skip
        source, shape = out.plain(x), shape_of(node)
        axes = len(source.shape) - 2
        options: dict[str, Any] = {}
        given = dict(enumerate(rest))
        if kind == "MaxPool":
            options["dilations"], ceil_mode = spread(given.get(0, 1), axes), bool(given.get(1, False))
        else:
            ceil_mode = bool(given.get(0, False))
            options["count_include_pad"] = int(given.get(1, True))
            if given.get(2) is not None:
                raise UnsupportedOp(f"layer {out.layer}: an average pool with its own divisor has no ONNX operator")
        sizes, around = spread(kernel, axes), spread(padding, axes)
        return out.add(
            kind, [source.name], shape, kernel_shape=sizes, strides=spread(stride or kernel, axes), pads=around * 2,
            ceil_mode=int(ceil_mode), **options,
        )  # fmt: skip

    return handle


def adaptive_avg_pool(out: OnnxWriter, node: fx.Node, x: Any, size: Any) -> Value:
    """GlobalAveragePool, or AveragePool over equal windows."""
    source, shape = out.plain(x), shape_of(node)
    if all(n == 1 for n in shape[2:]):
        return out.add("GlobalAveragePool", [source.name], shape)
    if any(a % b for a, b in zip(source.shape[2:], shape[2:], strict=True)):
        raise UnsupportedOp(f"layer {out.layer}: windows of unequal size: {source.shape[2:]} to {shape[2:]}")
    window = [a // b for a, b in zip(source.shape[2:], shape[2:], strict=True)]
    return out.add("AveragePool", [source.name], shape, kernel_shape=window, strides=window)


def mean(out: OnnxWriter, node: fx.Node, x: Any, axes: Any = None, keepdim: bool = False, **_: Any) -> Value:
    """ReduceMean."""
    source = out.plain(x)
    chosen = [a % len(source.shape) for a in (axes if axes else range(len(source.shape)))]
    stored = out.store(np.array(chosen), f"{out.layer}.axes", "INT64")
    return out.add("ReduceMean", [source.name, stored], shape_of(node), keepdims=int(keepdim))
