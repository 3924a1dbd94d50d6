"""Graphs that no exporter writes: without an order, and functions without an end. Each is refused, none is followed."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from hwsim.errors import WorkloadError
from hwsim.frontends.argument import load_model_argument

OPSETS = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]


def calling(kind: str, x: str, y: str) -> Any:
    """A node of the file's own domain, or a ReLU."""
    return helper.make_node(kind, [x], [y], domain="" if kind == "Relu" else "own")


def function(name: str, *kinds: str) -> Any:
    """One after the other."""
    places = ["x", *(f"m{number}" for number in range(len(kinds) - 1)), "y"]
    nodes = [calling(kind, *ends) for kind, ends in zip(kinds, itertools.pairwise(places), strict=True)]
    return helper.make_function("own", name, ["x"], ["y"], nodes, OPSETS)


def refused(nodes: list[Any], folder: Path, *functions: Any) -> str:
    """What is said about a network."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 8, 8]) for name in ("x", "y")]
    ends[1].type.tensor_type.ClearField("shape")
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph, opset_imports=OPSETS, functions=functions), folder / "net.onnx")
    with pytest.raises(WorkloadError) as problem:
        load_model_argument(str(folder / "net.onnx"))
    return str(problem.value)


def test_a_graph_with_a_cycle_is_refused_by_the_tensor_that_depends_on_itself(tmp_path: Path) -> None:
    nodes = [helper.make_node("Add", ["x", "b"], ["a"]), calling("Relu", "a", "b"), calling("Relu", "b", "y")]
    assert "depends on itself" in refused(nodes, tmp_path)
    assert "'y' depends on itself" in refused([calling("Relu", "y", "y")], tmp_path)


def test_functions_that_call_themselves_are_refused_by_name(tmp_path: Path) -> None:
    call = [calling("A", "x", "y")]
    assert "function A calls itself" in refused(call, tmp_path, function("A", "A"))
    assert "function A calls itself" in refused(call, tmp_path, function("A", "Relu", "B"), function("B", "A", "Relu"))


def test_functions_are_counted_before_they_are_written_out(tmp_path: Path) -> None:
    """Forty that each call the one before twice: 2^40 nodes, in a file of three kilobytes."""
    doubling = [function("D0", "Relu", "Relu")]
    doubling += [function(f"D{n}", f"D{n - 1}", f"D{n - 1}") for n in range(1, 40)]
    said = refused([calling("D39", "x", "y")], tmp_path, *doubling)
    assert f"{2**40:,} nodes with its functions" in said
    chain = [function("D0", "Relu"), *(function(f"D{n}", f"D{n - 1}") for n in range(1, 2000))]
    assert "deep" in refused([calling("D1999", "x", "y")], tmp_path, *chain)
