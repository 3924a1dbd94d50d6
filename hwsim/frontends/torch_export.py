# pyright: basic
"""A torch model as a workload: `extract(model, example)`.

The model runs through torch.export (non-strict, on fake tensors: no arithmetic, no copies of weights), each quantizer
appearing as one node with its module's name; what does not export is recorded while it runs once. The graph then goes
through the handlers of `hwsim.extraction`. Shapes, names and the quantizers' integers are read; of a trained network
also which offsets are exactly 0, and the code that 0.0 has in front of a padded convolution.
"""

from __future__ import annotations

import contextlib
import dataclasses
import operator
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from hwsim.errors import WorkloadError
from hwsim.files import plugins
from hwsim.frontends.decompose import parts_of
from hwsim.frontends.lowering.ir import Arg, Meta, Op, OpGraph, Quantization, Ref
from hwsim.frontends.lowering.lower import lower
from hwsim.frontends.lowering.record import LOOKS, record, tensors_in
from hwsim.frontends.lowering.recurrent import GATES
from hwsim.frontends.lowering.table import HANDLERS
from hwsim.frontends.lowering.written import changes_views
from hwsim.network.formats import Format, Sharing
from hwsim.network.workload import Workload
from quant.quantizer import BaseQuantizer
from quant.recurrent import QRecurrent
from quant.tracing import no_logs
from quant.whole_models import export_names, quantizers

# torch.vmap's calls in a graph: what they wrap is written for one sample, and for all of them once it is decomposed.
BATCHED = ("_add_batch_dim", "_remove_batch_dim")
UNKNOWN_LINE = "a line that torch.export does not name"


def extract(model: nn.Module, example: Any, *, name: str | None = None, allow_uncosted: bool = False) -> Workload:
    """The layers of `model` for inputs like `example`, in execution order, with the bits of its quantizers.

    `example`: a tensor, a tuple of positional arguments, or a dict of keyword arguments; values do not matter, and it
    may live on the meta device together with the model. The model is left as it was; it runs in eval mode.
    Float tensors count 32 bits: `hwsim.assign_bits` gives others. Raises WorkloadError when the model does not run on
    the example, UnsupportedOp with all names when operators have no price and `allow_uncosted` is False.
    """
    if not isinstance(model, nn.Module):
        raise WorkloadError(f"extract: expected a torch.nn.Module, got {type(model).__name__}")
    args, kwargs = as_arguments(example)
    name = name or type(model).__name__
    if any(tensor.is_nested for tensor in tensors_in([*args, *kwargs.values()])):
        raise WorkloadError(f"model {name}: a nested tensor has rows of different lengths: give padded ones")
    lazy = next((key for key, value in (*model.named_parameters(), *model.named_buffers()) if is_lazy(value)), None)
    if lazy is not None:
        raise WorkloadError(
            f"model {name}: {lazy} has no size yet (a lazy module): run the model once on an input first"
        )
    with as_at_inference(model):
        try:
            graph = exported(model, args, kwargs, name)
        except Exception as problem:  # export may fail in any way a model's code can
            graph = recorded(model, args, kwargs, name, problem)
        if any(op.line == UNKNOWN_LINE for op in graph.ops):
            with contextlib.suppress(WorkloadError):  # a real run knows the line; a model without weights has none
                graph = recorded(model, args, kwargs, name, WorkloadError("its own code looks at values"))
    return lower(with_codes_inside(graph, model), HANDLERS, allow_uncosted)


def with_codes_inside(graph: OpGraph, model: nn.Module) -> OpGraph:
    """Recurrent operators with the names of the quantizers that they hold: of each layer's input, of each state."""
    held = {name: module for name, module in model.named_modules() if isinstance(module, QRecurrent)}
    ops = [
        dataclasses.replace(op, args={**op.args, **codes_inside(op.module, held[op.module])})
        if op.module in held and op.op.removeprefix("aten.") in GATES
        else op
        for op in graph.ops
    ]
    return dataclasses.replace(graph, ops=tuple(ops))


def codes_inside(name: str, module: QRecurrent) -> dict[str, Arg]:
    """The quantizers of a recurrent layer, as arguments of its operator."""
    states = tuple(f"{name}.hidden_quantizers.{suffix}".lstrip(".") for suffix in module.suffixes)
    inputs = tuple(f"{name}.input_quantizers.{layer}".lstrip(".") for layer in range(module.num_layers))
    projections = tuple(f"{name}.projection_quantizers.{suffix}".lstrip(".") for suffix in module.suffixes)
    return {"state_codes": states, "input_codes": inputs, "projection_codes": projections if module.proj_size else ()}


