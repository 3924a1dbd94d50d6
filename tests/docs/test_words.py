"""Sentences of the pages stay short enough for a reader whose English is a third language."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from hwsim.__main__ import COMMANDS

ROOT = Path(__file__).parents[2]
LONGEST = 25
FOLDERS = ("accel_specs", "benchmarks", "docs", "experiments", "hwsim", "networks", "quant", "results", "tests")
HISTORY = {"CHANGELOG.md"}  # entries as they were written
PAGES = sorted(
    str(path.relative_to(ROOT))
    for path in (*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md")))
    if path.name not in HISTORY
)
NOTEBOOKS = sorted((ROOT / "docs/notebooks").glob("*.ipynb"))
SCHEMAS = ("hwsim/report/report.schema.json", "hwsim/machine/accelerator.schema.json")
FENCED = re.compile(r"^( *)```.*?^\1```", re.S | re.M)
INDENTED = re.compile(r"(?<=\n\n)(?: {4}.*(?:\n+|\Z))+")
NO_PROSE = re.compile(r"^\s*(?:[|#]|!\[|<!--).*$", re.M)
LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
CODE = re.compile(r"`[^`]+`")
ITEM = re.compile(r"\n\s*(?:[-*]|\d+\.) |\n\s*\n")
END = re.compile(r"(?<=[.!?:;])[*)\"]*\s+(?=[A-Z\[(*\"])")


def sentences(text: str) -> list[str]:
    """Sentences of a Markdown text: no code blocks, tables, headings, targets of links; a code span is one word.

    A sentence ends at . ! ? : or ; before a capital or a bracket, and at the end of a paragraph or list item.
    """
    for left_out in (FENCED, INDENTED, NO_PROSE):
        text = left_out.sub("", text)
    text = CODE.sub("CODE", LINK.sub(r"\1", text))
    return [" ".join(sentence.split()) for item in ITEM.split("\n" + text) for sentence in END.split(item)]


def too_long(text: str) -> list[str]:
    return [sentence for sentence in sentences(text) if len(sentence.split()) > LONGEST]


def told(found: list[str]) -> str:
    return f"more than {LONGEST} words:\n" + "\n".join(f"{len(s.split())}: {s}" for s in found)


@pytest.mark.parametrize("page", PAGES)
def test_no_sentence_is_too_long(page: str) -> None:
    found = too_long((ROOT / page).read_text(encoding="utf-8"))
    assert not found, told(found)


def test_every_page_of_the_documentation_is_held_to_it() -> None:
    assert {"README.md", "docs/search.md", "docs/validation.md", "docs/tutorial/explore.md"} <= {*PAGES}
    assert not [page for page in PAGES if ".venv" in page]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_sentence_of_a_notebook_is_too_long(path: Path) -> None:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    found = too_long("\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"))
    assert not found, told(found)


# The command line after `hwsim COMMAND`; `explore` has commands of its own.
HELPS = [*([name] for name in COMMANDS), ["explore", "bits"], ["explore", "machines"]]


@pytest.mark.parametrize("command", HELPS, ids=" ".join)
def test_no_sentence_of_a_help_is_too_long(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Here a semicolon ends a sentence: `auto: ...; quick: ...` names values."""
    module, before, purpose = COMMANDS[command[0]]
    texts = [purpose]

    def keep(parser: argparse.ArgumentParser, file: object = None) -> None:
        texts.extend((parser.description or "", parser.epilog or "", *(a.help or "" for a in parser._actions)))

    monkeypatch.setattr(argparse.ArgumentParser, "print_help", keep)
    with pytest.raises(SystemExit):
        import_module(module).main([*before, *command[1:], "--help"])
    assert len(texts) > 4
    found = [long for text in texts for part in text.split(";") for long in too_long(part)]
    assert not found, told(found)


def descriptions(node: object) -> Iterator[str]:
    """Every `description` of a schema, at any depth."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        if key == "description" and isinstance(value, str):
            yield value
        else:
            yield from descriptions(value)


@pytest.mark.parametrize("schema", SCHEMAS)
def test_no_sentence_of_a_schema_is_too_long(schema: str) -> None:
    known = list(descriptions(json.loads((ROOT / schema).read_text(encoding="utf-8"))))
    assert len(known) > 20
    found = [long for text in known for long in too_long(text)]
    assert not found, told(found)


def keys_without_meaning(node: object, shared: dict[str, dict[str, object]], place: str = "") -> Iterator[str]:
    """Keys of a schema that have no description, of their own or of what they refer to."""
    if isinstance(node, list):
        for each in node:
            yield from keys_without_meaning(each, shared, place)
    if isinstance(node, dict):
        for name, value in node.get("properties", {}).items():
            said = value.get("description") or shared.get(value.get("$ref", "").removeprefix("#/$defs/"), {})
            if not (said if isinstance(said, str) else said.get("description")):
                yield f"{place}.{name}"
        for name, value in node.items():
            yield from keys_without_meaning(value, shared, f"{place}.{name}")


def test_every_key_of_a_report_has_a_meaning() -> None:
    schema = json.loads((ROOT / SCHEMAS[0]).read_text(encoding="utf-8"))
    assert list(keys_without_meaning({"properties": {"a": {"type": "string"}}}, {})) == [".a"]
    assert not list(keys_without_meaning(schema, schema["$defs"]))


def test_what_counts_as_a_sentence() -> None:
    words = " ".join(["word"] * LONGEST)
    assert not too_long(f"Words. {words.capitalize()}.")
    assert too_long(f"{words} more.\n") == [f"{words} more."]
    assert len(too_long(f"- {words}: more\n- {words} more\n\n{words} more")) == 3
    assert not too_long(f"{words}; {words.capitalize()}\n\n{words}")
    for left_out in ("# {}", "| {} |", "```sh\n{}\n```", "\n\n    {}", "`{}`", "![{}](a.png)"):
        assert not too_long(left_out.format(f"{words} more"))
    assert sentences("See [a page](of/two words.md). Then `a b c`.") == ["See a page.", "Then CODE."]
