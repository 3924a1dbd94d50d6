"""Gemmini's RTL: 96 runs of given mappings, cycle-accurate on an FPGA, against the same mappings priced here.

Nothing is fitted. Every row brings its loop nest and the sizes of its two memories. Every layer ran alone: it began
with an empty scratchpad, so its first tiles hide behind nothing.
"""

from __future__ import annotations

import dataclasses
import re

from experiments.validation.networks import conv
from experiments.validation.rows import Row, Study, read_table
from hwsim.machine.load import load_accelerator
from hwsim.machine.parts import OPERANDS, Accelerator, Memory
from hwsim.nest.count import count_accesses
from hwsim.nest.mapping import Hold, Mapping, Node, Spatial, Temporal
from hwsim.network.layer import Layer
from hwsim.pricing.layer import price

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
    """The shipped spec with the row's memories, the scratchpad empty at first."""
    sizes = {"scratchpad": int(row["scratchpad_bytes"]) * 8, "accumulator": int(row["accumulator_bytes"]) * 8}
    machine = load_accelerator("gemmini_16x16")
    first = {"scratchpad": {"first_fill": "exposed"}}
    nodes = tuple(
        dataclasses.replace(node, size_bits=sizes[node.name], **first.get(node.name, {}))
        if isinstance(node, Memory) and node.name in sizes
        else node
        for node in machine.hierarchy
    )
    return dataclasses.replace(machine, hierarchy=nodes)


def cycles_of(row: dict[str, str]) -> int:
    """Cycles of a row's nest on its machine."""
    layer, machine = layer_of(row), machine_of(row)
    return price(layer, count_accesses(layer, mapping_of(row), machine), machine).latency_cycles


def study() -> Study:
    """Cycles of the given mappings."""
    rows: list[Row] = []
    for row in read_table("gemmini_rtl_firesim.csv"):
        theirs = float(row["rtl_cycles_given_mapping"])
        item = f"{row['set']} {'x'.join(row[name] for name in ('C', 'K', 'P', 'Q', 'R'))} stride {row['Hstride']}"
        rows.append(Row(item, "cycles", "cycles", theirs, cycles_of(row)))
    return Study(
        name="gemmini_rtl",
        title="Gemmini RTL, given mappings",
        source="ucb-bar/dosa @a7a3239: 96 FireSim runs of the generator's 16 x 16 int8 mesh (RTL)",
        machine="gemmini_16x16 with the memory sizes and the loop nest of every row, every layer alone",
        rows=tuple(rows),
        calibrated=(),
        explanation=(
            "ResNet's first layer is within 2 %. Commands stream 16 pixels past a tile of weights (49 pixels take 64 "
            "cycles). The first tiles of a layer are waited for, as every layer ran alone. Without these two the "
            "mean is 25 %. Worst are layers with one input or two output channels: the RTL takes 1.6 to 3.8 times as "
            "long there. A least time for every row of the DMA would explain them, but it makes the mean of all "
            "rows worse. The table's own spread is large: one layer of 512 x 1024 under one mapping took 76 and 100 "
            "million cycles with different memory sizes."
        ),
    )
