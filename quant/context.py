"""Where each layer's input comes from: the range of values it can have, read off the network's graph.

A model becomes a list of `Op`s, by symbolic tracing (`trace`: needs no input, can be rewritten) or by torch.export.
`Range` says unsigned, gate, asymmetric or signed, and why: that decides the configuration
of LSQ+ Table 1 for the quantizer behind it. Convolutions, linear layers and norms give signed values, activation
functions what their formula allows, and everything that only moves or averages values hands on what it gets.
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from quant import tracing
from quant.functionalise import AUGMENTED
from quant.operators import (
    ACTIVATIONS,
    ASYMMETRIC,
    COMPLEX,
    GATE,
    MOVES,
    NO_VALUES,
    POINTWISE,
    REAL,
    SEVERAL,
    SIGNED,
    UNSIGNED,
    WIDTH,
    plain_name,
)  # fmt: skip
from quant.tracing import OP_MODULES

_TENSOR_ATTRIBUTES = tuple(f"attribute {name}" for name in ("T", "mT", "data", "values", "real", "imag"))
_NUMBERS = ("size", "dim", "numel", "len", "floordiv", "mod", "assert", "assertisnone")


@dataclass(frozen=True)
class Range:
    """What values a tensor can hold, and why we think so."""

    kind: str
    reason: str


@dataclass(eq=False)
class Op:
    """One operation of the graph. `kind` is its plain name, `module` the qualified name of the module it came from.

    `inputs`: every operation it reads, once. `operands`: what an operation of several activations computes on, in
    order and as often as written: operations, and plain numbers. `is_fixed`: made of parameters and constants alone.
    """

    name: str
    kind: str
    module: str | None
    node: fx.Node
    inputs: tuple[Op, ...] = ()
    operands: tuple[Any, ...] = ()
    is_tensor: bool = True
    is_fixed: bool = False
    is_complex: bool = False
    range: Range = field(default_factory=lambda: Range(SIGNED, "unknown"))
    users: list[Op] = field(default_factory=list)


def join(ranges: Iterable[Range]) -> Range:
    """The widest of some ranges."""
    return max(ranges, key=lambda r: WIDTH.index(r.kind))


# ---- reading a model ---------------------------------------------------------------------------------------------


def trace(model: nn.Module, *, training: bool = True, given: Mapping[str, Any] | None = None) -> list[Op]:
    """The operations of a model by torch.fx symbolic tracing in train or eval mode; raises whatever stops it."""
    graph = tracing.graph_of(model, training=training, given=given)
    return _infer([_read_traced(node, model) for node in graph.nodes], model)


def _read_traced(node: fx.Node, model: nn.Module) -> Op:
    if node.op == "call_module":
        module = model.get_submodule(str(node.target))
        return Op(str(node.target), plain_name(type(module)), str(node.target), node)
    if node.op in ("call_function", "call_method"):
        kind = plain_name(node.target)
        if node.target is getattr:
            kind = f"attribute {node.args[1]}"
        if node.target in AUGMENTED:
            kind = kind[1:]
        return Op(_functional_name(node, kind), kind, None, node)
    return Op(str(node.target), node.op, None, node)


def _functional_name(node: fx.Node, kind: str) -> str:
    """Qualified name of an operation without a module: that of the module around it, then the operation's."""
    stack = node.meta.get("nn_module_stack") or {}
    around = next(reversed(stack.values()))[0] if stack else ""
    return f"{around}.{kind}" if around else kind


def export(model: nn.Module, given: Mapping[str, Any]) -> list[Op]:
    """The operations of a model by torch.export (non-strict) on an example, its arguments by name."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        with torch.no_grad(), warnings.catch_warnings(), tracing.no_logs():
            warnings.simplefilter("ignore")  # of torch about torch
            positional, named = called_with(model, given)
            program = torch.export.export(model.eval(), positional, named, strict=False)
            if any(plain_name(node.target) == "addbatchdim" for node in program.graph.nodes):
                raise ValueError("torch.vmap calls layers on single samples: give them the whole batch")
            program = program.run_decompositions({})
    finally:
        for module, mode in modes:
            module.training = mode
    signature = program.graph_signature
    stored = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    return _infer([_read_exported(node, model, stored) for node in program.graph.nodes], model)


def called_with(model: nn.Module, given: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments by name as a call of `forward` has them: by name, but for a network that takes *args or **named."""
    signature = inspect.signature(model.forward)
    if not any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in signature.parameters.values()):
        return (), dict(given)
    bound = signature.bind_partial()
    bound.arguments.update({name: given[name] for name in signature.parameters if name in given})
    return bound.args, bound.kwargs


