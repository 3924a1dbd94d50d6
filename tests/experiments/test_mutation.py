"""The mutants of benchmarks.mutation: each changes one result, none a type or a message."""

from __future__ import annotations

import ast

from benchmarks.mutation import mutants

TEXT = """
def f(a: int, b: int = 2) -> int:
    '''Text.'''
    if a < b:
        raise ValueError(f"{a + 1}")
    return min(a, b) + 1
"""


def test_every_mutant_is_another_program_and_keeps_types_and_messages() -> None:
    found = list(mutants(TEXT))
    assert len({m.text for m in found} | {ast.unparse(ast.parse(TEXT))}) == len(found) + 1
    assert {(m.line, m.what) for m in found} == {
        (2, "2 -> 3"), (4, "Compare -> UnaryOp"), (4, "Lt -> LtE"), (4, "Lt -> GtE"), (6, "BinOp -> Constant"),
        (6, "Add -> Sub"), (6, "'min' -> 'max'"), (6, "1 -> 2"),
    }  # fmt: skip
    assert all("raise ValueError(f'{a + 1}')" in m.text and "-> int" in m.text for m in found)
