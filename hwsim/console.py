"""The terminal a command writes to: any encoding, any name, Ctrl-C at any moment, a reader that leaves.

Names come from other people's files. On screen, in tables and in pages their control characters are shown escaped
(`printable`), so no file moves a cursor or colours a terminal. A terminal without µ or ² gets u and 2 (`plain`).
What the reader of a pipe no longer takes is dropped, and the work goes on: files are written whole (`Sink`).
"""

from __future__ import annotations

import atexit
import codecs
import errno
import io
import os
import signal
import sys
import threading
from types import FrameType
from typing import TYPE_CHECKING, TextIO

from hwsim.ctrl_c import end

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

PLAIN = {"µ": "u", "²": "2", "×": "x", "±": "+-", "–": "-", "—": "-", "…": "...", "≥": ">=", "≤": "<=",
         "█": "#", "▓": "=", "▒": "-", "░": ":", "·": "."}  # fmt: skip


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


def wrote(path: object, what: str = "", *, file: TextIO | None = None) -> None:
    """Say that a file or folder was written, and what is in it; `file`: where, else on standard output."""
    print(f"wrote {printable(str(path))}{f': {what}' if what else ''}", file=file)


def plain(problem: UnicodeError) -> tuple[str, int]:
    """What to write for characters that a terminal's encoding lacks: a likeness, or their escape."""
    if not isinstance(problem, UnicodeEncodeError):
        raise problem
    lacking = problem.object[problem.start : problem.end]
    return "".join(PLAIN.get(c, c.encode("ascii", "backslashreplace").decode()) for c in lacking), problem.end


class Sink(io.FileIO):
    """An output's descriptor that never stops the work: what it cannot take is dropped.

    `problem`: why, for the command's last words; None for a reader that has left (`| head -1`), who asked for no more.
    """

    problem: str | None = None
    lost = False

    def write(self, data: ReadableBuffer, /) -> int:
        """All bytes, or those that were taken before the first failure."""
        if not self.lost:
            try:
                return super().write(data) or 0
            except OSError as failure:
                self.lost = True
                gone = isinstance(failure, BrokenPipeError) or failure.errno == errno.EIO  # EIO: the terminal is closed
                self.problem = None if gone else failure.strerror
        return memoryview(data).nbytes


def sunk(stream: TextIO | None, descriptor: int) -> TextIO:
    """The same output over a `Sink`. A stream that is somebody else's (a test's, a notebook's) stays as it is."""
    if stream is None:
        return io.TextIOWrapper(io.BufferedWriter(Sink(descriptor, "w", closefd=False)), "utf-8", "hwsim_plain")
    buffer = getattr(stream, "buffer", None)
    raw = getattr(buffer, "raw", buffer)
    if type(stream) is not io.TextIOWrapper or type(raw) is not io.FileIO or raw.fileno() != descriptor:
        return stream
    stream.flush()
    sink = io.BufferedWriter(Sink(descriptor, "w", closefd=False))
    return io.TextIOWrapper(sink, stream.encoding, stream.errors, line_buffering=stream.line_buffering,
                            write_through=stream.write_through)  # fmt: skip


def occupy() -> None:
    """Give closed standard descriptors back a file: else the next file that is opened would be what others print to.

    One that can only be read, so that writing to a closed output still fails.
    """
    while (free := os.open(os.devnull, os.O_RDONLY)) <= 2:
        os.set_inheritable(free, True)
    os.close(free)


def unwritten() -> str | None:
    """Why standard output did not take all that was printed, told once; None where it did or its reader left."""
    try:
        sys.stdout.flush()
    except (AttributeError, ValueError):  # closed by the program itself
        return None
    sink = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    if not isinstance(sink, Sink):
        return None
    problem, sink.problem = sink.problem, None
    return problem


def prepare() -> None:
    """Before a command's imports: no character, no Ctrl-C and no closed output ends in a traceback."""
    codecs.register_error("hwsim_plain", plain)
    occupy()
    sys.stdout, sys.stderr = sunk(sys.stdout, 1), sunk(sys.stderr, 2)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="hwsim_plain")
    if threading.current_thread() is threading.main_thread() and (
        signal.getsignal(signal.SIGINT) is signal.default_int_handler
    ):
        signal.signal(signal.SIGINT, stop_at_once)
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)  # Python's own default is a death without a word


def stop_at_once(number: int, frame: FrameType | None) -> None:
    """Ctrl-C while there is nothing to put away: imports may turn a KeyboardInterrupt into any other error."""
    end()


def interrupt(number: int, frame: FrameType | None) -> None:
    """Ctrl-C during work: a KeyboardInterrupt, so that open work is put away; within an import the end."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            end()
        frame = frame.f_back
    raise KeyboardInterrupt


def work_begins() -> None:
    """From here on Ctrl-C is a KeyboardInterrupt, so that open work is put away."""
    if signal.getsignal(signal.SIGINT) is stop_at_once:
        signal.signal(signal.SIGINT, interrupt)


def work_ends() -> None:
    """All is written or put away: Ctrl-C ends at once, and while Python takes itself down it changes nothing."""
    if signal.getsignal(signal.SIGINT) is interrupt:
        signal.signal(signal.SIGINT, stop_at_once)