def _read_exported(node: fx.Node, model: nn.Module, stored: Mapping[str, str]) -> Op:
    if node.op != "call_function":
        return Op(str(node.target), node.op, None, node)
    kind = plain_name(node.target)
    stack = node.meta.get("nn_module_stack") or {}
    path = next(reversed(stack.values()))[0] if stack else ""
    module = model.get_submodule(path)
    leaf = path != "" and next(module.children(), None) is None
    if SEVERAL.get(kind, kind) in (*SEVERAL.values(), "mean") and not isinstance(module, OP_MODULES):
        leaf = False  # a function inside of a module's own code, not the module
    if leaf and not _by_its_own_weights(node, module, model, stored):
        leaf = False  # torch.func.functional_call gave it others
    if leaf and isinstance(module, (*OP_MODULES, nn.Conv1d, nn.Conv2d, nn.Linear, nn.Embedding)):
        kind = plain_name(type(module)) if kind.startswith(("conv", "linear", "embedding")) else kind
    return Op(path if leaf else f"{path}.{kind}".lstrip("."), kind, path if leaf else None, node)


def _by_its_own_weights(node: fx.Node, module: nn.Module, model: nn.Module, stored: Mapping[str, str]) -> bool:
    """Whether the weights that a call of a layer reads are those that the layer holds."""
    own = {id(tensor) for tensor in (*module._parameters.values(), *module._buffers.values())}
    names = [stored[source.name] for source in node.all_input_nodes if source.name in stored]
    held = [getattr(model.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2]) for name in names]
    return all(id(tensor) in own for tensor in held) and (not module._parameters or bool(held))


# ---- ranges ------------------------------------------------------------------------------------------------------


def _infer(ops: list[Op], model: nn.Module) -> list[Op]:
    """Link the operations and give each its range, in order of execution."""
    by_node = {op.node: op for op in ops}
    seen: dict[str, int] = {}
    for op in ops:
        op.inputs = tuple(by_node[source] for source in op.node.all_input_nodes)
        for source in op.inputs:
            source.users.append(op)
        op.operands = tuple(
            by_node.get(a, a) if isinstance(a, fx.Node) else a for a in operands(op.node, op.kind, model)
        )
        if op.module is None and op.node.op in ("call_function", "call_method"):
            op.name = _free_name(op.name, seen, model)
        op.is_tensor = _is_tensor(op)
        op.is_fixed = _is_fixed(op)
        op.is_complex = _is_complex(op, model)
        op.range = _range(op, model)
    return ops


def operands(node: fx.Node, kind: str, model: nn.Module) -> tuple[Any, ...]:
    """The arguments that an operation of several activations computes on."""
    kind = SEVERAL.get(kind, kind)
    if node.op == "call_module":
        listed = isinstance(model.get_submodule(str(node.target)), tracing.zoo_ops.Concat)
        return tuple(node.args[0]) if listed and isinstance(node.args[0], (list, tuple)) else tuple(node.args)
    if kind in ("concat", "stack"):
        first = node.args[0] if node.args else node.kwargs.get("tensors")
        return tuple(first) if isinstance(first, (list, tuple)) else (first,)
    named = [node.kwargs[k] for k in ("input", "self", "other", "mat2", "tensor2") if k in node.kwargs]
    return (*node.args[:2], *named)[:2]


def _free_name(name: str, seen: dict[str, int], model: nn.Module) -> str:
    """`add`, `add_1`, ...: the first name that neither an earlier operation has nor an attribute of the module."""
    parent, _, leaf = name.rpartition(".")
    around = model.get_submodule(parent)
    while True:
        count = seen[name] = seen.get(name, -1) + 1
        free = f"{leaf}_{count}" if count else leaf
        if not hasattr(around, free) and not hasattr(fx.GraphModule, free):
            return f"{parent}.{free}".lstrip(".")


def _is_fixed(op: Op) -> bool:
    """Whether no input of the network takes part in a value. An exported graph names parameters p_..., buffers b_..."""
    if op.node.op in ("placeholder", "output"):
        return op.node.op == "placeholder" and "val" in op.node.meta and op.node.name.startswith(("p_", "b_", "c_"))
    return all(source.is_fixed for source in op.inputs)


