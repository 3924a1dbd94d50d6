"""Whatever a path leads to, a command ends with one message: devices without an end and impossible names too."""

from __future__ import annotations

from pathlib import Path

import pytest

from hwsim.evaluate import main
from hwsim.files.reading import read_bytes, read_text
from tests.explore.test_bill import residual


def test_a_file_is_read_up_to_its_bound(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"a\r\nb\rc\n")
    assert read_bytes(path, 7) == b"a\r\nb\rc\n"
    assert read_text(path) == path.read_text()
    with pytest.raises(OSError, match="larger than 0 KiB"):
        read_bytes(path, 6)
    with pytest.raises(OSError, match="larger than 1 KiB"):
        read_bytes(Path("/dev/zero"), 1024)
    with pytest.raises(OSError, match="null byte"):
        read_bytes(Path("a\0b"))


@pytest.mark.parametrize("option", ["--mapping", "--zero-shares", "--bits", "--constraints"])
@pytest.mark.parametrize("path", ["/dev/zero", "a\0b"])
def test_every_option_that_names_a_file_survives_it(
    option: str, path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    residual().save(tmp_path / "net.json")
    assert main([str(tmp_path / "net.json"), "bit_fusion", "--quick", option, path]) == 2
    error = capsys.readouterr().err
    assert error.startswith("hwsim: ")
    assert "\0" not in error


@pytest.mark.parametrize("suffix", [".json", ".onnx", ".tflite", ".pt2", ""])
def test_a_model_that_is_a_link_to_a_device_is_refused(
    suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"net{suffix}"
    path.symlink_to("/dev/zero")
    assert main([str(path), "bit_fusion", "--quick"]) == 2
    assert "larger than" in (error := capsys.readouterr().err) or "a device or pipe" in error
