"""Override files read strictly: what plain YAML drops or guesses is an error with its line.

The rules are those of the simulator's spec and bits files, which a test compares; this package knows no simulator.
Refused: a key twice (of two equal patterns one would be lost), aliases, tags, values left out, files that are no text.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*(_[0-9]+)*)")
DECIMAL = re.compile(r"[-+]?[0-9][0-9_]*\.[0-9_]*([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
CONTAINER_TAGS = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("map", "seq"))
PLAIN_TAGS = frozenset(
    f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "timestamp", "merge", "value")
)


def read_yaml(path: Path) -> Any:
    """The file as dicts, lists, numbers and text; {} where it says nothing. Raises ValueError with file and line."""
    try:
        root = yaml.compose(path.read_text(encoding="utf-8-sig"), Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark or problem.context_mark
        raise ValueError(f"{path}:{mark.line + 1 if mark else 1}: not valid YAML: {problem.problem}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as problem:
        raise ValueError(f"{path}:1: not valid YAML: {str(problem).splitlines()[0]}") from None
    return {} if root is None else plain(root, str(path), set())


def plain(node: yaml.Node, path: str, seen: set[int]) -> Any:
    """Plain data of a node; a container met twice came through an alias."""
    place = f"{path}:{node.start_mark.line + 1}"
    if id(node) in seen:
        raise ValueError(f"{place}: aliases (*name) are not allowed: write the value out")
    seen.add(id(node))
    if not isinstance(node, yaml.ScalarNode) and node.tag not in CONTAINER_TAGS:
        raise ValueError(f"{place}: tag {node.tag} is not allowed: write a plain mapping or list")
    if isinstance(node, yaml.SequenceNode):
        return [plain(child, path, seen) for child in node.value]
    if not isinstance(node, yaml.MappingNode):
        return scalar(node, place)
    found: dict[str, Any] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise ValueError(f"{place}: expected a plain key, got a list or mapping")
        if key.value in found:
            raise ValueError(f"{path}:{key.start_mark.line + 1}: {key.value}: duplicate key: keep one of them")
        found[str(key.value)] = plain(value, path, seen)
    return found


def scalar(node: yaml.Node, place: str) -> Any:
    """Integer, decimal, true/false or text."""
    text = str(node.value)
    if getattr(node, "style", None) is not None:  # quoted or block text
        return text
    if node.tag not in PLAIN_TAGS:
        raise ValueError(f"{place}: tag {node.tag} is not allowed: write a plain value")
    if INTEGER.fullmatch(text) and len(text) <= 40:
        return int(text)
    if DECIMAL.fullmatch(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    if text in ("", "~", "null"):
        raise ValueError(f"{place}: no value: write one, or leave the key out")
    return {"true": True, "false": False}.get(text, text)
