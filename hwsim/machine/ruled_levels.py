"""What the rules of a schedule say of each memory and array of a machine."""

from __future__ import annotations

from hwsim.machine.parts import Accelerator, Array, Memory
from hwsim.machine.rules import Limits, Rule, Rules


def must_hold(rules: Rules, memory: Memory) -> frozenset[str]:
    """Operands that a memory has to hold."""
    return frozenset(o for rule in rules if rule.level == memory.name for o in rule.keep)


def may_not_hold(rules: Rules, memory: Memory) -> frozenset[str]:
    """Operands that a memory may not hold."""
    return frozenset(o for rule in rules if rule.level == memory.name for o in rule.bypass)


def unroll_limits(rules: Rules, array: Array) -> dict[str, Limits]:
    """Limits of spatial factors by axis."""
    found: dict[str, Limits] = {}
    for rule in rules:
        if rule.level == array.name:
            for axis, limits in rule.unroll:
                found[axis] = (*found.get(axis, ()), *limits)
    return found


def least_use(rules: Rules, array: Array) -> float:
    """Least share of an array's elements that has to work."""
    return max((rule.min_use for rule in rules if rule.level == array.name), default=0.0)


def tile_limits(rules: Rules, memory: str) -> Limits:
    """Limits of the extents of a memory's tiles."""
    return tuple(limit for rule in rules if rule.level == memory for limit in rule.tile)


def arrays_inside(accelerator: Accelerator, level: str) -> int:
    """Arrays inside a level: of an array those below it."""
    names = [node.name for node in accelerator.hierarchy]
    return sum(isinstance(node, Array) for node in accelerator.hierarchy[names.index(level) + 1 :])


def alternatives(rules: Rules, accelerator: Accelerator) -> list[Rules]:
    """The rules with every choice of what memories hold, where loops depend on it: memories that may be bypassed."""
    found = [rules]
    memories = {memory.name for memory in accelerator.memories}
    if not any(rule.has_loops and rule.level in memories for rule in rules):
        return found
    for memory in accelerator.memories[1:]:
        for operand in memory.bypass:
            if operand not in must_hold(rules, memory) | may_not_hold(rules, memory):
                both = (Rule(memory.name, keep=(operand,)), Rule(memory.name, bypass=(operand,)))
                found = [(*known, choice) for known in found for choice in both]
    return found
