"""The commands of docs/coming_from.md run as typed, on the tools' own files under the names of the page."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from hwsim.__main__ import main
from tests.peers.test_maestro import HARDWARE, LAYER

PAGE = (Path(__file__).parents[2] / "docs" / "coming_from.md").read_text(encoding="utf-8")
COMMANDS = [line.split("#")[0].strip() for line in re.findall(r"^    (hwsim .*)$", PAGE, re.MULTILINE)]
# Two of them search for a minute by default; the page's words are kept.
QUICK = ("hwsim evaluate resnet18", "hwsim evaluate zigzag:", "hwsim evaluate scalesim:")
ART = "ART:\n  version: 0.4\n  tables:\n  - {name: 'eyeriss_like.mac[1..1]', area: 100}\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, peers_dir: Path) -> Path:
    """Everything that the page names, in one folder."""
    here = tmp_path_factory.mktemp("peers") / "eyeriss_like"
    designs, zigzag, scalesim = peers_dir / "timeloop/example_designs", peers_dir / "zigzag", peers_dir / "scalesim"
    shutil.copytree(designs, here)
    found = designs / "eyeriss_like/ref_outputs/default_problem"
    for source, name in (
        (designs / "eyeriss_like/arch.yaml", "arch.yaml"),
        (designs / "_include/default_problem.yaml", "problem.yaml"),
        (found / "timeloop-mapper.map.yaml", "map.yaml"),
        (found / "timeloop-mapper.ERT_summary.yaml", "ERT.yaml"),
        (zigzag / "workload/resnet18.yaml", "workload.yaml"),
        (zigzag / "hardware/tpu_like.yaml", "hardware.yaml"),
        (zigzag / "mapping/tpu_like.yaml", "mapping.yaml"),
        (scalesim / "topologies/conv_nets/alexnet.csv", "topology.csv"),
        (scalesim / "configs/google.cfg", "google.cfg"),
    ):
        shutil.copyfile(source, here / name)
    for name, text in (("network.m", LAYER), ("hardware.m", HARDWARE), ("ART.yaml", ART)):
        (here / name).write_text(text, encoding="utf-8")
    return here


def test_the_page_has_the_commands_of_four_tools() -> None:
    text = "\n".join(COMMANDS)
    assert len(COMMANDS) >= 10
    for word in (
        "timeloop:",
        "zigzag:",
        "scalesim:",
        "network.m",
        "--format timeloop",
        "--constraints own",
        "ART.yaml",
    ):
        assert word in text


@pytest.mark.long
def test_the_commands_of_the_page_run_as_typed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after another: some read what one before wrote."""
    monkeypatch.chdir(folder)
    for command in COMMANDS:
        words = shlex.split(command)[1:]
        quick = ["--quick"] if command.startswith(QUICK) else []
        assert main([*words, *quick]) == 0, command
