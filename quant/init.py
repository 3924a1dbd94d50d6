"""First values of s and beta: pure functions (values, spec) -> (s, beta), and a name -> function table.

`minmax` is LSQ+ Eq. 6 and 7, `lsq` the rule of the LSQ paper, `lsqplus` the Gaussian rule for weights and the minimiser
of Eq. 8 for activations, `mse` that minimiser for both. `values` is (rows, elements): one row per step size.
Signed 1 bit has p = 0; `spec.magnitude` = 1 stands in for p there.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from quant.spec import INIT_NAMES, QuantSpec, check_choice

# Candidate boundaries of the Eq. 8 search, and how many of the best are refined.
_GRID = 24
_KEPT = 8
_REFINEMENTS = 60
_ZOOMS = 5
# Rows of at most so many different values, at up to 4 bits, are searched from every line through two of them as well.
_FEW_VALUES = 16
_FEW_LEVELS = 16
_KEPT_OF_FEW = 64
# Most thresholds looked up at once; more rows are handled in blocks.
_LOOKUPS = 4_000_000


def initial(values: Tensor, spec: QuantSpec, *, is_weight: bool) -> tuple[Tensor, Tensor]:
    """(s, beta) of each row of `values` by the rule that `spec.init` names; s is positive.

    A fixed offset (`spec.offset_mode`) is the row's minimum or 0, and the rule then fits s alone to what is left; with
    `fixed_min`, beta is the minimum itself, which is where code n lies. Power-of-two steps are powers of two already.
    Raises ValueError when there are no values or one of them is not finite.
    """
    check_choice("init", spec.init, INIT_NAMES)
    if values.ndim != 2 or values.numel() == 0:
        raise ValueError(f"initialisation: expected (rows, elements) with values, got shape {tuple(values.shape)}")
    values = values.detach().to(torch.promote_types(values.dtype, torch.float32))
    if not bool(torch.isfinite(values).all()):
        raise ValueError("initialisation: expected finite values, got NaN or infinity")
    fixed = torch.zeros_like(values[:, 0])
    fitted = spec
    if spec.offset and spec.offset_mode == "fixed_min":
        fixed = values.amin(1)
        fitted = spec.replace(offset=False, signed=False)
    elif spec.offset and spec.offset_mode == "fixed_zero":
        fitted = spec.replace(offset=False)
    rest = values - fixed[:, None]
    s, beta = RULES[spec.init](rest, fitted, is_weight)
    s = _positive(s, rest)
    if spec.power_of_two:
        s, beta = _best_power_of_two(rest, s, beta, fitted)
    return s, (beta if fitted.offset else fixed)


def _positive(s: Tensor, values: Tensor) -> Tensor:
    """s; where it is 0 (constant values), a millionth of the largest magnitude, or 1 when all values are 0."""
    fallback = values.abs().amax(1) * 1e-6
    fallback = torch.where(fallback > 0, fallback, torch.ones_like(fallback))
    return torch.where(s > 0, s, fallback)


def minmax(values: Tensor, spec: QuantSpec, is_weight: bool) -> tuple[Tensor, Tensor]:
    """s = (xmax - xmin)/(p - n), beta = xmin - n*s (LSQ+ Eq. 6, 7).

    Without an offset the range must hold both ends: s = max(xmax/p, xmin/n).
    """
    low, high = values.amin(1), values.amax(1)
    if spec.offset:
        s = (high - low) / (spec.p - spec.n)
        return s, low - spec.n * s
    s = high / spec.p if spec.p > 0 else torch.zeros_like(high)
    if spec.n < 0:
        s = torch.maximum(s, low / spec.n)
    return s.clamp_min(0.0), torch.zeros_like(s)


def lsq(values: Tensor, spec: QuantSpec, is_weight: bool) -> tuple[Tensor, Tensor]:
    """s = 2 * mean(|v|) / sqrt(p) (LSQ). With an offset, beta = xmin - n*s, as in Eq. 7, at that s."""
    s = 2.0 * values.abs().mean(1) / math.sqrt(spec.magnitude)
    return s, (values.amin(1) - spec.n * s if spec.offset else torch.zeros_like(s))


def gaussian(values: Tensor, spec: QuantSpec, *, mean: str = "signed") -> Tensor:
    """s = max(|mu - 3 sigma|, |mu + 3 sigma|) / 2^(b-1) (LSQ+ 3.2.1), sigma being the population's.

    The paper says that mu is "the same as <|w|>" and uses it as a signed mean. `mean="signed"` is mean(w), which lies
    nearer to the least error; `mean="absolute"` is mean(|w|).
    """
    check_choice("mean", mean, ("signed", "absolute"))
    mu = (values if mean == "signed" else values.abs()).mean(1)
    sigma = values.std(1, correction=0)
    return torch.maximum((mu - 3 * sigma).abs(), (mu + 3 * sigma).abs()) / 2 ** (spec.bits - 1)


def lsqplus(values: Tensor, spec: QuantSpec, is_weight: bool) -> tuple[Tensor, Tensor]:
    """The Gaussian rule for weights (3.2.1), the least squared error for activations (Eq. 8)."""
    if not is_weight:
        return mse(values, spec, is_weight)
    s = gaussian(values, spec)
    return s, torch.zeros_like(s)


def mse(values: Tensor, spec: QuantSpec, is_weight: bool) -> tuple[Tensor, Tensor]:
    """argmin over s (and beta) of ||x_hat - x||^2 (LSQ+ Eq. 8), over the values given, without gradient descent.

    The error of any (s, beta) is exact from sorted values and prefix sums: one look-up per threshold. A grid over the
    two ends of the range is searched, and its best points are refined by alternating the assignment of codes with the
    least-squares line through (code, value), which never raises the error. 16 bits start from `minmax` alone.
    Where values are few (a depthwise filter, a pruned tensor) the error has a minimum per assignment of codes: such
    rows are also searched from every line through two values and two codes.
    """
    if spec.bits == 16:
        return minmax(values, spec, is_weight)
    few = _distinct(values) <= (_FEW_VALUES if spec.levels <= _FEW_LEVELS else 0)
    s, beta = torch.empty_like(values[:, 0]), torch.empty_like(values[:, 0])
    for kind, chosen in ((False, ~few), (True, few)):
        candidates = (_FEW_VALUES * spec.levels) ** 2 // 4 if kind else _GRID * _GRID
        rows = max(1, _LOOKUPS // (candidates * spec.levels))
        for index in chosen.nonzero()[:, 0].split(rows) if bool(chosen.any()) else ():
            s[index], beta[index] = _minimise(values[index], spec, few=kind)
    return s, beta


def _distinct(values: Tensor) -> Tensor:
    """Number of different values in each row."""
    return (values.sort(1).values.diff(dim=1) != 0).sum(1) + 1


def squared_error(values: Tensor, s: Tensor, beta: Tensor, spec: QuantSpec) -> Tensor:
    """Mean squared error of each row of `values` under each of its candidates: (rows, candidates), float64."""
    return _SortedRows(values).fit(s.double(), beta.double(), spec)[0]


class _SortedRows:
    """Rows sorted once, with prefix sums, so that the error of a candidate costs a look-up per threshold."""

    def __init__(self, values: Tensor) -> None:
        self.values = values.double().sort(1).values
        zero = self.values.new_zeros(len(values), 1)
        self.sums = torch.cat([zero, self.values.cumsum(1)], 1)
        self.squares = self.values.square().sum(1)

    def fit(self, s: Tensor, beta: Tensor, spec: QuantSpec) -> tuple[Tensor, Tensor, Tensor]:
        """(mean squared error, share and mean value of each code) for candidates s, beta: (rows, candidates)."""
        rows, elements = self.values.shape
        level = torch.arange(spec.n, spec.p + 1, dtype=torch.float64, device=s.device)
        x_hat = beta[..., None] + s[..., None] * level
        thresholds = (x_hat[..., 1:] + x_hat[..., :-1]) / 2
        ends = torch.searchsorted(self.values, thresholds.reshape(rows, -1)).reshape(thresholds.shape)
        edges = torch.cat([torch.zeros_like(ends[..., :1]), ends, torch.full_like(ends[..., :1], elements)], -1)
        counts = edges.diff(dim=-1).double()
        sums = self.sums.gather(1, edges.reshape(rows, -1)).reshape(edges.shape).diff(dim=-1)
        error = (counts * x_hat.square() - 2 * sums * x_hat).sum(-1) + self.squares[:, None]
        return error / elements, counts, sums


def _minimise(values: Tensor, spec: QuantSpec, *, few: bool) -> tuple[Tensor, Tensor]:
    """Grid, then refinement, for a block of rows."""
    data = _SortedRows(values)
    s, beta = _candidates(data.values, spec)
    if few:
        lines = _through_values(data.values, spec)
        s, beta = torch.cat([s, lines[0]], 1), torch.cat([beta, lines[1]], 1)
    error, _, _ = data.fit(s, beta, spec)
    best = error.topk(_KEPT_OF_FEW if few else _KEPT, dim=1, largest=False).indices
    s, beta = s.gather(1, best), beta.gather(1, best)
    s, beta = _zoom(data, s, beta, spec)
    for _ in range(_REFINEMENTS):
        _, counts, sums = data.fit(s, beta, spec)
        new_s, new_beta = _least_squares(counts, sums, s, beta, spec)
        moved = (new_s - s).abs() > 1e-9 * s
        s, beta = new_s, new_beta
        if not bool(moved.any()):
            break
    error, _, _ = data.fit(s, beta, spec)
    best = error.argmin(1, keepdim=True)
    return s.gather(1, best)[:, 0].to(values.dtype), beta.gather(1, best)[:, 0].to(values.dtype)


def _candidates(ordered: Tensor, spec: QuantSpec) -> tuple[Tensor, Tensor]:
    """Starting points (rows, candidates): both ends of the range for an offset, one scale without."""
    low, high = ordered[:, :1], ordered[:, -1:]
    fraction = torch.linspace(0, 1, _GRID, dtype=ordered.dtype, device=ordered.device)
    if not spec.offset:
        # Steps from 1/300 of the widest sensible one upwards: heavy tails want to be cut far inside the extremes.
        sides = [high / spec.p] if spec.p > 0 else []
        sides += [low / spec.n] if spec.n < 0 else []
        widest = torch.cat(sides, 1).amax(1, keepdim=True)
        widest = torch.where(widest > 0, widest, torch.ones_like(widest))
        ratio = torch.linspace(math.log(1 / 300), math.log(1.2), _GRID * 8, dtype=ordered.dtype, device=ordered.device)
        s = widest * ratio.exp()
        return s, torch.zeros_like(s)
    # Half of the ends are spaced evenly over the range, half by quantile: the latter follow heavy tails.
    middle = ordered[:, ordered.shape[1] // 2, None]
    even = fraction[: _GRID // 2] * 2
    share = torch.logspace(-4, math.log10(0.3), _GRID // 2, dtype=ordered.dtype, device=ordered.device)
    last = ordered.shape[1] - 1
    from_low = ordered[:, (share * last).long()]
    from_high = ordered[:, last - (share * last).long()]
    lows = torch.cat([low + (middle - low) * even, from_low], 1)
    highs = torch.cat([high - (high - middle) * even, from_high], 1)
    span = (highs[:, None, :] - lows[:, :, None]).flatten(1).clamp_min(0.0)
    widest = (high - low).clamp_min(torch.finfo(ordered.dtype).tiny)
    span = torch.where(span > 0, span, widest)
    s = span / (spec.p - spec.n)
    return s, lows[:, :, None].expand(-1, -1, highs.shape[1]).flatten(1) - spec.n * s


def _through_values(ordered: Tensor, spec: QuantSpec) -> tuple[Tensor, Tensor]:
    """(s, beta) of every line value = s*code + beta through two different values and codes; without an offset of every
    line through 0, a value and a code. Rows of fewer different values repeat their last one.
    """
    new = torch.cat([torch.ones_like(ordered[:, :1], dtype=torch.bool), ordered.diff(dim=1) != 0], 1)
    place = (new.cumsum(1) - 1).clamp_max(_FEW_VALUES - 1)
    values = ordered[:, -1:].expand(-1, _FEW_VALUES).clone().scatter_(1, place, ordered)
    code = torch.arange(spec.n, spec.p + 1, dtype=ordered.dtype, device=ordered.device)
    if spec.offset:
        low, high = torch.triu_indices(_FEW_VALUES, _FEW_VALUES, 1, device=ordered.device)
        first, last = torch.triu_indices(len(code), len(code), 1, device=ordered.device)
        s = (values[:, high] - values[:, low])[..., None] / (code[last] - code[first])
        beta = values[:, low][..., None] - s * code[first]
    else:
        s = values[..., None] / code[code != 0]
        beta = torch.zeros_like(s)
    s, beta = s.flatten(1), beta.flatten(1)
    # Lines that do not rise are no quantizers: the first candidate of the grid stands in.
    grid_s, grid_beta = (each[:, :1] for each in _candidates(ordered, spec))
    return torch.where(s > 0, s, grid_s), torch.where(s > 0, beta, grid_beta)


def _zoom(data: _SortedRows, s: Tensor, beta: Tensor, spec: QuantSpec) -> tuple[Tensor, Tensor]:
    """The best of ever finer grids around the best candidate, followed by the candidates themselves.

    At 8 bits the error has many shallow minima, and refinement alone stops in the first.
    """
    error, _, _ = data.fit(s, beta, spec)
    first = error.argmin(1, keepdim=True)
    best_s, best_beta = s.gather(1, first), beta.gather(1, first)
    width = 0.12
    move = torch.linspace(-1, 1, 9 if spec.offset else 81, dtype=s.dtype, device=s.device)
    for _ in range(_ZOOMS):
        if spec.offset:
            low, high = best_beta + spec.n * best_s, best_beta + spec.p * best_s
            reach = width * (high - low)
            lows = (low + reach * move).repeat_interleave(len(move), 1)
            highs = (high + reach * move).repeat(1, len(move))
            tried = ((highs - lows) / (spec.p - spec.n)).clamp_min(torch.finfo(s.dtype).tiny)
            betas = lows - spec.n * tried
        else:
            tried = best_s * (1 + width * move)
            betas = torch.zeros_like(tried)
        error, _, _ = data.fit(tried, betas, spec)
        first = error.argmin(1, keepdim=True)
        best_s, best_beta = tried.gather(1, first), betas.gather(1, first)
        width *= 0.35
    return torch.cat([best_s, s], 1), torch.cat([best_beta, beta], 1)


def _least_squares(counts: Tensor, sums: Tensor, s: Tensor, beta: Tensor, spec: QuantSpec) -> tuple[Tensor, Tensor]:
    """The line value = s*code + beta through the codes' means; the old one where all values share a code."""
    level = torch.arange(spec.n, spec.p + 1, dtype=torch.float64, device=s.device)
    total = counts.sum(-1)
    code_mean = (counts * level).sum(-1) / total if spec.offset else torch.zeros_like(s)
    centred = level - code_mean[..., None]
    spread = (counts * centred.square()).sum(-1)
    value_mean = sums.sum(-1) / total
    slope = (sums * centred).sum(-1) / spread
    usable = (spread > 0) & (slope > 0) & torch.isfinite(slope)
    new_s = torch.where(usable, slope, s)
    if not spec.offset:
        return new_s, beta
    return new_s, torch.where(usable, value_mean - slope * code_mean, beta)


def _best_power_of_two(values: Tensor, s: Tensor, beta: Tensor, spec: QuantSpec) -> tuple[Tensor, Tensor]:
    """The neighbouring power of two with the smaller squared error, the range's middle kept where beta is free."""
    exponent = s.log2().floor()
    tried = torch.stack([exponent, exponent + 1], 1).exp2()
    shift = (spec.n + spec.p) / 2 * (s[:, None] - tried) if spec.offset else torch.zeros_like(tried)
    betas = beta[:, None] + shift
    best = squared_error(values, tried, betas, spec).argmin(1, keepdim=True)
    return tried.gather(1, best)[:, 0], betas.gather(1, best)[:, 0]


RULES: dict[str, Callable[[Tensor, QuantSpec, bool], tuple[Tensor, Tensor]]] = {
    "minmax": minmax,
    "lsq": lsq,
    "lsqplus": lsqplus,
    "mse": mse,
}
