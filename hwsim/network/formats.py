"""Number formats as data: element, who shares a scale, the scale's own format, and an offset or none.

`parse_formats("W4g128A16KV8")` reads the short names of the field; `Format.side_bits` counts scales and offsets
exactly, so that 4-bit weights in groups of 128 are 4.125 bits a value. Sources: OCP Microscaling Formats v1.0 (MX),
NVIDIA's NVFP4 and FP8 recipes, IEEE 754; docs/formats.md defines each. How values are rounded is quant's subject.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from hwsim.errors import SpecError

Sharing = Literal["none", "tensor", "channel", "group"]


@dataclass(frozen=True)
class Float:
    """A floating-point element: exponent and mantissa bits, beside one sign bit."""

    exponent_bits: int
    mantissa_bits: int

    @property
    def bits(self) -> int:
        """Stored bits of one value."""
        return 1 + self.exponent_bits + self.mantissa_bits


#: Floating-point elements; `int` stands for integer codes of any width.
FLOATS: dict[str, Float] = {
    "fp32": Float(8, 23), "bf16": Float(8, 7), "fp16": Float(5, 10), "e5m2": Float(5, 2), "e4m3": Float(4, 3),
    "e3m2": Float(3, 2), "e2m3": Float(2, 3), "e2m1": Float(2, 1),
}  # fmt: skip
#: Bits of one scale or offset. e8m0 has no sign and no mantissa: a power of two.
SCALE_BITS: dict[str, int] = {"fp32": 32, "fp16": 16, "bf16": 16, "e8m0": 8, "e4m3": 8}
MAX_GROUP = 2**20
MAX_BITS = 16


@dataclass(frozen=True)
class Format:
    """How one tensor is stored. `element`: `int` or a name of FLOATS; `bits`: of one element.

    `sharing`: who has one scale: nobody (a plain float), the tensor, each output channel (each token of an activation),
    or each `group` of elements along the reduction. `scale`: the scale's format. `offset`: "" none, `code` a zero point
    of the element's width, else the format of a real offset, one for each scale. `tensor_scale`: a second scale of the
    whole tensor (NVFP4). Raises SpecError for what no format is.
    """

    element: str
    bits: int
    sharing: Sharing = "none"
    group: int = 0
    scale: str = ""
    offset: str = ""
    tensor_scale: str = ""

    def __post_init__(self) -> None:
        problem = self.problem()
        if problem:
            raise SpecError(f"format: {problem}")

    def problem(self) -> str:
        """What is wrong with it; empty when nothing is."""
        if self.element != "int" and self.element not in FLOATS:
            return f"element: expected int or one of {', '.join(FLOATS)}, got {self.element!r}"
        right = FLOATS[self.element].bits if self.element in FLOATS else self.bits
        if self.bits != right or not 1 <= self.bits <= 64:
            wanted = str(right) if self.element in FLOATS else "1 to 64"
            return f"bits: {self.element} has {wanted}, got {self.bits}"
        if self.sharing not in ("none", "tensor", "channel", "group"):
            return f"sharing: expected none, tensor, channel or group, got {self.sharing!r}"
        if (self.sharing == "group") != (self.group > 0) or self.group > MAX_GROUP:
            return f"group: expected 1 to {MAX_GROUP:,} with sharing 'group' and 0 elsewhere, got {self.group}"
        for what, name in (("scale", self.scale), ("tensor_scale", self.tensor_scale)):
            if name and name not in SCALE_BITS:
                return f"{what}: expected one of {', '.join(SCALE_BITS)}, got {name!r}"
        if (self.sharing == "none") != (self.scale == "") or (self.sharing == "none" and self.offset):
            return "scale: a shared scale needs its format, and nothing else has one"
        if self.offset and self.offset != "code" and self.offset not in SCALE_BITS:
            return f"offset: expected code or one of {', '.join(SCALE_BITS)}, got {self.offset!r}"
        if self.offset == "code" and self.element != "int":
            return "offset: a zero point is a code of integers"
        return ""

    @property
    def is_float(self) -> bool:
        """Whether its elements have an exponent."""
        return self.element != "int"

    @property
    def along_reduction(self) -> bool:
        """Whether scales change within a sum of products, so that no factor of the whole sum replaces them."""
        return self.sharing == "group"

    @property
    def side_bits_each(self) -> int:
        """Bits of one scale with its offset."""
        offset = self.bits if self.offset == "code" else SCALE_BITS.get(self.offset, 0)
        return SCALE_BITS.get(self.scale, 0) + offset

    def scales(self, rows: int, reduction: int) -> int:
        """Scales of `rows` rows of `reduction` elements: a last, shorter group has one too."""
        return {"none": 0, "tensor": 1, "channel": rows, "group": rows * -(-reduction // (self.group or 1))}[
            self.sharing
        ]

    def side_bits(self, rows: int, reduction: int) -> int:
        """Bits of all scales and offsets of `rows` rows of `reduction` elements."""
        return self.scales(rows, reduction) * self.side_bits_each + SCALE_BITS.get(self.tensor_scale, 0)

    def bits_per_value(self, rows: int, reduction: int) -> Fraction:
        """Stored bits of one value, scales and offsets included.

        >>> parse_format("NVFP4").bits_per_value(4096, 4096) - Fraction(9, 2) == Fraction(32, 4096 * 4096)
        True
        """
        return self.bits + Fraction(self.side_bits(rows, reduction), rows * reduction)

    def describe(self) -> str:
        """`int4, a fp16 scale for each group of 128`."""
        text = f"int{self.bits}" if not self.is_float else self.element
        if self.sharing == "none":
            return text
        shares = f"each group of {self.group}" if self.sharing == "group" else f"each {self.sharing}"
        text += f", a {self.scale} scale for {shares if self.sharing != 'tensor' else 'the tensor'}"
        text += f", a {self.tensor_scale} scale for the tensor" if self.tensor_scale else ""
        zero = f"a {self.bits}-bit zero point" if self.offset == "code" else f"a {self.offset} offset"
        return text + (f", {zero} for each scale" if self.offset else "")


def floating(element: str) -> Format:
    """A plain floating-point tensor."""
    return Format(element, FLOATS[element].bits)


def block(element: str, size: int, scale: str, tensor_scale: str = "") -> Format:
    """A block format: one scale for each `size` elements along the reduction."""
    bits = FLOATS[element].bits if element in FLOATS else 8
    return Format(element, bits, "group", size, scale, "", tensor_scale)


#: The element of each width that `at_width` takes: with more mantissa bits, or with more exponent bits (RANGED).
BY_WIDTH: dict[int, str] = {4: "e2m1", 6: "e2m3", 8: "e4m3", 16: "bf16"}
RANGED: dict[int, str] = {4: "e2m1", 6: "e3m2", 8: "e5m2", 16: "fp16"}


def at_width(form: Format, bits: int) -> Format | None:
    """The format with elements of another width, scales and offsets as they were; None where no float has that width.

    Sixteen bits of a float have no scale. A plain float that becomes narrower has a fp32 scale for the tensor.

    >>> at_width(NAMED["MXFP4"], 6) == NAMED["MXFP6"], at_width(NAMED["MXFP4"], 5)
    (True, None)
    """
    if not form.is_float:
        return dataclasses.replace(form, bits=bits)
    element = (RANGED if form.element in ("e5m2", "e3m2") else BY_WIDTH).get(bits)
    if element is None:
        return None
    if bits == 16:
        return floating(element)
    if form.sharing == "none":
        return Format(element, bits, "tensor", 0, "fp32")
    return dataclasses.replace(form, element=element, bits=bits)


#: Formats with a name of their own, by upper-case name.
NAMED: dict[str, Format] = {
    "FP32": floating("fp32"),
    "BF16": floating("bf16"),
    "FP16": floating("fp16"),
    "FP8": Format("e4m3", 8, "tensor", 0, "fp32"),
    "FP8_E4M3": Format("e4m3", 8, "tensor", 0, "fp32"),
    "FP8_E5M2": Format("e5m2", 8, "tensor", 0, "fp32"),
    "FP6_E2M3": Format("e2m3", 6, "tensor", 0, "fp32"),
    "FP6_E3M2": Format("e3m2", 6, "tensor", 0, "fp32"),
    "FP4": Format("e2m1", 4, "tensor", 0, "fp32"),
    "MXFP8": block("e4m3", 32, "e8m0"),
    "MXFP8_E4M3": block("e4m3", 32, "e8m0"),
    "MXFP8_E5M2": block("e5m2", 32, "e8m0"),
    "MXFP6": block("e2m3", 32, "e8m0"),
    "MXFP6_E2M3": block("e2m3", 32, "e8m0"),
    "MXFP6_E3M2": block("e3m2", 32, "e8m0"),
    "MXFP4": block("e2m1", 32, "e8m0"),
    "MXINT8": block("int", 32, "e8m0"),
    "NVFP4": block("e2m1", 16, "e4m3", "fp32"),
}
NAMES = "|".join(sorted(NAMED, key=len, reverse=True))
INTEGER = re.compile(r"(?P<bits>\d{1,3})(?:g(?P<group>\d{1,7}))?(?P<zero>z[a-z0-9]*)?", re.IGNORECASE)
ONE = rf"\d{{1,3}}(?:g\d{{1,7}})?(?:z(?:fp16|bf16|fp32)?)?|{NAMES}"
SHORT = re.compile(rf"(?:w(?P<weight>{ONE}))?(?:a(?P<activation>{ONE}))?(?:[-+]?kv(?P<cache>{ONE}))?", re.IGNORECASE)
EXPECTED = (
    "W4A16, W4g128A16 (groups of 128), W4g128zA16 (with zero points), W8A8KV8 (cache of keys and values), KV8, or one "
    f"of {', '.join(NAMED)}"
)


@dataclass(frozen=True)
class Formats:
    """Formats of a network's weights, activations, and cache of keys and values (None: as activations)."""

    weight: Format
    activation: Format
    cache: Format | None = None
    name: str = ""

    @property
    def plain(self) -> bool:
        """Whether integers with one scale per tensor say it all: WxAy as LSQ+ trains it."""
        return self.cache is None and all(
            not f.is_float and f.sharing in ("tensor", "none") for f in (self.weight, self.activation)
        )


