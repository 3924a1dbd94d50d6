"""Studies over machines: grids are complete, resumed studies end as undisturbed ones, every mistake is named."""

from __future__ import annotations

import csv
import dataclasses
import errno
import io
import json
import math
import os
import random
import shlex
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hwsim.errors import SpecError, WorkloadError
from hwsim.explore.command import main
from hwsim.explore.machines.bounded import Bounded
from hwsim.explore.machines.journal import Journal, sealed, trial_of
from hwsim.explore.machines.sharing import shared_tables
from hwsim.explore.machines.space_reader import read_space
from hwsim.explore.machines.study import front_of, run_study
from hwsim.explore.machines.study_output import write_point
from hwsim.explore.machines.trial import evaluate
from hwsim.explore.machines.workers import HANDING_SECONDS, Here, Local, Pace, timed
from hwsim.files.identity import content_hash, identity
from hwsim.machine.load import shipped_specs
from hwsim.network.bits import assign_bits
from hwsim.network.saved import load_workload
from hwsim.report.evaluation import Request, at_bits, evaluate_workload
from hwsim.search.effort import Options
from hwsim.search.machines.answers import MachineAnswers
from hwsim.search.network import plan_layers, plan_network
from hwsim.search.proof.native import why_not_compiled
from hwsim.search.result import Found
from hwsim.search.space.problem import Problem
from tests.explore.test_bill import residual

ROOT = Path(__file__).resolve().parent.parent.parent
ROWS = "hierarchy.fusion_units.axes.rows.size"
BUFFER = "hierarchy.input_buffer.size_bits"
LLAMA: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 64, "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 8,
    "intermediate_size": 96, "num_hidden_layers": 2, "vocab_size": 101, "tie_word_embeddings": False,
    "max_position_embeddings": 4096,
}  # fmt: skip
SEARCH: dict[str, Any] = {ROWS: {"from": 4, "to": 8, "step": 4}, BUFFER: [65536, 262144]}


def space_file(folder: Path, **changes: Any) -> Path:
    """An exploration file beside its network."""
    residual().save(folder / "net.json")
    said = {"model": str(folder / "net.json"), "accelerator": "bit_fusion", "bits": "W4A4", "search": SEARCH, **changes}
    (folder / "space.yaml").write_text(yaml.safe_dump({k: v for k, v in said.items() if v is not None}))
    return folder / "space.yaml"


def rows(out: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((out / "study.csv").read_text())))


def journal(out: Path) -> dict[int, Any]:
    lines = [json.loads(line) for line in (out / "journal.jsonl").read_text().splitlines()]
    assert len({line["trial"] for line in lines}) == len(lines), "a trial was recorded twice"
    return {line["trial"]: line for line in lines}


def test_a_grid_prices_every_point_and_leaves_files_that_reproduce_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from hwsim.evaluate import main as evaluate_main

    out = tmp_path / "out"
    assert main(["machines", str(space_file(tmp_path)), "--out", str(out), "--quiet"]) == 0
    said = capsys.readouterr().out
    found = rows(out)
    assert [(int(r[ROWS]), int(r[BUFFER])) for r in found] == [(4, 65536), (4, 262144), (8, 65536), (8, 262144)]
    front = [r for r in found if r["front"] == "True"]
    assert f"{len(front)} on the front" in said
    for row in front:
        place = out / f"point_{int(row['trial']):04d}"
        network = str(tmp_path / "net.json")
        assert evaluate_main([network, str(place / "spec.yaml"), "--quick", "--bits", "W4A4", "--json"]) == 0
        totals = json.loads(capsys.readouterr().out)["totals"]
        assert totals["energy_pj"] == float(row["energy_pj"])
        assert totals["latency_cycles"] == float(row["latency_cycles"])
    assert (out / "front.png").exists()
    written = (out / "study.parquet").read_bytes()
    assert written[:4] == b"PAR1"


def test_a_memory_of_another_size_has_other_energies_unless_fixed(tmp_path: Path) -> None:
    space = read_space(space_file(tmp_path))
    base, small = (space.machine({ROWS: 4, BUFFER: size}).memories[1] for size in (262144, 65536))
    assert small.read_energy_pj == pytest.approx(base.read_energy_pj / 2)
    assert small.area_mm2 == pytest.approx(base.area_mm2 / 4)
    fixed = read_space(space_file(tmp_path, memories="fixed")).machine({ROWS: 4, BUFFER: 65536})
    assert fixed.memories[1].read_energy_pj == base.read_energy_pj


def test_a_study_around_any_shipped_spec_has_an_identity(tmp_path: Path) -> None:
    """Tables of measured machines among them: their bytes are hashed, not their names."""
    found = {}
    for spec in sorted(shipped_specs()):
        space = read_space(space_file(tmp_path, accelerator=spec, search={"clock_mhz": [100, 200]}))
        found[spec] = space.identity({}).parts["accelerator"]
    assert len(set(found.values())) == len(found) > 20


