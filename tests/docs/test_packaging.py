"""The files that package the project are well-formed: workflows, issue forms, citation, container, wheels.

The tools come with `.ci/run`, not with the project: where one is absent, its test is skipped and says so.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FORMS = (
    ("vendor.github-workflows", sorted((ROOT / ".github/workflows").glob("*.yml"))),
    ("vendor.github-issue-forms", sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))),
    ("vendor.citation-file-format", [ROOT / "CITATION.cff"]),
)


def tool(name: str) -> str:
    """The command beside this Python."""
    found = Path(sys.executable).parent / name
    if not found.exists():
        pytest.skip(f"{name} is not installed (.ci/run installs it)")
    return str(found)


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("schema", "files"), FORMS, ids=[schema for schema, _ in FORMS])
def test_files_that_others_read_follow_their_schema(schema: str, files: list[Path]) -> None:
    assert files
    done = run(tool("check-jsonschema"), "--builtin-schema", schema, *files)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_container_file_has_no_lint(tmp_path: Path) -> None:
    linter = tool("hadolint")
    done = run(linter, ROOT / "Dockerfile")
    assert done.returncode == 0, done.stdout + done.stderr
    spoilt = tmp_path / "Dockerfile"
    spoilt.write_text("FROM python\nRUN cd /tmp && sudo make\n")
    assert run(linter, spoilt).returncode != 0, "the linter finds nothing in a bad file"


@pytest.mark.parametrize(
    ("platform", "wheels"),
    [
        ("linux", {"cp311-manylinux_x86_64"}),
        ("macos", {"cp311-macosx_x86_64", "cp311-macosx_arm64"}),
        ("windows", {"cp311-win_amd64"}),
    ],
)
def test_wheels_are_built_for_every_platform(platform: str, wheels: set[str]) -> None:
    """One wheel serves every Python 3 of its platform (`py3-none-PLATFORM`)."""
    done = run(tool("cibuildwheel"), "--print-build-identifiers", "--platform", platform, ROOT)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == wheels
