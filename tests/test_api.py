"""The Python door: `hwsim.evaluate(...)` and its neighbours, as a stranger calls them."""

from __future__ import annotations

import ast
import doctest
import importlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import hwsim
from hwsim.frontends.argument import load_model_argument
from hwsim.report.report import Report

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.usefixtures("shared_searches")
PYRIGHT = Path(sys.executable).parent / "pyright"


@pytest.fixture(scope="module")
def report() -> Report:
    return hwsim.evaluate("resnet8", "eyeriss_v1", bits="W4A4", effort="quick")


def test_every_public_name_is_what_it_says() -> None:
    functions = {"assign_bits", "evaluate", "explore_bits", "extract", "load_accelerator", "load_workload",
                 "sharing_groups", "shipped_specs", "verify"}  # fmt: skip
    errors = {"HwsimError", "SpecError", "WorkloadError", "UnsupportedOp", "CapabilityError", "InfeasibleMapping",
              "RequestError", "InfeasibleBudget"}  # fmt: skip
    types = {"Accelerator", "Layer", "Report", "Workload"}
    assert set(hwsim.__all__) == functions | errors | types | {"__version__"}
    assert set(hwsim.__all__) <= set(dir(hwsim))
    for name in hwsim.__all__:
        value: Any = getattr(hwsim, name)
        if name in functions:
            assert type(value).__name__ == "function"
            assert value.__doc__
        elif name in errors:
            assert issubclass(value, hwsim.HwsimError)
            assert value.exit_code in (2, 3)
        elif name in types:
            assert isinstance(value, type)
    namespace: dict[str, Any] = {}
    exec("from hwsim import *", namespace)
    assert set(hwsim.__all__) <= set(namespace)
    with pytest.raises(AttributeError, match="no attribute 'evalaute'"):
        hwsim.evalaute  # type: ignore[attr-defined]  # noqa: B018


def test_no_two_lists_of_public_names() -> None:
    """`__all__`, what is imported lazily, and what a type checker sees are one list."""
    assert set(hwsim.PUBLIC) | {"__version__"} == set(hwsim.__all__)
    text = (ROOT / "hwsim/__init__.py").read_text(encoding="utf-8")
    branches = [node for node in ast.parse(text).body if isinstance(node, ast.If)]
    checked = next(node for node in branches if ast.unparse(node.test) == "TYPE_CHECKING")
    seen = {alias.name for node in checked.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == set(hwsim.PUBLIC)


ORDERS = (
    "import hwsim; import hwsim.evaluate, hwsim.verify",
    "import hwsim.evaluate, hwsim.verify; import hwsim",
    "from hwsim.evaluate import main; from hwsim.verify import parser; import hwsim",
    "import hwsim; hwsim.evaluate; hwsim.verify; import hwsim.evaluate, hwsim.verify",
    "import hwsim.api; import hwsim.evaluate, hwsim.verify",
)


@pytest.mark.long
def test_functions_stay_functions_in_any_order_of_imports() -> None:
    """One interpreter for all orders; between them it forgets the package, not torch."""
    tried = "".join(
        f"""
for name in [name for name in sys.modules if name.partition(".")[0] == "hwsim"]:
    del sys.modules[name]
for name in ("hwsim", "main", "parser", "evaluate"):
    globals().pop(name, None)
{order}
assert type(hwsim.evaluate) is types.FunctionType and hwsim.evaluate.__module__ == "hwsim.api"
assert type(hwsim.verify) is types.FunctionType
assert "hwsim.evaluate" not in sys.modules or type(sys.modules["hwsim.evaluate"]) is types.ModuleType
from hwsim.evaluate import main
from hwsim import evaluate
assert type(evaluate) is types.FunctionType
"""
        for order in ORDERS
    )
    subprocess.run([sys.executable, "-c", f"import sys, types{tried}"], check=True, cwd=ROOT)


HELPED = ("evaluate", "explain", "table", "explore", "explore bits", "explore machines", "verify", "check", "convert")


@pytest.mark.long
@pytest.mark.parametrize("command", [*HELPED, "compare"])
def test_the_help_of_a_command_loads_neither_arrays_nor_the_search(command: str) -> None:
    """It answers in a blink; so does a mistyped option."""
    for given in ("--help", "--no-such-option"):
        code = (
            "import sys\nfrom hwsim.__main__ import main\n"
            f"try:\n    main({[*command.split(), given]!r})\nexcept SystemExit:\n    pass\n"
            "heavy = {'numpy', 'pydantic', 'torch', 'jinja2', 'hwsim.search.network', 'hwsim.machine.load'}\n"
            "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        )
        subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True)


@pytest.mark.long
@pytest.mark.skipif(not PYRIGHT.exists(), reason="pyright is not installed")
def test_a_type_checker_sees_real_types(tmp_path: Path) -> None:
    (tmp_path / "use.py").write_text(
        "import hwsim\n"
        "report = hwsim.evaluate('resnet18', 'eyeriss_v1', bits='W4A4', effort='quick')\n"
        "reveal_type(report)\n"
        "reveal_type(report.layers['conv1'].energy_pj)\n"
        "reveal_type(hwsim.load_accelerator('eyeriss_v1'))\n"
        "reveal_type(hwsim.verify('folder').equal)\n"
        "reveal_type(hwsim.explore_bits('resnet8', 'bit_fusion')[0])\n"
        "hwsim.evaluate('resnet18', 'eyeriss_v1', effort='quik')\n",
        encoding="utf-8",
    )
    command = [str(PYRIGHT), "--outputjson", "--pythonpath", sys.executable, str(tmp_path / "use.py")]
    found = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout)
    said = [entry["message"] for entry in found["generalDiagnostics"]]
    types = [line.rpartition(" is ")[2] for line in said[:5]]
    assert types == ['"Report"', '"float"', '"Accelerator"', '"bool"', '"Point"']
    assert "Literal['quik']" in said[5]
    assert len(said) == 6