@pytest.mark.parametrize("bits", ["W4A4", {"default": "W2A2", "first_last": "same", "second": "W4A8"}], ids=str)
def test_a_point_is_the_price_of_its_machine(tmp_path: Path, bits: Any) -> None:
    space = read_space(space_file(tmp_path, bits=bits))
    (tmp_path / "network.json").write_text((tmp_path / "net.json").read_text())
    parameters = {ROWS: 8, BUFFER: 65536}
    (record,) = evaluate(space, tmp_path, [(3, parameters)])
    plan = plan_network(assign_bits(residual(), bits), space.machine(parameters), "energy")
    assert record["values"]["energy_pj"] == plan.cost.totals.energy_pj
    assert record["trial"] == 3


FORMATS: list[Any] = ["W4A16", "W4g32A16", "MXFP4", {"default": "W4g32zA8", "first_last": "same", "second": "W8A8"}]


@pytest.mark.long
@pytest.mark.parametrize("bits", FORMATS, ids=str)
@pytest.mark.parametrize(
    "how", [{}, {"effort": "perfect", "homes": "afterwards"}, {"effort": "perfect", "homes": "none"}], ids=str
)
def test_a_format_means_to_a_study_what_it_means_to_evaluate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bits: Any, how: dict[str, str]
) -> None:
    """W4A16 was 16-bit integers here, and other formats were refused; points with shared tables cost the same."""
    monkeypatch.setenv("HWSIM_CACHE", "")
    search = {"hierarchy.hbm3e.read_energy_pj": [100, 900]}
    space = read_space(space_file(tmp_path, bits=bits, accelerator="b200", search=search, **how))
    run_study(space, tmp_path / "out", {"network.json": residual()}, Here())
    for record in journal(tmp_path / "out").values():
        machine = space.machine(record["parameters"])
        request = Request(bits=bits, effort=space.effort)
        if space.homes == "joint":
            asked = evaluate_workload(residual(), machine, request).cost.totals
        else:
            network, options = at_bits(residual(), machine, request), Options(effort="perfect")
            stay = space.homes == "afterwards"
            asked = plan_layers(network, machine, "energy", options, stay=stay).cost.totals
        assert record["values"]["energy_pj"] == pytest.approx(asked.energy_pj, rel=1e-9)
        assert record["values"]["weight_bits"] == asked.weight_bits


