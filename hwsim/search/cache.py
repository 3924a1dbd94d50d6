"""Mappings found before, on disk by content hash: safe with several processes, harmless when lost.

An entry is one small JSON file named by the hash of everything a search depends on (layer, machine, objective,
version of the search). Files are replaced in one step, so readers see a whole entry or none. An entry carries its own
hash, and its certificate is checked: a damaged, foreign or impossible entry is a miss.
Entries hold the mapping and its certificate; counts and prices are always computed anew.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from hwsim.files.atomic import write_atomically
from hwsim.files.reading import is_finite, read_text
from hwsim.machine.parts import Accelerator
from hwsim.machine.rules import anonymous
from hwsim.nest.count import count_accesses
from hwsim.nest.mapping import Mapping
from hwsim.nest.text import from_lists, to_lists
from hwsim.network.layer import Layer
from hwsim.search.effort import Options
from hwsim.search.objective import Objective
from hwsim.search.result import ROUNDING, Bounded, Certificate, Found
from hwsim.search.space.homes import NOWHERE
from hwsim.search.space.problem import Problem

VERSION = 22  # raise it whenever a search may return something else for the same question
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
            "accelerator": machine_form(accelerator),
            "question": question,
        },
        sort_keys=True,
        default=str,
    )
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@functools.lru_cache(maxsize=64)
def machine_form(accelerator: Accelerator) -> dict[str, Any]:
    """What a machine is to a search. No mapping depends on how sure a rate is, or on the file of a rule."""
    plain = dataclasses.replace(accelerator, constraints=anonymous(accelerator.constraints))
    return {key: value for key, value in dataclasses.asdict(plain).items() if key != "rate_spreads"}


def question_key(
    problem: Problem, objective: Objective, options: Options, seeds: Sequence[Mapping], **more: float | str
) -> str:
    """What an answer depends on, as a key of the cache."""
    question: dict[str, Any] = {
        "objective": objective, "effort": options.effort, "seeds": [str(mapping) for mapping in seeds], **more,
    }  # fmt: skip
    if options.effort != "quick":
        question |= {"gap": options.gap, "time_limit_s": options.time_limit_s}
    if problem.rules:
        question["rules"] = [dataclasses.asdict(rule) for rule in anonymous(problem.rules)]
    if (problem.fused, problem.homes, problem.cycle_pj) != ((), NOWHERE, 0.0):
        question["around"] = [problem.unit.fixed_cycles, dataclasses.asdict(problem.homes), problem.cycle_pj]
    return content_hash(problem.layer, problem.accelerator, question)


def load(key: str) -> dict[str, Any] | None:
    """The entry of a key; None where there is none, or where what lies there is not what was stored."""
    folder = cache_folder()
    if folder is None:
        return None
    path = folder / f"{key}.json"
    if not path.is_file():  # absent, or a link to a device without an end, which would be read up to the bound
        return None
    try:
        stored = json.loads(read_text(path))
        entry = stored["entry"]
        whole = stored["version"] == VERSION and stored["hash"] == entry_hash(key, entry)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return entry if whole and isinstance(entry, dict) else None


def entry_hash(key: str, entry: Any) -> str:
    """Hash of an entry under its key, so that a damaged or renamed file is a miss."""
    text = json.dumps([VERSION, key, entry], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def store(key: str, entry: dict[str, Any]) -> None:
    """Write an entry; a folder that cannot be written means no cache, not an error."""
    folder = cache_folder()
    if folder is None:
        return
    stored = {"version": VERSION, "hash": entry_hash(key, entry), "entry": entry}
    path = folder / f"{key}.json"
    with contextlib.suppress(OSError):
        if path.is_file() or not path.exists():  # a pipe there would wait for a reader for ever
            write_atomically(path, json.dumps(stored), durable=False)


def remembered(found: Found) -> dict[str, Any]:
    """A result as a cache entry: the mapping and what its certificate says."""
    return {"nodes": to_lists(found.mapping), "certificate": dataclasses.asdict(found.certificate)}


def recalled(key: str, problem: Problem) -> Found | None:
    """A cache entry counted and priced anew; None where there is none or it is not what it claims to be."""
    entry = load(key)
    if entry is None:
        return None
    try:
        mapping = from_lists(entry["nodes"])
        certificate = Certificate(**entry["certificate"])
        if not is_sound(certificate) or problem.refuses(mapping):
            return None
        counts = count_accesses(problem.layer, mapping, problem.accelerator)
        cost = problem.bill(counts)
        same = math.isclose(problem.worth(cost, certificate.objective), certificate.value, rel_tol=1e-9)
    except (KeyError, TypeError, IndexError, AttributeError, ValueError):
        return None
    return Found(mapping, counts, cost, certificate) if same and problem.leaves_room(counts) else None


def recalled_bound(key: str) -> Bounded | None:
    """A bound as a cache entry; None where there is none."""
    entry = load(key)
    bound = None if entry is None else entry.get("bound")
    if not isinstance(bound, int | float) or isinstance(bound, bool) or not (is_finite(bound) and bound >= 0):
        return None
    return Bounded(float(bound))


def is_sound(certificate: Certificate) -> bool:
    """Whether every field has its type, every number is finite, and no bound lies above the value."""
    kinds = {"str": str, "int": int, "bool": bool, "float": (int, float), "Objective": str}
    for field in dataclasses.fields(certificate):
        value = getattr(certificate, field.name)
        if not isinstance(value, kinds[str(field.type)]) or (isinstance(value, bool) != (field.type == "bool")):
            return False
        if isinstance(value, int | float) and not (is_finite(value) and value >= 0):
            return False
    highest = certificate.value * (1 + ROUNDING)
    bounds = (certificate.lower_bound, certificate.any_tiles_bound, certificate.root_bound)
    return certificate.objective in get_args(Objective) and all(bound <= highest for bound in bounds)
