"""Batch norm folded into the layer before it, for deployment: exact in eval mode.

A quantized layer keeps its weight codes: the norm's factor becomes the layer's `output_scale`, one number per output
channel that a requantizing stage multiplies by anyway, and its shift goes into the bias. Folding the factor into the
weights before they are quantized would change the codes. A float layer takes the factor into its weights.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quant import context
from quant.context import Op
from quant.convert import copied
from quant.layers import QLinear
from quant.operators import ACTIVATIONS, POINTWISE
from quant.rewrite import concat_dim
from quant.tracing import named_arguments

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
_SAME_RANK = {*ACTIVATIONS, *POINTWISE, "linear", "dropout", "identity", "quantizer"}


def fold_batchnorm(model: nn.Module, *, example: Any = None) -> nn.Module:
    """A copy of `model` in eval mode whose batch norms behind convolutions and linear layers are nn.Identity.

    A norm is folded when it is the only reader of its layer's output, or of a concatenation of such outputs, and has
    its channels on the same axis; others (pre-activation networks) stay. `example`: an input, a tuple of arguments, or
    a dictionary by name, for models that cannot be traced symbolically.

    Behind a linear layer the axes are one for (batch, features) only: the norm's is axis 1, the layer's the last. Where
    neither the graph nor the example shows which it is, the folded layer still computes longer inputs as before.
    """
    model = copied(model).eval()
    folds = _folds(model, example)
    ranks = _ranks(model, [fold.norm for fold in folds], example)
    for fold in folds:
        if fold.rank is None:
            fold = replace(fold, rank=ranks.get(fold.norm))
        layers = [model.get_submodule(name) for name in fold.layers]
        behind_linear = isinstance(layers[0], nn.Linear)
        if behind_linear and fold.rank not in (None, 2):
            continue
        factor, shift = scale_and_shift(model.get_submodule(fold.norm))
        channels = [layer.weight.shape[0] for layer in layers]
        with torch.no_grad():
            for layer, part, moved in zip(layers, factor.split(channels), shift.split(channels), strict=True):
                if behind_linear and fold.rank is None:
                    _keep_unfolded(layer, part, moved)
                _fold(layer, part, moved)
        model.set_submodule(fold.norm, nn.Identity())
    return model


@dataclass(frozen=True)
class _Fold:
    """Layers (several where they are concatenated), the norm that reads them, and its input's rank where known."""

    layers: tuple[str, ...]
    norm: str
    rank: int | None


def foldable(model: nn.Module, example: Any = None) -> list[tuple[tuple[str, ...], str]]:
    """(layers, norm) by name for every batch norm that can be folded; several layers where they are concatenated."""
    return [(fold.layers, fold.norm) for fold in _folds(model, example)]


def _folds(model: nn.Module, example: Any) -> list[_Fold]:
    given = named_arguments(model, example)
    try:
        ops = context.trace(model, training=False, given=given)
    except Exception as reason:  # tracing runs the model's own code, which may fail in any way
        if not given:
            raise ValueError(
                f"this model cannot be traced symbolically ({type(reason).__name__}: {reason}); pass example=an input"
            ) from reason
        ops = context.export(model, given)
    calls: dict[str, list[Op]] = {}
    for op in ops:
        if op.module is not None:
            calls.setdefault(op.module, []).append(op)
    found: list[_Fold] = []
    for name, uses in calls.items():
        norm = model.get_submodule(name)
        if not isinstance(norm, _NORMS) or len(uses) != 1 or not uses[0].inputs:
            continue
        source = uses[0].inputs[0]
        sources = [source]
        if context.operation(source, model) == "concat" and len(source.users) == 1:
            sources = list(source.inputs) if _concatenates_channels(source, model) else []
        if sources and all(_is_single_layer(op, model, calls) for op in sources):
            layers = [model.get_submodule(str(op.module)) for op in sources]
            linear = [isinstance(layer, nn.Linear) for layer in layers]
            if sum(int(layer.weight.shape[0]) for layer in layers) == norm.num_features and all(linear) == any(linear):
                rank = 2 if all(linear) and _is_matrix(sources[0]) else None
                found.append(_Fold(tuple(str(op.module) for op in sources), name, rank))
    return found


