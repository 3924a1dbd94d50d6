"""Time as a picture: layers one after another with what bounds each, and the activations held meanwhile."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from hwsim.report.page.energy import Key, keys_of, palette_of
from hwsim.report.page.scales import Tick, linear
from hwsim.report.quantities import ends, si
from hwsim.report.terminal import share

Data = dict[str, Any]


@dataclass(frozen=True)
class Box:
    """A rectangle of a chart, in percent of its frame, counted from the lower left corner."""

    x: float
    y: float
    width: float
    height: float
    colour: str
    text: str
    layer: int = -1


@dataclass(frozen=True)
class OpenRate:
    """A part whose rates are estimates, and the network's latency with it alone fast or slow."""

    name: str
    factor: str
    low: str
    high: str


def interval(data: Data) -> str:
    """The latency with all rates fast and with all slow; empty where none is an estimate."""
    found = data.get("latency_interval")
    return ends(found["low_s"], found["high_s"], "s") if found else ""


def rates(data: Data) -> list[OpenRate]:
    """The rates that leave the latency open, widest first."""
    latency = data["totals"]["latency_s"]
    return [
        OpenRate(
            rate["name"],
            f"{rate['factor']:g}",
            si(latency - rate["down_s"], "s"),
            si(latency + rate["up_s"], "s"),
        )
        for rate in data.get("latency_interval", {}).get("rates", [])
    ]


@dataclass(frozen=True)
class Timeline:
    """Two charts over one axis: `layers` as a strip, `held` as steps under the capacity line, if that is in reach."""

    layers: list[Box]
    alive: list[Box]
    on_chip: list[Box]
    keys: list[Key]
    time_ticks: list[Tick]
    bits_ticks: list[Tick]
    capacity: Tick | None
    home: str
    home_size: str


def bounds_of(data: Data) -> dict[str, float]:
    """Cycles of the network by what bounds the layers, largest first."""
    cycles: Counter[str] = Counter()
    for layer in data["layers"]:
        if layer["latency_cycles"]:
            cycles[layer["bottleneck"]] += layer["latency_cycles"]
    return {name: float(n) for name, n in cycles.most_common()}


def starts(data: Data) -> list[int]:
    """Cycle at which every layer starts."""
    found, now = [0], 0
    for layer in data["layers"]:
        now += layer["latency_cycles"]
        found.append(now)
    return found


def seconds(data: Data, cycles: float) -> str:
    """Cycles as time."""
    return si(cycles / (data["accelerator"]["clock_mhz"] * 1e6), "s")


def timeline(data: Data) -> Timeline:
    """The whole run. Layers that run behind another take no time of their own and are left out."""
    bounds, begin = bounds_of(data), starts(data)
    colours, total = palette_of(bounds), float(begin[-1])
    across = linear(total)
    strip = [
        Box(
            across.at(begin[i]), 0.0, round(100 * layer["latency_cycles"] / total, 3), 100.0,
            colours[layer["bottleneck"]],
            f"{layer['name']}: {seconds(data, layer['latency_cycles'])} ({share(layer['latency_cycles'], total)}), "
            f"bound by {layer['bottleneck']}",
            i,
        )
        for i, layer in enumerate(data["layers"])
        if layer["latency_cycles"]
    ]  # fmt: skip
    keys = keys_of(bounds, colours, lambda cycles: seconds(data, cycles))
    in_seconds = linear(total / (data["accelerator"]["clock_mhz"] * 1e6))
    alive, on_chip, up = held(data, begin)
    home = data["accelerator"].get("activation_memory") or {}
    size = home.get("size_bits")
    line = Tick(up.at(size), f"{home['name']}: {si(size / 8, 'B')}") if size and size <= up.high else None
    return Timeline(
        strip, alive, on_chip, keys, in_seconds.ticks("s", 4), ticks_of_bits(up.high), line,
        home.get("name", ""), si(size / 8, "B") if size else "",
    )  # fmt: skip


def ticks_of_bits(high_bits: float) -> list[Tick]:
    """An axis in bytes."""
    return linear(high_bits / 8).ticks("B", 3)


def held(data: Data, begin: list[int]) -> tuple[list[Box], list[Box], Any]:
    """Activations alive in every stage, and those of them on chip; the scale holds the highest stack with some room."""
    position = {layer["name"]: i for i, layer in enumerate(data["layers"])}
    stages = [
        stage for stage in data.get("occupancy", []) if data["layers"][position[stage["layer"]]]["latency_cycles"]
    ]
    up = linear(1.1 * max((max(stage["alive_bits"], stage["on_chip_bits"]) for stage in stages), default=1))
    total = begin[-1] or 1
    alive: list[Box] = []
    on_chip: list[Box] = []
    for stage in stages:
        i = position[stage["layer"]]
        x, width = 100 * begin[i] / total, 100 * data["layers"][i]["latency_cycles"] / total
        said = f"during {stage['layer']}: {si(stage['alive_bits'] / 8, 'B')} of activations alive"
        if stage["on_chip_bits"]:
            said += f"; those that stay on chip take {si(stage['on_chip_bits'] / 8, 'B')}"
        place = (round(x, 3), 0.0, round(width, 3))
        alive.append(Box(*place, up.at(stage["alive_bits"]), "", said, i))
        if stage["on_chip_bits"]:
            on_chip.append(Box(*place, up.at(stage["on_chip_bits"]), "", said, i))
    return alive, on_chip, up
