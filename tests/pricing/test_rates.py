"""Intervals of latencies: both ends are prices of machines that could be, and every machine in between lies inside."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path

import jsonschema
import pytest

import hwsim
from hwsim.errors import SpecError
from hwsim.evaluate import main
from hwsim.machine.load import load_accelerator, shipped_specs, spec_folder
from hwsim.machine.parts import OPERANDS, Accelerator, Memory, Spread
from hwsim.nest.count import count_accesses
from hwsim.nest.mapping import Hold, Mapping, Temporal
from hwsim.network.layer import Loops
from hwsim.network.workload import Workload
from hwsim.pricing.interval import TimeInterval, energy_interval, exact_time
from hwsim.pricing.layer import LayerCost
from hwsim.pricing.network import NetworkCost, price_network
from hwsim.pricing.rates import Bills, Timed, at_rates
from hwsim.report.page.render import report_page
from hwsim.report.report import SCHEMA_FILE
from tests.small_workloads import chain, residual
from tests.strategies import machine, product, random_machine


def with_rates(plain: Accelerator, **factors: float) -> Accelerator:
    """The machine whose rates may be off by these factors."""
    return dataclasses.replace(plain, rate_spreads=tuple(Spread(n, f, n) for n, f in factors.items()))


def priced(accelerator: Accelerator) -> NetworkCost:
    """The small network under mappings of the quick search."""
    return hwsim.evaluate(chain(size=8), accelerator, effort="quick").cost


def edited(tmp_path: Path, name: str, *changes: tuple[str, str]) -> Accelerator:
    """A shipped spec with other numbers in its file."""
    text = (spec_folder() / f"{name}.yaml").read_text(encoding="utf-8")
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    path = tmp_path / "changed.yaml"
    path.write_text(text, encoding="utf-8")
    return load_accelerator(path)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_an_end_is_the_price_of_a_file_with_that_bandwidth(tmp_path: Path, factor: float) -> None:
    """gemmini_16x16, whose bus may be 64 or 128 bits wide: the end is what a spec that says so gives."""
    report = hwsim.evaluate(chain(size=8), "gemmini_16x16", effort="quick")
    interval = report.cost.latency_interval
    bus = (f"read_bandwidth_bits_per_cycle: {bits}, shared_port" for bits in (64, int(64 * factor)))
    changed = edited(tmp_path, "gemmini_16x16", tuple(bus))  # type: ignore[arg-type]
    counts = {name: found.counts for name, found in report.found.items()}
    at_end = price_network(chain(size=8), changed, counts, resident=frozenset(report.cost.resident))
    assert at_end.totals.latency_s == (interval.low_s if factor > 1 else interval.high_s)
    assert interval.low_s < interval.latency_s < interval.high_s


def test_two_resources_that_bound_a_layer_alike_gain_together_alone_nothing() -> None:
    """512 MACs of a cycle beside 1,576 bits at 1,576 / 512 a cycle: ends are joint, no sum of squares."""
    dram = Memory("dram", None, OPERANDS, word_bits=8, read_bandwidth_bits_per_cycle=1576 / 512)
    plain = machine(dram, Memory("buffer", 10**6, ("weight", "input"), word_bits=8), latches=("output",))
    plain = dataclasses.replace(plain, vector=dataclasses.replace(plain.vector, lanes=10**9))
    layer = product(Loops(K=8, C=16, P=4))
    nest = (Temporal("K", 8), Temporal("P", 4), Temporal("C", 16))
    counts = count_accesses(layer, Mapping((Hold("dram", OPERANDS), Hold("buffer", ("weight", "input")), *nest)), plain)
    rates = with_rates(plain, dram=2.0, mac=2.0)
    found = price_network(Workload("fc", (layer,)), rates, {"fc": counts}, resident=frozenset()).latency_interval
    cycle = 1e-6 / plain.clock_mhz
    assert [rate.down_s for rate in found.rates] == [0.0, 0.0]
    assert [rate.up_s for rate in found.rates] == pytest.approx([512 * cycle] * 2)
    assert (found.low_s, found.high_s) == pytest.approx((256 * cycle, 1024 * cycle))


@pytest.mark.long
@pytest.mark.parametrize("seed", range(12))
def test_every_machine_within_its_spreads_lies_within_the_interval(seed: int) -> None:
    """Draws of all rates, under the same mappings."""
    rng = random.Random(seed)
    plain = dataclasses.replace(random_machine(rng), layer_overhead_cycles=rng.choice((0, 100)))
    names = [m.name for m in plain.memories] + ["mac", "vector", "start"]
    spreads = {name: rng.choice((1.1, 1.5, 3.0)) for name in names if rng.random() < 0.7}
    machine = with_rates(plain, **spreads)
    try:
        cost = priced(machine)
    except hwsim.HwsimError:
        pytest.skip("this machine does not run the network")
    assert cost.timed is not None
    interval, energy = cost.latency_interval, cost.energy_interval
    assert interval.latency_s == cost.totals.latency_s
    for _ in range(5):
        drawn = {name: rng.uniform(1 / factor, factor) for name, factor in spreads.items()}
        seconds = cost.timed.seconds(drawn)
        assert interval.low_s <= seconds <= interval.high_s
    assert energy.low_pj <= energy.energy_pj <= energy.high_pj
    for rate in interval.rates:
        assert rate.down_s <= interval.latency_s - interval.low_s + 1e-12
        assert rate.up_s <= interval.high_s - interval.latency_s + 1e-12


def test_starts_and_macs_move_as_they_say() -> None:
    """A machine that only starts and multiplies: starts of 1,000 cycles and MACs, each a factor 2."""
    plain = dataclasses.replace(load_accelerator("cortex_m4"), layer_overhead_cycles=1000)
    assert at_rates(plain, {"start": 2.0}).layer_overhead_cycles == 500
    cost = priced(with_rates(plain, start=2.0))
    starts = sum(layer.latency_cycles > 0 for layer in cost.layers)
    second = cost.latency_interval.latency_s * plain.clock_mhz * 1e6
    assert cost.latency_interval.low_s * plain.clock_mhz * 1e6 == pytest.approx(second - 500 * starts)
    assert cost.latency_interval.high_s * plain.clock_mhz * 1e6 == pytest.approx(second + 1000 * starts)
    with pytest.raises(KeyError, match="cortex_m4 has no rates of sramm"):
        at_rates(plain, {"sramm": 2.0})
    modes = load_accelerator("h100")
    assert at_rates(modes, {"start": 2.0}).mac.modes[1].start_cycles == round(modes.mac.modes[1].start_cycles / 2)


def test_no_stated_rate_leaves_no_interval() -> None:
    cost = priced(load_accelerator("eyeriss_v1"))
    assert cost.latency_interval == exact_time(cost.totals.latency_s)
    assert cost.latency_interval.widest is None


def test_idle_power_is_paid_as_long_as_the_latency_may_be() -> None:
    """By hand: 10 pJ of idle power over a latency of 1 s that may be 0.5 to 3 s: 5 pJ less or 20 pJ more."""
    bill = (("static", 10.0), ("mac", 2.0))
    found = energy_interval(bill, (), TimeInterval(1.0, 0.5, 3.0, ()))
    assert (found.low_pj, found.high_pj) == (7.0, 32.0)
    both = energy_interval(bill, (Spread("mac", 2.0, "logic"),), TimeInterval(1.0, 0.5, 3.0, ()))
    assert both.high_pj == pytest.approx(12 + (20**2 + 2**2) ** 0.5)


def test_groups_of_layers_have_a_latency_between_bounds() -> None:
    machine = dataclasses.replace(load_accelerator("simba"))
    small = dataclasses.replace(
        machine,
        hierarchy=tuple(
            dataclasses.replace(n, size_bits=24_576) if n.name == machine.memories[1].name else n
            for n in machine.hierarchy
        ),
    )
    cost = hwsim.evaluate(chain(size=32), small, effort="quick", fuse=True).cost
    assert any(layer.group for layer in cost.layers)
    interval = cost.latency_interval
    assert interval.low_s >= interval.latency_s / 2.001
    assert interval.high_s <= interval.latency_s * 2.001


@pytest.mark.parametrize("name", shipped_specs())
def test_rates_of_shipped_specs_name_parts_that_have_some(name: str) -> None:
    machine = load_accelerator(name)
    for spread in machine.rate_spreads:
        assert at_rates(machine, {spread.component: spread.factor}) != machine


BAD = [
    ("read_energy_pj: 4.2,\n     write_energy_pj: 4.2, read_bandwidth_bits_per_cycle: 64, shared_port: true,",
     "read_energy_pj: 4.2,\n     write_energy_pj: 4.2, rate_spread: 2,",
     r"hierarchy\[1\].rate_spread: expected a bandwidth that it is a factor of: no port of this memory has one"),
    ("clock_mhz: 500", "clock_mhz: 500\nrate_spread: 2",
     r"rate_spread: expected layer_overhead_cycles that it is a factor of, or start_cycles of a mode"),
    ("estimated: 16 nm by power law}", "rate_spread: 2}", r"mac.rate_spread: expected estimated beside it"),
    ("estimated: 16 nm by power law}", "estimated: x, rate_spread: 0.5}",
     r"mac.rate_spread: expected a number not below 1, got 0.5"),
    ("inputs: {size: 8, dims: [C]}}, source", "inputs: {size: 8, dims: [C]}}, rate_spread: 2, source",
     r"rate_spread: unknown key"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "message"), BAD)
def test_a_rate_spread_of_nothing_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        edited(tmp_path, "ethos_u55_256", (old, new))


def test_screen_json_and_page_show_the_interval(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    residual(size=8).save(tmp_path / "net.json")
    arguments = [str(tmp_path / "net.json"), "cortex_m4", "--quick"]
    assert main([*arguments, "--explain"]) == 0
    text = capsys.readouterr().out
    assert "all rates fast to all slow; each alone, widest first:\n    mac, a factor 1.5: down" in text
    assert main([*arguments, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    jsonschema.validate(report, json.loads(SCHEMA_FILE.read_text()))
    interval = report["latency_interval"]
    assert interval["low_s"] < report["totals"]["latency_s"] < interval["high_s"]
    assert interval["rates"][0]["name"] == "mac"
    shown = [f"{1e3 * interval[end]:.3g}" for end in ("low_s", "high_s")]
    assert f"({shown[0]} to {shown[1]})" in text
    page = report_page(report)
    assert f"{1e3 * interval['low_s']:.4g} ms to {1e3 * interval['high_s']:.4g} ms" in page
    energies = [report["energy_interval"][end] * 1e-6 for end in ("low_pj", "high_pj")]
    assert f"{energies[0]:.4g} µJ to {energies[1]:.4g} µJ" in page
    assert "Rates that leave the latency open" in page
    assert "Also in the report" not in page
    exact = {**report, "latency_interval": {**interval, "low_s": interval["high_s"]}}
    assert "cycles at 120 MHz" in report_page(exact)


FACTORS = (({}, 1), ({"mac": 4.0, "vector": 1.0}, 4), ({"mac": 4.0, "vector": 2.0}, 4), ({"mac": 0.5}, 0.5))


@pytest.mark.parametrize(("factors", "share"), FACTORS)
def test_a_group_is_at_most_as_much_faster_as_its_fastest_part(factors: dict[str, float], share: float) -> None:
    machine = load_accelerator("eyeriss_v1")
    cost = LayerCost("g", (), 1200, (), "", ())
    timed = Timed(Bills((), {}, frozenset(), {}, {"g": cost}), machine)
    assert timed.seconds(factors) == pytest.approx(1200 / share / (machine.clock_mhz * 1e6))
