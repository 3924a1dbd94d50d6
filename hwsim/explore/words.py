"""The words by which bits are asked for, without the solver: the help of a command must not wait for it."""

from __future__ import annotations

from collections.abc import Mapping

LOSS, ENERGY, CYCLES, WEIGHTS, PEAK, BOPS = (
    "loss", "energy_pj", "latency_cycles", "weight_bits", "peak_activation_bits", "bops",
)  # fmt: skip
# As a user calls a measure -> the measure.
NAMES: Mapping[str, str] = {
    "energy": ENERGY,
    "latency": CYCLES,
    "weights": WEIGHTS,
    "peak": PEAK,
    "bops": BOPS,
    "loss": LOSS,
}
FIRST_LAST = ("8bit", "same", "free")  # free: the older word for same