def test_a_phase_of_a_language_model_is_searched_over_batch_and_context(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from hwsim.evaluate import main as evaluate_main

    config = tmp_path / "small.json"
    config.write_text(json.dumps(LLAMA), encoding="utf-8")
    search = {"network.batch": [1, 4], "network.context": [16, 64]}
    said = {"model": f"hf:{config}", "accelerator": "a100", "phase": "decode", "new": 3, "bits": "W4g32A16KV8"}
    path, out = space_file(tmp_path, search=search, **said), tmp_path / "out"
    assert main(["machines", str(path), "--out", str(out), "--quiet"]) == 0
    records = journal(out)
    assert len(records) == 4
    for place in out.glob("point_*"):
        (line,) = (place / "commands.txt").read_text().splitlines()
        capsys.readouterr()
        assert evaluate_main([*shlex.split(line)[3:], "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        record = records[int(place.name.removeprefix("point_"))]
        assert found["totals"]["energy_pj"] == record["values"]["energy_pj"]
        assert found["generation"]["batch"] == record["parameters"]["network.batch"]
        assert found["generation"]["past_tokens"] == record["parameters"]["network.context"] + 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bits": "W4g0A16"}, "a group has 1 to 1,048,576 elements, got 0"),
        ({"bits": {"default": "MXFP4", "second": 4}}, "expected a format such as W4g128A16, got 4"),
        ({"batch": 3}, "batch: is for language models: add `phase: prefill` or `phase: decode`"),
        ({"phase": "train"}, "phase: expected one of prefill, decode, got 'train'"),
        ({"phase": "decode", "context": 0}, "context: expected a whole number from 1, got 0"),
        ({"search": {"network.batch": [1]}}, "varies a language model: add `phase: decode`"),
        ({"phase": "decode", "search": {"network.width": [1]}}, "varies an image network, no phase"),
        ({"phase": "decode", "batch": 2, "search": {"network.batch": [1]}}, "varies what `batch` fixes"),
    ],
)
def test_mistakes_about_formats_and_phases_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as found:
        read_space(space_file(tmp_path, **changes))
    assert message in str(found.value)
    assert "space.yaml" in str(found.value)


def test_each_front_point_has_its_machine_its_bits_and_its_commands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from hwsim.evaluate import main as evaluate_main

    bits = {"weights": "2,4,8", "activations": "8", "minimise": "bops", "limits": ["second.weight=4..8"]}
    out = tmp_path / "out"
    path = space_file(tmp_path, bits=bits, search={BUFFER: [65536]})
    assert main(["machines", str(path), "--out", str(out), "--quiet"]) == 0
    place = out / "point_0000"
    assert yaml.safe_load((place / "overrides.yaml").read_text())["second"]["weight_bits"] == 4
    (line,) = (place / "commands.txt").read_text().splitlines()  # a saved workload is priced, not trained
    asked = shlex.split(line)
    assert asked[:3] == ["python", "-m", "hwsim.evaluate"]
    capsys.readouterr()
    assert evaluate_main([*asked[3:], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["totals"]["energy_pj"] == float(rows(out)[0]["energy_pj"])
    assert (out / "hypervolume.png").stat().st_size > 5000


def test_the_commands_of_a_zoo_network_train_it(tmp_path: Path) -> None:
    space = read_space(space_file(tmp_path, model="resnet8", bits="W4A4"))
    record = {"trial": 3, "parameters": space.point([0, 0]), "widths": {}}
    write_point(space, record, tmp_path, "resnet8")
    train = shlex.split((tmp_path / "point_0003" / "commands.txt").read_text().splitlines()[1])
    assert train[:9] == [
        "python",
        "-m",
        "quant.train",
        "--model",
        "resnet8",
        "--weights",
        "pretrained",
        "--data",
        "DATA",
    ]
    assert train[9:] == ["--bits", "W4A4", "--out", str(tmp_path / "point_0003" / "trained")]
    same = {"default": "W2A2", "first_last": "same", "elementwise_bits": "same"}
    write_point(dataclasses.replace(space, bits=same), record, tmp_path, "resnet8")
    assert yaml.safe_load((tmp_path / "point_0003" / "bits.yaml").read_text()) == same
    words = shlex.split((tmp_path / "point_0003" / "commands.txt").read_text().splitlines()[1])
    assert words[9:15] == ["--bits", "W2A2", "--first-last", "same", "--elementwise-bits", "same"]
    variant = {**record, "parameters": {**record["parameters"], "network.width": 0.5}}
    write_point(space, variant, tmp_path, "resnet8")
    price, train_it = (tmp_path / "point_0003" / "commands.txt").read_text().splitlines()
    assert str(tmp_path / "networks" / "network_width-0.5.json") in price
    assert "--model-arg width=0.5 --data" in train_it


@pytest.mark.parametrize("file", [1, 2, 3])
def test_a_point_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: int) -> None:
    """The disk fills up at its n-th file."""
    space = read_space(space_file(tmp_path))
    calls, real = 0, os.fsync

    def full(descriptor: int) -> None:
        nonlocal calls
        calls += stat.S_ISREG(os.fstat(descriptor).st_mode)
        if calls == file:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_point(space, {"trial": 3, "parameters": space.point([0, 0]), "widths": {}}, tmp_path, "net.json")
    assert sorted(tmp_path.iterdir()) == before


def test_a_study_may_ask_for_proven_mappings(tmp_path: Path) -> None:
    space = read_space(space_file(tmp_path, effort="proven", gap=0.02, search={BUFFER: [65536]}))
    (tmp_path / "network.json").write_text((tmp_path / "net.json").read_text())
    (record,) = evaluate(space, tmp_path, [(0, {BUFFER: 65536})])
    quick = read_space(space_file(tmp_path, search={BUFFER: [65536]}))
    (simple,) = evaluate(quick, tmp_path, [(0, {BUFFER: 65536})])
    plan = plan_network(assign_bits(residual(), "W4A4"), space.machine({BUFFER: 65536}), effort="proven", gap=0.02)
    assert record["values"]["energy_pj"] == plan.cost.totals.energy_pj
    assert record["values"]["mapping_gap_max"] < simple["values"]["mapping_gap_max"]


@pytest.mark.skipif(bool(why_not_compiled()), reason=why_not_compiled())
def test_layers_from_shared_tables_cost_what_their_own_proofs_cost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HWSIM_CACHE", "")
    said = {"hierarchy.dram.read_energy_pj": [500, 900, 2000], BUFFER: [65536, 262144], ROWS: [4, 8]}
    choice = {"memories": "fixed", "effort": "perfect", "homes": "afterwards", "bits": "W4A4"}
    path = space_file(tmp_path, search=said, **choice)
    space, workload = read_space(path), residual()
    run_study(space, tmp_path / "out", {"network.json": workload}, Here())
    shared = shared_tables(space)
    assert [axis.key for axis in shared.free] == ["hierarchy.dram.read_energy_pj", BUFFER]
    parts = [part for part in shared.parts.values() if part is not None]
    assert len(parts) == 2
    assert sum(part.answered for part in parts) > 0 == sum(part.refused for part in parts)
    for record in journal(tmp_path / "out").values():
        machine = space.machine(record["parameters"])
        fresh = plan_layers(assign_bits(workload, "W4A4"), machine, "energy", Options(effort="perfect"))
        assert record["values"]["energy_pj"] == pytest.approx(fresh.cost.totals.energy_pj, rel=1e-9)
        gap = max(found.certificate.gap for found in fresh.found.values())  # words round up: these layers are small
        assert record["values"]["mapping_gap_max"] == pytest.approx(gap, abs=1e-8)
        assert record["tables"]["proven_anew"] == []
        assert record["tables"]["answered"] > 1


@pytest.mark.skipif(bool(why_not_compiled()), reason=why_not_compiled())
def test_a_study_names_the_layers_that_tables_could_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HWSIM_CACHE", "")
    look_up = MachineAnswers.look_up

    def silent(self: MachineAnswers, problem: Problem, *rest: Any) -> Found | None:
        return None if problem.layer.name == "second" else look_up(self, problem, *rest)

    monkeypatch.setattr(MachineAnswers, "look_up", silent)
    choice = {"memories": "fixed", "effort": "perfect", "homes": "afterwards", "bits": "W4A4"}
    path = space_file(tmp_path, search={"hierarchy.dram.read_energy_pj": [500, 901], BUFFER: [8, 65536]}, **choice)
    assert main(["machines", str(path), "--out", str(tmp_path / "out"), "--quiet"]) == 0
    records = journal(tmp_path / "out").values()
    asked = {record["trial"]: record["tables"] for record in records if record["status"] == "ok"}
    assert 0 < len(asked) < len(records)  # a buffer of one code runs nothing
    assert all(told["proven_anew"] == ["second"] and told["answered"] > 0 for told in asked.values())
    for row in rows(tmp_path / "out"):
        told = asked.get(int(row["trial"]))
        expected = [str(told["answered"]), "1"] if told else ["", ""]
        assert [row["from_tables"], row["proven_anew"]] == expected
    said = json.loads((tmp_path / "out" / "front.json").read_text())["assumptions"][-1]
    assert f"; {len(asked)} were proven anew" in said


def test_a_line_with_a_strange_origin_of_its_proofs_is_no_trial() -> None:
    good = {"trial": 0, "parameters": {}, "status": "ok", "why": "", "values": {}, "widths": {}}
    assert trial_of(sealed({**good, "tables": {"answered": 2, "proven_anew": ["a"]}})) is not None
    for strange in (None, 3, {}, {"answered": -1, "proven_anew": []}, {"answered": 1, "proven_anew": [2]}):
        assert trial_of(sealed({**good, "tables": strange})) is None


BOUND: dict[str, Any] = {
    "effort": "perfect", "homes": "none", "objectives": ["energy_pj", "area_mm2"],
    "search": {
        BUFFER: [256, 1024, 16384],
        "hierarchy.output_buffer.size_bits": [512, 4096],
        "hierarchy.weight_buffer.size_bits": [64, 256, 1024],
        ROWS: [4],
    },
}  # fmt: skip


@pytest.mark.long
@pytest.mark.skipif(bool(why_not_compiled()), reason=why_not_compiled())
@pytest.mark.parametrize(
    "more", [{"limits": {"area_mm2": 0.32}}, {"memories": "fixed"}, pytest.param({}, marks=pytest.mark.slow)], ids=str
)
def test_bounds_find_the_front_of_the_whole_grid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any]
) -> None:
    monkeypatch.setenv("HWSIM_CACHE", "")
    fronts: list[list[list[float]]] = []
    counts: list[int] = []
    for sampler in ("grid", "bound"):
        space = read_space(space_file(tmp_path, sampler=sampler, **{**BOUND, **more}))
        records = run_study(space, tmp_path / sampler, {"network.json": residual()}, Here())
        fronts.append([[r["values"][name] for name in space.objectives] for r in front_of(space, records)])
        counts.append(len(records))
    assert len(fronts[0]) == len(fronts[1]) > 0
    for whole, bounded in zip(*fronts, strict=True):
        assert bounded == pytest.approx(whole, rel=1e-9)
    assert counts[0] == 3 * 2 * 3
    assert counts[1] < counts[0]


