"""Mutants tried inside one test session: collect once, note which test runs which line, then fork for each mutant.

In each fork the mutated functions get their new code in place, and only the tests that run the mutated line run, the
fastest first, until one fails. A mutant outside of functions (a constant of a module, a default) has no code to
change in place: it is tried in a fresh interpreter on a copy. A line that no test runs is a survivor.
"""

from __future__ import annotations

import ast
import gc
import json
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any

import pytest

from benchmarks.mutation import ROOT, Mutant, survives

BUDGET_SECONDS = 8  # of tests for one mutant, by their time without one
NOT_IN_PLACE = 71


@dataclass(frozen=True)
class Heard:
    """One test without a mutant: its processor time, and the lines of each file that it ran."""

    seconds: float
    lines: Mapping[str, frozenset[int]]


@dataclass
class Session:
    """A pytest plugin that tries mutants in place of running tests. `work(session)` is called once all is ready."""

    files: Sequence[str]
    work: Callable[[Session], None]
    items: dict[str, pytest.Item] = field(default_factory=dict)
    heard: dict[str, Heard] = field(default_factory=dict)
    failed: bool = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """In a fork: whether the test that just ran failed."""
        self.failed |= report.failed

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Instead of pytest's own loop."""
        self.items = {item.nodeid: item for item in session.items}
        self.heard = self.listen()
        self.work(self)
        return True

    def listen(self) -> dict[str, Heard]:
        """Every test once in a fork, traced; a test that fails without a mutant is named and left out."""
        with tempfile.NamedTemporaryFile("r") as told:
            number = os.fork()
            if not number:
                inside(lambda: self.tell(Path(told.name)))
            os.waitpid(number, 0)
            lines = [json.loads(line) for line in told]
        for line in lines:
            if line["failed"]:
                print(f"fails without a mutant, left out: {line['test']}", flush=True)
        return {
            line["test"]: Heard(line["seconds"], {file: frozenset(ran) for file, ran in line["lines"].items()})
            for line in lines if not line["failed"]
        }  # fmt: skip

    def tell(self, path: Path) -> int:
        """In a fork: a line of JSON for each test."""
        names = {str(ROOT / file): file for file in self.files}
        with path.open("w") as out:
            for test in self.items:
                ran: dict[str, set[int]] = {file: set() for file in self.files}
                began = time.process_time()
                sys.settrace(tracer(names, ran))
                self.run(test)
                sys.settrace(None)
                used = time.process_time() - began
                lines = {file: sorted(found) for file, found in ran.items() if found}
                print(json.dumps({"test": test, "failed": self.failed, "seconds": used, "lines": lines}), file=out,
                      flush=True)  # fmt: skip
                self.failed = False
        return 0

    def run(self, test: str) -> None:
        """One test with its fixtures, torn down afterwards."""
        item = self.items[test]
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)

    def outcome(self, mutant: Mutant, file: str) -> str:
        """killed, hang or survived."""
        tests = self.listeners(mutant.line, file)
        if not tests:
            return "survived"
        limit = int(5 + 2 * sum(self.heard[test].seconds for test in tests))
        number = os.fork()
        if not number:
            resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
            inside(lambda: self.try_in_place(mutant, file, tests))
        status = waited(number, 60 + 30 * limit)
        if os.WIFSIGNALED(status):
            return "hang" if os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL) else "killed"
        code = os.waitstatus_to_exitcode(status)
        if code == NOT_IN_PLACE:
            return "survived" if survives(mutant, Path(file), tests, 120 + 10 * limit) else "killed"
        return "killed" if code else "survived"

    def try_in_place(self, mutant: Mutant, file: str, tests: Sequence[str]) -> int:
        """In a fork: 0 where no test notices."""
        try:
            change_in_place(ROOT / file, mutant.text)
        except ValueError:
            return NOT_IN_PLACE
        for test in tests:
            self.run(test)
            if self.failed:
                return 1
        return 0

    def listeners(self, line: int, file: str) -> list[str]:
        """Tests that run a line, else any line of its function, the fastest first, within the budget of time.

        A line outside of functions (a constant, a default) is read without being run: every test may notice it.
        """
        around, found = function_around(ROOT / file, line), list(self.heard)
        for wanted in (range(line, line + 1), around) if around else ():
            found = [
                test for test, heard in self.heard.items() if not heard.lines.get(file, frozenset()).isdisjoint(wanted)
            ]
            if found:
                break
        found.sort(key=lambda test: self.heard[test].seconds)
        return list(affordable(found, self.heard))


