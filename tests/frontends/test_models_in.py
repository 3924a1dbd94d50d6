"""MODEL arguments: every form loads, everything else gets one clear message, and no file is ever executed."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import subprocess
import sys
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hwsim.command_line import load_model
from hwsim.errors import UnsupportedOp, WorkloadError
from hwsim.evaluate import main as evaluate
from hwsim.frontends.argument import load_model_argument
from hwsim.frontends.torch_export import extract
from quant import checkpoint, models
from quant.convert import quantize
from quant.whole_models import initialise

ROOT = Path(__file__).parents[2]


class Small(nn.Module):
    """Two calls of one convolution, a split, a concatenation, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(3)
        self.fc = nn.Linear(3, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.conv(x)))
        left, right = self.conv(x).split([1, 2], 1)
        return self.fc(torch.cat([right, left], 1).mean((2, 3)))


def small_with_example() -> tuple[nn.Module, Tensor]:
    return Small(), torch.zeros(1, 3, 8, 8)


def not_a_model() -> int:
    return 3


def failing() -> nn.Module:
    raise RuntimeError("no licence")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A .pt2 file of `Small`."""
    path = tmp_path_factory.mktemp("pt2") / "small.pt2"
    program = torch.export.export(Small().eval(), (torch.zeros(1, 3, 8, 8),), strict=False)
    torch.export.save(program, path)
    return path


# -- what loads -------------------------------------------------------------------------------------------------------


def test_zoo_names_load_at_their_default_input() -> None:
    net = load_model_argument("resnet8")
    assert (net.name, net.macs) == ("resnet8", 12501632)
    assert net.layers[0].inputs[0].shape == (1, 3, 32, 32)


@pytest.mark.long
def test_another_input_changes_the_network_where_it_must() -> None:
    grown = load_model_argument("resnet8", (4, 3, 48, 64))
    assert grown.layers[0].inputs[0].shape == (4, 3, 48, 64)
    gray = load_model_argument("silu_se_net", (1, 1, 28, 28))
    assert gray.layers[0].inputs[0].shape == (1, 1, 28, 28)
    tokens = load_model_argument("vit_b_16", (1, 3, 160, 160))
    assert tokens.layers[1].output.shape == (1, 101, 768)


def test_saved_workloads_load_as_they_are(tmp_path: Path) -> None:
    net = extract(Small(), torch.zeros(1, 3, 8, 8))
    net.save(tmp_path / "net.json")
    assert load_model_argument(str(tmp_path / "net.json")) == net
    (tmp_path / "net.json").rename(tmp_path / "net")
    assert load_model_argument(str(tmp_path / "net")) == net


def test_an_exported_program_gives_what_the_module_gives(exported: Path) -> None:
    net, direct = load_model_argument(str(exported)), extract(Small(), torch.zeros(1, 3, 8, 8), name="small")
    assert net.layers == direct.layers
    assert net.coverage == direct.coverage
    assert [layer.name for layer in net] == ["conv", "relu", "conv#2", "cat", "mean", "fc"]
    assert load_model_argument(str(exported), (1, 3, 8, 8)) == net


@pytest.mark.long
def test_a_big_exported_program_gives_what_the_module_gives(tmp_path: Path) -> None:
    with torch.device("meta"):
        model, x = models.create("silu_se_net").eval(), torch.zeros(1, 3, 32, 32)
    program = torch.export.export(model, (x,), strict=False)
    torch.export.save(program, tmp_path / "net.pt2")
    assert load_model_argument(str(tmp_path / "net.pt2")).layers == extract(model, x).layers


def test_factories_return_a_module_or_a_pair() -> None:
    direct = extract(Small(), torch.zeros(2, 3, 8, 8))
    assert load_model_argument(f"{__name__}:Small", (2, 3, 8, 8)).layers == direct.layers
    pair = load_model_argument(f"{__name__}:small_with_example")
    assert pair.layers[0].inputs[0].shape == (1, 3, 8, 8)
    assert load_model_argument(f"{__name__}:small_with_example", (2, 3, 8, 8)).layers == direct.layers


def test_checkpoints_bring_their_bits(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"weight_bits": 3, "act_bits": 5, "first_last": "8bit", "init": "minmax"}
    model, _ = quantize(models.create("resnet8"), **settings)
    initialise(model, [torch.rand(1, 3, 32, 32)])
    meta = checkpoint.Meta("resnet8", quantization=settings, input_shape=(3, 32, 32), num_classes=10)
    checkpoint.save(tmp_path / "run", model, meta)
    net = load_model_argument(str(tmp_path / "run"))
    assert net.quantized
    weights = [layer.weight for layer in net if layer.has_macs]
    assert [w.bits for w in weights if w] == [8] + [3] * (len(weights) - 2) + [8]
    assert net.layers[0].inputs[0].bits == 8


# -- nothing is executed ----------------------------------------------------------------------------------------------


class Bomb:
    """Unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (open, (str(self.path), "w"))