def as_arguments(example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of an example."""
    if isinstance(example, Mapping):
        return (), dict(example)
    if isinstance(example, Sequence) and not isinstance(example, str):
        return tuple(example), {}
    return (example,), {}


@contextlib.contextmanager
def as_at_inference(model: nn.Module) -> Iterator[None]:
    """Eval mode, quantizers as named nodes, attention through its plain path; all of it restored afterwards."""
    training = [module for module in model.modules() if module.training]
    fast_path = torch.backends.mha.get_fastpath_enabled()
    model.eval()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with export_names(model), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        for module in training:
            module.training = True


def exported(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], name: str) -> OpGraph:
    """The graph that torch.export sees."""
    # An export that fails prints the graph so far and logs tracebacks; its reason goes into the workload's notes.
    with no_logs():
        program = torch.export.export(model, args, kwargs, strict=False)
        graph = ProgramReader(program, model, name).read()
        if changes_views(graph) or any(op.op in BATCHED for op in graph.ops):
            graph = ProgramReader(program.run_decompositions({}), model, name).read()
    return graph


def recorded(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], name: str, problem: Exception) -> OpGraph:
    """The graph of one real run, for models that torch.export refuses. Raises WorkloadError when it fails too."""
    try:
        graph = record(model, args, kwargs, name, quantizations(model), padding_policies(model))
    except Exception as failure:
        if "HigherOrderOperator" in str(failure):
            raise WorkloadError(
                f"model {name}: torch.export refused it ({first_line(problem)}), and one run of it holds an operator "
                "with code of its own (torch.cond, flex_attention), which this version does not read"
            ) from None
        shapes = ", ".join(describe(item) for item in (*args, *kwargs.values()))
        raise WorkloadError(
            f"model {name} does not run on an input of {shapes}: {first_line(failure)}. "
            "Give the shape it expects with --input"
        ) from None
    note = f"torch.export refused the model ({first_line(problem)}); its operators were recorded from one run instead"
    return OpGraph(**{**graph.__dict__, "notes": (*graph.notes, note), "pad_codes": pad_codes(model)})


def first_line(problem: BaseException) -> str:
    """The first line of an error with anything in it."""
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    return lines[0].rstrip(".:") if lines else type(problem).__name__


def describe(value: Any) -> str:
    """Shape of an example's tensor, type of anything else."""
    return f"shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__


def quantizations(model: nn.Module) -> dict[str, Quantization]:
    """Plain integers out of every quantizer, by qualified name. An offset that training left at 0 is none."""
    return {
        name: Quantization(
            name, q.spec.bits, q.spec.signed, q.spec.offset and not has_no_offset(q), q.rows, q.is_weight,
            format=format_of(q), beside_floats=step_format(q), axis=axis_of(q), rule=rule_of(q),
        )
        for name, q in quantizers(model)
    }  # fmt: skip


def format_of(q: BaseQuantizer) -> Format | None:
    """The format of a quantizer's codes; None for integers with a step per tensor or channel. Learned steps and offsets
    are float32, as trained."""
    spec = q.spec
    if spec.element == "int" and not spec.group:
        return None
    if spec.scale_format == "none":
        return Format(spec.element, spec.bits)
    scale = "fp32" if spec.scale_format == "learned" else spec.scale_format
    offset = "fp32" if spec.offset and not has_no_offset(q) else ""
    sharing: Sharing = spec.granularity  # type: ignore[assignment]
    return Format(spec.element, spec.bits, sharing, spec.group, scale, offset, "fp32" if scale == "e4m3" else "")


def step_format(q: BaseQuantizer) -> Format | None:
    """Integer weights with a step per channel beside 16-bit floats: the steps as they were learned."""
    if q.spec.element != "int" or q.spec.group or not q.is_weight or q.rows < 2:
        return None
    offset = "fp32" if q.spec.offset and not has_no_offset(q) else ""
    return Format("int", q.spec.bits, "channel", 0, "fp32" if q.spec.scale_format == "learned" else "fp16", offset)


def rule_of(q: BaseQuantizer) -> str:
    """How a quantizer finds scales from the values; empty where it learned them."""
    computed = q.spec.scale_format in ("e8m0", "e4m3")
    return f"{q.spec.scale_format} {q.spec.scale_rule}" if computed else ""


def axis_of(q: BaseQuantizer) -> int:
    """Where a quantizer's groups or blocks lie."""
    grouping = getattr(q, "grouping", None)
    return -1 if grouping is None else int(grouping.axis)


def is_trained(q: BaseQuantizer) -> bool:
    """Whether a quantizer's numbers are known: neither on the meta device nor waiting for initialisation."""
    return not q.initialized.is_meta and bool(q.initialized)


def has_no_offset(q: BaseQuantizer) -> bool:
    """Whether a trained quantizer's offset is exactly 0."""
    return is_trained(q) and not bool(q.offset().detach().any())


def pad_codes(model: nn.Module) -> dict[str, int]:
    """The code of 0.0 at the input of every convolution with a trained quantizer, by qualified name."""
    found: dict[str, int] = {}
    for name, module in model.named_modules():
        q = getattr(module, "input_quantizer", None)
        if isinstance(q, BaseQuantizer) and hasattr(module, "padding_policy") and q.rows == 1 and is_trained(q):
            if format_of(q) is not None:  # floats and blocks: 0.0 is code 0
                found[name] = 0
                continue
            with torch.no_grad():
                zero = torch.zeros(1, dtype=q.step().dtype, device=q.step().device)
                found[name] = int(q.codes(zero).round())
    return found


def padding_policies(model: nn.Module) -> dict[str, str]:
    """The padding policy of every quantized convolution, by qualified name."""
    found = ((name, getattr(module, "padding_policy", "")) for name, module in model.named_modules())
    return {name: policy for name, policy in found if policy and isinstance(policy, str)}


Place = tuple[str, str] | None  # (module, the same with the number of its call)


class ProgramReader:
    """Turns a torch.export program into an `OpGraph`."""

    def __init__(self, program: torch.export.ExportedProgram, model: nn.Module, name: str) -> None:
        self.program, self.model, self.name = program, model, name
        self.metas: dict[str, Meta] = {}
        self.alias: dict[str, Arg] = {}  # nodes that stand for another value: list elements, inlined arguments
        self.ops: list[Op] = []
        self.constants: dict[str, str] = {}
        self.modules = one_module_name_each(model)

    def read(self) -> OpGraph:
        """The whole graph, with what the model itself says about its quantizers."""
        signature = self.program.graph_signature
        own = one_name_each(self.model)
        found = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        stored = {node: own.get(name, name) for node, name in found.items()}
        stored.update(signature.inputs_to_lifted_tensor_constants)
        graph = self.program.graph_module.graph
        inputs: list[str] = []
        for node in graph.nodes:
            if node.op != "placeholder":
                continue
            self.note_meta(node.name, node.meta.get("val"))
            if node.name in stored:
                self.constants[node.name] = stored[node.name]
            elif isinstance(node.meta.get("val"), torch.Tensor):
                inputs.append(node.name)
            else:
                self.alias[node.name] = None
        results = self.walk(self.program.graph_module, "")
        outputs = [ref.name for ref in results if isinstance(ref, Ref)]
        return OpGraph(
            self.name,
            tuple(inputs),
            self.constants,
            self.metas,
            tuple(self.ops),
            tuple(outputs),
            quantizations(self.model),
            padding_policies(self.model),
            pad_codes=pad_codes(self.model),
        )

    def walk(self, module: torch.fx.GraphModule, prefix: str, place: Place = None) -> list[Arg]:
        """Read the calls of a graph (`prefix` keeps the names of an inlined one apart); what it returns. `place`: the
        module that they stand in, where their nodes do not say so."""
        for node in module.graph.nodes:
            if node.op == "get_attr":
                value = getattr(module, str(node.target), None)
                if isinstance(value, torch.Tensor):
                    self.note_meta(prefix + node.name, value)
                    self.constants[prefix + node.name] = str(node.target)
            elif node.op == "call_function":
                self.call(module, node, prefix, place)
            elif node.op == "output":
                return list(flat(self.argument(node.args[0], prefix)))
        return []

    def call(self, module: torch.fx.GraphModule, node: torch.fx.Node, prefix: str, place: Place = None) -> None:
        """One call_function node: an operator, an element of a list, or a graph wrapped for its gradient mode."""
        name = prefix + node.name
        if node.target is operator.getitem:
            source, index = prefix + str(node.args[0]), int(str(node.args[1]))
            value = self.alias.get(source)
            self.alias[name] = value[index] if isinstance(value, tuple) else Ref(f"{source}.{index}")
            return
        target = str(node.target)
        if target in ("wrap_with_set_grad_enabled", "wrap_with_autocast"):
            self.inline(module, node, prefix)
            return
        path, call = place or self.place_of(node)
        if not is_lowered(node.target) and plugins.operator(operator_name(node.target)) is None:
            parts = parts_of(node.target, node.args, node.kwargs, is_lowered)
            if parts is not None:
                inner, sources = parts
                arguments = [self.argument(source, prefix) for source in sources]
                self.alias[name] = self.within(inner, f"{name}/", arguments, (path, call))
                return
        value = node.meta.get("val")
        if isinstance(value, list | tuple):
            outputs = tuple(f"{name}.{i}" for i in range(len(value)))
            for output, item in zip(outputs, value, strict=True):
                self.note_meta(output, item)
        else:
            outputs = (name,)
            self.note_meta(name, value)
        called = operator_name(node.target)
        line = UNKNOWN_LINE if called in LOOKS else ""
        self.ops.append(Op(called, self.named_arguments(node, prefix), outputs, path, call, line))

    def place_of(self, node: torch.fx.Node) -> tuple[str, str]:
        """`module_of` a node by the module's first name."""
        path, call = module_of(node)
        first = self.modules.get(path, path)
        return (path, call) if first == path else (first, f"{first}@{call}")

    def inline(self, module: torch.fx.GraphModule, node: torch.fx.Node, prefix: str) -> None:
        """Read the operators of a wrapped graph as if they stood in its place."""
        position, wrapped = next((i, arg) for i, arg in enumerate(node.args) if getattr(arg, "op", "") == "get_attr")
        inner = getattr(module, str(getattr(wrapped, "target", "")))
        arguments = [self.argument(arg, prefix) for arg in node.args[position + 1 :]]
        results = self.within(inner, f"{prefix}{node.name}/", arguments)
        self.alias[prefix + node.name] = results if isinstance(results, tuple) else (results,)

    def within(self, inner: torch.fx.GraphModule, prefix: str, arguments: list[Arg], place: Place = None) -> Arg:
        """The result of a graph on these arguments, read as if it stood in the place of its call."""
        entrances = [node for node in inner.graph.nodes if node.op == "placeholder"]
        for entrance, argument in zip(entrances, arguments, strict=True):
            self.alias[prefix + entrance.name] = argument
        results = tuple(self.walk(inner, prefix, place))
        several = isinstance(next(node for node in inner.graph.nodes if node.op == "output").args[0], list | tuple)
        return results if several or len(results) != 1 else results[0]

    def named_arguments(self, node: torch.fx.Node, prefix: str) -> dict[str, Arg]:
        """Arguments by the names of the operator's schema."""
        schema = getattr(node.target, "_schema", None)
        names = [argument.name for argument in schema.arguments] if schema else []
        named = {
            names[i] if i < len(names) else f"arg{i}": self.argument(arg, prefix) for i, arg in enumerate(node.args)
        }
        named.update({key: self.argument(arg, prefix) for key, arg in node.kwargs.items()})
        return named

    def argument(self, value: Any, prefix: str) -> Arg:
        """A node's argument as the graph's own kind of value."""
        if isinstance(value, torch.fx.Node):
            name = prefix + value.name
            return self.alias.get(name, Ref(name))
        if isinstance(value, list | tuple):
            return tuple(self.argument(item, prefix) for item in value)
        if isinstance(value, bool | int | float | str) or value is None:
            return value
        if isinstance(value, torch.SymInt):
            raise WorkloadError(f"model {self.name}: symbolic size {value}: give every size of the input")
        return str(value)

    def note_meta(self, name: str, value: Any) -> None:
        """Remember the shape and type of a tensor."""
        if isinstance(value, torch.Tensor):
            if any(isinstance(n, torch.SymInt) for n in value.shape):
                raise WorkloadError(f"model {self.name}: {name} has a symbolic size: give every size of the input")
            self.metas[name] = Meta(tuple(int(n) for n in value.shape), str(value.dtype).removeprefix("torch."))


def is_lowered(target: Any) -> bool:
    """Whether an operator has a handler of its own; Python's functions (getitem) are not ours to take apart."""
    name = operator_name(target)
    return not isinstance(target, torch._ops.OpOverload) or name in HANDLERS or name.rstrip("_") in HANDLERS


def one_name_each(model: nn.Module) -> dict[str, str]:
    """Every name of a parameter -> its first one: tied weights are one tensor."""
    first: dict[int, str] = {}
    named = (*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False))
    return {name: first.setdefault(id(tensor), name) for name, tensor in named}


def one_module_name_each(model: nn.Module) -> dict[str, str]:
    """Every name of a module -> its first one."""
    first: dict[int, str] = {}
    return {
        name: first.setdefault(id(module), name) for name, module in model.named_modules(remove_duplicate=False) if name
    }


def flat(value: Arg) -> Iterator[Arg]:
    """The leaves of nested lists."""
    if isinstance(value, tuple):
        for item in value:
            yield from flat(item)
    else:
        yield value


def operator_name(target: Any) -> str:
    """`aten.conv2d` of an overload `aten.conv2d.default`; the plain name of anything else."""
    if isinstance(target, torch._ops.OpOverload):
        return target._schema.name.replace("::", ".")
    return getattr(target, "__name__", str(target))


def module_of(node: torch.fx.Node) -> tuple[str, str]:
    """(qualified module name, the same with the number of the call) of the innermost module around a node."""
    stack = node.meta.get("nn_module_stack") or {}
    if not stack:
        return "", ""
    key, (path, _) = list(stack.items())[-1]
    _, at, number = key.partition("@")
    return path, f"{path}@{number}" if at else path
