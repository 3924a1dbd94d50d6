"""The exceptions a user may meet, each with its exit code, and how every command ends with it.

Every message says where (file:line: key, or layer), what was expected, what was found, and the way out.
Exit codes: 2 for bad input, 3 for a request that is well formed but infeasible on this machine.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from hwsim.console import printable_lines, unwritten, work_begins, work_ends
from hwsim.ctrl_c import INTERRUPTED

MAX_LINES, MAX_LINE = 60, 1000  # of a message


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


class RequestError(HwsimError, ValueError):
    """An argument of a command or function that means nothing; the message lists the right ones."""


class InfeasibleMapping(HwsimError):
    """A layer that fits nowhere; names the smallest need and the memory that lacks it.

    The same as data, where one memory is what lacks room: `memory` by name, `need_bits` that the smallest tiles take
    there, `room_bits` that it has; `layer` wherever one layer is meant. None where the reason is another.
    """

    exit_code = 3

    def __init__(
        self,
        message: str,
        *,
        layer: str | None = None,
        memory: str | None = None,
        need_bits: int | None = None,
        room_bits: int | None = None,
    ) -> None:
        super().__init__(message)
        self.layer, self.memory, self.need_bits, self.room_bits = layer, memory, need_bits, room_bits

    @property
    def need(self) -> int | None:
        """`need_bits`."""
        return self.need_bits

    @property
    def room(self) -> int | None:
        """`room_bits`."""
        return self.room_bits


def exit_code_of(run: Callable[[], int | None], *also: type[Exception]) -> int:
    """Run a command's work: its own exit code (None is 0), or that of what stopped it, told in one message on stderr.

    `also`: exceptions of other packages that are the input's fault too.
    """
    try:
        code = attempt(run, *also)
    except SystemExit as leaving:  # --help, or an argument that means nothing
        code = leaving.code
        if code or (lost := unwritten()) is None:
            raise
        raise SystemExit(complain(f"standard output: {lost}")) from None
    lost = unwritten()
    return code if lost is None else complain(f"standard output: {lost}", code or 2)


def attempt(run: Callable[[], int | None], *also: type[Exception]) -> int:
    """The exit code of a command's work, its errors told in one message."""
    try:
        work_begins()
        code = run() or 0
        work_ends()
        return code
    except HwsimError as problem:
        return complain(str(problem), problem.exit_code)
    except OSError as problem:
        return complain(f"{problem.filename}: {problem.strerror}" if problem.filename else str(problem))
    except also as problem:
        return complain(str(problem))
    except KeyboardInterrupt:
        work_ends()
        return complain("interrupted", INTERRUPTED)


def reason(problem: Exception) -> str:
    """What went wrong with a file, without its name and the system's number for it."""
    return (problem.strerror if isinstance(problem, OSError) else None) or str(problem)


def complain(message: str, code: int = 2) -> int:
    """One message on stderr, control characters escaped, of a length that a person can read; the exit code."""
    print(f"hwsim: {printable_lines(readable(message))}", file=sys.stderr)
    return code


def readable(message: str) -> str:
    """The first lines of a message, long ones shortened: a file may be wrong in a million places."""
    lines = message.split("\n")
    shown = [shortened(line, MAX_LINE) for line in lines[:MAX_LINES]]
    return "\n".join([*shown, f"and {len(lines) - MAX_LINES:,} more"] if len(lines) > MAX_LINES else shown)


def shortened(text: str, most: int) -> str:
    """A text with its middle left out where it is longer.

    >>> shortened("0123456789", 7)
    '01 ... 89'
    """
    half = most // 2 - 1
    return text if len(text) <= most else f"{text[:half]} ... {text[-half:]}"
