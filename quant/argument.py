"""Options that name files and folders, and what a command says where the system refuses one."""

from __future__ import annotations

import argparse
import difflib
import errno
import re
from pathlib import Path
from typing import NoReturn


class CommandLine(argparse.ArgumentParser):
    """A command line that says which option is nearest to one that it does not know. (quant has the same: it knows no
    hwsim.)"""

    def error(self, message: str) -> NoReturn:
        """Exit code 2."""
        unknown = re.findall(r" (--[^ =]+)", message) if message.startswith("unrecognized arguments:") else []
        known = [name for parser in self.parsers() for name in parser._option_string_actions]
        near = [match for name in unknown for match in difflib.get_close_matches(name, known, 1)]
        super().error(f"{message}; did you mean {' '.join(near)}?" if near else message)

    def parsers(self) -> list[argparse.ArgumentParser]:
        """This one and those of its commands."""
        below: list[dict[str, argparse.ArgumentParser]] = [
            action.choices for action in self._actions if isinstance(action.choices, dict)
        ]
        return [self, *(parser for commands in below for parser in commands.values())]


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
