"""The machine's roofline with the layers on it: MACs a second against MACs per byte of the outermost memory.

Williams, Waterman, Patterson 2009. A roof is drawn for each peak rate that the layers' widths have; the slope is the
outermost memory's port. Layers at one place share a dot, whose area follows their share of the time.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from hwsim.report.page.energy import Key, palette_of
from hwsim.report.page.scales import Scale, Tick, logarithmic
from hwsim.report.page.time import bounds_of
from hwsim.report.quantities import si
from hwsim.report.terminal import share

Data = dict[str, Any]
LABEL = 5.5  # height of a line of text, in percent of the chart


@dataclass(frozen=True)
class Line:
    """A straight line in percent of the frame, from the lower left corner, with its label."""

    x1: float
    y1: float
    x2: float
    y2: float
    text: str


@dataclass(frozen=True)
class Dot:
    """One or several layers at one place; `radius` in pixels."""

    x: float
    y: float
    radius: float
    colour: str
    text: str
    layer: int


@dataclass(frozen=True)
class Roofline:
    """Everything to draw; `dots` is empty where the report holds no traffic (a measured machine)."""

    dots: list[Dot]
    roofs: list[Line]
    slope: Line | None
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    keys: list[Key]
    memory: str


@dataclass(frozen=True)
class Point:
    """A layer in the units of the axes: MACs per byte, MACs per second."""

    intensity: float
    rate: float
    layer: int


def points_of(data: Data, memory: str) -> list[Point]:
    """Layers with MACs that move something through the outermost memory."""
    hertz = data["accelerator"]["clock_mhz"] * 1e6
    return [
        Point(layer["macs"] / (bits / 8), layer["macs"] / layer["latency_cycles"] * hertz, i)
        for i, layer in enumerate(data["layers"])
        if layer["macs"] and layer["latency_cycles"] and (bits := layer.get("traffic_bits", {}).get(memory, 0))
    ]


def roofline(data: Data) -> Roofline:
    """Dots, roofs and the slope."""
    machine = data["accelerator"]
    outer = next((node for node in machine.get("hierarchy", []) if node["kind"] == "memory"), None)
    points = points_of(data, outer["name"]) if outer else []
    if outer is None or not points:
        return Roofline([], [], None, [], [], [], "")
    hertz = machine["clock_mhz"] * 1e6
    peaks = sorted({layer["peak_macs_per_cycle"] * hertz for layer in data["layers"] if layer["peak_macs_per_cycle"]})
    x = logarithmic([p.intensity for p in points], 3.0)
    y = logarithmic([*(p.rate for p in points), *peaks], 2.0)
    bounds = bounds_of(data)
    colours = palette_of(bounds)
    used = {data["layers"][p.layer]["bottleneck"] for p in points}
    return Roofline(
        dots_of(data, points, x, y, colours),
        roofs_of(data, peaks[-3:], hertz, y),
        slope_of(outer, hertz, x, y, peaks[-1]) if peaks else None,
        x.ticks(""), y.ticks("MAC/s"),
        [Key(name, colours[name], "", "") for name in bounds if name in used],
        outer["name"],
    )  # fmt: skip


def roofs_of(data: Data, peaks: list[float], hertz: float, y: Scale) -> list[Line]:
    """A line per peak rate; one that is too near to a higher one has no label, so that labels do not touch."""
    roofs: list[Line] = []
    free = math.inf
    for peak in reversed(peaks):
        place = y.at(peak)
        near = place > free - LABEL
        roofs.append(Line(0.0, place, 100.0, place, "" if near else roof_text(data, peak, hertz)))
        free = free if near else place
    return roofs


def roof_text(data: Data, peak: float, hertz: float) -> str:
    """`168 MAC/cycle at 4 x 4 bits`."""
    widths = {
        f"{layer['bits']['weight']}x{layer['bits']['input']}"
        for layer in data["layers"]
        if layer["peak_macs_per_cycle"] and math.isclose(layer["peak_macs_per_cycle"] * hertz, peak)
    }
    some = ", ".join(sorted(widths)[:3]) + (", ..." if len(widths) > 3 else "")
    return f"{si(peak, 'MAC/s')} at {some} bits"


def slope_of(outer: dict[str, Any], hertz: float, x: Scale, y: Scale, peak: float) -> Line | None:
    """What the outermost memory's ports let through: MACs/s = MACs/byte * bytes/s, up to the highest roof."""
    read, write = outer["read_bandwidth_bits_per_cycle"], outer["write_bandwidth_bits_per_cycle"]
    if not read:
        return None
    bytes_per_s = (read + (write or 0)) / 8 * hertz
    left = max(x.low, y.low / bytes_per_s)
    right = min(x.high, peak / bytes_per_s)
    if left >= right:
        return None
    text = f"{outer['name']}: {si(bytes_per_s, 'B/s')}"
    return Line(x.at(left), y.at(left * bytes_per_s), x.at(right), y.at(right * bytes_per_s), text)


def dots_of(data: Data, points: list[Point], x: Scale, y: Scale, colours: dict[str, str]) -> list[Dot]:
    """Equal places together, the longest-running last so that small dots stay visible above them."""
    layers, total = data["layers"], data["totals"]["latency_cycles"] or 1
    places: dict[tuple[float, float, str], list[Point]] = defaultdict(list)
    for p in points:
        places[x.at(p.intensity), y.at(p.rate), layers[p.layer]["bottleneck"]].append(p)
    dots: list[Dot] = []
    for (across, up, bound), members in places.items():
        cycles = sum(layers[p.layer]["latency_cycles"] for p in members)
        names = [layers[p.layer]["name"] for p in members]
        who = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        text = (
            f"{who}: {si(members[0].rate, 'MAC/s')} at {members[0].intensity:.3g} MAC/B, bound by {bound}, "
            f"{share(cycles, total)} of the time"
        )
        radius = round(4 + 16 * math.sqrt(cycles / total), 1)
        dots.append(Dot(across, up, radius, colours[bound], text, members[0].layer))
    return sorted(dots, key=lambda dot: -dot.radius)
