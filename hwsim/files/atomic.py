"""Files and folders that appear whole or not at all, and stay after a crash of the machine.

A file is written beside its target, flushed to the disk, given the permissions that the user's umask allows, and
renamed. A folder of results is written aside and takes its place in one step, its most telling file last.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path


def write_atomically(path: Path, content: str | bytes, *, durable: bool = True) -> None:
    """Replace `path` by `content` in one step, so that a crash never leaves half a file.

    `durable`: flush file and folder to the disk before returning. Raises OSError where the folder cannot be written;
    nothing is left behind then. A device, a pipe or /dev/stdout is written into, never replaced.
    """
    refuse_nul(path)
    if is_no_file(path):
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name[:80]}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
        if durable:
            sync_folder(path.parent)
    except BaseException as problem:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        name_target(problem, path)
        raise


def is_no_file(path: Path) -> bool:
    """Whether the name is a device's, a pipe's or an open file's: renaming would put a file in its place.

    >>> is_no_file(Path("/dev/null")), is_no_file(Path("report.json"))
    (True, False)
    """
    system = path.is_symlink() and path.absolute().parts[1:2] in (("dev",), ("proc",))  # /dev/stdout, /dev/fd/3
    return system or (path.exists() and not path.is_file() and not path.is_dir())


def refuse_nul(path: Path) -> None:
    """OSError for a name that no file can have."""
    if "\0" in str(path):
        raise OSError(errno.EINVAL, "a NUL character in the name", str(path))


def write_folder(folder: Path, contents: Mapping[str, str | bytes]) -> list[Path]:
    """Files of a new folder, or newer files of an old one; returns their paths, in the order given.

    A folder that is not there, or is empty, appears with all files at once. In a folder that has other files each of
    ours is replaced in one step, in the order given, so the last one stands for the whole: it is removed first.
    Raises OSError where nothing can be written; a new folder is not left half filled.
    """
    refuse_nul(folder)
    names = list(contents)
    if folder.is_dir() and any(folder.iterdir()):
        (folder / names[-1]).unlink(missing_ok=True)
        for name, content in contents.items():
            write_atomically(folder / name, content)
        return [folder / name for name in names]
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = folder.with_name(f".{folder.name[:80]}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        aside.mkdir()
        for name, content in contents.items():
            write_atomically(aside / name, content)
        if folder.is_dir() and not folder.is_symlink():
            aside.chmod(folder.stat().st_mode & 0o7777)
        move_into_place(aside, folder)
        sync_folder(folder.parent)
    except BaseException as problem:
        shutil.rmtree(aside, ignore_errors=True)
        name_target(problem, folder)
        raise
    return [folder / name for name in names]


def name_target(problem: BaseException, target: Path) -> None:
    """Let an OSError tell of the file or folder that was asked for, not of the temporary one beside it."""
    if isinstance(problem, OSError) and problem.strerror is not None:
        problem.filename = str(target)
        del problem.filename2


def move_into_place(aside: Path, folder: Path) -> None:
    """Rename, also over an empty folder; a link to a folder keeps being one, and gets the files one by one."""
    try:
        os.replace(aside, folder)
    except OSError:
        if not folder.is_dir():
            raise
        for path in aside.iterdir():
            os.replace(path, folder / path.name)
        aside.rmdir()


def sync_folder(folder: Path) -> None:
    """Flush a folder's names to the disk, where the system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
