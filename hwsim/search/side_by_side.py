"""Independent searches side by side, on threads: the C kernel runs without the interpreter's lock.

How many threads there are decides when an answer comes, never what it is. So it is no part of a request: it belongs to
the process, and whoever starts a run says it (`threads`).
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Generator, Hashable, Iterable, Sequence
from contextvars import ContextVar
from typing import TypeVar

from hwsim.search.words import Effortful

Item = TypeVar("Item")
Result = TypeVar("Result")
MOST = 8  # threads by default: what python does in turns is a third of a search or more
JOBS: ContextVar[int] = ContextVar("jobs", default=1)  # a thread that helps has 1: it starts no others


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def jobs_for(effort: Effortful, asked: int | None = None) -> int:
    """Threads for searches of an effort: as asked for, else the usable cores; 1 where nothing is proven.

    The quick search runs in python and in small arrays, one thread at a time.
    """
    if asked is not None:
        return asked
    return 1 if effort == "quick" else min(usable_cores(), MOST)


@contextlib.contextmanager
def threads(jobs: int) -> Generator[None]:
    """Searches inside run on so many threads, this one among them."""
    before = JOBS.set(jobs)
    try:
        yield
    finally:
        JOBS.reset(before)


def each(work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Results in the order of the items, which must not depend on each other. Raises the first failure in that order.

    This thread works, too. An interrupt ends it at once: helpers take nothing new and do not keep the process alive.
    """
    jobs = min(JOBS.get(), len(items))
    if jobs < 2:
        return [work(item) for item in items]
    left = list(reversed(range(len(items))))
    results: dict[int, Result] = {}
    failures: dict[int, BaseException] = {}

    def go_on() -> None:
        while left:
            try:
                i = left.pop()
            except IndexError:  # another thread was faster
                return
            try:
                results[i] = work(items[i])
            except Exception as problem:
                failures[i] = problem

    helpers = [threading.Thread(target=go_on, daemon=True) for _ in range(jobs - 1)]
    try:
        with threads(1):
            for helper in helpers:
                helper.start()
            go_on()
            for helper in helpers:
                helper.join()
    except BaseException:
        left.clear()
        raise
    if failures:
        raise failures[min(failures)]
    return [results[i] for i in range(len(items))]


def parted(items: Iterable[Item], keys: Callable[[Item], Iterable[Hashable]]) -> list[list[Item]]:
    """Items in groups that share no key, each in its order: groups may run side by side.

    >>> parted(["ab", "c", "bd", "e"], set)
    [['ab', 'bd'], ['c'], ['e']]
    """
    groups: list[tuple[set[Hashable], list[tuple[int, Item]]]] = []
    for i, item in enumerate(items):
        mine = set(keys(item))
        near = [group for group in groups if group[0] & mine]
        groups = [group for group in groups if not group[0] & mine]
        members = sorted((pair for _, pairs in near for pair in pairs), key=lambda pair: pair[0])
        groups.append((mine.union(*(seen for seen, _ in near)), [*members, (i, item)]))
    groups.sort(key=lambda group: group[1][0][0])
    return [[item for _, item in pairs] for _, pairs in groups]
