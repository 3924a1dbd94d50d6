"""Jobs name themselves by everything that decides their result, start from their own float network, and resume."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
import yaml

from experiments import campaign, command_line, jobs, lsq_tables, lsqplus_tables, padding, pareto, profiles, table
from experiments.jobs import (
    Job,
    Runner,
    dataset,
    feature_counts,
    first_values,
    scale_gradients,
    share_of,
    shipped,
    with_float_jobs,
)
from experiments.pricing import bits_per_layer, workload_of
from experiments.profiles import PROFILES
from experiments.ship import ship
from quant import checkpoint
from quant.data import train_batches
from quant.loop import loss_of
from quant.recipe import Recipe
from quant.whole_models import quantizers

TINY = Job(
    "silu_se_net", PROFILES["smoke"].silu.arguments, "digits", limit=128, float_epochs=1, epochs=1, batch_size=32
)
QUANTIZED = replace(TINY, bits="W4A4", config="4")


def runner(folder: Path) -> Runner:
    return Runner(
        folder / "runs.csv", folder / "work", lambda key: f"again {key}", torch.device("cpu"), None, lambda _: None
    )


def test_every_field_changes_the_key() -> None:
    words = {
        "network": "resnet8",
        "data": "cifar10",
        "weights": "pretrained",
        "bits": "W2A2",
        "config": "1",
        "padding_policy": "pad_beta",
        "init": "lsq",
        "offset_mode": "fixed_min",
        "method": "lsq",
        "first_last": "same",
        "gradient_scale": "1",
        "distill": True,
        "arguments": (),
    }
    changed = [replace(QUANTIZED, **{field.name: words.get(field.name, 7)}).key for field in fields(Job)]
    assert len({QUANTIZED.key, *changed}) == len(fields(Job)) + 1


def test_runs_of_one_seed_share_their_float_network() -> None:
    for profile in PROFILES.values():
        for listed in (lsqplus_tables.jobs, lsq_tables.jobs, padding.jobs, pareto.jobs):
            chosen = listed(profile)
            assert len(set(chosen)) == len(chosen)
            trained = [job for job in chosen if not job.weights]
            starts = {job.float_job().key for job in trained}
            assert len(starts) == len({(j.network, j.seed if j.float_seed is None else j.float_seed) for j in trained})


def test_seeds_may_share_one_float_network_and_younger_fields_do_not_rename_runs() -> None:
    shared = [replace(QUANTIZED, seed=seed, float_seed=4) for seed in (0, 1)]
    assert len({job.key for job in shared}) == 2
    assert {job.float_job() for job in shared} == {replace(QUANTIZED, seed=4).float_job()}
    assert share_of(shared, 0, 2) == shared
    listed = [replace(job, change_limit=None, norm_batches=None) for job in lsqplus_tables.jobs(PROFILES["fashion"])]
    for row in table.read(Path(__file__).parents[2] / "results" / "fashion" / "runs.csv")[:3]:
        assert row["key"] in {job.key for job in with_float_jobs(listed)}


@pytest.mark.parametrize("older", [{"norm_batches": None}, {"norm_batches": None, "change_limit": None}])
def test_older_runs_can_still_be_asked_for_by_their_keys(older: dict[str, None]) -> None:
    """Rows from before change limits and measured batch norms say `--only KEY`, which must not mean another run."""
    today = lsqplus_tables.jobs(PROFILES["digits"])
    job = replace(today[0], **older)
    options = command_line.parser("lsqplus_tables", "").parse_args(["--profile", "digits", "--only", job.key])
    assert command_line.choose_jobs(options, today) == [job]
    recipe = job.recipe(torch.device("cpu"))
    assert (recipe.norm_batches, recipe.change_limit) == (0, 0 if "change_limit" in older else 0.02)
    assert today[0].recipe(torch.device("cpu")).norm_batches == 16


def test_mixed_bits_are_those_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every layer has the widths of its allocation, the recipe that of the narrowest; the file is part of the key."""
    monkeypatch.setattr(jobs, "ALLOCATIONS", tmp_path)
    with pytest.raises(ValueError, match=r"silu_se_net-m-w4a4\.yaml: expected widths by layer, there is no such file"):
        _ = replace(QUANTIZED, bits="mixed-silu_se_net-m-w4a4").key
    given = {"blocks.0.0.conv_pw": {"weight_bits": 3, "act_bits": 5}, "blocks.1.0.conv_pw": {"weight_bits": 2}}
    jobs.allocation.cache_clear()
    (tmp_path / "silu_se_net-m-w4a4.yaml").write_text(yaml.safe_dump(given))
    job = replace(QUANTIZED, bits="mixed-silu_se_net-m-w4a4")
    bits = bits_per_layer(workload_of(job))
    assert (bits["blocks.0.0.conv_pw"], bits["blocks.1.0.conv_pw"], bits["blocks.0.0.conv_dw"]) == ("3/5", "2/8", "8/8")
    assert job.recipe(torch.device("cpu")).weight_decay == Recipe.for_bits(2).weight_decay
    profile = replace(PROFILES["smoke"], allocations=("silu_se_net-m-w4a4",), epochs=(("W4A4", 7.0),))
    (made,) = profiles.mixed_jobs(profile)
    assert (made.bits, made.epochs, made.config) == (job.bits, 7.0, "4")
    before = job.key
    jobs.allocation.cache_clear()
    (tmp_path / "silu_se_net-m-w4a4.yaml").write_text(
        yaml.safe_dump({**given, "blocks.1.0.conv_pw": {"weight_bits": 4}})
    )
    assert job.key != before
    jobs.allocation.cache_clear()


