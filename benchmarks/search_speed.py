"""How long the mapping search takes, by part, beside what public tools need for the same layers.

    python -m benchmarks.search_speed [--spec eyeriss_v1] [--network resnet18] [--proven S] [--repeat N]

CPU seconds of one process, cache off. The quick search is timed in its parts (unrollings, chains, exact prices); with
`--proven S` every distinct layer also gets certified searches of at most S seconds, and the proven gap is printed.
Every network on every spec: `benchmarks.certificates`.
Peers' figures are CPU seconds measured on the same layers by this project's study (ZigZag 3.9.1, AccelForge 1.0.467,
both installed from PyPI, 2026-11): they are printed for comparison, not measured again here.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import statistics
import time

from benchmarks.networks import NETWORKS, layers
from hwsim.machine.load import load_accelerator
from hwsim.machine.parts import Accelerator
from hwsim.network.layer import Layer
from hwsim.search.cache import ENVIRONMENT
from hwsim.search.layer import Pricing, search
from hwsim.search.objective import Objective
from hwsim.search.proof.certify import certified_search
from hwsim.search.quick.candidates import remembered
from hwsim.search.result import Effortful, Found
from hwsim.search.space.problem import Problem

PEERS = {
    "resnet18": "ZigZag 28-35 CPU s (7,200-7,380 mappings, no certificate); AccelForge 118 CPU s for one 3x3 layer",
    "mobilenet_v2": "ZigZag 15-66 CPU s (3,660-20,340 mappings, no certificate)",
}


def parts(todo: list[Layer], machine: Accelerator) -> dict[str, float]:
    """Share of the quick search's time by part, from a profile (which slows everything alike)."""
    profile = cProfile.Profile()
    profile.enable()
    for layer in todo:
        search(layer, machine)
    profile.disable()
    spent = {}
    for (_, _, function), (_, _, _, cumulative, _) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        if function in ("search", "unrollings", "promising", "solve_rows", "count_accesses", "price", "validate"):
            spent[function] = spent.get(function, 0.0) + cumulative
    return {name: seconds / spent["search"] for name, seconds in spent.items() if name != "search"}


def main() -> None:
    parse = argparse.ArgumentParser(description="How long the mapping search takes, by part.")
    parse.add_argument("--spec", default="eyeriss_v1")
    parse.add_argument("--network", default="resnet18", choices=NETWORKS)
    parse.add_argument("--bits", type=int, default=8)
    parse.add_argument("--objective", default="energy", choices=("energy", "latency", "edp"))
    parse.add_argument("--proven", type=float, metavar="S", help="also certify, S seconds per layer at most")
    parse.add_argument("--repeat", type=int, default=5)
    options = parse.parse_args()
    os.environ[ENVIRONMENT] = ""
    spec, network = options.spec, options.network
    machine, todo = load_accelerator(spec), layers(network, options.bits)
    times: list[float] = []
    found: list[Found] = []
    for _ in range(options.repeat):
        remembered.cache_clear()
        began = time.process_time()
        found = [search(layer, machine, options.objective) for layer in todo]
        times.append(time.process_time() - began)
    covered = sum(f.certificate.covered for f in found)
    print(f"{network} on {spec}, W{options.bits}A{options.bits}, {len(todo)} distinct layers")
    print(f"quick: median {statistics.median(times):.3f} CPU s of {options.repeat} (best {min(times):.3f})")
    print(f"       {covered:,} lattice points covered, {covered / min(times):,.0f}/s")
    print("parts: " + ", ".join(f"{name} {100 * share:.0f} %" for name, share in parts(todo, machine).items()))
    print(f"peers: {PEERS.get(network, 'not measured')}")
    if options.proven:
        for effort in ("perfect", "proven"):
            print_proofs(todo, found, machine, options.objective, effort, options.proven, options.repeat)


def print_proofs(
    todo: list[Layer],
    found: list[Found],
    machine: Accelerator,
    objective: Objective,
    effort: Effortful,
    seconds: float,
    repeat: int,
) -> None:
    """A line per layer, then the sums: the whole search, and the proof alone without the quick search."""
    print(f"{effort}:")
    whole = alone = 0.0
    for layer, quick in zip(todo, found, strict=True):
        times = [proof_seconds(layer, machine, objective, effort == "proven", seconds) for _ in range(repeat)]
        mine = statistics.median(times)
        began = time.process_time()
        c = search(layer, machine, objective, effort=effort, time_limit_s=seconds).certificate
        spent = time.process_time() - began
        whole, alone = whole + spent, alone + mine
        above = 100 * (quick.certificate.value / c.value - 1)
        print(
            f"  {layer.name:16s} {spent:7.2f} CPU s, proof alone {mine:.2f}  gap {100 * c.gap:6.3f} %  "
            f"{'ended' if c.exhaustive else 'time limit'}  quick was {above:.2f} % above"
        )
    print(f"  {whole:.2f} CPU s in all, proofs alone {alone:.2f} (median of {repeat})")


def proof_seconds(layer: Layer, machine: Accelerator, objective: Objective, remainders: bool, seconds: float) -> float:
    """CPU seconds of a proof that finds its own mappings."""
    began = time.process_time()
    pricing = Pricing(Problem(layer, machine), objective)
    hunt = certified_search(Problem(layer, machine), objective, pricing.value, remainders)
    if hunt is not None:
        hunt.run(0.0, time.perf_counter() + seconds)
    return time.process_time() - began


if __name__ == "__main__":
    main()
