"""Tables over machines on disk, beside the cache of mappings: named by what they depend on, bounded in size.

A file is a NumPy archive of plain arrays (no pickles) under its own hash: a damaged or foreign one is no table. The
oldest files go once all together take more than MOST_BYTES.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from hwsim.files.atomic import write_atomically
from hwsim.files.identity import MODEL_VERSION, content_hash
from hwsim.nest.count import count_accesses
from hwsim.nest.text import from_lists, to_lists
from hwsim.search.cache import VERSION, cache_folder
from hwsim.search.machines.table import Cell, MachineTable, Parts, Row
from hwsim.search.space.timing import Regime

MOST_BYTES = 1 << 28


def table_key(key: tuple[object, ...], box: object) -> str:
    """The name of a table's file: all that it depends on, but for the sizes and prices that it covers."""
    return content_hash([VERSION, MODEL_VERSION, repr(key), repr(box)])


def folder() -> Path | None:
    """Where tables lie; None without a cache."""
    mappings = cache_folder()
    return None if mappings is None else mappings.parent / "machine_tables"


def save(table: MachineTable, name: str) -> None:
    """Write a table; a folder that cannot be written means none."""
    place = folder()
    if place is None:
        return
    content = packed(table)
    seal = hashlib.sha256(name.encode() + content).digest()
    with contextlib.suppress(OSError):
        write_atomically(place / f"{name}.npz", seal + content, durable=False)
        prune(place)


def load(table: MachineTable, name: str) -> bool:
    """Fill a new table from its file; False where there is none or it is not what was stored."""
    place = folder()
    if place is None:
        return False
    try:
        stored = (place / f"{name}.npz").read_bytes()
        if hashlib.sha256(name.encode() + stored[32:]).digest() != stored[:32]:
            return False
        with np.load(io.BytesIO(stored[32:]), allow_pickle=False) as arrays:
            fill(table, {key: arrays[key] for key in arrays.files})
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return True


def prune(place: Path) -> None:
    """Remove the oldest tables beyond the bound."""
    found = sorted(((p.stat().st_mtime, p.stat().st_size, p) for p in place.glob("*.npz")), reverse=True)
    total = 0
    for _, size, path in found:
        total += size
        if total > MOST_BYTES:
            path.unlink(missing_ok=True)


def packed(table: MachineTable) -> bytes:
    """A table as the bytes of an archive."""
    said: dict[str, Any] = {
        "regimes": [None if r is None else [r.busy, r.waits] for r in table.regimes],
        "rows": [[to_lists(row.mapping), row.rooms, row.values] for row in table.rows],
        "cells": list(table.cells),
        "covered": [cell.covered for cell in table.cells.values()],
    }
    arrays = {"said": np.frombuffer(json.dumps(said).encode(), dtype=np.uint8)}
    for i, cell in enumerate(table.cells.values()):
        arrays[f"{i} least"] = cell.least
        for name, parts in (("parts", cell.parts), ("stuck", cell.stuck)):
            arrays |= {f"{i} {name} {key}": value for key, value in vars(parts).items()}
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)  # pyright: ignore[reportArgumentType]
    return content.getvalue()


def fill(table: MachineTable, arrays: dict[str, Any]) -> None:
    """An archive's knowledge into a table of the same key."""
    said = json.loads(arrays["said"].tobytes())
    table.regimes = [None if r is None else regime(*r) for r in said["regimes"]]
    problem = table.problem
    for nodes, rooms, values in said["rows"]:
        mapping = from_lists(nodes)
        counts = count_accesses(problem.layer, mapping, problem.accelerator)
        table.rows.append(Row(mapping, counts, tuple(rooms), tuple(values)))
    for i, wanted in enumerate(map(tuple, said["cells"])):
        cell = Cell(table, wanted)
        cell.least, cell.covered = arrays[f"{i} least"], said["covered"][i]
        cell.parts, cell.stuck = (
            Parts(*(arrays[f"{i} {name} {key}"] for key in ("values", "row", "spacing", "level")))
            for name in ("parts", "stuck")
        )
        table.cells[wanted] = cell


def regime(busy: list[list[str]], waits: list[Any]) -> Regime:
    """A regime from its lists."""
    ports = tuple((memory, kind) for memory, kind in busy)
    return Regime(ports, tuple((memory, (port[0], port[1])) for memory, port in waits))
