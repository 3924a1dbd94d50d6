"""The reader of an exploration file: `read_space(path) -> Space`.

Every mistake is found at once and named with its place; what the file then means is `hwsim.explore.machines.space`'s.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from hwsim.errors import SpecError
from hwsim.explore.machines.space import (
    DEFAULT,
    NETWORK,
    OBJECTIVES,
    PASS,
    WHOLE,
    Axis,
    Space,
    freedom_of,
    put,
    solved_for,
)
from hwsim.files.reading import is_a_file, is_finite
from hwsim.files.strict_yaml import Document, read_document
from hwsim.machine.load import find_spec, load_accelerator
from hwsim.network.bits_file import RESERVED as BITS_RESERVED
from hwsim.network.bits_file import parse_wxay, read_bits
from hwsim.network.format_bits import asks_for_formats, requested
from hwsim.network.formats import parse_formats
from hwsim.network.generation import EXPERTS, PHASES
from hwsim.search.objective import OBJECTIVES as MAPPED_FOR

KEYS = ("model", "accelerator", "bits", "search", "limits", "objectives", "sampler", "trials", "generation", "seed",
        "memories", "mapping", "effort", "gap", "homes", *PASS)  # fmt: skip
BITS_KEYS = (
    "weights",
    "activations",
    "first_last",
    "elementwise_bits",
    "limits",
    "sensitivities",
    "minimise",
    "budgets",
)
LIMITS = ("area_mm2", "power_mw", "energy_pj", "latency_cycles", "weight_bits", "loss")
SAMPLERS = ("grid", "random", "nsga2", "tpe", "bound")
MAX_GRID = 1_000_000


def read_space(path: Path) -> Space:
    """Read and check an exploration file, every mistake at once. Raises SpecError."""
    document = read_document(path)
    if not isinstance(document.data, dict):
        raise SpecError(f"{document.place(())}: expected keys and values, got {document.data!r}")
    return SpaceReader(document, path).read()


def kind_of(value: Any) -> str:
    """What kind of YAML value this is, in a word."""
    if isinstance(value, bool):
        return "yes or no"
    if isinstance(value, int | float):
        return "number"
    return "text" if isinstance(value, str) else "list" if isinstance(value, list) else "keys and values"


class SpaceReader:
    """Collects every problem of an exploration file with its place."""

    def __init__(self, document: Document, path: Path) -> None:
        self.document, self.path = document, path
        self.data = cast(dict[str, Any], document.data)
        self.problems: list[str] = []

    def complain(self, keys: tuple[str | int, ...], message: str) -> None:
        """Note a problem."""
        self.problems.append(f"{self.document.place(keys)}: {message}")

    def read(self) -> Space:
        """The space. Raises SpecError with all problems."""
        for key in self.data:
            if key not in KEYS:
                self.complain((key,), f"unknown key; expected some of {', '.join(KEYS)}")
        for key in ("model", "accelerator", "search"):
            if key not in self.data:
                self.complain((), f"{key}: missing")
        self.string("accelerator", "")
        axes = self.axes()
        space = Space(
            place=str(self.path),
            model=self.string("model", ""),
            base_path=Path(),
            base={},
            axes=tuple(axes),
            bits=self.bits(),
            limits=self.limits(),
            objectives=self.objectives(),
            sampler=self.word("sampler", SAMPLERS, "grid"),
            trials=self.number("trials", None),
            generation=self.number("generation", 16) or 16,
            seed=self.number("seed", 0, least=0) or 0,
            scale_memories=self.word("memories", ("scaled", "fixed"), "scaled") == "scaled",
            mapping=self.word("mapping", MAPPED_FOR, "energy"),
            effort=self.word("effort", ("quick", "perfect", "proven"), "quick"),
            gap=self.share("gap"),
            homes=self.word("homes", ("joint", "afterwards", "none"), "joint"),
            phase=self.phase(),
            text=self.path.read_text(encoding="utf-8"),
        )
        if space.sampler not in WHOLE and space.trials is None:
            self.complain(("sampler",), f"{space.sampler} needs `trials: N`")
        if space.homes != "joint" and space.effort == "quick":
            self.complain(("homes",), "layers are proven one by one: it needs `effort: perfect` or `effort: proven`")
        if space.sampler == "bound":
            self.bounded(space)
        if space.sampler in WHOLE and space.size > MAX_GRID:
            self.complain(("search",), f"a grid of {space.size:,} points: use another sampler with `trials: N`")
        if self.problems:
            raise SpecError(self.problems)
        return self.based(space)

    def bounded(self, space: Space) -> None:
        """What a sampler with bounds needs: a sum of proven layers, in energy and area."""
        if space.homes != "none" or space.mapping != "energy":
            self.complain(("sampler",), "bound needs `homes: none`, `mapping: energy`, `effort: perfect` or `proven`")
        for name in (*space.objectives, *space.limits):
            if name not in ("energy_pj", "area_mm2"):
                said = "objectives and limits may be energy_pj and area_mm2"
                self.complain(("sampler",), f"bound has no bounds of {name}: {said}")
        if space.fixed_bits is None:
            self.complain(("sampler",), "bound needs fixed `bits`: one WxAy, or {default: W4A4, ...}")

    def based(self, space: Space) -> Space:
        """The space with its base spec, every searched key tried once. Raises SpecError."""
        name = self.string("accelerator", "")
        beside = self.path.parent / name
        base_path = find_spec(beside if is_a_file(beside) else name)
        base = read_document(base_path).data
        space = dataclasses.replace(space, base_path=base_path, base=cast(dict[str, Any], base))
        load_accelerator(base_path)
        first = space.point([0] * len(space.axes))
        for axis in space.axes:
            if axis.key not in NETWORK:
                put(copy.deepcopy(dict(space.base)), axis.key, axis.values[0], space.place)
        space.machine(first)
        return space

    def axes(self) -> list[Axis]:
        """The searched keys."""
        searched = self.data.get("search")
        if not isinstance(searched, dict) or not searched:
            if "search" in self.data:
                self.complain(("search",), "expected keys of the spec with their values, found none")
            return []
        found: list[Axis] = []
        for key, value in cast(dict[str, Any], searched).items():
            if key.startswith("network.") and key not in NETWORK:
                self.complain(("search", key), f"unknown; expected {' or '.join(NETWORK)}")
            values = self.values(key, value)
            if values:
                found.append(Axis(key, tuple(values)))
        return found

    def values(self, key: str, value: Any) -> list[Any]:
        """A list, or a range with a step or a factor."""
        keys = ("search", key)
        if isinstance(value, list):
            listed = cast(list[Any], value)
            if not listed:
                self.complain(keys, "an empty list: expected at least one value")
            if len({json.dumps(v, sort_keys=True) for v in listed}) < len(listed):
                self.complain(keys, "a value stands twice")
            kinds = list(dict.fromkeys(kind_of(v) for v in listed))
            if len(kinds) > 1:
                self.complain(keys, f"values of several kinds ({' and '.join(kinds)}): expected one kind, got {listed}")
            return listed
        if not isinstance(value, dict) or not {"from", "to"} <= set(cast(dict[str, Any], value)):
            self.complain(keys, f"expected a list, or {{from, to, step}} or {{from, to, factor}}, got {value!r}")
            return []
        said = cast(dict[str, Any], value)
        unknown = set(said) - {"from", "to", "step", "factor"}
        numbers = all(isinstance(v, int | float) and not isinstance(v, bool) and is_finite(v) for v in said.values())
        if unknown or not numbers or ("step" in said) == ("factor" in said):
            self.complain(keys, f"expected numbers from, to and one of step and factor, got {value!r}")
            return []
        low, high = said["from"], said["to"]
        step, factor = said.get("step", 0), said.get("factor", 1)
        if low > high or step < 0 or ("step" in said and step == 0) or ("factor" in said and (factor <= 1 or low <= 0)):
            self.complain(keys, f"an empty or endless range: {value!r}")
            return []
        found, here = [], low
        while here <= high * (1 + 1e-12) and len(found) <= MAX_GRID:
            found.append(here)
            here = here + step if "step" in said else here * factor
        return found

    def bits(self) -> str | dict[str, Any]:
        """WxAy, a bits file's keys, or what may vary."""
        value = self.data.get("bits", "FP16" if "phase" in self.data else "W8A8")
        if isinstance(value, str):
            self.check_text(value)
            return value
        if not isinstance(value, dict):
            self.complain(
                ("bits",), f"expected W4A4, {{default: W4A4, ...}} or {{{', '.join(BITS_KEYS)}}}, got {value!r}"
            )
            return "W8A8"
        said = cast(dict[str, Any], value)
        if DEFAULT in said:
            self.check_fixed(said)
            return said
        for key in said:
            if key not in BITS_KEYS:
                self.complain(("bits", key), f"unknown key; expected some of {', '.join(BITS_KEYS)}")
        if "sensitivities" in said and not Path(str(said["sensitivities"])).is_absolute():
            said = {**said, "sensitivities": str(self.path.parent / str(said["sensitivities"]))}
        try:
            freedom_of(said)
            solved_for(said, 1.0)
        except SpecError as problem:
            self.problems += [f"{self.document.place(('bits',))}: {line}" for line in problem.problems]
        return said

    def check_text(self, value: str) -> None:
        """Complain about a text that is no pair of widths and no format."""
        place = self.document.place(("bits",)) if "bits" in self.data else "bits"
        try:
            if asks_for_formats(value):
                parse_formats(value, place)
            else:
                parse_wxay(value, place)
        except SpecError as problem:
            self.problems += problem.problems

    def check_fixed(self, said: Mapping[str, Any]) -> None:
        """Complain about what no bits file may say; names of layers are checked with the network."""
        free = [key for key in said if key in BITS_KEYS and key not in BITS_RESERVED]
        for key in free:
            self.complain(("bits", key), "bits are fixed by `default` or solved between `weights` and `activations`")
        try:
            fixed = {key: value for key, value in said.items() if key not in free}
            if asks_for_formats(fixed):
                requested(fixed, None)
            else:
                read_bits(fixed)
        except SpecError as problem:
            self.problems += [f"{self.document.place(('bits',))}: {line}" for line in problem.problems]

    def phase(self) -> dict[str, Any]:
        """What the file says of a language model's pass."""
        said = {key: self.data[key] for key in PASS if key in self.data}
        search = self.data.get("search")  # `axes` says where it is no dictionary
        searched = [key for key in cast(dict[str, Any], search) if key in NETWORK] if isinstance(search, dict) else []
        if said and "phase" not in said:
            self.complain((next(iter(said)),), f"is for language models: add `phase: {'` or `phase: '.join(PHASES)}`")
        for key, words in (("phase", PHASES), ("experts", EXPERTS)):
            if key in said:
                self.word(key, words, words[0])
        for key in ("batch", "context", "new"):
            if key in said and self.number(key, 1) is None:
                self.complain((key,), "expected a whole number from 1, got nothing")
        for key in searched:
            if ("phase" in said) != (key.removeprefix("network.") in PASS):
                wants = "an image network, no phase" if "phase" in said else "a language model: add `phase: decode`"
                self.complain(("search", key), f"varies {wants}")
            elif key.removeprefix("network.") in said:
                self.complain(("search", key), f"varies what `{key.removeprefix('network.')}` fixes: keep one of them")
        return said

    def limits(self) -> dict[str, float]:
        """Largest values allowed."""
        value = self.data.get("limits", {})
        if not isinstance(value, dict):
            self.complain(("limits",), f"expected limits by name, got {value!r}")
            return {}
        found: dict[str, float] = {}
        for key, limit in cast(dict[str, Any], value).items():
            if key not in LIMITS:
                self.complain(("limits", key), f"unknown; expected some of {', '.join(LIMITS)}")
            elif not isinstance(limit, int | float) or isinstance(limit, bool) or limit <= 0 or not is_finite(limit):
                self.complain(("limits", key), f"expected a positive finite number, got {limit!r}")
            else:
                found[key] = float(limit)
        return found

    def objectives(self) -> tuple[str, ...]:
        """What is minimised."""
        value = self.data.get("objectives", ["energy_pj", "latency_cycles"])
        names = cast(list[Any], value) if isinstance(value, list) else [value]
        wrong = [name for name in names if name not in OBJECTIVES]
        if wrong or not names or len(set(map(str, names))) < len(names):
            self.complain(("objectives",), f"expected different ones of {', '.join(OBJECTIVES)}, got {value!r}")
            return ("energy_pj",)
        bits = self.data.get("bits")
        if "loss" in names and not (isinstance(bits, dict) and "sensitivities" in bits):
            self.complain(("objectives",), "loss needs `bits: {sensitivities: FILE}`")
        return tuple(str(name) for name in names)

    def string(self, key: str, fallback: str) -> str:
        """A text."""
        value = self.data.get(key, fallback)
        if not isinstance(value, str) or (key in self.data and not value):
            self.complain((key,), f"expected a text, got {value!r}")
            return fallback
        return value

    def word(self, key: str, allowed: tuple[str, ...], fallback: str) -> str:
        """One of a few words."""
        value = self.data.get(key, fallback)
        if value not in allowed:
            self.complain((key,), f"expected one of {', '.join(allowed)}, got {value!r}")
            return fallback
        return str(value)

    def share(self, key: str) -> float:
        """A number from 0; 0 where there is none."""
        value = self.data.get(key, 0.0)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < math.inf:
            self.complain((key,), f"expected a number from 0, such as 0.02, got {value!r}")
            return 0.0
        return float(value)

    def number(self, key: str, fallback: int | None, least: int = 1) -> int | None:
        """A whole number."""
        value = self.data.get(key, fallback)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
            self.complain((key,), f"expected a whole number from {least}, got {value!r}")
            return fallback
        return value
