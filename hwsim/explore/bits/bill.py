"""A network on a machine as a bits problem: what it costs as terms over choices of widths, and the way back.

`tables.ChoiceTables` prices every combination of widths that a layer meets. Which tensors stay on chip depends on all
widths at once, so it is given: nothing stays, or what stays at the widest widths (`widest_plan`). With it given, terms
add up exactly to what `price_network` says; a chosen point is priced again as a whole (`BitProblem.exact`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from hwsim.errors import HwsimError, SpecError
from hwsim.explore.bits.choices import Freed, Freedom, Site, free_choices, spread
from hwsim.explore.bits.problem import Measure, Problem, Refusal, Solution, Term, collect
from hwsim.explore.words import BOPS, CYCLES, ENERGY, LOSS, PEAK, WEIGHTS
from hwsim.machine.parts import Accelerator
from hwsim.network.batches import batch_of
from hwsim.network.bits import assign_bits
from hwsim.network.layer import Tensor
from hwsim.network.rounding import ELEMENTWISE, restored
from hwsim.network.workload import Workload
from hwsim.search.network import Plan, plan_network
from hwsim.search.objective import Objective
from hwsim.search.passes import Pass, equal_sizes, together
from hwsim.tables.choice_tables import ChoiceTables, Table

SUMS = (ENERGY, CYCLES, BOPS)  # what passes of a batch add up
ROUNDING = ("conv", "linear", "matmul", "embedding", *ELEMENTWISE)  # operators with quantizers of their own


@dataclass(frozen=True)
class BitProblem:
    """A network on a machine as a problem, and the way back from its solutions."""

    workload: Workload
    accelerator: Accelerator
    freed: tuple[Freed, ...]
    problem: Problem
    objective: Objective
    times: int = 1  # equal passes of this network that a batch takes
    whole: Workload | None = None  # the batch at once, where it runs in passes
    rooms: Mapping[str, float] = field(default_factory=dict)  # measures of bounded memories, and their bits

    @cached_property
    def position(self) -> dict[str, int]:
        """Choice of every tensor."""
        return {name: i for i, entry in enumerate(self.freed) for name in entry.choice.tensors}

    def at(self, solution: Solution) -> Workload:
        """The network at a solution's widths."""
        return restored(at_widths(self.workload, self.freed, self.problem.widths(solution.picks)))

    def batch_at(self, solution: Solution) -> Workload:
        """The whole batch at a solution's widths."""
        return self.at(solution) if self.whole is None else dataclasses.replace(self, workload=self.whole).at(solution)

    def bits_file(self, solution: Solution) -> dict[str, object]:
        """A solution as `--bits FILE` reads it: weight, input and output width by layer."""
        network = self.at(solution)
        found: dict[str, object] = {}
        for layer in network:
            entry: dict[str, int] = {}
            if layer.weight is not None and layer.weight.name in self.position:
                entry["weight"] = layer.weight.bits
            widths = {tensor.bits for tensor in layer.inputs if tensor.origin != "index"}
            if len(widths) == 1 and layer.op != "embedding":
                entry["input"] = widths.pop()
            if entry and layer.op in ROUNDING:
                found[layer.name] = entry
        return found

    def exact(self, solution: Solution) -> Plan:
        """A solution priced as a whole: mappings searched anew, tensors kept on chip where that saves energy."""
        network = self.at(solution)
        plan = plan_network(network, self.accelerator, self.objective)
        if self.whole is None:
            return plan
        run = Pass(batch_of(network), self.times, network, plan)
        return together(self.batch_at(solution), self.accelerator, (run,))


def bit_problems(
    workload: Workload,
    accelerator: Accelerator,
    freedom: Freedom | None = None,
    sensitivities: Mapping[Site, Mapping[int, float]] | None = None,
    objective: Objective = "energy",
    *,
    on_chip: bool = False,
) -> tuple[BitProblem, ...]:
    """The problem of a batch at once, and in every size of equal passes; one problem where there is no batch."""
    found: list[BitProblem] = []
    for times, network in equal_sizes(workload):
        made = bit_problem(network, accelerator, freedom, sensitivities, objective, on_chip=on_chip)
        if times > 1:
            at_once = found[0].problem.by_name  # the whole batch must fit, in however many passes it runs
            measures = tuple(
                at_once[each.name] if each.name in made.rooms else each.times(times) if each.name in SUMS else each
                for each in made.problem.measures
            )
            problem = dataclasses.replace(made.problem, measures=measures)
            made = dataclasses.replace(made, problem=problem, times=times, whole=found[0].workload)
        found.append(made)
    return tuple(found)


