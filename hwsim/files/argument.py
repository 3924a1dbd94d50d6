"""The path that an option of a command names."""

from __future__ import annotations

import argparse
from pathlib import Path


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
