"""NVIDIA A100 (80 GB): 336 measured matrix products in bf16, int8 and with 8- and 4-bit weights unpacked into bf16.

Each format has two constants, fitted on every other shape: the share of its peak rate that its kernels reach and the
time to start one. The other shapes are checks. One bandwidth serves all formats (accel_specs/a100.yaml).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.optimize import minimize

from experiments.validation.networks import linear
from experiments.validation.rows import Row, Study, read_table
from hwsim.machine.load import load_accelerator
from hwsim.network.layer import Layer
from hwsim.pricing.layer import price
from hwsim.search.layer import search

# The table's formats: (weight bits, input bits), and what its rows are called here.
FORMATS = {
    "bfloat16": ((16, 16), "bf16"),
    "int8_w8a8_smoothquant": ((8, 8), "W8A8"),
    "int8_wo": ((8, 16), "W8A16"),
    "int4_wo": ((4, 16), "W4A16"),
}
Shape = tuple[int, int, int]  # m, n, k
BANDWIDTH_ROW = ("bfloat16", (1, 8192, 8192))
NEAR = 0.1  # formats whose times differ by less than this are equally fast


@dataclass(frozen=True)
class Kernel:
    """One format: what a product needs at the full rate, by shape, and what was measured, in us."""

    compute_us: dict[Shape, float]
    others_us: dict[Shape, float]  # the slowest memory port or the vector unit
    measured_us: dict[Shape, float]

    def us(self, shape: Shape, share: float, start_us: float) -> float:
        """start + max(compute / share, memory)."""
        return start_us + max(self.compute_us[shape] / share, self.others_us[shape])

    def fit(self, shapes: tuple[Shape, ...]) -> tuple[float, float]:
        """(share, start in us) of least mean relative error on some shapes."""

        def error(constants: np.ndarray) -> float:
            share, start_us = constants
            return float(np.mean([abs(self.us(s, share, start_us) / self.measured_us[s] - 1) for s in shapes]))

        found = [minimize(error, (0.8, start), method="Nelder-Mead") for start in (5.0, 12.0)]
        best: list[float] = [float(result.fun) for result in found]
        share, start_us = found[best.index(min(best))].x
        return round(float(share), 3), round(float(start_us), 1)


def product(shape: Shape, bits: tuple[int, int]) -> Layer:
    """m vectors of k inputs times k x n weights; outputs in 16 bits."""
    m, n, k = shape
    return linear("x".join(map(str, shape)), k, n, batch=m, bits=(*bits, 16))


@lru_cache(maxsize=1)
def kernels() -> dict[str, Kernel]:
    """Every format at full rate and without start, under the mapping that is fastest for it."""
    machine = load_accelerator("a100")
    modes = tuple(dataclasses.replace(mode, sustained=1.0, start_cycles=0) for mode in machine.mac.modes)
    ideal = dataclasses.replace(machine, mac=dataclasses.replace(machine.mac, modes=modes), layer_overhead_cycles=0)
    found = {name: Kernel({}, {}, {}) for name in FORMATS}
    for row in read_table("gpu_gemm_measured.csv"):
        shape, kernel = (int(row["m"]), int(row["n"]), int(row["k"])), found[row["format"]]
        layer = product(shape, FORMATS[row["format"]][0])
        cycles = dict(price(layer, search(layer, ideal, "latency").counts, ideal).cycles)
        kernel.measured_us[shape] = 1e3 * float(row["latency_ms"])
        kernel.compute_us[shape] = cycles.pop("compute") / machine.clock_mhz
        kernel.others_us[shape] = max(cycles.values()) / machine.clock_mhz
    return found


def fit_shapes() -> tuple[Shape, ...]:
    """Every other shape, in order."""
    return tuple(sorted(kernels()["bfloat16"].measured_us))[::2]


def study() -> Study:
    """Latency of the shapes not fitted, and which of two formats is the faster one."""
    fitted = frozenset(fit_shapes())
    constants = {name: kernel.fit(tuple(sorted(fitted))) for name, kernel in kernels().items()}
    ours = {
        name: {shape: kernel.us(shape, *constants[name]) for shape in kernel.measured_us}
        for name, kernel in kernels().items()
    }
    rows = [
        Row(
            f"{shape[0]} x {shape[2]} x {shape[1]}",
            f"latency, {title}",
            "us",
            kernels()[name].measured_us[shape],
            ours[name][shape],
            "calibration" if shape in fitted or (name, shape) == BANDWIDTH_ROW else "check",
        )
        for name, (_, title) in FORMATS.items()
        for shape in sorted(ours[name])
    ]
    told = [
        f"{title}: {100 * constants[name][0]:.1f} % of the peak rate, {constants[name][1]:g} us to start"
        for name, (_, title) in FORMATS.items()
    ]
    right, cells = faster(ours, fitted, "int4_wo")
    right8, cells8 = faster(ours, fitted, "int8_wo")
    return Study(
        name="a100_gemm",
        title="A100, matrix products",
        source="ai-dynamo/aiconfigurator @095f58a51: TensorRT-LLM 1.0.0, A100-SXM4-80GB (silicon), launch included",
        machine="a100 with two constants per format",
        rows=tuple(rows),
        calibrated=(
            *told,
            "rates and starts are from every other shape",
            "0.80 of 2,039 GB/s for all formats, from 1 x 8192 x 8192 in bf16",
        ),
        explanation=(
            "Narrow weights unpacked into 16-bit MACs can cost time. Which of W4A16 and bf16 is faster comes out "
            f"right on {right} of {cells} checks whose times differ by more than 10 %. For W8A16 it does on {right8} "
            f"of {cells8}. Worst are single vectors and 16 of them on small weights, where kernels of one format "
            "differ by more than their start. So are int8 products of 256 and 1024 rows, whose tiles do not fill "
            "whole waves of the 108 multiprocessors. A schedule of whole tiles is missing."
        ),
    )


def faster(ours: dict[str, dict[Shape, float]], fitted: frozenset[Shape], narrow: str) -> tuple[int, int]:
    """(checks where the faster of a format and bf16 is told right, checks where they differ by more than `NEAR`)."""
    measured = {name: kernels()[name].measured_us for name in (narrow, "bfloat16")}
    right = cells = 0
    for shape in ours[narrow]:
        ratio = measured["bfloat16"][shape] / measured[narrow][shape]
        if shape in fitted or abs(ratio - 1) <= NEAR:
            continue
        cells += 1
        right += (ours["bfloat16"][shape] > ours[narrow][shape]) == (ratio > 1)
    return right, cells
