"""Number formats in the bill: scales and offsets stored and moved, scales applied, which offsets fold."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwsim.errors import CapabilityError, RequestError, SpecError, WorkloadError
from hwsim.machine.load import load_accelerator
from hwsim.machine.parts import Accelerator
from hwsim.network.bits import assign_bits
from hwsim.network.format_bits import asks_for_formats, assign_formats
from hwsim.network.layer import Layer, Loops, Tensor
from hwsim.network.saved import from_dict
from hwsim.network.workload import Workload
from hwsim.pricing.layer import price
from hwsim.pricing.offsets import offset_cost
from hwsim.pricing.scales import groups_of_sum, scale_work
from hwsim.pricing.stages import effective_layer, fuse
from hwsim.pricing.unit_prices import unit_prices
from hwsim.report.evaluation import Request, evaluate_workload
from hwsim.tables.layer_table import LayerTable

ROWS, WIDTH, OUT = 4, 96, 32


def network(rows: int = ROWS, hidden: int = WIDTH) -> Workload:
    """Two linear layers with a SiLU between, and a head that stays fp16."""
    x = Tensor("x", (rows, hidden), origin="image")
    layers: list[Layer] = []
    for name, source, k in (("up", "x", hidden), ("down", "a", OUT), ("head", "h", OUT)):
        c = hidden if name != "head" else OUT
        here = x if source == "x" else Tensor(source, (rows, c), origin="silu" if source == "a" else "linear")
        made = Tensor({"up": "u", "down": "h", "head": "y"}[name], (rows, k), origin="linear")
        weight = Tensor(f"{name}.weight", (k, c), origin="weight")
        layers.append(Layer(name, "linear", (here,), made, weight, Loops(N=rows, K=k, C=c)))
        if name == "up":
            layers.append(Layer("silu", "silu", (made,), Tensor("a", (rows, hidden), origin="silu")))
    return Workload("net", layers)


def machine(**can: object) -> Accelerator:
    """Fixed 16-bit MACs that take any element; bit-packed memories."""
    base = load_accelerator("eyeriss_v1")
    every = tuple(range(1, 33))
    wide = {"weight_bits": every, "activation_bits": every, "output_bits": every,
                "elements": ("int", "fp16", "bf16", "e4m3", "e2m1"), "group_scales": ("unpack", "vector")}  # fmt: skip
    packed = tuple(
        dataclasses.replace(node, packing="dense") if hasattr(node, "packing") else node for node in base.hierarchy
    )
    return dataclasses.replace(
        base, hierarchy=packed, capabilities=dataclasses.replace(base.capabilities, **{**wide, **can})
    )


def priced(bits: str, accelerator: Accelerator | None = None, **size: int):  # type: ignore[no-untyped-def]
    request = Request(bits=bits, first_last="same", effort="quick")
    return evaluate_workload(network(**size), accelerator or machine(), request)


@pytest.mark.parametrize(
    ("bits", "each"),
    [("W4A16", 4 + Fraction(16, WIDTH)), ("W4g32A16", Fraction(9, 2)), ("W4g32zA16", Fraction(37, 8)),
     ("WMXFP4A16", Fraction(17, 4)), ("W4g32zfp16A16", Fraction(5))],
)  # fmt: skip
def test_stored_weights_count_scales_and_offsets(bits: str, each: Fraction) -> None:
    made = assign_formats(network(), bits, "same")
    weight = made.layers[0].weight
    assert weight is not None
    assert Fraction(weight.size_bits, weight.elements) == each


def test_scales_move_as_often_as_their_codes() -> None:
    report = priced("W4g32A16")
    for cost in report.cost.layers:
        bits = {(m.memory, m.operand): m.bits for m in cost.moved}
        for (memory, operand), moved in bits.items():
            if operand == "weight scales":
                codes = bits[memory, "weight"]
                assert moved == pytest.approx(codes / 4 * 0.5, abs=2 * report.accelerator.memories[0].word_bits)
                assert moved >= codes / 4 * 0.5


@pytest.mark.long
@pytest.mark.parametrize("bits", ["W4g32A16", "W4g32zA16", "WMXFP4A16", "W8A8"])
def test_prices_per_count_bound_the_bill_of_scales_within_words(bits: str) -> None:
    """Below the bill by less than a word per memory, operand and direction, twice where scales lie beside the codes."""
    accelerator = machine()
    report = priced(bits, accelerator)
    for stage in (stage for stage in fuse(report.workload, accelerator.capabilities) if stage.layer.has_macs):
        layer = effective_layer(stage)
        counts, prices = report.found[layer.name].counts, unit_prices(layer, accelerator)
        cost = price(layer, counts, accelerator)
        dynamic = sum(part.energy_pj for part in cost.parts if part.component != "static")
        words = sum(
            2 * max(node.read_energy_pj, node.write_energy_pj) * (bool(t.reads) + bool(t.writes))
            for t in counts.traffic for node in accelerator.memories if node.name == t.memory
        )  # fmt: skip
        grid = len(cost.parts) / 1024
        assert dynamic - words - grid <= prices.dynamic_pj(counts) <= dynamic + grid


@pytest.mark.long
def test_parts_of_the_bill_are_what_the_search_found() -> None:
    for bits in ("W4g32A16", "W4g32A8", "MXFP4", "W8g32zA8"):
        accelerator = machine()
        request = Request(bits=bits, first_last="same", effort="perfect")
        report = evaluate_workload(network(), accelerator, request)
        for name, found in report.found.items():
            assert found.certificate.lower_bound <= found.certificate.value * (1 + 1e-9), name


@pytest.mark.long
def test_bigger_groups_and_fewer_bits_never_cost_more() -> None:
    for template in ("W{b}g{g}A16", "W{b}g{g}A8", "W{b}g{g}zA8"):
        before = math.inf
        for group in (8, 16, 32, 96):
            total = priced(template.format(b=4, g=group)).cost.totals
            assert total.energy_pj <= before
            before = total.energy_pj
        before = math.inf
        for width in (8, 6, 4, 3, 2):
            total = priced(template.format(b=width, g=32)).cost.totals
            assert total.energy_pj <= before
            before = total.energy_pj


def test_unpacking_costs_once_for_each_pass_over_the_weights() -> None:
    can = machine(unpack_rows=2)
    layer = assign_formats(network(rows=7), "W4g32zA16", "same").layers[0]
    assert scale_work(layer, can).ops == 3 * WIDTH * WIDTH * 4  # convert, scale, shift; ceil(7 / 2) passes
    layer = assign_formats(network(rows=7), "W4A16", "same").layers[0]
    assert scale_work(layer, can).ops == 2 * WIDTH * WIDTH * 4


def test_scales_along_the_sums_cost_a_multiply_add_per_output_and_group_outside_the_macs() -> None:
    layer = assign_formats(network(), "W4g32A8", "same").layers[0]
    assert scale_work(layer, machine()).ops == ROWS * WIDTH * 3
    assert scale_work(layer, machine(group_scales=("mac",))).ops == 0
    wide = assign_formats(network(), "W4A8", "same").layers[0]
    assert scale_work(wide, machine(group_scales=())).ops == 0


@pytest.mark.parametrize(
    ("bits", "can", "message"),
    [
        ("W4g32A8", {"group_scales": ()}, "group_scales: expected mac or vector"),
        ("W4g32A16", {"group_scales": ("vector",)}, "group_scales: expected unpack"),
        ("W4A16", {"elements": ("int",)}, "elements: expected one of int"),
        ("MXFP8_E5M2", {}, "elements: expected one of int, fp16, bf16, e4m3, e2m1"),
        ("WMXFP4A8", {}, "elements: no MAC multiplies e2m1 by int"),
    ],
)
def test_machines_refuse_formats_that_they_cannot_multiply(bits: str, can: dict[str, object], message: str) -> None:
    with pytest.raises(CapabilityError, match=message):
        priced(bits, machine(**can))


@pytest.mark.long
def test_machines_with_block_scales_apply_them_in_the_macs_and_groups_of_integers_outside() -> None:
    b200, array = load_accelerator("b200"), load_accelerator("block_array")
    mx, group = (assign_formats(network(), bits, "same").layers[0] for bits in ("MXFP4", "W4g32A8"))
    assert (scale_work(mx, b200).way, scale_work(mx, array).way) == ("mac", "mac")
    assert (scale_work(group, b200).way, scale_work(group, array).way) == ("vector", "mac")
    rates = {bits: priced(bits, b200).cost.layers[0].mac_mode for bits in ("MXFP4", "NVFP4", "MXFP6", "W4A4", "W4A16")}
    assert rates == {
        "MXFP4": "4x4 mode", "NVFP4": "4x4 mode", "MXFP6": "8x8 mode", "W4A4": "8x8 mode",
        "W4A16": "4x16 mode, weights unpacked",
    }  # fmt: skip


@pytest.mark.parametrize("first_last", ["8bit", "same"])
def test_integers_of_16_bits_are_asked_for_as_the_refusal_of_floats_says(first_last: str) -> None:
    ethos = load_accelerator("ethos_u55_256")
    quick: dict[str, Any] = {"effort": "quick", "first_last": first_last}
    with pytest.raises(CapabilityError, match=r"\(fp16\); integers of 16 bits: a bits file") as refused:
        evaluate_workload(network(), ethos, Request(bits="W8A16", **quick))
    said = eval(str(refused.value).rpartition("bits=")[2].removesuffix(")"))
    report = evaluate_workload(network(), ethos, Request(bits=said, **quick))
    read = [(x.weight.bits, x.inputs[0].bits, x.inputs[0].format) for x in report.workload if x.weight]
    assert read == [(8, 16, None)] * 3
    with pytest.raises(CapabilityError) as other:  # 1 to 8 bits alone
        evaluate_workload(network(), load_accelerator("nvdla_large"), Request(bits="W8A16", **quick))
    assert "a bits file" not in str(other.value)


def test_every_shipped_machine_without_float_macs_refuses_floats() -> None:
    with pytest.raises(CapabilityError, match="elements"):
        evaluate_workload(network(), load_accelerator("eyeriss_v1"), Request(bits="W4g32A16", effort="quick"))


# ---- offsets: which fold ---------------------------------------------------------------------------------------------


def test_static_offsets_fold_for_any_weight_format_and_weight_offsets_never_do() -> None:
    """Identity (A), exact in integers: y = sx sum_g sw P + sx sum_g bw Sx + bx sum_k w_hat."""
    rng = np.random.default_rng(0)
    m, k, n, g = 5, 24, 7, 8
    groups = k // g
    x, w = rng.integers(0, 16, (m, k)), rng.integers(-8, 8, (k, n))
    sx, bx = 2, rng.integers(-9, 9, k)  # the offset may differ from channel to channel
    sw, bw = 2 ** rng.integers(0, 4, (groups, n)), rng.integers(-5, 6, (groups, n))
    w_hat = np.repeat(sw, g, 0) * w + np.repeat(bw, g, 0)
    y = (sx * x + bx) @ w_hat
    products = np.einsum("mgk,gkn->mgn", x.reshape(m, groups, g), w.reshape(groups, g, n))
    sums = x.reshape(m, groups, g).sum(2)
    at_run_time = sx * np.einsum("mg,gn->mn", sums, bw)
    constant = bx @ w_hat
    assert np.array_equal(y, sx * np.einsum("mgn,gn->mn", products, sw) + at_run_time + constant)
    assert len({tuple(row) for row in at_run_time}) > 1  # depends on the token: no constant replaces it


def test_dynamic_offsets_per_token_and_group_need_stored_sums_and_multiply_adds() -> None:
    """Identities (B) and (C), exact in integers."""
    rng = np.random.default_rng(1)
    m, k, n, g = 5, 24, 7, 8
    groups = k // g
    x, w_hat = rng.integers(0, 16, (m, k)), rng.integers(-20, 20, (k, n))
    s, b = rng.integers(1, 5, m), rng.integers(-9, 9, m)
    assert np.array_equal((s[:, None] * x + b[:, None]) @ w_hat, s[:, None] * (x @ w_hat) + np.outer(b, w_hat.sum(0)))
    s, b = rng.integers(1, 5, (m, groups)), rng.integers(-9, 9, (m, groups))
    real = np.repeat(s, g, 1) * x + np.repeat(b, g, 1)
    products = np.einsum("mgk,gkn->mgn", x.reshape(m, groups, g), w_hat.reshape(groups, g, n))
    sums = w_hat.reshape(groups, g, n).sum(1)
    assert np.array_equal(real @ w_hat, (s[..., None] * products).sum(1) + b @ sums)


def test_offsets_of_groups_are_priced_by_the_sums_that_they_need() -> None:
    can = machine().capabilities
    made = assign_formats(network(), "W4g32zA8", "same")
    cost = offset_cost(made.layers[0], can)
    assert (cost.kind, cost.extra_adds) == ("dynamic", ROWS * WIDTH + ROWS * WIDTH * 3)
    assert cost.extra_bits == ROWS * 3 * 32
    shifted = dataclasses.replace(made.layers[0], inputs=(dataclasses.replace(made.layers[0].inputs[0], offset=True),))
    both = offset_cost(shifted, can)
    assert both.extra_adds == cost.extra_adds + ROWS * WIDTH  # the constant, which the layer had no bias for
    plain = assign_formats(network(), "W4g32A8", "same").layers[0]
    folds = dataclasses.replace(plain, inputs=(dataclasses.replace(plain.inputs[0], offset=True),), bias=True)
    assert offset_cost(folds, can).kind == "folded"
    assert offset_cost(folds, can).extra_adds == 0
    assert offset_cost(assign_formats(network(), "W4g32zA16", "same").layers[0], can).kind == "none"


@pytest.mark.parametrize(("a", "b"), [(24, 32), (32, 32), (7, 5), (32, 96), (1000, 24)])
def test_a_sum_ends_where_a_group_of_either_operand_ends(a: int, b: int) -> None:
    layer = assign_formats(network(), f"W4g{a}A8g{b}", "same").layers[0]
    walked, sums = None, 0
    for c in range(WIDTH):
        sums += walked != (c // a, c // b)
        walked = (c // a, c // b)
    assert groups_of_sum(layer) == sums


def conv(groups: int, channels: int) -> Workload:
    """One 3 x 3 convolution of 32 channels."""
    x, y = Tensor("x", (1, 32, 8, 8), origin="image"), Tensor("y", (1, 32, 6, 6), origin="conv")
    weight = Tensor("c.weight", (32, channels, 3, 3), origin="weight")
    loops = Loops(G=groups, K=32 // groups, C=channels, P=6, Q=6, R=3, S=3)
    return Workload("net", [Layer("c", "conv", (x,), y, weight, loops)])


@pytest.mark.parametrize(("groups", "channels"), [(1, 32), (4, 8), (32, 1)])
@pytest.mark.parametrize(
    ("bits", "scales"),
    [("W4A16", lambda c: 32), ("W4g5A16", lambda c: 32 * 9 * -(-c // 5)), ("W4g999A16", lambda c: 32 * 9),
     ("MXFP4", lambda c: 32 * 9 * -(-c // 32)), ("FP8", lambda c: 1), ("FP4", lambda c: 1)],
)  # fmt: skip
def test_convolutions_have_a_scale_for_each_channel_or_group_of_input_channels(
    groups: int, channels: int, bits: str, scales: Callable[[int], int]
) -> None:
    weight = assign_formats(conv(groups, channels), bits, "same").layers[0].weight
    assert weight is not None
    assert weight.format is not None
    assert weight.scales == scales(channels)
    assert weight.side_bits == scales(channels) * weight.format.side_bits_each


def test_scales_that_take_more_bits_than_their_codes_are_named() -> None:
    said = assign_formats(conv(32, 1), "W4g128A16", "same").notes
    assert any("1 layers take more bits for scales than for codes (c; 20 bits a weight" in note for note in said)
    assert not any("than for codes" in note for note in assign_formats(conv(1, 32), "W4g128A16", "same").notes)


def test_values_beside_bf16_are_bf16() -> None:
    assert {t.element for t in assign_formats(network(), "W4g32ABF16").tensors.values()} == {"int", "bf16"}
    assert {t.element for t in assign_formats(network(), "W4g32A16").tensors.values()} == {"int", "fp16"}


# ---- names, files, what stays ----------------------------------------------------------------------------------------


def test_plain_integers_stay_what_they_were() -> None:
    assert [asks_for_formats(x) for x in ("W4A4", "W8A8", "W2A8")] == [False] * 3
    assert [asks_for_formats(x) for x in ("W4A16", "W4g128A16", "MXFP4", "NVFP4", "KV8", "FP8")] == [True] * 6
    assert not any(t.format for t in assign_bits(network(), "W4A4").tensors.values())


def test_formats_come_from_files_by_layer_and_survive_saving(tmp_path: Path) -> None:
    file = tmp_path / "bits.yaml"
    file.write_text("default: W4g32A16\nhead: WMXFP4A16\nup: W8A16\n", encoding="utf-8")
    assert asks_for_formats(str(file))
    made = assign_formats(network(), str(file))
    weights = {layer.name: layer.weight for layer in made.layers if layer.weight is not None}
    shown = {name: w.format.describe() for name, w in weights.items() if w.format is not None}
    assert shown["head"].startswith("e2m1")
    assert shown["up"].startswith("int8")
    assert "group of 32" in shown["down"]
    assert from_dict(json.loads(json.dumps(made.to_dict()))) == made


def test_the_last_layer_stays_fp16_unless_told_otherwise() -> None:
    head = assign_formats(network(), "W4g32A16").layers[-1].weight
    assert head is not None
    assert head.element == "fp16"
    head = assign_formats(network(), "W4g32A16", "same").layers[-1].weight
    assert head is not None
    assert head.bits == 4


def test_caches_that_a_network_does_not_have_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="W8A8KV8: net has no cache of keys and values: leave KV out, or price a phase"):
        assign_formats(network(), "W8A8KV8")
    file = tmp_path / "bits.yaml"
    file.write_text("default: W8A16\nup: W8A16KV4\n", encoding="utf-8")
    with pytest.raises(SpecError, match="W8A16KV4: net has no cache"):
        assign_formats(network(), file)


@pytest.mark.parametrize("given", [{"config": "4"}, {"elementwise_bits": 4}])
def test_options_of_integers_are_refused_beside_formats(given: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match=r"is for integers.*leave"):
        evaluate_workload(network(), machine(), Request(bits="W4g32A16", effort="quick", **given))


def test_ends_that_a_machine_refuses_at_16_bits_come_with_the_way_out() -> None:
    integers = machine(elements=("int", "e2m1"), group_scales=("mac",))
    with pytest.raises(CapabilityError, match=r"layer head: .*expected one of int, e2m1(.|\n)*--first-last same"):
        evaluate_workload(network(), integers, Request(bits="MXFP4", effort="quick"))


def test_contradictory_workloads_and_files_are_refused(tmp_path: Path) -> None:
    data = json.loads(json.dumps(assign_formats(network(), "W4g32A16", "same").to_dict()))
    data["layers"][0]["weight"]["format"]["bits"] = 5
    with pytest.raises(WorkloadError, match="contradict its format"):
        from_dict(data)
    data["layers"][0]["weight"]["format"]["element"] = "e9"
    with pytest.raises(WorkloadError, match="expected int or one of"):
        from_dict(data)
    file = tmp_path / "bits.yaml"
    file.write_text("default: W4g32A16\nnothing: W8A16\n", encoding="utf-8")
    with pytest.raises(SpecError, match="nothing: matches no layer"):
        assign_formats(network(), str(file))
    file.write_text("up: W4g32A16\n", encoding="utf-8")
    with pytest.raises(SpecError, match="default: missing"):
        assign_formats(network(), str(file))


def test_tables_of_integer_widths_refuse_formats() -> None:
    layer = assign_formats(network(), "W4g32A16", "same").layers[0]
    with pytest.raises(CapabilityError, match="has number formats"):
        LayerTable.build(layer, machine())
