"""Gemmini's RTL: 96 runs of given mappings, cycle-accurate on an FPGA, against the same mappings priced here.

Nothing is fitted. Every row brings its loop nest and the sizes of its two memories. A second quantity adds what the
cost model lacks for this machine, from the generator's text: the mesh works in commands of 16 rows, and a layer starts
with an empty scratchpad, so that its first fill hides behind nothing.
"""

from __future__ import annotations

import dataclasses
import math
import re

from experiments.validation.networks import conv
from experiments.validation.rows import Row, Study, read_table
from hwsim.machine.load import load_accelerator
from hwsim.machine.parts import OPERANDS, Accelerator, Memory
from hwsim.nest.count import count_accesses
from hwsim.nest.mapping import Hold, Mapping, Node, Spatial, Temporal
from hwsim.network.layer import Layer
from hwsim.pricing.layer import price

COMMAND_ROWS = 16  # pixels that one command streams past a tile of weights
HOLDS = {
    "3": Hold("dram", OPERANDS),
    "2": Hold("scratchpad", ("weight", "input")),
    "1": Hold("accumulator", ("output",)),
}
Loop = tuple[str, int, bool]  # loop, factor, whether it is spatial


def layer_of(row: dict[str, str]) -> Layer:
    """The row's convolution, without padding; the table has square strides alone."""
    c, k, p, q, kernel, stride, batch = (int(row[name]) for name in ("C", "K", "P", "Q", "R", "Hstride", "N"))
    if (row["S"], row["Wstride"], batch) != (row["R"], row["Hstride"], 1):
        raise ValueError(f"gemmini_rtl_firesim.csv: expected square kernels and strides of one image, got {row}")
    return conv("layer", c, k, (p, q), kernel, stride)


def loops_of(row: dict[str, str]) -> dict[str, list[Loop]]:
    """Loops by level, outermost first: of `L3[WIO] K8 - L2[WI] K16X - L1[O] C4 P8 C16X - L0[W] P16`."""
    found: dict[str, list[Loop]] = {}
    for part in row["mapping"].split(" - "):
        level, loops = re.match(r"L(\d)\[", part), part.split("]")[1].split()
        assert level is not None
        named = [re.fullmatch(r"([A-Z])(\d+)(X?)", loop) for loop in loops]
        found[level[1]] = [(m[1], int(m[2]), bool(m[3])) for m in named if m is not None and int(m[2]) > 1]
    return found


def mapping_of(row: dict[str, str]) -> Mapping:
    """The same nest here: both spatial loops stand in the mesh, below the accumulator."""
    loops, nodes, spatial = loops_of(row), list[Node](), list[Node]()
    for level, hold in HOLDS.items():
        nodes.append(hold)
        nodes += [Temporal(dim, factor) for dim, factor, unrolled in loops[level] if not unrolled]
        spatial += [
            Spatial(dim, factor, "mesh", "columns" if dim == "K" else "rows")
            for dim, factor, unrolled in loops[level]
            if unrolled
        ]
    inside = [Temporal(dim, factor) for dim, factor, _ in loops["0"]]
    return Mapping((*nodes, *spatial, Hold("weight_register", ("weight",)), *inside))


def machine_of(row: dict[str, str]) -> Accelerator:
    """The shipped spec with the row's memories."""
    sizes = {"scratchpad": int(row["scratchpad_bytes"]) * 8, "accumulator": int(row["accumulator_bytes"]) * 8}
    machine = load_accelerator("gemmini_16x16")
    nodes = tuple(
        dataclasses.replace(node, size_bits=sizes[node.name])
        if isinstance(node, Memory) and node.name in sizes
        else node
        for node in machine.hierarchy
    )
    return dataclasses.replace(machine, hierarchy=nodes)


def pixels_per_weights(row: dict[str, str]) -> int:
    """Pixels that stream past a tile of weights before the next one: the innermost loops over P and Q, N."""
    loops, pixels = loops_of(row), 1
    for dim, factor, unrolled in reversed(loops["1"] + loops["0"]):
        if unrolled:
            continue
        if dim not in "NPQ":
            break
        pixels *= factor
    return pixels


def cycles_of(row: dict[str, str]) -> tuple[int, float]:
    """(cycles as priced, cycles with whole commands and the first fill)."""
    layer, machine = layer_of(row), machine_of(row)
    cost = price(layer, count_accesses(layer, mapping_of(row), machine), machine)
    known = dict(cost.cycles)
    pixels = pixels_per_weights(row)
    compute = known["compute"] * math.ceil(pixels / COMMAND_ROWS) * COMMAND_ROWS / pixels
    tiles = math.prod(factor for _, factor, _ in loops_of(row)["3"])
    return cost.latency_cycles, max(compute, known["dram port"]) + known["dram port"] / tiles


def study() -> Study:
    """Cycles of the given mappings."""
    rows: list[Row] = []
    for row in read_table("gemmini_rtl_firesim.csv"):
        theirs = float(row["rtl_cycles_given_mapping"])
        item = f"{row['set']} {'x'.join(row[name] for name in ('C', 'K', 'P', 'Q', 'R'))} stride {row['Hstride']}"
        plain, commands = cycles_of(row)
        rows.append(Row(item, "cycles", "cycles", theirs, plain))
        rows.append(Row(item, "cycles, whole commands and first fill", "cycles", theirs, commands))
    return Study(
        name="gemmini_rtl",
        title="Gemmini RTL, given mappings",
        source="ucb-bar/dosa @a7a3239: 96 FireSim runs of the generator's 16 x 16 int8 mesh (RTL)",
        machine="gemmini_16x16 with the memory sizes and the loop nest of every row",
        rows=tuple(rows),
        calibrated=(),
        explanation=(
            "ResNet's first layer is within 2 %. `whole commands and first fill` adds two facts of the generator that "
            "no spec key says yet: a command streams 16 pixels past its weights (49 pixels take 64 cycles), and the "
            "first tile of a layer is fetched before anything works. Worst are layers with one input or two output "
            "channels: the DMA moves rows of one pixel's channels, so it sends 64 bits for a byte or two. The table's "
            "own spread is large: one layer of 512 x 1024 under one mapping took 76 and 100 million cycles with "
            "different memory sizes."
        ),
    )
