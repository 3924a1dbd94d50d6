"""Every experiment and benchmark can be started: its module imports, and so does all that its functions import."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = ("hwsim", "quant", "experiments", "benchmarks")
OPTIONAL = ("accelforge", "dask", "distributed", "optuna", "pymoo", "timm", "torchvision", "transformers", "zigzag")
FILES = [path for folder in ("benchmarks", "experiments") for path in sorted((ROOT / folder).rglob("*.py"))]


def imported(path: Path) -> list[tuple[str, str]]:
    """(module, name) of every import of our own packages, wherever it stands; name "" for the module itself."""
    found: list[tuple[str, str]] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [(node.module, alias.name) for alias in node.names]
    return [(module, name) for module, name in found if module.split(".")[0] in OURS]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_experiment_and_benchmark_imports(path: Path) -> None:
    modules = [(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"), ""), *imported(path)]
    for module, name in modules:
        try:
            found = importlib.import_module(module)
            if name and not hasattr(found, name):
                importlib.import_module(f"{module}.{name}")
        except ModuleNotFoundError as problem:
            if (problem.name or "").split(".")[0] not in OPTIONAL:
                raise
