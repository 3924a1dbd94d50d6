"""One style for every picture: twelve colours that colour-blind readers tell apart, and quiet axes.

The first six are Okabe and Ito's (2008); six more keep the least distance in OKLab largest, seen normally and without
one kind of cone (Machado et al. 2009). All stand out from white and from the dark page. `colours_of` never gives one
colour twice: what is beyond the palette is folded into one grey series by whoever draws (`fold`).
"""

from __future__ import annotations

import functools
import io
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

from hwsim.console import printable

Given = ParamSpec("Given")
Drawn = TypeVar("Drawn")

PALETTE = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9",
    "#960000", "#A569FF", "#E1D296", "#5A3C69", "#69E1FF", "#2D0FE1",
)  # fmt: skip
REST = "#9A9A9A"  # series that are folded together
INK, QUIET, LINE = "#222222", "#666666", "#CCCCCC"
LONGEST_LABEL = 60  # characters; the axes beside a longer one would have no room
# matplotlib's settings for a figure of ours; the same bytes for the same data.
SETTINGS: Mapping[str, Any] = {
    "svg.hashsalt": "hwsim", "svg.fonttype": "none",
    "axes.edgecolor": QUIET, "axes.labelcolor": INK, "axes.titlelocation": "left", "axes.titlesize": 9,
    "axes.labelsize": 8, "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.7,
    "xtick.color": QUIET, "ytick.color": QUIET, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
    "xtick.labelsize": 7, "ytick.labelsize": 7, "legend.fontsize": 7, "legend.frameon": False,
    "grid.color": LINE, "grid.linewidth": 0.5, "text.color": INK,
}  # fmt: skip


def colours_of(names: Iterable[str]) -> dict[str, str]:
    """A colour of its own for every series, in order. Raises ValueError beyond the palette: fold them first."""
    distinct = list(dict.fromkeys(names))
    if len(distinct) > len(PALETTE):
        raise ValueError(f"{len(distinct)} series, but {len(PALETTE)} colours: fold the smallest together")
    return dict(zip(distinct, PALETTE, strict=False))


def fold(sizes: Mapping[str, float]) -> tuple[list[str], list[str]]:
    """Series that get a colour, in their order, and the smallest ones that share the grey."""
    if len(sizes) <= len(PALETTE):
        return list(sizes), []
    kept = set(sorted(sizes, key=lambda name: -sizes[name])[: len(PALETTE)])
    return [name for name in sizes if name in kept], [name for name in sizes if name not in kept]


def styled() -> Any:
    """A context in which matplotlib draws and saves as ours; half a second that a run without figures need not pay."""
    import matplotlib

    settings: Any = dict(SETTINGS)
    return matplotlib.rc_context(settings)


def in_style(draw: Callable[Given, Drawn]) -> Callable[Given, Drawn]:
    """A function that draws a figure, drawing it as ours; matplotlib is imported when it is called."""

    @functools.wraps(draw)
    def drawn(*arguments: Given.args, **options: Given.kwargs) -> Drawn:
        with styled():
            return draw(*arguments, **options)

    return drawn


def label_of(name: str) -> str:
    """A name as a figure shows it: printable, the middle of a long one left out.

    >>> label_of("a" * 30 + "b" * 90)
    'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa…bbbbbbbbbbbbbbbbbbbbbbbbbbbbb'
    """
    shown = printable(name)
    half = LONGEST_LABEL // 2
    return shown if len(shown) <= LONGEST_LABEL else f"{shown[:half]}…{shown[1 - half :]}"


def figure_bytes(figure: Any, kind: str, dpi: int = 110) -> bytes:
    """A matplotlib figure as PNG, SVG or PDF; the same figure gives the same bytes (no date, fixed ids)."""
    target = io.BytesIO()
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
    with styled(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a name may use any script
        figure.savefig(target, format=kind, dpi=dpi, metadata=metadata)
    return target.getvalue()


def plain_ticks(axis: Any) -> None:
    """Tick labels in full, as 5,500,000: none is times a power that stands elsewhere."""

    def in_full(value: float, place: int | None) -> str:
        return f"{value:,.10g}"

    axis.set_major_formatter(in_full)


def plain_text(artists: Sequence[Any]) -> None:
    """Names are text: a $ in one is a $."""
    for artist in artists:
        artist.set_parse_math(False)
