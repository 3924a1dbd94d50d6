"""Training: the papers' recipe, invariances of the learned steps, resumption to the bit, and what stops a run."""

import json
import os
import re
import signal
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import quant
from quant import checkpoint, data, loop, models, processes, train
from quant.accuracy import evaluate
from quant.checkpoint import Meta
from quant.loop import FitResult, TrainingDiverged, fit
from quant.recipe import Recipe

ROOT = Path(__file__).parent.parent.parent
META = Meta("tests:Plain", {}, None, (1, 8, 8), 10)


class Plain(nn.Module):
    """Convolutions without batch norm, so that one step on a whole batch and on its parts are the same function."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, 2, 1)
        self.act1 = nn.SiLU()
        self.conv2 = nn.Conv2d(8, 16, 3, 2, 1)
        self.act2 = nn.SiLU()
        self.dropout = nn.Dropout(dropout)
        self.flatten = nn.Flatten(1)
        self.fc = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act2(self.conv2(self.act1(self.conv1(x))))
        return self.fc(self.dropout(self.flatten(x)))


def plain(bits: int = 3, dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    model, _ = quant.quantize(Plain(dropout), weight_bits=bits, act_bits=bits, first_last="same")
    return model


def digits(images: int = 256) -> data.Dataset:
    return data.load("digits", validation=64, limit=images)


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in model.state_dict().items()}


def same_bits(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(v, b[k]) for k, v in a.items())


# The recipe


@pytest.mark.parametrize(
    ("bits", "rate", "decay"),
    [(None, 0.1, 1e-4), (8, 0.001, 1e-4), (4, 0.01, 1e-4), (3, 0.01, 0.5e-4), (2, 0.01, 0.25e-4)],
)
def test_defaults_are_the_papers(bits: int | None, rate: float, decay: float) -> None:
    recipe = Recipe.for_bits(bits)
    assert (recipe.learning_rate, recipe.weight_decay, recipe.momentum) == (rate, decay, 0.9)
    assert Recipe.for_bits(bits, learning_rate=0.5).learning_rate == 0.5


def test_learning_rate_falls_along_one_cosine() -> None:
    recipe = Recipe(learning_rate=0.2)
    rates = [recipe.learning_rate_at(step, 100) for step in range(100)]
    assert rates[0] == 0.2
    assert rates[50] == pytest.approx(0.1)
    assert rates == sorted(rates, reverse=True)
    assert 0 < rates[-1] < 1e-4


def test_steps_and_offsets_are_not_decayed() -> None:
    """With a learning rate and no gradient only the decay moves parameters."""
    model = plain()
    quant.initialise(model, [torch.randn(8, 1, 8, 8)])
    groups = quant.parameter_groups(model, 0.1)
    optimizer = torch.optim.SGD(groups, lr=0.1)
    before = {k: v.detach().clone() for k, v in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    moved = {k for k, v in model.named_parameters() if not torch.equal(v, before[k])}
    assert moved == {"conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias", "fc.weight", "fc.bias"}


def test_a_clipped_gradient_keeps_its_direction() -> None:
    """The first step moves all parameters by learning rate x norm, along the unclipped direction."""
    source, moves = digits(64), []
    for clip in (0.0, 1e-3):
        model = plain()
        quant.initialise(model, [source.normalisation.apply(source.train.images[:32])])  # type: ignore[attr-defined]
        before = [p.detach().double().clone() for p in model.parameters()]
        recipe = Recipe(batch_size=64, learning_rate=0.5, weight_decay=0, clip_norm=clip, augment=False)
        fit(model, source, recipe, max_steps=1, test=False)
        moved = [(a.detach().double() - b).flatten() for a, b in zip(model.parameters(), before, strict=True)]
        moves.append(torch.cat(moved))
    assert float(moves[1].norm()) == pytest.approx(0.5 * 1e-3, rel=1e-2)
    assert float(F.cosine_similarity(moves[0], moves[1], dim=0)) == pytest.approx(1, abs=1e-3)
    assert float(moves[0].norm()) > 100 * float(moves[1].norm())


def test_distillation_adds_the_cross_entropy_to_the_teacher() -> None:
    """At T = 1, weights 1:1: against the sum over classes written out."""
    torch.manual_seed(0)
    logits, taught, labels = torch.randn(6, 4), torch.randn(6, 4), torch.randint(0, 4, (6,))
    log_p = logits.log_softmax(1)
    expected = -(log_p[torch.arange(6), labels] + (taught.softmax(1) * log_p).sum(1)).mean()
    torch.testing.assert_close(loop.loss_of(logits, labels, taught), expected)
    torch.testing.assert_close(loop.loss_of(logits, labels, None), F.cross_entropy(logits, labels))


# What a run computes


def test_a_small_network_learns_the_digits_in_float_and_at_two_bits() -> None:
    torch.manual_seed(0)
    model, whole = Plain(), data.load("digits")
    result = fit(model, whole, Recipe(epochs=12, batch_size=32))
    assert result.finished
    assert result.test_accuracy_percent is not None
    assert result.test_accuracy_percent > 90
    quantized, _ = quant.quantize(model, weight_bits=2, act_bits=2)
    tuned = fit(quantized, whole, Recipe.for_bits(2, epochs=3, batch_size=32))
    assert tuned.test_accuracy_percent is not None
    assert 60 < tuned.test_accuracy_percent < result.test_accuracy_percent + 1
    assert [round(r.epoch) for r in tuned.history] == [1, 2, 3]
    with torch.no_grad():
        images = whole.normalisation.apply(whole.test.images)  # type: ignore[attr-defined]
        right = (quantized.eval()(images).argmax(1) == whole.test.labels).double().mean()
    assert 100 * float(right) == pytest.approx(tuned.test_accuracy_percent)


def one_step(batch: int, accumulate: int, source: data.Dataset) -> dict[str, Tensor]:
    model = plain()
    quant.initialise(model, [source.normalisation.apply(source.train.images[:32])])  # type: ignore[attr-defined]
    recipe = Recipe(epochs=1, batch_size=batch, accumulate=accumulate, augment=False, learning_rate=0.5)
    fit(model, source, recipe, max_steps=1, test=False)
    return state_of(model)


def test_accumulation_does_not_change_steps_and_offsets() -> None:
    source = digits(64)
    whole, parts = one_step(64, 1, source), one_step(64, 8, source)
    learned = [k for k in whole if k.endswith((".s", ".beta"))]
    assert len(learned) == 8
    start = state_of(plain())
    for key in learned:
        torch.testing.assert_close(parts[key], whole[key], rtol=1e-5, atol=1e-6)
        if "weight" in key:
            assert not torch.equal(whole[key], start[key])


def test_batch_size_does_not_change_steps_and_offsets() -> None:
    """Every image twice in a batch twice as large: the mean gradient is the same, and so must be the update."""
    source = digits(32)
    assert isinstance(source.train, data.Arrays)
    twice = data.Arrays(source.train.images.repeat(2, 1, 1, 1), source.train.labels.repeat(2))
    doubled = data.from_arrays((twice.images, twice.labels), (twice.images, twice.labels), 10, validation=0)
    doubled = doubled.with_normalisation(source.normalisation)
    once, both = one_step(32, 1, source), one_step(64, 1, doubled)
    for key in once:
        if key.endswith((".s", ".beta")):
            torch.testing.assert_close(both[key], once[key], rtol=1e-5, atol=1e-6)


DDP = """
import sys, torch, torch.distributed as dist
sys.path.insert(0, {root!r})
from tests.quant.test_train import one_step, digits
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method="file://{store}", rank=int(sys.argv[1]), world_size=2)
state = one_step(64, 2, digits(64))
if dist.get_rank() == 0:
    torch.save(state, {out!r})
