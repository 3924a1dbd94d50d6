"""`.pt2` archives of torch.export, read as the JSON graph inside: `read_pt2(path) -> OpGraph`.

torch.export.load itself is not used: it unpickles weights and constants (torch 2.11 and 2.13 fall back to
`weights_only=False` and `pickle.loads`), which runs whatever the file contains. Shapes, names and operators are all in
`models/*.json`; weights are never touched. Needs no torch.
"""

from __future__ import annotations

import json
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hwsim.errors import WorkloadError
from hwsim.frontends.lowering.ir import Arg, Meta, Op, OpGraph, Ref

MAX_GRAPH_BYTES = 512 * 1024 * 1024
# torch's serialized element types (torch/_export/serde/schema.py: ScalarType).
DTYPES = {
    1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32", 8: "float64",
    9: "complex32", 10: "complex64", 11: "complex128", 12: "bool", 13: "bfloat16", 28: "uint16", 29: "float8_e4m3fn",
    30: "float8_e5m2", 31: "float8_e4m3fnuz", 32: "float8_e5m2fnuz", 33: "float8_e8m0fnu", 34: "uint32", 35: "uint64",
}  # fmt: skip
SCALARS = ("as_int", "as_float", "as_bool", "as_string")
LISTS = ("as_ints", "as_floats", "as_bools", "as_strings")


def read_pt2(path: Path, input_shape: tuple[int, ...] | None = None) -> OpGraph:
    """The graph of an exported program. Raises WorkloadError for anything else, and for sizes left open."""
    return GraphReader(path, graph_json(path)).read(input_shape)


def graph_json(path: Path) -> Mapping[str, Any]:
    """The graph's JSON out of the archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            found = [n for n in names if "/models/" in f"/{n}" and n.endswith(".json")]
            found = found or [n for n in names if n.rpartition("/")[2] == "serialized_exported_program.json"]
            if not found:
                raise WorkloadError(not_a_program(path, names))
            info = archive.getinfo(found[0])
            if info.file_size > MAX_GRAPH_BYTES:
                raise WorkloadError(f"{path}: its graph is {info.file_size:,} bytes, more than {MAX_GRAPH_BYTES:,}")
            raw = archive.read(info)
    except zipfile.BadZipFile:
        raise WorkloadError(f"{path}: not a complete .pt2 archive: truncated, or another kind of file") from None
    except (
        OSError,
        RuntimeError,
        ValueError,
        EOFError,
        KeyError,
        struct.error,
        zlib.error,
    ) as problem:
        raise WorkloadError(f"{path}: not a complete .pt2 archive: {problem}") from None
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError) as problem:
        raise WorkloadError(f"{path}: its graph ({found[0]}) is not JSON: {problem}") from None
    if not isinstance(data, dict):
        raise WorkloadError(f"{path}: its graph ({found[0]}) is not an exported program")
    return data


def not_a_program(path: Path, names: list[str]) -> str:
    """Why an archive without a graph is refused."""
    if any(name.endswith("data.pkl") for name in names):
        return (
            f"{path}: a pickled torch file; it is not loaded, because unpickling runs what the file contains. Give a "
            "zoo name, a checkpoint folder, package.module:factory, or a .pt2 file of torch.export.save"
        )
    return f"{path}: an archive without a graph (models/*.json): expected what torch.export.save writes"


class GraphReader:
    """Reads torch's serialized graph into an `OpGraph`; every missing key is named."""

    def __init__(self, path: Path, data: Mapping[str, Any]) -> None:
        self.path = path
        try:
            self.module = data["graph_module"]
            self.graph = self.module["graph"]
            self.specs = self.module["signature"]["input_specs"]
            self.values: Mapping[str, Any] = self.graph["tensor_values"]
        except (KeyError, TypeError) as problem:
            raise WorkloadError(f"{path}: not an exported program: key {problem} is missing") from None

    def read(self, input_shape: tuple[int, ...] | None) -> OpGraph:
        """The whole graph. Raises WorkloadError where sizes are symbolic or the file contradicts `input_shape`."""
        try:
            metas = {name: self.meta(name, value) for name, value in self.values.items()}
            inputs, constants = self.inputs()
            ops = tuple(self.op(node) for node in self.graph["nodes"])
            outputs = tuple(name for value in self.graph["outputs"] for name in names_in(value))
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as problem:
            raise WorkloadError(f"{self.path}: not a graph this version can read: {problem!r}") from None
        if input_shape is not None and inputs and metas[inputs[0]].shape != input_shape:
            raise WorkloadError(
                f"{self.path}: exported for an input of shape {metas[inputs[0]].shape}, --input says {input_shape}; "
                "leave it out, or export again with that shape"
            )
        return OpGraph(self.path.stem, tuple(inputs), constants, metas, ops, outputs)

    def meta(self, name: str, value: Mapping[str, Any]) -> Meta:
        """Shape and type of a value."""
        sizes: list[int] = []
        for size in value["sizes"]:
            if "as_int" not in size:
                symbol = size.get("as_expr", {}).get("expr_str", size)
                raise WorkloadError(
                    f"{self.path}: {name} has a symbolic size ({symbol}): export again without dynamic_shapes"
                )
            if not isinstance(size["as_int"], int):
                raise TypeError(f"size {size['as_int']!r} of {name}")
            sizes.append(size["as_int"])
        if value["dtype"] not in DTYPES:
            raise WorkloadError(
                f"{self.path}: {name} has element type {value['dtype']}, which this version does not know; "
                f"expected one of {', '.join(f'{number} ({kind})' for number, kind in DTYPES.items())}"
            )
        return Meta(tuple(sizes), DTYPES[value["dtype"]])

    def inputs(self) -> tuple[list[str], dict[str, str]]:
        """(values the user supplies, value -> parameter name)."""
        inputs: list[str] = []
        constants: dict[str, str] = {}
        for spec in self.specs:
            ((kind, body),) = spec.items()
            stored = next((body[key] for key in body if key.endswith("_name")), None)
            for name in names_in(body["arg"]) if "as_tensor" in body["arg"] else [body["arg"].get("name")]:
                if kind == "user_input" and name in self.values:
                    inputs.append(name)
                elif isinstance(name, str) and stored is not None:
                    constants[name] = text(stored)
        return inputs, constants

    def op(self, node: Mapping[str, Any]) -> Op:
        """One operator call."""
        named = {entry["name"]: argument(entry["arg"]) for entry in node["inputs"]}
        outputs = tuple(name for value in node["outputs"] for name in names_in(value))
        module, call = module_of(node.get("metadata", {}).get("nn_module_stack", ""))
        target = str(node["target"]).removeprefix("torch.ops.")
        name = target.rpartition(".")[0] if target.count(".") > 1 else target
        return Op(name, named, outputs, module, call)


