"""No search is faster than the lanes of a unit allow, on every shipped machine.

The oracle knows no search. It lists what the arrays may unroll, counts iterations by ceilings, fills the lanes of a
unit with what is left of their loops, and prices modes, bricks and digits by formulas of its own.
"""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import pytest

from hwsim.errors import CapabilityError
from hwsim.machine.load import load_accelerator, shipped_specs
from hwsim.machine.parts import Accelerator, Array, Axis, MacUnit
from hwsim.network.layer import DIMS, Layer, Loops
from hwsim.search.layer import search
from tests.strategies import conv

KINDS = {
    "depthwise 3x3": Loops(G=10, P=5, Q=5, R=3, S=3),
    "depthwise 5x5": Loops(G=6, P=4, Q=6, R=5, S=5),
    "four groups": Loops(G=4, K=3, C=5, P=4, Q=4, R=3, S=3),
    "one channel": Loops(K=9, C=1, P=7, Q=7),
    "three channels": Loops(K=20, C=3, P=6, Q=6),
    "first 7x7": Loops(K=16, C=3, P=7, Q=7, R=7, S=7),
    "linear": Loops(K=10, C=33),
    "a batch": Loops(N=3, K=7, C=17),
    "full 3x3": Loops(K=18, C=20, P=5, Q=5, R=3, S=3),
}
WIDTHS = ((8, 8), (4, 8), (4, 4), (2, 2))
FAST = ("bit_fusion", "t4", "ethos_u55_256", "unpu", "mico_riscv")
MOST_CHOICES = 400_000
SPECS = [name for name in shipped_specs() if load_accelerator(name).mac.measurements is None]
EVERY = [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in SPECS]


def parts(bits: int, width: int) -> int:
    """How many pieces of a width make up a code."""
    return -(-bits // width)


def step(mac: MacUnit, weight: int, code: int) -> tuple[int, Fraction] | None:
    """Products of a step of the unit, and its cycles; None where this oracle has no formula."""
    rate = Fraction(str(mac.macs_per_cycle)) * Fraction(str(mac.sustained))
    if mac.style == "fixed":
        passes = parts(weight, mac.weight_bits) * parts(code, mac.input_bits)
        return math.ceil(mac.macs_per_cycle), passes * math.ceil(mac.macs_per_cycle) / rate
    if mac.style in ("subword", "table"):
        able = [m for m in mac.modes if m.weight_bits >= weight and m.input_bits >= code]
        able = [m for m in able if not m.elements or "int" in m.elements]
        least = min(able, key=lambda m: (m.energy_pj, m.weight_bits if m.unpacks else 64, -m.macs_per_cycle,
                                         m.weight_bits, m.input_bits))  # fmt: skip
        products = math.ceil(least.macs_per_cycle)
        sustained = Fraction(str(least.sustained)) * Fraction(str(mac.sustained))
        return products, products / Fraction(str(least.macs_per_cycle)) / sustained
    if mac.style == "fusion":
        have = parts(mac.weight_bits, mac.brick_bits) * parts(mac.input_bits, mac.brick_bits)
        need = parts(weight, mac.brick_bits) * parts(code, mac.brick_bits)
        return max(1, have // need), Fraction(max(1, parts(need, have))) / rate
    if mac.style == "bit_serial":
        digits = native = 1
        for operand, bits, width in (("weight", weight, mac.weight_bits), ("input", code, mac.input_bits)):
            if mac.serial in (operand, "both"):
                digits, native = digits * parts(bits, mac.digit_bits), native * parts(width, mac.digit_bits)
        products = math.ceil(native * mac.macs_per_cycle)
        return products, Fraction(digits, native) * products / rate
    return None


def unrolled(axis: Axis, array: Array, loops: dict[str, int]) -> list[dict[str, int]]:
    """Every way to fill an axis."""
    dims = [d for d in axis.dims if loops[d] > 1 and (array.reduction or d not in "CRS")]
    ways: list[dict[str, int]] = [{}]
    for dim in dims:
        ways = [{**way, dim: n} for way in ways for n in range(1, 1 + min(loops[dim], axis.size // taken(way)))]
    return [way for way in ways if not axis.max_dims or sum(n > 1 for n in way.values()) <= axis.max_dims]


def taken(way: dict[str, int]) -> int:
    """Elements that work."""
    return math.prod(way.values())


def least_cycles(machine: Accelerator, loops: dict[str, int], bits: tuple[int, int]) -> int | None:
    """Cycles that the products of a layer take at least; None without a formula, or with too many ways to list."""
    found = step(machine.mac, *bits)
    if found is None:
        return None
    products, cycles = found
    together = {tuple(1 for _ in DIMS)}
    for array in machine.arrays:
        for axis in array.axes:
            ways = unrolled(axis, array, loops)
            if len(ways) * len(together) > MOST_CHOICES:
                return None
            wider: dict[tuple[int, ...], tuple[int, ...]] = {}
            for done, way in itertools.product(together, ways):
                total = tuple(min(n * way.get(dim, 1), loops[dim]) for dim, n in zip(DIMS, done, strict=True))
                wider.setdefault(tuple(parts(loops[d], n) for d, n in zip(DIMS, total, strict=True)), total)
            together = set(wider.values())
    least: int | None = None
    for total in together:
        left = {dim: parts(loops[dim], n) for dim, n in zip(DIMS, total, strict=True)}
        steps = parts(math.prod(left[d] for d in machine.mac.lanes), products) * min(
            math.prod(left[d] for d in DIMS if d not in machine.mac.lanes and not (granule and d in granule.loops))
            * (parts(math.prod(left[d] for d in granule.loops), granule.size) * granule.size if granule else 1)
            for granule in (machine.mac.granules or (None,))
        )
        needed = math.ceil(steps * cycles)
        least = needed if least is None else min(least, needed)
    return least


@pytest.mark.long
@pytest.mark.parametrize("name", EVERY)
def test_no_search_is_faster_than_lanes_allow(name: str) -> None:
    machine = load_accelerator(name)
    reached = compared = 0
    for (kind, loops), bits in itertools.product(KINDS.items(), WIDTHS):
        layer: Layer = conv(loops, bits=(*bits, bits[1]))
        try:
            found = search(layer, machine, "latency")
        except CapabilityError:
            continue
        least = least_cycles(machine, loops.as_dict(), bits)
        if least is not None:
            compute = dict(found.cost.cycles)["compute"]
            assert compute >= least, f"{name}, {kind}, W{bits[0]}A{bits[1]}: {compute} cycles, at least {least}"
            compared, reached = compared + 1, reached + (compute == least)
    waits = any(array.systolic or array.command_steps > 1 for array in machine.arrays)
    assert not compared or waits or reached, f"{name}: the oracle is met by none of {compared}"
