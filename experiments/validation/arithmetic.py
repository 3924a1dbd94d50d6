"""Energy of precision-scalable MAC arrays at 28 nm against the MAC styles, calibrated at 8 x 8 bits only.

72 synthesised arrays of 4096 2-bit multipliers. Each style is given one energy, that of its 8 x 8 mode; what it says
about 8x4, 8x2, 4x4 and 2x2 is compared with the median of all fully unrolled arrays and with three named designs.
"""

from __future__ import annotations

import statistics

from experiments.validation.rows import Row, Study, read_table
from hwsim.machine.mac import mac_cost
from hwsim.machine.parts import MacMode, MacUnit

CLOCK = "5.00"  # ns: 200 MHz, where leakage and timing pressure distort least
PAIRS = {"8x8": (8, 8), "8x4": (8, 4), "8x2": (8, 2), "4x4": (4, 4), "2x2": (2, 2)}


def medians(clock: str, unrolling: str, design: str | None = None) -> dict[str, float]:
    """fJ per MAC by widths: of one named design, or the median over all designs."""
    found: dict[str, list[float]] = {}
    for row in read_table("mac_array_precision_28nm.csv"):
        if (row["clock_ns"], row["unrolling"]) != (clock, unrolling):
            continue
        if design is None or row["named_design"] == design:
            found.setdefault(row["precision_WxA_or_AxW"], []).append(float(row["energy_fJ_per_MAC"]))
    return {widths: statistics.median(values) for widths, values in found.items()}


def styles() -> dict[str, tuple[str, str | None, MacUnit]]:
    """Item -> (unrolling, design or None for the median, unit of 1 pJ at 8 x 8)."""
    fusion = MacUnit("fusion", 8, 8, 32, 1.0, brick_bits=2)
    serial = MacUnit("bit_serial", 8, 8, 32, 1.0, serial="both")
    subword = MacUnit(
        "subword", 8, 8, 32, 1.0, modes=(MacMode(8, 8, 1, 1.0), MacMode(4, 4, 4, 1 / 4), MacMode(2, 2, 16, 1 / 16))
    )
    return {
        "fusion, median of all": ("FU", None, fusion),
        "fusion, Bit Fusion": ("FU", "BITFUSION-like", fusion),
        "fusion, BitBlade": ("FU", "BITBLADE-like", fusion),
        "bit-serial, Loom": ("FU", "LOOM-like", serial),
        "sub-word, median": ("SWU", None, subword),
    }


def study() -> Study:
    """Energy by widths."""
    rows: list[Row] = []
    for item, (unrolling, design, unit) in styles().items():
        measured = medians(CLOCK, unrolling, design)
        for widths, theirs in measured.items():
            ours = measured["8x8"] * mac_cost(unit, *PAIRS[widths]).energy_pj
            role = "calibration" if widths == "8x8" else "check"
            rows.append(Row(f"{item}, {widths}", "energy per MAC", "fJ", theirs, ours, role))
    return Study(
        name="psma_28nm",
        title="Precision-scalable arrays, 28 nm",
        source="Ibrahim, Mei, Verhelst 2021: 72 arrays synthesised at 28 nm, 200 MHz",
        machine="MAC styles alone, no memories",
        rows=tuple(rows),
        calibrated=("one energy per array, at 8 x 8 bits",),
        explanation=(
            "Energy follows the product of the widths within the spread of the designs. Where an array falls behind "
            "the product (sub-word unrolled ones at 2 x 2: nine times less energy, not sixteen), registers and adder "
            "trees that do not shrink with the operands are what the proportional rule leaves out."
        ),
    )
