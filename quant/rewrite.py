"""Replacing operations written as functions (`x + y`, F.scaled_dot_product_attention) by quantized modules.

A traced graph with such replacements becomes a torch.fx.GraphModule with the model's modules under their old names.
Tracing freezes what depends on `self.training`, so models whose own code asks for it are left alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import fx, nn

from quant import context
from quant.attention import QAttention, QMultiheadAttention
from quant.context import Op
from quant.layers import QAdd, QConcat, QMatmul, QMul
from quant.models import ops as zoo_ops
from quant.spec import QuantSpec

_PAIRS = {"add": QAdd, "mul": QMul, "matmul": QMatmul}


def quantized_operation(kind: str, specs: Sequence[QuantSpec], shared: bool, dim: int) -> nn.Module:
    """QAdd, QMul, QMatmul or QConcat."""
    if kind == "concat":
        return QConcat(specs, dim, shared=shared)
    left, right = specs
    return _PAIRS[kind](left, right, shared=shared)


def concat_dim(op: Op, module: nn.Module | None) -> int:
    """The axis of a concatenation."""
    if isinstance(module, zoo_ops.Concat):
        return module.dim
    arguments = op.node.args
    given = arguments[1] if len(arguments) > 1 else op.node.kwargs.get("dim", op.node.kwargs.get("axis", 0))
    return given if isinstance(given, int) else 0


def _attention_arguments(op: Op) -> dict[str, Any]:
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")
    return {**dict(zip(names, op.node.args, strict=False)), **op.node.kwargs}


def quantized_attention(op: Op, specs: tuple[QuantSpec, QuantSpec, QuantSpec, QuantSpec]) -> QAttention:
    """The module for a call of F.scaled_dot_product_attention."""
    return QAttention(specs, dropout=float(_attention_arguments(op).get("dropout_p", 0.0)))


def quantized_multihead(
    source: nn.Module, weight: QuantSpec, specs: tuple[QuantSpec, QuantSpec, QuantSpec, QuantSpec]
) -> QMultiheadAttention:
    """The module for an nn.MultiheadAttention; its projections read signed values like the products do."""
    assert isinstance(source, nn.MultiheadAttention)
    return QMultiheadAttention(source, weight, specs[0], specs)


def obstacle(kind: str, op: Op, model: nn.Module) -> str:
    """Why an operation cannot be replaced, or an empty text."""
    if kind == "add" and op.node.kwargs.get("alpha", 1) != 1:
        return "an addition with alpha"
    if op.node.kwargs.get("out") is not None:
        return "writes into a given tensor"
    if kind == "attention":
        given = _attention_arguments(op)
        if given.get("enable_gqa"):
            return "grouped queries"
        if not isinstance(given.get("dropout_p", 0.0), (int, float)):
            return "its dropout is computed"
    if kind == "concat" and not isinstance(op.node.args[0] if op.node.args else None, (list, tuple)):
        return "its list of tensors is computed"
    if kind == "multiheadattention":
        return _multihead_obstacle(op, model)
    return ""


def _multihead_obstacle(op: Op, model: nn.Module) -> str:
    module = model.get_submodule(op.module or "")
    if not isinstance(module, nn.MultiheadAttention):
        return "not a module"
    if module.bias_k is not None or module.add_zero_attn:
        return "has extra keys (add_bias_kv, add_zero_attn)"
    if any(user.kind == "getitem" and user.node.args[1] == 1 and user.users for user in op.users):
        return "its attention weights are used"
    return ""


# ---- graphs ------------------------------------------------------------------------------------------------------


def differing_in_training(model: nn.Module, ops: Sequence[Op]) -> str:
    """Where a trace in eval mode differs from the given one in train mode, or an empty text.

    Dropout as a function does not count: `insert_modules` replaces it.
    """
    other = context.trace(model, training=False)
    for here, there in zip(ops, other, strict=False):
        if _signature(here) != _signature(there):
            return f"{here.name} in training, {there.name} in evaluation"
    return "" if len(ops) == len(other) else "one of the two has more operations"


def _signature(op: Op) -> tuple[Any, ...]:
    """What must be equal in both modes: the operation and its constants."""
    if op.node.target is F.dropout or op.kind == "scaleddotproductattention":
        return (op.kind,)
    constants = fx.node.map_arg((op.node.args, op.node.kwargs), lambda node: node.name)
    return (op.node.op, str(op.node.target), repr(constants))


def insert_modules(model: nn.Module, ops: Sequence[Op], made: Sequence[tuple[Op, nn.Module, str]]) -> fx.GraphModule:
    """The traced graph as a module, with each given operation calling its new module, kept under the given name."""
    graph = ops[0].node.graph
    for op, module, name in made:
        _call_instead(model, graph, op.node, module, name, _arguments(op))
    for op in ops:
        if op.node.target is F.dropout:
            given = {**dict(zip(("input", "p", "training", "inplace"), op.node.args, strict=False)), **op.node.kwargs}
            dropout = nn.Dropout(float(given.get("p", 0.5)))
            _call_instead(model, graph, op.node, dropout, op.name, (given["input"],))
    graph.lint()
    rewritten = fx.GraphModule(model, graph, class_name=type(model).__name__)
    rewritten.training = model.training
    return rewritten


def _arguments(op: Op) -> tuple[Any, ...]:
    """Arguments of the quantized module's forward: the tensors, and for attention the mask, causality and scale."""
    if op.kind == "scaleddotproductattention":
        given = _attention_arguments(op)
        names = ("query", "key", "value", "attn_mask", "is_causal", "scale")
        return tuple(given.get(name, False if name == "is_causal" else None) for name in names)
    if op.kind in ("cat", "concat", "concatenate"):
        return (op.node.args[0],)
    both = list(op.node.args[:2])
    both += [op.node.kwargs[name] for name in ("input", "other", "mat2") if name in op.node.kwargs]
    return tuple(both[-2:])


def _call_instead(
    model: nn.Module, graph: fx.Graph, node: fx.Node, module: nn.Module, name: str, arguments: tuple[Any, ...]
) -> None:
    parent_name, _, leaf = name.rpartition(".")
    parent = model.get_submodule(parent_name)
    if hasattr(parent, leaf):
        raise ValueError(f"{name}: the model has an attribute of that name already; rename it")
    module.train(model.training)
    parent.add_module(leaf, module)
    with graph.inserting_before(node):
        new = graph.call_module(name, arguments)
    node.replace_all_uses_with(new)
    graph.erase_node(node)
