"""NVDLA: ResNet-50 frames per second of seven configurations, as the vendor's spreadsheet has them. Nothing is fitted.

MACs, buffer, bandwidth and clock are the table's; how the MACs split into atomic C x atomic K is stated below. The
published rates contain Winograd, which the machine here does not do: the spreadsheet's law without it is the check.
The schedule is the machine's own: atoms, stripes, kernels as the constraints of the spec; the layers are laid
out as the spreadsheet does.
"""

from __future__ import annotations

import dataclasses
import math

from experiments.validation.networks import conv, resnet50
from experiments.validation.rows import Row, Study, read_table
from hwsim.errors import InfeasibleMapping
from hwsim.machine.load import load_accelerator
from hwsim.machine.parts import Accelerator, Array, Axis, Node
from hwsim.network.layer import Layer
from hwsim.pricing.layer import LayerCost
from hwsim.search.layer import search

# Atomic C x atomic K: 8 x 8 and 64 x 32 are the published small and large ones, the others keep C >= K.
ATOMS = {2048: (64, 32), 1024: (32, 32), 512: (32, 16), 256: (16, 16), 128: (16, 8), 64: (8, 8), 32: (8, 4)}
CHANNELS = 16  # input channels go by so many, whatever the atoms


def configuration(row: dict[str, str]) -> Accelerator:
    """The large spec with the sizes of one row of the table."""
    large = load_accelerator("nvdla_large")
    macs, clock_ghz = int(row["macs"]), float(row["clock_GHz"])
    c, k = ATOMS[macs]
    nodes: list[Node] = []
    for node in large.hierarchy:
        if isinstance(node, Array):
            node = dataclasses.replace(node, axes=(Axis("atomic_c", c, ("C",)), Axis("atomic_k", k, ("K",))))
        elif node.name == "dram":
            bits = float(row["dram_GBps"]) / clock_ghz * 8
            node = dataclasses.replace(node, read_bandwidth_bits_per_cycle=bits)
        elif node.name == "conv_buffer":
            port = float((c + k) * 8)
            node = dataclasses.replace(
                node,
                size_bits=int(row["conv_buffer_KB"]) * 8192,
                read_bandwidth_bits_per_cycle=port,
                write_bandwidth_bits_per_cycle=port,
            )
        else:
            node = dataclasses.replace(node, size_bits=128 * k * node.word_bits)
        nodes.append(node)
    vector = dataclasses.replace(large.vector, lanes=max(1, k // 2))
    return dataclasses.replace(
        large, name=f"nvdla_{macs}", clock_mhz=clock_ghz * 1e3, hierarchy=tuple(nodes), vector=vector
    )


def folded(layer: Layer) -> Layer:
    """The layer as the spreadsheet lays it out: strides folded into channels, channels in 16s.

    C sh sw channels, rounded up, under ceil(R/sh) x ceil(S/sw) taps at stride 1: a 1x1 kernel of stride 2 is stored
    four times as large, its new weights zero.
    """
    (down, across), loops = layer.stride, layer.loops
    if layer.op != "conv":
        return layer
    channels = -(-loops.C * down * across // CHANNELS) * CHANNELS
    return conv(layer.name, channels, loops.K, (loops.P, loops.Q), (-(-loops.R // down), -(-loops.S // across)))


def schedule(layer: Layer, machine: Accelerator) -> LayerCost:
    """Its fastest schedule under the machine's own rules; where kernels do not fit, under those of the array alone."""
    array = tuple(rule for rule in machine.constraints if rule.level != "conv_buffer")
    try:
        return search(layer, machine, "latency", effort="proven", rules=machine.constraints).cost
    except InfeasibleMapping:
        return search(layer, machine, "latency", effort="proven", rules=array).cost


def cycles_of(layer: Layer, machine: Accelerator, cost: LayerCost) -> int:
    """Latency where the layer behind which a residual addition is fused reads the other operand, too."""
    busy = dict(cost.cycles)
    waiting = cost.latency_cycles - max(busy.values())
    rate = machine.outermost.read_bandwidth_bits_per_cycle
    if ends_block(layer) and rate is not None:
        busy[f"{machine.outermost.name} port"] += math.ceil(layer.output.elements * layer.output.bits / rate)
    return max(busy.values()) + waiting


def ends_block(layer: Layer) -> bool:
    """Whether an addition is fused behind a layer: the third one of every block."""
    return layer.name.startswith("s") and layer.name.endswith("c")


def frames_per_second(machine: Accelerator) -> float:
    """Clock over the sum of the layers' latencies under the machine's own schedule."""
    known: dict[object, LayerCost] = {}
    cycles = 0
    for layer in map(folded, resnet50()):
        if layer.shape_key() not in known:
            known[layer.shape_key()] = schedule(layer, machine)
        cycles += cycles_of(layer, machine, known[layer.shape_key()])
    return machine.clock_mhz * 1e6 / cycles


def study() -> Study:
    """Frames per second of all seven."""
    rows: list[Row] = []
    direct = {row["macs"]: float(row["fps_law_without_winograd"]) for row in read_table("nvdla_resnet50_model.csv")}
    for row in read_table("nvdla_resnet50.csv"):
        ours, item = frames_per_second(configuration(row)), f"{row['macs']} MACs"
        rows += [
            Row(item, "frames per second, direct convolution", "1/s", direct[row["macs"]], ours),
            Row(item, "frames per second, as published", "1/s", float(row["int8_resnet50_fps"]), ours, "context"),
        ]
    return Study(
        name="nvdla_resnet50",
        title="NVDLA, ResNet-50",
        source="NVDLA's performance spreadsheet, int8 ResNet-50 at 1 GHz (an ideal model of the vendor's, no silicon)",
        machine="nvdla_large with each row's MACs, buffer and bandwidth, under its constraints",
        rows=tuple(rows),
        calibrated=(),
        explanation=(
            "The published rates are a spreadsheet's, Winograd on 3x3 included; without it its law gives the rates "
            "of the check rows. It folds strides into channels, so that kernels of strided layers are stored up to "
            "four times as large, with zeros. In a small buffer they are read again and again. It rounds channels to "
            "16, and a fused addition reads its other operand. The layers here are laid out by the same rules. As "
            f"they are, all weights and every feature map, written and read once, would be {least_megabytes():.0f} MB "
            "per image. Where a folded kernel group does not fit the buffer, the rules of the array alone hold. What "
            "is left: the spreadsheet keeps 32 kernels whatever the atoms. Tensors between layers go through DRAM; "
            "pooling is taken to be fused."
        ),
    )


def least_megabytes() -> float:
    """Weights once, feature maps written and read once, at 8 bits."""
    return (
        sum(
            (layer.weight.elements if layer.weight else 0) + layer.inputs[0].elements + layer.output.elements
            for layer in resnet50()
        )
        / 1e6
    )
