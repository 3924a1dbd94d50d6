"""`python -m experiments.offset_lifetimes`: an offset's price where tensors on chip stay whole or are freed by rows.

Prices a SiLU network at W4A4 without an offset (configuration 1) and with each padding policy of configuration 4, with
the plan that is best for each: homes of tensors and mappings chosen together, bounded. One CSV row per machine,
lifetimes and policy: energy, percent above configuration 1, gap of the certificate, tensors that stay.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from experiments import table
from experiments.tables import markdown
from hwsim.command_line import load_model
from hwsim.errors import HwsimError
from hwsim.machine.load import load_accelerator
from hwsim.machine.parts import Accelerator
from hwsim.network.bits import assign_bits
from hwsim.network.workload import Workload
from hwsim.pricing.lifetimes import parse_lifetimes
from hwsim.search.network import plan_network
from quant.spec import PADDING_POLICIES

TABLE = Path("experiments/data/offset_lifetimes.csv")
NETWORK = "networks/cifar10_silu_float"
MACHINES = ("eyeriss_v1", "eyeriss_v2", "gemmini_16x16", "ethos_u55_256", "bit_fusion", "stripes", "t4", "tpu_v1")
LIFETIMES = ("whole", "borders", "rows")


def variants(network: Workload, bits: str) -> Iterator[tuple[str, Workload]]:
    """Configuration 1, then configuration 4 under every policy."""
    yield "no_offset", assign_bits(network, {"default": bits, "config": 1})
    for policy in PADDING_POLICIES:
        yield policy, assign_bits(network, {"default": bits, "config": 4, "padding_policy": policy})


def rows(machine: Accelerator, network: Workload, bits: str, lifetimes: str) -> Iterator[dict[str, Any]]:
    """One row per policy; a refusal is a row too."""
    without: float | None = None
    for name, workload in variants(network, bits):
        row: dict[str, Any] = {"machine": machine.name, "bits": bits, "lifetimes": lifetimes, "policy": name}
        row["key"] = " ".join(row.values())
        try:
            plan = plan_network(workload, machine, effort="auto", lifetimes=parse_lifetimes(lifetimes))
        except HwsimError as problem:
            yield {**row, "status": str(problem).splitlines()[0]}
            continue
        totals, known = plan.cost.totals, plan.certificate
        assert known is not None
        without = totals.energy_pj if without is None else without
        yield {
            **row,
            "status": "ok",
            "energy_pj": totals.energy_pj,
            "latency_cycles": totals.latency_cycles,
            "percent": round(100 * (totals.energy_pj / without - 1), 4),
            "gap": f"{known.gap:.2e}",
            "resident": len(plan.cost.resident),
            "outermost_traffic_bits": totals.outermost_traffic_bits,
        }


def page(data: Sequence[table.Row]) -> str:
    """The table of docs/results.md: percent more energy than configuration 1, by lifetimes."""
    lines: list[list[str]] = []
    for (machine, lifetimes), members in table.group(data, "machine", "lifetimes").items():
        found = {row["policy"]: row for row in members if row["status"] == "ok"}
        cells = [f"{float(found[p]['percent']):+.1f}" if p in found else "refused" for p in PADDING_POLICIES]
        lines.append([f"`{machine}`", lifetimes, *cells])
    return markdown(("machine", "lifetimes", *(f"`{policy}`" for policy in PADDING_POLICIES)), lines)


BLOCKS: dict[str, Callable[[], str]] = {"offset-lifetimes": lambda: page(table.read(TABLE))}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the CSV and print each row."""
    parser = argparse.ArgumentParser(prog="python -m experiments.offset_lifetimes", description=__doc__)
    parser.add_argument("--machines", nargs="+", default=list(MACHINES))
    parser.add_argument("--lifetimes", nargs="+", default=list(LIFETIMES))
    parser.add_argument("--network", default=NETWORK)
    parser.add_argument("--bits", default="W4A4")
    parser.add_argument("--out", type=Path, default=TABLE)
    given = parser.parse_args(arguments)
    network = load_model(given.network, None, False)
    for name in given.machines:
        for lifetimes in given.lifetimes:
            for row in rows(load_accelerator(name), network, given.bits, lifetimes):
                table.append(given.out, [row], key="key")
                said = f"{row['percent']:+8.3f} %  gap {row['gap']}" if row["status"] == "ok" else row["status"]
                print(f"{row['key']:50s} {said}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