def test_a_box_of_machines_costs_no_less_than_its_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if why_not_compiled():
        pytest.skip(why_not_compiled())
    monkeypatch.setenv("HWSIM_CACHE", "")
    space = read_space(space_file(tmp_path, sampler="bound", **BOUND))
    bounded = Bounded(space, {"network.json": residual()})
    rng = random.Random(3)
    for _ in range(6):
        family = bounded.family((0,))
        ends = [sorted(rng.sample(range(len(space.axes[a].values)), 2)) for a in bounded.axes]
        bound = family.bound(tuple((low, high) for low, high in ends))
        own = zip(bounded.axes, [rng.randint(low, high) for low, high in ends], strict=True)
        point = {**family.point, **{space.axes[a].key: space.axes[a].values[i] for a, i in own}}
        machine = space.machine(point)
        plan = plan_layers(assign_bits(residual(), "W4A4"), machine, "energy", Options(effort="perfect"), stay=False)
        assert bound["energy_pj"] <= plan.cost.totals.energy_pj
        assert bound["area_mm2"] <= plan.cost.totals.area_mm2 * (1 + 1e-9)
        assert family.answers.answered > 0 == family.answers.refused  # its corner lies in the tables' box


def test_where_bounds_leave_nothing_one_point_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for change, said in (({"limits": {"area_mm2": 1e-4}}, "area_mm2 "), ({"search": {BUFFER: [8]}}, "no point runs")):
        path = space_file(tmp_path, sampler="bound", **{**BOUND, **change})
        assert main(["machines", str(path), "--out", str(tmp_path / said.strip()), "--quiet"]) == 3
        assert said in capsys.readouterr().err


