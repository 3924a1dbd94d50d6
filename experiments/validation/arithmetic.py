"""Energy of MAC arrays by width against the MAC styles: synthesised arrays at 28 nm, a measured digital macro at 65 nm.

72 synthesised arrays of 4096 2-bit multipliers. Each style is given one energy, that of its 8 x 8 mode; bit-serial and
sub-word arrays a second constant from 2 x 2, the part that goes with the sum of the widths. What they say about the
other widths is compared with the median of all fully unrolled arrays and with three named designs. The macro has one
constant, its energy at 8 x 8 bits; the columns of its sums follow from its 128 rows.
"""

from __future__ import annotations

import statistics

from experiments.validation.rows import Role, Row, Study, read_table
from hwsim.machine.load import load_accelerator
from hwsim.machine.mac import mac_cost, work_ratio
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


def fitted_sum_bits(measured: dict[str, float]) -> float:
    """The s with which w*a + s*(w + a) meets both 8 x 8 and 2 x 2: (4 + 4s) / (64 + 16s) = their ratio."""
    ratio = measured["2x2"] / measured["8x8"]
    return round((64 * ratio - 4) / (4 - 16 * ratio), 3)


def styles() -> dict[str, tuple[str, str | None, MacUnit]]:
    """Item -> (unrolling, design or None for the median, unit of 1 pJ at 8 x 8)."""
    fusion = MacUnit("fusion", 8, 8, 32, 1.0, brick_bits=2)
    loom = fitted_sum_bits(medians(CLOCK, "FU", "LOOM-like"))
    serial = MacUnit("bit_serial", 8, 8, 32, 1.0, serial="both", sum_bits=loom)
    swu = fitted_sum_bits(medians(CLOCK, "SWU"))
    modes = tuple(MacMode(b, b, (8 // b) ** 2, float(work_ratio((b, b), (8, 8), swu))) for b in (8, 4, 2))
    subword = MacUnit("subword", 8, 8, 32, 1.0, modes=modes, sum_bits=swu)
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
            role: Role = "calibration" if widths == "8x8" or (unit.sum_bits and widths == "2x2") else "check"
            rows.append(Row(f"{item}, {widths}", "energy per MAC", "fJ", theirs, ours, role))
    return Study(
        name="psma_28nm",
        title="Precision-scalable arrays, 28 nm",
        source="Ibrahim, Mei, Verhelst 2021: 72 arrays synthesised at 28 nm, 200 MHz",
        machine="MAC styles alone, no memories",
        rows=tuple(rows),
        calibrated=("one energy per array, at 8 x 8 bits", *sum_bits_told()),
        explanation=(
            "Fusion arrays follow the product of the widths within the spread of the designs. Serial and sub-word "
            "ones fall behind it, because registers and adders go with the sum of the widths. Sub-word arrays take "
            "nine times less energy at 2 x 2 than at 8 x 8, not sixteen. Worst rows: bricks at 2 x 2 cost less than "
            "a sixteenth, because their shifters rest; the law has no shifters."
        ),
    )


def sum_bits_told() -> tuple[str, ...]:
    """The second constants of the two families that have one."""
    known = {item: unit.sum_bits for item, (_, _, unit) in styles().items() if unit.sum_bits}
    return tuple(f"sum_bits {bits:g} ({item}), from 2 x 2 bits" for item, bits in known.items())


def macro_study() -> Study:
    """Energy per MAC of a digital in-memory macro at 1 to 16 bits."""
    machine = load_accelerator("colonnade")
    rows: list[Row] = []
    for row in read_table("digital_macro_bits_measured.csv"):
        weight_bits, input_bits = int(row["weight_bits"]), int(row["input_bits"])
        ours = 1e3 * mac_cost(machine.mac, weight_bits, input_bits).energy_pj
        role: Role = "calibration" if (weight_bits, input_bits) == (8, 8) else "check"
        rows.append(Row(f"{weight_bits} x {input_bits} bits", "energy per MAC", "fJ", float(row["value"]), ours, role))
    return Study(
        name="colonnade",
        title="Colonnade, digital in-memory macro, 65 nm",
        source="Kim et al., JSSC 2021, Fig. 16a (silicon, 0.8 V), as read off by CiMLoop's authors",
        machine="colonnade, its MAC alone",
        rows=tuple(rows),
        calibrated=("the energy of one MAC, at 8 x 8 bits",),
        explanation=(
            "Inputs come bit by bit. A weight takes its own columns and log2(128) = 7 more for its sum, which do not "
            "shrink. So 128 columns hold 16, 14, 11, 8 and 5 weights of 1, 2, 4, 8 and 16 bits. The product of the "
            "widths alone says 1/64 from 8 x 8 to 1 x 1, the chip 1/17, this 1/16. What is left is a slow rise of "
            "the energy per column and phase with the width, from 8.5 to 9.8 fJ. The paper does not explain it."
        ),
    )
