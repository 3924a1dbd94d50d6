"""TFLite files spoiled field by field: every one is a network or one message, whatever a field says."""

from __future__ import annotations

import copy
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwsim.errors import HwsimError
from hwsim.frontends.files.tflite_schema import OPTIONS
from hwsim.network.workload import Workload
from tests.frontends.test_tflite_operators import CONV, ONE, SAME, S, floats, numbers, ones, read
from tests.frontends.tflite_files import CODE, TYPE, O, T

BASES: dict[str, tuple[list[T], list[O]]] = {
    **{name: ([T(S), ones(4, 3, 3, 4), T(S), *more], [CONV, *ops]) for name, (more, ops, *_) in ONE.items()},
    "linear": (
        [T(S), ones(4, 3, 3, 4), T(S), numbers([-1, 144]), T((1, 144)), ones(5, 144), T((1, 5))],
        [CONV, O("RESHAPE", [2, 3], [4]), O("FULLY_CONNECTED", [4, 5, -1], [6])],
    ),
    "pooled": (
        [T(S), ones(1, 3, 3, 4), T(S), T((1, 3, 3, 4)), numbers([1, 2]), T((1, 4))],
        [
            O("DEPTHWISE_CONV_2D", [0, 1, -1], [2], {**SAME, "multiplier": 1}),
            O("MAX_POOL_2D", [2], [3], {**SAME, "stride_w": 2, "stride_h": 2, "filter_w": 2, "filter_h": 2}),
            O("MEAN", [3, 4], [5]),
        ],
    ),
    "moved": (
        [
            T(S), numbers([0] * 4), numbers([1, 4, 4, 4]), T((1, 4, 4, 4)), numbers([2, 2, 1, 1]), floats(2, 8, 4, 4),
        ],
        [O("SLICE", [0, 1, 2], [3]), O("TILE", [3, 4], [5])],
    ),
}  # fmt: skip
NUMBERS = (-(2**31), -129, -2, -1, 0, 1, 2, 3, 7, 99, 2**31 - 1)


def spoil(tensors: list[T], ops: list[O], chance: random.Random) -> dict[str, Any]:
    """Change one field of the file; what else `read` is told."""
    t, o = chance.choice(tensors), chance.choice(ops)
    kind = chance.choice(("input", "output", "shape", "rank", "type", "data", "options", "option", "code", "scale",
                          "signature", "graph", "cycle", "arity", "data values"))  # fmt: skip
    if kind in ("input", "output"):
        wires = list(o.inputs if kind == "input" else o.outputs)
        if wires:
            wires[chance.randrange(len(wires))] = chance.choice(NUMBERS)
        setattr(o, f"{kind}s", wires)
    elif kind == "arity":
        o.inputs = list(o.inputs)[: chance.randrange(3)] if chance.random() < 0.5 else [*o.inputs, *o.inputs]
    elif kind == "cycle":
        o.inputs = [*o.outputs, *list(o.inputs)[1:]]
    elif kind == "shape" and t.shape:
        t.shape = [chance.choice(NUMBERS) if chance.random() < 0.5 else n for n in t.shape]
    elif kind == "rank":
        t.shape = list(t.shape)[:-1] if chance.random() < 0.5 else [*t.shape, 1]
    elif kind == "type":
        t.dtype = chance.choice(list(TYPE))
        t.data = None if t.data is None else np.asarray(t.data).astype(np.int8).tobytes()
    elif kind == "data" and t.data is not None:
        t.data = None if chance.random() < 0.5 else b"\x01" * chance.randrange(9)
    elif kind == "data values" and t.data is not None and t.dtype == "int32":
        t.data = np.array([chance.choice(NUMBERS) for _ in range(np.size(t.data))], np.int32).reshape(np.shape(t.data))
    elif kind == "options":
        o.options = {}
    elif kind == "option":
        known = {name: form for name, form, _ in OPTIONS.get(o.kind, {}).values()}
        o.options = {**o.options, **{name: fitting(form, chance) for name, form in known.items()}}
    elif kind == "code":
        o.kind = chance.choice(list(CODE))
        o.options = {}
    elif kind == "scale":
        t.scale = chance.choice([[], [0.1] * 3, float("nan"), 0.0, -1.0, [0.1] * 1000])
        t.zero, t.axis = chance.choice(NUMBERS), chance.choice(NUMBERS)
    elif kind == "signature":
        t.signature = [chance.choice(NUMBERS) for _ in range(chance.randrange(6))]
    elif kind == "graph":
        return {"inputs": [chance.choice(NUMBERS)]} if chance.random() < 0.5 else {"outputs": [chance.choice(NUMBERS)]}
    return {}


def fitting(form: str, chance: random.Random) -> float:
    """A number that the field can hold."""
    value = chance.choice(NUMBERS)
    try:
        struct.pack(f"<{form}", value)
    except struct.error:
        return value & 1
    return value


@pytest.mark.long
@pytest.mark.parametrize("name", BASES)
def test_a_spoiled_field_gives_a_message_or_a_network(tmp_path: Path, name: str) -> None:
    chance, refused = random.Random(name), 0
    for _ in range(60):
        tensors, ops = copy.deepcopy(BASES[name])
        more: dict[str, Any] = {}
        for _ in range(chance.choice((1, 1, 2))):
            more |= spoil(tensors, ops, chance)
        text = f"{tensors}\n{ops}\n{more}"
        try:
            found = read(tmp_path, tensors, ops, **more)
        except HwsimError:
            refused += 1
        except Exception as crash:
            raise AssertionError(text) from crash
        else:
            assert isinstance(found, Workload)
    assert refused > 5
