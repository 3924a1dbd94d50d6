"""How networks are called: one input or several, by position or by name, with one result or several.

A batch is a tensor; a tuple or list of arguments, of which those beyond the arguments that `forward` needs (labels)
are left out; or a dictionary, of which `forward`'s arguments are taken. An argument that is itself a list, tuple or
dictionary stands in a tuple: `({"image": x},)`. Of several results the first tensor is the
network's answer, in a dictionary or a dataclass the one called logits, out or output where there is one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

_ANSWERS = ("logits", "out", "output")


def arguments(model: nn.Module, batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and named arguments of `model` for a batch."""
    parameters = inspect.signature(_inner(model).forward).parameters.values()
    if isinstance(batch, Mapping):
        takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
        known = {p.name for p in parameters}
        return (), {key: value for key, value in batch.items() if takes_all or key in known}
    if not isinstance(batch, (tuple, list)):
        return (batch,), {}
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    needed = sum(p.default is p.empty for p in positional)
    if batch and isinstance(batch[0], (tuple, list, Mapping)) and not is_one_argument(batch[0], positional, needed):
        return arguments(model, batch[0])
    return tuple(batch[: max(1, needed)]), {}


def is_one_argument(held: Any, parameters: list[inspect.Parameter], needed: int) -> bool:
    """Whether a container in front of a batch is one argument of `forward`, and not all of them beside labels: a
    dictionary that names no argument, several tensors for a network of one argument, or nested containers."""
    if isinstance(held, Mapping):
        return needed > 0 and not any(p.name in held for p in parameters)
    return needed == 1 and (len(held) > 1 or not isinstance(next(iter(held), None), (Tensor, Mapping)))


def call(model: nn.Module, batch: Any) -> Any:
    """The network's result on a batch."""
    positional, named = arguments(model, batch)
    return model(*positional, **named)


def answer(result: Any, kind: type = Tensor) -> Any:
    """The tensor that a network answers with (or what stands for it, of `kind`); ValueError where there is none."""
    if isinstance(result, kind):
        return result
    if dataclasses.is_dataclass(result) and not isinstance(result, (type, Mapping)):
        result = {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
    if isinstance(result, Mapping):
        named = [result[key] for key in _ANSWERS if isinstance(result.get(key), kind)]
        result = [*named, *result.values()]
    parts = list(result) if isinstance(result, Iterable) and not isinstance(result, str) else []
    found = next((value for value in parts if isinstance(value, kind)), None)
    if found is not None:
        return found
    for part in parts:  # lists of results, one for each scale
        with contextlib.suppress(ValueError):
            return answer(part, kind)
    raise ValueError(f"the network's result holds no tensor: {type(result).__name__}")


def moved(batch: Any, device: Any, *, non_blocking: bool = False) -> Any:
    """A batch on a device, whatever holds its tensors."""
    return each(batch, lambda tensor: tensor.to(device, non_blocking=non_blocking))


def each(batch: Any, change: Callable[[Tensor], Any]) -> Any:
    """A batch with every tensor changed, held as before."""
    if isinstance(batch, Tensor):
        return change(batch)
    if isinstance(batch, Mapping):
        return {key: each(value, change) for key, value in batch.items()}
    return type(batch)(each(value, change) for value in batch) if isinstance(batch, (tuple, list)) else batch


def parted(batch: Any, parts: int) -> list[Any]:
    """A batch cut into as many parts along the samples."""
    size = -(-rows(batch) // parts)
    return [each(batch, lambda tensor, i=i: tensor[i : i + size]) for i in range(0, rows(batch), size)]


def rows(batch: Any) -> int:
    """Samples in a batch: the length of its first tensor."""
    while not isinstance(batch, Tensor):
        batch = next(iter(batch.values() if isinstance(batch, Mapping) else batch))
    return len(batch)


def _inner(model: nn.Module) -> nn.Module:
    """The network inside torch's wrappers, whose own `forward` takes anything."""
    while isinstance(model, (DataParallel, DistributedDataParallel, AveragedModel)):
        model = model.module
    return getattr(model, "_orig_mod", model)
