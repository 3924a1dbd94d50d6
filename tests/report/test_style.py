"""The palette: every series its own colour, told apart by colour-blind readers, visible on white and on dark pages."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from hwsim.report.style import PALETTE, REST, colours_of, figure_bytes, fold, in_style

# What is left of linear RGB without one kind of cone: Machado, Oliveira and Fernandes 2009, severity 1.
VIEWS = {
    "all cones": np.eye(3),
    "protanopia": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                            [-0.003882, -0.048116, 1.051998]]),
    "deuteranopia": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                              [-0.011820, 0.042940, 0.968881]]),
    "tritanopia": np.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                            [0.004733, 0.691367, 0.303900]]),
}  # fmt: skip
# Ottosson 2020: linear RGB to cones, cones to OKLab.
TO_CONES = np.array([[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
                     [0.0883024619, 0.2817188376, 0.6299787005]])  # fmt: skip
TO_LAB = np.array([[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
                   [0.0259040371, 0.7827717662, -0.8086757660]])  # fmt: skip


def linear(colours: tuple[str, ...]) -> np.ndarray:
    rgb = np.array([to_rgb(colour) for colour in colours])
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def oklab(light: np.ndarray) -> np.ndarray:
    return np.cbrt(np.clip(light, 0, 1) @ TO_CONES.T) @ TO_LAB.T


@pytest.mark.parametrize("view", VIEWS)
def test_no_two_colours_look_alike(view: str) -> None:
    """In OKLab 0.02 is just noticeable side by side; Okabe and Ito's own closest pair is 0.076 apart."""
    places = oklab(linear(PALETTE) @ VIEWS[view].T)
    for (i, a), (j, b) in itertools.combinations(enumerate(places), 2):
        assert np.linalg.norm(a - b) > 0.07, (PALETTE[i], PALETTE[j])


def test_every_colour_stands_out_on_white_and_on_the_dark_page() -> None:
    luminance = linear((*PALETTE, REST)) @ np.array([0.2126, 0.7152, 0.0722])
    dark = float((linear(("#14171a",)) @ np.array([0.2126, 0.7152, 0.0722]))[0])
    assert (1.05 / (luminance + 0.05)).min() > 1.4
    assert ((luminance + 0.05) / (dark + 0.05)).min() > 1.7


def test_no_colour_is_given_twice() -> None:
    names = [f"s{i}" for i in range(len(PALETTE))]
    assert len(set(colours_of(names).values())) == len(names)
    with pytest.raises(ValueError, match="13 series, but 12 colours"):
        colours_of([*names, "one more"])


def test_the_smallest_series_share_the_grey_where_there_are_too_many() -> None:
    sizes = {f"s{i}": float(i) for i in range(15)}
    kept, folded = fold(sizes)
    assert folded == ["s0", "s1", "s2"]
    assert kept == [f"s{i}" for i in range(3, 15)]
    assert fold({"a": 1.0, "b": 0.0}) == (["a", "b"], [])


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_the_same_figure_gives_the_same_bytes(kind: str) -> None:
    from matplotlib.figure import Figure

    @in_style
    def draw() -> Figure:
        figure = Figure(figsize=(2, 1))
        figure.subplots().plot([1, 2], label="$not math$")
        return figure

    assert figure_bytes(draw(), kind) == figure_bytes(draw(), kind)
