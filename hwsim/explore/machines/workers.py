"""Where trials run: this process, local processes, or a dask.distributed cluster.

A worker may die at any moment: its trials run again elsewhere, what others finished is kept. Nothing here decides what
is tried or writes results; it turns tasks into records.
"""

from __future__ import annotations

import concurrent.futures
import logging
import math
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, Protocol

from hwsim.errors import HwsimError
from hwsim.explore.machines.journal import Record
from hwsim.explore.machines.trial import Task
from hwsim.files.identity import MODEL_VERSION, content_hash
from hwsim.search.cache import VERSION as SEARCH_VERSION

BATCH_SECONDS = 0.1
# A scheduler of a cluster hands out one batch after another: what one costs it (assumed, near the 1 ms of dask's
# manual; 17 to 31 ms were seen on a machine under load), and how many of these times as long all workers together are
# busy before they ask again.
HANDING_SECONDS, IDLE_SCHEDULER = 2e-3, 2.0
MAX_DEATHS = 100
POLL_SECONDS = 0.02
Evaluate = Callable[[list[Task]], list[Record]]


class SchedulerError(HwsimError):
    """A cluster that cannot be reached or was lost; what is finished is in the journal."""


class Workers(Protocol):
    """Turns tasks into records, in any order."""

    def run(self, evaluate: Evaluate, tasks: Sequence[Task]) -> Iterator[list[Record]]:
        """Records in the batches in which they finish."""
        ...

    def close(self) -> None:
        """Give processes and connections back."""


class Pace:
    """Batch sizes that hold at least BATCH_SECONDS of work, and what a scheduler needs to hand all workers one."""

    def __init__(self) -> None:
        self.seconds, self.count = 0.0, 0

    def note(self, seconds: float, count: int) -> None:
        """A batch of `count` tasks took so long."""
        self.seconds, self.count = self.seconds + seconds, self.count + count

    def batches(self, tasks: Sequence[Task], workers: int) -> list[list[Task]]:
        """Tasks cut into batches; unknown work goes one by one, and no worker stays idle for a batch's sake."""
        each = self.seconds / self.count if self.count else BATCH_SECONDS
        wanted = max(BATCH_SECONDS, IDLE_SCHEDULER * HANDING_SECONDS * workers)
        known = wanted if self.count else BATCH_SECONDS
        size = max(1, min(math.ceil(known / max(each, 1e-6)), math.ceil(len(tasks) / workers)))
        return [list(tasks[i : i + size]) for i in range(0, len(tasks), size)]


def timed(evaluate: Evaluate, batch: list[Task]) -> tuple[list[Record], float]:
    """A batch's records and its seconds, as measured where it ran."""
    began = time.perf_counter()
    return evaluate(batch), time.perf_counter() - began


@dataclass(frozen=True)
class Answer:
    """A batch's records as they left their worker, sealed there; `versions`: of the model and the search it runs.

    `trouble`: what in the worker's surroundings kept it from working (a full disk, a folder that it does not see).
    """

    records: list[Record]
    seconds: float
    seal: str
    versions: tuple[int, int] = (MODEL_VERSION, SEARCH_VERSION)
    trouble: str = ""


def answered(evaluate: Evaluate, batch: list[Task]) -> Answer:
    """`timed`, sealed where it ran. What is wrong with this machine is an answer, too: another one may do the batch."""
    try:
        records, seconds = timed(evaluate, batch)
    except (OSError, MemoryError) as problem:
        return Answer([], 0.0, content_hash([]), trouble=str(problem) or type(problem).__name__)
    return Answer(records, seconds, content_hash(records))


def lie_of(answer: object, batch: Sequence[Task]) -> str:
    """What is wrong with a worker's answer, in a few words; empty where it is the whole answer to what was asked."""
    if not isinstance(answer, Answer):
        return f"it answered with {type(answer).__name__}"
    if answer.trouble:
        return f"it cannot work: {answer.trouble}"
    try:
        if content_hash(answer.records) != answer.seal:
            return "its result was damaged on the way"
        trials = [record["trial"] for record in answer.records]
    except (TypeError, KeyError, ValueError):
        return "its result is no list of trials"
    asked = [trial for trial, _ in batch]
    return "" if trials == asked else f"it answered trials {trials[:5]} where {asked[:5]} were asked"


class Here:
    """This process."""

    def run(self, evaluate: Evaluate, tasks: Sequence[Task]) -> Iterator[list[Record]]:
        for task in tasks:
            yield evaluate([task])

    def close(self) -> None:
        pass


def end_with_parent() -> None:
    """Let this worker end when its driver is killed; it would wait for tasks for ever otherwise."""
    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


class Local:
    """Processes of this machine; a pool that a killed worker broke is started anew."""

    def __init__(self, processes: int) -> None:
        self.processes, self.pace = processes, Pace()
        self.pool = self.start()

    def start(self) -> concurrent.futures.ProcessPoolExecutor:
        """A pool of fresh processes."""
        context = multiprocessing.get_context("spawn")
        return concurrent.futures.ProcessPoolExecutor(self.processes, mp_context=context, initializer=end_with_parent)

    def run(self, evaluate: Evaluate, tasks: Sequence[Task]) -> Iterator[list[Record]]:
        left = {task[0]: task for task in tasks}
        deaths = 0
        while left:
            batches = self.pace.batches(list(left.values()), self.processes)
            try:
                futures = [self.pool.submit(timed, evaluate, batch) for batch in batches]
                for future in concurrent.futures.as_completed(futures):
                    records, seconds = future.result()
                    self.pace.note(seconds, len(records))
                    for record in records:
                        left.pop(record["trial"], None)
                    yield records
            except BrokenProcessPool:
                deaths += 1
                self.pool.shutdown(wait=False, cancel_futures=True)
                if deaths > MAX_DEATHS:
                    raise SchedulerError(
                        f"worker processes died {deaths} times in a row (out of memory?); what is finished is kept: "
                        "start again with fewer --processes"
                    ) from None
                self.pool = self.start()

    def close(self) -> None:
        self.pool.shutdown(wait=False, cancel_futures=True)


