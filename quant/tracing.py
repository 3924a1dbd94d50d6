"""A model's graph by torch.fx: every value written once, whatever the code does in place.

Tracing stops at torch's modules, at the zoo's operations, and at quantized layers. Arguments of `forward` that have a
default keep it, unless an example gives them. Item assignments (`x[:, 0] = y`) are traced too. State that the code
keeps in itself (`self.steps += 1`, `self.last = x`) is in no graph: such models are refused by name.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import io
import logging
import operator
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from quant.functionalise import AUGMENTED, functionalise
from quant.models import ops as zoo_ops
from quant.writing_out import written_out

OP_MODULES = (zoo_ops.Add, zoo_ops.Mul, zoo_ops.MatMul, zoo_ops.Concat)
_PARTED = ("split", "split_with_sizes", "chunk")


@contextlib.contextmanager
def no_logs() -> Iterator[None]:
    """Nothing is logged meanwhile: an export that fails prints its graph so far, and tracebacks; torch's handlers keep
    the stderr that they found at import."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)


class _Proxy(fx.Proxy):
    """A proxy that can be written to: torch's own takes `x += y` for `x = x + y`, and knows no `x[i] = y`."""

    def __setitem__(self, index: Any, value: Any) -> None:
        self.tracer.create_proxy("call_function", operator.setitem, (self, index, value), {})

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "data":
            raise ValueError("an assignment to a tensor's .data is in no graph; write a new tensor (y = y + z)")
        super().__setattr__(name, value)


def _augmented(function: Callable[[Any, Any], Any]) -> Callable[[fx.Proxy, Any], fx.Proxy]:
    return lambda x, y: x.tracer.create_proxy("call_function", function, (x, y), {})


for _function in AUGMENTED:
    setattr(_Proxy, f"__{_function.__name__}__", _augmented(_function))


class _Tracer(fx.Tracer):
    """Symbolic tracing that stops at torch's modules, at the zoo's operations, and at quantized layers."""

    record_stack_traces = True

    def __init__(self, given: Mapping[str, Any] | None = None, own: Collection[int] = ()) -> None:
        super().__init__()
        self.given, self.own = given or {}, own

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        """A call; ValueError where torch.func.functional_call gives the module other weights than its own."""
        held = [tensor for part in m.modules() for tensor in part._parameters.values() if tensor is not None]
        if self.own and any(id(tensor) not in self.own for tensor in held):
            raise ValueError(
                f"a {type(m).__name__} is called with weights that are not the model's: by functional_call, or by a "
                "function that holds the module it was made in, which a copy does not change"
            )
        return super().call_module(m, forward, args, kwargs)

    def example_of(self, node: fx.Node) -> Any:
        """The example's value at an input or a part of one: a list, tuple or dictionary; None for anything else."""
        if node.op == "placeholder":
            stars = len(str(node.target)) - len(str(node.target).lstrip("*"))  # *args and **named are one value each
            absent = (None, (), {})[stars] if self.given else None
            return self.given.get(str(node.target)[stars:], absent)
        if node.target is operator.getitem:
            of, index = node.args
            held = self.example_of(of) if isinstance(of, fx.Node) else None
            return held[index] if isinstance(held, (list, tuple, Mapping)) and not isinstance(index, fx.Node) else None
        return None

    def to_bool(self, obj: fx.Proxy) -> bool:
        """Whether a list, tuple or dictionary of the example holds anything; other values decide nothing."""
        held = self.example_of(obj.node)
        return bool(held) if isinstance(held, (list, tuple, Mapping)) else super().to_bool(obj)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        own = isinstance(m, OP_MODULES) or getattr(m, "is_quantized_layer", False)
        return own or super().is_leaf_module(m, module_qualified_name)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        """Parts of `x.split([sizes])` and `x.chunk(count)` may be looped over: their number is known. So may inputs
        that the example gives as lists, tuples or dictionaries."""
        node = obj.node
        held = self.example_of(node)
        if isinstance(held, (list, tuple, Mapping)):
            return iter(list(held) if isinstance(held, Mapping) else [obj[i] for i in range(len(held))])
        if node.op == "call_method" and node.target in ("items", "values", "keys"):
            source = node.args[0]
            held = self.example_of(source) if isinstance(source, fx.Node) else None
            if isinstance(held, Mapping):
                parts = {key: fx.Proxy.__getitem__(_Proxy(source, self), key) for key in held}
                return iter(list(getattr(parts, str(node.target))()))
        name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
        if node.op in ("call_function", "call_method") and name in _PARTED and len(node.args) > 1:
            sizes = node.args[1]
            parts = len(sizes) if isinstance(sizes, (list, tuple)) else sizes if name == "chunk" else None
            if isinstance(parts, int):
                return iter([obj[i] for i in range(parts)])
        return super().iter(obj)