def test_bounds_ask_for_sums_that_they_can_bound(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"homes: none.*\n.*no bounds of latency_cycles"):
        read_space(space_file(tmp_path, sampler="bound", objectives=["energy_pj", "latency_cycles"]))


def test_limits_drop_points_and_impossible_ones_name_the_closest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = space_file(tmp_path, limits={"area_mm2": 1e-3})
    assert main(["machines", str(path), "--out", str(tmp_path / "out"), "--quiet"]) == 3
    said = capsys.readouterr().err
    assert "no point meets them; closest is trial 0: area_mm2" in said
    assert len(journal(tmp_path / "out")) == 4


def test_bits_are_solved_for_each_machine(tmp_path: Path) -> None:
    bits = {"weights": "2,4,8", "activations": "8", "minimise": "bops", "budgets": ["peak=600B"]}
    space = read_space(space_file(tmp_path, bits=bits, search={BUFFER: [65536]}))
    (tmp_path / "network.json").write_text((tmp_path / "net.json").read_text())
    (record,) = evaluate(space, tmp_path, [(0, {BUFFER: 65536})])
    assert record["status"] == "ok"
    assert record["widths"]["second"]["weight"] == record["overrides"]["second"]["weight_bits"] == 2
    tight = space_file(tmp_path, bits={**bits, "budgets": ["peak=1B"]}, search={BUFFER: [65536]})
    (none,) = evaluate(read_space(tight), tmp_path, [(0, {BUFFER: 65536})])
    assert none["status"] == "infeasible"
    assert "peak_activation_bits: budget 8" in none["why"]


