"""ONNX nodes that stand for others: loops, lists of tensors, definitions of the standard, parts without elements."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwsim.errors import HwsimError, UnsupportedOp, WorkloadError
from hwsim.frontends.argument import load_model_argument
from tests.frontends.test_onnx_forms import Graph, T, linear_of, onnx

ROWS = 7 * 64 * 8  # MACs of the whole input times a stored (64, 8)


def numbers(net: Graph, *values: int) -> str:
    return net.constant(np.array(values, np.int64))


def one(net: Graph, value: int = 0) -> str:
    return net.constant(np.int64(value))


def graph_of(nodes: list[Any], inputs: list[tuple[str, int, Any]], outputs: list[tuple[str, int, Any]]) -> Any:
    info = onnx.helper.make_tensor_value_info
    return onnx.helper.make_graph(nodes, "body", [info(*i) for i in inputs], [info(*o) for o in outputs])


# -- loops -------------------------------------------------------------------------------------------------------------


def scan(net: Graph, axis: int, backwards: int) -> str:
    """A running sum of rows, each times a matrix; its first state depends on the input."""
    make = onnx.helper.make_node
    nodes = [
        make("MatMul", ["s", net.stored(64, 64)], ["m"]),
        make("Add", ["m", "row"], ["t"]),
        make("Relu", ["t"], ["y"]),
    ]
    state, row = ("s", T.FLOAT, [1, 64]), ("row", T.FLOAT, [1, 64])
    body = graph_of(nodes, [state, row], [("t", T.FLOAT, [1, 64]), ("y", T.FLOAT, [1, 64])])
    x = "x" if axis else net.op("Transpose", "x", perm=[1, 0, 2])
    begin = net.op("ReduceMean", "x", numbers(net, 1), keepdims=0)
    options: dict[str, Any] = {f"scan_{end}_{word}": [value] for end in ("input", "output")
               for word, value in (("axes", axis), ("directions", backwards))}  # fmt: skip
    return net.op("Scan", begin, x, body=body, num_scan_inputs=1, outs=2, **options)[1]


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("backwards", [0, 1])
def test_a_scan_goes_along_any_axis_either_way(tmp_path: Path, axis: int, backwards: int) -> None:
    net = Graph((1, 7, 64))
    found = load_model_argument(str(net.saved(tmp_path, scan(net, axis, backwards))))
    assert (found.macs, found.layers[-1].output.elements) == (7 * 64 * 64, 7 * 64)


def loop(net: Graph, until: str) -> str:
    """A product at every step; what ends it: a counter among the states, or the step's own number."""
    make = onnx.helper.make_node
    product = make("MatMul", ["s", net.stored(64, 64)], ["t"])
    entry, go, state = ("i", T.INT64, []), ("go", T.BOOL, []), ("s", T.FLOAT, None)
    limit, step = one(net, 2), one(net, 1)
    if until == "a counter":
        nodes = [product, make("Add", ["n", step], ["more"]), make("Less", ["more", limit], ["on"])]
        body = graph_of(nodes, [entry, go, ("n", T.INT64, []), state],
                        [("on", T.BOOL, []), ("more", T.INT64, []), ("t", T.FLOAT, None)])  # fmt: skip
        return net.op("Loop", "", net.constant(np.bool_(True)), one(net), "x", body=body, outs=2)[1]
    nodes = [product, make("Less", ["i", step], ["on"])]
    body = graph_of(nodes, [entry, go, state], [("on", T.BOOL, []), ("t", T.FLOAT, None)])
    return net.op("Loop", one(net, 10), "", "x", body=body)


@pytest.mark.parametrize("until", ["a counter", "its number"])
def test_a_loop_that_ends_by_known_numbers_is_written_out(tmp_path: Path, until: str) -> None:
    net = Graph((1, 7, 64))
    assert load_model_argument(str(net.saved(tmp_path, loop(net, until)))).macs == 2 * 7 * 64 * 64


def test_a_loop_that_does_not_begin_hands_its_states_on(tmp_path: Path) -> None:
    net = Graph((1, 7, 64))
    made = loop(net, "its number")
    net.nodes[-1].input[0] = one(net, 0)
    assert load_model_argument(str(net.saved(tmp_path, linear_of(net, made, 64, 8)))).macs == ROWS


# -- lists -------------------------------------------------------------------------------------------------------------


def split_in_two(net: Graph) -> str:
    parts = net.op("SplitToSequence", "x", numbers(net, 2, 5), axis=1)
    rows = [linear_of(net, net.op("SequenceAt", parts, one(net, i)), 64, 8) for i in (0, -1)]
    return net.op("Concat", *rows, axis=1)


def built_up(net: Graph) -> str:
    parts = net.op("SequenceInsert", net.op("SequenceEmpty"), "x")
    parts = net.op("SequenceInsert", parts, net.op("Relu", "x"), one(net, 0))
    parts = net.op("SequenceErase", net.op("Identity", parts), one(net, 0))
    return linear_of(net, net.op("ConcatFromSequence", parts, axis=0, new_axis=1), 64, 8)


def rows_apart(net: Graph) -> str:
    parts = net.op("SplitToSequence", "x", axis=1, keepdims=0)
    turns = net.op("SequenceLength", parts)
    row = net.op("SequenceAt", parts, net.op("Sub", turns, one(net, 1)))
    return linear_of(net, net.op("Concat", "x", net.op("Unsqueeze", row, numbers(net, 1)), axis=1), 64, 8)


def optional(net: Graph) -> str:
    held = net.op("Optional", "x")
    product = onnx.helper.make_node("MatMul", [net.op("OptionalGetElement", held), net.stored(64, 8)], ["t"])
    branches = [graph_of([node], [], [(node.output[0], T.FLOAT, None)])
                for node in (product, onnx.helper.make_node("Relu", ["x"], ["e"]))]  # fmt: skip
    there = net.op("OptionalHasElement", held)
    return net.op("If", there, then_branch=branches[0], else_branch=branches[1])


