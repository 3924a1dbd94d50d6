"""Fusing, lifetimes and tensors that stay on chip, against slow and obvious versions."""

from __future__ import annotations

import dataclasses
import itertools
import random

import pytest

from hwsim.machine.parts import OPERANDS, Accelerator, Memory
from hwsim.nest.count import count_accesses
from hwsim.nest.mapping import Hold, Mapping, Temporal
from hwsim.network.layer import Layer, Loops, Tensor, activation_inputs
from hwsim.network.workload import Workload
from hwsim.pricing.moves import operand_bits
from hwsim.pricing.network import price_network
from hwsim.pricing.residents import Stay, choose_resident, lifetimes, peak_activation_bits, stage_tiles
from hwsim.pricing.stages import effective_workload, fuse
from tests.strategies import machine

ALL_FUSED = ("requantize", "activation", "normalization", "elementwise")


def pointwise(name: str, x: Tensor, channels: int, bits: int = 8) -> Layer:
    """A 1x1 convolution of an (1, C, H, W) tensor."""
    _, c, h, w = x.shape
    return Layer(
        name,
        "conv",
        (x,),
        Tensor(f"{name}.y", (1, channels, h, w), bits),
        weight=Tensor(f"{name}.w", (channels, c, 1, 1), bits),
        loops=Loops(K=channels, C=c, P=h, Q=w),
    )


def vector(name: str, op: str, *inputs: Tensor, bits: int = 8) -> Layer:
    """An elementwise operator."""
    return Layer(name, op, inputs, Tensor(f"{name}.y", inputs[0].shape, bits))


def residual_block(bits: int = 8) -> Workload:
    """conv - relu - conv - add with the first relu's output - relu - conv."""
    a = pointwise("a", Tensor("image", (1, 4, 4, 4), 8), 8, bits)
    ra = vector("ra", "relu", a.output, bits=bits)
    b = pointwise("b", ra.output, 8, bits)
    add = vector("add", "add", b.output, ra.output, bits=bits)
    radd = vector("radd", "relu", add.output, bits=bits)
    c = pointwise("c", radd.output, 2, bits)
    return Workload("block", [a, ra, b, add, radd, c])


def chip(buffer_bits: int, fused: tuple[str, ...] = ALL_FUSED) -> Accelerator:
    """DRAM at 100 pJ per byte above one buffer at 1 pJ."""
    made = machine(
        Memory("dram", None, OPERANDS, word_bits=8, read_energy_pj=100.0, write_energy_pj=100.0),
        Memory("buffer", buffer_bits, OPERANDS, word_bits=8, read_energy_pj=1.0, write_energy_pj=1.0),
    )
    return dataclasses.replace(made, capabilities=dataclasses.replace(made.capabilities, fused=fused))


def whole_mappings(workload: Workload, accelerator: Accelerator) -> dict[str, object]:
    """Counts with whole weights and outputs in the buffer, inputs one pixel at a time."""
    counts = {}
    for name, layer in effective_workload(workload, accelerator.capabilities).items():
        loops = [Temporal(d, n) for d, n in layer.loops.as_dict().items() if n > 1]
        outer = [loop for loop in loops if loop.dim in "PQ"]
        inner = [loop for loop in loops if loop.dim not in "PQ"]
        mapping = Mapping(
            (Hold("dram", OPERANDS), Hold("buffer", ("weight",)), *outer, Hold("buffer", ("input", "output")), *inner)
        )
        counts[name] = count_accesses(layer, mapping, accelerator)
    return counts


# --- fusing -----------------------------------------------------------------------------------------------------------


def test_operators_join_the_layer_before_them_when_the_machine_fuses_their_kind() -> None:
    block = residual_block()
    for fused, expected in (
        ((), [("a",), ("ra",), ("b",), ("add",), ("radd",), ("c",)]),
        (("activation",), [("a", "ra"), ("b",), ("add",), ("radd",), ("c",)]),
        (ALL_FUSED, [("a", "ra"), ("b", "add", "radd"), ("c",)]),
    ):
        stages = fuse(block, chip(1, fused).capabilities)
        assert [(s.layer.name, *(f.name for f in s.fused)) for s in stages] == expected


