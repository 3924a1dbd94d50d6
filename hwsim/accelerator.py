"""Accelerator YAML -> `machine.Accelerator`, or one SpecError that lists every problem with file, line and key.

The file reads as a drawing of the machine: `hierarchy` lists memories and arrays, outermost first; every number has
its unit in the key and its origin in `source`, estimates are named in `estimated`. `load_accelerator` takes a path or
the bare name of a shipped spec. `python -m hwsim.accelerator --schema | --keys` prints the JSON Schema and the key
table, both from the models below; pydantic appears in this file only.
"""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel, ValidationError

from hwsim.errors import SpecError
from hwsim.machine import (
    MAC_STYLES,
    OPERANDS,
    Accelerator,
    Array,
    Axis,
    Capabilities,
    MacMode,
    MacUnit,
    Memory,
    Operand,
    VectorUnit,
)
from hwsim.measured import Measurements, read_measurements
from hwsim.spec.checks import contradictions, did_you_mean, measured_contradictions
from hwsim.spec.models import (
    MAC_MODELS,
    AcceleratorSpec,
    ArraySpec,
    AxisSpec,
    CapabilitySpec,
    MacSpec,
    MeasuredMac,
    MemorySpec,
    ModesMac,
    ModeSpec,
    Partitions,
    VectorSpec,
    json_schema,
    key_table,
    mac_kind,
    node_kind,
)
from hwsim.spec.strict_yaml import Document, KeyPath, number_hint, read_document

# --- loading --------------------------------------------------------------------------------------------------------


def spec_folder() -> Path:
    """Folder of the shipped specs: inside the package when installed, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "accel_specs"
    return inside if inside.is_dir() else package.parent / "accel_specs"


def shipped_specs() -> tuple[str, ...]:
    """Bare names of the shipped specs."""
    return tuple(sorted(path.stem for path in spec_folder().glob("*.yaml")))


def load_accelerator(name_or_path: str | Path) -> Accelerator:
    """The machine described by a YAML file, or by a shipped spec's bare name.

    Raises SpecError with every problem of the file at once, each as `file:line: key.path: expected ..., got ...`.
    """
    document = read_document(find_spec(name_or_path))
    if not isinstance(document.data, dict):
        raise SpecError(f"{document.place(())}: expected keys and values, got {shown(document.data)}")
    try:
        spec = AcceleratorSpec.model_validate(document.data)
    except ValidationError as problem:
        raise SpecError(sorted_by_line(explanations(document, problem))) from None
    problems = contradictions(document, spec)
    if problems:
        raise SpecError(sorted_by_line(problems))
    return build(spec, measured_table(document, spec))


def measured_table(document: Document, spec: AcceleratorSpec) -> Measurements | None:
    """The table that a measured machine points to, beside its spec. Raises SpecError."""
    if not isinstance(spec.mac, MeasuredMac):
        return None
    path = Path(document.path).parent / spec.mac.table
    if not path.is_file():
        raise SpecError(f"{document.place(('mac', 'table'))}: no such file beside the spec: {spec.mac.table!r}")
    measurements = read_measurements(path, spec.mac.energy_pj_per_cycle or 0.0)
    problems = measured_contradictions(document, spec, measurements)
    if problems:
        raise SpecError(sorted_by_line(problems))
    return measurements


def find_spec(name_or_path: str | Path) -> Path:
    """File behind a path or bare name. Raises SpecError that lists the shipped names."""
    text = str(name_or_path)
    bare = isinstance(name_or_path, str) and re.fullmatch(r"[A-Za-z0-9_-]+", text) is not None
    if bare and text in shipped_specs():
        return spec_folder() / f"{text}.yaml"
    path = Path(text)
    try:
        exists = path.exists()
    except (OSError, ValueError):
        exists = False
    if exists:
        return path
    names = shipped_specs()
    close = difflib.get_close_matches(Path(text).stem, names, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    raise SpecError(f"{text}: no such file or shipped spec; {hint}shipped: {', '.join(names)}")


def sorted_by_line(problems: list[str]) -> list[str]:
    """Problems in the order of the file."""

    def line(problem: str) -> int:
        match = re.search(r":(\d+): ", problem)
        return int(match[1]) if match else 0

    return sorted(problems, key=line)


# --- messages -------------------------------------------------------------------------------------------------------


def explanations(document: Document, problem: ValidationError) -> list[str]:
    """All errors in words; a key that is missing because it was misspelt is named once."""
    errors: list[dict[str, Any]] = [dict(error) for error in problem.errors(include_url=False)]
    found = [explain(document, error) for error in errors]
    misspelt = {
        (error["loc"][:-1], match[1])
        for error, text in zip(errors, found, strict=True)
        if (match := re.search(r"did you mean (\w+)\?$", text))
    }
    return [
        text
        for error, text in zip(errors, found, strict=True)
        if error["type"] != "missing" or (error["loc"][:-1], error["loc"][-1]) not in misspelt
    ]


def explain(document: Document, error: dict[str, Any]) -> str:
    """One pydantic error in the project's words: place, expectation, value, way out."""
    keys: KeyPath = tuple(key for key in error["loc"] if not (isinstance(key, str) and key.startswith("<")))
    kind: str = error["type"]
    if keys and keys[-1] == "[key]":
        keys = keys[:-1]
    place = document.place(keys)
    if kind == "missing":
        return f"{place}: missing key: expected {describe(document, keys)}"
    if kind == "extra_forbidden":
        return f"{place}: unknown key{did_you_mean(str(keys[-1]), siblings(document, keys))}"
    value = error.get("input")
    if kind.startswith("union_tag"):
        wanted = "one of " + ", ".join(MAC_STYLES) if keys == ("mac",) else "an entry with `memory:` or `array:`"
        what = "key `style`: expected " if keys == ("mac",) else "expected "
        found = value.get("style") if keys == ("mac",) and isinstance(value, dict) else value
        return f"{place}: {what}{wanted}, got {shown(found)}"
    hint = number_hint(value)
    if isinstance(value, str) and value in ("yes", "no", "on", "off", "True", "False") and kind.startswith("bool"):
        hint = "; write true or false"
    return f"{place}: expected {expectation(kind, error.get('ctx', {}))}, got {shown(value)}{hint}{purpose(kind, keys)}"


