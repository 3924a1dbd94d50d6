# pyright: basic
"""What other packages add, as entry points: kinds of MODEL, operators and MAC styles.

An importer's name is a prefix: `toy = "package:read"` makes `toy:REST` call `read(REST, input_shape)`, which returns a
Workload or a pair (torch module, example input). An operator's name is its library's and its own, as in
`mylib.swish`; its value is a handler like those of `frontends/lowering`. A MAC style's name has the same form;
its value is a function that machine/mac_plugin.py asks. Code runs when its prefix or style is named or its operator is
met, never before. What this package has itself cannot be replaced.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from hwsim.errors import WorkloadError

IMPORTERS = "hwsim.importers"
OPERATORS = "hwsim.operators"
MAC_STYLES = "hwsim.mac_styles"


def importer(prefix: str) -> Callable[[str, Any], Any] | None:
    """The function behind a prefix of MODEL; None: no installed package has it."""
    return plugin(IMPORTERS, prefix)


def operator(name: str) -> Callable[[Any, Any], None] | None:
    """The handler of an operator; None: no installed package has it."""
    return plugin(OPERATORS, name)


def mac_style(name: str) -> Callable[[Any, int, int], Any] | None:
    """What a MAC of a style costs at given widths; None: no installed package has it."""
    return plugin(MAC_STYLES, name)


def plugin(group: str, name: str) -> Callable[..., Any] | None:
    """What one package registers under a name. Raises WorkloadError where several do, or where it cannot be used."""
    found = list(entry_points(group=group, name=name))
    if not found:
        return None
    if len({entry.value for entry in found}) > 1:
        owners = ", ".join(sorted(owner(entry) for entry in found))
        raise WorkloadError(f"{name}: several packages add it to {group}: {owners}; uninstall all but one")
    entry = found[0]
    try:
        value = entry.load()
    except Exception as problem:  # a plug-in's import may fail in any way
        raise WorkloadError(
            f"{name}: the plug-in {entry.value} of {owner(entry)} cannot be loaded: {type(problem).__name__}: {problem}"
        ) from None
    if not callable(value):
        raise WorkloadError(f"{name}: the plug-in {entry.value} of {owner(entry)} is no function")
    return value


def owner(entry: EntryPoint) -> str:
    """The package that has it."""
    return entry.dist.name if entry.dist is not None else "an unknown package"
