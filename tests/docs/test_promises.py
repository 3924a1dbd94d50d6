"""SECURITY.md: every promise names the tests that show it, and they exist. What holds of all code is read here."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "SECURITY.md"
CODE = sorted([*(ROOT / "hwsim").rglob("*.py"), *(ROOT / "quant").rglob("*.py")])
# Modules that open connections, and the only files of ours that may import one.
CONNECTING = {"urllib.request", "http", "requests", "socket", "ftplib", "smtplib", "httpx", "aiohttp", "distributed"}
MAY_CONNECT = {"hwsim/explore/machines/workers.py"}
RUNNING_TEXT = {"eval", "exec", "__import__"}
UNSAFE = {
    "pickle.load",
    "pickle.loads",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
    "os.system",
    "marshal.loads",
}


def promises() -> list[tuple[str, list[str]]]:
    """(what is promised, its tests) of every row whose table has a column of tests."""
    found, has_tests = [], False
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if cells and cells[-1] == "shown by":
            has_tests = True
        elif not cells:
            has_tests = False
        elif has_tests and not cells[0].startswith("---"):
            found.append((cells[0], re.findall(r"`(test_\w+)`", cells[-1])))
    return found


def names_of_tests() -> set[str]:
    """Names of all test functions."""
    return {
        name
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }


def test_every_promise_names_tests_and_they_exist() -> None:
    there, found = names_of_tests(), promises()
    assert len(found) > 15
    assert not [what for what, names in found if not names]
    assert not [(what, name) for what, names in found for name in names if name not in there]


def imported(tree: ast.AST) -> Iterator[str]:
    """Every module that is imported anywhere in a file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield from (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))


def called(tree: ast.AST) -> Iterator[ast.Call]:
    """Every call of a file."""
    yield from (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def offences(path: Path) -> Iterator[str]:
    """What a file does that the promises exclude."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    parts = {".".join(name.split(".")[:size]) for name in imported(tree) for size in (1, 2)}
    if str(path.relative_to(ROOT)) not in MAY_CONNECT:
        yield from (f"imports {name}" for name in parts & CONNECTING)
    for call in called(tree):
        name = ast.unparse(call.func)
        if name in RUNNING_TEXT | UNSAFE:
            yield f"calls {name}"
        if any(word.arg == "shell" for word in call.keywords):
            yield "hands a text to a shell"
        if name == "torch.load" and "weights_only=True" not in ast.unparse(call):
            yield "loads any pickle"


@pytest.mark.long
def test_no_code_runs_a_text_or_opens_a_connection() -> None:
    assert len(CODE) > 300
    assert not [f"{path.relative_to(ROOT)} {what}" for path in CODE for what in offences(path)]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("import socket", "imports socket"), ("def f():\n    from urllib import request", "imports urllib.request"),
        ("eval(x)", "calls eval"), ("pickle.loads(x)", "calls pickle.loads"), ("torch.load(x)", "loads any pickle"),
        ("subprocess.run(x, shell=True)", "hands a text to a shell"),
    ],
)  # fmt: skip
def test_each_offence_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, what: str) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "a.py").write_text(text)
    assert list(offences(tmp_path / "a.py")) == [what]
