"""The proven front of a grid of machines beside Optuna, pymoo and random search at equal CPU time: hypervolumes.

    python -m benchmarks.machine_front SPACE.yaml [--seeds 3] [--whole]

SPACE.yaml is an exploration file with `sampler: bound`. Ours: branch and bound over boxes of machines
(`explore/machines/bounded.py`). The peers get as many CPU seconds as ours took and the same prices from tables over
machines of their own: Optuna's NSGA-II and TPE and pymoo's NSGA-II with one integer per axis and populations of 20, and
uniform draws (each left out, and said so, where it is not installed). Hypervolume: share of our front's, below a tenth
more than its worst values. `--whole` prices the whole grid, too, and compares the fronts.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.explore_fronts import OutOfTime, integer_nsga2
from hwsim.explore.machines.bounded import Bounded, Family
from hwsim.explore.machines.space import Space
from hwsim.explore.machines.space_reader import read_space
from hwsim.explore.pareto import hypervolume, non_dominated
from hwsim.explore.run import variants
from hwsim.search.effort import Options
from hwsim.search.network import plan_layers

Pricing = Callable[[tuple[int, ...]], list[float]]


def pricing(space: Space, family: Family) -> Pricing:
    """Objectives of a point of the grid, from a family's tables."""

    def price(picks: tuple[int, ...]) -> list[float]:
        machine = space.machine(space.point(picks))
        options = Options(0.0, None, space.effort)  # type: ignore[arg-type]
        totals = plan_layers(family.workload, machine, "energy", options, family.answers, stay=False).cost.totals
        return [float(getattr(totals, name)) for name in space.objectives]

    return price


def bounded(space: Space, networks: dict[str, Any]) -> tuple[Bounded, list[list[float]], float]:
    """(what was bounded, the front, CPU seconds) of branch and bound."""
    began = time.process_time()
    search = Bounded(space, networks)
    keys = [axis.key for axis in space.axes]
    for tasks, told in search.generations():
        (_, point), *_ = tasks
        family = next(
            f for c, f in search.families.items() if all(point[k] == f.point[k] for k in outside(search, keys))
        )
        picks = tuple(axis.values.index(point[axis.key]) for axis in space.axes)
        values = dict(zip(space.objectives, pricing(space, family)(picks), strict=True))
        told([{"status": "ok", "values": values}])
    seconds = time.process_time() - began
    rows = np.array(search.front)
    return search, np.unique(rows[non_dominated(rows)], axis=0).tolist(), seconds


def outside(search: Bounded, keys: list[str]) -> list[str]:
    """Keys of the axes that are not bounded."""
    return [key for a, key in enumerate(keys) if a not in search.axes]


def random_draws(space: Space, price: Pricing, seconds: float, seed: int) -> list[list[float]]:
    """Uniform draws."""
    rng, found, began = np.random.default_rng(seed), list[list[float]](), time.process_time()
    while time.process_time() - began < seconds:
        found.append(price(tuple(int(rng.integers(len(axis.values))) for axis in space.axes)))
    return found


def optuna_search(space: Space, price: Pricing, seconds: float, seed: int, name: str) -> list[list[float]]:
    """Optuna by ask and tell."""
    import optuna as library

    optuna: Any = library

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sampler = (
            optuna.samplers.NSGAIISampler(population_size=20, seed=seed)
            if name == "nsga2"
            else optuna.samplers.TPESampler(seed=seed)
        )
        study = optuna.create_study(directions=["minimize"] * len(space.objectives), sampler=sampler)
    ranges: dict[str, Any] = {a.key: optuna.distributions.IntDistribution(0, len(a.values) - 1) for a in space.axes}
    found, began = list[list[float]](), time.process_time()
    while time.process_time() - began < seconds:
        trial = study.ask(ranges)
        found.append(price(tuple(trial.params[axis.key] for axis in space.axes)))
        study.tell(trial, found[-1])
    return found


def pymoo_search(space: Space, price: Pricing, seconds: float, seed: int) -> list[list[float]]:
    """pymoo's NSGA-II, as beside the fronts of bit allocations."""
    import pymoo.optimize  # type: ignore[import-not-found]  # noqa: F401  # not on its clock

    found, began = list[list[float]](), time.process_time()

    def rows(picks: np.ndarray) -> np.ndarray:
        for pick in picks:
            if time.process_time() - began >= seconds:
                raise OutOfTime
            found.append(price(tuple(int(index) for index in pick)))
        return np.array(found[-len(picks) :])

    with contextlib.suppress(OutOfTime):
        integer_nsga2(rows, np.array([len(axis.values) for axis in space.axes]), len(space.objectives), 20, seed)
    return found


def share(points: list[list[float]], front: list[list[float]]) -> float:
    """Hypervolume as a share of the front's."""
    bound = np.max(front, axis=0) * 1.1
    low = np.min(front, axis=0)

    def volume(rows: list[list[float]]) -> float:
        inside = np.array([row for row in rows if (np.array(row) < bound).all()])
        return hypervolume((inside - low) / (bound - low), np.ones(len(bound))) if len(inside) else 0.0

    return volume(points) / volume(front)


def main() -> None:
    """Print the table."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("space", type=Path)
    parse.add_argument("--seeds", type=int, default=3)
    parse.add_argument("--whole", action="store_true", help="price the whole grid, too")
    options = parse.parse_args()
    os.environ["HWSIM_CACHE"] = ""
    space = read_space(options.space)
    networks = variants(space)
    search, front, seconds = bounded(space, networks)
    print(f"{space.size:,} machines: {search.bounded} boxes bounded, {len(search.front)} machines priced, "
          f"front of {len(front)} points, {seconds:.1f} CPU s", flush=True)  # fmt: skip

    def fresh() -> Pricing:
        own = Bounded(space, networks)
        return pricing(space, own.family(tuple(0 for a in range(len(space.axes)) if a not in own.axes)))

    if options.whole:
        began, price = time.process_time(), fresh()
        rows = np.array([price(picks) for picks in itertools.product(*(range(len(a.values)) for a in space.axes))])
        whole = np.unique(rows[non_dominated(rows)], axis=0)
        apart = float(np.abs(np.array(front) / whole - 1).max()) if len(whole) == len(front) else np.inf
        print(f"whole grid: front of {len(whole)} points, {apart:.1e} apart at most (words round up), "
              f"{time.process_time() - began:.1f} CPU s", flush=True)  # fmt: skip
    methods: dict[str, Callable[[Pricing, int], list[list[float]]]] = {
        "random": lambda price, seed: random_draws(space, price, seconds, seed),
        "Optuna NSGA-II": lambda price, seed: optuna_search(space, price, seconds, seed, "nsga2"),
        "Optuna TPE": lambda price, seed: optuna_search(space, price, seconds, seed, "tpe"),
        "pymoo NSGA-II": lambda price, seed: pymoo_search(space, price, seconds, seed),
    }
    for name, method in methods.items():
        found: list[float] = []
        seen: list[int] = []
        for seed in range(options.seeds):
            price = fresh()
            try:
                rows = method(price, seed)
            except ImportError:
                print(f"{name}: not installed")
                break
            found.append(share(rows, front))
            seen.append(len(rows))
        if found:
            shares = [100 * each for each in (statistics.median(found), min(found), max(found))]
            print(f"{name}: {shares[0]:.2f} % of the hypervolume (median of {len(found)}; {shares[1]:.2f} to "
                  f"{shares[2]:.2f}), {statistics.median(seen):.0f} machines", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
