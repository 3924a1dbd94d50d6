"""One trained network in seven files: each names it, an edited or foreign file is told apart."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from hwsim import api, export_c, export_onnx
from hwsim.errors import RequestError
from hwsim.evaluate import main as evaluate
from hwsim.explore.command import main as explore
from hwsim.files.identity import read_identity
from hwsim.integer.proof.same import read_artefact
from hwsim.table import main as table
from hwsim.verify import main as verify
from quant import checkpoint
from tests.integer.nets import zoo
from tests.integer.test_lower import SILU_SMALL

pytest.importorskip("onnx")


def saved(folder: Path, bits: int) -> Path:
    """A small calibrated network."""
    model, _ = zoo("silu_se_net", bits, arguments=SILU_SMALL, padding_policy="border_bias")
    quantization = {"weight_bits": bits, "act_bits": bits, "first_last": "same", "padding_policy": "border_bias"}
    return checkpoint.save(folder, model, checkpoint.Meta("silu_se_net", SILU_SMALL, quantization, (3, 8, 8), 10))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """All artefacts of one network, made by the commands."""
    out = tmp_path_factory.mktemp("run")
    net = saved(out / "net", 4)
    assert export_c.main([str(net), str(out / "net.c")]) == 0
    assert export_onnx.main([str(net), str(out / "net.onnx")]) == 0
    assert verify([str(net), "--random", "--images", "2", "--out", str(out / "certificate.json")]) == 0
    assert evaluate([str(net), "tpu_v1", "--quick", "--out", str(out / "report")]) == 0
    assert table([str(net), "bit_fusion", "--bits", "W4A4", "--out", str(out / "table.csv")]) == 0
    space = {"model": str(net), "accelerator": "bit_fusion", "bits": "W4A4", "search": {"mac.energy_pj": [2.0, 2.1]}}
    (out / "space.yaml").write_text(json.dumps(space))
    assert explore(["machines", str(out / "space.yaml"), "--out", str(out / "study"), "--quiet"]) == 0
    return {
        "checkpoint": net, "report": out / "report", "table": out / "table.csv", "study": out / "study",
        "certificate": out / "certificate.json", "C": out / "net.c", "ONNX": out / "net.onnx",
    }  # fmt: skip


@pytest.mark.long
def test_seven_artefacts_of_one_run_carry_one_identity(
    run: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert {kind: read_artefact(path).kind for kind, path in run.items()} == {kind: kind for kind in run}
    assert verify(["--same", *map(str, run.values())]) == 0
    printed = capsys.readouterr().out
    identity = json.loads((run["checkpoint"] / "settings.json").read_text())["identity"]
    assert identity == checkpoint.identity(run["checkpoint"])
    assert printed.count(identity) == 7
    assert printed.endswith("one trained network\n")
    assert form(printed) == form(page_example())


def form(printed: str) -> list[tuple[int, str, str]]:
    """What does not change from network to network: digits of the identity, kind, name of the file."""
    lines = [line.split() for line in printed.strip().splitlines()[:-1]]
    return [(len(identity), kind, Path(path).name) for identity, kind, path in lines]


def page_example() -> str:
    """The output that docs/integer.md shows."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "integer.md").read_text(encoding="utf-8")
    command, block = "python -m hwsim.verify --same net", "makes all seven and compares this form):"
    assert command in page
    return page.split(block)[1].split("```")[1]


def test_another_network_is_told_apart(run: dict[str, Path], tmp_path: Path) -> None:
    other = saved(tmp_path / "other", 3)
    for path in run.values():
        assert verify(["--same", str(other), str(path)]) == 1