def test_floats_come_before_their_users_and_shares_keep_them_together() -> None:
    everything = lsqplus_tables.jobs(PROFILES["fashion"])
    ordered = with_float_jobs(everything)
    for job in everything:
        assert ordered.index(job.float_job()) < ordered.index(job)
    parts = [with_float_jobs(share_of(everything, i, 3)) for i in range(3)]
    assert sorted(job.key for part in parts for job in part) == sorted(job.key for job in ordered)


def test_a_float_network_without_weights_is_trained_again_and_a_shipped_one_is_found(tmp_path: Path) -> None:
    first = runner(tmp_path / "first")
    assert first.run([QUANTIZED.float_job()])
    second = Runner(first.table, tmp_path / "elsewhere", str, torch.device("cpu"), None, lambda _: None)
    assert second.lacks(QUANTIZED.float_job())
    assert second.run([QUANTIZED])  # the row of its float network is there, the weights are not
    assert checkpoint.is_checkpoint(second.work / QUANTIZED.float_job().key)
    assert len(table.read(first.table)) == 2
    folder = tmp_path / "networks" / "kept"
    ship(second.work / QUANTIZED.float_job().key, folder)
    assert shipped(QUANTIZED.float_job(), tmp_path / "networks") == folder
    assert shipped(replace(QUANTIZED, seed=99).float_job(), tmp_path / "networks") is None


def test_the_shipped_cifar_network_starts_the_cpu_profile() -> None:
    assert shipped(PROFILES["cpu"].silu.float_job()) is not None


def test_the_papers_tables_are_complete() -> None:
    imagenet = PROFILES["imagenet"]
    rows = {(j.network, j.bits, j.config) for j in profiles.config_jobs(imagenet)}
    networks = ("efficientnet_b0", "mixnet_s", "resnet18")
    assert rows == {(n, b, c) for n in networks for b in ("W2A2", "W3A3", "W4A4") for c in "1234"}
    assert {j.method for j in profiles.baseline_jobs(imagenet)} == {"pact", "dsq", "qil"}
    assert {j.init for j in profiles.init_jobs(imagenet)} == {"minmax", "lsq", "lsqplus"}
    assert {j.offset_mode for j in profiles.offset_jobs(imagenet)} == {"fixed_zero", "fixed_min", "learned"}


@pytest.mark.long
def test_stopped_runs_go_on_and_finished_ones_are_left_alone(tmp_path: Path) -> None:
    whole, parts = runner(tmp_path / "whole"), runner(tmp_path / "parts")
    assert whole.run([QUANTIZED])
    assert not parts.train(QUANTIZED.float_job(), minutes=1e-9)  # stops after its first step
    assert checkpoint.is_checkpoint(parts.work / QUANTIZED.float_job().key)
    assert table.read(parts.table) == []
    assert parts.run([QUANTIZED])
    for name in ("test_accuracy_percent", "train_loss", "steps", "command"):
        assert [r[name] for r in table.read(whole.table)] == [r[name] for r in table.read(parts.table)]
    before = parts.table.read_bytes()
    assert parts.run([QUANTIZED])
    assert parts.table.read_bytes() == before
    row = table.read(whole.table)[1]
    assert (row["seed"], row["commit"] != "", row["device"] != "", float(row["duration_s"]) > 0) == (
        "0",
        True,
        True,
        True,
    )
    offsets = [r for r in table.read(whole.table.with_name("quantizers.csv")) if r["config"] == "4"]
    assert offsets
    assert any(r["beta_initial"] != r["beta_final"] for r in offsets)


