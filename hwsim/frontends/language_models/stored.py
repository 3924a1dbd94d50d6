"""What a configuration says of the codes in which its weights are published, and which `--bits` prices such codes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

BLOCKS = 64  # values that share a scale in bitsandbytes' 4-bit codes


def stored_codes(config: Mapping[str, Any]) -> str:
    """A note where the configuration has a `quantization_config`; empty elsewhere.

    Its codes are not read: the report is of the bits that were asked for.

    >>> stored_codes({"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128}})
    'quantization_config (gptq) is not read: these are the bits asked for; --bits W4g128A16 prices codes of its kind'
    """
    found = config.get("quantization_config")
    if not found:
        return ""
    said: Mapping[str, Any] = found if isinstance(found, Mapping) else {}
    method = said.get("quant_method")
    named = f" ({method})" if isinstance(method, str) else ""
    bits = bits_of_kind(str(method), said)
    way = f"; --bits {bits} prices codes of its kind" if bits else ""
    return f"quantization_config{named} is not read: these are the bits asked for{way}"


def bits_of_kind(method: str, said: Mapping[str, Any]) -> str:
    """`--bits` for the codes of a method, by what transformers takes for absent keys; empty where none is meant."""
    if method in ("gptq", "awq"):
        bits, group = said.get("bits", 4), said.get("group_size", 128)
        offset = said.get("zero_point", True) is True if method == "awq" else said.get("sym") is False
        if not isinstance(bits, int) or not isinstance(group, int) or not 1 <= bits <= 8:
            return ""
        return f"W{bits}{f'g{group}' if group > 0 else ''}{'z' if offset and group > 0 else ''}A16"
    if method in ("fp8", "fbgemm_fp8"):
        return "FP8"
    if method == "bitsandbytes" or "load_in_8bit" in said:
        return "W8A8" if said.get("load_in_8bit") else f"W4g{BLOCKS}A16" if said.get("load_in_4bit") else ""
    return ""
