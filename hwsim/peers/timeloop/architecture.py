"""Timeloop architectures, v4 nodes and v3 subtrees, as one chain of levels, outermost first.

A level is a storage, a fan-out (everything after it exists several times) or the compute unit. Classes are told by
part of their names, as Timeloop does. What belongs to a level in other words (constraints) stays with it as trees.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from hwsim.peers.report import TranslationReport
from hwsim.peers.tagged_yaml import Item
from hwsim.peers.timeloop.documents import Documents
from hwsim.peers.timeloop.scope import Scope

STORAGE = ("dram", "sram", "regfile", "smartbuffer", "storage", "fifo")
COMPUTE = ("mac", "compute")
NETWORK = ("xy_noc", "legacy", "reductiontree", "simplemulticast", "network")
MAX_INSTANCES, MAX_DEPTH, MAX_LEVELS = 2**24, 20, 64
ESTIMATORS = ("subclass", "required_actions", "area_scale", "energy_scale", "network", "area_share")
Kind = Literal["storage", "dummy", "fanout", "compute"]
DUMMY = re.compile(r"inter_(.+)_spatial")
RANGE = re.compile(r"(.*?)\[(\d+)\.\.(\d+)\]")


@dataclass(frozen=True)
class Level:
    """One step of the chain; `names` are what a mapping may call it. A fan-out has mesh extents x and y."""

    kind: Kind
    name: str
    place: str
    scope: Scope
    class_name: str = ""
    x: int = 1
    y: int = 1
    parallel: bool = False
    constraints: tuple[Item, ...] = ()
    names: tuple[str, ...] = ()

    @property
    def line(self) -> int:
        """Line in its file."""
        return int(self.place.rpartition(":")[2])


@dataclass
class Chain:
    """The levels, and where the architecture stands."""

    place: str
    levels: list[Level] = field(default_factory=list[Level])
    words: frozenset[str] = frozenset()  # all that its expressions may speak of

    @property
    def storages(self) -> list[Level]:
        """Storage levels, outermost first."""
        return [level for level in self.levels if level.kind == "storage"]

    @property
    def compute(self) -> Level:
        """The compute unit."""
        return self.levels[-1]

    def find(self, name: str) -> Level | None:
        """A level by any of its names."""
        return next((level for level in self.levels if name == level.name or name in level.names), None)


def read_architecture(documents: Documents, report: TranslationReport) -> Chain:
    """The chain of a description. Raises SpecError."""
    trees = documents.all("architecture")
    if not trees:
        raise_missing(documents)
    variables = Scope({}, None, {})
    for tree in documents.all("variables"):
        variables = Scope(tree.keys("variables"), variables, {})
    levels: list[Level] = []
    for number, tree in enumerate(trees):
        keys = tree.keys("architecture")
        name_others(tree, keys, ("version", "nodes", "subtree"), report)
        if number:
            report.approximated(tree.place, "architecture", "a second one: its nodes follow those of the first")
        if "subtree" in keys:
            levels += subtree_levels(keys["subtree"], variables, report)
        elif "nodes" in keys:
            walk = V4(report)
            levels += list(walk.nodes(keys["nodes"], Scope({}, variables, walk.leaves), False, 0))
        else:
            raise tree.error("architecture: expected 'nodes' (v4) or 'subtree' (v3), found neither; a libconfig or "
                             "older description is not read")  # fmt: skip
    words = {word for tree in trees for item in tree.walk() if isinstance(item.value, str)
             for word in re.findall(r"[A-Za-z_]\w*", item.value)}  # fmt: skip
    return checked(Chain(trees[0].place, levels, frozenset(words)))


def name_others(item: Item, keys: Mapping[str, Item], known: Collection[str], report: TranslationReport) -> None:
    """Name the keys that nothing here reads."""
    of = f"{keys['name'].value}." if "name" in keys else ""
    for key, value in keys.items():
        if key not in known:
            report.none(value.place, f"{of}{key}", "is not read here")


def raise_missing(documents: Documents) -> None:
    """No architecture among the files."""
    found = ", ".join(documents.trees) or "nothing"
    files = ", ".join(str(path) for path in documents.files)
    raise Item(None, files, 1).error(f"no architecture in it (it has {found}): give the machine's file")


def checked(chain: Chain) -> Chain:
    """The chain, if it has storage outside, compute inside, and names that differ."""
    if len(chain.levels) > MAX_LEVELS:
        raise Item(None, *split(chain.place)).error(f"{len(chain.levels)} levels: expected at most {MAX_LEVELS}")
    if not chain.levels or chain.levels[-1].kind != "compute":
        raise Item(None, *split(chain.place)).error("the last node must be a compute class (mac, intmac, compute)")
    seen: dict[str, Level] = {}
    for level in chain.levels:
        if level.name in seen:
            raise Item(None, *split(level.place)).error(
                f"two levels are called {level.name!r}, the first in {seen[level.name].place}"
            )
        seen[level.name] = level
        if level.kind == "compute" and level is not chain.levels[-1]:
            raise Item(None, *split(level.place)).error(f"{level.name}: a compute class must be the last node")
    first = next(level for level in chain.levels if level.kind != "dummy")
    if first.kind != "storage":
        raise Item(None, *split(first.place)).error(f"{first.name}: expected a storage as the outermost level")
    return chain


def split(place: str) -> tuple[str, int]:
    """`file:line` apart."""
    file, _, line = place.rpartition(":")
    return file, int(line)


def kind_of(item: Item, class_name: str) -> Kind | None:
    """What a class is, by part of its name; None for networks. Raises SpecError for the others."""
    plain = class_name.lower()
    if plain == "dummy_storage":
        return "dummy"
    if any(word in plain for word in NETWORK):
        return None
    if any(word in plain for word in STORAGE):
        return "storage"
    if any(word in plain for word in COMPUTE):
        return "compute"
    raise item.error(
        f"unknown class {class_name!r}: expected one whose name contains {', '.join((*STORAGE, *COMPUTE))} or a network"
    )


def mesh(item: Item | None, scope: Scope) -> tuple[int, int]:
    """Extents of a fan-out."""
    if item is None or item.value is None:
        return 1, 1
    keys = item.keys("spatial")
    unknown = [key for key in keys if key not in ("meshX", "meshY")]
    if unknown:
        raise keys[unknown[0]].error(f"spatial: unknown key {unknown[0]!r}; known: meshX, meshY")
    inner = Scope(keys, scope)
    return inner.whole("meshX", 1) or 1, inner.whole("meshY", 1) or 1


class V4:
    """Reads v4 nodes. A fan-out holds for its node and everything after it."""

    KEYS = ("name", "class", "subclass", "attributes", "spatial", "constraints", "required_actions", "area_scale",
            "energy_scale", "enabled", "nodes", "network", "area_share")  # fmt: skip

    def __init__(self, report: TranslationReport) -> None:
        self.report = report
        self.leaves: dict[str, Any] = {}
        self.copies = 1

    def nodes(self, item: Item, scope: Scope, parallel: bool, depth: int) -> Iterator[Level]:
        """A list of nodes; containers pass their attributes on to all that follow."""
        if depth > MAX_DEPTH:
            raise item.error(f"nested more than {MAX_DEPTH} deep")
        for node in item.items("nodes"):
            keys = node.keys("a node")
            if node.tag in ("!Hierarchical", "!Pipelined"):
                yield from self.nodes(self.need(node, keys, "nodes"), scope, parallel, depth + 1)
            elif node.tag == "!Parallel":
                self.report.taken(node.place, "!Parallel", "branches nest in the order of the file, as in Timeloop")
                yield from self.nodes(self.need(node, keys, "nodes"), scope, True, depth + 1)
            elif node.tag == "!Nothing":
                continue
            elif node.tag in ("!Container", "!Component"):
                attributes = keys.get("attributes")
                inner = Scope(attributes.keys("attributes") if attributes and attributes.value else {}, scope)
                yield from self.node(node, keys, inner, parallel)
                if node.tag == "!Container":
                    scope = inner
            else:
                shown = node.tag or "no tag"
                raise node.error(f"expected !Component, !Container, !Hierarchical, !Parallel or !Nothing, got {shown}")

    def need(self, node: Item, keys: Mapping[str, Item], key: str) -> Item:
        """A key that must be there."""
        if key not in keys:
            raise node.error(f"{node.tag or 'node'}: key {key!r} is missing")
        return keys[key]

    def node(self, node: Item, keys: Mapping[str, Item], scope: Scope, parallel: bool) -> Iterator[Level]:
        """A container or component: its fan-out, then itself."""
        unknown = [key for key in keys if key not in self.KEYS]
        if unknown:
            raise keys[unknown[0]].error(f"unknown key {unknown[0]!r}; known: {', '.join(self.KEYS)}")
        name = self.need(node, keys, "name").text("name")
        if "enabled" in keys and scope.value(keys["enabled"]) in (False, 0):
            self.report.none(node.place, name, "enabled: false, so it is left out")
            return
        for key in ESTIMATORS:
            if key in keys and keys[key].value not in (None, 1):
                text = "for estimators: in the tables that Accelergy wrote, not in our own estimates"
                self.report.none(keys[key].place, f"{name}.{key}", text)
        x, y = mesh(keys.get("spatial"), scope)
        self.copies *= x * y
        if self.copies > MAX_INSTANCES:
            raise keys["spatial"].error(
                f"{name}: {self.copies:,} copies of what lies below: expected at most {MAX_INSTANCES:,}"
            )
        if parallel and x * y > 1:
            raise keys["spatial"].error(f"{name}: a branch of !Parallel may not have copies of its own")
        constraints = constraint_trees(node, keys.get("constraints"))
        container = node.tag == "!Container"
        if x * y > 1 or (container and any(tree_type(tree) == "spatial" for tree in constraints)):
            spatial = constraints if container else tuple(t for t in constraints if tree_type(t) == "spatial")
            fan = name if container else f"{name}_array"
            yield Level("fanout", fan, node.place, scope, "", x, y, False, spatial, (name, f"inter_{name}_spatial"))
        elif container:
            yield Level("dummy", f"inter_{name}_spatial", node.place, scope, "", 1, 1, False, constraints, (name,))
        if container:
            return
        class_item = self.need(node, keys, "class")
        class_name = class_item.text("class")
        kind = kind_of(class_item, class_name)
        if kind is None:
            self.report.none(node.place, name, "a network component: transfers are free here (hop energies are ours)")
            return
        own = tuple(t for t in constraints if tree_type(t) != "spatial")
        self.leaves[name] = {"attributes": scope}
        yield Level(kind, name, node.place, scope, class_name, parallel=parallel, constraints=own)


def constraint_trees(node: Item, item: Item | None) -> tuple[Item, ...]:
    """A node's constraints as items with a `type`."""
    if item is None or item.value is None:
        return ()
    found: list[Item] = []
    for kind, tree in item.keys("constraints").items():
        if kind not in ("spatial", "temporal", "dataspace", "misc"):
            raise tree.error(f"constraints: unknown key {kind!r}; known: spatial, temporal, dataspace, misc")
        keys = {**tree.keys(f"constraints.{kind}"), "type": Item(kind, tree.file, tree.line)}
        found.append(replace(tree, value=keys))
    return tuple(found)


