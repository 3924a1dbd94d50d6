"""hwsim: what a quantized network costs on an accelerator.

    report = hwsim.evaluate("resnet18", "eyeriss_v1", bits="W4A4", effort="quick")

Every public name is listed in `__all__` and imported on first use, so `import hwsim` is fast. Saved workloads and zoo
names need no torch; torch modules, a zoo network at another input and network files do.
"""

from __future__ import annotations

import sys

if sys.argv[:1] == ["-m"] or "".join(sys.argv[:1]).endswith("/hwsim"):  # a command: Ctrl-C is one line from here on
    from hwsim import ctrl_c as ctrl_c

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hwsim.api import assign_bits, evaluate, explore_bits, extract, load_accelerator, load_workload, verify
    from hwsim.errors import (
        CapabilityError,
        HwsimError,
        InfeasibleMapping,
        RequestError,
        SpecError,
        UnsupportedOp,
        WorkloadError,
    )
    from hwsim.explore.bits.problem import InfeasibleBudget
    from hwsim.machine.load import shipped_specs
    from hwsim.machine.parts import Accelerator
    from hwsim.network.layer import Layer
    from hwsim.network.sharing import sharing_groups
    from hwsim.network.workload import Workload
    from hwsim.report.report import Report

__version__ = "0.1.0"
__all__ = [
    "Accelerator",
    "CapabilityError",
    "HwsimError",
    "InfeasibleBudget",
    "InfeasibleMapping",
    "Layer",
    "Report",
    "RequestError",
    "SpecError",
    "UnsupportedOp",
    "Workload",
    "WorkloadError",
    "__version__",
    "assign_bits",
    "evaluate",
    "explore_bits",
    "extract",
    "load_accelerator",
    "load_workload",
    "sharing_groups",
    "shipped_specs",
    "verify",
]

# Public name -> module that defines it; imported on first use.
PUBLIC = {
    **dict.fromkeys(
        ("assign_bits", "evaluate", "explore_bits", "extract", "load_accelerator", "load_workload", "verify"),
        "hwsim.api",
    ),
    **dict.fromkeys(
        (
            "CapabilityError",
            "HwsimError",
            "InfeasibleMapping",
            "RequestError",
            "SpecError",
            "UnsupportedOp",
            "WorkloadError",
        ),
        "hwsim.errors",
    ),
    "InfeasibleBudget": "hwsim.explore.bits.problem",
    "shipped_specs": "hwsim.machine.load",
    "Accelerator": "hwsim.machine.parts",
    "Layer": "hwsim.network.layer",
    "sharing_groups": "hwsim.network.sharing",
    "Workload": "hwsim.network.workload",
    "Report": "hwsim.report.report",
}


def __getattr__(name: str) -> Any:
    if name in PUBLIC:
        return getattr(importlib.import_module(PUBLIC[name]), name)
    raise AttributeError(f"module 'hwsim' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *PUBLIC})


class Package(ModuleType):
    """Keeps `hwsim.evaluate` the function: importing the command `hwsim.evaluate` would put its module over it."""

    def __setattr__(self, name: str, value: object) -> None:
        """As any module; but a submodule never hides a public name (`sys.modules` has it all the same)."""
        if not (name in PUBLIC and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = Package

if sys.argv[:1] == ["-m"]:  # `python -m hwsim.something`: this package is the first of its imports
    importlib.import_module("hwsim.console").prepare()
