"""Elements that share a scale, as rows of a matrix: groups of `size` along one axis of a tensor."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Grouping:
    """Groups of `size` consecutive elements along `axis`; a last one may be shorter. An axis shorter than `size` is one
    group."""

    axis: int
    size: int

    def groups(self, shape: torch.Size | tuple[int, ...]) -> int:
        """Groups of a tensor of that shape."""
        length = shape[self.axis]
        total = 1
        for n in shape:
            total *= n
        return total // length * -(-length // self.size)

    def width(self, length: int) -> int:
        """Elements of a whole group along an axis of that length."""
        return min(self.size, length)

    def split(self, x: Tensor) -> Tensor:
        """(groups, width), short groups filled with zeros."""
        moved = x.movedim(self.axis, -1)
        width = self.width(moved.shape[-1])
        return F.pad(moved, (0, -moved.shape[-1] % width)).reshape(-1, width)

    def join(self, rows: Tensor, like: Tensor) -> Tensor:
        """The inverse of `split`, for a tensor of the shape of `like`."""
        shape = like.movedim(self.axis, -1).shape
        padded = shape[-1] + -shape[-1] % self.width(shape[-1])
        return rows.reshape(*shape[:-1], padded)[..., : shape[-1]].movedim(-1, self.axis)

    def spread(self, each: Tensor, like: Tensor) -> Tensor:
        """One number per group, at every element of its group, in the shape of `like`."""
        return self.join(each.reshape(-1, 1).expand(-1, self.width(like.shape[self.axis])), like)