@pytest.mark.parametrize("kind", ["report", "certificate", "C", "ONNX"])
def test_a_file_edited_after_it_was_written_is_told_apart(
    run: dict[str, Path], kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = run[kind] / "report.json" if kind == "report" else run[kind]
    copy = tmp_path / source.name
    content = source.read_bytes()
    if kind == "ONNX":
        import onnx

        model = onnx.load(str(source))
        weights = max(model.graph.initializer, key=lambda tensor: len(tensor.float_data))
        weights.float_data[0] += 1
        content = model.SerializeToString()
    else:
        old, new = {"report": (b'"macs": ', b'"macs": 1'), "certificate": (b'"model": "', b'"model": "x'),
                    "C": (b"{\n", b"{\n1")}[kind]  # fmt: skip
        assert old in content
        content = content.replace(old, new, 1)
    copy.write_bytes(content)
    assert verify(["--same", str(run["checkpoint"]), str(copy)]) == 1
    assert "changed since it was written" in capsys.readouterr().out


def test_an_editor_that_changes_ends_of_lines_does_not_change_a_c_file(run: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "net.c").write_bytes(run["C"].read_bytes().replace(b"\n", b"\r\n"))
    assert verify(["--same", str(run["C"]), str(tmp_path / "net.c")]) == 0


def test_settings_of_another_network_are_refused(run: dict[str, Path], tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "net"
    shutil.copytree(run["checkpoint"], folder)
    settings = json.loads((folder / "settings.json").read_text())
    settings["quantization"]["padding_policy"] = "pad_code"
    (folder / "settings.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=r"identity: '[0-9a-f]{16}' is not that of these settings and weights"):
        checkpoint.load(folder)


@pytest.mark.long
def test_other_bits_are_another_network(run: dict[str, Path], tmp_path: Path) -> None:
    report = api.evaluate(str(run["checkpoint"]), "tpu_v1", bits="W2A2", effort="quick")
    assert report.workload.identity == ""
    report.save(tmp_path / "report")
    with pytest.raises(RequestError, match="names no trained network"):
        read_artefact(tmp_path / "report")


@pytest.mark.long
def test_a_table_names_its_network_and_its_question_in_every_row(run: dict[str, Path], tmp_path: Path) -> None:
    rows = list(csv.DictReader(run["table"].read_text().splitlines()))
    assert {row["network"] for row in rows} == {checkpoint.identity(run["checkpoint"])}
    whole = tmp_path / "table.json"
    assert table([str(run["checkpoint"]), "bit_fusion", "--bits", "W4A4", "--out", str(whole)]) == 0
    found = json.loads(whole.read_text())
    assert {row["identity"] for row in rows} == {found["identity"]["hash"]}
    assert read_artefact(whole).identity == found["network"]
    assert table([str(run["checkpoint"]), "bit_fusion", "--bits", "W4A4", "--alone", "--out", str(whole)]) == 0
    alone = read_identity(json.loads(whole.read_text())["identity"])
    before = read_identity(found["identity"])
    assert alone is not None
    assert before is not None
    assert alone.differences(before) == ["options"]


@pytest.mark.parametrize(
    "text", ["", "layer,network\n", "layer\nfc\n", "layer,network\nfc,\n", "layer,network\na,b\nc,d\n"]
)
def test_a_table_without_one_network_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(RequestError, match="names no trained network, or several"):
        read_artefact(tmp_path / "table.csv")


def test_a_study_of_several_networks_is_refused(run: dict[str, Path], tmp_path: Path) -> None:
    import shutil

    shutil.copytree(run["study"], tmp_path / "study")
    (tmp_path / "study" / "networks" / "network.json").unlink()
    with pytest.raises(RequestError, match="of one trained network, found 0"):
        read_artefact(tmp_path / "study")


@pytest.mark.long
def test_a_saved_workload_keeps_its_identity(run: dict[str, Path], tmp_path: Path) -> None:
    report = api.evaluate(str(run["checkpoint"]), "tpu_v1", effort="quick")
    report.workload.save(tmp_path / "net.json")
    assert verify(["--same", str(run["checkpoint"]), str(tmp_path / "net.json")]) == 0


@pytest.mark.parametrize("arguments", [[], ["--same", "a"], ["net", "--same", "a", "b"]])
def test_a_comparison_needs_two_paths(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        verify(arguments)
    assert stopped.value.code == 2
    assert "expected" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a.c", "a.onnx", "a.json", "nowhere.json", "folder"])
def test_what_names_no_network_is_refused_in_one_message(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder").mkdir()
    for other in ("a.c", "a.onnx", "a.json"):
        (tmp_path / other).write_bytes(b"[1]")
    assert verify(["--same", str(tmp_path / name), str(tmp_path / name)]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert name in message
