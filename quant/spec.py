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
GRANULARITIES = ("tensor", "channel")
OFFSET_MODES = ("learned", "fixed_zero", "fixed_min")
POSITIVITY = ("absolute", "printed")
PADDING_POLICIES = ("pad_code", "snap_offset", "pad_beta", "border_bias")
ALLOWED_BITS = (1, 2, 3, 4, 5, 6, 7, 8, 16)

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
    `magnitude` stands in.
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

    def __post_init__(self) -> None:
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

    @property
    def narrow(self) -> bool:
        """Whether the signed codes are -p..p instead of -(p+1)..p."""
        return self.ternary or self.method in _NARROW_METHODS

    @property
    def n(self) -> int:
        """Lowest code, Qn with its sign."""
        return code_bounds(self.bits, self.signed, narrow=self.narrow)[0]

    @property
    def p(self) -> int:
        """Highest code, Qp."""
        return code_bounds(self.bits, self.signed, narrow=self.narrow)[1]

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

    def replace(self, **choices: Any) -> QuantSpec:
        """A copy with some fields changed, checked like a new one."""
        return dataclasses.replace(self, **choices)

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, plus n and p."""
        return {**dataclasses.asdict(self), "n": self.n, "p": self.p}