def test_the_skip_of_a_fused_addition_still_enters_the_stage() -> None:
    _, second, third = fuse(residual_block(), chip(1).capabilities)
    assert [t.name for t in second.inputs] == ["ra.y"]
    assert second.output.name == "radd.y"
    assert [t.name for t in third.inputs] == ["radd.y"]


def test_an_addition_joins_the_later_of_two_branches() -> None:
    image = Tensor("image", (1, 4, 4, 4), 8)
    left, right = pointwise("left", image, 8), pointwise("right", image, 8)
    add = vector("add", "add", left.output, right.output)
    stages = fuse(Workload("net", [left, right, add]), chip(1).capabilities)
    assert [(s.layer.name, *(f.name for f in s.fused)) for s in stages] == [("left",), ("right", "add")]


def test_what_others_read_is_not_fused_away() -> None:
    a = pointwise("a", Tensor("image", (1, 4, 4, 4), 8), 8)
    gate = vector("gate", "sigmoid", a.output)
    product = vector("product", "mul", a.output, gate.output)
    stages = fuse(Workload("swish", [a, gate, product]), chip(1).capabilities)
    assert [s.layer.name for s in stages] == ["a", "gate", "product"]


def test_memories_see_the_bits_that_leave_the_stage() -> None:
    a = pointwise("a", Tensor("image", (1, 4, 4, 4), 8), 8, bits=32)
    low = dataclasses.replace(vector("relu", "relu", a.output), output=Tensor("r", a.output.shape, 4, signed=False))
    layer = effective_workload(Workload("net", [a, low]), chip(1).capabilities)["a"]
    assert (layer.output.bits, layer.output.name, layer.output.signed) == (4, "r", False)


# --- lifetimes --------------------------------------------------------------------------------------------------------


def random_network(seed: int) -> Workload:
    """A random graph of pointwise layers, activations and additions over equal shapes."""
    rng = random.Random(seed)
    tensors = [Tensor("image", (1, 4, 3, 3), 8)]
    layers: list[Layer] = []
    for i in range(rng.randint(2, 9)):
        kind = rng.choice(("conv", "conv", "add", "relu"))
        bits = rng.choice((2, 4, 8))
        x = rng.choice(tensors[-3:])
        if kind == "conv":
            layer = pointwise(f"l{i}", x, 4, bits)
        elif kind == "add":
            layer = vector(f"l{i}", "add", x, rng.choice(tensors), bits=bits)
        else:
            layer = vector(f"l{i}", "relu", x, bits=bits)
        layers.append(layer)
        tensors.append(layer.output)
    return Workload(f"random{seed}", layers)


def walk_peak(workload: Workload) -> int:
    """Oracle without fusing: run layer by layer, drop a tensor once nobody will read it."""
    held = {t.name: t for layer in workload for t in activation_inputs(layer)}
    produced = {layer.output.name for layer in workload}
    held = {name: t for name, t in held.items() if name not in produced}
    layers, peak = list(workload), 0
    for i, layer in enumerate(layers):
        held[layer.output.name] = layer.output
        peak = max(peak, sum(t.size_bits for t in held.values()))
        later = {t.name for other in layers[i + 1 :] for t in activation_inputs(other)}
        read_ever = {t.name for other in layers for t in activation_inputs(other)}
        held = {n: t for n, t in held.items() if n in later or n not in read_ever}
    return peak


@pytest.mark.parametrize("seed", range(60))
def test_the_peak_equals_a_walk_over_the_graph(seed: int) -> None:
    workload = random_network(seed)
    assert peak_activation_bits(fuse(workload, chip(1, ()).capabilities)) == walk_peak(workload)
    even = workload.map_tensors(lambda t: dataclasses.replace(t, bits=4))
    fused = peak_activation_bits(fuse(even, chip(1).capabilities))
    assert fused <= walk_peak(even)  # tensors inside a stage never exist