def graph_of(model: nn.Module, *, training: bool, given: Mapping[str, Any] | None = None) -> fx.Graph:
    """The functional graph of a model in train or eval mode; raises whatever stops the tracing.

    `given`: arguments of an example by name; those that are not None are inputs even where they have a default.
    """
    modes = [(module, module.training) for module in model.modules()]
    before = {name: buffer.clone() for name, buffer in model.named_buffers() if not buffer.is_meta}
    held = _held(model)
    defaults = kept_defaults(model, given or {})
    try:
        with _packing_refused(), _sizes_in_a_row():
            own = {id(tensor) for tensor in model.parameters()}
            graph = _Tracer(given, own).trace(model.train(training), defaults or None)
    finally:
        for module, mode in modes:
            module.training = mode
        changed = _put_back(held) or _restored(model, before)
    if changed:
        raise ValueError(f"the forward pass writes {changed}, which a graph cannot keep")
    bare = True  # no argument before has a default
    for node in graph.nodes:
        if node.op == "placeholder" and str(node.target).removesuffix("_1") in defaults:
            node.target = str(node.target).removesuffix("_1")
            node.args = (defaults[node.target],)  # the value that the graph was traced with
        if node.op == "placeholder" and bare and node.target in (given or {}) and node.target not in defaults:
            node.args = ()  # the example gives it: the graph needs it from now on
        bare = bare and not (node.op == "placeholder" and node.args)
    keep_constants(graph, model)
    written_out(graph, model)
    functionalise(graph, model)
    return graph


@contextlib.contextmanager
def _packing_refused() -> Iterator[None]:
    """Packed sequences are told by name: their lengths are values, which no graph holds."""
    utilities = nn.utils.rnn
    before = utilities.pack_padded_sequence

    def refuse(*_: Any, **__: Any) -> Any:
        raise ValueError("pack_padded_sequence: lengths are values, which no graph holds; give padded sequences")

    utilities.pack_padded_sequence = refuse
    try:
        yield
    finally:
        utilities.pack_padded_sequence = before


@contextlib.contextmanager
def _sizes_in_a_row() -> Iterator[None]:
    """`torch.zeros(x.shape[0], 5)` is traced as `torch.zeros((x.shape[0], 5))`: torch takes a proxy in front for the
    only argument."""
    names = ("zeros", "ones", "empty")
    before = {name: getattr(torch, name) for name in names}

    def gathered(function: Callable[..., Any]) -> Callable[..., Any]:
        def make(*sizes: Any, **named: Any) -> Any:
            proxy = next((size for size in sizes if isinstance(size, fx.Proxy)), None)
            if proxy is None or len(sizes) < 2:
                return function(*sizes, **named)
            return proxy.tracer.create_proxy("call_function", function, (sizes,), named)

        return make

    for name, function in before.items():
        setattr(torch, name, gathered(function))
    try:
        yield
    finally:
        for name, function in before.items():
            setattr(torch, name, function)


def keep_constants(graph: fx.Graph, model: nn.Module) -> None:
    """Tensors that the code makes of numbers are buffers from now on: they follow the model's type and device."""
    for node in graph.nodes:
        if node.op == "get_attr" and str(node.target).startswith("_tensor_constant"):
            made = getattr(model, str(node.target))
            if str(node.target) not in model._buffers:
                delattr(model, str(node.target))
                model.register_buffer(str(node.target), made.detach(), persistent=False)


def kept_defaults(model: nn.Module, given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `forward` that are no tensors (None, a flag, a number, a word), by name: the example's own, else
    their default."""
    parameters = inspect.signature(type(model).forward).parameters.values()
    plain = {p.name: p.default for p in parameters if given.get(p.name) is None and is_plain(p.default)}
    return plain | {name: value for name, value in given.items() if is_plain(value)}


def is_plain(value: Any) -> bool:
    """Whether an argument is none of the values that flow through the network."""
    return value is None or isinstance(value, (bool, int, float, str))


def named_arguments(model: nn.Module, example: Any) -> dict[str, Any]:
    """An example (a tensor, a tuple of arguments, or a dictionary by name) as arguments of `forward` by name."""
    if example is None:
        return {}
    signature = inspect.signature(model.forward)
    try:
        if isinstance(example, Mapping):
            return dict(signature.bind(**example).arguments)
        return dict(signature.bind(*(example if isinstance(example, (tuple, list)) else (example,))).arguments)
    except TypeError as problem:
        raise ValueError(f"example: {problem}; forward takes {signature}") from None


def _held(model: nn.Module) -> list[tuple[str, Any, Any]]:
    """(name, the buffers, a list or a dictionary of a module, a copy of it): what the traced code may write into."""
    found: list[tuple[str, Any, Any]] = []
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            continue  # its own runtime holds its buffers, which no traced code reaches
        own = {k: v for k, v in vars(module).items() if isinstance(v, (list, dict)) and not k.startswith("_")}
        for key, value in {"buffers": module._buffers, **own}.items():
            found.append((f"{name}.{key}".lstrip("."), value, copy.copy(value)))
    return found


def _put_back(held: list[tuple[str, Any, Any]]) -> str:
    """Values of the graph taken out of what modules hold; the name of the first one with such values."""
    changed = ""
    for name, now, before in held:
        if any(isinstance(value, fx.Proxy) for value in (now.values() if isinstance(now, dict) else now)):
            changed = changed or f"{name}"
            now.clear()
            now.update(before) if isinstance(now, dict) else now.extend(before)
    return changed


def _restored(model: nn.Module, before: Mapping[str, Tensor]) -> str:
    """What the traced code wrote into the model, put back; an empty text where it wrote nothing."""
    found = ""
    for name, buffer in model.named_buffers():
        if name in before and not torch.equal(buffer.nan_to_num(), before[name].nan_to_num()):
            buffer.data.copy_(before[name])
            found = found or f"the buffer {name}"
    for name, module in model.named_modules():
        for key in [k for k, value in vars(module).items() if isinstance(value, fx.Proxy)]:
            delattr(module, key)
            found = found or f"the attribute {f'{name}.{key}'.lstrip('.')}"
    return found
