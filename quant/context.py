"""Where each layer's input comes from: the range of values it can have, read off the network's graph.

A model becomes a list of `Op`s, by symbolic tracing (`trace`: needs no input, can be rewritten) or by torch.export.
`Range` says unsigned, gate, asymmetric or signed, and why: that decides the configuration
of LSQ+ Table 1 for the quantizer behind it. Convolutions, linear layers and norms give signed values, activation
functions what their formula allows, and everything that only moves or averages values hands on what it gets.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from quant.models import ops as zoo_ops

UNSIGNED, GATE, ASYMMETRIC, SIGNED = "unsigned", "gate", "asymmetric", "signed"
# Values that may be any of two kinds are of the wider one, further right here.
_WIDTH = (GATE, UNSIGNED, ASYMMETRIC, SIGNED)

# Names without underscores, in lower case, so that nn.LeakyReLU, F.leaky_relu and aten.leaky_relu_ are one.
_ACTIVATIONS = {
    **dict.fromkeys(("relu", "relu6", "softplus", "abs", "square", "exp"), UNSIGNED),
    **dict.fromkeys(("sigmoid", "hardsigmoid", "softmax", "softmin"), GATE),
    **dict.fromkeys(
        ("silu", "swish", "hardswish", "leakyrelu", "gelu", "elu", "celu", "selu", "mish", "prelu", "rrelu",
         "quickgelu", "memoryefficientswish"),
        ASYMMETRIC,
    ),
}  # fmt: skip
_MOVES = {
    *("maxpool1d", "maxpool2d", "avgpool1d", "avgpool2d", "adaptiveavgpool1d", "adaptiveavgpool2d"),
    *("adaptivemaxpool1d", "adaptivemaxpool2d", "lppool2d", "mean", "amax", "max", "sum", "flatten", "unflatten"),
    *("reshape", "view", "permute", "transpose", "t", "contiguous", "clone", "detach", "squeeze", "unsqueeze"),
    *("expand", "expandas", "repeat", "chunk", "split", "splitwithsizes", "unbind", "getitem", "select", "slice"),
    *("index", "indexselect", "narrow", "roll", "flip", "movedim", "swapaxes", "tile", "float", "to", "typeas"),
    *("dropout", "dropout1d", "dropout2d", "alphadropout", "featuredropout", "identity", "droppath"),
    *("stochasticdepth", "zeropad1d", "zeropad2d", "constantpad1d", "constantpad2d", "constantpadnd", "pad"),
    *("reflectionpad1d", "reflectionpad2d", "replicationpad1d", "replicationpad2d", "interpolate", "upsample"),
    *("upsamplenearest2d", "upsamplebilinear2d", "pixelshuffle", "pixelunshuffle", "channelshuffle", "lift"),
    *("fakequantize", "quantizer"),
}
_OP_MODULES = (zoo_ops.Add, zoo_ops.Mul, zoo_ops.MatMul, zoo_ops.Concat)
_BINARY = {"add": "add", "iadd": "add", "mul": "mul", "imul": "mul", "multiply": "mul",
           "matmul": "matmul", "bmm": "matmul", "cat": "concat", "concat": "concat", "concatenate": "concat",
           "scaleddotproductattention": "attention"}  # fmt: skip


@dataclass(frozen=True)
class Range:
    """What values a tensor can hold, and why we think so."""

    kind: str
    reason: str


@dataclass(eq=False)
class Op:
    """One operation of the graph. `kind` is its plain name, `module` the qualified name of the module it came from."""

    name: str
    kind: str
    module: str | None
    node: fx.Node
    inputs: tuple[Op, ...] = ()
    is_tensor: bool = True
    range: Range = field(default_factory=lambda: Range(SIGNED, "unknown"))
    users: list[Op] = field(default_factory=list)


def join(ranges: Iterable[Range]) -> Range:
    """The widest of some ranges."""
    return max(ranges, key=lambda r: _WIDTH.index(r.kind))


def plain_name(target: object) -> str:
    """`leaky_relu_`, `LeakyReLU`, `aten.leaky_relu.default` -> `leakyrelu`."""
    if isinstance(target, torch._ops.OpOverload):
        name = target._opname
    elif isinstance(target, str):
        name = target
    else:
        name = getattr(target, "__name__", type(target).__name__)
    return name.replace("_", "").lower()


_PARTED = ("split", "splitwithsizes", "chunk")


def _is_chunk(node: fx.Node) -> bool:
    return plain_name(node.target) == "chunk"


# ---- reading a model ---------------------------------------------------------------------------------------------


class _Tracer(fx.Tracer):
    """Symbolic tracing that stops at torch's modules, at the zoo's operations, and at quantized layers."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        own = isinstance(m, _OP_MODULES) or getattr(m, "is_quantized_layer", False)
        return own or super().is_leaf_module(m, module_qualified_name)

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        """Parts of `x.split([sizes])` and `x.chunk(count)` may be looped over: their number is known."""
        node = obj.node
        if node.op in ("call_function", "call_method") and plain_name(node.target) in _PARTED and len(node.args) > 1:
            sizes = node.args[1]
            parts = len(sizes) if isinstance(sizes, (list, tuple)) else sizes if _is_chunk(node) else None
            if isinstance(parts, int):
                return iter([obj[i] for i in range(parts)])
        return super().iter(obj)


