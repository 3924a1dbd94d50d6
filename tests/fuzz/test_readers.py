"""Spoilt files of every kind: a reader returns or says in one message what is wrong. It never fails in another way.

The plain run tries the same few thousand files every time. `make fuzz` (HWSIM_FUZZ=SECONDS) goes on with new ones, and
prints how many each reader met.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hwsim.errors import HwsimError
from tests.fuzz.readers import READERS, REFUSED, Reader

SECONDS = float(os.environ.get("HWSIM_FUZZ", "0"))
HOSTILE = (
    None, True, False, 0, 1, -1, 2, 0.5, -0.0, 1e308, float("inf"), float("nan"), 2**31, 2**63, 2**64, -(2**63), 10**30,
    67_108_859, "", " ", "8", "1e3", "on", "null", "[red]x[/red]", "\x1b[2J", "=1+1", "../../etc/passwd", "\u202e",
    "a" * 300,
    [], {}, [[]], {"": None}, [1, 2], {"a": {"b": 1}},
)  # fmt: skip


def places(data: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in nested lists and dictionaries."""
    found = [at] if at else []
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        found += places(value, (*at, key))
    return found


def spoilt_structure(draw: Any, data: Any, dump: Any) -> bytes:
    """A value replaced, dropped or repeated, one to three times."""
    for _ in range(draw(st.integers(1, 3))):
        where = places(data)
        if not where:
            break
        *way, last = draw(st.sampled_from(where))
        here = data
        for step in way:
            here = here[step]
        action = draw(st.sampled_from(("replace", "drop", "copy")))
        if action == "drop":
            del here[last]
        elif action == "copy" and isinstance(here, list):
            here.insert(last, here[last])
        elif action == "copy":
            here[f"{last}x"] = here[last]
        else:
            here[last] = copy.deepcopy(draw(st.sampled_from(HOSTILE)))
    return dump(data).encode(errors="replace")


def spoilt_bytes(draw: Any, content: bytes) -> bytes:
    """Bytes changed, put in, cut out, or cut off."""
    spoilt = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(spoilt) - 1)))
        action = draw(st.sampled_from(("set", "insert", "remove", "cut")))
        if action == "set" and spoilt:
            spoilt[at] = draw(st.integers(0, 255))
        elif action == "insert":
            spoilt[at:at] = draw(st.binary(min_size=1, max_size=4))
        elif action == "remove":
            del spoilt[at : at + draw(st.integers(1, 8))]
        elif action == "cut":
            del spoilt[at:]
    return bytes(spoilt)


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_a_spoilt_file_is_read_or_refused(reader: Reader, tmp_path: Path, record_property: Any) -> None:
    seed = reader.seed()
    path = tmp_path / f"file{reader.suffix}"
    path.write_bytes(seed)
    reader.read(path)  # the file that is spoilt below is a valid one
    tried = {"read": 0, "refused": 0}

    @settings(
        max_examples=reader.examples, derandomize=not SECONDS, database=None, deadline=None,
        suppress_health_check=list(HealthCheck), report_multiple_bugs=False,
    )  # fmt: skip
    @given(st.data())
    def attempt(data: Any) -> None:
        if reader.structure and data.draw(st.booleans()):
            load, dump = (json.loads, json.dumps) if reader.structure == "json" else (yaml.safe_load, yaml.safe_dump)
            content = spoilt_structure(data.draw, load(seed), dump)
        else:
            content = spoilt_bytes(data.draw, seed)
        path.write_bytes(content)
        try:
            refused = reader.read(path) is REFUSED
        except HwsimError as problem:
            refused = bool(str(problem).strip())
            assert refused, "refused without a word"
        tried["refused" if refused else "read"] += 1

    began = time.monotonic()
    attempt()
    while time.monotonic() - began < SECONDS / len(READERS):
        attempt()
    record_property("files", sum(tried.values()))
    if SECONDS:
        print(f"{reader.name}: {tried['read']} read, {tried['refused']} refused")
    assert tried["refused"] > 0
    path.write_bytes(seed)
    assert reader.read(path) is not REFUSED, "what others left behind refuses a valid file"


@pytest.mark.parametrize(
    "reader", [r for r in READERS if r.structure and r.examples == 200], ids=lambda reader: reader.name
)
def test_every_key_of_a_file_may_hold_anything(reader: Reader, tmp_path: Path) -> None:
    """No key relies on another part of its reader to have refused what stands there."""
    load, dump = (json.loads, json.dumps) if reader.structure == "json" else (yaml.safe_load, yaml.safe_dump)
    data = load(reader.seed())
    path = tmp_path / f"file{reader.suffix}"
    for key in data if isinstance(data, dict) else range(len(data)):
        for value in HOSTILE:
            spoilt = copy.deepcopy(data)
            spoilt[key] = copy.deepcopy(value)
            path.write_bytes(dump(spoilt).encode(errors="replace"))
            with contextlib.suppress(HwsimError):
                reader.read(path)
