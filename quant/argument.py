"""Options that name files and folders, and what a command says where the system refuses one."""

from __future__ import annotations

import argparse
import errno
from pathlib import Path


def named(text: str) -> str:
    """The text of an option that names a file, a folder or a network. Empty, as an unset shell variable leaves it, it
    would mean the current folder or the default: it is refused with ArgumentTypeError.
    """
    if not text.strip():
        raise argparse.ArgumentTypeError(f"expected a path or a name, got {text!r}: is a shell variable unset?")
    return text


def named_path(text: str) -> Path:
    """`named` as a path."""
    return Path(named(text))


def check_folder(path: str | Path) -> None:
    """What a long job writes at its end must have a place from the beginning. Raises NotADirectoryError."""
    folder = Path(path)
    there = next(place for place in (folder, *folder.parents, Path()) if place.exists())
    if not there.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "expected a folder, found a file", str(there))


def check_file(path: Path) -> None:
    """As `check_folder`, of a file. Raises IsADirectoryError."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "expected a file, found a folder", str(path))
    check_folder(path.parent)


def said(problem: Exception) -> str:
    """The problem in words, without the system's number for it."""
    if isinstance(problem, OSError) and problem.filename is not None:
        return f"{problem.filename}: {problem.strerror}"
    return str(problem)