def tree_type(item: Item) -> str:
    """temporal, spatial or dataspace."""
    kind = item.keys("a constraint").get("type")
    text = kind.text("type") if kind is not None else ""
    return "dataspace" if text in ("bypass", "bypassing", "datatype") else text


# --- v3 ---------------------------------------------------------------------------------------------------------------


def subtree_levels(item: Item, variables: Scope, report: TranslationReport) -> list[Level]:
    """Levels of a v3 tree: counts in names are copies, fan-out is the ratio between neighbours."""
    flat: list[tuple[Item, Mapping[str, Item], Scope, int]] = []
    collect(item, Scope({}, variables, {}), 1, flat, 0, report)
    levels: list[Level] = []
    before, before_x, after_dummy = 1, 1, ""
    for node, keys, scope, count in flat:
        name = stripped(keys["name"].text("name"))[0]
        class_item = keys.get("class") or node
        kind = kind_of(class_item, class_item.text("class") if "class" in keys else "")
        if kind is None:
            report.none(node.place, name, "a network component: transfers are free here (hop energies are ours)")
            continue
        if count > MAX_INSTANCES:
            raise node.error(f"{name}: {count:,} instances: expected at most {MAX_INSTANCES:,}")
        if count % before:
            raise node.error(f"{name}: {count} instances below {before}: expected a multiple")
        if count > before:
            ratio, x = count // before, scope.whole("meshX", count) or count
            if count % x:
                text = f"{name}: {count} instances on a mesh {x} wide: expected a divisor of {count}"
                raise (scope.item("meshX") or node).error(text)
            wide = max(1, x // before_x) if ratio % max(1, x // before_x) == 0 else ratio
            fan = after_dummy or f"{name}_array"
            names = (f"inter_{after_dummy}_spatial",) if after_dummy else ()
            levels.append(Level("fanout", fan, node.place, scope, "", wide, ratio // wide, names=names))
            before, before_x = count, before_x * wide
        match = DUMMY.fullmatch(name)
        after_dummy = match[1] if kind == "dummy" and match else ""
        levels.append(Level(kind, name, node.place, scope, scope.text("class")))
    return levels


def collect(
    item: Item, scope: Scope, copies: int, flat: list[tuple[Item, Mapping[str, Item], Scope, int]], depth: int,
    report: TranslationReport,
) -> None:  # fmt: skip
    """Local components in order, each with its number of copies."""
    if depth > MAX_DEPTH:
        raise item.error(f"nested more than {MAX_DEPTH} deep")
    for tree in item.items("subtree"):
        keys = tree.keys("a subtree")
        name_others(tree, keys, ("name", "attributes", "local", "subtree"), report)
        attributes = keys.get("attributes")
        inner = Scope(attributes.keys("attributes") if attributes and attributes.value else {}, scope)
        here = copies * (copies_of(keys["name"]) if "name" in keys else 1)
        local = keys.get("local")
        for node in local.items("local") if local is not None else ():
            parts = node.keys("a component")
            if "name" not in parts or "class" not in parts:
                raise node.error("a component needs 'name' and 'class'")
            name_others(node, parts, ("name", "class", "attributes", "enabled"), report)
            if "enabled" in parts and parts["enabled"].value is False:
                report.none(node.place, parts["name"].text("name"), "enabled: false, so it is left out")
                continue
            own = parts.get("attributes")
            scope_here = Scope(own.keys("attributes") if own and own.value else {}, inner)
            count = here * copies_of(parts["name"])
            count = scope_here.whole("instances", count) or count
            flat.append((node, parts, scope_here, count))
        if "subtree" in keys:
            collect(keys["subtree"], inner, here, flat, depth + 1, report)


def copies_of(name: Item) -> int:
    """How many parts a name stands for. Raises SpecError for brackets that are no range."""
    bare, count = stripped(name.text("name"))
    if count < 1 or "[" in bare:
        raise name.error(f"name: expected a range such as PE[0..15], got {name.value!r}")
    return count


def stripped(name: str) -> tuple[str, int]:
    """A name without its range, and how many it names.

    >>> stripped("PE[0..15]"), stripped("glb")
    (('PE', 16), ('glb', 1))
    """
    match = RANGE.fullmatch(name)
    if match is None:
        return name, 1
    return match[1], max(0, int(match[3]) - int(match[2]) + 1)
