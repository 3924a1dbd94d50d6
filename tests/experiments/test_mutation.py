"""The mutants of benchmarks.mutation: each changes one result, none a type or a message."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from typing import Any

import pytest

from benchmarks.mutation import mutants
from benchmarks.mutation_in_place import BUDGET_SECONDS, Heard, affordable, change_in_place, function_around

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


LIVE = '''"""A module."""
LIMIT = 3


def kept(a):
    # a comment that the mutant's text lacks
    return [x + 1 for x in a]


class Box:
    size = 2

    def larger(self):
        return self.size + 1
'''


def live(folder: Path) -> Any:
    path = folder / "live_module.py"
    path.write_text(LIVE)
    spec = importlib.util.spec_from_file_location("live_module", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.long
def test_functions_change_in_place_and_everything_else_is_refused(tmp_path: Path) -> None:
    refused, results = set(), {}
    for mutant in mutants(LIVE):
        module = live(tmp_path)
        try:
            change_in_place(tmp_path / "live_module.py", mutant.text)
        except ValueError:
            refused.add((mutant.line, mutant.what))
            continue
        results[mutant.line, mutant.what] = module.kept([1]), module.Box().larger()
    assert refused == {(2, "3 -> 4"), (11, "2 -> 3")}
    assert results == {
        (7, "ListComp -> Constant"): (None, 3), (7, "Add -> Sub"): ([0], 3), (7, "1 -> 2"): ([3], 3),
        (14, "BinOp -> Constant"): ([2], None), (14, "Add -> Sub"): ([2], 1), (14, "1 -> 2"): ([2], 4),
    }  # fmt: skip


def test_a_mutant_meets_the_tests_that_run_its_line_within_a_budget(tmp_path: Path) -> None:
    path = tmp_path / "live_module.py"
    path.write_text(LIVE)
    assert function_around(path, 7) == range(5, 8)
    assert not function_around(path, 2)  # a constant: every test may notice it
    heard = {name: Heard(BUDGET_SECONDS / 2, {}) for name in ("a", "b", "c", "d")}
    assert list(affordable(heard, heard)) == ["a", "b", "c"]
