"""A RISC-V core with sub-word dot products: cycles of 46 convolutions at 16 bit pairs (RTL simulation).

Products take a cycle per word at the wider operand's width; each also loads its codes, so loads go with the sum of the
widths. Two machine parameters (cycles per word loaded; per output written and code copied) are fitted on every other
shape at 8/8 and 2/2 bits; all pairs of the shapes in between are checks.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from experiments.validation.networks import Bits, conv
from experiments.validation.rows import Role, Row, Study, rank_correlation, read_table
from hwsim.machine.load import load_accelerator
from hwsim.machine.parts import Accelerator, Memory
from hwsim.nest.counts import Counts
from hwsim.network.layer import Layer
from hwsim.pricing.layer import price
from hwsim.search.layer import search

FIT_PAIRS = ((8, 8), (2, 2))
WORD_BITS = 32


@dataclass(frozen=True)
class Kernel:
    """One measured kernel."""

    shape: tuple[int, ...]  # in_h, in_w, c_in, k_out, kernel, stride
    a_bits: int
    w_bits: int
    cycles: int

    def layer(self) -> Layer:
        """The convolution; sizes are of the padded input. Outputs are written as 8-bit codes."""
        high, wide, c, k, kernel, stride = self.shape
        size = ((high - kernel) // stride + 1, (wide - kernel) // stride + 1)
        bits: Bits = (self.w_bits, self.a_bits, 8)
        return conv("x".join(map(str, self.shape)), c, k, size, kernel, stride, bits=bits)


@lru_cache(maxsize=1)
def kernels() -> tuple[Kernel, ...]:
    """All 736."""
    names = ("in_h", "in_w", "c_in", "k_out", "kernel", "stride")
    return tuple(
        Kernel(tuple(int(r[n]) for n in names), int(r["a_bits"]), int(r["w_bits"]), int(r["cycles"]))
        for r in read_table("mico_riscv_conv_cycles.csv")
    )


@lru_cache(maxsize=1)
def counts() -> dict[tuple[int, ...], Counts]:
    """Counts of every shape; operands are padded to bytes, so one mapping serves all widths."""
    machine = load_accelerator("mico_riscv")
    found: dict[tuple[int, ...], Counts] = {}
    for kernel in kernels():
        if kernel.shape not in found:
            found[kernel.shape] = search(
                dataclasses.replace(kernel, a_bits=8, w_bits=8).layer(), machine, "latency"
            ).counts
    return found


def cycles(kernel: Kernel, machine: Accelerator) -> int:
    """What the model says."""
    return price(kernel.layer(), counts()[kernel.shape], machine).latency_cycles


def with_rates(machine: Accelerator, per_word: float, per_scalar: float) -> Accelerator:
    """The spec with other rates: cycles per 32-bit word loaded, per output written and per code copied."""
    registers = tuple(
        dataclasses.replace(node, read_bandwidth_bits_per_cycle=WORD_BITS / per_word)
        if isinstance(node, Memory) and node.name == "registers"
        else node
        for node in machine.hierarchy
    )
    return dataclasses.replace(
        machine, hierarchy=registers, vector=dataclasses.replace(machine.vector, cycles_per_op=per_scalar / 2)
    )


def fit() -> tuple[float, float]:
    """(cycles per word loaded, per output or code copied) by least relative error on every other shape.

    Products take the cycle per word that the core's instruction takes; only what is left is fitted.
    """
    machine = with_rates(load_accelerator("mico_riscv"), 1.0, 2.0)  # a cycle per word, a cycle per operation
    features: list[list[float]] = []
    left: list[float] = []
    for kernel in kernels():
        if kernel.shape not in fit_shapes() or (kernel.a_bits, kernel.w_bits) not in FIT_PAIRS:
            continue
        parts = dict(price(kernel.layer(), counts()[kernel.shape], machine).cycles)
        features.append([parts["registers read"] / kernel.cycles, parts["vector"] / 2 / kernel.cycles])
        left.append(1 - parts["compute"] / kernel.cycles)
    solution = np.linalg.lstsq(np.array(features), np.array(left), rcond=None)[0]
    per_word, per_scalar = (float(x) for x in solution)
    return per_word, per_scalar


def fit_shapes() -> frozenset[tuple[int, ...]]:
    """Every other shape, in the table's order."""
    shapes = list(dict.fromkeys(k.shape for k in kernels()))
    return frozenset(shapes[::2])


def study() -> Study:
    """Cycles of the shapes not fitted, all pairs."""
    rates = fit()
    machine = with_rates(load_accelerator("mico_riscv"), *rates)
    rows: list[Row] = []
    for kernel in kernels():
        fitted = kernel.shape in fit_shapes()
        role: Role = "calibration" if fitted and (kernel.a_bits, kernel.w_bits) in FIT_PAIRS else "check"
        if fitted and role == "check":
            role = "context"
        item = f"{'x'.join(map(str, kernel.shape))} a{kernel.a_bits} w{kernel.w_bits}"
        quantity = "cycles, equal widths" if kernel.a_bits == kernel.w_bits else "cycles, mixed widths"
        rows.append(Row(item, quantity, "cycles", float(kernel.cycles), float(cycles(kernel, machine)), role))
    checks = [(row.published, row.ours) for row in rows if row.role == "check"]
    return Study(
        name="mico_riscv",
        title="RISC-V with sub-word products",
        source="MiCo repository: 736 kernels in RTL simulation",
        machine="mico_riscv with two rates fitted on half the shapes",
        rows=tuple(rows),
        calibrated=(
            f"{rates[0]:.2f} cycles per 32-bit word loaded",
            f"{rates[1]:.1f} cycles per output written and per code of a window copied",
            "both from every other shape at 8/8 and 2/2 bits",
        ),
        explanation=(
            f"Rank correlation {rank_correlation(checks):.3f} over the {len(checks)} kernels not fitted. A mixed pair "
            "computes at the wider operand's width and loads at the sum of both; that is why it gains at all. Worst "
            "are the smallest kernels, whose loop and call overheads two rates cannot express."
        ),
    )
