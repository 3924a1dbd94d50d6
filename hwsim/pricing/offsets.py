"""What the offset of LSQ+ costs in hardware: nothing by assumption, a class by rule.

Each layer gets one of `none`, `folded`, `border_bias`, `padded_copy`, `dynamic` from its padding policy, its operands
and what the machine can do, with the extra bits, additions and transfers it needs (LSQ+ Eq. 5 is free only where every
tap sees data, or where the border holds the right code).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hwsim.machine.parts import Capabilities
from hwsim.network.layer import Layer
from hwsim.pricing.scales import groups_of_sum, unpacked

OffsetClass = Literal["none", "folded", "border_bias", "padded_copy", "dynamic"]
BIAS_BITS = 32


@dataclass(frozen=True)
class OffsetCost:
    """Class and price of a layer's offset: bits stored, additions, bits read and written beyond the layer's own.

    `border_codes`: codes among them that stand around the input in memory, written once (their reading is counted
    with the input's, whose points include the border).
    """

    kind: OffsetClass = "none"
    extra_bits: int = 0
    extra_adds: int = 0
    extra_read_bits: int = 0
    extra_write_bits: int = 0
    why: str = "no operand has an offset"
    border_codes: int = 0

    def to_dict(self) -> dict[str, str | int]:
        """As it stands in the report."""
        return {
            "class": self.kind,
            "extra_bits": self.extra_bits,
            "extra_adds": self.extra_adds,
            "extra_read_bits": self.extra_read_bits,
            "extra_write_bits": self.extra_write_bits,
            "why": self.why,
        }


NO_OFFSET = OffsetCost()


def offset_cost(layer: Layer, capabilities: Capabilities) -> OffsetCost:
    """Offset class of a layer and what it costs there."""
    if not layer.has_macs or layer.weight is None:
        return vector_offset(layer)
    if unpacked(layer):  # floats: offsets of the weights are gone once they are unpacked (pricing/scales.py)
        return NO_OFFSET
    if layer.weight_is_activation or layer.weight.offset:
        return dynamic(layer)
    if not layer.inputs[0].offset:
        return NO_OFFSET
    if layer.inputs[0].run_time:
        return at_run_time(layer)
    if not meets_padding(layer):
        return folded(layer, "constant bias absorbs beta: no tap meets padding")
    if layer.padding_policy == "pad_beta":
        return folded(layer, "the border is code 0, which means beta")
    if layer.padding_policy == "border_bias":
        return border_bias(layer, capabilities)
    if layer.pad_code == 0:
        return folded(layer, "constant bias absorbs beta; the code of zero is 0 here")
    if capabilities.pad_value == "any_code":
        return folded(layer, "constant bias absorbs beta; the machine pads with the code of zero", layer.inputs[0].bits)
    return padded_copy(layer)


def bias_vector_bits(layer: Layer) -> int:
    """Bits of one bias per output channel."""
    return layer.loops.G * layer.loops.K * BIAS_BITS


def folded(layer: Layer, why: str, register_bits: int = 0) -> OffsetCost:
    """LSQ+ Eq. 5, bias_k + beta*s_w*sum(w_k): free where the layer has a bias anyway, else a vector and its adds."""
    if layer.bias:
        return OffsetCost("folded", register_bits, why=why)
    bits = bias_vector_bits(layer)
    return OffsetCost("folded", bits + register_bits, layer.output.elements, bits, 0, f"{why}, which the layer lacked")


def meets_padding(layer: Layer) -> bool:
    """Whether any tap of any output position lies in the padding: a stride may step past what is padded behind."""
    loops = layer.loops
    return any(len(seen) < taps for axis, taps in ((0, loops.R), (1, loops.S)) for seen in tap_sets(layer, axis))


def padded_copy(layer: Layer) -> OffsetCost:
    """The machine pads with zero only: in memory the input stands inside a border that holds the right code.

    Whoever makes the input stores it there, so only the border itself is written beside the input's own codes. It is
    read as part of the input: counts live in the padded map (docs/counting.md).
    """
    x = layer.inputs[0]
    top, bottom, left, right = layer.padding
    rows, columns = x.shape[-2], x.shape[-1]
    border = x.elements // (rows * columns) * ((rows + top + bottom) * (columns + left + right) - rows * columns)
    base = folded(layer, "")
    return OffsetCost(
        "padded_copy",
        border * x.bits + base.extra_bits,
        base.extra_adds,
        base.extra_read_bits,
        border * x.bits,
        "the border needs a code that the machine cannot pad with (pad_value: zero_only): it stands in memory around "
        "the input",
        border,
    )


def border_bias(layer: Layer, capabilities: Capabilities) -> OffsetCost:
    """One bias vector per distinct set of taps that see data; without the capability the vector unit adds them."""
    rows, columns = tap_sets(layer, 0), tap_sets(layer, 1)
    vectors = len(rows) * len(columns)
    stored = (vectors - 1 if layer.bias else vectors) * bias_vector_bits(layer)
    loops = layer.loops
    if capabilities.border_bias:
        adds = 0 if layer.bias else layer.output.elements
        why = f"{vectors} border classes, one bias vector each"
    else:
        inside = rows.get(tuple(range(loops.R)), 0) * columns.get(tuple(range(loops.S)), 0)
        border = (loops.P * loops.Q - inside) * loops.N * loops.G * loops.K
        adds = border if layer.bias else layer.output.elements
        why = f"{vectors} border classes; without the capability the vector unit adds them along the border"
    return OffsetCost("border_bias", stored, adds, stored, 0, why)


def tap_sets(layer: Layer, axis: int) -> dict[tuple[int, ...], int]:
    """Distinct sets of filter taps that see data along rows (0) or columns (1), with how many outputs see each."""
    size = layer.inputs[0].shape[-2 + axis]
    outputs, taps = ((layer.loops.P, layer.loops.R), (layer.loops.Q, layer.loops.S))[axis]
    found: dict[tuple[int, ...], int] = {}
    for out in range(outputs):
        first = out * layer.stride[axis] - layer.padding[2 * axis]
        seen = tuple(t for t in range(taps) if 0 <= first + t * layer.dilation[axis] < size)
        found[seen] = found.get(seen, 0) + 1
    return found


def dynamic(layer: Layer) -> OffsetCost:
    """Offsets that no constant absorbs, because the other factor is only known at run time.

    (s_a a + beta_a)(s_b b + beta_b) summed over C: beta_b needs the sum of each row of a, beta_a that of each column
    of b. One add per element summed, one multiply-add per output and term, one 32-bit word per sum.
    """
    x, w, loops = layer.inputs[0], layer.weight, layer.loops
    assert w is not None
    if not x.offset and not w.offset:
        return NO_OFFSET
    if not layer.weight_is_activation:
        return weight_offset(layer)
    adds, sums, terms = 0, 0, 0
    if w.offset:
        adds, sums, terms = adds + x.elements, sums + x.elements // loops.C, terms + 1
    if x.offset:
        adds, sums, terms = adds + w.elements, sums + w.elements // loops.C, terms + 1
    bits = sums * BIAS_BITS
    why = "product of two activations: row and column sums at run time"
    return OffsetCost("dynamic", bits, adds + terms * layer.output.elements, bits, bits, why)


def weight_offset(layer: Layer) -> OffsetCost:
    """Weights with offsets, for all, per channel or per group: y needs s_x sum_g beta_w[g,n] * (sum of g's codes).

    The sums depend on the data, so no constant replaces them: N*G*P*Q*C*R*S additions once for all outputs, and one
    multiply-add per output and group. The input's own static offset is a constant beside them, beta_x sum_k w_hat.
    """
    x, loops, groups = layer.inputs[0], layer.loops, groups_of_sum(layer)
    windows = loops.N * loops.G * loops.P * loops.Q
    adds = windows * loops.C * loops.R * loops.S + layer.output.elements * groups
    bits = windows * groups * BIAS_BITS
    why = "weights have an offset: every window is summed" + (f", in {groups} groups" if groups > 1 else "")
    if not x.offset or x.run_time:
        return OffsetCost("dynamic", bits, adds, 0, 0, why)
    constant = folded(layer, "")
    return OffsetCost(
        "dynamic", bits + constant.extra_bits, adds + constant.extra_adds, constant.extra_read_bits, 0,
        f"{why}; the input's offset is a constant bias",
    )  # fmt: skip


def at_run_time(layer: Layer) -> OffsetCost:
    """The input's offset changes with every input: bias_k + beta * s_w_k * sum(w_k) is formed anew each time.

    The sums of the weights are stored, one 32-bit word per output channel; a multiply-add per channel makes the bias.
    """
    bits, channels = bias_vector_bits(layer), layer.loops.G * layer.loops.K
    adds = channels if layer.bias else channels + layer.output.elements
    return OffsetCost("dynamic", bits, adds, bits, bits, "the offset is found at run time: biases are made anew")


def vector_offset(layer: Layer) -> OffsetCost:
    """Offsets of elementwise operators: products need them added first, sums and concatenations one constant."""
    offsets = sum(t.offset for t in layer.inputs)
    outputs = layer.output.elements
    if not offsets:
        return NO_OFFSET
    if layer.op in ("mul", "div") and len(layer.inputs) > 1:
        return OffsetCost("dynamic", 0, offsets * outputs, why="product of two activations: offsets are added first")
    if layer.op in ("add", "sub", "concat", "requantize"):
        return OffsetCost("folded", 0, outputs, why="one constant per element when inputs change their grid")
    return OffsetCost("none", why="the operator passes the offset on or absorbs it in its table")
