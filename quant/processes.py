"""The processes of one training under torchrun: which this is, how many there are, the random states of all."""

import os

import torch
import torch.distributed as dist
from torch import Tensor


def rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def join_group(device: str) -> None:
    """Join torchrun's processes, when this is one of several: over nccl where they train on CUDA, else over gloo."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        on_gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
        dist.init_process_group("nccl" if on_gpu else "gloo")


def random_name(kind: str, of_rank: int) -> str:
    return f"rng/{kind}" + (f"/{of_rank}" if of_rank else "")


def random_states(device: torch.device) -> dict[str, Tensor]:
    """The random states of all processes, by name; every process must call this together."""
    own = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        own["cuda"] = torch.cuda.get_rng_state(device)
    states: dict[str, Tensor] = {}
    for kind, state in own.items():
        gathered = [state]
        if processes() > 1:
            here = state.to(device)
            gathered = [torch.empty_like(here) for _ in range(processes())]
            dist.all_gather(gathered, here)
        states |= {random_name(kind, i): each.cpu() for i, each in enumerate(gathered)}
    return states
