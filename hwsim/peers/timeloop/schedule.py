"""Constraints of Timeloop's mapper as the constraints of a spec: factors, orders and unrollings, level by level.

A level's temporal loops are those of its memory here. A level that the machine leaves out (a latch, a storage that
keeps nothing) gives its loops to the memory around it. Timeloop has no loops in time between a fan-out and the next
level: where the memory outside has rules, the array says so by factors of 1.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from hwsim.machine.parts import Operand
from hwsim.machine.rules import REST
from hwsim.nest.points import relevant_dims
from hwsim.network.layer import DIMS
from hwsim.peers.draft import Draft, bare_name
from hwsim.peers.report import TranslationReport
from hwsim.peers.schedule import Amount, Entry, keep_out_of_arrays, write_constraints
from hwsim.peers.tagged_yaml import Item
from hwsim.peers.timeloop.architecture import Chain, Level
from hwsim.peers.timeloop.problem import USUAL_DIMS
from hwsim.peers.timeloop.rules import AXES, Rules, check_keys, given_factors, spatial_dims, where
from hwsim.peers.timeloop.words import Factor, read_spaces, read_turns

ONLY_ITS_SEARCH = "only Timeloop's own search knows this constraint"


@dataclass
class Said:
    """What temporal constraints say of one level, in our loops: limits and an order, the fastest first."""

    factors: dict[str, Amount] = field(default_factory=dict[str, Amount])
    order: list[str] = field(default_factory=list[str])

    @property
    def loops(self) -> bool:
        """Whether they say anything."""
        return bool(self.factors or self.order)

    def banned(self) -> set[str]:
        """Loops that may not run there."""
        return {dim for dim, limit in self.factors.items() if limit in (1, "<=1")}


def add_schedule(
    draft: Draft, chain: Chain, rules: Mapping[str, Rules], operands: Mapping[str, Operand], dims: Mapping[str, str],
    report: TranslationReport,
) -> None:  # fmt: skip
    """Write `constraints` into the draft, as far as a spec can say them. Raises SpecError."""
    said = temporal_rules(draft, chain, rules, operands, dims, report)
    found = {name: memory_entry(name, rule) for name, rule in said.items() if rule.loops}
    for level in chain.levels:
        if level.kind == "fanout" and level.x * level.y > 1:
            found |= array_entry(level, rules[level.name], dims, report)
    keep_out_of_arrays(draft, found)
    least_use(draft, chain, rules, found, report)
    places = {bare_name(level.name): level for level in chain.levels}
    sources = {name: where(level) for name, level in places.items()}
    if write_constraints(draft, found, sources, {name: level.line for name, level in places.items()}):
        report.taken(chain.place, "constraints", "the spec has them: --constraints own searches under them")


# --- loops in time ----------------------------------------------------------------------------------------------------


def temporal_rules(
    draft: Draft, chain: Chain, rules: Mapping[str, Rules], operands: Mapping[str, Operand], dims: Mapping[str, str],
    report: TranslationReport,
) -> dict[str, Said]:  # fmt: skip
    """Rules by memory of ours; where a level is left out, loops that may run there are open in the memory around it."""
    memories = {entry["memory"] for entry in draft.data["hierarchy"] if "memory" in entry}
    found: dict[str, Said] = {}
    around = ""
    for level in chain.levels:
        if level.kind in ("fanout", "compute"):
            for tree in rules[level.name].temporal:
                report.none(tree.place, f"{level.name}.temporal", "no storage, so no loops in time of its own here")
            continue
        said = said_of(level, rules[level.name], operands, dims, report)
        if bare_name(level.name) in memories and level.kind == "storage":
            around = bare_name(level.name)
            found[around] = said
        elif around:
            loosen(found[around], said, dims, level, around, report)
    return found


def loosen(
    said: Said, inner: Said, dims: Mapping[str, str], level: Level, around: str, report: TranslationReport
) -> None:
    """Loops of a level that is left out run in the memory around it: what is open there binds no more."""
    if level.kind == "dummy" and not inner.loops:
        return
    free = set(dims.values()) - inner.banned()
    lost = [dim for dim in said.factors if dim in free]
    for dim in lost:
        del said.factors[dim]
    if free and said.order:
        said.order = []
        lost.append("the order")
    if lost:
        text = f"loops of {level.name}, which is left out, run in {around} here: {', '.join(lost)} left open there"
        report.approximated(level.place, f"{around}.temporal", text)


def said_of(
    level: Level, rules: Rules, operands: Mapping[str, Operand], dims: Mapping[str, str], report: TranslationReport
) -> Said:
    """All temporal constraints of a level."""
    found = Said()
    for tree in rules.temporal:
        keys = {key.replace("-", "_"): item for key, item in tree.keys("temporal").items()}
        check_keys(tree, keys)
        factors = given_factors(keys, dims, level.name)
        limits = joined_limits(
            {f.dim: limit for f in factors if (limit := limit_of(f, level, tree, report))}, level, tree, dims, report
        )
        named = {dims[f.dim] for f in factors}
        for dim in all_of(dims) - named:
            if (limit := default_limit(dim, keys, operands, level)) is not None:
                limits[dim] = limit
        for dim, limit in limits.items():
            if found.factors.get(dim, limit) != limit:
                raise tree.error(
                    f"{level.name}: {dim}: two constraints of its factor: {found.factors[dim]} and {limit}"
                )
            found.factors[dim] = limit
        turns = read_turns(keys.get("permutation"), dims, f"{level.name}.permutation")
        if turns:
            found.order = turns_of(turns, dims)
        note_unsaid(keys, level, "temporal", report)
    return found


def joined_limits(
    limits: Mapping[str, Amount], level: Level, tree: Item, dims: Mapping[str, str], report: TranslationReport
) -> dict[str, Amount]:
    """Limits by our loops: the product of exact ones where several of theirs are one loop, else none (and named)."""
    found: dict[str, Amount] = {}
    for role in dict.fromkeys(dims[dim] for dim in limits):
        theirs = [dim for dim, ours in dims.items() if ours == role and (dim in limits or not usual(dim, dims))]
        amounts = [limits.get(dim, "") for dim in theirs]
        exact = [amount for amount in amounts if isinstance(amount, int)]
        if len(amounts) == 1:
            found[role] = amounts[0]
        elif len(exact) == len(amounts):
            found[role] = math.prod(exact)
        else:
            text = f"{', '.join(theirs)} are one loop here and not all have exact factors: left open"
            report.none(tree.place, f"{level.name}.factors", text)
    return found


def usual(dim: str, dims: Mapping[str, str]) -> bool:
    """Whether a loop is only another name that stands for the same one where no problem is given."""
    return dims == USUAL_DIMS and dim in ("M", "K")


def all_of(dims: Mapping[str, str]) -> set[str]:
    """Our loops that the operation has."""
    return set(dims.values())


def turns_of(turns: Collection[str], dims: Mapping[str, str]) -> list[str]:
    """A permutation in our words: loops that it does not name stand at `_`, else outside."""
    named = list(dict.fromkeys(REST if turn == "_" else dims[turn] for turn in turns))
    missing = all_of(dims) - set(named)
    if REST in named or not missing:
        return [turn for turn in named if turn != REST or missing]
    return [*named, *(missing if len(missing) == 1 else [REST])]


def limit_of(factor: Factor, level: Level, tree: Item, report: TranslationReport) -> Amount | None:
    """A factor as a limit of ours; None (and named) where there is none."""
    if factor.remainder is not None or factor.relation == ">=":
        text = f"{factor.dim}{factor.relation}{factor.number}: a least factor or a remainder binds no search here"
        report.none(tree.place, f"{level.name}.factors", text)
        return None
    if factor.number == 0:
        return "all"
    return factor.number if factor.relation == "=" else f"<={factor.number}"


def default_limit(dim: str, keys: Mapping[str, Item], operands: Mapping[str, Operand], level: Level) -> Amount | None:
    """The limit of a loop that `factors` does not name."""
    if "factors_only" in keys:
        return 1
    barred = read_spaces(
        keys.get("no_iteration_over_dataspaces"), operands, f"{level.name}.no_iteration_over_dataspaces"
    )
    wanted = read_spaces(
        keys.get("must_iterate_over_dataspaces"), operands, f"{level.name}.must_iterate_over_dataspaces"
    )
    if any(dim in relevant_dims(operands[space]) for space in barred):
        return 1
    if wanted and not any(dim in relevant_dims(operands[space]) for space in wanted):
        return 1
    most = keys.get("default_max_factor")
    if most is not None and most.value is not None:
        return f"<={most.integer('default_max_factor', 1, 10**12)}"
    return None


SAID = ("factors", "permutation", "type", "target", "factors_only", "no_iteration_over_dataspaces",
        "must_iterate_over_dataspaces", "default_max_factor", "keep", "bypass", "keep_only", "bypass_only")  # fmt: skip


def note_unsaid(keys: Mapping[str, Item], level: Level, kind: str, report: TranslationReport) -> None:
    """Name the keys that a spec has no words for."""
    for key, item in keys.items():
        if key not in SAID and item.value not in (None, [], {}, False):
            report.none(item.place, f"{level.name}.{kind}.{key}", ONLY_ITS_SEARCH)


def memory_entry(name: str, said: Said) -> Entry:
    """A memory's constraints."""
    entry: Entry = {"level": name}
    if said.order:
        entry["order"] = said.order
    if said.factors:
        entry["factors"] = {dim: said.factors[dim] for dim in DIMS if dim in said.factors}
    return entry


