"""Integer convolutions equal the plain sum over taps, whatever the geometry; bounds hold for every input."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.integer.arithmetic import kernels
from hwsim.integer.arithmetic.geometry import Window, border_share, border_sums, spread

windows = st.builds(
    Window,
    kernel=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilation=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(*[st.integers(0, 8)] * 4),
    groups=st.sampled_from([1, 1, 2, 3]),
)


def by_taps(x: torch.Tensor, w: torch.Tensor, window: Window, pad_code: int) -> torch.Tensor:
    """The definition, element by element in Python's integers."""
    top, bottom, left, right = window.padding
    x = F.pad(x.long(), (left, right, top, bottom), value=pad_code)
    rows, columns = Window(window.kernel, window.stride, window.dilation).output(*x.shape[2:])
    k, c = w.shape[:2]
    per_group = k // window.groups
    total = torch.zeros(x.shape[0], k, rows, columns, dtype=torch.int64)
    for p in range(rows):
        for q in range(columns):
            at = (
                slice(p * window.stride[0], None, window.dilation[0]),
                slice(q * window.stride[1], None, window.dilation[1]),
            )
            patch = x[(slice(None), slice(None), *at)][:, :, : w.shape[2], : w.shape[3]]
            for o in range(k):
                g = o // per_group
                total[:, o, p, q] = (patch[:, g * c : (g + 1) * c] * w[o].long()).sum((1, 2, 3))
    return total


@settings(max_examples=80, deadline=None)
@given(
    window=windows, size=st.tuples(st.integers(1, 9), st.integers(1, 9)), bits=st.tuples(*[st.integers(1, 8)] * 2),
    pad_code=st.integers(0, 3), seed=st.integers(0, 9999),
)  # fmt: skip
def test_every_geometry_gives_the_sum_over_taps(
    window: Window, size: tuple[int, int], bits: tuple[int, int], pad_code: int, seed: int
) -> None:
    try:
        window.output(*size)
    except ValueError:
        return
    rng = torch.Generator().manual_seed(seed)
    pad_code = min(pad_code, 2 ** bits[1] - 1)
    c, k = 2, 2 * window.groups
    x = torch.randint(0, 2 ** bits[1], (2, c * window.groups, *size), generator=rng)
    w = torch.randint(-(2 ** (bits[0] - 1)), 2 ** (bits[0] - 1), (k, c, *window.kernel), generator=rng)
    expected = by_taps(x, w, window, pad_code)
    narrow = x.to(torch.uint8)
    assert torch.equal(kernels.convolve(narrow, w.to(torch.int8), window, pad_code).long(), expected)
    top, bottom, left, right = window.padding
    padded = F.pad(x, (left, right, top, bottom), value=pad_code)
    assert torch.equal(kernels._convolve_gathered(padded, w, window).long(), expected)
    assert torch.equal(kernels._convolve_int64(padded, w, window), expected)
    low, high = kernels.accumulator_bounds(w, 0, 2 ** bits[1] - 1)
    assert bool((expected >= low.view(1, -1, 1, 1)).all())
    assert bool((expected <= high.view(1, -1, 1, 1)).all())


@settings(max_examples=80, deadline=None)
@given(window=windows, size=st.tuples(st.integers(1, 20), st.integers(1, 20)), seed=st.integers(0, 9999))
def test_border_sums_are_the_convolution_of_ones(window: Window, size: tuple[int, int], seed: int) -> None:
    try:
        window.output(*size)
    except ValueError:
        return
    w = torch.randint(-8, 8, (2 * window.groups, 2, *window.kernel), generator=torch.Generator().manual_seed(seed))
    ones = torch.ones(1, 2 * window.groups, *size, dtype=torch.int64)
    runs = window.runs(*size)
    sums = spread(border_sums(w, *runs), *runs)
    assert torch.equal(kernels.convolve(ones, w, window).long()[0], sums)
    unpadded = (border_share(*runs, window.kernel) == 0.0) or window.padded
    assert unpadded


def test_the_classes_of_a_3x3_are_nine() -> None:
    rows, columns = Window((3, 3), padding=(1, 1, 1, 1)).runs(8, 8)
    assert (len(rows), len(columns)) == (3, 3)
    assert len(Window((3, 3), stride=(2, 2), padding=(0, 1, 0, 1)).runs(32, 32)[0]) == 2
    assert len(Window((11, 11), padding=(5, 5, 5, 5)).runs(14, 14)[0]) == 11


def test_containers_are_exact_at_their_limits() -> None:
    # 2^24 + 1 is the first integer float32 cannot hold, 2^53 + 1 the first of float64.
    for terms, weight, value in ((65793, 255, 1), (2, 2**26, 2**26), (3, 2**30, 2**24), (2, 2**31, 2**31)):
        x = torch.full((1, terms, 1, 1), value, dtype=torch.int64)
        w = torch.full((1, terms, 1, 1), weight, dtype=torch.int64)
        w[0, 0] -= 1
        total = kernels.convolve(x, w, Window((1, 1)))
        assert int(total) == terms * weight * value - value


