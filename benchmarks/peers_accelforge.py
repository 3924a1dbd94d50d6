"""Fused schedules beside AccelForge's fast and fusiest mapper: least bits through the outer of two memories.

Both get the same chains of convolutions (8 bits, windows inside the map, stride 1), the same buffer, and a machine on
which such a bit costs 1 and nothing else counts. AccelForge answers under its own accounting; so do we. Our constants
(a scale per layer) are no bits that it knows, so they are left out of values and bounds.

    python -m benchmarks.peers_accelforge --python PYTHON-WITH-ACCELFORGE [--out results/fused_peer.csv]
    python -m benchmarks.peers_accelforge --again results/fused_peer.csv --out results/fused_peer.csv

The second takes the peer's answers from an earlier file and searches with ours anew. Ends with the table of
docs/search_results.md.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import itertools
import json
import math
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from hwsim.files.csv_text import csv_text
from hwsim.machine.load import load_accelerator
from hwsim.machine.parts import Accelerator, Memory
from hwsim.network.layer import Layer, Loops, Tensor
from hwsim.network.workload import Workload
from hwsim.pricing.network import NetworkCost
from hwsim.report.evaluation import Request, evaluate_workload
from hwsim.search.network import planned, search_network

PEERS = Path(__file__).parent / "peers"
Layers = tuple[tuple[str, int], ...]  # kind, output channels; depthwise keeps its channels
BLOCK: Layers = (("pointwise", 144), ("depthwise", 144), ("pointwise", 24))
CASES: dict[str, tuple[int, int, Layers]] = {  # size of the map, channels, layers
    "two 1x1": (16, 16, (("pointwise", 64), ("pointwise", 16))),
    "two 3x3": (18, 8, (("full", 16), ("full", 8))),
    "inverted residual": (30, 24, BLOCK),
    "two inverted residuals": (32, 24, BLOCK * 2),
}
KIBIBYTES = (2, 4, 8, 16, 32, 64)
WAYS = ("layer by layer", "fused")
Answers = dict[tuple[str, int], dict[str, list[float | None]]]  # case and KiB -> way -> [bits, CPU seconds]
COLUMNS = (
    "case", "buffer_kib", "way", "accelforge_bits", "hwsim_bits", "hwsim_bound_bits", "accelforge_cpu_s", "hwsim_cpu_s",
)  # fmt: skip


def network(name: str) -> Workload:
    """A case as our network."""
    size, channels, layers = CASES[name]
    x, found = Tensor("T0", (1, channels, size, size), 8, signed=True), list[Layer]()
    for i, (kind, wide) in enumerate(layers, start=1):
        taps, groups = (1 if kind == "pointwise" else 3), channels if kind == "depthwise" else 1
        size -= taps - 1
        weight = Tensor(f"W{i}", (wide, channels // groups, taps, taps), 8, signed=True)
        made = Tensor(f"T{i}", (1, wide, size, size), 8, signed=True)
        loops = Loops(N=1, G=groups, K=wide // groups, C=channels // groups, P=size, Q=size, R=taps, S=taps)
        found.append(Layer(f"L{i}", "conv", (x,), made, weight, loops))
        x, channels = made, wide
    return Workload(name, found)


def einsums(name: str) -> str:
    """A case as AccelForge's workload."""
    size, channels, layers = CASES[name]
    ranks, parts = {"P0": size, "Q0": size, "C0": channels}, list[str]()
    for i, (kind, wide) in enumerate(layers, start=1):
        taps = 1 if kind == "pointwise" else 3
        size -= taps - 1
        ranks |= {f"P{i}": size, f"Q{i}": size, f"C{i}": wide}
        window = f" + r{i}", f" + s{i}"
        rows, columns = window if taps > 1 else ("", "")
        read = f"c{i}" if kind == "depthwise" else f"c{i - 1}"
        taken = [*([f"r{i}", f"s{i}"] if taps > 1 else []), *dict.fromkeys([read, f"c{i}"])]
        parts.append(
            f"  - name: L{i}\n    tensor_accesses:\n"
            f"    - name: T{i - 1}\n"
            f"      projection: {{P{i - 1}: p{i}{rows}, Q{i - 1}: q{i}{columns}, C{i - 1}: {read}}}\n"
            f"    - {{name: W{i}, projection: [{', '.join(taken)}]}}\n"
            f"    - {{name: T{i}, projection: [p{i}, q{i}, c{i}], output: True}}\n"
            + (f"    iteration_space_shape: [0 <= r{i} < 3, 0 <= s{i} < 3]\n" if taps > 1 else "")
            + f"    renames: {{input: T{i - 1}, output: T{i}, weight: W{i}}}\n"
        )
    sizes = "".join(f"    {rank}: {n}\n" for rank, n in ranks.items())
    return (
        f"workload:\n  rank_sizes:\n{sizes}  bits_per_value: {{All: 8}}\n"
        f"  persistent_tensors: weight - Intermediates\n  einsums:\n{''.join(parts)}"
    )


