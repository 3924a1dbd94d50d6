"""The interactive page in a real browser: it draws without a complaint, and a mark under the mouse explains itself."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from experiments import table
from experiments.pareto_figures import AXES, label_of
from experiments.pareto_page import write_page
from tests.experiments import browser

POINTS = Path(__file__).parents[2] / "results" / "digits" / "pareto.csv"


@pytest.fixture(scope="module")
def page_of_digits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, list[str]]]:
    """The page of the committed digits points."""
    pytest.importorskip("plotly")
    folder = tmp_path_factory.mktemp("browser")
    with browser.opened(write_page(POINTS, folder / "pareto.html"), folder / "profile") as found:
        yield found


def rows_of(machine: str, network: str = "silu_se_net") -> list[table.Row]:
    kept = {"accelerator": machine, "network": network, "status": "ok"}
    return [row for row in table.read(POINTS) if table.usual(row) and all(row[name] == kept[name] for name in kept)]


def show(page: Any, machine: str, network: str = "silu_se_net") -> None:
    page.select_option("#network", f"{network} on digits")
    page.select_option("#machine", machine)
    page.wait_for_selector(f"body[data-drawn='{network} {machine}']")


def marks(page: Any, axis: int) -> list[dict[str, Any]]:
    """The points of one plot with their centres on the screen, as plotly drew them."""
    return page.evaluate(
        """axis => {
            const plot = document.getElementById(`plot-${axis}`), box = plot.getBoundingClientRect();
            const { xaxis, yaxis } = plot._fullLayout;
            return plot.data.filter((t) => t.customdata).flatMap((t) => t.customdata.map((point) => ({
                point, x: box.x + xaxis._offset + xaxis.d2p(point.cost[axis]),
                y: box.y + yaxis._offset + yaxis.d2p(point.accuracy) })));
        }""",
        axis,
    )


@pytest.mark.long
def test_every_point_is_drawn_and_labelled_without_complaint(page_of_digits: tuple[Any, list[str]]) -> None:
    page, complaints = page_of_digits
    networks = sorted({row["network"] for row in table.read(POINTS)})
    for machine, network in itertools.product(("bit_fusion", "eyeriss_v1"), networks):
        show(page, machine, network)
        rows = rows_of(machine, network)
        assert rows
        for axis in range(len(AXES)):
            drawn = page.locator(f"#plot-{axis} .points path").count()
            labels = page.locator(f"#plot-{axis} .annotation-text").all_text_contents()
            assert drawn == len(rows)
            assert sorted(labels) == sorted(map(label_of, rows))
    assert complaints == []


def test_a_mark_under_the_mouse_explains_itself(page_of_digits: tuple[Any, list[str]]) -> None:
    """Bits of every layer, energy by component, costs, offsets, and the commands; as in the CSV."""
    page, _ = page_of_digits
    show(page, "stripes")
    found = marks(page, 0)
    # A mark that no other one covers.
    alone = next(m for m in found if all(o is m or abs(o["x"] - m["x"]) + abs(o["y"] - m["y"]) > 15 for o in found))
    page.mouse.move(alone["x"], alone["y"])
    page.wait_for_selector("#point h2")
    row = next(row for row in rows_of("stripes") if label_of(row) == alone["point"]["label"])
    said = page.locator("#point").inner_text()
    assert said.startswith(f"{label_of(row)}: {float(row['accuracy_percent']):.2f} %")
    layers = [line.split("\t") for line in page.locator("#layers").inner_text().splitlines()]
    assert dict(layers) == json.loads(row["bits_per_layer"])
    energies = json.loads(row["energy_pj_by_component"])
    shown = dict(line.split("\t")[:2] for line in page.locator("#components").inner_text().splitlines() if "%" in line)
    for name, energy in energies.items():
        assert float(shown[name].removesuffix(" %")) == pytest.approx(100 * energy / sum(energies.values()), abs=0.06)
    for words in (row["train_command"], row["price_command"], *json.loads(row["offset_classes"])):
        assert words in said


def test_a_click_keeps_a_point_and_dominated_ones_can_be_hidden(page_of_digits: tuple[Any, list[str]]) -> None:
    page, complaints = page_of_digits
    show(page, "t4")
    first, *others = marks(page, 1)
    page.mouse.click(first["x"], first["y"])
    kept = page.locator("#point h2").inner_text()
    for other in others:
        page.mouse.move(other["x"], other["y"])
    assert page.locator("#point h2").inner_text() == kept
    page.uncheck("#dominated")
    page.wait_for_function("!document.querySelector('#point h2')")
    left = marks(page, 1)
    assert 0 < len(left) < 1 + len(others)
    assert all(mark["point"]["possible"][1] for mark in left)
    page.check("#dominated")
    assert complaints == []