def purpose(kind: str, keys: KeyPath) -> str:
    """What a refused zero could have meant."""
    if kind == "greater_than" and "bandwidth" in str(keys[-1]):
        return "; leave the key out for a port that is never the bottleneck"
    if kind == "too_short" and keys[-1] == "keeps":
        return "; a memory that keeps no operand has no purpose, remove it"
    return ""


def expectation(kind: str, context: dict[str, Any]) -> str:
    """What pydantic wanted, in words."""
    fixed = {
        "int_type": "a whole number",
        "int_from_float": "a whole number",
        "float_type": "a number",
        "string_type": "text",
        "bool_type": "true or false",
        "list_type": "a list [...]",
        "dict_type": "keys and values",
        "model_type": "keys and values",
        "finite_number": "a finite number",
        "string_too_short": "some text",
        "string_pattern_mismatch": "a name of letters, digits, _ . - that starts with a letter",
    }
    if kind in fixed:
        return fixed[kind]
    if kind == "literal_error":
        return "one of " + str(context["expected"]).replace(" or ", ", ").replace("'", "")
    bounds = {
        "greater_than": ("a number above", "gt"),
        "greater_than_equal": ("a number not below", "ge"),
        "less_than_equal": ("a number not above", "le"),
        "too_short": ("a list of at least", "min_length"),
        "too_long": ("a list of at most", "max_length"),
        "string_too_long": ("text no longer than", "max_length"),
    }
    if kind in bounds:
        words, key = bounds[kind]
        return f"{words} {context[key]:g}"
    return kind.replace("_", " ")


def shown(value: object) -> str:
    """A value as it may be printed in one line."""
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "nothing"
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def model_at(document: Document, keys: KeyPath) -> type[BaseModel] | None:
    """The model whose fields may stand at `keys` (a path of a mapping in the file)."""
    value: Any = document.data
    for key in keys:
        value = cast(Any, value)[key] if isinstance(value, (dict, list)) else None
    match keys:
        case ():
            return AcceleratorSpec
        case ("hierarchy", int()):
            return {"<memory>": MemorySpec, "<array>": ArraySpec}.get(node_kind(value) or "")
        case ("hierarchy", int(), "partitions"):
            return Partitions
        case ("hierarchy", int(), "axes", str()):
            return AxisSpec
        case ("mac",):
            return MAC_MODELS.get(mac_kind(value) or "")
        case ("mac", "modes", int()):
            return ModeSpec
        case ("vector",):
            return VectorSpec
        case ("capabilities",):
            return CapabilitySpec
        case _:
            return None


