"""The terminal a command writes to: any encoding, any name, Ctrl-C at any moment.

Names come from other people's files. On screen, in tables and in pages their control characters are shown escaped
(`printable`), so no file moves a cursor or colours a terminal. A terminal without µ or ² gets u and 2 (`plain`).
"""

from __future__ import annotations

import codecs
import io
import os
import signal
import sys
import threading
from types import FrameType

PLAIN = {"µ": "u", "²": "2", "×": "x", "±": "+-", "–": "-", "—": "-", "…": "...", "≥": ">=", "≤": "<=",
         "█": "#", "▓": "=", "▒": "-", "░": ":", "·": "."}  # fmt: skip
INTERRUPTED = 130  # exit code, as a shell gives it


def printable(text: str) -> str:
    """The text with everything that is no visible character escaped; one line stays one line.

    >>> printable("conv\\x1b[31m")
    'conv\\\\x1b[31m'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def printable_lines(text: str) -> str:
    """`printable`, line by line."""
    return "\n".join(printable(line) for line in text.split("\n"))


def plain(problem: UnicodeError) -> tuple[str, int]:
    """What to write for characters that a terminal's encoding lacks: a likeness, or their escape."""
    if not isinstance(problem, UnicodeEncodeError):
        raise problem
    lacking = problem.object[problem.start : problem.end]
    return "".join(PLAIN.get(c, c.encode("ascii", "backslashreplace").decode()) for c in lacking), problem.end


def prepare() -> None:
    """Before a command's imports: no character and no Ctrl-C ends in a traceback."""
    codecs.register_error("hwsim_plain", plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="hwsim_plain")
    if threading.current_thread() is threading.main_thread() and (
        signal.getsignal(signal.SIGINT) is signal.default_int_handler
    ):
        signal.signal(signal.SIGINT, stop_at_once)


def stop_at_once(number: int, frame: FrameType | None) -> None:
    """Ctrl-C while there is nothing to put away yet: imports may turn a KeyboardInterrupt into any other error."""
    os.write(2, b"hwsim: interrupted\n")
    os._exit(INTERRUPTED)


def work_begins() -> None:
    """From here on Ctrl-C is a KeyboardInterrupt, so that open work is put away."""
    if signal.getsignal(signal.SIGINT) is stop_at_once:
        signal.signal(signal.SIGINT, signal.default_int_handler)
