"""Every reader of files, with a valid file to spoil. What a reader does with a spoilt one is in test_readers.py."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from hwsim.explore.bits.sensitivities import read_sensitivities
from hwsim.explore.machines.journal import sealed, trial_of
from hwsim.explore.machines.space_reader import read_space
from hwsim.files.identity import identity
from hwsim.machine.load import load_accelerator
from hwsim.machine.measured import read_measurements
from hwsim.machine.parts import Accelerator
from hwsim.nest.legal import validate
from hwsim.nest.text import load_plan
from hwsim.network.bits_file import read_bits
from hwsim.network.layer import Layer, Loops, Tensor
from hwsim.network.saved import load_workload
from hwsim.network.workload import Workload
from hwsim.report.compare import read_report
from hwsim.search import cache
from hwsim.search.space.problem import Problem
from tests.frontends.tflite_files import O, T
from tests.frontends.tflite_files import file as tflite_bytes

ROOT = Path(__file__).resolve().parents[2]


REFUSED = object()  # what a reader returns that says no in another way than by an HwsimError


@dataclass(frozen=True)
class Reader:
    """`read` takes a path; `seed` makes the bytes of a valid file; `text` files are also spoilt by their structure."""

    name: str
    suffix: str
    seed: Callable[[], bytes]
    read: Callable[[Path], object]
    structure: str = ""  # json or yaml
    examples: int = 200


def network() -> Workload:
    """One convolution and one linear layer."""
    conv = Layer(
        "conv", "conv", (Tensor("x", (1, 3, 8, 8), 8, signed=False),), Tensor("y", (1, 4, 6, 6), 8),
        weight=Tensor("w", (4, 3, 3, 3), 8), loops=Loops(K=4, C=3, P=6, Q=6, R=3, S=3),
    )  # fmt: skip
    fc = Layer(
        "fc", "linear", (Tensor("z", (1, 144), 8),), Tensor("out", (1, 10), 8),
        weight=Tensor("v", (10, 144), 8), loops=Loops(K=10, C=144),
    )  # fmt: skip
    return Workload("net", [conv, fc])


def as_yaml(data: Any) -> bytes:
    return yaml.safe_dump(data, sort_keys=False).encode()


def as_json(data: Any) -> bytes:
    return json.dumps(data, indent=1).encode()


def spec() -> bytes:
    return (ROOT / "accel_specs" / "eyeriss_v1.yaml").read_bytes()


def space() -> bytes:
    return as_yaml({
        "model": "resnet8", "accelerator": "bit_fusion", "bits": {"weights": "2..8", "budgets": ["energy=5mJ"]},
        "search": {"clock_mhz": [100, 200], "hierarchy.input_buffer.size_bits": {"from": 65536, "to": 262144,
                   "factor": 2}},
        "limits": {"area_mm2": 10}, "objectives": ["energy_pj", "latency_cycles"], "sampler": "random", "trials": 4,
    })  # fmt: skip


def sensitivities() -> bytes:
    whole = json.loads((ROOT / "results" / "sensitivities" / "resnet8_kl.json").read_text())
    name, losses = next((name, part) for name, part in whole.items() if isinstance(part, list | dict) and len(part) > 3)
    few = losses[:2] if isinstance(losses, list) else dict(list(losses.items())[:2])
    return as_json({**whole, name: few})


def mapping() -> bytes:
    from hwsim.nest.text import Together, dump_mappings
    from hwsim.search.layer import search

    machine = load_accelerator("bit_fusion")
    layers = network().layers
    groups = [Together(layers[0].name, layers[1].name, 2, 4, "kept", (layers[0].name,))]
    found = {layer.name: search(layer, machine, effort="quick").mapping for layer in layers}
    return dump_mappings(found, groups).encode()


def report() -> bytes:
    names = ("energy_pj", "latency_s", "edp_pj_s", "macs", "weight_bits", "peak_activation_bits",
             "outermost_traffic_bits", "area_mm2")  # fmt: skip
    return as_json({"identity": identity(a=1).to_dict(), "model": {"name": "n"}, "accelerator": {"name": "m"},
                    "totals": dict.fromkeys(names, 1.0), "energy_pj_by_component": {"mac": 1.0}})  # fmt: skip


def onnx_file() -> bytes:
    onnx = pytest.importorskip("onnx")
    h, t = onnx.helper, onnx.TensorProto
    values = [0.1] * (4 * 3 * 9)
    nodes = [
        h.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]), h.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        h.make_node("Conv", ["d", "w"], ["c"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        h.make_node("Relu", ["c"], ["r"]), h.make_node("GlobalAveragePool", ["r"], ["g"]),
        h.make_node("Flatten", ["g"], ["f"]), h.make_node("Gemm", ["f", "v"], ["y"]),
    ]  # fmt: skip
    made = h.make_graph(
        nodes, "g", [h.make_tensor_value_info("x", t.FLOAT, [1, 3, 8, 8])],
        [h.make_tensor_value_info("y", t.FLOAT, [1, 10])],
        [h.make_tensor("w", t.FLOAT, [4, 3, 3, 3], values), h.make_tensor("v", t.FLOAT, [4, 10], [0.1] * 40),
         h.make_tensor("s", t.FLOAT, [], [0.1]), h.make_tensor("z", t.INT8, [], [3])],
    )  # fmt: skip
    return h.make_model(made, opset_imports=[h.make_opsetid("", 17)]).SerializeToString()


def read_network(path: Path) -> object:
    from hwsim.frontends.argument import load_model_argument

    return load_model_argument(str(path))


def read_checkpoint(path: Path) -> object:
    """`path` stands for settings.json beside the weights of a shipped network."""
    folder = path.parent / "checkpoint"
    shipped = ROOT / "networks" / "digits_silu_w4a4"
    if not folder.exists():
        shutil.copytree(shipped, folder)
    shutil.copyfile(path, folder / "settings.json")
    return read_network(folder)


def read_with_convert(*arguments: str) -> Callable[[Path], object]:
    """Another tool's file through the command; a code other than 0, 2 and 3 is a failure."""

    def read(path: Path) -> object:
        from hwsim.convert import main

        silent = io.StringIO()
        with contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent):
            code = main([str(path), *arguments, "--to", str(path.parent / "converted"), "--replace"])
        assert code in (0, 2, 3), silent.getvalue()
        return REFUSED if code else code

    return read