def siblings(document: Document, keys: KeyPath) -> list[str]:
    """Keys that could stand beside the last of `keys`."""
    model = model_at(document, keys[:-1])
    return list(model.model_fields) if model else []


def describe(document: Document, keys: KeyPath) -> str:
    """A missing key's meaning, from its model."""
    model = model_at(document, keys[:-1])
    known = model.model_fields.get(str(keys[-1])) if model else None
    return known.description or "a value" if known else "a value"


# --- into the machine -------------------------------------------------------------------------------------------------


def build(spec: AcceleratorSpec, measurements: Measurements | None = None) -> Accelerator:
    """The frozen machine of a checked spec; estimates become notes."""
    estimates: list[tuple[str, str | None]] = [(spec.name, spec.estimated)]
    estimates += [(n.memory if isinstance(n, MemorySpec) else n.array, n.estimated) for n in spec.hierarchy]
    estimates += [("mac", spec.mac.estimated), ("vector", spec.vector.estimated)]
    return Accelerator(
        name=spec.name,
        clock_mhz=spec.clock_mhz,
        node_nm=spec.node_nm,
        hierarchy=tuple(build_memory(n) if isinstance(n, MemorySpec) else build_array(n) for n in spec.hierarchy),
        mac=build_mac(spec.mac, measurements),
        vector=VectorUnit(**given(spec.vector)),
        capabilities=Capabilities(**given(spec.capabilities, "source")),
        static_power_mw=spec.static_power_mw or 0.0,
        other_area_mm2=spec.other_area_mm2 or 0.0,
        sources=(spec.source,),
        overlap=spec.overlap,
        layer_overhead_cycles=spec.layer_overhead_cycles or 0,
        notes=tuple(f"{where}: estimated: {text}" for where, text in estimates if text),
    )


def given(spec: BaseModel, *omitted: str) -> dict[str, Any]:
    """Fields of a part that say something, lists frozen; what is absent keeps the machine's default."""
    skipped = {"estimated", *omitted}
    fields = {key: value for key, value in spec if value is not None and key not in skipped}
    return {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}


def build_memory(spec: MemorySpec) -> Memory:
    """One memory; an absent area or leakage is 0 here and estimated by area.py."""
    parts = {} if spec.partitions is None else spec.partitions.model_dump(exclude_none=True)
    partitions: tuple[tuple[Operand, int], ...] = tuple((o, int(parts[o])) for o in OPERANDS if o in parts)
    fields = given(spec, "memory", "partitions", "size_bits")
    return Memory(name=spec.memory, size_bits=spec.size_bits, partitions=partitions, **fields)


def build_array(spec: ArraySpec) -> Array:
    """One array with its axes in the file's order."""
    axes = tuple(Axis(name, axis.size, tuple(axis.dims), axis.max_dims) for name, axis in spec.axes.items())
    return Array(name=spec.array, axes=axes, **given(spec, "array", "axes"))


def build_mac(spec: MacSpec, measurements: Measurements | None = None) -> MacUnit:
    """The MAC unit of any style; fields a style lacks keep their defaults."""
    if measurements is not None:
        weight_bits, input_bits = (max(pair[i] for pair in measurements.by_pair) for i in (0, 1))
        fields = given(spec, "table", "energy_pj_per_cycle")
        return MacUnit(
            weight_bits=weight_bits, input_bits=input_bits, energy_pj=0.0, measurements=measurements, **fields
        )
    modes = tuple(MacMode(**dict(mode)) for mode in spec.modes) if isinstance(spec, ModesMac) else ()
    return MacUnit(modes=modes, **given(spec, "modes"))


def main(arguments: list[str] | None = None) -> int:
    """Print the JSON Schema, the key table, or check spec files."""
    parser = argparse.ArgumentParser(prog="python -m hwsim.accelerator", description="Check accelerator specs.")
    parser.add_argument("--schema", action="store_true", help="print the JSON Schema of the YAML")
    parser.add_argument("--keys", action="store_true", help="print the table of keys of accel_specs/README.md")
    parser.add_argument("specs", nargs="*", help="files or bare names to check")
    options = parser.parse_args(arguments)
    if options.schema:
        sys.stdout.write(json_schema())
    if options.keys:
        sys.stdout.write(key_table())
    try:
        for name in options.specs:
            machine = load_accelerator(name)
            print(f"{name}: ok, {machine.mac_units} MAC units, {len(machine.memories)} memories")
    except SpecError as problem:
        print(problem, file=sys.stderr)
        return problem.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
