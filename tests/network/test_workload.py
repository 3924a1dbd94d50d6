"""The workload: what it refuses, what survives saving, and what its graph says."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from hwsim.errors import WorkloadError
from hwsim.network.layer import Layer, Loops, Tensor, activation_inputs, max_magnitude
from hwsim.network.saved import from_dict, load_workload
from hwsim.network.workload import Coverage, FreeOp, Uncosted, Workload


def image(name: str = "x", bits: int = 8) -> Tensor:
    return Tensor(name, (1, 3, 8, 8), bits, origin="image")


def conv(name: str, source: Tensor, k: int = 4, bits: int = 8, **changes: Any) -> Layer:
    """A 3x3 convolution with padding 1 and stride 1."""
    n, c, h, w = source.shape
    layer = Layer(
        name,
        "conv",
        (source,),
        Tensor(f"{name}.out", (n, k, h, w), bits, origin="linear"),
        Tensor(f"{name}.weight", (k, c, 3, 3), bits, origin="weight"),
        Loops(n, 1, k, c, h, w, 3, 3),
        padding=(1, 1, 1, 1),
    )
    return dataclasses.replace(layer, **changes)


def residual() -> Workload:
    """conv1, conv2 and an addition of both outputs, then a product with itself."""
    first = conv("conv1", image(), k=3)
    second = conv("conv2", first.output, k=3)
    add = Layer("add", "add", (second.output, first.output), Tensor("add.out", (1, 3, 8, 8), 8, origin="add"))
    rows = Tensor("add.out", (3, 64), 8, origin="add")
    columns = Tensor("add.out", (64, 3), 8, origin="add")
    gram = Layer(
        "gram",
        "matmul",
        (rows,),
        Tensor("gram.out", (3, 3), 16),
        columns,
        Loops(K=3, C=64, P=3),
        weight_is_activation=True,
    )
    coverage = Coverage(6, 5, (Uncosted("x", "aten.foo", 10, None),), (FreeOp("view", 1, "address arithmetic"),))
    return Workload("net", [first, second, add, gram], coverage, ("a note",))


def test_macs_are_the_product_of_all_loops() -> None:
    assert Loops(2, 3, 5, 7, 11, 13, 17, 19).macs == 2 * 3 * 5 * 7 * 11 * 13 * 17 * 19
    assert residual().macs == 2 * (3 * 3 * 64 * 9) + 3 * 3 * 64


def test_edges_follow_tensors_through_the_network() -> None:
    graph = residual().graph
    edges = {(a, b, data["tensor"]) for a, b, data in graph.edges(data=True)}
    assert edges == {
        ("conv1", "conv2", "conv1.out"),
        ("conv2", "add", "conv2.out"),
        ("conv1", "add", "conv1.out"),
        ("add", "gram", "add.out"),
    }
    assert graph.nodes["add"]["layer"].op == "add"


def test_a_product_of_activations_reads_both_operands() -> None:
    gram = residual().layers[-1]
    assert [t.shape for t in activation_inputs(gram)] == [(3, 64), (64, 3)]


def test_accumulator_holds_the_largest_possible_sum() -> None:
    layer = conv("c", image())
    terms = layer.loops.C * layer.loops.R * layer.loops.S
    largest = terms * 128 * 128
    bits = layer.accumulator_bits_needed()
    assert -(2 ** (bits - 1)) <= -largest
    assert largest <= 2 ** (bits - 1) - 1 < 2 * largest
    assert max_magnitude(Tensor("u", (1,), 4, signed=False)) == 15
    assert dataclasses.replace(layer, accumulator_bits=19).accumulator_bits_needed() == 19


def test_the_longest_sum_of_a_convolution_is_its_channels_times_its_window() -> None:
    wide = dataclasses.replace(conv("c", image()), loops=Loops(C=100, R=7, S=5))
    assert wide.accumulator_bits_needed() == (100 * 7 * 5 * 128 * 128).bit_length() + 1


def test_bit_operations_and_the_key_of_widths_are_those_of_both_operands() -> None:
    layer = conv("c", image(bits=4), bits=6)
    assert layer.bops == layer.macs * 6 * 4
    assert layer.bits_key() == (6, 4, 6, layer.accumulator_bits_needed())
    add = residual().layers[2]
    assert (add.bops, add.bits_key()) == (0, (0, 8, 8, 8))


@pytest.mark.parametrize("over", ["K", "C"])
@pytest.mark.parametrize(("new", "keys", "block"), [(512, 512, 128), (300, 512, 128), (7, 20, 3), (5, 5, 1)])
def test_a_causal_kernel_does_the_blocks_that_some_token_sees(over: str, new: int, keys: int, block: int) -> None:
    layer = dataclasses.replace(
        residual().layers[2], causal_rows=new, causal_over=over, loops=Loops(**{"K": 3, "C": 3, over: keys})
    )
    last_rows = (min(row // block * block + block, new) for row in range(new))
    seen = sum(keys - new + last for last in last_rows)
    assert layer.causal_share(block) == Fraction(seen, new * keys)
    assert layer.causal_share(0) == 1


def test_a_tensor_is_of_floats_with_one_fixed_scale_unless_said() -> None:
    tensor = Tensor("t", (2, 3))
    assert (tensor.bits, tensor.signed, tensor.offset, tensor.scales, tensor.run_time) == (32, True, False, 1, False)


def test_shares_count_what_has_no_price() -> None:
    known = Uncosted("a", "aten.conv3d", 100, macs=residual().macs)
    hidden = Uncosted("b", "aten.foo", 20, None)
    net = Workload("net", residual().layers, Coverage(10, 8, (known, hidden)))
    made = sum(layer.output.elements for layer in net)
    assert net.shares.macs == 0.5
    assert net.shares.elements == made / (made + 120)
    assert net.shares.operators == 0.8
    assert net.shares.unknown_macs == 1


def test_quantized_means_some_operand_is_below_32_bits() -> None:
    assert residual().quantized
    assert not residual().map_tensors(lambda t: dataclasses.replace(t, bits=32)).quantized


def test_saving_and_loading_gives_the_same_workload(tmp_path: Path) -> None:
    net = residual()
    net.save(tmp_path / "folder" / "net.json")
    loaded = load_workload(tmp_path / "folder" / "net.json")
    assert loaded == net
    assert loaded.layers == net.layers
    assert loaded.coverage == net.coverage
    assert loaded.notes == net.notes
    assert [p.name for p in (tmp_path / "folder").iterdir()] == ["net.json"]


def test_the_identity_of_the_trained_network_is_saved_and_an_unknown_one_is_not(tmp_path: Path) -> None:
    assert "identity" not in residual().to_dict()
    residual().with_identity("0123456789abcdef").save(tmp_path / "net.json")
    assert load_workload(tmp_path / "net.json").identity == "0123456789abcdef"


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "net.json"
    residual().save(path)
    before = path.read_text()
    net = residual()
    net.notes = (object(),)  # type: ignore[assignment]
    with pytest.raises(TypeError):
        net.save(path)
    assert path.read_text() == before
    assert [p.name for p in tmp_path.iterdir()] == ["net.json"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"loops": Loops(1, 1, 4, 3, 8, 8, 3, 2)}, "weight has 108 elements"),
        ({"loops": Loops(1, 1, 4, 3, 8, 7, 3, 3)}, "output has 256 elements"),
        ({"stride": (2, 1)}, "output rows are 8"),
        ({"padding": (1, 1, 0, 0)}, "output columns are 8"),
        ({"dilation": (1, 2)}, "output columns are 8"),
        ({"padding": (1, 1, 1, -1)}, "padding not negative"),
        ({"stride": (0, 1)}, "must be positive"),
        ({"op": "convolution"}, "unknown op 'convolution'"),
        ({"weight": None}, "needs a weight"),
        ({"output": Tensor("o", (1, 4, 8, 8), 0)}, "bits must be 1..64"),
        ({"output": Tensor("o", (1, 4, 0, 8))}, "sizes must be positive"),
        ({"inputs": (Tensor("x", (1, 5, 8, 8)),)}, "expected an input of shape"),
        ({"inputs": (Tensor("x", (3, 8, 8)),)}, "expected an input of shape"),
        ({"inputs": (Tensor("x", (1, 3, 2**30, 2**30)),)}, "more than the"),
    ],
)
def test_contradicting_shapes_are_refused_with_both_numbers(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(WorkloadError, match="layer c:") as error:
        Workload("net", [conv("c", image(), **changes)])
    assert says in str(error.value)


def test_one_tensor_has_one_kind_of_codes() -> None:
    first = conv("conv1", image(), k=3)
    second = conv("conv2", dataclasses.replace(first.output, bits=4), k=3)
    with pytest.raises(
        WorkloadError, match=r"conv2: tensor 'conv1.out' has 4 signed bits, but 8 signed bits in layer conv1"
    ):
        Workload("net", [first, second])


def test_names_are_unique_and_networks_not_empty() -> None:
    with pytest.raises(WorkloadError, match="two layers are called 'c'"):
        Workload("net", [conv("c", image()), conv("c", image())])
    with pytest.raises(WorkloadError, match="at least one layer"):
        Workload("net", [])
    twin = dataclasses.replace(conv("d", image()), output=conv("c", image()).output)
    with pytest.raises(WorkloadError, match="already produced"):
        Workload("net", [conv("c", image()), twin])


def drop(key: str) -> Callable[[dict[str, Any]], None]:
    return lambda data: data.pop(key)


def put(value: Any, *path: str | int) -> Callable[[dict[str, Any]], None]:
    """Set a value deep inside the JSON form."""

    def change(data: dict[str, Any]) -> None:
        place: Any = data
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (drop("layers"), "'layers' is missing"),
        (drop("format"), "expected a saved workload"),
        (put(99, "format_version"), "format_version 99"),
        (put("8", "layers", 0, "output", "bits"), "layers[0].output.bits: expected int, got '8'"),
        (put(True, "layers", 0, "output", "bits"), "layers[0].output.bits: expected int, got True"),
        (put(8.0, "layers", 0, "output", "bits"), "layers[0].output.bits: expected int, got 8.0"),
        (put([1, 2], "layers", 0, "padding"), "layers[0].padding: expected 4 integers, got 2"),
        (put(1, "layers", 0, "colour"), "layers[0]: unknown key 'colour'"),
        (put([], "layers", 0, "loops"), "layers[0].loops: expected an object"),
        (put([3], "layers"), "layers[0]: expected an object"),
        (put([1, -3, 8, 8], "layers", 0, "inputs", 0, "shape"), "sizes must be positive"),
        (put(10**30, "layers", 0, "loops", "K"), "layer conv1:"),
        (put([], "layers"), "at least one layer"),
        (put(5, "layers"), "layers and notes: expected lists"),
        (put(5, "name"), "name: expected str, got 5"),
        (put(5, "coverage", "uncosted"), "coverage.uncosted: expected a list"),
        (put(None, "layers", 0, "output"), "layer"),
    ],
)
def test_bad_json_is_named_with_its_place(tmp_path: Path, spoil: Callable[[dict[str, Any]], None], says: str) -> None:
    data = json.loads(json.dumps(residual().to_dict()))
    spoil(data)
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(data))
    with pytest.raises(WorkloadError) as error:
        load_workload(path)
    assert str(error.value).startswith(f"{path}: ")
    assert says in str(error.value)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe\x00", b"[]", b"null", b'"text"', b'{"format": NaN}', b"[" * 100_000],
    ids=["empty", "truncated", "binary", "list", "null", "text", "nan", "deep"],
)
def test_files_that_are_no_workload_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    with pytest.raises(WorkloadError, match=r"bad\.json"):
        load_workload(path)


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match="cannot be read"):
        load_workload(tmp_path / "none.json")
    with pytest.raises(WorkloadError, match="cannot be read"):
        load_workload(tmp_path)


def test_from_dict_refuses_other_types() -> None:
    with pytest.raises(WorkloadError, match="expected a saved workload"):
        from_dict([1, 2])
