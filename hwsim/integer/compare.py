# pyright: basic
"""The float64 network beside the integer one: the codes of every quantizer call, and where they differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hwsim.integer import graph
from hwsim.integer.graph import IntegerModel, Node
from hwsim.integer.run import Machine
from quant import BaseQuantizer, quantizers


@dataclass(frozen=True)
class Difference:
    """Codes of one quantizer call that are not the reference's. `inside`: those away from a convolution's border."""

    quantizer: str
    elements: int
    differing: int
    largest: int


@contextmanager
def watching(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Inside, every activation quantizer writes down its codes under its name (a second call: `name@1`)."""
    seen: dict[str, Tensor] = {}
    calls: Counter[str] = Counter()
    handles = []

    def hook(name: str, made: BaseQuantizer) -> Any:
        def write(_: nn.Module, arguments: tuple[Any, ...], __: object) -> None:
            label = f"{name}@{calls[name]}" if calls[name] else name
            calls[name] += 1
            seen[label] = made.codes(arguments[0]).detach()

        return write

    for name, made in quantizers(model):
        if not made.is_weight:
            handles.append(made.register_forward_hook(hook(name, made)))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def reference_codes(model: nn.Module, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """(result, codes by quantizer call) of a float64 network as `lower.reference` gives it."""
    with torch.no_grad(), watching(model) as seen:
        result = model(images.double())
    return result, dict(seen)


def compare(model: IntegerModel, codes: dict[str, Tensor], expected: dict[str, Tensor]) -> tuple[Difference, ...]:
    """Element by element, for every quantizer call; a padded copy in the reference is compared with its padding."""
    found = []
    for name, node_name in model.quantizers.items():
        node = model.node(node_name)
        ours, theirs = framed(model, node, codes[node_name], expected[name])
        off = (ours.double() - theirs.double()).abs()
        found.append(Difference(name, off.numel(), int((off > 0).sum()), int(off.max()) if off.numel() else 0))
    return tuple(found)


def framed(model: IntegerModel, node: Node, ours: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
    """Our codes, inside the padding of the convolution that reads them where the reference quantized a padded copy."""
    if theirs.ndim == 3 and ours.ndim == 4:
        theirs = theirs.unsqueeze(2)
    if ours.shape == theirs.shape:
        return ours, theirs
    if ours.shape[0] == 1:  # a constant: the same for every image
        return ours.expand_as(theirs), theirs
    readers = [n for n in model.convolutions if n.x == node.name and n.window is not None]
    readers += [
        n
        for m in model.nodes
        if isinstance(m, graph.Move) and node.name in m.xs
        for n in model.convolutions
        if n.x == m.name
    ]
    top, bottom, left, right = readers[0].window.padding  # type: ignore[union-attr]
    padded = torch.nn.functional.pad(
        ours.to(torch.int32),
        (left, right, top, bottom) if theirs.ndim == 4 else (left, right),
        value=readers[0].padding.code,
    )
    return padded, theirs


def run_and_compare(
    machine: Machine, reference: nn.Module, images: Tensor
) -> tuple[tuple[Difference, ...], Counter[str]]:
    """End to end: both networks on the same images; differences of every quantizer call, and the machine's tally."""
    _, expected = reference_codes(reference, images)
    outcome = machine.run(images, keep=set(machine.model.quantizers.values()))
    return compare(machine.model, outcome.codes, expected), outcome.tally