def parse_format(text: str, role: str = "weight", place: str = "format") -> Format:
    """One tensor's format: a name of NAMED, or integers as `4`, `4g128`, `4g128z`, `8g64zfp16`.

    `role`: `weight` (integers have a scale for each output channel where no group is named), `activation` (for the
    tensor) or `cache` (for each token and head). 16-bit activations and caches are fp16. `z` adds a zero point of the
    codes' width, `zfp16` a real offset. Raises SpecError.

    >>> parse_format("4g128z").side_bits_each, parse_format("MXFP4").group
    (20, 32)
    """
    word = text.strip()
    if word.upper() in NAMED:
        return NAMED[word.upper()]
    match = INTEGER.fullmatch(word)
    if match is None:
        raise SpecError(
            f"{place}: expected bits such as 4, 4g128 or 4g128z, or one of {', '.join(NAMED)}; got {text!r}"
        )
    bits, zero = int(match["bits"]), (match["zero"] or "").lower()
    if not 1 <= bits <= MAX_BITS:
        raise SpecError(f"{place}: bits must be 1 to {MAX_BITS}, got {bits} in {text!r}")
    group = int(match["group"]) if match["group"] else 0
    if match["group"] and not 1 <= group <= MAX_GROUP:
        raise SpecError(f"{place}: a group has 1 to {MAX_GROUP:,} elements, got {group} in {text!r}")
    offset = "" if not zero else "code" if zero == "z" else zero[1:]
    if offset not in ("", "code", "fp16", "bf16", "fp32"):
        raise SpecError(f"{place}: an offset is z (a code), zfp16, zbf16 or zfp32, got {zero!r} in {text!r}")
    if bits == 16 and not group and not offset:
        return NAMED["FP16"]
    if group:
        return Format("int", bits, "group", group, "fp16", offset)
    shared: dict[str, tuple[Sharing, str]] = {
        "weight": ("channel", "fp16"), "activation": ("tensor", "fp32"), "cache": ("channel", "fp16")
    }  # fmt: skip
    sharing, scale = shared[role]
    if role == "cache" and offset == "code":  # a cache is rounded anew for every token: its offset is a real number
        offset = "fp16"
    return Format("int", bits, sharing, 0, scale, offset)


