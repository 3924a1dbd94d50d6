"""Parameters made from parameters before deployment: names, codes and formats of what is stored."""

from __future__ import annotations

import dataclasses
import math

from hwsim.frontends.lowering.ir import Quantization
from hwsim.frontends.lowering.values import Const
from hwsim.network.formats import MAX_BITS, SCALE_BITS, Format


def computed(name: str, shape: tuple[int, ...], sources: list[Const], form: Format | None) -> Const:
    """A constant made from others. It keeps the parameter's name and codes while it is the whole parameter, reshaped
    or rescaled per channel; a part of one, or a mixture, is called after the operator that makes it. It is stored as
    the smallest float among its type (`form`) and those of its sources."""
    coded = [source for source in sources if source.quantization is not None]
    main = coded[0] if len(coded) == 1 else sources[0] if len(sources) == 1 else None
    small = [found for found in (form, *(source.form for source in sources)) if found is not None]
    stored = min(small, key=lambda found: found.bits, default=None)
    if main is None:
        return Const(name, shape, form=stored)
    codes = main.quantization
    if codes is not None and len(sources) > 1:
        steps = max(math.prod(source.shape) for source in sources if source is not main)
        scales = [source.form for source in sources if source is not main and math.prod(source.shape) == steps]
        codes = dataclasses.replace(
            codes,
            scales=max(codes.scales, steps),
            beside_floats=codes.beside_floats or steps_beside(codes, scales[0], steps),
        )
    whole = math.prod(main.shape) == math.prod(shape)
    return Const(main.name if whole else f"{main.name}:{name}", shape, codes, stored)


def steps_beside(codes: Quantization, scale: Format | None, steps: int) -> Format | None:
    """What integer codes are, multiplied by a step for each channel, where 16-bit floats read them."""
    if steps < 2 or codes.bits > MAX_BITS or (scale is not None and scale.element not in SCALE_BITS):
        return None
    return Format("int", codes.bits, "channel", 0, "fp32" if scale is None else scale.element)


def side_by_side(name: str, shape: tuple[int, ...], sources: list[Const], form: Format | None) -> Const:
    """Parameters one behind the other: still codes where all of them are, of the widest one's width."""
    parts = [source for source in sources if math.prod(source.shape)]
    coded = [part.quantization for part in parts if part.quantization is not None]
    if len(parts) < 2:
        return computed(name, shape, parts or sources, form)
    if len(coded) < len(parts):
        return computed(name, shape, [dataclasses.replace(part, quantization=None) for part in parts], form)
    widest, zeros = max(coded, key=lambda item: item.bits), {item.zero_point for item in coded}
    together = dataclasses.replace(
        widest, signed=any(item.signed for item in coded), offset=any(item.offset for item in coded),
        scales=sum(item.scales for item in coded), zero_point=zeros.pop() if len(zeros) == 1 else None,
    )  # fmt: skip
    return Const(name, shape, together)


def shifted(made: Const, sources: list[Const]) -> Const:
    """A parameter plus another: codes with an offset where that is smaller, else no codes any more."""
    codes, sizes = made.quantization, [math.prod(source.shape) for source in sources]
    if codes is None or len(sizes) < 2:
        return made
    alike = sizes.count(max(sizes)) > 1 and max(sizes) > 1
    return dataclasses.replace(
        made, quantization=None if alike else dataclasses.replace(codes, offset=True, zero_point=None)
    )