def _is_tensor(op: Op) -> bool:
    """False for sizes and the arithmetic on them."""
    value = op.node.meta.get("val")
    if value is not None:
        return isinstance(value, (Tensor, list, tuple))
    if op.kind.startswith("attribute") or op.kind in _NUMBERS:
        return op.kind in _TENSOR_ATTRIBUTES
    sources = [source for source in op.inputs if source.node.op != "output"]
    if op.node.op in ("call_function", "call_method") and sources:
        return any(source.is_tensor for source in sources)
    return True


def _is_complex(op: Op, model: nn.Module) -> bool:
    """Whether an operation makes complex numbers, as far as its name and what it reads tell."""
    value = op.node.meta.get("val")
    if isinstance(value, Tensor):
        return value.is_complex()
    if op.node.op == "get_attr":
        held = _fixed_value(op.node, model)
        return isinstance(held, Tensor) and held.is_complex()
    if op.module is not None:
        return any(parameter.is_complex() for parameter in model.get_submodule(op.module).parameters())
    name = op.kind.removeprefix("attribute ")
    if name in COMPLEX:
        return True
    return name not in REAL and op.is_tensor and any(source.is_complex for source in op.inputs)


def _range(op: Op, model: nn.Module) -> Range:
    tensors = [source for source in op.inputs if source.is_tensor]
    if op.node.op in ("placeholder", "get_attr"):
        return Range(SIGNED, "network input" if op.node.op == "placeholder" else "a parameter")
    kind = operation(op, model)
    if not tensors:
        return _signed(op)
    if kind in ("pow", "ipow") and _even_power(op):
        return Range(UNSIGNED, f"an even power ({op.name})")
    module = model.get_submodule(op.module) if kind in ("rnn", "rnncell") and op.module is not None else None
    if module is not None and getattr(module, "nonlinearity", "") == "relu":
        return Range(UNSIGNED, f"hidden states after relu ({op.name})")
    if kind in ACTIVATIONS:
        return Range(ACTIVATIONS[kind], f"after {kind} ({op.name})")
    if kind == "maximum" or (kind == "max" and len(tensors) == 2):
        nonnegative = next((source.range for source in tensors if source.range.kind in (UNSIGNED, GATE)), None)
        return Range(UNSIGNED, nonnegative.reason) if nonnegative else join(source.range for source in tensors)
    if kind == "minimum" or kind in ("setitem", "stack", "where", "lerp"):
        return join(source.range for source in tensors)
    if kind in ("hardtanh", "clamp", "clampmin", "clip"):
        return Range(UNSIGNED, f"after {kind} at 0 ({op.name})") if _clamps_at_zero(op, model) else _signed(op)
    if kind == "mul" and (len(tensors) == 2 or is_self_gated(op)):
        return _product(op, tensors)
    if kind in ("add", "concat") and sum(isinstance(o, Op) for o in op.operands) > 1:
        widest = join(source.range for source in tensors)
        return widest if widest.kind != GATE else Range(UNSIGNED, widest.reason)
    if kind in ("mul", "div", "add") and len(tensors) == 1:
        return _scaled_by_constant(op, kind, tensors[0])
    if (kind in MOVES or op.kind.startswith("attribute")) and tensors:
        return tensors[0].range
    return _signed(op)


def _signed(op: Op) -> Range:
    return Range(SIGNED, f"no activation ({op.name})")


def _product(op: Op, tensors: list[Op]) -> Range:
    if len(tensors) == 1:
        return Range(UNSIGNED, f"a square ({op.name})")
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


def _even_power(op: Op) -> bool:
    exponent = op.node.args[1] if len(op.node.args) > 1 else op.node.kwargs.get("exponent")
    return isinstance(exponent, (int, float)) and exponent % 2 == 0


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
    if isinstance(module, OP_MODULES):
        return plain_name(type(module))
    pair = [o for o in op.operands if isinstance(o, Op) and o.is_tensor]
    if op.kind in ("max", "min") and len(pair) == 2:
        return f"{op.kind}imum"
    return SEVERAL.get(op.kind, op.kind)


