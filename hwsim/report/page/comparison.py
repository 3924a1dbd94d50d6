"""Several reports as one page: totals with ratios, energy by component, time by bound, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

from hwsim.report.page.energy import Bar, Key, Piece, joules, keys_of, palette_of
from hwsim.report.page.render import environment, made_printable
from hwsim.report.page.time import bounds_of
from hwsim.report.quantities import si
from hwsim.report.terminal import share

Data = dict[str, Any]


def comparison_page(
    reports: Sequence[Data], names: Sequence[str], totals: Sequence[Sequence[str]], same: Sequence[str]
) -> str:
    """The page of what several report.json hold, under the names a reader tells them apart by.

    `totals`: rows of text, title first; `same`: what the reports' questions differ in, a line each.
    """
    known = cast(list[Data], made_printable(list(reports)))
    titles = cast(list[str], made_printable(list(names)))
    energies = [dict(data["energy_pj_by_component"]) for data in known]
    times = [seconds_by_bound(data) for data in known]
    energy_bars, energy_keys = bars(titles, energies, joules)
    time_bars, time_keys = bars(titles, times, in_seconds)
    return environment().get_template("compare.html").render(
        title="Comparison: " + "; ".join(titles),
        reports=known,
        names=titles,
        totals=made_printable([list(row) for row in totals]),
        same=made_printable(list(same)),
        energy_bars=energy_bars,
        energy_keys=energy_keys,
        time_bars=time_bars,
        time_keys=time_keys,
        rows=layer_rows(known),
    )  # fmt: skip


def seconds_by_bound(data: Data) -> dict[str, float]:
    """Time of the network by what bounds it."""
    hertz = data["accelerator"]["clock_mhz"] * 1e6
    return {name: cycles / hertz for name, cycles in bounds_of(data).items()}


def in_seconds(value: float) -> str:
    """A time with a prefix."""
    return si(value, "s")


def bars(
    titles: list[str], parts: list[dict[str, float]], shown: Callable[[float], str]
) -> tuple[list[Bar], list[Key]]:
    """One bar per report on a common scale, and one legend for all."""
    sums: dict[str, float] = {}
    for found in parts:
        for name, value in found.items():
            sums[name] = sums.get(name, 0.0) + value
    colours, longest = palette_of(sums), max((sum(found.values()) for found in parts), default=0.0)
    rows = [
        Bar(
            title,
            shown(sum(found.values())),
            [
                Piece(
                    name,
                    round(100 * value / longest, 3),
                    colours[name],
                    f"{title}: {name} {shown(value)} ({share(value, sum(found.values()))})",
                )
                for name in sums
                if (value := found.get(name, 0.0)) > 0
            ],
        )
        for title, found in zip(titles, parts, strict=True)
    ]
    return rows, [replace(key, value="", share="") for key in keys_of(sums, colours, shown)]


def layer_rows(reports: list[Data]) -> list[Data]:
    """Every layer of any report by name, in the order of the first that has it; blank where a report lacks it."""
    by_name = [{layer["name"]: layer for layer in data["layers"]} for data in reports]
    names = dict.fromkeys(name for layers in by_name for name in layers)
    rows: list[Data] = []
    for name in names:
        found = [layers.get(name) for layers in by_name]
        op = next(layer["op"] for layer in found if layer is not None)
        rows.append({"name": name, "op": op, "cells": [cell(layer, found[0]) for layer in found]})
    return rows


def cell(layer: Data | None, first: Data | None) -> Data:
    """Bits, energy and cycles of a layer in one report, with ratios to the first."""
    if layer is None:
        return {"bits": "", "bits_value": -1, "energy": "", "energy_value": -1, "cycles": "", "cycles_value": -1}
    bits, energy, cycles = layer["bits"], layer["energy_pj"]["total"], layer["latency_cycles"]
    ratios = ["", ""]
    if first is not None and first is not layer:
        pairs = ((energy, first["energy_pj"]["total"]), (cycles, first["latency_cycles"]))
        ratios = [f" ({value / base:.2g}x)" if base else "" for value, base in pairs]
    return {
        "bits": f"{bits['weight'] or '-'}/{bits['input']}",
        "bits_value": bits["weight"] * 100 + bits["input"],
        "energy": joules(energy) + ratios[0],
        "energy_value": energy,
        "cycles": f"{cycles:,.0f}{ratios[1]}",
        "cycles_value": cycles,
    }
