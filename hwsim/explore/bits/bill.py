"""The tables of a bits problem for a network on a machine: energy, cycles, memory held, per layer and combination.

Each layer is priced at every combination of the widths it meets, under the best of several mappings found for it. Which
tensors stay on chip depends on all widths at once, so the tables take that as given: nothing stays, or what stays at
the widest widths (`widest_plan`). With it given they add up exactly to what `price_network` says; a chosen point is
priced again as a whole (`BitProblem.exact`).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hwsim.errors import CapabilityError, HwsimError, InfeasibleMapping
from hwsim.explore.bits.choices import Freed, Freedom, Site, free_choices, norm_weights, spread
from hwsim.explore.bits.problem import Choice, Floats, Measure, Problem, Refusal, Solution, Term, collect
from hwsim.machine.packing import words
from hwsim.machine.parts import Accelerator
from hwsim.nest.count import count_accesses
from hwsim.nest.counts import Counts
from hwsim.nest.legal import validate
from hwsim.nest.mapping import Mapping as Nest
from hwsim.network.bits import assign_bits
from hwsim.network.layer import Layer, Tensor
from hwsim.network.workload import Workload
from hwsim.pricing.layer import price_fused, price_stage
from hwsim.pricing.mac import refusals
from hwsim.pricing.moves import parameter_bits
from hwsim.pricing.offsets import offset_cost
from hwsim.pricing.residents import goes_through, lifetimes
from hwsim.pricing.stages import Stage, effective_layer, fuse
from hwsim.pricing.vector import vector_work
from hwsim.search.layer import search
from hwsim.search.network import Plan, plan_network
from hwsim.search.objective import Objective

LOSS, ENERGY, CYCLES, WEIGHTS, PEAK, BOPS = (
    "loss", "energy_pj", "latency_cycles", "weight_bits", "peak_activation_bits", "bops",
)  # fmt: skip
NOWHERE: frozenset[str] = frozenset()
FILLER = 0.0  # value of a refused combination; the refusal keeps it from being chosen
WHOLE = ("weight", "input", "output")


@dataclass(frozen=True)
class BitProblem:
    """A network on a machine as a problem, and the way back from its solutions."""

    workload: Workload
    accelerator: Accelerator
    freed: tuple[Freed, ...]
    problem: Problem
    objective: Objective

    @cached_property
    def position(self) -> dict[str, int]:
        """Choice of every tensor."""
        return {name: i for i, entry in enumerate(self.freed) for name in entry.choice.tensors}

    def at(self, solution: Solution) -> Workload:
        """The network at a solution's widths."""
        return at_widths(self.workload, self.freed, self.problem.widths(solution.picks))

    def bits_file(self, solution: Solution) -> dict[str, object]:
        """A solution as `--bits FILE` reads it: weight, input and output width by layer."""
        network = self.at(solution)
        found: dict[str, object] = {}
        for layer in network:
            entry: dict[str, int] = {}
            if layer.weight is not None and layer.weight.name in self.position:
                entry["weight"] = layer.weight.bits
            widths = {tensor.bits for tensor in layer.inputs if tensor.name in self.position}
            if len(widths) == 1:
                entry["input"] = widths.pop()
            if layer.output.name in self.position:
                entry["output"] = layer.output.bits
            if entry:
                found[layer.name] = entry
        return found

    def exact(self, solution: Solution) -> Plan:
        """A solution priced as a whole: mappings searched anew, tensors kept on chip where that saves energy."""
        return plan_network(self.at(solution), self.accelerator, self.objective)


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
    coded = assign_bits(workload, f"W8A{best_activation(accelerator)}")
    judged = None if sensitivities is None else frozenset(sensitivities)
    freed = free_choices(coded, accelerator, freedom or Freedom(), judged)
    maker = Biller(
        coded, accelerator, freed, objective, widest_plan(coded, accelerator, freed, objective) if on_chip else None
    )
    measures, refused = maker.measures()
    if sensitivities is not None:
        losses = spread(freed, sensitivities)
        table = [
            Term((i,), np.array([loss[width] for width in entry.choice.widths]))
            for i, (entry, loss) in enumerate(zip(freed, losses, strict=True))
        ]
        measures = [Measure(LOSS, (tuple(table),)), *measures]
    problem = Problem(tuple(entry.choice for entry in freed), tuple(measures), tuple(refused))
    return BitProblem(coded, accelerator, freed, problem, objective)


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
    return workload.map_tensors(lambda t: with_bits(t, bits))


