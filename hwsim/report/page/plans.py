"""What else the network could cost: under other objectives, on other schedules, without depth-first groups."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hwsim.report.quantities import percent, si

Data = dict[str, Any]
OBJECTIVES = {"energy": "least energy", "latency": "least latency", "edp": "least energy x delay"}
SCHEDULES = {
    "best": "best schedule without rules",
    "own": "the machine's own schedule",
    "constrained": "under --constraints",
}


@dataclass(frozen=True)
class Plan:
    """One other plan: its totals, and how far they lie from the ones of the page."""

    name: str
    energy: str
    energy_change: str
    cycles: int
    cycles_change: str


@dataclass(frozen=True)
class Group:
    """Layers that run depth first: from and to, the tile of the last one's outputs, what stays on chip."""

    first: str
    last: str
    tile: str
    halos: str
    staying: str


def change(value: float, here: float) -> str:
    """`+1.2 %`, `same`; empty where there is nothing to compare with."""
    if not here:
        return ""
    return "same" if value == here else percent(value / here - 1, sign="+")


def named(data: Data) -> Iterator[tuple[str, Data]]:
    """Every plan that the report knows besides the one it shows."""
    for key, name in OBJECTIVES.items():
        if key in data.get("by_objective", {}):
            yield name, data["by_objective"][key]
    for key, name in SCHEDULES.items():
        if key in data.get("schedules", {}):
            yield name, data["schedules"][key]
    if data.get("fusion", {}).get("without"):
        yield "without depth-first groups", data["fusion"]["without"]
    if data.get("batch", {}).get("at_once"):
        yield "the batch at once", data["batch"]["at_once"]


def others(data: Data) -> list[Plan]:
    """The plans whose totals are not the page's own."""
    here = data["totals"]
    return [
        Plan(
            name,
            si(found["energy_pj"] * 1e-12, "J"),
            change(found["energy_pj"], here["energy_pj"]),
            found["latency_cycles"],
            change(found["latency_cycles"], here["latency_cycles"]),
        )
        for name, found in named(data)
        if any(found[key] != here[key] for key in ("energy_pj", "latency_cycles"))
    ]


def groups(data: Data) -> list[Group]:
    """The depth-first groups, in the order in which they run."""
    return [
        Group(
            group["first"],
            group["last"],
            f"{group['rows']} x {group['columns']}",
            group["halos"],
            ", ".join(group["weights_stay"]) or "no weights",
        )
        for group in data.get("fusion", {}).get("groups", [])
    ]
