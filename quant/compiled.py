"""C sources compiled once and loaded only from folders that are one's own, under names that hold a hash of the bytes.

A compiled file is used where its name's hash equals that of its bytes, so a cut or foreign file is never loaded but
made again. Needs the standard library only, because the build of the package uses it.
hwsim/files/compiled.py and quant/compiled.py are the same file, because neither package may need the other's.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shlex
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HASH = 20  # hexadecimal digits of each hash in a file's name


@dataclass(frozen=True)
class Build:
    """What is compiled and how: `extras` are flags tried in turn until one of them works.

    A file for this processor and compiler is preferred; one for any (`portable`), as a wheel brings it, comes second.
    """

    source: Path
    prefix: str
    flags: tuple[str, ...]
    extras: tuple[tuple[str, ...], ...] = ((),)

    def files(self) -> Iterator[Path]:
        """Compiled files that may be loaded: beside the source, then in one's own cache folders, made there if need be.

        Nothing where there is neither a compiled file nor a compiler that works: `missing()` says why.
        """
        if not self.source.is_file():
            return
        yield from self.trusted(self.source.parent)
        for folder in cache_folders():
            if not is_own(folder):
                continue
            yield from self.trusted(folder)
            try:
                yield self.compile_into(folder)
            except (OSError, subprocess.SubprocessError):
                continue

    def trusted(self, folder: Path) -> Iterator[Path]:
        """Files of this question in a folder whose bytes are what their names say; damaged ones are removed."""
        names = [f"{self.prefix}_{question}_*.so" for question in (self.question(), self.portable_question())]
        for path in [path for name in names for path in sorted(folder.glob(name))]:
            try:
                if path.is_symlink() or not path.is_file():
                    continue
                if path.stem.rpartition("_")[2] == digest(path.read_bytes()):
                    yield path
                else:
                    path.unlink()
            except OSError:
                continue

    def compile_into(self, folder: Path, *, portable: bool = False) -> Path:
        """Compile and move into place in one step; `portable`: for any processor of this kind, without `extras`.

        Raises OSError or SubprocessError with the compiler's own words.
        """
        command = compiler()
        if not command:
            raise OSError("no C compiler: cc, gcc and clang are not on the PATH and CC is not set")
        said = ""
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            made = Path(scratch) / "made.so"
            for extra in ((),) if portable else self.extras:
                line = [*command, *self.flags, *extra, str(self.source), "-o", str(made), "-lm"]
                done = subprocess.run(line, capture_output=True, timeout=60, check=False, text=True, errors="replace")
                if done.returncode == 0:
                    question = self.portable_question() if portable else self.question()
                    path = folder / f"{self.prefix}_{question}_{digest(made.read_bytes())}.so"
                    os.replace(made, path)
                    return path
                said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[0]
        raise subprocess.SubprocessError(f"{shlex.join(command)}: {said}")

    def question(self) -> str:
        """Hash of what decides the compiled bytes: sources, compiler, flags, processor."""
        how = [shlex.join(compiler()).encode(), repr((self.flags, self.extras)).encode(), processor()]
        return digest(bytes(1).join([*self.sources(), *how]))

    def portable_question(self) -> str:
        """Hash of the sources alone, for a file that every processor of its kind runs."""
        return digest(bytes(1).join([b"portable", *self.sources()]))

    def sources(self) -> list[bytes]:
        """What is compiled."""
        return [path.read_bytes() for path in sorted(self.source.parent.glob("*.[chi]*"))]

    def missing(self) -> str:
        """Why no compiled file can be had, in a few words; empty where one can."""
        if next(self.files(), None) is not None:
            return ""
        folders = [folder for folder in cache_folders() if is_own(folder)]
        if not folders:
            return "no folder of one's own to compile into: set XDG_CACHE_HOME to one that only you can write"
        try:
            self.compile_into(folders[0])
        except (OSError, subprocess.SubprocessError) as problem:
            return " ".join(str(problem).split())
        return ""


def digest(content: bytes) -> str:
    """The first digits of a hash."""
    return hashlib.sha256(content).hexdigest()[:HASH]


def compiler() -> list[str]:
    """The compiler's command: $CC with its own flags, else the first of cc, gcc, clang; empty where there is none."""
    chosen = os.environ.get("CC", "").strip()
    if chosen:
        try:
            command = shlex.split(chosen)
        except ValueError:
            command = [chosen]
        return command if shutil.which(command[0]) else []
    found = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    return [found] if found else []


def cache_folders() -> list[Path]:
    """Where compiled files may lie: the user's cache folder, else a temporary folder of the user's own."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    user = os.getuid() if hasattr(os, "getuid") else 0
    return [Path(home) / "hwsim" / "kernels", Path(tempfile.gettempdir()) / f"hwsim-{user}"]


def is_own(folder: Path) -> bool:
    """Whether a folder (made if need be, mode 0700) is a real one that nobody else can write or replace.

    It must belong to the user, be no link, and have mode 0700; its parent must be writable by its owner alone, or keep
    others from renaming what is not theirs (sticky, as /tmp is).
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        if not hasattr(os, "getuid"):  # no owners to compare: the user's profile is private by the system's rules
            return folder.is_dir() and not folder.is_symlink()
        here, above = folder.lstat(), folder.parent.stat()
    except OSError:
        return False
    private = stat.S_ISDIR(here.st_mode) and here.st_uid == os.getuid() and stat.S_IMODE(here.st_mode) & 0o077 == 0
    safe = above.st_uid in (os.getuid(), 0) and (not above.st_mode & 0o022 or bool(above.st_mode & stat.S_ISVTX))
    return private and safe


def processor() -> bytes:
    """What tells processors apart for -march=native: a home folder may be shared by several kinds."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor().encode()
    return "".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})).encode()
