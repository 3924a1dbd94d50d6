"""The report page: a function of report.json, whole without a network, and usable by mouse, keys and screen readers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import hwsim
from hwsim.compare import main as compare
from hwsim.network.layer import Layer, Loops, Tensor
from hwsim.network.workload import Workload
from hwsim.report.page.comparison import comparison_page
from hwsim.report.page.render import report_page
from hwsim.report.page.roofline import roofline
from hwsim.report.page.scales import linear, logarithmic
from hwsim.report.quantities import si
from hwsim.report.report import SCHEMA_FILE
from tests.experiments import browser
from tests.small_workloads import conv

ROOT = Path(hwsim.__file__).parent.parent
HOSTILE = "<img src=x onerror=alert(1)>\x1b[31m"

SIZES, BITS = (784, 64, 96, 128, 32, 10), (8, 8, 4, 4, 4, 8)


def layer(index: int, name: str) -> Layer:
    """One of a chain of linear layers."""
    inputs, outputs = SIZES[index : index + 2]
    x, out = (Tensor(f"t{i}", (1, SIZES[i]), BITS[i], False) for i in (index, index + 1))
    weight = Tensor(f"w{index}", (outputs, inputs), BITS[index], True, origin="weight")
    return Layer(name, "linear", (x,), out, weight, Loops(K=outputs, C=inputs))


@pytest.fixture(scope="module")
def chain() -> Workload:
    """Five layers, one of them with a name that tries to be markup."""
    return Workload("chain", [layer(i, n) for i, n in enumerate(("first", HOSTILE, "hidden.2", "hidden.10", "last"))])


@pytest.fixture(scope="module")
def data(chain: Workload) -> dict[str, Any]:
    """The chain's report.json."""
    return json.loads(hwsim.evaluate(chain, "stripes", effort="quick").to_json())


