"""Sentences of the pages stay short enough for a reader whose English is a third language."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LONGEST = 25
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "accel_specs/README.md",
    "networks/README.md",
    "docs/coming_from.md",
    "docs/counting.md",
    "docs/energy_laws.md",
    "docs/exploration.md",
    "docs/exploration_results.md",
    "docs/formats.md",
    "docs/gallery.md",
    "docs/glossary.md",
    "docs/index.md",
    "docs/integer.md",
    "docs/networks.md",
    "docs/plugins.md",
    "docs/quantization.md",
    "docs/repricing.md",
    "docs/results.md",
    "docs/search_results.md",
    "docs/tables.md",
    "docs/training.md",
    "docs/training_results.md",
    "docs/worked_example.md",
    "docs/tutorial/explore.md",
    "docs/tutorial/first_price.md",
    "docs/tutorial/language_model.md",
    "docs/tutorial/own_accelerator.md",
    "docs/tutorial/own_network.md",
    "docs/tutorial/train_verify_price.md",
)
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


@pytest.mark.parametrize("page", PAGES)
def test_no_sentence_is_too_long(page: str) -> None:
    found = too_long((ROOT / page).read_text(encoding="utf-8"))
    assert not found, f"{page}: more than {LONGEST} words:\n" + "\n".join(f"{len(s.split())}: {s}" for s in found)


def test_what_counts_as_a_sentence() -> None:
    words = " ".join(["word"] * LONGEST)
    assert not too_long(f"Words. {words.capitalize()}.")
    assert too_long(f"{words} more.\n") == [f"{words} more."]
    assert len(too_long(f"- {words}: more\n- {words} more\n\n{words} more")) == 3
    assert not too_long(f"{words}; {words.capitalize()}\n\n{words}")
    for left_out in ("# {}", "| {} |", "```sh\n{}\n```", "\n\n    {}", "`{}`", "![{}](a.png)"):
        assert not too_long(left_out.format(f"{words} more"))
    assert sentences("See [a page](of/two words.md). Then `a b c`.") == ["See a page.", "Then CODE."]
