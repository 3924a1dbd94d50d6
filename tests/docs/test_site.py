"""The documentation: the site builds without a warning; the blocks of a tutorial print what its page shows."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from experiments import notebooks, tutorials

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.usefixtures("shared_searches")
LONG = {"train_verify_price", "language_model"}  # a training; many searches of large layers


def timed(page: Path) -> Any:
    """A parameter: the page or notebook, with the long ones marked."""
    return pytest.param(page, marks=pytest.mark.slow if page.stem in LONG else (), id=page.stem)


@pytest.mark.long
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="the site needs hwsim[docs]")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr.strip()
    for page in (
        "index.html",
        "notebooks/pareto.html",
        "reference/python.html",
        "reference/spec_keys.html",
    ):
        assert (tmp_path / "site" / page).stat().st_size > 5000
    python = (tmp_path / "site/reference/python.html").read_text(encoding="utf-8")
    assert "Energy, latency and memory of a network on an accelerator" in python


@pytest.mark.long
@pytest.mark.parametrize("page", [timed(page) for page in tutorials.pages()])
def test_the_blocks_of_a_tutorial_print_what_its_page_shows(page: Path, tmp_path: Path) -> None:
    (tmp_path / "page").mkdir()
    text = page.read_text(encoding="utf-8")
    assert tutorials.run_page(text, tmp_path / "page") == text


def test_a_block_that_fails_is_named_by_its_line(tmp_path: Path) -> None:
    with pytest.raises(tutorials.PageError, match="block in line 2: ZeroDivisionError"):
        tutorials.run_page("Words\n```python\n1 / 0\n```\n", tmp_path)
    with pytest.raises(tutorials.PageError, match="exit code 3"):
        tutorials.run_page("```sh\nexit 3\n```\n", tmp_path)


def test_what_a_block_prints_is_put_behind_it(tmp_path: Path) -> None:
    page = '```yaml title="a.txt"\nx\n```\n\n```sh\ncat a.txt\n```\n```text\nold\n```\n\n```python\nprint(2)\n```\n'
    assert tutorials.run_page(page, tmp_path) == page.replace("old\n", "x\n")


@pytest.mark.parametrize("path", [timed(path) for path in notebooks.notebooks()])
def test_a_notebook_runs_and_shows_tables_or_figures(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = [value for value in notebooks.run_cells(notebooks.code_cells(path)) if value is not None]
    assert shown
    for value in shown:
        assert hasattr(value, "savefig") or value._repr_html_().count("<table") >= 1


def test_a_notebook_is_committed_with_its_outputs() -> None:
    for path in notebooks.notebooks():
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        assert all(cell["outputs"] for cell in cells if cell["cell_type"] == "code" and ends_in_value(cell)), path.name


def ends_in_value(cell: dict[str, Any]) -> bool:
    return isinstance(ast.parse("".join(cell["source"])).body[-1], ast.Expr)
