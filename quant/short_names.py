"""Short names of number formats (`W4g64A16`, `MXFP4`) as choices of `quantize`: the names that pricing takes, too.

What training has no form for is refused by name: caches of keys and values, zero points (training learns real-valued
offsets), integer activations in groups. `hwsim/network/formats.py` reads the same names for prices; a test holds the
two together.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from quant.spec import ALLOWED_BITS, FLOAT_ELEMENTS, FORMATS

# What a name may decide, and what it leaves as it is.
NEUTRAL: dict[str, Any] = {
    "weight_granularity": "tensor", "weight_group": 0, "weight_offset": False, "weight_format": "", "act_format": "",
    "weight_scale": "fp32",
}  # fmt: skip
_NAMES = "|".join(sorted(FORMATS, key=len, reverse=True))
_ONE = rf"\d{{1,3}}(?:g\d{{1,7}})?(?:z[a-z0-9]*?)?|{_NAMES}"
_SHORT = re.compile(rf"w(?P<weight>{_ONE})a(?P<act>{_ONE})(?P<cache>[-+]?kv\w+)?", re.IGNORECASE)
_INTEGER = re.compile(r"(?P<bits>\d+)(?:g(?P<group>\d+))?(?P<zero>z\w*)?")
EXPECTED = f"W4A4, W4A16, W4g64A16 (steps per 64 weights), a format such as {', '.join(list(FORMATS)[:3])}, or float"


def short_name(text: str) -> dict[str, Any] | None:
    """Arguments of `quantize` that the name means; None for `float`. ValueError otherwise.

    >>> short_name("W2A4")
    {'weight_bits': 2, 'act_bits': 4}
    >>> short_name("W4g64A16")
    {'weight_bits': 4, 'weight_group': 64, 'weight_scale': 'fp16', 'act_bits': 16, 'act_format': 'FP16'}
    """
    word = text.strip()
    if word.lower() in ("float", "fp32"):
        return None
    if word.upper() in FORMATS:
        return {**_named("weight", word), **_named("act", word)}
    if word.lower().startswith("kv"):
        raise ValueError(_no_caches(word))
    match = _SHORT.fullmatch(word)
    if match is None:
        raise ValueError(f"bits: expected {EXPECTED}; got '{text}'")
    if match["cache"]:
        raise ValueError(_no_caches(word))
    weight, act = match["weight"], match["act"]
    plain = weight.isdigit() and act.isdigit() and int(act) != 16
    return {**_weight(weight, text, plain), **_activation(act, text)}


def with_short_name(bits: str, given: Mapping[str, Any], spell: str = "{}") -> dict[str, Any] | None:
    """`given` with what the name decides; None for `float`. ValueError where `given` contradicts it.

    `spell`: how the caller writes an argument's name.
    """
    meant = short_name(bits)
    if meant is None:
        return None
    for name, neutral in NEUTRAL.items():
        value = given.get(name, neutral)
        if name in meant and value not in (neutral, meant[name]):
            shown = spell.format(name if spell == "{}" else name.replace("_", "-"))
            raise ValueError(f"{shown}: {value!r}, but {bits} says {meant[name]!r}: leave one of them out")
    return {**given, **meant}


def _named(side: str, name: str) -> dict[str, Any]:
    """Bits and format of weights or activations by a format's name."""
    element = FORMATS[name.upper()][0]
    bits = FLOAT_ELEMENTS[element][0] if element in FLOAT_ELEMENTS else 8
    return {f"{side}_bits": bits, f"{side}_format": name.upper()}


def _weight(word: str, text: str, plain: bool) -> dict[str, Any]:
    """Integers in groups, per channel where activations are floats, per tensor in WxAy; or a named format."""
    match = _INTEGER.fullmatch(word.lower())
    if match is None:
        return _named("weight", word)
    bits = _width(match["bits"], text)
    if match["zero"] and match["zero"] != "zfp32":
        raise ValueError(
            f"bits: {text}: training learns a 32-bit float offset for each step, no {match['zero']}: write zfp32"
        )
    offset = {"weight_offset": True} if match["zero"] else {}
    if match["group"]:
        if not int(match["group"]):
            raise ValueError(f"bits: {text}: a group has 1 element or more, got 0")
        return {"weight_bits": bits, "weight_group": int(match["group"]), "weight_scale": "fp16", **offset}
    if bits == 16 and not plain:
        return _named("weight", "FP16")
    channels = {} if plain else {"weight_granularity": "channel", "weight_scale": "fp16"}
    return {"weight_bits": bits, **offset, **channels}


def _activation(word: str, text: str) -> dict[str, Any]:
    """Integers with one step (16 bits: fp16), or a named format."""
    match = _INTEGER.fullmatch(word.lower())
    if match is None:
        return _named("act", word)
    if match["group"] or match["zero"]:
        raise ValueError(
            f"bits: {text}: integer activations have one step here; offsets follow from --config, and blocks are "
            "MXINT8, MXFP8, MXFP6, MXFP4 or NVFP4"
        )
    bits = _width(match["bits"], text)
    return _named("act", "FP16") if bits == 16 else {"act_bits": bits}


def _width(digits: str, text: str) -> int:
    """A width that quantizers have."""
    if int(digits) not in ALLOWED_BITS:
        raise ValueError(f"bits: expected 1 to 8 or 16, got {int(digits)} in '{text}'")
    return int(digits)


def _no_caches(name: str) -> str:
    """Why caches are refused."""
    return (
        f"bits: {name}: training has no cache of keys and values; hwsim evaluate hf:CONFIG ACCEL --phase decode "
        f"--context L --bits {name} prices one"
    )
