"""Override files: read by the rules of the simulator's files, and a doubled pattern is an error there as well."""

from __future__ import annotations

from pathlib import Path

import pytest

from hwsim.errors import SpecError
from hwsim.files.strict_yaml import read_document
from quant.convert import read_overrides
from quant.overrides import read_yaml

GOOD = (
    "a: {weight_bits: 4}\nb.*: {act_bits: 8}\n",
    "a:\n  weight_bits: 4\n  init: mse\n",
    "a: [1, 2.5, true, 010, 1e-3, 1:30]\n",
    "'a': {x: \"4\"}\n",
    "a: {x: -.inf, y: 1_000, z: yes}\n",
)
BAD = (
    "a: {weight_bits: 4}\na: {act_bits: 8}\n",
    "a: {weight_bits: 4, weight_bits: 8}\n",
    "a: &x {weight_bits: 4}\nb: *x\n",
    "a: !!python/object:os.system {}\n",
    "a: {weight_bits: }\n",
    "a: !t 4\n",
    "{a: 4\n",
    "? [1]\n: 4\n",
    "a: 1\n---\nb: 2\n",
)


@pytest.mark.parametrize("text", GOOD)
def test_what_both_packages_read_is_the_same(tmp_path: Path, text: str) -> None:
    path = tmp_path / "file.yaml"
    path.write_text(text, encoding="utf-8")
    assert read_yaml(path) == read_document(path).data


@pytest.mark.parametrize("text", BAD)
def test_what_one_package_refuses_the_other_refuses(tmp_path: Path, text: str) -> None:
    path = tmp_path / "file.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SpecError):
        read_document(path)
    with pytest.raises(ValueError, match=r"file.yaml:[0-9]+: "):
        read_yaml(path)


def test_a_doubled_pattern_is_an_error_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "overrides.yaml"
    path.write_text("conv*: {weight_bits: 4}\nfc: {act_bits: 8}\nconv*: {weight_bits: 2}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"overrides.yaml:3: conv\*: duplicate key"):
        read_overrides(path)


def test_an_empty_file_overrides_nothing(tmp_path: Path) -> None:
    path = tmp_path / "overrides.yaml"
    path.write_text("# nothing yet\n", encoding="utf-8")
    assert read_overrides(path) == {}
