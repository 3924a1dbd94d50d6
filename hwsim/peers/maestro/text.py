"""MAESTRO's text: layers with sizes, strides and a dataflow each; `//` comments, constants, sums of sizes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from hwsim.peers.tagged_yaml import Item

TOKEN = re.compile(r"\s+|//[^\n]*|/\*.*?\*/|([A-Za-z_][\w']*|\d+|[{}():,;+-])", re.DOTALL)
MAX_TOKENS, MAX_LAYERS, MAX_SIZE = 200_000, 10_000, 2**32
DIMS = ("N", "G", "K", "C", "R", "S", "Y", "X", "Y'", "X'", "M")


@dataclass(frozen=True)
class Directive:
    """`TemporalMap(size, offset) dim`, `SpatialMap(size, offset) dim` or `Cluster(size, P)`; sizes as sums of terms."""

    kind: str
    size: tuple[tuple[int, int | str], ...]
    offset: tuple[tuple[int, int | str], ...]
    dim: str
    place: Item

    def value(self, terms: tuple[tuple[int, int | str], ...], sizes: Mapping[str, int]) -> int:
        """A sum for a layer of these sizes. Raises SpecError where it is not above zero."""
        total = 0
        for sign, term in terms:
            if isinstance(term, str) and term not in sizes:
                raise self.place.error(f"{self.kind}: Sz({term}): the layer has no dimension {term}")
            total += sign * (term if isinstance(term, int) else sizes[term])
        if not 1 <= total <= MAX_SIZE:
            raise self.place.error(f"{self.kind}: expected a size from 1, got {total}")
        return total


@dataclass(frozen=True)
class Entry:
    """A layer as written."""

    name: str
    kind: str
    sizes: Mapping[str, int]
    stride: Mapping[str, int]
    dilation: Mapping[str, int]
    flow: tuple[Directive, ...]
    place: Item


class Reader:
    """Reads one file, token by token."""

    def __init__(self, text: str, file: str) -> None:
        self.file, self.at = file, 0
        self.tokens: list[tuple[str, int]] = []
        self.constants: dict[str, int] = {}
        here, line = 0, 1
        while here < len(text):
            match = TOKEN.match(text, here)
            if match is None:
                raise Item(None, file, line).error(f"unexpected {text[here]!r}")
            if match[1]:
                self.tokens.append((match[1], line))
            if len(self.tokens) > MAX_TOKENS:
                raise Item(None, file, line).error(f"more than {MAX_TOKENS:,} words")
            line += match[0].count("\n")
            here = match.end()
        self.tokens.append(("", line))

    @property
    def place(self) -> Item:
        """Where the next word stands."""
        return Item(None, self.file, self.tokens[self.at][1])

    @property
    def word(self) -> str:
        """The next word; empty at the end."""
        return self.tokens[self.at][0]

    def take(self, *expected: str) -> str:
        """The next word, which has to be one of `expected` where these are given."""
        word = self.word
        if not word or (expected and word not in expected):
            raise self.place.error(
                f"expected {' or '.join(expected) or 'a word'}, got {word or 'the end of the file'!r}"
            )
        self.at += 1
        return word

    def skip(self, *words: str) -> None:
        """Pass over words that may be left out."""
        while self.word in words:
            self.at += 1

    def number(self) -> int:
        """A whole number or a constant."""
        place, word = self.place, self.take()
        if word in self.constants:
            return self.constants[word]
        if not word.isdigit() or int(word) > MAX_SIZE:
            raise place.error(f"expected a whole number up to {MAX_SIZE:,} or a Constant, got {word!r}")
        return int(word)

    def entries(self) -> list[Entry]:
        """All layers of all networks."""
        found: list[Entry] = []
        while self.word:
            if self.take("Constant", "Network") == "Constant":
                place, name = self.place, self.take()
                if name in self.constants:
                    raise place.error(f"Constant {name} stands twice: keep one")
                self.constants[name] = self.number()
                self.take(";")
                continue
            self.take()
            self.take("{")
            while self.word != "}":
                found.append(self.layer())
                if len(found) > MAX_LAYERS:
                    raise self.place.error(f"more than {MAX_LAYERS:,} layers")
            self.take("}")
        return found

    def layer(self) -> Entry:
        """`Layer NAME { Type: T Stride {...} Dimensions {...} Dataflow {...} }`."""
        place = self.place
        self.take("Layer")
        name, kind, flow = self.take(), "", tuple[Directive, ...]()
        sizes: dict[str, dict[str, int]] = {"Stride": {}, "Dimensions": {}, "Dilation": {}}
        self.take("{")
        while self.word != "}":
            key = self.take("Type", "Stride", "Dilation", "Dimensions", "Dataflow")
            if key == "Type":
                self.take(":")
                kind = self.take()
            elif key == "Dataflow":
                flow = self.dataflow()
            else:
                sizes[key] = self.sizes()
            self.skip(",", ";")
        self.take("}")
        if not kind or not sizes["Dimensions"]:
            raise place.error(f"layer {name}: expected a Type and Dimensions")
        return Entry(name, kind, sizes["Dimensions"], sizes["Stride"], sizes["Dilation"], flow, place)

    def sizes(self) -> dict[str, int]:
        """`{ K: 64, C: 3 }`."""
        found: dict[str, int] = {}
        self.skip(":")
        self.take("{")
        while self.word != "}":
            place, dim = self.place, self.take(*DIMS)
            if dim in found:
                raise place.error(f"{dim} stands twice")
            self.take(":")
            place = self.place
            found[dim] = self.number()
            if not found[dim]:
                raise place.error(f"{dim}: expected a size from 1, got 0")
            self.skip(",")
        self.take("}")
        return found

    def dataflow(self) -> tuple[Directive, ...]:
        """Directives, outermost first."""
        found: list[Directive] = []
        self.skip(":")
        self.take("{")
        while self.word != "}":
            place, kind = self.place, self.take("TemporalMap", "SpatialMap", "Cluster")
            self.take("(")
            size = self.terms()
            self.take(",")
            offset: tuple[tuple[int, int | str], ...] = ()
            if kind == "Cluster":
                self.take("P", "L")
            else:
                offset = self.terms()
            self.take(")")
            found.append(Directive(kind, size, offset, "" if kind == "Cluster" else self.take(*DIMS), place))
            self.skip(";")
        self.take("}")
        return tuple(found)

    def terms(self) -> tuple[tuple[int, int | str], ...]:
        """`8 + Sz(S) - 1`."""
        found: list[tuple[int, int | str]] = []
        sign = 1
        while True:
            if self.word == "Sz":
                self.take()
                self.take("(")
                found.append((sign, self.take(*DIMS)))
                self.take(")")
            else:
                found.append((sign, self.number()))
            if self.word not in ("+", "-"):
                return tuple(found)
            sign = 1 if self.take() == "+" else -1
