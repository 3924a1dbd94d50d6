"""Files and folders appear whole or not at all, with the permissions that the user's umask allows."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from hwsim.files import atomic
from hwsim.files.atomic import write_atomically, write_folder

CONTENTS = {"layers.csv": "a,b\n", "report.json": "{}\n"}


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_the_umask_decides_the_permissions(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "deep" / "file.txt", "text")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "deep" / "file.txt").stat().st_mode) == mode


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "file.txt"
    target.write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(target, "new")
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["file.txt"]


def test_an_error_names_what_was_asked_for(tmp_path: Path) -> None:
    file, folder = tmp_path / "file.txt", tmp_path / "folder"
    file.write_text("old")
    folder.mkdir()
    with pytest.raises(OSError, match="directory") as found:
        write_atomically(folder, "new")
    assert str(found.value).endswith(f": {str(folder)!r}")
    with pytest.raises(OSError, match="directory") as found:
        write_folder(file, CONTENTS)
    assert str(found.value).endswith(f": {str(file)!r}")


def test_long_names_are_written(tmp_path: Path) -> None:
    name = "x" * 250 + ".json"
    write_atomically(tmp_path / name, "text")
    assert (tmp_path / name).read_text() == "text"


@pytest.mark.parametrize("there", ["nothing", "an empty folder", "a folder with more", "a link to a folder"])
def test_a_folder_gets_all_its_files(tmp_path: Path, there: str) -> None:
    folder = tmp_path / "out"
    if there == "an empty folder":
        folder.mkdir()
    elif there == "a folder with more":
        folder.mkdir()
        (folder / "mine.txt").write_text("mine")
    elif there == "a link to a folder":
        (tmp_path / "real").mkdir()
        folder.symlink_to(tmp_path / "real")
    written = write_folder(folder, CONTENTS)
    assert written == [folder / name for name in CONTENTS]
    assert {path.name: path.read_text() for path in written} == CONTENTS
    assert (folder / "mine.txt").exists() == (there == "a folder with more")
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]
    assert folder.is_symlink() == (there == "a link to a folder")


def test_a_cut_write_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = atomic.write_atomically

    def stop_at_the_last(path: Path, content: str | bytes, **options: bool) -> None:
        if path.name == "report.json":
            raise KeyboardInterrupt
        real(path, content, **options)

    monkeypatch.setattr(atomic, "write_atomically", stop_at_the_last)
    with pytest.raises(KeyboardInterrupt):
        write_folder(tmp_path / "out", CONTENTS)
    assert os.listdir(tmp_path) == []


def test_an_older_report_never_stands_beside_newer_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "out", dict.fromkeys(CONTENTS, "old"))
    real = atomic.write_atomically

    def stop_at_the_last(path: Path, content: str | bytes, **options: bool) -> None:
        if path.name == "report.json":
            raise OSError(28, "No space left on device")
        real(path, content, **options)

    monkeypatch.setattr(atomic, "write_atomically", stop_at_the_last)
    with pytest.raises(OSError, match="No space"):
        write_folder(tmp_path / "out", CONTENTS)
    assert os.listdir(tmp_path / "out") == ["layers.csv"]


def test_a_device_or_a_pipe_is_written_into_and_stays_what_it_is(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_atomically(pipe, "text")
        assert os.read(reader, 10) == b"text"
    finally:
        os.close(reader)
    assert pipe.is_fifo()


def test_a_name_with_nul_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="NUL"):
        write_atomically(tmp_path / "a\0b", "text")
    with pytest.raises(OSError, match="NUL"):
        write_folder(tmp_path / "a\0b", CONTENTS)


@pytest.mark.parametrize(
    "write",
    [
        "from hwsim.files.atomic import write_atomically as w; w(out, 'text')",
        "from quant.data import write_atomically as w; w(out, lambda file: file.write(b'text'))",
    ],
)
@pytest.mark.parametrize("shown", ["a file", "a pipe"])
def test_standard_output_by_its_name_is_written_into_and_stays(tmp_path: Path, write: str, shown: str) -> None:
    """/dev/stdout is a link: a rename would put a file in its place for everybody, where root runs the command."""
    code = f"import os, pathlib; os.replace = os.rename = None; out = pathlib.Path('/dev/stdout'); {write}"
    with (tmp_path / "out").open("wb") as file:
        found = subprocess.run([sys.executable, "-c", code], stdout=file if shown == "a file" else subprocess.PIPE,
                               check=True, cwd=Path(__file__).parents[2])  # fmt: skip
    assert ((tmp_path / "out").read_bytes() if shown == "a file" else found.stdout) == b"text"
    assert Path("/dev/stdout").is_symlink()
