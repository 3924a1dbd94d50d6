"""Replacing operations written as functions (`x + y`, F.scaled_dot_product_attention) by quantized modules.

A traced graph with such replacements becomes a torch.fx.GraphModule with the model's modules under their old names.
Tracing freezes what depends on `self.training`, so models whose own code asks for it are left alone.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, fx, nn

from quant import context
from quant.attention import QAttention
from quant.context import Op
from quant.layers import COUNTERPARTS, QAdd, QConcat, QMatmul, QMaximum, QMean, QMinimum, QMul, QSub
from quant.models import ops as zoo_ops
from quant.spec import QuantSpec

_PAIRS = {"add": QAdd, "sub": QSub, "mul": QMul, "matmul": QMatmul, "maximum": QMaximum, "minimum": QMinimum}
_LAYERS = {
    "linear": nn.Linear, "conv1d": nn.Conv1d, "conv2d": nn.Conv2d, "conv3d": nn.Conv3d,
    "convtranspose1d": nn.ConvTranspose1d, "convtranspose2d": nn.ConvTranspose2d, "convtranspose3d": nn.ConvTranspose3d,
    "embedding": nn.Embedding,
}  # fmt: skip


def quantized_operation(kind: str, specs: Sequence[QuantSpec], shared: bool, dim: int) -> nn.Module:
    """The module for an operation of activations: QAdd, QSub, QMul, QMatmul, QMaximum, QMinimum, QMean or QConcat."""
    if kind == "concat":
        return QConcat(specs, dim, shared=shared)
    if kind == "mean":
        return QMean(specs[0])
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


def multihead_inputs(op: Op) -> tuple[Op, ...]:
    """The different arrays that a call of nn.MultiheadAttention projects: one for self-attention."""
    given = {**dict(zip(("query", "key", "value"), op.node.args, strict=False)), **op.node.kwargs}
    by_node = {source.node: source for source in op.inputs}
    query, key, value = (given[name] for name in ("query", "key", "value"))
    last = () if value is key else (value,)
    nodes = (query,) if query is key and key is value else (query, key, *last)
    return tuple(by_node[node] for node in nodes)


def obstacle(kind: str, op: Op, model: nn.Module) -> str:
    """Why an operation cannot be replaced, or an empty text."""
    if kind in ("add", "sub") and op.node.kwargs.get("alpha", 1) != 1:
        return "a sum with alpha"
    if kind == "mean" and op.node.kwargs.get("dtype") is not None:
        return "a mean that changes the type"
    if op.node.kwargs.get("out") is not None:
        return "writes into a given tensor"
    if kind == "attention":
        given = _attention_arguments(op)
        if not isinstance(given.get("dropout_p", 0.0), (int, float)):
            return "its dropout is computed"
    if kind == "concat" and (op.node.op != "call_module" and not all(isinstance(o, Op) for o in op.operands)):
        return "its list of tensors is computed"
    if kind == "concat" and isinstance(op.node.kwargs.get("tensors", op.node.args and op.node.args[0]), fx.Node):
        return "its list of tensors is computed"
    if kind == "multiheadattention":
        return _multihead_obstacle(op, model)
    return ""


# ---- layers written as functions ---------------------------------------------------------------------------------


def layer_of_call(kind: str, op: Op, model: nn.Module) -> nn.Module | str:
    """F.linear, F.conv2d, ... on parameters as a layer of torch that holds the same parameters, or why not."""
    names = {
        "linear": ("input", "weight", "bias"),
        "embedding": ("input", "weight", "padding_idx", "max_norm"),
    }.get(kind, ("input", "weight", "bias", "stride", "padding", "dilation", "groups"))
    if kind.startswith("convtranspose"):
        names = ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
    given = {**dict(zip(names, op.node.args, strict=False)), **op.node.kwargs}
    weight, bias = (_parameter(given.get(name), model) for name in ("weight", "bias"))
    if not isinstance(weight, nn.Parameter):
        return "written as a function: its weight is computed, and has no module to live in"
    if not (bias is None or isinstance(bias, nn.Parameter)):
        return "written as a function: its bias is computed, and has no module to live in"
    choices = {k: v for k, v in given.items() if k not in ("input", "weight", "bias")}
    if any(isinstance(v, fx.Node) for v in fx.node.map_aggregate(tuple(choices.values()), lambda v: v)):
        return "written as a function: its stride or padding is computed"
    return _layer(kind, weight, bias, choices)


def _parameter(argument: Any, model: nn.Module) -> Any:
    """The model's parameter that an argument reads; other nodes as they are."""
    if not isinstance(argument, fx.Node) or argument.op != "get_attr":
        return argument
    at: Any = model
    for part in str(argument.target).split("."):
        at = getattr(at, part)
    return at


def _layer(kind: str, weight: nn.Parameter, bias: nn.Parameter | None, choices: dict[str, Any]) -> nn.Module:
    rows, columns = int(weight.shape[0]), int(weight.shape[1])
    made: nn.Module
    if kind == "embedding":
        made = nn.Embedding(rows, columns, **choices, device="meta")
    elif kind == "linear":
        made = nn.Linear(columns, rows, bias is not None, device="meta")
    else:
        groups = choices.get("groups", 1)
        sizes = (rows, columns * groups) if kind.startswith("convtranspose") else (columns * groups, rows)
        made = _LAYERS[kind](*sizes, tuple(weight.shape[2:]), bias=bias is not None, **choices, device="meta")
    made.weight = weight
    if kind != "embedding":
        made.bias = bias
    return made


