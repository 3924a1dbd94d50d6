"""Bits as users write them: `W4A4`, or a YAML file of name patterns, read strictly.

Nothing is assigned here: `read_bits` returns the checked request, `network/bits.py` applies it to a workload.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from hwsim.errors import SpecError
from hwsim.files.reading import is_a_file
from hwsim.files.strict_yaml import Document, read_document
from hwsim.network.formats import MAX_BITS, parse_formats

CONFIGS = ("auto", "1", "2", "3", "4")
FIRST_LAST = ("same", "8bit")
PADDING_POLICIES = ("pad_code", "snap_offset", "pad_beta", "border_bias")
# Widths that quantizers have and tables cover, as `quant.spec.ALLOWED_BITS`; prices take any up to MAX_BITS.
WIDTHS: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8, MAX_BITS)
SAME = "same"  # first_last and elementwise_bits: what all other layers have
MAX_OUTPUT_BITS = 32
WXAY = re.compile(r"[wW]([0-9]{1,3})[aA]([0-9]{1,3})")
RESERVED = ("default", "config", "first_last", "elementwise_bits", "padding_policy")
OPERAND_KEYS = ("weight", "input", "activation", "output")


@dataclass(frozen=True)
class Override:
    """Bits for the layers whose names match; None leaves an operand as it is. `place` is for messages."""

    pattern: str
    place: str
    weight: int | None = None
    input: int | None = None
    output: int | None = None

    @property
    def exact(self) -> bool:
        """Whether it names one layer and no pattern."""
        return not any(mark in self.pattern for mark in "*?[")


@dataclass(frozen=True)
class BitsRequest:
    """Everything `assign_bits` needs; without a default, layers that no override names keep what they have."""

    weight: int | None = None
    activation: int | None = None
    config: str = "auto"
    first_last: str = "8bit"
    elementwise_bits: int | str = 8
    padding_policy: str = "pad_code"
    overrides: tuple[Override, ...] = ()
    place: str = "bits"

    def describe(self) -> str:
        """`W4A4`, or what the overrides come from."""
        default = f"W{self.weight}A{self.activation}" if self.weight is not None else "the model's own bits"
        return default + (f" with {len(self.overrides)} overrides" if self.overrides else "")


def is_formats(text: str) -> bool:
    """Whether a text is the short name of number formats (`W4g128A16`, `MXFP4`)."""
    try:
        parse_formats(text)
    except SpecError:
        return False
    return True


def priced_alone(text: str) -> str:
    """The way out where widths vary and formats do not."""
    return (
        "a number format, none of which varies here; price each by itself: "
        f"hwsim evaluate MODEL ACCEL --bits {text.strip()}"
    )


def parse_wxay(text: str, place: str = "bits") -> tuple[int, int]:
    """(weight bits, activation bits) of `W4A8`. Raises SpecError.

    >>> parse_wxay("W4A8")
    (4, 8)
    """
    match = WXAY.fullmatch(text.strip())
    if match is None:
        if is_formats(text):
            raise SpecError(
                f"{place}: expected W<bits>A<bits> such as W4A4 or W8A8, got {text!r}: {priced_alone(text)}"
            )
        raise SpecError(f"{place}: expected W<bits>A<bits> such as W4A4 or W8A8, got {text!r}")
    weight, activation = int(match[1]), int(match[2])
    for what, bits in (("weight", weight), ("activation", activation)):
        if not 1 <= bits <= MAX_BITS:
            raise SpecError(f"{place}: {what} bits must be 1 to {MAX_BITS}, got {bits} in {text!r}")
    return weight, activation


def read_bits(
    bits: str | Path | Mapping[str, object],
    config: str | int = "auto",
    first_last: str | None = None,
    elementwise_bits: int | str | None = None,
) -> BitsRequest:
    """The request behind `W4A4`, a YAML file or a mapping of the same form. Raises SpecError with every problem.

    The file: `default: W4A4`, optional `config`, `first_last`, `elementwise_bits`, `padding_policy`, and name patterns
    (shell wildcards) with `W2A4` or `{weight: 8, input: 8, output: 8}`. Later entries win over earlier ones.
    `first_last` (None: 8bit) and `elementwise_bits` (None: 8) mean what they mean in `quant.quantize`.
    """
    config = str(config)
    problems = [] if config in CONFIGS else [f"config: expected one of {', '.join(CONFIGS)}, got {config!r}"]
    if first_last not in (None, *FIRST_LAST):
        problems.append(f"first_last: expected one of {', '.join(FIRST_LAST)}, got {first_last!r}")
    if elementwise_bits is not None and not elementwise(elementwise_bits):
        problems.append(f"elementwise_bits: expected same or 1 to {MAX_BITS}, got {elementwise_bits!r}")
    if problems:
        raise SpecError(problems)
    if isinstance(bits, Mapping):
        return BitsReader(Document("bits", bits), config, first_last, elementwise_bits).read()
    text = str(bits)
    if isinstance(bits, str) and not looks_like_path(text):
        weight, activation = parse_wxay(text)
        between = 8 if elementwise_bits is None else elementwise_bits
        return BitsRequest(weight, activation, config, first_last or "8bit", between)
    document = read_document(Path(text))
    if not isinstance(document.data, dict):
        raise SpecError(f"{document.place(())}: expected name patterns with bits, got {document.data!r}")
    return BitsReader(document, config, first_last, elementwise_bits).read()


def elementwise(value: object) -> bool:
    """Whether a value says bits of the inputs of additions and products."""
    return value == SAME or (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_BITS)


def looks_like_path(text: str) -> bool:
    """Whether a --bits argument names a file rather than WxAy."""
    return WXAY.fullmatch(text.strip()) is None and (text.endswith((".yaml", ".yml")) or "/" in text or is_a_file(text))


class BitsReader:
    """Reads a bits file or mapping, collecting every problem with its place."""

    def __init__(
        self, document: Document, config: str, first_last: str | None, elementwise_bits: int | str | None
    ) -> None:
        self.document = document
        self.chosen = {"config": None if config == "auto" else config, "first_last": first_last}
        self.elementwise_bits = elementwise_bits
        self.problems: list[str] = []

    def complain(self, keys: tuple[str, ...], message: str) -> None:
        """Note a problem."""
        dotted = f": {'.'.join(keys)}" if keys else ""
        place = self.document.place(keys) if self.document.lines else f"{self.document.path}{dotted}"
        self.problems.append(f"{place}: {message}")

    def read(self) -> BitsRequest:
        """The request. Raises SpecError with all problems."""
        data = cast(Mapping[str, object], self.document.data)
        default = data.get("default")
        weight, activation = self.wxay(("default",), default) if default is not None else (None, None)
        config = self.choice("config", CONFIGS, "auto")
        first_last = self.choice("first_last", FIRST_LAST, "8bit")
        between = self.between()
        policy = self.choice("padding_policy", PADDING_POLICIES, "pad_code")
        overrides = [self.override(key, value) for key, value in data.items() if key not in RESERVED]
        if not overrides and default is None and not self.problems:
            self.complain((), "expected `default: W4A4` or name patterns with bits, found neither")
        if self.problems:
            raise SpecError(self.problems)
        return BitsRequest(
            weight, activation, config, first_last, between, policy, tuple(overrides), self.document.path
        )

    def between(self) -> int | str:
        """`elementwise_bits`; the command line may say the same, not something else."""
        value = cast(Mapping[str, object], self.document.data).get("elementwise_bits")
        asked = self.elementwise_bits
        if value is None:
            return 8 if asked is None else asked
        if not elementwise(value):
            self.complain(("elementwise_bits",), f"expected same or 1 to {MAX_BITS}, got {value!r}")
        elif asked not in (None, value):
            self.complain(("elementwise_bits",), f"says {value}, the command line says {asked}: keep one of them")
        return cast(int | str, value)

    def choice(self, key: str, allowed: tuple[str, ...], fallback: str) -> str:
        """One of a few words; the command line may say the same, not something else."""
        asked = self.chosen.get(key)
        value = cast(Mapping[str, object], self.document.data).get(key)
        if value is None:
            return asked or fallback
        if str(value) not in allowed:
            self.complain((key,), f"expected one of {', '.join(allowed)}, got {value!r}")
        elif asked not in (None, str(value)):
            self.complain((key,), f"says {value}, the command line says {asked}: keep one of them")
        return str(value)

    def wxay(self, keys: tuple[str, ...], value: object) -> tuple[int | None, int | None]:
        """Bits of a `W4A4` entry."""
        try:
            return parse_wxay(value if isinstance(value, str) else repr(value), place="")
        except SpecError as problem:
            self.complain(keys, str(problem).removeprefix(": "))
            return None, None

    def override(self, pattern: str, value: object) -> Override:
        """One pattern with its bits."""
        line = self.document.line((pattern,)) if self.document.lines else None
        place = f"{self.document.path}:{line}: {pattern}" if line else f"{self.document.path}: {pattern}"
        if isinstance(value, str):
            weight, activation = self.wxay((pattern,), value)
            return Override(pattern, place, weight, activation)
        if not isinstance(value, Mapping) or not value:
            self.complain((pattern,), f"expected W4A4 or {{weight: 4, input: 4}}, got {value!r}")
            return Override(pattern, place)
        found: dict[str, int] = {}
        for key, bits in cast(Mapping[str, object], value).items():
            name = "input" if key == "activation" else str(key)
            limit = MAX_OUTPUT_BITS if name == "output" else MAX_BITS
            if key not in OPERAND_KEYS:
                self.complain((pattern, str(key)), f"unknown key; expected one of {', '.join(OPERAND_KEYS)}")
            elif not isinstance(bits, int) or isinstance(bits, bool) or not 1 <= bits <= limit:
                self.complain((pattern, str(key)), f"expected a whole number from 1 to {limit}, got {bits!r}")
            elif name in found:
                self.complain((pattern, str(key)), "input and activation are the same operand: keep one")
            else:
                found[name] = bits
        return Override(pattern, place, found.get("weight"), found.get("input"), found.get("output"))
