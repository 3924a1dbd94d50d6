"""Command lines: the option nearest to one that is not known, and the paths that options name."""

from __future__ import annotations

import argparse
import difflib
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


def parse_path(text: str) -> Path:
    """The path of an option's text. An empty text, as an unset shell variable leaves it, is no path.

    Raises ArgumentTypeError: `Path("")` is the current folder, which nobody asked to be filled.
    """
    return Path(parse_name(text))


def parse_name(text: str) -> str:
    """The text of an option that is a path or a word in its place (`own`, `random:100`), refused where it is empty."""
    if not text.strip():
        raise argparse.ArgumentTypeError(f"expected a path, got {text!r}: is a shell variable unset?")
    return text
