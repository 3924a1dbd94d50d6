"""Attributes of Timeloop components: inherited from containers and variables, evaluated when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hwsim.peers.expressions import ExpressionError, evaluate
from hwsim.peers.tagged_yaml import Item

PLACEHOLDERS = ("SET ME", "must_specify", "SPECIFY ME")
MISSING = object()


class Scope(Mapping[str, Any]):
    """Names and their items, with those of the enclosing scope behind them; `leaves` are earlier components by name."""

    def __init__(self, items: Mapping[str, Item], above: Scope | None, leaves: Mapping[str, Any] | None = None) -> None:
        self.own = {key.replace("-", "_"): item for key, item in items.items()}
        self.above = above
        self.leaves: Mapping[str, Any] = leaves if leaves is not None else above.leaves if above is not None else {}
        self.active: set[str] = set()

    def item(self, name: str) -> Item | None:
        """The item of a name, own or inherited."""
        if name in self.own and name not in self.active:
            return self.own[name]
        return self.above.item(name) if self.above is not None else None

    def __getitem__(self, name: str) -> Any:
        if name in self.own and name not in self.active:
            self.active.add(name)
            try:
                return self.value(self.own[name])
            finally:
                self.active.discard(name)
        if self.above is not None:
            try:
                return self.above[name]
            except KeyError:
                if name in self.active:
                    raise ExpressionError(f"{name!r} is defined by itself") from None
        if name in self.leaves:
            return self.leaves[name]
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str):
            return False
        return name in self.own or (self.above is not None and name in self.above) or name in self.leaves

    def __iter__(self) -> Iterator[str]:
        seen = set(self.own) | set(self.above if self.above is not None else ()) | set(self.leaves)
        return iter(seen)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def value(self, item: Item) -> Any:
        """What an item says: its number or quoted text, or its expression's value. Raises SpecError with its place."""
        if isinstance(item.value, (dict, list)):
            raise item.error(f"expected a value, got {item.kind}")
        if not isinstance(item.value, str):
            return item.value
        text = item.value.strip()
        if text in PLACEHOLDERS:
            raise item.error(f"{text!r} is a place-holder: give the value")
        if item.quoted and not (text.startswith("(") and text.endswith(")")):
            return text
        try:
            return evaluate(text, self)
        except ExpressionError as problem:
            raise item.error(f"{text!r}: {problem}") from None
        except KeyError as problem:
            raise item.error(f"{text!r}: unknown name {problem}") from None

    def get_value(self, name: str, default: Any = None) -> Any:
        """The value of a name; the default where it is absent or null."""
        if self.item(name) is None:
            return default
        found = self[name]
        return default if found is None else found

    def number(self, name: str, default: float | None = None, low: float = 0.0) -> float | None:
        """A number of at least `low`."""
        item, value = self.item(name), self.get_value(name, default)
        if value is None or item is None:
            return default
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= 1e15:
            raise item.error(f"{name}: expected a number from {low:g} to 1e15, got {value!r}")
        return value

    def whole(self, name: str, default: int | None = None) -> int | None:
        """A whole number above zero."""
        item, value = self.item(name), self.number(name, default)
        if value is None or item is None:
            return default
        if value != int(value) or value < 1:
            raise item.error(f"{name}: expected a whole number above 0, got {value:g}")
        return int(value)

    def first(self, *names: str) -> int | None:
        """The first of several names for one whole number."""
        return next((value for name in names if (value := self.whole(name)) is not None), None)

    @property
    def data_bits(self) -> int | None:
        """Bits of one element (word-bits up to v3)."""
        return self.first("datawidth", "word_bits", "word_width")

    def text(self, name: str, default: str = "") -> str:
        """A text, taken as written: class names and technologies are no expressions."""
        item = self.item(name)
        if item is None or item.value is None:
            return default
        return item.text(name)