@pytest.mark.parametrize("sampler", ["random", "nsga2", "tpe"])
def test_a_study_cut_anywhere_ends_as_the_undisturbed_one(tmp_path: Path, sampler: str) -> None:
    pytest.importorskip("optuna")
    path = space_file(tmp_path, sampler=sampler, trials=10, generation=4, seed=1)
    space = read_space(path)
    priced: list[int] = []

    class Cheap(Here):
        def run(self, evaluate: Any, tasks: Any) -> Iterator[list[dict[str, Any]]]:
            for trial, parameters in tasks:
                priced.append(trial)
                values = {"energy_pj": 1.0 * parameters[BUFFER] + trial % 2, "latency_cycles": 40.0 / parameters[ROWS]}
                yield [{"trial": trial, "parameters": parameters, "status": "ok", "why": "", "values": values,
                        "widths": {}}]  # fmt: skip

    whole = run_study(space, tmp_path / "whole", {}, Cheap())
    once = len(priced)
    total = 4 if sampler == "random" else 10
    assert [r["trial"] for r in whole] == list(range(total))
    assert once == len({json.dumps(r["parameters"]) for r in whole})  # a repeated point is priced once
    lines = (tmp_path / "whole" / "journal.jsonl").read_bytes()
    for cut in (0, 1, 37, len(lines) // 2, len(lines) - 1):
        again = tmp_path / f"cut{cut}"
        again.mkdir()
        (again / "study.json").write_text((tmp_path / "whole" / "study.json").read_text())
        (again / "journal.jsonl").write_bytes(lines[:cut])
        assert run_study(space, again, {}, Cheap()) == whole
        assert sorted(journal(again)) == list(range(total))


def finished(trial: int) -> dict[str, Any]:
    """A record as a study writes it."""
    return {"trial": trial, "parameters": {"a": trial}, "status": "ok", "why": "", "values": {"energy_pj": 1.5}}


def test_a_study_belongs_to_one_driver(tmp_path: Path) -> None:
    asked = identity(space="x")
    with Journal(tmp_path, asked) as held:
        held.append([finished(0)])
        with pytest.raises(SpecError, match="another process works on this study"), Journal(tmp_path, asked):
            pass


def test_a_study_goes_on_only_where_nothing_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out")
    space = space_file(tmp_path)
    command = ["machines", str(space), "--out", out, "--quiet"]
    assert main(command) == 0
    assert main(command) == 0
    network = tmp_path / "net.json"
    before = network.read_text()
    network.write_text(before.replace('"name": "', '"name": "another ', 1))
    capsys.readouterr()
    assert main(command) == 2
    assert "this changed: networks" in capsys.readouterr().err
    network.write_text(before)
    space.write_text(space.read_text().replace("W4A4", "W8A8"))
    assert main(command) == 2
    assert "this changed: space" in capsys.readouterr().err


@pytest.mark.parametrize(
    "damage",
    ["", "\0\0\0", "{", "[]", "null", '{"nothing": 1}', '{"trial": true}', '{"trial": "1", "parameters": {}}',
     json.dumps({**finished(1), "status": "fine"}), json.dumps({**finished(1), "values": {"energy_pj": "low"}}),
     json.dumps({**finished(1), "values": [1]}), json.dumps({**finished(1), "values": {"energy_pj": math.nan}}),
     json.dumps({**finished(1), "values": {"energy_pj": 1.75}, "hash": content_hash(finished(1))}),
     "[" * 100_000, "\xff"],
)  # fmt: skip
def test_a_damaged_line_is_named_and_its_trial_done_again(tmp_path: Path, damage: str) -> None:
    asked = identity(space="x")
    with Journal(tmp_path, asked) as journal:
        journal.append([finished(0), finished(1), finished(2)])
    path = tmp_path / "journal.jsonl"
    lines = path.read_bytes().splitlines()
    lines[1] = damage.encode("latin-1")
    path.write_bytes(b"\n".join(lines) + b"\n")
    with Journal(tmp_path, asked) as journal:
        assert sorted(journal.records) == [0, 2]
        assert len(journal.damaged) == 1
        assert f"{path}:2" in journal.damaged[0]
        journal.append([finished(1)])
    with Journal(tmp_path, asked) as journal:
        assert sorted(journal.records) == [0, 1, 2]
        assert journal.damaged == []
    assert damage.encode("latin-1") in (tmp_path / "journal.damaged").read_bytes()


@pytest.mark.parametrize(
    "changes",
    [
        {"trial": 2**53},
        {"trial": 10**30},
        {"values": {"energy_pj": True}},
        {"values": {"energy_pj": 10**400}},
        {"why": 1},
    ],
)
def test_a_line_that_no_study_writes_is_no_trial_though_its_hash_is_right(changes: dict[str, Any]) -> None:
    assert trial_of(sealed(finished(1))) == finished(1)
    assert trial_of(sealed(finished(1) | changes)) is None


def test_trials_that_were_never_proposed_do_not_enter_a_study(tmp_path: Path) -> None:
    space = read_space(space_file(tmp_path))
    whole = run_study(space, tmp_path / "out", {"network.json": residual()}, Here())
    with (tmp_path / "out" / "journal.jsonl").open("ab") as file:
        file.write(sealed({**finished(99), "values": {}}) + b"\n")
    assert run_study(space, tmp_path / "out", {"network.json": residual()}, Here()) == whole


def test_a_journal_that_is_no_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").symlink_to("/dev/zero")
    with pytest.raises(SpecError, match=r"journal\.jsonl: expected a file of trials"), Journal(tmp_path, identity(a=1)):
        pass


def test_a_measured_machine_can_be_the_base(tmp_path: Path) -> None:
    space = read_space(space_file(tmp_path, accelerator="mico_measured", search={"clock_mhz": [100, 200]}))
    assert space.machine({"clock_mhz": 200}).clock_mhz == 200


def test_values_of_several_kinds_are_refused_before_the_first_trial(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"clock_mhz.*values of several kinds \(number and text\)"):
        read_space(space_file(tmp_path, search={"clock_mhz": [100, "fast"]}))


def test_what_is_wrong_with_the_surroundings_is_not_remembered(tmp_path: Path) -> None:
    space = read_space(space_file(tmp_path))

    class NoNetworks(Here):
        def run(self, evaluate: Any, tasks: Any) -> Iterator[list[dict[str, Any]]]:
            for file in (tmp_path / "out" / "networks").glob("*"):
                file.unlink()
            yield from super().run(evaluate, tasks)

    networks = {"network.json": load_workload(tmp_path / "net.json")}
    with pytest.raises(WorkloadError, match="cannot be read"):
        run_study(space, tmp_path / "out", networks, NoNetworks())
    assert (tmp_path / "out" / "journal.jsonl").read_bytes() == b""


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"search": {ROWS: []}}, "an empty list"),
        (
            {"accelerator": ["eyeriss_v1", "simba"]},
            "space.yaml:1: accelerator: expected a text, got ['eyeriss_v1'",
        ),
        ({"accelerator": 5}, "accelerator: expected a text, got 5"),
        ({"search": {ROWS: {"from": 8, "to": 4, "step": 1}}}, "an empty or endless range"),
        ({"search": {ROWS: {"from": 4, "to": 8}}}, "one of step and factor"),
        ({"search": {ROWS: [4, 4]}}, "stands twice"),
        ({"search": {}}, "expected keys of the spec"),
        ({"search": {"hierarchy.nosuch.size_bits": [1]}}, "no such part; the spec has dram, input_buffer"),
        ({"search": {"hierarchy.input_buffer.siz_bits": [1]}}, "siz_bits"),
        ({"search": {"macs.energy_pj": [1.0]}}, "unknown key; there are name"),
        ({"search": {"network.depth": [1]}}, "expected network.resolution or network.width"),
        ({"search": {ROWS: [0]}}, "size"),
        ({"limits": {"area": 3}}, "expected some of area_mm2"),
        ({"limits": {"area_mm2": -1}}, "expected a positive finite number"),
        ({"objectives": ["speed"]}, "expected different ones of energy_pj"),
        ({"objectives": ["loss"]}, "loss needs"),
        ({"sampler": "genetic"}, "expected one of grid, random, nsga2, tpe"),
        ({"sampler": "tpe"}, "tpe needs `trials: N`"),
        ({"bits": "W4"}, "expected W<bits>A<bits>"),
        ({"bits": {"width": 4}}, "expected some of weights"),
        ({"bits": {"weights": "4..2"}}, "bits: weights: the range '4..2' is empty"),
        ({"bits": {"budgets": ["latency=5parsecs"]}}, "expected a unit of cycles"),
        ({"bits": {"budgets": "energy=2mJ"}}, "budgets: expected a list of texts"),
        ({"bits": {"limits": ["second=4"]}}, "expected LAYERS.weight=WIDTHS"),
        ({"bits": {"sensitivities": "none.json"}}, "none.json: cannot be read"),
        ({"bits": {"minimise": "loss"}}, "the loss needs `sensitivities: FILE`"),
        ({"bits": {"first_last": "8"}}, "first_last: expected one of 8bit, same, free"),
        ({"bits": {"default": "W4"}}, "expected W<bits>A<bits>"),
        ({"bits": {"default": "W4A4", "first_last": "free"}}, "first_last: expected one of same, 8bit"),
        ({"bits": {"default": "W4A4", "weights": "2..8"}}, "bits are fixed by `default` or solved"),
        ({"bits": {"default": "W4A4", "secnod": "W2A2"}}, "secnod"),
        ({"effort": "hard"}, "expected one of quick, perfect, proven"),
        ({"gap": -1}, "expected a number from 0"),
        ({"accelerator": "bit_fusoin"}, "did you mean bit_fusion"),
        ({"nonsense": 1, "model": None}, "unknown key; expected some of model"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: Any, said: str) -> None:
    code = main(["machines", str(space_file(tmp_path, **changes)), "--out", str(tmp_path / "out"), "--quiet"])
    assert code == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_a_scheduler_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("distributed")
    out = tmp_path / "out"
    nowhere = ["--scheduler", "tcp://127.0.0.1:9"]
    code = main(["machines", str(space_file(tmp_path)), "--out", str(out), "--quiet", *nowhere])
    assert code == 2
    assert "no scheduler answers there" in capsys.readouterr().err


