"""Constraints of Timeloop levels as they stand: by level and kind, what is kept, which loops an array may unroll.

What a spec says of them as the constraints of a schedule: schedule.py.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hwsim.peers.tagged_yaml import Item
from hwsim.peers.timeloop.architecture import Chain, Level, split, tree_type
from hwsim.peers.timeloop.documents import Documents
from hwsim.peers.timeloop.words import Factor, read_factors, read_permutation, read_spaces

SPACE_KEYS = ("keep", "bypass", "keep_only", "bypass_only")
LOOP_KEYS = ("factors", "permutation", "split")
SEARCH_KEYS = (
    "factors_only", "no_iteration_over_dataspaces", "must_iterate_over_dataspaces", "maximize_dims",
    "maximize_dims_capacity", "no_reuse", "no_link_transfer", "rmw_first_update", "no_coalesce", "default_max_factor",
    "default_min_factor", "utilization", "max_overbooked_proportion", "min_utilization",
)  # fmt: skip
AXES = ("meshX", "meshY")
KINDS = ("temporal", "spatial", "dataspace", "datatype", "bypass", "bypassing", "utilization", "parallelism")


@dataclass
class Rules:
    """All constraints of one level."""

    keep: set[str] = field(default_factory=set[str])
    bypass: set[str] = field(default_factory=set[str])
    temporal: list[Item] = field(default_factory=list[Item])
    spatial: list[Item] = field(default_factory=list[Item])
    use: list[Item] = field(default_factory=list[Item])


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
        elif kind in ("utilization", "parallelism"):
            rules.use.append(tree)
        elif kind != "misc":
            known = ", ".join(KINDS)
            raise tree.error(f"constraint of {name}: type: expected one of {known}, got {kind or 'none'}")
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


def spatial_dims(level: Level, rules: Rules, dims: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Loops that may be unrolled along x and along y of a fan-out: the intent of permutation, split and factors.

    Timeloop's front end moves loops of factor 1 to the front of the permutation before it counts `split`; a reader of
    processed files sees that order, a reader of the architecture the order as written, which is meant here.
    """
    allowed = list(dims)
    along_x, along_y = list(dims), list(dims)
    for tree in rules.spatial:
        keys = {key.replace("-", "_"): item for key, item in tree.keys("spatial").items()}
        check_keys(tree, keys)
        factors = given_factors(keys, dims, level.name)
        allowed = [dim for dim in allowed if not forbids(factors, dim)]
        if "factors_only" in keys:
            allowed = [dim for dim in allowed if any(factor.dim == dim for factor in factors)]
        order = read_permutation(keys.get("permutation"), dims, f"{level.name}.permutation")
        if "split" in keys and keys["split"].value is not None:
            parts = keys["split"].integer(f"{level.name}.split", 0, 10**6)
            first = order[:parts]
            along_x = first if parts < len(order) else list(dims)
            along_y = [dim for dim in dims if dim not in first] if parts < len(order) else []
    return [dim for dim in along_x if dim in allowed], [dim for dim in along_y if dim in allowed]


def given_factors(keys: Mapping[str, Item], dims: Collection[str], name: str) -> list[Factor]:
    """Factors under `factors` and `factors_only`; the latter's other loops are 1."""
    return [
        factor for key in ("factors", "factors_only") for factor in read_factors(keys.get(key), dims, f"{name}.{key}")
    ]


def where(level: Level) -> str:
    """The source of a part: file and line."""
    file, line = split(level.place)
    return f"{Path(file).name} line {line}"


def forbids(factors: list[Factor], dim: str) -> bool:
    """Whether a factor of 1 keeps a loop off an array."""
    return any(f.dim == dim and f.number == 1 and f.relation in ("=", "<=") for f in factors)


def check_keys(tree: Item, keys: dict[str, Item]) -> None:
    """Refuse unknown keys of a constraint."""
    known = (*SPACE_KEYS, *LOOP_KEYS, *SEARCH_KEYS, "type", "target")
    for key, item in keys.items():
        if key not in known:
            raise item.error(f"constraint: unknown key {key!r}; known: {', '.join(known)}")
