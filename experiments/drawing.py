"""Figures as files: PNG, SVG and PDF of one matplotlib figure, the same bytes for the same rows."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from hwsim.report.style import figure_bytes
from quant.data import write_atomically

FORMATS = ("png", "svg", "pdf")


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write the figure as FOLDER/NAME.png, .svg and .pdf (no dates, fixed ids)."""
    return [write_bytes(folder / f"{name}.{kind}", figure_bytes(figure, kind)) for kind in FORMATS]


def write_bytes(path: Path, content: bytes) -> Path:
    """Replace the file atomically; its path."""
    write_atomically(path, lambda file: file.write(content))
    return path
