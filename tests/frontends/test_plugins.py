"""Plug-ins: prefixes of MODEL and operators that other packages add. docs/plugins.md has a whole one, which is run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import hwsim
from hwsim.files import plugins
from hwsim.frontends.argument import load_model_argument

CODE = """
import torch
import hwsim
CALLS = []
def pair(text, shape): CALLS.append(text); return torch.nn.Linear(int(text), 2), torch.zeros(shape or (1, int(text)))
def done(text, shape): return hwsim.extract(torch.nn.Linear(3, 2), torch.zeros(1, 3))
def wrong(text, shape): return 7
def fails(text, shape): raise RuntimeError("no such file: " + text)
NUMBER = 7
"""
ENTRIES = """
[hwsim.importers]
pair = plugin_of_tests:pair
done = plugin_of_tests:done
wrong = plugin_of_tests:wrong
fails = plugin_of_tests:fails
absent = plugin_of_tests:nothing
number = plugin_of_tests:NUMBER
hf = plugin_of_tests:wrong
"""


def install(folder: Path, name: str, entries: str) -> None:
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(entries, encoding="utf-8")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "plugin_of_tests.py").write_text(CODE, encoding="utf-8")
    install(tmp_path, "first-package", ENTRIES)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "plugin_of_tests", raising=False)
    return tmp_path


def test_a_prefix_of_an_installed_package_names_networks(installed: Path) -> None:
    assert load_model_argument("pair:5").macs == 10
    assert load_model_argument("pair:5", (4, 5)).macs == 40
    assert load_model_argument("done:anything").macs == 6


def test_a_plugin_runs_only_when_its_prefix_is_named(installed: Path) -> None:
    load_model_argument("resnet8")
    assert "plugin_of_tests" not in sys.modules
    load_model_argument("pair:5")
    assert sys.modules["plugin_of_tests"].CALLS == ["5"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("wrong:1", "returned int; expected a Workload or"),
        ("fails:x", "its plug-in failed: RuntimeError: no such file: x"),
        ("absent:x", "of first-package cannot be loaded: AttributeError"),
        ("number:x", "is no function"),
    ],
)
def test_what_is_wrong_with_a_plugin_is_said(installed: Path, text: str, message: str) -> None:
    with pytest.raises(hwsim.WorkloadError, match=message):
        load_model_argument(text)


def test_two_packages_with_one_name_are_refused(installed: Path) -> None:
    install(installed, "second-package", "[hwsim.importers]\npair = plugin_of_tests:done\n")
    with pytest.raises(hwsim.WorkloadError, match=r"several packages add it to hwsim.importers: first-package, second"):
        load_model_argument("pair:5")


def test_own_names_cannot_be_replaced(installed: Path) -> None:
    with pytest.raises(hwsim.WorkloadError, match=r"hf:|transformers"):
        load_model_argument("hf:no/such/network")


def test_an_operator_without_a_plugin_is_refused_by_name(installed: Path) -> None:
    assert plugins.operator("nobody.has_it") is None

    class Unknown(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.pinv(x)

    with pytest.raises(hwsim.UnsupportedOp, match="pinv"):
        hwsim.extract(Unknown(), torch.zeros(3, 3))
