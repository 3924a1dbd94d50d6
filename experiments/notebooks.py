"""`python -m experiments.notebooks [NOTEBOOK...]`: runs docs/notebooks and keeps what the cells show in the files.

Needs `pip install 'hwsim[notebooks]'`. The tests run the same cells without a notebook server (`run_cells`).
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hwsim.console import wrote
from quant.data import write_atomically

ROOT = Path(__file__).resolve().parents[1]


def notebooks() -> list[Path]:
    """All notebooks of the documentation."""
    return sorted((ROOT / "docs/notebooks").glob("*.ipynb"))


def code_cells(path: Path) -> list[str]:
    """The notebook's statements, cell by cell."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def run_cells(cells: Sequence[str]) -> list[Any]:
    """The value that each cell ends with (None: it ends with a statement), names shared as in a notebook."""
    scope: dict[str, Any] = {"__name__": "notebook"}
    return [run_cell(cell, scope) for cell in cells]


def run_cell(cell: str, scope: dict[str, Any]) -> Any:
    """Run a cell; the value of its last expression."""
    tree = ast.parse(cell)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "<cell>", "exec"), scope)
    if last is None:
        return None
    return eval(compile(ast.Expression(last.value), "<cell>", "eval"), scope)  # type: ignore[attr-defined]


def write_outputs(path: Path) -> None:
    """Execute a notebook in a kernel of its own and write it with what its cells show; execution times are dropped."""
    import nbformat
    from nbclient import NotebookClient

    book = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(book, timeout=600, resources={"metadata": {"path": folder}}, record_timing=False).execute()
    for cell in book.cells:
        cell.metadata.pop("execution", None)
    write_atomically(path, lambda file: file.write(nbformat.writes(book).encode() + b"\n"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0; a cell that fails raises nbclient's error with the cell."""
    parser = argparse.ArgumentParser(prog="python -m experiments.notebooks", description=__doc__)
    parser.add_argument("notebook", nargs="*", type=Path, help="files (default: all)")
    options = parser.parse_args(arguments)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    for path in options.notebook or notebooks():
        write_outputs(path)
        wrote(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