dist.barrier()
dist.destroy_process_group()
"""


@pytest.mark.long
def test_two_processes_do_not_change_steps_and_offsets(tmp_path: Path) -> None:
    """DDP over gloo, each process with half of the batch in two passes, against one process."""
    out = tmp_path / "state.pt"
    code = DDP.format(root=str(ROOT), store=tmp_path / "store", out=str(out))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    workers = [subprocess.Popen([sys.executable, "-c", code, str(r)], env=environment, cwd=ROOT) for r in (0, 1)]
    whole = one_step(64, 1, digits(64))
    assert [w.wait(timeout=240) for w in workers] == [0, 0]
    shared = torch.load(out, weights_only=True)
    for key, value in whole.items():
        if value.is_floating_point():
            torch.testing.assert_close(shared[key], value, rtol=2e-5, atol=2e-6, equal_nan=True)


def test_bf16_leaves_the_quantizers_in_float32() -> None:
    """Under autocast the convolutions compute in bf16; every quantizer's parameters and gradients stay float32."""
    model = plain()
    kinds: set[torch.dtype] = set()
    model.get_submodule("conv2").register_forward_hook(lambda m, a, out: kinds.add(out.dtype))
    result = fit(model, digits(), Recipe(epochs=2, batch_size=32, learning_rate=0.01, bf16=True))
    assert torch.bfloat16 in kinds
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters())
    assert result.history[-1].train_loss < result.history[0].train_loss


