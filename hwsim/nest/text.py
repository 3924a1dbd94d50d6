"""Mappings as text: the YAML of `--mapping` and mappings.yaml, and the lists that caches and tables keep.

`dump_mappings` and `load_mappings` are inverse; every mistake in a file is named with its line. `to_lists` and
`from_lists` are the same nests as JSON-ready lists.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from collections.abc import Mapping as Map
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from hwsim.errors import SpecError, reason
from hwsim.files.reading import read_text
from hwsim.files.strict_yaml import compose, refused
from hwsim.machine.parts import OPERANDS, Operand
from hwsim.nest.mapping import Hold, Mapping, Node, Spatial, Temporal
from hwsim.network.layer import DIMS


@dataclass(frozen=True)
class Together:
    """Layers `first` to `last` run depth first, by the names of their stages' layers: see pricing/fused.py.

    `rows`, `columns`: of the last map per step and strip. `halos`: kept or recomputed. `weights_stay`: layers whose
    weights stay between tiles. The layers' mappings are those of their largest tiles.
    """

    first: str
    last: str
    rows: int
    columns: int
    halos: str
    weights_stay: tuple[str, ...]

    def __str__(self) -> str:
        stay = ", ".join(map(quoted, self.weights_stay))
        return (
            f"{{first: {quoted(self.first)}, last: {quoted(self.last)}, rows: {self.rows}, columns: {self.columns}, "
            f"halos: {self.halos}, weights_stay: [{stay}]}}"
        )


HALOS = ("kept", "recomputed")


class PassNests(NamedTuple):
    """`times` passes of a batch's `images`: their mappings and groups."""

    images: int
    times: int
    mappings: dict[str, Mapping]
    groups: tuple[Together, ...] = ()


class Plan(NamedTuple):
    """A file of mappings: by layer name, with depth-first groups and the lifetimes of tensors (empty: not said).

    `passes`: of a batch that runs as smaller ones; mappings and groups are theirs then.
    """

    mappings: dict[str, Mapping]
    groups: tuple[Together, ...] = ()
    lifetimes: str = ""
    passes: tuple[PassNests, ...] = ()


def dump_passes(passes: Sequence[PassNests], lifetimes: str = "") -> str:
    """YAML text of a batch's passes, each with its mappings; `parse_plan` reads it back."""
    lines = [f"lifetimes: {quoted(lifetimes)}"] if lifetimes else []
    lines.append("passes:")
    for each in passes:
        lines += [f"  - images: {each.images}", f"    times: {each.times}"]
        lines += [f"    {line}" for line in dump_mappings(each.mappings, each.groups).splitlines()]
    return "\n".join(lines) + "\n"


def dump_mappings(mappings: Map[str, Mapping], groups: Sequence[Together] = (), lifetimes: str = "") -> str:
    """YAML text of mappings by layer name, and of what `Plan` says beside them; `parse_plan` reads it back."""
    lines = [f"lifetimes: {quoted(lifetimes)}"] if lifetimes else []
    lines += ["groups:", *(f"  - {group}" for group in groups)] if groups else []
    lines.append("layers:")
    for name, mapping in mappings.items():
        lines += [f"  {key}:"] if len(key := quoted(name)) <= LONGEST_KEY else [f"  ? {key}", "  :"]
        lines.extend(f"    - {entry}" for entry in entries(mapping))
    return "\n".join(lines) + "\n"


def quoted(text: str) -> str:
    """A name as a YAML scalar that is always text: in double quotes, what is no visible character escaped."""
    plain = re.fullmatch(r"[A-Za-z_][\w./-]*", text, re.ASCII) and text.lower() not in YAML_WORDS
    return text if plain else '"' + "".join(map(escaped, text)) + '"'


def escaped(character: str) -> str:
    """One character between double quotes in YAML."""
    if character in '\\"':
        return "\\" + character
    code = ord(character)
    return character if character.isprintable() else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


LONGEST_KEY = 1000  # characters of a key that YAML reads without a mark in front (1,024, place included)
YAML_WORDS = ("y", "n", "yes", "no", "on", "off", "true", "false", "null")


