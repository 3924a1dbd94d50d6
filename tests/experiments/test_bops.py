"""Where BOPs mislead: the largest gap between two networks that they rank the wrong way round."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.bops import misled


def test_the_largest_inversion_is_found() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        bops, cost = rng.permutation(30).astype(float), rng.random(30)
        pairs = [cost[i] - cost[j] for i in range(30) for j in range(30) if bops[i] < bops[j]]
        assert misled(bops, cost) == pytest.approx(max(pairs))


def test_a_perfect_order_misleads_nobody() -> None:
    assert misled(np.arange(5.0), np.arange(5.0)) < 0
