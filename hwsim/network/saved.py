"""Workloads as JSON files: what `Workload.save` wrote comes back equal, anything else is refused with its place."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwsim.errors import SpecError, WorkloadError, reason

if TYPE_CHECKING:
    pass
from hwsim.files.reading import read_text
from hwsim.network.formats import Format
from hwsim.network.layer import Layer, Loops, Tensor
from hwsim.network.workload import FORMAT, FORMAT_VERSION, Coverage, FreeOp, Uncosted, Workload


def load_workload(path: str | Path) -> Workload:
    """Read a saved workload. Raises WorkloadError with file and reason; executes nothing."""
    path = Path(path)
    try:
        text = read_text(path)
    except (OSError, UnicodeDecodeError) as problem:
        raise WorkloadError(f"{path}: cannot be read as a workload: {reason(problem)}") from None
    try:
        data = json.loads(text, parse_constant=reject_constant)
    except (ValueError, RecursionError) as problem:
        raise WorkloadError(f"{path}: not a complete JSON file: {problem}") from None
    try:
        return from_dict(data)
    except WorkloadError as problem:
        raise WorkloadError(f"{path}: {problem}") from None


def reject_constant(word: str) -> float:
    """JSON's NaN and Infinity are no numbers here."""
    raise ValueError(f"{word} is not a number a workload can hold")


def from_dict(data: Any) -> Workload:
    """Inverse of `Workload.to_dict`; strict about keys and types."""
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise WorkloadError(f'expected a saved workload ("format": "{FORMAT}"), found another kind of file')
    if data.get("format_version") != FORMAT_VERSION:
        raise WorkloadError(f"format_version {data.get('format_version')!r}; this version reads {FORMAT_VERSION}")
    missing = [key for key in ("name", "layers", "coverage") if key not in data]
    if missing:
        raise WorkloadError(f"key {missing[0]!r} is missing")
    entries, notes = data["layers"], data.get("notes", [])
    if not isinstance(entries, list) or not isinstance(notes, list):
        raise WorkloadError("layers and notes: expected lists")
    layers = [build(Layer, entry, f"layers[{i}]") for i, entry in enumerate(entries)]
    coverage = build(Coverage, data["coverage"], "coverage")
    name, identity = (plain(data.get(key, ""), "str", key) for key in ("name", "identity"))
    return Workload(name, layers, coverage, tuple(str(note) for note in notes), identity)


NESTED: Mapping[str, Any] = {"loops": Loops, "output": Tensor, "weight": Tensor, "format": Format}
NESTED_LISTS: Mapping[str, Any] = {"inputs": Tensor, "uncosted": Uncosted, "free": FreeOp}


def build(cls: Any, entry: Any, where: str) -> Any:
    """A frozen dataclass from its JSON form; unknown and missing keys and wrong types are refused with their place."""
    if not isinstance(entry, dict):
        raise WorkloadError(f"{where}: expected an object, got {type(entry).__name__}")
    fields = {field.name: field for field in dataclasses.fields(cls)}
    unknown = sorted(set(entry) - set(fields))
    if unknown:
        raise WorkloadError(f"{where}: unknown key {unknown[0]!r}; known: {', '.join(fields)}")
    values: dict[str, Any] = {}
    for key, value in entry.items():
        place = f"{where}.{key}"
        if key in NESTED_LISTS:
            if not isinstance(value, list):
                raise WorkloadError(f"{place}: expected a list, got {value!r}")
            values[key] = tuple(build(NESTED_LISTS[key], v, f"{place}[{i}]") for i, v in enumerate(value))
        elif key in NESTED and (value is not None or "None" not in str(fields[key].type)):
            values[key] = build(NESTED[key], value, place)
        else:
            values[key] = plain(value, str(fields[key].type), place)
    try:
        return cls(**values)
    except SpecError as problem:
        raise WorkloadError(f"{where}: {problem}") from None
    except TypeError as problem:
        raise WorkloadError(f"{where}: {problem}".replace("__init__()", "it")) from None


def plain(value: Any, annotation: str, place: str) -> Any:
    """A leaf value checked against its field's annotation (the few forms this file uses)."""
    if annotation.startswith("tuple[int"):
        if not isinstance(value, list) or any(not isinstance(v, int) or isinstance(v, bool) for v in value):
            raise WorkloadError(f"{place}: expected a list of integers, got {value!r}")
        count = annotation.count("int")
        if "..." not in annotation and len(value) != count:
            raise WorkloadError(f"{place}: expected {count} integers, got {len(value)}")
        return tuple(value)
    allowed: dict[str, tuple[type, ...]] = {
        "int": (int,),
        "str": (str,),
        "bool": (bool,),
        "int | None": (int, type(None)),
        "Tensor | None": (type(None),),
        "Format | None": (type(None),),
        "Sharing": (str,),
    }
    kinds = allowed[annotation]
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise WorkloadError(f"{place}: expected {annotation}, got {value!r}")
    return value
