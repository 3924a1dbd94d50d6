"""Every reader of files, with a valid file to spoil. What a reader does with a spoilt one is in test_readers.py."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from hwsim.explore.bits.sensitivities import read_sensitivities
from hwsim.explore.machines.journal import trial_of
from hwsim.explore.machines.space import read_space
from hwsim.files.identity import identity
from hwsim.machine.load import load_accelerator
from hwsim.machine.measured import read_measurements
from hwsim.nest.text import load_mappings
from hwsim.network.bits_file import read_bits
from hwsim.network.layer import Layer, Loops, Tensor
from hwsim.network.saved import load_workload
from hwsim.network.workload import Workload
from hwsim.report.compare import read_report

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
    from hwsim.nest.text import dump_mappings
    from hwsim.search.layer import search

    machine = load_accelerator("bit_fusion")
    layers = network().layers
    return dump_mappings({layer.name: search(layer, machine, effort="quick").mapping for layer in layers}).encode()


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
            code = main([str(path), *arguments, "--to", str(path.parent / "converted")])
        assert code in (0, 2, 3), silent.getvalue()
        return REFUSED if code else code

    return read


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
    Reader("mapping", ".yaml", mapping, load_mappings, "yaml"),
    Reader("exploration file", ".yaml", space, read_space, "yaml"),
    Reader("sensitivities", ".json", sensitivities, read_sensitivities, "json"),
    Reader("measured table", ".csv", lambda: b"\n".join((ROOT / "accel_specs" / "mico_measured.csv").read_bytes()
           .splitlines()[:12]), lambda path: read_measurements(path, 1.0)),
    Reader("journal", ".jsonl", lambda: as_json({"trial": 1, "parameters": {"a": 1}, "status": "ok", "why": "",
           "values": {"energy_pj": 1.0}}), lambda path: trial_of(path.read_bytes()) or REFUSED, "json"),
    Reader("report", ".json", report, read_report, "json"),
    Reader("onnx", ".onnx", onnx_file, read_network, examples=100),
    Reader("checkpoint", ".json", lambda: (ROOT / "networks" / "digits_silu_w4a4" / "settings.json").read_bytes(),
           read_checkpoint, "json", examples=25),
    Reader("scale-sim", ".cfg", lambda: SCALESIM, read_with_convert()),
    Reader("timeloop", ".yaml", lambda: TIMELOOP, read_with_convert(), examples=100),
)  # fmt: skip
