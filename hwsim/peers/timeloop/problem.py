"""Timeloop problems as layers: loops, data spaces and projections, with roles told by membership."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hwsim.machine.parts import Operand
from hwsim.peers.einsum import Einsum, Space, Term, read_einsum
from hwsim.peers.report import TranslationReport
from hwsim.peers.tagged_yaml import Item, parse
from hwsim.peers.timeloop.architecture import name_others

# Where there is no problem beside an architecture: the names its examples use.
USUAL_SPACES: dict[str, Operand] = {"Weights": "weight", "Inputs": "input", "Outputs": "output"}
USUAL_DIMS = {"N": "N", "G": "G", "M": "K", "K": "K", "C": "C", "P": "P", "Q": "Q", "R": "R", "S": "S"}
MAX_BOUND = 2**32
# The convolution that Timeloop calls cnn-layer.
CNN_LAYER = """
dimensions: [R, S, P, Q, C, K, N]
coefficients: [{name: Wstride}, {name: Hstride}, {name: Wdilation}, {name: Hdilation}]
data_spaces:
- {name: Weights, projection: [C, K, R, S]}
- {name: Inputs, projection: [N, C, [[R, Wdilation], [P, Wstride]], [[S, Hdilation], [Q, Hstride]]]}
- {name: Outputs, projection: [N, K, Q, P], read_write: true}
"""
NEUTRAL_DENSITY = (1, 1.0, {}, None)


def read_problem(tree: Item, report: TranslationReport) -> Einsum:
    """The operation of a `problem`. Raises SpecError for what has no counterpart."""
    keys = with_named_shape(tree, tree.keys("problem"))
    name_others(tree, keys, ("version", "shape", "instance"), report)
    for key in ("shape", "instance"):
        if key not in keys:
            raise tree.error(f"problem: key {key!r} is missing")
    shape, instance = keys["shape"].keys("problem.shape"), keys["instance"].keys("problem.instance")
    for key in ("dimensions", "data_spaces"):
        if key.replace("_", "-") in shape:
            shape = {k.replace("-", "_"): v for k, v in shape.items()}
        if key not in shape:
            raise keys["shape"].error(f"problem.shape: key {key!r} is missing")
    name_others(tree, shape, ("version", "name", "dimensions", "coefficients", "data_spaces", "flatten"), report)
    if "flatten" in shape and shape["flatten"].value:
        raise shape["flatten"].error("problem.shape.flatten has no counterpart")
    dims = [item.text("a dimension") for item in shape["dimensions"].items("problem.shape.dimensions")]
    if len(set(dims)) < len(dims):
        raise shape["dimensions"].error("problem.shape.dimensions: expected each loop once")
    bounds = read_bounds(keys["instance"], dims, instance)
    coefficients = read_coefficients(shape.get("coefficients"), instance, report)
    densities(instance.get("densities"))
    ignored = sorted(set(instance) - set(dims) - set(coefficients) - {"densities"})
    if ignored:
        names = ", ".join(ignored)
        report.none(keys["instance"].place, "problem.instance", f"{names}: no loops, Timeloop ignores them, too")
    spaces: list[tuple[Space, bool]] = []
    for item in shape["data_spaces"].items("problem.shape.data_spaces"):
        spaces.append(read_space(item, bounds, coefficients, report))
    if len({space.name for space, _ in spaces}) < len(spaces):
        raise shape["data_spaces"].error("problem.shape.data_spaces: expected each name once")
    outputs = [space for space, written in spaces if written]
    if len(outputs) != 1:
        raise shape["data_spaces"].error(f"expected one data space with read_write: true, got {len(outputs)}")
    inputs = [space for space, written in spaces if not written]
    einsum = read_einsum(keys["shape"], bounds, inputs, outputs[0])
    said = ", ".join(f"{theirs} is {ours}" for theirs, ours in {**einsum.operands, **einsum.dims}.items())
    report.taken(tree.place, "problem", said)
    einsum.note_joined(tree.place, report)
    return einsum


def with_named_shape(tree: Item, keys: dict[str, Item]) -> dict[str, Item]:
    """The shape that a name stands for; its sizes stood beside it in old descriptions."""
    shape = keys.get("shape")
    if shape is None or not isinstance(shape.value, str):
        return keys
    if shape.value.lower() != "cnn-layer":
        raise shape.error(f"problem.shape: a shape by name: only cnn-layer is known, not {shape.value!r}: write it out")
    sizes = {key: item for key, item in keys.items() if key not in ("shape", "instance", "version")}
    found = parse(CNN_LAYER, shape.file)
    return {"shape": replace(found, line=shape.line), "instance": keys.get("instance", replace(tree, value=sizes))}


def read_bounds(item: Item, dims: list[str], instance: Mapping[str, Item]) -> dict[str, int]:
    """The size of every loop."""
    for dim in dims:
        if dim not in instance:
            raise item.error(f"problem.instance: the size of loop {dim!r} is missing")
    return {dim: instance[dim].integer(f"problem.instance.{dim}", 1, MAX_BOUND) for dim in dims}


def read_coefficients(item: Item | None, instance: Mapping[str, Item], report: TranslationReport) -> dict[str, int]:
    """Values of strides and dilations: the instance's, else their defaults."""
    found: dict[str, int] = {}
    for entry in item.items("coefficients") if item is not None and item.value is not None else ():
        keys = entry.keys("a coefficient")
        if "name" not in keys:
            raise entry.error("a coefficient needs a name")
        name = keys["name"].text("name")
        if name not in instance and "default" not in keys:
            report.approximated(entry.place, f"coefficient {name}", "neither a value nor a default: 1")
        value = instance.get(name, keys.get("default", Item(1, entry.file, entry.line)))
        found[name] = value.integer(f"coefficient {name}", 1, 10_000)
    return found


