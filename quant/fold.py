"""Batch norm folded into the layer before it, for deployment: exact in eval mode.

A quantized layer keeps its weight codes: the norm's factor becomes the layer's `output_scale`, one number per output
channel that a requantizing stage multiplies by anyway, and its shift goes into the bias. Folding the factor into the
weights before they are quantized would change the codes. A float layer takes the factor into its weights.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from quant import context
from quant.context import Op
from quant.rewrite import concat_dim

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def fold_batchnorm(model: nn.Module, *, example: Any = None) -> nn.Module:
    """A copy of `model` in eval mode whose batch norms behind convolutions and linear layers are nn.Identity.

    A norm is folded when it is the only reader of its layer's output, or of a concatenation of such outputs; others
    (pre-activation networks) stay. `example`:
    an input, needed only where the model cannot be traced symbolically.
    """
    model = copy.deepcopy(model).eval()
    for layer_names, norm_name in foldable(model, example):
        factor, shift = scale_and_shift(model.get_submodule(norm_name))
        layers = [model.get_submodule(name) for name in layer_names]
        channels = [layer.weight.shape[0] for layer in layers]
        with torch.no_grad():
            for layer, part, moved in zip(layers, factor.split(channels), shift.split(channels), strict=True):
                _fold(layer, part, moved)
        model.set_submodule(norm_name, nn.Identity())
    return model


def foldable(model: nn.Module, example: Any = None) -> list[tuple[tuple[str, ...], str]]:
    """(layers, norm) by name for every batch norm that can be folded; several layers where they are concatenated."""
    try:
        ops = context.trace(model, training=False)
    except Exception as reason:  # tracing runs the model's own code, which may fail in any way
        if example is None:
            raise ValueError(
                f"this model cannot be traced symbolically ({type(reason).__name__}: {reason}); pass example=an input"
            ) from reason
        ops = context.export(model, example if isinstance(example, tuple) else (example,))
    calls: dict[str, list[Op]] = {}
    for op in ops:
        if op.module is not None:
            calls.setdefault(op.module, []).append(op)
    found = []
    for name, uses in calls.items():
        if not isinstance(model.get_submodule(name), _NORMS) or len(uses) != 1:
            continue
        source = uses[0].inputs[0]
        sources = [source]
        if context.operation(source, model) == "concat" and len(source.users) == 1:
            sources = list(source.inputs) if _concatenates_channels(source, model) else []
        if sources and all(_is_single_layer(op, model, calls) for op in sources):
            found.append((tuple(str(op.module) for op in sources), name))
    return found


def _is_single_layer(op: Op, model: nn.Module, calls: dict[str, list[Op]]) -> bool:
    """Whether op is a convolution or linear layer called once and read once."""
    if op.module is None or len(op.users) != 1 or len(calls[op.module]) != 1:
        return False
    return isinstance(model.get_submodule(op.module), (nn.Conv1d, nn.Conv2d, nn.Linear))


def _concatenates_channels(op: Op, model: nn.Module) -> bool:
    module = None if op.module is None else model.get_submodule(op.module)
    return not getattr(module, "is_quantized_layer", False) and concat_dim(op, module) == 1


def scale_and_shift(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """A batch norm in eval mode as y = factor * x + shift, per channel."""
    assert isinstance(norm, _NORMS)
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError("fold_batchnorm: a batch norm without running statistics has no fixed factor")
    factor = torch.rsqrt(norm.running_var + norm.eps)
    if norm.weight is not None:
        factor = factor * norm.weight
    shift = -norm.running_mean * factor
    return factor, shift if norm.bias is None else shift + norm.bias


def _fold(layer: nn.Module, factor: Tensor, shift: Tensor) -> None:
    bias = shift if layer.bias is None else layer.bias * factor + shift
    layer.bias = nn.Parameter(bias.detach().clone())
    if getattr(layer, "is_quantized_layer", False):
        before = layer.output_scale
        layer.output_scale = (factor if before is None else before * factor).detach().clone()
    else:
        weight = layer.weight * factor.view(-1, *[1] * (layer.weight.ndim - 1))
        layer.weight = nn.Parameter(weight.detach().clone())
