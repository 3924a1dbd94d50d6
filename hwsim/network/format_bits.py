"""Formats onto a network: `assign_formats(workload, "W4g128A16")`, or a file of name patterns with format names.

Weights of layers with MACs get the weights' format, what such layers read the activations'; everything else is fp16
(bf16 beside bf16 activations), as the recipes of language models have it. So are tables of embeddings and the last
layer unless `first_last` is "same". Caches of keys and values (tensors of origin `cache`) get the cache's format, a
scale per token and head.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import cast

from hwsim.errors import RequestError, SpecError
from hwsim.files.reading import is_a_file
from hwsim.files.strict_yaml import Document, read_document
from hwsim.network.bits import assign_bits
from hwsim.network.bits_file import WXAY
from hwsim.network.formats import NAMED, Format, Formats, parse_formats
from hwsim.network.generation import CACHE
from hwsim.network.layer import Layer, Tensor, activation_inputs
from hwsim.network.workload import Workload

HALVES = {"bf16": NAMED["BF16"]}
SHOWN = 4  # names in a note


def asks_for_formats(bits: object) -> bool:
    """Whether a --bits argument, file or mapping names formats: WxAy with integer activations is no format."""
    if isinstance(bits, Mapping):
        data = cast(Mapping[object, object], bits)
        return any(
            isinstance(v, str) and asks_for_formats(v) for k, v in data.items() if k not in ("config", "first_last")
        )
    text = str(bits).strip()
    if text.endswith((".yaml", ".yml")) or is_a_file(text):
        data = read_document(Path(text)).data
        return isinstance(data, Mapping) and asks_for_formats(data)
    match = WXAY.fullmatch(text)
    if match is not None:
        return match[2] == "16"
    try:
        parse_formats(text)
    except SpecError:
        return "kv" in text.lower() or text[:2].lower() in ("mx", "nv", "fp", "bf") or "g" in text.lower()
    return True


def with_bits(
    workload: Workload,
    bits: str | Path | Mapping[str, object],
    config: str | int = "auto",
    first_last: str | None = None,
    elementwise_bits: int | str | None = None,
) -> Workload:
    """The workload at what `--bits` says, integers or formats: the one reading of every command.

    Raises SpecError, and RequestError for options of integers that formats leave nothing to.
    """
    if not asks_for_formats(bits):
        return assign_bits(workload, bits, config, first_last, elementwise_bits)
    for name, given in (("config", str(config) != "auto"), ("elementwise_bits", elementwise_bits is not None)):
        if given:
            raise RequestError(
                f"{name} is for integers (W4A4), and bits {bits} are number formats: values between layers are 16-bit "
                f"floats; leave {name} out"
            )
    return assign_formats(workload, bits, first_last)


def assign_formats(
    workload: Workload, bits: str | Path | Mapping[str, object], first_last: str | None = None
) -> Workload:
    """The workload with formats on every tensor, and notes that say which. Raises SpecError with every problem."""
    default, overrides, first_last = requested(bits, first_last)
    require_cache(workload, [default, *(formats for _, formats in overrides)])
    half = HALVES.get(default.activation.element, NAMED["FP16"])
    chosen = {layer.name: default for layer in workload.layers}
    kept = kept_layers(workload, bits, first_last)
    for pattern, formats in overrides:
        names = [layer.name for layer in workload.layers if fnmatch.fnmatchcase(layer.name, pattern)]
        if not names:
            raise SpecError(f"bits: {pattern}: matches no layer; layers are called "
                            f"{', '.join(layer.name for layer in workload.layers[:3])}, ...")  # fmt: skip
        require_cache_here(workload, pattern, names, formats, default)
        chosen.update(dict.fromkeys(names, formats))
    given = formats_of_tensors(workload, chosen, kept)

    def change(tensor: Tensor) -> Tensor:
        if tensor.origin == "index":
            return tensor
        return formatted(tensor, *given.get(tensor.name, (half, 0)))

    changed = workload.map_tensors(change)
    layers = [dataclasses.replace(layer, accumulator_bits=None, padding_policy="", pad_code=None)
              for layer in changed.layers]  # fmt: skip
    said = [f"formats: weights {default.weight.describe()}; activations {default.activation.describe()}"]
    if default.cache is not None:
        said.append(
            f"cache of keys and values: {default.cache.describe().replace('each channel', 'each token and head')}"
        )
    if kept:
        said.append(f"{shown(sorted(kept))}: {half.element} weights (--first-last same: formats there, too)")
    said.append(
        f"scales travel with their codes, in whole groups; values between layers that no MAC reads are {half.element}"
    )
    said += heavy_scales(layers)
    return workload_with(workload, layers, said)


def require_cache(workload: Workload, asked: list[Formats]) -> None:
    """Raises SpecError where a cache's format is asked for and the network has no cache."""
    named = [formats.name for formats in asked if formats.cache is not None]
    if named and not any(tensor.origin == CACHE for tensor in workload.tensors.values()):
        raise SpecError(
            f"bits: {named[0]}: {workload.name} has no cache of keys and values: leave KV out, or price a phase of a "
            "language model (hf:CONFIG --phase decode --context L)"
        )


def require_cache_here(
    workload: Workload, pattern: str, names: Collection[str], formats: Formats, default: Formats
) -> None:
    """Raises SpecError where an entry of a file names a format of the cache, and none of its layers touches one."""
    touched = any(
        tensor.origin == CACHE
        for layer in workload.layers
        if layer.name in names
        for tensor in (*activation_inputs(layer), layer.output)
    )
    if formats.cache is not None and formats.cache != default.cache and not touched:
        readers = [x.name for x in workload.layers if any(t.origin == CACHE for t in activation_inputs(x))]
        raise SpecError(
            f"bits: {pattern}: {formats.name}: its layers touch no cache: name KV in default, or at the layers that "
            f"read one ({shown(readers)})"
        )


