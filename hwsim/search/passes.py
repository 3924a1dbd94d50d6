"""A batch as smaller passes: the network on fewer images at a time, as often as the batch needs.

Larger batches share weights, smaller ones leave room on chip, so cost per image has its least somewhere between.
Every pass size that divides the batch is searched with the effort of the whole, or bounded so that it cannot pay:

    f(B) = min over b that divide B of (B / b) V(b)        (EDP: (B / b)^2 V(b))

with V the batch at once. So k B images never cost more than k times B. Where equal passes pay, sizes that leave a
remainder are tried, too.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from hwsim.errors import HwsimError, WorkloadError
from hwsim.machine.parts import Accelerator
from hwsim.network.batches import at_batch, batch_of
from hwsim.network.workload import Workload
from hwsim.pricing.lifetimes import WHOLE_TENSORS, Lifetimes
from hwsim.pricing.network import Totals
from hwsim.pricing.passes import passes_cost
from hwsim.search.joint.optimum import Optimum
from hwsim.search.joint.schedule import Schedule
from hwsim.search.joint.staircase import Weights
from hwsim.search.network import Plan, preferred
from hwsim.search.objective import Objective, objective_value
from hwsim.search.result import NetworkCertificate

PASSES = "; the batch of {batch} at once, or in equal passes of {sizes}"
MOST_TRIED = 4  # sizes that leave a remainder
REMAINDERS = "; passes that leave a remainder were tried and are not covered"


@dataclass(frozen=True)
class Pass:
    """`times` passes of `images` each, with the network at that batch and its plan."""

    images: int
    times: int
    workload: Workload
    plan: Plan


Passes = tuple[Pass, ...]
Planned = Callable[[Workload, bool], Plan]  # a network's plan; by the quick search where the second is true


@dataclass(frozen=True)
class Batch:
    """How a batch of `images` runs: `passes` (none: at once), and what it costs at once.

    At once it is as far as the quick search knows where a bound said that passes cost less. `not_tried`: why smaller
    passes were not looked at.
    """

    images: int
    passes: Passes = ()
    at_once: Totals | None = None
    not_tried: str = ""

    def __str__(self) -> str:
        """`8 images as 4 passes of 2`."""
        parts = [f"{p.times} pass{'es' if p.times > 1 else ''} of {p.images}" for p in self.passes]
        return f"{self.images} images" + (f" as {' and '.join(parts)}" if parts else " at once")


def together(workload: Workload, accelerator: Accelerator, passes: Passes) -> Plan:
    """The plan of a batch in passes: the nests of the first kind of pass, the bill of all."""
    cost = passes_cost(workload, accelerator, [(p.times, p.plan.cost) for p in passes])
    return dataclasses.replace(passes[0].plan, cost=cost, certificate=None)


@dataclass
class Splitting:
    """A batch's choice of passes. `bounded`: whether plans keep to what `least_pass` bounds (no depth-first groups)."""

    workload: Workload
    accelerator: Accelerator
    objective: Objective
    slack: float
    planned: Planned
    quick: bool
    bounded: bool
    lifetimes: Lifetimes = WHOLE_TENSORS

    def __post_init__(self) -> None:
        self.batch = batch_of(self.workload)
        self.workloads: dict[int, Workload] = {}
        self.plans: dict[tuple[int, bool], Plan | HwsimError] = {}
        self.at_once: Plan | None = None  # of the batch, once it ran

    def at(self, images: int) -> Workload:
        """The network on so many images. Raises WorkloadError."""
        if images not in self.workloads:
            self.workloads[images] = at_batch(self.workload, images)
        return self.workloads[images]

    def plan(self, images: int, quick: bool) -> Plan | None:
        """The plan of so many images; None where the machine cannot run it."""
        key = images, quick
        if key not in self.plans:
            try:
                self.plans[key] = self.planned(self.at(images), quick)
            except HwsimError as problem:
                self.plans[key] = problem
        found = self.plans[key]
        return found if isinstance(found, Plan) else None

    def run(self) -> tuple[Plan, Batch]:
        """The best way to run the batch. Raises HwsimError where neither the batch nor a pass can be planned."""
        try:
            self.at(1)
        except WorkloadError as problem:
            self.at_once = self.planned(self.workload, self.quick)
            return self.at_once, Batch(self.batch, (), self.at_once.cost.totals, str(problem))
        equal = self.equal_passes()
        if not equal:
            raise next(problem for problem in self.plans.values() if isinstance(problem, HwsimError))
        splits, plans = list(equal), [self.together(split) for split in equal]
        best = preferred(plans, self.objective, self.slack)
        tried = self.with_remainder(splits[index_of(best, plans)])
        splits, plans = [*splits, *tried], [*plans, *map(self.together, tried)]
        best = preferred([best, *plans], self.objective, self.slack)
        certificate = self.certified(best, equal, bool(tried))
        passes = splits[index_of(best, plans)]
        known = (self.batch, self.quick) in self.plans
        self.at_once = (self.plan(self.batch, self.quick) if known else None) or self.plan(self.batch, True)
        totals = self.at_once and self.at_once.cost.totals
        batch = Batch(self.batch, () if passes[0].images == self.batch else passes, totals)
        return dataclasses.replace(best, certificate=certificate), batch

    def together(self, passes: Passes) -> Plan:
        """The batch's plan in passes."""
        if passes[0].images == self.batch:
            return passes[0].plan
        return together(self.workload, self.accelerator, passes)

    def equal_passes(self) -> list[Passes]:
        """The batch at once and in passes of every size that divides it, but for those that cannot be the best."""
        sizes, pruned = [*divisors(self.batch), self.batch], self.bounded and not self.quick
        if pruned:  # what seems cheapest first: it excludes most
            sizes.sort(key=lambda b: math.inf if (split := self.composed(b, True)) is None else self.summed(split))
        found: list[Passes] = []
        for images in sizes:
            most = min(map(self.summed, found), default=math.inf) * (1 + self.slack)
            known = self.plan(images, True) if pruned and found else None
            if known is not None and self.scaled(self.least_pass(images, known), self.batch // images) > most:
                continue
            split = self.composed(images, self.quick)
            found += [] if split is None else [split]
        return found

    def scaled(self, value: float, times: int) -> float:
        """An objective's value over equal passes."""
        return value * (times**2 if self.objective == "edp" else times)

    def least_pass(self, images: int, known: Plan) -> float:
        """What a pass costs at least, from bounds alone."""
        optimum = Optimum(Schedule(self.at(images), self.accelerator, self.lifetimes), None)
        optimum.add((name, found.mapping) for name, found in known.found.items())
        energy = 0.0 if self.objective == "latency" else optimum.bounded(Weights(0.0))
        cycles = 0.0 if self.objective == "energy" else optimum.bounded(Weights(None))
        return objective_value(self.objective, energy, cycles)

    def with_remainder(self, equal: Passes) -> list[Passes]:
        """The best passes that leave a remainder by the quick search, if they beat equal ones there.

        Sizes from the best equal one to the next that divides the batch: what stays on chip there may still stay.
        """
        best = equal[0].images
        if best == self.batch:
            return []
        above = min(b for b in (*divisors(self.batch), self.batch) if b > best)
        sizes = {-(-self.batch // n) for n in range(2, self.batch)}
        rival = self.composed(best, True)
        found = [self.composed(b, True) for b in sorted(b for b in sizes if best < b < above)[-MOST_TRIED:]]
        plans = {id(split): self.summed(split) for split in (rival, *found) if split is not None}
        known = [split for split in (rival, *found) if split is not None]
        if len(known) < 2 or rival is None:
            return []
        chosen = min(known, key=lambda split: plans[id(split)])
        if chosen is rival:
            return []
        split = self.composed(chosen[0].images, self.quick)
        return [] if split is None else [split]

    def composed(self, images: int, quick: bool) -> Passes | None:
        """As many passes of a size as the batch holds, and one of what is left."""
        times, left = divmod(self.batch, images)
        sizes = [(images, times), *([(left, 1)] if left else [])]
        plans = [(size, n, self.plan(size, quick)) for size, n in sizes]
        found = tuple(Pass(size, n, self.at(size), plan) for size, n, plan in plans if plan is not None)
        return found if len(found) == len(sizes) else None

    def summed(self, split: Passes) -> float:
        """The objective over passes."""
        energy = sum(p.times * p.plan.cost.totals.energy_pj for p in split)
        cycles = sum(p.times * p.plan.cost.totals.latency_cycles for p in split)
        return objective_value(self.objective, energy, float(cycles))

    def certified(self, best: Plan, equal: Sequence[Passes], remainders: bool) -> NetworkCertificate | None:
        """What is proven of the batch at once and of its equal passes together."""
        proofs = [(split[0].times, split[0].plan.certificate) for split in equal]
        known = [(times, certificate) for times, certificate in proofs if certificate is not None]
        if len(known) < len(proofs):
            return None
        value = best.value(self.objective)
        bounds = [self.scaled(certificate.lower_bound, times) for times, certificate in known]
        sizes = ", ".join(map(str, divisors(self.batch)))
        alone = len(known) == 1 and known[0][0] == 1  # no pass can have as little
        first = known[0][1]
        return dataclasses.replace(
            first,
            value=value,
            lower_bound=min(*bounds, value),
            searches=sum(certificate.searches for _, certificate in known),
            exhaustive=all(certificate.exhaustive for _, certificate in known),
            space=first.space + PASSES.format(batch=self.batch, sizes=sizes) + (REMAINDERS if remainders else ""),
            **({} if alone else {"then": "", "then_value": 0.0, "then_bound": 0.0}),
        )


def equal_sizes(workload: Workload) -> list[tuple[int, Workload]]:
    """(passes, the network of one) for every size of equal passes, the batch at once first.

    At once alone where the network does not follow its batch.
    """
    batch, found = batch_of(workload), [(1, workload)]
    try:
        return found + [(batch // images, at_batch(workload, images)) for images in reversed(divisors(batch))]
    except WorkloadError:
        return found


def divisors(batch: int) -> list[int]:
    """Sizes of equal passes, smallest first, the batch itself left out."""
    return [b for b in range(1, batch // 2 + 1) if not batch % b]


def index_of(plan: Plan, plans: Sequence[Plan]) -> int:
    """The place of that very plan."""
    return next(i for i, other in enumerate(plans) if other is plan)


def given_passes(
    workload: Workload, sizes: Sequence[tuple[int, int]], planned: Callable[[Workload, int], Plan]
) -> Iterator[Pass]:
    """Passes as (images, times) say, the i-th planned by `planned(network, i)`. Raises WorkloadError."""
    batch = batch_of(workload)
    if sum(images * times for images, times in sizes) != batch:
        said = " + ".join(f"{times} x {images}" for images, times in sizes)
        raise WorkloadError(f"passes: {workload.name} has a batch of {batch}, the mapping file's passes run {said}")
    for i, (images, times) in enumerate(sizes):
        smaller = at_batch(workload, images)
        yield Pass(images, times, smaller, planned(smaller, i))
