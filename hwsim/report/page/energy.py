"""Energy as bars: by component for the network, and by component within each layer; small layers are summed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hwsim.report.quantities import ends, si
from hwsim.report.style import REST, colours_of, fold
from hwsim.report.terminal import share

SMALL = 0.005  # of the network's energy: layers below share one bar
Data = dict[str, Any]


@dataclass(frozen=True)
class Piece:
    """One coloured piece of a bar: its width in percent, and what it says under the mouse."""

    name: str
    width: float
    colour: str
    text: str


@dataclass(frozen=True)
class Bar:
    """One row of a chart. `layer`: position of the layer that it stands for; -1: several."""

    name: str
    value: str
    pieces: list[Piece]
    layer: int = -1


@dataclass(frozen=True)
class Key:
    """One line of a legend."""

    name: str
    colour: str
    value: str
    share: str


@dataclass(frozen=True)
class Estimate:
    """One source of uncertainty: what it prices, and between what that may lie."""

    name: str
    components: str
    value: str
    low: str
    high: str


def joules(energy_pj: float) -> str:
    """Energy with a prefix."""
    return si(energy_pj * 1e-12, "J")


def interval(data: Data) -> str:
    """Where the energy lies if each estimate lies within its spread; empty without estimates."""
    found = data.get("energy_interval")
    return ends(found["low_pj"] * 1e-12, found["high_pj"] * 1e-12, "J") if found else ""


def estimates(data: Data) -> list[Estimate]:
    """What leaves the energy open, widest first."""
    return [
        Estimate(
            origin["name"],
            ", ".join(origin["components"]),
            joules(origin["energy_pj"]),
            joules(origin["energy_pj"] - origin["down_pj"]),
            joules(origin["energy_pj"] + origin["up_pj"]),
        )
        for origin in data.get("energy_interval", {}).get("origins", [])
    ]


def palette_of(sizes: dict[str, float]) -> dict[str, str]:
    """The colour of every series; those that are folded together share the grey."""
    kept, folded = fold(sizes)
    return {**colours_of(kept), **dict.fromkeys(folded, REST)}


def pieces_of(parts: dict[str, float], whole: float, colours: dict[str, str], label: str) -> list[Piece]:
    """Parts of a bar whose full length is `whole`; nothing is nothing."""
    total = sum(parts.values())
    return [
        Piece(
            name,
            round(100 * value / whole, 3) if whole else 0.0,
            colours[name],
            f"{label}: {name} {joules(value)} ({share(value, total)})",
        )
        for name, value in parts.items()
        if value > 0
    ]


def by_component(data: Data) -> tuple[list[Piece], list[Key]]:
    """The network's energy as one bar, and its legend, largest first."""
    parts: dict[str, float] = dict(sorted(data["energy_pj_by_component"].items(), key=lambda item: -item[1]))
    colours = palette_of(data["energy_pj_by_component"])
    total = sum(parts.values())
    return pieces_of(parts, total, colours, "network"), keys_of(parts, colours, joules)


def keys_of(parts: dict[str, float], colours: dict[str, str], shown: Callable[[float], str]) -> list[Key]:
    """A legend: every series with its value and share, those of one grey on one line."""
    total, grey = sum(parts.values()), [name for name in parts if colours[name] == REST]
    keys = [Key(n, colours[n], shown(v), share(v, total)) for n, v in parts.items() if n not in grey]
    if grey:
        value = sum(parts[name] for name in grey)
        keys.append(Key(", ".join(grey), REST, shown(value), share(value, total)))
    return keys


def by_layer(data: Data) -> list[Bar]:
    """A bar per layer that matters, in the order of execution, and one for all others."""
    layers, total = data["layers"], data["totals"]["energy_pj"]
    colours = palette_of(data["energy_pj_by_component"])
    parts = [{k: v for k, v in layer["energy_pj"].items() if k != "total"} for layer in layers]
    shown = [i for i, layer in enumerate(layers) if layer["energy_pj"]["total"] >= SMALL * total]
    rest = [i for i in range(len(layers)) if i not in set(shown)]
    summed: dict[str, float] = {}
    for i in rest:
        for name, value in parts[i].items():
            summed[name] = summed.get(name, 0.0) + value
    longest = max([layers[i]["energy_pj"]["total"] for i in shown] + [sum(summed.values())], default=0.0)
    bars = [
        Bar(
            layers[i]["name"],
            joules(layers[i]["energy_pj"]["total"]),
            pieces_of(parts[i], longest, colours, layers[i]["name"]),
            i,
        )
        for i in shown
    ]
    if rest:
        name = f"{len(rest)} smaller layers"
        bars.append(Bar(name, joules(sum(summed.values())), pieces_of(summed, longest, colours, name)))
    return bars