def tflite_file() -> bytes:
    """A convolution, a constant addition, a pool and a linear layer."""
    ones = [1] * 144
    tensors = [
        T((1, 6, 6, 4), signature=(-1, 6, 6, 4)), T((4, 3, 3, 4), data=ones), T((4,), "int32", None, data=[1, 2, 3, 4]),
        T((1, 6, 6, 4)), T((1, 1, 1, 4), data=[1, 2, 3, 4]), T((1, 6, 6, 4)), T((1, 3, 3, 4)), T((1, 36)),
        T((10, 36), data=[1] * 360), T((1, 10)), T((2,), "int32", None, data=[-1, 36]),
    ]  # fmt: skip
    ops = [
        O("CONV_2D", [0, 1, 2], [3], {"same": 1, "stride_w": 1, "stride_h": 1, "activation": 1}),
        O("ADD", [3, 4], [5]),
        O("MAX_POOL_2D", [5], [6], {"same": 0, "stride_w": 2, "stride_h": 2, "filter_w": 2, "filter_h": 2}),
        O("RESHAPE", [6, 10], [7]), O("FULLY_CONNECTED", [7, 8, -1], [9]),
    ]  # fmt: skip
    return tflite_bytes(tensors, ops)


@functools.cache
def pt2_file() -> bytes:
    """A small exported program, as torch writes it."""
    import torch

    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Flatten())
    target = io.BytesIO()
    torch.export.save(torch.export.export(model.eval(), (torch.zeros(1, 3, 6, 6),), strict=False), target)
    return target.getvalue()


def graph_of_pt2() -> bytes:
    """The graph inside, which is what is read."""
    with zipfile.ZipFile(io.BytesIO(pt2_file())) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("models/model.json")))


def read_graph_of_pt2(path: Path) -> object:
    """`path` stands for the graph in its archive."""
    whole = path.parent / "whole.pt2"
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr("archive/models/model.json", path.read_bytes())
    return read_network(whole)


@functools.cache
def question() -> tuple[Layer, Accelerator]:
    """A layer on a machine."""
    return network().layers[0], load_accelerator("bit_fusion")


def cache_entry() -> bytes:
    """What the mapper's cache remembers of it."""
    from hwsim.search.layer import search

    layer, machine = question()
    return as_json({"version": cache.VERSION, "entry": cache.remembered(search(layer, machine, effort="quick"))})


def read_cache_entry(path: Path) -> object:
    """`path` as an entry with the right hash, so that what it says is looked at: a miss, or a sound certificate."""
    try:
        stored = json.loads(path.read_bytes())
    except ValueError:  # that is `damaged_cache_entry`'s
        return REFUSED
    if not isinstance(stored, dict):
        stored = {"entry": stored}
    stored["hash"] = cache.entry_hash("key", stored.get("entry"))
    folder = path.parent / "cache" / "mappings"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "key.json").write_text(json.dumps(stored))
    layer, machine = question()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(cache.ENVIRONMENT, str(path.parent / "cache"))
        found = cache.recalled("key", Problem(layer, machine))
    if found is None:
        return REFUSED
    said = found.certificate
    assert 0 <= said.lower_bound <= said.value * (1 + 1e-9)
    assert not validate(found.mapping, layer, machine)
    return found


