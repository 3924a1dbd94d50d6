"""The exact front of a bit allocation beside evolutionary, model-based and random search: hypervolume over CPU time.

    python -m benchmarks.explore_fronts [--model resnet8] [--spec bit_fusion] [--sensitivities FILE] [--seconds 20]

Everybody minimises (predicted loss, energy) of one problem and prices assignments by the same `Problem.evaluate`, whole
populations at once where the method has them. Ours twice: the whole front by elimination, which has nothing to show
until it is done, and integer programmes for budgets that halve the gaps between points, each answer proven. Peers with
their documented settings for integers: pymoo's NSGA-II, Optuna's NSGA-II and TPE (each left out, and said so, where it
is not installed), and uniform random draws. Seconds are CPU seconds of this process, building the tables not counted,
each method's own imports neither. Hypervolume: share of the whole front's, in the box between the front's best values
and a tenth of its range beyond its worst. `--small N` compares the whole front with the enumeration of all assignments
of a problem with N free choices, the others held at their widest.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hwsim.command_line import load_model
from hwsim.explore.bits.allocate import Solver, front
from hwsim.explore.bits.bill import bit_problem
from hwsim.explore.bits.choices import Freedom, parse_widths
from hwsim.explore.bits.elimination import whole_front
from hwsim.explore.bits.problem import Choice, Measure, Problem, Term
from hwsim.explore.bits.sensitivities import read_sensitivities
from hwsim.explore.pareto import hypervolume, non_dominated
from hwsim.explore.words import ENERGY, LOSS
from hwsim.machine.load import load_accelerator

NAMES = (LOSS, ENERGY)
REFUSED = 1e30


class OutOfTime(Exception):
    """The CPU seconds are spent."""


class Track:
    """What a method has seen, and when; keeping this record is not on its clock."""

    def __init__(self, problem: Problem, seconds: float) -> None:
        self.problem, self.seconds = problem, seconds
        self.seen: list[tuple[float, np.ndarray]] = []
        self.count, self.aside, self.began = 0, 0.0, time.process_time()

    def clock(self) -> float:
        """CPU seconds on the method's account."""
        return time.process_time() - self.began - self.aside

    def note(self, costs: np.ndarray) -> None:
        """Points that a method now has. Raises OutOfTime after the last second; what came too late does not count."""
        now, began = self.clock(), time.process_time()
        if now <= self.seconds:
            self.count += len(costs)
            fine = costs[costs[:, 0] < REFUSED]
            self.seen.append((now, fine[non_dominated(fine)] if len(fine) < 1000 else thinned(fine)))
        self.aside += time.process_time() - began
        if now > self.seconds:
            raise OutOfTime

    def price(self, picks: np.ndarray) -> np.ndarray:
        """(loss, energy) of assignments, (N, choices) -> (N, 2)."""
        picks = np.asarray(picks, dtype=np.intp)
        values = self.problem.evaluate(picks, NAMES)
        costs = np.stack([values[name] for name in NAMES], axis=1)
        if self.problem.refusals:
            costs[~self.problem.allowed(picks)] = REFUSED
        self.note(costs)
        return costs

    def at(self, seconds: float) -> np.ndarray:
        """The points found up to a moment."""
        found = [costs for moment, costs in self.seen if moment <= seconds]
        return np.concatenate(found) if found else np.zeros((0, 2))


def thinned(costs: np.ndarray) -> np.ndarray:
    """A batch without most of its dominated points."""
    order = costs[np.lexsort((costs[:, 1], costs[:, 0]))]
    least = np.minimum.accumulate(order[:, 1])
    return order[np.concatenate([[True], order[1:, 1] < least[:-1]])]


Method = Callable[[Track, int], None]


def elimination(track: Track, seed: int) -> None:
    """The whole front at once."""
    found = whole_front(track.problem, LOSS, ENERGY)
    if found is not None:
        track.note(np.array([[s.values[name] for name in NAMES] for s in found]))


def programmes(track: Track, seed: int) -> None:
    """Both ends, then budgets that halve the largest gaps, breadth first; each answer is proven."""
    solver = Solver(track.problem)

    def ask(limit: float | None) -> tuple[float, float]:
        budgets = {} if limit is None else {ENERGY: limit}
        found = solver.best(LOSS, budgets, then=ENERGY).values
        track.note(np.array([[found[name] for name in NAMES]]))
        return found[LOSS], found[ENERGY]

    top = ask(None)
    least = solver.best(ENERGY, {}, then=LOSS).values
    track.note(np.array([[least[name] for name in NAMES]]))
    gaps = [(top[1], least[ENERGY])]
    while gaps:
        following: list[tuple[float, float]] = []
        for high, low in sorted(gaps, key=lambda gap: gap[1] - gap[0]):
            middle = (high + low) / 2
            if middle >= high or middle <= low:
                continue
            energy = ask(middle)[1]
            # Nothing lies between `energy` and `middle`: the answer is the best within `middle`.
            following += [(high, middle)] if high - middle > 1e-9 * high else []
            following += [(energy, low)] if energy - low > 1e-9 * high else []
        gaps = following


