"""Why a layer has no mapping: the smallest need that does not fit, or the rules that no mapping keeps together."""

from __future__ import annotations

import math

from hwsim.errors import InfeasibleMapping
from hwsim.machine.parts import OPERANDS, Accelerator, Operand
from hwsim.machine.ruled_levels import alternatives
from hwsim.machine.rules import Rule, Rules
from hwsim.nest.count import count_accesses
from hwsim.nest.legal import infeasible, validate
from hwsim.nest.mapping import Hold, Mapping, Node, Temporal
from hwsim.nest.ruled import broken_rules
from hwsim.network.layer import Layer
from hwsim.pricing.layer import price
from hwsim.search.proof.certify import certified_search
from hwsim.search.proof.native import why_no_kernel
from hwsim.search.space.problem import Problem

FIRST = 1e12  # a gap that the first mapping meets
MAX_PRICED = 3_000_000  # lattice points until rules count as kept by none


def why_infeasible(layer: Layer, accelerator: Accelerator) -> InfeasibleMapping:
    """The smallest need and the memory that lacks it: what even a nest of single points cannot hold."""
    smallest = smallest_mapping(layer, accelerator)
    problems = validate(smallest, layer, accelerator)
    reason = "; ".join(problems) if problems else "no unrolling and tiling of the declared space fits"
    message = f"layer {layer.name} does not fit {accelerator.name}: with the smallest tiles {reason}"
    return infeasible(message, smallest, layer, accelerator)


def smallest_mapping(layer: Layer, accelerator: Accelerator) -> Mapping:
    """All loops at the outermost memory: every memory below holds one point of each operand it must keep."""
    outermost = accelerator.memories[0]
    nodes: list[Node] = [Hold(outermost.name, tuple(o for o in OPERANDS if o in outermost.keeps))]
    nodes.extend(Temporal(dim, n) for dim, n in layer.loops.as_dict().items() if n > 1)
    for memory in accelerator.memories[1:]:
        kept: tuple[Operand, ...] = tuple(o for o in OPERANDS if o in memory.keeps and o not in memory.bypass)
        if kept:
            nodes.append(Hold(memory.name, kept))
    return Mapping(tuple(nodes))


# --- rules ------------------------------------------------------------------------------------------------------------


def why_ruled_out(layer: Layer, accelerator: Accelerator, rules: Rules) -> InfeasibleMapping:
    """Rules of which no mapping keeps all, as few as there are: one alone where one is impossible by itself."""
    if any(why_no_kernel(Problem(layer, accelerator, rules=choice)) for choice in alternatives(rules, accelerator)):
        return InfeasibleMapping(
            f"layer {layer.name} on {accelerator.name}: none of the mappings looked at keeps the constraints; a proof "
            "would look at all, but has no kernel here",
            layer=layer.name,
        )
    if not kept_by_any(layer, accelerator, ()):
        return why_infeasible(layer, accelerator)
    singles = [(rule.place(key), single) for rule in rules for key, single in rule.single()]
    alone = [(place, single) for place, single in singles if not kept_by_any(layer, accelerator, (single,))]
    guilty = alone[:1] or conflict(layer, accelerator, singles)
    places = "\n".join(f"{place}: {told(single)}" for place, single in guilty)
    what = "cannot be met" if len(guilty) == 1 else "cannot be met together"
    return InfeasibleMapping(
        f"layer {layer.name} on {accelerator.name}: {len(guilty)} constraint{'s' * (len(guilty) > 1)} {what} "
        f"(tiles divide the loops):\n{places}",
        layer=layer.name,
    )


def conflict(layer: Layer, accelerator: Accelerator, singles: list[tuple[str, Rule]]) -> list[tuple[str, Rule]]:
    """A smallest set of constraints that exclude each other: without any of them there is a mapping."""
    needed = list(singles)
    for each in singles:
        rest = [other for other in needed if other is not each]
        if not kept_by_any(layer, accelerator, tuple(rule for _, rule in rest)):
            needed = rest
    return needed


def told(rule: Rule) -> str:
    """What a rule of one key says."""
    if rule.order:
        return f"order {', '.join(rule.order)} at {rule.level}"
    if rule.min_use:
        return f"at least {rule.min_use:g} of {rule.level}"
    if rule.keep or rule.bypass:
        return f"{rule.level} {'keeps' if rule.keep else 'does not keep'} {', '.join(rule.keep or rule.bypass)}"
    if rule.unroll:
        axis, ((dim, limit),) = rule.unroll[0]
        return f"{dim} {limit} on {rule.level}.{axis}"
    ((dim, limit),) = rule.factors or rule.tile
    return f"{dim} {limit} {'at' if rule.factors else 'in a tile of'} {rule.level}"


def kept_by_any(layer: Layer, accelerator: Accelerator, rules: Rules) -> bool:
    """Whether some mapping of the proof's space keeps rules."""

    def value(mapping: Mapping) -> float | None:
        if validate(mapping, layer, accelerator) or broken_rules(mapping, layer, accelerator, rules):
            return None
        return price(layer, count_accesses(layer, mapping, accelerator), accelerator).total_energy_pj

    for choice in alternatives(merged(rules), accelerator):
        problem = Problem(layer, accelerator, rules=choice)
        if why_no_kernel(problem):
            return True  # not known, so not to blame
        for remainders in (False, True):
            search = certified_search(problem, "energy", value, remainders)
            if search is not None:
                search.run(FIRST, math.inf, most=MAX_PRICED)
                if search.priced:
                    return True
    return False


def merged(rules: Rules) -> Rules:
    """One rule per level, as files have them."""
    found: dict[str, Rule] = {}
    for rule in rules:
        known = found.get(rule.level, Rule(rule.level))
        found[rule.level] = Rule(
            rule.level,
            known.order or rule.order,
            (*known.factors, *rule.factors),
            (*known.unroll, *rule.unroll),
            max(known.min_use, rule.min_use),
            known.keep or rule.keep,
            known.bypass or rule.bypass,
            (*known.tile, *rule.tile),
        )
    return tuple(found.values())
