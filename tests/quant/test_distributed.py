"""Two processes with half a batch each take the same training steps as one process with all of it (gloo, CPU)."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import quant

WORKER = """
import sys, torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
sys.path.insert(0, ".")
from tests.quant.test_distributed import make_model, batch, steps
rank, rendezvous, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
model = make_model(seed=rank)  # other weights and steps on rank 1, uninitialised: DDP must send rank 0's
if rank == 0:
    model = make_model(seed=0, initialise=True)
model = DistributedDataParallel(model)
steps(model, lambda i: batch(i)[rank * 8 : rank * 8 + 8])
if rank == 0:
    torch.save(model.module.state_dict(), out)
else:
    torch.save(model.module.state_dict(), out + ".other")
dist.destroy_process_group()
"""


def make_model(seed: int, initialise: bool = False) -> nn.Module:
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.SiLU(), nn.Conv2d(6, 6, 3, padding=1), nn.ReLU(), nn.Flatten(),
        nn.Linear(216, 4),
    )  # fmt: skip
    model, _ = quant.quantize(model.double(), weight_bits=3, act_bits=3, first_last="same")
    return quant.initialise(model, [batch(0)]) if initialise else model


def batch(i: int) -> torch.Tensor:
    return torch.randn(16, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(i))


def steps(model: nn.Module, data: Callable[[int], torch.Tensor]) -> None:
    optimizer = torch.optim.SGD(quant.parameter_groups(model, 1e-4), lr=0.1, momentum=0.9)
    for i in range(3):
        optimizer.zero_grad()
        model(data(i)).square().sum(1).mean().backward()
        optimizer.step()


@pytest.mark.long
def test_two_processes_train_like_one(tmp_path: Path) -> None:
    out = tmp_path / "state.pt"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(rank), str(tmp_path / "rendezvous"), str(out)],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    for worker in workers:
        _, errors = worker.communicate(timeout=300)
        assert worker.returncode == 0, errors
    alone = make_model(seed=0, initialise=True)
    before = {k: v.clone() for k, v in alone.state_dict().items()}
    steps(alone, batch)
    together, other = torch.load(out, weights_only=True), torch.load(f"{out}.other", weights_only=True)
    moved = 0
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(together[name], value, rtol=1e-9, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}")
        assert torch.equal(together[name], other[name])
        moved += not torch.equal(value, before[name])
    assert moved >= 6 + 6 + 1  # weights and biases, the steps, the offset
