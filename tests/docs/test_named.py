"""What the pages name exists: files of the repository, modules and their functions, tests."""

from __future__ import annotations

import importlib
import re
from operator import attrgetter

import pytest

from tests.docs.test_promises import names_of_tests
from tests.docs.test_words import FOLDERS, PAGES, ROOT

# `search/space/problem.py` in a page is `hwsim/search/space/problem.py`.
HOMES = (ROOT, ROOT / "hwsim", ROOT / "docs")
TOPS = {*FOLDERS, ".ci", ".github", *(path.name for path in (ROOT / "hwsim").iterdir() if path.is_dir())}
MADE = ("results/gpu",)  # what a command of the page writes
SOURCE = (".py", ".c", ".h", ".inc")
PLACE = re.compile(r"(?<![\w./:~$-])((?:\.?[\w*-]+/)+[\w*.-]*[\w*])")
NAME = re.compile(r"\b((?:hwsim|quant|experiments|benchmarks)(?:\.\w+)+)")
GROUPS = {"hwsim.operators", "hwsim.importers", "hwsim.mac_styles"}  # entry points of plugins
TEST = re.compile(r"`(test_\w+)`")


def missing_files(page: str, text: str) -> list[str]:
    """Paths in a page's text that begin with a folder of ours, or end like a source file, and lead nowhere."""
    places = {place for place in PLACE.findall(text) if place.split("/")[0] in TOPS or place.endswith(SOURCE)}
    homes = (*HOMES, (ROOT / page).parent)
    return sorted(
        place for place in places if not place.startswith(MADE) and not any(any(home.glob(place)) for home in homes)
    )


def missing_names(text: str) -> list[str]:
    """Modules of ours, and functions and classes in them, that a page names and that are not there."""
    return sorted(name for name in {*NAME.findall(text)} - GROUPS if not known(name))


def known(name: str) -> bool:
    """Whether a dotted name is a module or something in one."""
    parts = name.split(".")
    for size in range(len(parts), 0, -1):
        try:
            module = importlib.import_module(".".join(parts[:size]))
        except ModuleNotFoundError:
            continue
        try:
            return size == len(parts) or bool(attrgetter(".".join(parts[size:]))(module))
        except AttributeError:
            return False
    return False


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_names_exists(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert not missing_files(page, text)
    assert not missing_names(text)
    assert {*TEST.findall(text)} <= names_of_tests()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("`search/space/nothing.py`", ["search/space/nothing.py"]), ("see docs/nothing.md", ["docs/nothing.md"]),
        ("(tests/nothing)", ["tests/nothing"]), ("`kernel/lattice.inc`", ["kernel/lattice.inc"]),
        ("`hwsim/search/layer.py`, `search/layer.py`, accel_specs/*.yaml, 3/4, D/s, results/gpu/runs.csv", []),
    ],
)  # fmt: skip
def test_a_path_that_leads_nowhere_is_found(text: str, found: list[str]) -> None:
    assert missing_files("README.md", text) == found


def test_a_name_that_is_gone_is_found() -> None:
    assert missing_names("`python -m experiments.validate`, `hwsim.evaluate(...)`, hwsim.search.layer.search") == []
    gone = ["experiments.gone", "hwsim.search.gone", "hwsim.search.layer.gone"]
    assert missing_names("python -m\nexperiments.gone; hwsim.search.gone, hwsim.search.layer.gone()") == gone
