"""How much a search may take, and which proof that allows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hwsim.search.proof.certify import unrollings_at_most
from hwsim.search.proof.native import why_no_kernel
from hwsim.search.result import Effortful
from hwsim.search.space.problem import Problem

UNROLLINGS = 400_000  # `auto` proves spaces of at most so many: about a second
WEAKEST: tuple[Effortful, ...] = ("quick", "perfect", "proven")


@dataclass(frozen=True)
class Options:
    """How much a search may take: see `search`."""

    gap: float = 0.0
    time_limit_s: float | None = None
    effort: Effortful = "quick"

    def deadline(self, began: float) -> float:
        """When a search that began then must end."""
        return math.inf if self.time_limit_s is None else began + self.time_limit_s


def within_means(problems: Sequence[Problem], effort: Effortful) -> tuple[Effortful, str]:
    """The effort that can be made, and why it is less than was asked for."""
    missing = "" if effort == "quick" else next(filter(None, map(why_no_kernel, problems)), "")
    if missing:
        return "quick", missing
    if effort == "auto":
        reach = {within_reach(part) for part in problems}
        return next(each for each in WEAKEST if each in reach), ""
    return effort, ""


def within_reach(problem: Problem) -> Effortful:
    """The largest space whose proof takes about a second."""
    if unrollings_at_most(problem, True) <= UNROLLINGS:
        return "proven"
    return "perfect" if unrollings_at_most(problem, False) <= UNROLLINGS else "quick"