def entries(mapping: Mapping) -> Iterator[str]:
    """One line per hold and array, each with the temporal loops that follow it."""
    nodes = list(mapping.nodes)
    if nodes and isinstance(nodes[0], Temporal):
        raise SpecError("a mapping must begin with a hold of the outermost memory, not with a loop")
    while nodes:
        head = nodes[0]
        if isinstance(head, Hold):
            text = f"memory: {quoted(head.memory)}, holds: [{', '.join(head.operands)}]"
            nodes = nodes[1:]
        else:
            run = axis_run(nodes)
            axes: dict[str, list[str]] = {}
            for loop in run:
                axes.setdefault(loop.axis, []).append(f"{loop.dim}{loop.factor}")
            inside = ", ".join(f"{quoted(axis)}: [{', '.join(loops)}]" for axis, loops in axes.items())
            text = f"array: {quoted(run[0].array)}, axes: {{{inside}}}"
            nodes = nodes[len(run) :]
        loops = list(itertools.takewhile(lambda node: isinstance(node, Temporal), nodes))
        nodes = nodes[len(loops) :]
        if loops:
            text += f", loops: [{', '.join(f'{n.dim}{n.factor}' for n in loops if isinstance(n, Temporal))}]"
        yield f"{{{text}}}"


def axis_run(nodes: list[Node]) -> list[Spatial]:
    """The leading loops of one array, up to where an axis comes back: what one YAML entry can say in order."""
    run: list[Spatial] = []
    for node in nodes:
        if not isinstance(node, Spatial) or node.array != nodes[0].array:  # type: ignore[union-attr]
            break
        if run and node.axis != run[-1].axis and any(node.axis == other.axis for other in run):
            break
        run.append(node)
    return run


LOOP = re.compile(rf"([{''.join(DIMS)}])([1-9][0-9]{{0,8}})")


def load_mappings(path: str | Path) -> dict[str, Mapping]:
    """Mappings by layer name from a YAML file without groups. Raises SpecError listing every problem with its line.

    Checks the form only; whether a mapping is legal for a layer on a machine is `validate`'s.
    """
    return parse_mappings(text_of(path), str(path))


def load_plan(path: str | Path) -> Plan:
    """Mappings by layer name, and what stands beside them, as `load_mappings` reads them."""
    return parse_plan(text_of(path), str(path))


def text_of(path: str | Path) -> str:
    """A mapping file's text. Raises SpecError."""
    try:
        return read_text(Path(path))
    except (OSError, UnicodeDecodeError) as problem:
        raise SpecError(f"{path}: cannot be read as a mapping file: {reason(problem)}") from None


def parse_mappings(text: str, name: str = "mapping") -> dict[str, Mapping]:
    """`load_mappings` on text; `name` stands for the file in messages."""
    mappings, groups, _, passes = parse_plan(text, name)
    if groups or passes:
        what = "groups: layers that run depth first" if groups else "passes: those of a batch"
        raise SpecError(f"{name}: {what} are read by hwsim evaluate alone")
    return mappings


def parse_plan(text: str, name: str = "mapping") -> Plan:
    """`load_plan` on text; `name` stands for the file in messages."""
    root = compose(text, name)
    reader = MappingReader(name)
    if root is not None:
        reader.refuse(root, set())
    mappings = {} if reader.problems else reader.read(root)
    if reader.problems:
        raise SpecError(reader.problems)
    return Plan(mappings, tuple(reader.groups), reader.lifetimes, tuple(reader.passes))