def test_matrix_products_and_pools() -> None:
    rng = torch.Generator().manual_seed(1)
    a, b = torch.randint(-128, 128, (2, 3, 5, 7), generator=rng), torch.randint(0, 256, (2, 3, 7, 4), generator=rng)
    assert torch.equal(kernels.multiply_matrices(a, b, 7 * 128 * 255).long(), a @ b)
    x = torch.randint(-8, 8, (2, 3, 9, 8), generator=rng)
    window = Window((3, 2), (2, 1), padding=(1, 0, 0, 1))
    padded = F.pad(x.double(), (0, 1, 1, 0))
    pooled = F.avg_pool2d(padded, (3, 2), (2, 1)) * 6
    assert torch.equal(kernels.sum_windows(x, window), pooled.round().long())
    largest = F.max_pool2d(F.pad(x.double(), (0, 1, 1, 0), value=-8), (3, 2), (2, 1))
    assert torch.equal(kernels.max_windows(x.to(torch.int8), window, -8).long(), largest.long())


def test_wrapping_once_equals_wrapping_always_and_saturation_depends_on_order() -> None:
    rng = torch.Generator().manual_seed(2)
    terms = torch.randint(-100, 100, (50, 200), generator=rng)
    running = torch.zeros(200, dtype=torch.int64)
    for row in terms:
        running = kernels.wrap(running + row, 9)
    assert torch.equal(running, kernels.wrap(terms.sum(0), 9))
    x = torch.tensor([[[[100]], [[100]], [[-100]]]])
    w = torch.ones(1, 3, 1, 1, dtype=torch.int64)
    assert int(kernels.saturate(kernels.convolve(x, w, Window((1, 1))), 8)) == 100
    assert int(kernels.convolve_saturating(x, w, Window((1, 1)), 0, 8)) == 27


@pytest.mark.gpu
def test_a_gpu_gives_the_same_integers() -> None:
    rng = torch.Generator().manual_seed(3)
    for groups, channels in ((1, 64), (64, 1), (4, 16)):
        window = Window((3, 3), padding=(1, 1, 1, 1), groups=groups)
        x = torch.randint(0, 256, (2, 64, 14, 14), generator=rng)
        w = torch.randint(-128, 128, (64, channels, 3, 3), generator=rng)
        on_gpu = kernels.convolve(x.cuda().to(torch.uint8), w.cuda(), window, 3)
        assert torch.equal(on_gpu.cpu(), kernels.convolve(x.to(torch.uint8), w, window, 3))


def converted(patch: list[int], weights: list[int], least: int, bits: int) -> int:
    """One column of an in-memory array in Python's integers: the exact sum, in units of 2^least, rounded half up."""
    unit = 2**least
    exact = sum(a * w for a, w in zip(patch, weights, strict=True))
    code = exact // unit + (1 if unit > 1 and exact % unit >= unit // 2 else 0)
    return max(-(2 ** (bits - 1)), min(2 ** (bits - 1) - 1, code)) * unit if unit > 1 else exact


@settings(max_examples=60, deadline=None)
@given(
    window=windows, size=st.integers(3, 7), channels=st.integers(1, 5), bits=st.integers(1, 9),
    rows=st.integers(1, 40), seed=st.integers(0, 9999), batch=st.integers(1, 3),
)  # fmt: skip
def test_a_lossy_converter_cuts_the_sum_of_every_group_of_rows(
    window: Window, size: int, channels: int, bits: int, rows: int, seed: int, batch: int
) -> None:
    """Column by column: the rows that sum together, the bits that any codes could need, the lowest ones cut."""
    try:
        out_rows, out_columns = window.output(size, size)
    except ValueError:
        return
    rng = torch.Generator().manual_seed(seed)
    groups, codes, pad_code, per_group = window.groups, (0, 7), 2, 2
    x = torch.randint(codes[0], codes[1] + 1, (batch, channels * groups, size, size), generator=rng)
    w = torch.randint(-4, 4, (per_group * groups, channels, *window.kernel), generator=rng)
    got = kernels.convolve_converting(x, w, window, pad_code, codes, bits, rows)
    top, bottom, left, right = window.padding
    padded = F.pad(x, (left, right, top, bottom), value=pad_code)
    taps = window.kernel[0] * window.kernel[1]
    lines = [(c, t) for c in range(channels) for t in range(taps)]
    if taps <= rows:
        whole = rows // taps * taps
        columns = [lines[i : i + whole] for i in range(0, len(lines), whole)]
    else:
        columns = [lines[c * taps :][:taps][i : i + rows] for c in range(channels) for i in range(0, taps, rows)]
    needs = []
    for column in columns:
        weights = [[int(w[k, c].flatten()[t]) for c, t in column] for k in range(len(w))]
        highest = max(sum(max(codes[1] * v, 0) for v in line) for line in weights)
        lowest = min(sum(min(codes[1] * v, 0) for v in line) for line in weights)
        needs.append(next(b for b in range(1, 40) if -(2 ** (b - 1)) <= lowest and highest < 2 ** (b - 1)))
    p, q = (int(torch.randint(0, n, (1,), generator=rng)) for n in (out_rows, out_columns))
    for image in range(batch):
        for k in range(len(w)):
            total = 0
            for column, need in zip(columns, needs, strict=True):
                patch = [
                    int(
                        padded[
                            image, k // per_group * channels + c,
                            p * window.stride[0] + t // window.kernel[1] * window.dilation[0],
                            q * window.stride[1] + t % window.kernel[1] * window.dilation[1],
                        ]
                    )
                    for c, t in column
                ]  # fmt: skip
                weights = [int(w[k, c].flatten()[t]) for c, t in column]
                total += converted(patch, weights, max(0, need - bits), bits)
            assert int(got[image, k, p, q]) == total
    enough = kernels.convolve_converting(x, w, window, pad_code, codes, 40, rows)
    assert torch.equal(enough, kernels.convolve(x, w, window, pad_code).long())
