"""A study's memory on disk: one line per finished trial, appended and flushed before anything builds on it.

A folder holds `study.json` (which space it belongs to) and `journal.jsonl`. A line cut short by a crash is dropped on
opening; one driver at a time may hold a study. So after a crash at any moment every finished trial is there, once.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

from hwsim.errors import SpecError
from hwsim.files.atomic import write_atomically

FORMAT, FORMAT_VERSION = "hwsim-study", 1
Record = dict[str, Any]


class Journal:
    """Finished trials by number. Use as a context manager; raises SpecError for a study of another space."""

    def __init__(self, folder: Path, fingerprint: str, text: str = "") -> None:
        self.folder, self.fingerprint, self.text = folder, fingerprint, text
        self.records: dict[int, Record] = {}
        self.file: IO[bytes] | None = None
        self.lock: IO[bytes] | None = None

    def __enter__(self) -> Journal:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.lock = (self.folder / ".lock").open("ab")
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.lock.close()
            raise SpecError(
                f"{self.folder}: another process works on this study: wait, or name another --out"
            ) from None
        try:
            self.check_header()
            path = self.folder / "journal.jsonl"
            self.file = path.open("ab+")
            self.recover(path)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for file in (self.file, self.lock):
            if file is not None:
                file.close()

    def check_header(self) -> None:
        """Write the header of a new study, or compare it."""
        path = self.folder / "study.json"
        if not path.exists():
            header = {"format": FORMAT, "format_version": FORMAT_VERSION, "fingerprint": self.fingerprint,
                      "space": self.text}  # fmt: skip
            write_atomically(path, json.dumps(header, indent=1) + "\n")
            return
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            same = found["format"] == FORMAT and found["fingerprint"] == self.fingerprint
        except (ValueError, KeyError, TypeError):
            raise SpecError(f"{path}: not the header of a study: name another --out") from None
        if not same:
            raise SpecError(f"{path}: the study there explores another space: name another --out, or restore its file")

    def recover(self, path: Path) -> None:
        """Read the lines there are, and cut off what a crash left behind the last whole one."""
        assert self.file is not None
        self.file.seek(0)
        content = self.file.read()
        whole = content.rfind(b"\n") + 1
        for number, line in enumerate(content[:whole].splitlines(), start=1):
            try:
                record = json.loads(line)
                trial = int(record["trial"])
            except (ValueError, KeyError, TypeError):
                raise SpecError(f"{path}:{number}: not a trial: the file was changed; remove the line") from None
            self.records.setdefault(trial, record)
        if whole < len(content):
            self.file.truncate(whole)
            os.fsync(self.file.fileno())

    def append(self, records: Iterable[Record]) -> None:
        """Add finished trials; on return they are on the disk. A trial that is there already is left alone."""
        assert self.file is not None
        fresh = [record for record in records if int(record["trial"]) not in self.records]
        if fresh:
            text = "".join(json.dumps(record, allow_nan=False) + "\n" for record in fresh)
            self.file.write(text.encode())
            self.file.flush()
            os.fsync(self.file.fileno())
            self.records.update({int(record["trial"]): record for record in fresh})
