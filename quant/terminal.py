"""What quant's own commands print to: any encoding, a reader that leaves, a disk without room.

`hwsim train` has all that for every stream (hwsim/console.py); `python -m quant.train` knows no hwsim.
"""

from __future__ import annotations

import os
import sys
from typing import TextIO


class Printer:
    """Prints lines at once. What the stream no longer takes is dropped, and the work goes on.

    `problem`: why; None for a reader that has left (`| head -1`), who asked for no more.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self.stream = stream
        self.problem = "closed" if stream is None else None

    def __call__(self, line: str) -> None:
        stream = self.stream
        if stream is None:
            return
        try:
            print(line.encode(stream.encoding or "utf-8", "backslashreplace").decode(stream.encoding or "utf-8"),
                  file=stream, flush=True)  # fmt: skip
        except OSError as failure:
            self.problem = None if isinstance(failure, BrokenPipeError) else failure.strerror
            self.stream = None
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # what is buffered goes nowhere at the end

    def code(self, done: int) -> int:
        """The command's exit code: 2, with one line on stderr, where a result could not be printed."""
        if self.problem is None:
            return done
        complain(f"standard output: {self.problem}")
        return done or 2


def complain(problem: object) -> int:
    """One line on stderr; exit code 2."""
    Printer(sys.stderr)(f"hwsim: {problem}")
    return 2