def argument(value: Mapping[str, Any]) -> Arg:
    """A serialized argument; devices, layouts and graphs become text."""
    ((kind, body),) = value.items()
    if kind == "as_tensor":
        return Ref(text(body["name"]))
    if kind in ("as_tensors", "as_optional_tensors"):
        return tuple(Ref(text(name)) if (name := item_name(item)) else None for item in body)
    if kind == "as_optional_tensor":
        return Ref(text(body["as_tensor"]["name"])) if "as_tensor" in body else None
    if kind in SCALARS:
        return body
    if kind in LISTS:
        return tuple(body)
    if kind == "as_none":
        return None
    if kind in ("as_sym_int", "as_sym_bool", "as_sym_float"):
        return next(iter(body.values()))
    if kind in ("as_sym_ints", "as_sym_bools", "as_sym_floats"):
        return tuple(next(iter(item.values())) for item in body)
    return str(body)


def text(value: Any) -> str:
    """A name. Raises TypeError for anything else."""
    if not isinstance(value, str):
        raise TypeError(f"expected a name, got {value!r}")
    return value


def item_name(item: Mapping[str, Any]) -> Any:
    """Name of a tensor in a list, whose entries may be absent."""
    found = item.get("as_tensor", item)
    return found.get("name") if isinstance(found, dict) else None


def names_in(value: Mapping[str, Any]) -> Iterator[str]:
    """Names of the tensors in a serialized output."""
    found = argument(value) if value else None
    for item in found if isinstance(found, tuple) else (found,):
        if isinstance(item, Ref):
            yield item.name


def module_of(stack: str) -> tuple[str, str]:
    """(module, call) of the innermost entry of `key,path,class;key,path,class`."""
    last = stack.rpartition(";")[2].split(",")
    if len(last) < 2:
        return "", ""
    _, at, number = last[0].partition("@")
    return last[1], f"{last[1]}@{number}" if at else last[1]
