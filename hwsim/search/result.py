"""What a search of one layer returns: mapping, counts, price, and a certificate of how good it is proven to be."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from hwsim.nest.counts import Counts
from hwsim.nest.mapping import Mapping
from hwsim.pricing.layer import LayerCost
from hwsim.pricing.lifetimes import WHOLE_TENSORS, Lifetimes
from hwsim.search.objective import Objective, value_of
from hwsim.search.words import Effortful

ROUNDING = 1e-6  # of a bound that counts as reached: entries of a bill are kept on a grid


def less_at_most(gap: float) -> float:
    """The share by which anything can be below a value that lies `gap` above its bound: 1 - bound / value.

    >>> less_at_most(0.25)
    0.2
    """
    return gap / (1 + gap)


@dataclass(frozen=True)
class Certificate:
    """How good a mapping is proven to be: `value` and `lower_bound` in the objective's unit (pJ, cycles, pJ*cycles).

    No mapping of `space` has an objective below `lower_bound`; gap = value/lower_bound - 1. No legal mapping at all,
    whatever its tile sizes, has one below `any_tiles_bound`. `covered`: lattice points the search accounted for;
    `priced`: mappings priced exactly. `exhaustive`: the search ended by itself. `root_bound`: what a proof knew when
    it had priced one mapping, after `root_seconds`; 0 without a proof. `then`: the second objective; this mapping's is
    `then_value`, and no mapping of `space` within `slack` of the best value has less than `then_bound` (0: unproven).
    """

    objective: Objective
    value: float
    lower_bound: float
    covered: int
    priced: int
    space: str
    exhaustive: bool = False
    seconds: float = 0.0
    root_bound: float = 0.0
    root_seconds: float = 0.0
    any_tiles_bound: float = 0.0
    slack: float = 0.0
    then: str = ""
    then_value: float = 0.0
    then_bound: float = 0.0

    @property
    def gap(self) -> float:
        """Relative distance to the bound."""
        return max(0.0, self.value / self.lower_bound - 1.0) if self.lower_bound > 0 else 0.0

    @property
    def any_tiles_gap(self) -> float:
        """Relative distance to what holds for every legal mapping."""
        return max(0.0, self.value / self.any_tiles_bound - 1.0) if self.any_tiles_bound > 0 else 0.0

    def revalued(self, cost: LayerCost) -> Certificate:
        """The same bound beside another mapping's cost."""
        return dataclasses.replace(self, value=value_of(cost, self.objective), exhaustive=False, then="")

    def shifted(self, cost: LayerCost, before: LayerCost) -> Certificate:
        """The certificate of a question whose bills all differ from this one's as `cost` does from `before`."""
        more = value_of(cost, self.objective) - value_of(before, self.objective)
        then = value_of(cost, self.then) - value_of(before, self.then) if self.then else 0.0
        return dataclasses.replace(
            self,
            value=self.value + more,
            lower_bound=self.lower_bound + more,
            root_bound=self.root_bound + more if self.root_bound else 0.0,
            any_tiles_bound=max(0.0, self.any_tiles_bound + more),
            then_value=self.then_value + then,
            then_bound=self.then_bound + then if self.then_bound else 0.0,
        )

    def to_dict(self) -> dict[str, Any]:
        """As it stands in the report."""
        found = dataclasses.asdict(self)
        del found["seconds"], found["root_seconds"]
        return {**found, "gap": self.gap, "any_tiles_gap": self.any_tiles_gap}


@dataclass(frozen=True)
class Found:
    """A mapping with its exact counts, its price and its certificate."""

    mapping: Mapping
    counts: Counts
    cost: LayerCost
    certificate: Certificate


@dataclass(frozen=True)
class Bounded:
    """No mapping of a proof's space costs less; which one costs least was left open."""

    lower_bound: float


@dataclass(frozen=True)
class NetworkCertificate:
    """How good a plan of a network is proven to be, homes of tensors and mappings together.

    No plan that keeps tensors from birth to last reader (`lifetimes`), with mappings of the layers' spaces, has an
    objective below `lower_bound` (pJ, cycles, pJ*cycles). `searches`: layers searched, for a set of operands at home
    and a room each. `exhaustive`: all those of the plan ended by themselves. `then`: as in `Certificate`.
    """

    objective: Objective
    value: float
    lower_bound: float
    searches: int
    exhaustive: bool
    space: str
    then: str = ""
    then_value: float = 0.0
    then_bound: float = 0.0
    lifetimes: Lifetimes = WHOLE_TENSORS

    @property
    def gap(self) -> float:
        """Relative distance to the bound."""
        return max(0.0, self.value / self.lower_bound - 1.0) if self.lower_bound > 0 else 0.0

    def to_dict(self) -> dict[str, Any]:
        """As it stands in the report."""
        return {**dataclasses.asdict(self), "lifetimes": str(self.lifetimes), "gap": self.gap}


def homes_space(lifetimes: Lifetimes) -> str:
    """What a network's certificate holds."""
    return (
        "the given order of stages; every choice of tensors that stay in the activation memory "
        f"({lifetimes.sentence}), with every mapping of the layers' spaces"
    )


SPACE = (
    "declared subset: unrollings that head a ranking by traffic or cycles, for each the cheapest chain of tiles over "
    "divisors of the (padded) extents, uneven cuts and allowed bypasses, a few loop orders; the bound holds for "
    "all legal mappings"
)
ORDERS = "every order of temporal loops, every place of every hold, every allowed bypass"
PROVEN: dict[Effortful, str] = {
    "quick": SPACE,
    "perfect": f"perfect factors: every spatial unrolling, {ORDERS}; mappings with remainders are tried but not "
    "covered by the bound",
    "proven": "remainders of unrollings included: every spatial unrolling, where it divides and where it does not (on "
    "one array, the fewest elements for its steps), windows as well; temporal loops divide the steps that are left; "
    f"{ORDERS}; not covered: tiles of weights and outputs that an idle array element keeps while others reload theirs, "
    "and temporal loops with remainders (tried)",
}
EVERYTHING = "every legal mapping, whatever its tile sizes"
RULED = "; of mappings that keep the constraints"
NOT_PROVEN = "; not proven: "  # and why: stands behind SPACE where a proof was asked for
GROUPED = (
    "the given order of stages, with and without depth-first groups, one nest for all tiles of a stage; a relaxation: "
    "maps between stages never leave the chip, each stage has all the room there, all may be under way at once"
)
UNFUSED = "; of schedules without such groups: {value:.6g}, none below {bound:.6g} ({space})"
UNTRIED = "; schedules with depth-first groups were not tried and are not covered"
FUSED = "runs depth first: the quick search's nests of tiles, those of whole layers cut to tiles, weights still or not"
GIVEN = "given mapping, not searched; the bound holds for all legal mappings"
