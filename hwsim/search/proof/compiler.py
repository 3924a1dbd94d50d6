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
# With asserts, and allocations that tests let fail: HWSIM_KERNEL=debug.
DEBUG_KERNEL = Build(KERNEL.source, "mapper_debug", ("-O1", "-g", "-DDEBUG_KERNEL", *KERNEL.flags[1:]))
