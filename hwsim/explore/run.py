"""What the commands of exploration do: read, solve or search, write, say it."""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from hwsim.command_line import language_pass, load_machine, load_model
from hwsim.console import wrote
from hwsim.errors import SpecError
from hwsim.explore.bits.bill import BitProblem
from hwsim.explore.bits.budgets import parse_budgets
from hwsim.explore.bits.choices import Freedom, parse_limit, parse_widths
from hwsim.explore.bits.figures import DrawingError, as_png, front_figure, front_page
from hwsim.explore.bits.output import Point, write_points
from hwsim.explore.bits.problem import InfeasibleBudget
from hwsim.explore.bits.sensitivities import read_sensitivities
from hwsim.explore.bits.solve import solve_bits
from hwsim.explore.machines.journal import Record
from hwsim.explore.machines.space import NETWORK, Parameters, Space
from hwsim.explore.machines.space_reader import read_space
from hwsim.explore.machines.study import Progress, front_of, run_study
from hwsim.explore.machines.study_output import write_study
from hwsim.explore.machines.training import chosen, extra_options, train_points, trainable, write_trained
from hwsim.explore.machines.trial import network_key
from hwsim.explore.machines.workers import Cluster, Here, Local, Workers
from hwsim.explore.words import NAMES
from hwsim.files.atomic import write_atomically
from hwsim.network.format_bits import with_bits
from hwsim.network.workload import Workload
from hwsim.pricing.fit import overflows


def workers_of(options: argparse.Namespace) -> Workers:
    """The workers asked for. Raises SpecError, SchedulerError."""
    if options.processes < 1:
        raise SpecError(f"--processes: expected at least 1, got {options.processes}")
    if options.scheduler:
        return Cluster(options.scheduler)
    return Local(options.processes) if options.processes > 1 else Here()


def run_machines(options: argparse.Namespace) -> None:
    """Run or resume a study and write its outputs. Raises HwsimError."""
    space = read_space(options.space)
    networks = variants(space)
    if space.fixed_bits is not None:  # a layer's name that no network has is a mistake of the file, not of one point
        for workload in networks.values():
            with_bits(workload, space.fixed_bits)
    workers = workers_of(options)
    try:
        say = quiet if options.quiet else Reporter(space)
        records = run_study(space, options.out, networks, workers, say, lambda line: print(line, file=sys.stderr))
    finally:
        workers.close()
    written = write_study(space, records, options.out, space.model)
    front_points = front_of(space, records)
    over = sum(record["status"] == "over" for record in records)
    infeasible = [record for record in records if record["status"] == "infeasible"]
    print(f"{len(records)} points: {len(front_points)} on the front, {over} over a limit, {len(infeasible)} infeasible")
    if not front_points:
        raise InfeasibleBudget(nothing_left(space, records), tuple(space.limits), None)
    for record in front_points:
        values = "  ".join(f"{name} {record['values'][name]:.6g}" for name in space.objectives)
        print(f"trial {record['trial']}: {values}  {record['parameters']}")
    wrote(options.out, f"{len(written)} files")


def nothing_left(space: Space, records: Sequence[Record]) -> str:
    """What to say when no point meets the limits: the one nearest to them, or why none runs."""
    priced = [record for record in records if record["status"] == "over"]
    if not priced:
        return f"{space.place}: no point runs the network; the first: {records[0]['why']}"

    def excess(record: Record) -> float:
        return max(record["values"].get(name, 0.0) / limit for name, limit in space.limits.items())

    closest = min(priced, key=excess)
    shown = ", ".join(f"{name} {closest['values'][name]:.4g} (limit {limit:.4g})"
                      for name, limit in space.limits.items() if name in closest["values"])  # fmt: skip
    return f"{space.place}: limits: no point meets them; closest is trial {closest['trial']}: {shown}"


def variants(space: Space) -> dict[str, Workload]:
    """The network variants of a space by the name of their file; workers read them from there and need no torch."""
    axes = [axis for axis in space.axes if axis.key in NETWORK]
    points = [dict(zip((axis.key for axis in axes), values, strict=True))
              for values in itertools.product(*(axis.values for axis in axes))]  # fmt: skip
    return {network_key(parameters): variant(space, parameters) for parameters in points}


def variant(space: Space, parameters: Parameters) -> Workload:
    """A network at another resolution or width, or a pass of a language model at another batch or context.

    Raises WorkloadError where the model has no such argument, RequestError for passes that contradict themselves.
    """
    model = space.model
    if space.phase:
        asked = space.pass_at(parameters)
        given = {key: asked.get(key) for key in ("batch", "context", "new", "experts")}
        made = language_pass(model, asked["phase"], given, False, f"{space.place}: {{}}".format)
        assert made is not None  # a phase is given
        return made[0]
    if not parameters:
        return load_model(model, None, False)
    from hwsim.frontends.argument import load_variant

    return load_variant(model, parameters.get("network.resolution"), parameters.get("network.width"))


