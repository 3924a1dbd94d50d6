"""`make bench` names benchmarks that exist, with options that they have."""

from __future__ import annotations

import subprocess
import sys

import pytest

from benchmarks.__main__ import PARTS, Part, run_part


@pytest.mark.parametrize("name", PARTS)
def test_every_command_and_option_of_a_part_exists(name: str) -> None:
    for command in PARTS[name].commands:
        shown = subprocess.run([sys.executable, "-m", command[0], "--help"], capture_output=True, text=True, check=True)
        for word in (*command[1:], *PARTS[name].quick):
            assert not word.startswith("--") or word in shown.stdout, f"{command[0]} has no {word}"


def test_a_part_that_fails_is_told() -> None:
    assert not run_part(Part("?", (("benchmarks.repricing", "--model", "no_such_model"),)), [])