# --- side by side -----------------------------------------------------------------------------------------------------


def array_entry(level: Level, rules: Rules, dims: Mapping[str, str], report: TranslationReport) -> dict[str, Entry]:
    """Spatial factors of a fan-out: exact ones and most ones, where one axis alone takes the loop."""
    along = spatial_dims(level, rules, dims)
    axes = [(axis, size, loops) for axis, size, loops in zip(AXES, (level.x, level.y), along, strict=True) if size > 1]
    unroll: dict[str, dict[str, Amount]] = {}
    for tree in rules.spatial:
        keys = {key.replace("-", "_"): item for key, item in tree.keys("spatial").items()}
        for factor in given_factors(keys, dims, level.name):
            if factor.number == 1 and factor.relation != ">=":
                continue
            limit, mine = limit_of(factor, level, tree, report), [axis for axis in axes if factor.dim in axis[2]]
            if limit is None:
                continue
            if len(mine) != 1:
                text = f"{factor.dim}{factor.relation}{factor.number}: two axes take it, or none: left to the search"
                report.approximated(tree.place, f"{level.name}.factors", text)
                continue
            axis, size, _ = mine[0]
            if factor.relation == "=" and factor.number > size:
                raise tree.error(f"{level.name}: {factor.dim}={factor.number} on {axis} of {size} elements")
            known, ours = unroll.setdefault(axis, {}), dims[factor.dim]
            if ours in known and isinstance(limit, int) and isinstance(known[ours], int):
                limit = limit * int(known[ours])
            known[ours] = limit
        maximized(keys.get("maximize_dims"), level, axes, dims, unroll, report)
        note_unsaid({k: v for k, v in keys.items() if k not in ("split", "maximize_dims")}, level, "spatial", report)
    return {bare_name(level.name): {"level": bare_name(level.name), "unroll": unroll}} if unroll else {}


