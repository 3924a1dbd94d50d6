"""Our search beside ZigZag's on its own two example machines: one layer, one run, both times.

    python -m benchmarks.peers_zigzag --peer-python PATH [--engine loma|salsa] [--lpf 6] [--machines ...]

PATH is the Python of an environment with `zigzag-dse` and the package `six` that it needs without saying so. Without
the peer only our side runs, beside the best energies that a study of the peer recorded. The machines are
benchmarks/peers/*.yaml: its memories, prices and unrollings. Its accounting, in the terms of a spec: weights and inputs
that stay at a port are no access (`latches`), sums are read and written at every step; a memory moves whole words of
its smallest width (`word_bits`). It brings only real pixels from the DRAM where ours counts the border too: the
border's share, once, is taken off ours.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import subprocess
import time
from pathlib import Path

from experiments.validation.networks import conv
from hwsim.machine.load import load_accelerator
from hwsim.machine.parts import Accelerator
from hwsim.nest.mapping import Temporal
from hwsim.network.layer import Layer
from hwsim.search.cache import ENVIRONMENT
from hwsim.search.layer import search
from hwsim.search.result import Found

FOLDER = Path(__file__).resolve().parent / "peers"
MACHINES = ("tpu_like", "eyeriss_like")
# pJ: the best of all its searches in the study (LOMA with 3 to 8 factors, four runs of its annealer).
RECORDED = {"tpu_like": 57.967e6, "eyeriss_like": 705.122e6}
SIZE, CHANNELS = 28, 128


def layer() -> Layer:
    """128 x 128 channels, 28 x 28 outputs, 3x3, stride 1, padding 1, without a bias."""
    return dataclasses.replace(conv("layer", CHANNELS, CHANNELS, SIZE, 3, bits=(8, 8, 8)), bias=False)


def border_pj(found: Found, machine: Accelerator) -> float:
    """pJ that the border of the input costs on its way from the DRAM, where every input is brought once.

    0 where inputs are brought more than once: the correction must never flatter us.
    """
    dram, first = machine.memories[0], machine.memories[1]
    real, all_ = CHANNELS * SIZE**2, CHANNELS * (SIZE + 2) ** 2
    if found.counts.reads(dram.name, "input") != all_ or found.counts.writes(first.name, "input") != all_:
        return 0.0
    per_bit = dram.read_energy_pj / dram.word_bits + first.write_energy_pj / first.word_bits
    return (all_ - real) * 8 * per_bit


def partial_words_pj(found: Found, machine: Accelerator) -> float:
    """At most what rounding up to whole words at every transfer adds, where ours rounds once per layer.

    One word more per transfer and side, unless a transfer's mean size is whole words already. Transfers: iterations of
    all temporal loops outside the place that is filled.
    """
    memories = {memory.name: memory for memory in machine.memories}
    instances, extra = dict(found.counts.instances), 0.0
    for operand, bits in (("weight", 8), ("input", 8), ("output", 16)):
        holders = [m for m in memories if found.mapping.hold_index(m, operand) is not None]
        for parent, child in zip(holders, [*holders[1:], None], strict=True):
            place = None if child is None else found.mapping.hold_index(child, operand)
            loops = found.mapping.nodes[:place]
            transfers = math.prod(node.factor for node in loops if isinstance(node, Temporal))
            for name in (parent, child) if child is not None else (parent,):
                memory, times = memories[name], transfers * instances[name]
                if memory.word_bits <= bits:
                    continue  # a word holds one element
                for count, energy in (
                    (found.counts.reads(name, operand), memory.read_energy_pj),
                    (found.counts.writes(name, operand), memory.write_energy_pj),
                ):
                    inwards = operand == "output" or (energy == memory.read_energy_pj) == (name == parent)
                    if count and inwards and count * bits % (times * memory.word_bits):
                        extra += times * energy
    return extra


def peer(python: str, machine: str, engine: str, lpf: int) -> dict[str, float] | str:
    """Its answer; or why there is none."""
    command = [python, str(FOLDER / "zigzag_worker.py"), machine, engine, str(lpf)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as problem:
        return f"not installed: {python}: {problem.strerror}"
    if done.returncode:
        why = done.stderr.strip().splitlines()[-1:] or ["no message"]
        return f"not installed, or it failed: {why[0]}"
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    parse = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parse.add_argument("--peer-python", help="Python of an environment with zigzag-dse and six")
    parse.add_argument("--engine", default="loma", choices=("loma", "salsa"))
    parse.add_argument("--lpf", type=int, default=6, help="its limit of temporal factors (6 is its default)")
    parse.add_argument("--machines", nargs="+", default=MACHINES, choices=MACHINES)
    parse.add_argument("--time-limit", type=float, default=300.0, help="seconds for our proof")
    options = parse.parse_args()
    os.environ[ENVIRONMENT] = ""
    for name in options.machines:
        machine = load_accelerator(FOLDER / f"zigzag_{name}.yaml")
        began = time.process_time()
        found = search(layer(), machine, "energy", effort="perfect", time_limit_s=options.time_limit)
        taken = time.process_time() - began
        ours = found.cost.total_energy_pj - border_pj(found, machine)
        most = ours + partial_words_pj(found, machine)
        gap = f"gap {100 * found.certificate.gap:.3g} %"
        print(f"{name}: ours {ours / 1e6:.3f} M pJ, at most {most / 1e6:.3f} with whole words per transfer, ", end="")
        print(f"{gap}, ", end="")
        print(f"{found.cost.latency_cycles:,} cycles, {taken:.2f} CPU s")
        best = RECORDED[name]
        print(f"  its best recorded: {best / 1e6:.3f} M pJ; ours / its = {ours / best:.4f}, at most {most / best:.4f}")
        if options.peer_python is None:
            print("  the peer is not installed here (--peer-python)")
            continue
        its = peer(options.peer_python, name, options.engine, options.lpf)
        if isinstance(its, str):
            print(f"  the peer is {its}")
            continue
        energy, seconds = its["energy_pj"], its["cpu_s"]
        print(
            f"  its {options.engine} (version {its['version']}, lpf {options.lpf}): {energy / 1e6:.3f} M pJ, ", end=""
        )
        print(f"{its['cycles']:,.0f} cycles, {seconds:.2f} CPU s; ours / its = {ours / energy:.4f}, ", end="")
        print(f"its time / ours = {seconds / taken:.0f}")


if __name__ == "__main__":
    main()