def heavy_scales(layers: list[Layer]) -> list[str]:
    """A note about weights whose scales take more bits than their codes; groups lie along the input channels, of which
    a depthwise layer has one."""
    heavy = [x for x in layers if x.has_macs and x.weight is not None and not x.weight_is_activation
             and x.weight.side_bits > x.weight.elements * x.weight.bits]  # fmt: skip
    if not heavy:
        return []
    first = heavy[0].weight
    assert first is not None
    each = first.size_bits / first.elements
    return [
        f"weights of {len(heavy)} layers take more bits for scales than for codes ({shown([x.name for x in heavy])}; "
        f"{each:.4g} bits a weight in the first): a group lies along the input channels, and theirs are few"
    ]


def shown(names: list[str]) -> str:
    """The first few names, and how many more."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def workload_with(workload: Workload, layers: list[Layer], notes: list[str]) -> Workload:
    """The same network with other layers and further notes."""
    return Workload(workload.name, layers, workload.coverage, (*workload.notes, *notes))


def requested(
    bits: str | Path | Mapping[str, object], first_last: str | None
) -> tuple[Formats, list[tuple[str, Formats]], str]:
    """(default, overrides in order, first_last) of a name, a file or a mapping."""
    text = str(bits)
    if isinstance(bits, Mapping):
        document = Document("bits", bits)
    elif text.endswith((".yaml", ".yml")) or is_a_file(text):
        document = read_document(Path(text))
    else:
        return parse_formats(text, "--bits"), [], first_last or "8bit"
    data = cast(Mapping[str, object], document.data)
    if "default" not in data:
        raise SpecError(f"{document.path}: default: missing: expected a format such as W4g128A16")
    rule = str(data.get("first_last", first_last or "8bit"))
    if rule not in ("same", "8bit"):
        raise SpecError(f"{document.path}: first_last: expected 8bit or same, got {rule!r}")
    found: list[tuple[str, Formats]] = []
    for key, value in data.items():
        if key != "first_last":
            place = document.place((str(key),)) if document.lines else f"{document.path}: {key}"
            if not isinstance(value, str):
                raise SpecError(f"{place}: expected a format such as W4g128A16, got {value!r}; beside formats, every "
                                "entry is one")  # fmt: skip
            found.append((str(key), parse_formats(value, place)))
    default = next(formats for key, formats in found if key == "default")
    return default, [(key, formats) for key, formats in found if key != "default"], rule


def kept_layers(workload: Workload, bits: str | Path | Mapping[str, object], first_last: str | None) -> set[str]:
    """Layers whose weights stay at 16-bit floats: the ends, but for those that an entry of the file names."""
    _, overrides, first_last = requested(bits, first_last)
    kept = set() if first_last == "same" else ends(workload)
    return {name for name in kept if not any(fnmatch.fnmatchcase(name, pattern) for pattern, _ in overrides)}


def ends(workload: Workload) -> set[str]:
    """Layers whose weights stay fp16: tables of embeddings, the last layer with MACs, a first convolution."""
    weighted = [x for x in workload.layers if x.has_macs and not x.weight_is_activation]
    found = {x.name for x in workload.layers if x.op == "embedding"}
    found |= {x.name for x in weighted[-1:]} | {x.name for x in weighted[:1] if x.op == "conv"}
    tied = {x.weight.name for x in workload.layers if x.op == "embedding" and x.weight is not None}
    return found | {x.name for x in weighted if x.weight is not None and x.weight.name in tied}


def formats_of_tensors(
    workload: Workload, chosen: Mapping[str, Formats], kept: set[str]
) -> dict[str, tuple[Format, int]]:
    """(format, scales) of the tensors that are more than fp16."""
    found: dict[str, tuple[Format, int]] = {}
    for layer in workload.layers:
        formats = chosen[layer.name]
        for tensor in (*activation_inputs(layer), layer.output):
            if tensor.origin == CACHE and formats.cache is not None:
                found[tensor.name] = (formats.cache, scales_along(tensor, formats.cache, tensor.shape[-1]))
        if not layer.has_macs or layer.weight is None or layer.weight_is_activation:
            continue
        if layer.name not in kept:
            outputs = layer.loops.G * layer.loops.K  # a channel of a convolution is all of its window
            channels = formats.weight.sharing == "channel"
            scales = outputs if channels else scales_along(layer.weight, formats.weight, layer.loops.C)
            found[layer.weight.name] = (formats.weight, scales)
            if layer.inputs[0].origin != CACHE:
                read = scales_along(layer.inputs[0], formats.activation, layer.loops.C)
                found[layer.inputs[0].name] = (formats.activation, read)
    return found


def scales_along(tensor: Tensor, form: Format, reduction: int) -> int:
    """Scales of a tensor whose groups lie along an axis of `reduction` elements."""
    return form.scales(math.prod(tensor.shape) // reduction, reduction)


def formatted(tensor: Tensor, given: Format, scales: int) -> Tensor:
    """The tensor in a format. Plain integers with one scale stay what they are to everybody: bits alone."""
    plain = not given.is_float and given.sharing == "tensor" and not given.offset
    return dataclasses.replace(
        tensor, bits=given.bits, signed=True, offset=bool(given.offset), zero_point=None,
        format=None if plain else given, scales=1 if plain else scales,
    )  # fmt: skip
