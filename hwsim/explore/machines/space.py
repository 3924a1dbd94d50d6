"""The exploration file: which keys of a spec vary, over what, within which limits, and what is wanted.

    model: mobilenet_v2                  # or a saved workload, or hf:config.json
    phase: decode                        # with hf:config.json alone; and batch, context, new, experts
    accelerator: eyeriss_v2              # the spec that everything else is taken from
    bits: W4A4                           # or a format such as W4g128A16KV8 or MXFP4,
                                         # or {default: W4A4, first_last: same, ...}: what a bits file may say
                                         # or {weights: 2..8, activations: 2..8, sensitivities: FILE, budgets: [...]}
    search:
      hierarchy.pe_array.axes.columns.size: {from: 8, to: 32, step: 4}
      hierarchy.glb.size_bits: {from: 524288, to: 8388608, factor: 2}
      mac: [{style: fixed, ...}, {style: fusion, ...}]
      network.resolution: [160, 224]     # or network.width; of a phase network.batch and network.context
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
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import yaml

from hwsim.errors import SpecError
from hwsim.explore.bits.budgets import parse_budgets
from hwsim.explore.bits.choices import Freedom, parse_limit, parse_widths
from hwsim.explore.bits.sensitivities import Sensitivities, read_sensitivities
from hwsim.explore.words import FIRST_LAST, LOSS, NAMES
from hwsim.files.identity import Identity, identity
from hwsim.machine.load import load_accelerator
from hwsim.machine.parts import Accelerator
from hwsim.network.bits_file import elementwise
from hwsim.network.workload import Workload
from hwsim.search.cache import VERSION as SEARCH_VERSION
from hwsim.search.proof.native import compiled

DEFAULT = "default"  # with it, `bits` is fixed: the mapping is a bits file's
OBJECTIVES = ("energy_pj", "latency_cycles", "area_mm2", "power_mw", "edp_pj_s", "weight_bits", "loss")
WHOLE = ("grid", "bound")  # samplers that answer for the whole grid
NETWORK = ("network.resolution", "network.width", "network.batch", "network.context")
PASS = ("phase", "batch", "context", "new", "experts")  # of a language model, as the options of `hwsim evaluate`
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
    """A checked exploration file. `base` is the spec's YAML as data, `base_path` where it lies.

    `phase`: what the file says of a language model's pass, by the names of PASS; empty for other networks.
    """

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
    phase: Mapping[str, Any] = field(default_factory=dict[str, Any])
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

    def pass_at(self, parameters: Parameters) -> dict[str, Any]:
        """The language model's pass at a point: what the file says, and the point's batch and context."""
        searched = {key.removeprefix("network."): value for key, value in parameters.items() if key in NETWORK}
        return {**self.phase, **searched}

    def grid(self) -> list[tuple[int, ...]]:
        """Every combination of indices, the last axis fastest."""
        return list(itertools.product(*(range(len(axis.values)) for axis in self.axes)))

    def identity(self, networks: Mapping[str, Workload]) -> Identity:
        """Changes with anything that could change a result: space, networks, spec, sensitivities, tables, proofs."""
        said = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        for name in ("text", "place", "base_path", "base", "model", "phase"):  # the networks tell the phase
            del said[name]
        measured = None if isinstance(self.bits, str) else self.bits.get("sensitivities")
        return identity(
            space=said,
            networks={name: network.to_dict() for name, network in networks.items()},
            accelerator=[self.base, [table.read_bytes() for table in tables_of(self.base, self.base_path)]],
            sensitivities=Path(str(measured)) if measured else "",
            search=SEARCH_VERSION,
            **({} if self.can_prove() else {"search_kernel": "missing"}),
        )

    def can_prove(self) -> bool:
        """Whether this machine can make the proofs that the space asks for, which need the compiled kernel."""
        return self.effort == "quick" or compiled() is not None

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
        raise SpecError("the loss needs `sensitivities: FILE` (`hwsim sensitivity` writes one)")
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