LISTS: dict[str, tuple[Callable[[Graph], str], int]] = {
    "split": (split_in_two, ROWS), "built up": (built_up, ROWS), "rows": (rows_apart, 8 * 64 * 8),
    "optional": (optional, ROWS),
}  # fmt: skip


@pytest.mark.parametrize("name", LISTS)
def test_lists_of_known_members_are_their_members(tmp_path: Path, name: str) -> None:
    net, (build, macs) = Graph((1, 7, 64)), LISTS[name]
    assert load_model_argument(str(net.saved(tmp_path, build(net)))).macs == macs


def test_a_list_as_an_input_is_refused_with_the_way_out(tmp_path: Path) -> None:
    net = Graph((1, 7, 64))
    tensors = onnx.helper.make_tensor_type_proto(T.FLOAT, (1, 7, 64))
    net.input = onnx.helper.make_value_info("x", onnx.helper.make_sequence_type_proto(tensors))
    path = net.saved(tmp_path, net.op("SequenceAt", "x", one(net)))
    with pytest.raises(WorkloadError, match=r"'x' is a list or an optional.*export the network with tensors"):
        load_model_argument(str(path))


# -- sizes, types, definitions -----------------------------------------------------------------------------------------


def test_a_part_without_elements_is_left_out(tmp_path: Path) -> None:
    net = Graph((1, 7, 64))
    nothing = net.op("Slice", "x", numbers(net, 7), numbers(net, 9), numbers(net, 1))
    whole = net.op("Concat", "x", net.op("Relu", nothing), axis=1)
    assert load_model_argument(str(net.saved(tmp_path, linear_of(net, whole, 64, 8)))).macs == ROWS


def test_an_input_without_elements_is_no_open_size(tmp_path: Path) -> None:
    net = Graph((0, 7, 64))
    path = net.saved(tmp_path, linear_of(net, "x", 64, 8))
    with pytest.raises(
        WorkloadError, match=r"input x \(0, 7, 64\) has no elements: give them all with --input x=N,N,N"
    ):
        load_model_argument(str(path))


def test_a_constant_cast_like_the_input_stays_a_constant(tmp_path: Path) -> None:
    net = Graph((1, 7, 64))
    weight = net.op("CastLike", net.stored(64, 8), "x")
    found = load_model_argument(str(net.saved(tmp_path, net.op("MatMul", "x", weight))))
    assert (found.macs, found.layers[0].op) == (ROWS, "linear")


def test_an_operator_without_a_handler_is_read_by_its_definition(tmp_path: Path) -> None:
    net = Graph((1, 4, 6, 6))
    found = load_model_argument(str(net.saved(tmp_path, net.op("MeanVarianceNormalization", "x", axes=[2, 3]))))
    assert [layer.op for layer in found][-1] == "div"
    assert not found.coverage.uncosted


def node_cases(*modules: str) -> list[Any]:
    """The onnx package's own tests of operators, and of their definitions, by their modules."""
    node = pytest.importorskip("onnx.backend.test.case.node")
    with warnings.catch_warnings(action="ignore"):
        for module in modules:
            pytest.importorskip(f"onnx.backend.test.case.node.{module}")
    return list(node._NodeTestCases)


@pytest.mark.long
def test_a_definition_has_the_macs_of_its_operator(tmp_path: Path) -> None:
    cases = {case.name: case for case in node_cases("attention", "rotaryembedding", "layernormalization")}
    found: dict[str, int] = {}
    for name, case in cases.items():
        onnx.save(case.model, str(tmp_path / "net.onnx"))
        try:
            found[name] = load_model_argument(str(tmp_path / "net.onnx")).macs
        except HwsimError:  # refused by name, as the tests above have it
            continue
    twins = [name for name in found if f"{name}_expanded" in found]
    assert len(twins) > 20
    assert [name for name in twins if found[name] != found[f"{name}_expanded"]] == []


@pytest.mark.parametrize(("rate", "macs"), [(16000, 4 * 8 * 16), (8000, 4 * 8 * 2)])
def test_a_number_given_for_an_input_decides_an_if_on_it(tmp_path: Path, rate: int, macs: int) -> None:
    """A network for two sample rates, as voice detectors are exported."""
    make, number = onnx.helper.make_node, onnx.TensorProto

    def branch(width: int) -> Any:
        weight = onnx.numpy_helper.from_array(np.ones((8, width), np.float32), f"w{width}")
        out = onnx.helper.make_tensor_value_info(f"y{width}", number.FLOAT, None)
        return onnx.helper.make_graph(
            [make("MatMul", ["x", f"w{width}"], [f"y{width}"])], "branch", [], [out], [weight]
        )

    nodes = [
        make("Equal", ["sr", "rate"], ["is_wide"]),
        make("If", ["is_wide"], ["y"], then_branch=branch(16), else_branch=branch(2)),
    ]
    inputs = [
        onnx.helper.make_tensor_value_info("x", number.FLOAT, [4, 8]),
        onnx.helper.make_tensor_value_info("sr", number.INT64, []),
    ]
    outputs = [onnx.helper.make_tensor_value_info("y", number.FLOAT, None)]
    graph = onnx.helper.make_graph(
        nodes, "rates", inputs, outputs, [onnx.numpy_helper.from_array(np.array(16000), "rate")]
    )
    path = tmp_path / "rates.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10), str(path))
    assert load_model_argument(str(path), {"sr": (rate,)}).macs == macs
    with pytest.raises(UnsupportedOp, match="If"):
        load_model_argument(str(path))
