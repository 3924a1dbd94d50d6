"""Networks with one width everywhere, as published comparisons count them: no quantizers, no 8-bit exceptions."""

from __future__ import annotations

import dataclasses

from hwsim.network.bits import Codes
from hwsim.network.layer import Tensor
from hwsim.network.workload import Workload


def uniform(workload: Workload, bits: int) -> Workload:
    """A float network with `bits` on every weight and activation; signs and offsets by LSQ+ Table 1."""
    codes = Codes(workload, "auto")
    weights = {layer.weight.name for layer in workload if layer.weight and not layer.weight_is_activation}

    def change(tensor: Tensor) -> Tensor:
        if tensor.origin == "index":
            return tensor
        signed, offset = (True, False) if tensor.name in weights else codes.of(tensor)
        return dataclasses.replace(tensor, bits=bits, signed=signed, offset=offset)

    return workload.map_tensors(change)
