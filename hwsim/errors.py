"""The exceptions a user may meet, each with its exit code, and how every command ends with it.

Every message says where (file:line: key, or layer), what was expected, what was found, and the way out.
Exit codes: 2 for bad input, 3 for a request that is well formed but infeasible on this machine.
"""

from __future__ import annotations

import sys
from collections.abc import Callable


class HwsimError(Exception):
    """Base of all errors that are the input's fault, never the program's."""

    exit_code = 2


class SpecError(HwsimError):
    """An accelerator, mapping or bits file that does not say what it must; lists every problem at once."""

    def __init__(self, problems: str | list[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class WorkloadError(HwsimError):
    """A model or saved workload that cannot be read, or whose shapes contradict each other."""


class UnsupportedOp(HwsimError):
    """An operator that nothing here can price; the message names it and `--allow-uncosted`."""


class CapabilityError(HwsimError):
    """Bits, signedness or an operator that the accelerator's capabilities exclude; names the rule."""

    exit_code = 3


class InfeasibleMapping(HwsimError):
    """A layer that fits nowhere; names the smallest need and the memory that lacks it."""

    exit_code = 3


def exit_code_of(run: Callable[[], int | None], *also: type[Exception]) -> int:
    """Run a command's work: its own exit code (None is 0), or that of what stopped it, told in one message on stderr.

    `also`: exceptions of other packages that are the input's fault too.
    """
    try:
        return run() or 0
    except HwsimError as problem:
        print(f"hwsim: {problem}", file=sys.stderr)
        return problem.exit_code
    except OSError as problem:
        where = f"{problem.filename}: {problem.strerror}" if problem.filename else str(problem)
        print(f"hwsim: {where}", file=sys.stderr)
        return 2
    except also as problem:
        print(f"hwsim: {problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("hwsim: interrupted", file=sys.stderr)
        return 130
