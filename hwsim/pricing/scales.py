"""Work that number formats need beside the MACs: scales along the reduction, and narrow weights unpacked to wider ones.

A scale per group leaves the MACs once per group: M*N*G multiply-adds on the vector unit (`vector`), or none where the
MACs multiply by it themselves (`mac`). Where activations are 16-bit floats, narrow weights are converted, scaled and
shifted by their zero point on the way to the MACs (`unpack`): N*K times as many operations, once for every
`unpack_rows` rows of activations that one pass over the weights serves (docs/formats.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from hwsim.machine.parts import Accelerator
from hwsim.network.layer import FLOAT_BITS, Layer

Way = Literal["none", "unpack", "vector", "mac"]
HALF = ("fp16", "bf16")


@dataclass(frozen=True)
class ScaleWork:
    """How a layer's scales are applied, with operations on the vector unit, and those that take its time (`slots`);
    `refusal` says why the machine cannot."""

    way: Way = "none"
    ops: int = 0
    slots: int = 0
    refusal: str = ""


def scale_work(layer: Layer, accelerator: Accelerator) -> ScaleWork:
    """The cheapest of the ways that the machine has; integers with scales outside their sums need none."""
    if not layer.multiplied or all(t.format is None for t in layer.multiplied) or in_float32(layer):
        return ScaleWork()
    weight, x = layer.multiplied
    capabilities = accelerator.capabilities
    for tensor in (x, weight):
        half_too = tensor is weight and unpacked(layer)
        if tensor.element not in capabilities.elements and not half_too:
            return ScaleWork(refusal=f"elements: expected one of {', '.join(capabilities.elements)} for {tensor.name}, "
                             f"got {tensor.element}")  # fmt: skip
    if unpacked(layer):
        return unpack(layer, accelerator)
    if (weight.element == "int") != (x.element == "int"):
        return ScaleWork(refusal=f"elements: no MAC multiplies {weight.element} by {x.element}")
    groups = groups_of_sum(layer)
    if groups == 1 and not inner_scales(layer):
        return ScaleWork()
    scaled = capabilities.scaled_elements or capabilities.elements
    if "mac" in capabilities.group_scales and {weight.element, x.element} <= set(scaled):
        return ScaleWork("mac")
    if "vector" in capabilities.group_scales:
        ops = layer.output.elements * groups if groups > 1 else layer.output.elements + x.elements
        return ScaleWork("vector", ops, ops)
    only = f" (mac for {', '.join(scaled)} alone)" if "mac" in capabilities.group_scales else ""
    return ScaleWork(refusal=f"group_scales: expected mac or vector for scales along the sums of {layer.name}, "
                     f"got {', '.join(capabilities.group_scales) or 'none'}{only}")  # fmt: skip


def unpacked(layer: Layer) -> bool:
    """Whether narrow weights meet 16-bit floats, and become such on the way to the MACs."""
    if not layer.multiplied or in_float32(layer):
        return False
    weight, x = layer.multiplied
    return x.element in HALF and weight.element != x.element


def in_float32(layer: Layer) -> bool:
    """Whether a plain float meets values that nobody rounded: both are multiplied as 32-bit numbers."""
    bare = [t.format is None and t.bits >= FLOAT_BITS for t in layer.multiplied]
    small = [t.format is not None and t.format.sharing == "none" for t in layer.multiplied]
    return any(bare) and any(small)


def unpack(layer: Layer, accelerator: Accelerator) -> ScaleWork:
    """Convert, scale, and shift where there is an offset: per weight, once for each pass over the weights.

    A mode that unpacks was measured with this work beside its MACs: there it takes energy, and the mode's time.
    """
    capabilities = accelerator.capabilities
    weight = layer.multiplied[0]
    if "unpack" not in capabilities.group_scales:
        return ScaleWork(refusal=f"group_scales: expected unpack, since {weight.name} ({weight.element}) is narrower "
                         f"than the activations ({layer.inputs[0].element})")  # fmt: skip
    each = 2 + (weight.format is not None and bool(weight.format.offset))
    loops = layer.loops
    passes = -(-loops.N * loops.P * loops.Q // capabilities.unpack_rows)
    ops = weight.elements * each * passes
    return ScaleWork("unpack", ops, 0 if unpacking_mode(layer, accelerator) else ops)


def unpacking_mode(layer: Layer, accelerator: Accelerator) -> bool:
    """Whether the MACs have a mode for these widths that unpacks weights itself."""
    weight, x = layer.multiplied
    return any(m.unpacks and m.weight_bits >= weight.bits and m.input_bits >= x.bits for m in accelerator.mac.modes)


def groups_of_sum(layer: Layer) -> int:
    """Partial sums with a scale each in one output: ceil(C / group) for every filter tap; 1 where none has its own.

    Where both operands have groups, a sum ends wherever either's ends: ceil(C/a) + ceil(C/b) - ceil(C / lcm(a, b)).
    """
    sizes = [t.format.group for t in layer.multiplied if t.format is not None and t.format.along_reduction]
    if not sizes:
        return 1
    loops = layer.loops
    ends = sum(-(-loops.C // size) for size in sizes)
    both = -(-loops.C // math.lcm(*sizes)) if len(sizes) > 1 else 0
    return (ends - both) * loops.R * loops.S


def inner_scales(layer: Layer) -> bool:
    """Whether a product of two activations has a scale per token on either side."""
    return layer.weight_is_activation and any(
        t.format is not None and t.format.sharing == "channel" for t in layer.multiplied
    )


def mac_elements(layer: Layer) -> tuple[str, str]:
    """(weight, input) elements as the MACs see them: unpacked weights are what the activations are."""
    weight, x = layer.multiplied
    if in_float32(layer):
        return "int", "int"  # as unrounded values are priced everywhere
    return (x.element if unpacked(layer) else weight.element), x.element


def mac_widths(layer: Layer, accelerator: Accelerator) -> tuple[int, int]:
    """(weight, input) bits as the MACs see them: weights unpacked on the way are as wide as the activations."""
    weight, x = layer.multiplied
    if in_float32(layer):
        return FLOAT_BITS, FLOAT_BITS
    wide = unpacked(layer) and not unpacking_mode(layer, accelerator)
    return (x.bits if wide else weight.bits), x.bits
