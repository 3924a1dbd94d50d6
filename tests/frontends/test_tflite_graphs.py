"""TFLite files of several graphs: branches, loops, calls; each equal to the file with its steps written out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hwsim.errors import UnsupportedOp, WorkloadError
from hwsim.frontends.argument import load_model_argument
from hwsim.network.workload import Workload
from tests.frontends.tflite_files import G, O, T, write

STEPS = 5
WEIGHT = np.ones((8, 8), np.int8)


def number(value: int) -> T:
    return T((), "int32", None, data=np.asarray(value, np.int32))


def layer(inputs: int, outputs: int) -> list[T]:
    """(x, stored weights, result) of one fully connected layer."""
    weights = T((outputs, inputs), data=np.ones((outputs, inputs), np.int8))
    return [T((2, inputs)), weights, T((2, outputs))]


def below(limit: int) -> G:
    """A condition: the counter is below a stored number."""
    tensors = [T((), "int32", None), T((2, 8)), number(limit), T((), "bool", None)]
    return G(tensors, [O("LESS", (0, 2), (3,))], (0, 1), (3,))


def one_step() -> G:
    """A body: one layer, and the counter plus 1."""
    tensors = [T((), "int32", None), T((2, 8)), T((8, 8), data=WEIGHT), T((2, 8)), number(1), T((), "int32", None)]
    return G(tensors, [O("FULLY_CONNECTED", (1, 2), (3,)), O("ADD", (0, 4), (5,))], (0, 1), (5, 3))


def loop(path: Path, start: T, inputs: tuple[int, ...] = (0,)) -> Path:
    tensors = [T((2, 8)), start, T((), "int32", None), T((2, 8))]
    calls = [O("WHILE", (1, 0), (2, 3), {"condition": 1, "body": 2})]
    return write(path, tensors, calls, inputs, (3,), bodies=[below(STEPS), one_step()])


def read(path: Path) -> Workload:
    return load_model_argument(str(path))


def test_a_loop_of_known_steps_is_its_steps_with_one_set_of_weights(tmp_path: Path) -> None:
    network = read(loop(tmp_path / "loop.tflite", number(2)))
    assert network.macs == (STEPS - 2) * 2 * 8 * 8
    weights = {found.weight.name for found in network if found.weight is not None}
    assert len(weights) == 1
    assert {found.weight.bits for found in network if found.weight is not None} == {8}
    written = [T((2, 8)), T((8, 8), data=WEIGHT), *(T((2, 8)) for _ in range(3))]
    steps = [O("FULLY_CONNECTED", (0, 1), (2,)), O("FULLY_CONNECTED", (2, 1), (3,)), O("FULLY_CONNECTED", (3, 1), (4,))]
    twin = read(write(tmp_path / "twin.tflite", written, steps))
    assert [found.loops for found in network] == [found.loops for found in twin]
    assert not [note for note in network.notes if "further graphs" in note]


def test_a_loop_whose_counter_is_an_input_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(
        UnsupportedOp, match=r"tflite.WHILE \(what it runs, or how often, depends on the input's values"
    ):
        read(loop(tmp_path / "loop.tflite", T((), "int32", None), (0, 1)))


@pytest.mark.parametrize(("condition", "macs"), [(True, 2 * 8 * 4), (False, 2 * 8 * 6)])
def test_a_branch_with_a_known_condition_is_taken(condition: bool, macs: int, tmp_path: Path) -> None:
    tensors = [T((2, 8)), T((), "bool", None, data=np.asarray(condition)), T((2, 4))]
    bodies = [G(layer(8, n), [O("FULLY_CONNECTED", (0, 1), (2,))], (0,), (2,)) for n in (4, 6)]
    branch = O("IF", (1, 0), (2,), {"then": 1, "otherwise": 2})
    assert read(write(tmp_path / "if.tflite", tensors, [branch], bodies=bodies)).macs == macs


def test_a_branch_on_the_input_is_refused_by_name(tmp_path: Path) -> None:
    tensors = [T((2, 8)), T((), "bool", None), T((2, 4))]
    bodies = [G(layer(8, 4), [O("FULLY_CONNECTED", (0, 1), (2,))], (0,), (2,))] * 2
    branch = O("IF", (1, 0), (2,), {"then": 1, "otherwise": 2})
    with pytest.raises(UnsupportedOp, match=r"tflite\.IF"):
        read(write(tmp_path / "if.tflite", tensors, [branch], (0, 1), bodies=bodies))


@pytest.mark.parametrize("kind", ["CALL", "STABLEHLO_COMPOSITE"])
def test_a_call_is_the_graph_that_it_calls(kind: str, tmp_path: Path) -> None:
    body = G(layer(8, 4), [O("FULLY_CONNECTED", (0, 1), (2,))], (0,), (2,))
    tensors = [T((2, 8)), T((2, 4)), T((2, 4))]
    calls = [O(kind, (0,), (1,), {"body": 1}), O(kind, (0,), (2,), {"body": 1})]
    network = read(write(tmp_path / "call.tflite", tensors, calls, bodies=[body]))
    assert network.macs == 2 * 2 * 8 * 4
    assert len({found.weight.name for found in network if found.weight is not None}) == 1


def test_a_branch_inside_a_loop_follows_its_counter(tmp_path: Path) -> None:
    """Every step asks whether its counter is below 3: then 8 x 8, else 8 x 6 x 8."""
    down, up = (T(shape, data=np.ones(shape, np.int8)) for shape in ((6, 8), (8, 6)))
    wide = G([T((2, 8)), down, T((2, 6)), up, T((2, 8))],
             [O("FULLY_CONNECTED", (0, 1), (2,)), O("FULLY_CONNECTED", (2, 3), (4,))], (0,), (4,))  # fmt: skip
    plain = G(layer(8, 8), [O("FULLY_CONNECTED", (0, 1), (2,))], (0,), (2,))
    step = G(
        [T((), "int32", None), T((2, 8)), number(3), T((), "bool", None), T((2, 8)), number(1), T((), "int32", None)],
        [O("LESS", (0, 2), (3,)), O("IF", (3, 1), (4,), {"then": 3, "otherwise": 4}), O("ADD", (0, 5), (6,))],
        (0, 1), (6, 4),
    )  # fmt: skip
    tensors = [T((2, 8)), number(0), T((), "int32", None), T((2, 8))]
    calls = [O("WHILE", (1, 0), (2, 3), {"condition": 1, "body": 2})]
    made = write(tmp_path / "both.tflite", tensors, calls, (0,), (3,), bodies=[below(STEPS), step, plain, wide])
    assert read(made).macs == 3 * 2 * 64 + 2 * 2 * 96


def test_a_graph_that_is_not_there_is_refused(tmp_path: Path) -> None:
    tensors = [T((2, 8)), T((), "bool", None, data=np.asarray(True)), T((2, 4))]
    with pytest.raises(WorkloadError, match="IF calls graph 7 of 1"):
        read(write(tmp_path / "if.tflite", tensors, [O("IF", (1, 0), (2,), {"then": 7, "otherwise": 0})]))


def test_a_graph_that_calls_itself_is_refused(tmp_path: Path) -> None:
    body = G([T((2, 8)), T((2, 8))], [O("CALL", (0,), (1,), {"body": 1})], (0,), (1,))
    with pytest.raises((UnsupportedOp, WorkloadError), match="CALL"):
        read(
            write(tmp_path / "call.tflite", [T((2, 8)), T((2, 8))], [O("CALL", (0,), (1,), {"body": 1})], bodies=[body])
        )


def test_stored_codes_shown_as_floats_and_gathered_ahead_keep_their_width(tmp_path: Path) -> None:
    """DEQUANTIZE, then GATHER by stored positions, added to the input: 8 bits, as without the DEQUANTIZE."""
    table = T((16, 8), data=np.ones((16, 8), np.int8))
    rows = T((2,), "int32", None, data=np.asarray([3, 5], np.int32))
    tensors = [T((2, 8), "float32", None), table, rows, T((16, 8), "float32", None), T((2, 8), "float32", None),
               T((2, 8), "float32", None)]  # fmt: skip
    steps = [O("DEQUANTIZE", (1,), (3,)), O("GATHER", (3, 2), (4,)), O("ADD", (0, 4), (5,))]
    (found,) = read(write(tmp_path / "rows.tflite", tensors, steps))
    assert found.weight is not None
    assert found.weight.bits == 8