def trace(model: nn.Module, *, training: bool = True) -> list[Op]:
    """The operations of a model by torch.fx symbolic tracing in train or eval mode; raises whatever stops it."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        graph = _Tracer().trace(model.train(training))
    finally:
        for module, mode in modes:
            module.training = mode
    return _infer([_read_traced(node, model) for node in graph.nodes], model)


def _read_traced(node: fx.Node, model: nn.Module) -> Op:
    if node.op == "call_module":
        module = model.get_submodule(str(node.target))
        return Op(str(node.target), plain_name(type(module)), str(node.target), node)
    if node.op in ("call_function", "call_method"):
        kind = plain_name(node.target)
        if node.target is getattr:
            kind = f"attribute {node.args[1]}"
        return Op(_functional_name(node, kind), kind, None, node)
    return Op(str(node.target), node.op, None, node)


def _functional_name(node: fx.Node, kind: str) -> str:
    """Qualified name of an operation without a module: that of the module around it, then the operation's."""
    stack = node.meta.get("nn_module_stack") or {}
    around = next(reversed(stack.values()))[0] if stack else ""
    return f"{around}.{kind}" if around else kind


def export(model: nn.Module, example: tuple[Any, ...]) -> list[Op]:
    """The operations of a model by torch.export (non-strict) on an example input."""
    was_training = model.training
    try:
        program = torch.export.export(model.eval(), example, strict=False)
    finally:
        model.train(was_training)
    return _infer([_read_exported(node, model) for node in program.graph.nodes], model)


def _read_exported(node: fx.Node, model: nn.Module) -> Op:
    if node.op != "call_function":
        return Op(str(node.target), node.op, None, node)
    kind = plain_name(node.target)
    stack = node.meta.get("nn_module_stack") or {}
    path = next(reversed(stack.values()))[0] if stack else ""
    module = model.get_submodule(path)
    leaf = path != "" and next(module.children(), None) is None
    if leaf and isinstance(module, (*_OP_MODULES, nn.Conv1d, nn.Conv2d, nn.Linear, nn.Embedding)):
        kind = plain_name(type(module)) if kind.startswith(("conv", "linear", "embedding")) else kind
    return Op(path if leaf else f"{path}.{kind}".lstrip("."), kind, path if leaf else None, node)


# ---- ranges ------------------------------------------------------------------------------------------------------


def _infer(ops: list[Op], model: nn.Module) -> list[Op]:
    """Link the operations and give each its range, in order of execution."""
    by_node = {op.node: op for op in ops}
    seen: dict[str, int] = {}
    for op in ops:
        op.inputs = tuple(by_node[source] for source in op.node.all_input_nodes)
        for source in op.inputs:
            source.users.append(op)
        if op.module is None and op.node.op in ("call_function", "call_method"):
            count = seen[op.name] = seen.get(op.name, -1) + 1
            op.name = f"{op.name}_{count}" if count else op.name
        op.is_tensor = _is_tensor(op)
        op.range = _range(op, model)
    return ops