def test_channels_last_computes_the_same() -> None:
    ends = []
    for layout in (False, True):
        model = plain()
        fit(model, digits(), Recipe(epochs=1, batch_size=32, learning_rate=0.01, channels_last=layout), test=False)
        ends.append(state_of(model))
    for key, value in ends[0].items():
        torch.testing.assert_close(ends[1][key], value, rtol=1e-3, atol=1e-4, equal_nan=True)


# Stopping and resuming

LONG = Recipe(epochs=3, batch_size=32, accumulate=2, learning_rate=0.02, distill=True, norm_batches=2)


def run(out: Path | None, *, recipe: Recipe = LONG, resume: bool = False, **limits: Any) -> tuple[nn.Module, FitResult]:
    model = plain(dropout=0.3)
    torch.manual_seed(1)
    teacher = Plain()
    result = fit(
        model, digits(), recipe, meta=META, out=out, teacher=teacher, resume=resume, checkpoint_minutes=60, **limits
    )
    return model, result


def records(result: FitResult) -> list[tuple[Any, ...]]:
    return [(r.epoch, r.step, r.learning_rate, r.train_loss, r.train_accuracy_percent) for r in result.history]


def test_a_resumed_run_equals_an_uninterrupted_one_to_the_bit(tmp_path: Path) -> None:
    """Dropout, distillation, accumulation, augmentation; stopped in mid-epoch, at an epoch's end, and once more."""
    whole, expected = run(tmp_path / "whole")
    assert expected.steps == expected.total_steps == 24
    parts = tmp_path / "parts"
    _, first = run(parts, max_steps=5)
    assert (first.finished, first.reason, first.steps) == (False, "step limit", 5)
    assert first.test_accuracy_percent is None
    torch.rand(7)  # whatever else uses the random state in between
    for steps in (3, 6):
        _, part = run(parts, resume=True, max_steps=steps)
    assert part.steps == 14
    model, last = run(parts, resume=True)
    assert last.finished
    assert same_bits(state_of(model), state_of(whole))
    assert records(last) == records(expected)
    assert last.test_accuracy_percent == expected.test_accuracy_percent
    momenta = [checkpoint.load_training_state(tmp_path / n) for n in ("whole", "parts")]
    assert same_bits(
        {k: v for k, v in momenta[0].items() if "mom" in k}, {k: v for k, v in momenta[1].items() if "mom" in k}
    )
    assert sum(k.startswith("momentum/") for k in momenta[0]) == sum(1 for _ in whole.parameters())


