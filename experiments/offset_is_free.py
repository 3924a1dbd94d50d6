"""`python -m experiments.offset_is_free`: what LSQ+'s offset costs, per padding policy, precision and accelerator.

Prices silu_se_net (SiLU, depthwise, squeeze-excite, configuration 4) with each padding policy, without any offset, and,
for contrast, with asymmetric weights, which need the sum of the input codes per output. One CSV row per machine, bits
and policy: percent more energy, latency and memory than the same network without offsets, and the offset classes.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from experiments import table
from experiments.tables import markdown
from hwsim.errors import HwsimError
from hwsim.frontends.torch_export import extract
from hwsim.machine.load import load_accelerator
from hwsim.machine.parts import Accelerator
from hwsim.network.layer import Layer, Tensor
from hwsim.network.workload import Workload
from hwsim.pricing.network import NetworkCost
from hwsim.search.network import plan_network, planned
from hwsim.search.result import Found
from quant import models
from quant.convert import quantize
from quant.spec import PADDING_POLICIES

TABLE = Path("experiments/data/offset_is_free.csv")
MACHINES = ("eyeriss_v1", "gemmini_16x16", "bit_fusion", "nvdla_small", "tpu_v1", "cortex_m7")
BITS = (2, 4, 8)
VARIANTS = ("no_offset", *PADDING_POLICIES, "asymmetric_weights")


def workload(bits: int) -> Workload:
    """The network at WbAb, configuration chosen by graph context (4 behind SiLU)."""
    model, _ = quantize(
        models.create("silu_se_net"), weight_bits=bits, act_bits=bits, first_last="8bit", padding_policy="border_bias"
    )
    shape = (1, *models.info("silu_se_net").input_shape_for())
    return extract(model, torch.zeros(shape), name=f"silu_se_net W{bits}A{bits}")


def variant(base: Workload, name: str) -> Workload:
    """The workload under one policy; `no_offset` drops every beta, `asymmetric_weights` also gives weights one."""

    def change(layer: Layer) -> Layer:
        if name in PADDING_POLICIES and any(layer.padding):
            return dataclasses.replace(layer, padding_policy=name)
        if name == "asymmetric_weights" and layer.weight is not None and not layer.weight_is_activation:
            return dataclasses.replace(layer, weight=dataclasses.replace(layer.weight, offset=True))
        return layer

    found = Workload(base.name, (change(layer) for layer in base), base.coverage, base.notes)
    if name == "no_offset":
        found = found.map_tensors(without_offset)
    return found


def without_offset(tensor: Tensor) -> Tensor:
    """The operand without beta."""
    return dataclasses.replace(tensor, offset=False)


def measures(cost: NetworkCost) -> dict[str, float]:
    """Energy, latency, and memory: weights, peak activations, and the largest buffer that any layer's offset needs."""
    totals = cost.totals
    # Folded and border biases are among the weights already; borders and sums live as long as their layer runs.
    buffers = [c.offset.extra_bits for c in cost.layers if c.offset.kind in ("padded_copy", "dynamic")]
    stored = max(buffers, default=0)
    return {
        "energy_pj": totals.energy_pj,
        "latency_cycles": float(totals.latency_cycles),
        "memory_bits": float(totals.weight_bits + totals.peak_activation_bits + stored),
    }


def rows(machine: Accelerator, bits: Sequence[int]) -> Iterator[dict[str, Any]]:
    """One row per precision and variant, all under the mappings found without offsets; a refusal is a row too.

    An offset adds the same work under every mapping, so it does not change which mapping is best.
    """
    for b in bits:
        base = workload(b)
        found: Mapping[str, Found] = {}
        free: dict[str, float] = {}
        for name in VARIANTS:
            row: dict[str, Any] = {"machine": machine.name, "bits": f"W{b}A{b}", "variant": name}
            try:
                found = found or plan_network(variant(base, name), machine).found
                cost = planned(variant(base, name), machine, found).cost
            except HwsimError as problem:
                yield {**row, "status": str(problem).splitlines()[0]}
                continue
            values = measures(cost)
            free = free or values
            classes = Counter(c.offset.kind for c in cost.layers if c.mac_mode)
            yield {
                **row,
                "status": "ok",
                **values,
                **{f"{k.rsplit('_', 1)[0]}_percent": round(100 * (values[k] / free[k] - 1), 4) for k in values},
                "classes": " ".join(f"{kind}:{count}" for kind, count in sorted(classes.items())),
            }


def page(data: Sequence[table.Row]) -> str:
    """The table of docs/integer.md: percent more energy / latency / memory than without offsets."""
    lines: list[list[str]] = []
    for (machine, bits), members in table.group(data, "machine", "bits").items():
        cells: list[str] = []
        for name in VARIANTS[1:]:
            row = next((r for r in members if r["variant"] == name and r["status"] == "ok"), None)
            three = [row[f"{what}_percent"] for what in ("energy", "latency", "memory")] if row else []
            cells.append(" / ".join(f"{float(v):.1f}" for v in three) or "refused")
        lines.append([f"`{machine}`", bits, *cells])
    return markdown(("machine", "bits", *(v.replace("_", " ") for v in VARIANTS[1:])), lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the CSV and print the percentages."""
    parser = argparse.ArgumentParser(prog="python -m experiments.offset_is_free", description=__doc__)
    parser.add_argument("--machines", nargs="+", default=list(MACHINES))
    parser.add_argument("--bits", nargs="+", type=int, default=list(BITS))
    parser.add_argument("--out", type=Path, default=TABLE)
    given = parser.parse_args(arguments)
    for name in given.machines:
        for row in rows(load_accelerator(name), given.bits):
            row["key"] = f"{row['machine']} {row['bits']} {row['variant']}"
            table.append(given.out, [row], key="key")
            if row["status"] != "ok":
                print(f"{row['key']}: refused: {row['status']}", flush=True)
                continue
            print(
                f"{row['key']:45s} energy {row['energy_percent']:+8.3f} %  latency {row['latency_percent']:+8.3f} %  "
                f"memory {row['memory_percent']:+8.3f} %  {row['classes']}",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