def bit_problem(
    workload: Workload,
    accelerator: Accelerator,
    freedom: Freedom | None = None,
    sensitivities: Mapping[Site, Mapping[int, float]] | None = None,
    objective: Objective = "energy",
    *,
    on_chip: bool = False,
) -> BitProblem:
    """The problem of a float (or anyhow quantized) network on a machine.

    `on_chip`: count as on chip what stays there at the widest widths allowed; else every tensor is in the outermost
    memory between layers.

    Measures: `loss` (sum of sensitivities; absent without them), `energy_pj`, `latency_cycles`, `weight_bits`,
    `peak_activation_bits`, `bops`. `objective` decides between mappings where they trade energy for cycles.
    """
    coded = starting_point(workload, accelerator, freedom or Freedom())
    judged = None if sensitivities is None else frozenset(sensitivities)
    freed = free_choices(coded, accelerator, freedom or Freedom(), judged)
    plan = widest_plan(coded, accelerator, freed, objective) if on_chip else None
    position = {name: i for i, entry in enumerate(freed) for name in entry.choice.tensors}
    widths = [entry.choice.widths for entry in freed]
    tables = ChoiceTables(coded, accelerator, widths, position, objective, plan)
    measures, refused = measures_of(tables)
    held = [(f"bits in {name}", room, rows) for name, room, rows in tables.rooms()]
    measures += [Measure(name, tuple(collect(terms(row)) for row in rows)) for name, _, rows in held]
    rooms = {name: float(room) for name, room, _ in held}
    refused += wider_than_stored(coded, freed)
    if sensitivities is not None:
        losses = spread(freed, sensitivities)
        table = [
            Term((i,), np.array([loss[width] for width in entry.choice.widths]))
            for i, (entry, loss) in enumerate(zip(freed, losses, strict=True))
        ]
        measures = [Measure(LOSS, (tuple(table),)), *measures]
    problem = Problem(tuple(entry.choice for entry in freed), tuple(measures), tuple(refused))
    return BitProblem(coded, accelerator, freed, problem, objective, rooms=rooms)


def starting_point(workload: Workload, accelerator: Accelerator, freedom: Freedom) -> Workload:
    """The network as training makes it, stored as at its narrowest: what stays at 8 bits is what others are made from.

    Activations then have 8 bits, or the machine's widest below.
    """
    ends = "8bit" if freedom.first_last == "8bit" else "same"
    narrow = f"W1A{min(freedom.activation_widths)}"
    coded = assign_bits(workload, narrow, first_last=ends, elementwise_bits=freedom.elementwise_bits)
    width = best_activation(accelerator)

    def wide(tensor: Tensor) -> Tensor:
        if tensor.bits >= 8 or tensor.origin == "index":
            return tensor
        return dataclasses.replace(tensor, bits=8 if tensor.origin == "weight" else width)

    return coded.map_tensors(wide)


def wider_than_stored(workload: Workload, freed: Sequence[Freed]) -> Iterable[Refusal]:
    """Combinations in which a reader needs more bits than its array is stored in. Raises SpecError where all do."""
    position = {name: i for i, entry in enumerate(freed) for name in entry.choice.tensors}
    for layer in workload:
        places = [position.get(tensor.name) for tensor in (*layer.inputs, layer.output)]
        if layer.op != "requantize" or None in places or places[0] == places[1]:
            continue
        scope = tuple(place for place in places if place is not None)
        stored, read = (np.array(freed[place].choice.widths) for place in scope)
        mask = stored[:, None] < read[None, :]
        if mask.all():
            array = layer.inputs[0].name
            raise SpecError(
                f"{array} is stored in at most {stored.max()} bits, {layer.name} needs at least {read.min()}: allow "
                f"those that read {array} (additions by elementwise_bits) {read.min()} bits, or {layer.name} fewer"
            )
        if mask.any():
            yield Refusal(scope, mask, f"{layer.name}: an array is stored in its widest form, which excludes")


def widest_plan(
    workload: Workload, accelerator: Accelerator, freed: Sequence[Freed], objective: Objective
) -> Plan | None:
    """The network at the widest widths allowed, priced as a whole; None where the machine refuses that."""
    try:
        return plan_network(at_widths(workload, freed, [e.choice.widths[-1] for e in freed]), accelerator, objective)
    except HwsimError:
        return None


def best_activation(accelerator: Accelerator) -> int:
    """8, or the machine's widest activation below."""
    widths = [width for width in accelerator.capabilities.activation_bits if width <= 8]
    return max(widths, default=8)


def at_widths(workload: Workload, freed: Sequence[Freed], widths: Sequence[int]) -> Workload:
    """The workload with the chosen widths on its tensors."""
    bits = {name: width for entry, width in zip(freed, widths, strict=True) for name in entry.choice.tensors}
    return workload.map_tensors(lambda t: dataclasses.replace(t, bits=bits[t.name]) if t.name in bits else t)


def measures_of(tables: ChoiceTables) -> tuple[list[Measure], list[Refusal]]:
    """Every measure but the loss, and the combinations refused."""
    energy: list[Term] = []
    cycles: list[Term] = []
    bops: list[Term] = []
    refused: list[Refusal] = []
    for stage in tables.stages:
        host = tables.host(stage)
        energy.append(Term(host.scope, host.energy_pj))
        cycles.append(Term(host.scope, host.cycles))
        if host.refused.any():
            refused.append(Refusal(host.scope, host.refused, f"{stage.layer.name}: the machine refuses"))
        energy += terms(tables.follower(stage, layer) for layer in stage.fused)
        if stage.layer.has_macs:
            bops += terms([tables.bops(stage.layer)])
    sums = {ENERGY: energy, CYCLES: cycles, WEIGHTS: terms(tables.held())}
    found = [Measure(name, (collect(parts),)) for name, parts in sums.items()]
    peak = Measure(PEAK, tuple(collect(terms(row)) for row in tables.peak()))
    return [*found, peak, Measure(BOPS, (collect(bops),))], refused


def terms(tables: Iterable[Table]) -> list[Term]:
    """Tables as terms of a measure."""
    return [Term(table.scope, table.values) for table in tables]
