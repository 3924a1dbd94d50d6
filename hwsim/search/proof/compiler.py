"""The C kernel of the certified search, compiled when the package is installed from its sources, else at first use.

Needs the standard library only: the build of the package imports this file (hatch_build.py).
"""

from __future__ import annotations

from pathlib import Path

from hwsim.files.compiled import Build

KERNEL = Build(
    Path(__file__).parent / "kernel" / "kernel.c",
    "mapper",
    ("-O3", "-shared", "-fPIC", "-std=gnu11"),
    (("-march=native",), ()),
)
