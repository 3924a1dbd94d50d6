# pyright: basic
"""The graph of one real run: aten operators recorded as they are dispatched, for models that torch.export refuses.

The run decides every branch, so the graph holds for inputs like the example only. Operators appear one level lower
than under torch.export (`aten.addmm` for a linear layer); the handlers know both levels.
"""

from __future__ import annotations

import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

from hwsim.frontends.lowering.ir import Arg, Meta, Op, OpGraph, Quantization, Ref


def record(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    name: str,
    quantizers: dict[str, Quantization],
    padding_policies: dict[str, str],
) -> OpGraph:
    """Run the model once and return what it computed, operator by operator."""
    recorder = Recorder(model)
    inputs = tuple(recorder.name_of(item, "input") for item in tensors_held((args, kwargs)))
    with recorder.watching(model), torch.no_grad(), Exits(recorder), recorder:
        result = model(*args, **kwargs)
    outputs = tuple(recorder.name_of(item, "output") for item in tensors_in(result))
    return OpGraph(
        name, inputs, recorder.constants, recorder.metas, tuple(recorder.ops), outputs, quantizers, padding_policies
    )


def tensors_in(value: Any) -> list[torch.Tensor]:
    """All tensors in nested containers, model outputs with fields included."""
    if torch.is_tensor(value):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [tensor for item in value for tensor in tensors_in(item)]
    return []


def tensors_held(value: Any, depth: int = 6) -> list[torch.Tensor]:
    """All tensors that an example hands over, those inside objects (caches) included, once each."""
    found: dict[int, torch.Tensor] = {}
    seen: set[int] = set()

    def look(item: Any, left: int) -> None:
        if torch.is_tensor(item):
            found.setdefault(id(item), item)
            return
        if left == 0 or id(item) in seen or isinstance(item, nn.Module | type | str | bytes | int | float):
            return
        seen.add(id(item))
        inside = item.values() if isinstance(item, dict) else item if isinstance(item, list | tuple | set) else ()
        slots = [getattr(item, name, None) for name in getattr(type(item), "__slots__", ())]
        for part in (*inside, *slots, *vars_of(item).values()):
            look(part, left - 1)

    look(value, depth)
    return list(found.values())


def vars_of(item: Any) -> dict[str, Any]:
    """An object's own attributes; none for what has no dictionary."""
    return dict(vars(item)) if hasattr(item, "__dict__") else {}


def line_of_user() -> str:
    """`file:line: code` of the innermost call that belongs neither to torch nor to this package."""
    ours = (str(Path(torch.__file__).parent), str(Path(__file__).parents[2]))
    for frame in reversed(traceback.extract_stack()):
        if not frame.filename.startswith((*ours, "<")):
            return f"{Path(frame.filename).name}:{frame.lineno}: {frame.line}"
    return ""


# A value becomes Python's: operators that say so, and methods that hand an array over without any operator.
LOOKS = ("aten._local_scalar_dense", "aten.item", "aten.is_nonzero", "aten.equal", "aten.allclose")
EXITS = frozenset(
    getattr(torch.Tensor, name)
    for name in ("numpy", "tolist", "__array__", "__dlpack__", "data_ptr", "untyped_storage", "__reduce_ex__")
)


class Recorder(TorchDispatchMode):
    """Writes down every operator that reaches the dispatcher, with the module it came from."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.names = WeakIdKeyDictionary()  # tensor object -> value name; objects may die and their ids be used again
        self.metas: dict[str, Meta] = {}
        self.constants: dict[str, str] = {}
        self.ops: list[Op] = []
        self.counter = 0
        self.path: list[tuple[str, str]] = [("", "")]
        self.calls: Counter[str] = Counter()
        for key, tensor in (*model.named_parameters(remove_duplicate=False), *model.named_buffers()):
            self.constants.setdefault(self.name_of(tensor, "p"), key)

    def watching(self, model: nn.Module) -> Hooks:
        """Follow which module is running."""
        return Hooks(self, model)

    def name_of(self, tensor: torch.Tensor, stem: str) -> str:
        """The value a tensor object stands for; a new one if it was never seen."""
        if tensor not in self.names:
            self.counter += 1
            self.give_name(tensor, f"{stem}_{self.counter}")
        return self.names[tensor]

    def give_name(self, tensor: torch.Tensor, name: str) -> None:
        """From now on the object stands for that value."""
        self.names[tensor] = name
        self.metas[name] = Meta(tuple(int(n) for n in tensor.shape), str(tensor.dtype).removeprefix("torch."))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        schema = func._schema
        named = {schema.arguments[i].name: self.argument(arg) for i, arg in enumerate(args)}
        named.update({key: self.argument(arg) for key, arg in kwargs.items()})
        result = func(*args, **kwargs)
        outputs: list[str] = []
        for tensor in tensors_in(result):
            self.counter += 1
            outputs.append(f"{schema.name.rpartition('::')[2]}_{self.counter}")
            self.give_name(tensor, outputs[-1])
        operator = schema.name.replace("::", ".")
        self.write_down(operator, named, tuple(outputs), line_of_user() if operator in LOOKS else "")
        return result

    def write_down(self, operator: str, named: dict[str, Arg], outputs: tuple[str, ...], line: str) -> None:
        """One more operator of the module that is running."""
        module, call = self.path[-1]
        self.ops.append(Op(operator, named, outputs, module, call, line))

    def argument(self, value: Any) -> Arg:
        """An argument as the graph's own kind of value; a tensor never seen before is a constant."""
        if torch.is_tensor(value):
            if value not in self.names:
                self.constants[self.name_of(value, "constant")] = f"constant_{self.counter}"
            return Ref(self.names[value])
        if isinstance(value, list | tuple):
            return tuple(self.argument(item) for item in value)
        if isinstance(value, bool | int | float | str) or value is None:
            return value
        return str(value)


class Exits(TorchFunctionMode):
    """Writes down where a tensor leaves torch: what comes back from numpy or lists looks like a new constant."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in EXITS and args and torch.is_tensor(args[0]):
            seen = {"self": self.recorder.argument(args[0])}
            self.recorder.write_down("aten.item", seen, (), line_of_user())
        return func(*args, **(kwargs or {}))


class Hooks:
    """Hooks that tell a recorder which module is running; removed on exit."""

    def __init__(self, recorder: Recorder, model: nn.Module) -> None:
        self.recorder, self.model = recorder, model
        self.handles: list[Any] = []

    def __enter__(self) -> None:
        for name, module in self.model.named_modules():
            if not name or isinstance(module, torch.jit.ScriptModule):  # scripted modules take no hooks
                continue
            self.handles.append(module.register_forward_pre_hook(self.entering(name)))
            self.handles.append(module.register_forward_hook(self.leaving, always_call=True))

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()

    def entering(self, name: str) -> Any:
        def hook(*_: Any) -> None:
            number = self.recorder.calls[name]
            self.recorder.calls[name] += 1
            self.recorder.path.append((name, f"{name}@{number}" if number else name))

        return hook

    def leaving(self, *_: Any) -> None:
        self.recorder.path.pop()
