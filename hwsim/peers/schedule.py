"""Constraints of a schedule on their way into a draft: entries by level, as accel_specs has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hwsim.machine.rules import REST
from hwsim.network.layer import DIMS
from hwsim.peers.draft import Draft

Amount = int | str  # 4, "<=4" or "all"
Entry = dict[str, Any]


def levels_of(draft: Draft) -> list[str]:
    """Memories and arrays of the draft, outermost first."""
    return [entry.get("memory") or entry["array"] for entry in draft.data["hierarchy"]]


def keep_out_of_arrays(draft: Draft, found: dict[str, Entry]) -> None:
    """Where a memory with rules has arrays inside it, its peer has no loops in time between those and the next level.

    An array's factors speak of all loops in it that no memory inside has rules for: these get an order of any loops.
    """
    ruled = banned = False
    for node in draft.data["hierarchy"]:
        name = node.get("memory") or node["array"]
        if "array" in node:
            banned = ruled
            if ruled:
                found.setdefault(name, {"level": name})["factors"] = dict.fromkeys(DIMS, 1)
            continue
        ruled = name in found
        if banned and not ruled:
            found[name] = {"level": name, "order": [REST]}


def write_constraints(
    draft: Draft, found: Mapping[str, Entry], sources: Mapping[str, str], lines: Mapping[str, int]
) -> bool:
    """Write entries into the draft, outermost first, with source and line by level; whether there are any."""
    entries = [found[name] for name in levels_of(draft) if name in found]
    for index, entry in enumerate(entries):
        name = entry["level"]
        entry["source"] = sources[name]
        draft.lines |= {("constraints", index, *key): lines[name] for key in ((), *((key,) for key in entry))}
    if entries:
        draft.data["constraints"] = entries
    return bool(entries)
