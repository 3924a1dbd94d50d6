"""Timeloop mappings as ours: per level its holds, its temporal loops from outside in, then the loops of its fan-out.

Permutations are innermost first there and reversed here. Missing factors are 1, missing loops stand outside. Factors
must multiply to the bound; remainders (`P=4,3`) are taken where the bound implies them, and refused elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from hwsim.machine.parts import OPERANDS, Operand
from hwsim.nest.mapping import Hold, Node, Spatial, Temporal
from hwsim.nest.mapping import Mapping as Nest
from hwsim.peers.draft import bare_name
from hwsim.peers.einsum import Einsum
from hwsim.peers.tagged_yaml import Item
from hwsim.peers.timeloop.architecture import Chain, Level, tree_type
from hwsim.peers.timeloop.rules import AXES, Rules, names_of, place_of
from hwsim.peers.timeloop.words import Factor, read_factors, read_permutation, read_spaces

KEYS = ("target", "type", "factors", "permutation", "split", "keep", "bypass")
KINDS = ("temporal", "spatial", "dataspace", "datatype", "bypass")


@dataclass
class Entry:
    """What the mapping says of one level."""

    temporal: list[Factor] = field(default_factory=list[Factor])
    spatial: list[Factor] = field(default_factory=list[Factor])
    on_x: set[str] | None = None
    bypass: set[str] = field(default_factory=set[str])
    keep: set[str] = field(default_factory=set[str])


def read_mapping(
    tree: Item, chain: Chain, rules: Mapping[str, Rules], einsum: Einsum, latched: Collection[str] = ()
) -> Nest:
    """The nest; `latched` levels are registers of the MAC here. Raises SpecError with file and line."""
    entries: dict[str, Entry] = {level.name: Entry() for level in chain.levels}
    factors: dict[str, list[tuple[int, Factor]]] = {dim: [] for dim in einsum.bounds}
    content = tree.value if isinstance(tree.value, list) else tree.keys("mapping").get("targets", tree)
    for item in content if isinstance(content, list) else content.items("mapping"):
        read_entry(item, chain, einsum, entries)
    nodes: list[Node] = []
    for depth, level in enumerate(chain.levels):
        entry = entries[level.name]
        if level.kind == "storage" and level.name not in latched:
            held = holds(level, level is chain.storages[0], entry, rules[level.name], einsum)
            if held:
                nodes.append(Hold(bare_name(level.name), held))
        for factor in reversed(entry.temporal):
            if factor.number > 1:
                nodes.append(Temporal(einsum.dims[factor.dim], factor.number))
            factors[factor.dim].append((depth * 2, factor))
        for factor in entry.spatial:
            if factor.number > 1:
                nodes.append(unrolled(tree, level, factor, entry, einsum))
            factors[factor.dim].append((depth * 2 + 1, factor))
    for dim, found in factors.items():
        check_bound(tree, dim, einsum.bounds[dim], [factor for _, factor in sorted(found, key=lambda pair: pair[0])])
    return Nest(tuple(nodes))


def read_entry(item: Item, chain: Chain, einsum: Einsum, entries: dict[str, Entry]) -> None:
    """One entry of the list."""
    keys = item.keys("a mapping entry")
    for key, value in keys.items():
        if key not in KEYS:
            raise value.error(f"mapping: unknown key {key!r}; known: {', '.join(KEYS)}")
    for key in ("target", "type"):
        if key not in keys:
            raise item.error(f"mapping: key {key!r} is missing")
    kind, target = keys["type"].text("type"), keys["target"].text("target")
    if kind not in KINDS:
        raise keys["type"].error(f"mapping: type: expected one of {', '.join(KINDS)}, got {kind!r}")
    level = place_of(chain, target, tree_type(item))
    if level is None:
        raise keys["target"].error(f"mapping: no level {target!r}; levels are {names_of(chain)}")
    entry, dims = entries[level.name], einsum.bounds
    if kind in ("dataspace", "datatype", "bypass"):
        entry.keep |= read_spaces(keys.get("keep"), einsum.operands, "keep")
        entry.bypass |= read_spaces(keys.get("bypass"), einsum.operands, "bypass")
        return
    found = read_factors(keys.get("factors"), dims, f"{target}.factors")
    for factor in found:
        if factor.relation != "=":
            raise item.error(f"mapping: {factor.dim}{factor.relation}{factor.number}: a mapping needs exact factors")
    found = [whole_bound(factor, dims) for factor in found]
    order = read_permutation(keys.get("permutation"), dims, f"{target}.permutation")
    order += [dim for dim in dims if dim not in order]
    by_dim = {factor.dim: factor for factor in found}
    ordered = [by_dim[dim] for dim in order if dim in by_dim]
    if kind == "temporal":
        if entry.temporal:
            raise item.error(f"mapping: temporal loops of {target} stand twice")
        entry.temporal = ordered
        return
    if level.kind != "fanout":
        if any(factor.number > 1 for factor in ordered):
            raise item.error(f"mapping: {target} has no fan-out, its spatial factors must be 1")
        entry.temporal += []
        return
    if entry.spatial:
        raise item.error(f"mapping: spatial loops of {target} stand twice")
    entry.spatial = ordered
    if "split" in keys and keys["split"].value is not None:
        entry.on_x = set(order[: keys["split"].integer("split", 0, 10**6)])


def whole_bound(factor: Factor, bounds: Mapping[str, int]) -> Factor:
    """`P=0` is the whole bound."""
    return Factor(factor.dim, "=", bounds[factor.dim]) if factor.number == 0 else factor


def holds(level: Level, outermost: bool, entry: Entry, rules: Rules, einsum: Einsum) -> tuple[Operand, ...]:
    """Operands held at a level: the mapping's word, else the architecture's, else all."""
    if outermost:
        return OPERANDS
    kept = {name for name in einsum.operands if name not in rules.bypass}
    if level.parallel and rules.keep:
        kept &= rules.keep
    kept = (kept | entry.keep) - entry.bypass
    found = {einsum.operands[name] for name in kept}
    return tuple(operand for operand in OPERANDS if operand in found)


def unrolled(tree: Item, level: Level, factor: Factor, entry: Entry, einsum: Einsum) -> Spatial:
    """One spatial loop on its axis."""
    if level.x == 1 or level.y == 1:
        axis = AXES[1] if level.x == 1 else AXES[0]
    else:
        axis = AXES[0] if entry.on_x is None or factor.dim in entry.on_x else AXES[1]
    if level.x * level.y == 1:
        raise tree.error(f"mapping: {level.name} has one element, {factor.dim}={factor.number} does not fit")
    return Spatial(einsum.dims[factor.dim], factor.number, bare_name(level.name), axis)


def check_bound(tree: Item, dim: str, bound: int, factors: Collection[Factor]) -> None:
    """Factors, outermost first, must cover the bound exactly; remainders must be those that the bound implies."""
    product = math.prod(factor.number for factor in factors)
    if all(factor.remainder is None for factor in factors):
        if product != bound:
            raise tree.error(f"mapping: the factors of {dim} multiply to {product}, its size is {bound}")
        return
    rest, step = bound, product
    for factor in factors:
        step //= factor.number
        implied = -(-rest // step)
        if implied != (factor.remainder or factor.number):
            raise tree.error(
                f"mapping: {dim}={factor.number},{factor.remainder}: only the remainder that its size {bound} implies "
                f"({implied}) has a counterpart"
            )
        rest -= (implied - 1) * step
