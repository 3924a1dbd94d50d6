"""A study's memory on disk: one line per finished trial, appended and flushed before anything builds on it.

A folder holds `study.json` (the identity of everything its results depend on) and `journal.jsonl`. A line cut short by
a crash is dropped on opening, a damaged one is named, kept aside and its trial done again; one driver at a time may
hold a study. So after a crash at any moment every finished trial is there, once.
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
from hwsim.files.identity import Identity, content_hash, read_identity
from hwsim.files.reading import is_finite, read_text

FORMAT, FORMAT_VERSION = "hwsim-study", 3  # 3: every line carries its hash
SEAL = "hash"
MAX_TRIALS = 2**53
STATUSES = ("ok", "over", "infeasible")
Record = dict[str, Any]


class Journal:
    """Finished trials by number. Use as a context manager; raises SpecError for another study, naming what changed."""

    def __init__(self, folder: Path, asked: Identity, text: str = "") -> None:
        self.folder, self.asked, self.text = folder, asked, text
        self.damaged: list[str] = []
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
            self.recover(self.folder / "journal.jsonl")
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
            header = {"format": FORMAT, "format_version": FORMAT_VERSION, "identity": self.asked.to_dict(),
                      "space": self.text}  # fmt: skip
            write_atomically(path, json.dumps(header, indent=1) + "\n")
            return
        try:
            found = json.loads(read_text(path))
            version = (found["format"], found["format_version"])
            there = read_identity(found["identity"]) if version == (FORMAT, FORMAT_VERSION) else None
        except (ValueError, KeyError, TypeError, RecursionError):
            there = None
        if there is None:
            raise SpecError(f"{path}: not the header of a study of this version: name another --out")
        changed = self.asked.differences(there)
        if changed:
            raise SpecError(
                f"{path}: the study there is another one, since it began this changed: {', '.join(changed)}: name "
                "another --out, or restore what it was"
            )

    def recover(self, path: Path) -> None:
        """Read the lines there are. A line that is no trial is named in `damaged`, kept aside and tried anew."""
        if path.exists() and not path.is_file():
            raise SpecError(f"{path}: expected a file of trials, found a folder or a device: name another --out")
        content = path.read_bytes() if path.exists() else b""
        lines = content.split(b"\n")
        cut = lines.pop()  # what a crash left behind the last whole line
        good: list[bytes] = []
        bad: list[bytes] = []
        for number, line in enumerate(lines, start=1):
            record = trial_of(line)
            if record is None:
                self.damaged.append(f"{path}:{number}: not a trial, it is tried again: {line[:60]!r}")
                bad.append(line)
            elif record["trial"] not in self.records:
                self.records[record["trial"]] = record
                good.append(line)
        if bad:
            aside = path.with_name("journal.damaged")
            before = aside.read_bytes() if aside.exists() else b""
            write_atomically(aside, before + b"".join(line + b"\n" for line in bad))
        if bad or cut:
            write_atomically(path, b"".join(line + b"\n" for line in good))
        self.file = path.open("ab")

    def append(self, records: Iterable[Record]) -> None:
        """Add finished trials; on return they are on the disk. A trial that is there already is left alone."""
        assert self.file is not None
        fresh = [record for record in records if int(record["trial"]) not in self.records]
        if fresh:
            self.file.write(b"".join(sealed(record) + b"\n" for record in fresh))
            self.file.flush()
            os.fsync(self.file.fileno())
            self.records.update({int(record["trial"]): record for record in fresh})


def sealed(record: Record) -> bytes:
    """A journal's line: the record and a hash of it, so that a changed digit is damage like any other."""
    return json.dumps({**record, SEAL: content_hash(record)}, allow_nan=False).encode()


def trial_of(line: bytes) -> Record | None:
    """The trial of a journal's line, or None where the line is not one as `sealed` writes it."""
    try:
        found = json.loads(line)
        record = {key: value for key, value in found.items() if key != SEAL}
        whole = found[SEAL] == content_hash(record)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return record if whole and is_trial(record) else None


def is_origin(told: Any) -> bool:
    """Whether it says how many layers tables over machines answered, and which ones they left to their own proofs."""
    names = told["proven_anew"]
    count = told["answered"]
    return type(count) is int and count >= 0 and isinstance(names, list) and all(isinstance(n, str) for n in names)


def is_trial(record: Any) -> bool:
    """Whether it says of one trial what a journal holds: a number, parameters, a status, its reason, finite values."""
    try:
        return (
            type(record["trial"]) is int
            and 0 <= record["trial"] < MAX_TRIALS
            and isinstance(record["parameters"], dict)
            and record["status"] in STATUSES
            and isinstance(record["why"], str)
            and all(type(v) in (int, float) and is_finite(v) for v in record["values"].values())
            and ("tables" not in record or is_origin(record["tables"]))
        )
    except (KeyError, TypeError, AttributeError, OverflowError):
        return False
