"""YAML as other tools write it, as a tree in which every value knows its file, line, tag and quotes.

Their files use tags, anchors, merge keys and YAML 1.2 scalars (`1e-9` is a number, `yes` is text). Only the tags that
the caller allows are accepted; aliases may not form a circle nor expand without end. Merge keys are resolved here:
`<<` fills in what is missing, `<<<` also merges mappings and appends lists, `!nomerge` stops it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from hwsim.errors import SpecError
from hwsim.files.reading import hand_written
from hwsim.files.strict_yaml import refusing

MAX_BYTES = 1024 * 1024
MAX_ITEMS = 100_000
INTEGER = re.compile(r"[-+]?[0-9][0-9_]{0,40}")
NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,4})?")
CONSTANTS: dict[str, bool | None] = {
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
    "null": None, "Null": None, "NULL": None, "~": None, "": None,
}  # fmt: skip

Scalar = str | int | float | bool | None


@dataclass(frozen=True)
class Item:
    """One value. `tag` is the tag as written (`!Component`), empty where there is none."""

    value: Scalar | list[Item] | dict[str, Item]
    file: str
    line: int
    tag: str = ""
    quoted: bool = False

    @property
    def place(self) -> str:
        """`file:line`."""
        return f"{self.file}:{self.line}"

    def error(self, message: str) -> SpecError:
        """An error at this place."""
        return SpecError(f"{self.place}: {message}")

    @property
    def kind(self) -> str:
        """What it is, for messages."""
        if isinstance(self.value, dict):
            return "keys and values"
        return "a list" if isinstance(self.value, list) else f"{self.value!r}"

    def keys(self, what: str) -> dict[str, Item]:
        """Its keys and values. Raises SpecError where it has none."""
        if isinstance(self.value, dict):
            return self.value
        raise self.error(f"{what}: expected keys and values, got {self.kind}")

    def items(self, what: str) -> list[Item]:
        """Its list. Raises SpecError where it is no list."""
        if isinstance(self.value, list):
            return self.value
        raise self.error(f"{what}: expected a list, got {self.kind}")

    def text(self, what: str) -> str:
        """Its text; a number counts as the text that was written."""
        if isinstance(self.value, (dict, list)) or self.value is None or isinstance(self.value, bool):
            raise self.error(f"{what}: expected text, got {self.kind}")
        return str(self.value)

    def flag(self, what: str) -> bool:
        """Its truth value."""
        if isinstance(self.value, bool):
            return self.value
        raise self.error(f"{what}: expected true or false, got {self.kind}")

    def integer(self, what: str, low: int = 1, high: int = 2**50) -> int:
        """A whole number within bounds."""
        value = self.value
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.error(f"{what}: expected a whole number from {low} to {high:,}, got {self.kind}")
        return value

    def number(self, what: str, low: float = 0.0, high: float = 1e15) -> float:
        """A number within bounds."""
        value = self.value
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            raise self.error(f"{what}: expected a number from {low:g} to {high:g}, got {self.kind}")
        return float(value)

    def walk(self) -> Iterator[Item]:
        """This item and everything in it."""
        yield self
        children = self.value.values() if isinstance(self.value, dict) else self.value
        for child in children if isinstance(children, (list, type({}.values()))) else ():
            yield from child.walk()


def read_text(path: Path) -> str:
    """The text of a description. Raises SpecError where there is none."""
    return hand_written(path, MAX_BYTES, "a description")


class TaggedLoader(yaml.SafeLoader):
    """PyYAML's scanner and parser; tags and scalars are left to `Builder`."""


def parse(text: str, name: str, tags: Collection[str] = (), *, last_wins: bool = False) -> Item:
    """The tree of one document. Raises SpecError with file and line.

    `tags`: tags that may stand. `last_wins`: a key may stand twice and the last one counts (as in plain YAML);
    the earlier ones are kept under `Builder.repeated`, see `parse_noting`.
    """
    return parse_noting(text, name, tags, last_wins=last_wins)[0]


