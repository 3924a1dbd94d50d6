"""Mappings found before, on disk by content hash: safe with several processes, harmless when lost.

An entry is one small JSON file named by the hash of everything a search depends on (layer, machine, objective,
version of the search). Files are replaced in one step, so readers see a whole
entry or none; a damaged or foreign file is a miss.
Entries hold the mapping and its certificate; counts and prices are always computed anew.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from hwsim.machine import Accelerator
from hwsim.workload import Layer

VERSION = 6  # raise it whenever a search may return something else for the same question
ENVIRONMENT = "HWSIM_CACHE"


def cache_folder() -> Path | None:
    """$HWSIM_CACHE (empty: no cache), else the user's cache folder."""
    chosen = os.environ.get(ENVIRONMENT)
    if chosen is not None:
        return Path(chosen) / "mappings" if chosen else None
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "hwsim" / "mappings"


def content_hash(layer: Layer, accelerator: Accelerator, question: dict[str, Any]) -> str:
    """Hash of a question: names do not matter, everything that decides counts, prices and the way of searching does."""
    anonymous = dataclasses.replace(layer, name="", source="")
    text = json.dumps(
        {
            "version": VERSION,
            "layer": dataclasses.asdict(anonymous),
            "accelerator": dataclasses.asdict(accelerator),
            "question": question,
        },
        sort_keys=True,
        default=str,
    )
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def load(key: str) -> dict[str, Any] | None:
    """The entry of a key; None where there is none or it cannot be read."""
    folder = cache_folder()
    if folder is None:
        return None
    try:
        entry = json.loads((folder / f"{key}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return entry if isinstance(entry, dict) and entry.get("version") == VERSION else None


def store(key: str, entry: dict[str, Any]) -> None:
    """Write an entry; a folder that cannot be written means no cache, not an error."""
    folder = cache_folder()
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=folder, prefix=f".{key}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(json.dumps({**entry, "version": VERSION}))
            os.replace(temporary, folder / f"{key}.json")
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError:
        return
