"""Running statistics of batch norms, measured again: after calibration, and at the end of a short training.

While weights and step sizes still move, a running mean is a mixture over networks that no longer exist. With a momentum
of 0.99 (MLPerf Tiny's ResNet-8) a fifth of it is the float network's after 160 steps; docs/training.md has the cost.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from quant.calling import call, rows

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


@torch.no_grad()
def reestimate_norms(model: nn.Module, batches: Iterable[Any]) -> int:
    """Replace the running mean and variance of every batch norm by the average over `batches`; returns their number.

    Only the norms run in training mode, so nothing else of the network changes.
    """
    norms = [m for m in model.modules() if isinstance(m, NORMS) and m.track_running_stats]
    if not norms:
        return 0
    momenta = [norm.momentum for norm in norms]
    was_training = model.training
    model.eval()
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain average over the batches
            norm.train()
        for batch in batches:
            if rows(batch) < 2:
                raise ValueError("batch norms: a batch of one image has no variance: use batches of at least 2")
            call(model, batch)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        model.train(was_training)
    return len(norms)