def damaged_cache_entry(path: Path) -> object:
    """`path` as an entry just as it lies there: anything but what was stored is a miss."""
    folder = path.parent / "cache" / "mappings"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "key.json").write_bytes(path.read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(cache.ENVIRONMENT, str(path.parent / "cache"))
        return cache.load("key") or REFUSED


def stored_cache_entry() -> bytes:
    """A whole entry, its hash included."""
    said = json.loads(cache_entry())
    return as_json(said | {"hash": cache.entry_hash("key", said["entry"])})


def zigzag_hardware() -> bytes:
    port = {"type": "read_write", "bandwidth_min": 8, "bandwidth_max": 64}
    memories = {
        "register": {"size": 32, "r_cost": 0.1, "w_cost": 0.1, "area": 0, "latency": 1, "operands": ["O"],
                     "auto_cost_extraction": False, "served_dimensions": ["D2"],
                     "ports": [{"name": "p", **port, "allocation": ["O, fh", "O, tl", "O, fl", "O, th"]}]},
        "memory": {"size": 8388608, "r_cost": 20.0, "w_cost": 20.0, "area": 0, "latency": 1,
                   "operands": ["I1", "I2", "O"], "served_dimensions": ["D1", "D2"],
                   "ports": [{"name": "p", **port, "allocation": ["I1, tl", "I2, tl", "O, tl", "O, fl"]}]},
    }  # fmt: skip
    array = {
        "input_precision": [8, 8],
        "unit_energy": 0.04,
        "unit_area": 1,
        "dimensions": ["D1", "D2"],
        "sizes": [4, 8],
    }
    return as_yaml({"name": "small", "memories": memories, "operational_array": array})


def zigzag_workload() -> bytes:
    conv = {
        "id": 0, "operator_type": "Conv", "equation": "O[b][k][oy][ox]+=W[k][c][fy][fx]*I[b][c][iy][ix]",
        "dimension_relations": ["ix=1*ox+1*fx", "iy=1*oy+1*fy"],
        "loop_dims": ["B", "K", "C", "OY", "OX", "FY", "FX"], "loop_sizes": [1, 8, 4, 6, 6, 3, 3],
        "operand_precision": {"W": 8, "I": 8, "O": 16, "O_final": 8}, "operand_source": {"I": 0, "W": 0},
    }  # fmt: skip
    return as_yaml([conv])


def read_zigzag_file(path: Path) -> object:
    from hwsim.peers.zigzag.read import read_zigzag

    found = read_zigzag([path])
    return found.machine() if found.draft is not None else found.workload


SCALESIM = b"""[general]
run_name = small
[architecture_presets]
ArrayHeight: 16
ArrayWidth: 16
IfmapSramSzkB: 64
FilterSramSzkB: 64
OfmapSramSzkB: 64
IfmapOffset: 0
FilterOffset: 10000000
OfmapOffset: 20000000
Dataflow: ws
Bandwidth: 10
[run_presets]
InterfaceBandwidth: CALC
"""

TIMELOOP = b"""architecture:
  version: 0.4
  nodes:
  - !Component
    name: dram
    class: DRAM
    attributes: {width: 64, datawidth: 8}
  - !Component
    name: buffer
    class: SRAM
    attributes: {depth: 1024, width: 64, datawidth: 8}
  - !Container
    name: pe
    spatial: {meshX: 4, meshY: 2}
  - !Component
    name: mac
    class: intmac
    attributes: {width: 8}
"""

READERS = (
    Reader("spec", ".yaml", spec, load_accelerator, "yaml"),
    Reader("workload", ".json", lambda: as_json(network().to_dict()), load_workload, "json"),
    Reader("bits", ".yaml", lambda: as_yaml({"default": "W4A4", "config": 4, "conv*": {"weight": 8, "input": 4},
           "fc": "W8A8"}), read_bits, "yaml"),
    Reader("mapping", ".yaml", mapping, load_plan, "yaml"),
    Reader("exploration file", ".yaml", space, read_space, "yaml"),
    Reader("sensitivities", ".json", sensitivities, read_sensitivities, "json"),
    Reader("measured table", ".csv", lambda: b"\n".join((ROOT / "accel_specs" / "mico_measured.csv").read_bytes()
           .splitlines()[:12]), lambda path: read_measurements(path, 1.0)),
    Reader("journal", ".jsonl", lambda: sealed({"trial": 1, "parameters": {"a": 1}, "status": "ok", "why": "",
           "values": {"energy_pj": 1.0}}), lambda path: trial_of(path.read_bytes()) or REFUSED, "json"),
    Reader("report", ".json", report, read_report, "json"),
    Reader("onnx", ".onnx", onnx_file, read_network),
    Reader("tflite", ".tflite", tflite_file, read_network),
    Reader("pt2", ".pt2", pt2_file, read_network),
    Reader("graph of a pt2", ".json", graph_of_pt2, read_graph_of_pt2, "json"),
    Reader("entry of the mapping cache", ".json", cache_entry, read_cache_entry, "json"),
    Reader("file of the mapping cache", ".json", stored_cache_entry, damaged_cache_entry, "json"),
    Reader("zigzag hardware", ".yaml", zigzag_hardware, read_zigzag_file, "yaml"),
    Reader("zigzag workload", ".yaml", zigzag_workload, read_zigzag_file, "yaml"),
    Reader("checkpoint", ".json", lambda: (ROOT / "networks" / "digits_silu_w4a4" / "settings.json").read_bytes(),
           read_checkpoint, "json", examples=25),
    Reader("scale-sim", ".cfg", lambda: SCALESIM, read_with_convert()),
    Reader("timeloop", ".yaml", lambda: TIMELOOP, read_with_convert()),
)  # fmt: skip
