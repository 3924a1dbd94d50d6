"""The quantizers of a whole model: list them, bypass them, give them their first values, group them for an optimizer.

A model's quantizers are found by walking its modules. The context managers set the mode of each and put it back.
`initialise` runs batches through the float network while the quantizers watch, and then sets s and beta (LSQ+ 3.2.2).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from quant.calling import call
from quant.quantizer import BaseQuantizer


def quantizers(model: nn.Module) -> Iterator[tuple[str, BaseQuantizer]]:
    """(qualified name, quantizer) of every quantizer, shared ones once."""
    for name, module in model.named_modules():
        if isinstance(module, BaseQuantizer):
            yield name, module


@contextmanager
def _in_mode(chosen: list[BaseQuantizer], mode: str) -> Iterator[None]:
    before = [q.mode for q in chosen]
    for q in chosen:
        q.mode = mode
    try:
        yield
    finally:
        for q, old in zip(chosen, before, strict=True):
            q.mode = old


@contextmanager
def _state_kept(model: nn.Module) -> Iterator[None]:
    """Caches and counters that a forward pass writes are afterwards as they were; quantizers keep what they learned."""
    kept = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        if not isinstance(module, BaseQuantizer)
        for name, buffer in module.named_buffers(recurse=False)
    ]
    try:
        yield
    finally:
        for module, name, buffer, values in kept:
            buffer.copy_(values)
            setattr(module, name, buffer)  # a forward pass may have bound another tensor to the name


@contextmanager
def export_names(model: nn.Module) -> Iterator[None]:
    """Inside, each quantizer is one node `hwsim_quant.quantizer(x, qualified name)` for torch.export and nothing else.

    Layers then use their nominal padding, so the graph shows the layer as it was before quantization.
    """
    named = list(quantizers(model))
    for name, q in named:
        q.mark = name
    with _in_mode([q for _, q in named], "name"):
        yield


@contextmanager
def bypassed(model: nn.Module, keep: Callable[[str], bool] = lambda name: False) -> Iterator[None]:
    """Inside, quantizers pass their input through, except those whose qualified name `keep` accepts."""
    with _in_mode([q for name, q in quantizers(model) if not keep(name)], "float"):
        yield


@contextmanager
def observing(model: nn.Module, *, again: bool = False) -> Iterator[None]:
    """Inside, quantizers watch the float network; on a clean exit those not yet initialised take their first values.

    `again=True` re-initialises all activation quantizers. Weight quantizers are initialised with their layers.
    """
    named = [(n, q) for n, q in quantizers(model) if not q.is_weight]
    chosen = [(n, q) for n, q in named if again or not bool(q.initialized)]
    taken = {id(q) for _, q in chosen}
    others = [q for _, q in quantizers(model) if id(q) not in taken]
    with _in_mode([q for _, q in chosen], "observe"), _in_mode(others, "float"):
        yield
    blind = [n for n, q in chosen if not q.has_observed]
    if blind:
        for _, q in chosen:
            q.forget()
        raise RuntimeError(
            f"{_listed(blind)}: such quantizers saw no data: on the batches given, their layers did not run. Give "
            "batches (or `forward`) that run them, or leave these layers in float: overrides={'NAME': {'skip': True}}"
        )
    for name, q in chosen:
        try:
            q.finish_observing()
        except (RuntimeError, ValueError) as error:
            raise type(error)(f"{name}: {error}") from error
    constant = [f"{n} (always {float(q.observed[0]):g})" for n, q in chosen if bool(q.observed[0] == q.observed[1])]
    if constant:
        warnings.warn(
            f"{_listed(constant)} saw one value only, which gives a step size of no meaning: initialise with other "
            "data",
            stacklevel=2,
        )


def _listed(names: list[str]) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more quantizers" if len(names) > 5 else "")


@torch.no_grad()
def initialise(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    forward: Callable[[nn.Module, Any], Any] | None = None,
    again: bool = False,
) -> nn.Module:
    """Set s and beta of every activation quantizer from what it sees on `batches` (LSQ+ 3.2.2); returns the model.

    The network runs in float and in eval mode, so nothing else of it changes. `forward(model, batch)` defaults to
    `quant.calling.call`: tensors, tuples of arguments, dictionaries of named ones; labels are left out. Those
    already initialised keep their values unless `again`.
    """
    if any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers())):
        raise ValueError(
            "initialise: the network is on the meta device, which holds no numbers: move it (to_empty) first"
        )
    was_training = model.training
    model.eval()
    try:
        with _state_kept(model), observing(model, again=again):
            for batch in batches:
                (forward or call)(model, batch)
    finally:
        model.train(was_training)
    return model


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Optimizer groups: all else with `weight_decay`, and without decay the quantizers' s, beta and the like.

    One exception, as its paper has it: PACT's alpha is regularised like a weight, in a third group where there is one.
    The key "quantizers" says whether a group holds the parameters of quantizers.
    """
    regularised: set[int] = set()
    free: set[int] = set()
    for _, q in quantizers(model):
        (regularised if q.spec.method == "pact" else free).update(id(p) for p in q.parameters(recurse=False))
    trained = [p for p in model.parameters() if p.requires_grad]
    parts = [
        ([p for p in trained if id(p) not in free | regularised], weight_decay, False),
        ([p for p in trained if id(p) in free], 0.0, True),
        ([p for p in trained if id(p) in regularised], weight_decay, True),
    ]
    return [
        {"params": members, "weight_decay": decay, "quantizers": of_quantizers}
        for members, decay, of_quantizers in parts[: 3 if parts[2][0] else 2]
    ]