def maximized(
    item: Item | None, level: Level, axes: Collection[tuple[str, int, Collection[str]]], dims: Mapping[str, str],
    unroll: dict[str, dict[str, Amount]], report: TranslationReport,
) -> None:  # fmt: skip
    """`maximize_dims`: one loop on one axis is `all` that fits; longer lists are a search of Timeloop's own."""
    if item is None or not item.value:
        return
    for group in item.items(f"{level.name}.maximize_dims"):
        names = [part.text("a loop") for part in group.items(f"{level.name}.maximize_dims")]
        mine = [axis for axis, _, loops in axes if names[0] in loops] if len(names) == 1 else []
        if len(mine) == 1 and mine[0] not in unroll:
            unroll[mine[0]] = {dims[names[0]]: "all"}
        else:
            report.none(group.place, f"{level.name}.maximize_dims", f"{', '.join(names)}: {ONLY_ITS_SEARCH}")


def least_use(
    draft: Draft, chain: Chain, rules: Mapping[str, Rules], found: dict[str, Entry], report: TranslationReport
) -> None:
    """A least share of MACs that work: of the array, where there is one."""
    arrays = [entry["array"] for entry in draft.data["hierarchy"] if "array" in entry]
    for level in chain.levels:
        for tree in rules[level.name].use:
            keys = tree.keys("a constraint")
            least = keys["min"].number("min", 0.0, 1.0) if "min" in keys else 0.0
            if len(arrays) == 1 and least > 0:
                found.setdefault(arrays[0], {"level": arrays[0]})["min_use"] = least
            else:
                report.none(tree.place, f"{level.name}.utilization", "a share of all MACs, not of one array of ours")