def short_name(form: Format | None, bits: int) -> str:
    """How `--bits` writes weights of this element, group and offset; empty where it has no word for them.

    The scale is what that word means: W4g32 has fp16 scales, whatever these are.

    >>> short_name(parse_format("4g32z"), 4), short_name(NAMED["MXFP4"], 4), short_name(None, 8)
    ('4g32z', 'MXFP4', '8')
    """
    if form is None:
        return str(bits)
    named = next((name for name, known in NAMED.items() if known == form), "")
    if named or form.is_float:
        return named
    zero = "" if not form.offset else "z" if form.offset == "code" else f"z{form.offset}"
    word = f"{bits}{f'g{form.group}' if form.group else ''}{zero}"
    return word if re.fullmatch(ONE, word, re.IGNORECASE) else ""


def parse_formats(text: str, place: str = "bits") -> Formats:
    """The formats that a short name means. Raises SpecError with what is expected.

    A name of NAMED alone means weights and activations; `KV8` alone leaves both at fp16.

    >>> parse_formats("W4g128A16").weight.bits_per_value(4096, 4096)
    Fraction(33, 8)
    """
    word = text.strip()
    if word.upper() in NAMED:
        return Formats(NAMED[word.upper()], NAMED[word.upper()], name=word)
    match = SHORT.fullmatch(word) if word else None
    if match is None or bool(match["weight"]) != bool(match["activation"]):
        raise SpecError(f"{place}: expected {EXPECTED}; got {text!r}")

    def read(role: str, what: str) -> Format | None:
        return parse_format(match[role], role, f"{place}: {text}: {what}") if match[role] else None

    half = NAMED["FP16"]
    weight, activation = read("weight", "weights") or half, read("activation", "activations") or half
    return Formats(weight, activation, read("cache", "cache"), word)