RESUMED_DDP = """
import sys, torch, torch.distributed as dist
sys.path.insert(0, {root!r})
from pathlib import Path
from quant.recipe import Recipe
from tests.quant.test_train import records, run, state_of
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method="file://{store}", rank=int(sys.argv[1]), world_size=2)
recipe = Recipe(epochs=2, batch_size=32, learning_rate=0.02, norm_batches=2)
whole, expected = run(Path({out!r}) / "whole", recipe=recipe)
run(Path({out!r}) / "parts", recipe=recipe, max_steps=11)
torch.rand(1000 * (1 + dist.get_rank()))
model, last = run(Path({out!r}) / "parts", recipe=recipe, resume=True)
if dist.get_rank() == 0:
    torch.save([state_of(whole), state_of(model)], Path({out!r}) / "both.pt")
    for a, b in zip(records(expected), records(last), strict=True):
        assert all(abs(x - y) <= 1e-12 * abs(x) for x, y in zip(a, b)), (a, b)
dist.barrier()
dist.destroy_process_group()
"""


@pytest.mark.long
def test_two_processes_resume_to_the_bit_with_dropout(tmp_path: Path) -> None:
    """Each process has a random state of its own; stopped in mid-epoch, all of them go on where they were."""
    code = RESUMED_DDP.format(root=str(ROOT), store=tmp_path / "store", out=str(tmp_path))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    workers = [subprocess.Popen([sys.executable, "-c", code, str(r)], env=environment, cwd=ROOT) for r in (0, 1)]
    assert [w.wait(timeout=240) for w in workers] == [0, 0]
    whole, parts = torch.load(tmp_path / "both.pt", weights_only=True)
    assert same_bits(whole, parts)
    kept = checkpoint.load_training_state(tmp_path / "parts")
    assert not torch.equal(kept["rng/cpu"], kept["rng/cpu/1"])


def test_resuming_a_finished_run_changes_nothing(tmp_path: Path) -> None:
    model, done = run(tmp_path / "c", recipe=Recipe(epochs=1, batch_size=64))
    again, result = run(tmp_path / "c", recipe=Recipe(epochs=1, batch_size=64), resume=True)
    assert result.finished
    assert same_bits(state_of(again), state_of(model))
    assert result.test_accuracy_percent == done.test_accuracy_percent


def test_resuming_with_another_recipe_or_network_is_refused(tmp_path: Path) -> None:
    run(tmp_path / "c", max_steps=2)
    with pytest.raises(ValueError, match=r"recipe differs from this one: learning_rate: 0\.02, 0\.05"):
        run(tmp_path / "c", recipe=Recipe(**{**LONG.to_dict(), "learning_rate": 0.05}), resume=True)
    with pytest.raises(ValueError, match=r"expected codes -8\.\.7, the checkpoint has"):
        fit(plain(bits=4), digits(), LONG, meta=META, out=tmp_path / "c", teacher=Plain(), resume=True)


def test_ctrl_c_finishes_the_step_and_leaves_a_usable_checkpoint(tmp_path: Path) -> None:
    def interrupt(step: int, total: int, loss: float) -> None:
        if step == 7:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    whole, _ = run(None)
    _, stopped = run(tmp_path / "c", tick=interrupt)
    assert (stopped.finished, stopped.reason, stopped.steps) == (False, "interrupted", 7)
    assert signal.getsignal(signal.SIGINT) is before
    model, result = run(tmp_path / "c", resume=True)
    assert result.finished
    assert same_bits(state_of(model), state_of(whole))


def test_a_second_ctrl_c_stops_at_once() -> None:
    def twice(step: int, total: int, loss: float) -> None:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(None, tick=twice)


def test_checkpoints_are_written_in_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saves: list[int] = []
    real = checkpoint.save

    def counting(folder: Path, model: nn.Module, meta: Meta, **rest: Any) -> Path:
        if Path(folder).name == "c":
            saves.append(meta.training["step"])
        return real(folder, model, meta, **rest)

    monkeypatch.setattr(checkpoint, "save", counting)
    recipe = Recipe(epochs=1, batch_size=64)
    fit(plain(), digits(), recipe, meta=META, out=tmp_path / "c", checkpoint_minutes=0, test=False)
    assert set(saves) == {1, 2, 3, 4}
    saves.clear()
    fit(plain(), digits(), recipe, meta=META, out=tmp_path / "d" / "c", checkpoint_minutes=60, test=False)
    assert set(saves) == {4}


