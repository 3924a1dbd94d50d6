"""Files that others wrote, read up to a bound.

A path may be a device without an end, a file that grew to gigabytes, or no possible name; each is an OSError with its
reason, so that a reader tells it as it tells a missing file.
"""

from __future__ import annotations

import errno
import sys
from pathlib import Path

from hwsim.errors import SpecError, reason

MAX_BYTES = 2**28
_PIECE_BYTES = 2**18  # a reader asked for the whole bound at once makes room for it first, whatever the file holds


def read_bytes(path: Path, at_most: int = MAX_BYTES) -> bytes:
    """The file's content. Raises OSError where it cannot be opened or holds more than `at_most` bytes."""
    try:
        with path.open("rb") as file:
            pieces: list[bytes] = []
            left = at_most + 1
            while left and (piece := file.read(min(left, _PIECE_BYTES))):
                pieces.append(piece)
                left -= len(piece)
    except ValueError as problem:  # a NUL character in the name
        raise OSError(errno.EINVAL, str(problem), str(path)) from None
    if not left:
        raise OSError(errno.EFBIG, f"larger than {at_most // 1024:,} KiB", str(path))
    return b"".join(pieces)


def read_text(path: Path, at_most: int = MAX_BYTES) -> str:
    """The file's text. Raises OSError as `read_bytes` does, UnicodeDecodeError where it is no UTF-8."""
    return read_bytes(path, at_most).decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")


def is_a_file(text: str | Path) -> bool:
    """Whether a text names a regular file; one that can be no name of a file (300 letters, a NUL) does not.

    >>> is_a_file("W4A4"), is_a_file("x" * 300)
    (False, False)
    """
    try:
        return Path(text).is_file()
    except (OSError, ValueError):
        return False


def is_finite(value: float) -> bool:
    """Whether a number of a file is one that a float holds: integers of JSON may have any number of digits.

    >>> [is_finite(number) for number in (1, -2.5, 10**400, float("inf"), float("nan"))]
    [True, True, False, False, False]
    """
    return abs(value) <= sys.float_info.max


def hand_written(path: Path, at_most: int, kind: str) -> str:
    """The text of a file that a person writes. Raises SpecError where it is missing, a folder, too large or no text."""
    if path.is_dir():
        raise SpecError(f"{path}: is a folder: expected {kind}")
    try:
        return read_bytes(path, at_most).decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise SpecError(f"{path}: not a text file (byte {problem.start} is no UTF-8): expected {kind}") from None
    except OSError as problem:
        raise SpecError(f"{path}: cannot be read: {reason(problem)}: expected {kind}") from None
