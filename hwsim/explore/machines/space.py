"""The exploration file: which keys of a spec vary, over what, within which limits, and what is wanted.

    model: mobilenet_v2                  # or a saved workload
    accelerator: eyeriss_v2              # the spec that everything else is taken from
    bits: W4A4                           # or {default: W4A4, first_last: same, ...}: what a bits file may say
                                         # or {weights: 2..8, activations: 2..8, sensitivities: FILE, budgets: [...]}
    search:
      hierarchy.pe_array.axes.columns.size: {from: 8, to: 32, step: 4}
      hierarchy.glb.size_bits: {from: 524288, to: 8388608, factor: 2}
      mac: [{style: fixed, ...}, {style: fusion, ...}]
      network.resolution: [160, 224]
    limits: {area_mm2: 10, power_mw: 500}
    objectives: [energy_pj, latency_cycles]
    sampler: grid                        # or random, nsga2, tpe; bound: the grid's front, few of its points priced
    trials: 200
    effort: proven                       # of the mapping search: quick (default), perfect or proven to within `gap`
    gap: 0.02
    homes: afterwards                    # or none: layers proven alone, from tables that machines share; default: joint

Where a memory's size varies and its energies do not, they follow the square root of the size, its stated area and
leakage the size itself (`memories: fixed` keeps them); the study's assumptions say so.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import yaml

from hwsim.errors import SpecError
from hwsim.explore.bits.bill import LOSS
from hwsim.explore.bits.budgets import NAMES, parse_budgets
from hwsim.explore.bits.choices import FIRST_LAST, Freedom, parse_limit, parse_widths
from hwsim.explore.bits.sensitivities import Sensitivities, read_sensitivities
from hwsim.files.identity import Identity, identity
from hwsim.files.strict_yaml import Document, read_document
from hwsim.machine.load import find_spec, load_accelerator
from hwsim.machine.parts import Accelerator
from hwsim.network.bits_file import RESERVED as BITS_RESERVED
from hwsim.network.bits_file import elementwise, parse_wxay, read_bits
from hwsim.network.workload import Workload
from hwsim.search.cache import VERSION as SEARCH_VERSION

KEYS = ("model", "accelerator", "bits", "search", "limits", "objectives", "sampler", "trials", "generation", "seed",
        "memories", "mapping", "effort", "gap", "homes")  # fmt: skip
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
DEFAULT = "default"  # with it, `bits` is fixed: the mapping is a bits file's
OBJECTIVES = ("energy_pj", "latency_cycles", "area_mm2", "power_mw", "edp_pj_s", "weight_bits", "loss")
LIMITS = ("area_mm2", "power_mw", "energy_pj", "latency_cycles", "weight_bits", "loss")
SAMPLERS = ("grid", "random", "nsga2", "tpe", "bound")
WHOLE = ("grid", "bound")  # samplers that answer for the whole grid
NETWORK = ("network.resolution", "network.width")
MAX_GRID = 1_000_000
Parameters = dict[str, Any]


@dataclass(frozen=True)
class Axis:
    """One searched key and the values it may take, in order."""

    key: str
    values: tuple[Any, ...]

    @property
    def ordered(self) -> bool:
        """Whether the values are numbers in ascending order."""
        numbers = [v for v in self.values if isinstance(v, int | float) and not isinstance(v, bool)]
        return len(numbers) == len(self.values) and numbers == sorted(numbers)


@dataclass(frozen=True)
class Space:
    """A checked exploration file. `base` is the spec's YAML as data, `base_path` where it lies."""

    place: str
    model: str
    base_path: Path
    base: Mapping[str, Any]
    axes: tuple[Axis, ...]
    bits: str | Mapping[str, Any]
    limits: Mapping[str, float]
    objectives: tuple[str, ...]
    sampler: str = "grid"
    trials: int | None = None
    generation: int = 16
    seed: int = 0
    scale_memories: bool = True
    mapping: str = "energy"
    effort: str = "quick"
    gap: float = 0.0
    homes: str = "joint"
    text: str = field(default="", repr=False)

    @property
    def fixed_bits(self) -> str | dict[str, Any] | None:
        """Bits that all points have, as `--bits` takes them; None where they are solved for each machine."""
        return self.bits if isinstance(self.bits, str) else dict(self.bits) if DEFAULT in self.bits else None

    @property
    def size(self) -> int:
        """Points of the whole grid."""
        return math.prod(len(axis.values) for axis in self.axes)

    @property
    def total(self) -> int:
        """Trials of a finished study."""
        return self.size if self.sampler in WHOLE else min(self.trials or self.size, 10**9)

    def point(self, picks: Sequence[int]) -> Parameters:
        """Values at indices into the axes."""
        return {axis.key: axis.values[pick] for axis, pick in zip(self.axes, picks, strict=True)}

    def grid(self) -> list[tuple[int, ...]]:
        """Every combination of indices, the last axis fastest."""
        return list(itertools.product(*(range(len(axis.values)) for axis in self.axes)))

    def identity(self, networks: Mapping[str, Workload]) -> Identity:
        """Changes with anything that could change a result: the space, networks, spec, sensitivities, tables."""
        said = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        for name in ("text", "place", "base_path", "base", "model"):
            del said[name]
        measured = None if isinstance(self.bits, str) else self.bits.get("sensitivities")
        return identity(
            space=said,
            networks={name: network.to_dict() for name, network in networks.items()},
            accelerator=[self.base, [table.read_bytes() for table in tables_of(self.base, self.base_path)]],
            sensitivities=Path(str(measured)) if measured else "",
            search=SEARCH_VERSION,
        )

    def spec(self, parameters: Parameters) -> dict[str, Any]:
        """The spec's data with a point's values in it. Raises SpecError for keys that lead nowhere."""
        data: dict[str, Any] = copy.deepcopy(dict(self.base))
        touched = {key for key in parameters if key not in NETWORK}
        for key in sorted(touched, key=len):
            put(data, key, parameters[key], self.place)
        if self.scale_memories:
            for key in touched:
                scale_memory(data, cast(dict[str, Any], self.base), key, touched)
        return data

    def machine(self, parameters: Parameters) -> Accelerator:
        """The point's accelerator, through the loader and all its checks."""
        return machine_of(self.spec(parameters), self.base_path, self.place)