def fixed_shape(op: Op, model: nn.Module) -> tuple[int, ...] | None:
    """Shape of what a computation on parameters makes, computed on the spot; None where it does not run by itself."""
    known = op.node.meta.get("val")
    if isinstance(known, Tensor):
        return tuple(int(n) for n in known.shape)
    try:
        with torch.no_grad():
            value = _fixed_value(op.node, model)
    except Exception:  # the model's own code may fail in any way
        return None
    return tuple(value.shape) if isinstance(value, Tensor) else None


def _fixed_value(node: fx.Node, model: nn.Module) -> Any:
    if node.op == "get_attr":
        at: Any = model
        for part in str(node.target).split("."):
            at = getattr(at, part)
        return at
    if node.op == "placeholder":
        raise ValueError(f"{node.name} is an input")
    args, named = fx.node.map_arg((node.args, node.kwargs), lambda source: _fixed_value(source, model))
    if node.op == "call_module":
        return model.get_submodule(str(node.target))(*args, **named)
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **named)
    return node.target(*args, **named)  # type: ignore[operator]


def folds(op: Op, model: nn.Module) -> str:
    """Why a sum or product of an activation with a constant is no operation of its own, or an empty text.

    One number folds into the step size; one number per channel into the layer right before, as a batch norm does.
    """
    constants = [o for o in op.operands if isinstance(o, Op) and o.is_tensor and o.is_fixed]
    sources = [o for o in op.operands if isinstance(o, Op) and o.is_tensor and not o.is_fixed]
    if len(constants) != 1 or len(sources) != 1:
        return ""
    shape = fixed_shape(constants[0], model)
    if shape is None:
        return ""
    if math.prod(shape) == 1:
        return "one operand is a constant"
    axes = _channels_behind(sources[0], model)
    if axes is not None and operation(op, model) in ("add", "sub", "mul", "div"):
        aligned = shape[len(shape) - 1 - axes] if len(shape) > axes else 1
        if math.prod(shape) == aligned and len(shape) <= axes + 2:
            return "a constant per channel folds into the layer before"
    return ""


def _channels_behind(op: Op, model: nn.Module) -> int | None:
    """Axes behind the channels of what a layer with weights makes, where this alone reads it; None for anything else.

    Batch norms, and constants that fold, may stand between.
    """
    if len(op.users) != 1:
        return None
    kind = operation(op, model)
    if kind in ("linear", "matmul"):
        weights = [o for o in op.operands if isinstance(o, Op) and o.is_fixed]
        return 0 if kind == "linear" or weights else None
    if kind.startswith("conv") and kind[-2:] in ("1d", "2d", "3d"):
        return int(kind[-2])
    if kind.startswith("batchnorm") and op.inputs:
        return _channels_behind(op.inputs[0], model)
    if kind in ("add", "sub", "mul", "div") and folds(op, model):
        source = next(o for o in op.operands if isinstance(o, Op) and o.is_tensor and not o.is_fixed)
        return _channels_behind(source, model)
    return None


def keeps_values(op: Op, kind: str) -> bool:
    """Whether an operation needs no quantizer of its own: it moves values, or maps them one by one, or makes none."""
    if op.kind.startswith("attribute") or not op.is_tensor:
        return True
    if isinstance(op.node.target, type):
        return True  # the code's own container, of what was computed before
    if kind == "sum":
        return False
    scaled = kind == "div" and not any(isinstance(o, Op) and o.is_tensor for o in op.operands[1:])
    if kind in POINTWISE and sum(source.is_tensor and not source.is_fixed for source in op.inputs) > 1:
        return False  # clamp and pow by another activation
    return scaled or kind in (MOVES | POINTWISE | NO_VALUES) or (kind in ACTIVATIONS and "softm" not in kind)


def is_self_gated(op: Op) -> bool:
    """Whether a product is an activation function written out, like x * sigmoid(x) or x * relu6(x + 3) / 6."""
    tensors = [source for source in op.inputs if source.is_tensor]
    if len(tensors) == 1:
        return len(op.operands) == 2 and op.operands[0] is op.operands[1]
    if len(tensors) != 2:
        return False
    for gate, value in (tensors, tensors[::-1]):
        at = gate
        for _ in range(4):
            sources = [source for source in at.inputs if source.is_tensor]
            kind = SEVERAL.get(at.kind, at.kind)
            if len(sources) != 1 or (
                kind not in ACTIVATIONS and kind not in ("add", "mul", "div", "hardtanh", "clamp")
            ):
                break
            at = sources[0]
            if at is value:
                return True
    return False
