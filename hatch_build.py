"""Compiles the search kernel while the package is installed, so that no first run waits for it.

With HWSIM_PORTABLE=1 the kernel is for every processor of its kind and the wheel for every Python 3.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import sysconfig
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
        portable = os.environ.get("HWSIM_PORTABLE") == "1"
        try:
            path = kernel.compile_into(kernel.source.parent, portable=portable)
        except (OSError, subprocess.SubprocessError):
            if portable:
                raise  # a wheel without its kernel would be one that proves nothing
            return  # as without a compiler: the first run tries again
        if version != "editable":
            build_data["force_include"][str(path)] = f"hwsim/search/proof/kernel/{path.name}"
            build_data["pure_python"] = False
            if portable:
                build_data["tag"] = "py3-none-" + sysconfig.get_platform().replace("-", "_").replace(".", "_")
            else:
                build_data["infer_tag"] = True
