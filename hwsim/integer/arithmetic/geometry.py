# pyright: basic
"""Which taps of a window meet real data, position by position: border classes by geometry, not by case.

Along one axis the taps that meet data are a run of neighbours, and as the window moves both ends of that run only ever
move towards smaller taps. So equal tap sets sit at neighbouring positions (`Run`), and the border classes of a map are
the rectangles row run x column run: 9 for 3x3 with padding 1, more for larger kernels, dilation or uneven padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Run:
    """Output positions start..stop-1 of one axis, for which the taps first..last-1 meet data (none if equal)."""

    start: int
    stop: int
    first: int
    last: int


@dataclass(frozen=True)
class Window:
    """A sliding window. `padding` is (top, bottom, left, right); a 1-D window has one row."""

    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    groups: int = 1

    def output(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the result: floor((size + padding - dilation*(kernel-1) - 1) / stride) + 1."""
        top, bottom, left, right = self.padding
        rows, columns = (
            (size + around - d * (k - 1) - 1) // s + 1
            for size, around, k, s, d in zip(
                (height, width), (top + bottom, left + right), self.kernel, self.stride, self.dilation, strict=True
            )
        )
        if rows < 1 or columns < 1:
            raise ValueError(f"a window of {self.kernel} does not fit into {height} x {width} padded by {self.padding}")
        return rows, columns

    def runs(self, height: int, width: int) -> tuple[tuple[Run, ...], tuple[Run, ...]]:
        """(row runs, column runs): neighbouring output positions with the same taps on data."""
        rows, columns = self.output(height, width)
        top, _, left, _ = self.padding
        return (
            _runs(height, rows, top, self.kernel[0], self.stride[0], self.dilation[0]),
            _runs(width, columns, left, self.kernel[1], self.stride[1], self.dilation[1]),
        )

    @property
    def padded(self) -> bool:
        """Whether anything is padded."""
        return any(self.padding)


def _runs(size: int, positions: int, before: int, kernel: int, stride: int, dilation: int) -> tuple[Run, ...]:
    found: list[Run] = []
    for p in range(positions):
        origin = p * stride - before
        first = min(kernel, max(0, -(origin // dilation)))  # ceil(-origin / dilation)
        last = max(0, min(kernel, (size - 1 - origin) // dilation + 1))
        first, last = (first, last) if last > first else (0, 0)
        if found and (found[-1].first, found[-1].last) == (first, last):
            found[-1] = Run(found[-1].start, p + 1, first, last)
        else:
            found.append(Run(p, p + 1, first, last))
    return tuple(found)


def border_sums(w_codes: Tensor, row_runs: Sequence[Run], column_runs: Sequence[Run]) -> Tensor:
    """Sum of the weight codes of the taps on data, per border class: (row runs, column runs, K), int64.

    Times beta * s_w this is what the offset contributes at each position (LSQ+ Eq. 5 with a border).
    w_codes: (K, C, R, S).
    """
    per_tap = w_codes.to(torch.int64).sum(1)  # (K, R, S)
    table = [[per_tap[:, r.first : r.last, c.first : c.last].sum((1, 2)) for c in column_runs] for r in row_runs]
    return torch.stack([torch.stack(row) for row in table])


def spread(table: Tensor, row_runs: Sequence[Run], column_runs: Sequence[Run]) -> Tensor:
    """The map of a per-class table: (row runs, column runs, K) -> (K, P, Q)."""
    rows = torch.tensor([r.stop - r.start for r in row_runs], device=table.device)
    columns = torch.tensor([c.stop - c.start for c in column_runs], device=table.device)
    return table.repeat_interleave(rows, 0).repeat_interleave(columns, 1).permute(2, 0, 1)


def border_share(row_runs: Sequence[Run], column_runs: Sequence[Run], kernel: tuple[int, int]) -> float:
    """Share of the output positions at which at least one tap misses the data.

    >>> [round(border_share(*Window((3, 3), padding=(1, 1, 1, 1)).runs(n, n), (3, 3)), 3) for n in (8, 16, 32)]
    [0.438, 0.234, 0.121]
    """
    full = [
        sum(r.stop - r.start for r in runs if (r.first, r.last) == (0, k))
        for runs, k in ((row_runs, kernel[0]), (column_runs, kernel[1]))
    ]
    total = row_runs[-1].stop * column_runs[-1].stop
    return 1 - full[0] * full[1] / total
