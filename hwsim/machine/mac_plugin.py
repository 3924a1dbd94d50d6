"""MAC styles of other packages: `style: LIBRARY.NAME` names a function, which is asked once for all widths.

It gets the spec's `mac` and a pair of widths, and returns (pJ per MAC, MACs per cycle), or None where the unit cannot
take them. It runs while the spec is read; the machine then has a table of modes. So its identity holds the numbers,
worker processes need no plug-in, and fewer bits never cost more.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from hwsim.errors import SpecError, WorkloadError
from hwsim.files import plugins
from hwsim.files.strict_yaml import Document
from hwsim.machine.yaml_keys import CapabilitySpec, ModesMac, ModeSpec, PluginMac

MOST_PAIRS = 1024


def as_table(document: Document, mac: PluginMac, can: CapabilitySpec) -> tuple[ModesMac, str]:
    """The unit with a mode for every pair of widths that gains something, and a note of it. Raises SpecError."""
    place = document.place(("mac", "style"))
    price = style_function(place, mac.style)
    for key in ("area_mm2", "energy_pj"):
        if getattr(mac, key) is None:
            where = document.place(("mac", key))
            raise SpecError(f"{where}: missing key: nothing estimates it for the style of a plug-in")
    weights = sorted({*can.weight_bits, mac.weight_bits}, reverse=True)
    inputs = sorted({*can.activation_bits, mac.input_bits}, reverse=True)
    if len(weights) * len(inputs) > MOST_PAIRS:
        raise SpecError(
            f"{place}: expected at most {MOST_PAIRS} pairs of widths in capabilities for the style of a plug-in, "
            f"got {len(weights)} x {len(inputs)}"
        )
    modes: list[ModeSpec] = []
    for weight_bits in weights:
        for input_bits in inputs:
            mode = asked(f"{place}: {mac.style}", price, mac, weight_bits, input_bits)
            native = (weight_bits, input_bits) == (mac.weight_bits, mac.input_bits)
            if mode is not None and (native or not any(serves(other, mode) for other in modes)):
                modes.append(mode)
    if not modes:
        raise SpecError(f"{place}: {mac.style}: its function takes no pair of the widths in capabilities")
    ranked = sorted(modes, key=lambda mode: (mode.energy_pj or 0.0, -mode.macs_per_cycle))
    for cheap, dear in pairwise(ranked):
        if cheap.macs_per_cycle < dear.macs_per_cycle:
            raise SpecError(
                f"{place}: {mac.style} is cheaper at {shown(cheap)} than at {shown(dear)}, and slower; energy and "
                "speed must rank all pairs alike"
            )
    fields = {key: value for key, value in mac if key not in ("style", "parameters", "sustained")}
    note = f"mac: modes as the plug-in {mac.style} prices them, by its function"
    return ModesMac.model_construct(**fields, style="table", sum_bits=None, sustained=1.0, modes=modes), note


def style_function(place: str, name: str) -> Callable[[Any, int, int], Any]:
    """The plug-in's function. Raises SpecError where there is none."""
    try:
        found = plugins.mac_style(name)
    except WorkloadError as problem:
        raise SpecError(f"{place}: {problem}") from None
    if found is None:
        raise SpecError(f"{place}: no installed package has the MAC style {name!r} ({plugins.MAC_STYLES})")
    return found


def asked(
    where: str, price: Callable[[Any, int, int], Any], mac: PluginMac, weight_bits: int, input_bits: int
) -> ModeSpec | None:
    """What the function says of one pair of widths. Raises SpecError where it says nothing that a mode can be."""
    where = f"{where} at {weight_bits}x{input_bits}"
    try:
        answer = price(mac, weight_bits, input_bits)
    except Exception as problem:  # a plug-in's function may fail in any way
        raise SpecError(f"{where}: its function failed: {type(problem).__name__}: {problem}") from None
    if answer is None:
        return None
    try:
        energy_pj, macs_per_cycle = (float(figure) for figure in answer)
    except (TypeError, ValueError):
        energy_pj = macs_per_cycle = math.nan
    if not (0 < energy_pj <= 1e6 and 0 < macs_per_cycle <= 1e9):
        raise SpecError(f"{where}: expected (pJ per MAC, MACs per cycle), two numbers above 0, got {answer!r:.80}")
    return ModeSpec(
        weight_bits=weight_bits,
        input_bits=input_bits,
        energy_pj=energy_pj,
        macs_per_cycle=macs_per_cycle,
        sustained=mac.sustained,
        unpacks=False,
        start_cycles=0,
    )


def serves(other: ModeSpec, mode: ModeSpec) -> bool:
    """Whether another mode holds the operands of this one at no higher energy and no lower rate."""
    assert other.energy_pj is not None
    assert mode.energy_pj is not None
    return (
        other.weight_bits >= mode.weight_bits
        and other.input_bits >= mode.input_bits
        and other.energy_pj <= mode.energy_pj
        and other.macs_per_cycle >= mode.macs_per_cycle
    )


def shown(mode: ModeSpec) -> str:
    """`2x8 (0.1 pJ, 0.25 per cycle)`."""
    return f"{mode.weight_bits}x{mode.input_bits} ({mode.energy_pj:g} pJ, {mode.macs_per_cycle:g} per cycle)"
