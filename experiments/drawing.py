"""Figures as files: PNG, SVG and PDF of one matplotlib figure, the same bytes for the same rows."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from quant.data import write_atomically

FORMATS = ("png", "svg", "pdf")


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write the figure as FOLDER/NAME.png, .svg and .pdf (no dates, fixed ids)."""
    written: list[Path] = []
    for kind in FORMATS:
        target = io.BytesIO()
        metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}[kind]
        with matplotlib.rc_context({"svg.hashsalt": "hwsim", "svg.fonttype": "none"}):
            figure.savefig(target, format=kind, dpi=110, metadata=metadata)
        written.append(write_bytes(folder / f"{name}.{kind}", target.getvalue()))
    return written


def write_bytes(path: Path, content: bytes) -> Path:
    """Replace the file atomically; its path."""
    write_atomically(path, lambda file: file.write(content))
    return path
