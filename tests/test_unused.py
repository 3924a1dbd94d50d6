"""No function or class is there for tests alone: each is named by another line of the product or its documentation."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PRODUCT = [path for folder in ("hwsim", "quant") for path in sorted((ROOT / folder).rglob("*.py"))]
USERS = [path for folder in ("experiments", "benchmarks") for path in sorted((ROOT / folder).rglob("*.py"))]
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "pyproject.toml"]
# Called by others under these names: torch, IPython, jinja2; runtimes of ONNX files are found by name.
HOOKS = {"extra_repr", "_repr_html_", "is_safe_attribute", "_onnxruntime", "_reference", "_qonnx"}
WORD = re.compile(r"[A-Za-z_]\w*")


@pytest.mark.long
def test_every_function_is_used_outside_the_tests() -> None:
    named = Counter(word for path in (*PRODUCT, *USERS, *PAGES) for word in WORD.findall(path.read_text("utf-8")))
    unused = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {node.name}"
        for path in PRODUCT
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and named[node.name] == 1
        and not node.name.startswith("__")
        and node.name not in HOOKS
    ]
    assert not unused, "delete these, or use them in the product:\n" + "\n".join(unused)