def machine_of(data: Mapping[str, Any], base_path: Path, place: str) -> Accelerator:
    """A spec given as data, read as if it lay beside the base spec. Raises SpecError."""
    text = yaml.safe_dump(with_tables_beside(data, base_path), sort_keys=False)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{base_path.stem}.yaml"
        path.write_text(text, encoding="utf-8")
        try:
            return load_accelerator(path)
        except SpecError as problem:
            said = [line.replace(f"{path}", f"{place}: {base_path.name}") for line in problem.problems]
            raise SpecError(said) from None


def tables_of(data: Mapping[str, Any], base_path: Path) -> list[Path]:
    """Files of measurements that a spec names, where they lie."""
    mac = data.get("mac")
    named = cast(dict[str, Any], mac).get("table") if isinstance(mac, dict) else None
    return [(base_path.parent / named).resolve()] if isinstance(named, str) else []


def with_tables_beside(data: Mapping[str, Any], base_path: Path) -> dict[str, Any]:
    """The spec's data with the files it names as whole paths, so that it can be read from elsewhere."""
    found = dict(data)
    for table in tables_of(data, base_path):
        found["mac"] = {**found["mac"], "table": str(table)}
    return found


def put(data: dict[str, Any], key: str, value: Any, place: str) -> None:
    """Set the entry that a dotted key names; entries of `hierarchy` are named by their memory or array."""
    *way, last = key.split(".")
    here: Any = data
    for done, step in enumerate(way):
        here = child(here, step, f"{place}: search: {'.'.join(way[: done + 1])}")
    if isinstance(here, list):
        entries = cast(list[Any], here)
        entries[entries.index(child(entries, last, f"{place}: search: {key}"))] = value
    elif isinstance(here, dict):
        cast(dict[str, Any], here)[last] = value
    else:
        raise SpecError(f"{place}: search: {key}: {'.'.join(way)} is no mapping")


def child(here: Any, step: str, where: str) -> Any:
    """One step of a dotted key. Raises SpecError with what there is."""
    if isinstance(here, list):
        entries = cast(list[dict[str, Any]], here)
        named = {str(entry.get("memory", entry.get("array"))): entry for entry in entries}
        if step in named:
            return named[step]
        raise SpecError(f"{where}: no such part; the spec has {', '.join(named)}")
    if isinstance(here, dict) and step in here:
        return cast(dict[str, Any], here)[step]
    there = ", ".join(map(str, cast(dict[str, Any], here))) if isinstance(here, dict) else "nothing below"
    raise SpecError(f"{where}: unknown key; there are {there}")


