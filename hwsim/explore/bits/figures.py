"""The front as a figure and as one self-contained interactive page: every point with its bits and its commands.

matplotlib and plotly are imported only here and only when something is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from hwsim.errors import HwsimError
from hwsim.explore.bits.output import Point
from hwsim.explore.words import BOPS, CYCLES, ENERGY, LOSS, PEAK, WEIGHTS
from hwsim.report.style import PALETTE, QUIET, REST, figure_bytes, in_style, plain_ticks

AXES = {
    ENERGY: ("energy (µJ)", 1e-6),
    CYCLES: ("latency (cycles)", 1.0),
    WEIGHTS: ("weights (kB)", 1 / 8000),
    PEAK: ("peak activations (kB)", 1 / 8000),
    BOPS: ("bit operations (10⁹)", 1e-9),
    LOSS: ("predicted loss", 1.0),
}


class DrawingError(HwsimError):
    """What drawing needs is not installed."""


def coordinates(points: Sequence[Point], measure: str) -> list[float]:
    """A measure of every point, in the axis's unit; the whole network's price where it has one."""
    scale = AXES[measure][1]
    return [float(point.to_row()[measure]) * scale for point in points]


@in_style
def front_figure(front: Sequence[Point], uniform: Sequence[Point], x: str, y: str) -> Any:
    """A matplotlib Figure: the front as steps, uniform widths as labelled crosses."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes: Any = figure.subplots()
    axes.step(
        coordinates(front, x),
        coordinates(front, y),
        "o-",
        where="post",
        markersize=4,
        color=PALETTE[0],
        label="exact front",
    )
    if uniform:
        across, up = coordinates(uniform, x), coordinates(uniform, y)
        axes.plot(across, up, "x", color=QUIET, label="one width for all")
        for point, a, b in zip(uniform, across, up, strict=True):
            axes.annotate(point.name, (a, b), xytext=(4, 4), textcoords="offset points", fontsize=8)
    axes.set_xlabel(AXES[x][0])
    axes.set_ylabel(AXES[y][0])
    plain_ticks(axes.xaxis)
    plain_ticks(axes.yaxis)
    if y == LOSS and min([*coordinates(front, y), *coordinates(uniform, y)], default=0.0) > 0:
        axes.set_yscale("log")
    axes.grid()
    axes.set_axisbelow(True)
    axes.legend()
    return figure


def as_png(figure: Any) -> bytes:
    """The figure's bytes."""
    return figure_bytes(figure, "png", 140)


@dataclass(frozen=True)
class Trace:
    """One kind of points on a page: their places in the axes' units, and what each says under the mouse."""

    name: str
    mode: str
    colour: str
    across: list[float]
    up: list[float]
    texts: list[str]


def page_of(traces: Sequence[Trace], x: str, y: str, title: str, words: str) -> str:
    """One HTML page that opens without a network. Raises DrawingError without plotly."""
    try:
        from plotly import graph_objects
        from plotly.io import to_html
    except ImportError:
        raise DrawingError("the interactive page needs plotly: pip install 'hwsim[report]'") from None
    figure: Any = graph_objects.Figure()
    for trace in traces:
        figure.add_trace(
            graph_objects.Scatter(
                x=trace.across, y=trace.up, mode=trace.mode, name=trace.name,
                line={"shape": "hv", "color": trace.colour}, marker={"color": trace.colour, "size": 8},
                hovertext=trace.texts, hoverinfo="text",
            )
        )  # fmt: skip
    figure.update_layout(template="simple_white", height=620, margin={"t": 20}, hoverlabel={"align": "left"})
    figure.update_xaxes(title_text=label_of(x))
    figure.update_yaxes(title_text=label_of(y))
    body = to_html(figure, include_plotlyjs=True, full_html=False, div_id="front")
    return PAGE.format(title=escape(title), words=escape(words), body=body)


def front_page(front: Sequence[Point], uniform: Sequence[Point], x: str, y: str, title: str) -> str:
    """The front, and one width for all, as a page. Raises DrawingError without plotly."""
    traces = [
        Trace(name, mode, colour, coordinates(points, x), coordinates(points, y), [hover(point) for point in points])
        for points, name, mode, colour in (
            (front, "exact front", "lines+markers", PALETTE[0]),
            (uniform, "one width for all", "markers", REST),
        )
    ]
    words = "Costs are of the whole network at each point's widths. Point at a mark for the bits of every layer."
    return page_of(traces, x, y, title, words)


