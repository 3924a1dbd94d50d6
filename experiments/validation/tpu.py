"""TPU v1 (28 nm silicon): throughput and array activity of the six applications of its paper, as far as they are known.

The paper gives weights, batch and operations per weight byte, not the layers. Four applications are bound by weight
bandwidth, where layers hardly matter: they are priced as equal square layers whose sides fill the array, LSTM1 by its
600 x 600 matrices (paper), which the spec loads in whole 256 x 256 tiles. The two convolutional ones are compute-bound
and only their ceiling follows from what is known: context. The LSTMs are taken to multiply 16-bit activations, at half
speed: their useful MACs (8.2 and 6.3 % of the peak) are twice their operations per second (3.7 and 2.8 of 92), those
of the MLPs 7 and 11 % less than them.
"""

from __future__ import annotations

import dataclasses

from experiments.validation.networks import kept_on_chip, linear
from experiments.validation.rows import Role, Row, Study, read_table
from hwsim.machine.load import load_accelerator
from hwsim.machine.parts import Accelerator
from hwsim.pricing.layer import LayerCost, price
from hwsim.search.layer import search

TILE = 256  # of weights
SIDE = 1024  # of a square layer: four tiles of the array
SIDES = {"LSTM1": 600}  # where the paper names them
ACTIVATION_BITS = {"LSTM0": 16, "LSTM1": 16}
CALIBRATED = "MLP0"  # its throughput gives the share of the weight memory's bandwidth that is sustained
WEIGHT_BOUND = ("MLP0", "MLP1", "LSTM0", "LSTM1")
COMPUTE_BOUND = ("CNN0", "CNN1")


def square_layer(machine: Accelerator, name: str, side: int, batch: int) -> LayerCost:
    """A layer of side x side weights at a batch, fastest mapping; activations stay in the unified buffer."""
    layer = linear("square", side, side, batch=batch, bits=(8, activation_bits(name), activation_bits(name)))
    return price(layer, search(layer, machine, "latency").counts, machine, resident=kept_on_chip(layer))


def activation_bits(name: str) -> int:
    """Width of an application's activations; see above."""
    return ACTIVATION_BITS.get(name, 8)


def sustaining(machine: Accelerator, share: float) -> Accelerator:
    """The machine whose weight memory sustains another share of the 34 GB/s."""
    outer = machine.outermost
    assert outer.read_bandwidth_bits_per_cycle is not None
    peak = outer.read_bandwidth_bits_per_cycle / outer.efficiency
    slower = dataclasses.replace(outer, read_bandwidth_bits_per_cycle=round(peak * share, 6), efficiency=share)
    return dataclasses.replace(machine, hierarchy=(slower, *machine.hierarchy[1:]))


def measures(machine: Accelerator, name: str, batch: int) -> dict[str, float]:
    """TOPS and per cent of cycles with an active array."""
    side = SIDES.get(name, SIDE)
    tiles = -(-side // TILE)
    cost = square_layer(machine, name, side, batch)
    streaming = batch * tiles**2 * activation_bits(name) / 8
    return {
        "throughput": 2 * side**2 * batch / cost.latency_cycles * machine.clock_mhz / 1e6,
        "active array cycles": 100 * streaming / cost.latency_cycles,
    }


def study() -> Study:
    """Throughput and active cycles."""
    table = {row["metric"]: row for row in read_table("tpu_v1.csv")}
    shipped = load_accelerator("tpu_v1")
    batches = {name: int(table["batch"][name]) for name in WEIGHT_BOUND}
    peak = 2 * shipped.mac_units * shipped.clock_mhz / 1e6
    wanted = float(table["teraops_per_s"][CALIBRATED])
    share = shipped.outermost.efficiency * wanted / measures(shipped, CALIBRATED, batches[CALIBRATED])["throughput"]
    machine = sustaining(shipped, share)
    rows: list[Row] = []
    for name in WEIGHT_BOUND:
        ours = measures(machine, name, batches[name])
        published = {"throughput": table["teraops_per_s"], "active array cycles": table["array_active_cycles_pct"]}
        for quantity, unit in (("throughput", "TOPS"), ("active array cycles", "%")):
            role: Role = "calibration" if name == CALIBRATED else "check"
            rows.append(Row(name, quantity, unit, float(published[quantity][name]), ours[quantity], role))
    for name in COMPUTE_BOUND:
        rows.append(Row(name, "throughput ceiling", "TOPS", float(table["teraops_per_s"][name]), peak, "context"))
    return Study(
        name="tpu_v1",
        title="TPU v1, fully connected and recurrent networks",
        source="Jouppi et al., ISCA 2017, Tables 1 and 3 (silicon, performance counters)",
        machine="tpu_v1 at a sustained share of its weight memory's bandwidth",
        rows=tuple(rows),
        calibrated=(f"{share:.3f} of 34 GB/s sustained, from {CALIBRATED}'s throughput (the spec: 0.96, simulated)",),
        explanation=(
            "All four are bound by the 34 GB/s of weight memory, as the paper says. LSTM1's matrices of 600 x 600 "
            "are loaded as nine whole tiles. It stays worst: 10.6 % of its time are RAW stalls, which do not follow "
            "from the table. The LSTMs multiply 16-bit activations at half speed. So says the table, whose useful "
            "MACs of both are twice their operations per second. The designers' own model, which knew the layers, "
            "was off by 5 to 11 %."
        ),
    )
