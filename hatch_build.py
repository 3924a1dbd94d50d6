"""Compiles the search kernel while the package is installed, so that no first run waits for it."""

from __future__ import annotations

import importlib
import subprocess
import sys
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Puts the compiled kernel beside its source; without a compiler there is none."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before a wheel or an editable install is built."""
        sys.path.insert(0, self.root)
        try:
            kernel = importlib.import_module("hwsim.search.proof.compiler").KERNEL
        finally:
            sys.path.remove(self.root)
        try:
            path = kernel.compile_into(kernel.source.parent)
        except (OSError, subprocess.SubprocessError):
            return  # as without a compiler: the first run tries again
        if version != "editable":
            build_data["force_include"][str(path)] = f"hwsim/search/proof/kernel/{path.name}"
            build_data["pure_python"] = False
            build_data["infer_tag"] = True