def parse_noting(
    text: str, name: str, tags: Collection[str] = (), *, last_wins: bool = False
) -> tuple[Item, list[Item]]:
    """`parse`, and the values of repeated keys that a later one replaced."""
    with refusing(name):
        root = yaml.compose(text, Loader=TaggedLoader)
        builder = Builder(name, frozenset(tags), last_wins)
        if root is None:
            raise SpecError(f"{name}:1: file is empty: expected keys and values")
        return builder.build(root, ()), builder.repeated


class Builder:
    """Turns YAML nodes into items."""

    def __init__(self, name: str, tags: frozenset[str], last_wins: bool) -> None:
        self.name, self.tags, self.last_wins = name, tags, last_wins
        self.count = 0
        self.repeated: list[Item] = []

    def build(self, node: yaml.Node, above: tuple[int, ...]) -> Item:
        """One node and all below it."""
        line = node.start_mark.line + 1
        if id(node) in above:
            raise SpecError(f"{self.name}:{line}: an alias points back to what contains it")
        self.count += 1
        if self.count > MAX_ITEMS:
            raise SpecError(f"{self.name}:{line}: more than {MAX_ITEMS:,} values once aliases are written out")
        tag = node.tag if node.tag.startswith("!") and node.tag != "!" else ""
        if tag and tag not in self.tags:
            known = ", ".join(sorted(self.tags)) or "none"
            raise SpecError(f"{self.name}:{line}: tag {tag} is not known here; known: {known}")
        if node.tag.startswith("tag:") and not node.tag.startswith("tag:yaml.org,2002:"):
            raise SpecError(f"{self.name}:{line}: tag {node.tag} is not allowed")
        if node.tag.startswith("tag:yaml.org,2002:python"):
            raise SpecError(f"{self.name}:{line}: tag {node.tag} is refused: nothing in a description is executed")
        here = (*above, id(node))
        if isinstance(node, yaml.MappingNode):
            return Item(self.mapping(node, here), self.name, line, tag)
        if isinstance(node, yaml.SequenceNode):
            return Item([self.build(child, here) for child in node.value], self.name, line, tag)
        assert isinstance(node, yaml.ScalarNode)
        text, quoted = str(node.value), node.style in ("'", '"', "|", ">")
        return Item(text if quoted or tag else scalar(text), self.name, line, tag, quoted)

    def mapping(self, node: yaml.MappingNode, above: tuple[int, ...]) -> dict[str, Item]:
        """Keys and values, merges resolved."""
        found: dict[str, Item] = {}
        merges: list[tuple[str, Item]] = []
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise SpecError(f"{self.name}:{line}: expected a plain key, got a list or mapping")
            key = str(key_node.value)
            value = replace(self.build(value_node, above), line=line)
            if key in ("<<", "<<<"):
                merges.append((key, value))
                continue
            if key in found:
                if not self.last_wins:
                    raise SpecError(
                        f"{self.name}:{line}: duplicate key {key!r}, first set in line {found[key].line}: keep one"
                    )
                self.repeated.append(found[key])
            found[key] = value
        for kind, value in merges:
            for source in value.value if isinstance(value.value, list) else [value]:
                for key, item in source.keys("a merge").items():
                    if key not in found:
                        found[key] = item
                    elif kind == "<<<":
                        found[key] = merged(found[key], item)
        return found


def merged(own: Item, other: Item) -> Item:
    """Deep merge: mappings key by key, lists appended (own first), own scalars kept."""
    if own.tag == "!nomerge" or other.tag == "!nomerge":
        return own
    if isinstance(own.value, dict) and isinstance(other.value, dict):
        keys = dict(own.value)
        for key, item in other.value.items():
            keys[key] = merged(keys[key], item) if key in keys else item
        return replace(own, value=keys)
    if isinstance(own.value, list) and isinstance(other.value, list):
        return replace(own, value=[*own.value, *other.value])
    return own


def scalar(text: str) -> Scalar:
    """A plain scalar by the rules of YAML 1.2.

    >>> [scalar(text) for text in ("1e-9", "012", "1_000", "yes", "true", "0.4", "4,3")]
    [1e-09, 12, 1000, 'yes', True, 0.4, '4,3']
    """
    if text in CONSTANTS:
        return CONSTANTS[text]
    if INTEGER.fullmatch(text):
        return int(text.replace("_", ""))
    return float(text) if NUMBER.fullmatch(text) else text
