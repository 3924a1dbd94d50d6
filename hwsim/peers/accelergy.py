"""Accelergy's tables: energy per action (ERT) and area per instance (ART), full or as summaries.

Names lose their path and range (`system.glb[1..16]` is `glb`). Energies are pJ per action, areas um2. An action with
several energies by argument keeps the largest, and the report says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from hwsim.peers.report import TranslationReport
from hwsim.peers.tagged_yaml import Item

TABLES = {"ERT": "tables", "ERT_summary": "table_summary", "ART": "tables", "ART_summary": "table_summary"}
# update_..., decompression and metadata actions belong to sparse designs and are not read.
ACTIONS = ("read", "write", "update", "leak", "compute")
STRANGE_PJ = 1e9
RANGE = re.compile(r"\[[^\]]*\]")  # copies, at any component of a path


@dataclass
class Prices:
    """pJ by component and action, um2 by component; `places` say where each stands."""

    energies_pj: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])
    areas_um2: dict[str, float] = field(default_factory=dict[str, float])
    places: dict[str, str] = field(default_factory=dict[str, str])

    def of(self, name: str) -> dict[str, float]:
        """Actions of a component; empty where the tables do not know it."""
        return self.energies_pj.get(name, {})


def read_prices(trees: dict[str, list[Item]], report: TranslationReport) -> Prices:
    """All tables under ERT, ERT_summary, ART and ART_summary. Raises SpecError."""
    prices = Prices()
    for key, inner in TABLES.items():
        for tree in trees.get(key, []):
            keys = tree.keys(key)
            if inner not in keys:
                raise tree.error(f"{key}: key {inner!r} is missing")
            for entry in keys[inner].items(f"{key}.{inner}"):
                if key.startswith("ERT"):
                    read_energies(entry, prices, report)
                else:
                    read_area(entry, prices, report)
    return prices


def component(entry: Item) -> tuple[str, dict[str, Item]]:
    """Bare name and keys of one table."""
    keys = entry.keys("a table")
    if "name" not in keys:
        raise entry.error("a table needs a 'name'")
    return RANGE.sub("", keys["name"].text("name")).rsplit(".", 1)[-1], keys


def read_energies(entry: Item, prices: Prices, report: TranslationReport) -> None:
    """Energies of one component."""
    name, keys = component(entry)
    if "actions" not in keys:
        raise entry.error(f"{name}: key 'actions' is missing")
    found: dict[str, list[float]] = {}
    others: list[str] = []
    for action in keys["actions"].items(f"{name}.actions"):
        parts = action.keys("an action")
        if "name" not in parts or "energy" not in parts:
            raise action.error(f"{name}: an action needs 'name' and 'energy'")
        verb = parts["name"].text("name")
        if verb in ACTIONS:
            found.setdefault(verb, []).extend(numbers(parts["energy"], f"{name}.{verb}"))
        else:
            others.append(verb)
    if others:
        report.none(entry.place, name, f"actions {', '.join(dict.fromkeys(others))}: not read here")
    for verb, values in found.items():
        if len(set(values)) > 1:
            text = f"{verb} has {len(values)} energies by argument: the largest, {max(values):g} pJ, is used"
            report.approximated(entry.place, f"{name}.{verb}", text)
    energies = {verb: max(values) for verb, values in found.items()}
    if prices.energies_pj.get(name, energies) != energies:
        report.approximated(entry.place, name, f"priced twice, first in {prices.places[name]}: this one counts")
    prices.energies_pj[name] = energies
    prices.places[name] = entry.place


def numbers(item: Item, what: str) -> Iterator[float]:
    """One energy or a list of them."""
    if item.value == []:
        raise item.error(f"{what}: an empty list of energies")
    for one in item.value if isinstance(item.value, list) else [item]:
        yield one.number(what, 0.0, STRANGE_PJ)


def read_area(entry: Item, prices: Prices, report: TranslationReport) -> None:
    """Area of one component."""
    name, keys = component(entry)
    if "area" not in keys:
        raise entry.error(f"{name}: key 'area' is missing")
    area = keys["area"].number(f"{name}.area", 0.0, 1e12)
    if prices.areas_um2.get(name, area) != area:
        report.approximated(entry.place, name, "its area stands twice: this one counts")
    prices.areas_um2[name] = area
    prices.places.setdefault(name, entry.place)