def hover(point: Point) -> str:
    """What a point says: its costs, its bits by layer."""
    row = point.to_row()
    costs = [f"{AXES[name][0]} {float(row[name]) * AXES[name][1]:.5g}" for name in AXES if name in row]
    bits = [f"{name} {entry}" for name, entry in point.widths_by_layer().items()]
    lines = [", ".join(bits[i : i + 4]) for i in range(0, len(bits), 4)]
    return "<br>".join([f"<b>{escape(point.name)}</b>", *map(escape, costs), "weight/input bits:", *map(escape, lines)])


PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 1rem 2rem; color: #1c2024; background: #fff }}
@media (prefers-color-scheme: dark) {{ body {{ color: #e7eaed; background: #14171a }} }}
</style></head>
<body><h1>{title}</h1>
<p>{words}</p>
{body}
<script>
function inScheme() {{
  const dark = matchMedia("(prefers-color-scheme: dark)").matches, ink = dark ? "#e7eaed" : "#1c2024";
  const paper = dark ? "#14171a" : "#fff", change = {{ paper_bgcolor: paper, plot_bgcolor: paper, "font.color": ink }};
  for (const key of ["xaxis.linecolor", "xaxis.tickcolor", "yaxis.linecolor", "yaxis.tickcolor"]) change[key] = ink;
  Plotly.relayout("front", change);
}}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", inScheme);
inScheme();
</script>
</body></html>
"""


@in_style
def scatter_figure(points: Sequence[Any], front: Sequence[Any], x: str, y: str) -> Any:
    """A study's points (records) and its front in two objectives."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes: Any = figure.subplots()
    axes.scatter(*record_values(points, x, y), s=14, color=REST, label="points")
    axes.step(*record_values(front, x, y), "o-", where="post", markersize=4, color=PALETTE[0], label="front")
    for record, a, b in zip(front, *record_values(front, x, y), strict=True):
        axes.annotate(str(record["trial"]), (a, b), xytext=(4, 4), textcoords="offset points", fontsize=7)
    axes.set_xlabel(label_of(x))
    axes.set_ylabel(label_of(y))
    plain_ticks(axes.xaxis)
    plain_ticks(axes.yaxis)
    axes.grid()
    axes.set_axisbelow(True)
    axes.legend()
    return figure


@in_style
def volume_figure(volumes: Sequence[float]) -> Any:
    """The dominated share of a study's box after each trial."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes: Any = figure.subplots()
    axes.step(range(1, len(volumes) + 1), volumes, where="post", color=PALETTE[0])
    axes.set_xlabel("trials")
    axes.set_ylabel("hypervolume (share of the box)")
    axes.grid()
    axes.set_axisbelow(True)
    return figure


def label_of(measure: str) -> str:
    """An axis's label."""
    return AXES[measure][0] if measure in AXES else measure


def record_values(records: Sequence[Any], x: str, y: str) -> tuple[list[float], list[float]]:
    """Two measures of records, in the axes' units."""
    scales = [AXES[name][1] if name in AXES else 1.0 for name in (x, y)]
    return tuple([record["values"][n] * s for record in records] for n, s in zip((x, y), scales, strict=True))  # type: ignore[return-value]


def scatter_page(points: Sequence[Any], front: Sequence[Any], x: str, y: str, title: str) -> str:
    """Trials and their front as a page. Raises DrawingError without plotly."""
    traces: list[Trace] = []
    for records, name, mode, colour in (
        (points, "points", "markers", REST),
        (front, "front", "lines+markers", PALETTE[0]),
    ):
        texts = [
            "<br>".join([f"<b>trial {r['trial']}</b>", *(escape(f"{k}: {v}") for k, v in r["parameters"].items()),
                         *(escape(f"{k} {v:.5g}") for k, v in r["values"].items())])
            for r in records
        ]  # fmt: skip
        traces.append(Trace(name, mode, colour, *record_values(records, x, y), texts))
    words = "Each point is a machine. The line joins those that no other beats. Point at a mark for its parameters."
    return page_of(traces, x, y, title, words)