def armed(exported: Path, target: Path, sentinel: Path) -> Path:
    """A copy of a .pt2 file whose example inputs are a pickle that creates `sentinel`."""
    with zipfile.ZipFile(exported) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if "sample_inputs" in name:
                torch.save(Bomb(sentinel), target.with_suffix(".bomb"))
                data = target.with_suffix(".bomb").read_bytes()
            new.writestr(name, data)
    return target


@pytest.mark.filterwarnings("ignore")
def test_loading_an_exported_program_runs_nothing_in_it(exported: Path, tmp_path: Path) -> None:
    file = armed(exported, tmp_path / "armed.pt2", tmp_path / "executed")
    assert load_model_argument(str(file)).layers == load_model_argument(str(exported)).layers
    assert not (tmp_path / "executed").exists()
    # The control: torch's own loader does run it, which is why it is not used.
    with contextlib.suppress(Exception):  # whatever it says, what counts is the file
        torch.export.load(file)
    assert (tmp_path / "executed").exists()


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".th", ".ckpt", ".bin", ".pkl"])
def test_pickles_are_refused_unread(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes(pickle.dumps(Bomb(tmp_path / "executed")))
    with pytest.raises(WorkloadError, match="unpickling runs what the file contains"):
        load_model_argument(str(path))
    torch.save(Bomb(tmp_path / "executed"), path)
    with pytest.raises(WorkloadError, match="unpickling runs what the file contains"):
        load_model_argument(str(path))
    assert not (tmp_path / "executed").exists()


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_the_command_finds_a_function_in_a_file_of_the_current_folder(tmp_path: Path) -> None:
    (tmp_path / "my_network.py").write_text(
        "import torch\ndef build():\n    return torch.nn.Linear(8, 4), torch.zeros(1, 8)\n"
    )
    # -P: as the installed command, Python itself does not look into the current folder.
    command = [sys.executable, "-P", "-m", "hwsim", "evaluate", "my_network:build", "gemmini_16x16", "--quick"]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "32 MAC" in done.stdout


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("resnet81", "did you mean resnet8"),
        ("networks/resnet81", "there is no such file or folder; expected a zoo name"),
        ("", "expected a zoo name"),
        ("no\0name", "expected a zoo name"),
        ("nothing/here.pt2", "no such file"),
        ("net.json", "no such file"),
        ("no_such_package.part:make", "importing no_such_package.part failed"),
        (f"{__name__}:Smal", "did you mean Small"),
        (f"{__name__}:1x", "expected package.module:factory"),
        (":make", "expected package.module:factory"),
        (f"{__name__}:not_a_model", "expected it to return a torch.nn.Module, got int"),
        (f"{__name__}:failing", "RuntimeError: no licence"),
        (f"{__name__}:Small", "--input 1,3,224,224"),
    ],
)
def test_arguments_that_name_nothing_are_refused(text: str, says: str) -> None:
    with pytest.raises(WorkloadError) as error:
        load_model_argument(text)
    assert says in str(error.value)


def test_inputs_that_do_not_fit_are_refused() -> None:
    with pytest.raises(WorkloadError, match=r"expected 4 sizes like 1,3,224,224, got \(3, 224, 224\)"):
        load_model_argument("resnet18", (3, 224, 224))
    with pytest.raises(WorkloadError, match="expected positive sizes"):
        load_model_argument("resnet18", (1, 3, 0, 224))
    with pytest.raises(WorkloadError, match=r"does not run on an input of shape \(1, 4, 8, 8\)"):
        load_model_argument(f"{__name__}:Small", (1, 4, 8, 8))


@pytest.mark.parametrize("library", ["timm", "torchvision", "hf"])
def test_libraries_that_are_absent_are_named_with_the_way_out(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, {"hf": "transformers"}.get(library, library), None)
    with pytest.raises(WorkloadError, match=r"pip install 'hwsim\[zoo\]'"):
        load_model_argument(f"{library}:resnet18")


def test_a_configuration_of_transformers_is_no_saved_workload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    config = tmp_path / "config.json"
    config.write_text('{"model_type": "bert"}', encoding="utf-8")
    assert evaluate([f"hf:{config}", "eyeriss_v1", "--quick"]) == 2
    assert "needs transformers, which cannot be imported" in capsys.readouterr().err
    with pytest.raises(WorkloadError, match="needs transformers"):
        load_model(f"hf:{tmp_path / 'absent.json'}", None, False)
    with pytest.raises(WorkloadError, match=r"absent\.json: cannot be read as a workload: No such file"):
        load_model(str(tmp_path / "absent.json"), None, False)


def test_imports_that_fail_inside_a_library_are_named_by_their_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers imports a model's module when it is asked for, and hides why that failed."""

    def is_model(name: str) -> bool:
        try:
            raise RuntimeError("operator torchvision::nms does not exist")
        except RuntimeError as reason:
            raise ModuleNotFoundError("Could not import module 'Net'. Are this object's requirements met?") from reason

    library: Any = types.ModuleType("timm")
    library.is_model = is_model
    monkeypatch.setitem(sys.modules, "timm", library)
    with pytest.raises(
        WorkloadError, match=r"nms does not exist\): pip install 'hwsim\[zoo\]', in a version that fits"
    ):
        load_model_argument("timm:net")


