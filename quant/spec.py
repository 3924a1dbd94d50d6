"""What a quantizer is, in numbers: bits, signedness, offset, and the choices around them.

`QuantSpec` gives the code bounds n <= code <= p and is all that other packages need to read off a quantizer.
`ACTIVATION_CONFIGS` is Table 1 of LSQ+. Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

METHOD_NAMES = ("lsq", "lsqplus", "pact", "dsq", "qil", "dorefa")
INIT_NAMES = ("minmax", "lsq", "lsqplus", "mse")
CLIP_RULES = ("strict", "inclusive")
GRANULARITIES = ("tensor", "channel", "group")
OFFSET_MODES = ("learned", "fixed_zero", "fixed_min")
POSITIVITY = ("absolute", "printed")
PADDING_POLICIES = ("pad_code", "snap_offset", "pad_beta", "border_bias")
ALLOWED_BITS = (1, 2, 3, 4, 5, 6, 7, 8, 16)

# Elements beside integers, by name: bits, largest value in units of the smallest (quant/elements.py has their values).
FLOAT_ELEMENTS: dict[str, tuple[int, int]] = {
    "e2m1": (4, 12), "e2m3": (6, 60), "e3m2": (6, 448), "e4m3": (8, 229_376), "e5m2": (8, 57_344 << 16),
    "fp16": (16, 65_504 << 24), "bf16": (16, 255 << 253),
}  # fmt: skip
# Named formats: element, elements of a block (0: a learned scale for what the granularity says), format of the scales.
FORMATS: dict[str, tuple[str, int, str]] = {
    "FP16": ("fp16", 0, "none"), "BF16": ("bf16", 0, "none"),
    "FP8": ("e4m3", 0, "learned"), "FP8_E4M3": ("e4m3", 0, "learned"), "FP8_E5M2": ("e5m2", 0, "learned"),
    "FP6_E2M3": ("e2m3", 0, "learned"), "FP6_E3M2": ("e3m2", 0, "learned"), "FP4": ("e2m1", 0, "learned"),
    "MXFP8": ("e4m3", 32, "e8m0"), "MXFP8_E4M3": ("e4m3", 32, "e8m0"), "MXFP8_E5M2": ("e5m2", 32, "e8m0"),
    "MXFP6": ("e2m3", 32, "e8m0"), "MXFP6_E2M3": ("e2m3", 32, "e8m0"), "MXFP6_E3M2": ("e3m2", 32, "e8m0"),
    "MXFP4": ("e2m1", 32, "e8m0"), "MXINT8": ("int", 32, "e8m0"), "NVFP4": ("e2m1", 16, "e4m3"),
}  # fmt: skip
HALF = ("FP16", "BF16")  # what weight-only formats leave activations at
SCALE_FORMATS = ("learned", "fp16", "e8m0", "e4m3", "none")
LEARNED = ("learned", "fp16")  # as float32, or rounded to fp16 wherever it is used
SCALE_RULES = ("floor", "even", "rceil")

# Methods whose signed codes are symmetric, -p..p: PACT and QIL clip at the same magnitude on both sides.
_NARROW_METHODS = ("pact", "qil")


@dataclass(frozen=True)
class ActivationConfig:
    """One row of Table 1 of LSQ+."""

    number: int
    name: str
    signed: bool
    offset: bool


ACTIVATION_CONFIGS: dict[int, ActivationConfig] = {
    1: ActivationConfig(1, "unsigned symmetric (= LSQ)", signed=False, offset=False),
    2: ActivationConfig(2, "signed symmetric", signed=True, offset=False),
    3: ActivationConfig(3, "signed with offset", signed=True, offset=True),
    4: ActivationConfig(4, "unsigned with offset", signed=False, offset=True),
}


def check_choice(what: str, value: object, allowed: tuple[object, ...]) -> None:
    """Raise ValueError naming the field, the allowed values and the value unless it is one of them."""
    if value not in allowed:
        raise ValueError(f"{what}: expected one of {', '.join(map(str, allowed))}, got {value!r}")


def code_bounds(bits: int, signed: bool, *, narrow: bool = False) -> tuple[int, int]:
    """(n, p), both inclusive: signed -2^(b-1) .. 2^(b-1)-1 (narrow: -p..p), unsigned 0 .. 2^b-1.

    >>> code_bounds(4, True), code_bounds(4, False), code_bounds(1, True), code_bounds(2, True, narrow=True)
    ((-8, 7), (0, 15), (-1, 0), (-1, 1))
    """
    if not signed:
        return 0, 2**bits - 1
    p = 2 ** (bits - 1) - 1
    return (-p if narrow else -(2 ** (bits - 1))), p


@dataclass(frozen=True)
class QuantSpec:
    """A quantizer's numbers and names; frozen, hashable, torch-free.

    `offset`: a real-valued beta exists (LSQ+ configurations 3 and 4). `power_of_two`: the step used is the power of
    two nearest to s. `ternary`: two signed bits of which only -1, 0, 1 are used. `snap_offset`: beta is forced to -s*z
    with an integer z. `positivity`: "absolute" sets s to |s| after every optimizer step; "printed", LSQ's own text,
    does nothing, and s may become negative. Signed 1 bit has the codes -1 and 0: wherever a formula divides by p,
    `magnitude` stands in. `group`: elements along the reduction that share a step (granularity "group"). `element`:
    "int" or a name of FLOAT_ELEMENTS, whose codes are values in units of the smallest. `scale_format`: "learned",
    "fp16" (learned, and rounded to fp16 wherever it is used), how a scale computed from each block's maximum is stored
    (by `scale_rule`), or "none" for fp16 and bf16.
    """

    bits: int
    signed: bool
    offset: bool = False
    method: str = "lsqplus"
    init: str = "lsqplus"
    clip_rule: str = "strict"
    granularity: str = "tensor"
    power_of_two: bool = False
    ternary: bool = False
    offset_mode: str = "learned"
    snap_offset: bool = False
    positivity: str = "absolute"
    group: int = 0
    element: str = "int"
    scale_format: str = "learned"
    scale_rule: str = "floor"

    def __post_init__(self) -> None:
        self._check_format()
        if isinstance(self.bits, bool) or self.bits not in ALLOWED_BITS:
            raise ValueError(f"QuantSpec.bits: expected 1 to 8 or 16, got {self.bits!r}")
        check_choice("QuantSpec.method", self.method, METHOD_NAMES)
        check_choice("QuantSpec.init", self.init, INIT_NAMES)
        check_choice("QuantSpec.clip_rule", self.clip_rule, CLIP_RULES)
        check_choice("QuantSpec.granularity", self.granularity, GRANULARITIES)
        check_choice("QuantSpec.offset_mode", self.offset_mode, OFFSET_MODES)
        check_choice("QuantSpec.positivity", self.positivity, POSITIVITY)
        if self.positivity == "printed" and (self.power_of_two or self.method not in ("lsq", "lsqplus")):
            raise ValueError("QuantSpec.positivity: 'printed' is for lsq and lsqplus with steps of any value")
        if self.ternary and not (self.signed and self.bits == 2):
            raise ValueError(
                f"QuantSpec.ternary: needs bits=2 and signed=True, got bits={self.bits}, signed={self.signed}"
            )
        if self.narrow and self.bits == 1 and self.signed:
            raise ValueError(
                f"QuantSpec.method: {self.method!r} has no signed 1-bit codes; use bits >= 2 or method='lsqplus'"
            )

    def _check_format(self) -> None:
        """Raise ValueError where element, scale and group contradict each other."""
        check_choice("QuantSpec.element", self.element, ("int", *FLOAT_ELEMENTS))
        check_choice("QuantSpec.scale_format", self.scale_format, SCALE_FORMATS)
        check_choice("QuantSpec.scale_rule", self.scale_rule, SCALE_RULES)
        if (self.granularity == "group") != (self.group > 0):
            raise ValueError(
                f"QuantSpec.group: expected a positive number with granularity 'group', 0 elsewhere, got {self.group}"
            )
        computed = self.scale_format in ("e8m0", "e4m3")
        if computed and self.granularity != "group":
            raise ValueError(f"QuantSpec.scale_format: {self.scale_format} scales are of blocks: give a group")
        if computed and (self.offset or self.method not in ("lsq", "lsqplus")):
            raise ValueError("QuantSpec.scale_format: scales computed from maxima know no offset and no method")
        if self.granularity == "group" and self.method not in ("lsq", "lsqplus"):
            raise ValueError(f"QuantSpec.group: groups are for lsq and lsqplus, got method {self.method!r}")
        if self.granularity == "group" and (self.power_of_two or self.ternary or self.offset_mode != "learned"):
            raise ValueError("QuantSpec.group: no power-of-two steps, ternary codes or fixed offsets in groups")
        if self.scale_format == "fp16" and (self.element != "int" or self.granularity == "tensor" or self.power_of_two):
            raise ValueError("QuantSpec.scale_format: fp16 is for integers with learned steps per channel or group")
        if self.scale_format == "fp16" and self.method not in ("lsq", "lsqplus"):
            raise ValueError(f"QuantSpec.scale_format: fp16 is for lsq and lsqplus, got method {self.method!r}")
        if self.element == "int":
            if computed and (self.bits, self.signed, self.scale_format) != (8, True, "e8m0"):
                raise ValueError("QuantSpec.element: integers with computed scales are MXINT8: 8 signed bits, e8m0")
            if self.scale_format == "none":
                raise ValueError("QuantSpec.scale_format: 'none' is for fp16 and bf16")
            return
        bits = FLOAT_ELEMENTS[self.element][0]
        if (self.bits, self.signed, self.offset) != (bits, True, False):
            raise ValueError(
                f"QuantSpec.element: {self.element} has {bits} bits, a sign and no offset, got {self.bits} bits, "
                f"signed={self.signed}, offset={self.offset}"
            )
        if (self.scale_format == "none") != (self.element in ("fp16", "bf16")):
            raise ValueError("QuantSpec.scale_format: fp16 and bf16 have none, shorter elements need one")

    @property
    def narrow(self) -> bool:
        """Whether the signed codes are -p..p instead of -(p+1)..p."""
        return self.ternary or self.method in _NARROW_METHODS or self.scale_format == "e8m0"

    @property
    def n(self) -> int:
        """Lowest code, Qn with its sign."""
        if self.element != "int":
            return -self.p
        return code_bounds(self.bits, self.signed, narrow=self.narrow)[0]

    @property
    def p(self) -> int:
        """Highest code, Qp."""
        if self.element != "int":
            return FLOAT_ELEMENTS[self.element][1]
        return code_bounds(self.bits, self.signed, narrow=self.narrow)[1]

    @property
    def codes_text(self) -> str:
        """`-8..7`, or the element's name, with who shares a step."""
        text = f"{self.n}..{self.p}" if self.element == "int" else self.element
        return text + (f", groups of {self.group}" if self.group else "")

    @property
    def levels(self) -> int:
        """Number of codes, p - n + 1."""
        return self.p - self.n + 1

    @property
    def magnitude(self) -> int:
        """p, or |n| where p is 0 (signed 1 bit): the divisor of the gradient scale and of LSQ's initialisation."""
        return self.p if self.p > 0 else -self.n

    @property
    def config(self) -> int:
        """Row of Table 1 with this signedness and offset."""
        rows = ACTIVATION_CONFIGS.values()
        return next(row.number for row in rows if (row.signed, row.offset) == (self.signed, self.offset))

    @classmethod
    def for_config(cls, bits: int, config: int, **choices: Any) -> QuantSpec:
        """Spec of an activation quantizer by its row of Table 1; `choices` are further fields.

        >>> QuantSpec.for_config(4, 3).n, QuantSpec.for_config(4, 4).offset
        (-8, True)
        """
        check_choice("config", config, tuple(ACTIVATION_CONFIGS))
        row = ACTIVATION_CONFIGS[config]
        return cls(bits=bits, signed=row.signed, offset=row.offset, **choices)

    @classmethod
    def for_format(cls, name: str, group: int = 0, granularity: str = "tensor", **choices: Any) -> QuantSpec:
        """Spec of a named format; `group` and `granularity` say who shares a learned scale.

        >>> QuantSpec.for_format("MXFP4").group, QuantSpec.for_format("FP8").p
        (32, 229376)
        """
        check_choice("format", name, tuple(FORMATS))
        element, block, scale = FORMATS[name]
        bits = FLOAT_ELEMENTS[element][0] if element in FLOAT_ELEMENTS else 8
        if block and group not in (0, block):
            raise ValueError(f"format {name}: its blocks have {block} elements, got group {group}")
        sharing = "group" if block else granularity if scale == "learned" else "tensor"
        size = block or (group if sharing == "group" else 0)
        return cls(bits, True, granularity=sharing, group=size, element=element, scale_format=scale, **choices)

    def replace(self, **choices: Any) -> QuantSpec:
        """A copy with some fields changed, checked like a new one."""
        return dataclasses.replace(self, **choices)

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, plus n and p."""
        return {**dataclasses.asdict(self), "n": self.n, "p": self.p}
