"""Compiles kernel/ with the system's compiler: when the package is installed from its sources, else at first use.

Needs the standard library only: the build of the package loads this file by itself (hatch_build.py).
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parent / "kernel" / "kernel.c"
FLAGS = ("-O3", "-shared", "-fPIC", "-std=gnu11")


def compiled_files() -> Iterator[Path]:
    """The compiled kernel where it lies already, beside its source or in a cache folder, or compiled into one."""
    compiler = find_compiler()
    if not SOURCE.is_file():
        return
    name = file_name(compiler)
    if SOURCE.with_name(name).is_file():
        yield SOURCE.with_name(name)
    for folder in cache_folders() if compiler else []:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / name).is_file():
                compile_to(compiler, folder / name)
            yield folder / name
        except (OSError, subprocess.SubprocessError):
            continue


def find_compiler() -> str:
    """The C compiler's path; empty where there is none."""
    return os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang") or ""


def file_name(compiler: str) -> str:
    """Tells apart sources, compilers and processors."""
    sources = [path.read_bytes() for path in sorted(SOURCE.parent.glob("*.[ch]"))]
    question = [*sources, compiler.encode(), " ".join(FLAGS).encode(), processor()]
    return f"mapper_{hashlib.sha256(bytes(1).join(question)).hexdigest()[:20]}.so"


def cache_folders() -> list[Path]:
    """Where the compiled kernel may lie: the user's cache folder, else a temporary one of the user's own."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    user = os.getuid() if hasattr(os, "getuid") else 0
    return [Path(home) / "hwsim", Path(tempfile.gettempdir()) / f"hwsim-{user}"]


def processor() -> bytes:
    """What tells processors apart for -march=native: a home folder may be shared by several kinds."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor().encode()
    return "".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})).encode()


def compile_to(compiler: str, path: Path) -> None:
    """Compile beside `path` and move into place, so that processes starting together do not read half a file."""
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        made = Path(scratch) / path.name
        for native in (["-march=native"], []):
            command = [compiler, *FLAGS, *native, str(SOURCE), "-o", str(made), "-lm"]
            done = subprocess.run(command, capture_output=True, timeout=60, check=False)
            if done.returncode == 0:
                os.replace(made, path)
                return
        raise subprocess.SubprocessError(f"{compiler} could not compile {SOURCE.name}")
