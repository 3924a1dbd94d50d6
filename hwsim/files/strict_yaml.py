"""Strict YAML with the line of every key: what plain YAML silently guesses is refused here, all of it at once.

Refused: duplicate keys, aliases (and with them cycles and expansion bombs), tags, several documents, files that are
empty, binary, huge or nested without end. Numbers are decimal only; `1e-3`, `64k`, `yes`, `010`, `1:30` stay text, so
that whoever expects a number can say what was written. `read_document` returns plain data and `Document.place`.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from hwsim.errors import SpecError
from hwsim.files.reading import hand_written

MAX_BYTES = 256 * 1024
KeyPath = tuple[str | int, ...]

INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*(_[0-9]+)*)")
DECIMAL = re.compile(r"[-+]?[0-9][0-9_]*\.[0-9_]*([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
EXPONENT_WITHOUT_POINT = re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+")
UNIT_SLIP = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kKMGT]i?)(?:[bB](?:its?|ytes?)?)?")
POWERS = {"k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


@dataclass(frozen=True)
class Document:
    """A parsed file: `data` in dicts, lists and scalars; `lines` says where each key path stands."""

    path: str
    data: object
    lines: dict[KeyPath, int] = field(default_factory=dict[KeyPath, int])

    def line(self, keys: KeyPath) -> int:
        """Line of a key, or of the nearest parent that exists (for a missing key)."""
        while keys and keys not in self.lines:
            keys = keys[:-1]
        return self.lines.get(keys, 1)

    def place(self, keys: KeyPath) -> str:
        """`file:line: hierarchy[1].size_bits`, as every message begins."""
        return f"{self.path}:{self.line(keys)}: {dotted(keys)}"


def dotted(keys: KeyPath) -> str:
    """`("hierarchy", 1, "size_bits")` as `hierarchy[1].size_bits`."""
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys)
    return text.removeprefix(".") or "file"


def read_document(path: Path) -> Document:
    """Parse `path`. Raises SpecError with every problem found, each as `file:line: key: ...`."""
    text = read_text(path)
    root = compose(text, str(path))
    if root is None:  # nothing but comments
        raise SpecError(f"{path}:1: file is empty: expected keys and values")
    reader = Reader(str(path))
    data = reader.build(root, ())
    if reader.problems:
        raise SpecError(reader.problems)
    return Document(str(path), data, reader.lines)


def compose(text: str, name: str) -> yaml.Node | None:
    """The nodes of a text, None where it says nothing; `name` stands for the file. Raises SpecError with the line."""
    with refusing(name):
        return yaml.compose(text, Loader=yaml.SafeLoader)


@contextmanager
def refusing(name: str) -> Generator[None]:
    """What is no YAML, or nested too deeply, is a SpecError with the line of the file called `name`."""
    try:
        yield
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark or problem.context_mark
        line = mark.line + 1 if mark else 1
        raise SpecError(f"{name}:{line}: not valid YAML: {problem.problem or problem.context}") from None
    except yaml.YAMLError as problem:
        raise SpecError(f"{name}:1: not valid YAML: {str(problem).splitlines()[0]}") from None
    except RecursionError:
        raise SpecError(f"{name}:1: not valid YAML: nested too deeply") from None


def read_text(path: Path) -> str:
    """The file's text. Raises SpecError where there is none."""
    return hand_written(path, MAX_BYTES, "a YAML file")


def without_colon(value: yaml.Node, key: yaml.Node) -> bool:
    """Whether a key of {...} has no colon behind it, as what follows a comma in a text."""
    plain = isinstance(value, yaml.ScalarNode) and not value.value and value.style is None
    return plain and value.start_mark.index == key.end_mark.index


def refused(node: yaml.Node, seen: set[int]) -> str:
    """Why a node is no plain data; empty where it is. `seen`: nodes met before: again, they came through an alias."""
    if id(node) in seen:
        return "aliases (*name) are not allowed: write the value out"
    seen.add(id(node))
    if not isinstance(node, yaml.ScalarNode):
        return "" if node.tag in CONTAINER_TAGS else f"tag {node.tag} is not allowed: write a plain mapping or list"
    quoted = getattr(node, "style", None) is not None
    return "" if quoted or node.tag in PLAIN_TAGS else f"tag {node.tag} is not allowed: write a plain value"


class Reader:
    """Turns YAML nodes into plain data, noting lines and problems on the way."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.lines: dict[KeyPath, int] = {}
        self.problems: list[str] = []
        self.seen: set[int] = set()

    def complain(self, node: yaml.Node, keys: KeyPath, message: str) -> None:
        """Note a problem at a node."""
        self.problems.append(f"{self.path}:{node.start_mark.line + 1}: {dotted(keys)}: {message}")

    def build(self, node: yaml.Node, keys: KeyPath) -> object:
        """Plain data of a node; containers met twice came through an alias."""
        self.lines.setdefault(keys, node.start_mark.line + 1)
        if wrong := refused(node, self.seen):
            self.complain(node, keys, wrong)
            return None
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, keys)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(child, (*keys, i)) for i, child in enumerate(node.value)]
        return self.scalar(node, keys)

    def mapping(self, node: yaml.MappingNode, keys: KeyPath) -> dict[str, object]:
        """A mapping whose keys are text, each once."""
        found: dict[str, object] = {}
        torn: dict[str, yaml.Node] = {}  # texts that a comma ended, and where their last piece is
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self.complain(key_node, keys, "expected a plain key, got a list or mapping")
                continue
            key = str(key_node.value)
            here = (*keys, key)
            if key in found:
                first = self.lines[here]
                self.complain(key_node, here, f"duplicate key, first set in line {first}: keep one of them")
                continue
            self.lines[here] = key_node.start_mark.line + 1
            if node.flow_style and found and without_colon(value_node, key_node):
                before = next(reversed(found))
                found[before] = f"{found[before]}, {key}"
                torn[before] = key_node
                continue
            found[key] = self.build(value_node, here)
        for key, piece in torn.items():
            whole = f'{key}: "{found[key]}"'
            self.complain(piece, (*keys, key), f"a comma ends a text in {{...}}: quote the whole of it, {whole}")
        return found

    def scalar(self, node: yaml.Node, keys: KeyPath) -> object:
        """Integer, decimal, true/false or text."""
        text = str(node.value)
        if getattr(node, "style", None) is not None:  # quoted or block text
            return text
        if INTEGER.fullmatch(text) and len(text) <= 40:
            return int(text)
        if DECIMAL.fullmatch(text):
            return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        if text in ("", "~", "null"):
            self.complain(node, keys, "no value: write one, or leave the key out")
            return None
        return {"true": True, "false": False}.get(text, text)


CONTAINER_TAGS = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("map", "seq"))
PLAIN_TAGS = frozenset(
    f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "timestamp", "merge", "value")
)


def number_hint(value: object) -> str:
    """The way out when text stands where a number belongs; empty when there is nothing to suggest."""
    if not isinstance(value, str):
        return ""
    if EXPONENT_WITHOUT_POINT.fullmatch(value):
        mantissa, exponent = re.split("[eE]", value)
        return f"; YAML reads {value} as text, write {mantissa}.0e{exponent}"
    slip = UNIT_SLIP.fullmatch(value)
    if slip:
        amount, unit = slip.groups()
        factor = 1024 ** " KMGT".index(unit[0].upper()) if "i" in unit else POWERS[unit[0]]
        return f"; write the number out, for instance {round(float(amount) * factor)}, in the unit that the key names"
    if INTEGER.fullmatch(value) or DECIMAL.fullmatch(value):
        return "; leave the quotes out"
    return ""