EXAMPLES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for package in ("hwsim", "quant", "experiments", "benchmarks")
    for path in sorted((ROOT / package).rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.long
def test_examples_of_every_module_run() -> None:
    assert "hwsim.api" in EXAMPLES
    for name in EXAMPLES:
        found = doctest.testmod(importlib.import_module(name))
        assert found.attempted, name
        assert not found.failed, name


@pytest.mark.long
def test_the_python_lines_of_the_readme_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The door in five lines, as a reader copies them."""
    (lines,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    exec(lines, found)
    assert len(found["report"].to_frame()) == len(found["report"].layers)
    assert json.loads((tmp_path / "demo_out/resnet18/report.json").read_text(encoding="utf-8"))["totals"]


@pytest.mark.long
def test_a_report_answers_what_is_asked_of_it(report: Report, tmp_path: Path) -> None:
    assert report.energy_pj == report.totals.energy_pj == report.to_dict()["totals"]["energy_pj"]
    assert report.latency_s == report.totals.latency_s > 0
    layer = report.layers["linear"]
    assert list(report.layers) == [entry["name"] for entry in report.to_dict()["layers"]]
    assert layer.to_dict() in report.to_dict()["layers"]
    assert sum(entry.energy_pj for entry in report.layers.values()) == report.energy_pj
    with pytest.raises(KeyError, match="did you mean linear"):
        report.layers["liner"]
    frame = report.to_frame()
    assert frame["energy_pj"].sum() == pytest.approx(report.energy_pj)
    assert list(frame["name"]) == list(report.layers)
    assert {path.name for path in report.save(tmp_path / "out")} >= {"report.json", "layers.csv", "report.html"}
    assert json.loads((tmp_path / "out/report.json").read_text(encoding="utf-8")) == report.to_dict()


def test_a_report_prints_itself_in_a_screenful(report: Report) -> None:
    lines = repr(report).splitlines()
    assert lines[0].startswith("resnet8 on eyeriss_v1")
    assert str(report) == repr(report)
    assert 15 < len(lines) <= 25
    assert max(map(len, lines)) <= 110
    assert "resnet8 on eyeriss_v1" in report._repr_html_()


@pytest.mark.long
def test_names_paths_modules_and_objects_are_the_same_network(report: Report, tmp_path: Path) -> None:
    from quant import models

    workload = load_model_argument("resnet8", None)
    workload.save(tmp_path / "net.json")
    machine = hwsim.load_accelerator("eyeriss_v1")
    pair = (models.create("resnet8"), torch.zeros(1, 3, 32, 32))
    for model in (workload, tmp_path / "net.json", str(tmp_path / "net.json"), pair):
        assert hwsim.evaluate(model, machine, bits="W4A4", effort="quick").totals == report.totals
    taken = hwsim.load_workload(tmp_path / "net.json")
    assert hwsim.evaluate(hwsim.assign_bits(taken, "W4A4"), machine, effort="quick").totals == report.totals
    assert hwsim.extract(*pair, name="resnet8") == workload == hwsim.load_workload("resnet8")


def test_arguments_are_checked_like_the_command_lines() -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"objective": "power"}, "objective: expected one of energy, latency, edp, got 'power'"),
        ({"effort": "quik"}, "effort: expected one of auto, proven, perfect, quick, got 'quik'; did you mean quick?"),
        ({"gap": 1.5}, "gap: expected a number from 0 to below 1, got 1.5"),
        ({"time_limit_s": -1}, "time_limit_s"),
        ({"first_last": "9bit"}, "first_last: expected one of"),
        ({"config": "7"}, "config: expected one of"),
        ({"bits": "W9"}, "expected W<bits>A<bits>"),
        ({"bits": ""}, "expected W<bits>A<bits>"),
        ({"bits": {}}, "bits: expected `default: W4A4` or name patterns"),
        ({"bits": 4}, "bits: expected W4A4, a YAML file or a mapping of name patterns, got 4"),
        ({"bits": {1: 2}}, "bits: expected layer names or patterns as keys, got 1"),
        ({"jobs": 0}, "jobs: expected a whole number from 1, got 0"),
        ({"slack": 1}, "slack: expected a number from 0 to below 1, got 1"),
        ({"mapping": 3}, "mapping: expected a path, got 3"),
        ({"zero_shares": 3}, "zero_shares: expected a path, got 3"),
        ({"input": 3}, "input: expected positive integers like (1, 3, 224, 224), got 3"),
        ({"input": "1,3,32,32"}, "input: expected positive integers"),
        ({"input": (1, 3, 32.0, 32)}, "input: expected positive integers"),
        ({"input": {"x": (1, -3)}}, "input: expected positive integers like (1, 3, 224, 224), got (1, -3)"),
    ]
    for arguments, message in wrong:
        with pytest.raises((hwsim.RequestError, hwsim.SpecError)) as found:
            hwsim.evaluate("resnet8", "eyeriss_v1", **arguments)
        assert message in str(found.value)
    with pytest.raises(ValueError, match="give the pair \\(Linear instance, example input\\)"):
        hwsim.evaluate(nn.Linear(2, 2), "eyeriss_v1")  # type: ignore[arg-type]
    with pytest.raises(hwsim.RequestError, match="accelerator: expected"):
        hwsim.evaluate("resnet8", 3)  # type: ignore[arg-type]
    with pytest.raises(hwsim.SpecError, match="did you mean eyeriss_v1"):
        hwsim.evaluate("resnet8", "eyeris_v1")
    with pytest.raises(hwsim.RequestError, match="front: expected one of energy, latency"):
        hwsim.explore_bits("resnet8", "bit_fusion", front="speed")
    explored: list[tuple[dict[str, Any], str]] = [
        ({"weights": [2, 4]}, r"weights: expected a text like 2..8 or 2,4,8, got \[2, 4\]"),
        ({"activations": 4}, "activations: expected a text"),
        ({"budgets": "energy=2mJ"}, r"budgets: expected a list of texts like \['energy=2mJ'\], got 'energy=2mJ'"),
        ({"limits": [3]}, "limits: expected a list of texts"),
        ({"time_limit_s": -1}, "time_limit_s: expected a number"),
        ({"sensitivities": 3}, "sensitivities: expected a path, got 3"),
    ]
    for arguments, message in explored:
        with pytest.raises(hwsim.RequestError, match=message):
            hwsim.explore_bits("resnet8", "bit_fusion", **arguments)
    for arguments in ({"images": 0}, {"images": "64"}, {"accuracy_images": -1}):
        with pytest.raises(hwsim.RequestError, match="images: expected a whole number"):
            hwsim.verify("networks/digits_silu_w4a4", **arguments)


def test_a_switch_is_true_or_false() -> None:
    """A text such as "no" would count as yes."""
    calls: list[tuple[Callable[..., object], str]] = [
        (partial(hwsim.evaluate, "resnet8", "bit_fusion"), "fuse allow_uncosted allow_overflow"),
        (partial(hwsim.explore_bits, "resnet8", "bit_fusion"), "on_chip allow_uncosted allow_overflow"),
        (partial(hwsim.verify, "networks/digits_silu_w4a4"), "random"),
        (partial(hwsim.extract, nn.Linear(2, 2), torch.zeros(1, 2)), "allow_uncosted"),
        (partial(hwsim.load_workload, "resnet8"), "allow_uncosted"),
    ]
    for call, names in calls:
        for name in names.split():
            with pytest.raises(hwsim.RequestError, match=f"{name}: expected True or False, got 'no'"):
                call(**{name: "no"})


def test_every_function_of_the_door_refuses_other_kinds_by_name(tmp_path: Path) -> None:
    """Typed errors that name the argument, never a TypeError from inside; options as Python names them."""
    workload = hwsim.extract(nn.Linear(3, 4), torch.zeros(1, 3), name="small")
    report = hwsim.evaluate(workload, "bit_fusion", effort="quick")
    (tmp_path / "file").write_text("x", encoding="utf-8")
    small = partial(hwsim.explore_bits, workload, "bit_fusion")
    wrong: list[tuple[Callable[[], object], str]] = [
        (lambda: hwsim.assign_bits("resnet8", "W4A4"), "workload: expected a Workload"),  # type: ignore[arg-type]
        (lambda: hwsim.assign_bits(workload, 4), "bits: expected W4A4, a YAML file"),  # type: ignore[arg-type]
        (lambda: hwsim.load_workload(None), "model: expected a path, got None"),  # type: ignore[arg-type]
        (lambda: hwsim.load_accelerator(None), "path: expected a path, got None"),  # type: ignore[arg-type]
        (lambda: hwsim.evaluate((nn.Linear(3, 4), (1, 3)), "bit_fusion"), r"such as torch.zeros\(1, 3\)"),
        (lambda: report.save(None), "save: expected a folder, got None"),  # type: ignore[arg-type]
        (lambda: report.save(tmp_path / "file"), "save: .*file: cannot be written"),
        (lambda: small(points=3), "^points: needs front"),
        (lambda: small(points="3"), "points: expected a whole number"),
        (lambda: small(minimise="loss"), "^minimise loss: needs sensitivities"),
        (lambda: small(minimise="energy", front="energy"), "^front energy: is what is minimised"),
    ]
    for call, message in wrong:
        with pytest.raises((hwsim.RequestError, hwsim.SpecError), match=message):
            call()


def test_zero_shares_are_numbers() -> None:
    with pytest.raises(hwsim.WorkloadError, match="zero shares: expected numbers from 0 to 1, got conv1: 'half'"):
        hwsim.evaluate("resnet18", "eyeriss_v1", effort="quick", zero_shares={"conv1": "half"})  # type: ignore[dict-item]


def test_infeasible_mappings_carry_numbers() -> None:
    """A pad of 8 bits for partial sums: nothing fits, and by how much is data."""
    import dataclasses

    machine = hwsim.load_accelerator("eyeriss_v1")
    small = tuple(
        dataclasses.replace(node, size_bits=8) if getattr(node, "name", "") == "psum_spad" else node
        for node in machine.hierarchy
    )
    tiny = dataclasses.replace(machine, hierarchy=small)
    with pytest.raises(hwsim.InfeasibleMapping) as found:
        hwsim.evaluate("resnet8", tiny, effort="quick")
    error = found.value
    assert (error.layer, error.memory, error.room, error.room_bits) == ("stem.conv", "psum_spad", 8, 8)
    assert error.need == error.need_bits == 16
    assert "psum_spad holds 8 bits, its tiles need 16" in str(error)


def test_explore_bits_finds_what_the_command_finds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from hwsim.explore.command import main

    found = hwsim.explore_bits("resnet8", "bit_fusion", weights="2,8", activations="8", budgets={"energy": "80uJ"},
                               minimise="weights")  # fmt: skip
    assert found[0].exact.cost.totals.energy_pj <= 80e6
    assert len(found.to_frame()) == len(found.to_dict()["points"]) == len(found) + len(found.uniform)
    command = ["bits", "resnet8", "bit_fusion", "--weights", "2,8", "--activations", "8", "--budget", "energy=80uJ",
               "--minimise", "weights"]  # fmt: skip
    assert main(command) == 0
    assert capsys.readouterr().out == f"{found}\n"


@pytest.mark.long
def test_verify_proves_a_shipped_network() -> None:
    found = hwsim.verify(ROOT / "networks/digits_silu_w4a4", "bit_fusion", images=4, accuracy_images=0, random=True)
    assert found.equal
    with pytest.raises(hwsim.WorkloadError, match="no such"):
        hwsim.verify("nowhere")


@pytest.mark.parametrize(
    ("call", "wrong", "right"),
    [
        (lambda **more: hwsim.evaluate("resnet8", "simba", **more), "objectve", "objective"),
        (lambda **more: hwsim.explore_bits("resnet8", "simba", **more), "budget", "budgets"),
        (lambda **more: hwsim.verify("folder", **more), "image", "images"),
        (lambda **more: hwsim.load_workload("resnet8", **more), "inputs", "input"),
    ],
)  # fmt: skip
def test_a_wrong_keyword_names_the_right_ones(call: Callable[..., object], wrong: str, right: str) -> None:
    with pytest.raises(TypeError, match=rf"takes no argument '{wrong}': expected some of .*; did you mean {right}\?"):
        call(**{wrong: "energy"})