def machine(kibibytes: int) -> Accelerator:
    """Our two memories with such a buffer."""
    found = load_accelerator(str(PEERS / "two_levels.yaml"))
    nodes = tuple(
        dataclasses.replace(node, size_bits=kibibytes * 8192)
        if isinstance(node, Memory) and node.name == "buffer"
        else node
        for node in found.hierarchy
    )
    return dataclasses.replace(found, hierarchy=nodes)


def outer_bits(cost: NetworkCost, *, constants: bool = False) -> int:
    """Bits of maps and weights through the outer memory, or those of the layers' constants."""
    moved = [m for layer in cost.layers for m in layer.moved if m.memory == "dram"]
    moved = [m for m in moved if (m.operand == "parameters") == constants]
    return sum((m.read_words + m.write_words) * m.word_bits for m in moved)


def ours(name: str, kibibytes: int) -> dict[str, tuple[int, float, float]]:
    """Way -> (bits, bound, CPU seconds)."""
    workload, accelerator = network(name), machine(kibibytes)
    began = time.process_time()
    found = search_network(workload, accelerator, "energy", effort="auto")
    alone = planned(workload, accelerator, found, frozenset())
    bound = sum(each.certificate.lower_bound for each in found.values())
    middle = time.process_time()
    report = evaluate_workload(workload, accelerator, Request(fuse=True))
    assert report.certificate is not None
    seconds = middle - began, time.process_time() - middle
    costs, bounds = (alone.cost, report.cost), (bound, report.certificate.lower_bound)
    return {
        way: (outer_bits(cost), lower - outer_bits(cost, constants=True), spent)
        for way, cost, lower, spent in zip(WAYS, costs, bounds, seconds, strict=True)
    }


def theirs(name: str, kibibytes: int, python: str, folder: Path) -> dict[str, list[float | None]]:
    """Way -> [bits, CPU seconds]."""
    path = folder / "workload.yaml"
    path.write_text(einsums(name))
    asked = {
        "arch": str(PEERS / "accelforge_two_levels.yaml"), "workload": str(path), "buffer_bits": kibibytes * 8192,
    }  # fmt: skip
    worker = [python, str(PEERS / "accelforge_worker.py")]
    done = subprocess.run(worker, input=json.dumps(asked), capture_output=True, text=True, check=True, cwd=folder)
    return json.loads(done.stdout.splitlines()[-1])


def rows_of(path: Path) -> list[dict[str, str]]:
    """Rows of an earlier run."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def recorded(path: Path) -> Answers:
    """The peer's answers in a file of rows."""
    found: Answers = {}
    for row in rows_of(path):
        answer = [float(row[key]) if row[key] else None for key in ("accelforge_bits", "accelforge_cpu_s")]
        found.setdefault((row["case"], int(row["buffer_kib"])), {})[row["way"]] = answer
    return found


def table(rows: Sequence[dict[str, str]]) -> list[str]:
    """Lines of the table in docs/search_results.md: kbit of fused schedules, theirs / ours, and CPU seconds."""
    fused = {(row["case"], int(row["buffer_kib"])): row for row in rows if row["way"] == "fused"}
    lines = [
        "| kbit, AccelForge / hwsim | " + " | ".join(f"{kib} KiB" for kib in KIBIBYTES) + " | bound | CPU s |",
        "|---" * (len(KIBIBYTES) + 3) + "|",
    ]
    for case in CASES:
        mine = [fused[case, kib] for kib in KIBIBYTES]
        values = [f"{int(r['accelforge_bits']) / 1e3:,.0f} / {int(r['hwsim_bits']) / 1e3:,.0f}" for r in mine]
        spent = [sum(float(r[key]) for r in mine) for key in ("accelforge_cpu_s", "hwsim_cpu_s")]
        bound = max(int(r["hwsim_bound_bits"]) for r in mine) / 1e3
        lines.append(f"| {case} | {' | '.join(values)} | {bound:,.0f} | {spent[0]:.0f} / {spent[1]:.1f} |")
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the rows, and write them where asked."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    peer_of = parse.add_mutually_exclusive_group(required=True)
    peer_of.add_argument("--python", help="an interpreter with accelforge")
    peer_of.add_argument("--again", type=Path, metavar="CSV", help="the peer's answers of an earlier run")
    parse.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parse.add_argument("--out", type=Path, help="CSV file")
    options = parse.parse_args(arguments)
    known = recorded(options.again) if options.again else {}
    rows: list[list[object]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, kibibytes in itertools.product(options.cases, KIBIBYTES):
            peer = known.get((name, kibibytes)) or theirs(name, kibibytes, options.python, Path(folder))
            for way, (bits, bound, seconds) in ours(name, kibibytes).items():
                value, spent = peer[way]
                row = [name, kibibytes, way, value and int(value), bits, math.floor(bound), spent, round(seconds, 1)]
                rows.append(row)
                print(*row, sep="\t", flush=True)
    if options.out is not None:
        with options.out.open("w", newline="", encoding="utf-8") as file:
            file.write(csv_text([COLUMNS, *rows]))
        print(*table(rows_of(options.out)) if options.cases == list(CASES) else (), sep="\n")


if __name__ == "__main__":
    main()