class Bomb(nn.Module):
    """Turns the activations into NaN at its n-th training pass."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at, self.calls = at, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += self.training
        return x * float("nan") if self.calls == self.at else x


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), Bomb(at=7))
    with pytest.raises(
        TrainingDiverged, match=r"step 7 of 12: the loss is nan, at learning rate 0\.0\d+; the last good"
    ):
        fit(model, digits(), Recipe(epochs=3, batch_size=64), meta=META, out=tmp_path / "c")
    kept, meta = checkpoint.load(tmp_path / "c", factory=lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    assert meta.training["step"] == 4
    assert all(bool(torch.isfinite(p).all()) for p in kept.parameters())


def test_a_learning_rate_far_too_large_is_reported() -> None:
    with pytest.raises(TrainingDiverged, match=r"no checkpoint was written yet. Try a smaller learning rate"):
        fit(plain(), digits(), Recipe(epochs=20, batch_size=64, learning_rate=1e12), test=False)


# What cannot work


def tiny_resnet() -> nn.Module:
    return models.create("resnet20", in_channels=1, width=0.25)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fit(tiny_resnet(), digits(), Recipe(batch_size=1)), "a batch of one with batch norm"),
        (lambda: fit(tiny_resnet(), digits(), Recipe(batch_size=32, accumulate=32)), "leaves 1 image"),
        (lambda: fit(plain(), digits(16), Recipe(batch_size=64)), "batch size 64 exceeds the 16 training images"),
        (lambda: fit(plain(), digits(), Recipe(), out="x"), "a checkpoint folder needs `meta`"),
        (lambda: fit(plain(), digits(), Recipe(distill=True)), "distill needs a `teacher`"),
        (lambda: fit(plain(), digits(), Recipe(), resume=True), "resume needs `out`"),
        (lambda: Recipe(epochs=0), "epochs: expected a positive number, got 0"),
        (lambda: Recipe(learning_rate=float("nan")), "learning_rate: expected a positive number, got nan"),
        (lambda: Recipe(weight_decay=-1), "weight_decay: expected a number not below 0, got -1"),
        (lambda: Recipe(batch_size=10, accumulate=3), "batch_size 10 must divide by accumulate, 3"),
        (lambda: evaluate(plain(), data.load("digits", validation=0).validation, data.DIGITS), "holds no images"),
    ],
)
def test_settings_that_cannot_work_are_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


# The command line

SMALL = ["--model", "silu_se_net", "--model-arg", "depth=1", "--model-arg", "width=0.25", "--device", "cpu"]


def command(*line: str) -> int:
    return train.main(list(line))


def test_command_line_float_then_quantized_then_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, tuned = str(tmp_path / "float"), str(tmp_path / "w4a4")
    assert command(*SMALL, "--epochs", "2", "--batch-size", "64", "--limit", "512", "--out", base) == 0
    line = ["--weights", base, "--bits", "W4A4", "--config", "3", "--epochs", "2", "--batch-size", "64"]
    line += ["--limit", "512", "--distill", "--out", tuned, "--device", "cpu"]
    assert command(*line, "--minutes", "1e-9") == 0
    assert "stopped (time limit) at step 1 of 16; continue with: hwsim train --resume" in capsys.readouterr().out
    assert command("--resume", "--out", tuned, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["finished"]
    assert result["steps"] == 16
    model, meta = checkpoint.load(tuned)
    assert meta.arguments == {"in_channels": 1, "image_size": 8, "depth": 1, "width": 0.25}
    assert meta.quantization is not None
    assert meta.quantization["config"] == 3
    assert meta.metrics["test_accuracy_percent"] == result["test_accuracy_percent"]
    assert meta.training["provenance"]["torch"] == torch.__version__
    assert Path(tuned, "plan.txt").read_text().startswith("layer")
    log = Path(tuned, "log.csv").read_text().splitlines()
    assert log[0].startswith("epoch,step,learning_rate,train_loss")
    assert len(log) == 3
    test = data.load("digits").test
    assert evaluate(model, test, data.DIGITS) == result["test_accuracy_percent"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["--out", "OUT"], "--model: expected one of resnet18"),
        (["--out", "OUT", "--model", "resnet19"], "unknown model 'resnet19'"),
        (["--out", "OUT", *SMALL, "--bits", "W4A"], "bits: expected W4A4, W4A16, W4g64A16 .* or float; got 'W4A'"),
        (["--out", "OUT", *SMALL, "--bits", "W0A4"], "bits: expected 1 to 8 or 16, got 0"),
        (["--out", "OUT", *SMALL, "--model-arg", "wdth=2"], "unknown argument 'wdth'"),
        (["--out", "OUT", *SMALL, "--epochs", "-1"], "epochs: expected a positive number"),
        (["--out", "OUT", *SMALL, "--batch-size", "1"], "a batch of one with batch norm"),
        (["--out", "OUT", *SMALL, "--limit", "10"], "batch size 128 exceeds the 10 training images"),
        (["--out", "OUT", *SMALL, "--distill"], "--distill: needs quantized bits"),
        (["--out", "OUT", *SMALL, "--device", "tpu"], "--device: expected auto, cpu or cuda"),
        (["--out", "OUT", *SMALL, "--weights", "pretrained"], "no data folder|no trained weights"),
        (["--out", "OUT", *SMALL, "--weights", "absent.pt"], "absent.pt: expected a file of weights"),
        (["--out", "OUT", *SMALL, "--data", "cifar10", "--data-dir", "EMPTY"], "the folder .*empty is empty"),
        (["--out", "OUT", *SMALL, "--data", "imagenet", "--data-dir", "EMPTY"], "is empty"),
        (["--out", "OUT", *SMALL, "--validation", "99999"], "validation: expected 0..1441"),
        (["--out", "OUT", "--weights", "CHECKPOINT", "--model", "resnet20"], "holds a silu_se_net, not the resnet20"),
        (["--out", "OUT", "--weights", "QUANTIZED", "--bits", "W2A2"], "already quantized; start from a float one"),
        (["--out", "OUT", "--weights", "OTHER"], r"made for 10 classes of \(3, 32, 32\), digits has 10 of \(1, 8, 8\)"),
        (["--out", "CHECKPOINT", *SMALL], "already holds a checkpoint: use --resume"),
        (["--out", "EMPTY", "--resume"], "not a checkpoint: it has no settings.json"),
        (["--out", "CHECKPOINT", "--resume"], "it does not say how to go on"),
        (
            ["--out", "FILE", *SMALL, "--epochs", "0.1"],
            "expected a folder, found a file",
        ),
    ],
)
def test_bad_command_lines_get_one_message_and_leave_nothing(
    tmp_path: Path,
    line: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("HWSIM_DATA", raising=False)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    arguments = {"in_channels": 1, "image_size": 8, "depth": 1, "width": 0.25}
    meta = Meta("silu_se_net", arguments, None, (1, 8, 8), 10, "digits", data.DIGITS)
    model = models.create("silu_se_net", **arguments)
    checkpoint.save(tmp_path / "checkpoint", model, meta)
    if "QUANTIZED" in line:
        quantized, plan = quant.quantize(model, weight_bits=4, act_bits=4)
        quant.initialise(quantized, [torch.randn(4, 1, 8, 8)])
        checkpoint.save(tmp_path / "quantized", quantized, Meta(**{**vars(meta), "quantization": dict(plan.settings)}))
    if "OTHER" in line:
        other = Meta("silu_se_net", {"width": 0.25}, None, (3, 32, 32), 10, "cifar10", data.CIFAR)
        checkpoint.save(tmp_path / "other", models.create("silu_se_net", width=0.25), other)
    places = {n: str(tmp_path / n.lower()) for n in ("OUT", "EMPTY", "CHECKPOINT", "QUANTIZED", "OTHER", "FILE")}
    assert train.main([places.get(word, word) for word in line]) == 2
    error = capsys.readouterr().err
    assert error.startswith("hwsim: ")
    assert error.count("\n") == 1, error
    assert re.search(message, error), error
    assert not (tmp_path / "out").exists()


def test_resume_refuses_arguments_that_differ(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "c")
    assert command(*SMALL, "--epochs", "1", "--batch-size", "64", "--limit", "256", "--out", out) == 0
    assert command("--resume", "--out", out, "--epochs", "5") == 2
    assert "--resume: epochs was 1.0" in capsys.readouterr().err


def test_command_line_trains_on_a_folder_of_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """ImageNet's layout, two classes that differ in brightness; stopped and resumed as well."""
    image = pytest.importorskip("PIL.Image")
    for part in ("train", "val"):
        for name, level in (("dark", 30), ("light", 220)):
            (tmp_path / "data" / part / name).mkdir(parents=True)
            for i in range(4):
                picture = image.new("RGB", (240 + 8 * i, 250), (level, level + i, level))
                picture.save(tmp_path / "data" / part / name / f"{i}.JPEG")
    out = str(tmp_path / "c")
    line = ["--model", "mobilenet_v1", "--model-arg", "width=0.25", "--data", "imagenet", "--workers", "0"]
    line += ["--data-dir", str(tmp_path / "data"), "--validation", "2", "--batch-size", "3", "--epochs", "2"]
    assert command(*line, "--device", "cpu", "--minutes", "1e-9", "--out", out) == 0
    assert "stopped (time limit) at step 1 of 4" in capsys.readouterr().out
    assert command("--resume", "--data-dir", str(tmp_path / "data"), "--workers", "0", "--out", out, "--json") == 0
    assert json.loads(capsys.readouterr().out)["test_accuracy_percent"] in (0, 12.5, 25, 37.5, 50, 62.5, 75, 87.5, 100)
    meta = checkpoint.load_meta(out)
    assert (meta.num_classes, meta.input_shape, meta.normalisation) == (2, (3, 224, 224), data.IMAGENET)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own compiler
