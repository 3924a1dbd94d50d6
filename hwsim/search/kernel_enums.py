"""Limits and codes that Python shares with the C kernel, read from the kernel's header: each stands there alone.

`ENUMS["CROSSINGS"]` is what `enum { CROSSINGS = 64 }` of kernel/state.h says. Enumerators are whole numbers,
sums and products of those, and earlier enumerators. The header is read because bounds and the quick search need codes
where no kernel is compiled; a compiled one is asked for all of them before it is used (`native.enumerators`).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from pathlib import Path

HEADER = Path(__file__).parent / "proof" / "kernel" / "state.h"
ENUM = re.compile(r"\benum\s*\{([^}]*)\}")
COMMENT = re.compile(r"/\*.*?\*/", re.S)


def enums(text: str) -> dict[str, int]:
    """Every enumerator of a C header with its value.

    >>> enums("enum { A = 6, B = A + 1, C }; enum { X, Y };")
    {'A': 6, 'B': 7, 'C': 8, 'X': 0, 'Y': 1}
    """
    found: dict[str, int] = {}
    for body in ENUM.findall(COMMENT.sub("", text)):
        following = 0
        for entry in filter(None, map(str.strip, body.split(","))):
            name, equals, expression = (part.strip() for part in entry.partition("="))
            found[name] = value(ast.parse(expression, mode="eval").body, found) if equals else following
            following = found[name] + 1
    return found


def value(node: ast.expr, known: Mapping[str, int]) -> int:
    """A constant expression. Raises ValueError for what is none."""
    match node:
        case ast.Constant(value=int(number)):
            return number
        case ast.Name(id=name):
            return known[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -value(operand, known)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return value(left, known) + value(right, known)
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return value(left, known) * value(right, known)
        case _:
            raise ValueError(f"no constant expression of whole numbers: {ast.unparse(node)}")


ENUMS = enums(HEADER.read_text(encoding="utf-8"))