def unquantizable_type(module: nn.Module) -> str:
    """Why a layer's type has no quantized counterpart, or an empty text."""
    if type(module) in COUNTERPARTS:
        return ""
    if hasattr(module, "parametrizations"):
        return "its weight is parametrized: torch.nn.utils.parametrize.remove_parametrizations first"
    return f"its type, {type(module).__name__}, may compute something else than torch's layer"


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


def differing_in_training(model: nn.Module, ops: Sequence[Op], given: Mapping[str, Any]) -> str:
    """Where a trace in eval mode differs from the given one in train mode, or an empty text.

    Dropout as a function does not count: `insert_modules` replaces it.
    """
    try:
        other = context.trace(model, training=False, given=given)
    except Exception as reason:  # tracing runs the model's own code, which may fail in any way
        return f"traced in training only ({type(reason).__name__}: {reason})"
    places = [{op.node: i for i, op in enumerate(read)} for read in (ops, other)]
    for here, there in zip(ops, other, strict=False):
        if _signature(here, places[0], model) != _signature(there, places[1], model):
            return f"{here.name} in training, {there.name} in evaluation"
    return "" if len(ops) == len(other) else "one of the two has more operations"


def _signature(op: Op, places: Mapping[fx.Node, int], model: nn.Module) -> tuple[Any, ...]:
    """What must be equal in both modes: the operation, what it reads, and its constants."""
    held = _parameter(op.node, model) if op.node.op == "get_attr" else None
    if isinstance(held, Tensor) and str(op.node.target).startswith("_tensor_constant"):
        return (held.dtype, tuple(held.shape), held.nan_to_num().tolist())  # each trace makes its own
    if op.node.target is F.dropout or op.kind == "scaleddotproductattention":
        return (op.kind,)
    constants = fx.node.map_arg((op.node.args, op.node.kwargs), lambda node: f"%{places[node]}")
    return (op.node.op, str(op.node.target), repr(constants))


def insert_modules(model: nn.Module, ops: Sequence[Op], made: Sequence[tuple[Op, nn.Module, str]]) -> fx.GraphModule:
    """The traced graph as a module, with each given operation calling its new module, kept under the given name."""
    graph = ops[0].node.graph
    for op, module, name in made:
        _call_instead(model, graph, op.node, module, name, *_arguments(op, model))
    for op in ops:
        if op.node.target is F.dropout:
            given = {**dict(zip(("input", "p", "training", "inplace"), op.node.args, strict=False)), **op.node.kwargs}
            dropout = nn.Dropout(float(given.get("p", 0.5)))
            _call_instead(model, graph, op.node, dropout, op.name, (given["input"],))
    graph.lint()
    return Rewritten(model, graph)


class Rewritten(fx.GraphModule):
    """A model that runs a graph instead of its code. It keeps all modules and attributes, read by the graph or not."""

    def __init__(self, model: nn.Module, graph: fx.Graph) -> None:
        super().__init__(model, graph, class_name=type(model).__name__)
        self._keep(vars(model))
        self.training = model.training

    def _keep(self, attributes: dict[str, Any]) -> None:
        for table in ("_modules", "_parameters", "_buffers", "_non_persistent_buffers_set"):
            self.__dict__[table] = attributes[table]
        for name, value in attributes.items():
            if name != "forward" and name not in self.__dict__:
                self.__dict__[name] = value

    def __deepcopy__(self, memo: dict[int, Any]) -> Rewritten:
        copied = super().__deepcopy__(memo)
        copied._keep(copy.deepcopy(self.__dict__, memo))
        return copied


def _arguments(op: Op, model: nn.Module) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments of the quantized module's forward: the tensors, and for attention the mask, causality and scale."""
    node = op.node
    if op.kind == "scaleddotproductattention":
        given = _attention_arguments(op)
        names = ("query", "key", "value", "attn_mask", "is_causal", "scale", "enable_gqa")
        return tuple(given.get(name, False if name == "is_causal" else None) for name in names), {}
    if op.kind in ("cat", "concat", "concatenate"):
        return (node.args[0] if node.args else node.kwargs["tensors"],), {}
    if op.kind == "mean":
        named = {k: v for k, v in node.kwargs.items() if k not in ("input", "dtype", "out")}
        return (node.args or (node.kwargs["input"],)), named
    if op.kind in _LAYERS:
        return (node.args[0] if node.args else node.kwargs["input"],), {}
    return context.operands(node, op.kind, model), {}


def _call_instead(
    model: nn.Module, graph: fx.Graph, node: fx.Node, module: nn.Module, name: str, arguments: tuple[Any, ...],
    named: dict[str, Any] | None = None,
) -> None:  # fmt: skip
    parent_name, _, leaf = name.rpartition(".")
    module.train(model.training)
    model.get_submodule(parent_name).add_module(leaf, module)
    with graph.inserting_before(node):
        new = graph.call_module(name, arguments, named)
    node.replace_all_uses_with(new)
    graph.erase_node(node)
