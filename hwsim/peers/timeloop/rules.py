"""Constraints of Timeloop levels: what a memory keeps, which loops an array may unroll, and what only a search uses."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from hwsim.peers.report import TranslationReport
from hwsim.peers.tagged_yaml import Item
from hwsim.peers.timeloop.architecture import Chain, Level, tree_type
from hwsim.peers.timeloop.documents import Documents
from hwsim.peers.timeloop.words import Factor, read_factors, read_permutation, read_spaces

SPACE_KEYS = ("keep", "bypass", "keep_only", "bypass_only")
LOOP_KEYS = ("factors", "permutation", "split")
SEARCH_KEYS = (
    "factors_only", "no_iteration_over_dataspaces", "must_iterate_over_dataspaces", "maximize_dims",
    "maximize_dims_capacity", "no_reuse", "no_link_transfer", "rmw_first_update", "no_coalesce", "default_max_factor",
    "default_min_factor", "utilization", "max_overbooked_proportion", "min_utilization",
)  # fmt: skip


@dataclass
class Rules:
    """All constraints of one level."""

    keep: set[str] = field(default_factory=set[str])
    bypass: set[str] = field(default_factory=set[str])
    temporal: list[Item] = field(default_factory=list[Item])
    spatial: list[Item] = field(default_factory=list[Item])


def targeted(documents: Documents) -> Iterator[tuple[str, Item]]:
    """(target, constraint) of every constraint that stands apart from the architecture."""
    for tree in documents.all("constraints"):
        content = tree.value if isinstance(tree.value, list) else tree.keys("constraints").get("targets", tree).value
        for entry in content if isinstance(content, list) else ():
            keys = entry.keys("a constraint")
            if "target" not in keys:
                raise entry.error("a constraint needs a 'target'")
            yield keys["target"].text("target"), entry


def read_rules(chain: Chain, documents: Documents, spaces: Collection[str]) -> dict[str, Rules]:
    """Constraints by level name."""
    found: dict[str, Rules] = {level.name: Rules() for level in chain.levels}
    entries = [(level.name, tree) for level in chain.levels for tree in level.constraints]
    for target, tree in targeted(documents):
        level = place_of(chain, target, tree_type(tree))
        if level is None:
            raise tree.error(f"constraint of {target!r}: no such level; levels are {names_of(chain)}")
        entries.append((level.name, tree))
    for name, tree in entries:
        keys = {key.replace("-", "_"): item for key, item in tree.keys("a constraint").items()}
        kind, rules = tree_type(tree), found[name]
        if kind == "dataspace":
            rules.keep |= read_spaces(keys.get("keep"), spaces, f"{name}.keep")
            rules.keep |= read_spaces(keys.get("keep_only"), spaces, f"{name}.keep_only")
            rules.bypass |= read_spaces(keys.get("bypass"), spaces, f"{name}.bypass")
            rules.bypass |= read_spaces(keys.get("bypass_only"), spaces, f"{name}.bypass_only")
            if "keep_only" in keys:
                rules.bypass |= set(spaces) - rules.keep
            if "bypass_only" in keys:
                rules.keep |= set(spaces) - rules.bypass
            both = rules.keep & rules.bypass
            if both:
                raise tree.error(f"{name}: {', '.join(sorted(both))} must be kept and bypassed: a contradiction")
        elif kind == "temporal":
            rules.temporal.append(tree)
        elif kind == "spatial":
            rules.spatial.append(tree)
    return found


def place_of(chain: Chain, target: str, kind: str) -> Level | None:
    """The level that a constraint or a mapping entry of this kind speaks of.

    Spatial entries of a storage belong to the fan-out that follows it.
    """
    named = [level for level in chain.levels if target == level.name or target in level.names]
    if kind != "spatial":
        plain = [level for level in named if level.kind != "fanout"]
        return plain[0] if plain else None if not named else named[0]
    for level in named:
        if level.kind == "fanout":
            return level
    for level in named:
        following = chain.levels[chain.levels.index(level) + 1 :]
        for later in following:
            if later.kind == "fanout":
                return later
            if later.kind == "storage":
                break
        return level
    return None


def names_of(chain: Chain) -> str:
    """Level names for messages."""
    return ", ".join(level.name for level in chain.levels if level.kind != "dummy")


def axis_dims(
    level: Level, rules: Rules, dims: Collection[str], report: TranslationReport
) -> tuple[list[str], list[str]]:
    """Loops that may be unrolled along x and along y of a fan-out: the intent of permutation, split and factors.

    Timeloop's front end moves loops of factor 1 to the front of the permutation before it counts `split`; a reader of
    processed files sees that order, a reader of the architecture the order as written, which is meant here.
    """
    allowed = list(dims)
    along_x, along_y = list(dims), list(dims)
    for tree in rules.spatial:
        keys = {key.replace("-", "_"): item for key, item in tree.keys("spatial").items()}
        check_keys(tree, keys)
        factors = read_factors(keys.get("factors"), dims, f"{level.name}.factors")
        allowed = [dim for dim in allowed if not forbids(factors, dim)]
        note_factors(level, factors, report)
        order = read_permutation(keys.get("permutation"), dims, f"{level.name}.permutation")
        if "split" in keys and keys["split"].value is not None:
            split = keys["split"].integer(f"{level.name}.split", 0, 10**6)
            first = order[:split]
            along_x = first if split < len(order) else list(dims)
            along_y = [dim for dim in dims if dim not in first] if split < len(order) else []
        for key in SEARCH_KEYS:
            if key in keys and keys[key].value not in (None, [], {}):
                report.none(keys[key].place, f"{level.name}.{key}", "only Timeloop's own search knows this constraint")
    x = [dim for dim in along_x if dim in allowed]
    y = [dim for dim in along_y if dim in allowed]
    return x, y


def forbids(factors: list[Factor], dim: str) -> bool:
    """Whether a factor of 1 keeps a loop off an array."""
    return any(f.dim == dim and f.number == 1 and f.relation in ("=", "<=") for f in factors)


def note_factors(level: Level, factors: list[Factor], report: TranslationReport) -> None:
    """Exact factors above 1 cannot be said of an axis."""
    exact = [f"{f.dim}{f.relation}{f.number}" for f in factors if f.number != 1]
    if exact:
        text = f"factors {', '.join(exact)}: the loops are allowed on the axis, their factors are left to the search"
        report.approximated(level.place, f"{level.name}.factors", text)


def check_keys(tree: Item, keys: dict[str, Item]) -> None:
    """Refuse unknown keys of a constraint."""
    known = (*SPACE_KEYS, *LOOP_KEYS, *SEARCH_KEYS, "type", "target")
    for key, item in keys.items():
        if key not in known:
            raise item.error(f"constraint: unknown key {key!r}; known: {', '.join(known)}")


def note_temporal(chain: Chain, rules: dict[str, Rules], dims: Collection[str], report: TranslationReport) -> None:
    """Temporal constraints are checked and named; a spec has no words for them."""
    for level in chain.levels:
        for tree in rules[level.name].temporal:
            keys = {key.replace("-", "_"): item for key, item in tree.keys("temporal").items()}
            check_keys(tree, keys)
            factors = read_factors(keys.get("factors"), dims, f"{level.name}.factors")
            order = read_permutation(keys.get("permutation"), dims, f"{level.name}.permutation")
            said = [f"{f.dim}{f.relation}{f.number}" for f in factors]
            said += [f"order from inside {' '.join(order)}"] if order else []
            if level.kind == "storage" and said:
                text = f"temporal constraints ({', '.join(said)}) bind Timeloop's search, not ours"
                report.none(tree.place, f"{level.name}.temporal", text)
