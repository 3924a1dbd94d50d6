"""A study: what is tried next, until it is finished. Every proposal follows from the space and the results so far, in
order of trial number, so a study that was killed and resumed ends as one that was not.

`grid` tries everything; `bound` leaves out what bounds say is beaten (bounded.py); `random` draws without repetition;
`nsga2` and `tpe` are Optuna's, asked generation by generation and told in trial order. A point proposed twice is priced
once.
"""

from __future__ import annotations

import functools
import json
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hwsim.errors import SpecError
from hwsim.explore.machines.bounded import Bounded
from hwsim.explore.machines.journal import Journal, Record, is_trial
from hwsim.explore.machines.space import Parameters, Space
from hwsim.explore.machines.trial import Task, evaluate_alike
from hwsim.explore.machines.workers import SchedulerError, Workers
from hwsim.explore.pareto import hypervolume, non_dominated
from hwsim.network.workload import Workload

Told = Callable[[Sequence[Record]], None]


@dataclass(frozen=True)
class Progress:
    """How a study stands: trials done of all, points per second of this run, seconds left, hypervolume so far."""

    done: int
    total: int
    per_second: float
    left_s: float
    hypervolume: float
    best: tuple[float, ...]

    def line(self, objectives: Sequence[str]) -> str:
        """One line for the terminal."""
        best = ", ".join(f"{name} {value:.4g}" for name, value in zip(objectives, self.best, strict=False))
        return (
            f"{self.done}/{self.total} points, {self.per_second:.2f} per second, {self.left_s:.0f} s left, "
            f"hypervolume {self.hypervolume:.4g}" + (f", least {best}" if best else "")
        )


def generations(space: Space, networks: Mapping[str, Workload]) -> Iterator[tuple[list[Task], Told]]:
    """Batches of tasks, each with the function that takes their records, complete and in trial order."""
    if space.sampler == "bound":
        yield from Bounded(space, networks).generations()
        return
    if space.sampler in ("nsga2", "tpe"):
        yield from optuna_generations(space)
        return
    points = space.grid()
    if space.sampler == "random":
        order = np.random.default_rng(space.seed).permutation(len(points))[: space.total]
        points = [points[int(i)] for i in order]
    tasks = [(trial, space.point(picks)) for trial, picks in enumerate(points)]
    yield tasks, lambda records: None


def optuna_generations(space: Space) -> Iterator[tuple[list[Task], Told]]:
    """Optuna's NSGA-II or TPE by ask-and-tell, single-threaded and seeded: a replay proposes the same."""
    try:
        import optuna as library
    except ImportError:
        raise SpecError(f"sampler {space.sampler} needs Optuna: pip install 'hwsim[explore]'") from None
    optuna: Any = library
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sampler: Any = (
            optuna.samplers.NSGAIISampler(population_size=space.generation, seed=space.seed)
            if space.sampler == "nsga2"
            else optuna.samplers.TPESampler(seed=space.seed, n_startup_trials=space.generation)
        )
        study: Any = optuna.create_study(directions=["minimize"] * len(space.objectives), sampler=sampler)
    distributions: dict[str, Any] = {
        axis.key: optuna.distributions.IntDistribution(0, len(axis.values) - 1)
        if axis.ordered
        else optuna.distributions.CategoricalDistribution(list(range(len(axis.values))))
        for axis in space.axes
    }
    for start in range(0, space.total, space.generation):
        count = min(space.generation, space.total - start)
        asked = [study.ask(distributions) for _ in range(count)]
        tasks = [(start + i, space.point([trial.params[axis.key] for axis in space.axes]))
                 for i, trial in enumerate(asked)]  # fmt: skip

        def told(records: Sequence[Record], asked: list[Any] = asked) -> None:
            for trial, record in zip(asked, records, strict=True):
                if record["status"] == "ok":
                    study.tell(trial, [record["values"][name] for name in space.objectives])
                else:
                    study.tell(trial, state=optuna.trial.TrialState.FAIL)

        yield tasks, told


def key_of(parameters: Parameters) -> str:
    """Parameters as text, to find repetitions."""
    return json.dumps(parameters, sort_keys=True)