def test_batches_hold_a_tenth_of_a_second_and_leave_no_worker_idle() -> None:
    pace, tasks = Pace(), [(i, {}) for i in range(1000)]
    assert [len(b) for b in pace.batches(tasks, 2)] == [1] * 1000
    pace.note(1.0, 1000)
    assert {len(b) for b in pace.batches(tasks, 2)} == {100}
    assert len(pace.batches(tasks[:4], 2)) == 2


def test_batches_for_many_workers_outweigh_what_handing_them_out_costs() -> None:
    pace, tasks = Pace(), [(i, {}) for i in range(100_000)]
    assert len(pace.batches(tasks, 1000)) == len(tasks)  # how long a task takes is not known yet
    pace.note(10.0, 10)
    batches = pace.batches(tasks, 1000)
    seconds = len(batches[0]) * 1.0
    assert 1000 * HANDING_SECONDS / seconds <= 0.5  # the scheduler is busy half of the time at most
    assert len(batches) >= 1000
    assert len(pace.batches(tasks[:2000], 1000)[0]) == 2  # nobody idles for a batch's sake


# --- killing things ---------------------------------------------------------------------------------------------------


def start(space: Path, out: Path, *more: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "hwsim.explore", "machines", str(space), "--out", str(out), "--quiet", *more]
    environment = {**os.environ, "HWSIM_CACHE": "", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def done(out: Path) -> int:
    path = out / "journal.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def finish(process: subprocess.Popen[bytes]) -> None:
    _, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors.decode()


def wait_until(happened: Any, process: subprocess.Popen[bytes]) -> None:
    while not happened() and process.poll() is None:
        time.sleep(0.02)


def assert_survives_kills(tmp_path: Path, kills: int, points: int, *more: str) -> None:
    """Kill the driver after random numbers of finished points; the study ends as the undisturbed one."""
    rng = random.Random(0)
    search = {ROWS: [4, 8], "mac.energy_pj": [2.0 + 0.01 * i for i in range(points // 2)]}
    path, out = space_file(tmp_path, search=search), tmp_path / "killed"
    for at in sorted(rng.sample(range(points), kills)):
        process = start(path, out, *more)
        wait_until(lambda at=at: done(out) >= at, process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    finish(start(path, out, *more))
    calm = tmp_path / "calm"
    assert main(["machines", str(path), "--out", str(calm), "--quiet"]) == 0
    assert journal(out) == journal(calm)
    assert (out / "study.csv").read_text() == (calm / "study.csv").read_text()


@pytest.mark.long
def test_a_killed_driver_loses_nothing(tmp_path: Path) -> None:
    assert_survives_kills(tmp_path, 1, 4)


@pytest.mark.slow
@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_driver_killed_twenty_times_loses_nothing(tmp_path: Path, processes: str) -> None:
    assert_survives_kills(tmp_path, 20, 40, "--processes", processes)


def die_once(flag: Path, tasks: list[Any]) -> list[dict[str, Any]]:
    """Kills its own process the first time it sees each task."""
    for trial, _ in tasks:
        mark = flag / str(trial)
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    return [{"trial": trial} for trial, _ in tasks]


def assert_local_workers_may_die(tmp_path: Path, deaths: int) -> None:
    import functools

    workers = Local(2)
    try:
        tasks = [(i, {}) for i in range(deaths)]
        found = [r["trial"] for records in workers.run(functools.partial(die_once, tmp_path), tasks) for r in records]
    finally:
        workers.close()
    assert sorted(found) == list(range(deaths))


def test_a_killed_local_worker_loses_nothing(tmp_path: Path) -> None:
    assert_local_workers_may_die(tmp_path, 1)


@pytest.mark.slow
def test_local_workers_killed_twenty_times_lose_nothing(tmp_path: Path) -> None:
    assert_local_workers_may_die(tmp_path, 20)


def assert_cluster_survives(tmp_path: Path, address: str, kills: int, points: int) -> None:
    """Workers of a cluster are killed at random points of a study (their nannies start them anew)."""
    import functools

    from distributed import Client

    from hwsim.explore.machines.workers import Cluster

    flag = tmp_path / "flags"
    flag.mkdir()
    with Client(address, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=300)
    cluster = Cluster(address)
    deadly = functools.partial(die_sometimes, flag, kills)
    try:
        tasks = [(i, {}) for i in range(points)]
        found = [r["trial"] for records in cluster.run(deadly, tasks) for r in records]
    finally:
        cluster.close()
    assert sorted(found) == list(range(points))
    assert len(list(flag.iterdir())) == kills


def die_sometimes(flag: Path, kills: int, tasks: list[Any]) -> list[dict[str, Any]]:
    """The first `kills` tasks kill their worker when they are met first."""
    return die_once(flag, tasks) if tasks[0][0] < kills else [{"trial": trial} for trial, _ in tasks]


@pytest.mark.slow
def test_cluster_workers_killed_twenty_times_lose_nothing(tmp_path: Path, cluster: Any) -> None:
    assert_cluster_survives(tmp_path, cluster[0], 20, 40)


@pytest.mark.long
def test_a_cluster_finishes_a_study_though_a_worker_is_killed(tmp_path: Path, cluster: Any) -> None:
    address, _ = cluster
    assert_cluster_survives(tmp_path, address, 1, 4)
    path, out = space_file(tmp_path), tmp_path / "out"
    assert main(["machines", str(path), "--out", str(out), "--quiet", "--scheduler", address]) == 0
    calm = tmp_path / "calm"
    assert main(["machines", str(path), "--out", str(calm), "--quiet"]) == 0
    assert journal(out) == journal(calm)


def test_timed_returns_what_it_timed() -> None:
    records, seconds = timed(lambda tasks: [{"trial": t} for t, _ in tasks], [(1, {})])
    assert records == [{"trial": 1}]
    assert seconds >= 0
