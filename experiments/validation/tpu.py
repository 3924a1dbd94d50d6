"""TPU v1 (28 nm silicon): throughput and array activity of the six applications of its paper, as far as they are known.

The paper gives weights, batch and operations per weight byte, not the layers. Four applications are bound by weight
bandwidth, where layers hardly matter: they are priced as equal square layers whose sides fill the array, LSTM1 by its
600 x 600 matrices (paper), of which whole 256 x 256 tiles are loaded. The two convolutional ones are compute-bound and
only their ceiling follows from what is known: context.
"""

from __future__ import annotations

from experiments.validation.networks import kept_on_chip, linear
from experiments.validation.rows import Row, Study, read_table
from hwsim.machine.load import load_accelerator
from hwsim.pricing.layer import LayerCost, price
from hwsim.search.layer import search

TILE = 256  # of weights, loaded whole
SIDE = 1024  # of a square layer: four tiles of the array
SIDES = {"LSTM1": 600}  # where the paper names them
WEIGHT_BOUND = ("MLP0", "MLP1", "LSTM0", "LSTM1")
COMPUTE_BOUND = ("CNN0", "CNN1")


def square_layer(side: int, batch: int) -> LayerCost:
    """A layer of side x side weights at a batch, fastest mapping; activations stay in the unified buffer."""
    machine, layer = load_accelerator("tpu_v1"), linear("square", side, side, batch=batch)
    return price(layer, search(layer, machine, "latency").counts, machine, resident=kept_on_chip(layer))


def study() -> Study:
    """Throughput and active cycles."""
    table = {row["metric"]: row for row in read_table("tpu_v1.csv")}
    machine = load_accelerator("tpu_v1")
    peak = 2 * machine.mac_units * machine.clock_mhz / 1e6
    rows: list[Row] = []
    for name in WEIGHT_BOUND:
        side, batch = SIDES.get(name, SIDE), int(table["batch"][name])
        tiles = -(-side // TILE)
        cost = square_layer(tiles * TILE, batch)
        operations = 2 * side**2 * batch
        ours = operations / cost.latency_cycles * machine.clock_mhz / 1e6
        streaming = batch * tiles**2
        active = 100 * streaming / cost.latency_cycles
        rows += [
            Row(name, "throughput", "TOPS", float(table["teraops_per_s"][name]), ours),
            Row(name, "active array cycles", "%", float(table["array_active_cycles_pct"][name]), active),
        ]
    for name in COMPUTE_BOUND:
        rows.append(Row(name, "throughput ceiling", "TOPS", float(table["teraops_per_s"][name]), peak, "context"))
    return Study(
        name="tpu_v1",
        title="TPU v1, fully connected and recurrent networks",
        source="Jouppi et al., ISCA 2017, Tables 1 and 3 (silicon, performance counters)",
        machine="tpu_v1",
        rows=tuple(rows),
        calibrated=(),
        explanation=(
            "All four are bound by the 34 GB/s of weight memory, as the paper says; long reads sustain 0.96 of it "
            "(DRAM simulation). LSTM1's matrices of 600 x 600 are loaded as nine whole tiles; it stays worst: 10.6 % "
            "of its time are RAW stalls, which do not follow from the table. For both LSTMs the table's own figures "
            "disagree by two (LSTM0: 8.2 % of 92 TOPS is 7.5, it states 3.7), so no model can meet both rows. "
            "The designers' own model, which knew the layers, was off by 5 to 11 %."
        ),
    )