def with_bits(tensor: Tensor, bits: Mapping[str, int]) -> Tensor:
    """A tensor at its chosen width; unchanged where there is none."""
    return dataclasses.replace(tensor, bits=bits[tensor.name]) if tensor.name in bits else tensor


class Biller:
    """Builds the tables. Stages of one shape are priced once. `plan`: what stays on chip, and mappings that let it."""

    def __init__(
        self,
        workload: Workload,
        accelerator: Accelerator,
        freed: Sequence[Freed],
        objective: Objective,
        plan: Plan | None = None,
    ) -> None:
        self.workload, self.accelerator = workload, accelerator
        self.objective: Objective = objective
        self.choices = [entry.choice for entry in freed]
        self.position = {name: i for i, choice in enumerate(self.choices) for name in choice.tensors}
        self.stages = fuse(workload, accelerator.capabilities)
        self.known: dict[object, tuple[dict[str, Floats], Floats]] = {}
        self.norms = norm_weights(workload)
        self.plan = plan
        self.resident = frozenset(plan.cost.resident) if plan is not None else NOWHERE

    def measures(self) -> tuple[list[Measure], list[Refusal]]:
        """Every measure but the loss, and the combinations refused."""
        terms: dict[str, list[Term]] = {ENERGY: [], CYCLES: [], WEIGHTS: [], BOPS: []}
        refused: list[Refusal] = []
        weights_seen: set[str] = set()
        for stage in self.stages:
            scope = self.host_scope(stage)
            tables, mask = self.host(stage, scope)
            for name, table in tables.items():
                terms[name].append(Term(scope, table))
            if mask.any():
                refused.append(Refusal(scope, mask.astype(np.bool_), f"{stage.layer.name}: the machine refuses"))
            for follower in stage.fused:
                scope = self.scope(follower)
                terms[ENERGY].append(Term(scope, self.follower(stage, follower, scope)))
            for layer in (stage.layer, *stage.fused):
                terms[WEIGHTS] += self.held(layer, weights_seen)
        sums = [Measure(name, (collect(parts),)) for name, parts in terms.items()]
        return [*sums[:3], Measure(PEAK, self.peak()), sums[3]], refused

    def scope(self, layer: Layer) -> tuple[int, ...]:
        """Choices that a layer's tensors meet, each once."""
        tensors = [*layer.inputs, layer.output, *((layer.weight,) if layer.weight is not None else ())]
        return tuple(dict.fromkeys(self.position[t.name] for t in tensors if t.name in self.position))

    def host_scope(self, stage: Stage) -> tuple[int, ...]:
        """Choices that decide a stage's first layer: its operands as memories see them, and fused work that varies."""
        if not stage.layer.has_macs:
            return self.scope(stage.layer)
        scope = list(self.scope(effective_layer(stage)))
        for follower in stage.fused:
            for index in self.scope(follower):
                if index not in scope and self.work_varies(follower, self.choices[index]):
                    scope.append(index)
        return tuple(scope)

    def work_varies(self, layer: Layer, choice: Choice) -> bool:
        """Whether an operator's vector work depends on a choice."""
        found = set()
        for width in (choice.widths[0], choice.widths[-1]):
            bits = dict.fromkeys(choice.tensors, width)
            found.add(vector_work(at_bits(layer, bits), self.accelerator.capabilities))
        return len(found) > 1

    def combinations(self, scope: tuple[int, ...]) -> Iterable[tuple[tuple[int, ...], dict[str, int]]]:
        """(indices, bits by tensor) of every combination of some choices."""
        sizes = [range(len(self.choices[index].widths)) for index in scope]
        for picks in itertools.product(*sizes):
            bits: dict[str, int] = {}
            for index, pick in zip(scope, picks, strict=True):
                choice = self.choices[index]
                bits.update(dict.fromkeys(choice.tensors, choice.widths[pick]))
            yield picks, bits

    def shape(self, scope: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of a table."""
        return tuple(len(self.choices[index].widths) for index in scope)

    def host(self, stage: Stage, scope: tuple[int, ...]) -> tuple[dict[str, Floats], Floats]:
        """Energy, cycles and bit operations of a stage's first layer; 1 where the machine refuses it."""
        key = self.key(stage, scope)
        if key in self.known:
            return self.known[key]
        names = (ENERGY, CYCLES, BOPS) if stage.layer.has_macs else (ENERGY, CYCLES)
        tables = {name: np.full(self.shape(scope), FILLER) for name in names}
        mask = np.zeros(self.shape(scope))
        mappings = self.mappings(stage, scope)
        for picks, bits in self.combinations(scope):
            here = Stage(at_bits(stage.layer, bits), tuple(at_bits(f, bits) for f in stage.fused))
            best = self.price(here, mappings)
            if best is None:
                mask[picks] = 1.0
                continue
            tables[ENERGY][picks], tables[CYCLES][picks] = best
            if BOPS in tables:
                tables[BOPS][picks] = here.layer.bops
        self.known[key] = tables, mask
        return tables, mask

    def key(self, stage: Stage, scope: tuple[int, ...]) -> object:
        """What a stage's table depends on: the stage with names taken out, which tensors share, the widths."""
        names: dict[str, str] = {}

        def plain(tensor: Tensor) -> Tensor:
            alias = names.setdefault(tensor.name, f"t{len(names)}")
            return dataclasses.replace(tensor, name=alias, origin="")

        layers = tuple(
            dataclasses.replace(
                layer,
                name="",
                source="",
                inputs=tuple(plain(t) for t in layer.inputs),
                output=plain(layer.output),
                weight=plain(layer.weight) if layer.weight is not None else None,
            )
            for layer in (stage.layer, *stage.fused)
        )
        sharing = tuple(scope.index(self.position[name]) if self.position.get(name) in scope else -1 for name in names)
        stays = tuple(name in self.resident for name in names)
        return layers, sharing, stays, tuple(self.choices[index].widths for index in scope)

    def mappings(self, stage: Stage, scope: tuple[int, ...]) -> list[tuple[Nest, Counts, bool]]:
        """Mappings to choose among, found at the corners of the widths and on the diagonal between; whether each is
        legal even at the widest."""
        if not stage.layer.has_macs:
            return []
        found: dict[Nest, Counts] = {}
        if self.plan is not None:
            planned = self.plan.found[stage.layer.name]
            found[planned.mapping] = planned.counts
        for pick in corners(self.shape(scope)):
            bits: dict[str, int] = {}
            for index, position in zip(scope, pick, strict=True):
                choice = self.choices[index]
                bits.update(dict.fromkeys(choice.tensors, choice.widths[position]))
            layer = effective_layer(Stage(at_bits(stage.layer, bits), tuple(at_bits(f, bits) for f in stage.fused)))
            if not refusals(layer, self.accelerator):
                try:
                    result = search(layer, self.accelerator, self.objective)
                except HwsimError:
                    continue
                found.setdefault(result.mapping, result.counts)
        if not found and self.capable(stage, scope):
            raise InfeasibleMapping(f"layer {stage.layer.name}: no mapping fits at any of the widths allowed")
        found = {m: c for m, c in found.items() if self.keeps(stage, c)} or found
        widest = effective_layer(stage_at_widest(stage, [self.choices[index] for index in scope]))
        return [(m, c, not validate(m, widest, self.accelerator)) for m, c in found.items()]

    def keeps(self, stage: Stage, counts: Counts) -> bool:
        """Whether a stage under these counts takes and leaves in the activation memory what stays there."""
        home = self.accelerator.activation_memory
        mine = {t.name for t in (*stage.inputs, stage.output)} & self.resident
        by_name = {stage.layer.name: counts}
        return home is None or all(goes_through(stage, name, self.accelerator, home, by_name) for name in mine)

    def cost(self, stage: Stage, counts: Counts | None) -> tuple[float, float]:
        """(energy, cycles) of a stage's first layer."""
        stays = self.resident if counts is None or self.keeps(stage, counts) else NOWHERE
        cost = price_stage(stage, self.accelerator, counts, stays)
        return cost.total_energy_pj, float(cost.latency_cycles)

    def capable(self, stage: Stage, scope: tuple[int, ...]) -> bool:
        """Whether the machine runs the layer at any combination. Raises CapabilityError when it does not."""
        first: tuple[str, ...] = ()
        for _, bits in self.combinations(scope):
            layer = effective_layer(Stage(at_bits(stage.layer, bits), tuple(at_bits(f, bits) for f in stage.fused)))
            first = refusals(layer, self.accelerator)
            if not first:
                return True
        raise CapabilityError("\n".join(first))

    def price(self, stage: Stage, mappings: Sequence[tuple[Nest, Counts, bool]]) -> tuple[float, float] | None:
        """(energy, cycles) under the best mapping; None where the machine refuses the widths."""
        if not stage.layer.has_macs:
            return self.cost(stage, None)
        layer = effective_layer(stage)
        if refusals(layer, self.accelerator):
            return None
        best: tuple[float, float] | None = None
        for nest, counts, everywhere in mappings:
            if not everywhere and validate(nest, layer, self.accelerator):
                continue
            found = self.cost(stage, counts)
            if best is None or self.rank(found) < self.rank(best):
                best = found
        if best is None:  # none of the mappings found elsewhere fits here
            try:
                result = search(layer, self.accelerator, self.objective)
            except InfeasibleMapping:
                return None
            best = self.cost(stage, count_accesses(layer, result.mapping, self.accelerator))
        return best

    def rank(self, found: tuple[float, float]) -> tuple[float, float]:
        """Order of preference among mappings."""
        energy, cycles = found
        return {"energy": (energy, cycles), "latency": (cycles, energy), "edp": (energy * cycles, energy)}[
            self.objective
        ]

    def follower(self, stage: Stage, layer: Layer, scope: tuple[int, ...]) -> Floats:
        """Energy of an operator on the way out of the array."""
        table = np.zeros(self.shape(scope))
        for picks, bits in self.combinations(scope):
            here = Stage(at_bits(stage.layer, bits), tuple(at_bits(f, bits) for f in stage.fused))
            table[picks] = price_fused(at_bits(layer, bits), self.accelerator, here, self.resident).total_energy_pj
        return table

    def held(self, layer: Layer, seen: set[str]) -> list[Term]:
        """Bits of weights, constants and stored offsets, as `Totals.weight_bits` counts them."""
        outer, can = self.accelerator.outermost, self.accelerator.capabilities
        found: list[Term] = []
        weight = layer.weight
        if weight is not None and not layer.weight_is_activation and weight.name not in seen:
            seen.add(weight.name)
            index = self.position.get(weight.name)
            widths = (weight.bits,) if index is None else self.choices[index].widths
            bits = [float(words(weight.elements, w, outer.word_bits, outer.packing) * outer.word_bits) for w in widths]
            found.append(Term((), np.array(bits[0])) if index is None else Term((index,), np.array(bits)))
        if layer.has_macs or offset_cost(layer, can).extra_bits:
            tensors = [t.name for t in (layer.inputs[0], layer.output) if t.name in self.position]
            scope = tuple(dict.fromkeys(self.position[name] for name in tensors))
            table = np.zeros(self.shape(scope))
            for picks, bits_of in self.combinations(scope):
                here = at_bits(layer, bits_of)
                offset = offset_cost(here, can)
                stored = offset.extra_bits if offset.kind in ("folded", "border_bias") else 0
                table[picks] = parameter_bits(here, can) + stored
            found.append(Term(scope, table))
        return found

    def peak(self) -> tuple[tuple[Term, ...], ...]:
        """Live activations while each stage runs, one row per stage; rows that another one contains are left out."""
        lives = lifetimes(self.stages)
        rows: dict[frozenset[str], tuple[Term, ...]] = {}
        for index in range(len(self.stages)):
            live = [life.tensor for life in lives if life.born <= index <= life.last]
            names = frozenset(tensor.name for tensor in live)
            if any(names <= other for other in rows):
                continue
            terms: list[Term] = []
            for tensor in live:
                place = self.position.get(tensor.name)
                if place is None:
                    terms.append(Term((), np.array(float(tensor.size_bits))))
                else:
                    sizes = [float(tensor.elements * width) for width in self.choices[place].widths]
                    terms.append(Term((place,), np.array(sizes)))
            rows = {other: kept for other, kept in rows.items() if not other <= names}
            rows[names] = collect(terms)
        return tuple(rows.values())


def at_bits(layer: Layer, bits: Mapping[str, int]) -> Layer:
    """A layer with new widths on the tensors named."""
    return dataclasses.replace(
        layer,
        inputs=tuple(with_bits(t, bits) for t in layer.inputs),
        output=with_bits(layer.output, bits),
        weight=with_bits(layer.weight, bits) if layer.weight is not None else None,
    )


def stage_at_widest(stage: Stage, choices: Iterable[Choice]) -> Stage:
    """A stage with each of its choices at its widest."""
    bits = {name: choice.widths[-1] for choice in choices for name in choice.tensors}
    return Stage(at_bits(stage.layer, bits), tuple(at_bits(f, bits) for f in stage.fused))


def corners(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Widest first: the diagonal at both ends and the middle, then each axis alone at its narrow end."""
    last = tuple(n - 1 for n in shape)
    found = [last, tuple(n // 2 for n in shape), tuple(0 for _ in shape)]
    found += [(*last[:axis], 0, *last[axis + 1 :]) for axis in range(len(shape))]
    return list(dict.fromkeys(found))
