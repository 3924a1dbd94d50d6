"""`python -m experiments.tutorials [PAGE...]`: runs the blocks of the pages below, and writes their output.

Blocks of a page run one after another in one scratch folder. A block with a title is a file; others are run: `sh` by
bash, where `hwsim` is the command of this checkout, `python` in one namespace. A `text` block right behind one is
what it printed, and is replaced. `--check` writes nothing and fails where a page says something else.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwsim.console import wrote
from hwsim.report.screen import WIDTH

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
BLOCK = re.compile(
    r'^```(?P<kind>sh|python|yaml|toml)(?: title="(?P<title>[^"]+)")?\n(?P<code>.*?)^```\n'
    r"(?P<shown>```text\n(?P<text>.*?)^```\n)?",
    re.S | re.M,
)


class PageError(RuntimeError):
    """A block that did not run."""


@dataclass(frozen=True)
class Block:
    """One fenced block of a page, and the text shown behind it (None: none is)."""

    kind: str
    title: str | None
    code: str
    shown: str | None
    line: int


def pages() -> list[Path]:
    """All pages whose blocks are run."""
    return [
        *(DOCS / name for name in ("index.md", "worked_example.md", "plugins.md")),
        *sorted((DOCS / "tutorial").glob("*.md")),
    ]


def blocks(text: str) -> Iterator[Block]:
    """The page's blocks in order."""
    for match in BLOCK.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        yield Block(match["kind"], match["title"], match["code"], match["text"], line)


def run_shell(code: str, folder: Path) -> str:
    """What the commands print. Raises PageError where one fails."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": str(WIDTH)}
    # -P: like the installed command, it does not look for modules in the current folder by itself.
    here = f'python() {{ "{sys.executable}" "$@"; }}; hwsim() {{ python -P -m hwsim "$@"; }}'
    command = f"{here}\n{code}"
    done = subprocess.run(
        ["bash", "-euc", command], cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if done.returncode:
        raise PageError(f"exit code {done.returncode}: {(done.stderr or done.stdout).strip()[-2000:]}")
    return done.stdout


def run_python(code: str, namespace: dict[str, Any]) -> str:
    """What the statements print; they share the page's names."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "<page>", "exec"), namespace)
    return printed.getvalue()


def run_page(text: str, folder: Path) -> str:
    """The page with the output of every block behind it. Raises PageError with the block's line."""
    namespace: dict[str, Any] = {"__name__": "page"}
    outputs: list[str | None] = []
    before = Path.cwd()
    os.chdir(folder)
    try:
        for block in blocks(text):
            outputs.append(run_block(block, folder, namespace))
    finally:
        os.chdir(before)
    remaining = iter(outputs)

    def with_output(match: re.Match[str]) -> str:
        output = next(remaining)
        if match["shown"] is None:
            return match[0]
        return match[0].removesuffix(match["shown"]) + f"```text\n{output or ''}```\n"

    return BLOCK.sub(with_output, text)


def run_block(block: Block, folder: Path, namespace: dict[str, Any]) -> str | None:
    """What one block prints; None for a file."""
    if block.title is not None:
        (folder / block.title).write_text(block.code, encoding="utf-8")
        return None
    if block.kind in ("yaml", "toml"):
        return None
    try:
        return run_shell(block.code, folder) if block.kind == "sh" else run_python(block.code, namespace)
    except Exception as problem:  # a page's code may fail in any way; the reader needs the line
        raise PageError(f"block in line {block.line}: {type(problem).__name__}: {problem}") from problem


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 all pages run, 1 one differs (--check) or fails."""
    parser = argparse.ArgumentParser(prog="python -m experiments.tutorials", description=__doc__)
    parser.add_argument("page", nargs="*", type=Path, help="pages (default: all)")
    parser.add_argument("--check", action="store_true", help="write nothing; fail where the output differs")
    options = parser.parse_args(arguments)
    wrong = 0
    for page in options.page or pages():
        text = page.read_text(encoding="utf-8")
        with tempfile.TemporaryDirectory() as folder:
            try:
                new = run_page(text, Path(folder))
            except PageError as problem:
                print(f"{page}: {problem}", file=sys.stderr)
                wrong += 1
                continue
        if new != text and options.check:
            print(f"{page}: its blocks print something else; run python -m experiments.tutorials", file=sys.stderr)
            wrong += 1
        elif new != text:
            page.write_text(new, encoding="utf-8")
            wrote(page)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