class MappingReader:
    """Turns YAML nodes into mappings and collects every problem with its line."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.problems: list[str] = []
        self.groups: list[Together] = []
        self.lifetimes = ""
        self.passes: list[PassNests] = []

    def read(self, root: yaml.Node | None) -> dict[str, Mapping]:
        """The whole document: `layers: {name: [entry, ...]}`, perhaps `groups: [{first: ...}, ...]`, `lifetimes`.

        Or `passes: [{images: 2, times: 4, layers: ..., groups: ...}, ...]` in the place of the first two.
        """
        known = ("layers", "groups", "lifetimes", "passes")
        keys = self.keys(root, "the file", known, ()) if root is not None else None
        if keys is None:
            if root is None:
                self.problems.append(f"{self.name}:1: expected 'layers:', found an empty file")
            return {}
        self.lifetimes = self.text(keys["lifetimes"], "lifetimes") if "lifetimes" in keys else ""
        if "passes" not in keys:
            assert root is not None
            return self.nests(root, keys)
        for name in ("layers", "groups"):
            if name in keys:
                self.problem(keys[name], name, "stands in each of 'passes', not beside them")
        items = self.items(keys["passes"], "passes")
        for item in items:
            self.one_pass(item)
        if not items:
            self.problem(keys["passes"], "passes", "expected one pass at least")
        return {}

    def refuse(self, node: yaml.Node, seen: set[int]) -> None:
        """Note aliases and tags, as in every other file."""
        if wrong := refused(node, seen):
            self.problems.append(f"{self.name}:{node.start_mark.line + 1}: {wrong}")
        elif isinstance(node, yaml.SequenceNode):
            for child in node.value:
                self.refuse(child, seen)
        elif isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                self.refuse(key, seen)
                self.refuse(value, seen)

    def nests(self, root: yaml.Node, keys: dict[str, yaml.Node]) -> dict[str, Mapping]:
        """The values of `layers` and `groups`."""
        for item in self.items(keys["groups"], "groups") if "groups" in keys else ():
            self.group(item)
        if "layers" not in keys:
            self.problem(root, "the file", "key 'layers' is missing")
            return {}
        layers = self.keys(keys["layers"], "layers", None, ())
        return {
            layer: Mapping(tuple(node for entry in self.items(value, layer) for node in self.entry(entry, layer)))
            for layer, value in (layers or {}).items()
        }

    def one_pass(self, node: yaml.Node) -> None:
        """One entry of `passes`."""
        needed = ("images", "times", "layers")
        keys = self.keys(node, "passes", (*needed, "groups"), needed)
        if keys is None or not keys.keys() >= set(needed):
            return
        images, times = (self.lines(keys[key], f"passes.{key}") for key in ("images", "times"))
        self.groups = []
        mappings = self.nests(node, keys)
        self.passes.append(PassNests(images, times, mappings, tuple(self.groups)))
        self.groups = []

    def group(self, node: yaml.Node) -> None:
        """One depth-first group."""
        known = ("first", "last", "rows", "columns", "halos", "weights_stay")
        keys = self.keys(node, "groups", known, known)
        if keys is None or len(keys) < len(known):
            return
        halos = self.text(keys["halos"], "groups.halos")
        if halos not in HALOS:
            self.problem(keys["halos"], "groups.halos", f"expected one of {', '.join(HALOS)}", halos)
        stay = tuple(
            self.name_in(item, "groups.weights_stay")
            for item in self.items(keys["weights_stay"], "groups.weights_stay")
        )
        first, last = self.name_in(keys["first"], "groups.first"), self.name_in(keys["last"], "groups.last")
        rows, columns = self.lines(keys["rows"], "groups.rows"), self.lines(keys["columns"], "groups.columns")
        self.groups.append(Together(first, last, rows, columns, halos, stay))

    def lines(self, node: yaml.Node, where: str) -> int:
        """A whole number: rows, columns, images."""
        text = self.text(node, where)
        if not re.fullmatch(r"[1-9][0-9]{0,8}", text):
            self.problem(node, where, "expected a whole number from 1", text)
            return 1
        return int(text)

    def entry(self, node: yaml.Node, layer: str) -> list[Node]:
        """One hold or array with the temporal loops that follow it."""
        keys = self.keys(node, layer, ("memory", "holds", "array", "axes", "loops"), ())
        if keys is None:
            return []
        if keys.keys() & {"memory", "holds"} and keys.keys() & {"array", "axes"}:
            self.problem(node, layer, "one entry is either a memory with 'holds' or an array with 'axes', not both")
            return []
        found: list[Node] = []
        if "memory" in keys and "holds" in keys:
            operands = self.operands(keys["holds"], f"{layer}.holds")
            found.append(Hold(self.text(keys["memory"], f"{layer}.memory"), operands))
        elif "array" in keys and "axes" in keys:
            array = self.text(keys["array"], f"{layer}.array")
            for axis, loops in (self.keys(keys["axes"], f"{layer}.axes", None, ()) or {}).items():
                found += [Spatial(d, f, array, axis) for d, f in self.loops(loops, f"{layer}.axes.{axis}")]
        else:
            self.problem(node, layer, "expected 'memory' with 'holds', or 'array' with 'axes'")
        if "loops" in keys:
            found += [Temporal(dim, factor) for dim, factor in self.loops(keys["loops"], f"{layer}.loops")]
        return found

    def loops(self, node: yaml.Node, where: str) -> list[tuple[str, int]]:
        """Loops such as [K4, P7], outermost first."""
        found: list[tuple[str, int]] = []
        for item in self.items(node, where):
            text = self.text(item, where)
            match = LOOP.fullmatch(text)
            if match:
                found.append((match[1], int(match[2])))
            elif text:
                self.problem(
                    item, where, f"expected a loop such as K4 (one of {', '.join(DIMS)}, then its factor)", text
                )
        return found

    def operands(self, node: yaml.Node, where: str) -> tuple[Operand, ...]:
        """A list of weight, input, output."""
        found: list[Operand] = []
        for item in self.items(node, where):
            text = self.text(item, where)
            if text in found:
                self.problem(item, where, "an operand may stand once", text)
            elif text in OPERANDS:
                found.append(text)
            elif text:
                self.problem(item, where, f"expected one of {', '.join(OPERANDS)}", text)
        return tuple(found)

    def text(self, node: yaml.Node, where: str) -> str:
        """A plain scalar; empty, with a problem noted, where there is none."""
        if isinstance(node, yaml.ScalarNode) and node.value:
            return str(node.value)
        self.problem(node, where, "expected a name")
        return ""

    def name_in(self, node: yaml.Node, where: str) -> str:
        """A scalar that names a layer; "" is a name, too, where quotes say so."""
        is_empty_name = isinstance(node, yaml.ScalarNode) and not node.value and node.style in ("'", '"')
        return "" if is_empty_name else self.text(node, where)

    def items(self, node: yaml.Node, where: str) -> list[yaml.Node]:
        """The items of a list."""
        if isinstance(node, yaml.SequenceNode):
            return list(node.value)
        self.problem(node, where, "expected a list")
        return []

    def keys(
        self, node: yaml.Node, where: str, known: tuple[str, ...] | None, needed: tuple[str, ...]
    ) -> dict[str, yaml.Node] | None:
        """Keys and values of a mapping node; unknown, double and missing keys are problems."""
        if not isinstance(node, yaml.MappingNode):
            self.problem(node, where, "expected keys and values")
            return None
        found: dict[str, yaml.Node] = {}
        for key_node, value in node.value:
            key = self.text(key_node, where) if known else self.name_in(key_node, where)
            if key in found:
                self.problem(key_node, where, "a key may stand once", key)
            elif known is not None and key not in known:
                self.problem(key_node, where, f"unknown key; known: {', '.join(known)}", key)
            else:
                found[key] = value
        for key in needed:
            if key not in found:
                self.problem(node, where, f"key {key!r} is missing")
        return found

    def problem(self, node: yaml.Node, where: str, expectation: str, value: str | None = None) -> None:
        """Note one problem with its place."""
        got = "" if value is None else f", got {value!r}"
        self.problems.append(f"{self.name}:{node.start_mark.line + 1}: {where}: {expectation}{got}")


def to_lists(mapping: Mapping) -> list[list[Any]]:
    """A mapping as JSON: holds [memory, [operands]], loops [dim, factor], unrolled ones [dim, factor, array, axis]."""
    found: list[list[Any]] = []
    for node in mapping.nodes:
        if isinstance(node, Hold):
            found.append([node.memory, list(node.operands)])
        elif isinstance(node, Temporal):
            found.append([node.dim, node.factor])
        else:
            found.append([node.dim, node.factor, node.array, node.axis])
    return found


def from_lists(nodes: Sequence[Sequence[Any]]) -> Mapping:
    """`to_lists` read back."""
    found: list[Node] = []
    for node in nodes:
        if len(node) == 4:
            found.append(Spatial(node[0], node[1], node[2], node[3]))
        elif isinstance(node[1], list):
            found.append(Hold(node[0], tuple(node[1])))
        else:
            found.append(Temporal(node[0], node[1]))
    return Mapping(tuple(found))
