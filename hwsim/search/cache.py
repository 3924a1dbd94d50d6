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
import math
import os
import tempfile
from pathlib import Path
from typing import Any

from hwsim.machine.parts import Accelerator
from hwsim.nest.count import count_accesses
from hwsim.nest.legal import validate
from hwsim.nest.mapping import Hold, Mapping, Node, Spatial, Temporal
from hwsim.network.layer import Layer
from hwsim.pricing.layer import price
from hwsim.search import cache as search_cache
from hwsim.search.objective import value_of
from hwsim.search.result import Certificate, Found

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


def remembered(found: Found) -> dict[str, Any]:
    """A result as a cache entry: the mapping and what its certificate says."""
    nodes: list[list[Any]] = []
    for node in found.mapping.nodes:
        if isinstance(node, Hold):
            nodes.append([node.memory, list(node.operands)])
        elif isinstance(node, Temporal):
            nodes.append([node.dim, node.factor])
        else:
            nodes.append([node.dim, node.factor, node.array, node.axis])
    return {"nodes": nodes, "certificate": dataclasses.asdict(found.certificate)}


def recalled(key: str, layer: Layer, accelerator: Accelerator) -> Found | None:
    """A cache entry counted and priced anew; None where there is none or it is not what it claims to be."""
    entry = search_cache.load(key)
    if entry is None:
        return None
    try:
        nodes: list[Node] = []
        for node in entry["nodes"]:
            if len(node) == 4:
                nodes.append(Spatial(node[0], node[1], node[2], node[3]))
            elif isinstance(node[1], list):
                nodes.append(Hold(node[0], tuple(node[1])))
            else:
                nodes.append(Temporal(node[0], node[1]))
        mapping = Mapping(tuple(nodes))
        certificate = Certificate(**entry["certificate"])
        if validate(mapping, layer, accelerator):
            return None
    except (KeyError, TypeError, IndexError, AttributeError):
        return None
    counts = count_accesses(layer, mapping, accelerator)
    cost = price(layer, counts, accelerator)
    same = math.isclose(value_of(cost, certificate.objective), certificate.value, rel_tol=1e-9)
    return Found(mapping, counts, cost, certificate) if same else None
