"""NVIDIA A100 (80 GB): 93 measured steps of decode attention in bf16, one new token per sequence over its cache.

Two numbers are fitted, both on every other row: the time to start the kernel and the share of the memory's peak rate
that it reaches. A kernel does scores, softmax and the sum of values at once, so its scores stay on chip.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.optimize import minimize

from experiments.validation.rows import Row, Study, read_table
from hwsim.machine.load import load_accelerator
from hwsim.machine.parts import Operand
from hwsim.network.layer import Layer, Loops, Tensor
from hwsim.pricing.layer import price
from hwsim.search.layer import search

BITS = 16
PEAK_GBPS = 2039


@dataclass(frozen=True)
class Step:
    """One row of the table, and what our machine needs of its memory for it at the full rate."""

    batch: int
    heads: int
    kv_heads: int
    width: int
    past: int
    measured_us: float

    @property
    def item(self) -> str:
        """batch x heads / KV heads x tokens in the cache."""
        return f"{self.batch} x {self.heads}/{self.kv_heads} heads x {self.past}"

    @property
    def cache_us(self) -> float:
        """Keys and values of all sequences, once, at the peak rate of the memory."""
        elements = 2 * self.batch * self.kv_heads * (self.past + 1) * self.width
        return elements * BITS / 8 / (PEAK_GBPS * 1e3)

    def layers(self) -> tuple[Layer, Layer]:
        """Queries times keys, and shares times values: every KV head serves its queries at once."""
        groups, rows, keys = self.batch * self.kv_heads, self.heads // self.kv_heads, self.past + 1
        return (
            product("scores", groups, rows, keys, self.width, self.kv_heads),
            product("context", groups, rows, self.width, keys, self.kv_heads),
        )


def product(name: str, groups: int, rows: int, out: int, depth: int, heads: int) -> Layer:
    """`groups` products of (rows, depth) and (depth, out), whose second factor is an activation."""
    keys, width = (out, depth) if name == "scores" else (depth, out)
    return Layer(
        name,
        "matmul",
        (Tensor(f"{name}.in", (groups, rows, depth), BITS),),
        Tensor(f"{name}.out", (groups, rows, out), BITS),
        Tensor(f"{name}.cache", (groups // heads, heads, keys, width), BITS),
        Loops(N=rows, G=groups, K=out, C=depth),
        weight_is_activation=True,
    )


@lru_cache(maxsize=1)
def steps() -> tuple[tuple[Step, float], ...]:
    """Every row with the time (us) of its two products at the memory's peak rate, scores on chip, without a start."""
    shipped = load_accelerator("a100")
    outer = shipped.outermost
    assert outer.read_bandwidth_bits_per_cycle is not None
    full = dataclasses.replace(outer, read_bandwidth_bits_per_cycle=PEAK_GBPS * 8e3 / shipped.clock_mhz, efficiency=1.0)
    machine = dataclasses.replace(shipped, hierarchy=(full, *shipped.hierarchy[1:]), layer_overhead_cycles=0)
    found: list[tuple[Step, float]] = []
    for row in read_table("gpu_decode_attention_measured.csv"):
        sizes = (int(row[k]) for k in ("batch_size", "num_heads", "num_key_value_heads", "head_dim", "past_tokens"))
        batch, heads, kv_heads, width, past = sizes
        step = Step(batch, heads, kv_heads, width, past, 1e3 * float(row["latency_ms"]))
        cycles = 0
        for layer in step.layers():
            scores = layer.name == "scores"
            stays: dict[Operand, str] = {"output": layer.output.name} if scores else {"input": layer.inputs[0].name}
            counts = search(layer, machine, "latency", effort="quick").counts
            cost = price(layer, counts, machine, resident=stays)
            cycles += max(busy for port, busy in cost.cycles if port.startswith(outer.name))
        found.append((step, cycles / machine.clock_mhz))
    return tuple(found)


def fit(rows: tuple[tuple[Step, float], ...]) -> tuple[float, float]:
    """(start in us, share of the memory's peak, at most all of it) of least mean relative error on some rows."""
    ideal = np.array([us for _, us in rows])
    measured = np.array([step.measured_us for step, _ in rows])

    def error(constants: np.ndarray) -> float:
        start, share = constants
        return float(np.mean(np.abs((start + ideal / share) / measured - 1))) if 0 < share <= 1 else np.inf

    found = [minimize(error, (start, 0.8), method="Nelder-Mead") for start in (8.0, 17.0)]
    best = found[int(np.argmin([result.fun for result in found]))].x
    return round(float(best[0]), 1), round(float(best[1]), 3)


def study() -> Study:
    """Latency of every row that was not fitted."""
    all_rows = steps()
    start, share = fit(all_rows[::2])
    rows = tuple(
        Row(
            step.item,
            "latency",
            "us",
            step.measured_us,
            start + us / share,
            "check" if index % 2 else "calibration",
        )
        for index, (step, us) in enumerate(all_rows)
    )
    beyond = [step for step, _ in all_rows if step.cache_us > step.measured_us]
    single = [abs(row.error) for row, (step, _) in zip(rows, all_rows, strict=True) if step.heads == 64 * step.kv_heads]
    return Study(
        name="a100_decode",
        title="A100, decode attention",
        source="ai-dynamo/aiconfigurator @095f58a51: TensorRT-LLM 1.0.0, A100-SXM4-80GB (silicon), launch included",
        machine="a100 with two constants of the kernel",
        rows=rows,
        calibrated=(f"{start:g} us to start and {100 * share:.1f} % of {PEAK_GBPS:,} GB/s, both on every other row",),
        explanation=(
            f"{len(beyond)} of {len(all_rows)} rows took less time than the memory at its peak needs to read their "
            f"keys and values once. All have {shared(beyond)} KV heads, and no law of traffic reaches them. Rows with "
            f"64 queries of a single KV head have a mean error of {100 * sum(single) / len(single):.0f} %. They run in "
            "another kernel, which takes many times as long as reading the cache."
        ),
    )


def shared(found: list[Step]) -> str:
    """The numbers of KV heads among rows, in words."""
    return " or ".join(str(n) for n in sorted({step.kv_heads for step in found}))
