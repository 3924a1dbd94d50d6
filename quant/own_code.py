"""Modules of the user's own: `package.module:function` names them in a command."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType


def own_module(name: str) -> ModuleType:
    """The module of that name, which may be a file in the current folder, as with `python -m`."""
    if "" not in sys.path:
        sys.path.insert(0, "")
    return importlib.import_module(name)
