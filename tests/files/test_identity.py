"""Equal identities mean equal contents; unequal ones say which part differs."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from hwsim.files.identity import content_hash, identity, read_identity
from hwsim.machine.load import find_spec, load_accelerator, shipped_specs
from hwsim.search.cache import machine_form


def test_the_order_of_keys_and_the_name_of_a_file_do_not_matter(tmp_path: Path) -> None:
    assert content_hash({"a": 1, "b": [2, 3]}) == content_hash({"b": (2, 3), "a": 1})
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(b"content")
    assert content_hash([b"content"]) == content_hash([tmp_path / "one"]) != content_hash([b"contend"])
    assert content_hash(tmp_path / "one") == content_hash(tmp_path / "two") == content_hash(b"content")


def test_a_part_that_changed_is_named() -> None:
    machine = load_accelerator("eyeriss_v1")
    one = identity(network={"K": 1}, accelerator=machine, bits="W4A4")
    two = identity(network={"K": 1}, accelerator=dataclasses.replace(machine, clock_mhz=1.0), bits="W4A4")
    assert one.differences(two) == ["accelerator"]
    assert one.value != two.value
    assert identity(a=1).differences(identity(a=1, b=2)) == ["b"]
    assert one.differences(identity(network={"K": 1}, accelerator=machine, bits="W4A4")) == []


@pytest.mark.parametrize("name", shipped_specs())
def test_a_spec_is_the_same_in_another_folder(tmp_path: Path, name: str) -> None:
    """Rules of a schedule remember the line that they stand in, for messages."""
    spec = find_spec(name)
    shutil.copytree(spec.parent, tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / spec.name).write_text("# moved by a line\n" + spec.read_text())
    moved = load_accelerator(tmp_path / "elsewhere" / spec.name)
    assert content_hash(moved) == content_hash(load_accelerator(name))
    assert machine_form(moved) == machine_form(load_accelerator(name))


def test_it_comes_back_from_json_and_a_damaged_one_does_not() -> None:
    one = identity(network={"K": 1})
    data = json.loads(json.dumps(one.to_dict()))
    assert read_identity(data) == one
    data["parts"]["network"] = "0" * 16
    assert read_identity(data) is None
    assert [read_identity(x) for x in (None, [], {}, {"parts": 1}, {"parts": {}, "hash": 1})] == [None] * 5


def test_what_has_no_canonical_text_is_refused() -> None:
    with pytest.raises(TypeError, match="no canonical text"):
        content_hash({"a": object()})
