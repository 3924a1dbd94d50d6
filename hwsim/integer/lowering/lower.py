# pyright: basic
"""From a quantized torch network to integers: `lower(model, example) -> IntegerModel`.

The network is exported with every quantizer as one marked node, in float64, and walked operator by operator
(`hwsim.integer.lowering.walk`); what each operator does is one handler in `hwsim.integer.lowering.operators`.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import inspect
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from hwsim.errors import UnsupportedOp, WorkloadError
from hwsim.integer.graph import IntegerModel
from hwsim.integer.lowering.exported_nodes import in_float64
from hwsim.integer.lowering.operators import HANDLERS
from hwsim.integer.lowering.walk import Lowering, first_line
from hwsim.integer.words import METHODS
from quant import BaseQuantizer, export_names, quantizers
from quant.calling import answer, arguments
from quant.layers import QConv3d, QConvTranspose3d, QEmbeddingBag
from quant.tracing import no_logs

Inputs = Tensor | Sequence[Tensor] | Mapping[str, Tensor]


def lower(
    model: nn.Module, example: Inputs, *, name: str = "", allow_float: bool = True, nonlinear: str = "float"
) -> IntegerModel:
    """The integer network of a quantized model; `example`: its inputs with their batch axis, of which one row is read.

    Raises WorkloadError for a model without (initialised) quantizers, UnsupportedOp for a layer or an operator without
    integer form, naming it and the way out: layers before anything is computed. `allow_float`: softmax, normalisations
    and the like may stay float (and are listed). `nonlinear`: the integer method of softmax, LayerNorm and RMSNorm, one
    of METHODS (`hwsim.integer.words`); ValueError for another.
    """
    if nonlinear not in METHODS:
        raise ValueError(f"nonlinear: expected one of {', '.join(METHODS)}, got {nonlinear!r}")
    name = name or type(model).__name__
    check_layers(model, name)
    model, program, found = exported(model, example, name)
    return Lowering(model, program, found, HANDLERS, allow_float, nonlinear).run(name)


def check_layers(model: nn.Module, name: str) -> None:
    """UnsupportedOp that names every quantized layer of a kind that has no integer form."""
    without = [f"{layer} ({why})" for layer, module in model.named_modules() if (why := _without_form(module))]
    if without:
        raise UnsupportedOp(
            f"{name}: no integer form for {', '.join(without[:4])}{' and more' if len(without) > 4 else ''}; "
            "price the network with hwsim.evaluate, which needs none"
        )


def _without_form(module: nn.Module) -> str:
    spec = module.spec if isinstance(module, BaseQuantizer) and not module.is_weight else None
    if spec is not None and (spec.group or spec.element != "int"):
        return f"{spec.codes_text}: activations in blocks or float elements"
    if isinstance(module, (QConv3d, QConvTranspose3d)):
        return "a convolution of three dimensions"
    if isinstance(module, QEmbeddingBag):
        return "a bag of embeddings: its rows are summed before a quantizer sees them"
    return ""


def in_order(model: nn.Module, inputs: Inputs) -> tuple[Tensor, ...]:
    """A network's inputs in the order of its arguments."""
    positional, named = arguments(model, inputs)
    if not named:
        return positional
    bound = inspect.signature(model.forward).bind(*positional, **named)
    return tuple(bound.arguments.values())


def exported(
    model: nn.Module, example: Inputs, name: str
) -> tuple[nn.Module, torch.export.ExportedProgram, dict[str, BaseQuantizer]]:
    """A float64 copy of a quantized model, its graph with a marked node per quantizer, and the quantizers by name.

    Raises WorkloadError for a model without (initialised) quantizers, UnsupportedOp where torch.export fails.
    """
    model = copy.deepcopy(model).double().eval()
    found = dict(quantizers(model))
    if not found:
        raise WorkloadError(
            f"{name}: the network has no quantizers; quantize it first (quant.quantize, then quant.initialise or "
            "training), or price it as it is with hwsim.evaluate"
        )
    unset = [n for n, q in found.items() if not bool(q.initialized)]
    if unset:
        raise WorkloadError(f"quantizer {unset[0]} has no step size yet: call quant.initialise(model, batches) first")
    with in_float64():
        given = one_row(model, in_order(model, example), name)
    with in_float64(), export_names(model), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about torch
        try:
            with answering(model):
                program = torch.export.export(model, given, strict=False)
            if overwrites(program.graph):
                program = program.run_decompositions({})
        except Exception as problem:  # torch.export runs the model's own code, which may fail in any way
            raise UnsupportedOp(
                f"{name}: torch.export cannot read the network at one row of its input: {first_line(problem)}"
            ) from problem
    written = next(iter(program.graph_signature.buffers_to_mutate.values()), "")
    if written:
        raise UnsupportedOp(
            f"{name}: every run writes its buffer {written}: an integer network keeps no state; give the state as an "
            "argument and as a result, or leave out the counter"
        )
    return model, program, found


