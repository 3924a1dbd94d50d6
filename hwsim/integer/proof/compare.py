# pyright: basic
"""The float64 network beside the integer one: the codes of every quantizer call, and where they differ."""

from __future__ import annotations

import copy
import functools
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwsim.integer import graph
from hwsim.integer.arithmetic import kernels
from hwsim.integer.graph import IntegerModel, Node
from hwsim.integer.lowering.exported_nodes import in_float64
from quant import BaseQuantizer, quantizers
from quant.calling import answer
from quant.quantizer import Quantizer


@dataclass(frozen=True)
class Difference:
    """Codes of one quantizer call that are not the reference's."""

    quantizer: str
    elements: int
    differing: int
    largest: int


def reference(model: nn.Module) -> nn.Module:
    """A float64 copy in eval mode whose convolutions do to the letter what their padding policy says.

    `pad_code`, `snap_offset`: zeros around the input, then the quantizer; `pad_beta`: code 0 around the codes;
    `border_bias`: zeros around x_hat. Then one convolution of real numbers, without padding, whatever shortcut the
    layers themselves take.
    """
    twin = copy.deepcopy(model).double().eval()
    for module in twin.modules():
        if hasattr(module, "padding_policy") and getattr(module, "padding_mode", "") == "zeros":
            module.forward = functools.partial(_literal, module)  # type: ignore[method-assign]
    for _, made in quantizers(twin):
        if isinstance(made, Quantizer) and not made.is_weight and made.mode == "quantize":
            made.forward = functools.partial(_decoded, made)  # type: ignore[method-assign]
    return twin


def _decoded(made: Any, x: Tensor, features: int | None = None) -> Tensor:
    """x_hat by its definition, step * codes + offset; the codes are left for `watching`. `features` changes nothing."""
    made.codes_seen = made.codes(x)
    return made.codes_seen * made.step() + made.offset()


def _literal(layer: Any, x: Tensor) -> Tensor:
    """One quantized convolution by its definition."""
    made: BaseQuantizer = layer.input_quantizer
    padding, weight = layer.total_padding(), layer.weight_quantizer(layer.weight)
    if made.mode != "quantize":
        x_hat = F.pad(made(x), padding)
    elif layer.padding_policy in ("pad_code", "snap_offset"):
        x_hat = made(F.pad(x, padding))
    elif layer.padding_policy == "pad_beta":
        made(x)
        x_hat = F.pad(made.codes(x), padding) * made.step() + made.offset()
    else:
        x_hat = F.pad(made(x), padding)
    convolve = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}[weight.ndim]
    y = convolve(x_hat, weight, None, layer.stride, 0, layer.dilation, layer.groups)
    channels = (1, -1, *[1] * (y.ndim - 2))
    if layer.output_scale is not None:
        y = y * layer.output_scale.view(channels)
    return y if layer.bias is None else y + layer.bias.view(channels)


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
            known = made.__dict__.pop("codes_seen", None)
            seen[label] = made.codes(arguments[0]).detach() if known is None else known

        return write

    for name, made in quantizers(model):
        if not made.is_weight:
            handles.append(made.register_forward_hook(hook(name, made)))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def doubles(images: Any) -> tuple[Tensor, ...]:
    """A network's inputs in order, numbers in float64, indices and flags as they are."""
    given = images if isinstance(images, tuple) else (images,)
    return tuple(t.double() if t.is_floating_point() else t for t in given)


def reference_codes(model: nn.Module, images: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """(result, codes by quantizer call) of a float64 network made by `reference`."""
    with torch.no_grad(), in_float64(), watching(model) as seen:
        result = model(*doubles(images))
    return answer(result), dict(seen)


def compare(model: IntegerModel, codes: dict[str, Tensor], expected: dict[str, Tensor]) -> tuple[Difference, ...]:
    """Element by element, for every quantizer call; a padded copy in the reference is compared with its padding."""
    found = []
    for name, node_name in model.quantizers.items():
        node = model.node(node_name)
        ours, theirs = framed(model, node, codes[node_name], expected[name])
        if torch.equal(ours.to(theirs.dtype), theirs):  # floats hold every code exactly
            found.append(Difference(name, theirs.numel(), 0, 0))
            continue
        off = (ours.double() - theirs.double()).abs()
        found.append(Difference(name, off.numel(), int((off > 0).sum()), int(off.max())))
    return tuple(found)


def readers(model: IntegerModel, node: Node) -> list[graph.Convolve]:
    """Convolutions and linear layers that read a node, directly or moved."""
    moves = [m for m in model.nodes if isinstance(m, graph.Move)]
    names = {node.name, *(m.name for m in moves if node.name in m.xs)}
    shared = {n.x for n in model.convolutions if n.share is not None}  # codes of a group are cut out of all
    names |= {m.name for m in moves if m.name in shared and not names.isdisjoint(m.xs)}
    return [n for n in model.convolutions if n.x in names]


def unframed(model: IntegerModel, node: Node, codes: Tensor) -> Tensor:
    """The reference's codes as our node holds them: without the frame of a padded copy, in the node's dtype."""
    codes = codes.round().to(kernels.narrowest(node.range.least, node.range.largest))
    shape = node.shape
    for axis in range(2, len(shape)):
        extra = codes.shape[axis] - shape[axis]
        if extra:
            window = readers(model, node)[0].window
            assert window is not None
            sides = window.padding[::2] if len(shape) == 4 else window.padding[2:3]
            codes = codes.narrow(axis, sides[axis - 2], shape[axis])
    return codes


def framed(model: IntegerModel, node: Node, ours: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
    """Our codes, inside the padding of the convolution that reads them where the reference quantized a padded copy."""
    if ours.shape == theirs.shape:
        return ours, theirs
    if ours.shape[0] == 1:  # a constant: the same for every image
        return ours.expand_as(theirs), theirs
    reader = readers(model, node)[0]
    assert reader.window is not None
    top, bottom, left, right = reader.window.padding
    sides = (left, right, top, bottom) if theirs.ndim == 4 else (left, right)
    return F.pad(ours.to(torch.int32), sides, value=reader.padding.code), theirs
