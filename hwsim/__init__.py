"""hwsim: what a quantized network costs on an accelerator.

The core (network, machine, nest, pricing, search, report) needs no torch; `extract` and
`integer` do, and are imported only when asked for.

    workload = hwsim.extract(model, example)            # or hwsim.load_workload("net.json")
    report = hwsim.evaluate(hwsim.assign_bits(workload, "W4A4"), hwsim.load_accelerator("eyeriss_v1"))
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

__version__ = "0.1.0"

# Public name -> module that defines it; imported on first use.
PUBLIC = {
    "assign_bits": "hwsim.network.bits",
    "sharing_groups": "hwsim.network.sharing",
    "load_workload": "hwsim.network.saved",
    "load_accelerator": "hwsim.machine.load",
    "extract": "hwsim.frontends.torch_export",
}
# Functions that have their module's name: calling the module calls the function.
CALLABLE_MODULES = ("evaluate",)


class CallableModule(ModuleType):
    """A module that can be called: it runs the function that has its name."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call `hwsim.evaluate.evaluate` as `hwsim.evaluate`, whichever way the module was imported."""
        return getattr(self, self.__name__.rpartition(".")[2])(*args, **kwargs)


def make_callable(name: str) -> None:
    """Let the module of that name be called; modules do this to themselves when they are imported."""
    sys.modules[name].__class__ = CallableModule


def __getattr__(name: str) -> Any:
    if name in PUBLIC:
        return getattr(importlib.import_module(PUBLIC[name]), name)
    if name in CALLABLE_MODULES:
        return importlib.import_module(f"hwsim.{name}")
    raise AttributeError(f"module 'hwsim' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *PUBLIC, *CALLABLE_MODULES])
