"""What a result depends on, as hashes with names: equal identities mean equal questions to an equal program.

Reports, caches, tables and studies carry one. Two that differ can say in which part: the network, the machine, the
bits, an option, or the version of the model. Names of files and folders do not enter, their contents do.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

# Raise it whenever a law of counting or pricing makes any number another one.
MODEL_VERSION = 6
HASH = 16  # hexadecimal digits

PLACE = {"says": "place"}  # metadata of a dataclass's field: where a value is written, which is no part of what it says


@dataclasses.dataclass(frozen=True)
class Identity:
    """Hashes by part; `value` is the hash of them all."""

    parts: Mapping[str, str]

    @property
    def value(self) -> str:
        """One hash of everything."""
        return content_hash(dict(self.parts))

    def to_dict(self) -> dict[str, Any]:
        """As it stands in JSON files."""
        return {"hash": self.value, "parts": dict(self.parts)}

    def differences(self, other: Identity) -> list[str]:
        """Names of the parts that are not the same in both, those of this one first."""
        names = [*self.parts, *(name for name in other.parts if name not in self.parts)]
        return [name for name in names if self.parts.get(name) != other.parts.get(name)]


def identity(**parts: Any) -> Identity:
    """The identity of a result from what it depends on: data, dataclasses, bytes, or paths (their contents)."""
    return Identity(
        {"model": content_hash(MODEL_VERSION), **{name: content_hash(part) for name, part in parts.items()}}
    )


def read_identity(data: Any) -> Identity | None:
    """`Identity.to_dict` read back; None for anything else, or where its hash is not that of its parts."""
    if not isinstance(data, dict):
        return None
    found = cast(dict[str, Any], data)
    parts = found.get("parts")
    if not isinstance(parts, dict):
        return None
    said = {str(name): str(part) for name, part in cast(dict[str, Any], parts).items()}
    return Identity(said) if Identity(said).value == found.get("hash") else None


def content_hash(value: Any) -> str:
    """Hash of a value's content. Raises TypeError for what has no canonical text, OSError for a path without a file."""
    if isinstance(value, Path):
        value = value.read_bytes()
    content = value if isinstance(value, bytes) else json.dumps(value, sort_keys=True, default=plain).encode()
    return hashlib.sha256(content).hexdigest()[:HASH]


def plain(value: Any) -> Any:
    """What JSON does not know: dataclasses as dictionaries, mappings and sets in order, bytes and paths by content,
    arrays.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if dict(f.metadata) != PLACE}
    if isinstance(value, Mapping):
        return dict(cast(Mapping[str, Any], value))
    if isinstance(value, set | frozenset):
        return sorted(cast(set[Any], value), key=repr)
    if isinstance(value, Path | bytes):
        return content_hash(value)
    as_list = getattr(value, "tolist", None)  # numpy's arrays and numbers have one
    if callable(as_list):
        return as_list()
    raise TypeError(f"{type(value).__name__} has no canonical text")