def test_unknown_names_of_transformers_say_what_is_expected(monkeypatch: pytest.MonkeyPatch) -> None:
    class Configs:
        @staticmethod
        def from_pretrained(name: str, **_: Any) -> Any:
            raise OSError("We couldn't connect to the hub.\nCheck your connection")

    library: Any = types.ModuleType("transformers")
    library.AutoConfig, library.CONFIG_MAPPING = Configs, {"gpt2": None}
    monkeypatch.setitem(sys.modules, "transformers", library)
    with pytest.raises(
        WorkloadError, match=r"hf:gpt3: did you mean gpt2\? expected a model type such as gpt2, a folder"
    ):
        load_model_argument("hf:gpt3")


def test_library_models_are_built_without_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[torch.device] = []

    def create_model(name: str, pretrained: bool) -> nn.Module:
        assert not pretrained
        model: Any = Small()
        model.default_cfg = {"input_size": (3, 8, 8)}
        built.append(model.fc.weight.device)
        return model

    library: Any = types.ModuleType("timm")
    library.is_model = lambda name: name == "small"
    library.list_models = lambda: ["small"]
    library.create_model = create_model
    monkeypatch.setitem(sys.modules, "timm", library)
    assert load_model_argument("timm:small").layers == extract(Small(), torch.zeros(1, 3, 8, 8)).layers
    assert [device.type for device in built] == ["meta"]
    with pytest.raises(WorkloadError, match="timm:smal: no such model; did you mean small"):
        load_model_argument("timm:smal")


def archive(path: Path, graph: Any, name: str = "net/models/model.json") -> Path:
    """A zip file with that text, or JSON, as its graph."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(name, graph if isinstance(graph, str | bytes) else json.dumps(graph))
    return path


@pytest.mark.parametrize(
    ("graph", "says"),
    [
        ("{", "is not JSON"),
        ("[1]", "not an exported program"),
        ({}, "key 'graph_module' is missing"),
        ({"graph_module": {"graph": {}, "signature": {"input_specs": []}}}, "key 'tensor_values' is missing"),
        (
            {"graph_module": {"graph": {"tensor_values": {"x": {}}}, "signature": {"input_specs": []}}},
            "not a graph this version can read",
        ),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_archives_with_another_graph_are_refused(tmp_path: Path, graph: Any, says: str) -> None:
    with pytest.raises(WorkloadError, match=says):
        load_model_argument(str(archive(tmp_path / "net.pt2", graph)))


def test_files_of_other_kinds_are_refused(tmp_path: Path, exported: Path) -> None:
    cases: dict[str, tuple[bytes, str]] = {
        "empty.pt2": (b"", "file is empty"),
        "text.pt2": (b"hello", "not a .pt2 archive"),
        "cut.pt2": (exported.read_bytes()[:500], "truncated"),
        "weights.h5": (b"\x89HDF\r\n", "holds weights without a network"),
        "picture.xyz": (b"\x89XYZ\r\n", "not a network file"),
        "data.json": (b'{"a": 1}', "expected a saved workload"),
    }
    for name, (content, says) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(WorkloadError, match=says) as error:
            load_model_argument(str(tmp_path / name))
        assert str(error.value).startswith(str(tmp_path / name))
    with pytest.raises(WorkloadError, match=r"an archive without a graph"):
        load_model_argument(str(archive(tmp_path / "other.zip", "{}", "readme.json")))
    with pytest.raises(WorkloadError, match=r"a folder without settings\.json"):
        load_model_argument(str(tmp_path))


def test_open_sizes_and_other_inputs_are_refused(exported: Path, tmp_path: Path) -> None:
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(
        Small().eval(), (torch.zeros(2, 3, 8, 8),), strict=False, dynamic_shapes=({0: batch},)
    )
    torch.export.save(program, tmp_path / "open.pt2")
    with pytest.raises(WorkloadError, match=r"has a symbolic size .*export again without dynamic_shapes"):
        load_model_argument(str(tmp_path / "open.pt2"))
    with pytest.raises(WorkloadError, match=r"exported for an input of shape \(1, 3, 8, 8\), --input says"):
        load_model_argument(str(exported), (1, 3, 9, 9))


def test_exported_operators_without_a_price_are_refused(tmp_path: Path) -> None:
    program = torch.export.export(Cumulative().eval(), (torch.zeros(1, 4),), strict=False)
    torch.export.save(program, tmp_path / "odd.pt2")
    with pytest.raises(UnsupportedOp, match=r"aten\.special_i1: 1x"):
        load_model_argument(str(tmp_path / "odd.pt2"))
    net = load_model_argument(str(tmp_path / "odd.pt2"), allow_uncosted=True)
    assert [u.op for u in net.coverage.uncosted] == ["aten.special_i1"]


class Cumulative(nn.Module):
    """A linear layer and an operator without a price."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.special.i1(self.fc(x))


def test_checkpoints_with_something_wrong_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "settings.json").write_text("{")
    with pytest.raises(WorkloadError, match=r"settings\.json"):
        load_model_argument(str(folder))