def affordable(tests: Iterable[str], heard: Mapping[str, Heard]) -> Iterator[str]:
    """The first tests, as long as they stay within the budget; one at least."""
    used = 0.0
    for test in tests:
        if used > BUDGET_SECONDS:
            return
        used += heard[test].seconds
        yield test


def function_around(path: Path, line: int) -> range:
    """The lines of the function that a line is in; none where it is in none."""
    around = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)
              and node.lineno <= line <= (node.end_lineno or 0)]  # fmt: skip
    if not around:
        return range(0)
    inner = max(around, key=lambda node: node.lineno)
    return range(inner.lineno, (inner.end_lineno or 0) + 1)


def tracer(names: Mapping[str, str], ran: Mapping[str, set[int]]) -> Callable[[FrameType, str, Any], Any]:
    """A trace function that notes the lines of the named files."""

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        file = names.get(frame.f_code.co_filename)
        if file is None:
            return None
        lines = ran[file]

        def note(frame: FrameType, event: str, argument: Any) -> Any:
            lines.add(frame.f_lineno)
            return note

        return note(frame, event, argument)

    return trace


def change_in_place(path: Path, text: str) -> None:
    """Give the live functions of a file their code in `text`. Raises ValueError where that would not be all of it:
    more than functions changed, or the changed function is not among the living.
    """
    read = path.read_text()
    texts = read, ast.unparse(ast.parse(read)), text  # the second: as the third, without comments
    new = dict(changed(*(compile(each, str(path), "exec", dont_inherit=True) for each in texts)))
    living = [found for found in gc.get_objects() if type(found) is FunctionType and found.__code__ in new]
    if new and not living:
        raise ValueError(f"{path}: none of the changed functions is live")
    for found in living:
        found.__code__ = new[found.__code__]


def changed(now: CodeType, plain: CodeType, then: CodeType) -> Iterator[tuple[CodeType, CodeType]]:
    """(live code, new code) of every function whose code is another one in the mutant."""
    parts = [[part for part in code.co_consts if isinstance(part, CodeType)] for code in (now, plain, then)]
    is_function = bool(now.co_flags & 2)  # CO_NEWLOCALS and CO_OPTIMIZED: a function, no module and no class
    if not is_function and own(plain) != own(then):
        raise ValueError(now.co_name)
    if len({len(codes) for codes in parts}) != 1:
        if not is_function:
            raise ValueError(now.co_name)
    else:
        for part in zip(*parts, strict=True):
            yield from changed(*part)
    if is_function and plain != then:
        yield now, then


def own(code: CodeType) -> tuple[Any, ...]:
    """What a body does apart from the functions in it."""
    constants = [None if isinstance(part, CodeType) else repr(part) for part in code.co_consts]
    return code.co_code, code.co_names, constants


def inside(job: Callable[[], int]) -> None:
    """In a fork, in silence: do the job and end with its code."""
    code = 70
    try:
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        code = job()
    finally:
        os._exit(code)


def waited(number: int, wall: float) -> int:
    """Exit status of a fork; it is ended where it sleeps for too long."""
    until = time.monotonic() + wall
    while True:
        done, status = os.waitpid(number, os.WNOHANG)
        if done:
            return status
        if time.monotonic() > until:
            os.kill(number, signal.SIGKILL)
        time.sleep(0.01)


def in_session(tests: Sequence[str], files: Sequence[str], work: Callable[[Session], None]) -> None:
    """Collect the tests, listen to each of them, and call `work`."""
    with tempfile.TemporaryDirectory() as place:
        options = ["-s", "-q", "-p", "no:cacheprovider", "-n", "0", f"--basetemp={place}/tests"]
        pytest.main([*options, *tests], plugins=[Session(files, work)])
