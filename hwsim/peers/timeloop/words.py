"""Timeloop's small languages: factors (`R=3 P<=16`), permutations (`PRK`), and lists of data spaces."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from hwsim.peers.tagged_yaml import Item

FACTOR = re.compile(r"([A-Za-z_][A-Za-z_0-9]*?)\s*(<=|>=|=)?\s*(\d{1,12})")


@dataclass(frozen=True)
class Factor:
    """`dim relation number`; `remainder` is the size of the last block where it is smaller."""

    dim: str
    relation: str
    number: int
    remainder: int | None = None


def read_factors(item: Item | None, dims: Collection[str], what: str) -> list[Factor]:
    """A string or a list of factors. Raises SpecError for anything that is none."""
    if item is None or item.value is None:
        return []
    if isinstance(item.value, list):
        pieces = [(part, part.text(what)) for part in item.value]
    else:
        pieces = [(item, item.text(what))]
    tokens = [(part, token) for part, text in pieces for token in re.split(r"[\s,]+", squeezed(text)) if token]
    found: list[Factor] = []
    for part, token in tokens:
        if token.isdigit() and found and found[-1].remainder is None:
            last = found.pop()
            found.append(Factor(last.dim, last.relation, last.number, int(token)))
            continue
        match = FACTOR.fullmatch(token)
        if match is None:
            raise part.error(f"{what}: expected factors such as R=3, P<=4 or P=4,3, got {token!r}")
        known(part, match[1], dims, what)
        if any(other.dim == match[1] and other.relation == (match[2] or "=") for other in found):
            raise part.error(f"{what}: {match[1]} stands twice")
        found.append(Factor(match[1], match[2] or "=", int(match[3])))
    return found


def squeezed(text: str) -> str:
    """No blanks around relations, so that blanks part factors."""
    return re.sub(r"\s*(<=|>=|=)\s*", r"\1", text)


def known(item: Item, dim: str, dims: Collection[str], what: str) -> None:
    """Refuse a loop that the problem does not have."""
    if dim not in dims:
        raise item.error(f"{what}: unknown loop {dim!r}; the problem has {', '.join(sorted(dims))}")


def read_permutation(item: Item | None, dims: Collection[str], what: str) -> list[str]:
    """Loops of a permutation, innermost first, as written; `_` (which parts inner from outer ones) is left out."""
    return [word for word in read_turns(item, dims, what) if word != "_"]


def read_turns(item: Item | None, dims: Collection[str], what: str) -> list[str]:
    """Loops of a permutation, innermost first, with `_` where it stands for all others."""
    if item is None or item.value is None:
        return []
    if isinstance(item.value, list):
        words: Sequence[str] = [part.text(what) for part in item.value]
    else:
        text = item.text(what)
        words = [token for word in re.split(r"[\s,]+", text.strip()) for token in tokens(word, dims)]
    found: list[str] = []
    for word in words:
        if not word:
            continue
        if word != "_":
            known(item, word, dims, what)
        if word in found:
            raise item.error(f"{what}: {word} stands twice")
        found.append(word)
    return found


def tokens(text: str, dims: Collection[str]) -> list[str]:
    """`PRK` as P, R, K: a word is one loop's name, or one letter each where these are loops."""
    return list(text) if text not in dims and set(text) <= {*dims, "_"} else [text]


def read_spaces(item: Item | None, spaces: Collection[str], what: str) -> set[str]:
    """Names of data spaces; `*` is all of them."""
    if item is None or item.value is None:
        return set()
    found: set[str] = set()
    for part in item.value if isinstance(item.value, list) else [item]:
        name = part.text(what)
        if name == "*":
            found |= set(spaces)
        elif name not in spaces:
            given = ", ".join(sorted(spaces))
            raise part.error(f"{what}: unknown data space {name!r}; known: {given} (give the problem's file, too)")
        else:
            found.add(name)
    return found
