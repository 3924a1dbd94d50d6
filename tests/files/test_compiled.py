"""Compiled kernels are loaded from one's own folders only, and only where they are whole."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import hwsim.files.compiled as module
from hwsim.files.compiled import Build, compiler, is_own

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(not compiler(), reason="no C compiler on this machine")


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Build:
    """A source of one function, with the cache folder in a place of its own."""
    source = tmp_path / "package" / "kernel.c"
    source.parent.mkdir()
    source.write_text("int one(void) { return 1; }\n")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "tmp").mkdir()
    return Build(source, "test", ("-shared", "-fPIC"))


def test_both_packages_have_the_same_builder() -> None:
    texts = [(ROOT / package).read_bytes() for package in ("hwsim/files/compiled.py", "quant/compiled.py")]
    assert texts[0] == texts[1]


def test_the_kernel_of_the_installation_comes_first(build: Build, tmp_path: Path) -> None:
    cached = next(build.files())
    assert cached.parent == tmp_path / "cache" / "hwsim" / "kernels"
    assert ctypes.CDLL(str(cached)).one() == 1
    installed = build.compile_into(build.source.parent)
    assert next(build.files()) == installed
    build.source.write_text("int two(void) { return 2; }\n")  # another source is another file
    assert next(build.files()) not in (cached, installed)


@pytest.mark.parametrize("harm", ["cut", "changed", "empty"])
def test_a_damaged_file_is_made_again(build: Build, harm: str) -> None:
    path = next(build.files())
    content = path.read_bytes()
    damaged = {"cut": content[: len(content) // 2], "changed": content[:-1] + b"x", "empty": b""}[harm]
    path.write_bytes(damaged)
    again = next(build.files())
    assert again.read_bytes() == content
    assert ctypes.CDLL(str(again)).one() == 1


@pytest.mark.parametrize("how", ["open to all", "a link", "a file"])
def test_a_folder_that_others_could_write_is_not_used(build: Build, tmp_path: Path, how: str) -> None:
    folder = tmp_path / "cache" / "hwsim" / "kernels"
    folder.parent.mkdir(parents=True)
    if how == "open to all":
        folder.mkdir()
        folder.chmod(0o777)
    elif how == "a link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "elsewhere")
    else:
        folder.write_text("")
    assert not is_own(folder)
    assert next(build.files()).parent == tmp_path / "tmp" / f"hwsim-{os.getuid()}"


def test_a_folder_of_another_user_is_not_used(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.os, "getuid", lambda: 12345)
    assert list(build.files()) == []
    assert "folder of one's own" in build.missing()


def test_a_link_among_the_compiled_files_is_not_followed(build: Build, tmp_path: Path) -> None:
    path = next(build.files())
    path.rename(tmp_path / "elsewhere.so")
    path.symlink_to(tmp_path / "elsewhere.so")
    assert list(build.trusted(path.parent)) == []


def test_cc_may_carry_flags(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", f"{compiler()[0]} -O0 -DX='1 2'")
    assert ctypes.CDLL(str(next(build.files()))).one() == 1


@pytest.mark.parametrize(
    ("command", "says"), [("/no/such/cc", "no C compiler"), ("cc '", "no C compiler"), ("false", "false")]
)
def test_a_compiler_that_does_not_work_is_named(
    build: Build, monkeypatch: pytest.MonkeyPatch, command: str, says: str
) -> None:
    monkeypatch.setenv("CC", command)
    assert list(build.files()) == []
    assert says in build.missing()


def test_a_portable_file_is_used_whatever_the_compiler(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = build.compile_into(build.source.parent, portable=True)
    monkeypatch.setenv("CC", "no-such-compiler")
    assert next(build.files()) == shipped
    assert build.missing() == ""
    build.source.write_text("int two(void) { return 2; }\n")
    assert next(build.files(), None) is None


def test_a_file_for_this_processor_comes_before_a_portable_one(build: Build) -> None:
    build.compile_into(build.source.parent, portable=True)
    own = build.compile_into(build.source.parent)
    assert next(build.files()) == own


@pytest.mark.long
@pytest.mark.parametrize("command", ["gcc", "clang", "x86_64-w64-mingw32-gcc"])
@pytest.mark.parametrize("source", ["hwsim/search/proof/kernel/kernel.c", "quant/lsq_kernel.c"])
def test_kernels_are_standard_c_for_every_compiler(source: str, command: str, tmp_path: Path) -> None:
    if shutil.which(command) is None:
        pytest.skip(f"no {command} on this machine")
    flags = ["-std=c11", "-pedantic", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC"]
    flags += ["-Wno-unknown-pragmas", "-Wno-unused-parameter"]  # a build without OpenMP runs in one thread
    line = [command, *flags, str(ROOT / source), "-o", str(tmp_path / "kernel.so"), "-lm"]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.long
def test_a_wheel_for_others_brings_a_kernel_that_needs_no_compiler(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    tree = tmp_path / "tree"
    keep = shutil.ignore_patterns("*.so", "__pycache__")
    for folder in ("hwsim", "quant", "accel_specs"):
        shutil.copytree(ROOT / folder, tree / folder, ignore=keep)
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree / name)
    environment = {**os.environ, "HWSIM_PORTABLE": "1"}
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel"]
    subprocess.run(command, cwd=tree, env=environment, check=True, capture_output=True)
    (wheel,) = (tree / "dist").glob("*.whl")
    assert wheel.name.startswith("hwsim-")
    assert "-py3-none-" in wheel.name
    target = tmp_path / "installed"
    zipfile.ZipFile(wheel).extractall(target)
    code = "import hwsim; from hwsim.search.proof.native import compiled; print(compiled() is not None, hwsim.__file__)"
    environment = {**os.environ, "CC": "no-such-compiler", "PYTHONPATH": str(target), "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["True", str(target / "hwsim" / "__init__.py")], done.stderr