@pytest.fixture(scope="module")
def page(data: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, list[str]]]:
    """The page in Chromium; what it complains about."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "report.html").write_text(report_page(data), encoding="utf-8")
    with browser.opened(folder / "report.html", folder / "profile") as (shown, complaints):
        shown.set_default_timeout(30_000)
        yield shown, complaints


def test_the_page_draws_whatever_the_schema_allows(data: dict[str, Any]) -> None:
    jsonschema.validate(data, json.loads(SCHEMA_FILE.read_text()))
    text = report_page(data)
    for entry in data["layers"]:
        if entry["name"] != HOSTILE:
            assert entry["name"] in text
    assert not re.search(r"(src|href)=[\"']?https?:|@import|url\(", text), "the page must load nothing"


def test_a_page_is_drawn_of_reports_without_the_newest_fields_and_with_unknown_ones(data: dict[str, Any]) -> None:
    old = {key: value for key, value in data.items() if key not in ("occupancy", "command")}
    machine = {k: data["accelerator"][k] for k in ("name", "clock_mhz", "node_nm", "sources")}
    new = ("traffic_bits", "peak_macs_per_cycle", "narrower")
    layers = [{k: v for k, v in entry.items() if k not in new} for entry in data["layers"]]
    text = report_page({**old, "accelerator": machine, "layers": layers, "verdict": {"gap": 0.125}})
    assert "0.125" in text


def test_the_page_says_what_estimates_leave_open_and_what_other_plans_cost(data: dict[str, Any]) -> None:
    totals = data["totals"]
    origin = {"name": "DRAM", "components": ["dram"], "energy_pj": 3e6, "down_pj": 1e6, "up_pj": 4e6}
    twice = {"energy_pj": 2 * totals["energy_pj"], "latency_cycles": totals["latency_cycles"], "edp_pj_s": 1.0}
    group = {"first": "a", "last": "b", "rows": 4, "columns": 8, "halos": "kept", "weights_stay": ["a"]}
    interval = {"low_pj": 1e6, "high_pj": 2e6, "origins": [origin]}
    fusion = {"groups": [group], "without": None, "not_tried": "not looked for; --fuse on does"}
    schedules = {"best": {**twice, "energy_pj": totals["energy_pj"]}, "own": twice}
    new = {"energy_interval": interval, "schedules": schedules, "fusion": fusion}
    text = report_page({**data, **new})
    assert "1 µJ to 2 µJ" in text
    assert re.search(r"DRAM</td>.*3 µJ</td>.*2 µJ</td>.*7 µJ</td>", text)
    assert re.search(r"own schedule</td>.*\+100.0 %</td>.*same</td>", text)
    assert "best schedule without rules" not in text, "it is the page's own plan"
    assert "4 x 8" in text
    assert '<span class="option">--fuse</span> on does' in text
    assert "Also in the report" not in text


def test_an_interval_without_width_is_not_shown(data: dict[str, Any]) -> None:
    text = report_page({**data, "energy_interval": {"low_pj": 2e6, "high_pj": 2e6, "origins": []}})
    assert "2 µJ to 2 µJ" not in text
    assert "leave open" not in text


KINDS = ("a100", "bismo", "bit_fusion", "eyeriss_v2", "mico_measured", "mico_riscv", "sram_imc", "tpu_v1")


@pytest.mark.parametrize("spec", KINDS)
def test_every_kind_of_machine_has_a_page(chain: Workload, spec: str) -> None:
    """Memories in arrays, systolic and measured machines, every style of MAC unit."""
    machine = hwsim.load_accelerator(spec)
    report = hwsim.evaluate(chain, machine, effort="quick")
    text = report_page(json.loads(report.to_json()))
    for node in machine.hierarchy:
        assert f'<p class="title">{node.name} <' in text, node.name
    for component, _ in report.cost.energy_pj_by_component:
        assert component in text
    drawn = text.count("<circle")
    assert drawn == 0 if machine.mac.measurements else drawn > 0


def test_names_are_text(data: dict[str, Any]) -> None:
    text = report_page(data)
    assert "<img" not in text
    assert "\x1b" not in text
    assert "&lt;img src=x onerror=alert(1)&gt;\\x1b[31m" in text


def test_ticks_are_round_and_inside() -> None:
    assert [tick.label for tick in linear(0.0123).ticks("s", 3)] == ["0", "5 ms", "10 ms"]
    scale = logarithmic([0.2, 5000.0])
    assert [tick.label for tick in scale.ticks("")] == ["1", "10", "100", "1,000"]
    assert all(0 <= tick.at <= 100 for tick in scale.ticks(""))
    assert scale.at(0.2 / 1.6) == 0
    assert scale.at(8000.0) == 100


def test_labels_of_roofs_do_not_touch(data: dict[str, Any]) -> None:
    """Three peak rates, two of them a hair apart."""
    peaks = (100.0, 101.0, 400.0, 400.0, 400.0)
    layers = [{**layer, "peak_macs_per_cycle": peak} for layer, peak in zip(data["layers"], peaks, strict=True)]
    drawn = roofline({**data, "layers": layers}).roofs
    assert [bool(roof.text) for roof in drawn] == [True, True, False]
    assert drawn[0].y1 > drawn[1].y1 > drawn[2].y1


def test_it_opens_without_a_complaint(page: tuple[Any, list[str]]) -> None:
    shown, complaints = page
    assert shown.title().startswith("chain")
    assert complaints == []
    for width in (400, 1400):
        shown.set_viewport_size({"width": width, "height": 900})
        assert shown.evaluate("document.documentElement.scrollWidth") <= width, "nothing is cut at the side"


def names_shown(shown: Any) -> list[str]:
    return shown.eval_on_selector_all("#layer-table tbody:not([hidden]) .more", "all => all.map(b => b.textContent)")


def test_a_column_sorts_both_ways(page: tuple[Any, list[str]], data: dict[str, Any]) -> None:
    shown, _ = page
    energies = {entry["name"]: entry["energy_pj"]["total"] for entry in data["layers"] if entry["name"] != HOSTILE}
    button = shown.get_by_role("button", name="energy", exact=True)
    for order, sign in (("descending", -1), ("ascending", 1)):
        button.click()
        assert shown.locator("th[aria-sort]").get_attribute("aria-sort") == order
        shown_names = [name for name in names_shown(shown) if name in energies]
        assert shown_names == sorted(energies, key=lambda name: sign * energies[name])
    shown.get_by_role("button", name="layer", exact=True).click()
    numbered = [name for name in names_shown(shown) if name.startswith("hidden")]
    assert numbered == ["hidden.2", "hidden.10"]
    shown.get_by_role("button", name="#", exact=True).click()
    assert names_shown(shown)[0] == "first"


def test_a_search_hides_what_does_not_match_and_says_how_many(page: tuple[Any, list[str]]) -> None:
    shown, _ = page
    shown.get_by_label("Search layers").fill("linear HIDDEN")
    assert names_shown(shown) == ["hidden.2", "hidden.10"]
    assert shown.locator("#search-count").inner_text() == "2 of 5 layers"
    shown.get_by_label("Search layers").fill("")
    assert len(names_shown(shown)) == 5


def test_a_mark_under_the_mouse_says_what_it_is(page: tuple[Any, list[str]]) -> None:
    shown, complaints = page
    for mark in (".row .bar i", "rect.slice", "rect.alive", "circle", ".columns span", ".whole i"):
        last = shown.locator(mark).last  # drawn above all others
        last.hover()
        tip = shown.locator("#tip")
        assert tip.is_visible(), mark
        assert tip.inner_text() == last.get_attribute("data-tip")
    shown.mouse.move(1, 1)
    shown.locator("rect.slice").first.hover()
    assert shown.locator("circle.lit, .row.lit").count() >= 1, "the same layer is marked in the other charts"
    shown.keyboard.press("Escape")
    assert shown.locator("#tip").is_hidden()
    assert complaints == []


def test_keys_alone_reach_a_layer(page: tuple[Any, list[str]]) -> None:
    """Tab to a chart, arrows through its marks, Enter to the layer, Enter to close it."""
    shown, _ = page
    shown.locator(".strip rect[tabindex='0']").focus()
    shown.keyboard.press("ArrowRight")
    shown.keyboard.press("ArrowRight")
    assert shown.evaluate("document.activeElement.dataset.layer") == "2"
    assert "hidden.2" in shown.locator("#tip").inner_text()
    shown.keyboard.press("Enter")
    assert shown.evaluate("document.activeElement.textContent") == "hidden.2"
    assert shown.locator("#layer-2 .detail").is_visible()
    shown.keyboard.press("Enter")
    assert shown.locator("#layer-2 .detail").is_hidden()


AUDIT = (Path(__file__).parent / "audit.js").read_text(encoding="utf-8")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_has_a_name_and_enough_contrast(page: tuple[Any, list[str]], scheme: str) -> None:
    """WCAG 2.1: names of controls and pictures (4.1.2, 1.1.1), contrast of text (1.4.3), headings, ids."""
    shown, _ = page
    shown.emulate_media(color_scheme=scheme)
    shown.evaluate("document.querySelectorAll('tbody').forEach((body) => body.classList.add('open'))")
    faults = shown.evaluate(AUDIT)
    shown.evaluate("document.querySelectorAll('tbody').forEach((body) => body.classList.remove('open'))")
    assert faults == []


def test_the_audit_finds_faults(page: tuple[Any, list[str]]) -> None:
    """The audit itself can fail: pale text, a button without a name, a doubled id, a level left out."""
    shown, _ = page
    shown.evaluate(
        """document.body.insertAdjacentHTML("beforeend", `<div id="bad"><p style="color:#999;background:#fff">pale</p>
           <button></button><h6>deep</h6><i id="tip"></i></div>`)"""
    )
    faults = shown.evaluate(AUDIT)
    shown.evaluate("document.getElementById('bad').remove()")
    assert {fault.split(":")[0] for fault in faults} == {"contrast", "name", "heading", "id"}


def test_print_shows_the_tables_and_hides_the_tools(page: tuple[Any, list[str]]) -> None:
    shown, _ = page
    shown.emulate_media(media="print", color_scheme="dark")
    assert shown.locator(".tools").is_hidden()
    assert shown.locator("nav").is_hidden()
    assert shown.locator("#layer-table").is_visible()
    assert shown.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    shown.set_viewport_size({"width": 718, "height": 1000})  # A4 between margins of 10 mm
    assert shown.evaluate("document.documentElement.scrollWidth") <= 718, "a sheet cuts nothing"
    shown.set_viewport_size({"width": 1400, "height": 900})
    shown.emulate_media(media="screen", color_scheme="light")


def test_a_comparison_is_one_page(
    page: tuple[Any, list[str]], data: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [str(tmp_path / f"{name}.json") for name in "abcd"]
    for name in names:
        Path(name).write_text(json.dumps(data))
    target = tmp_path / "page.html"
    assert compare([*names, "--out", str(target)]) == 0
    assert f"wrote {target}" in capsys.readouterr().out
    text = target.read_text(encoding="utf-8")
    assert "<img" not in text
    assert text.count("hidden.10") == 1, "one row per layer"
    assert str(tmp_path / "a.json") in text, "equal titles are told apart by their files"
    shown, complaints = page[0].context.new_page(), list[str]()
    shown.on("console", lambda message: complaints.append(message.text))
    shown.on("pageerror", lambda error: complaints.append(str(error)))
    shown.goto(target.as_uri())
    shown.get_by_role("button", name="energy 2", exact=True).click()
    shown.get_by_label("Search layers").fill("hidden")
    assert shown.locator("#layer-table tbody:not([hidden])").count() == 2
    assert shown.evaluate(AUDIT) == []
    assert complaints == []
    shown.emulate_media(media="print")
    shown.set_viewport_size({"width": 718, "height": 1000})
    assert shown.evaluate("document.documentElement.scrollWidth") <= 718, "a sheet cuts nothing"
    shown.close()


def test_reports_of_other_networks_have_blank_cells(data: dict[str, Any]) -> None:
    other = {**data, "layers": [{**data["layers"][0], "name": "only here"}]}
    text = comparison_page([data, other], ["a", "b"], [["energy", "1", "2"]], [])
    assert text.count("only here") == 1


def test_what_is_no_whole_report_is_refused(
    data: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.json").write_text(json.dumps(data))
    (tmp_path / "b.json").write_text(json.dumps({**data, "layers": [{"name": "x"}]}))
    out = tmp_path / "page.html"
    assert compare([str(tmp_path / "a.json"), str(tmp_path / "b.json"), "--out", str(out)]) == 2
    assert "layers[0].op is missing" in capsys.readouterr().err
    assert not out.exists()


def test_tensors_that_share_places_on_chip_never_seem_to_take_more_than_there_is(tmp_path: Path) -> None:
    """With lifetimes of rows an output takes the place of an input that dies: whole sizes say more than is held."""
    x, layers = Tensor("x", (1, 8, 16, 16), 8), list[Layer]()
    for name in "abcd":
        layers.append(conv(name, x, 8, taps=1))
        x = layers[-1].output
    Workload("points", tuple(layers)).save(tmp_path / "net.json")
    spec = (ROOT / "accel_specs" / "simba.yaml").read_text(encoding="utf-8")
    (tmp_path / "m.yaml").write_text(spec.replace("size_bits: 524_288", "size_bits: 24_576"), encoding="utf-8")
    report = hwsim.evaluate(tmp_path / "net.json", tmp_path / "m.yaml", bits="W8A8", lifetimes="rows")
    data = report.to_dict()
    held = {stage["layer"]: stage["on_chip_bits"] for stage in data["occupancy"]}
    assert {"a.out", "b.out"} <= set(report.cost.resident)
    both = sum(tensor.size_bits for tensor in (layers[0].output, layers[1].output))
    assert layers[0].output.size_bits < held["b"] <= 24_576 < both
    assert max(held.values()) <= 24_576
    assert f"those that stay on chip take {si(held['b'] / 8, 'B')}" in report_page(data)
    whole = hwsim.evaluate(tmp_path / "net.json", tmp_path / "m.yaml", bits="W8A8").to_dict()
    assert {stage["on_chip_bits"] for stage in whole["occupancy"]} <= {0, layers[0].output.size_bits}