def quiet(progress: Progress) -> None:
    """Says nothing."""


class Reporter:
    """One line of progress a second at most, on stderr."""

    def __init__(self, space: Space) -> None:
        self.space, self.last = space, 0.0

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if now - self.last >= 1.0 or progress.done == progress.total:
            self.last = now
            print(progress.line(self.space.objectives), file=sys.stderr, flush=True)


def freedom_of(options: argparse.Namespace) -> Freedom:
    """The options as what may vary."""
    return Freedom(
        parse_widths(options.weights, "--weights"),
        parse_widths(options.activations, "--activations"),
        options.first_last,
        tuple(parse_limit(text) for text in options.limit),
        options.elementwise_bits,
    )


def run_bits(options: argparse.Namespace) -> None:
    """Allocate and report. Raises HwsimError."""
    freedom = freedom_of(options)
    machine = load_machine(options.accelerator)
    budgets = parse_budgets(options.budget, machine.clock_mhz)
    further = check_training(options)
    sensitivities = read_sensitivities(options.sensitivities) if options.sensitivities else None
    workload = load_model(options.model, options.input, options.allow_uncosted)
    found = solve_bits(
        workload,
        machine,
        freedom,
        sensitivities.for_network(workload) if sensitivities else None,
        options.objective,
        on_chip=not options.off_chip,
        budgets=budgets,
        minimise=options.minimise,
        against=options.front,
        points=options.points,
        time_limit_s=options.time_limit,
        option="--",
        allow_overflow=options.allow_overflow,
    )
    made, points, uniform, minimised = found.problem, found.points, found.uniform, found.minimised
    print(found)
    for point in (*points, *uniform):
        for overflow in overflows(point.problem.batch_at(point.solution), machine):
            print(f"{point.name} does not fit: {overflow}", file=sys.stderr)
    if options.out is not None:
        about = {
            "model": workload.name,
            "accelerator": machine.name,
            "minimised": minimised,
            "budgets": budgets,
            "sensitivities": sensitivities.method if sensitivities else None,
            "data": sensitivities.data if sensitivities else None,
            "assumptions": assumptions(made, not options.off_chip),
        }
        written = write_points(points, uniform, options.out, about, options.model, options.accelerator)
        written += draw(points, uniform, options, minimised)
        if options.train is not None:
            data = options.data or (sensitivities.data if sensitivities else "")
            written += train_front(chosen(points, options.train), options, data, further)
        wrote(options.out, f"{len(written)} files")


def check_training(options: argparse.Namespace) -> list[str]:
    """What else `quant.train` is told. Raises SpecError where --train lacks what it needs."""
    if options.train is None:
        return []
    if options.front is None or options.out is None:
        raise SpecError("--train: needs --front NAME and --out DIR")
    if options.processes < 1:
        raise SpecError(f"--processes: expected at least 1, got {options.processes}")
    trainable(options.model)
    chosen([], options.train)
    return extra_options(options.train_options)


def train_front(points: Sequence[Point], options: argparse.Namespace, data: str, further: Sequence[str]) -> list[Path]:
    """Train points and redraw the front. Raises HwsimError."""
    if not data:
        raise SpecError("--train: needs --data NAME: the sensitivities do not say what they were measured on")
    workers = workers_of(options)
    try:
        accuracies = train_points(points, options.out, options.model, data, further, workers)
    finally:
        workers.close()
    against = NAMES[options.front]
    title = f"{options.model} on {options.accelerator}, trained: error against {against}"
    return write_trained(points, accuracies, options.out, against, title)


def assumptions(made: BitProblem, on_chip: bool) -> list[str]:
    """What the choice rests on."""
    stays = "on chip those that stay there at the widest widths" if on_chip else "all of them in the outermost memory"
    kept = [e.choice.tensors[0] for e in made.freed if len(e.choice.widths) == 1]
    return [
        "losses of single places add up (hwsim sensitivity --check N measures how well)",
        f"the choice counts tensors as given ({stays}); the costs reported are of the whole network, tensors kept on "
        "chip where that saves energy",
        f"one width is all that policy, limits, machine or missing sensitivities leave to {len(kept)} of "
        f"{len(made.freed)} choices",
    ]


def draw(points: Sequence[Point], uniform: Sequence[Point], options: argparse.Namespace, minimised: str) -> list[Path]:
    """The front's figure and page; nothing for a single point."""
    if options.front is None:
        return []
    x, y = NAMES[options.front], minimised
    written = [options.out / "front.png"]
    write_atomically(written[0], as_png(front_figure(points, uniform, x, y)))
    try:
        title = f"{options.model} on {options.accelerator}: {y} against {x}"
        write_atomically(options.out / "front.html", front_page(points, uniform, x, y, title))
        written.append(options.out / "front.html")
    except DrawingError as problem:
        print(f"no interactive page: {problem}", file=sys.stderr)
    return written
