"""The import rules of CONTRIBUTING.md, in executable form: who may import whom, and a core without torch."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# The floors of hwsim, lowest first; a file imports from lower floors, and from its own room. Rooms of one floor know
# nothing of each other where they stand in one tuple, except in the order written.
FLOORS = (
    ("ctrl_c", "console", "errors", "files"),
    ("network",),
    ("machine", "frontends"),
    ("nest",),
    ("pricing",),
    ("search", "integer", "peers"),
    ("tables", "report", "command_line"),
    ("evaluate", "table", "explore", "verify", "export_c", "export_onnx", "accelerator", "convert", "compare"),
    ("api", "__main__"),
)
ORDER = tuple(room for floor in FLOORS for room in floor)
# Rooms that may import torch and quant.
TORCH_EDGE = {"frontends", "integer", "verify", "export_c", "export_onnx"}
# Single files of otherwise torch-free rooms; api.py for its annotations, and inside two functions.
TORCH_FILES = {"explore/bits/learned.py", "api.py"}
COMMANDS = FLOORS[-2]


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


@pytest.mark.long
@pytest.mark.parametrize(("room", "path"), modules("hwsim"), ids=lambda v: str(v))
def test_only_the_edge_touches_torch(room: str, path: Path) -> None:
    heavy = {name for name in imported(path) if name.split(".")[0] in ("torch", "quant")}
    edge = room in TORCH_EDGE or path.relative_to(ROOT / "hwsim").as_posix() in TORCH_FILES
    assert not heavy or edge, f"{path} imports {sorted(heavy)}"
    assert not {name for name in imported(path) if name.split(".")[0] in ("experiments", "benchmarks", "tests")}


@pytest.mark.long
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


@pytest.mark.long
def test_core_imports_without_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None; "
        "import hwsim, hwsim.network.workload, hwsim.machine.load, hwsim.search.network, hwsim.report.report; "
        "import hwsim.evaluate, hwsim.api, hwsim.__main__; "
        "assert 'pandas' not in sys.modules and 'matplotlib' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize(("room", "path"), modules("hwsim"), ids=lambda v: str(v))
def test_commands_import_no_commands(room: str, path: Path) -> None:
    if room in COMMANDS:
        others = {name.split(".")[1] for name in imported(path) if name.startswith("hwsim.")} - {room}
        assert not others & set(COMMANDS), f"{path.name} imports the command {sorted(others & set(COMMANDS))}"


def test_no_object_is_changed_behind_its_back() -> None:
    """A value that a class computes is given by a method of it, not written into what it remembers."""
    pokes = [path for _, path in modules("hwsim") if "__dict__[" in path.read_text(encoding="utf-8")]
    assert not pokes


def test_the_command_lines_of_quant_are_those_of_hwsim() -> None:
    """quant knows no hwsim, and hwsim's commands answer without torch: each has the class, and both are one text."""
    ours, theirs = (
        ast.unparse(next(node for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body
                         if isinstance(node, ast.ClassDef) and node.name == "CommandLine"))
        for path in ("hwsim/files/argument.py", "quant/argument.py")
    )  # fmt: skip
    assert ours == theirs


# quant has one of its own (it knows no hwsim); these two benchmarks run beside other versions of hwsim.
OWN_CSV = {"hwsim/files/csv_text.py", "benchmarks/mutation_table.py", "benchmarks/network_speed.py"}


def texts_of(*packages: str) -> dict[str, str]:
    return {
        path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
        for package in packages
        for _, path in modules(package)
    }


def test_csv_text_has_one_writer() -> None:
    texts = texts_of("hwsim", "experiments", "benchmarks")
    assert {path for path, text in texts.items() if "csv.writer(" in text or "csv.DictWriter(" in text} == OWN_CSV


def test_what_was_written_is_said_by_one_function() -> None:
    texts = texts_of("hwsim", "experiments", "benchmarks")
    assert {path for path, text in texts.items() if "wrote {" in text} == {"hwsim/console.py"}


def test_percentages_of_reports_are_written_by_one_function() -> None:
    """Lower floors, which know no report, write their own."""
    above = ORDER.index("report")
    shares = re.compile(r"\{100 \*[^%\"]*f\} %")
    found = {path.name for room, path in modules("hwsim") if room in ORDER and ORDER.index(room) >= above
             and shares.search(path.read_text(encoding="utf-8"))}  # fmt: skip
    assert found == {"quantities.py"}