class Cluster:
    """A dask.distributed cluster. Batches of a worker that dies are given to another by the scheduler, and submitted
    anew when it gives them up. A worker whose answer is damaged, or that says it cannot work (its disk is full), gets
    no further batch, and its batch goes to another.
    """

    work = staticmethod(answered)
    patience_s = 60.0  # without any worker

    def __init__(self, address: str, timeout_s: float = 10.0) -> None:
        try:
            from distributed import Client

            logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # what it says we say in one line
        except ImportError:
            raise SchedulerError("--scheduler needs dask: pip install 'hwsim[explore]'") from None
        try:
            self.client: Any = Client(address, timeout=timeout_s, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as problem:
            why = str(problem).splitlines()[0] if str(problem) else type(problem).__name__
            raise SchedulerError(f"--scheduler {address}: no scheduler answers there ({why}): start one with "
                                 "`dask scheduler`, workers with `dask worker ADDRESS`") from None  # fmt: skip
        self.address, self.pace = address, Pace()
        self.liars: dict[str, str] = {}  # address of a worker -> what was wrong with its answer

    def workers(self) -> int:
        """Threads of the cluster, at least 1."""
        return max(1, sum(self.client.nthreads().values()))

    def run(self, evaluate: Evaluate, tasks: Sequence[Task]) -> Iterator[list[Record]]:
        from distributed import as_completed

        deaths = 0
        try:
            batches = self.pace.batches(tasks, self.workers())
            running = {self.submit(evaluate, batch): batch for batch in batches}
            waiting = as_completed(list(running), loop=self.client.loop)
            for future in self.ready(waiting):
                batch = running.pop(future)
                answer, where = self.answer_of(future)
                if answer is None:
                    deaths += 1
                    if deaths > MAX_DEATHS:
                        raise SchedulerError(f"--scheduler {self.address}: workers died {deaths} times: {where}")
                elif lie := lie_of(answer, batch):
                    self.liars[where] = lie
                else:
                    self.check_version(answer, where)
                    self.pace.note(answer.seconds, len(answer.records))
                    yield answer.records
                    continue
                again = self.submit(evaluate, batch)
                running[again] = batch
                waiting.add(again)
        except OSError:
            raise self.lost() from None

    def answer_of(self, future: Any) -> tuple[Any, str]:
        """What a worker answered, and its address; None, and why, where it died. Raises SchedulerError."""
        from distributed.scheduler import KilledWorker

        try:
            where = self.place_of(future)
            return future.result(), where
        except (KilledWorker, concurrent.futures.CancelledError) as problem:
            if self.client.status != "running":
                raise self.lost() from None
            return None, str(problem)

    def ready(self, waiting: Any) -> Iterator[Any]:
        """Futures as they are done. Raises SchedulerError where the cluster is without any worker for too long."""
        asked = seen = time.monotonic()  # when workers were asked for, and when there was one
        while not waiting.is_empty():
            if waiting.has_ready():
                yield from waiting.next_batch(block=False)
                asked = seen = time.monotonic()
                continue
            time.sleep(POLL_SECONDS)
            now = time.monotonic()
            if now - asked > 1.0:
                asked = now
                seen = now if self.client.nthreads() else seen
            if now - seen > self.patience_s:
                raise SchedulerError(
                    f"--scheduler {self.address}: no worker has been there for {self.patience_s:.0f} s: start "
                    f"`dask worker {self.address}` and this command again; what is finished is kept"
                )

    def place_of(self, future: Any) -> str:
        """Address of the worker that holds an answer, as the scheduler knows it."""
        places = self.client.who_has([future])
        return next((str(held[0]) for held in places.values() if held), "?")

    def check_version(self, answer: Answer, where: str) -> None:
        """Raises SchedulerError where a worker prices by other laws than this process does."""
        here = (MODEL_VERSION, SEARCH_VERSION)
        if answer.versions != here:
            raise SchedulerError(
                f"--scheduler {self.address}: worker {where} runs another hwsim (versions of model and search "
                f"{answer.versions}, here {here}): install the same one on every machine"
            )

    def submit(self, evaluate: Evaluate, batch: list[Task]) -> Any:
        """One batch as a task of the cluster."""
        return self.client.submit(self.work, evaluate, batch, pure=False, **self.honest())

    def honest(self) -> dict[str, Any]:
        """The workers that may have further batches: all of them as long as none gave a damaged answer.

        Raises SchedulerError where none is left.
        """
        if not self.liars:
            return {}
        left = [address for address in self.client.nthreads() if address not in self.liars]
        if not left:
            said = "; ".join(f"{where}: {lie}" for where, lie in self.liars.items())
            raise SchedulerError(
                f"--scheduler {self.address}: no worker is left with whole answers ({said}); finished ones are kept"
            )
        return {"workers": left, "allow_other_workers": False}

    def lost(self) -> SchedulerError:
        """What to say when the scheduler goes away."""
        return SchedulerError(f"--scheduler {self.address}: the scheduler was lost; what is finished is kept: start "
                              "it and this command again")  # fmt: skip

    def close(self) -> None:
        self.client.close(timeout=2)
