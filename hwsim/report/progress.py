"""How far a run is, on stderr: searches done of those to do, their rate, the time left; and a first answer early.

Only a terminal sees it. The searches themselves know nothing of this: they write their results into a table that is
handed to them (`known`), and `Searches` is such a table that tells of each new entry.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from hwsim.console import printable
from hwsim.machine.parts import Accelerator
from hwsim.network.workload import Workload
from hwsim.pricing.stages import effective_workload
from hwsim.report.quantities import si
from hwsim.search.network import ladder, rungs_above
from hwsim.search.result import Found

if TYPE_CHECKING:
    from hwsim.pricing.network import Totals

Key = tuple[object, ...]


class Watch(Protocol):
    """Who is told how far a run is."""

    def begin(self, what: str, searches: int) -> None:
        """`searches` are about to be made."""
        ...

    def advance(self) -> None:
        """One is done."""
        ...

    def early(self, totals: Totals) -> None:
        """What the network costs as far as the quick search knows."""
        ...


class Searches(dict[Key, Found]):
    """Results of searches by their key; `told` is called for every new one."""

    def __init__(self, told: Callable[[], None]) -> None:
        super().__init__()
        self.told = told

    def __setitem__(self, key: Key, value: Found) -> None:
        new = key not in self
        super().__setitem__(key, value)
        if new:
            self.told()


def searches_of(workload: Workload, accelerator: Accelerator) -> int:
    """Different searches that one effort makes for a network: equal layers once, at every rung of widths."""
    keys: set[Key] = set()
    for rung in ladder(workload):
        for layer in effective_workload(rung, accelerator.capabilities).values():
            keys.update(rungs_above(layer))
    return len(keys)


class Rate(ProgressColumn):
    """Searches a second, once there are any."""

    def render(self, task: Task) -> Text:
        """`2.4/s`, or `0.3 s each`... the one that is above 1."""
        speed = task.finished_speed or task.speed
        if not speed:
            return Text("")
        return Text(f"{speed:.1f}/s" if speed >= 1 else f"{1 / speed:.1f} s each")


class OnTerminal:
    """A bar on stderr that goes away at the end; the first answer stays."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def begin(self, what: str, searches: int) -> None:
        """A new bar instead of the one before."""
        for task in self.progress.task_ids:
            self.progress.remove_task(task)
        self.progress.add_task(what, total=searches)

    def advance(self) -> None:
        """One more; more than expected only means that the guess was low."""
        for task in self.progress.tasks:
            done = task.completed + 1
            self.progress.update(task.id, completed=done, total=max(done, task.total or 0))

    def early(self, totals: Totals) -> None:
        """One line, above the bar."""
        line = f"first answer: {si(totals.energy_pj * 1e-12, 'J')}, {si(totals.latency_s, 's')}; searching for better"
        self.progress.console.print(Text(printable(line), "dim"))


@contextlib.contextmanager
def reading(what: str, console: Console | None = None) -> Generator[None]:
    """A line while a network is read, where stderr is a terminal: torch alone takes seconds to load."""
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    columns = (TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False) as progress:
        progress.add_task(f"reading {printable(what)}", total=None)
        yield


@contextlib.contextmanager
def watched(console: Console | None = None) -> Generator[Watch | None]:
    """A bar where stderr is a terminal; None elsewhere."""
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, refresh_per_second=4) as progress:
        yield OnTerminal(progress)