def test_a_compiled_step_computes_what_the_eager_one_does() -> None:
    ends = []
    for compiled in (False, True):
        model = plain()
        fit(model, digits(), Recipe(epochs=1, batch_size=64, learning_rate=0.01, compile=compiled), test=False)
        ends.append(state_of(model))
    for key, value in ends[0].items():
        torch.testing.assert_close(ends[1][key], value, rtol=1e-3, atol=1e-4, equal_nan=True)


def test_divergence_is_exit_code_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = [*SMALL, "--bits", "W4A4", "--lr", "1e30", "--limit", "256", "--batch-size", "64", "--epochs", "9"]
    assert command(*line, "--out", str(tmp_path / "c")) == 1
    assert "Try a smaller learning rate" in capsys.readouterr().err


def test_tensorboard_is_asked_for_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        out = str(tmp_path / "c")
        assert command(*SMALL, "--tensorboard", "--out", out) == 2
        assert "tensorboard is not installed: pip install" in capsys.readouterr().err
    else:
        pytest.skip("tensorboard is installed; the message for its absence cannot be seen")


def test_tensorboard_gets_every_number_of_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: dict[tuple[str, int], float] = {}
    folders: list[str] = []

    class Writer:
        def __init__(self, folder: str) -> None:
            folders.append(folder)

        def add_scalar(self, name: str, value: float, step: int) -> None:
            written[name, step] = value

        def close(self) -> None:
            folders.append("closed")

    stand_in = types.ModuleType("torch.utils.tensorboard")
    stand_in.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", stand_in)
    _, result = run(tmp_path / "c", recipe=Recipe(epochs=2, batch_size=64), tensorboard=True)
    assert folders == [str(tmp_path / "c" / "tensorboard"), "closed"]
    expected = {(n, r.step): v for r in result.history for n, v in vars(r).items() if v is not None}
    assert written == expected
    assert len(result.history) == 2


