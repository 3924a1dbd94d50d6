"""How a layer fills the MAC units, and what a machine refuses to run.

A unit that does n products side by side (machine/mac.py) needs n iterations of its `lanes` for them: Bit Fusion's
authors count ceil(C / (rows * factor)) alike (issue 4 of their repository). `refusals` says which capability a layer
violates; nothing is priced that the machine cannot run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from hwsim.errors import CapabilityError, SpecError
from hwsim.machine.mac import MacCost, lanes_wanted, mac_cost
from hwsim.machine.parts import Accelerator, Granule
from hwsim.nest.points import Ints
from hwsim.network.layer import Layer
from hwsim.pricing.scales import mac_elements, mac_widths, scale_work

Count = TypeVar("Count", int, Ints)


def unit_steps(dims: Sequence[str], iterations: Sequence[Count], mac: MacCost) -> Count:
    """Steps of a unit: other iterations * ceil(iterations of its lanes / products) * those of a granule, rounded up.

    `iterations` of every loop of `dims` in time, as ints or arrays. Of several granules the one of fewest steps.
    """
    filling = math.prod(
        (n for dim, n in zip(dims, iterations, strict=True) if dim in mac.lanes), start=iterations[0] ** 0
    )
    steps = -(-filling // mac.products)
    ways = mac.granules or (Granule((), 1),)
    found = [steps * granule_steps(dims, iterations, mac.lanes, way) for way in ways]
    least = found[0]
    for other in found[1:]:
        least = smaller(least, other)
    return least


def granule_steps(dims: Sequence[str], iterations: Sequence[Count], lanes: Sequence[str], granule: Granule) -> Count:
    """Iterations of all loops but lanes, those of a granule together and rounded up to its size."""
    others = together = iterations[0] ** 0
    for dim, n in zip(dims, iterations, strict=True):
        if dim in granule.loops:
            together = together * n
        elif dim not in lanes:
            others = others * n
    return others * (-(-together // granule.size) * granule.size)


def smaller(one: Count, other: Count) -> Count:
    """The smaller of two, of arrays by entry."""
    return one - (one - other) * (one > other)


def require_lanes(mac: MacCost) -> None:
    """Raises SpecError where several products side by side have no loops to fill them."""
    if mac.products > 1 and not mac.lanes:
        raise SpecError(f"mac.lanes: {lanes_wanted(mac)}")


def layer_mac(layer: Layer, accelerator: Accelerator) -> MacCost:
    """One MAC of a layer; where attention's kernel skips blocks above the diagonal, its average over the square."""
    mac = mac_cost(accelerator.mac, *mac_widths(layer, accelerator), mac_elements(layer))
    share = layer.causal_share(accelerator.capabilities.causal_block)
    return mac if share == 1 else replace(mac, energy_pj=mac.energy_pj * float(share), cycles=mac.cycles * share)


# --- what the machine can run at all ----------------------------------------------------------------------------------


def refusals(layer: Layer, accelerator: Accelerator) -> tuple[str, ...]:
    """Every capability that a layer violates, by the rule's name; empty when the machine can run it."""
    can = accelerator.capabilities
    found: list[str] = []

    def refuse(rule: str, message: str) -> None:
        found.append(f"layer {layer.name}: {accelerator.name} capabilities.{rule}: {message}")

    if can.operators and layer.op not in can.operators:
        refuse("operators", f"expected one of {', '.join(can.operators)}, got {layer.op}")
    if not layer.has_macs or layer.weight is None:
        return tuple(found)
    activation = layer.inputs[0]
    widths = (
        ("weight_bits", layer.weight, can.weight_bits),
        ("activation_bits", activation, can.activation_bits),
        ("output_bits", layer.output, can.output_bits),
    )
    for rule, tensor, known in widths:
        if tensor.bits not in known:
            refuse(rule, f"expected one of {known_widths(known)} bits for {tensor.name}, got {tensor.bits}")
    if activation.signed and not can.signed_activations:
        refuse("signed_activations", f"expected unsigned codes, {activation.name} is signed")
    if not activation.signed and not can.unsigned_activations:
        refuse("unsigned_activations", f"expected signed codes, {activation.name} is unsigned")
    if layer.weight.scales > 1 and layer.weight.format is None and not can.per_channel_scales:
        refuse("per_channel_scales", f"expected one scale per tensor, {layer.weight.name} has {layer.weight.scales}")
    scales = scale_work(layer, accelerator)
    if scales.refusal:
        found.append(f"layer {layer.name}: {accelerator.name} capabilities.{scales.refusal}")
    if not found:
        try:
            mac_cost(accelerator.mac, *mac_widths(layer, accelerator), mac_elements(layer))
        except CapabilityError as problem:
            found.append(f"layer {layer.name}: {accelerator.name} mac: {problem}")
    return tuple(found)


def require_capable(layer: Layer, accelerator: Accelerator) -> None:
    """Raises CapabilityError naming every violated rule of a layer."""
    found = refusals(layer, accelerator)
    if found:
        raise CapabilityError("\n".join(found))


def known_widths(widths: tuple[int, ...]) -> str:
    """`2..8` for a run of widths, `2, 4, 8` otherwise."""
    run = sorted(widths)
    if len(run) > 2 and run == list(range(run[0], run[-1] + 1)):
        return f"{run[0]}..{run[-1]}"
    return ", ".join(str(width) for width in run)