def test_a_residual_is_counted_while_it_waits() -> None:
    stages = fuse(residual_block(), chip(1, ()).capabilities)
    lives = {life.tensor.name: (life.born, life.last) for life in lifetimes(stages)}
    assert lives == {
        "image": (-1, 0),
        "a.y": (0, 1),
        "ra.y": (1, 3),
        "b.y": (2, 3),
        "add.y": (3, 4),
        "radd.y": (4, 5),
        "c.y": (5, 5),
    }
    assert peak_activation_bits(stages) == 3 * 8 * 16 * 8  # at the addition: skip, branch, sum


# --- staying on chip --------------------------------------------------------------------------------------------------


def best_by_trying(stays: list[Stay], tiles: list[dict[str, int]], capacity: int) -> float:
    """Oracle: every subset."""
    best = 0.0
    for chosen in itertools.chain.from_iterable(itertools.combinations(stays, n) for n in range(len(stays) + 1)):
        fits = True
        for index, stage in enumerate(tiles):
            live = [s for s in chosen if s.born <= index <= s.last]
            names = {s.name for s in live}
            need = sum(s.bits for s in live) + sum(bits for name, bits in stage.items() if name not in names)
            fits = fits and (not live or need <= capacity)
        if fits:
            best = max(best, sum(s.saving_pj for s in chosen))
    return best


