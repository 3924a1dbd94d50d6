"""`python -m benchmarks.mutation hwsim/nest/count.py --tests tests/nest tests/pricing --sample 40`: do the tests bite?

One mutant at a time: a comparison, an operator, a number, a `min`, a condition or a returned value is another one. The
mutated package lies in a folder of its own in front of the real one; a mutant that no test notices survives and is
printed with its line. Score = killed / tried. Hangs count as killed. Mutants of annotations, docstrings, messages and
`__all__` are left out, for they change no result.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,), ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}  # fmt: skip
OPERATORS: dict[type[ast.operator], tuple[type[ast.operator], ...]] = {
    ast.Add: (ast.Sub,), ast.Sub: (ast.Add,), ast.Mult: (ast.FloorDiv, ast.Add), ast.Div: (ast.Mult,),
    ast.FloorDiv: (ast.Mult,), ast.Mod: (ast.Mult,), ast.BitAnd: (ast.BitOr,), ast.BitOr: (ast.BitAnd,),
    ast.LShift: (ast.RShift,), ast.RShift: (ast.LShift,),
}  # fmt: skip
CALLS = {"min": "max", "max": "min", "any": "all", "all": "any"}


@dataclass(frozen=True)
class Mutant:
    """A file's text with one change."""

    line: int
    what: str
    text: str


def mutants(text: str) -> Iterator[Mutant]:
    """Every mutant of a file, in the order of its syntax tree."""
    tree = ast.parse(text)
    passive = {id(node) for node in unheard(tree)}
    for node in ast.walk(tree):
        if id(node) not in passive:
            for what, undo in changes(node):
                yield Mutant(getattr(node, "lineno", 0), what, ast.unparse(tree))
                undo()


def unheard(tree: ast.AST) -> Iterator[ast.AST]:
    """Nodes that change no result: annotations, texts, raised messages, decorators."""
    for node in ast.walk(tree):
        parts: list[ast.AST | None] = []
        if isinstance(node, ast.FunctionDef):
            parts = [node.returns, *node.decorator_list, *(a.annotation for a in ast.walk(node.args)
                     if isinstance(a, ast.arg))]  # fmt: skip
        elif isinstance(node, ast.ClassDef):
            parts = [*node.decorator_list]  # frozen=True keeps others from writing: no result changes
        elif isinstance(node, ast.AnnAssign):
            parts = [node.annotation]
        elif isinstance(node, ast.Raise | ast.JoinedStr | ast.Import | ast.ImportFrom):
            parts = [node]
        for part in parts:
            if part is not None:
                yield from ast.walk(part)


def changes(node: ast.AST) -> Iterator[tuple[str, Callable[[], None]]]:
    """Change a node in place in every way there is, one after the other; each with what undoes it."""
    for field, old, new in options(node):
        setattr(node, field, new)
        yield f"{show(old)} -> {show(new)}", lambda field=field, old=old: setattr(node, field, old)


def options(node: ast.AST) -> Iterator[tuple[str, object, object]]:
    """(field, old value, new value) of every change of a node."""
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        for other in COMPARISONS.get(type(node.ops[0]), ()):
            yield "ops", node.ops, [other()]
    elif isinstance(node, ast.BinOp | ast.AugAssign):
        for new in OPERATORS.get(type(node.op), ()):
            yield "op", node.op, new()
    elif isinstance(node, ast.BoolOp):
        yield "op", node.op, ast.And() if isinstance(node.op, ast.Or) else ast.Or()
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield "op", node.op, ast.UAdd()
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield "value", node.value, not node.value
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield "value", node.value, node.value + 1
    elif isinstance(node, ast.Name) and node.id in CALLS:
        yield "id", node.id, CALLS[node.id]
    elif isinstance(node, ast.If | ast.IfExp):
        yield "test", node.test, ast.UnaryOp(ast.Not(), node.test)
    elif isinstance(node, ast.Return) and node.value is not None and not isinstance(node.value, ast.Constant):
        yield "value", node.value, ast.Constant(None)


def show(value: object) -> str:
    """A part of the syntax in a few words."""
    item = value[0] if isinstance(value, list) and value else value
    return type(item).__name__ if isinstance(item, ast.AST) else repr(item)


def copied(mutant: Mutant, file: Path, place: Path) -> None:
    """The project in another folder with this mutant in it: its package a copy, the rest links."""
    for name in os.listdir(ROOT):
        if name not in (file.parts[0], ".git"):
            (place / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / file.parts[0], place / file.parts[0], ignore=shutil.ignore_patterns("__pycache__"))
    (place / file).write_text(mutant.text)


def survives(mutant: Mutant, file: Path, tests: Sequence[str], seconds: float) -> bool:
    """Whether the tests pass on a copy of the project with this mutant in it."""
    with tempfile.TemporaryDirectory() as place:
        copied(mutant, file, Path(place))
        return passes(Path(place), tests, seconds)


def passes(place: Path, tests: Sequence[str], seconds: float) -> bool:
    """Whether the tests pass there within a time."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:randomly", *tests]
    environment = {**os.environ, "HWSIM_CACHE": "", "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(command, cwd=place, env=environment, capture_output=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Score and survivors; 1 where the score is below --least."""
    parse = argparse.ArgumentParser(prog="python -m benchmarks.mutation", description=__doc__)
    parse.add_argument("file", type=Path, help="relative to the project")
    parse.add_argument("--tests", nargs="+", required=True, help="what must notice")
    parse.add_argument("--sample", type=int, default=40, help="mutants drawn (0: all)")
    parse.add_argument("--seed", type=int, default=0)
    parse.add_argument("--least", type=float, default=0.0, help="the score to reach")
    options = parse.parse_args(arguments)
    found = list(mutants((ROOT / options.file).read_text()))
    began = time.monotonic()
    if not survives(Mutant(0, "nothing", (ROOT / options.file).read_text()), options.file, options.tests, 3600):
        raise SystemExit("the tests fail without a mutant")  # in the copy, too: or every mutant would seem killed
    limit = 60 + 4 * (time.monotonic() - began)
    drawn = found if not options.sample else random.Random(options.seed).sample(found, min(options.sample, len(found)))
    alive = 0
    for mutant in drawn:
        if survives(mutant, options.file, options.tests, limit):
            alive += 1
            print(f"survived: {options.file}:{mutant.line}: {mutant.what}", flush=True)
    score = 1 - alive / max(1, len(drawn))
    print(f"{options.file}: {len(drawn)} of {len(found)} mutants tried, {alive} survived, score {score:.2f}")
    return int(score < options.least)


if __name__ == "__main__":
    sys.exit(main())