def scale_memory(data: dict[str, Any], base: dict[str, Any], key: str, touched: set[str]) -> None:
    """Energies of a memory whose size varies: sqrt(new/old), or its own law's; area and leakage: new/old."""
    stem, _, last = key.rpartition(".")
    if last != "size_bits" or not stem.startswith("hierarchy."):
        return
    memory = child(data["hierarchy"], stem.removeprefix("hierarchy."), key)
    before = child(base["hierarchy"], stem.removeprefix("hierarchy."), key)
    if not isinstance(before.get("size_bits"), int) or not isinstance(memory["size_bits"], int):
        return
    ratio = memory["size_bits"] / before["size_bits"]
    for name, power in (("read_energy_pj", 0.5), ("write_energy_pj", 0.5), ("area_mm2", 1.0), ("leakage_mw", 1.0)):
        if name in memory and before[name] != "auto" and f"{stem}.{name}" not in touched:
            memory[name] = float(before[name]) * ratio**power


def freedom_of(bits: Mapping[str, Any]) -> Freedom:
    """What may vary, of `bits` as a mapping. Raises SpecError."""
    return Freedom(
        parse_widths(str(bits.get("weights", "2..8")), "weights"),
        parse_widths(str(bits.get("activations", "2..8")), "activations"),
        known(str(bits.get("first_last", "8bit")), FIRST_LAST, "first_last"),
        tuple(parse_limit(text, "limits") for text in texts_of(bits, "limits")),
        between(bits.get("elementwise_bits", 8)),
    )


def between(value: Any) -> int | str:
    """`elementwise_bits`. Raises SpecError."""
    if not elementwise(value):
        raise SpecError(f"elementwise_bits: expected same or 1 to 16, got {value!r}")
    return value


def solved_for(bits: Mapping[str, Any], clock_mhz: float) -> tuple[str, dict[str, float], Sensitivities | None]:
    """(measure to minimise, budgets, sensitivities if any), of `bits` as a mapping. Raises SpecError."""
    file = bits.get("sensitivities")
    found = read_sensitivities(Path(str(file))) if file else None
    name = str(bits.get("minimise", "loss" if found else "energy"))
    measure = NAMES[known(name, tuple(NAMES), "minimise")]
    budgets = parse_budgets(texts_of(bits, "budgets"), clock_mhz, "budgets")
    if found is None and LOSS in (measure, *budgets):
        raise SpecError("the loss needs `sensitivities: FILE` (python -m quant.sensitivity writes one)")
    return measure, budgets, found


def texts_of(bits: Mapping[str, Any], key: str) -> list[str]:
    """A list of texts. Raises SpecError."""
    value = bits.get(key, [])
    if not isinstance(value, list) or not all(isinstance(text, str) for text in cast(list[Any], value)):
        raise SpecError(f"{key}: expected a list of texts, got {value!r}")
    return cast(list[str], value)


def known(name: str, names: Sequence[str], place: str) -> str:
    """A name, if it is one of several. Raises SpecError."""
    if name not in names:
        raise SpecError(f"{place}: expected one of {', '.join(names)}, got {name!r}")
    return name


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
            mapping=self.word("mapping", ("energy", "latency", "edp"), "energy"),
            effort=self.word("effort", ("quick", "perfect", "proven"), "quick"),
            gap=self.share("gap"),
            homes=self.word("homes", ("joint", "afterwards", "none"), "joint"),
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
        base_path = find_spec(beside if beside.is_file() else name)
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
        numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in said.values())
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
        value = self.data.get("bits", "W8A8")
        if isinstance(value, str):
            try:
                parse_wxay(value, self.document.place(("bits",)) if "bits" in self.data else "bits")
            except SpecError as problem:
                self.problems += problem.problems
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

    def check_fixed(self, said: Mapping[str, Any]) -> None:
        """Complain about what no bits file may say; names of layers are checked with the network."""
        free = [key for key in said if key in BITS_KEYS and key not in BITS_RESERVED]
        for key in free:
            self.complain(("bits", key), "bits are fixed by `default` or solved between `weights` and `activations`")
        try:
            read_bits({key: value for key, value in said.items() if key not in free})
        except SpecError as problem:
            self.problems += [f"{self.document.place(('bits',))}: {line}" for line in problem.problems]

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
            elif not isinstance(limit, int | float) or isinstance(limit, bool) or limit <= 0:
                self.complain(("limits", key), f"expected a positive number, got {limit!r}")
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