def _is_tensor(op: Op) -> bool:
    """False for sizes and the arithmetic on them."""
    value = op.node.meta.get("val")
    if value is not None:
        return isinstance(value, (Tensor, list, tuple))
    if op.kind.startswith("attribute") or op.kind in ("size", "dim", "numel", "len", "int", "floordiv", "mod"):
        return op.kind in ("attribute T", "attribute mT", "attribute data")
    sources = [source for source in op.inputs if source.node.op != "output"]
    if op.node.op in ("call_function", "call_method") and sources:
        return any(source.is_tensor for source in sources)
    return True


def _range(op: Op, model: nn.Module) -> Range:
    tensors = [source for source in op.inputs if source.is_tensor]
    if op.node.op in ("placeholder", "get_attr"):
        return Range(SIGNED, "network input" if op.node.op == "placeholder" else "a parameter")
    kind = operation(op, model)
    if kind in _ACTIVATIONS:
        return Range(_ACTIVATIONS[kind], f"after {kind} ({op.name})")
    if kind in ("hardtanh", "clamp", "clampmin", "clip"):
        return Range(UNSIGNED, f"after {kind} at 0 ({op.name})") if _clamps_at_zero(op, model) else _signed(op)
    if kind == "mul" and len(tensors) == 2:
        return _product(op, tensors)
    if kind in ("add", "concat") and len(tensors) > 1:
        widest = join(source.range for source in tensors)
        return widest if widest.kind != GATE else Range(UNSIGNED, widest.reason)
    if kind in ("mul", "div", "truediv", "add") and len(tensors) == 1:
        return _scaled_by_constant(op, kind, tensors[0])
    if (kind in _MOVES or op.kind.startswith("attribute")) and tensors:
        return tensors[0].range
    return _signed(op)


def _signed(op: Op) -> Range:
    return Range(SIGNED, f"no activation ({op.name})")


def _product(op: Op, tensors: list[Op]) -> Range:
    if is_self_gated(op):
        return Range(ASYMMETRIC, f"a product of x and its own gate ({op.name})")
    kinds = {source.range.kind for source in tensors}
    if SIGNED in kinds or kinds == {ASYMMETRIC}:
        return _signed(op)
    return join(source.range for source in tensors)


def _scaled_by_constant(op: Op, kind: str, source: Op) -> Range:
    """x * c and x / c keep their side of 0 for c > 0, x + c for c >= 0."""
    constants = [a for a in op.node.args if isinstance(a, (int, float))]
    if len(constants) == 1 and constants[0] >= 0 and (kind != "add" or source.range.kind in (GATE, UNSIGNED)):
        return source.range if source.range.kind != GATE else Range(UNSIGNED, source.range.reason)
    return _signed(op)


def _clamps_at_zero(op: Op, model: nn.Module) -> bool:
    if op.module is not None and isinstance(module := model.get_submodule(op.module), nn.Hardtanh):
        return module.min_val >= 0
    low = op.node.kwargs.get("min", op.node.kwargs.get("min_val"))
    if low is None and len(op.node.args) > 1:
        low = op.node.args[1]
    return isinstance(low, (int, float)) and low >= 0


def operation(op: Op, model: nn.Module) -> str:
    """`add`, `mul`, `matmul`, `concat`, `attention` for operations of several activations, else the plain name."""
    module = None if op.module is None else model.get_submodule(op.module)
    if isinstance(module, _OP_MODULES):
        return plain_name(type(module))
    return _BINARY.get(op.kind, op.kind)


def is_self_gated(op: Op) -> bool:
    """Whether a product is an activation function written out, like x * sigmoid(x) or x * relu6(x + 3) / 6."""
    tensors = [source for source in op.inputs if source.is_tensor]
    if len(tensors) == 1:
        return op.node.target in (operator.mul, torch.mul) and op.node.args[0] is op.node.args[1]
    for gate, value in (tensors, tensors[::-1]):
        at = gate
        for _ in range(4):
            sources = [source for source in at.inputs if source.is_tensor]
            if len(sources) != 1 or (at.kind not in _ACTIVATIONS and at.kind not in ("add", "mul", "div", "truediv",
                                                                                     "hardtanh", "clamp")):  # fmt: skip
                break
            at = sources[0]
            if at is value:
                return True
    return False
