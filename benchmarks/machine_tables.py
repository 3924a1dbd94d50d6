"""New machines per CPU second: tables over machines beside a fresh proof of every machine, in one run.

    python -m benchmarks.machine_tables [--model resnet18] [--spec eyeriss_v1] [--machines 100] [--fresh 5] [--profile]

Three kinds of change: prices (energy of the outermost memory and of the next one, each from half to twice, all
continuous), bandwidth (of the outermost memory, the same range, besides its energy), and room (the next memory at a
quarter to four times its size, energies fixed, besides the outermost memory's energy). First so many random machines
that meet empty tables, then as many others. Every machine is another one; no cache holds anything. `--fresh` machines
are proven by themselves: their prices and bounds are compared. CPU seconds of this process.
"""

from __future__ import annotations

import argparse
import cProfile
import dataclasses
import math
import os
import pstats
import random
import time
from collections.abc import Callable
from typing import TypeVar

from hwsim.command_line import load_machine, load_model
from hwsim.machine.parts import Accelerator, Memory
from hwsim.network.bits import assign_bits
from hwsim.network.layer import Layer
from hwsim.pricing.stages import effective_workload
from hwsim.search.effort import Options
from hwsim.search.layer import prove
from hwsim.search.machines.answers import MachineAnswers
from hwsim.search.machines.box import Box
from hwsim.search.result import Effortful, Found
from hwsim.search.space.likeness import search_key
from hwsim.search.space.problem import Problem

SIZES = (0.25, 0.5, 1, 2, 4)
T = TypeVar("T")
Change = Callable[[Accelerator, float], Accelerator]


def changed(place: int, fields: tuple[str, ...], whole: bool = False) -> Change:
    """Scales figures of a memory, counted from the outermost."""

    def change(machine: Accelerator, factor: float) -> Accelerator:
        memory = machine.memories[place]
        said = {key: getattr(memory, key) for key in fields if getattr(memory, key) is not None}
        new = dataclasses.replace(memory, **{k: int(v * factor) if whole else v * factor for k, v in said.items()})
        nodes = tuple(new if isinstance(node, Memory) and node is memory else node for node in machine.hierarchy)
        return dataclasses.replace(machine, hierarchy=nodes)

    return change


ENERGY = ("read_energy_pj", "write_energy_pj")
KINDS: dict[str, list[tuple[Change, tuple[float, ...]]]] = {
    "prices": [(changed(0, ENERGY), ()), (changed(1, ENERGY), ())],
    "bandwidth": [(changed(0, ("read_bandwidth_bits_per_cycle",)), ()), (changed(0, ENERGY), ())],
    "room": [(changed(1, ("size_bits",), whole=True), SIZES), (changed(0, ENERGY), ())],
}


def drawn(rng: random.Random, base: Accelerator, kind: str) -> Accelerator:
    """A random machine of a kind."""
    machine = base
    for change, listed in KINDS[kind]:
        machine = change(machine, rng.choice(listed) if listed else 2.0 ** rng.uniform(-1, 1))
    return machine


def answered(
    layers: list[Layer], machine: Accelerator, answers: MachineAnswers, effort: Effortful
) -> list[Found | None]:
    """Every layer's optimum, from tables."""
    return [answers.find(Problem(layer, machine), "energy", effort) for layer in layers]


def proven(layers: list[Layer], machine: Accelerator, effort: Effortful) -> list[Found]:
    """Every layer's optimum, by a proof of its own."""
    options = Options(0.0, None, effort)
    found = [prove(Problem(layer, machine), "energy", seeds=(), cutoff=math.inf, options=options) for layer in layers]
    return [one for one in found if isinstance(one, Found)]


def rate(work: Callable[[Accelerator], list[T]], machines: list[Accelerator]) -> tuple[float, list[list[T]]]:
    """(CPU seconds, what came of it)."""
    began = time.process_time()
    found = [work(machine) for machine in machines]
    return time.process_time() - began, found


def measure(layers: list[Layer], base: Accelerator, kind: str, count: int, fresh: int, effort: Effortful) -> str:
    """One line of the table."""
    axes = [[change(base, end) for end in listed or (0.5, 2.0)] for change, listed in KINDS[kind]]
    rng, answers = random.Random(1), MachineAnswers(Box.spanned(base, axes))

    def ask(machine: Accelerator) -> list[Found | None]:
        return answered(layers, machine, answers, effort)

    first, _ = rate(ask, [drawn(rng, base, kind) for _ in range(count)])
    others = [drawn(rng, base, kind) for _ in range(count)]
    then, found = rate(ask, others)
    alone, own = rate(lambda machine: proven(layers, machine, effort), others[:fresh])
    pairs = [pair for mine, theirs in zip(found, own, strict=False) for pair in zip(mine, theirs, strict=True)]
    equal = sum(
        a is not None
        and math.isclose(a.certificate.value, b.certificate.value, rel_tol=1e-8)
        and math.isclose(a.certificate.lower_bound, b.certificate.lower_bound, rel_tol=1e-6)
        for a, b in pairs
    )
    rows = sum(len(table.rows) for table in answers.tables.values() if table is not None)
    times = alone * count / fresh / then
    rates = f"{kind:10s} {count / first:10.1f} {count / then:10.1f} {fresh / alone:10.2f} {times:8.0f} x"
    asked = answers.answered + answers.refused
    return f"{rates}   {equal} of {len(pairs)}   {answers.refused} of {asked}   {rows}"


def main() -> None:
    """Print the table."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--model", default="resnet18")
    parse.add_argument("--spec", default="eyeriss_v1")
    parse.add_argument("--bits", default="W8A8")
    parse.add_argument("--effort", default="perfect", choices=("perfect", "proven"))
    parse.add_argument("--machines", type=int, default=100)
    parse.add_argument("--fresh", type=int, default=5)
    parse.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parse.add_argument("--profile", action="store_true", help="where the time of known tables goes")
    options = parse.parse_args()
    os.environ["HWSIM_CACHE"] = ""
    workload, base = assign_bits(load_model(options.model, None, False), options.bits), load_machine(options.spec)
    layers = list(
        {search_key(layer): layer for layer in effective_workload(workload, base.capabilities).values()}.values()
    )
    print(f"{options.model}, {len(layers)} shapes, machines like {options.spec}, {options.bits}, {options.effort}")
    print("varies     at first/s  then/s     fresh/s    then       equal to fresh   left to a fresh proof   paths kept")
    for kind in options.kinds:
        print(measure(layers, base, kind, options.machines, options.fresh, options.effort), flush=True)
    if options.profile:
        axes = [[change(base, end) for end in listed or (0.5, 2.0)] for change, listed in KINDS["prices"]]
        rng, answers = random.Random(2), MachineAnswers(Box.spanned(base, axes))
        machines = [drawn(rng, base, "prices") for _ in range(60)]
        for machine in machines[:30]:
            answered(layers, machine, answers, options.effort)
        with cProfile.Profile() as profile:
            for machine in machines[30:]:
                answered(layers, machine, answers, options.effort)
        pstats.Stats(profile).sort_stats("cumulative").print_stats(18)


if __name__ == "__main__":
    main()
