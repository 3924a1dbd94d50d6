"""The zoo's networks that came along are those that extraction gives, and need no torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hwsim.command_line import load_model
from hwsim.frontends.argument import from_zoo
from hwsim.network import zoo
from quant import models


@pytest.mark.long
@pytest.mark.parametrize("name", models.names())
def test_a_network_that_came_along_is_the_extracted_one(name: str) -> None:
    """Otherwise: python -m experiments.zoo_file."""
    extracted = from_zoo(name, None, allow_uncosted=False)
    found = load_model(f" {name} ", None, False)
    assert found.to_dict() == extracted.to_dict()
    assert list(found) == list(extracted)


def test_the_file_holds_the_zoo_and_nothing_else() -> None:
    assert list(zoo.contents()) == sorted(models.names())
    assert zoo.shipped("resnet19") is None


def test_an_input_of_another_size_is_extracted() -> None:
    assert load_model("resnet8", (2, 3, 32, 32), False).macs == 2 * load_model("resnet8", None, False).macs


def test_a_file_of_a_networks_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    load_model("resnet20", None, False).save(tmp_path / "resnet8")
    assert load_model("resnet8", None, False).name == "resnet20"


@pytest.mark.long
def test_a_network_of_the_zoo_is_priced_without_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None; from hwsim.evaluate import main;"
        "sys.exit(main(['resnet8', 'eyeriss_v1', '--quick']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "resnet8 on eyeriss_v1" in done.stdout