@pytest.mark.long
def test_a_diverged_run_is_a_row_and_the_next_one_starts(tmp_path: Path) -> None:
    hopeless = replace(QUANTIZED, learning_rate=1e30)
    there = runner(tmp_path)
    assert there.run([hopeless, QUANTIZED])
    rows = {row["key"]: row["diverged"] for row in table.read(there.table)}
    assert (rows[hopeless.key], rows[QUANTIZED.key]) == ("True", "False")


def scale_factor(rule: str, n: int, p: int) -> float:
    """g of LSQ's Table 3, written out."""
    return {"1/sqrt(Np)": 1 / math.sqrt(n * p), "1/sqrt(N)": 1 / math.sqrt(n), "1": 1.0}[rule]


@pytest.mark.long
def test_gradient_scales_are_those_of_the_paper(tmp_path: Path) -> None:
    there = runner(tmp_path)
    data = dataset("digits", 128, None)
    images, labels = next(train_batches(data, 16, seed=0, epoch=0, augment=False))
    job = replace(TINY, bits="W4A4", config="4")
    assert there.run([job.float_job()])
    seen: dict[str, dict[str, float]] = {}
    for rule in ("1", "1/sqrt(N)", "1/sqrt(Np)"):
        model, _ = there.start(job, data, resume=False)
        first_values(model, data, job)
        counts = feature_counts(model, data)
        scale_gradients(model, rule, data)
        loss_of(model.eval()(images), labels, None).backward()
        named = [(f"{n}.{m}", n, q, p) for n, q in quantizers(model) for m, p in q.named_parameters()]
        seen[rule] = {name: float(p.grad) for name, _, _, p in named if p.grad is not None}
        for name, owner, q, _ in named:
            expected = seen["1"][name] * scale_factor(rule, counts[owner], q.spec.p)
            assert seen[rule][name] == pytest.approx(expected, rel=1e-3, abs=1e-8)
    assert any(abs(g) > 1e-6 for name, g in seen["1/sqrt(Np)"].items() if name.endswith("beta"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--only", "nothing"], "no run has the key"),
        (["--seeds", "0"], "expected at least 1"),
        (["--share", "2/2"], "expected I/N"),
        (["--device", "abacus"], "expected auto, cpu or cuda"),
        (["--profile", "cpu", "--data-dir", "/no/such/folder"], "expected a folder"),
    ],
)
def test_bad_input_is_named(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = command_line.train_main("padding", "doc", padding.jobs, [*arguments, "--out", str(tmp_path)])
    assert code == 2
    assert words in capsys.readouterr().err


def test_a_run_that_another_process_trains_is_left_to_it(tmp_path: Path) -> None:
    mine, said = runner(tmp_path), []
    other = replace(mine, report=said.append)
    with mine.claimed(QUANTIZED) as first:
        assert first
        with other.claimed(QUANTIZED) as second:
            assert not second
        with other.claimed(replace(QUANTIZED, seed=1)) as elsewhere:
            assert elsewhere
    with other.claimed(QUANTIZED) as again:
        assert again


def test_the_campaign_trains_what_decides_first() -> None:
    profile = PROFILES["cpu_long"]
    listed = campaign.jobs(profile)
    assert len(set(listed)) == len(listed)
    first = listed[:6]
    assert {(job.bits, job.config, job.padding_policy) for job in first} == {
        (bits, *pair) for bits in ("W2A2", "W4A4") for pair in campaign.CENTRAL
    }
    assert all(job.init == "mse" and job.weight_learning_rate == 0.03 for job in listed)
    assert {job.seed for job in listed[:18]} == set(profile.seeds)
    assert {job.padding_policy for job in listed} == set(profiles.POLICIES)
    assert all(shipped(job.float_job()) is not None for job in listed if not job.weights)