def random_search(track: Track, seed: int) -> None:
    """Uniform draws, 4,096 at a time."""
    rng = np.random.default_rng(seed)
    sizes = [len(choice.widths) for choice in track.problem.choices]
    while True:
        track.price(rng.integers(0, sizes, size=(4096, len(sizes))))


def pymoo_nsga2(track: Track, seed: int) -> None:
    """A population of 100."""
    integer_nsga2(track.price, np.array([len(choice.widths) for choice in track.problem.choices]), 2, 100, seed)


def integer_nsga2(
    price: Callable[[np.ndarray], np.ndarray], sizes: np.ndarray, objectives: int, population: int, seed: int
) -> None:
    """pymoo's NSGA-II until `price` raises: integer sampling, SBX and polynomial mutation, rounded, no duplicates."""
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.core.problem import Problem as Theirs
    from pymoo.operators.crossover.sbx import SBX
    from pymoo.operators.mutation.pm import PM
    from pymoo.operators.repair.rounding import RoundingRepair
    from pymoo.operators.sampling.rnd import IntegerRandomSampling
    from pymoo.optimize import minimize

    class Integers(Theirs):
        def __init__(self) -> None:
            super().__init__(n_var=len(sizes), n_obj=objectives, xl=np.zeros(len(sizes)), xu=sizes - 1, vtype=int)

        def _evaluate(self, x: np.ndarray, out: dict[str, Any], *args: Any, **kwargs: Any) -> None:
            out["F"] = price(x)

    repair = RoundingRepair()
    algorithm = NSGA2(
        pop_size=population, sampling=IntegerRandomSampling(),
        crossover=SBX(prob=1.0, eta=3.0, vtype=float, repair=repair),
        mutation=PM(prob=1.0, eta=3.0, vtype=float, repair=repair), eliminate_duplicates=True,
    )  # fmt: skip
    minimize(Integers(), algorithm, ("n_gen", 10**9), seed=seed, verbose=False)


