"""A whole training step on the meta device, where nothing can be read: no wait for a GPU, no copy but the batch's.

Meta tensors have shapes and no values, so `.item()`, a branch on a value or an operand left on the CPU is an error.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import quant
from quant.loop import _Run
from quant.recipe import Recipe

META = torch.device("meta")
COPY = "aten._to_copy.default"
BATCH = 8


class Crossings(TorchDispatchMode):
    """Records every operation whose results lie elsewhere than its operands: (operation, blocking)."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, bool]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        before, after = _devices(args), _devices(out if isinstance(out, tuple | list) else [out])
        if before and after and before != after:
            self.seen.append((str(func), not kwargs.get("non_blocking", False)))
        return out


def _devices(values: Any) -> set[str]:
    return {value.device.type for value in values if isinstance(value, Tensor)}


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.SiLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10),
    )  # fmt: skip


def on_meta(model: nn.Module) -> nn.Module:
    """The initialised network with all that it registered moved; a tensor kept elsewhere stays on the CPU."""
    return copy.deepcopy(model).to(META)


def step(monkeypatch: pytest.MonkeyPatch, choices: dict[str, Any], recipe: Recipe) -> list[tuple[str, bool]]:
    """One optimizer step of `fit`'s own loop; what crossed between devices."""
    torch.manual_seed(0)
    model, _ = quant.quantize(network(), weight_bits=4, act_bits=4, **choices)
    quant.initialise(model, [torch.randn(BATCH, 3, 8, 8)])
    run = object.__new__(_Run)
    run.recipe, run.device, run.step, run.total_steps = recipe, META, 0, 100
    run.model = run.runner = on_meta(model).train()
    run.teacher = on_meta(network()).eval() if recipe.distill else None
    run.sums = torch.zeros(3, dtype=torch.float64, device=META)
    run._make_optimizer()
    images, labels = torch.randn(BATCH, 3, 8, 8), torch.zeros(BATCH, dtype=torch.long)
    for maker in ("tensor", "as_tensor", "from_numpy"):  # each would copy numbers of the host to the GPU and wait
        monkeypatch.setattr(torch, maker, _forbidden(maker))
    with Crossings() as crossings:
        loss = run._one_step(images, labels)
    assert loss.is_meta
    assert all(p.grad is None or p.grad.is_meta for p in run.model.parameters())
    assert any(p.grad is not None for p in run.model.parameters())
    return crossings.seen


def _forbidden(name: str) -> Any:
    def call(*args: Any, **kwargs: Any) -> Tensor:
        raise AssertionError(f"torch.{name} in a training step waits for the GPU")

    return call


KINDS: list[dict[str, Any]] = [
    {"config": 1},
    {"config": 2},
    {"config": 3},
    {"config": 4, "padding_policy": "pad_code"},
    {"config": 4, "padding_policy": "pad_beta"},
    {"config": 4, "padding_policy": "border_bias"},
    {"config": 4, "padding_policy": "snap_offset"},
    {"config": 4, "weight_granularity": "channel"},
    {"config": 3, "offset_mode": "fixed_min"},
    {"config": 1, "power_of_two": True},
    {"method": "pact"},
    {"method": "dsq"},
    {"method": "qil"},
]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_step_copies_the_batch_alone_and_reads_nothing(kind: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert step(monkeypatch, kind, Recipe(batch_size=BATCH)) == [(COPY, False)] * 2  # images, labels


EXTRAS: list[dict[str, Any]] = [
    {"accumulate": 2},
    {"distill": True},
    {"clip_norm": 1.0},
    {"change_limit": 0.0},
    {"channels_last": True},
    {"ewgs": 0.02},
    {"damping": 0.1},
    {"freezing": 0.01},
]


@pytest.mark.parametrize("extra", EXTRAS, ids=str)
def test_nor_do_the_options_of_a_recipe(extra: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    seen = step(monkeypatch, {"config": 4}, Recipe(batch_size=BATCH, **extra))
    assert seen == [(COPY, False)] * 2


def test_the_test_sees_a_blocking_copy_and_a_read_value() -> None:
    with Crossings() as crossings:
        torch.ones(3).to(META)
    assert crossings.seen == [(COPY, True)]
    with pytest.raises(RuntimeError, match="meta tensors"):
        torch.ones((), device=META).item()
