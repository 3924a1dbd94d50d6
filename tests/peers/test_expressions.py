"""Expressions of descriptions: arithmetic as Python has it, and nothing else."""

from __future__ import annotations

import math

import pytest

from hwsim.peers.expressions import ExpressionError, evaluate

NAMES = {"depth": 192, "width": 16, "buffer": {"attributes": {"datawidth": 8}}}


@pytest.mark.parametrize(("text", "value"), [
    ("depth * width", 3072), ("width / 2", 8.0), ("-depth + 1", -191), ("depth // 5 % 7", 3), ("2 ** 10", 1024),
    ("ceil(log2(depth))", 8), ("max(1, ceil(log2(depth))) if depth >= 1 else 1", 8), ("min([depth, 3])", 3),
    ('buffer.attributes["datawidth"] * 2', 16), ("1 < 2 <= 2 and not 0", True), ("pi", math.pi), ("1e-9", 1e-9),
    ("'a' + 'b'", "ab"), ("sum(range(4))", 6),
])  # fmt: skip
def test_arithmetic(text: str, value: object) -> None:
    assert evaluate(text, NAMES) == value


@pytest.mark.parametrize("text", [
    "open('x')", "__import__('os')", "().__class__", "depth.real", "lambda: 1", "[x for x in [1]]", "(x := 1)",
    "f'{depth}'", "'a' * 9999", "'%9999d' % 1", "9 ** 9 ** 9", "1 << 99", "range(10**9)", "nothing", "1 +", "",
    "depth if", "print(1)", "eval('1')", "getattr(depth, 'real')", "{}.get", "10 ** 1000", "1 / 0", "sqrt(-1)",
    "(" * 60 + "1" + ")" * 60 + " +" * 2, "-" * 500 + "1", "buffer.nothing", "buffer[1]",
])  # fmt: skip
def test_everything_else_is_refused(text: str) -> None:
    with pytest.raises(ExpressionError):
        evaluate(text, NAMES)