@contextlib.contextmanager
def answering(model: nn.Module) -> Iterator[None]:
    """A network whose result is a dataclass of its own, which torch.export does not know, gives its answer alone."""
    forward = model.forward

    @functools.wraps(forward)
    def answered(*positional: Any, **named: Any) -> Any:
        result = forward(*positional, **named)
        own = dataclasses.is_dataclass(result) and not isinstance(result, (type, Mapping))
        return answer(result) if own else result

    own_forward = "forward" in vars(model)
    model.forward = answered  # type: ignore[method-assign]
    try:
        yield
    finally:
        del model.forward
        if own_forward:
            model.forward = forward  # type: ignore[method-assign]


def one_row(model: nn.Module, inputs: Sequence[Any], name: str) -> tuple[Tensor, ...]:
    """The first row of every input, floats in float64; the integer network is that of one row.

    Raises UnsupportedOp where rows are no samples: the network mixes them, or its inputs have different numbers of them
    (time first, edges of a graph, a table beside the images).
    """
    if not all(isinstance(tensor, Tensor) for tensor in inputs):
        raise UnsupportedOp(
            f"{name}: inputs that are no tensors have no integer form; wrap the network so that its forward takes each "
            "tensor of a list or dictionary as an argument of its own"
        )
    wide = [tensor.double() if tensor.is_floating_point() else tensor for tensor in inputs]
    lengths = {len(tensor) if tensor.ndim else 0 for tensor in wide}
    if len(lengths) > 1 or 0 in lengths:
        raise UnsupportedOp(
            f"{name}: its inputs have {sorted(lengths)} rows; the integer machine needs one each sample"
        )
    one = tuple(tensor[:1] for tensor in wide)
    if lengths != {1}:
        try:
            twin = copy.deepcopy(model)  # what the run writes into buffers stays there
            with torch.no_grad(), no_logs():
                together = answer(twin(*(tensor[:2] for tensor in wide)))
                alone = torch.cat([answer(twin(*(tensor[i : i + 1] for tensor in wide))) for i in (0, 1)])
        except Exception as problem:  # the model's own code may fail in any way
            raise UnsupportedOp(
                f"{name}: does not run in float64 on one and on two rows of its input: {first_line(problem)}"
            ) from problem
        if together.shape != alone.shape or not close(together, alone):
            raise UnsupportedOp(
                f"{name}: rows of its input are no samples: the answer for one changes with the others (time first?); "
                "wrap the network so that the batch comes first"
            )
    return one


def close(one: Tensor, other: Tensor) -> bool:
    """Whether two answers are one, but for a code at a tie that another order of sums may move."""
    return bool((one - other).norm() <= 0.01 * other.norm() + 1e-9)


def overwrites(graph: fx.Graph) -> bool:
    """Whether an operator in place changes a value that is read by another name, so that order decides what is read."""
    order = {node: i for i, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if schema is None or not schema.is_mutable or not node.args or not isinstance(node.args[0], fx.Node):
            continue
        if "out" in node.kwargs:
            return True
        target: Any = node.args[0]
        if any(order[user] > order[node] for user in target.users) or _is_view(target):
            return True
        if any(_is_view(user) and user.args[0] is target for user in target.users):
            return True
    return False


def _is_view(node: fx.Node) -> bool:
    """Whether an operator's result may share memory with its input."""
    schema = getattr(node.target, "_schema", None)
    return schema is not None and any(r.alias_info is not None and not r.alias_info.is_write for r in schema.returns)
