"""Entries of handler tables: aten's names for several operators at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from hwsim.frontends.lowering.lower import Handler


def named(names: Iterable[str], handler: Handler) -> dict[str, Handler]:
    """The same handler for several aten operators."""
    return {f"aten.{name}": handler for name in names}


def each(table: dict[str, str], make: Callable[[str], Handler]) -> dict[str, Handler]:
    """One handler per aten operator, made from the table's entry."""
    return {f"aten.{name}": make(entry) for name, entry in table.items()}