def test_weights_and_step_sizes_learn_at_rates_of_their_own() -> None:
    """One step without momentum or decay: each parameter moves by its gradient times the rate of its kind."""
    source = digits(64)
    moved: dict[float | None, dict[str, Tensor]] = {}
    for rate in (None, 0.03):
        model = plain()
        quant.initialise(model, [source.normalisation.apply(source.train.images[:32])])  # type: ignore[attr-defined]
        before = {name: p.detach().double().clone() for name, p in model.named_parameters()}
        recipe = Recipe(
            batch_size=64, learning_rate=0.01, weight_learning_rate=rate, weight_decay=0, momentum=0, change_limit=0,
            augment=False,
        )  # fmt: skip
        fit(model, source, recipe, max_steps=1, test=False)
        moved[rate] = {name: p.detach().double() - before[name] for name, p in model.named_parameters()}
    of_quantizers = {name for name in moved[None] if name.endswith((".s", ".beta"))}
    assert of_quantizers
    for name, change in moved[None].items():
        factor = 1 if name in of_quantizers else 3
        torch.testing.assert_close(moved[0.03][name], factor * change, rtol=1e-4, atol=1e-7)


def test_a_rate_of_weights_outlives_the_checkpoint_and_must_be_positive() -> None:
    recipe = Recipe(weight_learning_rate=0.03)
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    old = {name: value for name, value in recipe.to_dict().items() if name != "weight_learning_rate"}
    assert Recipe.from_dict(old).weight_learning_rate is None
    with pytest.raises(ValueError, match="weight_learning_rate: expected a positive number"):
        Recipe(weight_learning_rate=0.0)


