"""Compiles the search kernel while the package is installed, so that no first run waits for it."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Puts the compiled kernel beside its source; without a compiler there is none and the search uses numpy."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before a wheel or an editable install is built."""
        folder = Path(self.root) / "hwsim" / "search" / "proof"
        found = importlib.util.spec_from_file_location("compiler", folder / "compiler.py")
        assert found is not None
        assert found.loader is not None
        module = importlib.util.module_from_spec(found)
        found.loader.exec_module(module)
        compiler = module.find_compiler()
        if not compiler:
            return
        path = module.SOURCE.with_name(module.file_name(compiler))
        try:
            module.compile_to(compiler, path)
        except (OSError, subprocess.SubprocessError):
            return  # as without a compiler: the first run tries again
        if version != "editable":
            build_data["force_include"][str(path)] = f"hwsim/search/proof/kernel/{path.name}"
            build_data["pure_python"] = False
            build_data["infer_tag"] = True
