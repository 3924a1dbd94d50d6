"""A choice of bits as tables: which widths each tensor may have, and what every combination costs.

A `Choice` is one width to pick, for all tensors that must share it. A `Term` is a part of a bill that depends on a few
choices; it holds the value of every combination, so activations' and weights' bits meet exactly where the machine
makes them meet. A `Measure` (energy, cycles, bits held, loss) is a sum of terms, or the largest of several sums.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwsim.errors import HwsimError, SpecError

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Choice:
    """One width to choose for all of `tensors`; `widths` ascend."""

    name: str
    widths: tuple[int, ...]
    tensors: tuple[str, ...] = ()
    kind: str = "activation"

    def __post_init__(self) -> None:
        if not self.widths or list(self.widths) != sorted(set(self.widths)):
            raise SpecError(f"{self.name}: expected at least one width, ascending, got {list(self.widths)}")


@dataclass(frozen=True)
class Term:
    """Values of every combination of the choices in `scope` (indices into the problem's), one axis per choice."""

    scope: tuple[int, ...]
    values: Floats


@dataclass(frozen=True)
class Measure:
    """What a choice of bits costs in one currency: the largest, over `rows`, of the sum of a row's terms."""

    name: str
    rows: tuple[tuple[Term, ...], ...]

    @property
    def additive(self) -> bool:
        """Whether it is one plain sum."""
        return len(self.rows) == 1

    def times(self, many: int) -> Measure:
        """So many times as much."""
        return Measure(self.name, tuple(tuple(Term(t.scope, many * t.values) for t in row) for row in self.rows))


@dataclass(frozen=True)
class Refusal:
    """Combinations of two or more choices that a machine cannot run: True where refused; `why` for messages."""

    scope: tuple[int, ...]
    mask: Mask
    why: str


class InfeasibleBudget(HwsimError):
    """Budgets that no choice of bits meets; `closest` is the one that misses them least, `binding` what it misses."""

    exit_code = 3

    def __init__(self, message: str, binding: tuple[str, ...], closest: Solution | None) -> None:
        super().__init__(message)
        self.binding, self.closest = binding, closest


@dataclass(frozen=True)
class Solution:
    """One choice of bits: an index into each choice's widths, and every measure's value, computed from the tables."""

    picks: tuple[int, ...]
    values: Mapping[str, float]


@dataclass(frozen=True)
class Problem:
    """Choices, measures and refusals. Raises SpecError where tables do not match the choices' widths."""

    choices: tuple[Choice, ...]
    measures: tuple[Measure, ...]
    refusals: tuple[Refusal, ...] = ()

    def __post_init__(self) -> None:
        names = [choice.name for choice in self.choices]
        if len(set(names)) < len(names) or len(self.by_name) < len(self.measures):
            raise SpecError("bits problem: two choices or two measures have one name")
        for measure in self.measures:
            for term in itertools.chain.from_iterable(measure.rows):
                self.check(measure.name, term.scope, term.values)
        for refusal in self.refusals:
            self.check(refusal.why, refusal.scope, refusal.mask)

    def check(self, what: str, scope: tuple[int, ...], values: NDArray[np.float64] | Mask) -> None:
        """A table has one axis per choice of its scope, and finite entries."""
        expected = tuple(len(self.choices[index].widths) for index in scope)
        if values.shape != expected or len(set(scope)) < len(scope):
            raise SpecError(f"{what}: expected a table of {expected} over choices {scope}, got {values.shape}")
        if not np.isfinite(values).all():
            raise SpecError(f"{what}: a table over choices {scope} has values that are no finite numbers")

    @cached_property
    def by_name(self) -> dict[str, Measure]:
        """Measures by name."""
        return {measure.name: measure for measure in self.measures}

    def measure(self, name: str) -> Measure:
        """A measure. Raises SpecError with the known names."""
        if name not in self.by_name:
            raise SpecError(f"unknown measure {name!r}: known are {', '.join(self.by_name)}")
        return self.by_name[name]

    @property
    def combinations(self) -> int:
        """How many assignments there are, refused ones included."""
        total = 1
        for choice in self.choices:
            total *= len(choice.widths)
        return total

    def widths(self, picks: Sequence[int]) -> tuple[int, ...]:
        """Bits of every choice."""
        return tuple(choice.widths[pick] for choice, pick in zip(self.choices, picks, strict=True))

    def evaluate(self, picks: ArrayLike, names: Sequence[str] | None = None) -> dict[str, Floats]:
        """Every measure (or those of `names`) of many assignments at once. picks: (N, choices) indices -> (N,) each."""
        table = np.atleast_2d(np.asarray(picks, dtype=np.intp))
        found: dict[str, Floats] = {}
        for measure in self.measures if names is None else [self.measure(name) for name in names]:
            sums = [sum_terms(row, table) for row in measure.rows]
            found[measure.name] = sums[0] if len(sums) == 1 else np.max(np.stack(sums), axis=0)
        return found

    def allowed(self, picks: ArrayLike) -> Mask:
        """Which assignments the machine runs. picks: (N, choices) -> (N,)."""
        table = np.atleast_2d(np.asarray(picks, dtype=np.intp))
        keep = np.ones(len(table), dtype=np.bool_)
        for refusal in self.refusals:
            keep &= ~refusal.mask[tuple(table[:, index] for index in refusal.scope)]
        return keep

    def solution(self, picks: Sequence[int]) -> Solution:
        """An assignment with its values."""
        values = {name: float(found[0]) for name, found in self.evaluate([list(picks)]).items()}
        return Solution(tuple(int(pick) for pick in picks), values)

    def random_picks(self, count: int, rng: np.random.Generator) -> Ints:
        """Uniformly drawn assignments that the machine runs. Raises SpecError when a thousand draws in a row fail."""
        kept: list[Ints] = []
        have, misses = 0, 0
        sizes = [len(choice.widths) for choice in self.choices]
        while have < count:
            drawn = rng.integers(0, sizes, size=(max(count, 64), len(sizes)))
            good = drawn[self.allowed(drawn)]
            misses = 0 if len(good) else misses + len(drawn)
            if misses > 1000:
                raise SpecError("bits problem: random assignments are all refused by the machine")
            kept.append(good)
            have += len(good)
        return np.concatenate(kept)[:count]


def sum_terms(terms: tuple[Term, ...], picks: Ints) -> Floats:
    """Sum of terms for many assignments. picks: (N, choices) -> (N,)."""
    total = np.zeros(len(picks), dtype=np.float64)
    for term in terms:
        total += term.values[tuple(picks[:, index] for index in term.scope)]
    return total


def separate(term: Term) -> list[Term]:
    """The term as a sum of terms with fewer choices each, where its table is such a sum exactly.

    Axes a and b part where every mixed second difference over them is zero:
    A = A[b=0] + (A[a=0] - A[a=0, b=0]). Energies on the grid of 2^-10 pJ make this exact in float64.
    """
    values = term.values
    for a, b in itertools.combinations(range(values.ndim), 2):
        base_a, base_b = np.take(values, [0], axis=a), np.take(values, [0], axis=b)
        base = np.take(base_a, [0], axis=b)
        if np.array_equal(values, base_a + base_b - base):
            left = Term(drop(term.scope, b), np.squeeze(base_b, axis=b))
            right = Term(drop(term.scope, a), np.squeeze(base_a - base, axis=a))
            return [*separate(left), *separate(right)]
    return [term]


def drop(scope: tuple[int, ...], axis: int) -> tuple[int, ...]:
    """A scope without one of its choices."""
    return scope[:axis] + scope[axis + 1 :]


def collect(terms: Sequence[Term]) -> tuple[Term, ...]:
    """Terms separated, and those over the same choices added up; all-zero tables are left out."""
    found: dict[tuple[int, ...], Floats] = {}
    for term in terms:
        for part in separate(term):
            order = np.argsort(part.scope)
            scope = tuple(part.scope[i] for i in order)
            values = part.values.transpose(order) if len(order) else part.values
            found[scope] = found[scope] + values if scope in found else values
    return tuple(Term(scope, values) for scope, values in found.items() if np.any(values))
