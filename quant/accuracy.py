"""Top-1 accuracy of a network on one part of a data set, shared by the processes of a training."""

import torch
import torch.distributed as dist
from torch import nn

from quant.calling import answer, call, moved
from quant.data import Normalisation, Split, eval_batches
from quant.processes import processes, rank


@torch.no_grad()
def evaluate(
    model: nn.Module,
    split: Split,
    normalisation: Normalisation,
    *,
    device: str | torch.device = "cpu",
    batch_size: int = 500,
) -> float:
    """Top-1 accuracy in percent, in eval mode and float32; shared by the processes under torchrun."""
    if len(split) == 0:
        raise ValueError("evaluate: the split holds no images")
    was_training = model.training
    model.eval()
    right = torch.zeros((), dtype=torch.int64, device=device)
    for images, labels in eval_batches(split, normalisation, batch_size, rank(), processes()):
        right += (answer(call(model, moved(images, device))).argmax(1) == labels.to(device)).sum()
    if processes() > 1:
        dist.all_reduce(right)
    model.train(was_training)
    return 100.0 * int(right) / len(split)
