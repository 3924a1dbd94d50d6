"""Rules for loops in time as the proof sees them: which dims may run in a region, in which order, how often.

How often a dim runs in a region is a matter of the extents on the way in and out. Where rules for the loops further in
fix the former (`fixed`), nothing has to be remembered; else the proof's stages remember it (`kept`).
"""

from __future__ import annotations

from dataclasses import dataclass

from hwsim.machine.ruled_levels import arrays_inside
from hwsim.machine.rules import REST, Limit, Rule
from hwsim.search.kernel_enums import ENUMS
from hwsim.search.space.lattice import divisors
from hwsim.search.space.problem import Problem

FREE, EXACTLY, AT_MOST, ALL_LEFT = (ENUMS[name] for name in ("FREE", "EXACTLY", "AT_MOST", "ALL_LEFT"))


@dataclass(frozen=True)
class Region:
    """The loops of a level: `segment` arrays inside, `depth` memories inside (-1: all inside an array).

    `turns`: dims (bits) that may run, turn by turn; `limits` (kind, factor) and `fixed` factors further in, per dim;
    `kept`: (dim, sizes that it may have on the way in).
    """

    segment: int
    depth: int
    turns: tuple[int, ...]
    limits: tuple[tuple[int, int], ...]
    fixed: tuple[tuple[int, ...], ...]
    kept: tuple[tuple[int, int], ...]


def regions(problem: Problem) -> list[Region]:
    """A region for every rule that speaks of loops, but for memories that hold nothing.

    Arrays come first: of two regions that fit its loops a stage is in the last one, so memories inside an array have
    their own.
    """
    machine = problem.accelerator
    memories = [memory.name for memory in reversed(machine.memories)]
    held = {memory.name for holders in problem.holders.values() for memory in holders}
    found: list[Region] = []
    for rule in sorted(problem.rules, key=lambda rule: rule.level in memories):
        if rule.has_loops and (rule.level not in memories or rule.level in held):
            segment = arrays_inside(machine, rule.level)
            depth = memories.index(rule.level) if rule.level in memories else -1
            limits = limits_of(problem, rule)
            fixed, kept = list[tuple[int, ...]](), list[tuple[int, int]]()
            for e, (kind, _) in enumerate(limits):
                inner = fixed_inside(problem, problem.dims[e], segment, depth) if kind in (EXACTLY, AT_MOST) else ()
                fixed.append(inner or ())
                if inner is None:
                    kept.append((e, most_sizes(problem.extents[e])))
            found.append(Region(segment, depth, turns_of(problem, rule), limits, tuple(fixed), tuple(kept)))
    return found


def runs_once(limit: Limit) -> bool:
    """Whether a dim may not run at all."""
    return limit.most == 1


def limits_of(problem: Problem, rule: Rule) -> tuple[tuple[int, int], ...]:
    """(kind, factor) per dim; what may not run is left out of the turns."""
    known = dict(rule.factors)
    found: list[tuple[int, int]] = []
    for dim in problem.dims:
        limit = known.get(dim)
        if limit is None or runs_once(limit):
            found.append((FREE, 0))
        elif limit.most is None:
            found.append((ALL_LEFT, 0))
        else:
            found.append((EXACTLY if limit.exact else AT_MOST, limit.most))
    return tuple(found)


def turns_of(problem: Problem, rule: Rule) -> tuple[int, ...]:
    """Dims that may run at every turn: one of the order, and those that it does not name."""
    still = {dim for dim, limit in rule.factors if runs_once(limit)}
    bits = {dim: 1 << e for e, dim in enumerate(problem.dims) if dim not in still}
    unnamed = sum(bit for dim, bit in bits.items() if dim not in rule.order)
    free = 0 if REST in rule.order else unnamed
    moves = [free | (unnamed if dim == REST else bits.get(dim, 0)) for dim in rule.order if dim == REST or dim in bits]
    return tuple(move for move in moves if move) or (free,)


def fixed_inside(problem: Problem, dim: str, segment: int, depth: int) -> tuple[int, ...] | None:
    """Factors (0: all that is left) of a dim further in than a level, innermost first; None where they are open."""
    machine = problem.accelerator
    arrays = [array.name for array in reversed(machine.arrays)]
    memories = {memory.name for memory in machine.memories}
    parted = {arrays_inside(machine, rule.level) for rule in problem.rules if rule.has_loops and rule.level in memories}
    known = {rule.level: dict(rule.factors).get(dim) for rule in problem.rules if dict(rule.factors).get(dim)
             if rule.level in memories or arrays_inside(machine, rule.level) not in parted}  # fmt: skip
    levels = arrays_below = list(arrays[:segment])
    if depth > 0:
        inner = [memory.name for memory in reversed(machine.memories)][:depth]
        held = {memory.name for holders in problem.holders.values() for memory in holders}
        levels = arrays_below + [name for name in inner if arrays_inside(machine, name) == segment and name in held]
    found: list[int] = []
    for level in levels:
        limit = known.get(level)
        if limit is None or not (limit.exact or limit.most is None):
            return None
        found.append(limit.most or 0)
    return tuple(found)


def most_sizes(extent: int) -> int:
    """Most tile sizes that a dim has for any number of steps that arrays may leave of it."""
    steps = {-(-extent // factor) for factor in range(1, extent + 1)}
    return max(len(divisors(n)) for n in steps)
