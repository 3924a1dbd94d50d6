"""Assigning bits: the grammar, the files, LSQ+ Table 1 by what made a tensor, and tensors that must share bits."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.errors import SpecError
from hwsim.network.bits import assign_bits
from hwsim.network.bits_file import WIDTHS, BitsRequest, parse_wxay, read_bits
from hwsim.network.layer import Layer, Loops, Tensor
from hwsim.network.sharing import sharing_groups
from hwsim.network.workload import Workload


def activation(name: str, origin: str, shape: tuple[int, ...] = (1, 4, 8, 8)) -> Tensor:
    return Tensor(name, shape, origin=origin)


def conv(name: str, source: Tensor, **changes: Any) -> Layer:
    """3x3, padding 1, 4 channels out."""
    return Layer(
        name,
        "conv",
        (source,),
        activation(f"{name}.out", "linear"),
        Tensor(f"{name}.weight", (4, source.shape[1], 3, 3), origin="weight"),
        Loops(1, 1, 4, source.shape[1], 8, 8, 3, 3),
        padding=(1, 1, 1, 1),
        **changes,
    )


def vector(name: str, op: str, *sources: Tensor, origin: str = "") -> Layer:
    return Layer(name, op, sources, activation(f"{name}.out", origin or op))


def linear(name: str, source: Tensor, k: int = 10) -> Layer:
    rows = Tensor(source.name, (1, 256), origin=source.origin)
    weight = Tensor(f"{name}.weight", (k, 256), origin="weight")
    return Layer(name, "linear", (rows,), Tensor(f"{name}.out", (1, k), origin="linear"), weight, Loops(K=k, C=256))


def network() -> Workload:
    """stem, ReLU, a SiLU branch with a gate, an addition, max pooling, a classifier."""
    stem = conv("stem", Tensor("image", (1, 3, 8, 8), origin="image"))
    relu = vector("relu", "relu", stem.output)
    body = conv("body", relu.output)
    silu = vector("silu", "silu", body.output)
    squeeze = vector("squeeze", "avg_pool", silu.output, origin="silu")
    gate = vector("gate", "sigmoid", squeeze.output)
    mul = vector("mul", "mul", silu.output, gate.output, origin="silu")
    add = vector("add", "add", mul.output, relu.output)
    pool = vector("pool", "max_pool", add.output, origin="add")
    return Workload("net", [stem, relu, body, silu, squeeze, gate, mul, add, pool, linear("fc", pool.output)])


def codes(net: Workload) -> dict[str, tuple[int, bool, bool]]:
    return {t.name: (t.bits, t.signed, t.offset) for t in net.tensors.values()}


# -- grammar ----------------------------------------------------------------------------------------------------------


@given(st.integers(1, 16), st.integers(1, 16), st.booleans())
def test_every_width_from_1_to_16_is_read(w: int, a: int, lower: bool) -> None:
    text = f"W{w}A{a}"
    assert parse_wxay(text.lower() if lower else text) == (w, a)


@pytest.mark.parametrize(
    "text", ["", "W4", "A4", "4", "W4A", "W4A4 extra", "W-4A4", "W4.0A4", "A4W4", "W４A４", "int8"]
)
def test_other_spellings_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(SpecError, match=r"expected W<bits>A<bits> such as W4A4"):
        assign_bits(network(), text)


@pytest.mark.parametrize(("text", "what"), [("W0A4", "weight"), ("W17A4", "weight"), ("W4A0", "activation")])
def test_widths_out_of_range_are_refused(text: str, what: str) -> None:
    with pytest.raises(SpecError, match=f"{what} bits must be 1 to 16"):
        assign_bits(network(), text)


# -- what WxAy means --------------------------------------------------------------------------------------------------


def test_each_tensor_gets_the_row_of_table_1_of_what_made_it() -> None:
    got = codes(assign_bits(network(), "W3A5", first_last="same", elementwise_bits="same"))
    signed, unsigned, offset = (5, True, False), (5, False, False), (5, False, True)
    assert got == {
        "image": signed,
        "stem.weight": (3, True, False),
        "stem.out": unsigned,  # read by the ReLU alone, which runs before rounding
        "relu.out": unsigned,
        "body.input_quantizer.out": unsigned,  # the addition has a quantizer of its own
        "body.weight": (3, True, False),
        "body.out": offset,
        "silu.out": offset,
        "squeeze.out": unsigned,
        "gate.out": unsigned,
        "mul.out": offset,
        "add.out": offset,  # of a gated SiLU and a ReLU: one-sided
        "pool.out": offset,
        "fc.weight": (3, True, False),
        "fc.out": (32, True, False),  # nothing rounds the network's output
    }


@pytest.mark.parametrize(
    ("config", "signed", "offset"), [(1, False, False), (2, True, False), (3, True, True), (4, False, True)]
)
def test_a_forced_configuration_leaves_gates_and_linear_outputs_alone(config: int, signed: bool, offset: bool) -> None:
    for given_as in (config, str(config)):
        got = codes(assign_bits(network(), "W4A4", given_as, "same", "same"))
        assert got["relu.out"] == got["silu.out"] == got["mul.out"] == got["add.out"] == (4, signed, offset)
        assert got["gate.out"] == (4, False, False)
        assert got["image"] == (4, True, False)


def test_first_and_last_and_inputs_of_sums_have_8_bits_as_in_training() -> None:
    def at_8(**rules: Any) -> set[str]:
        got = codes(assign_bits(network(), "W2A3", **rules))
        return {name for name, (bits, _, _) in got.items() if bits == 8}

    ends = {"image", "stem.weight", "fc.weight", "pool.out", "add.out"}  # max pooling moves the codes of what it reads
    sums = {"silu.out", "body.out", "gate.out", "squeeze.out", "mul.out", "relu.out", "stem.out"}
    assert at_8() == ends | sums
    assert at_8(elementwise_bits="same") == ends
    assert at_8(first_last="same") == sums
    assert at_8(first_last="same", elementwise_bits="same") == set()
    got = codes(assign_bits(network(), "W2A3"))
    assert got["body.input_quantizer.out"] == (3, False, False)  # beside the 8 bits that the addition reads
    wide = codes(assign_bits(network(), "W12A12"))
    assert (wide["image"], wide["pool.out"]) == (
        (12, True, False),
        (12, False, True),
    )  # at least 8, never fewer than asked


def test_indices_and_norm_parameters_keep_their_width() -> None:
    table = Layer(
        "table",
        "embedding",
        (Tensor("ids", (1, 4), 10, signed=False, origin="index"),),
        Tensor("table.out", (1, 4, 256), origin="embedding"),
        Tensor("table.weight", (1000, 256), origin="weight"),
    )
    norm = Layer(
        "norm", "layer_norm", (table.output,), Tensor("norm.out", (1, 4, 256), origin="linear"),
        Tensor("norm.weight", (256,), origin="weight"),
    )  # fmt: skip
    got = {n: b for n, (b, _, _) in codes(assign_bits(Workload("n", [table, norm]), "W4A6")).items()}
    assert got == {"ids": 10, "table.weight": 4, "table.out": 4, "norm.weight": 32, "norm.out": 32}


def test_a_request_that_says_nothing_means_what_its_words_mean() -> None:
    assert BitsRequest(4, 6, place="W4A6") == dataclasses.replace(read_bits("W4A6"), place="W4A6")


@pytest.mark.parametrize("config", ["auto", "3"])
def test_notes_say_which_row_of_table_1_was_taken(config: str) -> None:
    (note,) = (note for note in assign_bits(network(), "W4A4", config=config).notes if note.startswith("bits:"))
    said = {"auto": "by what makes each tensor", "3": "row 3 after activations"}
    assert said[config] in note
    assert not any(words in note for name, words in said.items() if name != config)


@pytest.mark.parametrize(("count", "more"), [(5, False), (6, True)])
def test_notes_name_five_arrays_without_a_quantizer_and_count_the_rest(count: int, more: bool) -> None:
    rows = Tensor("rows", (1, 4, 256), origin="input")
    out = [Tensor(f"t{i}.out", (1, 4, 256), origin="linear") for i in range(count)]
    tables = [
        Layer(f"t{i}", "layer_norm", (rows,), out[i], Tensor(f"t{i}.weight", (256,), origin="weight"))
        for i in range(count)
    ]
    norms = [
        Layer(f"n{i}", "layer_norm", (out[i],), Tensor(f"n{i}.out", (1, 4, 256), origin="linear"),
              Tensor(f"n{i}.weight", (256,), origin="weight"))
        for i in range(count)
    ]  # fmt: skip
    notes = assign_bits(Workload("n", [*tables, *norms]), "W4A4").notes
    (note,) = (note for note in notes if "pass no quantizer" in note)
    assert note.startswith(f"{count} arrays")
    assert ("and 1 more" in note, "t5" in note) == (more, False)


def test_a_float_network_without_a_default_names_only_tensors_that_got_no_bits() -> None:
    with pytest.raises(SpecError, match="add `default: W8A8`") as problem:
        assign_bits(network(), {"stem": "W4A4"})
    said = str(problem.value)
    assert "stem.weight" not in said
    assert "stem.out, relu.out, body.out and" in said
    given = {layer.name: {"weight": 4, "input": 4, "output": 4} for layer in network() if layer.weight is not None}
    every = {layer.name: {"input": 4, "output": 4} for layer in network()}
    assert all(t.bits == 4 for t in assign_bits(network(), every | given).tensors.values())


def test_a_float_network_needs_no_bits_for_its_norms_parameters() -> None:
    rows = Tensor("rows", (1, 4, 256), origin="image")
    norm = Layer("norm", "layer_norm", (rows,), Tensor("norm.out", (1, 4, 256), origin="linear"),
                 Tensor("norm.weight", (256,), origin="weight"))  # fmt: skip
    got = widths(assign_bits(Workload("n", [norm]), {"norm": {"input": 8, "output": 8}}))
    assert got == {"rows": 8, "norm.out": 8, "norm.weight": 32}


def test_padding_policies_are_set_where_an_offset_meets_padding() -> None:
    def policies(net: Workload) -> dict[str, str]:
        return {layer.name: layer.padding_policy for layer in net if layer.op == "conv"}

    assert policies(assign_bits(network(), "W4A4", config=4)) == {"stem": "", "body": "pad_code"}
    assert policies(assign_bits(network(), {"default": "W4A4", "config": 4, "padding_policy": "border_bias"})) == {
        "stem": "", "body": "border_bias",
    }  # fmt: skip
    assert policies(assign_bits(network(), "W4A4", config=1)) == {"stem": "", "body": ""}


def test_new_bits_drop_proven_accumulators_and_leave_a_note() -> None:
    net = Workload("n", [conv("c", Tensor("image", (1, 3, 8, 8), 8, origin="image"), accumulator_bits=17)])
    changed = assign_bits(net, "W4A4")
    assert changed.layers[0].accumulator_bits is None
    assert any("were replaced" in note for note in changed.notes)
    assert any("W4A4" in note for note in changed.notes)


# -- overrides --------------------------------------------------------------------------------------------------------


def widths(net: Workload) -> dict[str, int]:
    return {name: bits for name, (bits, _, _) in codes(net).items()}


def test_overrides_reach_tensors_and_whoever_shares_their_bits() -> None:
    bits = {"default": "W4A4", "body": {"weight": 8, "input": 6}, "fc": "W2A7", "relu": {"output": 5}}
    got = widths(assign_bits(network(), bits, elementwise_bits="same"))
    assert (got["body.weight"], got["fc.weight"], got["silu.out"]) == (8, 2, 4)
    assert got["relu.out"] == got["stem.out"] == 6  # the widest that is read
    assert got["add.input_quantizers.1.out"] == got["mul.out"] == 5  # the addition ties its inputs together
    assert got["pool.out"] == got["add.out"] == 7


def test_an_override_of_the_networks_output_is_kept() -> None:
    got = codes(assign_bits(network(), {"default": "W4A4", "fc": {"output": 8}}))
    assert got["fc.out"] == (8, True, False)


def test_activation_is_another_word_for_input() -> None:
    by_input = assign_bits(network(), {"default": "W4A4", "body": {"input": 6}})
    assert by_input.layers == assign_bits(network(), {"default": "W4A4", "body": {"activation": 6}}).layers


def test_later_patterns_win() -> None:
    got = widths(assign_bits(network(), {"default": "W4A4", "*": {"weight": 2}, "b?dy": {"weight": 3}}))
    assert (got["stem.weight"], got["body.weight"], got["fc.weight"]) == (2, 3, 2)


def test_without_a_default_a_quantized_network_keeps_the_rest() -> None:
    quantized = assign_bits(network(), "W8A8")
    got = widths(assign_bits(quantized, {"body": {"weight": 2}}))
    assert got == {**widths(quantized), "body.weight": 2}
    with pytest.raises(SpecError, match="add `default: W8A8`"):
        assign_bits(network(), {"body": {"weight": 2}})


@pytest.mark.parametrize(
    ("bits", "says"),
    [
        ({}, "expected `default: W4A4` or name patterns"),
        ({"default": "W4A4", "bdy": "W2A2"}, "bits: bdy: matches no layer; did you mean body?"),
        ({"default": "W4A4", "zzz*": "W2A2"}, "bits: zzz*: matches no layer; layers are called stem, relu, body"),
        ({"default": "W4A4", "relu": {"weight": 2}}, "layer relu (relu) has no weight"),
        ({"default": "W4A4", "body": {"wieght": 2}}, "bits: body.wieght: unknown key"),
        ({"default": "W4A4", "body": {"weight": 0}}, "bits: body.weight: expected a whole number from 1 to 16, got 0"),
        ({"default": "W4A4", "body": {"weight": "4"}}, "got '4'"),
        ({"default": "W4A4", "body": {"weight": True}}, "got True"),
        ({"default": "W4A4", "body": {"output": 33}}, "from 1 to 32"),
        ({"default": "W4A4", "body": {"input": 4, "activation": 4}}, "the same operand"),
        ({"default": "W4A4", "body": 4}, "expected W4A4 or {weight: 4, input: 4}, got 4"),
        ({"default": 4}, "bits: default: expected W<bits>A<bits>"),
        ({"default": "W4A4", "config": 5}, "bits: config: expected one of auto, 1, 2, 3, 4, got 5"),
        ({"default": "W4A4", "elementwise_bits": "float"}, "elementwise_bits: expected same or 1 to 16, got 'float'"),
        ({"default": "W4A4", "elementwise_bits": 17}, "elementwise_bits: expected same or 1 to 16, got 17"),
        ({"default": "W4A4", "first_last": "float"}, "first_last: expected one of same, 8bit"),
        ({"default": "W4A4", "stem": {"output": 4}, "add": {"input": 5}}, "must share bits"),
        ({"default": "W4A4", "relu": {"output": 4}, "add": {"input": 5}}, "tensor 'relu.out' would have 5 bits"),
        ({"default": "W4A4", "*": {"input": 4, "output": 5}}, "would have"),
    ],
)
def test_what_an_override_cannot_mean_is_refused(bits: Mapping[str, object], says: str) -> None:
    with pytest.raises(SpecError) as error:
        assign_bits(network(), bits)
    assert says in str(error.value)


def test_wrong_choices_are_refused() -> None:
    with pytest.raises(SpecError, match="config: expected one of auto, 1, 2, 3, 4, got '5'"):
        assign_bits(network(), "W4A4", config=5)
    with pytest.raises(SpecError, match="first_last: expected one of same, 8bit"):
        assign_bits(network(), "W4A4", first_last="none")


# -- files ------------------------------------------------------------------------------------------------------------


def test_a_file_says_the_same_as_a_mapping(tmp_path: Path) -> None:
    path = tmp_path / "bits.yaml"
    path.write_text("default: W4A4\nconfig: 3\nfirst_last: 8bit\nb*: {weight: 2}\nfc: W8A8\n")
    same = {"default": "W4A4", "config": 3, "first_last": "8bit", "b*": {"weight": 2}, "fc": "W8A8"}
    from_file = assign_bits(network(), str(path))
    assert from_file.layers == assign_bits(network(), same).layers
    assert from_file.layers == assign_bits(network(), path).layers


def test_every_problem_of_a_file_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "bits.yaml"
    path.write_text("default: W4\nbody:\n  weight: 4k\n  colour: 3\nfc: [1]\nfirst_last: all\n")
    with pytest.raises(SpecError) as error:
        read_bits(path)
    text = str(error.value)
    assert f"{path}:1: default: expected W<bits>A<bits>" in text
    assert f"{path}:3: body.weight: expected a whole number from 1 to 16, got '4k'" in text
    assert f"{path}:4: body.colour: unknown key" in text
    assert f"{path}:5: fc: expected W4A4 or" in text
    assert f"{path}:6: first_last: expected one of same, 8bit, got 'all'" in text


@pytest.mark.parametrize("content", ["", "- W4A4\n", "W4A4\n", "default: W4A4\ndefault: W8A8\n", "a: &x W4A4\nb: *x\n"])
def test_files_of_another_form_are_refused_with_their_place(tmp_path: Path, content: str) -> None:
    path = tmp_path / "bits.yaml"
    path.write_text(content)
    with pytest.raises(SpecError, match=r"bits\.yaml:\d"):
        assign_bits(network(), str(path))


def test_unknown_layers_in_a_file_are_named_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "bits.yaml"
    path.write_text("default: W4A4\n\nstemm: W8A8\n")
    with pytest.raises(SpecError, match=r"bits\.yaml:3: stemm: matches no layer; did you mean stem"):
        assign_bits(network(), str(path))


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"none\.yaml: cannot be read"):
        assign_bits(network(), str(tmp_path / "none.yaml"))
    with pytest.raises(SpecError, match="is a folder"):
        assign_bits(network(), str(tmp_path))


def test_the_command_line_may_not_contradict_the_file() -> None:
    bits = {"default": "W4A4", "config": 1}
    assert read_bits(bits, config="1").config == "1"
    with pytest.raises(SpecError, match="config: says 1, the command line says 4"):
        read_bits(bits, config=4)
    bits = {"default": "W4A4", "first_last": "same", "elementwise_bits": 4}
    assert read_bits(bits, "auto", "same", 4) == read_bits(bits)
    for first_last, between in (("8bit", None), (None, 8), (None, "same")):
        with pytest.raises(SpecError, match="the command line says"):
            read_bits(bits, "auto", first_last, between)


# -- groups -----------------------------------------------------------------------------------------------------------


def test_groups_are_the_tensors_that_must_share_bits() -> None:
    assert {frozenset(group) for group in sharing_groups(network())} == {
        frozenset(("stem.out", "relu.out", "mul.out")),  # fused ReLU, then the inputs of the addition
        frozenset(("body.out", "silu.out")),
        frozenset(("squeeze.out", "gate.out")),
        frozenset(("add.out", "pool.out")),  # max pooling
    }


def test_a_concatenation_ties_its_parts_and_its_result() -> None:
    left = conv("left", Tensor("image", (1, 3, 8, 8), origin="image"))
    right = conv("right", Tensor("image", (1, 3, 8, 8), origin="image"))
    cat = vector("cat", "concat", left.output, right.output)
    assert {frozenset(group) for group in sharing_groups(Workload("n", [left, right, cat]))} == {
        frozenset(("left.out", "right.out", "cat.out"))
    }


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["stem", "body", "fc", "relu", "silu", "gate", "mul", "add", "pool"]),
        st.fixed_dictionaries({}, optional={"input": st.integers(1, 8), "output": st.integers(1, 8)}).filter(bool),
        max_size=3,
    ),
    st.sampled_from(["same", "8bit"]),
)
def test_additions_read_one_width_whatever_the_overrides(overrides: dict[str, dict[str, int]], ends: str) -> None:
    try:
        found = assign_bits(network(), {"default": "W4A4", **overrides}, first_last=ends)
    except SpecError:
        return  # contradictions are refused, which other tests check
    layers = {layer.name: layer for layer in found}
    assert len({tensor.bits for tensor in layers["add"].inputs}) == 1
    for name, entry in overrides.items():
        if "input" in entry and name in ("stem", "body", "fc", "mul"):
            assert {tensor.bits for tensor in layers[name].inputs} == {entry["input"]}
    again = assign_bits(found, {"default": "W4A4", **overrides}, first_last=ends)
    assert again.layers == found.layers


def test_widths_are_those_of_the_quantizers() -> None:
    spec = pytest.importorskip("quant.spec")
    assert spec.ALLOWED_BITS == WIDTHS
