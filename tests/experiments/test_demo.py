"""The shipped networks are what networks/README.md says, and the demo runs the main job on them."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from experiments import demo, ship
from hwsim.evaluate import main as evaluate
from quant import checkpoint

README = (demo.NETWORKS / "README.md").read_text(encoding="utf-8")
SHIPPED = sorted(path for path in demo.NETWORKS.iterdir() if path.is_dir())


def measurable(folder: Path) -> Any:
    """A parameter: measuring on all CIFAR-10 test images takes a minute and needs them."""
    marks = [] if folder.name.startswith("digits") else [pytest.mark.slow]
    return pytest.param(folder, marks=marks, id=folder.name)


@pytest.mark.parametrize("folder", [measurable(folder) for folder in SHIPPED])
def test_shipped_networks_reach_the_accuracy_stated(folder: Path, request: pytest.FixtureRequest) -> None:
    stated = re.search(rf"`{folder.name}` \|.*\| ([0-9.]+) % \|", README)
    assert stated is not None, f"networks/README.md states no accuracy of {folder.name}"
    embedded = checkpoint.load_meta(folder).data == "digits"
    percent, _ = demo.measured_accuracy(folder, None if embedded else request.getfixturevalue("data_dir"))
    assert percent == pytest.approx(float(stated[1]), abs=0.005)
    assert percent == pytest.approx(checkpoint.load_meta(folder).metrics["test_accuracy_percent"])


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda path: path.name)
def test_shipped_networks_are_small_and_not_resumable(folder: Path) -> None:
    assert sum(path.stat().st_size for path in folder.iterdir()) < ship.LARGEST_BYTES
    assert not list(folder.glob("training-*"))


@pytest.mark.long
@pytest.mark.parametrize("effort", ["quick", pytest.param("auto", marks=pytest.mark.slow)])
def test_demo_prices_the_quantized_network(effort: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main(["--out", str(tmp_path), "--effort", effort]) == 0
    printed = capsys.readouterr().out
    assert "real test digits" in printed
    assert "integer machine: 0 of " in printed
    assert printed.count("integer machine: 0 of ") == len(demo.SHIPPED)
    front = printed[printed.index("accuracy against energy on eyeriss_v1") :].splitlines()
    assert any(line.lstrip().startswith("this network") for line in front)
    assert re.search(r"W[24]A[24] c[1-4]", "\n".join(front))
    report = json.loads((tmp_path / "report.json").read_text())
    depthwise = next(layer for layer in report["layers"] if layer["name"] == "blocks.1.0.conv_dw")
    assert (depthwise["bits"]["weight"], depthwise["bits"]["input"]) == (4, 4)
    program, command, *question = shlex.split(report["command"])  # as the page shows it
    assert (program, command) == ("hwsim", "evaluate")
    assert evaluate([*question, "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["totals"], again["identity"]) == (report["totals"], report["identity"])


def test_demo_names_an_unknown_accelerator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main(["--out", str(tmp_path), "--accelerator", "no_such_machine"]) == 2
    assert "no_such_machine" in capsys.readouterr().err


def test_shipping_leaves_training_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = demo.NETWORKS / "digits_silu_w4a4"
    assert ship.main([str(source), str(tmp_path / "copy")]) == 0
    assert demo.measured_accuracy(tmp_path / "copy") == demo.measured_accuracy(source)
    assert ship.main([str(tmp_path / "absent"), str(tmp_path / "x")]) == 2
    assert "no such checkpoint" in capsys.readouterr().err
