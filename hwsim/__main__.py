"""The console command `hwsim`: sub-commands, each imported only when it is asked for.

`hwsim evaluate ...` and `python -m hwsim.evaluate ...` are the same command.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable

from hwsim.console import prepare

# Command -> module that has its `main`, arguments that go before the user's, and what it does.
COMMANDS: dict[str, tuple[str, tuple[str, ...], str]] = {
    "evaluate": ("hwsim.evaluate", (), "energy, latency and memory of a network on an accelerator"),
    "table": ("hwsim.table", (), "a look-up table of layer costs for other tools"),
    "explain": ("hwsim.evaluate", ("--explain",), "evaluate, and what one bit fewer or more changes in each layer"),
    "explore": ("hwsim.explore.command", (), "bits per layer under budgets; machines of an exploration file"),
    "verify": ("hwsim.verify", (), "prove that a trained network runs on integers, code for code"),
    "export-c": ("hwsim.export_c", (), "a trained network as one C99 file of integers"),
    "export-onnx": ("hwsim.export_onnx", (), "a trained network as ONNX QDQ or QONNX"),
    "check": ("hwsim.accelerator", (), "read accelerator specs and list every mistake in them"),
    "train": ("quant.train", (), "train a network with learned step sizes and offsets"),
    "calibrate": ("quant.calibration", (), "quantize a trained network without training it"),
    "sensitivity": ("quant.sensitivity", (), "what each width of each layer costs in accuracy"),
    "convert": ("hwsim.convert", (), "other tools' files as networks, specs and mappings"),
    "compare": ("hwsim.compare", (), "reports side by side, in a table or as a page"),
}


def available() -> list[str]:
    """The commands of this installation. (`quant` is not looked for: finding it would import torch.)"""
    from importlib.util import find_spec

    modules = {name: entry[0] for name, entry in COMMANDS.items()}
    return [name for name, module in modules.items() if module.startswith("quant.") or find_spec(module) is not None]


def usage() -> str:
    """What there is."""
    lines = ["usage: hwsim COMMAND ...", "", "What a quantized network costs on an accelerator.", ""]
    lines += [f"  {name:<12} {COMMANDS[name][2]}" for name in available()]
    lines += ["", "`hwsim COMMAND --help` says more. Exit codes: 0 done; 1 not equal; 2 bad input; 3 infeasible."]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Run a sub-command; its exit code."""
    prepare()
    gc.set_threshold(100_000, 50, 50)  # circles are few here, and looking for them took a twentieth of the time
    work = command(sys.argv[1:] if arguments is None else arguments)
    from hwsim.errors import exit_code_of

    return exit_code_of(work)


def command(arguments: list[str]) -> Callable[[], int | None]:
    """The work that was asked for, its modules imported: until it runs, Ctrl-C ends at once."""
    name, *rest = arguments or ["--help"]
    if name in ("-h", "--help", "help"):
        return lambda: print(usage())
    if name == "--version":
        from hwsim import __version__

        return lambda: print(f"hwsim {__version__}")
    if name not in available():
        return lambda: unknown(name)
    from importlib import import_module

    module, before, _ = COMMANDS[name]
    main_of = import_module(module).main
    return lambda: main_of([*before, *rest])


def unknown(name: str) -> int:
    """Exit code for a word that is no command, with the nearest that is."""
    import difflib

    from hwsim.errors import complain

    near = difflib.get_close_matches(name, available(), 1)
    hint = f"did you mean {near[0]}? " if near else ""
    return complain(f"no command {name!r}; {hint}`hwsim --help` lists them")


if __name__ == "__main__":
    sys.exit(main())
