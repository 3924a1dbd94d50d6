"""The house in numbers: rooms, floors, longest import chain, files over 500 lines, product lines, modules entered.

    python -m benchmarks.house [CHECKOUT ...]

A room is a file or folder at the top of hwsim/. Imports count where they run on loading: not in functions, not for type
checkers only. Modules entered are those of hwsim of which a function ran while one convolution was evaluated, from its
saved workload to the printed report; what runs while a module is loaded does not count. Each checkout (this one by
default) is run in a process of its own.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import networkx as nx

LONG = 500
PRODUCT = ("hwsim", "quant")
SUFFIXES = (".py", ".c", ".inc", ".h")
LAYER = {
    "name": "conv",
    "op": "conv",
    "inputs": [{"name": "x", "shape": [1, 8, 8, 8], "bits": 8}],
    "output": {"name": "y", "shape": [1, 16, 6, 6], "bits": 8},
    "weight": {"name": "w", "shape": [16, 8, 3, 3], "bits": 8},
    "loops": {"K": 16, "C": 8, "P": 6, "Q": 6, "R": 3, "S": 3},
}
COVERAGE = {"ops_total": 1, "ops_costed": 1}
WORKLOAD = {"format": "hwsim-workload", "format_version": 1, "name": "one", "layers": [LAYER], "coverage": COVERAGE}
# Run inside a checkout: the modules of hwsim whose functions are called between the command's start and its end.
WALK = """
import sys
from hwsim.evaluate import main
entered = set()
def loads(frame):
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__", "").startswith("hwsim"):
            return True
        frame = frame.f_back
    return False
def look(frame, event, argument):
    name = frame.f_globals.get("__name__", "")
    new = event == "call" and name.startswith("hwsim") and name not in entered
    if new and frame.f_code.co_name != "__getattr__" and not loads(frame):
        entered.add(name)
sys.setprofile(look)
code = main(sys.argv[1:])
sys.setprofile(None)
assert code in (0, None), code
print(*sorted(entered), sep="\\n", file=sys.stderr)
"""


def files(root: Path, suffixes: Sequence[str] = SUFFIXES) -> list[Path]:
    """Source files of the product."""
    return sorted(p for package in PRODUCT for p in (root / package).rglob("*") if p.suffix in suffixes)


def module_of(root: Path, path: Path) -> str:
    """Dotted name of a file."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def statements(body: Sequence[ast.stmt]) -> Iterator[ast.Import | ast.ImportFrom]:
    """Imports that run when a module is loaded."""
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.Try):
            yield from statements(node.body)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.unparse(node.test):
            yield from statements([*node.body, *node.orelse])


def imports(path: Path, known: frozenset[str]) -> set[str]:
    """Modules of the product that a file imports when it is loaded."""
    found: set[str] = set()
    for node in statements(ast.parse(path.read_text(encoding="utf-8")).body):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif node.module and node.level == 0:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {node.module} if not all(f"{node.module}.{a.name}" in known for a in node.names) else set()
    return found & known


def graph(root: Path) -> nx.DiGraph:
    """Modules of hwsim and quant, and who imports whom."""
    paths = {module_of(root, path): path for path in files(root, (".py",))}
    known = frozenset(paths)
    found = nx.DiGraph()
    found.add_nodes_from(known)
    found.add_edges_from((name, other) for name, path in paths.items() for other in imports(path, known) - {name})
    return found


def longest(found: nx.DiGraph) -> int:
    """Nodes on the longest chain; nodes that import each other count once."""
    return len(nx.dag_longest_path(nx.condensation(found)))


def rooms(root: Path) -> list[str]:
    """Files and folders at hwsim's top that hold code."""
    top = (root / "hwsim").iterdir()
    return sorted(p.stem for p in top if (p.suffix == ".py" and p.stem != "__init__") or (p / "__init__.py").exists())


def floors(root: Path) -> int:
    """Rooms on the longest chain of rooms."""
    names, found = set(rooms(root)), nx.DiGraph()
    for one, other in graph(root).edges:
        pair = [name.split(".")[1] if name.count(".") else "" for name in (one, other)]
        if pair[0] != pair[1] and set(pair) <= names and one.startswith("hwsim.") and other.startswith("hwsim."):
            found.add_edge(*pair)
    return longest(found)


def entered(root: Path) -> list[str]:
    """Modules that one evaluation of one layer enters. Raises CalledProcessError with what the command said."""
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "one.json"
        saved.write_text(json.dumps(WORKLOAD), encoding="utf-8")
        spec = root / "accel_specs/eyeriss_v1.yaml"
        environment = {**os.environ, "HWSIM_CACHE": "", "PYTHONPATH": str(root)}
        done = subprocess.run(
            [sys.executable, "-c", WALK, str(saved), str(spec)],
            cwd=folder, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{root}: {done.stderr}")
    return [line for line in done.stderr.splitlines() if line.startswith("hwsim")]


def numbers(root: Path) -> dict[str, int]:
    """What is said of a checkout."""
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in files(root)}
    return {
        "rooms at hwsim's top": len(rooms(root)),
        "floors of rooms": floors(root),
        "modules on the longest import chain": longest(graph(root)),
        f"files over {LONG} lines": sum(n > LONG for n in lines.values()),
        "files": len(lines),
        "lines of product code": sum(lines.values()),
        "modules entered by one evaluate of one layer": len(entered(root)),
    }


def main() -> None:
    """Print one row per number, one column per checkout."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", nargs="*", type=Path, default=[Path(__file__).resolve().parent.parent])
    found = [numbers(path.resolve()) for path in parser.parse_args().checkouts]
    for name in found[0]:
        print(f"{name:46}", *(f"{column[name]:>8,}" for column in found))


if __name__ == "__main__":
    main()