@pytest.mark.parametrize(("device", "cuda", "backend"), [
    ("cpu", True, "gloo"), ("cpu", False, "gloo"), ("auto", True, "nccl"), ("auto", False, "gloo"),
    ("cuda:1", True, "nccl"),
])  # fmt: skip
def test_processes_on_the_cpu_talk_over_gloo(
    device: str, cuda: bool, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """nccl moves GPU memory only: --device cpu on a machine with GPUs needs gloo."""
    joined: list[str] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(processes.dist, "init_process_group", joined.append)
    processes.join_group(device)
    assert joined == []  # one process alone
    monkeypatch.setenv("WORLD_SIZE", "2")
    processes.join_group(device)
    assert joined == [backend]


class _Copies(TorchDispatchMode):
    """Counts what goes from the host to the device `meta`."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        sources = [a for a in args if isinstance(a, Tensor) and a.device.type == "cpu" and a.ndim > 0]
        if isinstance(out, Tensor) and out.device.type == "meta" and sources:
            self.found.append(str(func))
        return out


def test_a_step_reads_no_value_and_copies_nothing_from_the_host() -> None:
    """On the device `meta` tensors have no values: reading one fails, and so a GPU never waits for the host."""
    model = plain(dropout=0.3)
    quant.initialise(model, [torch.randn(8, 1, 8, 8)])
    model(torch.randn(2, 1, 8, 8))  # looks once whether the quantizers are ready
    recipe = Recipe(batch_size=32, learning_rate=0.01, clip_norm=1.0, accumulate=2, ewgs=0.1, damping=0.1, freezing=0.1)
    run = loop._Run(model, digits(), recipe, None, None, None, torch.device("meta"))
    run._make_optimizer()
    run.start(print, None, False, 10.0)
    run.model.train()
    batches = run._batches()
    run._one_step(*next(batches))  # an epoch's order goes over as a whole, before its first batch
    with _Copies() as copies:
        for _ in range(2):
            loss = run._one_step(*next(batches))
    assert loss.device.type == "meta"
    assert copies.found == []


def test_the_same_command_goes_on_with_pairs_and_numbers_among_its_arguments(tmp_path: Path) -> None:
    command = ["--model", "resnet8", "--model-arg", "image_size=8", "--limit", "128", "--epochs", "1", "--bits", "W4A4",
               "--mean", "0.3", "--std", "0.4", "--out", str(tmp_path / "net"), "--json"]  # fmt: skip
    assert train.main(command) == 0
    before = checkpoint.identity(tmp_path / "net")
    assert train.main([*command, "--resume"]) == 0
    assert checkpoint.identity(tmp_path / "net") == before
