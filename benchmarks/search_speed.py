"""How long the mapping search takes, by part, beside what public tools need for the same layers.

    python -m benchmarks.search_speed [--spec eyeriss_v1] [--network resnet18] [--proven S] [--repeat N]
    python -m benchmarks.search_speed --table --proven S [--spec A B ...] [--network resnet18 mobilenet_v2 ...]

CPU seconds of one process, cache off. The quick search is timed in its parts (unrollings, chains, exact prices); with
`--proven S` every distinct layer also gets a certified search of at most S seconds, and the proven gap is printed.
`--table` prints one row per network and spec: CPU seconds with the proofs, layers proven, gaps, points covered per s.
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
from collections.abc import Sequence

from hwsim.accelerator import load_accelerator
from hwsim.errors import HwsimError
from hwsim.machine import Accelerator
from hwsim.mapper.cache import ENVIRONMENT
from hwsim.search import Found, Objective, search
from hwsim.workload import Layer, Loops, Tensor

# (name, K, C per group, P = Q, R = S, stride, groups): the distinct MAC layers at 224 x 224, batch 1.
RESNET18 = (
    ("conv1", 64, 3, 112, 7, 2, 1),
    ("64x56 3x3", 64, 64, 56, 3, 1, 1),
    ("128x28 3x3 s2", 128, 64, 28, 3, 2, 1),
    ("128x28 3x3", 128, 128, 28, 3, 1, 1),
    ("128x28 1x1 s2", 128, 64, 28, 1, 2, 1),
    ("256x14 3x3 s2", 256, 128, 14, 3, 2, 1),
    ("256x14 3x3", 256, 256, 14, 3, 1, 1),
    ("256x14 1x1 s2", 256, 128, 14, 1, 2, 1),
    ("512x7 3x3 s2", 512, 256, 7, 3, 2, 1),
    ("512x7 3x3", 512, 512, 7, 3, 1, 1),
    ("512x7 1x1 s2", 512, 256, 7, 1, 2, 1),
    ("fc", 1000, 512, 1, 1, 1, 1),
)
MOBILENET_V2 = (
    ("stem", 32, 3, 112, 3, 2, 1),
    ("dw 32x112", 1, 1, 112, 3, 1, 32),
    ("pw 32-16", 16, 32, 112, 1, 1, 1),
    ("pw 16-96", 96, 16, 112, 1, 1, 1),
    ("dw 96 s2", 1, 1, 56, 3, 2, 96),
    ("pw 96-24", 24, 96, 56, 1, 1, 1),
    ("pw 24-144", 144, 24, 56, 1, 1, 1),
    ("dw 144x56", 1, 1, 56, 3, 1, 144),
    ("pw 144-24", 24, 144, 56, 1, 1, 1),
    ("dw 144 s2", 1, 1, 28, 3, 2, 144),
    ("pw 144-32", 32, 144, 28, 1, 1, 1),
    ("pw 32-192", 192, 32, 28, 1, 1, 1),
    ("dw 192x28", 1, 1, 28, 3, 1, 192),
    ("pw 192-32", 32, 192, 28, 1, 1, 1),
    ("dw 192 s2", 1, 1, 14, 3, 2, 192),
    ("pw 192-64", 64, 192, 14, 1, 1, 1),
    ("pw 64-384", 384, 64, 14, 1, 1, 1),
    ("dw 384x14", 1, 1, 14, 3, 1, 384),
    ("pw 384-64", 64, 384, 14, 1, 1, 1),
    ("pw 384-96", 96, 384, 14, 1, 1, 1),
    ("pw 96-576", 576, 96, 14, 1, 1, 1),
    ("dw 576x14", 1, 1, 14, 3, 1, 576),
    ("pw 576-96", 96, 576, 14, 1, 1, 1),
    ("dw 576 s2", 1, 1, 7, 3, 2, 576),
    ("pw 576-160", 160, 576, 7, 1, 1, 1),
    ("pw 160-960", 960, 160, 7, 1, 1, 1),
    ("dw 960x7", 1, 1, 7, 3, 1, 960),
    ("pw 960-160", 160, 960, 7, 1, 1, 1),
    ("pw 960-320", 320, 960, 7, 1, 1, 1),
    ("head", 1280, 320, 7, 1, 1, 1),
    ("fc", 1000, 1280, 1, 1, 1, 1),
)
# Tokens as output rows; the products of two activations (attention) are left out.
VIT_B_16 = (
    ("patches", 768, 3, 14, 16, 16, 1),
    ("qkv", 2304, 768, (197, 1), 1, 1, 1),
    ("projection", 768, 768, (197, 1), 1, 1, 1),
    ("mlp in", 3072, 768, (197, 1), 1, 1, 1),
    ("mlp out", 768, 3072, (197, 1), 1, 1, 1),
    ("head", 1000, 768, 1, 1, 1, 1),
)
# (expansion, output channels, repeats, stride, kernel) of the blocks of EfficientNet-B0.
B0_BLOCKS = (
    (1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5), (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)  # fmt: skip
Shape = tuple[str, int, int, int | tuple[int, int], int, int, int]


def efficientnet_b0() -> tuple[Shape, ...]:
    """The distinct layers of EfficientNet-B0, squeeze and excitation included."""
    found: list[Shape] = [("stem", 32, 3, 112, 3, 2, 1)]
    channels, size = 32, 112
    for expansion, out, repeats, first_stride, kernel in B0_BLOCKS:
        for i in range(repeats):
            stride, wide, squeezed = first_stride if i == 0 else 1, channels * expansion, max(1, channels // 4)
            if expansion > 1:
                found.append((f"expand {channels}-{wide}", wide, channels, size, 1, 1, 1))
            size //= stride
            found.append((f"dw {wide}x{size} k{kernel} s{stride}", 1, 1, size, kernel, stride, wide))
            found.append((f"squeeze {wide}-{squeezed}", squeezed, wide, 1, 1, 1, 1))
            found.append((f"excite {squeezed}-{wide}", wide, squeezed, 1, 1, 1, 1))
            found.append((f"project {wide}-{out}", out, wide, size, 1, 1, 1))
            channels = out
    found += [("head", 1280, 320, 7, 1, 1, 1), ("fc", 1000, 1280, 1, 1, 1, 1)]
    return tuple({shape[1:]: shape for shape in reversed(found)}.values())


NETWORKS: dict[str, tuple[Shape, ...]] = {
    "resnet18": RESNET18,
    "mobilenet_v2": MOBILENET_V2,
    "efficientnet_b0": efficientnet_b0(),
    "vit_b_16": VIT_B_16,
}
PEERS = {
    "resnet18": "ZigZag 28-35 CPU s (7,200-7,380 mappings, no certificate); AccelForge 118 CPU s for one 3x3 layer",
    "mobilenet_v2": "ZigZag 15-66 CPU s (3,660-20,340 mappings, no certificate)",
}


def layers(network: str, bits: int) -> list[Layer]:
    """The distinct layers of a network at one width."""
    found: list[Layer] = []
    for name, k, c, p, r, stride, groups in NETWORKS[network]:
        rows, columns = p if isinstance(p, tuple) else (p, p)
        padding = 0 if r == stride else r // 2
        height, width = ((n - 1) * stride + r - 2 * padding for n in (rows, columns))
        found.append(
            Layer(
                name=name,
                op="conv",
                inputs=(Tensor("x", (1, c * groups, height, width), bits, signed=False),),
                output=Tensor("y", (1, k * groups, rows, columns), bits),
                weight=Tensor("w", (k * groups, c, r, r), bits),
                loops=Loops(G=groups, K=k, C=c, P=rows, Q=columns, R=r, S=r),
                stride=(stride, stride),
                padding=(padding,) * 4,
            )
        )
    return found


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


def row_of_table(network: str, spec: str, bits: int, objective: Objective, seconds: float) -> str:
    """A row of the table: proofs of all distinct layers of a network on a spec."""
    machine, todo = load_accelerator(spec), layers(network, bits)
    began = time.process_time()
    try:
        found = [search(layer, machine, objective, effort="proven", time_limit_s=seconds) for layer in todo]
    except HwsimError as problem:
        return f"| {network} | {spec} | {problem} |"
    spent = time.process_time() - began
    gaps = [f.certificate.gap for f in found]
    covered, priced = (sum(getattr(f.certificate, name) for f in found) for name in ("covered", "priced"))
    proven = sum(f.certificate.exhaustive for f in found)
    return (
        f"| {network} | {spec} | {spent:.2f} | {proven}/{len(todo)} | {100 * statistics.median(gaps):.3f} % "
        f"| {100 * max(gaps):.3f} % | {covered / spent:,.0f} | {priced} |"
    )


def table(networks: Sequence[str], specs: Sequence[str], bits: int, objective: Objective, seconds: float) -> None:
    """Proofs of networks on specs, printed row by row."""
    print("| network | spec | CPU s | proven | median gap | largest gap | points covered/s | priced |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for network in networks:
        for spec in specs:
            print(row_of_table(network, spec, bits, objective, seconds), flush=True)


def main() -> None:
    parse = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parse.add_argument("--spec", default=["eyeriss_v1"], nargs="+")
    parse.add_argument("--network", default=["resnet18"], choices=NETWORKS, nargs="+")
    parse.add_argument("--table", action="store_true", help="a row per network and spec, proofs included")
    parse.add_argument("--bits", type=int, default=8)
    parse.add_argument("--objective", default="energy", choices=("energy", "latency", "edp"))
    parse.add_argument("--proven", type=float, metavar="S", help="also certify, S seconds per layer at most")
    parse.add_argument("--repeat", type=int, default=5)
    options = parse.parse_args()
    os.environ[ENVIRONMENT] = ""
    if options.table:
        table(options.network, options.spec, options.bits, options.objective, options.proven or 1.0)
        return
    spec, network = options.spec[0], options.network[0]
    machine, todo = load_accelerator(spec), layers(network, options.bits)
    times: list[float] = []
    found: list[Found] = []
    for _ in range(options.repeat):
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
        total = 0.0
        for layer, quick in zip(todo, found, strict=True):
            began = time.process_time()
            proof = search(layer, machine, options.objective, effort="proven", time_limit_s=options.proven)
            total += time.process_time() - began
            c = proof.certificate
            better = quick.certificate.value / c.value - 1
            print(
                f"  {layer.name:16s} {time.process_time() - began:7.2f} CPU s  gap {100 * c.gap:6.3f} %  "
                f"{'ended' if c.exhaustive else 'time limit'}  quick was {100 * better:.2f} % above"
            )
        print(f"proven: {total:.1f} CPU s in all")


if __name__ == "__main__":
    main()
