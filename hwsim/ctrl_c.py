"""Ctrl-C before a command has taken the signal over, and wherever no other code handles it: one line, no traceback.

Imported by the package before anything else, so it imports what Python has loaded already.
"""

from __future__ import annotations

import os
import sys
from types import TracebackType

INTERRUPTED = 130  # exit code, as a shell gives it


def end() -> None:
    """Say one line and end the process at once."""
    os.write(2, b"hwsim: interrupted\n")
    os._exit(INTERRUPTED)


def uncaught(kind: type[BaseException], problem: BaseException, trace: TracebackType | None) -> None:
    """What Python calls with an exception that nothing caught."""
    if issubclass(kind, KeyboardInterrupt):
        end()
    sys.__excepthook__(kind, problem, trace)


sys.excepthook = uncaught