def densities(item: Item | None) -> None:
    """Refuse sparse data."""
    if item is None or not isinstance(item.value, dict):
        return
    for name, entry in item.value.items():
        if entry.value not in NEUTRAL_DENSITY:
            raise entry.error(f"density of {name}: sparse data has no counterpart here (1 is dense)")


def read_space(
    item: Item, bounds: Mapping[str, int], coefficients: Mapping[str, int], report: TranslationReport
) -> tuple[Space, bool]:
    """A data space, and whether it is written."""
    keys = {key.replace("-", "_"): value for key, value in item.keys("a data space").items()}
    for key in ("name", "projection"):
        if key not in keys:
            raise item.error(f"a data space needs {key!r}")
    name_others(item, keys, ("name", "projection", "read_write"), report)
    name = keys["name"].text("name")
    ranks: list[tuple[Term, ...]] = []
    for rank in keys["projection"].items(f"{name}.projection"):
        if not isinstance(rank.value, list):  # the short form: one loop per rank
            ranks.append((read_term(rank, bounds, coefficients, name),))
            continue
        terms = rank.value
        if terms and not isinstance(terms[0].value, list):
            terms = [Item(terms, rank.file, rank.line)]
        ranks.append(tuple(read_term(term, bounds, coefficients, name) for term in terms))
    written = keys["read_write"].flag("read_write") if "read_write" in keys else False
    return Space(name, tuple(ranks)), written


def read_term(item: Item, bounds: Mapping[str, int], coefficients: Mapping[str, int], name: str) -> Term:
    """`[dim]` or `[dim, coefficient]`."""
    words = item.value if isinstance(item.value, list) else [item]
    if not 1 <= len(words) <= 2:
        raise item.error(f"{name}: expected [loop] or [loop, coefficient], got {len(words)} entries")
    dim = words[0].text("a loop")
    if dim not in bounds:
        raise words[0].error(f"{name}: unknown loop {dim!r}; dimensions are {', '.join(bounds)}")
    if len(words) == 1:
        return dim, 1
    if isinstance(words[1].value, int) and not isinstance(words[1].value, bool):
        return dim, words[1].integer("a coefficient", 1, 10_000)
    word = words[1].text("a coefficient")
    if word not in coefficients:
        raise words[1].error(f"{name}: unknown coefficient {word!r}; there are {', '.join(coefficients) or 'none'}")
    return dim, coefficients[word]