def optuna_search(sampler: str) -> Method:
    """Optuna by ask-and-tell, one integer per choice."""

    def search(track: Track, seed: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = (
                optuna.samplers.NSGAIISampler(population_size=100, seed=seed)
                if sampler == "nsga2"
                else optuna.samplers.TPESampler(seed=seed)
            )
            study = optuna.create_study(directions=["minimize", "minimize"], sampler=made)
            ranges = {
                str(i): optuna.distributions.IntDistribution(0, len(choice.widths) - 1)
                for i, choice in enumerate(track.problem.choices)
                if len(choice.widths) > 1
            }
            while True:
                trial = study.ask(ranges)
                picks = [trial.params.get(str(i), 0) for i in range(len(track.problem.choices))]
                study.tell(trial, track.price(np.array([picks]))[0].tolist())

    return search


METHODS: dict[str, Method] = {
    "ours, whole front": elimination,
    "ours, programmes": programmes,
    "pymoo NSGA-II": pymoo_nsga2,
    "Optuna NSGA-II": optuna_search("nsga2"),
    "Optuna TPE": optuna_search("tpe"),
    "random": random_search,
}


def share(costs: np.ndarray, whole: np.ndarray) -> float:
    """Hypervolume of points over that of the whole front."""
    low = whole.min(axis=0)
    span = np.ptp(whole, axis=0)
    bound = np.full(2, 1.1)
    inside = (thinned(costs) - low) / span if len(costs) else np.zeros((0, 2))
    return hypervolume(inside, bound) / hypervolume((whole - low) / span, bound) if len(inside) else 0.0


def reduced(problem: Problem, count: int) -> Problem:
    """The problem with `count` free choices, spread over the network, the others at their widest."""
    free = [i for i, choice in enumerate(problem.choices) if len(choice.widths) > 1]
    kept = {free[int(place)] for place in np.linspace(0, len(free) - 1, min(count, len(free)))}

    def cut(index: int, choice: Choice) -> slice:
        return slice(None) if index in kept or len(choice.widths) == 1 else slice(-1, None)

    cuts = [cut(i, choice) for i, choice in enumerate(problem.choices)]
    choices = tuple(
        Choice(c.name, c.widths[part], c.tensors, c.kind) for c, part in zip(problem.choices, cuts, strict=True)
    )
    measures = tuple(
        Measure(m.name, tuple(tuple(Term(t.scope, t.values[tuple(cuts[i] for i in t.scope)]) for t in row)
                              for row in m.rows))
        for m in problem.measures
    )  # fmt: skip
    refusals = tuple(type(r)(r.scope, r.mask[tuple(cuts[i] for i in r.scope)], r.why) for r in problem.refusals)
    return Problem(choices, measures, refusals)


def batches(problem: Problem, size: int = 1 << 18) -> Iterator[np.ndarray]:
    """All assignments that the machine runs, in parts."""
    every = itertools.product(*(range(len(choice.widths)) for choice in problem.choices))
    while part := list(itertools.islice(every, size)):
        picks = np.array(part, dtype=np.intp)
        yield picks[problem.allowed(picks)]


def compare_with_enumeration(problem: Problem, count: int) -> None:
    """Print whether the front of a small problem is the one that trying everything finds."""
    small = reduced(problem, count)
    began = time.process_time()
    found = sorted({(s.values[LOSS], s.values[ENERGY]) for s in front(small, LOSS, ENERGY)})
    taken, began = time.process_time() - began, time.process_time()
    best = np.zeros((0, 2))
    for picks in batches(small):
        values = small.evaluate(picks, NAMES)
        best = thinned(np.concatenate([best, np.stack([values[name] for name in NAMES], axis=1)]))
    tried = time.process_time() - began
    same = found == sorted({(float(a), float(b)) for a, b in best})
    print(f"{count} free choices, {small.combinations:,} assignments: front of {len(found)} points in {taken:.1f} s, "
          f"by enumeration {len(best)} in {tried:.1f} s: {'equal' if same else 'DIFFERENT'}", flush=True)  # fmt: skip


def compare(problem: Problem, names: Sequence[str], seconds: float, seeds: int, points: int | None) -> None:
    """Print hypervolumes over time of every method."""
    began = time.process_time()
    found = list(front(problem, LOSS, ENERGY, points=points))
    whole = np.array([[s.values[name] for name in NAMES] for s in found])
    print(f"100 %: {'the whole front' if points is None else 'a part of the front'}, {len(whole)} proven points in "
          f"{time.process_time() - began:.1f} s", flush=True)  # fmt: skip
    moments = [m for m in (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0) if m < seconds] + [seconds]
    print("share of the front's hypervolume, % (median; least to largest over seeds), by CPU seconds")
    print(f"{'method':18}" + "".join(f"{m:>22g} s" for m in moments) + f"{'assignments seen':>20}")
    for name in names:
        tracks: list[Track] = []
        for seed in range(1 if name.startswith("ours") else seeds):
            with contextlib.suppress(ImportError, OutOfTime):
                METHODS[name](Track(problem, 0.0), seed)  # imports
            track = Track(problem, seconds)
            try:
                METHODS[name](track, seed)
            except OutOfTime:
                pass
            except ImportError as problem_:
                print(f"{name:18} not installed ({problem_.name}): pip install -c constraints.txt {problem_.name}")
                break
            tracks.append(track)
        if tracks:
            shares = [[100 * share(t.at(m), whole) for t in tracks] for m in moments]
            cells = "".join(f"{statistics.median(s):9.3f} ({min(s):.2f}..{max(s):.2f})".rjust(24) for s in shares)
            print(f"{name:18}{cells}{statistics.median(t.count for t in tracks):>20,.0f}", flush=True)


def main() -> None:
    parse = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parse.add_argument("--model", default="resnet8")
    parse.add_argument("--spec", default="bit_fusion")
    parse.add_argument("--sensitivities", type=Path, default=Path("results/sensitivities/resnet8_loss.json"))
    parse.add_argument("--widths", default="2..8", help="of weights and activations, where the machine has them")
    parse.add_argument("--seconds", type=float, default=20.0, help="CPU seconds per method and seed")
    parse.add_argument("--seeds", type=int, default=3)
    parse.add_argument("--points", type=int, help="points of the reference front (default: all of it)")
    parse.add_argument("--small", type=int, default=0, metavar="N", help="compare N free choices with enumeration")
    parse.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    options = parse.parse_args()
    began = time.process_time()
    widths = parse_widths(options.widths, "--widths")
    workload = load_model(options.model, None, False)
    losses = read_sensitivities(options.sensitivities).for_network(workload)
    freedom = Freedom(widths, widths, elementwise_bits="same", tied=True)
    problem = bit_problem(workload, load_accelerator(options.spec), freedom, losses).problem
    free = sum(len(choice.widths) > 1 for choice in problem.choices)
    print(f"{options.model} on {options.spec}: {free} free choices, {problem.combinations:.3g} assignments; tables in "
          f"{time.process_time() - began:.1f} s", flush=True)  # fmt: skip
    if options.small:
        compare_with_enumeration(problem, options.small)
    if options.seconds > 0:
        compare(problem, options.methods, options.seconds, options.seeds, options.points)


if __name__ == "__main__":
    main()