def run_study(
    space: Space,
    folder: Path,
    networks: Mapping[str, Workload],
    workers: Workers,
    say: Callable[[Progress], None] = lambda progress: None,
    warn: Callable[[str], None] = lambda line: None,
) -> list[Record]:
    """Finish the study in `folder`, from wherever it stands; the records in trial order.

    `networks`: the variants by file name; they are kept in `folder`/networks, where workers read them. `warn` is told
    of damaged lines. Raises SpecError where the folder holds another study (what differs is named), SchedulerError
    when workers are lost for good. In either case, and after a kill, what was finished stays finished.
    """
    place = folder.resolve() / "networks"
    work = functools.partial(evaluate_alike, space.can_prove(), space, place)
    with Journal(folder, space.identity(networks), space.text) as journal:
        for line in journal.damaged:
            warn(line)
        for name, workload in networks.items():
            workload.save(place / name)
        began, fresh = time.perf_counter(), 0
        proposed: set[int] = set()
        for tasks, told in generations(space, networks):
            proposed |= {trial for trial, _ in tasks}
            known = {key_of(record["parameters"]): record for record in journal.records.values()}
            for trial, parameters in tasks:
                found = journal.records.get(trial)
                if found is not None and key_of(found["parameters"]) != key_of(parameters):
                    raise SpecError(f"{folder}: trial {trial} is another point than its sampler proposes: the study "
                                    "was made with another version of Optuna")  # fmt: skip
            first = {key_of(parameters): trial for trial, parameters in reversed(tasks)}
            todo = [(t, p) for t, p in tasks if t not in journal.records and key_of(p) not in known
                    and first[key_of(p)] == t]  # fmt: skip
            asked = dict(todo)
            for records in workers.run(work, todo):
                check_records(records, asked)
                journal.append(records)
                fresh += len(records)
                say(progress(space, journal.records, fresh, time.perf_counter() - began))
            known |= {key_of(record["parameters"]): record for record in journal.records.values()}
            journal.append({**known[key_of(p)], "trial": t} for t, p in tasks)
            told([journal.records[t] for t, _ in tasks])
        return [journal.records[trial] for trial in sorted(proposed)]


def check_records(records: Sequence[Record], asked: Mapping[int, Parameters]) -> None:
    """What workers answered is written down only as whole records of trials that were asked. Raises SchedulerError."""
    for record in records:
        if not is_trial(json.loads(json.dumps(record))) or asked.get(record["trial"]) != record["parameters"]:
            raise SchedulerError(
                f"a worker answered something else than a trial that it was asked: {str(record)[:80]!r}; it is not "
                "kept, what was finished before is: start again with workers of this version"
            )


def progress(space: Space, records: dict[int, Record], fresh: int, seconds: float) -> Progress:
    """Where a study stands."""
    rate = fresh / seconds if seconds > 0 else 0.0
    costs = objectives_of(space, list(records.values()))
    best = tuple(float(v) for v in costs.min(axis=0)) if len(costs) else ()
    left = (space.total - len(records)) / rate if rate else float("inf")
    return Progress(len(records), space.total, rate, left, volume_of(costs, reference(costs)), best)


def objectives_of(space: Space, records: Sequence[Record]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Objectives of the points that meet every limit. (N, objectives)."""
    rows = [[float(r["values"][n]) for n in space.objectives] for r in records if r["status"] == "ok"]
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(space.objectives))


def reference(costs: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A tenth beyond the worst of every objective."""
    return costs.max(axis=0) * 1.1 if len(costs) else np.zeros(costs.shape[1])


def volume_of(costs: np.ndarray[Any, np.dtype[np.float64]], bound: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    """Share of the box below `bound` that the points dominate."""
    return hypervolume(costs / bound, np.ones(len(bound))) if len(costs) and bool((bound > 0).all()) else 0.0


def front_of(space: Space, records: Sequence[Record]) -> list[Record]:
    """The points that nobody beats, one per pair of values, by the first objective."""
    good = [record for record in records if record["status"] == "ok"]
    costs = objectives_of(space, good)
    if not len(costs):
        return []
    found: dict[tuple[float, ...], Record] = {}
    for record, row, keep in zip(good, costs, non_dominated(costs), strict=True):
        if keep:
            found.setdefault(tuple(float(v) for v in row), record)
    return [found[key] for key in sorted(found)]
