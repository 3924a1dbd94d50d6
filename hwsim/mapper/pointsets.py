"""Points of one rank of an input tile as integers with one bit per point: tiles with holes, moved and united."""

from __future__ import annotations

from functools import lru_cache


@lru_cache(maxsize=1 << 16)
def points(a: int, m: int, b: int, n: int) -> int:
    """{a*i + b*j : i < m, j < n} as an integer with one bit per point."""
    row = sum(1 << (a * i) for i in range(m))
    found = 0
    for j in range(n):
        found |= row << (b * j)
    return found


def spread(found: int, a: int, m: int, b: int, n: int) -> int:
    """Every point moved by every a*i + b*j, i < m, j < n."""
    moved = 0
    for i in range(m):
        moved |= found << (a * i)
    result = 0
    for j in range(n):
        result |= moved << (b * j)
    return result


def new_points(tile: int, shift: int) -> int:
    """Points of the tile that were not in it before it moved by `shift`, in the tile's own coordinates."""
    return tile & ~(tile >> shift if shift >= 0 else tile << -shift)


@lru_cache(maxsize=1 << 18)
def united_new(
    a: int, x: int, b: int, y: int, united_x: int, united_y: int, shift: int | None, apart: tuple[int, int]
) -> int:
    """Points new to any of the array elements, `apart` from each other, when the tile moves by `shift`; None: all."""
    tile = points(a, x, b, y)
    found = tile if shift is None else new_points(tile, shift)
    return spread(found, a * apart[0], united_x, b * apart[1], united_y).bit_count()
