"""Arithmetic that a description may contain, evaluated without executing anything.

The text is parsed to a syntax tree of which only numbers, texts, names, arithmetic, comparisons, `x if c else y` and
calls of a fixed list of functions are accepted. Sizes of results are bounded, so no expression can run away.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

Value = Any  # numbers, texts, booleans, lists of them
MAX_TEXT, MAX_DEPTH, MAX_LIST = 2000, 50, 1000
LARGEST = 1e30


class ExpressionError(ValueError):
    """What is wrong with an expression, without its place."""


def bounded_range(*arguments: int) -> list[int]:
    """`range` as a short list."""
    if len(range(*arguments)) > MAX_LIST:
        raise ExpressionError(f"a range of more than {MAX_LIST} numbers")
    return list(range(*arguments))


def power(base: float, exponent: float) -> float:
    """`base ** exponent`, refused where it would be huge."""
    if abs(exponent) > 1000 or (base and abs(exponent) * math.log10(max(abs(base), 1e-300)) > math.log10(LARGEST)):
        raise ExpressionError("a power beyond 1e30")
    return base**exponent


FUNCTIONS: dict[str, Callable[..., Value]] = {
    "ceil": math.ceil, "floor": math.floor, "log": math.log, "log2": math.log2, "log10": math.log10, "sqrt": math.sqrt,
    "exp": math.exp, "pow": power, "min": min, "max": max, "abs": abs, "round": round,
    "int": int, "float": float, "str": str, "len": len, "sum": sum, "range": bounded_range, "bool": bool,
}  # fmt: skip
CONSTANTS: dict[str, Value] = {"pi": math.pi, "e": math.e, "inf": math.inf, "True": True, "False": False, "None": None}


BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.Pow: power,
}  # fmt: skip
COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge, ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}  # fmt: skip


def evaluate(text: str, names: Mapping[str, Value]) -> Value:
    """The value of an expression. Raises ExpressionError for anything else than arithmetic, and for unknown names.

    >>> evaluate("max(1, ceil(log2(depth))) if depth >= 1 else 1", {"depth": 192})
    8
    """
    if len(text) > MAX_TEXT:
        raise ExpressionError(f"longer than {MAX_TEXT} characters")
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ExpressionError("not an expression") from None
    try:
        return bounded(value_of(tree.body, names, 0))
    except ExpressionError:
        raise
    except (ArithmeticError, ValueError, TypeError, RecursionError, MemoryError) as problem:
        raise ExpressionError(str(problem)) from None


def bounded(value: Value) -> Value:
    """The value, unless it is out of all proportion."""
    if isinstance(value, (int, float)) and value == value and abs(value) > LARGEST and not math.isinf(value):
        raise ExpressionError("a number beyond 1e30")
    if isinstance(value, (str, list)) and len(value) > MAX_TEXT:  # type: ignore[arg-type]
        raise ExpressionError("a text or list without end")
    return value


def value_of(node: ast.expr, names: Mapping[str, Value], depth: int) -> Value:
    """One node of the tree."""
    if depth > MAX_DEPTH:
        raise ExpressionError("nested too deeply")

    def part(child: ast.expr) -> Value:
        return bounded(value_of(child, names, depth + 1))

    match node:
        case ast.Constant(value=bool() | int() | float() | str() as value):
            return value
        case ast.Name(id=name):
            if name in names:
                return names[name]
            if name in CONSTANTS:
                return CONSTANTS[name]
            raise ExpressionError(f"unknown name {name!r}")
        case ast.BinOp():
            left, right = part(node.left), part(node.right)
            if type(node.op) not in BINARY:
                raise ExpressionError("an operator that is not arithmetic")
            if not numeric(left, right) and not (isinstance(node.op, ast.Add) and isinstance(left, str)):
                raise ExpressionError("arithmetic of something that is no number")
            return BINARY[type(node.op)](left, right)
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() | ast.Not()):
            operand = part(node.operand)
            if isinstance(node.op, ast.Not):
                return not operand
            return -operand if isinstance(node.op, ast.USub) else +operand
        case ast.BoolOp():
            values = [part(child) for child in node.values]
            return all(values) if isinstance(node.op, ast.And) else any(values)
        case ast.Compare():
            operands = [part(child) for child in (node.left, *node.comparators)]
            if any(type(op) not in COMPARE for op in node.ops):
                raise ExpressionError("a comparison that is not one of numbers")
            return all(COMPARE[type(op)](a, b) for op, a, b in zip(node.ops, operands, operands[1:], strict=False))
        case ast.IfExp():
            return part(node.body) if part(node.test) else part(node.orelse)
        case ast.List() | ast.Tuple():
            return [part(child) for child in node.elts]
        case ast.Call(func=ast.Name(id=name), keywords=[]):
            if name not in FUNCTIONS:
                raise ExpressionError(f"function {name!r} is not one of {', '.join(FUNCTIONS)}")
            return FUNCTIONS[name](*[part(argument) for argument in node.args])
        case ast.Subscript():
            container, index = part(node.value), part(node.slice)
            try:
                return container[index]
            except (KeyError, IndexError, TypeError):
                raise ExpressionError(f"no element {index!r}") from None
        case ast.Attribute(value=ast.Name(id=name), attr=attribute):
            found = names.get(name)
            if isinstance(found, dict) and attribute in found:
                return found[attribute]
            raise ExpressionError(f"unknown name '{name}.{attribute}'")
        case _:
            raise ExpressionError(f"{type(node).__name__} is not arithmetic")


def numeric(*values: Value) -> bool:
    """Whether all are numbers."""
    return all(isinstance(value, (int, float)) for value in values)
