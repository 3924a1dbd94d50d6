"""The import rules of CONTRIBUTING.md, in executable form: who may import whom, and a core without torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Inside hwsim a file may import only from rooms before its own in this order.
ORDER = (
    "errors", "workload", "measured", "machine", "packing", "spec", "bits", "accelerator", "mapping", "reuse",
    "counts", "count_batch", "pricing", "mapper", "search", "plan", "reprice", "pareto", "report", "explain",
    "extraction", "importers", "extract", "models_in", "integer", "evaluate", "table", "explore", "learned_bits",
    "verify", "export_c", "export_onnx",
)  # fmt: skip
TORCH_EDGE = {"extract", "extraction", "integer", "models_in", "learned_bits", "verify", "export_c", "export_onnx"}


def modules(package: str) -> list[tuple[str, Path]]:
    """(room, file) of every module of a package; a sub-package is one room."""
    found = []
    for path in sorted((ROOT / package).rglob("*.py")):
        relative = path.relative_to(ROOT / package)
        found.append((relative.parts[0].removesuffix(".py"), path))
    return found


def imported(path: Path) -> set[str]:
    """Dotted names a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


@pytest.mark.parametrize("path", [p for _, p in modules("quant")], ids=str)
def test_quant_knows_no_hardware(path: Path) -> None:
    assert not {name for name in imported(path) if name.split(".")[0] in ("hwsim", "experiments", "benchmarks")}


@pytest.mark.parametrize(("room", "path"), modules("hwsim"), ids=lambda v: str(v))
def test_only_the_edge_touches_torch(room: str, path: Path) -> None:
    heavy = {name for name in imported(path) if name.split(".")[0] in ("torch", "quant")}
    assert not heavy or room in TORCH_EDGE, f"{path} imports {sorted(heavy)}"
    assert not {name for name in imported(path) if name.split(".")[0] in ("experiments", "benchmarks", "tests")}


@pytest.mark.parametrize(("room", "path"), modules("hwsim"), ids=lambda v: str(v))
def test_rooms_import_only_those_before_them(room: str, path: Path) -> None:
    if room == "__init__":
        return
    assert room in ORDER, f"{room} has no place in ORDER: decide where it stands"
    rank = ORDER.index(room)
    for name in imported(path):
        parts = name.split(".")
        if parts[0] == "hwsim" and len(parts) > 1 and parts[1] in ORDER and parts[1] != room:
            assert ORDER.index(parts[1]) < rank, f"{path.name} ({room}) imports {name}, a later room"


def test_core_imports_without_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None; "
        "import hwsim, hwsim.workload, hwsim.accelerator, hwsim.search, hwsim.report, hwsim.evaluate; "
        "assert 'pandas' not in sys.modules and 'matplotlib' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
