"""What pydantic found wrong with a spec, in words: file, line, key, expectation, value and the way out."""

from __future__ import annotations

import re
from typing import Any, cast

from pydantic import BaseModel, BeforeValidator, ValidationError

from hwsim.files.strict_yaml import Document, KeyPath, number_hint
from hwsim.machine.parts import (
    MAC_STYLES,
)
from hwsim.machine.yaml_checks import did_you_mean
from hwsim.machine.yaml_keys import (
    MAC_MODELS,
    AcceleratorSpec,
    ArraySpec,
    AxisSpec,
    CapabilitySpec,
    Compression,
    ConstraintSpec,
    GranuleSpec,
    MemorySpec,
    ModeSpec,
    Partitions,
    VectorSpec,
    ZeroCodingSpec,
    by_law,
    mac_kind,
    no_limit,
    node_kind,
)

# --- messages -------------------------------------------------------------------------------------------------------


def explanations(document: Document, problem: ValidationError) -> list[str]:
    """All errors in words; a key that is missing because it was misspelt is named once."""
    errors: list[dict[str, Any]] = [dict(error) for error in problem.errors(include_url=False)]
    found = [explain(document, error) for error in errors]
    misspelt = {
        (error["loc"][:-1], match[1])
        for error, text in zip(errors, found, strict=True)
        if (match := re.search(r"did you mean (\w+)\?$", text))
    }
    return [
        text
        for error, text in zip(errors, found, strict=True)
        if error["type"] != "missing" or (error["loc"][:-1], error["loc"][-1]) not in misspelt
    ]


def explain(document: Document, error: dict[str, Any]) -> str:
    """One pydantic error in the project's words: place, expectation, value, way out."""
    keys: KeyPath = tuple(key for key in error["loc"] if not (isinstance(key, str) and key.startswith("<")))
    kind: str = error["type"]
    if keys and keys[-1] == "[key]":
        keys = keys[:-1]
    place = document.place(keys)
    if kind == "missing":
        return f"{place}: missing key: expected {describe(document, keys)}"
    if kind == "extra_forbidden":
        return f"{place}: unknown key{did_you_mean(str(keys[-1]), siblings(document, keys))}"
    value = error.get("input")
    if kind.startswith("union_tag"):
        styles = ", ".join((*MAC_STYLES, "or LIBRARY.NAME of a plug-in"))
        wanted = f"one of {styles}" if keys == ("mac",) else "an entry with `memory:` or `array:`"
        what = "key `style`: expected " if keys == ("mac",) else "expected "
        found = value.get("style") if keys == ("mac",) and isinstance(value, dict) else value
        return f"{place}: {what}{wanted}, got {shown(found)}"
    hint = number_hint(value)
    if isinstance(value, str) and value in ("yes", "no", "on", "off", "True", "False") and kind.startswith("bool"):
        hint = "; write true or false"
    wanted = expectation(kind, error.get("ctx", {})) + other_word(document, keys, value)
    return f"{place}: expected {wanted}, got {shown(value)}{hint}{purpose(kind, keys)}"


def other_word(document: Document, keys: KeyPath, value: object) -> str:
    """The word that may stand in a number's place (`auto`, `unlimited`), where another was written."""
    model = model_at(document, keys[:-1])
    known = model.model_fields.get(str(keys[-1])) if model and keys and isinstance(value, str) else None
    validators = [each.func for each in known.metadata if isinstance(each, BeforeValidator)] if known else []
    if no_limit in validators:
        return " or unlimited" if keys == ("hierarchy", 0, "size_bits") else ""
    return " or auto" if by_law in validators else ""


def purpose(kind: str, keys: KeyPath) -> str:
    """What a refused zero could have meant."""
    if kind in ("greater_than", "greater_than_equal") and "bandwidth" in str(keys[-1]):
        return "; leave the key out for a port that is never the bottleneck"
    if kind == "too_short" and keys[-1] == "keeps":
        return "; a memory that keeps no operand has no purpose, remove it"
    return ""


def expectation(kind: str, context: dict[str, Any]) -> str:
    """What pydantic wanted, in words."""
    fixed = {
        "int_type": "a whole number",
        "int_from_float": "a whole number",
        "float_type": "a number",
        "string_type": "text",
        "bool_type": "true or false",
        "list_type": "a list [...]",
        "dict_type": "keys and values",
        "model_type": "keys and values",
        "finite_number": "a finite number",
        "string_too_short": "some text",
        "string_pattern_mismatch": "a name of letters, digits, _ . - that starts with a letter",
    }
    if kind in fixed:
        return fixed[kind]
    if kind == "limit":
        return 'a whole number from 1, "<=n" or all'
    if kind == "literal_error":
        return "one of " + str(context["expected"]).replace(" or ", ", ").replace("'", "")
    bounds = {
        "greater_than": ("a number above", "gt"),
        "greater_than_equal": ("a number not below", "ge"),
        "less_than_equal": ("a number not above", "le"),
        "too_short": ("a list of at least", "min_length"),
        "too_long": ("a list of at most", "max_length"),
        "string_too_long": ("text no longer than", "max_length"),
    }
    if kind in bounds:
        words, key = bounds[kind]
        return f"{words} {context[key]:g}"
    return kind.replace("_", " ")


def shown(value: object) -> str:
    """A value as it may be printed in one line."""
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "nothing"
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def model_at(document: Document, keys: KeyPath) -> type[BaseModel] | None:
    """The model whose fields may stand at `keys` (a path of a mapping in the file)."""
    value: Any = document.data
    for key in keys:
        value = cast(Any, value)[key] if isinstance(value, (dict, list)) else None
    match keys:
        case ():
            return AcceleratorSpec
        case ("hierarchy", int()):
            return {"<memory>": MemorySpec, "<array>": ArraySpec}.get(node_kind(value) or "")
        case ("hierarchy", int(), "partitions"):
            return Partitions
        case ("hierarchy", int(), "compression"):
            return Compression
        case ("hierarchy", int(), "compression", str()):
            return ZeroCodingSpec
        case ("hierarchy", int(), "axes", str()):
            return AxisSpec
        case ("mac",):
            return MAC_MODELS.get(mac_kind(value) or "")
        case ("mac", "granules", int()):
            return GranuleSpec
        case ("mac", "modes", int()):
            return ModeSpec
        case ("vector",):
            return VectorSpec
        case ("capabilities",):
            return CapabilitySpec
        case ("constraints", int()):
            return ConstraintSpec
        case _:
            return None


def siblings(document: Document, keys: KeyPath) -> list[str]:
    """Keys that could stand beside the last of `keys`."""
    model = model_at(document, keys[:-1])
    return list(model.model_fields) if model else []


def describe(document: Document, keys: KeyPath) -> str:
    """A missing key's meaning, from its model."""
    model = model_at(document, keys[:-1])
    known = model.model_fields.get(str(keys[-1])) if model else None
    return known.description or "a value" if known else "a value"