def _is_matrix(op: Op) -> bool:
    """Whether the graph shows that a value is (batch, features), by a flattening before it."""
    while op.node.op not in ("placeholder", "get_attr"):
        if op.kind == "flatten":
            start = op.node.args[1] if len(op.node.args) > 1 else op.node.kwargs.get("start_dim", 0)
            return op.module is not None or (start == 1 and len(op.node.args) < 3 and "end_dim" not in op.node.kwargs)
        if op.kind in ("view", "reshape"):
            return len(op.node.args) == 3
        if op.kind not in _SAME_RANK or not op.inputs:
            return False
        op = op.inputs[0]
    return False


def _ranks(model: nn.Module, norms: list[str], example: Any) -> dict[str, int]:
    """The rank of each norm's input on the example; empty without one."""
    found: dict[str, int] = {}
    if example is None:
        return found
    handles = [
        model.get_submodule(name).register_forward_pre_hook(
            lambda _, arguments, name=name: found.update({name: arguments[0].ndim})
        )
        for name in norms
    ]
    try:
        with torch.no_grad():
            model(**named_arguments(model, example))
    finally:
        for handle in handles:
            handle.remove()
    return found


def _is_single_layer(op: Op, model: nn.Module, calls: dict[str, list[Op]]) -> bool:
    """Whether op is a convolution or linear layer called once and read once, whose weight is a parameter of its own:
    one that hooks or parametrizations compute (weight norm) takes no factor."""
    if op.module is None or len(op.users) != 1 or len(calls[op.module]) != 1:
        return False
    layer = model.get_submodule(op.module)
    own = "weight" in dict(layer.named_parameters(recurse=False))
    return own and isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Linear))


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


class _Unfolded:
    """The linear layer and the norm as they were, for inputs with more axes than (batch, features)."""

    def forward(self: Any, x: Tensor) -> Tensor:
        if x.ndim == 2:
            return super().forward(x)  # type: ignore[misc]
        if isinstance(self, QLinear):
            weight = self.weight_quantizer(self.weight)
            weight = weight if self.scale_before is None else weight * self.scale_before[:, None]
            y = F.linear(self.input_quantizer(x), weight, self.bias_before)
        else:
            y = F.linear(x, self.weight_before, self.bias_before)
        channels = (1, -1, *[1] * (y.ndim - 2))
        return y * self.norm_factor.view(channels) + self.norm_shift.view(channels)


class _LinearBeforeNorm(_Unfolded, nn.Linear):
    pass


class _QLinearBeforeNorm(_Unfolded, QLinear):
    pass


def _keep_unfolded(layer: nn.Module, factor: Tensor, shift: Tensor) -> None:
    """Let a linear layer that will be folded keep what it needs to compute longer inputs."""
    quantized = isinstance(layer, QLinear)
    before = {
        "weight_before": None if quantized else layer.weight,
        "bias_before": layer.bias,
        "scale_before": layer.output_scale if quantized else None,
        "norm_factor": factor,
        "norm_shift": shift,
    }
    for name, value in before.items():
        layer.register_buffer(name, None if value is None else value.detach().clone(), persistent=False)
    layer.__class__ = _QLinearBeforeNorm if quantized else _LinearBeforeNorm


def _fold(layer: nn.Module, factor: Tensor, shift: Tensor) -> None:
    bias = shift if layer.bias is None else layer.bias * factor + shift
    layer.bias = nn.Parameter(bias.detach().clone())
    if getattr(layer, "is_quantized_layer", False):
        before = layer.output_scale
        layer.output_scale = (factor if before is None else before * factor).detach().clone()
    else:
        weight = layer.weight * factor.view(-1, *[1] * (layer.weight.ndim - 1))
        layer.weight = nn.Parameter(weight.detach().clone())