@pytest.mark.parametrize("seed", range(150))
def test_the_kept_tensors_save_most_among_all_subsets(seed: int) -> None:
    rng = random.Random(seed)
    stages = rng.randint(2, 7)
    stays = []
    for i in range(rng.randint(1, 8)):
        born = rng.randrange(stages - 1)
        last = rng.randint(born + 1, stages - 1)
        stays.append(Stay(f"t{i}", born, last, rng.randint(1, 60), rng.choice((-1.0, 3.0, rng.uniform(0, 50)))))
    tiles = [{rng.choice(["w", *(s.name for s in stays)]): rng.randint(0, 40) for _ in range(3)} for _ in range(stages)]
    kept = choose_resident(stays, tiles, 100)
    saved = sum(s.saving_pj for s in stays if s.name in kept)
    assert saved == pytest.approx(best_by_trying([s for s in stays if s.saving_pj > 0], tiles, 100))
    smaller = [dataclasses.replace(s, bits=-(-s.bits // 2)) for s in stays]
    kept = choose_resident(smaller, tiles, 100)
    assert sum(s.saving_pj for s in stays if s.name in kept) >= saved - 1e-9  # smaller tensors never lead to less


def test_with_room_for_everything_only_weights_image_and_result_touch_dram() -> None:
    block = residual_block()
    accelerator = chip(10**6)
    cost = price_network(block, accelerator, whole_mappings(block, accelerator))
    assert cost.resident == ("ra.y", "radd.y")
    moved = [m for layer in cost.layers for m in layer.moved if m.memory == "dram"]
    words = {
        kind: sum(m.read_words + m.write_words for m in moved if m.operand == kind)
        for kind in {m.operand for m in moved}
    }
    weights = 4 * 8 + 8 * 8 + 8 * 2
    assert words == {"input": 4 * 16, "weight": weights, "output": 2 * 16, "parameters": 3 * 5}


def test_without_room_every_tensor_goes_through_dram() -> None:
    block = residual_block()
    accelerator = chip(600)
    cost = price_network(block, accelerator, whole_mappings(block, accelerator))
    assert cost.resident == ()
    outputs = [m for layer in cost.layers for m in layer.moved if m.memory == "dram" and m.operand == "output"]
    assert sum(m.write_words for m in outputs) == (8 + 8 + 2) * 16


def test_keeping_tensors_saves_exactly_what_the_choice_counted() -> None:
    block = residual_block()
    large, small = chip(10**6), chip(600)
    kept, spilled = (price_network(block, a, whole_mappings(block, a)) for a in (large, small))
    # ra.y and radd.y: 128 elements each; written once and read (ra.y twice: by b and by the fused addition).
    dram = 128 * 100.0 * (2 + 3)
    buffer = 128 * 1.0 * ((1 + 1) + (1 + 1) + 1)  # drains and fills of the buffer, and the skip's way through it
    spent = [
        c.totals.energy_pj - sum(layer.energy_pj["static"] for layer in c.layers if "static" in layer.energy_pj)
        for c in (kept, spilled)
    ]
    assert spent[1] - spent[0] == dram + buffer


@pytest.mark.parametrize("seed", range(25))
def test_networks_never_cost_more_at_fewer_bits(seed: int) -> None:
    """Fixed mappings; whatever stays on chip, whatever is fused."""
    rng = random.Random(seed)
    accelerator = chip(rng.choice((900, 1500, 2500, 10**6)), rng.choice(((), ALL_FUSED, ("activation",))))
    workload = random_network(seed)
    totals = []
    for shift in (0, 1, 2):
        narrower = workload.map_tensors(lambda t, s=shift: dataclasses.replace(t, bits=max(1, t.bits >> s)))
        cost = price_network(narrower, accelerator, whole_mappings(narrower, accelerator))
        assert sum(layer.total_energy_pj for layer in cost.layers) == cost.totals.energy_pj
        assert sum(energy for _, energy in cost.energy_pj_by_component) == cost.totals.energy_pj
        assert sum(layer.latency_cycles for layer in cost.layers) == cost.totals.latency_cycles
        assert [layer.name for layer in cost.layers] == [layer.name for layer in narrower]
        totals.append(cost.totals)
    for wide, narrow in itertools.pairwise(totals):
        assert narrow.energy_pj <= wide.energy_pj
        assert narrow.traffic_bits <= wide.traffic_bits
        assert narrow.weight_bits <= wide.weight_bits
        assert narrow.peak_activation_bits <= wide.peak_activation_bits
        assert narrow.latency_cycles <= wide.latency_cycles


def test_totals_carry_the_fields_currencies() -> None:
    block = residual_block(4)
    accelerator = chip(10**6)
    totals = price_network(block, accelerator, whole_mappings(block, accelerator)).totals
    weights = 4 * 8 + 8 * 8 + 8 * 2
    assert totals.macs == weights * 16
    assert totals.bops == 16 * (32 * 4 * 8 + 64 * 4 * 4 + 16 * 4 * 4)
    assert totals.average_weight_bits == 4.0
    assert totals.average_activation_bits == (64 * 8 + 256 * 4) / 320
    assert totals.packed_weight_bits == weights * 4
    assert totals.weight_bits == weights * 4 + 3 * 40
    assert totals.compression == 8.0
    assert totals.edp_pj_s == totals.energy_pj * totals.latency_s
    assert totals.to_dict()["energy_pj"] == totals.energy_pj


def test_a_stage_holds_a_tile_for_every_operand_and_sums_at_their_own_width() -> None:
    """The output's tile waits as sums between input channels, whichever memory their loop stands over."""
    accelerator, block = chip(2**20), residual_block()
    stage = fuse(block, accelerator.capabilities)[0]
    layer = effective_workload(block, accelerator.capabilities)["a"]
    sums = operand_bits(layer, accelerator, "output", "partial")
    assert sums > 8
    channels, rest = Temporal("C", 4), (Temporal("K", 8), Temporal("P", 4), Temporal("Q", 4))
    waiting = Mapping((Hold("dram", OPERANDS), channels, Hold("buffer", OPERANDS), *rest))
    inside = Mapping((Hold("dram", OPERANDS), Hold("buffer", OPERANDS), channels, *rest))
    expected = {
        waiting: {"weight": 8 * 8, "image": 16 * 8, "ra.y+sums": 8 * 16 * sums},
        inside: {"weight": 32 * 8, "image": 64 * 8, "ra.y+sums": 8 * 16 * sums},
    }
    for mapping, tiles in expected.items():
        counts = {"a": count_accesses(layer, mapping, accelerator)}
        assert stage_tiles(stage, accelerator, accelerator.memories[1], counts) == tiles


def test_an_operator_on_a_part_of_a_tensor_runs_on_its_own() -> None:
    a = pointwise("a", Tensor("image", (1, 4, 4, 4), 8), 8)
    part = Layer("part", "relu", (a.output,), Tensor("part.y", (1, 2, 4, 4), 8))
    stages = fuse(Workload("slice", [a, part]), chip(2**20).capabilities)
    assert [stage.layer.name for stage in stages] == ["a", "part"]
